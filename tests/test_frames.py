"""Recorded runs as DataFrames."""

import math
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentroute
from agentroute import Agent, RunStore
from agentroute.errors import ErrorConfig, ErrorMissingPackage, ErrorStore
from agentroute.frames import frame, messages, runs, scores, tool_calls, turns
from agentroute.records import MessageRecord, RunRecord, ScoreRecord, ToolCallRecord, TurnRecord, columns, kind_of
from agentroute.store import set_default_store
from agentroute.testing import ModelScripted
from tests.test_store import START, call_of, message_of, run_of, save, turn_of, whole

TEXT = "str" if pd.__version__ >= "3" else "object"
TIME = "datetime64[us, UTC]"
FRAMES = [(runs, RunRecord), (turns, TurnRecord), (tool_calls, ToolCallRecord), (messages, MessageRecord), (scores, ScoreRecord)]


def score_of(run_id="r1", name="helpful", value=1.0, **changes):
    return replace(ScoreRecord(run_id=run_id, name=name, value=value, scored_at=START), **changes)


@pytest.fixture
def store(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


def dtypes(table):
    return {name: str(dtype) for name, dtype in table.dtypes.items()}


# ---- columns ----------------------------------------------------------------------------------------------------


@pytest.fixture
def full(store):
    """A run with rows in all tables, tagged nowhere."""
    save(store, whole())
    return store


@pytest.mark.parametrize(("read", "kind"), FRAMES)
def test_columns_are_those_of_the_record(store, read, kind):
    save(store, whole())
    assert list(read(store).columns) == [column.name for column in columns(kind)]


@pytest.mark.parametrize(("read", "kind"), FRAMES)
def test_dtypes_follow_the_annotations(store, read, kind):
    expected = {"str": TEXT, "datetime": TIME, "float": "float64"}
    save(store, whole())
    assert dtypes(read(store)) == {
        column.name: expected.get(kind_of(column)[0]) or ("Int64" if kind_of(column)[1] else "int64") for column in columns(kind)
    }


@pytest.mark.parametrize(("read", "kind"), FRAMES)
def test_an_empty_frame_has_the_same_columns_and_dtypes(store, read, kind):
    empty = read(store)
    save(store, whole())
    assert len(empty) == 0
    assert dtypes(empty) == dtypes(read(store))
    assert dtypes(read(store, run_id="no such run")) == dtypes(empty)


def test_the_columns_that_others_rely_on_are_there(store):
    assert dtypes(runs(store)).items() >= {
        "run_id": TEXT, "started_at": TIME, "duration_s": "float64", "status": TEXT, "agent_name": TEXT, "request_model": TEXT,
        "n_turns": "int64", "n_tool_calls": "int64", "input_tokens": "Int64", "output_tokens": "Int64", "cost_usd": "float64",
        "cost_saved_usd": "float64",
    }.items()  # fmt: skip
    assert dtypes(turns(store)).items() >= {
        "run_id": TEXT, "turn_index": "int64", "request_model": TEXT, "response_model": TEXT, "finish_reason": TEXT,
        "input_tokens": "Int64", "output_tokens": "Int64", "cost_usd": "float64", "duration_s": "float64",
        "time_to_first_chunk_s": "float64",
    }.items()  # fmt: skip
    assert dtypes(tool_calls(store)).items() >= {
        "run_id": TEXT, "turn_index": "int64", "tool_name": TEXT, "arguments_text": TEXT, "result_text": TEXT, "status": TEXT,
        "duration_s": "float64",
    }.items()  # fmt: skip
    assert dtypes(messages(store)).items() >= {
        "run_id": TEXT, "message_index": "int64", "role": TEXT, "content_text": TEXT, "tool_name": TEXT,
    }.items()  # fmt: skip


# ---- values -----------------------------------------------------------------------------------------------------


def test_unknown_is_missing_and_not_zero(store):
    store.save(run_of(), turns=[turn_of(index=1, input_tokens=0, cost_usd=0.0), turn_of(index=2)])
    table = turns(store)
    assert table.input_tokens.isna().tolist() == [False, True]
    assert table.cost_usd.isna().tolist() == [False, True]
    assert table.response_model.isna().all()
    assert table.input_tokens.sum() == 0


def test_times_are_exact_to_the_microsecond_and_in_utc(store):
    store.save(run_of(started_at=START.astimezone()))
    assert runs(store).started_at[0] == pd.Timestamp(START)
    assert runs(store).started_at[0].to_pydatetime() == START


def test_rows_come_by_start_of_the_run_then_by_position(store):
    store.save(run_of("a", started_at=START + timedelta(seconds=1)), turns=[turn_of("a", 2), turn_of("a", 1)])
    store.save(
        run_of("b"), turns=[turn_of("b", 1)], tool_calls=[call_of("b", 1, 2), call_of("b", 1, 1)], messages=[message_of("b")]
    )
    assert runs(store).run_id.tolist() == ["b", "a"]
    assert list(zip(turns(store).run_id, turns(store).turn_index, strict=True)) == [("b", 1), ("a", 1), ("a", 2)]
    assert tool_calls(store).call_index.tolist() == [1, 2]
    assert messages(store, run_id="a").empty


def test_big_counts_stay_exact(store):
    store.save(run_of(input_tokens=2**53 + 1), turns=[turn_of(input_tokens=None), turn_of(index=2, input_tokens=2**53 + 1)])
    assert runs(store).input_tokens[0] == 2**53 + 1
    assert turns(store).input_tokens[1] == 2**53 + 1


def test_many_rows_come_whole(store):
    store.save(run_of(), turns=[turn_of(index=index) for index in range(1, 5001)])
    assert turns(store).turn_index.tolist() == list(range(1, 5001))


turn_records = st.lists(
    st.builds(
        TurnRecord,
        run_id=st.text(),
        turn_index=st.integers(-(2**63), 2**63 - 1),
        started_at=st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda time: time.replace(tzinfo=UTC)),
        request_model=st.text(),
        response_model=st.none() | st.text(),
        input_tokens=st.none() | st.integers(-(2**63), 2**63 - 1),
        cost_usd=st.none() | st.floats(),
    ),
    max_size=20,
)


