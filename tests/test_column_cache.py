"""The copy of the run history as columns: it saves time and is never seen."""

import json
import multiprocessing
import os
import shutil
import stat
import sys
import threading
import zlib
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentroute import RunStore, column_cache
from agentroute.column_cache import drop_cache
from agentroute.errors import ErrorStore
from agentroute.frames import messages, runs, tool_calls, turns
from agentroute.records import TurnRecord
from agentroute.upkeep import forget
from tests.test_store import START, call_of, message_of, run_of, save, turn_of, whole

EVER = datetime(1971, 1, 1)
"""As `since`: all runs, and no copy is used."""
FRAMES = [runs, turns, tool_calls, messages]


class Watched(RunStore):
    """Keeps the arguments of the reads of rows: (kind, columns, after)."""

    def __init__(self, path):
        super().__init__(path)
        self.reads = []

    def chunks(self, kind, *, where=None, columns=None, after=None):
        self.reads.append((kind, columns, after))
        return super().chunks(kind, where=where, columns=columns, after=after)


@pytest.fixture(autouse=True)
def small_histories_too(monkeypatch):
    monkeypatch.setattr(column_cache, "MIN_ROWS", 1)


@pytest.fixture
def store(tmp_path):
    with closing(Watched(tmp_path / "runs.db")) as store:
        yield store


def add(store, number, *, agent="support", start=None, n=2):
    run_id = f"r{number:04}"
    store.save(
        run_of(run_id, started_at=start or START + timedelta(seconds=number), agent_name=agent, prompt_text=f"prompt {number}"),
        turns=[turn_of(run_id, index, cost_usd=number / 8) for index in range(1, n + 1)],
        tool_calls=[call_of(run_id, result_text=f"result {number} " * 40)],
        messages=[message_of(run_id, content_text=f"message {number} " * 40)],
    )
    return run_id


def copy_of(store, name="turns"):
    return store.path.with_name("runs.db.columns") / f"{name}.arrow"


def reads_of(store, action):
    store.reads.clear()
    action()
    return store.reads


def assert_right(store):
    """Each frame is what it is without a copy, twice: from what there was, and from what that read left behind."""
    for _ in range(2):
        for read in FRAMES:
            pd.testing.assert_frame_equal(read(store), read(store, since=EVER))


# ---- it saves reading ---------------------------------------------------------------------------------------------


def test_the_second_frame_reads_no_row_of_the_file(store):
    add(store, 1)
    first = turns(store)
    assert reads_of(store, lambda: turns(store)) == []
    pd.testing.assert_frame_equal(turns(store), first)


def test_only_runs_that_were_touched_since_are_read(store):
    for number in range(100):
        add(store, number)
    turns(store)
    revision = store.watermark()[1]
    add(store, 100)
    assert [after for _, _, after in reads_of(store, lambda: turns(store))] == [revision]
    assert len(turns(store)) == 202
    assert_right(store)


def test_the_copy_is_used_by_another_process_of_the_same_file(store):
    add(store, 1)
    turns(store)
    with closing(Watched(store.path)) as other:
        assert reads_of(other, lambda: turns(other)) == []


def test_some_columns_make_a_copy_of_all_and_come_from_it(store):
    add(store, 1)
    turns(store, columns="cost")
    assert copy_of(store).exists()
    assert reads_of(store, lambda: turns(store)) == reads_of(store, lambda: turns(store, columns="cost")) == []
    add(store, 2)
    pd.testing.assert_frame_equal(turns(store, columns="cost"), turns(store, columns="cost", since=EVER))


def test_some_columns_of_a_short_history_make_no_copy(store, monkeypatch):
    monkeypatch.setattr(column_cache, "MIN_ROWS", 3)
    add(store, 1)
    turns(store, columns="cost")
    assert not copy_of(store).exists()


