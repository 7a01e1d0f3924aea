"""A real OpenTelemetry collector that writes what it gets by OTLP to a file."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml

from localcluster import toolchain
from localcluster.ports import Ports
from localcluster.steps import StepRunner

Span = dict[str, Any]


class Collector:
    """A running collector."""

    def __init__(self, port: int, file: Path) -> None:
        self.endpoint, self._file = f"http://127.0.0.1:{port}", file

    def resources(self) -> list[dict[str, Any]]:
        """Return what it has got, by resource."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return [resource for line in lines for resource in json.loads(line)["resourceSpans"]]

    def spans(self) -> list[Span]:
        """Return all spans, in the order in which they came."""
        scopes = [scope for resource in self.resources() for scope in resource["scopeSpans"]]
        return [span for scope in scopes for span in scope["spans"]]

    def traces(self) -> dict[str, list[Span]]:
        """Return the spans by the ids of their traces."""
        found: dict[str, list[Span]] = {}
        for span in self.spans():
            found.setdefault(span["traceId"], []).append(span)
        return found


def attributes(item: dict[str, Any]) -> dict[str, str]:
    """Return the texts in the attributes of a span or a resource."""
    return {pair["key"]: pair["value"]["stringValue"] for pair in item.get("attributes", ())}


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def collecting(folder: Path) -> Iterator[Collector]:
    """Run a collector in ``folder``; it is built when it is first needed."""
    folder.mkdir()
    with closing(StepRunner.silent(folder)) as steps:
        program = toolchain.program("collector", steps)
    port, file = Ports(folder / "ports.json").get("collector"), folder / "traces.json"
    settings = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {"file": {"path": str(file), "flush_interval": "100ms"}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
        },
    }
    (folder / "collector.yaml").write_text(yaml.safe_dump(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--config", f"file:{folder}/collector.yaml"], stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + 60
        while not _listens(port):
            alive = process.poll() is None and time.monotonic() < end
            assert alive, (folder / "log").read_text()
            time.sleep(0.1)
        yield Collector(port, file)
    finally:
        process.terminate()
        process.wait()
