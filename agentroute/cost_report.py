"""A report on the run history for a notebook cell: totals, a table that sorts, and the plots.

One piece of HTML that loads nothing. Its style sheet and its script may be stripped (an untrusted notebook, GitHub): then
the table stands as it was sorted, and pictures below each other. All text of models, agents and users is escaped.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from typing import TYPE_CHECKING, Any

from . import frames
from .costs import cost_of_rows
from .drawings import DRAWINGS
from .errors import ErrorConfig, ErrorMissingPackage
from .figures import cost_text, plural, seconds_text
from .ledger import RUN_COLUMNS, TURN_COLUMNS, checked, periods, rows_of, unknown_of, zone_of
from .selection import with_hints
from .visible import one_line

if TYPE_CHECKING:
    import pandas as pd

    from .frames import StoreLike

__all__ = ["Report", "report"]

ROWS = 100
"""Rows of the table that are listed: the dearest; the Report has all of them."""
_NEEDED = tuple(name for name in RUN_COLUMNS if name not in ("error_type", "session_id", "tags", "notebook"))
_BASIS = "A run, p50, p95: of the runs that asked the model. Unknown: the turns that may have been charged for and whose cost nobody has told."
_HEADS = {
    "agent": "Agent", "model": "Model", "runs": "Runs", "turns": "Turns", "input_tokens": "Tokens in", "output_tokens": "Tokens out",
    "cost_usd": "Cost", "cost_saved_usd": "Saved", "cost_per_run_usd": "A run", "p50_s": "p50", "p95_s": "p95", "errors": "Errors",
    "unknown_cost_share": "Unknown",
}  # fmt: skip


@with_hints
def report(df: pd.DataFrame | None = None, *, store: StoreLike = None, tz: str | tzinfo | None = None, **filters: Any) -> Report:
    """What the recorded runs have used and cost, to be shown in a cell.

    Args:
        df: a frame of `agentroute.runs()`, to report on its runs only; their turns and tool calls are read from the store.
        tz: whose days are meant: a zone's name, or "local"; None is UTC. It stands beside the days.
        filters: which runs, as for `agentroute.runs`, where no frame is given.

    Raises:
        ErrorConfig: the frame is another one, filters are given beside it, or one of them is none.
        ErrorMissingPackage: pandas is not installed. Without matplotlib there is a report without plots.
        ErrorStore: the file is not a run history, or cannot be read.
    """
    zone = zone_of(tz)
    if df is None:
        runs = frames.runs(store, columns=_NEEDED, **filters)
    elif filters:
        raise ErrorConfig(f"report takes a frame or filters, not both: filter the frame, or leave out {', '.join(filters)}")
    else:
        runs = checked(df, _NEEDED, "report", "agentroute.runs()")
        filters = {"run_id": runs["run_id"].tolist()}
    turns = frames.turns(store, columns=TURN_COLUMNS, **filters)
    calls = frames.tool_calls(store, columns=DRAWINGS["tools"].columns, **filters)
    return Report(runs, turns, calls, zone=zone, now=datetime.now(UTC))


class Report:
    """Made by `report`. `totals` is a dictionary of texts, `table` the costs by agent and model, dearest first."""

    def __init__(self, runs: pd.DataFrame, turns: pd.DataFrame, tool_calls: pd.DataFrame, *, zone: tzinfo | None = UTC, now: datetime) -> None:
        self._frames = {"runs": runs, "turns": turns, "tool_calls": tool_calls}
        self._zone = zone
        self._rows = rows_of(runs, turns)[0]
        by_model = cost_of_rows(runs, turns, ["agent", "model"], zone)
        self.table: pd.DataFrame = by_model.sort_values("cost_usd", ascending=False, kind="stable", ignore_index=True)
        self.totals: dict[str, str] = self._totals(now)

    def _totals(self, now: datetime) -> dict[str, str]:
        runs, rows = self._frames["runs"], self._rows
        whole = cost_of_rows(runs, self._frames["turns"], [], self._zone).iloc[0]
        if runs.empty:
            return {"Runs": "none"}
        failed = [f"{int(number):,} {word}" for word, number in {"failed": whole["errors"], "interrupted": (runs["status"] == "interrupted").sum()}.items() if number]
        totals = {
            "Runs": _with(_count(whole["runs"]), failed),
            "Turns": _count(whole["turns"]),
            "Tokens in": _with(_count(whole["input_tokens"]), _part(whole["cached_input_tokens"], "from cache")),
            "Tokens out": _with(_count(whole["output_tokens"]), _part(whole["reasoning_tokens"], "reasoning")),
            "Cost": _usd(whole["cost_usd"]),
            "Cost unknown": _unknown(int(rows["unknown"].sum()), int(whole["turns"])),
            "Saved by replay": _usd(whole["cost_saved_usd"], "nothing"),
        }
        import pandas as pd

        now_of = pd.Series([now]).astype("datetime64[us, UTC]")
        for label, unit in {"Today": "day", "This week": "week"}.items():
            lately = rows[periods(rows["started_at"], unit, self._zone) == periods(now_of, unit, self._zone)[0]]
            if len(lately):
                totals[label] = _usd(lately["cost_usd"].sum(min_count=int(lately["unknown"].any())))
        first, last = periods(rows["started_at"].agg(["min", "max"]), "day", self._zone).astype("datetime64[D]")
        zone = "local time" if self._zone is None else str(self._zone)
        totals["From, to"] = f"{first if first == last else f'{first} – {last}'} ({zone})"
        return totals

    @cached_property
    def pictures(self) -> list[tuple[bytes, str]]:
        """The plots as PNG images, each with a sentence that says what is seen.

        Raises:
            ErrorMissingPackage: matplotlib is not installed.
        """
        from .plots import picture

        found = {**self._frames, "turns": self._rows, "cost_by_turn": unknown_of(self._frames["runs"], self._frames["turns"])}
        return [picture(name, found.get(name, found[drawing.source]), self._zone) for name, drawing in DRAWINGS.items()]

    def __repr__(self) -> str:
        width = max(map(len, self.totals))
        lines = [f"{label:<{width}}  {text}" for label, text in self.totals.items()]
        shown = self.table.head(ROWS)
        cells = [list(_HEADS.values()), *([_cell(name, row) for name in _HEADS] for row in shown.to_dict("records"))]
        widths = [max(len(row[place]) for row in cells) for place in range(len(_HEADS))]
        if len(self.table):
            lines.append(_BASIS)
        for row in cells if len(self.table) else ():
            padded = [cell.ljust(width) if place < 2 else cell.rjust(width) for place, (cell, width) in enumerate(zip(row, widths, strict=True))]
            lines.append("  ".join(padded).rstrip())
        return "\n".join(lines + ([_more(len(self.table))] if len(self.table) > ROWS else []))

    def to_html(self) -> str:
        """One `<section>` that loads nothing."""
        totals = "".join(f"<div><dt>{html.escape(label)}</dt><dd>{_small(html.escape(text))}</dd></div>\n" for label, text in self.totals.items())
        # The two `ignore` classes keep MathJax from reading "$0.01 … $0.02" as a formula.
        start = f'<section class="agr-report mathjax_ignore tex2jax_ignore"><style>{_STYLE}</style>\n'
        return f"{start}<dl>\n{totals}</dl>\n{self._table_html()}{self._plots_html()}</section>"

    def _table_html(self) -> str:
        if self.table.empty:
            return ""
        looks = {name: _LEFT if name in ("agent", "model") else _RIGHT for name in _HEADS} | {"cost_usd": f'{_RIGHT} aria-sort="descending"'}
        heads = "".join(f'<th scope="col" {looks[name]}>{head}</th>' for name, head in _HEADS.items())
        body = "".join(f"<tr>{''.join(_td(name, row) for name in _HEADS)}</tr>\n" for row in self.table.head(ROWS).to_dict("records"))
        more = f"<p>{_more(len(self.table))}</p>\n" if len(self.table) > ROWS else ""
        return (
            '<div class="agr-scroll"><table class="agr-sort"><caption>By agent and model, dearest first. '
            f"{_BASIS}</caption>\n"
            f"<thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table></div>\n{more}<script>{_SCRIPT}</script>\n"
        )

    def _plots_html(self) -> str:
        if self._frames["runs"].empty:
            return ""
        try:
            pictures = self.pictures
        except ErrorMissingPackage as error:
            return f"<p>No plots: {html.escape(str(error))}</p>\n"
        images = [
            f'<img width="540" alt="{html.escape(sentence)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">\n'
            for data, sentence in pictures
        ]
        return f'<div class="agr-plots">\n{"".join(images)}</div>\n'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Mapping[str, str]:
        return {"text/html": self.to_html(), "text/plain": repr(self)}


# ---- cells --------------------------------------------------------------------------------------------------------


def _known(value: Any) -> bool:
    import pandas as pd

    return value is not None and value is not pd.NA and not (isinstance(value, float) and math.isnan(value))


def _count(value: Any) -> str:
    return f"{int(value):,}" if _known(value) else "unknown"


def _usd(value: Any, unknown: str = "unknown") -> str:
    return cost_text(float(value)) if _known(value) else unknown


def _percent(value: Any) -> str:
    if not _known(value) or not value:
        return "0 %" if _known(value) else ""
    return f"{'under 0.1' if value < 0.001 else format(value * 100, '.1f')} %"


def _unknown(number: int, turns: int) -> str:
    return f"{plural(number, 'turn')} ({_percent(number / max(turns, 1))})" if number else "nothing"


def _part(value: Any, what: str) -> list[str]:
    return [f"{int(value):,} {what}"] if _known(value) and value else []


def _with(text: str, parts: list[str]) -> str:
    return f"{text} ({', '.join(parts)})" if parts else text


def _small(text: str) -> str:
    """What stands in brackets, smaller."""
    text, bracket, rest = text.partition(" (")
    return f"{text} <small>({rest}</small>" if bracket else text


def _cell(name: str, row: Mapping[Any, Any]) -> str:
    """A figure of the table in words; foreign text as one visible line."""
    value = row[name]
    if name in ("agent", "model"):
        shown = one_line(value, 60) if isinstance(value, str) else "(none)"
        return shown if shown.strip() else f'"{" " * len(value)}"'
    if name == "cost_saved_usd":
        return _usd(value, "")
    if name == "cost_per_run_usd":
        return _usd(value, "–" if _known(row["cost_usd"]) else "unknown")  # where no run began with this model
    if name == "cost_usd":
        return _usd(value)
    if name.endswith("_s"):
        return seconds_text(value)
    return _percent(value) if name == "unknown_cost_share" else _count(value)


def _td(name: str, row: Mapping[Any, Any]) -> str:
    text, value = html.escape(_cell(name, row)), row[name]
    if name == "agent":
        return f'<th scope="row" {_LEFT}>{text}</th>'
    if name == "model":
        return f"<td {_LEFT}>{text}</td>"
    order = f' data-v="{float(value):.12g}"' if _known(value) else ""  # what is unknown comes last in either order
    return f"<td {_RIGHT}{order}>{text}</td>"


def _more(rows: int) -> str:
    return f"{plural(rows - ROWS, 'row')} more in .table"


# ---- style and script ---------------------------------------------------------------------------------------------

# Literal styles are what JupyterLab leaves in an untrusted notebook, where it aligns all cells to the right otherwise.
_LEFT, _RIGHT = 'style="text-align:left"', 'style="text-align:right"'

# Colours are the page's own: JupyterLab's variables, else VS Code's, else mixed from the colour of the text. The pictures
# have a middle grey; where the page says whether it is dark, they are made lighter or darker.
_CSS = """
& {
  --agr-text: var(--jp-content-font-color1, var(--vscode-editor-foreground, currentColor));
  --agr-dim: var(--vscode-descriptionForeground, color-mix(in srgb, currentColor 68%, transparent));
  --agr-line: var(--jp-border-color2, var(--vscode-panel-border, color-mix(in srgb, currentColor 20%, transparent)));
  --agr-soft: color-mix(in srgb, currentColor 4%, transparent);
  --agr-busy: var(--jp-brand-color1, var(--vscode-focusBorder, currentColor));
  box-sizing: border-box; width: 100%; max-width: 76em; margin: 4px 0; overflow: hidden;
  border: 1px solid var(--agr-line); border-radius: 8px; color: var(--agr-text); font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
& dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(12em, 1fr)); gap: 12px 20px; box-sizing: border-box; width: 100%; margin: 0; padding: 14px 18px; background: var(--agr-soft); }
& dl div { min-width: 0; }
& dt { float: none; width: auto; margin: 0; color: var(--agr-dim); font-size: .9em; font-weight: 400; }
& dd { font-size: 1.1em; font-weight: 600; }
& small { color: var(--agr-dim); font-size: .8em; font-weight: 400; }
& .agr-scroll { overflow-x: auto; border-top: 1px solid var(--agr-line); padding: 6px 0; max-height: 28em; }
& table { width: 100%; margin: 0; border: 0; border-collapse: collapse; table-layout: auto; font-size: .88em; color: inherit; }
& caption { padding: 2px 18px; text-align: start; color: var(--agr-dim); }
& thead { border: 0; }
& table tr { background: none; }
& :is(th, td) { padding: 3px 7px; border: 0; vertical-align: top; white-space: nowrap; line-height: 1.5; font-weight: 400; overflow-wrap: normal; }
& :is(th, td):first-child { padding-inline-start: 18px; }
& :is(th, td):last-child { padding-inline-end: 18px; }
& tbody tr:hover { background: var(--agr-soft); }
& :is(th, td):nth-child(-n+2) { white-space: normal; overflow-wrap: anywhere; min-width: 7em; }
& thead th { color: var(--agr-dim); }
& thead th[aria-sort] { color: var(--agr-text); font-weight: 600; }
& thead button { all: unset; cursor: pointer; }
& thead button:focus-visible { outline: 2px solid var(--agr-busy); outline-offset: 2px; border-radius: 2px; }
& th[aria-sort=descending] button::after { content: "\\2009▼"; font-size: .8em; }
& th[aria-sort=ascending] button::after { content: "\\2009▲"; font-size: .8em; }
& p { margin: 0; padding: 8px 18px; color: var(--agr-dim); }
& .agr-plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25em), 1fr)); gap: 18px; padding: 14px 18px; border-top: 1px solid var(--agr-line); }
& img { width: 100%; max-width: 540px; height: auto; background: none; }
:is([data-jp-theme-light=true], .vscode-light) & img { filter: brightness(.8); }
:is([data-jp-theme-light=false], .vscode-dark) & { color-scheme: dark; }
:is([data-jp-theme-light=false], .vscode-dark) & img { filter: brightness(1.4); }
"""
_STYLE = re.sub(r" ?([{};>]) ?|(?<=[:,]) ", lambda match: match[1] or "", re.sub(r"\s*\n\s*", " ", _CSS).replace("&", ".agr-report.agr-report"))
_STYLE = _STYLE.replace(";}", "}").strip()

# Heads become buttons only where the script runs, so that nothing looks as if it could be pressed where it can't.
# JupyterLab would take Enter and Space as commands of the notebook.
_SCRIPT = """
for (const table of document.querySelectorAll("table.agr-sort:not(.agr-live)")) {
  table.classList.add("agr-live");
  table.tHead.setAttribute("data-lm-suppress-shortcuts", "true");
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const was = head.getAttribute("aria-sort"), up = was ? was === "descending" : column < 2;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = row => { const cell = row.cells[column]; return column < 2 ? cell.textContent : cell.dataset.v; };
      const known = row => value(row) !== undefined;
      const order = (a, b) => column < 2 ? value(a).localeCompare(value(b)) : value(a) - value(b);
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => known(b) - known(a) || (known(a) ? order(a, b) * (up ? 1 : -1) : 0));
      table.tBodies[0].append(...rows);
    };
  });
}
""".strip()
