"""Whose environments are whose: orgs that the platform binds to namespaces."""

import pytest

from flashrun.api.environment_owners import foreign_environment, owned_orgs

ORGS = [
    ("nothing is bound", {}, ("team-a",)),
    ("another org is bound", {"sums": ("team-a", "team-b")}, ("team-a", "sums")),
    ("its own org is shared", {"team-a": ("team-a", "team-b")}, ("team-a",)),
    ("its own org is bound to others", {"team-a": ("team-b",)}, ()),
    ("an org is bound to nobody", {"sums": ()}, ("team-a",)),
    ("the orgs of others are not its own", {"team-b": ("team-b",), "x": ("team-ab",)}, ("team-a",)),
]


@pytest.mark.parametrize(
    ("owners", "orgs"), [row[1:] for row in ORGS], ids=[row[0] for row in ORGS]
)
def test_a_namespace_has_the_org_of_its_name_unless_the_platform_binds_it(owners, orgs) -> None:
    assert owned_orgs("team-a", owners) == orgs


@pytest.mark.parametrize("identifier", ["team-a/x", "sums/x"])
def test_environments_of_its_orgs_belong_to_a_namespace(identifier) -> None:
    assert foreign_environment(identifier, "team-a", ("team-a", "sums")) == ""


@pytest.mark.parametrize("identifier", ["team-b/x", "team-ab/x", "team/x", "TEAM-A/x", "sum/sums"])
def test_no_other_environment_does(identifier) -> None:
    assert foreign_environment(identifier, "team-a", ("team-a", "sums"))


def test_the_refusal_says_what_to_do() -> None:
    assert foreign_environment("team-b/x", "team-a", ("team-a", "sums")) == (
        "Environment team-b/x does not belong to namespace team-a: its orgs are team-a, sums; use "
        "team-a/x, or ask the platform's administrator to bind org team-b to team-a "
        "(environments.owners)."
    )
    assert foreign_environment("team-a/x", "team-a", ()) == (
        "Environment team-a/x does not belong to namespace team-a: it has no orgs; ask the "
        "platform's administrator to bind org team-a to team-a (environments.owners)."
    )
