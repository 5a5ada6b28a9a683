"""Defects 17 to 20 of the published 1.1.0: budgets and loss. Each test fails on a build that has the defect."""

import asyncio
import pickle

import pytest
from pydantic import BaseModel

from agentroute import (
    Agent,
    ErrorBudget,
    ErrorMaxTurns,
    ErrorOutput,
    HistorySlidingWindow,
    HistorySummarize,
    HistoryTruncate,
    Memory,
    MemorySQLite,
    Message,
    Retry,
    ToolCall,
)
from tests.promises.test_defects_broken import agent_at, unanswered

PRICELESS = {"prompt_tokens": 1_000_000, "completion_tokens": 10}
CHEAP = {"prompt_tokens": 100, "completion_tokens": 10, "cost": 0.01}
DEAR = {"prompt_tokens": 100, "completion_tokens": 10, "cost": 0.4}


def note(text: str = "") -> str:
    """Notes."""
    return f"noted {text}"


NOTE = ToolCall("n", "note", {"text": "x"})


# ---- 17. a cost nobody reports


@pytest.mark.parametrize("cost", [None, "free", float("nan"), [], {}, True], ids=repr)
def test_17_an_unreported_cost_is_not_free(serve, cost):
    """17: at an endpoint that reports no cost max_cost did nothing: the run went on to max_turns."""
    server = serve(NOTE, repeat=True, usage={**PRICELESS, "cost": cost})
    with pytest.raises(ErrorBudget, match="unknown, so the limit cannot be kept; give the agent a price") as caught:
        agent_at(server, note, max_cost=0.5).run("go")
    assert len(server.requests) == 1
    assert caught.value.result.usage.unknown_cost_calls == 1


def test_17_an_answer_of_unknown_cost_is_given_with_a_warning(serve):
    """17: nobody was told that the limit could not be kept. The answer is paid for, so it is not withheld."""
    with pytest.warns(RuntimeWarning, match="cost of a call to test-model is unknown, so the limit cannot be kept"):
        result = agent_at(serve("Hello.", usage=PRICELESS), max_cost=0.5).run("go")
    assert (result.output, result.usage.cost_usd, result.usage.total_cost_usd) == ("Hello.", None, 0.0)


def test_17_a_server_of_ones_own_costs_nothing_and_keeps_its_limit(serve, monkeypatch):
    """17: a cost that is known to be zero is no unknown one."""
    server = serve(NOTE, "Hello.", usage=PRICELESS)
    monkeypatch.setenv("OLLAMA_HOST", server.base_url.removesuffix("/v1"))
    result = Agent("test", model="ollama/llama3.1", tools=[note], max_cost=0.01).run("go")
    assert (result.output, result.usage.cost_usd, result.usage.unknown_cost_calls) == ("Hello.", 0.0, 0)


@pytest.mark.parametrize("cost", [-5.0, "-5"])
def test_17_a_negative_cost_is_no_refund(serve, cost):
    """17: the sum followed whatever number came."""
    result = agent_at(serve("Hello.", usage={**CHEAP, "cost": cost}), max_cost=0.01).run("go")
    assert result.usage.total_cost_usd == 0.0


def test_17_a_cost_given_as_text_counts(serve):
    """17: a cost that came as a text was passed over."""
    server = serve(NOTE, repeat=True, usage={**CHEAP, "cost": "0.4"})
    with pytest.raises(ErrorBudget) as caught:
        agent_at(server, note, max_cost=0.5).run("go")
    assert (caught.value.spent, len(server.requests)) == (0.8, 2)


# ---- 18. what errors lost


class Invoice(BaseModel):
    total: float


FAILURES = {
    "budget": (ErrorBudget, {"max_cost": 0.5}, DEAR),
    "turns": (ErrorMaxTurns, {"max_turns": 2}, CHEAP),
    "output": (ErrorOutput, {"output": Invoice, "retries": 0}, CHEAP),
}


