"""Init containers: a sign of life while they work, a log without secrets, an end with a reason."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flashrun.api.exits import Exit, Termination
from flashrun.api.records import Heartbeat, StorageAccess
from flashrun_trainer.init import model_download
from flashrun_trainer.init.init_container import heartbeats, run_init_container
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.trainer_errors import TrainerError
from flashrun_trainer.records import reporter, termination
from tests.trainer.pods import ROOT, TrainerPod, Workshop, resolved

PASSWORD = "index-password"


@pytest.fixture
def made(access: StorageAccess, tmp_path: Path) -> Callable[..., TrainerPod]:
    """Makes a pod whose containers have not run yet."""

    def make(index: int = 0) -> TrainerPod:
        run = resolved(pip_index_url=f"https://me:{PASSWORD}@index.invalid/simple")
        pod = TrainerPod(Workshop(tmp_path, access), run, 1, index)
        (pod.folder / "packages").mkdir(parents=True)
        (pod.folder / "spec.json").write_text(run.model_dump_json())
        (pod.folder / "access.json").write_text(access.model_dump_json())
        return pod

    return make


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_container_that_downloads_says_how_much_it_has(
    made: Callable[..., TrainerPod],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(reporter, "HEARTBEAT_SECONDS", 0.01)
    pod = made()
    told: list[Heartbeat | None] = []

    def work(inside: PodMounts) -> None:
        part = model_download._partial_folder(inside, pod.run)
        part.mkdir(parents=True)
        with (part / "weights").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 3 << 27)
        wait_until(lambda: pod.heartbeat and pod.heartbeat.activity == "Downloading (0.4 GiB)")
        told.append(pod.heartbeat)

    assert run_init_container("test", work, model_download.describe_activity, pod.inside) == 0
    (heartbeat,) = told
    assert heartbeat is not None
    assert (heartbeat.pod, heartbeat.attempt, heartbeat.progress) == (pod.inside.name, 0, None)


def test_pods_that_do_not_lead_leave_that_to_the_first(
    made: Callable[..., TrainerPod], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reporter, "HEARTBEAT_SECONDS", 0.01)
    pod, asked = made(index=1), []
    with heartbeats(pod.inside, lambda _: asked.append(1) or "Installing"):
        time.sleep(0.1)
    assert (asked, pod.heartbeat) == ([], None)


def test_trouble_with_the_sign_of_life_is_none_of_the_container(
    made: Callable[..., TrainerPod], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reporter, "HEARTBEAT_SECONDS", 0.01)
    pod, asked = made(), []
    gone = pod.workshop.access.model_copy(update={"endpoint": "http://127.0.0.1:1"})

    def doing(_: PodMounts) -> str:
        asked.append(1)
        if len(asked) == 1:
            raise FileNotFoundError("moved while it was looked at")
        return "Installing"

    with heartbeats(pod.inside, doing):
        wait_until(lambda: pod.heartbeat)
        (pod.folder / "access.json").write_text(gone.model_dump_json())
        before = len(asked)
        wait_until(lambda: len(asked) > before)


def test_what_a_container_prints_is_redacted(
    made: Callable[..., TrainerPod], capfd: pytest.CaptureFixture[str]
):
    def work(_: PodMounts) -> None:
        os.write(1, f"Looking in https://me:{PASSWORD}@index.invalid/simple\n".encode())
        raise RuntimeError(f"the index refused {PASSWORD}")

    pod = made()
    assert run_init_container("test", work, lambda _: "Installing", pod.inside) == 1
    assert pod.termination.message == "the trainer failed with RuntimeError: the index refused ***"
    printed = "".join(capfd.readouterr())
    assert "Looking in https://me:***@index.invalid/simple" in printed
    assert PASSWORD not in printed


def test_a_spec_that_cannot_be_read_is_said_in_words(made: Callable[..., TrainerPod]):
    pod = made()
    plain = {**json.loads((pod.folder / "access.json").read_text()), "session_token": ""}
    (pod.folder / "access.json").write_text(json.dumps(plain))
    (pod.folder / "spec.json").write_text("{}")
    assert (
        run_init_container("test", lambda inside: inside.run() and None, lambda _: "", pod.inside)
        == 64
    )
    assert pod.termination.reason == "SpecInvalid"
    assert pod.termination.message.startswith("the resolved spec ")


def test_an_error_that_nobody_expects_is_an_end_like_others(made: Callable[..., TrainerPod]):
    pod = made()
    place = pod.folder / "work"
    place.write_text("no folder")
    with pod.started("packages", {"SOME_TOKEN": str(place)}) as process:
        assert process.wait(30) == 1
    assert pod.termination.message == (
        "the trainer failed with FileExistsError: [Errno 17] File exists: '***'"
    )
    assert "Traceback" in pod.output
    assert str(place) not in pod.output


def test_the_keys_that_storage_is_reached_with_now_are_hidden(made: Callable[..., TrainerPod]):
    pod = made()
    redact = termination.pod_redactor(pod.inside)
    place = pod.inside.storage
    access = StorageAccess.model_validate_json(place.read_bytes())
    place.unlink()
    place.write_text(access.model_copy(update={"secret_key": "renewed-key"}).model_dump_json())
    assert redact(f"renewed-key after {access.secret_key}") == "*** after ***"
    place.unlink()
    assert redact("renewed-key") == "***"


def test_an_error_in_half_characters_is_an_end_like_others(made: Callable[..., TrainerPod]):
    pod = made()
    end = termination.end_with_error(
        ValueError("no \ud83d here"), pod.inside, termination.pod_redactor(pod.inside)
    )
    assert end == 1
    assert pod.termination.message == r"the trainer failed with ValueError: no \ud83d here"


@pytest.mark.parametrize("word", ["x", "語", '"'])
def test_a_long_message_reaches_the_kubelet_whole(made: Callable[..., TrainerPod], word: str):
    pod = made()
    error = TrainerError(75, "StorageUnavailable", word * 5000, hint=word * 5000)
    termination.end_with_error(error, pod.inside, termination.pod_redactor(pod.inside))
    kept = (pod.folder / "termination").read_bytes()[-4096:]
    assert Termination.model_validate_json(kept).reason == "StorageUnavailable"


STOPPED = """
import sys
from flashrun_trainer import __main__
from flashrun_trainer import run_attempt
from flashrun_trainer.pod.trainer_errors import InterruptedBeforeTraining

