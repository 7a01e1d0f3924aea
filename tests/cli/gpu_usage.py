"""Runs that have used GPUs, and what ``flash cost`` answers about them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from flashrun.api import names
from flashrun.api.run_record import RunRecord
from flashrun.api.times import format_time
from tests.cli.shell import Served


def used(hours: float, ago: float, pool: str = "large", **status: Any) -> dict[str, Any]:
    """The status of a run with one attempt of so many hours, which began hours ago."""
    begin = datetime.now(UTC) - timedelta(hours=ago)
    end = begin + timedelta(hours=hours)
    attempt = {
        "number": 1, "pod": "p", "pool": pool, "heldFrom": format_time(begin),
        "end": format_time(end),
    }  # fmt: skip
    seconds = round(hours * 3600)
    return {"phase": "Succeeded", "startTime": format_time(begin), "attempts": [attempt],
            "gpuSeconds": seconds, "completionTime": format_time(end), **status}  # fmt: skip


def keep_copy(served: Served, name: str, status: dict[str, Any], user: str = "") -> None:
    """Store the copy of a run, as the operator does, and delete its FlashRun."""
    manifest = served.get("flashrun", name)
    run = {"namespace": served.namespace, "name": name, "uid": manifest["metadata"]["uid"]}
    record = RunRecord(run=run, spec=manifest["spec"], status=status, user=user)
    prefix = names.run_prefix(served.namespace, name, run["uid"])
    served.store.put_json(names.run_record_key(prefix), record)
    served.kubectl("delete", "flashrun", name)


def answer(served: Served, *words: str) -> list[dict[str, Any]]:
    done = served.flash("cost", *words, "-o", "json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows
