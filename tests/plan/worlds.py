"""Runs and worlds in the shape that each test needs, and a world that a decision acts on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flashrun.api import names
from flashrun.api.catalog import Model, Source
from flashrun.api.evaluation import best_step
from flashrun.api.exits import Termination
from flashrun.api.platform import (
    EnvironmentSettings,
    Platform,
    Pool,
    StorageSettings,
    TrainerSettings,
)
from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.api.records import (
    Claim,
    Ending,
    EnvironmentPointer,
    Evaluation,
    EvaluationPoint,
    FileEntry,
    Heartbeat,
    Manifest,
    Progress,
    ResolvedAdapter,
    ResolvedRun,
    Result,
    RunIdentity,
    Scale,
)
from flashrun.api.resource import ConditionStatus, FlashRun, FlashRunSpec, FlashRunStatus
from flashrun.plan.commits import CommitSummary
from flashrun.plan.decide import decide
from flashrun.plan.pins import pinned_run
from flashrun.plan.pods import read_pods
from flashrun.plan.run_context import RunContext, build_context
from flashrun.plan.run_status import with_access_expiry, with_pinned_job
from flashrun.plan.types import (
    AdapterSource,
    Decision,
    Object,
    Observed,
    SecretLookup,
    StorageView,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NAME, NAMESPACE, UID = "flash-1795348800-0a1b2c3d", "team-a", "0b5e-uid"
IDENTITY = RunIdentity(namespace=NAMESPACE, name=NAME, uid=UID)
TINY = "flashrun/tiny-qwen3"
DIGEST = "d" * 64

PLATFORM = Platform(
    namespaces=(NAMESPACE,),
    environments=EnvironmentSettings(owners=dict.fromkeys(("examples", "a"), (NAMESPACE,))),
    storage=StorageSettings(endpoint="http://storage.example:9000", credentials_seconds=43200),
    trainer=TrainerSettings(image="registry.example/flashrun/trainer@sha256:" + "1" * 64),
    pools=(
        Pool(name="small", vram=24, cost=1, cpu="500m", memory="2Gi"),
        Pool(name="large", vram=80, cost=4),
    ),
    models=(
        Model(id=TINY, parameters=0.0001, context=512, source=Source.MIRROR, revision="v1"),
        Model(id="flashrun/huge", parameters=400, vram_sft=800, vram_grpo=900),
    ),
)


WIDE = "flashrun/wide"
NODES = PLATFORM.model_copy(
    update={
        "pools": (Pool(name="nodes", vram=80, gpus_per_node=2, max_nodes=2, memory="64Gi"),),
        "models": (*PLATFORM.models, Model(id=WIDE, parameters=70, vram_sft=300, context=512)),
    }
)
"""A platform with two nodes, and a model that needs both."""


def make_run(
    config: Mapping[str, Any] | None = None, status: FlashRunStatus | None = None, **control: Any
) -> FlashRun:
    """A run of ``config`` (snake_case, over a minimal one) with these switches set."""
    table = {"model": TINY, "environment": {"id": "examples/sums"}, **(config or {})}
    if table["model"] in (TINY, WIDE):
        table["train"] = {"max_length": 128, **table.get("train", {})}
    if control:
        table["control"] = control
    return FlashRun(
        name=NAME,
        namespace=NAMESPACE,
        uid=UID,
        created=NOW - timedelta(minutes=1),
        spec=FlashRunSpec.validate_toml(table),
        status=status or FlashRunStatus(),
    )


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


PUSHED = StorageView(environment=EnvironmentPointer(digest=DIGEST, size=10, pushed=NOW))


def make_pod(
    name: str = "pod-1",
    *,
    exit_code: int | None = None,
    termination: Termination | None = None,
    reason: str = "",
    running: bool = True,
    number: int = 0,
    index: int | None = None,
    container: str = "trainer",
    waiting: tuple[str, str] | None = None,
    unschedulable: str = "",
    disrupted: str = "",
    age: timedelta = timedelta(seconds=30),
    ended: timedelta = timedelta(0),
    deleted: timedelta | None = None,
    node: str = "node-1",
) -> Object:
    """A pod as the API server shows it: running, or ended with ``exit_code``."""
    created = _text(NOW - age)
    states: dict[str, Any] = {}
    if exit_code is not None:
        message = "" if termination is None else termination.model_dump_json()
        states = {
            "terminated": {
                "exitCode": exit_code,
                "reason": reason or "Error",
                "message": message,
                "startedAt": created,
                "finishedAt": _text(NOW - ended),
            }
        }
    elif waiting is not None:
        states = {"waiting": {"reason": waiting[0], "message": waiting[1]}}
    elif running and not unschedulable:
        states = {"running": {"startedAt": created}}
    phase = "Running"
    if exit_code is not None:
        phase = "Succeeded" if exit_code == 0 else "Failed"
    elif not states or "waiting" in states:
        phase = "Pending"
    conditions = []
    if unschedulable:
        conditions.append({"type": "PodScheduled", "status": "False", "message": unschedulable})
    if disrupted:
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": disrupted})
    kind = "containerStatuses" if container == "trainer" else "initContainerStatuses"
    metadata: Object = {
        "name": name,
        "uid": f"{name}-uid",
        "creationTimestamp": created,
        "labels": {**names.run_labels(NAME, UID), names.JOB_NUMBER_LABEL: str(number)},
    }
    if index is not None:
        metadata["labels"] |= {names.POD_INDEX_LABEL: str(index)}
    if deleted is not None:
        metadata["deletionTimestamp"] = _text(NOW - deleted)
    return {
        "metadata": metadata,
        "spec": {} if unschedulable else {"nodeName": node},
        "status": {
            "phase": phase,
            "conditions": conditions,
            kind: [{"name": container, "state": states}] if states else [],
        },
    }


def member(**state: Any) -> Object:
    """The pod of index 1 of a run on two nodes."""
    return make_pod("pod-2", index=1, node="node-2", **state)


LEADER = make_pod(index=0)
MEMBER = member()


def checkpoint(step: int, attempt: int = 1, **changes: Any) -> Manifest:
    """A committed checkpoint of the run."""
    manifest = Manifest(
        kind="checkpoint",
        run=IDENTITY,
        attempt=attempt,
        step=step,
        base_model=TINY,
        lora_rank=16,
        lora_alpha=32,
        created=NOW,
        files=(FileEntry(path="adapter/adapter_model.safetensors", size=1000, sha256="a" * 64),),
    )
    return manifest.model_copy(update=changes)


ADAPTER = checkpoint(40, kind="adapter")


def heartbeat(step: int, total: int = 40, **changes: Any) -> Heartbeat:
    """A heartbeat of the run's first pod."""
    record = Heartbeat(
        run=IDENTITY,
        attempt=1,
        pod="pod-1",
        activity="Training",
        progress=Progress(
            step=step, total_steps=total, eta_seconds=total - step, metrics={"loss": 1.5}
        ),
        updated=NOW,
    )
    return record.model_copy(update=changes)