def stopped(*_):
    raise InterruptedBeforeTraining

run_attempt._run_attempt = stopped  # SIGTERM, just when nothing is being done that could fail
sys.exit(__main__.main(["train"]))
"""


def test_a_stop_at_any_moment_of_the_start_is_told(made: Callable[..., TrainerPod]):
    pod = made()
    (pod.folder / "work").mkdir()
    paths = os.pathsep.join([str(ROOT / "operator/src"), str(ROOT / "trainer-image/src")])
    done = subprocess.run(
        [sys.executable, "-c", STOPPED],
        env={**os.environ, "PYTHONPATH": paths, **pod.environment},
        capture_output=True,
    )
    assert done.returncode == Exit.INTERRUPTED_UNSAVED, done.stderr
    assert pod.termination.reason == "Interrupted"


def test_downloads_that_nobody_goes_on_with_leave_the_cache(made: Callable[..., TrainerPod]):
    cache = made().inside.model / "org--model"
    for name, age in (("v1.gone.part", 7 * 3600), ("v1.busy.part", 60), ("v1", 7 * 3600)):
        (cache / name).mkdir(parents=True)
        (cache / name / "weights").touch()
        for path in (cache / name / "weights", cache / name):
            os.utime(path, (time.time() - age,) * 2)
    model_download._remove_abandoned_downloads(cache)
    assert {path.name for path in cache.iterdir()} == {"v1", "v1.busy.part"}
