"""Plots: what is drawn, of how much, and that no name of a model or tool can break it."""

import gc
import pickle
import random
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from inspect import signature
from io import BytesIO

import matplotlib
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import agentroute
from agentroute import RunStore, plots
from agentroute.drawings import COLOURS, DRAWINGS, GREY, NAME
from agentroute.errors import ErrorConfig, ErrorMissingPackage
from agentroute.frames import frame
from agentroute.records import RunRecord, ToolCallRecord, TurnRecord

START = datetime(2026, 11, 1, tzinfo=UTC)
NAMES = list(DRAWINGS)
KINDS = {"runs": RunRecord, "turns": TurnRecord, "tool_calls": ToolCallRecord}
HOSTILE = [
    "$x$", r"$\frac{1}{$", "costs $5 and $6", r"\$", "$", "$$", "_private", "", " ", "a" * 500, "bell\x07", "turn\u202eed", "\x1b[31mred", "日本語 😀", "\ud800",
    "<script>", "two\nlines", "{}", "%s", "\\", "^_{}", "\u0301", "-",
]  # fmt: skip


def plot(name, *arguments, **options):
    return getattr(plots, f"plot_{name}")(*arguments, **options)


def drawn(ax):
    """All text that is drawn, and how many bytes the picture has."""
    data, _ = ax._repr_png_()
    ax.figure.canvas.draw()
    return [text.get_text() for text in ax.figure.findobj(matplotlib.text.Text) if text.get_visible() and text.get_text()], len(data)


def runs_of(number, **changes):
    return frame(RunRecord, [RunRecord(**{"run_id": f"r{n}", "started_at": START + timedelta(hours=n), "agent_name": "a", "request_model": "m", "cost_usd": 0.01 * (n + 1)} | changes) for n in range(number)])


def turns_of(number, names=("m",), **changes):
    defaults = {"input_tokens": 100, "output_tokens": 10, "cached_input_tokens": 40, "reasoning_tokens": 5, "cost_usd": 0.01}
    return frame(
        TurnRecord,
        [
            TurnRecord(**{"run_id": f"r{n}", "turn_index": n % 5 + 1, "started_at": START + timedelta(hours=n), "request_model": names[n % len(names)]} | defaults | changes)
            for n in range(number)
        ],
    )


def calls_of(number, names=("look",), **changes):
    return frame(
        ToolCallRecord,
        [
            ToolCallRecord(**{"run_id": f"r{n}", "turn_index": 1, "call_index": 1, "tool_name": names[n % len(names)], "started_at": START, "status": "ok"} | changes)
            for n in range(number)
        ],
    )


MAKERS = {"runs": runs_of, "turns": turns_of, "tool_calls": calls_of}


def frame_for(name, number, **changes):
    return MAKERS[DRAWINGS[name].source](number, **changes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", [0, 1, 2, 400])
def test_any_number_of_rows_is_drawn(name, number):
    texts, size = drawn(plot(name, frame_for(name, number)))
    assert size > 1000
    assert any(text in ("no runs yet", "no tool calls yet") for text in texts) == (number == 0)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("tools", "tokens")])
def test_costs_that_are_all_unknown_are_said(name):
    texts, _ = drawn(plot(name, frame_for(name, 7, cost_usd=None, **({"unknown_cost_calls": 1} if name == "cost_per_run" else {}))))
    assert "nobody reported a cost" in texts or "cost of 7 runs unknown" in texts


def test_tokens_that_are_all_unknown_are_said():
    texts, _ = drawn(plots.plot_tokens(turns_of(3, input_tokens=None, output_tokens=None)))
    assert "nobody reported tokens" in texts


@pytest.mark.parametrize("name", ["cumulative_cost", "savings", "cost_by_turn"])
def test_costs_that_are_partly_unknown_are_said(name):
    df = frame_for(name, 10)
    df.loc[[0, 5, 9], "cost_usd"] = float("nan")
    texts, _ = drawn(plot(name, df))
    assert any("cost unknown: 3 of 10" in text for text in texts)


# ---- what is drawn ----------------------------------------------------------------------------------------------


def test_lines_end_at_what_was_paid_in_all():
    dice = random.Random(3)
    df = turns_of(500, names=("a/b", "c/d"))
    df["cost_usd"] = [dice.random() for _ in range(500)]
    ax = plots.plot_cumulative_cost(df)
    ends = {line.get_label().split("  ")[0]: line.get_ydata()[-1] for line in ax.get_lines()}
    assert ends == pytest.approx(df.groupby("request_model").cost_usd.sum().to_dict(), abs=1e-9)
    assert all((pd.Series(line.get_ydata()).diff().dropna() >= 0).all() for line in ax.get_lines())


