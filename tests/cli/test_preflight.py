"""``flash train --dry-run --server``: what only the cluster knows, at once, and nothing is made.

The same look at the adapter to start from keeps ``flash train`` from submitting what cannot run.
"""

import json
import subprocess
import time
import tomllib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.public import PublicPool
from flashrun.api.records import FileEntry, Manifest, RunIdentity
from tests.cli.conftest import REFERENCE, Served

pytestmark = pytest.mark.api

MODEL = "Qwen/Qwen3.5-4B"
NOW = datetime.now(UTC)
LOOK = ("train", "config.toml", "--dry-run", "--server")
WARM = REFERENCE.replace("lora_rank = 32\n", "")


def asked(served: Served, *words: str) -> dict[str, Any]:
    done = served.flash(*LOOK, "-o", "json", *words)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (2 if found["problems"] else 0), done.stderr
    return found


def commit(
    served: Served, name: str, uid: str = "uid-1", step: int | None = None, **changes: Any
) -> str:
    """Commit an adapter as its run would; returns the prefix."""
    namespace = changes.pop("namespace", served.namespace)
    home = names.run_prefix(namespace, name, uid)
    prefix = names.adapter_prefix(home) if step is None else names.step_prefix(home, 1, step)
    served.store.put_bytes(f"{prefix}adapter_model.safetensors", b"weights")
    file = FileEntry(path="adapter_model.safetensors", size=7, sha256="0" * 64)
    manifest = Manifest(
        kind="adapter" if step is None else "checkpoint",
        run=RunIdentity(namespace=namespace, name=name, uid=uid),
        attempt=None if step is None else 1,
        step=step,
        base_model=MODEL,
        lora_rank=16,
        lora_alpha=32,
        created=NOW,
        files=(file,),
    ).model_copy(update=changes)
    served.store.put_json(prefix + names.MANIFEST, manifest)
    return prefix


# --- what the cluster knows ---------------------------------------------------------------------


def test_it_prints_the_resolved_spec_and_what_the_cluster_adds(served: Served) -> None:
    served.push()
    served.publish(pools=(PublicPool(name="h100", vram=80, total=8, free=3),))
    done = served.flash(*LOOK)

    assert (done.returncode, done.stderr) == (0, "")
    assert tomllib.loads(done.stdout)["train"]["lora_alpha"] == 64  # it can be submitted as it is
    told = done.stdout.split("# from the cluster\n")[1].splitlines()
    assert [line.split(":")[0] for line in told] == [
        *("# admission", "# storage", "# environment", "# pool", "# secrets")
    ]
    assert told[0].startswith("# admission: accepted (context ")
    assert told[3] == "# pool: 1 GPU of h100 (80 GiB each, 3 of 8 free)"
    assert served.count("flashrun") == 0


def test_every_problem_is_told_at_once(served: Served) -> None:
    served.publish(pools=(PublicPool(name="small", vram=8),))
    config = WARM.replace("[train]", 'secrets = ["KEY_A", "KEY_B"]\n\n[train]')
    served.flash.write("config.toml", config)
    found = asked(served, "--set", "train.init_from_adapter=flash-1-gone", "-n", served.namespace)

    told = "\n".join(found["problems"])
    assert "your-org/your-env has not been pushed" in told
    assert "there is no run flash-1-gone" in told
    assert "KEY_A, KEY_B" in told
    assert "needs 32 GiB" in told
    assert len(found["problems"]) == 4
    assert served.count("flashrun") == 0


def test_the_digest_that_a_run_would_pin_is_shown(served: Served) -> None:
    served.push()
    latest = names.environment_latest_key("your-org/your-env")
    digest = json.loads(served.store.get_bytes(latest))["digest"]

    assert asked(served)["server"]["environment"]["digest"] == digest


