"""The process in which an environment of the ``verifiers`` library lives.

``python -P verifiers_program.py FD PARENT``: FD is a socket to the trainer, whose process id is
PARENT. The interpreter is the environment's own, with its own packages, so this file imports
nothing of FlashRun. Each line on the socket is one JSON object: a request has ``id`` and ``do``, a
reply has the same ``id`` and either ``result`` or ``error``. Lines with ``tick`` say that the event
loop is not blocked.

The library expects to call a model. Here its client is an object that hands each prompt to the
trainer, and waits until the trainer has sampled the answer. Tokens stay with the trainer.
"""

import asyncio
import contextvars
import ctypes
import functools
import importlib
import importlib.metadata
import inspect
import json
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any, Final, NamedTuple

_TICK_SECONDS: Final = 0.25
_GRACE_SECONDS: Final = 3.0
"""Longest time for the environment's own clean-up when the trainer has gone."""
_DIE_WITH_PARENT: Final = 1
"""``PR_SET_PDEATHSIG`` of Linux."""
_SEED: Final = 0
"""For what the environment draws while it makes its rows: they are the same in every process."""
_REFUSED_CLASSES: Final = {
    "SandboxEnv": "it runs code in a hosted sandbox",
    "SandboxMixin": "it runs code in a hosted sandbox",
    "BrowserEnv": "it needs a hosted browser",
    "OpenEnvEnv": "it needs a container of its own",
    "CliAgentEnv": "its agent calls the model from a container of its own",
}

failures: "contextvars.ContextVar[list[RubricFailure]]" = contextvars.ContextVar("failures")
"""What functions of rubrics have raised while an episode is scored."""


class RubricFailure(NamedTuple):
    """A function of a rubric that has raised something."""

    name: str
    weight: float
    """The reward does not depend on a function with weight 0."""
    sentence: str


class RefusedError(Exception):
    """The environment needs something that it does not get here."""


class EpisodeError(Exception):
    """An episode has failed."""


class OverdueError(BaseException):
    """Raised in code that blocks the event loop for too long; ``except Exception`` lets it pass."""


# --- the environment ----------------------------------------------------------------------------


def load_environment(request: Mapping[str, Any]) -> Any:
    """Import the environment's module and return what its ``load_environment`` returns.

    Raises:
        RefusedError: it is not an environment that can be used here.
    """
    installed = _installed_version()
    if installed != request["version"]:
        raise RefusedError(
            f"it needs verifiers {request['version']}, and {sys.executable} has {installed}"
        )
    random.seed(_SEED)
    with suppress(ImportError):
        importlib.import_module("numpy").random.seed(_SEED)
    sys.path.insert(0, request["folder"])
    module = importlib.import_module(request["module"])
    function = getattr(module, "load_environment", None)
    if function is None:
        raise RefusedError(f"{request['module']} has no load_environment")
    environment = function(**_accepted(function, request["params"]))
    legacy = importlib.import_module("verifiers.legacy")
    if not isinstance(environment, legacy.Environment):
        raise RefusedError(
            "load_environment must return an Environment of verifiers, and returned an object of "
            f"{type(environment).__module__}.{type(environment).__qualname__}"
        )
    for sentence in filter(None, map(refusal, all_environments(environment))):
        raise RefusedError(sentence)
    for rubric in _rubrics(environment.rubric):
        _record_failures(rubric)
    return environment


