"""``flash env setup``: a small project that passes its check, or one of the user's own rows."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.records import ResolvedEnvironment
from flashrun.cli.commands.env.setup import setup
from flashrun.cli.output.failure import Failure
from flashrun_trainer.data.conversations import Conversation
from flashrun_trainer.data.environment import load_folder
from tests.cli.shell import ROOT, Served, Shell, about_rows

pytest.importorskip("freesolo", reason="the environment SDK is an extra")


@pytest.fixture(autouse=True)
def _restored_path() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


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
        assert (tried.returncode, about_rows(tried)) == (0, "3 rows checked, no problems\n")
        assert [line.split("\t")[3] for line in tried.stdout.splitlines()] == ["1", "1", "1"]
        checked = shell("train", config, "--dry-run")
        assert (checked.returncode, checked.stderr) == (0, "")
        assert 'id = "your-org/sums"' in checked.stdout


@pytest.mark.api
def test_the_first_commands_of_the_page_work_one_after_the_other(served: Served) -> None:
    page = (ROOT / "docs" / "environments.md").read_text()
    block = page.partition("```sh\n")[2].partition("```")[0].replace("team-a", served.namespace)
    commands = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    assert [words[0] for words in commands] == ["env", "env", "env", "train"]

    for words in commands:
        done = served.flash(*words, *(["--background"] if words[0] == "train" else []))
        assert done.returncode == 0, (words, done.stderr)


def test_setup_keeps_what_exists(shell: Shell) -> None:
    path = shell.write("sums/environment.py", "mine = True\n")

    assert "kept sums/environment.py" in shell("env", "setup", "sums").stderr
    assert path.read_text() == "mine = True\n"


def test_a_folder_whose_name_is_not_an_id_gets_one(shell: Shell) -> None:
    shell("env", "setup", "my sums (new)")

    checked = shell("train", "my sums (new)/configs/sft.toml", "--dry-run")
    assert 'id = "your-org/my-sums-new"' in checked.stdout


# --- from a file --------------------------------------------------------------------------------


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"b": 1, "a": 1}}}


def json_lines(*rows: Any) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def parquet(folder: Path, **columns: Any) -> bytes:
    pyarrow = pytest.importorskip("pyarrow", reason="the library for Parquet is an extra")
    from pyarrow import parquet as files

    files.write_table(pyarrow.table(columns), folder / "written")
    return (folder / "written").read_bytes()


CHATS = [
    [user("1 + 1?"), assistant("2"), user("And 2 + 2?"), assistant("4 ✓")],
    [user("1 + 1?"), assistant("", tool_calls=[CALL])],
]
LEARNED_CHATS = [
    Conversation([user("1 + 1?")], CHATS[0][1:], ""),
    Conversation([user("1 + 1?")], CHATS[1][1:], "", (TOOL,)),
]
PAIRS = [("1 + 1?", "2"), ("2 + 2?", "4")]
LEARNED_PAIRS = [Conversation([user(asked)], [assistant(answer)], "") for asked, answer in PAIRS]
SOURCES: dict[str, tuple[str, Callable[[Path], bytes], list[Conversation]]] = {
    "chat messages with tools": (
        "rows.jsonl",
        lambda _: json_lines({"messages": CHATS[0]}, {"messages": CHATS[1], "tools": [TOOL]}),
        LEARNED_CHATS,
    ),
    "ShareGPT": (
        "rows.json",
        lambda _: json.dumps([
            {"conversations": [
                {"from": sender, "value": turn["content"]}
                for sender, turn in zip(["human", "gpt"] * 2, CHATS[0], strict=True)
            ]},
            {"conversations": [
                {"from": "human", "value": "1 + 1?"},
                {"from": "function_call", "value": json.dumps(CALL["function"])},
            ], "tools": json.dumps([TOOL])},
        ], indent=1).encode(),
        LEARNED_CHATS,
    ),
    "prompt and completion": (
        "rows.jsonl",
        lambda _: json_lines(*({"prompt": asked, "completion": answer} for asked, answer in PAIRS)),
        LEARNED_PAIRS,
    ),
    "prompt and completion as messages": (
        "rows.jsonl",
        lambda _: json_lines({"prompt": CHATS[0][:3], "completion": CHATS[0][3:]}),
        [Conversation(CHATS[0][:3], CHATS[0][3:], "")],
    ),
    "instruction, input and output": (
        "rows.json",
        lambda _: json.dumps([
            {"instruction": "Add.", "input": "1 + 1", "output": "2"},
            {"instruction": "Add 2 to 2.", "input": "", "output": "4", "system": "Be brief."},
        ]).encode(),
        [
            Conversation([user("Add.\n\n1 + 1")], [assistant("2")], ""),
            Conversation(
                [{"role": "system", "content": "Be brief."}, user("Add 2 to 2.")],
                [assistant("4")],
                "",
            ),
        ],
    ),
    "CSV": (
        "rows.csv",
        lambda _: ("\ufeffPrompt;Completion\n" + "".join(f"{q};{a}\n" for q, a in PAIRS)).encode(),
        LEARNED_PAIRS,
    ),
    "CSV with conversations as JSON": (
        "rows.csv",
        lambda _: "messages,tools\n{},\n{},{}\n".format(*(
            '"' + json.dumps(value).replace('"', '""') + '"' for value in (*CHATS, [TOOL])
        )).encode(),
        LEARNED_CHATS,
    ),
    "Parquet": (
        "rows.parquet",
        lambda folder: parquet(folder, messages=CHATS, tools=[None, json.dumps([TOOL])]),
        LEARNED_CHATS,
    ),
    "our own rows": (
        "rows.jsonl",
        lambda _: json_lines(*({"input": asked, "output": answer} for asked, answer in PAIRS)),
        LEARNED_PAIRS,
    ),
}  # fmt: skip


def learned(folder: Path, split: str) -> list[Conversation]:
    """The examples that a run on the folder would learn or be evaluated on."""
    spec = ResolvedEnvironment(id="team/env", digest="0" * 64, split=split)
    environment = load_folder(folder, spec)
    return [environment.conversation(example)._replace(name="") for example in environment.examples]


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_file_in_any_format_becomes_a_project_whose_rows_the_trainer_learns(
    shell: Shell, source: tuple[str, Callable[[Path], bytes], list[Conversation]]
) -> None:
    name, write, expected = source
    shell.write(name, write(shell.folder))

    made = shell("env", "setup", "mine", "--from", name, "--held-out", "0", "--name", "team/mine")

    assert made.returncode == 0, made.stderr
    tried = shell("env", "test", "mine", "--config", "mine/configs/sft.toml")
    assert (tried.returncode, about_rows(tried)) == (
        0,
        f"{len(expected)} rows checked, no problems\n",
    )
    scores = [line.split("\t")[3:] for line in tried.stdout.splitlines()]
    # An answer that only calls a tool cannot be tried without the model's own form of a call.
    assert all(own in ("1", "") and float(max(junk.split())) < 1 for own, junk in scores)
    assert learned(shell.folder / "mine", "train") == expected


def test_held_out_rows_are_evaluated_and_never_trained_on(shell: Shell) -> None:
    rows = [{"prompt": f"{n % 25} + 1?", "completion": f"{n % 25 + 1}"} for n in range(50)]
    shell.write("rows.jsonl", json_lines(*rows))

    made = shell("env", "setup", "mine", "--from", "rows.jsonl", "--held-out", "10")

    assert made.stdout.split() == [
        "mine/environment.py",
        "mine/dataset/train.jsonl",
        "mine/dataset/eval.jsonl",
        "mine/configs/sft.toml",
    ]
    train, held_out = (learned(shell.folder / "mine", split) for split in ("train", "eval"))
    assert (len(train), len(held_out)) == (40, 10)
    assert not [each for each in held_out if each in train]
    tried = shell("env", "test", "mine", "--config", "mine/configs/sft.toml")
    assert (tried.returncode, about_rows(tried)) == (0, "40 rows checked, no problems\n")
    checked = shell("train", "mine/configs/sft.toml", "--dry-run")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert 'split = "eval"' in checked.stdout
    shell("env", "setup", "again", "--from", "rows.jsonl", "--held-out", "10")
    other = shell(
        "env", "setup", "other", "--from", "rows.jsonl", "--held-out", "10", "--seed", "1"
    )
    assert other.returncode == 0
    assert learned(shell.folder / "again", "eval") == held_out
    assert learned(shell.folder / "other", "eval") != held_out


def test_rows_with_reasoning_make_a_run_with_thinking(shell: Shell) -> None:
    shell.write(
        "rows.jsonl",
        json_lines(
            {"prompt": "1 + 1?", "completion": [assistant("2", reasoning="One and one.")]},
            {"prompt": "2 + 2?", "completion": "<think>Two and two.</think>4"},
        ),
    )

    shell("env", "setup", "mine", "--from", "rows.jsonl", "--held-out", "0")

    assert "thinking = true\n" in (shell.folder / "mine/configs/sft.toml").read_text()
    tried = shell("env", "test", "mine", "--config", "mine/configs/sft.toml")
    assert (tried.returncode, about_rows(tried)) == (0, "2 rows checked, no problems\n")
    plain = shell("env", "test", "mine")
    for scored in (tried, plain):
        assert [line.split("\t")[3] for line in scored.stdout.splitlines()] == ["1", "1"]


def test_the_config_has_room_for_the_longest_row(shell: Shell) -> None:
    shell.write("rows.jsonl", json_lines({"prompt": "x " * 5000, "completion": "y"}))

    shell("env", "setup", "mine", "--from", "rows.jsonl")

    tried = shell("env", "test", "mine", "--config", "mine/configs/sft.toml")
    assert (tried.returncode, about_rows(tried)) == (0, "1 rows checked, no problems\n")
    assert "max_length = 4096\n" in (shell.folder / "mine/configs/sft.toml").read_text()


def test_setup_lists_what_it_left_out_for_programs(shell: Shell) -> None:
    shell.write("rows.jsonl", json_lines({"prompt": "x", "completion": "y", "id": 1}, {"x": 1}))

    made = shell("env", "setup", "mine", "--from", "rows.jsonl", "-o", "json")

    found = json.loads(made.stdout)
    assert found["files"][0] == "mine/environment.py"
    assert found["droppedRows"] == [
        {"row": 2, "key": "", "why": "the row has no known format; it has x"}
    ]
    assert "left out row 2" in made.stderr


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("mine", "empty.jsonl", {}, "empty.jsonl is empty"),
    ("mine", "missing.jsonl", {}, "missing.jsonl does not exist"),
    ("mine", "latin.jsonl", {}, "latin.jsonl, line 1, byte 13 is not UTF-8"),
    ("mine", "other.jsonl", {}, "none of the 1 row of other.jsonl can be learned"),
    ("mine/deep/er", "other.jsonl", {}, "none of the 1 row"),
    ("taken", "good.jsonl", {}, "taken exists"),
    ("good.jsonl", "good.jsonl", {}, "good.jsonl exists and is not a folder"),
    ("link", "good.jsonl", {}, "link exists and is not a folder"),
    (".", "good.jsonl", {}, ". exists"),
    ("good.jsonl/mine", "good.jsonl", {}, "good.jsonl/mine cannot be written"),
    ("mine", "good.jsonl", {"several_turns": True}, "--multi-turn chooses an example"),
    ("mine", "good.jsonl", {"name": "mine"}, "is not an environment"),
]


@pytest.mark.parametrize(("folder", "source", "options", "sentence"), REFUSED)
def test_a_refused_setup_leaves_nothing_behind(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    source: str,
    options: dict[str, Any],
    sentence: str,
) -> None:
    monkeypatch.chdir(shell.folder)
    shell.write("empty.jsonl", "")
    shell.write("latin.jsonl", b'{"prompt": "\xe4"}\n')
    shell.write("other.jsonl", '{"question": "x"}\n')
    shell.write("good.jsonl", json_lines({"prompt": "x", "completion": "y"}))
    shell.write("taken/mine.txt", "mine")
    Path("link").symlink_to("nowhere")
    before = sorted(map(str, Path().rglob("*")))

    with pytest.raises(Failure) as caught:
        setup(Path(folder), Path(source), **options)

    assert sentence in caught.value.sentence
    assert sorted(map(str, Path().rglob("*"))) == before


def test_a_setup_that_is_interrupted_leaves_nothing_behind(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shell.folder)
    shell.write("good.jsonl", json_lines({"prompt": "x", "completion": "y"}))
    before = sorted(map(str, Path().rglob("*")))

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        setup(Path("mine"), Path("good.jsonl"))
    assert sorted(map(str, Path().rglob("*"))) == before


def test_an_empty_folder_may_exist(shell: Shell) -> None:
    (shell.folder / "mine").mkdir()
    shell.write("good.jsonl", json_lines({"prompt": "x", "completion": "y"}))

    assert shell("env", "setup", "mine", "--from", "good.jsonl").returncode == 0
    assert sorted(path.name for path in shell.folder.iterdir()) == [
        "config.toml",
        "good.jsonl",
        "mine",
    ]


def test_the_model_and_the_id_are_those_that_were_asked_for(shell: Shell) -> None:
    words = ("--name", "team-a/sums", "--model", "Qwen/Qwen3.5-4B")

    made = shell("env", "setup", "sums", *words)

    assert "flash env push sums --name team-a/sums" in made.stderr
    for config in ("sums/configs/sft.toml", "sums/configs/rl.toml"):
        checked = shell("train", config, "--dry-run")
        assert 'id = "team-a/sums"' in checked.stdout
        assert 'model = "Qwen/Qwen3.5-4B"' in checked.stdout
