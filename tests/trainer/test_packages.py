"""The init containers: an untrusted archive, a pip list, a model that may not be there."""

import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flashrun.api.catalog import Source
from flashrun.api.exits import Exit
from flashrun_trainer.init import model_download, packages
from flashrun_trainer.init.init_container import run_init_container
from flashrun_trainer.pod.image_packages import installed_pins
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer import archives
from tests.trainer.pods import ENVIRONMENT_ID, TrainerPod, Workshop, package, resolved, sums


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


# --- the pip list -------------------------------------------------------------------------------


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
    """A package index with two packages; one needs the other and something of the image."""
    for name, requires in (("aaa_test", "bbb_test"), ("bbb_test", "packaging")):
        project = tmp_path / "index" / name.replace("_", "-")
        project.mkdir(parents=True)
        wheel(project, name, requires)
    with serving(partial(QuietHandler, directory=str(tmp_path / "index"))) as address:
        yield address


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve HTTP on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves folders without a word."""

    def log_message(self, *_: object) -> None:
        return


def test_the_pip_list_and_what_it_needs_is_installed_beside_the_image(tmp_path: Path, index: str):
    run = resolved(environment={"pip": ("aaa-test>=1",)}, pip_index_url=index)
    packages.install_packages(run, tmp_path / "site")
    modules = {path.name for path in (tmp_path / "site").glob("*.py")}
    assert modules == {"aaa_test.py", "bbb_test.py"}


def test_what_a_run_has_installed_is_listed_with_the_packages_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "judge-2.1.dist-info").mkdir()
    (tmp_path / "judge-2.1.dist-info/METADATA").write_text("Name: judge\nVersion: 2.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert {"judge==2.1", f"pytest=={pytest.__version__}"} <= set(installed_pins())


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


def test_a_requirement_that_looks_like_an_option_is_none(tmp_path: Path):
    run = resolved(environment={"pip": ("--index-url=http://evil",)})
    with pytest.raises(TrainerError):
        packages.install_packages(run, tmp_path / "site")


# --- the containers as a whole ------------------------------------------------------------------


def pod_of(workshop: Workshop, digest: str) -> TrainerPod:
    run = resolved(environment={"digest": digest})
    pod = TrainerPod(workshop, run, 1)
    pod.folder.mkdir(parents=True)
    (pod.folder / "spec.json").write_text(run.model_dump_json())
    (pod.folder / "access.json").write_text(workshop.access.model_dump_json())
    return pod


@pytest.fixture
def bare(access: object, tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, access)  # type: ignore[arg-type]


def test_a_package_is_downloaded_checked_and_unpacked(bare: Workshop):
    pod = pod_of(bare, bare.publish(sums()))
    assert run_init_container("packages", packages.run, packages.describe_activity, pod.inside) == 0
    assert (pod.inside.environment / "environment.py").is_file()
    assert (pod.inside.environment / "dataset/train.jsonl").is_file()
    assert list(pod.inside.site.iterdir()) == []


def test_requirements_inside_a_package_install_nothing(bare: Workshop):
    lists = {
        "requirements.txt": "no-such-package",
        "pyproject.toml": '[project]\nname = "x"\nversion = "1"\ndependencies = ["missing"]',
    }
    pod = pod_of(bare, bare.publish({**sums(), **lists}))
    assert run_init_container("packages", packages.run, packages.describe_activity, pod.inside) == 0
    assert (pod.inside.environment / "requirements.txt").is_file()
    assert list(pod.inside.site.iterdir()) == []


def test_a_package_that_nobody_published_is_named(bare: Workshop):
    pod = pod_of(bare, "1" * 64)
    assert (
        run_init_container("packages", packages.run, packages.describe_activity, pod.inside)
        == Exit.ENVIRONMENT
    )
    assert pod.termination.reason == "EnvironmentNotFound"
    assert ENVIRONMENT_ID in pod.termination.message
    assert "flash env push" in pod.termination.hint


def test_a_package_of_another_digest_is_not_used(bare: Workshop):
    from flashrun.api import names

    key = names.environment_package_key(ENVIRONMENT_ID, "2" * 64)
    bare.store.put_bytes(key, package({"environment.py": "x"}))
    pod = pod_of(bare, "2" * 64)
    assert (
        run_init_container("packages", packages.run, packages.describe_activity, pod.inside)
        == Exit.TEMPORARY
    )
    assert pod.termination.reason == "EnvironmentCorrupt"
    assert not pod.inside.environment.exists()


def test_a_model_that_is_not_in_the_mirror_is_named(bare: Workshop):
    pod = pod_of(bare, "0" * 64)
    run = pod.run.model_copy(
        update={"model": pod.run.model.model_copy(update={"revision": "nowhere"})}
    )
    (pod.folder / "spec.json").write_text(run.model_dump_json())
    assert (
        run_init_container(
            "model", model_download.run, model_download.describe_activity, pod.inside
        )
        == Exit.MODEL_UNAVAILABLE
    )
    assert pod.termination.reason == "ModelUnavailable"
    assert "flashrun/tiny-qwen3 at revision nowhere" in pod.termination.message
    assert list(pod.inside.model.rglob("*.part")) == []


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_a_hub_that_is_away_is_a_temporary_failure(bare: Workshop):
    pod = pod_of(bare, "0" * 64)
    model = pod.run.model.model_copy(update={"source": Source.HUB})
    run = pod.run.model_copy(update={"model": model, "hub_endpoint": "http://127.0.0.1:1"})
    (pod.folder / "spec.json").write_text(run.model_dump_json())
    assert (
        run_init_container(
            "model", model_download.run, model_download.describe_activity, pod.inside
        )
        == Exit.TEMPORARY
    )
    assert pod.termination.reason == "HubUnavailable"


class RefusingHub(BaseHTTPRequestHandler):
    """Answers everything with one status."""

    status = 404

    def do_GET(self) -> None:
        self.send_error(self.status)

    def do_HEAD(self) -> None:
        self.send_error(self.status)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hub(status: int) -> Iterator[str]:
    """A hub that answers everything with one status."""
    with serving(type("Hub", (RefusingHub,), {"status": status})) as address:
        yield address


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (401, Exit.MODEL_UNAVAILABLE, "ModelUnavailable"),
        (403, Exit.MODEL_UNAVAILABLE, "ModelUnavailable"),
        (404, Exit.MODEL_UNAVAILABLE, "ModelUnavailable"),
        (500, Exit.TEMPORARY, "HubUnavailable"),
    ],
)
def test_a_model_that_the_hub_refuses_is_named(
    bare: Workshop, hub: str, status: int, code: int, reason: str
):
    pod = pod_of(bare, "0" * 64)
    model = pod.run.model.model_copy(update={"source": Source.HUB})
    run = pod.run.model_copy(update={"model": model, "hub_endpoint": hub})
    (pod.folder / "spec.json").write_text(run.model_dump_json())
    assert (
        run_init_container(
            "model", model_download.run, model_download.describe_activity, pod.inside
        )
        == code
    )
    assert pod.termination.reason == reason
    assert str(status) in pod.termination.message
    assert not list(pod.inside.model.rglob("*.safetensors"))
