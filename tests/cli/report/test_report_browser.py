"""A report in a real browser, Debian's Chromium: charts, filter, keyboard, a narrow window."""

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from flashrun.cli.report.report_page import build_page
from localcluster import toolchain
from localcluster.steps import StepRunner
from tests.cli.report.runs import NOW, trained

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from playwright.sync_api import ViewportSize as Size

pytestmark = pytest.mark.api

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDE: "Size" = {"width": 1200, "height": 900}
NARROW: "Size" = {"width": 360, "height": 800}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    with closing(StepRunner.silent(tmp_path_factory.mktemp("steps"))) as steps:
        toolchain.debian(["chromium"], steps)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def problems() -> list[str]:
    """What the page reports: errors, and requests to anywhere."""
    return []


@pytest.fixture(scope="module")
def page(
    browser: "Browser", problems: list[str], tmp_path_factory: pytest.TempPathFactory
) -> "Page":
    """A report about two runs, opened without a network."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(build_page([trained("one"), trained("two", slope=0.02)], NOW), "utf-8")
    page = browser.new_context(viewport=WIDE, offline=True).new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on("request", lambda made: problems.append(made.url))
    page.goto(path.as_uri())
    page.wait_for_selector(".charts .main-svg")
    assert problems == [path.as_uri()]
    problems.clear()
    return page


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_is_drawn_offline_and_fits(page: "Page", problems: list[str], size: "Size") -> None:
    page.set_viewport_size(size)
    page.wait_for_timeout(500)

    assert page.title() == "FlashRun report: one, two"
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    charts = page.locator(".charts").first.locator(".js-plotly-plot")
    assert charts.count() == 3
    assert charts.first.locator(".scatterlayer .trace").count() == 2
    for chart in charts.all():
        drawn, room = chart.locator(".main-svg").first.bounding_box(), chart.bounding_box()
        assert drawn is not None
        assert room is not None
        assert 200 < drawn["width"] <= room["width"] + 1
    assert problems == []


def test_a_search_and_a_step_choose_the_answers(page: "Page") -> None:
    section = page.locator("section").first
    count, visible = section.locator("output"), section.locator("details.rollout:visible")
    assert count.text_content() == "72 of 72"

    section.locator("input").fill("ANSWER-3")
    assert count.text_content() == f"{visible.count()} of 72"
    section.locator("select").select_option("training step 40")
    assert visible.count() == 1
    section.locator("input").fill("no such words")
    assert count.text_content() == "0 of 72"
    section.locator("input").fill("")
    section.locator("select").select_option("all steps")


def test_an_answer_opens_by_the_keyboard(page: "Page") -> None:
    page.locator("section input").first.focus()
    page.keyboard.press("Tab")
    if page.evaluate("document.activeElement.className") == "answers":  # a box that scrolls
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    answer = page.locator("details.rollout[open]")
    assert answer.count() == 1
    assert "answer-" in answer.inner_text()


def test_charts_of_other_metrics_are_drawn_when_they_are_shown(page: "Page") -> None:
    page.set_viewport_size(WIDE)
    page.locator("#others > summary").click()
    page.wait_for_timeout(500)
    box = page.locator("#others .main-svg").first.bounding_box()
    assert box is not None
    assert box["width"] > 300
