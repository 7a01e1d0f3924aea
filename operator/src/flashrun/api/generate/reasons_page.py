"""The tables of ``flashrun.api.reasons`` and ``flashrun.api.exits`` → ``docs/reasons.md``."""

import sys
from collections.abc import Iterable, Iterator

from flashrun.api.exits import Exit
from flashrun.api.reasons import Activity, ConditionType, Owner, Phase, Reason, Retry, Word

_INTRODUCTION = """\
# Reasons, phases and exit codes

This page is generated from `flashrun.api.reasons` and `flashrun.api.exits` by `make crd`; do not
edit it. [failures.md](failures.md) explains how a run is retried.

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
            *_table(
                ("reason", "meaning", "owner", "retry"),
                ((_code(r), r.sentence, r.owner, str(r.retry)) for r in sorted(ends)),
            ),
            "## What a run does or waits for",
            "",
            *_table(
                ("reason", "meaning", "owner"),
                ((_code(r), r.sentence, r.owner) for r in sorted(states)),
            ),
            "## Exit codes",
            "",
            "The reason applies if the trainer left no termination message.",
            "",
            *_table(
                ("code", "reason", "meaning", "owner", "retry"),
                ((str(int(c)), _code(c.reason), c.sentence, c.owner, c.retry) for c in Exit),
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
    yield from _table(("word", "meaning"), ((_code(word), word.sentence) for word in words))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    sys.stdout.write(page())