@pytest.mark.parametrize(("kind", "options", "usage"), FAILURES.values(), ids=FAILURES)
def test_18_an_error_carries_all_that_was_done_and_paid(serve, tmp_path, kind, options, usage):
    """18: these errors lost usage, messages and tool calls, and nothing was kept though the tools had done their work."""
    memory = MemorySQLite(tmp_path / "agent.db")
    ran = []

    def order(n: int) -> str:
        """Orders."""
        ran.append(n)
        return f"ordered {n}"

    server = serve(ToolCall("1", "order", {"n": 7}), [ToolCall("f", "final_answer", {"total": "much"})], "no more", usage=usage)
    agent = agent_at(server, order, memory=memory, **options)
    with pytest.raises(kind) as caught:
        agent.run("Order seven.")
    result = caught.value.result
    assert (ran, result.usage.model_calls, len(result.record.turns)) == ([7], 2, 2)
    assert result.usage.total_cost_usd == pytest.approx(2 * usage["cost"])
    assert [result.messages[n]["content"] for n in (0, 2)] == ["Order seven.", "ordered 7"]
    assert result.record.tool_calls[0].result_text == "ordered 7"
    kept = [message.to_dict() for message in asyncio.run(memory.get_messages())]
    assert [message["role"] for message in kept][:3] == ["user", "assistant", "tool"]
    assert kept[-1]["role"] == "assistant" and unanswered(kept) == []


@pytest.mark.parametrize(("kind", "options", "usage"), FAILURES.values(), ids=FAILURES)
def test_18_an_error_survives_pickling_with_its_result(serve, kind, options, usage):
    """18: as it must when the run happened in another process."""
    server = serve(NOTE, [ToolCall("f", "final_answer", {"total": "much"})], "no more", usage=usage)
    with pytest.raises(kind) as caught:
        agent_at(server, note, **options).run("go")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), copy.result) == (kind, str(caught.value), caught.value.result)


def test_18_a_finished_answer_over_the_limit_is_in_the_error(serve):
    """18: the answer whose cost passed the limit was thrown away."""
    with pytest.raises(ErrorBudget) as caught:
        agent_at(serve("The answer.", usage=DEAR), max_cost=0.1).run("go")
    assert caught.value.result.output == "The answer."
    assert (caught.value.spent, caught.value.limit) == (0.4, 0.1)


def test_18_tools_do_not_run_once_the_limit_is_passed(serve):
    """18: what is already over the limit has no side effects any more."""
    ran = []

    def order() -> None:
        """Orders."""
        ran.append(1)

    with pytest.raises(ErrorBudget) as caught:
        agent_at(serve(ToolCall("1", "order", {}), usage=DEAR), order, max_cost=0.1).run("go")
    assert ran == [] and caught.value.result.usage.model_calls == 1


def test_18_retries_asked_for_by_a_validator_are_paid_for_and_on_record(serve):
    """18: answers sent back for correction were lost with the error that ended them."""
    server = serve("one", "two", "three", usage=CHEAP)
    agent = agent_at(server, retries=2)

    @agent.output_validator
    def never(ctx, output):
        raise Retry(f"not {output}")

    with pytest.raises(ErrorOutput, match="not three") as caught:
        agent.run("go")
    assert caught.value.raw == "three"
    assert [m["content"] for m in caught.value.result.messages if m["role"] == "assistant"] == ["one", "two", "three"]
    assert caught.value.result.usage.total_cost_usd == pytest.approx(0.03)


# ---- 19. summaries


def summary_of(server, agent_server, turns, keep_recent=1, **options):
    """An agent on `agent_server` that needs `turns` tool turns, with summaries made at `server`."""
    policy = HistorySummarize(server.model, keep_recent=keep_recent)
    return agent_at(agent_server, note, history=policy, max_turns=turns + 2, **options)


def test_19_summaries_count_in_usage(serve):
    """19: the calls of HistorySummarize were in nobody's usage."""
    writer = serve("- so far", repeat=True, usage=DEAR)
    server = serve(*[NOTE] * 3, "done", usage=CHEAP)
    result = summary_of(writer, server, 3).run("go")
    assert len(writer.requests) >= 1
    assert result.usage.model_calls == 4 + len(writer.requests)
    assert result.usage.total_cost_usd == pytest.approx(4 * 0.01 + 0.4 * len(writer.requests))


def test_19_summaries_stand_under_max_cost(serve):
    """19: dollars were spent on summaries while max_cost saw cents."""
    writer = serve("- so far", repeat=True, usage=DEAR)
    server = serve(NOTE, repeat=True, usage=CHEAP)
    with pytest.raises(ErrorBudget) as caught:
        summary_of(writer, server, 20, max_cost=0.5).run("go")
    assert 0.5 <= caught.value.spent < 1.0 and len(writer.requests) == 2


