"""``flash schema``: the JSON Schema of a config, for editors."""

from flashrun.api.generate.config_schema import toml_schema
from flashrun.cli.options import Output
from flashrun.cli.output import terminal


def schema() -> None:
    """Print the JSON Schema of run configs, for editors that complete and check TOML.

    Example: flash schema > flash.schema.json
    """
    terminal.write_data(toml_schema(), Output.JSON)
