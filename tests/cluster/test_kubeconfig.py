"""A kubeconfig means what kubectl takes it to mean, and its credentials last as long as a command.

Most tests use a small server that answers 401 to every token but the newest; a few the real one.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from flashrun.cluster import Cluster
from flashrun.cluster_errors import Forbidden, NoCluster, Unreachable
from flashrun.port_forward import _Forward
from localcluster.controlplane import ControlPlane
from tests.kubeconfigs import WAYS_IN, read_config, write_config

pytestmark = pytest.mark.usefixtures("_each_client")

PLUGIN = """\
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
with (folder / "calls").open("a") as calls:
    calls.write("x")
status = json.loads((folder / "answer.json").read_text())
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
                  "status": status}))
"""


class TokenServer:
    """An API server that accepts one token, and remembers the headers of every request."""

    def __init__(self) -> None:
        self.token = "first"
        self.requests: list[web.Request] = []
        self.url = ""
        self.together = 0
        """How many requests have to be there before the first one is answered."""
        self.are_together = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        if len(self.requests) >= self.together:
            self.are_together.set()
        await self.are_together.wait()
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        return web.json_response({"kind": "ConfigMap", "metadata": {"name": "x"}})


@pytest_asyncio.fixture
async def server() -> AsyncIterator[TokenServer]:
    handler = TokenServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    handler.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield handler
    await runner.cleanup()


class Plugin:
    """An exec plugin that answers what a test lays out for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "plugin.py").write_text(PLUGIN)

    def answer(self, **status: str) -> None:
        (self.folder / "answer.json").write_text(json.dumps(status))

    @property
    def calls(self) -> int:
        return len((self.folder / "calls").read_text())

    @property
    def user(self) -> dict[str, Any]:
        return {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": sys.executable,
                "args": [str(self.folder / "plugin.py"), str(self.folder)],
            }
        }


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


async def read(cluster: Cluster) -> None:
    await cluster.get("ConfigMap", "n", "x")


# --- renewal --------------------------------------------------------------------------------------


async def test_a_plugin_is_asked_once_while_its_token_lasts(
    server: TokenServer, plugin: Plugin, tmp_path: Path
):
    plugin.answer(token="first", expirationTimestamp="2999-01-01T00:00:00Z")
    async with await Cluster.login(
        write_config(tmp_path / "c", server.url, plugin.user)
    ) as cluster:
        for _ in range(3):
            await read(cluster)

    assert plugin.calls == 1


async def test_a_plugin_is_asked_again_when_its_token_has_ended(
    server: TokenServer, plugin: Plugin, tmp_path: Path
):
    plugin.answer(token="first", expirationTimestamp="2001-01-01T00:00:00Z")
    async with await Cluster.login(
        write_config(tmp_path / "c", server.url, plugin.user)
    ) as cluster:
        server.token = "second"
        plugin.answer(token="second", expirationTimestamp="2999-01-01T00:00:00+02:00")
        await read(cluster)
        await read(cluster)

    assert plugin.calls == 2
    assert len(server.requests) == 2


@pytest.mark.parametrize("ends", ["2001-01-01T00:00:00Z", ""])
async def test_requests_at_the_same_time_ask_a_plugin_once(
    server: TokenServer, plugin: Plugin, tmp_path: Path, ends: str
):
    """Whether the token says that it has ended, or the server."""
    plugin.answer(token="first", **({"expirationTimestamp": ends} if ends else {}))
    config = write_config(tmp_path / "c", server.url, plugin.user)
    async with await Cluster.login(config) as cluster:
        server.token = "second"
        server.together = 0 if ends else 5
        plugin.answer(token="second", expirationTimestamp="2999-01-01T00:00:00Z")
        await asyncio.gather(*(read(cluster) for _ in range(5)))

    assert plugin.calls == 2


async def test_a_refused_token_without_a_time_is_renewed(
    server: TokenServer, plugin: Plugin, tmp_path: Path
):
    plugin.answer(token="first")
    async with await Cluster.login(
        write_config(tmp_path / "c", server.url, plugin.user)
    ) as cluster:
        for token in ("first", "second", "third"):
            server.token = token
            plugin.answer(token=token)
            await read(cluster)

    assert plugin.calls == 3


async def test_credentials_that_stay_refused_are_asked_for_once_more_and_not_for_ever(
    server: TokenServer, plugin: Plugin, tmp_path: Path
):
    plugin.answer(token="wrong")
    async with await Cluster.login(
        write_config(tmp_path / "c", server.url, plugin.user)
    ) as cluster:
        with pytest.raises(Forbidden, match="log in again"):
            await read(cluster)

    assert plugin.calls == 2


async def test_a_token_file_is_read_again_beside_its_kubeconfig(
    server: TokenServer, tmp_path: Path
):
    config = write_config(tmp_path / "home" / "c", server.url, {"tokenFile": "token"})
    file = tmp_path / "home" / "token"
    file.write_text("first\n")
    async with await Cluster.login(config) as cluster:
        await read(cluster)
        server.token = "second"
        file.write_text("second\n")
        await read(cluster)

    assert len(server.requests) == 2


