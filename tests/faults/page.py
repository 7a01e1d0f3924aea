"""Prints docs/reliability.md from the results of the table of faults.

python -m tests.faults.page RESULTS > docs/reliability.md
"""

import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from localcluster import toolchain
from tests.faults import results
from tests.faults.results import Result
from tests.faults.table import ROWS

HERE = Path(__file__).parent
NOT_TRIED = "not tried in this measurement"
HEAD = """\
# Reliability

What the operator does when something goes wrong: measured, fault by fault. `make test-faults` runs
the table of `tests/faults` and prints this page; change neither figures nor rows here.

## How it is measured

A real API server, etcd, controller manager and S3 server (MinIO) run as processes; the tests play
kubelet and trainer. Between the operator and each of its servers stands a proxy that lets requests
and watches fail. In each row two runs are submitted during the fault and brought to `Starting`;
they end during a second one and are brought to `Succeeded`. Faults of a minute happen once, and one
run is enough for a crash. Then this must hold, or the outcome says what did not:

- every run has one Job, one pod, one Secret and one ConfigMap, and `Succeeded` stands in its status
  and in storage;
- all was well within 60 seconds after the fault, and within 35 seconds after the loss of an event;
- no replica wrote anything, to the API server or to storage, that came {hold} seconds or more after
  the last renewal of its lease (it stops after 5.5, the way to the proxy may take a second, and
  another replica begins after 7);
- the operator's process did not end, unless it was killed, or another replica had the lease.

Seconds count from the end of the fault until all was well, of two windows the longer one; after the
loss of an event from the loss, 3 seconds of which are the fault; for a crash from the crash, and
for a replica that acts until the other one did. Writes are those of the operator for each run, the
lease apart: to the API server and to storage.
"""
TAIL = """\
## An hour of faults

`python -m bench.operator_soak` submits one run a second for an hour, lets faults of the table
happen at random, and prints every minute the operator's memory and descriptors.

{soak}
"""


def main(path: Path, notes: Path | None) -> None:
    """Print the page."""
    rows = _in_order(results.read(path))
    print(HEAD.format(hold="6.5", lost="3"))
    tried = [row for row in rows if row.outcome != NOT_TRIED]
    failed = [row for row in tried if row.outcome != Result("", "").outcome]
    versions = (
        f"Kubernetes {toolchain.KUBERNETES}, MinIO {toolchain.PROGRAMS['minio'].version}, "
        f"Python {platform.python_version()}, kopf {version('kopf')}, aiohttp {version('aiohttp')}"
    )
    load = os.getloadavg()[2]
    print(
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {len(tried)} of {len(rows)} "
        f"rows in {sum(row.took for row in rows) / 60:.0f} minutes, {len(failed)} of them not as "
        f"they have to be; {versions}; {os.cpu_count()} cores with other work beside it (load "
        f"{load:.1f} over the last 15 minutes), so that seconds are rather too long than too "
        "short.\n"
    )
    if notes is not None:
        print(notes.read_text())
    for where in dict.fromkeys(row.where for row in rows):
        print(f"## Faults: {where}\n")
        print("| fault | outcome | seconds | limit | writes per run |\n|---|---|---|---|---|")
        for row in rows:
            if row.where == where:
                print(_line(row))
        print()
    print(TAIL.format(soak=(HERE / "soak.md").read_text().strip()), end="")


_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REQUEST = re.compile(r"(?P<verb>POST|PUT|PATCH|DELETE) (?P<path>/\S+)")


def _what_was_written(request: re.Match[str]) -> str:
    """Return a request without what is different in every run of the tests."""
    verb, parts = request["verb"], request["path"].strip("/").split("/")
    if parts[0] in ("api", "apis"):
        parts = parts[parts.index("namespaces") + 2 :]
        return f"`{verb} {'/'.join((parts[0], *parts[2:]))}`"
    file = _UID.sub("…", parts[-1]) if "." in parts[-1] else ""
    return f"`{verb} {parts[1]}/…/{file}` in storage"


def _in_order(found: list[Result]) -> list[Result]:
    """Return the results in the order of the table, each once; rows without one say so."""
    newest = {(row.where, row.name): row for row in found}
    table = [
        newest.pop((row.where, row.name), Result(row.where, row.name, NOT_TRIED, limit=row.limit))
        for row in ROWS
    ]
    return [*table, *newest.values()]


def _line(row: Result) -> str:
    seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
    writes = "" if row.writes is None else f"{row.writes:.1f}"
    name = _REQUEST.sub(_what_was_written, row.name)
    return f"| {name} | {row.outcome} | {seconds} | {row.limit:.0f} | {writes} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
