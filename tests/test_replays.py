"""Replay: what is served, what is asked, what it costs. A new session is what a restarted kernel or script is."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace as replaced
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import BaseModel

import agentroute
from agentroute import (
    Agent,
    ErrorConfig,
    ErrorModelServer,
    ErrorRefused,
    ErrorReplay,
    Memory,
    ModelFallback,
    RunStore,
    ToolCall,
    replay,
    replay_layer,
    runs,
    set_replay,
    turns,
)
from agentroute.output import OUTPUT_TOOL
from agentroute.replays import Place, active_replay, set_place
from agentroute.testing import ModelScripted
from tests.server import ModelServer, Raw


@pytest.fixture(autouse=True)
def left_as_found(monkeypatch):
    monkeypatch.setattr("agentroute.replay_layer._sessions", {})
    yield
    set_replay(None)
    set_place(None)


@pytest.fixture
def new_session(monkeypatch):
    """What begins when a kernel or a script is started again."""
    return lambda: monkeypatch.setattr("agentroute.replay_layer._sessions", {})


@pytest.fixture
def store(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


@pytest.fixture
def server():
    numbers = itertools.count(1)
    with ModelServer([lambda body: f"answer {next(numbers)}"], repeat=True) as server:
        yield server


def agent_of(server, store, **settings):
    return Agent("poet", model=server.model, store=store, **settings)


@contextmanager
def cell(name, execution):
    set_place(lambda: Place(name, execution))
    yield


# ---- the rule


def test_a_later_session_is_served_what_an_earlier_one_was_answered(server, store, new_session):
    agent = agent_of(server, store)
    with replay("on"):
        first = agent.run("Hi").output
        new_session()
        second = agent.run("Hi").output
    assert (first, second) == ("answer 1", "answer 1")
    assert len(server.requests) == 1


def test_without_replay_everything_is_asked_and_nothing_kept(server, store, new_session):
    agent = agent_of(server, store)
    agent.run("Hi")
    new_session()
    with replay("on"):
        assert agent.run("Hi").output == "answer 2"


def test_in_one_session_the_same_thing_is_asked_again(server, store):
    agent = agent_of(server, store)
    with replay("on"):
        assert [agent.run("Hi").output for _ in range(3)] == ["answer 1", "answer 2", "answer 3"]


def test_the_nth_time_something_is_asked_is_served_the_nth_answer(server, store, new_session):
    agent = agent_of(server, store)
    with replay("on"):
        paid = [agent.run("Hi").output for _ in range(3)]
        new_session()
        assert [agent.run("Hi").output for _ in range(3)] == paid
        assert agent.run("Hi").output == "answer 4"


def test_a_cell_that_is_run_again_asks_again(server, store, new_session):
    agent = agent_of(server, store)
    with replay("on"):
        with cell("a", 1):
            agent.run("Hi")
        new_session()
        with cell("a", 1):
            assert agent.run("Hi").output == "answer 1"
        with cell("a", 2):
            assert agent.run("Hi").output == "answer 2"
        new_session()
        with cell("a", 1):
            assert agent.run("Hi").output == "answer 2"  # what the notebook shows
    assert len(server.requests) == 2


def test_a_loop_that_is_run_again_asks_everything_again(server, store, new_session):
    agent = agent_of(server, store)

    def loop(execution):
        with cell("a", execution):
            return [agent.run("Hi").output for _ in range(3)]

    with replay("on"):
        loop(1)
        new_session()
        assert loop(1) == ["answer 1", "answer 2", "answer 3"]
        assert loop(2) == ["answer 4", "answer 5", "answer 6"]
        new_session()
        assert loop(1) == ["answer 4", "answer 5", "answer 6"]


def test_two_cells_that_ask_the_same_are_each_served_their_own(server, store, new_session):
    agent = agent_of(server, store)

    def run_all():
        outputs = []
        for execution, name in enumerate(["a", "b", "a2"], 1):
            with cell(name, execution):
                outputs.append(agent.run("Hi").output)
        return outputs

    with replay("on"):
        paid = run_all()
        new_session()
        assert run_all() == paid == ["answer 1", "answer 2", "answer 3"]
    assert len(server.requests) == 3


def test_a_loop_in_a_cell_is_served_in_order_also_after_it_was_run_again(server, store, new_session):
    agent = agent_of(server, store)

    def loop(execution, times):
        with cell("a", execution):
            return [agent.run("Hi").output for _ in range(times)]

    with replay("on"):
        loop(1, 2)
        newest = loop(2, 3)
        new_session()
        assert loop(1, 3) == newest == ["answer 3", "answer 4", "answer 5"]
        new_session()
        assert loop(1, 4) == [*newest, "answer 6"]


def test_a_cell_that_moved_is_served_what_another_was_answered(server, store, new_session):
    agent = agent_of(server, store)
    with replay("on"):
        with cell("a", 1):
            agent.run("Hi")
        new_session()
        with cell("copy of a", 1):
            assert agent.run("Hi").output == "answer 1"
        with cell("copy of a copy", 2):
            assert agent.run("Hi").output == "answer 2"  # each answer is served once a session


def test_fresh_asks_and_is_what_a_later_session_is_served(server, store, new_session):
    agent = agent_of(server, store)
    with replay("on"):
        agent.run("Hi")
    new_session()
    with replay("fresh"):
        assert agent.run("Hi").output == "answer 2"
    new_session()
    with replay("on"):
        assert agent.run("Hi").output == "answer 2"
    assert len(server.requests) == 2


def test_only_serves_what_is_kept_and_sends_nothing(server, store, new_session):
    agent = agent_of(server, store)
    with replay("on"):
        agent.run("Hi")
    new_session()
    with replay("only"):
        assert agent.run("Hi").output == "answer 1"
        assert agent.run("Hi").output == "answer 1"
        with pytest.raises(ErrorReplay, match="allows none to be sent") as caught:
            agent.run("Bye")
    assert len(server.requests) == 1
    assert caught.value.result.usage.model_calls == 0
    assert turns(store, run_id=caught.value.result.record.run.run_id).empty


def test_only_serves_what_the_same_session_has_paid_for(server, store):
    agent = agent_of(server, store)
    with replay("on"):
        agent.run("Hi")
    with replay("only"):
        assert agent.run("Hi").output == "answer 1"


def test_only_refuses_a_model_whose_answers_are_not_kept(store):
    with replay("only"), pytest.raises(ErrorReplay, match="ModelScripted"):
        Agent("poet", model=ModelScripted(["hello"]), store=store).run("Hi")


def test_a_model_without_a_wire_is_always_asked(store, new_session):
    agent = Agent("poet", model=ModelScripted(["one", "two"]), store=store)
    with replay("on"):
        assert agent.run("Hi").output == "one"
        new_session()
        assert agent.run("Hi").output == "two"


def test_what_fresh_has_replaced_is_not_served_any_more(server, store, new_session):
    agent = agent_of(server, store)
    for mode in ("on", "fresh"):
        with replay(mode):
            agent.run("Hi")
        new_session()
    with replay("on"):
        assert [agent.run("Hi").output for _ in range(2)] == ["answer 2", "answer 3"]


def test_a_count_that_got_no_answer_is_asked_and_the_others_are_served_theirs(store, new_session):
    refusal = Raw(body=[json.dumps({"choices": [{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}], "usage": {}}).encode()])
    with ModelServer(["one", refusal, "three", "two"]) as server:
        agent = agent_of(server, store)
        with replay("on"):
            agent.run("Hi")
            with pytest.raises(ErrorRefused):
                agent.run("Hi")
            agent.run("Hi")
            new_session()
            assert [agent.run("Hi").output for _ in range(3)] == ["one", "two", "three"]


def test_a_cell_is_served_its_own_answer_also_when_a_new_cell_was_served_it_before(server, store, new_session):
    agent = agent_of(server, store)
    with replay("on"):
        with cell("a", 1):
            agent.run("Hi")
        new_session()
        for execution, name in enumerate(["new", "a"], 1):
            with cell(name, execution):
                assert agent.run("Hi").output == "answer 1"


def test_samples_under_salts_are_sent_each_and_served_each(server, store, new_session):
    agent = agent_of(server, store)

    async def sample(number):
        with replay("on", salt=str(number)):
            return (await agent.arun("Hi")).output

    async def samples():
        return await asyncio.gather(*map(sample, range(4)))

    paid = asyncio.run(samples())
    new_session()
    assert asyncio.run(samples()) == paid
    assert len(set(paid)) == len(server.requests) == 4


def test_a_salt_is_a_text():
    with pytest.raises(ErrorConfig, match="salt must be a text, got int: 3"), replay("on", salt=3):
        pass


# ---- modes


def test_only_needs_no_key(store, new_session, monkeypatch):
    """What is kept is served also where nothing could be sent: in CI, or on a colleague's machine."""
    with ModelServer(["Hello"]) as server:
        config = Path.home() / ".agentroute" / "config"
        config.parent.mkdir(exist_ok=True)
        config.write_text(f"openrouter_base_url = {server.base_url}\n")
        agent = Agent("poet", model="some/model", store=store)
        monkeypatch.setenv("OPENROUTER_API_KEY", "k" * 20)
        with replay("on"):
            agent.run("Hi")
        monkeypatch.delenv("OPENROUTER_API_KEY")
        for mode in ("only", "on"):
            new_session()
            with replay(mode):
                assert agent.run("Hi").output == "Hello"
        with replay("only"), pytest.raises(ErrorReplay):
            agent.run("Bye")
        with replay("on"), pytest.raises(ErrorConfig, match="no API key") as caught:
            agent.run("Bye")
    assert caught.value.result.record.turns == []


