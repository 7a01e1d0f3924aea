"""Processor time of sampling groups with transformers, our decoding loop beside its own.

    python -m bench.sampling MODEL [--pairs 3] [--prompts 4] [--group 8] [--tokens 64] [--shots 0]

MODEL is a folder with a model and its chat template. The prompts ask for sums; ``--shots`` puts
solved ones before the question, which makes prompts longer. Both sides sample with the same seed at
temperature 1, and the processor time of a sampled token is compared.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import sides
from bench.sides import ROOT

IN_TRAINER = "--in-trainer"
"""Says that this process has PyTorch."""
SIDES = ("flashrun", "transformers")


class Sampled(NamedTuple):
    """What one side has sampled."""

    seconds: float
    """Processor time."""
    tokens: int
    longest: int

    @property
    def speed(self) -> float:
        """Tokens per second of processor time."""
        return self.tokens / self.seconds


def conversation(number: int, shots: int) -> list[dict[str, str]]:
    """Return a question, after ``shots`` solved ones."""

    def question(left: int, right: int) -> dict[str, str]:
        return {"role": "user", "content": f"What is {left} + {right}? Explain it in few words."}

    messages = []
    for shot in range(shots):
        left, right = 10 + 7 * shot, 20 + 3 * shot
        messages += [question(left, right), {"role": "assistant", "content": str(left + right)}]
    return [*messages, question(11 + 13 * number, 30 + 5 * number)]


class Sampling:
    """A model with the prompts that it is asked."""

    def __init__(self, folder: str, prompts: int, group: int, tokens: int, shots: int) -> None:
        import torch

        from flashrun_trainer import model

        torch.set_num_threads(1)
        self._tokenizer, self._model = model.load_tokenizer(Path(folder)), model.load(Path(folder))
        self._ends = model.end_token_ids(self._model, self._tokenizer)
        asked = [
            self._tokenizer.apply_chat_template(
                conversation(number, shots), add_generation_prompt=True, return_dict=False
            )
            for number in range(prompts)
        ]
        self._prompts = [ids for ids in asked for _ in range(group)]
        self._tokens = tokens
        self.width = max(map(len, asked))

    def sample(self, side: str, seed: int) -> Sampled:
        """Sample each prompt once."""
        import torch
        from transformers import GenerationConfig

        from flashrun_trainer.group_sampling import sample_groups

        pad = self._tokenizer.pad_token_id
        missing = [self.width - len(ids) for ids in self._prompts]
        pairs = list(zip(missing, self._prompts, strict=True))
        ids = torch.tensor([[pad] * count + row for count, row in pairs])
        mask = torch.tensor([[0] * count + [1] * len(row) for count, row in pairs])
        config = GenerationConfig(
            max_new_tokens=self._tokens, eos_token_id=sorted(self._ends), pad_token_id=pad,
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        )  # fmt: skip
        loop: dict[str, Any] = {"custom_generate": sample_groups} if side == SIDES[0] else {}
        torch.manual_seed(seed)
        began = time.process_time()
        output = self._model.eval().generate(
            input_ids=ids, attention_mask=mask, generation_config=config, **loop
        )
        seconds = time.process_time() - began
        lengths = [self._length(row) for row in output[:, self.width :].tolist()]
        return Sampled(seconds, sum(lengths), max(lengths))

    def _length(self, ids: Sequence[int]) -> int:
        ends = (count for count, token in enumerate(ids, 1) if token in self._ends)
        return next(ends, len(ids))


def compare(given: argparse.Namespace) -> None:
    """Sample with both sides in turns and print the figures."""
    sampling = Sampling(given.model, given.prompts, given.group, given.tokens, given.shots)
    for side in SIDES:
        sampling.sample(side, seed=0)  # warms both up
    found: dict[str, list[Sampled]] = {side: [] for side in SIDES}
    for pair in range(1, given.pairs + 1):
        for side in sides.turns(pair, SIDES):
            found[side].append(sampling.sample(side, seed=pair))
        print(json.dumps({side: found[side][-1]._asdict() for side in SIDES}), flush=True)
    ours, theirs = ([one.speed for one in found[side]] for side in SIDES)
    every = [one for side in SIDES for one in found[side]]
    answers = len(every) * given.prompts * given.group
    print(
        f"{given.prompts} prompts of {sampling.width} tokens, {given.group} completions each, "
        f"{sum(one.tokens for one in every) / answers:.0f} tokens long at the mean and "
        f"{max(one.longest for one in every)} at most"
    )
    print(f"tokens per second of processor time: {sides.ratio(ours, theirs):.2f} times as many")
    print(f"{sides.versions(sys.executable, 'torch', 'transformers')}; float32, one thread")
    print(sides.machine())


def main() -> int:
    """Measure in an environment with PyTorch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="folder of a model in safetensors")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8, help="completions of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of a completion")
    parser.add_argument("--shots", type=int, default=0, help="solved sums before the question")
    parser.add_argument(IN_TRAINER, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_trainer:
        compare(given)
        return 0
    from bench.trainer import requirements

    python = sides.environment("trainer", requirements())
    paths = [ROOT, ROOT / "operator" / "src", ROOT / "trainer-image" / "src"]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    words = [python, "-m", "bench.sampling", *sys.argv[1:], IN_TRAINER]
    return subprocess.run(words, env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
