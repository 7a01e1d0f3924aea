"""The rules in CEL say of names and values what ``flash`` says of them.

A real API server takes them in ``tests/controller/test_resource.py``; here their patterns, which
RE2 and Python read alike, are compared with the functions of ``secret_patterns``.
"""

import itertools
import re
from typing import Any

import pytest

from flashrun.api import names, secret_patterns
from flashrun.api.generate import crd, crd_rules

SPEC = crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
VARIABLES = SPEC["properties"]["workerEnv"]
ENVIRONMENT = SPEC["properties"]["environment"]["properties"]


def patterns(text: str) -> list[re.Pattern[str]]:
    """Every pattern that a rule matches, in its order."""
    literals = re.findall(r"\.matches\('((?:[^'\\]|\\.)*)'\)", text)
    return [re.compile(re.sub(r"\\(.)", r"\1", literal)) for literal in literals]


def rule(node: dict[str, Any], sentence: str) -> str:
    [found] = [
        item["rule"]
        for item in node["x-kubernetes-validations"]
        if sentence in item.get("message", "") + item.get("messageExpression", "")
    ]
    return str(found)


WORDS = sorted(
    {"KEY", "FLAG", "MONKEY", *secret_patterns.SECRET_WORDS, *secret_patterns.KEY_QUALIFIERS}
)


def spellings(*words: str) -> set[str]:
    """The words as one name, as people write names of variables."""
    titles = [word.title() for word in words]
    camel = titles[0].lower() + "".join(titles[1:])
    return {"_".join(words), "_".join(words).lower(), "_".join(titles), "".join(titles), camel}


def test_a_name_is_that_of_a_secret_for_both_or_for_none() -> None:
    words, key, qualifier = patterns(rule(VARIABLES, "is the name of a secret"))
    sets = [(a,) for a in WORDS] + [*itertools.product(WORDS, WORDS)]
    names = {name for each in sets for name in spellings(*each)} | {
        "MAX_TOKENS",
        "_KEY_",
        "A1Token",
    }
    secret = {
        name for name in names
        if words.search(name) or (key.search(name) and qualifier.search(name))
    }  # fmt: skip
    assert secret == {name for name in names if secret_patterns.is_secret_name(name)}
    assert len(secret) > 100


@pytest.mark.parametrize(
    "node", [VARIABLES, ENVIRONMENT["secrets"]["items"]], ids=["public", "secret"]
)
def test_every_forbidden_name_is_refused_with_the_reason_of_flash(node: dict[str, Any]) -> None:
    [reserved] = patterns(rule(node, secret_patterns.RESERVED))
    [hijacking] = patterns(rule(node, secret_patterns.HIJACKING))
    known = secret_patterns.RESERVED_NAMES | secret_patterns.HIJACKING_NAMES
    prefixed = {f"{prefix}X" for prefix in secret_patterns.HIJACKING_PREFIXES}
    for name in (
        *known,
        *prefixed,
        *(f"{name}X" for name in known),
        "PYTHONPATH",
        "Flag",
        "X_PATH",
    ):
        for spelled in (name, name.lower()):
            why = secret_patterns.why_forbidden(spelled)
            assert bool(reserved.search(spelled)) == (why == secret_patterns.RESERVED), spelled
            assert bool(hijacking.search(spelled)) == (why == secret_patterns.HIJACKING), spelled


SHAPED = [
    "-----BEGIN RSA PRIVATE KEY", "sk-" + "a" * 16, "pk_live_" + "a" * 16, "ghp_" + "a" * 20,
    "github_pat_" + "a" * 20, "glpat-" + "a" * 16, "hf_" + "a" * 16, "AKIA" + "A" * 16,
    "AIza" + "a" * 30, "xoxb-" + "a" * 10, "npm_" + "a" * 30, "pypi-" + "a" * 30,
    "eyJ" + "a" * 8 + ".eyJ" + "b" * 8 + ".", "BEARER " + "a" * 12, "HTTP://me:pw@host",
    "plain", "sk-short", "http://host/a@b", "0123456789abcdef",
]  # fmt: skip


def test_every_shape_of_a_token_is_refused_as_a_value() -> None:
    for node in (VARIABLES["additionalProperties"], ENVIRONMENT["pip"]["items"]):
        for description, shape in secret_patterns.TOKEN_SHAPES:
            [pattern] = patterns(rule(node, f"looks like {description},"))
            for text in SHAPED:
                assert bool(pattern.search(text)) == bool(shape.search(text)), (description, text)


def test_references_and_metrics_are_those_of_flash() -> None:
    train, evaluation = (SPEC["properties"][key]["properties"] for key in ("train", "eval"))
    [pattern] = patterns(rule(train["initFromAdapter"], "is not an adapter reference"))
    for text in ("run", "run-1/step-20", "run/step-0", "run/step-01", "../x", "Run", "run/", "a/b"):
        try:
            names.parse_ref(text)
        except ValueError:
            assert not pattern.search(text), text
        else:
            assert pattern.search(text), text
    assert rule(evaluation["metric"], "which says nothing about the model") == (
        "!(self in ['examples', 'seconds', 'unscored'])"
    )


@pytest.mark.parametrize(
    ("text", "usable"),
    [("openai", True), (" numpy>=2", True), ("7zip", True), ("./x", False), ("", False)],
)
def test_what_does_not_begin_with_a_name_is_no_requirement(text: str, usable: bool) -> None:
    [pattern] = patterns(rule(ENVIRONMENT["pip"]["items"], "is not a requirement"))
    assert bool(pattern.search(text)) is usable


def test_no_pattern_has_a_bound_that_re2_refuses() -> None:
    for _, shape in secret_patterns.TOKEN_SHAPES:
        bounds = re.findall(r"\d+", "".join(re.findall(r"\{[\d,]+\}", crd_rules._pattern(shape))))
        assert all(int(bound) <= 1_000 for bound in bounds)
