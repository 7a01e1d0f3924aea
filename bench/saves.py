"""What a save costs early and late in a run: seconds that training is held, and bytes uploaded.

    python -m bench.saves [--early 100] [--late 50000]

Steps are synthetic: each logs the metrics of a step of GRPO and trains nothing. The save is that of
the trainer: a tiny adapter, its optimizer, the trainer's state, and the metrics of the run. It goes
to an S3 server in this process.
"""

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

from bench import sides
from flashrun.store import Store
from tests.store.small_s3 import small_s3
from tests.trainer.pods import resolved

METRICS = 42
"""Metrics of a step of GRPO with an environment of a few metrics."""
ROUNDS = 5
HELD_LIMIT, MORE_BYTES_LIMIT = 1.3, 300_000
"""How many times as long a late save may hold training, and how many more bytes it may send."""


class Cost(NamedTuple):
    """What one save costs."""

    held: float
    """Seconds that training waits."""
    sent: int
    """Bytes that are uploaded until the save is committed."""


class Run:
    """A run that trains nothing: our own callback, reporter and uploader, and a tiny adapter."""

    def __init__(self, folder: Path, store: Store) -> None:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import Qwen3Config, Qwen3ForCausalLM, TrainerState

        from flashrun_trainer.checkpoint import TrainingObjects
        from flashrun_trainer.loop import TrainingCallback
        from flashrun_trainer.pod.mounts import PodMounts
        from flashrun_trainer.pod.redaction import Redactor
        from flashrun_trainer.records import attempts
        from flashrun_trainer.records.checkpoint_uploads import Uploader
        from flashrun_trainer.records.reporter import Reporter

        config = Qwen3Config(
            vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1
        )
        model = get_peft_model(Qwen3ForCausalLM(config), LoraConfig(target_modules=["q_proj"]))
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights)
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
        self.state = TrainerState(global_step=0, max_steps=1_000_000)
        run = resolved("grpo")
        attempt = attempts.claim_attempt(store, run, PodMounts.from_environment({}))
        self.reporter = Reporter(attempt, folder, Redactor(()), pass_seconds=3600)
        self.uploader = Uploader(
            attempt, "m", self.reporter.report_commit, self.reporter.upload_history
        )
        context: Any = SimpleNamespace(
            attempt=attempt,
            run=run,
            reporter=self.reporter,
            uploader=self.uploader,
            tracker=SimpleNamespace(log=lambda step, values: None),
            pod=SimpleNamespace(work=folder, packages=folder / "none"),
            process_group=SimpleNamespace(
                is_main_process=True, world_size=1, all_gather=lambda value: [value]
            ),
        )
        self.callback = TrainingCallback(context)
        self.callback._objects = TrainingObjects(model, optimizer, scheduler, self.state)

    def train_until(self, step: int) -> None:
        """Log every step up to ``step``."""
        arguments: Any = None
        for number in range(self.state.global_step + 1, step + 1):
            self.state.global_step = number
            values = {f"some/metric_{index}": number + index / 7 for index in range(METRICS)}
            logs = {"loss": 1 / number, **values}
            self.state.log_history.append({**logs, "step": number})
            self.callback.on_log(arguments, self.state, arguments, logs)

    def save(self) -> float:
        """Save the last step, wait until it is committed, and return how long training was held."""
        arguments: Any = SimpleNamespace(should_save=True)
        self.callback.on_step_end(arguments, self.state, arguments)
        began = time.perf_counter()
        self.callback.on_save(arguments, self.state, arguments)
        held = time.perf_counter() - began
        while self.uploader.resumable_step < self.state.global_step:
            if self.uploader.error is not None:
                raise self.uploader.error
            time.sleep(0.01)
        return held


def cost_at(run: Run, step: int, sent: list[int]) -> Cost:
    """Return the cost of saves from ``step`` on: the shortest time, and the mean of the bytes."""
    run.train_until(step)
    run.save()  # uploads what has not been sent yet
    held, size = [], []
    for number in range(1, ROUNDS + 1):
        run.train_until(step + 20 * number)
        sent.clear()
        held.append(run.save())
        size.append(sum(sent))
    return Cost(min(held), round(sum(size) / len(size)))


def main() -> int:
    """Measure, print the figures, and return 1 when a late save costs more."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--early", type=int, default=100, help="step of the early save")
    parser.add_argument("--late", type=int, default=50_000, help="step of the late save")
    arguments = parser.parse_args()
    sent: list[int] = []
    put_bytes, put_file = Store.put_bytes, Store.put_file

    def count_bytes(store: Store, key: str, data: bytes, *rest: Any) -> None:
        sent.append(len(data))
        put_bytes(store, key, data, *rest)

    def count_file(store: Store, key: str, path: Path, *rest: Any) -> Any:
        sent.append(path.stat().st_size)
        return put_file(store, key, path, *rest)

    with (
        tempfile.TemporaryDirectory() as name,
        small_s3() as s3,
        patch.object(Store, "put_bytes", count_bytes),
        patch.object(Store, "put_file", count_file),
    ):
        run = Run(Path(name), Store(s3.access))
        began = datetime.now(UTC)
        early, late = (cost_at(run, step, sent) for step in (arguments.early, arguments.late))
        seconds = (datetime.now(UTC) - began).total_seconds()
    for step, cost in ((arguments.early, early), (arguments.late, late)):
        print(f"step {step:>6}: held {cost.held * 1000:6.0f} ms, {cost.sent:>11,} bytes uploaded")
    print(f"{ROUNDS} saves each, in {seconds:.0f} s\n{sides.machine()}")
    return sides.verdict(
        (
            f"held {late.held / early.held:.2f} times as long, at most {HELD_LIMIT}",
            late.held <= HELD_LIMIT * early.held,
        ),
        (
            f"{late.sent - early.sent:,} more bytes, at most {MORE_BYTES_LIMIT:,}",
            late.sent - early.sent <= MORE_BYTES_LIMIT,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
