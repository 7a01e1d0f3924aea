"""The only module that talks to S3.

It translates: keys and records in, bytes out, and every way that a store can fail into one of six
errors with one sentence that names the endpoint and the key. It never decides. The commit protocol
rests on one function here, the conditional PUT, which minio's client has no public call for.

All calls are synchronous and bounded in time; callers in asyncio use ``asyncio.to_thread``. A
``Store`` may be shared by threads.
"""

import contextlib
import hashlib
import io
import os
import stat
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, NamedTuple, Self, TypeVar
from xml.etree import ElementTree

import certifi
import urllib3
from minio import Minio
from minio.credentials import Credentials
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.signer import sign_v4_sts
from minio.time import to_amz_date, utcnow
from pydantic import BaseModel, TypeAdapter, ValidationError
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as NetworkTimeoutError

from flashrun.api import names
from flashrun.api.records import FileEntry, Manifest, StorageAccess
from flashrun.store_errors import (
    Corrupt,
    KeyExists,
    KeyNotFound,
    StorageForbidden,
    StoreError,
    Unauthorized,
    Unavailable,
)

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 60.0
"""Longest silence on a connection; a slow but moving transfer is not cut off."""
RETRIES: Final = 4
PART_BYTES: Final = 16 * 1024 * 1024
PARALLEL_FILES: Final = 4
RECORD_LIMIT: Final = 8 * 1024 * 1024
"""Longest JSON record that is read, in bytes; a store is no place to trust sizes."""

_CHUNK: Final = 1024 * 1024
_TRANSIENT_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504, 507})

Model = TypeVar("Model", bound=BaseModel)


class Entry(NamedTuple):
    """One key of a listing; a folder of a shallow listing ends in ``/`` and has no etag."""

    key: str
    size: int
    etag: str
    modified: datetime | None


