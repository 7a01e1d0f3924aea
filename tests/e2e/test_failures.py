"""What goes wrong is told in one sentence, in ``flash status`` and in the conditions."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.e2e import environments
from tests.e2e.conftest import NAMESPACE, Product

pytestmark = pytest.mark.e2e

BROKEN = [
    ("the reward raises", environments.RAISING_REWARD, {}, "RewardFailed", "ZeroDivisionError"),
    ("the split is missing", None, {"params": {"split": "validation"}},
     "SplitMissing", "dataset/validation.jsonl"),
    ("a requirement does not exist", None, {"pip": ["a-package-that-nobody-made==9.9"]},
     "PackageNotFound", "a-package-that-nobody-made"),
    ("the environment cannot be imported", environments.BROKEN_IMPORT, {},
     "EnvironmentFailed", "a_module_that_nobody_has"),
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(product: Product, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every broken run, submitted side by side."""
    submitted = {}
    for number, (title, source, table, *_) in enumerate(BROKEN):
        folder = environments.write(tmp_path_factory.mktemp("broken") / "environment", source)
        product.flash("env", "push", str(folder), "--name", f"broken/case-{number}")
        config = environments.config(folder, f"broken/case-{number}", environment=table)
        submitted[title] = product.submit(config)
    return submitted


@pytest.mark.parametrize(
    ("title", "reason", "words"), [(row[0], row[3], row[4]) for row in BROKEN],
    ids=[row[0] for row in BROKEN],
)  # fmt: skip
def test_a_failing_environment_is_told_in_one_sentence(
    product: Product, runs: dict[str, str], title: str, reason: str, words: str
) -> None:
    run = runs[title]
    failure = product.end(run, "Failed")["failure"]
    shown = product.flash("status", run, check=False)

    assert failure["reason"] == reason
    assert words in failure["message"]
    assert "\n" not in failure["message"]
    assert "Traceback" not in shown.stdout + shown.stderr
    assert failure["message"] in " ".join(shown.stdout.split())
    assert words in product.condition(run, "Stalled")["message"]


def test_the_log_of_a_failed_run_is_still_there(product: Product, runs: dict[str, str]) -> None:
    run = runs["the reward raises"]
    product.end(run, "Failed")
    product.kubectl("delete", "jobs", "-l", f"flashrun.dev/run={run}")

    assert "ZeroDivisionError" in product.flash("log", run).stdout


def test_a_secret_without_a_value_is_refused_before_anything_is_made(
    product: Product, tmp_path: Path
) -> None:
    config = environments.config(
        tmp_path, "examples/sums", environment={"secrets": ["SERVICE_API_KEY", "OTHER_KEY_ID"]}
    )
    before = product.kubectl("get", "flashruns,secrets", "-oname")
    refused = product.flash("train", str(config), "--background", check=False)

    assert refused.returncode == 2
    assert "SERVICE_API_KEY" in refused.stderr
    assert "OTHER_KEY_ID" in refused.stderr
    assert product.kubectl("get", "flashruns,secrets", "-oname") == before


AWKWARD = "line one\nline \"two\" = $HOME `x` \\ ü 日本 'quoted'" + "z" * 4096


def test_an_applied_run_waits_for_its_secret_and_gets_it_byte_for_byte(
    product: Product, tmp_path: Path
) -> None:
    folder = environments.write(tmp_path / "environment", environments.READS_SECRET)
    product.flash("env", "push", str(folder), "--name", "examples/secret")
    digest = hashlib.sha256(AWKWARD.encode()).hexdigest()
    config = environments.config(
        folder, "examples/secret", "sft",
        environment={"secrets": ["SERVICE_API_KEY"], "params": {"digest": digest}},
    )  # fmt: skip
    run = product.new_name("waits-for-secret")
    rendered = product.flash("render", str(config), "--name", run)
    assert AWKWARD not in rendered.stdout
    product.kubectl("apply", "-f", "-", "-n", NAMESPACE, stdin=rendered.stdout)
    status = product.wait(
        run, lambda status: status.get("pending", {}).get("reason") == "SecretMissing", "sentence"
    )

    assert "SERVICE_API_KEY" in status["pending"]["message"]
    assert product.condition(run, "SecretsReady")["status"] == "False"

    found = json.loads(product.kubectl("get", "flashrun", run, "-ojson"))
    [wanted] = found["spec"]["secretRefs"]
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": wanted["name"], "labels": {"flashrun.dev/secrets": "true"}},
        "stringData": {"SERVICE_API_KEY": AWKWARD},
    }
    product.kubectl("create", "-f", "-", "-n", NAMESPACE, stdin=json.dumps(secret))
    product.end(run, "Succeeded")

    everything = product.kubectl("get", "flashruns,jobs,pods,configmaps,events", "-oyaml")
    assert AWKWARD[:30].splitlines()[0] not in everything
    stored = [product.store.get_bytes(key) for key in product.keys(run)]
    assert not [data for data in stored if b"z" * 64 in data]
