"""What looks like a secret is refused; what only looks busy is not."""

import base64
import random

import pytest

from flashrun.api import secret_patterns

SECRETS = {
    "an OpenAI key": "sk-abcdefghijklmnopqrstuvwx",
    "a project key": "sk-proj-AbCd1234efgh5678ijkl",
    "a payment key": "sk_live_abcdefghijklmnop1234",
    "a GitHub token": "ghp_" + "a1B2" * 9,
    "a fine-grained GitHub token": "github_pat_11ABCDEFG0abcdefghijklmnop",
    "a GitLab token": "glpat-abcdefghij0123456789",
    "a Hugging Face token": "hf_aBcDeFgHiJkLmNoPqRsTuV",
    "an AWS key id": "AKIAIOSFODNN7EXAMPLE",
    "an AWS secret key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "a Google key": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "a Slack token": "xoxb-123456789012-abcdefghij",
    "an npm token": "npm_" + "a" * 36,
    "a JSON web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc",
    "a private key": "-----BEGIN PRIVATE KEY-----\nMIIE",
    "an RSA key": "-----BEGIN RSA PRIVATE KEY-----",
    "a bearer header": "Authorization: Bearer abcdefghijklmnop",
    "a URL with a password": "https://user:hunter2@host/path",
    "a database URL": "postgres://u:p@db/name",
    "an AWS secret key behind its name": "AWS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "a random key in base64": "Zk3vQ9rT7xLm2Wc8Yb5Nj1Hd",
    "a random key in base64 with padding": "9fKq2ZrT+xLm7Wc8/b5Nj1HdQe4Uo0Aa==",
    "a random key behind a prefix": "api-Zk3vQ9rT7xLm2Wc8Yb5Nj1HdQe4Uo0Aa",
    "a long random key in one case": "4f9z8x7c6v5b4n3m2l1kqjw0e9r8t7y6u5",
    "a URL with a password and no user": "redis://:hunter2@host:6379/0",
    "an encrypted key": "-----BEGIN ENCRYPTED PRIVATE KEY-----",
    "an OpenSSH key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "a token inside a sentence": "use ghp_abcdefghijklmnopqrstuvwxyz0123456789 to log in",
}
HARMLESS = {
    "a git commit": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "a path with a UUID": (
        "runs/team-a/run-75/b07d45c0-22c2-48e1-91ef-9a494da0ab66/attempt-1/claim.json in storage"
    ),
    "a path with a digest": (
        "environments/examples/sums/"
        "59212f76acd5fb91f077b553cc9dba36552a49652857b44081ca0f197b2cb3a4.tar.gz"
    ),
    "a UUID": "3fa9c1d2-77ab-4a1b-9c3d-5e8f00112233",
    "an image digest": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "a short git commit": "v1.4.2-11-gda39a3e",
    "an upper-case UUID": "3FA9C1D2-77AB-4A1B-9C3D-5E8F00112233",
    "a version": "torch==2.10.0+cu128",
    "a local version": "1.0.0rc1.post2.dev3+g1a2b3c4d5",
    "a wheel": "flash_attn-2.8.3+cu12torch2.8cxx11abiTRUE-cp313-cp313-linux_x86_64.whl",
    "a path of forty characters": "datasets/Physics2026/Train/shard0001full",
    "a Windows path": "C:/Users/Anna/Documents/GitHub/My-Project2026",
    "an InChI": "InChI=1S/C8H10N4O2/c1-10-4-9-6-5(10)7(13)12(3)8(14)11(6)2/h4H,1-3H3",
    "an InChIKey": "BSYNRYMUTXBXSQ-UHFFFAOYSA-N",
    "a SMILES": "CN1CCC23C4C1CC5=C2C(=C(C=C5)O)OC3C(C=C4)O",
    "an aromatic SMILES": "c1ccc2c3c4ccccc4ccc3c1cc2c1ccc2c3c4ccccc4ccc3c1cc2",
    "formulas": "Fe2O3Al2O3SiO2TiO2CaCO3MgOK2CO3",
    "a protein": "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHF",
    "a chess position": "r1bqkb1r/pppp1ppp/2n2n2/4p2Q/2B1P3/8/PPPP1PPP/RNB1K1NR",
    "a word in base64": "SGVsbG8gd29ybGQ=",
    "a ULID": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "the name of an experiment": "SFT_r32_a64_lr1e-4_bs32_ml1024_ep3_S42",
    "another experiment": "LoRA-r16-a32-LR2e5-BS64-ML2048-T1",
    "an ARN": "arn:aws:iam::123456789012:role/FlashRunTrainerRole2026",
    "a database URL without a password": "postgresql+psycopg2://db.example/name",
    "a long word": "pneumonoultramicroscopicsilicovolcanoconiosis",
    "the alphabet": "0123456789abcdefghijklmnopqrstuvwxyz",
    "a path": "/data/datasets/Experiment_2026/Train-Split-v3.jsonl",
    "a bucket path": "s3://bucket/Prefix-2026/Run_17/file.parquet",
    "a run": "flash-1795370000-3fa9c1d2/step-50",
    "a model": "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8",
    "another model": "nvidia/Llama-3_3-Nemotron-Super-49B-v1_5",
    "a third model": "mistralai/Mixtral-8x22B-Instruct-v0.1",
    "an identifier": "ExperimentWithLoraRank32AndAlpha64",
    "a URL": "https://example.com/a/b/c?x=1",
    "a URL with a user": "http://user@host/path",
    "a prompt": "Answer with the number only.\nThink step by step.",
    "a special token": "<|im_start|>assistant",
    "a time": "my-experiment-2026-11-22T12-00-00Z",
}


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS)
def test_it_looks_like_a_secret(text: str) -> None:
    assert secret_patterns.describe_secret(text) is not None
    assert secret_patterns.redact_secrets(text) != text


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_it_is_harmless(text: str) -> None:
    assert secret_patterns.describe_secret(text) is None
    assert secret_patterns.redact_secrets(text) == text