@pytest.mark.parametrize("kept", [False, True])
def test_only_sends_nothing_for_a_run_that_is_not_recorded(server, store, kept, new_session):
    agent = agent_of(server, store)
    with replay("on" if kept else "off"):
        agent.run("Hi")
    new_session()
    with replay("only"), suppress(ErrorReplay) if not kept else nullcontext():
        assert agent.run("Hi", record=False).output == "answer 1"
    assert len(server.requests) == 1
    assert len(runs(store)) == 1


def test_only_holds_in_every_thread(server, store):
    agent = agent_of(server, store)
    with replay("only"), ThreadPoolExecutor(2) as pool:
        errors = [pool.submit(agent.run, prompt).exception() for prompt in ("a", "b")]
    assert [type(error) for error in errors] == [ErrorReplay, ErrorReplay]
    assert server.requests == []
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(agent.run, "a").result().output == "answer 1"


def test_only_says_why_a_request_cannot_be_looked_up(server, store):
    with replay("only"), pytest.raises(ErrorReplay, match="it is no JSON"):
        agent_of(server, store, extra={"stop": {"a"}}).run("Hi")


def test_the_environment_says_how_where_nothing_else_does(server, store, new_session, monkeypatch):
    monkeypatch.setenv("AGENTROUTE_REPLAY", "on")
    agent = agent_of(server, store)
    agent.run("Hi")
    new_session()
    assert agent.run("Hi").output == "answer 1"
    set_replay("off")
    assert agent.run("Hi").output == "answer 2"
    with replay("only"):
        assert agent.run("Hi").output == "answer 1"


