"""The programs of the local cluster: Debian packages, and programs built from Go modules.

A program is cached under a name with the hash of its sources, its flags and the Go version. It is
moved there in one step, so that an interrupted build leaves nothing that looks finished.
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
    """A program to build: a Go module at a version, or a folder of this package."""

    name: str
    version: str
    module: str = ""
    """`path@version` for `go install`; empty for the folder go/<name>."""
    variables: tuple[str, ...] = ()
    """`name=value` pairs that the linker sets."""
    packages: int = 0
    """About how many packages a first build compiles; it is the length of the bar."""

    @property
    def built_name(self) -> str:
        """The name of the file that is built: that of the module's last folder."""
        return self.module.partition("@")[0].rpartition("/")[2] or self.name

    @property
    def flags(self) -> list[str]:
        """The flags of `go build` and `go install`."""
        set_variables = "".join(f" -X {pair}" for pair in self.variables)
        return ["-trimpath", "-ldflags", f"-s -w{set_variables}"]


def _versions() -> tuple[str, ...]:
    """Return the version variables that the build of Kubernetes sets; the default is v0.0.0."""
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
        Program("health", "1", packages=1480),
        Program("helm", "3.22.0", module="helm.sh/helm/v3/cmd/helm@v3.22.0", packages=700),
        Program("helm4", "4.3.2", module="helm.sh/helm/v4/cmd/helm@v4.3.2", packages=700),
        Program("flux", "1", packages=570),
        Program("collector", "0.161.0", packages=560),
    )
}


def program(name: str, steps: StepRunner) -> Path:
    """Return the path of a Go program; build it when it is not in the cache."""
    definition = PROGRAMS[name]
    path = folders.cache() / "bin" / f"{name}-{_digest(definition)}"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        exclusive_build(path),
        steps.step(f"build {name} {definition.version}", definition.packages) as step,
    ):
        if not path.exists():  # another process may have built it while we waited
            _build(definition, path, steps, step)
        step.detail = f"{path.stat().st_size / 1e6:.0f} MB"
    return path


def server(name: str, steps: StepRunner) -> Path:
    """Return the path of a Kubernetes server or of kubectl; all are links to one program."""
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
            f"these programs are missing: {', '.join(missing)}; install them and run this command "
            "again"
        )
    if os.geteuid() != 0:
        raise FatalError(
            f"these Debian packages are missing: {', '.join(missing)}; run as root, or install "
            f"them first: apt-get install {' '.join(missing)}"
        )
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with steps.step(f"install {', '.join(missing)} from Debian"), _services_stay_off():
        steps.run(["apt-get", "update", "-q"], what="apt-get update", env=quiet)
        # Another apt may be at work, such as the one that updates a machine after its start.
        wait = "DPkg::Lock::Timeout=300"
        steps.run(
            ["apt-get", "install", "-q", "-y", "--no-install-recommends", "-o", wait, *missing],
            what="apt-get install",
            env=quiet,
        )


@contextmanager
def exclusive_build(path: Path) -> Iterator[None]:
    """Hold a lock beside `path`, so that only one process makes it."""
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(definition: Program, path: Path, steps: StepRunner, step: Step) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as folder:
        built = Path(folder) / definition.built_name
        env = {**GO_ENV, "GOBIN": folder} if definition.module else GO_ENV
        argv = (
            ["go", "install", "-v", *definition.flags, definition.module]
            if definition.module
            else ["go", "build", "-v", *definition.flags, "-o", str(built), "."]
        )
        cwd = Path(folder) if definition.module else GO_SOURCES / definition.name
        what = f"building {definition.name} with Go"
        steps.run(argv, what=what, env=env, cwd=cwd, on_line=_compiled(step))
        built.replace(path)


def _compiled(step: Step) -> Callable[[str], None]:
    """Return a callback that counts the packages that `go -v` prints, without downloads."""

    def on_line(line: str) -> None:
        if not line.startswith("go: "):
            step.advance()

    return on_line


def _digest(definition: Program) -> str:
    """Return a hash of the sources or the module, the flags, and the Go version."""
    digest = hashlib.sha256(
        " ".join([_go_version(), definition.module, *definition.flags]).encode()
    )
    if not definition.module:
        for file in sorted((GO_SOURCES / definition.name).iterdir()):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _go_version() -> str:
    """Return the version of Go, as in `go version go1.26.8 linux/amd64`.

    Raises:
        FatalError: Go is missing or too old.
    """
    if not shutil.which("go"):
        raise FatalError(
            "Go is missing; install Go 1.26 or newer, add it to PATH, and run this command again"
        )
    output = subprocess.run(
        ["go", "version"], env={**os.environ, **GO_ENV}, capture_output=True, text=True, check=True
    ).stdout.strip()
    version = re.search(r"go(\d+)\.(\d+)", output)
    if version and (int(version[1]), int(version[2])) < GO_AT_LEAST:
        raise FatalError(
            f"{output} is too old; install Go 1.26 or newer and run this command again"
        )
    return output


def _installed(package: str) -> bool:
    if not shutil.which("dpkg-query"):
        return shutil.which(package) is not None
    query = ["dpkg-query", "-W", "-f", "${Status}", package]
    return "install ok installed" in subprocess.run(query, capture_output=True, text=True).stdout


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Keep Debian from starting the services that it installs, a second containerd for example."""
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
