"""Load an adapter with PEFT on its base model and print how much it changes; needs PyTorch.

Arguments: the folder of the adapter, and id and revision of the base model in the mirror. Prints
JSON.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from flashrun.api import names
from flashrun.api.records import StorageAccess
from flashrun.store import Store

access = StorageAccess.model_validate_json(os.environ["STORAGE_ACCESS"])
folder = Path(tempfile.mkdtemp())
Store(access).download_folder(names.model_prefix(*sys.argv[2:]), folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
base = AutoModelForCausalLM.from_pretrained(folder)
tokens = tokenizer("1 + 2 = ", return_tensors="pt")
with torch.no_grad():
    before = base(**tokens).logits
    adapted = PeftModel.from_pretrained(base, sys.argv[1])
    after = adapted(**tokens).logits
print(
    json.dumps(
        {
            "adapter_parameters": sum(
                value.numel() for name, value in adapted.named_parameters() if "lora_" in name
            ),
            "largest_logit_change": (after - before).abs().max().item(),
            "torch": torch.__version__,
        }
    )
)
