"""What an administrator allows by namespace: policies and quotas, on a real API server."""

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


@pytest.fixture(scope="module")
def namespaces(installed: Path) -> tuple[str, str]:
    """Two namespaces: one with the policy, one without."""
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
