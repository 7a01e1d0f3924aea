"""What the client loads, and what type checkers see of it."""

import inspect
import subprocess
import sys
from importlib import resources

import pytest

import flashrun
import flashrun.client
from flashrun.client import AsyncClient, AsyncRun, Client, Run
from tests.cli.app import CLIENTS
from tests.cli.shell import Shell


def loaded(shell: Shell, program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"],
        env=shell.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.fixture
def machine(tmp_path: object) -> Shell:
    return Shell(tmp_path)  # type: ignore[arg-type]


def test_importing_the_package_loads_nothing_of_it(machine: Shell) -> None:
    modules = loaded(machine, "import flashrun")

    assert {name for name in modules if name.startswith("flashrun")} == {"flashrun"}


def test_the_client_loads_no_terminal_and_no_server_until_it_is_used(machine: Shell) -> None:
    modules = loaded(machine, "from flashrun import Client")

    assert "flashrun.client.sync_client" in modules
    assert not modules & (CLIENTS | {"typer", "click", "rich", "pandas"})
    assert not [name for name in modules if name.startswith("flashrun.cli.commands")]


def test_a_program_keeps_its_collector_of_garbage_as_it_was(machine: Shell) -> None:
    program = "import gc; before = gc.get_threshold(); from flashrun import Client"

    assert "same" in loaded(machine, f"{program}; print(before == gc.get_threshold() and 'same')")


def test_names_are_offered_and_others_are_refused() -> None:
    assert {"AsyncClient", "Client", "FlashRunError"} <= set(dir(flashrun))
    assert flashrun.Client is Client
    with pytest.raises(AttributeError, match="has no attribute 'Clent'"):
        _ = flashrun.Clent


def test_type_checkers_read_the_types_of_the_package() -> None:
    assert resources.files("flashrun").joinpath("py.typed").is_file()


PAIRS = [(Client, AsyncClient), (Run, AsyncRun)]


@pytest.mark.parametrize(("waiting", "awaited"), PAIRS)
def test_both_clients_have_the_same_calls_with_the_same_documentation(
    waiting: type, awaited: type
) -> None:
    names = {name for name in (*vars(waiting), *vars(awaited)) if not name.startswith("_")}

    assert names
    for name in names:
        first, second = getattr(waiting, name), getattr(awaited, name)
        assert list(inspect.signature(first).parameters.values()) == list(
            inspect.signature(second).parameters.values()
        )
        if name != "close":
            assert "Raises:" in (first.__doc__ or "")
            assert (second.__doc__ or "").splitlines()[0] == (first.__doc__ or "").splitlines()[0]
