"""From a config to the FlashRun that is submitted."""

import yaml

from flashrun.api.public import PublicPlatform
from tests.cli.shell import ROOT, Served, Shell


def test_the_golden_run_renders_as_it_is_kept(shell: Shell) -> None:
    folder = ROOT / "tests" / "runs" / "sums-grpo"
    kept = yaml.safe_load((folder / "flashrun.yaml").read_text())
    [secret] = [ref["name"] for ref in kept["spec"]["secretRefs"]]
    words = ("--name", kept["metadata"]["name"], "-n", kept["metadata"]["namespace"])
    told = PublicPlatform.validate_manifest(
        {"models": [{"id": kept["spec"]["model"], "parameters": 1}]}
    )
    shell.write(".cache/flashrun/platform.json", told.model_dump_json(by_alias=True))
    done = shell("render", str(folder / "config.toml"), *words, "--secret", secret)

    assert yaml.safe_load(done.stdout) == kept


def test_kubectl_apply_of_render_stores_what_train_stores(served: Served) -> None:
    served.push()
    trained = served.get("flashrun", served.submit())
    rendered = served.flash("render", "config.toml", "--name", "from-git").stdout
    served.kubectl("apply", "-f", "-", stdin=rendered)

    assert served.get("flashrun", "from-git")["spec"] == trained["spec"]