@pytest.mark.parametrize("mode", ["yes", "ON", "", None, True])
def test_a_mode_that_is_none_is_refused(mode):
    with pytest.raises(ErrorConfig, match="one of on, off, only, fresh"), replay(mode):
        pass


def test_a_wrong_word_in_the_environment_is_refused(server, store, monkeypatch):
    monkeypatch.setenv("AGENTROUTE_REPLAY", "always")
    with pytest.raises(ErrorConfig, match=r"AGENTROUTE_REPLAY must be one of .*'always'"):
        agent_of(server, store).run("Hi")


def test_a_run_that_keeps_no_record_is_not_replayed(server, store, new_session):
    agent = agent_of(server, store, record=False)
    with replay("on"):
        agent.run("Hi")
        new_session()
        assert agent.run("Hi").output == "answer 2"
    assert runs(store).empty


@pytest.mark.parametrize("keeping", [{"record_content": "metadata"}, {"redact": lambda text: text.replace("secret", "…")}])
def test_where_texts_are_not_kept_as_they_are_nothing_is_replayed(server, tmp_path, new_session, keeping):
    with closing(RunStore(tmp_path / "runs.db", **keeping)) as store:
        agent = agent_of(server, store)
        with replay("on"):
            agent.run("Hi")
            new_session()
            assert agent.run("Hi").output == "answer 2"


def test_what_runs_record_nothing_is_kept_in_the_default_file(server, new_session):
    agent = Agent("poet", model=server.model)
    with replay("on"):
        agent.run("Hi")
        new_session()
        assert agent.run("Hi").output == "answer 1"
    assert runs().empty


# ---- what it costs


def test_a_replayed_answer_costs_nothing_and_says_what_it_saved(server, store, new_session):
    agent = agent_of(server, store)
    with replay("on"):
        paid = agent.run("Hi")
        new_session()
        result = agent.run("Hi")
    usage = result.usage
    assert (usage.total_cost_usd, usage.cost_saved_usd, usage.replayed_calls, usage.model_calls) == (0.0, 0.001, 1, 1)
    assert (usage.input_tokens, usage.output_tokens) == (10, 5)
    run = runs(store, run_id=result.record.run.run_id).iloc[0]
    assert (run.cost_usd, run.cost_saved_usd, run.n_replayed, run.cost_source) == (0.0, 0.001, 1, "provider")
    turn = turns(store, run_id=result.record.run.run_id).iloc[0]
    assert (turn.cost_usd, turn.cost_saved_usd, turn.replayed_from) == (0.0, 0.001, paid.record.run.run_id)


