"""The adapter that a run starts from: it is found, and it is refused when it does not fit."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.records import FileEntry, Manifest, RunIdentity
from tests.cli.shell import WARM_START, Served, ask_server

MODEL = "Qwen/Qwen3.5-4B"
NOW = datetime.now(UTC)


def commit(
    served: Served, name: str, uid: str = "uid-1", step: int | None = None, **changes: Any
) -> str:
    """Commit an adapter as its run would; returns the prefix."""
    namespace = changes.pop("namespace", served.namespace)
    home = names.run_prefix(namespace, name, uid)
    prefix = names.adapter_prefix(home) if step is None else names.step_prefix(home, 1, step)
    served.store.put_bytes(f"{prefix}adapter_model.safetensors", b"weights")
    file = FileEntry(path="adapter_model.safetensors", size=7, sha256="0" * 64)
    manifest = Manifest(
        kind="adapter" if step is None else "checkpoint",
        run=RunIdentity(namespace=namespace, name=name, uid=uid),
        attempt=None if step is None else 1,
        step=step,
        base_model=MODEL,
        lora_rank=16,
        lora_alpha=32,
        created=NOW,
        files=(file,),
    ).model_copy(update=changes)
    served.store.put_json(prefix + names.MANIFEST, manifest)
    return prefix


def test_rank_and_alpha_come_from_the_adapter(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", WARM_START)
    commit(served, "flash-1-a", step=50)
    found = ask_server(served, "--set", "train.init_from_adapter=flash-1-a/step-50")

    assert found["problems"] == []
    assert found["server"]["adapter"] == {"usable": True, "rank": 16, "alpha": 32}


def test_the_newest_run_of_a_name_counts_also_when_its_object_is_gone(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", WARM_START)
    commit(served, "flash-1-a", "uid-1", created=NOW - timedelta(days=1), lora_rank=8)
    commit(served, "flash-1-a", "uid-2")

    found = ask_server(served, "--set", "train.init_from_adapter=flash-1-a")
    assert found["server"]["adapter"]["rank"] == 16
    assert served.submit("--set", "train.init_from_adapter=flash-1-a")


def uncommitted(served: Served) -> None:
    commit(served, "flash-1-a", step=10)
    prefix = names.step_prefix(names.run_prefix(served.namespace, "flash-1-a", "uid-1"), 1, 20)
    served.store.put_bytes(f"{prefix}adapter_model.safetensors", b"weights")


def incomplete(served: Served) -> None:
    prefix = commit(served, "flash-1-a", step=20)
    served.store.delete([f"{prefix}adapter_model.safetensors"])


REFUSED = {
    "a run that never was": (lambda served: None, "flash-0-b", "there is no run flash-0-b"),
    "a step that is not committed": (
        uncommitted,
        "flash-1-a/step-20",
        "flash-1-a/step-20 is not committed (the run is deleted): use one of flash-1-a/step-10",
    ),
    "a step whose files are gone": (incomplete, "flash-1-a/step-20", "is not committed"),
    "a run that has not finished": (
        lambda served: commit(served, "flash-1-a", step=10),
        "flash-1-a",
        "run flash-1-a has no final adapter (it is deleted): use one of flash-1-a/step-10",
    ),
    "a run of another namespace": (
        lambda served: commit(served, "flash-1-a", namespace="elsewhere"),
        "flash-1-a",
        "adapters of another namespace cannot be used",
    ),
    "a manifest that is another run's": (
        lambda served: commit(
            served, "flash-1-a", run=RunIdentity(namespace="x", name="y", uid="z")
        ),
        "flash-1-a",
        "has no final adapter",
    ),
    "another model": (
        lambda served: commit(served, "flash-1-a", base_model="Qwen/Qwen3.5-9B"),
        "flash-1-a",
        "the adapter was trained on Qwen/Qwen3.5-9B",
    ),
}


@pytest.mark.parametrize(("make", "ref", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_a_run_cannot_start_from_is_refused_before_it_is_submitted(
    served: Served, make: Any, ref: str, sentence: str
) -> None:
    served.push()
    served.flash.write("config.toml", WARM_START)
    make(served)
    words = ("--set", f"train.init_from_adapter={ref}")

    done = served.flash("train", "config.toml", "--background", *words)
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
    assert served.count("flashrun") == 0
    [problem] = ask_server(served, *words)["problems"]
    assert sentence in problem


@pytest.mark.parametrize(("key", "value"), [("lora_rank", 32), ("lora_alpha", 64)])
def test_another_rank_or_alpha_than_the_adapters_is_refused(
    served: Served, key: str, value: int
) -> None:
    served.push()
    served.flash.write("config.toml", WARM_START)
    commit(served, "flash-1-a")
    words = ("--set", "train.init_from_adapter=flash-1-a", "--set", f"train.{key}={value}")
    done = served.flash("train", "config.toml", "--background", *words)

    assert done.returncode == 2
    assert f"train.{key}: is {value}, but it comes from the adapter" in done.stderr