def _installed_version() -> str:
    try:
        return importlib.metadata.version("verifiers")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _accepted(function: Callable[..., Any], params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters without our own ``split``, unless the function has one, too."""
    if "split" in inspect.signature(function).parameters:
        return params
    return {name: value for name, value in params.items() if name != "split"}


def all_environments(environment: Any) -> Iterator[Any]:
    """Yield the environment, and those in a group of environments."""
    yield environment
    for part in getattr(environment, "envs", ()):
        yield from all_environments(part)


def refusal(environment: Any) -> str:
    """Return why an environment cannot be used here, or an empty string."""
    name = type(environment).__name__
    for base in type(environment).__mro__:
        if base.__name__ in _REFUSED_CLASSES and base.__module__.startswith("verifiers."):
            return f"{name} is a {base.__name__}: {_REFUSED_CLASSES[base.__name__]}"
    if environment.message_type != "chat":
        return f"{name} has message_type {environment.message_type!r}: only chats are sampled"
    if environment.requires_group_rollouts:
        names = [
            function.__name__
            for rubric in _rubrics(environment.rubric)
            for function in rubric._get_group_reward_funcs()
        ]
        return (
            f"{', '.join(dict.fromkeys(names))} of its rubric scores the answers to a prompt "
            "together: each answer must have a score of its own"
        )
    if environment.provides_advantages:
        return f"the rubric of {name} computes advantages, which the trainer does itself"
    return ""


def _rubrics(rubric: Any) -> Iterator[Any]:
    """Yield a rubric, and those of a group of rubrics or environments."""
    yield rubric
    for part in getattr(rubric, "rubrics", ()):
        yield from _rubrics(part)
    for environment in getattr(rubric, "env_map", {}).values():
        yield from _rubrics(environment.rubric)


def _record_failures(rubric: Any) -> None:
    """Make the functions of a rubric record what they raise.

    The library itself writes it to its log and counts the function as 0.
    """
    rubric.funcs[:] = [_recording(function, rubric) for function in rubric.funcs]


def _recording(function: Callable[..., Any], rubric: Any) -> Callable[..., Any]:
    if hasattr(function, "records_failures"):  # it is in several rubrics of a group
        return function

    @functools.wraps(function)
    async def recorded(*args: Any, **kwargs: Any) -> Any:
        try:
            value = function(*args, **kwargs)
            return float(await value if inspect.isawaitable(value) else value)
        except Exception as error:
            traceback.print_exc()
            name = getattr(function, "__name__", repr(function))
            weight = rubric.weights[rubric.funcs.index(recorded)]
            sentence = f"{name} of its rubric raised {describe(error)}"
            failures.get().append(RubricFailure(name, weight, sentence))
            raise

    recorded.records_failures = True  # type: ignore[attr-defined]
    return recorded


def describe(error: BaseException) -> str:
    """Return the type and the text of an error, with those of its causes."""
    parts = []
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        parts.append(f"{type(seen).__name__}: {text}" if text else type(seen).__name__)
        seen = seen.__cause__
    return ", caused by ".join(parts)


def plain_messages(messages: Any) -> list[dict[str, Any]]:
    """Return messages in any form that verifiers takes as plain data."""
    types = importlib.import_module("verifiers.legacy.utils.message_utils")
    return list(map(plain_message, types.normalize_messages(messages)))


def plain_message(message: Any) -> dict[str, Any]:
    """Return a message of verifiers as plain data, in OpenAI's format."""
    data = message if isinstance(message, Mapping) else message.model_dump()
    plain = {"role": data["role"], "content": _plain_content(data.get("content"))}
    if data["role"] == "text":
        plain["role"] = "user"
    if calls := data.get("tool_calls"):
        plain["tool_calls"] = [_plain_call(call) for call in calls]
    if data.get("tool_call_id"):
        plain["tool_call_id"] = data["tool_call_id"]
    return plain


def _plain_content(content: Any) -> Any:
    """Return content as text if all of its parts are text."""
    if not isinstance(content, list):
        return content or ""
    parts = [part if isinstance(part, Mapping) else part.model_dump() for part in content]
    if all(part.get("type") == "text" for part in parts):
        return "".join(str(part.get("text", "")) for part in parts)
    return [dict(part) for part in parts]


def _plain_call(call: Any) -> dict[str, Any]:
    data = call if isinstance(call, Mapping) else call.model_dump()
    function = data.get("function", data)
    named = {"name": function["name"], "arguments": function["arguments"]}
    return {"id": data.get("id"), "type": "function", "function": named}


def plain_tool(tool: Any) -> dict[str, Any]:
    """Return the definition of a tool in OpenAI's format."""
    data = tool if isinstance(tool, Mapping) else tool.model_dump()
    keys = ("name", "description", "parameters")
    return {"type": "function", "function": {key: data[key] for key in keys if key in data}}


# --- episodes -----------------------------------------------------------------------------------


class PlayedEpisode:
    """One rollout of the environment, which stops wherever the model has to answer."""

    def __init__(self, environment: Any, row: dict[str, Any]) -> None:
        self.environment = environment
        self.row = row
        self.state: Any = None
        self.error: BaseException | None = None
        self.asked: asyncio.Future[dict[str, Any]] | None = None
        """Set while the environment waits for an answer."""
        self.messages: list[dict[str, Any]] = []
        """The conversation that the model has seen, with its answers."""
        self.news: list[dict[str, Any]] = []
        """What the newest prompt has beyond ``messages``."""
        self.tools: list[dict[str, Any]] = []
        self.answers = 0
        self._changed = asyncio.Event()
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        try:
            self.state = await self.environment.rollout(self.row, make_client(self), "policy", {})
        except BaseException as error:
            self.error = self.error or error
        finally:
            self.asked = None
            self._changed.set()

    async def next_prompt(self) -> bool:
        """Wait until the environment asks the model, or ends; return whether it asks.

        Raises:
            EpisodeError: the episode has failed.
        """
        await self._changed.wait()
        self._changed.clear()
        if self.asked is not None:
            return True
        self._changed.set()
        self.check()
        return False

    def check(self) -> None:
        """Raise what the episode has failed with, if it has."""
        if isinstance(self.error, OverdueError | asyncio.CancelledError):
            raise self.error
        if isinstance(self.error, RefusedError):
            raise self.error
        if self.error is not None:
            raise EpisodeError(describe(self.error)) from self.error
        if self.state is not None and (error := self.state.get("error")) is not None:
            raise EpisodeError(describe(error)) from error
        if self.state is not None and self.state.get("timed_out"):
            raise EpisodeError("the rollout took longer than its own timeout_seconds")

    async def answer(self, prompt: Any, tools: Any) -> dict[str, Any]:
        """Ask the trainer for the model's answer to a prompt."""
        messages = list(map(plain_message, prompt))
        seen = self.messages
        try:
            if self.asked is not None:
                raise RefusedError("the environment asks the model twice at the same time")
            if _comparable(messages[: len(seen)]) != _comparable(seen):
                raise RefusedError(
                    "the environment changes messages that the model has already seen, or asks it "
                    "something beside the conversation"
                )
            if seen and len(messages) == len(seen):
                raise RefusedError("the environment asks the model again without a new message")
        except RefusedError as error:
            self.error = error
            raise
        self.news, self.tools = messages[len(seen) :], list(map(plain_tool, tools or ()))
        self.asked = asyncio.get_running_loop().create_future()
        self._changed.set()
        answer = await self.asked
        self.asked, self.answers = None, self.answers + 1
        self.messages = [*messages, answer["message"]]
        return answer

    def end_conversation(self) -> None:
        """Tell an environment that still waits that no answer fits any more."""
        if self.asked is not None:
            legacy = importlib.import_module("verifiers.legacy")
            self.asked.set_exception(legacy.OverlongPromptError("the conversation is too long"))
            self.asked = None


def _comparable(messages: list[dict[str, Any]]) -> list[Any]:
    """Return what must not change in messages; ids of calls and keys of JSON text may."""
    return [
        (
            message["role"],
            message["content"],
            [call["function"]["name"] for call in message.get("tool_calls", ())],
        )
        for message in messages
    ]


def make_client(episode: PlayedEpisode) -> Any:
    """Return a client of verifiers that gets the model's answers from the trainer."""
    clients = importlib.import_module("verifiers.legacy.clients.client")
    types = importlib.import_module("verifiers.legacy.types")

    class PolicyClient(clients.Client):  # type: ignore[name-defined]
        def setup_client(self, config: Any) -> Any:
            return None

        async def to_native_tool(self, tool: Any) -> Any:
            return tool

        async def to_native_prompt(self, messages: Any) -> Any:
            return messages, {}

        async def get_native_response(self, *_: Any, **__: Any) -> Any:
            raise RefusedError("the environment uses the model's client in a way of its own")

        async def raise_from_native_response(self, response: Any) -> None:
            return None

        async def from_native_response(self, response: Any) -> Any:
            return response

        async def close(self) -> None:
            return None

        async def get_response(
            self, prompt: Any, model: str, sampling_args: Any, tools: Any = None, **_: Any
        ) -> Any:
            answer = await episode.answer(prompt, tools)
            message, used = answer["message"], answer["tokens"]
            calls = [
                types.ToolCall(id=call["id"], **call["function"])
                for call in message.get("tool_calls", ())
            ]
            cut_off = answer["cut_off"]
            reason = "length" if cut_off else "tool_calls" if calls else "stop"
            return types.Response(
                id=f"answer-{episode.answers}",
                created=int(time.time()),
                model=model,
                usage=types.Usage(
                    prompt_tokens=used["prompt"],
                    reasoning_tokens=0,
                    completion_tokens=used["completion"],
                    total_tokens=used["prompt"] + used["completion"],
                ),
                message=types.ResponseMessage(
                    content=message["content"],
                    reasoning_content=answer["thinking"] or None,
                    tool_calls=calls or None,
                    finish_reason=reason,
                    is_truncated=cut_off,
                ),
            )

    return PolicyClient(_NoClient())


class _NoClient:
    """Stands where other clients have a connection to a model."""

    def __getattr__(self, name: str) -> Any:
        raise RefusedError(f"the environment uses {name} of the model's client, which has none")


# --- requests -----------------------------------------------------------------------------------


class RequestServer:
    """Answers the trainer's requests."""

    def __init__(
        self, environment: Any, rows: list[dict[str, Any]], connection: socket.socket
    ) -> None:
        self._environment = environment
        self._rows = rows
        self._connection = connection
        self._episodes: dict[int, PlayedEpisode] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._over = asyncio.Event()

    async def serve(self) -> None:
        """Answer requests until the trainer closes the connection."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=[loop], name="requests", daemon=True).start()
        ticking = asyncio.ensure_future(self._tick())
        await self._over.wait()
        ticking.cancel()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(OSError), self._connection.makefile("rb") as lines:
            for line in lines:
                loop.call_soon_threadsafe(self._take, json.loads(line))
        # The environment may clean up; if it does not end, the process does.
        guard = threading.Timer(_GRACE_SECONDS, os._exit, [0])
        guard.daemon = True
        guard.start()
        loop.call_soon_threadsafe(self._over.set)

    async def _tick(self) -> None:
        while True:
            with suppress(OverdueError):  # a signal for code that has returned meanwhile
                send(self._connection, {"tick": True})
                await asyncio.sleep(_TICK_SECONDS)

    def _take(self, request: dict[str, Any]) -> None:
        if request["do"] == "give_up":
            self._give_up(request)
            return
        task = asyncio.ensure_future(self._reply(request))
        self._tasks[request["id"]] = task
        task.add_done_callback(lambda _: self._tasks.pop(request["id"], None))

    def _give_up(self, request: dict[str, Any]) -> None:
        """End a request that took too long, and the episode that it belongs to."""
        if (task := self._tasks.get(request["given_up"])) is not None:
            task.cancel()
        if (episode := self._episodes.get(request.get("episode", -1))) is not None:
            episode.task.cancel()

    async def _reply(self, request: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"id": request["id"]}
        try:
            reply["result"] = await getattr(self, f"_do_{request['do']}")(request)
        except (OverdueError, asyncio.CancelledError):
            reply["overdue"] = True
        except BaseException as error:
            reply |= failure(error)
        send(self._connection, reply)

    async def _do_start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start an episode, and return its opening."""
        row = self._rows[request["row"]]
        episode = self._episodes[request["episode"]] = PlayedEpisode(self._environment, row)
        if not await episode.next_prompt():
            raise EpisodeError("the episode has ended before the model was asked")
        return {"messages": episode.news, "tools": episode.tools}

    async def _do_answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give the model's answer to an episode, and return the environment's reply."""
        episode = self._episodes[request["episode"]]
        assert episode.asked is not None
        episode.asked.set_result(request["answer"])
        if await episode.next_prompt():
            return {"messages": episode.news, "done": False}
        final = (episode.state or {}).get("final_env_response") or ()
        return {"messages": plain_messages(final), "done": True}

    async def _do_score(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the reward and the metrics of an episode."""
        episode = self._episodes[request["episode"]]
        episode.end_conversation()
        while await episode.next_prompt():
            episode.end_conversation()
        failed: list[RubricFailure] = []
        failures.set(failed)
        state = episode.state
        await self._environment.rubric.score_group([state])
        if fatal := [each.sentence for each in failed if each.weight]:
            raise EpisodeError("; ".join(fatal))
        without_value = {each.name for each in failed}
        metrics = {
            name: float(value)
            for name, value in (state["metrics"] or {}).items()
            if name not in without_value
        }
        return {"reward": float(state["reward"]), "metrics": metrics}

    async def _do_end(self, request: dict[str, Any]) -> None:
        """Forget an episode."""
        episode = self._episodes.pop(request["episode"], None)
        if episode is None:
            return
        episode.task.cancel()
        with suppress(BaseException):
            await episode.task
        if episode.state is not None:
            await self._environment.rubric.cleanup(episode.state)


def read_rows(environment: Any, split: str) -> list[dict[str, Any]]:
    """Return the rows of a split; none if the environment does not have it."""
    if split not in own_splits(environment):
        return []
    data = environment.get_eval_dataset() if split == "eval" else environment.get_dataset()
    rows: list[dict[str, Any]] = data.to_list()
    return rows


def own_splits(environment: Any) -> list[str]:
    """Return the splits that an environment has."""
    sources = {
        "train": (environment.dataset_source, environment.dataset),
        "eval": (environment.eval_dataset_source, environment.eval_dataset),
    }
    return [split for split, found in sources.items() if any(part is not None for part in found)]


def describe_row(environment: Any, row: dict[str, Any]) -> dict[str, Any]:
    """Return the prompt of a row, its tools, and what else it has."""
    return {
        "messages": plain_messages(row["prompt"]),
        "tools": list(map(plain_tool, row_tools(environment, row))),
        "row": {key: value for key, value in row.items() if key != "prompt"},
    }


def row_tools(environment: Any, row: dict[str, Any]) -> Any:
    """Return the definitions of the tools that a row is played with."""
    if hasattr(environment, "env_map"):
        name, own_row, _ = environment._route_child_input(row)
        return row_tools(environment.get_env_for_name(name), own_row)
    info = row.get("info")
    info = json.loads(info) if isinstance(info, str) and info else info
    if isinstance(info, Mapping) and info.get("tool_defs") is not None:
        return info["tool_defs"]
    return environment.tool_defs or ()


def failure(error: BaseException) -> dict[str, Any]:
    """Return an error as a part of a reply."""
    text = str(error) if isinstance(error, RefusedError | EpisodeError) else describe(error)
    return {
        "error": text,
        "refused": isinstance(error, RefusedError),
        "trace": "".join(traceback.format_exception(error)),
    }


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send a message; when the trainer has gone, nobody needs it."""
    with suppress(OSError):
        connection.sendall(json.dumps(message, default=str).encode() + b"\n")


def describe_environment(environment: Any) -> dict[str, Any]:
    """Return what the trainer must know about an environment."""
    own = ("reward_timeout_seconds", "max_score_concurrency")
    return {
        "splits": own_splits(environment),
        "max_turns": getattr(environment, "max_turns", -1),
        "threshold": environment.pass_threshold,
        "settings": {key: getattr(environment, key) for key in own if hasattr(environment, key)},
    }


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End the code that blocks the event loop, if there is any."""
    try:
        running = asyncio.current_task()
    except RuntimeError:
        return
    if running is not None:
        raise OverdueError("".join(traceback.format_stack(frame)))


def main(descriptor: int, parent: int) -> None:
    """Load the environment that the first request names, and answer further ones."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGVTALRM, _interrupt)
    connection = socket.socket(fileno=descriptor)
    request = json.loads(_first_line(connection))
    try:
        environment = load_environment(request)
        rows = read_rows(environment, request["split"])
        described = describe_environment(environment)
        described["rows"] = [describe_row(environment, row) for row in rows]
    except BaseException as error:
        traceback.print_exc()
        send(connection, {"id": request["id"], **failure(error)})
        return

    async def serve() -> None:
        server = RequestServer(environment, rows, connection)
        send(connection, {"id": request["id"], "result": described})
        await server.serve()

    asyncio.run(serve())


def _first_line(connection: socket.socket) -> bytes:
    """Return the first line; nothing after it is read."""
    line = b""
    while not line.endswith(b"\n"):
        received = connection.recv(1)
        if not received:
            break
        line += received
    return line


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
