"""The report as a reader sees it: in JupyterLab, light and dark, wide and narrow, trusted and not."""

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from tests.browser.lab import Lab, NotebookPage, Theme, expect_soon
from tests.browser.report_pictures import CELL, HISTORY, run_report
from tests.browser.test_card import CONTRAST

SMALL = """
from datetime import UTC, datetime
import agentroute
from agentroute import RunStore
from agentroute.records import RunRecord

store = RunStore("small.db")
for number, (agent, cost) in enumerate([("b", 2.0), ("a", 10.0), ("c", None), ("<i>d</i>", 0.5), ("$x$ and $y$", 0.25)]):
    store.save(RunRecord(run_id=f"r{number}", started_at=datetime.now(UTC), agent_name=agent, request_model="m", cost_usd=cost, n_turns=1, unknown_cost_calls=int(cost is None)))
"""


def show(lab: Lab, page: NotebookPage) -> Locator:
    page.run_all()
    report = page.cell_output(1).locator(".agr-report")
    expect(report.locator("thead button")).to_have_count(13)
    return report


def agents(report: Locator) -> list[str]:
    return report.locator("tbody th").all_inner_texts()


def agents_of_one_letter(report: Locator) -> list[str]:
    return [agent for agent in agents(report) if len(agent) == 1]


def test_table_sorts_by_click(lab: Lab) -> None:
    lab.write("sort.ipynb", [SMALL, "agentroute.report(store=store)"])
    with lab.open("sort.ipynb") as page:
        report = show(lab, page)
        assert agents(report) == ["a", "b", "<i>d</i>", "$x$ and $y$", "c"]
        cost = report.get_by_role("columnheader", name="Cost")
        assert cost.get_attribute("aria-sort") == "descending"
        cost.locator("button").click()
        expect_soon(lambda: agents(report), ["$x$ and $y$", "<i>d</i>", "b", "a", "c"])  # 10 is more than 2, and what is unknown stays last
        assert cost.get_attribute("aria-sort") == "ascending"
        name = report.get_by_role("columnheader", name="Agent")
        name.locator("button").click()
        expect_soon(lambda: agents_of_one_letter(report), ["a", "b", "c"])
        assert (name.get_attribute("aria-sort"), cost.get_attribute("aria-sort")) == ("ascending", None)
        name.locator("button").click()
        expect_soon(lambda: agents_of_one_letter(report), ["c", "b", "a"])
        assert page.console_errors == []
        assert page.foreign_requests == []


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_table_sorts_by_key(lab: Lab, key: str) -> None:
    lab.write(f"key-{key}.ipynb", [SMALL, "agentroute.report(store=store)"])
    with lab.open(f"key-{key}.ipynb") as page:
        report = show(lab, page)
        report.get_by_role("columnheader", name="Agent").locator("button").focus()
        page.page.keyboard.press("Tab")
        page.page.keyboard.press("Shift+Tab")
        page.page.keyboard.press(key)
        expect_soon(lambda: agents_of_one_letter(report), ["a", "b", "c"])
        outline = report.locator("thead button").first.evaluate("button => getComputedStyle(button).outlineStyle")
        assert outline == "solid"
        assert page.page.evaluate("() => jupyterapp.shell.currentWidget.content.mode") == "command"
        assert page.cell_output(1).locator(".agr-report").count() == 1  # Enter has not run or opened the cell