def value(cell):
    return None if pd.isna(cell) else cell


@settings(max_examples=50, deadline=None)
@given(records=turn_records)
def test_any_records_survive_the_frame(records):
    table = frame(TurnRecord, records)
    for column in ("run_id", "turn_index", "started_at", "response_model", "input_tokens"):
        assert [value(cell) for cell in table[column]] == [getattr(record, column) for record in records]
    costs = [math.nan if record.cost_usd is None else record.cost_usd for record in records]
    assert [str(cell) for cell in table.cost_usd] == [str(cost) for cost in costs]


def test_a_record_in_hand_gives_the_same_frame_as_the_file(store):
    record = whole()
    save(store, record)
    pd.testing.assert_frame_equal(frame(TurnRecord, record.turns), turns(store))
    pd.testing.assert_frame_equal(frame(ToolCallRecord, record.tool_calls), tool_calls(store))
    pd.testing.assert_frame_equal(frame(MessageRecord, record.messages), messages(store))
    pd.testing.assert_frame_equal(frame(RunRecord, [record.run]), runs(store))


def test_a_frame_can_be_changed(store):
    save(store, whole())
    table = turns(store)
    table.loc[0, "input_tokens"] = 5
    table.loc[0, "cost_usd"] = 0.5
    table.loc[0, "finish_reason"] = "stop"
    assert table.loc[0, ["input_tokens", "cost_usd", "finish_reason"]].tolist() == [5, 0.5, "stop"]


# ---- where from -------------------------------------------------------------------------------------------------


def test_a_store_its_path_and_the_default_give_the_same(store, monkeypatch):
    save(store, whole())
    pd.testing.assert_frame_equal(runs(store), runs(store.path))
    pd.testing.assert_frame_equal(runs(store), runs(str(store.path)))
    monkeypatch.setenv("AGENTROUTE_RUNS", str(store.path))
    pd.testing.assert_frame_equal(runs(store), agentroute.runs())


