"""``flash model list``: what is in the mirror, and what runs can use of it."""

import json

import pytest

from flashrun.api.catalog import Model, Source
from tests.cli.models.models import write_model
from tests.cli.shell import Served

pytestmark = pytest.mark.api


def test_the_list_says_what_is_complete_and_what_the_catalog_names(served: Served) -> None:
    served.give_mirror()
    write_model(served.flash.folder / "model")
    for revision in ("1", "2"):
        served.flash("model", "push", "model", "--id", "listed/small", "--revision", revision)
    served.store.put_bytes("models/listed/half/1/config.json", b"{}")
    entry = Model(id="listed/small", parameters=1, source=Source.MIRROR, revision="2")
    served.publish(models_namespace=served.namespace, models=(entry,))
    listed = json.loads(served.flash("model", "list", "-o", "json").stdout)

    assert [
        (item["revision"], item["complete"], item["served"])
        for item in listed
        if item["id"].startswith("listed/")
    ] == [("1", False, False), ("1", True, False), ("2", True, True)]
    assert "listed/half\t1\t2 B\tnot complete\tno" in served.flash("model", "list").stdout
    assert "listed/small@2\n" in served.flash("model", "list", "-o", "name").stdout


def test_where_the_mirror_is_served_the_newest_revision_is_and_a_foreign_one_says_why_not(
    served: Served,
) -> None:
    served.give_mirror()
    write_model(served.flash.folder / "model")
    for revision in ("1", "2"):
        served.flash("model", "push", "model", "--id", "fresh/small", "--revision", revision)
    served.store.put_bytes("models/fresh/broken/1/manifest.json", b"{}")
    served.publish(models_namespace=served.namespace, mirrored_ids=())
    listed = json.loads(served.flash("model", "list", "-o", "json").stdout)
    fresh = {(item["id"], item["revision"]): item for item in listed}

    assert [fresh["fresh/small", revision]["served"] for revision in ("1", "2")] == [False, True]
    assert not fresh["fresh/broken", "1"]["served"]
    assert "its manifest cannot be read" in fresh["fresh/broken", "1"]["refused"]
    notes = served.flash("model", "list").stderr
    assert "note: fresh/broken@1 is not served: its manifest cannot be read" in notes
