"""What a listing shows of folders with a manifest: little, and whatever their keys are."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as some

from flashrun.plan.listed_folders import (
    ListedFolder,
    digest_files,
    listed_adapter,
    listed_checkpoints,
)


class Key(NamedTuple):
    key: str
    size: int = 7
    etag: str = "e"


def checkpoints(*listing: Key) -> list[ListedFolder]:
    return list(listed_checkpoints("p/", listing))


LISTING = (
    Key("p/attempt-1/claim.json"),
    Key("p/attempt-1/step-10/adapter/a"),
    Key("p/attempt-1/step-10/adapter/b", 8),
    Key("p/attempt-1/step-10/manifest.json", 99),
    Key("p/attempt-1/step-2/adapter/a"),
    Key("p/attempt-2/step-2/manifest.json", 50),
)


def test_each_folder_with_a_manifest_is_listed_with_its_size() -> None:
    folders = checkpoints(*LISTING)
    assert [folder[:3] for folder in folders] == [(10, 1, 99), (2, 2, 50)]
    assert folders[0].files == digest_files([("adapter/b", 8), ("adapter/a", 7)])
    assert folders[1].files == digest_files([])
    assert max(folders).step == 10


def test_a_mark_changes_with_the_manifest_and_with_every_file() -> None:
    [first, _] = checkpoints(*LISTING)
    changes = (
        (1, Key("p/attempt-1/step-10/adapter/c")),
        (1, Key("p/attempt-1/step-10/adapter/a", 6)),
        (3, Key("p/attempt-1/step-10/manifest.json", 98)),
        (3, Key("p/attempt-1/step-10/manifest.json", 99, "f")),
    )
    marks = {first.mark}
    for index, key in changes:
        marks.add(checkpoints(*LISTING[:index], key, *LISTING[index + 1 :])[0].mark)
    marks.add(checkpoints(*LISTING[:2], *LISTING[3:])[0].mark)
    assert len(marks) == len(changes) + 2


def test_the_state_of_a_trainer_does_not_change_a_mark() -> None:
    state = (Key("p/attempt-1/step-10/state.json"), Key("p/attempt-1/step-10/state/optimizer.pt"))
    assert checkpoints(*LISTING[:4], *state, *LISTING[4:]) == checkpoints(*LISTING)


def test_the_final_adapter_is_one_folder() -> None:
    listing = (Key("p/adapter/attempt-1/a"), Key("p/adapter/manifest.json", 99))
    folder = listed_adapter("p/", listing)
    assert folder is not None
    assert folder[:4] == (0, 0, 99, digest_files([("attempt-1/a", 7)]))
    assert listed_adapter("p/", listing[:1]) is None


@given(some.lists(some.tuples(some.text(), some.integers(0, 2**63))))
def test_any_files_have_a_digest_of_one_size_in_any_order(files: list[tuple[str, int]]) -> None:
    assert digest_files(files) == digest_files(reversed(files)) < 2**128


@given(some.lists(some.text(max_size=9)))
def test_any_keys_are_listed(names: list[str]) -> None:
    keys = (Key(f"p/attempt-1/step-1/{name}") for name in sorted(names))
    folders = checkpoints(*keys)
    assert len(folders) == ("manifest.json" in names)
