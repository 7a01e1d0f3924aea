"""What the documents say is what the code has."""

import re
from pathlib import Path

import pytest

from flashrun.spec.config import Environment, RunConfig, Train, Wandb
from flashrun.spec.outcome import Exit

ROOT = Path(__file__).parents[1]
CONFIG = (ROOT / "docs" / "config.md").read_text()
KEYS = [
    *(name for name in RunConfig.model_fields if name not in ("environment", "train")),
    *Environment.model_fields,
    *Train.model_fields,
    *Wandb.model_fields,
]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_the_config_is_documented(key: str) -> None:
    assert re.search(rf"[`\[]{key}[`\]]", CONFIG)


@pytest.mark.parametrize("code", sorted(set(Exit)))
def test_every_exit_code_is_documented(code: Exit) -> None:
    table = (ROOT / "docs" / "failures.md").read_text()
    assert re.search(rf"^\|.*\b{int(code)}\b.*\|", table, re.MULTILINE)


def test_every_link_leads_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_folder_of_the_tree_in_the_readme_exists() -> None:
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    for line in tree.strip().splitlines():
        name = line.split()[0]
        places = [ROOT, ROOT / "operator", ROOT / "operator/src/flashrun", ROOT / "trainer-image"]
        assert any((place / name).exists() for place in places), name
