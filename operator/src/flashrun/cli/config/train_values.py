"""Which keys of ``train`` an algorithm uses, and their resolved values."""

from typing import Any, Final

from flashrun.api.config import GRPO_ONLY, SFT_ONLY, Algorithm
from flashrun.api.records import ResolvedTrain

UNUSED_KEYS: Final = {Algorithm.SFT: GRPO_ONLY, Algorithm.GRPO: SFT_ONLY}
"""Keys of ``train`` that an algorithm does not use."""


def used_values(train: ResolvedTrain, algorithm: Algorithm) -> dict[str, Any]:
    """Return the resolved values that an algorithm uses, by key, as JSON has them."""
    values = train.model_dump(mode="json", exclude_none=True)
    return {key: value for key, value in values.items() if key not in UNUSED_KEYS[algorithm]}
