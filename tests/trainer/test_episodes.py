"""Episodes of several turns: what is learned, what is not, and when they end."""

from types import SimpleNamespace
from typing import Any

import pytest

from flashrun_trainer.environment import Answer, Message
from flashrun_trainer.episodes import Episode


def environment(**step: Any) -> Any:
    """An environment whose every step is the same."""
    result = {"done": False, "messages": (), "metadata": {}, "final_response_text": None} | step

    def step_episode(example: Any, messages: list[Message], answer: Answer) -> Any:
        assert messages[-1] == {"role": "assistant", "content": answer}
        return SimpleNamespace(**result)

    return SimpleNamespace(sdk=SimpleNamespace(step_episode=step_episode))


def episode(turns: int = 3) -> Episode:
    return Episode(None, [{"role": "user", "content": "Guess."}], [1, 2, 3], turns_left=turns)


AGAIN = ({"role": "user", "content": "Again."},)


def test_only_the_models_own_tokens_are_learned():
    found = episode()
    assert found.answer(environment(messages=AGAIN), [10, 11], Answer("7")) == list(AGAIN)
    found.hear([20, 21, 22])
    found.answer(environment(done=True), [12], Answer("8"))
    assert found.completion_ids == [10, 11, 20, 21, 22, 12]
    assert found.mask == [1, 1, 0, 0, 0, 1]
    assert found.ids == [1, 2, 3, 10, 11, 20, 21, 22, 12]


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
    assert bool(found.answer(environment(**step), [10], Answer("7"))) != over
    assert found.over == over


def test_the_sdk_gets_the_whole_episode_to_score():
    found = episode()
    found.answer(environment(messages=AGAIN, metadata={"a": 1}), [10], Answer("7"))
    found.answer(environment(done=True, metadata={"b": 2}), [11], Answer("8"))
    result = found.finished()
    assert [turn.content for turn in result.turns] == ["Guess.", "7", "Again.", "8"]
    assert (result.response_text, result.metadata) == ("8", {"a": 1, "b": 2})


def test_the_environment_may_name_the_final_response():
    found = episode()
    found.answer(environment(done=True, final_response_text="seven"), [10], Answer("7"))
    assert found.finished().response_text == "seven"


@pytest.mark.parametrize("messages", ["Again.", ["Again."], [{"role": "me"}], 7], ids=str)
def test_a_reply_of_the_wrong_shape_fails_this_episode_only(messages: Any):
    found = episode()
    assert found.answer(environment(messages=messages), [10], Answer("7")) == []
    assert found.over
    assert isinstance(found.finished(), ValueError)
