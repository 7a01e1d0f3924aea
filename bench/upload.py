"""Upload of a 400 MiB checkpoint: ours, SHA-256 included, against boto3's defaults.

    python -m bench.upload [--pairs 10]

Both sides upload the same files to the same MinIO, each time to new keys, in separate processes
that take turns. boto3 has its own virtual environment, because it and the ``kubernetes`` client
need different versions of python-dateutil. Memory is the highest resident size during the upload
minus the resident size of the same process before it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import sides
from tests.servers import Minio

FILES = {"adapter/adapter_model.safetensors": 128, "state/optimizer.pt": 256, "state/rng.pth": 16}
"""Files of the checkpoint, with their sizes in MiB."""
SIZE = sum(FILES.values())
SPEED_LIMIT, MEMORY_LIMIT = 0.9, 200.0

MEASURED = """
import json, re, resource, sys, time
from pathlib import Path

def resident(name):
    return int(re.search(name + ":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

{setup}
idle = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
{upload}
seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
print(json.dumps(dict(seconds=seconds, cpu=cpu, memory=resident("VmHWM") - idle)))
"""
OURS = MEASURED.format(
    setup="""
from datetime import UTC, datetime
from flashrun.api.records import Manifest, StorageAccess
from flashrun.store import Store

folder, prefix, access = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
store = Store(StorageAccess.model_validate_json(access))
store.exists("warm")
""",
    upload="""
store.upload_folder(
    prefix, folder, lambda files: Manifest(kind="model", created=datetime.now(UTC), files=files)
)
""",
)
BOTO3 = MEASURED.format(
    setup="""
import boto3

folder, prefix, access = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
client = boto3.client(
    "s3",
    endpoint_url=access["endpoint"],
    aws_access_key_id=access["access_key"],
    aws_secret_access_key=access["secret_key"],
    region_name=access["region"],
)
client.list_objects_v2(Bucket=access["bucket"], MaxKeys=1)
""",
    upload="""
for path in sorted(item for item in folder.rglob("*") if item.is_file()):
    client.upload_file(str(path), access["bucket"], prefix + path.relative_to(folder).as_posix())
""",
)


@contextmanager
def server() -> Iterator[Minio]:
    """Run an S3 server in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        minio = Minio(Path(folder))
        minio.start()
        try:
            yield minio
        finally:
            minio.stop()


def main() -> int:
    """Measure, print, and return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    pairs = parser.parse_args().pairs
    other = sides.environment("boto3", ["boto3"])
    ours = {**os.environ, "PYTHONPATH": "operator/src"}
    results: dict[str, list[dict[str, float]]] = {"flashrun": [], "boto3": []}
    with server() as minio, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, size in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(size * 2**20))
        store = minio.store("bench")
        access = store.access.model_dump_json()
        programs = {
            "flashrun": ([sys.executable, "-c", OURS], ours),
            "boto3": ([str(other), "-c", BOTO3], dict(os.environ)),
        }
        for number in range(pairs + 1):  # the first pair warms caches and is not counted
            for name in sides.turns(number, programs):
                program, environment = programs[name]
                prefix = f"{name}-{number}/"
                done = subprocess.run(
                    [*program, str(folder), prefix, access],
                    env=environment,
                    check=True,
                    capture_output=True,
                    text=True,
                )
                if number:
                    results[name].append(json.loads(done.stdout))
                store.delete([entry.key for entry in store.list(prefix)])
    print(f"{SIZE} MiB in {len(FILES)} files, {pairs} pairs, {sides.machine()}")
    print(f"flashrun with {sides.versions(sys.executable, 'minio', 'urllib3')}")
    print(f"boto3's defaults with {sides.versions(other, 'boto3', 's3transfer', 'urllib3')}")
    for name, rows in results.items():
        speed, cpu, memory = (
            statistics.median(SIZE / row["seconds"] for row in rows),
            statistics.median(row["cpu"] for row in rows),
            statistics.median(row["memory"] for row in rows),
        )
        print(f"  {name:10} {speed:6.0f} MiB/s  {cpu:5.2f} CPU s  {memory:4.0f} MiB above idle")
    ratio = sides.ratio(
        [row["seconds"] for row in results["boto3"]],
        [row["seconds"] for row in results["flashrun"]],
    )
    memory = statistics.median(row["memory"] for row in results["flashrun"])
    return sides.verdict(
        (f"speed {ratio:.2f}x boto3's (limit {SPEED_LIMIT})", ratio >= SPEED_LIMIT),
        (f"memory {memory:.0f} MiB above idle (limit {MEMORY_LIMIT:.0f})", memory <= MEMORY_LIMIT),
    )


if __name__ == "__main__":
    sys.exit(main())
