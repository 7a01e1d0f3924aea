"""What the measurements on a GPU compute with: shapes, floating point operations, the report.

Nothing here needs PyTorch.

The operations of a trained token are counted as in PaLM (Chowdhery et al. 2022, appendix B,
arXiv:2204.02311): a matrix of N weights costs 2N in the forward pass, and as much in the backward
pass for each of the gradients of its input and of its weights. Full fine-tuning is 6N. With LoRA,
frozen matrices have no gradient of their weights: 4N, and 6 for each weight of the adapter. N are
the weights of the matrices that a token is multiplied with: those of the layers, and the output
layer (also where it is tied to the embedding), without the embedding, which is only looked up.

Attention is added in two ways. ``published`` is 12 x layers x hidden size x sequence, as prime-rl
counts it: not halved for causality, and with the hidden size where heads x head size would be
right. ``causal`` is 6 x layers x heads x head size x sequence: what a causal kernel has to compute.
Recomputation (gradient checkpointing) counts in neither.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Shape(NamedTuple):
    """The shape of a Qwen3 model, without weights."""

    hidden: int
    mlp: int
    layers: int
    heads: int
    key_heads: int
    head: int
    """Size of a head."""
    vocabulary: int
    tied: bool = True

    @property
    def config(self) -> dict[str, Any]:
        """The arguments of ``Qwen3Config``."""
        return {
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": self.head,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": 40960,
            "rope_theta": 1e6,
            "rms_norm_eps": 1e-6,
        }

    @property
    def projections(self) -> list[tuple[int, int]]:
        """Inputs and outputs of the matrices of a layer: q, k, v, o, gate, up, down."""
        query, key = self.heads * self.head, self.key_heads * self.head
        return [
            *((self.hidden, size) for size in (query, key, key)),
            (query, self.hidden),
            *[(self.hidden, self.mlp)] * 2,
            (self.mlp, self.hidden),
        ]

    @property
    def multiplied_weights(self) -> int:
        """The weights that a token is multiplied with."""
        of_layer = sum(inputs * outputs for inputs, outputs in self.projections)
        return self.layers * of_layer + self.vocabulary * self.hidden

    def adapter_weights(self, rank: int) -> int:
        """The weights of a LoRA adapter on all projections."""
        return self.layers * rank * sum(map(sum, self.projections))


# The configs that Qwen publishes for these models.
SHAPES: dict[str, Shape] = {
    "tiny": Shape(64, 128, 2, 4, 2, 16, 512),
    "0.6b": Shape(1024, 3072, 28, 16, 8, 128, 151_936),
    "4b": Shape(2560, 9728, 36, 32, 8, 128, 151_936),
}
RANK = 16


class Data(NamedTuple):
    """The examples of a step."""

    examples: int
    shortest: int
    longest: int
    """Lengths are spread evenly over the logarithms of these two."""
    micro_batches: int
    """Of a step of the plain script: as few as leave each at most 16,384 tokens with padding."""


DATA: dict[str, Data] = {
    "one": Data(1, 16_384, 16_384, 1),
    "mixed": Data(28, 64, 2048, 4),
}
TINY_DATA: dict[str, Data] = {"one": Data(1, 256, 256, 1), "mixed": Data(8, 4, 64, 2)}


def lengths(data: Data, steps: int, seed: int = 7) -> list[int]:
    """Return the lengths of the examples of ``steps`` steps, the same on every machine."""
    import random

    dice = random.Random(seed)
    ratio = data.longest / data.shortest
    return [round(data.shortest * ratio ** dice.random()) for _ in range(steps * data.examples)]


def lora_flops(shape: Shape, rank: int) -> int:
    """Return the operations of a token without attention, when a LoRA adapter is trained."""
    return 4 * shape.multiplied_weights + 6 * shape.adapter_weights(rank)


def full_flops(shape: Shape) -> int:
    """Return the operations of a token without attention, when all weights are trained."""
    return 6 * shape.multiplied_weights


def attention_flops(shape: Shape, examples: Sequence[int], *, published: bool) -> int:
    """Return the operations of attention for examples of these lengths."""
    squares = sum(length * length for length in examples)
    if published:
        return 12 * shape.layers * shape.hidden * squares
    return 6 * shape.layers * shape.heads * shape.head * squares


# Dense bf16 operations a second, from NVIDIA's data sheets (sparsity left out). The first part of
# a device's name that matches counts.
_PEAKS = (
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("B200", 2250e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
)


def peak_flops(device: str) -> float | None:
    """Return the most bf16 operations a second of a device; None when it is not known here."""
    return next((peak for name, peak in _PEAKS if name in device), None)


PUBLISHED: Mapping[str, Any] = {
    "program": "prime-rl",
    "setting": "1x H100, Qwen3-4B, LoRA rank 16, 16,384 tokens",
    "device": "H100",
    "shape": "4b",
    "data": "one",
    "tokens_per_second": 6229,
    "mfu": 0.217,
    "peak_memory_gib": 23.3,
}
"""A figure that another project has published. Only on the same device it can be compared."""


class Measured(NamedTuple):
    """What one side printed."""

    shape: str
    data: str
    side: str
    device: str
    tokens: int
    """Tokens of the measured steps, padding left out."""
    seconds: float
    steps: int
    examples: list[int]
    """Lengths of the examples of the measured steps."""
    peak_memory: int | None
    """Bytes that PyTorch had allocated on the GPU at most."""
    first_loss: float
    last_loss: float
    settings: dict[str, Any]


def row(measured: Measured) -> dict[str, Any]:
    """Return the figures of a measurement as the report has them."""
    shape, peak = SHAPES[measured.shape], peak_flops(measured.device)

    def mfu(per_token: int, *, published: bool) -> float | None:
        attention = attention_flops(shape, measured.examples, published=published)
        done = per_token * measured.tokens + attention
        return None if peak is None else round(done / measured.seconds / peak, 4)

    memory = measured.peak_memory
    return {
        "shape": measured.shape,
        "data": measured.data,
        "side": measured.side,
        "tokens_per_second": round(measured.tokens / measured.seconds, 1),
        "mfu_lora_published": mfu(lora_flops(shape, RANK), published=True),
        "mfu_lora_causal": mfu(lora_flops(shape, RANK), published=False),
        "mfu_as_if_full": mfu(full_flops(shape), published=True),
        "peak_memory_gib": None if memory is None else round(memory / 2**30, 2),
        "steps": measured.steps,
        "seconds": round(measured.seconds, 3),
        "tokens": measured.tokens,
        "first_loss": measured.first_loss,
        "last_loss": measured.last_loss,
        "settings": measured.settings,
    }


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return our speed as a multiple of each other side's, the median over the pairs."""
    import statistics

    found = []
    keys = dict.fromkeys((row["shape"], row["data"]) for row in rows)
    for shape, data in keys:
        by_side: dict[str, list[float]] = {}
        for one in rows:
            if (one["shape"], one["data"]) == (shape, data):
                by_side.setdefault(one["side"], []).append(one["tokens_per_second"])
        ours = by_side.pop("flashrun", [])
        for side, theirs in by_side.items():
            if pairs := [a / b for a, b in zip(ours, theirs, strict=False)]:
                found.append(
                    {
                        "shape": shape,
                        "data": data,
                        "beside": side,
                        "pairs": len(pairs),
                        "speed": round(statistics.median(pairs), 3),
                    }
                )
    return found


