"""A run whose pods and status a test plays, and processes that follow it."""

import codecs
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import socketserver
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashrun.api import names
from tests.cli.kubelet import NODE, Container, Kubelet
from tests.cli.shell import Served
from tests.servers import kubectl


@dataclass
class Stage:
    """One run whose pods, logs and status the test plays."""

    served: Served
    kubelet: Kubelet
    run: str
    uid: str

    def pod(self, attempt: int = 1) -> Container:
        """Start a pod of the run, and return its log."""
        name = self.pod_name(attempt)
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {names.RUN_LABEL: self.run, names.RUN_UID_LABEL: self.uid},
            },
            "spec": {
                "nodeName": NODE,
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "containers": [{"name": "trainer", "image": "trainer"}],
            },
        }
        wait_until(lambda: "default" in self.served.kubectl("get", "serviceaccounts"))
        self.served.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
        self._state(name, "Running", {"running": {}})
        return self.kubelet.container(name)

    def pod_name(self, attempt: int = 1) -> str:
        return f"{self.run}-{attempt}"

    def ended(self, attempt: int = 1) -> None:
        """The container ends, and with it its log."""
        name = self.pod_name(attempt)
        self.kubelet.container(name).end()
        self._state(name, "Succeeded", {"terminated": {"exitCode": 0, "containerID": "c"}})

    def gone(self, attempt: int = 1) -> None:
        """The pod disappears with its node; streams end where they are."""
        self.served.kubectl("delete", "pod", self.pod_name(attempt), "--force", "--grace-period=0")
        self.kubelet.container(self.pod_name(attempt)).cut()

    def stored(self, text: str, attempt: int = 1) -> None:
        """The trainer's own copy of an attempt's log."""
        prefix = names.run_prefix(self.served.namespace, self.run, self.uid)
        self.served.store.put_bytes(names.log_key(prefix, attempt), text.encode())

    def report(self, **status: Any) -> None:
        self.served.report(self.run, **status)

    def attempts(self, *numbers: int, **more: Any) -> dict[str, Any]:
        return {"attempts": [{"number": n, "pod": self.pod_name(n), **more} for n in numbers]}

    def _state(self, name: str, phase: str, state: dict[str, Any]) -> None:
        trainer = {
            "name": "trainer",
            "image": "trainer",
            "imageID": "trainer",
            "ready": True,
            "restartCount": 0,
            "state": state,
        }
        status = {"status": {"phase": phase, "containerStatuses": [trainer]}}
        patch = ("--subresource=status", "--type=merge", "-p", json.dumps(status))
        self.served.kubectl("patch", "pod", name, *patch)


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this never came true"
        time.sleep(0.1)