def result(
    exit_code: int = 0, termination: Termination | None = None, evaluation: Evaluation | None = None
) -> Result:
    """The terminal record of the run."""
    return Result(
        run=IDENTITY,
        attempt=1,
        exit_code=exit_code,
        termination=termination,
        evaluation=evaluation,
        finished=NOW,
    )


def evaluation(scores: Mapping[int, float], metric: str = "score") -> Evaluation:
    """What a trainer reports of evaluations, from the value after each step; 0 is the baseline."""
    points = {step: EvaluationPoint(step=step, score=value) for step, value in scores.items()}
    best = best_step(metric, {step: value for step, value in scores.items() if step})
    return Evaluation(
        metric=metric,
        baseline=points.get(0),
        last=points[max(points)],
        best=None if best is None else points[best],
        examples=32,
        unscored=1,
    )


ENDINGS = (
    Ending(
        run=IDENTITY, phase=Phase.CANCELLED, reason="Cancelled", message="Cancelled.", ended=NOW
    ),
    Ending(
        run=IDENTITY,
        phase=Phase.FAILED,
        reason="RewardFailed",
        message="The reward raised.",
        hint="See flash log.",
        exit_code=70,
        gpu_seconds=40,
        ended=NOW - timedelta(hours=1),
    ),
    Ending(run=IDENTITY, phase=Phase.SUCCEEDED, reason="Trained", ended=NOW),
)
"""What the operator has recorded about the end of the run."""