PLUGIN_FAULTS = [
    ("it fails", {"command": "false"}, "process returned 1"),
    ("it is not installed", {"command": "no-such-plugin"}, "no-such-plugin"),
    ("it answers with nothing of use", {}, "neither a token nor a certificate"),
]


@pytest.mark.parametrize(
    ("change", "sentence"), [case[1:] for case in PLUGIN_FAULTS], ids=[c[0] for c in PLUGIN_FAULTS]
)
async def test_a_plugin_that_cannot_be_used_says_why(
    plugin: Plugin, tmp_path: Path, change: dict[str, str], sentence: str
):
    plugin.answer()
    user = {"exec": plugin.user["exec"] | change}
    with pytest.raises(NoCluster, match=sentence):
        await Cluster.login(write_config(tmp_path / "c", "http://127.0.0.1:1", user))


async def test_a_certificate_of_a_plugin_is_used_and_renewed(
    control_plane: ControlPlane, plugin: Plugin, tmp_path: Path
):
    """Against the real API server, which knows its administrator by a certificate."""
    control_plane.client("jane", "/CN=jane")
    entry = read_config(control_plane.kubeconfig)["clusters"][0]["cluster"]
    server, authority = entry["server"], entry["certificate-authority-data"]
    config = write_config(
        tmp_path / "c", server, plugin.user, **{"certificate-authority-data": authority}
    )

    def answer(name: str) -> None:
        folder = control_plane.authority.folder
        plugin.answer(
            clientCertificateData=(folder / f"{name}.crt").read_text(),
            clientKeyData=(folder / f"{name}.key").read_text(),
            expirationTimestamp="2001-01-01T00:00:00Z",
        )

    answer("jane")
    async with await Cluster.login(config) as cluster:
        assert not await cluster.may("create", "Secret", "default")
        answer("admin")
        assert await cluster.may("create", "Secret", "default")

    assert plugin.calls == 3


# --- which context, which address, as whom --------------------------------------------------------


async def test_of_several_files_the_first_current_context_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    paths = [write_config(tmp_path / name, f"http://{name}", {"token": "t"}) for name in "abc"]
    without = yaml.safe_load(paths[0].read_text())
    del without["current-context"]
    paths[0].write_text(yaml.safe_dump(without))
    monkeypatch.setenv("KUBECONFIG", ":".join(["", str(tmp_path / "absent"), *map(str, paths)]))

    async with await Cluster.login() as cluster:
        assert (cluster.context, cluster.server) == ("b", "http://b")
    async with await Cluster.login(context="c") as cluster:
        assert cluster.server == "http://c"


async def test_requests_impersonate_whom_the_kubeconfig_names(server: TokenServer, tmp_path: Path):
    user = {
        "token": "first",
        "as": "jane",
        "as-uid": "7",
        "as-groups": ["developers", "admins"],
        "as-user-extra": {"reason": ["audit"]},
    }
    async with await Cluster.login(write_config(tmp_path / "c", server.url, user)) as cluster:
        await read(cluster)

    headers = server.requests[0].headers
    assert headers["Impersonate-User"] == "jane"
    assert headers["Impersonate-Uid"] == "7"
    assert headers.getall("Impersonate-Group") == ["developers", "admins"]
    assert headers["Impersonate-Extra-reason"] == "audit"


async def test_the_real_server_sees_the_impersonated_user(kubeconfig: Path, tmp_path: Path):
    real = read_config(kubeconfig)
    real["users"][0]["user"] |= {"as": "jane", "as-groups": ["nobodies"]}
    config = tmp_path / "c"
    config.write_text(yaml.safe_dump(real))
    async with await Cluster.login(config) as cluster:
        assert not await cluster.may("create", "Pod", "default")


async def test_a_proxy_of_the_kubeconfig_is_used(server: TokenServer, tmp_path: Path):
    proxied = {"proxy-url": server.url}
    config = write_config(tmp_path / "c", "http://api.invalid", {"token": "first"}, **proxied)
    async with await Cluster.login(config) as cluster:
        await read(cluster)

    assert server.requests[0].headers["Host"] == "api.invalid"


@pytest.mark.parametrize("place", ["proxy-url", "HTTPS_PROXY"])
async def test_a_proxy_of_another_protocol_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    address = "socks5://user:hush@127.0.0.1:1080"
    keys = {place: address} if place == "proxy-url" else {}
    if not keys:
        monkeypatch.setenv(place, address)
    config = write_config(tmp_path / "c", "https://api.test", {"token": "t"}, **keys)
    with pytest.raises(NoCluster, match=f"socks5:// in {place} is not supported") as no:
        await Cluster.login(config)
    assert "hush" not in str(no.value)


def answering(**status: Any) -> dict[str, Any]:
    """A user whose plugin answers this status."""
    version = "client.authentication.k8s.io/v1"
    answer = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})
    arguments = ["-c", f"echo '{answer}'"]
    return {"exec": {"apiVersion": version, "command": "/bin/sh", "args": arguments}}


