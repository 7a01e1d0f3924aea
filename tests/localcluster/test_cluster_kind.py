"""Which cluster a machine gets, and the sentence when it gets none."""

from dataclasses import replace

import pytest

from localcluster.cluster_kind import ClusterKind, MachineFacts, choose_kind, machine_facts
from localcluster.steps import FatalError

DEBIAN = MachineFacts(root=True, debian=True)
DOCKER = replace(DEBIAN, docker=True)
OWN = replace(
    DEBIAN, asked="current", context="prod", registry="r.example.com", s3_endpoint="https://s3"
)

CHOICES = {
    "Debian and root alone: the one built here": (DEBIAN, ClusterKind.LOCAL),
    "a kubeconfig is never used by accident": (replace(DEBIAN, context="prod"), ClusterKind.LOCAL),
    "nor with its registry and storage named": (replace(OWN, asked=""), ClusterKind.LOCAL),
    "asked for, with all it needs: current": (OWN, ClusterKind.CURRENT),
    "current needs neither root nor Debian": (
        replace(OWN, root=False, debian=False),
        ClusterKind.CURRENT,
    ),
    "Docker without kind or k3d: the one built here": (DOCKER, ClusterKind.LOCAL),
    "Docker and kind: kind": (replace(DOCKER, kind=True, root=False), ClusterKind.KIND),
    "Docker and k3d: k3d": (replace(DOCKER, k3d=True, root=False), ClusterKind.K3D),
    "both: kind": (replace(DOCKER, kind=True, k3d=True), ClusterKind.KIND),
    "both, and k3d asked for: k3d": (
        replace(DOCKER, kind=True, k3d=True, asked="k3d"),
        ClusterKind.K3D,
    ),
    "kind without an engine that answers: the one built here": (
        replace(DEBIAN, kind=True),
        ClusterKind.LOCAL,
    ),
    "local asked for beside Docker: local": (
        replace(DOCKER, kind=True, asked="local"),
        ClusterKind.LOCAL,
    ),
}

SENTENCES = {
    "an unknown name": (
        replace(DEBIAN, asked="minikube"),
        "CLUSTER=minikube is not one of current, kind, k3d, local",
    ),
    "current without a context": (replace(OWN, context=""), "has no current context"),
    "current without a registry": (replace(OWN, registry=""), "and REGISTRY is not set"),
    "current without storage": (replace(OWN, s3_endpoint=""), "and S3_ENDPOINT is not set"),
    "current without either": (
        replace(OWN, registry="", s3_endpoint=""),
        "REGISTRY and S3_ENDPOINT are not set",
    ),
    "kind without Docker": (replace(DEBIAN, asked="kind", kind=True), "none answers; start it"),
    "kind without the tool": (replace(DOCKER, asked="kind"), "kind is not in PATH; install it"),
    "local without root": (MachineFacts(debian=True), "needs root; run the same command as root"),
    "local without Debian": (MachineFacts(root=True), "needs Debian or a similar system"),
    "local on a node of another cluster": (
        replace(DEBIAN, foreign_kubelet="/usr/bin/k3s server"),
        "already a node of another cluster (/usr/bin/k3s server)",
    ),
}


@pytest.mark.parametrize(("facts", "choice"), CHOICES.values(), ids=CHOICES.keys())
def test_a_machine_gets_the_cluster_it_can_have(facts, choice):
    assert choose_kind(facts) is choice


@pytest.mark.parametrize(("facts", "sentence"), SENTENCES.values(), ids=SENTENCES.keys())
def test_a_machine_that_cannot_have_one_is_told_why(facts, sentence):
    with pytest.raises(FatalError) as stop:
        choose_kind(facts)
    assert sentence in str(stop.value)
    assert ";" in str(stop.value), "what is wrong; what to do"


ONLY_REGISTRY = replace(OWN, context="", s3_endpoint="")


def test_images_for_the_current_cluster_need_its_registry_and_nothing_else():
    assert choose_kind(ONLY_REGISTRY, only_images=True) is ClusterKind.CURRENT
    with pytest.raises(FatalError, match="REGISTRY is not set; say for example `make images"):
        choose_kind(replace(ONLY_REGISTRY, registry=""), only_images=True)


CONTEXTS = {
    "a kubeconfig with a context": ("current-context: prod\n", "prod"),
    "one without": ("contexts: []\n", ""),
    "an empty one": ("", ""),
    "one that is no YAML": ("{", ""),
}


@pytest.mark.parametrize(("text", "context"), CONTEXTS.values(), ids=CONTEXTS.keys())
def test_the_current_context_is_read_without_kubectl(tmp_path, monkeypatch, text, context):
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{tmp_path / 'config'}")
    assert machine_facts().context == context
