"""Every command that a message, a page or a help text names exists, with these options."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cli.app import APP
from tests.cli.shell import ROOT

SOURCES = [
    path
    for folder in ("operator/src", "trainer-image/src", "localcluster", "examples", "bench")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
PAGES = [
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "bench/*.md", "charts/**/*.md",
                    "charts/**/*.yaml", "charts/**/*.txt", "examples/**/*.toml", "crds/*.yaml")
    for path in sorted(ROOT.glob(pattern))
]  # fmt: skip
GAP = "…"
"""Stands for what a message fills in."""
_NAMED = re.compile(
    r"""(?<![\w./:=-])flash\ (?=(?P<words>[a-z](?:[^`"'|;:,.()<>#{}]|[.:,](?=\S))*))""", re.VERBOSE
)
"""Ends where a sentence, a code span or a shell's redirection ends what is typed."""
_OPTION = re.compile(r"--?[A-Za-z][\w-]*")
_EVERYWHERE = frozenset({"--help", "-h"})
NOT_COMMANDS = frozenset({"creates", "is", "versions", "when"})
"""Words of sentences in which the program itself is the subject or the object."""


class Named(NamedTuple):
    """One place that names a command."""

    place: str
    words: str


def texts_of_code(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each literal, with a gap for what is filled in."""

    def visit(node: ast.AST) -> Iterator[tuple[int, str]]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        else:
            for child in ast.iter_child_nodes(node):
                yield from visit(child)

    yield from visit(ast.parse(path.read_text()))


def named_commands() -> Iterator[Named]:
    """Yield everything that looks like a command of ours."""
    for path in SOURCES:
        for line, text in texts_of_code(path):
            yield from _named(f"{path.relative_to(ROOT)}:{line}", text)
    for path in PAGES:
        yield from _named(str(path.relative_to(ROOT)), path.read_text())


def _named(place: str, text: str) -> Iterator[Named]:
    for found in _NAMED.finditer(" ".join(text.split())):
        yield Named(place, found["words"].partition(" flash ")[0])


def fault(words: str) -> str:
    """Return what does not exist of a command and its options; empty when all of it does."""
    command: Any = APP
    rest = words.replace("[", " ").replace("]", " ").split()
    while rest and hasattr(command, "commands"):
        name = rest.pop(0)
        if name not in command.commands:
            if command is not APP and not re.fullmatch("[a-z]+", name):
                return ""  # a group and prose about it
            return "" if name in NOT_COMMANDS else f"there is no command {name}"
        command = command.commands[name]
    if hasattr(command, "import_command"):
        command = command.import_command()
    options = ((*item.opts, *item.secondary_opts) for item in command.params)
    known = {option for group in options for option in group} | _EVERYWHERE
    typed = (word.partition("=")[0] for word in rest)
    unknown = [word for word in typed if _OPTION.fullmatch(word) and word not in known]
    return f"there is no option {', '.join(unknown)}" if unknown else ""


def test_every_command_that_is_named_exists_with_its_options() -> None:
    named = list(named_commands())
    faults = [f"{place}: flash {words}: {what}" for place, words in named if (what := fault(words))]

    assert len(named) > 300
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("train config.toml --dry-run --server", ""),
        ("pull … --best", ""),
        ("env push FOLDER --name ORG/NAME", ""),
        ("status RUN [-f]", ""),
        ("trian config.toml", "there is no command trian"),
        ("env publish", "there is no command publish"),
        ("suspend RUN", "there is no command suspend"),
        ("pull … --newest", "there is no option --newest"),
        ("train config.toml -x", "there is no option -x"),
    ],
)
def test_the_check_finds_what_does_not_exist(words: str, found: str) -> None:
    assert fault(words) == found


def test_a_command_is_read_out_of_a_message_and_a_page() -> None:
    message = "publish it:\n flash env\npush FOLDER --name X; or flash runs. See `flash log X -f`"

    assert [named.words for named in _named("", message)] == [
        "env push FOLDER --name X", "runs", "log X -f",
    ]  # fmt: skip


_TARGETS = frozenset(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_target_of_make_that_a_page_names_exists(path: Path) -> None:
    named = re.findall(r"(?:`|^|\$ )make ([a-z][a-z0-9-]*)", path.read_text(), re.MULTILINE)

    assert set(named) <= _TARGETS
