"""The forms in which an answer can be printed."""

from enum import StrEnum


class OutputFormat(StrEnum):
    """Form of an answer, as ``--output`` names it."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"
