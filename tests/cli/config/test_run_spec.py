"""From a config to the FlashRun that is submitted."""

import json
import tomllib

import yaml

from flashrun.api.public import PublicPlatform
from flashrun.api.resource import FlashRun
from tests.cli.shell import REFERENCE, ROOT, Served, Shell


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


def test_floats_of_params_stay_floats_on_every_way(served: Served) -> None:
    table = "[environment.params]\ntemperature = 2.0\nrates = [1.0, 1]\n\n[train]"
    served.flash.write("config.toml", REFERENCE.replace("[train]", table))
    served.push()
    first = served.submit()
    again = served.flash("rerun", first, "--background").stdout.strip()
    rendered = served.flash("render", "config.toml", "--name", "from-git").stdout
    served.kubectl("apply", "-f", "-", stdin=rendered)
    written = served.flash("rerun", "from-git", "--dry-run").stdout

    for name in (first, again, "from-git"):
        spec = FlashRun.from_manifest(served.get("flashrun", name)).spec
        assert json.dumps(spec.environment.params, sort_keys=True) == (
            '{"rates": [1.0, 1], "temperature": 2.0}'
        )
    params = tomllib.loads(written)["environment"]["params"]
    assert [type(value) for value in (params["temperature"], *params["rates"])] == [
        float, float, int,
    ]  # fmt: skip
