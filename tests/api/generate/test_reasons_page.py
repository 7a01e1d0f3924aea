"""docs/reasons.md has every reason, condition type, phase, activity and exit code."""

from pathlib import Path

import pytest

from flashrun.api import reasons
from flashrun.api.exits import Exit
from flashrun.api.generate.reasons_page import page
from flashrun.api.reasons import Activity, ConditionType, Owner, Phase, Reason, Retry

DOCUMENT = Path(__file__).parents[3] / "docs" / "reasons.md"


def test_the_page_is_generated_from_the_tables() -> None:
    assert DOCUMENT.read_text() == page(), "run make crd"


@pytest.mark.parametrize(
    "word", [*Reason, *ConditionType, *Phase, *Activity, *Owner, *Retry], ids=str
)
def test_every_word_is_documented_with_a_sentence(word: reasons.Word) -> None:
    assert f"| `{word}` | {word.sentence} |" in DOCUMENT.read_text()
    assert word.sentence.endswith(".")
    assert word.sentence[0].isupper() or word.sentence.startswith(("environment.", "train."))


@pytest.mark.parametrize("code", list(Exit))
def test_every_exit_code_is_documented_with_its_reason(code: Exit) -> None:
    row = f"| {int(code)} | `{code.reason}` | {code.sentence} | {code.owner} | {code.retry} |"
    assert row in DOCUMENT.read_text()
