"""The records of a run: an attempt writes them completely, and not after it lost the run."""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.records import (
    Evaluation,
    EvaluationPoint,
    Heartbeat,
    Manifest,
    MetricsRow,
    Progress,
    StorageAccess,
    TrainerControl,
)
from flashrun.store import Store, Unavailable
from flashrun.store_metrics import read_history
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.redaction import Redactor
from flashrun_trainer.records import attempts
from flashrun_trainer.records.attempts import ClaimedAttempt
from flashrun_trainer.records.reporter import Reporter, wait_warning
from flashrun_trainer.records.timing import StepPhase
from tests.trainer.pods import resolved


class Halting(Store):
    """A store whose first upload of a history waits until the test releases it."""

    def __init__(self, access: StorageAccess) -> None:
        super().__init__(access)
        self.reached, self.released = threading.Event(), threading.Event()

    def put_bytes(self, key: str, data: bytes, content_type: str = "") -> None:
        if "/metrics/" in key and not self.reached.is_set():
            self.reached.set()
            self.released.wait(30)
        super().put_bytes(key, data, content_type)


@pytest.fixture
def claim(access: StorageAccess) -> Callable[[], ClaimedAttempt]:
    """Claims the next attempt of a run, as another pod each time."""
    run, store = resolved("sft"), Store(access)

    def claimed() -> ClaimedAttempt:
        uid = f"uid-{len(list(store.list(attempts.storage_prefix(run))))}"
        return attempts.claim_attempt(
            store, run, PodMounts.from_environment({"FLASHRUN_POD_UID": uid})
        )

    return claimed


def reporter_of(attempt: ClaimedAttempt, folder: Path) -> Reporter:
    (folder / "attempt.log").write_text("said\n")
    return Reporter(attempt, folder, Redactor(), folder / "attempt.log", pass_seconds=0.01)


def row(step: int) -> MetricsRow:
    return MetricsRow(step=step, attempt=1, time=datetime.now(UTC), values={"loss": 1.0})


def report_everything(reporter: Reporter) -> None:
    reporter.set_progress(Progress(step=1, total_steps=2))
    reporter.append_metrics(row(1))
    reporter.queue_rollouts(1, [{"completion": "4"}])


def keys_of(attempt: ClaimedAttempt) -> set[str]:
    found = [entry.key.removeprefix(attempt.prefix) for entry in attempt.store.list(attempt.prefix)]
    heartbeat = names.heartbeat_key(attempt.run.run.uid)
    return {*found, *(["heartbeat"] if attempt.store.exists(heartbeat) else [])}


def test_what_is_reported_is_there_when_the_reporter_is_closed(
    claim: Callable[[], ClaimedAttempt], tmp_path: Path
):
    attempt = claim()
    reporter = reporter_of(attempt, tmp_path)
    report_everything(reporter)
    reporter.close()
    assert keys_of(attempt) == {
        "attempt-1/claim.json",
        "heartbeat",
        "logs/attempt-1.log",
        "metrics/attempt-1/after-0-part-0.jsonl",
        "rollouts/step-00000001.jsonl",
    }


def test_evaluations_have_rollouts_of_their_own_and_a_place_in_the_heartbeat(
    claim: Callable[[], ClaimedAttempt], tmp_path: Path
):
    attempt = claim()
    reporter = reporter_of(attempt, tmp_path)
    evaluation = Evaluation(metric="score", baseline=EvaluationPoint(step=0, score=0.25))
    reporter.set_evaluation(evaluation)
    reporter.warn("a warning of a step")
    reporter.set_evaluation_warning("a warning of the evaluation")
    reporter.queue_rollouts(4, [{"completion": "trained"}])
    reporter.queue_rollouts(4, [{"completion": "evaluated"}], evaluated=True)
    reporter.close()
    for key, text in (
        (names.rollouts_key(attempt.prefix, 4), "trained"),
        (names.eval_rollouts_key(attempt.prefix, 4), "evaluated"),
    ):
        assert json.loads(attempt.store.get_bytes(key)) == {"completion": text}
    heartbeat = attempt.store.get_json(names.heartbeat_key(attempt.run.run.uid), Heartbeat)
    assert heartbeat.evaluation == evaluation
    assert heartbeat.warning == "a warning of a step; a warning of the evaluation"


