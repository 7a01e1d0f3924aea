"""Following a run until its end, against a real API server and a kubelet that the test plays."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flashrun.api import names
from localcluster.controlplane import ControlPlane
from tests.cli.conftest import Served
from tests.cli.kubelet import NODE, Container, Kubelet
from tests.cli.test_cluster import followed
from tests.servers import kubectl

pytestmark = pytest.mark.api


@pytest.fixture(scope="module")
def kubelet(control_plane: ControlPlane, installed: Path) -> Iterator[Kubelet]:
    """A node whose logs the test writes."""
    leaf = control_plane.authority.leaf("kubelet-of-tests", "/CN=kubelet", ["IP:127.0.0.1"])
    serving = Kubelet(leaf)
    kubectl(installed, "apply", "-f", "-", stdin=json.dumps(serving.node()))
    status = ("--subresource=status", "--type=merge", "-p", serving.node_status())
    kubectl(installed, "patch", "node", NODE, *status)
    yield serving
    kubectl(installed, "delete", "node", NODE, "--wait=false")
    serving.stop()


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


@pytest.fixture
def stage(served: Served, kubelet: Kubelet) -> Stage:
    served.push()
    run = served.submit()
    return Stage(served, kubelet, run, served.get("flashrun", run)["metadata"]["uid"])


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "this never came true"
        time.sleep(0.1)


class Following:
    """A ``flash`` in the background whose output is read line by line."""

    def __init__(self, stage: Stage, *words: str) -> None:
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
        self._limit = threading.Timer(120, self._process.kill)  # a lost line must not hang a test
        self._limit.start()

    def wait_for(self, text: str) -> None:
        assert self._process.stdout is not None
        while text not in self.seen:
            line = self._process.stdout.readline()
            assert line, f"it ended before {text!r}: {self.seen}"
            self.seen.append(line.rstrip("\n"))

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


# --- nothing is lost, nothing is repeated -------------------------------------------------------


def test_lines_written_just_before_the_end_are_shown(stage: Stage) -> None:
    log = stage.pod()
    stage.report(phase="Running", **stage.attempts(1))
    log.write("first")
    with Following(stage, "log", stage.run, "-f") as following:
        following.wait_for("first")
        log.write(*(f"line {number}" for number in range(500)), "last")
        stage.ended()
        stage.report(phase="Succeeded")
        lines, code = following.finish()

    assert lines == ["first", *(f"line {number}" for number in range(500)), "last"]
    assert code == 0


def test_train_shows_the_whole_log_before_it_ends(served: Served, kubelet: Kubelet) -> None:
    with followed(served) as (name, process):
        uid = served.get("flashrun", name)["metadata"]["uid"]
        stage = Stage(served, kubelet, name, uid)
        stage.pod().write(*(f"line {number}" for number in range(500)), "last")
        stage.ended()
        stage.report(phase="Succeeded", adapter={"ref": name, "bytes": 1}, **stage.attempts(1))
        out, told = process.communicate(timeout=60)

    assert process.returncode == 0
    shown = out.splitlines()
    assert shown[:501] == [*(f"line {number}" for number in range(500)), "last"]
    assert "Phase:       Succeeded" in shown[501:]
    assert f"{name} succeeded. Get the adapter: flash pull {name}" in told


def test_a_cut_stream_goes_on_where_it_was(stage: Stage) -> None:
    log = stage.pod()
    stage.report(phase="Running", **stage.attempts(1))
    log.write("same", "same", "one", seconds=0)
    with Following(stage, "log", stage.run, "-f") as following:
        following.wait_for("one")
        log.cut()
        log.write("same", "two", seconds=0)
        following.wait_for("two")
        log.write("three", seconds=30)
        following.wait_for("three")
        log.cut()
        wait_until(lambda: len(log.readings) >= 3)
        log.write("four")
        stage.ended()
        stage.report(phase="Succeeded")
        lines, _ = following.finish()

    assert lines == ["same", "same", "one", "same", "two", "three", "four"]
    assert log.readings[-1]["sinceTime"] == "2026-11-22T12:00:28Z"


def test_a_rotated_file_takes_no_line_with_it(stage: Stage) -> None:
    log = stage.pod()
    stage.report(phase="Running", **stage.attempts(1))
    log.write("one", "two", seconds=5)
    with Following(stage, "log", stage.run, "-f") as following:
        following.wait_for("two")
        log.rotate()
        log.write("three", "four", seconds=20)
        following.wait_for("four")
        stage.ended()
        stage.report(phase="Succeeded")
        lines, _ = following.finish()

    assert lines == ["one", "two", "three", "four"]


def test_what_a_vanished_pod_had_left_to_say_comes_from_storage(stage: Stage) -> None:
    log = stage.pod()
    stage.report(phase="Running", **stage.attempts(1))
    log.write("one", "two")
    with Following(stage, "log", stage.run, "-f") as following:
        following.wait_for("two")
        stage.stored("one\ntwo\nthree\nfour\n")
        stage.gone()
        stage.report(phase="Failed")
        lines, _ = following.finish()

    assert lines == ["one", "two", "three", "four"]


def test_every_attempt_is_followed_or_the_one_that_was_asked_for(stage: Stage) -> None:
    for attempt in (1, 2):
        stage.pod(attempt).write(f"of {attempt}")
        stage.ended(attempt)
    stage.report(phase="Failed", **stage.attempts(1, 2, end="2026-11-22T12:00:00Z"))

    assert sorted(stage.served.flash("log", stage.run, "-f").stdout.split("\n")) == [
        "", "of 1", "of 2",
    ]  # fmt: skip
    for attempt in (1, 2):
        words = ("log", stage.run, "--attempt", str(attempt))
        assert stage.served.flash(*words).stdout == f"of {attempt}\n"
        assert stage.served.flash(*words, "-f").stdout == f"of {attempt}\n"


def test_the_log_of_a_node_that_does_not_answer_comes_from_storage(stage: Stage) -> None:
    stage.pod()
    stage.stored("kept\n")
    stage.report(phase="Running", **stage.attempts(1))
    unreachable = {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}}
    patch = ("--subresource=status", "--type=merge", "-p")
    stage.served.kubectl("patch", "node", NODE, *patch, json.dumps(unreachable))
    try:
        assert stage.served.flash("log", stage.run).stdout == "kept\n"
    finally:
        stage.served.kubectl("patch", "node", NODE, *patch, stage.kubelet.node_status())


@pytest.mark.parametrize("command", ["log", "status"])
def test_control_c_says_how_to_come_back(stage: Stage, command: str) -> None:
    stage.pod().write("one")
    stage.report(phase="Running", **stage.attempts(1))
    with Following(stage, command, stage.run, "-f") as following:
        if command == "log":
            following.wait_for("one")
        else:
            time.sleep(2)  # nothing on standard output says that it has begun
        told, code = following.interrupt()

    assert code == 130
    assert f"Come back: flash log {stage.run} -f" in told


# --- on a terminal ------------------------------------------------------------------------------


class Terminal:
    """``flash`` on a pseudo-terminal of its own, as a person has it."""

    def __init__(self, served: Served, *words: str, **variables: str) -> None:
        self._screen, inside = pty.openpty()
        self.text = ""
        self._process = subprocess.Popen(
            served.flash.argv(*words),
            env={**served.flash.environment, "TERM": "xterm-256color", **variables},
            cwd=served.flash.folder,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(inside)

    def wait_for(self, pattern: str) -> str:
        """Read until the text on the screen matches; return what matched."""
        deadline = time.monotonic() + 60
        while (found := re.search(pattern, self.text)) is None:
            assert self._read(deadline), f"{pattern!r} never came: {self.text!r}"
        return found.group(1) if found.groups() else found.group()

    def press(self, keys: bytes) -> None:
        os.write(self._screen, keys)

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
        self.text += data.decode()
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


def test_a_terminal_shows_progress_in_place_and_control_c_detaches(served: Served) -> None:
    served.push()
    with Terminal(served, "train", "config.toml") as screen:
        name = screen.wait_for(r"submitted \S+/(flash-\S+)")
        progress = {"step": 3, "totalSteps": 10, "percent": 30, "metrics": {"loss": "1.5"}}
        served.report(name, phase="Running", progress=progress)
        screen.wait_for(r"step 3/10 \(30%\) · loss 1\.5")
        served.report(name, phase="Running", progress={**progress, "step": 4, "percent": 40})
        screen.wait_for(r"step 4/10 \(40%\)")
        screen.press(b"\x03")
        code = screen.finish()

    assert code == 130
    assert f"Come back: flash log {name} -f" in screen.text
    assert "\x1b[" in screen.text  # the line is renewed in its place
    assert served.get("flashrun", name)["spec"].get("control") is None


def test_a_terminal_gets_drawn_tables_and_no_colour_only_when_asked(served: Served) -> None:
    for variables, styled in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Terminal(served, "gpus", **variables) as screen:
            assert screen.finish() == 0
        assert "POOL" in screen.text
        assert ("\x1b[" in screen.text) is styled
