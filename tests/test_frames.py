"""Recorded runs as DataFrames."""

import math
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentroute
from agentroute import Agent, RunStore
from agentroute.errors import ErrorConfig, ErrorMissingPackage, ErrorStore
from agentroute.frames import frame, messages, runs, tool_calls, turns
from agentroute.records import MessageRecord, RunRecord, ToolCallRecord, TurnRecord, columns, kind_of
from agentroute.store import set_default_store
from agentroute.testing import ModelScripted
from tests.test_store import START, call_of, message_of, run_of, save, turn_of, whole

TEXT = "str" if pd.__version__ >= "3" else "object"
TIME = "datetime64[us, UTC]"
FRAMES = [(runs, RunRecord), (turns, TurnRecord), (tool_calls, ToolCallRecord), (messages, MessageRecord)]


@pytest.fixture
def store(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


def dtypes(table):
    return {name: str(dtype) for name, dtype in table.dtypes.items()}


# ---- columns ----------------------------------------------------------------------------------------------------


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


def test_several_runs_can_be_asked_for_and_a_wrong_id_is_named(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.db")
    agent = Agent("a", model=ModelScripted(["1", "2", "3"]), store=store)
    first, second, third = (agent.run("go").run_id for _ in range(3))
    assert runs(store, run_id=[third, first])["run_id"].tolist() == [first, third]
    assert turns(store, run_id=runs(store)["run_id"][:2])["run_id"].tolist() == [first, second]
    assert runs(store, run_id=[]).empty
    with pytest.raises(ErrorConfig, match="run_id must be a run's id or several of them, got int: 5"):
        runs(store, run_id=5)  # type: ignore[arg-type]
