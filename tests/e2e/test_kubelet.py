"""What a kubelet does to pods: it kills them for memory, evicts them for disk, finds no image."""

import json
import urllib.request
from pathlib import Path

import pytest

from flashrun.api.platform import TrainerSettings
from tests.e2e import environments
from tests.e2e.conftest import NAMESPACE, Product
from tests.e2e.pools import CRAMPED, LITTLE_DISK
from tests.injector import serve_injector

pytestmark = pytest.mark.e2e

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
RETRIES = TrainerSettings.model_fields["retries"].default
LONG_SECONDS = 1500
"""Several attempts one after the other, beside the trainer's own tests."""


def test_a_pod_killed_for_memory_is_tried_again_where_there_is_more(
    product: Product, kubelet_runs: dict[str, str]
) -> None:
    status = product.end(kubelet_runs[CRAMPED], "Succeeded", LONG_SECONDS)
    killed, last = status["attempts"]
    assert (killed["pool"], killed["reason"], killed["exitCode"]) == (
        "cramped", "HostOutOfMemory", 137,
    )  # fmt: skip
    assert (last["pool"], last["reason"]) == ("roomy", "Succeeded")


def test_an_image_that_cannot_be_pulled_is_named_and_waited_for(
    product: Product, tmp_path: Path
) -> None:
    """The registry gets the image later; the kubelet tries again by itself."""
    image = product.trainer_image
    repository, _, digest = image.rpartition("@")
    tag = product.new_name("later")
    change = [{"op": "replace", "path": "/spec/containers/0/image", "value": f"{repository}:{tag}"}]
    with serve_injector(NAMESPACE, tmp_path / "webhook", change) as webhook:
        product.kubectl("create", "-f", "-", stdin=json.dumps(webhook))
        run = product.submit(environments.config(tmp_path, "examples/sums", "sft"))
        status = product.wait(
            run, lambda status: tag in status.get("pending", {}).get("message", ""), "message"
        )
        product.kubectl("delete", "-f", "-", stdin=json.dumps(webhook))
    assert "not found" in status["pending"]["message"]

    host, _, name = repository.partition("/")
    url = f"http://{host}/v2/{name}/manifests/"
    headers = {"Accept": MANIFEST, "Content-Type": MANIFEST}
    with urllib.request.urlopen(urllib.request.Request(url + digest, headers=headers)) as answer:
        manifest = answer.read()
    put = urllib.request.Request(url + tag, manifest, headers, method="PUT")
    with urllib.request.urlopen(put) as answer:
        assert answer.status == 201

    status = product.end(run, "Succeeded", LONG_SECONDS)
    assert [item["reason"] for item in status["attempts"]] == ["Succeeded"]


def test_evictions_for_a_pods_own_disk_are_counted_and_say_so(
    product: Product, kubelet_runs: dict[str, str]
) -> None:
    """They have no condition DisruptionTarget, with which every retry would be free."""
    run = kubelet_runs[LITTLE_DISK]
    status = product.end(run, "Failed", LONG_SECONDS)
    assert {item["reason"] for item in status["attempts"]} == {"Evicted"}
    assert len(status["attempts"]) == 1 + RETRIES
    assert status["failure"]["reason"] == "Evicted"
    assert "ephemeral local storage usage" in status["failure"]["message"]
