"""``flash train --dry-run --server``: what only the cluster knows; nothing is created."""

import json
import subprocess
import time
import tomllib

import pytest

from flashrun.api import names, public
from flashrun.api.public import PublicPool
from tests.cli.shell import REFERENCE, SERVER_DRY_RUN, WARM_START, Served, ask_server


def test_it_prints_the_resolved_spec_and_what_the_cluster_adds(served: Served) -> None:
    served.push()
    served.publish(pools=(PublicPool(name="h100", vram=80, total=8, free=3),))
    done = served.flash(*SERVER_DRY_RUN)

    assert (done.returncode, done.stderr) == (0, "")
    assert tomllib.loads(done.stdout)["train"]["lora_alpha"] == 64  # it can be submitted as it is
    told = done.stdout.split("# from the cluster\n")[1].splitlines()
    assert [line.split(":")[0] for line in told] == [
        *("# admission", "# storage", "# environment", "# pool", "# pod", "# secrets")
    ]
    assert told[0].startswith("# admission: accepted (context ")
    assert told[3] == "# pool: 1 GPU of h100 (80 GiB each, 3 of 8 free)"
    assert served.count("flashrun") == 0


def test_every_problem_is_reported_at_once(served: Served) -> None:
    served.publish(pools=(PublicPool(name="small", vram=8),))
    config = WARM_START.replace("[train]", 'secrets = ["KEY_A", "KEY_B"]\n\n[train]')
    served.flash.write("config.toml", config)
    found = ask_server(
        served, "--set", "train.init_from_adapter=flash-1-gone", "-n", served.namespace
    )

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

    assert ask_server(served)["server"]["environment"]["digest"] == digest


def test_names_of_secrets_are_shown_and_values_never(served: Served) -> None:
    served.push()
    served.flash.write(
        "config.toml", REFERENCE.replace("[train]", 'secrets = ["KEY_A"]\n\n[train]')
    )
    served.flash.write(".env", "KEY_A=the-value\nWANDB_API_KEY=the-other-value\n")
    done = served.flash(*SERVER_DRY_RUN)

    assert "# secrets: KEY_A is set, WANDB_API_KEY is set" in done.stdout
    assert "-value" not in done.stdout + done.stderr
    assert served.count("secret") == 1  # the platform's


def test_a_policy_of_the_cluster_refuses_the_run(served: Served) -> None:
    served.push()
    policy(served)
    try:
        found = ask_server(served, "--set", "train.epochs=7")
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
    found = ask_server(served)

    assert found["server"]["quota"] == {"hard": int(allowed), "used": 0}
    assert [problem in text for text in found["problems"]] == ([True] if problem else [])


def test_what_cannot_be_checked_from_here_is_a_note(served: Served) -> None:
    served.kubectl("delete", "secret", names.STORAGE_USER_SECRET)
    served.kubectl("patch", "configmap", names.PUBLIC_CONFIG_MAP, "-p", '{"data": {"x": "1"}}')
    patch = json.dumps([{"op": "remove", "path": f"/data/{public.FILE.replace('/', '~1')}"}])
    served.kubectl("patch", "configmap", names.PUBLIC_CONFIG_MAP, "--type=json", "-p", patch)
    found = ask_server(served)

    assert found["problems"] == []
    assert any("models and pools are those that were seen last" in note for note in found["notes"])
    assert any("environment and adapter were not checked" in note for note in found["notes"])


def test_a_namespace_that_nobody_serves_is_a_problem(served: Served) -> None:
    served.push()
    served.kubectl("delete", "configmap", names.PUBLIC_CONFIG_MAP)
    [problem] = ask_server(served)["problems"]

    assert f"the operator does not serve namespace {served.namespace}" in problem
