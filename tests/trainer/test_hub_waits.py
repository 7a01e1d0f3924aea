"""How long a model hub can make a download wait, on a real HTTP server."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from flashrun import hub_waits
from flashrun.api.catalog import Source
from flashrun.cli.models.model_source import open_source
from flashrun_trainer.init import model_download
from tests.trainer.http_servers import serving
from tests.trainer.pods import resolved

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]
FILE, REVISION = "config.json", "a" * 40
ASKED: dict[str, tuple[int, str, str]] = {
    "an hour": (429, "Retry-After", "3600"),
    "an hour of an overloaded hub": (503, "Retry-After", "3600"),
    "a number without end": (503, "Retry-After", "9" * 5_000),
    "other digits": (503, "Retry-After", "²"),
    "a window": (429, "RateLimit", '"api";r=0;t=3600'),
}


class BusyHub(BaseHTTPRequestHandler):
    """Answers the first request for each path with a status, and asks to wait."""

    status, name, value = 503, "", ""
    seen: set[str]

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def _answer(self, send_body: bool) -> None:
        place = f"{self.command} {self.path.partition('?')[0]}"
        body = b'{"model_type": "none"}'
        if "/tree/" in self.path:
            body = json.dumps([{"type": "file", "path": FILE, "size": 22, "oid": "1"}]).encode()
        elif "/api/" in self.path:
            files = {"id": "org/model", "sha": REVISION, "siblings": [{"rfilename": FILE}]}
            body = json.dumps(files).encode()
        # After 503, the library repeats a HEAD alone; after 429 also a list and a file.
        repeated = "/tree/" in self.path or "/resolve/" in self.path
        retried = self.command == "HEAD" or (self.status == 429 and repeated)
        busy = retried and place not in self.seen
        self.seen.add(place)
        self.send_response(self.status if busy else 200)
        if busy:
            self.send_header(self.name, self.value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if send_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def busy(case: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A hub that asks to wait, and what the requests to it were; a longer wait is an error."""
    status, name, value = ASKED[case]
    monkeypatch.setattr(hub_waits, "LONGEST_WAIT", 0)
    sleep = time.sleep

    def wait(seconds: float) -> None:
        assert seconds < 10, f"it would wait {seconds} s"
        sleep(seconds)

    monkeypatch.setattr("time.sleep", wait)
    answers = {"status": status, "name": name, "value": value, "seen": set[str]()}
    handler = type("Hub", (BusyHub,), answers)
    with serving(handler) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield address, handler


def by_the_trainer(address: str, folder: Path) -> None:
    run = resolved()
    model = run.model.replace(id="org/model", revision=REVISION, source=Source.HUB)
    model_download._from_hub(run.replace(model=model, hub_endpoint=address), folder, None)


def by_flash(address: str, folder: Path) -> None:
    with open_source(f"org/model@{REVISION}") as source:
        source.rename(folder)


@pytest.mark.parametrize(
    ("case", "download"), [*((case, by_the_trainer) for case in ASKED), ("an hour", by_flash)]
)
def test_a_hub_cannot_make_a_download_wait_for_long(
    busy: tuple[str, Any], download: Callable[[str, Path], None], tmp_path: Path
):
    address, handler = busy
    download(address, tmp_path / "model")
    assert json.loads((tmp_path / "model" / FILE).read_text()) == {"model_type": "none"}
    assert len(handler.seen) > 1