def test_names_of_secrets_are_shown_and_values_never(served: Served) -> None:
    served.push()
    served.flash.write(
        "config.toml", REFERENCE.replace("[train]", 'secrets = ["KEY_A"]\n\n[train]')
    )
    served.flash.write(".env", "KEY_A=the-value\nWANDB_API_KEY=the-other-value\n")
    done = served.flash(*LOOK)

    assert "# secrets: KEY_A is set, WANDB_API_KEY is set" in done.stdout
    assert "-value" not in done.stdout + done.stderr
    assert served.count("secret") == 1  # the platform's


def test_admission_has_its_say(served: Served) -> None:
    served.push()
    policy(served)
    try:
        found = asked(served, "--set", "train.epochs=7")
    finally:
        served.kubectl(
            "delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "few"
        )

    assert found["server"]["admission"] == {"accepted": False}
    [problem] = found["problems"]
    assert "at most five epochs here" in problem


def policy(served: Served) -> None:
    """A rule of the cluster's own, in force for this namespace."""
    rule = {"expression": "object.spec.train.epochs < 6", "message": "at most five epochs here"}
    resources = {
        "apiGroups": [names.GROUP],
        "apiVersions": ["*"],
        "resources": [names.PLURAL],
        "operations": ["CREATE"],
    }
    selector = {"matchLabels": {"kubernetes.io/metadata.name": served.namespace}}
    base = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "few"}}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [resources]},
        "validations": [rule],
    }
    binding = {
        "policyName": "few",
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": selector},
    }
    items = [
        {**base, "kind": "ValidatingAdmissionPolicy", "spec": spec},
        {**base, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    ]
    made = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    served.kubectl("apply", "-f", "-", stdin=made)
    probe = json.dumps(
        {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": "probe"},
            "spec": {"model": "m", "environment": {"id": "a/b"}, "train": {"epochs": 9}},
        }
    )
    until_refused(served, probe)


def until_refused(served: Served, manifest: str) -> None:
    """A policy is in force shortly after it was made."""
    words = ("create", "--dry-run=server", "-f", "-")
    for _ in range(100):
        try:
            served.kubectl(*words, stdin=manifest)
        except subprocess.CalledProcessError as refused:
            if "at most five" not in refused.stderr:
                raise
            return
        time.sleep(0.2)
    raise AssertionError("the policy never came into force")


def quota(served: Served, **hard: str) -> None:
    name = "team"
    made = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": name},
        "spec": {"hard": hard},
    }
    served.kubectl("apply", "-f", "-", stdin=json.dumps(made))
    path = "jsonpath={.status.hard}"
    served.kubectl("wait", "--for", path, f"resourcequota/{name}", "--timeout=60s")


@pytest.mark.parametrize(
    ("allowed", "problem"),
    [("0", "it would never start"), ("4", None)],
    ids=["too little", "enough"],
)
def test_a_quota_of_gpus_is_compared(served: Served, allowed: str, problem: str | None) -> None:
    served.push()
    quota(served, **{"requests.nvidia.com/gpu": allowed})
    found = asked(served)

    assert found["server"]["quota"] == {"hard": int(allowed), "used": 0}
    assert [problem in text for text in found["problems"]] == ([True] if problem else [])


def test_what_cannot_be_seen_from_here_is_a_note(served: Served) -> None:
    served.kubectl("delete", "secret", names.STORAGE_USER_SECRET)
    served.kubectl("delete", "configmap", names.PUBLIC_CONFIG_MAP)
    found = asked(served)

    assert found["problems"] == []
    assert any("models and pools are those that were seen last" in note for note in found["notes"])
    assert any("environment and adapter were not checked" in note for note in found["notes"])


def test_server_without_dry_run_is_refused(served: Served) -> None:
    done = served.flash("train", "config.toml", "--server")

    assert done.returncode == 2
    assert "--server goes with --dry-run" in done.stderr
    assert served.count("flashrun") == 0


# --- the adapter to start from ------------------------------------------------------------------


