"""GRPO: it learns from the reward on both sampling engines, and every knob does what it says."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from freesolo.environments import (
    EnvironmentSingleTurn,
    RewardResult,
)

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import Scale
from flashrun_trainer.data import openings, retries, stopping
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.data.messages import Answer
from flashrun_trainer.pod.distributed import ProcessGroup
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer import forks
from tests.trainer.chat_templates import tokenizer_with
from tests.trainer.engines import INSTALLED_ENGINES
from tests.trainer.pods import HEAD, TrainerPod, Workshop, fifths, resolved, rows, sums


def was_sampled_by(pod: TrainerPod, engine: str) -> bool:
    """Whether the engine has sampled, as the log says; a stand-in takes vLLM's place."""
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    named = log.split("completions are sampled by ")[1].split(":")[0]
    return named == ("transformers" if engine == "transformers" else "vLLM")


def mismatch(pod: TrainerPod) -> list[float]:
    """The difference between vLLM's and the trainer's log-probabilities, one per step."""
    return pod.values("sampling/sampling_logp_difference/mean")


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("engine", INSTALLED_ENGINES, indirect=True)
def test_grpo_learns_from_the_reward(workshop: Workshop, engine: str):
    pod = workshop.pod(
        resolved("grpo", steps=40, group_size=8, max_tokens=16, learning_rate=3e-3, save_every=20)
    )
    assert pod.train() == Exit.DONE
    for learned in ("reward", "env/digits"):
        first, last = fifths(pod.values(learned))
        assert last > 2 * first
    assert pod.steps() == [(1, 20), (1, 40)]
    assert was_sampled_by(pod, engine)
    if engine != "transformers":
        # With the weights of an earlier step, the last differences would be large.
        assert max(mismatch(pod)) < 0.1


MULTI_TURN = '''
from freesolo.environments import (
    EnvironmentMultiTurn, EnvironmentStepResult, RewardResult,
)


class Guess(EnvironmentMultiTurn):
    """Three answers; the environment repeats what it heard."""

    def start_episode(self, example, prompt_text):
        return [{"role": "user", "content": example.input}]

    def max_episode_turns(self, example):
        return 3

    def step_episode(self, example, messages, assistant_response):
        assert messages[-1] == {"role": "assistant", "content": assistant_response}
        heard = {"role": "user", "content": "Again."}
        return EnvironmentStepResult(done=False, messages=(heard,), metadata={"heard": True})

    def score_episode(self, example, episode):
        answers = [m["content"] for m in episode.messages if m["role"] == "assistant"]
        assert len(answers) == 3, answers
        assert len(episode.turns) == len(episode.messages)
        assert episode.metadata == {"heard": True}
        text = "".join(answers)
        return RewardResult(score=sum(c.isdigit() for c in text) / max(1, len(text)))


def load_environment():
    return Guess()
'''


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("engine", INSTALLED_ENGINES, indirect=True)
def test_grpo_learns_from_episodes_of_several_turns(workshop: Workshop, engine: str):
    pod = workshop.pod(
        resolved("grpo", steps=30, group_size=4, max_tokens=8, learning_rate=3e-3, save_every=50),
        sums(environment=MULTI_TURN),
    )
    assert pod.train() == Exit.DONE
    first, last = fifths(pod.values("reward"))
    assert last > 2 * first
    assert pod.values("reward_errors") == [0.0] * 30
    assert was_sampled_by(pod, engine)
    # An episode does not end at a stop sequence; the template writes one itself.
    told = pod.store.get_bytes(names.rollouts_key(pod.prefix, 1)).decode().splitlines()
    assert [json.loads(line)["completion"].count("Again.") for line in told] == [2] * 8
    if engine != "transformers":
        assert max(mismatch(pod)) < 0.1


