"""How large the parts of the code are, read from its syntax trees: ``python -m bench.measures``.

One row per layer. A function's length is that of its body without the docstring. To compare two
commits, run it in both; the numbers are for people and decide nothing.
"""

import ast
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
OPERATOR = "operator/src/flashrun"
TRAINER = "trainer-image/src/flashrun_trainer"
LAYERS = {
    "api": f"{OPERATOR}/api",
    "plan": f"{OPERATOR}/plan",
    "controller": f"{OPERATOR}/controller",
    "cli": f"{OPERATOR}/cli",
    "operator, all": OPERATOR,
    "trainer": TRAINER,
    "localcluster": "localcluster",
    "tests": "tests",
}
SOURCES = (OPERATOR, TRAINER, "localcluster")
VAGUE = re.compile(r"_*(said|told|tell|shown|show|checked|kept|keep|look|of|made|found|named)")
AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef
NESTING = (
    ast.If | ast.For | ast.AsyncFor | ast.While | ast.With | ast.AsyncWith | ast.Try | ast.Match
)


class Module(NamedTuple):
    """A file with its syntax tree."""

    path: Path
    lines: list[str]
    tree: ast.Module


def modules(folder: str) -> list[Module]:
    """Return the Python files below ``folder``, which is relative to the repository."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    texts = [(path, path.read_text()) for path in paths]
    return [Module(path, text.splitlines(), ast.parse(text)) for path, text in texts]


def functions(module: Module) -> Iterator[AnyFunction]:
    """Yield every function and method of a module."""
    return (node for node in ast.walk(module.tree) if isinstance(node, AnyFunction))


def body_lines(function: AnyFunction) -> int:
    """Return how many lines a function has below its signature and its docstring."""
    first = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - first[0].lineno + 1 if first else 0


def parameters(function: AnyFunction) -> int:
    """Return how many parameters a function has, ``self`` and ``cls`` left out."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return sum(parameter.arg not in ("self", "cls") for parameter in named)


def nesting(node: ast.AST, depth: int = 0) -> int:
    """Return the deepest nesting of branches, loops and blocks below ``node``."""
    deeper = depth + isinstance(node, NESTING)
    children = (nesting(child, deeper) for child in ast.iter_child_nodes(node))
    return max(children, default=deeper)


def spread(values: list[int]) -> str:
    """Return median, 90th percentile and maximum."""
    ordered = sorted(values)
    return f"{statistics.median(ordered):.0f}/{ordered[int(len(ordered) * 0.9)]}/{ordered[-1]}"


def share(part: int, whole: int) -> str:
    """Return a percentage."""
    return f"{part / max(whole, 1):.0%}"


def row(name: str, found: list[Module]) -> list[str]:
    """Return the measures of one layer."""
    every = [function for module in found for function in functions(module)]
    lines = [line for module in found for line in module.lines if line.strip()]
    comments = sum(line.lstrip().startswith("#") for line in lines)
    return [
        name,
        str(len(found)),
        spread([len(module.lines) for module in found]),
        spread([body_lines(function) for function in every]),
        share(sum(function.returns is not None for function in every), len(every)),
        share(sum(ast.get_docstring(function) is not None for function in every), len(every)),
        share(sum(ast.get_docstring(m.tree) is not None for m in found), len(found)),
        f"{comments / len(lines):.1%}",
        str(max(map(parameters, every))),
        str(max(nesting(function) for function in every)),
    ]


def repeated(names: Iterator[tuple[str, Path]]) -> dict[str, set[Path]]:
    """Return the names that stand in more than one file."""
    places = defaultdict(set)
    for name, path in names:
        places[name].add(path)
    return {name: where for name, where in sorted(places.items()) if len(where) > 1}


def main() -> None:
    """Print the table, and the names that are used more than once."""
    head = ("layer", "files", "file med/p90/max", "function", "returns", "docs", "module docs")
    table = [[*head, "# lines", "parameters", "nesting"]]
    table += [row(name, found) for name, folder in LAYERS.items() if (found := modules(folder))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)))

    sources = [module for folder in SOURCES for module in modules(folder)]
    classes = (
        (node.name, module.path)
        for module in sources
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    )
    files = ((m.path.stem, m.path) for m in sources if not m.path.stem.startswith("__"))
    vague = [
        function.name
        for module in sources
        for function in functions(module)
        if VAGUE.fullmatch(function.name)
    ]
    updates = sum("model_copy(update=" in line for module in sources for line in module.lines)
    print(f"\nclass names in two files:  {', '.join(repeated(classes)) or 'none'}")
    print(f"module names in two files: {', '.join(repeated(files)) or 'none'}")
    print(f"functions with a vague name: {len(vague)}; unchecked model_copy(update=…): {updates}")


if __name__ == "__main__":
    main()
