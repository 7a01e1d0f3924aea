"""The certificate authority and what it signs, checked with openssl."""

import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from localcluster.pki import Authority
from localcluster.steps import FatalError


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "pki")
    authority.create()
    return authority


def openssl(*words: object) -> str:
    argv = ["openssl", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_a_certificate_is_signed_for_its_subject_and_names(authority: Authority) -> None:
    leaf = authority.leaf("api", "/O=masters/CN=api", ["DNS:localhost", "IP:127.0.0.1"])
    openssl("verify", "-CAfile", authority.certificate, leaf.certificate)
    text = openssl("x509", "-in", leaf.certificate, "-noout", "-subject", "-ext", "subjectAltName")
    assert "O = masters, CN = api" in text or "O=masters, CN=api" in text
    assert "DNS:localhost, IP Address:127.0.0.1" in text


def test_a_certificate_is_made_again_only_when_its_names_change(authority: Authority) -> None:
    first = authority.leaf("api", "/CN=api", ["DNS:a"]).certificate.read_bytes()
    assert authority.leaf("api", "/CN=api", ["DNS:a"]).certificate.read_bytes() == first
    assert authority.leaf("api", "/CN=api", ["DNS:b"]).certificate.read_bytes() != first


def test_an_authority_that_exists_stays(authority: Authority) -> None:
    before = authority.certificate.read_bytes()
    authority.create()
    assert authority.certificate.read_bytes() == before


def test_only_the_owner_may_read_keys_and_kubeconfigs(authority: Authority, tmp_path: Path) -> None:
    leaf = authority.leaf("admin", "/CN=admin", ["DNS:admin"])
    path = authority.kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", leaf)
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = yaml.safe_load(path.read_text())
    assert config["current-context"] == "flashrun-local"
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"


def test_tokens_are_signed_with_a_pair_that_stays(authority: Authority) -> None:
    pair = authority.signing_pair("service-accounts")
    public = openssl("rsa", "-in", pair.key, "-pubout")
    assert pair.certificate.read_text() == public
    assert authority.signing_pair("service-accounts").certificate.read_text() == public


def test_a_machine_without_openssl_ends_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FatalError, match="the program openssl is missing; install it"):
        Authority(tmp_path / "pki").create()


def test_a_failure_of_openssl_ends_in_its_words(authority: Authority) -> None:
    with pytest.raises(FatalError, match="openssl req failed: "):
        authority.leaf("bad", "no slash", ["DNS:a"])
