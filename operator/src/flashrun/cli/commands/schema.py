"""``flash schema``: the JSON Schema of run configs, for editors."""

from flashrun.api.generate.config_schema import toml_schema
from flashrun.cli.output import terminal
from flashrun.cli.output.output_format import OutputFormat


def schema() -> None:
    """Print the JSON Schema of run configs, for editors that complete and check TOML.

    Example: flash schema > flash.schema.json
    """
    terminal.write_data(toml_schema(), OutputFormat.JSON)
