"""The pip list of ``flash env test``: installs what a pod would install beside the trainer image.

``python -m flashrun_trainer.env_check_packages SITE REQUIREMENT…``. Unlike the init container it
does not take what this Python has for what the image has. PyTorch and what comes with it are left
out, as they have gigabytes and the image has them. A failure is one line of JSON on standard output
with a ``Fault``.
"""

import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from flashrun.api.env_check_records import Fault
from flashrun.api.sentences import with_hint
from flashrun_trainer.init.packages import Pip
from flashrun_trainer.pod.trainer_errors import TrainerError

log = logging.getLogger(__name__)

_EXTRA: Final = {"extra": "trainer"}
_OF_TORCH: Final = re.compile(r"(torch|triton|nvidia[-_].*|cuda[-_].*)(==| @ )", re.IGNORECASE)


def image_pins() -> list[str]:
    """Return the versions of the trainer image that this release fixes."""
    try:
        listed = [Requirement(text) for text in requires("flashrun") or ()]
    except PackageNotFoundError:  # run from its sources
        return []
    return [
        f"{item.name}{item.specifier}"
        for item in listed
        if item.marker is not None and item.marker.evaluate(_EXTRA) and "==" in str(item.specifier)
    ]


def install(site: Path, pip_list: Sequence[str]) -> None:
    """Install ``pip_list`` into ``site``, whole or not at all; raises ``TrainerError``."""
    site.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=site.parent) as folder:
        pip, fresh = Pip(pip_list, "", Path(folder)), Path(folder, "site")
        needed = pip.resolve(image_pins(), "--ignore-installed")
        wanted = [item for item in needed if not _OF_TORCH.match(item)]
        fresh.mkdir()
        if wanted:
            pip.install("--no-deps", "--target", str(fresh), requirements=wanted)
        shutil.rmtree(site, ignore_errors=True)
        fresh.rename(site)


def main(arguments: Sequence[str]) -> int:
    """Install the requirements that follow the folder; return the exit code."""
    try:
        install(Path(arguments[0]), arguments[1:])
    except TrainerError as error:
        fault = Fault(sentence=with_hint(error.message, error.hint))
        print(fault.model_dump_json())  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
