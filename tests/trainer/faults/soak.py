"""A GRPO run through a plan of faults: all of its attempts, and what each of them left.

Each check raises ``AssertionError`` with the output of the pod.
"""

import runpy
import signal
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashrun.api.exits import Exit
from tests.trainer import forks
from tests.trainer.fault_plan import FaultPlan
from tests.trainer.pods import TrainerPod, Workshop, newest, resolved, resumed, rows
from tests.trainer.storage import Cut, Request, between

ENVIRONMENT = Path(__file__).with_name("faulty_environment.py")
GRPO = {
    "batch_size": 2,
    "group_size": 8,
    "max_tokens": 16,
    "learning_rate": 3e-4,
    "stop_sequences": ("\n\n",),
}
COMPLETIONS = GRPO["batch_size"] * GRPO["group_size"]
"""Completions of a step."""
ENDS = {
    Exit.INTERRUPTED_SAVED: "stopped, saved",
    Exit.INTERRUPTED_UNSAVED: "stopped, not saved",
    Exit.TEMPORARY: "temporary",
    -signal.SIGKILL: "killed",
    3: "the judge ended the process",
}
"""How an attempt may end before the last one."""
MOST_ATTEMPTS = 12
LONGEST_SECONDS, LONGEST_STEP_SECONDS = 120, 8
"""How long an attempt may take on a busy machine, and a step more."""


@dataclass
class Soak:
    """A run that has succeeded."""

    pod: TrainerPod
    """The last pod."""
    ends: list[str] = field(default_factory=list)
    """How the attempts before it have ended, with the step from which each was resumed."""
    trained: int = 0
    """Steps that all attempts have trained, those that were lost and trained again included."""
    refused: int = 0
    """Requests that storage did not answer."""
    seconds: float = 0.0


def prompts(first: int, count: int) -> list[str]:
    """Return questions; ranges that do not overlap have none in common."""
    return [f"What is {number} plus {7 * number % 90}?" for number in range(first, first + count)]


def run_through(
    workshop: Workshop, plan: FaultPlan, limit_seconds: float, head: str = "", **train: Any
) -> Soak:
    """Train with the faults of ``plan`` to the end; ``head`` goes before the environment's code."""
    with tempfile.TemporaryDirectory() as folder:
        params = plan.params(folder=folder, completions=COMPLETIONS, limit_seconds=limit_seconds)
        run = resolved(
            "grpo",
            steps=plan.steps,
            environment={"params": params},
            **(GRPO | {"seed": plan.seed} | train),
        )
        files = {
            "environment.py": head + ENVIRONMENT.read_text(),
            "dataset/train.jsonl": rows(*((prompt, "") for prompt in prompts(0, 48))),
        }
        return _run(workshop.pod(run, files), plan)


def _run(first: TrainerPod, plan: FaultPlan) -> Soak:
    began, soak = time.monotonic(), Soak(first)
    with between(first) as storage:

        def rule(request: Request) -> None:
            begin, end = plan.outage
            if begin <= rows_on_disk(soak.pod) <= end:
                soak.refused += 1
                raise Cut

        storage.rule = rule
        while (code := _attempt(soak)) != Exit.DONE:
            assert code in ENDS, f"attempt {soak.pod.number} ended with {code}:\n{soak.pod.output}"
            soak.ends.append(ENDS[code])
            assert len(soak.ends) < MOST_ATTEMPTS, soak.ends
            soak.pod = storage.used_by(soak.pod.next())
    soak.seconds = time.monotonic() - began
    _check_history(soak.pod, plan.steps)
    return soak


def _attempt(soak: Soak) -> int | None:
    """Run one attempt, and check that it begins after the last whole step."""
    pod, before = soak.pod, newest(soak.pod)
    with forks.started(pod) as process:
        process.join(LONGEST_SECONDS + LONGEST_STEP_SECONDS * pod.run.train.steps)
        code = process.exitcode
        assert code is not None, f"attempt {pod.number} hangs:\n{pod.output}"
    steps = pod.output.count(" INFO step ")
    soak.trained += steps
    if steps:
        assert resumed(pod) == before, pod.output
    if code == Exit.INTERRUPTED_SAVED:
        step, _ = newest(pod) or (0, 0)
        assert step == pod.termination.step == rows_on_disk(pod), pod.output
    return code


def _check_history(pod: TrainerPod, steps: int) -> None:
    """Check that metrics and rollouts have every step once."""
    numbers = list(range(1, steps + 1))
    assert [row.step for row in pod.metrics] == numbers, pod.output
    assert len([key for key in pod.keys if key.startswith("rollouts/")]) == steps
    assert pod.adapter.step == steps
    assert newest(pod) is not None


def rows_on_disk(pod: TrainerPod) -> int:
    """Number of steps in the history on the pod's disk."""
    path = pod.folder / "work" / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def held_out_reward(pod: TrainerPod, count: int, answers: int, adapter: bool = True) -> float:
    """Return the mean reward of a run's policy for prompts that it was not trained on."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = pod.inside.model_folder(pod.run)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                Path(folder, name).write_bytes(pod.published(name))
            model = PeftModel.from_pretrained(model, folder)
    score = runpy.run_path(str(ENVIRONMENT))["score"]
    torch.manual_seed(0)
    scores = []
    for prompt in prompts(1000, count):
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            enable_thinking=False,
            return_tensors="pt",
            return_dict=True,
        )
        sampled = model.generate(
            **inputs,
            do_sample=True,
            top_k=0,
            max_new_tokens=GRPO["max_tokens"],
            num_return_sequences=answers,
        )
        for ids in sampled[:, inputs["input_ids"].shape[1] :]:
            text = tokenizer.decode(ids).partition(tokenizer.eos_token)[0]
            scores.append(score(text.partition("\n\n")[0]))
    return statistics.fmean(scores)
