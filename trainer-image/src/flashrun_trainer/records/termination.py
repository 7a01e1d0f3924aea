"""Leaving a container: the termination message for the kubelet, the traceback for the log."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flashrun.api.exits import Termination
from flashrun.store_errors import StoreError
from flashrun_trainer.pod.log_tee import Tee
from flashrun_trainer.pod.mounts import Pod
from flashrun_trainer.pod.trainer_errors import (
    InterruptedBeforeTraining,
    Redactor,
    TrainerError,
    explain,
    shortened,
)
from flashrun_trainer.records import timing
from flashrun_trainer.records.reporter import preparing

log = logging.getLogger(__name__)


def guarded(work: Callable[[Pod], None], doing: Callable[[Pod], str], pod: Pod) -> int:
    """Do the work of an init container, leave a note of its seconds, and return its exit code.

    While it works, ``doing`` says what it does and how far it is.
    """
    began = time.monotonic()
    name = work.__module__.rpartition(".")[2]
    redact = redactor_of(pod)
    with Tee(pod.work / f"{name}.log", redact):
        try:
            with preparing(pod, doing):
                work(pod)
            timing.note(pod.packages, name, time.monotonic() - began)
        except Exception as error:
            return failed(error, pod, redact)
    return 0


def failed(error: BaseException, pod: Pod, redact: Redactor) -> int:
    """Say how a container ends that has no attempt, and return its exit code."""
    end = explain(error)
    report(error, end, redact)
    leave(pod.termination, termination(end, redact))
    return end.code


def redactor_of(pod: Pod) -> Redactor:
    """Return the redactor of a pod, as good as it can be when its spec or storage is unreadable."""
    store = run = None
    with suppress(StoreError):
        store = pod.store()
    with suppress(TrainerError):
        run = pod.run()

    def keys() -> tuple[str, ...]:
        if store is None:
            return ()
        try:
            access = store.access
        except StoreError:  # it is being renewed, and whoever needs it will complain
            return ()
        return (access.secret_key, access.session_token, access.access_key)

    return Redactor.of(run, os.environ, keys)


def termination(
    end: TrainerError,
    redact: Redactor,
    *,
    attempt: int | None = None,
    step: int | None = None,
    peak_memory_bytes: int | None = None,
) -> Termination:
    """Return what the container says about its end."""
    return Termination(
        reason=end.reason,
        message=shortened(redact(end.message)),
        hint=shortened(redact(end.hint)),
        attempt=attempt,
        step=step,
        peak_memory_bytes=peak_memory_bytes,
    )


def leave(path: Path, message: Termination | None) -> None:
    """Write the termination message; a place that cannot be written costs only the message."""
    text = "" if message is None else message.model_dump_json(exclude_none=True)
    try:
        path.write_text(text)
    except OSError as error:
        log.warning("the termination message cannot be written: %s", error)


def report(error: BaseException, end: TrainerError, redact: Redactor) -> None:
    """Write the end to the log, with a traceback unless that would say nothing new."""
    if error is not end and not isinstance(error, InterruptedBeforeTraining):
        sys.stderr.write(redact("".join(traceback.format_exception(error))))
    log.error("%s (%s). %s", redact(end.message), end.reason, redact(end.hint))
