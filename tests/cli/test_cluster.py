"""The command line against a real API server and a real S3 server; the operator is played."""

import base64
import json
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashrun.api import names
from flashrun.api.records import Manifest
from tests.cli.conftest import REFERENCE, Served, Shell

pytestmark = pytest.mark.api

NOW = "2026-11-22T12:00:00Z"
WITH_SECRETS = REFERENCE.replace("[train]", 'secrets = ["SERVICE_API_KEY", "OTHER"]\n\n[train]')


def checkpoint(run: str, step: int) -> dict[str, Any]:
    return {"ref": f"{run}/step-{step}", "step": step, "bytes": 2048, "createdTime": NOW}


# --- train --------------------------------------------------------------------------------------


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


def test_missing_secrets_are_named_together_and_nothing_is_created(served: Served) -> None:
    served.flash.write("config.toml", WITH_SECRETS)
    served.flash.write(".env.local", "OTHER=\n")

    done = served.flash("train", "config.toml", "--background")

    assert done.returncode == 2
    assert "SERVICE_API_KEY, OTHER" in done.stderr
    assert served.count("flashrun") == 0
    assert served.count("secret") == 1  # only the platform's


def test_a_refused_secret_takes_the_run_back(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", WITH_SECRETS)
    served.flash.write(".env", f"SERVICE_API_KEY={'x' * 700_000}\nOTHER={'y' * 700_000}\n")

    done = served.flash("train", "config.toml", "--background")

    assert done.returncode == 1
    assert "the run was deleted, as its Secret was refused" in done.stderr
    assert "xxx" not in done.stderr
    assert served.count("flashrun") == 0


def test_an_environment_that_was_never_pushed_is_refused_with_the_way_out(served: Served) -> None:
    done = served.flash("train", "config.toml", "--background")

    assert done.returncode == 2
    assert "flash env push FOLDER --name your-org/your-env" in done.stderr
    assert served.count("flashrun") == 0


def test_a_model_that_the_platform_does_not_have_is_refused(served: Served) -> None:
    done = served.flash("train", "config.toml", "--set", "model=Qwen/Qwen3.5-4C")

    assert done.returncode == 2
    assert "did you mean 'Qwen/Qwen3.5-4B'" in done.stderr


def test_kubectl_apply_of_render_stores_what_train_stores(served: Served) -> None:
    served.push()
    trained = served.get("flashrun", served.submit())
    rendered = served.flash("render", "config.toml", "--name", "from-git").stdout
    served.kubectl("apply", "-f", "-", stdin=rendered)

    assert served.get("flashrun", "from-git")["spec"] == trained["spec"]


def test_a_followed_run_that_succeeds_ends_with_0_and_its_state(served: Served) -> None:
    with followed(served) as (name, process):
        progress = {"step": 3, "totalSteps": 10, "percent": 30, "metrics": {"loss": "1.5"}}
        served.report(name, phase="Running", progress=progress)
        wait_for(process, "step 3/10 (30%) · loss 1.5")
        served.report(name, phase="Succeeded", adapter={"ref": name, "bytes": 1})
        rest = process.communicate(timeout=60)[1]

    assert process.returncode == 0
    assert f"{name} succeeded. Get the adapter: flash pull {name}" in rest


def test_a_followed_run_that_fails_ends_with_1_and_the_reason(served: Served) -> None:
    failure = {"reason": "RewardFailed", "message": "The reward raised.", "hint": "Mend it."}
    with followed(served) as (name, process):
        served.report(name, phase="Failed", failure=failure)
        rest = process.communicate(timeout=60)[1]

    assert process.returncode == 1
    assert f"{name} failed: The reward raised. Mend it." in rest


def test_control_c_detaches_and_says_how_to_come_back(served: Served) -> None:
    with followed(served) as (name, process):
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]

    assert process.returncode == 130
    assert f"flash log {name} -f" in rest
    assert served.get("flashrun", name)["spec"].get("control") is None


