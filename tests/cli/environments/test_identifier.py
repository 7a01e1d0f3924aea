"""Environment ids as people type them."""

import pytest

from flashrun.cli.environments.identifier import (
    EnvironmentVersion,
    check_identifier,
    parse_version,
)
from flashrun.cli.output.failure import UsageFailure


@pytest.mark.parametrize("text", ["a/b", "Org.1/my_env-2", "team-a/sums"])
def test_an_id_is_an_org_and_a_name(text: str) -> None:
    assert check_identifier(text) == text


@pytest.mark.parametrize("text", ["", "a", "a/b/c", "../b", "a/..", "./b", "a b/c", "a/b@c"])
def test_another_text_is_not_an_id(text: str) -> None:
    with pytest.raises(UsageFailure, match="is not an environment"):
        check_identifier(text)


def test_a_version_is_an_id_with_or_without_a_digest() -> None:
    assert parse_version("org/env") == EnvironmentVersion("org/env", "")
    assert parse_version("org/env@3fa9c1d2") == EnvironmentVersion("org/env", "3fa9c1d2")


@pytest.mark.parametrize("digest", ["", "latest", "3fa9c1d", "3FA9C1D2", "0" * 65])
def test_a_digest_has_8_to_64_hex_digits(digest: str) -> None:
    with pytest.raises(UsageFailure, match="is not a digest"):
        parse_version(f"org/env@{digest}")
