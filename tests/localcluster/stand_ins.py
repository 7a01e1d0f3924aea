"""Recording stand-ins for programs that a test does not have, such as docker, kind and k3d."""

import json
import sys
from pathlib import Path

STAND_IN = """\
#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
name = pathlib.Path(sys.argv[0]).name
words = [name, *sys.argv[1:]]
stdin = "" if sys.stdin.isatty() else sys.stdin.read()
files = {{w: pathlib.Path(w).read_text() for w in words if pathlib.Path(w).is_file()}}
with (folder / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps({{"words": words, "files": files, "stdin": stdin}}) + "\\n")
line = " ".join(words)
for beginning, status, output in json.loads((folder / "answers.json").read_text()):
    if line.startswith(beginning):
        print(output, end="")
        sys.exit(status)
"""


class StandIns:
    """Recording stand-ins for programs: they write down how they are called, and print answers.

    They are not the real programs. Their answers are written in the formats of the real ones.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: list[tuple[str, int, str]] = []
        (folder / "bin").mkdir(parents=True)
        self._save()

    def add(self, *programs: str) -> None:
        """Put stand-ins with these names on PATH."""
        for program in programs:
            file = self.folder / "bin" / program
            file.write_text(STAND_IN.format(python=sys.executable, folder=str(self.folder)))
            file.chmod(0o755)

    def answer(self, beginning: str, output: str = "", status: int = 0) -> None:
        """Answer command lines that begin so; the newest answer that fits counts."""
        self.answers.insert(0, (beginning, status, output))
        self._save()

    def calls(self) -> list[dict]:
        """Return the recorded calls: words, the content of files among the words, stdin."""
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def lines(self) -> list[str]:
        """Return the recorded command lines."""
        return [" ".join(call["words"]) for call in self.calls()]

    def _save(self) -> None:
        (self.folder / "answers.json").write_text(json.dumps(self.answers))
