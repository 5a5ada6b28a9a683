"""What differs between two runs, and the words that two texts do not share, as HTML and as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentroute.errors import ErrorConfig
from agentroute.figures import cost_text, count_text, plural, seconds_text
from agentroute.records import Record, RunRecord

from .comparison_style import DIFFERENCE_STYLE
from .escaping import line as _line
from .escaping import text_block as _block
from .formats import one_line, visible
from .steps import COMPARISON, POSITION
from .tables import Table
from .word_differences import Kind, by_lines, word_diff

if TYPE_CHECKING:
    from agentroute import Result, RunStore

    from .comparison import Results

__all__ = ["RunDifferences", "diff", "diff_html", "diff_text", "run_id_of", "word_diff"]

AROUND = 100
"""Characters that are shown of what is equal on each side of a change."""
SHOWN = 12_000
"""Characters of one difference that are shown."""
SHORTEST = 4
"""Characters by which a run may be named."""

_LEFT = 'style="text-align:left"'
_MARKS: dict[str, tuple[str, str]] = {"delete": ("[-", "-]"), "insert": ("{+", "+}")}
_TAGS: dict[str, tuple[str, str]] = {"delete": ("del", "removed"), "insert": ("ins", "added")}


# -------------------------------------------------------------------------------------------------- two texts, side by side


def diff_html(before: str, after: str) -> str:
    """One paragraph: what was removed in `<del>`, what was added in `<ins>`, each with the word for a reader who cannot see it."""
    parts = []
    for kind, text, left_out in _shown(before, after):
        if kind == "equal":
            parts.append(_inline(text))
        else:
            tag, word = _TAGS[kind]
            marked = _inline(text.replace("\r", "").replace("\n", "↵\n"))
            parts.append(f'<{tag}><i class="agr-word">[{word}: </i>{marked}<i class="agr-word">]</i></{tag}>')
        if left_out:
            parts.append(f" <i>… {left_out} …</i> ")
    return f'<p class="agr-diff" dir="auto">{"".join(parts)}</p>'


def diff_text(before: str, after: str) -> str:
    """`It [-is late-]{+left today+}.`, as `git diff --word-diff` writes it."""
    parts = []
    for kind, text, left_out in _shown(before, after):
        start, end = _MARKS.get(kind, ("", ""))
        parts.append(f"{start}{visible(text)}{end}{f' … {left_out} … ' if left_out else ''}")
    return "".join(parts)


def _shown(before: str, after: str) -> Iterator[tuple[Kind, str, str]]:
    """The pieces, without most of what is equal and of what is too long; the third says what is left out behind each."""
    pieces, room = word_diff(before, after), SHOWN
    for number, (kind, text) in enumerate(pieces):
        if room <= 0:
            changes = sum(kind != "equal" for kind, _ in pieces[number:])
            yield "equal", "", f"{plural(changes, 'more change')} not shown" if changes else "the same to the end"
            return
        head = 0 if kind == "equal" and number == 0 else AROUND if kind == "equal" else room
        tail = AROUND if kind == "equal" and number < len(pieces) - 1 else 0
        left_out = len(text) - head - tail
        if left_out <= (2 * AROUND if kind == "equal" else 0):
            yield kind, text, ""
        else:
            same = "the same characters" if kind == "equal" else "more characters"
            yield kind, text[:head], f"{left_out:,} {same}"
            if tail:
                yield "equal", text[-tail:], ""
        room -= min(len(text), head + tail)


def _inline(text: str) -> str:
    return _block(text, 2 * SHOWN).replace("\n", "<br>")


def _how(before: str, after: str) -> str:
    """What a reader must know about a difference, in words."""
    return "compared line by line, as the texts are long" if by_lines(before, after) else ""


# ---------------------------------------------------------------------------------------------------------------- two runs


@dataclass
class RunDifferences:
    """What differs between two runs: shown as HTML in a notebook, as text elsewhere. No ids, no times of day."""

    before: Record
    after: Record
    title: str = "What changed between the two runs"
    about: Sequence[str] = ()
    """What else a reader must know of the two runs, a sentence each."""
    rows: list[tuple[str, str, str, str]] = field(init=False)
    """What it is, before, after, and how it changed: settings that differ, and all figures."""
    texts: list[tuple[str, str, str]] = field(init=False)
    """Texts that differ: what it is, before, after."""
    same: list[str] = field(init=False)
    """What is equal in both."""
    notes: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.rows, self.texts, self.same, self.notes = [], [], [], []
        for name, read in _SETTINGS:
            before, after = read(self.before), read(self.after)
            if before != after:
                self.rows.append((name, before or "none", after or "none", "changed"))
            elif before:
                self.same.append(name)
        self._compare_texts()
        for name, figure, words in _FIGURES:
            self.rows.append((name, *_figures(figure(self.before.run), figure(self.after.run), words)))

    def _compare_texts(self) -> None:
        kept = _kept(self.before), _kept(self.after)
        if not all(kept):
            which = "either run" if not any(kept) else "the first run" if not kept[0] else "the second run"
            self.notes.append(f"prompt, instructions, tools and answer cannot be compared: the run history keeps figures only of {which}")
            return
        for name, read in (("prompt", _prompt), ("instructions", _instructions)):
            self._compare(name, read(self.before), read(self.after))
        self._compare_tools()
        before, after = _answer(self.before), _answer(self.after)
        if before is None or after is None:
            going_on = any(side.run.going_on for side, text in ((self.before, before), (self.after, after)) if text is None)
            missing = "neither run has an" if before is after else f"the {'first' if before is None else 'second'} run has no"
            self.notes.append(f"{missing} answer{' yet' if going_on else ''}")
        else:
            self._compare("answer", before, after)

    def _compare(self, name: str, before: str, after: str) -> None:
        if before != after:
            self.texts.append((name, before, after))
        elif before:
            self.same.append(name)

    def _compare_tools(self) -> None:
        before, after = _tools(self.before), _tools(self.after)
        if list(before) == list(after) and before:
            self.same.append("tool names")
        elif before != after:
            words = _added_and_removed(list(before), list(after))
            self.rows.append(("tools", ", ".join(before) or "none", ", ".join(after) or "none", words))
        for name in before:
            if name in after:
                self._compare(f"definition of {name}", before[name], after[name])

    @property
    def unchanged(self) -> bool:
        """Whether prompt, instructions, tools, model, settings and answer are all equal; figures may differ."""
        return not self.texts and not any(change and name not in _FIGURE_NAMES for name, _, _, change in self.rows)

    @property
    def asked_otherwise(self) -> bool:
        """Whether what was asked differs, or who was asked: prompt, instructions, tools, model or another setting."""
        changed = {name for name, *_ in self.texts} | {name for name, _, _, change in self.rows if change and name not in _FIGURE_NAMES}
        return not changed <= _CAME_OF_IT

    def _words(self) -> list[str]:
        """What is said below the table."""
        words = list(self.notes)
        if self.unchanged and not self.notes:
            words.append("nothing changed in prompt, instructions, tools, model or settings, and the answer is the same")
        elif self.same:
            words.append(f"unchanged: {', '.join(self.same)}")
        return [*words, *self.about]

    def __repr__(self) -> str:
        cells = [[one_line(cell, 60) for cell in row] for row in self.rows]
        parts = [self.title, repr(Table(cells, ("", "before", "after", "change")))]
        for name, before, after in self.texts:
            how = _how(before, after)
            parts.append(f"\n{one_line(name, 80)} changed{f' ({how})' if how else ''}:\n{diff_text(before, after)}")
        return "\n".join([*parts, *(["", *words] if (words := self._words()) else [])])

    def _repr_html_(self) -> str:
        heads = "".join(f'<th scope="col" {_LEFT}>{head}</th>' for head in ("", "Before", "After", "Change"))
        body = "".join(
            f'<tr><th scope="row" {_LEFT}>{_line(row[0], 80)}</th>{"".join(f"<td {_LEFT}>{_line(cell, 200)}</td>" for cell in row[1:])}</tr>\n'
            for row in self.rows
        )
        texts = "".join(_text_html(*text) for text in self.texts)
        notes = "".join(f"<p>{_line(words, 600)}</p>" for words in self._words())
        return (
            f'<section class="agr agr-sheet agr-differences mathjax_ignore tex2jax_ignore"><style>{DIFFERENCE_STYLE}</style>\n'
            f'<div class="agr-run"><div>{_line(self.title, 120)}</div>\n<div class="agr-steps"><table>\n'
            f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n{texts}{notes}</div>\n</section>"
        )


def _text_html(name: str, before: str, after: str) -> str:
    how = _how(before, after)
    head = f"<p><b>{_line(name, 80).capitalize()}</b> changed{f', {how}' if how else ''}</p>"
    return f'<div class="agr-text">{head}\n{diff_html(before, after)}</div>\n'


# ------------------------------------------------------------------------------------------------------ what a run is made of


def _kept(record: Record) -> bool:
    """Whether the record holds texts, and not figures only."""
    texts = (record.run.prompt_text, record.run.output_text, *(message.content_text for message in record.messages))
    return any(texts) or not record.run.n_turns


def _prompt(record: Record) -> str:
    return record.run.prompt_text


def _instructions(record: Record) -> str:
    """The system messages that the conversation begins with."""
    texts = []
    for message in record.messages:
        if message.role != "system":
            break
        texts.append(message.content_text or "")
    return "\n\n".join(texts)


def _answer(record: Record) -> str | None:
    text = record.run.output_text
    return text if text is None else _pretty(text)


def _pretty(text: str) -> str:
    """JSON with a line for each field, so that a difference falls on its own field; other text as it is."""
    if text[:1] not in "{[":
        return text
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return text


def _tools(record: Record) -> dict[str, str]:
    """Definitions by name, as indented JSON."""
    try:
        definitions = json.loads(record.run.tools_text or "[]")
        named = [(one["function"]["name"] if "function" in one else one["name"], one) for one in definitions]
    except (ValueError, TypeError, KeyError, RecursionError):  # a record that was changed by hand
        return {"(unreadable)": record.run.tools_text or ""}
    return {str(name): json.dumps(one, ensure_ascii=False, indent=2, sort_keys=True) for name, one in named}


def _added_and_removed(before: Sequence[str], after: Sequence[str]) -> str:
    added, removed = [name for name in after if name not in before], [name for name in before if name not in after]
    parts = (("added", added), ("removed", removed))
    return "; ".join(f"{word} {', '.join(names)}" for word, names in parts if names) or "in another order"


def _texts_of(values: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))


def _tags(record: Record) -> str:
    try:
        tags = json.loads(record.run.tags or "{}")
        hidden = (COMPARISON, POSITION) if POSITION in tags and COMPARISON in tags else ()
        return ", ".join(f"{name}={value}" for name, value in sorted(tags.items()) if name not in hidden)
    except (ValueError, AttributeError, RecursionError):
        return record.run.tags or ""


def _status(record: Record) -> str:
    run = record.run
    if run.going_on:
        return "running"
    return f"{run.status}: {run.error_type}: {run.error_text or ''}".rstrip(": ") if run.error_type else run.status


_SETTINGS: tuple[tuple[str, Callable[[Record], str]], ...] = (
    ("agent", lambda record: record.run.agent_name),
    ("model", lambda record: record.run.request_model),
    ("model that answered", lambda record: _texts_of(turn.response_model for turn in record.turns if turn.response_model != turn.request_model)),
    ("endpoint", lambda record: _texts_of(turn.base_url for turn in record.turns)),
    ("conversation", lambda record: record.run.session_id or ""),
    ("tags", _tags),
    ("status", _status),
    ("tools called", lambda record: ", ".join(call.tool_name for call in record.tool_calls)),
)
_CAME_OF_IT = {"answer", "model that answered", "endpoint", "conversation", "status", "tools called"}


def _paid_s(run: RunRecord) -> float | None:
    """Seconds; none for a run that was replayed, which would be others each time."""
    return None if run.n_turns and run.n_replayed == run.n_turns else run.duration_s


def _own_cost(run: RunRecord) -> float | None:
    """What its answers cost, also those that were paid for before."""
    known = [cost for cost in (run.cost_usd, run.cost_saved_usd) if cost is not None]
    return sum(known) if known else None


_FIGURES: tuple[tuple[str, Callable[[RunRecord], float | None], Callable[[Any], str]], ...] = (
    ("model calls", lambda run: run.n_turns, count_text),
    ("tokens in", lambda run: run.input_tokens, count_text),
    ("tokens out", lambda run: run.output_tokens, count_text),
    ("cost", _own_cost, cost_text),
    ("time", _paid_s, seconds_text),
)
_FIGURE_NAMES = {name for name, _, _ in _FIGURES}


def _figures(before: float | None, after: float | None, words: Callable[[Any], str]) -> tuple[str, str, str]:
    shown = tuple("unknown" if value is None else words(value) for value in (before, after))
    if before is None or after is None or shown[0] == shown[1]:
        change = "" if None in (before, after) else "same"
    elif before:
        change = f"{(after - before) / before:+,.0%}".replace("%", " %").replace("-", "−")
    else:
        change = "more"
    return shown[0], shown[1], change


# -------------------------------------------------------------------------------------------------------------- asked for


def diff(before: Result[Any] | Results | str, after: Result[Any] | str | None = None, *, store: RunStore | None = None) -> RunDifferences:
    """What differs between two runs: prompt, instructions, tools, model, tokens, cost, time and the answer.

    Args:
        before, after: a Result, or a run id (or the beginning of one). The Results of a comparison of two runs stand for both.
        store: where run ids are looked up; by default the history that this process records in.

    Raises:
        ErrorConfig: there is no such run, the Result has no record, or these are not two runs.
    """
    if after is None:
        if isinstance(before, str) or not isinstance(before, Sequence) or len(before) != 2:
            raise ErrorConfig(f"diff compares two runs: diff(run, other); got {_given(before)}")
        both: Sequence[Any] = before
        before, after = both
    return RunDifferences(_record(before, store), _record(after, store))


def _record(run: Any, store: RunStore | None) -> Record:
    if isinstance(run, str):
        from agentroute.store import RunStore, default_store

        known = store or default_store() or RunStore()
        return known.record(run_id_of(run, known))
    record = getattr(run, "record", None)
    if record is None:
        raise ErrorConfig(f"diff compares Results of runs, or run ids; got {_given(run)}")
    assert isinstance(record, Record)
    return record


def _given(value: object) -> str:
    """What was given instead of two runs, and how to write it where it holds them."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 1:
        return f"{plural(len(value), 'run')} of a comparison; name two of them: diff(results[0], results[1])"
    return one_line(repr(value), 80)


def run_id_of(word: str, store: RunStore) -> str:
    """The id of the run that is called so, or whose id begins so.

    Raises:
        ErrorConfig: there is none, or more than one.
    """
    from .arguments import nearest

    ids: list[str] = [run_id for (run_id,) in store.select(RunRecord, columns=["run_id"])]
    if word in ids:
        return word
    found = [run_id for run_id in ids if run_id.startswith(word.upper())] if len(word) >= SHORTEST else []
    if len(found) == 1:
        return found[0]
    if found:
        raise ErrorConfig(f"{plural(len(found), 'run')} have an id that begins with {one_line(word, 40)}; give more of it")
    hint = nearest(word.upper(), sorted(ids)[-200:])
    raise ErrorConfig(f"no run has the id {one_line(word, 60)}{hint}\n%agent runs lists the runs and their ids")
