"""Bounded reading of what one run wrote to storage.

``RunRecords`` is made for one look at one run. It counts what it lists, refuses records that break
their model, and keeps one sentence about each kind of trouble for the run's status. Manifests never
change: the next look is given what this one concluded from them (``verdicts``), and reads those of
folders that have changed since. Neither manifests nor listings stay in memory.
"""

import heapq
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from flashrun.api import names
from flashrun.api.record_reader import RecordModel
from flashrun.api.records import Claim, Manifest
from flashrun.controller import operator_metrics
from flashrun.plan.commits import CommitMarker, CommitSummary, is_committed, newest_by_step
from flashrun.plan.listed_folders import ListedFolder, digest_files
from flashrun.store import Store
from flashrun.store_errors import KeyNotFound, StorageForbidden, StoreError, Unauthorized
from flashrun.store_listing import Entry

LISTED_LIMIT: Final = 20_000
"""Most keys of one run that are listed in one look."""
CLAIMS_LIMIT: Final = 64
"""Most claims of one run that are read: those of the newest attempts."""
MANIFESTS_LIMIT: Final = 2_000
"""Most checkpoints of one run that count: the newest."""
MANIFEST_BYTES: Final = 2 * 1024 * 1024
"""Longest JSON of all manifests that are read in one look."""
KEPT_LIMIT: Final = 1_000
"""Most keys that are compared with the manifests of an adapter to start from."""
_LONGEST_PROBLEM: Final = 512

log = logging.getLogger(__name__)


Verdict = CommitSummary | str | None
"""What a manifest commits; why it was refused; None: it commits nothing. Of several refused ones,
only one says why."""


