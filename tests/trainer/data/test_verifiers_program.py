"""The program of an environment's process, without the library: messages, rules, descriptions."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from flashrun_trainer.data import verifiers_program as program
from flashrun_trainer.data.verifiers_program import EpisodeError, PlayedEpisode, RefusedError


class Model(dict[str, Any]):
    """Stands for a pydantic model of verifiers."""

    def model_dump(self) -> dict[str, Any]:
        return dict(self)


MESSAGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": ({"role": "user", "content": "Hi."}, {"role": "user", "content": "Hi."}),
    "a plain prompt": ({"role": "text", "content": "Hi."}, {"role": "user", "content": "Hi."}),
    "parts": (
        {"role": "user", "content": [Model(type="text", text="a"), {"type": "text", "text": "b"}]},
        {"role": "user", "content": "ab"},
    ),
    "an image": (
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
    ),
    "a call": (
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [Model(id="1", name="add", arguments="{}")],
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "add", "arguments": "{}"},
                }
            ],
        },
    ),
    "a result": (
        {"role": "tool", "content": "3", "tool_call_id": "1"},
        {"role": "tool", "content": "3", "tool_call_id": "1"},
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages_become_plain_data(case: str) -> None:
    message, plain = MESSAGES[case]
    assert program.plain_message(Model(message)) == plain


def test_an_error_is_described_with_its_causes() -> None:
    error = RuntimeError("the tool failed")
    error.__cause__ = KeyError("a")
    assert program.describe(error) == "RuntimeError: the tool failed, caused by KeyError: 'a'"
    assert program.describe(ValueError()) == "ValueError"


def test_the_splits_are_those_with_a_dataset_or_a_builder_of_one() -> None:
    environment = SimpleNamespace(
        dataset=None, dataset_source=list, eval_dataset=None, eval_dataset_source=None
    )
    assert program.own_splits(environment) == ["train"]
    environment.eval_dataset = []
    assert program.own_splits(environment) == ["train", "eval"]
    assert program.read_rows(environment, "exam") == []


def test_the_tools_of_a_row_replace_those_of_its_environment() -> None:
    environment = SimpleNamespace(tool_defs=["own"])
    assert program.row_tools(environment, {}) == ["own"]
    assert program.row_tools(environment, {"info": {"tool_defs": ["other"]}}) == ["other"]
    assert program.row_tools(environment, {"info": '{"tool_defs": []}'}) == []
    assert program.row_tools(SimpleNamespace(tool_defs=None), {"info": ""}) == ()


# --- the rules of a conversation ----------------------------------------------------------------


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


REPLY = {"message": {"role": "assistant", "content": "Yes."}}


async def played(monkeypatch: pytest.MonkeyPatch, rollout: Any) -> PlayedEpisode:
    """An episode whose rollout gets its own client, after its first answer."""
    monkeypatch.setattr(program, "make_client", lambda episode: episode)
    environment = SimpleNamespace(rollout=lambda row, client, *_: rollout(client))
    episode = PlayedEpisode(environment, {})
    assert await episode.next_prompt()
    assert episode.asked is not None
    episode.asked.set_result(REPLY)
    return episode


async def test_the_environment_asks_with_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    async def rollout(client: PlayedEpisode) -> dict[str, Any]:
        opening = [user("Hi."), user("Ready?")]
        answer = await client.answer(opening, ())
        await client.answer([*opening, answer["message"], user("Go.")], ())
        return {}

    episode = await played(monkeypatch, rollout)
    assert await episode.next_prompt()
    assert episode.news == [user("Go.")]
    assert episode.asked is not None
    episode.asked.set_result(REPLY)
    assert not await episode.next_prompt()
    assert not await episode.next_prompt()  # also when it is asked again


async def to_its_end(episode: PlayedEpisode) -> None:
    while await episode.next_prompt():
        pass


CHANGES: dict[str, tuple[Any, str]] = {
    "another beginning": ([user("Bye."), REPLY["message"], user("Go.")], "already seen"),
    "another answer": (
        [user("Hi."), {"role": "assistant", "content": "No."}, user("Go.")],
        "already seen",
    ),
    "something beside the conversation": ([user("Judge this.")], "beside the conversation"),
    "nothing new": ([user("Hi."), REPLY["message"]], "without a new message"),
}


@pytest.mark.parametrize("case", CHANGES)
async def test_a_conversation_that_does_not_grow_ends(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    prompt, words = CHANGES[case]

    async def rollout(client: PlayedEpisode) -> dict[str, Any]:
        await client.answer([user("Hi.")], ())
        await client.answer(prompt, ())
        return {}

    episode = await played(monkeypatch, rollout)
    with pytest.raises(RefusedError, match=words):
        await episode.next_prompt()


async def test_two_questions_at_the_same_time_end_the_episode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def rollout(client: PlayedEpisode) -> dict[str, Any]:
        answer = await client.answer([user("Hi.")], ())
        more = [user("Hi."), answer["message"], user("Go.")]
        await asyncio.gather(client.answer(more, ()), client.answer(more, ()))
        return {}

    episode = await played(monkeypatch, rollout)
    with pytest.raises(RefusedError, match="twice at the same time"):
        await to_its_end(episode)


@pytest.mark.parametrize(
    ("state", "words"),
    [({"error": RuntimeError("no sandbox")}, "no sandbox"), ({"timed_out": True}, "its own time")],
)
async def test_a_state_with_an_error_has_failed(
    monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], words: str
) -> None:
    async def rollout(client: PlayedEpisode) -> dict[str, Any]:
        await client.answer([user("Hi.")], ())
        return state

    episode = await played(monkeypatch, rollout)
    with pytest.raises(EpisodeError, match=words):
        await episode.next_prompt()
