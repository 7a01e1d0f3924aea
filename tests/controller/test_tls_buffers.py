"""What TLS connections keep of large objects, with a real API server."""

import asyncio
import subprocess
import sys
from asyncio.sslproto import SSLProtocol
from pathlib import Path

import pytest

from flashrun.cluster import Cluster
from flashrun.controller import json_logs, tls_buffers
from flashrun.controller.__main__ import main
from flashrun.controller.tls_buffers import READ_BYTES
from tests.controller.conftest import ALLOCATOR
from tests.controller.test_reconcile import secret

MEASURED = """
import asyncio, sys
from pathlib import Path
from flashrun.cluster import Cluster
from flashrun.controller.bounded_answers import BoundedAnswers
from flashrun.controller.free_memory import find_trim
from flashrun.controller.tls_buffers import limit_tls_buffers

trim = find_trim()

def anonymous():
    trim()
    _, resident, shared, *_ = open("/proc/self/statm").read().split()
    return (int(resident) - int(shared)) * 4096 / 2**20

async def measure(kubeconfig, namespace):
    async with await Cluster.login(Path(kubeconfig)) as login:
        cluster = login.with_answers(BoundedAnswers())
        await asyncio.gather(*(cluster.secret_keys(namespace, "none") for _ in range(16)))
        before = anonymous()
        for _ in range(32):
            assert await cluster.secret_keys(namespace, "large")
        read = anonymous()
        for number in range(16):
            metadata = {"name": f"copy-{number}", "namespace": namespace}
            await cluster.copy_keys(metadata, {"KEY": "large"})
        print(read - before, anonymous() - read)

limit_tls_buffers()
asyncio.run(measure(*sys.argv[1:]))
"""


async def test_connections_keep_little_of_large_secrets(
    cluster: Cluster, namespace: str, installed: Path
) -> None:
    """Without limits each read leaves 0.2 MiB in another connection, and each copy 1.5 MiB."""
    await cluster.create(secret(namespace, "large", KEY="x" * 1_000_000))
    source = str(Path(tls_buffers.__file__).parents[2])
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", MEASURED, installed, namespace],
        env={**ALLOCATOR, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    of_reads, of_copies = map(float, done.stdout.split())
    assert of_reads < 1
    assert of_copies < 2


def test_the_operator_limits_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(SSLProtocol, "max_size", 0)
    monkeypatch.setattr(json_logs, "set_up", lambda level: None)
    monkeypatch.setattr(sys, "argv", ["controller", "--settings", str(tmp_path / "none.yaml")])
    assert main() == 1
    assert SSLProtocol.max_size == READ_BYTES
