"""Environments in storage: published by content, fetched whole, deleted when nobody needs them."""

import json
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.api.records import EnvironmentPointer
from tests.cli.conftest import Served
from tests.trainer import archives

pytestmark = pytest.mark.api


def write(served: Served, code: str = "def load_environment(): ...\n") -> None:
    served.flash.write("env/environment.py", code)
    served.flash.write("env/dataset/train.jsonl", '{"input": "1 + 1"}\n')


def packages(served: Served, identifier: str) -> list[str]:
    keys = [entry.key for entry in served.store.list(names.environment_prefix(identifier))]
    return [key for key in keys if key.endswith(".tar.gz")]


def newest(served: Served, identifier: str) -> str:
    latest = names.environment_latest_key(identifier)
    return served.store.get_json(latest, EnvironmentPointer).digest


def test_an_environment_comes_back_as_it_was_pushed(served: Served, tmp_path: Path) -> None:
    write(served)
    served.flash.write("env/.env", "SERVICE_API_KEY=stays-here\n")

    pushed = served.flash("env", "push", "env", "--name", "org/sums")
    pulled = served.flash("env", "pull", "org/sums", "back")

    assert pushed.stdout == "org/sums\n"
    assert "left out: .env\n" in pushed.stderr
    assert pulled.stdout == "back\n"
    found = {str(path.relative_to(tmp_path / "back")) for path in (tmp_path / "back").rglob("*.*")}
    assert found == {"environment.py", "dataset/train.jsonl"}
    assert served.flash("env", "list", "-o", "name").stdout == "org/sums\n"
    [listed] = json.loads(served.flash("env", "list", "-o", "json").stdout)
    assert (listed["id"], listed["digest"]) == ("org/sums", newest(served, "org/sums"))


def test_an_environment_is_named_after_namespace_and_folder(served: Served) -> None:
    write(served)

    assert served.flash("env", "push", "env").stdout == f"{served.namespace}/env\n"


def test_pushing_equal_content_stores_one_package(served: Served) -> None:
    served.push("org/same")
    served.push("org/same")

    assert len(packages(served, "org/same")) == 1


def test_an_older_version_is_fetched_by_its_digest(served: Served, tmp_path: Path) -> None:
    write(served, "old = 1\n")
    served.flash("env", "push", "env", "--name", "org/two")
    old = newest(served, "org/two")
    write(served, "new = 1\n")
    served.flash("env", "push", "env", "--name", "org/two")

    assert served.flash("env", "pull", f"org/two@{old[:12]}", "old").returncode == 0
    assert served.flash("env", "pull", "org/two", "new").returncode == 0
    assert (tmp_path / "old" / "environment.py").read_text() == "old = 1\n"
    assert (tmp_path / "new" / "environment.py").read_text() == "new = 1\n"
    missing = served.flash("env", "pull", "org/two@00000000", "x")
    assert (missing.returncode, old[:12] in missing.stderr) == (3, True)
    assert served.flash("env", "pull", "org/two@latest", "x").returncode == 2


def test_what_looks_like_a_secret_is_not_published(served: Served) -> None:
    write(served, f'KEY = "{"sk-" + "a1B2c3D4" * 4}"\n')
    done = served.flash("env", "push", "env", "--name", "org/leak")

    assert done.returncode == 2
    assert "env/environment.py:1 seems to hold an API key" in done.stderr
    assert packages(served, "org/leak") == []
    allowed = served.flash("env", "push", "env", "--name", "org/leak", "--allow", "environment.py")
    assert allowed.returncode == 0


def test_a_folder_that_has_something_in_it_is_never_touched(served: Served) -> None:
    served.push("org/env")

    assert served.flash("env", "pull", "org/env", "env").returncode == 2
    assert served.flash("env", "pull", "org/none", "new").returncode == 3


def test_a_package_that_was_changed_in_storage_is_not_unpacked(
    served: Served, tmp_path: Path
) -> None:
    served.push("org/env")
    [key] = packages(served, "org/env")
    served.store.put_bytes(key, archives.archive(archives.member("environment.py")))
    done = served.flash("env", "pull", "org/env", "back")

    assert done.returncode == 1
    assert "does not have this digest" in done.stderr
    assert not (tmp_path / "back").exists()


# --- delete -------------------------------------------------------------------------------------


def test_delete_asks_first_and_without_a_terminal_needs_y(served: Served) -> None:
    served.push("org/gone")

    refused = served.flash("env", "delete", "org/gone")
    assert (refused.returncode, "add -y" in refused.stderr) == (2, True)
    assert packages(served, "org/gone")
    assert served.flash("env", "delete", "org/gone", "-y").stdout == "org/gone\n"
    assert list(served.store.list(names.environment_prefix("org/gone"))) == []
    assert served.flash("env", "delete", "org/gone", "-y").returncode == 3


def test_delete_takes_one_environment_and_no_other_of_a_similar_name(served: Served) -> None:
    for name in ("org/gone", "org/gone2", "org2/gone"):
        served.push(name)
    served.flash("env", "delete", "org/gone", "-y")

    assert served.flash("env", "list", "-o", "name").stdout.split() == ["org/gone2", "org2/gone"]


def test_an_environment_that_a_run_needs_stays(served: Served) -> None:
    served.push()
    name = served.submit()

    done = served.flash("env", "delete", "your-org/your-env", "-y")
    assert done.returncode == 2
    assert f"is needed by {served.namespace}/{name}" in done.stderr
    assert packages(served, "your-org/your-env")

    served.report(name, phase="Succeeded")
    assert served.flash("env", "delete", "your-org/your-env", "-y").returncode == 0
