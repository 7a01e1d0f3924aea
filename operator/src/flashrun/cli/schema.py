"""``flash schema``: the JSON Schema of a config, for editors."""

from typing import Any

from flashrun.cli import terminal
from flashrun.cli.options import Output
from flashrun.spec.config import RunConfig


def schema() -> None:
    """Print the JSON Schema of run configs, for editors that complete and check TOML.

    Example: flash schema > flash.schema.json
    """
    document: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RunConfig.model_json_schema(by_alias=False),
        "title": "FlashRun config",
    }
    terminal.write_data(document, Output.JSON)
