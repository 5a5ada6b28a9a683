"""Several runs of one cell, side by side: `%%agent a,b`, `--models`, `-n`. `Comparison` runs them, `Results` is what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, overload

from agentroute.errors import ErrorAgent, ErrorInterrupted, ErrorMissingPackage
from agentroute.events import AgentEnd, Event
from agentroute.figures import plural
from agentroute.keys import without_credentials
from agentroute.result import Result

from .formats import one_line
from .running import Interrupted, Run

if TYPE_CHECKING:
    import pandas as pd

    from .comparison_display import Cards

__all__ = ["Case", "Comparison", "ErrorComparison", "Results"]

Item = tuple[int, Event]
"""Which run, from 0, and what has happened in it."""

FRAME = (
    "label", "agent", "model", "sample", "output", "status", "error", "input_tokens", "output_tokens", "cost_usd", "cost_saved_usd",
    "duration_s", "run_id",
)  # fmt: skip
_STATES = {"ok": "done", "error": "failed"}


@dataclass(frozen=True)
class Case:
    """One of the runs that are compared. `label` tells it from the others; `events` begins it, on the loop that will serve it."""

    label: str
    events: Callable[[], AsyncGenerator[Event, None]]


class ErrorComparison(ErrorAgent):
    """Some of the runs that were compared have failed. `errors` holds their errors by label, `results` what all have done."""

    def __init__(self, errors: dict[str, ErrorAgent], results: Results, told: Callable[[ErrorAgent], str] = str) -> None:
        super().__init__(f"{len(errors)} of {plural(len(results), 'run')} failed: {', '.join(one_line(label, 60) for label in errors)}")
        self.errors, self.results = errors, results
        self._lines = [f"{one_line(label, 60)}: {type(error).__name__}: {one_line(told(error), 200)}" for label, error in errors.items()]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.errors, self.results), self.__dict__

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: how many and which, and where the rest is."""
        return [f"{type(self).__name__}: {self}", *(f"  {line}" for line in self._lines), "(all results, whole and partial, are in _agent)"]


class View(Protocol):
    """What draws a comparison; `ComparisonView` is one."""

    def show(self) -> None: ...
    def update(self, event: Item) -> None: ...
    def tick(self) -> None: ...
    def close(self) -> None: ...


class Comparison:
    """The runs of one cell: begun together on one loop, drawn in one view. What a cell runs, as `Run` is.

    A run that fails does not stop the others; Stop ends all, and keeps what each has done.

    Args:
        cases: what is run, in the order it is shown.
        keep: is given the `Results`, in that order, whole or partial, before the cell ends.
        told: what the cell says of an error that ends a run.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        view: View,
        keep: Callable[[Results], None],
        told: Callable[[ErrorAgent], str] = str,
    ) -> None:
        self._labels = [case.label for case in cases]
        self._view, self._keep, self._told = view, keep, told
        self._columns = [_Column(view, index) for index in range(len(cases))]
        self._results: list[Result[Any]] = [Result(None, interrupted=True) for _ in cases]
        self._runs = [
            Run(case.events, column, partial(self._results.__setitem__, column.index))
            for case, column in zip(cases, self._columns, strict=True)
        ]
        self._n_begun = 0
        self.begun = False

    async def consume(self, take: Callable[[Item], None]) -> None:
        """Runs all of them to their end.

        Raises:
            Exception: what a run raised that is no error of a run, when all of them have ended.
        """
        tasks = [asyncio.create_task(self._consume(index, take)) for index in range(len(self._runs))]
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise
        finally:
            for task in tasks:
                task.add_done_callback(_seen)
        for task in tasks:
            task.result()

    async def _consume(self, index: int, take: Callable[[Item], None]) -> None:
        self._n_begun += 1
        self.begun = self._n_begun == len(self._runs)
        ended = False

        def taken(event: Event) -> None:
            nonlocal ended
            ended = ended or isinstance(event, AgentEnd)
            take((index, event))

        try:
            await self._runs[index].consume(taken)
        except ErrorAgent as error:  # not even begun: the run itself would have told
            if not ended:
                take((index, AgentEnd(error.result or Result(None), error)))

    def show(self) -> None:
        self._view.show()

    def tick(self) -> None:
        self._view.tick()

    def take(self, event: Item) -> None:
        index, happened = event
        self._runs[index].take(happened)

    def finish(self) -> None:
        """Draws the last state of all, and keeps their results; a run that did not end by itself ends here."""
        with ExitStack() as stack:
            stack.callback(self._view.close)
            stack.callback(self._keep_all)
            for run in self._runs:
                stack.callback(run.finish)

    def _keep_all(self) -> None:
        self._keep(Results(self._results, self._labels))

    def fail(self) -> None:
        """Fails the cell when a run was stopped or has failed, in a few lines that say which."""
        errors = {self._labels[column.index]: column.error for column in self._columns if column.error is not None}
        if any(isinstance(error, ErrorInterrupted) for error in errors.values()):
            raise Interrupted(f"the comparison was stopped; what its {plural(len(self._runs), 'run')} did until then is in _agent")
        if errors:
            raise ErrorComparison(errors, Results(self._results, self._labels), self._told) from next(iter(errors.values()))


class _Column:
    """The view of one of the runs: its part of the view of all, which is closed for all together."""

    def __init__(self, view: View, index: int) -> None:
        self._view, self.index = view, index
        self.error: ErrorAgent | None = None
        """What the run ended with."""

    def show(self) -> None: ...
    def tick(self) -> None: ...
    def close(self) -> None: ...

    def update(self, event: Event) -> None:
        if isinstance(event, AgentEnd):
            self.error = event.error
        self._view.update((self.index, event))


def _seen(task: asyncio.Task[None]) -> None:
    """An error of a run that was given up is nobody's business any more."""
    if not task.cancelled():
        task.exception()


