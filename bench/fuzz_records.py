"""Coverage-guided fuzzing of everything that reads what a tenant wrote; it needs atheris.

    python -m bench.fuzz_records [--seconds 300] [--reader NAME] [--folder FOLDER]

Each reader gets changed inputs for ``--seconds``, in a process of its own, starting from valid ones
and from ones that are as long as its size limit allows. What must hold for every input within that
limit: no exception but the reader's own, at most 50 ms of processor time and 16 MiB of memory (an
archive: one second, because it unpacks to a thousand times its size). Memory is the resident memory
of the process at its peak, so that of compiled code counts. Each process first shows that it would
notice an input that breaks a limit. An input that does is kept in the folder, which defaults to
``~/.cache/flashrun/bench/fuzz``; what was learned there is used by the next run.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from bench import sides

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
MEMORY = 16 * 1024 * 1024
SECONDS = 0.05
REPEATS = 3
"""How often an input has to be slow: other work on the machine also takes time."""
LONG = (b"[", b'{"":', b"[{},", b'["",', b"[0,", b"\xff", b'"\\ud800"', b" ", b"x")
"""What the longest inputs repeat."""
STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 256, 2**63, 10**30, 0.1, float("inf"), float("nan"), "", "\u00b2", "\x1b[m",
    "\u202e", "9999-12-31T23:59:59-05:00", "2026-11-01", "hf_" + "a1" * 20, "../" * 40, [], {},
)  # fmt: skip
"""Values for any place in a JSON input."""
EAGER_FREE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Settings of the allocator: memory of an earlier input does not hide that of the next one."""


_CREATED = "2026-11-01T12:00:00Z"
_ENDED = {"exitCode": 1, "reason": "Error", "message": "m", "finishedAt": _CREATED}
_CONDITION = {"type": "Failed", "status": "True", "reason": "r", "message": "m"}
ANSWERED: dict[str, dict[str, Any]] = {
    "Job": {"spec": {"suspend": True}, "status": {"conditions": [_CONDITION]}},
    "Pod": {
        "spec": {"nodeName": "n", "containers": [{"resources": {"limits": {"cpu": "1"}}}]},
        "status": {
            "phase": "Failed",
            "conditions": [_CONDITION],
            "containerStatuses": [{"name": "trainer", "state": {"terminated": _ENDED}}],
        },
    },
    "Event": {"involvedObject": {"uid": "u"}, "type": "Warning", "message": "m"},
}
"""What is read of objects, besides their metadata."""
METADATA = {
    "name": "run", "namespace": "team", "uid": "u", "creationTimestamp": _CREATED,
    "labels": {"flashrun.dev/run": "run"}, "annotations": {"a": "b"}, "finalizers": ["f"],
    "ownerReferences": [{"kind": "Job", "uid": "j", "controller": True}],
    "managedFields": [{"manager": "m", "fieldsV1": {"f:a": {}}}],
}  # fmt: skip


