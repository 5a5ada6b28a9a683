"""The table of a card's turns and tool calls: what each did, its tokens, cost and time, with a bar for both.

A bar is two empty elements that have nothing but a width, so that without the style sheet nothing is there; the figure
stands above it in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agentroute.figures import cost_text, count_text, plural, seconds_text
from agentroute.records import ToolCallRecord, TurnRecord

from .card import Card
from .escaping import LEFT, code, line, text_block
from .formats import call_text
from .plain import CUT_SHORT, call_word, going_word, maybe_charged
from .trees import container, tree

__all__ = ["BEGINNING", "VALUE", "timeline"]

TIMELINE = 3_400
"""Characters that all arguments and results of a card share; short ones are whole, the long ones get equal parts."""
ROW = 300
"""What each row takes from that, so that a card with its style sheet and plain form has less than 10 KB at eight calls."""
VALUE = 2_000
"""The most characters of an argument list, a result, an error or a turn's reasoning."""
INLINE = 160
"""Longer arguments and results open and close once the run is over."""
BEGINNING = 70
"""Characters of a longer one that are seen while it is closed."""
ROWS = 80
"""Turns and tool calls that are listed, and how many while the run is on."""
ROWS_RUNNING = 12

_FINISH = {"stop": "answer", "tool_calls": "tool calls", **CUT_SHORT}
_LEFT_PLAIN = 'style="text-align:left;font-weight:normal"'

Row = TurnRecord | ToolCallRecord


def timeline(card: Card) -> str:
    """Turns and tool calls in order; an empty string before the first turn has ended.

    While the run goes on it is made anew only when a turn or a call has begun or ended.
    """
    rows: list[Row] = [*card.turns, *card.calls.values()]
    if not rows:
        return ""
    if card.ended:
        return _table(card, rows)
    state = [(id(row), row.duration_s, going_word(card, row) if isinstance(row, ToolCallRecord) else "") for row in rows]
    known = card.drawn.get("timeline")
    if known is None or known[0] != (card.answer_turn, state):
        known = card.drawn["timeline"] = ((card.answer_turn, state), _table(card, rows))
    return str(known[1])


def _table(card: Card, rows: list[Row]) -> str:
    rows.sort(key=lambda row: (row.turn_index, row.call_index if isinstance(row, ToolCallRecord) else 0))
    limit = ROWS if card.ended else ROWS_RUNNING
    left_out = max(len(rows) - limit, 0)
    first = limit // 4 if card.ended else 0
    shown = rows[:first] + rows[first + left_out :] if left_out else rows
    texts = [text for row in shown if isinstance(row, ToolCallRecord) for text in _texts(row)]
    share = _share(texts, max(TIMELINE - ROW * len(shown), 0))
    scale = _Scale.of(card, rows)
    body = [_turn_row(card, row, scale) if isinstance(row, TurnRecord) else _call_row(card, row, scale, share) for row in shown]
    if left_out:
        body.insert(first, f'<tr><td colspan="5" {LEFT}>… {plural(left_out, "row")} left out, all in the result …</td></tr>\n')
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Tokens in", "Tokens out", "Cost", "Time"))
    return (
        '<div class="agr-steps"><table><caption>Turns and tool calls</caption>\n'
        f'<thead><tr><th scope="col" {LEFT}>Step</th>{heads}</tr></thead><tbody>\n{"".join(body)}</tbody></table></div>\n'
    )


def _texts(call: ToolCallRecord) -> tuple[str, str]:
    return call_text(call.tool_name, call.arguments_text), call.result_text or ""


