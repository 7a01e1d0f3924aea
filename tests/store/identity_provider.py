"""An identity provider (OpenID Connect) that signs tokens as a cluster does."""

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.json_server import serve_json

AUDIENCE = "storage"


@dataclass(frozen=True)
class IdentityProvider:
    """The key of the provider, and where it is published."""

    key: Path
    issuer: str

    @property
    def configuration(self) -> str:
        """The address that a server which trusts the provider reads."""
        return f"{self.issuer}/.well-known/openid-configuration"

    def token(self, **claims: Any) -> str:
        """Return a token that is valid for an hour."""
        now = int(time.time())
        payload = {"iss": self.issuer, "aud": AUDIENCE, "sub": "operator", "iat": now}
        payload |= {"exp": now + 3600, **claims}
        header = {"alg": "RS256", "typ": "JWT", "kid": "key"}
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, payload))
        signature = _openssl("dgst", "-sha256", "-sign", str(self.key), stdin=signed.encode())
        return f"{signed}.{_encoded(signature)}"

    def document(self, path: str) -> dict[str, Any]:
        if path.endswith("openid-configuration"):
            return {
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/keys",
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        text = _openssl("rsa", "-in", str(self.key), "-noout", "-modulus").decode()
        modulus = _encoded(bytes.fromhex(text.strip().partition("=")[2]))
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "key", "n": modulus, "e": "AQAB"}
        return {"keys": [key]}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _openssl(*words: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *words], input=stdin, capture_output=True, check=True).stdout


@contextmanager
def identity_provider(folder: Path) -> Iterator[IdentityProvider]:
    """Serve the provider on loopback until the end of the context."""
    key = folder / "provider.key"
    _openssl("genrsa", "-out", str(key), "2048")

    with serve_json(lambda path, _: provider.document(path)) as port:
        provider = IdentityProvider(key, f"http://127.0.0.1:{port}")
        yield provider