class followed:  # noqa: N801
    """``flash train`` in the foreground, until it has submitted its run."""

    def __init__(self, served: Served) -> None:
        served.push()
        self.process = subprocess.Popen(
            served.flash.argv("train", "config.toml"),
            env=served.flash.environment,
            cwd=served.flash.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that runs tests in the background makes its children ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def __enter__(self) -> tuple[str, "subprocess.Popen[str]"]:
        line = wait_for(self.process, "submitted")
        name = line.strip().rpartition("/")[2]
        wait_for(self.process, name)  # it follows
        return name, self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"{text!r} was never said")


# --- looking at runs ----------------------------------------------------------------------------


def test_status_says_why_a_run_waits(served: Served) -> None:
    served.push()
    name = served.submit()
    pending = {"reason": "NoPoolFits", "message": "No pool has 80 GiB."}
    served.report(name, phase="Pending", pending=pending)

    lines = served.flash("status", name).stdout.splitlines()

    assert "Phase:       Pending" in lines
    assert "Waiting:     No pool has 80 GiB. (NoPoolFits)" in lines
    assert served.flash("status", name, "-o", "name").stdout == f"{name} Pending\n"


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_status_gives_programs_the_whole_object(served: Served, form: str, read: Any) -> None:
    served.push()
    name = served.submit()

    assert read(served.flash("status", name, "-o", form).stdout) == served.get("flashrun", name)


@pytest.mark.parametrize("command", ["status", "log", "checkpoints", "cancel", "save", "pull"])
def test_a_run_that_does_not_exist_ends_with_3(served: Served, command: str) -> None:
    done = served.flash(command, "flash-1-gone")

    assert done.returncode == 3
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_checkpoints_are_one_reference_a_line(served: Served) -> None:
    served.push()
    name = served.submit()
    served.report(name, checkpoints=[checkpoint(name, 20), checkpoint(name, 10)], checkpointCount=2)

    listed = served.flash("checkpoints", name).stdout

    assert listed == f"step 10 {name}/step-10\nstep 20 {name}/step-20\n"


def test_checkpoints_that_status_no_longer_lists_come_from_storage(
    served: Served, tmp_path: Path
) -> None:
    served.push()
    name = served.submit()
    uid = served.get("flashrun", name)["metadata"]["uid"]
    place = names.step_prefix(names.run_prefix(served.namespace, name, uid), 1, 10)
    commit(served, place, "checkpoint", {"adapter/adapter_config.json": b"{}"}, tmp_path / "made")
    served.report(name, checkpoints=[checkpoint(name, 20)], checkpointCount=2)

    steps = json.loads(served.flash("checkpoints", name, "-o", "json").stdout)
    assert [(item["step"], item["bytes"]) for item in steps] == [(10, 2), (20, 2048)]


def test_runs_are_listed_newest_first(served: Served) -> None:
    served.push()
    first = served.submit()
    time.sleep(1.1)  # creation times have whole seconds
    second = served.submit()

    assert served.flash("runs", "-o", "name").stdout.split() == [second, first]
    assert [line.split("\t")[0] for line in served.flash("runs").stdout.splitlines()] == [
        second,
        first,
    ]