class Store:
    """One bucket of one endpoint, with one set of credentials."""

    def __init__(self, access: StorageAccess) -> None:
        self._lock = threading.Lock()
        self._read: Callable[[], StorageAccess] | None = None
        self._watched: tuple[Path, ...] = ()
        self._seen: tuple[object, ...] = ()
        self._use(access)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Return a store whose credentials are re-read when ``path`` changes.

        Raises:
            StoreError: the file is missing or holds no storage access.
        """
        return cls.following(lambda: _read_access(path), path)

    @classmethod
    def following(cls, read: Callable[[], StorageAccess], *watched: Path) -> Self:
        """Return a store that calls ``read`` again when one of the ``watched`` files has changed.

        Credentials are renewed under a running process; no caller has to know.
        """
        seen = tuple(map(_version, watched))
        store = cls(read())
        store._read, store._watched, store._seen = read, watched, seen
        return store

    @property
    def access(self) -> StorageAccess:
        """How the bucket is reached at present."""
        self._refresh()
        return self._access

    @property
    def location(self) -> str:
        """Endpoint and bucket, as errors name them."""
        return f"{self._access.endpoint}/{self._access.bucket}"

    # --- one object ---------------------------------------------------------------------------

    def get_bytes(self, key: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        """Return the content of ``key`` from byte ``offset`` on; empty when there is no more.

        Raises:
            Corrupt: the object is longer than ``limit`` bytes.
        """
        for last in (False, False, True):
            try:
                with self._reading(key), self._body(key, offset) as body:
                    data = bytearray()
                    for chunk in body.stream(_CHUNK):
                        data += chunk
                        if limit is not None and len(data) > limit:
                            raise Corrupt(f"{self._name(key)} is longer than {limit} bytes")
                    return bytes(data)
            except _PastTheEnd:
                return b""
            except Unavailable:
                if last:
                    raise
        raise AssertionError  # the last round returns or raises

    def get_json(self, key: str, model: type[Model]) -> Model:
        """Return the record at ``key``; raises ``Corrupt`` when it is no ``model``."""
        try:
            return model.model_validate_json(self.get_bytes(key, limit=RECORD_LIMIT))
        except ValidationError as error:
            what = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, what["loc"])) or "its text"
            raise Corrupt(
                f"{self._name(key)} is no valid {model.__name__} record: {where}: {what['msg']}"
            ) from None

    def put_bytes(
        self, key: str, data: bytes, content_type: str = "application/octet-stream"
    ) -> None:
        """Write ``data`` to ``key``, replacing what was there."""
        with self._errors(key):
            self._client().put_object(
                self._access.bucket,
                key,
                io.BytesIO(data),
                len(data),
                content_type=content_type,
                part_size=PART_BYTES,
            )

    def put_json(self, key: str, record: BaseModel) -> None:
        """Write ``record`` to ``key``, replacing what was there."""
        self.put_bytes(key, _json(record), "application/json")

    def create_json(self, key: str, record: BaseModel) -> None:
        """Write ``record`` to ``key`` unless the key exists; raises ``KeyExists``."""
        self._create(key, _json(record))

    def exists(self, key: str) -> bool:
        """Say whether ``key`` exists."""
        try:
            with self._reading(key):
                self._client().stat_object(self._access.bucket, key)
        except KeyNotFound:
            return False
        return True

    def put_file(self, key: str, path: Path) -> FileEntry:
        """Upload ``path``; size and SHA-256 are of the bytes that were sent."""
        try:
            with path.open("rb") as file, self._errors(key):
                source = _Hashing(file)
                self._client().put_object(
                    self._access.bucket,
                    key,
                    source,
                    os.fstat(file.fileno()).st_size,
                    part_size=PART_BYTES,
                )
        except OSError as error:
            raise StoreError(f"{path} cannot be uploaded: {error}") from None
        return FileEntry(path=path.name, size=source.size, sha256=source.sha256.hexdigest())

    def get_file(self, key: str, path: Path) -> FileEntry:
        """Download ``key`` to ``path``, which appears whole or not at all."""
        for last in (False, False, True):
            try:
                return self._download(key, path)
            except Unavailable:
                if last:
                    raise
        raise AssertionError  # the last round returns or raises

    # --- many objects -------------------------------------------------------------------------

    def list(self, prefix: str, recursive: bool = True) -> Iterator[Entry]:
        """Yield the keys below ``prefix`` in order; shallow listings end folders in ``/``."""
        with self._errors(prefix):
            found = self._client().list_objects(
                self._access.bucket, prefix=prefix, recursive=recursive
            )
            for item in found:
                etag = "" if item.is_dir else (item.etag or "").strip('"')
                yield Entry(item.object_name, item.size or 0, etag, item.last_modified)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete ``keys`` in order of batches of 1,000; missing ones are no error."""
        doomed = (DeleteObject(key) for key in keys)
        with self._errors("the keys to delete"):
            for failed in self._client().remove_objects(self._access.bucket, doomed):
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
        """Upload every file below ``folder``, then create the commit marker, last.

        Raises:
            KeyExists: the marker is there: someone committed this prefix before.
        """
        paths = sorted(path for path in folder.rglob("*") if path.is_file())

        def upload(path: Path) -> FileEntry:
            name = path.relative_to(folder).as_posix()
            return self.put_file(prefix + name, path).replace(path=name)

        record = manifest(tuple(_parallel(upload, paths)))
        self.create_json(prefix + marker, record)
        return record

    def download_folder(self, prefix: str, folder: Path, marker: str = names.MANIFEST) -> Manifest:
        """Download what the marker below ``prefix`` lists, checking every size and SHA-256.

        Raises:
            KeyNotFound: there is no marker, so there is nothing.
            Corrupt: a file differs from the manifest, or would be written outside ``folder``.
        """
        record = self.get_json(prefix + marker, Manifest)
        targets = [(entry, self._inside(folder, prefix, entry.path)) for entry in record.files]

        def download(target: tuple[FileEntry, Path]) -> None:
            entry, path = target
            found = self.get_file(prefix + entry.path, path)
            if (found.size, found.sha256) != (entry.size, entry.sha256):
                path.unlink()
                raise Corrupt(
                    f"{self._name(prefix + entry.path)} is not what its manifest lists: "
                    f"{found.size} bytes with SHA-256 {found.sha256[:12]}… instead of "
                    f"{entry.size} with {entry.sha256[:12]}…"
                )

        _parallel(download, targets)
        return record

    # --- the bucket and its credentials -------------------------------------------------------

    def ensure_bucket(self) -> None:
        """Create the bucket unless it is there."""
        with self._errors(""):
            if self._client().bucket_exists(self._access.bucket):
                return
            try:
                self._client().make_bucket(self._access.bucket)
            except S3Error as error:
                if error.code != "BucketAlreadyOwnedByYou":
                    raise

    def assume(self, policy: dict[str, Any], seconds: int, role_arn: str = "") -> StorageAccess:
        """Return credentials that do at most what ``policy`` allows, for ``seconds`` (STS).

        Raises:
            StorageForbidden: the store refuses; stores without AssumeRole answer so, too.
        """
        form = {
            "Action": "AssumeRole",
            "Version": "2011-06-15",
            "DurationSeconds": str(seconds),
            "RoleSessionName": "flashrun",
            "Policy": TypeAdapter(dict[str, Any]).dump_json(policy).decode(),
        }
        if role_arn:
            form["RoleArn"] = role_arn
        with self._errors("credentials (AssumeRole)"):
            answer = ElementTree.fromstring(self._sts(urllib.parse.urlencode(form)))
            found = {item.tag.rpartition("}")[2]: item.text or "" for item in answer.iter()}
            return self._access.replace(
                access_key=found["AccessKeyId"],
                secret_key=found["SecretAccessKey"],
                session_token=found["SessionToken"],
                expires=datetime.fromisoformat(found["Expiration"]),
            )

    def _sts(self, form: str) -> bytes:
        access = self._access
        url = urllib.parse.urlsplit(_sts_endpoint(access))
        now = utcnow()
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Host": url.netloc,
            "X-Amz-Date": to_amz_date(now),
        }
        if access.session_token:
            headers["X-Amz-Security-Token"] = access.session_token
        signed = sign_v4_sts(
            method="POST",
            url=url,
            region=access.region,
            headers=headers,
            credentials=Credentials(access.access_key, access.secret_key),
            content_sha256=hashlib.sha256(form.encode()).hexdigest(),
            date=now,
        )
        response = self._pool.urlopen("POST", url.geturl(), body=form, headers=signed)
        if response.status != 200:
            code, message = _sts_error(response.data)
            self._refuse(response.status, code, message, "credentials (AssumeRole)")
        return response.data

    # --- below ----------------------------------------------------------------------------------

    def _use(self, access: StorageAccess) -> None:
        url = urllib.parse.urlsplit(access.endpoint)
        if url.scheme not in {"http", "https"} or not url.netloc or url.path.strip("/"):
            raise StoreError(
                f"storage endpoint {access.endpoint!r} is not http://host:port or https://host"
            )
        self._access = access
        self._pool = _pool()
        self._minio = Minio(
            url.netloc,
            access_key=access.access_key,
            secret_key=access.secret_key,
            session_token=access.session_token or None,
            secure=url.scheme == "https",
            region=access.region,
            http_client=self._pool,
        )

    def _refresh(self) -> None:
        if self._read is None:
            return
        with self._lock:
            seen = tuple(map(_version, self._watched))
            if seen != self._seen:
                self._use(self._read())
                self._seen = seen

    def _client(self) -> Any:
        self._refresh()
        return self._minio

    def _create(self, key: str, data: bytes) -> None:
        """PUT with ``If-None-Match: *``: the one place where the commit protocol meets the wire.

        An answer can get lost after the store wrote; the repeated PUT then meets our own object.
        Only after such a repetition does an equal object count as created by us.
        """
        headers = {"Content-Type": "application/json", "If-None-Match": "*"}
        try:
            with self._errors(key):
                self._client()._execute("PUT", self._access.bucket, key, body=data, headers=headers)
        except _KeyExistsAfterRetry:
            if self.get_bytes(key) != data:
                raise KeyExists(f"{self._name(key)} exists already") from None

    @contextlib.contextmanager
    def _body(self, key: str, offset: int = 0) -> Iterator[Any]:
        response = self._client().get_object(self._access.bucket, key, offset=offset)
        try:
            yield response
        finally:
            response.close()
            response.release_conn()

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """Tell a missing key from a refused one.

        Who may not list the whole bucket is answered 403 by AWS in both cases; a listing of the
        key alone is allowed where reading is, and knows.
        """
        try:
            with self._errors(key):
                yield
        except StorageForbidden as refused:
            try:
                there = any(entry.key == key for entry in self.list(key))
            except StoreError:
                raise refused from None
            if there:
                raise
            raise KeyNotFound(f"{self._name(key)} does not exist") from None

    def _download(self, key: str, path: Path) -> FileEntry:
        digest, size = hashlib.sha256(), 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with (
                tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part,
                _removed_on_error(Path(part.name)),
            ):
                with self._reading(key), self._body(key) as body:
                    for chunk in body.stream(_CHUNK):
                        part.write(chunk)
                        digest.update(chunk)
                        size += len(chunk)
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

    def _name(self, key: str) -> str:
        return f"{key or 'the bucket'} in storage {self.location}"

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn everything that minio and urllib3 raise into our errors."""
        try:
            yield
        except S3Error as error:
            retried = bool(getattr(error.response.retries, "history", ()))
            self._refuse(error.response.status, error.code or "", error.message, key, retried)
        except ServerError as error:
            self._refuse(error.status_code, "", str(error), key)
        except InvalidResponseError as error:
            self._refuse(error._code, "", "the answer is not S3's; is this an S3 endpoint?", key)
        except HTTPError as error:
            raise Unavailable(f"{self._name(key)}: {_network_cause(error)}") from None
        except (MinioException, ElementTree.ParseError, KeyError, ValueError) as error:
            raise StoreError(f"{self._name(key)}: {error}") from None

    def _refuse(
        self, status: int, code: str, message: str | None, key: str, retried: bool = False
    ) -> None:
        """Raise the error that an HTTP answer stands for; ``code`` is S3's own word."""
        name, said = self._name(key), f"{code or status}: {message or 'no explanation'}"
        if code == "NoSuchBucket":
            raise StoreError(
                f"storage {self._access.endpoint} has no bucket {self._access.bucket!r}; "
                "create it, or correct storage.bucket"
            )
        if status == 404:
            raise KeyNotFound(f"{name} does not exist")
        if status == 412:
            kind = _KeyExistsAfterRetry if retried else KeyExists
            raise kind(f"{name} exists already")
        if status == 416:
            raise _PastTheEnd(f"{name} is shorter")
        if code in _UNAUTHORIZED:
            raise Unauthorized(f"{name}: {_UNAUTHORIZED[code]}", temporary=code in _RENEWABLE)
        if status in {401, 403}:
            raise StorageForbidden(f"{name}: access was refused ({said})")
        # 409 is the answer to a conditional PUT that met another one in flight.
        if status in _TRANSIENT_STATUS or status == 409 or code == "SlowDown":
            raise Unavailable(f"{name}: the store is not available at the moment ({said})")
        raise StoreError(f"{name}: the store refused ({said})", temporary=code == "NoSuchUpload")


