"""Submitting a run: what the command prints about it."""

import json

from flashrun.api import names
from tests.cli.shell import WARM_START, Served


def test_without_storage_the_operator_decides(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", WARM_START)
    served.kubectl("delete", "secret", names.STORAGE_USER_SECRET)
    words = ("--set", "train.init_from_adapter=flash-0-b")
    done = served.flash("train", "config.toml", "--background", *words)

    assert done.returncode == 0
    assert "note: storage was not checked from here" in done.stderr


def test_in_the_background_programs_get_the_whole_object_and_people_its_place(
    served: Served,
) -> None:
    served.push()
    done = served.flash("train", "config.toml", "--background", "-o", "json")

    name = json.loads(done.stdout)["metadata"]["name"]
    assert done.stderr == f"submitted {served.namespace}/{name}\n"
    assert served.get("flashrun", name)["spec"]["algorithm"] == "sft"
