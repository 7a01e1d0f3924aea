"""Which namespaces are served, by their labels: what Kubernetes calls a label selector."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from flashrun.api.base import Section

LabelKey = Annotated[
    str,
    Field(
        max_length=317,
        pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
    ),
]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")]

NO_OTHER_KEYS: Final = Field(json_schema_extra={"additionalProperties": False})
"""For a table whose keys have a pattern: Pydantic's schema says nothing about other keys."""
Labels = Annotated[dict[LabelKey, LabelValue], NO_OTHER_KEYS]
"""Labels of an object, or those that a node has to have."""
Annotations = Annotated[dict[LabelKey, str], NO_OTHER_KEYS]
"""Annotations of an object; their keys are like those of labels."""


class LabelRequirement(Section):
    """One condition on one label."""

    key: LabelKey
    """Name of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How it is compared; a label that a namespace lacks is in no list."""
    values: tuple[LabelValue, ...] = ()
    """Values of ``In`` and ``NotIn``."""

    @model_validator(mode="after")
    def _only_lists_have_values(self) -> Self:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            wanted = "needs values" if self.operator in ("In", "NotIn") else "takes no values"
            raise ValueError(f"{self.operator} of label {self.key} {wanted}")
        return self

    def __str__(self) -> str:
        """Return the condition as the API server reads it."""
        match self.operator:
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"
            case operator:
                return f"{self.key} {operator.lower()} ({','.join(self.values)})"


class LabelSelector(Section):
    """Conditions on labels, all of which hold."""

    match_labels: Labels = {}
    """Labels and their values."""
    match_expressions: tuple[LabelRequirement, ...] = ()
    """Further conditions."""

    @property
    def is_empty(self) -> bool:
        """Whether it has no condition."""
        return not self.match_labels and not self.match_expressions

    @property
    def conditions(self) -> tuple[str, ...]:
        """Its conditions as the API server reads them."""
        labels = (f"{key}={value}" for key, value in self.match_labels.items())
        return (*labels, *map(str, self.match_expressions))
