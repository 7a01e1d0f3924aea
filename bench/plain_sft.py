"""The other side: what one writes with TRL alone, with the same settings and no reporting.

    python plain_sft.py SETTINGS.json

Prints one JSON line when each part of the start is over, and one a step: its number, the time, and
the loss.
"""

import json
import sys
import time
from pathlib import Path

settings = json.loads(Path(sys.argv[1]).read_text())

from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


def over(part):
    print(json.dumps({"part": part, "time": time.time()}), flush=True)


over("imports")


class Clock(TrainerCallback):
    """Writes down when each step was done."""

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            row = {"step": state.global_step, "time": time.time(), "loss": float(logs["loss"])}
            print(json.dumps(row), flush=True)


def conversation(row):
    question = f"{row['input']} {settings['instruction']}"
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": row["output"]}],
        "chat_template_kwargs": {"enable_thinking": False},
    }


rows = load_dataset("json", data_files=settings["data"], split="train")
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(settings["model"]),
    args=SFTConfig(**settings["arguments"]),
    train_dataset=rows.map(conversation, remove_columns=rows.column_names),
    processing_class=AutoTokenizer.from_pretrained(settings["model"]),
    peft_config=LoraConfig(**settings["lora"]),
    callbacks=[Clock()],
)
over("loading")
trainer.train()
trainer.save_model(settings["arguments"]["output_dir"] + "/adapter")
