"""The operator's own keys: session tokens in the Secret, and web identities that are renewed."""

import asyncio
from base64 import b64encode
from datetime import timedelta
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.platform import StorageSettings
from flashrun.api.records import StorageAccess
from flashrun.controller.storage_access import AccessIssuer
from flashrun.controller.storage_keys import ROLE_VARIABLE, TOKEN_FILE_VARIABLE, StorageKeys
from flashrun.controller.storage_probe import StartProbe
from flashrun.plan.types import AccessGrant
from flashrun.store import Store, TimeLimits
from flashrun.store_errors import StorageForbidden, StoreError, Unsuitable
from tests.controller.clocks import LaterTime
from tests.controller.conftest import Operators
from tests.controller.other_tenant import stretched
from tests.controller.stage import World, wait_for_phase
from tests.servers import ROOT_PASSWORD, Minio, kubectl
from tests.store.identity_provider import AUDIENCE, identity_provider
from tests.store.small_s3 import Fault, SmallS3, small_s3

LIMITS = TimeLimits(total=5.0)
RUN = "flash-1-0a1b2c3d"
ROLE = "arn:aws:iam::1:role/operator"


def settings(s3: SmallS3, **more: bool) -> StorageSettings:
    return StorageSettings(endpoint=s3.url, bucket="bucket", **more)


def open_store(s3: SmallS3, folder: Path, **more: bool) -> Store:
    return StorageKeys(settings(s3, **more), folder, LIMITS).open_store()


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the token of the operator's service account."""
    file = tmp_path / "token"
    file.write_text("token-1\n")
    monkeypatch.setenv(TOKEN_FILE_VARIABLE, str(file))
    monkeypatch.setenv(ROLE_VARIABLE, ROLE)
    return file


def test_a_web_identity_gets_keys_and_needs_no_secret(token: Path, tmp_path: Path) -> None:
    with small_s3() as s3:
        store = open_store(s3, tmp_path / "absent")
        store.put_bytes("key", b"1")
        assert s3.objects == {"key": b"1"}
    (form,) = s3.forms
    assert form["Action"] == "AssumeRoleWithWebIdentity"
    assert (form["WebIdentityToken"], form["RoleArn"]) == ("token-1", ROLE)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> LaterTime:
    """The time of the store's client and of the server, where keys are valid for an hour."""
    time = LaterTime()
    monkeypatch.setattr("flashrun.store.datetime", time)
    monkeypatch.setattr("tests.store.small_s3.datetime", time)
    return time


def test_keys_of_a_web_identity_are_renewed_with_the_token_of_that_time(
    token: Path, tmp_path: Path, later: LaterTime
) -> None:
    """Keys are renewed four times, and no request is made with keys that have ended."""
    with small_s3() as s3:
        store = open_store(s3, tmp_path)
        for number in range(2, 6):
            token.write_text(f"token-{number}")
            later.by += timedelta(minutes=29)
            store.put_bytes("key", b"1")
            assert s3.forms[-1]["WebIdentityToken"] == f"token-{number - 1}"
            later.by += timedelta(minutes=2)
            store.put_bytes("key", b"1")
            assert s3.forms[-1]["WebIdentityToken"] == f"token-{number}"
        assert (s3.expired, len(s3.forms)) == (0, 5)


def test_while_sts_is_away_keys_are_used_as_long_as_they_are_valid(
    token: Path, tmp_path: Path, later: LaterTime
) -> None:
    with small_s3() as s3:
        store = open_store(s3, tmp_path)
        s3.faults = frozenset({Fault.STS_403})
        for minutes in (1, 31, 59):
            later.by = timedelta(minutes=minutes)
            store.put_bytes(f"minute {minutes}", b"1")
        assert sorted(s3.objects) == ["minute 1", "minute 31", "minute 59"]
        later.by = timedelta(minutes=61)
        with pytest.raises(StorageForbidden, match="AssumeRoleWithWebIdentity"):
            store.put_bytes("minute 61", b"1")
        assert (s3.expired, len(s3.objects)) == (0, 3)
        s3.faults = frozenset()
        store.put_bytes("minute 61", b"1")
        assert len(s3.objects) == 4


def test_a_refused_token_is_explained_and_not_repeated(token: Path, tmp_path: Path) -> None:
    with small_s3(Fault.STS_403) as s3, pytest.raises(StoreError) as refused:
        open_store(s3, tmp_path)
    assert "credentials (AssumeRoleWithWebIdentity)" in str(refused.value)
    assert "token-1" not in str(refused.value)


def write_keys(folder: Path, **keys: str) -> None:
    for name, value in keys.items():
        (folder / name).write_text(value)


