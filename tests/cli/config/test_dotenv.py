"""Values of secrets from the shell and from ``.env`` files."""

from pathlib import Path

from flashrun.cli.config import dotenv


def test_the_first_value_found_wins_and_empty_is_missing(tmp_path: Path) -> None:
    here, beside = tmp_path / "here", tmp_path / "beside"
    for folder in (here, beside):
        folder.mkdir()
    (here / ".env").write_text("A=\nB=env\n# C=comment\nD = ' spaced '\n")
    (here / ".env.local").write_text('B=local\nC="quoted"\nexport E=exported\n')
    (beside / ".env").write_text("A=beside\nF=x=y\n")

    places = dotenv.read_sources({"G": "shell", "B": ""}, (here, beside))

    assert dotenv.lookup("ABCDEFGH", places) == {
        "A": "beside",
        "B": "env",
        "C": "quoted",
        "D": " spaced ",
        "E": "exported",
        "F": "x=y",
        "G": "shell",
    }
