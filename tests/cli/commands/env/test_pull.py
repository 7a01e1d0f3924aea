"""``flash env pull``: an environment is fetched whole, or not at all."""

import json
from pathlib import Path

from tests.cli.shell import Served
from tests.cli.storage import list_packages, newest_digest, write_environment
from tests.trainer import archives


def test_an_environment_comes_back_as_it_was_pushed(served: Served, tmp_path: Path) -> None:
    write_environment(served)
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
    assert (listed["id"], listed["digest"]) == ("org/sums", newest_digest(served, "org/sums"))


def test_an_older_version_is_fetched_by_its_digest(served: Served, tmp_path: Path) -> None:
    write_environment(served, "old = 1\n")
    served.flash("env", "push", "env", "--name", "org/two")
    old = newest_digest(served, "org/two")
    write_environment(served, "new = 1\n")
    served.flash("env", "push", "env", "--name", "org/two")

    assert served.flash("env", "pull", f"org/two@{old[:12]}", "old").returncode == 0
    assert served.flash("env", "pull", "org/two", "new").returncode == 0
    assert (tmp_path / "old" / "environment.py").read_text() == "old = 1\n"
    assert (tmp_path / "new" / "environment.py").read_text() == "new = 1\n"
    missing = served.flash("env", "pull", "org/two@00000000", "x")
    assert (missing.returncode, old[:12] in missing.stderr) == (3, True)
    assert served.flash("env", "pull", "org/two@latest", "x").returncode == 2


def test_a_folder_that_has_something_in_it_is_never_touched(served: Served) -> None:
    served.push("org/env")

    assert served.flash("env", "pull", "org/env", "env").returncode == 2
    assert served.flash("env", "pull", "org/none", "new").returncode == 3


def test_a_package_that_was_changed_in_storage_is_not_unpacked(
    served: Served, tmp_path: Path
) -> None:
    served.push("org/env")
    [key] = list_packages(served, "org/env")
    served.store.put_bytes(key, archives.archive(archives.member("environment.py")))
    done = served.flash("env", "pull", "org/env", "back")

    assert done.returncode == 1
    assert "does not have this digest" in done.stderr
    assert not (tmp_path / "back").exists()
