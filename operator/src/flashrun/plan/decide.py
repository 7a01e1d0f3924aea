"""``decide``: what was seen of a run → what to do next and what to say about it.

Read it from the bottom of the first function: a run that is not over passes the stages in order,
and the first stage that has something to say answers. Feeding a decision's effects back as
the next observation settles: the second decision does nothing and writes the same status.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from flashrun.api import names
from flashrun.api.catalog import Catalog, Model
from flashrun.api.exits import Exit, Retry
from flashrun.api.platform import Platform, Pool
from flashrun.api.records import ResolvedRun, RunIdentity, Scale, TrainerControl
from flashrun.api.resource import (
    TERMINAL,
    TRAINING_WARNING,
    FailureStatus,
    FlashRun,
    FlashRunStatus,
    PendingStatus,
    Phase,
)
from flashrun.plan import failures, objects, placement, resolve, run_status, storage_policies
from flashrun.plan.conditions import FALSE, TRUE, Wanted
from flashrun.plan.pods import Attempt, Pod, attempts_of, crew_of, read
from flashrun.plan.types import (
    AccessGrant,
    Decision,
    Delete,
    Object,
    Observed,
    Patch,
    SecretCopy,
)

LOOK_AGAIN_SECONDS: Final = 10.0
"""When something outside our watches is awaited: a Secret, a pushed environment."""
NODE_LOST: Final = timedelta(minutes=10)
IMAGE_PATIENCE: Final = timedelta(minutes=10)


@dataclass(frozen=True)
class Case:
    """One run's file on the table of one pass."""

    run: FlashRun
    observed: Observed
    platform: Platform
    now: datetime
    pods: tuple[Pod, ...]
    status: FlashRunStatus
    """What was seen, before anything is concluded from it."""

    @property
    def job(self) -> Object | None:
        """The newest Job, which is the only one that may run pods."""
        return max(self.observed.jobs, key=objects.number, default=None)

    @property
    def crew(self) -> tuple[Pod, ...]:
        """The pods that work together now, or did last; the one that leads first."""
        return crew_of(self.pods)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All pods, by the attempts they worked on."""
        return attempts_of(self.pods)

    @property
    def active(self) -> bool:
        """Whether a pod may still write."""
        return any(pod.active for pod in self.pods)


Stage = Callable[[Case], Decision | None]


def decide(run: FlashRun, observed: Observed, platform: Platform, now: datetime) -> Decision:
    """Decide one pass over one run; pure, and total for every run that can be parsed."""
    if run.deleting:
        return Decision(status=run.status)  # owner references clean up, with or without us
    pods = tuple(sorted(map(read, observed.pods), key=lambda pod: (pod.created, pod.name)))
    if run.status.phase in TERMINAL:
        return _settled(run, observed, pods, platform)
    seen = run_status.seen(run, observed, pods, platform, now)
    case = Case(run, observed, platform, now, pods, seen)
    stages: tuple[Stage, ...] = (
        _finished,
        _cancelled,
        _refused,
        _unresolved,
        _without_secrets,
        _suspended,
        _launch,
        _lost_job,
        _follow,
    )
    decision = next(answer for stage in stages if (answer := stage(case)) is not None)
    return _with_requests(
        case, run_status.coalesce(run.status, _give_up_the_lost(case, decision), now)
    )


# --- the end of a run -----------------------------------------------------------------------------


def _settled(
    run: FlashRun, observed: Observed, pods: tuple[Pod, ...], platform: Platform
) -> Decision:
    """A finished run stays finished, whatever happens to its Job; only leftovers go."""
    seconds = platform.retention.finished_job_seconds
    expiring = tuple(
        Patch("Job", job["metadata"]["name"], {"spec": {"ttlSecondsAfterFinished": seconds}})
        for job in observed.jobs
        if "ttlSecondsAfterFinished" not in job["spec"]
    )
    stale = (names.heartbeat_key(run.uid),) if observed.storage.heartbeat is not None else ()
    return Decision(
        status=run_status.with_attempts(run.status, observed, pods).model_copy(
            update={"observed_generation": run.generation}
        ),
        patch=expiring,
        sweep=stale,
    )


def _finished(case: Case) -> Decision | None:
    """Believe the terminal record in storage, and for a success also the adapter's manifest."""
    result = case.observed.storage.result
    if result is None:
        return None
    if result.exit_code != Exit.DONE:
        return _fail(case, failures.of_result(result))
    if case.observed.storage.adapter is None:
        return None
    checkpoints = case.status.checkpoint_count
    return Decision(
        status=run_status.conclude(
            case.status,
            case.run,
            case.now,
            phase=Phase.SUCCEEDED,
            reason="Trained",
            message=f"Trained; adapter {case.run.name} and {_count(checkpoints)} are in storage.",
        )
    )