BEGINNINGS = """
from itertools import count

from freesolo.environments import (
    EnvironmentMultiTurn, EnvironmentStepResult, RewardResult,
)


class Games(EnvironmentMultiTurn):
    '''Every episode is another game; the fourth cannot begin, and the fifth is too long.'''

    max_score_concurrency = 1
    games = count(1)

    def start_episode(self, example, prompt_text):
        game = next(self.games) - 1  # the first is for the prompt's length
        if game == 4:
            raise ConnectionError("no board is free")
        return [{"role": "user", "content": f"Game {game} " + "and on " * 99 * (game == 5)}]

    def max_episode_turns(self, example):
        return 1

    def step_episode(self, example, messages, assistant_response):
        return EnvironmentStepResult(done=True)

    def score_episode(self, example, episode):
        return RewardResult(score=float(episode.messages[0]["content"].split()[1]))


def load_environment():
    return Games()
"""


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_every_episode_has_a_beginning_of_its_own(workshop: Workshop, engine: str):
    run = resolved("grpo", steps=2, batch_size=1, group_size=4, max_examples=1)
    pod = workshop.pod(run, sums(environment=BEGINNINGS))
    assert pod.train() == Exit.DONE, pod.termination
    text = pod.store.get_bytes(names.rollouts_key(pod.prefix, 1)).decode()
    first = [json.loads(line) for line in text.splitlines()]
    assert [row["score"] for row in first] == [1, 2, 3, None]
    assert [row["prompt"][0]["content"] for row in first[:3]] == ["Game 1 ", "Game 2 ", "Game 3 "]
    assert first[3]["error"] == "at the start: ConnectionError: no board is free"
    assert first[3]["reward"] is None
    text = pod.store.get_bytes(names.rollouts_key(pod.prefix, 2)).decode()
    second = [json.loads(line) for line in text.splitlines()]
    assert "start_episode gave" in second[0]["error"]
    assert [row["score"] for row in second] == [None, 6, 7, 8]
    assert pod.values("reward_errors") == [0.25, 0.25]
    assert was_sampled_by(pod, engine)
    if engine != "transformers":
        # With the same opening for the whole group, the differences would be large.
        assert max(mismatch(pod)) < 0.1


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_completions_end_at_a_stop_sequence(workshop: Workshop, engine: str):
    stops = ("e", "o", "a", "t")
    pod = workshop.pod(resolved("grpo", steps=2, stop_sequences=stops, max_tokens=32))
    assert pod.train() == Exit.DONE
    assert was_sampled_by(pod, engine)
    assert max(pod.values("completions/mean_length")) < 24
    for step in (1, 2):
        text = pod.store.get_bytes(names.rollouts_key(pod.prefix, step)).decode()
        for line in text.splitlines():
            assert not set(json.loads(line)["completion"]) & set("eoat")


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_completions_end_at_a_special_token(
    workshop: Workshop, engine: str, monkeypatch: pytest.MonkeyPatch
):
    from flashrun_trainer import grpo

    sampled: list[list[int]] = []
    texts: list[str] = []
    reward, parse = grpo.RewardFunction.reward, grpo.parse_answer

    def watched(scorer: Any, prompts: Any, completion_ids: Any, *others: Any, **more: Any) -> Any:
        sampled.extend(completion_ids)
        return reward(scorer, prompts, completion_ids, *others, **more)

    def parsed(*given: Any) -> Answer:
        answer = parse(*given)
        texts.append(answer.raw)
        return answer

    monkeypatch.setattr(grpo.RewardFunction, "reward", watched)
    monkeypatch.setattr(grpo, "parse_answer", parsed)
    pod = workshop.pod(
        resolved("grpo", steps=1, group_size=16, max_tokens=64, stop_sequences=("<|im_start|>",))
    )
    assert pod.train() == Exit.DONE
    assert was_sampled_by(pod, engine)
    start = 1  # the tiny model's special tokens are its first ones
    ended = [ids for ids in sampled if start in ids]
    assert ended
    assert [ids.index(start) + 1 for ids in ended] == [len(ids) for ids in ended]
    assert not any("<|im_start|>" in text for text in texts)


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_advantage_clip_is_recorded_and_changes_nothing(workshop: Workshop):
    plain = workshop.pod(resolved("grpo", steps=3))
    clipped = workshop.pod(resolved("grpo", steps=3, advantage_clip=0.001))
    assert [plain.train(), clipped.train()] == [0, 0]
    assert plain.weights == clipped.weights
    spec = json.loads(clipped.store.get_bytes(names.spec_key(clipped.prefix)))
    assert spec["train"]["advantage_clip"] == 0.001


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_prompts_of_a_group_and_what_is_not_learned_are_not_computed_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    import torch
    from safetensors.torch import load

    from flashrun_trainer import grpo

    share, rows_to_compute = grpo.compute_shared, grpo.rows_to_compute
    computed: list[int] = []

    def watched(model: Any, ids: Any, *rest: Any) -> Any:
        computed.append(len(ids))
        return share(model, ids, *rest)

    monkeypatch.setattr(grpo, "compute_shared", watched)
    # What max_tokens cuts off is not learned; the tiny model ends some answers.
    changes: dict[str, Any] = {"steps": 1, "group_size": 8, "max_tokens": 96, "max_length": 256}
    pods = [workshop.pod(resolved("grpo", stop_sequences=(), **changes)) for _ in range(3)]
    assert pods[0].train() == Exit.DONE
    monkeypatch.setattr(grpo, "can_share", lambda *_: False)
    assert pods[1].train() == Exit.DONE
    monkeypatch.setattr(grpo, "rows_to_compute", lambda mask, _: rows_to_compute(mask))
    assert pods[2].train() == Exit.DONE

    (learned,) = pods[0].values("completions/learned")
    assert computed == [learned]
    assert 1 < learned < 16
    for name in ("loss", "grad_norm", "entropy"):
        values = [pod.values(name)[0] for pod in pods]
        assert values == pytest.approx([values[2]] * 3, rel=1e-4, abs=1e-6), name
        assert values[2], name
    weights = [load(pod.published("adapter_model.safetensors")) for pod in pods]
    # Adam's first step is of the size of the learning rate, also where a gradient is only rounding.
    for other in weights[:2]:
        torch.testing.assert_close(other, weights[2], rtol=1e-3, atol=2e-5)


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_the_kl_penalty_measures_the_distance_to_the_base_model(workshop: Workshop):
    free = workshop.pod(resolved("grpo", steps=4))
    bound = workshop.pod(resolved("grpo", steps=4, kl_penalty_coef=0.5))
    assert [free.train(), bound.train()] == [0, 0]
    assert free.values("kl") == []
    assert bound.values("kl")[0] == pytest.approx(0, abs=1e-6)
    assert bound.values("kl")[-1] > 0
    assert free.weights != bound.weights


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("checkpointing", "shared"), [(False, 2), (True, 0)])
def test_with_gradient_checkpointing_the_reference_is_computed_as_the_policy_is(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, checkpointing: bool, shared: int
):
    from flashrun_trainer import grpo, trl_arguments

    arguments, share = trl_arguments.grpo, grpo.compute_shared
    calls: list[Any] = []

    def as_on_a_gpu(*given: Any) -> dict[str, Any]:
        return arguments(*given) | {"gradient_checkpointing": checkpointing}

    def watched(model: Any, *given: Any) -> Any:
        calls.append(model)
        return share(model, *given)

    monkeypatch.setattr(trl_arguments, "grpo", as_on_a_gpu)
    monkeypatch.setattr(grpo, "compute_shared", watched)
    pod = workshop.pod(resolved("grpo", steps=1, max_tokens=8, kl_penalty_coef=0.5))

    assert pod.train() == Exit.DONE
    assert len(calls) == shared
    assert pod.values("kl") == [pytest.approx(0, abs=1e-6)]


