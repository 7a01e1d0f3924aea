"""Nothing calls out: a whole attempt asks nobody but storage, although nobody would answer.

An attempt is every container of a pod in turn, with the variables that the operator gives to each.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from flashrun.api.pod import MODEL_CONTAINER, NO_TELEMETRY, PACKAGES_CONTAINER, TRAIN_COMMAND
from flashrun.api.records import StorageAccess
from tests.trainer import closed_network
from tests.trainer.closed_network import ClosedNetwork
from tests.trainer.pods import TrainerPod, Workshop, evaluated, resolved, rows, sums

pytestmark = [pytest.mark.trainer, pytest.mark.network, pytest.mark.filterwarnings("default")]

ALLOWED = closed_network.has_namespaces()
KINDS = {"namespace": closed_network.namespace, "hooks": closed_network.hooked}
OTHERS = "name model-hub.example", "address 192.0.2.7:443"
ASKS = """
import contextlib, socket
with contextlib.suppress(OSError):
    socket.getaddrinfo("model-hub.example", 443)
with contextlib.suppress(OSError):
    socket.create_connection(("192.0.2.7", 443), timeout=5)
"""
REPORTS = """
from huggingface_hub.utils import _telemetry
_telemetry.send_telemetry(topic="trl/SFTTrainer", library_name="trl", library_version="1")
_telemetry._TELEMETRY_QUEUE.join()
"""
"""What a trainer of TRL does in a thread when it is made, and a wait for that thread."""


@pytest.fixture
def network(access: StorageAccess, tmp_path: Path) -> Iterator[ClosedNetwork]:
    """The best network that this machine allows."""
    with KINDS["namespace" if ALLOWED else "hooks"](tmp_path, access.endpoint) as made:
        yield made


@pytest.fixture(params=KINDS)
def any_network(
    request: pytest.FixtureRequest, access: StorageAccess, tmp_path: Path
) -> Iterator[ClosedNetwork]:
    """Each kind of network that this machine allows."""
    if request.param == "namespace" and not ALLOWED:
        pytest.skip("this process may not make a network namespace")
    with KINDS[request.param](tmp_path, access.endpoint) as made:
        yield made


def shell(**more: str) -> dict[str, str]:
    """Variables without what would change whom libraries ask: proxies, switches, caches."""
    prefixes = ("HF_", "WANDB_", "DO_NOT_TRACK", "DISABLE_TELEMETRY", "VLLM_", "CI")
    return {
        **{name: "" for name in os.environ
           if name.startswith(prefixes) or name.lower().endswith("_proxy")},
        **more,
    }  # fmt: skip


def run(network: ClosedNetwork, *words: str, **more: str) -> None:
    variables = {**os.environ, **shell(**more), **network.variables}
    subprocess.run([*network.prefix, *words], env=variables, check=True, timeout=60)


def test_a_name_and_an_address_are_recorded(any_network: ClosedNetwork) -> None:
    run(any_network, sys.executable, "-c", ASKS)

    assert any_network.tried() == set(OTHERS)


def test_another_host_at_the_port_of_storage_is_recorded(
    any_network: ClosedNetwork, access: StorageAccess
) -> None:
    port = access.endpoint.rpartition(":")[2]
    run(any_network, sys.executable, "-c", ASKS.replace("443", port))

    assert f"address 192.0.2.7:{port}" in any_network.tried()


def test_what_does_not_use_python_is_recorded_in_a_namespace_only(
    any_network: ClosedNetwork,
) -> None:
    run(any_network, "bash", "-c", "exec 3<>/dev/tcp/192.0.2.7/443 || true")

    assert any_network.tried() == ({OTHERS[1]} if any_network.sees_everything else set())


@pytest.mark.parametrize(
    ("switches", "asked"),
    [({}, True), (NO_TELEMETRY, False), *(({name: "1"}, False) for name in list(NO_TELEMETRY)[:2])],
)
def test_the_report_of_trl_is_switched_off(
    network: ClosedNetwork, switches: Mapping[str, str], asked: bool
) -> None:
    run(network, sys.executable, "-c", REPORTS, **switches)

    assert ("name huggingface.co" in network.tried()) is asked


@pytest.mark.parametrize("algorithm", ["sft", "grpo"])
def test_an_attempt_asks_nobody_but_storage(
    workshop: Workshop, network: ClosedNetwork, tmp_path: Path, algorithm: str
) -> None:
    size = {"max_examples": 8} if algorithm == "sft" else {"steps": 1}
    digest = workshop.publish(sums(eval=rows(("1 + 1", "2"))))
    held_out = evaluated(max_examples=1)
    environment = {"digest": digest}
    settings = resolved(algorithm, environment=environment, eval=held_out, **size)
    pod = TrainerPod(workshop, settings, 1)
    pod.write_files()
    for folder in ("packages", "work", "home"):
        (pod.folder / folder).mkdir()
    model = {"FLASHRUN_MODEL": str(tmp_path / "model"), "HOME": str(pod.folder / "home")}
    variables = shell(**NO_TELEMETRY, **model, **network.variables)

    for container in (MODEL_CONTAINER, PACKAGES_CONTAINER, TRAIN_COMMAND):
        with pod.started(container, variables, network.prefix) as process:
            pod.wait_for(lambda running=process: running.poll() is not None)
            assert process.returncode == 0, pod.output
    assert pod.adapter.step == 1
    assert network.tried() == set()
