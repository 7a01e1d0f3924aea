"""The settings of the operator, and storage keys that are rotated."""

from pathlib import Path

import pytest
import yaml

from flashrun.api.pod import POD_VARIABLE
from flashrun.controller.settings import SettingsError, load_settings
from flashrun.store_errors import StoreError

PLATFORM = {
    "storage": {"endpoint": "https://s3.example"},
    "trainer": {"image": "registry.example/trainer@sha256:1"},
    "pools": [{"name": "small", "vram": 24}],
}


def test_keys_that_are_rotated_in_their_secret_are_followed(tmp_path: Path):
    """As the kubelet does it: a new folder, and one link that changes."""

    def mount(version: int, access: str, secret: str) -> None:
        data = tmp_path / f"..{version}"
        data.mkdir()
        (data / "accessKey").write_text(access)
        (data / "secretKey").write_text(f"{secret}\n")
        link = tmp_path / "..new"
        link.symlink_to(data.name)
        link.replace(tmp_path / "..data")

    settings = tmp_path / "platform.yaml"
    settings.write_text(yaml.safe_dump(PLATFORM))
    for name in ("accessKey", "secretKey"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    mount(1, "first", "one")
    store = load_settings(settings, tmp_path).open_store()
    assert (store.access.access_key, store.access.secret_key) == ("first", "one")
    mount(2, "first", "two")
    assert (store.access.access_key, store.access.secret_key) == ("first", "two")
    mount(3, "second", "three")
    assert (store.access.access_key, store.access.secret_key) == ("second", "three")


def test_keys_that_are_missing_are_a_sentence_and_waited_for(tmp_path: Path):
    settings = tmp_path / "platform.yaml"
    settings.write_text(yaml.safe_dump(PLATFORM))
    with pytest.raises(StoreError, match="accessKey cannot be read"):
        load_settings(settings, tmp_path / "absent").open_store()


def test_a_namespace_with_more_orgs_than_a_policy_can_hold_is_named_at_the_start(tmp_path: Path):
    settings = tmp_path / "platform.yaml"
    owners = {f"org-{number}": ["default"] for number in range(40)}
    settings.write_text(yaml.safe_dump({**PLATFORM, "environments": {"owners": owners}}))
    with pytest.raises(SettingsError, match="namespace default: the storage policy has"):
        load_settings(settings, tmp_path)


def test_a_process_that_is_started_again_in_its_pod_has_the_same_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = tmp_path / "platform.yaml"
    settings.write_text(yaml.safe_dump(PLATFORM))
    monkeypatch.delenv(POD_VARIABLE, raising=False)
    outside = {load_settings(settings, tmp_path).identity for _ in range(2)}
    assert len(outside) == 2
    monkeypatch.setenv(POD_VARIABLE, "flashrun-operator-1")
    inside = {load_settings(settings, tmp_path).identity for _ in range(2)}
    assert inside == {"flashrun-operator-1"}
