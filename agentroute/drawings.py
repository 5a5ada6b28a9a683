"""What the plots of the run history show: each draws a frame on an Axes and says in a sentence what is seen.

Names of models and tools are foreign text: they are cut, made visible, and never read as a formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from .figures import cost_text, plural
from .ledger import TOKENS, asked, periods, whole_run_costs
from .visible import escaped, one_line

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["COLOURS", "DRAWINGS", "GREY", "Drawing"]

GREY = "#797979"
COLOURS = ("#2f7fd6", "#d06a12", "#25935a", "#d8493f", "#9168c9", "#a8752f", "#cf549a", "#15919f")
"""Each stands out from white and from black alike."""
TOP = 8
"""Models or tools that are named; the others are summed."""
NAME = 32
"""Characters of a name."""
LINE = 60
"""Characters of a line under a plot."""
POINTS = 400
"""Points of a line over time."""
_NO_COST = "nobody reported a cost"
FEWEST = 5
"""Turns below which a turn's median says nothing."""
_WIDTH_DAYS = {"hour": 1 / 24, "day": 1.0, "week": 7.0, "month": 28.0}


@dataclass(frozen=True)
class Drawing:
    """One plot: of which frame, and which of its columns; `either` says that runs() will do as well as turns(). Columns that are
    `welcome` say more of what is unknown, and may be missing."""

    source: str
    columns: tuple[str, ...]
    draw: Callable[[Axes, pd.DataFrame, tzinfo | None], str]
    either: bool = False
    welcome: tuple[str, ...] = ()

    def on(self, ax: Axes, df: pd.DataFrame, zone: tzinfo | None) -> str:
        """Draws a frame that has the columns; the sentence."""
        if df.empty:
            return _nothing(ax, "no tool calls yet" if self.source == "tool_calls" else "no runs yet")
        return self.draw(ax, df, zone)


def _nothing(ax: Axes, why: str) -> str:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.5, 0.5, why, ha="center", va="center", transform=ax.transAxes)
    return f"Nothing to plot: {why}."


def _title(ax: Axes, title: str, note: str = "", axis: str = "") -> None:
    """The title at the left, and under the plot what the axis shows and what is not in it."""
    ax.set_title(title, loc="left")
    parts = [part for part in (axis, note) if part]
    ax.set_xlabel((" · " if len("".join(parts)) < LINE else "\n").join(parts))


def _legend(ax: Axes, loc: Any = "best", columns: int = 1) -> None:
    legend = ax.legend(
        frameon=False, fontsize=9, loc=loc, ncols=columns, handlelength=1.2, labelspacing=0.3, borderaxespad=0.2, columnspacing=1.2
    )
    for text in legend.get_texts():
        text.set_usetex(False)


def _name(text: object) -> str:
    """A foreign name as a label: short, visible, no formula, and only characters the font has."""
    if not isinstance(text, str):
        return "(none)"
    shown = one_line(text, NAME)
    if not shown.isascii():
        has = _glyphs()
        shown = "".join(character if ord(character) in has else escaped(character) for character in shown)
        shown = shown if len(shown) <= NAME else shown[: NAME - 1] + "…"
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") or not shown else shown  # a label that begins with _ is in no legend


def _glyphs() -> set[int]:
    """Characters that the fonts of the figure's text have."""
    from matplotlib import font_manager

    known: set[int] = set()
    for family in font_manager.FontProperties().get_family():
        with suppress(ValueError, OSError):
            path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
            known |= set(font_manager.get_font(path).get_charmap())
    return known


def _usd(amount: float) -> str:
    return cost_text(amount).replace("$", r"\$")


def _usd_axis(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda amount, _: rf"\${amount:,.10g}" if amount >= 0 else ""))


def _unknown_calls(df: pd.DataFrame) -> NDArray[np.int64]:
    """Turns of unknown cost in each row. `rows_of` and `unknown_of` have told, and so have runs; of turns alone, those that failed
    count as refused."""
    import numpy as np

    for name in ("unknown", "unknown_cost_calls"):
        if name in df:
            return df[name].to_numpy("int64")
    failed = df["error_type"].notna().to_numpy(bool) if "error_type" in df else np.zeros(len(df), bool)
    return (df["cost_usd"].isna().to_numpy(bool) & ~failed).astype("int64")


def _turns(df: pd.DataFrame) -> NDArray[np.int64]:
    """Turns in each row."""
    import numpy as np

    name = next((name for name in ("turns", "n_turns") if name in df), None)
    return np.ones(len(df), "int64") if name is None else df[name].to_numpy("int64")


