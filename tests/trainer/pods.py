"""Trainer pods without a cluster: the folders, files and variables that a pod would find."""

import hashlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flashrun.api import names
from flashrun.api.catalog import Source
from flashrun.api.config import Algorithm
from flashrun.api.exits import Termination
from flashrun.api.records import (
    FileEntry,
    Heartbeat,
    Manifest,
    MetricsRow,
    ResolvedAdapter,
    ResolvedEnvironment,
    ResolvedEval,
    ResolvedModel,
    ResolvedRun,
    ResolvedTrain,
    ResolvedWandb,
    RunIdentity,
    StorageAccess,
)
from flashrun.store import KeyExists, Store
from flashrun.store_metrics import read_history
from flashrun_trainer import run_attempt
from flashrun_trainer.init import model_download, packages
from flashrun_trainer.pod.mounts import PodMounts

ROOT = Path(__file__).parents[2]
SUMS = ROOT / "examples" / "sums"
MODEL = ResolvedModel(id="flashrun/tiny-qwen3", source=Source.MIRROR, revision="v1")
ENVIRONMENT_ID = "examples/sums"
INDEX_PASSWORD = "index-password"

PATIENCE_SECONDS = 300

_numbers = count(1)


def package(files: Mapping[str, str]) -> bytes:
    """An environment's package: a gzipped tar of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            data = text.encode(errors="surrogateescape")
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def sums(**replaced: str) -> dict[str, str]:
    """The files of examples/sums; ``environment`` and ``train`` may be replaced.

    ``eval`` adds a held-out split.
    """
    files = {
        "environment.py": replaced.get("environment", (SUMS / "environment.py").read_text()),
        "dataset/train.jsonl": replaced.get("train", (SUMS / "dataset/train.jsonl").read_text()),
    }
    return files | ({"dataset/eval.jsonl": replaced["eval"]} if "eval" in replaced else {})


def rows(*pairs: tuple[str, Any]) -> str:
    """A dataset of these inputs and outputs."""
    return "".join(json.dumps({"input": a, "output": b}) + "\n" for a, b in pairs)


def evaluated(**changes: Any) -> ResolvedEval:
    """An evaluation of a few examples; keys of ``eval`` may be changed."""
    settings = {
        "split": "eval",
        "required": True,
        "max_examples": 8,
        "may_shrink": False,
        "samples": 1,
        "temperature": 1.0,
        "max_tokens": 8,
        "metric": "score",
    }
    return ResolvedEval(**(settings | changes))


def resolved(algorithm: str = "sft", **changes: Any) -> ResolvedRun:
    """A short run on the sums; keys of ``train`` and of the run itself may be changed."""
    common = {
        "lora_rank": 8,
        "lora_alpha": 16,
        "max_length": 128,
        "learning_rate": 5e-3,
        "save_every": 5,
    }
    knobs: dict[str, Any] = (
        {**common, "batch_size": 8, "epochs": 1}
        if algorithm == "sft"
        else {
            **common,
            "batch_size": 2,
            "steps": 6,
            "group_size": 4,
            "temperature": 1.0,
            "max_tokens": 8,
            "kl_penalty_coef": 0.0,
            # The tiny model rarely ends an answer itself, and what is cut off is not learned from.
            "stop_sequences": ("\n\n",),
        }
    )
    own = {key: changes.pop(key) for key in list(changes) if key in ResolvedTrain.model_fields}
    environment = {"split": "train", "digest": "0" * 64} | changes.pop("environment", {})
    identity = changes.pop("identity", None) or RunIdentity(
        namespace="team-a", name=f"run-{next(_numbers)}", uid=str(uuid.uuid4())
    )
    return ResolvedRun(
        run=identity,
        model=MODEL,
        algorithm=Algorithm(algorithm),
        environment=ResolvedEnvironment(id=ENVIRONMENT_ID, **environment),
        train=ResolvedTrain(**(knobs | own)),
        wandb=ResolvedWandb(project="flash", run_name="test"),
        **({"seed": 42, "thinking": False, "upload_timeout_seconds": 60} | changes),
    )


@dataclass(frozen=True)
class Workshop:
    """Storage with the tiny model in its mirror, and a folder for pods."""

    folder: Path
    access: StorageAccess

    @property
    def store(self) -> Store:
        return Store(self.access)

    def publish(self, files: Mapping[str, str]) -> str:
        """Publish an environment and return its digest."""
        data = package(files)
        digest = hashlib.sha256(data).hexdigest()
        self.store.put_bytes(names.environment_package_key(ENVIRONMENT_ID, digest), data)
        return digest

    def mirror(self, folder: Path) -> None:
        """Put the tiny model into the mirror."""

        def manifest(files: tuple[FileEntry, ...]) -> Manifest:
            return Manifest(kind="model", created=datetime.now(UTC), files=files)

        try:
            self.store.upload_folder(names.model_prefix(MODEL.id, MODEL.revision), folder, manifest)
        except KeyExists:
            return

    def new_pod(self, digest: str) -> "TrainerPod":
        """A pod whose run uses the environment of this digest; no container has run yet."""
        pod = TrainerPod(self, resolved(environment={"digest": digest}), 1)
        pod.write_files()
        return pod

    def pod(
        self,
        run: ResolvedRun,
        files: Mapping[str, str] | None = None,
        number: int = 1,
        leader_port: int = 0,
    ) -> "TrainerPod":
        """A pod of ``run`` whose init containers have done their work."""
        digest = self.publish(files or sums())
        changed = run.environment.model_copy(update={"digest": digest})
        changed_run = run.model_copy(update={"environment": changed})
        pod = TrainerPod(self, changed_run, number, leader_port=leader_port)
        pod.prepare()
        return pod


@dataclass(frozen=True)
class TrainerPod:
    """One pod of a run."""

    workshop: Workshop
    run: ResolvedRun
    number: int
    index: int = 0
    """Position among the pods of an attempt."""
    leader_port: int = 0
    """Where the leading one of several pods listens."""

    @property
    def folder(self) -> Path:
        return self.workshop.folder / self.run.run.uid / f"{self.number}-{self.index}"

    @property
    def store(self) -> Store:
        return self.workshop.store

    @property
    def prefix(self) -> str:
        return names.run_prefix(self.run.run.namespace, self.run.run.name, self.run.run.uid)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "FLASHRUN_SPEC": str(self.folder / "spec.json"),
            "FLASHRUN_STORAGE": str(self.folder / "access.json"),
            "FLASHRUN_MODEL": str(self.workshop.folder / "model"),
            "FLASHRUN_PACKAGES": str(self.folder / "packages"),
            "FLASHRUN_WORK": str(self.folder / "work"),
            "FLASHRUN_TERMINATION": str(self.folder / "termination"),
            "FLASHRUN_POD": f"{self.run.run.name}-{self.number}-{self.index}",
            "FLASHRUN_POD_UID": f"{self.run.run.uid}-{self.number}-{self.index}",
            "JOB_COMPLETION_INDEX": str(self.index),
            "FLASHRUN_LEADER_PORT": str(self.leader_port),
        }

    @property
    def inside(self) -> PodMounts:
        return PodMounts.from_environment(self.environment)

    def write_files(self) -> None:
        """Write what the operator mounts; no container has run yet."""
        self.folder.mkdir(parents=True)
        (self.folder / "spec.json").write_text(self.run.model_dump_json())
        (self.folder / "access.json").write_text(self.workshop.access.model_dump_json())

    def prepare(self) -> None:
        """Write what the operator mounts, and run the init containers."""
        self.write_files()
        (self.folder / "work").mkdir()
        packages.run(self.inside)
        model_download.run(self.inside)

    def next(self) -> "TrainerPod":
        """The pod that the Job makes when this one has ended."""
        pod = replace(self, number=self.number + 1)
        pod.prepare()
        return pod

    def peer(self, index: int = 1) -> "TrainerPod":
        """Another pod of the same attempt."""
        pod = replace(self, index=index)
        pod.prepare()
        return pod

    def train(self) -> int:
        """Train in this process and return the exit code."""
        # Onto the stream itself: a test runner puts its own objects in the place of sys.stdout.
        handler = logging.StreamHandler(open(1, "w", closefd=False))  # noqa: SIM115
        logger = logging.getLogger("flashrun_trainer")
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        before = signal.getsignal(signal.SIGTERM)
        try:
            return run_attempt.run(self.inside)
        finally:
            signal.signal(signal.SIGTERM, before)
            logger.removeHandler(handler)

    @contextmanager
    def started(
        self,
        container: str = "train",
        changes: Mapping[str, str] = MappingProxyType({}),
        prefix: Sequence[str] = (),
    ) -> Iterator[subprocess.Popen[str]]:
        """Run a container as a process, which is killed at the end when it still runs.

        ``prefix`` comes before the command.
        """
        variables = {**os.environ, **changes}
        sources = [str(ROOT / "operator/src"), str(ROOT / "trainer-image/src")]
        path = os.pathsep.join([*sources, *filter(None, [variables.get("PYTHONPATH")])])
        with (self.folder / "output").open("w") as output:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "flashrun_trainer", container],
                env={**variables, **self.environment, **changes, "PYTHONPATH": path},
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            yield process
        finally:
            kill(process)

    def launch(self) -> int:
        """Train in processes of their own and return the exit code."""
        with self.started() as process:
            return process.wait(PATIENCE_SECONDS)

    @property
    def output(self) -> str:
        """What the process has printed so far."""
        return (self.folder / "output").read_text()

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        """Wait until ``condition`` holds, and return its value."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := condition()):
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)
        return found

    @property
    def heartbeat(self) -> Heartbeat | None:
        """The heartbeat, when there is one."""
        key = names.heartbeat_key(self.run.run.uid)
        return self.store.get_json(key, Heartbeat) if self.store.exists(key) else None

    # --- what the pod left ----------------------------------------------------------------------

    @property
    def termination(self) -> Termination:
        return Termination.model_validate_json((self.folder / "termination").read_text())

    @property
    def keys(self) -> list[str]:
        return [entry.key.removeprefix(self.prefix) for entry in self.store.list(self.prefix)]

    @property
    def metrics(self) -> list[MetricsRow]:
        return [row for _, row in read_history(self.store, self.prefix)]

    def values(self, name: str) -> list[float]:
        return [row.values[name] for row in self.metrics if name in row.values]

    def steps(self, marker: str = names.MANIFEST) -> list[tuple[int, int]]:
        """Attempt and step of every checkpoint with this marker, in order."""
        found = (names.parse_step_key(self.prefix, self.prefix + key) for key in self.keys)
        return sorted((key.attempt, key.step) for key in found if key and key.path == marker)

    @property
    def adapter(self) -> Manifest:
        return self.store.get_json(names.adapter_prefix(self.prefix) + names.MANIFEST, Manifest)

    @property
    def weights(self) -> str:
        """SHA-256 of the final adapter's weights."""
        return self._published("adapter_model.safetensors").sha256

    def published(self, name: str) -> bytes:
        """A file of the final adapter."""
        return self.store.get_bytes(self.published_key(name))

    def published_key(self, name: str) -> str:
        """Where a file of the final adapter is."""
        return names.adapter_prefix(self.prefix) + self._published(name).path

    def _published(self, name: str) -> FileEntry:
        return next(file for file in self.adapter.files if Path(file.path).name == name)

    def as_source(self, step: int | None = None) -> ResolvedAdapter:
        """This run's adapter as another one names it in init_from_adapter."""
        name = self.run.run.name
        if step is None:
            return ResolvedAdapter(
                ref=name, uid=self.run.run.uid, prefix=names.adapter_prefix(self.prefix)
            )
        return ResolvedAdapter(
            ref=names.checkpoint_ref(name, step),
            uid=self.run.run.uid,
            prefix=names.step_prefix(self.prefix, 1, step),
        )


