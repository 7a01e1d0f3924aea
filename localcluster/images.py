"""The project's two images: built from its own Dockerfiles, pushed, known by digest.

With Docker the Dockerfiles' own base images are used. Without it there is no place to pull them
from, so bases are made from Debian packages: one layer with Python that both images share, and
on top of it, for the trainer, Debian's torch for CPUs.

The machine's certificates and pip settings are lent to a build and stay out of the image.
"""

import configparser
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import folders, toolchain
from localcluster.cluster_kind import ClusterKind
from localcluster.lifecycle import DevCluster
from localcluster.steps import FatalError, StepRunner

PACKAGES = ("buildah", "mmdebstrap", "debian-archive-keyring", "ca-certificates")
DOCKERFILES = {"operator": "operator/Dockerfile", "trainer": "trainer-image/Dockerfile"}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_FILES = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")

SUITE = "trixie"
PYTHON = ("python3", "python3-venv", "python3-pip", "ca-certificates")
TORCH = ("python3-torch",)
# On a machine without a GPU torch 2.6 raises where later versions, and transformers, expect None.
NO_ACCELERATOR = (
    "sed -i 's/^    return torch._C._accelerator_getAccelerator()$/& if is_available() else None/' "
    "/usr/lib/python3/dist-packages/torch/accelerator/__init__.py"
)
UNNEEDED = (
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/lib/libtorch-test/*",
)
# A virtual environment that sees Debian's packages: pip installs into it, and finds torch there.
VENV = "python3 -m venv --system-site-packages /opt/venv"
ENVIRONMENT = (
    "PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG=C.UTF-8",
    "USE_LIBUV=0",  # Debian builds torch without libuv, and torch's Python half assumes it
)


@dataclass(frozen=True)
class Images:
    """References by digest, as the cluster pulls them."""

    operator: str
    trainer: str


def build(local: DevCluster, steps: StepRunner) -> Images:
    """Build both images and push them to the cluster's registry."""
    missing = [p for p in DOCKERFILES.values() if not (folders.repository() / p).exists()]
    if missing:
        raise FatalError(
            f"{' and '.join(missing)} is not in {folders.repository()}; run from a checkout"
        )
    if local.kind in (ClusterKind.KIND, ClusterKind.K3D):
        return Images(**{name: _with_docker(name, local, steps) for name in DOCKERFILES})
    toolchain.debian(PACKAGES, steps)
    folders.cache().mkdir(parents=True, exist_ok=True)
    with toolchain.exclusive_build(folders.cache() / "buildah"):
        python = _python_base(steps)
        bases = {"operator": python, "trainer": _torch_base(python, steps)}
        layers = {
            layer for name in DOCKERFILES for layer in _with_buildah(name, bases[name], steps)
        }
        _prune(layers, bases.values(), steps)
        return Images(**{name: _push(name, local, steps) for name in DOCKERFILES})


def pip_settings() -> dict[str, str]:
    """How pip reaches its index on this machine: its files, then its environment variables."""
    settings: dict[str, str] = {}
    for name in PIP_FILES:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(Path(name).expanduser())
        for section in ("global", "install"):
            settings |= dict(parser[section]) if parser.has_section(section) else {}
    for key in PIP_KEYS:
        value = os.environ.get("PIP_" + key.upper().replace("-", "_"))
        settings |= {key: value} if value else {}
    return {key: settings[key] for key in PIP_KEYS if key in settings}


def recipe_hash(*parts: Sequence[str]) -> str:
    """A short hash of what a base image is made from; it is the image's tag."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


# Docker


def _with_docker(name: str, local: DevCluster, steps: StepRunner) -> str:
    image = f"{local.registry}/flashrun/{name}:local"
    root = folders.repository()
    with steps.step(f"build the {name} image with Docker"):
        steps.run(["docker", "build", "-t", image, "-f", root / DOCKERFILES[name], root])
    with steps.step(f"push the {name} image") as step:
        steps.run(["docker", "push", image])
        inspect = ["docker", "inspect", "-f", '{{join .RepoDigests "\\n"}}', image]
        digests = steps.run(inspect).split()
        reference = next(d for d in digests if d.startswith(local.registry))
        step.detail = reference
    return reference


# buildah


def _command(*arguments: object) -> list[object]:
    """A command line of buildah with a store of our own."""
    root = folders.cache() / "buildah"
    on_overlay = subprocess.run(
        ["stat", "-f", "-c", "%T", folders.cache()], capture_output=True, text=True
    ).stdout.startswith("overlay")
    driver = "vfs" if on_overlay else "overlay"
    store = ["--root", root, "--runroot", folders.sockets() / "buildah", "--storage-driver", driver]
    return ["buildah", *store, *arguments]


def _buildah(steps: StepRunner, *arguments: object, what: str = "") -> str:
    return steps.run(_command(*arguments), what=what or f"buildah {arguments[0]}")


def image_exists(image: str) -> bool:
    """Whether our store has an image of that name."""
    argv = [str(word) for word in _command("images", "-q", image)]
    return bool(subprocess.run(argv, capture_output=True, text=True).stdout.strip())


def _python_base(steps: StepRunner) -> str:
    """Debian with Python: the first layer of both images."""
    made_from = recipe_hash([SUITE], PYTHON, UNNEEDED, [VENV], ENVIRONMENT)
    image = f"localhost/flashrun/python:{made_from}"
    if image_exists(image):
        return image
    with (
        steps.step(f"make a base image: Debian {SUITE} with Python"),
        _container("scratch", steps) as container,
        _apt_settings() as settings,
    ):
        root = _buildah(steps, "mount", container).strip()
        _debian(root, settings, steps)
        environment = [f"--env={pair}" for pair in ENVIRONMENT]
        _buildah(steps, "config", *environment, "--cmd", "python3", container)
        _buildah(steps, "umount", container)
        _buildah(steps, "commit", "--quiet", container, image)
    return image


def _debian(root: str, settings: Path, steps: StepRunner) -> None:
    """Fill a folder with Debian, Python and an empty virtual environment."""
    lent = '"$1"/etc/apt/apt.conf.d/99host'
    options = [
        "--mode=root",
        "--variant=apt",
        "--format=directory",
        f"--include={','.join(PYTHON)}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Apt::Install-Recommends "false"',
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in UNNEEDED),
        f"--setup-hook=cp {settings} {lent}",
        f"--customize-hook=rm {lent}",
        '--customize-hook=rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
        f'--customize-hook=chroot "$1" {VENV}',
    ]
    steps.run(["mmdebstrap", *options, SUITE, root, *_mirrors()], what="mmdebstrap")


def _torch_base(python: str, steps: StepRunner) -> str:
    """The Python base and Debian's torch for CPUs in a layer of its own."""
    made_from = recipe_hash([python], TORCH, [NO_ACCELERATOR])
    image = f"localhost/flashrun/torch:{made_from}"
    if image_exists(image):
        return image
    install = "apt-get update -q && apt-get install -q -y --no-install-recommends"
    clean = "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin"
    script = f"{install} {' '.join(TORCH)} && {NO_ACCELERATOR} && {clean}"
    with (
        steps.step("make a base image: torch for CPUs from Debian"),
        _container(python, steps) as container,
        _apt_settings() as settings,
    ):
        how = ["--isolation=chroot", "--network=host", "--env", "DEBIAN_FRONTEND=noninteractive"]
        lent = ["--volume", f"{settings}:/etc/apt/apt.conf.d/99host:ro"]
        what = "installing torch from Debian"
        _buildah(steps, "run", *how, *lent, container, "--", "sh", "-c", script, what=what)
        _buildah(steps, "commit", "--quiet", container, image)
    return image


def _with_buildah(name: str, base: str, steps: StepRunner) -> set[str]:
    """Build an image; the ids, perhaps shortened, of every layer that this took."""
    root = folders.repository()
    with steps.step(f"build the {name} image"), _lent() as volumes:
        how = ["--layers", "--isolation=chroot", "--network=host", *volumes]
        what = ["--build-arg", f"BASE_IMAGE={base}", "-f", root / DOCKERFILES[name]]
        tag = ["-t", built(name)]
        said = _buildah(steps, "bud", *how, *what, *tag, root, what=f"building the {name} image")
    return layers_in_build_log(said)


def built(name: str) -> str:
    """The name of an image in our store."""
    return f"localhost/flashrun/{name}:local"


def _push(name: str, local: DevCluster, steps: StepRunner) -> str:
    """Push an image; a registry on this very disk gains nothing from compressed layers."""
    own = local.kind is not ClusterKind.CURRENT
    how = ["--tls-verify=false", "--disable-compression"] if own else []
    target = f"{local.registry}/flashrun/{name}"
    with tempfile.NamedTemporaryFile("r") as file, steps.step(f"push the {name} image") as step:
        digest = ["--digestfile", file.name]
        _buildah(steps, "push", "--quiet", *how, *digest, built(name), f"docker://{target}:local")
        step.detail = f"{target}@{file.read().strip()}"
    return step.detail


def layers_in_build_log(said: str) -> set[str]:
    """The ids in what `buildah bud --layers` says, of layers it made and of those it found."""
    return set(re.findall(r"(?m)^--> (?:Using cache )?([0-9a-f]{8,64})$", said))


def outdated_images(
    images: Sequence[dict[str, Any]], layers: Collection[str], bases: Collection[str]
) -> list[str]:
    """The ids of images that are neither a layer of the newest build nor a base, newest first.

    Newest first, because an image that another one is made of cannot go before it.
    """
    ids = [
        image["id"]
        for image in sorted(images, key=lambda image: str(image["createdatraw"]), reverse=True)
        if not image["id"].removeprefix("sha256:").startswith(tuple(layers))
        and not set(image["names"] or ()) & set(bases)
    ]
    return list(dict.fromkeys(ids))


def _prune(layers: Collection[str], bases: Collection[str], steps: StepRunner) -> None:
    """Remove from our store what no build would find again."""
    listed = subprocess.run(
        [str(word) for word in _command("images", "--all", "--no-trunc", "--json")],
        capture_output=True,
        text=True,
        check=True,
    )
    if old := outdated_images(json.loads(listed.stdout), layers, bases):
        with steps.step("remove layers of older images"):
            _buildah(steps, "rmi", "--force", *old)


@contextmanager
def _container(base: str, steps: StepRunner) -> Iterator[str]:
    """A working container; those that an interrupted build left are removed first."""
    _buildah(steps, "rm", "--all")
    name = _buildah(steps, "from", "--pull-never", base).split()[-1]
    try:
        yield name
    finally:
        _buildah(steps, "rm", name)


@contextmanager
def _lent() -> Iterator[list[object]]:
    """This machine's certificates and pip settings, as volumes for the time of a build."""
    with tempfile.TemporaryDirectory() as folder:
        settings = pip_settings()
        volumes: list[object] = []
        if CERTIFICATES.exists():
            volumes += ["--volume", f"{CERTIFICATES.parent}:{CERTIFICATES.parent}:ro"]
            settings["cert"] = str(CERTIFICATES)
        pip = Path(folder) / "pip.conf"
        pip.write_text("[global]\n" + "".join(f"{k} = {v}\n" for k, v in settings.items()))
        yield [*volumes, "--volume", f"{pip}:/etc/pip.conf:ro"]


@contextmanager
def _apt_settings() -> Iterator[Path]:
    """How apt reaches its archive on this machine (proxies, checks), in a file to lend."""
    dump = ["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"]
    lines = subprocess.run(dump, capture_output=True, text=True, check=True).stdout.splitlines()
    kept = [line for line in lines if "::IndexTargets" not in line and not line.startswith(" ")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "99host"
        file.write_text("\n".join(kept) + "\n")
        yield file


def _mirrors() -> list[str]:
    """The Debian archive that this machine already uses; none for mmdebstrap's own default."""
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian"]
    found = subprocess.run([*query, "Created-By: Packages"], capture_output=True, text=True)
    return [uri for uri in found.stdout.split() if "security" not in uri][:1]
