"""An adapter is downloaded whole, or not at all."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.names import Ref
from flashrun.cli.cluster.adapter_download import download_adapter
from tests.cli.shell import Served
from tests.cli.storage import upload_folder


def test_pull_fetches_the_final_adapter_of_the_attempt_that_published_it(
    served: Served, tmp_path: Path
) -> None:
    prefix = names.adapter_prefix(names.run_prefix(served.namespace, "flash-1-c", "uid"))
    place = names.adapter_folder(2)
    files = {f"{place}/adapter_config.json": b"{}", f"{place}/README.md": b"two"}
    upload_folder(served, prefix, "adapter", files, tmp_path / "made")
    served.store.put_bytes(f"{prefix}{names.adapter_folder(1)}/README.md", b"one")

    served.flash("pull", "flash-1-c", "mine")

    found = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    assert found == {"adapter_config.json": b"{}", "README.md": b"two"}


def test_pull_refuses_what_storage_changed_and_leaves_nothing(
    served: Served, tmp_path: Path
) -> None:
    prefix = names.adapter_prefix(names.run_prefix(served.namespace, "flash-1-b", "uid"))
    upload_folder(served, prefix, "adapter", {"adapter_config.json": b"{}"}, tmp_path / "made")
    served.store.put_bytes(f"{prefix}adapter_config.json", b"[]")

    done = served.flash("pull", "flash-1-b", "mine")

    assert done.returncode == 1
    assert "manifest" in done.stderr
    assert not (tmp_path / "mine").exists()


class SlowStore:
    """A store in which a download makes its folder only when it is abandoned already."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.begun, self.goes_on, self.ended = (threading.Event() for _ in range(3))

    def list(self, _: str) -> list[Any]:
        return [SimpleNamespace(key=self.key, modified=None)]

    def download_folder(self, _: str, folder: Path) -> None:
        self.begun.set()
        self.goes_on.wait(10)
        folder.mkdir(parents=True)
        (folder / "part").touch()

    async def with_store(self, call: Callable[[Any], Any]) -> Any:
        def work() -> Any:
            try:
                return call(self)
            finally:
                self.ended.set()

        return await asyncio.to_thread(work)


async def test_a_download_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    store = SlowStore(f"runs/n/flash-1-b/uid/adapter/{names.MANIFEST}")
    session: Any = SimpleNamespace(namespace="n", with_store=store.with_store)
    pulling = asyncio.create_task(
        download_adapter(session, Ref("flash-1-b", None), tmp_path / "mine")
    )
    await asyncio.to_thread(store.begun.wait, 10)
    store.ended.clear()  # it was set by the listing
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    assert os.listdir(tmp_path) == []  # while the thread still downloads
    store.goes_on.set()
    await asyncio.to_thread(store.ended.wait, 10)

    assert os.listdir(tmp_path) == []