def claim(pod: str = "pod-1", attempt: int = 1) -> Claim:
    """The first pod's claim."""
    return Claim(attempt=attempt, pod=pod, pod_uid=f"{pod}-uid", started=NOW)


def source_adapter(**changes: Any) -> AdapterSource:
    """An adapter to start from."""
    pinned = ResolvedAdapter(
        ref="flash-1-aa/step-20", uid="old", prefix="runs/team-a/flash-1-aa/old/"
    )
    return AdapterSource(pinned, checkpoint(20, **changes))


@dataclass(frozen=True)
class World:
    """A run with everything around it, which decisions act upon."""

    run: FlashRun
    observed: Observed = Observed(storage=PUSHED)
    platform: Platform = PLATFORM
    now: datetime = NOW

    @property
    def pinned(self) -> ResolvedRun | None:
        """The resolved spec by what the status has pinned."""
        return pinned_run(self.run)

    def decide(self) -> Decision:
        """Return what one pass decides here."""
        return decide(self.run, self._measured(), self.platform, self.now)

    def context(self) -> RunContext:
        """Return what the policies read here."""
        return build_context(self.run, self._measured(), self.platform, self.now)

    def _measured(self) -> Observed:
        """Return the observation of an operator that received every change when it happened."""
        known = self.run.status.condition(ConditionType.CHECKPOINTS_SYNCED)
        heartbeat = self.observed.storage.heartbeat
        silent = {}
        for pod in read_pods(self.observed.pods):
            signs = [pod.created, *(time for time in (pod.started, pod.deleted) if time)]
            if heartbeat is not None and heartbeat.pod == pod.name:
                signs.append(heartbeat.updated)
            if known is not None:
                away = known.reason == Reason.STORAGE_UNAVAILABLE
                signs.append(self.now if away else known.last_transition_time)
            silent[pod.uid] = max(0.0, (self.now - max(signs)).total_seconds())
        return replace(self.observed, silent_seconds=silent)

    def act(self, decision: Decision) -> "World":
        """Return the world after the decision was carried out, with no pod moved by anyone else."""
        observed, job_uid = self.observed, ""
        jobs = {job["metadata"]["name"]: job for job in observed.jobs}
        created = len(jobs)
        for manifest in decision.apply:
            if manifest["kind"] == "Job":
                created += 1
                uid = f"job-{created}-uid"
                metadata = {**manifest["metadata"], "uid": uid}
                jobs[metadata["name"]] = {**manifest, "metadata": metadata}
                job_uid = uid
            elif manifest["kind"] == "Service":
                observed = replace(observed, has_peers=True)
            else:
                observed = replace(observed, config_map=manifest)
        for patch in decision.patch:
            if patch.kind != "Job":
                continue  # Kueue's objects are not part of this world
            job = jobs[patch.name]
            jobs[patch.name] = {**job, "spec": {**job["spec"], **patch.body["spec"]}}
        gone = {delete.name for delete in decision.delete}
        if observed.config_map and observed.config_map["metadata"]["name"] in gone:
            observed = replace(observed, config_map=None)
        observed = replace(
            observed,
            jobs=tuple(job for name, job in jobs.items() if name not in gone),
            pods=tuple(pod for pod in observed.pods if pod["metadata"]["name"] not in gone),
            has_secrets=observed.has_secrets or decision.secrets is not None,
            has_access=observed.has_access or decision.access is not None,
        )
        if decision.access is not None:
            expires = self.now + timedelta(seconds=decision.access.seconds)
            observed = replace(observed, access_expires=expires)
            decision = with_access_expiry(decision, expires)
        storage = observed.storage
        if decision.control is not None:
            storage = replace(storage, control=decision.control)
        if decision.delete_keys:
            storage = replace(storage, heartbeat=None)
        observed = replace(observed, storage=storage)
        stored = FlashRunStatus.validate_manifest(decision.status.to_patch())
        run = self.run.model_copy(update={"status": stored})
        return replace(self, observed=observed, run=with_pinned_job(run, job_uid))

    def settled(self) -> "World":
        """Return the world after enough passes that nothing is left to do."""
        world = self.act(self.decide())
        return world.act(world.decide())

    def seeing(self, **changes: Any) -> "World":
        """Return this world with another observation."""
        return replace(self, observed=replace(self.observed, **changes))

    def stored(self, **changes: Any) -> "World":
        """Return this world with other contents of storage; of manifests, what is kept of them."""
        if "checkpoints" in changes:
            changes["checkpoints"] = tuple(map(CommitSummary.of, changes["checkpoints"]))
        if changes.get("adapter"):
            changes["adapter"] = CommitSummary.of(changes["adapter"])
        return self.seeing(storage=replace(self.observed.storage, **changes))

    def later(self, **time: float) -> "World":
        """Return this world some time later."""
        return replace(self, now=self.now + timedelta(**time))

    def switched(self, **control: Any) -> "World":
        """Return this world with other switches in ``spec.control``."""
        spec = self.run.spec.model_copy(
            update={"control": self.run.spec.control.model_copy(update=control)}
        )
        run = self.run.model_copy(update={"spec": spec, "generation": self.run.generation + 1})
        return replace(self, run=run)


