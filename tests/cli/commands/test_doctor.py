"""``flash doctor``: with something missing on a real API server, each line says how to fix it."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from flashrun.api import names
from flashrun.api.public import PublicPool
from flashrun.api.records import StorageAccess
from flashrun.plan.storage_policies import namespace_policy
from tests.cli.shell import ORGS, ROOT, Served, Shell
from tests.servers import kubectl, start_control_plane, wait_until_served
from tests.store.small_s3 import Fault, small_s3


def lines(served: Served, *words: str) -> dict[str, dict[str, str]]:
    done = served.flash("doctor", "-o", "json", *words)
    found = {line["check"]: line for line in json.loads(done.stdout)}
    failed = any(line["level"] == "fail" for line in found.values())
    assert done.returncode == int(failed), done.stdout
    return found


def test_a_served_namespace_is_healthy(served: Served) -> None:
    done = served.flash("doctor")

    assert done.returncode == 0, done.stdout
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert {row[0] for row in rows} == {"ok"}
    assert [row[1] for row in rows] == [
        *("API server", "CRD", "rights", "operator", "storage", "pool h100", "Kueue", "secrets")
    ]
    assert "reached directly" in done.stdout
    assert checks_on_page() == [row[1].partition(" h100")[0] for row in rows]


def checks_on_page() -> list[str]:
    """The checks that docs/for-operators.md shows, with its pools as one."""
    page = (ROOT / "docs" / "for-operators.md").read_text()
    found = re.findall(r"^ok  (\S+(?: \S+)*?)  +\S", page, re.MULTILINE)
    return list(dict.fromkeys(re.sub("^pool .*", "pool", check) for check in found))


def test_a_namespace_that_is_not_served_fails(served: Served) -> None:
    found = lines(served, "-n", "default")

    assert found["operator"]["level"] == "fail"
    assert "choose one with -n" in found["operator"]["fix"]
    assert "flashrun-storage-user" in found["storage"]["seen"]
    assert found["CRD"]["level"] == "ok"


def test_an_operator_that_stopped_publishing_fails(served: Served) -> None:
    served.publish(updated=datetime.now(UTC) - timedelta(minutes=12))
    assert lines(served)["operator"]["seen"] == "last published 12 minutes ago"

    served.publish(version="9.9.9")
    found = lines(served)["operator"]
    assert (found["level"], "use the same release" in found["fix"]) == ("warn", True)


POOLS = [
    ({"total": 0, "free": 0}, "warn", "it has no nodes"),
    ({"total": 8, "free": 0}, "warn", "0 of 8 free"),
    ({"total": 8, "free": 3}, "ok", "3 of 8 free"),
]


@pytest.mark.parametrize(("counted", "level", "seen"), POOLS)
def test_pools_say_what_is_free(
    served: Served, counted: dict[str, int], level: str, seen: str
) -> None:
    served.publish(pools=(PublicPool(name="h100", vram=80, **counted),))
    found = lines(served)["pool h100"]

    assert (found["level"], seen in found["seen"]) == (level, True)


def test_a_queue_without_kueue_fails(served: Served) -> None:
    served.publish(queue="team")
    found = lines(served)["Kueue"]

    assert found["level"] == "fail"
    assert found["seen"] == "runs go to LocalQueue team, but Kueue is not installed"


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
def test_a_queue_must_exist_in_the_namespace_and_admit_runs(served: Served, version: str) -> None:
    served.publish(queue="team")
    crd = json.dumps(local_queues(version))
    kubectl(served.kubeconfig, "apply", "-f", "-", stdin=crd)
    try:
        wait_until_served(served.kubeconfig, "localqueues.kueue.x-k8s.io")
        assert "LocalQueue team does not exist" in lines(served)["Kueue"]["seen"]
        queue = {
            "apiVersion": f"kueue.x-k8s.io/{version}",
            "kind": "LocalQueue",
            "metadata": {"name": "team"},
        }
        served.kubectl("apply", "-f", "-", stdin=json.dumps(queue))
        assert lines(served)["Kueue"]["level"] == "ok"
        stopped = {"type": "Active", "status": "False", "message": "clusterQueue is inactive"}
        queue["status"] = {"conditions": [stopped]}
        served.kubectl("apply", "-f", "-", stdin=json.dumps(queue))
        found = lines(served)["Kueue"]
        assert (found["level"], "clusterQueue is inactive" in found["seen"]) == ("fail", True)
    finally:
        kubectl(served.kubeconfig, "delete", "-f", "-", stdin=crd)


def local_queues(name: str) -> dict[str, object]:
    """Kueue's LocalQueue as far as anyone here looks at it."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": name, "served": True, "storage": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "localqueues.kueue.x-k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in"},
        },
        "spec": {
            "group": "kueue.x-k8s.io",
            "scope": "Namespaced",
            "names": {"kind": "LocalQueue", "plural": "localqueues", "singular": "localqueue"},
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def test_what_the_operator_found_missing_in_storage_is_shown(served: Served) -> None:
    served.publish(storage_problem="storage https://s3.example/b cannot be used: no parts")
    found = lines(served)["storage"]

    assert found["level"] == "fail"
    assert found["seen"] == "storage https://s3.example/b cannot be used: no parts"


def give_access(served: Served, access: StorageAccess) -> None:
    """Give people of the namespace this access to storage, as the operator does."""
    patch = {"stringData": {"access.json": access.model_dump_json(exclude_none=True)}}
    words = ("--type=merge", "-p", json.dumps(patch))
    served.kubectl("patch", "secret", names.STORAGE_USER_SECRET, *words)


def test_storage_is_tried_from_here_with_the_rights_of_people(served: Served) -> None:
    policy = namespace_policy(
        served.store.access.bucket_arn, served.namespace, (served.namespace, *ORGS)
    )
    give_access(served, served.store.assume(policy, 900))
    served.publish_address(storage_problem="")

    assert lines(served)["storage"]["level"] == "ok"
    assert list(served.store.list(names.PROBE_PREFIX)) == []

    everything = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}
    unlimited = {"Version": "2012-10-17", "Statement": [everything]}
    give_access(served, served.store.assume(unlimited, 900))
    found = lines(served)["storage"]
    assert "people in this namespace can list what belongs to others" in found["seen"]

    with small_s3(Fault.OVERWRITES) as s3:
        give_access(served, s3.access)
        served.publish_address(storage_problem="", storage_endpoint=s3.url)
        assert "overwrites an object" in lines(served)["storage"]["seen"]


