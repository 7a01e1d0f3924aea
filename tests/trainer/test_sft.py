"""SFT: it learns, from the right tokens, and warns about data that teaches something else."""

import json
from pathlib import Path
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.exits import Exit
from flashrun.api.records import Result
from flashrun_trainer.data.conversations import Conversation
from flashrun_trainer.data.template_forms import TemplateForm
from tests.trainer.pods import TrainerPod, Workshop, fifths, resolved, rows, sums

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


def test_sft_learns_and_leaves_everything_a_run_leaves(workshop: Workshop):
    pod = workshop.pod(resolved("sft", epochs=3, save_every=20))

    assert pod.train() == Exit.DONE

    first, last = fifths(pod.values("loss"))
    assert last < first / 2
    assert [row.step for row in pod.metrics] == list(range(1, 49))
    assert pod.steps() == [(1, 20), (1, 40), (1, 48)]
    assert (pod.adapter.base_model, pod.adapter.lora_rank, pod.adapter.lora_alpha) == (
        "flashrun/tiny-qwen3",
        8,
        16,
    )
    assert {file.path for file in pod.adapter.files} == {
        "attempt-1/adapter_model.safetensors",
        "attempt-1/adapter_config.json",
        "attempt-1/README.md",
        "attempt-1/run.json",
        "attempt-1/packages.txt",
    }
    result = pod.store.get_json(names.result_key(pod.prefix), Result)
    assert (result.exit_code, result.termination) == (0, None)
    assert result.progress is not None
    assert result.progress.step == 48
    assert not pod.store.exists(names.heartbeat_key(pod.run.run.uid))
    assert "spec.json" in pod.keys
    log = pod.store.get_bytes(names.log_key(pod.prefix, 1)).decode()
    assert "training on the CPU" in log
    assert "attempt 1 ends with code 0" in log


def test_an_adapter_names_its_base_model_and_not_the_pods_folder(workshop: Workshop):
    pod = workshop.pod(resolved("sft", max_steps=2))
    pod.train()
    config = json.loads(pod.published("adapter_config.json"))
    assert config["base_model_name_or_path"] == "flashrun/tiny-qwen3"


def test_max_steps_and_max_examples_cap_an_sft_run(workshop: Workshop):
    capped = workshop.pod(resolved("sft", max_steps=3))
    few = workshop.pod(resolved("sft", max_examples=16, epochs=2))
    assert [capped.train(), few.train()] == [0, 0]
    assert [len(capped.metrics), len(few.metrics)] == [3, 4]


USER = {"role": "user", "content": "What is 1 plus 1?"}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from flashrun_trainer import model

    return model.load_tokenizer(tiny_model)


def test_a_row_is_cut_at_max_length_and_dropped_when_nothing_is_left(
    tokenizer: Any, caplog: pytest.LogCaptureFixture
):
    from flashrun_trainer import sft
    from flashrun_trainer.data import labels

    short = Conversation([USER, {"role": "user", "content": "x"}], [assistant("2")], "row 1")
    long = Conversation(
        [USER, {"role": "user", "content": "x" * 40}], [assistant("2" * 40)], "row 2"
    )
    whole = labels.tokenize_conversation(tokenizer, short.prompt, short.completion, False)
    run = resolved("sft", max_length=len(whole[0].input_ids))
    assert sft.tokenize_conversations([short, long], tokenizer, run) == [whole]
    assert "1 of 2 examples were dropped" in caplog.text
    assert f"within max_length = {run.train.max_length} tokens" in caplog.text


CUT = {
    "nothing is cut": (200, 0, "", ""),
    "a few are cut, which is for the log": (100, 2, "", "2 of 100 examples have lost the end"),
    "many are cut": (100, 10, "10 of 100 examples have lost the end", ""),
}


