"""Init containers: a heartbeat while they work, a log without secrets, an end with a reason."""

import os
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from flashrun.api import names
from flashrun.api.records import Heartbeat
from flashrun.store import Store
from flashrun.store_errors import Unavailable
from flashrun_trainer.init import model_download
from flashrun_trainer.init.init_container import reports, run_init_container
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.records import reporter
from tests.trainer.pods import INDEX_PASSWORD, TrainerPod


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_container_that_downloads_says_how_much_it_has(
    new_pod: Callable[..., TrainerPod],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(reporter, "HEARTBEAT_SECONDS", 0.01)
    pod = new_pod()
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


def test_only_the_leading_pod_writes_heartbeats(
    new_pod: Callable[..., TrainerPod], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reporter, "HEARTBEAT_SECONDS", 0.01)
    pod, asked = new_pod(index=1), []
    with reports(pod.inside, lambda _: asked.append(1) or "Installing", lambda: None):
        time.sleep(0.1)
    assert (asked, pod.heartbeat) == ([], None)


def test_a_failing_heartbeat_does_not_fail_the_container(
    new_pod: Callable[..., TrainerPod], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reporter, "HEARTBEAT_SECONDS", 0.01)
    pod, asked = new_pod(), []
    gone = pod.workshop.access.model_copy(update={"endpoint": "http://127.0.0.1:1"})

    def doing(_: PodMounts) -> str:
        asked.append(1)
        if len(asked) == 1:
            raise FileNotFoundError("moved while it was looked at")
        return "Installing"

    with reports(pod.inside, doing, lambda: None):
        wait_until(lambda: pod.heartbeat)
        (pod.folder / "access.json").write_text(gone.model_dump_json())
        before = len(asked)
        wait_until(lambda: len(asked) > before)


def test_what_a_container_prints_is_redacted(
    new_pod: Callable[..., TrainerPod], capfd: pytest.CaptureFixture[str]
):
    def work(_: PodMounts) -> None:
        os.write(1, f"Looking in https://me:{INDEX_PASSWORD}@index.invalid/simple\n".encode())
        raise RuntimeError(f"the index refused {INDEX_PASSWORD}")

    pod = new_pod()
    assert run_init_container("test", work, lambda _: "Installing", pod.inside) == 1
    assert pod.termination.message == "the trainer failed with RuntimeError: the index refused ***"
    printed = "".join(capfd.readouterr())
    assert "Looking in https://me:***@index.invalid/simple" in printed
    assert INDEX_PASSWORD not in printed


def test_the_log_of_a_pod_that_ends_in_an_init_container_is_in_storage(
    new_pod: Callable[..., TrainerPod], capfd: pytest.CaptureFixture[str]
):
    def download(_: PodMounts) -> None:
        os.write(1, b"model downloaded\n")

    def install(_: PodMounts) -> None:
        os.write(1, f"asking https://me:{INDEX_PASSWORD}@index.invalid\n".encode())
        raise RuntimeError("the index has no such package")

    pod = new_pod()
    key = names.pod_log_key(pod.prefix, pod.inside.name)
    assert run_init_container("model", download, lambda _: "", pod.inside) == 0
    assert not pod.store.exists(key)
    assert run_init_container("packages", install, lambda _: "", pod.inside) == 1

    lines = pod.store.get_bytes(key).decode().splitlines()
    assert lines == [
        "[model] model downloaded",
        "[packages] asking https://me:***@index.invalid",
    ]


@pytest.mark.parametrize("index", [0, 1], ids=["the leader", "a member"])
def test_the_log_of_a_container_that_is_killed_is_in_storage(
    new_pod: Callable[..., TrainerPod],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    index: int,
):
    """A process that the kernel ends for its memory uploads nothing any more."""
    monkeypatch.setattr(reporter, "HEARTBEAT_SECONDS", 0.01)
    pod = new_pod(index=index)
    key = names.pod_log_key(pod.prefix, pod.inside.name)

    def is_stored(text: str) -> bool:
        return pod.store.exists(key) and text in pod.store.get_bytes(key).decode()

    def work(_: PodMounts) -> None:
        os.write(1, f"installing with {INDEX_PASSWORD}\n".encode())
        wait_until(lambda: is_stored("[packages] installing with ***\n"))
        os.write(1, b"a wheel of 9 GB\n")
        wait_until(lambda: is_stored("[packages] a wheel of 9 GB\n"))

    assert run_init_container("packages", work, lambda _: "Installing", pod.inside) == 0


def test_a_log_that_cannot_be_uploaded_changes_no_exit_code(
    new_pod: Callable[..., TrainerPod],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    def fail(_: PodMounts) -> None:
        raise MemoryError

    def refuse(*_: object) -> None:
        raise Unavailable("storage is away")

    pod = new_pod()
    monkeypatch.setattr(Store, "put_bytes", refuse)
    assert run_init_container("model", fail, lambda _: "", pod.inside) == 68
    assert pod.termination.reason == "OutOfMemory"


def test_credentials_of_the_index_are_redacted_wherever_they_are_printed(
    new_pod: Callable[..., TrainerPod], capfd: pytest.CaptureFixture[str]
):
    def work(inside: PodMounts) -> None:
        os.write(1, inside.netrc.read_bytes())
        raise RuntimeError("the index refused hush-hush")

    pod = new_pod()
    netrc = pod.folder / "netrc"
    netrc.write_text('machine index.invalid login "me" password "hush-hush"\n')
    inside = replace(pod.inside, netrc=netrc)
    assert run_init_container("test", work, lambda _: "Installing", inside) == 1
    assert pod.termination.message == "the trainer failed with RuntimeError: the index refused ***"
    printed = "".join(capfd.readouterr())
    assert 'login "me" password "***"' in printed
    assert "hush-hush" not in printed


def test_an_unexpected_error_is_reported(new_pod: Callable[..., TrainerPod]):
    pod = new_pod()
    place = pod.folder / "work"
    place.write_text("no folder")
    with pod.started("packages", {"SOME_TOKEN": str(place)}) as process:
        assert process.wait(30) == 1
    assert pod.termination.message == (
        "the trainer failed with FileExistsError: [Errno 17] File exists: '***'"
    )
    assert "Traceback" in pod.output
    assert str(place) not in pod.output
