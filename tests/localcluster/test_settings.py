"""What is handed from this machine to image builds and to the chart."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from localcluster import chart, folders, images
from localcluster.cluster_kind import ClusterKind
from localcluster.images import Images, pip_settings
from localcluster.lifecycle import DevCluster
from tests.e2e import pools

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
    jsonschema.validate(given(choice, extra), schema)


def test_a_cluster_of_somebody_else_keeps_its_pools_and_its_certificates():
    own = chart.values(local(ClusterKind.CURRENT), BUILT)
    assert not {"pools", "caBundle"} & own.keys()
    assert own["trainer"] == {"image": BUILT.trainer}


def test_the_local_pool_has_what_the_node_says_it_has():
    [pool] = chart.values(local(ClusterKind.LOCAL), BUILT)["pools"]
    assert (pool["resource"], pool["gpusPerNode"]) == ("nvidia.com/gpu", 8)


def test_pip_settings_come_from_files_and_the_environment_wins(tmp_path, monkeypatch):
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://from-file\ntimeout = 9\ncert = /x.pem\n")
    monkeypatch.setattr(images, "PIP_FILES", (str(file),))
    for key in images.PIP_KEYS:
        monkeypatch.delenv("PIP_" + key.upper().replace("-", "_"), raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://from-environment")
    assert pip_settings() == {"index-url": "https://from-environment", "timeout": "9"}


def test_a_base_image_is_made_again_when_its_recipe_changes():
    assert images.recipe_hash(["trixie"], ["python3"]) == images.recipe_hash(
        ["trixie"], ["python3"]
    )
    assert images.recipe_hash(["trixie"], ["python3"]) != images.recipe_hash(
        ["trixie"], ["python3", "git"]
    )
