"""What a run puts into its cell to be answered or pressed: the question of an approval, its buttons, the Stop button.

Questions are static HTML and text; only buttons are widgets, each set in an output of its own, which is emptied when it has
been used. So a saved notebook has words in it and no widgets. Foreign text is made visible and escaped, and is shown whole:
who approves must be able to see everything.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from .formats import call_text, one_line, visible
from .style import STYLE

__all__ = ["ApprovalButtons", "Spot", "StopButton", "can_show_widgets", "line_bundle", "parent_now", "question_bundle", "question_text", "verdict_line"]

_EXTRA = (
    ".agr.agr .agr-ask { padding: 8px 18px 12px; } .agr.agr .agr-ask p { margin: 0 0 6px; text-align: start; }"
    " .agr.agr .agr-ask pre { max-height: 24em; overflow: auto; }"
)
Bundle = dict[str, str]


class Spot:
    """One output of the cell in which it, or its `parent`, was made; it is shown and changed from any task or thread, also later."""

    def __init__(self, shell: Any, parent: Any = None) -> None:
        self._shell = shell
        self._display_id = secrets.token_hex(8)
        self._is_shown = False
        self._parent = parent or parent_now(shell)

    def put(self, bundle: Mapping[str, Any]) -> None:
        """Shows a mime bundle in place of what was there."""
        publisher = self._shell.display_pub
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


def parent_now(shell: Any) -> Any:
    """The cell that runs, where a kernel does not know it from the context, which tasks and threads carry (ipykernel 6)."""
    publisher = getattr(shell, "display_pub", None)
    return publisher.parent_header if publisher is not None and _has_one_parent(publisher) else None


def _has_one_parent(publisher: Any) -> bool:
    return bool(publisher.has_trait("parent_header"))


def question_text(name: str, arguments: Any) -> str:
    """The call that waits for an approval, in full: the tool's name, and its arguments as indented JSON."""
    return f"{_whole(name)} needs your approval\n{_pretty(arguments)}"


def question_bundle(name: str, arguments: Any) -> Bundle:
    text = _pretty(arguments)
    size = f" <span>({len(text):,} characters; scroll to see all)</span>" if len(text) > 2000 else ""
    html = (
        f"<style>{STYLE}{_EXTRA}</style>"
        f'<section class="agr"><div class="agr-ask"><p><b><code>{escape(_whole(name))}</code></b> needs your approval{size}</p>'
        f'<pre tabindex="0">{escape(text)}</pre></div></section>'
    )
    return {"text/html": html, "text/plain": question_text(name, arguments)}


def verdict_line(word: str, name: str, arguments: Any, why: str = "") -> str:
    """What stays of a question: `approved: refund(amount=5)`."""
    call = one_line(call_text(name, _json(arguments)), 200)
    return f"{word}: {call}{f' because {one_line(why, 300)}' if why.strip() else ''}"


def line_bundle(line: str) -> Bundle:
    word, colon, rest = line.partition(":")
    html = f"<div>{escape(word)}{colon}<code>{escape(rest)}</code></div>" if colon else f"<div>{escape(line)}</div>"
    return {"text/html": html, "text/plain": line}


def _whole(name: str) -> str:
    return " ".join(visible(name).split())


def _pretty(arguments: Any) -> str:
    return visible(_json(arguments, indent=2))


def _json(arguments: Any, indent: int | None = None) -> str:
    """The arguments as the tool receives them, as JSON; what has no JSON is as Python shows it."""
    try:
        return json.dumps(arguments, indent=indent, ensure_ascii=False, default=_plain)
    except Exception:  # keys that are no text, a circle, too deep, or an object that fails to describe itself
        return _shown(arguments)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(type(value), "model_dump"):
        return value.model_dump()
    return sorted(value, key=repr) if isinstance(value, set | frozenset) else _shown(value)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # RecursionError among them
        return f"<{type(value).__name__} that cannot be shown>"


def can_show_widgets(shell: Any) -> bool:
    """Whether there is a kernel with ipywidgets; both are needed for buttons."""
    from importlib.util import find_spec

    return hasattr(shell, "kernel") and find_spec("ipywidgets") is not None


class _Widgets:
    """Widgets in an output of their own, until `close`."""

    def __init__(self, spot: Spot, row: Any, text: str) -> None:
        self._spot, self._row = spot, row
        shown = row._repr_mimebundle_()
        spot.put({**(shown[0] if isinstance(shown, tuple) else shown), "text/plain": text})

    def close(self) -> None:
        for widget in (*self._row.children, self._row):
            for part in (getattr(widget, "style", None), widget.layout, widget):
                if part is not None:
                    part.close()
        self._spot.clear()


class ApprovalButtons(_Widgets):
    """Approve, Deny, Always for this run, and a field for the reason of a denial.

    `answered(verdict, reason)` is called once, maybe on another thread; the verdict is `approve`, `deny` or `always`.
    """

    def __init__(self, spot: Spot, answered: Callable[[str, str], None]) -> None:
        from ipywidgets import Button, HBox, Layout, Text

        reason = Text(placeholder="reason, for a denial", layout=Layout(flex="1 1 12em", max_width="30em"))
        wide = Layout(width="auto")
        labels = {"approve": "Approve", "deny": "Deny", "always": "Always for this run"}
        buttons = {verdict: Button(description=label, layout=wide) for verdict, label in labels.items()}

        def press(verdict: str) -> Callable[[object], None]:
            def pressed(_: object) -> None:
                for button in buttons.values():
                    button.disabled = True
                answered(verdict, str(reason.value))

            return pressed

        for verdict, button in buttons.items():
            button.on_click(press(verdict))
        row = HBox([buttons["approve"], buttons["always"], buttons["deny"], reason], layout=Layout(flex_flow="row wrap"))
        super().__init__(spot, row, "(Approve, Always for this run, Deny: buttons that a running notebook shows)")


class StopButton(_Widgets):
    """Stops a run in the background; `pressed()` may be called on another thread, and more than once."""

    def __init__(self, spot: Spot, name: str, pressed: Callable[[], None]) -> None:
        from ipywidgets import Button, HBox, Layout

        button = Button(description=f"Stop {one_line(name, 40)}", layout=Layout(width="auto"))
        button.on_click(lambda _: pressed())
        super().__init__(spot, HBox([button]), f"(running in the background; %agent stop {one_line(name, 40)} ends it)")
