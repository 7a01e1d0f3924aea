"""Credentials of index, hub and proxy: in one Secret of a served namespace, and nowhere else."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from netrc import netrc
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashrun.api import names
from flashrun.api.platform import TrainerSettings
from flashrun.controller.settings import SettingsError
from flashrun.controller.upstreams import Upstreams
from tests.controller.conftest import Operators
from tests.controller.stage import World, wait_for_phase
from tests.servers import kubectl
from tests.trainer.http_servers import serving
from tests.trainer.package_index import PrivateHandler, project, wheel

RUN = "flash-1-0a1b2c3d"
PASSWORD = 'pa:ss \\wo"rd@#1'
"""It has what netrc files and addresses have to quote."""
ADDRESSES: dict[str, Any] = {
    "pip_index_url": "https://index.example/simple",
    "hub_endpoint": "https://hub.example",
    "proxy": {"https_proxy": "http://proxy.example:3128", "no_proxy": "s3.example"},
}
SECRETS = {"pip_index_secret": "index", "hub_secret": "hub", "proxy_secret": "proxy"}


def mount(folder: Path, **secrets: dict[str, str]) -> Path:
    for name, values in secrets.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for key, value in values.items():
            (folder / name / key).write_text(value)
    return folder


def upstreams(folder: Path, **trainer: Any) -> Upstreams:
    return Upstreams(TrainerSettings(image="trainer@sha256:1", **trainer), folder)


BASIC = {"username": "me", "password": PASSWORD + "\n"}


def test_each_value_is_bound_to_the_address_it_is_for(tmp_path: Path) -> None:
    mount(tmp_path, index=BASIC, hub={"token": "hub-token"}, proxy=BASIC)
    values = upstreams(tmp_path, **ADDRESSES, **SECRETS).values()

    (tmp_path / "netrc").write_text(values["netrc"])
    assert netrc(tmp_path / "netrc").hosts == {"index.example": ("me", "", PASSWORD)}
    assert json.loads(values["hub.json"]) == {
        "endpoint": "https://hub.example", "token": "hub-token", "username": "", "password": "",
    }  # fmt: skip
    assert values["HTTPS_PROXY"] == "http://me:pa%3Ass%20%5Cwo%22rd%40%231@proxy.example:3128"


def test_a_hub_may_ask_for_a_password_instead_of_a_token(tmp_path: Path) -> None:
    mount(tmp_path, hub=BASIC)
    hub = json.loads(upstreams(tmp_path, hub_secret="hub").values()["hub.json"])
    assert (hub["username"], hub["password"], hub["token"]) == ("me", PASSWORD, "")


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        (None, "has no usable key password"),
        ("", "is not one line of ASCII characters"),
        ("two\nlines", "is not one line of ASCII characters"),
        ("hushhüsh", "is not one line of ASCII characters"),
    ],
)
def test_a_secret_that_cannot_be_used_is_named_without_its_value(
    tmp_path: Path, password: str | None, problem: str
) -> None:
    mount(tmp_path, index={"username": "me"} | ({} if password is None else {"password": password}))
    with pytest.raises(SettingsError, match=problem) as error:
        upstreams(tmp_path, **ADDRESSES, pip_index_secret="index").values()
    assert "trainer.pipIndexSecret" in str(error.value)
    assert not password or password not in str(error.value)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index that asks for a password."""
    wheel(project(tmp_path / "served", "aaa_test"), "aaa_test")
    private = type("Private", (PrivateHandler,), {"login": f"me:{PASSWORD}"})
    with serving(partial(private, directory=str(tmp_path / "served"))) as address:
        yield address


def test_pip_logs_in_with_what_is_published(tmp_path: Path, index: str) -> None:
    mount(tmp_path, index=BASIC)
    file = tmp_path / "netrc"

    def download(content: str) -> subprocess.CompletedProcess[str]:
        file.write_text(content)
        words = ["--index-url", index, "--no-input", "--no-cache-dir", "aaa-test"]
        return subprocess.run(
            [sys.executable, "-m", "pip", "download", "-d", tmp_path / "got", *words],
            env={"NETRC": str(file), "PIP_CONFIG_FILE": "/dev/null", "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
        )

    assert download("").returncode != 0
    settings = upstreams(tmp_path, pip_index_url=index, pip_index_secret="index")
    done = download(settings.values()["netrc"])
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "got").iterdir()] == ["aaa_test-1.0-py3-none-any.whl"]
    assert PASSWORD not in done.stdout + done.stderr


KINDS = "flashruns,jobs,pods,configmaps,events,services"


@pytest.mark.api
async def test_passwords_are_in_secrets_alone_and_the_operator_follows_and_restores_them(
    operators: Operators,
    make_world: Callable[..., World],
):
    world = make_world(**ADDRESSES, **SECRETS)
    operators.world = world
    folder = mount(operators.folder / "upstreams", index=BASIC, hub=BASIC, proxy=BASIC)
    process = operators.start()
    await world.submit(RUN)
    await wait_for_phase(world, RUN, "Starting")
    pod = await world.pod(RUN)
    mounts = {
        container["name"]: {item["name"] for item in container["volumeMounts"]} & {"index", "hub"}
        for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"])
    }
    assert mounts == {"model": {"hub"}, "packages": {"index"}, "trainer": set()}

    written = Upstreams(world.platform.trainer, folder)
    secret = (world.namespace, names.UPSTREAMS_SECRET)
    for _ in range(200):  # pods wait for it
        if await world.cluster.metadata("Secret", *secret) is not None:
            break
        await asyncio.sleep(0.1)
    assert await world.cluster.secret_value(*secret, "netrc") == written.values()["netrc"]
    shown = kubectl(world.kubeconfig, "get", KINDS, "-n", world.namespace, "-o", "json")
    quoted = written.values()["HTTPS_PROXY"].split(":")[2].partition("@")[0]
    for text in (shown, operators.logs(), operators.ask(process, "/metrics")[1]):
        assert not [word for word in (PASSWORD, quoted, json.dumps(PASSWORD)[1:-1]) if word in text]

    # Somebody with the role edit changes it; the administrator changes the password.
    await world.kubectl("patch", "secret", secret[1], "-p", '{"stringData": {"netrc": "x"}}')
    await written.publish_in(world.cluster, world.namespace, {})
    assert await world.cluster.secret_value(*secret, "netrc") == written.values()["netrc"]
    mount(folder, index={"password": "another"})
    await written.publish_in(world.cluster, world.namespace, {})
    assert '"another"' in await world.cluster.secret_value(*secret, "netrc")

    # The platform needs none any more: nothing is left of them.
    none = Upstreams(TrainerSettings(image="trainer@sha256:1"), folder)
    await none.publish_in(world.cluster, world.namespace, {})
    found = yaml.safe_load(
        kubectl(world.kubeconfig, "get", "secret", secret[1], "-n", secret[0], "-o", "yaml")
    )
    assert set(found["data"].values()) <= {""}
    before = found["metadata"]["resourceVersion"]
    await none.publish_in(world.cluster, world.namespace, {})
    metadata = await world.cluster.metadata("Secret", *secret)
    assert metadata is not None
    assert metadata["resourceVersion"] == before
