"""The card beside an adapter, as Markdown sees it."""

import re
from pathlib import Path

from flashrun.api.records import Progress
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.records import model_card
from tests.trainer.pods import resolved


def test_every_row_of_its_tables_has_two_cells_whatever_is_in_them(tmp_path: Path):
    run = resolved("grpo", stop_sequences=("<|im_end|>", "\n\n"))
    progress = Progress(step=3, total_steps=3, metrics={"env/a|b": 0.5})
    model_card.write_model_card(tmp_path, run, 3, progress, Environment(None, [], ""))
    text = (tmp_path / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert r"| stop_sequences | ['<\|im_end\|>', '\n\n'] |" in rows
    assert r"| env/a\|b | 0.5 |" in rows
