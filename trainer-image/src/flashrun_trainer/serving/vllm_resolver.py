"""vLLM's plugin that finds adapters in storage, by the list of a server.

Each process of vLLM calls ``register``, also those that sample completions of GRPO, which have no
list and get no resolver.
"""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

from flashrun.api import pod
from flashrun.api.served import ServedList
from flashrun.store import Store
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.serving.adapter_cache import AdapterCache, AdapterRefused, UnknownAdapter

log = logging.getLogger(__name__)

NAME = "flashrun_adapters"


class StoredAdapters:
    """Resolves model ids to adapters whose files were checked.

    vLLM's registry asks for ``resolve_lora`` and nothing else: without its ``LoRAResolver`` as a
    base, the module can be imported where vLLM is not installed.
    """

    def __init__(self, cache: AdapterCache) -> None:
        self._cache = cache
        ids = [adapter.id for adapter in cache.served.adapters]
        self._numbers = {model_id: number for number, model_id in enumerate(ids, 1)}

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any:
        """Return vLLM's request for an adapter; None if there is none that may be served."""
        from vllm.lora.request import LoRARequest

        try:
            folder = await asyncio.to_thread(self._cache.folder_of, lora_name)
        except (UnknownAdapter, AdapterRefused):
            return None  # the cache has logged why
        return LoRARequest(
            lora_name=lora_name, lora_int_id=self._numbers[lora_name], lora_path=str(folder)
        )


def register() -> None:
    """Register the resolver in this process of vLLM, if it belongs to a server of adapters."""
    path = os.environ.get(pod.SERVED_VARIABLE)
    if not path:
        return
    from vllm.lora.resolver import LoRAResolverRegistry

    mounts = PodMounts.from_environment(os.environ)
    served = ServedList.model_validate_json(Path(path).read_bytes())
    cache = AdapterCache(served, Store.from_file(mounts.storage), mounts.work / "adapters")
    LoRAResolverRegistry.register_resolver(NAME, StoredAdapters(cache))
