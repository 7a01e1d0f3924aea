"""A file of rows as the splits of a dataset, and what people read about it."""

import json
from pathlib import Path
from typing import Any

import pytest

from flashrun.cli.environments import imported_rows
from flashrun.cli.environments.imported_rows import ImportedRows, import_rows
from flashrun.cli.output.failure import UsageFailure

pytest.importorskip("freesolo", reason="the environment SDK is an extra")


def imported(folder: Path, *rows: Any, held_out: int | None = None) -> ImportedRows:
    path = folder / "rows.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return import_rows(path, held_out)


def pair(prompt: str, completion: str = "y", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, **more}


CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def test_a_file_of_several_formats_is_read_and_everything_left_out_is_named(
    tmp_path: Path,
) -> None:
    rows = imported(
        tmp_path,
        CHAT,
        pair("a", id=1, tools=[{"name": "add"}]),
        pair("b", "<think>x</think>y", id=2),
        {"prompt": "c"},
        "nonsense",
        "",
        {"instruction": "d", "input": "", "output": "e"},
    )

    assert rows.sentences(tmp_path / "rows.jsonl")[1:] == [
        "1 row with tools",
        "1 row with reasoning in the answer",
        "left out row 4: completion: is missing or null beside prompt",
        "left out row 5: the row is not valid JSON: Expecting value: line 1 column 1 (char 0)",
        "keys that nobody reads: id (2 rows, the first is row 2)",
        "2 rows with the prompt of another row; equal prompts are in one split",
        "3 rows to train on, 1 held out",
    ]
    assert rows.sentences(tmp_path)[0].endswith(
        "(JSON Lines): 2 as prompt and completion, 1 as messages, 1 as instruction and output"
    )
    assert rows.data()["droppedRows"][0] == {
        "row": 4,
        "key": "completion",
        "why": "is missing or null beside prompt",
    }
    assert rows.data()["unreadKeys"] == [{"key": "id", "rows": 2, "firstRow": 2}]


def test_a_long_list_of_rows_is_cut_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imported_rows, "LISTED", 12)

    rows = imported(tmp_path, pair("a"), *({"prompt": "a"} for _ in range(30)))

    assert (rows.data()["dropped"], len(rows.data()["droppedRows"])) == (30, 12)
    left_out = [text for text in rows.sentences(tmp_path) if text.startswith("left out")]
    assert len(left_out) == 11
    assert left_out[-1] == "left out 20 more rows; -o json lists the first 12"


def test_one_prompt_alone_gives_no_held_out_row(tmp_path: Path) -> None:
    rows = imported(tmp_path, pair("a", "1"), pair("A ", "2"), pair("a", "3"))

    assert (len(rows.train), rows.held_out) == (3, ())
    assert rows.sentences(tmp_path)[-1].startswith("3 rows to train on; no row is held out")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ((), "is empty"),
        (("", ""), "has no rows"),
        (({"question": "x"},), "none of the 1 row of .* row 1: .* it has question"),
        (({"prompt": "x"}, "nonsense"), "none of the 2 rows .* row 1: completion: is missing"),
    ],
)
def test_a_file_without_a_row_to_learn_is_refused(
    tmp_path: Path, rows: tuple[Any, ...], sentence: str
) -> None:
    with pytest.raises(UsageFailure, match=sentence):
        imported(tmp_path, *rows)


def test_more_than_a_package_can_hold_is_refused_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imported_rows, "UNPACKED_LIMIT", 100)
    with pytest.raises(UsageFailure, match="more than 100 bytes"):
        imported(tmp_path, *(pair(str(number)) for number in range(10)))


def test_the_longest_row_counts_everything_that_the_model_reads(tmp_path: Path) -> None:
    assert imported(tmp_path, pair("abc", "de"), pair("a", "b" * 10)).longest == 11
