"""RunStore: the run history in a file."""

import json
import multiprocessing
import pickle
import signal
import sqlite3
import stat
import subprocess
import sys
import zlib
from contextlib import closing
from dataclasses import fields, make_dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentroute import tables
from agentroute.errors import ErrorConfig, ErrorStore
from agentroute.records import MessageRecord, Record, RunRecord, ScoreRecord, ToolCallRecord, TurnRecord, column, columns
from agentroute.selection import Selection
from agentroute.store import VERSION, Answer, RunStore, on_save
from agentroute.tables import INLINE, TABLES, Table, body_of, encoded, packed, unpacked

START = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
KINDS = [RunRecord, TurnRecord, ToolCallRecord, MessageRecord]


def run_of(run_id="r1", **changes):
    return replace(RunRecord(run_id=run_id, started_at=START, agent_name="support", request_model="m"), **changes)


def turn_of(run_id="r1", index=1, **changes):
    return replace(TurnRecord(run_id=run_id, turn_index=index, started_at=START, request_model="m"), **changes)


def call_of(run_id="r1", turn=1, index=1, **changes):
    return replace(ToolCallRecord(run_id=run_id, turn_index=turn, call_index=index, tool_name="add", started_at=START), **changes)


def message_of(run_id="r1", index=0, **changes):
    return replace(MessageRecord(run_id=run_id, message_index=index, role="user"), **changes)


def whole(run_id="r1"):
    return Record(
        run_of(run_id, duration_s=1.5, status="ok", input_tokens=0, cost_usd=0.1),
        [turn_of(run_id, 1, finish_reason="tool_calls"), turn_of(run_id, 2, output_tokens=7, cost_usd=1e-9)],
        [call_of(run_id, arguments_text='{"a": 1}', result_text="Zoë 日本\0\r\n")],
        [message_of(run_id, 0, content_text=""), message_of(run_id, 1, role="assistant", tool_calls_text="[]")],
    )


def save(store, record):
    store.save(record.run, turns=record.turns, tool_calls=record.tool_calls, messages=record.messages)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "history" / "runs.db"


@pytest.fixture
def store(path):
    with closing(RunStore(path)) as store:
        yield store


def test_what_is_saved_comes_back(store):
    save(store, whole())
    save(store, whole("r2"))
    assert store.record("r1") == whole()
    assert store.record("r2") == whole("r2")


def test_saving_a_row_again_replaces_it(store):
    store.save(run_of(), turns=[turn_of()])
    store.save(run_of(status="ok"), turns=[turn_of(input_tokens=5), turn_of(index=2)])
    assert store.record("r1") == Record(run_of(status="ok"), [turn_of(input_tokens=5), turn_of(index=2)])


def test_a_run_that_never_ended_reads_as_interrupted(store):
    store.save(run_of(), turns=[turn_of()])
    run = store.record("r1").run
    assert (run.status, run.duration_s) == ("interrupted", None)


def test_a_save_is_all_or_nothing(store):
    store.save(run_of())
    with pytest.raises(ErrorStore, match="NOT NULL"):
        store.save(run_of(status="ok"), turns=[turn_of(request_model=None)])
    assert store.record("r1") == Record(run_of())


