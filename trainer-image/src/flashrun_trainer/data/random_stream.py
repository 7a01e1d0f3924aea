"""Random numbers for the environment's code, apart from those that the trainer draws from.

Python, numpy and PyTorch each have one generator for the whole process. What an environment draws
there, or seeds, must not change what the trainer samples, so each side has its own state of them.
Neither numpy nor PyTorch is imported here: ``flash env test`` runs without them.
"""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class RandomStream:
    """A state of the global random generators, for one user of them."""

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the generators continue this stream inside the ``with`` block, and then their own."""
        outside = generator_states()
        set_generator_states(self._states)
        try:
            yield
        finally:
            self._states = generator_states()
            set_generator_states(outside)

    def seed(self, *parts: object) -> None:
        """Begin the stream anew, at a place that depends on ``parts`` alone."""
        with self.in_use():
            seed_generators(*parts)


def seed_generators(*parts: object) -> None:
    """Seed the generators of the libraries that are imported, with a number made of ``parts``."""
    number = derive_seed(*parts)
    random.seed(number)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(number % 2**32)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(number)


def derive_seed(*parts: object) -> int:
    """Return a number of 63 bits that depends on ``parts`` alone."""
    return random.Random("/".join(map(str, parts))).getrandbits(63)


def generator_states() -> dict[str, Any]:
    """Return the states of the generators of the libraries that are imported."""
    states: dict[str, Any] = {"python": random.getstate()}
    if (numpy := sys.modules.get("numpy")) is not None:
        states["numpy"] = numpy.random.get_state()
    if (torch := sys.modules.get("torch")) is not None:
        states["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_generator_states(states: dict[str, Any]) -> None:
    """Bring the generators into the states that ``generator_states`` has returned."""
    if "python" in states:
        random.setstate(states["python"])
    if "numpy" in states:
        sys.modules["numpy"].random.set_state(states["numpy"])
    if "torch" in states:
        sys.modules["torch"].set_rng_state(states["torch"])
    if "cuda" in states:
        sys.modules["torch"].cuda.set_rng_state_all(states["cuda"])
