"""Make the tiny model and commit it to the model mirror: `mirror_model.py REVISION ID...`.

It runs in a pod of the trainer image, in the same folder as make_tiny_model.py. The environment
holds the address and credentials of storage. A model that is in the mirror already stays as it is.
"""

import importlib
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from flashrun.api import names
from flashrun.api.records import Manifest, StorageAccess
from flashrun.store import Store


def main(revision: str, *models: str) -> None:
    """Make the model and commit it under each id in `models` that the mirror lacks."""
    store = Store(
        StorageAccess(
            endpoint=os.environ["STORAGE_ENDPOINT"],
            bucket=os.environ["STORAGE_BUCKET"],
            access_key=os.environ["STORAGE_ACCESS_KEY"],
            secret_key=os.environ["STORAGE_SECRET_KEY"],
        )
    )
    store.ensure_bucket()
    missing = [m for m in models if not store.exists(names.model_manifest_key(m, revision))]
    if not missing:
        print(f"{' and '.join(models)} is in the mirror")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make(folder)
        for model in missing:
            store.upload_folder(
                names.model_prefix(model, revision),
                folder,
                lambda files: Manifest(kind="model", created=datetime.now(UTC), files=files),
            )
            print(f"{model} was made and mirrored")


def make(folder: Path) -> None:
    """Write the tokenizer and the weights; the import is late, because torch loads slowly."""
    tiny = importlib.import_module("make_tiny_model")
    tiny.make_model(folder, tiny.make_tokenizer(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
