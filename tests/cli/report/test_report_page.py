"""A report as HTML: what it says, and that text of models and users is never markup."""

import re
from html.parser import HTMLParser

import pytest

from flashrun.cli.report.report_data import ReportData
from flashrun.cli.report.report_page import ROLLOUTS_PER_STEP, build_page
from tests.cli.report.runs import HOSTILE, NOW, flash_run, rollouts, trained


class Reader(HTMLParser):
    """Collects the text of a page, and the elements that would load or run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loading: list[str] = []
        self.scripts = 0
        self._silent = 0
        self.feed(page)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in ("script", "style")
        self.scripts += tag == "script"
        if any(name in ("src", "href") or name.startswith("on") for name, _ in attrs):
            self.loading.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words.append(data)


def test_a_report_has_scores_checkpoints_spec_and_answers() -> None:
    text = Reader(build_page([trained()], NOW)).text

    for part in (
        "sums Succeeded",
        "Qwen/Qwen3.5-4B (grpo)",
        "Created 2026-11-22 12:00 UTC",
        "sums/step-20 0.20 2.0 KiB 2026-11-22 12:20 UTC",
        "sums/step-40 0.40 (best) 2.0 KiB",
        "environment: id: your-org/your-env",
        "evaluation after step 0",
        "training step 40 · score 0.25",
        f"{80 - ROLLOUTS_PER_STEP} more answers of evaluation after step 0",
    ):
        assert part in text, part


def test_the_lowest_score_of_a_step_comes_first() -> None:
    text = Reader(build_page([trained()], NOW)).text
    assert re.findall(r"training step 1 · score ([\d.]+)", text) == ["0.25", "0.5", "0.75", "1"]


def test_text_of_models_and_users_is_never_markup() -> None:
    page = Reader(build_page([trained()], NOW))
    harmless = Reader(build_page([ReportData(flash_run(), [], "score")], NOW))

    assert f"{HOSTILE} answer-0" in page.text
    assert page.loading == []
    # The page without metrics has one chart, this one has seven; each is a script.
    assert page.scripts == harmless.scripts + 6


def test_runs_share_the_charts_and_have_sections_of_their_own() -> None:
    page = build_page([trained("one"), trained("two", slope=0.02)], NOW)
    assert page.count('<section aria-label="') == 2
    assert page.count('class="plotly-graph-div"') == 7
    assert Reader(page).text.startswith("FlashRun report: one, two")


WITHOUT = {
    "a run without metrics": (ReportData(flash_run(), [], "score"), "This run has no metrics."),
    "a run that failed at its start": (
        ReportData(
            flash_run(
                phase="Failed",
                failure={"reason": "ConfigInvalid", "message": "a key is wrong", "hint": "fix it"},
            ),
            [],
            "score",
        ),
        "a key is wrong",
    ),
    "a deleted run": (
        ReportData(flash_run(deleted=True), trained().metrics, "score", (rollouts(1),)),
        "The FlashRun was deleted; this is what storage has of the run.",
    ),
}


@pytest.mark.parametrize("case", WITHOUT)
def test_a_report_says_what_is_missing(case: str) -> None:
    data, sentence = WITHOUT[case]
    page = Reader(build_page([data], NOW))
    assert sentence in page.text
    assert ("Phase" in page.text) is not data.deleted


def test_rollouts_of_any_form_are_shown() -> None:
    odd = rollouts(3)._replace(
        rows=[
            {"prompt": "plain", "completion": None, "score": None, "error": "no judge"},
            {
                "prompt": [{"role": "user", "content": None, "tool_calls": [{"id": "c1"}]}],
                "score": 1,
            },
            {"completion": "x" * 50_000, "metrics": [], "score": "high"},
        ]
    )
    text = Reader(build_page([ReportData(flash_run(), [], "score", (odd,))], NOW)).text
    for part in ("plain", "no judge", '"id": "c1"', "… (cut)", "score none", "score high"):
        assert part in text, part
