"""A followed run on a terminal, and on what is none."""

import re
import signal
from dataclasses import replace
from typing import Any

import pytest
import yaml

from flashrun.api import names
from tests.cli.following import Relay, Stage, Terminal
from tests.cli.shell import Served
from tests.cli.storage import metrics_history
from tests.short_tokens import ShortTokens


def progress(step: int, activity: str = "Training", **metrics: str) -> dict[str, Any]:
    return {
        "step": step,
        "totalSteps": 10,
        "percent": 10 * step,
        "activity": activity,
        "metrics": metrics or {"loss": f"{1 / step:.4g}" if step else "1"},
    }


def test_train_shows_one_live_view_and_control_c_leaves_the_run(served: Served) -> None:
    served.push()
    with Terminal(served, "train", "config.toml") as screen:
        name = screen.wait_for(r"submitted \S+/(flash-\S+)")
        served.report(name, phase="Running", progress=progress(3, loss="1.5"))
        frame = screen.wait_for_frame(r"3/10 \(30%\)")
        assert "Loss        1.5" in frame
        served.report(name, phase="Running", progress=progress(4, loss="1.2"))
        assert "Loss        █▁ 1.2" in screen.wait_for_frame(r"4/10 \(40%\)")
        screen.press(b"\x03")
        code = screen.finish()

    assert code == 130
    *lines, last = screen.last_lines()
    assert "Loss        █▁ 1.2" in lines
    assert re.sub(r"\s+", " ", last).startswith(f"detached from {name}. Come back: flash ")
    assert f"stop it: flash cancel {name}" in screen.text
    assert served.get("flashrun", name)["spec"].get("control") is None


def test_a_view_ends_with_the_next_commands_in_the_scrollback(served: Served) -> None:
    served.push()
    with Terminal(served, "train", "config.toml") as screen:
        name = screen.wait_for(r"submitted \S+/(flash-\S+)")
        served.report(name, phase="Running", progress=progress(9))
        screen.wait_for_frame(r"9/10")
        adapter = {"ref": name, "bytes": 1}
        served.report(name, phase="Succeeded", progress=progress(10), adapter=adapter)
        code = screen.finish()

    assert code == 0
    lines = screen.last_lines()
    assert f"Adapter     {name} (1 B)" in lines
    assert lines[-2:] == [f"Next        flash pull {name}", f"            flash rollouts {name}"]


def test_a_failed_run_ends_the_view_with_one_sentence_and_the_hint(served: Served) -> None:
    served.push()
    failure = {"reason": "RewardFailed", "message": "The reward raised.", "hint": "Mend it."}
    with Terminal(served, "train", "config.toml") as screen:
        name = screen.wait_for(r"submitted \S+/(flash-\S+)")
        served.report(name, phase="Failed", failure=failure)
        code = screen.finish()

    assert code == 1
    assert screen.last_lines()[-3:] == [
        "Failure     The reward raised. (RewardFailed)",
        "Hint        Mend it.",
        f"Next        flash log {name}",
    ]


def test_a_program_that_is_ended_leaves_the_other_screen(served: Served) -> None:
    served.push()
    name = served.submit()
    served.report(name, phase="Running", progress=progress(3))
    with Terminal(served, "status", name, "-f") as screen:
        screen.wait_for_frame(r"3/10")
        screen.terminate()
        code = screen.finish()

    assert code == 128 + signal.SIGTERM
    assert any(f"detached from {name}" in line for line in screen.last_lines())
    assert screen.text.rpartition("\x1b[?25")[2].startswith("h")  # the cursor is shown again


def test_a_window_of_another_size_is_drawn_anew(served: Served) -> None:
    served.push()
    name = served.submit()
    served.report(name, phase="Running", progress=progress(3))
    with Terminal(served, "status", name, "-f", columns=120) as screen:
        wide = screen.wait_for_frame(r"3/10")
        screen.resize(34, 12)
        narrow = screen.wait_for_frame(r"Step: .*3/10")
        screen.resize(200, 30)
        screen.wait_for_frame(r"Step        ")
        screen.press(b"\x03")
        assert screen.finish() == 130

    assert len(wide) == len(narrow) + 18 == 30
    assert max(map(len, narrow)) <= 34
    assert any(name in line for line in narrow)


def test_a_lost_connection_is_shown_and_heals(served: Served) -> None:
    served.push()
    name = served.submit()
    served.report(name, phase="Running", progress=progress(3))
    with Relay(served) as network, Terminal(served, "status", name, "-f") as screen:
        screen.wait_for_frame(r"3/10")
        network.cut()
        lost = screen.wait_for_frame(r"no answer from the API server")
        network.mend()
        served.report(name, phase="Running", progress=progress(4))
        healed = screen.wait_for_frame(r"4/10")
        screen.press(b"\x03")
        assert screen.finish() == 130

    assert "trying again, the run is not affected" in " ".join(" ".join(lost).split())
    assert not any("Connection" in line for line in healed)


ASKING = """\
#!/bin/sh
# The first token is valid for three seconds. For the next one a person is asked.
if test -e $0.called; then
  printf 'Password: ' >/dev/tty
  read -r answer
  echo "$answer" >$0.answer
  exec {plugin} asked 600
fi
touch $0.called
exec {plugin} asked 3
"""


