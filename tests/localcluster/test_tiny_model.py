"""The tiny model: the Job that makes it, and the sentence when the Job fails."""

import json
from pathlib import Path

import pytest

from localcluster import lifecycle, tiny_model
from localcluster.cluster_kind import ClusterKind
from localcluster.images import Images
from localcluster.lifecycle import DevCluster
from localcluster.steps import FatalError, StepRunner
from tests.localcluster.stand_ins import StandIns

CLUSTER = DevCluster(
    kind=ClusterKind.LOCAL,
    kubeconfig=Path("kubeconfig"),
    registry="127.0.0.1:5000",
    storage_endpoint="http://10.244.0.1:9000",
    access_key="key",
    secret_key="hush",
    host_ip="10.244.0.1",
)
IMAGES = Images(operator="r/flashrun/operator@sha256:1", trainer="r/flashrun/trainer@sha256:2")


@pytest.fixture
def kubectl(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """kubectl is a recording stand-in."""
    stand_ins.add("kubectl")
    monkeypatch.setattr(lifecycle, "kubectl", lambda words, _: ["kubectl", *words])
    return stand_ins


def test_a_job_of_the_trainer_image_makes_the_model(kubectl: StandIns, steps: StepRunner) -> None:
    kubectl.answer("kubectl get job", json.dumps({"status": {"succeeded": 1}}))
    tiny_model.mirror(CLUSTER, IMAGES, steps, ["a/b", "c/d"])
    delete, apply, get, _ = kubectl.calls()
    assert delete["words"][1:4] == ["delete", "job", "tiny-model"]
    assert apply["words"][1:4] == ["apply", "--namespace", "flashrun-system"]
    assert get["words"][1:4] == ["get", "job", "tiny-model"]
    scripts, job = json.loads(apply["stdin"])["items"]
    assert set(scripts["data"]) == {"make_tiny_model.py", "mirror_model.py"}
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == IMAGES.trainer
    assert container["command"] == ["python3", "/scripts/mirror_model.py", "1", "a/b", "c/d"]


def test_how_fast_the_image_computes_is_shown(
    kubectl: StandIns, steps: StepRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl.answer("kubectl get job", json.dumps({"status": {"succeeded": 1}}))
    kubectl.answer("kubectl logs", "a/b is in the mirror\n101 GFLOP/s per core\n")
    steps.quiet = False
    tiny_model.mirror(CLUSTER, IMAGES, steps, ["a/b"])
    assert "101 GFLOP/s per core" in capsys.readouterr().out


def test_keys_of_storage_come_from_a_secret(kubectl: StandIns, steps: StepRunner) -> None:
    kubectl.answer("kubectl get job", json.dumps({"status": {"succeeded": 1}}))
    tiny_model.mirror(CLUSTER, IMAGES, steps, ["a/b"])
    [text] = [call["stdin"] for call in kubectl.calls() if call["stdin"]]
    assert "hush" not in text
    [container] = json.loads(text)["items"][1]["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["STORAGE_SECRET_KEY"]["valueFrom"] == {
        "secretKeyRef": {"name": "flashrun-storage", "key": "secretKey"}
    }


def test_a_job_that_fails_ends_in_its_last_line(kubectl: StandIns, steps: StepRunner) -> None:
    kubectl.answer("kubectl get job", json.dumps({"status": {"failed": 1}}))
    kubectl.answer("kubectl logs", "Traceback:\nOSError: no space\n")
    with pytest.raises(FatalError, match="making the tiny model failed: OSError: no space"):
        tiny_model.mirror(CLUSTER, IMAGES, steps, ["a/b"])


def test_a_job_without_a_log_fails_all_the_same(kubectl: StandIns, steps: StepRunner) -> None:
    kubectl.answer("kubectl get job", json.dumps({"status": {"failed": 1}}))
    with pytest.raises(FatalError, match="making the tiny model failed: its pod has no log"):
        tiny_model.mirror(CLUSTER, IMAGES, steps, ["a/b"])
