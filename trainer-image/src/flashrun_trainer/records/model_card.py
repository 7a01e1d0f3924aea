"""The files beside a final adapter: a model card, the resolved spec, the list of packages."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flashrun.api.catalog import Source
from flashrun.api.records import Progress, ResolvedRun
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.pod.image_packages import installed_pins

_VLLM_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's ``--max-lora-rank``."""
_NOT_IN_SGLANG: Final = frozenset({"in_proj_qkv"})
"""Layers whose weights SGLang does not join with those of the layers it has fused them with."""
_CARD = """\
---
base_model: {base_model}
library_name: peft
pipeline_tag: text-generation
tags: [lora, {algorithm}, flashrun]
---
# {name}

A LoRA adapter for {base_model} (revision {revision}), trained with {method} for {steps} steps on
environment {environment}.

## Use

In the folder of this file, with PEFT:

```python
{loading}
```

`AutoPeftModelForCausalLM.from_pretrained(".")` does the same if the base model is on the hub.
With a server:

```sh
{serving}
```

## Training

| input | value |
|---|---|
{sources}

| setting | value |
|---|---|
{settings}

| metric of the last step | value |
|---|---|
{metrics}

`run.json` is the resolved spec of the run, `packages.txt` lists the trainer's packages.
"""


def write_model_card(
    folder: Path, run: ResolvedRun, steps: int, progress: Progress | None, data: Environment
) -> None:
    """Write the model card, the spec and the list of packages to ``folder``."""
    config = json.loads((folder / "adapter_config.json").read_text())
    settings = run.train.model_dump(mode="json")
    sources = {
        "environment package, SHA-256": run.environment.digest,
        f"examples of split {run.environment.split}": len(data.examples),
        "examples, SHA-256": data.digest,
        "adapter at the start": run.init_from_adapter.ref if run.init_from_adapter else "fresh",
        "thinking": run.thinking,
        "seed": run.seed,
        "trainer image": run.image or "not known",
        "Python": platform.python_version(),
    }
    metrics = progress.metrics if progress else {}
    text = _CARD.format(
        base_model=run.model.id,
        revision=run.model.revision,
        algorithm=run.algorithm.value,
        name=run.run.name,
        method=run.algorithm.upper(),
        steps=steps,
        environment=run.environment.id,
        sources=_rows(sources),
        settings=_rows(settings),
        loading=_loading_code(config, run),
        serving=_serving_commands(config, run),
        metrics=_rows({name: f"{value:.4g}" for name, value in metrics.items()}),
    )
    (folder / "README.md").write_text(text)
    (folder / "run.json").write_text(run.model_dump_json(indent=2))
    (folder / "packages.txt").write_text("".join(f"{pin}\n" for pin in installed_pins()))


def _loading_code(config: Mapping[str, Any], run: ResolvedRun) -> str:
    """Return code that loads the base model as the class that was trained, and the adapter."""
    kind = (config.get("auto_mapping") or {}).get("base_model_class", "AutoModelForCausalLM")
    imports = ", ".join(sorted((kind, "AutoTokenizer")))
    if run.model.source is Source.HUB:
        base = f'base, revision = "{run.model.id}", "{run.model.revision}"'
        arguments = "base, revision=revision"
    else:
        base = f'base = "{run.model.id}"  # its folder'
        arguments = "base"
    return f"""\
from peft import PeftModel
from transformers import {imports}

{base}
model = {kind}.from_pretrained({arguments})
model = PeftModel.from_pretrained(model, ".")
tokenizer = AutoTokenizer.from_pretrained({arguments})"""


def _serving_commands(config: Mapping[str, Any], run: ResolvedRun) -> str:
    """Return the commands of the servers that take this adapter (``docs/adapters.md``)."""
    name, base = run.run.name, run.model.id
    commands = []
    if most := next((most for most in _VLLM_RANKS if most >= config["r"]), None):
        vllm = f"vllm serve {base} --enable-lora --max-lora-rank {most} --lora-modules {name}=."
        commands.append(vllm)
    if not _NOT_IN_SGLANG.intersection(config["target_modules"]):
        commands.append(
            f"python -m sglang.launch_server --model-path {base} --enable-lora "
            f"--lora-paths {name}=."
        )
    return "\n".join(commands) or "# no server that we know takes it; merge it with PEFT"


def _rows(table: Mapping[str, Any]) -> str:
    """Return the rows of a table, with bars escaped: a bar in a text would end its cell."""
    cells = ([str(cell).replace("|", r"\|") for cell in pair] for pair in table.items())
    return "\n".join(f"| {name} | {value} |" for name, value in cells)


def rank_and_alpha(folder: Path) -> tuple[int, int]:
    """Return rank and alpha of the adapter in ``folder``."""
    config = json.loads((folder / "adapter_config.json").read_text())
    return int(config["r"]), int(config["lora_alpha"])
