"""The gate between the thread that changes weights and the one that keeps them."""

import threading
from collections.abc import Callable

import pytest

from flashrun_trainer.step_gate import StepGate


def on_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Do some work on a thread; its result is in the list when it has ended."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    return thread, results


def test_a_stop_waits_for_the_end_of_a_change():
    gate = StepGate()
    gate.begin_change()
    thread, results = on_thread(gate.stop)
    thread.join(0.2)
    assert results == []
    gate.end_change()
    thread.join(30)
    assert results == [True]


@pytest.mark.parametrize("way", [StepGate.begin_change, StepGate.close])
def test_after_a_stop_nobody_changes_anything_or_ends(way: Callable[[StepGate], None]):
    gate = StepGate()
    assert gate.stop()
    thread, results = on_thread(lambda: way(gate))
    thread.join(0.2)
    assert thread.is_alive()
    assert results == []


def test_training_that_has_ended_is_not_stopped():
    gate = StepGate()
    gate.begin_change()
    gate.close()
    assert not gate.stop()
    gate.close()


def test_a_stop_that_waits_for_a_change_gives_up_when_that_fails():
    gate = StepGate()
    gate.begin_change()
    thread, results = on_thread(gate.stop)
    gate.close()
    thread.join(30)
    assert results == [False]
