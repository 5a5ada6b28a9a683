"""The run history as files for other programs."""

import re
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import agentroute
from agentroute import RunStore, exports
from agentroute.errors import ErrorConfig, ErrorMissingPackage, ErrorStore
from agentroute.exports import snapshot, to_parquet
from agentroute.frames import messages, runs, scores, tool_calls, turns
from agentroute.otel import OTEL_NAMES, to_otel
from agentroute.records import ScoreRecord, TurnRecord, columns
from agentroute.store import set_default_store
from agentroute.tables import TABLES
from tests.test_store import START, run_of, save, turn_of, whole

READS = {"runs": runs, "turns": turns, "tool_calls": tool_calls, "messages": messages, "scores": scores}


@pytest.fixture
def store(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


@pytest.fixture
def full(store):
    save(store, whole())
    save(store, whole("r2"))
    store.save_score(ScoreRecord(run_id="r2", name="helpful", value=1.0, scored_at=START))
    return store


# ---- Parquet ------------------------------------------------------------------------------------------------------


def test_each_table_is_a_file(full, tmp_path):
    paths = to_parquet(tmp_path / "new" / "directory", full)
    assert [path.name for path in paths] == ["runs.parquet", "turns.parquet", "tool_calls.parquet", "messages.parquet", "scores.parquet"]
    assert sorted(paths) == sorted((tmp_path / "new" / "directory").iterdir())


@pytest.mark.parametrize("name", READS)
def test_the_files_hold_what_the_frames_hold(full, tmp_path, name):
    to_parquet(tmp_path / "out", full)
    names = TABLES_NAMES[name]
    found = pd.read_parquet(tmp_path / "out" / f"{name}.parquet", dtype_backend="pyarrow")
    expected = READS[name](full, dtype_backend="pyarrow")[names]
    assert list(found.columns) == names
    assert found.astype(object).where(found.notna(), None).to_numpy().tolist() == expected.astype(object).where(expected.notna(), None).to_numpy().tolist()


TABLES_NAMES = {table.name: table.names for table in TABLES.values()}


def test_types_are_the_same_without_rows_and_with_empty_columns(full, tmp_path):
    full.save(run_of("r3", started_at=START + timedelta(days=1)), turns=[turn_of("r3")])
    schemas = [
        [pq.read_schema(path) for path in to_parquet(tmp_path / where, store, **filters)]
        for where, store, filters in (("all", full, {}), ("empty columns", full, {"run_id": "r3"}), ("none", tmp_path / "none.db", {}))
    ]
    assert schemas[0] == schemas[1] == schemas[2]
    types = {field.name: str(field.type) for field in schemas[0][1]}
    assert types["started_at"] == "timestamp[us, tz=UTC]"
    assert (types["input_tokens"], types["cost_usd"], types["error_type"]) == ("int64", "double", "large_string")
    assert not (tmp_path / "none.db").exists()


def test_filters_choose_runs(full, tmp_path):
    to_parquet(tmp_path, full, run_id="r2")
    for name in READS:
        assert set(pd.read_parquet(tmp_path / f"{name}.parquet").run_id) == {"r2"}


def test_a_filter_that_is_none_is_refused(full, tmp_path):
    with pytest.raises(ErrorConfig, match="limit must be a number of runs"):
        to_parquet(tmp_path / "out", full, limit=-1)
    assert not (tmp_path / "out").exists()


def test_files_are_compressed_and_written_in_groups(store, tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "ROWS_PER_GROUP", 1000)
    store.save(run_of(), turns=[turn_of(index=index) for index in range(1, 3001)])
    to_parquet(tmp_path, store)
    meta = pq.ParquetFile(tmp_path / "turns.parquet").metadata
    assert meta.num_rows == 3000
    assert meta.num_row_groups >= 3
    assert meta.row_group(0).column(0).compression == "ZSTD"
    assert pd.read_parquet(tmp_path / "turns.parquet").turn_index.tolist() == list(range(1, 3001))


def test_long_texts_end_a_group_early(store, tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "BYTES_PER_GROUP", 100_000)
    for number in range(1100):
        store.save(run_of(f"r{number}", prompt_text="word " * 40))
    to_parquet(tmp_path, store)
    assert pq.ParquetFile(tmp_path / "runs.parquet").metadata.num_row_groups > 1


def test_runs_that_begin_meanwhile_are_in_no_file(full, tmp_path, monkeypatch):
    write = exports._write

    def busy(store, kind, where, path):
        newest = write(store, kind, where, path)
        late = whole(f"late {kind.__name__}")
        save(store, replace(late, run=replace(late.run, started_at=START + timedelta(seconds=1))))
        return newest

    monkeypatch.setattr(exports, "_write", busy)
    to_parquet(tmp_path, full)
    for name in ("runs", "turns", "tool_calls", "messages"):
        assert set(pd.read_parquet(tmp_path / f"{name}.parquet").run_id) == {"r1", "r2"}


def test_a_failed_export_leaves_the_files_as_they_were(full, tmp_path, monkeypatch):
    to_parquet(tmp_path / "out", full, run_id="r1")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(exports, "batch_of", lambda rows, schema: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ErrorStore, match=r"the runs cannot be written to .*out: No space left on device; check the path"):
        to_parquet(tmp_path / "out", full)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_path_that_is_a_file_is_refused(full, tmp_path):
    path = tmp_path / "runs.parquet"
    path.write_text("mine")
    with pytest.raises(ErrorConfig, match=r"Parquet files are written into a directory, and .*runs\.parquet is a file"):
        to_parquet(path, full)
    assert path.read_text() == "mine"


def test_a_directory_that_cannot_be_made_is_named(full, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ErrorStore, match=r"the runs cannot be written to .*below: Not a directory"):
        to_parquet(tmp_path / "file" / "below", full)


def test_without_pyarrow_the_error_says_what_to_install(full, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ErrorMissingPackage, match=r'pip install "agentroute\[data\]"'):
        to_parquet(tmp_path / "out", full)


@pytest.fixture
def pool():
    """Arrow's memory, counted from here on."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    yield pool
    pa.set_memory_pool(before)


def test_memory_depends_on_a_group_and_not_on_the_history(store, tmp_path, monkeypatch, pool):
    monkeypatch.setattr(exports, "BYTES_PER_GROUP", 2_000_000)
    monkeypatch.setattr(exports, "LONG_ROWS", 8)
    text = "".join(map(str, range(10_000)))  # 39 KB
    for number in range(600):
        store.save(run_of(f"r{number:03}", prompt_text=f"{number} {text}"))
    to_parquet(tmp_path, store)
    assert pool.max_memory() < 12_000_000


# ---- copies and other engines ---------------------------------------------------------------------------------------


def test_a_snapshot_is_a_history_of_its_own(full, tmp_path):
    path = snapshot(tmp_path / "copy.db", full)
    pd.testing.assert_frame_equal(runs(path), runs(full))
    full.save(run_of("r3"))
    assert len(runs(path)) == 2


def test_a_snapshot_replaces_no_file(full, tmp_path):
    (tmp_path / "mine.db").write_text("mine")
    with pytest.raises(ErrorStore):
        snapshot(tmp_path / "mine.db", full)
    assert (tmp_path / "mine.db").read_text() == "mine"


def test_the_default_store_is_exported(full, tmp_path):
    set_default_store(full)
    try:
        to_parquet(tmp_path / "out")
        snapshot(tmp_path / "copy.db")
    finally:
        set_default_store(None)
    assert len(pd.read_parquet(tmp_path / "out" / "runs.parquet")) == 2
    assert len(runs(tmp_path / "copy.db")) == 2


def test_duckdb_and_polars_read_the_files_with_their_types(full, tmp_path):
    to_parquet(tmp_path, full)
    with duckdb.connect() as connection:
        row = connection.execute(f"SELECT run_id, sum(cost_usd), count(input_tokens) FROM '{tmp_path}/turns.parquet' GROUP BY ALL ORDER BY ALL").fetchall()
    assert row == [("r1", 1e-9, 0), ("r2", 1e-9, 0)]
    table = pl.read_parquet(tmp_path / "turns.parquet")
    assert table.schema["started_at"] == pl.Datetime("us", "UTC")
    assert table["run_id"].to_list() == ["r1", "r1", "r2", "r2"]


def test_a_snapshot_can_be_opened_by_any_sqlite(full, tmp_path):
    with closing(sqlite3.connect(snapshot(tmp_path / "copy.db", full))) as connection:
        assert connection.execute("SELECT count(*) FROM turns").fetchone() == (4,)


# ---- OpenTelemetry ----------------------------------------------------------------------------------------------------


def test_columns_get_the_names_of_opentelemetry(full):
    assert list(to_otel(turns(full, columns=["request_model", "usage"])).columns) == [
        "agentroute.run_id", "agentroute.turn_index", "gen_ai.request.model", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.reasoning.output_tokens",
    ]  # fmt: skip
    assert list(to_otel(runs(full, columns=["agent_name", "session_id", "error_type"])).columns)[1:] == [
        "gen_ai.agent.name", "gen_ai.conversation.id", "error.type",
    ]  # fmt: skip
    assert {"gen_ai.evaluation.name", "gen_ai.evaluation.score.value", "gen_ai.evaluation.score.label", "gen_ai.evaluation.explanation"} <= {
        *to_otel(scores(full)).columns
    }


def test_values_and_dtypes_stay(full):
    table = turns(full)
    renamed = to_otel(table)
    assert renamed["gen_ai.usage.output_tokens"].equals(table.output_tokens)
    assert renamed["agentroute.started_at"].dtype == table.started_at.dtype
    assert list(table.columns) == [column.name for column in columns(TurnRecord)]


def test_finish_reasons_are_lists(full):
    reasons = to_otel(turns(full, run_id="r1"))["gen_ai.response.finish_reasons"]
    assert reasons.tolist() == [["tool_calls"], None]


def test_every_name_is_of_a_column_and_no_two_are_the_same():
    known = {name for table in TABLES.values() for name in table.names}
    assert OTEL_NAMES.keys() <= known
    assert len({*OTEL_NAMES.values()}) == len(OTEL_NAMES)
    assert all(name.startswith("gen_ai.") or name == "error.type" for name in OTEL_NAMES.values())


def test_the_page_tells_the_names_and_the_groups():
    page = (Path(__file__).parents[1] / "docs" / "run_history.md").read_text()
    assert dict(re.findall(r"^\| `(\w+)` \| `((?:gen_ai|error)\.[\w.]+)` \|$", page, re.MULTILINE)) == OTEL_NAMES
    groups = {column.metadata["group"] for table in TABLES.values() for column in columns(table.kind)}
    told = page.split("| group | columns |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE)) == groups


def test_the_functions_are_public():
    assert {agentroute.to_parquet, agentroute.snapshot, agentroute.to_otel, agentroute.scores} == {to_parquet, snapshot, to_otel, scores}


@pytest.mark.parametrize("path", ["", None, 3])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(ErrorConfig, match="takes the path of"):
        to_parquet(path)
    with pytest.raises(ErrorConfig, match="takes the path of"):
        snapshot(path)


def test_finish_reasons_are_lists_of_arrow_in_a_frame_of_arrow(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        store.save(run_of("a"), turns=[turn_of("a", 1, finish_reason="stop"), turn_of("a", 2, finish_reason=None)])
        reasons = to_otel(turns(store, dtype_backend="pyarrow"))["gen_ai.response.finish_reasons"]
    assert str(reasons.dtype) == "list<item: large_string>[pyarrow]"
    assert [list(one) if one is not pd.NA else None for one in reasons] == [["stop"], None]


def test_what_is_no_frame_is_told():
    with pytest.raises(ErrorConfig, match="to_otel takes a frame"):
        to_otel("turns")
