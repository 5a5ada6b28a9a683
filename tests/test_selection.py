"""Selection: which runs are meant."""

from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from agentroute import RunStore, cost
from agentroute.errors import ErrorConfig
from agentroute.frames import runs, turns
from agentroute.records import RunRecord
from agentroute.selection import STATUSES, Selection
from tests.test_store import START, run_of, turn_of

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def store(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


def found(store, **filters):
    return [row[0] for row in store.select(RunRecord, where=Selection.of(**filters), columns=["run_id"])]


# ---- times ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("7d", 7 * DAY), ("24h", DAY), ("90m", timedelta(minutes=90)), ("2w", 14 * DAY), ("30 s", timedelta(seconds=30)), (" 1d ", DAY),
    ],
)  # fmt: skip
def test_a_time_may_be_so_long_ago(text, ago):
    assert Selection.of(since=text, now=NOW).since == NOW - ago


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-01T12:00:00Z", "2026-11-01T13:00:00+01:00", datetime(2026, 11, 1, 12, tzinfo=UTC),
        datetime(2026, 11, 1, 7, tzinfo=timezone(timedelta(hours=-5))), pd.Timestamp("2026-11-01 12:00", tz="UTC"),
    ],
)  # fmt: skip
def test_a_time_with_a_zone_is_that_time(value):
    assert Selection.of(until=value).until == datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("value", ["2026-11-01", "2026-11-01 00:00", date(2026, 11, 1), datetime(2026, 11, 1)])
def test_a_time_without_a_zone_is_of_this_machine(value):
    assert Selection.of(since=value).since == datetime(2026, 11, 1).astimezone()


@pytest.mark.parametrize("value", ["yesterday", "7", "7 days", "", 7, 1.5, b"7d", ["7d"], pd.NaT, "999999w"])
def test_what_is_no_time_is_refused(value):
    with pytest.raises(ErrorConfig, match=r"since must be a time such as '7d' \(seven days ago; s, m, h, d, w\), '2026-11-01'.*; got "):
        Selection.of(since=value)


def test_since_after_until_is_refused():
    with pytest.raises(ErrorConfig, match="since must come before until; got since='1d', until='2d'"):
        Selection.of(since="1d", until="2d")


def test_since_counts_and_until_does_not(store):
    for number in range(4):
        store.save(run_of(f"r{number}", started_at=START + number * DAY))
    assert found(store, since=START + DAY) == ["r1", "r2", "r3"]
    assert found(store, until=START + DAY) == ["r0"]
    assert found(store, since=START + DAY, until=START + 3 * DAY) == ["r1", "r2"]


# ---- the other filters --------------------------------------------------------------------------------------------


def test_each_filter_takes_a_text_or_several(store):
    store.save(run_of("a", agent_name="x", status="ok", notebook="n1.ipynb", request_model="m1"))
    store.save(run_of("b", agent_name="y", status="error", notebook="n2.ipynb", request_model="m2"))
    store.save(run_of("c", agent_name="z", status="interrupted", notebook=None, request_model="m3"))
    for name, one, other in (("agent", "x", "y"), ("status", "ok", "error"), ("notebook", "n1.ipynb", "n2.ipynb"), ("model", "m1", "m2"), ("run_id", "a", "b")):
        assert found(store, **{name: one}) == ["a"]
        assert found(store, **{name: [other, one]}) == ["a", "b"]
        assert found(store, **{name: iter((one,))}) == ["a"]
        assert found(store, **{name: []}) == []


def test_a_model_that_answered_counts_like_one_asked_for(store):
    store.save(run_of("a", request_model="auto"), turns=[turn_of("a", response_model="m-2026")])
    store.save(run_of("b", request_model="auto"), turns=[turn_of("b", response_model="other")])
    assert found(store, model="m-2026") == ["a"]
    assert found(store, model="auto") == ["a", "b"]


@pytest.mark.parametrize(
    ("tag", "runs"),
    [
        ("tenant=a", ["r1"]), ("tenant", ["r1", "r2"]), ({"tenant": "b"}, ["r2"]), (["tenant", "plan=pro"], ["r2"]), ({"tenant": "c"}, []),
        ("tenant = a", ["r1"]), ("eq=x=y", ["r3"]), ("tenan", []), ({}, ["r1", "r2", "r3", "r4"]), ('a"b', ["r3"]),
    ],
)  # fmt: skip
def test_tags_are_a_name_or_a_name_and_a_value(store, tag, runs):
    store.save(run_of("r1", tags='{"tenant": "a"}'))
    store.save(run_of("r2", tags='{"tenant": "b", "plan": "pro"}'))
    store.save(run_of("r3", tags='{"eq": "x=y", "a\\"b": ""}'))
    store.save(run_of("r4"))
    assert found(store, tag=tag) == runs


def test_the_newest_runs_come_in_the_order_of_all(store):
    for number in (2, 0, 1):
        store.save(run_of(f"r{number}", started_at=START + number * DAY, agent_name="xy"[number % 2]))
    assert found(store, limit=2) == ["r1", "r2"]
    assert found(store, limit=1, agent="x") == ["r2"]
    assert found(store, limit=0) == []
    assert found(store, limit=9) == ["r0", "r1", "r2"]


def test_all_filters_hold_at_once(store):
    store.save(run_of("a", agent_name="x", status="ok"))
    store.save(run_of("b", agent_name="x", status="error"))
    store.save(run_of("c", agent_name="y", status="error"))
    assert found(store, agent="x", status="error") == ["b"]


