"""A command's connection to the cluster and to storage, with the rights of the kubeconfig.

The user configures nothing else: the ConfigMap ``flashrun-public`` describes the platform, and the
Secret ``flashrun-storage-user`` holds keys for what people of one namespace may read and write.
Clients and models are imported when a command needs them: importing them takes most of its time.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from flashrun import cluster_errors, store_errors
from flashrun.api import names
from flashrun.api.base import error_sentences
from flashrun.cli.output.failure import Failure, NotFoundFailure, UsageFailure
from flashrun.cluster_errors import Forbidden, NotFound
from flashrun.daemon_thread import in_daemon_thread

if TYPE_CHECKING:
    from flashrun.api import records
    from flashrun.api.public import PublicPlatform
    from flashrun.api.resource import FlashRun
    from flashrun.cli.cluster.renewed_access import RenewedAccess
    from flashrun.cluster import Cluster
    from flashrun.store import Store

Answer = TypeVar("Answer")
_LEFT: Final = timedelta(minutes=5)
"""Credentials that expire so soon are read again; the operator has renewed them by then."""


class ClusterSession:
    """The cluster, one namespace of it and its storage, as one command uses them."""

    def __init__(self, cluster: "Cluster", namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._store: Store | None = None
        self._access: RenewedAccess | None = None
        self._exits = contextlib.AsyncExitStack()

    async def get_run(self, name: str) -> "FlashRun":
        """Return a run; raises ``NotFoundFailure`` when there is none of this name."""
        return parse_run(await self.get_manifest(name))

    async def get_manifest(self, name: str) -> dict[str, Any]:
        """Return a run as the API server has it; raises ``NotFoundFailure``."""
        manifest = await self.cluster.find(names.KIND, self.namespace, name)
        if manifest is None:
            raise NotFoundFailure(
                f"there is no run {name} in namespace {self.namespace}", "flash runs lists them"
            )
        return _without_managed_fields(manifest)

    async def list_manifests(self) -> list[dict[str, Any]]:
        """Return every run of the namespace as the API server has it."""
        return list(
            map(_without_managed_fields, await self.cluster.list(names.KIND, self.namespace))
        )

    async def patch_control(self, name: str, control: dict[str, Any]) -> None:
        """Change fields of a run's ``spec.control``."""
        await self._patch_spec(name, {"control": control})

    async def set_budget(self, name: str, gpu_hours: float) -> None:
        """Change how many GPU hours a run may use."""
        await self._patch_spec(name, {"budget": {"gpuHours": gpu_hours}})

    async def _patch_spec(self, name: str, changes: dict[str, Any]) -> None:
        await self.cluster.patch(
            names.KIND,
            self.namespace,
            name,
            {"spec": changes},
            manager=names.CLI_FIELD_MANAGER,
            strict=True,
        )

    async def get_platform(self) -> "PublicPlatform | None":
        """Return the platform's description of itself; None when it cannot be read.

        It is cached on this machine for commands that do not connect.
        """
        from flashrun.api import public
        from flashrun.cli.config import platform_cache

        name = names.PUBLIC_CONFIG_MAP
        with contextlib.suppress(Forbidden, ValidationError, KeyError, ValueError):
            config_map = await self.cluster.find("ConfigMap", self.namespace, name)
            if config_map is not None:
                platform = public.PublicPlatform.read(config_map["data"][public.FILE])
                platform_cache.save_platform(platform)
                return platform
        return None

    async def refuse_unserved_namespace(self) -> None:
        """Raise ``NotFoundFailure`` when it is certain that no operator serves the namespace.

        A run would wait for ever there.
        """
        with contextlib.suppress(Forbidden):
            name = names.PUBLIC_CONFIG_MAP
            if await self.cluster.find("ConfigMap", self.namespace, name) is None:
                raise unserved_namespace(self.namespace)

    async def refuse_absent_namespace(self) -> None:
        """Raise ``NotFoundFailure`` if the namespace does not exist: its list is empty, too."""
        with contextlib.suppress(Forbidden):
            if await self.cluster.find("Namespace", None, self.namespace) is None:
                raise NotFoundFailure(
                    f"the namespace {self.namespace} does not exist",
                    "kubectl get namespaces lists them; choose one with -n",
                )

    async def open_store(self) -> "Store":
        """Return the storage that people of this namespace may use.

        Raises:
            Failure: there is no storage access in this namespace.
        """
        if self._store is None or self._access is None:
            self._access = await self._reach(await self._user_access())
            self._store = _store_of(self._access)
        elif _expires_soon(self._access.now):  # this machine was asleep
            await self._access.read_again()
            self._store = _store_of(self._access)
        return self._store

    async def _user_access(self) -> "RenewedAccess":
        try:
            return await self._renewed_access(self.namespace, names.STORAGE_USER_SECRET)
        except NotFound:
            raise Failure(
                f"namespace {self.namespace} has no storage access for people: "
                f"Secret {names.STORAGE_USER_SECRET} does not exist",
                "the operator creates it in each namespace that it serves: choose one with -n, or "
                "ask the platform's administrator",
            ) from None
        except Forbidden as error:
            raise Failure(f"storage cannot be used: {error}") from None

    async def _renewed_access(self, namespace: str, secret: str) -> "RenewedAccess":
        """Return the access in a Secret, which is read again in time."""
        from flashrun.cli.cluster.renewed_access import RenewedAccess

        access = await RenewedAccess.start(lambda: self._storage_access(namespace, secret))
        self._exits.push_async_callback(access.stop)
        return access

    async def _reach(self, access: "RenewedAccess") -> "RenewedAccess":
        """Return ``access`` with an endpoint that this machine can reach."""
        from flashrun.port_forward import forwarded_endpoint

        forwarded = forwarded_endpoint(self.cluster, access.now)
        access.now = await self._exits.enter_async_context(forwarded)
        return access

    async def with_store(self, call: Callable[["Store"], Answer]) -> Answer:
        """Return what ``call`` returns for the store.

        The blocking call runs in a thread, for which nobody waits when this is cancelled.
        """
        store = await self.open_store()
        return await in_daemon_thread(lambda: call(store))

    async def with_mirror(self, call: Callable[["Store"], Answer]) -> Answer:
        """Return what ``call`` returns for the store of those who manage the model mirror.

        A blocking call runs in a thread; its credentials are renewed however long it takes.

        Raises:
            Failure: the Secret does not exist, or this user may not read it.
        """
        platform = await self.get_platform()
        if platform is None or not platform.models_namespace:
            raise Failure(
                f"the place of the model mirror cannot be read in namespace {self.namespace}",
                "choose a namespace with -n that an operator of this version serves",
            )
        where = platform.models_namespace
        try:
            access = await self._renewed_access(where, names.STORAGE_MODELS_SECRET)
        except (NotFound, Forbidden) as error:
            raise Failure(
                f"the model mirror cannot be used: {error}",
                "the platform's administrator gives this right: kubectl create rolebinding NAME "
                f"--role=flashrun-models --user=YOU -n {where}",
            ) from None
        store = _store_of(await self._reach(access))
        return await in_daemon_thread(lambda: call(store))

    async def _storage_access(self, namespace: str, secret: str) -> "records.StorageAccess":
        """Return the storage access in a Secret; raises ``Failure`` when it is not valid."""
        from flashrun.api.records import StorageAccess

        text = await self.cluster.secret_value(namespace, secret, names.ACCESS_KEY)
        try:
            return StorageAccess.model_validate_json(text)
        except ValidationError:
            raise Failure(
                f"storage cannot be used: Secret {secret} does not hold valid storage access"
            ) from None

    async def close(self) -> None:
        """Close the port-forwards, and renew no credentials any more."""
        await self._exits.aclose()