def test_texts_of_a_large_history_are_not_gathered_for_other_columns(store, monkeypatch):
    monkeypatch.setattr(column_cache, "MAX_FILE_BYTES", 1)
    add(store, 1)
    messages(store, columns="role")
    turns(store, columns="cost")
    assert (copy_of(store, "messages").exists(), copy_of(store).exists()) == (False, True)


def test_all_columns_are_gathered_for_some_only_once_where_no_copy_can_be_written(store, monkeypatch):
    monkeypatch.setattr(column_cache, "MAX_BYTES", 1)
    add(store, 1)
    turns(store, columns="cost")
    again = reads_of(store, lambda: turns(store, columns="cost"))
    assert [len(columns) < 10 for _, columns, _ in again] == [True]


def test_a_file_from_a_backup_does_not_take_the_copy_of_what_came_after_it(store, tmp_path):
    """Neither when it has the same inode, and as many writes as were lost."""
    for number in range(5):
        add(store, number)
    turns(store)
    store.snapshot(tmp_path / "backup.db")
    for number in range(5, 25):
        add(store, number)
    turns(store)  # a copy of what the backup has not
    store.close()
    shutil.copyfile(tmp_path / "backup.db", store.path)
    for number in range(30, 60):
        add(store, number)
    assert_right(store)


def test_a_file_from_a_backup_that_is_younger_than_the_copy_takes_it(store, tmp_path):
    add(store, 1)
    turns(store)
    store.close()
    shutil.copyfile(store.path, tmp_path / "backup.db")
    shutil.copyfile(tmp_path / "backup.db", store.path)
    assert reads_of(store, lambda: turns(store)) == []


def test_filters_go_to_the_file(store):
    add(store, 1)
    turns(store)
    for filters in ({"agent": "support"}, {"limit": 5}, {"run_id": "r0001"}, {"since": "7d"}):
        assert len(reads_of(store, lambda filters=filters: turns(store, **filters))) == 1


@pytest.mark.parametrize(("limit", "value"), [("MIN_ROWS", 1000), ("MAX_BYTES", 100)])
def test_a_small_history_has_no_copy_and_neither_a_huge_one(store, monkeypatch, limit, value):
    monkeypatch.setattr(column_cache, limit, value)
    add(store, 1)
    turns(store)
    assert not copy_of(store).parent.exists()


def test_a_few_new_rows_do_not_rewrite_the_copy(store):
    for number in range(100):
        add(store, number)
    turns(store)
    before = copy_of(store).read_bytes()
    add(store, 100)
    turns(store)
    assert copy_of(store).read_bytes() == before
    for number in range(101, 120):
        add(store, number)
    turns(store)
    assert copy_of(store).read_bytes() != before
    assert reads_of(store, lambda: turns(store)) == []
    assert_right(store)


def test_without_pyarrow_there_is_no_copy(store, monkeypatch):
    add(store, 1)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert len(turns(store)) == 2
    assert not copy_of(store).exists()


# ---- it is never wrong --------------------------------------------------------------------------------------------


def test_a_run_that_goes_on_is_shown_as_it_is_now(store):
    store.save(run_of("a"), turns=[turn_of("a", 1)])
    assert_right(store)
    store.save(run_of("a", status="ok", duration_s=2.0), turns=[turn_of("a", 1, cost_usd=0.5), turn_of("a", 2)])
    assert runs(store).status.tolist() == ["ok"]
    assert turns(store).turn_index.tolist() == [1, 2]
    assert_right(store)


def test_what_is_changed_later_is_shown(store):
    ids = [add(store, number) for number in range(50)]
    assert_right(store)
    with store.transaction() as connection:
        connection.execute("UPDATE turns SET cost_usd = 99 WHERE run_id = ?", (ids[3],))
        store.touch(connection, [ids[3]])
    assert turns(store).query("cost_usd == 99").run_id.unique().tolist() == [ids[3]]
    assert_right(store)


