"""Which pool a run gets and how many of its GPUs: every branch of the rule, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashrun.api.catalog import Model
from flashrun.api.config import Algorithm
from flashrun.api.platform import Pool
from flashrun.api.records import ResolvedTrain, Scale
from flashrun.plan import placement


def pool(name: str = "pool", vram: float = 80, **shape) -> Pool:
    return Pool(name=name, vram=vram, **shape)


def train(batch_size: int = 32, group_size: int | None = None) -> ResolvedTrain:
    return ResolvedTrain(
        lora_rank=8,
        lora_alpha=16,
        learning_rate=1e-4,
        batch_size=batch_size,
        group_size=group_size,
        max_length=64,
        save_every=10,
    )


def model(need: float) -> Model:
    return Model(id="org/model", parameters=1, vram_sft=need, vram_grpo=need)


NODE = pool(gpus_per_node=8)
FAST = pool(gpus_per_node=8, gpus_per_run=8)
NODES = pool(gpus_per_node=8, max_nodes=4)
GPUS = [
    ("one GPU that holds the model is enough", NODE, 80, 32, 1),
    ("a model without a known size fits anywhere", NODE, 0, 32, 1),
    ("a pool may give more for speed", FAST, 10, 32, 8),
    ("but never more than divide the batch", FAST, 10, 12, 6),
    ("a batch of one has one process", FAST, 10, 1, 1),
    ("a model too large for one GPU is spread over two", NODE, 81, 32, 2),
    ("and over as many as divide the batch", NODE, 200, 32, 4),
    ("a batch of nine takes three", NODE, 200, 9, 3),
    ("speed asks for more than the model needs", FAST, 200, 32, 8),
    ("a whole node", NODE, 640, 32, 8),
    ("more than a node is whole nodes", NODES, 641, 32, 16),
    ("three nodes when the batch divides by them", NODES, 1300, 48, 24),
    ("four when it does not", NODES, 1300, 32, 32),
    ("speed may ask for several nodes",
     pool(gpus_per_node=8, max_nodes=2, gpus_per_run=16), 10, 32, 16),
    ("and gets one where the batch is small",
     pool(gpus_per_node=8, max_nodes=2, gpus_per_run=16), 10, 8, 8),
    ("no number of GPUs holds it", NODE, 641, 32, None),
    ("no number that holds it divides the batch", NODE, 200, 2, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "need", "step", "gpus"), [row[1:] for row in GPUS], ids=[row[0] for row in GPUS]
)
def test_the_number_of_gpus_holds_the_model_and_divides_the_batch(where, need, step, gpus) -> None:
    assert placement.gpu_count(where, need, step) == gpus


PLACES = [
    ("the cheapest of what fits",
     [pool("costly", cost=9), pool("cheap", cost=3), pool("small", 24)], 80,
     ("cheap", Scale())),
    ("two small GPUs when they cost less than a large one",
     [pool("large", cost=9), pool("small", 40, cost=2, gpus_per_node=2)], 80,
     ("small", Scale(gpus=2, sharded=True))),
    ("one large GPU when both cost the same",
     [pool("large", cost=4), pool("small", 40, cost=2, gpus_per_node=2)], 80,
     ("large", Scale())),
    ("the smaller GPU when cost and number are the same",
     [pool("large", 80), pool("small", 40)], 10, ("small", Scale())),
    ("the name decides between equals", [pool("b"), pool("a")], 10, ("a", Scale())),
    ("more GPUs for speed share nothing but gradients",
     [pool("fast", gpus_per_node=4, gpus_per_run=4)], 10, ("fast", Scale(gpus=4))),
    ("several nodes",
     [pool("net", gpus_per_node=4, max_nodes=2)], 500,
     ("net", Scale(nodes=2, gpus=4, sharded=True))),
    ("nowhere", [pool("small", 24)], 80, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pools", "need", "expected"), [row[1:] for row in PLACES], ids=[row[0] for row in PLACES]
)
def test_a_run_goes_to_the_cheapest_place(pools, need, expected) -> None:
    for order in (pools, pools[::-1]):
        chosen = placement.choose_placement(order, model(need), Algorithm.SFT, train())
        assert (chosen and (chosen.pool.name, chosen.scale)) == expected


def test_a_grpo_step_has_a_sequence_for_each_completion() -> None:
    chosen = placement.choose_placement(
        [FAST], model(10), Algorithm.GRPO, train(batch_size=2, group_size=4)
    )
    assert chosen is not None
    assert chosen.scale == Scale(gpus=8)


REFUSALS = [
    ("one GPU a node", [pool("only", 24)], 80, train(),
     "model: sft on org/model needs 80 GiB of GPU memory, and a run can get at most 24 GiB here "
     "(1 x 24 GiB in pool only): choose a smaller model (flash models)"),
    ("several nodes", [pool("a", 24), pool("b", 80, gpus_per_node=8, max_nodes=2)], 2000, train(),
     "at most 1280 GiB here (16 x 80 GiB in pool b)"),
    ("a batch that two GPUs cannot share", [pool(gpus_per_node=2)], 100, train(7),
     "train.batch_size: 7 cannot be divided between the GPUs that org/model needs here: use a "
     "multiple of 2"),
    ("a batch that is smaller than the GPUs", [pool(gpus_per_node=4)], 200, train(2),
     "use a multiple of 3 or 4"),
    ("a group that helps", [pool(gpus_per_node=4)], 300, train(1, group_size=2),
     "use a multiple of 2"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pools", "need", "knobs", "sentence"),
    [row[1:] for row in REFUSALS],
    ids=[row[0] for row in REFUSALS],
)
def test_a_refusal_names_the_numbers_that_would_work(pools, need, knobs, sentence) -> None:
    assert placement.choose_placement(pools, model(need), Algorithm.SFT, knobs) is None
    assert sentence in str(placement.explain_no_placement(pools, model(need), Algorithm.SFT, knobs))


SMALL, LARGE = pool("small", 24, cost=1), pool("large", 80, cost=4, gpus_per_node=4)
LARGER = [
    ("a larger GPU", [SMALL, LARGE], 20, placement.Placement(SMALL, Scale()), ("large", Scale())),
    ("none is larger", [SMALL, LARGE], 20, placement.Placement(LARGE, Scale()), None),
    ("a spread model goes to more GPUs", [SMALL, LARGE], 100,
     placement.Placement(LARGE, Scale(gpus=2, sharded=True)),
     ("large", Scale(gpus=4, sharded=True))),
    ("as far as there are any", [SMALL, LARGE], 100,
     placement.Placement(LARGE, Scale(gpus=4, sharded=True)), None),
    ("or to one larger GPU when that costs less", [LARGE, pool("huge", 192, cost=9)], 100,
     placement.Placement(LARGE, Scale(gpus=2, sharded=True)), ("huge", Scale())),
    ("but not to one with less to spare", [LARGE, pool("tight", 101, cost=9)], 100,
     placement.Placement(LARGE, Scale(gpus=2, sharded=True)),
     ("large", Scale(gpus=4, sharded=True))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pools", "need", "than", "expected"), [row[1:] for row in LARGER], ids=[r[0] for r in LARGER]
)
def test_what_ran_out_of_memory_goes_where_a_gpu_has_more_to_spare(
    pools, need, than, expected
) -> None:
    chosen = placement.larger_placement(pools, need, train(), than)
    assert (chosen and (chosen.pool.name, chosen.scale)) == expected


AGAIN = [
    ("the same pool", [SMALL, LARGE], 20, Scale(), "small"),
    ("the pool has more for speed by now", [pool("fast", gpus_per_node=8, gpus_per_run=8)], 20,
     Scale(), "fast"),
    ("a pool that has as many", [SMALL, LARGE], 300, Scale(gpus=4, sharded=True), "large"),
    ("no pool has as many GPUs on a node", [SMALL, LARGE], 20, Scale(gpus=8), None),
    ("no pool has as many nodes", [SMALL, LARGE], 20, Scale(nodes=2), None),
    ("its share of the model does not fit", [LARGE], 200, Scale(gpus=2, sharded=True), None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pools", "need", "scale", "name"), [row[1:] for row in AGAIN], ids=[row[0] for row in AGAIN]
)
def test_a_run_that_has_begun_keeps_its_scale(pools, need, scale, name) -> None:
    chosen = placement.placement_of_scale(pools, need, scale)
    assert (chosen and chosen.pool.name) == name
    assert chosen is None or chosen.scale == scale


shapes = st.builds(
    pool,
    name=st.sampled_from("abc"),
    vram=st.floats(1, 200),
    cost=st.floats(0, 10),
    gpus_per_node=st.integers(1, 16),
    max_nodes=st.integers(1, 4),
)


@given(st.lists(shapes, min_size=1, max_size=3), st.floats(0, 4000), st.integers(1, 256))
def test_every_run_gets_a_place_or_a_sentence(pools, need, batch) -> None:
    chosen = placement.choose_placement(pools, model(need), Algorithm.SFT, train(batch))
    if chosen is None:
        assert placement.explain_no_placement(
            pools, model(need), Algorithm.SFT, train(batch)
        ).message
        return
    assert batch % chosen.scale.world_size == 0
    assert chosen.spare(need) >= 0
    assert chosen.scale.gpus <= chosen.pool.gpus_per_node
    assert chosen.scale.nodes <= chosen.pool.max_nodes
    assert placement.placement_of_scale(pools, need, chosen.scale) is not None
