"""A card as static HTML. Pure: no shell, no clock.

Everything that is not ours (names, arguments, results, answers, errors) is cut, made visible and escaped on its way in,
and stands only in text; in an attribute there is nothing of it but the address of a link to a web page or a mail address. The
HTML has no script, loads nothing, and is made of paragraphs, lists, details and tables, so it reads well where the style
sheet is stripped (GitHub, an untrusted notebook).
"""

from __future__ import annotations

from typing import Any

from .card import Card
from .escaping import line, paragraphs, text_block
from .formats import cut
from .markdown import Block, MarkdownStream, blocks
from .plain import error_name, json_value, output_text, to_text, usage_items, usage_line
from .style import style_for
from .timeline import BEGINNING, VALUE, timeline
from .trees import answer_table

__all__ = ["answer_html", "error_html", "to_html", "to_text", "usage_line"]

ANSWER = 30_000
"""Characters of an answer that are kept in the HTML; the Result has all of them."""
FOLD = 6_000
"""A longer answer opens and closes from here on; while it streams, a third as many of its end are shown."""
def to_html(card: Card) -> str:
    """One `<section>`: error, answer, and a usage line that opens to the table of turns and tool calls.

    While the run goes on all is open, as each redraw would close it again. Every block and row has a line of its own, so
    that a version control shows what changed.
    """
    if card.ended:
        opened = " open" if card.state == "failed" else ""
        run = f'<details class="agr-run"{opened}><summary>{_usage(card)}</summary>\n{timeline(card)}</details>'
    else:
        run = f'<div class="agr-run"><div>{_usage(card)}</div>\n{timeline(card)}</div>'
    body = f"{error_html(card)}{answer_html(card)}{run}"
    # The two `ignore` classes keep MathJax from reading "$0.01 … $0.02" as a formula.
    start = f'<section class="agr agr-{card.state} mathjax_ignore tex2jax_ignore"><style>{style_for(body)}</style>'
    return f"{start}\n{body}\n</section>"


# ------------------------------------------------------------------------------------------------------------- pieces


def _usage(card: Card) -> str:
    state, *rest = (line(item, 120) for item in usage_items(card))
    items = [f'<b class="agr-state">{state}</b>' if state == card.state else f"<b>{state}</b>", *rest]
    if card.agent_name:
        items.insert(0, f"<b>{line(card.agent_name, 80)}</b>")
    shown = [f"{item}\u00a0·" for item in items[:-1]] + items[-1:]
    return " ".join(f"<span>{item}</span>" if len(item) < 60 else item for item in shown)  # a span stays on one line


def error_html(card: Card) -> str:
    """What ended the run as a paragraph; an empty string for a run without an error."""
    if not (name := error_name(card)):
        return ""
    return f'<p class="agr-error"><b>{line(name, 80)}</b> {text_block(card.error_text or "", VALUE)}</p>\n'


def answer_html(card: Card) -> str:
    """The answer so far, or the end of what the model thinks before it says anything; an empty string while there is neither."""
    body = ""
    if card.output is not None:
        body = _structured(json_value(card.output))
    elif text := card.answer.strip("\n"):
        body = _folding(text) if card.ended else _stream(card).html(text)
    elif not card.ended and (thought := card.reasoning_of(card.turn).strip()):
        body = f'<div class="agr-dim">{paragraphs(_end_of(thought, 400), FOLD)}</div>'
    asking = " agr-asking" if card.asking else ""
    return f'<div class="agr-answer{asking}">\n{body}</div>\n' if body else ""


def _stream(card: Card) -> MarkdownStream:
    stream = card.drawn.get("answer")
    if stream is None:
        stream = card.drawn["answer"] = MarkdownStream(FOLD // 3)
    return stream


def _folding(text: str) -> str:
    """The Markdown of a text; of a longer one the beginning, and the rest in a part that opens."""
    head, left_out, tail = cut(text, ANSWER)
    parts = blocks(head)
    if left_out:
        parts += [Block(f"<p><i>… {left_out:,} characters left out here, whole in the result …</i></p>\n", left_out), *blocks(tail)]
    if sum(len(part.html) for part in parts) > 2 * ANSWER:
        parts = [Block(paragraphs(text[at : at + FOLD], FOLD), FOLD) for at in range(0, min(len(text), ANSWER // 2), FOLD)]
    n_shown, size = 0, 0
    while n_shown < len(parts) and (size + parts[n_shown].size <= FOLD or (n_shown == 0 and parts[0].size <= 2 * FOLD)):
        size += parts[n_shown].size
        n_shown += 1
    first, rest = ("".join(part.html for part in some) for some in (parts[:n_shown], parts[n_shown:]))
    if not rest:
        return first
    word = f"{len(text) - size:,} more characters" if first else f"{len(text):,} characters: {line(text, BEGINNING)}"
    return f"{first}<details><summary>{word}</summary>\n{rest}</details>\n"


def _end_of(text: str, limit: int) -> str:
    return text if len(text) <= limit else "… " + text[-limit:].lstrip()


def _structured(value: Any) -> str:
    """An object as a table of its keys, a list as one of its rows or items, anything else as text."""
    if isinstance(value, dict | list) and value:
        return answer_table(value, ANSWER // 2) + "\n"
    return paragraphs(value if isinstance(value, str) else output_text(value), ANSWER // 2)