class NewestAttempts:
    """Which attempts of a run have a claim, as a listing shows them; the newest are kept."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self._heap = prefix, list[int]()
        self.incomplete = False
        """Whether there are more than are kept."""

    def pass_on(self, listing: Iterable[Entry]) -> Iterator[Entry]:
        """Yield ``listing``, and note the claims in it."""
        for entry in listing:
            number = names.attempt_of(self.prefix, entry.key)
            if number is not None and entry.key == names.claim_key(self.prefix, number):
                heapq.heappush(self._heap, number)
                if len(self._heap) > CLAIMS_LIMIT:
                    heapq.heappop(self._heap)
                    self.incomplete = True
            yield entry

    def numbers(self) -> list[int]:
        """Return the numbers of the attempts, in their order."""
        return sorted(self._heap)


class RunRecords:
    """Reads the records of one run, within its bounds."""

    def __init__(self, store: Store, known: Mapping[bytes, Verdict] | None = None) -> None:
        """Read from ``store``; ``known`` are the ``verdicts`` of an earlier look at the run."""
        self._store, self._known = store, known or {}
        self._room, self._manifest_bytes = LISTED_LIMIT, MANIFEST_BYTES
        self._explained = self._logged = False
        self.refused = ""
        """One sentence about the first record that is ignored; empty when there is none."""
        self.too_many_files = ""
        """One sentence when there are more files than are read."""
        self.verdicts: dict[bytes, Verdict] = {}
        """What the manifests of this look are, by the marks of their folders."""

    def list(self, prefix: str, recursive: bool = True) -> Iterator[Entry]:
        """Yield the entries below ``prefix``, as far as the bound allows."""
        for entry in self._store.list(prefix, recursive=recursive):
            if not self._room:
                self.too_many_files = (
                    f"More than {LISTED_LIMIT} files are stored below {prefix}; the rest is "
                    "ignored: delete files that are not needed."
                )
                return
            self._room -= 1
            yield entry

    def sizes(self, listing: Iterable[Entry]) -> dict[str, int]:
        """Return the sizes of a few entries by their keys, as far as the bound allows."""
        sizes: dict[str, int] = {}
        for entry in listing:
            if len(sizes) == KEPT_LIMIT:
                self.too_many_files = (
                    f"The adapter to start from has more than {KEPT_LIMIT} files; the rest is "
                    "ignored."
                )
                break
            sizes[entry.key] = entry.size
        return sizes

    def read(self, key: str, model: type[RecordModel]) -> RecordModel | None:
        """Return a valid record, or None.

        Raises:
            StoreError: storage itself has a problem.
        """
        record = self._read(key, model)
        if not isinstance(record, str):
            return record
        self._refuse(record)
        return None

    def claims(self, attempts: NewestAttempts) -> tuple[Claim, ...]:
        """Return the claims by attempt; they are read in every look: one may be superseded."""
        if attempts.incomplete:
            self.too_many_files = f"Only the newest {CLAIMS_LIMIT} attempts are read."
        claims = (
            (number, self.read(names.claim_key(attempts.prefix, number), Claim))
            for number in attempts.numbers()
        )
        return tuple(claim for number, claim in claims if claim and claim.attempt == number)

    def checkpoints(
        self, prefix: str, uid: str, folders: Iterable[ListedFolder]
    ) -> tuple[CommitSummary, ...]:
        """Return the committed checkpoints of a run, the newest as bounds allow.

        ``folders`` are those at ``prefix``, which is that of the run ``uid``.
        """
        newest = heapq.nlargest(MANIFESTS_LIMIT + 1, folders)
        if len(newest) > MANIFESTS_LIMIT:
            newest.pop()
            self.too_many_files = (
                f"The run has more than {MANIFESTS_LIMIT} checkpoints; older ones are ignored."
            )
        commits = []
        for folder in newest:
            place = names.step_prefix(prefix, folder.attempt, folder.step)
            marker = CommitMarker(place + names.MANIFEST, uid, folder.attempt, folder.step)
            if commit := self.commit(marker, folder):
                commits.append(commit)
        return newest_by_step(commits)

    def commit(self, marker: CommitMarker, folder: ListedFolder) -> CommitSummary | None:
        """Return what is committed by the manifest at ``marker``; unless known, it is read."""
        verdict = self._known.get(folder.mark)
        if folder.mark not in self._known:
            record = self._manifest(marker, folder.size)
            if record is None:
                return None
            verdict = record if isinstance(record, str) else self._judge(marker, folder, record)
        if isinstance(verdict, str):
            verdict = self._explain(marker, verdict)
        self.verdicts[folder.mark] = verdict
        return verdict if isinstance(verdict, CommitSummary) else None

    def manifest(self, marker: CommitMarker, size: int) -> Manifest | None:
        """Return the manifest at ``marker`` with ``size`` bytes, as far as the bounds allow."""
        manifest = self._manifest(marker, size)
        if isinstance(manifest, str):
            self._refuse(manifest)
            return None
        return manifest

    def _manifest(self, marker: CommitMarker, size: int) -> Manifest | str | None:
        """Return a manifest, why it is refused, or None: it is not read in this look."""
        if size > Manifest.max_bytes:
            return f"{marker.key} is longer than {Manifest.max_bytes} bytes"
        if size > self._manifest_bytes:
            self.too_many_files = (
                f"The run has new manifests of more than {MANIFEST_BYTES} bytes; those of older "
                "checkpoints are read later."
            )
            return None
        self._manifest_bytes -= size
        return self._read(marker.key, Manifest)

    def _judge(
        self, marker: CommitMarker, folder: ListedFolder, manifest: Manifest
    ) -> CommitSummary | None:
        """Return what ``manifest`` commits; where it lists other files than the folder has, look
        which of them are there."""
        sizes = {marker.prefix + file.path: file.size for file in manifest.files}
        if digest_files((file.path, file.size) for file in manifest.files) != folder.files:
            listing = self.list(marker.prefix)
            sizes = {entry.key: entry.size for entry in listing if entry.key in sizes}
        return CommitSummary.of(manifest) if is_committed(marker, manifest, sizes.get) else None

    def _explain(self, marker: CommitMarker, problem: str) -> str:
        """Return why a manifest is refused if it is the first of this look, else nothing."""
        if self._explained:
            return ""
        self._explained = True
        problem = problem or f"{marker.key} is not a valid manifest"
        self._refuse(problem)
        return problem

    def _read(self, key: str, model: type[RecordModel]) -> RecordModel | str | None:
        """Return a record, None if there is none, or a sentence why it is refused."""
        try:
            return self._store.get_json(key, model)
        except KeyNotFound:
            return None
        except StoreError as error:
            own_fault = not error.temporary and not isinstance(error, Unauthorized)
            if isinstance(error, StorageForbidden) or not own_fault:
                raise
            problem = str(error)
        except Exception as error:
            log.exception("an unexpected error while %s was read", key)
            problem = f"{key} cannot be read ({type(error).__name__})"
        operator_metrics.RECORDS_REFUSED.labels(model.__name__).inc()
        problem = problem[:_LONGEST_PROBLEM]
        if not self._logged:  # once in each look, however many there are
            self._logged = True
            log.warning("a record is ignored: %s", problem)
        return problem

    def _refuse(self, problem: str) -> None:
        self.refused = self.refused or f"{problem}; it is ignored."[:_LONGEST_PROBLEM]
