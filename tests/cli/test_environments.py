"""``flash env setup`` and ``flash env test``: an environment is tried before it costs GPU time."""

import pytest

from tests.cli.conftest import ROOT, Shell

pytest.importorskip("freesolo", reason="the environment SDK is an extra")


def test_what_setup_writes_passes_its_test_and_its_dry_run(shell: Shell) -> None:
    made = shell("env", "setup", "sums")
    tried = shell("env", "test", "sums")

    assert made.returncode == 0
    assert tried.stdout.splitlines()[0] == "1\tWhat is 1 + 1? Answer with the number.\t2\t1"
    assert [line.split("\t")[3] for line in tried.stdout.splitlines()] == ["1", "1", "1"]
    for config in ("sums/sft.toml", "sums/grpo.toml"):
        checked = shell("train", config, "--dry-run")
        assert (checked.returncode, checked.stderr) == (0, "")
        assert 'id = "your-org/sums"' in checked.stdout


def test_setup_keeps_what_exists(shell: Shell) -> None:
    path = shell.write("sums/environment.py", "mine = True\n")

    assert "kept sums/environment.py" in shell("env", "setup", "sums").stderr
    assert path.read_text() == "mine = True\n"


def test_the_example_scores_its_own_answers(shell: Shell) -> None:
    done = shell("env", "test", str(ROOT / "examples" / "sums"), "--rows", "2")

    assert [line.split("\t")[3] for line in done.stdout.splitlines()] == ["1", "1"]


def test_parameters_reach_the_environment(shell: Shell) -> None:
    folder = str(ROOT / "examples" / "sums")
    done = shell("env", "test", folder, "--param", "instruction=Only digits!", "--rows", "1")

    assert done.stdout.split("\t")[1].endswith("Only digits!")


BROKEN = [
    ("def load_environment(): return 1 / 0\n", '{"input": "x"}', 1,
     "load_environment: the environment raised ZeroDivisionError"),
    ("x = 1\n", '{"input": "x"}', 2, "defines no function load_environment"),
    ("import nothing_like_this\n", '{"input": "x"}', 1, "raised ModuleNotFoundError"),
    ("def load_environment(): ...\n", "{", 2, "train.jsonl:1 is not JSON"),
    ("def load_environment(): ...\n", '{"output": "x"}', 2, "train.jsonl:1 must be an object with"),
    ("def load_environment(): ...\n", "", 2, "has no rows"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "row", "exit_code", "sentence"), BROKEN)
def test_what_is_broken_is_a_sentence(
    shell: Shell, code: str, row: str, exit_code: int, sentence: str
) -> None:
    shell.write("broken/environment.py", code)
    shell.write("broken/dataset/train.jsonl", row)
    done = shell("env", "test", "broken")

    assert done.returncode == exit_code
    assert sentence in done.stderr.splitlines()[-1]


def test_a_scorer_without_credit_for_its_own_data_is_noticed(shell: Shell) -> None:
    shell("env", "setup", "sums")
    text = (shell.folder / "sums/environment.py").read_text()
    shell.write("sums/environment.py", text.replace("score=float(", "score=0 * float("))

    assert "GRPO would learn nothing" in shell("env", "test", "sums").stderr
