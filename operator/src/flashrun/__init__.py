"""FlashRun: LoRA training runs as Kubernetes resources.

The layers, each importing only the ones before it: ``spec`` says what a run is, ``plan`` decides,
``cluster`` and ``store`` act on Kubernetes and S3, ``controller`` and ``cli`` are the shells.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("flashrun")
except PackageNotFoundError:  # a source tree on PYTHONPATH has no metadata
    __version__ = "0.1.0"
