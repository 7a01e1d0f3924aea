"""What both init containers share: log, heartbeat, duration and exit code."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from flashrun.api import names
from flashrun.api.pod import MODEL_CONTAINER, PACKAGES_CONTAINER
from flashrun.api.records import Heartbeat
from flashrun.store_errors import StoreError
from flashrun_trainer.pod.log_tee import Tee
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.trainer_errors import TrainerError
from flashrun_trainer.records import attempts, reporter, termination, timing

log = logging.getLogger(__name__)


def run_init_container(
    name: str,
    work: Callable[[PodMounts], None],
    describe_activity: Callable[[PodMounts], str],
    pod: PodMounts,
) -> int:
    """Run the init container ``name``, record its duration, and return its exit code.

    During ``work``, heartbeats carry what ``describe_activity`` returns.
    """
    began, uploads = time.monotonic(), LogUploads(pod)
    redact = termination.pod_redactor(pod)
    with Tee(pod.work / f"{name}.log", redact) as tee:
        try:
            with reports(pod, describe_activity, uploads.upload):
                work(pod)
            timing.record_startup_seconds(pod.packages, name, time.monotonic() - began)
        except Exception as error:
            code = termination.end_with_error(error, pod, redact)
            tee.sync()
            uploads.upload()
            return code
    return 0


class LogUploads:
    """Uploads what the pod's init containers have printed; a failure is only logged.

    The run may end here: its pod goes away, and no attempt has a log of it.
    """

    def __init__(self, pod: PodMounts) -> None:
        self._pod = pod
        self._lock = threading.Lock()
        self._uploaded = b""

    def upload(self) -> None:
        """Upload the whole log, if it has changed; a later call never loses to an earlier one."""
        try:
            with self._lock:
                text = self._text()
                if text != self._uploaded:
                    prefix = attempts.storage_prefix(self._pod.run())
                    key = names.pod_log_key(prefix, self._pod.name)
                    self._pod.store().put_bytes(key, text, "text/plain; charset=utf-8")
                    self._uploaded = text
        except (StoreError, TrainerError, OSError) as error:
            log.warning("the log of this container was not uploaded: %s", error)

    def _text(self) -> bytes:
        lines = [
            f"[{name}] {line}\n"
            for name in (MODEL_CONTAINER, PACKAGES_CONTAINER)
            if (path := self._pod.work / f"{name}.log").exists()
            for line in path.read_text(errors="replace").splitlines()
        ]
        return "".join(lines).encode()


@contextmanager
def reports(
    pod: PodMounts, describe_activity: Callable[[PodMounts], str], upload_log: Callable[[], None]
) -> Iterator[None]:
    """Write a heartbeat and upload the log from time to time: a process that is killed cannot.

    There is no attempt yet, so its number is 0. Only pod 0 writes heartbeats: they are the run's,
    not the pod's.
    """
    done = threading.Event()

    def report_until_done() -> None:
        logged = ""
        while not done.wait(reporter.HEARTBEAT_SECONDS):
            # The container itself reports whatever fails here.
            with suppress(StoreError, TrainerError, OSError):
                if pod.index == 0:
                    activity = describe_activity(pod)
                    if activity != logged:
                        log.info("%s", activity)
                    logged = activity
                    _write_heartbeat(pod, activity)
            upload_log()

    threading.Thread(target=report_until_done, name="reports", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _write_heartbeat(pod: PodMounts, activity: str) -> None:
    run = pod.run().run
    heartbeat = Heartbeat(
        run=run, attempt=0, pod=pod.name, activity=activity, updated=datetime.now(UTC)
    )
    pod.store().put_json(names.heartbeat_key(run.uid), heartbeat)
