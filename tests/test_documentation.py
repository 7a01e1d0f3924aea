"""What the documents say is what the code has."""

import ast
import hashlib
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from docs import health_tables, site_pages
from flashrun.api.base import Record
from flashrun.api.config import (
    BudgetConfig,
    EnvironmentConfig,
    EvalConfig,
    RunConfig,
    TrainConfig,
    WandbConfig,
)
from flashrun.api.exits import Exit
from flashrun.api.records import FILES_LIMIT, Manifest
from flashrun.api.run_record import RunRecord
from flashrun.archive import HEADER_LIMIT, MEMBERS_LIMIT, PACKED_LIMIT, UNPACKED_LIMIT
from flashrun.cluster_async import REUSED_BYTES
from flashrun.cluster_requests import LONGEST_RETRY_AFTER
from flashrun.controller.bounded_answers import (
    DATA_VALUES,
    OBJECT_BYTES,
    PAGE,
    SPEC_BYTES,
    SPEC_VALUES,
)
from flashrun.controller.event_reader import EVENTS_LIMIT
from flashrun.controller.object_cache import RUN_BYTES, TOTAL_BYTES
from flashrun.controller.observe import JOBS_LIMIT, PODS_LIMIT
from flashrun.controller.poll import UNKNOWN_LIMIT
from flashrun.controller.run_records import MANIFEST_BYTES, MANIFESTS_LIMIT
from flashrun.controller.storage_access import PAUSE_SECONDS
from flashrun.controller.tls_buffers import READ_BYTES
from flashrun.controller.watched_objects import KEPT_BYTES
from flashrun.store import LONGEST_PAUSE_SECONDS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    ROOT / "bench" / "README.md",
    ROOT / "findings" / "README.md",
    ROOT / "tests" / "runs" / "README.md",
]
"""Every page that people read."""
CONFIG = (ROOT / "docs" / "config.md").read_text()
KEYS = [
    *(name for name in RunConfig.model_fields if name not in ("environment", "train")),
    *EnvironmentConfig.model_fields,
    *TrainConfig.model_fields,
    *EvalConfig.model_fields,
    *WandbConfig.model_fields,
    *BudgetConfig.model_fields,
]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_the_config_is_documented(key: str) -> None:
    assert re.search(rf"[`\[]{key}[`\]]", CONFIG)


TABLES = ("environment", "train", "eval", "wandb", "budget")
QUALIFIED = [
    *(name for name in RunConfig.model_fields if name not in TABLES),
    *(f"environment.{name}" for name in EnvironmentConfig.model_fields),
    *(f"train.{name}" for name in TrainConfig.model_fields),
    *(f"eval.{name}" for name in EvalConfig.model_fields),
    *(f"wandb.{name}" for name in WandbConfig.model_fields),
    *(f"budget.{name}" for name in BudgetConfig.model_fields),
]


def keys_with_tests() -> dict[str, list[str]]:
    """The first table of docs/training.md: key → names of tests."""
    text = (ROOT / "docs" / "training.md").read_text().split("## SFT")[0]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    return {cells[1].strip(" `"): re.findall(r"`([\w/]+\.py::\w+)`", cells[3]) for cells in rows}


def test_every_key_says_what_it_becomes_in_training() -> None:
    assert sorted(keys_with_tests()) == sorted(QUALIFIED)


@pytest.mark.parametrize("key", QUALIFIED)
def test_every_key_has_a_test_that_exists(key: str) -> None:
    tests = keys_with_tests()[key]
    assert tests
    for test in tests:
        path, name = test.split("::")
        assert f"def {name}(" in (ROOT / "tests" / path).read_text(), test


def security_rows() -> dict[str, tuple[str, list[str]]]:
    """The table of what crosses to the operator: input → bound and tests."""
    page = (ROOT / "docs" / "security.md").read_text()
    table = page.split("## What crosses from a team to the operator")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {
        f"{name}: {bound[:40]}": (bound, re.findall(r"`tests/([\w/]+\.py::\w+)`", tests))
        for name, bound, tests in rows[1:]
    }


@pytest.mark.parametrize("row", security_rows())
def test_every_input_of_a_team_has_a_bound_and_tests_that_exist(row: str) -> None:
    bound, tests = security_rows()[row]
    assert bound
    assert tests
    for test in tests:
        path, name = test.split("::")
        assert f"def {name}(" in (ROOT / "tests" / path).read_text(), test