def _cancelled(case: Case) -> Decision | None:
    if not case.run.spec.control.cancel:
        return None
    waiting = bool(case.observed.jobs) or case.active
    kept = f"{_count(case.status.checkpoint_count)} kept"
    if case.status.checkpoints:
        kept += f", the newest is {case.status.checkpoints[0].ref}"
    status = run_status.conclude(
        case.status,
        case.run,
        case.now,
        phase=Phase.CANCELLING if waiting else Phase.CANCELLED,
        reason="Cancelling" if waiting else "Cancelled",
        message="The trainer saves and stops." if waiting else f"Cancelled; {kept}.",
    )
    deletes = tuple(
        Delete("Job", job["metadata"]["name"])
        for job in case.observed.jobs
        if "deletionTimestamp" not in job["metadata"]
    )
    return Decision(status=status, delete=deletes)


def _fail(case: Case, failure: FailureStatus, *, stop: bool = False) -> Decision:
    jobs = tuple(Delete("Job", job["metadata"]["name"]) for job in case.observed.jobs)
    status = case.status.model_copy(update={"failure": failure})
    return Decision(
        status=run_status.conclude(
            status,
            case.run,
            case.now,
            phase=Phase.FAILED,
            reason=failure.reason,
            message=" ".join(part for part in (failure.message, failure.hint) if part),
        ),
        delete=jobs if stop else (),
    )


# --- before the first Job -------------------------------------------------------------------------


def _refused(case: Case) -> Decision | None:
    """Refuse a spec that can never work, once and for all: a spec does not change."""
    if case.observed.resolved is not None:
        return None
    catalog = Catalog(case.platform.models)
    hosts = case.platform.trainer.pip_url_hosts
    problems = list(resolve.check(case.run.spec, catalog, pip_url_hosts=hosts).problems)
    model = catalog.get(case.run.spec.model)
    if model is not None and _place(case, model) is None:
        train = resolve.resolve_train(case.run.spec)
        pools, algorithm = case.platform.pools, case.run.spec.algorithm
        problems.append(placement.refusal(pools, model, algorithm, train))
    source = case.observed.storage.adapter_source
    if source is not None:
        mismatch = resolve.adapter_mismatch(case.run.spec, source.manifest)
        problems += [] if mismatch is None else [mismatch]
    if not problems:
        return None
    failure = FailureStatus(
        reason="SpecInvalid",
        message="; ".join(map(str, problems)),
        hint="Change the config and submit it as a new run.",
    )
    decision = _fail(case, failure)
    refused = Wanted("Accepted", FALSE, "SpecInvalid", failure.message)
    return replace(decision, status=run_status.state(decision.status, case.run, case.now, refused))


def _unresolved(case: Case) -> Decision | None:
    """Wait for what the spec names and storage does not have yet."""
    if case.observed.resolved is not None:
        return None
    spec, storage = case.run.spec, case.observed.storage
    if storage.problem:
        return _wait(case, "StorageUnavailable", storage.problem, "Accepted")
    if storage.environment is None:
        identifier = spec.environment.id
        message = (
            f"Environment {identifier} is not in storage: push it with "
            f"flash env push --name {identifier}."
        )
        return _wait(case, "EnvironmentNotFound", message, "Accepted")
    if spec.train.init_from_adapter is not None and storage.adapter_source is None:
        message = (
            f"Adapter {spec.train.init_from_adapter} has no finished upload in namespace "
            f"{case.run.namespace}: see flash checkpoints."
        )
        return _wait(case, "AdapterNotFound", message, "Accepted")
    return None


