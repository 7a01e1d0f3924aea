"""The environment: its examples, prompts and outputs, and which errors are its own."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from freesolo import environments
from freesolo.datasets import TaskExample
from freesolo.environments import EnvironmentMultiTurn

from flashrun.api.exits import Exit
from flashrun.api.records import ResolvedEnvironment
from flashrun_trainer.data import environment
from flashrun_trainer.data.environment import Environment, environment_errors
from flashrun_trainer.data.episodes import start_episodes
from flashrun_trainer.pod.distributed import ProcessGroup
from flashrun_trainer.pod.trainer_errors import InterruptedBeforeTraining, TrainerError
from tests.trainer.panics import PanicError
from tests.trainer.pods import HEAD, Workshop, resolved, rows, sums


def spec(**params: Any) -> ResolvedEnvironment:
    split = params.get("split", "train")
    return ResolvedEnvironment(id="org/env", digest="0" * 64, split=split, params=params)


class Board(EnvironmentMultiTurn):
    """An environment whose examples come from code and change while it is used."""

    dataset = (TaskExample({}, "Go.", metadata={(0, 1): "x", "turn": 1}),)
    limit: Any = 3

    def start_episode(self, example, prompt_text):
        example.metadata["turn"] += 1
        return [{"role": "user", "content": example.input}]

    def max_episode_turns(self, example):
        return self.limit

    def step_episode(self, example, messages, assistant_response): ...

    def score_episode(self, example, episode): ...


def test_the_digest_is_that_of_the_examples_as_they_were_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "environment.py").touch()
    monkeypatch.setattr(environments, "load_environment", lambda *_, **__: Board())
    loaded = environment.load_folder(tmp_path, spec())
    before = Environment(Board(), loaded.examples, "").digest
    loaded.prompt(loaded.examples[0])
    assert Environment(Board(), loaded.examples, "").digest != before
    assert loaded.digest == before


@pytest.mark.parametrize(("limit", "words"), [(0, "must return 1 or more"), (None, "NoneType")])
def test_an_invalid_number_of_turns_is_an_error_of_its_episode(limit: Any, words: str):
    sdk = Board()
    board = Board.dataset[0]
    [(_, turns)] = start_episodes(Environment(sdk, Board.dataset, ""), [board])
    assert turns == 3
    sdk.limit = limit
    [error] = start_episodes(Environment(sdk, Board.dataset, ""), [board])
    assert isinstance(error, Exception)
    assert words in str(error)


@pytest.mark.parametrize(
    ("limit", "processes", "calls", "turns"),
    [(32, 4, [8, 8, 8, 8], False), (6, 4, [2, 2, 1, 1], False), (1, 2, [1, 1], True)],
)
def test_the_processes_of_a_run_share_the_calls_that_it_may_make_at_once(
    limit: int, processes: int, calls: list[int], turns: bool
):
    shares = []
    for rank in range(processes):
        sdk: Any = SimpleNamespace(max_score_concurrency=limit)
        group = ProcessGroup(rank, rank, processes)
        environment = Environment(sdk, [], "", process_group=group)
        # The SDK has threads of its own for environments that compare answers.
        assert sdk.max_score_concurrency == environment.threads
        assert environment.takes_turns == turns
        shares.append(environment.threads)
    assert shares == calls


def test_ranks_take_turns_when_fewer_calls_may_run_than_there_are_ranks():
    done: list[str] = []

    class Group(ProcessGroup):
        def barrier(self) -> None:
            done.append("barrier")

    for rank in range(3):
        done.clear()
        sdk: Any = SimpleNamespace(max_score_concurrency=2)
        environment = Environment(sdk, [], "", process_group=Group(rank, rank, 3))
        assert environment.map(lambda item: done.append("call") or item, [7]) == [7]
        assert done == (
            ["call", "barrier", "barrier"] if rank < 2 else ["barrier", "call", "barrier"]
        )


@pytest.mark.parametrize("limit", [0, -1, float("inf"), float("nan"), "soon", None])
def test_a_time_limit_that_is_not_a_number_of_seconds_is_refused(limit: Any):
    sdk: Any = SimpleNamespace(reward_timeout_seconds=limit)
    with pytest.raises((ValueError, TypeError)):
        Environment(sdk, [], "")


def test_a_prompt_that_hangs_before_training_ends_the_run():
    class Hanging(Board):
        reward_timeout_seconds = 0.2

        def start_episode(self, example: Any, prompt_text: str) -> list[dict[str, str]]:
            time.sleep(60)
            return []

    with pytest.raises(TrainerError, match=r"prompt of.*reward_timeout_seconds = 0\.2") as error:
        Environment(Hanging(), Board.dataset, "").prompt(Board.dataset[0])
    assert error.value.reason == "EnvironmentFailed"


PROMPTS: dict[str, tuple[str, str]] = {
    "a prompt that is text": ("return 'What?'", "a message must be an object with role"),
    "no messages": ("return []", "messages must be a list that is not empty, not []"),
    "nothing": ("return None", "NoneType"),
    "a message that is text": ("return ['What?']", "row 1"),
    "an unknown role": ("return [{'role': 'me', 'content': 'x'}]", "role"),
    "content of bytes": ("return [{'role': 'user', 'content': b'x'}]", "the content of a message"),
}


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", PROMPTS)
def test_a_prompt_of_the_wrong_shape_is_an_error_of_the_environment(workshop: Workshop, case: str):
    body, words = PROMPTS[case]
    source = (
        HEAD.replace('return [{"role": "user", "content": str(example.input)}]', body)
        + "    def score_response(self, example, response_text): ...\n"
    )
    source += "\n\ndef load_environment():\n    return Environment()\n"
    pod = workshop.pod(resolved("grpo"), sums(environment=source))
    assert pod.train() == Exit.ENVIRONMENT
    assert pod.termination.reason == "EnvironmentFailed"
    assert "building the prompt of row 1" in pod.termination.message
    assert words in pod.termination.message


USER = {"role": "user", "content": "What is 1 plus 1?"}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


SHAPES = {
    "a word": ("2", [assistant("2")]),
    "a number": (2, [assistant("2")]),
    "messages": ({"messages": [assistant("2")]}, [assistant("2")]),
    "a bare list of messages": ([assistant("1"), USER, assistant("2")],
                                [assistant("1"), USER, assistant("2")]),
    "a table": ({"answer": 2}, [assistant('{\n  "answer": 2\n}')]),
}  # fmt: skip


def with_outputs(*outputs: Any) -> Any:
    """An environment whose rows have these outputs."""
    from freesolo.datasets.records import load_task_examples
    from freesolo.environments import EnvironmentSingleTurn

    from flashrun_trainer.data.environment import Environment

    class Plain(EnvironmentSingleTurn):
        def build_prompt_messages(self, example, prompt_text):
            return [{"role": "user", "content": example.input}]

        def score_response(self, example, response_text): ...

    found = [{"input": "What is 1 plus 1?", "output": output} for output in outputs]
    return Environment(Plain(), load_task_examples(found), "")


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", SHAPES)
def test_outputs_come_in_several_shapes(case: str):
    output, expected = SHAPES[case]
    environment = with_outputs(output)
    assert environment.completion(environment.examples[0]) == expected


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_the_digest_of_the_examples_tells_two_datasets_apart(workshop: Workshop):
    from flashrun_trainer.data import environment

    digests = set()
    for data in (rows(("a", "b")), rows(("a", "c")), rows(("a", "b")) + "\n"):
        pod = workshop.pod(resolved("sft"), sums(train=data))
        digests.add(environment.load(pod.inside, pod.run.environment).digest)
    assert len(digests) == 2


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_what_an_environment_draws_is_the_same_in_every_attempt(workshop: Workshop):
    source = sums()["environment.py"].replace(
        "class ", "import random\n\nWORD = random.choice(range(10**9))\n\n\nclass ", 1
    )
    source = source.replace("example.input", "f'{example.input} {WORD}'")
    pods = [workshop.pod(resolved("sft", max_steps=2), sums(environment=source)) for _ in range(2)]
    assert [pod.train() for pod in pods] == [0, 0]
    assert pods[0].values("loss") == pods[1].values("loss")


LOAD = "\n\ndef load_environment(**params):\n    return Environment()\n"


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("serial", ["reward_thread_safe = False", "max_score_concurrency = 1"])
def test_an_environment_may_ask_for_one_thread(workshop: Workshop, serial: str):
    source = f"""
    {serial}

    def score_response(self, example, response_text):
        import threading
        assert threading.current_thread() is threading.main_thread()
        return RewardResult(score=1.0)
"""
    pod = workshop.pod(resolved("grpo", steps=1), sums(environment=HEAD + source + LOAD))
    assert pod.train() == Exit.DONE
    assert pod.values("reward_errors") == [0.0]


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt, PanicError])
def test_whatever_an_environment_raises_is_its_failure(raised: type[BaseException]):
    with (
        pytest.raises(TrainerError, match=f"failed while counting: {raised.__name__}") as error,
        environment_errors("counting"),
    ):
        raise raised("away")
    assert error.value.code == Exit.ENVIRONMENT


def test_a_request_to_stop_is_not_a_failure_of_the_environment():
    with pytest.raises(InterruptedBeforeTraining), environment_errors("counting"):
        raise InterruptedBeforeTraining