def test_the_bounds_of_what_a_team_writes_are_those_of_the_code() -> None:
    kib, mib = 1024, 1024**2
    page = " ".join((ROOT / "docs" / "security.md").read_text().split())
    for sentence in (
        f"has {SPEC_BYTES // kib} KiB and {SPEC_VALUES:,} values at most",
        f"in pages of {OBJECT_BYTES // mib} MiB; the newest {JOBS_LIMIT} Jobs and {PODS_LIMIT} "
        "pods",
        f"the newest {EVENTS_LIMIT} within five seconds",
        f"| {DATA_VALUES:,} keys |",
        f"reads of {READ_BYTES // kib} KiB; a connection ends with a body of more than "
        f"{REUSED_BYTES // kib} KiB",
        f"| {Record.max_bytes // kib} KiB and {Record.max_values:,} values each",
        f"| {Manifest.max_bytes // kib} KiB and {FILES_LIMIT:,} files; of one run "
        f"{MANIFESTS_LIMIT:,}, and {MANIFEST_BYTES // mib} MiB at once",
        f"| {RunRecord.max_bytes // mib} MiB and {RunRecord.max_values:,} values",
        f"| {PACKED_LIMIT // mib} MiB packed, {UNPACKED_LIMIT // mib} MiB unpacked, "
        f"{MEMBERS_LIMIT:,} members, headers of {HEADER_LIMIT // kib} KiB",
        f"in pages of {PAGE} objects and {OBJECT_BYTES // mib} MiB",
        f"{KEPT_BYTES // kib} KiB of one object are kept, {RUN_BYTES // kib} KiB of one run, "
        f"an equal part of {TOTAL_BYTES // mib} MiB",
        f"those of known runs and {UNKNOWN_LIMIT} others are read",
        f"at most {LONGEST_PAUSE_SECONDS}, {LONGEST_RETRY_AFTER:.0f} and 30 seconds",
        f"asked once in {PAUSE_SECONDS:.0f} seconds",
    ):
        assert sentence in page, sentence


@pytest.mark.parametrize("code", sorted(set(Exit)))
def test_every_exit_code_is_documented(code: Exit) -> None:
    table = (ROOT / "docs" / "failures.md").read_text()
    assert re.search(rf"^\|.*\b{int(code)}\b.*\|", table, re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return set(map(site_pages.slug, headings))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    text = document.read_text()
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", text):
        place = document.parent / target if target else document
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), f"{target}#{anchor}"


def test_decisions_are_numbered_without_gaps_and_titled_with_their_number() -> None:
    files = sorted((ROOT / "docs/decisions").glob("0*.md"))
    titled = [file.read_text().partition(".")[0] for file in files]
    assert titled == [f"# {number}" for number in range(1, len(files) + 1)]
    assert [file.name[:4] for file in files] == [f"{n:04}" for n in range(1, len(files) + 1)]


def test_every_folder_of_the_tree_in_the_readme_exists() -> None:
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    for line in tree.strip().splitlines():
        name = line.split()[0]
        operator, trainer = ROOT / "operator/src/flashrun", ROOT / "trainer-image"
        packages = [operator, operator / "api", operator / "cli", trainer / "src/flashrun_trainer"]
        places = [ROOT, ROOT / "operator", *packages, trainer]
        assert any((place / name).exists() for place in places), name


def test_the_workflow_runs_what_ci_run_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()

    assert job["steps"][-1]["run"] == ".ci/run"


def test_every_action_of_the_workflow_is_pinned_to_a_version() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()

    actions = re.findall(r"uses: (\S+)", text)
    assert actions
    assert all(re.fullmatch(r"[\w/-]+@v\d+\.\d+\.\d+", action) for action in actions)


def test_the_changelog_has_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[:2] == ["Unreleased", version]


