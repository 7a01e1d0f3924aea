"""``flash version``: the version of this program."""

from tests.cli.shell import Shell


def test_the_version_is_printed(shell: Shell) -> None:
    assert shell("version").stdout.startswith("flash ")
    assert shell("--version").stdout == shell("version").stdout