THINKING = """
import json
from pathlib import Path

from freesolo.environments import EnvironmentSingleTurn, RewardResult


class Watching(EnvironmentSingleTurn):
    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": example.input}]

    def score_response(self, example, response_text):
        seen = [str(response_text), response_text.thinking, response_text.raw]
        with Path(__file__).with_name("seen.jsonl").open("a") as file:
            file.write(json.dumps(seen) + chr(10))
        return RewardResult(score=1.0)


def load_environment():
    return Watching()
"""


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_a_scorer_sees_the_answer_and_the_reasoning_beside_it(workshop: Workshop):
    run = resolved("grpo", steps=2, thinking=True, thinking_length_penalty_coef=0.1, max_tokens=12)
    pod = workshop.pod(run, sums(environment=THINKING))
    assert pod.train() == Exit.DONE
    text = (pod.inside.environment / "seen.jsonl").read_text()
    seen = [json.loads(line) for line in text.splitlines()]
    assert len(seen) == 16
    for answer, thinking, raw in seen:
        assert "<think>" not in answer
        assert answer in raw
        assert thinking in raw


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("thinking", "answer"), [(True, "7"), (False, "<think>1</think>7")])
def test_reasoning_is_left_out_of_what_is_scored_only_of_a_run_that_thinks(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, thinking: bool, answer: str
):
    monkeypatch.setattr(stopping, "text_until_stop", lambda *_: "<think>1</think>7")
    pod = workshop.pod(resolved("grpo", steps=1, thinking=thinking), sums(environment=THINKING))
    assert pod.train() == Exit.DONE
    text = (pod.inside.environment / "seen.jsonl").read_text()
    assert {json.loads(line)[0] for line in text.splitlines()} == {answer}


