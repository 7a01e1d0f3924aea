"""A command's connection to the cluster and to storage, with kubeconfig rights only.

What else a laptop has to know comes from the cluster: the ConfigMap ``flashrun-public`` describes
the platform, and the Secret ``flashrun-storage-user`` holds keys that reach what people of one
namespace may see. Clients are imported here, when a command needs them, and nowhere else.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from flashrun import cluster_errors, store_errors
from flashrun.api import names, public
from flashrun.api.public import PublicPlatform
from flashrun.api.records import StorageAccess
from flashrun.api.resource import FlashRun
from flashrun.cli.config import platform_cache
from flashrun.cli.output.failure import Failure, NotFoundFailure, UsageFailure

if TYPE_CHECKING:
    from flashrun.cluster import Cluster
    from flashrun.store import Store

Answer = TypeVar("Answer")


class Session:
    """One command's way to the cluster."""

    def __init__(self, cluster: "Cluster", namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._store: Store | None = None
        self._exits = contextlib.AsyncExitStack()

    async def run(self, name: str) -> FlashRun:
        """Return a run; raises ``NotFoundFailure``."""
        return parsed(await self.manifest(name))

    async def manifest(self, name: str) -> dict[str, Any]:
        """Return a run as the API server has it; raises ``NotFoundFailure``."""
        found = await self.cluster.find(names.KIND, self.namespace, name)
        if found is None:
            raise NotFoundFailure(
                f"there is no run {name} in namespace {self.namespace}", "flash runs lists them"
            )
        return _for_people(found)

    async def manifests(self) -> list[dict[str, Any]]:
        """Return every run of the namespace as the API server has it."""
        return list(map(_for_people, await self.cluster.list(names.KIND, self.namespace)))

    async def runs(self) -> list[FlashRun]:
        """Return every run of the namespace that can be read."""
        found = []
        for manifest in await self.manifests():
            with contextlib.suppress(ValidationError):
                found.append(FlashRun.from_manifest(manifest))
        return found

    async def patch_control(self, name: str, control: dict[str, Any]) -> None:
        """Turn switches of a run."""
        body = {"spec": {"control": control}}
        await self.cluster.patch(
            names.KIND, self.namespace, name, body, manager=names.CLI_FIELD_MANAGER
        )

    async def platform(self) -> PublicPlatform | None:
        """Return what the platform says of itself; None when it cannot be read."""
        from flashrun.cluster_errors import Forbidden

        name = names.PUBLIC_CONFIG_MAP
        with contextlib.suppress(Forbidden, ValidationError, KeyError, ValueError):
            found = await self.cluster.find("ConfigMap", self.namespace, name)
            if found is not None:
                seen = PublicPlatform.model_validate_json(found["data"][public.FILE])
                platform_cache.remember(seen)
                return seen
        return None

    async def store(self) -> "Store":
        """Return the storage that people of this namespace may use.

        Raises:
            Failure: the platform hands out no storage access here.
        """
        if self._store is None:
            self._store = await self._open_store()
        return self._store

    async def _open_store(self) -> "Store":
        from flashrun.cluster_errors import Forbidden, NotFound
        from flashrun.store import Store

        try:
            text = await self.cluster.secret_value(
                self.namespace, names.STORAGE_USER_SECRET, names.ACCESS_KEY
            )
            access = StorageAccess.model_validate_json(text)
        except NotFound:
            raise Failure(
                f"namespace {self.namespace} has no storage access for people "
                f"(Secret {names.STORAGE_USER_SECRET})",
                "the operator makes it in the namespaces that it serves: choose one with -n, or "
                "ask the platform's administrator",
            ) from None
        except (Forbidden, ValidationError) as error:
            why = str(error) if isinstance(error, Forbidden) else "its content is not readable"
            raise Failure(f"storage cannot be used: {why}") from None
        return Store(await self._reachable(access))

    async def _reachable(self, access: StorageAccess) -> StorageAccess:
        """Return ``access`` with an endpoint that this machine can open."""
        from flashrun.port_forward import forwarded_endpoint

        return await self._exits.enter_async_context(forwarded_endpoint(self.cluster, access))

    async def stored(self, call: Callable[["Store"], Answer]) -> Answer:
        """Run a blocking call on the store in a thread."""
        store = await self.store()
        return await asyncio.to_thread(call, store)

    async def close(self) -> None:
        """End port-forwards."""
        await self._exits.aclose()


@contextlib.asynccontextmanager
async def connect(context: str | None, namespace: str | None) -> AsyncIterator[Session]:
    """Log in as ``kubectl`` would; errors of cluster and storage become failures."""
    with _explained():
        from flashrun.cluster import Cluster

        async with await Cluster.login(context=context) as cluster:
            session = Session(cluster, namespace or cluster.namespace)
            try:
                yield session
            finally:
                await session.close()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (cluster_errors.NotFound, store_errors.KeyNotFound) as error:
        raise NotFoundFailure(str(error)) from None
    except (cluster_errors.Invalid, cluster_errors.NoCluster) as error:
        raise UsageFailure(str(error)) from None
    except (cluster_errors.ClusterError, store_errors.StoreError) as error:
        raise Failure(str(error)) from None


def _for_people(manifest: dict[str, Any]) -> dict[str, Any]:
    """Leave out who set which field, as ``kubectl`` does."""
    manifest["metadata"].pop("managedFields", None)
    return manifest


def parsed(manifest: dict[str, Any]) -> FlashRun:
    """Read a run; one that another version wrote may be beyond us."""
    try:
        return FlashRun.from_manifest(manifest)
    except ValidationError:
        name = manifest["metadata"]["name"]
        raise Failure(
            f"run {name} was written by another version of this program and cannot be read",
            f"update this program, or see kubectl get flashrun {name} -o yaml",
        ) from None


def run_name(text: str) -> str:
    """Return ``text`` if it can name a run; a checkpoint's reference gets its own sentence."""
    try:
        ref = names.parse_ref(text)
    except ValueError:
        raise NotFoundFailure(
            f"{text!r} is not the name of a run", "flash runs lists them"
        ) from None
    if ref.step is not None:
        raise UsageFailure(f"{text} is a checkpoint; name the run: {ref.run}")
    return ref.run
