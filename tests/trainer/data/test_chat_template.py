"""Messages as text and tokens: what a template refuses, and the form in which it wants content."""

from pathlib import Path

import pytest

from flashrun.api.exits import Exit
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer import chat_templates
from tests.trainer.pods import Workshop

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

QUESTION = {"role": "user", "content": "What is 1 plus 1?"}


def test_the_error_of_a_chat_template_is_quoted(workshop: Workshop, tiny_model: Path):
    from flashrun_trainer import model
    from flashrun_trainer.data import chat_template

    tokenizer = model.load_tokenizer(tiny_model)
    tokenizer.chat_template = "{{ raise_exception('No user query found in messages.') }}"
    with pytest.raises(TrainerError) as error:
        chat_template.tokenize_messages(
            tokenizer, [{"role": "system", "content": "x"}], False, add_generation_prompt=True
        )
    assert (error.value.code, error.value.reason) == (Exit.DATA, "TemplateRefused")
    assert "that end with {'role': 'system', 'content': 'x'}: " in error.value.message
    assert "No user query found in messages." in error.value.message


@pytest.mark.parametrize("template", chat_templates.ALL)
def test_every_template_shows_the_text_of_a_prompt(tiny_model: Path, template: str):
    from flashrun_trainer.data import chat_template

    tokenizer = chat_templates.tokenizer_with(template, tiny_model)
    text = chat_template.render(tokenizer, [QUESTION], False, add_generation_prompt=True)
    assert text.count(QUESTION["content"]) == 1


def test_a_template_that_leaves_out_the_text_of_messages_is_refused(tiny_model: Path):
    from flashrun_trainer import model
    from flashrun_trainer.data import chat_template

    tokenizer = model.load_tokenizer(tiny_model)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.parts }}{% endfor %}"
    with pytest.raises(TrainerError) as error:
        chat_template.render(tokenizer, [QUESTION], False, add_generation_prompt=True)
    assert (error.value.code, error.value.reason) == (Exit.CONFIG, "TemplateUnsupported")
    assert "leaves out the text of messages" in error.value.message


def test_a_prompt_that_is_only_a_system_message_is_joined_with_what_follows(tiny_model: Path):
    from flashrun_trainer.data import chat_template, conversations

    tokenizer = chat_templates.tokenizer_with("qwen3_5_think", tiny_model)
    system = {"role": "system", "content": "Be brief."}
    with pytest.raises(TrainerError):
        chat_template.render_prompt(tokenizer, [system], False)
    answer = {"role": "assistant", "content": "2"}
    joined = conversations.join([system], [QUESTION, answer], "row 1")
    text = chat_template.render_prompt(tokenizer, joined.prompt, False)
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_template_that_leaves_out_a_turn_that_it_should_continue_is_refused(tiny_model: Path):
    from flashrun_trainer import model
    from flashrun_trainer.data import chat_template

    tokenizer = model.load_tokenizer(tiny_model)
    tokenizer.chat_template = (
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    )
    begun = {"role": "assistant", "content": "It is "}
    with pytest.raises(TrainerError, match="leaves out the assistant's turn"):
        chat_template.render_prompt(tokenizer, [QUESTION, begun], False)
