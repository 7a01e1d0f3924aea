"""Names of models and revisions, as people type them."""

import pytest

from flashrun.cli.models.model_name import check_model_name, check_revision
from flashrun.cli.output.failure import UsageFailure


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "org/a", "o.r_g/m-1"])
def test_an_org_and_a_name_are_a_model(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "model", "a/b/c", "../b", "a/..", "a/", "a b/c", "é/a", "a/" + "b" * 127, "a/b\n"]
)
def test_other_text_is_no_model(name: str) -> None:
    with pytest.raises(UsageFailure, match="is not the id of a model: use ORG/NAME"):
        check_model_name(name)


@pytest.mark.parametrize("revision", ["1", "main", "3fa9c1d2", "v1.2_x"])
def test_a_word_is_a_revision(revision: str) -> None:
    assert check_revision(revision) == revision


@pytest.mark.parametrize("revision", ["", "..", "a/b", "-x", "a" * 65])
def test_other_text_is_no_revision(revision: str) -> None:
    with pytest.raises(UsageFailure, match="is not a revision"):
        check_revision(revision)
