"""What the server of ``tests.trainer.forks`` has ready for the pods that it forks.

It is the same for all of them: modules, the list of installed packages, what transformers makes of
names of weights.
"""

import functools
import gc
import importlib

from transformers import conversion_mapping

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
conversion_mapping.get_checkpoint_conversion_mapping("qwen3")  # compiles hundreds of patterns

# A pod that has to look for garbage among all this takes long. It begins after the next quarter.
gc.collect()
