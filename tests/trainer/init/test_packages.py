"""The init container of the environment: an untrusted archive, and a pip list."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest

from flashrun.api.exits import Exit
from flashrun.api.verifiers_packages import VERSION, VerifiersEntry
from flashrun_trainer.init import packages
from flashrun_trainer.init.init_container import run_init_container
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer import archives, verifiers_sources
from tests.trainer.http_servers import serving
from tests.trainer.package_index import (
    OWN_BACKEND,
    PrivateHandler,
    QuietHandler,
    backend,
    failing_backend,
    project,
    setuptools_stand_in,
    source,
    wheel,
    wheel_files,
)
from tests.trainer.pods import ENVIRONMENT_ID, ROOT, TrainerPod, Workshop, package, resolved, sums


@pytest.mark.parametrize(("data", "words"), archives.HOSTILE.values(), ids=archives.HOSTILE)
def test_a_hostile_package_is_refused(tmp_path: Path, data: bytes, words: str):
    path = tmp_path / "package.tar.gz"
    path.write_bytes(data)
    with pytest.raises(TrainerError, match=words) as error:
        packages.unpack_package(path, tmp_path / "environment")
    assert (error.value.code, error.value.reason) == (Exit.ENVIRONMENT, "EnvironmentInvalid")
    assert not (tmp_path / "evil.py").exists()


def test_files_and_folders_are_unpacked_without_their_modes(tmp_path: Path):
    tools = archives.member("tools", tarfile.DIRTYPE)
    script = archives.member("tools/run.sh", content=b"text", mode=0o777)
    path = tmp_path / "package.tar.gz"
    path.write_bytes(archives.archive(tools, script))
    packages.unpack_package(path, tmp_path / "environment")
    unpacked = tmp_path / "environment/tools/run.sh"
    assert unpacked.read_bytes() == b"text"
    assert unpacked.stat().st_mode & 0o111 == 0


def test_an_index_that_refuses_connections_is_a_temporary_failure(tmp_path: Path):
    run = resolved(
        environment={"pip": ("some-package",)}, pip_index_url="http://127.0.0.1:1/simple"
    )
    with pytest.raises(TrainerError) as error:
        packages.install_packages(run, tmp_path / "site")
    assert (error.value.code, error.value.reason) == (Exit.TEMPORARY, "IndexUnavailable")


def test_what_the_image_has_is_not_installed_again(tmp_path: Path):
    run = resolved(environment={"pip": ("packaging",)}, pip_index_url="http://127.0.0.1:1/simple")
    packages.install_packages(run, tmp_path / "site")
    assert not (tmp_path / "site").exists()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index with two packages; one needs the other and a package of the image."""
    for name, requires in (("aaa_test", "bbb_test"), ("bbb_test", "packaging")):
        wheel(project(tmp_path / "index", name), name, [requires])
    with serving(partial(QuietHandler, directory=str(tmp_path / "index"))) as address:
        yield address


def test_the_pip_list_and_what_it_needs_is_installed_beside_the_image(tmp_path: Path, index: str):
    run = resolved(environment={"pip": ("aaa-test>=1",)}, pip_index_url=index)
    packages.install_packages(run, tmp_path / "site")
    modules = {path.name for path in (tmp_path / "site").glob("*.py")}
    assert modules == {"aaa_test.py", "bbb_test.py"}