def newest(pod: TrainerPod) -> tuple[int, int] | None:
    """Step and attempt of the newest whole checkpoint."""
    whole = set(pod.steps()) & set(pod.steps(names.STATE_MANIFEST))
    return max(((step, attempt) for attempt, step in whole), default=None)


def resumed(pod: TrainerPod) -> tuple[int, int] | None:
    """Step and attempt from which a pod resumes, as its log says."""
    said = re.search(r"resuming from step (\d+) of attempt (\d+)", pod.output)
    return None if said is None else (int(said[1]), int(said[2]))


def ranks_of(process: subprocess.Popen[str] | BaseProcess) -> list[int]:
    """The processes that a launcher has started, by local rank; none when it has ended."""
    try:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(pid) for pid in listed]


def is_running(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_ranks(pids: Iterable[int]) -> None:
    """Kill the process groups that a launcher has started."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a container: its first process, and then all others."""
    others = ranks_of(process)
    process.kill()
    kill_ranks(others)
    process.wait()


def fifths(values: list[float]) -> tuple[float, float]:
    """Mean of the first and of the last fifth."""
    size = max(1, len(values) // 5)
    return sum(values[:size]) / size, sum(values[-size:]) / size


HEAD = """
from freesolo.environments import EnvironmentSingleTurn, RewardResult


class Environment(EnvironmentSingleTurn):
    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": str(example.input)}]

"""
"""The beginning of an environment for tests, up to its ``score_response``."""
