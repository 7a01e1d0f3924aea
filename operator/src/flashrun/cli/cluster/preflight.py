"""``flash train --dry-run --server``: what only the cluster knows about a config.

Everything is asked for and nothing is created. Whatever is in the way is collected, so that one
look shows all of it; what cannot be seen from here becomes a note, because the operator sees it.
"""

import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import typer

from flashrun.api import names
from flashrun.api.config import RunConfig
from flashrun.api.public import PublicPlatform, PublicPool
from flashrun.api.records import Manifest
from flashrun.api.resource import manifest
from flashrun.cli.cluster import adapters
from flashrun.cli.cluster.connection import Session, connect
from flashrun.cli.commands.render import spec_of
from flashrun.cli.config import dotenv, load_config, platform_cache, show_config
from flashrun.cli.config.compose import Composed, ConfigError
from flashrun.cli.options import Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import ExitCode, Failure, NotFoundFailure
from flashrun.cli.output.tables import Tone
from flashrun.plan import placement
from flashrun.plan.resolve import resolve_train

_NAME: Final = "flash-0-dryrun"
"""Name of the run that is asked about and never made."""


@dataclass
class Preflight:
    """What the cluster says: a line and data for each thing asked, and what is in the way."""

    lines: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def tell(self, what: str, line: str, **data: Any) -> None:
        """Record what was found about ``what``."""
        self.lines[what] = line
        self.data[what] = data


@dataclass
class _Case:
    """One config on its way through the checks; they learn from each other."""

    session: Session
    composed: Composed
    folders: Iterable[Path]
    found: Preflight = field(default_factory=Preflight)
    platform: PublicPlatform = field(default_factory=PublicPlatform)
    adapter: Manifest | None = None
    place: placement.Placement[PublicPool] | None = None

    @property
    def config(self) -> RunConfig:
        return self.composed.config


async def preflight(
    composed: Composed,
    folders: Iterable[Path],
    output: Output,
    namespace: str | None,
    context: str | None,
) -> None:
    """Ask the cluster about a config and print the answer; ends with 2 when something is wrong."""
    async with connect(context, namespace) as session:
        found = await ask(session, composed, folders)
    for note in found.notes:
        terminal.say(f"note: {note}")
    _print(composed, found, output)
    for problem in found.problems:
        terminal.say(f"error: {problem}", Tone.BAD)
    if found.problems:
        raise typer.Exit(ExitCode.USAGE)


def _print(composed: Composed, found: Preflight, output: Output) -> None:
    settings = show_config.settings(composed)
    if output in (Output.JSON, Output.YAML):
        answer = show_config.answer(settings) | {
            "server": found.data,
            "notes": found.notes,
            "problems": found.problems,
        }
        terminal.write_data(answer, output)
        return
    terminal.write(show_config.resolved_toml(settings).rstrip("\n"))
    terminal.write("\n# from the cluster")
    for name, line in found.lines.items():
        terminal.write(f"# {name}: {line}")


async def ask(session: Session, composed: Composed, folders: Iterable[Path]) -> Preflight:
    """Ask the cluster about a config; ``folders`` are where values of secrets are looked for."""
    case = _Case(session, composed, folders)
    checks: tuple[Callable[[_Case], Awaitable[None]], ...] = (
        _admission,
        _platform,
        _storage,
        _pool,
        _quota,
        _secrets,
    )
    for check in checks:
        await check(case)
    return case.found


async def _admission(case: _Case) -> None:
    """Have the API server check schema, rules, quota and webhooks, as for a real run."""
    from flashrun.cluster_errors import Forbidden, Invalid, NotFound

    session, config = case.session, case.config
    refs = [names.submitted_secret_name(_NAME)] if config.environment.secrets else []
    asked = manifest(_NAME, session.namespace, spec_of(config, refs))
    place = f"context {session.cluster.context}, namespace {session.namespace}"
    try:
        await session.cluster.create(asked, names.CLI_FIELD_MANAGER, dry_run=True)
        case.found.tell("admission", f"accepted ({place})", accepted=True)
    except (Forbidden, Invalid, NotFound) as error:
        case.found.tell("admission", f"refused ({place})", accepted=False)
        case.found.problems.append(str(error))
    if refs and not await session.cluster.may("create", "Secret", session.namespace):
        case.found.problems.append(
            f"you may not create secrets in namespace {session.namespace}, which "
            "environment.secrets needs: ask the cluster's administrator for this right"
        )


async def _platform(case: _Case) -> None:
    platform = await case.session.platform()
    if platform is None:
        case.found.notes.append(
            f"ConfigMap {names.PUBLIC_CONFIG_MAP} cannot be read in namespace "
            f"{case.session.namespace}; models and pools are those seen last"
        )
    case.platform = platform or platform_cache.platform()
    try:
        case.found.notes += load_config.checked(case.composed, case.platform)
    except ConfigError as error:
        case.found.problems += map(str, error.problems)


