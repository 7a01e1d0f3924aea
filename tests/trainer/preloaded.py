"""What the server of ``tests.trainer.forks`` has ready for the pods that it forks.

It is the same for all of them: modules, and the list of installed packages.
"""

import functools
import gc
import importlib

from flashrun_trainer.data import shadowing

MODULES = (
    *("flashrun_trainer.launch.launcher", "flashrun_trainer.sft", "flashrun_trainer.grpo"),
    *("freesolo.environments", "peft.utils.transformers_weight_conversion"),
    *("torch.utils.serialization.config", "transformers.models.qwen3.modeling_qwen3"),
    *("trl", "trl.trainer.grpo_trainer", "trl.trainer.sft_trainer", "unittest.mock"),
)
"""What a pod imports, or its libraries when it first uses them."""

for module in MODULES:
    importlib.import_module(module)

shadowing.packages_distributions = functools.cache(shadowing.packages_distributions)
shadowing.packages_distributions()

# A pod that looked for garbage among all this would copy the memory that it shares with the server.
gc.collect()
gc.freeze()