def _without_secrets(case: Case) -> Decision | None:
    if case.observed.has_secrets:
        return None
    lookup = case.observed.secrets
    missing = [name for name in case.run.spec.environment.secrets if name not in lookup.sources]
    if not missing:
        return None
    message = f"No value for {', '.join(missing)} in {_searched(case)}."
    if lookup.absent:
        message += f" Secret {', '.join(lookup.absent)} does not exist."
    if lookup.unlabelled:
        message += (
            f" Secret {', '.join(lookup.unlabelled)} is not for runs: label it "
            f'{names.SECRETS_LABEL}: "true".'
        )
    return _wait(case, "SecretMissing", message, "SecretsReady")


def _searched(case: Case) -> str:
    listed = ", ".join(ref.name for ref in case.run.spec.secret_refs)
    return f"the Secrets of spec.secretRefs ({listed})" if listed else "spec.secretRefs (empty)"


def _wait(case: Case, reason: str, message: str, condition: str) -> Decision:
    """Say what is awaited, in ``pending`` and in the condition that it holds up."""
    pending = PendingStatus(reason=reason, message=message[:2048])
    status = run_status.conclude(
        case.status.model_copy(update={"pending": pending}),
        case.run,
        case.now,
        phase=Phase.PENDING,
        reason=reason,
        message=message,
    )
    held_up = Wanted(condition, FALSE, reason, message)
    return Decision(
        status=run_status.state(status, case.run, case.now, held_up),
        requeue_seconds=LOOK_AGAIN_SECONDS,
    )


# --- Jobs -----------------------------------------------------------------------------------------


def _suspended(case: Case) -> Decision | None:
    if not case.run.spec.control.suspend:
        return None
    job = case.job
    pause = job is not None and not job["spec"].get("suspend")
    status = run_status.conclude(
        case.status,
        case.run,
        case.now,
        phase=Phase.RUNNING if case.active else Phase.SUSPENDED,
        reason="Suspending" if case.active else "Suspended",
        message="The trainer saves and stops." if case.active else "Paused by spec.control.",
    )
    return Decision(status=status, patch=_suspend(job, True) if pause and job else ())


def _launch(case: Case) -> Decision | None:
    """Make what a first pod needs, all at once; a vanished Job is made again and resumes."""
    if case.job is not None:
        return None
    model = Catalog(case.platform.models).get(case.run.spec.model)
    place = None if model is None else _place(case, model)
    if place is None:  # the platform changed under a run that it had accepted
        message = f"No pool of this cluster fits {case.run.spec.model} any more."
        return _fail(case, FailureStatus(reason="NoPool", message=message))
    resolved = case.observed.resolved or _resolve(case, place.scale)
    placement = objects.Placement(0, place.pool, place.scale)
    return _start(case, resolved, placement, "Launched", "The Job was created.")


def _lost_job(case: Case) -> Decision | None:
    """Answer a Job that ended, or a pod that needs more memory than its pool has."""
    job, resolved = case.job, case.observed.resolved
    if job is None or resolved is None:
        return None
    if _condition(job, "Complete") is not None and not case.observed.storage.problem:
        return _fail(case, failures.NO_RESULT)  # what there is was read after the Job
    failed = _condition(job, "Failed")
    last = _last_ended(case, objects.number(job))
    outgrown = last is not None and failures.retry_of(last) is Retry.LARGER_POOL
    if failed is None and not outgrown:
        return None
    onward = _onward(case, job, resolved, last)
    if onward is not None:
        reason = failures.reason_of(last) if last else "Retrying"
        gpus = f" on {onward.scale.world_size} GPUs" if onward.scale.world_size > 1 else ""
        message = f"{reason}: goes on in pool {onward.pool.name}{gpus} from the newest checkpoint."
        resolved = resolved.model_copy(update={"scale": onward.scale})
        return _start(case, resolved, onward, reason, message, Phase.RETRYING, retire=job)
    if failed is None:
        return None  # the Job's own counted retries go on
    return _fail(case, failures.of_job(failed.get("reason", ""), failed.get("message", ""), last))


