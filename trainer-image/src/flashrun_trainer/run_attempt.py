"""The container ``train``: one attempt, from the first look at storage to the exit code."""

import importlib
import logging
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from flashrun.api import names
from flashrun.api.exits import Exit, Termination
from flashrun.api.pod import ATTEMPT_VARIABLE
from flashrun.api.reasons import Activity, Reason
from flashrun.api.records import FileEntry, Manifest, Result
from flashrun.store_errors import KeyExists, StoreError
from flashrun_trainer.context import Session
from flashrun_trainer.data import environment
from flashrun_trainer.init.packages import pins
from flashrun_trainer.pod.distributed import Ranks
from flashrun_trainer.pod.interruption import Interruption
from flashrun_trainer.pod.log_tee import Tee
from flashrun_trainer.pod.mounts import Pod
from flashrun_trainer.pod.trainer_errors import Redactor, TrainerError, explain
from flashrun_trainer.records import attempt as attempts
from flashrun_trainer.records import model_card, termination, timing
from flashrun_trainer.records.attempt import Attempt
from flashrun_trainer.records.checkpoint_uploads import Uploader
from flashrun_trainer.records.reporter import Reporter, Silent
from flashrun_trainer.records.wandb_process import Tracker
from flashrun_trainer.trl_arguments import Machine

log = logging.getLogger(__name__)

_STACK: Final = ("torch", "transformers", "trl", "peft")
_RETRY_SECONDS: Final = 2.0
_DEVICES: Final = Path("/dev")


def run(pod: Pod) -> int:
    """Make one attempt and return the exit code; the termination message is written."""
    interruption = Interruption()
    interruption.listen()
    redact = termination.redactor_of(pod)
    try:
        spec, store = pod.run(), pod.store()
        if (earlier := attempts.earlier_result(store, spec)) is not None:
            log.info("run %s has ended before, with code %d", spec.run.name, earlier.exit_code)
            termination.leave(pod.termination, earlier.termination)
            return earlier.exit_code
        attempt = attempts.claim(store, spec, pod)
    except BaseException as error:
        return termination.failed(error, pod, redact)
    with Tee(pod.work / "attempt.log", redact) as tee:
        return _attempt(pod, attempt, Ranks(), interruption, redact, tee)


def rank(pod: Pod) -> int:
    """Be one of the processes of an attempt that the launcher has claimed; it has our output."""
    interruption = Interruption()
    interruption.listen()
    redact = termination.redactor_of(pod)
    try:
        ranks = Ranks.from_environment(os.environ)
        attempt = attempts.claimed(pod.store(), pod.run(), int(os.environ[ATTEMPT_VARIABLE]))
    except BaseException as error:
        return termination.failed(error, pod, redact)
    return _attempt(pod, attempt, ranks, interruption, redact)


def _attempt(
    pod: Pod,
    attempt: Attempt,
    ranks: Ranks,
    interruption: Interruption,
    redact: Redactor,
    tee: Tee | None = None,
) -> int:
    """Train, and turn whatever happens into an exit code with everything saved that can be."""
    spec = attempt.run
    reporter = (Reporter if ranks.leads else Silent)(
        attempt, pod.work, redact, pod.work / "attempt.log"
    )
    uploader = Uploader(attempt, spec.model.id, reporter.committed, reporter.put_history)
    tracker = Tracker(spec, os.environ if ranks.leads else {}, pod.work)
    end = None
    try:
        if ranks.leads:
            attempt.store.put_json(names.spec_key(attempt.prefix), spec)
            listed = "".join(f"{pin}\n" for pin in pins(pod.site)).encode()
            attempt.store.put_bytes(names.packages_key(attempt.prefix, attempt.number), listed)
        _seed(spec.seed)
        loaded = environment.load(pod, spec.environment)
        method = _method(spec.algorithm, ranks)
        ranks.join()
        adapter = method(
            Session(
                pod=pod,
                run=spec,
                attempt=attempt,
                environment=loaded,
                reporter=reporter,
                uploader=uploader,
                tracker=tracker,
                interruption=interruption,
                redact=redact,
                machine=_machine(ranks),
                ranks=ranks,
            )
        )
        if not ranks.leads:
            # What is left to do is the first process's, and how it ends is for it to say.
            return int(Exit.DONE)
        reporter.activity(Activity.UPLOADING)
        _finish(attempt, uploader, reporter, adapter, loaded)
    except BaseException as error:
        # For the launcher: from here on this process ends by itself.
        termination.leave(pod.termination, None)
        end = explain(error, pod.packages)
        termination.report(error, end, redact)
        uploader.finish(spec.upload_timeout_seconds)
    code = end.code if end else int(Exit.DONE)
    reason = end.reason if end else Reason.SUCCEEDED
    log.info("attempt %d ends with code %d (%s)", attempt.number, code, reason)
    if tee is not None:
        tee.sync()
    code = _settle(pod, attempt, reporter, redact, end)
    tracker.finish(code)
    return code


def _seed(seed: int) -> None:
    """Let what the environment's code draws while it is loaded be the same in every process."""
    random.seed(seed)
    with suppress(ImportError):  # where the trainer is tested without PyTorch
        import numpy

        numpy.random.seed(seed % 2**32)


def _method(algorithm: str, ranks: Ranks) -> Callable[[Session], Path | None]:
    """Import the method, and with it PyTorch: seconds that a bad config never has to pay."""
    if ranks.world == 1:
        # One process trains on one GPU; TRL refuses a single process that sees several.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    module = importlib.import_module(f"flashrun_trainer.{algorithm}")
    method: Callable[[Session], Path | None] = module.train
    return method