def _unknown_note(df: pd.DataFrame) -> str:
    missing = int(_unknown_calls(df).sum())
    return f"cost unknown: {missing:,} of {plural(int(_turns(df).sum()), 'turn')}" if missing else ""


def _unknown_tokens_note(df: pd.DataFrame) -> str:
    """As with costs, a turn that was refused used none."""
    missing = (df["input_tokens"].isna() | df["output_tokens"].isna()).to_numpy(bool)
    if "cost_usd" in df:
        missing = missing & (df["cost_usd"].notna().to_numpy(bool) | (_unknown_calls(df) > 0))
    number = int(_turns(df)[missing].sum())
    return f"tokens unknown: {number:,} of {plural(int(_turns(df).sum()), 'turn')}" if number else ""


def _groups(names: pd.Series[Any], weights: NDArray[np.float64]) -> tuple[NDArray[np.int64], list[str]]:
    """For each row which line it is of, and the lines' labels: the eight heaviest names, and one for the others."""
    import numpy as np
    import pandas as pd

    codes, found = pd.factorize(names, use_na_sentinel=False)
    heaviest = np.argsort(-np.bincount(codes, weights, minlength=len(found)), kind="stable")
    rank = np.empty(len(found), "int64")
    rank[heaviest] = np.arange(len(found))
    shown = TOP if len(found) > TOP + 1 else len(found)
    labels = [_name(found[place]) for place in heaviest[:shown]]
    if shown < len(found):
        labels.append(f"{len(found) - shown} others")
    return np.minimum(rank, len(labels) - 1)[codes], labels


def _colour(place: int) -> str:
    return COLOURS[place] if place < len(COLOURS) else GREY


def _buckets(df: pd.DataFrame, zone: tzinfo | None) -> tuple[NDArray[np.datetime64], NDArray[np.int64], str]:
    """The hours, days, weeks or months there are rows of, for each row which of them, and the unit."""
    import numpy as np

    span = (df["started_at"].max() - df["started_at"].min()).total_seconds() / 86_400
    unit = "hour" if span <= 2 else "day" if span <= 92 else "week" if span <= 730 else "month"
    starts, of_row = np.unique(periods(df["started_at"], unit, zone), return_inverse=True)
    return starts, of_row, unit


def _stacked(ax: Axes, starts: NDArray[np.datetime64], unit: str, parts: Sequence[tuple[str, Any, str]]) -> None:
    """Bars over time, a colour a part."""
    import numpy as np

    below = np.zeros(len(starts))
    width = np.timedelta64(int(_WIDTH_DAYS[unit] * 0.85 * 86_400), "s")
    for label, heights, colour in parts:
        ax.bar(starts, heights, bottom=below, width=width, label=label, color=colour, align="edge")
        below = below + heights
    ax.set_ylim(top=below.max() * 1.17 or 1.0)  # room for the legend
    _legend(ax, "upper left", len(parts))
    if len(starts) == 1:  # else the one bar is as wide as the plot
        ax.set_xlim(starts[0] - 4 * width, starts[0] + 5 * width)
    _dates(ax)