CHANNELS = {
    "gptoss": (
        "<|channel|>analysis<|message|>One and one.<|end|><|start|>assistant<|channel|>final"
        "<|message|>It is 2.<|return|>"
    ),
    "gemma4_v5": "<|channel>thought\nOne and one.\n<channel|>It is 2.<turn|>",
}


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("template", CHANNELS)
def test_a_scorer_sees_the_channel_of_the_answer(tiny_model: Path, template: str, thinking: bool):
    from flashrun_trainer import grpo

    tokenizer = tokenizer_with(template, tiny_model)
    ids = tokenizer(CHANNELS[template], add_special_tokens=False)["input_ids"]
    answer = grpo.parse_answer(tokenizer, resolved("grpo", thinking=thinking), ids, False)
    assert answer == "It is 2."
    assert answer.thinking.strip() == answer.first_thought.strip() == "One and one."


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_prompts_without_room_for_a_completion_are_dropped(workshop: Workshop, tmp_path: Path):
    long = "What is " + "1 plus " * 60
    data = rows(("What is 1 plus 1?", "2"), (long, "60"), ("What is 2 plus 2?", "4"))
    pod = workshop.pod(resolved("grpo", steps=2, batch_size=8), sums(train=data))
    assert pod.train() == Exit.DONE
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    assert "1 of 3 prompts are longer than max_length - max_tokens = 120 tokens: dropped" in log
    assert "batch_size = 8 is lowered to 2 (prompts: 2, processes: 1)" in log


def rollouts(pod: TrainerPod, step: int) -> list[dict]:
    text = pod.store.get_bytes(names.rollouts_key(pod.prefix, step)).decode()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_a_step_keeps_a_sample_of_its_rollouts_with_the_parts_of_the_reward(grpo_run: TrainerPod):
    for step in (1, 2, 3):
        kept = rollouts(grpo_run, step)
        assert len(kept) == 8
        for row in kept:
            assert row["step"] == step
            assert [message["role"] for message in row["prompt"]] == ["user"]
            assert row["metrics"].keys() == {"digits", "right"}
            parts = 0.5 * row["metrics"]["digits"] + 0.5 * row["metrics"]["right"]
            assert row["reward"] == row["score"] == pytest.approx(parts)


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_completions_are_no_longer_than_max_tokens(grpo_run: TrainerPod):
    assert max(grpo_run.values("completions/max_length")) <= 8


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_a_low_temperature_samples_the_same_again(workshop: Workshop):
    pod = workshop.pod(resolved("grpo", steps=1, temperature=1e-4))
    assert pod.train() == 0
    kept = rollouts(pod, 1)
    assert len({row["completion"] for row in kept[:4]}) == 1
    assert pod.values("frac_reward_zero_std") == [1.0]


