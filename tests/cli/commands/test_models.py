"""``flash models``: the base models, and the GPUs that runs of them get."""

import json

from flashrun.api.catalog import Catalog
from flashrun.api.config import Algorithm
from flashrun.api.public import PublicPool
from flashrun.cli.commands import models
from flashrun.cli.output.tables import Cell, Tone
from tests.cli.shell import Served

POOLS = (
    PublicPool(name="l40s", vram=48, gpus_per_node=8),
    PublicPool(name="h100", vram=80, gpus_per_node=2, cost=4),
)


def test_models_say_which_pool_a_run_would_get_and_how_many_of_its_gpus() -> None:
    places = {
        row[0].text: [cell.text for cell in row[-2:]]
        for row in models.models_table(list(Catalog()), POOLS).rows
    }

    assert places["Qwen/Qwen3.5-4B"] == ["1 x l40s (32 GiB)", "1 x l40s (32 GiB)"]
    assert places["Qwen/Qwen3.5-9B"] == ["1 x l40s (48 GiB)", "2 x l40s (80 GiB)"]


def test_a_model_that_no_pool_can_take_says_so() -> None:
    pool = PublicPool(name="l40s", vram=48)
    cells = {row[0].text: row[-1] for row in models.models_table(list(Catalog()), (pool,)).rows}

    assert cells["Qwen/Qwen3.6-35B-A3B"] == Cell("no pool (180 GiB)", Tone.BAD)


def test_without_pools_models_say_what_they_need() -> None:
    row = next(row for row in models.models_table(list(Catalog()), ()).rows if "9B" in row[0].text)

    assert [cell.text for cell in row] == [
        "Qwen/Qwen3.5-9B", "9.7B", "hybrid", "64", "8192", "48 GiB", "80 GiB",
    ]  # fmt: skip


def test_models_tell_programs_where_a_run_would_go(served: Served) -> None:
    models = {
        model["id"]: model["places"]
        for model in json.loads(served.flash("models", "-o", "json").stdout)
    }

    assert models["Qwen/Qwen3.5-9B"]["grpo"] == {"pool": "h100", "gpus": 1, "nodes": 1}
    assert models["Qwen/Qwen3.6-35B-A3B"] == dict.fromkeys(map(str, Algorithm))


def test_models_are_the_platforms_and_known_offline_afterwards(served: Served) -> None:
    online = served.flash("models").stdout

    fits = "1 x h100 (48 GiB)\t1 x h100 (80 GiB)"
    assert f"Qwen/Qwen3.5-9B\t9.7B\thybrid\t64\t8192\t{fits}" in online.splitlines()
    assert served.flash("models", "--offline").stdout == online
