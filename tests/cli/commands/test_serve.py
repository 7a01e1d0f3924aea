"""``flash serve``: objects that the API server accepts, and a list that stays the same."""

import hashlib
import json

import pytest
import yaml

from flashrun.api import names
from flashrun.api.served import ServedList
from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import Served
from tests.cli.storage import commit_adapter, store_spec, trained_run


@pytest.fixture
def trained(served: Served) -> str:
    return trained_run(served, 5, 10)


def served_ids(served: Served, server: str) -> list[str]:
    data = served.get("configmap", server)["data"]
    listed = ServedList.model_validate_json(data[names.SERVED_KEY])
    return [adapter.id for adapter in listed.adapters]


def test_a_run_is_served_with_every_checkpoint_and_removed_again(
    served: Served, trained: str
) -> None:
    everything = [trained, f"{trained}/step-5", f"{trained}/step-10"]

    rendered = served.flash("serve", trained)
    assert rendered.returncode == 0, rendered.stderr
    objects = list(yaml.safe_load_all(rendered.stdout))
    assert [item["kind"] for item in objects] == ["ConfigMap", "Deployment", "Service"]
    assert "&id" not in rendered.stdout, "not an alias that nobody would write"
    assert served.count("deployment") == 0
    # A restricted namespace admits the pod; the API server knows every field.
    level = "pod-security.kubernetes.io/enforce=restricted"
    served.kubectl("label", "namespace", served.namespace, level)
    checked = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    served.kubectl(*checked, stdin=rendered.stdout)
    template = objects[1]["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {**pod["metadata"], "name": "like-its-pod"}
    served.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))

    applied = served.flash("serve", trained, "--apply", "--engine", "transformers")
    assert applied.returncode == 0, applied.stderr
    assert applied.stdout.split() == everything
    assert applied.stderr.rstrip().endswith(f"flash chat {trained}")
    server = names.server_name(trained)
    assert served_ids(served, server) == everything
    [container] = served.get("deployment", server)["spec"]["template"]["spec"]["containers"]
    assert {"name": "FLASHRUN_ENGINE", "value": "transformers"} in container["env"]
    assert names.GPU_RESOURCE not in container["resources"]["limits"]

    removed = served.flash("serve", trained, "--remove")
    assert removed.returncode == 0, removed.stderr
    assert (served.count("deployment"), served.count("service")) == (0, 0)
    again = served.flash("serve", trained, "--remove")
    assert again.returncode == ExitCode.NOT_FOUND


def test_one_checkpoint_is_pinned_by_the_digest_of_its_manifest(
    served: Served, trained: str
) -> None:
    done = served.flash("serve", f"{trained}/step-5", "--name", "mine", "--gpus", "1")

    config_map, deployment, _ = yaml.safe_load_all(done.stdout)
    [adapter] = ServedList.model_validate_json(config_map["data"][names.SERVED_KEY]).adapters
    manifest = served.store.get_bytes(adapter.prefix + names.MANIFEST)
    assert adapter.manifest == hashlib.sha256(manifest).hexdigest()
    assert (adapter.id, adapter.rank) == (f"{trained}/step-5", 32)
    assert config_map["metadata"]["name"] == "mine"
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"][names.GPU_RESOURCE] == "1"
    repeated = served.flash("serve", f"{trained}/step-5", "--name", "mine", "--gpus", "1")
    assert repeated.stdout == done.stdout


def test_what_cannot_be_served_together_or_does_not_exist_is_refused(
    served: Served, trained: str
) -> None:
    other = served.submit("--set", "model=Qwen/Qwen3.5-2B")
    commit_adapter(served, other, store_spec(served, other))

    apart = served.flash("serve", trained, other)
    assert apart.returncode == ExitCode.USAGE
    assert "one server has one base model" in apart.stderr
    missing = served.flash("serve", f"{trained}/step-7")
    assert missing.returncode == ExitCode.NOT_FOUND
    assert f"no adapter is saved as {trained}/step-7" in missing.stderr
    pool = served.flash("serve", trained, "--pool", "nowhere")
    assert pool.returncode == ExitCode.NOT_FOUND
    many = served.flash("serve", trained, "--gpus", "100")
    assert many.returncode == ExitCode.USAGE
    assert "fewer than --gpus asks for" in many.stderr
    served.kubectl("create", "service", "clusterip", "theirs", "--tcp=80")
    for how in ("--apply", "--remove"):
        taken = served.flash("serve", trained, "--name", "theirs", how)
        assert taken.returncode == ExitCode.USAGE
        assert "Service theirs" in taken.stderr
    assert served.count("service") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--apply", "--remove"), "exclude each other"),
        (("run", "--name", "Mine"), "cannot be the name of a server"),
        (("run", "--name", "", "--remove"), "'' cannot be the name of a server"),
        (("run", "--gpus", "0"), "use --engine transformers"),
        (("run", "--engine", "transformers", "--gpus", "1"), "computes without a GPU"),
        (("run", "--engine", "transformers", "--pool", "h100"), "computes without a GPU"),
        (("Run",), "is not an adapter reference"),
    ],
)
def test_a_wrong_command_asks_no_cluster(shell, words: tuple[str, ...], said: str) -> None:
    done = shell("serve", *words)

    assert done.returncode == ExitCode.USAGE
    assert said in done.stderr
