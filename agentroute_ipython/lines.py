"""A run as lines and pieces of text, each printed once: what a terminal shows of it."""

from __future__ import annotations

import os
import sys
from typing import Any

from agentroute.events import AgentEnd, Event, ReasoningDelta, TextDelta, ToolCallEnd, ToolCallStart, TurnEnd
from agentroute.records import ToolCallRecord

from .card import Card
from .formats import one_line, unfinished, visible
from .plain import asked_line, call_word, output_text, to_text, told_line, usage_line

__all__ = ["Lines"]

_BOLD, _DIM = "1", "2"


class Lines:
    """Prints a run from its events: text as it comes, a line for each tool call that begins or ends, the usage line last.

    Nothing is printed twice and no cursor is moved. Tool lines are dim and words of state bold where stdout is a terminal that shows it;
    text of a model or a tool never brings a colour of its own.

    Args:
        shell: the IPython shell or None. A kernel sends what is printed by itself, a few times a second.
        silent: nothing is printed until `show_again`.
    """

    def __init__(self, card: Card, shell: Any, silent: bool = False) -> None:
        self._card, self._shell, self._silent = card, shell, silent
        self._held = ""
        """The end of the text so far that only the next piece can explain."""
        self._line_open = False
        self._answered = False
        """Whether what was printed last is text of the model."""
        self._last = ""
        """The last character taken in: a joiner is shown or written out according to what stands before it."""
        self._said = self._thought = 0
        """The last turn that has printed text, and that has announced its reasoning."""

    def show(self) -> None:
        """Nothing to draw yet."""

    def show_again(self) -> None:
        """Prints the run so far; what comes next goes on below."""
        self._silent = False
        self._break_line()
        self._write(to_text(self._card) + "\n")
        self._answered = False

    def changed(self) -> None:
        """Whoever asks for an approval says so where it asks."""

    def update(self, event: Event) -> float | None:
        match event:
            case TextDelta():
                self._said = event.turn
                self._text(event.delta)
            case ReasoningDelta() if event.turn != self._thought:
                self._thought = event.turn
                self._line(self._styled("(reasoning)", _DIM))
            case TurnEnd():
                if event.text and self._said != event.record.turn_index:
                    self._said = event.record.turn_index
                    self._text(event.text)
                self._end_line()
            case ToolCallStart():
                self._line(self._styled(asked_line(event.record), _DIM))
            case ToolCallEnd():
                self._line(self._told(event.record))
            case AgentEnd() if self._card.output is not None and self._said != self._card.turn:
                self._line(visible(output_text(self._card.output)))
                self._answered = True
        return None

    def tick(self) -> float | None:
        return None

    def close(self) -> None:
        self._end_line()
        state, *rest = usage_line(self._card).split(",", 1)
        line = ",".join([self._styled(state, _BOLD), *rest])
        self._line(f"\n{line}" if self._answered else line)

    def _told(self, call: ToolCallRecord) -> str:
        name, told = one_line(call.tool_name, 60), told_line(call, timed=not self._card.replayed)
        if call.status == "ok":
            return self._styled(f"{name} {told}", _DIM)
        word = call_word(call)  # stands first in what is told
        return self._styled(f"{name} -> ", _DIM) + self._styled(word, _BOLD) + self._styled(told.removeprefix(f"-> {word}"), _DIM)

    def _text(self, piece: str) -> None:
        text = self._held + piece
        cut = len(text) - unfinished(text)
        text, self._held = text[:cut], text[cut:]
        if not text:
            return
        before = self._last if self._last.isprintable() and visible(self._last) == self._last else ""
        self._write(visible(before + text)[len(before) :])
        self._last, self._answered = text[-1], True

    def _line(self, line: str) -> None:
        self._end_line()
        self._write(line + "\n")
        self._answered = False

    def _end_line(self) -> None:
        if self._held:
            self._write(visible(self._held))
            self._held = ""
        self._last = ""
        self._break_line()

    def _break_line(self) -> None:
        if self._line_open:
            self._write("\n")

    def _write(self, text: str) -> None:
        if text and not self._silent:
            sys.stdout.write(text)
            if not hasattr(self._shell, "kernel"):
                sys.stdout.flush()
            self._line_open = not text.endswith("\n")

    def _styled(self, text: str, style: str) -> str:
        """`text`, which is visible already, in a style where the terminal shows it."""
        return f"\x1b[{style}m{text}\x1b[0m" if text and _shows_styles(self._shell) else text


def _shows_styles(shell: Any) -> bool:
    """Whether stdout is a terminal, and neither NO_COLOR (https://no-color.org) nor IPython's own setting asks for plain text."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or str(getattr(shell, "colors", "")).lower() == "nocolor":
        return False
    isatty = getattr(sys.stdout, "isatty", None)
    return bool(isatty is not None and isatty())
