"""Values written as TOML."""

import tomllib

from flashrun.cli.config import toml_text
from flashrun.cli.config.compose import ConfigFile, compose


def test_toml_is_written_so_that_it_reads_back() -> None:
    text = 'quotes " and \\ and \x7f and \n and é'
    written = f"model = {toml_text.toml_value(text[:9])}\n[environment]\nid = 'a/b'\n"
    written += f"params = {{x = {toml_text.toml_value({'a b': [text, 1.0, True]})}}}"

    params = compose([ConfigFile("x", written.encode())]).config.environment.params
    assert params == {"x": {"a b": [text, 1.0, True]}}


def test_dates_and_numbers_keep_their_type() -> None:
    text = "x = [1979-05-27, 1979-05-28T10:00:00Z, 10:00:00, 1e-4, 1.0, 5e22, inf, 1, true]"
    values = tomllib.loads(text)["x"]

    assert tomllib.loads(f"x = {toml_text.toml_value(values)}")["x"] == values
