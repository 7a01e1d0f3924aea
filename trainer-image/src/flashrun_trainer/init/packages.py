"""The init container ``packages``: unpacks the environment's package and installs its pip list.

It runs without user secrets. The packages of the image are pinned as constraints for the pip list;
only missing packages are installed, into a separate folder.
"""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from flashrun import archive
from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.reasons import Activity, Reason
from flashrun.api.records import ResolvedEnvironment, ResolvedRun
from flashrun.store import Store
from flashrun.store_errors import KeyNotFound, StorageForbidden, Unauthorized
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
    """Install into ``site`` what the pip list needs and the image does not have."""
    work = site.parent
    constraints = work / "constraints.txt"
    constraints.write_text("".join(f"{pin}\n" for pin in installed_pins()))
    index = ("--index-url", spec.pip_index_url) if spec.pip_index_url else ()
    report = work / "pip-report.json"
    _pip(
        *("--dry-run", "--report", str(report), "--constraint", str(constraints), *index),
        "--",
        *spec.environment.pip,
    )
    requirements = packages_to_install(report.read_text())
    if not requirements:
        log.info("the image already has all packages of the pip list")
        return
    log.info("installing %s", ", ".join(requirements))
    _pip("--no-deps", "--target", str(site), *index, "--", *requirements)


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


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-input", "--no-cache-dir"]
    quiet = ["--disable-pip-version-check", "--progress-bar", "off", "--no-compile"]
    try:
        result = subprocess.run(
            [*command, *quiet, *arguments],
            capture_output=True,
            text=True,
            timeout=_PIP_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise TrainerError(
            Exit.TEMPORARY,
            Reason.INDEX_UNAVAILABLE,
            f"pip took longer than {_PIP_TIMEOUT_SECONDS} s to install the pip list",
            "the run is retried; if it fails again, shorten [environment].pip",
        ) from None
    log.info("%s%s", result.stdout, result.stderr)
    if result.returncode != 0:
        raise classify_pip_failure(result.stdout + result.stderr)


_OFFLINE: Final = re.compile(
    r"connection broken|Could not fetch URL|Max retries exceeded|Connection refused|timed out"
    r"|Name or service not known|Temporary failure in name resolution|(?:HTTP error|Error) 5\d\d"
    r"|5\d\d Server Error|Too Many Requests"
)
_MISSING: Final = re.compile(r"No matching distribution found for (?P<name>.+)")
_CONFLICT: Final = re.compile(r"Cannot install (?P<names>.+?) because|ResolutionImpossible")
_ERROR: Final = re.compile(r"(?m)^\s*(?:ERROR|error): (?P<text>.+)")


def classify_pip_failure(output: str) -> TrainerError:
    """Return why pip failed, from its output.

    Connection errors are looked for first: pip also reports them as "No matching distribution".
    """
    if _OFFLINE.search(output):
        return TrainerError(
            Exit.TEMPORARY,
            Reason.INDEX_UNAVAILABLE,
            "the package index cannot be reached, so the pip list cannot be installed",
            "the run is retried; if it fails again, ask the platform's administrator to check "
            "trainer.pip_index_url",
        )
    if (conflict := _CONFLICT.search(output)) is not None:
        return TrainerError(
            Exit.ENVIRONMENT,
            Reason.PACKAGE_CONFLICT,
            f"the pip list conflicts with the trainer's own packages: "
            f"{conflict['names'] or 'conflicting versions'}",
            "loosen the versions in [environment].pip",
        )
    if (missing := _MISSING.search(output)) is not None:
        return TrainerError(
            Exit.ENVIRONMENT,
            Reason.PACKAGE_NOT_FOUND,
            f"the package index has no package for {missing['name'].strip()!r}",
            "correct its name or version in [environment].pip",
        )
    error = _ERROR.search(output)
    return TrainerError(
        Exit.ENVIRONMENT,
        Reason.PACKAGE_FAILED,
        f"the pip list cannot be installed: {first_line(error['text'] if error else output)}",
        "correct [environment].pip",
    )
