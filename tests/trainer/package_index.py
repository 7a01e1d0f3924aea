"""A package index in a folder: wheels, and source distributions with a build backend of their own.

Nothing here needs the network: the backends lie in the source distributions, or on the index.
"""

import base64
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

OWN_BACKEND = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
"""A pyproject.toml whose build backend is the file ``backend.py`` beside it."""


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves folders without a log."""

    def log_message(self, *_: object) -> None:
        return


class PrivateHandler(QuietHandler):
    """Serves folders to one user."""

    login = "user:password"

    def send_head(self) -> Any:
        expected = base64.b64encode(self.login.encode()).decode()
        if self.headers.get("Authorization") == f"Basic {expected}":
            return super().send_head()
        self.send_error(401)
        return None


def project(index: Path, name: str) -> Path:
    """Return the folder of a project."""
    folder = index / name.replace("_", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def wheel_files(name: str, version: str = "1.0", requires: Sequence[str] = ()) -> dict[str, str]:
    """Return the content of the smallest wheel there is."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    return {
        f"{name}.py": "VALUE = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }


def wheel(
    folder: Path,
    name: str,
    requires: Sequence[str] = (),
    *,
    version: str = "1.0",
    tag: str = "py3-none-any",
    files: Mapping[str, str] | None = None,
) -> None:
    """Write a wheel into ``folder``."""
    content = wheel_files(name, version, requires) | dict(files or {})
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)


def source(folder: Path, name: str, files: Mapping[str, str], version: str = "1.0") -> None:
    """Write a source distribution into ``folder``."""
    with tarfile.open(folder / f"{name}-{version}.tar.gz", "w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def backend(name: str) -> str:
    """Return a build backend that writes the smallest wheel of ``name``."""
    return (
        "import os, zipfile\n"
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
        f"    file = '{name}-1.0-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(os.path.join(folder, file), 'w') as archive:\n"
        f"        for path, text in {wheel_files(name)!r}.items():\n"
        "            archive.writestr(path, text)\n"
        "    return file\n"
    )


def failing_backend(words: str) -> str:
    """Return a build backend that prints ``words`` and fails."""
    return (
        "import sys\n"
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
        f"    print({words!r}, file=sys.stderr)\n"
        "    raise SystemExit(1)\n"
    )


def setuptools_stand_in(folder: Path, name: str) -> None:
    """Write wheels of ``setuptools`` and ``wheel``; the first builds ``name`` from any setup.py."""
    legacy = backend(name) + "class __legacy__:\n    build_wheel = staticmethod(build_wheel)\n"
    for project_name, files in (
        ("setuptools", {"setuptools/__init__.py": "", "setuptools/build_meta.py": legacy}),
        ("wheel", {"wheel/__init__.py": ""}),
    ):
        wheel(project(folder, project_name), project_name, version="99.0", files=files)
