"""Which packages are environments of verifiers, before any of their code runs."""

import pytest

from flashrun.api.verifiers_packages import (
    VERSION,
    VerifiersEntry,
    excluding,
    find_entry,
    requirement_name,
)

PROJECT = """
[project]
name = "word-game"
dependencies = ["verifiers>=0.1.9.post3", "nltk>=3.9.2"]
"""
LISTED = ("verifiers>=0.1.9.post3", "nltk>=3.9.2")
IMPORTING = "import verifiers as vf\n"


ENTRIES: dict[str, tuple[str | None, str | None, VerifiersEntry | None]] = {
    "a project that depends on it": (None, PROJECT, VerifiersEntry("word_game", LISTED)),
    "a module that imports it": (IMPORTING, None, VerifiersEntry("environment")),
    "a module that imports a part of it": (
        "from verifiers.types import State\n",
        None,
        VerifiersEntry("environment"),
    ),
    "a module of a project": (IMPORTING, PROJECT, VerifiersEntry("environment", LISTED)),
    "a module of our SDK": ("from freesolo.environments import RewardResult\n", PROJECT, None),
    "a module of our SDK that borrows a parser": (
        f"{IMPORTING}from freesolo.environments import RewardResult\n",
        None,
        None,
    ),
    "a module with its name in a text": ('"import verifiers"\n', None, None),
    "a module that is not Python": ("import verifiers as\n", None, None),
    "another project": (None, PROJECT.replace("verifiers>", "verifiers-monitor>"), None),
    "a project without a name": (None, '[project]\ndependencies = ["verifiers"]\n', None),
    "a project that is not TOML": (None, "[project", None),
    "a project of another form": (None, 'project = "verifiers"\n', None),
    "an empty folder": (None, None, None),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_an_environment_of_verifiers_is_known_by_its_files(case: str) -> None:
    environment_file, project_file, entry = ENTRIES[case]
    assert find_entry(environment_file, project_file) == entry


@pytest.mark.parametrize(
    ("requirement", "is_excluding"),
    [
        ("verifiers", False),
        ("verifiers>=0.1.5.post0", False),
        ("Verifiers[rg]>=0.3", False),
        (f"verifiers=={VERSION}", False),
        ("verifiers>=0.4", True),
        ("verifiers==0.2.*", True),
        ("verifiers @ https://example.com/verifiers.zip", True),
        ("verifiers-monitor==0.1.1", False),
        ("verifiers ~ 3", False),
    ],
)
def test_a_requirement_that_takes_only_other_versions_is_found(
    requirement: str, is_excluding: bool
) -> None:
    assert excluding(["numpy<1", requirement]) == (requirement if is_excluding else "")


def test_the_name_of_a_requirement_is_normalised() -> None:
    assert requirement_name("  Reasoning_Gym[x]>=0.1 ; python_version < '4'") == "reasoning-gym"
    assert requirement_name(">=1") == ""