REASONING = (
    HEAD
    + """
    def score_response(self, example, response_text):
        return RewardResult(score=len(response_text.thinking) / 1000)


def load_environment():
    return Environment()
"""
)


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_reasoning_costs_its_coefficient_a_token(workshop: Workshop, tiny_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    # A template that opens the reasoning itself, like those of models that always reason.
    run = resolved("grpo", steps=1, thinking=True, thinking_length_penalty_coef=0.01)
    pod = workshop.pod(run, sums(environment=REASONING))
    folder = pod.inside.model_folder(pod.run)
    template = (folder / "chat_template.jinja").read_text()
    opened = template.replace(
        "{%- if enable_thinking is defined and enable_thinking is false %}",
        "{%- if enable_thinking %}{{ '<think>\\n' }}{%- else %}",
    )
    assert opened != template
    try:
        (folder / "chat_template.jinja").write_text(opened)
        assert pod.train() == 0, pod.termination
    finally:
        (folder / "chat_template.jinja").write_text(template)
    kept = rollouts(pod, 1)
    for row in kept:
        thought = Answer(row["completion"], opened=True).first_thought
        tokens = len(tokenizer(thought, add_special_tokens=False)["input_ids"])
        assert tokens > 0
        assert row["score"] - row["reward"] == pytest.approx(0.01 * tokens)
    assert pod.values("thinking_penalty")[0] > 0


class Judge(EnvironmentSingleTurn):
    def build_prompt_messages(self, example: Any, prompt_text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "?"}]

    def score_response(self, example: Any, response_text: str) -> RewardResult:
        return RewardResult(score=float(len(response_text)))


def last_warning(
    sdk: EnvironmentSingleTurn, tiny_model: Path, last: str, lengths: list[int]
) -> str:
    """The warning after five steps with completions of these lengths and this last token."""
    from flashrun_trainer import model
    from flashrun_trainer.grpo import Prompt, RewardFunction

    said: list[str] = []
    example = SimpleNamespace(name="first", record={})
    context: Any = SimpleNamespace(
        run=resolved("grpo", stop_sequences=()),
        environment=Environment(sdk, [example], ""),
        process_group=ProcessGroup(),
        reporter=SimpleNamespace(warn=said.append, queue_rollouts=lambda *_: None),
    )
    callback: Any = SimpleNamespace(timer=SimpleNamespace(timed=lambda _: nullcontext()))
    tokenizer = model.load_tokenizer(tiny_model)
    one, end = tokenizer.convert_tokens_to_ids(["1", last])
    ends = frozenset({tokenizer.eos_token_id, tokenizer.pad_token_id})
    rewards = RewardFunction(
        context, tokenizer, ends, [Prompt(example, [], [one], False)], callback
    )
    for step in range(5):
        state = SimpleNamespace(global_step=step)
        rewards.reward(["0"] * 4, [[one] * length + [end] for length in lengths], state)
    return said[-1]


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("1", "all completions were cut off at max_tokens = 8"),
        ("<|im_end|>", ""),
        # TRL also learns from these.
        ("<|endoftext|>", ""),
    ],
)
def test_a_completion_is_cut_off_unless_a_token_ends_it(tiny_model: Path, last: str, words: str):
    said = last_warning(Judge(), tiny_model, last, lengths=[1, 2, 3, 4])
    assert words in said
    assert bool(said) == bool(words)


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_a_reward_that_sometimes_fails_does_not_hide_that_the_others_are_equal(
    tiny_model: Path,
):
    class Zero(Judge):
        def score_response(self, example: Any, response_text: str) -> RewardResult:
            return RewardResult(score=0.0 / (len(response_text) - 1))

    said = last_warning(Zero(), tiny_model, "<|im_end|>", lengths=[1, 2, 3, 4])
    assert "1 of 4 responses of step 5" in said
    assert "all completions of a prompt had the same reward" in said


SCORE = HEAD + "    def score_response(self, example, response_text):\n"
LOAD = "\n\ndef load_environment(**params):\n    return Environment()\n"


JUDGE = """
import json
from pathlib import Path

from freesolo.environments import EnvironmentSingleTurn, RewardResult

CALLS = Path(__file__).with_name("calls.jsonl")


class Judge(EnvironmentSingleTurn):
    max_score_concurrency = 1
    calls = 0

    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": example.input}]

    def score_response(self, example, response_text):
        number, self.calls = self.calls, self.calls + 1
        with CALLS.open("a") as file:
            file.write(json.dumps([example.input, str(response_text)]) + chr(10))
        if FROM <= number < TO:
            raise ConnectionError("the judge is away")
        return RewardResult(score=sum(map(str.isdigit, response_text)))


def load_environment():
    return Judge()
"""


