"""Which names and values look like secrets, and which names a user may not set.

A value that looks like a credential belongs in ``[environment].secrets``, never in a spec that is
copied to status, storage and git. The token shapes are those that their issuers document; the
entropy rule catches the rest, and is tuned to let git hashes, UUIDs, versions and paths pass.
"""

import base64
import math
import re
from collections import Counter
from typing import Final

RESERVED_NAMES: Final = frozenset(
    {
        "FREESOLO_API_KEY", "FREESOLO_INTERNAL_KEY", "RUNPOD_API_KEY", "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "RUN_ID", "HF_REPO", "FLASH_ARM", "SEED",
    }
)  # fmt: skip
"""Names that the platform owns."""

RESERVED: Final = "is reserved: the platform sets it"
HIJACKING: Final = "would change how the trainer itself runs"

HIJACKING_NAMES: Final = frozenset(
    {"PATH", "HOME", "IFS", "SHELL", "BASH_ENV", "ENV", "HF_ENDPOINT", "HF_HOME", "SSL_CERT_FILE",
     "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
     "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "RANK", "LOCAL_RANK", "GROUP_RANK",
     "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GCONV_PATH",
     "ALL_PROXY", "OPENSSL_CONF", "OPENSSL_MODULES", "SSL_CERT_DIR", "PROMPT_COMMAND"}
)  # fmt: skip
HIJACKING_PREFIXES: Final = (
    "LD_", "PYTHON", "AWS_", "PIP_", "KUBERNETES_", "FLASHRUN_", "TORCHELASTIC_",
    "ACCELERATE_", "BASH_FUNC_",
)  # fmt: skip

SECRET_WORDS: Final = frozenset(
    {"TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS", "APIKEY",
     "PRIVATEKEY", "PAT"}
)  # fmt: skip
KEY_QUALIFIERS: Final = frozenset(
    {"API", "SECRET", "PRIVATE", "ACCESS", "INTERNAL", "AUTH", "SIGNING", "ENCRYPTION", "SSH",
     "DEPLOY", "GPG", "PGP", "RSA", "PEM", "SSL", "TLS"}
)  # fmt: skip

TOKEN_SHAPES: Final = (
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")),
    ("an API key", re.compile(r"\b[sr]k-[A-Za-z0-9_-]{16,}")),
    ("a payment API key", re.compile(r"\b[srp]k_(?:live|test)_[A-Za-z0-9]{16,}")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})")),
    ("a GitLab token", re.compile(r"\bglpat-[\w-]{16,}")),
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{16,}")),
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a Google API key", re.compile(r"\bAIza[\w-]{30,}")),
    ("a Slack token", re.compile(r"\bxox[abeoprs]-[\w-]{10,}")),
    ("an npm or PyPI token", re.compile(r"\b(?:npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,})")),
    ("a JSON web token", re.compile(r"\beyJ[\w-]{8,512}\.eyJ[\w-]{8,2048}\.")),
    ("a bearer token", re.compile(r"(?i)\bbearer\s+[\w.~+/-]{12,}")),
    ("a URL with a password", re.compile(r"\b[a-z][a-z0-9+.-]{0,15}://[^\s/:@]*:[^\s/@]+@", re.I)),
)
_WORD = re.compile(r"[A-Za-z0-9+/_-]{24,}")
_HEX_OR_UUID = re.compile(r"[0-9a-fA-F-]+")
_IN_PATHS = re.compile(
    r"(?<![A-Za-z0-9])(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-f]{32,64})"
    r"(?![A-Za-z0-9])"
)
"""UUIDs and digests, which paths in storage have as parts of their own."""
_HEX_BYTES = re.compile(
    r"(?:(?:[0-9a-fA-F]{2}|\\x[0-9a-fA-F]{2}|0x[0-9a-fA-F]{2})(?:[ :%-]|, ?)?){12,}"
)
_HEX_DIGITS = re.compile(r"(?:\\x|0x)?([0-9a-fA-F]{2})")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}")
_SEGMENT = re.compile(r"[A-Za-z0-9]{12,}")
"""A stretch without separators: names that people write have shorter ones."""
_TURN = re.compile(r"(?<=[a-z])[A-Z0-9]|(?<=[A-Z])[0-9]|(?<=[0-9])[A-Za-z]")
"""A change of case or kind inside a word; the capital at its beginning does not count."""
_TURNS_SHARE: Final = 0.22
"""Share of turns above which a word is not an identifier: names turn where their words meet."""
_AWS_SECRET_KEY: Final = (40, 0.18)
"""Length of AWS's secret keys, and the share of turns that is enough for one."""
_ENTROPY_BITS: Final = 4.2
"""Bits per character (Shannon) above which a mixed-case word with digits reads as random."""
_ENTROPY_BITS_ONE_CASE: Final = 4.0
_ONE_CASE_LENGTH: Final = 32
"""Shortest random word of digits and letters of one case; shorter ones are often identifiers."""


