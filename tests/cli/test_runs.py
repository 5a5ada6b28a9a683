"""`agentroute runs`: exported, judged, deleted, checked; and what runs cost, by `agentroute logs --cost`."""

import csv
import io
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pexpect
import pytest

from agentroute import RunStore
from agentroute.records import MessageRecord, RunRecord, ScoreRecord, TurnRecord
from agentroute.tables import TABLES
from tests.cli.conftest import COMMAND, environment, run
from tests.terminals import press_ctrl_c

NOW = datetime.now(UTC).replace(microsecond=0)
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202ehello"


def an_id(number):
    return f"01KB{number:022d}"


@pytest.fixture
def store():
    with closing(RunStore()) as store:
        yield store


def save(store, number, *, age_days=0, parent=None, cost=0.01, model="vendor/model", base_url=None, **changes):
    started = NOW - timedelta(days=age_days)
    made = RunRecord(
        run_id=an_id(number), started_at=started, agent_name="support", request_model=model, status="ok", duration_s=1.5, n_turns=1,
        cost_usd=cost, input_tokens=1200, output_tokens=5, prompt_text=f"question {number}", parent_run_id=parent and an_id(parent),
    )  # fmt: skip
    for name, value in changes.items():
        setattr(made, name, value)
    turn = TurnRecord(run_id=made.run_id, turn_index=1, started_at=started, request_model=model, input_tokens=1200, output_tokens=5, cost_usd=cost, base_url=base_url)
    store.save(made, turns=[turn], messages=[MessageRecord(run_id=made.run_id, message_index=0, role="user", content_text=made.prompt_text)])
    return made.run_id


def left(store):
    return sorted(int(run_id[4:]) for (run_id,) in store.select(RunRecord, columns=["run_id"]))


@pytest.fixture
def filled(store):
    for number, age_days in {1: 200, 2: 100, 3: 10, 4: 0}.items():
        save(store, number, age_days=age_days)
    return store


# ---- export -----------------------------------------------------------------------------------------------------------


def jsonl(text):
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_hold_every_column_of_every_run(filled, tmp_path):
    result = run("runs", "export", tmp_path / "runs.jsonl")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"4 rows of runs in {tmp_path / 'runs.jsonl'}.\n")
    rows = jsonl((tmp_path / "runs.jsonl").read_text())
    assert [list(row) for row in rows] == [TABLES[RunRecord].names] * 4
    assert (rows[3]["started_at"], rows[3]["cost_usd"], rows[3]["error_type"]) == (NOW.isoformat(), 0.01, None)


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_each_table_can_be_had_as_csv(table, filled, tmp_path):
    save(filled, 5, prompt_text='a "quoted", cell\nof two lines')
    filled.save_score(ScoreRecord(run_id=an_id(1), name="helpful", value=1.0, scored_at=NOW))
    assert run("runs", "export", tmp_path / "rows.csv", "--table", table.name).exit_code == 0
    with open(tmp_path / "rows.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(1 for _ in filled.select(table.kind))
    assert list(rows[0] if rows else table.names) == table.names
    texts = {row.get("prompt_text", 'a "quoted", cell\nof two lines') for row in rows[-1:]}
    assert texts <= {'a "quoted", cell\nof two lines'}


def test_stdout_takes_json_lines_or_csv(filled):
    assert [row["prompt_text"] for row in jsonl(run("runs", "export", "-").stdout)] == [f"question {number}" for number in (1, 2, 3, 4)]
    (first, *_) = csv.DictReader(io.StringIO(run("runs", "export", "-", "--format", "csv", "--table", "turns").stdout))
    assert (first["run_id"], first["cost_usd"]) == (an_id(1), "0.01")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--since", "30d"], [3, 4, 5, 6]),
        (["--until", "30d"], [1, 2]),
        (["--agent", "other", "--agent", "third"], [5, 6]),
        (["--model", "vendor/big"], [5]),
        (["--status", "error"], [6]),
        (["--tag", "tenant=a"], [5]),
        (["--tag", "tenant"], [5, 6]),
        (["--tag", "tenant", "--tag", "tenant=b"], [6]),
        (["--notebook", "week.ipynb"], [6]),
        (["--limit", "2"], [5, 6]),
        (["--since", "300d", "--until", "20d", "--limit", "1"], [2]),
    ],
    ids=str,
)
@pytest.mark.parametrize("command", [["runs", "export", "-"], ["logs", "--json", "-n", "100"]], ids=["export", "logs"])
def test_the_same_options_choose_among_the_runs(command, options, found, filled):
    save(filled, 5, age_days=-1, agent_name="other", model="vendor/big", tags='{"tenant": "a"}')
    save(filled, 6, age_days=-2, agent_name="third", status="error", tags='{"tenant": "b"}', notebook="week.ipynb")
    options = ["-n" if option == "--limit" and command[0] == "logs" else option for option in options]
    assert [int(row["run_id"][4:]) for row in jsonl(run(*command, *options).stdout)] == found


