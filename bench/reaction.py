"""How soon a trainer ends that is asked to stop, in each part of a step.

    python -m bench.reaction [--model FOLDER] [--only PART]

For each part a trainer is started as in a pod. It gets SIGTERM shortly after it has begun that
part, and the time until its process has ended is measured. The parts are those of the first step,
which leaves nothing to save, and of a later step, which leaves a checkpoint to write and to upload.
Without a model a small random one is made, whose steps take seconds.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from bench import sides
from bench.sides import ROOT
from bench.trainer import requirements
from bench.upload import server
from flashrun.api.exits import Exit
from flashrun_trainer.pod.mounts import PodMounts
from tests.trainer.pods import TrainerPod, Workshop, kill, resolved, rows, sums

LIMIT_SECONDS = 5.0
BEGIN_SECONDS, END_SECONDS = 1200.0, 120.0
"""Longest time until a part begins, and until a process has ended."""

# Marks in a folder when the parts of a step begin. Scoring waits as params say: True is for ever.
ENVIRONMENT = """
import os
import time
from pathlib import Path

import torch
import transformers
from freesolo.environments import EnvironmentSingleTurn, RewardResult

FOLDER = Path("{folder}")
begun = dict()


def mark(part):
    begun[part] = begun.get(part, 0) + 1
    (FOLDER / f"{part}-{begun[part]}").touch()


def marking(method, part):
    def mark_and_call(*args, **kwargs):
        mark(part)
        return method(*args, **kwargs)

    return mark_and_call


transformers.GenerationMixin.generate = marking(transformers.GenerationMixin.generate, "generation")
torch.Tensor.backward = marking(torch.Tensor.backward, "backward")


class Environment(EnvironmentSingleTurn):
    def __init__(self, wait):
        super().__init__()
        self.wait = wait

    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": str(example.input)}]

    def score_response(self, example, response_text):
        mark("scoring")
        if self.wait == "sleeps":
            time.sleep(3600)
        while self.wait == "computes":
            pass
        return RewardResult(score=float(len(response_text) % 7))


def load_environment(wait="", **params):
    return Environment(wait)
"""
INSTRUCTION = "Write a very long story about "
COMMON = {"max_length": 1280, "learning_rate": 1e-4, "lora_rank": 32, "save_every": 100}
SFT = COMMON | {"batch_size": 4, "max_steps": 50, "epochs": None}
GRPO = COMMON | {"batch_size": 1, "group_size": 4, "steps": 50, "stop_sequences": ()}
SHORT, LONG = {"max_tokens": 32}, {"max_tokens": 1024}
"""Completions: of seconds, for the other parts; and of minutes, so that generation goes on."""


class Moment(NamedTuple):
    """When a trainer is asked to stop."""

    algorithm: str
    begins: Callable[["Stopped"], bool]
    """Whether the part has begun."""
    train: Mapping[str, Any] = MappingProxyType({})
    wait: str = ""
    """What scoring waits for."""


@dataclass
class Stopped:
    """A trainer that is asked to stop once."""

    pod: TrainerPod
    marks: Path
    log: Path
    process: "subprocess.Popen[bytes]" = field(init=False)

    def has_mark(self, name: str) -> bool:
        """Return whether a part has begun, such as ``backward-2``."""
        return (self.marks / name).exists()

    def says(self, words: str) -> bool:
        """Return whether the log has these words."""
        return words in self.log.read_text()

    def is_uploading(self) -> bool:
        """Return whether a checkpoint is being uploaded."""
        outbox = PodMounts.from_environment(self.pod.environment).work / "outbox"
        return any(outbox.glob("*"))


def marked(name: str) -> Callable[[Stopped], bool]:
    """Return a condition that holds once a part has begun."""
    return lambda stopped: stopped.has_mark(name)


def says(words: str) -> Callable[[Stopped], bool]:
    """Return a condition that holds once the log has these words."""
    return lambda stopped: stopped.says(words)


MOMENTS = {
    "imports": Moment("grpo", says("has claimed attempt")),
    "loading the model": Moment("grpo", says("torch ")),
    "SFT, step 1, gradient": Moment("sft", marked("backward-1")),
    "SFT, step 2, gradient": Moment("sft", marked("backward-2")),
    "SFT, upload of a checkpoint": Moment("sft", Stopped.is_uploading, {"save_every": 1}),
    "GRPO, step 1, generation": Moment("grpo", marked("generation-1"), LONG),
    "GRPO, step 1, scoring that sleeps": Moment("grpo", marked("scoring-1"), SHORT, "sleeps"),
    "GRPO, step 1, scoring that computes": Moment("grpo", marked("scoring-1"), SHORT, "computes"),
    "GRPO, step 1, gradient": Moment("grpo", marked("backward-1"), SHORT),
    "GRPO, step 2, generation": Moment("grpo", marked("generation-2"), SHORT),
    "GRPO, step 2, gradient": Moment("grpo", marked("backward-2"), SHORT),
    "GRPO, upload of a checkpoint": Moment(
        "grpo", Stopped.is_uploading, {**SHORT, "save_every": 1}
    ),
}


def stop(workshop: Workshop, python: Path, folder: Path, moment: Moment) -> tuple[float, int]:
    """Start a trainer, ask it to stop at a moment; return seconds to its end, and its exit code."""
    folder.mkdir()
    run = (
        resolved("sft", **SFT | moment.train)
        if moment.algorithm == "sft"
        else resolved("grpo", **GRPO | moment.train, environment={"params": {"wait": moment.wait}})
    )
    data = rows(*((f"{INSTRUCTION}{i}.", "word " * 400) for i in range(64)))
    pod = workshop.pod(
        run, sums(environment=ENVIRONMENT.replace("{folder}", str(folder)), train=data)
    )
    stopped = Stopped(pod, folder, folder / "log")
    paths = f"{ROOT / 'operator/src'}{os.pathsep}{ROOT / 'trainer-image/src'}"
    variables = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", **pod.environment}
    with stopped.log.open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "flashrun_trainer", "train"], env=variables, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + BEGIN_SECONDS
        while not moment.begins(stopped):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the part never began: {stopped.log.read_text()[-3000:]}")
            time.sleep(0.01)
        time.sleep(0.5)  # into the part
        began = time.monotonic()
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        return time.monotonic() - began, process.returncode or 0
    finally:
        kill(process)


def main() -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of a model in safetensors")
    parser.add_argument("--only", default="", help="measure only parts with this in their name")
    given = parser.parse_args()
    python = sides.environment("trainer", requirements())
    chosen = {name: moment for name, moment in MOMENTS.items() if given.only in name}
    results: list[tuple[str, bool]] = []
    with server() as minio, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = given.model or folder / "small"
        if given.model is None:
            subprocess.run([python, "-m", "bench.small_model", model], check=True, cwd=ROOT)
        workshop = Workshop(folder / "pods", minio.store("bench").access)
        workshop.mirror(model)
        print(sides.versions(python, "torch", "transformers", "trl", "peft"))
        for number, (name, moment) in enumerate(chosen.items()):
            seconds, code = stop(workshop, python, folder / str(number), moment)
            saved = "saved" if code == Exit.INTERRUPTED_SAVED else f"exit code {code}"
            results.append((f"{name}: {seconds:.1f} s, {saved}", seconds <= LIMIT_SECONDS))
            print(results[-1][0], flush=True)
        print(sides.machine())
    return sides.verdict(*results)


if __name__ == "__main__":
    sys.exit(main())
