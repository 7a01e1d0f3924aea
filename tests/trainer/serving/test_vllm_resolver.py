"""vLLM's plugin finds adapters in storage; vLLM itself is played by two modules."""

import asyncio
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from flashrun.api.records import StorageAccess
from flashrun.api.served import ServedAdapter, ServedList
from flashrun_trainer.serving import vllm_resolver
from flashrun_trainer.serving.adapter_cache import AdapterRefused, UnknownAdapter
from flashrun_trainer.serving.vllm_resolver import StoredAdapters

SERVED = ServedList(
    adapters=tuple(
        ServedAdapter(id=name, prefix=f"{name}/", manifest="0" * 64, rank=8)
        for name in ("run", "run/step-5")
    )
)


class Cache:
    """A cache that refuses one adapter."""

    served = SERVED

    def folder_of(self, model_id: str) -> Path:
        if self.served.get(model_id) is None:
            raise UnknownAdapter(model_id)
        if model_id == "run":
            raise AdapterRefused("adapter run is refused")
        return Path("/adapters") / model_id


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What vLLM's registry holds."""
    registered: dict[str, Any] = {}
    registry = SimpleNamespace(register_resolver=registered.__setitem__)
    for name, values in {
        "vllm": {},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": lambda **given: given},
        "vllm.lora.resolver": {"LoRAResolverRegistry": registry},
    }.items():
        module = ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return registered


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("model_id", "found"),
    [
        (
            "run/step-5",
            {"lora_name": "run/step-5", "lora_int_id": 2, "lora_path": "/adapters/run/step-5"},
        ),
        ("run", None),
        ("another", None),
    ],
)
def test_an_adapter_that_may_be_served_is_found(model_id: str, found: Any) -> None:
    resolver = StoredAdapters(Cache())  # type: ignore[arg-type]

    assert asyncio.run(resolver.resolve_lora("base", model_id)) == found


def test_only_a_server_of_adapters_has_the_resolver(
    registered: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FLASHRUN_SERVED", raising=False)
    vllm_resolver.register()  # a trainer, whose vLLM samples
    assert registered == {}

    access = StorageAccess(endpoint="http://s3.invalid", bucket="b", access_key="a", secret_key="s")
    (tmp_path / "access.json").write_text(access.model_dump_json())
    (tmp_path / "adapters.json").write_text(SERVED.model_dump_json())
    monkeypatch.setenv("FLASHRUN_SERVED", str(tmp_path / "adapters.json"))
    monkeypatch.setenv("FLASHRUN_STORAGE", str(tmp_path / "access.json"))
    vllm_resolver.register()

    assert isinstance(registered["flashrun_adapters"], StoredAdapters)
