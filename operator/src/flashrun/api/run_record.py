"""``run.json``: a run as the operator last reported it, for when its FlashRun is gone.

It is written before the first Job and at the end of each run, also of one whose pods have written
nothing. It only informs people: code in the run's pods can write there, too.
"""

from typing import Any, Self

from pydantic import Field

from flashrun.api import names
from flashrun.api.base import Record
from flashrun.api.config import FiniteJson
from flashrun.api.records import RunIdentity
from flashrun.api.resource import FlashRun, FlashRunStatus


class RunRecord(Record):
    """Spec and status of a run, as the API server has them."""

    max_bytes = 2 * 1024 * 1024
    max_values = 32768

    run: RunIdentity
    user: str = Field(default="", max_length=256)
    """Who submitted it, as the run's annotation says."""
    spec: dict[str, FiniteJson]
    status: dict[str, FiniteJson]

    @classmethod
    def of(cls, run: FlashRun, status: FlashRunStatus) -> Self:
        """Return the record of ``run`` with ``status``."""
        return cls(
            run=RunIdentity(namespace=run.namespace, name=run.name, uid=run.uid),
            user=run.annotations.get(names.USER_ANNOTATION, "")[:256],
            spec=run.spec.to_manifest(),
            status=status.to_manifest(),
        )

    def to_run(self) -> FlashRun:
        """Return the run; it has no time of creation, unlike one that the API server has.

        Raises:
            pydantic.ValidationError: spec or phase cannot be read.
        """
        return FlashRun.from_manifest(self.to_manifest())

    def to_manifest(self) -> dict[str, Any]:
        """Return the object, with the metadata that the record has."""
        metadata: dict[str, Any] = self.run.model_dump()
        if self.user:
            metadata["annotations"] = {names.USER_ANNOTATION: self.user}
        return {"metadata": metadata, "spec": self.spec, "status": self.status}
