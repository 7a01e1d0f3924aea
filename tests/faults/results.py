"""What came of each row: appended to a file, from which the page is printed."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "FLASHRUN_FAULTS_RESULTS"
"""Names the file; without it, results are only checked."""


@dataclass
class Result:
    """One row of the page."""

    where: str
    name: str
    outcome: str = "as it has to be"
    seconds: float | None = None
    """Until all was well again; None: it never was."""
    limit: float = 60.0
    writes: float | None = None
    """Writes of the operator for each run, the lease apart."""
    took: float = 0.0


@contextmanager
def recorded(result: Result) -> Iterator[Result]:
    """Record a result, whatever comes of it."""
    began = time.monotonic()
    try:
        yield result
    except BaseException as error:
        result.outcome = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise
    finally:
        result.took = time.monotonic() - began
        if path := os.environ.get(VARIABLE):
            with Path(path).open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")


def read(path: Path) -> list[Result]:
    """Return the results of a run of all tests."""
    return [Result(**json.loads(line)) for line in path.read_text().splitlines()]
