"""Of several worker processes that end, the first cause becomes the pod's code and sentence.

The processes are short scripts: their end is all that the worker group sees of training.
"""

import signal
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.exits import Exit, Termination
from flashrun.api.records import Scale
from flashrun_trainer.launch import workers
from flashrun_trainer.launch.rendezvous import (
    EndMessage,
    PeerConnection,
    StartMessage,
    StopMessage,
)
from flashrun_trainer.launch.workers import WorkerGroup
from flashrun_trainer.pod import main_memory
from flashrun_trainer.pod.interruption import Interruption
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.redaction import Redactor
from tests.trainer.pods import resolved

PRELUDE = """
import json, os, signal, sys, time
number = int(os.environ["RANK"])

def say(reason, message="it failed"):
    with open(os.environ["FLASHRUN_TERMINATION"], "w") as file:
        json.dump({"reason": reason, "message": message}, file)

def end(code, reason, message="it failed"):
    say(reason, message)
    os._exit(code)

signal.signal(signal.SIGTERM, lambda *_: end(41, "Interrupted"))
"""


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A test's launcher handles SIGTERM; the test runner's handler is restored."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def worker_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., WorkerGroup]:
    """Builds the worker group of a pod whose processes run a script."""
    monkeypatch.setattr(workers, "_CAUSE_GRACE_SECONDS", 1.0)
    monkeypatch.setattr(workers, "_STOP_GRACE_SECONDS", 1.0)

    def build(
        script: str, index: int = 0, peers: list[PeerConnection] | None = None, **scale: Any
    ) -> WorkerGroup:
        command = (sys.executable, "-c", PRELUDE + textwrap.dedent(script))
        monkeypatch.setattr(workers, "WORKER_COMMAND", command)
        work = tmp_path / str(index)
        work.mkdir()
        pod = PodMounts.from_environment(
            {"FLASHRUN_WORK": str(work), "JOB_COMPLETION_INDEX": str(index)}
        )
        spec = resolved("sft", scale=Scale(**scale), upload_timeout_seconds=20)
        redact = Redactor(("hidden-value",))
        return WorkerGroup(
            pod, spec, StartMessage(attempt=3, port=1), peers or [], Interruption(), redact
        )

    return build


@pytest.fixture
def wire() -> Iterator[Callable[..., tuple[PeerConnection, PeerConnection]]]:
    """Makes the two ends of a connection; ``index`` is the pod that the first one talks to."""
    with ExitStack() as stack:

        def connect(index: int = 0) -> tuple[PeerConnection, PeerConnection]:
            with socket.create_server(("127.0.0.1", 0)) as door:
                ours = stack.enter_context(socket.create_connection(door.getsockname()))
                theirs, _ = door.accept()
            return PeerConnection(ours, index), PeerConnection(stack.enter_context(theirs))

        yield connect


