"""The trainer against a plain TRL script of the same settings, on this machine's CPU.

    python -m bench.trainer [--pairs 10] [--only speed|stall|packing|grpo] [--model FOLDER]

`speed` runs both sides in turns on the same model, data and settings, packing off: time per step
with all of our reporting and checkpointing on, and time from process start to the first step, with
its parts. `stall` is a long run of ours with 20 saves against storage that takes 1.5 s per upload:
how long training is blocked. `packing` compares our tokens per second with packing with those of
our padded rows, of TRL's padded rows and of TRL's packing, by processor time. `grpo` runs both
sides in turns with the same prompts and reward, transformers sampling. Everything runs on one
thread; the model is random and made so that a step takes some hundred milliseconds. With
``--model``, `grpo` trains the model of that folder instead, which ends its completions itself, asks
it for sums, and compares processor time.
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
MODEL_KNOBS = GRPO_KNOBS | {"learning_rate": 1e-5, "max_tokens": 64, "save_every": 100}
"""Of GRPO with a real model."""
MODEL_STEPS = 2
INSTRUCTION = "Answer with digits only."  # what examples/sums asks for by default
# TRL also learns the line feed that the template writes behind the end of a turn; we do not.
LOSS_TOLERANCE = 0.01
AGREEMENT_TOLERANCE = 1e-3
"""Of log-probabilities: other widths round differently."""

# Our trainer with packing off.
PADDED = """
import os
from flashrun.api.trainer_choices import Layout
from flashrun_trainer import __main__ as entry, row_layout
row_layout.choose_layout = lambda *_: row_layout.LayoutChoice(Layout.PADDED)
os._exit(entry.main())
"""
# Our trainer, which also prints processor time.
CLOCKED = ("-m", "bench.clocked_trainer")


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
    processor: list[float]
    """Processor time of every further step; empty when it was not measured."""
    lengths: list[float]
    """Tokens of every further step, or mean length of its completions; empty when not known."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens in a second of processor time."""
        return sum(self.lengths) / sum(self.processor)


@dataclass(frozen=True)
class Bench:
    """The pieces that both sides use."""

    folder: Path
    python: Path
    workshop: Workshop
    root: Path = ROOT
    """The checkout with our side's sources."""

    @property
    def environment(self) -> dict[str, str]:
        sources = (self.root / "operator/src", self.root / "trainer-image/src", ROOT)
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, sources)),
            # Compiled bytecode, as in the image, whatever this shell asks for.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }

    def ours(self, name: str, padded: bool = False, **train: Any) -> tuple[Run, TrainerPod]:
        """Train with SFT as a pod of a run would; ``padded`` turns packing off."""
        program = ("-c", PADDED) if padded else ("-m", "flashrun_trainer")
        return self._ours(name, program, resolved("sft", **KNOBS, epochs=1000, **train), "loss")

    def clocked(self, name: str, *words: str, **train: Any) -> tuple[Run, TrainerPod]:
        """Train with SFT, measuring processor time."""
        run = resolved("sft", **KNOBS, epochs=1000, **train)
        return self._ours(name, (*CLOCKED, *words), run, "loss")

    def grpo(self, *words: str, data: str, **train: Any) -> tuple[Run, TrainerPod]:
        """Train with GRPO as a pod of a run would."""
        run = resolved("grpo", **(GRPO_KNOBS | train))
        return self._ours("grpo", (*CLOCKED, *words), run, "reward", data)

    def _ours(
        self, name: str, program: Sequence[str], run: ResolvedRun, value: str, data: str = ""
    ) -> tuple[Run, TrainerPod]:
        pod = self.workshop.pod(run, sums(train=data or dataset()))
        began = time.time()
        log = self.folder / f"{name}.log"
        done = subprocess.run(
            [self.python, *program, *([] if CLOCKED[1] in program else ["train"])],
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
        processor = [line["processor"] for line in _marked(log.read_text()) if "processor" in line]
        length = "completions/mean_length" if value == "reward" else "tokens"
        lengths = _by_step([row.values[length] for row in rows], value)
        values = [row.values[value] for row in rows]
        return _run(began, times, values, start, processor, lengths), pod

    def plain(self, pod: TrainerPod, packed_rows: int = 0) -> Run:
        """Train the same with TRL alone; the settings are those that our trainer would use.

        With ``packed_rows``, TRL packs the examples, and a step has this number of rows.
        """
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
        if packed_rows:
            own |= {"packing": True, "per_device_train_batch_size": packed_rows}
        # Our order, so that both sides learn the same examples at every step.
        data = "".join(rows[example] for step in steps for example in step)
        return self._plain("plain_sft", pod, data, kept | own, "loss")

    def plain_grpo(self, pod: TrainerPod, data: str, steps: int) -> Run:
        """Train the same with TRL alone; the order of the prompts depends on the seed alone."""
        prompts = data.count("\n")
        settings = trl_arguments.grpo(pod.run, trl_arguments.Machine(), self.output(), prompts)
        settings |= {"max_steps": steps}
        return self._plain("plain_grpo", pod, data, settings, "reward")

    def log(self, name: str) -> str:
        """Return what the last run of ours with this name has printed."""
        return (self.folder / f"{name}.log").read_text()

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
            [self.python, "-m", f"bench.{script}", file],
            env=self.environment,
            check=True,
            stdout=subprocess.PIPE,
            stderr=(output / "log").open("w"),
            text=True,
        )
        marked = _marked(done.stdout)
        lines = [line for line in marked if "step" in line]
        times = [line["time"] for line in lines]
        marks = [began, *(line["time"] for line in marked if "part" in line), times[0]]
        parts = ("imports", "loading", "first_step")
        start = dict(zip(parts, map(operator.sub, marks[1:], marks), strict=True))
        processor = [line["processor"] for line in lines]
        names = ("num_tokens", "completions/mean_length")
        counts = [float(line[name]) for line in lines for name in names if name in line]
        lengths = _by_step(counts, value)
        return _run(began, times, [line[value] for line in lines], start, processor, lengths)