def test_the_store_of_the_process_comes_before_the_default_file(store, tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTROUTE_RUNS", str(tmp_path / "other.db"))
    save(store, whole())
    set_default_store(store)
    try:
        assert len(runs()) == 1
    finally:
        set_default_store(None)
    assert len(runs()) == 0


@pytest.mark.parametrize("read", [read for read, _ in FRAMES])
def test_a_file_that_does_not_exist_is_not_made(tmp_path, read):
    assert read(tmp_path / "none" / "runs.db").empty
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_history_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be taken for one\n" * 20)
    with pytest.raises(ErrorStore, match=r"notes\.txt"):
        runs(path)


def test_without_pandas_the_error_says_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ErrorMissingPackage, match=r'pip install "agentroute\[notebook\]"'):
        runs(store)


def test_pandas_is_loaded_with_the_first_frame_only():
    code = (
        "import sys, agentroute, agentroute.frames; agentroute.runs; assert not {'pandas', 'numpy', 'sqlite3'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- which columns ------------------------------------------------------------------------------------------------


def named(table):
    return list(table.columns)


def test_a_group_is_its_columns_after_the_key(full):
    assert named(turns(full, columns="usage")) == [
        "run_id", "turn_index", "input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens",
    ]  # fmt: skip
    assert named(runs(full, columns="timing")) == ["run_id", "duration_s"]


@pytest.mark.parametrize(("read", "kind"), FRAMES)
def test_every_group_can_be_asked_for(full, read, kind):
    keys = [column.name for column in columns(kind) if column.metadata["key"]]
    groups = {column.metadata["group"] for column in columns(kind)}
    for group in groups:
        of_group = [column.name for column in columns(kind) if column.metadata["group"] == group]
        assert named(read(full, columns=group)) == list(dict.fromkeys([*keys, *of_group]))


def test_columns_come_in_the_order_asked_each_once(full):
    table = turns(full, columns=["duration_s", "cost_usd", "run_id", "cost", "duration_s"])
    assert named(table) == ["run_id", "turn_index", "duration_s", "cost_usd", "cost_source", "cost_saved_usd", "replayed_from"]
    pd.testing.assert_frame_equal(table, turns(full)[named(table)])


def test_no_columns_are_the_key(full):
    assert named(tool_calls(full, columns=[])) == ["run_id", "turn_index", "call_index"]
    assert len(tool_calls(full, columns=[])) == 1


def test_an_index_of_columns_will_do(full):
    assert named(turns(full, columns=pd.Index(["cost_usd"]))) == ["run_id", "turn_index", "cost_usd"]


@pytest.mark.parametrize(
    ("read", "asked", "message"),
    [
        (turns, "cots", "turns has no column or group of columns 'cots'; did you mean 'cost'\\?; groups: core, where, usage, cost, timing, error$"),
        (runs, ["cost", "duration"], "runs has no column or group of columns 'duration'; did you mean 'duration_s'\\?"),
        (runs, "zzz", "runs has no column or group of columns 'zzz'; columns: run_id, .*; groups: core, .*, tag_\\*, score_\\*$"),
        (turns, "tag_tenant", "turns has no column or group of columns 'tag_tenant'"),
        (runs, 5, "columns must be names of columns or groups, got int: 5"),
        (runs, [None], "columns must be names of columns or groups, got NoneType: None"),
    ],
)
def test_a_column_that_is_none_is_refused_with_the_nearest_name(tmp_path, read, asked, message):
    with pytest.raises(ErrorConfig, match=message):
        read(tmp_path / "none.db", columns=asked)


def test_the_filters_choose_runs_in_every_frame(full):
    full.save_score(score_of())
    other = whole("r2")
    other.run.agent_name = "other"
    save(full, other)
    full.save_score(score_of("r2"))
    for read, _ in FRAMES:
        assert set(read(full, agent="other").run_id) == {"r2"}
        assert set(read(full).run_id) == {"r1", "r2"}
        assert set(read(full, limit=1).run_id) == {"r2"}
        assert read(full, since="1s", until=None).empty


# ---- tags and scores ------------------------------------------------------------------------------------------------


def test_every_tag_is_a_column(store):
    store.save(run_of("a", tags='{"tenant": "x", "plan": "pro"}'))
    store.save(run_of("b", tags='{"tenant": "y"}'))
    store.save(run_of("c"))
    table = runs(store)
    assert named(table)[-2:] == ["tag_plan", "tag_tenant"]
    assert [value(cell) for cell in table.tag_tenant] == ["x", "y", None]
    assert [value(cell) for cell in table.tag_plan] == ["pro", None, None]
    assert str(table.tag_plan.dtype) == TEXT


def test_a_score_is_a_column_of_its_value(store):
    store.save(run_of("a"))
    store.save(run_of("b"))
    store.save_score(score_of("b", value=0.25))
    table = runs(store)
    assert named(table)[-1] == "score_helpful"
    assert table.score_helpful.isna().tolist() == [True, False]
    assert table.score_helpful[1] == 0.25
    assert str(table.score_helpful.dtype) == "float64"


def test_of_several_scorers_the_newest_score_is_shown(store):
    store.save(run_of())
    store.save_score(score_of(scorer="judge", value=0.0, scored_at=START + timedelta(seconds=1)))
    store.save_score(score_of(scorer="me", value=1.0))
    assert runs(store).score_helpful.tolist() == [0.0]
    assert scores(store).value.tolist() == [0.0, 1.0]


def test_a_score_that_has_no_value_anywhere_is_its_label(store):
    store.save(run_of("a"))
    store.save(run_of("b"))
    store.save_score(score_of("a", name="tone", value=None, label="friendly"))
    store.save_score(score_of("a", name="mixed", value=None, label="word"))
    store.save_score(score_of("b", name="mixed", value=2.0))
    table = runs(store)
    assert [value(cell) for cell in table.score_tone] == ["friendly", None]
    assert [value(cell) for cell in table.score_mixed] == [None, 2.0]


def test_tags_and_scores_can_be_asked_for(store):
    store.save(run_of(tags='{"tenant": "x", "plan": "pro"}'))
    store.save_score(score_of())
    assert named(runs(store, columns=["tag_*", "cost_usd"])) == ["run_id", "tag_plan", "tag_tenant", "cost_usd"]
    assert named(runs(store, columns=["score_*"])) == ["run_id", "score_helpful"]
    assert named(runs(store, columns=["tag_tenant", "tag_*"])) == ["run_id", "tag_tenant", "tag_plan"]
    assert named(runs(store, columns="cost_usd")) == ["run_id", "cost_usd"]
    assert named(runs(store, columns=["tags"])) == ["run_id", "tags"]


def test_a_tag_or_score_that_no_run_has_is_a_column_of_nothing(store):
    store.save(run_of())
    table = runs(store, columns=["tag_tenant", "score_helpful"])
    assert dtypes(table) == {"run_id": TEXT, "tag_tenant": TEXT, "score_helpful": "float64"}
    assert table.isna().all().tolist() == [False, True, True]
    assert dtypes(runs(store.path.with_name("none.db"), columns=["tag_tenant", "score_helpful"])) == dtypes(table)


# ---- time zones and dtypes -------------------------------------------------------------------------------------------


def test_times_can_be_shown_in_another_zone(full):
    table = turns(full, tz="America/New_York")
    assert str(table.started_at.dtype) == "datetime64[us, America/New_York]"
    assert table.started_at[0] == pd.Timestamp(START)
    assert table.started_at[0].hour == 7
    assert str(turns(full.path.with_name("none.db"), tz="America/New_York").started_at.dtype) == "datetime64[us, America/New_York]"


@pytest.mark.parametrize("dtype_backend", [None, "pyarrow"])
def test_zones_are_taken_as_by_cost(full, monkeypatch, dtype_backend):
    def zone(tz):
        return str(turns(full, tz=tz, dtype_backend=dtype_backend).started_at.dtype).replace("tz=", "").removesuffix("[pyarrow]")

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert zone("local") == zone(ZoneInfo("Asia/Tokyo")) == zone("Asia/Tokyo") != zone("UTC")
    assert zone(None) == zone(UTC) == zone("UTC")
    assert zone(timezone(timedelta(hours=2))).endswith("+02:00]")


def test_this_machines_zone_may_have_no_name(full, monkeypatch):
    monkeypatch.setenv("TZ", "XYZ-5")
    time.tzset()
    try:
        assert turns(full, tz="local").started_at[0].utcoffset() == timedelta(hours=5)
        assert "+05:00" in str(turns(full, tz="local", dtype_backend="pyarrow").started_at.dtype)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("tz", "message"),
    [
        ("Europe/Zürich", "such as 'Europe/Berlin', 'local', or None for UTC; got 'Europe/Zürich'; did you mean 'Europe/Zurich'\\?"),
        ("nowhere at all", "such as 'Europe/Berlin', 'local', or None for UTC; got 'nowhere at all'$"),
        ("", "got ''$"), ("/etc/passwd", "got '/etc/passwd'$"), (1, "got 1$"),
    ],
)  # fmt: skip
def test_a_zone_that_is_none_is_refused(full, tz, message):
    with pytest.raises(ErrorConfig, match=message):
        turns(full, tz=tz)


