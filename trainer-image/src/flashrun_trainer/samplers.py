"""What samples the answers of an evaluation: transformers, or the vLLM that samples GRPO's.

For TRL's own calls of transformers, ``installed_for_transformers`` does the same.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from transformers import GenerationConfig

from flashrun_trainer.data import generation, stopping
from flashrun_trainer.group_sampling import sample_groups

_BATCH: Final = 64
"""Answers that transformers samples together; their keys and values must fit the memory."""


class Sampler(Protocol):
    """Samples one answer to each prompt, with the weights of this moment."""

    def sample(
        self, prompts: Sequence[list[int]], limits: Sequence[int], temperature: float
    ) -> list[list[int]]:
        """Return answers as token ids, the one to ``prompts[i]`` of at most ``limits[i]`` tokens.

        A temperature of 0 is greedy.
        """

    def ready(self) -> AbstractContextManager[None]:
        """Return a context in which ``sample`` can be called, and which leaves nothing behind."""


@dataclass(frozen=True)
class TransformersSampler:
    """Samples with the model itself."""

    model: Any
    tokenizer: Any
    end_token_ids: frozenset[int]
    stops: Sequence[str]
    sharded: bool

    def sample(
        self, prompts: Sequence[list[int]], limits: Sequence[int], temperature: float
    ) -> list[list[int]]:
        """Return answers as token ids."""
        answers: list[list[int]] = []
        for begin in range(0, len(prompts), _BATCH):
            batch = slice(begin, begin + _BATCH)
            answers += self._sample_batch(prompts[batch], max(limits[batch]), temperature)
        return [self._cut(ids, limit) for ids, limit in zip(answers, limits, strict=True)]

    def ready(self) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return nullcontext()

    def _sample_batch(
        self, prompts: Sequence[list[int]], limit: int, temperature: float
    ) -> list[list[int]]:
        width = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id
        device = next(self.model.parameters()).device
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in prompts], device=device)
        mask = torch.tensor(
            [[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=device
        )
        sampling = (
            {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            if temperature
            else {"do_sample": False}
        )
        config = GenerationConfig(
            max_new_tokens=limit,
            eos_token_id=sorted(self.end_token_ids),
            pad_token_id=pad,
            use_cache=True,
            **sampling,
        )
        more = _generate_arguments(self.tokenizer, self.stops, width, sharded=self.sharded)
        with torch.no_grad():
            output = self.model.generate(
                input_ids=ids, attention_mask=mask, generation_config=config, **more
            )
        sampled: list[list[int]] = output[:, width:].tolist()
        return sampled

    def _cut(self, ids: list[int], limit: int) -> list[int]:
        """Return an answer up to its first end: batches go on until all answers have ended."""
        ends = (count for count, token in enumerate(ids, 1) if token in self.end_token_ids)
        whole = ids[: min(limit, next(ends, len(ids)))]
        return stopping.ids_until_stop(self.tokenizer, whole, self.stops)


@dataclass(frozen=True)
class VllmSampler:
    """Samples with GRPO's vLLM."""

    trainer: Any
    """TRL's trainer."""
    tokenizer: Any
    stops: Sequence[str]

    def sample(
        self, prompts: Sequence[list[int]], limits: Sequence[int], temperature: float
    ) -> list[list[int]]:
        """Return answers as token ids."""
        engine = self.trainer.vllm_generation
        before = engine.temperature, engine.max_completion_length
        engine.temperature, engine.max_completion_length = temperature, max(limits)
        try:
            _, answers, _, _ = engine.generate(
                prompts=list(prompts), images=None, num_generations=1
            )
        finally:
            engine.temperature, engine.max_completion_length = before
        return [
            stopping.ids_until_stop(self.tokenizer, list(ids)[:limit], self.stops)
            for ids, limit in zip(answers, limits, strict=True)
        ]

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Keep vLLM awake with the newest weights."""
        engine, step = self.trainer.vllm_generation, self.trainer.state.global_step
        if self.trainer._last_loaded_step != step:
            # The next step of training samples with the same weights, and need not copy them again.
            engine.sync_weights()
            self.trainer._last_loaded_step = step
        with generation.vllm_awake(engine):
            yield
        if (llm := getattr(engine, "llm", None)) is not None:
            llm.reset_prefix_cache()


@contextmanager
def installed_for_transformers(
    model: Any, tokenizer: Any, stops: Sequence[str], *, sharded: bool
) -> Iterator[None]:
    """Make ``model.generate`` end completions at ``stops``, and compute no prompt twice.

    TRL passes neither criteria, nor the tokenizer that the argument ``stop_strings`` needs, nor a
    decoding loop.
    """
    generate = model.generate

    def generate_with_arguments(**inputs: Any) -> Any:
        width = inputs["input_ids"].shape[1]
        return generate(**inputs, **_generate_arguments(tokenizer, stops, width, sharded=sharded))

    model.generate = generate_with_arguments
    try:
        yield
    finally:
        del model.generate  # makes the method of the class visible again


def _generate_arguments(
    tokenizer: Any, stops: Sequence[str], prompt_length: int, *, sharded: bool
) -> dict[str, Any]:
    """Return the arguments of ``generate`` for ends and for the decoding loop."""
    arguments: dict[str, Any] = {"custom_generate": sample_groups, "sharded": sharded}
    if stops:
        criterion = stopping.stop_criterion(tokenizer, stops, prompt_length)
        arguments["stopping_criteria"] = [criterion]
    return arguments
