"""Run history in trouble: killed processes, several writers, forks, full disks, older files. On local and on network disks."""

import json
import signal
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path

import pytest

from agentroute import Agent, RunStore, ToolCall
from agentroute.records import MessageRecord, RunRecord, ScoreRecord, ToolCallRecord, TurnRecord
from agentroute.tables import Table
from agentroute.testing import ModelScripted

LONG = "A text that is too long to be kept in the row itself. " * 20


def look(what: str) -> str:
    """Looks it up."""
    return f"{what}: {LONG}"


def agent_of(store, turns=3, name="faulty"):
    """An agent that calls a tool in each turn but the last, and can be run again and again."""
    answers = [ToolCall(str(number), "look", {"what": f"thing {number}"}) for number in range(turns - 1)] + ["Done."]
    return Agent(name, model=ModelScripted(answers * 1000, cost_usd=0.01), tools=[look], store=store)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "history" / "runs.db"


@pytest.fixture(params=["local", "network"])
def disk(request, monkeypatch):
    """What a child runs first, so that it takes the disk for what this process does."""
    is_network = request.param == "network"
    monkeypatch.setattr("agentroute._sqlite.on_network_disk", lambda path: is_network)
    return f"""
import os, sys
import agentroute._sqlite
from tests.test_store_faults import *
agentroute._sqlite.on_network_disk = lambda path: {is_network}
store = RunStore(sys.argv[1])
store._database._timeout_s = 60  # the other writers may be many, and the disk slow
"""


@pytest.fixture
def store(path, disk):
    with closing(RunStore(path)) as store:
        yield store


def run_python(code, *arguments):
    """Runs code in another process; its stdout."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def records(store):
    """All there is, by run id."""
    return {run_id: store.record(run_id) for (run_id,) in store.select(RunRecord, columns=["run_id"])}


def assert_whole(record):
    """Nothing of a run is there without what comes before it."""
    assert [turn.turn_index for turn in record.turns] == list(range(1, len(record.turns) + 1))
    assert [message.message_index for message in record.messages] == list(range(len(record.messages)))
    assert record.run.n_turns == len(record.turns)
    ended = [call for call in record.tool_calls if call.status == "ok"]
    assert all(call.result_text.endswith(LONG) for call in ended)
    assert {call.turn_index for call in record.tool_calls} <= {turn.turn_index for turn in record.turns}


# ---- kill -9, several writers, forks ----------------------------------------------------------------------------


RECORDING = """
import asyncio
from agentroute.events import TurnEnd