def test_the_container_logs_in_to_an_index_that_asks_for_a_password(
    new_pod: Callable[..., TrainerPod], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    wheel(project(tmp_path / "index", "aaa_test"), "aaa_test")
    pod = new_pod()
    netrc = pod.folder / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    private = type("Private", (PrivateHandler,), {"login": "me:hush-hush"})
    with serving(partial(private, directory=str(tmp_path / "index"))) as index:
        run = resolved(environment={"pip": ("aaa-test",)}, pip_index_url=index)
        netrc.write_text('machine 127.0.0.1 login "me" password "wrong"\n')
        with pytest.raises(TrainerError, match="refuses access") as error:
            packages.install_packages(run, pod.inside.site)
        assert "trainer.pipIndexSecret" in error.value.hint
        netrc.write_text('machine 127.0.0.1 login "me" password "hush-hush"\n')
        packages.install_packages(run, pod.inside.site)
    assert [path.name for path in pod.inside.site.glob("*.py")] == ["aaa_test.py"]
    left = [path for path in pod.inside.packages.rglob("*") if path.is_file()]
    assert not [path for path in left if b"hush-hush" in path.read_bytes()]


def test_a_package_that_was_named_by_its_address_comes_from_there(tmp_path: Path, index: str):
    elsewhere = tmp_path / "index" / "elsewhere"
    elsewhere.mkdir()
    wheel(elsewhere, "ccc_test", ["bbb_test"])
    requirement = f"ccc-test @ {index}/elsewhere/ccc_test-1.0-py3-none-any.whl"
    run = resolved(environment={"pip": (requirement,)}, pip_index_url=index)
    packages.install_packages(run, tmp_path / "site")
    modules = {path.name for path in (tmp_path / "site").glob("*.py")}
    assert modules == {"bbb_test.py", "ccc_test.py"}


def refusal(tmp_path: Path, index: str, *pip: str) -> TrainerError:
    run = resolved(environment={"pip": pip}, pip_index_url=index)
    with pytest.raises(TrainerError) as error:
        packages.install_packages(run, tmp_path / "site")
    assert "\n" not in error.value.message
    return error.value


IMAGE = version("packaging")


@pytest.mark.parametrize(
    ("requirement", "reason", "message"),
    [
        (
            "no-such-package",
            "PackageNotFound",
            "'no-such-package' of the pip list is not on the package index",
        ),
        (
            "aaa-test>=2",
            "PackageNotFound",
            "'aaa-test>=2' of the pip list is not on the package index, whose newest version of "
            "it is 1.0",
        ),
        (
            "packaging<1",
            "PackageConflict",
            f"'packaging<1' of the pip list conflicts with packaging {IMAGE} of the trainer image",
        ),
    ],
)
def test_a_requirement_that_cannot_be_met_is_named(
    tmp_path: Path, index: str, requirement: str, reason: str, message: str
):
    error = refusal(tmp_path, index, requirement)
    assert (error.code, error.reason, error.message) == (Exit.ENVIRONMENT, reason, message)


def test_a_conflict_names_the_requirement_the_package_and_the_package_of_the_image(
    tmp_path: Path, index: str
):
    wheel(project(tmp_path / "index", "ddd_test"), "ddd_test", ["packaging<1"])
    wheel(project(tmp_path / "index", "eee_test"), "eee_test", ["ddd_test"])
    error = refusal(tmp_path, index, "aaa-test", "eee-test>=1")
    assert (error.code, error.reason) == (Exit.ENVIRONMENT, "PackageConflict")
    assert error.message == (
        "ddd-test, which 'eee-test>=1' of the pip list needs, needs packaging<1, which conflicts "
        f"with packaging {IMAGE} of the trainer image"
    )


def test_two_requirements_that_exclude_each_other_are_both_named(tmp_path: Path, index: str):
    for number in (1, 2):
        name = f"fff{number}_test"
        wheel(project(tmp_path / "index", name), name, [f"bbb_test=={number}.0"])
    wheel(project(tmp_path / "index", "bbb_test"), "bbb_test", version="2.0")
    error = refusal(tmp_path, index, "fff1-test", "fff2-test")
    assert (error.code, error.reason) == (Exit.ENVIRONMENT, "PackageConflict")
    assert error.message == (
        "the pip list contradicts itself: fff1-test 1.0 needs bbb_test==1.0, but fff2-test 1.0 "
        "needs bbb_test==2.0"
    )


def test_a_source_distribution_is_built(tmp_path: Path, index: str):
    files = {"pyproject.toml": OWN_BACKEND, "backend.py": backend("ggg_test")}
    source(project(tmp_path / "index", "ggg_test"), "ggg_test", files)
    wheel(project(tmp_path / "index", "hhh_test"), "hhh_test", ["ggg_test"])
    run = resolved(environment={"pip": ("hhh-test",)}, pip_index_url=index)
    packages.install_packages(run, tmp_path / "site")
    modules = {path.name for path in (tmp_path / "site").glob("*.py")}
    assert modules == {"ggg_test.py", "hhh_test.py"}
    assert not (tmp_path / "pip-cache").exists()


@pytest.fixture
def old_source(tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that there is only as a setup.py, in an image with remains of setuptools."""
    files = {"setup.py": "from setuptools import setup\nsetup(name='iii_test', version='1.0')\n"}
    source(project(tmp_path / "index", "iii_test"), "iii_test", files)
    setuptools_stand_in(tmp_path / "index", "iii_test")
    for leftover in ("setuptools", "wheel"):
        (tmp_path / "leftovers" / leftover).mkdir(parents=True)
        (tmp_path / "leftovers" / leftover / "__init__.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path / "leftovers"), *filter(None, [os.getenv("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)
    return "iii-test"


def test_an_old_source_distribution_is_not_built_with_what_the_image_has_of_setuptools(
    tmp_path: Path, index: str, old_source: str
):
    run = resolved(environment={"pip": (old_source,)}, pip_index_url=index)
    packages.install_packages(run, tmp_path / "site")
    assert (tmp_path / "site/iii_test.py").is_file()


LOAD = """
import os
from flashrun_trainer.data import environment
from flashrun_trainer.pod.distributed import ProcessGroup
from flashrun_trainer.pod.mounts import PodMounts

pod = PodMounts.from_environment(os.environ)
loaded = environment.load(pod, pod.run().environment, ProcessGroup())
print(len(loaded.examples))
"""


def test_the_environment_imports_a_package_that_there_is_only_as_an_old_source_distribution(
    empty_workshop: Workshop, index: str, old_source: str
):
    code = sums()["environment.py"].replace(
        "def load_environment(", "import iii_test\n\n\ndef load_environment(", 1
    )
    digest = empty_workshop.publish(sums(environment=code))
    run = resolved(environment={"pip": (old_source,), "digest": digest}, pip_index_url=index)
    pod = TrainerPod(empty_workshop, run, 1)
    pod.write_files()
    (pod.folder / "packages").mkdir()
    (pod.folder / "work").mkdir()
    packages.run(pod.inside)
    sources = os.pathsep.join([str(ROOT / "operator/src"), str(ROOT / "trainer-image/src")])
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**os.environ, **pod.environment, "PYTHONPATH": sources},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.stdout.splitlines()[-1:] == ["128"], loaded.stderr


def test_a_build_that_fails_names_the_requirement_the_package_and_the_reason(
    tmp_path: Path, index: str
):
    words = "error: command 'gcc' failed: No such file or directory"
    files = {"pyproject.toml": OWN_BACKEND, "backend.py": failing_backend(words)}
    source(project(tmp_path / "index", "jjj_test"), "jjj_test", files)
    wheel(project(tmp_path / "index", "kkk_test"), "kkk_test", ["jjj_test"])
    error = refusal(tmp_path, index, "aaa-test", "kkk-test>=1")
    assert (error.code, error.reason) == (Exit.ENVIRONMENT, "PackageFailed")
    assert error.message == (
        "jjj_test, which 'kkk-test>=1' of the pip list needs, cannot be built from source for "
        f"Python {sys.version_info.major}.{sys.version_info.minor}: a compiler is missing (gcc)"
    )


def test_a_build_that_fails_after_the_resolution_names_the_same(tmp_path: Path, index: str):
    metadata = wheel_files("lll_test")["lll_test-1.0.dist-info/METADATA"]
    prepare = (
        "import os\n"
        "def prepare_metadata_for_build_wheel(folder, config_settings=None):\n"
        "    os.mkdir(os.path.join(folder, 'lll_test-1.0.dist-info'))\n"
        "    with open(os.path.join(folder, 'lll_test-1.0.dist-info', 'METADATA'), 'w') as file:\n"
        f"        file.write({metadata!r})\n"
        "    return 'lll_test-1.0.dist-info'\n"
    )
    files = {"pyproject.toml": OWN_BACKEND, "backend.py": prepare + failing_backend("error: no C")}
    source(project(tmp_path / "index", "lll_test"), "lll_test", files)
    wheel(project(tmp_path / "index", "mmm_test"), "mmm_test", ["lll_test"])
    error = refusal(tmp_path, index, "mmm-test")
    assert error.message.startswith("lll_test, which 'mmm-test' of the pip list needs, cannot be")
    assert error.message.endswith(": no C")


def test_a_package_without_a_wheel_for_this_python_is_told_from_a_missing_one(
    tmp_path: Path, index: str
):
    folder = project(tmp_path / "index", "nnn_test")
    wheel(folder, "nnn_test", tag="cp39-cp39-manylinux_2_17_x86_64")
    error = refusal(tmp_path, index, "nnn-test==1.0")
    assert (error.code, error.reason) == (Exit.ENVIRONMENT, "PackageFailed")
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    assert error.message == (
        f"'nnn-test==1.0' of the pip list has neither a wheel for {python} on this machine nor a "
        "source distribution"
    )
    assert refusal(tmp_path, index, "nnn-test==2.0").reason == "PackageNotFound"


def test_a_package_for_later_pythons_only_says_which(tmp_path: Path, index: str):
    folder = project(tmp_path / "index", "ooo_test")
    source(folder, "ooo_test", {"pyproject.toml": OWN_BACKEND})
    (folder / "index.html").write_text(
        '<a href="ooo_test-1.0.tar.gz" data-requires-python="&gt;=3.99">ooo_test-1.0.tar.gz</a>'
    )
    error = refusal(tmp_path, index, "ooo-test")
    assert (error.code, error.reason) == (Exit.ENVIRONMENT, "PackageFailed")
    assert error.message.endswith(": version 1.0 needs Python >=3.99")


def test_a_package_that_a_package_needs_and_the_index_lacks_is_named(tmp_path: Path, index: str):
    wheel(project(tmp_path / "index", "ppp_test"), "ppp_test", ["no-such-package>=3"])
    error = refusal(tmp_path, index, "ppp-test")
    assert error.reason == "PackageNotFound"
    assert error.message == (
        "no-such-package>=3, which 'ppp-test' of the pip list needs, is not on the package index"
    )


def test_a_requirement_that_looks_like_an_option_is_refused(tmp_path: Path):
    run = resolved(environment={"pip": ("--index-url=http://evil",)})
    with pytest.raises(TrainerError):
        packages.install_packages(run, tmp_path / "site")


def test_a_package_is_downloaded_checked_and_unpacked(empty_workshop: Workshop):
    pod = empty_workshop.new_pod(empty_workshop.publish(sums()))
    assert run_init_container("packages", packages.run, packages.describe_activity, pod.inside) == 0
    assert (pod.inside.environment / "environment.py").is_file()
    assert (pod.inside.environment / "dataset/train.jsonl").is_file()
    assert list(pod.inside.site.iterdir()) == []


def test_requirements_inside_a_package_install_nothing(empty_workshop: Workshop):
    lists = {
        "requirements.txt": "no-such-package",
        "pyproject.toml": '[project]\nname = "x"\nversion = "1"\ndependencies = ["missing"]',
    }
    pod = empty_workshop.new_pod(empty_workshop.publish({**sums(), **lists}))
    assert run_init_container("packages", packages.run, packages.describe_activity, pod.inside) == 0
    assert (pod.inside.environment / "requirements.txt").is_file()
    assert list(pod.inside.site.iterdir()) == []


def test_a_package_that_nobody_published_is_named(empty_workshop: Workshop):
    pod = empty_workshop.new_pod("1" * 64)
    assert (
        run_init_container("packages", packages.run, packages.describe_activity, pod.inside)
        == Exit.ENVIRONMENT
    )
    assert pod.termination.reason == "EnvironmentNotFound"
    assert ENVIRONMENT_ID in pod.termination.message
    assert "flash env push" in pod.termination.hint


def test_a_package_of_another_digest_is_not_used(empty_workshop: Workshop):
    from flashrun.api import names

    key = names.environment_package_key(ENVIRONMENT_ID, "2" * 64)
    empty_workshop.store.put_bytes(key, package({"environment.py": "x"}))
    pod = empty_workshop.new_pod("2" * 64)
    assert (
        run_init_container("packages", packages.run, packages.describe_activity, pod.inside)
        == Exit.TEMPORARY
    )
    assert pod.termination.reason == "EnvironmentCorrupt"
    assert not pod.inside.environment.exists()


# --- packages of an environment's own process ---------------------------------------------------

OF_VERIFIERS = VerifiersEntry("game", ("verifiers>=0.1.9", "aaa-test"))


def test_an_environment_of_verifiers_gets_packages_that_the_image_has_not(
    tmp_path: Path, index: str
) -> None:
    wheel(project(tmp_path / "index", "verifiers"), "verifiers", version=VERSION)
    wheel(project(tmp_path / "index", "packaging"), "packaging", version="0.9")
    run = resolved("grpo", environment={"pip": ("packaging<1",)}, pip_index_url=index)
    folder = tmp_path / "own"

    packages.install_own_packages(run, OF_VERIFIERS, folder)

    names = "aaa_test, bbb_test, verifiers, packaging"
    program = f"import {names}; print(packaging.__file__)"
    python = folder / "bin" / "python"
    ran = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert Path(ran.stdout.strip()).is_relative_to(folder)
    assert not (tmp_path / "pip-cache").exists()
    # Nothing of the image can be imported there.
    assert subprocess.run([python, "-c", "import pydantic"], capture_output=True).returncode == 1


@pytest.mark.parametrize("requirement", ["verifiers>=0.4", "verifiers==0.1.9"])
def test_another_version_of_verifiers_is_refused_by_name(tmp_path: Path, requirement: str) -> None:
    run = resolved("grpo", environment={"pip": (requirement,)})
    with pytest.raises(TrainerError, match=r"runs use verifiers 0\.3\.1, the last") as error:
        packages.install_own_packages(run, OF_VERIFIERS, tmp_path / "own")
    assert error.value.reason == "PackageConflict"
    assert repr(requirement) in error.value.message
    assert not (tmp_path / "own").exists()


def test_the_container_knows_an_environment_of_verifiers_by_its_files(
    empty_workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[VerifiersEntry, Path]] = []
    monkeypatch.setattr(
        packages, "install_own_packages", lambda run, entry, folder: made.append((entry, folder))
    )
    digest = empty_workshop.publish(verifiers_sources.project("game", verifiers_sources.TALK))
    pod = empty_workshop.new_pod(digest)
    packages.run(pod.inside)
    entry = VerifiersEntry("game", ("verifiers>=0.1.9", "datasets"))
    assert made == [(entry, pod.inside.own_site)]
    assert not pod.inside.site.exists()
