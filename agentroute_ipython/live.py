"""LiveView: a run as it happens, in a notebook cell or in a terminal."""

from __future__ import annotations

import asyncio
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from agentroute.errors import ErrorConfig
from agentroute.events import Event, ToolCallStart

from .card import Card
from .display import to_html, to_text
from .lines import Lines
from .modes import RENDERS

if TYPE_CHECKING:
    from agentroute import Context, ToolCall

    _Approve = Callable[[Context, ToolCall], Awaitable[Any]]

__all__ = ["LiveView"]

HEARTBEAT_S = 10.0
"""How long a running card may stay as it is; then `tick` draws it anew, so that its seconds go on while nothing happens.

A redraw replaces what the page holds, and with it what the reader has selected, so it is not done for seconds alone.
"""
SHARE = 0.02
"""What redraws may take of one core: after one that takes long the next waits longer, up to LONGEST_REST_S."""
LONGEST_REST_S = 1.0
BURST = 10
"""Redraws in as many periods, also where tool calls are drawn at once; the start of a tool call may be one more."""


class LiveView:
    """Draws a run from its events: `show()`, `update(event)` for each, `tick()` now and then, `close()` always.

    In a kernel it is one output, redrawn at most `rate_hz` times a second, less often where that takes long; what came since the last redraw is drawn by a
    timer of the running event loop or by the next `tick()`, and `close()` draws the last state. The start of a tool call
    is drawn at once, as the tool may hold up both, and counts towards the next redraws. In a terminal, text is
    printed as it comes and nothing is painted twice. `card` is the run so far.

    The methods may be called from different threads.

    Args:
        shell: the IPython shell, by default the one that runs.
        render: `auto` is HTML in a kernel and lines in a terminal. `html` is HTML also in a shell that is neither; `text` is lines
            everywhere; `off` draws nothing until `show_again()` asks for it.
        clock, cpu: a monotonic clock, and the CPU time of this thread, in seconds.

    Raises:
        ErrorConfig: `render` is another word.
    """

    def __init__(
        self,
        *,
        shell: Any = None,
        render: str = "auto",
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
        rate_hz: float = 10,
    ) -> None:
        if render not in RENDERS:
            raise ErrorConfig(f"render must be {', '.join(RENDERS[:-1])} or {RENDERS[-1]}; got {render!r:.80}")
        self.card = self._new_card()
        shell = shell if shell is not None else _running_shell()
        silent = render == "off"
        face = (
            _Cell(self.card, shell, clock, cpu, 1 / rate_hz, silent, self._bundle)
            if _as_html(shell, render)
            else self._lines(shell, silent)
        )
        self._face: Any = face
        self._lock = threading.RLock()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    # What a view of several runs has otherwise

    def _new_card(self) -> Any:
        return Card()

    def _card_of(self, index: int) -> Card:
        return self.card  # type: ignore[no-any-return]

    def _bundle(self) -> dict[str, str]:
        return {"text/html": to_html(self.card), "text/plain": to_text(self.card)}

    def _lines(self, shell: Any, silent: bool) -> Any:
        return Lines(self.card, shell, silent)

    def show(self) -> None:
        """Draws the empty card at once."""
        with self._lock:
            self._face.show()

    def show_again(self) -> None:
        """Draws the run anew in the output of the cell that runs now, and goes on there; the old one stays as it is.

        Also when the run is over, and where `render` is `off`. A terminal prints it as plain text.
        """
        with self._lock:
            self._face.show_again()

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

    def telling(self, approve: _Approve, index: int = 0) -> _Approve:
        """`approve`; while it decides, the card says that the call waits for an approval. The next redraw shows it.

        `index`: which of the runs, in a view of several.
        """
        waiting = self._card_of(index).waiting

        async def decide(ctx: Context, call: ToolCall) -> Any:
            asked = (ctx.run_id, ctx.step, call.id, call.name)
            self._waits(waiting.append, asked)
            try:
                return await approve(ctx, call)
            finally:
                self._waits(waiting.remove, asked)

        return decide

    def _waits(self, change: Callable[[Any], None], asked: Any) -> None:
        with self._lock:  # drawn by whoever draws the run: this may be the loop's thread, which does not
            change(asked)
            self._face.changed()

    def _draw_later(self, wait_s: float | None) -> None:
        if wait_s is not None and self._timer is None:
            self._timer = _call_later(wait_s, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self.tick()


class _Cell:
    """One display of a kernel, updated in place."""

    def __init__(
        self,
        card: Any,
        shell: Any,
        clock: Callable[[], float],
        cpu: Callable[[], float],
        period_s: float,
        silent: bool,
        bundle: Callable[[], dict[str, str]],
    ) -> None:
        self._card, self._shell, self._clock, self._cpu, self._bundle = card, shell, clock, cpu, bundle
        self._period_s, self._silent = period_s, silent
        self._display_id = secrets.token_hex(8)
        self._publisher: Any = None
        self._shown_at: float | None = None
        self._closed_at: float | None = None
        self._drawn_at: deque[float] = deque(maxlen=BURST + 1)
        """When it was last drawn; the oldest first."""
        self._costs_s: deque[float] = deque(maxlen=3)
        """CPU time of the last redraws; the middle one counts, as one may be held up by what it loads."""
        self._dirty = False

    def show(self) -> None:
        if self._shown_at is None:
            self._shown_at = self._clock()
            self._draw(self._shown_at, update=False)

    def show_again(self) -> None:
        """As `show`, in an output of its own; what comes next is drawn there."""
        self._silent = False
        self._display_id = secrets.token_hex(8)
        self._shown_at = self._clock() if self._shown_at is None else self._shown_at
        self._draw(self._clock(), update=False)

    def changed(self) -> None:
        self._dirty = True

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
        wait_s = max(calm_s, self._wait_s(now, BURST), self._drawn_at[-1] + self._rest_s() - now)
        if wait_s <= 0:
            self._draw(now)
        return wait_s if self._dirty else None

    def _rest_s(self) -> float:
        """How long nothing is drawn after a redraw, so that all of them keep to their share."""
        costs = sorted(self._costs_s)
        return min(costs[(len(costs) - 1) // 2] / SHARE, LONGEST_REST_S) if costs else 0.0

    def _wait_s(self, now: float, n: int) -> float:
        """Seconds until it may be drawn, if there are to be at most `n` redraws in `n` periods, or in `BURST` of them."""
        periods = min(n, BURST)
        return self._drawn_at[-n] + periods * self._period_s - now if len(self._drawn_at) >= n else 0.0

    def close(self) -> None:
        self.show()
        self._closed_at = self._clock()
        self._draw(self._closed_at)

    def _draw(self, now: float, update: bool = True) -> None:
        assert self._shown_at is not None
        self._drawn_at.append(now)
        self._dirty = False
        if self._silent:
            return
        began = self._cpu()
        self._card.elapsed_s = (now if self._closed_at is None else self._closed_at) - self._shown_at
        if not update:  # and not at each redraw: `%%capture` of another cell puts its own publisher in place for as long as it lasts
            self._publisher = self._shell.display_pub
        self._publisher.publish(self._bundle(), {}, transient={"display_id": self._display_id}, update=update)
        self._costs_s.append(self._cpu() - began)
        self._drawn_at[-1] = self._clock()  # from its end on, so that no more than so many are sent in any second


def _as_html(shell: Any, render: str) -> bool:
    if hasattr(shell, "kernel"):
        return render != "text"
    return render == "html" and hasattr(shell, "display_pub") and not hasattr(shell, "simple_prompt")  # which terminals have


def _running_shell() -> Any:
    """The IPython shell of this process, or None; IPython is not imported when nobody else has."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _call_later(wait_s: float, call: Callable[[], None]) -> asyncio.TimerHandle | None:
    try:
        return asyncio.get_running_loop().call_later(wait_s, call)
    except RuntimeError:  # no loop in this thread; `tick` will draw
        return None
