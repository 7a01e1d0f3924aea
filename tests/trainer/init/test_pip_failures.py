"""Why pip failed: what several versions of it print, and the sentence that is made of it."""

import pytest

from flashrun.api.exits import Exit
from flashrun_trainer.init.pip_failures import PYTHON, PipFailure, explain_failure
from flashrun_trainer.pod.trainer_errors import TrainerError

BUILD = f" cannot be built from source for {PYTHON}: "


def explain(output: str, *pip_list: str, found: str = "") -> TrainerError:
    error = explain_failure(PipFailure(output, pip_list, lambda _: found))
    assert "\n" not in error.message
    return error


def build_output(*lines: str, doing: str = "Getting requirements to build wheel") -> str:
    """What pip prints about a build backend that fails."""
    printed = "".join(f"      {line}\n" for line in lines)
    return (
        "Collecting outer==2.0\n"
        "  Downloading outer-2.0-py3-none-any.whl (685 bytes)\n"
        "Collecting inner (from outer==2.0)\n"
        "  Downloading inner-1.0.tar.gz (341 bytes)\n"
        "  error: subprocess-exited-with-error\n"
        f"  \n  × {doing} did not run successfully.\n  │ exit code: 1\n"  # noqa: RUF001
        f"  ╰─> [{len(lines)} lines of output]\n{printed}      [end of output]\n  \n"
        "  note: This error originates from a subprocess, and is likely not a problem with pip.\n"
    )


INNER = f"inner, which 'outer==2.0' of the pip list needs,{BUILD}"


@pytest.mark.parametrize(
    ("output", "code", "reason", "message"),
    [
        pytest.param(
            "ERROR: Could not find a version that satisfies the requirement nope>=1 (from "
            "versions: none)\nERROR: No matching distribution found for nope>=1\n",
            *(Exit.ENVIRONMENT, "PackageNotFound"),
            "nope>=1, which the pip list needs, is not on the package index",
            id="a name that the index does not know",
        ),
        pytest.param(
            "WARNING: Retrying (Retry(total=0)) after connection broken by "
            "'NewConnectionError'\nERROR: No matching distribution found for nope>=1\n",
            *(Exit.TEMPORARY, "IndexUnavailable"),
            "the package index cannot be reached, so the pip list cannot be installed",
            id="an index that is away, which pip reports the same way in the end",
        ),
        pytest.param(
            "ERROR: HTTP error 503 while getting something\n",
            *(Exit.TEMPORARY, "IndexUnavailable"),
            "the package index cannot be reached, so the pip list cannot be installed",
            id="an index that is overloaded",
        ),
        pytest.param(
            "ERROR: HTTP error 403 while getting something\n",
            *(Exit.TEMPORARY, "IndexUnavailable"),
            "the package index refuses access (HTTP 403), so the pip list cannot be installed",
            id="an index that refuses",
        ),
        pytest.param(
            "ERROR: Cannot install transformers==4.0 because these package versions have "
            "conflicting dependencies.\nERROR: ResolutionImpossible: for help visit\n",
            *(Exit.ENVIRONMENT, "PackageConflict"),
            "the pip list conflicts with the trainer's own packages: transformers==4.0",
            id="a conflict without a cause",
        ),
        pytest.param(
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on "
            "device\n",
            *(1, "DiskFull"),
            "the pod's disk is full, so the pip list cannot be installed",
            id="a full disk",
        ),
        pytest.param(
            "ERROR: Something else\n",
            *(Exit.ENVIRONMENT, "PackageFailed"),
            "the pip list cannot be installed: Something else",
            id="anything else",
        ),
        pytest.param(
            build_output("Traceback (most recent call last):", "RuntimeError: no licence", "bye"),
            *(Exit.ENVIRONMENT, "PackageFailed"),
            f"{INNER}RuntimeError: no licence",
            id="the error of a build",
        ),
        pytest.param(
            build_output("asking for data: Connection refused", "error: no data"),
            *(Exit.ENVIRONMENT, "PackageFailed"),
            f"{INNER}no data",
            id="a build that speaks of connections",
        ),
        pytest.param(
            build_output("unable to execute 'x86_64-linux-gnu-g++': No such file or directory"),
            *(Exit.ENVIRONMENT, "PackageFailed"),
            f"{INNER}a compiler is missing (x86_64-linux-gnu-g++)",
            id="a compiler that setuptools misses",
        ),
        pytest.param(
            build_output("error: can't find Rust compiler"),
            *(Exit.ENVIRONMENT, "PackageFailed"),
            f"{INNER}a compiler is missing (can't find Rust compiler)",
            id="another compiler",
        ),
        pytest.param(
            build_output(
                "ERROR: No matching distribution found for flit_core",
                doing="pip subprocess to install build dependencies",
            ),
            *(Exit.ENVIRONMENT, "PackageFailed"),
            f"{INNER}its build needs flit_core, which the index does not have",
            id="a backend that the index lacks",
        ),
        pytest.param(
            build_output(
                "WARNING: Retrying (Retry(total=0)) after connection broken by 'X'",
                doing="installing build dependencies for inner",
            ),
            *(Exit.TEMPORARY, "IndexUnavailable"),
            "the package index cannot be reached, so the pip list cannot be installed",
            id="an index that goes away before the backend is installed",
        ),
        pytest.param(
            "Collecting outer==2.0\nCollecting inner (from outer==2.0)\nERROR: Exception:\n"
            "Traceback (most recent call last):\n"
            '  File "/opt/pip/_impl.py", line 402, in _call_hook\n    raise BackendUnavailable(\n'
            "pip._vendor.pyproject_hooks._impl.BackendUnavailable: Cannot import 'backend'\n",
            *(Exit.ENVIRONMENT, "PackageFailed"),
            f"{INNER}BackendUnavailable: Cannot import 'backend'",
            id="a backend that cannot be imported",
        ),
    ],
)
def test_a_failed_pip_is_explained(output: str, code: int, reason: str, message: str):
    error = explain(output, "outer==2.0")
    assert (error.code, error.reason, error.message) == (code, reason, message)


def test_an_index_that_cannot_be_asked_again_is_away():
    """With ``retries = 0`` in its settings, pip says nothing of the connection at first."""
    output = "ERROR: No matching distribution found for nope\n"
    found = "Could not fetch URL http://index/nope/: connection error: refused - skipping\n"
    assert explain(output, "nope", found=found).code == Exit.TEMPORARY
    found = "Could not fetch URL http://index/nope/: 404 Client Error: Not Found - skipping\n"
    assert explain(output, "nope", found=found).reason == "PackageNotFound"


def test_a_package_is_traced_to_its_entry_of_the_pip_list_over_several_steps():
    output = (
        "Collecting A_b[extra]>=1\nCollecting c (from a-b>=1)\nCollecting d<3 (from c)\n"
        "ERROR: Failed to build 'd' when getting requirements to build wheel\n"
    )
    error = explain(output, "other", "A.b[extra]>=1")
    assert error.message.startswith(f"d, which 'A.b[extra]>=1' of the pip list needs,{BUILD}")


def test_packages_that_need_each_other_end_the_search():
    output = (
        "Collecting a (from b)\nCollecting b (from a)\n"
        "ERROR: Failed to build 'a' when getting requirements to build wheel\n"
    )
    assert explain(output, "c").message.startswith(f"a, which the pip list needs,{BUILD}")
