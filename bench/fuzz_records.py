"""Coverage-guided fuzzing of everything that reads what a tenant wrote; it needs atheris.

    python -m bench.fuzz_records [--seconds 300] [--reader NAME] [--folder FOLDER]

Each reader gets changed inputs for ``--seconds``, in a process of its own, starting from a valid
one. What must hold for every input within the reader's size limit: no exception but the reader's
own, at most 50 ms of processor time and 16 MiB of memory (an archive: one second, because it
unpacks to a thousand times its size). An input that breaks this is kept in the folder, which
defaults to ``~/.cache/flashrun/bench/fuzz``; what was learned there is used by the next run.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from bench import sides

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
MEMORY = 16 * 1024 * 1024
SECONDS = 0.05
REPEATS = 3
"""How often an input has to be slow: other work on the machine also takes time."""


class Reader(NamedTuple):
    """Something that reads what a tenant wrote."""

    read: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    longest: int = 64 * 1024
    seconds: float = SECONDS


def record_reader(name: str) -> Reader:
    """Return the reader of the record ``name``."""

    def read(content: bytes) -> None:
        from flashrun.api import exits, record_reader, records

        model = getattr(records, name, None) or getattr(exits, name)
        with contextlib.suppress(record_reader.RecordRefused):
            record_reader.read_record(content, model, NOW)

    def seeds() -> list[bytes]:
        from tests.api.test_record_reader import VALID

        return [json.dumps(record).encode() for model, record in VALID.items()
                if model.__name__ == name]  # fmt: skip

    return Reader(read, seeds)


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


READERS: dict[str, Reader] = {
    **{
        name: record_reader(name)
        for name in (
            "Heartbeat", "Claim", "Manifest", "Result", "Termination", "MetricsRow",
            "EnvironmentPointer", "TrainerControl", "ResolvedRun",
        )
    },
    "termination message": Reader(read_termination, lambda: [b'{"reason": "A"}'], longest=4096),
    "FlashRun": Reader(read_manifest, run_seeds),
    "expiry annotation": Reader(read_expiry, lambda: [b"2026-11-01T12:00:00Z"], longest=4096),
    "key": Reader(read_key, lambda: [b"attempt-1/step-3/manifest.json"], longest=1024),
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
    python = sides.environment("atheris", ["atheris==3.0.0", f"pydantic=={version('pydantic')}"])
    found = [name for name in given.reader or READERS if not _run(python, name, given)]
    print(sides.machine())
    return sides.verdict((f"{len(found)} findings: {', '.join(found) or 'none'}", not found))


def _run(python: Path, name: str, given: argparse.Namespace) -> bool:
    """Fuzz one reader in a child; return whether it found nothing."""
    reader, folder = READERS[name], given.folder / name.replace(" ", "-")
    corpus, findings = folder / "corpus", folder / "findings"
    for path in (corpus, findings):
        path.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(reader.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = (f"-max_total_time={given.seconds}", f"-max_len={reader.longest}")
    limits = (f"-artifact_prefix={findings}/", "-timeout=20", "-rss_limit_mb=1024")
    child = ("-m", "bench.fuzz_records", "--child", name, *options, *limits, str(corpus))
    path = f"{sides.ROOT}:{sides.ROOT / 'operator' / 'src'}"
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [python, *child], env=environment, capture_output=True, text=True, errors="replace"
    )
    ended = re.findall(r"#(\d+)\s+DONE\s+cov: (\d+)", done.stderr)
    runs, covered = ended[-1] if ended else ("?", "?")
    print(f"{name:20} {runs:>9} inputs, {covered} branches", flush=True)
    if done.returncode:
        print(done.stderr[-1500:])
    return done.returncode == 0


def fuzz(name: str, options: list[str]) -> None:
    """Fuzz one reader in this process; never returns."""
    import atheris  # type: ignore[import-not-found]

    reader = READERS[name]
    with atheris.instrument_imports(include=["flashrun", "tarfile", "gzip", "json"]):
        reader.read(b"")

    def check(content: bytes) -> None:
        for remaining in reversed(range(REPEATS)):
            tracemalloc.start()
            began = time.thread_time()
            reader.read(content)
            seconds = time.thread_time() - began
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak <= MEMORY, f"{peak / 2**20:.0f} MiB"
            if seconds <= reader.seconds:
                return
            assert remaining, f"{seconds:.3f} s"

    atheris.Setup([sys.argv[0], *options], check)
    atheris.Fuzz()


@functools.cache
def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main())
