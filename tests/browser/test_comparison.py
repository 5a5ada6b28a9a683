"""Runs side by side, as a reader sees them in JupyterLab: light and dark, wide and narrow, trusted and not."""

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.lab import Lab, Theme, expect_soon
from tests.browser.test_card import CONTRAST

SETUP = """
%load_ext agentroute_ipython
%config AgentMagics.replay = "off"
from agentroute import Agent, ToolCall
from agentroute.message import LLMResponse
from agentroute.testing import ModelScripted

def order_status(order_id: str) -> dict:
    "Where an order is."
    return {"status": "shipped", "carrier": "DHL"}

def says(text, cost):
    return LLMResponse(text, [], {"prompt_tokens": 420, "completion_tokens": 60, "cost": cost}, None, "stop")

ANSWERS = [
    "Order 4821 left our warehouse on **Tuesday** with DHL and should reach you tomorrow.",
    "Order 4821 left our warehouse on Wednesday with DHL and will be with you on Friday. I am sorry for the delay.",
    "Order 4821 left our warehouse on **Tuesday** with DHL and should reach you tomorrow.",
    "I could not find it.",
    "It is late.\\n\\n- It left on Tuesday.\\n- It will be there tomorrow.",
    "Order 4821 left our warehouse on Tuesday with GLS and should reach you tomorrow.",
]
look = ToolCall("1", "order_status", {"order_id": "4821"})
for number, answer in enumerate(ANSWERS, 1):
    model = ModelScripted([look, says(answer, 0.001 * number)] * 4, model_id=f"vendor/model-{number}")
    globals()[f"agent{number}"] = Agent(f"agent{number}", model=model, tools=[order_status])
"""
PROMPT = "\nWhere is order 4821? It was promised for Friday."


def cell(number: int) -> str:
    return f"%%agent {','.join(f'agent{n}' for n in range(1, number + 1))}{PROMPT}"


def tops(card: Locator) -> list[int]:
    """Where each column begins, from above."""
    return [round(top) for top in card.locator(".agr-column").evaluate_all("all => all.map(one => one.getBoundingClientRect().top)")]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_answers_stand_side_by_side_and_differences_open(lab: Lab, theme: Theme) -> None:
    lab.write(f"comparison-{theme}.ipynb", [SETUP, cell(3)])
    with lab.open(f"comparison-{theme}.ipynb", theme) as page:
        page.run_all()
        card = page.cell_output(1).locator(".agr")
        expect(card.locator(".agr-state")).to_have_text("done")
        expect_soon(lambda: len(set(tops(card))), 1)
        expect(card.locator(".agr-column").nth(2)).to_contain_text("Same answer as agent1")
        card.locator("summary", has_text="what differs from").click()
        expect(card.locator("ins").first).to_be_visible()
        for part in (".agr-label", ".agr-answer p", "ins", "del", "summary", ".agr-best", "tbody th", "thead th"):
            assert card.locator(part).first.evaluate(CONTRAST) >= 4.5, part
        words = card.locator(".agr-word").first
        assert words.inner_text() == "[removed:" and words.evaluate("one => one.getBoundingClientRect().width") <= 1
        assert page.foreign_requests == [] and page.console_errors == []
        page.page.set_viewport_size({"width": 520, "height": 1500})
        expect_soon(lambda: len(set(tops(card))), 3)
        widths = "card => [...card.querySelectorAll('.agr-column, .agr-steps')].map(one => one.offsetWidth - card.clientWidth)"
        expect_soon(lambda: card.evaluate(widths), lambda found: max(found) <= 0)
        expect_soon(lambda: card.evaluate("card => card.clientWidth"), lambda width: width < 500)


def test_reopened_untrusted_it_reads_without_its_style(lab: Lab) -> None:
    lab.write("comparison-again.ipynb", [SETUP, cell(2)])
    with lab.open("comparison-again.ipynb") as page:
        page.run_all()
        page.reopen_untrusted()
        assert not page.trusted
        output = page.cell_output(1)
        expect(output).to_contain_text("cheapest")
        output.locator("summary", has_text="what differs from").click()
        expect(output.locator("del").first).to_contain_text("[removed: ")
        assert output.locator("del").first.evaluate("one => getComputedStyle(one).textDecorationLine") == "line-through"
        expect(output.locator("ins").first).to_contain_text("[added: ")
        assert page.foreign_requests == []
