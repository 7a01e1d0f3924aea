"""``flash export``: an adapter leaves the platform whole, or not at all."""

import json
import subprocess
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.cli.commands.export import _LICENCE
from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import Served, Shell
from tests.cli.storage import adapter_weights, metrics_history, trained_run


@pytest.fixture
def trained(served: Served) -> str:
    return trained_run(served, 5, 10)


def home(served: Served, run: str) -> str:
    return names.run_prefix(served.namespace, run, served.get("flashrun", run)["metadata"]["uid"])


def test_the_final_adapter_a_checkpoint_and_the_best_one_are_exported(
    served: Served, trained: str, tmp_path: Path
) -> None:
    scores = ({0: {"eval/score": 0.2}}, {5: {"eval/score": 0.6}}, {10: {"eval/score": 0.4}})
    served.store.put_bytes(names.metrics_key(home(served, trained)), metrics_history(*scores))
    for words, ref in (
        ((trained,), trained),
        ((f"{trained}/step-10",), f"{trained}/step-10"),
        ((trained, "--best"), f"{trained}/step-5"),
    ):
        folder = tmp_path / "new" / ref.replace("/", "-")
        place = f"new/{folder.name}"

        done = served.flash("export", *words, "--to", place, "--license", "mit")

        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{place}\n"
        assert f"{ref} was exported; SHA-256 of its SHA256SUMS: " in done.stderr
        assert (folder / "adapter_model.safetensors").read_bytes() == adapter_weights()
        assert f"# {ref}\n" in (folder / "README.md").read_text()
        assert not (folder / "optimizer.pt").exists()
        check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
        assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode == 0
    again = served.flash("export", trained, "--to", f"new/{trained}")
    assert again.returncode == ExitCode.USAGE


def test_an_export_to_s3_uses_the_keys_of_the_shell(served: Served, trained: str) -> None:
    access, place = served.store.access, f"exports/{trained}/"
    shell = Shell(
        served.flash.folder,
        served.flash.kubeconfig,
        {
            "AWS_ENDPOINT_URL_S3": access.endpoint,
            "AWS_ACCESS_KEY_ID": access.access_key,
            "AWS_SECRET_ACCESS_KEY": access.secret_key,
        },
    )

    done = shell("export", trained, "--to", f"s3://{access.bucket}/{place}")

    assert done.returncode == 0, done.stderr
    keys = {entry.key.removeprefix(place) for entry in served.store.list(place)}
    assert {"adapter_config.json", "README.md", "LICENSE-NOTE.md", "SHA256SUMS"} <= keys
    assert json.loads(served.store.get_bytes(f"{place}adapter_config.json"))["r"] == 32
    assert access.secret_key not in done.stdout + done.stderr


def test_a_damaged_byte_is_refused_and_leaves_nothing(
    served: Served, trained: str, tmp_path: Path
) -> None:
    place = names.step_prefix(home(served, trained), 1, 5)
    damaged = bytearray(adapter_weights())
    damaged[-1] ^= 1
    served.store.put_bytes(f"{place}adapter/adapter_model.safetensors", bytes(damaged))
    before = set(tmp_path.iterdir())

    done = served.flash("export", f"{trained}/step-5", "--to", "mine")

    assert done.returncode == ExitCode.RUN_FAILED
    assert "is not what its manifest lists" in done.stderr
    assert set(tmp_path.iterdir()) == before
    missing = served.flash("export", f"{trained}/step-7", "--to", "mine")
    assert missing.returncode == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Run", "--to", "a"), "is not an adapter reference"),
        (("run/step-5", "--best", "--to", "a"), "use flash export run --best"),
        (("run", "--to", "a", "--base", "."), "--base is what --merged merges into"),
        (("run", "--to", "a", "--llama-cpp", "."), "--llama-cpp is what --gguf converts with"),
        (("run", "--to", "a", "--license", "a`\n# b"), "is not the identifier of a licence"),
        (("run", "--to", "a", "--license", ""), "is not the identifier of a licence"),
        (("run", "--to", "a", "--merged"), "--merged needs torch"),
        (("run", "--to", "a", "--gguf"), "--llama-cpp FOLDER"),
        (("run", "--to", "hf:org/name"), "needs huggingface_hub"),
        (("run", "--to", "."), "exists already"),
        (("run", "--to", "s3://bucket/place"), "needs AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_wrong_command_asks_no_cluster(shell: Shell, words: tuple[str, ...], said: str) -> None:
    done = shell("export", *words)

    assert done.returncode == ExitCode.USAGE
    assert said in done.stderr


def test_a_command_that_finds_no_cluster_leaves_no_folder(shell: Shell) -> None:
    before = set(shell.folder.iterdir())

    assert shell("export", "run", "--to", "new/folder").returncode == ExitCode.USAGE
    assert set(shell.folder.iterdir()) == before


def test_an_expression_of_licences_may_begin_with_a_bracket() -> None:
    assert _LICENCE.fullmatch("(MIT OR Apache-2.0) AND BSD-3-Clause")
    assert not _LICENCE.fullmatch("MIT`")
