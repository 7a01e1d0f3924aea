"""What the measurements on a GPU compute with, in ``bench/gpu``, without a GPU and PyTorch."""

import json
import sys
from types import SimpleNamespace

import pytest

from bench.gpu import figures, measure, pack
from bench.gpu.figures import DATA, RANK, SHAPES, Measured, Shape

MEASURED = Measured(
    shape="4b", data="one", side="flashrun", device="NVIDIA H100 80GB HBM3", tokens=16_384 * 10,
    seconds=20.0, steps=10, examples=[16_384] * 10, peak_memory=24 * 2**30, first_loss=12.0,
    last_loss=11.9, settings={},
)  # fmt: skip


def test_the_operations_of_a_token_are_those_counted_by_hand():
    # q 4x8, k and v 4x4 each, o 8x4, gate and up 4x6 each, down 6x4; output layer 10x4.
    small = Shape(hidden=4, mlp=6, layers=2, heads=2, key_heads=1, head=4, vocabulary=10)
    weights = 2 * (32 + 16 + 16 + 32 + 24 + 24 + 24) + 40
    assert small.multiplied_weights == weights == 376
    # Rank 3: inputs and outputs of each matrix.
    adapter = 2 * 3 * (12 + 8 + 8 + 12 + 10 + 10 + 10)
    assert small.adapter_weights(3) == adapter == 420
    assert figures.lora_flops(small, 3) == 4 * 376 + 6 * 420
    assert figures.full_flops(small) == 6 * 376
    # Two examples of 5 and 3 tokens see only themselves: 25 + 9.
    assert figures.attention_flops(small, [5, 3], published=True) == 12 * 2 * 4 * 34
    assert figures.attention_flops(small, [5, 3], published=False) == 6 * 2 * 2 * 4 * 34


def test_the_shapes_have_the_weights_of_the_published_models_and_their_figure_its_mfu():
    # Qwen3-0.6B and 4B have 0.596 and 4.02 billion weights, the tied embedding counted once.
    assert SHAPES["0.6b"].multiplied_weights == pytest.approx(0.596e9, rel=1e-3)
    assert SHAPES["4b"].multiplied_weights == pytest.approx(4.022e9, rel=1e-3)
    shape, length = SHAPES["4b"], DATA["one"].longest
    attention = figures.attention_flops(shape, [length], published=True) / length
    per_token = figures.lora_flops(shape, RANK) + attention
    peak = figures.peak_flops("NVIDIA H100 80GB HBM3")
    assert peak is not None
    assert figures.PUBLISHED["tokens_per_second"] * per_token / peak == pytest.approx(
        figures.PUBLISHED["mfu"], abs=5e-4
    )


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("CPU", None),
    ],
)
def test_a_device_has_its_peak_and_an_unknown_one_none(device, peak):
    assert figures.peak_flops(device) == peak


@pytest.mark.parametrize(
    ("device", "share"), [("NVIDIA H100 80GB HBM3", 1.315), ("NVIDIA H200", None), ("CPU", None)]
)
def test_a_published_figure_is_a_ratio_only_on_the_same_device(device, share):
    measured = MEASURED._replace(device=device)
    slower = measured._replace(side="plain", seconds=25.0)
    made = figures.report([measured, slower], ["flags: none"], {"Python": "3.12.1"}, device)
    assert json.loads(json.dumps(made)) == made
    assert made["published"]["speed_of_ours"] == share
    assert made["rows"][0]["tokens_per_second"] == 8192.0
    assert made["rows"][0]["peak_memory_gib"] == 24.0
    assert (made["rows"][0]["mfu_lora_published"] is None) == (device == "CPU")
    assert made["ratios"] == [
        {"shape": "4b", "data": "one", "beside": "plain", "pairs": 1, "speed": 1.25}
    ]
    text = figures.table(made)
    assert "4b one: 1.25x of plain (1 pairs)" in text
    assert "1x H100, Qwen3-4B, LoRA rank 16, 16,384 tokens" in text
    assert "flags: none" in text
    assert "Python 3.12.1" in text


def test_the_plain_script_has_micro_batches_that_fit():
    for data in DATA.values():
        rows, rest = divmod(data.examples, data.micro_batches)
        assert not rest
        assert rows * data.longest <= 16_384
        steps = figures.lengths(data, steps=50)
        assert len(steps) == 50 * data.examples
        assert min(steps) >= data.shortest
        assert max(steps) <= data.longest
        assert sum(steps) / 50 == pytest.approx(16_384, rel=0.05)


def test_sides_take_turns_and_what_is_wanted_most_comes_first():
    planned = [tuple(task) for task in measure.tasks(["0.6b", "4b"], rounds=2)]
    assert planned[:4] == [
        ("0.6b", "one", "flashrun"), ("0.6b", "one", "plain"),
        ("4b", "one", "flashrun"), ("4b", "one", "plain"),
    ]  # fmt: skip
    assert planned[10:12] == [("0.6b", "one", "plain"), ("0.6b", "one", "flashrun")]
    assert len(planned) == 20


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--shape", "7b"], "--shape 7b: choose among tiny, 0.6b, 4b"),
        (["--device", "cpu"], "only --shape tiny is small enough for a CPU"),
        (["--minutes", "0"], "--minutes and --rounds must be above 0"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_sentence(words, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        measure.main(words)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


WITHOUT_GPU = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))


@pytest.mark.parametrize(
    ("torch", "sentence"),
    [
        (None, "stopped: PyTorch is not installed: pack it"),  # an import of None raises
        (WITHOUT_GPU, "sees no NVIDIA GPU"),
    ],
)
def test_a_machine_without_a_gpu_is_refused_in_a_sentence(
    torch, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert measure.main(["--out", str(tmp_path / "results")]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_a_measurement_without_a_figure_says_why_and_the_others_go_on(
    monkeypatch, tmp_path, capsys
):
    answers = {"flashrun": "4b one flashrun: failed with exit code 1: CUDA out of memory"}
    plain = MEASURED._replace(side="plain")
    monkeypatch.setattr(measure, "device_problem", lambda _: "")
    monkeypatch.setattr(measure, "versions", lambda: {"Python": "3.12.1"})
    monkeypatch.setattr(measure, "measure", lambda task, *_: answers.get(task.side, plain))
    assert measure.main(["--shape", "4b", "--rounds", "1", "--out", str(tmp_path)]) == 0
    made = json.loads((tmp_path / "report.json").read_text())
    assert [row["side"] for row in made["rows"]] == ["plain"] * 3
    assert answers["flashrun"] in made["notes"]
    assert answers["flashrun"] in (tmp_path / "report.txt").read_text()
    # Without time, nothing begins.
    assert measure.main(["--shape", "4b", "--minutes", "0.1", "--out", str(tmp_path)]) == 1
    late = "the time was over before: 4b one flashrun"
    assert late in capsys.readouterr().out
    assert late in (tmp_path / "report.txt").read_text()


def test_packages_that_the_machine_has_are_left_out_of_the_lock():
    lock = pack.LOCK.read_text()
    kept = pack.requirements(lock, ["accelerate", "numpy"])
    assert "transformers==" in kept
    assert "--hash=sha256:" in kept
    assert not any(line.startswith(("accelerate==", "numpy==")) for line in kept.splitlines())
    with pytest.raises(ValueError, match=r"nothing: not in trainer-image/requirements\.txt"):
        pack.requirements(lock, ["nothing"])
