"""A process that has imported what the commands of ``flash`` import, and forks for each command.

``tests.cli.forked_commands`` starts it with one end of a socket as standard input. Each message on
it is a command, with the streams of that command and a pipe for how it ended. The server ends when
the other end is closed.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

del sys.path[0]  # the folder of this file: its modules have the names of others

ELSEWHERE = ("flashrun.controller", "flashrun.client", "flashrun.api.generate")
"""What no command imports."""
LIBRARIES = (
    *("aiohttp", "asyncio", "kubernetes.aio.client", "minio", "packaging.requirements", "yaml"),
    *("rich.console", "rich.live", "rich.markup", "rich.progress", "rich.table", "rich.text"),
)
"""What commands import when they need it; it starts nothing when it is imported."""


def import_all() -> None:
    """Import what commands need, as a command would."""
    import flashrun

    importlib.import_module("flashrun.cli.main")
    for module in pkgutil.walk_packages(flashrun.__path__, "flashrun."):
        if not module.name.startswith(ELSEWHERE) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for library in LIBRARIES:
        importlib.import_module(library)


def serve(commands: socket.socket, implied: dict[str, str]) -> dict[str, Any] | None:
    """Fork for each command; return the command in its process, and None at the end in the server.

    Args:
        implied: Variables that Python and what was imported have set for themselves.
    """
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for commands
    while True:
        message, descriptors, _, _ = socket.recv_fds(commands, 1 << 20, 4)
        if not message:
            return None
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, interrupt)
        commands.close()
        *streams, ending = descriptors
        if not (process := os.fork()):
            command: dict[str, Any] = json.loads(message)
            become(command, streams, implied)
            os.close(ending)
            return command
        for descriptor in (0, 1, 2, *streams):
            os.close(descriptor)  # else a reader would wait for this process, too
        os.write(ending, struct.pack("i", process))
        status = os.waitpid(process, 0)[1]
        os.write(ending, struct.pack("i", os.waitstatus_to_exitcode(status)))
        os._exit(0)


def become(command: dict[str, Any], streams: list[int], implied: dict[str, str]) -> None:
    """Take the streams, the folder, the variables and the words of a command."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    for number in command["closed"]:
        os.close(number)
    encoding = command["variables"].get("PYTHONIOENCODING")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        new = stream_like(getattr(sys, name), number, encoding)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(implied | command["variables"])
    sys.path.insert(0, command["folder"])
    sys.argv = command["words"]


def stream_like(old: TextIO, number: int, encoding: str | None) -> TextIO | None:
    """Return a stream that knows what it leads to, with the settings of those of a new process."""
    try:
        os.fstat(number)
    except OSError:  # it is closed
        return None
    errors = old.errors if encoding is None or number == 2 else "strict"
    settings = {"encoding": encoding or old.encoding, "errors": errors, "closefd": False}
    new: TextIO = open(number, old.mode, **settings)  # noqa: SIM115
    new.reconfigure(line_buffering=old.line_buffering)  # type: ignore[attr-defined]
    return new


def end(command: Callable[[], None]) -> NoReturn:
    """Run a command, and end the process as Python does, but for taking all modules apart.

    That would copy every page of memory that the server has, which takes longer than most commands.
    """
    try:
        command()
        code: Any = None
    except SystemExit as ending:
        code = ending.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except OSError:
        code = 120  # what Python ends with then
    os._exit(code or 0)


if __name__ == "__main__":
    found = socket.socket(fileno=os.dup(0))
    given = json.loads(sys.argv[1])
    import_all()
    assert threading.active_count() == 1, "a thread does not survive a fork"
    gc.collect()
    gc.freeze()
    if serve(found, {name: os.environ[name] for name in os.environ.keys() - set(given)}):
        from flashrun.cli.main import main

        end(main)