def _onward(
    case: Case, job: Object, resolved: ResolvedRun, last: Pod | None
) -> objects.Placement | None:
    """Return where another Job could go on, for failures that this one cannot retry."""
    number, pools, scale = objects.number(job), case.platform.pools, objects.scale(job)
    pool_name = job["metadata"]["annotations"][objects.POOL_ANNOTATION]
    pool = next((pool for pool in pools if pool.name == pool_name), None)
    if last is None or pool is None or number >= case.platform.trainer.retries:
        return None
    match failures.retry_of(last):
        case Retry.LARGER_POOL:
            model = Catalog(case.platform.models).get(resolved.model.id)
            need = 0 if model is None else model.vram(resolved.algorithm)
            larger = placement.larger(pools, need, resolved.train, placement.Place(pool, scale))
            if larger is None:
                return None
            return objects.Placement(number + 1, larger.pool, larger.scale)
        case Retry.OTHER_NODE:
            bad = {pod.node for pod in case.pods if failures.retry_of(pod) is Retry.OTHER_NODE}
            return objects.Placement(number + 1, pool, scale, tuple(sorted(bad - {""})))
        case _:
            return None


def _start(
    case: Case,
    resolved: ResolvedRun,
    placement: objects.Placement,
    reason: str,
    message: str,
    phase: Phase = Phase.STARTING,
    retire: Object | None = None,
) -> Decision:
    number = placement.number
    made = objects.job(case.run, placement, case.platform, resolved.image)
    status = run_status.state(
        run_status.resolved(case.status, case.run, resolved, made, case.observed.storage),
        case.run,
        case.now,
        Wanted("Accepted", TRUE, "Accepted"),
        Wanted("SecretsReady", TRUE, "Copied"),
    )
    return Decision(
        status=run_status.conclude(
            status, case.run, case.now, phase=phase, reason=reason, message=message
        ),
        secrets=None if case.observed.has_secrets else _secret_copy(case),
        access=_grant(case, resolved),
        apply=(*_needed(case, number, resolved, fresh=number > 0), made),
        patch=_suspend(retire, True) if retire is not None else (),
    )


def _needed(
    case: Case, number: int, resolved: ResolvedRun, *, fresh: bool = False
) -> tuple[Object, ...]:
    """Return what the pods of Job ``number`` need besides Secrets, as far as it is missing."""
    missing = []
    if fresh or case.observed.resolved is None:
        missing.append(objects.spec_config_map(case.run, number, resolved))
    if resolved.scale.nodes > 1 and (fresh or not case.observed.has_peers):
        missing.append(objects.peers_service(case.run, number))
    return tuple(missing)


def _resolve(case: Case, scale: Scale) -> ResolvedRun:
    """Pin everything that may change later: environment, adapter, image."""
    run, storage, trainer = case.run, case.observed.storage, case.platform.trainer
    model = Catalog(case.platform.models).get(run.spec.model)
    assert model is not None  # _refused has answered
    assert storage.environment is not None  # _unresolved has answered
    source = storage.adapter_source
    resolved = resolve.resolve(
        run.spec,
        identity=RunIdentity(namespace=run.namespace, name=run.name, uid=run.uid),
        model=model,
        environment_digest=storage.environment.digest,
        adapter=source.pinned if source else None,
        adapter_manifest=source.manifest if source else None,
    )
    platform: dict[str, Any] = {
        "scale": scale,
        "image": trainer.image,
        "hub_endpoint": trainer.hub_endpoint,
        "pip_index_url": trainer.pip_index_url,
        "upload_timeout_seconds": trainer.upload_timeout_seconds,
    }
    return resolved.model_copy(update=platform)


def _secret_copy(case: Case) -> SecretCopy:
    wanted = (*case.run.spec.environment.secrets, names.WANDB_API_KEY)
    found = case.observed.secrets.sources
    return SecretCopy(
        metadata=objects.metadata(case.run, names.secrets_name(case.run.name)),
        sources={name: found[name] for name in wanted if name in found},
    )


def _grant(case: Case, resolved: ResolvedRun) -> AccessGrant | None:
    """Grant or renew access when there is none or half of its time is over."""
    seconds = case.platform.storage.credentials_seconds
    expires = case.observed.access_expires
    if case.observed.has_access and (
        expires is None or expires - case.now > timedelta(seconds=seconds / 2)
    ):
        return None
    return AccessGrant(
        metadata=objects.metadata(case.run, names.storage_secret_name(case.run.name)),
        policy=storage_policies.run_policy(
            case.platform.storage.bucket,
            case.run.storage_prefix,
            names.heartbeat_key(case.run.uid),
            _readable(resolved),
        ),
        seconds=seconds,
    )


