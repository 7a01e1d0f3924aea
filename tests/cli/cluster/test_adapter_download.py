"""An adapter is downloaded whole, or not at all."""

from pathlib import Path

from flashrun.api import names
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
