"""What S3 servers can do of what runs need: the table of servers in docs/storage.md.

    python -m bench.storage_servers [--versitygw FILE] [--seaweedfs FILE] [--moto FILE] …

Each server is started on loopback in a folder of its own, and the probe of the operator tries every
property. MinIO is the one of the local cluster. The others are programs that you have installed:
``versitygw`` from its Go module, ``weed``, ``garage``, and ``moto_server`` from moto's package. A
server that is not named is left out.

Below the table is what two gateways of a server do, which serve the same data as two processes: in
how many rounds writers at both of them, who create the same key, had one winner.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flashrun.api import names
from flashrun.api.base import Record
from flashrun.api.records import StorageAccess
from flashrun.store import Store
from flashrun.store_errors import KeyExists, StoreError, WriteConflict
from flashrun.store_probe import Property, StoreProbe
from localcluster import toolchain
from localcluster.ports import Ports
from localcluster.steps import StepRunner

KEY, SECRET = "GKbenchbenchbench0000000000"[:20], "s" * 40
READY_SECONDS: Final = 60.0
BUCKET: Final = "bench"
CREDENTIALS_SECONDS: Final = 3600
WRITERS: Final = 8
ROUNDS: Final = 40
CONFLICT_TRIES: Final = 50


@dataclass(frozen=True)
class Server:
    """A server that is running, and how it was set up."""

    access: StorageAccess
    role: str = ""


class Mark(Record):
    """What one of several writers creates."""

    writer: int


Start = Callable[[Path, Path, ExitStack], Server]
"""Starts the program in a folder; what has to end is put on the stack."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.storage_servers")
    for name in STARTS:
        parser.add_argument(f"--{name}", type=Path, help=f"program of {name}")
    parser.add_argument("--verbose", action="store_true", help="print what each server did")
    arguments = parser.parse_args()
    programs = {name: getattr(arguments, name) for name in STARTS}
    with closing(StepRunner.silent(Path(tempfile.gettempdir()))) as steps:
        programs["minio"] = programs["minio"] or toolchain.program("minio", steps)
    print("| server | " + " | ".join(Property) + " |")
    print("|---" * (len(Property) + 1) + "|")
    for name, program in programs.items():
        if program is not None:
            print(_row(name, program.absolute(), arguments.verbose), flush=True)
    for name in SECOND_GATEWAYS:
        if (program := programs[name]) is not None:
            print(_race_of_gateways(name, program.absolute()), flush=True)


def _row(name: str, program: Path, verbose: bool) -> str:
    """Return the row of one server."""
    cells = dict.fromkeys(Property, "")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = STARTS[name](program, Path(folder), stack)
        store = Store(server.access)
        _until_ready(store)
        probe = StoreProbe(store, names.operator_probe_prefix("bench"))
        try:
            for finding in probe.examine(
                lambda policy: store.assume(policy, CREDENTIALS_SECONDS, server.role)
            ):
                cells[finding.of] = "no" if finding.problem else "yes"
                if verbose and finding.problem:
                    print(f"{name}: {finding.of}: {finding.problem}")
        except StoreError as error:
            print(f"{name}: {error}")
        product = store.product()
    title = f"{name} {_version(name, program)}" + (f" (`{product}`)" if verbose else "")
    return f"| {title} | " + " | ".join(cells.values()) + " |"


