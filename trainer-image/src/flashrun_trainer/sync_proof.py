"""Proof that the policy's weights reach the engine that samples, whatever they are.

vLLM starts with the base model's weights. A new adapter changes nothing yet, and with a small
learning rate little for many steps: until then, an engine that gets no weights samples from almost
the same policy, and log-probabilities do not show it (``sampler_agreement``). So before the first
copy, the engine's weights in layers with an adapter are overwritten with zeros. All of them must
have been written when the copy is done. Training computes with other tensors, which do not change.
"""

import logging
from collections.abc import Iterator
from typing import Any, Final

log = logging.getLogger(__name__)

_NAMES_LISTED: Final = 3


class SyncProof:
    """Watches the first copy of weights to TRL's ``VLLMGeneration``."""

    def __init__(self, engine: Any, policy: Any) -> None:
        self.problem = "no weights have reached it"
        """Why the engine cannot have the policy's weights; empty when it has got them."""
        self._engine = engine
        self._layers = adapted_layers(policy)
        self._expected_zeros = sum(
            count_zero_rows(weight) for _, weight in layer_weights(policy, self._layers)
        )
        self._walk = engine._iter_named_params
        # TRL reads the policy's weights from this when vLLM is awake, and writes one at a time.
        engine._iter_named_params = self._first_walk

    def _first_walk(self) -> Iterator[tuple[str, Any]]:
        self._engine._iter_named_params = self._walk
        written = list(layer_weights(engine_model(self._engine), self._layers))
        for _, weight in written:
            weight.zero_()
        yield from self._walk()
        zeros = {name: count for name, weight in written if (count := count_zero_rows(weight))}
        if sum(zeros.values()) > self._expected_zeros:
            names = ", ".join(list(zeros)[:_NAMES_LISTED])
            more = " …" if len(zeros) > _NAMES_LISTED else ""
            self.problem = (
                f"the weights of {len(zeros)} of {len(written)} layers have not reached it "
                f"({names}{more})"
            )
            return
        self.problem = ""
        log.info("the policy's weights have reached vLLM: %d layers were written", len(written))


def engine_model(engine: Any) -> Any:
    """Return the model inside TRL's ``VLLMGeneration``, in which vLLM samples in this process."""
    return engine.llm.llm_engine.model_executor.driver_worker.model_runner.model


def adapted_layers(policy: Any) -> frozenset[str]:
    """Return the last parts of the names of layers with an adapter, such as ``q_proj``."""
    return frozenset(
        name.rpartition(".")[2]
        for name, module in policy.named_modules()
        if hasattr(module, "lora_A") and hasattr(module, "base_layer")
    )


def layer_weights(model: Any, layers: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """Yield the matrices of ``layers``, and of those into which vLLM packs several of them."""
    packed = getattr(model, "packed_modules_mapping", None) or {}
    wanted = layers | {name for name, parts in packed.items() if layers & set(parts)}
    for name, weight in model.named_parameters():
        layer, _, kind = name.replace(".base_layer.", ".").rpartition(".")
        if kind == "weight" and layer.rpartition(".")[2] in wanted and weight.ndim == 2:
            yield layer, weight.data


def count_zero_rows(weight: Any) -> int:
    """Return how many rows of a matrix have zeros only."""
    return int((~weight.any(dim=1)).sum())
