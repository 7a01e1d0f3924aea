"""Save requests: each is handed to the trainer once."""

from tests.plan.worlds import running


def test_a_save_request_is_passed_on_once() -> None:
    world = running().switched(save_request="now-1")
    first = world.decide()

    assert first.control is not None
    assert first.control.save_request == "now-1"
    assert world.act(first).decide().control is None
