"""Submitting a sweep twice, into a conflict, and with secrets."""

from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import REFERENCE, Served

SWEEP = 'config = "config.toml"\nlimit = 2\n[grid]\ntrain.epochs = [1, 2, 3]\n'


def prepare(served: Served, config: str = REFERENCE) -> None:
    served.push()
    served.flash.write("config.toml", config)
    served.flash.write("epochs.toml", SWEEP)


def test_a_sweep_that_was_interrupted_is_completed_by_the_same_command(served: Served) -> None:
    prepare(served)
    first = served.flash("sweep", "epochs.toml", "-o", "name")
    assert first.returncode == 0, first.stderr
    runs = first.stdout.split()
    assert "submitted 3 runs of sweep" in first.stderr
    served.kubectl("delete", "flashrun", runs[1])

    again = served.flash("sweep", "epochs.toml", "-o", "name")
    assert again.stdout.split() == runs
    assert "submitted 1 runs of sweep" in again.stderr
    assert "; 2 were there already" in again.stderr
    assert served.count("flashrun") == 3
    specs = [served.get("flashrun", name)["spec"] for name in runs]
    assert [spec["sweep"] for spec in specs] == [{"name": "epochs", "limit": 2}] * 3
    assert [spec["train"]["epochs"] for spec in specs] == [1, 2, 3]
    found = served.kubectl("get", "flashrun", "-l", "flashrun.dev/sweep=epochs", "-oname")
    assert len(found.split()) == 3


def test_a_sweep_with_another_limit_needs_another_name(served: Served) -> None:
    prepare(served)
    served.flash("sweep", "epochs.toml")
    done = served.flash("sweep", "epochs.toml", "--limit", "3")
    assert done.returncode == ExitCode.RUN_FAILED
    assert "0 of 3 runs were submitted" in done.stderr
    assert "exists with another limit" in done.stderr
    assert served.flash("sweep", "epochs.toml", "--limit", "3", "--name", "more").returncode == 0
    assert served.count("flashrun") == 6


def test_nothing_is_submitted_when_one_run_would_be_refused(served: Served) -> None:
    prepare(served)
    done = served.flash("sweep", "epochs.toml", "--set", "train.lora_rank=65")
    assert done.returncode == ExitCode.USAGE
    served.flash.write("epochs.toml", SWEEP.replace("3]", "0]"))
    done = served.flash("sweep", "epochs.toml")
    assert done.returncode == ExitCode.USAGE
    assert "(run with train.epochs=0)" in done.stderr
    assert served.count("flashrun") == 0


def test_each_run_has_a_secret_with_the_values_of_the_shell(served: Served) -> None:
    prepare(served, REFERENCE.replace("[train]", 'secrets = ["SERVICE_API_KEY"]\n\n[train]'))
    refused = served.flash("sweep", "epochs.toml")
    assert refused.returncode == ExitCode.USAGE
    assert "SERVICE_API_KEY" in refused.stderr
    served.flash.variables["SERVICE_API_KEY"] = "the value"
    for name in served.flash("sweep", "epochs.toml", "-o", "name").stdout.split():
        assert served.get("secret", f"{name}-env")["data"]
        assert served.get("flashrun", name)["spec"]["secretRefs"] == [{"name": f"{name}-env"}]