def _readable(resolved: ResolvedRun) -> tuple[str, ...]:
    """Return the prefixes that a run's trainer reads besides its own."""
    model, source = resolved.model, resolved.init_from_adapter
    return (
        names.model_prefix(model.id, model.revision),
        names.environment_prefix(resolved.environment.id),
        *((source.prefix,) if source else ()),
    )


def _follow(case: Case) -> Decision:
    """A Job is there and not over: say what its pod does, and repair what holds it up."""
    job, resolved = case.job, case.observed.resolved
    assert job is not None  # _launch has answered
    if resolved is None:  # the ConfigMap was deleted under the run
        resolved = _resolve(case, objects.scale(job))
    wake = job["spec"].get("suspend") and not case.platform.trainer.queue
    repair = Decision(
        status=case.status,
        secrets=None if case.observed.has_secrets else _secret_copy(case),
        access=_grant(case, resolved),
        apply=_needed(case, objects.number(job), resolved),
        patch=_suspend(job, False) if wake else (),
    )
    without_image = next((pod for pod in case.crew if _impatient(pod, case.now)), None)
    if without_image is not None:
        failure = FailureStatus(
            reason="ImagePullFailed",
            message=f"The trainer image cannot be pulled: {without_image.waiting_message}"[:2048],
            hint="Ask the platform's administrator: trainer.image and its pull secret.",
        )
        return _fail(case, failure, stop=True)
    phase, reason, message = _situation(case, job, resolved.scale.nodes)
    waits = phase is not Phase.RUNNING and reason not in _PREPARING
    pending = PendingStatus(reason=reason, message=message) if waits else None
    status = run_status.resolved(case.status, case.run, resolved, job, case.observed.storage)
    status = run_status.conclude(
        status.model_copy(update={"pending": pending}),
        case.run,
        case.now,
        phase=phase,
        reason=reason,
        message=message,
    )
    return replace(repair, status=status, delete=_stalled(case, resolved.scale.nodes))


def _situation(case: Case, job: Object, nodes: int) -> tuple[Phase, str, str]:
    """Return phase, reason and one sentence for a run whose Job is at work."""
    crew = case.crew
    active = [pod for pod in crew if pod.active]
    waiting = Phase.STARTING if len(active) == len(case.pods) else Phase.RETRYING
    if job["spec"].get("suspend"):
        return Phase.PENDING, "Queued", "Waits for quota in the queue."
    if _condition(job, "Complete") is not None:
        return Phase.RUNNING, "Finishing", "The trainer is done; its result cannot be read yet."
    if not active or any(not pod.active and pod.exit_code != 0 for pod in crew):
        return waiting, "PodPending", _between_attempts(case, active)
    if held := [pod for pod in active if pod.unschedulable]:
        share = f"{len(held)} of {nodes} pods: " if nodes > 1 else ""
        return waiting, "Unschedulable", f"No node fits: {share}{held[0].unschedulable}"[:2048]
    if barred := next((pod for pod in active if pod.waiting_reason), None):
        detail = barred.waiting_message or barred.waiting_reason
        return waiting, barred.waiting_reason, f"The pod cannot start: {detail}"[:2048]
    if late := next((pod for pod in active if pod.started is None), None):
        activity = late.activity or "Starting"
        return waiting, activity, _PREPARING[activity]
    if len(crew) < nodes:
        return waiting, "PodPending", f"Waits for the Job controller: {len(crew)} of {nodes} pods."
    heartbeat = case.observed.storage.heartbeat
    if heartbeat is not None and heartbeat.warning and heartbeat.pod == crew[0].name:
        return Phase.RUNNING, TRAINING_WARNING, heartbeat.warning[:2048]
    return Phase.RUNNING, "Training", "The trainer is at work."


def _between_attempts(case: Case, active: list[Pod]) -> str:
    """Say what the last attempt ended with, and what has to happen before the next."""
    ended = [attempt.culprit for attempt in case.attempts if not attempt.culprit.active]
    last = f"The last attempt ended: {failures.reason_of(ended[-1])}. " if ended else ""
    if active:
        return f"{last}Waits for its other pods to end."
    return f"{last}Waits for the Job controller to start a pod."


_PREPARING: Final = {
    "Starting": "The pod starts.",
    "Downloading": "The base model is being fetched.",
    "Installing": "The environment is being installed.",
}


