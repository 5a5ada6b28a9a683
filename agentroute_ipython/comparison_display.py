"""Runs side by side: live while they go on, then with what differs between their answers. Drawn as `display` draws one run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agentroute.events import Event
from agentroute.figures import cost_text, count_text, plural, seconds_text

from .card import Card
from .comparison_style import COMPARISON_STYLE
from .differences import diff_html
from .display import answer_html, error_html
from .escaping import line as _line
from .formats import one_line
from .live import LiveView
from .money import cost, cost_words, money_words
from .plain import call_line, json_value, output_text, usage_items, usage_line
from .plain import to_text as card_text
from .tables import Table
from .word_differences import by_lines

__all__ = ["Cards", "ComparisonView", "to_html", "to_text"]

CALLS = 20
"""Tool calls of a run that are listed."""
BESIDE = 3
"""Runs up to which all are redrawn ten times a second; more are redrawn less often, so that drawing costs no more."""
FIELDS = 40
"""Fields of structured answers that are compared."""

_LEFT = 'style="text-align:left"'


class Cards:
    """The runs that are compared, as they are right now: the fold of `(index, event)` pairs. To a view it is what a Card is."""

    def __init__(self, labels: Sequence[str], cards: Sequence[Card] | None = None) -> None:
        self.labels = list(labels)
        self.cards = list(cards) if cards is not None else [Card() for _ in labels]
        self._answers: dict[int, str] = {}

    def answer_html(self, index: int) -> str:
        """The answer of a run as HTML. That of one that has ended is made once, and not for each redraw of the others."""
        if not self.cards[index].ended:
            return answer_html(self.cards[index])
        if index not in self._answers:
            self._answers[index] = answer_html(self.cards[index])
        return self._answers[index]

    def apply(self, item: tuple[int, Event]) -> Cards:
        index, event = item
        self.cards[index].apply(event)
        return self

    def abandon(self, text: str) -> None:
        for card in self.cards:
            card.abandon(text)

    @property
    def ended(self) -> bool:
        return all(card.ended for card in self.cards)

    @property
    def elapsed_s(self) -> float | None:
        return max((card.elapsed_s for card in self.cards if card.elapsed_s is not None), default=None)

    @elapsed_s.setter
    def elapsed_s(self, seconds: float) -> None:
        for card in self.cards:
            if not card.ended or card.elapsed_s is None:
                card.elapsed_s = seconds


class ComparisonView(LiveView):
    """Draws runs side by side from `(index, event)` pairs, as LiveView draws one: the same methods, and the limits of one run for all.

    In a terminal, a line is printed as each run ends, and the answers one after the other when all have.

    Args:
        labels: one for each run, in order; no two are equal.
        shell, render, options: as of LiveView.
    """

    def __init__(self, *, labels: Sequence[str], shell: Any = None, render: str = "auto", **options: Any) -> None:
        self._labels = list(labels)
        super().__init__(shell=shell, render=render, **{"rate_hz": 10 * min(1, BESIDE / max(len(self._labels), 1)), **options})

    def _new_card(self) -> Cards:
        return Cards(self._labels)

    def _card_of(self, index: int) -> Card:
        return self.card.cards[index]  # type: ignore[no-any-return]

    def _bundle(self) -> dict[str, str]:
        return {"text/html": to_html(self.card), "text/plain": to_text(self.card)}

    def _lines(self, shell: Any, silent: bool) -> _Lines:
        return _Lines(self.card, silent)


class _Lines:
    """What a terminal shows: a line as each run ends, everything at the end."""

    def __init__(self, cards: Cards, silent: bool) -> None:
        self._cards, self._silent = cards, silent
        self._told: set[int] = set()

    def show(self) -> None:
        names = ", ".join(one_line(label, 60) for label in self._cards.labels)
        self._write(f"comparing {names}")

    def show_again(self) -> None:
        self._silent = False
        self._write(to_text(self._cards))

    def changed(self) -> None: ...

    def update(self, item: tuple[int, Event]) -> float | None:
        index = item[0]
        card = self._cards.cards[index]
        if card.ended and index not in self._told:
            self._told.add(index)
            self._write(f"{len(self._told)} of {len(self._cards.cards)}: {one_line(self._cards.labels[index], 60)}: {usage_line(card)}")
        return None

    def tick(self) -> float | None:
        return None

    def close(self) -> None:
        self._write("\n" + to_text(self._cards))

    def _write(self, text: str) -> None:
        if not self._silent:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()


# ------------------------------------------------------------------------------------------------------ what is told of all


@dataclass(frozen=True)
class _Compared:
    """What there is to say about the runs together."""

    cards: Cards

    @cached_property
    def answers(self) -> list[str | None]:
        """The answers as text, None where a run has none."""
        return [_answer_text(card) for card in self.cards.cards]

    @cached_property
    def first(self) -> int:
        """The first run with an answer, which the others are compared with; -1 when there is none."""
        return next((index for index, answer in enumerate(self.answers) if answer is not None), -1)

    def like(self, index: int) -> int | None:
        """The first run with the same answer, where it is an earlier one."""
        answer = self.answers[index]
        earlier = self.answers.index(answer) if answer is not None else index
        return earlier if earlier < index else None

    @cached_property
    def fields(self) -> list[dict[str, Any]]:
        """The answers as dictionaries, where all of them are; an empty list where they are not."""
        values = [json_value(card.output) for card in self.cards.cards if _answer_text(card) is not None]
        return values if len(values) > 1 and all(isinstance(value, dict) for value in values) else []

    @cached_property
    def answered(self) -> list[int]:
        return [index for index, answer in enumerate(self.answers) if answer is not None]

    def answer_words(self, index: int) -> str:
        """`same as A`, `differs from A`, or why there is nothing to compare."""
        if self.answers[index] is None:
            return self.cards.cards[index].state if self.cards.cards[index].state != "done" else "empty"
        if (like := self.like(index)) is not None:
            return f"same as {self.cards.labels[like]}"
        return "" if index == self.first else f"differs from {self.cards.labels[self.first]}"

    def verdict(self) -> str:
        """`all 3 answers are the same`, or `2 different answers among 3: one 2 times (a and c), one once`."""
        groups: dict[str, list[str]] = {}
        for label, answer in zip(self.cards.labels, self.answers, strict=True):
            if answer is not None:
                groups.setdefault(answer, []).append(label)
        number = sum(map(len, groups.values()))
        if number < 2:
            return ""
        if len(groups) == 1:
            return f"all {number} answers are the same"
        if len(groups) == number:
            return f"{number} answers, no two the same"
        ordered = sorted(groups.values(), key=len, reverse=True)
        often = [f"one {len(labels)} times ({_and(labels)})" for labels in ordered if len(labels) > 1]
        alone = len(groups) - len(often)
        shown = ", ".join([*often, *(["one once" if alone == 1 else f"{alone} once each"] if alone else [])])
        return f"{len(groups)} different answers among {number}: {shown}"

    def state_words(self) -> str:
        """`done, 3 runs`, `3 runs, 2 done, 1 failed`, or while they go on `1 of 3 runs has ended`."""
        states = [card.state for card in self.cards.cards]
        if not self.cards.ended:
            ended = sum(state != "running" for state in states)
            words = f"{ended} of {plural(len(states), 'run')} {'has' if ended == 1 else 'have'} ended"
            waiting = sum(bool(card.waiting) and not card.ended for card in self.cards.cards)
            return f"{words}, {waiting} {'waits' if waiting == 1 else 'wait'} for your approval" if waiting else words
        if len(set(states)) == 1:
            return f"{states[0]}, {plural(len(states), 'run')}"
        return f"{plural(len(states), 'run')}, {', '.join(f'{states.count(state)} {state}' for state in dict.fromkeys(states))}"

    def total_words(self) -> str:
        """`done, 3 runs, all 3 answers are the same, $0.012 together`: the last line, for who hears it."""
        money = money_words(self.cards.cards)
        return ", ".join(filter(None, (self.state_words(), self.verdict(), f"{money} together" if "$" in money else money)))

    def rows(self) -> list[list[str]]:
        """Label, state, tokens in, tokens out, cost, time, answer; the cheapest and the fastest are named so."""
        cards = self.cards.cards
        costs = [usd if not more else None for usd, more in map(cost, cards)]
        times = [card.duration_s if card.ended and card.state == "done" else None for card in cards]
        cheapest = _best([usd if card.state == "done" else None for usd, card in zip(costs, cards, strict=True)], cost_text)
        fastest = _best(times, seconds_text)
        rows = []
        for index, card in enumerate(cards):
            run = card.run
            tokens = [count_text(run.input_tokens if run else None), count_text(run.output_tokens if run else None)]
            price = f"{cost_words(card)}{' cheapest' if index in cheapest else ''}"
            time = f"{seconds_text(card.duration_s)}{' fastest' if index in fastest else ''}"
            rows.append([self.cards.labels[index], card.state, *tokens, price, time, self.answer_words(index)])
        return rows


_HEADS = ("Run", "State", "Tokens in", "Tokens out", "Cost", "Time", "Answer")


def _answer_text(card: Card) -> str | None:
    if card.state != "done":
        return None
    if card.output is not None:
        return output_text(card.output)
    return card.answer.strip() or None


def _best(values: Sequence[float | None], words: Callable[[float | None], str]) -> set[int]:
    """Which values are the smallest, as they are written; none where there are not two that differ."""
    known = {index: value for index, value in enumerate(values) if value is not None}
    shown = {index: words(value) for index, value in known.items()}
    if len(set(shown.values())) < 2:
        return set()
    least = shown[min(known, key=known.__getitem__)]
    return {index for index, text in shown.items() if text == least}


def _and(labels: Sequence[str]) -> str:
    shown = [*labels[:4], *([f"{len(labels) - 4} more"] if len(labels) > 4 else [])]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


# ------------------------------------------------------------------------------------------------------------------- HTML


def to_html(cards: Cards) -> str:
    """One `<section>`: a column for each run, then what they cost and took, then what differs. Columns stand below each other
    where there is no room beside, and where the style sheet is stripped."""
    compared = _Compared(cards)
    states = [card.state for card in cards.cards]
    state = next((state for state in ("running", "interrupted", "failed") if state in states), "done")
    columns = "".join(_column(compared, index) for index in range(len(cards.cards)))
    first, comma, rest = (compared.total_words() if cards.ended else compared.state_words()).partition(", ")
    line = f'<b class="agr-state">{_line(first, 200)}</b>{comma}{_line(rest, 600)}'
    below = f"{_summary(compared)}{_fields(compared)}" if cards.ended else ""
    return (
        f'<section class="agr agr-comparison agr-{state} mathjax_ignore tex2jax_ignore"><style>{COMPARISON_STYLE}</style>\n'
        f'<div class="agr-columns">\n{columns}</div>\n<div class="agr-run"><div>{line}</div>\n{below}</div>\n</section>'
    )


def _column(compared: _Compared, index: int) -> str:
    """Label and usage, answer, tool calls, and how the answer differs from the first one."""
    cards, card = compared.cards, compared.cards.cards[index]
    usage = f'<p class="agr-label"><b>{_line(cards.labels[index], 120)}</b> · {_line(_usage(cards.labels[index], card), 300)}</p>\n'
    like = compared.like(index) if cards.ended else None
    if like is not None:
        answer = f'<div class="agr-answer"><p>Same answer as <b>{_line(cards.labels[like], 120)}</b>.</p></div>\n'
    else:
        answer = cards.answer_html(index)
    difference = _difference(compared, index) if cards.ended and like is None else ""
    return f'<div class="agr-column">{usage}{error_html(card)}{answer}{_calls(card)}{difference}</div>\n'


def _usage(label: str, card: Card) -> str:
    """The usage line, without the model where the label has it."""
    return ", ".join(one_line(item, 120) for item in usage_items(card) if item != card.model or item not in label)


def _calls(card: Card) -> str:
    if not (calls := card.tool_calls):
        return ""
    items = [f"<li><code>{_line(call_line(card, call), 220)}</code></li>" for call in calls[:CALLS]]
    if len(calls) > CALLS:
        items.append(f"<li>{plural(len(calls) - CALLS, 'more tool call')}</li>")
    body = f"<ul>{''.join(items)}</ul>"
    if not card.ended:
        return f'<div class="agr-dim">{body}</div>'
    return f"<details><summary>{plural(len(calls), 'tool call')}</summary>{body}</details>\n"


def _difference(compared: _Compared, index: int) -> str:
    """The words that this answer does not share with the first one, to be opened."""
    answer, first = compared.answers[index], compared.answers[compared.first]
    if compared.fields or answer is None or first is None or index == compared.first:
        return ""
    how = ", line by line" if by_lines(first, answer) else ""
    label = _line(compared.cards.labels[compared.first], 120)
    return f"<details><summary>what differs from <b>{label}</b>{how}</summary>{diff_html(first, answer)}</details>\n"


def _summary(compared: _Compared) -> str:
    heads = "".join(f'<th scope="col"{f" {_LEFT}" if head in ("Run", "State", "Answer") else ""}>{head}</th>' for head in _HEADS)
    body = "".join(_summary_row(row) for row in compared.rows())
    table = f"<table><caption>Cost and time</caption>\n<thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table>"
    return f'<div class="agr-steps">{table}</div>\n'


def _summary_row(row: Sequence[str]) -> str:
    label, state, *figures, answer = (_line(cell, 120) for cell in row)
    cells = "".join(f"<td>{_marked(figure)}</td>" for figure in figures)
    return f'<tr><th scope="row" {_LEFT}>{label}</th><td {_LEFT}>{state}</td>{cells}<td {_LEFT}>{answer}</td></tr>\n'


def _marked(figure: str) -> str:
    words, _, last = figure.rpartition(" ")
    return f'{words} <b class="agr-best">{last}</b>' if last in ("cheapest", "fastest") else figure


def _fields(compared: _Compared) -> str:
    """Structured answers, field by field: a row for each that differs, and the names of the others."""
    values = compared.fields
    if not values:
        return ""
    names = list(dict.fromkeys(name for value in values for name in value))[:FIELDS]
    cells = {name: ["(not there)" if name not in value else _cell(value[name]) for value in values] for name in names}
    differing = [name for name in names if len(set(cells[name])) > 1]
    same = [name for name in names if name not in differing]
    note = f"<p>The same in all: {_line(', '.join(same), 400)}</p>\n" if same else ""
    if not differing:
        return note
    labels = [compared.cards.labels[index] for index in compared.answered]
    heads = "".join(f'<th scope="col" {_LEFT}>{_line(head, 80)}</th>' for head in ("Field", *labels))
    body = "".join(
        f'<tr><th scope="row" {_LEFT}>{_line(name, 80)}</th>{"".join(f"<td {_LEFT}>{_line(cell, 300)}</td>" for cell in cells[name])}</tr>\n'
        for name in differing
    )
    table = f"<table><caption>Fields that differ</caption>\n<thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table>"
    return f'<div class="agr-steps agr-fields">{table}</div>\n{note}'


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


# ------------------------------------------------------------------------------------------------------------------ plain


def to_text(cards: Cards) -> str:
    """The answers one after the other, each under its label; then the table, and the last line."""
    compared = _Compared(cards)
    parts: list[str] = []
    for index, card in enumerate(cards.cards):
        like = compared.like(index) if cards.ended else None
        body = card_text(card) if like is None else f"(same answer as {one_line(cards.labels[like], 80)})\n{usage_line(card)}"
        parts.append(f"--- {one_line(cards.labels[index], 80)}\n{body}\n")
    if not cards.ended:
        return "\n".join([*parts, one_line(compared.state_words(), 600)])
    rows = [[one_line(cell, 60) for cell in row] for row in compared.rows()]
    table = Table(rows, tuple(head.lower() for head in _HEADS), (2, 3, 4, 5))
    return "\n".join([*parts, repr(table), "", one_line(compared.total_words(), 800)])
