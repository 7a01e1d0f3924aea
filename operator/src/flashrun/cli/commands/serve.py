"""``flash serve``: a server for adapters of one base model, rendered or run."""

import asyncio
import re
from typing import Annotated, Final, NamedTuple

import typer

from flashrun.api import adapter_use, names
from flashrun.api.names import Ref
from flashrun.api.platform import PodSettings
from flashrun.api.public import PublicPlatform, PublicPool
from flashrun.api.quantities import multiply_quantity
from flashrun.api.served import ServedList, ServingEngine
from flashrun.cli.adapter_refs import parse_typed_ref
from flashrun.cli.cluster.connection import ClusterSession, connect
from flashrun.cli.cluster.served_adapters import FoundAdapters, find_served
from flashrun.cli.models.model_source import refuse_unreadable_mirror
from flashrun.cli.options import Context, Namespace
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure, NotFoundFailure, UsageFailure
from flashrun.plan.serving_objects import AdapterServer, serving_objects
from flashrun.plan.types import Object

_KINDS: Final = ("Service", "Deployment", "ConfigMap")
"""What a server has, in the order in which it is removed."""
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_BYTES_OF_WEIGHT: Final = 4
"""Without a GPU, weights are float32."""


def serve(
    refs: Annotated[
        list[str],
        typer.Argument(
            help="RUN for its final adapter and every checkpoint, RUN/step-N for one checkpoint.",
            metavar="REF...",
        ),
    ],
    apply: Annotated[
        bool, typer.Option("--apply", help="Run the server instead of printing its objects.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the server; what is in storage stays.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the server; by default after the run.")
    ] = None,
    engine: Annotated[
        ServingEngine, typer.Option("--engine", help="What answers; transformers needs no GPU.")
    ] = ServingEngine.VLLM,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus", help="GPUs of vllm, over which it splits the model.  [default: 1]", min=0
        ),
    ] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", help="Pool of the GPUs; by default the first one.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print the objects of a server for adapters, or run it.

    The adapters have one base model, and each is a model id of the server's OpenAI endpoint.
    Without --apply nothing changes in the cluster: pipe the objects to kubectl, or commit them. To
    serve what was saved since, type the command again.

    Example: flash serve flash-1795370000-3fa9c1d2 --apply
    """
    parsed = [parse_typed_ref(ref) for ref in refs]
    if apply and remove:
        raise UsageFailure("--apply and --remove exclude each other", "leave out one of them")
    server = names.server_name(parsed[0].run) if name is None else name
    if not _NAME.fullmatch(server):
        raise UsageFailure(
            f"{server!r} cannot be the name of a server: use up to 63 lower-case letters, digits "
            "and '-', and begin with a letter"
        )
    if engine is ServingEngine.VLLM and gpus == 0:
        raise UsageFailure("vllm needs a GPU here", "use --engine transformers, or --gpus 1")
    if engine is ServingEngine.TRANSFORMERS and (gpus or pool):
        raise UsageFailure(
            "the server on transformers computes without a GPU",
            "leave out --gpus and --pool, or use --engine vllm",
        )
    if remove:
        asyncio.run(_remove(server, namespace, context))
        return
    default = 1 if engine is ServingEngine.VLLM else 0
    wanted = ServerOptions(server, engine, default if gpus is None else gpus, pool)
    asyncio.run(_serve(parsed, wanted, apply, namespace, context))


class ServerOptions(NamedTuple):
    """What the options ask for."""

    name: str
    engine: ServingEngine
    gpus: int
    pool: str | None


async def _serve(
    refs: list[Ref], wanted: ServerOptions, apply: bool, namespace: str | None, context: str | None
) -> None:
    async with connect(context, namespace) as session:
        platform = await session.get_platform()
        if platform is None:
            await session.refuse_unserved_namespace()
            raise Failure(
                f"the platform's description of itself cannot be read in {session.namespace}",
                "ask the platform's administrator",
            )
        found = await find_served(session, refs)
        refuse_unreadable_mirror(platform, found.run.model)
        objects = serving_objects(_planned(wanted, found, platform, session.namespace))
        if not apply:
            terminal.write("---\n".join(map(terminal.to_yaml, objects)).rstrip())
            return
        await _apply(session, wanted.name, objects)
        for adapter in found.served.adapters:
            terminal.write(adapter.id)
    count = len(found.served.adapters)
    noun = "adapter" if count == 1 else "adapters"
    first = found.served.adapters[0].id
    terminal.say(f"server {wanted.name} serves {count} {noun} of {found.run.model.id}")
    named = "" if wanted.name == names.server_name(refs[0].run) else f" --name {wanted.name}"
    terminal.say(terminal.as_typed(f"when it is ready: flash chat {first}{named}"))


async def _apply(session: ClusterSession, name: str, objects: tuple[Object, ...]) -> None:
    for kind in _KINDS:
        await _own(session, kind, name)
    for manifest in objects:
        await session.cluster.apply(manifest, names.CLI_FIELD_MANAGER)


async def _own(session: ClusterSession, kind: str, name: str) -> bool:
    """Return whether an object of a server exists; another one of this name is never touched."""
    metadata = await session.cluster.metadata(kind, session.namespace, name)
    if metadata is None:
        return False
    if (metadata.get("labels") or {}).get(names.SERVING_LABEL) != name:
        raise UsageFailure(
            f"{kind} {name} in namespace {session.namespace} was not made by flash serve",
            "choose another --name",
        )
    return True


async def _remove(name: str, namespace: str | None, context: str | None) -> None:
    async with connect(context, namespace) as session:
        there = [kind for kind in _KINDS if await _own(session, kind, name)]
        if not there:
            raise NotFoundFailure(
                f"namespace {session.namespace} has no server {name}",
                "name it with --name, or by the run that it was named after",
            )
        for kind in there:
            await session.cluster.delete(kind, session.namespace, name)
    terminal.say(f"server {name} was removed")


def _planned(
    wanted: ServerOptions, found: FoundAdapters, platform: PublicPlatform, namespace: str
) -> AdapterServer:
    """Return the server that the options and the platform describe."""
    pool = _pool(wanted, platform)
    if wanted.engine is ServingEngine.VLLM:
        _check_rank(found.served)
    requests, limits = _resources(wanted, found, platform, pool)
    return AdapterServer(
        name=wanted.name,
        namespace=namespace,
        engine=wanted.engine,
        run=found.run,
        served=found.served,
        pods=platform.trainer or PodSettings(image=found.run.image),
        requests=requests,
        limits=limits,
        gpus=wanted.gpus,
        pool=pool,
    )


def _check_rank(served: ServedList) -> None:
    if adapter_use.vllm_rank(served.rank) is None:
        raise UsageFailure(
            f"vllm takes no adapter of rank {served.rank}", "use --engine transformers"
        )


def _pool(wanted: ServerOptions, platform: PublicPlatform) -> PublicPool | None:
    """Return the pool whose GPUs the server gets; None without GPUs."""
    if not wanted.gpus:
        return None
    pools = {pool.name: pool for pool in platform.pools}
    if not pools:
        raise Failure("the platform lists no pool of GPUs", "flash gpus shows the pools")
    if wanted.pool is not None and wanted.pool not in pools:
        raise NotFoundFailure(
            f"the platform has no pool {wanted.pool}", f"use one of {', '.join(pools)}"
        )
    pool = pools[wanted.pool] if wanted.pool else platform.pools[0]
    if wanted.gpus > pool.gpus_per_node:
        raise UsageFailure(
            f"a node of pool {pool.name} has {pool.gpus_per_node} GPUs, fewer than --gpus asks for",
            f"use --gpus {pool.gpus_per_node}, or another --pool: flash gpus lists them",
        )
    return pool


def _resources(
    wanted: ServerOptions, found: FoundAdapters, platform: PublicPlatform, pool: PublicPool | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the pod requests, and its limits."""
    if pool is None:
        model = platform.catalog().get(found.run.model.id)
        parameters = model.parameters if model is not None else 8
        memory = f"{2 + int(1.25 * _BYTES_OF_WEIGHT * parameters)}Gi"
        return {"cpu": "500m", "memory": memory}, {"memory": memory}
    memory, gpus = multiply_quantity(pool.memory, wanted.gpus), str(wanted.gpus)
    requests = {"cpu": multiply_quantity(pool.cpu, wanted.gpus), "memory": memory}
    limits = {"memory": memory}
    if pool.cpu_limit is not None:
        limits["cpu"] = multiply_quantity(pool.cpu_limit, wanted.gpus)
    if pool.ephemeral_storage is not None:
        disk = multiply_quantity(pool.ephemeral_storage, wanted.gpus)
        requests["ephemeral-storage"] = limits["ephemeral-storage"] = disk
    return {**requests, pool.resource: gpus}, {**limits, pool.resource: gpus}