ENDS: dict[str, tuple[str, int, str]] = {
    "all have trained, and the first one has the last word": (
        "if number == 0: time.sleep(0.3); end(0, 'Succeeded')",
        Exit.DONE,
        "Succeeded",
    ),
    "the first one saved for all when they were asked to stop": (
        "if number == 0: time.sleep(0.3); end(40, 'Interrupted')",
        Exit.INTERRUPTED_SAVED,
        "Interrupted",
    ),
    "one fails, and the others would wait for it for ever": (
        "end(70, 'EnvironmentFailed') if number == 1 else time.sleep(600)",
        Exit.ENVIRONMENT,
        "EnvironmentFailed",
    ),
    "one fails, and another one does not hear SIGTERM": (
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end(72, 'DatasetEmpty') if number == 2 else time.sleep(600)
        """,
        Exit.DATA,
        "DatasetEmpty",
    ),
    "lost touch is heard of before the cause": (
        """
        end(67, 'NcclFailed') if number == 0 else None
        time.sleep(0.5 if number == 1 else 600)
        end(71, 'Diverged')
        """,
        Exit.DIVERGED,
        "Diverged",
    ),
    "the watchdog of NCCL aborts before the cause is heard of": (
        """
        os.abort() if number == 0 else None
        time.sleep(0.5 if number == 1 else 600)
        end(65, 'CudaOutOfMemory')
        """,
        Exit.CUDA_OUT_OF_MEMORY,
        "CudaOutOfMemory",
    ),
    "all have lost touch, and nobody knows why": (
        "end(67, 'NcclFailed')",
        Exit.NCCL,
        "NcclFailed",
    ),
    "one is killed": (
        "os.kill(os.getpid(), signal.SIGKILL) if number == 1 else time.sleep(600)",
        128 + signal.SIGKILL,
        "ProcessKilled",
    ),
    "one ends without saying why": (
        "os._exit(3) if number == 1 else time.sleep(600)",
        3,
        "ProcessFailed",
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_the_first_cause_is_how_the_pod_ends(worker_group: Callable[..., WorkerGroup], case: str):
    script, code, reason = ENDS[case]
    ended = worker_group(script, gpus=3).run()
    assert (ended.code, ended.termination and ended.termination.reason) == (code, reason)


def test_a_process_that_the_kernel_killed_for_memory_is_told_from_other_kills(
    worker_group: Callable[..., WorkerGroup], monkeypatch: pytest.MonkeyPatch
):
    group = worker_group(ENDS["one is killed"][0], gpus=2)
    before = main_memory.killed_processes()
    monkeypatch.setattr(main_memory, "killed_processes", lambda: before + 1)
    monkeypatch.setattr(main_memory, "limit_bytes", lambda: 3 << 29)
    ended = group.run()
    assert ended.termination is not None
    assert (ended.code, ended.termination.reason) == (68, "HostOutOfMemory")
    assert ended.termination.message == (
        "the kernel killed process 1 of 2, because the trainer reached its limit of 1.5 GiB of "
        "main memory"
    )


def test_the_first_process_may_upload_what_it_has_when_another_one_fails(
    worker_group: Callable[..., WorkerGroup], tmp_path: Path
):
    script = f"""
    ready = {str(tmp_path / "ready")!r}
    while number == 1 and not os.path.exists(ready): time.sleep(0.05)
    end(70, 'EnvironmentFailed') if number == 1 else None
    signal.signal(signal.SIGTERM, lambda *_: say("Ending"))
    open(ready, "w").close()
    while not os.path.exists(os.environ["FLASHRUN_TERMINATION"]): time.sleep(0.05)
    time.sleep(2.0)
    open({str(tmp_path / "uploaded")!r}, "w").close()
    """
    assert worker_group(script, gpus=2).run().code == Exit.ENVIRONMENT
    assert (tmp_path / "uploaded").exists()


def test_sigterm_reaches_rank_0_and_the_others_when_it_has_saved(
    worker_group: Callable[..., WorkerGroup], tmp_path: Path
):
    script = f"""
    note = {str(tmp_path)!r}
    def stop(*_):
        if number == 0: time.sleep(0.3); open(note + "/saved", "w").close()
        elif os.path.exists(note + "/saved"): open(note + f"/waited", "w").close()
        end(40 if number == 0 else 0, "Interrupted")
    signal.signal(signal.SIGTERM, stop)
    while number == 1 and not os.path.exists(note + "/ready"): time.sleep(0.05)
    os.kill(os.getppid(), signal.SIGTERM) if number == 1 else open(note + "/ready", "w").close()
    time.sleep(600)
    """
    ended = worker_group(script, gpus=2).run()
    assert ended.code == Exit.INTERRUPTED_SAVED
    assert (tmp_path / "waited").exists()


ASKED_TO_STOP = (Exit.INTERRUPTED_SAVED, Exit.INTERRUPTED_UNSAVED, 128 + signal.SIGTERM)
"""Exit codes of a process that was asked to stop: before Python has a handler, too."""

IGNORES = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(os.getppid(), signal.SIGTERM) if number == 0 else None
"""


def test_a_pod_that_is_asked_to_stop_does_not_wait_for_a_rank_0_that_does_not_answer(
    worker_group: Callable[..., WorkerGroup],
):
    ended = worker_group(IGNORES + "time.sleep(600)", gpus=2).run()
    assert (ended.code, ended.termination and ended.termination.reason) == (
        Exit.INTERRUPTED_UNSAVED,
        "Interrupted",
    )


def test_a_rank_0_that_saves_for_long_is_waited_for(worker_group: Callable[..., WorkerGroup]):
    script = (
        IGNORES + "number or say('Saving'); time.sleep(600 if number else 2.5); end(40, 'Saved')"
    )
    assert worker_group(script, gpus=2).run().code == Exit.INTERRUPTED_SAVED


def test_a_pod_that_is_asked_to_stop_asks_the_leader_which_stops_its_rank_0(
    worker_group: Callable[..., WorkerGroup],
    wire: Callable[..., tuple[PeerConnection, PeerConnection]],
):
    ours, leader = wire()

    def answer() -> None:
        leader.receive(StopMessage)
        leader.send(EndMessage(code=Exit.INTERRUPTED_SAVED))

    answers = threading.Thread(target=answer)
    answers.start()
    script = "os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)"
    group = worker_group(script, index=1, peers=[ours], nodes=2)
    assert group.run().code == Exit.INTERRUPTED_SAVED
    answers.join()

    ours, other = wire(1)
    other.send(StopMessage())
    script = "signal.signal(signal.SIGTERM, lambda *_: end(40, 'Saved')); time.sleep(600)"
    assert worker_group(script, peers=[ours], nodes=2).run().code in ASKED_TO_STOP
    assert other.receive(EndMessage).code in ASKED_TO_STOP


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def test_what_a_process_leaves_behind_does_not_outlive_the_attempt(
    worker_group: Callable[..., WorkerGroup], tmp_path: Path
):
    note = tmp_path / "child"
    script = f"""
    import subprocess
    if number == 1:
        child = subprocess.Popen(["sleep", "600"])
        open({str(note)!r}, "w").write(str(child.pid))
        end(70, "EnvironmentFailed")
    time.sleep(600)
    """
    assert worker_group(script, gpus=2).run().code == Exit.ENVIRONMENT
    deadline = time.monotonic() + 10
    while is_running(int(note.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_process_gets_its_rank_in_variables(
    worker_group: Callable[..., WorkerGroup],
    wire: Callable[..., tuple[PeerConnection, PeerConnection]],
    tmp_path: Path,
):
    script = f"""
    names = ("RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR FLASHRUN_ATTEMPT").split()
    text = " ".join(os.environ[name] for name in names)
    open({str(tmp_path)!r} + f"/who-{{number}}", "w").write(text)
    end(0, "Succeeded")
    """
    ours, leader = wire()

    def answer() -> None:
        assert leader.receive(EndMessage).code == Exit.DONE
        leader.send(EndMessage(code=0))

    answers = threading.Thread(target=answer)
    answers.start()
    assert worker_group(script, index=1, peers=[ours], nodes=2, gpus=2).run().code == Exit.DONE
    answers.join()
    assert (tmp_path / "who-2").read_text() == "2 0 4 2 127.0.0.1 3"
    assert (tmp_path / "who-3").read_text() == "3 1 4 2 127.0.0.1 3"


FAILED = EndMessage(
    code=70, termination=Termination(reason="EnvironmentFailed", message="no key"), log="Traceback"
)

TOLD: dict[str, tuple[int, EndMessage | None, int, str]] = {
    "another pod's failure is that pod's, and not counted here": (
        0,
        FAILED,
        Exit.INTERRUPTED_UNSAVED,
        "PeerFailed",
    ),
    "the leader's failure is the leader's": (1, FAILED, Exit.INTERRUPTED_UNSAVED, "PeerFailed"),
    "another pod that goes away counts by its own code": (
        0,
        None,
        Exit.INTERRUPTED_UNSAVED,
        "PeerLost",
    ),
    "the leader has saved for all": (
        1,
        EndMessage(
            code=40, termination=Termination(reason="Interrupted", message="step 3 is saved")
        ),
        Exit.INTERRUPTED_SAVED,
        "Interrupted",
    ),
    "the leader is done": (
        1,
        EndMessage(code=0, termination=Termination(reason="Succeeded", message="done")),
        Exit.DONE,
        "Succeeded",
    ),
}


@pytest.mark.parametrize("case", TOLD)
def test_a_pod_ends_when_another_one_does(
    worker_group: Callable[..., WorkerGroup],
    wire: Callable[..., tuple[PeerConnection, PeerConnection]],
    case: str,
):
    index, told, code, reason = TOLD[case]
    ours, other = wire(1 - index)
    if told is not None:
        other.send(told)
    else:
        other.close()
    ended = worker_group("time.sleep(600)", index=index, peers=[ours], nodes=2).run()
    assert (ended.code, ended.termination and ended.termination.reason) == (code, reason)
    if told is FAILED and ended.termination:
        message = f"pod {1 - index} of this attempt ended with code 70: no key"
        assert ended.termination.message == message


def test_a_pod_tells_the_leader_what_failed_with_the_last_lines_and_no_secret(
    worker_group: Callable[..., WorkerGroup],
    wire: Callable[..., tuple[PeerConnection, PeerConnection]],
):
    ours, leader = wire()
    script = "print('trace with hidden-value', flush=True); end(72, 'DatasetEmpty', 'no rows')"
    ended = worker_group(script, index=1, peers=[ours], nodes=2).run()
    assert ended.code == Exit.DATA
    heard = leader.receive(EndMessage)
    assert (heard.code, heard.log) == (Exit.DATA, "trace with ***")
    assert heard.termination == Termination(reason="DatasetEmpty", message="no rows")


def test_a_pod_whose_work_is_done_may_leave_before_the_leader(
    worker_group: Callable[..., WorkerGroup],
    wire: Callable[..., tuple[PeerConnection, PeerConnection]],
):
    ours, other = wire(1)
    other.send(EndMessage(code=0))
    other.close()
    ended = worker_group("time.sleep(0.5); end(0, 'Succeeded')", peers=[ours], nodes=2).run()
    assert ended.code == Exit.DONE
