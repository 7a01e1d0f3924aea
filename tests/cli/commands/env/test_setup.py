"""``flash env setup``: a small project that passes its check."""

import pytest

from tests.cli.shell import Shell

pytest.importorskip("freesolo", reason="the environment SDK is an extra")


KINDS = [(), ("--multi-turn",), ("--reasoning",), ("--multi-turn", "--reasoning")]


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_what_setup_writes_passes_its_test_and_its_dry_run(
    shell: Shell, kind: tuple[str, ...]
) -> None:
    made = shell("env", "setup", "sums", *kind)

    assert made.returncode == 0
    assert made.stdout.split() == [
        "sums/environment.py",
        "sums/dataset/train.jsonl",
        "sums/configs/sft.toml",
        "sums/configs/rl.toml",
    ]
    for config in ("sums/configs/sft.toml", "sums/configs/rl.toml"):
        tried = shell("env", "test", "sums", "--config", config)
        assert (tried.returncode, tried.stderr) == (0, "3 rows checked, no problems\n")
        assert [line.split("\t")[3] for line in tried.stdout.splitlines()] == ["1", "1", "1"]
        checked = shell("train", config, "--dry-run")
        assert (checked.returncode, checked.stderr) == (0, "")
        assert 'id = "your-org/sums"' in checked.stdout


def test_setup_keeps_what_exists(shell: Shell) -> None:
    path = shell.write("sums/environment.py", "mine = True\n")

    assert "kept sums/environment.py" in shell("env", "setup", "sums").stderr
    assert path.read_text() == "mine = True\n"


def test_a_folder_whose_name_is_not_an_id_gets_one(shell: Shell) -> None:
    shell("env", "setup", "my sums (new)")

    checked = shell("train", "my sums (new)/configs/sft.toml", "--dry-run")
    assert 'id = "your-org/my-sums-new"' in checked.stdout
