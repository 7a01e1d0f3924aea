"""Commands of ``flash`` in forks of a process that has imported everything.

Importing is nine tenths of a command's processor time, and tests call thousands of commands. A fork
has everything else that a new process has: its own memory, variables, folder, streams and ending.
"""

import atexit
import functools
import io
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from enum import Enum
from pathlib import Path

SERVER = Path(__file__).with_name("fork_server.py")
AT_START = re.compile(r"PYTHON(?!PATH$|IOENCODING$)|LANG|LC_|LD_")
"""Variables that a process reads when it starts, which a fork does not."""


class Redirection(Enum):
    """Where a stream of a command leads, if not into a pipe that is read."""

    CLOSED = "nowhere"
    FULL = "to a full disk"
    UNREAD = "into a pipe that nobody reads"

    def open(self) -> int:
        """Return a descriptor that leads there; raises ``ValueError`` if nothing does."""
        if self is Redirection.FULL:
            return os.open("/dev/full", os.O_WRONLY)
        if self is Redirection.UNREAD:
            reader, writer = os.pipe()
            os.close(reader)
            return writer
        raise ValueError(f"a stream that leads {self.value} has no descriptor")


Redirected = Mapping[int, Redirection]
"""Number of a stream → where it leads."""


def closed_streams(redirected: Redirected) -> list[int]:
    """Return the numbers of the streams that are closed."""
    return [number for number, target in redirected.items() if target is Redirection.CLOSED]


def opened_streams(redirected: Redirected) -> dict[int, int]:
    """Return a descriptor for each stream that is not closed; the caller closes it."""
    return {
        number: target.open()
        for number, target in redirected.items()
        if target is not Redirection.CLOSED
    }


class ForkServer:
    """A running ``fork_server``; threads may share it.

    Args:
        python_path: Where it imports from.
    """

    def __init__(self, python_path: str) -> None:
        self._python_path = python_path
        variables = {"PATH": os.environ["PATH"], "PYTHONPATH": python_path}
        # The kind that keeps messages apart.
        self._commands, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, SERVER, json.dumps([*variables])],
                env=variables,
                stdin=theirs,
                # As those of commands are, so that Python's streams are the same.
                stdout=subprocess.PIPE,
                stderr=None,
            )

    def run(
        self,
        words: Sequence[str],
        variables: Mapping[str, str],
        folder: Path,
        stdin: str | None,
        seconds: float,
        redirected: Redirected,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as ``subprocess.run`` would.

        Raises:
            ValueError: it needs a process that starts anew.
            subprocess.TimeoutExpired: it, or what it started with its streams, did not end in time.
        """
        unread = [name for name in variables if AT_START.match(name)]
        if unread or variables["PYTHONPATH"] != self._python_path:
            raise ValueError(
                f"a fork reads {', '.join(unread) or 'another PYTHONPATH'} too late: "
                "call the command by Shell.in_new_process"
            )
        command = {
            "words": words,
            "variables": dict(variables),
            "folder": str(folder),
            "closed": closed_streams(redirected),
        }
        encoding = variables.get("PYTHONIOENCODING")
        with ExitStack() as theirs, ThreadPoolExecutor(3) as pool:
            # The last to be left: with its other ends closed, all pipes come to an end.
            if stdin is None:
                given = os.open(os.devnull, os.O_RDONLY)
            else:
                given, giving = os.pipe()
            out, printed = os.pipe()
            err, told = os.pipe()
            ended, ending = os.pipe()
            descriptors = [given, printed, told, ending]
            for descriptor in descriptors:
                theirs.callback(os.close, descriptor)
            for number, descriptor in opened_streams(redirected).items():
                theirs.callback(os.close, descriptor)
                descriptors[number] = descriptor
            socket.send_fds(self._commands, [json.dumps(command).encode()], descriptors)
            theirs.close()
            if stdin is not None:
                pool.submit(_write, giving, stdin)
            end = time.monotonic() + seconds
            answers = [pool.submit(_read, stream, end, encoding) for stream in (out, err)]
            with open(ended, "rb", buffering=0) as report:
                process = _number(report.read(4))
                if not select.select([report], [], [], seconds)[0]:
                    os.kill(process, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(list(words), seconds)
                code = _number(report.read(4))
            stdout, stderr = (answer.result() for answer in answers)
            if stdout is None or stderr is None:
                raise subprocess.TimeoutExpired(list(words), seconds)
        return subprocess.CompletedProcess(list(words), code, stdout, stderr)

    def close(self) -> None:
        """End the server."""
        self._commands.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()


@functools.cache
def fork_server(python_path: str) -> ForkServer:
    """Return the server of this process, which ends with it."""
    server = ForkServer(python_path)
    atexit.register(server.close)
    return server


def _read(descriptor: int, end: float, encoding: str | None) -> str | None:
    """Return what a command prints; None if a process that it has left keeps the pipe open."""
    data = bytearray()
    with open(descriptor, "rb", buffering=0) as stream:
        while select.select([stream], [], [], max(0.0, end - time.monotonic()))[0]:
            if not (part := stream.read(1 << 16)):
                return io.TextIOWrapper(io.BytesIO(data), encoding).read()
            data += part
    return None


def _write(descriptor: int, text: str) -> None:
    try:
        with open(descriptor, "w") as stream:
            stream.write(text)
    except BrokenPipeError:  # the command has read enough
        pass


def _number(data: bytes) -> int:
    assert len(data) == 4, "the server of forks has ended; see its standard error"
    number: int = struct.unpack("i", data)[0]
    return number
