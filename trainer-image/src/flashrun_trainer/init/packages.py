"""The init container ``packages``: the environment's package, unpacked, and its pip list.

It runs without user secrets. The pip list is resolved against what the image has: that is pinned,
and only what is missing is installed, into a folder of its own.
"""

import json
import logging
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from flashrun import archive
from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.reasons import Activity, Reason
from flashrun.api.records import ResolvedEnvironment, ResolvedRun
from flashrun.store import Store
from flashrun.store_errors import KeyNotFound, StorageForbidden, Unauthorized
from flashrun_trainer.pod.mounts import Pod
from flashrun_trainer.pod.trainer_errors import TrainerError, first_line

log = logging.getLogger(__name__)

_PIP_SECONDS: Final = 1800


def run(pod: Pod) -> None:
    """Fill the two folders of ``pod.packages``."""
    spec = pod.run()
    packed = pod.packages / "environment.tar.gz"
    download(pod.store(), spec.environment, packed)
    unpack(packed, pod.environment)
    packed.unlink()
    pod.site.mkdir(parents=True, exist_ok=True)
    if spec.environment.pip:
        install(spec, pod.site)


def doing(_: Pod) -> str:
    """Say what this container does."""
    return Activity.INSTALLING


def download(store: Store, environment: ResolvedEnvironment, path: Path) -> None:
    """Download the package and check its SHA-256."""
    try:
        found = store.get_file(
            names.environment_package_key(environment.id, environment.digest), path
        )
    except Unauthorized:
        raise  # the storage's trouble, not the package's
    except (KeyNotFound, StorageForbidden) as error:
        raise TrainerError(
            Exit.ENVIRONMENT,
            Reason.ENVIRONMENT_NOT_FOUND,
            f"the package of environment {environment.id} cannot be had: {error}",
            "publish it with flash env push",
        ) from None
    if found.sha256 != environment.digest:
        raise TrainerError(
            Exit.TEMPORARY,
            Reason.ENVIRONMENT_CORRUPT,
            f"the package of {environment.id} has SHA-256 {found.sha256[:12]}…, "
            f"not {environment.digest[:12]}…",
            "it is tried again; when it stays like this, publish it again with flash env push",
        )
    log.info("environment %s: %d bytes, SHA-256 %s", environment.id, found.size, found.sha256)


def unpack(packed: Path, folder: Path) -> None:
    """Unpack an environment's package; raises ``TrainerError`` when it holds what it may not."""
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


def install(spec: ResolvedRun, site: Path) -> None:
    """Install what the pip list needs and the image lacks into ``site``."""
    work = site.parent
    constraints = work / "constraints.txt"
    constraints.write_text("".join(f"{pin}\n" for pin in pins()))
    index = ("--index-url", spec.pip_index_url) if spec.pip_index_url else ()
    plan = work / "plan.json"
    _pip(
        *("--dry-run", "--report", str(plan), "--constraint", str(constraints), *index),
        "--",
        *spec.environment.pip,
    )
    wanted = planned(plan.read_text())
    if not wanted:
        log.info("the image has everything of the pip list")
        return
    log.info("installing %s", ", ".join(wanted))
    _pip("--no-deps", "--target", str(site), *index, "--", *wanted)


def pins(*folders: Path) -> list[str]:
    """Return the packages of the image, and of further ``folders``, as constraints."""
    path = [*sys.path, *map(str, folders)]
    found = {item.name.lower(): item for item in distributions(path=path) if item.name}
    return sorted(f"{item.name}=={item.version}" for item in found.values())


def planned(report: str) -> list[str]:
    """Return what pip would install, from its installation report."""
    return sorted(map(_pinned, json.loads(report)["install"]))


def _pinned(item: dict[str, Any]) -> str:
    """Return one package of a report: by its version, or by its address when it came from one."""
    name, source = item["metadata"]["name"], item["download_info"]
    if not item["is_direct"]:
        return f"{name}=={item['metadata']['version']}"
    sha256 = source["archive_info"]["hashes"]["sha256"]
    return f"{name} @ {source['url']}#sha256={sha256}"


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-input", "--no-cache-dir"]
    quiet = ["--disable-pip-version-check", "--progress-bar", "off", "--no-compile"]
    try:
        done = subprocess.run(
            [*command, *quiet, *arguments], capture_output=True, text=True, timeout=_PIP_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise TrainerError(
            Exit.TEMPORARY,
            Reason.INDEX_UNAVAILABLE,
            f"pip took longer than {_PIP_SECONDS} s",
            "it is tried again; shorten [environment].pip when the index is not to blame",
        ) from None
    log.info("%s%s", done.stdout, done.stderr)
    if done.returncode != 0:
        raise pip_failure(done.stdout + done.stderr)


_OFFLINE: Final = re.compile(
    r"connection broken|Could not fetch URL|Max retries exceeded|Connection refused|timed out"
    r"|Name or service not known|Temporary failure in name resolution|(?:HTTP error|Error) 5\d\d"
    r"|5\d\d Server Error|Too Many Requests"
)
_MISSING: Final = re.compile(r"No matching distribution found for (?P<name>.+)")
_CONFLICT: Final = re.compile(r"Cannot install (?P<names>.+?) because|ResolutionImpossible")
_ERROR: Final = re.compile(r"(?m)^\s*(?:ERROR|error): (?P<text>.+)")


def pip_failure(output: str) -> TrainerError:
    """Return what a failed pip means: an index that is away says "not found", too."""
    if _OFFLINE.search(output):
        return TrainerError(
            Exit.TEMPORARY,
            Reason.INDEX_UNAVAILABLE,
            "the package index cannot be reached, so the pip list cannot be installed",
            "the platform sets the index: trainer.pip_index_url",
        )
    if (conflict := _CONFLICT.search(output)) is not None:
        return TrainerError(
            Exit.ENVIRONMENT,
            Reason.PACKAGE_CONFLICT,
            f"the pip list does not go together with the trainer's own packages: "
            f"{conflict['names'] or 'conflicting versions'}",
            "loosen the versions in [environment].pip",
        )
    if (missing := _MISSING.search(output)) is not None:
        return TrainerError(
            Exit.ENVIRONMENT,
            Reason.PACKAGE_NOT_FOUND,
            f"the package index has nothing for {missing['name'].strip()!r}",
            "correct its name or version in [environment].pip",
        )
    error = _ERROR.search(output)
    return TrainerError(
        Exit.ENVIRONMENT,
        Reason.PACKAGE_FAILED,
        f"the pip list cannot be installed: {first_line(error['text'] if error else output)}",
        "correct [environment].pip",
    )
