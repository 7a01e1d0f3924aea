"""The store against a real S3 server: what it promises, and every way it can fail."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flashrun import store as store_module
from flashrun.api.records import Claim, FileEntry, Manifest, StorageAccess
from flashrun.store import PART_BYTES, Store, TimeLimits
from flashrun.store_errors import (
    Corrupt,
    KeyExists,
    KeyNotFound,
    StorageForbidden,
    StoreError,
    Unauthorized,
    Unavailable,
    WriteConflict,
    WritesEnded,
)
from tests.servers import ROOT_PASSWORD, Minio

pytestmark = pytest.mark.api
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def claim(pod: str = "pod-a") -> Claim:
    return Claim(attempt=1, pod=pod, pod_uid=f"uid-{pod}", started=NOW)


def checkpoint(files: tuple[FileEntry, ...]) -> Manifest:
    return Manifest(kind="checkpoint", attempt=1, step=10, created=NOW, files=files)


def folder_with(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


# --- one object ---------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", b"a" * 70_000], ids=["empty", "one", "many"])
def test_bytes_come_back_as_they_were_written(store: Store, data: bytes):
    store.put_bytes("a/b", data)
    assert store.get_bytes("a/b") == data


def test_a_read_may_begin_in_the_middle_or_behind_the_end(store: Store):
    store.put_bytes("log", b"0123456789")
    assert [store.get_bytes("log", offset=n) for n in (4, 10, 99)] == [b"456789", b"", b""]


def test_a_record_that_is_put_replaces_the_old_one(store: Store):
    store.put_json("claim.json", claim("pod-a"))
    store.put_json("claim.json", claim("pod-b"))
    assert store.get_json("claim.json", Claim).pod == "pod-b"


def test_a_record_that_is_created_is_never_replaced(store: Store):
    store.create_json("claim.json", claim("pod-a"))
    with pytest.raises(KeyExists, match=r"claim\.json in storage http.* exists already"):
        store.create_json("claim.json", claim("pod-b"))
    assert store.get_json("claim.json", Claim).pod == "pod-a"


def test_the_same_record_cannot_be_created_twice_either(store: Store):
    store.create_json("claim.json", claim())
    with pytest.raises(KeyExists):
        store.create_json("claim.json", claim())


def test_of_many_pods_that_create_one_claim_exactly_one_wins(store: Store):
    def attempt(number: int) -> bool:
        try:
            store.create_json("claim.json", claim(f"pod-{number}"))
        except KeyExists:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(attempt, range(32))) == 1


def test_existence_follows_writes_and_deletes(store: Store):
    store.put_bytes("k", b"1")
    assert store.exists("k")
    store.delete(["k", "never-there"])
    assert not store.exists("k")


def test_a_listing_is_ordered_and_shows_folders_when_shallow(store: Store):
    for key in ("p/b/1", "p/a", "q"):
        store.put_bytes(key, b"12")
    assert [(e.key, e.size) for e in store.list("p/")] == [("p/a", 2), ("p/b/1", 2)]
    assert [e.key for e in store.list("p/", recursive=False)] == ["p/a", "p/b/"]


def test_an_etag_changes_with_the_content(store: Store):
    etags = []
    for data in (b"1", b"2", b"2"):
        store.put_bytes("live/x", data)
        etags += [entry.etag for entry in store.list("live/")]
    assert etags[0] != etags[1] == etags[2] != ""


def test_more_than_a_thousand_keys_are_listed_and_deleted(store: Store):
    keys = [f"many/{n:04}" for n in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put_bytes(key, b""), keys))
    assert [entry.key for entry in store.list("many/")] == keys
    store.delete(keys)
    assert not list(store.list("many/"))


# --- files and folders --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1000, PART_BYTES + 1], ids=["empty", "one part", "two parts"])
def test_a_file_survives_the_round_trip_with_its_digest(store: Store, tmp_path: Path, size: int):
    data = os.urandom(size)
    path = folder_with(tmp_path, {"weights": data}) / "weights"
    sent = store.put_file("weights", path)
    received = store.get_file("weights", tmp_path / "again")
    assert sent.sha256 == received.sha256 == hashlib.sha256(data).hexdigest()
    assert (sent.size, (tmp_path / "again").read_bytes()) == (size, data)


def test_a_folder_survives_the_round_trip(store: Store, tmp_path: Path):
    files = {"adapter/a.bin": b"1" * 10, "adapter/b/c.json": b"{}", "state/rng": os.urandom(50)}
    made = store.upload_folder("s/", folder_with(tmp_path / "from", files), checkpoint)
    got = store.download_folder("s/", tmp_path / "to")
    assert got == made
    assert [file.path for file in got.files] == sorted(files)
    assert {name: (tmp_path / "to" / name).read_bytes() for name in files} == files


def test_the_marker_is_written_last(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = folder_with(tmp_path, {"a": b"1", "b": b"2"})

    def crash(self: Store, key: str, record: Manifest) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "create_json", crash)
    with pytest.raises(KeyboardInterrupt):
        store.upload_folder("s/", folder, checkpoint)
    assert [entry.key for entry in store.list("s/")] == ["s/a", "s/b"]
    with pytest.raises(KeyNotFound):
        store.download_folder("s/", tmp_path / "to")


def test_the_files_of_a_folder_are_uploaded_at_the_same_time(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    names_ = [str(number) for number in range(store_module.PARALLEL_FILES)]
    folder = folder_with(tmp_path, dict.fromkeys(names_, b"x"))
    all_there = threading.Barrier(len(names_), timeout=30)
    put_file = store.put_file

    def meet(key: str, path: Path) -> FileEntry:
        all_there.wait()
        return put_file(key, path)

    monkeypatch.setattr(store, "put_file", meet)
    assert [file.path for file in store.upload_folder("s/", folder, checkpoint).files] == names_


def test_a_committed_folder_is_not_committed_again(store: Store, tmp_path: Path):
    folder = folder_with(tmp_path, {"a": b"1"})
    store.upload_folder("s/", folder, checkpoint)
    with pytest.raises(KeyExists):
        store.upload_folder("s/", folder, checkpoint)


def test_a_flipped_byte_is_found_and_leaves_no_file(store: Store, tmp_path: Path):
    store.upload_folder("s/", folder_with(tmp_path / "from", {"a": b"1234"}), checkpoint)
    store.put_bytes("s/a", b"1235")
    with pytest.raises(Corrupt, match=r"s/a in storage .* is not what its manifest lists"):
        store.download_folder("s/", tmp_path / "to")
    assert not list((tmp_path / "to").rglob("*"))


def test_a_file_that_is_longer_than_its_manifest_says_fills_no_disk(store: Store, tmp_path: Path):
    store.upload_folder("s/", folder_with(tmp_path / "from", {"a": b"1234"}), checkpoint)
    store.put_bytes("s/a", bytes(8 * 1024 * 1024))
    with pytest.raises(Corrupt, match=r"s/a in storage .* is longer than 4 bytes"):
        store.download_folder("s/", tmp_path / "to")
    assert not list((tmp_path / "to").rglob("*"))


@pytest.mark.parametrize(
    "name",
    ["../out", "a/../../out", "/out", "//out", "a//b", "./a", "a/.", "..", "", "a\\..\\b", "a\0b"],
)
def test_a_hostile_manifest_writes_nothing_outside_its_folder(
    store: Store, tmp_path: Path, name: str
):
    entry = FileEntry(path=name, size=1, sha256="0" * 64)
    store.put_json("s/manifest.json", checkpoint((entry,)))
    with pytest.raises(Corrupt, match="outside"):
        store.download_folder("s/", tmp_path / "to")


def test_a_link_in_the_folder_does_not_lead_outside(store: Store, tmp_path: Path):
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "link").symlink_to(tmp_path)
    entry = FileEntry(path="link/out", size=1, sha256="0" * 64)
    store.put_json("s/manifest.json", checkpoint((entry,)))
    with pytest.raises(Corrupt, match="outside"):
        store.download_folder("s/", tmp_path / "to")


# --- failures -----------------------------------------------------------------------------------


def refused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RETRIES", 1)
    limits = TimeLimits(connect=0.5, read=0.5)
    monkeypatch.setattr(store_module, "DEFAULT_LIMITS", limits)


def elsewhere(minio: Minio, **changes: str) -> Store:
    return Store(minio.access("bucket-x").model_copy(update=changes))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("endpoint", "sentence"),
    [
        (f"http://127.0.0.1:{refused_port()}", "the connection was refused"),
        ("http://no-such-host.invalid", "does not resolve"),
    ],
    ids=["nobody listens", "no such host"],
)
def test_a_store_that_cannot_be_reached_is_temporary_and_named(
    minio: Minio, endpoint: str, sentence: str
):
    with pytest.raises(Unavailable, match=sentence) as caught:
        elsewhere(minio, endpoint=endpoint).get_bytes("k")
    assert caught.value.temporary
    assert f"k in storage {endpoint}/bucket-x" in str(caught.value)


def test_a_missing_key_is_not_found_and_a_missing_bucket_is_a_setting(minio: Minio, store: Store):
    with pytest.raises(KeyNotFound, match=r"a/b in storage .* does not exist"):
        store.get_bytes("a/b")
    with pytest.raises(StoreError, match="has no bucket 'absent'") as caught:
        elsewhere(minio, bucket="absent").get_bytes("k")
    assert not isinstance(caught.value, KeyNotFound)
    assert not caught.value.temporary


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"access_key": "who"}, "does not know the access key"),
        ({"secret_key": "wrong-secret-value"}, "the secret key is wrong"),
    ],
)
def test_wrong_keys_are_explained_and_never_shown(
    minio: Minio, changes: dict[str, str], sentence: str
):
    with pytest.raises(StorageForbidden, match=sentence) as caught:
        elsewhere(minio, **changes).get_bytes("k")
    assert "wrong-secret-value" not in str(caught.value)
    assert ROOT_PASSWORD not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["", "localhost:9000", "ftp://x", "http://host/path"])
def test_an_endpoint_that_is_no_address_is_refused(minio: Minio, endpoint: str):
    with pytest.raises(StoreError, match="http://host:port"):
        elsewhere(minio, endpoint=endpoint)


@pytest.mark.parametrize("text", ["{}", "no json", '{"attempt": 0}', "[1]"])
def test_a_record_that_is_none_is_corrupt(store: Store, text: str):
    store.put_bytes("claim.json", text.encode())
    with pytest.raises(Corrupt, match="not a valid Claim record"):
        store.get_json("claim.json", Claim)


def test_a_record_of_absurd_length_is_not_read(store: Store):
    store.put_bytes("claim.json", b" " * (Claim.max_bytes + 1))
    with pytest.raises(Corrupt, match="longer than"):
        store.get_json("claim.json", Claim)


def test_a_file_that_is_not_there_is_no_storage_trouble(store: Store, tmp_path: Path):
    with pytest.raises(StoreError, match="absent cannot be uploaded") as caught:
        store.put_file("k", tmp_path / "absent")
    assert not caught.value.temporary


class Scripted:
    """A server that answers one connection after the other with prepared bytes."""

    def __init__(self, *answers: bytes) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.thread = threading.Thread(target=self._serve, args=(answers,), daemon=True)
        self.thread.start()

    def _serve(self, answers: tuple[bytes, ...]) -> None:
        for answer in answers:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536)
                head, _, body = request.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.splitlines()
                        if line.lower().startswith(b"content-length:")
                    ),
                    0,
                )
                while len(body) < length:
                    body += connection.recv(65536)
                self.requests.append(head + b"\r\n\r\n" + body)
                connection.sendall(answer)

    def close(self) -> None:
        self.socket.close()


def answer(status: str, body: bytes = b"", kind: str = "application/xml") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def fault(status: str, code: str) -> bytes:
    return answer(status, f"<Error><Code>{code}</Code><Message>said</Message></Error>".encode())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("reply", "kind", "temporary"),
    [
        (fault("503 x", "SlowDown"), Unavailable, True),
        (fault("500 x", "InternalError"), Unavailable, True),
        (fault("507 x", "XMinioStorageFull"), Unavailable, True),
        (fault("429 x", "TooManyRequests"), Unavailable, True),
        (fault("409 x", "ConditionalRequestConflict"), WriteConflict, True),
        (fault("403 x", "AccessDenied"), StorageForbidden, False),
        (fault("400 x", "ExpiredToken"), Unauthorized, True),
        (fault("403 x", "RequestTimeTooSkewed"), Unauthorized, True),
        (fault("403 x", "InvalidAccessKeyId"), Unauthorized, False),
        (fault("400 x", "EntityTooLarge"), StoreError, False),
        (fault("404 x", "NoSuchUpload"), KeyNotFound, False),
        (answer("502 x", b"<html>", "text/html"), Unavailable, True),
        (b"", Unavailable, True),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_answer_becomes_one_of_our_errors(
    minio: Minio, reply: bytes, kind: type[StoreError], temporary: bool
):
    server = Scripted(*[reply] * 10)
    with pytest.raises(StoreError) as caught:
        elsewhere(minio, endpoint=server.endpoint).put_bytes("k", b"1")
    server.close()
    assert (type(caught.value), caught.value.temporary) == (kind, temporary)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("impatient")
def test_a_store_that_never_answers_ends_in_time(minio: Minio):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unavailable, match="no answer within"):
            elsewhere(minio, endpoint=endpoint).put_bytes("k", b"1")


READS = [
    lambda store: store.get_bytes("k"),
    lambda store: store.put_bytes("k", b"1"),
    lambda store: list(store.list("k")),
    lambda store: store.delete(["k"]),
    lambda store: store.ensure_bucket(),
    lambda store: store.assume({}, 900),
]


@pytest.mark.parametrize("call", READS)
def test_a_call_ends_with_its_time_limit_however_often_it_is_repeated(minio: Minio, call):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        access = minio.access("bucket-x").replace(endpoint=endpoint)
        limited = Store(access, TimeLimits(connect=0.5, read=0.5, total=0.8))
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no answer within"):
            call(limited)
        assert time.monotonic() - began < 3


def test_a_body_that_trickles_ends_with_the_time_limit_of_its_call(minio: Minio):
    whole = answer("200 OK", b"0" * 50)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        access = minio.access("bucket-x").replace(endpoint=endpoint)

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(whole[:-50])
                for _ in range(50):
                    connection.sendall(b"0")
                    time.sleep(0.1)

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="took longer than"):
            Store(access, TimeLimits(connect=0.5, read=0.5, total=1)).get_bytes("k")
        assert time.monotonic() - began < 3
        thread.join()


@pytest.mark.usefixtures("impatient")
def test_a_body_that_breaks_off_is_read_again(minio: Minio):
    whole = answer("200 OK", b"0123456789")
    server = Scripted(whole[:-4], whole)
    assert elsewhere(minio, endpoint=server.endpoint).get_bytes("k") == b"0123456789"
    server.close()


@pytest.mark.parametrize(
    ("asked", "total", "pauses"),
    [
        ("3600", None, [store_module.LONGEST_PAUSE_SECONDS] * 4),
        ("Wed, 21 Oct 2099 07:28:00 GMT", None, [store_module.LONGEST_PAUSE_SECONDS] * 4),
        ("3600", 4.0, [4] * 4),
    ],
)
@pytest.mark.parametrize("call", ["get_bytes", "put_bytes"])
def test_a_store_cannot_make_its_client_wait_for_long(
    minio: Minio,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    asked: str,
    total: float | None,
    pauses: list[float],
):
    waited: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waited.append)
    monkeypatch.setattr(store_module.time, "monotonic", lambda: 0.0)
    reply = fault("503 x", "SlowDown").replace(b"\r\n", f"\r\nRetry-After: {asked}\r\n".encode(), 1)
    server = Scripted(*[reply] * 20)
    access = minio.access("bucket-x").replace(endpoint=server.endpoint)
    limited = Store(access, TimeLimits(connect=0.5, read=0.5, total=total))
    with pytest.raises(Unavailable):
        limited.put_bytes("k", b"1") if call == "put_bytes" else limited.get_bytes("k")
    server.close()
    assert waited[:4] == pauses
    assert max(waited) <= store_module.LONGEST_PAUSE_SECONDS
    assert len(waited) <= 3 * 4


NO_KEYS = (
    b"<ListBucketResult><Name>bucket-x</Name><IsTruncated>false</IsTruncated></ListBucketResult>"
)
ONE_KEY = NO_KEYS.replace(
    b"</ListB",
    b"<Contents><Key>k</Key><Size>1</Size><ETag>e</ETag>"
    b"<LastModified>2026-01-02T00:00:00.000Z</LastModified></Contents></ListB",
)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("listing", "kind"),
    [
        (answer("200 OK", NO_KEYS), KeyNotFound),
        (answer("200 OK", ONE_KEY), StorageForbidden),
        (fault("403 x", "AccessDenied"), StorageForbidden),
    ],
    ids=["it is missing", "it is there", "nobody may say"],
)
def test_a_store_that_refuses_to_say_whether_a_key_exists_is_asked_for_a_listing(
    minio: Minio, listing: bytes, kind: type[StoreError]
):
    server = Scripted(fault("403 x", "AccessDenied"), listing)
    with pytest.raises(StoreError) as caught:
        elsewhere(minio, endpoint=server.endpoint).get_bytes("k")
    server.close()
    assert type(caught.value) is kind


# --- the conditional PUT ------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_a_create_says_so_on_the_wire(minio: Minio):
    server = Scripted(answer("200 OK"))
    elsewhere(minio, endpoint=server.endpoint).create_json("k", claim())
    server.close()
    assert server.requests[0].startswith(b"PUT /bucket-x/k HTTP/1.1")
    assert b"\r\nif-none-match: *\r\n" in server.requests[0].lower()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("stored", "ours"), [("pod-a", True), ("pod-b", False)])
def test_a_create_whose_first_answer_was_lost_knows_its_own_object(
    minio: Minio, stored: str, ours: bool
):
    content = claim(stored).model_dump_json(exclude_none=True).encode()
    server = Scripted(b"", fault("412 x", "PreconditionFailed"), answer("200 OK", content))
    store = elsewhere(minio, endpoint=server.endpoint)
    if ours:
        store.create_json("k", claim("pod-a"))
    else:
        with pytest.raises(KeyExists):
            store.create_json("k", claim("pod-a"))
    server.close()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("first", [b"", fault("503 x", "SlowDown")], ids=["lost", "busy"])
@pytest.mark.parametrize("operation", ["put", "create", "delete"])
def test_a_write_is_not_sent_again_when_it_is_not_allowed_any_more(
    minio: Minio, first: bytes, operation: str
):
    server = Scripted(first, answer("200 OK"), answer("200 OK"))
    store = elsewhere(minio, endpoint=server.endpoint)
    store.check_writes(lambda: not server.requests)
    writes: dict[str, Callable[[], None]] = {
        "put": lambda: store.put_bytes("k", b"1"),
        "create": lambda: store.create_json("k", claim()),
        "delete": lambda: store.delete(["k"]),
    }
    for _ in range(2):  # the second call may not even begin
        with pytest.raises(WritesEnded, match="is not written"):
            writes[operation]()
    assert len(server.requests) == 1
    with suppress(StoreError):
        store.exists("k")
    server.close()
    assert len(server.requests) == 2  # reads go on


# --- credentials --------------------------------------------------------------------------------


def test_assumed_credentials_reach_what_their_policy_allows_and_nothing_else(
    minio: Minio, store: Store
):
    bucket = store.access.bucket
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject"],
                "Resource": [f"arn:aws:s3:::{bucket}/mine/*"],
            }
        ],
    }
    access = store.assume(policy, 900)
    limited = Store(access)
    limited.put_bytes("mine/k", b"1")
    assert limited.get_bytes("mine/k") == b"1"
    with pytest.raises(StorageForbidden, match="access was refused"):
        limited.put_bytes("others/k", b"1")
    with pytest.raises(StorageForbidden):
        list(limited.list(""))
    assert access.expires is not None
    assert 800 < (access.expires - datetime.now(UTC)).total_seconds() <= 900


def test_a_refused_assume_role_says_why(minio: Minio):
    with pytest.raises(StoreError, match=r"credentials \(AssumeRole\) in storage"):
        elsewhere(minio, access_key="who").assume({}, 900)


def test_renewed_credentials_are_picked_up_under_a_running_store(
    minio: Minio, store: Store, tmp_path: Path
):
    path = tmp_path / "access.json"

    def write(access: StorageAccess) -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text(access.model_dump_json())
        fresh.replace(path)

    write(store.access.model_copy(update={"access_key": "expired"}))
    watching = Store.from_file(path)
    with pytest.raises(StorageForbidden):
        watching.put_bytes("k", b"1")
    write(store.access)
    watching.put_bytes("k", b"1")
    assert store.get_bytes("k") == b"1"


@pytest.mark.parametrize("text", [None, "", "{}", '{"endpoint": 3}'])
def test_an_access_file_that_cannot_be_used_is_explained(tmp_path: Path, text: str | None):
    path = tmp_path / "access.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StoreError, match=r"the storage access file .*access\.json"):
        Store.from_file(path)


def test_a_bucket_is_made_once(minio: Minio):
    store = Store(minio.access("made-twice"))
    store.ensure_bucket()
    store.ensure_bucket()
    store.put_bytes("k", b"1")


def test_every_request_is_observed_with_its_operation_and_its_error(store: Store) -> None:
    seen: list[tuple[str, str]] = []

    def observe(operation: str, seconds: float, error: Exception | None) -> None:
        assert 0 <= seconds < 60
        seen.append((operation, type(error).__name__ if error else ""))

    watched = Store(store.access, observe=observe)
    watched.put_bytes("k", b"1")
    assert watched.get_bytes("k") == b"1"
    assert watched.exists("k")
    assert [entry.key for entry in watched.list("")] == ["k"]
    watched.delete(["k"])
    with pytest.raises(KeyNotFound):
        watched.get_bytes("k")
    done = ["put", "get", "head", "list", "delete"]
    assert seen == [*((operation, "") for operation in done), ("get", "KeyNotFound")]