def _store_of(access: "RenewedAccess") -> "Store":
    from flashrun.store import Store

    return Store.following(lambda: access.now)


def _expires_soon(access: "records.StorageAccess") -> bool:
    """Return whether to read the credentials again at once."""
    return access.expires is not None and access.expires - datetime.now(UTC) < _LEFT


def unserved_namespace(namespace: str) -> NotFoundFailure:
    """Return the failure of a command in a namespace that no operator serves."""
    return NotFoundFailure(
        f"the operator does not serve namespace {namespace}: ConfigMap {names.PUBLIC_CONFIG_MAP} "
        "cannot be read there",
        "choose one with -n that it serves, or ask the administrator of the platform to serve "
        f"{namespace}",
    )


@contextlib.asynccontextmanager
async def connect(
    context: str | None, namespace: str | None, kubeconfig: Path | None = None
) -> AsyncIterator[ClusterSession]:
    """Log in as ``kubectl`` does; errors of cluster and storage become failures.

    ``kubeconfig`` is for a file other than the one that ``kubectl`` reads.
    """
    with errors_as_failures():
        from flashrun.cluster import Cluster

        async with await Cluster.login(kubeconfig, context, quick=True) as cluster:
            session = ClusterSession(cluster, namespace or cluster.namespace)
            try:
                yield session
            finally:
                await session.close()


