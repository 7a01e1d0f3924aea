"""What a real OpenTelemetry collector gets of a real operator, and what is loaded without one."""

import asyncio
import hashlib
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit, Termination
from flashrun.api.reasons import Phase
from flashrun.api.records import MetricsRow
from flashrun.api.resource import FlashRun
from flashrun.controller.__main__ import FLUSH_SECONDS
from tests.collector import Collector, Span, attributes, collecting
from tests.controller.conftest import Operators
from tests.controller.stage import Trainer, World, now, wait_for_phase

RUN, FAILED = "flash-1-0a1b2c3d", "flash-2-0a1b2c3d"


def test_without_an_endpoint_no_library_of_traces_is_loaded() -> None:
    code = (
        "import sys, flashrun.controller.__main__ as main\n"
        "loaded = [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def seconds(span: Span) -> float:
    return (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e9


def write_row(trainer: Trainer) -> None:
    """Upload the first row of metrics, as the trainer does some time after its heartbeat."""
    values = {"startup/imports": 0.25, "startup/loading": 0.5, "startup/first_step": 0.25}
    row = MetricsRow(step=1, attempt=1, time=now() + timedelta(seconds=1), values=values)
    key = names.metrics_part_key(trainer.run.storage_prefix, 1, 0, 0)
    trainer.store.put_bytes(key, row.model_dump_json().encode() + b"\n")


async def trace_of(collector: Collector, run: FlashRun, seconds: float = 40) -> list[Span]:
    """Return the spans of a run once its trace is there."""
    for _ in range(int(seconds * 5)):
        for spans in collector.traces().values():
            if any(attributes(span).get("flashrun.run.uid") == run.uid for span in spans):
                return spans
        await asyncio.sleep(0.2)
    raise AssertionError(f"no trace of {run.name} has come: {collector.spans()}")


@pytest.mark.api
async def test_a_real_collector_gets_one_trace_of_each_run_of_a_real_operator(
    operators: Operators, world: World, tmp_path: Path
):
    with collecting(tmp_path / "collector") as collector:
        process = operators.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
        operators.wait(lambda: operators.leads(process))
        await world.submit(RUN)
        await wait_for_phase(world, RUN, "Starting")
        trainer = await world.trainer(RUN)
        trainer.claim()
        trainer.beat(1)
        operators.wait(lambda: f'run="{RUN}"' in operators.ask(process, "/metrics")[1])
        write_row(trainer)
        spans = await trace_of(collector, trainer.run)
        uid = trainer.run.uid
        assert spans[0]["traceId"] == hashlib.sha256(uid.encode()).hexdigest()[:32]
        [whole] = [span for span in spans if not span.get("parentSpanId")]
        parents = {span["parentSpanId"] for span in spans if span is not whole}
        assert parents == {whole["spanId"]}
        assert attributes(whole) == {
            "k8s.namespace.name": world.namespace,
            "flashrun.run.name": RUN,
            "flashrun.run.uid": uid,
            "flashrun.run.model": trainer.run.spec.model,
            "flashrun.run.phase": "Running",
        }
        stages = {span["name"]: seconds(span) for span in spans}
        assert stages.keys() >= {
            "submitted", "queued", "image", "imports", "loading", "first step"
        }  # fmt: skip
        assert all(0 <= length <= seconds(whole) for length in stages.values())
        [service] = {attributes(item["resource"])["service.name"] for item in collector.resources()}
        assert service == "flashrun-operator"

        # The next run fails before its first step; its operator ends and another one goes on.
        await world.submit(FAILED)
        await wait_for_phase(world, FAILED, "Starting")
        failing = await world.trainer(FAILED)
        failing.claim()
        words = Termination(reason="RewardFailed", message="words of a user", hint="of another")
        failing.conclude(Exit.ENVIRONMENT, words)
        await failing.end(Exit.ENVIRONMENT, message=words.model_dump_json())
        await wait_for_phase(world, FAILED, Phase.FAILED, 60)
        ended = 'flashrun_runs_ended_total{phase="Failed"'
        operators.wait(lambda: ended in operators.ask(process, "/metrics")[1])
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        spans = await trace_of(collector, failing.run)
        [whole] = [span for span in spans if not span.get("parentSpanId")]
        assert whole["status"] == {"message": "RewardFailed", "code": 2}
        assert "words of a user" not in str(collector.resources())

        again = operators.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
        operators.wait(lambda: operators.leads(again))
        trainer.beat(4)
        operators.wait(lambda: f'run="{RUN}"}} 4.0' in operators.ask(again, "/metrics")[1])
        again.send_signal(signal.SIGTERM)
        again.wait(30)
        await asyncio.sleep(1)  # the collector writes what it has got soon after
        assert len(collector.traces()) == 2
        assert len(collector.spans()) == len({span["spanId"] for span in collector.spans()})


@pytest.mark.api
async def test_neither_a_pass_nor_the_end_waits_for_a_collector_that_never_answers(
    operators: Operators, world: World
):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = operators.start(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
        operators.wait(lambda: operators.leads(process))
        await world.submit(RUN)
        await wait_for_phase(world, RUN, "Starting")
        trainer = await world.trainer(RUN)
        trainer.claim()
        trainer.conclude(Exit.ENVIRONMENT, Termination(reason="RewardFailed", message="m"))
        await trainer.end(Exit.ENVIRONMENT)
        await wait_for_phase(world, RUN, Phase.FAILED, 30)
        ended = 'flashrun_runs_ended_total{phase="Failed"'
        operators.wait(lambda: ended in operators.ask(process, "/metrics")[1])
        silent.settimeout(60)
        with silent.accept()[0]:  # the trace is on its way
            process.send_signal(signal.SIGTERM)
            assert process.wait(FLUSH_SECONDS + 12) == 0