def _race_of_gateways(name: str, program: Path) -> str:
    """Return in how many rounds one of the writers at two gateways won."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        first = STARTS[name](program, Path(folder), stack).access
        _until_ready(Store(first))
        second = SECOND_GATEWAYS[name](program, Path(folder), stack)
        _until_ready(Store(second))
        stores = [Store((first, second)[writer % 2]) for writer in range(WRITERS)]
        began = time.monotonic()
        with ThreadPoolExecutor(WRITERS) as pool:
            winners = [_winners(pool, stores, number) for number in range(ROUNDS)]
        seconds = (time.monotonic() - began) / ROUNDS
    return (
        f"{name} {_version(name, program)}, two gateways: one winner in "
        f"{winners.count(1)} of {ROUNDS} rounds ({WRITERS} writers, {seconds:.2f} s a round)"
    )


def _winners(pool: ThreadPoolExecutor, stores: Sequence[Store], number: int) -> int:
    """Return how many of the writers created the object of a round."""
    start = threading.Barrier(len(stores))

    def create(writer: int) -> bool:
        start.wait()
        for _ in range(CONFLICT_TRIES):
            with suppress(WriteConflict):
                try:
                    stores[writer].create_json(f"race/{number}", Mark(writer=writer))
                except KeyExists:
                    return False
                return True
        raise RuntimeError("the server answers nothing but conflicts")

    return sum(pool.map(create, range(len(stores))))


def _until_ready(store: Store) -> None:
    ends = time.monotonic() + READY_SECONDS
    while True:
        try:
            return store.ensure_bucket()
        except StoreError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.5)


def _version(name: str, program: Path) -> str:
    if name == "minio":
        return toolchain.PROGRAMS["minio"].version
    if name == "versitygw":
        words = subprocess.run(
            ["go", "version", "-m", program], capture_output=True, text=True, check=True
        ).stdout.split()
        return words[words.index("mod") + 2].removeprefix("v")
    if name == "moto":
        python = program.with_name("python")
        code = "import moto; print(moto.__version__)"
        return _output(python, "-c", code)
    if name == "seaweedfs":
        return _output(program, "version").split()[2]
    return _output(program, "--version").split()[1].removeprefix("cargo:")


def _output(*words: Path | str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


# --- the servers --------------------------------------------------------------------------------


def _minio(program: Path, folder: Path, stack: ExitStack) -> Server:
    access = _access(folder, "minio")
    address = urlsplit(access.endpoint).netloc
    words = [program, "server", "--quiet", "--address", address, folder / "data"]
    variables = {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET, "MINIO_BROWSER": "off"}
    stack.enter_context(_running(words, folder, variables))
    return Server(access)


def _versitygw(program: Path, folder: Path, stack: ExitStack) -> Server:
    access = _access(folder, "versitygw")
    (folder / "data").mkdir()
    address = urlsplit(access.endpoint).netloc
    words = [program, "--port", address, "posix", "--sidecar", folder / "meta", folder / "data"]
    (folder / "meta").mkdir()
    variables = {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
    stack.enter_context(_running(words, folder, variables))
    return Server(access)


def _seaweedfs(program: Path, folder: Path, stack: ExitStack) -> Server:
    """Start SeaweedFS with its STS service, as its wiki sets it up, and one role."""
    access = _access(folder, "seaweedfs")
    (folder / "data").mkdir()
    role = "arn:aws:iam::000000000000:role/flashrun"
    identity = {
        "name": "operator",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    everything = {"Effect": "Allow", "Action": ["*"], "Resource": ["*"]}
    trust = {"Effect": "Allow", "Principal": "*", "Action": ["sts:AssumeRole"]}
    iam = {
        "sts": {
            "tokenDuration": "1h",
            "maxSessionLength": "12h",
            "issuer": "seaweedfs-sts",
            "signingKey": "c2lnbmluZy1rZXktb2YtdGhlLWJlbmNobWFyay0zMg==",
        },
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "policies": [
            {"name": "all", "document": {"Version": "2012-10-17", "Statement": [everything]}}
        ],
        "roles": [
            {
                "roleName": "flashrun",
                "roleArn": role,
                "attachedPolicies": ["all"],
                "trustPolicy": {"Version": "2012-10-17", "Statement": [trust]},
            }
        ],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "iam.json").write_text(json.dumps(iam))
    ports = {name: str(_port(folder, name)) for name in ("master", "volume", "filer")}
    words = [
        *(program, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-s3"),
        *(f"-master.port={ports['master']}", f"-volume.port={ports['volume']}"),
        *(f"-filer.port={ports['filer']}", f"-s3.port={urlsplit(access.endpoint).port}"),
        *(f"-s3.config={folder / 's3.json'}", f"-s3.iam.config={folder / 'iam.json'}"),
        "-master.volumeSizeLimitMB=64",
    ]
    stack.enter_context(_running(words, folder, {}))
    return Server(access, role)


def _garage(program: Path, folder: Path, stack: ExitStack) -> Server:
    """Start Garage with one node and a key that may create buckets."""
    access = _access(folder, "garage").replace(region="garage")
    rpc, api = _port(folder, "rpc"), urlsplit(access.endpoint).netloc
    secret = "0" * 64
    settings = f"""
