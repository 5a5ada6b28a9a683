"""Runs afterwards: scores, and deleting them so that nothing is left."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import agentroute
from agentroute import Agent, ErrorConfig, ErrorStore, Result, RunStore, ToolCall, tables
from agentroute.records import MessageRecord, Record, RunRecord, ScoreRecord, ToolCallRecord, TurnRecord
from agentroute.store import Answer, set_default_store
from agentroute.tables import TABLES, unpacked
from agentroute.testing import ModelScripted
from agentroute.upkeep import deleted_by, forget, prune, score

NOW = datetime.now(UTC)
LONG = "long enough to be kept in a place of its own " * 20


@pytest.fixture
def store(tmp_path):
    with closing(RunStore(tmp_path / "history" / "runs.db")) as store:
        yield store


def save(store, run_id, text="hello", *, age=timedelta(), parent=None, **changes):
    """A run in every table, whose every text is `text`."""
    run = RunRecord(run_id=run_id, started_at=NOW - age, agent_name="support", request_model="m", parent_run_id=parent, cost_usd=0.01)
    run.prompt_text = run.output_text = run.error_text = text
    for name, value in changes.items():
        setattr(run, name, value)
    store.save(
        run,
        turns=[TurnRecord(run_id=run_id, turn_index=1, started_at=run.started_at, request_model="m")],
        tool_calls=[ToolCallRecord(run_id=run_id, turn_index=1, call_index=1, tool_name="t", started_at=run.started_at, arguments_text=text, result_text=text)],
        messages=[MessageRecord(run_id=run_id, message_index=0, role="user", content_text=text, tool_calls_text=text)],
    )
    store.save_score(ScoreRecord(run_id=run_id, name="helpful", value=1.0, note=text, scored_at=NOW))
    store.keep_answer(run_id.encode(), Answer("session", "cell", 1, 1, run_id), f'{{"content": "{text}"}}')


def left(store, kind=RunRecord):
    return sorted({row[0] for row in store.select(kind, columns=["run_id"])})


def bytes_of(directory):
    """Every byte of every file below a directory, and of what is compressed in the history."""
    found = b"".join(path.read_bytes() for path in sorted(Path(directory).rglob("*")) if path.is_file())
    for path in Path(directory).rglob("*.db"):
        with closing(RunStore(path)) as store, store.transaction() as connection:
            packed = connection.execute("SELECT data FROM bodies UNION ALL SELECT rest FROM answers").fetchall()
        found += "".join(unpacked(data) for (data,) in packed).encode()
    return found


def scores(store):
    table = TABLES[ScoreRecord]
    return [table.decode(row) for row in store.select(ScoreRecord)]


# ---- scores -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def judged(store):
    save_run_only(store, "r1")
    return store


def save_run_only(store, run_id):
    store.save(RunRecord(run_id=run_id, started_at=NOW, agent_name="support", request_model="m"))


@pytest.mark.parametrize(
    ("given", "value", "label"),
    [
        (1, 1.0, None),
        (0.25, 0.25, None),
        (True, 1.0, None),
        (False, 0.0, None),
        (Decimal("0.5"), 0.5, None),
        (np.float32(0.5), 0.5, None),
        (np.bool_(True), 1.0, None),
        ("good", None, "good"),
    ],
)
def test_a_score_is_a_number_or_a_label(given, value, label, judged):
    before = datetime.now(UTC)
    score("r1", "helpful", given, note="found it", scorer="zoe", store=judged)
    (made,) = scores(judged)
    assert (made.run_id, made.name, made.scorer, made.value, made.label, made.note) == ("r1", "helpful", "zoe", value, label, "found it")
    assert before <= made.scored_at <= datetime.now(UTC)


@pytest.mark.parametrize("given", [float("nan"), float("inf"), np.nan, None, "", " ", b"1", [1], 10**400, 1j], ids=repr)
def test_what_is_no_score_is_refused(given, judged):
    with pytest.raises(ErrorConfig, match="a score is a finite number, True, False or a word; got"):
        score("r1", "helpful", given, store=judged)
    assert scores(judged) == []


@pytest.mark.parametrize("wrong", [{"name": ""}, {"name": None}, {"name": 3}, {"scorer": None}, {"note": 3}], ids=repr)
def test_name_scorer_and_note_are_texts(wrong, judged):
    with pytest.raises(ErrorConfig, match=f"the {next(iter(wrong))} of a score must be a text"):
        score("r1", **{"name": "helpful", "value": 1, "store": judged, **wrong})


def test_another_score_takes_the_place_of_one_of_the_same_name_and_scorer(judged):
    for value, scorer in [(0, "zoe"), (0.5, ""), (1, "zoe")]:
        score("r1", "helpful", value, scorer=scorer, store=judged)
    score("r1", "tone", "stern", store=judged)
    score("r1", "tone", 3, store=judged)
    assert [(made.name, made.scorer, made.value, made.label) for made in scores(judged)] == [("helpful", "", 0.5, None), ("helpful", "zoe", 1.0, None), ("tone", "", 3.0, None)]


def test_a_result_and_a_record_name_their_run(store):
    result = Agent("a", model=ModelScripted(["Hi"]), store=store).run("Hello")
    score(result, "helpful", 1, store=store)
    score(result.record, "tone", "kind", store=store)
    assert {(made.run_id, made.name) for made in scores(store)} == {(result.run_id, "helpful"), (result.run_id, "tone")}


def test_a_result_without_a_record_names_no_run(store):
    with pytest.raises(ErrorConfig, match="this Result has no record"):
        score(Result("Hi"), "helpful", 1, store=store)


@pytest.mark.parametrize("run", [None, "", 7], ids=repr)
def test_what_names_no_run_is_refused(run, judged):
    with pytest.raises(ErrorConfig, match="a run is named by its id or its Result"):
        score(run, "helpful", 1, store=judged)
    with pytest.raises(ErrorConfig, match="a run is named by its id or its Result"):
        forget(run, store=judged)


def test_a_run_that_is_not_there_is_named(judged, tmp_path):
    with pytest.raises(ErrorStore, match=r"there is no run 'r2' in .*runs\.db"):
        score("r2", "helpful", 1, store=judged)
    with pytest.raises(ErrorStore, match=r"there is no run 'r1' in .*none\.db"):
        score("r1", "helpful", 1, store=tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_the_store_of_the_process_is_meant_unless_told(judged):
    set_default_store(judged)
    try:
        agentroute.score("r1", "helpful", 1)
    finally:
        set_default_store(None)
    assert len(scores(judged)) == 1


def test_a_score_is_news_for_copies_of_the_rows(judged):
    _, before = judged.watermark()
    score("r1", "helpful", 1, store=judged.path)
    assert [rows[0][0] for rows in judged.chunks(RunRecord, columns=["run_id"], after=before)] == ["r1"]


# ---- forgetting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TABLES)
def test_forget_deletes_the_run_from_every_table_and_leaves_the_others(kind, store):
    save(store, "r1", "secret words")
    save(store, "r2", "other words")
    assert forget("r1", store=store) == 1
    assert left(store, kind) == ["r2"]
    assert (store.answers(b"r1"), len(store.answers(b"r2"))) == ([], 1)


def test_runs_nested_in_it_go_too_however_deep(store):
    for run_id, parent in {"r1": None, "r2": "r1", "r3": "r2", "r4": None, "r5": "r4"}.items():
        save(store, run_id, parent=parent)
    assert deleted_by(forget="r1", store=store) == (3, pytest.approx(0.03))
    assert forget("r1", store=store) == 3
    assert left(store) == ["r4", "r5"]


def test_runs_that_are_nested_in_each_other_end_it_too(store):
    save(store, "r1", parent="r2")
    save(store, "r2", parent="r1")
    assert forget("r1", store=store) == 2


@pytest.mark.parametrize("several", [["r1", "r3"], ("r1", "r3", "r1"), {"r1": 1, "r3": 1}, iter(["r1", "r3"])], ids=lambda it: type(it).__name__)
def test_several_runs_can_be_forgotten_at_once(several, store):
    for run_id in ("r1", "r2", "r3"):
        save(store, run_id)
    assert forget(several, store=store) == 2
    assert left(store) == ["r2"]


def test_a_result_can_be_forgotten(store):
    results = [Agent("a", model=ModelScripted(["Hi"]), store=store).run("Hello") for _ in range(3)]
    assert forget(results[0], store=store) == 1
    assert forget([results[1], results[2].record], store=store) == 2
    assert left(store) == []


def test_a_run_that_is_not_there_is_named_and_nothing_deleted(store, tmp_path):
    save(store, "r1")
    with pytest.raises(ErrorStore, match=r"there is no run 'nix' in .*; nothing was deleted"):
        forget(["r1", "nix"], store=store)
    assert left(store) == ["r1"]
    with pytest.raises(ErrorStore, match="there is no run 'r1'"):
        forget("r1", store=tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(ErrorConfig, match="no run is named"):
        forget([], store=store)


def test_what_replay_kept_of_a_run_that_was_not_recorded_can_be_forgotten(store):
    save(store, "r1")
    store.keep_answer(b"key", Answer("session", "cell", 1, 1, "elsewhere"), '{"content": "secret"}')
    assert forget("elsewhere", store=store) == 1
    assert store.answers(b"key") == []
    assert left(store) == ["r1"]


def test_a_text_that_another_run_holds_too_stays(store):
    save(store, "r1", LONG)
    save(store, "r2", LONG)
    forget("r1", store=store)
    assert store.record("r2").run.prompt_text == LONG
    forget("r2", store=store)
    with store.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM bodies").fetchone() == (0,)


def test_a_text_that_only_an_answer_holds_stays_as_long_as_that(store):
    body = {"content": LONG, "tool_calls": [{"id": "1", "function": {"name": "look", "arguments": LONG}}]}
    for run_id in ("a", "b"):
        store.keep_answer(run_id.encode(), Answer("session", "cell", 1, 1, run_id), json.dumps(body))
    forget("a", store=store)
    (answer,) = store.answers(b"b")
    assert json.loads(store.answer_body(answer)) == body
    forget("b", store=store)
    with store.transaction() as connection:
        for table in ("bodies", "answers", "places"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_a_forgotten_text_is_not_held_in_memory(store):
    save(store, "r1", LONG)
    assert store.record("r1").run.prompt_text == LONG
    assert LONG in tables._texts.values()
    forget("r1", store=store)
    assert LONG not in tables._texts.values()


def test_copies_of_the_rows_hear_of_it(store):
    save(store, "r1")
    before, _ = store.watermark()
    forget("r1", store=store)
    assert store.watermark()[0] > before


@pytest.fixture
def every_copy(monkeypatch):
    """The column cache keeps copies also of few rows."""
    monkeypatch.setattr("agentroute.column_cache.MIN_ROWS", 0)


@pytest.mark.parametrize("secret", ["Walnuss-Rezept", "Walnuss-Rezept " + LONG], ids=["short", "long"])
def test_no_byte_of_the_text_is_left_in_any_file(secret, store, every_copy):
    save(store, "r1", secret.replace("Rezept", "Entwurf"))
    save(store, "r1", secret)  # what was there before is written over, and may lie about
    save(store, "r2", "harmless")
    for frame in (agentroute.runs, agentroute.tool_calls, agentroute.messages):
        frame(store)
    assert len(list(store.path.parent.rglob("*.arrow"))) == 3
    assert b"Walnuss" in bytes_of(store.path.parent)
    with closing(sqlite3.connect(store.path)) as other:  # keeps the log
        other.execute("SELECT count(*) FROM runs").fetchone()
        forget("r1", store=store)
        assert b"Walnuss" not in bytes_of(store.path.parent)
    assert store.record("r2").run.prompt_text == "harmless"
    assert list(agentroute.runs(store)["run_id"]) == ["r2"]


def test_pages_that_are_split_and_merged_leave_no_byte_either(store):
    names = [f"r{number * 7919 % 200:03d}" for number in range(200)]
    for name in names:
        save(store, name, f"secret-{name} " * (1 + int(name[1:]) % 17))
    gone = names[::3]
    forget(gone, store=store)
    held = bytes_of(store.path.parent)
    assert [name for name in names if f"secret-{name} ".encode() in held] == [name for name in names if name not in gone]


def test_a_backup_of_an_upgrade_goes_with_the_runs_it_may_hold(store):
    save(store, "r1", "Walnuss")
    backup = store.path.with_name("runs.db.v1.bak")
    backup.write_bytes(b"Walnuss")
    other = store.path.with_name("other.db.v1.bak")
    other.write_bytes(b"of another history")
    with pytest.warns(RuntimeWarning, match=r"runs\.db\.v1\.bak, kept before an upgrade, is deleted too"):
        forget("r1", store=store)
    assert (backup.exists(), other.exists()) == (False, True)


def test_a_history_in_ram_can_be_pruned():
    with closing(RunStore(":memory:")) as store:
        save(store, "r1", age=days(2))
        save(store, "r2")
        assert prune("1d", store=store) == 1
        assert left(store) == ["r2"]


def test_on_a_network_disk_no_byte_is_left_either(store, monkeypatch):
    monkeypatch.setattr("agentroute._sqlite.on_network_disk", lambda path: True)
    save(store, "r1", "Walnuss")
    save(store, "r2")
    assert b"Walnuss" in bytes_of(store.path.parent)
    forget("r1", store=store)
    assert b"Walnuss" not in bytes_of(store.path.parent)
    assert left(store) == ["r2"]


def test_where_nothing_is_deleted_a_backup_stays(store):
    save(store, "r1")
    backup = store.path.with_name("runs.db.v1.bak")
    backup.write_bytes(b"Walnuss")
    assert prune("1d", store=store) == 0
    assert backup.exists()


def test_traces_that_a_reader_keeps_in_the_log_are_told_and_go_when_it_ends(store):
    save(store, "r1", "Walnuss")
    with closing(sqlite3.connect(store.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()
        with pytest.warns(RuntimeWarning, match=r"1 run deleted, but .*runs\.db-wal may hold traces of them until nobody reads the file"):
            forget("r1", store=store)
    store.close()
    assert b"Walnuss" not in bytes_of(store.path.parent)


def test_a_file_that_cannot_be_written_anew_is_told_and_the_runs_are_gone(store, monkeypatch):
    def fails():
        raise ErrorStore("the disk is full; make room")

    save(store, "r1", "Walnuss")
    monkeypatch.setattr(store, "compact", fails)
    with pytest.warns(RuntimeWarning, match=r"1 run deleted, but the file keeps its size, and may hold traces .*: the disk is full"):
        assert forget("r1", store=store) == 1
    assert left(store) == []


def test_runs_of_tools_are_forgotten_with_their_agent(store):
    inner = Agent("inner", model=ModelScripted(["Birnen"]), instructions="Birnen", store=store)

    def ask(question: str) -> str:
        return inner.run(question).output

    outer = Agent("outer", model=ModelScripted([[ToolCall("1", "ask", {"question": "Birnen?"})], "Birnen."]), tools=[ask], store=store)
    result = outer.run("Birnen?")
    assert len(left(store)) == 2
    assert forget(result, store=store) == 2
    assert b"Birnen" not in bytes_of(store.path.parent)


# ---- pruning ----------------------------------------------------------------------------------------------------------


def days(number):
    return timedelta(days=number)


@pytest.mark.parametrize("age", ["90d", days(90), (NOW - days(90)).date(), NOW - days(90), (NOW - days(90)).isoformat()], ids=lambda it: type(it).__name__)
def test_prune_deletes_what_is_older(age, store):
    for number in (0, 80, 92, 200):
        save(store, f"r{number}", age=days(number))
    assert deleted_by(prune=age, store=store) == (2, pytest.approx(0.02))
    assert prune(age, store=store) == 2
    assert left(store) == ["r0", "r80"]
    assert prune(age, store=store) == 0


def test_a_family_goes_when_its_newest_member_is_old_enough(store):
    save(store, "young", age=days(100))
    save(store, "young child", age=days(99), parent="young")
    save(store, "young grandchild", age=days(1), parent="young child")
    save(store, "old", age=days(100))
    save(store, "old child", age=days(99), parent="old")
    save(store, "orphan", age=days(99), parent="nobody")
    assert prune("90d", store=store) == 3
    assert left(store) == ["young", "young child", "young grandchild"]


def test_answers_for_replay_of_runs_recorded_elsewhere_age_too(store):
    save(store, "r1")
    store.keep_answer(b"key", Answer("session", "cell", 1, 1, "elsewhere"), '{"content": "secret"}')
    prune("1d", store=store)
    assert len(store.answers(b"key")) == 1
    assert prune(NOW + days(1), store=store) == 2
    assert store.answers(b"key") == []


@pytest.mark.parametrize("age", [None, "", "soon", "90", 90, 1.5], ids=repr)
def test_what_is_no_age_is_refused_and_nothing_deleted(age, store):
    save(store, "r1", age=days(1000))
    with pytest.raises(ErrorConfig, match="older_than must be a time such as"):
        prune(age, store=store)
    assert left(store) == ["r1"]


def test_where_nothing_is_recorded_nothing_is_pruned_and_no_file_made(tmp_path):
    assert prune("1d", store=tmp_path / "runs.db") == 0
    assert deleted_by(prune="1d", store=tmp_path / "runs.db") == (0, None)
    assert not (tmp_path / "runs.db").exists()


def test_the_file_shrinks(store):
    for number in range(600):
        save(store, f"r{number}", f"{number} " + "".join(chr(97 + number * k * k % 26) for k in range(2000)), age=days(100))
    store.close()
    before = store.path.stat().st_size
    prune("90d", store=store)
    assert store.path.stat().st_size < before / 4


def test_unknown_costs_are_not_zero(store):
    save(store, "r1", cost_usd=None, age=days(2))
    assert deleted_by(prune="1d", store=store) == (1, None)
    assert deleted_by(forget="r1", store=store) == (1, None)


def test_a_record_names_its_run_wherever_it_comes_from(store):
    save(store, "r1")
    assert forget(Record(RunRecord(run_id="r1", started_at=NOW, agent_name="a", request_model="m")), store=store) == 1
