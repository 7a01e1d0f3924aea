"""A probe of what an S3 server can do: each property that runs rest on, tried with real requests.

Servers differ behind the same API: some ignore ``If-None-Match``, and two attempts would both own a
run; some answer ``AssumeRole`` with keys that no policy limits. No error would show either of them,
so it is tried before the first run. All keys lie below one prefix, and are deleted at the end.
"""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

from flashrun.api.base import Record
from flashrun.api.records import StorageAccess
from flashrun.plan.storage_policies import Policy, run_policy
from flashrun.store import Store, TimeLimits
from flashrun.store_errors import (
    KeyExists,
    StorageForbidden,
    StoreError,
    Unauthorized,
    Unavailable,
    Unsuitable,
    WriteConflict,
)

PROBE_SECONDS: Final = 60.0
"""After so long no further property is tried."""
CALL_LIMITS: Final = TimeLimits(connect=5.0, read=10.0, total=15.0)
WRITERS: Final = 8
RACES: Final = 4
PART_BYTES: Final = 5 * 1024 * 1024
"""The smallest part that S3 accepts."""
LEFT_AFTER: Final = timedelta(hours=1)
"""Keys of a probe that was killed are deleted by a later one when they are so old."""
_CONFLICT_TRIES: Final = 10
_RIGHTS: Final = "the credentials of the operator need every right in the bucket"
_ENCRYPTION: Final = {"s3": "AES256", "kms": "aws:kms"}
"""What a store says of an object by how it was asked to encrypt it."""
_DOCUMENTED: Final = "docs/storage.md lists servers that were tried"

Issue = Callable[[Policy], StorageAccess]
"""Returns credentials that a policy limits."""


class Property(StrEnum):
    """What runs need of storage, in the order in which it is tried."""

    WRITE = "write, encrypted if asked"
    LISTING = "list after write"
    CONDITIONAL = "conditional PUT"
    RACE = f"conditional PUT, {WRITERS} writers"
    MULTIPART = "multipart upload"
    SESSION = "session credentials"
    LIMITS = "session policy"


class Finding(NamedTuple):
    """Whether one property holds."""

    of: Property
    problem: str = ""
    """What the server did, and the way out; empty when the property holds."""


class _Mark(Record):
    """The content of an object that one of several writers creates."""

    writer: int


