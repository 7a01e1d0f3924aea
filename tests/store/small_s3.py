"""A small S3 server in memory that can lack what other servers lack.

It does what the probe asks, with session policies. ``Fault`` names what is wrong with it.
"""

import fnmatch
import hashlib
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from flashrun.api.records import StorageAccess

BUCKET = "bucket"
KEY = "operator"
SECRET = "not-checked"
TIME = "2026-11-29T00:00:00.000Z"


class Fault(Enum):
    """What a server does wrong."""

    OVERWRITES = auto()
    REFUSES_CONDITIONS = auto()
    ANSWERS_409 = auto()
    CHECKS_BEFORE_WRITING = auto()
    LISTS_LATE = auto()
    LISTS_DELETED = auto()
    REFUSES_PARTS = auto()
    MIXES_PARTS = auto()
    STS_405 = auto()
    STS_501 = auto()
    STS_403 = auto()
    STS_HTML = auto()
    STS_LISTS_BUCKETS = auto()
    NO_STS_500 = auto()
    NO_STS_503 = auto()
    UNLIMITED_KEYS = auto()
    READS_EVERYTHING = auto()
    LISTS_EVERYTHING = auto()
    KEYS_NOT_ACCEPTED = auto()


@dataclass
class SmallS3:
    """What the server holds, and what is wrong with it."""

    faults: frozenset[Fault]
    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    lifetime: timedelta = timedelta(hours=1)
    """How long the keys are valid that STS answers."""
    ends: dict[str, datetime] = field(default_factory=dict)
    """Keys that STS has answered → when they end."""
    forms: list[dict[str, str]] = field(default_factory=list)
    """The requests for keys."""
    hosts: set[str] = field(default_factory=set)
    """The host names in requests."""
    expired: int = 0
    """Requests with keys that had ended."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def access(self) -> StorageAccess:
        return StorageAccess(endpoint=self.url, bucket=BUCKET, access_key=KEY, secret_key=SECRET)

    def has(self, fault: Fault) -> bool:
        return fault in self.faults

    def accepts(self, user: str) -> bool:
        """Whether the keys of ``user`` have not ended."""
        if user in self.ends and datetime.now(UTC) > self.ends[user]:
            self.expired += 1
            return False
        return True

    def may(self, user: str, action: str, key: str) -> bool:
        """Whether the policy of a session allows an action; the operator may do everything."""
        policy = self.policies.get(user)
        if policy is None or self.has(Fault.UNLIMITED_KEYS):
            return True
        if self.has(Fault.READS_EVERYTHING) and action == "s3:GetObject":
            return True
        if action == "s3:ListBucket":
            if self.has(Fault.LISTS_EVERYTHING):
                return True
            patterns = policy["Statement"][0]["Condition"]["StringLike"]["s3:prefix"]
        else:
            patterns = [
                resource.partition("/")[2]
                for statement in policy["Statement"]
                if action in statement["Action"]
                for resource in statement["Resource"]
            ]
        return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "SmallS3/1.0", ""
    wbufsize, disable_nagle_algorithm = 65536, True
    server: "_Server"

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def parse_request(self) -> bool:
        """Refuse keys that have ended, whatever is asked."""
        if not super().parse_request():
            return False
        self.server.s3.hosts.add(self.headers.get("Host", "").partition(":")[0])
        if self.server.s3.accepts(self.user):
            return True
        _ = self.body
        self._refuse(400, "ExpiredToken")
        self.wfile.flush()
        return False

    def do_GET(self) -> None:
        s3 = self.server.s3
        if not self.key:
            self._list()
        elif not s3.may(self.user, "s3:GetObject", self.key):
            self._refuse(403, "AccessDenied")
        elif self.key not in s3.objects:
            self._refuse(404, "NoSuchKey")
        else:
            self._answer(200, s3.objects[self.key], "application/octet-stream")

    def do_HEAD(self) -> None:
        found = not self.key or self.key in self.server.s3.objects
        self._answer(200 if found else 404, b"")

    def do_DELETE(self) -> None:
        self.server.s3.objects.pop(self.key, None)
        self._answer(204, b"")

    def do_PUT(self) -> None:
        s3, body = self.server.s3, self.body
        if s3.has(Fault.KEYS_NOT_ACCEPTED) and self.user != KEY:
            return self._refuse(403, "InvalidAccessKeyId")
        if not s3.may(self.user, "s3:PutObject", self.key):
            return self._refuse(403, "AccessDenied")
        if "uploadId" in self.query:
            s3.uploads[self.query["uploadId"]][int(self.query["partNumber"])] = body
            return self._answer(200, b"", etag=body)
        if self.headers.get("If-None-Match") == "*":
            return self._create(body)
        s3.objects[self.key] = body
        s3.written.add(self.key)
        return self._answer(200, b"", etag=body)

    def _create(self, body: bytes) -> None:
        s3 = self.server.s3
        if s3.has(Fault.REFUSES_CONDITIONS):
            return self._refuse(501, "NotImplemented")
        with s3.lock:
            exists = self.key in s3.objects and not s3.has(Fault.OVERWRITES)
            if not exists and not s3.has(Fault.CHECKS_BEFORE_WRITING):
                s3.objects[self.key] = body
        if exists:
            conflict = s3.has(Fault.ANSWERS_409)
            return self._refuse(*(409, "Conflict") if conflict else (412, "PreconditionFailed"))
        if s3.has(Fault.CHECKS_BEFORE_WRITING):
            time.sleep(1.0)  # the others have checked by then, on a busy machine too
            s3.objects[self.key] = body
        return self._answer(200, b"", etag=body)

    def do_POST(self) -> None:
        s3, body = self.server.s3, self.body
        if not self.bucket:
            return self._assume(parse_qs(body.decode()))
        if "delete" in self.query:
            return self._delete(re.findall("<Key>(.*?)</Key>", body.decode()))
        if s3.has(Fault.REFUSES_PARTS):
            return self._refuse(501, "NotImplemented")
        if "uploads" in self.query:
            identifier = hashlib.sha256(self.key.encode()).hexdigest()
            s3.uploads[identifier] = {}
            return self._xml(f"<R><UploadId>{identifier}</UploadId></R>")
        parts = s3.uploads.pop(self.query["uploadId"])
        order = sorted(parts, reverse=s3.has(Fault.MIXES_PARTS))
        s3.objects[self.key] = b"".join(parts[number] for number in order)
        return self._xml(
            f"<R><Bucket>{BUCKET}</Bucket><Key>{escape(self.key)}</Key><ETag>e</ETag></R>"
        )

    def _delete(self, keys: list[str]) -> None:
        s3 = self.server.s3
        refused = [key for key in keys if not s3.may(self.user, "s3:DeleteObject", key)]
        for key in keys:
            if key not in refused and not s3.has(Fault.LISTS_DELETED):
                s3.objects.pop(key, None)
        errors = "".join(
            f"<Error><Key>{escape(key)}</Key><Code>AccessDenied</Code><Message>m</Message></Error>"
            for key in refused
        )
        self._xml(f"<DeleteResult>{errors}</DeleteResult>")

    def _list(self) -> None:
        s3, prefix = self.server.s3, self.query.get("prefix", "")
        if not s3.may(self.user, "s3:ListBucket", prefix):
            return self._refuse(403, "AccessDenied")
        late = s3.written if s3.has(Fault.LISTS_LATE) else set()
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>{_etag(data)}</ETag>"
            f"<LastModified>{TIME}</LastModified></Contents>"
            for key, data in sorted(s3.objects.items())
            if key.startswith(prefix) and key not in late
        )
        s3.written.clear()
        return self._xml(f"<R><IsTruncated>false</IsTruncated>{rows}</R>")

    def _assume(self, form: dict[str, list[str]]) -> None:
        s3 = self.server.s3
        if s3.has(Fault.STS_405):
            return self._refuse(405, "MethodNotAllowed")
        if s3.has(Fault.STS_501):
            return self._refuse(501, "NotImplemented")
        if s3.has(Fault.STS_403):
            return self._refuse(403, "SignatureDoesNotMatch")
        if s3.has(Fault.NO_STS_500):
            return self._refuse(500, "InternalError")
        if s3.has(Fault.NO_STS_503):
            return self._refuse(503, "ServiceUnavailable")
        if s3.has(Fault.STS_HTML):
            return self._answer(200, b"<html><body>welcome</body></html>", "text/html")
        if s3.has(Fault.STS_LISTS_BUCKETS):
            return self._xml("<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>")
        s3.forms.append({name: values[0] for name, values in form.items()})
        user = f"session-{len(s3.ends)}"
        if "Policy" in form:
            s3.policies[user] = json.loads(form["Policy"][0])
        s3.ends[user] = datetime.now(UTC) + s3.lifetime
        values = {"AccessKeyId": user, "SecretAccessKey": SECRET, "SessionToken": "token"}
        values["Expiration"] = s3.ends[user].isoformat().replace("+00:00", "Z")
        texts = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
        return self._xml(f"<R><Credentials>{texts}</Credentials></R>")

    # --- the request, and the answer ----------------------------------------------------------

    @property
    def bucket(self) -> str:
        return urlsplit(self.path).path.lstrip("/").partition("/")[0]

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path.lstrip("/").partition("/")[2])

    @property
    def query(self) -> dict[str, str]:
        fields = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        return {name: values[0] for name, values in fields.items()}

    @property
    def user(self) -> str:
        found = re.search("Credential=([^/]+)/", self.headers.get("Authorization", ""))
        return found.group(1) if found else ""

    @property
    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _refuse(self, status: int, code: str) -> None:
        self._xml(f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", status)

    def _xml(self, text: str, status: int = 200) -> None:
        self._answer(status, text.encode(), "application/xml")

    def _answer(
        self, status: int, body: bytes, content_type: str = "", etag: bytes | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if content_type:
            self.send_header("Content-Type", content_type)
        if etag is not None:
            self.send_header("ETag", _etag(etag))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    s3: SmallS3


def _etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@contextmanager
def small_s3(*faults: Fault, tls: ssl.SSLContext | None = None) -> Iterator[SmallS3]:
    """Serve on loopback until the end of the context."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        place = f"127.0.0.1:{server.server_address[1]}"
        server.s3 = SmallS3(frozenset(faults), f"{'https' if tls else 'http'}://{place}")
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.s3
        finally:
            server.shutdown()
            thread.join()