class _KeyExistsAfterRetry(KeyExists):
    """The key exists, and an earlier try of the same request may have made it."""


class _PastTheEnd(StoreError):
    """A read began behind the last byte."""


_UNAUTHORIZED: Final = {
    "ExpiredToken": "the storage credentials have expired; they are renewed by the operator",
    "InvalidTokenId": "the storage credentials have expired or belong to another store",
    "InvalidAccessKeyId": "the store does not know the access key; check the storage credentials",
    "SignatureDoesNotMatch": "the secret key is wrong; check the storage credentials",
    "RequestTimeTooSkewed": "the clocks of store and client differ by more than 15 minutes",
}
_RENEWABLE: Final = frozenset({"ExpiredToken", "InvalidTokenId", "RequestTimeTooSkewed"})


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        self.size += len(data)
        return data


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def _parallel(work: Callable[[_Item], _Result], items: list[_Item]) -> list[_Result]:
    """Return the results in order; the first error ends what has not begun."""
    with ThreadPoolExecutor(PARALLEL_FILES, thread_name_prefix="store") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _json(record: BaseModel) -> bytes:
    return record.model_dump_json(exclude_none=True).encode()


def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
        maxsize=16,
        ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
        retries=urllib3.Retry(
            total=RETRIES,
            backoff_factor=0.25,
            backoff_jitter=0.25,
            backoff_max=10,
            status_forcelist=_TRANSIENT_STATUS,
            # Every request here may be sent twice: objects are immutable or overwritten whole.
            allowed_methods=None,
            raise_on_status=False,
            redirect=False,
        ),
    )


