"""What a real Prometheus gets from a real operator: every panel of the dashboard, and the logs."""

import asyncio
import json
import re
import time
from datetime import timedelta
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.records import (
    STEP_SECONDS,
    CheckpointEvaluation,
    Evaluation,
    EvaluationPoint,
    Progress,
)
from tests.controller.conftest import ROOT, Operators
from tests.controller.stage import Trainer, World, wait_for_phase
from tests.controller.storage_gate import storage_gate
from tests.prometheus import Prometheus, scraping

pytestmark = [pytest.mark.api, pytest.mark.usefixtures("prometheus")]
RUN, OTHER = "flash-1-0a1b2c3d", "flash-2-0a1b2c3d"
SCORED = EvaluationPoint(step=5, score=0.625)


def panels() -> list[tuple[str, str]]:
    """Title and query of every target of the dashboard, as Grafana would send it."""
    dashboard = json.loads((ROOT / "charts/flashrun/files/dashboard.json").read_text())
    variables = {"$namespace": ".*", "$__rate_interval": "2m", "$__range": "10m"}
    found = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"]
            for name, value in variables.items():
                query = query.replace(name, value)
            assert "$" not in query, query
            found.append((f"{panel['title']}: {query}", query))
    return found


def beat(trainer: Trainer, step: int, commits: int, **changes: object) -> None:
    metrics = {"loss": 0.5, STEP_SECONDS: 2.5}
    progress = Progress(step=step, total_steps=10, metrics=metrics)
    trainer.beat(step, commits, progress=progress, **changes)


async def seen(server: Prometheus, query: str, seconds: float = 40) -> float:
    """Return the value of a query once there is one above zero."""
    end = time.monotonic() + seconds
    while not (value := server.value(query)):
        assert time.monotonic() < end, query
        await asyncio.sleep(0.2)
    return value


async def test_every_panel_of_the_dashboard_shows_something_of_a_real_operator(
    operators: Operators, world: World, tmp_path: Path
):
    place = world.store.access
    with storage_gate(place.endpoint) as gate:
        storage = world.platform.storage.replace(endpoint=gate.endpoint)
        operators.world.platform = world.platform.replace(storage=storage)
        process = operators.start()
        operators.wait(lambda: operators.leads(process))
        address = f"127.0.0.1:{operators.ports[process.pid]}"
        with scraping(tmp_path / "prometheus", address) as server:
            await seen(server, "up")  # a rate needs a value from before
            await train_one(server, world)
            gate.sts = False
            # This run gets no credentials, and its passes fail.
            await world.submit(OTHER)
            await seen(server, "sum(flashrun_reconcile_errors_total)")
            await seen(server, "sum(flashrun_storage_errors_total)")
            gate.sts = True
            await wait_for_phase(world, OTHER, "Starting", 60)

            missing = {title for title, query in panels() if not server.has_points(query)}
            assert missing == set()
            labels = f'{{namespace="{world.namespace}", pool="small"}}'
            assert await seen(server, f"flashrun_gpu_seconds_total{labels}") >= 1
            assert await seen(server, f"flashrun_run_queue_duration_seconds_count{labels}") == 1
            assert await seen(server, f"flashrun_run_first_step_duration_seconds_count{labels}")
            steps = f'{{namespace="{world.namespace}"}}'
            total = await seen(server, f"flashrun_step_duration_seconds_sum{steps}")
            assert total == 2.5 * await seen(server, f"flashrun_step_duration_seconds_count{steps}")
            phases = f'flashrun_runs{{namespace="{world.namespace}", phase="Succeeded"}}'
            assert await seen(server, phases) == 1

    lines = [json.loads(line) for line in operators.logs().splitlines()]
    uid = (await world.run(OTHER)).uid
    failed = [line for line in lines if line.get("run") == f"{world.namespace}/{OTHER}"]
    assert failed
    assert {line["uid"] for line in failed if line["logger"].endswith("reconcile")} == {uid}


async def train_one(server: Prometheus, world: World) -> None:
    """Let a run train to its end, with a refused heartbeat on its way, under the eyes of all."""
    await world.submit(RUN)
    await wait_for_phase(world, RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.claim()
    beat(trainer, 3, 0)
    run = f'{{namespace="{world.namespace}", run="{RUN}"}}'
    assert await seen(server, f"flashrun_run_step{run}") == 3
    evaluation = Evaluation(metric="score", last=SCORED, examples=8)
    trainer.commit(5, CheckpointEvaluation(metric="score", score=SCORED.score))
    beat(trainer, 6, 1, evaluation=evaluation)
    assert await seen(server, f"flashrun_run_evaluation_score{run}") == SCORED.score
    assert await seen(server, f"flashrun_run_step{run}") == 6
    age = await seen(server, f"time() - flashrun_run_checkpoint_timestamp_seconds{run}")
    assert 0 <= age < 60
    assert await seen(server, f"flashrun_run_checkpoint_bytes{run}") > 0
    world.store.put_bytes(names.heartbeat_key(trainer.run.uid), b"{}")
    await seen(server, 'flashrun_records_refused_total{record="Heartbeat"}')
    trainer.publish()
    trainer.conclude(0, evaluation=evaluation)
    await trainer.end(0, worked=timedelta(minutes=1))
    await wait_for_phase(world, RUN, "Succeeded")


async def test_no_counter_and_no_histogram_of_a_real_operator_names_a_run(
    operators: Operators, world: World
):
    process = operators.start()
    operators.wait(lambda: operators.leads(process))
    await world.submit(RUN)
    await wait_for_phase(world, RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.claim()
    beat(trainer, 3, 0)
    operators.wait(lambda: RUN in operators.ask(process, "/metrics")[1])
    text = operators.ask(process, "/metrics")[1]
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    naming = {line.partition("{")[0] for line in text.splitlines() if RUN in line}
    assert naming
    assert {kinds[name] for name in naming} == {"gauge"}