def table(report: Mapping[str, Any]) -> str:
    """Return the report as text."""
    head = ("shape", "data", "side", "tokens/s", "MFU", "causal", "GiB", "steps")
    lines = [head]
    for one in report["rows"]:
        shares = (one["mfu_lora_published"], one["mfu_lora_causal"])
        memory = one["peak_memory_gib"]
        lines.append(
            (
                *(one[name] for name in ("shape", "data", "side")),
                f"{one['tokens_per_second']:,.0f}",
                *("-" if share is None else f"{share:.1%}" for share in shares),
                "-" if memory is None else f"{memory:.1f}",
                str(one["steps"]),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in lines]
    text += [
        f"{one['shape']} {one['data']}: {one['speed']}x of {one['beside']} ({one['pairs']} pairs)"
        for one in report["ratios"]
    ]
    published = report["published"]
    text.append(
        f"{published['program']} publishes for {published['setting']}: "
        f"{published['tokens_per_second']:,} tokens/s, MFU {published['mfu']:.1%}, "
        f"{published['peak_memory_gib']} GiB"
        + (
            f"; ours there is {published['speed_of_ours']}x"
            if published["speed_of_ours"]
            else "; this is another device or was not measured here, so no ratio"
        )
    )
    text += report["notes"]
    text.append(", ".join(f"{name} {value}" for name, value in report["versions"].items()))
    return "\n".join(text)


def report(
    measured: Sequence[Measured], notes: Sequence[str], versions: Mapping[str, str], device: str
) -> dict[str, Any]:
    """Return everything as the JSON file has it."""
    rows = [row(one) for one in measured]
    where = {name: PUBLISHED[name] for name in ("shape", "data")} | {"side": "flashrun"}
    same = [one for one in rows if where.items() <= one.items()]
    ours = same[0]["tokens_per_second"] / PUBLISHED["tokens_per_second"] if same else None
    comparable = ours is not None and PUBLISHED["device"] in device
    return {
        "device": device,
        "versions": dict(versions),
        "rows": rows,
        "ratios": ratios(rows),
        "published": {**PUBLISHED, "speed_of_ours": round(ours, 3) if comparable else None},
        "notes": list(notes),
    }