ARROW = {"str": "large_string[pyarrow]", "int": "int64[pyarrow]", "float": "double[pyarrow]", "datetime": "timestamp[us, tz=UTC][pyarrow]"}


@pytest.mark.parametrize(("read", "kind"), FRAMES)
def test_dtypes_can_be_those_of_arrow(full, read, kind):
    expected = {column.name: ARROW[kind_of(column)[0]] for column in columns(kind)}
    full.save_score(score_of())
    for where in ({}, {"run_id": "none"}):
        table = read(full, dtype_backend="pyarrow", columns=list(expected), **where)
        assert dtypes(table) == expected


def test_tags_scores_and_zones_have_dtypes_of_arrow_too(store):
    store.save(run_of(tags='{"tenant": "x"}'))
    store.save_score(score_of())
    table = runs(store, columns=["started_at", "tag_*", "score_*"], dtype_backend="pyarrow", tz="Asia/Tokyo")
    assert list(dtypes(table).values())[1:] == ["timestamp[us, tz=Asia/Tokyo][pyarrow]", "large_string[pyarrow]", "double[pyarrow]"]


def test_a_backend_that_is_none_is_refused(full):
    with pytest.raises(ErrorConfig, match=r"dtype_backend must be None \(pandas' own dtypes\) or 'pyarrow', got 'polars'"):
        runs(full, dtype_backend="polars")


