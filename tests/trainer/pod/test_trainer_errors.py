"""Exceptions become one code, one reason, one sentence and a hint."""

from pathlib import Path

import pytest

from flashrun.api.exits import Exit, Termination
from flashrun.store_errors import Corrupt, StorageForbidden, Unavailable
from flashrun_trainer.pod import trainer_errors
from flashrun_trainer.pod.trainer_errors import InterruptedBeforeTraining, TrainerError


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
        (MemoryError(), 68, "OutOfMemory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 68, "OutOfMemory"),
        (OSError(12, "Cannot allocate memory"), 68, "OutOfMemory"),
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


def test_the_length_that_vllm_has_measured_is_the_hint():
    end = trainer_errors.classify(
        ValueError(
            "4.50 GiB is larger than the available KV cache memory (1.30 GiB): the estimated "
            "maximum model length is 9456."
        )
    )
    assert end.code == Exit.CUDA_OUT_OF_MEMORY
    assert "set train.max_length to 9456" in end.hint


def test_an_error_from_the_environments_code_is_an_environment_failure(tmp_path: Path):
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
def test_a_loss_that_is_not_finite_ends_the_run(value: float):
    end = trainer_errors.divergence_error("loss", value, 7)
    assert end is not None
    assert (end.code, end.reason) == (Exit.DIVERGED, "Diverged")
    assert "step 7" in end.message
    assert "train.learning_rate" in end.hint


def test_a_finite_loss_is_no_divergence():
    assert trainer_errors.divergence_error("loss", 3.2, 7) is None


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
    least = 1900 if letter.isprintable() else 100  # control characters are left out
    assert least < len(ending.model_dump_json().encode()) <= 4096
    assert trainer_errors.shorten("short") == "short"
