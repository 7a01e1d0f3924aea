"""Episodes of several turns: what is learned, what is not, and when they end."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flashrun.api.exits import Exit
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.data.episodes import Episode, play_turns, tokenize_reply
from flashrun_trainer.data.messages import Answer, Message
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer import chat_templates
from tests.trainer.panics import PanicError


def environment(**step: Any) -> Any:
    """An environment whose every step is the same."""
    result = {"done": False, "messages": (), "metadata": {}, "final_response_text": None} | step

    def step_episode(example: Any, messages: list[Message], answer: Answer) -> Any:
        assert messages[-1] == {"role": "assistant", "content": answer}
        return SimpleNamespace(**result)

    return with_step(step_episode)


def with_step(step_episode: Any) -> Environment:
    """An environment with this method."""
    return Environment(SimpleNamespace(step_episode=step_episode), [], "")


def answered(
    episode: Episode, environment: Environment, ids: list[int], answer: Answer
) -> list[Message]:
    """The environment's reply to an answer of this episode."""
    [replies] = play_turns(environment, [(episode, ids, answer)])
    return replies


def episode(turns: int = 3) -> Episode:
    return Episode(None, [{"role": "user", "content": "Guess."}], [1, 2, 3], turns_left=turns)


AGAIN = ({"role": "user", "content": "Again."},)


def test_only_the_models_own_tokens_are_learned():
    found = episode()
    assert answered(found, environment(messages=AGAIN), [10, 11], Answer("7")) == list(AGAIN)
    found.add_reply_tokens([20, 21, 22])
    answered(found, environment(done=True), [12], Answer("8"))
    assert found.completion_ids == [10, 11, 20, 21, 22, 12]
    assert found.mask == [1, 1, 0, 0, 0, 1]
    assert found.ids == [1, 2, 3, 10, 11, 20, 21, 22, 12]


def test_whatever_reading_a_reply_raises_ends_that_episode_alone():
    class Reply:
        @property
        def messages(self) -> Any:
            raise PanicError("called `unwrap()` on a `None` value")

    found = episode()
    assert answered(found, with_step(lambda *_: Reply()), [10], Answer("7")) == []
    assert isinstance(found.error, PanicError)
    assert found.done


ENDS: dict[str, tuple[dict[str, Any], int, bool]] = {
    "the environment is done": ({"done": True, "messages": AGAIN}, 3, True),
    "the turns are used up": ({"messages": AGAIN}, 1, True),
    "the environment has nothing to say": ({}, 3, True),
    "there is something to answer": ({"messages": AGAIN}, 3, False),
}


@pytest.mark.parametrize("case", ENDS)
def test_an_episode_ends_when(case: str):
    step, turns, over = ENDS[case]
    found = episode(turns)
    assert bool(answered(found, environment(**step), [10], Answer("7"))) != over
    assert found.done == over


def test_the_sdk_gets_the_whole_episode_to_score():
    found = episode()
    answered(found, environment(messages=AGAIN, metadata={"a": 1}), [10], Answer("7"))
    answered(found, environment(done=True, metadata={"b": 2}), [11], Answer("8"))
    result = found.to_response()
    assert [turn.content for turn in result.turns] == ["Guess.", "7", "Again.", "8"]
    assert (result.response_text, result.metadata) == ("8", {"a": 1, "b": 2})


def test_the_environment_may_name_the_final_response():
    found = episode()
    answered(found, environment(done=True, final_response_text="seven"), [10], Answer("7"))
    assert found.to_response().response_text == "seven"


def test_the_final_response_may_be_empty():
    found = episode()
    answered(found, environment(done=True, final_response_text=""), [10], Answer("7"))
    assert found.to_response().response_text == ""


def test_the_reasoning_of_every_turn_is_kept_beside_what_was_answered():
    found = episode()
    answered(found, environment(messages=AGAIN), [10], Answer("<think>a</think>7"))
    answered(found, environment(done=True), [11], Answer("<think>b</think>8"))
    assert found.thoughts == ["a", "b"]
    assert found.to_response().response_text.thinking == "b"
    assert [message["content"] for message in found.messages] == ["Guess.", "7", "Again.", "8"]


def test_an_episode_that_could_not_begin_fails_after_one_answer():
    found = Episode(None, [], [1], turns_left=3, error=ValueError("no board"))
    assert answered(found, environment(messages=AGAIN), [10], Answer("7")) == []
    assert found.done
    assert (found.completion_ids, found.to_response().error) == (
        [10],
        "at the start: ValueError: no board",
    )


WRONG: dict[str, dict[str, Any]] = {
    "messages that are text": {"messages": "Again."},
    "a message that is text": {"messages": ["Again."]},
    "an unknown role": {"messages": [{"role": "me"}]},
    "messages that are a number": {"messages": 7},
    "no metadata": {"metadata": None},
    "the answer again": {"messages": [{"role": "assistant", "content": "7"}, *AGAIN]},
    "the whole conversation": {
        "messages": [
            {"role": "user", "content": "Guess."},
            {"role": "assistant", "content": "7"},
            *AGAIN,
        ]
    },
}


@pytest.mark.parametrize("case", WRONG)
def test_a_reply_of_the_wrong_shape_fails_this_episode_only(case: str):
    found = episode()
    assert answered(found, environment(**WRONG[case]), [10], Answer("7")) == []
    assert found.done
    assert found.to_response().error.startswith(("in turn 1: ValueError", "in turn 1: TypeError"))


