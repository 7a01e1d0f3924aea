#!/usr/bin/env bash
# What it shows: a Pydantic model with a dict whose keys have a pattern, such as labels of Kubernetes, and its JSON
#   Schema. The model refuses a key that does not match. A validator of the schema accepts it, with a value of
#   any type: the schema has patternProperties, and says nothing of other keys. Keys with a greatest length or
#   of a Literal are refused by both, because their schema has propertyNames.
# Why it matters: whoever generates values.schema.json of a Helm chart, or the schema of a config for an editor,
#   from such a model, finds a misspelled key only when the program that reads the file does not start.
# Versions: pydantic 2.14.3, jsonschema 4.26.0, Python 3.11.
# Seen: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" pydantic==2.14.3 jsonschema==4.26.0

cat >"$folder/show.py" <<'PYTHON'
"""One wrong key, given to models that bound their keys in three ways, and to their schemas."""
import importlib.metadata
import sys
from typing import Annotated, Any, Literal

import jsonschema
from pydantic import Field, TypeAdapter, ValidationError

KEYS: dict[str, Any] = {
    "a pattern": Annotated[str, Field(pattern=r"^[a-z]+$")],
    "a greatest length": Annotated[str, Field(max_length=4)],
    "a Literal": Literal["gpu", "zone"],
}
RIGHT, WRONG = {"gpu": "a100"}, {"GPU type": "a100"}
WRONG_VALUE = {"GPU type": 100}


def by_model(adapter: TypeAdapter[Any], value: object) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def by_schema(adapter: TypeAdapter[Any], value: object) -> bool:
    return jsonschema.Draft202012Validator(adapter.json_schema()).is_valid(value)


for package in ("pydantic", "jsonschema"):
    print(package, importlib.metadata.version(package))
found = {}
for title, key in KEYS.items():
    adapter: TypeAdapter[Any] = TypeAdapter(dict[key, str])
    print(f"keys with {title}: {adapter.json_schema()}")
    assert by_model(adapter, RIGHT) and by_schema(adapter, RIGHT)
    found[title] = by_model(adapter, WRONG), by_schema(adapter, WRONG)
    print(f"  {WRONG}: the model takes it: {found[title][0]}, its schema takes it: {found[title][1]}")
pattern = TypeAdapter(dict[KEYS["a pattern"], str])
if not by_schema(pattern, WRONG_VALUE) or by_schema(pattern, {"gpu": 100}):
    sys.exit("changed: the value of a key that does not match its pattern is checked")
expected = {"a pattern": (False, True), "a greatest length": (False, False), "a Literal": (False, False)}
if found != expected:
    sys.exit("changed: a key that does not match its pattern is no longer taken by the schema alone")
print("as described: the schema of keys with a pattern takes every other key")
PYTHON
"$python" "$folder/show.py"