async def main():
    agent = agent_of(store)
    while True:
        async for event in agent.events("go"):
            if isinstance(event, TurnEnd):
                print(event.run_id, event.turn, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("turns", [1, 2, 3, 23, 61, 104])
def test_kill_9_while_runs_are_recorded_loses_no_turn_and_tears_no_run(store, disk, path, turns):
    writer = subprocess.Popen([sys.executable, "-c", disk + RECORDING, str(path)], stdout=subprocess.PIPE, text=True)
    told = [writer.stdout.readline() for _ in range(turns)]
    writer.send_signal(signal.SIGKILL)
    told += writer.communicate()[0].splitlines(keepends=True)
    acknowledged = [line.split() for line in told if line.endswith("\n")]
    kept = records(store)
    for run_id, turn in acknowledged:
        assert len(kept[run_id].turns) >= int(turn)
    for record in kept.values():
        assert_whole(record)
    unfinished = [record.run.run_id for record in kept.values() if record.run.status != "ok"]
    assert len(unfinished) <= 1
    assert {record.run.status for record in kept.values()} <= {"ok", "interrupted"}
    assert store.check() == []
    assert agent_of(store).run("go").record == store.record([*records(store)][-1])


def test_two_processes_record_agents_into_one_file(store, disk, path):
    code = f"{disk}\nagent = agent_of(store, name=sys.argv[2])\nfor _ in range(20): agent.run('go')"
    writers = [subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    kept = records(store).values()
    assert sorted(record.run.agent_name for record in kept) == ["a"] * 20 + ["b"] * 20
    assert {(record.run.status, len(record.turns), len(record.tool_calls)) for record in kept} == {("ok", 3, 2)}
    for record in kept:
        assert_whole(record)
    assert store.check() == []


def test_a_forked_child_records_into_the_same_store_and_its_parent_goes_on(store, disk, path):
    code = f"""{disk}
import asyncio
def run(name):
    asyncio.run(agent_of(store, name=name).arun("go"))
run("before")
child = os.fork()
if child == 0:
    run("child")
    os._exit(0)
run("beside")
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
run("after")
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    kept = records(store).values()
    assert sorted(record.run.agent_name for record in kept) == ["after", "before", "beside", "child"]
    assert {(record.run.status, len(record.turns)) for record in kept} == {("ok", 3)}
    assert store.check() == []


# ---- places that fail -------------------------------------------------------------------------------------------


def run_told(agent):
    """A run's result, and what the user was told meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return agent.run("go"), [str(warning.message) for warning in caught]


def test_a_full_disk_costs_one_message_and_the_record_stays_whole(store, disk, path):
    code = f"""{disk}
import resource
def limited(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

agent = agent_of(store)
agent.run("go")
limited(1)
results = [run_told(agent) for _ in range(2)]
limited(resource.RLIM_INFINITY)
last = agent.run("go")
for result, told in results:
    assert result.output == "Done."
    assert_whole(result.record)
    assert [len(part) for part in (result.record.turns, result.record.tool_calls, result.record.messages)] == [3, 2, 6]
first, second = [told for _, told in results]
print(len(first), "make room" in first[0], second)
assert store.record(last.run_id) == last.record
"""
    assert run_python(code, path) == "1 True []\n"
    assert len(records(store)) == 2
    assert store.check() == []


def test_a_read_only_directory_costs_one_message_and_the_record_stays_whole(disk, tmp_path):
    code = f"""{disk}
from pathlib import Path
place = Path(sys.argv[1])
agent = agent_of(store)
agent_of(None).run("so that every module is there before the rights are given up")
if os.geteuid() == 0:
    os.setuid(65534)
results = [run_told(agent) for _ in range(2)]
for result, told in results:
    assert result.output == "Done."
    assert_whole(result.record)
    assert len(result.record.turns) == 3
first, second = [told for _, told in results]
print(len(first), str(place) in first[0], second)
"""
    for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        directory.chmod(0o755)
    (tmp_path / "history").mkdir(0o555)
    assert run_python(code, tmp_path / "history" / "runs.db") == "1 True []\n"
    assert list((tmp_path / "history").iterdir()) == []


def test_a_history_of_a_newer_version_costs_one_message_and_is_not_changed(store, path):
    agent = agent_of(store)
    agent.run("go")
    store.close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version=999")
    before = path.read_bytes()
    results = [run_told(agent) for _ in range(2)]
    store.close()
    assert [result.output for result, _ in results] == ["Done."] * 2
    (message,), nothing = [told for _, told in results]
    assert "written by a newer agentroute" in message
    assert nothing == []
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir() if ".bak" in file.name] == []


# ---- older files ------------------------------------------------------------------------------------------------

_RUNS = """CREATE TABLE runs (run_id TEXT NOT NULL DEFAULT '', started_at INTEGER NOT NULL DEFAULT 0, duration_s REAL,
status TEXT NOT NULL DEFAULT 'interrupted', agent_name TEXT NOT NULL DEFAULT '', request_model TEXT NOT NULL DEFAULT '',
n_turns INTEGER NOT NULL DEFAULT 0, n_tool_calls INTEGER NOT NULL DEFAULT 0, input_tokens INTEGER, output_tokens INTEGER,
cached_input_tokens INTEGER, reasoning_tokens INTEGER, cost_usd REAL, unknown_cost_calls INTEGER NOT NULL DEFAULT 0,
cost_saved_usd REAL, prompt_text TEXT NOT NULL DEFAULT '', output_text TEXT, error_type TEXT, error_text TEXT,
session_id TEXT, parent_run_id TEXT, PRIMARY KEY (run_id)) STRICT"""
_TURNS = """CREATE TABLE turns (run_id TEXT NOT NULL DEFAULT '', turn_index INTEGER NOT NULL DEFAULT 0,
started_at INTEGER NOT NULL DEFAULT 0, request_model TEXT NOT NULL DEFAULT '', response_model TEXT, finish_reason TEXT,
input_tokens INTEGER, output_tokens INTEGER, cached_input_tokens INTEGER, reasoning_tokens INTEGER, cost_usd REAL,
cost_saved_usd REAL, duration_s REAL, time_to_first_chunk_s REAL, response_id TEXT, error_type TEXT,
PRIMARY KEY (run_id, turn_index)) STRICT"""
_TOOL_CALLS = """CREATE TABLE tool_calls (run_id TEXT NOT NULL DEFAULT '', turn_index INTEGER NOT NULL DEFAULT 0,
call_index INTEGER NOT NULL DEFAULT 0, tool_call_id TEXT NOT NULL DEFAULT '', tool_name TEXT NOT NULL DEFAULT '',
arguments_text TEXT NOT NULL DEFAULT '', result_text TEXT, status TEXT NOT NULL DEFAULT 'interrupted', error_type TEXT,
started_at INTEGER NOT NULL DEFAULT 0, duration_s REAL, cost_usd REAL, PRIMARY KEY (run_id, turn_index, call_index)) STRICT"""
_MESSAGES = """CREATE TABLE messages (run_id TEXT NOT NULL DEFAULT '', message_index INTEGER NOT NULL DEFAULT 0,
role TEXT NOT NULL DEFAULT '', content_text TEXT, tool_name TEXT, tool_call_id TEXT, tool_calls_text TEXT,
PRIMARY KEY (run_id, message_index)) STRICT"""
_INDEX = "CREATE UNIQUE INDEX runs_by_start ON runs (started_at, run_id)"

VERSIONS = {
    1: [_RUNS, _TURNS, _TOOL_CALLS, _MESSAGES, _INDEX],
    2: [_RUNS, _TURNS.replace("cost_usd REAL,", "cost_usd REAL, cost_source TEXT,"), _TOOL_CALLS, _MESSAGES, _INDEX],
}
"""The tables as they were released, in the words of then."""

STARTED = 1_763_700_000_000_000


def older_file(path: Path, version: int, runs: int = 3) -> None:
    path.parent.mkdir()
    calls = json.dumps([{"id": "c1", "name": "look", "arguments": {"what": "x"}}])
    with closing(sqlite3.connect(path)) as old, old:
        for sql in VERSIONS[version]:
            old.execute(sql)
        for number in range(runs):
            run = {"run_id": f"r{number}", "started_at": STARTED + number}
            more = {"status": "ok", "duration_s": 2.5, "agent_name": "old", "request_model": "m", "n_turns": 2, "n_tool_calls": 1}
            texts = {"prompt_text": f"{number} {LONG}", "output_text": "short", "session_id": "s", "cost_usd": 0.5}
            insert(old, "runs", run | more | texts)
            for turn in (1, 2):
                source = {"cost_source": "provider"} if version > 1 else {}
                insert(
                    old, "turns", run | {"turn_index": turn, "request_model": "m", "input_tokens": 7, "cost_usd": 0.25} | source
                )
            called = {
                "turn_index": 1,
                "call_index": 1,
                "tool_call_id": "c1",
                "tool_name": "look",
                "arguments_text": '{"what": "x"}',
            }
            insert(old, "tool_calls", run | called | {"result_text": LONG, "status": "ok"})
            for index, (role, text) in enumerate([("user", LONG), ("assistant", None), ("tool", LONG), ("assistant", "short")]):
                row = {"run_id": run["run_id"], "message_index": index, "role": role, "content_text": text}
                insert(old, "messages", row | {"tool_calls_text": calls if text is None else None})
        old.execute(f"PRAGMA application_id={0x41475231}")
        old.execute(f"PRAGMA user_version={version}")


def insert(connection, table, row):
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", [*row.values()])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_history_of_an_older_version_is_upgraded_with_every_row_and_kept_as_it_was(store, path, version):
    older_file(path, version)
    rows = {kind: len(list(store.select(kind))) for kind in (RunRecord, TurnRecord, ToolCallRecord, MessageRecord)}
    assert [*rows.values()] == [3, 6, 3, 12]
    record = store.record("r1")
    run, turn, call = record.run, record.turns[1], record.tool_calls[0]
    assert (run.status, run.duration_s, run.agent_name, run.n_turns, run.cost_usd) == ("ok", 2.5, "old", 2, 0.5)
    assert (run.prompt_text, run.output_text, run.session_id) == (f"1 {LONG}", "short", "s")
    assert run.started_at.timestamp() == pytest.approx((STARTED + 1) / 1e6, abs=1e-6)
    assert (turn.turn_index, turn.input_tokens, turn.cost_usd) == (2, 7, 0.25)
    assert (call.tool_call_id, call.arguments_text, call.result_text) == ("c1", '{"what": "x"}', LONG)
    assert [message.content_text for message in record.messages] == [LONG, None, LONG, "short"]
    assert json.loads(record.messages[1].tool_calls_text)[0]["name"] == "look"
    assert store.check() == []
    kept = path.with_name(f"runs.db.v{version}.bak")
    assert [file.name for file in path.parent.iterdir() if ".bak" in file.name] == [kept.name]
    assert kept.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(kept)) as old:
        assert old.execute("PRAGMA user_version").fetchone() == (version,)
        assert old.execute("SELECT count(*), max(prompt_text) FROM runs").fetchone() == (3, f"2 {LONG}")