def test_a_reply_that_comes_too_late_changes_nothing():
    go_on = threading.Event()

    def step_episode(example: Any, messages: list[Message], answer: Answer) -> Any:
        go_on.wait(20)
        messages.append({"role": "user", "content": "Too late."})
        return SimpleNamespace(done=False, messages=AGAIN, metadata={}, final_response_text=None)

    slow = Environment(
        SimpleNamespace(
            step_episode=step_episode, reward_timeout_seconds=0.2, max_score_concurrency=2
        ),
        [],
        "",
    )
    found = [episode(), episode()]
    assert play_turns(slow, [(one, [10], Answer("7")) for one in found]) == [[], []]
    go_on.set()
    deadline = time.monotonic() + 10
    while slow.left_behind and time.monotonic() < deadline:
        time.sleep(0.01)
    assert slow.left_behind == 0
    for one in found:
        score = one.to_response()
        assert (score.kind, score.error) == (
            "episode",
            "in turn 1: the environment's code did not return within reward_timeout_seconds = 0.2",
        )
        assert [message["content"] for message in one.messages] == ["Guess.", "7"]


def test_an_environment_that_changes_the_messages_it_gets_changes_no_episode():
    def step_episode(example: Any, messages: list[Message], answer: Answer) -> Any:
        messages[0]["content"] = "changed"
        return SimpleNamespace(done=True, messages=(), metadata={}, final_response_text=None)

    found = episode()
    answered(found, with_step(step_episode), [10], Answer("7"))
    assert found.to_response().messages[0]["content"] == "Guess."


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_step_that_runs_what_the_model_says_may_exit(kind: type[BaseException]):
    def step_episode(*_: Any) -> Any:
        raise kind

    found = episode()
    assert answered(found, with_step(step_episode), [10], Answer("exit()")) == []
    assert found.to_response().error == f"in turn 1: {kind.__name__}"


THINK, EMPTY = "<think>\n", "<think>\n\n</think>\n\n"

START = "<|START_OF_TURN_TOKEN|>"
REPLIES: dict[str, tuple[str, list[Message], bool, str, str]] = {
    "a question": (
        "qwen3",
        [{"role": "user", "content": "Again."}],
        False,
        "<|im_end|>",
        f"\n<|im_start|>user\nAgain.<|im_end|>\n<|im_start|>assistant\n{EMPTY}",
    ),
    "a question to a model that thinks": (
        "qwen3_5_think",
        [{"role": "user", "content": "Again."}],
        True,
        "<|im_end|>",
        f"\n<|im_start|>user\nAgain.<|im_end|>\n<|im_start|>assistant\n{THINK}",
    ),
    "two results of tools": (
        "qwen3_5_nothink",
        [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}],
        False,
        "<|im_end|>",
        "\n<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n"
        f"</tool_response><|im_end|>\n<|im_start|>assistant\n{EMPTY}",
    ),
    "an answer that was cut off is ended first": (
        "qwen3",
        [{"role": "user", "content": "Again."}],
        True,
        "7",
        "<|im_end|>\n<|im_start|>user\nAgain.<|im_end|>\n<|im_start|>assistant\n",
    ),
    "Cohere 2 ends a turn with two tokens, of which the answer has both": (
        "cohere2",
        list(AGAIN),
        False,
        "<|END_OF_TURN_TOKEN|>",
        f"{START}<|USER_TOKEN|>Again.<|END_OF_TURN_TOKEN|>{START}<|CHATBOT_TOKEN|><|START_RESPONSE|>",
    ),
    "Cohere 2 gets both of them when an answer was cut off": (
        "cohere2",
        list(AGAIN),
        False,
        "7",
        f"<|END_RESPONSE|><|END_OF_TURN_TOKEN|>{START}<|USER_TOKEN|>Again.<|END_OF_TURN_TOKEN|>"
        f"{START}<|CHATBOT_TOKEN|><|START_RESPONSE|>",
    ),
    "the token that opens a reply to GLM has ended its answer": (
        "glm4moe",
        list(AGAIN),
        False,
        "<|user|>",
        "\nAgain./nothink<|assistant|>\n<think></think>",
    ),
    "and comes with the reply when the answer was cut off": (
        "glm4moe",
        list(AGAIN),
        False,
        "7",
        "<|user|>\nAgain./nothink<|assistant|>\n<think></think>",
    ),
    "GLM ends a call with the token that opens the result": (
        "glm4moe",
        [{"role": "tool", "content": "7"}],
        False,
        "<|observation|>",
        "\n<tool_response>\n7\n</tool_response><|assistant|>\n<think></think>",
    ),
    "gpt-oss ends its last answer with another token than those before": (
        "gptoss",
        list(AGAIN),
        False,
        "<|return|>",
        "<|start|>user<|message|>Again.<|end|><|start|>assistant",
    ),
    "Phi-3 ends the text with a token that is not of the turn": (
        "phi3",
        list(AGAIN),
        False,
        "<|end|>",
        "\n<|user|>\nAgain.<|end|>\n<|assistant|>\n",
    ),
}


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", REPLIES)
def test_a_reply_is_appended_as_the_template_writes_it(tiny_model: Path, case: str):
    template, replies, thinking, last, expected = REPLIES[case]
    tokenizer = chat_templates.tokenizer_with(template, tiny_model)
    (last_id,) = tokenizer(last, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(tokenize_reply(tokenizer, replies, thinking, last_id)) == expected


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_a_template_that_does_not_end_turns_is_refused_for_episodes(tiny_model: Path):
    from flashrun_trainer import model

    tokenizer = model.load_tokenizer(tiny_model)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(TrainerError) as error:
        tokenize_reply(tokenizer, list(AGAIN), thinking=False, last_id=0)
    assert (error.value.code, error.value.reason) == (Exit.CONFIG, "TemplateUnsupported")
