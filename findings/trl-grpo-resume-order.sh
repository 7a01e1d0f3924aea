#!/usr/bin/env bash
# What it shows: a GRPO run over several epochs, and the same run resumed from its checkpoints. Within
#   the first epoch the resumed run asks the prompts that the whole run asks. From a later epoch on it
#   does not: it asks the rest of the first epoch's order again, then the second epoch's. One
#   checkpoint further on, some prompts of the epoch were asked twice and others never.
# Why it matters: a run that is interrupted often, as on preemptible nodes, sees the beginning of the
#   same shuffle again and again; rewards of a resumed run are not those of the whole one.
# Versions: TRL 1.16.0, transformers 5.19.0, PyTorch 2.13.0 (on a CPU), Python 3.11. Installs 5 GB.
# Seen: 2026-11-29.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" torch==2.13.0 transformers==5.19.0 trl==1.16.0 \
    accelerate==1.15.0 datasets==5.2.0
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

cat >"$folder/show.py" <<'PYTHON'
"""The order of prompts in three epochs of six, whole and resumed."""
import importlib.metadata
import sys

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast, PrinterCallback, Qwen3Config, Qwen3ForCausalLM, set_seed,
)
from trl import GRPOConfig, GRPOTrainer

folder = sys.argv[1]


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are bytes."""
    tokens = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    model = models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[])
    bytes_only = Tokenizer(model)
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )


def tiny_model() -> Qwen3ForCausalLM:
    set_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(
        vocab_size=258, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, tie_word_embeddings=False,
        pad_token_id=0, eos_token_id=1,
    ))


def order(output: str, checkpoint: str | None = None) -> str:
    """Train 18 steps of one prompt each, and return the prompts in the order of the steps."""
    asked = []

    def reward(prompts: list[str], completions: list[str], **_: object) -> list[float]:
        asked.append(prompts[0])
        return [float(len(completion) % 3) for completion in completions]

    trainer = GRPOTrainer(
        model=tiny_model(),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=output, per_device_train_batch_size=2, num_generations=2,
            max_completion_length=4, max_steps=18, save_strategy="steps", save_steps=1,
            report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
            disable_tqdm=True, seed=0,
        ),
        train_dataset=Dataset.from_dict({"prompt": list("abcdef")}),
        processing_class=tokenizer(),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=checkpoint)
    return "".join(asked)


print("TRL", importlib.metadata.version("trl"))
whole = order(f"{folder}/whole")
print("whole run:          ", whole[:6], whole[6:12], whole[12:])
resumed = {step: order(f"{folder}/{step}", f"{folder}/whole/checkpoint-{step}") for step in (3, 9, 12)}
for step, rest in resumed.items():
    expected = "as the whole run" if rest == whole[step:] else f"the whole run has {whole[step:]}"
    print(f"resumed at step {step:2}: {rest:15}  {expected}")
if resumed[3] != whole[3:]:
    sys.exit("changed: a run resumed within its first epoch has another order, too")
if resumed[9] != whole[3:12] or resumed[12] != whole[:6]:
    sys.exit("changed: a run resumed after its first epoch does not repeat the first one's order")
print("as described: after a resume in a later epoch, the first epoch's order begins again")
PYTHON
"$python" "$folder/show.py" "$folder" 2>"$folder/err" || { tail -n 20 "$folder/err" >&2; exit 1; }
