"""The plain side of the benchmark: GRPO with TRL alone, the same settings and no reporting.

    python -m bench.plain_grpo SETTINGS.json

``marks.py`` describes what it prints.
"""

import json
import sys
from pathlib import Path

settings = json.loads(Path(sys.argv[1]).read_text())

from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from bench.marks import Clock, over

over("imports")


def conversation(row):
    question = f"{row['input']} {settings['instruction']}"
    return {"prompt": [{"role": "user", "content": question}], "output": row["output"]}


def reward(completions, output, **_):
    """Score as examples/sums does: half for digits, half for the right answer."""
    rewards = []
    for completion, expected in zip(completions, output, strict=True):
        answer = completion[0]["content"].strip()
        digits = sum(character.isdigit() for character in answer) / max(1, len(answer))
        rewards.append(0.5 * digits + 0.5 * float(answer == expected))
    return rewards


rows = load_dataset("json", data_files=settings["data"], split="train")
trainer = GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(settings["model"], dtype="float32"),
    args=GRPOConfig(**settings["arguments"], chat_template_kwargs={"enable_thinking": False}),
    train_dataset=rows.map(conversation),
    processing_class=AutoTokenizer.from_pretrained(settings["model"]),
    reward_funcs=reward,
    peft_config=LoraConfig(**settings["lora"]),
    callbacks=[Clock("reward", "completions/mean_length")],
)
over("loading")
trainer.train()
trainer.save_model(settings["arguments"]["output_dir"] + "/adapter")
