"""Exceptions become one code, one sentence and a hint; secrets become asterisks."""

from pathlib import Path

import pytest

from flashrun.spec.outcome import Exit
from flashrun.store import Corrupt, Forbidden, Unavailable
from flashrun_trainer import failures
from flashrun_trainer.failures import InterruptedBeforeTraining, Redactor, TrainerError
from tests.trainer.pods import resolved


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


class AcceleratorError(RuntimeError):
    """As torch names it."""


class DistBackendError(RuntimeError):
    """As torch names it."""


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
        (RuntimeError("No CUDA GPUs: no CUDA-capable device is detected"), 66, "GpuFault"),
        (RuntimeError("CUDA unknown error - this may be due to a bad set-up"), 66, "GpuFault"),
        (RuntimeError("Watchdog caught collective operation timeout"), 67, "NcclFailed"),
        (AcceleratorError("CUDA error: uncorrectable ECC error encountered"), 66, "GpuFault"),
        (DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:94"), 67, "NcclFailed"),
        (Unavailable("storage is away"), 75, "StorageUnavailable"),
        (Forbidden("refused"), 75, "StorageUnavailable"),
        (Corrupt("damaged"), 75, "StorageUnavailable"),
        (OSError(28, "No space left on device"), 1, "DiskFull"),
        (MemoryError(), 1, "OutOfMemory"),
        (KeyError("x"), 1, "Unexpected"),
        (ValueError("CUDA out of memory, says the user"), 1, "Unexpected"),
    ],
    ids=lambda value: repr(value) if isinstance(value, BaseException) else str(value),
)
def test_an_exception_has_a_code_and_a_reason(error: BaseException, code: int, reason: str):
    end = failures.explain(error)
    assert (end.code, end.reason) == (code, reason)
    assert "\n" not in end.message
    assert end.hint


def test_out_of_memory_names_the_keys_to_lower():
    hint = failures.explain(OutOfMemoryError("Tried to allocate")).hint
    assert "train.batch_size" in hint
    assert "train.max_length" in hint


def test_an_error_out_of_the_environments_code_is_the_environments(tmp_path: Path):
    path = tmp_path / "environment" / "environment.py"
    path.parent.mkdir()
    path.write_text("def fail():\n    raise LookupError('nothing here')\n")
    scope: dict = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    with pytest.raises(LookupError) as error:
        scope["fail"]()
    end = failures.explain(error.value, tmp_path)
    assert (end.code, end.reason) == (Exit.ENVIRONMENT, "EnvironmentFailed")
    assert end.message == (
        "the environment failed in environment/environment.py:2 with LookupError: nothing here"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(value: float):
    end = failures.diverged("loss", value, 7)
    assert end is not None
    assert (end.code, end.reason) == (Exit.DIVERGED, "Diverged")
    assert "step 7" in end.message
    assert "train.learning_rate" in end.hint


def test_a_loss_that_is_a_number_does_not():
    assert failures.diverged("loss", 3.2, 7) is None


def redactor(**environment: str) -> Redactor:
    run = resolved(
        environment={"secrets": ("LISTED",)},
        worker_env={"SHOWN_TOKEN": "shown-value"},
        pip_index_url="https://me:index-password@index.invalid/simple",
    )
    return Redactor.of(run, environment, ("storage-secret",))


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
        ("a header", {}, "Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
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


def test_messages_keep_within_the_kubelets_limit():
    assert len(failures.shortened("x" * 5000)) == 1024
    assert failures.shortened("short") == "short"
