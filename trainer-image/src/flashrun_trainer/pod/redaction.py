"""Secrets that must not leave the pod: each secret value in a text is replaced by asterisks."""

import base64
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from flashrun.api import names, secret_patterns
from flashrun.api.records import ResolvedRun

_SHORTEST_SECRET: Final = 6
"""Shorter values are not replaced: they would be found in ordinary words."""
_IN_ADDRESSES: Final = re.compile(
    r"""((?i:://[^\s/:@]*:(?=[^\s/@]+@)
        |://(?=[^\s/:@]{12,}@)
        |[?&\#](?:[\w-]{0,40}(?:token|signature|secret|password|credential|api_?key)[\w-]{0,40}
            |sig|key)=
        |\bauthorization\W{1,4}(?:b\W)?basic\s+
        |\bbearer\s+(?=[\w.~+/=-]*\d)))(?:[^\s&@"'<>\\]+)""",
    re.VERBOSE,
)
"""Passwords, signatures and tokens that libraries print as part of an address or a header."""
_BETWEEN_BYTES: Final = ("", " ", ":", "-", "%", r"\x", ", 0x")
"""What programs print between the bytes of a value in hexadecimal digits."""
_ELLIPSIS: Final = re.compile(r"(…|\.\.\.)")


@dataclass
class Redactor:
    """Replaces secret values in text; thread-safe. Call it with the text."""

    secrets: tuple[str, ...] = field(default=(), repr=False)
    renewed_secrets: Callable[[], Iterable[str]] = tuple
    """Returns values that change during a run, such as storage keys; called for every text."""
    _values: frozenset[str] = field(default=frozenset(), init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @classmethod
    def for_run(
        cls,
        run: ResolvedRun | None,
        environment: Mapping[str, str],
        renewed_secrets: Callable[[], Iterable[str]],
    ) -> Self:
        """Return a redactor for a run's secrets, secret-like variables and ``renewed_secrets``.

        ``run`` is None when the resolved spec cannot be read.
        """
        listed = {names.WANDB_API_KEY, *(run.environment.secrets if run else ())}
        public = run.worker_env if run else {}
        proxies = (environment.get(name, "") for name in ("HTTP_PROXY", "HTTPS_PROXY"))
        addresses = (*((run.pip_index_url, run.hub_endpoint) if run else ()), *proxies)
        values = {
            value
            for name, value in environment.items()
            if name in listed or (secret_patterns.is_secret_name(name) and name not in public)
        }
        values.update(*map(_passwords, addresses))
        redactor = cls(renewed_secrets=renewed_secrets)
        redactor._add({*values, *renewed_secrets()})
        return redactor

    def _add(self, values: Iterable[str]) -> None:
        """Replace these values, too. Earlier values stay: somebody may still use them."""
        with self._lock:
            new_values = frozenset(values) - self._values
            if not new_values:
                return
            spellings = {
                spelling
                for value in new_values
                if len(value.strip()) >= _SHORTEST_SECRET
                for spelling in _spellings(_as_unicode(value.strip(), "replace"))
                if len(spelling) >= _SHORTEST_SECRET
            }
            self.secrets = tuple(sorted({*self.secrets, *spellings}, key=len, reverse=True))
            self._values |= new_values

    def __call__(self, text: str, *, is_fragment: bool = False) -> str:
        """Return ``text`` with asterisks for secret values: known ones, and those in addresses.

        In a fragment of a longer text, the parts of a secret at both ends are replaced, too.
        Invalid Unicode, which could neither be printed nor stored, is escaped with backslashes.
        """
        self._add(self.renewed_secrets())
        text = _as_unicode(text, "backslashreplace")
        for secret in self.secrets:
            text = text.replace(secret, "***")
        if is_fragment:
            for secret in self.secrets:
                text = _without_end(_without_beginning(text, secret), secret)
        return _IN_ADDRESSES.sub(lambda match: f"{match[1]}***", self._without_cut_secrets(text))

    def _without_cut_secrets(self, text: str) -> str:
        """Replace the rest of a secret next to an ellipsis: somebody may have cut a long text."""
        pieces = _ELLIPSIS.split(text)
        for position in range(0, len(pieces) - 1, 2):
            for secret in self.secrets:
                pieces[position] = _without_beginning(pieces[position], secret)
                pieces[position + 2] = _without_end(pieces[position + 2], secret)
        return "".join(pieces)


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it may be printed: line by line, escaped, as part of an address, encoded in
    hexadecimal digits or base64.

    Base64 of a longer text, such as ``user:password``, has the secret in one of three shifts; the
    characters that depend on its neighbours are left out.
    """
    yield secret
    yield from map(str.strip, re.split(r"\n|\\n", secret))  # JSON writes line ends as \n
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield repr(secret)[1:-1]
    for quoted in (
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote(secret),
        urllib.parse.quote_plus(secret),
    ):
        yield quoted
        yield re.sub("%..", lambda code: code[0].lower(), quoted)
    digits = secret.encode().hex(" ")
    for separator in _BETWEEN_BYTES:
        yield from (digits.replace(" ", separator), digits.upper().replace(" ", separator))
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            data = bytes(shift) + secret.encode()
            whole = encode(data).decode().rstrip("=")
            yield whole[(0, 2, 3)[shift] : -1 if len(data) % 3 else None]


def _without_beginning(text: str, secret: str) -> str:
    """Replace the beginning of ``secret`` at the end of ``text``."""
    start = text.rfind(secret[:_SHORTEST_SECRET], max(0, len(text) - len(secret)))
    return f"{text[:start]}***" if start >= 0 and secret.startswith(text[start:]) else text


def _without_end(text: str, secret: str) -> str:
    """Replace the end of ``secret`` at the beginning of ``text``."""
    end = text.find(secret[-_SHORTEST_SECRET:], 0, len(secret)) + _SHORTEST_SECRET
    return f"***{text[end:]}" if end >= _SHORTEST_SECRET and secret.endswith(text[:end]) else text


def _as_unicode(text: str, errors: str) -> str:
    """Return ``text`` without the lone surrogates that Python allows; ``errors`` as in encode."""
    return text.encode("utf-8", errors).decode()


def _passwords(url: str) -> tuple[str, ...]:
    """Return the password in an address, as it is there and as the server reads it."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return ()
    return tuple({parts.password, urllib.parse.unquote(parts.password)}) if parts.password else ()
