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
    began = time.monotonic()
    redact = termination.pod_redactor(pod)
    with Tee(pod.work / f"{name}.log", redact) as tee:
        try:
            with heartbeats(pod, describe_activity):
                work(pod)
            timing.record_startup_seconds(pod.packages, name, time.monotonic() - began)
        except Exception as error:
            code = termination.end_with_error(error, pod, redact)
            tee.sync()
            upload_logs(pod)
            return code
    return 0


def upload_logs(pod: PodMounts) -> None:
    """Upload what the pod's init containers have printed; a failure is only logged.

    The run may end here: its pod goes away, and no attempt has a log of it.
    """
    try:
        prefix = attempts.storage_prefix(pod.run())
        lines = [
            f"[{name}] {line}\n"
            for name in (MODEL_CONTAINER, PACKAGES_CONTAINER)
            if (path := pod.work / f"{name}.log").exists()
            for line in path.read_text(errors="replace").splitlines()
        ]
        text = "".join(lines).encode()
        pod.store().put_bytes(
            names.pod_log_key(prefix, pod.name), text, "text/plain; charset=utf-8"
        )
    except (StoreError, TrainerError, OSError) as error:
        log.warning("the log of this container was not uploaded: %s", error)


@contextmanager
def heartbeats(pod: PodMounts, describe_activity: Callable[[PodMounts], str]) -> Iterator[None]:
    """Write a heartbeat from time to time; there is no attempt yet, so its number is 0.

    Only pod 0 writes: the heartbeat is the run's, not the pod's.
    """
    done = threading.Event()

    def write_until_done() -> None:
        logged = ""
        while not done.wait(reporter.HEARTBEAT_SECONDS):
            # The container itself reports whatever fails here.
            with suppress(StoreError, TrainerError, OSError):
                activity = describe_activity(pod)
                if activity != logged:
                    log.info("%s", activity)
                logged, run = activity, pod.run().run
                heartbeat = Heartbeat(
                    run=run, attempt=0, pod=pod.name, activity=activity, updated=datetime.now(UTC)
                )
                pod.store().put_json(names.heartbeat_key(run.uid), heartbeat)

    if pod.index == 0:
        threading.Thread(target=write_until_done, name="heartbeats", daemon=True).start()
    try:
        yield
    finally:
        done.set()
