"""The live view at every stage of a run, as it is read at several widths.

``screens/`` holds what a person sees. ``UPDATE_GOLDEN=1`` writes it again.
"""

import math
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from flashrun.api.reasons import Reason
from flashrun.api.resource import FlashRun
from flashrun.cli.output.live_screen import (
    Row,
    ScreenState,
    phase_start,
    screen_lines,
    screen_rows,
)
from flashrun.cli.output.metric_series import MetricSeries
from flashrun.cli.output.sparkline import ASCII, UNICODE, Glyphs
from flashrun.cli.output.tables import Tone
from tests.cli.golden import golden_run
from tests.cli.storage import CREATED, metrics_rows

SCREENS = Path(__file__).with_name("screens")
NOW = datetime.fromisoformat(CREATED) + timedelta(minutes=30)
"""Half an hour after the golden runs' status."""
REWARDS = metrics_rows({step: {"reward": math.tanh(step / 30)} for step in range(1, 41)})
SCORES = metrics_rows({0: {"eval/exact": 0.0625}, 10: {"eval/exact": 0.4375}})


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-11-22T12:10:00Z",
    }


def attempt(number: int, **more: Any) -> dict[str, Any]:
    start = f"2026-11-22T12:{10 * number:02d}:00Z"
    return {"number": number, "pod": f"pod-{number}", "node": f"node-{number}", **more} | {
        "start": start
    }


def progress(activity: str, step: int = 0, **more: Any) -> dict[str, Any]:
    reward = {"metrics": {"reward": "0.8701"}} if step else {}
    total = 40 if step else 0
    percent = 100 * step // 40
    known = {"step": step, "totalSteps": total, "percent": percent, "activity": activity}
    return known | reward | more


def run_at(stage: str = "running", name: str = "sums-grpo", **changes: Any) -> FlashRun:
    """Return a golden run without its notice about W&B, with changes of its status."""
    fields = {"conditions": [condition("Running", "True", "Training")], **changes}
    return golden_run(stage, name, **fields).replace(created=datetime.fromisoformat(CREATED))


def state(run: FlashRun, *rows: Any, seen: int | None = None, **more: Any) -> ScreenState:
    """Return what is drawn; ``seen`` is for how many seconds it does what it does now."""
    series = MetricSeries()
    series.add_status(run.status)
    series.add_rows(rows)
    since = None if seen is None else NOW - timedelta(seconds=seen)
    return ScreenState(run, series, NOW, **{"activity_since": since, "answered": NOW, **more})


