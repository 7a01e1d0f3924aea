"""An export to the model hub, with the hub's own library and a hub of ours."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


def answer(path: str, body: list[Any], address: str) -> Any:
    """What the hub answers to a POST; small files are sent in the commit itself."""
    if path.endswith("/repos/create"):
        return {"url": f"{address}/org/name"}
    if "/preupload/" in path:
        modes = {"uploadMode": "regular", "shouldIgnore": False}
        return {"files": [{"path": file["path"], **modes} for file in body[0]["files"]]}
    if "/commit/" in path:
        url = f"{address}/org/name/commit/1"
        return {"success": True, "commitOid": "1" * 40, "commitUrl": url}
    return {"errors": [], "warnings": []}


def test_every_file_is_committed_to_a_private_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from flashrun.cli.models.export_target import HubTarget, deliver

    folder = tmp_path / "made"
    folder.mkdir()
    for name in ("adapter_config.json", "SHA256SUMS", "README.md"):
        (folder / name).write_text(f"{name}\n")
    seen: dict[str, list[Any]] = {}

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            path = self.path.partition("?")[0]
            seen[path] = [json.loads(line) for line in body.splitlines()]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            address = f"http://{self.headers['Host']}"
            self.wfile.write(json.dumps(answer(path, seen[path], address)).encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_example")
        deliver(folder, HubTarget("org/name"))
        server.shutdown()

    assert seen["/api/repos/create"][0]["visibility"] == "private"
    [commit] = [lines for path, lines in seen.items() if "/commit/" in path]
    files = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"]).decode()
        for line in commit
        if line["key"] == "file"
    }
    assert files == {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("name", "usable"),
    [("org/name", True), ("_org/na_-me.x", True), ("o/0", True), ("org/a..b", False),
     ("a--b/name", False), ("org/name.", False), ("org/name.git", False), ("org/na me", False),
     (f"org/{'a' * 97}", False)],
)  # fmt: skip
def test_names_of_repositories_are_those_that_the_library_takes(name: str, usable: bool) -> None:
    from flashrun.cli.models.export_target import HubTarget, parse_target
    from flashrun.cli.output.failure import UsageFailure

    if usable:
        assert parse_target(f"hf:{name}") == HubTarget(name)
    else:
        with pytest.raises(UsageFailure, match="names no repository of the hub"):
            parse_target(f"hf:{name}")
