"""Make a tiny random Qwen3 that learns on a CPU in seconds: ``make_tiny_model.py FOLDER``.

It is for tests and for trying out an installation. Everything is made from a fixed seed: a
byte-level tokenizer trained on the sentences below, a chat template in Qwen's format (ChatML,
``enable_thinking``, ``<think>``), and 0.2 million random weights. The output layer is not tied to
the embedding, and has a large initial standard deviation: with the usual small one, a LoRA adapter
could hardly change the output of so small a model.
"""

import argparse
import itertools
from pathlib import Path

SEED = 42
VOCABULARY = 400
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
THINK_TOKENS = ("<think>", "</think>")

# The reasoning of earlier turns is removed; the last turn has its reasoning, or empty tags.
CHAT_TEMPLATE = """\
{%- set ns = namespace(last_user=-1) %}
{%- for message in messages %}
{%- if message.role == 'user' %}{% set ns.last_user = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
{%- set content = message.content if message.content is string else '' %}
{%- if message.role == 'assistant' %}
{%- set reasoning = '' %}
{%- if '</think>' in content %}
{%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > ns.last_user and (loop.last or reasoning) %}
{{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' }}
{%- endif %}
{{- content + '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}
"""


def corpus() -> list[str]:
    """Return the sentences on which the tokenizer is trained."""
    numbers = range(0, 100, 7)
    sums = [
        f"What is {a} plus {b}? It is {a + b}." for a, b in itertools.product(numbers, repeat=2)
    ]
    return [
        "user system assistant",
        "Answer with a number. Answer with digits only.",
        "Think first, then answer. The letters and the digits of a number are counted.",
        "This sentence is about trains, rivers, clouds, bread and other things of every day.",
        *sums,
    ]


def make_tokenizer(folder: Path) -> int:
    """Write the tokenizer to ``folder``; return its number of tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    # Not special, because decoding must keep the reasoning of a model.
    tokenizer.add_tokens([AddedToken(token, special=False) for token in THINK_TOKENS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="right",
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return len(fast)


def make_model(folder: Path, tokens: int) -> None:
    """Write a random Qwen3 with a vocabulary of ``tokens`` to ``folder``."""
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(SEED)
    config = Qwen3Config(
        vocab_size=tokens,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,  # the smallest that vLLM's attention on CPUs supports
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=SPECIAL_TOKENS.index("<|im_end|>"),
        pad_token_id=SPECIAL_TOKENS.index("<|endoftext|>"),
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.weight, std=0.2)
    model.generation_config = GenerationConfig(
        eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.save_pretrained(folder)


def main() -> None:
    """Make the model in the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Make a tiny random Qwen3 for tests.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    make_model(folder, make_tokenizer(folder))
    print(f"tiny model written to {folder}")


if __name__ == "__main__":
    main()
