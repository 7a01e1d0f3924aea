"""``flash pull``: an adapter is downloaded whole, or not at all."""

import base64
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import urllib3

from flashrun.api import names
from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import Served, published
from tests.cli.storage import metrics_history, store_spec, trained_run, upload_folder


def test_pull_fetches_a_checkpoint_of_the_newest_attempt(served: Served, tmp_path: Path) -> None:
    prefix = names.run_prefix(served.namespace, "flash-1-a", "uid")
    for attempt in (1, 2):
        files = {
            "adapter/adapter_config.json": b"{}",
            "adapter/adapter_model.safetensors": b"weights %d" % attempt,
        }
        place = names.step_prefix(prefix, attempt, 5)
        upload_folder(served, place, "checkpoint", files, tmp_path / f"made-{attempt}")

    done = served.flash("pull", "flash-1-a/step-5", "mine")

    assert done.stdout == "mine\n"
    assert (tmp_path / "mine" / "adapter_model.safetensors").read_bytes() == b"weights 2"
    assert (tmp_path / "mine" / "adapter_config.json").exists()


def test_pull_never_touches_a_folder_that_has_something_in_it(served: Served) -> None:
    assert served.flash("pull", "flash-1-a", ".").returncode == 2


SCORES = ({0: {"eval/score": 0.2}}, {5: {"eval/score": 0.6}}, {10: {"eval/score": 0.4}})


@pytest.fixture
def evaluated(served: Served, tmp_path: Path) -> str:
    """A run with two evaluated checkpoints, of which step 5 is the better one."""
    served.push()
    name = served.submit()
    prefix = store_spec(served, name)
    served.store.put_bytes(names.metrics_key(prefix), metrics_history(*SCORES))
    for step in (5, 10):
        files = {"adapter/adapter_config.json": b"%d" % step}
        place = names.step_prefix(prefix, 1, step)
        upload_folder(served, place, "checkpoint", files, tmp_path / f"made-{step}")
    return name


@pytest.mark.parametrize("state", ["running", "deleted"])
def test_the_best_checkpoint_is_pulled_also_of_a_run_that_was_deleted(
    served: Served, evaluated: str, tmp_path: Path, state: str
) -> None:
    if state == "deleted":
        served.kubectl("delete", "flashrun", evaluated)

    done = served.flash("pull", evaluated, "--best")

    assert done.stdout == f"{evaluated}-step-5\n", done.stderr
    assert (tmp_path / f"{evaluated}-step-5" / "adapter_config.json").read_bytes() == b"5"
    assert (
        f"{evaluated}/step-5 is the best of 2 evaluated checkpoints: score 0.6, before training 0.2"
        in done.stderr
    )
    again = served.flash("pull", evaluated, "--best")
    assert (again.returncode, again.stdout) == (ExitCode.USAGE, "")
    shutil.rmtree(tmp_path / f"{evaluated}-step-5")
    assert served.flash("pull", evaluated, "named", "--best").stdout == "named\n"


def test_a_best_checkpoint_that_was_deleted_is_an_error_that_names_the_next_one(
    served: Served, evaluated: str, tmp_path: Path
) -> None:
    prefix = names.run_name_prefix(served.namespace, evaluated)
    keys = [entry.key for entry in served.store.list(prefix) if "/step-5/" in entry.key]
    served.store.delete(keys)

    done = served.flash("pull", evaluated, "mine", "--best")

    assert done.returncode == ExitCode.NOT_FOUND
    assert "is step-5 with score 0.6, and it is not in storage" in done.stderr
    assert f"flash pull {evaluated}/step-10" in done.stderr
    assert not (tmp_path / "mine").exists()


def test_a_run_that_was_not_evaluated_has_no_best_checkpoint(served: Served, run: str) -> None:
    done = served.flash("pull", run, "--best")

    assert done.returncode == ExitCode.NOT_FOUND
    assert f"no checkpoint of {run} was evaluated" in done.stderr
    assert "add dataset/eval.jsonl" in done.stderr


def test_a_reference_with_a_step_leaves_nothing_to_choose(served: Served) -> None:
    done = served.flash("pull", "flash-1-a/step-5", "--best")

    assert done.returncode == ExitCode.USAGE
    assert "use flash pull flash-1-a --best" in done.stderr


@contextmanager
def stalling(endpoint: str) -> Iterator[tuple[str, threading.Event]]:
    """A way to storage on which the adapter's weights never arrive.

    Yields its address, and an event that says that they were asked for.
    """
    upstream, asked, over = urllib3.PoolManager(), threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

        def do_GET(self) -> None:
            answer = upstream.request(
                "GET", endpoint + self.path, headers=dict(self.headers), decode_content=False
            )
            self.send_response(answer.status)
            for name in ("Content-Type", "Content-Length", "ETag", "Last-Modified"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            if "safetensors" in self.path:
                asked.set()
                over.wait(60)
            else:
                self.wfile.write(answer.data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        over.set()
        server.shutdown()


@pytest.mark.parametrize("words", [("pull", "mine"), ("export", "--to", "mine")])
def test_ctrl_c_ends_a_download_at_once_and_leaves_nothing(
    served: Served, tmp_path: Path, words: tuple[str, ...]
) -> None:
    name = trained_run(served)
    before = set(tmp_path.iterdir())
    with stalling(served.store.access.endpoint) as (endpoint, asked):
        secret = published(served.store)["items"][1]
        access = served.store.access.replace(endpoint=endpoint)
        text = access.model_dump_json(exclude_none=True).encode()
        secret["data"]["access.json"] = base64.b64encode(text).decode()
        served.apply(secret)
        command, *rest = words
        program = subprocess.Popen(
            served.flash.argv(command, name, *rest),
            env=served.flash.environment,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever starts tests in the background has SIGINT ignored in all that they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert asked.wait(60)
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=20)

    assert (program.returncode, said) == (ExitCode.INTERRUPTED, "interrupted\n")
    assert set(tmp_path.iterdir()) == before
