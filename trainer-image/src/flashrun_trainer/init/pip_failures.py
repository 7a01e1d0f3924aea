"""Why pip failed: from its output to one sentence that names the entry of the pip list.

The patterns are those of pip 23 to 26.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun_trainer.pod.trainer_errors import UNEXPECTED, TrainerError, first_line

PYTHON: Final = f"Python {sys.version_info.major}.{sys.version_info.minor}"
_HINT: Final = "correct [environment].pip"

_OFFLINE: Final = re.compile(
    r"connection broken|Max retries exceeded|Connection refused|timed out|connection error"
    r"|Name or service not known|Temporary failure in name resolution|(?:HTTP error|Error) 5\d\d"
    r"|5\d\d Server Error|Too Many Requests|Could not fetch URL \S+ (?!404|403|401)"
)
_REFUSED: Final = re.compile(r"\b(?P<code>401|403) (?:Client )?Error|HTTP error (?P<other>401|403)")
_DISK_FULL: Final = re.compile(r"\[Errno 28\]|No space left on device")
_BUILD_OUTPUT: Final = re.compile(r"\[\d+ lines? of output\]\n(?P<text>.*?)\[end of output\]", re.S)
"""What a build backend printed, or the pip that installs what a build needs."""
_BUILD: Final = re.compile(
    r"did not run successfully|Failed (?:to build|building wheel)|Could not build wheels"
    r"|BackendUnavailable|BackendInvalid"
)
_BUILD_DEPENDENCIES: Final = re.compile(
    r"install(?:ing)? build dependencies[^\n]* did not run successfully"
)
_BUILT: Final = re.compile(
    r"(?m)Failed to build '(?P<quoted>[^']+)'|Failed building wheel for (?P<wheel>\S+)"
    r"|Could not build wheels for (?P<wheels>[\w.-]+)|projects \((?P<projects>[\w.-]+)"
    r"|^╰─> (?P<arrow>[\w.-]+)$"
)
_COLLECTED: Final = re.compile(
    r"(?m)^Collecting (?P<name>[\w.-]+)[^\n]*?(?: \(from (?P<parents>[^)\n]+)\))?$"
)
_COMPILER: Final = re.compile(
    r"(?P<tool>[\w+-]*(?:gcc|g\+\+|cc|clang|nvcc|cmake|ninja|rustc|cargo|gfortran|make))\b'?"
    r"(?: failed)?: (?:No such file or directory|command not found|not found)"
    r"|unable to execute '(?P<unable>[^']+)'|No such file or directory: '(?P<missing>[\w+-]*"
    r"(?:gcc|g\+\+|cc|clang|nvcc|cmake|ninja|rustc|cargo|gfortran|make))'"
    r"|(?P<unknown>Unknown compiler|CMake must be installed|[Cc]an't find Rust compiler"
    r"|Rust compiler|CUDA_HOME environment variable is not set)"
)
_ERROR_LINE: Final = re.compile(r"^(?:[\w.]*(?:Error|Exception|Exit)\b|(?i:error|fatal)\b).*")
_MISSING: Final = re.compile(
    r"satisfies the requirement (?P<requirement>.+?)(?: \(from (?P<parents>(?!versions:)[^)]+)\))?"
    r" \(from versions: (?P<versions>[^)]*)\)"
)
_MISSING_SHORT: Final = re.compile(r"No matching distribution found for (?P<requirement>.+)")
_OTHER_PYTHON: Final = re.compile(
    r"require a different python version: (?P<version>\S+) Requires-Python (?P<needed>[^;\n]+)"
)
_OTHER_WHEEL: Final = re.compile(
    r"none of the wheel's tags \([^)]*\)[^\n]*/(?P<file>[^/\s#]+\.whl)"
)
_CONFLICT: Final = re.compile(r"Cannot install (?P<names>.+?) because|ResolutionImpossible")
_CAUSE: Final = re.compile(
    r"(?m)^    (?:The user requested (?P<constraint>\(constraint\) )?(?P<asked>\S.*)"
    r"|(?P<name>\S+) (?P<version>\S+) depends on (?P<needs>\S.*))$"
)
_ERROR: Final = re.compile(r"(?m)^\s*(?:ERROR|error): (?P<text>.+)")


class PipFailure(NamedTuple):
    """A failed pip: what it printed, the pip list, and a way to ask it for more."""

    output: str
    pip_list: Sequence[str]
    search: Callable[[str], str] = lambda requirement: ""
    """Returns what pip prints with ``-vv`` when it looks for a requirement on the index."""
    resolution: str = ""
    """What the earlier pip printed that resolved the pip list: it names who needs what."""


def explain_failure(failure: PipFailure) -> TrainerError:
    """Return why pip failed.

    What builds printed is judged apart: a compiler may say "timed out", too. Connection errors are
    looked for first: pip also reports them as "No matching distribution".
    """
    output = failure.output
    by_pip = _BUILD_DEPENDENCIES.search(output) is not None
    if _OFFLINE.search(output if by_pip else _BUILD_OUTPUT.sub("", output)):
        return _index_unavailable()
    if _DISK_FULL.search(output):
        return TrainerError(
            UNEXPECTED,
            Reason.DISK_FULL,
            "the pod's disk is full, so the pip list cannot be installed",
            "shorten [environment].pip, or ask the platform's administrator for a larger disk",
        )
    if _BUILD.search(output):
        return _explain_build(failure)
    if (conflict := _CONFLICT.search(output)) is not None:
        return _explain_conflict(failure, conflict["names"] or "the pip list")
    missing = _MISSING.search(output) or _MISSING_SHORT.search(output)
    if missing is not None:
        return _explain_missing(failure, missing.groupdict())
    if (refused := _REFUSED.search(output)) is not None:
        return _index_refuses(refused)
    error = _ERROR.search(output)
    return TrainerError(
        Exit.ENVIRONMENT,
        Reason.PACKAGE_FAILED,
        f"the pip list cannot be installed: {first_line(error['text'] if error else output)}",
        _HINT,
    )


def _index_unavailable() -> TrainerError:
    return TrainerError(
        Exit.TEMPORARY,
        Reason.INDEX_UNAVAILABLE,
        "the package index cannot be reached, so the pip list cannot be installed",
        "the run is retried; if it fails again, ask the platform's administrator to check "
        "trainer.pipIndexUrl",
    )


def _index_refuses(refused: re.Match[str]) -> TrainerError:
    code = refused["code"] or refused["other"]
    return TrainerError(
        Exit.TEMPORARY,
        Reason.INDEX_UNAVAILABLE,
        f"the package index refuses access (HTTP {code}), so the pip list cannot be installed",
        "the run is retried; if it fails again, ask the platform's administrator to check the "
        "credentials in the Secret of trainer.pipIndexSecret",
    )


# --- which entry of the pip list ----------------------------------------------------------------


def _describe(name: str, failure: PipFailure, parents: str = "") -> str:
    """Return the subject of a sentence: the package, and the entry of the pip list that needs it.

    ``parents`` is what pip says about its origin, as in ``b>=1->a==2``.
    """
    collected = {
        canonicalize_name(match["name"]): match["parents"]
        for match in _COLLECTED.finditer(f"{failure.resolution}\n{failure.output}")
        if match["parents"]
    }
    entries = {canonicalize_name(_name(entry)): entry for entry in failure.pip_list}
    seen: set[str] = set()
    current = canonicalize_name(_name(name))
    if current in entries:
        return f"{entries[current]!r} of the pip list"
    parents = parents or collected.get(current, "")
    while parents and current not in seen:
        seen.add(current)
        current = canonicalize_name(_name(parents.split("->")[-1]))
        if current in entries:
            return f"{name}, which {entries[current]!r} of the pip list needs,"
        parents = collected.get(current, "")
    return f"{name}, which the pip list needs,"


def _name(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement.strip())
    return match.group() if match else requirement


# --- the reasons --------------------------------------------------------------------------------


def _explain_build(failure: PipFailure) -> TrainerError:
    output = failure.output
    groups = [name for match in _BUILT.finditer(output) for name in match.groups() if name]
    collected = [match["name"] for match in _COLLECTED.finditer(output)]
    name = (groups or collected or ["a package"])[-1]
    reason, hint = _build_reason(output)
    return TrainerError(
        Exit.ENVIRONMENT,
        Reason.PACKAGE_FAILED,
        f"{_describe(name, failure)} cannot be built from source for {PYTHON}: {reason}",
        hint,
    )


def _build_reason(output: str) -> tuple[str, str]:
    """Return why a build failed, and a hint."""
    printed = "".join(match["text"] for match in _BUILD_OUTPUT.finditer(output)) or output
    if (compiler := _COMPILER.search(printed)) is not None:
        tool = compiler["tool"] or compiler["unable"] or compiler["missing"]
        what = f"a compiler is missing ({tool or first_line(compiler.group())})"
        return what, (
            f"choose a version in [environment].pip that has a wheel for {PYTHON}, or ask the "
            "platform's administrator for a trainer image with the compiler"
        )
    hint = f"choose a version in [environment].pip that has a wheel for {PYTHON}"
    if (needed := _MISSING_SHORT.search(printed)) is not None:
        return f"its build needs {needed['requirement'].strip()}, which the index does not have", (
            hint
        )
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR_LINE.match(line) and line != "ERROR: Exception:"]
    # The traceback of pip itself names the exception's module.
    last = (errors or lines or ["no reason was printed"])[-1].removeprefix("error: ")
    return first_line(last.rpartition("_impl.")[2] or last), hint


def _explain_conflict(failure: PipFailure, conflicting: str) -> TrainerError:
    causes = list(_CAUSE.finditer(failure.output))
    pins = {
        canonicalize_name(_name(cause["asked"])): cause["asked"]
        for cause in causes
        if cause["constraint"]
    }
    demands = [
        (cause["name"], cause["version"], cause["needs"] or cause["asked"])
        for cause in causes
        if not cause["constraint"]
    ]
    sentence = f"the pip list conflicts with the trainer's own packages: {conflicting}"
    for name, _, needs in demands:
        pin = pins.get(canonicalize_name(_name(needs)))
        if pin is None or _fits(needs, pin.partition("==")[2]):
            continue
        image = f"conflicts with {pin.replace('==', ' ')} of the trainer image"
        if name:
            sentence = f"{_describe(name, failure)} needs {needs}, which {image}"
        else:
            sentence = f"{_describe(needs, failure)} {image}"
        break
    else:
        if len(demands) > 1:
            parts = [
                f"{name} {version} needs {needs}" if name else f"it asks for {needs}"
                for name, version, needs in demands[:2]
            ]
            sentence = f"the pip list contradicts itself: {', but '.join(parts)}"
    return TrainerError(
        Exit.ENVIRONMENT,
        Reason.PACKAGE_CONFLICT,
        sentence,
        "choose other versions in [environment].pip",
    )


def _explain_missing(failure: PipFailure, missing: dict[str, str | None]) -> TrainerError:
    requirement = (missing["requirement"] or "").strip()
    subject = _describe(requirement, failure, missing.get("parents") or "")
    reason = Reason.PACKAGE_NOT_FOUND
    found = failure.search(requirement)
    if _OFFLINE.search(found):
        return _index_unavailable()
    if (refused := _REFUSED.search(found)) is not None:
        return _index_refuses(refused)
    hint = "correct its name or version in [environment].pip"
    if (other := _OTHER_PYTHON.search(failure.output)) is not None:
        reason, what = (
            Reason.PACKAGE_FAILED,
            f"has no version for {PYTHON}: version {other['version']} needs Python "
            f"{other['needed'].strip()}",
        )
        hint = f"choose a version in [environment].pip that supports {PYTHON}"
    elif any(_fits(requirement, version) for version in _other_wheels(found)):
        reason, what = (
            Reason.PACKAGE_FAILED,
            f"has neither a wheel for {PYTHON} on this machine nor a source distribution",
        )
        hint = f"choose a version in [environment].pip that has a wheel for {PYTHON}"
    elif (versions := (missing.get("versions") or "none").strip()) != "none":
        newest = versions.split(", ")[-1]
        what = f"is not on the package index, whose newest version of it is {newest}"
    else:
        what = "is not on the package index"
    return TrainerError(Exit.ENVIRONMENT, reason, f"{subject} {what}", hint)


def _other_wheels(found: str) -> Iterator[str]:
    """Yield the versions of which the index has only wheels for others than this machine."""
    for match in _OTHER_WHEEL.finditer(found):
        try:
            yield str(parse_wheel_filename(match["file"])[1])
        except InvalidWheelFilename:
            continue


def _fits(requirement: str, version: str) -> bool:
    try:
        return Requirement(requirement).specifier.contains(version, prereleases=True)
    except InvalidRequirement:
        return False
