"""Which checkpoint a run resumes from, and how checkpoints are uploaded."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.records import Manifest, StorageAccess
from flashrun.store import StorageForbidden, Store, Unavailable
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.records import attempts, checkpoint_uploads
from flashrun_trainer.records.checkpoint_uploads import CheckpointId, Uploader
from tests.trainer.pods import resolved

PREFIX = "runs/team-a/run/uid/"


def keys(*paths: str) -> list[str]:
    return [PREFIX + path for path in paths]


def full(attempt: int, step: int) -> list[str]:
    where = f"attempt-{attempt}/step-{step}"
    return keys(f"{where}/manifest.json", f"{where}/state.json", f"{where}/state/optimizer.pt")


@pytest.mark.parametrize(
    ("sentence", "found", "expected"),
    [
        ("nothing", [], []),
        (
            "the newest step first",
            full(1, 9) + full(1, 10),
            [CheckpointId(10, 1), CheckpointId(9, 1)],
        ),
        (
            "a newer attempt wins a tie",
            full(2, 5) + full(1, 5),
            [CheckpointId(5, 2), CheckpointId(5, 1)],
        ),
        (
            "an older attempt may be further",
            full(2, 5) + full(1, 7),
            [CheckpointId(7, 1), CheckpointId(5, 2)],
        ),
        ("no state", keys("attempt-1/step-3/manifest.json"), []),
        ("no manifest", keys("attempt-1/step-3/state.json"), []),
        ("files without markers", keys("attempt-1/step-3/state/optimizer.pt"), []),
        ("other keys", keys("result.json", "adapter/manifest.json", "attempt-1/claim.json"), []),
        (
            "markers further down do not count",
            keys("attempt-1/step-3/adapter/manifest.json", "attempt-1/step-3/adapter/state.json"),
            [],
        ),
        ("another run", ["runs/x/y/z/attempt-1/step-1/manifest.json"], []),
    ],
)
def test_a_run_resumes_from_a_complete_checkpoint(
    sentence: str, found: list[str], expected: list[CheckpointId]
):
    assert checkpoint_uploads.resumable_checkpoints(PREFIX, found) == expected


def saved(folder: Path, step: int, size: int = 64) -> Path:
    """A folder as the training loop leaves it at a save."""
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "ref").mkdir(parents=True)
    config = {
        "r": 8,
        "lora_alpha": 16,
        "base_model_name_or_path": "/flashrun/model/x",
        "target_modules": ["v_proj", "q_proj"],
    }
    files = {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": bytes([step % 256]) * size,
        "optimizer.pt": b"o" * size,
        "scheduler.pt": b"s",
        "trainer_state.json": b"{}",
        "rng_state.pth": b"r",
        "training_args.bin": b"pickle",
        "tokenizer.json": b"{}",
        "README.md": b"",
        "ref/adapter_model.safetensors": b"x",
    }
    for name, data in files.items():
        (checkpoint / name).write_bytes(data)
    return checkpoint


class Slow(Store):
    """A store with a slow connection that sometimes fails."""

    pause = 0.0
    failures = 0

    def upload_folder(self, *args, **kwargs):
        time.sleep(self.pause)
        if self.failures:
            self.failures -= 1
            raise Unavailable("the line is down")
        return super().upload_folder(*args, **kwargs)


class Bench:
    """A claimed attempt with an uploader."""

    def __init__(self, access: StorageAccess, folder: Path) -> None:
        self.folder = folder
        self.store = Slow(access)
        self.run = resolved("sft")
        pod = PodMounts.from_environment({"FLASHRUN_POD_UID": "uid-1"})
        self.attempt = attempts.claim_attempt(self.store, self.run, pod)
        self.arrived: list[int] = []
        self.uploader = Uploader(self.attempt, "flashrun/tiny-qwen3", self.arrived.append)

    def save(self, step: int) -> None:
        folder = saved(self.folder, step)
        self.uploader.put(
            checkpoint_uploads.take_snapshot(folder, self.folder / "outbox", step, "base/model")
        )

    def steps(self, marker: str) -> list[int]:
        prefix = self.attempt.prefix
        found = (names.parse_step_key(prefix, entry.key) for entry in self.store.list(prefix))
        return sorted(key.step for key in found if key and key.path == marker)


@pytest.fixture
def bench(access: StorageAccess, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(access, tmp_path)
    yield made
    made.uploader.finish(0)


def test_an_urgent_step_arrives_before_those_that_wait(bench: Bench):
    bench.store.pause = 0.2
    for step in range(1, 5):
        bench.save(step)
    snapshot = checkpoint_uploads.take_snapshot(
        saved(bench.folder, 9), bench.folder / "outbox", 9, "base/model"
    )
    bench.uploader.put(snapshot, urgent=True)
    assert bench.uploader.finish(30)
    # The first one may have been on its way.
    assert bench.arrived in ([1, 9, 2, 3, 4], [9, 1, 2, 3, 4])
    assert bench.steps(names.STATE_MANIFEST)[-1] == bench.uploader.resumable_step == 9


def test_a_step_that_was_resumed_from_can_be_resumed_from(bench: Bench):
    assert bench.uploader.resumable_step == 0
    bench.uploader.continue_from(7)
    assert bench.uploader.resumable_step == 7
    bench.save(8)
    assert bench.uploader.finish(30)
    assert bench.uploader.resumable_step == 8


def test_every_adapter_arrives_in_order_and_of_the_state_the_newest(bench: Bench):
    bench.store.pause = 0.05
    for step in range(1, 21):
        bench.save(step)
    assert bench.uploader.finish(30)
    assert bench.arrived == list(range(1, 21))
    assert bench.steps(names.MANIFEST) == list(range(1, 21))
    states = bench.steps(names.STATE_MANIFEST)
    assert states[-1] == 20
    assert len(states) < 20
    assert bench.uploader.resumable_step == 20
    assert list((bench.folder / "outbox").iterdir()) == []


def test_a_state_gets_through_while_adapters_pile_up(bench: Bench):
    bench.store.pause = 0.2
    for step in range(1, 31):
        bench.save(step)
    deadline = time.monotonic() + 10
    while not bench.steps(names.STATE_MANIFEST):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(bench.arrived) < 30


def test_saving_does_not_wait_for_the_line(bench: Bench):
    bench.store.pause = 0.5
    began = time.monotonic()
    for step in range(1, 11):
        bench.save(step)
    assert time.monotonic() - began < 0.5


def test_a_line_that_was_down_loses_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoint_uploads, "_RETRY_SECONDS", 0.01)
    bench.store.failures = 3
    bench.save(1)
    bench.save(2)
    assert bench.uploader.finish(30)
    assert bench.arrived == [1, 2]
    assert bench.uploader.storage_error == ""


def test_an_upload_that_is_not_done_in_time_is_reported(bench: Bench):
    bench.store.pause = 5
    bench.save(1)
    assert not bench.uploader.finish(0.1)
    assert bench.uploader.resumable_step == 0


def test_storage_that_refuses_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> Manifest:
        raise StorageForbidden("access was refused")

    monkeypatch.setattr(bench.store, "upload_folder", refuse)
    bench.save(1)
    assert not bench.uploader.finish(0.2)
    assert bench.uploader.storage_error == "access was refused"


@pytest.mark.parametrize("how", ["superseded", "a higher claim", "a claim of another pod"])
def test_a_pod_that_lost_its_claim_commits_nothing(bench: Bench, how: str):
    own = bench.attempt.claim
    prefix = bench.attempt.prefix
    match how:
        case "superseded":
            changed = own.model_copy(update={"superseded": True})
            bench.store.put_json(names.claim_key(prefix, 1), changed)
        case "a higher claim":
            higher = own.model_copy(update={"attempt": 2, "pod_uid": "uid-2"})
            bench.store.create_json(names.claim_key(prefix, 2), higher)
        case _:
            foreign = own.model_copy(update={"pod_uid": "uid-2"})
            bench.store.put_json(names.claim_key(prefix, 1), foreign)
    bench.save(1)
    assert not bench.uploader.finish(10)
    assert bench.uploader.error is not None
    assert bench.uploader.error.reason == "Superseded"
    assert bench.steps(names.MANIFEST) == []


def test_a_restored_checkpoint_has_only_the_files_that_were_saved(bench: Bench, tmp_path: Path):
    bench.save(3)
    assert bench.uploader.finish(30)
    folder = tmp_path / "resume"
    assert checkpoint_uploads.restore(bench.store, bench.attempt.prefix, folder) == (3, 1)
    names_back = {path.name for path in folder.iterdir()}
    assert names_back == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "trainer_state.json",
        "rng_state.pth",
    }
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base/model"
    untouched = json.loads((tmp_path / "checkpoint-3" / "adapter_config.json").read_text())
    assert untouched["base_model_name_or_path"] == "/flashrun/model/x"


@pytest.mark.parametrize(
    "damage",
    ["flipped", "cut", "missing", "no manifest", "nonsense", "of another step", "of another run"],
)
def test_a_damaged_checkpoint_is_passed_over(bench: Bench, tmp_path: Path, damage: str):
    for step in (1, 2):
        bench.save(step)
        deadline = time.monotonic() + 10
        while step not in bench.steps(names.STATE_MANIFEST):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert bench.uploader.finish(30)
    where = names.step_prefix(bench.attempt.prefix, 1, 2)
    optimizer = f"{where}state/optimizer.pt"
    match damage:
        case "flipped":
            bench.store.put_bytes(optimizer, b"p" + b"o" * 63)
        case "cut":
            bench.store.put_bytes(optimizer, b"o" * 10)
        case "missing":
            bench.store.delete([optimizer])
        case "no manifest":
            bench.store.delete([where + names.MANIFEST])
        case "of another step" | "of another run":
            found = bench.store.get_json(where + names.STATE_MANIFEST, Manifest)
            other = {"step": 7} if damage.endswith("step") else {"run": resolved("sft").run}
            changed = found.model_copy(update=other)
            bench.store.put_json(where + names.STATE_MANIFEST, changed)
        case _:
            bench.store.put_bytes(where + names.STATE_MANIFEST, b"{}")
    folder = tmp_path / "resume"
    assert checkpoint_uploads.restore(bench.store, bench.attempt.prefix, folder) == (1, 1)
    assert (folder / "adapter_model.safetensors").read_bytes() == b"\1" * 64


def test_a_snapshot_is_not_a_copy_and_outlives_the_trainers_folder(tmp_path: Path):
    checkpoint = saved(tmp_path, 3)
    large = ("adapter/adapter_model.safetensors", "state/optimizer.pt")
    before = [(checkpoint / Path(name).name).stat().st_ino for name in large]
    taken = checkpoint_uploads.take_snapshot(checkpoint, tmp_path / "outbox", 3, "base/model")
    files = [taken.adapter / large[0], taken.state / large[1]]
    assert [path.stat().st_ino for path in files] == before
    shutil.rmtree(checkpoint)
    assert [path.read_bytes() for path in files] == [b"\3" * 64, b"o" * 64]


@pytest.mark.parametrize("mapping", [None, {"base_model_class": "OtherClass"}])
def test_a_published_config_names_the_base_model_and_keeps_its_task_unless_it_names_a_class(
    tmp_path: Path, mapping: dict[str, str] | None
):
    path = tmp_path / "adapter_config.json"
    written = {
        "base_model_name_or_path": "/pod/model",
        "auto_mapping": mapping,
        "task_type": "CAUSAL_LM",
        "target_modules": ["v_proj", "q_proj"],
        "r": 8,
        "lora_alpha": 16,
    }
    path.write_text(json.dumps(written))
    checkpoint_uploads.write_portable_config(path, "base/model")
    assert json.loads(path.read_text()) == written | {
        "base_model_name_or_path": "base/model",
        # PEFT's loaders use the class only without a task.
        "task_type": None if mapping else "CAUSAL_LM",
        "target_modules": ["q_proj", "v_proj"],
    }


def test_a_state_is_committed_after_the_history_up_to_it(bench: Bench):
    found: list[list[int]] = []

    def put_history() -> None:
        found.append(bench.steps(names.STATE_MANIFEST))

    bench.uploader.upload_history = put_history
    bench.save(1)
    assert bench.uploader.finish(30)
    assert found == [[]]
    assert bench.steps(names.STATE_MANIFEST) == [1]


def test_a_state_is_not_committed_while_its_history_cannot_be_uploaded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    def refuse() -> None:
        raise Unavailable("the history is late")

    monkeypatch.setattr(bench.uploader, "upload_history", refuse)
    bench.save(1)
    assert not bench.uploader.finish(1)
    assert bench.uploader.storage_error == "the history is late"
    assert (bench.steps(names.MANIFEST), bench.steps(names.STATE_MANIFEST)) == ([1], [])


def test_an_uploader_that_fails_does_not_report_that_all_is_uploaded(bench: Bench):
    def breaks(_: int) -> None:
        raise RuntimeError("a defect")

    bench.uploader.on_commit = breaks
    bench.save(1)
    assert not bench.uploader.finish(10)
    assert bench.uploader.error is not None
    assert "a defect" in bench.uploader.error.message


def test_finish_does_not_wait_a_second_time(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    waits: list[float] = []
    monkeypatch.setattr(bench.uploader._thread, "join", waits.append)
    assert not bench.uploader.finish(5)
    assert not bench.uploader.finish(5)
    assert waits == [5]


def test_without_a_checkpoint_a_run_begins_at_the_beginning(bench: Bench, tmp_path: Path):
    folder = tmp_path / "resume"
    assert checkpoint_uploads.restore(bench.store, bench.attempt.prefix, folder) is None
    assert not folder.exists()