def test_a_provider_cannot_claim_that_its_answer_was_replayed(store):
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.5, "cost_saved": 9, "replayed_from": "x", "cost_source": "table9"}
    with ModelServer(["Hi"], usage=usage) as server:
        turn = agent_of(server, store).run("Hi").record.turns[0]
    assert (turn.cost_usd, turn.cost_saved_usd, turn.replayed_from, turn.cost_source) == (0.5, None, None, "provider")


def test_an_answer_of_unknown_cost_saves_an_unknown_amount(store, new_session):
    with ModelServer(["Hi"], usage={"prompt_tokens": 1, "completion_tokens": 1}) as server:
        agent = agent_of(server, store)
        with replay("on"):
            assert agent.run("Hi").record.turns[0].cost_source == "unknown"
            new_session()
            result = agent.run("Hi")
    turn = result.record.turns[0]
    assert (turn.cost_usd, turn.cost_saved_usd, turn.cost_source) == (0.0, None, "unknown")
    assert result.usage.cost_usd == 0.0
    assert result.record.run.cost_saved_usd is None


def test_a_replayed_answer_needs_no_budget(server, store, new_session):
    agent = agent_of(server, store)
    with replay("on"):
        agent.run("Hi")
        new_session()
        with agentroute.budget(0):
            assert agent.run("Hi", max_cost=0).output == "answer 1"


def test_what_was_cut_by_a_budget_is_not_kept(store, new_session):
    cut = {"id": "1", "choices": [{"message": {"role": "assistant", "content": "half of"}, "finish_reason": "length"}], "usage": {"cost": 0.001}}
    price = agentroute.Price(1.0, 1.0)
    with ModelServer([Raw(body=[json.dumps(cut).encode()]), "whole"], repeat=True) as server:
        agent = agent_of(server, store, price=price)
        with replay("on"):
            with pytest.warns(RuntimeWarning, match="cap that came with its budget"):
                agent.run("Hi", max_cost=0.01)
            new_session()
            assert agent.run("Hi").output == "whole"


def test_an_answer_cut_by_its_own_limit_is_a_fact_and_kept(store, new_session):
    cut = {"id": "1", "choices": [{"message": {"role": "assistant", "content": "half of"}, "finish_reason": "length"}], "usage": {}}
    with ModelServer([Raw(body=[json.dumps(cut).encode()]), "whole"]) as server:
        agent = agent_of(server, store, max_tokens=2)
        with replay("on"):
            agent.run("Hi")
            new_session()
            result = agent.run("Hi")
    assert (result.output, result.record.turns[0].finish_reason) == ("half of", "length")


# ---- what is never kept


def test_errors_are_never_served(store, new_session):
    with ModelServer([Raw(400, [b'{"error":{"message":"no"}}']), "fine"]) as server:
        agent = agent_of(server, store)
        with replay("on"):
            with pytest.raises(agentroute.ErrorModelRequest):
                agent.run("Hi")
            new_session()
            assert agent.run("Hi").output == "fine"


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": "I was"}, "finish_reason": "content_filter"},
        {"message": {"content": None, "refusal": "I can't"}, "finish_reason": "stop"},
    ],
    ids=["content filter", "refusal"],
)
def test_filtered_answers_and_refusals_are_never_served(store, new_session, choice):
    with ModelServer([Raw(body=[json.dumps({"choices": [choice], "usage": {}}).encode()]), "fine"]) as server:
        agent = agent_of(server, store)
        with replay("on"):
            with pytest.raises(ErrorRefused):
                agent.run("Hi")
            new_session()
            assert agent.run("Hi").output == "fine"


@pytest.mark.parametrize("reason", ["abort", "cancelled", "network_error", "SAFETY", "blocklist", "error"])
def test_what_a_provider_says_was_not_whole_is_never_served(store, new_session, reason):
    broken = {"choices": [{"message": {"content": "half of"}, "finish_reason": reason}], "usage": {}}
    with ModelServer([Raw(body=[json.dumps(broken).encode()]), "whole"]) as server:
        agent = agent_of(server, store)
        with replay("on"), suppress(agentroute.ErrorAgent):
            agent.run("Hi")
        new_session()
        with replay("on"):
            assert agent.run("Hi").output == "whole"


