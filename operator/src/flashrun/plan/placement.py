"""Placement: the cheapest pool in which a run fits, and how many of its GPUs the run gets.

A run gets one GPU when one GPU holds the model, or more when the pool gives more for speed. The
weights of a larger model are sharded over as many GPUs as hold it together. The number of GPUs
always divides the sequences of a step: each process gets an equal share, and the run trains with
exactly the batch size that its config asks for.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flashrun.api.catalog import Model
from flashrun.api.config import Algorithm
from flashrun.api.platform import Pool, PoolShape
from flashrun.api.quantities import parse_quantity
from flashrun.api.records import ResolvedTrain, Scale
from flashrun.plan.resolve import ConfigIssue

AnyPool = TypeVar("AnyPool", bound=PoolShape)


@dataclass(frozen=True)
class Placement(Generic[AnyPool]):
    """A pool, and how many of its GPUs a run gets."""

    pool: AnyPool
    scale: Scale

    def spare(self, need: float) -> float:
        """Return the memory in GiB that one GPU has left beside its share of ``need`` GiB."""
        return self.pool.vram - need / (self.scale.world_size if self.scale.sharded else 1)


def choose_placement(
    pools: Iterable[AnyPool], model: Model, algorithm: Algorithm, train: ResolvedTrain
) -> Placement[AnyPool] | None:
    """Return the cheapest placement for ``algorithm`` on ``model``, or None when nothing fits.

    ``explain_no_placement`` says why nothing fits.
    """
    need = model.vram(algorithm)
    return _cheapest(_pool_placement(pool, need, sequences_per_step(train)) for pool in pools)


def placement_of_scale(
    pools: Iterable[AnyPool], need: float, scale: Scale
) -> Placement[AnyPool] | None:
    """Return the cheapest placement with exactly ``scale``, or None when no pool has it.

    A run keeps the scale with which it began.
    """
    places = (Placement(pool, scale) for pool in pools if _offers(pool, scale))
    return _cheapest(place for place in places if place.spare(need) >= 0)


def larger_placement(
    pools: Iterable[AnyPool], need: float, train: ResolvedTrain, than: Placement[AnyPool]
) -> Placement[AnyPool] | None:
    """Return the cheapest placement where a GPU has more memory left than at ``than``, or None.

    That is a larger GPU, or, for a model that is already sharded, also more GPUs.
    """
    more = than.pool.vram * (than.scale.world_size + 1) if than.scale.sharded else need
    places = (
        _pool_placement(pool, gib, sequences_per_step(train))
        for pool in pools
        for gib in (need, more)
    )
    roomier = (place for place in places if place and place.spare(need) > than.spare(need))
    return _cheapest(roomier)


def placement_with_more_main_memory(
    pools: Iterable[Pool], need: float, train: ResolvedTrain, than: Placement[Pool]
) -> Placement[Pool] | None:
    """Return the cheapest placement where each GPU comes with more main memory, or None.

    The run keeps its scale where a pool offers it.
    """
    before = parse_quantity(than.pool.memory)
    larger = [pool for pool in pools if parse_quantity(pool.memory) > before]
    kept = placement_of_scale(larger, need, than.scale)
    return kept or _cheapest(
        _pool_placement(pool, need, sequences_per_step(train)) for pool in larger
    )


def explain_no_placement(
    pools: Sequence[PoolShape], model: Model, algorithm: Algorithm, train: ResolvedTrain
) -> ConfigIssue:
    """Return why ``choose_placement`` returned None, with numbers that would work."""
    need = model.vram(algorithm)
    holding = [pool for pool in pools if capacity(pool) >= need]
    if not holding:
        most = max(pools, key=capacity)
        gpus = most.gpus_per_node * most.max_nodes
        return ConfigIssue(
            "model",
            f"{algorithm} on {model.id} needs {need:g} GiB of GPU memory, and a run can get at "
            f"most {capacity(most):g} GiB here ({gpus} x {most.vram:g} GiB in pool {most.name}): "
            "choose a smaller model (flash models)",
        )
    group = train.group_size or 1
    shares = {
        count // math.gcd(count, group) for pool in holding for count in _gpu_counts(pool, need)
    }
    least = sorted(n for n in shares if not any(n % m == 0 for m in shares - {n}))
    return ConfigIssue(
        "train.batch_size",
        f"{train.batch_size} cannot be divided between the GPUs that {model.id} needs here: use a "
        f"multiple of {' or '.join(map(str, least))}",
    )


def sequences_per_step(train: ResolvedTrain) -> int:
    """Return the number of sequences of one optimizer step, over all processes."""
    return train.batch_size * (train.group_size or 1)


def capacity(pool: PoolShape) -> float:
    """Return the most GPU memory, in GiB, that one run can get in ``pool``."""
    return pool.gpus_per_node * pool.max_nodes * pool.vram


def gpu_count(pool: PoolShape, need: float, step: int) -> int | None:
    """Return how many GPUs of ``pool`` a run gets, or None when the pool cannot hold the model.

    The number holds the model (``need`` GiB) and divides ``step``, the sequences of a step. It is
    the largest such number up to ``gpus_per_run``, else the smallest one above.
    """
    fitting = [count for count in _gpu_counts(pool, need) if step % count == 0]
    given = [count for count in fitting if count <= pool.gpus_per_run]
    return max(given) if given else min(fitting, default=None)


def _gpu_counts(pool: PoolShape, need: float) -> list[int]:
    """Return the numbers of GPUs that hold ``need`` GiB: any within a node, or whole nodes."""
    node = pool.gpus_per_node
    offered = (*range(1, node + 1), *(node * nodes for nodes in range(2, pool.max_nodes + 1)))
    return [count for count in offered if count * pool.vram >= need]


def _pool_placement(pool: AnyPool, need: float, step: int) -> Placement[AnyPool] | None:
    count = gpu_count(pool, need, step)
    if count is None:
        return None
    nodes = max(1, count // pool.gpus_per_node)
    return Placement(pool, Scale(nodes=nodes, gpus=count // nodes, sharded=need > pool.vram))


def _offers(pool: PoolShape, scale: Scale) -> bool:
    return scale.gpus <= pool.gpus_per_node and scale.nodes <= pool.max_nodes


def _cheapest(places: Iterable[Placement[AnyPool] | None]) -> Placement[AnyPool] | None:
    return min(
        (place for place in places if place is not None),
        key=lambda place: (
            place.pool.cost * place.scale.world_size,
            place.scale.world_size,
            place.pool.vram,
            place.pool.name,
        ),
        default=None,
    )