# ----------------------------------------------------------------------------------------------------------- what came of it


class Results(Sequence[Result[Any]]):
    """The Results of a comparison, in the order they were shown; partial ones of runs that failed or were stopped.

    A sequence that does not change, so that each keeps its label; a slice is Results, too. A notebook shows them side by side;
    `frame` is a DataFrame of them.
    """

    def __init__(self, results: Iterable[Result[Any]] = (), labels: Iterable[str] = ()) -> None:
        self._results, named = tuple(results), tuple(labels)
        self._labels = (*named, *map(str, range(len(named) + 1, len(self._results) + 1)))[: len(self._results)]

    @property
    def labels(self) -> list[str]:
        """What tells each from the others, in order."""
        return list(self._labels)

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, place: int) -> Result[Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Results: ...
    def __getitem__(self, place: int | slice) -> Result[Any] | Results:
        if isinstance(place, slice):
            return Results(self._results[place], self._labels[place])
        return self._results[place]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Results):
            return NotImplemented
        return (self._results, self._labels) == (other._results, other._labels)

    __hash__ = None  # type: ignore[assignment]

    @property
    def frame(self) -> pd.DataFrame:
        """One row a run, in order; columns: label, agent, model, sample, output (as text), status, error, input_tokens,
        output_tokens, cost_usd, cost_saved_usd, duration_s, run_id. What is unknown is `<NA>`, never 0. Keys are struck out of
        the texts, as in the run history.

        Raises:
            ErrorMissingPackage: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ErrorMissingPackage("pandas", "notebook", "a DataFrame of compared runs") from error
        frame = pd.DataFrame(self._rows(), columns=list(FRAME))
        kinds = dict.fromkeys(("sample", "input_tokens", "output_tokens"), "Int64")
        kinds |= dict.fromkeys(("cost_usd", "cost_saved_usd", "duration_s"), "Float64")
        texts = {name: "string" for name in FRAME if name not in kinds}
        return frame.astype({**kinds, **texts})

    def _rows(self) -> list[tuple[Any, ...]]:
        from .plain import output_text

        rows: list[tuple[Any, ...]] = []
        asked: Counter[tuple[str | None, str | None]] = Counter()
        for label, result in zip(self.labels, self, strict=True):
            run = result.record.run if result.record else None
            who = (run.agent_name, run.request_model) if run else (None, None)
            asked[who] += 1
            output = None if result.output is None else output_text(result.output)
            figures = (run.input_tokens, run.output_tokens, run.cost_usd, run.cost_saved_usd, run.duration_s) if run else (None,) * 5
            status = run.status if run else "interrupted"
            error = f"{run.error_type}: {run.error_text or ''}" if run and run.error_type else None
            row = (label, *who, asked[who], output, status, error, *figures, run.run_id if run else None)
            rows.append(tuple(without_credentials(value) if isinstance(value, str) else value for value in row))
        return rows

    def __repr__(self) -> str:
        from .money import money_words

        states = Counter(_STATES.get(result.record.run.status, "stopped") if result.record else "stopped" for result in self)
        words = ", ".join(f"{number} {state}" for state, number in states.items())
        money = money_words(self._cards().cards)
        return f"<Results: {plural(len(self), 'run')}{f': {words}' if words else ''}{f'; {money}' if money else ''}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from .comparison_display import to_html, to_text

        cards = self._cards()
        return {"text/html": to_html(cards), "text/plain": to_text(cards)}

    def _cards(self) -> Cards:
        from .card import Card
        from .comparison_display import Cards

        return Cards(self._labels, [Card.from_result(result) for result in self])
