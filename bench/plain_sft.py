"""The plain side of the benchmark: SFT with TRL alone, the same settings and no reporting.

    python -m bench.plain_sft SETTINGS.json

``marks.py`` describes what it prints.
"""

import json
import sys
from pathlib import Path

settings = json.loads(Path(sys.argv[1]).read_text())

from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from bench.marks import Clock, over

over("imports")


def conversation(row):
    question = f"{row['input']} {settings['instruction']}"
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": row["output"]}],
        "chat_template_kwargs": {"enable_thinking": False},
    }


rows = load_dataset("json", data_files=settings["data"], split="train")
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(settings["model"], dtype="float32"),
    args=SFTConfig(**settings["arguments"]),
    train_dataset=rows.map(conversation, remove_columns=rows.column_names),
    processing_class=AutoTokenizer.from_pretrained(settings["model"]),
    peft_config=LoraConfig(**settings["lora"]),
    callbacks=[Clock("loss", "num_tokens")],
)
over("loading")
trainer.train()
trainer.save_model(settings["arguments"]["output_dir"] + "/adapter")
