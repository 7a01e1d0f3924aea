"""Values written as TOML."""

from flashrun.cli.config import toml_text
from flashrun.cli.config.compose import ConfigFile, compose


def test_toml_is_written_so_that_it_reads_back() -> None:
    text = 'quotes " and \\ and \x7f and \n and é'
    written = f"model = {toml_text.toml_value(text[:9])}\n[environment]\nid = 'a/b'\n"
    written += f"params = {{x = {toml_text.toml_value({'a b': [text, 1.0, True]})}}}"

    params = compose([ConfigFile("x", written.encode())]).config.environment.params
    assert params == {"x": {"a b": [text, 1.0, True]}}
