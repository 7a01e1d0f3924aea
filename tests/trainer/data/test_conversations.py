"""Conversations in the formats that people use: what each key means, and what is refused."""

import re
from typing import Any

import pytest
from freesolo.environments import EnvironmentMultiTurn

from flashrun_trainer.data import conversations
from flashrun_trainer.data.messages import is_learnable
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer.written_rows import ADD, SYSTEM, USER, WHOLE, Plain, assistant, environment_of

OUTPUTS: dict[str, tuple[Any, list[Any]]] = {
    "text": (" 2\n", [assistant()]),
    "nothing": (None, [assistant("")]),
    "a list of messages": (
        [assistant("1"), USER, assistant()],
        [assistant("1"), USER, assistant()],
    ),
    "messages": ({"messages": [assistant()]}, [assistant()]),
    "messages and tools": ({"messages": [assistant()], "tools": [ADD], "x": None}, [assistant()]),
    "one message": (assistant(weight=0), [assistant(weight=0)]),
    "a list of numbers": ([1, 2], [assistant("[\n  1,\n  2\n]")]),
    "a table with a list of messages that are text": (
        {"messages": ["hi"], "count": 1},
        [assistant('{\n  "messages": [\n    "hi"\n  ],\n  "count": 1\n}')],
    ),
    "its own order and letters": (
        {"reasoning": "gauche ou droite", "answer": "à gauche"},
        [assistant('{\n  "reasoning": "gauche ou droite",\n  "answer": "à gauche"\n}')],
    ),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_an_output_is_a_conversation_or_text(case: str):
    output, expected = OUTPUTS[case]
    assert conversations.read_output(output) == expected


BAD_OUTPUTS = {
    "a key beside messages": ({"messages": [assistant()], "mood": 1}, "has the key 'mood'"),
    "no messages": ({"messages": []}, "must be a list that is not empty"),
    "messages of text": ({"messages": "hello"}, "messages must be a list"),
    "a message without a role": ([assistant(), {"content": "3"}], "message 2 of the output"),
    "another format": ([{"from": "gpt", "value": "2"}], "the keys 'from' and 'value'"),
    "another format with its key": (
        {"conversations": [{"from": "human", "value": "?"}]},
        "the keys 'from' and 'value'",
    ),
}


@pytest.mark.parametrize("case", BAD_OUTPUTS)
def test_an_output_that_is_half_a_conversation_is_refused(case: str):
    output, sentence = BAD_OUTPUTS[case]
    with pytest.raises(ValueError, match=re.escape(sentence)):
        conversations.read_output(output)


def test_a_row_of_messages_is_a_conversation_with_its_own_prompt_and_tools():
    environment = environment_of(WHOLE)
    [example] = environment.examples
    assert environment.conversation(example) == conversations.Conversation(
        [SYSTEM, USER], [assistant(weight=0), USER, assistant("4")], "row 1", (ADD,)
    )
    assert list(map(is_learnable, environment.completion(example))) == [False, False, True]
    # The environment's code gets a question, an answer, and the row as it is.
    assert example.input == USER["content"]
    assert example.record == WHOLE


def test_the_single_plain_answer_of_a_row_of_messages_is_its_output():
    [example] = environment_of({"messages": [USER, assistant()]}).examples
    assert example.output == "2"
    [example] = environment_of({"messages": [USER]}).examples
    assert example.output is None


def test_an_output_beside_messages_answers_them():
    row = {"messages": [USER, assistant("1"), USER], "output": "2"}
    environment = environment_of(row)
    [example] = environment.examples
    assert environment.conversation(example) == conversations.Conversation(
        [USER, assistant("1"), USER], [assistant()], "row 1"
    )
    assert (example.input, example.output) == (USER["content"], "2")
    assert environment_of({**row, "output": ""}).examples[0].output == {
        "messages": [assistant("1"), USER]
    }


def test_an_answer_in_messages_and_another_in_output_are_refused():
    with pytest.raises(ValueError, match="an answer at the end of its messages and an output"):
        environment_of({"messages": [USER, assistant()], "output": "3"})


def test_a_conversation_that_the_assistant_begins_is_refused_by_its_row():
    environment = environment_of(WHOLE, {"messages": [assistant("Hello."), USER, assistant()]})
    with pytest.raises(TrainerError) as error:
        environment.prompt(environment.examples[1])
    assert "the prompt of row 2: ValueError: the conversation begins with" in error.value.message


def test_an_environment_of_several_turns_opens_a_row_of_messages_itself():
    class Game(EnvironmentMultiTurn):
        def start_episode(self, example, prompt_text):
            return [{"role": "user", "content": f"Go: {example.input}"}]

        def max_episode_turns(self, example): ...

        def step_episode(self, example, messages, assistant_response): ...

        def score_episode(self, example, episode): ...

    environment = environment_of(WHOLE, sdk=Game())
    prompt = environment.prompt(environment.examples[0])
    assert prompt == [{"role": "user", "content": f"Go: {USER['content']}"}]


def test_an_environment_that_builds_its_completions_is_asked_for_them():
    class Own(Plain):
        def sft_completion(self, example):
            return [assistant("mine")]

    environment = environment_of({"input": "x", "output": "2"}, sdk=Own())
    assert environment.completion(environment.examples[0]) == [assistant("mine")]


def test_what_comes_before_the_first_answer_belongs_to_the_prompt():
    joined = conversations.join([SYSTEM], [USER, assistant("1"), USER, assistant()], "row 1")
    assert joined.prompt == [SYSTEM, USER]
    assert joined.completion == [assistant("1"), USER, assistant()]


@pytest.mark.parametrize("record", [{"prompt": "x", "completion": "y"}, {"input": None}])
def test_a_row_that_has_neither_an_input_nor_messages_is_refused_with_its_keys(record: Any):
    with pytest.raises(ValueError, match=f"no input; it has {', '.join(record)}"):
        conversations.read_row(record)


def test_an_input_that_is_a_table_keeps_its_order_and_letters():
    [example] = environment_of({"input": {"b": "é", "a": 1}}).examples
    assert example.input == '{\n  "b": "é",\n  "a": 1\n}'
    assert example.record == {"input": {"b": "é", "a": 1}}


def test_the_digest_depends_on_the_order_of_keys_and_on_tools():
    rows = [
        {"input": "x", "output": {"a": 1, "b": 2}},
        {"input": "x", "output": {"b": 2, "a": 1}},
        {"input": "x", "output": {"b": 2, "a": 1}, "tools": [ADD]},
    ]
    assert len({environment_of(row).digest for row in rows}) == len(rows)