def test_a_file_is_replaced_whole_and_only_its_owner_may_read_it(filled, tmp_path):
    (tmp_path / "runs.csv").write_text("what was there before")
    run("runs", "export", tmp_path / "runs.csv", "--limit", "1")
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 2
    assert stat.S_IMODE((tmp_path / "runs.csv").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["runs.csv"]


def test_an_export_that_fails_leaves_what_was_there(filled, tmp_path):
    (tmp_path / "runs.csv").write_text("what was there before")
    with closing(sqlite3.connect(filled.path)) as other:
        other.execute("ALTER TABLE runs RENAME COLUMN tags TO labels")
    filled.close()
    assert run("runs", "export", tmp_path / "runs.csv").exit_code == 1
    assert (tmp_path / "runs.csv").read_text() == "what was there before"
    assert os.listdir(tmp_path) == ["runs.csv"]


def test_the_history_itself_is_not_written_over(filled):
    result = run("runs", "export", filled.path, "--format", "csv")
    assert (result.exit_code, left(filled)) == (2, [1, 2, 3, 4])
    assert "is the history itself" in result.stderr


def test_a_directory_gets_parquet_files(filled, tmp_path):
    import pyarrow.parquet as parquet

    result = run("runs", "export", tmp_path / "history", "--since", "30d")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith(f"5 Parquet files in {tmp_path / 'history'}: ")
    assert parquet.read_table(tmp_path / "history" / "runs.parquet")["run_id"].to_pylist() == [an_id(3), an_id(4)]
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "history").iterdir()} == {0o600}


def test_a_copy_of_the_history_is_one(filled, tmp_path):
    result = run("runs", "export", tmp_path / "copy.db")
    assert (result.exit_code, result.stderr) == (0, f"The history is copied to {tmp_path / 'copy.db'}.\n")
    with closing(RunStore(tmp_path / "copy.db")) as copy:
        assert left(copy) == [1, 2, 3, 4]
    assert run("runs", "export", tmp_path / "copy.db").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs.xlsx"], "does not say in which format to write"),
        (["runs.parquet"], "Parquet takes a directory"),
        (["-", "--format", "parquet"], "stdout takes csv or jsonl"),
        (["copy.db", "--since", "7d"], "a copy of the history holds all runs"),
        (["history", "--table", "turns"], "--table is for CSV and JSONL"),
        (["runs.csv", "--since", "soon"], "since must be a time such as '7d'"),
        (["runs.csv", "--tag", "=a"], "tag must be 'tenant=a'"),
        (["runs.csv", "--limit", "0"], "0 is not in the range"),
        ([], "Missing argument 'DESTINATION'"),
    ],
    ids=str,
)
def test_wrong_exports_are_told_before_anything_is_written(arguments, words, filled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("runs", "export", *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert os.listdir(tmp_path) == []


def test_where_nothing_is_recorded_nothing_is_written(tmp_path):
    result = run("runs", "export", tmp_path / "runs.csv")
    assert (result.exit_code, os.listdir(tmp_path)) == (1, [])
    assert result.stderr.startswith("Error: No run is recorded yet: ")


def test_a_directory_that_is_not_there_is_told(filled, tmp_path):
    result = run("runs", "export", tmp_path / "none" / "runs.csv")
    assert (result.exit_code, result.stderr) == (1, f"Error: {tmp_path / 'none' / 'runs.csv'} cannot be used: No such file or directory\n")


def test_hostile_text_reaches_a_terminal_in_no_format_and_a_file_as_it_is(store, tmp_path):
    save(store, 1, prompt_text=HOSTILE)
    for kind in ("csv", "jsonl"):
        shown = pexpect.run(f"{' '.join(COMMAND)} runs export - --format {kind}", env=environment(), encoding="utf-8", timeout=100)
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
        assert "hello" in shown
    run("runs", "export", tmp_path / "runs.jsonl")
    assert jsonl((tmp_path / "runs.jsonl").read_text())[0]["prompt_text"] == HOSTILE


def test_head_ends_an_export_quietly(store):
    for number in range(300):
        save(store, number, prompt_text="x" * 500)
    done = subprocess.run(f"{' '.join(COMMAND)} runs export - | head -1", shell=True, env=environment(), capture_output=True, text=True)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


def test_an_export_needs_no_pandas(filled):
    program = (
        "import sys\ntry:\n from agentroute.cli import main; main(['runs', 'export', '-'])\n"
        "finally: print([m for m in ('pandas', 'numpy', 'pyarrow', 'pydantic', 'httpx') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True).stdout
    assert shown.splitlines()[-1] == "[]"


# ---- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "value", "label"),
    [("1", 1.0, None), ("-0.5", -0.5, None), ("true", 1.0, None), ("False", 0.0, None), ("friendly", None, "friendly")],
)
def test_a_score_is_a_number_or_a_word(given, value, label, filled):
    result = run("runs", "score", an_id(4).lower(), "tone", given, "--note", "kind words", "--scorer", "zoe")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{an_id(4)}: tone is {given}.\n")
    ((run_id, name, scorer, number, word, note, _),) = filled.select(ScoreRecord)
    assert (run_id, name, scorer, number, word, note) == (an_id(4), "tone", "zoe", value, label, "kind words")


@pytest.mark.parametrize("given", ["nan", "inf", "-inf", ""])
def test_what_is_no_score_is_wrong_usage(given, filled):
    result = run("runs", "score", an_id(4), "tone", given)
    assert result.exit_code == 2
    assert "word; got" in result.stderr
    assert list(filled.select(ScoreRecord)) == []


def test_ids_of_no_run_or_of_several_are_told(filled):
    for command in (["score", "01ZZ", "tone", "1"], ["forget", "01ZZ", "--yes"]):
        result = run("runs", *command)
        assert (result.exit_code, left(filled)) == (1, [1, 2, 3, 4])
        assert "has an id that begins with 01ZZ" in result.stderr
    assert "4 runs have an id that begins with 01KB; give more of it" in run("runs", "forget", "01KB", "--yes").stderr


# ---- deleting ---------------------------------------------------------------------------------------------------------


def test_forget_deletes_the_runs_that_are_named_and_those_nested_in_them(filled):
    save(filled, 11, parent=3)
    result = run("runs", "forget", an_id(3).lower(), an_id(1), "--yes")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "3 runs deleted.\n")
    assert left(filled) == [2, 4]


def test_prune_deletes_what_is_older(filled):
    result = run("runs", "prune", "--older-than", "90d", "--yes")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "2 runs deleted.\n")
    assert left(filled) == [3, 4]
    again = run("runs", "prune", "--older-than", "90d", "--yes")
    assert (again.exit_code, again.stderr) == (0, f"No run is older in {filled.path}.\n")


