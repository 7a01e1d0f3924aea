"""A certificate authority and the certificates that it signs, made with the openssl command.

Elliptic keys are made in milliseconds. A certificate is made again when its names change.
"""

import base64
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from localcluster.process import write_if_changed
from localcluster.steps import FatalError

DAYS = "3650"


@dataclass(frozen=True)
class Authority:
    """A certificate authority and its folder."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """The certificate that all servers trust."""
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        """The signing key."""
        return self.folder / "ca.key"

    def create(self) -> None:
        """Create the authority unless it exists."""
        if self.certificate.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        _elliptic_key(self.key)
        usage = "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"
        subject = ["-subj", "/CN=flashrun-local", "-days", DAYS]
        extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", usage]
        files = ["-key", self.key, "-out", self.certificate]
        _openssl("req", "-x509", "-new", *files, *subject, *extensions)

    def leaf(self, name: str, subject: str, names: Sequence[str]) -> "Leaf":
        """Return a certificate for `subject` with alternative `names` such as `DNS:localhost`."""
        leaf = Leaf(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        content = f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={','.join(names)}\n"
        extensions = self.folder / f"{name}.ext"
        before = extensions.read_text() if extensions.exists() else ""
        if before == content and leaf.certificate.exists():
            return leaf
        _elliptic_key(leaf.key)
        request = self.folder / f"{name}.csr"
        extensions.write_text(content)
        _openssl("req", "-new", "-key", leaf.key, "-subj", subject, "-out", request)
        signer = ["-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial", "-days", DAYS]
        files = ["-in", request, "-extfile", extensions, "-out", leaf.certificate]
        _openssl("x509", "-req", *files, *signer)
        return leaf

    def signing_pair(self, name: str) -> "Leaf":
        """Return an RSA key pair for service account tokens; `certificate` is its public key."""
        pair = Leaf(self.folder / f"{name}.pub", self.folder / f"{name}.key")
        if not pair.certificate.exists():
            _openssl("genrsa", "-out", pair.key, "2048")
            _openssl("rsa", "-in", pair.key, "-pubout", "-out", pair.certificate)
        return pair

    def kubeconfig(self, path: Path, server: str, leaf: "Leaf") -> Path:
        """Write a kubeconfig with the certificate `leaf`, readable only by its owner."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "flashrun-local",
                    "cluster": {
                        "server": server,
                        "certificate-authority-data": _base64(self.certificate),
                    },
                }
            ],
            "users": [
                {
                    "name": "flashrun-local",
                    "user": {
                        "client-certificate-data": _base64(leaf.certificate),
                        "client-key-data": _base64(leaf.key),
                    },
                }
            ],
            "contexts": [
                {
                    "name": "flashrun-local",
                    "context": {"cluster": "flashrun-local", "user": "flashrun-local"},
                }
            ],
            "current-context": "flashrun-local",
        }
        return write_if_changed(path, yaml.safe_dump(config), mode=0o600)


@dataclass(frozen=True)
class Leaf:
    """A certificate and its key."""

    certificate: Path
    key: Path


def _elliptic_key(path: Path) -> None:
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)


def _openssl(*arguments: object) -> None:
    argv = ["openssl", *map(str, arguments)]
    try:
        subprocess.run(argv, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise FatalError(
            "the program openssl is missing; install it and run this command again"
        ) from None
    except subprocess.CalledProcessError as error:
        raise FatalError(f"openssl {arguments[0]} failed: {error.stderr.strip()}") from None


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
