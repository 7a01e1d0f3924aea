"""The init container of the base model: a model that may not be there, and its cache."""

import json
import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler

import pytest

from flashrun.api.catalog import Source
from flashrun.api.exits import Exit
from flashrun.api.records import HubAccess
from flashrun_trainer.init import model_download
from flashrun_trainer.init.init_container import run_init_container
from flashrun_trainer.pod.trainer_errors import TrainerError
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


REVISION, FILE = "a" * 40, "config.json"
BASIC = f"Basic {b64encode(b'me:hu:sh@1').decode()}"


class PrivateHub(BaseHTTPRequestHandler):
    """Has one file of one model, for who sends the right header."""

    header = ""

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def _answer(self, send_body: bool) -> None:
        if self.headers.get("Authorization") != self.header:
            self.send_error(401)
            return
        answers: dict[str, object] = {
            "/tree/": [{"type": "file", "path": FILE, "size": 22, "oid": "1"}],
            "/api/": {"id": "org/model", "sha": REVISION, "siblings": [{"rfilename": FILE}]},
            "": {"model_type": "none"},
        }
        answer = next(answer for part, answer in answers.items() if part in self.path)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if send_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("header", "given"),
    [
        ("Bearer hub-token", {"token": "hub-token"}),
        (BASIC, {"username": "me", "password": "hu:sh@1"}),
    ],
    ids=["token", "password"],
)
def test_the_container_logs_in_to_a_hub_and_to_no_other_address(
    new_pod: Callable[..., TrainerPod], header: str, given: dict[str, str]
):
    pod = new_pod()
    model = pod.run.model.model_copy(
        update={"id": "org/model", "revision": REVISION, "source": Source.HUB}
    )
    inside = replace(pod.inside, hub=pod.folder / "hub.json")
    folder = pod.folder / "downloaded"
    with serving(type("Hub", (PrivateHub,), {"header": header})) as hub:
        run = pod.run.model_copy(update={"model": model, "hub_endpoint": hub})

        def download(endpoint: str) -> None:
            inside.hub.write_text(HubAccess(endpoint=endpoint, **given).model_dump_json())
            model_download._from_hub(run, folder, inside.hub_access())

        with pytest.raises(TrainerError, match="the hub answered 401"):
            download("https://other.example")
        download(hub)
    assert json.loads((folder / FILE).read_text()) == {"model_type": "none"}
    [secret] = [value for name, value in given.items() if name != "username"]
    assert inside.upstream_secrets() == (secret,)


def test_a_hub_needs_no_credentials_while_their_file_is_empty(new_pod: Callable[..., TrainerPod]):
    pod = new_pod()
    inside = replace(pod.inside, hub=pod.folder / "hub.json")
    assert inside.hub_access() is None
    inside.hub.write_text("")
    assert inside.hub_access() is None
    assert inside.upstream_secrets() == ()


def test_abandoned_downloads_are_removed_from_the_cache(new_pod: Callable[..., TrainerPod]):
    cache = new_pod().inside.model / "org--model"
    for name, age in (("v1.gone.part", 7 * 3600), ("v1.busy.part", 60), ("v1", 7 * 3600)):
        (cache / name).mkdir(parents=True)
        (cache / name / "weights").touch()
        for path in (cache / name / "weights", cache / name):
            os.utime(path, (time.time() - age,) * 2)
    model_download._remove_abandoned_downloads(cache)
    assert {path.name for path in cache.iterdir()} == {"v1", "v1.busy.part"}
