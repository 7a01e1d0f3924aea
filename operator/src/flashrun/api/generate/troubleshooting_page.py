"""The symptoms and the reasons → ``docs/troubleshooting.md``."""

import re
import sys
from collections.abc import Iterator
from textwrap import wrap
from typing import Final

from flashrun.api.generate.markdown_tables import code, table
from flashrun.api.generate.symptoms import SYMPTOMS, Symptom
from flashrun.api.reasons import Owner, Reason, Retry

_INTRODUCTION: Final = """\
# Troubleshooting

This page is generated from `flashrun.api.generate.symptoms` and `flashrun.api.reasons` by
`make crd`; do not edit it. [reasons.md](reasons.md) has the same reasons for programs, and
[failures.md](failures.md) explains what follows a failure.

Begin with the sentence that `flash status RUN` shows. It names the run's own values, and often
what to set. The word for programs is the reason. What to do is for the person who submitted the
run, unless it names an administrator. Without `flash`:

```sh
kubectl get flashruns -n NAMESPACE -o wide
kubectl get flashrun RUN -n NAMESPACE -o jsonpath='{.status.failure}'
kubectl get events -n NAMESPACE --field-selector involvedObject.name=RUN
```
"""
_WHOLE: Final = re.compile(r"`[^`]*`|\[[^]]*\]\([^)]*\)")
_WHO: Final = {
    Owner.USER: "",
    Owner.PLATFORM: "Administrator: ",
    Owner.STORAGE: "Administrator of storage: ",
    Owner.INTERNAL: "",
}
"""Who does it, where it is not the person who submitted the run."""
_FOLLOWS: Final = {
    Retry.NEVER: " The run ends.",
    Retry.UNCOUNTED: " The run is retried.",
    Retry.COUNTED: " The run is retried.",
    Retry.LARGER_POOL: " The run is retried with more memory, if there is any.",
    Retry.OTHER_NODE: " The run is retried on another node.",
    None: "",
}


def page() -> str:
    """Return the page as Markdown."""
    contents = (f"- [{symptom.heading}](#{_anchor(symptom.heading)})" for symptom in SYMPTOMS)
    sections = (line for symptom in SYMPTOMS for line in _section(symptom))
    return "\n".join((_INTRODUCTION, *contents, "", *sections)).rstrip() + "\n"


def _anchor(heading: str) -> str:
    return "".join(c for c in heading.lower() if c.isalnum() or c in " -").replace(" ", "-")


def _section(symptom: Symptom) -> Iterator[str]:
    yield from (f"## {symptom.heading}", "", *_lines(symptom.introduction), "")
    if symptom.remedies:
        rows = (row(reason, remedy) for reason, remedy in symptom.remedies.items())
        yield from table(("reason", "what happened", "what to do"), rows)
    if symptom.sights:
        yield from table(("what you see", "why", "what to do"), symptom.sights)


def row(reason: Reason, remedy: str) -> tuple[str, str, str]:
    """Return the cells of a reason."""
    who = _WHO[reason.owner]
    act = remedy[0].lower() + remedy[1:] if who else remedy
    return code(reason), reason.sentence + _FOLLOWS[reason.retry], who + act


def _lines(text: str) -> Iterator[str]:
    """Yield ``text`` in lines that break no link and no code."""
    whole = _WHOLE.sub(lambda found: found[0].replace(" ", "\0"), text)
    lines = wrap(whole, 100, break_long_words=False, break_on_hyphens=False)
    yield from (line.replace("\0", " ") for line in lines)


if __name__ == "__main__":
    sys.stdout.write(page())
