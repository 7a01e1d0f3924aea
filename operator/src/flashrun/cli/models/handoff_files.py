"""What goes with an adapter that leaves the platform: model card, note on licences, digests."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from flashrun.api import adapter_use
from flashrun.api.catalog import Source
from flashrun.api.records import Manifest, ResolvedRun
from flashrun.cli.models.model_folder import read_weights_header
from flashrun.cli.output.failure import Failure
from flashrun.plan.evaluation_status import score_text

DIGESTS: Final = "SHA256SUMS"
"""Lists the SHA-256 of every other file, as ``sha256sum --check`` reads it."""
LICENCE_NOTE: Final = "LICENSE-NOTE.md"
_CARD: Final = "README.md"
_TRAINERS_CARD: Final = "TRAINING.md"
_WEIGHTS: Final = "adapter_model.safetensors"
_CHUNK: Final = 1024 * 1024


class MergedModel(NamedTuple):
    """What the check of a merged model has measured."""

    tokens: int
    same: int
    difference: float
    dtype: str


class HandOff(NamedTuple):
    """What is handed over: an adapter of a run, perhaps merged into its base model."""

    ref: str
    run: ResolvedRun
    manifest: Manifest
    licence: str | None = None
    """Identifier of the licence under which it is passed on; None: not chosen."""
    merged: MergedModel | None = None
    """None for an adapter."""
    gguf: bool = False


def check_adapter(folder: Path) -> dict[str, Any]:
    """Return the config of the adapter in ``folder``, whose weights have to fit it.

    Raises:
        Failure: PEFT could not load it.
    """
    try:
        config = json.loads((folder / adapter_use.CONFIG_FILE).read_bytes())
        header = read_weights_header(folder / _WEIGHTS)
    except RecursionError:
        raise Failure("the adapter is not one of PEFT's: its config nests too deep") from None
    except (OSError, ValueError) as error:
        raise Failure(f"the adapter is not one of PEFT's: {error}") from None
    if not adapter_use.is_lora_config(config):
        raise Failure(
            f"the adapter is not one of PEFT's: {adapter_use.CONFIG_FILE} does not describe a LoRA"
        )
    first, second = (_layers(header.tensors, side) for side in (".lora_A.", ".lora_B."))
    if not first or first != second:
        raise Failure(
            "the adapter is not one of PEFT's: its weights are not pairs of lora_A and lora_B"
        )
    return dict(config)


def _layers(tensors: Iterable[str], side: str) -> set[str]:
    """Return the names of the layers that have a tensor of this side."""
    return {name.partition(side)[0] for name in tensors if side in name}


def write_handoff_files(folder: Path, config: dict[str, Any], given: HandOff) -> str:
    """Write card, note and digests beside the files in ``folder``; return the digest of all."""
    card = folder / _CARD
    if card.exists():  # of the trainer: it has the settings of training
        card.rename(folder / _TRAINERS_CARD)
    card.write_text(_card_text(config, given), encoding="utf-8")
    (folder / LICENCE_NOTE).write_text(_licence_text(given), encoding="utf-8")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    text = "".join(lines)
    (folder / DIGESTS).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _card_text(config: dict[str, Any], given: HandOff) -> str:
    run, model = given.run, given.run.model
    library, relation = ("peft", "adapter") if given.merged is None else ("transformers", "merge")
    if given.gguf:
        library, relation = "gguf", "quantized"
    metadata = {
        "base_model": model.id,
        "base_model_relation": relation,
        "library_name": library,
        **({"license": given.licence} if given.licence else {}),
        "pipeline_tag": "text-generation",
        "tags": ["lora", run.algorithm.value, "flashrun"],
    }
    what = "A LoRA adapter for" if given.merged is None else "A LoRA adapter that is merged into"
    step = given.manifest.step
    score = given.manifest.evaluation
    facts = {
        "run": f"{run.run.name} ({run.run.uid})",
        "step": step if step is not None else "the last one",
        "method": run.algorithm.upper(),
        "environment": f"{run.environment.id}, SHA-256 of its package {run.environment.digest}",
        "rank, alpha": f"{config.get('r')}, {config.get('lora_alpha')}",
        "thinking": run.thinking,
        **({score.metric: score_text(score.score)} if score is not None else {}),
        **({"check": _check_sentence(given.merged)} if given.merged is not None else {}),
    }
    head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in metadata.items())
    rows = "".join(f"| {key} | {str(value).replace('|', '')} |\n" for key, value in facts.items())
    return (
        f"---\n{head}---\n# {given.ref}\n\n{what} {model.id} (revision {model.revision}), trained "
        f"with FlashRun.\n\n## Use\n\nIn the folder of this file:\n\n{_use(config, given)}\n\n"
        f"## Training\n\n| what | value |\n|---|---|\n{rows}\n"
        f"`{LICENCE_NOTE}` says under which terms this may be used. `sha256sum --check {DIGESTS}` "
        "compares every file with what was exported.\n"
    )


def _use(config: dict[str, Any], given: HandOff) -> str:
    if given.gguf:
        return "```sh\nllama-cli -m model.gguf\n```"
    if given.merged is not None:
        kind = (config.get("auto_mapping") or {}).get("base_model_class", "AutoModelForCausalLM")
        imports = ", ".join(sorted((kind, "AutoTokenizer")))
        return (
            f"```python\nfrom transformers import {imports}\n\n"
            f'model = {kind}.from_pretrained(".")\n'
            'tokenizer = AutoTokenizer.from_pretrained(".")\n```'
        )
    loading = adapter_use.loading_code(config, given.run.model)
    name = given.ref.replace("/", "-")
    serving = adapter_use.serving_commands(config, name, given.run.model.id)
    return f"```python\n{loading}\n```\n\n```sh\n{serving}\n```"


def _check_sentence(check: MergedModel) -> str:
    return (
        f"loaded from these weights ({check.dtype}): {check.same} of {check.tokens} greedy tokens "
        f"as with PEFT, log-probabilities within {check.difference:.3g}"
    )


def _licence_text(given: HandOff) -> str:
    model = given.run.model
    what = "This adapter changes" if given.merged is None else "These weights contain those of"
    where = (
        f"its page on the model hub, {model.id}, at revision {model.revision}"
        if model.source is Source.HUB
        else f"whoever put {model.id}, revision {model.revision}, into the platform's mirror"
    )
    chosen = (
        f"Whoever exported it chose `{given.licence}` for it."
        if given.licence
        else "Whoever exported it chose no licence for it (`flash export --license`)."
    )
    return (
        f"# Licences\n\n{what} {model.id}, and the terms of that model hold for it: read them at "
        f"{where}. The platform does not know these terms, nor those of the rows of "
        f"{given.run.environment.id} that it was trained on.\n\n{chosen}\n"
    )
