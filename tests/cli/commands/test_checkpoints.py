"""``flash checkpoints``: the checkpoints of a run."""

from tests.cli.shell import Served
from tests.cli.storage import checkpoint


def test_checkpoints_are_one_line_each(served: Served) -> None:
    served.push()
    name = served.submit()
    served.report(name, checkpoints=[checkpoint(name, 20), checkpoint(name, 10)], checkpointCount=2)

    listed = served.flash("checkpoints", name).stdout

    assert listed == f"step 10 {name}/step-10\nstep 20 {name}/step-20\n"
