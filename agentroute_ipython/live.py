"""LiveView: a run as it happens, in a notebook cell or in a terminal."""

from __future__ import annotations

import asyncio
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from agentroute.events import AgentEnd, Event, ReasoningDelta, TextDelta, ToolCallEnd, ToolCallStart, TurnEnd

from .card import Card
from .display import to_html, to_text
from .formats import one_line, unfinished, visible
from .plain import asked_line, output_text, told_line, usage_line

__all__ = ["LiveView"]

HEARTBEAT_S = 10.0
"""How long a running card may stay as it is; then `tick` draws it anew, so that its seconds go on while nothing happens.

A redraw replaces what the page holds, and with it what the reader has selected, so it is not done for seconds alone.
"""
BURST = 10
"""Redraws in as many periods, also where tool calls are drawn at once; the start of a tool call may be one more."""


class LiveView:
    """Draws a run from its events: `show()`, `update(event)` for each, `tick()` now and then, `close()` always.

    In a kernel it is one output, redrawn at most `rate_hz` times a second; what came since the last redraw is drawn by a
    timer of the running event loop or by the next `tick()`, and `close()` draws the last state. The start of a tool call
    is drawn at once, as the tool may hold up both, and counts towards the next redraws. In a terminal, text is
    printed as it comes and nothing is painted twice. `card` is the run so far.

    `shell` is the IPython shell, by default the one that runs. `clock` is a monotonic clock in seconds. The methods may
    be called from different threads.
    """

    def __init__(self, *, shell: Any = None, clock: Callable[[], float] = time.monotonic, rate_hz: float = 10) -> None:
        self.card = Card()
        shell = shell if shell is not None else _running_shell()
        self._face = _Cell(self.card, shell, clock, 1 / rate_hz) if hasattr(shell, "kernel") else _Terminal(self.card)
        self._lock = threading.RLock()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def show(self) -> None:
        """Draws the empty card at once."""
        with self._lock:
            self._face.show()

    def update(self, event: Event) -> None:
        """Takes one event in, and draws when it is time to."""
        with self._lock:
            if self._closed:
                return
            self.card.apply(event)
            self._draw_later(self._face.update(event))

    def tick(self) -> None:
        """Draws what has not been drawn yet, when it is time to. To be called about ten times a second."""
        with self._lock:
            if not self._closed:
                self._draw_later(self._face.tick())

    def close(self) -> None:
        """Draws the last state. A run that has not ended by now counts as interrupted. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self.card.abandon("left before its end")
            self._face.close()

    def _draw_later(self, wait_s: float | None) -> None:
        if wait_s is not None and self._timer is None:
            self._timer = _call_later(wait_s, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self.tick()


class _Cell:
    """One display of a kernel, updated in place."""

    def __init__(self, card: Card, shell: Any, clock: Callable[[], float], period_s: float) -> None:
        self._card, self._shell, self._clock, self._period_s = card, shell, clock, period_s
        self._display_id = secrets.token_hex(8)
        self._shown_at: float | None = None
        self._drawn_at: deque[float] = deque(maxlen=BURST + 1)
        """When it was last drawn; the oldest first."""
        self._dirty = False

    def show(self) -> None:
        if self._shown_at is None:
            self._shown_at = self._clock()
            self._draw(self._shown_at, update=False)

    def update(self, event: Event) -> float | None:
        """Draws, or says in how many seconds that is allowed."""
        self.show()
        self._dirty = True
        if isinstance(event, ToolCallStart) and self._wait_s(self._clock(), BURST + 1) <= 0:
            self._draw(self._clock())
        return self.tick()

    def tick(self) -> float | None:
        if self._shown_at is None or (self._card.ended and not self._dirty):
            return None
        now = self._clock()
        calm_s = self._wait_s(now, 1) if self._dirty else self._drawn_at[-1] + HEARTBEAT_S - now
        wait_s = max(calm_s, self._wait_s(now, BURST))
        if wait_s <= 0:
            self._draw(now)
        return wait_s if self._dirty else None

    def _wait_s(self, now: float, n: int) -> float:
        """Seconds until it may be drawn, if there are to be at most `n` redraws in `n` periods, or in `BURST` of them."""
        periods = min(n, BURST)
        return self._drawn_at[-n] + periods * self._period_s - now if len(self._drawn_at) >= n else 0.0

    def close(self) -> None:
        self.show()
        self._draw(self._clock())

    def _draw(self, now: float, update: bool = True) -> None:
        assert self._shown_at is not None
        self._drawn_at.append(now)
        self._dirty = False
        self._card.elapsed_s = now - self._shown_at
        bundle = {"text/html": to_html(self._card), "text/plain": to_text(self._card)}
        # The publisher is asked for each time: `%%capture` puts its own in place for as long as it lasts.
        self._shell.display_pub.publish(bundle, {}, transient={"display_id": self._display_id}, update=update)


class _Terminal:
    """Lines and pieces of text, each printed once."""

    def __init__(self, card: Card) -> None:
        self._card = card
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

    def update(self, event: Event) -> float | None:
        match event:
            case TextDelta():
                self._said = event.turn
                self._text(event.delta)
            case ReasoningDelta() if event.turn != self._thought:
                self._thought = event.turn
                self._line("(reasoning)")
            case TurnEnd():
                if event.text and self._said != event.record.turn_index:
                    self._said = event.record.turn_index
                    self._text(event.text)
                self._end_line()
            case ToolCallStart():
                self._line(asked_line(event.record))
            case ToolCallEnd():
                self._line(f"{one_line(event.record.tool_name, 60)} {told_line(event.record, timed=not self._card.replayed)}")
            case AgentEnd() if self._card.output is not None and self._said != self._card.turn:
                self._line(visible(output_text(self._card.output)))
                self._answered = True
        return None

    def tick(self) -> float | None:
        return None

    def close(self) -> None:
        self._end_line()
        self._line(f"\n{usage_line(self._card)}" if self._answered else usage_line(self._card))

    def _text(self, piece: str) -> None:
        text = self._held + piece
        cut = len(text) - unfinished(text)
        text, self._held = text[:cut], text[cut:]
        if not text:
            return
        before = self._last if self._last.isprintable() else ""
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
        if self._line_open:
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._line_open = not text.endswith("\n")


def _running_shell() -> Any:
    """The IPython shell of this process, or None; IPython is not imported when nobody else has."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _call_later(wait_s: float, call: Callable[[], None]) -> asyncio.TimerHandle | None:
    try:
        return asyncio.get_running_loop().call_later(wait_s, call)
    except RuntimeError:  # no loop in this thread; `tick` will draw
        return None
