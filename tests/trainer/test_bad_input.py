"""Data that cannot be trained on: each wrong shape has a reason and a sentence that says where."""

import json
from pathlib import Path
from typing import Any

import pytest

from flashrun.api.exits import Exit
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer.pods import HEAD, Workshop, resolved, rows, sums

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

GOOD = json.dumps({"input": "What is 1 plus 1?", "output": "2"})


def second(line: str) -> str:
    """A dataset whose second row is ``line``."""
    return f"{GOOD}\n{line}\n"


def output(value: Any) -> str:
    """A dataset whose second row has this output."""
    return second(json.dumps({"input": "What is 2 plus 2?", "output": value}))


def messages(*found: Any) -> str:
    return output({"messages": list(found)})


LINE_2 = "reading dataset/train.jsonl, line 2"
ROW_2 = "reading the output of row 2"

ROWS: dict[str, tuple[str, str, str]] = {
    "no JSON": (second("{nonsense"), "DatasetInvalid", LINE_2),
    "half a row": (second('{"input": "What'), "DatasetInvalid", LINE_2),
    "a number": (second("7"), "DatasetInvalid", LINE_2),
    "a list": (second("[1, 2]"), "DatasetInvalid", LINE_2),
    "null": (second("null"), "DatasetInvalid", LINE_2),
    "no input": (second('{"output": "4"}'), "DatasetInvalid", LINE_2),
    "a mark of its byte order": (f"\ufeff{GOOD}\n", "DatasetInvalid", "train.jsonl, line 1"),
    "an input of null": (second('{"input": null, "output": "4"}'), "DatasetInvalid", LINE_2),
    "no rows": ("", "DatasetEmpty", "has no examples"),
    "nothing but empty lines": ("\n\n", "DatasetEmpty", "has no examples"),
    "no output anywhere": (
        rows(("What is 1 plus 1?", None), ("What is 2 plus 2?", "")),
        "NothingToLearn",
        "none of the 2 examples has an output",
    ),
    "an empty list of messages": (messages(), "DatasetInvalid", ROW_2),
    "a message that is text": (messages("4"), "DatasetInvalid", ROW_2),
    "a message without a role": (messages({"content": "4"}), "DatasetInvalid", ROW_2),
    "a role that nobody has": (
        messages({"role": "robot", "content": "4"}),
        "DatasetInvalid",
        ROW_2,
    ),
    "content that is a number": (
        messages({"role": "assistant", "content": 4}),
        "DatasetInvalid",
        ROW_2,
    ),
    "content that is a picture": (
        messages({"role": "assistant", "content": [{"type": "image_url", "image_url": "x"}]}),
        "DatasetInvalid",
        ROW_2,
    ),
    "a tool call without a name": (
        messages({"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}),
        "DatasetInvalid",
        ROW_2,
    ),
    "a tool call whose arguments are no object": (
        messages(
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "add", "arguments": "[1, 2]"}}],
            }
        ),
        "DatasetInvalid",
        ROW_2,
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_row_of_the_wrong_shape_is_named(workshop: Workshop, case: str):
    data, reason, words = ROWS[case]
    pod = workshop.pod(resolved("sft"), sums(train=data))
    assert pod.train() == Exit.DATA
    assert pod.termination.reason == reason
    assert words in pod.termination.message
    assert pod.termination.hint
    assert "\n" not in pod.termination.message


def test_bytes_that_are_no_text_are_named_by_their_line(workshop: Workshop):
    # A lone surrogate stands for a byte that is no text.
    pod = workshop.pod(resolved("sft"), sums(train=second('{"input": "\udcff"}')))
    assert pod.train() == Exit.DATA
    assert pod.termination.reason == "DatasetInvalid"
    assert LINE_2 in pod.termination.message


PROMPTS: dict[str, tuple[str, str]] = {
    "a prompt that is text": ("return 'What?'", "a message must be an object with role"),
    "no messages": ("return []", "messages must be a list with at least one, not []"),
    "nothing": ("return None", "NoneType"),
    "a message that is text": ("return ['What?']", "row 1"),
    "an unknown role": ("return [{'role': 'me', 'content': 'x'}]", "role"),
    "content of bytes": ("return [{'role': 'user', 'content': b'x'}]", "the content of a message"),
}


@pytest.mark.parametrize("case", PROMPTS)
def test_a_prompt_of_the_wrong_shape_is_the_environments_fault(workshop: Workshop, case: str):
    body, words = PROMPTS[case]
    source = (
        HEAD.replace('return [{"role": "user", "content": str(example.input)}]', body)
        + "    def score_response(self, example, response_text): ...\n"
    )
    source += "\n\ndef load_environment():\n    return Environment()\n"
    pod = workshop.pod(resolved("grpo"), sums(environment=source))
    assert pod.train() == Exit.ENVIRONMENT
    assert pod.termination.reason == "EnvironmentFailed"
    assert "building the prompt of row 1" in pod.termination.message
    assert words in pod.termination.message


def test_what_a_chat_template_refuses_is_said_in_its_words(workshop: Workshop, tiny_model: Path):
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


def test_a_tokenizer_without_chat_template_is_refused(tiny_model: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    from flashrun_trainer import model

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(TrainerError) as error:
        model.load_tokenizer(tmp_path)
    assert (error.value.code, error.value.reason) == (
        Exit.MODEL_UNAVAILABLE,
        "ChatTemplateMissing",
    )
    assert "instruction-tuned" in error.value.hint


def test_a_split_that_is_missing_although_train_exists_is_an_error(workshop: Workshop):
    environment = {"split": "test", "params": {"split": "test"}}
    pod = workshop.pod(resolved("sft", environment=environment))
    assert pod.train() == Exit.DATA
    assert "no dataset/test.jsonl; it has train" in pod.termination.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("narrower", "size mismatch"),
        ("renamed", "its layers have other names, such as "),
        ("frozen", " weights, of which 0 are trainable"),
    ],
)
def test_an_adapter_of_another_model_is_refused(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, change: str, words: str
):
    import torch
    from peft import PeftModel
    from safetensors.torch import load, save

    source = workshop.pod(resolved("sft", max_steps=1))
    assert source.train() == 0
    weights = load(source.published("adapter_model.safetensors"))
    other = weights
    if change == "narrower":
        other = {name: torch.zeros(weight.shape[0], 3) for name, weight in weights.items()}
    elif change == "renamed":
        layers = ("model.layers", "model.language_model.layers")
        other = {name.replace(*layers): weight for name, weight in weights.items()}
    else:
        loaded = PeftModel.from_pretrained
        monkeypatch.setattr(
            PeftModel, "from_pretrained", lambda base, path, is_trainable: loaded(base, path)
        )
    folder = workshop.folder / f"adapter-{change}"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(save(other))
    (folder / "adapter_config.json").write_bytes(source.published("adapter_config.json"))

    from flashrun_trainer import model

    base = model.load(source.inside.model_folder(source.run))
    with pytest.raises(TrainerError) as error:
        model.attach_adapter(base, folder, "other-run")
    assert (error.value.code, error.value.reason) == (Exit.CONFIG, "AdapterMismatch")
    assert "adapter other-run does not fit the base model" in error.value.message
    assert words in error.value.message
    assert "train.init_from_adapter" in error.value.hint
