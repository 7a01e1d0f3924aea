"""What ends a pass becomes a sentence in the run's status, within that pass.

Each cause is real: admission policies, webhooks, quotas and foreign objects are those of a real API
server.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.reasons import Reason
from flashrun.api.resource import FlashRun, FlashRunStatus
from flashrun.cli.output import formatting
from flashrun.cluster import Cluster
from flashrun.cluster_errors import ClusterError, Conflict, Forbidden, Unreachable
from flashrun.controller import reconcile
from flashrun.controller.pass_errors import explain_error
from flashrun.controller.storage_access import AccessIssuer
from flashrun.plan import placement
from flashrun.plan.decide import decide
from flashrun.store_errors import Corrupt, StorageForbidden, Unavailable
from tests.controller.stage import Object, World
from tests.servers import kubectl

RUN = "flash-1-0a1b2c3d"
RULE = "teams bring a cost centre"


EXPLAINED = [
    (Unavailable("s3 does not answer"), "StorageUnavailable", "s3 does not answer"),
    (Corrupt("the size differs"), "StorageUnavailable", "the size differs"),
    (Forbidden("exceeded quota: team"), "ClusterRefuses", "exceeded quota: team"),
    (Unreachable("etcd is slow"), "ClusterUnavailable", "etcd is slow"),
    (Conflict("changed in between"), "ClusterUnavailable", "changed in between"),
]


@pytest.mark.parametrize(("error", "reason", "sentence"), EXPLAINED)
def test_an_error_of_another_program_is_explained_in_its_own_words(error, reason, sentence) -> None:
    assert explain_error(error) == (reason, sentence)


def test_an_error_of_the_operator_names_its_place_and_keeps_its_text_to_the_log() -> None:
    with pytest.raises(AttributeError) as raised:
        placement.choose_placement((), "s3cret-value", "sft", None)  # type: ignore[arg-type]
    reason, message = explain_error(raised.value)

    assert reason is Reason.OPERATOR_FAILED
    assert "AttributeError in flashrun.plan.placement." in message
    assert "s3cret" not in message


# --- causes on a real API server ------------------------------------------------------------------


def policy(namespace: str, group: str, resource: str) -> list[Object]:
    """An admission policy that refuses to create or change ``resource`` in one namespace."""
    name = f"{namespace}-{resource.replace('/', '-')}"
    rule = {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": [resource],
    }
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    version = "admissionregistration.k8s.io/v1"
    return [
        {
            "apiVersion": version,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule], **here},
                "validations": [{"expression": "false", "message": RULE}],
            },
        },
        {
            "apiVersion": version,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]


def webhook(namespace: str, group: str, resource: str) -> list[Object]:
    """An admission webhook that nobody serves and that must not be left out."""
    rule = {
        "apiGroups": [group],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": [resource],
    }
    hook = {
        "name": "costs.example.org",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
    }
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": f"{namespace}-{resource}"},
            "webhooks": [hook],
        }
    ]


def quota(namespace: str, group: str, resource: str) -> list[Object]:
    """A quota that is used up."""
    counted = f"count/{resource}{'.' if group else ''}{group}"
    return [
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": f"no-{resource}", "namespace": namespace},
            "spec": {"hard": {counted: "0"}},
        }
    ]


KINDS = {"Job": ("batch", "jobs"), "Secret": ("", "secrets"), "ConfigMap": ("", "configmaps")}
CAUSES = {
    "an admission policy": (policy, "ClusterRefuses", RULE),
    "a webhook that does not answer": (webhook, "ClusterUnavailable", "failed calling webhook"),
    "a quota": (quota, "ClusterRefuses", "exceeded quota"),
}


async def apply(world: World, manifests: list[Object]) -> None:
    for manifest in manifests:
        await world.kubectl("apply", "-f", "-", stdin=manifest)


async def remove(world: World, manifests: list[Object]) -> None:
    for manifest in manifests:
        await world.kubectl("delete", "-f", "-", stdin=manifest)


async def wait_until_refused(world: World, kind: str) -> None:
    """Admission plugins learn of a new policy within about a second."""
    manifest: Object = {
        "apiVersion": "batch/v1" if kind == "Job" else "v1",
        "kind": kind,
        "metadata": {"name": "probe", "namespace": world.namespace},
    }
    if kind == "Job":
        pod = {"containers": [{"name": "a", "image": "b"}], "restartPolicy": "Never"}
        manifest["spec"] = {"template": {"spec": pod}}
    for _ in range(100):
        try:
            await world.cluster.create(manifest, dry_run=True)
        except ClusterError:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the cluster takes everything")


async def try_pass(world: World) -> Exception | None:
    """Let the operator look once; return what ended the pass."""
    try:
        await world.pass_over(RUN)
    except Exception as error:
        return error
    return None


async def assert_explained(world: World, reason: str, sentence: str) -> FlashRun:
    """The sentence is the same in status, in ``kubectl get -o wide`` and in ``flash status``."""
    run = await world.run(RUN)
    assert run.status.pending is not None, run.status
    message = run.status.pending.message
    assert (run.status.pending.reason, sentence in message) == (reason, True), message
    assert message.isprintable()
    ready = run.status.condition("Ready")
    assert (ready.status, ready.reason, ready.message) == ("False", reason, message)
    listed = await asyncio.to_thread(
        kubectl, world.kubeconfig, "get", "flashruns", "-n", world.namespace, "-o", "wide"
    )
    assert message in listed
    summary = formatting.summary(run, datetime.now(UTC))
    assert any(message in text for _, text in summary), summary
    assert message.rstrip(".") in formatting.progress_line(run.status)  # of flash train
    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cause", CAUSES)
async def test_what_the_cluster_refuses_is_in_the_status_within_one_pass(
    world: World, cause: str, kind: str
):
    make, reason, sentence = CAUSES[cause]
    manifests = make(world.namespace, *KINDS[kind])
    await apply(world, manifests)
    await wait_until_refused(world, kind)
    await world.submit(RUN)
    assert isinstance(await try_pass(world), ClusterError)
    await assert_explained(world, reason, sentence)

    await try_pass(world)
    before = await world.cluster.get(names.KIND, world.namespace, RUN)
    await try_pass(world)
    after = await world.cluster.get(names.KIND, world.namespace, RUN)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]

    await remove(world, manifests)
    run = await world.phase(RUN, "Starting")
    assert run.status.pending is None or run.status.pending.reason != reason


FOREIGN: list[tuple[str, Callable[[FlashRun], str]]] = [
    ("Job", lambda run: names.job_name(run.name, run.uid, 0)),
    ("Secret", lambda run: names.storage_secret_name(run.name, run.uid)),
    ("Secret", lambda run: names.secrets_name(run.name, run.uid)),
]


@pytest.mark.parametrize(("kind", "name_of"), FOREIGN, ids=["Job", "storage Secret", "Secret"])
async def test_a_foreign_object_of_the_same_name_is_named_in_the_status(
    world: World, kind: str, name_of: Callable[[FlashRun], str]
):
    name = name_of(await world.submit(RUN, secretRefs=[{"name": "team-keys"}]))
    words = ["job", name, "--image=other"] if kind == "Job" else ["secret", "generic", name]
    await world.kubectl("create", *words)
    assert isinstance(await try_pass(world), ClusterError)
    await assert_explained(world, "ClusterRefuses", name)
    await world.kubectl("delete", kind.lower(), name)
    await world.phase(RUN, "Starting")


def sts_refuses(world: World, patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise StorageForbidden("DurationSeconds exceeds\x1b[31m the role's MaxSessionDuration")

    patch.setattr(AccessIssuer, "issue", refuse)


def storage_takes_no_note(world: World, patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise Unavailable("s3.example: 503 SlowDown")

    patch.setattr(world.known, "note", refuse)


def decision_raises(world: World, patch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        return decide(None, *_[1:])  # type: ignore[arg-type]

    patch.setattr(reconcile, "decide", broken)


def write_raises(world: World, patch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("value-of-a-secret")

    patch.setattr(world.reconciler._cluster, "_create_secret", broken)


OWN_CAUSES: list[tuple[Callable[[World, pytest.MonkeyPatch], None], str, str]] = [
    (sts_refuses, "StorageUnavailable", "DurationSeconds exceeds[31m the role's Max"),
    (storage_takes_no_note, "StorageUnavailable", "503 SlowDown"),
    (decision_raises, "OperatorFailed", "AttributeError in flashrun.plan.decide.decide"),
    (write_raises, "OperatorFailed", "RuntimeError in flashrun.cluster.create_secret"),
]


@pytest.mark.parametrize(
    ("break_it", "reason", "sentence"), OWN_CAUSES, ids=[row[0].__name__ for row in OWN_CAUSES]
)
async def test_storage_and_errors_of_the_operator_are_in_the_status_within_one_pass(
    world: World, monkeypatch: pytest.MonkeyPatch, break_it: Any, reason: str, sentence: str
):
    await world.submit(RUN)
    with monkeypatch.context() as patch:
        break_it(world, patch)
        error = await try_pass(world)
        assert error is not None
        await assert_explained(world, reason, sentence)
        assert "value-of-a-secret" not in str((await world.run(RUN)).status)
    await world.phase(RUN, "Starting")


async def test_what_was_pinned_before_a_refusal_stays_pinned(world: World):
    manifests = policy(world.namespace, "batch", "jobs")
    await apply(world, manifests)
    await wait_until_refused(world, "Job")
    await world.submit(RUN)
    await try_pass(world)
    pinned = (await world.run(RUN)).status.resolved
    assert pinned is not None
    await remove(world, manifests)
    run = await world.phase(RUN, "Starting")
    assert run.status.resolved.spec_digest == pinned.spec_digest


async def test_every_status_that_is_written_counts_for_traces_also_before_a_refusal(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """The first pass that sees a step may create another Job: no later pass sees it first."""
    noted: list[FlashRunStatus] = []
    traces = SimpleNamespace(note=lambda run, status, observed: noted.append(status))
    monkeypatch.setattr(world.reconciler, "_traces", traces)
    create = Cluster.create

    async def refusing(self: Cluster, manifest: dict[str, Any], *args: Any, **more: Any) -> Any:
        if manifest["kind"] == "Job":
            raise Forbidden("Jobs are refused")
        return await create(self, manifest, *args, **more)

    await world.submit(RUN)
    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "create", refusing)
        await try_pass(world)
    [pinned] = noted
    assert pinned.resolved is not None
    await try_pass(world)
    assert [status.phase for status in noted] == ["Starting"] * 2


async def test_an_immutable_config_map_in_the_way_of_a_new_run_is_replaced(world: World):
    """The API server answers 422 to each write of it, and what is pinned shows what is wrong."""
    manifests = policy(world.namespace, "batch", "jobs")
    await apply(world, manifests)
    await wait_until_refused(world, "Job")
    await world.submit(RUN)
    await try_pass(world)
    digest = (await world.run(RUN)).status.resolved.spec_digest
    run = await world.run(RUN)
    name = names.spec_config_map_name(RUN, run.uid, digest)
    kept = await world.cluster.get("ConfigMap", world.namespace, name)
    await world.cluster.delete("ConfigMap", world.namespace, name)
    other = {key: kept["metadata"][key] for key in ("name", "namespace", "labels")}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": other, "immutable": True}
    await world.cluster.create(body | {"data": {names.SPEC_KEY: "{}"}})
    await world.cluster.patch_status(names.KIND, world.namespace, RUN, {"resolved": None})
    await remove(world, manifests)

    assert isinstance(await try_pass(world), ClusterError)
    await assert_explained(world, "ClusterRefuses", "immutable")
    await world.until(RUN, lambda run: run.status.resolved and run.status.resolved.job_uid)
    assert (await world.spec_config_map(RUN))["data"] == kept["data"]


async def test_a_finished_run_keeps_its_status_when_a_later_pass_ends_with_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    await world.submit(RUN)
    await world.phase(RUN, "Starting")
    await (await world.trainer(RUN)).succeed()
    finished = await world.phase(RUN, "Succeeded")
    decision_raises(world, monkeypatch)
    assert await try_pass(world) is not None
    assert (await world.run(RUN)).status == finished.status


async def test_a_status_that_the_cluster_refuses_becomes_an_event(world: World):
    manifests = policy(world.namespace, names.GROUP, f"{names.PLURAL}/status")
    await apply(world, manifests)
    run = await world.submit(RUN)
    for _ in range(100):
        error = await try_pass(world)
        if error is not None:
            break
        await world.control(RUN, saveRequest=f"now-{_}")  # the policy was not known yet
        await asyncio.sleep(0.1)
    assert isinstance(error, ClusterError)
    events = [
        event
        for event in await world.cluster.list("Event", world.namespace)
        if event["involvedObject"]["uid"] == run.uid and event["reason"] == "ClusterRefuses"
    ]
    assert RULE in events[0]["message"]
    await remove(world, manifests)


async def test_a_run_that_no_operator_has_seen_says_so(world: World):
    run = await world.submit(RUN)
    assert run.status.observed_generation == 0
    ready = run.status.condition("Ready")
    assert (ready.status, ready.reason, ready.message) == (
        "Unknown",
        Reason.UNSEEN,
        Reason.UNSEEN.sentence,
    )
    words = ("get", "flashruns", "-n", world.namespace, "-o", "wide")
    listed = await asyncio.to_thread(kubectl, world.kubeconfig, *words)
    assert Reason.UNSEEN.sentence in listed
    await world.pass_over(RUN)
    run = await world.run(RUN)
    assert Reason.UNSEEN not in {condition.reason for condition in run.status.conditions}
    assert all(condition.last_transition_time.year > 2000 for condition in run.status.conditions)
