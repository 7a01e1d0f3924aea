"""Collect what the measurements on a GPU need, for a machine without a network.

    python -m bench.gpu.pack FOLDER [--python 3.12] [--torch REQUIREMENT] [--leave-out NAME …]

FOLDER gets the locked wheels of the trainer, this repository's sources and ``run.sh``. Copy it to
the machine and run ``bash run.sh`` there. Without ``--torch``, the machine's Python must have
PyTorch: its build for CUDA has several GB.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("operator/src/flashrun", "trainer-image/src/flashrun_trainer", "bench/gpu")
LOCK = ROOT / "trainer-image" / "requirements.txt"
NOT_NEEDED = ("gguf", "hatchling", "wandb", "sentry-sdk", "gitpython", "gitdb", "smmap")
"""Locked packages that no measurement imports; the largest of them has 30 MB."""
PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")


def requirements(lock: str, left_out: Sequence[str]) -> str:
    """Return the lock file without some packages.

    Raises:
        ValueError: a package is not in it.
    """
    # A package begins at the start of a line; its hashes follow, indented.
    packages = re.split(r"(?m)^(?=[A-Za-z0-9])", lock)
    named = {re.split(r"[=\[ ;]", part, maxsplit=1)[0].lower(): part for part in packages[1:]}
    if missing := sorted(set(left_out) - named.keys()):
        raise ValueError(f"{', '.join(missing)}: not in {LOCK.relative_to(ROOT)}")
    return "".join(part for name, part in named.items() if name not in left_out)


def download(folder: Path, python: str, machine: str, *words: str) -> None:
    """Download wheels for another Python into ``folder``."""
    platforms = [f"--platform={name}_{machine}" for name in PLATFORMS]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms,
        "--dest", folder, *words,
    ]  # fmt: skip
    subprocess.run(command, check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the folder, and say what to do with it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.pack", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="version of the machine's Python")
    parser.add_argument("--machine", default="x86_64", help="its architecture")
    parser.add_argument("--torch", help="for example torch==2.13.0; by default the machine has it")
    parser.add_argument("--extra-index-url", help="where the build of --torch is")
    parser.add_argument(
        "--leave-out", nargs="*", default=[], metavar="NAME", help="packages that the machine has"
    )
    given = parser.parse_args(arguments)
    if not re.fullmatch(r"3\.\d+", given.python):
        parser.error(f"--python {given.python}: give a version such as 3.12")
    if given.folder.exists() and any(given.folder.iterdir()):
        parser.error(f"{given.folder} is not empty: name a new folder")
    try:
        # Some of these packages have been left out of the lock since this list was written.
        text = LOCK.read_text()
        optional = [name for name in NOT_NEEDED if re.search(rf"(?m)^{name}==", text)]
        locked = requirements(text, [*optional, *given.leave_out])
    except ValueError as error:
        parser.error(f"--leave-out: {error}")
    wheels = given.folder / "wheels"
    wheels.mkdir(parents=True)
    (given.folder / "requirements.txt").write_text(locked)
    (given.folder / "python-version").write_text(given.python + "\n")
    download(
        wheels, given.python, given.machine,
        "--no-deps", "--require-hashes", "-r", str(given.folder / "requirements.txt"),
    )  # fmt: skip
    # The machine's Python may come without pip.
    download(wheels, given.python, given.machine, "--no-deps", f"pip=={version('pip')}")
    if given.torch:
        index = ["--extra-index-url", given.extra_index_url] if given.extra_index_url else []
        download(wheels, given.python, given.machine, *index, given.torch)
        (given.folder / "torch").write_text(given.torch + "\n")
    for source in SOURCES:
        shutil.copytree(
            ROOT / source,
            given.folder / "sources" / source,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(ROOT / "bench" / "gpu" / "run.sh", given.folder / "run.sh")
    size = sum(path.stat().st_size for path in given.folder.rglob("*") if path.is_file())
    print(f"{given.folder} has {size / 2**20:.0f} MiB: copy it to the machine, and run there:")
    print("  bash run.sh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
