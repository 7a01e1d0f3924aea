"""The probe of storage at the start of the operator: before it has passed, no run starts."""

from collections.abc import Callable

from flashrun.api import names
from flashrun.api.platform import StorageSettings
from flashrun.controller.storage_access import assume
from flashrun.store import Store
from flashrun.store_probe import StoreProbe


class StartProbe:
    """Proves once per process that storage can do what runs need."""

    def __init__(
        self, store: Store, settings: StorageSettings, installation: Callable[[], str]
    ) -> None:
        self._store, self._settings, self._installation = store, settings, installation
        self._passed = False

    def __call__(self) -> None:
        """Try storage, unless it has passed before.

        Raises:
            Unsuitable: storage lacks something; the sentence names it and the way out.
            StoreError: storage did not answer.
        """
        if self._passed:
            return
        settings = self._settings
        probe = StoreProbe(self._store, names.operator_probe_prefix(self._installation()))
        probe.require(
            (lambda policy: assume(self._store, settings, policy, settings.credentials_seconds))
            if settings.sts
            else None
        )
        self._passed = True
