"""A namespace in which a run has ended and left everything that a run leaves."""

import json
from typing import NamedTuple

from flashrun.api import names
from tests.cli.gpu_usage import used
from tests.cli.models.models import write_model
from tests.cli.shell import Served
from tests.cli.storage import checkpoint, commit_adapter, metrics_history, store_spec

LETTERS = "naïve 模型 ✓"
"""Text that neither ASCII nor Windows-1252 has."""


class FinishedRun(NamedTuple):
    """The run, and the namespace in which it was trained."""

    served: Served
    name: str
    other: str
    """A run with another setting, which has not begun."""


def play_finished_run(served: Served) -> FinishedRun:
    """Train a GRPO run of two steps with one checkpoint, two evaluations and a mirrored model."""
    served.push()
    name = served.submit("--set", "algorithm=grpo")
    prefix, store = store_spec(served, name), served.store
    store.put_bytes(names.log_key(prefix, 1), f"{LETTERS}\nstep 2 of 2\n".encode())
    rows = ({step: {"reward": 0.5, "loss": 1.0, "eval/score": 0.5}} for step in range(3))
    store.put_bytes(names.metrics_key(prefix), metrics_history(*rows))
    for step in (1, 2):
        row = {"step": step, "prompt": LETTERS, "completion": LETTERS, "score": 1.0}
        store.put_bytes(names.rollouts_key(prefix, step), f"{json.dumps(row)}\n".encode())
        store.put_bytes(names.eval_rollouts_key(prefix, step), f"{json.dumps(row)}\n".encode())
    commit_adapter(served, name, prefix, 2)
    commit_adapter(served, name, prefix)
    point = {"step": 2, "score": "0.5"}
    gpu_time = used(1, 2, pool="h100")
    [attempt] = gpu_time["attempts"]
    attempt |= {"pod": f"{name}-1", "reason": "Completed", "message": LETTERS}
    served.report(
        name,
        **gpu_time,
        adapter={"ref": name, "bytes": 2},
        checkpoints=[{**checkpoint(name, 2), "score": "0.5"}],
        checkpointCount=1,
        evaluation={"metric": "score", "examples": 1, "best": point, "last": point},
    )
    write_model(served.flash.folder / "model")
    served.give_mirror()
    pushed = served.flash("model", "push", "model", "--id", "streams/small", "--revision", "1")
    assert pushed.returncode == 0, pushed.stderr
    other = served.submit("--set", "algorithm=grpo", "--set", "train.learning_rate=3e-5")
    served.flash.write("grid.toml", 'config = "config.toml"\n[grid]\ntrain.epochs = [1, 2]\n')
    return FinishedRun(served, name, other)
