"""How the launchers of one attempt's pods meet, and hear from each other until the end.

The leading pod's launcher listens; those of the other pods come to it. When all are there it tells
each which attempt they are, and where the processes meet. The connections stay open: who ends says
how, and whoever is cut off is missed at once, much sooner than a collective would time out.
"""

import logging
import selectors
import socket
import time
from collections.abc import Callable
from typing import Final, Self, TypeVar

from pydantic import ValidationError

from flashrun.api.base import Record
from flashrun.api.exits import Exit, Termination
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedRun
from flashrun_trainer.pod.mounts import Pod
from flashrun_trainer.pod.trainer_errors import TrainerError

log = logging.getLogger(__name__)

Message = TypeVar("Message", bound=Record)

PATIENCE_SECONDS: Final = 1800.0
"""Longest wait for the other pods: they may still be pulling images and models."""
_HELLO_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0
_LONGEST_LINE: Final = 1 << 20
_SILENCE_SECONDS: Final = 60
"""A pod whose node does not answer for so long is given up."""


class Hello(Record):
    """What a launcher says first."""

    run: str
    """Identity of the run."""
    index: int


class Start(Record):
    """What the leader answers when everybody is there."""

    attempt: int
    port: int
    """Where the leader's first process waits for the others, on the leader's host."""


class Ended(Record):
    """How a pod's part of the attempt ended."""

    code: int
    termination: Termination | None = None
    log: str = ""
    """The last lines of the process that failed."""


class Link:
    """A connection between two launchers: one JSON record a line."""

    def __init__(self, connection: socket.socket, index: int = 0) -> None:
        self.connection = connection
        self.index = index
        """Position of the pod at the other end."""
        self._rest = b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE_SECONDS // 4)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _SILENCE_SECONDS // 4)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_SECONDS * 1000)

    def send(self, message: Record) -> None:
        """Say something; somebody who is gone does not hear it."""
        try:
            self.connection.sendall(message.model_dump_json().encode() + b"\n")
        except OSError as error:
            log.warning("pod %d cannot be told how this one is: %s", self.index, error)

    def receive(self, kind: type[Message]) -> Message:
        """Wait for the next message.

        Raises:
            EOFError: the other end is gone, or says what it should not.
            TimeoutError: it does not answer.
        """
        while b"\n" not in self._rest:
            try:
                chunk = self.connection.recv(65536)
            except ConnectionError:
                chunk = b""
            if not chunk or len(self._rest) > _LONGEST_LINE:
                raise EOFError
            self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        try:
            return kind.model_validate_json(line)
        except ValidationError as error:
            raise EOFError from error

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


class Meeting:
    """The leader's side, until everybody is there."""

    def __init__(self, pod: Pod, run: ResolvedRun) -> None:
        self._run = run
        self._missing = set(range(1, run.scale.nodes))
        self._links: dict[int, Link] = {}
        self._selector = selectors.DefaultSelector()
        self._door = socket.create_server(("", pod.leader_port))
        self._selector.register(self._door, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        """Use as a context: nobody comes in after its end, so that no attempt gets another's."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the door."""
        self._selector.close()
        self._door.close()

    def wait(self, seconds: float = PATIENCE_SECONDS) -> list[Link]:
        """Return the connections to all other pods.

        Raises:
            TrainerError: they are not there within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        log.info("waiting for %d more pods of this attempt", len(self._missing))
        while self._missing:
            if (left := deadline - time.monotonic()) <= 0:
                raise _missing(self._run, seconds, f"{len(self._missing)} of the other pods")
            for key, _ in self._selector.select(left):
                if key.fileobj is self._door:
                    self._let_in()
                elif key.data in self._links.values():
                    self._forget(key.data)
        return list(self._links.values())

    def _let_in(self) -> None:
        connection, _ = self._door.accept()
        link = Link(connection)
        connection.settimeout(_HELLO_SECONDS)
        try:
            hello = link.receive(Hello)
        except (EOFError, TimeoutError):
            link.close()
            return
        connection.settimeout(None)
        if hello.run != self._run.run.uid or not 0 < hello.index < self._run.scale.nodes:
            link.close()
            return
        if hello.index in self._links:
            self._forget(self._links[hello.index])
        link.index = hello.index
        self._links[link.index] = link
        self._missing.discard(link.index)
        self._selector.register(connection, selectors.EVENT_READ, link)

    def _forget(self, link: Link) -> None:
        """Wait for somebody again who was here: its pod has ended, and another will come."""
        self._selector.unregister(link.connection)
        link.close()
        del self._links[link.index]
        self._missing.add(link.index)


def follow(
    pod: Pod, run: ResolvedRun, is_over: Callable[[], bool], seconds: float = PATIENCE_SECONDS
) -> tuple[Link, Start] | None:
    """Come to the leader, and return the connection and what it says when all are there.

    Returns None as soon as ``is_over`` says that nobody has to come any more.

    Raises:
        TrainerError: the leader does not appear within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    log.info("waiting for the leading pod at %s", pod.leader)
    while time.monotonic() < deadline:
        if is_over():
            return None
        try:
            connection = socket.create_connection((pod.leader, pod.leader_port), _HELLO_SECONDS)
        except OSError:
            time.sleep(_RETRY_SECONDS)
            continue
        link = Link(connection)
        link.send(Hello(run=run.run.uid, index=pod.index))
        connection.settimeout(max(1.0, deadline - time.monotonic()))
        try:
            start = link.receive(Start)
        except (OSError, EOFError):
            # The leader has ended before everybody was there; the next one will ask us again.
            link.close()
            time.sleep(_RETRY_SECONDS)
            continue
        connection.settimeout(None)
        return link, start
    raise _missing(run, seconds, f"the leading pod at {pod.leader}")


def _missing(run: ResolvedRun, seconds: float, who: str) -> TrainerError:
    return TrainerError(
        Exit.TEMPORARY,
        Reason.PEERS_MISSING,
        f"the run trains on {run.scale.nodes} pods, and {who} did not come within {seconds:.0f} s",
        "the cluster has to have room for all pods of the run at once",
    )
