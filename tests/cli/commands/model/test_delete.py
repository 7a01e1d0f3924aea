"""``flash model delete``: a revision goes, unless a run still needs it."""

import pytest

from tests.cli.models.models import write_model
from tests.cli.shell import REFERENCE, Served

pytestmark = pytest.mark.api
DELETE = ("model", "delete", "Qwen/Qwen3.5-4B", "--revision", "1")


@pytest.fixture
def pushed(no_other_runs: None, served: Served) -> Served:
    """The model of the reference's example is in the mirror, and no run needs it."""
    served.give_mirror()
    write_model(served.flash.folder / "model")
    done = served.flash("model", "push", "model", "--id", "Qwen/Qwen3.5-4B", "--revision", "1")
    assert done.returncode == 0, done.stderr
    return served


def revisions(served: Served) -> str:
    return served.flash("model", "list", "-o", "name").stdout


def test_a_deleted_revision_is_gone(pushed: Served) -> None:
    done = pushed.flash(*DELETE, "--yes")

    assert (done.returncode, done.stdout) == (0, "Qwen/Qwen3.5-4B@1\n"), done.stderr
    assert "Qwen/Qwen3.5-4B@1" not in revisions(pushed)
    assert pushed.flash(*DELETE, "--yes").returncode == 3


def test_nothing_is_deleted_without_an_answer(pushed: Served) -> None:
    done = pushed.flash(*DELETE)

    assert done.returncode == 2
    assert "add -y" in done.stderr
    assert "Qwen/Qwen3.5-4B@1" in revisions(pushed)
    pushed.flash(*DELETE, "--yes")


def test_a_model_that_a_run_needs_stays_until_the_run_has_ended(pushed: Served) -> None:
    pushed.push()
    assert "Qwen/Qwen3.5-4B" in REFERENCE
    run = pushed.submit()
    refused = pushed.flash(*DELETE, "--yes")
    pushed.report(run, phase="Succeeded")

    assert refused.returncode == 2
    assert f"is needed by {pushed.namespace}/{run}" in refused.stderr
    assert pushed.flash(*DELETE, "--yes").returncode == 0


def test_a_run_with_another_revision_does_not_need_this_one(pushed: Served) -> None:
    pushed.push()
    run = pushed.submit()
    resolved = {"modelRevision": "2"}
    pushed.report(run, phase="Running", resolved=resolved)

    assert pushed.flash(*DELETE, "--yes").returncode == 0
    pushed.report(run, phase="Succeeded")
