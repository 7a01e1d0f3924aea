"""Which revisions of mirrored models runs can use, and with which limits.

The platform may serve the mirror without an entry in the catalog. Its records are written by
everybody who may push models, so nothing in them is believed that cannot be checked, and the limits
follow from numbers that are bounded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flashrun.api import names
from flashrun.api.catalog import Model
from flashrun.api.records import Manifest
from flashrun.plan.model_check import is_uploaded, model_entry

_WEIGHTS: Final = ".safetensors"
_BITS: Final = (2, 64)
"""Fewest and most bits of one number in the weights."""
_HEADERS: Final = 100 * 1024 * 1024
"""Bytes of the weights' files that may be headers: small models have little else."""


@dataclass(frozen=True)
class MirrorAnswer:
    """What runs get for the id of a mirrored model: a model, or the reason why there is none."""

    model: Model | None = None
    refused: str = ""


@dataclass(frozen=True)
class RevisionVerdict:
    """Whether one revision can be used."""

    revision: str
    answer: MirrorAnswer
    created: datetime | None = None
    """When it was pushed; None when the manifest cannot be read."""


def judge_revision(
    model_id: str, revision: str, manifest: Manifest | str, sizes: Mapping[str, int]
) -> RevisionVerdict:
    """Return whether runs can use a revision whose manifest is in the mirror.

    ``manifest`` is the reason when it cannot be read. ``sizes`` has every file of the revision, by
    its path below the revision.
    """
    if isinstance(manifest, str):
        refused = f"its manifest cannot be read ({manifest})"
        return RevisionVerdict(revision, MirrorAnswer(refused=refused))
    problem = _problem(model_id, manifest, sizes)
    facts = manifest.model
    if problem or facts is None:
        return RevisionVerdict(revision, MirrorAnswer(refused=problem), manifest.created)
    entry = model_entry(model_id, revision, facts)
    return RevisionVerdict(revision, MirrorAnswer(entry), manifest.created)


def choose_revision(verdicts: Iterable[RevisionVerdict]) -> MirrorAnswer | None:
    """Return the newest revision that can be used, else why the newest cannot; None: there is none.

    A revision that cannot be used never hides one that can.
    """
    ranked = sorted(verdicts, key=_rank, reverse=True)
    if not ranked:
        return None
    best = ranked[0]
    if best.answer.model is not None:
        return best.answer
    return MirrorAnswer(refused=f"revision {best.revision}: {best.answer.refused}")


def _rank(verdict: RevisionVerdict) -> tuple[bool, float, str]:
    created = verdict.created.timestamp() if verdict.created is not None else 0.0
    return verdict.answer.model is not None, created, verdict.revision


def _problem(model_id: str, manifest: Manifest, sizes: Mapping[str, int]) -> str:
    """Return why a revision cannot be used, or an empty string."""
    if manifest.kind != "model" or manifest.base_model not in ("", model_id):
        return "its manifest is that of something else"
    if manifest.model is None:
        return (
            "its manifest does not say how large the model is: push it again with this version of "
            "flash"
        )
    paths = [file.path for file in manifest.files]
    foreign = next((path for path in paths if "/" in path or not is_uploaded(path)), None)
    if foreign is not None or len({*paths}) != len(paths):
        return "its manifest lists files that flash model push never uploads"
    missing = [file.path for file in manifest.files if sizes.get(file.path) != file.size]
    if missing or names.MANIFEST not in sizes:
        return f"{len(missing)} of its {len(paths)} files are missing or have another size"
    weights = sum(file.size for file in manifest.files if file.path.endswith(_WEIGHTS))
    fewest, most = (manifest.model.parameters * bits // 8 for bits in _BITS)
    if not weights or not fewest <= weights <= most + _HEADERS:
        return "its weights have another size than its manifest says"
    return ""
