"""``flash rerun``: the spec of an old run with changes, submitted again."""

import base64
import json

from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import REFERENCE, Served

WITH_SECRET = REFERENCE.replace("[train]", 'secrets = ["SERVICE_API_KEY"]\n\n[train]')


def test_a_rerun_is_the_old_run_with_changes(served: Served, run: str) -> None:
    served.flash.write("more.toml", "[train]\nepochs = 5\nlearning_rate = 2e-4\n")
    words = ("--config", "more.toml", "--set", "train.epochs=6", "--background")
    done = served.flash("rerun", run, *words)
    new = done.stdout.strip()

    old_spec, new_spec = (served.get("flashrun", name)["spec"] for name in (run, new))
    assert new_spec.pop("train") == {**old_spec.pop("train"), "epochs": 6, "learningRate": 2e-4}
    assert new_spec == old_spec


def test_a_rerun_is_checked_as_a_config_is(served: Served, run: str) -> None:
    done = served.flash("rerun", run, "--set", "train.lora_rank=65", "--set", "train.epochs=2")

    assert done.returncode == ExitCode.USAGE
    assert "--set train.lora_rank: 65 is above Qwen/Qwen3.5-4B's cap" in done.stderr
    assert served.count("flashrun") == 1


def test_a_dry_rerun_says_what_came_from_the_run(served: Served, run: str) -> None:
    words = ("--dry-run", "--set", "train.epochs=2", "-o", "json")
    answer = json.loads(served.flash("rerun", run, *words).stdout)

    assert answer["spec"]["train"]["epochs"] == 2
    assert answer["sources"]["train.epochs"] == "--set train.epochs"
    assert answer["sources"]["train.lora_rank"] == f"run {run}"
    assert answer["sources"]["train.batch_size"] == "recipe"
    assert served.count("flashrun") == 1


def test_a_dry_rerun_can_ask_the_cluster(served: Served, run: str) -> None:
    words = ("--dry-run", "--server", "--set", "train.epochs=2", "-o", "json")
    answer = json.loads(served.flash("rerun", run, *words).stdout)

    assert answer["server"]["admission"]["accepted"]
    assert answer["spec"]["train"]["epochs"] == 2
    assert served.flash("rerun", run, "--server").returncode == ExitCode.USAGE
    assert served.count("flashrun") == 1


def test_a_rerun_takes_secrets_from_the_shell_and_never_from_the_old_run(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", WITH_SECRET)
    served.flash.variables["SERVICE_API_KEY"] = "the old value"
    old = served.submit()

    del served.flash.variables["SERVICE_API_KEY"]
    refused = served.flash("rerun", old, "--background")
    assert refused.returncode == ExitCode.USAGE
    assert "SERVICE_API_KEY" in refused.stderr
    assert served.count("flashrun") == 1

    served.flash.variables["SERVICE_API_KEY"] = "the new value"
    new = served.flash("rerun", old, "--background").stdout.strip()
    data = served.get("secret", f"{new}-env")["data"]
    assert base64.b64decode(data["SERVICE_API_KEY"]) == b"the new value"
    assert served.get("flashrun", new)["spec"]["secretRefs"] == [{"name": f"{new}-env"}]


def test_a_rerun_keeps_pointing_to_secrets_that_were_not_made_for_the_old_run(
    served: Served,
) -> None:
    served.push()
    served.flash.write("config.toml", WITH_SECRET)
    words = ("--name", "from-git", "--secret", "team-keys")
    rendered = served.flash("render", "config.toml", *words).stdout
    served.kubectl("apply", "-f", "-", stdin=rendered)

    new = served.flash("rerun", "from-git", "--background").stdout.strip()

    assert served.get("flashrun", new)["spec"]["secretRefs"] == [{"name": "team-keys"}]
