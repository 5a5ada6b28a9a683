"""Plots in a real kernel: the cell shows them, whatever is done with the Axes, and no figure is left behind."""

import pytest

from tests.ipython.kernels import Session

SETUP = """
from datetime import UTC, datetime
import agentroute
from agentroute import RunStore
from agentroute.plots import plot_savings, plot_tools
from agentroute.records import RunRecord, TurnRecord
store = RunStore("plots.db")
run = RunRecord(run_id="a", started_at=datetime.now(UTC), agent_name="a", request_model="m", n_turns=1, cost_usd=1.0)
store.save(run, turns=[TurnRecord(run_id="a", turn_index=1, started_at=run.started_at, request_model="m", cost_usd=1.0)])
"""


def pictures(session: Session, cell: str) -> int:
    outcome = session.run(cell)
    assert outcome.status == "ok", outcome.text
    return sum("image/png" in output for output in outcome.outputs)


@pytest.mark.parametrize("first", ["", "import matplotlib.pyplot as plt", "%matplotlib inline"])
def test_a_cell_shows_each_plot_once(kernel: Session, first: str) -> None:
    kernel.run(SETUP + first)
    assert pictures(kernel, "plot_savings(store=store)") == 1
    assert pictures(kernel, "plot_savings(store=store);") == 1
    assert pictures(kernel, "ax = plot_savings(store=store)") == 1
    assert pictures(kernel, "ax = plot_savings(store=store)\nax.set_title('mine')\nax") == 1
    assert pictures(kernel, "plot_savings(store=store)\nplot_tools(store=store)") == 2
    assert pictures(kernel, "ax.figure") == 1
    assert kernel.evaluate("__import__('matplotlib.pyplot').pyplot.get_fignums()") == []


def test_a_figure_of_the_users_is_drawn_on_and_shown_once(kernel: Session) -> None:
    kernel.run(SETUP + "import matplotlib.pyplot as plt")
    assert pictures(kernel, "figure, axes = plt.subplots(1, 2)\nplot_savings(store=store, ax=axes[0])\nplot_tools(store=store, ax=axes[1]);") == 1


def test_the_report_shows_its_plots_in_itself_only(kernel: Session) -> None:
    kernel.run(SETUP)
    assert pictures(kernel, "agentroute.report(store=store)") == 0
