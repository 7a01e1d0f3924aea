"""docs/for-operators.md: its values are values of the chart, its figures were measured."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.json_schemas import validator

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "flashrun"
PAGE = (ROOT / "docs" / "for-operators.md").read_text()
ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]


def section(heading: str, page: str = PAGE) -> str:
    return re.split(r"^## ", page.partition(f"{heading}\n")[2], flags=re.M)[0]


PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()
MANY_RUNS = section("many_runs: memory of the operator", (ROOT / "bench" / "README.md").read_text())
MEASURED = section("Performance", PERFORMANCE) + section("The operator", PERFORMANCE) + MANY_RUNS


def figures() -> list[str]:
    """Return what the second column of the table of sizes has measured, with units."""
    rows = [line.split(" | ")[1] for line in section("Size").splitlines() if line.startswith("| ")]
    return re.findall(r"\d[\d.,]*", " ".join(rows[1:]))


def test_the_values_of_the_page_are_values_of_the_chart() -> None:
    [values] = re.findall(r"```yaml\n(.*?)```", section("Write the values"), re.S)
    schema = json.loads((CHART / "values.schema.json").read_text())

    validator(schema).validate(yaml.safe_load(values))


def test_every_alert_has_something_to_look_at() -> None:
    rules = [rule["alert"] for group in ALERTS for rule in group["rules"]]
    column = [line.split(" | ")[0] for line in section("Watch it").splitlines()]

    assert sorted(re.findall(r"`(FlashRun\w+)`", " ".join(column))) == sorted(rules)


@pytest.mark.parametrize("figure", figures())
def test_a_figure_of_the_page_is_one_that_was_measured(figure: str) -> None:
    assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d])", MEASURED)


def test_the_figures_are_found() -> None:
    assert {"95", "136", "16.3", "33.4", "8.9"} <= set(figures())
