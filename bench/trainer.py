"""The trainer against a plain TRL script of the same settings, on this machine's CPU.

    python -m bench.trainer [--pairs 10] [--only speed|stall|packing|grpo]

`speed` runs both sides in turns on the same model, data and settings, packing off: time per step
with all of our reporting and checkpointing on, and time from process start to the first step, with
its parts. `stall` is a long run of ours with 20 saves against storage that takes 1.5 s per upload:
how long training is blocked. `packing` compares our own tokens per second with and without packing.
`grpo` runs both sides in turns with the same prompts and reward, transformers sampling. Everything
runs on one thread; the model is random and made so that a step takes some hundred milliseconds.
"""

import argparse
import itertools
import json
import operator
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench import sides
from bench.sides import ROOT
from bench.slow_storage import slowed
from bench.upload import server
from flashrun.api.records import ResolvedRun, StorageAccess
from flashrun_trainer import trl_arguments
from flashrun_trainer.data import packing
from tests.trainer.pods import SUMS, TrainerPod, Workshop, resolved, sums

STEPS, SAVE_EVERY = 40, 10
LONG_STEPS, SAVES = 600, 20
UPLOAD_SECONDS = 1.5
SPEED_LIMIT, START_LIMIT, STALL_LIMIT = 0.97, 1.1, 0.01
LONG_RUN_SECONDS, SHORTEST_STEP_SECONDS = 120, 0.2
KNOBS = {"batch_size": 8, "max_length": 256, "learning_rate": 1e-3, "lora_rank": 8}
GRPO_KNOBS = KNOBS | {
    "batch_size": 4,
    "group_size": 8,
    "max_tokens": 48,
    "stop_sequences": (),
    "save_every": SAVE_EVERY,
}
INSTRUCTION = "Answer with digits only."  # what examples/sums asks for by default
# TRL also learns the line feed that the template writes behind the end of a turn; we do not.
LOSS_TOLERANCE = 0.01

# Our trainer with packing off.
PADDED = """
import os
from flashrun.api.trainer_choices import Layout
from flashrun_trainer import __main__ as entry, row_layout
row_layout.choose_layout = lambda *_: row_layout.LayoutChoice(Layout.PADDED)
os._exit(entry.main())
"""


class Run(NamedTuple):
    """What was seen of one process."""

    first_step: float
    """Seconds from process start to the end of the first step."""
    steps: list[float]
    """Seconds of every further step."""
    values: list[float]
    """Loss of every step, or reward."""
    start: dict[str, float]
    """Seconds of the parts of the time to the first step: imports, loading, first_step."""


