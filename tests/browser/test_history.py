"""The live history table as a reader meets it: sorted, filtered, selected from and judged in JupyterLab; read without a kernel."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.lab import Lab, NotebookPage, Theme, expect_soon
from tests.browser.test_card import CONTRAST

MAKE = """
from datetime import UTC, datetime, timedelta
import agentroute, agentroute_ipython
from agentroute import RunStore
from agentroute.records import RunRecord
HOSTILE = "<img src=x onerror='window.hacked = 1'>"
store = RunStore("history-table.db")
agentroute.store.set_default_store(None)
for n in range(60):
    store.save(RunRecord(run_id=f"r{n:04}", started_at=datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=n), agent_name=["a", "b", HOSTILE][n % 3],
               request_model=HOSTILE, status=["ok", "error"][n == 7], error_type=HOSTILE if n == 7 else None, duration_s=1.0, n_turns=1,
               cost_usd=(n * 7 % 60) / 100, prompt_text=f"Prompt {n} {HOSTILE}", output_text=f"Answer {n} {HOSTILE}", tags='{"t": "1"}'))
"""
SHOW = "view = agentroute_ipython.history(store)\nview"
SHOWN = """
element => {
    const after = getComputedStyle(element, "::after");
    return [getComputedStyle(element).fontSize, after.content, after.fontSize];
}
"""
SELECTED = "print(sorted(view.selected), len(view.frame))"
SCORES = "print(agentroute.scores(store)[['run_id', 'name', 'value']].values.tolist())"


def opened(page: NotebookPage) -> Locator:
    """The live table of the second cell."""
    page.run_cell(0)
    page.run_cell(1)
    live = page.cell_output(1).locator(".agr-live")
    expect(live.locator("tbody tr")).to_have_count(50)
    return live


def prompts(live: Locator) -> list[str]:
    return [text.split(" <")[0] for text in live.locator(".agr-open").all_inner_texts()[:3]]


def expect_said(page: NotebookPage, index: int, words: str | re.Pattern[str]) -> None:
    """Run a cell that prints, and look at what it says."""
    page.run_cell(index)
    expect(page.cell_output(index)).to_have_text(words)


def test_the_table_is_sorted_filtered_selected_from_and_judged(lab: Lab) -> None:
    lab.write("table.ipynb", [MAKE, SHOW, SELECTED, SCORES])
    with lab.open("table.ipynb") as page:
        live = opened(page)
        expect(page.cell_output(1).locator(".agr-history")).to_be_hidden()
        assert prompts(live) == ["Prompt 59", "Prompt 58", "Prompt 57"]

        live.get_by_role("button", name="Cost", exact=True).click()
        expect(live.locator("th[aria-sort=descending]")).to_contain_text("Cost")
        expect(live.locator(".agr-open").first).to_contain_text("Prompt 17 ")  # 17 * 7 % 60 is 59

        live.get_by_label("Agent", exact=True).select_option("b")
        expect(live).to_contain_text("1–20 of 20")
        live.get_by_label("Text in prompt or answer").fill("PROMPT 1")
        expect(live).to_contain_text("1–5 of 5")
        boxes = live.locator("tbody input[type=checkbox]")
        boxes.nth(0).check()
        boxes.nth(2).click(modifiers=["Shift"])
        expect(live).to_contain_text("3 selected")
        expect_said(page, 2, re.compile(r"\] 3\s*$"))
        live.get_by_role("button", name="Select all 5").click()
        expect(live).to_contain_text("5 selected")
        expect_said(page, 2, "['r0001', 'r0010', 'r0013', 'r0016', 'r0019'] 5")

        live.get_by_role("button", name="Good answer").first.click()
        expect(live.get_by_role("button", name="Good answer").first).to_have_attribute("aria-pressed", "true")
        expect_said(page, 3, re.compile(r"'thumb', 1\.0\]"))
        live.get_by_role("button", name="Good answer").first.click()
        expect(live.get_by_role("button", name="Good answer").first).to_have_attribute("aria-pressed", "false")
        expect_said(page, 3, "[]")

        live.get_by_label("Since").fill("7")
        live.get_by_role("button", name="Started").click()  # which leaves the field, so it filters and sorts
        expect(live.locator("th[aria-sort]")).to_contain_text("Started")
        live.get_by_role("button", name="Good answer").first.click()
        expect(live.get_by_role("button", name="Good answer").first).to_have_attribute("aria-pressed", "true")
        expect(live.get_by_role("alert")).to_contain_text("since must be a time")
        expect(live.get_by_label("Since")).to_have_value("7")
        live.get_by_label("Since").fill("9999d")
        live.get_by_label("Since").press("Enter")
        expect(live.get_by_role("alert")).to_be_hidden()
        assert page.console_errors == page.foreign_requests == []


def test_hostile_text_stays_text_in_table_and_card(lab: Lab) -> None:
    lab.write("hostile-table.ipynb", [MAKE, SHOW])
    with lab.open("hostile-table.ipynb") as page:
        live = opened(page)
        live.get_by_label("Status", exact=True).select_option("error")
        expect(live.locator("tbody tr")).to_have_count(1)
        live.locator(".agr-open").click()
        expect(live.locator(".agr-card .agr-answer, .agr-card .agr-error").first).to_contain_text("<img src=x")
        expect(live.locator(".agr-open")).to_have_attribute("aria-expanded", "true")
        assert live.locator("img").count() == 0
        assert page.page.evaluate("() => window.hacked") is None
        live.locator(".agr-open").click()
        expect(live.locator(".agr-card")).to_have_count(0)
        assert page.console_errors == page.foreign_requests == []


def test_the_table_is_used_by_keyboard(lab: Lab) -> None:
    lab.write("keys.ipynb", [MAKE, SHOW])
    with lab.open("keys.ipynb") as page:
        live = opened(page)
        live.get_by_role("button", name="Next").focus()
        page.page.keyboard.press("Enter")
        expect(live).to_contain_text("51–60 of 60")
        box = live.locator("tbody input[type=checkbox]").first
        box.focus()
        page.page.keyboard.press("Space")
        expect(live).to_contain_text("1 selected")
        expect(box).to_be_focused()  # also when the answer has drawn the rows anew
        page.page.keyboard.press("Tab")
        expect(live.locator(".agr-open").first).to_be_focused()
        page.page.keyboard.press("Enter")
        expect(live.locator(".agr-card")).to_have_count(1)
        expect(live.locator(".agr-open").first).to_be_focused()
        outline = live.locator(".agr-open").first.evaluate("element => getComputedStyle(element).outlineStyle")
        assert outline == "solid"
        live.get_by_label("Text in prompt or answer").focus()
        page.page.keyboard.type("jjdd")  # commands of the notebook, were it not for the field
        expect(live).to_contain_text("no such run")
        assert page.page.locator(".jp-Notebook .jp-Cell").count() == 2


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_table_can_be_read_in_both_themes(lab: Lab, theme: Theme, tmp_path: Path) -> None:
    lab.write(f"table-{theme}.ipynb", [MAKE, SHOW])
    with lab.open(f"table-{theme}.ipynb", theme=theme) as page:
        live = opened(page)
        for part in (".agr-open", "td .agr-dim", "thead button", "label", "button:enabled", "select", "td.agr-wide"):
            assert live.locator(part).first.evaluate(CONTRAST) >= 4.5, part
        page.screenshot(1, tmp_path / f"table-{theme}.png")


def test_saved_it_is_the_static_table_as_it_was_seen(lab: Lab) -> None:
    lab.write("saved-table.ipynb", [MAKE, SHOW])
    with lab.open("saved-table.ipynb") as page:
        live = opened(page)
        live.get_by_label("Agent", exact=True).select_option("b")
        expect(live).to_contain_text("1–20 of 20")
        page.reopen_untrusted()
        output = page.cell_output(1)
        expect(output).to_contain_text("20 runs, newest first; agent: b")
        expect(output.locator("table tbody tr")).to_have_count(20)
        expect(output).to_contain_text("run this cell to sort, filter and select")
        expect(output.locator(".agr-live")).to_have_count(0)
        assert output.locator("img").count() == 0
        assert page.foreign_requests == []


def test_the_static_table_is_back_when_the_live_one_is_closed(lab: Lab) -> None:
    lab.write("closed-table.ipynb", [MAKE, SHOW, "view.close()"])
    with lab.open("closed-table.ipynb") as page:
        opened(page)
        page.run_cell(2)
        expect(page.cell_output(1).locator(".agr-live")).to_have_count(0)
        expect(page.cell_output(1).locator(".agr-history")).to_be_visible()


def test_opened_again_without_its_kernel_it_is_the_static_table_and_no_error(lab: Lab) -> None:
    lab.write("next-day.ipynb", [MAKE, SHOW])
    with lab.open("next-day.ipynb") as page:
        opened(page)
        page.reopen_trusted()
        assert page.trusted
        output = page.cell_output(1)
        expect(output).to_contain_text("The first 20 of 60 runs")
        lost = output.locator(".jp-OutputArea-output.jupyter-widgets")
        expect(lost).to_contain_text("model not found")  # of no size
        expect_soon(lambda: lost.evaluate(SHOWN), ["0px", '"(a live table: run this cell to sort, filter and select)"', "13px"])
        page.run_cell(0)
        page.run_cell(1)
        expect(output.locator(".agr-live tbody tr")).to_have_count(50)
        expect_soon(lambda: output.locator(".agr-live").evaluate(SHOWN)[0], lambda size: size != "0px")
