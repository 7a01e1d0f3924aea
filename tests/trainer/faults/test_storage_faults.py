"""Storage that is slow, gone, full or forbidden, and two pods at once: nothing is lost or mixed."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flashrun import store as store_module
from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import Claim
from flashrun.store_errors import Unauthorized
from flashrun_trainer import model
from flashrun_trainer.init import model_download, packages
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.records import checkpoint_uploads
from tests.trainer import forks
from tests.trainer.pods import TrainerPod, Workshop, resolved
from tests.trainer.storage import Cut, Refusal, Request, Storage, between

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.filterwarnings("default"),
    pytest.mark.usefixtures("impatient"),
]

STEPS = 32
SFT = {"epochs": 2, "save_every": 4}
SAVES = [(1, step) for step in range(4, STEPS + 1, 4)]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry soon, so that failures do not make a test slow."""
    monkeypatch.setattr(store_module, "RETRIES", 1)
    monkeypatch.setattr(checkpoint_uploads, "_RETRY_SECONDS", 0.1)


@pytest.fixture(scope="module")
def undisturbed(workshop: Workshop) -> TrainerPod:
    """An undisturbed run."""
    pod = workshop.pod(resolved("sft", **SFT))
    assert pod.train() == Exit.DONE
    return pod


@pytest.fixture
def storage(workshop: Workshop) -> Iterator[Storage]:
    """The storage of a new run, with faults on demand; an upload that is held up is waited for."""
    run = resolved("sft", upload_timeout_seconds=240, **SFT)
    with between(workshop.pod(run)) as made:
        yield made


def is_save(request: Request) -> bool:
    """Whether a checkpoint is being uploaded."""
    return request.method == "PUT" and "/step-" in request.key


def markers(storage: Storage, marker: str) -> list[int]:
    """Steps whose marker was written, in the order of the writes."""
    pattern = re.compile(rf"PUT attempt-\d+/step-(\d+)/{re.escape(marker)}")
    return [int(found[1]) for found in map(pattern.fullmatch, map(str, storage.seen)) if found]


def trained_steps(work: Path) -> int:
    """Number of steps in the metrics file on the pod's disk."""
    path = work / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def log_of(pod: TrainerPod) -> str:
    return pod.store.get_bytes(names.log_key(pod.prefix, pod.number)).decode()


def test_on_a_slow_line_every_adapter_arrives_in_order_and_the_newest_state(
    storage: Storage, undisturbed: TrainerPod
):
    """The first checkpoint is on its way until two newer ones are saved."""
    pod = storage.pod

    def rule(request: Request) -> None:
        if is_save(request):
            time.sleep(0.3)
        end = time.monotonic() + 60
        while "/step-4/" in request.key and trained_steps(pod.folder / "work") < 12:
            assert time.monotonic() < end, "the trainer waits for an upload"
            time.sleep(0.05)

    storage.rule = rule
    assert pod.train() == Exit.DONE
    assert pod.steps() == SAVES
    assert markers(storage, names.MANIFEST) == [step for _, step in SAVES]
    states = markers(storage, names.STATE_MANIFEST)
    assert states == sorted(states)
    assert states[-1] == STEPS
    assert len(states) < len(SAVES)
    assert pod.weights == undisturbed.weights


def test_training_continues_while_storage_is_gone_and_everything_arrives_later(
    storage: Storage, undisturbed: TrainerPod
):
    pod = storage.pod
    gone: list[Request] = []

    def rule(request: Request) -> None:
        away = gone or "/step-8/" in request.key
        if away and trained_steps(pod.folder / "work") < 24:
            gone.append(request)
            raise Cut

    storage.rule = rule
    assert pod.train() == Exit.DONE
    assert gone
    assert pod.steps() == SAVES
    assert pod.weights == undisturbed.weights
    assert pod.values("loss") == undisturbed.values("loss")
    assert "is not uploaded yet, retrying" in log_of(pod)


