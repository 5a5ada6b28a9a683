"""`agentroute logs --cost`: what runs have cost, as a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from ..errors import ErrorConfig
from ..figures import cost_text, count_text, seconds_text
from .terminal import json_text, one_line

if TYPE_CHECKING:
    from ..store import RunStore

__all__ = ["show_cost"]

BY = "day,model"
_HEADS = {
    "runs": "runs", "turns": "turns", "input_tokens": "in", "output_tokens": "out", "cost_usd": "cost", "cost_per_run_usd": "a run",
    "cost_saved_usd": "saved", "p50_s": "p50", "p95_s": "p95", "errors": "errors", "unknown_cost_share": "unknown",
}  # fmt: skip
"""The columns of figures that are shown, and what stands above them."""
_OPTIONAL = ("cost_saved_usd", "errors", "unknown_cost_share")
"""Shown where there is anything in them."""
LONGEST = 40
"""Characters of a group's name."""


def show_cost(store: RunStore, by: str | None, *, chosen_runs: dict[str, Any], as_json: bool) -> None:
    """A line for each group and one for all; as JSON an object for each group. Days are this machine's."""
    from ..costs import cost
    from .choosing import nothing

    groups = [name.strip() for name in (BY if by is None else by).split(",") if name.strip()]
    try:
        rows = _rows(cost(groups, store=store, tz="local", **chosen_runs))
    except ErrorConfig as error:
        raise click.UsageError(f"--{error}" if str(error).startswith("by ") else str(error)) from None
    if as_json:
        for row in rows:
            click.echo(json_text(row))
    elif not rows:
        click.echo(nothing(store), err=True)
    else:
        (total,) = _rows(cost([], store=store, **chosen_runs))
        for line in _lines(rows, total if len(rows) > 1 else None):
            click.echo(line)


def _rows(frame: Any) -> list[dict[str, Any]]:
    """The frame as dictionaries; what is missing is None."""
    columns = {name: frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame.columns}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _lines(rows: list[dict[str, Any]], total: dict[str, Any] | None) -> list[str]:
    groups = [name for name in rows[0] if name not in _HEADS and name not in _UNSEEN]
    figures = [name for name in _HEADS if name not in _OPTIONAL or any(row[name] for row in rows)]
    table = [[*groups, *(_HEADS[name] for name in figures)]]
    table += [[*(_group(name, row[name]) for name in groups), *(_figure(name, row) for name in figures)] for row in rows]
    if total is not None and groups:
        table.append(["total", *("" for _ in groups[1:]), *(_figure(name, total) for name in figures)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(size) if place < len(groups) else cell.rjust(size) for place, (cell, size) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in table
    ]


_UNSEEN = ("cached_input_tokens", "reasoning_tokens")
"""Parts of the columns beside them; `--json` has them."""


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _group(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if hasattr(value, "strftime"):
        return f"{value:%Y-%m-%d %H:%M}" if name == "hour" else f"{value:%Y-%m-%d}"
    return one_line(str(value), LONGEST)


def _figure(name: str, row: dict[str, Any]) -> str:
    value = row[name]
    if _missing(value):
        unknown = name == "cost_usd" or (name == "cost_per_run_usd" and _missing(row["cost_usd"]))
        return "unknown" if unknown else "-" if name == "cost_per_run_usd" else ""
    if name.endswith("_usd"):
        return cost_text(value)
    if name.endswith("_s"):
        return seconds_text(value)
    if name.endswith("_share"):
        return f"{value:.0%}" if value >= 0.005 else "under 1%" if value else ""
    return count_text(int(value))
