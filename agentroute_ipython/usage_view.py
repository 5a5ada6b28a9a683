"""`agentroute_ipython.usage()`: what the runs of this notebook's process have used, against its budget, while they go on."""

from __future__ import annotations

import html
import secrets
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from agentroute.budgets import process_budget
from agentroute.figures import cost_text, count_text, plural
from agentroute.replays import replay_now
from agentroute.store import default_store

from .formats import one_line
from .panels import is_captured
from .recorded import Column, Sheet
from .tables import Table
from .usage_totals import UsageSums, UsageTotals, process_usage

__all__ = ["UsageView", "usage"]

PERIOD_S = 0.5
"""At least so long between two redraws."""
_HEADS = ("Agent", "Model", "Runs", "Model calls", "Replayed", "Tokens in", "Tokens out", "Cost", "Saved")
_COLUMNS = [Column(head, left=place < 2, wide=place == 1) for place, head in enumerate(_HEADS)]


def usage() -> UsageView:
    """Totals of the recorded runs of this process, by agent and model, and what is left of its budget.

    Put it last in a cell, or `display` it. In a notebook it is redrawn while runs go on, twice a second at most. It counts from
    `%load_ext agentroute_ipython` on, or from the first `usage()` where that was not done.
    """
    process_usage()  # counts again, where `%unload_ext` has ended that
    return _view_of_process()


@cache
def _view_of_process() -> UsageView:
    """One: a cell that is run again shows it in one more place, and it is still drawn once."""
    return UsageView(process_usage())


class UsageView:
    """What `usage()` shows. `close()` ends its being redrawn; shown again, it is one more place for the same.

    `clock` is a monotonic clock in seconds; `later` calls a function in so many seconds, in a thread of its own.
    """

    def __init__(
        self,
        totals: UsageTotals,
        *,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._totals, self._clock, self._later = totals, clock, later or _in_a_thread
        self._display_id = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._drawing = threading.Lock()
        """One redraw after the other, so that the last one is of the last state."""
        self._publisher: Any = None
        """Of a cell that shows it, and not of one that is captured: another cell may run when it is drawn again."""
        self._waiting = False
        self._drawn_at = 0.0
        self._drawn: dict[str, str] = {}

    def __repr__(self) -> str:
        return repr(self.sheet())

    def sheet(self) -> Sheet:
        """How it stands now."""
        groups = self._totals.by_agent_and_model()
        total = UsageSums.together(groups.values())
        lines = [[one_line(agent, 40), one_line(model, 60), *_figures(sums)] for (agent, model), sums in groups.items()]
        foot = ["all", "", *_figures(total)]
        sums = [foot] if len(lines) > 1 else []
        budget, meter = _budget()
        return Sheet(
            f"{_title(total)}. {budget}",
            _COLUMNS,
            [[html.escape(cell, quote=False) for cell in line] for line in lines],
            Table([*lines, *sums], [head.lower() for head in _HEADS], range(2, len(_HEADS))),
            [f"<b>{html.escape(cell, quote=False)}</b>" for cell in foot] if sums else (),
            _not_counted(),
            above=meter,
        )

    def close(self) -> None:
        """It stays as it is from now on."""
        if self._changed in self._totals.changed:
            self._totals.changed.remove(self._changed)

    # ---- drawing ------------------------------------------------------------------------------------------------------

    def _ipython_display_(self) -> None:
        shell = _shell()
        if not hasattr(shell, "kernel"):
            print(repr(self))
            return
        with self._drawing:
            drawn = self._bundle()
            shell.display_pub.publish(drawn, {}, transient={"display_id": self._display_id})
            if is_captured(shell):
                return  # it stays as it is there
            self._drawn, self._drawn_at, self._publisher = drawn, self._clock(), shell.display_pub
        if self._changed not in self._totals.changed:
            self._totals.changed.append(self._changed)

    def _changed(self) -> None:
        """Something was recorded: draws it, soon. In the thread of a run, so it only takes note."""
        with self._lock:
            if self._waiting:
                return
            self._waiting = True
        self._later(max(0.0, self._drawn_at + PERIOD_S - self._clock()), self._draw_again)

    def _draw_again(self) -> None:
        with self._drawing:
            with self._lock:
                self._waiting = False
                self._drawn_at = self._clock()
            drawn = self._bundle()
            if drawn != self._drawn and self._publisher is not None:
                self._drawn = drawn
                self._publisher.publish(drawn, {}, transient={"display_id": self._display_id}, update=True)

    def _bundle(self) -> dict[str, str]:
        sheet = self.sheet()
        return {"text/html": sheet._repr_html_(), "text/plain": repr(sheet)}


def _figures(sums: UsageSums) -> list[str]:
    at_least = "at least " if sums.unknown_calls else ""
    cost = ("unknown" if sums.unknown_calls else "") if sums.cost_usd is None else f"{at_least}{cost_text(sums.cost_usd)}"
    return [
        f"{count_text(sums.runs)} ({count_text(sums.going_on)} going on)" if sums.going_on else count_text(sums.runs),
        count_text(sums.calls),
        count_text(sums.replayed) if sums.replayed else "",
        count_text(sums.input_tokens),
        count_text(sums.output_tokens),
        cost,
        cost_text(sums.saved_usd) if sums.saved_usd else "",
    ]


def _title(total: UsageSums) -> str:
    if not total.runs:
        return "No run in this notebook yet"
    parts = [plural(total.runs, "run"), plural(total.calls, "model call")]
    if total.cost_usd is not None or not total.unknown_calls:
        parts.append(f"{cost_text(total.cost_usd or 0.0)} spent")
    if total.unknown_calls:
        parts.append(f"{plural(total.unknown_calls, 'call')} of unknown cost")
    if total.saved_usd:
        parts.append(f"{cost_text(total.saved_usd)} saved by replay")
    return f"This notebook: {', '.join(parts)}"


def _budget() -> tuple[str, str]:
    """How the budget of the process stands, in words and as a bar."""
    budget = process_budget()
    if budget is None:
        return "No budget: %agent budget 5.00 sets one", ""
    gone = budget.spent + budget.uncertain + budget.reserved
    more = [f"{cost_text(value)} {word}" for value, word in ((budget.uncertain, "uncertain"), (budget.reserved, "reserved")) if value]
    words = f"Budget: {cost_text(budget.left)} left of {cost_text(budget.limit)} ({', '.join([f'{cost_text(budget.spent)} spent', *more])})"
    full = min(gone / budget.limit, 1.0) if budget.limit else 1.0
    meter = f'<meter style="width:100%" min="0" max="1" high="0.8" optimum="0" value="{full:.3f}">{full:.0%} of the budget is gone</meter>'
    return words, f'<p style="padding-top:8px">{meter}</p>\n'


def _not_counted() -> str:
    """What these figures leave out."""
    if default_store() is None:
        return "Nothing records the runs of this notebook, so only runs of agents with a store of their own are counted here"
    parts = ["Counted are recorded runs; those with --no-record, or of an agent with record=False, are not"]
    if replay_now() == "off":
        parts.append("replay is off, so nothing is saved")
    return "; ".join(parts)


def _in_a_thread(wait_s: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(wait_s, call)
    timer.daemon = True
    timer.start()


def _shell() -> Any:
    """The running IPython shell, or None."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
