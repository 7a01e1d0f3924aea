"""How fast the command line answers, beside the incumbent's, in alternating pairs.

`flash train CONFIG --dry-run` takes at most 2.0 times, and `flash --help` at most 2.2 times, what
the incumbent takes, which is written with the standard library alone. Both sides run from compiled
bytecode, with the same Python, for the same file; each is started once before anything counts.

With `--beside COMMIT` it compares the commands that ask a cluster with those of another commit:
each takes at most 0.4 times as long as before. The cluster is a server in this process, which
answers over TLS. `flash train --dry-run` takes at most 1.05 times as long.

    .venv/bin/python -m bench.cli [--pairs 15] [--beside COMMIT]
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import sides
from tests.cli.api_stub import RUN, serve_finished_run

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
BESIDE_LIMITS = {
    ("status", RUN): 0.4,
    ("runs",): 0.4,
    ("checkpoints", RUN): 0.4,
    ("models",): 0.4,
    ("gpus",): 0.4,
    ("train", "config.toml", "--dry-run"): 1.05,
}

Program = Sequence[str | Path]


class Cost(NamedTuple):
    """Time of one call in milliseconds: wall time and processor time."""

    wall: float
    cpu: float


def measure(command: Program, folder: Path, variables: Mapping[str, str]) -> Cost:
    """Run a command as a shell would; raises when it fails."""
    # A user has compiled bytecode: PYTHONDONTWRITEBYTECODE of this shell must not prevent it.
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "80", **variables}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall * 1000, cpu * 1000)


class Side(NamedTuple):
    """One of the two programs that are compared."""

    program: Program
    variables: Mapping[str, str] = {}


def compare(
    words: Sequence[str], limit: float, programs: dict[str, Side], pairs: int, folder: Path
) -> tuple[str, bool]:
    """Print the costs of both sides; return whether the ratio of their times is in its limit."""
    for side in programs.values():
        measure([*side.program, *words], folder, side.variables)
    costs: dict[str, list[Cost]] = {name: [] for name in programs}
    for number in range(pairs):
        for name in sides.turns(number, programs):
            side = programs[name]
            costs[name].append(measure([*side.program, *words], folder, side.variables))
    ours, other = costs
    wall = sides.ratio(*([cost.wall for cost in costs[name]] for name in costs))
    cpu = sides.ratio(*([cost.cpu for cost in costs[name]] for name in costs))
    print(f"\nflash {' '.join(words)}: medians of {pairs} pairs")
    for name, calls in costs.items():
        middle = Cost(*map(statistics.median, zip(*calls, strict=True)))
        least = min(cost.wall for cost in calls)
        print(
            f"  {name:<10} {middle.wall:6.0f} ms on the clock (least {least:.0f}), "
            f"{middle.cpu:.0f} ms of processor time"
        )
    print(f"  {ours} / {other}: {wall:.2f} on the clock, {cpu:.2f} of processor time")
    claim = f"flash {' '.join(words)}: {wall:.2f} of the time of {other}, at most {limit}"
    return claim, wall <= limit


def beside_incumbent(pairs: int, folder: Path) -> int:
    """Compare with the incumbent what needs no cluster."""
    incumbent = sides.environment("incumbent-cli", [INCUMBENT])
    programs = {
        "ours": Side([Path(sys.executable).with_name("flash")]),
        "incumbent": Side([incumbent.with_name("flash")]),
    }
    print(f"ours:      {sides.versions(sys.executable, 'flashrun', 'pydantic', 'typer')}")
    print(f"incumbent: {sides.versions(incumbent, 'freesolo-flash')}")
    sentences = [compare(words, limit, programs, pairs, folder) for words, limit in LIMITS.items()]
    return finish(sentences)


def beside_commit(commit: str, pairs: int, folder: Path) -> int:
    """Compare with another commit what asks a cluster."""
    before = folder / "before"
    before.mkdir()
    sources = subprocess.run(
        ["git", "archive", commit, "operator/src", "trainer-image/src"],
        cwd=sides.ROOT,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    subprocess.run(["tar", "-x", "-C", before], input=sources, check=True)
    with serve_finished_run(folder) as kubeconfig:

        def side(root: Path) -> Side:
            sources = f"{root / 'operator' / 'src'}:{root / 'trainer-image' / 'src'}"
            bytecode = str(folder / "bytecode")
            variables = {"PYTHONPATH": sources, "PYTHONPYCACHEPREFIX": bytecode}
            flash = Path(sys.executable).with_name("flash")
            return Side([sys.executable, flash], {**variables, "KUBECONFIG": str(kubeconfig)})

        programs = {"now": side(sides.ROOT), commit: side(before)}
        print(f"now: {sides.versions(sys.executable, 'flashrun', 'kubernetes', 'urllib3')}")
        sentences = [
            compare(words, limit, programs, pairs, folder) for words, limit in BESIDE_LIMITS.items()
        ]
    return finish(sentences)


def finish(sentences: list[tuple[str, bool]]) -> int:
    """Print the machine and the verdict; return 1 when a limit is exceeded."""
    print(f"\n{sides.machine()}; flags: none, bytecode compiled")
    return sides.verdict(*sentences)


def main() -> int:
    """Compare, print the figures, and return 1 when a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=15, help="calls of each side (default 15)")
    parser.add_argument("--beside", metavar="COMMIT", help="compare with this commit")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.toml").write_text(CONFIG)
        if arguments.beside:
            return beside_commit(arguments.beside, arguments.pairs, folder)
        return beside_incumbent(arguments.pairs, folder)


if __name__ == "__main__":
    sys.exit(main())
