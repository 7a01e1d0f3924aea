#!/usr/bin/env bash
# What it shows: a conversation with a tool call, rendered with the chat templates for training that
#   TRL ships. Those for Llama 3, LFM2, Phi-3, Phi-3.5, Qwen2.5-VL and the DeepSeek-R1 distills do not
#   write the call, and raise nothing. What is left of the turn is its end-of-turn token, inside the
#   part that assistant_only_loss learns: the model is taught to answer a question that needs a tool
#   with nothing. With a content of null, which is how OpenAI's API returns such a turn, Llama 3's
#   template teaches the word "None" and LFM2's the word "null". Qwen3's template is the control.
# Why it matters: SFT on tool use runs, its loss falls, and the model learns not to call tools.
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
"""What an assistant learns from the turn that calls a tool, by TRL's training templates."""
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

DROPPED = {
    "deepseek_r1_distill_training": "<｜Assistant｜><｜end▁of▁sentence｜>",
    "lfm2_training": "<|im_end|>\n",
    "llama3_training": "<|eot_id|>",
    "phi3_5_training": "<|end|>\n",
    "phi3_training": "<|end|>\n",
    "qwen2_5_vl_training": "<|im_end|>\n",
}
WITH_NULL = {"lfm2_training": "null<|im_end|>\n", "llama3_training": "None<|eot_id|>"}
FUNCTION = {"name": "add", "arguments": {"a": 2, "b": 3}}
CALL = {"type": "function", "id": "call00001", "function": FUNCTION}
NUMBER = {"type": "integer"}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {
    "type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"],
}}}]

package = importlib.util.find_spec("trl")
templates = Path(package.submodule_search_locations[0]) / "chat_templates"


def first_learned(name: str, content: str | None) -> str:
    messages = [
        {"role": "user", "content": "What is 2 + 3?"},
        {"role": "assistant", "content": content, "tool_calls": [CALL]},
        {"role": "tool", "name": "add", "tool_call_id": "call00001", "content": "5"},
        {"role": "assistant", "content": "It is 5."},
    ]
    [text], [spans] = render_jinja_template(
        [messages], tools=TOOLS, chat_template=(templates / f"{name}.jinja").read_text(),
        bos_token="<s>", eos_token="</s>", return_assistant_tokens_mask=True,
    )
    start, end = spans[0]
    return text[start:end]


print("TRL", importlib.metadata.version("trl"))
control = first_learned("qwen3_training", "")
empty = {name: first_learned(name, "") for name in DROPPED}
null = {name: first_learned(name, None) for name in WITH_NULL}
print(f"{'qwen3_training':29}", repr(control))
for name, text in empty.items():
    print(f"{name:29}", repr(text))
for name, text in null.items():
    print(f"{name:29}", repr(text), "with a content of null")
if "add" not in control:
    sys.exit("changed: Qwen3's template does not write the call either")
if empty != DROPPED:
    sys.exit("changed: expected nothing but the end of the turn from these six templates")
if null != WITH_NULL:
    sys.exit('changed: expected the words "null" and "None" from LFM2 and Llama 3')
print("as described: six templates drop the call and teach an empty turn")
PYTHON
"$python" "$folder/show.py" 2>"$folder/err" || { cat "$folder/err" >&2; exit 1; }