def _stalled(case: Case, nodes: int) -> tuple[Delete, ...]:
    """End an attempt that shows no sign of life.

    Its heartbeat is its leader's, and begins when all pods have met; how long they wait for one
    that cannot start is theirs to say.
    """
    started = [pod.started for pod in case.crew if pod.started and pod.active and not pod.deleted]
    if len(started) < nodes:
        return ()
    silence = case.now - max(_last_sign(case, case.crew[0]), *started)
    if silence < timedelta(seconds=case.platform.trainer.stall_seconds):
        return ()
    return tuple(Delete("Pod", pod.name) for pod in case.crew)


def _give_up_the_lost(case: Case, decision: Decision) -> Decision:
    """Fence and remove pods that were to end and whose node does not tell that they did.

    Only a leader writes to storage, so that only its attempt needs to be superseded; while its
    heartbeat is there, it is the API server that its node has lost.
    """
    lost = [
        pod
        for pod in case.pods
        if pod.active
        and pod.deleted is not None
        and case.now - max(pod.deleted, _last_sign(case, pod)) >= NODE_LOST
    ]
    names_lost = {pod.name for pod in lost}
    attempts = [c.attempt for c in case.observed.storage.claims if c.pod in names_lost]
    forced = tuple(Delete("Pod", pod.name, force=True) for pod in lost)
    return replace(
        decision,
        supersede=max(attempts, default=decision.supersede),
        delete=(*decision.delete, *forced),
    )


def _last_sign(case: Case, pod: Pod) -> datetime:
    """Return when a pod last showed that it lives, or could not show it as storage was away."""
    heartbeat, synced = case.observed.storage.heartbeat, case.status.condition("CheckpointsSynced")
    if case.observed.storage.problem:
        return case.now
    signs = (
        pod.started or pod.created,
        heartbeat.updated if heartbeat is not None and heartbeat.pod == pod.name else pod.created,
        synced.last_transition_time if synced is not None else pod.created,
    )
    return max(signs)


def _with_requests(case: Case, decision: Decision) -> Decision:
    """Add what goes along with any decision on a live run: save requests and renewals in time."""
    wanted = case.run.spec.control.save_request
    current = case.observed.storage.control or TrainerControl()
    asked = wanted and wanted != current.save_request and not case.observed.storage.problem
    requeue = decision.requeue_seconds
    if requeue is None and case.active:
        requeue = 60.0
    control = TrainerControl(save_request=wanted) if asked else None
    return replace(decision, control=control, requeue_seconds=requeue)


# --- small questions ------------------------------------------------------------------------------


def _place(case: Case, model: Model) -> placement.Place[Pool] | None:
    """Return where a run goes; one that has begun keeps its scale."""
    pools, pinned = case.platform.pools, case.observed.resolved
    algorithm = case.run.spec.algorithm
    if pinned is not None:
        return placement.again(pools, model.vram(algorithm), pinned.scale)
    return placement.choose(pools, model, algorithm, resolve.resolve_train(case.run.spec))


def _condition(job: Object, kind: str) -> dict[str, Any] | None:
    found = (
        condition
        for condition in (job.get("status") or {}).get("conditions") or []
        if condition.get("type") == kind and condition.get("status") == "True"
    )
    return next(found, None)


def _last_ended(case: Case, number: int) -> Pod | None:
    """Return the pod that ended the newest attempt of Job ``number`` that ended badly."""
    culprits = [attempt.culprit for attempt in case.attempts if attempt.leader.job == number]
    ended = [pod for pod in culprits if not pod.active and pod.exit_code != 0]
    return ended[-1] if ended else None


def _suspend(job: Object | None, value: bool) -> tuple[Patch, ...]:
    if job is None or bool(job["spec"].get("suspend")) is value:
        return ()
    return (Patch("Job", job["metadata"]["name"], {"spec": {"suspend": value}}),)


def _impatient(pod: Pod, now: datetime) -> bool:
    """Whether nobody need wait any longer for a pod's image."""
    if not pod.active or not pod.image_trouble:
        return False
    return pod.waiting_reason == "InvalidImageName" or now - pod.created > IMAGE_PATIENCE


def _count(checkpoints: int) -> str:
    return f"{checkpoints} checkpoint{'' if checkpoints == 1 else 's'}"
