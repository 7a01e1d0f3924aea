"""The container ``train``: one attempt, from the first request to storage to the exit code."""

import importlib
import logging
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, NoReturn

from flashrun.api import names
from flashrun.api.config import Algorithm
from flashrun.api.exits import Exit, Termination
from flashrun.api.pod import ATTEMPT_VARIABLE, LAST_WORDS
from flashrun.api.reasons import Activity, Reason
from flashrun.api.records import FileEntry, Manifest, Result
from flashrun.store_errors import KeyExists, StoreError
from flashrun_trainer.context import TrainContext
from flashrun_trainer.data import environment as environments
from flashrun_trainer.data import held_out
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.pod import unused_libraries
from flashrun_trainer.pod.distributed import ProcessGroup
from flashrun_trainer.pod.image_packages import installed_pins
from flashrun_trainer.pod.interruption import Interruption
from flashrun_trainer.pod.log_tee import Tee
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.quick_imports import quick_imports
from flashrun_trainer.pod.redaction import Redactor
from flashrun_trainer.pod.trainer_errors import TrainerError, classify
from flashrun_trainer.records import attempts, model_card, termination, timing
from flashrun_trainer.records.attempts import ClaimedAttempt
from flashrun_trainer.records.checkpoint_uploads import Uploader, resumable_checkpoints
from flashrun_trainer.records.reporter import Reporter, SilentReporter
from flashrun_trainer.records.wandb_process import Tracker
from flashrun_trainer.trl_arguments import Machine

log = logging.getLogger(__name__)

_LOGGED_PACKAGES: Final = ("torch", "transformers", "trl", "peft")
_RETRY_SECONDS: Final = 2.0
_DEVICES: Final = Path("/dev")
_FAILURES_BEFORE_TRAINING: Final = (Reason.ENVIRONMENT_FAILED, Reason.DATASET_INVALID)
"""How an environment fails that is loaded, or that makes prompts."""

Method = Callable[[TrainContext], Path | None]
"""``sft.train`` or ``grpo.train``."""


def run(pod: PodMounts) -> int:
    """Claim an attempt, train in this process, and return the exit code.

    The termination message is written before this returns.
    """
    interruption = Interruption()
    interruption.install_handler()
    redact = termination.pod_redactor(pod)
    try:
        spec, store = pod.run(), pod.store()
        if (earlier := attempts.earlier_result(store, spec)) is not None:
            log.info("run %s has ended before, with code %d", spec.run.name, earlier.exit_code)
            termination.write_termination(pod.termination, earlier.termination)
            return earlier.exit_code
        attempt = attempts.claim_attempt(store, spec, pod)
    except BaseException as error:
        return termination.end_with_error(error, pod, redact)
    with Tee(pod.work / "attempt.log", redact) as tee:
        return _run_attempt(pod, attempt, ProcessGroup(), interruption, redact, tee)


def run_rank(pod: PodMounts) -> int:
    """Train as one of several processes, in the attempt that the launcher has claimed.

    The launcher forwards the output of this process to its log.
    """
    interruption = Interruption()
    interruption.install_handler()
    redact = termination.pod_redactor(pod)
    try:
        process_group = ProcessGroup.from_environment(os.environ)
        attempt = attempts.load_attempt(pod.store(), pod.run(), int(os.environ[ATTEMPT_VARIABLE]))
    except BaseException as error:
        return termination.end_with_error(error, pod, redact)
    return _run_attempt(pod, attempt, process_group, interruption, redact)


def _run_attempt(
    pod: PodMounts,
    attempt: ClaimedAttempt,
    process_group: ProcessGroup,
    interruption: Interruption,
    redact: Redactor,
    tee: Tee | None = None,
) -> int:
    """Train and publish, turn any error into an exit code, and save what can be saved."""
    spec, is_main_process = attempt.run, process_group.is_main_process
    reporter = (Reporter if is_main_process else SilentReporter)(
        attempt, pod.work, redact, pod.work / "attempt.log"
    )
    uploader = Uploader(attempt, spec.model.id, reporter.report_commit, reporter.upload_history)
    variables = os.environ if is_main_process else {}
    tracker = Tracker(spec, variables, pod.work, reporter.set_wandb_problem)
    ending = _Ending(pod, attempt, reporter, uploader, tracker, redact, tee)
    try:
        if is_main_process:
            attempt.store.put_json(names.spec_key(attempt.prefix), spec)
            pins = "".join(f"{pin}\n" for pin in installed_pins(pod.site)).encode()
            attempt.store.put_bytes(names.packages_key(attempt.prefix, attempt.number), pins)
        _seed_random(spec.seed)
        environment = environments.load(pod, spec.environment, process_group)
        split = held_out.load(pod, spec, environment, process_group)
        method = _import_method(spec.algorithm, process_group)
        process_group.init_process_group()
        adapter = method(
            TrainContext(
                pod=pod,
                run=spec,
                attempt=attempt,
                environment=environment,
                held_out=split,
                reporter=reporter,
                uploader=uploader,
                tracker=tracker,
                interruption=interruption,
                redact=redact,
                machine=_detect_machine(process_group),
                process_group=process_group,
                end_interrupted=ending.end_interrupted,
            )
        )
        if adapter is None:
            # Rank 0 publishes the adapter, and reports how the attempt has ended.
            return int(Exit.DONE)
        reporter.set_activity(Activity.UPLOADING)
        _publish(attempt, uploader, reporter, adapter, environment)
    except BaseException as error:
        # An existing termination file tells the launcher that this process ends by itself.
        termination.write_termination(pod.termination, None)
        failure = _retried_if_it_has_worked(classify(error, pod.packages), attempt, reporter)
        termination.log_error(error, failure, redact)
        uploader.finish(spec.upload_timeout_seconds)
        return ending.end(failure)
    return ending.end(None)