async def _storage(case: _Case) -> None:
    from flashrun.store_errors import StoreError

    try:
        store = await case.session.store()
        case.found.tell("storage", store.location, reachable=True, location=store.location)
        await _environment(case)
        await _adapter(case)
    except (NotFoundFailure, Failure, StoreError) as error:
        case.found.tell("storage", "not readable from here", reachable=False)
        case.found.notes.append(
            f"{error}; environment and adapter were not checked, the operator will"
        )


async def _environment(case: _Case) -> None:
    from flashrun.cli.commands.env import pointer

    identifier = case.config.environment.id
    try:
        newest = await pointer(case.session, identifier)
    except NotFoundFailure:
        case.found.tell("environment", f"{identifier}, not published", digest=None)
        case.found.problems.append(
            f"environment.id: {identifier} has not been pushed to this platform: "
            f"flash env push FOLDER --name {identifier}"
        )
    else:
        pushed = newest.pushed.strftime("%Y-%m-%d %H:%M UTC")
        line = f"{identifier}@{newest.digest[:12]}, pushed {pushed}"
        case.found.tell("environment", line, **newest.model_dump(mode="json"))


async def _adapter(case: _Case) -> None:
    start = await adapters.look(case.session, case.config)
    case.adapter = start.manifest
    ref = case.config.train.init_from_adapter
    if start.problem is not None:
        case.found.tell("adapter", f"{ref}, not usable", usable=False)
        case.found.problems.append(str(start.problem))
    elif start.manifest is not None:
        rank, alpha = start.manifest.lora_rank, start.manifest.lora_alpha
        case.found.tell(
            "adapter", f"{ref}: rank {rank}, alpha {alpha}", usable=True, rank=rank, alpha=alpha
        )


async def _pool(case: _Case) -> None:
    """Choose as the operator will; free GPUs are as it last counted them."""
    model = case.platform.catalog().get(case.config.model)
    pools, algorithm = case.platform.pools, case.config.algorithm
    if model is None or not pools:
        return
    train = resolve_train(case.config, case.adapter)
    case.place = placement.choose_placement(pools, model, algorithm, train)
    if case.place is None:
        case.found.problems.append(
            str(placement.explain_no_placement(pools, model, algorithm, train))
        )
        return
    pool, scale = case.place.pool, case.place.scale
    gpus = f"{scale.world_size} GPU{'' if scale.world_size == 1 else 's'}"
    free = "" if pool.free is None else f", {pool.free} of {pool.total} free"
    case.found.tell(
        "pool",
        f"{gpus} of {pool.name} ({pool.vram:g} GiB each{free})",
        name=pool.name,
        gpus=scale.world_size,
        nodes=scale.nodes,
        free=pool.free,
        total=pool.total,
    )
    if pool.free is not None and pool.free < scale.world_size:
        case.found.notes.append(f"pool {pool.name} has too few free GPUs: the run would wait")


async def _quota(case: _Case) -> None:
    """Compare the namespace's quota of the pool's resource with what the run asks for."""
    from flashrun.cluster_errors import Forbidden

    if case.place is None:
        return
    wanted, resource = case.place.scale.world_size, f"requests.{case.place.pool.resource}"
    try:
        quotas = await case.session.cluster.list("ResourceQuota", case.session.namespace)
    except Forbidden as error:
        case.found.notes.append(f"quota was not checked: {error}")
        return
    limits = [
        (quota["metadata"]["name"], int(hard), _used(quota, resource))
        for quota in quotas
        if (hard := ((quota.get("status") or {}).get("hard") or {}).get(resource)) is not None
    ]
    for name, hard, used in limits:
        case.found.tell("quota", f"{name}: {used} of {hard} {resource} used", hard=hard, used=used)
        what = f"quota {name} allows {hard} {resource} in namespace {case.session.namespace}"
        if wanted > hard:
            case.found.problems.append(f"{what}, and the run needs {wanted}: it would never start")
        elif used + wanted > hard:
            case.found.notes.append(f"{what}, and {used} are in use: the run would wait")


def _used(quota: dict[str, Any], resource: str) -> int:
    return int((quota["status"].get("used") or {}).get(resource, 0))


async def _secrets(case: _Case) -> None:
    """Say which names have a value here; values are not shown anywhere."""
    listed = case.config.environment.secrets
    places = dotenv.sources(os.environ, dict.fromkeys((Path.cwd(), *case.folders)))
    there = dotenv.lookup((*listed, names.WANDB_API_KEY), places)
    missing = [name for name in listed if name not in there]
    told = [*(f"{name} is set" for name in there), *(f"{name} is missing" for name in missing)]
    case.found.tell("secrets", ", ".join(told) or "none", set=[*there], missing=missing)
    if missing:
        case.found.problems.append(
            f"environment.secrets names {', '.join(missing)}, but no value is set: set each in "
            f"your shell, or in {' or '.join(dotenv.FILES)} here or beside the config"
        )
