"""Requests of an OpenAI client, and what is answered: the part that this server knows.

A key that would change the answer and that this server cannot follow is refused, and not ignored.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_TOKENS: Final = {"completion": 16, "chat": 1024}
"""Longest answers of requests that do not say how long."""
Stops: TypeAlias = str | list[str] | None


class Sampling(NamedTuple):
    """How an answer is chosen."""

    max_tokens: int
    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Share of the probability that the tokens have among which one is drawn."""
    seed: int | None = None
    top_logprobs: int = 0
    """How many other tokens are named with their log-probabilities."""


class AnsweredToken(NamedTuple):
    """One token of an answer."""

    id: int
    logprob: float
    """Its log-probability at temperature 1."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens in its place, with their log-probabilities."""


class OpenAIRequest(BaseModel):
    """What both endpoints have in common."""

    model_config = ConfigDict(extra="ignore")

    model: str
    max_tokens: Annotated[int, Field(ge=1, le=32768)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Stops = None
    stream: bool = False
    ignore_eos: bool = False
    """Whether the answer goes on after the end token; vLLM has the same key."""
    n: Literal[1] = 1
    presence_penalty: Literal[0] = 0
    frequency_penalty: Literal[0] = 0
    logit_bias: None = None

    @property
    def stops(self) -> list[str]:
        """The texts that end an answer; an empty one ends nothing."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in given if stop]


class CompletionRequest(OpenAIRequest):
    """A prompt that is continued as it is."""

    prompt: str | list[Annotated[int, Field(ge=0)]]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: Literal[False] = False
    suffix: None = None

    @property
    def sampling(self) -> Sampling:
        """How the answer is chosen."""
        return _sampling(self, DEFAULT_TOKENS["completion"], self.logprobs or 0)


class ChatMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class ChatRequest(OpenAIRequest):
    """A conversation that the model continues."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=32768)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    tools: None = None
    chat_template_kwargs: dict[str, Any] = {}

    @property
    def sampling(self) -> Sampling:
        """How the answer is chosen."""
        longest = self.max_completion_tokens or DEFAULT_TOKENS["chat"]
        return _sampling(self, longest, self.top_logprobs if self.logprobs else 0)


def _sampling(request: OpenAIRequest, longest: int, top: int) -> Sampling:
    return Sampling(
        request.max_tokens or longest, request.temperature, request.top_p, request.seed, top
    )


class AnsweredText(NamedTuple):
    """An answer as its endpoint returns it."""

    text: str
    tokens: Sequence[AnsweredToken]
    texts: Sequence[str]
    """The text of each token."""
    finish: str
    """``stop`` or ``length``."""
    prompt_tokens: int


def completion_body(
    request: CompletionRequest, answer: AnsweredText, names: Mapping[int, str]
) -> dict[str, Any]:
    """Return the body of an answer of ``/v1/completions``; ``names`` are texts of tokens."""
    logprobs = None
    if request.logprobs is not None:
        offsets = [sum(map(len, answer.texts[:place])) for place in range(len(answer.texts))]
        logprobs = {
            "tokens": list(answer.texts),
            "token_logprobs": [token.logprob for token in answer.tokens],
            "top_logprobs": [{names[i]: p for i, p in token.top} for token in answer.tokens],
            "text_offset": offsets,
        }
    choice = {"index": 0, "text": answer.text, "logprobs": logprobs, "finish_reason": answer.finish}
    return {**_head("cmpl", "text_completion", request), "choices": [choice], **_usage(answer)}


def chat_body(
    request: ChatRequest, answer: AnsweredText, names: Mapping[int, str]
) -> dict[str, Any]:
    """Return the body of an answer of ``/v1/chat/completions``."""
    logprobs = None
    if request.logprobs:
        logprobs = {
            "content": [
                {
                    **_named(text, token.logprob),
                    "top_logprobs": [_named(names[i], p) for i, p in token.top],
                }
                for text, token in zip(answer.texts, answer.tokens, strict=True)
            ]
        }
    message = {"role": "assistant", "content": answer.text}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": answer.finish,
    }
    return {**_head("chatcmpl", "chat.completion", request), "choices": [choice], **_usage(answer)}


def stream_event(
    request: OpenAIRequest, text: str, finish: str | None = None, first: bool = False
) -> dict[str, Any]:
    """Return one event of an answer that is streamed."""
    if isinstance(request, ChatRequest):
        delta = ({"role": "assistant"} if first else {}) | {"content": text}
        head = _head("chatcmpl", "chat.completion.chunk", request)
        part: dict[str, Any] = {"delta": delta}
    else:
        head, part = _head("cmpl", "text_completion", request), {"text": text}
    return {**head, "choices": [{"index": 0, **part, "logprobs": None, "finish_reason": finish}]}


def model_list(ids: Sequence[str]) -> dict[str, Any]:
    """Return the body of ``/v1/models``."""
    models = [{"id": each, "object": "model", "created": 0, "owned_by": "flashrun"} for each in ids]
    return {"object": "list", "data": models}


def _head(prefix: str, kind: str, request: OpenAIRequest) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": request.model,
    }


def _usage(answer: AnsweredText) -> dict[str, Any]:
    prompt, completion = answer.prompt_tokens, len(answer.tokens)
    return {
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
    }


def _named(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode(errors="replace"))}