def test_lines_never_show_money_before_it_was_paid():
    df = turns_of(4)
    df["started_at"] = pd.Series([START + timedelta(days=day) for day in (0, 1, 2, 30)]).astype("datetime64[us, UTC]")
    df["cost_usd"] = [1.0, 2.0, 4.0, 8.0]
    (line,) = plots.plot_cumulative_cost(df).get_lines()
    times, sums = pd.DatetimeIndex(line.get_xdata(orig=True)).tz_localize("UTC"), line.get_ydata()
    for time, total in zip(times, sums, strict=True):
        assert total <= df.cost_usd[df.started_at <= time].sum() + 1e-12


def test_of_40_models_8_are_named_and_the_others_summed():
    df = turns_of(400, names=[f"m{number:02d}" for number in range(40)])
    df["cost_usd"] = df.request_model.str[1:].astype(float)
    ax = plots.plot_cumulative_cost(df)
    labels = [line.get_label().split("  ")[0] for line in ax.get_lines()]
    assert labels == ["m39", "m38", "m37", "m36", "m35", "m34", "m33", "m32", "32 others"]
    assert sum(line.get_ydata()[-1] for line in ax.get_lines()) == pytest.approx(df.cost_usd.sum())


def test_tokens_are_stacked_by_kind_and_none_twice():
    df = turns_of(100)
    ax = plots.plot_tokens(df)
    heights = {bars.get_label(): sum(bar.get_height() for bar in bars) for bars in ax.containers}
    assert heights == {"input": 6000, "input from cache": 4000, "output": 500, "reasoning": 500}
    assert sum(heights.values()) == df.input_tokens.sum() + df.output_tokens.sum()


@pytest.mark.parametrize(("days", "unit"), [(1, "hour"), (30, "day"), (200, "week"), (2000, "month")])
def test_bars_are_as_long_as_suits_the_time(days, unit):
    df = turns_of(3)
    df["started_at"] = pd.Series([START, START + timedelta(days=days / 2), START + timedelta(days=days)]).astype("datetime64[us, UTC]")
    assert plots.plot_tokens(df).get_title("left") == f"Tokens per {unit}"
    assert plots.plot_savings(df).get_title("left") == f"Paid and saved per {unit}"


def test_days_are_those_of_the_zone():
    df = turns_of(2)
    df["started_at"] = pd.Series([START, START + timedelta(days=10, hours=23)]).astype("datetime64[us, UTC]")
    starts = {tz: [bar.get_x() for bar in plots.plot_tokens(df, tz=tz).containers[0]] for tz in ("UTC", "America/New_York")}
    assert starts["UTC"] == [start + 1 if place == 0 else start for place, start in enumerate(starts["America/New_York"])]


def test_a_run_is_drawn_once_with_those_inside_it():
    df = frame(
        RunRecord,
        [
            RunRecord(run_id="a", started_at=START, agent_name="a", request_model="m", cost_usd=1.0),
            RunRecord(run_id="b", started_at=START, agent_name="b", request_model="m", cost_usd=2.0, parent_run_id="a"),
            RunRecord(run_id="c", started_at=START, agent_name="c", request_model="m", cost_usd=0.0, n_turns=1),
            RunRecord(run_id="e", started_at=START, agent_name="e", request_model="m", cost_usd=0.0, n_turns=2, n_replayed=2),
            RunRecord(run_id="d", started_at=START, agent_name="d", request_model="m", unknown_cost_calls=1),
        ],
    )
    ax = plots.plot_cost_per_run(df)
    (bars,) = ax.patches
    assert bars.get_data().values.sum() == 1
    assert ax.get_xscale() == "log"
    assert "1 run cost nothing, cost of 1 run unknown, 1 run asked no model" in ax.get_xlabel()
    assert r"half cost at most \$3.00" in [line.get_label() for line in ax.get_lines()]


def test_every_run_is_in_the_histogram():
    df = runs_of(997)
    df["cost_usd"] = [10 ** random.Random(n).uniform(-7, 2) for n in range(997)]
    (bars,) = plots.plot_cost_per_run(df).patches
    assert bars.get_data().values.sum() == 997


