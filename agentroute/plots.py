"""Plots of the run history, each on one matplotlib Axes; matplotlib is imported when one is asked for.

Rows are summed before anything is drawn, so a plot of millions costs no more than one of a few. A plot that is not given an
Axes makes a figure of its own. In a notebook that is one of pyplot's, and the cell shows it at its end, whatever is done with
the Axes; elsewhere nobody has to close it. Its background is transparent and its text of a grey that reads on white and black.
"""

from __future__ import annotations

import sys
from datetime import tzinfo
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from . import frames
from .drawings import DRAWINGS, GREY, Drawing
from .errors import ErrorConfig, ErrorMissingPackage
from .ledger import checked, unknown_of, zone_of
from .selection import with_hints
from .tables import TABLES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from .frames import StoreLike

__all__ = [
    "figure_png", "picture", "plot_cost_by_turn", "plot_cost_per_run", "plot_cumulative_cost", "plot_savings", "plot_tokens", "plot_tools",
]  # fmt: skip

_SIZE = (5.625, 3.3125)  # inches: 540 by 318 pixels


@with_hints
def plot_cumulative_cost(
    df: pd.DataFrame | None = None, *, store: StoreLike = None, tz: str | tzinfo | None = None, ax: Axes | None = None, **filters: Any
) -> Axes:
    """What was paid so far, a line for each model asked for; the eight dearest, and the others in one.

    Args:
        df: a frame of `agentroute.turns()` or `agentroute.runs()`; None reads one.
        store, filters: where from, and which runs, as for `agentroute.runs`.
        tz: whose clock the times are of: a zone's name, or "local"; None is UTC.
        ax: where to draw; None makes a figure, which a cell shows.

    Raises:
        ErrorConfig: the frame is another one, or a filter is none.
        ErrorMissingPackage: matplotlib or pandas is not installed.
    """
    return _plot("cumulative_cost", df, store, tz, ax, filters)


@with_hints
def plot_cost_per_run(
    df: pd.DataFrame | None = None, *, store: StoreLike = None, tz: str | tzinfo | None = None, ax: Axes | None = None, **filters: Any
) -> Axes:
    """How many runs cost how much, on a logarithmic scale. `df` is a frame of `agentroute.runs()`; see `plot_cumulative_cost`.

    It is what was paid, with the runs begun inside it, of runs that asked the model at least once. Those that cost nothing, of
    which not all is known, or that asked no model (wholly replayed ones) are not on the scale but counted below it.
    """
    return _plot("cost_per_run", df, store, tz, ax, filters)


@with_hints
def plot_tokens(
    df: pd.DataFrame | None = None, *, store: StoreLike = None, tz: str | tzinfo | None = None, ax: Axes | None = None, **filters: Any
) -> Axes:
    """Tokens by kind, stacked: per day, or per hour, week or month where that suits the time they span.

    `df` is a frame of `agentroute.turns()` or `agentroute.runs()`; see `plot_cumulative_cost`.
    """
    return _plot("tokens", df, store, tz, ax, filters)


@with_hints
def plot_cost_by_turn(
    df: pd.DataFrame | None = None, *, store: StoreLike = None, tz: str | tzinfo | None = None, ax: Axes | None = None, **filters: Any
) -> Axes:
    """What the first, second, third … turn of a run costs: median, mean, and the half of all turns between the quartiles.

    It rises as the conversation grows, because each turn sends all of it. `df` is a frame of `agentroute.turns()`; see
    `plot_cumulative_cost`.
    """
    return _plot("cost_by_turn", df, store, tz, ax, filters)


@with_hints
def plot_tools(
    df: pd.DataFrame | None = None, *, store: StoreLike = None, tz: str | tzinfo | None = None, ax: Axes | None = None, **filters: Any
) -> Axes:
    """Calls of each tool, failed ones apart, with what the agents inside it cost. `df` is a frame of `agentroute.tool_calls()`;
    see `plot_cumulative_cost`."""
    return _plot("tools", df, store, tz, ax, filters)


@with_hints
def plot_savings(
    df: pd.DataFrame | None = None, *, store: StoreLike = None, tz: str | tzinfo | None = None, ax: Axes | None = None, **filters: Any
) -> Axes:
    """What was paid, and what replayed answers have saved on top, over time as in `plot_tokens`.

    `df` is a frame of `agentroute.turns()` or `agentroute.runs()`; see `plot_cumulative_cost`.
    """
    return _plot("savings", df, store, tz, ax, filters)


