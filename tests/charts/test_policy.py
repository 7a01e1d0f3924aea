"""What an administrator allows by namespace: policies and quotas, on a real API server."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import yaml

from tests.controller.stage import flash_run
from tests.servers import kubectl

_names = count(1)
POLICY = {
    "models": ["Qwen/*", "acme/small"],
    "environments": ["common/*"],
    "maxSteps": 100,
}


def spec(model: str = "Qwen/Qwen3.5-4B", environment: str = "common/sums", **train: int) -> dict:
    return {"model": model, "environment": {"id": environment}, "train": train}


GRPO = {"algorithm": "grpo"}
ALLOWED = [
    ("a model by its beginning", spec(maxSteps=100)),
    ("a model by its name", spec("acme/small", maxSteps=1)),
    ("so many steps of GRPO", GRPO | spec(steps=100)),
]
REFUSED = [
    ("another model", spec("acme/small-2", maxSteps=1),
     "model acme/small-2 is not allowed in namespace NAMESPACE: use Qwen/*, acme/small"),
    ("another environment", spec(environment="other/sums", maxSteps=1),
     "environment other/sums is not allowed in namespace NAMESPACE: use common/*"),
    ("too many steps", spec(maxSteps=101), "set train.max_steps to at most that"),
    ("no limit of steps", spec(maxSteps=0), "set train.max_steps to at most that"),
    ("epochs alone", spec(epochs=1), "namespace NAMESPACE allows 100 steps: set train.max_steps"),
    ("too many steps of GRPO", GRPO | spec(steps=101), "set train.steps to at most that"),
    ("the default steps of GRPO", GRPO | spec(maxSteps=1), "set train.steps to at most that"),
]  # fmt: skip


@pytest.fixture
def namespaces(installed: Path) -> tuple[str, str]:
    """Two namespaces: one with the policy, one without, and none with policies of other tests."""
    names = (f"policy-{next(_names)}", f"policy-{next(_names)}")
    for name in names:
        kubectl(installed, "create", "namespace", name)
    return names


@pytest.fixture
def try_run(
    installed: Path, namespaces: tuple[str, str], render: Callable[..., list[dict]]
) -> Iterator[Callable[[str, dict], str]]:
    """Apply the chart's policy; then a function that returns why a run is refused."""
    limited, _ = namespaces
    values = {"namespaces": list(namespaces), "policies": [POLICY | {"namespaces": [limited]}]}
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    objects = [item for item in render(values) if item["kind"] in kinds]
    assert len(objects) == 2
    manifests = yaml.safe_dump_all(objects)
    kubectl(installed, "apply", "-f", "-", stdin=manifests)

    def attempt(namespace: str, wanted: dict) -> str:
        run = flash_run(namespace, f"run-{next(_names)}") | {"spec": wanted}
        try:
            kubectl(installed, "create", "-f", "-", "--dry-run=server", stdin=json.dumps(run))
        except subprocess.CalledProcessError as error:
            return str(error.stderr)
        return ""

    end = time.monotonic() + 60
    while not attempt(limited, spec("acme/other")):  # the API server reads policies after a while
        assert time.monotonic() < end
        time.sleep(0.2)
    yield attempt
    kubectl(installed, "delete", "-f", "-", stdin=manifests)


def test_a_policy_refuses_in_its_namespaces_what_it_does_not_allow(
    try_run: Callable[[str, dict], str], namespaces: tuple[str, str]
) -> None:
    limited, free = namespaces
    for what, wanted in ALLOWED:
        assert try_run(limited, wanted) == "", what
    for what, wanted, sentence in REFUSED:
        assert sentence.replace("NAMESPACE", limited) in try_run(limited, wanted), what
        assert try_run(free, wanted) == "", what


@contextlib.contextmanager
def applied(installed: Path, objects: list[dict], is_read: Callable[[], bool]) -> Iterator[None]:
    """Apply policies, and wait until the API server has read them; it does so after a while."""
    made = [item for item in objects if item["kind"].startswith("ValidatingAdm")]
    manifests = yaml.safe_dump_all(made)
    kubectl(installed, "apply", "-f", "-", stdin=manifests)
    try:
        end = time.monotonic() + 60
        while not is_read():
            assert time.monotonic() < end
            time.sleep(0.2)
        yield
    finally:
        kubectl(installed, "delete", "-f", "-", stdin=manifests)


def refusal(installed: Path, *words: str, stdin: dict | None = None) -> str:
    """Why the API server refuses a command; empty when it does not."""
    text = None if stdin is None else json.dumps(stdin)
    try:
        kubectl(installed, *words, stdin=text)
    except subprocess.CalledProcessError as error:
        return str(error.stderr)
    return ""


