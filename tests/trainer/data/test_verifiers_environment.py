"""Environments of verifiers behind the interface of our own ones."""

import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.env_check_records import CheckEvent, EnvCheckTask
from flashrun.api.records import ResolvedEnvironment
from flashrun_trainer.data import rewards
from flashrun_trainer.data.environment import Environment, load_folder
from flashrun_trainer.data.episodes import Episode, play_turns, start_episodes
from flashrun_trainer.data.held_out import has_split, split_spec
from flashrun_trainer.data.messages import Answer, SampledAnswer
from flashrun_trainer.data.rewards import FailureKind, Score
from flashrun_trainer.data.verifiers_environment import hint_for
from flashrun_trainer.env_check_process import CheckReporter, check_environment
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer import verifiers_sources as sources
from tests.trainer.verifiers_sources import project

pytestmark = pytest.mark.verifiers

Load = Callable[..., Environment]


def spec(split: str = "train", **params: Any) -> ResolvedEnvironment:
    return ResolvedEnvironment(id="org/env", digest="0" * 64, split=split, params=params)


@pytest.fixture(scope="module")
def load(verifiers_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """Loads an environment of these files; importing verifiers takes seconds."""
    loaded: list[Environment] = []

    def load(files: Mapping[str, str], split: str = "train", **params: Any) -> Environment:
        folder = tmp_path_factory.mktemp("env")
        for name, text in files.items():
            (folder / name).write_text(text)
        loaded.append(load_folder(folder, spec(split, **params), python=verifiers_python))
        return loaded[-1]

    yield load
    for environment in loaded:
        environment.sdk.close()


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def sampled(text: str, *calls: dict[str, Any], cut_off: bool = False) -> Answer:
    answer = Answer(text, thinks=False)
    answer.sampled = SampledAnswer(text, calls, cut_off, 10, 5)
    return answer


def begin(environment: Environment, row: int = 0) -> Episode:
    """An episode of a row."""
    example = environment.begin_episode(environment.examples[row])
    [opening] = start_episodes(environment, [example])
    if isinstance(opening, BaseException):
        raise opening
    messages, turns = opening
    return Episode(example, messages, [], turns_left=turns)


def play(environment: Environment, *answers: str | Answer, row: int = 0) -> Episode:
    """An episode of a row with these answers; it may end before the last of them."""
    episode = begin(environment, row)
    for answer in answers:
        if not episode.done:
            turn = answer if isinstance(answer, Answer) else sampled(answer)
            play_turns(environment, [(episode, [1], turn)])
    return episode


def score(environment: Environment, episode: Episode, row: int = 0) -> Score:
    examples = [environment.examples[row]]
    [result] = rewards.score_responses(environment, examples, [episode.to_response()])
    return result


# --- what the repository of verifiers ships -----------------------------------------------------


def test_an_environment_of_one_turn_is_asked_and_scored(load: Load) -> None:
    environment = load(project("puzzles", sources.PUZZLES), gym="chain_sum", seed=3)
    assert len(environment.examples) == 8
    system, question = environment.prompt(environment.examples[0])
    assert (system["role"], question["role"]) == ("system", "user")
    total = eval(question["content"].partition(":")[2].strip(" =.") or "0")
    right = play(environment, f"<answer>{total}</answer>")
    assert right.done
    found, wrong = score(environment, right), score(environment, play(environment, "No idea."))
    assert (found.reward, found.success) == (1, True)
    assert wrong.reward < 0.5
    assert not wrong.success
    assert found.metrics == {"check_answer_reward_func": 1, "format_reward_func": 1}


def test_an_environment_of_several_turns_keeps_its_state(load: Load) -> None:
    environment = load(project("countdown", sources.COUNTDOWN))
    episode = play(environment, "abc", "de", "f", "Bye.", "never said", row=1)
    assert [message["content"] for message in episode.messages] == [
        *("There are 3 steps.", "abc", "2 to go after 3 letters.", "de"),
        *("1 to go after 2 letters.", "f"),
        # GymEnv itself lets the model answer the last observation.
        *("0 to go after 1 letters.\nEpisode already ended.", "Bye."),
    ]
    assert score(environment, episode).metrics == {"sum_step_rewards": 1.5, "num_turns": 4}


def test_tools_are_offered_called_and_counted(load: Load) -> None:
    environment = load(project("tools", sources.TOOLS))
    [tool] = environment.tools(environment.examples[0])
    assert tool["function"]["name"] == "add"
    assert set(tool["function"]["parameters"]["properties"]) == {"a", "b"}
    episode = play(
        environment,
        sampled("Let me see.", call("add", a=2, b=1), call("add", a="x", b=1)),
        "It is 3.",
        row=2,
    )
    first, second = (message for message in episode.messages if message["role"] == "tool")
    assert first["content"] == "3"
    assert "concatenate" in second["content"]  # what the tool raises is its result
    assert (first["tool_call_id"], second["tool_call_id"]) == ("call_1_0", "call_1_1")
    assert episode.done
    result = score(environment, episode, row=2)
    assert (result.error, result.reward) == ("", 1)
    assert result.metrics == {
        "right": 1,
        "used": 2,
        "num_turns": 2,
        "total_tool_calls": 2,
        "add_calls": 2,
    }


def test_environments_of_a_group_have_their_own_rows_and_rubrics(load: Load) -> None:
    environment = load(project("several", sources.GROUP))
    assert [example.input for example in environment.examples] == ["Say one.", "Say two."]
    for row, word in enumerate(("one", "two")):
        result = score(environment, play(environment, word, row=row), row)
        assert (result.reward, result.metrics[word]) == (1, 1)


# --- several turns ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def talk(load: Load) -> Environment:
    return load(project("talk", DRAWING), seconds=30.0)


DRAWING = sources.TALK.replace("rows = [", "import random\n    rows = [").replace(
    'f"Question {n}"', 'f"Question {random.random()}"'
)


def counts(environment: Environment) -> tuple[float, float]:
    """How many episodes have begun, with the one that asks, and how many were cleaned up."""
    metrics = score(environment, play(environment, "a")).metrics
    return metrics["begun"], metrics["counted"]


def test_a_prompt_starts_no_episode_and_each_episode_starts_once(talk: Environment) -> None:
    before, _ = counts(talk)
    for example in talk.examples:
        talk.prompt(example)
    two = [play(talk, "a", "b"), play(talk, "c")]
    assert [episode.messages[-1]["content"] for episode in two] == ["You said b.", "You said c."]
    assert counts(talk)[0] == before + 3


def test_an_episode_that_nobody_needs_is_cleaned_up(talk: Environment) -> None:
    _, before = counts(talk)
    for _ in range(2):
        play(talk, "a")
    deadline = time.monotonic() + 30
    while counts(talk)[1] < before + 2:
        assert time.monotonic() < deadline


def test_an_episode_ends_where_the_environment_ends_it(talk: Environment) -> None:
    episode = play(talk, "a", "stop", "b")
    assert episode.messages[-1] == {"role": "user", "content": "Goodbye."}
    assert score(talk, episode).metrics["turns"] == 2
    assert len(play(talk, *"abcdef").last_ids) == 4  # max_turns of the environment


def test_an_episode_that_is_too_long_for_another_answer_is_scored(talk: Environment) -> None:
    episode = play(talk, "a")
    episode.done = True
    assert score(talk, episode).metrics["turns"] == 1


FAULTS = {
    "fall": "in turn 1: VerifiersFailure: RuntimeError: out of words",
    "rewrite": "changes messages that the model has already seen",
}


@pytest.mark.parametrize("word", FAULTS)
def test_an_episode_with_an_error_is_not_judged(talk: Environment, word: str) -> None:
    result = score(talk, play(talk, word))
    assert result.kind is FailureKind.EPISODE
    assert FAULTS[word] in result.error


def test_a_function_of_the_rubric_that_raises_fails_the_judgement(talk: Environment) -> None:
    result = score(talk, play(talk, "spoil"))
    assert result.kind is FailureKind.RAISED
    assert "fragile of its rubric raised ValueError: this answer cannot be judged" in result.error
    assert "fragile" in result.trace


def test_a_metric_without_weight_that_raises_is_left_out(talk: Environment) -> None:
    result = score(talk, play(talk, "a"))
    assert (result.error, result.reward) == ("", 1 + 2 * 0.25)
    assert "unsure" not in result.metrics
    assert result.metrics["fragile"] == 0.25


# --- loading ------------------------------------------------------------------------------------


def test_the_rows_are_the_same_in_every_process(talk: Environment, load: Load) -> None:
    other = load({"environment.py": DRAWING}, seconds=7.5)
    assert other.timeout_seconds == 7.5
    assert other.digest == talk.digest
    assert len({example.input for example in talk.examples}) == 3


def test_the_held_out_split_is_the_eval_dataset(talk: Environment, load: Load) -> None:
    folder = Path("/nowhere")
    assert has_split(folder, split_spec(spec(), "eval"), talk)
    assert not has_split(folder, split_spec(spec(), "exam"), talk)
    held_out = load(project("talk", DRAWING), split="eval")
    assert [example.input for example in held_out.examples] == [talk.examples[0].input]
    with pytest.raises(TrainerError, match="no split 'exam'; its splits are train, eval") as error:
        load(project("talk", sources.TALK), split="exam")
    assert error.value.reason == "SplitMissing"


REFUSED = {
    "functions that compare answers": (sources.COMPARING, "longest of its rubric scores the answe"),
    "a sandbox": (sources.SANDBOX, "Sandbox is a SandboxEnv: it runs code in a hosted sandbox"),
    "something else": (sources.NOTHING, "must return an Environment of verifiers, and returned"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_environment_does_not_get_in_training_is_refused(load: Load, case: str) -> None:
    source, words = REFUSED[case]
    with pytest.raises(TrainerError, match=words) as error:
        load(project("refused", source))
    assert error.value.reason == "EnvironmentInvalid"


def test_a_judge_without_its_key_is_an_error_that_names_the_key(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(TrainerError, match="OPENAI_API_KEY") as error:
        load(project("judged", sources.JUDGED))
    assert error.value.reason == "EnvironmentFailed"
    assert error.value.hint.endswith("add it to [environment].secrets")


def test_an_interpreter_without_the_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "environment.py").write_text(sources.TALK)
    with pytest.raises(TrainerError, match=r"it needs verifiers 0\.3\.1, and .* has none"):
        load_folder(tmp_path, spec())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ModuleNotFoundError: No module named 'nltk'", "provides nltk to [environment].pip"),
        ("Missing required environment variables: TAVILY_API_KEY", "if TAVILY_API_KEY is a secret"),
        ("ValueError: no", "flash env push"),
    ],
)
def test_an_error_while_loading_has_a_hint(text: str, words: str) -> None:
    assert words in hint_for(text)


def test_the_check_of_environments_plays_and_scores_it(
    verifiers_python: Path, tmp_path: Path
) -> None:
    for name, text in project("talk", sources.TALK).items():
        (tmp_path / name).write_text(text)
    events = io.StringIO()
    task = EnvCheckTask(
        folder=str(tmp_path),
        split="train",
        scored=1,
        held_out="eval",
        python=str(verifiers_python),
    )
    check_environment(CheckReporter(task, events))
    read = [CheckEvent.model_validate_json(line) for line in events.getvalue().splitlines()]
    first, *others = (event.row for event in read if event.row)
    assert [answer.score for answer in first.junk] == [4.5, 4.5]  # four turns each
    assert len(others) == 2
    [fault] = (event.fault.sentence for event in read if event.fault)
    assert fault.startswith("1 of 1 examples of split eval are also trained on")