class StoreProbe:
    """Tries one store below ``prefix``, with the rights of its credentials."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = Store(store.access, CALL_LIMITS)
        self._top = prefix
        self._prefix = f"{prefix}{uuid.uuid4().hex}/"
        self._session: Store | None = None

    def require(self, issue: Issue | None = None) -> None:
        """Try every property; session credentials only with ``issue``.

        Raises:
            Unsuitable: one does not hold; the sentence names the server and the way out.
            StoreError: the store did not answer.
        """
        for finding in self.examine(issue):
            if finding.problem:
                raise Unsuitable(f"storage {self.name()} cannot be used: {finding.problem}")

    def examine(self, issue: Issue | None = None) -> Iterator[Finding]:
        """Yield a finding for each property; session credentials only with ``issue``.

        The policy of session credentials is tried only when there are some.

        Raises:
            StoreError: the store did not answer, or not within ``PROBE_SECONDS``.
        """
        ends = time.monotonic() + PROBE_SECONDS
        checks: list[tuple[Property, Callable[[], str]]] = [
            (Property.WRITE, self._check_write),
            (Property.LISTING, self._check_listing),
            (Property.CONDITIONAL, self._check_conditional_put),
            (Property.RACE, self._check_race),
            (Property.MULTIPART, self._check_multipart),
        ]
        if issue is not None:
            checks.append((Property.SESSION, lambda: self._check_session(issue)))
        try:
            for item, check in checks:
                if time.monotonic() > ends:
                    raise Unavailable(
                        f"storage {self._store.location}: it took longer than {PROBE_SECONDS:.0f} "
                        "s to try what it can do"
                    )
                yield Finding(item, _problem_of(check))
            if (session := self._session) is not None:
                yield Finding(Property.LIMITS, _problem_of(lambda: self._check_limits(session)))
        finally:
            self._clean_up()

    def name(self) -> str:
        """Return the place of the store, and the server's name for itself."""
        with contextlib.suppress(StoreError):
            if product := self._store.product():
                return f"{self._store.location} ({product})"
        return self._store.location

    # --- the properties -----------------------------------------------------------------------

    def _check_write(self) -> str:
        """Write one object, and look whether it is encrypted as ``storage.sse`` asks."""
        key, sse = f"{self._prefix}written", self._store.access.sse
        try:
            self._store.put_bytes(key, b"1")
        except StoreError as error:
            if error.temporary:
                raise
            if sse is None:
                return f"{error}; {_RIGHTS}, and storage.sse if it takes only encrypted objects"
            return (
                f"it does not take what storage.sse={sse} asks for ({error}); set up its KMS, "
                "allow the role of the operator to use the key, or leave storage.sse out"
            )
        if sse is not None and (seen := self._store.encryption(key)) != _ENCRYPTION[sse]:
            return (
                f"it ignores storage.sse={sse}: an object is stored with "
                f"{seen or 'no encryption'}; leave storage.sse out, or use a server that encrypts "
                f"({_DOCUMENTED})"
            )
        self._store.delete([key])
        return ""

    def _check_listing(self) -> str:
        key = f"{self._prefix}listed"
        etags = set()
        for content in (b"1", b"22"):
            self._store.put_bytes(key, content)
            sizes = {entry.key: entry.size for entry in self._store.list(self._prefix)}
            etags |= {entry.etag for entry in self._store.list(self._prefix)}
            if sizes.get(key) != len(content):
                return f"a listing does not show what was written before it; {_DOCUMENTED}"
        if len(etags) != 2:
            return f"the ETag of an object does not change with its content; {_DOCUMENTED}"
        self._store.delete([key])
        if any(self._store.list(self._prefix)):
            return f"a listing shows what was deleted before it; {_DOCUMENTED}"
        return ""

    def _check_conditional_put(self) -> str:
        key = f"{self._prefix}created"
        try:
            self._store.create_json(key, _Mark(writer=1))
        except KeyExists:
            return (
                "it refuses to create a new object with If-None-Match: *, as if it existed; "
                f"{_DOCUMENTED}"
            )
        except StoreError as error:
            if error.temporary:
                raise
            return f"it refuses to create an object with If-None-Match: * ({error}); {_DOCUMENTED}"
        try:
            self._store.create_json(key, _Mark(writer=2))
        except KeyExists:
            return ""
        except WriteConflict:
            return f"it answers 409 to If-None-Match: * for an object that exists; {_DOCUMENTED}"
        return (
            "it overwrites an object in spite of If-None-Match: *, so two pods could own one run; "
            f"use a server with conditional writes ({_DOCUMENTED})"
        )

    def _check_race(self) -> str:
        """Let several writers create the same key at the same time, a few times."""
        for number in range(RACES):
            key = f"{self._prefix}race-{number}"
            start = threading.Barrier(WRITERS, timeout=CALL_LIMITS.read)
            with ThreadPoolExecutor(WRITERS, thread_name_prefix="probe") as pool:
                work = [pool.submit(self._try_to_create, key, it, start) for it in range(WRITERS)]
                winners = [writer for writer, future in enumerate(work) if future.result()]
            if len(winners) != 1:
                return (
                    f"of {WRITERS} writers that create the same object with If-None-Match: * at "
                    f"the same time, {len(winners)} succeed instead of one; {_DOCUMENTED}"
                )
            if self._store.get_json(key, _Mark).writer != winners[0]:
                return (
                    "a writer that is refused by If-None-Match: * replaces the object all the "
                    f"same; {_DOCUMENTED}"
                )
        return ""

    def _try_to_create(self, key: str, writer: int, start: threading.Barrier) -> bool:
        start.wait()
        for _ in range(_CONFLICT_TRIES):
            try:
                self._store.create_json(key, _Mark(writer=writer))
            except KeyExists:
                return False
            except WriteConflict:
                time.sleep(0.05)
            else:
                return True
        return False

    def _check_multipart(self) -> str:
        return _upload_in_parts(self._store, f"{self._prefix}parts")

    def _check_session(self, issue: Issue) -> str:
        """Get credentials as a run gets them, and use them as a trainer does."""
        policy = run_policy(
            self._store.access.bucket_arn, self._inside, f"{self._prefix}heartbeat", ()
        )
        try:
            session = Store(issue(policy), CALL_LIMITS)
        except StoreError as error:
            if error.temporary:
                raise Unavailable(
                    f"storage answers, but not when it is asked for credentials: {error}; set up "
                    "its STS, or set storage.sts=false for a store without one: then all trainers "
                    "and users share one pair of keys"
                ) from None
            way_out = (
                "use keys that do not end (storage.existingSecret) if this server lets only "
                "those assume a role"
                if self._store.access.session_token
                else "correct the settings under storage, or set storage.sts=false for a store "
                "without STS: then all trainers and users share one pair of keys"
            )
            return f"it issues no credentials that are limited to one run ({error}); {way_out}"
        try:
            session.create_json(f"{self._inside}file", _Mark(writer=1))
            session.get_json(f"{self._inside}file", _Mark)
            if problem := _upload_in_parts(session, f"{self._inside}parts"):
                return problem
            list(session.list(self._inside))
        except StoreError as error:
            if error.temporary and not isinstance(error, Unauthorized):
                raise
            return (
                f"credentials from AssumeRole do not allow what their policy allows ({error}); "
                "allow the role everything in the bucket, or set storage.sts=false"
            )
        self._session = session
        return ""

    def _check_limits(self, session: Store) -> str:
        """Try with the credentials of one run what only others may do."""
        outside = f"{self._prefix}outside/file"
        self._store.put_bytes(outside, b"1")
        attempts: list[tuple[str, Callable[[], Any]]] = [
            ("write objects of others", lambda: session.put_bytes(outside, b"2")),
            ("read objects of others", lambda: session.get_bytes(outside)),
            ("list objects of others", lambda: list(session.list(f"{self._prefix}outside/"))),
            ("list the whole bucket", lambda: next(session.list("", recursive=False))),
            ("delete objects of others", lambda: session.delete([outside])),
            ("delete checkpoints", lambda: session.delete([f"{self._inside}file"])),
        ]
        for action, attempt in attempts:
            try:
                attempt()
            except StorageForbidden:
                continue
            return (
                "it ignores the session policy of AssumeRole: credentials of one run can "
                f"{action}; use a server that limits them ({_DOCUMENTED}), or set "
                "storage.sts=false and keep nothing else in the bucket"
            )
        return ""

    # --- below --------------------------------------------------------------------------------

    @property
    def _inside(self) -> str:
        return f"{self._prefix}inside/"

    def _clean_up(self) -> None:
        """Delete what this probe wrote, and what earlier ones left when they were killed."""
        with contextlib.suppress(StoreError):
            old = datetime.now(UTC) - LEFT_AFTER
            keys = [
                entry.key
                for entry in self._store.list(self._top)
                if entry.key.startswith(self._prefix) or (entry.modified and entry.modified < old)
            ]
            self._store.delete(keys)


