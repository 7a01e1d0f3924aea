"""Storage and a tiny model for the trainer's tests.

Inside the trainer image the cluster's storage is used, which STORAGE_ACCESS describes; anywhere
else an S3 server is started.
"""

import os
import runpy
import sys
from pathlib import Path

import pytest

from flashrun.spec.records import StorageAccess
from flashrun.store import Store
from tests.trainer.pods import ROOT, Workshop


@pytest.fixture(scope="session")
def access(request: pytest.FixtureRequest) -> StorageAccess:
    """A bucket to work in."""
    if (given := os.environ.get("STORAGE_ACCESS")) is not None:
        return StorageAccess.model_validate_json(given)
    minio = request.getfixturevalue("minio")
    store: Store = minio.store("trainer")
    return store.access


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, made as its readme says."""
    folder = tmp_path_factory.mktemp("tiny")
    arguments, sys.argv = sys.argv, ["make_tiny_model.py", str(folder)]
    try:
        script = ROOT / "examples" / "tiny-model" / "make_tiny_model.py"
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = arguments
    return folder


@pytest.fixture(scope="session")
def workshop(
    access: StorageAccess, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Workshop:
    """Storage with the tiny model."""
    place = Workshop(tmp_path_factory.mktemp("pods"), access)
    place.mirror(tiny_model)
    return place
