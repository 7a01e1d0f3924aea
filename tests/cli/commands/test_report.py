"""``flash report``: a page about runs that storage has, also of one that was deleted."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from flashrun.api import names
from flashrun.cli.commands import report
from flashrun.cli.output.failure import ExitCode, Failure, UsageFailure
from tests.cli.shell import Served
from tests.cli.storage import metrics_history, store_spec

HISTORY = metrics_history({0: {"eval/score": 0.25}}, {1: {"loss": 2.0}}, {2: {"eval/score": 0.5}})


def answers(step: int) -> bytes:
    row: dict[str, Any] = {"step": step, "prompt": "1 + 1", "completion": f"after {step}"}
    return (json.dumps(row | {"score": 1.0}) + "\n").encode()


@pytest.mark.api
def test_a_report_is_written_also_of_a_deleted_run(served: Served, run: str) -> None:
    prefix = store_spec(served, run)
    served.store.put_bytes(names.metrics_key(prefix), HISTORY)
    for step in (0, 1, 2):
        served.store.put_bytes(names.eval_rollouts_key(prefix, step), answers(step))

    done = served.flash("report", run)

    assert (done.returncode, done.stdout) == (ExitCode.OK, f"{run}.html\n"), done.stderr
    page = (served.flash.folder / f"{run}.html").read_text()
    assert r"eval\u002fscore" in page  # in the data of a chart
    assert "after 0" in page
    assert "after 1<" not in page  # neither the first, the last nor the best evaluation
    assert "after 2" in page
    served.kubectl("delete", "flashrun", run)
    again = served.flash("report", run, "--out", "kept.html")
    assert "The FlashRun was deleted" in (served.flash.folder / "kept.html").read_text()
    assert again.returncode == ExitCode.OK


@pytest.mark.api
def test_a_run_that_does_not_exist_leaves_no_file(served: Served) -> None:
    done = served.flash("report", "flash-1-00000000")
    assert done.returncode == ExitCode.NOT_FOUND
    assert list(served.flash.folder.glob("*.html")) == []


def test_a_missing_library_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(UsageFailure, match="not installed: plotly") as caught:
        report.report(["flash-1-00000000"])
    assert "flashrun[report]" in caught.value.hint


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "a.html"
    with pytest.raises(Failure, match=f"{path} cannot be written: No such file") as caught:
        report.write_page(path, "page")
    assert "--out" in caught.value.hint
