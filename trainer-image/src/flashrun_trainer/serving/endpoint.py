"""The OpenAI endpoint of the server on transformers: one request at a time, on any CPU."""

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from flashrun.api import pod
from flashrun.api.base import error_sentences
from flashrun.api.records import ResolvedRun
from flashrun.listening import listen_on_all_addresses
from flashrun_trainer import model
from flashrun_trainer.data.chat_template import encode, render_prompt
from flashrun_trainer.pod.trainer_errors import TrainerError
from flashrun_trainer.serving.adapter_cache import AdapterCache, AdapterRefused, UnknownAdapter
from flashrun_trainer.serving.decoding import ServedModel
from flashrun_trainer.serving.openai_requests import (
    AnsweredText,
    AnsweredToken,
    ChatRequest,
    CompletionRequest,
    chat_body,
    completion_body,
    model_list,
    stream_event,
)

log = logging.getLogger(__name__)

_BODY_LIMIT: Final = 4 * 1024 * 1024
_SILENCE_SECONDS: Final = 120
"""How long a client may say nothing on an open connection."""
_HALF: Final = "�"
"""What half a character is decoded to: the next token completes it."""
_KINDS: Final[dict[str, type[CompletionRequest] | type[ChatRequest]]] = {
    "/v1/completions": CompletionRequest,
    "/v1/chat/completions": ChatRequest,
}