@dataclass(frozen=True)
class Bench:
    """The pieces that both sides use."""

    folder: Path
    python: Path
    workshop: Workshop

    @property
    def environment(self) -> dict[str, str]:
        paths = f"{ROOT / 'operator/src'}{os.pathsep}{ROOT / 'trainer-image/src'}"
        return {
            **os.environ,
            "PYTHONPATH": paths,
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }

    def ours(self, name: str, padded: bool = False, **train: Any) -> tuple[Run, TrainerPod]:
        """Train with SFT as a pod of a run would; ``padded`` turns packing off."""
        program = ("-c", PADDED) if padded else ("-m", "flashrun_trainer")
        return self._ours(name, program, resolved("sft", **KNOBS, epochs=1000, **train), "loss")

    def grpo(self, **train: Any) -> tuple[Run, TrainerPod]:
        """Train with GRPO as a pod of a run would."""
        run = resolved("grpo", **GRPO_KNOBS, **train)
        return self._ours("grpo", ("-m", "flashrun_trainer"), run, "reward")

    def _ours(
        self, name: str, program: Sequence[str], run: ResolvedRun, value: str
    ) -> tuple[Run, TrainerPod]:
        pod = self.workshop.pod(run, sums(train=dataset()))
        began = time.time()
        log = self.folder / f"{name}.log"
        done = subprocess.run(
            [self.python, *program, "train"],
            env={**self.environment, **pod.environment},
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            raise SystemExit(f"the trainer ended with {done.returncode}: {log.read_text()[-2000:]}")
        rows = pod.metrics
        times = [row.time.timestamp() for row in rows]
        first = rows[0].values
        start = {part: first[f"startup/{part}"] for part in ("imports", "loading", "first_step")}
        return _run(began, times, [row.values[value] for row in rows], start), pod

    def plain(self, pod: TrainerPod) -> Run:
        """Train the same with TRL alone; the settings are those that our trainer would use."""
        rows = dataset().splitlines(keepends=True)
        steps = packing.BatchSampler(pod.run, len(rows))
        output = self.output()
        settings = trl_arguments.sft(
            pod.run,
            trl_arguments.Machine(),
            output,
            gradient_accumulation_steps=1,
            steps=len(steps),
        )
        # We hand over micro-batches of token ids; TRL makes its own of text.
        ours_only = {"dataset_kwargs", "packing", "remove_unused_columns"}
        kept = {key: value for key, value in settings.items() if key not in ours_only}
        own = {
            "per_device_train_batch_size": pod.run.train.batch_size,
            "max_length": pod.run.train.max_length,
        }
        # Our order, so that both sides learn the same examples at every step.
        data = "".join(rows[example] for step in steps for example in step)
        return self._plain("plain_sft.py", pod, data, kept | own, "loss")

    def plain_grpo(self, pod: TrainerPod) -> Run:
        """Train the same with TRL alone; the order of the prompts depends on the seed alone."""
        data = dataset()
        prompts = data.count("\n")
        settings = trl_arguments.grpo(pod.run, trl_arguments.Machine(), self.output(), prompts)
        return self._plain("plain_grpo.py", pod, data, settings, "reward")

    def output(self) -> Path:
        """Return a new folder."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def _plain(
        self, script: str, pod: TrainerPod, data: str, settings: Mapping[str, Any], value: str
    ) -> Run:
        output = Path(settings["output_dir"])
        (output / "train.jsonl").write_text(data)
        file = output / "settings.json"
        file.write_text(
            json.dumps(
                {
                    "model": str(pod.inside.model_folder(pod.run)),
                    "data": str(output / "train.jsonl"),
                    "instruction": INSTRUCTION,
                    "arguments": settings,
                    "lora": trl_arguments.lora(pod.run, "all-linear", None),
                }
            )
        )
        began = time.time()
        done = subprocess.run(
            [self.python, ROOT / "bench" / script, file],
            env=self.environment,
            check=True,
            stdout=subprocess.PIPE,
            stderr=(output / "log").open("w"),
            text=True,
        )
        marked = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
        lines = [line for line in marked if "step" in line]
        times = [line["time"] for line in lines]
        marks = [began, *(line["time"] for line in marked if "part" in line), times[0]]
        parts = ("imports", "loading", "first_step")
        start = dict(zip(parts, map(operator.sub, marks[1:], marks), strict=True))
        return _run(began, times, [line[value] for line in lines], start)


def _run(began: float, times: list[float], values: list[float], start: dict[str, float]) -> Run:
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return Run(times[0] - began, gaps, values, start)


def dataset() -> str:
    """Return 512 questions with answers of 8 to 120 numbers, so that rows differ in length."""
    dice = random.Random(7)
    rows = []
    for _ in range(512):
        a, count = dice.randint(1, 99), round(8 * 15 ** dice.random())
        answer = " ".join(str(a + i) for i in range(count))
        rows.append({"input": f"Count {count} numbers up from {a}.", "output": answer})
    return "".join(json.dumps(row) + "\n" for row in rows)


def speed(bench: Bench, pairs: int) -> list[tuple[str, bool]]:
    """Compare time per step and time to the first step, in turns."""
    train = {"max_steps": STEPS, "save_every": SAVE_EVERY}
    _, pod = bench.ours("warm", padded=True, **train)  # fills caches, and is left out
    bench.plain(pod)
    found = _in_turns(
        pairs,
        lambda: bench.ours("speed", padded=True, **train)[0],
        lambda: bench.plain(pod),
    )
    for side, runs in found.items():
        step = statistics.median(statistics.mean(run.steps) for run in runs)
        first = statistics.median(run.first_step for run in runs)
        last = statistics.median(run.values[-1] for run in runs)
        print(
            f"  {side:9} {step:.3f} s per step, first step after {first:.1f} s ({_parts(runs)}), "
            f"last loss {last:.4f}"
        )
    pace = _pace(found)
    start = sides.ratio(*([run.first_step for run in found[side]] for side in found))
    shortest = min(statistics.median(run.steps) for run in found["plain"])
    begin = {side: runs[0].values[0] for side, runs in found.items()}
    same = abs(begin["plain"] - begin["flashrun"]) < LOSS_TOLERANCE
    return [
        (f"losses begin alike, {begin['flashrun']:.4f} and {begin['plain']:.4f}", same),
        (f"a step takes {shortest:.2f} s or more", shortest >= SHORTEST_STEP_SECONDS),
        (f"tokens/s {pace:.3f}x of plain TRL's (limit {SPEED_LIMIT})", pace >= SPEED_LIMIT),
        (f"start to first step {start:.3f}x (limit {START_LIMIT})", start <= START_LIMIT),
    ]


def _in_turns(
    pairs: int, ours: Callable[[], Run], plain: Callable[[], Run]
) -> dict[str, list[Run]]:
    train = {"flashrun": ours, "plain": plain}
    found: dict[str, list[Run]] = {side: [] for side in train}
    for number in range(pairs):
        for side in sides.turns(number, train):
            found[side].append(train[side]())
    return found


def _pace(found: Mapping[str, list[Run]]) -> float:
    """Return our steps per second, as a multiple of plain TRL's."""
    mean = {side: [statistics.mean(run.steps) for run in runs] for side, runs in found.items()}
    return sides.ratio(mean["plain"], mean["flashrun"])


def _parts(runs: list[Run]) -> str:
    medians = {part: statistics.median(run.start[part] for run in runs) for part in runs[0].start}
    return ", ".join(f"{part} {seconds:.1f}" for part, seconds in medians.items())


def stall(bench: Bench) -> list[tuple[str, bool]]:
    """Measure how much longer steps take after which a checkpoint was saved."""
    every = LONG_STEPS // SAVES
    run, pod = bench.ours("stall", max_steps=LONG_STEPS, save_every=every)
    saving = run.steps[every - 1 :: every]  # the gap after a step that saved holds the save
    usual = statistics.median(run.steps)
    stood = sum(max(0.0, seconds - usual) for seconds in saving)
    total = sum(run.steps)
    arrived = len(pod.steps())
    print(
        f"  {total:.0f} s in {LONG_STEPS} steps, {len(saving)} gaps with a save, "
        f"{stood:.2f} s longer than the median step; {arrived} checkpoints arrived"
    )
    return [
        (f"the run took {total:.0f} s (at least {LONG_RUN_SECONDS})", total >= LONG_RUN_SECONDS),
        (f"{arrived} of {SAVES} checkpoints arrived", arrived == SAVES),
        (
            f"training stood still for {stood / total:.2%} (limit {STALL_LIMIT:.0%})",
            stood / total <= STALL_LIMIT,
        ),
    ]


def packed(bench: Bench, pairs: int) -> list[tuple[str, bool]]:
    """Compare our own tokens per second with and without packing, in turns."""
    found: dict[str, list[float]] = {"packed": [], "padded": []}
    for number in range(pairs):
        for side in sides.turns(number, found):
            train = {"max_steps": STEPS // 2, "save_every": STEPS}
            _, pod = bench.ours(side, padded=side == "padded", **train)
            found[side].append(statistics.median(pod.values("tokens_per_second")[2:]))
    for side, rates in found.items():
        print(f"  {side:9} {statistics.median(rates):.0f} tokens/s")
    gain = sides.ratio(found["packed"], found["padded"])
    return [(f"packing trains {gain:.2f}x the tokens/s of padded rows (no limit)", True)]


def grpo(bench: Bench, pairs: int) -> list[tuple[str, bool]]:
    """Compare samples per second in turns."""
    train = {"steps": STEPS // 2}
    _, pod = bench.grpo(**train)  # fills caches, and is left out
    bench.plain_grpo(pod)
    found = _in_turns(pairs, lambda: bench.grpo(**train)[0], lambda: bench.plain_grpo(pod))
    samples = pod.run.train.batch_size * (pod.run.train.group_size or 1)
    for side, runs in found.items():
        rate = samples / statistics.median(statistics.mean(run.steps) for run in runs)
        print(f"  {side:9} {rate:.1f} samples/s, first reward {runs[0].values[0]:.4f}")
    pace = _pace(found)
    return [(f"GRPO samples/s {pace:.3f}x of plain TRL's (no limit)", True)]


def requirements() -> list[str]:
    """Return what the trainer needs, with PyTorch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted: Mapping[str, list[str]] = project["optional-dependencies"]
    dockerfile = (ROOT / "trainer-image" / "Dockerfile").read_text()
    [torch] = re.findall(r"(?m)^ARG TORCH=(.+)$", dockerfile)
    return [*project["dependencies"], *wanted["trainer"], torch]


def main() -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--only", choices=("speed", "stall", "packing", "grpo"))
    given = parser.parse_args()
    python = sides.environment("trainer", requirements())
    results: list[tuple[str, bool]] = []
    with server() as minio, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        subprocess.run([python, ROOT / "bench" / "small_model.py", folder / "small"], check=True)
        access = minio.store("bench").access

        def bench(access: StorageAccess) -> Bench:
            place = Workshop(folder / access.endpoint.rpartition(":")[2], access)
            place.mirror(folder / "small")
            return Bench(folder, python, place)

        print(sides.versions(python, "torch", "transformers", "trl", "peft", "accelerate"))
        print(f"{sides.machine()}; OMP_NUM_THREADS=1; {SUMS.name}, {KNOBS}")
        if given.only in (None, "speed"):
            results += speed(bench(access), given.pairs)
        if given.only in (None, "stall"):
            with slowed(access.endpoint, UPLOAD_SECONDS) as endpoint:
                results += stall(bench(access.replace(endpoint=endpoint)))
        if given.only in (None, "packing"):
            results += packed(bench(access), max(1, given.pairs // 2))
        if given.only in (None, "grpo"):
            results += grpo(bench(access), max(1, given.pairs // 2))
    return sides.verdict(*results)


if __name__ == "__main__":
    sys.exit(main())
