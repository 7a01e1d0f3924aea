"""The init container of the base model: a model that may not be there, and its cache."""

import os
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from flashrun.api.catalog import Source
from flashrun.api.exits import Exit
from flashrun_trainer.init import model_download
from flashrun_trainer.init.init_container import run_init_container
from tests.trainer.http_servers import serving
from tests.trainer.pods import TrainerPod, Workshop


def test_a_model_that_is_not_in_the_mirror_is_named(empty_workshop: Workshop):
    pod = empty_workshop.new_pod("0" * 64)
    run = pod.run.model_copy(
        update={"model": pod.run.model.model_copy(update={"revision": "nowhere"})}
    )
    (pod.folder / "spec.json").write_text(run.model_dump_json())
    assert (
        run_init_container(
            "model", model_download.run, model_download.describe_activity, pod.inside
        )
        == Exit.MODEL_UNAVAILABLE
    )
    assert pod.termination.reason == "ModelUnavailable"
    assert "flashrun/tiny-qwen3 at revision nowhere" in pod.termination.message
    assert list(pod.inside.model.rglob("*.part")) == []


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_a_hub_that_is_away_is_a_temporary_failure(empty_workshop: Workshop):
    pod = empty_workshop.new_pod("0" * 64)
    model = pod.run.model.model_copy(update={"source": Source.HUB})
    run = pod.run.model_copy(update={"model": model, "hub_endpoint": "http://127.0.0.1:1"})
    (pod.folder / "spec.json").write_text(run.model_dump_json())
    assert (
        run_init_container(
            "model", model_download.run, model_download.describe_activity, pod.inside
        )
        == Exit.TEMPORARY
    )
    assert pod.termination.reason == "HubUnavailable"


class RefusingHub(BaseHTTPRequestHandler):
    """Answers everything with one status."""

    status = 404

    def do_GET(self) -> None:
        self.send_error(self.status)

    def do_HEAD(self) -> None:
        self.send_error(self.status)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hub(status: int) -> Iterator[str]:
    """A hub that answers everything with one status."""
    with serving(type("Hub", (RefusingHub,), {"status": status})) as address:
        yield address


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (401, Exit.MODEL_UNAVAILABLE, "ModelUnavailable"),
        (403, Exit.MODEL_UNAVAILABLE, "ModelUnavailable"),
        (404, Exit.MODEL_UNAVAILABLE, "ModelUnavailable"),
        (500, Exit.TEMPORARY, "HubUnavailable"),
    ],
)
def test_a_model_that_the_hub_refuses_is_named(
    empty_workshop: Workshop, hub: str, status: int, code: int, reason: str
):
    pod = empty_workshop.new_pod("0" * 64)
    model = pod.run.model.model_copy(update={"source": Source.HUB})
    run = pod.run.model_copy(update={"model": model, "hub_endpoint": hub})
    (pod.folder / "spec.json").write_text(run.model_dump_json())
    assert (
        run_init_container(
            "model", model_download.run, model_download.describe_activity, pod.inside
        )
        == code
    )
    assert pod.termination.reason == reason
    assert str(status) in pod.termination.message
    assert not list(pod.inside.model.rglob("*.safetensors"))


def test_abandoned_downloads_are_removed_from_the_cache(new_pod: Callable[..., TrainerPod]):
    cache = new_pod().inside.model / "org--model"
    for name, age in (("v1.gone.part", 7 * 3600), ("v1.busy.part", 60), ("v1", 7 * 3600)):
        (cache / name).mkdir(parents=True)
        (cache / name / "weights").touch()
        for path in (cache / name / "weights", cache / name):
            os.utime(path, (time.time() - age,) * 2)
    model_download._remove_abandoned_downloads(cache)
    assert {path.name for path in cache.iterdir()} == {"v1", "v1.busy.part"}
