"""The file of a sweep: which runs it makes, and what is refused."""

import os
from pathlib import Path

import pytest

from flashrun.api.sweep import StopWorse
from flashrun.cli.config.load_config import read_config
from flashrun.cli.config.problems import ConfigError
from flashrun.cli.config.sweep_file import is_sweep_file, read_sweep
from flashrun.cli.output.failure import UsageFailure
from tests.cli.shell import REFERENCE

GRID = """\
config = "config.toml"
limit = 2

[grid]
train.lora_rank = [8, 16]
"train.learning_rate" = [1e-4, 5e-4]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(REFERENCE)
    return tmp_path


def write(folder: Path, text: str, name: str = "ranks.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_every_combination_of_a_grid_is_a_run_with_its_values(folder: Path) -> None:
    sweep = read_sweep(write(folder, GRID))
    assert [run.sets for run in sweep.runs] == [
        ("train.lora_rank=8", "train.learning_rate=0.0001"),
        ("train.lora_rank=8", "train.learning_rate=0.0005"),
        ("train.lora_rank=16", "train.learning_rate=0.0001"),
        ("train.lora_rank=16", "train.learning_rate=0.0005"),
    ]
    given = [run.composed.config.train for run in sweep.runs]
    assert [(train.lora_rank, train.learning_rate) for train in given] == [
        (8, 1e-4), (8, 5e-4), (16, 1e-4), (16, 5e-4),
    ]  # fmt: skip
    assert (sweep.membership.name, sweep.membership.limit) == ("ranks", 2)
    assert sweep.membership.stop_worse is None


def test_a_list_of_runs_gives_their_values_as_set_does(folder: Path) -> None:
    text = (
        'config = "config.toml"\nruns = [["train.epochs=1"], ["train.epochs=2", "thinking=true"]]'
    )
    sweep = read_sweep(write(folder, text), ["train.batch_size=4"])
    assert [run.composed.config.train.epochs for run in sweep.runs] == [1, 2]
    assert [run.composed.config.thinking for run in sweep.runs] == [False, True]
    assert {run.composed.config.train.batch_size for run in sweep.runs} == {4}


def test_a_sweep_and_a_config_that_are_taken_for_each_other_are_told_apart(folder: Path) -> None:
    sweep = write(folder, GRID)
    with pytest.raises(ConfigError) as refused:
        read_config(folder / "config.toml", [sweep], [])
    [problem] = refused.value.problems
    assert str(problem).startswith(f"{sweep}: this is the file of a sweep, and not the config")
    with pytest.raises(ConfigError) as refused:
        read_sweep(folder / "config.toml")
    [problem] = refused.value.problems
    assert "config.toml: this is the config of one run, which flash train submits" in str(problem)


def test_values_that_are_lists_or_text_with_quotes_survive(folder: Path) -> None:
    text = 'config = "config.toml"\n[grid]\nenvironment.params.tag = ["a b", "c\\"d"]\n'
    runs = read_sweep(write(folder, text)).runs
    assert [run.composed.config.environment.params["tag"] for run in runs] == ["a b", 'c"d']
    text = 'config = "config.toml"\n[grid]\ntrain.stop_sequences = [["x"], ["y", "z"]]\n'
    runs = read_sweep(write(folder, text)).runs
    assert [run.composed.config.train.stop_sequences for run in runs] == [("x",), ("y", "z")]


def test_the_same_sweep_has_the_same_names_and_a_changed_run_has_another(folder: Path) -> None:
    names = [run.name for run in read_sweep(write(folder, GRID)).runs]
    assert names == [run.name for run in read_sweep(write(folder, "# again\n" + GRID)).runs]
    changed = [run.name for run in read_sweep(write(folder, GRID.replace("16", "32"))).runs]
    assert changed[:2] == names[:2]
    assert not {*changed[2:]} & {*names}
    assert all(name.startswith("ranks-") for name in names)


def test_worse_runs_end_from_the_first_evaluation_on_unless_the_file_says_otherwise(
    folder: Path,
) -> None:
    path = write(folder, GRID)
    default = read_sweep(path, ["eval.every=25"], stop_worse=True).membership.stop_worse
    assert default == StopWorse(first_step=25, factor=2)
    at_save = read_sweep(path, ["train.save_every=30"], stop_worse=True).membership.stop_worse
    assert at_save == StopWorse(first_step=30, factor=2)
    text = GRID.replace("[grid]", "[stop_worse]\nfirst_step = 7\nfactor = 3\n[grid]")
    assert read_sweep(write(folder, text)).membership.stop_worse == StopWorse(
        first_step=7, factor=3
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('config = "config.toml"', "in [grid] or in runs, and not in both"),
        ("[grid]\ntrain.epochs = [1]", "config"),
        ('config = "config.toml"\n[grid]\ntrain.epochs = 3', "grid.train.epochs must be a list"),
        ('config = "config.toml"\n[grid]\ntrain.epochs = []', "grid.train.epochs must be a list"),
        (GRID + "\n[gird]\nx = 1", "ranks.toml:8: gird is not a key of a sweep; allowed are"),
        (GRID.replace("limit = 2", "limit = 0"), "ranks.toml:2: limit must be at least 1"),
        (GRID.replace("[8, 16]", "[8, 8]"), "two runs have the same settings"),
        (GRID.replace("[8, 16]", str(list(range(1, 200)))), "the grid has 398 runs; at most 256"),
        (GRID.replace("lora_rank", "lora_rang"), "did you mean lora_rank"),
        (GRID.replace("[8, 16]", "[8, 0]"), "(run with train.lora_rank=0"),
        ("config = ", "this is not TOML"),
        ("a = " + "[" * 100_000, "may nest at most 40 levels deep"),
        ("#" * 300_000, "larger than the limit"),
        ('config = "config.toml"\n[grid.train]', "grid.train must be a list"),
        (GRID + "train.seed = {}", "grid.train.seed must be a list"),
        (GRID + '"train.lora_rank" = [32]', "the grid has train.lora_rank twice"),
        (
            'config = "config.toml"\n[grid]\n'
            + "".join(f"environment.params.a{n} = [{'1, ' * 10}]\n" for n in range(20)),
            "the grid has more than 1,000,000,000,000,000 runs",
        ),
        ("config = 5\nruns = [[]]", "config must be the path of a config, or a list of paths"),
        ("config = []\nruns = [[]]", "config must be the path of a config, or a list of paths"),
        ('config = "config.toml"\nruns = ["a=1"]', "runs must be a list of runs"),
        (GRID.replace("limit = 2", "name = 5"), "name must be text, not 5"),
        (GRID.replace("limit = 2", "stop_worse = 1"), "stop_worse must be true, false or a table"),
        (GRID + "[stop_worse]\nfactor = 1", "stop_worse.factor must be at least 2, not 1"),
        (GRID + "[stop_worse]\nstep = 1", "step is not a key of [stop_worse]"),
        ('config = "ranks.toml"\nruns = [[]]', "(run without --set)"),
    ],
)
def test_what_cannot_be_a_sweep_is_refused_with_its_place(
    folder: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_sweep(write(folder, text))
    assert sentence in str(caught.value)


def test_a_sweep_that_stops_worse_runs_must_evaluate_them(folder: Path) -> None:
    with pytest.raises(ConfigError, match="a run of the sweep is not evaluated"):
        read_sweep(write(folder, GRID), ["eval.enabled=false"], stop_worse=True)


def test_a_sweep_needs_a_name_and_its_configs(folder: Path) -> None:
    with pytest.raises(UsageFailure, match="cannot be the name of a sweep"):
        read_sweep(write(folder, GRID, "My Sweep.toml"))
    with pytest.raises(UsageFailure, match="'' cannot be the name of a sweep"):
        read_sweep(write(folder, GRID), name="")
    assert read_sweep(write(folder, GRID, "My Sweep.toml"), name="mine").membership.name == "mine"
    with pytest.raises(UsageFailure, match="cannot read"):
        read_sweep(write(folder, GRID.replace("config.toml", "absent.toml")))
    with pytest.raises(UsageFailure, match="embedded null byte"):
        read_sweep(write(folder, GRID.replace("config.toml", "a\\u0000b")))
    with pytest.raises(UsageFailure, match="cannot be the name of a sweep"):
        read_sweep(write(folder, GRID.replace("limit = 2", 'name = "ünï"')))


def test_the_file_of_a_sweep_is_told_from_a_config(folder: Path) -> None:
    assert is_sweep_file(write(folder, GRID))
    assert not is_sweep_file(folder / "config.toml")
    assert not is_sweep_file(write(folder, "model = "))
    assert not is_sweep_file(Path("-"))
    assert not is_sweep_file(write(folder, "a = " + "[" * 100_000))
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    assert not is_sweep_file(pipe)  # whoever reads it as a config could not read it again


def test_a_config_of_the_name_of_standard_input_is_a_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "-").write_text(REFERENCE)
    for spelling in ("-", "./-"):
        write(folder, GRID.replace("config.toml", spelling))
        assert len(read_sweep(Path("ranks.toml")).runs) == 4


def test_no_run_ends_early_when_the_file_says_so(folder: Path) -> None:
    path = write(folder, GRID.replace("limit = 2", "stop_worse = false"))

    assert read_sweep(path).membership.stop_worse is None
    assert read_sweep(path, stop_worse=True).membership.stop_worse is not None


def test_dates_of_a_grid_are_given_as_they_are_written(folder: Path) -> None:
    text = 'config = "config.toml"\n[grid]\nenvironment.params.day = [1979-05-27, 10:00:00]\n'
    runs = read_sweep(write(folder, text)).runs
    assert [run.composed.config.environment.params["day"] for run in runs] == [
        "1979-05-27",
        "10:00:00",
    ]
