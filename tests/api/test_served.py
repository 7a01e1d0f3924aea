"""The list of a server of adapters."""

from datetime import UTC, datetime

import pytest

from flashrun.api.records import FileEntry, Manifest
from flashrun.api.served import ServedAdapter, ServedList, adapter_files


def manifest(*paths: str) -> Manifest:
    files = tuple(FileEntry(path=path, size=1, sha256="0" * 64) for path in paths)
    return Manifest(kind="adapter", created=datetime.now(UTC), files=files)


@pytest.mark.parametrize(
    ("paths", "folder", "own"),
    [
        (("adapter_config.json", "a"), ".", ["adapter_config.json", "a"]),
        (
            ("adapter/adapter_config.json", "adapter/a", "state/optimizer.pt", "adapters/b"),
            "adapter",
            ["adapter/adapter_config.json", "adapter/a"],
        ),
    ],
)
def test_the_files_of_an_adapter_are_those_beside_its_config(
    paths: tuple[str, ...], folder: str, own: list[str]
) -> None:
    found = adapter_files(manifest(*paths))

    assert found is not None
    assert str(found.folder) == folder
    assert [file.path for file in found.files] == own


def test_without_a_config_there_is_no_adapter() -> None:
    assert adapter_files(manifest("state/optimizer.pt")) is None


def test_a_server_knows_its_adapters_and_their_largest_rank() -> None:
    served = ServedList(
        adapters=tuple(
            ServedAdapter(id=f"run/step-{rank}", prefix="p/", manifest="0" * 64, rank=rank)
            for rank in (8, 64, 16)
        )
    )

    assert served.rank == 64
    assert served.get("run/step-16") == served.adapters[2]
    assert served.get("run") is None