def test_a_run_names_its_gpu_hours_and_cannot_raise_them_beyond_the_limit(
    render, installed: Path, namespaces: tuple[str, str]
) -> None:
    limited, free = namespaces
    policy = {"namespaces": [limited], "maxGpuHours": 2.5}
    sentence = f"namespace {limited} allows 2.5 GPU hours for a run: set budget.gpu_hours"
    dry = ("create", "-f", "-", "--dry-run=server")

    def run(namespace: str, **budget: float) -> dict:
        made = flash_run(namespace, f"hours-{next(_names)}")
        return made | {"spec": made["spec"] | ({"budget": budget} if budget else {})}

    def change(name: str, spec: dict) -> str:
        patch = ("patch", "flashrun", name, "--type=merge", "-p", json.dumps({"spec": spec}))
        return refusal(installed, "-n", limited, *patch)

    before, larger = run(limited), run(limited, gpuHours=9)
    for made in (before, larger):  # they exist when the policy comes
        kubectl(installed, "create", "-f", "-", stdin=json.dumps(made))
    objects = render({"namespaces": [limited, free], "policies": [policy]})
    with applied(installed, objects, lambda: bool(refusal(installed, *dry, stdin=run(limited)))):
        for hours in (2.5, 1, 0.01):
            assert refusal(installed, *dry, stdin=run(limited, gpuHours=hours)) == ""
        for made in (run(limited), run(limited, gpuHours=2.6), run(limited, gpuHours=3)):
            assert sentence in refusal(installed, *dry, stdin=made)
        assert refusal(installed, *dry, stdin=run(free, gpuHours=3)) == ""

        kept = run(limited, gpuHours=2)
        kubectl(installed, "create", "-f", "-", stdin=json.dumps(kept))
        name = kept["metadata"]["name"]
        assert change(name, {"budget": {"gpuHours": 2.25}}) == ""
        assert sentence in change(name, {"budget": {"gpuHours": 4}})
        assert sentence in change(name, {"budget": None})
        assert change(name, {"control": {"cancel": True}}) == ""

        # Runs that exist go on, and can be suspended; they get no more than they have.
        for made in (before, larger):
            name = made["metadata"]["name"]
            assert change(name, {"control": {"suspend": True}}) == ""
            assert sentence in change(name, {"budget": {"gpuHours": 10}})
        assert change(larger["metadata"]["name"], {"budget": {"gpuHours": 8}}) == ""


def test_a_run_gets_no_more_gpus_than_its_namespace_allows(
    render, installed: Path, namespaces: tuple[str, str]
) -> None:
    limited, free = namespaces
    pools = [{"name": "a", "vram": 24}, {"name": "b", "vram": 24, "resource": "example.com/gpu"}]
    policies = [{"namespaces": [limited], "maxGpus": 4}]
    objects = render({"namespaces": [limited, free], "policies": policies, "pools": pools})

    def job(namespace: str, gpus: int, nodes: int = 1, resource: str = "nvidia.com/gpu") -> dict:
        labels = {"flashrun.dev/run": "some"}
        container = {
            "name": "trainer",
            "image": "trainer",
            "resources": {"limits": {resource: str(gpus), "memory": "1Gi"}},
        }
        template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"generateName": "gpus-", "namespace": namespace, "labels": labels},
            "spec": {"parallelism": nodes, "template": template},
        }

    def refused(made: dict) -> str:
        return refusal(installed, "create", "-f", "-", "--dry-run=server", stdin=made)

    with applied(installed, objects, lambda: bool(refused(job(limited, 5)))):
        assert refused(job(limited, 4)) == ""
        assert refused(job(limited, 2, nodes=2)) == ""
        assert refused(job(free, 8)) == ""
        for made, gpus in (
            (job(limited, 5), 5),
            (job(limited, 4, nodes=2), 8),
            (job(limited, 5, resource="example.com/gpu"), 5),
        ):
            words = f"namespace {limited} allows 4 GPUs for a run, and this one gets {gpus}"
            assert words in refused(made)
        made = job(limited, 8)
        made["metadata"]["labels"] = {}  # not the Job of a run: a ResourceQuota counts it
        assert refused(made) == ""


def test_a_policy_that_says_nothing_makes_no_object(render) -> None:
    objects = render({"policies": [{"namespaces": ["default"]}]})
    assert not [item for item in objects if item["kind"].startswith("ValidatingAdm")]


def test_without_policies_there_are_none_and_without_namespaces_all_are_meant(render) -> None:
    def made(**values: object) -> list[dict]:
        return [item for item in render(values) if item["kind"].startswith("ValidatingAdm")]

    assert made() == []
    _, binding = made(namespaces=["a", "b"], policies=[{"models": ["x/y"]}])
    [expression] = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["a", "b"]


@pytest.mark.parametrize("name", ["x' || true || '", "a*b", "x y"])
def test_a_pattern_can_hold_no_other_condition(render, name: str) -> None:
    with pytest.raises(ValueError, match="models"):
        render({"policies": [{"models": [name]}]})


def test_a_quota_counts_runs_and_gpus_of_its_namespace(
    render, installed: Path, namespaces: tuple[str, str]
) -> None:
    limited, free = namespaces
    hard = {"count/flashruns.flashrun.dev": 1, "requests.nvidia.com/gpu": 2}
    objects = render({"namespaces": [limited, free], "quotas": {limited: hard}})
    [quota] = [item for item in objects if item["kind"] == "ResourceQuota"]
    assert quota["metadata"]["namespace"] == limited
    kubectl(installed, "apply", "-f", "-", stdin=yaml.safe_dump(quota))
    try:
        used, end = None, time.monotonic() + 300
        while used is None:  # a quota counts once its controller has looked
            assert time.monotonic() < end
            shown = json.loads(
                kubectl(installed, "-n", limited, "get", "quota", "flashrun", "-ojson")
            )
            used = shown.get("status", {}).get("used", {}).get("count/flashruns.flashrun.dev")
            time.sleep(0.2)
        first = json.dumps(flash_run(limited, "quota-1"))
        kubectl(installed, "create", "-f", "-", stdin=first)
        with pytest.raises(subprocess.CalledProcessError) as refused:
            kubectl(installed, "create", "-f", "-", stdin=json.dumps(flash_run(limited, "quota-2")))
        assert "exceeded quota: flashrun" in refused.value.stderr
        kubectl(installed, "create", "-f", "-", stdin=json.dumps(flash_run(free, "quota-2")))
    finally:
        kubectl(installed, "-n", limited, "delete", "quota", "flashrun")
    with pytest.raises(ValueError, match="quotas: other is not one of the namespaces"):
        render({"quotas": {"other": hard}})