LOST_NODE = attempt(
    1, end="2026-11-22T12:19:00Z", reason="NodeLost", exitCode=137, fromStep=0, toStep=20
)
OUT_OF_MEMORY = attempt(
    2, end="2026-11-22T12:29:00Z", reason="CudaOutOfMemory", exitCode=71, fromStep=20, toStep=20
)
OOM = {
    "reason": "CudaOutOfMemory",
    "message": "The GPU ran out of memory in step 21.",
    "hint": "Lower train.max_length, or choose a pool with more memory.",
}
NO_GPU = {
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
}
NEXT_TRY = {
    "reason": "PodPending",
    "message": "The last attempt ended: NodeLost. The Job controller creates the next pod at "
    "2026-11-22T12:31:20Z.",
}
PULLS = str(Reason.PULLING_IMAGE.sentence)
ANOTHER_JOB = (
    "NodeLost: the run continues in another Job, because the Job controller would have waited "
    "until 2026-11-22T12:39:00Z."
)
FRESH: dict[str, Any] = {"attempts": [attempt(1)], "checkpoints": [], "checkpointCount": 0}
STAGES: Mapping[str, ScreenState] = {
    "waiting for GPUs": state(
        run_at(
            phase="Starting",
            pending=NO_GPU,
            progress=None,
            **{**FRESH, "attempts": []},
        ),
        seen=95,
    ),
    "the pod starts": state(
        run_at(
            phase="Starting",
            progress=progress("Starting"),
            conditions=[condition("Ready", "True", "Starting", "The pod starts.")],
            **FRESH,
        )
    ),
    "pulling the image": state(
        run_at(
            phase="Starting",
            progress=progress("Pulling image"),
            conditions=[condition("Ready", "True", "PullingImage", PULLS)],
            **FRESH,
        ),
        seen=95,
    ),
    "downloading the model": state(
        run_at(phase="Starting", progress=progress("Downloading (3.1 of 8.0 GiB)"), **FRESH),
        seen=70,
    ),
    "installing packages": state(
        run_at(phase="Starting", progress=progress("Installing"), **FRESH), seen=8
    ),
    "loading": state(run_at(progress=progress("Loading"), **FRESH), seen=20),
    "training": state(
        run_at(progress=progress("Training", 30, etaSeconds=380), attempts=[attempt(1)]),
        *REWARDS[:30],
        seen=600,
    ),
    "training, with a warning": state(
        run_at(
            progress=progress("Training", 3, etaSeconds=7300),
            conditions=[
                condition("Running", "True", "Training"),
                condition("Ready", "True", "TrainingWarning", "Every reward was 0 so far."),
            ],
        ),
        *REWARDS[:3],
    ),
    "evaluating": state(
        run_at(
            name="evaluated-sft",
            progress=progress("Evaluating", 20, metrics={"loss": "1.51"}),
        ),
        *SCORES,
        seen=4,
    ),
    "uploading": state(run_at(progress=progress("Uploading", 40)), *REWARDS, seen=3),
    "suspended": state(
        run_at(
            phase="Suspended",
            progress=progress("", 20),
            attempts=[LOST_NODE | {"reason": "Suspended", "exitCode": 143}],
            conditions=[
                condition("Running", "False", "Suspended"),
                condition("Ready", "True", "Suspended", "Paused by spec.control.suspend."),
            ],
        ),
        *REWARDS[:20],
    ),
    "retrying": state(
        run_at(phase="Retrying", pending=NEXT_TRY, progress=progress("", 20), attempts=[LOST_NODE]),
        *REWARDS[:20],
    ),
    "continuing in another Job": state(
        run_at(
            phase="Retrying",
            progress=progress("", 20),
            attempts=[LOST_NODE],
            conditions=[condition("Ready", "True", "Retrying", ANOTHER_JOB)],
        ),
        *REWARDS[:20],
    ),
    "pulling the image on another node": state(
        run_at(
            phase="Retrying",
            progress=progress("Pulling image", 20),
            attempts=[LOST_NODE, attempt(2)],
            conditions=[condition("Ready", "True", "PullingImage", PULLS)],
        ),
        *REWARDS[:20],
        seen=12,
    ),
    "training again": state(
        run_at(
            progress=progress("Training", 22, etaSeconds=300),
            attempts=[LOST_NODE, attempt(2, fromStep=20)],
        ),
        *REWARDS[:22],
    ),
    "the API server does not answer": state(
        run_at(progress=progress("Training", 30, etaSeconds=380)),
        *REWARDS[:30],
        problem="Cannot connect to host api.example:6443",
        answered=NOW - timedelta(seconds=42),
    ),
    "succeeded": state(
        golden_run("succeeded", "evaluated-sft"),
        *SCORES,
        following=False,
    ),
    "failed": state(
        run_at("failed", failure=OOM, attempts=[LOST_NODE, OUT_OF_MEMORY]),
        *REWARDS[:20],
        following=False,
    ),
    "cancelled": state(
        run_at(phase="Cancelled", progress=progress("", 20)), *REWARDS[:20], following=False
    ),
    "left with Ctrl-C": state(
        run_at(progress=progress("Training", 30, etaSeconds=380)), *REWARDS[:30], following=False
    ),
}


def drawn(stage: str, width: int, glyphs: Glyphs = UNICODE) -> list[str]:
    return [line.text for line in screen_lines(screen_rows(STAGES[stage]), width, glyphs=glyphs)]


def every_stage(width: int, glyphs: Glyphs) -> str:
    parts = [f"--- {stage} ---\n" + "\n".join(drawn(stage, width, glyphs)) for stage in STAGES]
    return "\n\n".join(parts) + "\n"


@pytest.mark.parametrize(
    ("width", "glyphs", "file"),
    [
        (34, UNICODE, "34-columns.txt"),
        (80, UNICODE, "80-columns.txt"),
        (200, UNICODE, "200-columns.txt"),
        (80, ASCII, "80-columns-ascii.txt"),
    ],
)
def test_every_stage_of_a_run_reads_like_this(width: int, glyphs: Glyphs, file: str) -> None:
    text = every_stage(width, glyphs)
    if os.environ.get("UPDATE_GOLDEN"):
        (SCREENS / file).write_text(text)

    assert text == (SCREENS / file).read_text()
    assert glyphs is UNICODE or text.isascii()


