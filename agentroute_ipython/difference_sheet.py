"""`%agent diff`: what changed from the last step of a notebook but one to the last, or between two runs that are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentroute.errors import ErrorConfig
from agentroute.figures import plural
from agentroute.records import Record

from .differences import RunDifferences, run_id_of
from .steps import StepRun, last_steps, pairs

if TYPE_CHECKING:
    from agentroute import RunStore

__all__ = ["diff_sheet"]

UNRECORDED = "a later run of this notebook was not recorded here"


def diff_sheet(line: str, store: RunStore, notebook: str | None = None, last: object = None) -> RunDifferences | str:
    """What the rest of an `%agent diff` line asks for: the last two steps of the notebook, or the two runs that are named; words
    where there are not two.

    A comparison is one step. Of two steps with several runs each, the first two runs that belong together are compared of which
    the second was asked otherwise; the first two where all were asked the same.

    Args:
        notebook: as `RunRecord.notebook`; None where nobody knows it, then runs of which nobody knows either.
        last: what the last cell gave, a Result or Results: where it was not recorded, that is told.

    Raises:
        ErrorConfig: a run that is not there, or a line that names neither none nor two.
    """
    words = line.split()
    if len(words) not in (0, 2):
        raise ErrorConfig(f"%agent diff compares the last two runs, or two run ids: %agent diff RUN_ID RUN_ID; got {plural(len(words), 'word')}")
    if words:
        before, after = (store.record(run_id_of(word, store)) for word in words)
        return RunDifferences(before, after)
    steps = last_steps(store, notebook)
    later = [UNRECORDED] if _is_unrecorded(last, store, notebook) else []
    if len(steps) == 2:
        which = "recorded run before last to the last recorded run" if later else "run before last to the last run"
        return _between(steps[0], steps[1], store, f"What changed from the {which}", later)
    if steps and len(steps[0]) > 1:
        return _within(steps[0], store, later)
    there_is = "there is only one run of this notebook so far" if steps else "no run of this notebook is recorded yet"
    others = "%agent runs shows those of other notebooks, %agent diff RUN_ID RUN_ID compares any two"
    return "; ".join([there_is, *later, f"%agent diff compares the last two, {others}"])


def _between(before: list[StepRun], after: list[StepRun], store: RunStore, title: str, later: list[str]) -> RunDifferences:
    """The pair of runs that tells most of two steps."""
    if len(before) == len(after) == 1:
        return RunDifferences(store.record(before[0].run_id), store.record(after[0].run_id), title, later)
    first = None
    for one, other in pairs(before, after):
        place = f"{_of_step('the earlier cell', one, before)}, {_of_step('the later one', other, after)}"
        about = [*later, f"compared: {place}; %agent diff RUN_ID RUN_ID compares any two, %agent runs lists the ids"]
        found = RunDifferences(store.record(one.run_id), store.record(other.run_id), title, about)
        if found.asked_otherwise:
            return found
        first = first or found
    assert first is not None
    return first


def _of_step(cell: str, run: StepRun, step: list[StepRun]) -> str:
    """`run 2 of 3 of the earlier cell`"""
    return f"the run of {cell}" if len(step) == 1 else f"run {step.index(run) + 1} of {len(step)} of {cell}"


def _within(step: list[StepRun], store: RunStore, later: list[str]) -> RunDifferences:
    """The first two runs of the only step there is."""
    title = f"What differs between runs 1 and 2 of the {len(step)} that the only cell so far has compared"
    return RunDifferences(store.record(step[0].run_id), store.record(step[1].run_id), title, later)


def _is_unrecorded(last: object, store: RunStore, notebook: str | None) -> bool:
    """Whether a result is later than all that the history has of the notebook, as its own run was not recorded."""
    from agentroute.selection import Selection

    first = next(iter(last), None) if isinstance(last, Sequence) else last
    record = getattr(first, "record", None)
    if not isinstance(record, Record) or store.run_count(Selection(run_id=(record.run.run_id,))):
        return False
    return not store.run_count(Selection(since=record.run.started_at, notebook=(notebook,) if notebook else None))
