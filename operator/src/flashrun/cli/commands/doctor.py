"""``flash doctor``: check what works from this machine, and how to fix what does not."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import typer

from flashrun import __version__
from flashrun.api import names
from flashrun.api.public import PublicPlatform
from flashrun.api.storage_endpoint import in_cluster_service
from flashrun.cli.cluster import published_environments
from flashrun.cli.cluster.connection import ClusterSession, connect, unserved_namespace
from flashrun.cli.config import dotenv
from flashrun.cli.options import Context, Namespace, Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import ExitCode, Failure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Cell, Table, Tone
from flashrun.cluster_errors import ClusterError, Forbidden, NotFound
from flashrun.daemon_thread import in_daemon_thread
from flashrun.plan.kubernetes_status import find_condition
from flashrun.store_errors import StoreError

if TYPE_CHECKING:
    from flashrun.store import Store

FRESH_SECONDS: Final = 300
"""The operator publishes every minute; after this long without, it counts as not running."""
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
"""The rights for a port-forward to storage, in the namespace of its Service."""


FOREIGN_PREFIX: Final = names.namespace_probe_prefix("-")
"""Where people of no namespace may list or write: none can have this name."""


class Verdict(StrEnum):
    """Result of one check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class CheckResult(NamedTuple):
    """One line of the answer: what was seen, and how to fix it."""

    check: str
    verdict: Verdict
    seen: str
    fix: str = ""