ENCODED = (
    "a GitHub token",
    "a Hugging Face token",
    "a GitLab token",
    "an npm token",
    "an AWS key id",
)


@pytest.mark.parametrize("name", ENCODED)
def test_an_encoded_token_is_redacted(name: str) -> None:
    """As somebody would print it to get it past a search for its shape."""
    data = SECRETS[name].encode()
    printed = [data.hex(), data.hex().upper(), *(data.hex(mark) for mark in " :-%")]
    printed += ["".join(f"\\x{byte:02x}" for byte in data), ", ".join(map(hex, data))]
    for shift in range(3):
        printed += [encode(b"::"[:shift] + data).decode()
                    for encode in (base64.b64encode, base64.urlsafe_b64encode)]  # fmt: skip
    for text in printed:
        assert secret_patterns.redact_secrets(f"got {text}!").startswith("got ***"), text
        assert text[8:-8] not in secret_patterns.redact_secrets(f"got {text}!")


def test_base64_that_is_cut_at_its_beginning_shows_no_token() -> None:
    text = base64.b64encode(b"the key is hf_aBcDeFgHiJkLmNoPqRsTuV").decode()
    for cut in range(12):
        assert "***" in secret_patterns.redact_secrets(text[cut:]), cut


def test_nearly_every_random_key_is_recognized() -> None:
    generator = random.Random(42)
    keys = [base64.b64encode(generator.randbytes(24)).decode() for _ in range(500)]
    tokens = [base64.urlsafe_b64encode(generator.randbytes(32)).decode() for _ in range(500)]

    assert sum(secret_patterns.describe_secret(key) is not None for key in keys) > 460
    assert sum(secret_patterns.describe_secret(token) is not None for token in tokens) > 485


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "DB_PASSWORD",
        "githubToken",
        "my-secret",
        "SSH_KEY",
        "PAT",
        "X_PRIVATE_KEY",
    ],
)
def test_it_is_the_name_of_a_secret(name: str) -> None:
    assert secret_patterns.is_secret_name(name)


@pytest.mark.parametrize("name", ["SORT_KEY", "MAX_TOKENS", "PATTERN", "FEATURE_FLAG", "KEYBOARD"])
def test_it_is_the_name_of_something_else(name: str) -> None:
    assert not secret_patterns.is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "hf_token", "RUN_ID", "SEED", "PATH", "LD_PRELOAD", "PYTHONPATH", "AWS_REGION",
     "PIP_INDEX_URL", "KUBERNETES_SERVICE_HOST", "FLASHRUN_SPEC", "https_proxy"],
)  # fmt: skip
def test_a_user_may_not_set_it(name: str) -> None:
    assert secret_patterns.why_forbidden(name) is not None


@pytest.mark.parametrize("text", ["a", "eyJ-", "a://:", "-----BEGIN ", "bearer ", "Ab1", "A1b2/"])
def test_a_megabyte_of_anything_is_read_to_its_end(text: str) -> None:
    long = text * (1_000_000 // len(text))

    assert secret_patterns.describe_secret(f"{long} {SECRETS['a GitHub token']}") is not None
