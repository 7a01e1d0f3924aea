"""What a person sees and does: every reason that concerns one, with settings that exist."""

import re
from collections import Counter
from pathlib import Path

from flashrun.api.config import RunConfig
from flashrun.api.generate.symptoms import SYMPTOMS
from flashrun.api.reasons import Owner, Reason

ROOT = Path(__file__).parents[3]
REMEDIES = [(reason, text) for symptom in SYMPTOMS for reason, text in symptom.remedies.items()]
TEXTS = [
    *(text for _, text in REMEDIES),
    *(symptom.introduction for symptom in SYMPTOMS),
    *(" ".join(sight) for symptom in SYMPTOMS for sight in symptom.sights),
]
WELL = {Reason.SUCCEEDED, Reason.COMPLETED}
"""Reasons of an end about which nobody has to do anything."""
ALSO = {Reason.OPERATOR_FAILED, Reason.SUSPENDED, Reason.DELETED}
"""States of which FlashRun is the owner, and in which a run stays until somebody acts."""


def test_every_reason_that_concerns_a_person_is_below_one_symptom() -> None:
    concerned = {r for r in Reason if r.owner is not Owner.INTERNAL or r.retry is not None}

    assert Counter(reason for reason, _ in REMEDIES) == Counter((concerned - WELL) | ALSO)


TABLES = ("environment", "train", "eval", "wandb", "budget")
KEYS = {
    f"{table}.{name}"
    for table in TABLES
    for name in RunConfig.model_fields[table].annotation.model_fields  # type: ignore[union-attr]
}
VALUES = set(re.findall(r"^\| `([\w.]+)`", (ROOT / "docs" / "values.md").read_text(), re.M))


def names_of_settings(text: str) -> set[str]:
    """The dotted names between backticks that a config or the chart's values could have."""
    roots = {*TABLES, *(value.partition(".")[0] for value in VALUES)}
    found = re.findall(r"`([A-Za-z_]+(?:\.\w+)+)`", text)
    return {name for name in found if name.partition(".")[0] in roots} - {"environment.py"}


def test_every_setting_that_a_remedy_names_exists() -> None:
    named = set().union(*map(names_of_settings, TEXTS))

    assert len(named) > 20
    assert named <= KEYS | VALUES


def test_a_setting_that_does_not_exist_is_found() -> None:
    assert names_of_settings("`train.packing`, `trainer.image` and `os.environ`") - VALUES == {
        "train.packing"
    }
