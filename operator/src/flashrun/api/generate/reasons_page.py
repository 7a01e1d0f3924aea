"""The tables of ``flashrun.api.reasons`` and ``flashrun.api.exits`` → ``docs/reasons.md``."""

import sys
from collections.abc import Iterable, Iterator

from flashrun.api.exits import Exit
from flashrun.api.generate.markdown_tables import code, table
from flashrun.api.reasons import Activity, ConditionType, Owner, Phase, Reason, Retry, Word

_INTRODUCTION = """\
# Reasons, phases and exit codes

This page is generated from `flashrun.api.reasons` and `flashrun.api.exits` by `make crd`; do not
edit it. [troubleshooting.md](troubleshooting.md) says for each reason what to do, and
[failures.md](failures.md) how a run is retried.

A reason is one word for programs. It appears in `status.conditions`, `status.pending`,
`status.failure` and `status.attempts`, in Events, and in the termination messages of pods. The
words below do not change; new words may be added. A reason that is not on this page comes from
Kubernetes, such as `CreateContainerConfigError`.
"""


def page() -> str:
    """Return the page as Markdown."""
    ends = [reason for reason in Reason if reason.retry is not None]
    states = [reason for reason in Reason if reason.retry is None]
    return "\n".join(
        (
            _INTRODUCTION,
            "## Why an attempt or a run ended",
            "",
            *table(
                ("reason", "meaning", "owner", "retry"),
                ((code(r), r.sentence, r.owner, str(r.retry)) for r in sorted(ends)),
            ),
            "## What a run does or waits for",
            "",
            *table(
                ("reason", "meaning", "owner"),
                ((code(r), r.sentence, r.owner) for r in sorted(states)),
            ),
            "## Exit codes",
            "",
            "The reason applies if the trainer left no termination message.",
            "",
            *table(
                ("code", "reason", "meaning", "owner", "retry"),
                ((str(int(c)), code(c.reason), c.sentence, c.owner, c.retry) for c in Exit),
            ),
            *_words("Retry", "What follows an attempt, by its exit code.", Retry),
            *_words("Owners", "Who can do something about a reason.", Owner),
            *_words("Conditions", "The types in `status.conditions`.", ConditionType),
            *_words("Phases", "The values of `status.phase`, for people.", Phase),
            *_words(
                "Activities",
                "What `status.progress.activity` begins with; a detail may follow in parentheses.",
                Activity,
            ),
        )
    )


def _words(heading: str, introduction: str, words: Iterable[Word]) -> Iterator[str]:
    yield from (f"## {heading}", "", introduction, "")
    yield from table(("word", "meaning"), ((code(word), word.sentence) for word in words))


if __name__ == "__main__":
    sys.stdout.write(page())
