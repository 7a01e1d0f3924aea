"""What a laptop may know about the platform: the ConfigMap that the operator publishes.

It holds no secret, and no address but those that pods of the namespace show too, so that every
authenticated user may read it. Programs of another version read it, too.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from flashrun.api.base import Section
from flashrun.api.catalog import Catalog, Model
from flashrun.api.platform import Platform, PodSettings, Pool

FILE: Final = "platform.json"
"""Key of the ConfigMap ``flashrun-public``."""


class PublicPool(Pool):
    """A kind of GPU that runs can get."""

    total: int | None = None
    """GPUs in the cluster; None when they were not counted."""
    free: int | None = None
    """GPUs that no pod has asked for; None when they were not counted."""


class PublicPlatform(Section):
    """Models, pools and the place of storage."""

    models: tuple[Model, ...] = ()
    """Every model that runs can use, smallest first."""
    mirrored_ids: tuple[str, ...] | None = None
    """Ids of models of the mirror that need no entry in the settings; None: each needs one."""
    refused_models: dict[str, str] = {}
    """Ids of other models of the mirror that need none, and why they cannot be used."""
    pools: tuple[PublicPool, ...] = ()
    trainer: PodSettings | None = None
    """What pods have, beside the needs of their pool. None: operators of earlier versions."""
    storage_endpoint: str = ""
    """As pods reach it; an address inside the cluster needs a port-forward."""
    storage_bucket: str = ""
    storage_region: str = ""
    storage_problem: str | None = None
    """What storage lacks that runs need; empty: nothing. None: operators of earlier versions."""
    pip_url_hosts: tuple[str, ...] = ()
    """Hosts whose https addresses a pip list may name."""
    queue: str = ""
    """Kueue's LocalQueue that runs wait in; empty without Kueue."""
    environment_orgs: tuple[str, ...] | None = None
    """Orgs whose environments belong to the namespace of this ConfigMap; None: not known."""
    mirror_readable: bool = False
    """Whether people may read the weights in the model mirror."""
    models_namespace: str = ""
    """Namespace of the Secret for those who manage the model mirror."""
    version: str = ""
    """Version of the operator."""
    updated: datetime | None = None

    @classmethod
    def read(cls, text: str | bytes) -> "PublicPlatform":
        """Return what an operator has published, without the keys that only its version knows.

        Raises:
            pydantic.ValidationError: it is not the description of a platform.
        """
        return cls.model_validate_json(text, extra="ignore")

    @classmethod
    def of(
        cls,
        platform: Platform,
        *,
        version: str = "",
        updated: datetime | None = None,
        models_namespace: str = "",
        mirrored: Iterable[Model] = (),
        refused_models: Mapping[str, str] | None = None,
    ) -> "PublicPlatform":
        """Return the public part of ``platform``.

        ``mirrored`` are the models of the mirror that need no entry in its settings.
        """
        mirrored = tuple(mirrored)
        ids = tuple(model.id for model in mirrored)
        return cls(
            models=tuple(Catalog(platform.models, mirrored)),
            mirrored_ids=ids if platform.models_from_mirror else None,
            refused_models=dict(refused_models or {}),
            pools=tuple(
                PublicPool(**{key: getattr(pool, key) for key in Pool.model_fields})
                for pool in platform.pools
            ),
            trainer=PodSettings(
                **{key: getattr(platform.trainer, key) for key in PodSettings.model_fields}
            ),
            storage_endpoint=platform.storage.endpoint,
            storage_bucket=platform.storage.bucket,
            storage_region=platform.storage.region,
            pip_url_hosts=platform.trainer.pip_url_hosts,
            queue=platform.trainer.queue,
            mirror_readable=platform.mirror_readable,
            models_namespace=models_namespace,
            version=version,
            updated=updated,
        )

    def catalog(self) -> Catalog:
        """Return the models that runs can use here; the built-in ones when none are listed."""
        return Catalog(self.models, refused=self.refused_models)

    def needs_entry(self, model_id: str) -> bool:
        """Return whether runs use a model of the mirror only as the catalog describes it."""
        if self.mirrored_ids is None:
            return True
        return model_id not in self.mirrored_ids and self.catalog().get(model_id) is not None
