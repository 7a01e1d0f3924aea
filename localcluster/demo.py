"""The story `make demo` tells: from nothing to a trained adapter, with the real `flash`.

The adapters are trained on the CPU, from a tiny random model. What is real is everything around
it: the resource, the operator, the scheduling of an `nvidia.com/gpu` that the node only says it
has, the pods, the checkpoints in S3, the command line.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from localcluster import chart, folders, images, lifecycle, tiny_model
from localcluster.chart import MODEL
from localcluster.cluster_kind import ClusterKind
from localcluster.lifecycle import DevCluster
from localcluster.steps import FatalError, Step, StepRunner

EXAMPLE = Path("examples/sums")
CONFIGS = ("configs/sft.toml", "configs/rl.toml")
RUN = re.compile(r"\bflash-\d+-[0-9a-f]{8}\b")


def run(steps: StepRunner) -> None:
    """Bring everything up, train twice, and say where the adapters are."""
    began = time.monotonic()
    with lifecycle.exclusive_command():
        local = install(steps)
        runs = _train_all(local, steps)
    for name in runs:
        _show(["status", name], local, steps)
        _show(["checkpoints", name], local, steps)
    for name in runs:
        _pull(name, local, steps)
    _say_what_was_real(local, steps)
    steps.say(f"Done in {(time.monotonic() - began) / 60:.1f} minutes. `make down` removes it all.")
    steps.say(f"export KUBECONFIG={local.kubeconfig}")


def install(
    steps: StepRunner, values: Mapping[str, Any] | None = None, models: Sequence[str] = (MODEL,)
) -> DevCluster:
    """A cluster with the operator, the tiny model and the example's environment.

    Tests have further values for the chart, and mirror the model under further names.
    """
    local = lifecycle.up(steps)
    built = images.build(local, steps)
    chart.install(local, built, steps, values or {})
    tiny_model.mirror(local, built, steps, models)
    push = ["env", "push", str(EXAMPLE), "--name", str(EXAMPLE)]
    with steps.step(f"flash {' '.join(push)}"):
        flash(push, local, steps)
    lifecycle.delete_unused_images([built.operator, built.trainer], steps)
    return local


def _train_all(local: DevCluster, steps: StepRunner) -> list[str]:
    """Train both examples at once, each followed by a `flash train` of its own; the runs' names."""
    title = f"flash train {' and '.join(str(EXAMPLE / config) for config in CONFIGS)}"
    with steps.step(title, total=len(CONFIGS)) as step, ThreadPoolExecutor() as pool:
        share = _shares(step, len(CONFIGS))
        started = [
            pool.submit(_train, config, local, steps, share(number))
            for number, config in enumerate(CONFIGS)
        ]
        runs = [one.result() for one in started]
        step.detail = " and ".join(runs)
    return runs


def _train(
    config: str, local: DevCluster, steps: StepRunner, progress: Callable[[float], None]
) -> str:
    """Run `flash train` to its end; the run's name."""

    def on_line(line: str) -> None:
        found = re.search(r"step (\d+)/(\d+)", line)
        if found and int(found[2]):
            progress(int(found[1]) / int(found[2]))

    output = flash(["train", str(EXAMPLE / config)], local, steps, on_line)
    named = RUN.search(output)
    if not named:
        raise FatalError(f"flash train {config} named no run; what it said is in {steps.log}")
    progress(1.0)
    return named[0]


def _shares(step: Step, count: int) -> Callable[[int], Callable[[float], None]]:
    """One bar for several runs: each reports its own share of 1."""
    done = [0.0] * count

    def share(number: int) -> Callable[[float], None]:
        def report(part: float) -> None:
            done[number] = part
            step.reach(sum(done))

        return report

    return share


def _say_what_was_real(local: DevCluster, steps: StepRunner) -> None:
    if local.kind is not ClusterKind.CURRENT:
        steps.say(
            "\nThe node has no GPU: scheduling was real, the device was not, and training ran on "
            "the CPU with a tiny random model."
        )


def _pull(name: str, local: DevCluster, steps: StepRunner) -> None:
    folder = folders.repository() / "adapters" / name
    with steps.step(f"flash pull {name}") as step:
        said = flash(["pull", name, str(folder)], local, steps)
        step.detail = f"the trained adapter is in {said.split()[-1]}"


def _show(words: list[str], local: DevCluster, steps: StepRunner) -> None:
    steps.say(f"\n$ flash {' '.join(words)}")
    steps.say(flash(words, local, steps).rstrip())


def flash(
    words: list[str],
    local: DevCluster,
    steps: StepRunner,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Run the `flash` of this environment against the cluster."""
    beside = Path(sys.executable).parent / "flash"
    if not beside.exists():
        raise FatalError(
            f"flash is not installed beside {sys.executable}; run `make demo`, which does it"
        )
    env = {"KUBECONFIG": str(local.kubeconfig), "COLUMNS": os.environ.get("COLUMNS", "120")}
    return steps.run(
        [beside, *words],
        env=env,
        cwd=folders.repository(),
        on_line=on_line,
        what=f"flash {' '.join(words)}",
    )
