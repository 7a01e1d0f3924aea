"""SFT on one NVIDIA GPU, our trainer beside plain TRL: tokens a second, MFU and memory.

    python -m bench.gpu.measure [--shape 0.6b,4b] [--device cuda] [--minutes 8] [--out FOLDER]

Each measurement is a process of its own with a time limit. The sides take turns, and the whole
ends before ``--minutes`` are over, with what it has: ``report.json`` and ``report.txt`` are written
again after every measurement. No network is used.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from bench.gpu.figures import DATA, SHAPES, Measured, report, table

PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "datasets", "flash-attn",
)  # fmt: skip
LIMIT_SECONDS = 100.0
"""Longest time of a measurement, its start included."""
LEAST_SECONDS = 30.0
"""Time below which no further measurement begins."""
MEASURED_SECONDS = {"cuda": 15.0, "cpu": 2.0}


class Task(NamedTuple):
    """One measurement."""

    shape: str
    data: str
    side: str


def tasks(shapes: Sequence[str], rounds: int) -> Iterator[Task]:
    """Yield what is measured, the most wanted first; sides take turns, and turns change sides."""
    for number in range(rounds):
        for data in DATA:
            for shape in shapes:
                sides = ["flashrun", "plain"]
                if data == "mixed":
                    sides.append("plain packed")
                for side in sides[:: -1 if number % 2 else 1]:
                    yield Task(shape, data, side)


def device_problem(device: str) -> str:
    """Return why this machine cannot be measured, in a sentence; empty if it can."""
    try:
        import torch
    except ImportError:
        return (
            "PyTorch is not installed: pack it with python -m bench.gpu.pack FOLDER --torch "
            "torch==VERSION, or use a Python that has it"
        )
    if device == "cuda" and not torch.cuda.is_available():
        return (
            "PyTorch sees no NVIDIA GPU on this machine: run this on a machine with one, or try it "
            "with --shape tiny --device cpu"
        )
    return ""


def measure(task: Task, device: str, limit: float, scratch: Path) -> Measured | str:
    """Measure in a process of its own; return the figures, or why they fail."""
    settings = scratch / "settings.json"
    output = tempfile.mkdtemp(dir=scratch)
    given = {"device": device, "seconds": MEASURED_SECONDS[device], "output": output}
    settings.write_text(json.dumps(task._asdict() | given))
    log = scratch / "log"
    variables = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.gpu.side", settings],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"{' '.join(task)}: ended after its limit of {limit:.0f} s, without a figure"
    lines = [line for line in said.splitlines() if line.startswith('{"')]
    if process.returncode or not lines:
        last = [line for line in log.read_text().splitlines() if line.strip()][-1:]
        why = last[0].strip()[:300] if last else "it printed nothing"
        return f"{' '.join(task)}: failed with exit code {process.returncode}: {why}"
    return Measured(**json.loads(lines[-1]))


def versions() -> dict[str, str]:
    """Return the versions of Python, the packages, CUDA and the driver."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    import torch

    found["CUDA"] = str(torch.version.cuda)
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
        found["driver"] = done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found["driver"] = "unknown"
    return found


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments; ends with a sentence when one is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.measure", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--shape", default="0.6b,4b", help="shapes, separated by commas")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--minutes", type=float, default=8.0, help="for all measurements")
    parser.add_argument("--rounds", type=int, default=2, help="pairs of each measurement at most")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the report")
    given = parser.parse_args(arguments)
    given.shapes = given.shape.split(",")
    for shape in given.shapes:
        if shape not in SHAPES:
            parser.error(f"--shape {shape}: choose among {', '.join(SHAPES)}")
    if given.device == "cpu" and given.shapes != ["tiny"]:
        parser.error("--device cpu: only --shape tiny is small enough for a CPU")
    if given.minutes <= 0 or given.rounds < 1:
        parser.error("--minutes and --rounds must be above 0")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure until the time is over; return 1 when nothing was measured."""
    began, given = time.monotonic(), parse(arguments)
    if problem := device_problem(given.device):
        print(f"stopped: {problem}", file=sys.stderr)
        return 1
    found_versions = versions()
    print(", ".join(f"{name} {value}" for name, value in found_versions.items()))
    words = sys.argv[1:] if arguments is None else list(arguments)
    notes = [f"flags: {' '.join(words) or 'none'}"]
    measured: list[Measured] = []
    given.out.mkdir(parents=True, exist_ok=True)

    def write() -> str:
        device = measured[0].device if measured else given.device
        made = report(measured, notes, found_versions, device)
        (given.out / "report.json").write_text(json.dumps(made, indent=2) + "\n")
        (given.out / "report.txt").write_text(table(made) + "\n")
        return table(made)

    with tempfile.TemporaryDirectory() as scratch:
        for task in tasks(given.shapes, given.rounds):
            left = 60 * given.minutes - (time.monotonic() - began)
            if left < LEAST_SECONDS:
                notes.append(f"the time was over before: {' '.join(task)}, and what follows it")
                break
            one = measure(task, given.device, min(left, LIMIT_SECONDS), Path(scratch))
            if isinstance(one, str):
                notes.append(one)
                print(one, flush=True)
            else:
                measured.append(one)
                rate = one.tokens / one.seconds
                print(f"{' '.join(task)}: {rate:,.0f} tokens a second", flush=True)
            write()
    print(write())
    return 0 if measured else 1


if __name__ == "__main__":
    sys.exit(main())
