"""The processes that train together: their ranks, and collectives in a run of one process.

Collectives between several processes are tested where PyTorch is, by runs of several processes.
"""

import sys

import pytest

from flashrun_trainer.pod.distributed import ProcessGroup, threads_per_process


def test_the_ranks_are_read_from_the_variables_of_pytorch() -> None:
    group = ProcessGroup.from_environment({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"})
    assert (group.rank, group.local_rank, group.world_size) == (5, 1, 8)
    assert not group.is_main_process
    assert ProcessGroup(rank=0, local_rank=0, world_size=8).is_main_process


def test_a_variable_that_is_missing_is_named() -> None:
    with pytest.raises(KeyError, match="LOCAL_RANK"):
        ProcessGroup.from_environment({"RANK": "0", "WORLD_SIZE": "1"})


def test_one_process_needs_no_collective_and_no_pytorch() -> None:
    loaded = set(sys.modules)
    alone = ProcessGroup()
    alone.init_process_group()
    assert alone.any_rank(True, False) == (True, False)
    assert alone.all_gather("a") == ["a"]
    assert alone.broadcast("a") == "a"
    alone.barrier()
    assert "torch" not in set(sys.modules) - loaded


class Gathered(ProcessGroup):
    """A group whose barrier is recorded, in place of a real collective."""

    barriers = 0

    def barrier(self) -> None:
        type(self).barriers += 1


@pytest.mark.parametrize(("local_rank", "result"), [(0, "done"), (1, None)])
def test_work_is_done_once_per_pod_while_the_others_wait(
    local_rank: int, result: str | None
) -> None:
    before = Gathered.barriers
    calls: list[str] = []

    def work() -> str:
        calls.append("work")
        return "done"

    group = Gathered(rank=2 + local_rank, local_rank=local_rank, world_size=4)
    assert group.run_once_per_pod(work) == result
    assert calls == (["work"] if local_rank == 0 else [])
    assert Gathered.barriers == before + 1


def test_the_cores_of_a_pod_are_divided_and_none_is_left_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert [threads_per_process(processes) for processes in (1, 3, 8, 16)] == ["8", "2", "1", "1"]