@pytest.mark.parametrize("view", ["the live view", "the log"])
def test_nothing_is_drawn_while_a_plugin_asks_a_person(
    stage: Stage, short_tokens: ShortTokens, view: str
) -> None:
    served, options = stage.served, [] if view == "the live view" else ["--logs"]
    own = served.flash.folder / "asked.kubeconfig"
    assert served.flash.kubeconfig is not None
    short_tokens.kubeconfig(served.flash.kubeconfig, own, "asked", 3)
    plugin = served.flash.folder / "plugin"
    plugin.write_text(ASKING.format(plugin=short_tokens.folder / "plugin.sh"))
    plugin.chmod(0o755)
    config = yaml.safe_load(own.read_text())
    config["users"][0]["user"]["exec"] |= {"command": str(plugin), "interactiveMode": "IfAvailable"}
    own.write_text(yaml.safe_dump(config))
    log = stage.pod()
    stage.report(phase="Running", progress=progress(3), **stage.attempts(1))
    as_person = replace(served, flash=replace(served.flash, kubeconfig=own))
    with Terminal(as_person, "status", stage.run, "-f", *options) as screen:
        screen.wait_for("Password: ")
        log.write("a line of the log")
        with pytest.raises(AssertionError):  # the view is drawn every second otherwise
            screen.wait_for("Password: (.)", seconds=3)
        screen.press(b"hush\r")
        screen.wait_for(r"(?s)Password: hush.*3/10")
        if options:
            screen.wait_for(r"(?s)Password: hush.*a line of the log")
        screen.press(b"\x03")
        assert screen.finish() == 130

    assert (plugin.parent / "plugin.answer").read_text() == "hush\n"


def test_the_curve_has_the_steps_that_storage_knows(served: Served) -> None:
    served.push()
    name = served.submit()
    uid = served.get("flashrun", name)["metadata"]["uid"]
    key = names.metrics_key(names.run_prefix(served.namespace, name, uid))
    rows = {step: {"loss": float(step)} for step in range(1, 9)}
    served.store.put_bytes(key, metrics_history(rows))
    served.report(name, phase="Running", progress=progress(8, loss="8"))
    with Terminal(served, "status", name, "-f") as screen:
        screen.wait_for_frame("Loss        ▁▂▃▄▅▆▇█ 8")
        screen.press(b"\x03")
        assert screen.finish() == 130


def test_without_keys_for_storage_the_view_shows_what_the_status_says(served: Served) -> None:
    served.push()
    name = served.submit()
    served.kubectl("delete", "secret", names.STORAGE_USER_SECRET)
    served.report(name, phase="Running", progress=progress(3, loss="1.5"))
    with Terminal(served, "status", name, "-f") as screen:
        screen.wait_for_frame("Loss        1.5")
        served.report(name, phase="Succeeded", adapter={"ref": name, "bytes": 1})
        assert screen.finish() == 0

    assert "Secret" not in screen.text


def test_hostile_text_of_a_run_reaches_no_terminal(served: Served) -> None:
    served.push()
    name = served.submit()
    hostile = "bad\x1b]0;owned\x07\x1b[31mred\x9b2J"
    failure = {"reason": "RewardFailed", "message": hostile}
    served.report(name, phase="Running", progress=progress(3, activity=hostile))
    with Terminal(served, "status", name, "-f") as screen:
        screen.wait_for_frame(r"3/10")
        served.report(name, phase="Failed", failure=failure)
        screen.finish()
    with Terminal(served, "status", name) as plain:
        plain.finish()

    for shown in (screen.text, plain.text):
        assert "badred" in shown
        assert not {"\x1b]0;", "\x1b[31mred", "\x9b", "\x07"} & set(
            re.findall(r"\x1b\]0;|\x1b\[31mred|\x9b|\x07", shown)
        )


def test_logs_are_raw_lines_above_one_line(stage: Stage) -> None:
    log = stage.pod()
    stage.report(phase="Running", progress=progress(3), **stage.attempts(1))
    log.write("INFO the \x1b[31mfirst\x1b[0m line")
    with Terminal(stage.served, "status", stage.run, "-f", "--logs") as screen:
        screen.wait_for("INFO the first line")
        screen.wait_for(r"step 3/10 \(30%\)")
        stage.ended()
        stage.report(phase="Succeeded", adapter={"ref": stage.run, "bytes": 1})
        assert screen.finish() == 0

    assert "\x1b[?1049h" not in screen.text
    assert "Phase:       Succeeded" in screen.text


PLAIN = [{"TERM": "dumb"}, {"TERM": ""}, {"NO_COLOR": "1"}, {"CI": "true"}]


@pytest.mark.parametrize("variables", PLAIN, ids=str)
def test_what_is_not_quite_a_terminal_gets_lines(served: Served, variables: dict[str, str]) -> None:
    served.push()
    name = served.submit()
    served.report(name, phase="Running", progress=progress(3))
    with Terminal(served, "status", name, "-f", **variables) as screen:
        screen.wait_for(rf"{name}: Running · Training · step 3/10 \(30%\)")
        served.report(name, phase="Succeeded", adapter={"ref": name, "bytes": 1})
        assert screen.finish() == 0

    assert "\x1b[H" not in screen.text
    assert "Phase:       Succeeded" in screen.text


def test_a_terminal_without_block_characters_gets_ascii(served: Served) -> None:
    served.push()
    name = served.submit()
    served.report(name, phase="Running", progress=progress(5))
    with Terminal(served, "status", name, "-f", PYTHONIOENCODING="cp1252") as screen:
        frame = screen.wait_for_frame(r"5/10")
        screen.press(b"\x03")
        screen.finish()

    assert any("###############..............." in line for line in frame)
    assert screen.text.isascii()


def test_a_program_gets_one_document_after_the_view(served: Served) -> None:
    served.push()
    name = served.submit()
    served.report(name, phase="Running", progress=progress(3))
    with Terminal(served, "status", name, "-f", "-o", "name") as screen:
        screen.wait_for_frame(r"3/10")
        served.report(name, phase="Succeeded", adapter={"ref": name, "bytes": 1})
        assert screen.finish() == 0

    assert screen.last_lines() == [name]