def test_a_history_is_read_from_where_it_was_read_last(
    claim: Callable[[], ClaimedAttempt], tmp_path: Path
):
    first, folder = claim(), tmp_path / "first"
    folder.mkdir()
    reporter = reporter_of(first, folder)
    assert reporter.read_new_rows() == []
    for step in (1, 2):
        reporter.append_metrics(row(step))
    assert [new.step for new in reporter.read_new_rows()] == [1, 2]
    reporter.append_metrics(row(3))
    assert [new.step for new in reporter.read_new_rows()] == [3]
    assert reporter.read_new_rows() == []
    reporter.close()
    # The next attempt reads what it continues, too.
    following = reporter_of(claim(), tmp_path)
    following.continue_history(2)
    assert [new.step for new in following.read_new_rows()] == [1, 2]
    following.close()


def test_an_attempt_that_lost_its_run_writes_nothing_but_its_log(
    claim: Callable[[], ClaimedAttempt], tmp_path: Path
):
    attempt = claim()
    claim()
    reporter = reporter_of(attempt, tmp_path)
    report_everything(reporter)
    reporter.close()
    assert reporter.superseded is not None
    assert reporter.superseded.reason == "Superseded"
    claims = {"attempt-1/claim.json", "attempt-2/claim.json"}
    assert keys_of(attempt) == {*claims, "logs/attempt-1.log"}


def test_a_history_is_uploaded_after_an_older_one_that_is_being_uploaded(
    claim: Callable[[], ClaimedAttempt], access: StorageAccess, tmp_path: Path
):
    own = claim()
    store = Halting(access)
    reporter = reporter_of(ClaimedAttempt(own.run, store, own.prefix, own.claim), tmp_path)
    reporter.append_metrics(row(1))
    assert store.reached.wait(30)
    reporter.append_metrics(row(2))
    wanted = threading.Thread(target=reporter.upload_history)
    wanted.start()
    time.sleep(0.2)  # until it waits for the older one
    store.released.set()
    wanted.join()
    history = read_history(store, own.prefix)
    reporter.close()
    assert [row.step for _, row in history] == [1, 2]


def asked(attempt: ClaimedAttempt) -> None:
    attempt.store.put_json(names.control_key(attempt.prefix), TrainerControl(save_request="now"))


def saved(attempt: ClaimedAttempt) -> None:
    manifest = Manifest(kind="checkpoint", created=datetime.now(UTC), files=())
    key = names.step_prefix(attempt.prefix, attempt.number, 4) + names.MANIFEST
    attempt.store.create_json(key, manifest)


@pytest.mark.parametrize(
    ("sentence", "before", "wanted"),
    [
        ("nobody has asked", (saved,), False),
        ("no save came after the request", (saved, asked), True),
        ("a save has answered it", (asked, saved), False),
        ("there is no save at all", (asked,), True),
    ],
)
def test_a_save_request_that_an_earlier_attempt_has_not_answered_is_honoured(
    claim: Callable[[], ClaimedAttempt],
    tmp_path: Path,
    sentence: str,
    before: tuple[Callable[[ClaimedAttempt], None], ...],
    wanted: bool,
):
    first = claim()
    for happened in before:
        happened(first)
    reporter = reporter_of(claim(), tmp_path)
    reporter.close()
    assert reporter.take_save_request() == wanted
    assert not reporter.take_save_request()


class Exhausted(Store):
    """A store without free file descriptors for a while, as with an environment that leaks them."""

    failures = 3

    def put_bytes(self, key: str, data: bytes, content_type: str = "") -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(24, "Too many open files")
        super().put_bytes(key, data, content_type)