@pytest.mark.parametrize("width", [20, 33, 34, 35, 59, 60, 80, 120, 200])
@pytest.mark.parametrize("stage", STAGES)
def test_no_line_is_wider_than_the_terminal(stage: str, width: int) -> None:
    lines = drawn(stage, width)

    assert max(map(cell_len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


def test_a_window_wider_than_people_read_is_not_filled() -> None:
    assert drawn("waiting for GPUs", 1000) == drawn("waiting for GPUs", 200)


def test_names_of_runs_stay_whole_in_34_columns() -> None:
    for stage, shown in STAGES.items():
        text = "\n".join(drawn(stage, 34))
        assert shown.run.name in text
        assert all(checkpoint.ref in text for checkpoint in shown.run.status.checkpoints[:1])


def test_a_title_is_folded_behind_a_long_namespace() -> None:
    title = Row("", "people-of-team/flash-1795348800-0a1b2c3d · grpo")
    assert [line.text for line in screen_lines([title], 34)] == [
        "people-of-team/",
        "flash-1795348800-0a1b2c3d · grpo",
    ]


def test_a_low_window_shows_the_top_and_that_there_is_more() -> None:
    whole = screen_lines(screen_rows(STAGES["training"]), 34)
    lines = screen_lines(screen_rows(STAGES["training"]), 34, height=4)

    assert lines[:3] == whole[:3]
    assert [line.text for line in lines[3:]] == ["…"]
    assert screen_lines(screen_rows(STAGES["training"]), 34, height=len(whole)) == whole


def test_wide_characters_count_twice() -> None:
    rows = [Row("", "title"), Row("Failure", "模型在第二十步耗尽了内存" * 6)]

    assert max(cell_len(line.text) for line in screen_lines(rows, 80)) in (79, 80)


HOSTILE = "\x1b[2J\x1b]0;owned\x07bad\x9b31m\u202ereversed\r\nnext\x00"


def test_text_of_pods_and_users_cannot_steer_the_terminal() -> None:
    run = run_at(
        phase="Running",
        pending={"reason": "X", "message": HOSTILE},
        progress=progress(HOSTILE, 20, metrics={HOSTILE: "1"}),
        attempts=[attempt(1, message=HOSTILE, reason="Error"), attempt(2)],
    )
    lines = screen_lines(screen_rows(state(run)), 80)

    assert all(line.text.isprintable() for line in lines)
    assert "owned" not in "".join(line.text for line in lines)


def test_what_the_run_does_has_a_clock_only_when_its_beginning_was_seen() -> None:
    run = run_at(progress=progress("Loading"))

    assert "Running for 20m0s · Loading" in drawn_text(state(run))
    assert "Running for 20m0s · Loading for 5s" in drawn_text(state(run, seen=5))


def drawn_text(drawn_state: ScreenState) -> str:
    return "\n".join(line.text for line in screen_lines(screen_rows(drawn_state), 80))


STARTS = [
    ({"phase": "Pending", "attempts": []}, CREATED),
    ({"phase": "Pending", "attempts": [LOST_NODE]}, "2026-11-22T12:19:00Z"),
    ({"phase": "Retrying", "attempts": [LOST_NODE]}, "2026-11-22T12:19:00Z"),
    ({"phase": "Starting", "attempts": [LOST_NODE, attempt(2)]}, "2026-11-22T12:20:00Z"),
    ({"phase": "Running"}, "2026-11-22T12:10:00Z"),
    ({"phase": "Suspended", "attempts": []}, None),
]


@pytest.mark.parametrize(("changes", "start"), STARTS)
def test_a_phase_has_begun_when_its_status_says_so(
    changes: dict[str, Any], start: str | None
) -> None:
    expected = datetime.fromisoformat(start) if start else None
    assert phase_start(run_at(**changes)) == expected


def test_a_short_silence_of_the_api_server_is_not_shown() -> None:
    run = run_at(progress=progress("Training", 30))

    assert "no answer" not in drawn_text(state(run, answered=NOW - timedelta(seconds=9)))
    assert "no answer from the API server for 10s; trying" in drawn_text(
        state(run, answered=NOW - timedelta(seconds=10))
    )


def test_only_the_newest_attempts_are_listed() -> None:
    tries = [attempt(number, reason="NodeLost") for number in range(1, 6)]
    text = drawn_text(state(run_at(attempts=[*tries, attempt(6)])))

    assert "Attempts    2 before these" in text
    assert "2: NodeLost" not in text
    assert "Attempt     3: NodeLost" in text


def test_bad_news_has_its_tone() -> None:
    tones = {row.label: row.tone for row in screen_rows(STAGES["failed"])}

    assert tones["Failure"] is Tone.BAD
    assert tones["Next"] is Tone.PLAIN


@pytest.mark.parametrize("moment", ["2026-11-22T12:30:00Z", "2026-11-22T11:00:00Z", "2026-19-39T"])
def test_a_time_that_is_over_or_none_has_no_countdown(moment: str) -> None:
    pending = {"reason": "PodPending", "message": f"The next pod comes at {moment}."}
    text = drawn_text(state(run_at(phase="Retrying", pending=pending)))

    assert f"comes at {moment}." in text


@pytest.mark.parametrize("phase", ["Pending", "Starting", "Retrying", "Suspended"])
def test_a_run_that_waits_always_says_why(phase: str) -> None:
    known = run_at(phase=phase, progress=None, conditions=[condition("Ready", "True", "Any", "W.")])

    assert "Now         W." in drawn_text(state(known))


def test_what_the_activity_says_is_not_said_twice() -> None:
    lines = drawn_text(STAGES["pulling the image"])

    assert "Starting for 20m0s · Pulling image for 1m35s" in lines
    assert PULLS not in lines
