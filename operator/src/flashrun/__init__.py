"""FlashRun: LoRA training runs as Kubernetes resources.

The layers, each importing only the ones before it: ``spec`` says what a run is, ``plan`` decides,
``cluster`` and ``store`` act on Kubernetes and S3, ``controller`` and ``cli`` are the shells.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Look up ``__version__`` when it is asked for: it is rarely, and reading metadata is slow."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flashrun")
    except PackageNotFoundError:  # a source tree on PYTHONPATH has no metadata
        return "0.1.0"