def doctor(
    output: Output = OutputFormat.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """Check that this machine can submit runs.

    Checks cluster, rights, operator, storage, GPUs and Kueue, and prints how to fix what is wrong.

    The exit code is 1 when a check fails, and 0 when there are only warnings.

    Example: flash doctor -n team-a
    """
    results = asyncio.run(_run_checks(namespace, context))
    if output in (OutputFormat.JSON, OutputFormat.YAML):
        terminal.write_data(list(map(_data, results)), output)
    elif output is OutputFormat.NAME:
        for result in results:
            terminal.write(f"{result.verdict} {result.check}")
    else:
        terminal.write_table(_table(results))
    if any(result.verdict is Verdict.FAIL for result in results):
        raise typer.Exit(ExitCode.RUN_FAILED)


_TONES: Final = {Verdict.OK: Tone.GOOD, Verdict.WARN: Tone.ACTIVE, Verdict.FAIL: Tone.BAD}


def _data(result: CheckResult) -> dict[str, str]:
    return {
        "check": result.check,
        "level": str(result.verdict),
        "seen": result.seen,
        "fix": result.fix,
    }


def _table(results: Iterable[CheckResult]) -> Table:
    rows = (
        (
            Cell(result.verdict, _TONES[result.verdict]),
            Cell(result.check),
            Cell(result.seen),
            Cell(terminal.as_typed(result.fix)),
        )
        for result in results
    )
    return Table(("", "CHECK", "SEEN", "WHAT TO DO"), tuple(rows))


# --- the checks ---------------------------------------------------------------------------------


async def _run_checks(namespace: str | None, context: str | None) -> list[CheckResult]:
    async with connect(context, namespace) as session:
        results = await _catch(session, "API server", _check_server)
        if results[0].verdict is Verdict.FAIL:
            return results
        results += await _catch(session, "CRD", _check_crd)
        results += await _catch(session, "rights", _check_rights)
        platform = await session.get_platform()
        results += _check_operator(platform, session.namespace, datetime.now(UTC))
        results += await _catch(session, "storage", _check_storage)
        if platform is not None:
            results += _check_pools(platform)
            results += await _catch(session, "Kueue", lambda it: _check_kueue(it, platform))
        results += _check_secrets()
        return results


async def _catch(
    session: ClusterSession,
    name: str,
    check: Callable[[ClusterSession], Awaitable[list[CheckResult]]],
) -> list[CheckResult]:
    """Run one check; when it raises an error, return it as a failed check."""
    try:
        return await check(session)
    except Failure as failure:
        return [CheckResult(name, Verdict.FAIL, failure.sentence, failure.hint)]
    except (ClusterError, StoreError) as error:
        return [CheckResult(name, Verdict.FAIL, str(error))]


async def _check_server(session: ClusterSession) -> list[CheckResult]:
    version = await session.cluster.version()
    place = f"{version}, context {session.cluster.context}, namespace {session.namespace}"
    old = _parse_version(version) < OLDEST_SERVER
    oldest = ".".join(map(str, OLDEST_SERVER))
    return [
        CheckResult(
            "API server", Verdict.WARN, place, f"upgrade it: {oldest} or newer is supported"
        )
        if old
        else CheckResult("API server", Verdict.OK, place)
    ]


def _parse_version(version: str) -> tuple[int, ...]:
    major, minor, *_ = version.removeprefix("v").split(".")
    return int(major), int(minor)


async def _check_crd(session: ClusterSession) -> list[CheckResult]:
    """Check that the CRD is installed in the version that this program writes."""
    try:
        runs = await session.list_manifests()
    except NotFound:
        return [
            CheckResult(
                "CRD",
                Verdict.FAIL,
                f"the cluster does not know {names.PLURAL}.{names.GROUP}",
                "its administrator has to install the chart: helm install flashrun charts/flashrun",
            )
        ]
    served = await session.cluster.served_versions(names.GROUP)
    seen = f"{names.GROUP}/{', '.join(served)}; {len(runs)} runs here"
    if names.VERSION not in served:
        fix = f"this program writes {names.VERSION}: use the release that the cluster runs"
        return [CheckResult("CRD", Verdict.FAIL, seen, fix)]
    return [CheckResult("CRD", Verdict.OK, seen)]


async def _check_rights(session: ClusterSession) -> list[CheckResult]:
    refused = [
        f"{verb} {kind}{'/' + subresource if subresource else ''}"
        for verb, kind, subresource in _RIGHTS
        if not await session.cluster.may(verb, kind, session.namespace, subresource)
    ]
    if not refused:
        return [
            CheckResult("rights", Verdict.OK, "you may submit and change runs and read their logs")
        ]
    fix = (
        "the cluster's administrator can grant you the role edit: kubectl create rolebinding "
        f"NAME --clusterrole=edit --user=YOU -n {session.namespace}"
    )
    seen = f"you may not {', '.join(refused)} in namespace {session.namespace}"
    return [CheckResult("rights", Verdict.FAIL, seen, fix)]


def _check_operator(
    platform: PublicPlatform | None, namespace: str, now: datetime
) -> list[CheckResult]:
    """Check that the operator serves this namespace, is running, and is of this release."""
    if platform is None:
        unserved = unserved_namespace(namespace)
        return [
            CheckResult(
                "operator",
                Verdict.FAIL,
                unserved.sentence,
                unserved.hint,
            )
        ]
    age = (now - platform.updated).total_seconds() if platform.updated else None
    if age is None or age > FRESH_SECONDS:
        since = "never published" if age is None else f"last published {age / 60:.0f} minutes ago"
        fix = "look at kubectl get deploy,pods -A -l app.kubernetes.io/component=operator"
        return [CheckResult("operator", Verdict.FAIL, since, fix)]
    seen = f"version {platform.version}, published {max(0, age):.0f} s ago"
    if platform.version != __version__:
        fix = f"this program is {__version__}: use the same release for both"
        return [CheckResult("operator", Verdict.WARN, seen, fix)]
    return [CheckResult("operator", Verdict.OK, seen)]


async def _check_storage(session: ClusterSession) -> list[CheckResult]:
    """Check that runs and environments can be listed, and show how storage is reached."""
    platform = await session.get_platform()
    published = platform.storage_endpoint if platform else ""
    if platform and platform.storage_problem:
        fix = "no run starts before the administrator of storage has solved this"
        return [CheckResult("storage", Verdict.FAIL, platform.storage_problem, fix)]
    try:
        store = await session.open_store()
        environments = await published_environments.prefixes(session)
        for prefix in (names.namespace_prefix(session.namespace), *environments):
            await in_daemon_thread(functools.partial(_list_one, store, prefix))
        if platform and platform.storage_problem is not None:
            await in_daemon_thread(lambda: _probe(store, session.namespace))
    except (ClusterError, StoreError):
        if (missing := await _missing_forward_rights(session, published)) is None:
            raise
        return [missing]
    direct = not published or store.access.endpoint == published
    way = "reached directly" if direct else f"forwarded from {published}"
    return [CheckResult("storage", Verdict.OK, f"{store.location}, {way}")]


async def _missing_forward_rights(session: ClusterSession, endpoint: str) -> CheckResult | None:
    """Return which rights for a port-forward to storage are missing; None when none is."""
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
        "the cluster's administrator can allow it: kubectl create rolebinding NAME "
        f"--clusterrole=flashrun-storage-forward --group=YOUR-GROUP -n {service[1]}"
    )
    seen = f"{endpoint} is inside the cluster, and in namespace {service[1]} you may not "
    return CheckResult("storage", Verdict.FAIL, seen + ", ".join(refused), fix)


