#!/usr/bin/env bash
# What it shows: one conversation with a tool call, its arguments once as an object and once as JSON
#   text, the form of OpenAI's API in which most datasets are published. Of the chat templates that
#   TRL ships, those of Llama 3.1, Llama 3.2, gpt-oss and Qwen2.5 write the text as a quoted string,
#   and Gemma 4's puts a second pair of braces around it. None of them raises: the model learns calls
#   whose arguments are a string. DeepSeek-V3 is the reverse and takes text alone. Qwen3 writes both
#   alike.
# Why it matters: one form does not fit all models, and the wrong one is learned silently.
# Versions: TRL 1.16.0, transformers 5.19.0, Python 3.11 (no PyTorch is needed to render).
# Seen: 2026-11-29.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" transformers==5.19.0 jinja2==3.1.6
"$python" -m uv pip install --quiet --python "$python" --no-deps trl==1.16.0

cat >"$folder/show.py" <<'PYTHON'
"""One tool call with its arguments as an object and as text, in TRL's chat templates."""
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

ARGUMENTS = {"a": 2, "b": 3}
NUMBER = {"type": "integer"}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {
    "type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"],
}}}]
AS_TEXT = {
    "qwen3": '{"name": "add", "arguments": {"a": 2, "b": 3}}',
    "llama3_1": r'{"name": "add", "parameters": "{\"a\": 2, \"b\": 3}"}',
    "llama3_2": r'{"name": "add", "parameters": "{\"a\": 2, \"b\": 3}"}',
    "qwen2_5": r'{"name": "add", "arguments": "{\"a\": 2, \"b\": 3}"}',
    "gptoss": r'<|message|>"{\"a\": 2, \"b\": 3}"<|call|>',
    "gemma4": 'call:add{{"a": 2, "b": 3}}',
    "deepseekv3": '```json\n{"a": 2, "b": 3}\n```',
}
AS_OBJECT = {
    "qwen3": '{"name": "add", "arguments": {"a": 2, "b": 3}}',
    "llama3_1": '{"name": "add", "parameters": {"a": 2, "b": 3}}',
    "llama3_2": '{"name": "add", "parameters": {"a": 2, "b": 3}}',
    "qwen2_5": '{"name": "add", "arguments": {"a": 2, "b": 3}}',
    "gptoss": '<|message|>{"a": 2, "b": 3}<|call|>',
    "gemma4": "call:add{a:2,b:3}",
    "deepseekv3": "refused",
}

package = importlib.util.find_spec("trl")
templates = Path(package.submodule_search_locations[0]) / "chat_templates"


def render(name: str, arguments: object) -> str:
    function = {"name": "add", "arguments": arguments}
    call = {"type": "function", "id": "call00001", "function": function}
    messages = [
        {"role": "user", "content": "What is 2 + 3?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    try:
        [text], _ = render_jinja_template(
            [messages], tools=TOOLS, chat_template=(templates / f"{name}.jinja").read_text(),
            bos_token="<s>", eos_token="</s>",
        )
    except TypeError as error:
        return f"refused: {error}"
    return text.split("What is 2 + 3?")[1]


print("TRL", importlib.metadata.version("trl"))
wrong = []
for name in AS_TEXT:
    as_object, as_text = render(name, ARGUMENTS), render(name, json.dumps(ARGUMENTS))
    print(name)
    print("   object:", repr(as_object))
    print("   text:  ", repr(as_text))
    if AS_OBJECT[name] not in as_object or AS_TEXT[name] not in as_text:
        wrong.append(name)
if wrong:
    sys.exit(f"changed: {', '.join(wrong)} write other calls than described")
print("as described: text is quoted or braced again by five templates, needed by one, equal in one")
PYTHON
"$python" "$folder/show.py" 2>"$folder/err" || { cat "$folder/err" >&2; exit 1; }
