"""JSON Schemas as a library checks them.

It is loaded by the test that asks: one of its formats takes longer to load than most tests run,
and each worker of each tier collects these modules.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


def validator(schema: dict[str, Any]) -> "Validator":
    """Return what checks values; raises ``SchemaError`` for a schema that is none."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    kind = validator_for(schema, default=Draft202012Validator)
    kind.check_schema(schema)
    return kind(schema)
