"""What `make demo` does: from nothing to two trained adapters, with the real `flash`.

SmolLM2-135M learns arithmetic by SFT and goes on from there by GRPO; the answers to held-out sums
are compared at the end. With the tiny random model, two runs of seconds train at once. Training is
on the CPU; everything else is real: the resource, the operator, scheduling, pods, checkpoints in S3
and the command line. The node advertises `nvidia.com/gpu` without having a GPU.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Any

from localcluster import (
    chart,
    comparison,
    folders,
    images,
    lifecycle,
    real_model,
    tiny_model,
)
from localcluster.chart import MODEL
from localcluster.cluster_kind import ClusterKind
from localcluster.lifecycle import DevCluster
from localcluster.steps import FatalError, Step, StepRunner

EXAMPLE = Path("examples/sums")
ARITHMETIC = Path("examples/arithmetic")
CONFIGS = ("configs/sft.toml", "configs/rl.toml")
RUN = re.compile(r"\bflash-\d+-[0-9a-f]{8}\b")


class DemoModel(StrEnum):
    """What the demo trains."""

    SMOLLM2 = "smollm2"
    TINY = "tiny"


def run(steps: StepRunner, model: DemoModel = DemoModel.SMOLLM2) -> None:
    """Start everything, train two adapters, download them, and print where they are."""
    began = time.monotonic()
    local = _train_tiny(steps) if model is DemoModel.TINY else _train_real(steps)
    _print_limits(local, model, steps)
    steps.say(
        f"Done in {(time.monotonic() - began) / 60:.1f} minutes. `make down` removes everything."
    )
    steps.say(f"export KUBECONFIG={local.kubeconfig}")


def _train_tiny(steps: StepRunner) -> DevCluster:
    """Train both examples of the tiny model at once."""
    with lifecycle.exclusive_command():
        local = install(steps)
        runs = _train_all(local, steps)
    for name in runs:
        _show(["status", name], local, steps)
        _show(["checkpoints", name], local, steps)
    for name in runs:
        _pull(name, local, steps)
    return local


def _train_real(steps: StepRunner) -> DevCluster:
    """Train SmolLM2 by SFT, then by GRPO from its adapter, and compare their answers."""
    threads = len(os.sched_getaffinity(0))
    models = [chart.catalog_entry(MODEL), real_model.catalog_entry()]
    with lifecycle.exclusive_command():
        local = install(steps, {"models": models}, threads=threads)
        push = ["model", "push", str(real_model.prepare(local, steps)), "--id", real_model.MODEL]
        with steps.step(f"flash model push --id {real_model.MODEL}"):
            flash([*push, "--revision", real_model.REVISION], local, steps)
        _push_environment(ARITHMETIC, local, steps)
        sft = _train_alone(f"{ARITHMETIC}/{CONFIGS[0]}", [], local, steps)
        start = ["--set", f"train.init_from_adapter={sft}"]
        grpo = _train_alone(f"{ARITHMETIC}/{CONFIGS[1]}", start, local, steps)
    for name in (sft, grpo):
        _show(["status", name], local, steps)
    _compare(sft, grpo, local, steps)
    return local


def _compare(sft: str, grpo: str, local: DevCluster, steps: StepRunner) -> None:
    """Print a table of the runs' evaluations, and download the best checkpoint of both runs."""

    def answers(run_name: str, *more: str) -> list[comparison.Answer]:
        words = ["rollouts", run_name, "--eval", *more]
        return comparison.read_answers(flash(words, local, steps))

    with steps.step("flash rollouts --eval of both runs"):
        base = answers(sft, "--step", "0")
        stages = {"base": base, "SFT": answers(sft), "GRPO": answers(grpo)}
        status = {name: flash(["status", name, "-o", "json"], local, steps) for name in (sft, grpo)}
    best = comparison.read_best(status)
    steps.say(f"\n{comparison.table(stages)}\n")
    steps.say(
        f"Best checkpoint: {best.run}/step-{best.step}, {best.metric} {best.score:.2f}. These "
        "configs evaluate on all held-out sums (eval.max_examples); by default, evaluations answer "
        "as many as fit into 5% of a run's time."
    )
    _pull(best.run, local, steps, best=True)


