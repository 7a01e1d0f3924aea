"""What was chosen for a run is pinned in its status, and the resolved spec follows from it.

Tenants write the spec, which cannot change, and cannot write the status (``flashruns/status`` is in
none of the roles that people get). ConfigMap, Job and what tenants may write in storage are
therefore written and never believed: the resolved spec is computed in every pass, from the spec and
from what is pinned. Until the first status says that, the object below ``known/`` does.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from flashrun.api import names
from flashrun.api.platform import Platform, TrainerSettings
from flashrun.api.records import (
    ResolvedAdapter,
    ResolvedEval,
    ResolvedModel,
    ResolvedRun,
    ResolvedTrain,
    RunIdentity,
    Scale,
)
from flashrun.api.resource import FlashRun, ResolvedStatus
from flashrun.plan import resolve

_PODS_BEGIN_SECONDS: Final = 30
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class JobLimits:
    """How long a run may take and how often it may try, and what earlier Jobs of it have used.

    A Job that takes the place of another one only for the cluster's sake has what is left.
    """

    wall_clock_seconds: int
    retries: int
    seconds_before: int = 0
    failures_before: int = 0
    renewals: int = 0
    """Jobs that are not retries: each took the place of one that would have waited."""

    @property
    def seconds_left(self) -> int:
        """How long the newest Job may take; at least a minute, so that it may say so itself."""
        return max(60, self.wall_clock_seconds - self.seconds_before)

    @property
    def deadline_seconds(self) -> int:
        """The deadline that the newest Job gets.

        It is a little more than is left: the deadline counts from the start of the Job, and most
        pods begin a few seconds later. Their Jobs need no change.
        """
        return self.seconds_left + min(_PODS_BEGIN_SECONDS, self.seconds_left // 100)

    @property
    def retries_left(self) -> int:
        """How many counted failures the newest Job may have."""
        return max(0, self.retries - self.failures_before)


def job_limits(run: FlashRun, platform: Platform) -> JobLimits:
    """Return the limits that were pinned when the run began, else the platform's."""
    pinned, trainer = run.status.resolved, platform.trainer
    if pinned is None or not pinned.wall_clock_seconds:
        return JobLimits(trainer.wall_clock_seconds, trainer.retries)
    return JobLimits(
        pinned.wall_clock_seconds,
        pinned.retries,
        pinned.seconds_before,
        pinned.failures_before,
        pinned.renewals,
    )


def pinned_run(run: FlashRun) -> ResolvedRun | None:
    """Return the resolved spec of a run that has begun; None when nothing usable is pinned."""
    pinned = run.status.resolved
    if pinned is None or not _DIGEST.fullmatch(pinned.environment_digest):
        return None
    try:
        model = ResolvedModel.model_validate(
            {
                "id": run.spec.model,
                "source": pinned.model_source,
                "revision": pinned.model_revision,
            }
        )
        resolved = resolve.resolve_run(
            run.spec,
            identity=RunIdentity(namespace=run.namespace, name=run.name, uid=run.uid),
            model=model,
            environment_digest=pinned.environment_digest,
            adapter=_pinned_adapter(run, pinned),
            prompt_date=pinned.prompt_date,
            train=ResolvedTrain.model_validate(_values(pinned.train)),
            eval_settings=(
                ResolvedEval.model_validate(_values(pinned.eval)) if pinned.eval else None
            ),
        )
        return resolved.replace(
            scale=Scale(
                nodes=pinned.nodes, gpus=pinned.gpus // pinned.nodes, sharded=pinned.sharded
            ),
            image=pinned.image,
            hub_endpoint=pinned.hub_endpoint,
            pip_index_url=pinned.pip_index_url,
            upload_timeout_seconds=pinned.upload_timeout_seconds,
        )
    except (ValueError, ArithmeticError):
        return None  # an earlier version of the operator wrote it; the run is resolved again


def with_trainer_settings(resolved: ResolvedRun, trainer: TrainerSettings) -> ResolvedRun:
    """Return ``resolved`` with what the platform decides for all runs."""
    return resolved.replace(
        image=trainer.image,
        hub_endpoint=trainer.hub_endpoint,
        pip_index_url=trainer.pip_index_url,
        upload_timeout_seconds=trainer.upload_timeout_seconds,
    )


def spec_text(resolved: ResolvedRun) -> str:
    """Return the text of ``spec.json``."""
    return resolved.model_dump_json(indent=1)


def digest_of(text: str) -> str:
    """Return the digest of the text of a ``spec.json``."""
    return hashlib.sha256(text.encode()).hexdigest()


def train_texts(train: ResolvedTrain) -> dict[str, str]:
    """Return every training value as it is written in TOML, and read by ``pinned_run``."""
    values = train.model_dump(mode="json")
    return {key: _text(value) for key, value in values.items()}


def eval_texts(resolved: ResolvedEval | None) -> dict[str, str]:
    """Return every setting of an evaluation as JSON, as ``pinned_run`` reads it."""
    values = {} if resolved is None else resolved.model_dump(mode="json")
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}


def _values(texts: Mapping[str, str]) -> dict[str, Any]:
    return {key: from_json(text) for key, text in texts.items()}


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | bool) else str(value)


def _pinned_adapter(run: FlashRun, pinned: ResolvedStatus) -> ResolvedAdapter | None:
    """Return the adapter to start from; raises ``ValueError`` unless it is of this namespace."""
    text = run.spec.train.init_from_adapter
    if text is None:
        return None
    prefix = pinned.init_from_adapter_prefix
    below = names.run_name_prefix(run.namespace, names.parse_ref(text).run)
    if not prefix.startswith(below) or ".." in prefix:
        raise ValueError(f"{prefix} is not below {below}")
    return ResolvedAdapter(ref=text, uid=pinned.init_from_adapter_uid, prefix=prefix)
