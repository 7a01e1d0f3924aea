"""The chat templates that TRL ships, each with a tokenizer that knows its special tokens."""

import importlib.util
import re
from pathlib import Path
from typing import Any, Final

SMOLLM2: Final = "smollm2"

_BAR: Final = "\uff5c"
_SPECIAL: Final = re.compile(
    rf"<\|[^|<>\n]*\|>|<{_BAR}[^<>{_BAR}\n]*{_BAR}>"  # as <|im_end|>, with both kinds of bars
    r"|<\|[a-z_]+>|<[a-z_]+\|>"  # <|turn>, <turn|>
    r"|<(?:start_of_turn|end_of_turn|end_of_utterance|sop)>|</?(?:think|tool_call)>"
    r"|\[gMASK\]|</s>"
)
# ChatML with a system prompt of its own, and no place for tools, calls or reasoning.
_SMOLLM2: Final = """\
{%- if messages and messages[0].role != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face' -}}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def _folder() -> Path | None:
    spec = importlib.util.find_spec("trl")
    return Path(spec.origin).parent / "chat_templates" if spec and spec.origin else None


FOLDER: Final = _folder()
OF_TRL: Final = sorted(path.stem for path in FOLDER.glob("*.jinja")) if FOLDER else []
ALL: Final = [*OF_TRL, SMOLLM2]


def tokenizer_with(name: str, model: Path) -> Any:
    """The tokenizer of a model with another template, and with the tokens that it writes."""
    from flashrun_trainer.model import load_tokenizer

    tokenizer = load_tokenizer(model)
    assert FOLDER
    text = _SMOLLM2 if name == SMOLLM2 else (FOLDER / f"{name}.jinja").read_text()
    tokenizer.add_tokens(sorted(set(_SPECIAL.findall(text))), special_tokens=True)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = text
    return tokenizer
