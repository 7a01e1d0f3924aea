"""The init container ``packages``: unpacks the environment's package and installs its pip list.

It runs without user secrets. The packages of the image are pinned as constraints for the pip list;
only missing packages are installed, into a separate folder. An environment of ``verifiers`` runs in
a process of its own, and gets a virtual environment that shares nothing with the image.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from flashrun import archive
from flashrun.api import names, verifiers_packages
from flashrun.api.exits import Exit
from flashrun.api.reasons import Activity, Reason
from flashrun.api.records import ResolvedEnvironment, ResolvedRun
from flashrun.api.verifiers_packages import VERIFIERS, VERSION, VerifiersEntry
from flashrun.store import Store
from flashrun.store_errors import KeyNotFound, StorageForbidden, Unauthorized
from flashrun_trainer.data.verifiers_entry import verifiers_entry
from flashrun_trainer.init.pip_waits import bounded_environment
from flashrun_trainer.pod.image_packages import installed_pins
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.trainer_errors import TrainerError, first_line

log = logging.getLogger(__name__)

_PIP_TIMEOUT_SECONDS: Final = 1800
_NO_BYTECODE: Final = "PYTHONDONTWRITEBYTECODE"
_IMPORTS: Final = f"import {VERIFIERS}.legacy.envs.environment"
_IMPORT_SECONDS: Final = 300.0


def run(pod: PodMounts) -> None:
    """Fill ``pod.environment`` and ``pod.site``."""
    spec = pod.run()
    packed = pod.packages / "environment.tar.gz"
    download_package(pod.store(), spec.environment, packed)
    unpack_package(packed, pod.environment)
    packed.unlink()
    if (entry := verifiers_entry(pod.environment)) is not None:
        install_own_packages(spec, entry, pod.own_site)
        return
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


def install_own_packages(spec: ResolvedRun, entry: VerifiersEntry, folder: Path) -> None:
    """Make a virtual environment in ``folder`` for an environment of ``verifiers``.

    It gets what the pip list and the environment's project list, whatever the image has.

    Raises:
        TrainerError: they exclude the version that the trainer can use, or pip fails.
    """
    listed = (*entry.requirements, *spec.environment.pip)
    if excluding := verifiers_packages.excluding(listed):
        raise TrainerError(
            Exit.ENVIRONMENT,
            Reason.PACKAGE_CONFLICT,
            f"the environment needs {excluding!r}, and runs use verifiers {VERSION}, the last "
            "version whose environments have load_environment and rubrics",
            f"let the environment take verifiers=={VERSION}; later versions have another API",
        )
    # Links to the interpreter of the image, which the trainer's container has at the same place.
    venv.create(folder, clear=True, symlinks=True, with_pip=False)
    wanted = (*listed, f"{VERIFIERS}=={VERSION}")
    pip = Pip(wanted, spec.pip_index_url, folder.parent, folder / "bin" / "python")
    try:
        log.info("installing %s for the environment's own process", ", ".join(wanted))
        pip.install(requirements=wanted)
        _compile_imports(folder / "bin" / "python")
    finally:
        shutil.rmtree(pip.cache, ignore_errors=True)


def _compile_imports(python: Path) -> None:
    """Compile what ``verifiers`` imports, once: the image tells Python to store no bytecode.

    Every process would take ten seconds for it. Errors show when the environment is loaded.
    """
    variables = {name: text for name, text in os.environ.items() if name != _NO_BYTECODE}
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [python, "-c", _IMPORTS],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_IMPORT_SECONDS,
            check=False,
        )


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

    def __init__(
        self,
        pip_list: Sequence[str],
        index_url: str,
        folder: Path,
        python: Path | None = None,
    ) -> None:
        """Install for the interpreter ``python``, by default for that of the image."""
        self.cache = folder / "pip-cache"
        self._folder = folder
        self._pip_list = pip_list
        self._pip = (sys.executable, "-m", "pip", *(("--python", str(python)) if python else ()))
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
            from flashrun_trainer.init.pip_failures import PipFailure, explain_failure

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
                *(*self._pip, "install", "--no-input", "--no-compile"),
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
            env=bounded_environment(self._folder / "pip-startup", os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_PIP_TIMEOUT_SECONDS,
        )