class RequestRefused(Exception):
    """A request cannot be answered; the message is one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Piece(NamedTuple):
    """What an answer has grown by."""

    text: str
    token: AnsweredToken | None
    finish: str | None = None


class Endpoint:
    """What the endpoint answers, apart from HTTP."""

    def __init__(self, folder: Path, run: ResolvedRun, cache: AdapterCache) -> None:
        """Load the base model in ``folder``, which the adapters of ``cache`` belong to."""
        self._tokenizer = model.load_tokenizer(folder)
        base = model.load(folder)
        self._limit = getattr(base.config.get_text_config(), "max_position_embeddings", None)
        self._ends = model.end_token_ids(base, self._tokenizer)
        self._served = ServedModel(base, run.model.id, cache)
        self._run = run
        self._ids = (run.model.id, *(adapter.id for adapter in cache.served.adapters))
        self._lock = threading.Lock()

    def models(self) -> dict[str, Any]:
        """Return the list of models: the base model, then every adapter of the server."""
        return model_list(self._ids)

    def prompt_ids(self, request: CompletionRequest | ChatRequest) -> list[int]:
        """Return the prompt as token ids; raises ``RequestRefused``."""
        if request.model not in self._ids:
            raise RequestRefused(
                404, f"the model {request.model} does not exist here: /v1/models lists the models"
            )
        if isinstance(request, CompletionRequest):
            given = request.prompt
            ids = self._tokenizer(given)["input_ids"] if isinstance(given, str) else given
        else:
            ids = self._chat_ids(request)
        if not ids or max(ids) >= len(self._tokenizer):
            raise RequestRefused(400, "the prompt is empty, or names a token that does not exist")
        room = (self._limit or len(ids) + 1) - len(ids)
        if room < 1:
            raise RequestRefused(
                400, f"the prompt has {len(ids)} tokens, and the model takes {self._limit}"
            )
        return list(ids)

    def _chat_ids(self, request: ChatRequest) -> list[int]:
        thinking = request.chat_template_kwargs.get("enable_thinking", self._run.thinking)
        messages = [message.model_dump() for message in request.messages]
        try:
            return encode(self._tokenizer, render_prompt(self._tokenizer, messages, bool(thinking)))
        except TrainerError as error:
            raise RequestRefused(400, error.message) from None

    def pieces(
        self, request: CompletionRequest | ChatRequest, prompt: Sequence[int]
    ) -> Iterator[Piece]:
        """Yield the pieces of an answer; the last one says why it ended.

        Raises:
            RequestRefused: the adapter is not what was pinned.
        """
        sampling = request.sampling
        if self._limit:
            longest = min(sampling.max_tokens, self._limit - len(prompt))
            sampling = sampling._replace(max_tokens=longest)
        stops, ids, text = request.stops, list[int](), ""
        # What may be the beginning of a stop text is not sent yet.
        held = max((len(stop) for stop in stops), default=1) - 1
        sent, finish = 0, "length"
        ends = frozenset() if request.ignore_eos else self._ends
        try:
            with self._lock:
                for token in self._served.answer(request.model, prompt, ends, sampling):
                    if token.id in ends:
                        finish = "stop"
                        yield Piece("", token)
                        break
                    ids.append(token.id)
                    text = self._tokenizer.decode(ids, skip_special_tokens=True)
                    end = min((at for stop in stops if (at := text.find(stop)) >= 0), default=-1)
                    if end >= 0:
                        text, finish = text[:end], "stop"
                        yield Piece("", token)
                        break
                    ready = len(text.rstrip(_HALF)) - held
                    yield Piece(text[sent:ready] if ready > sent else "", token)
                    sent = max(sent, ready)
        except UnknownAdapter:
            raise RequestRefused(404, f"the model {request.model} does not exist here") from None
        except AdapterRefused as refused:
            raise RequestRefused(503, str(refused)) from None
        yield Piece(text[sent:], None, finish)

    def answer(self, request: CompletionRequest | ChatRequest) -> dict[str, Any]:
        """Return the whole answer to a request."""
        prompt = self.prompt_ids(request)
        pieces = list(self.pieces(request, prompt))
        tokens = [piece.token for piece in pieces if piece.token is not None]
        named = {i for token in tokens for i in (token.id, *(i for i, _ in token.top))}
        texts = {i: self._tokenizer.decode([i]) for i in named}
        answer = AnsweredText(
            "".join(piece.text for piece in pieces),
            tokens,
            [texts[token.id] for token in tokens],
            pieces[-1].finish or "stop",
            len(prompt),
        )
        if isinstance(request, ChatRequest):
            return chat_body(request, answer, texts)
        return completion_body(request, answer, texts)


class EndpointServer(ThreadingHTTPServer):
    """Serves an endpoint on every address of the pod."""

    daemon_threads = True

    def __init__(self, endpoint: Endpoint, port: int = pod.SERVING_PORT) -> None:
        super().__init__(("", port), EndpointHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listen_on_all_addresses(port)
        self.server_address = self.socket.getsockname()
        self.endpoint = endpoint


class EndpointHandler(BaseHTTPRequestHandler):
    """Speaks HTTP for an endpoint."""

    protocol_version = "HTTP/1.1"
    timeout = _SILENCE_SECONDS
    server: EndpointServer

    def do_GET(self) -> None:
        """Answer whether the server is ready, and which models it has."""
        path = self.path.partition("?")[0]
        if path == pod.HEALTH_PATH:
            self._send(200, {"status": "ok"})
        elif path == "/v1/models":
            self._send(200, self.server.endpoint.models())
        else:
            self._refuse(
                404, f"there is nothing at {path}: use /v1/models or {' or '.join(_KINDS)}"
            )

    def do_POST(self) -> None:
        """Answer a request for a completion."""
        self._began = False
        try:
            self._answer(self._request())
        except RequestRefused as refused:
            self._fail(refused.status, str(refused))
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # the client has gone
        except Exception:
            log.exception("a request could not be answered")
            self._fail(500, "the server has failed: its log says why")

    def _request(self) -> CompletionRequest | ChatRequest:
        """Return the request in the body; raises ``RequestRefused``."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _BODY_LIMIT:
            self.close_connection = True
            raise RequestRefused(413, f"a request has a length of at most {_BODY_LIMIT} bytes")
        body = self.rfile.read(int(length))
        kind = _KINDS.get(self.path.partition("?")[0])
        if kind is None:
            raise RequestRefused(404, f"there is nothing at {self.path}: use {' or '.join(_KINDS)}")
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            raise RequestRefused(400, "; ".join(error_sentences(error, whole="the body"))) from None

    def _answer(self, request: CompletionRequest | ChatRequest) -> None:
        endpoint = self.server.endpoint
        if not request.stream:
            self._send(200, endpoint.answer(request))
            return
        pieces = endpoint.pieces(request, endpoint.prompt_ids(request))
        piece = next(pieces)  # what is refused gets a status of its own
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self._began = self.close_connection = True
        self._event(stream_event(request, piece.text, piece.finish, first=True))
        for piece in pieces:
            if piece.text or piece.finish:
                self._event(stream_event(request, piece.text, piece.finish))
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()

    def _fail(self, status: int, sentence: str) -> None:
        """Report an error: by its status, or as an event if the answer has begun."""
        if self._began:
            self._event(_error(status, sentence))
        else:
            self._refuse(status, sentence)

    def _refuse(self, status: int, sentence: str) -> None:
        self._send(status, _error(status, sentence))

    def _send(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log a request, except those of the kubelet."""
        if self.path != pod.HEALTH_PATH:
            log.info(format, *args)


def _error(status: int, sentence: str) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": sentence, "type": kind, "code": status}}
