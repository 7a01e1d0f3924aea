"""Readers of what tenants write, with arbitrary input: a valid value, or the reader's own error."""

import json
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from flashrun.api import names
from flashrun.api.base import Record
from flashrun.api.bounds import METRIC_NAME_LIMIT, METRICS_LIMIT
from flashrun.api.exits import Termination, parse_termination
from flashrun.api.record_reader import RecordRefused, read_record
from flashrun.api.records import (
    FILES_LIMIT,
    Claim,
    Ending,
    EnvironmentPointer,
    Heartbeat,
    Manifest,
    MetricsRow,
    ResolvedRun,
    Result,
    TrainerControl,
)
from flashrun.api.run_record import RunRecord
from flashrun.plan.credentials import are_due, expiry_of

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
TIME = "2026-11-01T11:59:00Z"
RUN = {"namespace": "team", "name": "run", "uid": "u"}
PROGRESS = {"step": 3, "total_steps": 9, "eta_seconds": 5, "metrics": {"loss": 0.5}}
END = {"reason": "Diverged", "message": "The loss is not finite.", "attempt": 1, "step": 3}
FILE = {"path": "adapter/weights", "size": 7, "sha256": "0" * 64}
VALID: dict[type[Record], dict[str, Any]] = {
    Heartbeat: {
        "run": RUN, "attempt": 1, "pod": "run-0", "activity": "Training", "progress": PROGRESS,
        "evaluation": {"metric": "score", "baseline": {"step": 0, "score": 0.5}, "examples": 3},
        "commits": 2, "warning": "w", "updated": TIME,
    },
    Claim: {"attempt": 1, "pod": "run-0", "pod_uid": "u", "node": "n", "started": TIME},
    Manifest: {
        "kind": "checkpoint", "run": RUN, "attempt": 1, "step": 3, "created": TIME, "files": [FILE],
    },
    Result: {
        "run": RUN, "attempt": 1, "exit_code": 71, "termination": END, "progress": PROGRESS,
        "finished": TIME,
    },
    Termination: END,
    TrainerControl: {"save_request": "now"},
    EnvironmentPointer: {"digest": "0" * 64, "size": 7, "pushed": TIME},
    Ending: {
        "run": RUN, "phase": "Failed", "reason": "Diverged", "message": "m", "ended": TIME,
    },
    RunRecord: {"run": RUN, "spec": {"model": "m"}, "status": {"phase": "Running"}},
    MetricsRow: {"step": 3, "attempt": 1, "time": TIME, "values": {"loss": 0.5}},
    ResolvedRun: {
        "run": RUN,
        "model": {"id": "m", "source": "hub", "revision": "r"},
        "algorithm": "sft",
        "thinking": False,
        "environment": {"id": "a/b", "digest": "0" * 64, "split": "train", "params": {"a": [1]}},
        "train": {
            "lora_rank": 8, "lora_alpha": 16, "learning_rate": 0.1, "batch_size": 4,
            "max_length": 64, "save_every": 5, "epochs": 1,
        },
        "wandb": {"project": "p", "run_name": "r"},
        "seed": 1,
    },
}  # fmt: skip
models = pytest.mark.parametrize("model", VALID, ids=lambda model: model.__name__)

