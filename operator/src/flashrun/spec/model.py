"""The two base models that every boundary of the project is written in.

``Record`` is for what our own programs write and read (JSON in storage, the platform file).
``Section`` is for what people write: it carries two spellings of each key, snake_case for TOML and
camelCase for the custom resource, from one generated mapping. Pick the spelling when validating:
``validate_toml`` or ``validate_manifest``; the wrong one is refused as an unknown key.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Record(BaseModel):
    """A frozen value that crosses a boundary between our own programs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Section(BaseModel):
    """A frozen table that people write, in snake_case TOML or in a camelCase manifest."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def validate_toml(cls, table: Any) -> Self:
        """Validate ``table`` with snake_case keys; raises ``pydantic.ValidationError``."""
        return cls.model_validate(table, by_name=True, by_alias=False)

    @classmethod
    def validate_manifest(cls, value: Any) -> Self:
        """Validate ``value`` with camelCase keys; raises ``pydantic.ValidationError``."""
        return cls.model_validate(value, by_name=False, by_alias=True)

    def to_manifest(self) -> dict[str, Any]:
        """Return the camelCase form with everything that was left at its default left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