def test_runs_that_begin_earlier_or_together_come_where_they_belong(store):
    for number in range(40):
        add(store, 2 * number)
    assert_right(store)
    add(store, 7, start=START)  # with r0000
    add(store, 3)
    add(store, 999)
    add(store, 12, start=START + timedelta(days=1))  # moved
    assert_right(store)


def test_many_scattered_changes_come_where_they_belong(store, monkeypatch):
    monkeypatch.setattr(column_cache, "MAX_PIECES", 3)
    monkeypatch.setattr(column_cache, "STALE_SHARE", 1.0)
    for number in range(30):
        add(store, number)
    assert_right(store)
    for number in (2, 9, 15, 28):
        add(store, number, agent="again", n=3)
    assert_right(store)


def test_what_is_deleted_is_gone(store):
    ids = [add(store, number) for number in range(5)]
    assert_right(store)
    forget(ids[1], store=store)
    assert ids[1] not in turns(store).run_id.tolist()
    assert_right(store)


def test_deleted_text_is_in_no_copy(store):
    ids = [add(store, number) for number in range(5)]
    store.save(run_of(ids[1], prompt_text="the secret prompt"))
    assert_right(store)
    directory = copy_of(store).parent
    assert sorted(path.name for path in directory.iterdir()) == ["messages.arrow", "runs.arrow", "tool_calls.arrow", "turns.arrow"]
    forget(ids[1], store=store)
    assert not directory.exists()
    assert_right(store)


def test_a_copy_that_is_written_while_runs_are_deleted_does_not_stay(store):
    class Deleting(RunStore):
        """Somebody deletes runs right after the rows were read."""

        marks = 0

        def watermark(self):
            self.marks += 1
            epoch, revision = super().watermark()
            return epoch + (self.marks > 1), revision

    add(store, 1)
    with closing(Deleting(store.path)) as deleting:
        turns(deleting)
        assert deleting.marks == 2
    assert list(copy_of(store).parent.iterdir()) == []


def test_a_read_during_which_runs_are_deleted_is_made_anew(store):
    class Deleting(Watched):
        """Somebody deletes a run between the look at the copy and the end of the read."""

        done = False

        def chunks(self, kind, *, where=None, columns=None, after=None):
            if after is not None and not self.done:
                self.done = True
                forget("r0001", store=store)
            return super().chunks(kind, where=where, columns=columns, after=after)

    for number in range(3):
        add(store, number)
    turns(store)
    add(store, 3)
    with closing(Deleting(store.path)) as deleting:
        assert "r0001" not in turns(deleting).run_id.tolist()
        assert deleting.done


def test_another_file_of_the_same_name_has_no_copy_yet(store, tmp_path):
    add(store, 1, agent="old")
    assert_right(store)
    store.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{store.path}{suffix}").unlink(missing_ok=True)
    add(store, 1, agent="new")
    assert runs(store).agent_name.tolist() == ["new"]
    assert_right(store)


def test_a_history_put_back_from_a_backup_is_read_anew(store, tmp_path):
    add(store, 1)
    store.close()
    shutil.copy(store.path, tmp_path / "backup.db")
    add(store, 2)
    assert_right(store)
    store.close()
    os.replace(tmp_path / "backup.db", store.path)
    add(store, 3)
    assert runs(store).run_id.tolist() == ["r0001", "r0003"]
    assert_right(store)


def test_a_backup_written_over_the_file_is_read_anew(store, tmp_path):
    add(store, 1)
    store.close()
    shutil.copy(store.path, tmp_path / "backup.db")
    add(store, 2)
    assert_right(store)
    store.close()
    shutil.copyfile(tmp_path / "backup.db", store.path)
    assert runs(store).run_id.tolist() == ["r0001"]
    assert_right(store)


