"""The init container of the environment: an untrusted archive, and a pip list."""

import tarfile
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from flashrun.api.exits import Exit
from flashrun_trainer.init import packages
from flashrun_trainer.init.init_container import run_init_container
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer import archives
from tests.trainer.http_servers import serving
from tests.trainer.pods import ENVIRONMENT_ID, Workshop, package, resolved, sums


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


@pytest.mark.parametrize(
    ("sentence", "output", "code", "reason", "words"),
    [
        (
            "a name that the index does not know",
            "ERROR: Could not find a version that satisfies the requirement nope>=1 (from versions:"
            " none)\nERROR: No matching distribution found for nope>=1\n",
            Exit.ENVIRONMENT,
            "PackageNotFound",
            "'nope>=1'",
        ),
        (
            "an index that is away, which pip reports the same way in the end",
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"
            "ERROR: No matching distribution found for nope>=1\n",
            Exit.TEMPORARY,
            "IndexUnavailable",
            "cannot be reached",
        ),
        (
            "an index that is overloaded",
            "ERROR: HTTP error 503 while getting something\n",
            Exit.TEMPORARY,
            "IndexUnavailable",
            "cannot be reached",
        ),
        (
            "a version that the image does not have",
            "ERROR: Cannot install transformers==4.0 because these package versions have "
            "conflicting dependencies.\nERROR: ResolutionImpossible: for help visit\n",
            Exit.ENVIRONMENT,
            "PackageConflict",
            "transformers==4.0",
        ),
        (
            "anything else",
            "  error: subprocess-exited-with-error\n",
            Exit.ENVIRONMENT,
            "PackageFailed",
            "subprocess-exited-with-error",
        ),
    ],
)
def test_a_failed_pip_is_explained(sentence: str, output: str, code: int, reason: str, words: str):
    end = packages.classify_pip_failure(output)
    assert (end.code, end.reason) == (code, reason)
    assert words in end.message
    assert "\n" not in end.message


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


def wheel(folder: Path, name: str, requires: str = "") -> None:
    """Make the smallest wheel there is."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    files = {
        f"{name}.py": "VALUE = 42\n",
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index with two packages; one needs the other and a package of the image."""
    for name, requires in (("aaa_test", "bbb_test"), ("bbb_test", "packaging")):
        project = tmp_path / "index" / name.replace("_", "-")
        project.mkdir(parents=True)
        wheel(project, name, requires)
    with serving(partial(QuietHandler, directory=str(tmp_path / "index"))) as address:
        yield address


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves folders without a log."""

    def log_message(self, *_: object) -> None:
        return


def test_the_pip_list_and_what_it_needs_is_installed_beside_the_image(tmp_path: Path, index: str):
    run = resolved(environment={"pip": ("aaa-test>=1",)}, pip_index_url=index)
    packages.install_packages(run, tmp_path / "site")
    modules = {path.name for path in (tmp_path / "site").glob("*.py")}
    assert modules == {"aaa_test.py", "bbb_test.py"}


def test_a_package_that_was_named_by_its_address_comes_from_there(tmp_path: Path, index: str):
    elsewhere = tmp_path / "index" / "elsewhere"
    elsewhere.mkdir()
    wheel(elsewhere, "ccc_test", "bbb_test")
    requirement = f"ccc-test @ {index}/elsewhere/ccc_test-1.0-py3-none-any.whl"
    run = resolved(environment={"pip": (requirement,)}, pip_index_url=index)
    packages.install_packages(run, tmp_path / "site")
    modules = {path.name for path in (tmp_path / "site").glob("*.py")}
    assert modules == {"bbb_test.py", "ccc_test.py"}


@pytest.mark.parametrize(
    ("requirement", "reason", "words"),
    [
        ("no-such-package", "PackageNotFound", "'no-such-package'"),
        ("aaa-test>=2", "PackageNotFound", "'aaa-test>=2'"),
        ("packaging<1", "PackageConflict", "packaging<1"),
    ],
)
def test_a_requirement_that_cannot_be_met_is_named(
    tmp_path: Path, index: str, requirement: str, reason: str, words: str
):
    run = resolved(environment={"pip": (requirement,)}, pip_index_url=index)
    with pytest.raises(TrainerError) as error:
        packages.install_packages(run, tmp_path / "site")
    assert (error.value.code, error.value.reason) == (Exit.ENVIRONMENT, reason)
    assert words in error.value.message


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
