"""The only module that talks to S3.

It translates and never decides: keys and records go in, bytes come out, and each kind of failure
becomes one error of ``store_errors`` with one sentence that names the endpoint and the key. The
commit protocol needs one conditional PUT, ``Store.create_json``; minio's client has no public call
for it, and its listing takes four times the memory of ``store_listing``.

All calls are synchronous and have time limits (``TimeLimits``); callers in asyncio use threads.
Threads may share a ``Store``.
"""

import contextlib
import hashlib
import io
import os
import stat
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, NamedTuple, Self, TypeVar
from xml.etree import ElementTree

import certifi
import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.sse import Sse, SseKMS, SseS3
from pydantic import BaseModel, ValidationError
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from flashrun.api import names
from flashrun.api.base import error_sentences
from flashrun.api.record_reader import RecordModel, RecordRefused, read_record
from flashrun.api.records import FileEntry, Manifest, StorageAccess
from flashrun.daemon_pool import in_daemon_threads
from flashrun.proxies import storage_proxy
from flashrun.store_errors import (
    Corrupt,
    KeyExists,
    KeyNotFound,
    StorageForbidden,
    StoreError,
    Unavailable,
    WritesEnded,
)
from flashrun.store_listing import Entry, ListingPage, parse_page, request_parameters
from flashrun.store_refusals import (
    TRANSIENT_STATUS,
    KeyExistsAfterRetry,
    ReadBeyondEnd,
    network_cause,
    object_name,
    refusal,
)
from flashrun.store_sts import assume_role_form, request_credentials, web_identity_form

RETRIES: Final = 4
LONGEST_PAUSE_SECONDS: Final = 10
"""Most seconds between two tries, whatever ``Retry-After`` a store answers."""
RENEWAL_PAUSE: Final = timedelta(seconds=15)
"""How long credentials that are still valid are used after they could not be renewed."""
SHORTEST_RENEWAL: Final = timedelta(seconds=0.2)
PART_BYTES: Final = 16 * 1024 * 1024
PARALLEL_FILES: Final = 4

_CHUNK: Final = 1024 * 1024
_PIECE: Final = 64 * 1024
"""Bytes that are read at once of what is kept in memory."""
_WRITES: Final = frozenset({"put", "create", "delete"})
_SHA256: Final = "sha256"
"""Metadata of an object with the SHA-256 of its content."""
_BROKEN_ANSWERS: Final = (
    MinioException,
    ElementTree.ParseError,
    HTTPException,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
)
"""What the client raises when an answer is not what S3 documents."""


class TimeLimits(NamedTuple):
    """How long calls of a store may take."""

    connect: float = 5.0
    """Seconds until there is a connection."""
    read: float = 60.0
    """Longest silence on a connection; a slow but moving transfer is not interrupted."""
    total: float | None = None
    """Seconds after which a call is neither repeated nor reads on; None: no limit."""


DEFAULT_LIMITS: Final = TimeLimits()

ObserveRequest = Callable[[str, float, Exception | None], None]
"""Gets the operation (``get``, ``list``, …) of a request, its seconds, and its error if any."""


