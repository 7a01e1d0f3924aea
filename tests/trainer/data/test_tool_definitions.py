"""The tools that rows and outputs define, in the formats that people use."""

import json
from typing import Any

import pytest

from flashrun_trainer.data import conversations
from tests.trainer.written_rows import ADD, assistant, environment_of

TOOLS: dict[str, Any] = {
    "a list": {"tools": [ADD]},
    "JSON text": {"tools": json.dumps([ADD])},
    "without a wrapper": {"tools": [ADD["function"]]},
    "functions": {"functions": [ADD["function"]]},
}


@pytest.mark.parametrize("case", TOOLS)
@pytest.mark.parametrize("place", ["row", "output", "both"])
def test_tools_are_read_from_a_row_and_from_its_output(case: str, place: str):
    own = TOOLS[case]
    output = {"messages": [assistant()], **(own if place != "row" else {})}
    row = {"input": "x", "output": output, **(own if place != "output" else {})}
    environment = environment_of(row)
    assert environment.tools(environment.examples[0]) == (ADD,)


def test_tools_that_contradict_each_other_are_refused():
    output = {"messages": [assistant()], "tools": [{"name": "subtract"}]}
    with pytest.raises(ValueError, match="differ: keep one"):
        conversations.row_tools({"tools": [ADD]}, output)
    with pytest.raises(ValueError, match="tools and functions are both set"):
        conversations.row_tools({"tools": [ADD], "functions": [ADD]}, None)
