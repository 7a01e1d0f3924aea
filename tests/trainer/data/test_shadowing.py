"""Modules of an environment that Python would import in place of the trainer's own."""

import re
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flashrun.api.exits import Exit
from flashrun.api.trainer_modules import TRAINER_MODULES
from flashrun_trainer.data import environment, shadowing
from flashrun_trainer.data.shadowing import refuse_shadowing
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer.data.test_environment import spec
from tests.trainer.pods import ROOT, sums


def write(folder: Path, **files: str) -> Path:
    for name, text in (sums() | files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(TrainerError) as error:
        environment.load_folder(folder, spec())
    assert (error.value.code, error.value.reason) == (Exit.ENVIRONMENT, "EnvironmentInvalid")
    assert "rename it" in error.value.hint
    return error.value.message


@pytest.fixture(autouse=True)
def _python_as_it_was(monkeypatch: pytest.MonkeyPatch):
    """Restores the path and the modules that a loaded environment changes."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.startswith("_freesolo_env"):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["datasets.py", "trl.py", "wandb/__init__.py", "statistics.py"])
def test_a_module_of_the_trainers_name_is_refused_before_anything_is_imported(
    tmp_path: Path, name: str
):
    bad = {name: "", "environment.py": "raise SystemExit\n"}
    assert f"the environment's {name} has the name" in refusal(write(tmp_path, **bad))


def test_a_module_in_a_folder_that_the_environment_puts_on_the_path_is_refused(tmp_path: Path):
    head = "import sys\nfrom pathlib import Path\n"
    head += "sys.path.insert(0, str(Path(__file__).parent / 'lib'))\n"
    code = head + sums()["environment.py"]
    message = refusal(write(tmp_path, **{"environment.py": code, "lib/peft.py": ""}))
    assert "the environment's lib/peft.py has the name" in message


def test_a_module_that_was_imported_in_place_of_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module = ModuleType("trl")
    module.__file__ = str(write(tmp_path, **{"lib/trl.py": ""}) / "lib/trl.py")
    monkeypatch.setitem(sys.modules, "trl", module)
    assert "the environment's lib/trl.py has the name" in refusal(tmp_path)


def test_own_names_are_loaded(tmp_path: Path):
    code = "import own_helper\n" + sums()["environment.py"]
    own = {"environment.py": code, "own_helper.py": "", "datasets/notes.txt": "", "lib/trl.py": ""}
    assert environment.load_folder(write(tmp_path, **own), spec()).examples


def test_what_a_base_image_has_besides_is_refused_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    installed = {"vendor_kernels": ["kernels"], "tests": ["careless"], "nvidia/x": ["nvidia-x"]}
    monkeypatch.setattr(shadowing, "packages_distributions", lambda: installed)
    modules = shadowing.image_modules()
    assert modules == TRAINER_MODULES | {"vendor_kernels"}
    with pytest.raises(TrainerError, match=r"vendor_kernels\.py"):
        refuse_shadowing(write(tmp_path, **{"vendor_kernels.py": ""}), modules)


def test_the_list_has_every_module_of_the_locked_packages():
    lock = (ROOT / "trainer-image/requirements.txt").read_text()
    locked = {canonicalize_name(name) for name in re.findall(r"(?m)^([\w.-]+)==", lock)}
    unread = [*locked, "torch"]
    while unread:
        try:
            needed = [Requirement(text) for text in requires(unread.pop()) or []]
        except PackageNotFoundError:  # of another platform, or outside the trainer image
            continue
        names = {
            canonicalize_name(requirement.name)
            for requirement in needed
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        }
        unread += names - locked
        locked |= names
    modules = {
        module
        for module, packages in packages_distributions().items()
        if module.isidentifier() and locked & set(map(canonicalize_name, packages))
    }
    assert modules - TRAINER_MODULES == set()
