"""The sentences for errors of pydantic; ``test_compose`` and the contract's tests have more."""

import pytest
from pydantic import ValidationError

from flashrun.api.config import RunConfig
from flashrun.cli.config.error_sentences import describe_error, printable


def sentences(tables: dict[str, object]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        RunConfig.validate_toml({"model": "m", "environment": {"id": "a/b"}, **tables})
    return [describe_error(detail) for detail in caught.value.errors(include_url=False)]


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"train": {"epochs": 0}}, "train.epochs must be at least 1, not 0"),
        ({"train": 3}, "train must be a table, not 3: write [train]"),
        ({"model": 3}, "model must be a string, not 3"),
        ({"train": {"lr": 1}}, "lr is not a key of [train]; did you mean train.learning_rate?"),
        ({"epochs": 1}, "epochs is not a key of the top level; did you mean train.epochs?"),
        ({"trian": {}}, "[trian] is not a section; did you mean [train]?"),
        (
            {"sft": {"epochs": 1}},
            '[sft] is not a section; write algorithm = "sft" at the top and its keys in [train]',
        ),
    ],
)
def test_a_sentence_says_what_is_wrong_and_what_is_allowed(
    tables: dict[str, object], sentence: str
) -> None:
    assert sentences(tables) == [sentence]


def test_a_value_is_printed_short_and_without_secrets() -> None:
    assert printable(True) == "true"
    assert len(printable("x " * 100)) < 61
    assert "ghp_" not in printable("ghp_abcdefghijklmnopqrstuvwxyz0123456789")
