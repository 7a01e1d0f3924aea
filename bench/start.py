"""What the start of a run costs: each init container, and the trainer up to its first step.

    python -m bench.start [--pairs 7] [--against FOLDER] [--only model|packages|train]

Storage with a tiny model is on this machine, and the environment has no pip list: what is left of
the init containers is Python, imports and a few requests. The trainer takes one step of SFT, and so
does a plain TRL script with the same model, data and settings. The clock runs from process start to
the end of that step, for an init container to its end; processor time is that of the whole process.
With `--against`, the sources of another checkout do the same with the same packages. All sides run
in turns on one thread, from compiled bytecode as in the image.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import sides
from bench.trainer import KNOBS, START_LIMIT, Bench, requirements
from bench.upload import server
from flashrun.api.pod import MODEL_CONTAINER, PACKAGES_CONTAINER, TRAIN_COMMAND
from tests.trainer.pods import SUMS, Workshop, sums

NOW, BEFORE, PLAIN = "now", "other checkout", "plain TRL"
TINY = sides.ROOT / "examples" / "tiny-model" / "make_tiny_model.py"
LIMITS = {BEFORE: 1.05, PLAIN: START_LIMIT}
"""How many times the processor time of the other side ours may be."""


class Start(NamedTuple):
    """What one start has taken, in seconds."""

    clock: float
    parts: dict[str, float]
    """The trainer's parts of it: imports, loading, first_step."""
    processor: float = 0.0


def init_container(container: str, bench: Bench) -> Start:
    """Run an init container of a new pod, with nothing in its cache."""
    pod = bench.workshop.new_pod(bench.workshop.publish(sums()))
    for folder in ("packages", "work"):
        (pod.folder / folder).mkdir()
    began = time.perf_counter()
    subprocess.run(
        [bench.python, "-m", "flashrun_trainer", container],
        env={**bench.environment, **pod.environment, "FLASHRUN_MODEL": str(pod.folder / "model")},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return Start(time.perf_counter() - began, {})


def train(bench: Bench) -> Start:
    """Train one step."""
    run, _ = bench.ours("start", max_steps=1)
    return Start(run.first_step, run.start)


STARTS: dict[str, Callable[[Bench], Start]] = {
    MODEL_CONTAINER: partial(init_container, MODEL_CONTAINER),
    PACKAGES_CONTAINER: partial(init_container, PACKAGES_CONTAINER),
    TRAIN_COMMAND: train,
}


def plain(bench: Bench) -> Callable[[], Start]:
    """Return what trains one step with TRL alone."""
    _, pod = bench.ours("settings", max_steps=1)

    def train_plain() -> Start:
        run = bench.plain(pod)
        return Start(run.first_step, run.start)

    return train_plain


def measured(start: Callable[[], Start]) -> Start:
    """Return what a start takes, with the processor time of its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = start()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return taken._replace(processor=processor)


def compare(
    container: str, starts: dict[str, Callable[[], Start]], pairs: int
) -> list[tuple[str, bool]]:
    """Print what each side takes; return ours as a multiple of each other one."""
    for start in starts.values():
        start()  # fills caches, and is left out
    found: dict[str, list[Start]] = {side: [] for side in starts}
    for number in range(pairs):
        for side in sides.turns(number, starts):
            found[side].append(measured(starts[side]))
    processor = {side: [start.processor for start in taken] for side, taken in found.items()}
    clock = {side: [start.clock for start in taken] for side, taken in found.items()}
    print(f"\n{container}: medians of {pairs}")
    for side, taken in found.items():
        parts = {
            part: statistics.median(start.parts[part] for start in taken) for part in taken[0].parts
        }
        print(
            f"  {side:14} {statistics.median(processor[side]):.3f} s of processor time (least "
            f"{min(processor[side]):.3f}), {statistics.median(clock[side]):.3f} s on the clock "
            f"(least {min(clock[side]):.3f})"
            + "".join(f", {part} {seconds:.2f}" for part, seconds in parts.items())
        )
    results = []
    for side, limit in LIMITS.items():
        if side in found:
            times = sides.ratio(processor[NOW], processor[side])
            claim = f"{container}: {times:.3f}x of the processor time of {side} (limit {limit})"
            beside = f"{sides.ratio(clock[NOW], clock[side]):.3f}x on the clock"
            results.append((f"{claim}, {beside}", times <= limit))
    return results


def main() -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--only", choices=STARTS, help="the container")
    given = parser.parse_args()
    python = sides.environment("trainer", requirements())
    results: list[tuple[str, bool]] = []
    with server() as minio, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        workshop = Workshop(folder / "pods", minio.store("start").access)
        benches = {NOW: Bench(folder, python, workshop)}
        make_tiny = [python, TINY, folder / "tiny"]
        subprocess.run(make_tiny, env=benches[NOW].environment, check=True, capture_output=True)
        workshop.mirror(folder / "tiny")
        if given.against:
            benches[BEFORE] = replace(benches[NOW], root=given.against.resolve())
        print(sides.versions(python, "torch", "transformers", "trl", "peft", "minio", "pydantic"))
        print(f"OMP_NUM_THREADS=1; bytecode compiled; {SUMS.name}, {KNOBS}")
        for container in [given.only] if given.only else STARTS:
            starts = {side: partial(STARTS[container], bench) for side, bench in benches.items()}
            if container == TRAIN_COMMAND:
                starts[PLAIN] = plain(benches[NOW])
            results += compare(container, starts, given.pairs)
        print(f"\n{sides.machine()}")
    return sides.verdict(*results)


if __name__ == "__main__":
    sys.exit(main())