def test_a_dry_run_says_how_many_runs_and_what_they_cost(filled):
    result = run("runs", "prune", "--older-than", "90d", "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "2 runs ($0.0200) would be deleted.\n")
    assert left(filled) == [1, 2, 3, 4]


@pytest.mark.parametrize("command", [["prune", "--older-than", "90d"], ["forget", an_id(1), an_id(2)]], ids=["prune", "forget"])
def test_where_nobody_can_be_asked_nothing_is_deleted(command, filled):
    result = run("runs", *command)
    assert (result.exit_code, left(filled)) == (2, [1, 2, 3, 4])
    assert "Delete 2 runs ($0.0200)" in result.stderr
    assert "give --yes" in result.stderr


@pytest.mark.parametrize(("answer", "code", "remaining"), [("y", 0, [2, 4]), ("n", 1, [1, 2, 3, 4, 11]), ("", 1, [1, 2, 3, 4, 11])], ids=["yes", "no", "return"])
def test_somebody_at_a_terminal_is_asked(answer, code, remaining, filled):
    save(filled, 11, parent=3)
    with pexpect.spawn(COMMAND[0], [*COMMAND[1:], "runs", "forget", an_id(3), an_id(1)], env=environment(), encoding="utf-8", timeout=100) as child:
        child.expect_exact("Delete 3 runs ($0.0300), 1 of them nested in others, for good? [y/N]: ")
        child.sendline(answer)
        child.expect(pexpect.EOF)
    assert (child.exitstatus, left(filled)) == (code, remaining)


def test_ctrl_c_at_the_question_deletes_nothing(filled):
    with pexpect.spawn(COMMAND[0], [*COMMAND[1:], "runs", "prune", "--older-than", "1d"], env=environment(), encoding="utf-8", timeout=100) as child:
        child.expect_exact("for good? [y/N]: ")
        press_ctrl_c(child, pexpect.EOF)
    assert (child.exitstatus, left(filled)) == (130, [1, 2, 3, 4])


@pytest.mark.parametrize("age", ["soon", "90", ""])
def test_what_is_no_age_is_wrong_usage(age, filled):
    result = run("runs", "prune", "--older-than", age, "--yes")
    assert (result.exit_code, left(filled)) == (2, [1, 2, 3, 4])
    assert "--older-than must be a time such as" in result.stderr


@pytest.mark.parametrize(
    "command", [["export", "-"], ["score", "01", "a", "1"], ["forget", "01", "-y"], ["prune", "--older-than", "1d"], ["reprice"], ["check"]], ids=lambda it: it[0]
)
def test_a_history_that_was_named_must_be_there(command, tmp_path):
    result = run("runs", *command, "--store", tmp_path / "none.db")
    assert (result.exit_code, result.stderr) == (1, f"Error: there is no file {tmp_path / 'none.db'}\n")
    assert os.listdir(tmp_path) == []


# ---- the file ---------------------------------------------------------------------------------------------------------


def test_a_sound_file_is_said_to_be(filled):
    result = run("runs", "check")
    assert (result.exit_code, result.stdout) == (0, f"{filled.path} is sound.\n")


def test_damage_is_found(filled):
    for number in range(20, 400):
        save(filled, number, prompt_text="x" * 200)
    filled.close()
    with open(filled.path, "r+b") as file:
        for page in range(8, 30):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    result = run("runs", "check")
    assert result.exit_code == 1
    assert re.search("damaged|malformed", result.stderr)


def test_unknown_costs_are_priced_from_the_table(store):
    for number in (1, 2):
        save(store, number, cost=None, model="gpt-4o-mini", base_url="https://api.openai.com/v1", unknown_cost_calls=1, age_days=number * 2)
    result = run("runs", "reprice", "--since", "3d")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("1 model call priced, $0.000")
    costs = [cost for (cost,) in store.select(RunRecord, columns=["cost_usd"])]
    assert (costs[0], costs[1] > 0) == (None, True)
    assert run("runs", "reprice", "--since", "3d").stderr == "No cost was filled in.\n"


# ---- what runs cost ---------------------------------------------------------------------------------------------------


def lines(*arguments):
    return [re.split(r"  +", line.strip()) for line in run("logs", "--cost", *arguments).stdout.splitlines()]


def test_the_cost_table_has_a_line_a_day_and_model_and_a_total(filled):
    save(filled, 5, model="vendor/big", cost=1.5)
    head, *rows, total = lines()
    assert head[:6] == ["day", "model", "runs", "turns", "in", "out"]
    assert [row[1] for row in rows] == ["vendor/model", "vendor/model", "vendor/model", "vendor/big", "vendor/model"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", row[0]) for row in rows)
    assert rows[3][2:7] == ["1", "1", "1,200", "5", "$1.50"]
    assert total[:6] == ["total", "5", "5", "6,000", "25", "$1.54"]


def test_the_groups_and_the_runs_can_be_chosen(filled):
    save(filled, 5, model="vendor/big", cost=None, unknown_cost_calls=1, tags='{"tenant": "a"}')
    head, row = lines("--by", "model", "--since", "30d", "--model", "vendor/model")
    assert (head[0], row[:2]) == ("model", ["vendor/model", "2"])
    tags = lines("--by", "tag:tenant")
    assert [row[0] for row in tags] == ["tag_tenant", "a", "-", "total"]
    assert tags[1][5] == "unknown"
    assert lines("--by", "model", "-n", "1")[1][0] == "vendor/big"


def test_the_cost_as_json_is_an_object_a_group(filled):
    rows = jsonl(run("logs", "--cost", "--by", "agent", "--json").stdout)
    assert [(row["agent"], row["runs"], row["cost_usd"]) for row in rows] == [("support", 4, pytest.approx(0.04))]


def test_what_cost_nobody_is_said():
    result = run("logs", "--cost")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("No run is recorded yet")


@pytest.mark.parametrize(
    "arguments", [["--by", "model"], ["--cost", "--follow"], ["--cost", an_id(1)], ["--cost", "--status", "running"], [an_id(1), "--since", "7d"], ["--since", "soon"]], ids=str
)
def test_options_that_do_not_go_together_are_wrong_usage(arguments, filled):
    assert run("logs", *arguments).exit_code == 2


def test_a_group_there_is_none_of_is_told(filled):
    result = run("logs", "--cost", "--by", "moon")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--by must be" in result.stderr
    assert "moon" in result.stderr


@pytest.mark.parametrize("start", ["", "01"])
def test_a_run_is_not_named_by_next_to_nothing(filled, start):
    """A script whose $RUN_ID is empty."""
    for command in (["forget", start, "--yes"], ["score", start, "helpful", "1"]):
        result = run("runs", *command)
        assert result.exit_code == 2
        assert "the first 4 characters" in result.stderr


def test_an_empty_destination_is_refused(filled):
    result = run("runs", "export", "")
    assert result.exit_code == 2
    assert "DESTINATION is empty" in result.stderr