@contextlib.contextmanager
def errors_as_failures() -> Iterator[None]:
    """Raise errors of cluster and storage as failures with the same sentence."""
    try:
        yield
    except (cluster_errors.NotFound, store_errors.KeyNotFound) as error:
        raise NotFoundFailure(str(error)) from None
    except (cluster_errors.Invalid, cluster_errors.NoCluster) as error:
        raise UsageFailure(str(error)) from None
    except (cluster_errors.ClusterError, store_errors.StoreError) as error:
        raise Failure(str(error)) from None


def _without_managed_fields(manifest: dict[str, Any]) -> dict[str, Any]:
    """Remove the list of who set which field, as ``kubectl get`` does."""
    manifest["metadata"].pop("managedFields", None)
    return manifest


def listed_run(manifest: dict[str, Any]) -> "FlashRun":
    """Return a run for a list; only name, phase, age and model if another version wrote it."""
    from flashrun.api.reasons import Phase
    from flashrun.api.resource import FlashRun, FlashRunSpec, FlashRunStatus

    try:
        return FlashRun.from_manifest(manifest)
    except ValidationError:
        metadata, spec = manifest["metadata"], manifest.get("spec") or {}
        shown: dict[str, Any] = {key: str(spec.get(key, "")) for key in ("model", "algorithm")}
        phase = (manifest.get("status") or {}).get("phase")
        return FlashRun.model_construct(
            name=metadata["name"],
            namespace=metadata["namespace"],
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            spec=FlashRunSpec.model_construct(**shown),
            status=FlashRunStatus(phase=phase if phase in set(Phase) else Phase.PENDING),
        )


def parse_run(manifest: dict[str, Any]) -> "FlashRun":
    """Read a run; raises ``Failure`` when its spec is wrong, or of another version."""
    from flashrun.api.resource import FlashRun

    try:
        return FlashRun.from_manifest(manifest)
    except ValidationError as error:
        name, problem = manifest["metadata"]["name"], next(error_sentences(error, whole="its spec"))
        raise Failure(
            f"run {name} cannot be read: {problem}",
            "correct it, or update this program if a newer version wrote it: kubectl get flashrun "
            f"{name} -o yaml shows it",
        ) from None


def check_run_name(text: str) -> str:
    """Return ``text`` if it can be the name of a run.

    Raises:
        NotFoundFailure: no run can have this name.
        UsageFailure: it is the reference of a checkpoint.
    """
    try:
        ref = names.parse_ref(text)
    except ValueError:
        raise NotFoundFailure(
            f"{text!r} is not the name of a run", "flash runs lists them"
        ) from None
    if ref.step is not None:
        raise UsageFailure(f"{text} is a checkpoint, not a run", f"use the run's name: {ref.run}")
    return ref.run
