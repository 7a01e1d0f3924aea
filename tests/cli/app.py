"""The commands of ``flash``, and the modules that calling one loads."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from flashrun.cli import main
from tests.cli.shell import Shell


def leaves(command: Any, *words: str) -> Iterator[tuple[str, Any]]:
    """Yield every command of a group with the words that call it."""
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):
            yield from leaves(inner, *words, name)
        else:
            yield " ".join((*words, name)), inner


APP: Any = main.typer.main.get_command(main.app)
COMMANDS = dict(leaves(APP))
"""Every command by the words that call it."""
CLIENTS = frozenset({"kubernetes", "kopf", "minio", "torch", "transformers", "aiohttp"})
SLOW = frozenset({"rich", "yaml", "packaging", "asyncio"})
"""What takes longer to load than a quick command may take."""
COMMAND_MODULES = frozenset(command.module for command in COMMANDS.values())
"""The modules of the commands."""


def loaded_modules(shell: Shell, words: list[str], **variables: str) -> set[str]:
    """Return the modules that are loaded when a command has ended."""
    script = (
        "import atexit, sys\n"
        "write = lambda: print(*sys.modules, file=sys.stderr)\n"
        "atexit.register(write)\n"
        f"sys.argv = ['flash', *{words!r}]\n"
        "from flashrun.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**shell.environment, **variables},
        cwd=shell.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split())
