"""Names, labels, references and keys."""

import re

import pytest

from flashrun.api import names

LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
UID = "0b5e1c3d-7a3f-4b57-9b0e-2f1f0d3c5a77"
LONGEST = "r" * names.RUN_NAME_LIMIT


@pytest.mark.parametrize(
    "build",
    [
        lambda run: names.job_name(run, UID, 100),
        lambda run: names.secrets_name(run, UID),
        lambda run: names.storage_secret_name(run, UID),
        lambda run: names.spec_config_map_name(run, UID, "d" * 64),
        names.submitted_secret_name,
        lambda run: names.peers_service_name(names.job_name(run, UID, 100)),
        lambda run: names.leader_host(names.job_name(run, UID, 100)).partition(".")[0],
    ],
)
def test_every_object_of_the_longest_run_name_is_a_label_of_63_characters(build) -> None:
    name = build(LONGEST)

    assert len(name) <= 63
    assert LABEL.fullmatch(name)


@pytest.mark.parametrize("number", [0, 1, 9, 10, 100])
@pytest.mark.parametrize("run", ["twin", "twin-1", "t" * 52, f"{'t' * 37}-x"])
def test_a_job_number_is_read_from_the_name_of_the_runs_own_jobs_only(run, number) -> None:
    job = names.job_name(run, UID, number)

    assert names.parse_job_number(run, UID, job) == number
    assert names.parse_job_number(run, "another-uid", job) is None
    assert names.parse_job_number(f"x{run}"[:52], UID, job) is None


@pytest.mark.parametrize("text", ["", "twin", "twin-1", "{stem}-0", "{stem}-01", "{stem}-1000",
                                  "{stem}-x", "{stem}1", "{stem}-1-1", "{stem}-²"])  # fmt: skip
def test_another_name_is_not_a_job_of_the_run(text) -> None:
    stem = names.object_stem("twin", UID)

    assert names.parse_job_number("twin", UID, text.format(stem=stem)) is None


def test_runs_whose_names_differ_by_a_number_share_no_object() -> None:
    runs = [("twin", "uid-1"), ("twin-1", "uid-2"), ("twin", "uid-3"), ("twin-1", "uid-4")]
    jobs = {names.job_name(run, uid, number) for run, uid in runs for number in range(101)}
    others = {
        build(run, uid)
        for build in (names.secrets_name, names.storage_secret_name)
        for run, uid in runs
    }

    assert len(jobs) == len(runs) * 101
    assert len(others) == len(runs) * 2


def test_a_generated_name_is_a_label_and_a_reference() -> None:
    name = names.run_name(1795348800, "0a1b2c3d9999")

    assert name == "flash-1795348800-0a1b2c3d"
    assert names.parse_ref(name) == names.Ref(name, None)


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("flash-1-aa", names.Ref("flash-1-aa", None)),
        ("flash-1-aa/step-0", names.Ref("flash-1-aa", 0)),
        (" flash-1-aa/step-120 ", names.Ref("flash-1-aa", 120)),
    ],
)
def test_a_short_reference_is_read_and_printed(text, ref) -> None:
    assert names.parse_ref(text) == ref
    assert str(ref) == text.strip()


@pytest.mark.parametrize(
    "text",
    ["", "s3://bucket/run", "run/step-", "run/step-01", "run/step--1", "run/checkpoint-3",
     "org/run/step-3", "Run", "../run", "run/step-3/adapter", "run/../other", "r\nun"],
)  # fmt: skip
def test_a_longer_or_foreign_reference_is_refused_with_the_way_out(text) -> None:
    with pytest.raises(ValueError, match="use <run> or <run>/step-N"):
        names.parse_ref(text)


def test_a_key_below_a_checkpoint_is_taken_apart_again() -> None:
    prefix = names.run_prefix("team-a", "flash-1-aa", "uid")
    key = names.step_prefix(prefix, 2, 40) + names.MANIFEST

    assert names.parse_step_key(prefix, key) == names.StepKey(2, 40, "manifest.json")
    assert names.parse_step_key(prefix, names.claim_key(prefix, 2)) is None
    assert names.parse_step_key("runs/other/", key) is None


def test_everything_of_a_run_lies_below_its_own_prefix() -> None:
    prefix = names.run_prefix("team-a", "flash-1-aa", "uid")
    keys = [
        names.spec_key(prefix), names.metrics_key(prefix), names.result_key(prefix),
        names.control_key(prefix), names.log_key(prefix, 1), names.rollouts_key(prefix, 3),
        names.eval_rollouts_key(prefix, 3), names.metrics_part_key(prefix, 1, 0, 0),
        names.claim_key(prefix, 1), names.packages_key(prefix, 1), names.step_prefix(prefix, 1, 2),
        names.adapter_prefix(prefix),
    ]  # fmt: skip

    assert prefix == "runs/team-a/flash-1-aa/uid/"
    assert len(set(keys)) == len(keys)
    assert all(key.startswith(prefix) for key in keys)


def test_a_live_key_leads_back_to_its_run() -> None:
    assert names.heartbeat_uid(names.heartbeat_key("uid-1")) == "uid-1"


@pytest.mark.parametrize(
    ("key", "attempt"),
    [(names.claim_key("runs/a/", 12), 12), (names.step_prefix("runs/a/", 3, 7), 3),
     (names.result_key("runs/a/"), None), (names.log_key("runs/a/", 1), None),
     (names.claim_key("runs/b/", 1), None), ("runs/a/attempt-x/claim.json", None)],
)  # fmt: skip
def test_a_key_says_which_attempt_it_lies_below(key: str, attempt: int | None) -> None:
    assert names.attempt_of("runs/a/", key) == attempt


@pytest.mark.parametrize("evaluated", [False, True])
@pytest.mark.parametrize("step", [0, 7, 99_999_999, 100_000_000])
def test_a_key_of_rollouts_is_read_back(step: int, evaluated: bool) -> None:
    prefix = names.run_prefix("team-a", "flash-1-aa", "uid")
    build = names.eval_rollouts_key if evaluated else names.rollouts_key

    assert names.parse_rollouts_key(prefix, build(prefix, step)) == (step, evaluated)


@pytest.mark.parametrize("name", ["step-1.jsonl", "step-00000001.json", "x-step-00000001.jsonl",
                                  "step-0000000²1.jsonl", "a/step-00000001.jsonl", ""])  # fmt: skip
def test_another_key_is_not_one_of_rollouts(name: str) -> None:
    prefix = names.run_prefix("team-a", "flash-1-aa", "uid")

    assert names.parse_rollouts_key(prefix, f"{names.rollouts_prefix(prefix)}{name}") is None
    assert names.parse_rollouts_key(prefix, names.rollouts_key("runs/other/", 1)) is None


@pytest.mark.parametrize(
    ("text", "valid"),
    [("a", True), ("0-a", True), ("a" * 63, True), ("a" * 64, False), ("", False), ("..", False),
     ("a/b", False), ("A", False), ("a-", False), ("-a", False), ("a\n", False), ("ü", False)],
)  # fmt: skip
def test_a_namespace_is_a_label(text: str, valid: bool) -> None:
    assert names.is_namespace(text) is valid
