"""How well the engine that samples agrees with the policy that learns: pure functions.

vLLM computes log-probabilities in other kernels than the trainer. The loss multiplies every token
by a factor, the ratio of the two probabilities, at most ``LARGEST_FACTOR``. The weight of a
completion is the mean factor of its learned tokens; it must not depend on the completion's length.

An engine that did not get the newest weights samples from another policy, and its log-probabilities
differ by more than kernels do. ``check_agreement`` finds it in the tokens of every step. Where the
two policies hardly differ yet, ``sync_proof`` finds it.
docs/decisions/0008-two-ways-to-sample.md has the measurements.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.pod.trainer_errors import TrainerError

LARGEST_FACTOR: Final = 2.0
"""Largest factor of a token; larger ratios are truncated to it."""
TOLERANCE: Final = 0.2
"""Largest mean difference of logits, in nats: log-probabilities multiplied by the temperature."""
_STANDARD_ERRORS: Final = 3.0
"""By how many standard errors a mean must exceed the tolerance: a few tokens prove nothing."""
_LENGTHS: Final = (0, 64, 256, 1024, 4096)
"""Borders between the lengths, in tokens, for which weights are reported."""


def weight_metrics(completions: Iterable[tuple[float, int]]) -> dict[str, float]:
    """Return the mean weight of a step's completions by length.

    Args:
        completions: weight and number of learned tokens of every completion that is learned.
    """
    by_length: dict[str, list[float]] = {}
    for weight, length in sorted(completions, key=lambda completion: completion[1]):
        by_length.setdefault(_metric_name(length), []).append(weight)
    return {name: statistics.fmean(weights) for name, weights in by_length.items()}


def _metric_name(length: int) -> str:
    for below, most in pairwise(_LENGTHS):
        if length <= most:
            return f"sampling/weight/{below + 1}-{most}"
    return f"sampling/weight/{_LENGTHS[-1] + 1}-"


class Disagreement(NamedTuple):
    """How the log-probabilities of one rank's two engines differ in the sampled tokens of a step.

    The sums are over the tokens that both engines have scored: the sampler's log-probability minus
    the trainer's, in nats.
    """

    unscored: int
    """Tokens to which the sampler alone gave no log-probability."""
    compared: int
    total: float
    absolute: float
    squared: float

    @property
    def mean_absolute(self) -> float:
        """Mean absolute difference; 0 where nothing was compared."""
        return self.absolute / max(self.compared, 1)

    @property
    def certain(self) -> float:
        """Lower bound of the mean absolute difference."""
        count = max(self.compared, 1)
        return self.mean_absolute - _STANDARD_ERRORS * math.sqrt(self.squared / count / count)


def measure(sampler: Any, trainer: Any, mask: Any) -> Disagreement:
    """Compare two tensors of log-probabilities, where ``mask`` is not 0.

    A token that the trainer cannot score is left out: its loss is not finite, which ends the run.
    """
    scored_by_trainer = mask.bool() & ~trainer.isnan()
    differences = (sampler.double() - trainer.double())[scored_by_trainer]
    unscored = differences.isnan()
    differences = differences[~unscored]
    return Disagreement(
        unscored=int(unscored.sum()),
        compared=differences.numel(),
        total=float(differences.sum()),
        absolute=float(differences.abs().sum()),
        squared=float(differences.square().sum()),
    )


def agreement_metrics(by_rank: Sequence[Disagreement], temperature: float) -> dict[str, float]:
    """Return how far sampler and trainer are apart; NaN where nothing was compared.

    The mean of the sampler's log-probability minus the trainer's, over tokens that the sampler has
    drawn, estimates the divergence KL(sampler || trainer).
    """
    compared = sum(rank.compared for rank in by_rank)
    total = sum(rank.total for rank in by_rank)
    return {
        "sampling/kl": total / compared if compared else math.nan,
        "sampling/disagreement": temperature * max(rank.mean_absolute for rank in by_rank)
        if compared
        else math.nan,
    }


def check_arrival(problems: Sequence[str], step: int) -> None:
    """Check that the weights have reached every rank's sampler; ``problems`` has one per rank.

    Raises:
        TrainerError: a sampler has not got them.
    """
    for rank, problem in enumerate(problems):
        if problem:
            raise _stale(
                f"vLLM does not sample from the policy: in step {step} {problem} on rank {rank}"
            )


def check_agreement(by_rank: Sequence[Disagreement], temperature: float, step: int) -> None:
    """Check that every rank's sampler is the policy; all ranks come to the same result.

    Raises:
        TrainerError: a sampler has other weights than the trainer, or gives no log-probabilities.
    """
    for rank, found in enumerate(by_rank):
        if found.unscored and not found.compared:
            raise _stale(f"rank {rank} got no log-probabilities from vLLM in step {step}")
        if temperature * found.certain > TOLERANCE:
            raise _stale(
                f"vLLM does not sample from the policy: in step {step} its log-probabilities "
                f"differ from the trainer's by {found.mean_absolute:.3g} on average on rank "
                f"{rank}, more than {TOLERANCE / temperature:.3g}"
            )


def _stale(message: str) -> TrainerError:
    return TrainerError(
        Exit.SAMPLER_STALE,
        Reason.SAMPLER_STALE,
        message,
        "report it with the model's name; a trainer image without vLLM samples with transformers, "
        "and checkpoints of earlier steps are intact",
    )
