"""The lists of packages (SBOM) and their licences: by the real program, without a network."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localcluster import images
from supply_chain import licences
from supply_chain.licences import Accepted

ROOT = Path(__file__).parents[2]
TABLE = Accepted(
    frozenset({"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "License :: Old MIT"}),
    {"silent": "MIT", "vendor-*": "Apache-2.0", "sold": "Proprietary"},
)


def package(*given: str, name: str = "a") -> dict[str, Any]:
    """A component as cyclonedx-py writes it."""
    choices = [
        {"expression": word} if " OR " in word or " AND " in word else {"license": {"name": word}}
        for word in given
    ]
    return {"name": name, "version": "1.0", "licenses": choices}


@pytest.mark.parametrize(
    "component",
    [
        package("MIT"),
        package("License :: Old MIT"),
        package("MIT", "Apache-2.0"),
        package("MIT AND Apache-2.0"),
        package("GPL-3.0-only OR MIT"),
        package("MIT AND (Apache-2.0 WITH LLVM-exception OR GPL-2.0-only)"),
        package(name="Silent"),
        package("License :: Other", name="vendor_part"),
        {"name": "a", "licenses": [{"license": {"id": "MIT"}}]},
    ],
    ids=lambda component: str(component.get("licenses")),
)
def test_a_package_with_accepted_licences_may_be_used(component: dict[str, Any]) -> None:
    assert TABLE.problem(component) == ""


@pytest.mark.parametrize(
    ("component", "sentence"),
    [
        (package("GPL-3.0-only"), "a 1.0 has the licence GPL-3.0-only"),
        (package("MIT", "GPL-3.0-only"), "a 1.0 has the licence GPL-3.0-only"),
        (package("MIT AND GPL-3.0-only"), "a 1.0 has the licence MIT AND GPL-3.0-only"),
        (package("GPL-2.0-only OR GPL-3.0-only"),
         "a 1.0 has the licence GPL-2.0-only OR GPL-3.0-only"),
        (package("Ask us (first)"), "a 1.0 has the licence Ask us (first)"),
        (package("MIT AND ("), "a 1.0 has the licence MIT AND ("),
        (package(name="sold"), "sold 1.0 has the licence Proprietary"),
        (package(), "a 1.0 names no licence: look it up, and add it to [packages]"),
        (package(""), "a 1.0 names no licence: look it up, and add it to [packages]"),
    ],
)  # fmt: skip
def test_any_other_package_is_refused_by_name(component: dict[str, Any], sentence: str) -> None:
    assert TABLE.problem(component) == sentence


def locked(path: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / path).read_text(), re.MULTILINE))


def sbom(path: Path) -> list[dict[str, Any]]:
    program = Path(sys.executable).with_name("cyclonedx-py")
    words = [
        "environment",
        "--no-validate",
        "--output-reproducible",
        "--output-file",
        path,
        sys.executable,
    ]
    subprocess.run([program, *words], check=True)
    return list(json.loads(path.read_text())["components"])


def test_every_locked_package_of_the_operator_is_listed_with_an_accepted_licence(
    tmp_path: Path,
) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    listed = {item["name"].lower().replace("_", "-"): item for item in sbom(one)}
    sbom(other)
    assert one.read_bytes() == other.read_bytes(), "a second build would have another list"
    names = locked("operator/requirements.txt") - {"colorama"}  # on Windows alone
    assert names - {"pycparser"} <= listed.keys()
    assert "flashrun" in listed
    accepted = Accepted.load()
    problems = {accepted.problem(listed[name]) for name in names & listed.keys()}
    assert problems == {""}


def test_the_command_says_what_it_has_checked_and_fails_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps({"components": [package("MIT")]}))
    bad.write_text(json.dumps({"components": [package("MIT"), package("Odd", name="b")]}))
    assert licences.main([str(good)]) == 0
    assert capsys.readouterr().out == "licences: 1 package, all accepted\n"
    assert licences.main([str(good), str(bad)]) == 1
    assert capsys.readouterr().out == (
        "b 1.0 has the licence Odd\n"
        "stopped: 1 of 2 packages are not in the table supply_chain/licences.toml\n"
    )
    assert licences.main([]) == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "No such file or directory"),
        ("# Words", "is not a list of packages in CycloneDX"),
        ("[]", "is not a list of packages in CycloneDX"),
        ("{}", "is not a list of packages in CycloneDX"),
        ('{"components": []}', "lists no package"),
    ],
)
def test_a_file_without_packages_was_not_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, sentence: str
) -> None:
    path = tmp_path / "list.json"
    if content is not None:
        path.write_text(content)
    assert licences.main([str(path)]) == 2
    printed = capsys.readouterr().out
    assert printed.startswith(f"stopped: {path}")
    assert sentence in printed


@pytest.mark.parametrize("path", images.DOCKERFILES.values())
def test_an_image_is_built_with_a_list_of_its_packages_by_a_program_that_stays_outside(
    path: str,
) -> None:
    text = (ROOT / path).read_text()
    before, _, last = text.rpartition("\nFROM ")
    assert f"COPY --from=listing /tmp/sbom.cdx.json {images.SBOM}\n" in last
    assert "--output-file /tmp/sbom.cdx.json " in before
    assert "COPY --from=sbom" not in last
    assert not last.startswith("listing")
    assert "cyclonedx-bom" in locked("supply_chain/sbom.txt")


@pytest.mark.parametrize(
    "path",
    [
        "operator/requirements.txt",
        "trainer-image/requirements.txt",
        "trainer-image/requirements-vllm.txt",
        "supply_chain/sbom.txt",
        "supply_chain/audit.txt",
        "tests/requirements.txt",
        "docs/requirements.txt",
    ],
)
def test_every_package_of_a_lock_file_has_a_digest(path: str) -> None:
    """A second build gets the same files, or none."""
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / path).read_text(), flags=re.MULTILINE)[1:]
    assert entries
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("path", images.DOCKERFILES.values())
def test_an_image_installs_only_locked_files_and_what_its_arguments_name(path: str) -> None:
    text = (ROOT / path).read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install [^&|]*", text)
    assert installs
    for words in installs:
        assert re.search(
            r'--require-hashes|--no-index|--no-build-isolation|"\$\{TORCH\}"', words
        ), words
