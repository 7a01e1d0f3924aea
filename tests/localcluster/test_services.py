"""The S3 server and the image registry: where they listen, and what they are told."""

import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from localcluster.services import Services, answers
from localcluster.steps import StepRunner

STATUS = {"/ok": 200, "/missing": 404, "/created": 201}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(STATUS[self.path])
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_only_status_200_is_an_answer(server: str) -> None:
    assert answers(f"{server}/ok")
    assert not answers(f"{server}/missing")
    assert not answers(f"{server}/created")


def test_a_server_that_is_not_there_does_not_answer() -> None:
    assert not answers("http://127.0.0.1:1/")


def test_ports_and_the_secret_key_are_remembered(tmp_path: Path) -> None:
    first, second = Services(tmp_path), Services(tmp_path)
    assert first.endpoint == second.endpoint
    assert first.registry == second.registry
    assert first.secret_key == second.secret_key
    assert stat.S_IMODE((tmp_path / "secret-key").stat().st_mode) == 0o600


@pytest.mark.parametrize(("exposed", "address"), [(False, "127.0.0.1"), (True, "0.0.0.0")])
def test_the_registry_listens_on_every_address_only_for_docker(
    own_folders: None, tmp_path: Path, exposed: bool, address: str
) -> None:
    services = Services(tmp_path / "services", exposed=exposed)
    config = services._registry_config()
    assert config["http"] == {
        "addr": f"{address}:{services.registry_port}",
        "secret": services.secret_key,
    }
    layers = str(tmp_path / "cache/flashrun/registry")
    assert config["storage"] == {"filesystem": {"rootdirectory": layers}}


def test_of_a_registry_to_which_nothing_was_pushed_nothing_is_deleted(
    own_folders: None, tmp_path: Path, steps: StepRunner
) -> None:
    Services(tmp_path / "services").delete_unused_images(steps)
    assert not (tmp_path / "services" / "registry.yaml").exists()


@pytest.mark.api
def test_both_servers_run_until_they_are_stopped(tmp_path: Path, steps: StepRunner) -> None:
    services = Services(tmp_path / "services", ephemeral=True)
    services.start_storage(steps)
    services.start_registry(steps)
    assert answers(f"{services.endpoint}/minio/health/ready")
    assert answers(f"http://{services.registry}/v2/")
    services.delete_unused_images(steps)
    services.stop()
    assert not services.daemons.running("minio")
    assert not services.daemons.running("registry")
