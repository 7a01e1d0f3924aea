"""docs/troubleshooting.md: each reason below its symptom, with what follows and who acts."""

from pathlib import Path

import pytest

from flashrun.api.generate.symptoms import SYMPTOMS
from flashrun.api.generate.troubleshooting_page import page, row
from flashrun.api.reasons import Reason

DOCUMENT = Path(__file__).parents[3] / "docs" / "troubleshooting.md"
REMEDIES = [(reason, text) for symptom in SYMPTOMS for reason, text in symptom.remedies.items()]


def test_the_page_is_generated_from_the_symptoms() -> None:
    assert DOCUMENT.read_text() == page(), "run make crd"


@pytest.mark.parametrize(("reason", "remedy"), REMEDIES, ids=[str(r) for r, _ in REMEDIES])
def test_a_reason_is_shown_with_its_sentence_and_what_to_do(reason: Reason, remedy: str) -> None:
    [shown] = [line for line in page().splitlines() if line.startswith(f"| `{reason}` |")]
    cells = shown.strip("| ").split(" | ")

    assert cells[1].startswith(reason.sentence)
    assert cells[2].lower().endswith(remedy.lower())
    assert "|" not in remedy
    assert remedy.endswith(".")


def test_a_row_says_what_follows_and_who_acts() -> None:
    assert row(Reason.GPU_FAULT, "Drain it.") == (
        "`GpuFault`",
        "The GPU failed, or PyTorch cannot use it. The run is retried on another node.",
        "Administrator: drain it.",
    )
    assert row(Reason.DIVERGED, "Lower it.")[1:] == (
        "The loss, a gradient or a weight is not finite. The run ends.",
        "Lower it.",
    )