@pytest.mark.parametrize("case", CUT)
def test_answers_that_lose_their_end_are_warned_about(
    tokenizer: Any, case: str, caplog: pytest.LogCaptureFixture
):
    from flashrun_trainer import sft
    from flashrun_trainer.data import labels

    all_of_them, cut, told, logged = CUT[case]
    short, long = (Conversation([USER], [assistant("2" * count)], "a row") for count in (1, 40))
    (whole,) = labels.tokenize_conversation(tokenizer, short.prompt, short.completion, False)
    run = resolved("sft", max_length=len(whole.input_ids) + 8)
    rows = sft.tokenize_conversations([long] * cut + [short] * (all_of_them - cut), tokenizer, run)

    _, said = sft.data_warnings([short], rows, run, TemplateForm())

    assert said.startswith(told)
    assert bool(said) == bool(told)
    assert logged in caplog.text


def test_a_row_whose_later_turns_do_not_fit_is_cut_and_not_dropped(tokenizer: Any):
    from flashrun_trainer import sft

    again = {"role": "user", "content": "And again?"}
    talk = [assistant("2"), again, assistant("3"), again, assistant("4" * 40)]
    row = Conversation([USER], talk, "row 1")
    (whole,) = sft.tokenize_conversations([row], tokenizer, resolved("sft", max_length=500))
    assert [example.cut for example in whole] == [False] * 3
    length = len(whole[1].input_ids)

    run = resolved("sft", max_length=length)
    (kept,) = sft.tokenize_conversations([row], tokenizer, run)
    assert [example.input_ids for example in kept] == [item.input_ids for item in whole[:2]]
    assert sft.truncation_warning([kept], run).startswith("1 of 1 examples have lost the end")


def test_a_conversation_is_one_row_of_a_step_however_many_turns_it_has(workshop: Workshop):
    from flashrun_trainer import model, sft
    from flashrun_trainer.data import environment

    again = {"role": "user", "content": "And again?"}
    talk = {"messages": [assistant("2"), again, assistant("3"), again, assistant("4")]}
    data = rows(*[("What is 1 plus 1?", talk), ("What is 2 plus 1?", "3")] * 4)
    run = resolved("sft", batch_size=2, epochs=2, max_examples=7)
    pod = workshop.pod(run, sums(train=data))
    assert pod.train() == 0

    assert pod.values("epoch") == pytest.approx([step / 4 for step in range(1, 9)])
    loaded = environment.load(pod.inside, pod.run.environment)
    tokenizer = model.load_tokenizer(pod.inside.model_folder(pod.run))
    found = sft.tokenize_conversations(sft.load_conversations(loaded, pod.run), tokenizer, pod.run)
    assert [len(row) for row in found] == [3, 1, 3, 1, 3, 1, 3]
    assert sft.number_examples(found)[:3] == [range(3), range(3, 4), range(4, 7)]
    every = sum(len(example.input_ids) for row in found for example in row)
    assert pod.values("tokens")[-1] == 2 * every


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (assistant("half of \ud83d"), "row 301: messages that end with .* have half a character"),
        ({"role": "nobody", "content": "x"}, "row 301: the model's chat template refuses"),
    ],
)
def test_a_row_that_cannot_be_rendered_is_named(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, message: dict[str, str], words: str
):
    from flashrun_trainer import sft
    from flashrun_trainer.pod.trainer_errors import TrainerError

    refuse = "{% for m in messages %}{% if m.role == 'nobody' %}{{ raise_exception('who?') }}"
    template = refuse + "{% endif %}{{ m.content }}{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    odd = Conversation([USER, message], [assistant("2")], "row 301")
    with pytest.raises(TrainerError, match=words):
        sft.tokenize_conversations([odd], tokenizer, resolved("sft"))


CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
}

MISSING, UNASKED = (
    "thinking is on, but no output has reasoning",
    "thinking is off, but 1 of 2 outputs",
)

THOUGHTS = {
    "no output reasons": ([assistant("2")], True, MISSING),
    "one does": ([assistant("<think>\n1\n</think>\n\n2")], True, ""),
    "one does in a field of its own": ([{**assistant("2"), "reasoning_content": "1"}], True, ""),
    "one begins, and does not end": ([assistant("<think>\n1 2")], True, MISSING),
    "only a question speaks of it": (
        [assistant("2"), {"role": "user", "content": "<think>?"}],
        True,
        MISSING,
    ),
    "nobody wants it": ([assistant("2")], False, ""),
    "one does, and nobody wants it": ([assistant("<think>1</think>2")], False, UNASKED),
}


