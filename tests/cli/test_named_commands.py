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
_NEXT = re.compile(r" (?:flash|git|helm|kubectl) ")
"""Begins the next command of a block."""
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
        yield Named(place, _NEXT.split(found["words"])[0])


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


# --- helm and kubectl ---------------------------------------------------------------------------

_TYPED = re.compile(r"(?:`|^|\$ )(helm|kubectl) ([a-z][^`\n]*)", re.MULTILINE)
VERBS = {
    "helm": {"install", "upgrade", "rollback", "test", "uninstall"},
    "kubectl": {
        "apply", "config", "cordon", "create", "delete", "drain", "flash", "get", "label", "logs",
        "patch", "rollout",
    },
}  # fmt: skip
"""What a page may type; each is a command of the program."""
KINDS = {
    "clusterqueue", "configmap", "configmaps", "crd", "deploy", "deployment", "deployments",
    "events", "flashrun", "flashruns", "jobs", "namespace", "namespaces", "networkpolicies",
    "nodes", "pods", "rolebindings", "secret", "workload",
}  # fmt: skip
_VALUES = (ROOT / "docs" / "values.md").read_text()
VALUES = set(re.findall(r"^\| `([\w.]+)`", _VALUES, re.MULTILINE))


def typed(text: str) -> list[tuple[str, str]]:
    """Return the commands of helm and kubectl that a page types, each on one line."""
    return _TYPED.findall(re.sub(r" *\\\n *", " ", text))


def strange(program: str, words: str) -> str:
    """Return what does not exist of a command of helm or kubectl; empty when all of it does."""
    verb, *rest = words.split()
    if verb not in VERBS[program]:
        return f"there is no {program} {verb}"
    if program == "kubectl" and verb in {"get", "delete", "patch"} and rest[:1] != ["-f"]:
        kinds = rest[0].replace("deployment/", "deployment,").split(",") if rest else []
        return next((f"there is no kind {kind}" for kind in kinds if kind not in KINDS), "")
    keys = re.findall(r"--set '?([\w.]+)", words) if program == "helm" else []
    return next((f"there is no value {key}" for key in keys if key not in VALUES), "")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_of_helm_and_kubectl_that_a_page_types_exists(path: Path) -> None:
    commands = typed(path.read_text())

    assert not [
        f"{program} {words}: {what}"
        for program, words in commands
        if (what := strange(program, words))
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`helm upgrade flashrun charts/flashrun --set operator.replicas=2`", ""),
        ("helm upgrade x charts/flashrun \\\n  --set operator.replica=2", "no value"),
        ("`helm updgrade`", "no helm updgrade"),
        ("kubectl get flashrun,pods -A", ""),
        ("`kubectl get flashrunz`", "no kind flashrunz"),
        ("$ kubectl obtain pods", "no kubectl obtain"),
    ],
)
def test_a_command_of_another_program_is_checked(text: str, found: str) -> None:
    [(program, words)] = typed(text)
    what = strange(program, words)

    assert bool(what) == bool(found)
    assert found in what
