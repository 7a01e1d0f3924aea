"""One side of a measurement on a GPU, in a process of its own: ``SETTINGS.json``.

It trains a LoRA adapter of a random Qwen3 on random tokens, and prints a line of JSON. ``flashrun``
is our trainer with our layout of examples and our arguments, without storage and reports; ``plain``
is TRL alone, with the same model, tokens, order and arguments; ``plain packed`` lets TRL pack.
"""

import json
import random
import sys
import time
from pathlib import Path

settings = json.loads(Path(sys.argv[1]).read_text())

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, TrainerCallback
from transformers.utils import is_flash_attn_2_available
from trl import SFTConfig, SFTTrainer

from bench.gpu.figures import DATA, RANK, SHAPES, TINY_DATA, Data, Shape, lengths
from flashrun.api.catalog import Source
from flashrun.api.config import Algorithm
from flashrun.api.records import (
    ResolvedEnvironment,
    ResolvedModel,
    ResolvedRun,
    ResolvedTrain,
    ResolvedWandb,
    RunIdentity,
)
from flashrun_trainer import adapter_layers, row_layout, trl_arguments
from flashrun_trainer.data import packing
from flashrun_trainer.data.labels import TokenizedExample
from flashrun_trainer.pod.distributed import ProcessGroup
from flashrun_trainer.sft import SftTrainer

WARM_UP_STEPS, MOST_STEPS, FEWEST_STEPS = 2, 40, 3


class Clock(TrainerCallback):
    """Notes when each step ended, and stops when the time is over."""

    def __init__(self, seconds):
        self.seconds, self.ends, self.losses = seconds, [], []

    def on_step_end(self, args, state, control, **_):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        measured = len(self.ends) - WARM_UP_STEPS
        if measured >= FEWEST_STEPS and self.ends[-1] - self.ends[WARM_UP_STEPS - 1] > self.seconds:
            control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


def make_model(shape: Shape, on_gpu: bool):
    torch.manual_seed(1)
    flash = "flash_attention_2" if on_gpu and is_flash_attn_2_available() else "sdpa"
    with torch.device("cuda" if on_gpu else "cpu"):
        return AutoModelForCausalLM.from_config(
            Qwen3Config(**shape.config, pad_token_id=0, eos_token_id=1),
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            attn_implementation=flash,
        )


def make_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Return what TRL wants to have; all examples are token ids already."""
    from tokenizers import Tokenizer, models

    words = {"<pad>": 0, "<end>": 1, "<unknown>": 2}
    made = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>"
    )


def make_run(data: Data, longest: int) -> ResolvedRun:
    """Return the run that our trainer would get."""
    return ResolvedRun(
        run=RunIdentity(namespace="bench", name="gpu", uid="0"),
        model=ResolvedModel(id="bench/random", source=Source.MIRROR, revision="1"),
        algorithm=Algorithm.SFT,
        environment=ResolvedEnvironment(id="bench/random", split="train", digest="0" * 64),
        train=ResolvedTrain(
            lora_rank=RANK,
            lora_alpha=2 * RANK,
            learning_rate=1e-4,
            batch_size=data.examples,
            max_length=longest,
            save_every=10 * MOST_STEPS,
            epochs=1,
            max_steps=0,
        ),
        wandb=ResolvedWandb(project="bench", run_name="gpu"),
        seed=42,
        thinking=False,
        upload_timeout_seconds=60,
    )


def main() -> None:
    on_gpu = settings["device"] == "cuda"
    shape = SHAPES[settings["shape"]]
    data = (TINY_DATA if settings["shape"] == "tiny" else DATA)[settings["data"]]
    sizes = lengths(data, MOST_STEPS)
    dice = random.Random(3)
    ids = [[dice.randrange(3, shape.vocabulary) for _ in range(size)] for size in sizes]
    run = make_run(data, data.longest)
    machine = trl_arguments.Machine(gpu=on_gpu)
    model, tokenizer = make_model(shape, on_gpu), make_tokenizer(shape.vocabulary)
    targets = adapter_layers.find_targets(model)
    lora = LoraConfig(**trl_arguments.lora(run, *targets))
    order = packing.BatchSampler(run, len(ids))
    clock = Clock(settings["seconds"])
    shared = {
        "model": model,
        "peft_config": lora,
        "processing_class": tokenizer,
        "callbacks": [clock],
    }
    output = Path(settings["output"])
    if settings["side"] == "flashrun":
        choice = row_layout.choose_layout(model, ProcessGroup())
        plan = packing.make_plan(
            run, sizes, choice.layout, trl_arguments.most_micro_batch_tokens(machine)
        )
        arguments = trl_arguments.sft(
            run, machine, output, plan.gradient_accumulation_steps, len(order)
        )
        numbers = range(plan.micro_batches_per_step * len(order))
        examples = [TokenizedExample(row, row) for row in ids]
        trainer = SftTrainer(
            args=SFTConfig(**arguments),
            train_dataset=Dataset.from_dict({"micro_batch": numbers}),
            data_collator=packing.Collator(plan, examples, tokenizer.pad_token_id),
            **shared,
        )
        said = packing.describe(plan)
    else:
        packed = settings["side"] == "plain packed"
        arguments = trl_arguments.sft(run, machine, output, data.micro_batches, len(order))
        for name in ("dataset_kwargs", "packing", "remove_unused_columns", "max_length"):
            arguments.pop(name)
        rows = -(-sum(sizes) // (len(order) * data.longest)) if packed else data.examples
        arguments |= {
            "per_device_train_batch_size": rows if packed else rows // data.micro_batches,
            "gradient_accumulation_steps": 1 if packed else data.micro_batches,
            "max_length": data.longest,
            "packing": packed,
        }
        in_order = [ids[example] for step in order for example in step]
        trainer = SFTTrainer(
            args=SFTConfig(**arguments),
            train_dataset=Dataset.from_dict({"input_ids": in_order}),
            **shared,
        )
        said = "TRL packs" if packed else "each example is padded to the longest"
    trainer.train()

    steps = len(clock.ends) - WARM_UP_STEPS
    measured = [sizes[i] for step in order[WARM_UP_STEPS : WARM_UP_STEPS + steps] for i in step]
    tokens, seconds = sum(measured), clock.ends[-1] - clock.ends[WARM_UP_STEPS - 1]
    if settings["side"] == "plain packed":  # its steps have other examples: count its tokens
        counts = [entry["num_tokens"] for entry in trainer.state.log_history if "loss" in entry]
        tokens = round(counts[len(clock.ends) - 1] - counts[WARM_UP_STEPS - 1])
        measured = sizes[: max(1, round(len(sizes) * tokens / sum(sizes)))]
    names = (
        "per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing",
        "bf16", "optim", "learning_rate",
    )  # fmt: skip
    print(
        json.dumps(
            {
                **{name: settings[name] for name in ("shape", "data", "side")},
                "device": torch.cuda.get_device_name() if on_gpu else "CPU",
                "tokens": tokens,
                "seconds": seconds,
                "steps": steps,
                "examples": measured,
                "peak_memory": torch.cuda.max_memory_allocated() if on_gpu else None,
                "first_loss": clock.losses[0],
                "last_loss": clock.losses[-1],
                "settings": {
                    **{name: arguments[name] for name in names},
                    "weights": str(model.dtype),
                    "attention": model.config._attn_implementation,
                    "lora_targets": targets[0],
                    "layout": said,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
