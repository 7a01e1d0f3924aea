"""``flash env push``: a folder is published as an environment."""

from tests.cli.shell import Served
from tests.cli.storage import list_packages, write_environment


def test_an_environment_is_named_after_namespace_and_folder(served: Served) -> None:
    write_environment(served)

    assert served.flash("env", "push", "env").stdout == f"{served.namespace}/env\n"


def test_pushing_equal_content_stores_one_package(served: Served) -> None:
    served.push("org/same")
    served.push("org/same")

    assert len(list_packages(served, "org/same")) == 1


def test_pushing_again_repairs_a_package_that_somebody_has_changed(served: Served) -> None:
    """As the page on troubleshooting says of EnvironmentCorrupt."""
    served.push("org/changed")
    [package] = list_packages(served, "org/changed")
    content = served.store.get_bytes(package)
    served.store.put_bytes(package, b"another")
    served.push("org/changed")
    assert served.store.get_bytes(package) == content


def test_what_looks_like_a_secret_is_not_published(served: Served) -> None:
    write_environment(served, f'KEY = "{"sk-" + "a1B2c3D4" * 4}"\n')
    done = served.flash("env", "push", "env", "--name", "org/leak")

    assert done.returncode == 2
    assert "env/environment.py:1 seems to hold an API key" in done.stderr
    assert list_packages(served, "org/leak") == []
    allowed = served.flash("env", "push", "env", "--name", "org/leak", "--allow", "environment.py")
    assert allowed.returncode == 0


def test_an_environment_of_another_org_is_not_published(served: Served) -> None:
    write_environment(served)
    done = served.flash("env", "push", "env", "--name", "team-b/env")

    assert (done.returncode, done.stdout) == (2, "")
    assert f"does not belong to namespace {served.namespace}" in done.stderr
    assert f"use {served.namespace}/env, or ask the platform's administrator" in done.stderr
    assert list_packages(served, "team-b/env") == []


def test_an_operator_that_publishes_no_orgs_leaves_the_decision_to_storage(served: Served) -> None:
    served.publish(environment_orgs=None)
    served.push("team-b/env")

    assert len(list_packages(served, "team-b/env")) == 1
