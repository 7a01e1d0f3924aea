"""Files of rows: what is read of odd ones, and which are refused."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from flashrun.cli.environments import row_files
from flashrun.cli.environments.row_files import RowFile, open_rows
from flashrun.cli.environments.row_formats import KNOWN_KEYS
from flashrun.cli.output.failure import UsageFailure

ROW = '{"prompt": "x", "completion": "y"}\n'
VALUE = {"prompt": "x", "completion": "y"}


def opened(folder: Path, name: str, data: str | bytes) -> RowFile:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return open_rows(path, KNOWN_KEYS)


def values(folder: Path, name: str, data: str | bytes) -> list[Any]:
    return [row.value or row.fault for row in opened(folder, name, data).rows]


LIST = json.dumps([VALUE, VALUE], indent=1)
QUOTED = '"two, or\nthree lines with ""quotes"""'


@pytest.mark.parametrize(
    ("name", "data", "rows"),
    [
        ("a.jsonl", ROW + "\n\n" + ROW, [VALUE, VALUE]),
        ("a.jsonl", "\ufeff" + ROW, [VALUE]),
        ("a.ndjson", ROW.strip(), [VALUE]),
        ("a.jsonl", ROW.replace("\n", "\r\n"), [VALUE]),
        ("a.jsonl", "null\n3\n", ["", 3]),
        ("a.jsonl", LIST, [VALUE, VALUE]),
        ("a.json", "\ufeff" + LIST, [VALUE, VALUE]),
        ("a.json", ROW + ROW, [VALUE, VALUE]),
        ("a.json", json.dumps({"data": [VALUE]}, indent=1), [VALUE]),
        ("a.csv", "\ufeffPrompt, Completion \nx,y\n\n", [VALUE]),
        ("a.csv", "prompt;completion\r\nx;y\r\n", [VALUE]),
        ("a.tsv", "prompt\tcompletion\nx\ty\n", [VALUE]),
        ("a.csv", "prompt,completion,id\nx,,7\n", [{"prompt": "x", "id": "7"}]),
        (
            "a.csv",
            f"prompt,completion\n{QUOTED},y\n",
            [{"prompt": 'two, or\nthree lines with "quotes"', "completion": "y"}],
        ),
    ],
)
def test_rows_are_read(tmp_path: Path, name: str, data: str, rows: list[Any]) -> None:
    assert values(tmp_path, name, data) == rows


def test_the_number_of_a_row_is_its_line(tmp_path: Path) -> None:
    assert [row.number for row in opened(tmp_path, "a.jsonl", f"{ROW}\n{ROW}").rows] == [1, 3]


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        ("a.jsonl", '{"prompt": "x"', "not valid JSON"),
        ("a.jsonl", "[" * 200_000, "nested too deeply"),
        ("a.jsonl", "1" * 5000, "not valid JSON"),
        ("a.jsonl", "x" * 3000, "more than 2,000 bytes"),
        ("a.csv", "x,y,z", "has 3 cells, and the header has 2"),
        ("a.csv", "x", "has 1 cells, and the header has 2"),
    ],
)
def test_a_row_that_cannot_be_read_costs_no_other_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, line: str, fault: str
) -> None:
    if line.startswith("x" * 9):
        monkeypatch.setattr(row_files, "ROW_LIMIT", 2000)
    header, row = ("prompt,completion\n", "x,y\n") if name == "a.csv" else ("", ROW)

    before, bad, after = values(tmp_path, name, f"{header}{row}{line}\n{row}")

    assert before == after == VALUE
    assert fault in bad


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.txt", ROW, "does not end in .jsonl"),
        ("a.jsonl", ROW.encode("utf-16"), "is UTF-16"),
        ("a.jsonl", f"{ROW}{ROW}".encode() + b'{"prompt": "\xe4"}\n', "line 3, byte 13 is not UTF"),
        ("a.json", b'[{"prompt": "\xe4"}]', "byte 14 is not UTF-8"),
        ("a.csv", b"prompt,completion\nx,\xe4\n", "is not UTF-8"),
        ("a.json", '{"prompt":\n"x"}', "one JSON object"),
        ("a.json", "[1,\n", "not valid JSON"),
        ("a.csv", "prompt,prompt\nx,y\n", "two columns with the name 'prompt'"),
        ("a.csv", 'prompt,completion\nx,"y\n', "line 2, is not CSV"),
        ("a.parquet", b"PAR1 and nothing else", "cannot be read as Parquet"),
    ],
)
def test_a_file_of_which_no_row_is_certain_is_refused(
    tmp_path: Path, name: str, data: str | bytes, sentence: str
) -> None:
    with pytest.raises(UsageFailure, match=sentence) as caught:
        values(tmp_path, name, data)
    assert caught.value.hint


@pytest.mark.parametrize(("name", "what"), [("missing.csv", "does not exist"), ("", "not a file")])
def test_what_is_not_a_file_is_refused(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(UsageFailure, match=what):
        open_rows(tmp_path / name, KNOWN_KEYS)


def test_a_long_list_is_to_be_written_as_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "UNPACKED_LIMIT", 10)
    with pytest.raises(UsageFailure, match="more than 10 bytes") as caught:
        values(tmp_path, "a.json", LIST)
    assert "jq -c" in caught.value.hint


# --- Parquet ------------------------------------------------------------------------------------


def parquet(folder: Path, **columns: Any) -> RowFile:
    pyarrow = pytest.importorskip("pyarrow", reason="the library for Parquet is an extra")
    from pyarrow import parquet as files

    path = folder / "a.parquet"
    files.write_table(pyarrow.table(columns), path)
    return open_rows(path, KNOWN_KEYS)


def test_nested_lists_are_read_without_the_fields_that_a_row_lacks(tmp_path: Path) -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    other = {"function": {"name": "weather", "arguments": {"city": "Rome"}}}
    messages = [
        [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "tool_calls": [call]}],
        [{"role": "user", "content": "Rain?"}, {"role": "assistant", "tool_calls": [other]}],
        None,
    ]

    rows = list(parquet(tmp_path, Messages=messages, when=[datetime.date.max] * 3).rows)

    assert [row.value.get("messages") for row in rows] == messages


def test_columns_that_mean_nothing_are_not_read(tmp_path: Path) -> None:
    file = parquet(tmp_path, prompt=["x"], completion=["y"], image=[b"\xff" * 10], id=[1])

    assert file.unread_columns == ("image", "id")
    assert [row.value for row in file.rows] == [VALUE]


def test_text_in_a_column_of_bytes_is_text(tmp_path: Path) -> None:
    rows = list(parquet(tmp_path, prompt=[b"x", b"\xff"], completion=["y", "y"]).rows)

    assert rows[0].value == VALUE
    assert "not UTF-8" in rows[1].fault


def test_a_table_without_a_known_column_lists_those_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(UsageFailure, match="it has question, answer"):
        parquet(tmp_path, question=["x"], answer=["y"])


def test_columns_whose_names_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageFailure, match="two columns with the name 'prompt'"):
        parquet(tmp_path, prompt=["x"], Prompt=["y"])


def test_a_missing_library_is_named_with_the_extra_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageFailure, match="pyarrow is not installed") as caught:
        opened(tmp_path, "a.parquet", b"PAR1")
    assert "flashrun[parquet]" in caught.value.hint
