"""FlashRun: LoRA training runs as Kubernetes resources.

The layers, each importing only the ones before it: ``api`` says what a run is, ``plan`` decides,
``cluster`` and ``store`` act on Kubernetes and S3, ``controller``, ``cli`` and ``client`` are the
shells. The Python client is imported when one of its names is asked for.
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from flashrun.client import AsyncClient, Client, FlashRunError

__all__ = ["AsyncClient", "Client", "FlashRunError"]
_OF_CLIENT: Final = frozenset(__all__)


def __getattr__(name: str) -> Any:
    """Look up the client or ``__version__`` when it is asked for, as few programs do.

    Importing the client and reading the version from metadata take long.
    """
    if name in _OF_CLIENT:
        from importlib import import_module

        return getattr(import_module("flashrun.client"), name)
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flashrun")
    except PackageNotFoundError:  # a source tree on PYTHONPATH has no metadata
        return "0.1.0"


def __dir__() -> list[str]:
    """Return the names that completion offers, those of the client included."""
    return sorted({*globals(), *__all__})
