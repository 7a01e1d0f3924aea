"""Requests and answers of OpenAI's protocol."""

from typing import Any

import pytest
from pydantic import ValidationError

from flashrun_trainer.serving.openai_requests import (
    AnsweredText,
    AnsweredToken,
    ChatRequest,
    CompletionRequest,
    Sampling,
    completion_body,
)

ASKED = {"model": "run", "prompt": "a"}


@pytest.mark.parametrize(
    "given",
    [
        {"n": 2},
        {"echo": True},
        {"temperature": 3},
        {"logit_bias": {"1": 2}},
        {"frequency_penalty": 0.5},
        {"max_tokens": 0},
    ],
)
def test_a_key_that_cannot_be_followed_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(given))):
        CompletionRequest.model_validate({**ASKED, **given})


def test_a_request_says_how_its_answer_is_chosen() -> None:
    request = CompletionRequest.model_validate({**ASKED, "logprobs": 2, "stop": ["", "x"]})
    chat = {"model": "run", "messages": [{"role": "user", "content": "a"}], "top_logprobs": 4}

    assert request.sampling == Sampling(16, 1.0, 1.0, None, 2)
    assert request.stops == ["x"]
    assert ChatRequest.model_validate({**chat, "max_completion_tokens": 7}).sampling.max_tokens == 7
    assert ChatRequest.model_validate(chat).sampling.top_logprobs == 0
    assert ChatRequest.model_validate({**chat, "logprobs": True}).sampling.top_logprobs == 4


def test_the_log_probabilities_of_a_completion_have_the_places_of_its_tokens() -> None:
    tokens = (AnsweredToken(5, -0.5, ((5, -0.5),)), AnsweredToken(6, -1.0, ((5, -0.9),)))
    answer = AnsweredText("abc", tokens, ("ab", "c"), "length", 3)
    request = CompletionRequest.model_validate({**ASKED, "logprobs": 1})

    body = completion_body(request, answer, {5: "ab", 6: "c"})

    [choice] = body["choices"]
    assert choice["logprobs"] == {
        "tokens": ["ab", "c"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"ab": -0.5}, {"ab": -0.9}],
        "text_offset": [0, 2],
    }
    assert body["usage"]["total_tokens"] == 5
