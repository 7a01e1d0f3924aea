"""The kinds of faults that a proxy can have."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from aiohttp import web
from typing_extensions import override

from tests.faults.exchange import Exchange
from tests.faults.proxy import Answer, Fault, WatchEnds, broken

Which = Callable[[Exchange], bool]
ONCE_IN_A_WHILE = 3
"""Every how many requests fail, where not all do."""


def anything(exchange: Exchange) -> bool:
    """Every request, the opening of watches included."""
    return True


def reads(exchange: Exchange) -> bool:
    return exchange.is_read


def writes(exchange: Exchange) -> bool:
    return exchange.is_write


def writes_of(run: str) -> Which:
    """Writes about one run."""
    return lambda exchange: (
        exchange.is_write and run.encode() in exchange.target.encode() + exchange.body
    )


def leases(exchange: Exchange) -> bool:
    return exchange.is_lease


def credentials(exchange: Exchange) -> bool:
    return exchange.is_sts


def about(plural: str, method: str = "") -> Which:
    """Requests about one kind of object."""
    return lambda exchange: exchange.is_about(plural) and method in ("", exchange.method)


@dataclass(eq=False)
class Some(Fault):
    """A fault of some requests: every so many of those that ``which`` names."""

    which: Which = anything
    every: int = 1
    count: int = field(default=0, init=False)

    @override
    def hits(self, exchange: Exchange) -> bool:
        if not self.which(exchange):
            return False
        self.count += 1
        return self.count % self.every == 0


@dataclass(eq=False)
class Refuse(Some):
    """The server answers with a status, and does nothing."""

    status: int = 503
    retry_after: int | None = None

    @override
    async def before(self, exchange: Exchange, request: web.Request) -> web.StreamResponse | None:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return web.Response(status=self.status, headers=headers)


@dataclass(eq=False)
class Delay(Some):
    """The answer takes longer."""

    seconds: float = 2.0

    @override
    async def before(self, exchange: Exchange, request: web.Request) -> web.StreamResponse | None:
        await asyncio.sleep(self.seconds)
        return None


@dataclass(eq=False)
class Hang(Some):
    """Nothing is answered, however long the client waits."""

    longest: float = 600.0
    breaks: bool = False
    """Whether the connections break when the fault is over."""

    @override
    async def before(self, exchange: Exchange, request: web.Request) -> web.StreamResponse | None:
        for _ in range(int(self.longest / 0.1)):
            if self.over and self.breaks:
                break
            await asyncio.sleep(0.1)
        return broken(request)


@dataclass(eq=False)
class Break(Some):
    """The connection breaks before the server was asked."""

    @override
    async def before(self, exchange: Exchange, request: web.Request) -> web.StreamResponse | None:
        return broken(request)


@dataclass(eq=False)
class LoseAnswer(Some):
    """The server does what it was asked, and the connection breaks before it can say so."""

    @override
    def after(self, exchange: Exchange, answer: Answer) -> Answer | None:
        return None


@dataclass(eq=False)
class CutAnswer(Some):
    """The connection breaks in the middle of an answer."""

    @override
    def after(self, exchange: Exchange, answer: Answer) -> Answer | None:
        return replace(answer, cut=len(answer.body) // 2)


@dataclass(eq=False)
class OldSnapshot(Some):
    """Reads show what they showed when they were made first, as a replica that has stopped does."""

    which: Which = reads
    remembered: dict[str, Answer] = field(default_factory=dict)
    lies: bool = False
    """Until it does, it only remembers."""

    @override
    async def before(self, exchange: Exchange, request: web.Request) -> web.StreamResponse | None:
        old = self.remembered.get(exchange.target)
        if not self.lies or old is None or exchange.is_lease:
            return None
        headers = {k: v for k, v in old.headers.items() if k != "Content-Length"}
        return web.Response(status=old.status, body=old.body, headers=headers)

    @override
    def after(self, exchange: Exchange, answer: Answer) -> Answer | None:
        self.remembered.setdefault(exchange.target, answer)
        return answer


def _is_event(line: bytes) -> bool:
    return json.loads(line)["type"] in ("ADDED", "MODIFIED", "DELETED")


def watches(exchange: Exchange) -> bool:
    return exchange.is_watch


def watches_of(plural: str) -> Which:
    return lambda exchange: exchange.is_watch and exchange.is_about(plural)


@dataclass(eq=False)
class Events(Some):
    """A fault of the events of watches; the requests pass."""

    which: Which = watches


@dataclass(eq=False)
class LoseEvents(Events):
    """What happens is not shown."""

    @override
    async def lines(self, exchange: Exchange, lines: list[bytes]) -> list[bytes]:
        return [line for line in lines if not _is_event(line)]


@dataclass(eq=False)
class RepeatEvents(Events):
    """Each event is shown again, and then once more behind the next one."""

    last: dict[str, bytes] = field(default_factory=dict)

    @override
    async def lines(self, exchange: Exchange, lines: list[bytes]) -> list[bytes]:
        shown: list[bytes] = []
        for line in lines:
            shown += [line, line]
            if before := self.last.get(exchange.target):
                shown.append(before)
            if _is_event(line):
                self.last[exchange.target] = line
        return shown


@dataclass(eq=False)
class ReorderEvents(Events):
    """Events of different objects come in reverse; those of one object keep their order."""

    gathers: ClassVar[float] = 1.0

    @override
    async def lines(self, exchange: Exchange, lines: list[bytes]) -> list[bytes]:
        by_object: dict[str, list[bytes]] = {}
        for line in lines:
            by_object.setdefault(_name(line), []).append(line)
        return [line for name in reversed(by_object) for line in by_object[name]]


@dataclass(eq=False)
class DelayEvents(Events):
    """Each event is shown later, and all behind it."""

    seconds: float = 3.0

    @override
    async def lines(self, exchange: Exchange, lines: list[bytes]) -> list[bytes]:
        await asyncio.sleep(self.seconds)
        return lines


@dataclass(eq=False)
class EndWatch(Events):
    """The connection breaks at an event."""

    @override
    async def lines(self, exchange: Exchange, lines: list[bytes]) -> list[bytes]:
        raise WatchEnds


@dataclass(eq=False)
class ErrorEvent(Events):
    """A watch shows an error in place of an event."""

    code: int = 410

    @override
    async def lines(self, exchange: Exchange, lines: list[bytes]) -> list[bytes]:
        reason = {410: "Expired", 500: "InternalError"}[self.code]
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {}}
        status |= {"code": self.code, "reason": reason, "message": "a fault of the test"}
        return [json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"]


@dataclass(eq=False)
class AfterWrite(Some):
    """Calls something after the n-th write that was done, before its answer is passed on."""

    which: Which = writes
    number: int = 1
    call: Callable[[], None] = lambda: None
    done: list[str] = field(default_factory=list)

    @override
    def after(self, exchange: Exchange, answer: Answer) -> Answer | None:
        if answer.status >= 300:
            return answer
        self.done.append(str(exchange))
        if len(self.done) != self.number:
            return answer
        self.call()
        return None


def _name(line: bytes) -> str:
    metadata = json.loads(line)["object"]["metadata"]
    return f"{metadata.get('namespace')}/{metadata.get('name')}"