def test_an_answer_that_is_no_json_is_not_kept_and_not_lost(store):
    class Odd(ModelScripted):
        replay_identity = "odd"

        async def complete(self, request):
            return replaced(await super().complete(request), usage={"cost": Decimal("0.5")})

    with replay("on"), pytest.warns(RuntimeWarning, match="neither replayed nor kept"):
        result = Agent("poet", model=Odd(["hello"]), store=store).run("Hi")
    assert (result.output, result.usage.total_cost_usd) == ("hello", 0.5)


def test_half_a_character_is_kept(store, new_session):
    with ModelServer([Raw(body=[b'{"choices":[{"message":{"content":"half \\ud83d"},"finish_reason":"stop"}],"usage":{}}']), "other"]) as server:
        agent = agent_of(server, store)
        with replay("on"):
            paid = agent.run("Hi").output
            new_session()
            assert agent.run("Hi").output == paid == "half \ud83d"


def test_a_stream_that_breaks_is_never_served(store, new_session):
    broken = Raw(body=[b'data: {"choices":[{"delta":{"content":"half"}}]}\n\n'], headers={"content-type": "text/event-stream"})
    with ModelServer([broken, "whole"]) as server:
        agent = agent_of(server, store)
        with replay("on"):
            with pytest.raises(agentroute.ErrorModelResponse):
                list(agent.stream("Hi"))
            new_session()
            assert agent.run("Hi").output == "whole"


def test_an_answer_that_is_left_half_way_is_never_served(store, new_session):
    with ModelServer(["one two three", "whole"]) as server:
        agent = agent_of(server, store)

        async def leave():
            stream = agent.stream("Hi")
            async with stream:
                async for event in stream:
                    if isinstance(event, agentroute.events.TextDelta):
                        break

        with replay("on"):
            asyncio.run(leave())
            new_session()
            assert agent.run("Hi").output == "whole"


def test_an_answer_that_holds_a_key_is_not_kept(store, new_session, monkeypatch):
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-v1-0123456789abcdef")
    with ModelServer(["your key is sk-or-v1-0123456789abcdef", "fine"]) as server:
        agent = agent_of(server, store)
        with replay("on"):
            agent.run("Hi")
            new_session()
            assert agent.run("Hi").output == "fine"


# ---- everything a run is made of


class Verdict(BaseModel):
    label: str
    sure: float


def test_tools_run_again_and_their_results_decide(store, new_session):
    calls = []
    weather = "rain"

    def look() -> str:
        calls.append(1)
        return weather

    with ModelServer([[ToolCall("c1", "look", "{}")], "It rains.", "It is dry."]) as server:
        agent = agent_of(server, store, tools=[look])
        with replay("on"):
            agent.run("Weather?")
            new_session()
            assert agent.run("Weather?").output == "It rains."
            assert (len(calls), len(server.requests)) == (2, 2)
            weather = "sun"
            new_session()
            result = agent.run("Weather?")
    assert (result.output, len(server.requests)) == ("It is dry.", 3)
    assert (result.usage.replayed_calls, result.usage.total_cost_usd, result.usage.cost_saved_usd) == (1, 0.001, 0.001)
    assert result.record.run.cost_source == "provider"


def test_streamed_and_whole_answers_serve_each_other(server, store, new_session):
    agent = agent_of(server, store)
    with replay("on"):
        streamed = "".join(event.delta for event in agent.stream("Hi") if isinstance(event, agentroute.events.TextDelta))
        new_session()
        assert agent.run("Hi").output == streamed == "answer 1"
        new_session()
        assert "".join(event.delta for event in agent.stream("Hi") if isinstance(event, agentroute.events.TextDelta)) == "answer 1"
    assert len(server.requests) == 1


@pytest.mark.parametrize("mode", ["tool", "native", "prompted"])
def test_typed_answers_are_replayed_also_where_they_had_to_be_corrected(store, new_session, mode):
    good = json.dumps({"label": "spam", "sure": 0.9})
    as_tool = [[ToolCall("1", OUTPUT_TOOL, '{"label": 3}')], [ToolCall("2", OUTPUT_TOOL, good)]]
    with ModelServer(as_tool if mode == "tool" else ['{"label": 3}', good]) as server:
        agent = agent_of(server, store, output=Verdict, output_mode=mode, retries=1)
        with replay("on"):
            paid = agent.run("Judge")
            new_session()
            result = agent.run("Judge")
    assert result.output == paid.output == Verdict(label="spam", sure=0.9)
    assert (len(server.requests), result.usage.replayed_calls) == (2, 2)