def running(config: Mapping[str, Any] | None = None, **storage: Any) -> World:
    """A world in which the first pod trains."""
    world = World(make_run(config)).settled().seeing(pods=(make_pod(),))
    return world.stored(**{"heartbeat": heartbeat(10), "claims": (claim(),), **storage}).settled()


def finished(exit_code: int = 0, **storage: Any) -> World:
    """A world in which the first pod has left a result and ended; nothing is concluded yet."""
    pod = make_pod(exit_code=exit_code, age=timedelta(minutes=2))
    return running(**storage).seeing(pods=(pod,))


def on_two_nodes(*pods: Object, **storage: Any) -> World:
    """A world in which a run on two nodes trains; ``pods`` instead of a leader and a member."""
    world = World(make_run({"model": WIDE}), platform=NODES).settled()
    observing = world.seeing(pods=pods or (LEADER, MEMBER))
    return observing.stored(
        **{"heartbeat": heartbeat(10), "claims": (claim(),), **storage}
    ).settled()


def failed_job(job: Object, reason: str = "PodFailurePolicy", message: str = "") -> Object:
    """The Job after its controller gave up."""
    condition = {"type": "Failed", "status": "True", "reason": reason, "message": message}
    return {**job, "status": {"conditions": [condition]}}


def termination(reason: str = "RewardFailed", message: str = "The reward raised.") -> Termination:
    """What a container left behind."""
    return Termination(reason=reason, message=message, hint="See flash log.", attempt=1, step=7)


def lookup(**sources: str) -> SecretLookup:
    """Variable names, each with the Secret that holds it."""
    return SecretLookup(sources=sources)


def job_scale(job: Object) -> Scale:
    """How many pods and GPUs a Job has."""
    [container] = job["spec"]["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    return Scale(
        nodes=job["spec"].get("completions") or 1,
        gpus=next(int(count) for name, count in limits.items() if "/" in name),
        sharded=names.SHARDED_ANNOTATION in job["metadata"]["annotations"],
    )


def job_retries(job: Object) -> int:
    """How many counted retries a Job has."""
    spec = job["spec"]
    return int(spec["backoffLimitPerIndex" if spec.get("completions") else "backoffLimit"])


def job_number(job: Object) -> int:
    """Which Job of its run a Job is."""
    number = names.parse_job_number(NAME, UID, job["metadata"]["name"])
    assert number is not None
    return number


def assert_waits(decision: Decision, reason: str, sentence: str, condition: str) -> None:
    """Assert that a run waits, says why, and that its pass is repeated."""
    assert decision.status.phase is Phase.PENDING
    assert decision.apply == ()
    assert decision.status.pending is not None
    assert decision.status.pending.reason == reason
    assert sentence in decision.status.pending.message
    unmet = decision.status.condition(condition)
    assert unmet is not None
    assert (unmet.status, unmet.reason) == (ConditionStatus.FALSE, reason)
    assert decision.requeue_seconds is not None
