"""The metrics of a run as a DataFrame; pandas is imported when one is made."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flashrun.client.client_errors import MissingPackage

if TYPE_CHECKING:
    import pandas


def import_pandas() -> Any:
    """Return the package; raises ``MissingPackage``."""
    try:
        import pandas
    except ImportError:
        raise MissingPackage(
            "pandas is not installed, and a table of metrics needs it",
            "pip install 'flashrun[pandas]'; Run.history() returns the same numbers without it",
        ) from None
    return pandas


def metrics_frame(
    steps: Mapping[int, Mapping[str, float]], keys: Sequence[str]
) -> "pandas.DataFrame":
    """Return one row per step that has one of the ``keys``, which are the columns.

    A step that lacks a metric has NaN.

    Raises:
        MissingPackage: pandas is not installed.
    """
    pandas = import_pandas()
    rows = {step: row for step, row in steps.items() if row.keys() & set(keys)}
    index = pandas.Index(list(rows), name="step", dtype="int64")
    columns = {key: [row.get(key, float("nan")) for row in rows.values()] for key in keys}
    return pandas.DataFrame(columns, index=index, columns=list(keys), dtype="float64")
