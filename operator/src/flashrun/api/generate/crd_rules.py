"""Rules in CEL about what no run may have: names of variables, values like secrets, packages.

The API server refuses with the sentences of ``flash``, which come from the same constants. What CEL
cannot compute stays with ``flash`` and the operator: keys that are random without a known shape,
and the grammar of requirements (PEP 508).
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from flashrun.api import config, evaluation, names, secret_patterns

Schema = dict[str, Any]


class _Refusal(NamedTuple):
    """A text that is refused: the condition in CEL on ``name``, and the sentence about it."""

    condition: str
    before: str
    """What the sentence says before the name; without a name in it, the whole sentence."""
    after: str = ""


def add_rules(spec: Schema) -> None:
    """Add the rules to the structural schema of a spec."""
    variables = spec["properties"]["workerEnv"]
    environment = spec["properties"]["environment"]["properties"]
    refusals = [*_name_refusals()]
    secret = _Refusal(_secret_name("name"), config.SECRET_NAME)
    variables["x-kubernetes-validations"] = [_of_keys(each) for each in (*refusals, secret)]
    variables["additionalProperties"]["x-kubernetes-validations"] = [*_value_rules()]
    environment["secrets"]["items"]["x-kubernetes-validations"] = [
        _of_text(each) for each in refusals
    ]
    settings = spec["properties"]["train"]["properties"], spec["properties"]["eval"]["properties"]
    settings[0]["initFromAdapter"]["x-kubernetes-validations"] = [_reference_rule()]
    settings[1]["metric"]["x-kubernetes-validations"] = [_metric_rule()]
    environment["pip"]["items"]["x-kubernetes-validations"] = [*_pip_rules(), *_value_rules()]


def _name_refusals() -> Iterable[_Refusal]:
    """Yield what is refused as the name of a variable, in the order of ``flash``."""
    yield _Refusal(f"!name.matches({_literal(f'^{config.VARIABLE.pattern}$')})", config.NO_VARIABLE)
    for description, shape in secret_patterns.TOKEN_SHAPES:
        sentence = config.SECRET_AS_NAME.format(description)
        yield _Refusal(f"name.matches({_pattern(shape)})", sentence)
    reserved = "|".join(sorted(secret_patterns.RESERVED_NAMES))
    yield _Refusal(
        f"name.matches({_literal(f'(?i)^({reserved})$')})",
        "cannot be ",
        f", which {secret_patterns.RESERVED}",
    )
    whole = "|".join(sorted(secret_patterns.HIJACKING_NAMES))
    prefixes = "|".join(secret_patterns.HIJACKING_PREFIXES)
    yield _Refusal(
        f"name.matches({_literal(f'(?i)^(({whole})$|{prefixes})')})",
        "cannot be ",
        f", which {secret_patterns.HIJACKING}",
    )


def _secret_name(name: str) -> str:
    """Return the condition that ``secret_patterns.is_secret_name`` computes."""
    words = _has_word(name, secret_patterns.SECRET_WORDS)
    qualified = _has_word(name, secret_patterns.KEY_QUALIFIERS)
    return f"{words} || ({_has_word(name, {'KEY'})} && {qualified})"


def _has_word(name: str, words: Iterable[str]) -> str:
    """Return the condition that one of ``words`` is between underscores or changes of case."""
    upper = "|".join(sorted(words))
    title = "|".join(word.title() for word in sorted(words))
    lower = upper.lower()
    alone = f"(^|_)({lower}|{title})($|_|[A-Z])"
    inside = f"[a-z0-9]({title})($|_|[A-Z])"
    capitals = f"(^|_|[a-z0-9])({upper})($|_)"
    return f"{name}.matches({_literal(f'{alone}|{inside}|{capitals}')})"


def _value_rules() -> Iterable[Schema]:
    for description, shape in secret_patterns.TOKEN_SHAPES:
        yield {
            "rule": f"!self.matches({_pattern(shape)})",
            "message": config.SECRET_IN_SPEC.format(description),
        }


def _reference_rule() -> Schema:
    rule = f"self == '' || self.trim().matches({_literal(f'^{names.REF.pattern}$')})"
    return {"rule": rule, "message": names.NO_REF}


def _metric_rule() -> Schema:
    listed = ", ".join(_literal(name) for name in sorted(evaluation.COUNTS))
    return _of_text(_Refusal(f"name in [{listed}]", "cannot be '", f"', {config.NO_METRIC}"))


def _pip_rules() -> Iterable[Schema]:
    address = r"@\\s*[A-Za-z][A-Za-z0-9+.-]*:"
    https = r"@\\s*https://"
    for rule, sentence in (
        ("!self.startsWith('-')", config.PIP_OPTION),
        (r"!self.matches('[\\x00-\\x1f]')", config.PIP_LINES),
        (r"self.matches('^(-|\\s*[A-Za-z0-9])')", config.NO_REQUIREMENT),
        (
            f"!self.matches('{address}') || self.matches('(?i){https}[^/?#]')",
            config.PIP_ADDRESS,
        ),
        (f"!self.matches('(?i){https}[^/?#]*@')", config.PIP_CREDENTIALS),
        (f"!self.matches('(?i){https}[^#;]*[?]')", config.PIP_CREDENTIALS),
        (
            f"!self.matches('(?i){https}[^#]*#') || "
            f"self.matches('#{config.CHECKSUM.pattern}(\\\\s*;.*)?$')",
            config.PIP_FRAGMENT,
        ),
    ):
        yield {"rule": rule, "message": sentence}


def _of_keys(refusal: _Refusal) -> Schema:
    """Return the rule about the keys of a map."""
    rule = {"rule": f"self.all(name, !({refusal.condition}))"}
    if not refusal.after:
        return {**rule, "message": refusal.before}
    refused = f"self.filter(name, {refusal.condition})[0]"
    parts = (_literal(refusal.before), refused, _literal(refusal.after))
    return {**rule, "messageExpression": " + ".join(parts)}


def _of_text(refusal: _Refusal) -> Schema:
    """Return the rule about one string."""
    condition = re.sub(r"\bname\b", "self", refusal.condition)
    if not refusal.after:
        return {"rule": f"!({condition})", "message": refusal.before}
    parts = (_literal(refusal.before), "self", _literal(refusal.after))
    return {"rule": f"!({condition})", "messageExpression": " + ".join(parts)}


def _pattern(shape: re.Pattern[str]) -> str:
    """Return a pattern as a literal of CEL; RE2 takes no bound above 1,000."""
    bounded = re.sub(r"\{(\d+),\d{4,}\}", r"{\1,}", shape.pattern)
    flag = "(?i)" if shape.flags & re.IGNORECASE and not bounded.startswith("(?i)") else ""
    return _literal(flag + bounded)


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