PICTURES = sorted((ROOT / "docs" / "images").glob("*.svg"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_rendered_from_its_source_as_it_is_now(picture: Path) -> None:
    source, digest = re.findall(r"<!-- (\S+) sha256:(\w+) -->$", picture.read_text().rstrip())[0]

    now = hashlib.sha256((picture.parent / source).read_bytes()).hexdigest()
    assert digest == now, "render it again: make pictures"


def test_the_table_of_health_is_computed_from_the_status_as_it_is_now() -> None:
    page = health_tables.PAGE.read_text()
    shown = health_tables.conditions_on_page(page)
    now = {
        situation: health_tables.conditions_of(item["status"])
        for situation, item in health_tables.judged_objects().items()
    }

    assert shown == now, "compute it again: make health"
    assert health_tables.digest_on_page(page) == health_tables.digest_of_inputs(page)


SOURCES = (ROOT / "operator" / "src", ROOT / "trainer-image" / "src", ROOT)
FILES = [
    f"/{path.relative_to(ROOT)}"
    for folder in (
        "operator",
        "trainer-image",
        "localcluster",
        "tests",
        "bench",
        "docs",
        "examples",
    )
    for path in (ROOT / folder).rglob("*.py")
]


def names_of_code(text: str) -> set[str]:
    """The Python files and modules that a page names between backticks."""
    files = re.findall(r"`([\w/-]+\.py)(?:::\w+)?`", text)
    modules = re.findall(r"`((?:flashrun|flashrun_trainer|localcluster)(?:\.[a-z_]\w*)+)`", text)
    return {*files, *(name for name in modules if not name.endswith(".yaml"))}


def is_in_the_tree(name: str) -> bool:
    """Whether ``name`` is a file, a module, or something that a module defines."""
    if name.endswith(".py"):
        return any(path.endswith(f"/{name}") for path in FILES)
    *parents, last = name.split(".")
    for source in SOURCES:
        place, parent = source.joinpath(*parents, last), source.joinpath(*parents)
        if place.is_dir() or place.with_suffix(".py").exists():
            return True
        module = parent.with_suffix(".py")
        if module.exists() and re.search(
            rf"^(async def|def|class) {last}\b", module.read_text(), re.M
        ):
            return True
    return False


@pytest.mark.parametrize(
    "document",
    [document for document in DOCUMENTS if document.name != "CHANGELOG.md"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_file_and_module_that_a_page_names_is_in_the_tree(document: Path) -> None:
    names = names_of_code(document.read_text())
    assert not [name for name in names if not is_in_the_tree(name)]


UNIT = "GPU|node|pod|run|step|line|item|event|attempt|process|upload|token|record|row|rank|second"
COUNTED = "[Oo]ne|entry|line|row|pods?|pass|passes|seconds|tokens|samples|characters|MiB"
PLAIN_ENGLISH = {
    "is not a …": r"(?<![Tt]here )\b(?:is|are|was|were) no (?!longer\b|more than\b)\w+",
    "one per …": rf"\b(?:{COUNTED}) an? (?:{UNIT})\b",
    "is (not) available": r"\b(?:can|cannot|could not|to) be had\b",
    "continues on": r"\bgo(?:es)? on on\b",
    "the part of … that": r"\bwhat of \S+ (?:is|are)\b",
    "none of": r"(?<!is )(?<!be )\b[Nn]ot one of\b",
    "padding": r"\bfilling\b",
    "name the actor and the act": r"\bbusiness\b|\bon the table\b|\bgives? way\b",
    "report, return, write, pass": r"\b(?:told|said)\b|\b(?:leave|without) a word\b",
}
"""What to write → the construction that a non-native reader stumbles on."""
ALLOWED = {"is no or", "tokens a token"}
"""An answer that is no; the tokens that a token attends to."""


def stumbling_blocks(text: str) -> list[str]:
    """The constructions in ``text`` that are not plain English, each with what to write."""
    flat = re.sub(r"\s+", " ", text)
    return [
        f"{flat[max(0, match.start() - 30) : match.end() + 10]!r}: write {instead!r}"
        for instead, pattern in PLAIN_ENGLISH.items()
        for match in re.finditer(pattern, flat)
        if match[0] not in ALLOWED
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_is_written_in_plain_english(document: Path) -> None:
    assert not stumbling_blocks(document.read_text())


CODE = [
    path
    for folder in ("operator/src", "trainer-image/src", "localcluster")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def prose(source: str) -> Iterator[str]:
    """The strings, docstrings and comments of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


@pytest.mark.parametrize("module", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_written_in_plain_english(module: Path) -> None:
    assert not [block for text in prose(module.read_text()) for block in stumbling_blocks(text)]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("{host} is no host that is allowed", 1),
        ("one a GPU, one line an event", 2),
        ("the model cannot be had", 1),
        ("the run goes on on another node", 1),
        ("there is no GPU", 0),
        ("the lease is no longer held", 0),
        ("one process per GPU", 0),
        ("seconds per step; at most one attempt", 0),
    ],
)
def test_the_patterns_match_what_they_forbid(text: str, count: int) -> None:
    assert len(stumbling_blocks(text)) == count
