"""The chart's rights on a real API server: what the operator and others may do, and may not."""

import json
import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from flashrun.api import names
from flashrun.cluster import Cluster
from flashrun.cluster_errors import Forbidden
from localcluster import toolchain
from localcluster.steps import StepRunner
from tests.controller.conftest import ROOT, Operators
from tests.controller.stage import World, wait_for_phase
from tests.servers import kubectl

pytestmark = pytest.mark.api
SYSTEM = "flashrun-system"
RUN = "flash-1-0a1b2c3d"
RIGHTS_FOLDER = ROOT / "tests" / "charts" / "rights"
EVERYONE = ("--as", "jane", "--as-group", "system:authenticated")
OPERATOR = ("--as", f"system:serviceaccount:{SYSTEM}:flashrun")
RIGHTS = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def chart(folder: Path, *values: str) -> list[dict]:
    with closing(StepRunner.silent(folder)) as steps:
        helm = toolchain.program("helm", steps)
    given = [
        *("operator.image=operator@sha256:1", "trainer.image=trainer@sha256:2"),
        *("storage.endpoint=http://s3.example", "storage.accessKey=a", "storage.secretKey=b"),
        *values,
    ]
    words = [word for value in given for word in ("--set", value)]
    command = [helm, "template", "flashrun", ROOT / "charts" / "flashrun", "-n", SYSTEM, *words]
    command += ["--kube-version", "1.34.4"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [item for item in yaml.safe_load_all(text) if item]


def log_in(admin: Path, path: Path, token: str) -> None:
    """Write a kubeconfig for whoever has ``token``."""
    config = yaml.safe_load(admin.read_text())
    config["users"][0]["user"] = {"token": token}
    config["contexts"][0]["context"]["namespace"] = SYSTEM
    path.write_text(yaml.safe_dump(config))


@pytest_asyncio.fixture
async def operator(
    installed: Path, cluster: Cluster, namespace: str, tmp_path: Path
) -> AsyncIterator[Path]:
    """The kubeconfig of the operator's service account, with the chart's rights."""
    rights = [
        item for item in chart(tmp_path, f"namespaces[0]={namespace}") if item["kind"] in RIGHTS
    ]
    if await cluster.find("Namespace", None, SYSTEM) is None:
        metadata = {"name": SYSTEM}
        await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    text = yaml.safe_dump_all(rights)
    kubectl(installed, "apply", "--server-side", "-f", "-", stdin=text)
    [account] = [item for item in rights if item["kind"] == "ServiceAccount"]
    token = kubectl(installed, "create", "token", account["metadata"]["name"], "-n", SYSTEM)
    path = tmp_path / "operator.kubeconfig"
    log_in(installed, path, token.strip())
    yield path
    kubectl(installed, "delete", "-f", "-", stdin=text)


MAY = [
    ("list", names.KIND, ""),
    ("watch", names.KIND, ""),
    ("patch", names.KIND, "status"),
    ("create", "Job", ""),
    ("watch", "Job", ""),
    ("delete", "Pod", ""),
    ("create", "Secret", ""),
    ("get", "Secret", ""),
    ("create", "Service", ""),
    ("patch", "Service", ""),
    ("create", "Event", ""),
    ("list", "Event", ""),
]
MAY_NOT = [
    ("list", "Secret", ""),
    ("watch", "Secret", ""),
    ("watch", "Event", ""),
    ("delete", "Event", ""),
    ("list", "Service", ""),
    ("delete", "Service", ""),
    ("create", "Pod", ""),
    ("create", "Pod", "exec"),
    ("get", "Pod", "log"),
    ("patch", names.KIND, ""),
    ("delete", names.KIND, ""),
]


async def test_the_operator_may_do_its_work_where_it_serves_and_nowhere_else(
    operator: Path, namespace: str
):
    async with await Cluster.login(operator) as account:
        for verb, kind, sub in MAY:
            assert await account.may(verb, kind, namespace, sub), (verb, kind, sub)
            elsewhere = await account.may(verb, kind, "default", sub)
            assert not elsewhere, (verb, kind, sub)
        for verb, kind, sub in MAY_NOT:
            assert not await account.may(verb, kind, namespace, sub), (verb, kind, sub)
        with pytest.raises(Forbidden, match="you may not get secrets in namespace kube-system"):
            await account.get("Secret", "kube-system", "anything")


async def test_everyone_reads_the_public_config_map_and_no_other(
    operator: Path, installed: Path, namespace: str
):
    def may(*words: str) -> bool:
        asked = ["auth", "can-i", *words, "-n", namespace]
        try:
            return kubectl(installed, *asked, *EVERYONE).strip() == "yes"
        except subprocess.CalledProcessError:
            return False

    assert may("get", "configmaps/flashrun-public")
    assert not may("get", "configmaps/other")
    assert not may("get", "secrets/flashrun-storage-user")


def rights(admin: Path, namespace: str, who: tuple[str, ...]) -> set[str]:
    """Return all that ``who`` may do in ``namespace``, each as "resource [name]: verb"."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    answer = kubectl(admin, "create", "--raw", path, "-f", "-", *who, stdin=json.dumps(review))
    status = json.loads(answer)["status"]
    return {
        f"{full_name(resource, group)}{' ' + name if name else ''}: {verb}"
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
        for verb in rule["verbs"]
    } | {
        f"{url}: {verb}"
        for rule in status["nonResourceRules"]
        for url in rule["nonResourceURLs"]
        for verb in rule["verbs"]
    }


def full_name(resource: str, group: str) -> str:
    """Return a resource as kubectl prints it: ``deployments.apps/scale``."""
    plural, slash, subresource = resource.partition("/")
    return f"{plural}{'.' + group if group else ''}{slash}{subresource}"


def in_lines(allowed: set[str]) -> str:
    """Return a line per resource with its verbs."""
    verbs: dict[str, list[str]] = {}
    for right in sorted(allowed):
        resource, _, verb = right.rpartition(": ")
        verbs.setdefault(resource, []).append(verb)
    return "".join(f"{item}: {' '.join(found)}\n" for item, found in verbs.items()) or "nothing\n"


@pytest.fixture
def unserved(installed: Path, namespace: str) -> str:
    """A namespace that the chart does not know."""
    name = f"{namespace}-unserved"
    kubectl(installed, "create", "namespace", name)
    return name


def bind(admin: Path, role: str, namespace: str, kind: str = "clusterrole") -> tuple[str, ...]:
    """Bind a role to a new user; return how kubectl acts as this user."""
    user = f"{role}-user"
    words = (f"--{kind}={role}", f"--user={user}", "-n", namespace)
    kubectl(admin, "create", "rolebinding", user, *words)
    return ("--as", user, "--as-group", "system:authenticated")


def wait_for_aggregation(admin: Path) -> None:
    """Wait until the roles of users have the chart's rules."""
    for role in ("admin", "edit", "view"):
        for _ in range(100):
            if "flashruns" in kubectl(admin, "get", "clusterrole", role, "-o", "json"):
                break
            time.sleep(0.1)


@pytest.mark.usefixtures("operator")
def test_everyones_rights_are_those_in_the_checked_in_files(
    installed: Path, namespace: str, unserved: str
):
    """``UPDATE_GOLDEN=1`` rewrites the files; their diff shows what a change gives to whom."""
    wait_for_aggregation(installed)
    common = rights(installed, unserved, EVERYONE)
    own, served, elsewhere = "the operator's namespace", "a served namespace", "another namespace"
    asked: dict[str, list[tuple[str, tuple[str, ...], str]]] = {
        "operator": [
            (own, OPERATOR, SYSTEM),
            (served, OPERATOR, namespace),
            (elsewhere, OPERATOR, unserved),
        ]
    }
    for role in ("admin", "edit", "view"):
        user = bind(installed, role, namespace)
        asked[role] = [
            (own, user, SYSTEM),
            (served, user, namespace),
            (elsewhere, user, unserved),
        ]
    user = bind(installed, "flashrun-storage-forward", unserved)
    storage = "the namespace of storage"
    asked["storage-forward"] = [(storage, user, unserved), (served, user, namespace)]
    user = bind(installed, "flashrun-models", SYSTEM, kind="role")
    asked["models"] = [(own, user, SYSTEM), (served, user, namespace)]
    pod = ("--as", f"system:serviceaccount:{namespace}:default")
    asked["trainer"] = [(served, pod, namespace), (elsewhere, pod, unserved)]
    actual = {
        name: "\n".join(
            f"# in {place}\n{in_lines(rights(installed, where, who) - common)}"
            for place, who, where in places
        )
        for name, places in asked.items()
    }
    served_to_all = rights(installed, namespace, EVERYONE) - common
    actual["everyone"] = (
        f"# in any namespace; the other files leave these out\n{in_lines(common)}\n"
        f"# in {served}\n{in_lines(served_to_all)}"
    )
    if os.environ.get("UPDATE_GOLDEN"):
        for name, text in actual.items():
            (RIGHTS_FOLDER / f"{name}.txt").write_text(text)
    assert actual == {path.stem: path.read_text() for path in RIGHTS_FOLDER.glob("*.txt")}


async def test_a_run_is_carried_to_its_end_with_the_charts_rights(
    operators: Operators, world: World, operator: Path
):
    process = operators.start(operator)
    operators.wait(lambda: operators.leads(process))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "keys",
            "namespace": world.namespace,
            "labels": {names.SECRETS_LABEL: "true"},
        },
        "stringData": {"SERVICE_API_KEY": "value"},
    }
    await world.cluster.create(secret)
    await world.submit(
        RUN,
        environment={"id": "org/env", "secrets": ["SERVICE_API_KEY"]},
        secretRefs=[{"name": "keys"}],
    )
    await wait_for_phase(world, RUN, "Starting")
    trainer = await world.trainer(RUN)
    trainer.beat(3)
    await wait_for_phase(world, RUN, "Running")
    await world.control(RUN, saveRequest="now")
    await trainer.succeed()
    await wait_for_phase(world, RUN, "Succeeded")
    operators.wait(lambda: operators.ask(process, "/healthz") == (200, "ok"))
    assert "you may not" not in operators.logs(), operators.logs()
