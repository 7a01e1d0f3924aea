"""The platform settings, read once at the start, and facts about this process."""

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError

from flashrun.api.base import error_sentences
from flashrun.api.environment_owners import owned_orgs
from flashrun.api.platform import Platform
from flashrun.api.pod import POD_VARIABLE
from flashrun.controller import operator_metrics
from flashrun.controller.storage_access import AccessIssuer
from flashrun.controller.storage_keys import StorageKeys
from flashrun.plan.storage_policies import namespace_policy
from flashrun.plan.types import Object
from flashrun.store import Store, TimeLimits

KEYS_FOLDER: Final = Path("/var/run/flashrun/storage")
"""Folder of ``accessKey`` and ``secretKey``: the mounted Secret."""

ENDPOINT_VARIABLE: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Variable with the base address of an OpenTelemetry collector, for OTLP over HTTP."""

UPSTREAMS_FOLDER: Final = Path("/var/run/flashrun/upstreams")
"""Folder of the folders ``index``, ``hub`` and ``proxy``: the Secrets that the settings name."""


NAMESPACE_OBJECTS: Final = "namespace-objects.yaml"
"""File beside the settings: what the operator makes in each namespace that it follows."""

STORAGE_LIMITS: Final = TimeLimits(connect=5.0, read=10.0, total=20.0)
"""A record or a listing takes milliseconds; a pass must not wait for minutes."""


class SettingsError(Exception):
    """The settings are not usable; ``str`` is one sentence for people."""


@dataclass(frozen=True)
class Settings:
    """The configuration of one operator process."""

    platform: Platform
    keys: Path
    """Folder with the files ``accessKey`` and ``secretKey``."""
    upstreams: Path
    """Folder with the credentials of index, hub and proxy, as ``UPSTREAMS_FOLDER``."""
    identity: str
    """The pod's name: a process that is started again in its pod goes on with its lease.

    Outside a pod, it is unique to this process.
    """
    lease_name: str = "flashrun-operator"
    traces_endpoint: str = ""
    """Where traces of runs are sent, by OTLP over HTTP; empty: nowhere."""
    path: Path | None = None
    """The file of ``platform``."""
    namespace_objects: tuple[Object, ...] = ()
    """What the operator makes in each namespace that it follows; the first one gives the right."""

    def open_store(self) -> Store:
        """Return the storage of the operator; it follows keys that are rotated in their Secret.

        Raises:
            StoreError: the keys cannot be read.
        """
        return self._storage_keys.open_store()

    def access_issuer(self, store: Store) -> AccessIssuer:
        """Return what issues credentials for ``store`` to trainers and to people."""
        return AccessIssuer(store, self.platform.storage, self._storage_keys.shared_access)

    @property
    def _storage_keys(self) -> StorageKeys:
        return StorageKeys(
            self.platform.storage, self.keys, STORAGE_LIMITS, operator_metrics.observe_storage
        )


def load_settings(
    path: Path, keys: Path = KEYS_FOLDER, upstreams: Path = UPSTREAMS_FOLDER
) -> Settings:
    """Read the platform settings from ``path``.

    Raises:
        SettingsError: the file cannot be read, or is not valid; with all problems in it.
    """
    platform = read_platform(path)
    _check_policies(platform)
    own_pod = os.environ.get(POD_VARIABLE, "")
    identity = own_pod or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    objects = _namespace_objects(path) if platform.follows_namespaces else ()
    return Settings(
        *(platform, keys, upstreams, identity),
        traces_endpoint=os.environ.get(ENDPOINT_VARIABLE, ""),
        path=path,
        namespace_objects=objects,
    )


def read_platform(path: Path) -> Platform:
    """Return the platform's settings.

    Raises:
        SettingsError: the file cannot be read, or is not valid; with all problems in it.
    """
    try:
        return Platform.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}") from None
    except ValidationError as error:
        problems = "; ".join(error_sentences(error, whole="the file"))
        raise SettingsError(f"the settings file {path} is not valid: {problems}") from None


def _namespace_objects(settings: Path) -> tuple[Object, ...]:
    path = settings.with_name(NAMESPACE_OBJECTS)
    try:
        return tuple(filter(None, yaml.safe_load_all(path.read_text())))
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(
            f"what followed namespaces need cannot be read from {path}: {error}"
        ) from None


def _check_policies(platform: Platform) -> None:
    """Raise ``SettingsError`` if users of a namespace could not get credentials for storage."""
    storage = platform.storage
    for namespace in platform.namespaces:
        orgs = owned_orgs(namespace, platform.environments.owners)
        try:
            namespace_policy(
                *(storage.bucket_arn, namespace, orgs, storage.policy_key),
                weights=platform.mirror_readable,
            )
        except ValueError as error:
            raise SettingsError(f"environments.owners: namespace {namespace}: {error}") from None