def test_a_secret_may_hold_a_session_token_that_somebody_renews(tmp_path: Path) -> None:
    with small_s3() as s3:
        write_keys(tmp_path, accessKey="a", secretKey="s", sessionToken="first\n")
        store = open_store(s3, tmp_path)
        assert store.access.session_token == "first"
        write_keys(tmp_path, sessionToken="the second")
        assert store.access.session_token == "the second"
        (tmp_path / "sessionToken").unlink()
        assert store.access.session_token == ""


SHARED = {"sharedAccessKey": "ours", "sharedSecretKey": "known"}


def test_without_sts_trainers_and_people_never_get_the_operators_own_keys(tmp_path: Path) -> None:
    with small_s3() as s3:
        place = settings(s3, sts=False)
        keys = StorageKeys(place, tmp_path, LIMITS)
        write_keys(tmp_path, accessKey="own", secretKey="hush", sharedAccessKey="ours")
        with pytest.raises(StoreError, match="sharedSecretKey cannot be read") as error:
            keys.open_store()
        assert "with storage.sts=false every trainer and every user gets these keys" in str(
            error.value
        )
        write_keys(tmp_path, **SHARED)
        store = keys.open_store()
        issued = AccessIssuer(store, place, keys.shared_access).issue(
            AccessGrant(metadata={}, policy={}, seconds=900)
        )
        assert (store.access.access_key, issued.access_key, issued.secret_key) == (
            "own", "ours", "known",
        )  # fmt: skip
        write_keys(tmp_path, sharedSecretKey="rotated")
        assert keys.shared_access().secret_key == "rotated"


def test_keys_that_end_are_not_used_without_sts(tmp_path: Path) -> None:
    with small_s3() as s3:
        write_keys(tmp_path, accessKey="a", secretKey="s", sessionToken="t", **SHARED)
        with pytest.raises(StoreError, match=r"set storage\.sts=true"):
            open_store(s3, tmp_path, sts=False)


def test_without_keys_the_missing_file_is_named(tmp_path: Path) -> None:
    with small_s3() as s3, pytest.raises(StoreError, match="accessKey cannot be read"):
        open_store(s3, tmp_path)


@pytest.mark.api
async def test_no_secret_of_a_served_namespace_has_the_operators_own_keys_without_sts(
    operators: Operators, world: World
) -> None:
    storage = world.platform.storage.replace(sts=False)
    world.platform = world.platform.replace(storage=storage)
    (operators.folder / "keys").mkdir()
    write_keys(operators.folder / "keys", **SHARED)
    process = operators.start()
    operators.wait(lambda: operators.leads(process))
    run = await world.submit(RUN)
    await wait_for_phase(world, RUN, "Starting", stretched(20))
    published = (world.namespace, names.STORAGE_USER_SECRET)
    while await world.cluster.metadata("Secret", *published) is None:
        assert process.poll() is None
        await asyncio.sleep(0.1)
    for name in (names.storage_secret_name(RUN, run.uid), names.STORAGE_USER_SECRET):
        text = await world.cluster.secret_value(world.namespace, name, names.ACCESS_KEY)
        access = StorageAccess.model_validate_json(text)
        assert (access.access_key, access.secret_key) == tuple(SHARED.values())
    shown = kubectl(world.kubeconfig, "get", "secrets,configmaps", "-A", "-o", "json")
    assert ROOT_PASSWORD not in shown
    assert b64encode(ROOT_PASSWORD.encode()).decode() not in shown


@pytest.mark.api
def test_minio_answers_keys_for_a_web_identity_and_lets_them_assume_no_role(
    token: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real server that trusts the provider. AWS lets such keys assume another role."""
    monkeypatch.delenv(ROLE_VARIABLE)
    with identity_provider(tmp_path) as provider:
        trust = {
            "MINIO_IDENTITY_OPENID_CONFIG_URL": provider.configuration,
            "MINIO_IDENTITY_OPENID_CLIENT_ID": AUDIENCE,
        }
        server = Minio(tmp_path / "minio", trust)
        server.start()
        try:
            server.store("bucket")
            token.write_text(provider.token(policy="readwrite"))
            place = StorageSettings(endpoint=server.endpoint, bucket="bucket")
            store = StorageKeys(place, tmp_path / "absent", LIMITS).open_store()
            assert store.access.expires is not None
            store.put_bytes("key", b"1")
            assert store.get_bytes("key") == b"1"
            with pytest.raises(Unsuitable, match="use keys that do not end"):
                StartProbe(store, place, lambda: "uid")()
            token.write_text(provider.token(policy="readwrite", exp=1))
            with pytest.raises(StoreError, match="AssumeRoleWithWebIdentity"):
                StorageKeys(place, tmp_path, LIMITS).open_store()
        finally:
            server.stop()
