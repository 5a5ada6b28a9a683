"""Events as data: plain values that can be sent and stored, while the events themselves stay live."""

import asyncio
import json
import pickle
import re
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path

import pytest

import agentroute.events
from agentroute import Agent, Result
from agentroute.errors import ErrorModelServer
from agentroute.events import AgentEnd, AgentStart, Event
from agentroute.message import LLMResponse, ToolCall
from agentroute.records import Record
from agentroute.testing import ModelScripted


@dataclass
class Trip:
    day: date
    km: float


def look(where: str) -> str:
    """Looks."""
    return f"{where}: nothing"


def events_of(*answers, prompt="go", **options):
    """The events of a run, which may fail."""

    async def run():
        return [event async for event in Agent("a", model=ModelScripted(list(answers)), **options).events(prompt)]

    return asyncio.run(run())


STORIES = {
    "tool": lambda: events_of(ToolCall("1", "look", {"where": "here"}), LLMResponse("done", reasoning="Hm."), tools=[look]),
    "typed": lambda: events_of('{"day": "2026-01-02", "km": 1.5}', output=Trip, output_mode="prompted"),
    "failed": lambda: events_of(ErrorModelServer("overloaded", status=503)),
    "no prompt": lambda: events_of("hi", prompt={1: 2}),
    "no part": lambda: events_of("hi", prompt=["a", 5]),
    "no JSON": lambda: [AgentEnd(Result(object()))],
    "no number": lambda: [AgentEnd(Result([float("nan"), {1: b"\xff"}]))],
}


def data_of(story, kind):
    """The data of the last event of a kind."""
    return [event.data for event in story if event.kind == kind][-1]


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_the_data_of_every_event_is_plain_json_and_travels(story):
    told = [event.data for event in story()]
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert pickle.loads(pickle.dumps(told)) == told


@pytest.mark.parametrize("page", [agentroute.events.__doc__, (Path(__file__).parent.parent / "docs" / "guide.md").read_text()], ids=["module", "guide"])
def test_the_table_says_what_each_kinds_data_holds(page):
    seen = {event.kind: list(event.data) for event in STORIES["tool"]()}
    rows = re.findall(r"^\| (`(?:agent|turn|text|tool)_.*) \| (.*) \|$", page, re.MULTILINE)
    table = {kind: re.findall(r"`(\w+)`", names) for kinds, names in rows for kind in re.findall(r"`(\w+)`", kinds)}
    assert set(table) == set(seen) | {"reasoning_delta"}
    assert {kind: table[kind] for kind in seen} == seen


def test_rows_have_their_columns_and_times_in_iso():
    story = STORIES["tool"]()
    start, turn, call = (data_of(story, kind) for kind in ("agent_start", "turn_end", "tool_call_end"))
    assert datetime.fromisoformat(start["run"]["started_at"]).utcoffset().total_seconds() == 0
    assert (start["run"]["agent_name"], start["messages"]) == ("a", [{"role": "user", "content": "go"}])
    assert (turn["record"]["turn_index"], turn["text"], turn["run"]["n_turns"]) == (2, "done", 2)
    assert (call["record"]["tool_name"], call["record"]["status"], call["message"]["content"]) == ("look", "ok", "here: nothing")


def test_the_end_holds_the_result_with_its_output_as_json():
    story = STORIES["typed"]()
    result, end = story[-1].result, story[-1].data
    assert result.output == Trip(date(2026, 1, 2), 1.5)
    assert end["error"] is None
    assert end["result"]["output"] == {"day": "2026-01-02", "km": 1.5}
    assert end["result"]["messages"] == result.messages
    assert {name: len(rows) for name, rows in asdict(result.record).items()} == {name: len(rows) for name, rows in end["result"]["record"].items()}
    assert end["result"]["record"]["run"]["status"] == "ok"
    assert end["result"]["usage"]["model_calls"] == 1
    assert end["result"]["usage"]["cost_usd"] == result.usage.cost_usd
    assert not [name for name in end["result"]["usage"] if name.startswith("_")]


def test_a_failed_end_names_its_error():
    end = STORIES["failed"]()[-1].data
    assert end["error"] == {"type": "ErrorModelServer", "message": "overloaded"}
    assert (end["result"]["output"], end["result"]["record"]["run"]["status"]) == (None, "error")


def test_an_output_there_is_no_json_of_is_named():
    assert STORIES["no JSON"]()[-1].data["result"]["output"] == "(object)"
    assert STORIES["no number"]()[-1].data["result"]["output"] == [None, {"1": "[1 bytes of binary data]"}]


def test_data_does_not_change_when_the_run_goes_on():
    async def run():
        events = Agent("a", model=ModelScripted(["hi"])).events("go")
        start = await anext(events)
        before = start.data
        return before, len([event async for event in events]), start.data

    before, more, after = asyncio.run(run())
    assert (before["run"]["n_turns"], after["run"]["n_turns"]) == (0, 1)
    assert more > 2


def test_the_events_themselves_stay_live():
    start, *_, end = STORIES["tool"]()
    assert isinstance(start, AgentStart) and isinstance(end, AgentEnd)
    assert isinstance(start.record, Record) and start.record is end.result.record
    assert start.partial().messages == end.result.messages


def test_a_bare_event_has_the_data_it_was_given():
    assert Event("text_delta", {"delta": "x"}).data == {"delta": "x"}
