"""The calls of tools in a model's answer, as data.

Each family of models writes calls in another form. transformers reads them with a description of
the form, which TRL has for the chat templates that it knows.
"""

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedRun
from flashrun_trainer.data.messages import Answer, Message, SampledAnswer
from flashrun_trainer.data.tool_definitions import Tool
from flashrun_trainer.data.turn_ends import end_of_turn_token
from flashrun_trainer.pod.trainer_errors import TrainerError


def check_calls_readable(tokenizer: Any) -> None:
    """Check that calls of tools can be read in answers; raises ``TrainerError``."""
    if _reader(tokenizer, str(tokenizer.chat_template)) is None:
        raise TrainerError(
            Exit.CONFIG,
            Reason.TEMPLATE_UNSUPPORTED,
            "the environment offers tools, and how the model's chat template writes calls of tools "
            "is not known",
            "set the key model to a model whose template TRL knows, such as Qwen3 or Llama 3.1",
        )


def read_sampled(
    tokenizer: Any,
    run: ResolvedRun,
    prompt_ids: Sequence[int],
    ids: Sequence[int],
    answer: Answer,
    tools: Sequence[Tool],
) -> SampledAnswer:
    """Return the answer that was sampled as ``ids`` after ``prompt_ids``."""
    content, calls = _split_calls(tokenizer, prompt_ids, ids, answer, tools)
    return SampledAnswer(
        content,
        tuple(calls),
        _is_cut_off(tokenizer, run, ids),
        prompt_tokens=len(prompt_ids),
        completion_tokens=len(ids),
    )


def _is_cut_off(tokenizer: Any, run: ResolvedRun, ids: Sequence[int]) -> bool:
    ends = (end_of_turn_token(tokenizer, run.thinking), tokenizer.eos_token_id)
    stops = run.train.stop_sequences or ()
    text = tokenizer.decode(ids) if stops else ""
    return not (ids and ids[-1] in ends) and not any(stop in text for stop in stops)


def _split_calls(
    tokenizer: Any,
    prompt_ids: Sequence[int],
    ids: Sequence[int],
    answer: Answer,
    tools: Sequence[Tool],
) -> tuple[str, list[Message]]:
    """Return the text of an answer beside its calls, and the calls.

    A call that cannot be read is text, as it is for a server.
    """
    reader = _reader(tokenizer, str(tokenizer.chat_template)) if tools else None
    if reader is None:
        return str(answer), []
    from trl.chat_template_utils import parse_response

    parsed = parse_response(reader, list(ids), prefix=list(prompt_ids), tools=list(tools))
    calls = [call for call in parsed.get("tool_calls") or () if _is_call(call)]
    return (str(parsed["content"]).strip(), calls) if calls else (str(answer), [])


def _is_call(call: Any) -> bool:
    function = call.get("function")
    return isinstance(function, dict) and isinstance(function.get("arguments"), dict)


@lru_cache(maxsize=4)
def _reader(tokenizer: Any, template: str) -> Any:
    """Return a tokenizer that reads answers; None if the form of its calls is not known.

    ``template`` is a key of the cache: a tokenizer's template may be replaced.
    """
    from trl.chat_template_utils import add_response_schema

    reader = copy.copy(tokenizer)
    if getattr(reader, "response_template", None) or getattr(reader, "response_schema", None):
        return reader
    try:
        return add_response_schema(reader)
    except ValueError:
        return None
