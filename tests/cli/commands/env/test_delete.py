"""``flash env delete``: an environment is deleted when no run needs it."""

import pytest

from flashrun.api import names
from flashrun.cli.output.failure import ExitCode
from flashrun.cluster_requests import RESOURCES
from tests.cli.shell import Served
from tests.cli.storage import list_packages
from tests.controller.large_objects import large_run

pytestmark = pytest.mark.usefixtures("no_other_runs")


def test_delete_asks_first_and_without_a_terminal_needs_y(served: Served) -> None:
    served.push("org/gone")

    refused = served.flash("env", "delete", "org/gone")
    assert (refused.returncode, "add -y" in refused.stderr) == (2, True)
    assert list_packages(served, "org/gone")
    assert served.flash("env", "delete", "org/gone", "-y").stdout == "org/gone\n"
    assert list(served.store.list(names.environment_prefix("org/gone"))) == []
    assert served.flash("env", "delete", "org/gone", "-y").returncode == 3


def test_delete_takes_one_environment_and_no_other_of_a_similar_name(served: Served) -> None:
    for name in ("org/gone", "org/gone2", "org2/gone"):
        served.push(name)
    served.flash("env", "delete", "org/gone", "-y")

    assert served.flash("env", "list", "-o", "name").stdout.split() == ["org/gone2", "org2/gone"]


def test_an_environment_that_a_run_needs_stays(served: Served) -> None:
    served.push()
    name = served.submit()

    done = served.flash("env", "delete", "your-org/your-env", "-y")
    assert done.returncode == 2
    assert f"is needed by {served.namespace}/{name}" in done.stderr
    assert list_packages(served, "your-org/your-env")

    served.report(name, phase="Succeeded")
    assert served.flash("env", "delete", "your-org/your-env", "-y").returncode == 0


def test_a_run_of_somebody_that_cannot_be_read_keeps_nobody_from_deleting(served: Served) -> None:
    path = RESOURCES[names.KIND].path(served.namespace)
    deep = large_run(served.namespace, "nested")
    served.kubectl("create", "--raw", path, "-f", "-", stdin=deep)
    served.push()
    name = served.submit()

    done = served.flash("env", "delete", "your-org/your-env", "-y")
    assert f"is needed by {served.namespace}/{name}" in done.stderr
    assert served.flash("runs", "-o", "name").stdout.split() == [name]
    done = served.flash("status", "flash-1-nested")
    assert done.returncode == ExitCode.USAGE
    assert "nested too deeply" in done.stderr


def test_an_environment_of_another_org_is_neither_deleted_nor_pulled_nor_listed(
    served: Served,
) -> None:
    served.push("org/env")
    served.push("your-org/env")
    served.publish(environment_orgs=("your-org",))

    for words in (("delete", "org/env", "-y"), ("pull", "org/env", "new")):
        done = served.flash("env", *words)
        assert done.returncode == 2
        assert "Environment org/env does not belong to namespace" in done.stderr
    assert served.flash("env", "list", "-o", "name").stdout == "your-org/env\n"
    assert list_packages(served, "org/env")
