"""Costs by group: sums that equal the ledger, and a max_cost that fits."""

import json
import pickle
import random
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pandas as pd
import pytest

import agentroute
from agentroute import Agent, RunStore, ToolCall, cost, suggest_max_cost
from agentroute.costs import cost_of_rows
from agentroute.errors import ErrorConfig
from agentroute.frames import frame
from agentroute.ledger import RUN_COLUMNS, TURN_COLUMNS, periods, whole_run_costs, zone_of
from agentroute.plots import plot_tools
from agentroute.records import RunRecord, TurnRecord
from agentroute.testing import ModelScripted

START = datetime(2026, 11, 20, 22, 30, tzinfo=UTC)  # a Friday
NUMBERS = ["input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "cost_usd", "cost_saved_usd"]


@pytest.fixture
def store(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


def run_of(run_id, **changes):
    return RunRecord(**{"run_id": run_id, "started_at": START, "agent_name": "support", "request_model": "m", "status": "ok", "n_turns": 1} | changes)


def turn_of(run_id, index=1, **changes):
    return TurnRecord(**{"run_id": run_id, "turn_index": index, "started_at": START, "request_model": "m"} | changes)


def made(runs, turns):
    return frame(RunRecord, runs)[list(RUN_COLUMNS)], frame(TurnRecord, turns)[list(TURN_COLUMNS)]


def some_days(seed):
    """Runs of all kinds, and their turns: the sums of a run are those of its turns."""
    dice = random.Random(seed)
    runs, turns = [], []
    for number in range(120):
        run_id = f"r{number:03d}"
        began = START + timedelta(minutes=dice.randrange(10_000))
        model = dice.choice(["a/b", "c/d", "local/e"])
        own = [
            turn_of(
                run_id, index, started_at=began + timedelta(minutes=20 * index), request_model=model, response_model=dice.choice([None, model + "-2026"]),
                input_tokens=dice.choice([None, dice.randrange(2**40)]), output_tokens=dice.choice([None, 7]), reasoning_tokens=dice.choice([None, 0, 3]),
                cost_usd=dice.choice([None, 0.1, 1e-9, dice.random()]), cost_saved_usd=dice.choice([None, 0.3]),
                cost_source=dice.choice(["provider", "table", "unknown"]),
            )
            for index in range(1, dice.randrange(6))
        ]  # fmt: skip
        known = [turn.cost_usd for turn in own if turn.cost_usd is not None]
        runs.append(
            run_of(
                run_id, started_at=began, request_model=model, n_turns=len(own), agent_name=dice.choice(["support", "triage"]), duration_s=dice.choice([None, dice.random()]),
                status=dice.choice(["ok", "error", "interrupted"]), tags=dice.choice([None, "{}", json.dumps({"tenant": dice.choice("ab")})]),
                cost_usd=sum(known) if known else None, unknown_cost_calls=len(own) - len(known), parent_run_id=dice.choice([None, "r001"]),
                notebook=dice.choice([None, "x.ipynb"]), session_id=dice.choice([None, "s"]), error_type=dice.choice([None, "ErrorRun"]),
            )
        )  # fmt: skip
        turns += own
    return runs, turns


ALL_KEYS = ["hour", "day", "week", "month", "model", "response_model", "agent", "status", "notebook", "session", "cost_source", "error_type", "tag:tenant"]


@pytest.mark.parametrize("by", [*ALL_KEYS, [], ["day", "model"], ["agent", "tag:tenant", "week"]])
@pytest.mark.parametrize("tz", ["UTC", "America/St_Johns", "local"])
def test_sums_equal_the_ledger(by, tz):
    runs, turns = some_days(1)
    table = cost_of_rows(*made(runs, turns), by, zone_of(tz))
    assert table["runs"].sum() == len(runs)
    assert table["turns"].sum() == len(turns)
    assert table["errors"].sum() == sum(run.status == "error" for run in runs)
    for name in NUMBERS:
        exact = sum((Decimal(value) for turn in turns if (value := getattr(turn, name)) is not None), Decimal(0))
        assert abs(sum(map(Decimal, table[name].dropna().tolist())) - exact) <= Decimal("1e-9"), name


def test_each_group_holds_its_own_rows_only():
    runs, turns = some_days(2)
    table = cost_of_rows(*made(runs, turns), ["day", "model"])
    for row in table.to_dict("records"):
        own = [turn.cost_usd for turn in turns if (turn.request_model, turn.started_at.date()) == (row["model"], row["day"].date())]
        known = [Decimal(cost) for cost in own if cost is not None]
        assert row["turns"] == len(own)
        assert row["cost_usd"] == pytest.approx(float(sum(known)) if known or not own else float("nan"), abs=1e-9, nan_ok=True)
    assert table[["day", "model"]].equals(table[["day", "model"]].sort_values(["day", "model"], ignore_index=True))
    assert not table.duplicated(["day", "model"]).any()


def test_a_nested_run_is_counted_once(store):
    inner = Agent("inner", model=ModelScripted(["found"], cost_usd=0.25), store=store)

    def research(topic: str) -> str:
        """Looks."""
        return str(inner.run(topic))

    outer = Agent("outer", model=ModelScripted([ToolCall("1", "research", {"topic": "x"}), "done"], cost_usd=0.5), tools=[research], store=store)
    spent = outer.run("go").usage.total_cost_usd
    assert cost([], store=store).cost_usd.tolist() == [spent] == [1.25]
    assert cost("agent", store=store).set_index("agent").cost_usd.to_dict() == {"inner": 0.25, "outer": 1.0}
    assert agentroute.tool_calls(store).cost_usd.tolist() == [0.25]


def test_what_nobody_reported_is_missing_and_not_zero():
    table = cost_of_rows(*made([run_of("a", unknown_cost_calls=1), run_of("b", agent_name="free", cost_usd=0.0)], [turn_of("a"), turn_of("b", cost_usd=0.0)]), "agent")
    free, unknown = table.to_dict("records")
    assert (free["cost_usd"], free["cost_per_run_usd"], free["unknown_cost_share"]) == (0, 0, 0)
    assert pd.isna([unknown[name] for name in [*NUMBERS, "cost_per_run_usd"]]).all()
    assert unknown["unknown_cost_share"] == 1


def test_runs_of_unknown_cost_do_not_make_the_others_cheaper():
    table = cost_of_rows(*made([run_of("a", cost_usd=0.4), run_of("b", unknown_cost_calls=1)], [turn_of("a", cost_usd=0.4), turn_of("b")]), [])
    assert table.cost_per_run_usd.tolist() == [0.4]
    assert table.unknown_cost_share.tolist() == [0.5]


def test_a_request_that_was_refused_has_no_unknown_cost():
    runs = [run_of("a", status="error", n_turns=2, unknown_cost_calls=1)]
    turns = [turn_of("a", 1), turn_of("a", 2, error_type="ErrorModelRateLimit")]
    assert cost_of_rows(*made(runs, turns), []).unknown_cost_share.tolist() == [0.5]
    runs[0].unknown_cost_calls = 2  # the second may have been charged for as well: the connection broke
    assert cost_of_rows(*made(runs, turns), []).unknown_cost_share.tolist() == [1.0]


def test_a_run_without_turns_is_a_run():
    runs = [run_of("a", n_turns=0, status="error", duration_s=2.0), run_of("b", duration_s=3.0)]
    table = cost_of_rows(*made(runs, [turn_of("b", cost_usd=0.1)]), ["day", "model"])
    assert table[["runs", "turns", "errors"]].to_numpy().tolist() == [[2, 1, 1]]
    assert table.cost_usd.tolist() == [0.1]
    assert table.p50_s.tolist() == [3.0]  # the other one asked nothing


def test_a_run_over_midnight_is_of_the_day_it_began_and_its_turns_of_their_own():
    turns = [turn_of("a", 1, cost_usd=1.0), turn_of("a", 2, started_at=START + timedelta(hours=2), cost_usd=2.0)]
    table = cost_of_rows(*made([run_of("a", n_turns=2, cost_usd=3.0)], turns), "day")
    assert table[["runs", "turns", "cost_usd"]].to_numpy().tolist() == [[1, 1, 1.0], [0, 1, 2.0]]


def test_seconds_are_of_runs_and_not_of_turns():
    runs = [run_of(name, duration_s=seconds) for name, seconds in {"a": 1.0, "b": 2.0, "c": 4.0}.items()]
    table = cost_of_rows(*made(runs, [turn_of("a", index) for index in range(1, 50)]), [])
    assert table.p50_s.tolist() == [2.0]
    assert table.p95_s.tolist() == pytest.approx([3.8])


@pytest.mark.parametrize(
    ("unit", "tz", "expected"),
    [
        ("hour", None, "2026-11-20 22:00"),
        ("day", None, "2026-11-20"),
        ("day", "Europe/Berlin", "2026-11-20"),
        ("day", "Asia/Tokyo", "2026-11-21"),
        ("hour", "Asia/Kathmandu", "2026-11-21 04:00"),
        ("week", None, "2026-11-16"),
        ("week", "Pacific/Kiritimati", "2026-11-16"),
        ("month", timezone(timedelta(days=-1, hours=1)), "2026-11-01"),
    ],
)
def test_days_are_those_of_the_zone(unit, tz, expected):
    table = cost_of_rows(*made([run_of("a")], [turn_of("a")]), unit, zone_of(tz))
    assert table[unit].tolist() == [pd.Timestamp(expected)]
    assert str(table[unit].dtype) == "datetime64[us]"


def test_times_before_1970_and_around_a_change_of_clocks_are_as_python_has_them():
    zone = zone_of("Europe/Berlin")
    times = [datetime(2026, 10, 25, 0, 0, tzinfo=UTC) + timedelta(minutes=7, seconds=5) * step for step in range(40)] + [datetime(1969, 12, 28, 23, 59, 59, 999_999, UTC)]
    found = periods(pd.Series(times).astype("datetime64[us, UTC]"), "time", zone)
    assert found.tolist() == [time.astimezone(zone).replace(tzinfo=None) for time in times]
    monday = periods(pd.Series(times[-1:]).astype("datetime64[us, UTC]"), "week", zone)
    assert monday.tolist() == [datetime(1969, 12, 29)]


def test_local_days_are_those_of_this_machine(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        table = cost_of_rows(*made([run_of("a")], [turn_of("a")]), "day", zone_of("local"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert table.day.tolist() == [pd.Timestamp("2026-11-21")]


def test_a_tag_is_a_column_and_runs_without_it_are_a_group_at_the_end():
    tags = ['{"tenant": "b"}', None, '{"tenant": "a", "x": "y"}', '{"x": "y"}']
    runs = [run_of(f"r{number}", tags=text) for number, text in enumerate(tags)]
    table = cost_of_rows(*made(runs, []), "tag:tenant")
    assert table.tag_tenant.tolist()[:2] == ["a", "b"]
    assert table.tag_tenant.isna().tolist() == [False, False, True]
    assert table.runs.tolist() == [1, 1, 2]


@pytest.mark.parametrize("by", [["day", "model"], "tag:x", []])
def test_an_empty_history_has_the_same_columns(store, by):
    empty = cost(by, store=store)
    store.save(run_of("a", tags='{"x": "1"}'), turns=[turn_of("a", cost_usd=0.5)])
    full = cost(by, store=store)
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()
    assert len(empty) == (by == [])
    assert empty.cost_usd.isna().all()
    assert empty.runs.sum() == 0


def test_filters_choose_the_runs(store):
    for name in ("a", "b"):
        store.save(run_of(name, agent_name=name), turns=[turn_of(name, cost_usd=0.5)])
    assert cost([], store=store, agent="a").cost_usd.tolist() == [0.5]
    assert cost([], store=store.path).cost_usd.tolist() == [1.0]
    assert cost("agent", store=store, limit=1).runs.tolist() == [1]


@pytest.mark.parametrize("by", ["modle", ["day", "tag:"], [3], 3, ["day", "day"]])
def test_a_group_that_is_none_is_named(store, by):
    with pytest.raises(ErrorConfig, match="by "):
        cost(by, store=store)


@pytest.mark.parametrize("tz", ["Mars/Base", "", 3, "../x"])
def test_a_zone_that_is_none_is_named(store, tz):
    with pytest.raises(ErrorConfig, match="tz must be"):
        cost("day", store=store, tz=tz)


# ---- a max_cost that fits ---------------------------------------------------------------------------------------


def dear(store, costs, agent="support", **changes):
    for number, usd in enumerate(costs):
        store.save(run_of(f"{agent}{number:03d}", started_at=datetime.now(UTC), agent_name=agent, cost_usd=usd, **changes))


def test_the_suggestion_is_three_times_the_95th_percentile(store):
    dear(store, [number / 1000 for number in range(1, 101)])
    suggested = suggest_max_cost("support", store=store)
    assert suggested == 0.29  # 3 x 0.09505, to two digits upwards
    assert (suggested.n_runs, suggested.max, suggested.share_stopped) == (100, 0.1, 0)
    assert "100 runs of 'support'" in repr(suggested)
    assert "p50 $0.0505" in repr(suggested)
    assert "stopped 0.0%" in repr(suggested)


def test_the_suggestion_is_a_max_cost(store):
    dear(store, [0.01] * 30)
    suggested = suggest_max_cost("support", store=store)
    assert Agent("support", model=ModelScripted(["ok"], cost_usd=0.01), max_cost=suggested).run("hi").output == "ok"
    assert json.dumps(suggested) == str(suggested) == "0.03"
    copy = pickle.loads(pickle.dumps(suggested))
    assert (copy, copy.why) == (suggested, suggested.why)


def test_the_suggestion_says_how_many_runs_it_would_have_stopped(store):
    dear(store, [0.01] * 98 + [5.0, 5.0])
    suggested = suggest_max_cost("support", store=store)
    assert suggested == 0.03
    assert suggested.share_stopped == 0.02
    assert "stopped 2.0%" in suggested.why


def test_a_run_counts_with_those_inside_it(store):
    store.save(run_of("a", started_at=datetime.now(UTC), cost_usd=0.1))
    store.save(run_of("b", started_at=datetime.now(UTC), cost_usd=0.2, agent_name="inner", parent_run_id="a"))
    store.save(run_of("c", started_at=datetime.now(UTC), cost_usd=0.4, agent_name="innermost", parent_run_id="b"))
    assert suggest_max_cost("support", store=store).max == pytest.approx(0.7)
    assert suggest_max_cost("inner", store=store).max == pytest.approx(0.6)


def test_runs_whose_rows_say_they_are_inside_each_other_come_to_an_end():
    runs = frame(RunRecord, [run_of("a", cost_usd=1.0, parent_run_id="b"), run_of("b", cost_usd=1.0, parent_run_id="a")])
    assert whole_run_costs(runs).notna().all()


def test_unknown_costs_are_left_out_and_said(store):
    dear(store, [0.01] * 25)
    dear(store, [0.0001] * 4, agent="other", unknown_cost_calls=1)
    for number in range(3):
        store.save(run_of(f"u{number}", started_at=datetime.now(UTC), cost_usd=0.5, unknown_cost_calls=1))
    suggested = suggest_max_cost("support", store=store)
    assert (suggested.n_runs, suggested.n_unknown, suggested.max) == (25, 3, 0.01)
    assert "3 runs left out" in suggested.why
    assert suggest_max_cost("other", store=store) != suggest_max_cost("other", store=store)  # NaN
    assert "no run of 'other'" in suggest_max_cost("other", store=store).why


def test_replayed_answers_count_as_what_they_had_cost(store):
    dear(store, [0.0] * 30, cost_saved_usd=0.02)
    assert suggest_max_cost("support", store=store).p50 == 0.02


def test_too_few_runs_are_said(store):
    dear(store, [0.01, 0.02])
    suggested = suggest_max_cost("support", store=store)
    assert suggested == 0.06
    assert "Too few runs" in suggested.why


def test_runs_that_failed_before_they_cost_anything_are_no_runs_to_go_by(store):
    dear(store, [None] * 50, agent="support", status="error")
    for number in range(20):
        store.save(run_of(f"ok{number}", started_at=datetime.now(UTC), cost_usd=0.01))
    assert suggest_max_cost("support", store=store).n_runs == 20


def test_an_agent_that_costs_nothing_needs_no_max_cost(store):
    dear(store, [0.0] * 30)
    assert "No max_cost is needed, and this is none: 30 runs" in suggest_max_cost("support", store=store).why


def test_since_is_heeded(store):
    dear(store, [0.01] * 5)
    store.save(run_of("old", started_at=datetime.now(UTC) - timedelta(days=40), cost_usd=9.0))
    assert suggest_max_cost("support", store=store).max == 0.01
    assert suggest_max_cost("support", store=store, since=None).max == 9.0
    assert suggest_max_cost("support", store=store, since="60d").n_runs == 6


def test_the_agent_is_named_by_a_text(store):
    with pytest.raises(ErrorConfig, match="name of an agent"):
        suggest_max_cost(Agent("x", model=ModelScripted(["a"])), store=store)


def test_only_runs_that_asked_the_model_say_what_a_run_costs_and_takes():
    runs = [
        run_of("a", cost_usd=0.5, duration_s=4.0),
        run_of("b", cost_usd=0.0, cost_saved_usd=0.5, duration_s=0.001, n_replayed=1),
        run_of("c", n_turns=0, duration_s=0.001, status="error"),
    ]
    turns = [turn_of("a", cost_usd=0.5), turn_of("b", cost_usd=0.0, cost_saved_usd=0.5, replayed_from="a")]
    (row,) = cost_of_rows(*made(runs, turns), []).to_dict("records")
    assert (row["runs"], row["cost_per_run_usd"], row["p50_s"], row["p95_s"]) == (3, 0.5, 4.0, 4.0)


def test_a_group_that_sent_nothing_or_was_refused_cost_nothing():
    runs = [run_of("a", n_turns=0), run_of("b", agent_name="refused", status="error")]
    table = cost_of_rows(*made(runs, [turn_of("b", error_type="ErrorModelRateLimit")]), "agent")
    assert table[["cost_usd", "unknown_cost_share"]].fillna(-1).to_numpy().tolist() == [[0.0, 0.0], [0.0, -1.0]]


def test_a_model_has_one_name_also_in_runs_that_sent_nothing(store):
    store.save(run_of("a", request_model="ollama/qwen3:4b", cost_usd=0.1), turns=[turn_of("a", request_model="qwen3:4b", cost_usd=0.1)])
    store.save(run_of("b", request_model="ollama/qwen3:4b", n_turns=0))
    assert cost("model", store=store)[["model", "runs", "turns"]].to_numpy().tolist() == [["qwen3:4b", 2, 1]]
    assert cost("model", store=store, model="qwen3:4b").cost_usd.tolist() == [0.1]
    assert cost([], store=store, model="ollama/qwen3:4b").runs.tolist() == [2]


def test_no_limit_is_suggested_where_nobody_knows_what_a_replayed_answer_had_cost(store):
    for number in range(30):
        run = run_of(f"r{number}", started_at=datetime.now(UTC), cost_usd=0.0, n_replayed=1)
        store.save(run, turns=[turn_of(f"r{number}", cost_usd=0.0, replayed_from="x", cost_source="unknown")])
    suggested = suggest_max_cost("support", store=store)
    assert suggested != suggested  # NaN
    assert (suggested.n_runs, suggested.n_unknown) == (0, 30)


def test_where_few_runs_cost_anything_the_dearest_counts(store):
    dear(store, [0.0] * 60 + [5.0] * 2)
    suggested = suggest_max_cost("support", store=store)
    assert suggested == 15.0
    assert "three times the dearest run. 95 % of the runs cost nothing." in suggested.why


def test_what_costs_nothing_gives_no_limit_that_would_stop_the_first_call(store):
    dear(store, [0.0] * 25)
    with pytest.raises(ErrorConfig):
        Agent("a", model=ModelScripted(["x"]), max_cost=suggest_max_cost("support", store=store))


def test_three_times_is_reckoned_as_people_do(store):
    dear(store, [0.1] * 25)
    assert suggest_max_cost("support", store=store) == 0.3


@pytest.mark.parametrize("function", [cost, agentroute.runs, agentroute.turns, agentroute.report, agentroute.to_parquet, plot_tools])
def test_a_filter_that_is_misspelt_is_answered_with_the_nearest(function):
    with pytest.raises(ErrorConfig, match=f"{function.__name__} takes no 'sinse'; did you mean 'since'\\?"):
        function(sinse="7d")


def test_a_history_in_the_place_of_groups_is_told():
    with pytest.raises(ErrorConfig, match="a history is given as store="):
        cost("runs.db")
