"""``flash status``: where a run is, for people and for programs."""

import json
from typing import Any

import pytest
import yaml

from tests.cli.shell import Served


def test_status_says_why_a_run_waits(served: Served) -> None:
    served.push()
    name = served.submit()
    pending = {"reason": "NoPoolFits", "message": "No pool has 80 GiB."}
    served.report(name, phase="Pending", pending=pending)

    lines = served.flash("status", name).stdout.splitlines()

    assert "Phase:       Pending" in lines
    assert "Waiting:     No pool has 80 GiB. (NoPoolFits)" in lines
    assert served.flash("status", name, "-o", "name").stdout == f"{name}\n"


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_status_gives_programs_the_whole_object(served: Served, form: str, read: Any) -> None:
    served.push()
    name = served.submit()

    assert read(served.flash("status", name, "-o", form).stdout) == served.get("flashrun", name)
