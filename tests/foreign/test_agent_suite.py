"""One suite of agent tests for servers that others have written; `servers.CAN` says which server can do what.

Where a server can't do a thing, the suite says what a user gets instead.
"""

import asyncio
import json
from contextlib import aclosing
from typing import Literal

import pytest
from pydantic import BaseModel

from agentroute import Agent, HistoryTruncate, LLMRequest, Memory, Message, ModelCloud, Price, image
from agentroute._connections import connections_here
from agentroute.errors import (
    ErrorBudget,
    ErrorModelKey,
    ErrorModelRateLimit,
    ErrorModelRequest,
    ErrorModelServer,
    ErrorOutput,
    ErrorTruncated,
)
from agentroute.models import retry
from agentroute.testing import check_model
from tests.foreign.servers import where

pytestmark = pytest.mark.timeout(600)  # the first test of a machine installs LiteLLM


PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(64)


class Capital(BaseModel):
    city: Literal["Paris", "Rome"]


def order_status(order_id: int) -> str:
    """Look up where an order is.

    Args:
        order_id: number of the order
    """
    return f"Order {order_id} is on the truck and arrives on Friday."


def agent(server, scenario, **options):
    return Agent("suite", **{**server.settings(scenario), **options})


def support(server, scenario="tools", **options):
    return agent(server, scenario, instructions="You are a concise, accurate support agent.", tools=[order_status], **options)


def run(one, prompt):
    return one.run(prompt)


def stream(one, prompt):
    """The result of a run that was streamed, once its deltas are seen to be the answer's text."""
    running = one.stream(prompt)
    *_, last = (event for event in running)
    assert last.kind == "agent_end"
    return running.result


EITHER_WAY = pytest.mark.parametrize("ask", [run, stream])


def calls(result):
    return [(call.tool_name, json.loads(call.arguments_text), call.status) for call in result.record.tool_calls]


def wrong_key(server):
    return ModelCloud(model_id=server.model_id("plain"), base_url=server.base_url, api_key="sk-wrong-key-0123456789")


# ---- answers ------------------------------------------------------------------------------------------------------


@where()
@EITHER_WAY
def test_an_answer_has_text_and_says_how_it_ended(server, ask):
    result = ask(agent(server, "plain"), "What is the answer?")
    (turn,) = result.record.turns
    assert result.output.strip()
    assert turn.finish_reason in ("stop", "length")
    assert turn.response_id and turn.response_model == server.model_id("plain")