class Store:
    """One bucket of one endpoint, with one set of credentials."""

    def __init__(
        self,
        access: StorageAccess,
        limits: TimeLimits | None = None,
        observe: ObserveRequest | None = None,
    ) -> None:
        """``observe`` gets every request, when it has ended."""
        self._limits = limits or DEFAULT_LIMITS
        self._observe = observe
        self._may_write: Callable[[], bool] | None = None
        self._lock = threading.Lock()
        self._read: Callable[[], StorageAccess] | None = None
        self._watched: tuple[Path, ...] = ()
        self._seen: tuple[object, ...] = ()
        self._use(access)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Return a store that reads its credentials again when the file ``path`` changes.

        Raises:
            StoreError: the file is missing or is not a valid storage access file.
        """
        return cls.following(lambda: _read_access(path), path)

    @classmethod
    def following(
        cls,
        read: Callable[[], StorageAccess],
        *watched: Path,
        limits: TimeLimits | None = None,
        observe: ObserveRequest | None = None,
    ) -> Self:
        """Return a store that calls ``read`` again when one of the ``watched`` files has changed.

        It also does when half of the time that the credentials have left is over. So a running
        process follows renewed credentials.
        """
        seen = tuple(map(_version, watched))
        store = cls(read(), limits, observe)
        store._read, store._watched, store._seen = read, watched, seen
        return store

    @property
    def access(self) -> StorageAccess:
        """Endpoint, bucket and credentials as of now."""
        self._refresh()
        return self._access

    @property
    def location(self) -> str:
        """Endpoint and bucket, as errors name them."""
        return f"{self._access.endpoint}/{self._access.bucket}"

    def check_writes(self, may_write: Callable[[], bool]) -> None:
        """From now on, raise ``WritesEnded`` in place of any try of a write that is not allowed.

        ``may_write`` is called before each try: a call that hangs and is sent again would otherwise
        write long after the caller lost the right to.
        """
        self._may_write = may_write

    # --- one object ---------------------------------------------------------------------------

    def get_bytes(self, key: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        """Return the content of ``key`` from byte ``offset`` on; empty at or behind its end.

        Raises:
            Corrupt: the object is longer than ``limit`` bytes.
        """

        def read() -> bytes:
            with self._reading(key), self._body(key, offset) as body:
                return b"".join(self._chunks(key, body, limit))

        with self._time_limit(), contextlib.suppress(ReadBeyondEnd):
            return _repeated(read)
        return b""

    def get_json(self, key: str, model: type[RecordModel]) -> RecordModel:
        """Return the record at ``key``; raises ``Corrupt`` when it is not a valid ``model``.

        At most ``model.max_bytes`` bytes are kept of what is read.
        """
        try:
            content = self.get_bytes(key, limit=model.max_bytes)
            return read_record(content, model, datetime.now(UTC))
        except RecordRefused as error:
            raise Corrupt(
                f"{self._name(key)} is not a valid {model.__name__} record: {error}"
            ) from None

    def put_bytes(
        self,
        key: str,
        data: bytes,
        content_type: str = "application/octet-stream",
        part_bytes: int = PART_BYTES,
    ) -> None:
        """Write ``data`` to ``key``; an existing object is replaced.

        What is longer than ``part_bytes`` (5 MiB at least) is uploaded in parts of this size.
        """
        with self._errors(key, "put"):
            if len(data) <= part_bytes:
                self._put(key, data, {"Content-Type": content_type})
                return
            self._client().put_object(
                self._access.bucket,
                key,
                io.BytesIO(data),
                len(data),
                content_type=content_type,
                part_size=part_bytes,
                sse=self._sse,
            )

    def put_json(self, key: str, record: BaseModel) -> None:
        """Write ``record`` to ``key`` as JSON; an existing object is replaced."""
        self.put_bytes(key, _json(record), "application/json")

    def create_json(self, key: str, record: BaseModel) -> None:
        """Write ``record`` to ``key`` unless the key exists; raises ``KeyExists``."""
        self._create(key, _json(record))

    def exists(self, key: str) -> bool:
        """Return whether ``key`` exists."""
        try:
            with self._reading(key, "head"):
                self._client().stat_object(self._access.bucket, key)
        except KeyNotFound:
            return False
        return True

    def encryption(self, key: str) -> str:
        """Return how the store says that it has encrypted an object; empty when it does not say."""
        with self._reading(key, "head"):
            found = self._client().stat_object(self._access.bucket, key)
        return str(found.metadata.get("x-amz-server-side-encryption", ""))

    def put_file(
        self, key: str, path: Path, sha256: str = "", sent: Callable[[int], None] | None = None
    ) -> FileEntry:
        """Upload the file ``path``; return size and SHA-256 of the bytes that were sent.

        The object keeps ``sha256`` for ``stored_file``. ``sent`` gets the bytes of each part.
        """
        try:
            with path.open("rb") as file, self._errors(key, "put"):
                source = _Hashing(file, sent)
                self._client().put_object(
                    self._access.bucket,
                    key,
                    source,
                    os.fstat(file.fileno()).st_size,
                    metadata={_SHA256: sha256} if sha256 else None,
                    part_size=PART_BYTES,
                    sse=self._sse,
                )
        except OSError as error:
            raise StoreError(f"{path} cannot be uploaded: {error}") from None
        return FileEntry(path=path.name, size=source.size, sha256=source.sha256.hexdigest())

    def stored_file(self, key: str) -> FileEntry | None:
        """Return size and SHA-256 of an object that was put with its SHA-256; None without it."""
        try:
            with self._reading(key, "head"):
                found = self._client().stat_object(self._access.bucket, key)
        except KeyNotFound:
            return None
        digest = found.metadata.get(f"x-amz-meta-{_SHA256}", "")
        if len(digest) != 64:
            return None
        return FileEntry(path=key.rpartition("/")[2], size=found.size, sha256=digest)

    def get_file(self, key: str, path: Path, limit: int | None = None) -> FileEntry:
        """Download ``key`` to the file ``path``, which appears complete or not at all.

        Raises:
            Corrupt: the object is longer than ``limit`` bytes.
        """
        return _repeated(lambda: self._download(key, path, limit))

    # --- many objects -------------------------------------------------------------------------

    def list(self, prefix: str, recursive: bool = True) -> Iterator[Entry]:
        """Yield the keys below ``prefix`` in order; shallow listings end folders in ``/``."""
        following: dict[str, str] = {}
        while True:
            parameters = request_parameters(prefix, recursive, following)
            with self._time_limit():  # each page has that of a call
                entries, following = _repeated(lambda: self._page(prefix, parameters))  # noqa: B023
            yield from entries
            if not following:
                return

    def delete(self, keys: Iterable[str]) -> None:
        """Delete ``keys``, up to 1,000 per request; a missing key is not an error."""
        objects = (DeleteObject(key) for key in keys)
        with self._errors("the keys to delete", "delete"):
            for failed in self._client().remove_objects(self._access.bucket, objects):
                kind = StorageForbidden if failed.code == "AccessDenied" else StoreError
                name = self._name(failed.name or "")
                raise kind(f"{name} was not deleted: {failed.code}: {failed.message}")

    def upload_folder(
        self,
        prefix: str,
        folder: Path,
        manifest: Callable[[tuple[FileEntry, ...]], Manifest],
        marker: str = names.MANIFEST,
    ) -> Manifest:
        """Upload every file below ``folder``; create the commit marker last, with the manifest.

        Raises:
            KeyExists: the marker exists: this prefix was committed before.
        """
        paths = sorted(path for path in folder.rglob("*") if path.is_file())

        def upload(path: Path) -> FileEntry:
            name = path.relative_to(folder).as_posix()
            return self.put_file(prefix + name, path).replace(path=name)

        record = manifest(tuple(in_daemon_threads(upload, paths, PARALLEL_FILES)))
        self.create_json(prefix + marker, record)
        return record

    def download_folder(self, prefix: str, folder: Path, marker: str = names.MANIFEST) -> Manifest:
        """Download the files that the marker below ``prefix`` lists; check sizes and SHA-256.

        Raises:
            KeyNotFound: there is no marker: nothing is committed below ``prefix``.
            Corrupt: a file differs from the manifest, or would be written outside ``folder``.
        """
        record = self.get_json(prefix + marker, Manifest)
        self.download_files(prefix, record.files, folder)
        return record

    def download_files(self, prefix: str, files: Iterable[FileEntry], folder: Path) -> None:
        """Download ``files`` of the manifest below ``prefix``; check sizes and SHA-256.

        Raises:
            Corrupt: a file differs from the manifest, or would be written outside ``folder``.
        """
        targets = [(entry, self._inside(folder, prefix, entry.path)) for entry in files]

        def download(target: tuple[FileEntry, Path]) -> None:
            entry, path = target
            saved = self.get_file(prefix + entry.path, path, limit=entry.size)
            if (saved.size, saved.sha256) != (entry.size, entry.sha256):
                path.unlink()
                raise Corrupt(
                    f"{self._name(prefix + entry.path)} is not what its manifest lists: "
                    f"{saved.size} bytes with SHA-256 {saved.sha256[:12]}… instead of "
                    f"{entry.size} with {entry.sha256[:12]}…"
                )

        in_daemon_threads(download, targets, PARALLEL_FILES)

    # --- the bucket and its credentials -------------------------------------------------------

    def ensure_bucket(self) -> None:
        """Create the bucket unless it exists."""
        with self._errors("", "bucket"):
            if self._client().bucket_exists(self._access.bucket):
                return
            try:
                self._client().make_bucket(self._access.bucket)
            except S3Error as error:
                if error.code != "BucketAlreadyOwnedByYou":
                    raise

    def product(self) -> str:
        """Return how the server calls itself; empty when it does not say."""
        with self._errors("", "bucket"):
            answer = self._client()._execute("HEAD", self._access.bucket)
            name = str(answer.headers.get("Server", ""))
        return "".join(filter(str.isprintable, name))[:64].strip()

    def assume(self, policy: dict[str, Any], seconds: int, role_arn: str = "") -> StorageAccess:
        """Return credentials limited to ``policy`` and to ``seconds`` (AssumeRole of STS).

        Raises:
            StorageForbidden: the store refuses, or does not support AssumeRole.
        """
        form = assume_role_form(policy, seconds, role_arn)
        with self._errors("credentials (AssumeRole)", "sts"):
            self._refresh()
            return request_credentials(self._pool, self._access, form)

    def assume_with_web_identity(self, token: str, role_arn: str = "") -> StorageAccess:
        """Return credentials of a role, for a token of an identity provider that STS trusts.

        Raises:
            StoreError: STS refuses, or does not answer.
        """
        name = "credentials (AssumeRoleWithWebIdentity)"
        anonymous = self._access.replace(access_key="", secret_key="", session_token="")
        with self._errors(name, "sts"):
            return request_credentials(self._pool, anonymous, web_identity_form(token, role_arn))

    # --- below ----------------------------------------------------------------------------------

    def _use(self, access: StorageAccess) -> None:
        try:
            self._start(access)
        except ValueError as error:  # of a port, a region or a bucket that cannot be one
            raise StoreError(f"the address of storage cannot be used: {error}") from None

    def _start(self, access: StorageAccess) -> None:
        url = urllib.parse.urlsplit(access.endpoint)
        if url.scheme not in {"http", "https"} or not url.netloc or url.path.strip("/"):
            raise StoreError(
                f"storage endpoint {access.endpoint!r} is not http://host:port or https://host"
            )
        self._access = access
        self._sse = _encryption(access)
        self._renew_at = _renewal_time(access)
        self._pool = _pool(self._limits, access.endpoint)
        # The client would write an IPv6 address without brackets beside a default port.
        default_port = ":443" if url.scheme == "https" else ":80"
        self._minio = Minio(
            url.netloc.removesuffix(default_port),
            access_key=access.access_key,
            secret_key=access.secret_key,
            session_token=access.session_token or None,
            secure=url.scheme == "https",
            region=access.region,
            http_client=self._pool,
        )
        if access.addressing == "virtual":
            self._minio.enable_virtual_style_endpoint()
        elif access.addressing == "path":
            self._minio.disable_virtual_style_endpoint()

    def _refresh(self) -> None:
        """Read the credentials again when a watched file has changed, or half their time is over.

        While they are still valid, only one thread does so, the others go on; and a failure is left
        for a later call.
        """
        if self._read is None:
            return
        seen = tuple(map(_version, self._watched))
        now = datetime.now(UTC)
        due = self._renew_at is not None and now >= self._renew_at
        if seen == self._seen and not due:
            return
        valid = seen == self._seen and (self._access.expires or now) > now
        if not self._lock.acquire(blocking=not valid):
            return
        try:
            access = self._read()
            if access == self._access:
                self._renew_at = _renewal_time(access)
            else:
                self._use(access)
            self._seen = seen
        except StoreError:
            if not valid:
                raise
            self._renew_at = min(now + RENEWAL_PAUSE, self._access.expires or now)
        finally:
            self._lock.release()

    def _client(self) -> Any:
        self._refresh()
        return self._minio

    def _create(self, key: str, data: bytes) -> None:
        """PUT with ``If-None-Match: *``, on which the commit protocol rests.

        When an answer is lost after the store wrote the object, the repeated PUT is refused. Only
        after such a repetition does an equal object count as created by this call.
        """
        headers = {"Content-Type": "application/json", "If-None-Match": "*"}
        try:
            with self._errors(key, "create"):
                self._put(key, data, headers)
        except KeyExistsAfterRetry:
            if self.get_bytes(key) != data:
                raise KeyExists(f"{self._name(key)} exists already") from None

    def _put(self, key: str, data: bytes, headers: dict[str, str]) -> None:
        """Write ``data`` in one request: the client's own call makes a stream and parts of it."""
        if self._sse is not None:
            headers = headers | self._sse.headers()
        self._client()._execute("PUT", self._access.bucket, key, body=data, headers=headers)

    @contextlib.contextmanager
    def _body(self, key: str, offset: int = 0) -> Iterator[Any]:
        with _released(self._client().get_object(self._access.bucket, key, offset=offset)) as body:
            yield body

    @contextlib.contextmanager
    def _reading(self, key: str, operation: str = "get") -> Iterator[None]:
        """Distinguish a key that is missing from a key that may not be read.

        To a user who may not list the whole bucket, AWS answers 403 in both cases. Listing this one
        key is allowed wherever reading it is, and shows whether it exists.
        """
        try:
            with self._errors(key, operation):
                yield
        except StorageForbidden as refused:
            try:
                exists = any(entry.key == key for entry in self.list(key))
            except StoreError:
                raise refused from None
            if exists:
                raise
            raise KeyNotFound(f"{self._name(key)} does not exist") from None

    def _chunks(self, key: str, body: Any, limit: int | None = None) -> Iterator[bytes]:
        """Yield the content of ``body`` as it arrives, within its bound and the time limit."""
        size = 0
        while chunk := body.read1(_PIECE, decode_content=False):
            size += len(chunk)
            if limit is not None and size > limit:
                raise Corrupt(f"{self._name(key)} is longer than {limit} bytes")
            if _time_is_over():
                raise Unavailable(
                    f"{self._name(key)}: its {size} bytes so far took longer than "
                    f"{self._limits.total:.0f} s"
                )
            yield chunk

    def _page(self, prefix: str, parameters: dict[str, str]) -> ListingPage:
        with self._errors(prefix, "list"):
            response = self._client()._execute(
                "GET", self._access.bucket, query_params=parameters, preload_content=False
            )
            with _released(response):
                return parse_page(self._chunks(prefix, response))

    def _download(self, key: str, path: Path, limit: int | None) -> FileEntry:
        digest, size = hashlib.sha256(), 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with (
                tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part,
                _removed_on_error(Path(part.name)),
            ):
                with self._reading(key), self._body(key) as body:
                    for chunk in body.stream(_CHUNK, decode_content=False):
                        part.write(chunk)
                        digest.update(chunk)
                        size += len(chunk)
                        if limit is not None and size > limit:
                            raise Corrupt(f"{self._name(key)} is longer than {limit} bytes")
                part.close()
                Path(part.name).replace(path)
        except OSError as error:
            raise StoreError(f"{self._name(key)} cannot be saved as {path}: {error}") from None
        return FileEntry(path=path.name, size=size, sha256=digest.hexdigest())

    def _inside(self, folder: Path, prefix: str, name: str) -> Path:
        parts = PurePosixPath(name).parts
        plain = parts and name == "/".join(parts) and ".." not in parts
        if (
            not plain
            or set(name) & {"\\", "\0"}
            or not folder.joinpath(name).resolve().is_relative_to(folder.resolve())
        ):
            raise Corrupt(
                f"the manifest below {self._name(prefix)} lists {name!r}, which would be "
                f"written outside {folder}"
            )
        return folder.joinpath(name)

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        """Begin the time limit of a call, unless the call is a part of another one."""
        total = self._limits.total
        if total is None or getattr(_call, "ends", None) is not None:
            yield
            return
        _call.ends = time.monotonic() + total
        try:
            yield
        finally:
            _call.ends = None

    def _name(self, key: str) -> str:
        return object_name(self._access, key)

    @contextlib.contextmanager
    def _errors(self, key: str, operation: str) -> Iterator[None]:
        """Turn every error into one of ours, and let ``observe`` know how the request ended."""
        if self._observe is None:
            with self._checked(key, operation), self._translated(key):
                yield
            return
        began = time.monotonic()
        error: Exception | None = None
        try:
            with self._checked(key, operation), self._translated(key):
                yield
        except Exception as raised:
            error = raised
            raise
        finally:
            self._observe(operation, time.monotonic() - began, error)

    @contextlib.contextmanager
    def _checked(self, key: str, operation: str) -> Iterator[None]:
        """Check before each try of a write that it is allowed."""
        may_write = self._may_write
        if may_write is None or operation not in _WRITES:
            yield
            return

        def check() -> None:
            if not may_write():
                raise WritesEnded(f"{self._name(key)} is not written: another process may act now")

        check()
        _call.check = check
        try:
            yield
        finally:
            _call.check = None

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Turn every error of minio and urllib3 into one of ours."""
        try:
            with self._time_limit():
                yield
        except S3Error as error:
            retried = bool(getattr(error.response.retries, "history", ()))
            status, code = error.response.status, error.code or ""
            raise refusal(self._access, key, status, code, error.message, retried=retried) from None
        except ServerError as error:
            raise refusal(self._access, key, error.status_code, "", str(error)) from None
        except InvalidResponseError as error:
            message = "the answer is not S3's; is this an S3 endpoint?"
            raise refusal(self._access, key, error._code, "", message) from None
        except HTTPError as error:
            cause = network_cause(error, self._limits.connect, self._limits.read)
            raise Unavailable(f"{self._name(key)}: {cause}") from None
        except _BROKEN_ANSWERS as error:
            raise StoreError(f"{self._name(key)}: {str(error)[:200]}") from None


def _encryption(access: StorageAccess) -> Sse | None:
    if access.sse == "kms":
        return SseKMS(access.sse_kms_key or "", {})
    return SseS3() if access.sse == "s3" else None


class _Hashing:
    """A file whose SHA-256 and size are computed while it is read."""

    def __init__(self, file: IO[bytes], sent: Callable[[int], None] | None = None) -> None:
        self._file, self._sent = file, sent
        self.sha256 = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        self.size += len(data)
        if self._sent is not None:
            self._sent(len(data))
        return data


_Result = TypeVar("_Result")


def _json(record: BaseModel) -> bytes:
    return record.model_dump_json(exclude_none=True).encode()


def _repeated(work: Callable[[], _Result]) -> _Result:
    """Return what ``work`` returns; a body that breaks off is read up to three times."""
    for last in (False, False, True):
        try:
            return work()
        except Unavailable:
            if last or _time_is_over():
                raise
    raise AssertionError  # the last round returns or raises


@contextlib.contextmanager
def _released(response: Any) -> Iterator[Any]:
    """Give the connection of ``response`` back at the end."""
    try:
        yield response
    finally:
        response.close()
        response.release_conn()


_call: Final = threading.local()
"""The call of this thread: ``ends`` is the monotonic time when its time limit is over, and
``check`` raises if it may not be sent again."""


def _time_is_over() -> bool:
    ends = getattr(_call, "ends", None)
    return ends is not None and time.monotonic() > ends


class _TimedRetry(urllib3.Retry):
    """Retries that end with the time limit of the call; so do the pauses before them."""

    def is_exhausted(self) -> bool:
        """Return whether the request must not be sent again."""
        return _time_is_over() or super().is_exhausted()

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Pause before the next try, and raise if that may not be sent."""
        super().sleep(response)
        check: Callable[[], None] | None = getattr(_call, "check", None)
        if check is not None:
            check()

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """Return the seconds for which a server asks to wait, within bounds."""
        seconds: float | None = super().get_retry_after(response)
        ends: float | None = getattr(_call, "ends", None)
        if seconds is None or ends is None:
            return seconds
        return min(seconds, max(0.0, ends - time.monotonic()))


