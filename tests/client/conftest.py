"""Fixtures of the Python client: a served namespace, and a client that reads its kubeconfig."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flashrun import Client
from flashrun.cli.config import platform_cache
from tests.cli.conftest import served
from tests.cli.shell import Served

__all__ = ["served"]


@pytest.fixture(autouse=True)
def own_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user's folder of their own: clients cache what they know of the platform.

    The variables of the cache stay, as the servers of the tests are in it.
    """
    monkeypatch.setattr(platform_cache, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    """A client in the served namespace, as a notebook opens it."""
    with Client(kubeconfig=served.flash.kubeconfig) as found:
        yield found