@where()
def test_the_deltas_of_a_stream_add_up_to_the_output(server):
    running = agent(server, "plain").stream("What is the answer?")
    deltas = [event.delta for event in running if event.kind == "text_delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == running.result.output


@where()
@EITHER_WAY
def test_an_answer_that_max_tokens_cuts_says_so(server, ask):
    result = ask(agent(server, "cut", max_tokens=5), "Tell me about the sea.")
    (turn,) = result.record.turns
    assert (turn.finish_reason, turn.output_tokens) == ("length", 5)
    assert result.output.strip()


@where()
def test_a_typed_answer_that_max_tokens_cuts_is_an_error_that_keeps_the_text(server):
    with pytest.raises(ErrorTruncated, match="max_tokens") as caught:
        agent(server, "cut", max_tokens=5, output=Capital, output_mode="native").run("What is the capital of France?")
    assert caught.value.partial.strip()


@where()
def test_the_model_contract_holds(server):
    question = LLMRequest(server.model_id("plain"), [Message("user", "Say hello.")], max_tokens=8, temperature=0.0)
    asyncio.run(check_model(lambda: server.model("plain"), question, exact=False))


@where()
def test_twenty_runs_of_one_agent_at_once_all_end_well(server):
    one = agent(server, "plain")

    async def at_once():
        return await asyncio.gather(*(one.arun(f"What is {number} plus one?") for number in range(20)))

    results = asyncio.run(at_once())
    assert all(result.output.strip() for result in results)
    assert [(result.usage.model_calls, result.usage.unknown_token_calls) for result in results] == [(1, 0)] * 20
    assert len({result.run_id for result in results}) == 20


@where()
def test_the_second_run_sends_what_the_first_has_left_in_the_memory(server):
    one = agent(server, "memory", memory=Memory())
    first = one.run("My name is Ada.")
    second = one.run("What is my name?")
    assert [message["role"] for message in second.messages] == ["user", "assistant"] * 2
    assert second.messages[:2] == first.messages
    assert second.usage.input_tokens > first.usage.input_tokens  # as the server counts


# ---- tools --------------------------------------------------------------------------------------------------------


@where()
@EITHER_WAY
def test_a_tool_is_called_and_its_result_told(server, ask):
    result = ask(support(server), "Where is order 4821?")
    assert calls(result) == [("order_status", {"order_id": 4821}, "ok")]
    assert "Friday" in result.output


@where()
@EITHER_WAY
def test_the_usage_of_a_run_is_that_of_its_turns(server, ask):
    result = ask(support(server), "Where is order 4821?")
    turns, usage = result.record.turns, result.usage
    assert all(turn.input_tokens > 0 and turn.output_tokens > 0 for turn in turns)
    assert (usage.model_calls, len(turns)) == (2, 2)
    assert (usage.input_tokens, usage.output_tokens) == (sum(t.input_tokens for t in turns), sum(t.output_tokens for t in turns))


@where(call_several_tools=True)
@EITHER_WAY
def test_two_calls_of_one_answer_both_run_and_both_results_are_told(server, ask):
    result = ask(support(server, "two_tools"), "Where are the orders 4821 and 17?")
    assert calls(result) == [("order_status", {"order_id": 4821}, "ok"), ("order_status", {"order_id": 17}, "ok")]
    assert "Order 4821" in result.output and "Order 17" in result.output
    assert len(result.record.turns) == 2


@where(call_several_tools=False)
def test_where_several_calls_cannot_be_made_at_once_a_turn_has_one(server):
    result = support(server).run("Where are the orders 4821 and 17?")
    assert {call.turn_index for call in result.record.tool_calls} <= {turn.turn_index for turn in result.record.turns}
    assert len({call.turn_index for call in result.record.tool_calls}) == len(result.record.tool_calls)


@where(take_tools=False)
@EITHER_WAY
def test_where_tools_are_left_out_the_answer_is_text_and_nothing_is_called(server, ask):
    result = ask(support(server, "plain"), "Where is order 4821?")
    assert (calls(result), len(result.record.turns)) == ([], 1)
    assert result.output.strip()


@where(take_tools=False)
def test_where_tools_are_left_out_a_typed_answer_by_tool_is_a_clear_error(server):
    one = agent(server, "plain", output=Capital, output_mode="tool", max_tokens=50, extra={"seed": 0, "stop": [" "]})
    with pytest.raises(ErrorOutput, match="output_mode='native'") as caught:
        one.run("What is the capital of France?")
    assert caught.value.raw.strip()
    assert len(caught.value.result.record.turns) == 2  # it was asked to correct it


@where()
@EITHER_WAY
@pytest.mark.parametrize("mode", ["tool", "native", "prompted", "text"])
def test_a_typed_answer_comes_in_every_mode(server, ask, mode):
    one = agent(server, f"typed_{mode}", output=Capital, output_mode=mode)
    assert ask(one, "What is the capital of France?").output == Capital(city="Paris")


# ---- refusals -----------------------------------------------------------------------------------------------------


@where()
@EITHER_WAY
def test_a_wrong_key_is_told_as_such_and_not_shown(server, ask):
    with pytest.raises(ErrorModelKey, match="check the API key") as caught:
        ask(Agent("suite", model=wrong_key(server)), "Hi")
    assert "sk-wrong-key" not in f"{caught.value} {caught.value.body}"
    assert caught.value.attempts == 1


@where(refuse_unknown_models=True)
@EITHER_WAY
def test_an_unknown_model_is_told_as_such(server, ask):
    unknown = ModelCloud(model_id="gpt-17", base_url=server.base_url, api_key=server.key)
    with pytest.raises(ErrorModelRequest, match="gpt-17") as caught:
        ask(Agent("suite", model=unknown), "Hi")
    assert (caught.value.attempts, caught.value.too_long) == (1, False)


@where(refuse_unknown_models=False)
def test_where_any_model_id_is_taken_the_record_tells_who_has_answered(server):
    unknown = ModelCloud(model_id="gpt-17", base_url=server.base_url, api_key=server.key)
    (turn,) = Agent("suite", model=unknown, max_tokens=2).run("Hi").record.turns
    assert (turn.request_model, turn.response_model) == ("gpt-17", "smollm2")


def long_conversation():
    """Some 1,100 tokens of earlier talk."""
    memory = Memory()
    talk = [Message(role, f"{number} " + "word " * 100) for number in range(5) for role in ("user", "assistant")]
    asyncio.run(memory.add_messages([*talk, Message("user", "word " * 50), Message("assistant", "word " * 50)]))
    return memory


@where()
@EITHER_WAY
def test_a_conversation_that_is_too_long_is_told_as_such(server, ask):
    with pytest.raises(ErrorModelRequest, match="HistoryTruncate") as caught:
        ask(agent(server, "context", memory=long_conversation()), "And now?")
    assert (caught.value.status, caught.value.too_long, caught.value.attempts) == (400, True, 1)


@where()
@EITHER_WAY
def test_with_a_history_policy_a_conversation_that_is_too_long_is_shortened_until_it_fits(server, ask):
    one = agent(server, "context", memory=long_conversation(), history=HistoryTruncate())
    result = ask(one, "And now?")
    assert result.output.strip()
    assert len(result.messages) == 14  # nothing of it is lost


@where(fail_on_demand=True)
@EITHER_WAY
@pytest.mark.parametrize(
    ("scenario", "kind", "status"),
    [("busy", ErrorModelRateLimit, 429), ("broken", ErrorModelServer, 500), ("overloaded", ErrorModelServer, 529)],
)
def test_a_failure_that_may_pass_is_asked_again_and_then_told(server, ask, scenario, kind, status, monkeypatch):
    monkeypatch.setattr(retry, "BASE_S", 0)
    with pytest.raises(kind, match="gave up after 3 attempts") as caught:
        ask(agent(server, scenario), "Hi")
    assert (caught.value.status, caught.value.attempts) == (status, 3)
    assert caught.value.request_id


@where(check_settings=True)
@EITHER_WAY
def test_a_setting_of_the_wrong_type_is_refused_once_and_named(server, ask):
    with pytest.raises(ErrorModelRequest, match="top_p") as caught:
        ask(agent(server, "plain", extra={"top_p": "hot"}), "Hi")
    assert (caught.value.status, caught.value.attempts) == (400, 1)


@where(read_pictures=True)
@EITHER_WAY
def test_a_picture_is_sent(server, ask):
    assert ask(agent(server, "plain"), ["What is this?", image(PICTURE)]).output.strip()


@where(read_pictures=False)
@EITHER_WAY
def test_where_pictures_cannot_be_read_one_is_refused_once(server, ask):
    with pytest.raises(ErrorModelRequest, match="image input is not supported") as caught:
        ask(agent(server, "plain"), ["What is this?", image(PICTURE)])
    assert caught.value.attempts == 1


# ---- connections --------------------------------------------------------------------------------------------------


@where()
def test_a_run_cancelled_in_mid_stream_gives_its_connection_back(server):
    async def cancelled():
        begun = asyncio.Event()

        async def listen():
            async with aclosing(agent(server, "endless").events("Count to a million.")) as events:
                async for event in events:
                    if event.kind == "text_delta":
                        begun.set()

        tasks = [asyncio.create_task(listen()) for _ in range(2)]  # as many as llama.cpp answers at once
        await begun.wait()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        sockets = (await connections_here()).sockets()
        return [type(one).__name__ for one in ended], sockets, await agent(server, "plain").arun("Hi")

    ended, sockets, after = asyncio.run(cancelled())
    assert (ended, sockets) == (["CancelledError"] * 2, [])
    assert after.output.strip()


async def kept_after_each(server):
    """The sockets that are kept after each of three runs."""
    used = []
    for _ in range(3):
        await agent(server, "plain").arun("Hi")
        used += (await connections_here()).sockets()
    return used


@where(keep_connections=True)
def test_runs_one_after_another_use_one_connection(server):
    used = asyncio.run(kept_after_each(server))
    assert (len(used), len(set(used))) == (3, 1)


@where(keep_connections=False)
def test_where_connections_break_when_used_again_none_is_kept(server):
    assert asyncio.run(kept_after_each(server)) == []


@where()
def test_requests_that_follow_a_stream_at_once_are_all_answered_at_the_first_attempt(server):
    question = LLMRequest(server.model_id("plain"), [Message("user", "Hi")], max_tokens=2)

    async def one_after_another():
        model = server.model("plain")  # as it is, without the retries of an agent
        return [[chunk async for chunk in model.complete_stream(question)][-1].done for _ in range(40)]

    assert all(asyncio.run(one_after_another()))


@where(keep_connections=True)
def test_a_connection_that_the_server_has_closed_meanwhile_does_no_harm(server):
    async def long_break():
        before = await agent(server, "plain").arun("Hi")
        await asyncio.sleep(6)  # it closes an idle connection after five seconds, by its own clock
        return before, await agent(server, "plain").arun("Hi again")

    assert all(result.usage.model_calls == 1 for result in asyncio.run(long_break()))


# ---- costs --------------------------------------------------------------------------------------------------------


@where(report_costs=True)
@EITHER_WAY
def test_the_cost_that_the_server_reports_is_the_runs(server, ask):
    result = ask(support(server), "Where is order 4821?")
    turns, usage = result.record.turns, result.usage
    billed = [turn.input_tokens * 0.00001 + turn.output_tokens * 0.00002 for turn in turns]  # litellm_config.yaml
    assert [turn.cost_usd for turn in turns] == pytest.approx(billed)
    assert {turn.cost_source for turn in turns} == {"provider"}
    assert (usage.total_cost_usd, usage.unknown_cost_calls) == (pytest.approx(sum(billed)), 0)


@where(report_costs=False)
def test_where_no_cost_is_reported_it_is_unknown_and_not_zero(server):
    result = agent(server, "plain").run("Hi")
    assert (result.record.turns[0].cost_usd, result.usage.unknown_cost_calls) == (None, 1)


@where(report_costs=True)
@EITHER_WAY
def test_a_model_whose_cost_is_not_reported_has_an_unknown_one(server, ask):
    result = ask(agent(server, "unpriced"), "Hi")
    assert (result.record.turns[0].cost_usd, result.usage.unknown_cost_calls) == (None, 1)


@where()
def test_a_server_of_ones_own_can_be_said_to_be_free(server):
    free = ModelCloud(model_id=server.model_id("unpriced"), base_url=server.base_url, api_key=server.key, free=True)
    usage = Agent("suite", model=free, max_tokens=4, max_cost=0.01).run("Hi").usage
    assert (usage.total_cost_usd, usage.unknown_cost_calls) == (0.0, 0)


@where()
@EITHER_WAY
def test_a_given_price_makes_the_cost_known_where_the_server_tells_none(server, ask):
    result = ask(agent(server, "unpriced", price=Price(1, 2)), "Hi")
    (turn,) = result.record.turns
    assert turn.cost_usd == pytest.approx((turn.input_tokens + turn.output_tokens * 2) / 1_000_000)
    assert turn.cost_source == "given"


@where()
@EITHER_WAY
def test_with_a_price_nothing_is_sent_that_could_pass_max_cost(server, ask):
    with pytest.raises(ErrorBudget, match="max_cost") as caught:
        ask(agent(server, "plain", price=Price(1000, 1000), max_cost=0.001), "Hi")
    assert (caught.value.spent, caught.value.result.record.turns) == (0, [])


@where(report_costs=True)
@EITHER_WAY
def test_without_a_price_the_reported_cost_ends_a_run_before_its_tools_run(server, ask):
    with pytest.raises(ErrorBudget, match="max_cost") as caught:
        ask(support(server, max_cost=0.0001), "Where is order 4821?")
    assert caught.value.spent == pytest.approx(caught.value.result.usage.total_cost_usd)
    assert (len(caught.value.result.record.turns), calls(caught.value.result)) == (1, [])


@where(report_costs=False)
def test_where_no_cost_is_reported_max_cost_asks_for_a_price_before_a_second_call(server):
    with pytest.raises(ErrorBudget, match=r"price=agentroute\.Price") as caught:
        support(server, max_cost=1.0).run("Where is order 4821?")
    assert (len(caught.value.result.record.turns), caught.value.result.usage.unknown_cost_calls) == (1, 1)


@where(report_costs=False)
def test_where_no_cost_is_reported_an_answer_that_is_there_is_not_lost_to_max_cost(server, caplog):
    assert agent(server, "plain", max_cost=1.0).run("Hi").output.strip()
    assert "price=agentroute.Price" in caplog.text
