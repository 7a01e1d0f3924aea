"""A followed run on a terminal."""

from tests.cli.following import Terminal
from tests.cli.shell import Served


def test_a_terminal_shows_progress_in_place_and_control_c_detaches(served: Served) -> None:
    served.push()
    with Terminal(served, "train", "config.toml") as screen:
        name = screen.wait_for(r"submitted \S+/(flash-\S+)")
        progress = {"step": 3, "totalSteps": 10, "percent": 30, "metrics": {"loss": "1.5"}}
        served.report(name, phase="Running", progress=progress)
        screen.wait_for(r"step 3/10 \(30%\) · loss 1\.5")
        served.report(name, phase="Running", progress={**progress, "step": 4, "percent": 40})
        screen.wait_for(r"step 4/10 \(40%\)")
        screen.press(b"\x03")
        code = screen.finish()

    assert code == 130
    assert f"Come back: flash log {name} -f" in screen.text
    assert "\x1b[" in screen.text  # the line is renewed in its place
    assert served.get("flashrun", name)["spec"].get("control") is None
