"""What the recorded runs of this process have used, added up as they go on. Loads nothing, so that it can listen from the start."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentroute.store import on_save

if TYPE_CHECKING:
    from agentroute.records import RunRecord

__all__ = ["UsageSums", "UsageTotals", "end_process_usage", "process_usage"]

LATELY = 200
"""Runs that ended and are kept one by one."""


@dataclass(frozen=True)
class UsageSums:
    """What some runs have used. Unknown tokens and costs are left out of the sums."""

    runs: int = 0
    going_on: int = 0
    calls: int = 0
    """Model calls that were sent."""
    replayed: int = 0
    """Answers that replay served."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    """None: none of the calls said."""
    unknown_calls: int = 0
    """Calls whose cost nobody reported."""
    saved_usd: float = 0.0
    """What the answers that were replayed had cost."""

    @classmethod
    def of_run(cls, run: RunRecord) -> UsageSums:
        return cls(
            runs=1,
            going_on=int(run.going_on),
            calls=run.n_turns - run.n_replayed,
            replayed=run.n_replayed,
            input_tokens=run.input_tokens or 0,
            output_tokens=run.output_tokens or 0,
            cost_usd=run.cost_usd,
            unknown_calls=run.unknown_cost_calls,
            saved_usd=run.cost_saved_usd or 0.0,
        )

    @classmethod
    def together(cls, parts: Iterable[UsageSums]) -> UsageSums:
        each = list(parts)
        costs = [part.cost_usd for part in each if part.cost_usd is not None]
        sums = {name: sum(getattr(part, name) for part in each) for name in cls.__dataclass_fields__ if name != "cost_usd"}
        return cls(**sums, cost_usd=sum(costs) if costs else None)


class UsageTotals:
    """Hears of each turn that is committed (`on_save`), from any thread; `changed` are called then."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[str, str, UsageSums]] = {}
        """Those that go on, and those that ended lately, which may be saved once more."""
        self._settled: dict[tuple[str, str], UsageSums] = {}
        self._lock = threading.Lock()
        self.changed: list[Callable[[], object]] = []

    def hear(self, run: RunRecord) -> None:
        heard = (run.agent_name, run.request_model, UsageSums.of_run(run))
        with self._lock:
            self._runs.pop(run.run_id, None)
            self._runs[run.run_id] = heard
            if len(self._runs) > 2 * LATELY:
                self._settle()
        for tell in tuple(self.changed):
            with suppress(Exception):
                tell()

    def by_agent_and_model(self) -> dict[tuple[str, str], UsageSums]:
        """By name: which of the runs of a comparison is heard of first is another one each time."""
        with self._lock:
            groups = {group: [sums] for group, sums in self._settled.items()}
            runs = list(self._runs.values())
        for agent, model, sums in runs:
            groups.setdefault((agent, model), []).append(sums)
        return {group: UsageSums.together(groups[group]) for group in sorted(groups)}

    def _settle(self) -> None:
        """Adds up those that ended longest ago, and lets go of them."""
        for run_id in [run_id for run_id, (*_, sums) in self._runs.items() if not sums.going_on][:-LATELY]:
            agent, model, sums = self._runs.pop(run_id)
            self._settled[agent, model] = UsageSums.together([self._settled.get((agent, model), UsageSums()), sums])


_of_process: UsageTotals | None = None
_end: Callable[[], None] | None = None
_beginning = threading.Lock()


def process_usage() -> UsageTotals:
    """Those of this process, which counts from the first call on."""
    global _of_process, _end
    with _beginning:
        if _of_process is None:
            _of_process = UsageTotals()
        if _end is None:
            _end = on_save(_of_process.hear)
        return _of_process


def end_process_usage() -> None:
    """No more runs are counted until `process_usage` is called again."""
    global _end
    with _beginning:
        if _end is not None:
            _end()
            _end = None