def test_a_conversation_in_memory_is_replayed(server, store, new_session):
    def talk():
        agent = agent_of(server, store, memory=Memory())
        return [agent.run(prompt).output for prompt in ("Hi", "And now?", "Hi")]

    with replay("on"):
        paid = talk()
        new_session()
        assert talk() == paid
    assert len(server.requests) == 3


def test_runs_begun_by_tools_are_replayed_as_the_run_around_them(server, store, new_session):
    inner = Agent("inner", model=server.model)

    def ask_inner() -> str:
        return inner.run("Sub-question").output

    with ModelServer([[ToolCall("c1", "ask_inner", "{}")], "done"]) as outer_server:
        agent = agent_of(outer_server, store, tools=[ask_inner])
        with replay("on"):
            agent.run("Go")
        new_session()
        with replay("on"):
            events = agent.events("Go")

        async def to_the_end():  # outside the block: the runs inside are replayed as the one around them
            return [event async for event in events]

        result = asyncio.run(to_the_end())[-1].result
    assert (len(outer_server.requests), len(server.requests)) == (2, 1)
    (call,) = result.record.tool_calls
    assert (call.cost_usd, call.cost_saved_usd) == (0.0, 0.001)
    nested = runs(store, agent="inner").iloc[-1]
    assert (nested.parent_run_id, nested.parent_turn_index, nested.parent_call_index) == (call.run_id, 1, 1)
    assert (result.usage.cost_saved_usd, result.usage.replayed_calls) == (0.003, 3)
    assert runs(store)["cost_saved_usd"].sum() == pytest.approx(0.003)


def test_a_model_behind_another_one_is_replayed_with_it(server, store, new_session):
    with ModelServer([Raw(500, [b"{}"])], repeat=True) as down:
        agent = Agent("poet", model=ModelFallback([down.model, server.model]), store=store)
        with replay("on"):
            agent.run("Hi")
            asked = len(down.requests)
            new_session()
            assert agent.run("Hi").output == "answer 1"
    assert (len(down.requests), len(server.requests)) == (asked, 1)


def test_what_a_provider_wants_back_comes_back(store, new_session):
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    details = [{"type": "reasoning.text", "text": "hm", "signature": "sig"}]
    first = {"choices": [{"message": {"content": None, "tool_calls": [call], "reasoning_details": details}, "finish_reason": "tool_calls"}], "usage": {}}
    with ModelServer([Raw(body=[json.dumps(first).encode()]), "one", "two"]) as server:
        results = iter(["a", "b"])
        agent = agent_of(server, store, tools=[agentroute.tool(lambda: next(results), name="look", description="look")] )
        with replay("on"):
            agent.run("Hi")
            new_session()
            agent.run("Hi")
    assert [request["messages"][1]["reasoning_details"] for request in server.requests[1:]] == [details, details]


# ---- several at once


def test_equal_requests_in_flight_are_sent_once(store, new_session):
    gate = threading.Event()

    def slow(body):
        gate.wait(60)
        return "one answer"

    with ModelServer([slow], repeat=True) as server:
        agent = agent_of(server, store)

        async def ten():
            tasks = [asyncio.create_task(agent.arun("Hi")) for _ in range(10)]
            while not server.requests:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            gate.set()
            return await asyncio.gather(*tasks)

        with replay("on"):
            results = asyncio.run(ten())
            assert len(server.requests) == 1
            new_session()
            again = asyncio.run(ten())
    assert {result.output for result in results + again} == {"one answer"}
    assert len(server.requests) == 1
    assert sum(Decimal(str(result.usage.total_cost_usd)) for result in results) == Decimal("0.001")
    assert sorted(result.usage.replayed_calls for result in results) == [0] + [1] * 9
    assert len(again) == 10 and all(result.usage.replayed_calls == 1 for result in again)


def test_what_is_to_be_fresh_is_asked_each_time(store, new_session):
    together = threading.Barrier(4, timeout=60)
    numbers = itertools.count(1)

    def answer(body):
        together.wait()
        return f"answer {next(numbers)}"

    with ModelServer([answer], repeat=True) as server:
        agent = agent_of(server, store)

        async def four():
            return await asyncio.gather(*(agent.arun("Hi") for _ in range(4)))

        with replay("fresh"):
            paid = [result.output for result in asyncio.run(four())]
        new_session()
        with replay("on"):
            served = [result.output for result in asyncio.run(four())]
    assert sorted(paid) == sorted(served) == ["answer 1", "answer 2", "answer 3", "answer 4"]
    assert len(server.requests) == 4


