"""The other side of GRPO: what one writes with TRL alone, with the same settings and no reporting.

    python plain_grpo.py SETTINGS.json

Prints one JSON line when each part of the start is over, and one a step: its number, the time, and
the reward.
"""

import json
import sys
import time
from pathlib import Path

settings = json.loads(Path(sys.argv[1]).read_text())

from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def over(part):
    print(json.dumps({"part": part, "time": time.time()}), flush=True)


over("imports")


class Clock(TrainerCallback):
    """Writes down when each step was done."""

    def on_log(self, args, state, control, logs=None, **_):
        if "reward" in logs:
            row = {"step": state.global_step, "time": time.time(), "reward": float(logs["reward"])}
            print(json.dumps(row), flush=True)


def conversation(row):
    question = f"{row['input']} {settings['instruction']}"
    return {"prompt": [{"role": "user", "content": question}], "output": row["output"]}


def reward(completions, output, **_):
    """Score as examples/sums does: half for digits, half for the right answer."""
    found = []
    for completion, right in zip(completions, output, strict=True):
        answer = completion[0]["content"].strip()
        digits = sum(character.isdigit() for character in answer) / max(1, len(answer))
        found.append(0.5 * digits + 0.5 * float(answer == right))
    return found


rows = load_dataset("json", data_files=settings["data"], split="train")
trainer = GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(settings["model"]),
    args=GRPOConfig(**settings["arguments"], chat_template_kwargs={"enable_thinking": False}),
    train_dataset=rows.map(conversation),
    processing_class=AutoTokenizer.from_pretrained(settings["model"]),
    reward_funcs=reward,
    peft_config=LoraConfig(**settings["lora"]),
    callbacks=[Clock()],
)
over("loading")
trainer.train()
trainer.save_model(settings["arguments"]["output_dir"] + "/adapter")