def test_storage_that_is_not_reachable_fails(served: Served) -> None:
    access = served.store.access.model_copy(update={"endpoint": "http://127.0.0.1:1"})
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": names.STORAGE_USER_SECRET},
        "stringData": {"access.json": access.model_dump_json(exclude_none=True)},
    }
    served.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
    found = lines(served)["storage"]

    assert (found["level"], "the connection was refused" in found["seen"]) == ("fail", True)


@pytest.fixture
def viewer(served: Served) -> Served:
    """Somebody who may look at the namespace, and read its Secret for people, and no more."""
    served.kubectl("create", "serviceaccount", "viewer")
    who = f"--serviceaccount={served.namespace}:viewer"
    served.kubectl("create", "rolebinding", "viewer", "--clusterrole=view", who)
    secret = ("--verb=get", "--resource=secrets", f"--resource-name={names.STORAGE_USER_SECRET}")
    runs = ("--verb=list,get", "--resource=flashruns.flashrun.dev")
    served.kubectl("create", "role", "keys", *secret)
    served.kubectl("create", "rolebinding", "keys", "--role=keys", who)
    served.kubectl("create", "role", "runs", *runs)
    served.kubectl("create", "rolebinding", "runs", "--role=runs", who)
    path = served.flash.folder / "kubeconfig"
    config = yaml.safe_load(path.read_text())
    token = served.kubectl("create", "token", "viewer").strip()
    config["users"][0]["user"] = {"token": token}
    path.write_text(yaml.safe_dump(config))
    return served


def test_missing_rights_are_listed_with_how_to_get_them(viewer: Served) -> None:
    found = lines(viewer)

    assert found["rights"]["level"] == "fail"
    assert "you may not create FlashRun, patch FlashRun, create Secret" in found["rights"]["seen"]
    assert "--clusterrole=edit" in found["rights"]["fix"]
    assert found["storage"]["level"] == "ok"


def test_storage_inside_the_cluster_needs_the_right_to_forward(viewer: Served) -> None:
    inside = "http://minio.storage-of-tests.svc:9000"
    access = viewer.store.access.model_copy(update={"endpoint": inside})
    text = access.model_dump_json(exclude_none=True)
    patch = json.dumps({"stringData": {"access.json": text}})
    viewer.kubectl("patch", "secret", names.STORAGE_USER_SECRET, "-p", patch)
    told = json.loads(viewer.get("configmap", names.PUBLIC_CONFIG_MAP)["data"]["platform.json"])
    data = {"platform.json": json.dumps(told | {"storageEndpoint": inside})}
    viewer.kubectl("patch", "configmap", names.PUBLIC_CONFIG_MAP, "-p", json.dumps({"data": data}))
    found = lines(viewer)["storage"]

    assert found["level"] == "fail"
    assert "in namespace storage-of-tests you may not get Service, list Pod" in found["seen"]
    assert "--clusterrole=flashrun-storage-forward" in found["fix"]


def test_a_cluster_without_the_crd_fails_with_what_to_install(tmp_path: Path) -> None:
    empty = start_control_plane(tmp_path / "empty")
    try:
        done = Shell(tmp_path, empty.kubeconfig)("doctor", "-o", "json")
    finally:
        empty.remove()
    found = {line["check"]: line for line in json.loads(done.stdout)}["CRD"]

    assert done.returncode == 1
    assert found["level"] == "fail"
    assert "helm install flashrun charts/flashrun" in found["fix"]


def test_a_cluster_that_does_not_answer_is_the_only_line(served: Served, tmp_path: Path) -> None:
    config = yaml.safe_load(Path(served.flash.environment["KUBECONFIG"]).read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    broken = tmp_path / "broken"
    broken.write_text(yaml.safe_dump(config))
    done = Shell(tmp_path, broken)("doctor")

    assert done.returncode == 1
    [line] = done.stdout.splitlines()
    assert "cannot be reached" in line
