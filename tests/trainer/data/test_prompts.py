"""Prompts as the model is asked them, and its answers as scorers see them."""

from pathlib import Path

import pytest

from flashrun_trainer.data.prompts import make_prompt, parse_answer
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer.data.test_held_out import Package
from tests.trainer.pods import resolved

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


def test_a_prompt_is_rendered_with_the_assistants_turn_open(tmp_path: Path, tiny_model: Path):
    from flashrun_trainer.model import load_tokenizer

    tokenizer, environment = load_tokenizer(tiny_model), Package(tmp_path).training()
    prompt = make_prompt(environment, tokenizer, environment.examples[0], thinking=False)
    text = tokenizer.decode(prompt.ids)
    assert prompt.messages == [{"role": "user", "content": "1"}]
    assert text.startswith("<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n")
    assert not prompt.opens_reasoning


def test_what_the_template_refuses_is_named_with_its_row(tmp_path: Path, tiny_model: Path):
    from flashrun_trainer.model import load_tokenizer

    tokenizer, environment = load_tokenizer(tiny_model), Package(tmp_path).training()
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(TrainerError, match="row 2: the model's chat template refuses"):
        make_prompt(environment, tokenizer, environment.examples[1], thinking=False)


def test_an_answer_ends_before_its_stop_sequence(tiny_model: Path):
    from flashrun_trainer.model import load_tokenizer

    tokenizer = load_tokenizer(tiny_model)
    ids = tokenizer("42</answer> and more", add_special_tokens=False)["input_ids"]
    run = resolved("grpo", stop_sequences=("</answer>",))
    assert parse_answer(tokenizer, run, ids, opens_reasoning=False) == "42"
