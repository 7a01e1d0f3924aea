"""Debian's Prometheus: a server that scrapes a program of a test, and promtool."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from localcluster.ports import Ports


def promtool(*words: str | Path, stdin: str | None = None) -> str:
    """Run promtool; raises ``AssertionError`` with its words when it finds something."""
    done = subprocess.run(
        ["promtool", *words], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """A running server; it scrapes every half second."""

    def __init__(self, address: str) -> None:
        self._address = address

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an expression, as of now."""
        return self._get("query", {"query": expression})

    def has_points(self, expression: str, seconds: int = 120) -> bool:
        """Return whether a graph of the last ``seconds`` would show a number anywhere."""
        now = time.time()
        asked = {"query": expression, "start": now - seconds, "end": now, "step": 1}
        series = self._get("query_range", asked)
        return any(point[1] != "NaN" for one in series for point in one["values"])

    def value(self, expression: str) -> float | None:
        """Return the value of an expression with one sample; None without one."""
        samples = self.query(expression)
        return float(samples[0]["value"][1]) if samples else None

    def _get(self, path: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
        words = urllib.parse.urlencode(asked)
        with urllib.request.urlopen(f"{self._address}/api/v1/{path}?{words}", timeout=10) as answer:
            return list(json.load(answer)["data"]["result"])

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._address}/-/ready", timeout=2):
                return True
        except OSError:
            return False


@contextmanager
def scraping(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run a server in ``folder`` that scrapes ``target``, as ``host:port``."""
    job = {"job_name": "flashrun", "honor_labels": True, "static_configs": [{"targets": [target]}]}
    settings = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
        "scrape_configs": [job],
    }
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    port = Ports(folder / "ports.json").get("prometheus")
    words = ["--config.file", "prometheus.yml", "--storage.tsdb.path", "data"]
    words += ["--web.listen-address", f"127.0.0.1:{port}", "--log.level", "warn"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *words], cwd=folder, stdout=log, stderr=log)
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        end = time.monotonic() + 60
        while not server.is_ready():
            alive = process.poll() is None and time.monotonic() < end
            assert alive, (folder / "log").read_text()
            time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()
