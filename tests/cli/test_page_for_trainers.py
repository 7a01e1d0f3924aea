"""docs/for-trainers.md: every command of it does what the page says; the test plays the pods."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from flashrun.api import names
from tests.cli.following import Following, Stage, wait_until
from tests.cli.kubelet import Kubelet
from tests.cli.shell import ROOT, Served
from tests.cli.storage import checkpoint, metrics_history, store_spec, upload_folder

pytest.importorskip("freesolo", reason="the environment SDK is an extra")

PAGE = (ROOT / "docs" / "for-trainers.md").read_text()
ORG = "team-a"
RUNS = ("RUN", "OTHER")
"""What the page writes for the names of runs, in the order in which they are trained."""


class Block(NamedTuple):
    """A fenced block of the page."""

    language: str
    text: str


class Step(NamedTuple):
    """A command of the page, and what the page prints of its output."""

    command: str
    shown: str = ""


BLOCKS = [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)]


def steps() -> Iterator[Step]:
    """Every line that a reader types on the way; a block of text is the last one's output.

    Blocks of ``console`` are beside the way: what is typed when something is wrong.
    """
    for number, (language, text) in enumerate(BLOCKS):
        if language == "sh":
            *lines, last = text.splitlines()
            following = BLOCKS[number + 1] if number + 1 < len(BLOCKS) else Block("", "")
            yield from map(Step, lines)
            yield Step(last, following.text if following.language == "text" else "")


@dataclass
class Reader:
    """A person who follows the page on a platform whose pods the test plays."""

    served: Served
    kubelet: Kubelet
    runs: dict[str, str] = field(default_factory=dict)
    """The page's name of a run → the run."""

    def type(self, step: Step) -> str:
        """Run a command of the page; return everything that it printed."""
        words = shlex.split(self._named(step.command))
        assert words[0] == "flash"
        if words[1] == "train" and "--dry-run" not in words and "--background" not in words:
            return self._follow(*words[1:])
        done = self.served.flash(*words[1:])
        assert done.returncode == 0, f"{step.command}: {done.stderr}"
        if words[1] == "train" and "--background" in words:
            self._play(done.stdout.strip())
        output = done.stdout + done.stderr
        for line in self._named(step.shown).splitlines():
            assert line in output.splitlines(), f"{step.command}: {line!r} is not in {output!r}"
        return output

    def _named(self, text: str) -> str:
        for placeholder, run in self.runs.items():
            text = re.sub(rf"\b{placeholder}\b", run, text)
        return text.replace(ORG, self.served.namespace)

    def _follow(self, *words: str) -> str:
        before = self._submitted()
        stage = Stage(self.served, self.kubelet, "", "")
        with Following(stage, *words) as process:
            wait_until(lambda: self._submitted() - before)
            [run] = self._submitted() - before
            self._play(run)
            lines, code = process.finish()
        assert code == 0, lines
        return "\n".join(lines)

    def _submitted(self) -> set[str]:
        return set(self.served.flash("runs", "-o", "name").stdout.split())

    def _play(self, run: str) -> None:
        """Train the run: its evaluations, answers, checkpoints and adapter; the later one wins."""
        first, last = self._saves(run)
        scores = ({0: 0.25, first: 0.5, last: 0.5}, {0: 0.25, first: 1.0, last: 0.75})[
            len(self.runs)
        ]
        self.runs[RUNS[len(self.runs)]] = run
        prefix, store = store_spec(self.served, run), self.served.store
        rows = ({step: {"loss": 2 - score, "eval/score": score, "eval/loss": 2 - score}}
                for step, score in scores.items())  # fmt: skip
        store.put_bytes(names.metrics_key(prefix), metrics_history(*rows))
        for step in scores:
            store.put_bytes(names.eval_rollouts_key(prefix, step), ANSWERS % (step, step))
        folder = self.served.flash.folder
        for step in (first, last):
            files = {"adapter/adapter_config.json": b"%d" % step}
            place = names.step_prefix(prefix, 1, step)
            upload_folder(self.served, place, "checkpoint", files, folder / f"made-{run}-{step}")
        best = max(scores, key=lambda step: scores[step])
        self.served.report(
            run,
            phase="Succeeded",
            adapter={"ref": run, "bytes": 1},
            checkpoints=[
                {**checkpoint(run, step), "score": str(scores[step])} for step in (last, first)
            ],
            checkpointCount=2,
            evaluation={
                "metric": "score",
                "baseline": {"step": 0, "score": str(scores[0])},
                "best": {"step": best, "score": str(scores[best])},
            },
        )

    def _saves(self, run: str) -> list[int]:
        """The steps at which the trainer would save this run, with the rows of the page."""
        train = self.served.get("flashrun", run)["spec"]["train"]
        rows = (self.served.flash.folder / "tickets/dataset/train.jsonl").read_text().count("\n")
        steps = -(-rows // train["batchSize"]) * train["epochs"]
        return [*range(train["saveEvery"], steps, train["saveEvery"]), steps]


ANSWERS = (
    b'{"step": %d, "prompt": "Where is my invoice?", "completion": "shipping", "score": 0.0}\n'
    b'{"step": %d, "prompt": "Change my bank account.", "completion": "billing", "score": 1.0}\n'
)


@pytest.mark.api
def test_every_command_of_the_page_does_what_the_page_says(
    served: Served, kubelet: Kubelet, tmp_path: Path
) -> None:
    [rows] = [block.text for block in BLOCKS if block.language == "json"]
    served.flash.write("tickets.jsonl", rows)
    reader = Reader(served, kubelet)
    outputs: dict[str, list[str]] = {}

    for step in steps():
        outputs.setdefault(" ".join(step.command.split()[:2]), []).append(reader.type(step))

    run, other = (reader.runs[placeholder] for placeholder in RUNS)
    assert outputs["flash runs"][0].startswith(other)
    assert "learning_rate" in outputs["flash diff"][0]
    assert f"step 5 {other}/step-5 score 1" in outputs["flash checkpoints"][0]
    assert '"completion": "shipping"' in outputs["flash rollouts"][0].splitlines()[0]
    assert run in (page := (tmp_path / "tickets.html").read_text())
    assert other in page
    assert (tmp_path / "tickets-adapter" / "adapter_config.json").read_bytes() == b"5"
    repeated = outputs["flash rerun"][0].splitlines()[0]
    spec, again = (served.get("flashrun", name)["spec"] for name in (other, repeated))
    assert again["train"] == spec["train"]


@pytest.mark.parametrize("page", ["for-trainers.md", "environments.md"])
def test_a_page_names_the_sdk_that_runs_have(page: str) -> None:
    trainer = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [sdk] = [it for it in trainer["optional-dependencies"]["trainer"] if "freesolo" in it]

    assert set(re.findall(r"freesolo==[\d.]+", (ROOT / "docs" / page).read_text())) == {sdk}


def test_the_page_shows_every_step_from_a_file_to_an_adapter() -> None:
    commands = [" ".join(step.command.split()[1:3]) for step in steps()]
    needed = ["doctor", "env setup", "env test", "env push", "train tickets/configs/sft.toml",
              "runs --sort", "metrics RUN", "rollouts OTHER", "report RUN",
              "pull OTHER"]  # fmt: skip

    assert [command for command in dict.fromkeys(commands) if command in needed] == needed
    assert {block.language for block in BLOCKS} == {"sh", "text", "json", "console"}