def _sts_endpoint(access: StorageAccess) -> str:
    """Return where AssumeRole is asked for: S3's own endpoint, except on AWS."""
    host = urllib.parse.urlsplit(access.endpoint).hostname or ""
    if host.endswith(".amazonaws.com"):
        return f"https://sts.{access.region}.amazonaws.com/"
    return access.endpoint.rstrip("/") + "/"


def _sts_error(body: bytes) -> tuple[str, str]:
    try:
        answer = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return "", "the answer is not STS's; does the store offer AssumeRole?"
    found = {item.tag.rpartition("}")[2]: item.text or "" for item in answer.iter()}
    return found.get("Code", ""), found.get("Message", "")


def _network_cause(error: HTTPError) -> str:
    cause: object = error.reason if isinstance(error, MaxRetryError) else error
    match cause:
        case NameResolutionError():
            return "the host name of the endpoint does not resolve"
        case NewConnectionError():  # before the timeout, which it inherits from
            return "the connection was refused; is the store running and reachable from here?"
        case ConnectTimeoutError():
            return f"no connection within {CONNECT_SECONDS:.0f} s"
        case SSLError():
            return f"the TLS connection failed ({cause}); a private CA goes into the CA bundle"
        case NetworkTimeoutError():
            return f"no answer within {READ_SECONDS:.0f} s"
        case _:
            return f"the connection broke ({type(cause).__name__})"


def _version(path: Path) -> tuple[int, int] | None:
    """Return what changes when the file is replaced, also behind the link of a mounted Secret."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _read_access(path: Path) -> StorageAccess:
    try:
        return StorageAccess.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StoreError(f"the storage access file {path} cannot be read: {error}") from None
    except ValidationError as error:
        what = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, what["loc"])) or "its text"
        raise StoreError(
            f"the storage access file {path} is not valid: {where}: {what['msg']}"
        ) from None


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
