"""A trainer that the test plays: it leaves in storage and in the status what a run leaves."""

from flashrun.api import names
from tests.cli.shell import Served
from tests.cli.storage import checkpoint, metrics_history, store_spec, upload_folder

HISTORY = (
    {0: {"eval/score": 0.25}}, {5: {"loss": 2.0}}, {5: {"eval/score": 0.75}},
    {10: {"loss": 1.0}}, {10: {"eval/score": 0.5}},
)  # fmt: skip
"""Rows of metrics; the checkpoint of step 5 is the best one."""


def train(served: Served, run: str) -> None:
    """Train half of the run."""
    progress = {"step": 5, "totalSteps": 10, "percent": 50, "metrics": {"loss": "2.0"}}
    served.report(run, phase="Running", progress=progress)


def succeed(served: Served, run: str) -> None:
    """Write metrics, two checkpoints and the adapter, and end the run."""
    prefix = store_spec(served, run)
    served.store.put_bytes(names.metrics_key(prefix), metrics_history(*HISTORY))
    made = served.flash.folder / f"made-{run}"
    for step in (5, 10):
        files = {"adapter/adapter_config.json": b"%d" % step}
        place = names.step_prefix(prefix, 1, step)
        upload_folder(served, place, "checkpoint", files, made / str(step))
    files = {f"{names.adapter_folder(1)}/adapter_config.json": b"final"}
    upload_folder(served, names.adapter_prefix(prefix), "adapter", files, made / "adapter")
    scores = {5: "0.75", 10: "0.5"}
    served.report(
        run,
        phase="Succeeded",
        progress={"step": 10, "totalSteps": 10, "percent": 100, "metrics": {"loss": "1.0"}},
        adapter={"ref": run, "bytes": 5},
        checkpoints=[{**checkpoint(run, step), "score": scores[step]} for step in (10, 5)],
        checkpointCount=2,
        evaluation={"metric": "score", "best": {"step": 5, "score": "0.75"}},
    )