def test_cancel_turns_the_switch_and_says_what_is_kept(served: Served) -> None:
    served.push()
    name = served.submit()
    process = subprocess.Popen(
        served.flash.argv("cancel", name),
        env=served.flash.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(process, "cancelling")
    assert served.get("flashrun", name)["spec"]["control"] == {"cancel": True}
    kept = {"checkpoints": [checkpoint(name, 20)], "checkpointCount": 1}
    served.report(name, phase="Cancelled", **kept)

    assert "its 1 checkpoint is kept" in process.communicate(timeout=60)[0]
    assert process.returncode == 0


def test_save_asks_for_a_checkpoint(served: Served) -> None:
    served.push()
    name = served.submit()

    assert served.flash("save", name).returncode == 0
    assert served.get("flashrun", name)["spec"]["control"]["saveRequest"]


def test_the_log_of_a_gone_pod_comes_from_storage(served: Served) -> None:
    served.push()
    name = served.submit()
    uid = served.get("flashrun", name)["metadata"]["uid"]
    prefix = names.run_prefix(served.namespace, name, uid)
    served.store.put_bytes(names.log_key(prefix, 1), b"first\n")
    served.store.put_bytes(names.log_key(prefix, 2), b"second\nlast")
    attempts = [{"number": 1, "pod": "gone-1"}, {"number": 2, "pod": "gone-2"}]
    served.report(name, phase="Failed", attempts=attempts)

    assert served.flash("log", name).stdout == "second\nlast\n"
    assert served.flash("log", name, "--attempt", "1").stdout == "first\n"
    assert served.flash("log", name, "-f").stdout == "first\nsecond\nlast\n"
    assert served.flash("log", name, "--attempt", "7").returncode == 3


# --- storage ------------------------------------------------------------------------------------


def commit(served: Served, prefix: str, kind: str, files: dict[str, bytes], folder: Path) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    created = datetime.now(UTC)
    served.store.upload_folder(
        prefix, folder, lambda entries: Manifest(kind=kind, created=created, files=entries)
    )


def test_pull_fetches_a_checkpoint_of_the_newest_attempt(served: Served, tmp_path: Path) -> None:
    prefix = names.run_prefix(served.namespace, "flash-1-a", "uid")
    for attempt in (1, 2):
        files = {
            "adapter/adapter_config.json": b"{}",
            "adapter/adapter_model.safetensors": b"weights %d" % attempt,
        }
        place = names.step_prefix(prefix, attempt, 5)
        commit(served, place, "checkpoint", files, tmp_path / f"made-{attempt}")

    done = served.flash("pull", "flash-1-a/step-5", "mine")

    assert done.stdout == "mine\n"
    assert (tmp_path / "mine" / "adapter_model.safetensors").read_bytes() == b"weights 2"
    assert (tmp_path / "mine" / "adapter_config.json").exists()


def test_pull_fetches_the_final_adapter_of_the_attempt_that_published_it(
    served: Served, tmp_path: Path
) -> None:
    prefix = names.adapter_prefix(names.run_prefix(served.namespace, "flash-1-c", "uid"))
    place = names.adapter_folder(2)
    files = {f"{place}/adapter_config.json": b"{}", f"{place}/README.md": b"two"}
    commit(served, prefix, "adapter", files, tmp_path / "made")
    served.store.put_bytes(f"{prefix}{names.adapter_folder(1)}/README.md", b"one")

    served.flash("pull", "flash-1-c", "mine")

    found = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    assert found == {"adapter_config.json": b"{}", "README.md": b"two"}


def test_pull_refuses_what_storage_changed_and_leaves_nothing(
    served: Served, tmp_path: Path
) -> None:
    prefix = names.adapter_prefix(names.run_prefix(served.namespace, "flash-1-b", "uid"))
    commit(served, prefix, "adapter", {"adapter_config.json": b"{}"}, tmp_path / "made")
    served.store.put_bytes(f"{prefix}adapter_config.json", b"[]")

    done = served.flash("pull", "flash-1-b", "mine")

    assert done.returncode == 1
    assert "manifest" in done.stderr
    assert not (tmp_path / "mine").exists()


def test_pull_never_touches_a_folder_that_has_something_in_it(served: Served) -> None:
    assert served.flash("pull", "flash-1-a", ".").returncode == 2


def test_models_are_the_platforms_and_known_offline_afterwards(served: Served) -> None:
    online = served.flash("models").stdout

    fits = "1 x h100 (48 GiB)\t1 x h100 (80 GiB)"
    assert f"Qwen/Qwen3.5-9B\t9.7B\thybrid\t64\t8192\t{fits}" in online.splitlines()
    assert served.flash("models", "--offline").stdout == online


def test_a_cluster_that_does_not_answer_is_one_sentence(served: Served, tmp_path: Path) -> None:
    config = yaml.safe_load(Path(served.flash.environment["KUBECONFIG"]).read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    broken = tmp_path / "broken"
    broken.write_text(yaml.safe_dump(config))

    done = Shell(tmp_path, broken)("runs")

    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
