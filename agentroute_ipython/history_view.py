"""`agentroute_ipython.history()`: the run history as a table one can sort, filter and select from.

It is two outputs: the first rows as static HTML, which stay readable in a saved notebook, and below them the live table, which
hides the static one where it is drawn itself.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import threading
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from agentroute import RunStore
from agentroute.selection import Filters, with_hints
from agentroute.store import default_store

from .formats import one_line
from .history_table import MARK, NOTE, HistoryTable
from .panels import close_widget, is_captured, show_in_cell, stand_in
from .style import SHEET_STYLE

if TYPE_CHECKING:
    import pandas as pd

    from agentroute.frames import StoreLike

__all__ = ["HistoryView", "history"]

INSTALL = 'pip install "agentroute[notebook]" makes this a table to sort, filter and select from'
PAGES = "in a Jupyter notebook this is a table to sort, filter and select from"
UNSEEN = "(a live table: run this cell to sort, filter and select)"
"""Stands in a saved notebook for the live table."""


@with_hints
def history(store: StoreLike = None, **filters: Unpack[Filters]) -> HistoryView:
    """The recorded runs, newest first, as a table to sort, filter, select from and judge; `filters` as of `agentroute.runs`.

    Put it last in a cell, or `display` it. Kept in a variable, `view.selected` are the ids of the runs whose boxes are ticked, and
    `view.frame` is their DataFrame. A click on a prompt opens the run's card; thumbs write the score `thumb`, 1 or 0.

    Args:
        store: a RunStore or the path of its file; None is the store set for this process, else the default file.

    Raises:
        ErrorConfig: a filter is none.
        ErrorStore: the file is not a run history, or cannot be read.
    """
    if store is None:
        store = default_store()
    known = isinstance(store, RunStore)
    opened = store if isinstance(store, RunStore) else RunStore(store)
    return HistoryView(HistoryTable(opened, filters), opened.close if not known else None)


class HistoryView:
    """The table that `history()` makes. Shown again, it is the same table in another place."""

    def __init__(self, table: HistoryTable, at_end: Callable[[], None] | None = None) -> None:
        self._table, self._at_end = table, at_end
        self._publisher: Any = None
        """Of the cell that shows it, and not of one that is captured: another cell may run when it is drawn again."""
        self._display_id = secrets.token_hex(8)
        self._drawn: dict[str, str] = {}
        self._widget: Any = None
        self._answers = 0
        self._handling = threading.RLock()
        """One message after the other: some front ends send them to threads of their own."""

    def __repr__(self) -> str:
        return repr(self._table.sheet(PAGES))

    @property
    def selected(self) -> list[str]:
        """The ids of the selected runs, in the order they were selected. Set it to select runs from Python.

        Raises:
            ErrorConfig: on setting, where one is no run's id.
        """
        return self._table.selected

    @selected.setter
    def selected(self, run_ids: Iterable[str]) -> None:
        self._table.selected = run_ids
        self._send()

    @property
    def frame(self) -> pd.DataFrame:
        """The selected runs as `agentroute.runs` has them, oldest first; all that match the filters while none is selected.

        Raises:
            ErrorMissingPackage: pandas is not installed.
        """
        from agentroute.frames import runs

        if selected := self._table.selected:
            return runs(self._table.store, run_id=selected)
        return runs(self._table.store, **self._table.filters)

    def refresh(self) -> None:
        """Takes in what was recorded since."""
        self._handle({"do": "refresh"})

    def close(self) -> None:
        """Takes the live table away; the static one stays. So does a cell that is run again with what it has shown before."""
        with self._handling:
            if self._widget is not None:
                close_widget(self._widget)
                self._widget = None
            if self._at_end is not None:
                self._at_end()

    # ---- outputs ------------------------------------------------------------------------------------------------------

    def _ipython_display_(self) -> None:
        shell = _shell()
        if not hasattr(shell, "kernel"):
            print(repr(self))
            return
        widget = self._live()
        self._drawn = self._static(NOTE if widget is not None else INSTALL)
        shell.display_pub.publish(self._drawn, {}, transient={"display_id": self._display_id})
        if widget is not None:
            shell.display_pub.publish(*_bundle(widget))
        if not is_captured(shell):
            self._publisher = shell.display_pub
        show_in_cell(self, shell)

    def _static(self, note: str) -> dict[str, str]:
        sheet = self._table.sheet(note)
        return {"text/html": f"{sheet._repr_html_()}{stand_in(MARK, UNSEEN)}", "text/plain": repr(sheet)}

    def _draw_again(self) -> None:
        """The static output as the table is now, so that what is saved is what was seen."""
        if self._publisher is not None and (drawn := self._static(NOTE)) != self._drawn:
            self._drawn = drawn
            self._publisher.publish(drawn, {}, transient={"display_id": self._display_id}, update=True)

    def _live(self) -> Any:
        """The widget; None where it cannot be made."""
        if self._widget is None:
            with contextlib.suppress(ImportError):
                self._widget = _widget_class()(sheet_style=SHEET_STYLE, state=self._state())
                self._widget.on_msg(lambda _, message, buffers: self._handle(message))
        return self._widget

    # ---- messages -----------------------------------------------------------------------------------------------------

    def _handle(self, message: Any) -> None:
        message = message if isinstance(message, dict) else {}
        with self._handling:
            before = self._table.problem
            self._table.do(message)
            opened = message.get("do") == "open"
            if not opened or self._table.problem != before:
                self._send()
            if opened and self._table.opened is not None and self._widget is not None:
                self._widget.send({"id": str(message["id"]), "card": self._table.opened})
            if message.get("do") in ("sort", "filter", "refresh"):
                self._draw_again()

    def _send(self) -> None:
        if self._widget is None:
            return
        try:
            state = self._state()
        except Exception as error:  # the file cannot be read any more, or is locked: the rows stay, and it is told
            state = {**self._widget.state, "problem": one_line(f"{type(error).__name__}: {error}", 300), "answer": self._answers}
        self._widget.state = state

    def _state(self) -> dict[str, Any]:
        self._answers += 1  # so that each is another one, and is sent
        return {**self._table.state(), "answer": self._answers}


@cache
def _widget_class() -> Any:
    """
    Raises:
        ImportError: anywidget is not installed.
    """
    import anywidget
    import traitlets

    class HistoryWidget(anywidget.AnyWidget):
        _esm = Path(__file__).with_name("history_view.js")
        state = traitlets.Dict().tag(sync=True)
        sheet_style = traitlets.Unicode().tag(sync=True)

    return HistoryWidget


def _bundle(widget: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    made = widget._repr_mimebundle_()
    data, metadata = made if isinstance(made, tuple) else (made, {})
    return {**data, "text/plain": UNSEEN}, metadata


def _shell() -> Any:
    """The running IPython shell, or None."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
