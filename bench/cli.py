"""How fast the command line answers, beside the incumbent's, in alternating pairs.

`flash train CONFIG --dry-run` takes at most 2.0 times, and `flash --help` at most 2.2 times, what
the incumbent takes, which is written with the standard library alone. Both sides run from compiled
bytecode, with the same Python, for the same file; each is started once before anything counts.

    .venv/bin/python -m bench.cli [--pairs 15]
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench import sides

INCUMBENT = "freesolo-flash==0.2.42"
CONFIG = """\
model = "Qwen/Qwen3.5-4B"
algorithm = "sft"

[environment]
id = "your-org/your-env"

[train]
epochs = 3
max_examples = 1000
lora_rank = 32
"""
LIMITS = {("train", "config.toml", "--dry-run"): 2.0, ("--help",): 2.2}


class Cost(NamedTuple):
    """Time of one call in milliseconds: wall time and processor time."""

    wall: float
    cpu: float


def measure(command: Sequence[str | Path], folder: Path) -> Cost:
    """Run a command as a shell would; raises when it fails."""
    # A user has compiled bytecode: PYTHONDONTWRITEBYTECODE of this shell must not prevent it.
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "80"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall * 1000, cpu * 1000)


def compare(
    words: Sequence[str], programs: dict[str, Path], pairs: int, folder: Path
) -> tuple[dict[str, list[Cost]], float, float]:
    """Return the costs of each side, and the median ratios of wall time and processor time."""
    for program in programs.values():
        measure([program, *words], folder)
    costs: dict[str, list[Cost]] = {side: [] for side in programs}
    for number in range(pairs):
        for side in sides.turns(number, programs):
            costs[side].append(measure([programs[side], *words], folder))
    walls = sides.ratio(*([cost.wall for cost in costs[side]] for side in ("ours", "incumbent")))
    cpus = sides.ratio(*([cost.cpu for cost in costs[side]] for side in ("ours", "incumbent")))
    return costs, walls, cpus


def main() -> int:
    """Compare, print the figures, and return 1 when a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=15, help="calls of each side (default 15)")
    pairs = parser.parse_args().pairs
    incumbent = sides.environment("incumbent-cli", [INCUMBENT])
    programs = {
        "ours": Path(sys.executable).with_name("flash"),
        "incumbent": incumbent.with_name("flash"),
    }
    print(f"ours:      {sides.versions(sys.executable, 'flashrun', 'pydantic', 'typer')}")
    print(f"incumbent: {sides.versions(incumbent, 'freesolo-flash')}")
    sentences = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.toml").write_text(CONFIG)
        for words, limit in LIMITS.items():
            costs, wall, cpu = compare(words, programs, pairs, folder)
            print(f"\nflash {' '.join(words)}: medians of {pairs} pairs")
            for side, calls in costs.items():
                middle = Cost(*map(statistics.median, zip(*calls, strict=True)))
                least = min(cost.wall for cost in calls)
                print(
                    f"  {side:<10} {middle.wall:6.0f} ms on the clock (least {least:.0f}), "
                    f"{middle.cpu:.0f} ms of processor time"
                )
            print(f"  ours / incumbent: {wall:.2f} on the clock, {cpu:.2f} of processor time")
            claim = f"flash {' '.join(words)}: {wall:.2f} of the incumbent's time, at most {limit}"
            sentences.append((claim, wall <= limit))
    print(f"\n{sides.machine()}; flags: none, bytecode compiled")
    return sides.verdict(*sentences)


if __name__ == "__main__":
    sys.exit(main())