def test_those_who_wait_for_a_request_that_fails_ask_themselves(store):
    gate = threading.Event()

    def failing(body):
        gate.wait(60)
        return Raw(401, [b'{"error":{"message":"no"}}'])

    with ModelServer([failing, "fine"], repeat=True) as server:
        agent = agent_of(server, store)

        async def two():
            tasks = [asyncio.create_task(agent.arun("Hi")) for _ in range(2)]
            while not server.requests:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            gate.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

        with replay("on"):
            ended = asyncio.run(two())
    failed, answered = sorted(ended, key=lambda one: hasattr(one, "output"))
    assert isinstance(failed, agentroute.ErrorModelKey) and answered.output == "fine"


def test_who_stops_waiting_does_not_stop_the_one_who_asks(store):
    gate = threading.Event()

    def slow(body):
        gate.wait(60)
        return "fine"

    with ModelServer([slow], repeat=True) as server:
        agent = agent_of(server, store)

        async def two():
            asking = asyncio.create_task(agent.arun("Hi"))
            while not server.requests:
                await asyncio.sleep(0.001)
            waiting = asyncio.create_task(agent.arun("Hi"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.wait({waiting})
            gate.set()
            return (await asking).output

        with replay("on"):
            assert asyncio.run(two()) == "fine"


def test_equal_requests_that_fail_do_not_wait_for_each_other(store):
    together = threading.Barrier(5, timeout=60)
    numbers = itertools.count()

    def refusing(body):
        if next(numbers):  # the others ask when the first one has failed, and then all at once
            together.wait()
        else:
            while next(iter(replay_layer._session_of(store).asked.values()))[1] < 6:
                time.sleep(0.001)
        return Raw(401, [b'{"error":{"message":"no"}}'])

    with ModelServer([refusing], repeat=True) as server:
        agent = agent_of(server, store)

        async def six():
            return await asyncio.gather(*(agent.arun("Hi") for _ in range(6)), return_exceptions=True)

        with replay("on"):
            assert {type(error) for error in asyncio.run(six())} == {agentroute.ErrorModelKey}


def test_who_waits_keeps_to_his_own_timeout(store):
    gate = threading.Event()

    def slow(body):
        gate.wait(60)
        return "late"

    with ModelServer([slow], repeat=True) as server:
        agent = agent_of(server, store)

        async def two():
            asking = asyncio.create_task(agent.arun("Hi"))
            while not server.requests:
                await asyncio.sleep(0.001)
            with pytest.raises(agentroute.ErrorModelTimeout, match=r"within timeout=0\.1 s"):
                await agent.replace(timeout=0.1).arun("Hi")
            gate.set()
            return (await asking).output

        with replay("on"):
            assert asyncio.run(two()) == "late"
    assert len(server.requests) == 1


def test_who_waits_for_a_reader_that_does_not_come_back_asks_once_for_all(server, store):
    agent = agent_of(server, store)

    async def held():
        async with agent.stream("Hi") as stream:
            async for event in stream:
                if isinstance(event, agentroute.events.TextDelta):
                    return await asyncio.gather(*(asyncio.create_task(agent.arun("Hi")) for _ in range(8)))

    with replay("on"):
        assert {result.output for result in asyncio.run(held())} == {"answer 2"}
    assert len(server.requests) == 2


def test_a_request_whose_loop_is_gone_holds_up_nobody(store):
    gate = threading.Event()

    def slow(body):
        gate.wait(60)
        return "answer"

    with ModelServer([slow], repeat=True) as server:
        agent = agent_of(server, store)

        async def until_asked():
            while not server.requests:
                await asyncio.sleep(0.001)

        with replay("on"), asyncio.Runner() as runner:
            loop = runner.get_loop()
            left = loop.create_task(agent.arun("Hi"))
            loop.run_until_complete(until_asked())  # and then it stands still
            gate.set()
            assert agent.run("Hi").output == "answer"
            loop.run_until_complete(left)


def test_a_forked_child_is_a_session_of_its_own_and_waits_for_nothing_of_its_parents(server, store):
    session = replay_layer._session_of(store)
    session.flights[b"key"] = replay_layer._Flight(asyncio.new_event_loop())
    session.flights[b"key"].loop.close()
    child = os.fork()
    if child == 0:
        os._exit(0 if replay_layer._session_of(store).name != session.name and not replay_layer._session_of(store).flights else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_is_served_the_answer_of_another_may_do_with_it_what_he_likes(store):
    gate = threading.Event()

    def slow(body):
        gate.wait(60)
        return [ToolCall("c1", "look", "{}")]

    with ModelServer([slow, "done", "done"], repeat=True) as server:
        agent = agent_of(server, store, tools=[agentroute.tool(lambda: "x", name="look", description="look")])

        async def two():
            tasks = [asyncio.create_task(agent.arun("Hi")) for _ in range(2)]
            while not server.requests:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            gate.set()
            return await asyncio.gather(*tasks)

        with replay("on"):
            one, other = asyncio.run(two())
    one.messages[1]["tool_calls"][0]["function"]["name"] = "changed"
    assert other.messages[1]["tool_calls"][0]["function"]["name"] == "look"


def test_what_a_session_remembers_is_bounded(monkeypatch):
    monkeypatch.setattr("agentroute.replay_layer.MOST_REMEMBERED", 10)
    session = replay_layer._Session()
    for number in range(100):
        session.begin(b"%d" % number, Place())
    assert len(session.asked) == 10


def test_a_reader_who_asks_the_same_inside_is_not_kept_waiting_for_himself(server, store):
    agent = agent_of(server, store)

    async def inside():
        outputs = []
        async with agent.stream("Hi") as stream:
            async for event in stream:
                if isinstance(event, agentroute.events.TextDelta) and not outputs:
                    outputs.append((await agent.arun("Hi")).output)
        return [*outputs, stream.result.output]

    with replay("on"):
        assert sorted(asyncio.run(inside())) == ["answer 1", "answer 2"]


def test_a_stream_that_nobody_reads_on_holds_up_nobody(server, store):
    agent = agent_of(server, store)

    async def left_open():
        async with agent.stream("Hi") as stream:
            async for event in stream:
                if isinstance(event, agentroute.events.TextDelta):
                    return await asyncio.create_task(agent.arun("Hi"))

    with replay("on"):
        assert asyncio.run(left_open()).output == "answer 2"


# ---- the file


@pytest.mark.parametrize(("recorded", "words"), [(True, "runs are not recorded"), (False, "answers are neither replayed nor kept")])
def test_a_history_that_cannot_be_used_breaks_no_run_and_is_told_once(server, tmp_path, monkeypatch, recorded, words):
    monkeypatch.setattr("agentroute.replay_layer._told", [])
    path = tmp_path / "runs.db"
    path.write_text("this is no SQLite file, and it is long enough to be looked at" * 20)
    monkeypatch.setenv("AGENTROUTE_RUNS", str(path))
    with closing(RunStore(path)) as store:
        agent = agent_of(server, store if recorded else None)
        with replay("on"), pytest.warns(RuntimeWarning) as told:
            outputs = [agent.run("Hi").output for _ in range(2)]
    assert outputs == ["answer 1", "answer 2"]
    assert [str(one.message).partition(":")[0] for one in told] == [words]


def test_where_only_replay_may_answer_a_broken_history_is_an_error(server, tmp_path):
    path = tmp_path / "runs.db"
    path.write_text("this is no SQLite file, and it is long enough to be looked at" * 20)
    with closing(RunStore(path)) as store, replay("only"), pytest.warns(RuntimeWarning), pytest.raises(ErrorReplay, match="cannot be read"):
        agent_of(server, store).run("Hi")


def test_an_answer_is_kept_before_the_tools_it_asks_for_run(store, new_session):
    def fall_over() -> str:
        with closing(sqlite3.connect(store.path)) as connection:
            kept.append(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
        return "ok"

    kept = []
    with ModelServer([[ToolCall("c1", "fall_over", "{}")], "done"]) as server, replay("on"):
        agent_of(server, store, tools=[fall_over]).run("Hi")
    assert kept == [1]


def test_the_place_of_a_run_is_in_its_record(server, store):
    set_place(lambda: Place("c", 1, notebook="work/week.ipynb", cell_id="c-1"))
    agent_of(server, store).run("Hi")
    run = runs(store).iloc[0]
    assert (run.notebook, run.cell_id) == ("work/week.ipynb", "c-1")


def test_a_run_falls_under_the_mode_it_was_begun_in(store):
    with replay("only"):
        found = active_replay(store, None)
    assert (found.mode, found.store) == ("only", store)
    assert active_replay(store, found).mode == "only"


def test_retries_happen_inside(store, new_session, monkeypatch):
    monkeypatch.setattr("agentroute.models.retry.BASE_S", 0)
    with ModelServer([Raw(503, [b"{}"]), "fine"]) as server:
        agent = agent_of(server, store)
        with replay("on"):
            agent.run("Hi")
            new_session()
            assert agent.run("Hi").output == "fine"
    assert len(server.requests) == 2
    assert ErrorModelServer  # the first attempt's
