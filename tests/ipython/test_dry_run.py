"""`--dry-run`: what would be sent, and about what it would cost; nothing is sent."""

import pytest

from agentroute import Agent, HistorySlidingWindow, Memory, Price
from agentroute.budgets import process_budget
from agentroute.records import RunRecord
from tests.ipython.shells import ShellNotebook

pytestmark = pytest.mark.usefixtures("no_budget_left_over")


def dry(notebook: ShellNotebook, source: str) -> str:
    before = len(notebook.model.requests)
    shown = notebook.run(source)
    assert len(notebook.model.requests) == before
    assert shown.rstrip().endswith("nothing was sent")
    return " ".join(shown.split())


def test_the_first_request_is_shown_and_not_sent(shell_notebook: ShellNotebook) -> None:
    shown = dry(shell_notebook, "%%agent bot -m scripted --tools order_status --max-turns 4 --dry-run\nBe brief.\n---\nWhere is it?")
    for part in ("agent bot", "system Be brief.", "user Where is it?", "tools order_status", "max_turns 4", "tokens in about "):
        assert part in shown
    assert list(shell_notebook.magics.store.select(RunRecord)) == []
    assert "_agent" not in shell_notebook.shell.user_ns


def test_cost_is_reckoned_from_the_price_that_is_known(shell_notebook: ShellNotebook) -> None:
    shell_notebook["own"] = Agent("own", model=shell_notebook.model, price=Price(1000, 2000), max_tokens=500)
    assert "about $0.0020 for the prompt and $1.00 for up to 500 tokens of answer" in dry(shell_notebook, "%agent own --dry-run Hello")
    assert "unknown: no price of this model is known here" in dry(shell_notebook, "%agent bot -m vendor/unheard-of --dry-run Hello")
    assert "cost free" in dry(shell_notebook, "%agent there -m local/smollm2 --dry-run Hello")


def test_a_memory_is_read_and_not_written(shell_notebook: ShellNotebook) -> None:
    shell_notebook["own"] = Agent("own", model=shell_notebook.model, memory=Memory(), history=HistorySlidingWindow(window_size=4))
    shell_notebook.run("%agent own first question")
    shown = dry(shell_notebook, "%agent own --dry-run second question")
    assert "user first question" in shown and "assistant A1" in shown and "user second question" in shown
    shell_notebook.run("%agent own third question")
    assert [text for role, text in shell_notebook.asked if role == "user"] == ["first question", "third question"]


def test_no_budget_is_touched(shell_notebook: ShellNotebook) -> None:
    shell_notebook.run("%agent budget 0.5")
    dry(shell_notebook, "%agent bot -m vendor/unheard-of --max-cost 0.1 --dry-run Hello")
    budget = process_budget()
    assert budget is not None and (budget.left, budget.uncertain) == (0.5, 0)


def test_every_case_of_a_comparison_is_shown(shell_notebook: ShellNotebook) -> None:
    shown = dry(shell_notebook, "%%agent bot --models scripted,vendor/x -n 3 --dry-run\nHello")
    assert shown.count("3, each as follows") == 2 and "model vendor/x" in shown