def describe_secret(text: str) -> str | None:
    """Return what secret ``text`` looks like, as in "a GitHub token", or None."""
    for description, shape in TOKEN_SHAPES:
        if shape.search(text):
            return description
    return "a random key" if any(map(_looks_random, _WORD.findall(text))) else None


def redact_secrets(text: str) -> str:
    """Return ``text`` with everything in it that looks like a secret replaced by asterisks."""
    for _, shape in TOKEN_SHAPES:
        text = shape.sub("***", text)
    text = _HEX_BYTES.sub(lambda match: "***" if _is_text_in_hex(match[0]) else match[0], text)
    text = _BASE64.sub(lambda match: "***" if _has_token_in_base64(match[0]) else match[0], text)
    return _WORD.sub(lambda word: "***" if _looks_random(word[0]) else word[0], text)


def is_secret_name(name: str) -> bool:
    """Say whether an environment variable of this name would hold a secret."""
    words = set(re.split(r"[^A-Z0-9]+", _snake(name).upper()))
    return bool(words & SECRET_WORDS) or ("KEY" in words and bool(words & KEY_QUALIFIERS))


def why_forbidden(name: str) -> str | None:
    """Return why a user may not set the environment variable ``name``, or None."""
    upper = name.upper()
    if upper in RESERVED_NAMES:
        return RESERVED
    if upper in HIJACKING_NAMES or upper.startswith(HIJACKING_PREFIXES):
        return HIJACKING
    return None


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)


def _is_text_in_hex(digits: str) -> bool:
    """Say whether digits spell printable ASCII characters: those of a digest never do."""
    return all(32 <= int(pair, 16) < 127 for pair in _HEX_DIGITS.findall(digits))


def _has_token_in_base64(word: str) -> bool:
    """Say whether base64 has a token in it; its beginning may be cut at any character."""
    usual = word.translate(str.maketrans("-_", "+/"))
    for cut in range(4):
        piece = usual[cut:] if len(usual[cut:]) % 4 != 1 else usual[cut:-1]
        content = base64.b64decode(piece + "=" * (-len(piece) % 4)).decode("latin-1")
        if any(shape.search(content) for _, shape in TOKEN_SHAPES):
            return True
    return False


def _looks_random(word: str) -> bool:
    word = _IN_PATHS.sub("", word)
    if _HEX_OR_UUID.fullmatch(word) or not _SEGMENT.search(word):
        return False
    length, enough = _AWS_SECRET_KEY
    turns = enough if len(word) == length else _TURNS_SHARE
    if len(_TURN.findall(word)) < turns * len(word) or not any(map(str.isdigit, word)):
        return False
    mixed = any(map(str.islower, word)) and any(map(str.isupper, word))
    if not mixed and len(word) < _ONE_CASE_LENGTH:
        return False
    counts = Counter(word).values()
    entropy = -sum(n / len(word) * math.log2(n / len(word)) for n in counts)
    bits = _ENTROPY_BITS if mixed else _ENTROPY_BITS_ONE_CASE
    return entropy > min(bits, math.log2(len(word)) - 0.75)
