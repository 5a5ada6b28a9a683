"""`agentroute logs`: recorded runs as lines, as JSON, one in full, and as they happen."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

import agentroute
from agentroute import Agent, RunStore, ToolCall
from agentroute.cli.logs import _when_changed, changes
from agentroute.records import RunRecord
from agentroute.testing import ModelScripted
from tests.cli.conftest import COMMAND, environment, run
from tests.server import ModelServer

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_run(number, **changed):
    values = {
        "run_id": f"01KB{number:022d}",
        "started_at": START + timedelta(minutes=number),
        "agent_name": "support",
        "request_model": "vendor/model",
        "status": "ok",
        "duration_s": 1.5,
        "n_turns": 1,
        "cost_usd": 0.002,
        "prompt_text": f"question {number}",
    }
    return RunRecord(**{**values, **changed})


@pytest.fixture
def store():
    store = RunStore()
    yield store
    store.close()


def filled(store, *runs):
    for record in runs:
        store.save(record)
    return store


def test_the_newest_runs_come_last(store):
    filled(store, *(a_run(number) for number in range(30)))
    lines = run("logs").stdout.splitlines()
    assert len(lines) == 20
    assert lines[-1].endswith("question 29")
    assert [line.rsplit(" ", 1)[1] for line in run("logs", "-n", "2").stdout.splitlines()] == ["28", "29"]


def test_a_text_is_looked_for_in_prompts_and_answers(store):
    filled(store, a_run(1, prompt_text="a Zebra"), a_run(2), a_run(3, output_text="zebras"))
    assert [json.loads(line)["run_id"][-1] for line in run("logs", "--text", "zebra", "--json").stdout.splitlines()] == ["1", "3"]
    assert "text must be what a prompt or an answer holds" in run("logs", "--text", "").stderr


def test_a_line_tells_when_which_how_who_and_what_it_cost(store):
    filled(store, a_run(1))
    (line,) = run("logs").stdout.splitlines()
    assert line.split("  ")[1:] == ["01KB000000000", "ok", "support", "vendor/model", "1 turn", "$0.0020", "1.5 s", "question 1"]


def test_an_unknown_cost_is_not_zero_and_a_failure_shows_its_words(store):
    filled(store, a_run(1, cost_usd=None, status="error", unknown_cost_calls=1, error_text="the key was refused"))
    shown = run("logs").stdout
    assert "cost unknown" in shown
    assert shown.endswith("the key was refused\n")


def test_json_is_one_object_a_line_with_every_column(store):
    filled(store, a_run(1), a_run(2))
    first, second = map(json.loads, run("logs", "--json").stdout.splitlines())
    assert list(first) == list(RunRecord.__dataclass_fields__)
    assert (second["run_id"], second["started_at"]) == (a_run(2).run_id, "2026-03-01T12:02:00+00:00")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--agent", "other"], [2]),
        (["--status", "error"], [3]),
        (["--status", "running"], [4]),
        (["--status", "interrupted"], [5]),
        (["--status", "ok"], [1, 2]),
        (["--agent", "support", "--status", "ok"], [1]),
    ],
)
def test_runs_can_be_chosen(arguments, found, store):
    filled(
        store,
        a_run(1),
        a_run(2, agent_name="other"),
        a_run(3, status="error"),
        a_run(4, status="interrupted", duration_s=None),
        a_run(5, status="interrupted"),
    )
    lines = run("logs", "--json", *arguments).stdout.splitlines()
    assert [json.loads(line)["prompt_text"] for line in lines] == [f"question {number}" for number in found]


def test_no_history_yet_is_said_plainly_and_none_is_made():
    result = run("logs")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("No run is recorded yet: ")
    assert not (Path.home() / ".agentroute").exists()


def test_no_run_of_that_kind_is_said(store):
    filled(store, a_run(1))
    result = run("logs", "--status", "error")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"No such run in {store.path}.\n")


def test_another_file_can_be_named(tmp_path):
    other = RunStore(tmp_path / "other.db")
    filled(other, a_run(7)).close()
    assert "question 7" in run("logs", "--store", tmp_path / "other.db").stdout
    missing = run("logs", "--store", tmp_path / "none.db")
    assert (missing.exit_code, missing.stderr) == (1, f"Error: there is no file {tmp_path / 'none.db'}\n")


def test_a_file_that_is_no_history_is_one_line(tmp_path):
    (tmp_path / "text.db").write_text("no database " * 100)
    result = run("logs", "--store", tmp_path / "text.db")
    assert result.exit_code == 1
    assert "it is no SQLite file" in result.stderr


def test_hostile_text_is_not_passed_on(store):
    evil = "\x1b]0;owned\x07\x1b[2J\u202ehello\nthere"
    filled(store, a_run(1, prompt_text=evil, agent_name=evil, request_model=evil, output_text=evil))
    for arguments in (["logs"], ["logs", a_run(1).run_id], ["logs", "--json"]):
        shown = run(*arguments).stdout
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    assert "hello there" in run("logs").stdout
    assert json.loads(run("logs", "--json").stdout)["prompt_text"] == evil


# ---- one run ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(store):
    """A recorded run with a tool, a failing call and an answer; its id."""

    def order_status(order_id: int) -> str:
        return f"order {order_id} is on its way"

    model = ModelScripted([[ToolCall("a", "order_status", {"order_id": 4821}), ToolCall("b", "refund", {})], "It is on its way."])
    return Agent("support", model=model, tools=[order_status], store=store).run("Where is order 4821?").run_id


def test_a_run_is_shown_with_prompt_turns_calls_and_answer(told):
    shown = run("logs", told).stdout
    assert shown.startswith(f"run      {told}\nagent    support\n")
    parts = ["Prompt\n  Where is order 4821?", "Turn 1  tool_calls", 'order_status({"order_id": 4821})  ok', "    order 4821 is on its way", "refund({})  UnknownTool", "Turn 2  stop", "Answer\n  It is on its way."]
    places = [shown.find(part) for part in parts]
    assert all(0 <= first < second for first, second in pairwise(places))


def test_the_beginning_of_an_id_is_enough_in_either_case(told):
    assert run("logs", told[:12].lower()).stdout == run("logs", told).stdout


def test_json_of_one_run_holds_all_of_it(told):
    record = json.loads(run("logs", told, "--json").stdout)
    assert list(record) == ["run", "turns", "tool_calls", "messages"]
    assert [call["tool_name"] for call in record["tool_calls"]] == ["order_status", "refund"]
    assert [message["role"] for message in record["messages"]] == ["user", "assistant", "tool", "tool", "assistant"]


def test_an_id_of_no_run_or_of_several_is_told(store):
    filled(store, a_run(1), a_run(2))
    none, several = run("logs", "01ZZ"), run("logs", "01KB")
    assert (none.exit_code, several.exit_code) == (1, 1)
    assert "has an id that begins with 01ZZ" in none.stderr
    assert "2 runs have an id that begins with 01KB" in several.stderr
    assert a_run(2).run_id in several.stderr


def test_a_failed_run_shows_its_error(store):
    filled(store, a_run(1, status="error", error_type="ErrorModelKey", error_text="refused"))
    assert run("logs", a_run(1).run_id).stdout.endswith("Error\n  ErrorModelKey: refused\n")


def test_a_long_tool_result_is_cut_and_the_rest_counted(store):
    model = ModelScripted([[ToolCall("a", "read", {})], "Done."])
    made = Agent("reader", model=model, tools=[read], store=store).run("Read")
    assert "x … (3,000 more characters)" in run("logs", made.run_id).stdout


def read() -> str:
    return "x" * 5000


# ---- following --------------------------------------------------------------------------------------------------------


def test_a_run_is_told_when_it_begins_gets_on_and_ends():
    begun = a_run(2, status="interrupted", duration_s=None, n_turns=0)
    turned = a_run(2, status="interrupted", duration_s=None)
    ended = a_run(2)
    readings = [[a_run(1)], [a_run(1), begun], [a_run(1), begun], [a_run(1), turned], [a_run(1), ended], [a_run(1), ended]]
    assert list(changes([a_run(1)], readings)) == [begun, turned, ended]


ALL = {"status": None}


def followed(store, given=ALL):
    """What is read each time the file has changed: runs that go on, by number."""
    readings = _when_changed(store, given, store.watermark())
    return lambda: [int(run.run_id[4:]) for run in next(readings)]


def going(number, **changed):
    return a_run(number, status="interrupted", duration_s=None, **changed)


def test_following_reads_only_what_was_written_since(store, monkeypatch):
    monkeypatch.setattr("agentroute.cli.logs.POLL_S", 0)
    filled(store, *(going(number) for number in range(1, 30)))
    read = followed(store)
    filled(store, going(30))
    assert read() == [30]
    filled(store, going(2, n_turns=2), going(31))
    assert read() == [2, 31]


def test_following_keeps_to_the_runs_that_are_meant(store, monkeypatch):
    monkeypatch.setattr("agentroute.cli.logs.POLL_S", 0)
    filled(store, going(1))
    read = followed(store, {"status": "running", "agent": ("support",)})
    filled(store, going(2), going(3, agent_name="other"), a_run(4, status="interrupted", started_at=datetime.now(UTC)))
    assert read() == [2]


def test_a_run_that_had_ended_and_is_judged_or_priced_is_no_news(store, monkeypatch):
    monkeypatch.setattr("agentroute.cli.logs.POLL_S", 0)
    filled(store, a_run(1), going(2))
    read = followed(store)
    for number in (1, 2):
        agentroute.score(a_run(number).run_id, "helpful", 1, store=store)
    assert read() == [2]


def test_follow_goes_on_when_another_file_takes_its_place(store, monkeypatch):
    monkeypatch.setattr("agentroute.cli.logs.POLL_S", 0)
    filled(store, *(going(number) for number in range(1, 10)))
    read = followed(store)
    assert read() == []
    store.close()
    for file in store.path.parent.iterdir():
        file.unlink()
    filled(store, going(20))
    assert read() == [20]


def test_follow_shows_runs_of_other_processes():
    command = [*COMMAND, "logs", "--follow", "--json", "--status", "ok"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process, ModelServer(["Hi"]) as server:
        subprocess.run([*COMMAND, "run", server.model, "while you look"], env=environment(), check=True, capture_output=True)
        assert json.loads(process.stdout.readline())["prompt_text"] == "while you look"
        process.send_signal(2)
        _, said = process.communicate(timeout=100)
    assert (process.returncode, said) == (130, "Interrupted.\n")


def test_logs_need_no_pandas(store):
    filled(store, a_run(1))
    program = "import sys\ntry:\n from agentroute.cli import main; main(['logs'])\nfinally: print([m for m in ('pandas', 'numpy', 'pydantic', 'httpx') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True).stdout
    assert shown.splitlines()[-1] == "[]"


def test_head_ends_it_quietly(store):
    filled(store, *(a_run(number, prompt_text="x" * 500) for number in range(300)))
    done = subprocess.run(f"{' '.join(COMMAND)} logs -n 300 --json | head -1", shell=True, env=environment(), capture_output=True, text=True)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


def test_a_run_whose_every_request_was_refused_cost_nothing():
    from agentroute.cli.run_view import run_cost

    record = RunRecord(run_id="a", started_at=datetime.now(UTC), agent_name="a", request_model="m", n_turns=1)
    assert run_cost(replace(record, status="error")) == "$0"
    assert run_cost(replace(record, status="error", unknown_cost_calls=1)) == "cost unknown"
    assert run_cost(replace(record, status="interrupted")) == "cost unknown"  # killed in the middle of a request
