"""The operator as a process: watches, replicas, signals, crashes and rights."""

import asyncio
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from flashrun.api import names
from flashrun.api.pod import POD_VARIABLE
from flashrun.api.public import FILE, PublicPlatform
from flashrun.api.records import Heartbeat, RunIdentity, StorageAccess
from flashrun.controller.__main__ import _open_storage
from flashrun.controller.poll import HeartbeatPoller
from flashrun.controller.settings import load_settings
from flashrun.store import Store
from flashrun.store_errors import StorageForbidden
from tests.controller.conftest import ROOT, Operators
from tests.controller.other_tenant import stretched
from tests.controller.stage import World, wait_for_object, wait_for_phase
from tests.controller.test_settings import PLATFORM
from tests.trainer import closed_network

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"


async def test_a_run_is_carried_to_its_end_and_the_namespace_told_what_it_may_know(
    operators: Operators, world: World
):
    process = operators.start()
    operators.wait(lambda: operators.leads(process))
    await world.submit(RUN)
    await wait_for_phase(world, RUN, "Starting", stretched(5))
    trainer = await world.trainer(RUN)
    trainer.claim()
    trainer.beat(3)
    await wait_for_phase(world, RUN, "Running", 10)
    trainer.commit(5)
    trainer.publish()
    trainer.conclude(0)
    await trainer.end(0)
    await wait_for_phase(world, RUN, "Succeeded", 10)

    operators.wait(lambda: operators.ask(process, "/healthz") == (200, "ok"))
    assert operators.ask(process, "/readyz")[0] == 200
    ended = 'flashrun_runs_ended_total{phase="Succeeded",reason=""} 1.0'  # counted once written
    operators.wait(lambda: ended in operators.ask(process, "/metrics")[1])

    public = await wait_for_object(world, "ConfigMap", names.PUBLIC_CONFIG_MAP)
    told = PublicPlatform.read(public["data"][FILE])
    assert [pool.name for pool in told.pools] == ["small", "large"]
    secret = names.STORAGE_USER_SECRET
    await wait_for_object(world, "Secret", secret)
    text = await world.cluster.secret_value(world.namespace, secret, "access.json")
    person = Store(StorageAccess.model_validate_json(text))
    assert person.exists(names.result_key(trainer.run.storage_prefix))
    with pytest.raises(StorageForbidden):
        person.put_bytes(names.result_key(trainer.run.storage_prefix), b"{}")

    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, stretched(15)) == 0
    lease = await world.cluster.get("Lease", "default", "flashrun-operator")
    assert lease["spec"]["holderIdentity"] == ""


ASKS = "import socket; socket.create_connection(('192.0.2.7', 443), timeout=5)"


async def test_an_operator_asks_nobody_but_the_api_server_and_storage(
    operators: Operators, world: World, tmp_path: Path
):
    """Both are on this machine here; whoever else is asked is refused and recorded."""
    with closed_network.hooked(tmp_path, world.store.access.endpoint) as network:
        path = f"{network.variables['PYTHONPATH']}:{ROOT / 'operator' / 'src'}"
        environment = {**os.environ, "PYTHONPATH": path}
        words = [sys.executable, "-c", ASKS]
        asked = await asyncio.to_thread(
            subprocess.run, words, env=environment, capture_output=True, check=False
        )
        process = operators.start(PYTHONPATH=path)
        operators.wait(lambda: operators.leads(process))
        await world.submit(RUN)
        await wait_for_phase(world, RUN, "Starting", stretched(5))
        await (await world.trainer(RUN)).succeed()
        await wait_for_phase(world, RUN, "Succeeded", stretched(10))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, stretched(15)) == 0
        tried = network.tried()

    assert asked.returncode == 1
    assert tried == {"address 192.0.2.7:443"}  # what the hooks saw is that, and nothing more


