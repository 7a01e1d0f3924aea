"""docs/notebook.ipynb and docs/client.md: their code does what the pages say.

The code cells are executed in their order in one namespace, which is what a kernel does with plain
Python; a kernel and nbclient would add fifty packages to the lock file and test Jupyter.
"""

import ast
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flashrun.client
from flashrun import Client
from tests.cli.following import wait_until
from tests.cli.shell import ROOT, Served
from tests.client.played_run import succeed, train

NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
PAGE = (ROOT / "docs" / "client.md").read_text()
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def trainer(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Thread]:
    """A trainer that trains the first run of the namespace."""
    monkeypatch.setenv("KUBECONFIG", str(served.flash.kubeconfig))
    served.push()
    with Client() as client:

        def play() -> None:
            wait_until(client.runs)
            [run] = client.runs()
            train(served, run.name)
            wait_until(lambda: client.run(run.name).status().step)
            succeed(served, run.name)

        thread = threading.Thread(target=play)
        thread.start()
        yield thread
        thread.join()


def execute(cell: str, names: dict[str, Any]) -> Any:
    """Execute a cell; return the value of its last line, as a kernel shows it."""
    *before, last = ast.parse(cell).body
    if not isinstance(last, ast.Expr):
        exec(cell, names)
        return None
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_every_cell_of_the_notebook_does_what_it_shows(
    trainer: threading.Thread, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    names: dict[str, Any] = {}
    shown = [execute(cell, names) for cell in CELLS]

    run = names["run"].name
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith(f"{run} succeeded.")
    assert repr(shown[1]) == f"<Run {run}>"
    assert list(shown[3].columns) == ["loss", "eval/score"]
    assert [item.step for item in shown[4]] == [5, 10]
    assert (tmp_path / shown[5] / "adapter_config.json").read_text() == "5"
    assert names["client"].runs()[0].resource.spec.train.epochs == 3


def test_the_notebook_has_no_outputs_of_somebody() -> None:
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]

    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_the_first_example_of_the_page_trains_and_pulls(
    served: Served, trainer: threading.Thread, tmp_path: Path
) -> None:
    exec(BLOCKS[0], {})

    assert (tmp_path / "my-adapter" / "adapter_config.json").read_text() == "final"


def test_the_page_names_everything_that_is_public() -> None:
    missing = [name for name in flashrun.client.__all__ if f"`{name}`" not in PAGE]
    calls = [name for name in vars(flashrun.client.Run) if not name.startswith("_")]

    assert [name for name in missing if name != "Client"] == []
    assert [name for name in calls if f"run.{name}(" not in PAGE] == []