def _retried_if_it_has_worked(
    failure: TrainerError, attempt: ClaimedAttempt, reporter: Reporter
) -> TrainerError:
    """Return the failure of an environment before training, as temporary if it has worked before.

    An earlier attempt has trained with the same package. What fails now is a service that the
    environment uses while it is loaded, or chance.
    """
    if failure.reason not in _FAILURES_BEFORE_TRAINING or reporter.progress is not None:
        return failure
    try:
        keys = [entry.key for entry in attempt.store.list(names.attempts_prefix(attempt.prefix))]
    except StoreError:
        return failure
    if not resumable_checkpoints(attempt.prefix, keys):
        return failure
    return TrainerError(
        Exit.TEMPORARY,
        Reason.ENVIRONMENT_UNAVAILABLE,
        f"{failure.message} (it has worked in an earlier attempt)",
        "the run is retried from its last step; check the services that the environment uses "
        "while it is loaded",
    )


def _seed_random(seed: int) -> None:
    """Seed what the environment's code may draw from while it is loaded: alike on all ranks."""
    random.seed(seed)
    with suppress(ImportError):  # where the trainer is tested without PyTorch
        import numpy

        numpy.random.seed(seed % 2**32)


def _import_method(algorithm: str, process_group: ProcessGroup) -> Method:
    """Import the method, and with it PyTorch, which takes seconds: not before the data is valid."""
    if process_group.world_size == 1:
        # One process trains on one GPU; TRL refuses a single process that sees several.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    log.info("loading PyTorch and the training stack")
    unused = (*unused_libraries.TRACKERS, *(() if algorithm == Algorithm.GRPO else ("vllm",)))
    with unused_libraries.hidden(unused), quick_imports():
        method: Method = importlib.import_module(f"flashrun_trainer.{algorithm}").train
    return method


def _detect_machine(process_group: ProcessGroup) -> Machine:
    """Return what there is to train on, and log it.

    Raises:
        TrainerError: there is a GPU that PyTorch cannot use; training on the CPU would take days.
    """
    import torch

    log.info("%s", ", ".join(f"{package} {version(package)}" for package in _LOGGED_PACKAGES))
    if torch.cuda.is_available():
        log.info("training on %s", torch.cuda.get_device_name())
        return Machine(gpu=True, world_size=process_group.world_size)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    if torch.version.cuda and any(_DEVICES.glob("nvidia[0-9]*")) and not hidden:
        raise TrainerError(
            Exit.GPU_FAULT,
            Reason.GPU_FAULT,
            "PyTorch cannot use the GPU of this pod",
            "the run is retried on another node; if it fails there, too, ask the platform's "
            "administrator whether the nodes' driver supports the trainer image",
        )
    log.warning("training on the CPU: there is no GPU in this pod")
    return Machine(gpu=False, world_size=process_group.world_size)


# --- publishing ---------------------------------------------------------------------------------


def _publish(
    attempt: ClaimedAttempt,
    uploader: Uploader,
    reporter: Reporter,
    adapter: Path,
    environment: Environment,
) -> None:
    """Wait for the uploads of checkpoints, and publish the final adapter.

    Raises:
        TrainerError: an upload did not finish in time.
    """
    seconds = attempt.run.upload_timeout_seconds
    deadline = time.monotonic() + seconds
    all_uploaded = uploader.finish(seconds)
    if uploader.error is not None:
        raise uploader.error
    step = reporter.progress.step if reporter.progress else 0
    if not all_uploaded:
        raise TrainerError(
            Exit.TEMPORARY,
            Reason.UPLOAD_TIMEOUT,
            f"the last checkpoints were not uploaded within {seconds} s: "
            f"{uploader.storage_error or 'storage is slow'}",
            "the run is retried from the newest checkpoint that was uploaded",
        )
    model_card.write_model_card(adapter, attempt.run, step, reporter.progress, environment)
    _upload_adapter(attempt, adapter, step, deadline)


