"""The Python client for notebooks and scripts: ``async_client`` with calls that wait."""

import os
import weakref
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from flashrun.client.async_client import AsyncClient, AsyncRun
from flashrun.client.client_errors import InvalidRequest
from flashrun.client.given_config import GivenConfig
from flashrun.client.loop_thread import LoopStopped, LoopThread
from flashrun.client.run_state import Checkpoint, RunState

if TYPE_CHECKING:
    import pandas

Answer = TypeVar("Answer")


class Client:
    """A connection to the platform in one namespace, with the rights of the kubeconfig.

    It connects at the first call. Closing it is optional: it ends with the program. Threads may
    share it.
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
        self._client = AsyncClient(namespace, context=context, kubeconfig=kubeconfig)
        self._loop = LoopThread()
        self._finalizer = weakref.finalize(self, _close, self._loop, self._client)

    def submit(
        self,
        config: GivenConfig,
        *,
        overlays: Iterable[GivenConfig] = (),
        overrides: Mapping[str, Any] | None = None,
    ) -> "Run":
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
        submitted = self._client.submit(config, overlays=overlays, overrides=overrides)
        return Run(self, self._call(submitted))

    def run(self, name: str) -> "Run":
        """Return a handle of a run, which is not looked up yet.

        Raises:
            DoesNotExist: no run can have this name.
            InvalidRequest: it is the reference of a checkpoint.
        """
        return Run(self, self._client.run(name))

    def runs(self) -> list[RunState]:
        """Return the runs of the namespace, newest first.

        Raises:
            DoesNotExist: the namespace does not exist.
            FlashRunError: they cannot be listed.
        """
        return self._call(self._client.runs())

    def pull(
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
        return self._call(self._client.pull(ref, folder, best=best))

    def _call(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        """Wait for a call of the asynchronous client.

        Raises:
            InvalidRequest: this client was closed.
        """
        try:
            return self._loop.run(coroutine)
        except LoopStopped:
            raise InvalidRequest(
                "this client was closed, or belongs to the process that forked this one",
                "make a new one: Client()",
            ) from None

    def close(self) -> None:
        """Close the connections; the client cannot be used any more."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Run:
    """A run of the platform, by its name."""

    def __init__(self, client: Client, run: AsyncRun) -> None:
        self._client = client
        self._run = run
        self.name = run.name
        self.notes = run.notes
        """What the check of its config has noticed, if this client has submitted it."""

    def __repr__(self) -> str:
        """Return the name, as in ``<Run flash-1795370000-3fa9c1d2>``."""
        return f"<{type(self).__name__} {self.name}>"

    def status(self) -> RunState:
        """Return the run as it is now; one whose FlashRun was deleted is read from storage.

        Raises:
            DoesNotExist: no run has this name.
            FlashRunError: it cannot be read.
        """
        return self._client._call(self._run.status())

    def follow(self) -> Iterator[RunState]:
        """Yield the run now and after each change, the last time when it has ended.

        A run that is paused because its budget is used up counts as ended. While the API server
        does not answer, nothing is yielded. Ending the loop leaves the run running.

        Raises:
            DoesNotExist: no run has this name, or it was deleted meanwhile.
            FlashRunError: it cannot be read any more.
        """
        states = self._run.follow()

        async def following() -> RunState | None:
            return await anext(states, None)

        while (state := self._client._call(following())) is not None:
            yield state

    def wait(self) -> RunState:
        """Wait until the run has ended, and return it.

        Interrupting leaves the run running.

        Raises:
            RunFailed: it did not succeed; the sentence says why.
            DoesNotExist: no run has this name, or it was deleted meanwhile.
            FlashRunError: it cannot be read any more.
        """
        return self._client._call(self._run.wait())

    def history(self, *keys: str) -> dict[int, dict[str, float]]:
        """Return the metrics of each step.

        ``keys`` are names or patterns such as ``eval/*``; all metrics without any.

        Raises:
            DoesNotExist: the run does not exist, has no metrics yet, or lacks one of these.
            FlashRunError: storage cannot be read.
        """
        return self._client._call(self._run.history(*keys))

    def metrics(self, *keys: str) -> "pandas.DataFrame":
        """Return the metrics as a DataFrame: one row per step, one column per metric.

        ``keys`` are names or patterns such as ``eval/*``; all metrics without any.

        Raises:
            MissingPackage: pandas is not installed.
            DoesNotExist: the run does not exist, has no metrics yet, or lacks one of these.
            FlashRunError: storage cannot be read.
        """
        return self._client._call(self._run.metrics(*keys))

    def checkpoints(self) -> list[Checkpoint]:
        """Return the committed checkpoints in the order of their steps.

        Raises:
            DoesNotExist: no run has this name.
            FlashRunError: storage cannot be read.
        """
        return self._client._call(self._run.checkpoints())

    def pull(
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
        return self._client._call(self._run.pull(folder, step=step, best=best))

    def cancel(self, *, wait: bool = True) -> RunState:
        """End the run for good and keep what it saved; return it as it is then.

        A run that has ended is not changed. Without ``wait`` it may still be saving.

        Raises:
            DoesNotExist: no run has this name.
            FlashRunError: you may not change it, or the cluster could not do it.
        """
        return self._client._call(self._run.cancel(wait=wait))


def _close(loop: LoopThread, client: AsyncClient) -> None:
    loop.stop(client.close())
