"""``flash runs``: the runs of a namespace."""

import time

from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import Served


def test_runs_are_listed_newest_first(served: Served) -> None:
    served.push()
    first = served.submit()
    time.sleep(1.1)  # creation times have whole seconds
    second = served.submit()

    assert served.flash("runs", "-o", "name").stdout.split() == [second, first]
    assert [line.split("\t")[0] for line in served.flash("runs").stdout.splitlines()] == [
        second,
        first,
    ]


def test_a_namespace_that_does_not_exist_is_not_an_empty_one(served: Served) -> None:
    done = served.flash("runs", "-n", "nowhere")

    assert done.returncode == ExitCode.NOT_FOUND
    assert "the namespace nowhere does not exist" in done.stderr
