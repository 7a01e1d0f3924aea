"""The tools that a row defines, read into OpenAI's format."""

from collections.abc import Mapping
from typing import Any

from flashrun_trainer.data.message_reading import parse_json
from flashrun_trainer.data.messages import short_repr

Tool = dict[str, Any]
"""The definition of a tool in OpenAI's format: ``type`` and ``function``."""


def read_tools(tools: Any) -> list[Tool]:
    """Return definitions of tools, given as a list, as the JSON text of a list, or as None.

    Raises:
        ValueError: they are something else, or one has no name.
    """
    found = parse_json(tools, "tools") if isinstance(tools, str) and tools.strip() else tools
    if not found:
        return []
    if not isinstance(found, list | tuple):
        raise ValueError(f"tools must be a list, not {short_repr(tools)}")
    return [_read_tool(tool) for tool in found]


def _read_tool(tool: Any) -> Tool:
    is_wrapped = isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping)
    function = tool["function"] if is_wrapped else tool
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"a tool must be an object with name and parameters: {short_repr(tool)}")
    if is_wrapped:
        return {"type": "function", **tool}
    described = {key: value for key, value in function.items() if key != "type"}
    return {"type": "function", "function": described}


def tools_of(holder: Mapping[str, Any]) -> list[Tool]:
    """Return the tools of a row or an output, which may call them ``functions``.

    Raises:
        ValueError: they cannot be read, or both keys are set.
    """
    of_tools, of_functions = read_tools(holder.get("tools")), read_tools(holder.get("functions"))
    if of_tools and of_functions:
        raise ValueError("tools and functions are both set: keep tools")
    return of_tools or of_functions
