"""The two images of this project: built from their Dockerfiles, pushed, referenced by digest.

With Docker, builds use the base images that the Dockerfiles name. Without Docker, base images are
made from Debian packages: one layer with Python for both images and, for a trainer without GPUs,
Debian's torch on top.

The certificates and pip settings of this machine are mounted into a build; they stay out of the
image.
"""

import configparser
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import folders, toolchain
from localcluster.cluster_kind import ClusterKind
from localcluster.image_recipe import Recipe, recipe_for
from localcluster.lifecycle import DevCluster
from localcluster.steps import FatalError, StepRunner

PACKAGES = ("buildah", "mmdebstrap", "debian-archive-keyring", "ca-certificates")
SBOM = "/usr/share/flashrun/sbom.cdx.json"
"""List of what is installed in an image, in CycloneDX; the Dockerfiles write it."""
DOCKERFILES = {"operator": "operator/Dockerfile", "trainer": "trainer-image/Dockerfile"}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_FILES = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")

SUITE = "trixie"
PYTHON = ("python3", "python3-venv", "python3-pip", "ca-certificates")
# OpenBLAS replaces the reference BLAS, which takes some 20 times as long for a matrix product.
# A compiler, because some packages for environments come as source, such as pycosat.
TORCH = ("python3-torch", "libopenblas0-openmp", "gcc", "libc6-dev", "libpython3-dev")
# Without a GPU, torch 2.6 raises where later versions return None and transformers expects it.
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
# A virtual environment that sees Debian's packages, so that pip finds torch there.
VENV = "python3 -m venv --system-site-packages /opt/venv"
ENVIRONMENT = (
    "PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG=C.UTF-8",
    "USE_LIBUV=0",  # Debian builds torch without libuv, which torch uses by default
)


@dataclass(frozen=True)
class Images:
    """References of the two images, by digest."""

    operator: str
    trainer: str


def build(local: DevCluster, steps: StepRunner) -> Images:
    """Build both images and push them to the registry of the cluster."""
    missing = [p for p in DOCKERFILES.values() if not (folders.repository() / p).exists()]
    if missing:
        raise FatalError(
            f"{' and '.join(missing)} is not in {folders.repository()}; run from a checkout"
        )
    recipe = recipe_for(local.kind)
    if recipe.docker:
        return Images(**{name: _with_docker(name, local, recipe, steps) for name in DOCKERFILES})
    toolchain.debian(PACKAGES, steps)
    folders.cache().mkdir(parents=True, exist_ok=True)
    with toolchain.exclusive_build(folders.cache() / "buildah"):
        python = _python_base(steps)
        torch = _torch_name(python) if recipe.gpus else _torch_base(python, steps)
        bases = {"operator": python, "trainer": python if recipe.gpus else torch}
        layers: set[str] = set()
        for name, base in bases.items():
            with steps.step(f"build the {name} image"):
                arguments = ["--layers", *_arguments(name, recipe)]
                layers |= _bud(local_name(name), name, base, arguments, steps)
        _prune(layers, [python, torch], steps)  # a build of the other trainer needs the other one
        return Images(**{name: _push(name, local, steps) for name in DOCKERFILES})