def _marked(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"')]


def _run(
    began: float,
    times: list[float],
    values: list[float],
    start: dict[str, float],
    processor: list[float],
    lengths: list[float],
) -> Run:
    return Run(times[0] - began, _gaps(times), values, start, _gaps(processor), lengths[1:])


def _by_step(counts: list[float], value: str) -> list[float]:
    """Return tokens by step from those since the start; mean lengths of GRPO are by step."""
    return counts if value == "reward" else [0.0, *_gaps(counts)]


def _gaps(values: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(values)]


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
    """Compare tokens in a second of processor time with and without packing, and with TRL's."""
    train = {"max_steps": STEPS // 2, "save_every": STEPS}
    warm, pod = bench.clocked("warm", **train)  # fills caches, and is left out
    # TRL packs before it makes steps: as many rows of max_length as have our step's tokens.
    rows = max(1, round(statistics.mean(warm.lengths) / pod.run.train.max_length))
    train_side: dict[str, Callable[[], Run]] = {
        "packed": lambda: bench.clocked("packed", **train)[0],
        "padded": lambda: bench.clocked("padded", "--padded", **train)[0],
        "plain padded": lambda: bench.plain(pod),
        "plain packed": lambda: bench.plain(pod, packed_rows=rows),
    }
    found: dict[str, list[Run]] = {side: [] for side in train_side}
    for number in range(pairs):
        for side in sides.turns(number, train_side):
            found[side].append(train_side[side]())
    for side, runs in found.items():
        rate = statistics.median(run.tokens_per_second for run in runs)
        losses = f"loss {runs[0].values[0]:.4f} to {runs[0].values[-1]:.4f}"
        tokens = f"{statistics.mean(runs[0].lengths):.0f} tokens per step"
        print(f"  {side:12} {rate:.0f} tokens per second of processor time, {tokens}, {losses}")
    speeds = {side: [run.tokens_per_second for run in runs] for side, runs in found.items()}
    others = {
        "padded": "our own padded rows",
        "plain padded": "plain TRL's padded rows",
        "plain packed": f"plain TRL's packing into {rows} rows",
    }
    return [
        (f"packing: {sides.ratio(speeds['packed'], speeds[side]):.2f}x of {name} (no limit)", True)
        for side, name in others.items()
    ]


def questions() -> str:
    """Return 512 sums for a model that ends its answers itself."""
    dice = random.Random(7)
    pairs = [(dice.randint(1, 99), dice.randint(1, 99)) for _ in range(512)]
    rows = [{"input": f"What is {a} + {b}?", "output": str(a + b)} for a, b in pairs]
    return "".join(json.dumps(row) + "\n" for row in rows)


def grpo(bench: Bench, pairs: int, *, real_model: bool) -> list[tuple[str, bool]]:
    """Compare samples per second in turns."""
    train = {"steps": STEPS // 2}
    data = dataset()
    if real_model:
        train, data = MODEL_KNOBS | {"steps": MODEL_STEPS}, questions()
    # The first run fills caches, and is left out.
    _, pod = bench.grpo("--agreement", data=data, **train | ({"steps": 1} if real_model else {}))
    [agreement] = [line for line in _marked(bench.log("grpo")) if "agreement" in line]
    found = _in_turns(
        pairs,
        lambda: bench.grpo(data=data, **train)[0],
        lambda: bench.plain_grpo(pod, data, int(train["steps"])),
    )
    samples = pod.run.train.batch_size * (pod.run.train.group_size or 1)
    for side, runs in found.items():
        rate = samples / statistics.median(statistics.mean(run.steps) for run in runs)
        seconds = statistics.median(statistics.mean(run.processor) for run in runs)
        length = statistics.mean(statistics.mean(run.lengths) for run in runs)
        print(
            f"  {side:9} {rate:.1f} samples/s, {samples / seconds:.2f} in a second of processor "
            f"time, completions of {length:.1f} tokens, first reward {runs[0].values[0]:.4f}"
        )
    parts = ("generation", "scoring", "training")
    spent = ", ".join(
        f"{part} {statistics.mean(pod.values(f'seconds/{part}')):.2f}" for part in parts
    )
    print(f"  seconds of our step on the clock: {spent}")
    same = agreement["agreement"] < AGREEMENT_TOLERANCE
    processor = {side: [statistics.mean(run.processor) for run in found[side]] for side in found}
    pace = sides.ratio(processor["plain"], processor["flashrun"])
    return [
        (
            f"log-probabilities of {agreement['tokens']} tokens differ from plain TRL's by at most "
            f"{agreement['agreement']:.1e}",
            same,
        ),
        (f"GRPO samples/s {_pace(found):.3f}x of plain TRL's (no limit)", True),
        (f"GRPO samples by processor time {pace:.3f}x of plain TRL's (no limit)", True),
    ]


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
    parser.add_argument("--model", type=Path, help="of grpo: folder of a model in safetensors")
    given = parser.parse_args()
    if given.model and given.only != "grpo":
        parser.error("--model is for --only grpo: the other figures are of the small model")
    python = sides.environment("trainer", requirements())
    results: list[tuple[str, bool]] = []
    with server() as minio, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        small = given.model or folder / "small"
        if not given.model:
            subprocess.run([python, "-m", "bench.small_model", small], check=True, cwd=ROOT)
        access = minio.store("bench").access

        def bench(access: StorageAccess) -> Bench:
            place = Workshop(folder / access.endpoint.rpartition(":")[2], access)
            place.mirror(small)
            return Bench(folder, python, place)

        print(sides.versions(python, "torch", "transformers", "trl", "peft", "accelerate"))
        print(
            f"{sides.machine()}; OMP_NUM_THREADS=1; {SUMS.name}, "
            f"{MODEL_KNOBS if given.model else KNOBS}"
        )
        if given.only in (None, "speed"):
            results += speed(bench(access), given.pairs)
        if given.only in (None, "stall"):
            with slowed(access.endpoint, UPLOAD_SECONDS) as endpoint:
                results += stall(bench(access.replace(endpoint=endpoint)))
        if given.only in (None, "packing"):
            results += packed(bench(access), max(1, given.pairs // 2))
        if given.only in (None, "grpo"):
            results += grpo(
                bench(access), max(1, given.pairs // 2), real_model=given.model is not None
            )
    return sides.verdict(*results)


if __name__ == "__main__":
    sys.exit(main())
