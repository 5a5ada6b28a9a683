"""The run history as a table that is sorted, filtered, paged and selected from: what `history()` shows. Knows no notebook.

SQLite finds and orders the runs of a page, in less than a tenth of a second for 100,000; their texts are read for the page only.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from agentroute.errors import ErrorAgent, ErrorConfig
from agentroute.figures import plural, seconds_text
from agentroute.records import RunRecord, ScoreRecord
from agentroute.selection import Filters, Selection

from .formats import one_line
from .recorded import RUNS, Sheet, no_runs, run_cells, saved_more, sheet_of_runs, stored_runs

if TYPE_CHECKING:
    from agentroute import RunStore

__all__ = ["ORDERS", "PAGE", "HistoryTable"]

PAGE = 50
"""Rows in the browser."""
CHOICES = 100
"""Names of agents, models and tags that are offered; others are typed in Python."""
LABEL = 100
"""Characters of a name that is offered."""
ORDERS: Final = {
    "started_at": "start", "agent_name": "agent", "request_model": "model", "status": "status", "n_turns": "turns", "input_tokens": "tokens in",
    "output_tokens": "tokens out", "cost_usd": "cost", "duration_s": "seconds",
}  # fmt: skip
_WORDS = ("agent_name", "request_model", "status")
"""What is sorted from A to Z at first, and not the largest first."""
FIELDS = ("agent", "model", "status", "tag", "text", "since", "until")
"""The filters that have a field in the browser."""
THUMB = "thumb"
"""The score that thumbs write: 1 or 0."""
MARK = "agr-history"
NOTE = "view.selected has the ids of the selected runs, view.frame their DataFrame; agentroute.runs() that of all"


class HistoryTable:
    """The runs of a history that match `filters`, in an order, a page of them, and those selected. Safe from any thread.

    A filter that is a text, and of `FIELDS`, can be changed by `do`; the others stay.
    """

    def __init__(self, store: RunStore, filters: Filters) -> None:
        self.store = store
        self._lock = threading.RLock()
        given = {name: value for name, value in filters.items() if value is not None}
        self._form: dict[str, str] = {name: value for name, value in given.items() if name in FIELDS and isinstance(value, str)}
        self._fixed: dict[str, Any] = {name: value for name, value in given.items() if name not in self._form}
        self._typed = self._form
        """What stands in the fields: where it is no filter, the table goes on with the last one that was."""
        self._problems: dict[str, str] = {}
        self.opened: str | None = None
        """The card of the run that was to be opened last, as HTML; None where there is none."""
        self._where = self._selection(self._form)
        self._by, self._descending, self._page = "started_at", True, 0
        self._total = 0
        self._order: list[str] | None = None
        self._selected: dict[str, None] = {}
        self._found: tuple[tuple[Selection, tuple[int, int]], Selection, int] | None = None
        self._choices: dict[str, list[tuple[str, str]]] = {}
        """By filter: values, each with what is shown of it."""
        self._read()
        self._read_choices()

    # ---- what it is ---------------------------------------------------------------------------------------------------

    @property
    def selected(self) -> list[str]:
        with self._lock:
            return list(self._selected)

    @selected.setter
    def selected(self, run_ids: Iterable[str]) -> None:
        wanted = self._checked(run_ids)
        with self._lock:
            self._selected = wanted

    @property
    def filters(self) -> Filters:
        """As `agentroute.runs` takes them."""
        with self._lock:
            return Filters(**{**self._fixed, **self._form})  # type: ignore[typeddict-item]

    @property
    def problem(self) -> str:
        """What was wrong with what was done, until the same is done rightly, or, but for a filter, until a refresh."""
        with self._lock:
            return "\n".join(self._problems.values())

    def state(self) -> dict[str, Any]:
        """What the browser draws, as JSON: the rows of the page, and what stands around them."""
        with self._lock:
            return {
                "rows": self._rows(self._ids(self._page * PAGE, PAGE)),
                "total": self._total,
                "first": self._page * PAGE + 1,
                "page": self._page,
                "pages": max(1, -(-self._total // PAGE)),
                "by": self._by,
                "descending": self._descending,
                "form": {name: self._typed.get(name, "") for name in FIELDS},
                "fixed": {name: one_line(_words(value), 60) for name, value in self._fixed.items()},
                "choices": self._choices,
                "n_selected": len(self._selected),
                "problem": self.problem,
            }

    def sheet(self, note: str = NOTE) -> Sheet:
        """The first rows of it as static HTML and text."""
        with self._lock:
            ids, total, words = self._ids(0, RUNS), self._total, self._said()
        runs, where = self._records(ids)
        if not runs:
            nothing = no_runs(self.store, "agentroute_ipython.history()")
            return sheet_of_runs([], set(), nothing, "", MARK)
        title = plural(total, "run") if total <= RUNS else f"The first {len(runs)} of {plural(total, 'run')}"
        return sheet_of_runs(runs, saved_more(self.store, where), f"{title}, {words}", note, MARK)

    # ---- what is done to it -------------------------------------------------------------------------------------------

    def do(self, message: Mapping[str, Any]) -> str:
        """Does what the browser asks; returns what was wrong with it, in words, or an empty string."""
        done = str(message.get("do"))
        act = {
            "sort": self._sort, "page": self._turn_to, "filter": self._filter, "refresh": self._refresh, "select": self._select,
            "select_all": self._select_all, "thumb": self._thumb,
            "open": self._open,
        }.get(done, self._not_known)  # fmt: skip
        with self._lock:
            try:
                act(message)
            except Exception as error:  # also what nobody foresaw: without an answer the page waits for ever
                words = str(error) if isinstance(error, ErrorAgent) else f"{done} failed: {type(error).__name__}: {error}"
                self._problems[done] = one_line(words, 300)
                return self._problems[done]
            kept = ("filter",) if done == "refresh" else self._problems.keys() - {done}
            self._problems = {name: text for name, text in self._problems.items() if name in kept}
        return ""

    def _not_known(self, message: Mapping[str, Any]) -> None:
        raise ErrorConfig(f"the table cannot do {message.get('do')!r:.40}")

    def _sort(self, message: Mapping[str, Any]) -> None:
        by = str(message.get("by"))
        if by not in ORDERS:
            raise ErrorConfig(f"the table is sorted by one of {', '.join(ORDERS)}; got {by!r:.40}")
        self._descending = not self._descending if by == self._by else by not in _WORDS
        self._by, self._page = by, 0
        self._read()

    def _turn_to(self, message: Mapping[str, Any]) -> None:
        page = message.get("page", 0)
        if not isinstance(page, int):
            raise ErrorConfig(f"a page is a number, from 0; got {page!r:.40}")
        self._page = page
        self._stay_inside()

    def _filter(self, message: Mapping[str, Any]) -> None:
        given = message.get("form")
        if not isinstance(given, Mapping):
            raise ErrorConfig(f"a filter is a form of {', '.join(FIELDS)}; got {given!r:.40}")
        form = {name: _whole(str(given[name])).strip() for name in FIELDS if given.get(name) and name not in self._fixed}
        form = self._typed = {name: text for name, text in form.items() if text}
        self._where = self._selection(form)
        self._form, self._page = form, 0
        self._read()

    def _refresh(self, message: Mapping[str, Any]) -> None:
        self._where = self._selection(self._form)  # "7d" is another day by now
        self._read()
        self._read_choices()

    def _select(self, message: Mapping[str, Any]) -> None:
        ids = message.get("ids")
        if not isinstance(ids, list) or not all(isinstance(run_id, str) for run_id in ids):
            raise ErrorConfig(f"what is selected is a list of run ids; got {ids!r:.40}")
        if not message.get("on"):
            self._selected = {run_id: None for run_id in self._selected if run_id not in ids}
            return
        known = self._known(ids)
        self._selected |= dict.fromkeys(run_id for run_id in ids if run_id in known)
        if missing := [run_id for run_id in ids if run_id not in known]:
            raise ErrorConfig(f"there is no run {missing[0]!r:.60} any more; Refresh takes it out of the table")

    def _select_all(self, message: Mapping[str, Any]) -> None:
        if message.get("on"):
            self._selected |= dict.fromkeys(self._ids())
        else:
            self._selected = {}

    def _thumb(self, message: Mapping[str, Any]) -> None:
        from agentroute.upkeep import score

        run_id, value = str(message.get("id")), 1 if message.get("value") else 0
        if self._thumbs(Selection(run_id=(run_id,))).get(run_id) == value:
            self.store.delete_score(run_id, THUMB)
        else:
            score(run_id, THUMB, value, store=self.store)

    def _open(self, message: Mapping[str, Any]) -> None:
        from .card import Card
        from .display import to_html

        self.opened = None
        self.opened = to_html(Card.from_result(self.store.record(str(message.get("id")))))

    # ---- reading ------------------------------------------------------------------------------------------------------

    def _selection(self, form: Mapping[str, str]) -> Selection:
        return Selection.of(**{**self._fixed, **form})

    def _read(self) -> None:
        """Counts the runs that match. To look into packed texts takes longer than all else, so what was found so is kept while
        nothing is new."""
        key = (self._where, self.store.watermark())
        if self._found is None or self._found[0] != key:
            where = self._where if self._where.text is None else Selection(run_id=tuple(self.store.run_ids(self._where)))
            if self._selected and self._found and self._found[0][1][0] != key[1][0]:  # another epoch: something was deleted
                known = self._known(self._selected)
                self._selected = {run_id: None for run_id in self._selected if run_id in known}
            self._found = key, where, self.store.run_count(where)
        self._total, self._order = self._found[2], None
        self._stay_inside()

    def _ids(self, offset: int = 0, limit: int | None = None) -> list[str]:
        """Of the runs that match, in the order shown. Who turns pages gets them from the list of all: to find one in the middle takes
        as long as to find all."""
        where = self._found[1] if self._found else self._where
        if self._order is None and not offset and limit is not None:
            return self.store.run_ids(where, by=self._by, descending=self._descending, limit=limit)
        if self._order is None:
            self._order = self.store.run_ids(where, by=self._by, descending=self._descending)
        return self._order[offset : None if limit is None else offset + limit]

    def _read_choices(self) -> None:
        names = {name: self.store.run_values(column, CHOICES) for name, column in (("agent", "agent_name"), ("model", "request_model"))}
        names["tag"] = [pair for pair in _pairs(self.store.run_values("tags", CHOICES)) if one_line(pair, LABEL) == pair]  # typed as they are shown
        self._choices = {name: [(value, one_line(value, LABEL)) for value in values] for name, values in names.items()}

    def _stay_inside(self) -> None:
        self._page = min(max(self._page, 0), max(0, (self._total - 1) // PAGE))

    def _records(self, run_ids: list[str]) -> tuple[list[RunRecord], Selection]:
        """The runs in this order, but for those that were deleted meanwhile."""
        where = Selection(run_id=tuple(run_ids))
        found = {run.run_id: run for run in stored_runs(self.store, where)}
        return [found[run_id] for run_id in run_ids if run_id in found], where

    def _rows(self, run_ids: list[str]) -> list[dict[str, Any]]:
        runs, where = self._records(run_ids)
        uncertain, thumbs = saved_more(self.store, where), self._thumbs(where)
        return [
            {
                **run_cells(run, run.run_id in uncertain),
                "id": run.run_id,
                "failed": run.status == "error",
                "ok": run.status == "ok",
                "seconds": seconds_text(run.duration_s),
                "thumb": thumbs.get(run.run_id),
                "selected": run.run_id in self._selected,
            }
            for run in runs
        ]

    def _thumbs(self, where: Selection) -> dict[str, float | None]:
        rows = self.store.select(ScoreRecord, where=where, columns=["run_id", "name", "scorer", "value"])
        return {run_id: value for run_id, name, scorer, value in rows if (name, scorer) == (THUMB, "")}

    def _checked(self, run_ids: Iterable[str]) -> dict[str, None]:
        run_ids = getattr(run_ids, "run_id", run_ids)  # a DataFrame of runs, or a Result
        wanted = dict.fromkeys(Selection.of(run_id=run_ids).run_id or ())
        known = self._known(wanted)
        if missing := [run_id for run_id in wanted if run_id not in known]:
            raise ErrorConfig(f"there is no run {missing[0]!r:.60} in {self.store.path}; agentroute.runs() lists those there are")
        return wanted

    def _known(self, run_ids: Iterable[str]) -> set[str]:
        """Those of them that the history has."""
        return {run_id for (run_id,) in self.store.select(RunRecord, where=Selection(run_id=tuple(run_ids)), columns=["run_id"])}

    def _said(self) -> str:
        """Order and filters in words."""
        words = "newest first" if self._descending else "oldest first"
        if self._by != "started_at":
            way = ("Z to A" if self._descending else "A to Z") if self._by in _WORDS else ("most first" if self._descending else "least first")
            words = f"by {ORDERS[self._by]}, {way}"
        given = {**self._fixed, **self._form}
        return "; ".join([words, *(f"{name}: {one_line(_words(value), 60)}" for name, value in given.items())])


def _whole(text: str) -> str:
    """Half an emoji is no text: no database takes it, and no answer to the page can hold it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _words(value: object) -> str:
    """A filter's value as one reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={text}" for name, text in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)


def _pairs(texts: Iterable[str]) -> list[str]:
    """`name=value` of all these sets of tags, once each."""
    pairs: dict[str, None] = {}
    for text in texts:
        try:
            tags = json.loads(text)
        except ValueError:
            continue
        if isinstance(tags, dict):
            pairs |= {f"{name}={value}": None for name, value in tags.items()}
    return list(pairs)[:CHOICES]
