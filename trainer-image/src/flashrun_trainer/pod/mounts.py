"""The files and folders that the operator has mounted, read once from the variables of the pod."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from flashrun.api import pod
from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import HubAccess, ResolvedRun
from flashrun.store import Store
from flashrun_trainer.pod.trainer_errors import TrainerError

LEADER_PORT: Final = 29400
"""Port at which the leading pod's launcher listens for the launchers of the other pods."""


@dataclass(frozen=True)
class PodMounts:
    """The mounted files and folders of this container, and the identity of its pod."""

    spec: Path
    spec_digest: str
    """SHA-256 of the spec that this pod was made for; empty outside a cluster."""
    storage: Path
    netrc: Path
    """Credentials of the package index, if it needs any; only in the container ``packages``."""
    hub: Path
    """Credentials of the model hub, if it needs any; only in the container ``model``."""
    model: Path
    packages: Path
    work: Path
    termination: Path
    name: str
    uid: str
    node: str
    index: int
    """Position among the pods of one attempt; pod 0 leads."""
    leader: str
    """Host name of the leading pod."""
    leader_port: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the ``FLASHRUN_*`` variables; the defaults are the paths inside a pod."""

        def path(variable: str, default: str) -> Path:
            return Path(environment.get(variable, default))

        return cls(
            spec=path(pod.SPEC_VARIABLE, pod.SPEC_FILE),
            spec_digest=environment.get(pod.SPEC_DIGEST_VARIABLE, ""),
            storage=path(pod.STORAGE_VARIABLE, pod.STORAGE_FILE),
            netrc=path(pod.NETRC_VARIABLE, pod.NETRC_FILE),
            hub=path(pod.HUB_VARIABLE, pod.HUB_FILE),
            model=path(pod.MODEL_VARIABLE, pod.MODEL_FOLDER),
            packages=path(pod.PACKAGES_VARIABLE, pod.PACKAGES_FOLDER),
            work=path(pod.WORK_VARIABLE, pod.WORK_FOLDER),
            termination=path(pod.TERMINATION_VARIABLE, pod.TERMINATION_FILE),
            name=environment.get(pod.POD_VARIABLE, "local"),
            uid=environment.get(pod.POD_UID_VARIABLE, "local"),
            node=environment.get(pod.NODE_VARIABLE, ""),
            index=int(environment.get(pod.INDEX_VARIABLE, "0")),
            leader=environment.get(pod.LEADER_VARIABLE, "127.0.0.1"),
            leader_port=int(environment.get(pod.LEADER_PORT_VARIABLE, LEADER_PORT)),
        )

    @property
    def environment(self) -> Path:
        """Folder of the unpacked environment package."""
        return self.packages / "environment"

    @property
    def site(self) -> Path:
        """Folder of the installed packages of the run's ``environment.pip``."""
        return self.packages / "site"

    @property
    def own_site(self) -> Path:
        """Folder of the virtual environment of an environment with packages of its own."""
        return self.packages / "own"

    @property
    def own_python(self) -> Path | None:
        """The interpreter of that virtual environment, if the run has one."""
        python = self.own_site / "bin" / "python"
        return python if python.exists() else None

    def run(self) -> ResolvedRun:
        """Return the resolved spec; raises ``TrainerError`` when it cannot be read.

        The spec must be the one for which the operator made the pod: people may change its
        ConfigMap, and a kubelet may mount an older copy. The operator restores the ConfigMap
        before the next attempt.
        """
        try:
            text = self.spec.read_bytes()
            if self.spec_digest and hashlib.sha256(text).hexdigest() != self.spec_digest:
                raise TrainerError(
                    Exit.INTERRUPTED_UNSAVED,
                    Reason.INTERRUPTED,
                    f"the resolved spec {self.spec} is not the one that the pod was made for",
                    "the operator replaces its ConfigMap, and the next attempt reads it",
                )
            return ResolvedRun.model_validate_json(text)
        except (OSError, ValidationError) as error:
            raise TrainerError(
                Exit.CONFIG,
                Reason.SPEC_INVALID,
                f"the resolved spec {self.spec} cannot be read: {str(error).splitlines()[0]}",
                "operator and trainer image must be of the same release",
            ) from None

    def store(self) -> Store:
        """Return the storage that the run may use; raises ``StoreError``."""
        return Store.from_file(self.storage)

    def hub_access(self) -> HubAccess | None:
        """Return the credentials of the model hub, if this container has any that can be read."""
        try:
            return HubAccess.model_validate_json(self.hub.read_bytes())
        except (OSError, ValidationError):  # an empty file: the platform needs none any more
            return None

    def upstream_secrets(self) -> tuple[str, ...]:
        """Return the secret values of the package index and the hub that this container has."""
        hub = self.hub_access()
        values = [hub.token, hub.password] if hub is not None else []
        with suppress(OSError, NetrcParseError):
            values += [password for *_, password in netrc(self.netrc).hosts.values()]
        return tuple(filter(None, values))

    def model_folder(self, run: ResolvedRun) -> Path:
        """Return the folder of the base model: one per revision, so that pods can share a cache."""
        return self.model / run.model.id.replace("/", "--") / run.model.revision.replace("/", "--")