def _upload_adapter(attempt: ClaimedAttempt, adapter: Path, step: int, deadline: float) -> None:
    """Upload the final adapter; the run has succeeded as soon as its manifest exists.

    The files go to a folder of this attempt. Another attempt that is still uploading can therefore
    not change the files that a manifest lists.
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
            log.info("the final adapter was already uploaded")
        except StoreError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("the adapter is not uploaded yet, retrying: %s", error)
            time.sleep(_RETRY_SECONDS)
            continue
        log.info("adapter %s is uploaded", attempt.run.run.name)
        return


# --- the end ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ending:
    """How an attempt ends, on whichever thread."""

    pod: PodMounts
    attempt: ClaimedAttempt
    reporter: Reporter
    uploader: Uploader
    tracker: Tracker
    redact: Redactor
    tee: Tee | None

    def end(self, failure: TrainerError | None) -> int:
        """Record how the attempt has ended, and return the exit code."""
        code = failure.code if failure else int(Exit.DONE)
        reason = failure.reason if failure else Reason.SUCCEEDED
        log.info(f"{LAST_WORDS} (%s)", self.attempt.number, code, reason)
        self._sync_log()
        code = self._record_end(failure)
        self.tracker.finish(code)
        return code

    def end_interrupted(self, save: Callable[[], int]) -> NoReturn:
        """Save a step with ``save``, upload it, and end the process, whatever its threads do.

        ``save`` returns the number of the step. An error of it is only logged, unless training has
        diverged: the pod was asked to stop, and the next attempt has the last checkpoint.
        """
        code = int(Exit.INTERRUPTED_UNSAVED)
        try:
            code = self._end_with_step(save)
        except Exception:
            log.exception("the end of the attempt could not be recorded")
        self._sync_log()
        os._exit(code)

    def _end_with_step(self, save: Callable[[], int]) -> int:
        step, failure = 0, None
        try:
            step = save()
        except TrainerError as error:
            failure = error
        except Exception as error:
            termination.log_error(error, classify(error), self.redact)
        self.reporter.set_activity(Activity.UPLOADING)
        self.uploader.finish(self.attempt.run.upload_timeout_seconds)
        saved = step == self.uploader.resumable_step
        failure = failure or self.uploader.error or _interruption_error(step, saved)
        termination.log_error(failure, failure, self.redact)
        return self.end(failure)

    def _sync_log(self) -> None:
        if self.tee is not None:
            self.tee.sync()
        sys.stdout.flush()
        sys.stderr.flush()

    def _record_end(self, failure: TrainerError | None) -> int:
        """Write the termination message, and the run's result if this end is final.

        Returns the exit code: another one when the result cannot be written, or exists already.
        """
        progress = self.reporter.progress
        code = failure.code if failure else int(Exit.DONE)
        message = termination.make_termination(
            failure or TrainerError(code, Reason.SUCCEEDED, "training is complete", hint=""),
            self.redact,
            attempt=self.attempt.number,
            step=progress.step if progress else None,
            peak_memory_bytes=timing.peak_memory_bytes(),
        )
        self.reporter.close()
        if attempts.is_final(code):
            try:
                if failure is not None:
                    # A pod that was cut off may fail because of that, while another one owns the
                    # run.
                    self.attempt.confirm()
                result = _write_result(
                    self.attempt, self.reporter, message if failure else None, code
                )
                message, code = result.termination or message, result.exit_code
            except (StoreError, TrainerError) as error:
                late = classify(error)
                termination.log_error(error, late, self.redact)
                message = termination.make_termination(
                    late, self.redact, attempt=self.attempt.number
                )
                code = late.code
        termination.write_termination(self.pod.termination, message)
        return code


def _interruption_error(step: int, saved: bool) -> TrainerError:
    if step == 0:
        return TrainerError(
            Exit.INTERRUPTED_UNSAVED,
            Reason.INTERRUPTED,
            "the pod was asked to stop in the first step; there was nothing to save",
            "the run restarts automatically",
        )
    if saved:
        return TrainerError(
            Exit.INTERRUPTED_SAVED,
            Reason.INTERRUPTED,
            f"the pod was asked to stop; step {step} is saved, and the run continues from it",
            "the run restarts automatically",
        )
    return TrainerError(
        Exit.INTERRUPTED_UNSAVED,
        Reason.INTERRUPTED,
        f"the pod was asked to stop, and step {step} could not be saved in time",
        "the run restarts automatically, from its last checkpoint",
    )


def _write_result(
    attempt: ClaimedAttempt, reporter: Reporter, message: Termination | None, code: int
) -> Result:
    """Write the run's result, and return the one that counts: another pod's if it was first.

    Raises:
        StoreError: storage is not available.
    """
    result = attempts.write_result(
        attempt.store,
        Result(
            run=attempt.run.run,
            attempt=attempt.number,
            exit_code=code,
            termination=message,
            progress=reporter.progress,
            batching=reporter.batching,
            wandb=reporter.wandb_problem,
            adapted=reporter.adapted,
            evaluation=reporter.evaluation,
            finished=datetime.now(UTC),
        ),
    )
    attempt.store.delete([names.heartbeat_key(attempt.run.run.uid)])
    return result