def test_rank_and_alpha_come_from_the_adapter(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", WARM)
    commit(served, "flash-1-a", step=50)
    found = asked(served, "--set", "train.init_from_adapter=flash-1-a/step-50")

    assert found["problems"] == []
    assert found["server"]["adapter"] == {"usable": True, "rank": 16, "alpha": 32}


def test_the_newest_run_of_a_name_counts_also_when_its_object_is_gone(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", WARM)
    commit(served, "flash-1-a", "uid-1", created=NOW - timedelta(days=1), lora_rank=8)
    commit(served, "flash-1-a", "uid-2")

    found = asked(served, "--set", "train.init_from_adapter=flash-1-a")
    assert found["server"]["adapter"]["rank"] == 16
    assert served.submit("--set", "train.init_from_adapter=flash-1-a")


def uncommitted(served: Served) -> None:
    commit(served, "flash-1-a", step=10)
    prefix = names.step_prefix(names.run_prefix(served.namespace, "flash-1-a", "uid-1"), 1, 20)
    served.store.put_bytes(f"{prefix}adapter_model.safetensors", b"weights")


def incomplete(served: Served) -> None:
    prefix = commit(served, "flash-1-a", step=20)
    served.store.delete([f"{prefix}adapter_model.safetensors"])


REFUSED = {
    "a run that never was": (lambda served: None, "flash-0-b", "there is no run flash-0-b"),
    "a step that is not committed": (
        uncommitted,
        "flash-1-a/step-20",
        "flash-1-a/step-20 is not committed (the run is deleted): use one of flash-1-a/step-10",
    ),
    "a step whose files are gone": (incomplete, "flash-1-a/step-20", "is not committed"),
    "a run that has not finished": (
        lambda served: commit(served, "flash-1-a", step=10),
        "flash-1-a",
        "run flash-1-a has no final adapter (it is deleted): use one of flash-1-a/step-10",
    ),
    "a run of another namespace": (
        lambda served: commit(served, "flash-1-a", namespace="elsewhere"),
        "flash-1-a",
        "adapters of another namespace cannot be used",
    ),
    "a manifest that is another run's": (
        lambda served: commit(
            served, "flash-1-a", run=RunIdentity(namespace="x", name="y", uid="z")
        ),
        "flash-1-a",
        "has no final adapter",
    ),
    "another model": (
        lambda served: commit(served, "flash-1-a", base_model="Qwen/Qwen3.5-9B"),
        "flash-1-a",
        "the adapter was trained on Qwen/Qwen3.5-9B",
    ),
}


@pytest.mark.parametrize(("make", "ref", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_a_run_cannot_start_from_is_refused_before_it_is_submitted(
    served: Served, make: Any, ref: str, sentence: str
) -> None:
    served.push()
    served.flash.write("config.toml", WARM)
    make(served)
    words = ("--set", f"train.init_from_adapter={ref}")

    done = served.flash("train", "config.toml", "--background", *words)
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
    assert served.count("flashrun") == 0
    [problem] = asked(served, *words)["problems"]
    assert sentence in problem


@pytest.mark.parametrize(("key", "value"), [("lora_rank", 32), ("lora_alpha", 64)])
def test_another_rank_or_alpha_than_the_adapters_is_refused(
    served: Served, key: str, value: int
) -> None:
    served.push()
    served.flash.write("config.toml", WARM)
    commit(served, "flash-1-a")
    words = ("--set", "train.init_from_adapter=flash-1-a", "--set", f"train.{key}={value}")
    done = served.flash("train", "config.toml", "--background", *words)

    assert done.returncode == 2
    assert f"train.{key}: is {value}, but it comes from the adapter" in done.stderr


def test_without_storage_the_operator_decides(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", WARM)
    served.kubectl("delete", "secret", names.STORAGE_USER_SECRET)
    words = ("--set", "train.init_from_adapter=flash-0-b")
    done = served.flash("train", "config.toml", "--background", *words)

    assert done.returncode == 0
    assert "note: storage was not checked from here" in done.stderr
