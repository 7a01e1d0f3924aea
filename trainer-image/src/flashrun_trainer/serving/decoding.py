"""Answers of a model, token by token, with the log-probabilities of its own distribution."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from flashrun_trainer.serving.adapter_cache import AdapterCache
from flashrun_trainer.serving.openai_requests import AnsweredToken, Sampling

ADAPTERS_IN_MEMORY: Final = 8
"""Adapters whose weights stay beside those of the base model; more are loaded again when asked."""


class ServedModel:
    """A base model, and adapters of it; one caller at a time."""

    def __init__(self, base: Any, base_id: str, cache: AdapterCache) -> None:
        self._network = base.eval()
        self._base_id = base_id
        self._cache = cache
        self._loaded: OrderedDict[str, str] = OrderedDict()
        """Model ids of the adapters in memory → PEFT's names, the one used last at the end."""
        self._number = 0

    @torch.no_grad()
    def answer(
        self, model_id: str, prompt: Sequence[int], ends: frozenset[int], sampling: Sampling
    ) -> Iterator[AnsweredToken]:
        """Yield the tokens of an answer; the last one is one of ``ends``, or the longest is over.

        Raises:
            UnknownAdapter, AdapterRefused: see ``AdapterCache``.
        """
        with self._activated(model_id) as network:
            generator = torch.Generator(network.device)
            if sampling.seed is not None:
                generator.manual_seed(sampling.seed)
            else:
                generator.seed()
            ids = torch.tensor([list(prompt)], device=network.device)
            past = None
            for _ in range(sampling.max_tokens):
                output = network(input_ids=ids, past_key_values=past, use_cache=True)
                past = output.past_key_values
                token = _choose(output.logits[0, -1].float(), sampling, generator)
                yield token
                if token.id in ends:
                    return
                ids = torch.tensor([[token.id]], device=network.device)

    @contextmanager
    def _activated(self, model_id: str) -> Iterator[Any]:
        """Yield the network with this adapter, or without any for the base model's id."""
        if model_id == self._base_id:
            if not self._loaded:
                yield self._network
            else:
                with self._network.disable_adapter():
                    yield self._network
            return
        self._load(model_id)
        self._network.set_adapter(self._loaded[model_id])
        yield self._network

    def _load(self, model_id: str) -> None:
        """Put an adapter into memory, and the one that was used longest ago out of it."""
        folder = self._cache.folder_of(model_id)
        if model_id not in self._loaded:
            from peft import PeftModel

            self._number += 1
            name = f"adapter{self._number}"
            if not self._loaded:
                self._network = PeftModel.from_pretrained(self._network, folder, adapter_name=name)
                self._network.eval()
            else:
                self._network.load_adapter(folder, adapter_name=name)
            self._loaded[model_id] = name
        self._loaded.move_to_end(model_id)
        if len(self._loaded) > ADAPTERS_IN_MEMORY:
            _, oldest = self._loaded.popitem(last=False)
            self._network.set_adapter(self._loaded[model_id])
            self._network.delete_adapter(oldest)


def _choose(logits: Any, sampling: Sampling, generator: Any) -> AnsweredToken:
    """Return the next token."""
    logprobs = logits.log_softmax(-1)
    if sampling.temperature == 0:
        chosen = int(logits.argmax())
    else:
        shares = (logits / sampling.temperature).softmax(-1)
        if sampling.top_p < 1:
            ordered, places = shares.sort(descending=True)
            ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0  # keeps the first one
            shares = torch.zeros_like(shares).scatter(0, places, ordered)
        chosen = int(torch.multinomial(shares, 1, generator=generator))
    values, places = logprobs.topk(min(sampling.top_logprobs, len(logprobs)))
    top = tuple(zip(places.tolist(), values.tolist(), strict=True))
    return AnsweredToken(chosen, float(logprobs[chosen]), top)