def _renewal_time(access: StorageAccess) -> datetime | None:
    """Return when half of the time that credentials have left is over; None: they do not end."""
    if access.expires is None:
        return None
    now = datetime.now(UTC)
    return now + max((access.expires - now) / 2, SHORTEST_RENEWAL)


def _pool(limits: TimeLimits, endpoint: str) -> urllib3.PoolManager:
    """Return connections to ``endpoint``, through the proxy that the environment names for it."""
    try:
        proxy = storage_proxy(endpoint)
    except ValueError as error:
        raise StoreError(f"storage {endpoint}: {error}") from None
    manager: Any = urllib3.PoolManager
    if proxy is not None:
        user = proxy.user_headers
        manager = partial(urllib3.ProxyManager, proxy.address, proxy_headers=user)
    pool: urllib3.PoolManager = manager(
        timeout=urllib3.Timeout(connect=limits.connect, read=limits.read),
        maxsize=16,
        ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
        retries=_TimedRetry(
            total=RETRIES,
            backoff_factor=0.25,
            backoff_jitter=0.25,
            backoff_max=LONGEST_PAUSE_SECONDS,
            retry_after_max=LONGEST_PAUSE_SECONDS,
            status_forcelist=TRANSIENT_STATUS,
            # Any request may be sent twice: an object is immutable or replaced as a whole.
            allowed_methods=None,
            raise_on_status=False,
            redirect=False,
        ),
    )
    return pool


def _version(path: Path) -> tuple[int, int] | None:
    """Return a mark that changes with the file, also behind the link of a mounted Secret."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _read_access(path: Path) -> StorageAccess:
    try:
        return StorageAccess.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StoreError(f"the storage access file {path} cannot be read: {error}") from None
    except ValidationError as error:
        what = next(error_sentences(error, whole="its text"))
        raise StoreError(f"the storage access file {path} is not valid: {what}") from None


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
