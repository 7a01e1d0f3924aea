"""``flash model push``: a folder goes into the mirror, with an entry for the catalog."""

import json

import pytest
import yaml

from flashrun.api import names
from flashrun.api.catalog import BUILT_IN, Model
from flashrun.api.records import Manifest
from tests.cli.models.models import write_model
from tests.cli.shell import Served, Shell
from tests.servers import kubectl

pytestmark = pytest.mark.api


def test_a_pushed_model_is_in_the_mirror_and_its_entry_is_printed(served: Served) -> None:
    served.give_mirror()
    folder = write_model(served.flash.folder / "model", pytorch_model__bin=b"pickle")
    done = served.flash("model", "push", "model", "--id", "org/small", "--revision", "7")

    assert done.returncode == 0, done.stderr
    [entry] = yaml.safe_load(done.stdout)
    assert Model.model_validate(entry).id == "org/small"
    assert (entry["source"], entry["revision"], entry["context"]) == ("mirror", "7", 2048)
    assert "left out: pytorch_model.bin" in done.stderr
    assert "estimated GPU memory: 9 GiB for SFT, 9 GiB for GRPO" in done.stderr
    manifest = served.store.get_json(names.model_manifest_key("org/small", "7"), Manifest)
    assert manifest.base_model == "org/small"
    assert manifest.model is not None
    assert (manifest.model.parameters, manifest.model.context) == (12, 2048)
    assert {file.path for file in manifest.files} == {
        path.name for path in folder.iterdir() if path.suffix != ".bin"
    }


def test_without_a_revision_equal_files_are_pushed_once(served: Served) -> None:
    served.give_mirror()
    write_model(served.flash.folder / "model")
    words = ("model", "push", "model", "--id", "org/once")
    first, second = served.flash(*words), served.flash(*words)

    assert first.stdout == second.stdout
    assert "was already in the mirror" in second.stderr
    listed = json.loads(served.flash("model", "list", "-o", "json").stdout)
    assert [item["id"] for item in listed].count("org/once") == 1


def test_a_model_that_cannot_be_trained_is_refused_with_every_problem(shell: Shell) -> None:
    """No cluster is asked for it."""
    write_model(shell.folder / "model", tokenizer__json=None, model__safetensors=b"\x80pickle")
    done = shell("model", "push", "model", "--id", "org/small")

    assert (done.returncode, done.stdout) == (2, "")
    assert "model.safetensors is not a safetensors file" in done.stderr
    assert "the tokenizer is missing" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--id", "small"), "'small' is not the id of a model: use ORG/NAME"),
        (("--id", "org/small", "--revision", "a/b"), "'a/b' is not a revision"),
    ],
)
def test_a_wrong_name_is_refused_first(shell: Shell, words: tuple[str, ...], sentence: str) -> None:
    done = shell("model", "push", "nowhere", *words)

    assert done.returncode == 2
    assert sentence in done.stderr


def test_an_editor_of_a_namespace_may_not_fill_the_mirror(served: Served) -> None:
    """The Secret is in the operator's namespace, where editors of other namespaces read nothing."""
    served.give_mirror()
    kubectl(served.kubeconfig, "create", "namespace", system := f"{served.namespace}-system")
    served.publish(models_namespace=system)
    write_model(served.flash.folder / "model")
    done = served.flash("model", "push", "model", "--id", "org/small")

    assert done.returncode == 1
    assert "the model mirror cannot be used" in done.stderr
    assert f"--role=flashrun-models --user=YOU -n {system}" in done.stderr


def test_an_operator_without_a_mirror_is_named(served: Served) -> None:
    write_model(served.flash.folder / "model")
    done = served.flash("model", "push", "model", "--id", "org/small")

    assert "the place of the model mirror cannot be read" in done.stderr


def test_where_the_mirror_is_served_no_entry_is_asked_for(served: Served) -> None:
    served.give_mirror()
    write_model(served.flash.folder / "model")
    served.publish(models_namespace=served.namespace, mirrored_ids=())
    words = ("model", "push", "model", "--revision", "1", "--id")
    done, built_in = served.flash(*words, "org/new"), served.flash(*words, BUILT_IN[0].id)

    assert done.stdout == "org/new@1\n"
    assert "runs can use it within a minute" in done.stderr
    [entry] = yaml.safe_load(built_in.stdout)  # the catalog's own entry names the hub
    assert entry["id"] == BUILT_IN[0].id
