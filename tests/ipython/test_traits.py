"""`%config AgentMagics.…`: what each setting does to the runs of cells."""

from typing import Any

import pytest
from traitlets import TraitError

from agentroute import Agent, tool
from agentroute.budgets import process_budget
from agentroute.message import ToolCall
from agentroute.records import RunRecord
from agentroute.store import default_store
from agentroute.testing import ModelScripted
from tests.ipython.shells import ShellNotebook

pytestmark = pytest.mark.usefixtures("no_budget_left_over")


@tool(needs_approval=True)
def delete(order_id: str) -> str:
    return f"deleted {order_id}"


@pytest.fixture
def deleting(shell_notebook: ShellNotebook) -> ShellNotebook:
    shell_notebook["delete"] = delete
    shell_notebook["model"] = ModelScripted([ToolCall("c", "delete", {"order_id": "4821"}), "over"] * 3)
    return shell_notebook


def told(notebook: ShellNotebook) -> Any:
    return notebook["_agent"].record.tool_calls[0].result_text


def test_approval_of_the_notebook_holds_for_every_run(deleting: ShellNotebook) -> None:
    deleting.run("%config AgentMagics.approval = 'allow'")
    deleting.run("%%agent bot -m model -t delete\ngo")
    assert told(deleting) == "deleted 4821"
    deleting.run("%config AgentMagics.approval = 'deny'")
    deleting.run("%agent bot go")
    assert "deleted" not in told(deleting)


def test_approval_of_one_run_is_an_option(deleting: ShellNotebook) -> None:
    deleting.run("%%agent bot -m model -t delete --approval allow\ngo")
    assert told(deleting) == "deleted 4821"
    deleting.run("%agent bot --approval deny go")
    assert "deleted" not in told(deleting)


def test_an_agent_with_an_approver_of_its_own_keeps_it(deleting: ShellNotebook) -> None:
    deleting["own"] = Agent("own", model=deleting["model"], tools=[delete], approve=lambda ctx, call: True)
    deleting.run("%agent own --approval deny go")
    assert told(deleting) == "deleted 4821"


def test_approval_that_is_none_of_the_modes_is_a_mistake(shell_notebook: ShellNotebook) -> None:
    message = shell_notebook.mistake("%%agent bot -m scripted --approval alow\ngo")
    assert message == "--approval needs auto, button, input, deny or allow; got 'alow'; did you mean allow?"


def test_max_cost_counts_for_agents_that_have_none(shell_notebook: ShellNotebook) -> None:
    shell_notebook.model.cost_usd = 0.4
    shell_notebook.run("%config AgentMagics.max_cost = 0.1")
    shell_notebook["own"] = Agent("own", model=shell_notebook.model, max_cost=5)
    shell_notebook.run("%agent own hi")
    failed = shell_notebook.cell("%agent bot -m scripted hi")
    assert type(failed.error_in_exec).__name__ == "ErrorBudget" and "max_cost" in str(failed.error_in_exec)


def test_budget_of_the_notebook_is_that_of_the_process(shell_notebook: ShellNotebook) -> None:
    shell_notebook.run("%config AgentMagics.budget = 2.5")
    budget = process_budget()
    assert budget is not None and budget.limit == 2.5
    shell_notebook.run("%agent budget 4")
    assert shell_notebook.magics.budget == 4.0
    shell_notebook.run("%agent budget off")
    assert shell_notebook.magics.budget is None and process_budget() is None


def test_budget_that_is_no_amount_changes_nothing(shell_notebook: ShellNotebook) -> None:
    shell_notebook.run("%config AgentMagics.budget = 2.5")
    with pytest.raises(TraitError, match="budget must be a number of USD of at least 0, got -1"):
        shell_notebook.magics.budget = -1
    assert shell_notebook.magics.budget == 2.5


def test_nothing_is_recorded_while_record_is_off(shell_notebook: ShellNotebook) -> None:
    shell_notebook.run("%agent bot -m scripted first")
    shell_notebook.run("%config AgentMagics.record = 'off'")
    assert default_store() is None
    shell_notebook.run("%agent bot second")
    shell_notebook.run("%config AgentMagics.record = 'all'")
    shell_notebook.run("%agent bot third")
    assert [row[0] for row in shell_notebook.magics.store.select(RunRecord, columns=["prompt_text"])] == ["first", "third"]


@pytest.mark.parametrize(("render", "shows"), [("auto", True), ("text", True), ("html", True), ("off", False)])
def test_render_says_how_a_run_is_drawn(shell_notebook: ShellNotebook, render: str, shows: bool) -> None:
    shell_notebook.run(f"%config AgentMagics.render = {render!r}")
    assert ("A1" in shell_notebook.run("%agent bot -m scripted hi")) == shows
    assert shell_notebook["_agent"].output == "A1"
