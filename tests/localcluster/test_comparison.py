"""The table at the end of the demo, and the container that computes it."""

import json
from pathlib import Path

import pytest

from localcluster import comparison, folders, images
from localcluster.steps import StepRunner
from tests.localcluster.test_demo import CLUSTER

FOUND = {
    "base": {
        "metrics": {"format": 0.0, "accuracy": 0.0},
        "examples": [
            {"question": "What is 1 + 2?", "answer": "The sum of 1 and 2\nis 3, as it is"}
        ],
    },
    "SFT": {
        "metrics": {"format": 1.0, "accuracy": 0.421875},
        "examples": [{"question": "What is 1 + 2?", "answer": "3"}],
    },
}


def test_the_table_has_a_column_for_each_stage() -> None:
    assert comparison.table(FOUND).splitlines() == [
        "1 held-out examples  base                          SFT",
        "format               0.00                          1.00",
        "accuracy             0.00                          0.42",
        "What is 1 + 2?       The sum of 1 and 2 is 3, as…  3",
    ]


def test_the_answers_are_computed_in_the_trainer_image(
    monkeypatch: pytest.MonkeyPatch, steps: StepRunner
) -> None:
    asked = {}

    def run(_: object, words: list[str], mounts: dict[Path, str], __: object) -> str:
        asked.update(words=words, mounts=mounts)
        return f"a warning\n{json.dumps(FOUND)}\n"

    monkeypatch.setattr(images, "run_in_trainer", run)
    example, adapters = Path("examples/arithmetic"), {"SFT": Path("/adapters/run")}
    found = comparison.compare(CLUSTER, Path("/cache/model"), example, adapters, steps)

    assert found == FOUND
    assert asked["words"] == [
        "python3",
        "/mnt/example/compare.py",
        "/mnt/model",
        "SFT=/mnt/SFT",
    ]
    assert asked["mounts"] == {
        Path("/cache/model"): "/mnt/model",
        folders.repository() / example: "/mnt/example",
        Path("/adapters/run"): "/mnt/SFT",
    }
