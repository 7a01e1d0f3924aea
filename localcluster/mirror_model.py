"""Make the tiny model and commit it to the model mirror: `mirror_model.py REVISION ID...`.

It runs in a pod of the trainer image, in the same folder as make_tiny_model.py. The environment
holds the address and credentials of storage. A model that is in the mirror already stays as it is.
The last line that it prints says how fast the image computes here.
"""

import importlib
import os
import sys
import tempfile
import time
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
    else:
        commit(store, missing, revision)
    print(f"{measure_gigaflops():.0f} GFLOP/s per core")


def commit(store: Store, models: list[str], revision: str) -> None:
    """Make the model and commit it under each id of `models`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make(folder)
        for model in models:
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


def measure_gigaflops(size: int = 1024, seconds: float = 0.5) -> float:
    """Return the billions of operations per second of float32 matrix products, with one thread."""
    import torch

    torch.set_num_threads(1)
    one, other = torch.rand(size, size), torch.rand(size, size)
    products, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        torch.mm(one, other)
        products += 1
    return 2 * size**3 * products / passed / 1e9


if __name__ == "__main__":
    main(*sys.argv[1:])