def test_a_reporter_survives_errors_that_do_not_come_from_storage(
    claim: Callable[[], ClaimedAttempt], access: StorageAccess, tmp_path: Path
):
    own = claim()
    attempt = ClaimedAttempt(own.run, Exhausted(access), own.prefix, own.claim)
    reporter = reporter_of(attempt, tmp_path)
    deadline = time.monotonic() + 30
    while not own.store.exists(names.heartbeat_key(own.run.run.uid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    reporter.close()


def test_rollouts_keep_their_texts_without_the_secrets_and_are_json_whatever_is_in_them(
    claim: Callable[[], ClaimedAttempt], tmp_path: Path
):
    attempt = claim()
    reporter = Reporter(attempt, tmp_path, Redactor(('can"ary',)), pass_seconds=0.01)
    told = {
        "step": 1,
        "prompt": [{"role": "user", "content": 'say can"ary', "asked": date(2026, 1, 1)}],
        "completion": 'see <a href="/?key=abc">here</a>\nand half of \ud83d',
        "reward": 0.5,
        "metrics": {"right": True},
    }
    reporter.queue_rollouts(1, [told])
    reporter.close()
    kept = attempt.store.get_bytes(names.rollouts_key(attempt.prefix, 1)).decode()
    assert json.loads(kept) == {
        "step": 1,
        "prompt": [{"role": "user", "content": "say ***", "asked": "2026-01-01"}],
        "completion": 'see <a href="/?key=***">here</a>\nand half of \\ud83d',
        "reward": 0.5,
        "metrics": {"right": True},
    }


def test_rollouts_of_all_steps_survive_an_outage_and_are_there_before_a_checkpoint(
    claim: Callable[[], ClaimedAttempt], access: StorageAccess, tmp_path: Path
):
    own = claim()

    class Away(Store):
        away = True

        def put_bytes(self, key: str, data: bytes, content_type: str = "") -> None:
            if self.away:
                raise Unavailable("storage is away")
            super().put_bytes(key, data, content_type)

    store = Away(access)
    attempt = ClaimedAttempt(own.run, store, own.prefix, own.claim)
    reporter = Reporter(attempt, tmp_path, Redactor(()), pass_seconds=3600)
    for step in range(1, 301):
        reporter.queue_rollouts(step, [{"completion": "first try"}])
        reporter.queue_rollouts(step, [{"completion": f"answer {step}"}])
    with pytest.raises(Unavailable):
        reporter.upload_history()
    store.away = False
    reporter.upload_history()
    for step in (1, 2, 300):
        kept = own.store.get_bytes(names.rollouts_key(own.prefix, step)).decode()
        assert json.loads(kept) == {"completion": f"answer {step}"}
    assert list((tmp_path / "rollouts").iterdir()) == []
    reporter.close()


def test_a_warning_is_cut_to_the_longest_message(
    claim: Callable[[], ClaimedAttempt], tmp_path: Path
):
    attempt = claim()
    reporter = reporter_of(attempt, tmp_path)
    reporter.warn("no \ud83d spread " * 1000)
    reporter.close()
    heartbeat = attempt.store.get_json(names.heartbeat_key(attempt.run.run.uid), Heartbeat)
    assert len(heartbeat.warning) == 1024


WAITS = [
    (StepPhase.SCORING, 599, ""),
    (StepPhase.SCORING, 720, "this step has waited for scores for 12 minutes: "),
    (
        StepPhase.ENVIRONMENT,
        3600,
        "this step has waited for the environment's replies for 60 min",
    ),
    (StepPhase.GENERATION, 3600, ""),  # ours, and slow models are no news
    (None, 0, ""),
]


@pytest.mark.parametrize(("phase", "seconds", "beginning"), WAITS)
def test_a_step_that_waits_long_for_the_environment_is_warned_about(
    phase: StepPhase | None, seconds: int, beginning: str
):
    said = wait_warning(phase, seconds)
    assert said.startswith(beginning)
    assert bool(said) == bool(beginning)


def test_what_a_step_waits_for_is_shown_with_the_other_warnings(
    claim: Callable[[], ClaimedAttempt], tmp_path: Path
):
    attempt = claim()
    reporter = reporter_of(attempt, tmp_path)
    reporter.watch_phase(lambda: (StepPhase.SCORING, 720.0))
    reporter.warn("2 of 8 responses have no score")
    reporter.close()
    heartbeat = attempt.store.get_json(names.heartbeat_key(attempt.run.run.uid), Heartbeat)
    assert heartbeat.warning.startswith("this step has waited for scores for 12 minutes")
    assert heartbeat.warning.endswith("; 2 of 8 responses have no score")
