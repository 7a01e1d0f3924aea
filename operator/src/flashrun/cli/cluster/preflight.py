"""Ask the cluster about a config, for ``flash train --dry-run --server``.

Nothing is created. All problems are collected, so that they are reported together. What cannot be
checked with the user's rights becomes a note, because the operator can check it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from flashrun.api import names
from flashrun.api.config import RunConfig
from flashrun.api.public import PublicPlatform, PublicPool
from flashrun.api.quantities import whole_units
from flashrun.cli.cluster import adapters, pod_admission, published_environments
from flashrun.cli.cluster.connection import ClusterSession, connect
from flashrun.cli.config import dotenv, load_config, platform_cache
from flashrun.cli.config.compose import ComposedConfig
from flashrun.cli.config.dry_run import DryRunAnswers
from flashrun.cli.config.problems import ConfigError
from flashrun.cli.config.run_spec import run_manifest
from flashrun.cli.output.failure import Failure, NotFoundFailure
from flashrun.cluster_errors import Forbidden, Invalid, NotFound
from flashrun.plan import placement
from flashrun.store_errors import StoreError

_NAME: Final = "flash-0-dryrun"
"""Name of the run that is validated but never created."""


@dataclass
class PreflightContext:
    """What the checks of one config share; later ones use the results of earlier ones."""

    session: ClusterSession
    composed: ComposedConfig
    folders: Sequence[Path]
    """Where ``.env`` files are, beside the current folder."""
    answers: DryRunAnswers = field(default_factory=lambda: DryRunAnswers(server=True))
    platform: PublicPlatform = field(default_factory=PublicPlatform)
    place: placement.Placement[PublicPool] | None = None

    @property
    def config(self) -> RunConfig:
        """The config that is checked."""
        return self.composed.config


def ask_cluster(
    composed: ComposedConfig,
    folders: Sequence[Path],
    namespace: str | None,
    context_name: str | None,
) -> DryRunAnswers:
    """Ask the cluster about a config.

    ``folders`` are those whose ``.env`` files may hold values of secrets.
    """

    async def run() -> DryRunAnswers:
        async with connect(context_name, namespace) as session:
            return await run_checks(session, composed, folders)

    return asyncio.run(run())


async def run_checks(
    session: ClusterSession, composed: ComposedConfig, folders: Sequence[Path] = ()
) -> DryRunAnswers:
    """Do as ``ask_cluster`` with a connection that exists."""
    context = PreflightContext(session, composed, folders)
    for check in _CHECKS:
        await check(context)
    return context.answers


async def _check_admission(context: PreflightContext) -> None:
    """Let the API server validate the run with a dry run: schema, rules, quota, webhooks."""
    session, config = context.session, context.config
    refs = [names.submitted_secret_name(_NAME)] if config.environment.secrets else []
    manifest = run_manifest(config, _NAME, session.namespace, refs)
    place = f"context {session.cluster.context}, namespace {session.namespace}"
    try:
        await session.cluster.create(manifest, names.CLI_FIELD_MANAGER, dry_run=True, strict=True)
        context.answers.add("admission", f"accepted ({place})", accepted=True)
    except (Forbidden, Invalid, NotFound) as error:
        context.answers.add("admission", f"refused ({place})", accepted=False)
        context.answers.problems.append(str(error))
    if refs and not await session.cluster.may("create", "Secret", session.namespace):
        context.answers.problems.append(
            f"you may not create secrets in namespace {session.namespace}, which "
            "environment.secrets needs: ask the cluster's administrator for this right"
        )


async def _check_platform(context: PreflightContext) -> None:
    try:
        await context.session.refuse_unserved_namespace()
    except NotFoundFailure as failure:
        context.answers.problems.append(f"{failure.sentence}: {failure.hint}")
    platform = await context.session.get_platform()
    if platform is None:
        context.answers.notes.append(
            f"ConfigMap {names.PUBLIC_CONFIG_MAP} cannot be read in namespace "
            f"{context.session.namespace}; models and pools are those that were seen last"
        )
    context.platform = platform or platform_cache.load_platform()
    try:
        context.answers.notes += load_config.check_with_platform(context.composed, context.platform)
    except ConfigError as error:
        context.answers.problems += map(str, error.problems)


async def _check_storage(context: PreflightContext) -> None:
    try:
        store = await context.session.open_store()
        context.answers.add("storage", store.location, reachable=True, location=store.location)
        await _check_environment(context)
        await _check_adapter(context)
    except (NotFoundFailure, Failure, StoreError) as error:
        context.answers.add("storage", "not readable from here", reachable=False)
        context.answers.notes.append(
            f"{error}; environment and adapter were not checked here, the operator checks them"
        )


async def _check_environment(context: PreflightContext) -> None:
    identifier = context.config.environment.id
    if problem := await published_environments.foreign(context.session, identifier):
        context.answers.add("environment", f"{identifier}, not of this namespace", digest=None)
        context.answers.problems.append(f"environment.id: {problem}")
        return
    try:
        newest = await published_environments.newest_version(context.session, identifier)
    except NotFoundFailure:
        context.answers.add("environment", f"{identifier}, not published", digest=None)
        context.answers.problems.append(
            f"environment.id: {identifier} has not been pushed to this platform: "
            f"flash env push FOLDER --name {identifier}"
        )
    else:
        pushed = newest.pushed.strftime("%Y-%m-%d %H:%M UTC")
        line = f"{identifier}@{newest.digest[:12]}, pushed {pushed}"
        context.answers.add("environment", line, **newest.model_dump(mode="json"))


async def _check_adapter(context: PreflightContext) -> None:
    start = await adapters.find_warm_start(context.session, context.config)
    ref = context.config.train.init_from_adapter
    if start.problem is not None:
        context.answers.add("adapter", f"{ref}, not usable", usable=False)
        context.answers.problems.append(str(start.problem))
    elif start.manifest is not None:
        rank, alpha = start.manifest.lora_rank, start.manifest.lora_alpha
        context.answers.add(
            "adapter", f"{ref}: rank {rank}, alpha {alpha}", usable=True, rank=rank, alpha=alpha
        )


async def _check_pool(context: PreflightContext) -> None:
    """Choose a pool as the operator does; free GPUs are as it last counted them."""
    model = context.platform.catalog().get(context.config.model)
    pools, algorithm = context.platform.pools, context.config.algorithm
    if model is None or not pools:
        return
    train = context.composed.train
    context.place = placement.choose_placement(pools, model, algorithm, train)
    if context.place is None:
        context.answers.problems.append(
            str(placement.explain_no_placement(pools, model, algorithm, train))
        )
        return
    pool, scale = context.place.pool, context.place.scale
    gpus = f"{scale.world_size} GPU{'' if scale.world_size == 1 else 's'}"
    free = "" if pool.free is None else f", {pool.free} of {pool.total} free"
    context.answers.add(
        "pool",
        f"{gpus} of {pool.name} ({pool.vram:g} GiB each{free})",
        name=pool.name,
        gpus=scale.world_size,
        nodes=scale.nodes,
        free=pool.free,
        total=pool.total,
    )
    if pool.free is not None and pool.free < scale.world_size:
        context.answers.notes.append(f"pool {pool.name} has too few free GPUs: the run would wait")


async def _check_pod(context: PreflightContext) -> None:
    """Let the API server judge a pod of the run, and compare its needs with the quotas."""
    session, place = context.session, context.place
    if place is None:
        return
    verdict = await pod_admission.judge_pod(
        session.cluster, session.namespace, context.composed, context.platform, place, _NAME
    )
    context.answers.problems += verdict.problems
    context.answers.notes += verdict.notes
    if verdict.admitted is not None:
        line = "accepted" if verdict.admitted else "refused"
        context.answers.add("pod", line, accepted=verdict.admitted)


async def _check_quota(context: PreflightContext) -> None:
    """Show the namespace's quota of the pool's resource."""
    if context.place is None:
        return
    resource = f"requests.{context.place.pool.resource}"
    try:
        quotas = await context.session.cluster.list("ResourceQuota", context.session.namespace)
    except Forbidden:
        return  # the check of the pod reports it
    for quota in quotas:
        status, name = quota.get("status") or {}, quota["metadata"]["name"]
        if (limit := (status.get("hard") or {}).get(resource)) is None:
            continue
        hard, used = whole_units(limit), whole_units((status.get("used") or {}).get(resource, 0))
        line = f"{name}: {used} of {hard} {resource} used"
        context.answers.add("quota", line, hard=hard, used=used)


async def _check_secrets(context: PreflightContext) -> None:
    """List the secrets that have a value here, and those that have none; never print a value."""
    listed = context.config.environment.secrets
    values = dotenv.find_values((*listed, names.WANDB_API_KEY), context.folders)
    missing = [name for name in listed if name not in values]
    parts = [*(f"{name} is set" for name in values), *(f"{name} is missing" for name in missing)]
    context.answers.add("secrets", ", ".join(parts) or "none", set=[*values], missing=missing)
    if missing:
        context.answers.problems.append(
            f"environment.secrets names {', '.join(missing)}, but no value is set: set each in "
            f"your shell, or in {' or '.join(dotenv.FILES)} here or beside the config"
        )


_CHECKS: Final[tuple[Callable[[PreflightContext], Awaitable[None]], ...]] = (
    _check_admission,
    _check_platform,
    _check_storage,
    _check_pool,
    _check_pod,
    _check_quota,
    _check_secrets,
)
"""In this order: a later check uses the results of earlier ones."""
