"""Which mirrored models need no entry in the catalog: those a push has recorded, as a whole."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flashrun.api.catalog import Source, Thinking
from flashrun.api.records import FileEntry, Manifest, ModelFacts
from flashrun.plan.mirrored_models import (
    MirrorAnswer,
    RevisionVerdict,
    choose_revision,
    judge_revision,
)

ID = "acme/small"
PUSHED = datetime(2026, 11, 20, tzinfo=UTC)
SIZES = {"config.json": 100, "model.safetensors": 2_000_000_000, "tokenizer.json": 50}


def facts(**changes: Any) -> ModelFacts:
    values = {"parameters": 10**9, "context": 2048, "thinking": Thinking.HYBRID, **changes}
    return ModelFacts.model_validate(values)


def manifest(sizes: Mapping[str, int] = SIZES, **changes: Any) -> Manifest:
    files = tuple(FileEntry(path=path, size=n, sha256="a" * 64) for path, n in sizes.items())
    values = {"kind": "model", "base_model": ID, "model": facts(), "files": files}
    return Manifest.model_validate({"created": PUSHED, **values, **changes})


def judge(record: Manifest | str, sizes: Mapping[str, int] = SIZES) -> MirrorAnswer:
    return judge_revision(ID, "7", record, {**sizes, "manifest.json": 500}).answer


def test_needs_and_limits_follow_from_what_the_push_recorded() -> None:
    answer = judge(manifest())

    assert answer.refused == ""
    assert answer.model is not None
    assert (answer.model.id, answer.model.source) == (ID, Source.MIRROR)
    assert (answer.model.revision, answer.model.context) == ("7", 2048)
    assert (answer.model.parameters, answer.model.thinking) == (1.0, Thinking.HYBRID)
    assert (answer.model.vram_sft, answer.model.vram_grpo) == (12, 15)


def other_files(**more: int) -> Manifest:
    return manifest({**SIZES, **{name.replace("__", "."): size for name, size in more.items()}})


REFUSED = {
    "it cannot be read": ("files: too many", "its manifest cannot be read (files: too many)"),
    "it is a checkpoint's": (manifest(kind="checkpoint"), "that of something else"),
    "it is another model's": (manifest(base_model="acme/large"), "that of something else"),
    "another program wrote it": (manifest(model=None), "push it again"),
    "it lists a pickle": (other_files(pytorch_model__bin=9), "flash model push never uploads"),
    "it lists code": (other_files(modeling__py=9), "flash model push never uploads"),
    "a path leaves the folder": (
        manifest({**SIZES, "../../acme/large/1/model.safetensors": 9}),
        "flash model push never uploads",
    ),
    "a path is in a folder": (manifest({**SIZES, "a/b.json": 9}), "never uploads"),
    "a file is missing": (other_files(extra__json=9), "1 of its 4 files are missing"),
    "a file is listed twice": (
        manifest().replace(files=(*manifest().files, manifest().files[0])),
        "never uploads",
    ),
    "it has no weights": (manifest({"config.json": 100}), "its weights have another size"),
    "it claims to be tiny": (manifest(model=facts(parameters=1)), "its weights have another size"),
    "it claims to be huge": (manifest(model=facts(parameters=10**13)), "another size"),
}  # fmt: skip


@pytest.mark.parametrize(("record", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_record_that_cannot_be_relied_on_is_refused(
    record: Manifest | str, sentence: str
) -> None:
    answer = judge(record)

    assert answer.model is None
    assert sentence in answer.refused


def test_a_file_of_another_size_is_missing() -> None:
    answer = judge(manifest(), {**SIZES, "model.safetensors": 1_999_999_999})
    assert "1 of its 3 files are missing or have another size" in answer.refused


@pytest.mark.parametrize(
    "wrong",
    [{"parameters": 0}, {"parameters": 10**15}, {"parameters": 1.5}, {"parameters": float("nan")},
     {"context": 0}, {"context": 10**9}, {"thinking": "perhaps"}, {"vram_sft": 0}],
)  # fmt: skip
def test_facts_out_of_bounds_break_their_record(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        facts(**wrong)


def verdict(revision: str, days: int | None, refused: str = "") -> RevisionVerdict:
    model = judge_revision(ID, revision, manifest(), {**SIZES, "manifest.json": 500}).answer
    created = None if days is None else PUSHED + timedelta(days=days)
    return RevisionVerdict(revision, MirrorAnswer(refused=refused) if refused else model, created)


@pytest.mark.parametrize(
    ("verdicts", "chosen"),
    [
        ([verdict("a", 1), verdict("b", 2), verdict("c", 0)], "b"),
        ([verdict("a", 1), verdict("b", 1)], "b"),
        ([verdict("a", 1), verdict("b", 2, "broken")], "a"),
        ([verdict("b", None, "unreadable"), verdict("a", 1)], "a"),
    ],
)
def test_the_newest_revision_that_can_be_used_is_served(
    verdicts: list[RevisionVerdict], chosen: str
) -> None:
    for order in (verdicts, verdicts[::-1]):
        answer = choose_revision(order)
        assert answer is not None
        assert answer.model is not None
        assert answer.model.revision == chosen


def test_a_model_without_a_usable_revision_is_refused_with_the_reason_of_the_newest() -> None:
    answer = choose_revision([verdict("a", 1, "older"), verdict("b", 2, "newer")])
    assert answer == MirrorAnswer(refused="revision b: newer")
    assert choose_revision([]) is None