API = "https://api.test"
MALFORMED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "a proxy with a bracket": (API, {}, {"proxy-url": "http://u:hush@[::1"}, "proxy-url is not"),
    "a proxy with a space": (API, {}, {"proxy-url": "http://u:hush@a b:1"}, "proxy-url is not"),
    "a proxy with a word for a port": (API, {}, {"proxy-url": "a:hush"}, "proxy-url is not"),
    "no server": ("", {}, {}, "its cluster names no server"),
    "a server of another protocol": ("ftp://api.test", {}, {}, "an address of ftp://"),
    "a token that is a number": (API, answering(token=5), {}, "a token that is not a text"),
    "an end that is not a time": (
        API, answering(token="t", expirationTimestamp="soon"), {},
        "expirationTimestamp is not a time",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("server", "user", "cluster", "sentence"), MALFORMED.values(), ids=MALFORMED
)
async def test_what_is_malformed_in_a_kubeconfig_is_named(
    tmp_path: Path, server: str, user: dict[str, Any], cluster: dict[str, Any], sentence: str
):
    config = write_config(tmp_path / "c", server, user, **cluster)
    with pytest.raises(NoCluster, match=sentence) as no:
        await Cluster.login(config)
    assert "hush" not in str(no.value)


async def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path):
    (tmp_path / "c").write_text("[1, 2]")
    with pytest.raises(NoCluster, match="c is not a kubeconfig"):
        await Cluster.login(tmp_path / "c")


async def test_a_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nowhere = tmp_path / "nowhere"
    config = write_config(tmp_path / "c", "https://api.test", {"tokenFile": str(nowhere)})
    with pytest.raises(
        NoCluster, match=rf"cannot be used \({nowhere}: No such file or directory\)"
    ):
        await Cluster.login(config)
    monkeypatch.setenv("KUBECONFIG", str(nowhere))
    with pytest.raises(NoCluster, match=rf"no kubeconfig was found \(KUBECONFIG is {nowhere}\)"):
        await Cluster.login()


async def test_a_program_that_is_no_api_server_has_no_version(server: TokenServer, tmp_path: Path):
    config = write_config(tmp_path / "c", server.url, {"token": "first"})
    async with await Cluster.login(config) as cluster:
        with pytest.raises(Unreachable, match=r"is not an API server of Kubernetes\); kubectl"):
            await cluster.version()


@pytest.mark.parametrize(
    ("cluster", "scheme"),
    [({}, "http"), ({"insecure-skip-tls-verify": True}, "https")],
    ids=["without TLS", "with TLS"],
)
async def test_a_server_without_a_scheme_gets_that_which_kubectl_takes(
    tmp_path: Path, cluster: dict[str, Any], scheme: str
):
    config = write_config(tmp_path / "c", "127.0.0.1:1/", {"token": "t"}, **cluster)
    async with await Cluster.login(config) as found:
        with pytest.raises(Unreachable, match=f"API server {scheme}://127.0.0.1:1 of"):
            await read(found)


async def test_a_proxy_without_a_scheme_is_one_of_http(server: TokenServer, tmp_path: Path):
    proxied = {"proxy-url": server.url.removeprefix("http://")}
    config = write_config(tmp_path / "c", "http://api.invalid", {"token": "first"}, **proxied)
    async with await Cluster.login(config) as cluster:
        await read(cluster)

    assert server.requests[0].headers["Host"] == "api.invalid"


async def test_a_plugin_that_asks_is_told_of_its_cluster(
    server: TokenServer, plugin: Plugin, tmp_path: Path
):
    """Without the content of the kubeconfig that is not for it."""
    plugin.answer(token="first")
    (tmp_path / "ca").write_text("authority")
    (tmp_path / "plugin.py").write_text(
        PLUGIN + "import os\n(folder / 'told').write_text(os.environ['KUBERNETES_EXEC_INFO'])\n"
    )
    extensions = [
        {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "team"}},
        {"name": "other", "extension": {}},
    ]
    user = {"exec": plugin.user["exec"] | {"provideClusterInfo": True}}
    keys = {"certificate-authority": "ca", "tls-server-name": "api", "extensions": extensions}
    async with await Cluster.login(write_config(tmp_path / "c", server.url, user, **keys)):
        pass

    assert json.loads((tmp_path / "told").read_text())["spec"]["cluster"] == {
        "server": server.url,
        "tls-server-name": "api",
        "certificate-authority-data": "YXV0aG9yaXR5",
        "config": {"audience": "team"},
    }


@pytest.mark.parametrize("change", WAYS_IN, ids=lambda change: change.__name__)
async def test_calls_and_port_forwards_honour_the_whole_kubeconfig(
    control_plane: ControlPlane, tmp_path: Path, change: Callable[..., Any]
):
    """The server lets in who may see that there is no such pod, and refuses others before."""
    config, path = read_config(control_plane.kubeconfig), tmp_path / "c"
    async with change(config, control_plane):
        path.write_text(yaml.safe_dump(config))
        async with await Cluster.login(path) as cluster:
            assert await cluster.may("create", "Secret", "default")
            forward = _Forward(cluster, "default", "no-such-pod", 80)
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with forward._socket():
                    pass

    assert refused.value.status == 404
