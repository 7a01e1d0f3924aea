"""``flash save``: a run is asked for a checkpoint."""

from tests.cli.shell import Served


def test_save_asks_for_a_checkpoint(served: Served) -> None:
    served.push()
    name = served.submit()

    assert served.flash("save", name).returncode == 0
    assert served.get("flashrun", name)["spec"]["control"]["saveRequest"]
