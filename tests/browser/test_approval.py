"""Approvals and the Stop button as somebody sees and presses them in JupyterLab."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.lab import Lab, NotebookPage, expect_soon, read_notebook

SETUP = """
from agentroute import Agent, ToolCall, tool
from agentroute.testing import ModelScripted

@tool(needs_approval=True)
def refund(order_id: str, amount: float, note: str = "") -> str:
    refunded.append(amount)
    return "refunded"

refunded = []
LONG = "A long note. " * 2000 + "THE LAST WORD"
def calls(*amounts, note="<img src=x onerror=alert(1)> \\u202e"):
    return [ToolCall(str(n), "refund", {"order_id": "4821", "amount": a, "note": note}) for n, a in enumerate(amounts)]
careful = Agent("careful", model=ModelScripted([calls(5), "Done."] * 9), tools=[refund])
both = Agent("both", model=ModelScripted([calls(1, 2, note=LONG), calls(3), "Done."] * 9), tools=[refund])
silent = Agent("silent", model=ModelScripted(["never"] * 9, delay_s=60))
%load_ext agentroute_ipython
"""
CELLS = [
    SETUP,
    "%%agent careful\nRefund order 4821.",
    "%%agent both\nRefund them.",
    "%agent silent --background Go.",
    "%agent careful --background Refund order 4821.",
    "print('refunded', refunded)",
]


def button(output: Locator, label: str) -> Locator:
    """Those whose name begins so; the call follows."""
    return output.get_by_role("button", name=re.compile(f"^{label}"))


@pytest.fixture
def page(lab: Lab) -> object:
    lab.write("approval.ipynb", CELLS)
    with lab.open("approval.ipynb") as page:
        page.run_cell(0)
        yield page
        assert page.foreign_requests == []


def test_approve_is_pressed_while_the_cell_runs(page: NotebookPage, tmp_path: Path) -> None:
    page.run_cell(1, wait=False)
    output = page.cell_output(1)
    expect(output).to_contain_text("careful asks: refund needs your approval")
    expect(output.get_by_role("button", name='Approve refund(order_id="4821", amount=5.0')).to_be_visible()
    expect(output).to_contain_text('"amount": 5')
    expect(output).to_contain_text("<img src=x onerror=alert(1)>")
    expect(output).to_contain_text(r"\u202e")
    expect(button(output, "Approve")).to_be_visible()
    page.screenshot(1, tmp_path / "approval.png")
    button(output, "Approve").click()
    page.wait_idle()
    expect(output).to_contain_text("approved: refund(")
    expect(button(output, "Approve")).to_have_count(0)
    expect(output).not_to_contain_text("needs your approval")
    page.screenshot(1, tmp_path / "approved.png")
    page.run_cell(5)
    expect(page.cell_output(5)).to_have_text("refunded [5.0]")
    saved = read_notebook(page.save())
    assert all("widget" not in mime for one in saved.cells[1].outputs for mime in one.data)
    heights = "outputs => outputs.slice(2).map(one => one.getBoundingClientRect().height)"
    expect_soon(lambda: output.locator(".jp-OutputArea-child").evaluate_all(heights), lambda found: found in ([], [0]))


def test_deny_with_a_reason(page: NotebookPage) -> None:
    page.run_cell(1, wait=False)
    output = page.cell_output(1)
    output.get_by_placeholder("reason, for a denial").fill("too <b>much</b>")
    button(output, "Deny").click()
    page.wait_idle()
    expect(output).to_contain_text("because too <b>much</b>")
    page.run_cell(5)
    expect(page.cell_output(5)).to_have_text("refunded []")


def test_always_for_this_run_answers_all_of_it_and_long_arguments_are_whole(page: NotebookPage) -> None:
    page.run_cell(2, wait=False)
    output = page.cell_output(2)
    expect(button(output, "Approve")).to_have_count(2)
    expect(output.locator(".agr-ask pre", has_text="THE LAST WORD")).to_have_count(2)
    button(output, "Always for this run").first.click()
    page.wait_idle()
    expect(output).to_contain_text("approved for the whole run: refund(")
    expect(output).to_contain_text("approved with the others: refund(")
    page.run_cell(5)
    expect(page.cell_output(5)).to_have_text(re.compile(r"refunded \[(1.0, 2.0|2.0, 1.0), 3.0\]"))


def test_stop_while_a_question_stands(page: NotebookPage) -> None:
    page.run_cell(1, wait=False)
    output = page.cell_output(1)
    expect(button(output, "Approve")).to_be_visible()
    page.interrupt()
    page.wait_idle()
    expect(output).to_contain_text("Interrupted: the run was stopped")
    expect(output).to_contain_text("not answered: refund(")
    expect(button(output, "Approve")).to_have_count(0)


def test_background_runs_are_stopped_and_approved_by_their_buttons(page: NotebookPage, tmp_path: Path) -> None:
    page.run_cell(3)
    page.run_cell(4)
    silent, careful = page.cell_output(3), page.cell_output(4)
    expect(button(careful, "Approve")).to_be_visible()
    page.screenshot(4, tmp_path / "background.png")
    button(careful, "Approve").click()
    expect(careful).to_contain_text("approved: refund(")
    expect(careful).to_contain_text("Done.")
    expect(button(careful, "Stop careful")).to_have_count(0)
    button(silent, "Stop silent").click()
    expect(silent).to_contain_text("interrupted")
    expect(button(silent, "Stop silent")).to_have_count(0)
    page.run_cell(5)
    expect(page.cell_output(5)).to_have_text("refunded [5.0]")
