"""``flash doctor``: what works from this machine, and what to do about the rest."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import typer

from flashrun import __version__
from flashrun.api import names
from flashrun.api.public import PublicPlatform
from flashrun.cli.cluster.connection import Session, connect
from flashrun.cli.config import dotenv
from flashrun.cli.options import Context, Form, Namespace, Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import ExitCode, Failure
from flashrun.cli.output.tables import Cell, Table, Tone

if TYPE_CHECKING:
    from flashrun.store import Store

FRESH_SECONDS: Final = 300
"""The operator publishes every minute; after so long without, it is not alive."""
OLDEST_SERVER: Final = (1, 31)
_RIGHTS: Final = (
    ("create", names.KIND, ""),
    ("patch", names.KIND, ""),
    ("create", "Secret", ""),
    ("get", "Pod", "log"),
)


FORWARD_RIGHTS: Final = (
    ("get", "Service", ""),
    ("list", "Pod", ""),
    ("get", "Pod", "portforward"),
    ("create", "Pod", "portforward"),
)
"""What a port-forward to storage takes, in the namespace of its service."""


class Level(StrEnum):
    """How one check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Found(NamedTuple):
    """One line of the answer: what was seen, and what to do about it."""

    check: str
    level: Level
    seen: str
    fix: str = ""