def test_two_reports_sort_apart(lab: Lab) -> None:
    lab.write("two.ipynb", [SMALL, "agentroute.report(store=store)", "agentroute.report(store=store)"])
    with lab.open("two.ipynb") as page:
        first = show(lab, page)
        second = page.cell_output(2).locator(".agr-report")
        expect(second.locator("thead button")).to_have_count(13)
        second.get_by_role("columnheader", name="Cost").locator("button").click()
        expect_soon(lambda: agents(second)[0], "$x$ and $y$")
        assert agents(first)[0] == "a"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_report_is_legible_in_both_themes(lab: Lab, theme: Theme) -> None:
    (lab.notebooks / "month_of_runs.py").write_text(HISTORY)
    lab.write(f"report-legible-{theme}.ipynb", ["from month_of_runs import *", CELL])
    with lab.open(f"report-legible-{theme}.ipynb", theme) as page:
        report = show(lab, page)
        for part in ("dt", "dd", "dd small", "caption", "thead button", "thead th[aria-sort] button", "tbody th", "tbody td"):
            assert report.locator(part).first.evaluate(CONTRAST) >= 4.5, part
        images = report.get_by_role("img")
        expect(images).to_have_count(6)
        expect_soon(lambda: images.evaluate_all("images => images.every(image => image.complete && image.naturalWidth === 1080)"), True)
        assert images.first.evaluate("image => getComputedStyle(image).filter") != "none"  # lighter on dark, darker on light
        assert page.foreign_requests == []
        assert page.console_errors == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pictures_of_the_report_are_taken_whole(lab: Lab, theme: Theme, tmp_path: Path) -> None:
    run_report(lab, f"picture-{theme}.ipynb", theme, tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size < 150_000
    with Image.open(tmp_path / "report.png") as picture:
        pixels = picture.convert("L").histogram()
        assert picture.height > 1200
    assert (sum(pixels[:128]) > sum(pixels[128:])) == (theme == "dark")


def test_report_fits_a_narrow_window(lab: Lab) -> None:
    (lab.notebooks / "month_of_runs.py").write_text(HISTORY)
    lab.write("report-narrow.ipynb", ["from month_of_runs import *", CELL])
    with lab.open("report-narrow.ipynb") as page:
        page.page.set_viewport_size({"width": 560, "height": 1500})
        report = show(lab, page)
        right = "report => report.getBoundingClientRect().right"
        expect_soon(lambda: report.evaluate(right), lambda edge: edge <= 560)
        edges = "report => Math.max(...[...report.querySelectorAll('dl div, img, .agr-scroll')].map(part => part.getBoundingClientRect().right))"
        expect_soon(lambda: report.evaluate(edges) <= report.evaluate(right), True)
        lefts = "images => new Set(images.map(image => Math.round(image.getBoundingClientRect().left))).size"
        expect_soon(lambda: report.locator("img").evaluate_all(lefts), 1)  # one below the other
        page.page.set_viewport_size({"width": 1400, "height": 1500})
        side_by_side = "report => new Set([...report.querySelectorAll('img')].map(image => Math.round(image.getBoundingClientRect().left))).size"
        expect_soon(lambda: report.evaluate(side_by_side), 2)


def test_report_reads_well_in_an_untrusted_notebook(lab: Lab) -> None:
    lab.write("report-strange.ipynb", [SMALL, "agentroute.report(store=store)"])
    with lab.open("report-strange.ipynb") as page:
        show(lab, page)
        page.reopen_untrusted()
        assert not page.trusted
        shown = page.cell_output(1)
        expect(shown.locator("caption")).to_contain_text("By agent and model, dearest first.")
        assert shown.locator("style, script, button").count() == 0
        assert shown.locator("tbody th").all_inner_texts() == ["a", "b", "<i>d</i>", "$x$ and $y$", "c"]
        expect(shown.locator("img")).to_have_count(6)
        assert shown.locator("img").first.get_attribute("alt").startswith("Cumulative cost by model")  # type: ignore[union-attr]
        assert shown.locator("tbody td").first.evaluate("cell => getComputedStyle(cell).textAlign") == "left"
        assert "$12.75" in shown.inner_text()
        outside = "parts => parts.filter(part => part.getBoundingClientRect().right > innerWidth).map(part => part.tagName)"
        expect_soon(lambda: shown.locator("img, dl, p").evaluate_all(outside), [])


def test_an_axes_shows_itself_once(lab: Lab) -> None:
    lab.write("axes.ipynb", [SMALL + "from agentroute.plots import plot_cumulative_cost", "plot_cumulative_cost(store=store)"])
    with lab.open("axes.ipynb") as page:
        page.run_all()
        expect(page.cell_output(1).locator("img")).to_have_count(1)
        size = "image => [image.offsetWidth, image.offsetHeight]"
        expect_soon(lambda: page.cell_output(1).locator("img").evaluate(size), lambda found: 500 < found[0] < 600 and 300 < found[1] < 360)
