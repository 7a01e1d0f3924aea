"""The Python client for programs with an event loop; ``sync_client`` wraps it for all others."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from flashrun.api import names
from flashrun.cli.cluster import (
    adapter_download,
    best_checkpoint,
    deleted_runs,
    metrics_history,
    run_checkpoints,
    run_creation,
)
from flashrun.cli.cluster.connection import ClusterSession, check_run_name, connect, listed_run
from flashrun.cli.cluster.run_polling import poll_run
from flashrun.cli.output import formatting
from flashrun.cli.output.failure import UsageFailure
from flashrun.client.client_errors import RunFailed, public_errors
from flashrun.client.given_config import (
    GivenConfig,
    compose_given,
    folders_of,
    given_namespace,
    given_path,
    given_text,
)
from flashrun.client.metrics_frame import import_pandas, metrics_frame
from flashrun.client.run_state import Checkpoint, RunState

if TYPE_CHECKING:
    import pandas


class AsyncClient:
    """A connection to the platform in one namespace, with the rights of the kubeconfig.

    It connects at the first call. Use it in one event loop, and as an asynchronous context manager
    or with ``close`` at the end.
    """

    def __init__(
        self,
        namespace: str | None = None,
        *,
        context: str | None = None,
        kubeconfig: str | os.PathLike[str] | None = None,
    ) -> None:
        """Choose namespace and cluster; the defaults are those of ``kubectl``.

        Raises:
            InvalidRequest: an argument is not text, or not a path.
        """
        with public_errors():
            self._namespace = given_namespace(namespace) if namespace is not None else None
            self._context = given_text("context", context) if context is not None else None
            self._kubeconfig = (
                given_path("kubeconfig", kubeconfig) if kubeconfig is not None else None
            )
        self._opening = asyncio.Lock()
        self._session: ClusterSession | None = None
        self._exits = contextlib.AsyncExitStack()

    async def submit(
        self,
        config: GivenConfig,
        *,
        overlays: Iterable[GivenConfig] = (),
        overrides: Mapping[str, Any] | None = None,
    ) -> "AsyncRun":
        """Check a config and submit its run.

        ``config`` is the path of a TOML file or a dict of its tables. Each of ``overlays`` is
        merged over it, then each value of ``overrides`` by its dotted key, such as
        ``{"train.steps": 300}``. Values of ``environment.secrets`` come from the variables of this
        process, then from ``.env`` files here and beside the config.

        Raises:
            InvalidConfig: with every problem of the config.
            InvalidRequest: a file cannot be read, a secret has no value, the environment was not
                pushed, or the cluster refuses the run.
            DoesNotExist: the operator does not serve the namespace.
            FlashRunError: the cluster could not do it.
        """
        with public_errors():
            composed = compose_given(config, overlays, overrides)
            values = run_creation.find_secret_values(composed.config, folders_of(config))
            session = await self._connected()
            notes: list[str] = []
            await run_creation.check_with_cluster(session, composed, notes.append)
            name = run_creation.new_run_name()
            await run_creation.create_run(session, name, run_creation.NewRun(composed, values))
        return AsyncRun(self, name, tuple(notes))

    def run(self, name: str) -> "AsyncRun":
        """Return a handle of a run, which is not looked up yet.

        Raises:
            DoesNotExist: no run can have this name.
            InvalidRequest: it is the reference of a checkpoint.
        """
        with public_errors():
            return AsyncRun(self, check_run_name(given_text("the name of a run", name)))

    async def runs(self) -> list[RunState]:
        """Return the runs of the namespace, newest first.

        Raises:
            DoesNotExist: the namespace does not exist.
            FlashRunError: they cannot be listed.
        """
        with public_errors():
            session = await self._connected()
            manifests = await session.list_manifests()
            if not manifests:
                await session.refuse_absent_namespace()
            return [RunState(run) for run in formatting.newest_first(map(listed_run, manifests))]

    async def pull(
        self, ref: str, folder: str | os.PathLike[str] | None = None, *, best: bool = False
    ) -> Path:
        """Download an adapter, check every file of it, and return its folder.

        ``ref`` is a run, for its final adapter, or a checkpoint as ``RUN/step-50``; with ``best``
        it is a run, and its checkpoint with the best score is taken. The folder has to be new; by
        default it is named after the reference. It appears whole or not at all.

        Raises:
            InvalidRequest: this is not a reference, or the folder has something in it.
            DoesNotExist: nothing is saved under this reference.
            FlashRunError: storage cannot be read, or a file is not what was saved.
        """
        with public_errors():
            parsed = _parse_ref(given_text("ref", ref))
            if best and parsed.step is not None:
                raise UsageFailure(
                    f"best=True chooses the checkpoint, and {parsed} names one",
                    f"give the run's name, {parsed.run}, or leave out best",
                )
            given = given_path("folder", folder) if folder is not None else None
            if not best:
                adapter_download.new_folder(parsed, given)
            session = await self._connected()
            if best:
                parsed = (await best_checkpoint.find_best(session, parsed.run)).ref
            chosen = adapter_download.new_folder(parsed, given)
            await adapter_download.download_adapter(session, parsed, chosen)
            return chosen

    async def _connected(self) -> ClusterSession:
        """Return the session, which is opened at the first call."""
        async with self._opening:
            if self._session is None:
                _refuse_absent(self._kubeconfig)
                connection = connect(self._context, self._namespace, self._kubeconfig)
                self._session = await self._exits.enter_async_context(connection)
            return self._session

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._session = None
        with public_errors():
            await self._exits.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncRun:
    """A run of the platform, by its name."""

    def __init__(self, client: AsyncClient, name: str, notes: tuple[str, ...] = ()) -> None:
        self._client = client
        self.name = name
        self.notes = notes
        """What the check of its config has noticed, if this client has submitted it."""

    def __repr__(self) -> str:
        """Return the name, as in ``<AsyncRun flash-1795370000-3fa9c1d2>``."""
        return f"<{type(self).__name__} {self.name}>"

    async def status(self) -> RunState:
        """Return the run as it is now; one whose FlashRun was deleted is read from storage.

        Raises:
            DoesNotExist: no run has this name.
            FlashRunError: it cannot be read.
        """
        with public_errors():
            session = await self._client._connected()
            return RunState(await deleted_runs.find_run(session, self.name))

    async def follow(self) -> AsyncGenerator[RunState, None]:
        """Yield the run now and after each change, the last time when it has ended.

        A run that is paused because its budget is used up counts as ended. While the API server
        does not answer, nothing is yielded.

        Raises:
            DoesNotExist: no run has this name, or it was deleted meanwhile.
            FlashRunError: it cannot be read any more.
        """
        with public_errors():
            session = await self._client._connected()
            first = await deleted_runs.find_run(session, self.name)
            if deleted_runs.is_deleted(first):
                yield RunState(first)
                return
            last = None
            async for run in poll_run(session, first, lambda _: None):
                if run != last:
                    last = run
                    yield RunState(run)

    async def wait(self) -> RunState:
        """Wait until the run has ended, and return it.

        Raises:
            RunFailed: it did not succeed; the sentence says why.
            DoesNotExist: no run has this name, or it was deleted meanwhile.
            FlashRunError: it cannot be read any more.
        """
        state = await self._last_state()
        if not state.succeeded:
            raise RunFailed(state)
        return state

    async def history(self, *keys: str) -> dict[int, dict[str, float]]:
        """Return the metrics of each step.

        ``keys`` are names or patterns such as ``eval/*``; all metrics without any.

        Raises:
            DoesNotExist: the run does not exist, has no metrics yet, or lacks one of these.
            FlashRunError: storage cannot be read.
        """
        with public_errors():
            table = await self._metrics(keys)
        chosen = set(table.keys)
        rows = {
            step: {key: value for key, value in row.items() if key in chosen}
            for step, row in table.steps.items()
        }
        return {step: row for step, row in rows.items() if row}

    async def metrics(self, *keys: str) -> "pandas.DataFrame":
        """Return the metrics as a DataFrame: one row per step, one column per metric.

        ``keys`` are names or patterns such as ``eval/*``; all metrics without any.

        Raises:
            MissingPackage: pandas is not installed.
            DoesNotExist: the run does not exist, has no metrics yet, or lacks one of these.
            FlashRunError: storage cannot be read.
        """
        import_pandas()
        with public_errors():
            table = await self._metrics(keys)
        return metrics_frame(table.steps, table.keys)

    async def checkpoints(self) -> list[Checkpoint]:
        """Return the committed checkpoints in the order of their steps.

        Raises:
            DoesNotExist: no run has this name.
            FlashRunError: storage cannot be read.
        """
        with public_errors():
            session = await self._client._connected()
            _, listed = await run_checkpoints.list_checkpoints(session, self.name)
            return [Checkpoint.of(item) for item in listed]

    async def pull(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        step: int | None = None,
        best: bool = False,
    ) -> Path:
        """Download the final adapter, that of a ``step``, or the ``best``; return its folder.

        The folder has to be new; by default it is named after what is downloaded.

        Raises:
            InvalidRequest: the folder has something in it, or ``step`` and ``best`` are both given.
            DoesNotExist: this was not saved.
            FlashRunError: storage cannot be read, or a file is not what was saved.
        """
        ref = self.name if step is None else names.checkpoint_ref(self.name, step)
        return await self._client.pull(ref, folder, best=best)

    async def cancel(self, *, wait: bool = True) -> RunState:
        """End the run for good and keep what it saved; return it as it is then.

        A run that has ended is not changed. Without ``wait`` it may still be saving.

        Raises:
            DoesNotExist: no run has this name.
            FlashRunError: you may not change it, or the cluster could not do it.
        """
        with public_errors():
            session = await self._client._connected()
            state = RunState(await session.get_run(self.name))
            if state.ended:
                return state
            await session.patch_control(self.name, {"cancel": True})
        return await (self._last_state() if wait else self.status())

    async def _last_state(self) -> RunState:
        """Return the last state that ``follow`` yields."""
        async for state in self.follow():
            last = state
        return last

    async def _metrics(self, keys: tuple[str, ...]) -> metrics_history.MetricsTable:
        for key in keys:
            given_text("each metric", key)
        session = await self._client._connected()
        return await metrics_history.read_metrics(session, self.name, keys)


def _refuse_absent(kubeconfig: Path | None) -> None:
    """Raise ``UsageFailure`` if the file that was named does not exist: it would count as empty."""
    if kubeconfig is not None and not kubeconfig.is_file():
        raise UsageFailure(
            f"the kubeconfig {kubeconfig} does not exist", "leave it out to use the one of kubectl"
        )


def _parse_ref(text: str) -> names.Ref:
    try:
        return names.parse_ref(text)
    except ValueError as error:
        raise UsageFailure(str(error)) from None
