"""How long a user waits for a run: from `flash train` to its first step, and after its last one.

    python -m bench.waiting [CONFIG] [--runs 5] [--flash PROGRAM] [-- WORDS]

It submits runs one after the other to the cluster that the kubeconfig names, such as that of `make
demo MODEL=tiny`, and reads the time of each line that `flash train` prints to a pipe: the lines of
the trainer's log come a moment after it wrote them. WORDS go on to `flash train`. To compare two
builds, install each in turn on the same machine and name its own `flash`; the sides cannot take
turns, so measure the first one again at the end.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from bench import sides

CONFIG = sides.ROOT / "examples" / "sums" / "configs" / "sft.toml"
_STEP = re.compile(r"\bstep \d+ of \d+\b|'(?:loss|reward)': ")
"""A line of the trainer's log that shows a step: ours, or TRL's own in older builds."""
_HELD = re.compile(r"([0-9.]+) s without training before the first step")


class Wait(NamedTuple):
    """What one run took, in seconds from the start of `flash train`."""

    named: float
    """Until the first line, which says that the run was submitted."""
    first_step: float
    after_last_step: float
    """From the last step to the end of `flash train`, the last save and its upload included."""
    whole: float
    held: float
    """How long the trainer's own log says that it held its GPU before the first step, or nan."""


def wait(words: list[str]) -> Wait:
    """Run `flash train` once; ends the program when it fails or shows no step."""
    began = time.perf_counter()
    steps: list[float] = []
    lines: list[str] = []
    named, held = 0.0, float("nan")
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            now = time.perf_counter() - began
            lines.append(line)
            named = named or now
            if _STEP.search(line):
                steps.append(now)
            if found := _HELD.search(line):
                held = float(found[1])
    ended = time.perf_counter() - began
    if child.returncode or not steps:
        raise SystemExit(f"`{' '.join(words)}` ended with {child.returncode}:\n{''.join(lines)}")
    return Wait(named, steps[0], ended - steps[-1], ended, held)


def main() -> int:
    """Measure and print each run and the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", nargs="?", type=Path, default=CONFIG)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--flash", default=str(Path(sys.executable).with_name("flash")))
    parser.add_argument("words", nargs="*", help="further words for flash train, behind --")
    given = parser.parse_args()
    words = [given.flash, "train", str(given.config), *given.words]
    waits = []
    for number in range(given.runs):
        waits.append(wait(words))
        values = zip(Wait._fields, waits[-1], strict=True)
        shown = ", ".join(f"{name} {value:.2f}" for name, value in values)
        print(f"run {number + 1}: {shown}", flush=True)
    print(f"medians of {given.runs} runs; {sides.machine()}")
    for name, values in zip(Wait._fields, zip(*waits, strict=True), strict=True):
        print(f"  {name:15} {statistics.median(values):7.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
