"""Credentials of a session on a real MinIO: what ends them before their time, and what does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from minio import MinioAdmin
from minio.credentials import StaticProvider

from flashrun.store import Store
from flashrun.store_errors import StoreError
from tests.servers import ROOT_PASSWORD, ROOT_USER, Minio

pytestmark = pytest.mark.api
PARENT = "operator"


def policy(*actions: str) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": ["arn:aws:s3:::*"]}
    return {"Version": "2012-10-17", "Statement": [statement]}


def administrator(minio: Minio) -> MinioAdmin:
    keys = StaticProvider(ROOT_USER, ROOT_PASSWORD)
    endpoint = minio.endpoint.removeprefix("http://")
    return MinioAdmin(endpoint=endpoint, credentials=keys, secure=False)


@pytest.fixture
def own_minio(tmp_path: Path) -> Iterator[Minio]:
    """A server whose users and passwords a test may change."""
    minio = Minio(tmp_path / "minio")
    minio.folder.mkdir()
    minio.start()
    yield minio
    minio.stop()


def works(session: Store) -> bool:
    try:
        session.put_bytes("runs/a", b"1")
    except StoreError:
        return False
    return session.get_bytes("runs/a") == b"1"


def test_what_becomes_of_the_keys_that_issued_a_session(own_minio: Minio) -> None:
    admin = administrator(own_minio)
    own_minio.store("bucket")
    admin.user_add(PARENT, "first-secret")
    admin.policy_add("all", policy=policy("s3:*"))
    admin.policy_set("all", user=PARENT)
    keys = own_minio.access("bucket").replace(access_key=PARENT, secret_key="first-secret")
    session = Store(Store(keys).assume(policy("s3:GetObject", "s3:PutObject"), 900))
    assert works(session)

    admin.user_disable(PARENT)
    assert not works(session)
    admin.user_enable(PARENT)
    assert works(session)

    admin.user_add(PARENT, "second-secret")
    assert works(session)
    assert not works(Store(keys))

    admin.policy_add("all", policy=policy("s3:GetObject"))
    assert not works(session)


def test_another_password_of_root_ends_all_sessions(own_minio: Minio) -> None:
    session = Store(own_minio.store("bucket").assume(policy("s3:*"), 900))
    assert works(session)
    own_minio.stop()
    changed = Minio(own_minio.folder, {"MINIO_ROOT_PASSWORD": "another-password"})
    changed.start()

    assert not works(session)
