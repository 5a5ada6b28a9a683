"""What a run puts into its cell to be answered or pressed: the question of an approval, its buttons, the Stop button.

Only buttons are widgets, each set in an output of its own, which is emptied when it has been used. So a saved notebook has
words in it and no widgets; those of a question are in `questions`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from weakref import WeakSet

from .formats import one_line
from .questions import call_label, who_label

__all__ = [
    "ApprovalButtons", "Spot", "StopButton", "can_show_widgets", "close_widget", "is_captured", "outputs_now", "show_in_cell",
    "stand_in",
]  # fmt: skip



class Spot:
    """One output of the cell in which it, or its `outputs`, was made; it is shown and changed from any task or thread, also later."""

    def __init__(self, shell: Any, outputs: tuple[Any, Any] | None = None) -> None:
        self._publisher, self._parent = outputs or outputs_now(shell)
        self._display_id = secrets.token_hex(8)
        self._is_shown = False

    def put(self, bundle: Mapping[str, Any]) -> None:
        """Shows a mime bundle in place of what was there."""
        publisher = self._publisher
        before, there = None, self._parent is not None and _has_one_parent(publisher)
        if there:
            before, publisher.parent_header = publisher.parent_header, self._parent
        try:
            publisher.publish(dict(bundle), {}, transient={"display_id": self._display_id}, update=self._is_shown)
        finally:
            if there:
                publisher.parent_header = before
        self._is_shown = True

    def clear(self) -> None:
        """Leaves nothing to see."""
        if self._is_shown:
            self.put({})


def outputs_now(shell: Any) -> tuple[Any, Any]:
    """Where outputs of the cell that runs go: the publisher, which is another one in a cell that is captured; and the cell, where a
    kernel does not know it from the context, which tasks and threads carry (ipykernel 6)."""
    publisher = getattr(shell, "display_pub", None)
    return publisher, publisher.parent_header if publisher is not None and _has_one_parent(publisher) else None


def _has_one_parent(publisher: Any) -> bool:
    return bool(publisher.has_trait("parent_header"))


def can_show_widgets(shell: Any) -> bool:
    """Whether there is a kernel with ipywidgets; both are needed for buttons."""
    from importlib.util import find_spec

    return hasattr(shell, "kernel") and find_spec("ipywidgets") is not None


def is_captured(shell: Any) -> bool:
    """Whether outputs of the cell that runs are kept from the notebook, as `%%capture` does."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    return isinstance(getattr(shell, "display_pub", None), CapturingDisplayPublisher)


def stand_in(mark: str, words: str) -> str:
    """A style for the output that has the class `mark`: where the widget of the next output is lost, as in a notebook that is opened
    again, these words stand in its place and no error. They are ours: nothing in them is escaped."""
    lost = f".jp-OutputArea-child:has(.{mark}) + .jp-OutputArea-child > .jp-OutputArea-output.jupyter-widgets:not(:has(*))"
    return f"<style>{lost} {{ font-size: 0; }} {lost}::after {{ font-size: var(--jp-ui-font-size1, 13px); content: '{words}'; }}</style>"


def close_widget(widget: Any) -> None:
    """Ends a widget, with what was made along with it."""
    for part in (getattr(widget, "style", None), getattr(widget, "layout", None), widget):
        if part is not None:
            part.close()


class Closable(Protocol):
    def close(self) -> None: ...


_in_cells: dict[str, tuple[str, WeakSet[Closable]]] = {}
"""By cell: the run of it, and the views that this run has shown."""


def show_in_cell(view: Closable, shell: Any) -> None:
    """Takes note that the cell that runs shows this view. Those it has shown when it was run before are closed, unless another cell
    shows them too: their outputs are gone. A cell is known by its id, and where the front end sends none by its text."""
    parent: Mapping[str, Any] = getattr(shell, "get_parent", dict)() or {}
    run = parent.get("header", {}).get("msg_id")
    cell = parent.get("metadata", {}).get("cellId") or parent.get("content", {}).get("code")
    if not run or not cell:
        return
    before, views = _in_cells.get(cell, (run, WeakSet()))
    if before == run:
        views.add(view)
        _in_cells[cell] = run, views
        return
    _in_cells[cell] = run, WeakSet([view])
    for known in [known for known, (_, shown) in _in_cells.items() if not shown]:
        del _in_cells[known]
    shown_now = {id(one) for _, shown in _in_cells.values() for one in shown}
    for one in views:
        if id(one) not in shown_now:
            one.close()


class _Widgets:
    """Widgets in an output of their own, from `show` until `close`."""

    def __init__(self, spot: Spot, row: Any, text: str) -> None:
        self._spot, self._row, self._text = spot, row, text

    def show(self) -> None:
        shown = self._row._repr_mimebundle_()
        self._spot.put({**(shown[0] if isinstance(shown, tuple) else shown), "text/plain": self._text})

    def close(self) -> None:
        for widget in (*self._row.children, self._row):
            close_widget(widget)
        self._spot.clear()


class ApprovalButtons(_Widgets):
    """Approve, Deny, Always for this run, and a field for the reason of a denial; each names the call, also to a screen reader.

    `answered(verdict, reason)` is called once, maybe on another thread; the verdict is `approve`, `deny` or `always`.
    """

    def __init__(self, spot: Spot, name: str, arguments: Any, who: str, answered: Callable[[str, str], None]) -> None:
        from ipywidgets import Button, HBox, Layout, Text

        call, whose = call_label(name, arguments, 60), f" of {who_label(who)}" if who else ""
        reason = Text(placeholder="reason, for a denial", tooltip=f"Why {call} is denied", layout=Layout(flex="1 1 12em", max_width="30em"))
        wide = Layout(width="auto", max_width="100%")
        labels = {"approve": f"Approve {call}", "always": f"Always for this run{whose}: {one_line(name, 60)}", "deny": f"Deny {call}"}
        buttons = {verdict: Button(description=label, tooltip=label, layout=wide) for verdict, label in labels.items()}

        def press(verdict: str) -> Callable[[object], None]:
            def pressed(_: object) -> None:
                for button in buttons.values():
                    button.disabled = True
                answered(verdict, str(reason.value))

            return pressed

        for verdict, button in buttons.items():
            button.on_click(press(verdict))
        row = HBox([*buttons.values(), reason], layout=Layout(flex_flow="row wrap"))
        super().__init__(spot, row, f"(Approve, Always for this run, Deny {call}: buttons that a running notebook shows)")


class StopButton(_Widgets):
    """Stops a run in the background; `pressed()` may be called on another thread, and more than once."""

    def __init__(self, spot: Spot, name: str, pressed: Callable[[], None]) -> None:
        from ipywidgets import Button, HBox, Layout

        button = Button(description=f"Stop {one_line(name, 40)}", layout=Layout(width="auto"))
        button.on_click(lambda _: pressed())
        super().__init__(spot, HBox([button]), f"(running in the background; %agent stop {one_line(name, 40)} ends it)")
