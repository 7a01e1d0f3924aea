"""Turn an error of pydantic into a sentence: what is wrong, what was given and what is allowed."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Final

from pydantic_core import ErrorDetails

from flashrun.api import secret_patterns
from flashrun.api.base import Section
from flashrun.api.config import RunConfig
from flashrun.cli.config.toml_lines import Path

OTHER_NAMES: Final = {
    "max_context_tokens": "train.max_length",
    "max_completion_tokens": "train.max_tokens",
    "max_seq_length": "train.max_length",
    "num_generations": "train.group_size",
    "num_train_epochs": "train.epochs",
    "prompts_per_step": "train.batch_size",
    "beta": "train.kl_penalty_coef",
    "lr": "train.learning_rate",
    "rank": "train.lora_rank",
    "dataset": "environment.id",
    "env": "environment.id",
    "secret": "environment.secrets",
    "split": "environment.params.split",
}
"""Names of our keys in other tools."""


def describe_error(detail: ErrorDetails) -> str:
    """Return one sentence: what is wrong, what was given and what is allowed."""
    loc = tuple(part for part in detail["loc"] if part != "[key]")
    path, given, context = _path_text(loc), detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return _missing(path)
        case "extra_forbidden":
            return _unknown(tuple(map(str, loc)), given)
        case "value_error":
            return _join(loc, path, str(context["error"]), given)
        case "greater_than_equal":
            return f"{path} must be at least {context['ge']}, not {printable(given)}"
        case "greater_than":
            return f"{path} must be greater than {context['gt']}, not {printable(given)}"
        case "less_than_equal":
            return f"{path} must be at most {context['le']}, not {printable(given)}"
        case "too_long" if not isinstance(given, str):
            return f"{path} has too many entries; at most {context['max_length']} are allowed"
        case "too_long" | "string_too_long":
            return f"{path} is too long; at most {context['max_length']} characters are allowed"
        case "string_type":
            return f"{path} must be a string, not {printable(given)}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"{path} must be a table, not {printable(given)}: write [{path}]"
        case _:
            return f"{path} cannot be {printable(given)}: {detail['msg']}"


def printable(value: Any) -> str:
    """Return ``value`` for an error message: short, and without what looks like a secret."""
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    if (kind := secret_patterns.describe_secret(text)) is not None:
        return f"a value that looks like {kind}"
    return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"


def _path_text(loc: Sequence[int | str]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def _join(loc: Sequence[int | str], path: str, sentence: str, given: Any) -> str:
    """Put the key before a sentence of ``flashrun.api.config``, which leaves out its subject."""
    if re.match(r"must be\b", sentence) and ":" not in sentence:
        return f"{path} {sentence}, not {printable(given)}"
    if re.match(r"(must|is|looks|has|cannot|names)\b", sentence):
        return f"{path} {sentence}"
    if sentence.startswith((".", "[")):  # it begins with a place inside the value
        return f"{path}{sentence}"
    return f"{path}{'.' if loc[-1] == 'params' else ': '}{sentence}"


def _missing(path: str) -> str:
    match path:
        case "model":
            return 'model is required, such as model = "Qwen/Qwen3.5-4B"; see flash models'
        case "environment" | "environment.id":
            return 'environment.id is required: write [environment] and id = "your-org/your-env"'
        case _:
            return f"{path} is required"


def _unknown(path: Path, given: Any) -> str:
    *parents, key = path
    allowed = tuple(_section(parents).model_fields)
    if isinstance(given, dict) and not parents:
        subject, form = f"[{key}] is not a section", "[{}]"
        allowed = tuple(name for name in allowed if name not in ("model", "algorithm", "thinking"))
    else:
        table = f"[{'.'.join(parents)}]" if parents else "the top level"
        subject, form = f"{key} is not a key of {table}", "{}"
    if key in ("sft", "grpo") and isinstance(given, dict):
        return f'{subject}; write algorithm = "{key}" at the top and its keys in [train]'
    if (full_name := _full_name_elsewhere(key, parents)) is not None:
        return f"{subject}; did you mean {full_name}?"
    if near := get_close_matches(_snake(key), allowed, n=1, cutoff=0.6):
        return f"{subject}; did you mean {form.format(near[0])}?"
    if not isinstance(given, dict) and (far := get_close_matches(_snake(key), _full_names(), n=1)):
        return f"{subject}; did you mean {_full_names()[far[0]]}?"
    return f"{subject}; allowed are {', '.join(form.format(name) for name in allowed)}"


def _section(parents: Sequence[str]) -> type[Section]:
    section: Any = RunConfig
    for name in parents:
        section = section.model_fields[name].annotation
    return section  # type: ignore[no-any-return]


def _full_name_elsewhere(key: str, parents: Sequence[str]) -> str | None:
    """Return the full name of a key that was given in the wrong table or by another name."""
    name = _snake(key)
    full_name = OTHER_NAMES.get(name) or _full_names().get(name)
    return full_name if full_name != ".".join((*parents, name)) else None


def _full_names() -> dict[str, str]:
    """Return the full name of each key, with its table."""
    return {
        field: f"{table}.{field}" if table else field
        for table in ("", "wandb", "eval", "environment", "train")
        for field in _section([table] if table else []).model_fields
    }


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).replace("-", "_").lower()