strange = (
    some.none()
    | some.booleans()
    | some.integers()
    | some.sampled_from([-1, 10**30, 2**63, 256, "²", "9999-12-31T23:59:59-05:00", "2026-11-01"])
    | some.floats()
    | some.text(max_size=40)
    | some.datetimes().map(lambda moment: moment.isoformat())
    | some.integers(0, 300).map(lambda count: "x" * count * 40)
)
any_json = some.recursive(
    strange,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=12,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    if not isinstance(value, dict | list):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN"])
def test_what_is_no_json_is_in_no_record_of_a_run(number: str) -> None:
    """Everybody who reads such a record would write it on, and programs could not read that."""
    content = json.dumps(VALID[RunRecord]).replace('"status": {', f'"status": {{"x": {number}, ')
    with pytest.raises(RecordRefused, match="finite"):
        read_record(content, RunRecord, NOW)


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def check(model: type[Record], content: bytes) -> None:
    """Read ``content``: a record within bounds, or ``RecordRefused`` with a short sentence."""
    began = time.thread_time()
    record, problem = None, "nothing"
    try:
        record = read_record(content, model, NOW)
    except RecordRefused as error:
        problem = str(error)
    assert 0 < len(problem) <= 250
    assert problem.isprintable()
    if record is not None:
        assert read_record(record.model_dump_json(exclude_none=True), model, NOW) == record
        check_values(record)
    assert time.thread_time() - began < 0.5


def check_values(value: Any) -> None:
    match value:
        case Record():
            for name, item in value:
                if not (isinstance(value, ResolvedRun) and name in ("environment", "train")):
                    check_values(item)
        case bool():
            pass
        case int():
            assert -(2**63) <= value < 2**63
        case datetime():
            assert value.utcoffset() == timedelta(0)
            assert value <= NOW + timedelta(days=1)
        case dict():
            assert len(value) <= METRICS_LIMIT
            assert all(len(name) <= METRIC_NAME_LIMIT for name in value)
        case tuple():
            assert len(value) <= FILES_LIMIT


@models
def test_a_valid_record_is_read(model: type[Record]) -> None:
    read_record(json.dumps(VALID[model]), model, NOW)


@models
@given(some.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_a_record_or_are_refused(model: type[Record], content: bytes) -> None:
    check(model, content)


@models
@given(any_json)
@settings(max_examples=60, deadline=None)
def test_any_json_is_a_record_or_is_refused(model: type[Record], value: Any) -> None:
    check(model, json.dumps(value).encode())


@models
@given(some.data())
@settings(max_examples=120, deadline=None)
def test_a_valid_record_with_another_value_is_read_or_refused(
    model: type[Record], data: some.DataObject
) -> None:
    valid = VALID[model]
    place = data.draw(some.sampled_from(places(valid)))
    check(model, json.dumps(changed(valid, place, data.draw(any_json))).encode())


@models
@given(some.data())
@settings(max_examples=60, deadline=None)
def test_a_valid_record_with_other_bytes_is_read_or_refused(
    model: type[Record], data: some.DataObject
) -> None:
    content = bytearray(json.dumps(VALID[model]).encode())
    for _ in range(data.draw(some.integers(1, 4))):
        content[data.draw(some.integers(0, len(content) - 1))] = data.draw(some.integers(0, 255))
    check(model, bytes(content))


@models
@pytest.mark.parametrize(
    "unit", [b"[", b'{"":', b"[],", b"0,", b"\xff", b'"\\ud800"', b" "], ids=repr
)
def test_the_longest_input_is_refused_in_little_time(model: type[Record], unit: bytes) -> None:
    for start in (b"", b"["):
        check(model, start + unit * ((model.max_bytes - 1) // len(unit)))
    check(model, unit * (model.max_bytes // len(unit) + 1))


@pytest.mark.parametrize(
    ("model", "path", "value", "problem"),
    [
        (Heartbeat, ("updated",), "2026-11-01T11:59:00", "updated: has no time zone"),
        (ResolvedRun, ("environment", "params", "a"), float("inf"), "environment.params.a: "),
        (Heartbeat, ("updated",), "2036-11-01T11:59:00Z", "updated: is more than a day ahead"),
        (Heartbeat, ("updated",), "9999-12-31T23:59:59-05:00", "updated: is not a time in UTC"),
        (Heartbeat, ("progress", "step"), 10**30, "progress.step: "),
        (Heartbeat, ("progress", "metrics"), {"m" * 2_500: 1.0}, "progress.metrics."),
        (Heartbeat, ("commits",), -1, "commits: "),
        (Result, ("exit_code",), 10**30, "exit_code: "),
        (Result, ("exit_code",), 256, "exit_code: "),
        (Result, ("finished",), "2026-11-03T00:00:00Z", "finished: is more than a day ahead"),
        (Manifest, ("created",), "1970-01-01T00:00:00Z", "created: is before the year 2000"),
        (Manifest, ("files",), [FILE] * (FILES_LIMIT + 1), "files: "),
        (Claim, ("attempt",), "²", "attempt: "),
        (Claim, ("pod",), "p\u00e4d", "pod: "),
        (Claim, ("node",), "n" * 254, "node: "),
    ],
)
def test_a_value_outside_its_bounds_is_refused_by_name(
    model: type[Record], path: tuple[str, ...], value: Any, problem: str
) -> None:
    with pytest.raises(RecordRefused) as refused:
        read_record(json.dumps(changed(VALID[model], path, value)), model, NOW)
    assert str(refused.value).startswith(problem)


LIMIT_MIB = 16


def flood(start: str, item: str, count: int, end: str) -> str:
    return start + ",".join(item.replace("#", str(number)) for number in range(count)) + end


FLOODS: dict[str, tuple[type[Record], str]] = {
    "files without keys": (Manifest, flood('{"files": [', "{}", 80_000, "]}")),
    "as many files as values": (Manifest, flood('{"files": [', "{}", 4_000, "]}")),
    "unknown keys": (ResolvedRun, flood("{", '"#":0', 80_000, "}")),
    "as many unknown keys as values": (ResolvedRun, flood("{", '"#":0', 8_000, "}")),
    "layers": (Heartbeat, flood('{"adapted": {"layers": [', "0", 4_000, "]}}")),
    "metrics": (MetricsRow, flood('{"values": {', '"#":""', 4_000, "}}")),
}


@pytest.mark.parametrize("case", FLOODS)
def test_a_flood_of_problems_takes_little_time_and_memory(case: str) -> None:
    model, content = FLOODS[case]
    assert len(content) <= model.max_bytes
    check(model, content.encode())
    tracemalloc.start()
    try:
        with pytest.raises(RecordRefused):
            read_record(content, model, NOW)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < LIMIT_MIB * 2**20


@pytest.mark.parametrize("unit", [",", "[{", '\\",', "\\\\"])
def test_marks_within_strings_are_not_values(unit: str) -> None:
    valid, text = VALID[ResolvedRun], json.loads(f'"{unit * (30_000 // len(unit))}"')
    changed_spec = changed(valid, ("environment", "params", "a"), text)
    record = read_record(json.dumps(changed_spec), ResolvedRun)
    assert record.environment.params["a"] == text


@pytest.mark.parametrize("unit", ['"', '"\\', '\\"', '"\\"', '"",', '{"'])
def test_quotation_marks_that_are_not_closed_take_little_time(unit: str) -> None:
    check(ResolvedRun, ("," * 9_000 + unit * (500_000 // len(unit))).encode())


@given(some.text() | some.binary().map(lambda data: data.decode(errors="surrogateescape")))
@settings(deadline=None)
def test_any_termination_message_is_read_or_foreign(text: str) -> None:
    parse_termination(text)


@given(some.text() | some.datetimes().map(lambda moment: moment.isoformat()))
def test_any_expiry_is_a_time_that_can_be_compared(text: str) -> None:
    are_due(expiry_of({"annotations": {names.EXPIRES_ANNOTATION: text}}), 3600, NOW)


@given(some.text())
def test_any_key_is_an_attempt_in_ascii_digits_or_none(text: str) -> None:
    for key in (f"p/attempt-{text}", f"p/attempt-{text}/claim.json"):
        number = names.attempt_of("p/", key)
        assert number is None or key.startswith(names.attempt_prefix("p/", number)[:-1])
    names.parse_step_key("p/", f"p/attempt-{text}/step-{text}/manifest.json")


@pytest.mark.parametrize("digits", ["²", "٣", "1" * 30, "01", "-1", "+1", "1_0", ""])
def test_an_attempt_number_is_written_in_one_way(digits: str) -> None:
    assert names.attempt_of("p/", f"p/attempt-{digits}/claim.json") is None
    assert names.parse_step_key("p/", f"p/attempt-{digits}/step-1/x") is None
    assert names.parse_step_key("p/", f"p/attempt-1/step-{digits}/x") is None


def test_what_a_pod_wrote_is_without_secrets_and_escape_sequences() -> None:
    token = "hf_" + "a1B2c3D4e5F6g7H8i9J0"
    text = json.dumps({**END, "message": f"\x1b[31mkey\n{token}\u202e", "hint": token})
    termination = parse_termination(text)
    assert termination is not None
    assert (termination.message, termination.hint) == ("[31mkey ***", "***")
    heartbeat = {**VALID[Heartbeat], "warning": token, "activity": f"\x07{token}"}
    record = read_record(json.dumps(heartbeat), Heartbeat, NOW)
    assert (record.warning, record.activity) == ("***", "***")
