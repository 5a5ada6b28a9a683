"""The last steps of a notebook, as the run history has them: a run, or all runs of one comparison. What `%agent diff` compares."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from agentroute.records import RunRecord

if TYPE_CHECKING:
    from agentroute import RunStore

__all__ = ["COMPARISON", "POSITION", "StepRun", "last_steps", "pairs"]

COMPARISON, POSITION = "comparison", "position"
"""Tags of a run that is compared: which comparison, and its position in it, from 1. No settings of the run."""

_COLUMNS = ["run_id", "started_at", "parent_run_id", "notebook", "agent_name", "request_model", "tags"]


@dataclass(frozen=True)
class StepRun:
    """A run of a step."""

    run_id: str
    started_at: datetime
    agent: str
    model: str
    position: int
    """In its comparison, from 1; 0 of a run alone."""


def last_steps(store: RunStore, notebook: str | None) -> list[list[StepRun]]:
    """The last two steps of the notebook that no tool has begun, the earlier first; fewer where there are fewer. The runs of a
    comparison are in the order they are shown, whichever was recorded first.

    Args:
        notebook: as `RunRecord.notebook`; None: runs of which it is not known.
    """
    from agentroute.selection import Selection

    limit = 100
    while True:
        where = Selection(notebook=(notebook,) if notebook else None, limit=limit)
        rows = list(store.select(RunRecord, where=where, columns=_COLUMNS))
        steps: dict[str, list[StepRun]] = {}
        for run_id, started_at, parent, place, agent, model, tags in rows:
            if parent is None and place == notebook:
                comparison, position = _place(tags)
                steps.setdefault(comparison or run_id, []).append(StepRun(run_id, started_at, agent, model, position))
        if len(steps) > 2 or len(rows) < limit:  # the earliest of them may lack runs that lie further back
            ordered = [sorted(runs, key=lambda run: (run.position, run.started_at, run.run_id)) for runs in steps.values()]
            return sorted(ordered, key=lambda runs: min((run.started_at, run.run_id) for run in runs))[-2:]
        limit *= 20


def pairs(before: Sequence[StepRun], after: Sequence[StepRun]) -> list[tuple[StepRun, StepRun]]:
    """The runs of two steps that belong together: same agent and model, the first with the first; those left over by position. Only
    where no two belong together so and one step is a single run, that one with the first of the other."""
    left = dict(_numbered(before))
    partners = {key: left.pop(key) for key, _ in _numbered(after) if key in left}
    by_position = {run.position: run for run in left.values()}
    found = [
        (partner, run)
        for key, run in _numbered(after)
        if (partner := partners.get(key) or by_position.get(run.position)) is not None
    ]
    return found or [(before[0], after[0])]


def _numbered(runs: Iterable[StepRun]) -> list[tuple[tuple[str, str, int], StepRun]]:
    seen: Counter[tuple[str, str]] = Counter()
    numbered = []
    for run in runs:
        seen[run.agent, run.model] += 1
        numbered.append(((run.agent, run.model, seen[run.agent, run.model]), run))
    return numbered


def _place(tags: str | None) -> tuple[str | None, int]:
    """Comparison and position that the tags of a run name; (None, 0) where they name none."""
    try:
        known = json.loads(tags or "{}")
        return (str(known[COMPARISON]), int(known[POSITION])) if COMPARISON in known and POSITION in known else (None, 0)
    except (ValueError, TypeError, AttributeError, RecursionError):  # a record that was changed by hand
        return None, 0
