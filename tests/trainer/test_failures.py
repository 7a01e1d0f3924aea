"""Exceptions become one code, one sentence and a hint; secrets become asterisks."""

from pathlib import Path

import pytest

from flashrun.api.exits import Exit, Termination
from flashrun.store_errors import Corrupt, StorageForbidden, Unavailable
from flashrun_trainer.pod import trainer_errors
from flashrun_trainer.pod.redaction import Redactor
from flashrun_trainer.pod.trainer_errors import InterruptedBeforeTraining, TrainerError
from tests.trainer.pods import resolved


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


class AcceleratorError(RuntimeError):
    """As torch names it."""


class DistBackendError(RuntimeError):
    """As torch names it."""


class DistNetworkError(RuntimeError):
    """As torch names it."""


class SafetensorError(Exception):
    """As the library names it, which writes the adapter."""


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (TrainerError(72, "SplitMissing", "no split", "add it"), 72, "SplitMissing"),
        (InterruptedBeforeTraining(), 41, "Interrupted"),
        (OutOfMemoryError("Tried to allocate 2.00 GiB. GPU 0"), 65, "CudaOutOfMemory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), 65, "CudaOutOfMemory"),
        (AcceleratorError("CUDA error: unspecified launch failure"), 66, "GpuFault"),
        (AcceleratorError("CUDA error: an illegal memory access"), 66, "GpuFault"),
        (AcceleratorError("CUDA error: out of memory"), 65, "CudaOutOfMemory"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), 65, "CudaOutOfMemory"),
        (DistBackendError("NCCL error: Cuda failure 2 'out of memory'"), 65, "CudaOutOfMemory"),
        (ValueError("No available memory for the cache blocks. Try"), 65, "CudaOutOfMemory"),
        (
            ValueError(
                "9 GiB KV cache is needed, which is larger than the available KV cache memory"
            ),
            65,
            "CudaOutOfMemory",
        ),
        (RuntimeError("No CUDA GPUs: no CUDA-capable device is detected"), 66, "GpuFault"),
        (RuntimeError("CUDA unknown error - this may be due to a bad set-up"), 66, "GpuFault"),
        (RuntimeError("Watchdog caught collective operation timeout"), 67, "NcclFailed"),
        (AcceleratorError("CUDA error: uncorrectable ECC error encountered"), 66, "GpuFault"),
        (DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:94"), 67, "NcclFailed"),
        (DistNetworkError("The client socket has timed out after 600000ms"), 67, "NcclFailed"),
        (RuntimeError("[/src/gloo/transport/tcp/pair.cc] Connection closed"), 67, "NcclFailed"),
        (Unavailable("storage is away"), 75, "StorageUnavailable"),
        (StorageForbidden("refused"), 75, "StorageUnavailable"),
        (Corrupt("damaged"), 75, "StorageUnavailable"),
        (OSError(28, "No space left on device"), 1, "DiskFull"),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device"),
            1,
            "DiskFull",
        ),
        (MemoryError(), 1, "OutOfMemory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "OutOfMemory"),
        (OSError(12, "Cannot allocate memory"), 1, "OutOfMemory"),
        (FileNotFoundError(2, "No such file or directory", "igloo.txt"), 1, "Unexpected"),
        (KeyError("x"), 1, "Unexpected"),
        (ValueError("CUDA out of memory, says the user"), 1, "Unexpected"),
    ],
    ids=lambda value: repr(value) if isinstance(value, BaseException) else str(value),
)
def test_an_exception_has_a_code_and_a_reason(error: BaseException, code: int, reason: str):
    end = trainer_errors.classify(error)
    assert (end.code, end.reason) == (code, reason)
    assert "\n" not in end.message
    assert end.hint


def test_out_of_memory_names_the_keys_to_lower():
    end = trainer_errors.classify(
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    )
    assert "train.batch_size" in end.hint
    assert "train.max_length" in end.hint
    assert end.message == (
        "the GPU ran out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.)"
    )


