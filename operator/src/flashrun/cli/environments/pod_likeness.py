"""What makes the process of ``flash env test`` like a pod: its files, variables and packages.

The environment is a copy of what ``flash env push`` would publish. Its code gets the variables of
the run and of the trainer image, and none of the user's shell but those that describe this machine.
The working folder is empty and read-only, as the image's is; the home is a temporary folder.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from flashrun.api.env_check_records import Fault
from flashrun.api.pod import IMAGE_PYTHON, IMAGE_VARIABLES, NO_TELEMETRY
from flashrun.cli.environments.package import files_to_pack
from flashrun.cli.output.failure import Failure, UsageFailure

_OF_THIS_MACHINE: Final = (
    *("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PYTHONPATH"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""Variables without which programs or the network of this machine may not work."""
_INSTALLER: Final = "flashrun_trainer.env_check_packages"
_INSTALL_SECONDS: Final = 1800


class PodFolders(NamedTuple):
    """The folders of one check."""

    environment: Path
    """The copy of the environment; it has the name of the user's folder."""
    work: Path
    """The working folder."""
    home: Path
    modules: Path
    """Takes links to the modules of the trainer image."""


def make_folders(scratch: Path, environment: Path) -> PodFolders:
    """Return folders below ``scratch`` with a copy of an environment as it would be published.

    Raises:
        UsageFailure: the folder has links, or files that cannot be read.
    """
    copy = scratch / "environment" / (environment.name or "environment")
    folders = PodFolders(copy, scratch / "work", scratch / "home", scratch / "modules")
    for folder in folders:
        folder.mkdir(parents=True)
    for path in files_to_pack(environment, []):
        target = copy / path.relative_to(environment)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            raise UsageFailure(f"cannot read {path}: {error.strerror}") from None
    folders.work.chmod(0o555)
    return folders


def variables(home: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the process; ``given`` are those of the run."""
    machine = {name: os.environ[name] for name in _OF_THIS_MACHINE if name in os.environ}
    places = {"HOME": str(home), "TMPDIR": str(home)}
    return {**machine, **given, **NO_TELEMETRY, **IMAGE_VARIABLES, **places}


def written_files(work: Path) -> list[str]:
    """Return what the environment wrote to its working folder, although it is read-only.

    The superuser may write anywhere.
    """
    return sorted(path.name for path in work.iterdir())


def python_difference() -> str:
    """Return a sentence when this Python is not that of the trainer image, else nothing."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here == IMAGE_PYTHON:
        return ""
    return f"this is Python {here}; the trainer image has {IMAGE_PYTHON}"


def packages_folder(pip_list: Sequence[str]) -> Path:
    """Return where the packages of a pip list are kept on this machine."""
    key = json.dumps([sorted(pip_list), sys.version, sys.platform])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "flashrun" / "env-test" / hashlib.sha256(key.encode()).hexdigest()[:16]


def install_packages(pip_list: Sequence[str], site: Path) -> Fault | None:
    """Install a pip list into ``site``; return the fault if a pod could not install it either.

    Raises:
        Failure: pip did not end, or failed in a way that says nothing of the pip list.
    """
    words = [sys.executable, "-m", _INSTALLER, str(site), *pip_list]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise Failure(
            f"pip took longer than {_INSTALL_SECONDS} s to install the pip list",
            "flash env test --no-pip leaves the pip list out",
        ) from None
    if done.returncode == 0:
        return None
    try:
        return Fault.model_validate_json(done.stdout)
    except ValidationError:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise Failure(
            f"the pip list cannot be installed here: {last}",
            "flash env test --no-pip leaves the pip list out",
        ) from None
