"""The tally of a run: what its model calls have used, counted the moment each ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from .message import TurnUsage, Usage
from .records import RunRecord, ToolCallRecord, TurnRecord

__all__ = ["Tally"]


class Tally:
    """Counts the model calls of one run, and of the runs that its tools begin.

    `usage` is all of them; `run` (the row of the run history) holds the run's own only, so that a sum over rows is right.

    Args:
        above: the tally of the run whose tool call `call` began this one.
    """

    def __init__(self, run: RunRecord, above: Tally | None = None, call: ToolCallRecord | None = None) -> None:
        self.run = run
        self.usage = Usage()
        self._own = Usage()
        self._sources: set[str] = set()
        self._above, self._call = above, call
        self._lock = threading.Lock()  # a tool's own runs may end in other threads

    def count(self, turn: TurnRecord, used: TurnUsage, source: str = "provider") -> None:
        """Counts one model call: in its turn, in this run, and in the runs and tool calls it is part of.

        `source` is who says what it cost, where that is known.
        """
        for record in (turn, self.run):
            record.input_tokens = _plus(record.input_tokens, used.input_tokens)
            record.output_tokens = _plus(record.output_tokens, used.output_tokens)
            record.cached_input_tokens = _plus(record.cached_input_tokens, used.cached_input_tokens)
            record.reasoning_tokens = _plus(record.reasoning_tokens, used.reasoning_tokens)
        self._own.add_turn(used)
        self.run.cost_usd, self.run.unknown_cost_calls = self._own.cost_usd, self._own.unknown_cost_calls
        cost = None if used.cost_usd is None else float(used.cost_usd)
        turn.cost_source = "unknown" if (used.cost_saved_usd if used.replayed else cost) is None else source
        self._sources.add(turn.cost_source)
        self.run.cost_source = turn.cost_source if len(self._sources) == 1 else "mixed"
        if cost is not None:
            turn.cost_usd = (turn.cost_usd or 0.0) + cost
        saved = None if used.cost_saved_usd is None else float(used.cost_saved_usd)
        if used.replayed:
            turn.cost_saved_usd = saved
            self.run.n_replayed += 1
            if saved is not None:
                self.run.cost_saved_usd = self._own.cost_saved_usd
        for tally in self._lineage():
            with tally._lock:
                tally.usage.add_turn(used)
                if tally._call is not None and cost is not None:
                    tally._call.cost_usd = (tally._call.cost_usd or 0.0) + cost
                if tally._call is not None and saved is not None:
                    tally._call.cost_saved_usd = (tally._call.cost_saved_usd or 0.0) + saved

    def _lineage(self) -> Iterator[Tally]:
        tally: Tally | None = self
        while tally is not None:
            yield tally
            tally = tally._above


def _plus(total: int | None, more: int | None) -> int | None:
    return total if more is None else (total or 0) + more
