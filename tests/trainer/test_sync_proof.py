"""The proof that weights reach the engine: which of its layers are looked at. In training:
test_grpo_sampling."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.trainer


def policy() -> Any:
    """A model of two layers with adapters on two of their three projections."""
    import torch
    from peft import LoraConfig, get_peft_model

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj, self.k_proj = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
            self.norm = torch.nn.LayerNorm(4)
            self.head = torch.nn.Linear(4, 4)

    network = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([Layer(), Layer()])})
    return get_peft_model(network, LoraConfig(r=2, target_modules=["q_proj", "k_proj"]))


class PackedEngine:
    """Has q_proj and k_proj in one matrix, as vLLM has, and drops what it does not know."""

    def __init__(self, policy: Any, dropped: str = "nothing") -> None:
        import torch

        class Layer(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.qk_proj = torch.nn.Linear(4, 6)
                self.norm, self.head = torch.nn.LayerNorm(4), torch.nn.Linear(4, 4)

        self.model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([Layer(), Layer()])})
        self.model.packed_modules_mapping = {"qk_proj": ["q_proj", "k_proj"]}
        self._policy, self._dropped = policy, dropped
        runner = SimpleNamespace(model_runner=SimpleNamespace(model=self.model))
        executor = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=runner))
        self.llm = SimpleNamespace(llm_engine=executor)

    def _iter_named_params(self) -> Iterator[tuple[str, Any]]:
        yield from self._policy.named_parameters()

    def sync_weights(self) -> None:
        for name, weight in self._iter_named_params():
            if self._dropped in name or not name.endswith("base_layer.weight"):
                continue
            layer = self.model["layers"][int("layers.1" in name)]
            rows = slice(0, 4) if "q_proj" in name else slice(4, 6)
            layer.qk_proj.weight.data[rows] = weight.data


def test_matrices_into_which_layers_are_packed_must_be_written_whole():
    from flashrun_trainer.sync_proof import SyncProof

    model = policy()
    engine = PackedEngine(model)
    proof = SyncProof(engine, model)
    assert proof.problem == "no weights have reached it"
    engine.sync_weights()
    assert proof.problem == ""
    engine = PackedEngine(model, dropped="layers.1.k_proj")
    proof = SyncProof(engine, model)
    engine.sync_weights()
    expected = "the weights of 1 of 2 layers have not reached it (layers.1.qk_proj)"
    assert proof.problem == expected


def test_only_the_first_copy_is_watched_and_other_layers_are_left_alone():
    import torch

    from flashrun_trainer.sync_proof import SyncProof

    model = policy()
    engine = PackedEngine(model)
    before = {name: weight.clone() for name, weight in engine.model.named_parameters()}
    proof = SyncProof(engine, model)
    engine.sync_weights()
    after = dict(engine.model.named_parameters())
    changed = [name for name in after if not torch.equal(before[name], after[name])]
    assert changed == ["layers.0.qk_proj.weight", "layers.1.qk_proj.weight"]
    assert "_first_walk" not in repr(engine._iter_named_params)
    for weight in engine.model.parameters():
        weight.data.zero_()
    engine._dropped = "layers"
    engine.sync_weights()
    assert proof.problem == ""


def test_rows_of_zeros_that_the_policy_has_are_no_proof_of_anything():
    from flashrun_trainer.sync_proof import SyncProof

    model = policy()
    engine = PackedEngine(model)
    next(w for n, w in model.named_parameters() if n.endswith("base_layer.weight")).data[1] = 0
    proof = SyncProof(engine, model)
    engine.sync_weights()
    assert proof.problem == ""
