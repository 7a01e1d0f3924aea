"""Merge an adapter into its base model: ``python -m … BASE ADAPTER FOLDER``.

``flash export --merged`` runs it in a process of its own, because it needs PyTorch and PEFT; the
trainer image has both. The merged model is loaded again from its files, and has to answer as PEFT
does. The last line on standard output is a ``MergeCheck`` as JSON. A problem is one line on
standard error and exit code 1.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

SHARD_SIZE: Final = "2GB"
"""Largest file of weights."""
PROMPTS: Final = ("What is 17 + 25?", "Name three colours.", "Write one sentence about the sea.")
ANSWER_TOKENS: Final = 16
LIMITS: Final = {"float32": 0.01}
"""Largest difference of log-probabilities that is accepted, by the type of the saved weights."""
ROUNDED_LIMIT: Final = 0.25
"""The same for shorter types, which round each merged weight."""


class MergeRefused(Exception):
    """The adapter cannot be merged, or what was saved does not answer as it does."""


class MergeCheck(NamedTuple):
    """How the saved model differs from PEFT's, on greedy answers of PEFT's."""

    tokens: int
    """Tokens that were compared."""
    same: int
    """Of these, those that the saved model chooses, too."""
    difference: float
    """Largest difference of a token's log-probability."""
    dtype: str
    """Type of the saved weights."""


def merge(base: Path, adapter: Path, folder: Path) -> MergeCheck:
    """Write the merged model to ``folder``, which appears whole or not at all.

    Raises:
        MergeRefused: the adapter does not fit, or the check fails.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    try:
        network = PeftModel.from_pretrained(_load(base), adapter).eval()
    except (RuntimeError, ValueError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MergeRefused(f"the adapter does not fit the base model {base}: {why}") from error
    answers = [_greedy(network, tokenizer, prompt) for prompt in PROMPTS]
    dtype = _saved_dtype(base)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        written = Path(scratch) / "model"
        merged = network.merge_and_unload(safe_merge=True)
        merged.to(getattr(torch, dtype)).save_pretrained(written, max_shard_size=SHARD_SIZE)
        tokenizer.save_pretrained(written)
        del network, merged
        check = compare(_load(written), answers, dtype)
        limit = LIMITS.get(dtype, ROUNDED_LIMIT)
        if check.difference > limit:
            raise MergeRefused(
                f"the merged model differs from PEFT's by {check.difference:.3f} in a "
                f"log-probability, and {limit} is accepted in {dtype}"
            )
        written.rename(folder)
    return check


class GreedyAnswer(NamedTuple):
    """A greedy answer with the log-probability of each token."""

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]


def compare(network: Any, answers: list[GreedyAnswer], dtype: str) -> MergeCheck:
    """Return how another model differs on the same tokens."""
    same, differences = 0, []
    for answer in answers:
        rows = _rows(network, [*answer.prompt, *answer.tokens], len(answer.tokens))
        for row, token, logprob in zip(rows, answer.tokens, answer.logprobs, strict=True):
            same += int(row.argmax()) == token
            differences.append(abs(float(row[token]) - logprob))
    return MergeCheck(len(differences), same, max(differences, default=0.0), dtype)


def _greedy(network: Any, tokenizer: Any, text: str) -> GreedyAnswer:
    prompt: list[int] = tokenizer(text)["input_ids"]
    tokens: list[int] = []
    for _ in range(ANSWER_TOKENS):
        [row] = _rows(network, [*prompt, *tokens], 0)[-1:]
        tokens.append(int(row.argmax()))
    rows = _rows(network, [*prompt, *tokens], len(tokens))
    logprobs = [float(row[token]) for row, token in zip(rows, tokens, strict=True)]
    return GreedyAnswer(prompt, tokens, logprobs)


def _rows(network: Any, ids: list[int], last: int) -> Any:
    """Return the log-probabilities that predict the ``last`` tokens; 0: what would follow."""
    import torch

    with torch.no_grad():
        logits = network(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    rows = logits.log_softmax(-1)
    return rows[-last - 1 : -1] if last else rows[-1:]


def _load(folder: Path) -> Any:
    """Return the model as the class that its config names, in float32."""
    import torch
    import transformers

    name = (transformers.AutoConfig.from_pretrained(folder).architectures or [""])[0]
    kind = getattr(transformers, name, transformers.AutoModelForCausalLM)
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


def _saved_dtype(base: Path) -> str:
    """Return the type of the base model's weights, in which the merged ones are saved."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(base)
    dtype = str(getattr(config, "dtype", None) or "").removeprefix("torch.")
    return dtype if isinstance(getattr(torch, dtype, None), torch.dtype) else "float32"


def main(base: str, adapter: str, folder: str) -> int:
    """Merge an adapter; return the exit code."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        check = merge(Path(base), Path(adapter), Path(folder).resolve())
    except MergeRefused as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    sys.stdout.write(f"{json.dumps(check._asdict())}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
