"""A stand-in for vLLM, which is not installed where the tests run in CI.

It takes the place of TRL's ``VLLMGeneration``: it has weights of its own, which it gets when TRL
copies them, and it reports the log-probabilities of what it samples. It shows what the trainer does
with an engine's answers, not what vLLM answers; where vLLM is installed, the same tests run on it.
"""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flashrun_trainer.data import generation

CHOSEN = generation.Engine("a test says so", memory_share=0.05, sleeps=False)


class StandInEngine:
    """Samples from its own copy of the model."""

    def __init__(
        self,
        model: Any,
        accelerator: Any,
        processing_class: Any,
        temperature: float,
        max_completion_length: int,
        generation_kwargs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        from copy import deepcopy

        self.enable_sleep_mode = False
        self._policy = model
        self._own = deepcopy(model).eval()
        for module in self._own.modules():
            # TRL has put functions in its place that compute with the policy's own weights.
            vars(module).pop("forward", None)
        self._tokenizer = processing_class
        self.temperature = temperature
        self.max_completion_length = max_completion_length
        kwargs = generation_kwargs or {}
        self._stops = kwargs.get("stop", [])
        self._skips_special = kwargs.get("skip_special_tokens", True)

        worker = SimpleNamespace(model_runner=SimpleNamespace(model=self._own))
        executor = SimpleNamespace(driver_worker=worker)
        self.llm = SimpleNamespace(
            llm_engine=SimpleNamespace(model_executor=executor), reset_prefix_cache=lambda: None
        )

    def _iter_named_params(self) -> Iterator[tuple[str, Any]]:
        """The weights of the policy, as TRL reads them."""
        yield from self._policy.state_dict().items()

    def sync_weights(self) -> None:
        """Copy the weights of the policy."""
        own = self._own.state_dict()
        for name, weight in self._iter_named_params():
            self.load(own, name, weight)

    def load(self, own: dict[str, Any], name: str, weight: Any) -> None:
        """Write one of this engine's ``own`` weights."""
        own[name].copy_(weight)

    def disturbed(self, logprobs: list[float]) -> list[float]:
        """The log-probabilities as this engine computes them, in other kernels than the trainer."""
        return logprobs

    def generate(
        self, prompts: list[list[int]], **_: Any
    ) -> tuple[list[list[int]], list[list[int]], list[list[list[float]]], None]:
        """Sample one completion for every prompt."""
        import torch

        widest = max(map(len, prompts))
        pad = self._tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (widest - len(row)) + row for row in prompts])
        mask = torch.tensor([[0] * (widest - len(row)) + [1] * len(row) for row in prompts])
        sampling: dict[str, Any] = {"do_sample": False}
        if self.temperature:
            sampling = {
                "do_sample": True,
                "temperature": self.temperature,
                "top_k": 0,
                "top_p": 1.0,
            }
        with torch.no_grad():
            output = self._own.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=self.max_completion_length,
                **sampling,
                return_dict_in_generate=True,
                output_logits=True,
            )
        sampled = output.sequences[:, widest:]
        logits = torch.stack(output.logits, dim=1).float() / (self.temperature or 1.0)
        chosen = logits.log_softmax(-1).gather(-1, sampled.unsqueeze(-1)).squeeze(-1)
        completions = [self._ended(row) for row in sampled.tolist()]
        logprobs = [
            self.disturbed(row[: len(completion)])
            for row, completion in zip(chosen.tolist(), completions, strict=True)
        ]
        return prompts, completions, [[[value] for value in row] for row in logprobs], None

    def _ended(self, ids: list[int]) -> list[int]:
        """The tokens up to the first that ends the completion."""
        for count, token in enumerate(ids, 1):
            text = self._tokenizer.decode(
                ids[max(0, count - 16) : count], skip_special_tokens=self._skips_special
            )
            if token == self._tokenizer.eos_token_id or any(stop in text for stop in self._stops):
                return ids[:count]
        return ids


class StaleEngine(StandInEngine):
    """Gets the weights of the policy a few times, and then never again.

    Its weights are those of the base model until then, as those of an engine that reads them from
    the model's folder.
    """

    syncs = 0
    """How often the weights arrive."""
    rank: int | None = None
    """The only rank whose engine it happens to."""
    error: Exception | None = None
    """What is raised when they do not arrive; None if nobody is told."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        for name, weight in self._own.named_parameters():
            if "lora_B" in name:
                weight.data.zero_()
        self._syncs_left = self.syncs

    def sync_weights(self) -> None:
        """Copy the weights of the policy, while they still arrive."""
        self._syncs_left -= 1
        if self._syncs_left >= 0 or self.rank not in (None, int(os.environ.get("RANK", 0))):
            super().sync_weights()
        elif self.error is not None:
            raise self.error


def install(patch: Any = None, engine: type[StandInEngine] = StandInEngine) -> None:
    """Let the trainer sample with a stand-in: for a test, or until the process ends."""
    from trl.trainer import grpo_trainer

    patch = patch or pytest.MonkeyPatch()
    patch.setattr(generation, "choose_engine", lambda *_, **__: CHOSEN)
    patch.setattr(grpo_trainer, "VLLMGeneration", engine)
