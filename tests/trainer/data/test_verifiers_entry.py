"""Which packages are environments of ``verifiers``, by the files at their root."""

from pathlib import Path

import pytest

from flashrun.api.verifiers_packages import VerifiersEntry
from flashrun_trainer.data.verifiers_entry import verifiers_entry

PROJECT = '[project]\nname = "my-env"\ndependencies = ["verifiers>=0.1"]\n'
CASES = {
    "an empty folder": ({}, None),
    "an environment of the SDK": ({"environment.py": "import freesolo\n"}, None),
    "a module that imports verifiers": (
        {"environment.py": "import verifiers as vf\n"},
        VerifiersEntry("environment"),
    ),
    "a project that depends on verifiers": (
        {"pyproject.toml": PROJECT},
        VerifiersEntry("my_env", ("verifiers>=0.1",)),
    ),
    "a module with bytes that are not UTF-8": (
        {"environment.py": "import verifiers  # \udcff\n"},
        VerifiersEntry("environment"),
    ),
}


@pytest.mark.parametrize(("files", "entry"), CASES.values(), ids=CASES)
def test_the_entry_is_read_without_importing_the_environment(
    tmp_path: Path, files: dict[str, str], entry: VerifiersEntry | None
):
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))

    assert verifiers_entry(tmp_path) == entry


def test_a_folder_of_that_name_is_no_module(tmp_path: Path):
    (tmp_path / "environment.py").mkdir()

    assert verifiers_entry(tmp_path) is None