class Reader(NamedTuple):
    """Something that reads what a tenant wrote."""

    read: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    longest: int | Callable[[], int] = 64 * 1024
    seconds: float = SECONDS

    def size_limit(self) -> int:
        """Return the size of the longest input."""
        return self.longest if isinstance(self.longest, int) else self.longest()

    def inputs(self) -> list[bytes]:
        """Return the inputs to start from: the seeds, and some of the longest ones."""
        longest = self.size_limit()
        return [*self.seeds(), *(unit * (longest // len(unit)) for unit in LONG)]


def record_reader(name: str) -> Reader:
    """Return the reader of the record ``name``."""

    def model() -> Any:
        from flashrun.api import exits, records

        return getattr(records, name, None) or getattr(exits, name)

    def read(content: bytes) -> None:
        from flashrun.api import record_reader

        with contextlib.suppress(record_reader.RecordRefused):
            record_reader.read_record(content, model(), NOW)

    def seeds() -> list[bytes]:
        from tests.api.test_record_reader import VALID

        return [json.dumps(record).encode() for model, record in VALID.items()
                if model.__name__ == name]  # fmt: skip

    return Reader(read, seeds, lambda: model().max_bytes)


def read_termination(content: bytes) -> None:
    """A termination message; the kubelet keeps 4,096 bytes of it."""
    from flashrun.api.exits import parse_termination

    parse_termination(content.decode(errors="replace"))


def read_manifest(content: bytes) -> None:
    """A FlashRun as the API server stores it: JSON objects for spec and status."""
    from pydantic import ValidationError

    from flashrun.api.resource import FlashRun

    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return  # the API server refuses it
    if isinstance(value, dict):
        parts = {key: value.get(key) for key in ("spec", "status")}
        metadata = {"name": "run", "namespace": "team"}
        with contextlib.suppress(ValidationError):
            FlashRun.from_manifest({"metadata": metadata, **parts})


def run_seeds() -> list[bytes]:
    """Specs and status of the runs in tests/runs."""
    import yaml

    folder = sides.ROOT / "tests" / "runs"
    status = [yaml.safe_load(path.read_text()) for path in sorted(folder.rglob("status-*.yaml"))]
    spec = {"model": "m", "environment": {"id": "a/b"}, "train": {"loraRank": 8}}
    return [json.dumps({"spec": spec, "status": item}, default=str).encode() for item in status]


def read_expiry(content: bytes) -> None:
    """The annotation with the end of storage credentials."""
    from flashrun.api import names
    from flashrun.plan.credentials import are_due, expiry_of

    text = content.decode(errors="surrogateescape")
    are_due(expiry_of({"annotations": {names.EXPIRES_ANNOTATION: text}}), 3600, NOW)


def read_key(content: bytes) -> None:
    """A key in a listing of storage."""
    from flashrun.api import names

    text = content.decode(errors="replace")
    names.attempt_of("p/", "p/" + text)
    names.parse_step_key("p/", "p/" + text)
    names.heartbeat_uid(text)


def read_public(content: bytes) -> None:
    """The ConfigMap ``flashrun-public``, which somebody may have changed."""
    from pydantic import ValidationError

    from flashrun.api.public import PublicPlatform

    with contextlib.suppress(ValidationError):
        PublicPlatform.read(content)


def public_seeds() -> list[bytes]:
    """What the operator publishes of a small platform."""
    pool = {"name": "p", "memoryGb": 80, "gpusPerNode": 8, "total": 8, "free": 2}
    published = {
        "pools": [pool], "storageEndpoint": "http://s3", "storageBucket": "b",
        "environmentOrgs": ["a"], "version": "1", "updated": "2026-11-01T12:00:00Z",
    }  # fmt: skip
    return [json.dumps(published).encode()]


def read_archive(content: bytes) -> None:
    """An environment package."""
    from flashrun.archive import ArchiveError, unpack

    with tempfile.TemporaryDirectory(dir=_memory_folder()) as outside:
        folder = Path(outside, "inside")
        folder.mkdir()
        with contextlib.suppress(ArchiveError):
            unpack(io.BytesIO(content), folder)
        assert os.listdir(outside) == ["inside"]


def archive_seeds() -> list[bytes]:
    """The archives that tests refuse, as far as they are short, and one that is accepted."""
    from tests.trainer import archives

    good = archives.archive(archives.member("environment.py", content=b"x = 1\n"))
    return [good, *(data for data, _ in archives.HOSTILE.values() if len(data) < 4096)]


def answer_reader(kind: str, verb: str = "get") -> Reader:
    """Return the reader of the API server's answers about ``kind``: tenants write these objects."""

    def read(content: bytes) -> None:
        from flashrun.cluster_errors import ClusterError
        from flashrun.cluster_requests import RESOURCES, Request
        from flashrun.controller.bounded_answers import BoundedAnswers

        request = Request(verb, "GET", RESOURCES[kind], "team", "run")
        with contextlib.suppress(ClusterError):
            BoundedAnswers().read(request, bytearray(content))

    def seeds() -> list[bytes]:
        item = {"metadata": METADATA, **ANSWERED[kind]}
        page = {"metadata": {"continue": "c", "resourceVersion": "7"}, "items": [item, item]}
        return [json.dumps(page if verb == "list" else item).encode()]

    return Reader(read, seeds, longest=_answer_bytes)


def _answer_bytes() -> int:
    from flashrun.controller.bounded_answers import OBJECT_BYTES

    return OBJECT_BYTES


READERS: dict[str, Reader] = {
    **{
        name: record_reader(name)
        for name in (
            "Heartbeat", "Claim", "Manifest", "Result", "Termination", "MetricsRow",
            "EnvironmentPointer", "TrainerControl", "ResolvedRun", "Ending",
        )
    },
    "termination message": Reader(read_termination, lambda: [b'{"reason": "A"}'], longest=4096),
    "FlashRun": Reader(read_manifest, run_seeds),
    "expiry annotation": Reader(read_expiry, lambda: [b"2026-11-01T12:00:00Z"], longest=4096),
    "key": Reader(read_key, lambda: [b"attempt-1/step-3/manifest.json"], longest=1024),
    "public ConfigMap": Reader(read_public, public_seeds),
    "Job": answer_reader("Job"),
    "page of Jobs": answer_reader("Job", "list"),
    "pod": answer_reader("Pod"),
    "page of pods": answer_reader("Pod", "list"),
    "page of Events": answer_reader("Event", "list"),
    "archive": Reader(read_archive, archive_seeds, longest=16 * 1024, seconds=1.0),
}  # fmt: skip


def main() -> int:
    """Fuzz the readers, one after the other; print what was done, and return 1 for a finding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=300, help="for each reader")
    parser.add_argument("--reader", choices=READERS, action="append", help="one of them")
    parser.add_argument("--folder", type=Path, default=sides.CACHE / "fuzz")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given, rest = parser.parse_known_args()
    if given.child:
        fuzz(given.child, rest)
    ours = (f"{name}=={version(name)}" for name in ("pydantic", "msgspec"))
    python = sides.environment("atheris", ["atheris==3.0.0", *ours])
    found = [name for name in given.reader or READERS if not _run(python, name, given)]
    print(sides.machine())
    return sides.verdict((f"{len(found)} findings: {', '.join(found) or 'none'}", not found))


def _run(python: Path, name: str, given: argparse.Namespace) -> bool:
    """Fuzz one reader in a child; return whether it found nothing."""
    reader, folder = READERS[name], given.folder / name.replace(" ", "-")
    corpus, findings = folder / "corpus", folder / "findings"
    for path in (corpus, findings):
        path.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(reader.inputs()):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = (f"-max_total_time={given.seconds}", f"-max_len={reader.size_limit()}")
    limits = (f"-artifact_prefix={findings}/", "-timeout=20", "-rss_limit_mb=1024")
    child = ("-m", "bench.fuzz_records", "--child", name, *options, *limits, str(corpus))
    path = f"{sides.ROOT}:{sides.ROOT / 'operator' / 'src'}"
    environment = {**os.environ, **EAGER_FREE, "PYTHONPATH": path}
    done = subprocess.run(
        [python, *child], env=environment, capture_output=True, text=True, errors="replace"
    )
    ended = re.findall(r"#(\d+)\s+DONE\s+(?:cov: (\d+))?", done.stderr)
    runs, covered = ended[-1] if ended else ("?", "")
    print(f"{name:20} {runs:>9} inputs, {covered or 0} branches", flush=True)
    if done.returncode or not ended:
        print(done.stderr[-1500:])
    return done.returncode == 0 and bool(ended)


def fuzz(name: str, options: list[str]) -> None:
    """Fuzz one reader in this process; never returns."""
    import atheris  # type: ignore[import-not-found]

    reader = READERS[name]
    with atheris.instrument_imports(include=["flashrun", "tarfile", "gzip", "json"]):
        reader.read(b"")
    show_that_limits_are_noticed()

    def mutate(content: bytes, longest: int, seed: int) -> bytes:
        changed = with_another_value(content, random.Random(seed))
        if changed is None or len(changed) > longest:
            changed = bytes(atheris.Mutate(content, longest))
        return changed

    test = functools.partial(check, reader)
    atheris.Setup([sys.argv[0], *options], test, custom_mutator=mutate)
    atheris.Fuzz()


def with_another_value(content: bytes, random: random.Random) -> bytes | None:
    """Return JSON with another value in one place; None for other content, and at times."""
    if random.random() < 0.3 or len(content) > 2**14:
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    places: list[tuple[Any, Any]] = []
    root = {"": value}
    _find_places(root, places)
    holder, key = random.choice(places)
    old = holder[key]
    match random.randrange(5), old:
        case 0, dict():
            old[random.choice([*old, "x", "m" * random.randrange(300)])] = random.choice(STRANGE)
        case 1, [*_]:
            holder[key] = old * random.choice([0, 2, 30, 999])
        case 2, str():
            holder[key] = old * random.choice([2, 30, 999])
        case 3, _:
            holder[key] = [old]
        case _:
            holder[key] = random.choice(STRANGE)
    return json.dumps(root[""]).encode()


def _find_places(value: Any, places: list[tuple[Any, Any]]) -> None:
    """Add every place in a JSON value as what holds it, and its key there."""
    if isinstance(value, dict | list):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            places.append((value, key))
            _find_places(item, places)


def check(reader: Reader, content: bytes) -> None:
    """Read ``content``; an ``AssertionError`` names the limit that it breaks."""
    for remaining in reversed(range(REPEATS)):
        seconds, grown = cost(reader.read, content)
        assert grown <= MEMORY, f"{grown / 2**20:.0f} MiB"
        if seconds <= reader.seconds:
            return
        assert remaining, f"{seconds:.3f} s"


def cost(read: Callable[[bytes], None], content: bytes) -> tuple[float, int]:
    """Return the processor seconds and the resident memory at its peak that reading takes."""
    before = resident_memory("VmRSS")
    Path("/proc/self/clear_refs").write_bytes(b"5")  # from now on VmHWM is the peak
    began = time.thread_time()
    read(content)
    seconds = time.thread_time() - began
    return seconds, resident_memory("VmHWM") - before


def resident_memory(field: str) -> int:
    """Return one field of the status of this process, in bytes."""
    status = Path("/proc/self/status").read_bytes()
    line = status.partition(field.encode() + b":")[2].partition(b"\n")[0]
    return int(line.split()[0]) * 1024


def show_that_limits_are_noticed() -> None:
    """Exit unless ``check`` notices a reader that is slow and one that takes much memory."""

    def spin(_: bytes) -> None:
        end = time.thread_time() + 1.2 * SECONDS
        while time.thread_time() < end:
            pass

    def fill(_: bytes) -> None:
        assert len(b"x" * (MEMORY + 2**20)) > MEMORY

    for read in (spin, fill):
        try:
            check(Reader(read, list), b"")
        except AssertionError:
            continue
        sys.exit(f"a reader that breaks a limit ({read.__name__}) is not noticed")


@functools.cache
def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main())