def install(
    steps: StepRunner,
    values: Mapping[str, Any] | None = None,
    models: Sequence[str] = (MODEL,),
    threads: int = 1,
) -> DevCluster:
    """Install the operator, the tiny model and the environment of the example.

    `values` are further values of the chart; `models` are the ids of the tiny model in the mirror.
    """
    local = lifecycle.up(steps)
    built = images.build(local, steps)
    chart.install(local, built, steps, values or {}, threads)
    tiny_model.mirror(local, built, steps, models)
    _push_environment(EXAMPLE, local, steps)
    lifecycle.delete_unused_images([built.operator, built.trainer], steps)
    return local


def _push_environment(example: Path, local: DevCluster, steps: StepRunner) -> None:
    push = ["env", "push", str(example), "--name", str(example)]
    with steps.step(f"flash {' '.join(push)}"):
        flash(push, local, steps)


def _train_alone(config: str, more: list[str], local: DevCluster, steps: StepRunner) -> str:
    """Run `flash train` with a bar of its own; return the name of the run."""
    with steps.step(f"flash train {config}", total=1) as step:
        step.detail = _train(config, local, steps, step.reach, more)
    return step.detail


def _train_all(local: DevCluster, steps: StepRunner) -> list[str]:
    """Train both examples at once, each with a `flash train`; return the names of the runs."""
    title = f"flash train {' and '.join(str(EXAMPLE / config) for config in CONFIGS)}"
    with steps.step(title, total=len(CONFIGS)) as step, ThreadPoolExecutor() as pool:
        progress_of = _shared_bar(step, len(CONFIGS))
        trainings = [
            pool.submit(_train, str(EXAMPLE / config), local, steps, progress_of(number))
            for number, config in enumerate(CONFIGS)
        ]
        runs = [training.result() for training in trainings]
        step.detail = " and ".join(runs)
    return runs


def _train(
    config: str,
    local: DevCluster,
    steps: StepRunner,
    progress: Callable[[float], None],
    more: Sequence[str] = (),
) -> str:
    """Run `flash train` to its end; return the name of the run."""

    def on_line(line: str) -> None:
        step = re.search(r"step (\d+)/(\d+)", line)
        if step and int(step[2]):
            progress(int(step[1]) / int(step[2]))

    output = flash(["train", config, *more], local, steps, on_line)
    run_name = RUN.search(output)
    if not run_name:
        raise FatalError(f"flash train {config} printed no run name; see its output in {steps.log}")
    progress(1.0)
    return run_name[0]


def _shared_bar(step: Step, count: int) -> Callable[[int], Callable[[float], None]]:
    """Return a function from a run's number to the function that reports its progress (0 to 1)."""
    done = [0.0] * count

    def progress_of(number: int) -> Callable[[float], None]:
        def report(fraction: float) -> None:
            done[number] = fraction
            step.reach(sum(done))

        return report

    return progress_of


def _print_limits(local: DevCluster, model: DemoModel, steps: StepRunner) -> None:
    if local.kind is not ClusterKind.CURRENT:
        tiny = ", with a tiny random model" if model is DemoModel.TINY else ""
        steps.say(
            "\nThe node has no GPU: it only advertises some. Scheduling was real; training ran on "
            f"the CPU{tiny}."
        )


def _pull(name: str, local: DevCluster, steps: StepRunner, *, best: bool = False) -> None:
    """Download the adapter of a run, or its best checkpoint."""
    folder = folders.repository() / "adapters" / name
    more = ["--best"] if best else []
    with steps.step(" ".join(["flash pull", name, *more])) as step:
        pulled = flash(["pull", name, str(folder), *more], local, steps).split()[-1]
        step.detail = f"the trained adapter is in {pulled}"


def _show(words: list[str], local: DevCluster, steps: StepRunner) -> None:
    steps.say(f"\n$ flash {' '.join(words)}")
    steps.say(flash(words, local, steps).rstrip())


def flash(
    words: list[str],
    local: DevCluster,
    steps: StepRunner,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Run the `flash` of this Python environment against the cluster; return its output."""
    program = Path(sys.executable).parent / "flash"
    if not program.exists():
        raise FatalError(
            f"flash is not installed beside {sys.executable}; run `make demo`, which installs it"
        )
    env = {"KUBECONFIG": str(local.kubeconfig), "COLUMNS": os.environ.get("COLUMNS", "120")}
    return steps.run(
        [program, *words],
        env=env,
        cwd=folders.repository(),
        on_line=on_line,
        what=f"flash {' '.join(words)}",
    )
