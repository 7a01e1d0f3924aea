"""The metrics of a run as a DataFrame; pandas is imported when one is made."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flashrun.client.client_errors import MissingPackage
from flashrun.cluster_requests import one_line

if TYPE_CHECKING:
    import pandas


def import_pandas() -> Any:
    """Return the package; raises ``MissingPackage``."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        what = "pandas is not installed" if error.name == "pandas" else _broken(error)
        raise _missing(what) from None
    except Exception as error:  # ValueError when it was built for another version of numpy
        raise _missing(_broken(error)) from None
    return pandas


def _broken(error: Exception) -> str:
    return f"pandas is installed and cannot be imported ({one_line(error)})"


def _missing(what: str) -> MissingPackage:
    return MissingPackage(
        f"{what}, and a table of metrics needs it",
        "pip install 'flashrun[pandas]'; Run.history() returns the same numbers without it",
    )


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