def test_a_copied_directory_is_not_the_copy_of_a_copied_history(store, tmp_path):
    add(store, 1)
    assert_right(store)
    store.close()
    (tmp_path / "other").mkdir()
    shutil.copytree(tmp_path, tmp_path / "other", dirs_exist_ok=True, ignore=shutil.ignore_patterns("other"))
    with closing(Watched(tmp_path / "other" / "runs.db")) as other:
        add(other, 2)
        assert_right(other)


def cut(path, content):
    path.write_bytes(content[: len(content) // 2])


def emptied(path, content):
    path.write_bytes(b"")


def foreign(path, content):
    path.write_bytes(b"ARROW1\0\0 something else\n" * 100)


def other_json(path, content):
    path.write_bytes(b"[1, 2]\n" + content)


def other_columns(path, content):
    path.write_bytes(content.replace(b"turn_index", b"turn_indes", 1))


def other_format(path, content):
    path.write_bytes(content.replace(b'"agentroute": 2', b'"agentroute": 1', 1))


def a_directory(path, content):
    path.unlink()
    path.mkdir()


def a_text_in_its_place(path, content):
    end = content.index(b"\n") + 1
    body = b"no arrow file"
    header = json.loads(content[:end]) | {"size": len(body), "checksum": zlib.crc32(body)}
    path.write_bytes(json.dumps(header).encode() + b"\n" + body)


@pytest.mark.parametrize("damage", [cut, emptied, foreign, other_json, other_columns, other_format, a_directory, a_text_in_its_place])
def test_a_copy_that_is_none_is_as_if_it_were_not_there(store, damage):
    for number in range(5):
        add(store, number)
    first = turns(store)
    damage(copy_of(store), copy_of(store).read_bytes())
    assert [after for _, _, after in reads_of(store, lambda: pd.testing.assert_frame_equal(turns(store), first))] == [None]
    assert_right(store)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_no_figure(store, place, bit):
    store.save(run_of(), turns=[turn_of(index=index, cost_usd=index / 8) for index in range(1, 20)])
    turns(store)
    content = bytearray(copy_of(store).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    copy_of(store).write_bytes(content)
    pd.testing.assert_frame_equal(turns(store), turns(store, since=EVER))


# ---- it is private, and does without --------------------------------------------------------------------------------


def test_only_the_owner_can_read_it(store):
    add(store, 1)
    previous = os.umask(0)
    try:
        turns(store)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(copy_of(store).parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(copy_of(store).stat().st_mode) == 0o600


def test_where_it_cannot_be_written_there_is_none(store):
    add(store, 1)
    copy_of(store).parent.write_text("a file where the directory would be")
    assert len(turns(store)) == 2
    assert_right(store)
    drop_cache(store.path)
    assert copy_of(store).parent.read_text() == "a file where the directory would be"


def test_a_copy_that_cannot_be_put_in_place_leaves_nothing_behind(store):
    add(store, 1)
    copy_of(store).mkdir(parents=True)
    assert len(turns(store)) == 2
    assert [path.name for path in copy_of(store).parent.iterdir()] == ["turns.arrow"]


def test_dropping_leaves_what_is_not_ours(store):
    add(store, 1)
    turns(store)
    other = copy_of(store).with_name("notes.txt")
    other.write_text("mine")
    drop_cache(store.path)
    assert [path.name for path in other.parent.iterdir()] == ["notes.txt"]
    drop_cache(store.path.with_name("none.db"))


def test_what_a_killed_process_left_is_cleared_away(store):
    add(store, 1)
    turns(store)
    left_over, being_written = (copy_of(store).with_name(f"turns.arrow-1-{number}") for number in (1, 2))
    left_over.write_bytes(b"half")
    being_written.write_bytes(b"half")
    os.utime(left_over, (1, 1))
    for number in range(10):
        add(store, number)
    turns(store)
    assert (left_over.exists(), being_written.exists()) == (False, True)


def test_a_history_in_memory_or_missing_has_no_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with closing(RunStore(":memory:")) as store:
        add(store, 1)
        assert len(turns(store)) == 2
    assert turns(tmp_path / "none.db").empty
    assert list(tmp_path.iterdir()) == []


def test_a_frame_from_the_copy_can_be_changed(store):
    add(store, 1)
    turns(store)
    table = turns(store)
    table.loc[0, ["cost_usd", "input_tokens", "finish_reason"]] = [0.5, 7, "stop"]
    table.loc[:, "turn_index"] += 1
    assert table.loc[0, ["cost_usd", "input_tokens", "finish_reason", "turn_index"]].tolist() == [0.5, 7, "stop", 2]
    assert_right(store)


# ---- many at once ---------------------------------------------------------------------------------------------------


def _read_often(path):
    column_cache.MIN_ROWS = 1
    with closing(RunStore(path)) as store:
        store._database._timeout_s = 60
        return [len(turns(store)) for _ in range(15)]


def test_processes_read_and_write_it_at_once(store):
    store._database._timeout_s = 60
    add(store, 0)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        lengths = pool.map_async(_read_often, [str(store.path)] * 2)
        number = 0
        while not lengths.ready() and number < 2000:
            number += 1
            add(store, number)
        found = lengths.get(100)
        pool.close()
        pool.join()
    assert [length % 2 for lengths in found for length in lengths] == [0] * 30  # runs come whole
    assert [sorted(lengths) for lengths in found] == found
    assert_right(store)


def test_threads_read_it_at_once(store):
    for number in range(20):
        add(store, number)
    lengths = []
    threads = [threading.Thread(target=lambda: lengths.append(len(turns(store)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [40] * 8


# ---- anything that may happen ---------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c", "d", "é", "B"])
moments = st.integers(0, 3).map(lambda seconds: START + timedelta(seconds=seconds))
saves = st.tuples(st.just("save"), names, moments, st.integers(0, 3), st.text(max_size=3))
others = st.tuples(st.sampled_from(["touch", "forget", "drop", "read", "read turns"]), names)


def saved(store, run_id, start, n, text):
    store.save(
        run_of(run_id, started_at=start, prompt_text=text * 200),
        turns=[turn_of(run_id, index, cost_usd=float(len(text)), response_model=text) for index in range(1, n + 1)],
        tool_calls=[call_of(run_id, 1, index, arguments_text=text) for index in range(n)],
        messages=[message_of(run_id, content_text=text * 200)],
    )


def touched(store, run_id):
    with store.transaction() as connection:
        connection.execute("UPDATE turns SET cost_usd = cost_usd + 1 WHERE run_id = ?", (run_id,))
        store.touch(connection, [run_id])


def forgotten(store, run_id):
    with suppress(ErrorStore):  # there is no such run
        forget(run_id, store=store)


HAPPEN = {
    "save": saved,
    "touch": touched,
    "forget": forgotten,
    "drop": lambda store, _: drop_cache(store.path),
    "read": lambda store, _: assert_right(store),
    "read turns": lambda store, _: turns(store),
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(saves | others, max_size=25), share=st.sampled_from([0.0, 0.3, 100.0]), pieces=st.sampled_from([1, 200]))
def test_a_frame_is_the_same_with_a_copy_whatever_happened(tmp_path_factory, steps, share, pieces):
    with pytest.MonkeyPatch.context() as patch, closing(RunStore(tmp_path_factory.mktemp("h") / "runs.db")) as store:
        patch.setattr(column_cache, "STALE_SHARE", share)
        patch.setattr(column_cache, "MAX_PIECES", pieces)
        for what, *given in steps:
            HAPPEN[what](store, *given)
        assert_right(store)


def test_all_tables_of_a_whole_run_are_the_same(store):
    save(store, whole())
    assert_right(store)
    assert reads_of(store, lambda: turns(store)) == []
    assert [kind for kind, _, _ in reads_of(store, lambda: turns(store, since=EVER))] == [TurnRecord]
