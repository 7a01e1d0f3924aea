"""Random numbers of the environment, which do not change those that the trainer draws."""

import random

import pytest

from flashrun_trainer.data.random_stream import RandomStream, derive_seed


def draws() -> list[float]:
    return [random.random() for _ in range(3)]


def test_what_is_drawn_and_seeded_inside_changes_nothing_outside():
    random.seed(7)
    expected = draws() + draws()
    random.seed(7)
    found = draws()
    with RandomStream().in_use():
        random.seed(1)
        draws()
    assert found + draws() == expected


def test_a_stream_goes_on_where_it_was():
    stream = RandomStream()
    with stream.in_use():
        random.seed(3)
        first = draws()
    draws()
    with stream.in_use():
        second = draws()
    random.seed(3)
    assert first + second == [*draws(), *draws()]
    assert first != second


def test_streams_begin_where_their_parts_say():
    def drawn(*parts: object) -> list[float]:
        stream = RandomStream()
        stream.seed(*parts)
        with stream.in_use():
            return draws()

    assert drawn(1, 2) == drawn(1, 2)
    assert len({tuple(drawn(*parts)) for parts in ((1, 2), (12,), (2, 1), ())}) == 4
    assert 0 <= derive_seed("a") < 2**63


@pytest.mark.trainer
def test_the_generators_of_numpy_and_torch_are_kept_apart_too():
    import numpy
    import torch

    def both() -> tuple[float, float]:
        return float(numpy.random.random()), float(torch.rand(()))

    numpy.random.seed(7)
    torch.manual_seed(7)
    expected = [both(), both()]
    numpy.random.seed(7)
    torch.manual_seed(7)
    found = [both()]
    with RandomStream().in_use():
        numpy.random.seed(1)
        torch.manual_seed(1)
        both()
    assert [*found, both()] == expected
