"""Which GPU pool a run gets: the cheapest one whose GPUs have enough memory."""

from collections.abc import Iterable

from flashrun.spec.catalog import Model
from flashrun.spec.config import Algorithm
from flashrun.spec.platform import Pool


def choose_pool(pools: Iterable[Pool], model: Model, algorithm: Algorithm) -> Pool | None:
    """Return the cheapest pool that ``algorithm`` on ``model`` fits in, or None."""
    return _cheapest(pool for pool in pools if pool.vram >= model.vram(algorithm))


def larger_pool(pools: Iterable[Pool], than: str) -> Pool | None:
    """Return the cheapest pool with more memory per GPU than the pool named ``than``, or None."""
    known = tuple(pools)
    current = next((pool for pool in known if pool.name == than), None)
    if current is None:
        return None
    return _cheapest(pool for pool in known if pool.vram > current.vram)


def no_pool_message(pools: Iterable[Pool], model: Model, algorithm: Algorithm) -> str:
    """Say why no pool fits, with the numbers."""
    largest = max(pool.vram for pool in pools)
    return (
        f"{algorithm} on {model.id} needs a GPU with {model.vram(algorithm):g} GiB, and the "
        f"largest of this cluster has {largest:g} GiB: choose a smaller model (flash models)"
    )


def _cheapest(pools: Iterable[Pool]) -> Pool | None:
    return min(pools, key=lambda pool: (pool.cost, pool.vram, pool.name), default=None)
