"""With which token a template ends an assistant's turn."""

from pathlib import Path

import pytest

from tests.trainer import chat_templates
from tests.trainer.data.test_labels import ENDS, by_name

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("template", chat_templates.ALL)
def test_the_end_of_a_turn_is_the_last_token_of_an_answer(tiny_model: Path, template: str):
    from flashrun_trainer.data import turn_ends

    tokenizer = chat_templates.tokenizer_with(template, tiny_model)
    for thinking in (False, True):
        end = turn_ends.end_of_turn_token(tokenizer, thinking)
        assert by_name(ENDS, template).endswith(tokenizer.decode([end]))


def test_the_end_of_sequence_token_ends_turns_that_the_template_does_not_end(tiny_model: Path):
    from flashrun_trainer import model
    from flashrun_trainer.data import turn_ends

    tokenizer = model.load_tokenizer(tiny_model)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert turn_ends.end_of_turn_token(tokenizer, False) == tokenizer.eos_token_id
    assert turn_ends.turn_ends(tokenizer, False).history_end == ""


def test_another_template_of_the_same_tokenizer_has_its_own_end(tiny_model: Path):
    from flashrun_trainer import model
    from flashrun_trainer.data import turn_ends

    tokenizer = model.load_tokenizer(tiny_model)
    before = turn_ends.end_of_turn_token(tokenizer, False)
    tokenizer.add_tokens(["<|other|>"], special_tokens=True)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", "<|other|>")
    after = turn_ends.end_of_turn_token(tokenizer, False)
    assert tokenizer.decode([before, after]) == "<|im_end|><|other|>"


def test_white_space_that_is_a_token_of_its_own_ends_no_turn(tiny_model: Path):
    """As in the tokenizers of Gemma, which also have thousands of tokens that nobody uses."""
    from flashrun_trainer.data import labels, turn_ends

    tokenizer = chat_templates.tokenizer_with("gemma3", tiny_model)
    tokenizer.add_tokens(["\n", "\n\n", "\u2581\u2581", "<table>"])
    tokenizer.add_tokens([f"<unused{number}>" for number in range(3000)], special_tokens=True)
    end = turn_ends.end_of_turn_token(tokenizer, False)
    assert tokenizer.decode([end]) == "<end_of_turn>"
    assert len(turn_ends.added_tokens(tokenizer).pattern) < 100

    prompt = [{"role": "user", "content": "What is 1 plus 1?"}]
    answer = {"role": "assistant", "content": "2\n<table>"}
    (example,) = labels.tokenize_conversation(tokenizer, prompt, [answer], False)
    learned = [label for label in example.labels if label != -100]
    assert tokenizer.decode(learned) == "2\n<table><end_of_turn>"