def judged_pod(workshop: Workshop, away: tuple[int, int], **changes: Any) -> TrainerPod:
    """A pod whose judge, of eight calls a step, is away for the calls of this range."""
    begin, end = away
    source = JUDGE.replace("FROM", str(begin)).replace("TO", str(end))
    return workshop.pod(resolved("grpo", **changes), sums(environment=source))


def calls_of(pod: TrainerPod) -> list[list[str]]:
    """The prompts and answers that the judge was asked about, call by call."""
    text = (pod.inside.environment / "calls.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries that are short."""
    monkeypatch.setattr(retries, "_PAUSES_SECONDS", (0.01,))


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("impatient")
def test_a_judge_that_is_away_for_a_step_changes_nothing_that_is_learned(workshop: Workshop):
    undisturbed = judged_pod(workshop, (0, 0), steps=4)
    pod = judged_pod(workshop, (8, 24), steps=4)
    assert [undisturbed.train(), pod.train()] == [Exit.DONE, Exit.DONE]
    assert pod.weights == undisturbed.weights
    for name in ("reward", "loss", "completions/mean_length", "tokens"):
        assert pod.values(name) == undisturbed.values(name)
    assert pod.values("reward_errors") == [0.0] * 4
    # The same completions are judged again, without sampling new ones.
    calls = calls_of(pod)
    assert calls[8:16] == calls[16:24] == calls[24:32]
    assert calls[:8] + calls[24:] == calls_of(undisturbed)
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    assert "nothing of step 2 could be judged, in row" in log
    assert "ConnectionError: the judge is away; it is tried again within 20 minutes" in log


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("impatient")
def test_prompts_that_cannot_be_judged_give_way_to_others(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    from flashrun_trainer.grpo import GrpoTrainer

    sample, counts = GrpoTrainer._generate_and_score_completions, set()

    def sample_and_count(self: Any, inputs: Any) -> Any:
        batch = sample(self, inputs)
        counts.update(map(len, self._metrics["train"].values()))
        return batch

    monkeypatch.setattr(GrpoTrainer, "_generate_and_score_completions", sample_and_count)
    pod = judged_pod(workshop, (8, 32), steps=3)
    assert pod.train() == Exit.DONE
    assert counts == {1}  # no metric of completions that are dropped
    asked = [prompt for prompt, _ in calls_of(pod)]
    second, other, third = asked[8:16], asked[32:40], asked[40:]
    assert asked[8:32] == second * 3
    assert not set(second) & set(other)
    assert len(third) == 8
    assert pod.values("reward_errors") == [0.0] * 3


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("impatient")
def test_a_judge_that_stays_away_ends_the_attempt_and_the_next_one_resumes(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retries, "BUDGET_SECONDS", 0.5)
    undisturbed = judged_pod(workshop, (0, 0), steps=5)
    pod = judged_pod(workshop, (24, 10**6), steps=5, save_every=100)
    assert undisturbed.train() == Exit.DONE
    assert pod.train() == Exit.TEMPORARY
    assert pod.termination.reason == "JudgeUnavailable"
    assert "nothing of step 4 could be judged for" in pod.termination.message
    assert "ConnectionError: the judge is away" in pod.termination.message
    assert pod.steps() == [(1, 3)]
    assert [row.step for row in pod.metrics] == [1, 2, 3]
    assert rollouts(pod, 4)[0]["score"] is None
    resumed = pod.next()
    # The judge is back: it counts its calls from 0 again.
    assert resumed.train() == Exit.DONE
    assert resumed.weights == undisturbed.weights


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_status_shows_the_judges_own_sentence_while_it_is_away(workshop: Workshop):
    pod = judged_pod(workshop, (8, 10**6), steps=3)
    with forks.started(pod):
        heartbeat = pod.wait_for(lambda: (found := pod.heartbeat) and found.warning and found)
    assert heartbeat.progress.step == 1
    assert "nothing of step 2 could be judged, in row" in heartbeat.warning
    assert "ConnectionError: the judge is away; it is tried again" in heartbeat.warning


@pytest.mark.trainer
def test_a_process_with_too_many_calls_that_hang_makes_room_for_a_new_one():
    from flashrun_trainer.grpo import check_left_behind

    check_left_behind([0, 256])
    with pytest.raises(TrainerError, match="257 calls of the environment hang") as error:
        check_left_behind([0, 257])
    assert (error.value.code, error.value.reason) == (Exit.TEMPORARY, "JudgeUnavailable")


DRAWS = """
    reward_timeout_seconds = 0.5
    max_score_concurrency = THREADS

    def score_response(self, example, response_text):
        import random
        import threading
        import time

        import numpy
        import torch

        def draw():
            random.seed(1)
            numpy.random.seed(1)
            torch.manual_seed(1)
            random.random(), numpy.random.random(), torch.rand(3)

        if "DRAWS":
            draw()
            # The first call is left behind, and draws while the next step is sampled.
            if not self.called:
                self.called = True
                while True:
                    time.sleep(0.01)
                    draw()
        return RewardResult(score=sum(map(str.isdigit, response_text)))

    called = False


def load_environment(**params):
    return Environment()
"""


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("threads", [1, 4])
def test_what_an_environment_draws_or_seeds_changes_nothing_that_is_sampled(
    workshop: Workshop, threads: int
):
    sampled = []
    for draws in (False, True):
        code = DRAWS.replace('"DRAWS"', str(draws)).replace("THREADS", str(threads))
        # Nothing is learned, so that the first score, which is missing, has no part in it.
        run = resolved("grpo", steps=3, learning_rate=1e-12)
        pod = workshop.pod(run, sums(environment=HEAD + code))
        assert pod.train() == Exit.DONE, pod.termination
        steps = [[row["completion"] for row in rollouts(pod, step)] for step in (1, 2, 3)]
        sampled.append(steps)
        assert pod.values("reward_failed/timed_out") == ([1.0] if draws else [])
    assert sampled[0] == sampled[1]
    assert sampled[0][0] != sampled[0][1]


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_two_processes_try_a_step_again_together(workshop: Workshop):
    # Each process has four calls a step; with one call at once for both, they take turns.
    scale = Scale(gpus=2)
    undisturbed = judged_pod(workshop, (0, 0), steps=2, scale=scale)
    pod = judged_pod(workshop, (4, 8), steps=2, scale=scale)
    assert [forks.trained(undisturbed), forks.trained(pod)] == [Exit.DONE, Exit.DONE]
    assert pod.weights == undisturbed.weights
    assert len(calls_of(pod)) == len(calls_of(undisturbed)) + 8


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("impatient")
def test_an_environment_that_never_judges_ends_the_run(workshop: Workshop):
    pod = judged_pod(workshop, (0, 10**6), steps=5)
    assert pod.train() == Exit.ENVIRONMENT
    assert pod.termination.reason == "RewardFailed"
    assert "in 5 tries: in row" in pod.termination.message
    assert len(calls_of(pod)) == 5 * 8


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_a_reward_that_fails_now_and_then_is_counted(workshop: Workshop):
    source = """        if next(COUNT) % 4 == 0:
            raise ConnectionError("the judge is away")
        return RewardResult(score=1.0)
"""
    pod = workshop.pod(
        resolved("grpo", steps=3),
        sums(environment="import itertools\nCOUNT = itertools.count()\n" + SCORE + source + LOAD),
    )
    assert pod.train() == Exit.DONE
    assert pod.values("reward_errors") == [0.25] * 3
    assert pod.values("reward") == [1.0] * 3
    assert pod.values("reward_failed/raised") == [2.0] * 3
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    assert "the reward failed for 2 of 8 responses of step 1, which are not learned: in row " in log


ODD = """
from itertools import count
from time import sleep

from freesolo.environments import EnvironmentMultiTurn, EnvironmentStepResult, RewardResult

NUMBERS = count()
USER = {"role": "user", "content": "Again."}


def says(*messages):
    return EnvironmentStepResult(done=False, messages=messages)


class Odd(EnvironmentMultiTurn):
    reward_timeout_seconds = 1.0
    max_score_concurrency = 1
    turns = count()

    def start_episode(self, example, prompt_text):
        number = next(NUMBERS) - 1  # the first is for the prompt's length
        content = {4: "half \\ud83d", 5: "over and " * 200}.get(number, f"Number {number}")
        role = "tool" if number == 6 else "user"
        return [] if number == 7 else [{"role": role, "content": content}]

    def max_episode_turns(self, example):
        if next(self.turns) == 3:
            raise LookupError("no such game")
        return 2

    def step_episode(self, example, messages, assistant_response):
        match messages[0]["content"]:
            case "Number 0":
                return says({"role": "user", "content": "half \\ud83d"})
            case "Number 1":
                return says({"role": "tool", "content": "refused"})
            case "Number 2":
                return says(*messages, USER)
            case "Number 8":
                sleep(60)
        return says(USER)

    def score_episode(self, example, episode):
        return RewardResult(score=float(episode.messages[0]["content"].split()[1]))


def load_environment():
    return Odd()
"""


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_whatever_an_environment_says_ends_one_episode_and_names_its_row_and_turn(
    workshop: Workshop,
):
    run = resolved("grpo", steps=1, batch_size=1, group_size=12, max_examples=1)
    pod = workshop.pod(run, sums(environment=ODD))
    folder = pod.inside.model_folder(pod.run)
    template = (folder / "chat_template.jinja").read_text()
    refusing = "{%- for m in messages if m.role == 'tool' %}{{ raise_exception('no tools') }}"
    try:
        (folder / "chat_template.jinja").write_text(refusing + "{%- endfor %}" + template)
        assert pod.train() == Exit.DONE, pod.termination
    finally:
        (folder / "chat_template.jinja").write_text(template)
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    assert "9 of 12 responses of step 1, which are not learned: in row 1: in turn 1: " in log
    assert pod.values("reward_failed/episode") == [9.0]
    assert pod.values("reward") == [10.0]
    errors = [row.get("error", "") for row in rollouts(pod, 1)]
    for error, words in zip(
        errors,
        (
            "in turn 1: messages that end with",
            "in turn 1: the model's chat template refuses",
            "in turn 1: ValueError: step_episode returned the conversation",
            "at the start: LookupError: no such game",
            "at the start: messages that end with",
            "at the start: ValueError: start_episode gave",
            "at the start: the model's chat template refuses",
            "at the start: ValueError: messages must be a list",
        ),
        strict=True,
    ):
        assert words in error


BOARDS = """
from freesolo.environments import EnvironmentMultiTurn, EnvironmentStepResult, RewardResult


class Boards(EnvironmentMultiTurn):
    def start_episode(self, example, prompt_text):
        if example.input == "b":
            raise ConnectionError("no board")
        return [{"role": "user", "content": example.input}]

    def max_episode_turns(self, example):
        return 1

    def step_episode(self, example, messages, assistant_response):
        return EnvironmentStepResult(done=True)

    def score_episode(self, example, episode):
        return RewardResult(score=float(len(episode.response_text) % 5))


def load_environment():
    return Boards()
"""


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_a_row_whose_episodes_never_open_costs_the_run_nothing_else(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(openings, "_PAUSES_SECONDS", ())
    data = rows(("a", ""), ("b", ""), ("c", ""))
    run = resolved("grpo", steps=1, batch_size=3, group_size=2)
    pod = workshop.pod(run, sums(environment=BOARDS, train=data))
    assert pod.train() == Exit.DONE, pod.termination
    errors = [row.get("error") for row in rollouts(pod, 1)]
    assert errors.count("at the start: ConnectionError: no board") == 2
    assert errors.count(None) == 4
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    assert "1 of 3 rows have an episode that could not be opened before training: " in log


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_a_reward_without_spread_is_warned_about_while_it_lasts(workshop: Workshop):
    source = SCORE + "        return RewardResult(score=1.0)" + LOAD
    pod = workshop.pod(resolved("grpo", steps=100_000), sums(environment=source))
    with forks.started(pod):
        heartbeat = pod.wait_for(lambda: (found := pod.heartbeat) and found.warning and found)
    assert "all completions of a prompt had the same reward" in heartbeat.warning
