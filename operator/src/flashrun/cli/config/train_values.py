"""Which keys of ``train`` an algorithm uses."""

from typing import Final

from flashrun.api.config import GRPO_ONLY, SFT_ONLY, Algorithm

UNUSED_KEYS: Final = {Algorithm.SFT: GRPO_ONLY, Algorithm.GRPO: SFT_ONLY}
"""Keys of ``train`` that an algorithm does not use."""