class Following:
    """A ``flash`` in the background whose output is read line by line."""

    def __init__(self, stage: Stage, *words: str, seconds: float = 120) -> None:
        self._process = subprocess.Popen(
            stage.served.flash.argv(*words),
            env=stage.served.flash.environment,
            cwd=stage.served.flash.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.seen: list[str] = []
        self._limit = threading.Timer(
            seconds, self._process.kill
        )  # a lost line must not hang a test
        self._limit.start()

    def wait_for(self, text: str) -> None:
        assert self._process.stdout is not None
        while text not in self.seen:
            line = self._process.stdout.readline()
            assert line, f"it ended before {text!r}: {self.seen}"
            self.seen.append(line.rstrip("\n"))

    def wait_for_note(self, text: str) -> None:
        """Read standard error until a line has the text."""
        assert self._process.stderr is not None
        assert any(text in line for line in self._process.stderr), f"{text!r} was never said"

    def finish(self) -> tuple[list[str], int]:
        """Return every line of the answer, and the exit code."""
        out, _ = self._process.communicate(timeout=60)
        return [*self.seen, *out.splitlines()], self._process.returncode

    def interrupt(self) -> tuple[str, int]:
        self._process.send_signal(signal.SIGINT)
        _, told = self._process.communicate(timeout=60)
        return told, self._process.returncode

    def __enter__(self) -> "Following":
        return self

    def __exit__(self, *_: object) -> None:
        self._limit.cancel()
        self._process.kill()
        self._process.wait()


class ForegroundTrain:
    """``flash train`` in the foreground, until it has submitted its run."""

    def __init__(self, served: Served, *words: str) -> None:
        served.push()
        self.process = subprocess.Popen(
            served.flash.argv("train", "config.toml", *words),
            env=served.flash.environment,
            cwd=served.flash.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that runs tests in the background makes its children ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def __enter__(self) -> tuple[str, "subprocess.Popen[str]"]:
        line = wait_for(self.process, "submitted")
        name = line.strip().rpartition("/")[2]
        wait_for(self.process, name)  # it follows
        return name, self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"{text!r} was never said")


_OTHER_SCREEN, _FIRST_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """``flash`` on a pseudo-terminal of its own, as a person has it."""

    def __init__(
        self, served: Served, *words: str, columns: int = 80, rows: int = 30, **variables: str
    ) -> None:
        self._screen, inside = pty.openpty()
        self.resize(columns, rows)
        self.text = ""
        # A read of a terminal may end inside a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._process = subprocess.Popen(
            served.flash.argv(*words),
            env={
                **served.flash.environment,
                "TERM": "xterm-256color",
                "COLUMNS": "",
                **variables,
            },
            cwd=served.flash.folder,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(inside)

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """Read until the text on the screen matches; return what matched."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.text)) is None:
            assert self._read(deadline), f"{pattern!r} never came: {self.text!r}"
        return found.group(1) if found.groups() else found.group()

    def resize(self, columns: int, rows: int = 30) -> None:
        """Give the window another size, and let the program know."""
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def frames(self) -> list[list[str]]:
        """Return what was drawn on the other screen: the lines of each drawing, without colours."""
        drawn = self.text.partition(_OTHER_SCREEN)[2].partition(_FIRST_SCREEN)[0]
        parts = drawn.split("\x1b[H")[1:]
        return [_COLOURS.sub("", part).replace("\r", "").split("\n") for part in parts]

    def wait_for_frame(self, pattern: str) -> list[str]:
        """Read until a whole drawing that is newer than this call matches; return its lines."""
        deadline, seen = time.monotonic() + 60, len(self.frames())
        while True:
            # The newest may be half drawn.
            for frame in self.frames()[max(0, seen - 1) : -1]:
                if re.search(pattern, "\n".join(frame)):
                    return [line.rstrip() for line in frame]
            assert self._read(deadline), f"{pattern!r} was never drawn: {self.frames()[-1:]}"

    def last_lines(self) -> list[str]:
        """Return what was printed after the other screen was left."""
        return _COLOURS.sub("", self.text.rpartition(_FIRST_SCREEN)[2]).splitlines()

    def press(self, keys: bytes) -> None:
        os.write(self._screen, keys)

    def terminate(self) -> None:
        """End the program as another one would."""
        self._process.terminate()

    def finish(self) -> int:
        while self._read(time.monotonic() + 60):
            pass
        return self._process.wait(timeout=60)

    def _read(self, deadline: float) -> bool:
        if not select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # the other side is closed
            return False
        self.text += self._decoder.decode(data)
        return bool(data)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._screen)


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Relay:
    """A network between ``flash`` and the API server, which can be cut and mended."""

    def __init__(self, served: Served) -> None:
        self._served = served
        cluster = json.loads(served.kubectl("config", "view", "--raw", "-ojson"))["clusters"][0]
        address = cluster["cluster"]["server"].removeprefix("https://")
        host, _, port = address.rpartition(":")
        self._server = _RelayServer((host, int(port)))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        here = f"https://127.0.0.1:{self._server.server_address[1]}"
        own = str(served.flash.kubeconfig)
        kubectl(Path(own), "config", "set-cluster", cluster["name"], "--server", here)

    def cut(self) -> None:
        """Close every connection, and accept none."""
        self._server.open = False
        for connection in self._server.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Accept connections again."""
        self._server.open = True

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._server.shutdown()
        self._server.server_close()


class _RelayServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    open = True

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _RelayedConnection)
        self.target = target
        self.connections: list[socket.socket] = []


class _RelayedConnection(socketserver.BaseRequestHandler):
    server: _RelayServer

    def handle(self) -> None:
        if not self.server.open:
            return
        with socket.create_connection(self.server.target) as upstream:
            self.server.connections += [self.request, upstream]
            back = threading.Thread(target=_copy, args=(upstream, self.request), daemon=True)
            back.start()
            _copy(self.request, upstream)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
