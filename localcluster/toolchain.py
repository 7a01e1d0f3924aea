"""The programs everything else needs: Debian's, and the ones built from Go modules.

A built program is cached under a name that holds the hash of its sources, its flags and the Go
version, and moved there in one step: an interrupted build leaves nothing that looks finished.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localcluster import folders
from localcluster.steps import FatalError, Step, StepRunner

KUBERNETES = "1.34.4"
GO_AT_LEAST = (1, 24)
GO_ENV = {
    "CGO_ENABLED": "0",
    "GOTOOLCHAIN": "local",
    "GOFLAGS": "-buildvcs=false -modcacherw",
    "GOWORK": "off",
}
GO_SOURCES = Path(__file__).resolve().parent / "go"


@dataclass(frozen=True)
class Program:
    """A program to build: a module at a version, or a folder of this package."""

    name: str
    version: str
    module: str = ""
    """`path@version` for `go install`; empty for the folder go/<name>."""
    variables: tuple[str, ...] = ()
    """`name=value` pairs the linker sets."""
    packages: int = 0
    """About how many packages a first build compiles; only the bar depends on it."""

    @property
    def flags(self) -> list[str]:
        """What `go build` and `go install` are told."""
        set_variables = "".join(f" -X {pair}" for pair in self.variables)
        return ["-trimpath", "-ldflags", f"-s -w{set_variables}"]


def _versions() -> tuple[str, ...]:
    """What Kubernetes' own build sets, so that its servers do not call themselves v0.0.0."""
    values = {
        "gitVersion": f"v{KUBERNETES}",
        "gitMajor": KUBERNETES.split(".")[0],
        "gitMinor": KUBERNETES.split(".")[1],
        "gitTreeState": "clean",
        "buildDate": "2025-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple(f"{p}.{name}={value}" for p in packages for name, value in values.items())


PROGRAMS = {
    program.name: program
    for program in (
        Program("kubernetes", KUBERNETES, variables=_versions(), packages=2450),
        Program("pause", "1", packages=60),
        Program(
            "registry",
            "3.0.0",
            module="github.com/distribution/distribution/v3/cmd/registry@v3.0.0",
            packages=840,
        ),
        Program(
            "minio",
            "2026-02-12",
            module="github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c",
            packages=1070,
        ),
        Program("coredns", "1.14.1", packages=540),
        Program("helm", "3.22.0", module="helm.sh/helm/v3/cmd/helm@v3.22.0", packages=700),
    )
}


def program(name: str, steps: StepRunner) -> Path:
    """The path of a Go program, built first when the cache lacks it."""
    wanted = PROGRAMS[name]
    path = folders.cache() / "bin" / f"{name}-{_digest(wanted)}"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        exclusive_build(path),
        steps.step(f"build {name} {wanted.version}", wanted.packages) as step,
    ):
        if not path.exists():  # somebody else may have built it while we waited
            _build(wanted, path, steps, step)
        step.detail = f"{path.stat().st_size / 1e6:.0f} MB"
    return path


def server(name: str, steps: StepRunner) -> Path:
    """The path of a Kubernetes server or of kubectl: a link to the one program they all are."""
    target = program("kubernetes", steps)
    link = target.parent / f"{target.name}.d" / name
    if not link.exists():
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return link


def debian(packages: Iterable[str], steps: StepRunner) -> None:
    """Install the Debian packages that are missing, without starting their services."""
    missing = [package for package in packages if not _installed(package)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise FatalError(
            f"these programs are missing: {', '.join(missing)}; install them and run again"
        )
    if os.geteuid() != 0:
        raise FatalError(
            f"these Debian packages are missing: {', '.join(missing)}; run as root, or install "
            f"them first: apt-get install {' '.join(missing)}"
        )
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with steps.step(f"install {', '.join(missing)} from Debian"), _services_stay_off():
        steps.run(["apt-get", "update", "-q"], what="apt-get update", env=quiet)
        steps.run(
            ["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing],
            what="apt-get install",
            env=quiet,
        )


@contextmanager
def exclusive_build(path: Path) -> Iterator[None]:
    """Hold a lock beside `path`: of several commands that want to make it, one does."""
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(wanted: Program, path: Path, steps: StepRunner, step: Step) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as folder:
        built = Path(folder) / wanted.name
        env = {**GO_ENV, "GOBIN": folder} if wanted.module else GO_ENV
        argv = (
            ["go", "install", "-v", *wanted.flags, wanted.module]
            if wanted.module
            else ["go", "build", "-v", *wanted.flags, "-o", str(built), "."]
        )
        cwd = Path(folder) if wanted.module else GO_SOURCES / wanted.name
        what = f"building {wanted.name} with Go"
        steps.run(argv, what=what, env=env, cwd=cwd, on_line=_compiled(step))
        built.replace(path)


def _compiled(step: Step) -> Callable[[str], None]:
    """Counts the packages `go -v` names; downloads are in the log alone."""

    def on_line(line: str) -> None:
        if not line.startswith("go: "):
            step.advance()

    return on_line


def _digest(wanted: Program) -> str:
    """What a program depends on: its sources or module, its flags, and the Go version."""
    digest = hashlib.sha256(" ".join([_go_version(), wanted.module, *wanted.flags]).encode())
    if not wanted.module:
        for file in sorted((GO_SOURCES / wanted.name).iterdir()):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _go_version() -> str:
    """`go version go1.26.8 linux/amd64`; Stop when Go is missing or too old."""
    if not shutil.which("go"):
        raise FatalError("Go is missing; install Go 1.26 or newer, put it into PATH, and run again")
    output = subprocess.run(
        ["go", "version"], env={**os.environ, **GO_ENV}, capture_output=True, text=True, check=True
    ).stdout.strip()
    found = re.search(r"go(\d+)\.(\d+)", output)
    if found and (int(found[1]), int(found[2])) < GO_AT_LEAST:
        raise FatalError(f"{output} is too old; install Go 1.26 or newer and run again")
    return output


def _installed(package: str) -> bool:
    if not shutil.which("dpkg-query"):
        return shutil.which(package) is not None
    query = ["dpkg-query", "-W", "-f", "${Status}", package]
    return "install ok installed" in subprocess.run(query, capture_output=True, text=True).stdout


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Debian starts what it installs; this machine's own containerd must not appear with ours."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)
