"""How a container ends: the termination message for the kubelet, the traceback for the log."""

import logging
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from flashrun.api.exits import Termination
from flashrun.store_errors import StoreError
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.redaction import Redactor
from flashrun_trainer.pod.trainer_errors import (
    InterruptedBeforeTraining,
    TrainerError,
    classify,
    shorten,
)

log = logging.getLogger(__name__)


def end_with_error(error: BaseException, pod: PodMounts, redact: Redactor) -> int:
    """Report the error of a container that has no attempt yet, and return its exit code."""
    failure = classify(error)
    log_error(error, failure, redact)
    write_termination(pod.termination, make_termination(failure, redact))
    return failure.code


def pod_redactor(pod: PodMounts) -> Redactor:
    """Return the redactor of a pod, with fewer secrets when its spec or storage is unreadable."""
    store = run = None
    with suppress(StoreError):
        store = pod.store()
    with suppress(TrainerError):
        run = pod.run()

    def renewed_secrets() -> tuple[str, ...]:
        upstreams = pod.upstream_secrets()
        if store is None:
            return upstreams
        try:
            access = store.access
        except StoreError:  # credentials are being renewed; the next caller reports the error
            return upstreams
        return (access.secret_key, access.session_token, access.access_key, *upstreams)

    return Redactor.for_run(run, os.environ, renewed_secrets)


def make_termination(
    failure: TrainerError,
    redact: Redactor,
    *,
    attempt: int | None = None,
    step: int | None = None,
    peak_memory_bytes: int | None = None,
) -> Termination:
    """Return the termination message of a container, without secrets and within its limits."""
    return Termination(
        reason=failure.reason,
        message=shorten(redact(failure.message)),
        hint=shorten(redact(failure.hint)),
        attempt=attempt,
        step=step,
        peak_memory_bytes=peak_memory_bytes,
    )


def write_termination(path: Path, termination: Termination | None) -> None:
    """Write the termination message, or an empty one; a failed write is only logged."""
    text = "" if termination is None else termination.model_dump_json(exclude_none=True)
    try:
        path.write_text(text)
    except OSError as error:
        log.warning("the termination message was not written: %s", error)


def log_error(error: BaseException, failure: TrainerError, redact: Redactor) -> None:
    """Log how the container ends, with a traceback unless it would add nothing."""
    if error is not failure and not isinstance(error, InterruptedBeforeTraining):
        sys.stderr.write(redact("".join(traceback.format_exception(error))))
    log.error("%s (%s). %s", redact(failure.message), failure.reason, redact(failure.hint))
