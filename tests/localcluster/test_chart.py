"""The values of the Helm chart for each kind of cluster."""

import json
from pathlib import Path

import pytest
import yaml

from localcluster import chart, folders
from localcluster.cluster_kind import ClusterKind
from localcluster.images import Images
from localcluster.lifecycle import DevCluster
from tests.e2e import pools
from tests.json_schemas import validator

CHART = folders.repository() / "charts" / "flashrun"
BUILT = Images(operator="r/flashrun/operator@sha256:1", trainer="r/flashrun/trainer@sha256:2")


def local(choice: ClusterKind) -> DevCluster:
    return DevCluster(
        kind=choice,
        kubeconfig=Path("kubeconfig"),
        registry="127.0.0.1:5000",
        storage_endpoint="http://10.244.0.1:9000",
        access_key="key",
        secret_key="hush",
        host_ip="10.244.0.1",
    )


def given(choice: ClusterKind, extra: dict) -> dict:
    """The chart's own values with ours on top, as Helm merges them."""
    base = yaml.safe_load((CHART / "values.yaml").read_text())
    more = chart.values(local(choice), BUILT) | extra
    return {
        key: {**base.get(key, {}), **value} if isinstance(value, dict) else value
        for key, value in {**base, **more}.items()
    }


@pytest.mark.parametrize("extra", [{}, pools.VALUES], ids=["demo", "tests"])
@pytest.mark.parametrize("choice", list(ClusterKind))
def test_the_chart_takes_our_values_for_every_cluster(choice, extra):
    schema = json.loads((CHART / "values.schema.json").read_text())
    validator(schema).validate(given(choice, extra))


def test_a_cluster_of_somebody_else_keeps_its_pools_and_its_certificates():
    own = chart.values(local(ClusterKind.CURRENT), BUILT)
    assert not {"pools", "caBundle"} & own.keys()
    assert own["trainer"] == {"image": BUILT.trainer}


def test_the_local_pool_has_what_the_node_says_it_has():
    [pool] = chart.values(local(ClusterKind.LOCAL), BUILT)["pools"]
    assert (pool["resource"], pool["gpusPerNode"]) == ("nvidia.com/gpu", 8)


def test_passwords_of_this_machines_index_and_proxy_go_into_secrets(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:hu%40sh@index.example/simple")
    monkeypatch.setenv("https_proxy", "http://me:hush-hush@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "10.0.0.0/8")
    schema = json.loads((CHART / "values.schema.json").read_text())
    made = given(ClusterKind.LOCAL, {})
    validator(schema).validate(made)
    trainer = made["trainer"]
    assert trainer["pipIndexUrl"] == "https://index.example/simple"
    assert trainer["proxy"]["https_proxy"] == "http://proxy.example:3128"

    applied = []

    class Steps:
        def run(self, command, *, stdin, what):
            applied.extend(json.loads(stdin)["items"])

    monkeypatch.setattr(chart.lifecycle, "kubectl", lambda arguments, steps: arguments)
    chart._create_upstream_secrets(Steps())
    secrets = {item["metadata"]["name"]: item.get("stringData") for item in applied[1:]}
    assert secrets == {
        trainer["pipIndexSecret"]: {"username": "me", "password": "hu@sh"},
        trainer["proxySecret"]: {"username": "me", "password": "hush-hush"},
    }


def test_a_pod_has_as_many_threads_as_it_is_given_and_memory_for_a_real_model():
    values = chart.values(local(ClusterKind.LOCAL), BUILT, threads=2)
    assert values["trainer"]["environment"]["OMP_NUM_THREADS"] == "2"
    assert values["pools"][0]["memory"] == "6Gi"