def _probe(store: "Store", namespace: str) -> None:
    """Try what runs need of storage, from here and with the credentials of people.

    Raises:
        Unsuitable: something is missing, or the credentials are not limited to the namespace.
        StoreError: storage did not answer.
    """
    from flashrun.store_errors import Unsuitable
    from flashrun.store_probe import StoreProbe, keys_outside_are_refused

    probe = StoreProbe(store, names.namespace_probe_prefix(namespace))
    probe.require()
    if store.access.session_token and (problem := keys_outside_are_refused(store, FOREIGN_PREFIX)):
        raise Unsuitable(f"storage {probe.name()} cannot be used: {problem}")


def _list_one(store: "Store", prefix: str) -> None:
    next(iter(store.list(prefix, recursive=False)), None)


def _check_pools(platform: PublicPlatform) -> list[CheckResult]:
    results = []
    for pool in platform.pools:
        name, kind = f"pool {pool.name}", f"{pool.vram:g} GiB per GPU"
        if pool.total is None:
            results.append(CheckResult(name, Verdict.OK, f"{kind}; its GPUs are not counted"))
        elif pool.total == 0:
            fix = f"no ready node has {pool.resource} and the pool's labels: check its nodeSelector"
            results.append(CheckResult(name, Verdict.WARN, f"{kind}; it has no nodes", fix))
        elif not pool.free:
            fix = "runs wait until one is free: kubectl get flashruns -A lists who uses them"
            results.append(CheckResult(name, Verdict.WARN, f"{kind}; 0 of {pool.total} free", fix))
        else:
            results.append(
                CheckResult(name, Verdict.OK, f"{kind}; {pool.free} of {pool.total} free")
            )
    return results


async def _check_kueue(session: ClusterSession, platform: PublicPlatform) -> list[CheckResult]:
    if not platform.queue:
        return [CheckResult("Kueue", Verdict.OK, "not used")]
    queue = f"LocalQueue {platform.queue}"
    try:
        queues = await session.cluster.list("LocalQueue", session.namespace)
    except NotFound:
        fix = "install Kueue, or leave the chart's trainer.queue empty"
        return [
            CheckResult(
                "Kueue", Verdict.FAIL, f"runs go to {queue}, but Kueue is not installed", fix
            )
        ]
    except Forbidden as error:
        return [CheckResult("Kueue", Verdict.WARN, f"{queue} was not checked", str(error))]
    found = next((item for item in queues if item["metadata"]["name"] == platform.queue), None)
    if found is None:
        seen = f"{queue} does not exist in namespace {session.namespace}: runs would wait for ever"
        return [CheckResult("Kueue", Verdict.FAIL, seen, "create it, for the team's ClusterQueue")]
    if stopped := find_condition(found, "Active", "False"):
        seen = f"{queue} admits nothing: {stopped.get('message') or stopped.get('reason')}"
        return [CheckResult("Kueue", Verdict.FAIL, seen, "repair its ClusterQueue")]
    return [CheckResult("Kueue", Verdict.OK, f"{queue} exists")]


def _check_secrets() -> list[CheckResult]:
    """Show whether runs log to Weights & Biases; the value itself is never printed."""
    is_set = bool(dotenv.find_values([names.WANDB_API_KEY]))
    seen = f"{names.WANDB_API_KEY} is {'set' if is_set else 'not set'} here"
    effect = "runs log to Weights & Biases" if is_set else "runs do not log to Weights & Biases"
    return [CheckResult("secrets", Verdict.OK, f"{seen}: {effect}")]