@pytest.mark.parametrize(
    ("last_seen", "saved"),
    [(rf"PUT attempt-1/step-{STEPS}/.*", STEPS - 4), (r"PUT adapter/.*", STEPS)],
    ids=["the last checkpoint", "the final adapter"],
)
def test_an_upload_that_fails_at_the_end_is_a_storage_failure_and_the_next_pod_finishes(
    workshop: Workshop, undisturbed: TrainerPod, last_seen: str, saved: int
):
    run = resolved("sft", upload_timeout_seconds=2, **SFT)
    with between(workshop.pod(run)) as storage:
        pod = storage.pod
        gone: list[Request] = []

        def rule(request: Request) -> None:
            if gone or re.fullmatch(last_seen, str(request)):
                gone.append(request)
                # Uploads from before were still running: only the end is refused.
                if is_save(request) and f"/step-{STEPS}/" not in request.key:
                    return
                raise Cut

        storage.rule = rule
        assert pod.train() == Exit.TEMPORARY
    assert pod.termination.reason in {"UploadTimeout", "StorageUnavailable"}
    assert "the connection broke" in pod.termination.message
    assert names.result_key("") not in pod.keys

    following = pod.next()
    assert following.train() == Exit.DONE
    assert {row.attempt for row in following.metrics if row.step <= saved} == {1}
    assert [row.step for row in following.metrics if row.attempt == 2] == [*range(saved + 1, 33)]
    assert following.weights == undisturbed.weights
    assert following.values("loss") == undisturbed.values("loss")


