"""How the launchers of one attempt's pods find each other, and stay connected until the end.

The launcher of the leading pod listens, and the launchers of the other pods connect to it. When all
are connected, it sends each of them the attempt number and the port of rank 0. The connections stay
open: a launcher that ends sends how it ended, and a lost connection is noticed at once, much
earlier than a collective would time out.
"""

import logging
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal, Self, TypeVar

from pydantic import ValidationError

from flashrun.api.base import Record
from flashrun.api.exits import Exit, Termination
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedRun
from flashrun.listening import listen_on_all_addresses
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.trainer_errors import TrainerError

log = logging.getLogger(__name__)

PeerMessage = TypeVar("PeerMessage", bound=Record)

RENDEZVOUS_TIMEOUT_SECONDS: Final = 1800.0
"""Longest wait for the other pods: they may still be pulling images and models."""
_JOIN_TIMEOUT_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0
_LONGEST_LINE: Final = 1 << 20
_KEEPALIVE_TIMEOUT_SECONDS: Final = 60
"""A pod whose node does not answer for so long is considered lost."""


class JoinMessage(Record):
    """The first message of a launcher to the leader."""

    run: str
    """The run's uid."""
    index: int
    """Index of the pod."""


class StartMessage(Record):
    """The leader's message when all pods are connected."""

    attempt: int
    port: int
    """Port of rank 0 on the leader's host, where the other ranks connect to it."""


class EndMessage(Record):
    """How a pod's part of the attempt ended."""

    code: int
    termination: Termination | None = None
    log: str = ""
    """The last lines of the process that failed."""


class StopMessage(Record):
    """This pod was asked to stop; the leader's rank 0 saves for all."""

    stop: Literal[True] = True


class PeerConnection:
    """A connection between two launchers; each message is one line of JSON."""

    def __init__(self, connection: socket.socket, index: int = 0) -> None:
        self.connection = connection
        self.index = index
        """Index of the pod at the other end."""
        self._rest = b""
        interval, timeout = _KEEPALIVE_TIMEOUT_SECONDS // 4, _KEEPALIVE_TIMEOUT_SECONDS * 1000
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout)

    def send(self, message: Record) -> None:
        """Send a message; when the connection is lost, only log that."""
        try:
            self.connection.sendall(message.model_dump_json().encode() + b"\n")
        except OSError as error:
            log.warning("pod %d does not receive the state of this pod: %s", self.index, error)

    def receive(self, *kinds: type[PeerMessage]) -> PeerMessage:
        """Wait for the next message.

        Raises:
            EOFError: the connection is closed, or the message is of none of these ``kinds``.
            TimeoutError: the other end does not answer.
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
        for kind in kinds:
            with suppress(ValidationError):
                return kind.model_validate_json(line)
        raise EOFError

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


class Rendezvous:
    """The leader's side: accepts connections until all pods are connected.

    Use it as a context manager. The listener is closed at its end, so that no pod joins an attempt
    that has started already.
    """

    def __init__(self, pod: PodMounts, run: ResolvedRun) -> None:
        self._run = run
        self._missing = set(range(1, run.scale.nodes))
        self._peers: dict[int, PeerConnection] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = listen_on_all_addresses(pod.leader_port)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        """Return the rendezvous; it listens since it was created."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._selector.close()
        self._listener.close()

    def wait_for_peers(
        self, timeout_seconds: float = RENDEZVOUS_TIMEOUT_SECONDS
    ) -> list[PeerConnection]:
        """Return the connections to all other pods.

        Raises:
            TrainerError: not all pods have connected within ``timeout_seconds``.
        """
        deadline = time.monotonic() + timeout_seconds
        log.info("waiting for %d more pods of this attempt", len(self._missing))
        while self._missing:
            if (left := deadline - time.monotonic()) <= 0:
                missing = f"{len(self._missing)} of the other pods"
                raise _peers_missing(self._run, timeout_seconds, missing)
            for key, _ in self._selector.select(left):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._peers.values():
                    self._drop(key.data)
        return list(self._peers.values())

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        peer = PeerConnection(connection)
        connection.settimeout(_JOIN_TIMEOUT_SECONDS)
        try:
            join = peer.receive(JoinMessage)
        except (EOFError, TimeoutError):
            peer.close()
            return
        connection.settimeout(None)
        if join.run != self._run.run.uid or not 0 < join.index < self._run.scale.nodes:
            peer.close()
            return
        if join.index in self._peers:
            self._drop(self._peers[join.index])
        peer.index = join.index
        self._peers[peer.index] = peer
        self._missing.discard(peer.index)
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def _drop(self, peer: PeerConnection) -> None:
        """Wait again for the pod of a lost connection: its Job replaces a pod that has ended."""
        self._selector.unregister(peer.connection)
        peer.close()
        del self._peers[peer.index]
        self._missing.add(peer.index)


def join_leader(
    pod: PodMounts,
    run: ResolvedRun,
    is_over: Callable[[], bool],
    timeout_seconds: float = RENDEZVOUS_TIMEOUT_SECONDS,
) -> tuple[PeerConnection, StartMessage] | None:
    """Connect to the leader, wait for its start message, and return the connection and the message.

    Returns None as soon as ``is_over`` returns True, because the run needs no more attempts.

    Raises:
        TrainerError: the leader has not answered within ``timeout_seconds``.
    """
    deadline = time.monotonic() + timeout_seconds
    log.info("waiting for the leading pod at %s", pod.leader)
    while time.monotonic() < deadline:
        if is_over():
            return None
        try:
            address = (pod.leader, pod.leader_port)
            connection = socket.create_connection(address, _JOIN_TIMEOUT_SECONDS)
        except OSError:
            time.sleep(_RETRY_SECONDS)
            continue
        peer = PeerConnection(connection)
        peer.send(JoinMessage(run=run.run.uid, index=pod.index))
        connection.settimeout(max(1.0, deadline - time.monotonic()))
        try:
            start = peer.receive(StartMessage)
        except (OSError, EOFError):
            # The leader has ended before all pods were connected; join the leader of the next try.
            peer.close()
            time.sleep(_RETRY_SECONDS)
            continue
        connection.settimeout(None)
        return peer, start
    raise _peers_missing(run, timeout_seconds, f"the leading pod at {pod.leader}")


def _peers_missing(run: ResolvedRun, timeout_seconds: float, missing: str) -> TrainerError:
    return TrainerError(
        Exit.TEMPORARY,
        Reason.PEERS_MISSING,
        f"the run trains on {run.scale.nodes} pods, but {missing} did not connect within "
        f"{timeout_seconds:.0f} s",
        "free capacity in the cluster: all pods of the run must fit at the same time",
    )