def _machine(ranks: Ranks) -> Machine:
    """Look at what there is to train on, and say so.

    Raises:
        TrainerError: there is a GPU that cannot be used; a CPU would take days in its place.
    """
    import torch

    log.info("%s", ", ".join(f"{package} {version(package)}" for package in _STACK))
    if torch.cuda.is_available():
        log.info("training on %s", torch.cuda.get_device_name())
        return Machine(gpu=True, world_size=ranks.world)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    if torch.version.cuda and any(_DEVICES.glob("nvidia[0-9]*")) and not hidden:
        raise TrainerError(
            Exit.GPU_FAULT,
            Reason.GPU_FAULT,
            "PyTorch cannot use the GPU of this pod",
            "the run goes on on another node; when it ends there, too, the nodes' driver and the "
            "trainer image do not go together",
        )
    log.warning("training on the CPU: there is no GPU in this pod")
    return Machine(gpu=False, world_size=ranks.world)


def _finish(
    attempt: Attempt,
    uploader: Uploader,
    reporter: Reporter,
    adapter: Path | None,
    data: environment.Environment,
) -> None:
    """Wait for the uploads and publish the adapter.

    Raises:
        TrainerError: the run was interrupted, or something did not arrive in time.
    """
    seconds = attempt.run.upload_timeout_seconds
    deadline = time.monotonic() + seconds
    arrived = uploader.finish(seconds)
    if uploader.error is not None:
        raise uploader.error
    step = reporter.latest.step if reporter.latest else 0
    if adapter is None:
        raise _interrupted(step, saved=uploader.resumable_step == step)
    if not arrived:
        raise TrainerError(
            Exit.TEMPORARY,
            Reason.UPLOAD_TIMEOUT,
            f"the last checkpoints were not uploaded within {seconds} s: "
            f"{uploader.trouble or 'storage takes its time'}",
            "the next attempt goes on from the newest checkpoint that arrived",
        )
    model_card.write(adapter, attempt.run, step, reporter.latest, data)
    _publish(attempt, adapter, step, deadline)


def _interrupted(step: int, saved: bool) -> TrainerError:
    if saved:
        return TrainerError(
            Exit.INTERRUPTED_SAVED,
            Reason.INTERRUPTED,
            f"the pod was asked to stop; step {step} is saved, and the run goes on from there",
            "it is started again by itself",
        )
    return TrainerError(
        Exit.INTERRUPTED_UNSAVED,
        Reason.INTERRUPTED,
        f"the pod was asked to stop, and step {step} could not be saved in time",
        "it is started again by itself, from the last checkpoint",
    )


def _publish(attempt: Attempt, adapter: Path, step: int, deadline: float) -> None:
    """Upload the final adapter; its manifest is what says that the run has succeeded.

    The files go to a folder of this attempt's. Whatever another one is still sending, it cannot
    touch those that a manifest lists.
    """

    def manifest(files: tuple[FileEntry, ...]) -> Manifest:
        attempt.confirm()
        rank, alpha = model_card.rank_and_alpha(adapter)
        return Manifest(
            kind="adapter",
            run=attempt.run.run,
            attempt=attempt.number,
            step=step,
            base_model=attempt.run.model.id,
            lora_rank=rank,
            lora_alpha=alpha,
            created=datetime.now(UTC),
            files=files,
        )

    while True:
        try:
            prefix = names.adapter_prefix(attempt.prefix)
            attempt.store.upload_folder(prefix, adapter.parent, manifest)
        except KeyExists:
            log.info("the final adapter had arrived before")
        except StoreError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("the adapter is not uploaded yet, trying again: %s", error)
            time.sleep(_RETRY_SECONDS)
            continue
        log.info("adapter %s is uploaded", attempt.run.run.name)
        return


def _settle(
    pod: Pod, attempt: Attempt, reporter: Reporter, redact: Redactor, end: TrainerError | None
) -> int:
    """Say how it ended: to the run's records when that is final, and to the kubelet."""
    progress = reporter.latest
    code = end.code if end else int(Exit.DONE)
    message = termination.termination(
        end or TrainerError(code, Reason.SUCCEEDED, "training is complete", hint=""),
        redact,
        attempt=attempt.number,
        step=progress.step if progress else None,
        peak_memory_bytes=timing.peak_memory(),
    )
    reporter.close()
    if attempts.is_final(code):
        try:
            if end is not None:
                # A pod that was cut off may fail of that alone, and another one has the run by now.
                attempt.confirm()
            result = _settle_for_good(attempt, reporter, message if end else None, code)
            message, code = result.termination or message, result.exit_code
        except (StoreError, TrainerError) as error:
            late = explain(error)
            termination.report(error, late, redact)
            message, code = termination.termination(late, redact, attempt=attempt.number), late.code
    termination.leave(pod.termination, message)
    return code


def _settle_for_good(
    attempt: Attempt, reporter: Reporter, termination: Termination | None, code: int
) -> Result:
    """Write the run's result, and return the one that stands: another process's, if it came first.

    Raises:
        StoreError: storage is away.
    """
    result = attempts.settle(
        attempt.store,
        Result(
            run=attempt.run.run,
            attempt=attempt.number,
            exit_code=code,
            termination=termination,
            progress=reporter.latest,
            batching=reporter.batched,
            finished=datetime.now(UTC),
        ),
    )
    attempt.store.delete([names.heartbeat_key(attempt.run.run.uid)])
    return result