def test_cost_by_turn_is_median_and_mean_of_the_turns():
    df = turns_of(50)
    df["cost_usd"] = [turn * (5.0 if place < 5 else 1.0) for place, turn in enumerate(df.turn_index)]
    median, mean = plots.plot_cost_by_turn(df).get_lines()
    assert median.get_ydata().tolist() == [1, 2, 3, 4, 5]
    assert mean.get_ydata().tolist() == pytest.approx([1.4, 2.8, 4.2, 5.6, 7.0])


def test_a_replayed_turn_counts_as_what_it_had_cost():
    median, _ = plots.plot_cost_by_turn(turns_of(50, cost_usd=0.0, cost_saved_usd=0.5)).get_lines()
    assert median.get_ydata().tolist() == [0.5] * 5


def test_turns_that_few_runs_have_are_left_out_and_said():
    df = turns_of(50)
    df.loc[49, "turn_index"] = 30
    ax = plots.plot_cost_by_turn(df)
    assert max(ax.get_lines()[0].get_xdata()) == 5
    assert "under 5 runs" in ax.get_xlabel()


def test_failures_and_cost_of_a_tool_are_in_words_too():
    df = calls_of(10, names=("look", "ask"))
    df.loc[df.index[:2], "status"] = "error"
    df.loc[df.tool_name == "ask", "cost_usd"] = 0.25
    ax = plots.plot_tools(df)
    assert {bars.get_label(): [bar.get_width() for bar in bars] for bars in ax.containers} == {"ok": [4, 4], "failed": [1, 1], "interrupted": [0, 0]}
    assert [text.get_text() for text in ax.texts] == ["5 calls, 20% failed", r"5 calls, 20% failed, \$1.25"]


def test_paid_and_saved_add_up():
    df = pd.concat([turns_of(10), turns_of(5, cost_usd=0.0, cost_saved_usd=0.2)], ignore_index=True)
    paid, saved = plots.plot_savings(df).containers
    assert sum(bar.get_height() for bar in paid) == pytest.approx(0.1)
    assert sum(bar.get_height() for bar in saved) == pytest.approx(1.0)


# ---- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cumulative_cost", "tools"])
@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_is_read_as_a_formula_or_breaks_the_plot(name, text):
    df = frame_for(name, 6, names=(text, "other"))
    ax = plot(name, df)
    drawn(ax)
    shown = [label for label in ax.figure.findobj(matplotlib.text.Text) if label.get_text()]
    assert [label.get_text() for label in shown if label._preprocess_math(label.get_text())[1] == "TeX"] == []
    assert [label.get_text() for label in shown if label._preprocess_math(label.get_text())[1] is True] == []


def test_a_name_is_legible_and_short():
    texts, _ = drawn(plots.plot_tools(calls_of(8, names=("b\x07ell", "turn\u202eed", "w" * 200, "日本"))))
    assert {r"b\x07ell", r"turn\u202eed", "w" * (NAME - 1) + "…", r"\u65e5\u672c"} <= set(texts)


def test_a_name_that_begins_with_an_underscore_is_in_the_legend():
    ax = plots.plot_cumulative_cost(turns_of(4, names=("_private", "b")))
    assert len(ax.get_legend().get_texts()) == 2


def test_a_users_tex_is_not_asked_to_set_names():
    with matplotlib.rc_context({"text.usetex": True}):
        ax = plots.plot_cumulative_cost(turns_of(4, names=("a_b%", "b")))
        assert [text.get_usetex() for text in ax.get_legend().get_texts()] == [False, False]


# ---- figures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_axes_of_the_users_is_drawn_on_and_keeps_its_looks(name):
    figure = Figure()
    mine = figure.subplots()
    colour = mine.spines["top"].get_edgecolor()
    assert plot(name, frame_for(name, 5), ax=mine) is mine
    assert mine.has_data()
    assert mine.spines["top"].get_visible() and mine.spines["top"].get_edgecolor() == colour
    assert not hasattr(mine, "_repr_png_")  # its figure shows itself


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_in_pyplot_and_no_setting_changes(name):
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    ax = plot(name, frame_for(name, 5))
    assert isinstance(ax, Axes)
    drawn(ax)
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_a_figure_goes_when_nobody_holds_it():
    import weakref

    gone = weakref.ref(plots.plot_tokens(turns_of(5)).figure)
    gc.collect()
    assert gone() is None


