"""Issuing credentials for storage: limited ones where the store can, else the same for all.

A store that does not answer such a call blocks a thread for as long as a call may take. With many
runs due at the same time nothing else would be done, so that only one call at a time tries again.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from flashrun.api.platform import StorageSettings
from flashrun.api.records import StorageAccess
from flashrun.plan.storage_policies import Policy, with_key
from flashrun.plan.types import AccessGrant
from flashrun.store import Store
from flashrun.store_errors import StoreError, Unavailable

PAUSE_SECONDS: Final = 10.0
"""How long nobody asks again after a store has not answered."""


def assume(store: Store, settings: StorageSettings, policy: Policy, seconds: int) -> StorageAccess:
    """Return credentials that ``policy`` limits, with AWS's key in the settings, if any.

    Raises:
        StoreError: the store refuses or does not answer, or the policy is too long.
    """
    try:
        policy = with_key(policy, settings.policy_key)
    except ValueError as error:
        raise StoreError(str(error)) from None
    return store.assume(policy, seconds, settings.role_arn)


class AccessIssuer:
    """Issues credentials; several threads may call it."""

    def __init__(
        self,
        store: Store,
        settings: StorageSettings,
        shared: Callable[[], StorageAccess],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._settings, self._shared, self._clock = store, settings, shared, clock
        self._lock = threading.Lock()
        self._problem = ""
        self._ask_again = 0.0

    def issue(self, grant: AccessGrant) -> StorageAccess:
        """Return credentials that ``grant.policy`` limits; without STS, those that all share.

        Raises:
            StoreError: the store refuses, or did not answer now or a moment ago.
        """
        if not self._settings.sts:
            return self._shared()
        self._wait_for_turn()
        try:
            access = assume(self._store, self._settings, grant.policy, grant.seconds)
        except Unavailable as error:
            self._problem, self._ask_again = str(error), self._clock() + PAUSE_SECONDS
            raise
        except StoreError:
            self._problem = ""  # it answers; what it refuses is this grant
            raise
        self._problem = ""
        return access

    def _wait_for_turn(self) -> None:
        """Raise ``Unavailable`` at once while another call finds out whether the store answers."""
        with self._lock:
            if not self._problem:
                return
            if self._clock() < self._ask_again:
                raise Unavailable(self._problem)
            self._ask_again = self._clock() + PAUSE_SECONDS
