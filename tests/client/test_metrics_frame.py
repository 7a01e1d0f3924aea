"""A table of metrics, with and without pandas."""

import sys
from pathlib import Path

import pytest

from flashrun.client import AsyncClient, MissingPackage
from flashrun.client.metrics_frame import metrics_frame

STEPS = {0: {"a": 1.0}, 5: {"b": 2.0}, 10: {"a": 3.0, "b": 4.0}}


def test_a_row_is_a_step_that_has_one_of_the_metrics() -> None:
    frame = metrics_frame(STEPS, ["b", "a"])

    assert list(frame.columns) == ["b", "a"]
    assert list(metrics_frame(STEPS, ["a"]).index) == [0, 10]
    assert frame.fillna(-1.0).to_dict() == {
        "b": {0: -1.0, 5: 2.0, 10: 4.0}, "a": {0: 1.0, 5: -1.0, 10: 3.0},
    }  # fmt: skip


def test_without_metrics_the_frame_is_empty() -> None:
    assert metrics_frame({}, []).empty


async def test_without_pandas_the_error_says_what_to_install_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    run = AsyncClient(kubeconfig="absent").run("flash-1-a")

    with pytest.raises(MissingPackage, match=r"pip install 'flashrun\[pandas\]'"):
        await run.metrics()


BROKEN = {
    "raise ValueError('numpy.dtype size changed')": "numpy.dtype size changed",
    "import no_such_dependency": "No module named 'no_such_dependency'",
}


@pytest.mark.parametrize("content", BROKEN)
def test_a_pandas_that_cannot_be_imported_is_not_called_absent(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pandas.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pandas", raising=False)

    with pytest.raises(MissingPackage, match=f"cannot be imported .{BROKEN[content]}"):
        metrics_frame(STEPS, ["a"])
