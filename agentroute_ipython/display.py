"""A card as static HTML. Pure: no shell, no clock.

Everything that is not ours (names, arguments, results, answers, errors) is cut, made visible and escaped on its way in,
and stands only in text, never in an attribute. The HTML has no script, loads nothing, and is made of paragraphs, details
and one table, so it reads well where the style sheet is stripped (GitHub, an untrusted notebook).
"""

from __future__ import annotations

import html
import json
import re
from typing import Any

from agentroute.figures import cost_text, count_text, plural, seconds_text
from agentroute.records import ToolCallRecord, TurnRecord

from .card import Card
from .formats import call_text, cut, one_line, visible
from .plain import CUT_SHORT, call_word, error_name, going_word, json_value, maybe_charged, to_text, usage_items, usage_line
from .style import STYLE

__all__ = ["to_html", "to_text", "usage_line"]

ANSWER = 30_000
"""Characters of an answer that are kept in the HTML; the Result has all of them."""
FOLD = 6_000
"""A longer answer opens and closes from here on; while it streams, half as many characters of its end are shown."""
TIMELINE = 4_000
"""Characters that all arguments and results of a card share; short ones are whole, the long ones get equal parts."""
ROW = 350
"""What each row takes from that, so that a card with its style sheet and plain form has less than 10 KB at eight calls."""
VALUE = 2_000
"""The most characters of an argument list, a result, an error or a turn's reasoning."""
INLINE = 160
"""Longer arguments and results open and close once the run is over."""
BEGINNING = 80
"""Characters of a longer one that are seen while it is closed."""
ROWS = 80
"""Turns and tool calls that are listed, and how many while the run is on."""
ROWS_RUNNING = 12

_FINISH = {"stop": "answer", "tool_calls": "tool calls", **CUT_SHORT}
# Where a long word may be broken also without a style sheet. A null character stands for it until all is escaped.
_UNBROKEN = re.compile("([!-\u02ff]{60})(?=[!-\u02ff])")
# Literal styles are what JupyterLab leaves in an untrusted notebook, where it aligns cells to the right otherwise.
_LEFT = 'style="text-align:left"'
_LEFT_PLAIN = 'style="text-align:left;font-weight:normal"'

Row = TurnRecord | ToolCallRecord


def to_html(card: Card) -> str:
    """One `<section>`: error, answer, and a usage line that opens to the table of turns and tool calls.

    While the run goes on all is open, as each redraw would close it again. Every block and row has a line of its own, so
    that a version control shows what changed.
    """
    # The two `ignore` classes keep MathJax from reading "$0.01 … $0.02" as a formula.
    start = f'<section class="agr agr-{card.state} mathjax_ignore tex2jax_ignore"><style>{STYLE}</style>\n'
    if card.ended:
        opened = " open" if card.state == "failed" else ""
        run = f'<details class="agr-run"{opened}><summary>{_usage(card)}</summary>\n{_timeline(card)}</details>'
    else:
        run = f'<div class="agr-run"><div>{_usage(card)}</div>\n{_timeline(card)}</div>'
    return f"{start}{_error(card)}{_answer(card)}{run}\n</section>"


# ------------------------------------------------------------------------------------------------------- foreign text


def _escaped(seen: str) -> str:
    """Text that is visible already, as HTML in which no word is too long for a line."""
    return html.escape(_UNBROKEN.sub("\\1\0", seen), quote=False).replace("\0", "<wbr>")


def _line(text: str, limit: int) -> str:
    """Foreign text as one line of HTML."""
    return _escaped(one_line(text, limit))