def test_text_of_a_filter_is_no_sql(store):
    store.save(run_of("a"))
    assert found(store, agent="' OR 1=1 --") == []


def test_no_filter_means_all():
    assert Selection.of().all
    assert not Selection.of(limit=5).all
    assert not Selection.of(agent=[]).all


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"limit": -1}, "limit must be a number of runs, such as 100, or None for all; got -1"),
        ({"limit": "10"}, "limit must be a number of runs, such as 100, or None for all; got '10'"),
        ({"limit": True}, "limit must be a number of runs, such as 100, or None for all; got True"),
        ({"agent": 5}, "agent must be an agent's name or several of them, got int: 5"),
        ({"run_id": [None]}, "run_id must be a run's id or several of them, got NoneType: None"),
        ({"status": "failed"}, f"status must be one of {', '.join(STATUSES)}, or several of them; got 'failed'"),
        ({"tag": {"a": 1}}, r"tag must be 'tenant=a', 'tenant', several of them, or \{'tenant': 'a'\}; got \{'a': 1\}"),
        ({"tag": "=a"}, "tag must be 'tenant=a', 'tenant', several of them"),
    ],
)
def test_a_filter_that_is_none_is_refused(filters, message):
    with pytest.raises(ErrorConfig, match=message):
        Selection.of(**filters)


def test_tags_that_are_no_json_keep_no_other_run_from_being_found(store):
    store.save(run_of("a", tags="{not json"))
    store.save(run_of("b", tags='{"tenant": "b"}'))
    assert (found(store, tag="tenant=b"), found(store, tag="tenant")) == (["b"], ["b"])


def test_times_of_pandas_and_numpy_are_times():
    moments = [pd.Timestamp("2026-11-01"), np.datetime64("2026-11-01"), datetime(2026, 11, 1)]
    assert len({Selection.of(since=one, now=NOW).since for one in moments}) == 1
    spans = [pd.Timedelta(days=7), np.timedelta64(7, "D"), timedelta(days=7), "7d"]
    assert len({Selection.of(since=one, now=NOW).since for one in spans}) == 1


@pytest.mark.parametrize("value", [pd.NaT, np.datetime64("NaT"), np.timedelta64("NaT")])
def test_no_time_of_pandas_or_numpy_is_none(value):
    with pytest.raises(ErrorConfig, match="since must be a time"):
        Selection.of(since=value)


def test_limits_of_numpy_and_of_any_size_are_taken():
    assert Selection.of(limit=np.int64(5)).limit == 5
    assert Selection.of(limit=10**30).limit == 2**63 - 1


# ---- text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("refund", ["prompt", "answer", "long"]), ("REFUND", ["prompt", "answer", "long"]), ("a refund", ["prompt"]), ("100%", ["signs"]), ("a_b", ["signs"]),
        ("0_%", []), ("strasse", ["german"]), ("STRAẞE", ["german"]), ("ÜBER", ["german"]), ("'", ["signs"]), ("nowhere", []), (" over", ["german"]),
    ],
)  # fmt: skip
def test_a_text_is_looked_for_as_it_is_typed_in_prompts_and_answers(store, text, runs):
    store.save(run_of("prompt", prompt_text="I want a refund", started_at=START))
    store.save(run_of("answer", output_text="Refunded.", started_at=START + DAY))
    store.save(run_of("long", output_text="x" * 5000 + " reFund", started_at=START + 2 * DAY))  # packed, in another table
    store.save(run_of("signs", prompt_text="100% of a_b's", started_at=START + 3 * DAY))
    store.save(run_of("german", prompt_text="Über die Straße over", output_text=None, started_at=START + 4 * DAY))
    assert found(store, text=text) == runs


def test_a_text_is_one_more_filter_and_may_be_followed_by_another(store):
    store.save(run_of("a", agent_name="x", prompt_text="refund"))
    store.save(run_of("b", agent_name="y", prompt_text="refund"))
    store.save(run_of("c", agent_name="y", prompt_text="parcel"))
    assert found(store, text="refund", agent="y") == ["b"]
    assert found(store, text="parcel") == ["c"]
    assert found(store, text="refund", limit=1) == ["b"]


def test_a_text_finds_nothing_where_no_text_is_kept(tmp_path):
    with closing(RunStore(tmp_path / "figures.db", record_content="metadata")) as store:
        store.save(run_of("a", prompt_text="refund"))
        assert found(store, text="refund") == []


def test_a_text_in_a_damaged_body_is_not_found(store):
    store.save(run_of("a", prompt_text="refund " * 100))
    with store.transaction() as connection:
        connection.execute("UPDATE bodies SET data = x'00'")
    assert found(store, text="refund") == []


@pytest.mark.parametrize("text", ["", " ", 5, ["refund"]])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(ErrorConfig, match="text must be what a prompt or an answer holds, such as 'refund'; got"):
        Selection.of(text=text)


def test_frames_and_costs_take_a_text(store):
    store.save(run_of("a", prompt_text="refund", cost_usd=0.5), turns=[turn_of("a", cost_usd=0.5)])
    store.save(run_of("b", prompt_text="parcel", cost_usd=0.25), turns=[turn_of("b", cost_usd=0.25)])
    assert list(runs(store, text="refund")["run_id"]) == ["a"]
    assert list(turns(store, text="parcel")["run_id"]) == ["b"]
    assert cost([], store=store, text="refund")["cost_usd"].tolist() == [0.5]