def pip_settings() -> dict[str, str]:
    """Return how pip reaches its index here; environment variables override its files."""
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
    """Return a short hash of what a base image is made from; it becomes the tag."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def run_in_trainer(
    local: DevCluster, words: Sequence[str], mounts: Mapping[Path, str], steps: StepRunner
) -> str:
    """Run a command in the trainer image that was built last, on this machine; return its output.

    `mounts` are folders and files of this machine, with their places in the container.
    """
    volumes = [word for path, place in mounts.items() for word in ("--volume", f"{path}:{place}")]
    offline = ["--env", "HF_HUB_OFFLINE=1"]
    what = " ".join(words[:3])
    if recipe_for(local.kind).docker:
        image = f"{local.registry}/flashrun/trainer:local"
        user = ["--user", f"{os.getuid()}:{os.getgid()}", "--entrypoint", words[0]]
        command = ["docker", "run", "--rm", *user, *offline, *volumes, image, *words[1:]]
        return steps.run(command, what=what)
    with (
        toolchain.exclusive_build(folders.cache() / "buildah"),
        _container(local_name("trainer"), steps) as container,
    ):
        how = ["--isolation=chroot", "--user", "0", *offline, *volumes]
        return _buildah(steps, "run", *how, container, "--", *words, what=what)


def read_sbom(local: DevCluster, name: str, steps: StepRunner) -> str:
    """Return the list of packages in the image that was built last, as its build wrote it."""
    if recipe_for(local.kind).docker:
        lines: list[str] = []  # of a long output a step returns the end alone
        image = f"{local.registry}/flashrun/{name}:local"
        read = ["docker", "run", "--rm", "--entrypoint", "cat", image, SBOM]
        steps.run(read, what=f"reading {SBOM} in the {name} image", on_line=lines.append)
        return "".join(lines)
    with (
        toolchain.exclusive_build(folders.cache() / "buildah"),
        _container(local_name(name), steps) as container,
    ):
        # Not by a command in the container: buildah 1.28 may lose the end of what one prints.
        root = _buildah(steps, "mount", container).strip()
        text = Path(f"{root}{SBOM}").read_text()
        _buildah(steps, "umount", container)
    return text


@contextmanager
def gpu_trainer(folder: Path, steps: StepRunner) -> Iterator[Callable[..., str]]:
    """Build the trainer image for GPUs, with the torch that its Dockerfile names.

    Yields a function that runs a command in it and returns the output; ``folder`` is /mnt there. No
    layer of it is kept: it takes 10 GB while it is there.
    """
    toolchain.debian(PACKAGES, steps)
    image = local_name("trainer-for-gpus")
    with toolchain.exclusive_build(folders.cache() / "buildah"):
        base = _python_base(steps)
        with steps.step("build the trainer image for GPUs"):
            _bud(image, "trainer", base, [], steps)
        try:
            with _container(image, steps) as container:
                how = ["--isolation=chroot", "--user", "0", "--env", "HF_HUB_OFFLINE=1"]
                how += ["--volume", f"{folder}:/mnt"]
                yield lambda *words: _buildah(steps, "run", *how, container, "--", *words)
        finally:
            _buildah(steps, "rmi", "--force", image)


# Docker


def _arguments(name: str, recipe: Recipe) -> list[str]:
    """Return what the build of an image is given besides its Dockerfile."""
    return ["--build-arg", "VLLM=yes"] if name == "trainer" and recipe.vllm else []


def _with_docker(name: str, local: DevCluster, recipe: Recipe, steps: StepRunner) -> str:
    image = f"{local.registry}/flashrun/{name}:local"
    root = folders.repository()
    with steps.step(f"build the {name} image with Docker"):
        what = [*_arguments(name, recipe), "-f", root / DOCKERFILES[name]]
        steps.run(["docker", "build", "-t", image, *what, root])
    with steps.step(f"push the {name} image") as step:
        steps.run(["docker", "push", image])
        inspect = ["docker", "inspect", "-f", '{{join .RepoDigests "\\n"}}', image]
        digests = steps.run(inspect).split()
        reference = next(d for d in digests if d.startswith(local.registry))
        step.detail = reference
    return reference


# buildah


def _command(*arguments: object) -> list[object]:
    """Return a command line of buildah with our own image store."""
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
    """Return whether our image store has an image of this name."""
    argv = [str(word) for word in _command("images", "-q", image)]
    return bool(subprocess.run(argv, capture_output=True, text=True).stdout.strip())


def _python_base(steps: StepRunner) -> str:
    """Return the image of Debian with Python, the base of both images; make it if missing."""
    recipe = recipe_hash([SUITE], PYTHON, UNNEEDED, [VENV], ENVIRONMENT)
    image = f"localhost/flashrun/python:{recipe}"
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
    """Install Debian, Python and an empty virtual environment into a folder."""
    apt_settings = '"$1"/etc/apt/apt.conf.d/99host'
    options = [
        "--mode=root",
        "--variant=apt",
        "--format=directory",
        f"--include={','.join(PYTHON)}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Apt::Install-Recommends "false"',
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in UNNEEDED),
        f"--setup-hook=cp {settings} {apt_settings}",
        f"--customize-hook=rm {apt_settings}",
        '--customize-hook=rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
        f'--customize-hook=chroot "$1" {VENV}',
    ]
    steps.run(["mmdebstrap", *options, SUITE, root, *_mirrors()], what="mmdebstrap")


def _torch_base(python: str, steps: StepRunner) -> str:
    """Return the image of the Python base with Debian's torch for CPUs; make it if missing."""
    image = _torch_name(python)
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
        volume = ["--volume", f"{settings}:/etc/apt/apt.conf.d/99host:ro"]
        what = "installing torch from Debian"
        _buildah(steps, "run", *how, *volume, container, "--", "sh", "-c", script, what=what)
        _buildah(steps, "commit", "--quiet", container, image)
    return image


