"""``flash train``: submit a run, follow it to its end, or only check its config."""

import base64
import json
import signal

from flashrun.api import names
from tests.cli.following import ForegroundTrain, Stage, wait_for
from tests.cli.kubelet import Kubelet
from tests.cli.shell import REFERENCE, WITH_SECRETS, Served, Shell


def test_train_creates_the_run_and_then_the_secret_it_owns(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", WITH_SECRETS)
    served.flash.write(".env", "OTHER='from the file'\nSERVICE_API_KEY=not this one\n")
    served.flash.variables.update(SERVICE_API_KEY="from the shell", WANDB_API_KEY="for wandb")

    name = served.submit()

    run = served.get("flashrun", name)
    assert run["spec"]["environment"]["secrets"] == ["SERVICE_API_KEY", "OTHER"]
    assert run["spec"]["secretRefs"] == [{"name": f"{name}-env"}]
    secret = served.get("secret", f"{name}-env")
    values = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    assert values == {
        "SERVICE_API_KEY": "from the shell",
        "OTHER": "from the file",
        "WANDB_API_KEY": "for wandb",
    }
    assert secret["metadata"]["labels"][names.SECRETS_LABEL] == "true"
    [owner] = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("FlashRun", run["metadata"]["uid"])
    assert "annotations" not in secret["metadata"]  # no copy of the values
    assert "from the shell" not in json.dumps(run)


def test_a_model_that_the_platform_does_not_have_is_refused(served: Served) -> None:
    done = served.flash("train", "config.toml", "--set", "model=Qwen/Qwen3.5-4C")

    assert done.returncode == 2
    assert "did you mean 'Qwen/Qwen3.5-4B'" in done.stderr


def test_a_followed_run_that_succeeds_ends_with_0_and_its_state(served: Served) -> None:
    with ForegroundTrain(served) as (name, process):
        progress = {"step": 3, "totalSteps": 10, "percent": 30, "metrics": {"loss": "1.5"}}
        served.report(name, phase="Running", progress=progress)
        wait_for(process, "step 3/10 (30%) · loss 1.5")
        served.report(name, phase="Succeeded", adapter={"ref": name, "bytes": 1})
        rest = process.communicate(timeout=60)[1]

    assert process.returncode == 0
    assert f"{name} succeeded. Get the adapter: flash pull {name}" in rest


def test_a_followed_run_that_fails_ends_with_1_and_the_reason(served: Served) -> None:
    failure = {"reason": "RewardFailed", "message": "The reward raised.", "hint": "Mend it."}
    with ForegroundTrain(served) as (name, process):
        served.report(name, phase="Failed", failure=failure)
        rest = process.communicate(timeout=60)[1]

    assert process.returncode == 1
    assert f"{name} failed: The reward raised. Mend it." in rest


def test_control_c_detaches_and_prints_how_to_come_back(served: Served) -> None:
    with ForegroundTrain(served) as (name, process):
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]

    assert process.returncode == 130
    assert f"flash log {name} -f" in rest
    assert served.get("flashrun", name)["spec"].get("control") is None


def test_train_shows_the_whole_log_before_it_ends(served: Served, kubelet: Kubelet) -> None:
    with ForegroundTrain(served) as (name, process):
        uid = served.get("flashrun", name)["metadata"]["uid"]
        stage = Stage(served, kubelet, name, uid)
        stage.pod().write(*(f"line {number}" for number in range(500)), "last")
        stage.ended()
        stage.report(phase="Succeeded", adapter={"ref": name, "bytes": 1}, **stage.attempts(1))
        out, told = process.communicate(timeout=60)

    assert process.returncode == 0
    shown = out.splitlines()
    assert shown[:501] == [*(f"line {number}" for number in range(500)), "last"]
    assert "Phase:       Succeeded" in shown[501:]
    assert f"{name} succeeded. Get the adapter: flash pull {name}" in told


def test_an_answer_for_programs_is_one_document(served: Served, kubelet: Kubelet) -> None:
    with ForegroundTrain(served, "-o", "json") as (name, process):
        stage = Stage(served, kubelet, name, served.get("flashrun", name)["metadata"]["uid"])
        stage.pod().write("a line of the log")
        stage.ended()
        stage.report(phase="Succeeded", adapter={"ref": name, "bytes": 1}, **stage.attempts(1))
        out, told = process.communicate(timeout=60)

    assert json.loads(out)["status"]["phase"] == "Succeeded"
    assert "a line of the log" in told


def test_server_without_dry_run_is_refused(served: Served) -> None:
    done = served.flash("train", "config.toml", "--server")

    assert done.returncode == 2
    assert "--server works only with --dry-run" in done.stderr
    assert served.count("flashrun") == 0


def test_a_secret_without_a_value_submits_nothing_and_needs_no_cluster(shell: Shell) -> None:
    shell.write("config.toml", REFERENCE.replace("[train]", 'secrets = ["A", "B"]\n[train]'))
    done = shell("train", "config.toml")

    assert done.returncode == 2
    assert "environment.secrets names A, B, but no value is set" in done.stderr
    assert shell("train", "config.toml", "--dry-run").returncode == 0
