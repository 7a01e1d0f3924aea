"""What GRPO learns through faults of every kind, against the same run without faults.

    python -m bench.fault_soak [--seeds 5] [--steps 200] [--jobs 1]

For each seed the run is trained twice, in turns: with the faults of a plan that depends on the seed
alone (`tests/trainer/fault_plan.py`), and without. Both adapters then answer held-out prompts. A
run ends with an error unless it has succeeded, each attempt has continued from the newest whole
checkpoint, and metrics and rollouts have every step once.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench import sides
from bench.sides import ROOT
from bench.trainer import requirements
from bench.upload import server
from flashrun.api.records import StorageAccess
from tests.trainer.fault_plan import make_plan, no_faults
from tests.trainer.pods import Workshop

ARMS = {"faults": make_plan, "without": no_faults}
LIMIT_SECONDS = 5.0
"""``reward_timeout_seconds``."""
SAVE_EVERY = 10
HELD_OUT, ANSWERS = 32, 16
"""Held-out prompts, and completions of each."""
SAMPLING = threading.Lock()
"""PyTorch has one random generator for all threads."""
LEARNED = -0.5
"""A reward halfway between that of the base model, about -1, and the best, 0."""
HEAD = """\
| seed | arm | held-out before | after | learned at step | attempts before the last \
| steps trained | not judged | requests refused | s |
|---|---|---|---|---|---|---|---|---|---|"""
LARGEST_LOSS = 0.02
"""How much lower the held-out reward with faults may be: mean of the pairs, 95 % interval."""
T_975 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""97.5 % quantiles of Student's t distribution with 1 to 9 degrees of freedom."""


class Outcome(NamedTuple):
    """One run of one arm."""

    before: float
    """Held-out reward of the base model."""
    after: float
    """Held-out reward of the adapter."""
    learned_at: int
    """The end of the first ten steps with a mean reward of ``LEARNED`` or more; 0 for none."""
    ends: list[str]
    """How the attempts before the last one have ended."""
    trained: int
    """Steps that all attempts have trained; what is above ``--steps`` was trained again."""
    failed: int
    """Completions that were not judged."""
    refused: int
    """Requests that storage did not answer."""
    seconds: float


def train(arm: str, seed: int, steps: int, workshop: Workshop) -> Outcome:
    """Train a run through its faults, and let the policy answer; needs PyTorch."""
    from tests.trainer.faults import soak

    done = soak.run_through(workshop, ARMS[arm](seed, steps), LIMIT_SECONDS, save_every=SAVE_EVERY)
    rewards = done.pod.values("reward")
    tens = [statistics.fmean(rewards[begin : begin + 10]) for begin in range(len(rewards) - 9)]
    errors = done.pod.values("reward_errors")
    with SAMPLING:
        before = soak.held_out_reward(done.pod, HELD_OUT, ANSWERS, adapter=False)
        after = soak.held_out_reward(done.pod, HELD_OUT, ANSWERS)
    return Outcome(
        before=before,
        after=after,
        learned_at=next((begin + 10 for begin, mean in enumerate(tens) if mean >= LEARNED), 0),
        ends=done.ends,
        trained=done.trained,
        failed=round(sum(errors) * soak.COMPLETIONS),
        refused=done.refused,
        seconds=done.seconds,
    )


def train_all(seeds: range, steps: int, jobs: int, access: StorageAccess, folder: Path) -> int:
    """Train all runs, print a table, and return 1 when something does not hold."""
    workshop, tiny = Workshop(folder, access), folder / "tiny"
    script = ROOT / "examples" / "tiny-model" / "make_tiny_model.py"
    subprocess.run([sys.executable, script, tiny], check=True, capture_output=True)
    workshop.mirror(tiny)

    def train_one(run: tuple[str, int]) -> Outcome:
        outcome = train(*run, steps, workshop)
        print(_row(*run, outcome), flush=True)
        return outcome

    runs = [(arm, seed) for seed in seeds for arm in sides.turns(seed, ARMS)]
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = dict(zip(runs, pool.map(train_one, runs), strict=True))
    print(f"{sides.machine()}; --seeds {len(seeds)} --steps {steps} --jobs {jobs}")
    return sides.verdict(*compare(outcomes, seeds))


def _row(arm: str, seed: int, outcome: Outcome) -> str:
    values = (
        *(seed, arm, f"{outcome.before:.4f}", f"{outcome.after:.4f}", outcome.learned_at),
        *(", ".join(outcome.ends) or "-", outcome.trained, outcome.failed, outcome.refused),
        f"{outcome.seconds:.0f}",
    )
    return f"| {' | '.join(map(str, values))} |"


def compare(outcomes: dict[tuple[str, int], Outcome], seeds: range) -> list[tuple[str, bool]]:
    """Return what must hold: every policy has learned, and faults cost none of it."""
    lowest = min(outcome.after for outcome in outcomes.values())
    after = {arm: [outcomes[arm, seed].after for seed in seeds] for arm in ARMS}
    means = {arm: statistics.fmean(values) for arm, values in after.items()}
    pairs = [a - b for a, b in zip(after["faults"], after["without"], strict=True)]
    mean, half = statistics.fmean(pairs), 0.0
    if len(pairs) > 1:
        quantile = T_975[min(len(pairs) - 1, len(T_975)) - 1]
        half = quantile * statistics.stdev(pairs) / len(pairs) ** 0.5
    return [
        (f"every policy has learned: the lowest held-out reward is {lowest:.4f}", lowest > LEARNED),
        (
            f"held-out reward with faults {means['faults']:.4f}, without {means['without']:.4f}: "
            f"{mean:+.4f}, 95 % interval {mean - half:+.4f} to {mean + half:+.4f} "
            f"(limit -{LARGEST_LOSS})",
            mean - half >= -LARGEST_LOSS,
        ),
    ]


def main() -> int:
    """Start storage, and train in a process of the environment that has PyTorch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1, help="runs that are trained at a time")
    parser.add_argument("--access", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.access:
        access, seeds = StorageAccess.model_validate_json(given.access), range(1, given.seeds + 1)
        with tempfile.TemporaryDirectory() as folder:
            return train_all(seeds, given.steps, given.jobs, access, Path(folder))
    python = sides.environment("trainer", requirements())
    print(sides.versions(python, "torch", "transformers", "trl", "peft", "accelerate"))
    print(HEAD, flush=True)
    sources = (ROOT / "operator/src", ROOT / "trainer-image/src", ROOT)
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, sources)),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    with server() as minio:
        access = minio.store("soak").access.model_dump_json()
        command = [python, "-m", "bench.fault_soak", *sys.argv[1:], "--access", access]
        return subprocess.run(command, env=variables).returncode


if __name__ == "__main__":
    sys.exit(main())