def _dates(ax: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _span(df: pd.DataFrame) -> str:
    return f"from {df['started_at'].min():%Y-%m-%d} to {df['started_at'].max():%Y-%m-%d}"


# ---- the plots ----------------------------------------------------------------------------------------------------


def _draw_cumulative_cost(ax: Axes, df: pd.DataFrame, zone: tzinfo | None) -> str:
    import numpy as np

    known = df[df["cost_usd"].notna()]
    if known.empty:
        return _nothing(ax, _NO_COST)
    cost, times = known["cost_usd"].to_numpy("float64"), periods(known["started_at"], "time", zone).view("int64")
    of_row, labels = _groups(known["request_model"], cost)
    edges = np.unique(np.linspace(times.min(), times.max(), POINTS).astype("int64"))
    step = np.searchsorted(edges, times)  # the first point at or after the row
    sums = np.zeros((len(labels), len(edges)))
    np.add.at(sums, (of_row, step), cost)
    lines = sums.cumsum(axis=1)
    mark = "o" if len(edges) == 1 else "none"
    for place, (label, line) in enumerate(zip(labels, lines, strict=True)):
        colour = GREY if label.endswith(" others") and place == TOP else _colour(place)
        ax.plot(edges.view("datetime64[us]"), line, marker=mark, label=f"{label}  {_usd(line[-1])}", color=colour, drawstyle="steps-post")
    _title(ax, "Cumulative cost by model", _unknown_note(df))
    ax.set_ylim(bottom=0)
    _usd_axis(ax.yaxis)
    _dates(ax)
    _legend(ax)
    parts = ", ".join(f"{label.strip()} {cost_text(line[-1])}" for label, line in zip(labels, lines, strict=True))
    return f"Cumulative cost by model {_span(df)}: {parts}."


def _draw_cost_per_run(ax: Axes, df: pd.DataFrame, zone: tzinfo | None) -> str:
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    costs = whole_run_costs(df).to_numpy("float64")
    outer = ~df["parent_run_id"].isin(df["run_id"]).to_numpy(bool)
    idle = outer & (costs == 0) & ~(asked(df) if {"n_turns", "n_replayed"} <= set(df.columns) else np.ones(len(df), bool))
    whole = costs[outer & ~idle]
    known, free, unknown = whole[whole > 0], int((whole == 0).sum()), int(np.isnan(whole).sum())
    left_out = [f"{plural(free, 'run')} cost nothing"] if free else []
    left_out += [f"cost of {plural(unknown, 'run')} unknown"] if unknown else []
    left_out += [f"{plural(int(idle.sum()), 'run')} asked no model"] if idle.any() else []
    note = ", ".join(left_out)
    if not len(known):
        return _nothing(ax, note)
    low, high = known.min(), known.max()
    edges = np.geomspace(low, high, 41) if high > low * 1.01 else np.geomspace(low / 2, high * 2, 12)
    ax.stairs(np.histogram(known, edges)[0], edges, fill=True, color=COLOURS[0])
    ax.set_xscale("log")
    p50, p95 = np.quantile(known, [0.5, 0.95])
    ax.axvline(p50, color=COLOURS[1], label=f"half cost at most {_usd(p50)}")
    ax.axvline(p95, color=COLOURS[3], linestyle="--", label=f"95 % cost at most {_usd(p95)}")
    _log_usd_ticks(ax, edges[0], edges[-1])
    ax.set_ylabel("runs")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    _title(ax, "Cost of a run", note, "USD, log scale")
    _legend(ax)
    return f"Cost of {plural(len(known), 'run')}: half cost at most {cost_text(p50)}, 95 % at most {cost_text(p95)}, the dearest {cost_text(high)}{f'; {note}' if note else ''}."


def _log_usd_ticks(ax: Axes, low: float, high: float) -> None:
    """Ticks at 1, 2 and 5 of each power of ten, or at fewer of them where the range is wide."""
    import math

    from matplotlib.ticker import NullLocator

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) <= 7:
            break
    ticks = (ticks[:: len(ticks) // 7 + 1] if len(ticks) > 7 else ticks) or [low, high]
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, [rf"\${tick:.9f}".rstrip("0").rstrip(".") for tick in ticks])


def _draw_tokens(ax: Axes, df: pd.DataFrame, zone: tzinfo | None) -> str:
    import numpy as np
    from matplotlib.ticker import EngFormatter

    if df["input_tokens"].isna().all() and df["output_tokens"].isna().all():
        return _nothing(ax, "nobody reported tokens")
    starts, of_row, unit = _buckets(df, zone)
    counts = {name: df[name].to_numpy("float64", na_value=0.0) for name in TOKENS}
    cached = np.minimum(counts["cached_input_tokens"], counts["input_tokens"])
    reasoning = np.minimum(counts["reasoning_tokens"], counts["output_tokens"])
    kinds = {
        "input": counts["input_tokens"] - cached, "input from cache": cached, "output": counts["output_tokens"] - reasoning, "reasoning": reasoning,
    }  # fmt: skip
    colours = (COLOURS[0], COLOURS[7], COLOURS[1], COLOURS[4])
    parts = [(kind, np.bincount(of_row, tokens, minlength=len(starts)), colour) for (kind, tokens), colour in zip(kinds.items(), colours, strict=True)]
    _stacked(ax, starts, unit, parts)
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))
    _title(ax, f"Tokens per {unit}", _unknown_tokens_note(df))
    return f"Tokens per {unit} {_span(df)}: {', '.join(f'{kind} {int(tokens.sum()):,}' for kind, tokens in kinds.items())}."