REFUSALS = {
    "full": (Refusal(507, "XMinioStorageFull"), "(XMinioStorageFull: said)"),
    "overloaded": (Refusal(503, "SlowDown"), "(SlowDown: said)"),
    "forbidden": (Refusal(403, "AccessDenied"), "access was refused (AccessDenied: said)"),
    "expired": (Refusal(403, "ExpiredToken"), "the storage credentials have expired"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_storage_that_refuses_for_a_while_costs_nothing(
    storage: Storage, undisturbed: TrainerPod, refusal: str
):
    pod, (answer, words) = storage.pod, REFUSALS[refusal]
    refused: list[Request] = []

    def rule(request: Request) -> Refusal | None:
        if not is_save(request) or len(refused) >= 10:
            return None
        refused.append(request)
        return answer

    storage.rule = rule
    assert pod.train() == Exit.DONE
    assert pod.steps() == SAVES
    assert pod.weights == undisturbed.weights
    assert words in log_of(pod)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_storage_that_keeps_refusing_is_named_and_retried(workshop: Workshop, refusal: str):
    answer, words = REFUSALS[refusal]
    run = resolved("sft", upload_timeout_seconds=1, max_steps=2)
    with between(workshop.pod(run)) as storage:
        storage.rule = lambda request: answer if is_save(request) else None
        pod = storage.pod
        assert pod.train() == Exit.TEMPORARY
    assert pod.termination.reason == "UploadTimeout"
    assert words in pod.termination.message
    assert (pod.steps(), names.result_key("") in pod.keys) == ([], False)
    assert len(pod.metrics) == 2


FETCHES: dict[str, Callable[[TrainerPod, PodMounts], None]] = {
    "the base model": lambda _, pod: model_download.run(pod),
    "the environment": lambda _, pod: packages.run(pod),
    "the adapter to start from": lambda run, pod: model.download_adapter(
        pod.store(), run.as_source(), pod.work / "init"
    ),
}


@pytest.mark.parametrize("what", FETCHES)
def test_credentials_that_have_expired_do_not_mean_that_something_is_missing(
    storage: Storage, tmp_path: Path, what: str
):
    empty = {"FLASHRUN_MODEL": str(tmp_path), "FLASHRUN_PACKAGES": str(tmp_path)}
    pod = PodMounts.from_environment(storage.pod.environment | empty)
    storage.rule = lambda _: REFUSALS["expired"][0]
    with pytest.raises(Unauthorized, match="the storage credentials have expired"):
        FETCHES[what](storage.pod, pod)


def test_a_claim_that_is_refused_is_a_failure_of_storage(storage: Storage):
    pod = storage.pod
    storage.rule = lambda request: REFUSALS["forbidden"][0] if request.method == "PUT" else None
    assert pod.train() == Exit.TEMPORARY
    assert pod.termination.reason == "StorageUnavailable"
    assert "claim.json" in pod.termination.message


def test_credentials_that_expire_are_read_again_from_the_access_file(
    storage: Storage, undisturbed: TrainerPod
):
    pod = storage.pod
    work = pod.folder / "work"

    def rule(request: Request) -> None:
        match trained_steps(work):
            case 0:
                return
            case done if done < 24:
                storage.used_by(pod, session_token="a-token-of-yesterday")
            case _:
                storage.used_by(pod)

    storage.rule = rule
    assert pod.train() == Exit.DONE
    assert pod.steps() == SAVES
    assert pod.weights == undisturbed.weights
    log = log_of(pod)
    assert "is not uploaded yet, retrying" in log
    assert "the storage credentials have expired" in log
    assert "a-token-of-yesterday" not in log


@pytest.mark.parametrize(
    ("moment", "answered", "kept"),
    [
        (r"PUT attempt-1/step-8/adapter/adapter_model\.safetensors", False, [4]),
        (r"PUT attempt-1/step-8/state/optimizer\.pt", False, [4, 8]),
        (rf"PUT attempt-1/step-{STEPS}/state\.json", True, [step for _, step in SAVES]),
        (
            r"PUT adapter/attempt-1/adapter_model\.safetensors",
            False,
            [step for _, step in SAVES],
        ),
    ],
    ids=["in an adapter", "in a state", "before the final adapter", "in the final adapter"],
)
def test_a_pod_that_was_cut_off_commits_nothing_after_another_one_has_claimed_the_run(
    storage: Storage, undisturbed: TrainerPod, moment: str, answered: bool, kept: list[int]
):
    first = storage.pod

    def wanted(request: Request) -> bool:
        return re.fullmatch(moment, str(request)) is not None

    with (
        storage.catching(wanted, answered, lost=False) as catch,
        forks.started(first, every_state=True) as process,
    ):
        first.wait_for(catch.caught.is_set)
        second = first.next()
        assert second.train() == Exit.DONE
        results = committed(second)
        catch.released.set()
        assert forks.ended(process) == Exit.INTERRUPTED_UNSAVED, first.output
    assert first.termination.reason == "Superseded"
    assert [step for attempt, step in first.steps() if attempt == 1] == kept
    assert committed(second) == results
    assert "PUT adapter/manifest.json" not in map(str, storage.seen)
    assert second.weights == undisturbed.weights
    assert second.values("loss") == undisturbed.values("loss")


def test_a_pod_that_was_frozen_leaves_the_records_of_the_pod_that_ended_the_run(
    storage: Storage, undisturbed: TrainerPod
):
    first = storage.pod
    with (
        storage.catching(lambda request: "/step-8/" in request.key, lost=False) as catch,
        forks.started(first) as process,
    ):
        first.wait_for(catch.caught.is_set)
        os.kill(process.pid or 0, signal.SIGSTOP)
        second = first.next()
        assert second.train() == Exit.DONE
        left = records(second)
        catch.released.set()
        os.kill(process.pid or 0, signal.SIGCONT)
        assert forks.ended(process) == Exit.INTERRUPTED_UNSAVED, first.output
    assert first.termination.reason == "Superseded"
    assert records(second) == left
    assert first.heartbeat is None
    assert second.values("loss") == undisturbed.values("loss")


def test_a_pod_that_fails_after_another_one_has_claimed_the_run_does_not_end_it(
    workshop: Workshop,
):
    split = {"split": "test", "params": {"split": "test"}}
    with between(workshop.pod(resolved("sft", environment=split))) as storage:
        pod = storage.pod

        def rule(request: Request) -> None:
            if request.key == "spec.json":
                own = pod.store.get_json(names.claim_key(pod.prefix, 1), Claim)
                other = own.model_copy(update={"attempt": 2, "pod_uid": "another"})
                pod.store.create_json(names.claim_key(pod.prefix, 2), other)

        storage.rule = rule
        assert pod.train() == Exit.INTERRUPTED_UNSAVED
    assert pod.termination.reason == "Superseded"
    assert "SplitMissing" in log_of(pod)
    assert names.result_key("") not in pod.keys


def records(pod: TrainerPod) -> dict[str, object]:
    """When each object of a run was written, without those of the first attempt, by key."""
    own = ("attempt-1/", "logs/attempt-1")
    return {
        entry.key: entry.modified
        for entry in pod.store.list(pod.prefix)
        if not entry.key.removeprefix(pod.prefix).startswith(own)
    }


def committed(pod: TrainerPod) -> dict[str, object]:
    """When the markers, the result and the final adapter were written, by key."""
    marker = re.compile(r"(adapter/manifest|result|attempt-\d+/step-\d+/(manifest|state))\.json")
    adapter = {names.adapter_prefix(pod.prefix) + file.path for file in pod.adapter.files}
    return {
        entry.key: entry.modified
        for entry in pod.store.list(pod.prefix)
        if entry.key in adapter or marker.fullmatch(entry.key.removeprefix(pod.prefix))
    }
