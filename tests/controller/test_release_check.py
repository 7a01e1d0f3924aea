"""What ``helm test`` finds: an operator that is not ready, and storage that cannot be used."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from flashrun.api.records import StorageAccess
from flashrun.controller import release_check
from flashrun.store import Store
from tests.controller.stage import platform
from tests.store.small_s3 import Fault, small_s3


@contextmanager
def operator(status: int, text: str) -> Iterator[str]:
    """An address at which /readyz answers."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[StorageAccess, str], tuple[int, str]]:
    """Return the exit code and the output of one check."""
    monkeypatch.setattr(release_check, "OPERATOR_SECONDS", 1.0)

    def run(access: StorageAccess, address: str) -> tuple[int, str]:
        settings = platform("team-a", access)
        (tmp_path / "platform.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        (tmp_path / "accessKey").write_text(access.access_key)
        (tmp_path / "secretKey").write_text(access.secret_key)
        words = ["check", "--settings", f"{tmp_path}/platform.yaml"]
        words += ["--storage-keys", str(tmp_path), "--operator", address]
        monkeypatch.setattr("sys.argv", words)
        code = release_check.main()
        return code, capsys.readouterr().out

    return run


def test_a_release_that_works_passes_and_leaves_nothing(check, store: Store):
    with operator(200, "ok") as address:
        code, said = check(store.access, address)
    assert code == 0, said
    assert "fail" not in said
    assert "ok   operator: a replica is ready" in said
    assert "ok   storage: session policy" in said
    assert list(store.list("")) == []


def test_what_does_not_work_is_named(check) -> None:
    with small_s3(Fault.OVERWRITES) as s3, operator(503, "not ready: no bucket") as address:
        code, said = check(s3.access, address)
        assert code == 1
        assert "fail operator: not ready: no bucket" in said
        assert "fail storage: conditional PUT: it overwrites an object" in said
    code, said = check(s3.access, "http://127.0.0.1:1")
    assert code == 1
    assert "fail operator: no answer from http://127.0.0.1:1" in said
    assert "fail storage: " in said
