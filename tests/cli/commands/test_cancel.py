"""``flash cancel``: a run ends for good."""

import subprocess

from tests.cli.following import wait_for
from tests.cli.shell import Served
from tests.cli.storage import checkpoint


def test_cancel_sets_the_switch_and_prints_what_is_kept(served: Served) -> None:
    served.push()
    name = served.submit()
    process = subprocess.Popen(
        served.flash.argv("cancel", name),
        env=served.flash.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(process, "cancelling")
    assert served.get("flashrun", name)["spec"]["control"] == {"cancel": True}
    kept = {"checkpoints": [checkpoint(name, 20)], "checkpointCount": 1}
    served.report(name, phase="Cancelled", **kept)

    assert "its 1 checkpoint is kept" in process.communicate(timeout=60)[0]
    assert process.returncode == 0
