"""Cancel, delete and replace: what goes, what stays, and that deletion needs nothing of ours."""

from pathlib import Path

import pytest

from tests.e2e import environments
from tests.e2e.conftest import Product

pytestmark = pytest.mark.e2e


@pytest.fixture
def endless(product: Product, tmp_path: Path) -> str:
    """A run that would train for long and has saved at least once."""
    config = environments.config(
        tmp_path, "examples/sums", "sft",
        train={"max_steps": 20_000, "epochs": 20_000, "save_every": 25},
    )  # fmt: skip
    run = product.submit(config)
    product.wait(run, lambda status: status.get("checkpointCount", 0) >= 1, "checkpoint")
    return run


def left_of(product: Product, run: str) -> list[str]:
    listed = product.kubectl(
        "get", "pods,jobs,secrets,configmaps", "-l", f"flashrun.dev/run={run}", "-oname"
    )
    return listed.split()


def test_cancel_stops_a_run_and_says_what_was_kept(product: Product, endless: str) -> None:
    said = product.flash("cancel", endless).stdout
    status = product.end(endless, "Cancelled")

    assert f"{status['checkpointCount']} checkpoints are kept" in said
    assert status["attempts"][-1].get("exitCode") in (40, None)
    product.kubectl("delete", "flashrun", endless)


@pytest.mark.parametrize("operator", ["up", "down"])
def test_deletion_removes_everything_but_what_is_in_storage(
    product: Product, endless: str, operator: str
) -> None:
    assert len(left_of(product, endless)) >= 4  # pod, Job, ConfigMap, Secret
    if operator == "down":
        product.scale_operator(0)
    try:
        product.kubectl("delete", "flashrun", endless, "--timeout=60s")
        product.wait_until(lambda: not left_of(product, endless), "objects to be gone")
    finally:
        if operator == "down":
            product.scale_operator(1)

    kept = product.keys(endless)
    assert any(key.endswith("/manifest.json") for key in kept)


def test_a_run_that_is_replaced_again_and_again_trains_its_own_spec(
    product: Product, endless: str, tmp_path: Path
) -> None:
    """The kubelet keeps what it has read of an immutable ConfigMap while a pod of it still ends."""

    def replace(steps: int) -> None:
        knobs = {"max_steps": steps, "epochs": steps, "save_every": steps}
        config = environments.config(tmp_path, "examples/sums", "sft", train=knobs)
        manifest = product.flash("render", str(config), "--name", endless).stdout
        product.kubectl("replace", "--force", "-f", "-", stdin=manifest)

    for steps in (20_000, 19_000, 3):
        replace(steps)
        product.wait(endless, lambda status: status.get("resolved", {}).get("jobUid"), "Job")
    status = product.end(endless, "Succeeded")

    assert status["progress"] | {"step": 3, "totalSteps": 3} == status["progress"]
    [attempt] = status["attempts"]
    assert (attempt["number"], attempt["fromStep"]) == (1, 0)
    product.kubectl("delete", "flashrun", endless)
