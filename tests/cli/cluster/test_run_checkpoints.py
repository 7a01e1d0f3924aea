"""The checkpoints of a run, from its status and from storage."""

import json
from pathlib import Path

from flashrun.api import names
from tests.cli.shell import Served
from tests.cli.storage import checkpoint, metrics_history, upload_folder


def test_checkpoints_that_status_no_longer_lists_come_from_storage(
    served: Served, tmp_path: Path
) -> None:
    served.push()
    name = served.submit()
    uid = served.get("flashrun", name)["metadata"]["uid"]
    place = names.step_prefix(names.run_prefix(served.namespace, name, uid), 1, 10)
    upload_folder(
        served, place, "checkpoint", {"adapter/adapter_config.json": b"{}"}, tmp_path / "made"
    )
    served.report(name, checkpoints=[checkpoint(name, 20)], checkpointCount=2)

    steps = json.loads(served.flash("checkpoints", name, "-o", "json").stdout)
    assert [(item["step"], item["bytes"]) for item in steps] == [(10, 2), (20, 2048)]


def test_scores_that_status_does_not_have_come_from_the_metrics(
    served: Served, tmp_path: Path
) -> None:
    served.push()
    name = served.submit()
    uid = served.get("flashrun", name)["metadata"]["uid"]
    prefix = names.run_prefix(served.namespace, name, uid)
    place = names.step_prefix(prefix, 1, 10)
    files = {"adapter/adapter_config.json": b"{}"}
    upload_folder(served, place, "checkpoint", files, tmp_path / "made")
    history = metrics_history({10: {"eval/exact": 0.25}}, {20: {"eval/exact": 0.5}})
    served.store.put_bytes(names.metrics_key(prefix), history)
    known = [{**checkpoint(name, 30), "score": "0.75"}, checkpoint(name, 20)]
    evaluation = {"metric": "exact", "best": {"step": 30, "score": "0.75"}}
    served.report(name, checkpoints=known, checkpointCount=3, evaluation=evaluation)

    assert served.flash("checkpoints", name).stdout.splitlines() == [
        f"step 10 {name}/step-10 score 0.25",
        f"step 20 {name}/step-20 score 0.5",
        f"step 30 {name}/step-30 score 0.75",
    ]
    data = json.loads(served.flash("checkpoints", name, "-o", "json").stdout)
    assert [item["score"] for item in data] == ["0.25", "0.5", "0.75"]
