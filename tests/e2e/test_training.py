"""Real training in real pods: it learns, what it leaves behind works, and it survives its pods."""

import json
import statistics
from pathlib import Path

import pytest
import yaml

from flashrun.api import names
from flashrun.api.resource import FlashRunSpec
from localcluster.chart import MODEL, MODEL_REVISION
from tests.e2e import environments
from tests.e2e.conftest import NAMESPACE, ROOT, Product

pytestmark = pytest.mark.e2e

SUMS = ROOT / "examples" / "sums"


def start_and_end(rows: list[dict], key: str) -> tuple[float, float]:
    """Return the means of ``key`` over the first three steps and over the last fifth."""
    values = [row["values"][key] for row in rows if key in row["values"]]
    return statistics.mean(values[:3]), statistics.mean(values[-len(values) // 5 :])


@pytest.fixture(scope="module")
def runs(product: Product) -> dict[str, str]:
    """Both examples, submitted side by side."""
    configs = {"sft": SUMS / "configs/sft.toml", "grpo": SUMS / "configs/rl.toml"}
    return {name: product.submit(path) for name, path in configs.items()}


def test_sft_halves_its_loss(product: Product, runs: dict[str, str]) -> None:
    status = product.end(runs["sft"], "Succeeded")
    start, end = start_and_end(product.metrics(runs["sft"]), "loss")

    assert end < start / 2
    assert status["progress"]["percent"] == 100
    assert status["resolved"]["pool"]


def test_grpo_more_than_doubles_its_reward(product: Product, runs: dict[str, str]) -> None:
    product.end(runs["grpo"], "Succeeded")
    start, end = start_and_end(product.metrics(runs["grpo"]), "reward")

    assert end > 2 * start


def test_every_save_is_in_storage_and_in_the_list(product: Product, runs: dict[str, str]) -> None:
    run = runs["sft"]
    status = product.end(run, "Succeeded")
    every = int(status["resolved"]["train"]["save_every"])
    total = status["progress"]["totalSteps"]
    expected = sorted({*range(every, total + 1, every), total})

    listed = product.flash("checkpoints", run).stdout.splitlines()
    assert listed == [f"step {step} {run}/step-{step}" for step in expected]
    committed = [key for key in product.keys(run) if key.endswith("/manifest.json")]
    assert len(committed) == len(expected) + 1  # and the final adapter


@pytest.mark.parametrize("reference", ["{run}", "{run}/step-{newest}"])
def test_a_pulled_adapter_loads_with_peft_and_changes_what_the_model_says(
    product: Product, runs: dict[str, str], reference: str, tmp_path: Path
) -> None:
    run = runs["sft"]
    newest = product.end(run, "Succeeded")["checkpoints"][0]["step"]
    folder = tmp_path / "adapter"
    printed = product.flash("pull", reference.format(run=run, newest=newest), str(folder)).stdout
    assert str(folder) in printed

    files = {"check.py": Path(__file__).with_name("check_adapter.py"), "adapter": folder}
    words = ("python3", "check.py", "adapter", MODEL, MODEL_REVISION)
    product.start_in_trainer_image("check-adapter", files, *words)
    verdict = json.loads(product.output_of("check-adapter").splitlines()[-1])
    assert verdict["adapter_parameters"] > 0
    assert verdict["largest_logit_change"] > 0.1


def test_the_rendered_manifest_does_exactly_the_same(product: Product, tmp_path: Path) -> None:
    config = environments.config(tmp_path, "examples/sums", "sft")
    by_train = product.submit(config)
    from_git = product.new_name("from-git")
    rendered = product.flash("render", str(config), "--name", from_git).stdout
    product.kubectl("apply", "-f", "-", "-n", NAMESPACE, stdin=rendered)

    applied, trained = product.end(from_git, "Succeeded"), product.end(by_train, "Succeeded")
    specs = [
        json.loads(product.kubectl("get", "flashrun", run, "-ojson"))["spec"]
        for run in (from_git, by_train)
    ]
    assert specs[0] == specs[1]
    # The API server writes defaults out; the spec says the same, and git sees no change.
    written = yaml.safe_load(rendered)["spec"]
    assert FlashRunSpec.model_validate(written) == FlashRunSpec.model_validate(specs[0])
    again = product.kubectl("apply", "-f", "-", "-n", NAMESPACE, stdin=rendered)
    assert again.split()[-1] == "unchanged"
    # Each run has a Job of its own, and a spec.json with its own name and uid.
    own = ("jobUid", "specDigest")
    chosen, expected = (
        {key: value for key, value in status["resolved"].items() if key not in own}
        for status in (applied, trained)
    )
    assert chosen == expected
    histories = [
        [row["values"]["loss"] for row in product.metrics(run) if "loss" in row["values"]]
        for run in (from_git, by_train)
    ]
    assert histories[0] == histories[1]  # the same seed, data and order: the same numbers


def test_a_run_whose_pod_is_deleted_goes_on_from_its_checkpoint(
    product: Product, tmp_path: Path
) -> None:
    config = environments.config(
        tmp_path, "examples/sums", "sft", train={"max_steps": 400, "save_every": 20, "epochs": 100}
    )
    run = product.submit(config)
    product.wait(run, lambda status: status.get("checkpointCount", 0) >= 1, "checkpoint")
    product.kubectl("delete", "pod", "-l", f"flashrun.dev/run={run}", "--wait=false")

    status = product.end(run, "Succeeded")
    attempts = status["attempts"]
    assert len(attempts) == 2
    assert attempts[1]["fromStep"] >= 20
    steps = [row["step"] for row in product.metrics(run) if "loss" in row["values"]]
    assert steps == sorted(set(steps))
    assert steps[-1] == 400


def test_every_checkpoint_of_a_run_is_served_and_answers(
    product: Product, runs: dict[str, str]
) -> None:
    run = runs["sft"]
    newest = product.end(run, "Succeeded")["checkpoints"][0]["step"]
    server = names.server_name(run)
    ids = product.flash("serve", run, "--apply", "--engine", "transformers").stdout.split()
    assert {run, f"{run}/step-{newest}"} <= set(ids)

    label = f"{names.SERVING_LABEL}={server}"

    def ready() -> bool:
        wait = ("wait", "pod", "-l", label, "--for=condition=Ready", "--timeout=5s")
        return "condition met" in product.kubectl(*wait, check=False)

    try:
        product.wait_until(ready, f"server {server}")
        answer = product.flash("chat", f"{run}/step-{newest}", "12 + 30", "--max-tokens", "8")
        product.kubectl("delete", "pod", "-l", label)
        product.wait_until(ready, f"server {server} after its pod was deleted")
        again = product.flash("chat", f"{run}/step-{newest}", "12 + 30", "--max-tokens", "8")
        assert again.stdout == answer.stdout
    finally:
        product.flash("serve", run, "--remove")
