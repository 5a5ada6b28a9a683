"""What `%agent list` and `%agent show` print: small tables as plain text and as static HTML. No key is ever in them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentroute.config import without_password

from .formats import cut, one_line, visible

if TYPE_CHECKING:
    from agentroute import Agent, ErrorConfig

__all__ = ["Table", "agents_table", "model_text", "settings_table", "shortened"]

TEXT = 2_000
"""Characters of a setting that are shown."""

_SETTINGS = (
    "description", "instructions", "tools", "output", "max_turns", "max_cost", "retries", "temperature", "max_tokens",
    "timeout", "memory", "history", "tags", "record",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows of plain text under heads; without heads the first cell of a row is its head."""

    rows: Sequence[Sequence[str]]
    heads: Sequence[str] = ()
    figures: Sequence[int] = ()
    """Columns, from 0, that stand to the right in the plain form; their cells have one line."""

    def __repr__(self) -> str:
        lines = [list(row) for row in ([self.heads, *self.rows] if self.heads else self.rows)]
        widths = [max(len(part) for cell in column for part in cell.split("\n")) for column in zip(*lines, strict=True)]
        indent = "\n" + " " * (sum(widths[:-1]) + 2 * len(widths[:-1]))
        padded = [[*(cell.ljust(width) for cell, width in zip(line, widths[:-1], strict=False)), line[-1]] for line in lines]
        for line in padded:
            for place in self.figures:
                line[place] = line[place].strip().rjust(widths[place])
        return "\n".join("  ".join(line).replace("\n", indent).rstrip() for line in padded)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col" style="text-align:left">{_html(cell)}</th>' for cell in self.heads)
        body = "".join(
            f'<tr><th scope="row" style="text-align:left">{_html(row[0])}</th>'
            + "".join(f'<td style="text-align:left">{_html(cell)}</td>' for cell in row[1:])
            + "</tr>"
            for row in self.rows
        )
        # The two `ignore` classes keep MathJax from reading "$5 … $50" as a formula.
        start = '<table class="mathjax_ignore tex2jax_ignore">'
        return f"{start}{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


def agents_table(agents: Mapping[str, tuple[Agent[Any] | ErrorConfig, str]]) -> Table:
    """One row an agent. One that cannot be made any more says why instead of its instructions."""
    rows = []
    for name, (agent, where) in agents.items():
        if isinstance(agent, Exception):
            rows.append((one_line(name, 60), "", "", one_line(str(agent), 80), where))
        else:
            about = one_line(agent.instructions or agent.description or "", 60)
            rows.append((one_line(name, 60), model_text(agent), one_line(", ".join(agent.tools_map), 60), about, where))
    return Table(rows, ("agent", "model", "tools", "instructions", "defined by"))


def settings_table(agent: Agent[Any], where: str | None = None, kept: Sequence[str] = ()) -> Table:
    """One row a setting that is set; `where` says by what it was defined, `kept` names settings that no cell says any more."""
    rows = [("agent", one_line(agent.name, 120)), *([("defined by", where)] if where else []), ("model", model_text(agent))]
    if agent.base_url:
        rows.append(("base_url", without_password(one_line(agent.base_url, 300))))
    for setting in _SETTINGS:
        value = agent.tools_map if setting == "tools" else getattr(agent, setting)
        if value is not None and value != {} and (setting != "record" or not value):
            rows.append((setting, shortened(_setting_text(value))))
    if kept:
        rows.append(("kept", f"{', '.join(kept)}: from an earlier run of the cell, which does not say so any more; not in a restarted notebook"))
    return Table(rows)


def model_text(agent: Agent[Any]) -> str:
    """The model as it was asked for; of a Model object its id."""
    model = agent.model
    if model is None or isinstance(model, str):
        return without_password(one_line(model or "", 120))
    return one_line(f"{getattr(model, 'model_id', '')} ({type(model).__name__})".lstrip(), 120)


def shortened(text: str) -> str:
    """A text of any length as what one cell shows of it: visible, its middle left out where it is long."""
    head, left_out, tail = cut(text, TEXT)
    return f"{visible(head)}\n… {left_out:,} characters left out …\n{visible(tail)}" if left_out else visible(text)


def _setting_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):  # tools by name, or tags
        return ", ".join(f"{name}={text}" if isinstance(text, str) else name for name, text in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, int | float):
        return f"{value:g}"
    # Of other classes we cannot know what their repr shows; that of a type such as `list[int]` is its name.
    ours = type(value).__module__.startswith(("agentroute.", "typing", "types"))
    return one_line(repr(value), 120) if ours else type(value).__name__


def _html(text: str) -> str:
    return html.escape(text, quote=False).replace("\n", "<br>")
