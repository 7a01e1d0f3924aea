"""From a config to the FlashRun that is submitted, and back to the tables of a config."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from flashrun.api import names
from flashrun.api.config import RunConfig
from flashrun.api.resource import FlashRun, FlashRunSpec, SecretRef, manifest
from flashrun.api.sweep import SweepMembership

_DIGEST_DIGITS: Final = 8


def run_manifest(
    config: RunConfig,
    name: str,
    namespace: str | None,
    secret_names: Sequence[str],
    sweep: SweepMembership | None = None,
) -> dict[str, Any]:
    """Return the FlashRun that trains ``config``.

    The operator looks up ``environment.secrets`` in the Secrets ``secret_names``, in this order.
    """
    refs = tuple(SecretRef(name=secret) for secret in secret_names)
    return manifest(name, namespace, FlashRunSpec.from_config(config, refs, sweep))


def name_with_digest(stem: str, config: RunConfig, secret_names: Sequence[str]) -> str:
    """Return ``stem`` with a digest of the spec: equal specs have equal names.

    A spec is immutable, so a changed config needs a new run. In git the changed name makes one. The
    budget may change, and is not part of the name.
    """
    spec = run_manifest(config, stem, None, secret_names)["spec"]
    spec.pop("budget", None)
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]}"


def config_tables(run: FlashRun) -> dict[str, Any]:
    """Return the spec of a run as the tables of a config, without what only a cluster has."""
    return run.spec.model_dump(
        mode="json",
        exclude_unset=True,
        exclude_defaults=True,
        exclude={"secret_refs", "float_params", "sweep", "control"},
        by_alias=False,
    )


def flatten_tables(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value inside tables by its dotted key."""
    if not isinstance(value, dict):
        yield path, value
        return
    for key, item in value.items():
        yield from flatten_tables(item, f"{path}.{key}" if path else key)


def varied_settings(runs: Sequence[FlashRun]) -> list[dict[str, Any]]:
    """Return, for each run, the given settings in which not all of ``runs`` agree."""
    given = [dict(flatten_tables(config_tables(run))) for run in runs]
    keys = dict.fromkeys(key for settings in given for key in settings)
    varied = [key for key in keys if any(item.get(key) != given[0].get(key) for item in given)]
    return [{key: settings[key] for key in varied if key in settings} for settings in given]


def given_secrets(run: FlashRun) -> tuple[str, ...]:
    """Return the Secrets that a run looks up, without the one that was created for this run."""
    own = names.submitted_secret_name(run.name)
    return tuple(ref.name for ref in run.spec.secret_refs if ref.name != own)
