"""Known base models, and the defaults that depend on more than the algorithm."""

import pytest

from flashrun.api.catalog import BUILT_IN, Catalog, Model, max_length_default, max_tokens_default
from flashrun.api.config import LONGEST_SEQUENCE, Algorithm


def test_the_smallest_model_comes_first() -> None:
    tiny = Model(id="a/tiny", parameters=0.1)
    assert Catalog([tiny]).ids()[0] == "a/tiny"
    assert [model.parameters for model in Catalog()] == sorted(m.parameters for m in BUILT_IN)


def test_an_addition_replaces_the_built_in_model_of_its_id() -> None:
    replaced = BUILT_IN[0].replace(context=1)
    catalog = Catalog([replaced])
    assert catalog.get(replaced.id) == replaced
    assert len(catalog.ids()) == len(BUILT_IN)


def test_a_mirrored_model_replaces_nothing() -> None:
    entry, new = Model(id="a/b", parameters=1), Model(id="c/d", parameters=1)
    pushed = [model.replace(revision="pushed") for model in (BUILT_IN[0], entry, new)]
    catalog = Catalog([entry], pushed, {"e/f": "its manifest is broken"})
    found = [catalog.get(model.id) for model in pushed]

    assert [model.revision for model in found if model] == ["main", "main", "pushed"]
    assert catalog.refusal("e/f") == "its manifest is broken"
    assert catalog.refusal("c/d") == ""


def test_a_model_that_nobody_knows_is_none() -> None:
    assert Catalog().get("a/b") is None


@pytest.mark.parametrize(
    ("algorithm", "thinking", "length"),
    [(Algorithm.SFT, False, 1024), (Algorithm.SFT, True, 2048), (Algorithm.GRPO, False, 2368),
     (Algorithm.GRPO, True, 3584)],
)  # fmt: skip
def test_grpo_leaves_room_for_the_prompt(algorithm: Algorithm, thinking: bool, length: int) -> None:
    assert max_length_default(algorithm, thinking, max_tokens_default(thinking)) == length


def test_the_default_length_is_one_that_a_config_may_have() -> None:
    assert max_length_default(Algorithm.GRPO, False, LONGEST_SEQUENCE) == LONGEST_SEQUENCE
