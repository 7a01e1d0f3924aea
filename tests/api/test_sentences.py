import pytest

from flashrun.api.sentences import join_sentences


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), ""),
        (("the model is gone", ""), "the model is gone"),
        (("", "See flash log"), "See flash log"),
        (("the model is gone", "See flash log"), "the model is gone. See flash log"),
        (("The model is gone.", "See flash log."), "The model is gone. See flash log."),
        (("Is the model gone?", "See flash log."), "Is the model gone? See flash log."),
        (("the answer was cut …", "See flash log."), "the answer was cut … See flash log."),
        (("one", "two!", "three"), "one. two! three"),
    ],
)
def test_a_part_ends_as_a_sentence_before_the_next_begins(parts: tuple[str, ...], message: str):
    assert join_sentences(*parts) == message
