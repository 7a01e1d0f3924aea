"""``flash env list``: every environment, with its newest version."""

import json
from datetime import UTC, datetime, timedelta

from flashrun.api.records import EnvironmentPointer
from flashrun.cli.commands.env import list as command
from tests.cli.shell import Served
from tests.cli.storage import newest_digest

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_a_row_has_id_digest_size_and_age() -> None:
    pushed = NOW - timedelta(hours=3)
    version = EnvironmentPointer(digest="0123456789ab" + "c" * 52, size=2048, pushed=pushed)
    table = command._table({"org/sums": version}, NOW)
    [row] = table.rows
    assert [cell.text for cell in row[:2]] == ["org/sums", "0123456789ab"]
    assert row[3].text == "3h0m"


def test_every_environment_is_listed_in_each_format(served: Served) -> None:
    served.push("org/one")
    served.push("org/two")

    assert served.flash("env", "list", "-o", "name").stdout.split() == ["org/one", "org/two"]
    listed = json.loads(served.flash("env", "list", "-o", "json").stdout)
    assert [(item["id"], item["digest"]) for item in listed] == [
        (name, newest_digest(served, name)) for name in ("org/one", "org/two")
    ]
    rows = served.flash("env", "list").stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["org/one", "org/two"]
