"""Reads which models of the mirror runs can use, when the platform serves them without an entry.

Those who may push models write there, so the number of keys and of models is bounded, and a record
that cannot be used costs only its own model.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby, islice
from typing import Final, NamedTuple

from flashrun.api import names
from flashrun.api.catalog import Catalog, Model
from flashrun.api.platform import Platform
from flashrun.api.records import Manifest
from flashrun.controller import operator_metrics
from flashrun.plan.mirrored_models import (
    MirrorAnswer,
    RevisionVerdict,
    choose_revision,
    judge_revision,
)
from flashrun.store import Store
from flashrun.store_errors import Corrupt, KeyNotFound
from flashrun.store_listing import Entry

KEYS_LIMIT: Final = 50_000
"""Most keys of the mirror that are listed at once."""
MODELS_LIMIT: Final = 500
"""Most models that are published: they are in a ConfigMap of each namespace."""
FRESH_SECONDS: Final = 60.0
"""How long the answer for one model is used again."""
_SENTENCE_LIMIT: Final = 300

log = logging.getLogger(__name__)


class MirrorContent(NamedTuple):
    """The mirrored models that have no entry in the catalog."""

    models: tuple[Model, ...] = ()
    refused: Mapping[str, str] = {}
    """Ids of models that cannot be used, with the reason."""


class _KnownAnswer(NamedTuple):
    read_at: float
    answer: MirrorAnswer


class MirrorReader:
    """The mirror of one platform; its methods are called in threads for storage."""

    def __init__(
        self, store: Store, platform: Platform, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._clock = store, clock
        self._on, self._catalog = platform.models_from_mirror, Catalog(platform.models)
        self._verdicts: dict[str, tuple[bytes, RevisionVerdict]] = {}
        """Prefix of a revision → what its listing looked like, and the verdict."""
        self._answers: dict[tuple[str, str], _KnownAnswer] = {}

    def serves(self, model_id: str) -> bool:
        """Return whether a model of this id comes from the mirror, if it is there."""
        return self._on and names.is_model_id(model_id) and self._catalog.get(model_id) is None

    def find(self, model_id: str, revision: str = "") -> MirrorAnswer | None:
        """Return what a run of this model gets; None when the mirror is not asked, or has nothing.

        ``revision`` is that of a run that has begun; others get the newest one.

        Raises:
            StoreError: storage cannot be read.
        """
        if not self.serves(model_id):
            return None
        known = self._answers.get((model_id, revision))
        if known is not None and self._clock() - known.read_at < FRESH_SECONDS:
            return known.answer
        listing = self._list(names.model_revisions_prefix(model_id))
        verdicts = [verdict for _, verdict in self._judge(listing)]
        chosen = choose_revision(v for v in verdicts if revision in ("", v.revision))
        if chosen is not None and chosen.model is not None:
            if len(self._answers) >= MODELS_LIMIT:
                self._answers.clear()
            self._answers[model_id, revision] = _KnownAnswer(self._clock(), chosen)
        return chosen

    def read_all(self) -> MirrorContent:
        """Return all models that runs can use, and those that cannot be used.

        Raises:
            StoreError: storage cannot be read.
        """
        if not self._on:
            return MirrorContent()
        verdicts: dict[str, list[RevisionVerdict]] = {}
        seen: set[str] = set()
        for model_id, verdict in self._judge(self._list(names.MODELS_PREFIX)):
            seen.add(names.model_prefix(model_id, verdict.revision))
            verdicts.setdefault(model_id, []).append(verdict)
        for gone in self._verdicts.keys() - seen:
            self._verdicts.pop(gone, None)
        if len(verdicts) > MODELS_LIMIT:
            log.warning("the mirror has %d models; %d are shown", len(verdicts), MODELS_LIMIT)
        answers = {
            model_id: choose_revision(found)
            for model_id, found in islice(verdicts.items(), MODELS_LIMIT)
        }
        return MirrorContent(
            tuple(answer.model for answer in answers.values() if answer and answer.model),
            {
                model_id: answer.refused[:_SENTENCE_LIMIT]
                for model_id, answer in answers.items()
                if answer and answer.refused
            },
        )

    def _list(self, prefix: str) -> Iterator[Entry]:
        """Yield the keys below ``prefix``; raises ``Corrupt`` when there are too many."""
        for count, entry in enumerate(self._store.list(prefix), 1):
            if count > KEYS_LIMIT:
                raise Corrupt(f"there are more than {KEYS_LIMIT:,} keys below {prefix}")
            yield entry

    def _judge(self, listing: Iterable[Entry]) -> Iterator[tuple[str, RevisionVerdict]]:
        """Yield a verdict on each revision with a manifest of a model that has no other entry."""
        for (model_id, revision), entries in groupby(listing, _revision_of):
            prefix = names.model_prefix(model_id, revision)
            files = {entry.key.removeprefix(prefix): entry for entry in entries}
            usable_name = self.serves(model_id) and names.is_model_revision(revision)
            if usable_name and names.MANIFEST in files:
                yield model_id, self._verdict(model_id, revision, files)

    def _verdict(self, model_id: str, revision: str, files: dict[str, Entry]) -> RevisionVerdict:
        """Return the verdict on a revision; it is known until a file changes."""
        mark = _mark(files)
        prefix = names.model_prefix(model_id, revision)
        before = self._verdicts.get(prefix)
        if before is not None and before[0] == mark:
            return before[1]
        manifest: Manifest | str
        try:
            manifest = self._store.get_json(prefix + names.MANIFEST, Manifest)
        except (Corrupt, KeyNotFound) as error:
            manifest = str(error)
        sizes = {path: entry.size for path, entry in files.items()}
        verdict = judge_revision(model_id, revision, manifest, sizes)
        if verdict.answer.refused:
            operator_metrics.RECORDS_REFUSED.labels(Manifest.__name__).inc()
            log.warning(
                "model %s of the mirror at revision %s cannot be used: %s",
                model_id,
                revision,
                verdict.answer.refused,
            )
        self._verdicts[prefix] = (mark, verdict)
        return verdict


def _revision_of(entry: Entry) -> tuple[str, str]:
    """Return model and revision of a key; both are empty for a key that is not of a model."""
    parts = entry.key.removeprefix(names.MODELS_PREFIX).split("/")
    return ("/".join(parts[:2]), parts[2]) if len(parts) > 3 else ("", "")


def _mark(files: dict[str, Entry]) -> bytes:
    """Return a digest that changes when a file does."""
    lines = (f"{entry.size} {entry.etag} {path}\n" for path, entry in files.items())
    text = "".join(lines).encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()
