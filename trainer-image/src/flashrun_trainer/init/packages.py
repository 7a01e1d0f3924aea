"""The init container ``packages``: unpacks the environment's package and installs its pip list.

It runs without user secrets. The packages of the image are pinned as constraints for the pip list;
only missing packages are installed, into a separate folder.
"""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from flashrun import archive
from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.reasons import Activity, Reason
from flashrun.api.records import ResolvedEnvironment, ResolvedRun
from flashrun.store import Store
from flashrun.store_errors import KeyNotFound, StorageForbidden, Unauthorized
from flashrun_trainer.init.pip_failures import PipFailure, explain_failure
from flashrun_trainer.pod.image_packages import installed_pins
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.trainer_errors import TrainerError, first_line

log = logging.getLogger(__name__)

_PIP_TIMEOUT_SECONDS: Final = 1800


def run(pod: PodMounts) -> None:
    """Fill ``pod.environment`` and ``pod.site``."""
    spec = pod.run()
    packed = pod.packages / "environment.tar.gz"
    download_package(pod.store(), spec.environment, packed)
    unpack_package(packed, pod.environment)
    packed.unlink()
    pod.site.mkdir(parents=True, exist_ok=True)
    if spec.environment.pip:
        install_packages(spec, pod.site)


def describe_activity(_: PodMounts) -> str:
    """Return the activity for the heartbeat."""
    return Activity.INSTALLING


def download_package(store: Store, environment: ResolvedEnvironment, path: Path) -> None:
    """Download the package and check its SHA-256."""
    try:
        package = store.get_file(
            names.environment_package_key(environment.id, environment.digest), path
        )
    except Unauthorized:
        raise  # a failure of storage, not of the package
    except (KeyNotFound, StorageForbidden) as error:
        raise TrainerError(
            Exit.ENVIRONMENT,
            Reason.ENVIRONMENT_NOT_FOUND,
            f"the package of environment {environment.id} is not available: {error}",
            "publish it with flash env push",
        ) from None
    if package.sha256 != environment.digest:
        raise TrainerError(
            Exit.TEMPORARY,
            Reason.ENVIRONMENT_CORRUPT,
            f"the package of {environment.id} has SHA-256 {package.sha256[:12]}…, "
            f"not {environment.digest[:12]}…",
            "the run is retried; if it fails again, run flash env push again",
        )
    log.info("environment %s: %d bytes, SHA-256 %s", environment.id, package.size, package.sha256)


def unpack_package(packed: Path, folder: Path) -> None:
    """Unpack an environment's package; raises ``TrainerError`` when it is not a safe archive."""
    try:
        with packed.open("rb") as file:
            archive.unpack(file, folder)
    except archive.ArchiveError as error:
        raise TrainerError(
            Exit.ENVIRONMENT,
            Reason.ENVIRONMENT_INVALID,
            f"the environment's package {first_line(str(error))}",
            "publish it again with flash env push",
        ) from None


def install_packages(spec: ResolvedRun, site: Path) -> None:
    """Install into ``site`` what the pip list needs and the image does not have.

    The first pip decides, with all packages of the image in view; the second one installs. They
    share a cache, so that each package is downloaded and built once.
    """
    pip = Pip(spec.environment.pip, spec.pip_index_url, site.parent)
    try:
        requirements = pip.resolve(installed_pins())
        if not requirements:
            log.info("the image already has all packages of the pip list")
            return
        log.info("installing %s", ", ".join(requirements))
        pip.install("--no-deps", "--target", str(site), requirements=requirements)
    finally:
        shutil.rmtree(pip.cache, ignore_errors=True)


def packages_to_install(report: str) -> list[str]:
    """Return what pip would install, as pinned requirements, from its installation report."""
    return sorted(map(_pinned_requirement, json.loads(report)["install"]))


def _pinned_requirement(item: dict[str, Any]) -> str:
    """Return one package of a report, pinned by version, or by hash if it came from a URL."""
    name, source = item["metadata"]["name"], item["download_info"]
    if not item["is_direct"]:
        return f"{name}=={item['metadata']['version']}"
    sha256 = source["archive_info"]["hashes"]["sha256"]
    return f"{name} @ {source['url']}#sha256={sha256}"


class Pip:
    """The pip of this Python, with a pip list, an index and a cache of its own in ``folder``."""

    def __init__(self, pip_list: Sequence[str], index_url: str, folder: Path) -> None:
        self.cache = folder / "pip-cache"
        self._folder = folder
        self._pip_list = pip_list
        self._resolution = ""
        self._index = ("--index-url", index_url) if index_url else ()

    def resolve(self, pins: Iterable[str], *options: str) -> list[str]:
        """Return what the pip list needs beside packages with the versions of ``pins``.

        Raises:
            TrainerError: pip finds no versions that fit together, or reaches no index.
        """
        report, constraints = self._folder / "pip-report.json", self._folder / "constraints.txt"
        constraints.write_text("".join(f"{pin}\n" for pin in pins))
        self.install(
            *("--dry-run", "--report", str(report), "--constraint", str(constraints), *options),
            requirements=self._pip_list,
        )
        return packages_to_install(report.read_text())

    def install(self, *options: str, requirements: Sequence[str]) -> None:
        """Run ``pip install``; raises ``TrainerError`` when it fails."""
        try:
            result = self._run(*options, requirements=requirements)
        except subprocess.TimeoutExpired:
            raise TrainerError(
                Exit.TEMPORARY,
                Reason.INDEX_UNAVAILABLE,
                f"pip took longer than {_PIP_TIMEOUT_SECONDS} s to install the pip list",
                "the run is retried; if it fails again, shorten [environment].pip",
            ) from None
        output = result.stdout
        log.info("%s", output)
        if result.returncode != 0:
            raise explain_failure(
                PipFailure(output, self._pip_list, self._search, self._resolution)
            )
        self._resolution += output

    def _search(self, requirement: str) -> str:
        """Return what pip prints about every file that the index has of a package."""
        with suppress(subprocess.TimeoutExpired):
            result = self._run("-vv", "--no-deps", "--dry-run", requirements=[requirement])
            return result.stdout
        return ""

    def _run(self, *options: str, requirements: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--no-input", "--no-compile"),
                *("--disable-pip-version-check", "--progress-bar", "off"),
                *("--cache-dir", str(self.cache)),
                # Always build in an environment of its own, as in a new virtual environment: pip
                # would otherwise build with a setuptools that some base image happens to have.
                "--use-pep517",
                *self._index,
                *options,
                "--",
                *requirements,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_PIP_TIMEOUT_SECONDS,
        )
