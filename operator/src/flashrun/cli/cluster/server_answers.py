"""Answers of a server of adapters, through a port-forward, as they are written."""

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from flashrun.api import pod
from flashrun.cli.cluster.connection import ClusterSession
from flashrun.cli.cluster.served_adapters import AdapterService, find_services
from flashrun.cli.output.failure import Failure, NotFoundFailure, UsageFailure
from flashrun.cli.output.printable_text import printable_line

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS: Final = 10
SILENCE_SECONDS: Final = 600
"""Longest time between two pieces of an answer: the first request downloads the adapter."""
_REFUSAL_BYTES: Final = 64 * 1024
"""How much is read of an answer that does not answer the question."""
_REASON_LENGTH: Final = 500
"""Longest reason of a refusal that is shown."""
_END: Final = "[DONE]"
_PREFIX: Final = "data:"


async def find_service(
    session: ClusterSession, model_id: str, server: str | None
) -> AdapterService:
    """Return the server that serves ``model_id``, or the one that is named ``server``.

    Raises:
        NotFoundFailure: no such server serves it, or the namespace does not exist.
        UsageFailure: several servers serve it, and none is named.
    """
    services = await find_services(session)
    if not services:
        await session.refuse_absent_namespace()
    if server is not None:
        services = [service for service in services if service.name == server]
        if not services:
            raise NotFoundFailure(
                f"namespace {session.namespace} has no server {server}",
                f"flash serve {model_id} --name {server} --apply starts it",
            )
    able = [
        service
        for service in services
        if service.served.get(model_id) is not None or service.run.model.id == model_id
    ]
    if len(able) > 1:
        raise UsageFailure(
            f"{len(able)} servers in namespace {session.namespace} serve {model_id}",
            f"choose one with --name: {', '.join(sorted(service.name for service in able))}",
        )
    if able:
        return able[0]
    again = "flash serve with the same references again adds what was saved since"
    if server is not None:
        raise NotFoundFailure(
            f"server {server} in namespace {session.namespace} does not serve {model_id}", again
        )
    raise NotFoundFailure(
        f"no server in namespace {session.namespace} serves {model_id}",
        f"flash serve {model_id} --apply starts one; {again}",
    )


async def stream_answer(
    address: str, model_id: str, messages: list[dict[str, str]], settings: dict[str, Any]
) -> AsyncIterator[str]:
    """Yield the pieces of the answer to a conversation.

    Raises:
        Failure: the server refuses, breaks off, or cannot be reached.
    """
    import aiohttp
    from aiohttp.http_exceptions import HttpProcessingError

    body = {"model": model_id, "messages": messages, "stream": True, **settings}
    limits = aiohttp.ClientTimeout(
        total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
    )
    try:
        async with (
            aiohttp.ClientSession(timeout=limits) as client,
            client.post(
                f"{address}/v1/chat/completions",
                json=body,
                allow_redirects=False,  # the question is for this server alone
            ) as answer,
        ):
            if answer.status != 200:
                text = (await _beginning(answer)).decode(errors="replace")
                raise Failure(f"the server refuses (status {answer.status}): {_reason(text)}")
            async for piece in _pieces(answer):
                yield piece
    except HttpProcessingError:  # of a line without an end
        raise _not_openai() from None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        why = printable_line(str(error)) or type(error).__name__
        raise Failure(
            f"the server's answer broke off: {why[:_REASON_LENGTH]}",
            f"kubectl logs shows why: its pods have the container {pod.SERVE_COMMAND}",
        ) from None


async def _beginning(answer: "aiohttp.ClientResponse") -> bytes:
    """Return the beginning of an answer that may be of any length."""
    read = b""
    while len(read) < _REFUSAL_BYTES and (part := await answer.content.read(_REFUSAL_BYTES)):
        read += part
    return read[:_REFUSAL_BYTES]


async def _pieces(answer: "aiohttp.ClientResponse") -> AsyncIterator[str]:
    """Yield the texts of server-sent events; raises ``Failure`` when they end too early."""
    begun = False
    async for line in answer.content:
        text = line.decode(errors="replace").strip()
        if not text.startswith(_PREFIX):
            continue
        begun, event = True, text.removeprefix(_PREFIX).strip()
        if event == _END:
            return
        if event:  # without data, it only keeps the connection open
            yield _content(event)
    if not begun:  # such as the page of a proxy
        raise _not_openai()
    raise Failure("the server's answer ended in the middle", "ask again")


def _content(event: str) -> str:
    """Return the text that one event adds; raises ``Failure`` when it is an error."""
    try:
        value = json.loads(event)
        if value.get("error") is not None:
            raise Failure(f"the server refuses: {_reason(event)}")
        choices = value.get("choices") or [{}]
        content = (choices[0].get("delta") or {}).get("content") or ""
        # Half of a surrogate pair, which JSON allows, is not text.
        return str(content.encode(errors="replace").decode())
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
        raise _not_openai() from None


def _not_openai() -> Failure:
    return Failure(
        "the server's answer is not an OpenAI one", "is another program behind its Service?"
    )


def _reason(text: str) -> str:
    """Return the sentence in the error of an OpenAI endpoint, in one line that can be shown."""
    try:
        error = json.loads(text)["error"]
        reason = str((error["message"] if isinstance(error, dict) else error) or "")
    except (ValueError, TypeError, KeyError, RecursionError):
        reason = text
    return printable_line(reason)[:_REASON_LENGTH] or "without a reason"
