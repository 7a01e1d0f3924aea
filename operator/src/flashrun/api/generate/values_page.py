"""The chart's values → ``docs/values.md``: ``python -m flashrun.api.generate.values_page``.

Types and meanings come from the schema, defaults from the chart's ``values.yaml``, which is read
from standard input.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

import yaml

from flashrun.api.generate import chart_values

Schema = dict[str, Any]

_INTRODUCTION: Final = """\
# Values of the chart

This page is generated from `flashrun.api.generate.chart_values` and `charts/flashrun/values.yaml`
by `make crd`; do not edit it. Helm refuses other keys and types before anything reaches the
cluster.
[operate.md](operate.md) shows how the values are used together, and the comments of
[values.yaml](../charts/flashrun/values.yaml) explain choices.

`[]` after a name means each entry of a list, and `.<name>` a name of your choice.
"""
_NONE: Final = "—"
"""What the table shows for a value without a default."""


def page(values: str) -> str:
    """Return the page as Markdown, with the defaults in ``values``."""
    schema = chart_values.schema()
    properties = {name: node for name, node in schema["properties"].items() if name != "global"}
    defaults = yaml.safe_load(values)
    lines = [_INTRODUCTION]
    for name, node in properties.items():
        rows = [*_rows(name, node, schema["$defs"], defaults.get(name), required=False)]
        lines += [f"## {name}", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _rows(
    path: str, node: Schema, defs: dict[str, Schema], default: Any, *, required: bool
) -> Iterator[tuple[str, str, str, str]]:
    """Yield the row of a value, and those of the values inside."""
    node = _resolved(node, defs)
    meaning = _sentence(node.get("description"))
    items = _resolved(node.get("items", {}), defs)
    is_list = "properties" in items
    if "properties" in node:
        yield f"`{path}`", "table", "", meaning
    elif is_list:
        yield f"`{path}`", _type(node, defs), "below" if default else "`[]`", meaning
    else:
        value = default if default is not None else node.get("default")
        yield f"`{path}`", _type(node, defs), _NONE if required else _literal(value), meaning
    inner, inside = (items, f"{path}[]") if is_list else (node, path)
    if "properties" not in inner:
        return
    values = (default or [{}])[0] if is_list else default or {}
    needed = inner.get("required", ())
    for name, child in inner["properties"].items():
        yield from _rows(f"{inside}.{name}", child, defs, values.get(name), required=name in needed)


def _resolved(node: Schema, defs: dict[str, Schema]) -> Schema:
    """Follow references, and leave out the null of what may be left out."""
    if "$ref" in node:
        target = defs[node["$ref"].rsplit("/", 1)[1]]
        return _resolved(target | {k: v for k, v in node.items() if k != "$ref"}, defs)
    options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        return _resolved({k: v for k, v in node.items() if k != "anyOf"} | options[0], defs)
    return node


def _type(node: Schema, defs: dict[str, Schema]) -> str:
    node = _resolved(node, defs)
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(_type(option, defs) for option in node["anyOf"]))
    if node.get("type") == "array":
        return f"list of {_plural(_type(node.get('items', {}), defs))}"
    if node.get("type") == "object":
        by_pattern = iter(node.get("patternProperties", {}).values())
        values = next(by_pattern, node.get("additionalProperties"))
        return f"table of {_plural(_type(values, defs))}" if isinstance(values, dict) else "table"
    bounds = [
        f"{word} {node[key]:,}"
        for key, word in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
        )
        if key in node
    ]
    return ", ".join([str(node.get("type", "anything")), *bounds])


def _plural(kind: str) -> str:
    words = {"string": "strings", "table": "tables", "integer": "integers", "number": "numbers"}
    return words.get(kind, kind)


def _literal(value: Any) -> str:
    return _NONE if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split()).replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page(sys.stdin.read()))