def test_rows_come_by_start_of_the_run_then_by_position(store):
    store.save(run_of("a", started_at=START + timedelta(seconds=1)), turns=[turn_of("a", 2), turn_of("a", 1)])
    store.save(run_of("b"), turns=[turn_of("b", 10), turn_of("b", 9)])
    store.save(run_of("c", started_at=START - timedelta(microseconds=1)))
    assert [row[0] for row in store.select(RunRecord)] == ["c", "b", "a"]
    assert [row[:2] for row in store.select(TurnRecord)] == [("b", 9), ("b", 10), ("a", 1), ("a", 2)]
    assert [row[:2] for row in store.select(TurnRecord, where=Selection(run_id=("a",)))] == [("a", 1), ("a", 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_read_in_order_without_sorting(store, path, kind):
    save(store, whole())
    with closing(sqlite3.connect(path)) as connection:
        plan = str(connection.execute(f"EXPLAIN QUERY PLAN {TABLES[kind].select_sql('1')}").fetchall())
    assert "INDEX runs_by_start" in plan
    assert "TEMP B-TREE" not in plan


def test_a_file_that_does_not_exist_has_no_rows_and_is_not_made(store, path):
    assert list(store.select(RunRecord)) == []
    with pytest.raises(ErrorStore, match=r"no run 'r1' in .*runs\.db"):
        store.record("r1")
    assert not path.parent.exists()


def test_an_unknown_run_is_named(store):
    save(store, whole())
    with pytest.raises(ErrorStore, match="no run 'x; DROP TABLE runs'"):
        store.record("x; DROP TABLE runs")


def test_half_characters_are_written_out(store):
    store.save(run_of(prompt_text="half \ud83d"))
    assert store.record("r1").run.prompt_text == "half \\ud83d"


texts = st.text()
maybe_texts = st.none() | texts
maybe_counts = st.none() | st.integers(0, 10**15)
maybe_floats = st.none() | st.floats(allow_nan=False)
times = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))
ids = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))  # SQLite's json_each ends a text at NUL (3.40.1)
runs = st.builds(
    RunRecord, run_id=ids, started_at=times, duration_s=maybe_floats, status=texts, agent_name=texts, request_model=texts,
    n_turns=st.integers(0, 2**62), n_tool_calls=st.integers(-1, 9), input_tokens=maybe_counts, output_tokens=maybe_counts,
    cost_usd=maybe_floats, prompt_text=texts, output_text=maybe_texts, session_id=maybe_texts,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(run=runs)
def test_any_run_survives_the_store(store, run):
    store.save(run)
    assert store.record(run.run_id).run == run


# ---- where it is ------------------------------------------------------------------------------------------------


def test_the_environment_names_the_default_file(path, monkeypatch):
    store = RunStore()
    monkeypatch.setenv("AGENTROUTE_RUNS", str(path))
    assert store.path == path
    assert not path.parent.exists()


def test_without_it_the_file_is_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("AGENTROUTE_RUNS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunStore().path == tmp_path / ".agentroute" / "runs.db"


def test_the_file_is_for_its_owner_only(store, path):
    store.save(run_of())
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_making_a_store_imports_no_database():
    code = "import sys, agentroute.store as s; s.RunStore(); assert 'sqlite3' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- faults -----------------------------------------------------------------------------------------------------


def test_kill_9_loses_no_turn_that_was_saved(store, path):
    code = """
import sys
from itertools import count
from agentroute.store import RunStore
from tests.test_store import run_of, turn_of, message_of
store = RunStore(sys.argv[1])
store.save(run_of())
for turn in count(1):
    store.save(run_of(n_turns=turn), turns=[turn_of(index=turn)], messages=[message_of(index=turn)])
    print(turn, flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    for _ in range(200):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    acknowledged = max([200, *map(int, writer.communicate()[0].split())])
    record = store.record("r1")
    assert acknowledged <= record.run.n_turns <= acknowledged + 1
    assert [turn.turn_index for turn in record.turns] == list(range(1, record.run.n_turns + 1))
    assert len(record.messages) == record.run.n_turns
    assert (record.run.status, record.run.duration_s) == ("interrupted", None)


def test_two_processes_record_into_one_file(store, path):
    code = """
import sys
from agentroute.store import RunStore
from tests.test_store import save, whole
store = RunStore(sys.argv[1])
store._database._timeout_s = 60
for number in range(100):
    save(store, whole(f"{sys.argv[2]}-{number:03}"))
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert sorted(row[0] for row in store.select(RunRecord)) == [f"{name}-{number:03}" for name in "ab" for number in range(100)]
    assert store.record("b-099") == whole("b-099")


def test_a_newer_history_is_refused_and_not_changed(store, path):
    save(store, whole())
    store.close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version=999")
    before = path.read_bytes()
    with pytest.raises(ErrorStore, match=r"run history .*runs\.db was written by a newer agentroute"):
        store.save(run_of())
    with pytest.raises(ErrorStore, match="newer agentroute"):
        list(store.select(RunRecord))
    store.close()
    assert path.read_bytes() == before


# ---- schema -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_strict_and_have_the_columns_of_their_record(store, path, kind):
    save(store, whole())
    name = TABLES[kind].name
    with closing(sqlite3.connect(path)) as connection:
        found = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
        bodies = [f"{field.name}_body" for field in fields(kind) if field.metadata["long"]]
        assert found == [*(field.name for field in fields(kind)), *bodies, *(["revision"] if kind is RunRecord else [])]
        assert connection.execute("SELECT strict FROM pragma_table_list WHERE name = ?", (name,)).fetchone() == (1,)


def test_a_column_added_to_a_record_is_added_to_an_older_file():
    old = make_dataclass("Old", [("run_id", "str", column("", key=True))])
    added = [
        ("note", "str | None", column("", default=None)),
        ("stars", "int", column("", default=3)),
        ("word", "str", column("")),
    ]
    new = make_dataclass("New", added, bases=(old,), kw_only=True)
    with closing(sqlite3.connect(":memory:")) as connection:
        Table(old, "runs").fit(connection)
        connection.execute("INSERT INTO runs VALUES ('r1')")
        Table(new, "runs").fit(connection)
        assert connection.execute("SELECT * FROM runs").fetchall() == [("r1", None, 3, "")]


def test_a_changed_record_needs_a_migration():
    """When this fails: raise VERSION in store.py, then give the new number of columns here."""
    columns_in_version = {1: [21, 16, 12, 7], 2: [21, 17, 12, 7], 3: [28, 19, 13, 7, 7], 4: [29, 19, 13, 7, 7]}
    assert columns_in_version[VERSION] == [len(columns(kind)) for kind in TABLES]


def test_times_are_stored_as_microseconds():
    assert encoded(run_of(started_at=datetime(1970, 1, 1, 1, tzinfo=UTC)))[1] == 3_600_000_000
    assert encoded(run_of())[1] % 1_000_000 == 123456


def test_a_used_store_is_sent_to_another_process_as_its_file(store):
    save(store, whole())
    child = multiprocessing.get_context("spawn").Process(target=save, args=(store, whole("r2")))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert store.record("r2") == whole("r2")


def test_a_store_is_pickled_with_the_file_it_has_here(path, monkeypatch):
    monkeypatch.setenv("AGENTROUTE_RUNS", str(path))
    pickled = pickle.dumps(RunStore())
    monkeypatch.setenv("AGENTROUTE_RUNS", "/elsewhere")
    assert pickle.loads(pickled).path == path


def test_every_path_kind_is_taken(path):
    assert [RunStore(str(path)).path, RunStore(path).path, RunStore("~/x.db").path] == [path, path, Path.home() / "x.db"]


# ---- texts, revisions, scores -----------------------------------------------------------------------------------


LONG = "Zoë 日本 " * INLINE


def test_a_long_text_is_stored_once_and_packed(store, path):
    for number in range(50):
        run_id = f"r{number:02}"
        store.save(run_of(run_id, prompt_text=LONG), messages=[message_of(run_id, 0, content_text=LONG), message_of(run_id, 1, content_text="short")])
    assert store.record("r49").messages[0].content_text == store.record("r00").run.prompt_text == LONG
    with closing(sqlite3.connect(path)) as connection:
        (size, packed), *others = connection.execute("SELECT size, length(data) FROM bodies").fetchall()
    assert others == []
    assert size == len(LONG.encode()) and packed < size / 10


def test_a_text_that_grew_long_or_short_is_the_newest(store):
    for text in ("short", LONG, "short again", "", LONG):
        store.save(run_of(output_text=text))
        assert store.record("r1").run.output_text == text


def test_every_write_to_a_run_raises_its_revision(store):
    assert store.watermark() == (0, 0)
    store.save(run_of("a"))
    store.save(run_of("b"))
    epoch, revision = store.watermark()
    store.save(run_of("a", status="ok"))
    assert [row for rows in store.chunks(RunRecord, columns=["run_id", "status"], after=revision) for row in rows] == [("a", "ok")]
    with store.transaction() as connection:
        store.touch(connection, ["b"])
    assert list(store.chunks(TurnRecord, after=revision)) == []
    assert [row[0] for rows in store.chunks(RunRecord, after=revision) for row in rows] == ["a", "b"]
    assert store.watermark() == (epoch, revision + 2)


def test_a_transaction_is_undone_by_an_error(store):
    store.save(run_of())
    with pytest.raises(ZeroDivisionError), store.transaction() as connection:
        connection.execute("DELETE FROM runs")
        _ = 1 / 0
    assert store.record("r1").run == run_of()


def test_a_score_is_kept_and_touches_its_run(store):
    store.save(run_of())
    _, revision = store.watermark()
    score = ScoreRecord(run_id="r1", name="helpful", value=1.0, note=LONG, scored_at=START)
    store.save_score(replace(score, value=0.0))
    store.save_score(score)
    assert [TABLES[ScoreRecord].decode(row) for row in store.select(ScoreRecord)] == [score]
    assert [len(rows) for rows in store.chunks(RunRecord, after=revision)] == [1]


def test_a_score_of_a_run_that_does_not_exist_is_refused(store):
    store.save(run_of())
    for run_id in ("r2", ""):
        with pytest.raises(ErrorStore, match=f"no run {run_id!r}"):
            store.save_score(ScoreRecord(run_id=run_id, name="helpful", value=1.0, scored_at=START))


# ---- answers ----------------------------------------------------------------------------------------------------

ASKED = Answer("session", "cell", 3, 1, "r1")
CALLS = [{"id": "1", "type": "function", "function": {"name": "look", "arguments": json.dumps({"what": LONG})}}]
RESPONSE = {"content": LONG, "tool_calls": CALLS, "usage": {"cost": 0.1}, "model": "m", "reasoning": None}


def kept(store, body):
    """What comes back of a body that is kept."""
    store.keep_answer(b"key", ASKED, json.dumps(body))
    return json.loads(store.answer_body(store.answers(b"key")[-1]))


@pytest.mark.parametrize(
    "body",
    [
        RESPONSE, {**RESPONSE, "content": None}, {**RESPONSE, "content": "", "tool_calls": []}, {**RESPONSE, "content": "short"},
        {**RESPONSE, "content": f"half \ud83d {LONG}"}, {**RESPONSE, "reasoning": "half \ud83d"}, {**RESPONSE, "content": [{"text": LONG}]},
        {**RESPONSE, "tool_calls": [{"function": {"arguments": f"\ud83d {LONG}"}}]}, {**RESPONSE, "content": f"nul \0 {LONG}"}, {"other": LONG}, [LONG], LONG,
    ],
    ids=range(12),
)  # fmt: skip
def test_an_answer_comes_back_as_it_was_kept(store, body):
    assert kept(store, body) == body


def test_an_answer_says_where_it_was_given(store):
    others = [ASKED._replace(ordinal=2), ASKED._replace(execution=4), ASKED._replace(cell=""), ASKED._replace(session="x"), ASKED._replace(run_id="r2")]
    for answer in [ASKED, *others]:
        store.keep_answer(b"key", answer, "{}")
    store.keep_answer(b"another", ASKED, "{}")
    assert [answer._replace(answer_id=0) for answer in store.answers(b"key")] == [ASKED, *others]


def test_an_answer_and_its_message_hold_their_texts_once(store, path):
    store.keep_answer(b"key", ASKED, json.dumps(RESPONSE))
    store.save(run_of(), messages=[MessageRecord.of("r1", 0, {"role": "assistant", "content": LONG, "tool_calls": CALLS})])
    with closing(sqlite3.connect(path)) as connection:
        texts = {unpacked(data) for (data,) in connection.execute("SELECT data FROM bodies")}
        ((rest,),) = connection.execute("SELECT rest FROM answers")
    assert texts == {LONG, json.dumps(CALLS, ensure_ascii=False)}
    assert json.loads(unpacked(rest)) == {"usage": {"cost": 0.1}, "model": "m", "reasoning": None}


def test_of_many_answers_to_one_request_the_newest_thousand_are_looked_at(store):
    store.keep_answer(b"key", ASKED, "{}")
    with store.transaction() as connection:
        connection.executemany("INSERT INTO answers (request_key, place_id, ordinal, rest) VALUES (?, 1, ?, x'')", [(b"key", number) for number in range(2, 1202)])
    assert [answer.ordinal for answer in store.answers(b"key")] == [*range(202, 1202)]


# ---- damage and memory ------------------------------------------------------------------------------------------


def damage(path, table="bodies", column="data", value=b"no zlib"):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {table} SET {column} = ?", (value,))


@pytest.mark.parametrize("value", [b"no zlib", b"", packed(LONG)[:-5], zlib.compress(b"\xff\xfe")], ids=["nonsense", "empty", "cut off", "no text"])
def test_a_damaged_text_costs_one_warning_and_no_other_text(store, path, value):
    store.save(run_of("a", prompt_text=LONG))
    damage(path, value=value)
    store.save(run_of("b", prompt_text=f"{LONG} more"))
    with pytest.warns(RuntimeWarning, match=r"texts in the run history .*runs\.db are damaged") as told:
        rows = [*store.select(RunRecord, columns=["prompt_text"]), *store.select(RunRecord, columns=["prompt_text"])]
    assert [text for (text,) in rows] == ["[damaged]", f"{LONG} more"] * 2
    assert store.record("a").run.prompt_text == "[damaged]"
    assert len(told) == 1


def test_a_damaged_text_is_mended_when_it_is_saved_again(store, path):
    store.save(run_of("a", prompt_text=LONG))
    damage(path)
    store.save(run_of("b", prompt_text=LONG))
    assert store.record("a").run.prompt_text == LONG


@pytest.mark.parametrize("where", [("bodies", "data"), ("answers", "rest")])
def test_a_damaged_answer_is_none_and_that_is_told_once(store, path, where):
    store.keep_answer(b"key", ASKED, json.dumps(RESPONSE))
    damage(path, *where)
    with pytest.warns(RuntimeWarning, match="are damaged") as told:
        found = [store.answer_body(answer) for answer in store.answers(b"key") * 2]
    assert found == [None, None]
    assert len(told) == 1
    assert kept(store, RESPONSE) == RESPONSE


def test_an_answer_that_was_forgotten_meanwhile_is_none(store):
    store.keep_answer(b"key", ASKED, "{}")
    assert store.answer_body(ASKED._replace(answer_id=99)) is None


def test_texts_are_held_in_memory_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(tables, "CACHED_IN_ALL", 1_000_000)
    tables.forget_bodies()
    texts = [f"{number} {'x' * 50_000}" for number in range(40)] + ["y" * 100_000]
    assert [body_of(packed(text)) for text in texts * 2] == texts * 2
    assert list(tables._texts.values()) == texts[21:40]
    assert tables._texts_size == sum(map(len, tables._texts.values())) <= 1_000_000
    tables.forget_bodies()


@settings(max_examples=100)
@given(text=st.text())
def test_any_text_survives_packing(text):
    assert unpacked(packed(text)) == unpacked(packed(f"{{{text}"))[1:] == text


def test_a_save_tells_when_the_file_is_another_one(store, path, tmp_path):
    first = store.save(run_of())
    assert store.save(run_of("b")) == first
    store.snapshot(tmp_path / "copy.db")
    store.close()
    path.unlink()
    assert store.save(run_of()) != first


# ---- room -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replay", [False, True], ids=["replay off", "replay on"])
def test_what_is_kept_takes_little_room(replay, tmp_path):
    """At most 6 KB for an ordinary run and 150 KB for one of a hundred turns, which as plain JSON are 17.5 KB and 8.5 MB."""
    sizes = {}
    for turns, runs in ((3, 200), (100, 10)):
        with closing(RunStore(tmp_path / f"{turns}.db")) as store:
            for number in range(runs):
                record = conversation(f"run-{number:04}", turns, seed=number)
                save(store, record)
                for key, body in answers_of(record) if replay else ():
                    store.keep_answer(key, Answer("0123456789abcdef", "cell 1", 3, 1, record.run.run_id), body)
            store.snapshot(tmp_path / f"{turns}-packed.db")
        sizes[turns] = (tmp_path / f"{turns}-packed.db").stat().st_size / runs
    assert sizes[3] <= 6_000
    assert sizes[100] <= 150_000


def conversation(run_id, turns, seed):
    """A run whose requests, each with all messages before it, are 14.6 KB of JSON at three turns, and 8.5 MB at a hundred."""
    words = WORDS[seed % 7 :]

    def text(start, length):
        return " ".join(words[(start * 37 + number * (start % 11 + 1)) % len(words)] for number in range(length))

    record = Record(run_of(run_id, n_turns=turns, prompt_text=text(seed, 60), output_text=text(seed + 1, 80), status="ok"))
    record.messages = [message_of(run_id, 0, role="system", content_text=text(0, 250)), message_of(run_id, 1, content_text=text(seed, 60))]
    for turn in range(1, turns + 1):
        asked = json.dumps({"query": text(seed + turn, 8), "limit": turn})
        told = text(seed * 100 + turn, 120)
        record.turns.append(turn_of(run_id, turn, input_tokens=900 + turn, output_tokens=60, cost_usd=0.0012, response_id=f"gen-{seed}-{turn}", duration_s=1.2))
        record.tool_calls.append(call_of(run_id, turn, arguments_text=asked, result_text=told, tool_call_id=f"call_{seed:04x}{turn:04x}"))
        calls = json.dumps([{"id": f"call_{seed:04x}{turn:04x}", "type": "function", "function": {"name": "search", "arguments": asked}}])
        record.messages.append(message_of(run_id, len(record.messages), role="assistant", content_text=text(seed + turn, 20), tool_calls_text=calls))
        record.messages.append(message_of(run_id, len(record.messages), role="tool", content_text=told, tool_name="search", tool_call_id=f"call_{seed:04x}{turn:04x}"))
    return record


def answers_of(record):
    """What replay keeps of it: keys of requests, and responses."""
    for index, message in enumerate(message for message in record.messages if message.role == "assistant"):
        usage = {"prompt_tokens": 900 + index, "completion_tokens": 60, "total_tokens": 960 + index, "cost": 0.0012, "prompt_tokens_details": {"cached_tokens": 0}}
        said = {"content": message.content_text, "tool_calls": json.loads(message.tool_calls_text), "usage": usage, "model": "vendor/model-2024-07-18"}
        rest = {"finish_reason": "tool_calls", "reasoning": None, "refusal": None, "extra": {}, "replayed_from": None}
        body = json.dumps({**said, "id": record.turns[index].response_id, **rest})
        yield blake2b(body.encode(), digest_size=16).digest(), body


WORDS = [f"{a}{b}{c}" for a in ("re", "con", "de", "pro", "in", "ex") for b in ("tri", "spec", "duc", "form", "port", "ject", "ver", "mit") for c in ("ing", "tion", "er", "s", "ed", "al")]


# ---- listing, and hearing of what is saved --------------------------------------------------------------------------


def test_ids_come_in_the_order_of_a_column_unknown_ones_last(store):
    for number, cost in enumerate([0.2, None, 0.3, 0.1, 0.1]):
        store.save(run_of(f"r{number}", cost_usd=cost, agent_name="bAdcE"[number], started_at=START + timedelta(days=number)))
    assert store.run_ids() == ["r4", "r3", "r2", "r1", "r0"]
    assert store.run_ids(descending=False) == ["r0", "r1", "r2", "r3", "r4"]
    assert store.run_ids(by="cost_usd") == ["r2", "r0", "r4", "r3", "r1"]
    assert store.run_ids(by="cost_usd", descending=False) == ["r4", "r3", "r0", "r2", "r1"]
    assert store.run_ids(by="agent_name", descending=False) == ["r1", "r0", "r3", "r2", "r4"]
    assert store.run_ids(by="cost_usd", limit=2, offset=1) == ["r0", "r4"]


def test_ids_and_numbers_of_runs_are_of_those_selected(store):
    store.save(run_of("a", prompt_text="refund"))
    store.save(run_of("b", prompt_text="parcel"))
    assert store.run_ids(Selection.of(text="refund")) == ["a"]
    assert (store.run_count(), store.run_count(Selection.of(text="refund"))) == (2, 1)


def test_values_are_the_most_frequent_first(store):
    for number, name in enumerate(["y", "x", "y", "z"]):
        store.save(run_of(f"r{number}", agent_name=name))
    assert store.run_values("agent_name", 2) == ["y", "x"]
    assert store.run_values("notebook", 2) == []


@pytest.mark.parametrize("column", ["prompt_text", "cost; DROP TABLE runs", "run_start"])
def test_what_is_no_short_column_orders_nothing_and_has_no_values(store, column):
    with pytest.raises(ErrorConfig, match="runs are ordered by a column"):
        store.run_ids(by=column)
    with pytest.raises(ErrorConfig, match="values are of one of"):
        store.run_values(column, 5)


def test_a_history_that_is_not_there_lists_nothing_and_is_not_made(store):
    assert (store.run_ids(), store.run_count(), store.run_values("agent_name", 5)) == ([], 0, [])
    store.delete_score("r1", "thumb")
    assert not store.path.exists()


def test_a_score_that_is_taken_back_is_gone_and_copies_are_told(store):
    store.save(run_of())
    for name, scorer in (("thumb", ""), ("thumb", "Zoe"), ("other", "")):
        store.save_score(ScoreRecord(run_id="r1", name=name, scorer=scorer, value=1.0, scored_at=START))
    before = store.watermark()
    store.delete_score("r1", "thumb")
    assert set(store.select(ScoreRecord, columns=["name", "scorer"])) == {("thumb", "Zoe"), ("other", "")}
    assert store.watermark()[1] > before[1]


def test_listeners_hear_of_each_save_when_it_is_committed(store, path):
    heard = []

    def listen(run):
        with closing(RunStore(path)) as other:
            heard.append((run.run_id, run.n_turns, [found for (found,) in other.select(RunRecord, columns=["n_turns"])]))

    end = on_save(listen)
    store.save(run_of(n_turns=1))
    store.save(run_of(n_turns=2))
    end()
    end()
    store.save(run_of(n_turns=3))
    assert heard == [("r1", 1, [1]), ("r1", 2, [2])]


def test_a_listener_that_fails_breaks_nothing(store):
    heard = []
    ends = [on_save(lambda run: 1 / 0), on_save(heard.append)]
    store.save(run_of())
    for end in ends:
        end()
    assert [run.run_id for run in heard] == ["r1"]
    assert store.run_ids() == ["r1"]
