import pytest

from flashrun.api.sentences import join_sentences, with_hint


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


@pytest.mark.parametrize(
    ("message", "hint", "sentence"),
    [
        ("the model is gone", "see flash log", "the model is gone; see flash log"),
        ("It must be a list.", "see flash log", "It must be a list; see flash log"),
        ("It must be a list.", "", "It must be a list."),
    ],
)
def test_a_message_and_its_hint_are_one_sentence(message: str, hint: str, sentence: str):
    assert with_hint(message, hint) == sentence
