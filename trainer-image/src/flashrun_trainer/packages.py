"""The init container ``packages``: the environment's package, unpacked, and its pip list.

It runs without user secrets. The pip list is resolved against what the image has: that is pinned,
and only what is missing is installed, into a folder of its own.
"""

import json
import logging
import re
import stat
import subprocess
import sys
import tarfile
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from typing import Final

from flashrun.spec import names
from flashrun.spec.outcome import Exit
from flashrun.spec.records import ResolvedEnvironment, ResolvedRun
from flashrun.store import Forbidden, NotFound, Store
from flashrun_trainer.failures import TrainerError, first_line
from flashrun_trainer.pod import Pod

log = logging.getLogger(__name__)

LARGEST: Final = 256 * 1024 * 1024
"""Most bytes that a package may unpack to."""
MOST_MEMBERS: Final = 5000
_PIP_SECONDS: Final = 1800


def run(pod: Pod) -> None:
    """Fill the two folders of ``pod.packages``."""
    spec = pod.run()
    archive = pod.packages / "environment.tar.gz"
    download(pod.store(), spec.environment, archive)
    unpack(archive, pod.environment)
    archive.unlink()
    pod.site.mkdir(parents=True, exist_ok=True)
    if spec.environment.pip:
        install(spec, pod.site)


def download(store: Store, environment: ResolvedEnvironment, path: Path) -> None:
    """Download the package and check its SHA-256."""
    try:
        found = store.get_file(
            names.environment_package_key(environment.id, environment.digest), path
        )
    except (NotFound, Forbidden) as error:
        raise TrainerError(
            Exit.ENVIRONMENT,
            "EnvironmentNotFound",
            f"the package of environment {environment.id} cannot be had: {error}",
            "publish it with flash env push",
        ) from None
    if found.sha256 != environment.digest:
        raise TrainerError(
            Exit.TEMPORARY,
            "EnvironmentCorrupt",
            f"the package of {environment.id} has SHA-256 {found.sha256[:12]}…, "
            f"not {environment.digest[:12]}…",
        )
    log.info("environment %s: %d bytes, SHA-256 %s", environment.id, found.size, found.sha256)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack plain files and folders, and refuse anything else.

    Raises:
        TrainerError: a member is no plain file, would land outside ``folder``, or is too much.
    """
    size = count = 0
    try:
        with tarfile.open(archive, "r|gz") as members:
            for member in members:
                count, size = count + 1, size + member.size
                _check(member, count, size)
                path = folder / member.name
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                content = members.extractfile(member)
                assert content is not None  # a plain file has content
                path.write_bytes(content.read())
    except (tarfile.TarError, OSError, EOFError, UnicodeError) as error:
        raise _invalid(f"cannot be unpacked: {first_line(str(error))}") from None


def _check(member: tarfile.TarInfo, count: int, size: int) -> None:
    name = member.name
    if count > MOST_MEMBERS:
        raise _invalid(f"has more than {MOST_MEMBERS} files")
    if size > LARGEST:
        raise _invalid(f"is larger than {LARGEST // 1024**2} MiB")
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise _invalid(f"has {name!r}, which is neither a file nor a folder")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise _invalid(f"has {name!r}, which would land outside its folder")
    if stat.S_IMODE(member.mode) & (stat.S_ISUID | stat.S_ISGID):
        raise _invalid(f"has {name!r}, which would run as someone else")


def _invalid(what: str) -> TrainerError:
    return TrainerError(
        Exit.ENVIRONMENT,
        "EnvironmentInvalid",
        f"the environment's package {what}",
        "publish it again with flash env push",
    )


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


def pins() -> list[str]:
    """Return the packages of the image, as constraints."""
    found = {item.name.lower(): item for item in distributions() if item.name}
    return sorted(f"{item.name}=={item.version}" for item in found.values())


def planned(report: str) -> list[str]:
    """Return what pip would install, from its installation report."""
    items = (item["metadata"] for item in json.loads(report)["install"])
    return sorted(f"{item['name']}=={item['version']}" for item in items)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-input", "--no-cache-dir"]
    quiet = ["--disable-pip-version-check", "--progress-bar", "off", "--no-compile"]
    try:
        done = subprocess.run(
            [*command, *quiet, *arguments], capture_output=True, text=True, timeout=_PIP_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise TrainerError(
            Exit.TEMPORARY, "IndexUnavailable", f"pip took longer than {_PIP_SECONDS} s"
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
            "IndexUnavailable",
            "the package index cannot be reached, so the pip list cannot be installed",
            "the platform sets the index: trainer.pip_index_url",
        )
    if (conflict := _CONFLICT.search(output)) is not None:
        return TrainerError(
            Exit.ENVIRONMENT,
            "PackageConflict",
            f"the pip list does not go together with the trainer's own packages: "
            f"{conflict['names'] or 'conflicting versions'}",
            "loosen the versions in [environment].pip",
        )
    if (missing := _MISSING.search(output)) is not None:
        return TrainerError(
            Exit.ENVIRONMENT,
            "PackageNotFound",
            f"the package index has nothing for {missing['name'].strip()!r}",
            "correct its name or version in [environment].pip",
        )
    error = _ERROR.search(output)
    return TrainerError(
        Exit.ENVIRONMENT,
        "PackageFailed",
        f"the pip list cannot be installed: {first_line(error['text'] if error else output)}",
        "correct [environment].pip",
    )