def _draw_cost_by_turn(ax: Axes, df: pd.DataFrame, zone: tzinfo | None) -> str:
    from matplotlib.ticker import MaxNLocator

    known = df[df["cost_usd"].notna()]
    if known.empty:
        return _nothing(ax, _NO_COST)
    cost = known["cost_usd"] + known["cost_saved_usd"].fillna(0.0)
    grouped = cost.groupby(known["turn_index"])
    table = grouped.agg(["count", "mean", "median"]).assign(low=grouped.quantile(0.25), high=grouped.quantile(0.75))
    enough = table[table["count"] >= FEWEST]
    shown = enough if len(enough) > 1 else table
    left_out = len(known) - int(shown["count"].sum())
    mark = "o" if len(shown) == 1 else "none"
    ax.fill_between(shown.index, shown["low"], shown["high"], color=COLOURS[0], alpha=0.25, linewidth=0, label="half of the turns")
    ax.plot(shown.index, shown["median"], marker=mark, color=COLOURS[0], label="median")
    ax.plot(shown.index, shown["mean"], marker=mark, color=COLOURS[1], linestyle="--", label="mean")
    ax.set_ylim(bottom=0)
    _usd_axis(ax.yaxis)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    notes = [_unknown_note(df), f"under {FEWEST} runs left out" if left_out else ""]
    _title(ax, "Cost by turn", " · ".join(filter(None, notes)), "turn")
    _legend(ax)
    first, last = shown["median"].iloc[0], shown["median"].iloc[-1]
    return f"Median cost of a turn: {cost_text(first)} at turn {shown.index[0]}, {cost_text(last)} at turn {shown.index[-1]}."


def _draw_tools(ax: Axes, df: pd.DataFrame, zone: tzinfo | None) -> str:
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    of_row, labels = _groups(df["tool_name"], np.ones(len(df)))
    status, cost = df["status"].to_numpy(object), df["cost_usd"].to_numpy("float64")
    places, left = np.arange(len(labels)), np.zeros(len(labels))
    counts = {name: np.bincount(of_row[status == name], minlength=len(labels)) for name in ("ok", "error", "interrupted")}
    for name, colour in {"ok": COLOURS[2], "error": COLOURS[3], "interrupted": GREY}.items():
        label = {"error": "failed"}.get(name, name)
        ax.barh(places, counts[name], left=left, color=colour, label=label, height=0.7)
        left = left + counts[name]
    sums = np.bincount(of_row, np.nan_to_num(cost), minlength=len(labels))
    words = []
    for place in places:
        total, failed = int(left[place]), int(counts["error"][place])
        said = [plural(total, "call"), f"{failed / total:.0%} failed" if failed else "", cost_text(sums[place]) if sums[place] else ""]
        words.append(", ".join(filter(None, said)))
        ax.text(1.01, float(place), words[-1].replace("$", r"\$"), va="center", fontsize=9, transform=ax.get_yaxis_transform())
    ax.set_yticks(places, labels, usetex=False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(len(labels) + 0.3, -0.6)  # the first on top, and room for the legend below
    _title(ax, "Calls by tool", axis="calls; USD is what agents inside the tool cost")
    _legend(ax, "lower left", 3)
    return f"Tools: {'; '.join(f'{label.strip()}: {said}' for label, said in zip(labels, words, strict=True))}."


def _draw_savings(ax: Axes, df: pd.DataFrame, zone: tzinfo | None) -> str:
    import numpy as np

    if df["cost_usd"].isna().all():
        return _nothing(ax, _NO_COST)
    starts, of_row, unit = _buckets(df, zone)
    paid, saved = (np.bincount(of_row, np.nan_to_num(df[name].to_numpy("float64")), minlength=len(starts)) for name in ("cost_usd", "cost_saved_usd"))
    parts = [(f"paid  {_usd(paid.sum())}", paid, COLOURS[0]), (f"saved by replay  {_usd(saved.sum())}", saved, COLOURS[2])]
    _stacked(ax, starts, unit, parts)
    _usd_axis(ax.yaxis)
    _title(ax, f"Paid and saved per {unit}", _unknown_note(df))
    return f"Paid and saved per {unit} {_span(df)}: paid {cost_text(paid.sum())}, saved {cost_text(saved.sum())}."


_TELLING = ("error_type", "unknown_cost_calls", "n_turns")
DRAWINGS = {
    "cumulative_cost": Drawing("turns", ("started_at", "request_model", "cost_usd"), _draw_cumulative_cost, True, _TELLING),
    "cost_per_run": Drawing("runs", ("run_id", "parent_run_id", "cost_usd", "unknown_cost_calls"), _draw_cost_per_run, False, ("n_turns", "n_replayed")),
    "tokens": Drawing("turns", ("started_at", *TOKENS), _draw_tokens, True, (*_TELLING, "cost_usd")),
    "cost_by_turn": Drawing("turns", ("turn_index", "cost_usd", "cost_saved_usd"), _draw_cost_by_turn, False, ("error_type",)),
    "tools": Drawing("tool_calls", ("tool_name", "status", "cost_usd"), _draw_tools),
    "savings": Drawing("turns", ("started_at", "cost_usd", "cost_saved_usd"), _draw_savings, True, _TELLING),
}
"""Every plot, by the name of its function without `plot_`, in the order a report shows them."""