metadata_dir = "{folder / "meta"}"
data_dir = "{folder / "data"}"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secret}"
[s3_api]
s3_region = "garage"
api_bind_addr = "{api}"
"""
    (folder / "garage.toml").write_text(settings)
    variables = {"GARAGE_CONFIG_FILE": str(folder / "garage.toml")}
    stack.enter_context(_running([program, "server"], folder, variables))

    def command(*words: str) -> str:
        return subprocess.run(
            [program, *words],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    ends = time.monotonic() + READY_SECONDS
    node = ""
    while not node and time.monotonic() < ends:
        with suppress(subprocess.CalledProcessError):
            node = command("node", "id", "-q").split("@")[0]
            command("status")
            break
        time.sleep(0.5)
    command("layout", "assign", "-z", "dc1", "-c", "1G", node)
    command("layout", "apply", "--version", "1")
    key, secret_key = "GK" + "0" * 24, "1" * 64
    command("key", "import", "--yes", "-n", "bench", key, secret_key)
    command("key", "allow", "--create-bucket", key)
    return Server(access.replace(access_key=key, secret_key=secret_key))


def _moto(program: Path, folder: Path, stack: ExitStack) -> Server:
    access = _access(folder, "moto")
    words = [program, "-H", "127.0.0.1", "-p", str(urlsplit(access.endpoint).port)]
    stack.enter_context(_running(words, folder, {}))
    return Server(access, "arn:aws:iam::123456789012:role/flashrun")


def _second_versitygw(program: Path, folder: Path, stack: ExitStack) -> StorageAccess:
    access = _access(folder, "versitygw-2")
    address = urlsplit(access.endpoint).netloc
    words = [program, "--port", address, "posix", "--sidecar", folder / "meta", folder / "data"]
    variables = {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
    stack.enter_context(_running(words, folder, variables))
    return access


def _second_seaweedfs(program: Path, folder: Path, stack: ExitStack) -> StorageAccess:
    access = _access(folder, "seaweedfs-2")
    words = [
        *(program, "s3", f"-filer=127.0.0.1:{_port(folder, 'filer')}", "-ip.bind=127.0.0.1"),
        *(f"-port={urlsplit(access.endpoint).port}", f"-config={folder / 's3.json'}"),
        f"-iam.config={folder / 'iam.json'}",
    ]
    stack.enter_context(_running(words, folder, {}))
    return access


SECOND_GATEWAYS: Final[dict[str, Callable[[Path, Path, ExitStack], StorageAccess]]] = {
    "versitygw": _second_versitygw,
    "seaweedfs": _second_seaweedfs,
}
"""Start another process over the data of a server that runs in the folder."""

STARTS: Final[dict[str, Start]] = {
    "minio": _minio,
    "versitygw": _versitygw,
    "seaweedfs": _seaweedfs,
    "garage": _garage,
    "moto": _moto,
}


def _port(folder: Path, name: str) -> int:
    return Ports(folder / "ports.json").get(name)


def _access(folder: Path, name: str) -> StorageAccess:
    endpoint = f"http://127.0.0.1:{_port(folder, name)}"
    return StorageAccess(endpoint=endpoint, bucket=BUCKET, access_key=KEY, secret_key=SECRET)


@contextmanager
def _running(words: list[Path | str], folder: Path, variables: dict[str, str]) -> Iterator[None]:
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(
            words, env={**os.environ, **variables}, cwd=folder, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)
            if kept := os.environ.get("BENCH_LOGS"):
                shutil.copy(folder / "server.log", kept)


if __name__ == "__main__":
    main()
