"""docs/values.md has every value of the chart with its type, its default and its meaning."""

from pathlib import Path
from typing import Any

import yaml

from flashrun.api.generate.values_page import page

ROOT = Path(__file__).parents[3]
VALUES = (ROOT / "charts" / "flashrun" / "values.yaml").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in page(VALUES).splitlines()
    if line.startswith("| `")
]


def test_the_page_is_generated_from_the_schema_and_the_defaults() -> None:
    assert (ROOT / "docs" / "values.md").read_text() == page(VALUES), "run make crd"


def _paths(value: Any, path: str = "") -> set[str]:
    """Every key of the chart's values, as the page writes it."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return (_paths(value[0], f"{path}[]") - {f"{path}[]"}) | {path}
    if not isinstance(value, dict):
        return {path}
    inner = [_paths(item, f"{path}.{key}" if path else key) for key, item in value.items()]
    return set().union(*inner) | ({path} if path else set())


def test_every_key_of_the_values_has_a_row_with_a_meaning() -> None:
    listed = {row[0].strip("`") for row in ROWS}
    free = ("operator.resources", "monitoring.dashboardLabels")
    given = {path for path in _paths(yaml.safe_load(VALUES)) if not path.startswith(free)}
    assert given <= listed
    assert [row[0] for row in ROWS if len(row) < 4 or not row[3].endswith((".", ")"))] == []


def test_defaults_are_those_of_the_chart_and_not_of_the_operator() -> None:
    rows = {row[0].strip("`"): row for row in ROWS}
    assert rows["pools[].memory"][2] == '`"64Gi"`'
    assert rows["trainer.sharedMemory"][1:3] == ["string", '`"2Gi"`']
    assert rows["storage.credentialsSeconds"][1] == "integer, at least 900, at most 43,200"
    assert rows["policies"][1:3] == ["list of tables", "`[]`"]
    assert rows["policies[].maxSteps"][2] == "`0`"
    assert rows["storage.addressing"][1] == "`path` or `virtual`"