def test_an_error_out_of_the_environments_code_is_the_environments(tmp_path: Path):
    path = tmp_path / "environment" / "environment.py"
    path.parent.mkdir()
    path.write_text("def fail():\n    raise LookupError('nothing here')\n")
    scope: dict = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    with pytest.raises(LookupError) as error:
        scope["fail"]()
    end = trainer_errors.classify(error.value, tmp_path)
    assert (end.code, end.reason) == (Exit.ENVIRONMENT, "EnvironmentFailed")
    assert end.message == (
        "the environment failed in environment/environment.py:2 with LookupError: nothing here"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(value: float):
    end = trainer_errors.divergence_error("loss", value, 7)
    assert end is not None
    assert (end.code, end.reason) == (Exit.DIVERGED, "Diverged")
    assert "step 7" in end.message
    assert "train.learning_rate" in end.hint


def test_a_loss_that_is_a_number_does_not():
    assert trainer_errors.divergence_error("loss", 3.2, 7) is None


def redactor(**environment: str) -> Redactor:
    run = resolved(
        environment={"secrets": ("LISTED",)},
        worker_env={"SHOWN_TOKEN": "shown-value"},
        pip_index_url="https://me:index-password@index.invalid/simple",
    )
    return Redactor.for_run(run, environment, lambda: ("storage-secret",))


@pytest.mark.parametrize(
    ("sentence", "environment", "text", "expected"),
    [
        ("a listed secret", {"LISTED": "abc-123"}, "got abc-123!", "got ***!"),
        ("one named like a secret", {"MY_API_KEY": "abc-123"}, "abc-123", "***"),
        ("the key of W&B", {"WANDB_API_KEY": "wandb-1"}, "wandb-1", "***"),
        ("storage keys", {}, "signed with storage-secret", "signed with ***"),
        ("a password in an address", {}, "https://me:index-password@x", "https://me:***@x"),
        ("as part of an address", {"LISTED": "a/b c+d"}, "?key=a%2Fb%20c%2Bd", "?key=***"),
        ("a line of a longer one", {"LISTED": "first line\nsecond one"}, "second one", "***"),
        (
            "a line of one whose lines JSON spells out",
            {"LISTED": r'{"key": "-----BEGIN\nMIIEvgIBADANBg\nEND-----"}'},
            "could not parse MIIEvgIBADANBg",
            "could not parse ***",
        ),
        (
            "one with a line end that does not belong to it",
            {"LISTED": "abc-123\n"},
            "got abc-123!",
            "got ***!",
        ),
        ("inside JSON", {"LISTED": 'pass"wo\\rd'}, r'{"key": "pass\"wo\\rd"}', '{"key": "***"}'),
        ("as Python writes it", {"LISTED": "schlüssel\t1"}, r"'schlüssel\t1'", "'***'"),
        (
            "percent-encoded in small letters",
            {"LISTED": "a/b c+d"},
            "GET /a%2fb%20c%2bd",
            "GET /***",
        ),
        ("as a form sends it", {"LISTED": "a/b c+d"}, "key: a%2Fb+c%2Bd", "key: ***"),
        ("in base64", {"LISTED": "canary-1234"}, "Y2FuYXJ5LTEyMzQ=", "***Q="),
        (
            "in base64, behind a user of one letter",
            {"LISTED": "canary-1234"},
            "sent dTpjYW5hcnktMTIzNA==",
            "sent dTp***A==",
        ),
        (
            "in base64, behind a user of two letters",
            {"LISTED": "canary-1234"},
            "sent bWU6Y2FuYXJ5LTEyMzQ=",
            "sent bWU6***Q=",
        ),
        (
            "the beginning and the end of one that somebody has cut",
            {"LISTED": "canary-1234-and-more"},
            "input_value='canary-12...and-more', and canary-1234-a…",
            "input_value='***...***', and ***…",
        ),
        (
            "dots behind something else",
            {"LISTED": "canary-1234"},
            "canaries... and so on…",
            "canaries... and so on…",
        ),
        ("half a character", {"LISTED": "abc-123"}, "abc-123 \ud83d", r"*** \ud83d"),
        ("the longer of two first", {"LISTED": "abcdef", "A_TOKEN": "abcdefgh"}, "abcdefgh", "***"),
        ("a value too short to look for", {"LISTED": "true"}, "it is true", "it is true"),
        (
            "a password that nobody listed, in an address",
            {},
            "GET https://user:pass-word@hub.example/x failed",
            "GET https://user:***@hub.example/x failed",
        ),
        (
            "a token in a query",
            {},
            "403 for https://s3.example/x?part=1&X-Amz-Signature=abc123&token=t0k3n done",
            "403 for https://s3.example/x?part=1&X-Amz-Signature=***&token=*** done",
        ),
        (
            "a token in the place of a user",
            {},
            "git+https://ghp_0123456789ab@git.example/x.git",
            "git+https://***@git.example/x.git",
        ),
        ("a user alone", {}, "git+ssh://git@git.example/x", "git+ssh://git@git.example/x"),
        (
            "a signature by its short name",
            {},
            "https://x.example/b?sig=a%2Bb",
            "https://x.example/b?sig=***",
        ),
        (
            "a token behind the address",
            {},
            "see https://x.example/#access_token=abc&state=1",
            "see https://x.example/#access_token=***&state=1",
        ),
        ("an address in JSON", {}, r'"<a href=\"/?key=abc\">"', r'"<a href=\"/?key=***\">"'),
        ("a header", {}, "Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        (
            "a header of bytes",
            {},
            "[(b'Authorization', b'Basic dTpw')]",
            "[(b'Authorization', b'Basic ***')]",
        ),
        (
            "a header of a dict",
            {},
            "{'Authorization': 'Basic dTpw'}",
            "{'Authorization': 'Basic ***'}",
        ),
        (
            "words that begin like one",
            {},
            "basic sums; the bearer of it",
            "basic sums; the bearer of it",
        ),
        (
            "an address without any",
            {},
            "see https://x.example/a?page=2",
            "see https://x.example/a?page=2",
        ),
        ("a question of a prompt", {}, "what? token=7", "what? token=7"),
        ("what nobody calls a secret", {"HOME": "/tmp/home"}, "/tmp/home", "/tmp/home"),
        ("what the spec shows", {"SHOWN_TOKEN": "shown-value"}, "shown-value", "shown-value"),
    ],
)
def test_secret_values_become_asterisks(
    sentence: str, environment: dict[str, str], text: str, expected: str
):
    assert redactor(**environment)(text) == expected


def test_without_a_spec_the_variables_named_like_secrets_are_known_and_nothing_else_changes():
    known = Redactor.for_run(
        None, {"MY_API_KEY": "abc-123", "HOME": "/tmp/home"}, lambda: ("", "storage-key")
    )
    assert known("abc-123 and storage-key, in /tmp/home") == "*** and ***, in /tmp/home"


def test_renewed_keys_are_hidden_and_earlier_ones_stay_hidden():
    keys = ["storage-key-1"]
    known = Redactor.for_run(None, {}, lambda: keys)
    keys[:] = ["storage-key-2"]
    assert known("storage-key-2 after storage-key-1") == "*** after ***"


def test_a_degenerate_text_is_looked_through_once():
    """Without a limit on the name of a parameter, each of its words would read all that follow."""
    text = "?" + "token" * 100_000
    assert redactor()(text) == text


@pytest.mark.parametrize("letter", ["x", '"', "é", "語", "🙂", "\x01"])
def test_messages_keep_within_the_kubelets_limit(letter: str):
    message = trainer_errors.shorten(letter * 5000)
    assert len(message) <= 1024
    ending = Termination(
        reason="R" * 63,
        message=message,
        hint=message,
        attempt=99,
        step=10**8,
        peak_memory_bytes=2**40,
    )
    assert 1900 < len(ending.model_dump_json().encode()) <= 4096
    assert trainer_errors.shorten("short") == "short"
