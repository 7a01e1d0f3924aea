"""The adapters that a server serves, downloaded when they are first needed, and checked."""

import hashlib
import logging
import tempfile
import threading
from pathlib import Path

from pydantic import ValidationError

from flashrun.api import names
from flashrun.api.records import Manifest
from flashrun.api.served import ServedAdapter, ServedList, adapter_files
from flashrun.store import Store
from flashrun.store_errors import Corrupt, KeyNotFound, StoreError

log = logging.getLogger(__name__)


class UnknownAdapter(Exception):
    """The list of the server does not have this model id."""


class AdapterRefused(Exception):
    """An adapter is not what was pinned, or cannot be read; the message is one sentence."""


class AdapterCache:
    """Folders of adapters on this machine; an adapter that was changed is never in one of them."""

    def __init__(self, served: ServedList, store: Store, folder: Path) -> None:
        self.served = served
        self._store = store
        self._folder = folder
        self._lock = threading.Lock()

    def folder_of(self, model_id: str) -> Path:
        """Return the folder of an adapter, which is downloaded at the first call.

        Raises:
            UnknownAdapter: the list does not have it.
            AdapterRefused: its manifest or one of its files is not what was pinned, or storage
                cannot be read.
        """
        adapter = self.served.get(model_id)
        if adapter is None:
            raise UnknownAdapter(model_id)
        folder = self._folder / adapter.manifest
        with self._lock:
            if not folder.exists():
                try:
                    self._download(adapter, folder)
                except StoreError as error:
                    log.error("adapter %s is refused: %s", model_id, error)
                    raise AdapterRefused(f"adapter {model_id} is refused: {error}") from None
                log.info("adapter %s is downloaded, and is what was pinned", model_id)
        return folder

    def _download(self, adapter: ServedAdapter, folder: Path) -> None:
        found = adapter_files(self._manifest(adapter))
        if found is None:
            raise Corrupt(f"the manifest below {adapter.prefix} lists no adapter")
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".download-") as scratch:
            part = Path(scratch, "adapter")
            self._store.download_files(adapter.prefix, found.files, part)
            (part / found.folder).rename(folder)

    def _manifest(self, adapter: ServedAdapter) -> Manifest:
        """Return the manifest, which has to be the one that was pinned."""
        key = adapter.prefix + names.MANIFEST
        try:
            content = self._store.get_bytes(key, limit=Manifest.max_bytes)
        except KeyNotFound:
            raise Corrupt(f"{key} was deleted") from None
        digest = hashlib.sha256(content).hexdigest()
        if digest != adapter.manifest:
            raise Corrupt(
                f"{key} has SHA-256 {digest[:12]}… instead of {adapter.manifest[:12]}…, which was "
                "pinned when flash serve was typed"
            )
        try:
            return Manifest.model_validate_json(content)
        except ValidationError as error:
            raise Corrupt(f"{key} is not a valid manifest: {error.errors()[0]['msg']}") from None