def test_19_nothing_is_summed_up_twice(serve):
    """19: the same text was summed up anew before every turn."""
    notes = [ToolCall(f"c{n}", "note", {"text": f"item{n};"}) for n in range(12)]
    writer, server = serve("- so far", repeat=True), serve(*notes, "done")
    summary_of(writer, server, 12, keep_recent=4).run("go")
    texts = [request["messages"][-1]["content"] for request in writer.requests]
    assert 2 <= len(texts) <= 12 / 4
    assert [sum(f"noted item{n};" in text for text in texts) for n in range(5)] == [1] * 5
    assert all("- so far" in text for text in texts[1:])


def test_19_a_conversation_that_goes_on_is_not_summed_up_again_each_run(serve):
    """19: nor from run to run."""
    writer, server = serve("- so far", repeat=True), serve("Hello.", repeat=True)
    policy = HistorySummarize(writer.model, keep_recent=4)
    agent = agent_at(server, memory=Memory(), history=policy)
    for number in range(12):
        agent.run(f"question {number}")
    texts = [request["messages"][-1]["content"] for request in writer.requests]
    assert 1 <= len(texts) <= 3
    assert [sum(f"question {number}\n" in f"{text}\n" for text in texts) for number in range(4)] == [1] * 4


@pytest.mark.parametrize("keep_recent", [0, 1, 4])
def test_19_the_question_is_always_asked(serve, keep_recent):
    """19: keep_recent=0 summed up the question itself, and sent system messages only."""
    writer, server = serve("- so far", repeat=True), serve("Hello.", repeat=True)
    agent = agent_at(server, memory=Memory(), history=HistorySummarize(writer.model, keep_recent=keep_recent), instructions="Be brief.")
    for number in range(8):
        agent.run(f"question {number}")
    last = [request["messages"][-1] for request in server.requests]
    assert last == [{"role": "user", "content": f"question {number}"} for number in range(8)]


# ---- 20. one long turn


TOOL_TURNS = 20
LONG = "x" * 4_000


def policies(writer):
    return {
        "window": HistorySlidingWindow(window_size=6),
        "truncate": HistoryTruncate(max_tokens=3_000),
        "summarize": HistorySummarize(writer.model, keep_recent=2),
    }


@pytest.mark.parametrize("policy", ["window", "truncate", "summarize"])
def test_20_every_policy_shortens_one_long_run(serve, policy):
    """20: policies cut between user messages only, so one run of twenty huge tool results was sent whole, each time."""

    def read(page: int) -> str:
        """Reads."""
        return f"page {page} {LONG}"

    writer = serve("- pages were read", repeat=True)
    server = serve(*[ToolCall(f"c{n}", "read", {"page": n}) for n in range(TOOL_TURNS)], "done")
    agent = agent_at(server, read, history=policies(writer)[policy], max_turns=TOOL_TURNS + 1, instructions="Be brief.")
    agent.run("Read all of it.")
    sent = server.requests[-1]["messages"]
    assert sum(len(str(message)) for message in sent) < 5 * len(LONG)
    assert f"page {TOOL_TURNS - 1} " in sent[-1]["content"]
    assert sent[0] == {"role": "system", "content": "Be brief."}
    assert {"role": "user", "content": "Read all of it."} in sent
    assert [unanswered(request["messages"]) for request in server.requests] == [[]] * (TOOL_TURNS + 1)


@pytest.mark.parametrize("policy", ["window", "truncate", "summarize"])
def test_20_the_conversation_itself_is_kept_whole(serve, policy):
    """20: what is left out of a request is not lost."""
    writer = serve("- notes", repeat=True)
    server = serve(*[NOTE] * 10, "done")
    result = agent_at(server, note, history=policies(writer)[policy], max_turns=11).run("go")
    assert len(result.messages) == 1 + 2 * 10 + 1


def test_20_policies_shorten_a_message_list_of_one_turn():
    """20: as called by hand, with the numbers of the report: Truncate(100) and Window(1) on twenty huge tool results."""
    calls = [ToolCall(f"c{n}", "read", {}) for n in range(20)]
    exchanges = [[Message("assistant", None, [call.to_wire()]), Message("tool", LONG, tool_call_id=call.id)] for call in calls]
    turn = [Message("user", "go"), *[message for exchange in exchanges for message in exchange]]
    for policy in (HistoryTruncate(100), HistorySlidingWindow(1)):
        kept = asyncio.run(policy.compact(list(turn)))
        assert kept == [turn[0], *turn[-2:]]