def doctor(
    output: Form = Output.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """Check that this machine can submit runs.

    Looks at cluster, rights, operator, storage, GPUs and Kueue, and says what to fix.

    Ends with 1 when something fails, with 0 when there are warnings only.

    Example: flash doctor -n team-a
    """
    found = asyncio.run(_doctor(namespace, context))
    if output in (Output.JSON, Output.YAML):
        terminal.write_data([line._asdict() | {"level": str(line.level)} for line in found], output)
    elif output is Output.NAME:
        for line in found:
            terminal.write(f"{line.level} {line.check}")
    else:
        terminal.write_table(_table(found))
    if any(line.level is Level.FAIL for line in found):
        raise typer.Exit(ExitCode.RUN_FAILED)


_TONES: Final = {Level.OK: Tone.GOOD, Level.WARN: Tone.ACTIVE, Level.FAIL: Tone.BAD}


def _table(found: Iterable[Found]) -> Table:
    rows = (
        (
            Cell(line.level, _TONES[line.level]),
            Cell(line.check),
            Cell(line.seen),
            Cell(terminal.in_user_words(line.fix)),
        )
        for line in found
    )
    return Table(("", "CHECK", "SEEN", "WHAT TO DO"), tuple(rows))


# --- the checks ---------------------------------------------------------------------------------


async def _doctor(namespace: str | None, context: str | None) -> list[Found]:
    async with connect(context, namespace) as session:
        server = await _checked(session, "API server", _server)
        if server[0].level is Level.FAIL:
            return server
        found = [*server, *await _checked(session, "CRD", _crd)]
        found += await _checked(session, "rights", _rights)
        platform = await session.platform()
        found += _operator(platform, session.namespace, datetime.now(UTC))
        found += await _checked(session, "storage", _storage)
        if platform is not None:
            found += _pools(platform)
            found += await _checked(session, "Kueue", lambda asked: _kueue(asked, platform))
        found += _values()
        return found


async def _checked(
    session: Session, name: str, check: Callable[[Session], Awaitable[list[Found]]]
) -> list[Found]:
    """Run one check; one that fails says so and lets the others run."""
    from flashrun.cluster_errors import ClusterError
    from flashrun.store_errors import StoreError

    try:
        return await check(session)
    except (ClusterError, StoreError, Failure) as error:
        return [Found(name, Level.FAIL, str(error), getattr(error, "hint", ""))]


async def _server(session: Session) -> list[Found]:
    version = await session.cluster.version()
    place = f"{version}, context {session.cluster.context}, namespace {session.namespace}"
    old = _numbers(version) < OLDEST_SERVER
    wanted = ".".join(map(str, OLDEST_SERVER))
    return [
        Found("API server", Level.WARN, place, f"upgrade it: {wanted} or newer is supported")
        if old
        else Found("API server", Level.OK, place)
    ]


def _numbers(version: str) -> tuple[int, ...]:
    major, minor, *_ = version.removeprefix("v").split(".")
    return int(major), int(minor)


async def _crd(session: Session) -> list[Found]:
    """Whether the cluster knows FlashRuns, and takes the spec as this program writes it."""
    from flashrun.cluster_errors import NotFound

    try:
        runs = await session.manifests()
    except NotFound:
        return [
            Found(
                "CRD",
                Level.FAIL,
                f"the cluster does not know {names.PLURAL}.{names.GROUP}",
                "its administrator installs the chart: helm install flashrun charts/flashrun",
            )
        ]
    served = await session.cluster.served_versions(names.GROUP)
    seen = f"{names.GROUP}/{', '.join(served)}; {len(runs)} runs here"
    if names.VERSION not in served:
        fix = f"this program speaks {names.VERSION}: use the release that the cluster runs"
        return [Found("CRD", Level.FAIL, seen, fix)]
    return [Found("CRD", Level.OK, seen)]


async def _rights(session: Session) -> list[Found]:
    refused = [
        f"{verb} {kind}{'/' + subresource if subresource else ''}"
        for verb, kind, subresource in _RIGHTS
        if not await session.cluster.may(verb, kind, session.namespace, subresource)
    ]
    if not refused:
        return [Found("rights", Level.OK, "you may submit and change runs and read their logs")]
    fix = (
        "the cluster's administrator gives you the role edit there: kubectl create rolebinding "
        f"NAME --clusterrole=edit --user=YOU -n {session.namespace}"
    )
    seen = f"you may not {', '.join(refused)} in namespace {session.namespace}"
    return [Found("rights", Level.FAIL, seen, fix)]


def _operator(platform: PublicPlatform | None, namespace: str, now: datetime) -> list[Found]:
    """Whether the operator serves this namespace, is alive, and is of this release."""
    if platform is None:
        return [
            Found(
                "operator",
                Level.FAIL,
                f"ConfigMap {names.PUBLIC_CONFIG_MAP} cannot be read in namespace {namespace}",
                f"the operator serves other namespaces: choose one with -n, or have {namespace} "
                "added to the chart's namespaces",
            )
        ]
    age = (now - platform.updated).total_seconds() if platform.updated else None
    if age is None or age > FRESH_SECONDS:
        since = "never published" if age is None else f"last published {age / 60:.0f} minutes ago"
        fix = "see kubectl get deploy,pods -A -l app.kubernetes.io/component=operator"
        return [Found("operator", Level.FAIL, since, fix)]
    seen = f"version {platform.version}, published {max(0, age):.0f} s ago"
    if platform.version != __version__:
        fix = f"this program is {__version__}: use the same release for both"
        return [Found("operator", Level.WARN, seen, fix)]
    return [Found("operator", Level.OK, seen)]


async def _storage(session: Session) -> list[Found]:
    """Whether runs can be read and environments listed, and by which way."""
    from flashrun.cluster_errors import ClusterError
    from flashrun.store_errors import StoreError

    platform = await session.platform()
    published = platform.storage_endpoint if platform else ""
    try:
        store = await session.store()
        for prefix in (names.namespace_prefix(session.namespace), names.ENVIRONMENTS_PREFIX):
            await asyncio.to_thread(_first, store, prefix)
    except (ClusterError, StoreError):
        if (found := await _unforwarded(session, published)) is None:
            raise
        return [found]
    there = not published or store.access.endpoint == published
    way = "reached directly" if there else f"forwarded from {published}"
    return [Found("storage", Level.OK, f"{store.location}, {way}")]


async def _unforwarded(session: Session, endpoint: str) -> Found | None:
    """Say which right is missing to reach storage inside the cluster; None when it is not that."""
    from flashrun.port_forward import in_cluster_service

    service = in_cluster_service(urlsplit(endpoint).hostname or "")
    if service is None:
        return None
    refused = [
        f"{verb} {kind}{'/' + subresource if subresource else ''}"
        for verb, kind, subresource in FORWARD_RIGHTS
        if not await session.cluster.may(verb, kind, service[1], subresource)
    ]
    if not refused:
        return None
    fix = (
        "the cluster's administrator allows it: kubectl create rolebinding NAME "
        f"--clusterrole=flashrun-storage-forward --group=YOUR-GROUP -n {service[1]}"
    )
    seen = f"{endpoint} is inside the cluster, and in namespace {service[1]} you may not "
    return Found("storage", Level.FAIL, seen + ", ".join(refused), fix)


def _first(store: "Store", prefix: str) -> None:
    next(iter(store.list(prefix, recursive=False)), None)


def _pools(platform: PublicPlatform) -> list[Found]:
    found = []
    for pool in platform.pools:
        name, kind = f"pool {pool.name}", f"{pool.vram:g} GiB a GPU"
        if pool.total is None:
            found.append(Found(name, Level.OK, f"{kind}; its GPUs are not counted"))
        elif pool.total == 0:
            fix = f"no ready node has {pool.resource} and the pool's labels: check its nodeSelector"
            found.append(Found(name, Level.WARN, f"{kind}; it has no nodes", fix))
        elif not pool.free:
            fix = "runs wait for one; flash runs -A lists who has them"
            found.append(Found(name, Level.WARN, f"{kind}; 0 of {pool.total} free", fix))
        else:
            found.append(Found(name, Level.OK, f"{kind}; {pool.free} of {pool.total} free"))
    return found


async def _kueue(session: Session, platform: PublicPlatform) -> list[Found]:
    from flashrun.cluster_errors import Forbidden, NotFound

    if not platform.queue:
        return [Found("Kueue", Level.OK, "not used")]
    queue = f"LocalQueue {platform.queue}"
    try:
        there = await session.cluster.list("LocalQueue", session.namespace)
    except NotFound:
        fix = "install Kueue, or set the chart's trainer.queue to nothing"
        return [Found("Kueue", Level.FAIL, f"runs go to {queue}, but Kueue is not installed", fix)]
    except Forbidden as error:
        return [Found("Kueue", Level.WARN, f"{queue} was not checked", str(error))]
    if platform.queue not in {item["metadata"]["name"] for item in there}:
        seen = f"{queue} does not exist in namespace {session.namespace}: runs would wait for ever"
        return [Found("Kueue", Level.FAIL, seen, "create it there, for the team's ClusterQueue")]
    return [Found("Kueue", Level.OK, f"{queue} exists")]


def _values() -> list[Found]:
    """Whether metrics would go to Weights & Biases; the value is shown nowhere."""
    places = dotenv.sources(os.environ, [Path.cwd()])
    there = dotenv.lookup([names.WANDB_API_KEY], places)
    seen = f"{names.WANDB_API_KEY} is {'set' if there else 'not set'} here"
    then = "runs log to Weights & Biases" if there else "runs do not log to Weights & Biases"
    return [Found("secrets", Level.OK, f"{seen}: {then}")]