def _block(text: str, limit: int) -> str:
    """Foreign text as HTML with its line ends; a note stands where the middle was left out.

    `limit` is in characters of text; text that grows more than three-fold by being escaped gets fewer.
    """
    head, left_out, tail = cut(text, limit)
    head, tail = (_escaped(visible(part)) for part in (head, tail))
    if (size := len(head) + len(tail)) > 3 * limit:
        return _block(text, 3 * limit * limit // size)
    note = f"\n<i>… {left_out:,} characters left out here, whole in the result …</i>\n" if left_out else ""
    return head + note + tail


def _paragraphs(text: str, limit: int) -> str:
    """Paragraphs at blank lines, `<br>` at line ends, so that it reads the same without a style sheet.

    This is the place where safe Markdown will be rendered.
    """
    parts = [part.strip("\n") for part in _block(text, limit).split("\n\n")]
    return "".join(f'<p dir="auto">{part.replace(chr(10), "<br>")}</p>' for part in parts if part.strip())


# ------------------------------------------------------------------------------------------------------------- pieces


def _usage(card: Card) -> str:
    state, *rest = (_line(item, 120) for item in usage_items(card))
    items = [f'<b class="agr-state">{state}</b>' if state == card.state else f"<b>{state}</b>", *rest]
    if card.agent_name:
        items.insert(0, f"<b>{_line(card.agent_name, 80)}</b>")
    shown = [f"{item}\u00a0·" for item in items[:-1]] + items[-1:]
    return " ".join(f"<span>{item}</span>" if len(item) < 60 else item for item in shown)  # a span stays on one line


def _error(card: Card) -> str:
    if not (name := error_name(card)):
        return ""
    return f'<p class="agr-error"><b>{_line(name, 80)}</b> {_block(card.error_text or "", VALUE)}</p>\n'


def _answer(card: Card) -> str:
    body = ""
    if card.output is not None:
        body = _structured(json_value(card.output))
    elif text := card.answer.strip("\n"):
        body = _folding(text) if card.ended else _paragraphs(_end_of(text, FOLD // 2), FOLD)
    elif not card.ended and (thought := card.reasoning_of(card.turn).strip()):
        body = f'<div class="agr-dim">{_paragraphs(_end_of(thought, 400), FOLD)}</div>'
    asking = " agr-asking" if card.asking else ""
    return f'<div class="agr-answer{asking}" style="white-space:pre-wrap">{body}</div>\n' if body else ""


def _folding(text: str) -> str:
    """A text of ordinary length as it is; of a longer one the beginning, and the rest in a part that opens."""
    if len(text) <= FOLD:
        return _paragraphs(text, FOLD)
    at = max(text.rfind("\n\n", FOLD // 2, FOLD), text.rfind(". ", FOLD // 2, FOLD) + 1, FOLD // 2)
    rest = _paragraphs(text[at:].lstrip(), ANSWER - at)
    return f"{_paragraphs(text[:at], FOLD)}<details><summary>{len(text) - at:,} more characters</summary>{rest}</details>"


def _end_of(text: str, limit: int) -> str:
    return text if len(text) <= limit else "… " + text[-limit:].lstrip()


def _structured(value: Any) -> str:
    """A dictionary as a table of its keys, a single value as text, everything else as indented JSON."""
    if isinstance(value, str | int | float):
        return _folding(value if isinstance(value, str) else json.dumps(value))
    if not isinstance(value, dict) or not 0 < len(value) <= 50:
        return f"<pre>{_block(json.dumps(value, ensure_ascii=False, indent=2), ANSWER)}</pre>"
    rows = []
    for key, item in value.items():
        text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
        cell = _block(text, ANSWER // len(value)).replace("\n", "<br>")
        if not isinstance(item, str | int | float):
            cell = f"<code>{cell}</code>"
        rows.append(f'<tr><th scope="row" {_LEFT}>{_line(key, 80)}</th><td {_LEFT}>{cell}</td></tr>\n')
    return f'<table class="agr-output"><tbody>\n{"".join(rows)}</tbody></table>'


# ----------------------------------------------------------------------------------------------------------- timeline


def _timeline(card: Card) -> str:
    """The table of turns and tool calls, in order; an empty string before the first turn has ended."""
    rows: list[Row] = [*card.turns, *card.calls.values()]
    if not rows:
        return ""
    rows.sort(key=lambda row: (row.turn_index, row.call_index if isinstance(row, ToolCallRecord) else 0))
    limit = ROWS if card.ended else ROWS_RUNNING
    left_out = max(len(rows) - limit, 0)
    first = limit // 4 if card.ended else 0
    shown = rows[:first] + rows[first + left_out :] if left_out else rows
    texts = [text for row in shown if isinstance(row, ToolCallRecord) for text in _texts(row)]
    share = _share(texts, max(TIMELINE - ROW * len(shown), 0))
    body = [_turn_row(card, row) if isinstance(row, TurnRecord) else _call_row(card, row, share) for row in shown]
    if left_out:
        body.insert(first, f'<tr><td colspan="5" {_LEFT}>… {plural(left_out, "row")} left out, all in the result …</td></tr>\n')
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Tokens in", "Tokens out", "Cost", "Time"))
    return (
        '<div class="agr-steps"><table><caption>Turns and tool calls</caption>\n'
        f'<thead><tr><th scope="col" {_LEFT}>Step</th>{heads}</tr></thead><tbody>\n{"".join(body)}</tbody></table></div>\n'
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


def _turn_row(card: Card, turn: TurnRecord) -> str:
    if turn.error_type:
        stopped = card.state == "interrupted"  # which error it was stands above
        word = '<span class="agr-dim">interrupted</span>' if stopped else '<span class="agr-bad">failed</span>'
    else:
        finish = turn.finish_reason or ("" if turn.duration_s is not None else "interrupted")
        word = f'<span class="agr-dim">{_FINISH.get(finish) or _line(finish, 40)}</span>'
    if turn.response_model and turn.response_model != turn.request_model:
        word += f' <span class="agr-dim">· {_line(turn.response_model, 80)}</span>'
    if turn.replayed_from:
        word += ' <span class="agr-dim">· replayed</span>'
    more = ""
    if turn.turn_index != card.answer_turn and (said := card.text(turn.turn_index).strip()):
        more += f'<div class="agr-dim">{_block(said, 600)}</div>'
    if thought := card.reasoning_of(turn.turn_index).strip():
        if card.ended:
            more += f'<details class="agr-dim"><summary>reasoning</summary><div>{_block(thought, VALUE)}</div></details>'
        else:
            more += f'<div class="agr-dim">reasoning: {_line(thought, BEGINNING)}</div>'
    cost = cost_text(turn.cost_usd) if turn.cost_usd is not None else "unknown" if maybe_charged(turn) else ""
    figures = (
        count_text(turn.input_tokens),
        count_text(turn.output_tokens),
        cost,
        "" if turn.replayed_from else seconds_text(turn.duration_s),
    )
    head = f'<th scope="row" {_LEFT_PLAIN}><b>Turn {turn.turn_index}</b> {word}{more}</th>'
    return f'<tr class="agr-turn">{head}{_cells(figures)}</tr>\n'


def _call_row(card: Card, call: ToolCallRecord, limit: int) -> str:
    going = going_word(card, call)
    limit = limit if card.ended else 0
    asked, told = _texts(call)
    parts = [_code(asked, limit)]
    if not going and call.status != "ok":
        word = f"error: {call_word(call)}" if call.status == "error" and call.error_type else call_word(call)
        parts.append(f'<div class="agr-{"dim" if call.status == "interrupted" else "bad"}">{_line(word, 80)}</div>')
    if not going and call.result_text is not None:
        parts.append(_code(told, limit, "→ "))
    cost = cost_text(call.cost_usd) if call.cost_usd is not None else ""
    time = f'<b class="agr-busy">{going}</b>' if going else "" if card.replayed else seconds_text(call.duration_s)
    return f'<tr><td colspan="3" {_LEFT}>{"".join(parts)}</td>{_cells((cost, time))}</tr>\n'


def _code(text: str, limit: int, lead: str = "") -> str:
    """Code on one line; where it is longer, its beginning on one line that opens to more of it, if `limit` leaves any."""
    short = len(text) <= INLINE and "\n" not in text.strip()
    if short or limit <= INLINE:
        return f"<div>{lead}<code>{_line(text, INLINE if short else BEGINNING)}</code></div>"
    return f"<details><summary>{lead}<code>{_line(text, BEGINNING)}</code></summary><pre>{_block(text, limit)}</pre></details>"


def _cells(figures: tuple[str, ...]) -> str:
    return "".join(f"<td>{figure}</td>" for figure in figures)
