"""What the kernel says about the main memory of a container."""

from pathlib import Path

from flashrun_trainer.pod import main_memory


def test_the_kernels_counts_are_read(tmp_path: Path) -> None:
    """Caches of files are not in use: the kernel frees them."""
    (tmp_path / "memory.stat").write_text("anon 1000\nfile 90000\nkernel 5\nshmem 24\n")
    (tmp_path / "memory.events").write_text("max 41\noom 2\noom_kill 1\noom_group_kill 0\n")
    (tmp_path / "memory.max").write_text("2147483648\n")

    assert main_memory.used_bytes(tmp_path) == 1024
    assert main_memory.killed_processes(tmp_path) == 1
    assert main_memory.limit_bytes(tmp_path) == 2 << 30


def test_where_nothing_can_be_read_nothing_is_known(tmp_path: Path) -> None:
    assert main_memory.used_bytes(tmp_path) is None
    assert main_memory.killed_processes(tmp_path) == 0
    assert main_memory.limit_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert main_memory.limit_bytes(tmp_path) is None