def _torch_name(python: str) -> str:
    return f"localhost/flashrun/torch:{recipe_hash([python], TORCH, [NO_ACCELERATOR])}"


def _bud(
    image: str, name: str, base: str, arguments: Sequence[object], steps: StepRunner
) -> set[str]:
    """Build an image; return the ids of all its layers, some of them shortened."""
    root = folders.repository()
    with _build_volumes() as volumes, _apt_settings() as settings:
        how = ["--isolation=chroot", "--network=host", *volumes]
        # PyTorch for GPUs needs a compiler from Debian.
        how += ["--volume", f"{settings}:/etc/apt/apt.conf.d/99host:ro"]
        what = ["--build-arg", f"BASE_IMAGE={base}", "-f", root / DOCKERFILES[name]]
        words = [*how, *arguments, *what, "-t", image, root]
        log = _buildah(steps, "bud", *words, what=f"building the {name} image")
    return layers_in_build_log(log)


def local_name(name: str) -> str:
    """Return the name of an image in our image store."""
    return f"localhost/flashrun/{name}:local"


def _push(name: str, local: DevCluster, steps: StepRunner) -> str:
    """Push an image; return its reference by digest.

    A registry on the same disk gains little from compressed layers, but buildah 1.28 compresses
    what it pushes whatever ``--disable-compression`` says.
    """
    own = local.kind is not ClusterKind.CURRENT
    how = (
        ["--tls-verify=false", "--compression-format=gzip", "--compression-level=1"] if own else []
    )
    target = f"{local.registry}/flashrun/{name}"
    with tempfile.NamedTemporaryFile("r") as file, steps.step(f"push the {name} image") as step:
        digest = ["--digestfile", file.name]
        _buildah(
            steps, "push", "--quiet", *how, *digest, local_name(name), f"docker://{target}:local"
        )
        step.detail = f"{target}@{file.read().strip()}"
    return step.detail


def layers_in_build_log(log: str) -> set[str]:
    """Return the ids that `buildah bud --layers` prints, of new layers and of cached ones."""
    return set(re.findall(r"(?m)^--> (?:Using cache )?([0-9a-f]{8,64})$", log))


def outdated_images(
    images: Sequence[dict[str, Any]], layers: Collection[str], bases: Collection[str]
) -> list[str]:
    """Return the ids of images that are neither a layer of the newest build nor a base image.

    The newest come first, because an image cannot be removed before the images built on it.
    """
    ids = [
        image["id"]
        for image in sorted(images, key=lambda image: str(image["createdatraw"]), reverse=True)
        if not image["id"].removeprefix("sha256:").startswith(tuple(layers))
        and not set(image["names"] or ()) & set(bases)
    ]
    return list(dict.fromkeys(ids))


def _prune(layers: Collection[str], bases: Collection[str], steps: StepRunner) -> None:
    """Remove images from our store that no later build can use."""
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
    """Yield a working container; remove those of interrupted builds first."""
    _buildah(steps, "rm", "--all")
    name = _buildah(steps, "from", "--pull-never", base).split()[-1]
    try:
        yield name
    finally:
        _buildah(steps, "rm", name)


@contextmanager
def _build_volumes() -> Iterator[list[object]]:
    """Yield flags that mount certificates and pip settings of this machine into a build."""
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
    """Yield a file with the apt settings of this machine (proxies, checks)."""
    dump = ["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"]
    lines = subprocess.run(dump, capture_output=True, text=True, check=True).stdout.splitlines()
    kept = [line for line in lines if "::IndexTargets" not in line and not line.startswith(" ")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "99host"
        file.write_text("\n".join(kept) + "\n")
        yield file


def _mirrors() -> list[str]:
    """Return the Debian archive that this machine uses; empty for the default of mmdebstrap."""
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian"]
    listed = subprocess.run([*query, "Created-By: Packages"], capture_output=True, text=True)
    return [uri for uri in listed.stdout.split() if "security" not in uri][:1]
