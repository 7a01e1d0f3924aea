"""Encryption by the store: every way of writing asks for it, and the probe says who ignores it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.base import Record
from flashrun.api.platform import StorageSettings
from flashrun.plan.storage_policies import run_policy, with_key
from flashrun.store import Store
from flashrun.store_errors import Unsuitable
from flashrun.store_probe import StoreProbe
from localcluster.pki import Authority
from tests.servers import Minio
from tests.store.small_s3 import small_s3

PREFIX = names.operator_probe_prefix("installation")
KEY = "arn:aws:kms:eu-central-1:1:key/k"


class Mark(Record):
    """A small record."""

    number: int


@pytest.fixture(scope="module")
def encrypting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    """A server with a key of its own, ``tests``; it speaks TLS, as keys that are named need it."""
    folder = tmp_path_factory.mktemp("minio")
    authority = Authority(folder / "authority")
    authority.create()
    key = {"MINIO_KMS_SECRET_KEY": "tests:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}
    server = Minio(folder, key, authority.leaf("minio", "/CN=minio", ["IP:127.0.0.1"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(authority.certificate))
        server.start()
        yield server
        server.stop()


def asking(store: Store, **sse: Any) -> Store:
    return Store(store.access.replace(**sse))


WAYS = {
    "s3": ({"sse": "s3"}, "AES256"),
    "kms": ({"sse": "kms", "sse_kms_key": "tests"}, "aws:kms"),
}


@pytest.mark.api
@pytest.mark.parametrize("way", WAYS)
def test_everything_that_is_written_is_encrypted_also_with_the_keys_of_a_run(
    encrypting: Minio, tmp_path: Path, way: str
):
    settings, named = WAYS[way]
    plain = encrypting.store(f"encrypted-{way}")
    store = asking(plain, **settings)
    StoreProbe(store, PREFIX).require(lambda policy: store.assume(policy, 900))
    policy = run_policy(store.access.bucket_arn, "runs/a/", "live/a.json", ())
    platform = {
        "endpoint": encrypting.endpoint,
        "sse": way,
        "sseKmsKey": settings.get("sse_kms_key", ""),
    }
    policy = with_key(policy, StorageSettings.validate_manifest(platform).policy_key)
    trainer = Store(store.assume(policy, 900))
    assert trainer.access.sse == way
    trainer.put_bytes("runs/a/bytes", b"1")
    trainer.put_bytes("runs/a/parts", b"1" * (6 * 1024 * 1024), part_bytes=5 * 1024 * 1024)
    trainer.create_json("runs/a/record", Mark(number=1))
    (tmp_path / "file").write_text("content")
    trainer.put_file("runs/a/file", tmp_path / "file")
    for name in ("bytes", "parts", "record", "file"):
        assert trainer.encryption(f"runs/a/{name}") == named, name
    plain.put_bytes("runs/a/plain", b"1")
    assert plain.encryption("runs/a/plain") == ""


@pytest.mark.api
def test_a_server_without_a_key_is_named_before_the_first_run(store: Store):
    with pytest.raises(Unsuitable, match=r"storage.sse=s3.*KMS is not configured.*leave storage"):
        StoreProbe(asking(store, sse="s3"), PREFIX).require()


def test_a_server_that_ignores_the_question_is_named_before_the_first_run() -> None:
    with (
        small_s3() as s3,
        pytest.raises(Unsuitable, match=r"ignores storage.sse=s3.*with no encryption"),
    ):
        StoreProbe(asking(Store(s3.access), sse="s3"), PREFIX).require()


def test_a_session_may_use_the_key_and_every_write_names_it() -> None:
    policy = with_key(run_policy("arn:aws:s3:::b", "runs/a/", "live/a.json", ()), KEY)
    statement = policy["Statement"][-1]
    assert statement["Action"] == ["kms:GenerateDataKey", "kms:Decrypt"]
    assert statement["Resource"] == [KEY]
    with small_s3() as s3:
        access = s3.access.replace(sse="kms", sse_kms_key=KEY)
        encryption = Store(access)._sse
    assert encryption is not None
    named = {name.lower(): value for name, value in encryption.headers().items()}
    assert named["x-amz-server-side-encryption"] == "aws:kms"
    assert named["x-amz-server-side-encryption-aws-kms-key-id"] == KEY


@pytest.mark.parametrize(
    ("endpoint", "named"),
    [
        ("https://s3.eu-central-1.amazonaws.com", KEY),
        ("https://minio.example", ""),  # refuses policies with rights to keys
    ],
)
def test_policies_name_the_key_on_aws_only(endpoint: str, named: str) -> None:
    platform = {"endpoint": endpoint, "sse": "kms", "sseKmsKey": KEY}
    assert StorageSettings.validate_manifest(platform).policy_key == named


REFUSED = [
    ({"sse": "kms"}, "belong together"),
    ({"sseKmsKey": KEY}, "belong together"),
    ({"sse": "s3", "sseKmsKey": KEY}, "belong together"),
    ({"sse": "kms", "sseKmsKey": KEY, "endpoint": "http://s3.example"}, "https"),
    ({"sse": "aes"}, "sse"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_settings_that_cannot_encrypt_are_refused(changes, words) -> None:
    with pytest.raises(ValueError, match=words):
        StorageSettings.validate_manifest({"endpoint": "https://s3.example", **changes})
