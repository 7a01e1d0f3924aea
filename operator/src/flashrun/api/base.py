"""The two base models that every boundary of the project is written in.

``Record`` is for what our own programs write and read (JSON in storage, the platform file).
``Section`` is for what people write: it has two spellings of each key, snake_case for TOML and
camelCase for the custom resource. ``validate_toml`` and ``validate_manifest`` each accept one of
them and refuse the other one as an unknown key.

Pydantic builds a model at its first use (``defer_build``), and the docstrings of fields are read
only for a schema or an explanation: the command line imports many models and uses few.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class FrozenModel(BaseModel):
    """What ``Record`` and ``Section`` have in common."""

    def replace(self, **changes: Any) -> Self:
        """Return this value with other values in some fields, which are validated.

        The type checker knows the fields (``operator/mypy_plugin.py``). Pydantic's own
        ``model_copy(update=...)`` accepts any name and any value.

        Raises:
            TypeError: the model has no field of this name.
            pydantic.ValidationError: a field does not accept its value.
        """
        values = self.__dict__
        if unknown := changes.keys() - type(self).__pydantic_fields__.keys():
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        given = {name: values[name] for name in self.model_fields_set}
        return self.model_validate(given | changes, by_name=True, by_alias=False)


class Record(FrozenModel):
    """A frozen value that crosses a boundary between our own programs."""

    max_bytes: ClassVar[int] = 64 * 1024
    """Longest JSON of one record that is read."""
    max_values: ClassVar[int] = 4096
    """Most JSON values in it: each may be a problem, and a problem takes far more memory."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


_STORED: Final = "stored"
"""The context in which a stored object is validated."""
_Value = TypeVar("_Value")


def when_submitted(rule: Callable[[_Value], _Value]) -> Callable[[_Value, ValidationInfo], _Value]:
    """Return a validator for a rule that holds when a value is written, not when it is read back.

    Rules about content become stricter from version to version. What is stored does not change:
    a run that a new version could not read would be lost to everybody.
    """

    def validate(value: _Value, info: ValidationInfo) -> _Value:
        return value if info.context == _STORED else rule(value)

    return validate


class Section(FrozenModel):
    """A frozen table that people write, in snake_case TOML or in a camelCase manifest."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        defer_build=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for name, sentence in field_docs(cls).items():
            key = name if name in properties else to_camel(name)
            properties[key].setdefault("description", sentence)
        return schema

    @classmethod
    def validate_toml(cls, table: Any) -> Self:
        """Validate ``table`` with snake_case keys; raises ``pydantic.ValidationError``."""
        return cls.model_validate(table, by_name=True, by_alias=False)

    @classmethod
    def validate_manifest(cls, value: Any) -> Self:
        """Validate ``value`` with camelCase keys; raises ``pydantic.ValidationError``."""
        return cls.model_validate(value, by_name=False, by_alias=True)

    @classmethod
    def validate_stored(cls, value: Any) -> Self:
        """Validate what the API server has kept; an earlier version may have accepted it.

        Rules of ``when_submitted`` do not hold. Raises ``pydantic.ValidationError``.
        """
        return cls.model_validate(value, by_name=False, by_alias=True, context=_STORED)

    def to_manifest(self) -> dict[str, Any]:
        """Return the camelCase form without the fields that have their default values."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def error_sentences(
    error: ValidationError, *, prefix: str = "", whole: str = "the value"
) -> Iterator[str]:
    """Yield ``key: problem`` for each problem, without the values: they may be secret.

    ``prefix`` stands before each key; ``whole`` is the key of a problem with the whole value.
    """
    for problem in error.errors(include_input=False, include_url=False):
        path = ".".join(map(str, problem["loc"]))
        yield f"{prefix}{path}: {problem['msg']}" if path else f"{whole}: {problem['msg']}"


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring under each field of ``model``, those of inherited fields included."""
    return {
        name: sentence
        for cls in reversed(model.__mro__)
        if issubclass(cls, Record | Section)
        for name, sentence in _own_field_docs(cls)
        if name in model.model_fields
    }


def _own_field_docs(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    import ast
    import inspect
    from itertools import pairwise
    from textwrap import dedent

    [definition] = ast.parse(dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    for statement, following in pairwise(definition.body):
        match statement, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(sentence))),
            ):
                yield name, inspect.cleandoc(sentence)
            case _:
                pass