async def test_of_two_replicas_one_acts_and_the_other_takes_over(
    operators: Operators, world: World
):
    first = operators.start()
    operators.wait(lambda: operators.leads(first))
    second = operators.start()
    operators.wait(lambda: operators.ask(second, "/readyz")[0] == 200)
    assert operators.ask(second, "/healthz")[0] == 200
    await asyncio.sleep(3)
    assert not operators.leads(second)

    first.send_signal(signal.SIGSTOP)
    operators.wait(lambda: operators.leads(second), stretched(10))
    await world.submit(RUN)
    await wait_for_phase(world, RUN, "Starting")
    first.send_signal(signal.SIGCONT)
    assert await asyncio.to_thread(first.wait, 20) == 1
    assert await world.jobs(RUN) == [0]

    third = operators.start()
    operators.wait(lambda: operators.ask(third, "/readyz")[0] == 200)
    second.send_signal(signal.SIGTERM)
    # A lease that is not given back is taken after a longer time.
    operators.wait(lambda: operators.leads(third), stretched(5))


async def test_a_single_replica_that_is_killed_goes_on_with_its_lease(
    operators: Operators, world: World
):
    """The kubelet starts its container again, in the same pod."""
    first = operators.start(**{POD_VARIABLE: "operator-1"})
    operators.wait(lambda: operators.leads(first))
    before = await world.cluster.get("Lease", "default", "flashrun-operator")
    assert before["spec"]["holderIdentity"] == "operator-1"
    first.kill()
    first.wait()
    again = operators.start(**{POD_VARIABLE: "operator-1"})
    operators.wait(lambda: operators.leads(again))
    after = await world.cluster.get("Lease", "default", "flashrun-operator")
    assert after["spec"]["leaseTransitions"] == before["spec"]["leaseTransitions"]


async def test_an_operator_killed_at_any_time_leaves_work_that_another_finishes(
    operators: Operators, world: World
):
    runs = [f"flash-{number}-crash" for number in range(6)]
    for number, name in enumerate(runs):
        process = operators.start()
        operators.wait(lambda process=process: operators.leads(process), 60)
        await world.submit(name)
        await asyncio.sleep(0.02 * 2**number)  # from before the first write to after the last
        process.kill()
        process.wait()
        operators.release()
    operators.start()
    for name in runs:
        await wait_for_phase(world, name, "Starting", 60)
        assert await world.jobs(name) == [0]
        trainer = await world.trainer(name)
        await trainer.succeed()
    for name in runs:
        await wait_for_phase(world, name, "Succeeded")
        assert await world.jobs(name) == [0]


async def test_work_that_piled_up_while_nobody_acted_is_done(operators: Operators, world: World):
    names_ = [f"flash-{number}-piled" for number in range(20)]
    for name in names_:
        await world.submit(name)
    operators.start()
    for name in names_:
        await wait_for_phase(world, name, "Starting", 60)


async def test_an_operator_without_its_store_says_so_and_waits(operators: Operators, world: World):
    operators.world.platform = world.platform.model_copy(
        update={
            "storage": world.platform.storage.model_copy(update={"endpoint": "http://127.0.0.1:1"})
        }
    )
    process = operators.start()
    operators.wait(lambda: "the connection was refused" in operators.logs(), 60)
    assert process.poll() is None
    assert operators.ask(process, "/healthz")[0] == 200


async def test_settings_that_are_wrong_are_named(operators: Operators, world: World):
    operators.world.platform = world.platform.model_copy(update={"pools": ()})
    process = operators.start()
    assert await asyncio.to_thread(process.wait, stretched(20)) == 1
    assert "pools" in operators.logs()
    assert "Traceback" not in operators.logs()


async def test_a_new_process_knows_every_heartbeat_before_it_judges_a_run(
    store: Store, tmp_path: Path
):
    """A run that seems silent for hours would be ended, while its trainer is at work."""
    identity = RunIdentity(namespace="team", name="flash-1-aa", uid="uid")
    beat = Heartbeat(
        run=identity, attempt=1, pod="p", activity="Training", updated=datetime.now(UTC)
    )
    store.put_json(names.heartbeat_key("uid"), beat)
    access = store.access
    place = {"endpoint": access.endpoint, "bucket": access.bucket}
    settings = tmp_path / "platform.yaml"
    settings.write_text(yaml.safe_dump({**PLATFORM, "storage": place}))
    (tmp_path / "accessKey").write_text(access.access_key)
    (tmp_path / "secretKey").write_text(access.secret_key)

    heartbeats = HeartbeatPoller(await _open_storage(load_settings(settings, tmp_path)))
    assert heartbeats.problem
    heartbeats.poll()
    assert heartbeats.problem == ""
    assert heartbeats.newest("uid") == beat
