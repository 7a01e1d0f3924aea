"""The table of docs/for-git.md: what GitOps tools make of a run in each situation.

``make health`` computes it with the libraries of the tools (``localcluster/go/health``), and writes
it between the two markers of the page. The first marker has a digest of what was judged: a test
compares it, so that a changed status needs a new table.
"""

import hashlib
import json
import re
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import yaml

from flashrun.api import names
from localcluster import folders, toolchain
from localcluster.steps import StepRunner
from tests.plan.phases import runs_in_each_phase

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "for-git.md"
_END: Final = "<!-- end of the table -->"
_TABLE: Final = re.compile(r"<!-- judged: ([0-9a-f]+) -->\n(.*?)" + _END, re.S)
_CONDITIONS: Final = ("Ready", "Reconciling", "Stalled", "Succeeded")
_SCRIPT: Final = re.compile(r"```lua\n(.*?)```", re.S)
_FLUX: Final = re.compile(r"```yaml\n# Flux.*?\n(.*?)```", re.S)


def unseen_status() -> dict[str, Any]:
    """Return the status that a run has before an operator has seen it: the default of the CRD."""
    crd = yaml.safe_load((ROOT / "crds" / "flashruns.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    default: dict[str, Any] = schema["properties"]["status"]["default"]
    return default


def judged_objects() -> dict[str, dict[str, Any]]:
    """Return a name of each situation → the FlashRun in it, as the API server shows it."""
    statuses = {"not seen by an operator": unseen_status(), **runs_in_each_phase()}
    return {
        situation: {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {
                "name": "run",
                "namespace": "team-a",
                "generation": status["observedGeneration"] or 1,
            },
            "status": _judged(status),
        }
        for situation, status in statuses.items()
    }


def _judged(status: dict[str, Any]) -> dict[str, Any]:
    """Return what the tools judge of a status; sentences may change without a new table."""
    conditions = [
        {"type": item["type"], "status": item["status"], "reason": "Any", "message": ""}
        for item in status["conditions"]
    ]
    return {
        "observedGeneration": status["observedGeneration"],
        "phase": str(status["phase"]),
        "conditions": conditions,
    }


def page_script(page: str) -> str:
    """Return the script for Argo CD that the page shows."""
    return _SCRIPT.findall(page)[0]


def page_expressions(page: str) -> tuple[str, str]:
    """Return the expressions of Flux for current and for failed that the page shows."""
    [check] = yaml.safe_load(_FLUX.findall(page)[0])["healthCheckExprs"]
    return check["current"], check["failed"]


def digest_of_inputs(page: str) -> str:
    """Return the digest of everything that the table depends on, beside the libraries."""
    inputs = [judged_objects(), page_script(page), page_expressions(page)]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def digest_on_page(page: str) -> str:
    """Return the digest of what the table of the page was computed from."""
    [(digest, _)] = _TABLE.findall(page)
    return digest


def column_on_page(page: str, name: str) -> dict[str, str]:
    """Return the situations of the table with their values in one column."""
    [(_, table)] = _TABLE.findall(page)
    head, _, *rows = ([cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines())
    return {row[0]: row[head.index(name)] for row in rows}


def conditions_on_page(page: str) -> dict[str, list[str]]:
    """Return the situations of the table with their conditions."""
    [(_, table)] = _TABLE.findall(page)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    return {row[0]: row[2 : 2 + len(_CONDITIONS)] for row in rows}


def conditions_of(status: dict[str, Any]) -> list[str]:
    """Return the conditions of a status, as the table shows them."""
    found = {item["type"]: item["status"] for item in status["conditions"]}
    return [found.get(kind, "-") for kind in _CONDITIONS]


def judge(page: str, steps: StepRunner) -> list[dict[str, str]]:
    """Return the verdict of the libraries about each object."""
    program = toolchain.program("health", steps)
    done = subprocess.run(
        [program, page_script(page), *page_expressions(page)],
        input=json.dumps(list(judged_objects().values())),
        capture_output=True,
        text=True,
        check=True,
    )
    verdicts: list[dict[str, str]] = json.loads(done.stdout)
    return verdicts


def table(verdicts: list[dict[str, str]]) -> str:
    """Return the table in Markdown."""
    head = ["a run that is", "phase", *_CONDITIONS]
    head += ["kstatus", "Flux with the expressions", "Argo CD", "Argo CD with the script"]
    rows = [head, ["---"] * len(head)]
    for (situation, item), verdict in zip(judged_objects().items(), verdicts, strict=True):
        status = item["status"]
        tools = [verdict["kstatus"], verdict["flux"], verdict["argo"] or "-", verdict["argoScript"]]
        rows.append([situation, status["phase"], *conditions_of(status), *tools])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    """Compute the table and write it into the page."""
    page = PAGE.read_text()
    with closing(StepRunner(folders.logs() / "health.log")) as steps:
        text = table(judge(page, steps))
    marked = f"<!-- judged: {digest_of_inputs(page)} -->\n{text}{_END}"
    PAGE.write_text(_TABLE.sub(lambda _: marked, page))


if __name__ == "__main__":
    main()
