"""The pictures of the documentation, made from sources that lie beside them.

``make pictures`` renders both. Each SVG names the SHA-256 of its source, and a test compares it.

==================  ==============================================================================
architecture.svg    rendered by graphviz (``dot``) from ``architecture.dot``
session.svg         rendered by rich from ``session.txt``, the recording of a real terminal session
==================  ==============================================================================

To record the session, start the cluster with ``make demo``, set ``KUBECONFIG`` as it prints, and
run ``python docs/images/pictures.py record``. It runs the commands of ``SESSION`` in a terminal
and keeps what the terminal shows after each command: every line with its colours. The live view is
on a screen of its own, of which the command prints the last state. Nothing is edited.
"""

import fcntl
import hashlib
import io
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COLUMNS = 116
SESSION = (
    "flash train examples/sums/configs/rl.toml --set train.steps=12",
    "flash pull {run} adapters/{run}",
)
"""What is recorded; ``{run}`` is the run that the first command started."""
PROMPT = "\x1b[1;32m$ \x1b[0m"
_RUN = re.compile(r"\bflash-\d+-[0-9a-f]{8}\b")
_TOKEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r|\n|[^\x1b\r\n]+")
_OTHER_SCREEN = re.compile(r"\x1b\[\?1049h.*?\x1b\[\?1049l", re.DOTALL)
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Web fonts that rich names: a page that shows an SVG as an image does not load them."""


def main() -> int:
    """Render both pictures; with ``record``, record the session before."""
    if sys.argv[1:] == ["record"]:
        (HERE / "session.txt").write_text(record())
    elif sys.argv[1:]:
        print(f"unknown argument {sys.argv[1]}: leave it out, or use record", file=sys.stderr)
        return 2
    if shutil.which("dot") is None:
        print("dot is missing: install graphviz (apt-get install graphviz)", file=sys.stderr)
        return 1
    write("architecture.dot", "architecture.svg", architecture())
    write("session.txt", "session.svg", session((HERE / "session.txt").read_text()))
    return 0


def write(source: str, picture: str, svg: str) -> None:
    """Write an SVG that ends with the digest of its source."""
    digest = hashlib.sha256((HERE / source).read_bytes()).hexdigest()
    lines = [line.rstrip() for line in svg.rstrip().splitlines()]
    text = "\n".join([*lines, f"<!-- {source} sha256:{digest} -->"])
    (HERE / picture).write_text(f"{text}\n")


def architecture() -> str:
    """Return the picture of the data flow as SVG."""
    command = ["dot", "-Tsvg", str(HERE / "architecture.dot")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def session(recording: str) -> str:
    """Return a recorded terminal session as SVG."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), color_system="truecolor")
    for line in map(Text.from_ansi, recording.splitlines()):
        for part in line.divide(range(COLUMNS, len(line), COLUMNS)) if line else [line]:
            console.print(part)
    svg = console.export_svg(title="FlashRun", theme=SVG_EXPORT_THEME, unique_id="session")
    return _FONTS.sub("", svg)


def record() -> str:
    """Run the commands of the session and return what the terminal showed."""
    shown, run = [], ""
    for command in SESSION:
        typed = command.format(run=run)
        output = screen(in_terminal(shlex.split(typed)))
        run = run or _RUN.findall(output)[0]
        shown.append(f"{PROMPT}{typed}\n{output}")
    return "\n\n".join(shown) + "\n"


def in_terminal(command: list[str]) -> str:
    """Run a command in a pseudo-terminal at the root of the repository; return all it wrote."""
    pid, terminal = pty.fork()
    if pid == 0:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        settings = {"PATH": path, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
        os.chdir(ROOT)
        os.execvpe(command[0], command, {**os.environ, **settings})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    written = bytearray()
    while True:
        try:
            block = os.read(terminal, 65536)
        except OSError:  # Linux ends the output of a pseudo-terminal with an error
            break
        if not block:
            break
        written += block
    _, status = os.waitpid(pid, 0)
    text = written.decode()
    if status:
        raise SystemExit(f"{shlex.join(command)} failed:\n{text}")
    return text


def screen(output: str) -> str:
    """Return the lines that a terminal shows at the end, with their colours.

    Understands what ``flash`` and rich write: line feeds, returns to the start of a line that is
    then erased, steps up, and a screen of its own that is left again.
    """
    lines, row = [""], 0
    for token in _TOKEN.findall(_OTHER_SCREEN.sub("", output)):
        if token == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif token.startswith("\x1b[") and token[-1] == "K":
            lines[row] = ""
        elif token.startswith("\x1b[") and token[-1] == "A":
            row = max(0, row - int(token[2:-1] or 1))
        elif token[0] not in "\r\x1b" or token[-1] == "m":
            lines[row] += token
    return "\n".join(line.rstrip() for line in lines).strip("\n")


if __name__ == "__main__":
    sys.exit(main())