# ---- figures ------------------------------------------------------------------------------------------------------


def _plot(name: str, df: Any, store: StoreLike, tz: str | tzinfo | None, ax: Axes | None, filters: dict[str, Any]) -> Axes:
    drawing, zone = DRAWINGS[name], zone_of(tz)
    if df is None:
        df = _read(drawing, store, filters)
    elif filters:
        raise ErrorConfig(f"plot_{name} takes a frame or filters, not both: filter the frame, or leave out {', '.join(filters)}")
    else:
        source = f"agentroute.{drawing.source}(){' or agentroute.runs()' if drawing.either else ''}"
        df = checked(df, drawing.columns, f"plot_{name}", source, welcome=drawing.welcome)
    if ax is not None:
        drawing.on(ax, df, zone)
        return ax
    if (managed := _shown_by_pyplot()) is not None:
        ax = managed
        drawing.on(ax, df, zone)
        _dress(ax)
        return ax
    ax = _own_axes()
    drawing.on(ax, df, zone)
    _dress(ax)
    ax._repr_png_ = partial(figure_png, ax.figure)  # type: ignore[attr-defined]  # IPython asks for it: the figure is not pyplot's
    return ax


def _read(drawing: Drawing, store: StoreLike, filters: dict[str, Any]) -> pd.DataFrame:
    """The frame of a plot, from the store."""
    known = next(table.names for table in TABLES.values() if table.name == drawing.source)
    needed = [*drawing.columns, *(name for name in drawing.welcome if name in known)]
    with frames.reading(store) as opened:
        df: pd.DataFrame = getattr(frames, drawing.source)(opened, columns=needed, **filters)
        if "error_type" not in needed or "cost_usd" not in needed:
            return df
        return unknown_of(frames.runs(opened, columns="unknown_cost_calls", **filters), df)


def _shown_by_pyplot() -> Axes | None:
    """Axes on a figure of pyplot's, where a cell shows those when it ends, or as they change; None anywhere else."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    try:
        import matplotlib
    except ImportError as error:
        raise ErrorMissingPackage("matplotlib", "notebook", "a plot") from error
    backend = str(matplotlib.rcParams._get("backend") if hasattr(matplotlib.rcParams, "_get") else matplotlib.rcParams["backend"])
    if "inline" not in backend and "ipympl" not in backend and backend != "widget":
        return None
    from matplotlib import pyplot

    axes: Axes = pyplot.figure(figsize=_SIZE, layout="constrained", facecolor="none").subplots()
    return axes


def picture(name: str, df: pd.DataFrame, zone: tzinfo | None) -> tuple[bytes, str]:
    """A plot as a PNG image, and a sentence that says what is seen. `name` is one of `DRAWINGS`; `df` has its columns.

    Raises:
        ErrorMissingPackage: matplotlib is not installed.
    """
    ax = _own_axes()
    sentence = DRAWINGS[name].on(ax, df, zone)
    _dress(ax)
    return figure_png(ax.figure)[0], sentence


def _own_axes() -> Axes:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ErrorMissingPackage("matplotlib", "notebook", "a plot") from error
    figure = Figure(figsize=_SIZE, layout="constrained", facecolor="none")
    return figure.subplots()


def _dress(ax: Axes) -> None:
    """Colours that read on light and on dark pages; set on the Axes itself, as a style sheet would change everybody's."""
    ax.set_facecolor("none")
    for side, spine in ax.spines.items():
        spine.set_color(GREY)
        spine.set_visible(side in ("left", "bottom"))
    ax.tick_params(which="both", colors=GREY, labelcolor=GREY, labelsize=9.5)
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_color(GREY)
        axis.label.set_fontsize(9.5)
        axis.get_offset_text().set(color=GREY, fontsize=9.5)
    for title in (ax.title, ax._left_title):  # type: ignore[attr-defined]
        title.set_color(GREY)
        title.set_fontsize(11.5)
        title.set_fontweight("bold")
    for text in ax.texts:
        text.set_color(GREY)
    if (legend := ax.get_legend()) is not None:
        for text in legend.get_texts():
            text.set_color(GREY)


def figure_png(figure: Any) -> tuple[bytes, dict[str, int]]:
    """The figure as a PNG image with two pixels for one, and the size to show it in."""
    import warnings

    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layouts too tight for a long name
        figure.savefig(buffer, format="png", dpi=192, transparent=True, pil_kwargs={"optimize": True})
    width, height = figure.get_size_inches() * 96
    return buffer.getvalue(), {"width": int(width), "height": int(height)}