def test_a_picture_is_transparent_sharp_and_knows_its_size():
    data, size = plots.plot_tokens(turns_of(50))._repr_png_()
    with Image.open(BytesIO(data)) as image:
        assert image.size == (size["width"] * 2, size["height"] * 2) == (1080, 636)
        assert image.convert("RGBA").getpixel((2, 2))[3] == 0
        colours = {pixel[:3] for _, pixel in image.convert("RGBA").getcolors(1 << 20) if pixel[3] == 255}
    assert tuple(bytes.fromhex(GREY[1:])) in colours
    assert len(data) < 60_000


def test_a_plot_can_be_pickled():
    ax = pickle.loads(pickle.dumps(plots.plot_tokens(turns_of(5))))
    assert drawn(ax)[1] > 1000


def contrast(colour, other):
    def luminance(text):
        parts = [int(text[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(colour), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
def test_colours_stand_out_from_light_and_dark_pages(page):
    assert contrast(GREY, page) > 4.2
    assert min(contrast(colour, page) for colour in COLOURS) >= 3


# ---- where rows come from ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_without_a_frame_the_store_is_read(name, tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        for agent in ("a", "b"):
            store.save(
                RunRecord(run_id=agent, started_at=START, agent_name=agent, request_model=agent, cost_usd=0.5),
                turns=[TurnRecord(run_id=agent, turn_index=1, started_at=START, request_model=agent, cost_usd=0.5, input_tokens=1)],
                tool_calls=[ToolCallRecord(run_id=agent, turn_index=1, call_index=1, tool_name=agent, started_at=START)],
            )
        whole = getattr(agentroute, DRAWINGS[name].source)(store)
        assert drawn(plot(name, store=store))[0] == drawn(plot(name, whole))[0]
        assert drawn(plot(name, store=store.path, agent="b"))[0] == drawn(plot(name, whole[whole.run_id == "b"]))[0]
        assert "no " in drawn(plot(name, store=store, agent="c"))[0][0]


@pytest.mark.parametrize("name", NAMES)
def test_arrow_frames_and_frames_shown_in_a_zone_are_taken(name):
    df = frame_for(name, 12)
    plain = drawn(plot(name, df))[0]
    assert drawn(plot(name, df.convert_dtypes(dtype_backend="pyarrow")))[0] == plain
    assert drawn(plot(name, df.assign(started_at=df.started_at.dt.tz_convert("Asia/Tokyo"))))[0] == plain


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_of_something_else_is_told_what_is_missing(name):
    with pytest.raises(ErrorConfig, match=rf"plot_{name} takes a frame of agentroute\..* no column "):
        plot(name, pd.DataFrame({"day": [1]}))
    with pytest.raises(ErrorConfig, match="got list"):
        plot(name, [1])


def test_times_without_a_zone_are_told():
    df = turns_of(3)
    with pytest.raises(ErrorConfig, match="holds something else"):
        plots.plot_tokens(df.assign(started_at=df.started_at.dt.tz_localize(None)))


def test_cumulative_cost_tokens_and_savings_take_runs_too():
    df = runs_of(5, input_tokens=1, output_tokens=1)
    for function in (plots.plot_cumulative_cost, plots.plot_tokens, plots.plot_savings):
        assert function(df).has_data()


def test_without_matplotlib_the_error_says_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ErrorMissingPackage, match=r"agentroute\[notebook\]"):
        plots.plot_tokens(turns_of(5))


def test_all_plots_take_the_same_arguments():
    signatures = {str(signature(getattr(plots, f"plot_{name}"))) for name in NAMES}
    assert len(signatures) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_and_filters_are_refused(name):
    with pytest.raises(ErrorConfig, match=f"plot_{name} takes a frame or filters, not both.*since"):
        plot(name, frame_for(name, 3), since="7d")


@pytest.mark.parametrize("name", ["tools", "cost_per_run"])
def test_what_is_counted_has_whole_numbers_on_its_axis(name):
    ax = plot(name, frame_for(name, 2))
    ax.figure.canvas.draw()
    axis = ax.xaxis if name == "tools" else ax.yaxis
    assert all(tick == int(tick) for tick in axis.get_majorticklocs())


def test_what_stands_below_a_plot_is_not_cut_off():
    df = turns_of(10_000).assign(turn_index=1 + pd.Series(range(10_000)) % 4999)
    df.loc[:4999, "cost_usd"] = float("nan")
    ax = plots.plot_cost_by_turn(df)
    ax.figure.canvas.draw()
    label, figure = ax.xaxis.label.get_window_extent(), ax.figure.bbox
    assert figure.x0 <= label.x0 < label.x1 <= figure.x1