def _share(texts: list[str], left: int) -> int:
    """How long a text may be so that all of them, the longer ones cut to this, have `left` characters or fewer."""
    for done, size in enumerate(sorted(map(len, texts))):
        if size * (len(texts) - done) > left:
            return min(VALUE, left // (len(texts) - done))
        left -= size
    return VALUE


# --------------------------------------------------------------------------------------------------------------- bars


@dataclass(frozen=True)
class _Scale:
    """What a whole bar stands for: all seconds, all US dollars; 0 where there is only one thing, or nothing, to compare."""

    start: datetime
    whole_s: float
    cost_usd: float

    @classmethod
    def of(cls, card: Card, rows: Sequence[Row]) -> _Scale:
        start = min((card.run or rows[0]).started_at, *(row.started_at for row in rows))
        timed = [row for row in rows if _seconds(row)]
        ends = [(row.started_at - start).total_seconds() + _seconds(row) for row in timed]
        whole = max(ends, default=0.0)
        if card.ended and card.run is not None:
            whole = max(whole, card.run.duration_s or 0.0)
        costs = [paid for row in rows if (paid := _paid(row))]
        return cls(start, whole if len(timed) > 1 else 0.0, sum(costs) if len(costs) > 1 else 0.0)

    def time(self, row: Row) -> str:
        """Where in the run it was and how long it took."""
        seconds = _seconds(row)
        if not self.whole_s or not seconds:
            return ""
        before = (row.started_at - self.start).total_seconds()
        return _bar(before / self.whole_s, seconds / self.whole_s)

    def cost(self, row: Row) -> str:
        """Its share of what the run cost."""
        return _bar(0.0, _paid(row) / self.cost_usd) if self.cost_usd and _paid(row) else ""


def _seconds(row: Row) -> float:
    """How long it took; 0 where that is unknown, or says nothing as the answer was replayed."""
    seconds = None if isinstance(row, TurnRecord) and row.replayed_from else row.duration_s
    return seconds if seconds is not None and 0 < seconds < math.inf else 0.0


def _paid(row: Row) -> float:
    return row.cost_usd if row.cost_usd is not None and 0 < row.cost_usd < math.inf else 0.0


def _bar(before: float, part: float) -> str:
    """`before` and `part` are shares of the whole."""
    left = min(max(round(before * 100), 0), 99)
    width = min(max(round(part * 100), 1), 100 - left)
    space = f'<i style="width:{left}%"></i>' if left else ""
    return f'<div>{space}<b style="width:{width}%"></b></div>'


# --------------------------------------------------------------------------------------------------------------- rows


def _turn_row(card: Card, turn: TurnRecord, scale: _Scale) -> str:
    if turn.error_type:
        stopped = card.state == "interrupted"  # which error it was stands above
        word = '<span class="agr-dim">interrupted</span>' if stopped else '<span class="agr-bad">failed</span>'
    else:
        finish = turn.finish_reason or ("" if turn.duration_s is not None else "interrupted")
        word = f'<span class="agr-dim">{_FINISH.get(finish) or line(finish, 40)}</span>'
    if turn.response_model and turn.response_model != turn.request_model:
        word += f' <span class="agr-dim">· {line(turn.response_model, 80)}</span>'
    if turn.replayed_from:
        word += ' <span class="agr-dim">· replayed</span>'
    more = ""
    if turn.turn_index != card.answer_turn and (said := card.text(turn.turn_index).strip()):
        more += f'<div class="agr-dim">{text_block(said, 600)}</div>'
    if thought := card.reasoning_of(turn.turn_index).strip():
        if card.ended:
            more += f'<details class="agr-dim"><summary>reasoning</summary><div>{text_block(thought, VALUE)}</div></details>'
        else:
            more += f'<div class="agr-dim">reasoning: {line(thought, BEGINNING)}</div>'
    cost = cost_text(turn.cost_usd) if turn.cost_usd is not None else "unknown" if maybe_charged(turn) else ""
    time = "" if turn.replayed_from else seconds_text(turn.duration_s)
    figures = (count_text(turn.input_tokens), count_text(turn.output_tokens), cost + scale.cost(turn), time + scale.time(turn))
    head = f'<th scope="row" {_LEFT_PLAIN}><b>Turn {turn.turn_index}</b> {word}{more}</th>'
    return f'<tr class="agr-turn">{head}{_cells(figures)}</tr>\n'


def _call_row(card: Card, call: ToolCallRecord, scale: _Scale, limit: int) -> str:
    going = going_word(card, call)
    limit = limit if card.ended else 0
    asked, told = _texts(call)
    parts = [_opening(asked, call.arguments_text, limit)]
    if not going and call.status != "ok":
        parts.append(_failure(call, told, limit))
    elif not going and call.result_text is not None:
        parts.append(_opening(told, told, limit, "→ "))
    cost = cost_text(call.cost_usd) + scale.cost(call) if call.cost_usd is not None else ""
    time = f'<b class="agr-busy">{going}</b>' if going else "" if card.replayed else seconds_text(call.duration_s) + scale.time(call)
    return f'<tr><td colspan="3" {LEFT}>{"".join(parts)}</td>{_cells((cost, time))}</tr>\n'


def _failure(call: ToolCallRecord, told: str, limit: int) -> str:
    """How a call failed, and what the model was told about it, in words."""
    stopped = call.status == "interrupted"
    word = f"error: {call_word(call)}" if call.status == "error" and call.error_type else call_word(call)
    text = f" {text_block(told, max(limit, INLINE) if len(told) > INLINE else INLINE)}" if told else ""
    return f'<div>→ <span class="agr-{"dim" if stopped else "bad"}">{line(word, 80)}</span>{text}</div>'


def _opening(text: str, inside: str, limit: int, lead: str = "") -> str:
    """Code on one line; where it is longer, its beginning on one line that opens to all of it, if `limit` leaves any.

    `inside` is what is shown then: as a tree or a table where it is JSON.
    """
    short = len(text) <= INLINE and "\n" not in text.strip()
    if short or limit <= INLINE:
        return f"<div>{lead}<code>{line(text, INLINE if short else BEGINNING)}</code></div>"
    value = container(inside)
    body = code(text, limit) if value is None else tree(value, limit)
    return f"<details><summary>{lead}<code>{line(text, BEGINNING)}</code></summary>{body}</details>"


def _cells(figures: tuple[str, ...]) -> str:
    return "".join(f"<td>{figure}</td>" for figure in figures)
