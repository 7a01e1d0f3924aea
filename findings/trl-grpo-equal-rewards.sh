#!/usr/bin/env bash
# What it shows: GRPO learns from the differences within a group, so a step whose rewards are all equal
#   should change nothing. TRL takes the mean of a group in float32: the mean of eight times 0.1 is not
#   0.1, the advantages are of the size 1e-8, and AdamW divides by the size of the gradient: the first
#   such step moves weights by a whole learning rate. Groups of four, or a reward of 0.5, move nothing.
# Why it matters: a step of prompts whose completions all earn the same partial reward pushes the
#   adapter at random, and frac_reward_zero_std is 0 for some of these rewards.
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
"""One GRPO step with equal rewards: how far the weights move, in learning rates."""
import importlib.metadata
import sys

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast, PrinterCallback, Qwen3Config, Qwen3ForCausalLM, set_seed,
)
from trl import GRPOConfig, GRPOTrainer

RATE = 1e-3


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


def step(group: int, reward: float) -> float:
    """Return how far the weight that moved most has moved, in learning rates."""
    model = tiny_model()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [reward] * len(completions),
        args=GRPOConfig(
            output_dir=f"{sys.argv[1]}/out", per_device_train_batch_size=group,
            num_generations=group, max_completion_length=8, max_steps=1, learning_rate=RATE,
            lr_scheduler_type="constant", logging_steps=1, save_strategy="no", report_to=[],
            use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["abc", "def"]}),
        processing_class=tokenizer(),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    [logged] = [entry for entry in trainer.state.log_history if "reward_std" in entry]
    moved = max(
        (weight.detach() - before[name]).abs().max().item()
        for name, weight in model.named_parameters()
    )
    print(
        f"group of {group}, every reward {reward}: moved {moved / RATE:.3f} learning rates; "
        f"gradient {logged['grad_norm']:.1e}, frac_reward_zero_std {logged['frac_reward_zero_std']}"
    )
    return moved / RATE


print("TRL", importlib.metadata.version("trl"), "- PyTorch", importlib.metadata.version("torch"))
still = [step(4, 0.1), step(4, 0.3), step(8, 0.5)]
moving = [step(8, 0.1), step(8, 0.3)]
if max(still) > 0:
    sys.exit("changed: groups of four, or a reward of 0.5, move weights as well")
if min(moving) < 0.5:
    sys.exit("changed: equal rewards in a group of eight do not move weights any more")
print("as described: equal rewards of 0.1 or 0.3 in groups of eight move weights")
PYTHON
"$python" "$folder/show.py" "$folder" 2>"$folder/err" || { tail -n 20 "$folder/err" >&2; exit 1; }
