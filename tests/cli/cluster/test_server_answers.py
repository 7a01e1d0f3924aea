"""Answers of a server of adapters, as they arrive, and what goes wrong on the way."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flashrun.cli.cluster.server_answers import stream_answer
from flashrun.cli.output.failure import Failure

QUESTION = [{"role": "user", "content": "1 + 1"}]


@contextmanager
def answering(status: int, *parts: str) -> Iterator[str]:
    """A server that sends these parts; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            for part in parts:
                self.wfile.write(part.encode())
                self.wfile.flush()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def event(text: str) -> str:
    return f'data: {{"choices": [{{"delta": {{"content": "{text}"}}}}]}}\n\n'


async def read(address: str) -> list[str]:
    return [piece async for piece in stream_answer(address, "run", QUESTION, {})]


async def test_an_answer_arrives_in_pieces_however_they_are_cut() -> None:
    whole = event("tw") + ": a comment\n\n" + event("o") + "data: [DONE]\n\n"

    with answering(200, whole[:20], whole[20:70], whole[70:]) as address:
        assert await read(address) == ["tw", "o"]


@pytest.mark.parametrize(
    ("status", "parts", "words"),
    [
        (503, ('{"error": {"message": "adapter run is refused"}}',), "adapter run is refused"),
        (404, ('{"error": "no such model"}',), "no such model"),
        (502, ("<html>bad gateway</html>",), "bad gateway"),
        (500, (), "without a reason"),
        (200, (event("tw"),), "ended in the middle"),
        (200, ('data: {"error": {"message": "out of memory"}}\n\n',), "out of memory"),
        (200, ("data: []\n\n",), "is not an OpenAI one"),
        (200, ("data: " + "[" * 100_000 + "\n\n",), "is not an OpenAI one"),
        (200, ('data: {"choices": [{"delta": {"content": 5}}]}\n\n',), "is not an OpenAI one"),
        (200, ("<html>log in</html>",), "is not an OpenAI one"),
        (200, ('{"choices": []}',), "is not an OpenAI one"),
        (200, ("x" * 2_000_000,), "is not an OpenAI one"),
        (500, ("[" * 100_000,), r"\(status 500\): \["),
        (500, ('{"error": {"message": null}}',), "without a reason"),
        (302, (), r"\(status 302\)"),
    ],
)
async def test_what_is_not_an_answer_is_a_sentence(
    status: int, parts: tuple[str, ...], words: str
) -> None:
    with answering(status, *parts) as address, pytest.raises(Failure, match=words):
        await read(address)


async def test_the_reason_of_a_server_is_one_short_line_without_control_characters() -> None:
    text = '{"error": {"message": "\\u001b[2Jno\\nerror: none' + "z" * 10_000 + '"}}'

    with answering(503, text) as address, pytest.raises(Failure) as caught:
        await read(address)

    assert caught.value.sentence.startswith("the server refuses (status 503): no error: nonez")
    assert len(caught.value.sentence) < 600


async def test_a_refusal_that_is_no_text_or_has_no_end_is_read_in_part() -> None:
    with answering(503, "x" * 50_000_000) as address, pytest.raises(Failure, match=r"x{500}$"):
        await read(address)


async def test_events_may_be_written_without_a_space_and_with_an_error_of_null() -> None:
    parts = (
        'data:{"error": null, "choices": [{"delta": {"content": "4"}}]}\n\n',
        'data:\n\ndata:{"choices": [{"delta": {"content": "2\\ud800"}}]}\n\ndata:[DONE]\n\n',
    )

    with answering(200, *parts) as address:
        assert await read(address) == ["4", "2?"]


async def test_a_server_that_is_away_is_a_sentence() -> None:
    with pytest.raises(Failure, match="broke off"):
        await read("http://127.0.0.1:1")
