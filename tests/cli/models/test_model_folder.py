"""Reading a folder of a model: headers of weights, JSON, and what is broken."""

import json
from pathlib import Path

import pytest

from flashrun.cli.models.model_folder import read_model_folder, read_weights_header
from flashrun.plan.model_check import WeightsFile, check_model
from tests.cli.models.models import weights, write_model


def test_a_folder_is_read_with_headers_and_without_what_lies_below_it(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"")
    found = read_model_folder(folder)

    assert "model.onnx" not in found.sizes
    assert found.weights == {"model.safetensors": WeightsFile(frozenset({"a", "b"}), 12)}
    assert found.documents["config.json"]["architectures"] == ["LlamaForCausalLM"]
    assert check_model(found).problems == ()


def test_links_to_files_count_as_files_as_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    blobs, snapshot = write_model(tmp_path / "blobs"), tmp_path / "snapshot"
    snapshot.mkdir()
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)

    assert check_model(read_model_folder(snapshot)).problems == ()


WHOLE = weights("a", "b")
BROKEN = {
    "an empty file": (b"", "is not a safetensors file, or was cut off in its header"),
    "a cut header": (WHOLE[:20], "is not a safetensors file, or was cut off in its header"),
    "a cut tensor": (WHOLE[:-1], "it was not copied as a whole"),
    "bytes behind the tensors": (WHOLE + b"x", "it was not copied as a whole"),
    "a pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00" + b"\x00" * 64, "is not a safetensors file"),
    "a zip of PyTorch": (b"PK\x03\x04" + b"\x00" * 64, "is not a safetensors file"),
    "a header that is no JSON": (b"\x04" + b"\x00" * 7 + b"nope", "its header is not JSON"),
    "a header without places": (
        b"\x0c" + b"\x00" * 7 + b'{"a": {}}   ',
        "its header lists no tensors",
    ),
}


@pytest.mark.parametrize(("data", "problem"), BROKEN.values(), ids=BROKEN.keys())
def test_weights_that_are_not_whole_are_refused(tmp_path: Path, data: bytes, problem: str) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=problem):
        read_weights_header(file)


def test_a_broken_file_is_a_problem_of_the_folder(tmp_path: Path) -> None:
    folder = write_model(
        tmp_path, config__json=b"{", model__safetensors=WHOLE[:-1], tokenizer__json=b"[" * 100_000
    )
    problems = check_model(read_model_folder(folder)).problems

    assert [problem.split()[0] for problem in problems] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert "is not valid JSON" in problems[0]


def test_tensors_are_counted_without_reading_them(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [3, 5], "data_offsets": [0, 60]}}).encode()
    file = tmp_path / "w.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\x00" * 60)

    assert read_weights_header(file).parameters == 15
