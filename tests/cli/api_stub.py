"""An API server in this process with one finished run: TLS, a client certificate, fixed answers.

It is for what a command loads and how fast it answers; what commands say is tested with a real one.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from flashrun.api import names
from flashrun.api.platform import Platform, Pool, StorageSettings, TrainerSettings
from flashrun.api.public import FILE, PublicPlatform
from localcluster.pki import Authority
from tests.cli.golden import RUNS
from tests.json_server import serve_json, server_context

NAMESPACE = "team-a"
RUN = "flash-1795348800-0a1b2c3d"


def finished_run() -> dict[str, Any]:
    """The golden run that has ended, as the API server has it."""
    folder = RUNS / "evaluated-sft"
    manifest = yaml.safe_load((folder / "flashrun.yaml").read_text())
    manifest["metadata"] |= {"uid": "0", "creationTimestamp": "2026-11-22T12:00:00Z"}
    return {**manifest, "status": yaml.safe_load((folder / "status-succeeded.yaml").read_text())}


def public_platform() -> str:
    """What the operator publishes."""
    platform = Platform(
        storage=StorageSettings(endpoint="https://s3.example.com", bucket="bucket"),
        trainer=TrainerSettings(image="registry/trainer@sha256:0"),
        pools=(Pool(name="h100", vram=80),),
    )
    public = PublicPlatform.of(platform, version="0", updated=datetime.now(UTC))
    return public.model_dump_json(by_alias=True, exclude_none=True)


@contextmanager
def serve_finished_run(folder: Path) -> Iterator[Path]:
    """Serve on loopback until the end of the context; yield the kubeconfig."""
    run = finished_run()
    place = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.PLURAL}"
    config_map = {"metadata": {}, "data": {FILE: public_platform()}}
    answers: dict[str, Any] = {
        place: {"metadata": {}, "items": [run]},
        f"{place}/{RUN}": run,
        f"/api/v1/namespaces/{NAMESPACE}/configmaps/{names.PUBLIC_CONFIG_MAP}": config_map,
    }

    authority = Authority(folder / "authority")
    authority.create()
    leaf = authority.leaf("api", "/CN=api", ["IP:127.0.0.1"])
    context = server_context(leaf)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with serve_json(lambda path, _: answers.get(path), context) as port:
        kubeconfig = authority.kubeconfig(folder / "kubeconfig", f"https://127.0.0.1:{port}", leaf)
        config = yaml.safe_load(kubeconfig.read_text())
        config["contexts"][0]["context"]["namespace"] = NAMESPACE
        kubeconfig.write_text(yaml.safe_dump(config))
        yield kubeconfig
