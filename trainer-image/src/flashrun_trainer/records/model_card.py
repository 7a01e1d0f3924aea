"""The files beside a final adapter: a model card, the resolved spec, the list of packages."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flashrun.api import adapter_use
from flashrun.api.records import Progress, ResolvedRun
from flashrun_trainer.data.environment import Environment
from flashrun_trainer.pod.image_packages import installed_pins

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
        loading=adapter_use.loading_code(config, run.model),
        serving=adapter_use.serving_commands(config, run.run.name, run.model.id),
        metrics=_rows({name: f"{value:.4g}" for name, value in metrics.items()}),
    )
    (folder / "README.md").write_text(text)
    (folder / "run.json").write_text(run.model_dump_json(indent=2))
    (folder / "packages.txt").write_text("".join(f"{pin}\n" for pin in installed_pins()))


def _rows(table: Mapping[str, Any]) -> str:
    """Return the rows of a table, with bars escaped: a bar in a text would end its cell."""
    cells = ([str(cell).replace("|", r"\|") for cell in pair] for pair in table.items())
    return "\n".join(f"| {name} | {value} |" for name, value in cells)


def rank_and_alpha(folder: Path) -> tuple[int, int]:
    """Return rank and alpha of the adapter in ``folder``."""
    config = json.loads((folder / "adapter_config.json").read_text())
    return int(config["r"]), int(config["lora_alpha"])