@pytest.mark.parametrize("case", THOUGHTS)
def test_reasoning_that_is_missing_or_not_asked_for_is_warned_about(case: str):
    from flashrun_trainer import sft

    completion, thinking, words = THOUGHTS[case]
    plain = Conversation([USER], [assistant("4")], "row 1")
    other = Conversation([USER], completion, "row 2")
    found = sft.reasoning_warning([plain, other], thinking, TemplateForm())
    assert found.startswith(words)
    assert bool(found) == bool(words)


def with_outputs(*outputs: Any) -> Any:
    """An environment whose rows have these outputs."""
    from freesolo.datasets.records import load_task_examples
    from freesolo.environments import EnvironmentSingleTurn

    from flashrun_trainer.data.environment import Environment

    class Plain(EnvironmentSingleTurn):
        def build_prompt_messages(self, example, prompt_text):
            return [{"role": "user", "content": example.input}]

        def score_response(self, example, response_text): ...

    found = [{"input": "What is 1 plus 1?", "output": output} for output in outputs]
    return Environment(Plain(), load_task_examples(found), "")


def test_rows_without_an_output_are_left_out_and_counted(caplog: pytest.LogCaptureFixture):
    from flashrun_trainer import sft

    only_asked = {"messages": [{"role": "user", "content": "And?"}]}
    environment = with_outputs("2", None, "", only_asked, {"messages": [CALL]}, "3")
    found = sft.load_conversations(environment, resolved("sft", max_examples=5))
    assert [pair.completion[0]["content"] for pair in found] == ["2", ""]
    assert "3 of 5 examples have no output: dropped" in caplog.text


def test_tokens_are_those_of_the_examples_without_padding(sft_run: TrainerPod, tiny_model):
    from flashrun_trainer import model, sft
    from flashrun_trainer.data import environment

    tokenizer = model.load_tokenizer(tiny_model)
    data = environment.load(sft_run.inside, sft_run.run.environment)
    pairs = sft.load_conversations(data, sft_run.run)
    found = sft.tokenize_conversations(pairs, tokenizer, sft_run.run)
    assert sft_run.values("tokens")[-1] == 2 * sum(len(row.input_ids) for (row,) in found)
    assert sft_run.values("tokens") == sorted(sft_run.values("tokens"))


def test_the_warm_up_begins_above_zero(workshop: Workshop):
    long = workshop.pod(resolved("sft", epochs=10, batch_size=2, max_examples=14, save_every=100))
    assert long.train() == 0
    rates = long.values("learning_rate")
    assert len(rates) == 70
    assert rates[:3] == pytest.approx([5e-3 / 3, 5e-3 * 2 / 3, 5e-3])  # ceil(3 % of 70) steps
    assert rates[3] < rates[2]


def test_a_run_of_one_step_learns(workshop: Workshop):
    from safetensors.torch import load

    pod = workshop.pod(resolved("sft", batch_size=32, max_examples=20))
    assert pod.train() == 0
    assert pod.values("learning_rate") == [5e-3]
    learned = load(pod.published("adapter_model.safetensors"))
    assert any(weight.any() for name, weight in learned.items() if "lora_B" in name)


@pytest.mark.parametrize("most", [None, 100])
def test_means_count_every_token_once_however_a_step_is_divided(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, most: int | None
):
    from flashrun_trainer import trl_arguments

    monkeypatch.setattr(trl_arguments, "most_micro_batch_tokens", lambda _: most)
    pod = workshop.pod(resolved("sft", max_examples=9, epochs=2, learning_rate=1e-4))
    assert pod.train() == 0
    entropy = pod.values("entropy")
    # Nothing is learned at this rate, so all steps are equally unsure; the last of an epoch has
    # one example, and micro-batches without any.
    assert entropy == pytest.approx([entropy[0]] * 4, rel=0.05)


def test_epochs_are_counted_as_the_config_does(sft_run: TrainerPod):
    assert sft_run.values("epoch") == pytest.approx([step / 5 for step in range(1, 11)])
