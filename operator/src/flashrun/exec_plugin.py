"""Exec plugins: programs that a kubeconfig names, and that answer credentials.

The protocol is described in
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
The kubernetes package has it too, but takes longer to load than a short command takes in all.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

DRAWINGS: Final[list[Callable[[], AbstractContextManager[None]]]] = []
"""What draws on the terminal now. Each pauses it, so that it hides nothing that a plugin asks."""

_QUIET_SECONDS: Final = 1.0
"""A plugin that takes longer may wait for a person: what it prints is shown from then on."""
_LEFT_OPEN_SECONDS: Final = 0.5
"""How long more is read of what a plugin has printed, when it leaves a program that may print."""
_REPEATED_BYTES: Final = 2000
"""How much an error repeats of what a plugin has printed: programs say last why they fail."""


async def run_exec_plugin(
    plugin: Mapping[str, Any], folder: Path, cluster: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Run the plugin in ``folder``'s kubeconfig, and return the status that it answers.

    ``cluster`` is for a plugin that asks for it. A plugin that waits for a person, such as one that
    prints a code to type into a browser, is seen and heard.

    Raises:
        ValueError: the plugin cannot be started or fails, or its answer is not a status, or it
            needs a terminal.
        KeyError: the kubeconfig names no command or no version.
    """
    version, command = str(plugin["apiVersion"]), str(plugin["command"])
    if os.sep in command:  # beside the kubeconfig, when it is not absolute
        command = str(folder / command)
    spec: dict[str, Any] = {"interactive": _is_interactive(plugin)}
    if cluster is not None:
        spec["cluster"] = cluster
    information = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    variables = {str(item["name"]): str(item["value"]) for item in plugin.get("env") or ()}
    with contextlib.ExitStack() as pauses:
        if spec["interactive"]:
            _pause_drawings(pauses)
        async with _heard(pauses) as (stderr, complaint):
            try:
                process = await asyncio.create_subprocess_exec(
                    command,
                    *map(str, plugin.get("args") or ()),
                    env={
                        **os.environ,
                        **variables,
                        "KUBERNETES_EXEC_INFO": json.dumps(information),
                    },
                    stdin=None if spec["interactive"] else asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=stderr,
                )
            except OSError as error:
                raise ValueError(_not_started(plugin, command, error)) from None
            answer, _ = await process.communicate()
    if process.returncode:
        sentence = complaint[-_REPEATED_BYTES:].decode(errors="replace").strip()
        raise ValueError(
            f"exec: {_end(process.returncode)}" + (f": {sentence}" if sentence else "")
        )
    return _status(answer, version)


def _is_interactive(plugin: Mapping[str, Any]) -> bool:
    """Return whether the plugin may ask a person; raises ``ValueError`` if nobody can be asked."""
    mode = plugin.get("interactiveMode") or "IfAvailable"
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if mode == "Always" and not is_terminal:
        raise ValueError(f"exec: {plugin['command']} asks a person, and there is no terminal")
    return is_terminal and mode != "Never"


def _not_started(plugin: Mapping[str, Any], command: str, error: OSError) -> str:
    """Return why a plugin did not start, and what the kubeconfig says about how to get it."""
    sentence = f"exec: the program {command} cannot be started: {error.strerror}"
    hint = str(plugin.get("installHint") or "")[:_REPEATED_BYTES]
    return f"{sentence}. {hint}" if hint else sentence


def _pause_drawings(pauses: contextlib.ExitStack) -> None:
    for pause in tuple(DRAWINGS):
        pauses.enter_context(pause())


@contextlib.asynccontextmanager
async def _heard(pauses: contextlib.ExitStack) -> AsyncIterator[tuple[int, bytearray]]:
    """Yield where a plugin prints beside its answer, and what it has printed by the end.

    A pipe of asyncio's own would have to be closed before the plugin counts as ended. This one may
    stay open in a program that the plugin leaves behind, such as a cache of its tokens.
    """
    reading, writing = os.pipe()
    stream, heard = asyncio.StreamReader(), bytearray()
    with os.fdopen(writing, "wb") as end:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reading, "rb")
        )
        listening = asyncio.create_task(_listen(stream, heard, pauses))
        try:
            yield end.fileno(), heard
            end.close()
            await asyncio.wait({listening}, timeout=_LEFT_OPEN_SECONDS)
        finally:
            transport.close()
            await listening


async def _listen(
    stream: asyncio.StreamReader, heard: bytearray, pauses: contextlib.ExitStack
) -> None:
    """Put what a plugin prints into ``heard``; show it while the plugin goes on for long."""
    shown = 0
    is_quiet_until = time.monotonic() + _QUIET_SECONDS
    while True:
        left = is_quiet_until - time.monotonic()
        reading = asyncio.ensure_future(stream.read(65536))
        done, _ = await asyncio.wait({reading}, timeout=max(left, 0.0))
        if not done:
            shown = _show(heard, shown, pauses)
        piece = await reading
        heard += piece
        if not piece:
            return
        if time.monotonic() > is_quiet_until:
            shown = _show(heard, shown, pauses)


def _show(heard: bytearray, shown: int, pauses: contextlib.ExitStack) -> int:
    """Print what is new on standard error, where nothing is drawn from now on; return its end."""
    if heard and not shown:
        _pause_drawings(pauses)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it may be closed
        sys.stderr.write(heard[shown:].decode(errors="replace"))
        sys.stderr.flush()
    return len(heard)


def _end(code: int) -> str:
    """Return how a plugin ended that failed."""
    if code > 0:
        return f"process returned {code}"
    return f"signal {-code} ended the process ({signal.strsignal(-code)})"


def _status(answer: bytes, version: str) -> dict[str, Any]:
    try:
        credential = json.loads(answer)
        answered, status = credential["apiVersion"], credential["status"]
    except (ValueError, LookupError, TypeError):
        raise ValueError("exec: the plugin does not answer an ExecCredential") from None
    if answered != version:
        raise ValueError(f"exec: the plugin answers version {answered}, not {version}")
    if not isinstance(status, dict):
        raise ValueError("exec: the plugin answers no status")
    return status
