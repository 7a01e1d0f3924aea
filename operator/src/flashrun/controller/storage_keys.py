"""The operator's own keys for storage: from a mounted Secret, or from STS for its web identity.

Without STS the Secret also has the keys that trainers and people get. They may be the operator's
own ones, but only if somebody has written so: keys that every team holds are keys of every team.

With a web identity (on AWS: IRSA) the cluster signs a token for the operator's service account, and
STS answers keys for it. The variables are those that every SDK of AWS reads:
https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
"""

import os
from pathlib import Path
from typing import Final

from flashrun.api.platform import StorageSettings
from flashrun.api.records import StorageAccess
from flashrun.store import ObserveRequest, Store, TimeLimits
from flashrun.store_errors import StoreError

TOKEN_FILE_VARIABLE: Final = "AWS_WEB_IDENTITY_TOKEN_FILE"
ROLE_VARIABLE: Final = "AWS_ROLE_ARN"
_KEYS: Final = ("accessKey", "secretKey", "sessionToken")
"""Files in the folder of the Secret; there may be no session token."""
_SHARED_KEYS: Final = ("sharedAccessKey", "sharedSecretKey")
"""Files that are needed with ``storage.sts=false``."""


class StorageKeys:
    """Where the keys are, and how they are read."""

    def __init__(
        self,
        settings: StorageSettings,
        folder: Path,
        limits: TimeLimits,
        observe: ObserveRequest | None = None,
    ) -> None:
        """``observe`` gets every request to storage."""
        self._settings, self._folder, self._limits = settings, folder, limits
        self._observe = observe
        self._token_file = os.environ.get(TOKEN_FILE_VARIABLE, "")

    def open_store(self) -> Store:
        """Return the storage of the operator; it follows keys that are rotated, and renews others.

        Raises:
            StoreError: no keys could be got.
        """
        watched = [] if self._token_file else [self._folder / name for name in _KEYS]
        return Store.following(self._read, *watched, limits=self._limits, observe=self._observe)

    def shared_access(self) -> StorageAccess:
        """Return what trainers and people get of a store without STS.

        Raises:
            StoreError: the Secret does not have it.
        """
        try:
            access_key, secret_key = (_key(self._folder / name) for name in _SHARED_KEYS)
        except StoreError as error:
            raise StoreError(
                f"{error}; with storage.sts=false every trainer and every user gets these keys, so "
                "add sharedAccessKey and sharedSecretKey of a user with fewer rights to the Secret"
            ) from None
        return self._place(access_key, secret_key)

    def _read(self) -> StorageAccess:
        if not self._settings.sts:
            self.shared_access()
        access = self._from_web_identity() if self._token_file else self._from_secret()
        if access.session_token and not self._settings.sts:
            raise StoreError(
                "the operator's keys for storage end, and with storage.sts=false nothing renews "
                "those of trainers: set storage.sts=true, or use keys that do not end"
            )
        return access

    def _from_secret(self) -> StorageAccess:
        access_key, secret_key = (_key(self._folder / name) for name in _KEYS[:2])
        token = self._folder / _KEYS[2]
        return self._place(access_key, secret_key, _key(token) if token.exists() else "")

    def _from_web_identity(self) -> StorageAccess:
        token = _key(Path(self._token_file))
        store = Store(self._place("", ""), self._limits, self._observe)
        return store.assume_with_web_identity(token, os.environ.get(ROLE_VARIABLE, ""))

    def _place(self, access_key: str, secret_key: str, session_token: str = "") -> StorageAccess:
        storage = self._settings
        return StorageAccess(
            endpoint=storage.endpoint,
            bucket=storage.bucket,
            region=storage.region,
            addressing=storage.addressing,
            sse=storage.sse,
            sse_kms_key=storage.sse_kms_key or None,
            access_key=access_key,
            secret_key=secret_key,
            session_token=session_token,
        )


def _key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise StoreError(f"the storage key {path} cannot be read: {error}") from None