def test_without_pyarrow_its_dtypes_say_what_to_install(full, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ErrorMissingPackage, match=r'pip install "agentroute\[data\]"'):
        runs(full, dtype_backend="pyarrow")


SHOWN = """
import sys
import time
{before}
import agentroute.frames as frames
for read in (frames.runs, frames.turns, frames.tool_calls, frames.messages, frames.scores):
    for where in ({{}}, {{"run_id": "none"}}, {{"columns": []}}, {{"limit": 1, "tz": "Asia/Tokyo"}}):
        table = read({path!r}, **where)
        print(table.dtypes.astype(str).to_dict(), table.index, table.isna().to_numpy().tolist(), table.astype(object).where(table.notna(), None).to_numpy().tolist())
"""


def test_columns_dtypes_and_values_are_the_same_without_pyarrow(full):
    full.save(run_of("r2", tags='{"tenant": "é"}', cost_usd=1e-17), turns=[turn_of("r2", 1, input_tokens=2**62 + 1), turn_of("r2", 2)])
    full.save_score(score_of("r2", value=None, label="good"))
    full.save_score(score_of(name="n"))
    shown = [
        subprocess.run([sys.executable, "-c", SHOWN.format(before=before, path=str(full.path))], check=True, capture_output=True, text=True).stdout
        for before in ("", "sys.modules['pyarrow'] = None")
    ]
    assert shown[0] == shown[1]
    assert "tag_tenant" in shown[0]


def test_several_runs_can_be_asked_for_and_a_wrong_id_is_named(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.db")
    agent = Agent("a", model=ModelScripted(["1", "2", "3"]), store=store)
    first, second, third = (agent.run("go").run_id for _ in range(3))
    assert runs(store, run_id=[third, first])["run_id"].tolist() == [first, third]
    assert turns(store, run_id=runs(store)["run_id"][:2])["run_id"].tolist() == [first, second]
    assert runs(store, run_id=[]).empty
    with pytest.raises(ErrorConfig, match="run_id must be a run's id or several of them, got int: 5"):
        runs(store, run_id=5)  # type: ignore[arg-type]
