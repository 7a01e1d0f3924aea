"""examples/gitops: the same run in every form, and what the tools make of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import lupa
import pytest
import yaml

from docs import health_tables
from flashrun.api import names
from flashrun.api.resource import FlashRunSpec
from tests.cli.shell import Shell
from tests.servers import kubectl

ROOT = Path(__file__).parents[1]
GITOPS = ROOT / "examples" / "gitops"
OVERLAY = GITOPS / "kustomize" / "overlays" / "longer"
SCRIPT_KEY = "resource.customizations.health.flashrun.dev_FlashRun"
ARGO_COLUMN = "Argo CD with the script"


def read(path: str) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all((GITOPS / path).read_text()) if item]


def judge(script: str, manifest: dict[str, Any]) -> dict[str, str]:
    """Run a health script as Argo CD does: ``obj`` is the object, and the script returns."""
    runtime = lupa.LuaRuntime(unpack_returned_tuples=True)
    runtime.globals().obj = runtime.table_from(manifest, recursive=True)
    return dict(runtime.execute(script))


def test_the_run_is_what_flash_renders_of_its_config(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.write("config.toml", (GITOPS / "config.toml").read_bytes())
    words = ("--name", "sums", "--name-hash", "--secret", "sums-keys")
    rendered = shell("render", "config.toml", *words).stdout
    assert (GITOPS / "plain" / "run.yaml").read_text() == rendered
    assert (GITOPS / "kustomize" / "base" / "run.yaml").read_text() == rendered


def test_the_page_shows_what_flash_renders_of_the_config_and_what_it_says(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.write("config.toml", (GITOPS / "config.toml").read_bytes())
    rendered = shell("render", "config.toml", "--name", "sums", "--name-hash")
    page = health_tables.PAGE.read_text()
    assert f"```yaml\n{rendered.stdout}```" in page
    assert f"```text\n{rendered.stderr}```" in page


def test_an_overlay_changes_the_settings_and_the_name_together() -> None:
    [base], [overlay] = read("plain/run.yaml"), read("kustomize/overlays/longer/kustomization.yaml")
    [change] = yaml.safe_load(overlay["patches"][0]["patch"])
    assert overlay["nameSuffix"]
    assert change["path"].removeprefix("/spec/").split("/")[0] in base["spec"]


SITUATIONS = health_tables.judged_objects()


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_script_for_argo_cd_judges_a_run_in_every_phase_as_the_page_says(
    situation: str,
) -> None:
    [config_map] = read("argocd/argocd-cm.yaml")
    judged = judge(config_map["data"][SCRIPT_KEY], SITUATIONS[situation])
    assert (
        judged["status"]
        == health_tables.column_on_page(health_tables.PAGE.read_text(), ARGO_COLUMN)[situation]
    )
    assert isinstance(judged["message"], str)


def test_the_script_survives_a_run_without_status() -> None:
    [config_map] = read("argocd/argocd-cm.yaml")
    for status in ({}, {"status": {}}, {"status": {"conditions": []}}):
        assert judge(config_map["data"][SCRIPT_KEY], status)["status"] == "Progressing"


def test_script_and_expressions_are_those_of_the_page() -> None:
    page = health_tables.PAGE.read_text()
    [config_map] = read("argocd/argocd-cm.yaml")
    assert config_map["data"][SCRIPT_KEY] == health_tables.page_script(page)
    [_, flux] = read("flux/kustomization.yaml")
    [check] = flux["spec"]["healthCheckExprs"]
    assert (check["current"], check["failed"]) == health_tables.page_expressions(page)
    assert (check["apiVersion"], check["kind"]) == (names.API_VERSION, names.KIND)
    assert flux["spec"]["wait"]


def test_argo_cd_and_flux_apply_the_overlay() -> None:
    [application], [_, flux] = read("argocd/application.yaml"), read("flux/kustomization.yaml")
    paths = [application["spec"]["source"]["path"], flux["spec"]["path"]]
    assert [(GITOPS / path).resolve() for path in paths] == [OVERLAY] * 2


@pytest.mark.parametrize("file", ["external-secret.yaml", "sealed-secret.yaml"])
def test_secrets_are_those_that_the_run_reads_and_have_the_label(file: str) -> None:
    [run], [secret] = read("plain/run.yaml"), read(f"secrets/{file}")
    spec = FlashRunSpec.validate_manifest(run["spec"])
    assert [ref.name for ref in spec.secret_refs] == [secret["metadata"]["name"]]
    own = secret["spec"]
    template = own["template"] if "template" in own else own["target"]["template"]
    assert template["metadata"]["labels"] == {names.SECRETS_LABEL: "true"}
    values = (
        {item["secretKey"] for item in own["data"]} if "data" in own else {*own["encryptedData"]}
    )
    assert values == {*spec.environment.secrets}


@pytest.mark.api
def test_a_run_names_the_secret_that_kustomize_generates(kubeconfig: Path, tmp_path: Path) -> None:
    """Its name ends in a digest, which kustomize writes only where it is told to."""
    shutil.copytree(GITOPS / "kustomize", tmp_path / "kustomize")
    folder = tmp_path / "kustomize" / "overlays" / "generated"
    folder.mkdir()
    [run] = read("plain/run.yaml")
    [name] = [ref["name"] for ref in run["spec"]["secretRefs"]]
    generated = {
        "namespace": "team-a",
        "resources": ["../../base"],
        "secretGenerator": [{"name": name, "literals": ["JUDGE_API_KEY=hush"]}],
        "generatorOptions": {"labels": {names.SECRETS_LABEL: "true"}},
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(generated))
    built = list(yaml.safe_load_all(kubectl(kubeconfig, "kustomize", str(folder))))
    [secret] = [item for item in built if item["kind"] == "Secret"]
    [run] = [item for item in built if item["kind"] == names.KIND]

    assert secret["metadata"]["name"].startswith(f"{name}-")
    assert secret["metadata"]["labels"] == {names.SECRETS_LABEL: "true"}
    assert run["spec"]["secretRefs"] == [{"name": secret["metadata"]["name"]}]


@pytest.mark.api
def test_the_api_server_takes_every_form_and_shows_no_drift(installed: Path) -> None:
    namespace = "gitops-examples"
    kubectl(installed, "create", "namespace", namespace)
    built = kubectl(installed, "kustomize", str(OVERLAY))
    run = yaml.safe_load(built)
    run["metadata"]["namespace"] = namespace
    plain = ("-n", namespace, "-f", str(GITOPS / "plain"))
    kubectl(installed, "apply", "--validate=strict", *plain)
    kubectl(installed, "apply", "--validate=strict", "-f", "-", stdin=json.dumps(run))
    assert kubectl(installed, "diff", *plain) == ""
    assert kubectl(installed, "diff", "-f", "-", stdin=json.dumps(run)) == ""
    found = json.loads(kubectl(installed, "-n", namespace, "get", "flashruns", "-ojson"))["items"]
    assert {item["spec"]["train"]["epochs"] for item in found} == {3, 6}