def test_a_history_of_version_3_is_upgraded_with_texts_scores_and_answers(store, path):
    """Written by the version before, and dumped."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as old:
        old.executescript(Path(__file__).with_name("older").joinpath("history_v3.sql").read_text())
    record = store.record("01M816KF25HJZQPNPZTBSTE5AV")
    assert (record.run.prompt_text, record.run.output_text, record.run.tools_text) == ("go " * 100, "answer " * 80, None)
    assert (record.run.n_turns, record.run.tags, record.tool_calls[0].result_text) == (2, '{"tenant": "a"}', "found " * 100)
    assert [message.role for message in record.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert list(store.select(ScoreRecord, columns=["name", "value"])) == [("helpful", 0.5)]
    [answer] = store.answers(bytes.fromhex("C2E9ECADABFFAEC5580293DFD4359988"))
    assert json.loads(store.answer_body(answer))["content"] == "answer " * 80
    assert path.with_name("runs.db.v3.bak").exists() and store.check() == []


def test_an_upgrade_that_only_adds_columns_copies_no_row(store, path, monkeypatch):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as old:
        old.executescript(Path(__file__).with_name("older").joinpath("history_v3.sql").read_text())
    monkeypatch.setattr(Table, "_carry_over", None)
    assert store.record("01M816KF25HJZQPNPZTBSTE5AV").run.output_text == "answer " * 80
    result = agent_of(store).run("go")
    assert store.record(result.run_id) == result.record


@pytest.mark.parametrize("version", VERSIONS)
def test_an_upgraded_history_is_recorded_into(store, path, version):
    older_file(path, version)
    result = agent_of(store).run("go")
    assert store.record(result.run_id) == result.record
    assert len(records(store)) == 4


@pytest.mark.parametrize("version", VERSIONS)
def test_an_upgrade_says_who_told_the_costs(store, path, version):
    older_file(path, version)
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("UPDATE turns SET cost_usd = NULL WHERE run_id = 'r1' AND turn_index = 1")
        old.execute("DELETE FROM turns WHERE run_id = 'r0' AND turn_index = 2")
        old.execute("UPDATE turns SET cost_usd = NULL WHERE run_id = 'r2'")
        old.execute("UPDATE runs SET cost_usd = NULL WHERE run_id = 'r2'")
        old.execute("UPDATE turns SET cost_source = NULL WHERE cost_usd IS NULL" if version > 1 else "SELECT 1")
    turns = [(row[1], row[0]) for row in store.select(TurnRecord, columns=["cost_source", "run_id"])]
    assert turns == [("r0", "provider")] + [("r1", "unknown"), ("r1", "provider")] + [("r2", "unknown")] * 2
    assert list(store.select(RunRecord, columns=["cost_source"])) == [("provider",), ("mixed",), ("unknown",)]


def test_an_upgraded_run_has_the_source_of_its_turns(store, path):
    older_file(path, 2)
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("UPDATE turns SET cost_source = 'given' WHERE run_id = 'r0' OR (run_id = 'r1' AND turn_index = 1)")
    assert list(store.select(RunRecord, columns=["cost_source"])) == [("given",), ("mixed",), ("provider",)]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_upgrade_strikes_out_keys_wherever_they_are(store, path, version):
    key = "sk-or-v1-5d6b1f0c9ae8477abf"
    older_file(path, version)
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("UPDATE runs SET agent_name = ?1, session_id = ?1, prompt_text = ?1", (key,))
        old.execute("UPDATE tool_calls SET tool_name = ?1, result_text = ?1", (key,))
    run = store.record("r0").run
    store.close()
    assert (run.agent_name, run.session_id, run.prompt_text) == ("[key]",) * 3
    assert key.encode() not in path.read_bytes()


def test_a_backup_kept_before_an_upgrade_can_be_read_as_a_history(store, path):
    older_file(path, 2)
    before = store.record("r0")
    with closing(RunStore(path.with_name("runs.db.v2.bak"))) as kept:
        assert kept.record("r0") == before


def test_processes_that_open_an_older_history_at_once_upgrade_it_once(store, disk, path):
    older_file(path, 1)
    code = f"{disk}\nagent_of(store).run('go')"
    processes = [subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(path)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(records(store)) == 5
    assert [file.name for file in path.parent.iterdir() if ".bak" in file.name] == ["runs.db.v1.bak"]
    assert store.check() == []


# ---- reading ----------------------------------------------------------------------------------------------------


def test_a_slow_reader_of_rows_keeps_no_run_from_being_recorded(store, path):
    agent = agent_of(store)
    agent.run("go")
    with closing(store.select(TurnRecord)) as rows, closing(RunStore(path)) as other:
        next(rows)
        result, told = run_told(agent_of(other))
        assert told == []
        assert len(list(rows)) == 2
    assert store.record(result.run_id) == result.record


def test_a_snapshot_is_a_history_of_its_own(store, tmp_path):
    result = agent_of(store).run("go")
    store.snapshot(tmp_path / "copy.db")
    agent_of(store).run("later")
    with closing(RunStore(tmp_path / "copy.db")) as copy:
        assert records(copy) == {result.run_id: result.record}
        assert copy.check() == []