def _problem_of(check: Callable[[], str]) -> str:
    """Return what ``check`` returns, or the server's refusal that it did not expect.

    Raises:
        StoreError: the refusal may end without any change by a person.
    """
    try:
        return check()
    except StoreError as error:
        if error.temporary:
            raise
        return f"{error}; {_RIGHTS}"


def _upload_in_parts(store: Store, key: str) -> str:
    content = os.urandom(PART_BYTES + 1)
    store.put_bytes(key, content, part_bytes=PART_BYTES)
    if store.get_bytes(key) != content:
        return f"what is uploaded in parts is read back with other content; {_DOCUMENTED}"
    return ""


def keys_outside_are_refused(store: Store, foreign: str) -> str:
    """Return a problem if the credentials of ``store`` can list or write below ``foreign``.

    They belong to people of one namespace, and ``foreign`` to nobody.
    """
    key = f"{foreign}{uuid.uuid4().hex}"
    attempts: list[tuple[str, Callable[[], Any]]] = [
        ("list what belongs to others", lambda: next(store.list(foreign), None)),
        ("write what belongs to others", lambda: store.put_bytes(key, b"1")),
    ]
    for action, attempt in attempts:
        try:
            attempt()
        except StorageForbidden:
            continue
        with contextlib.suppress(StoreError):
            store.delete([key])
        return f"the credentials of people in this namespace can {action}"
    return ""
