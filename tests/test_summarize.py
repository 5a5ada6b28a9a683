"""HistorySummarize: what is sent in place of the older turns, when a summary is made, and who pays."""

import asyncio

import pytest

from agentroute import Agent, ErrorBudget, ErrorConfig, HistorySummarize, HistoryTruncate, Memory, Message, RunStore, ToolCall
from agentroute.errors import ErrorModelRequest, ErrorModelServer
from agentroute.message import LLMRequest
from agentroute.testing import ModelFunction, ModelScripted


def summarizer(cost_usd: float | None = 0.0) -> ModelFunction:
    """A model whose summaries are numbered."""
    model = ModelFunction(lambda request: f"summary {len(model.requests)}", cost_usd=cost_usd)
    return model


def chat(turns: int, *, asked: bool = True) -> list[Message]:
    said = [message for n in range(1, turns + 1) for message in (Message("user", f"q{n}"), Message("assistant", f"a{n}"))]
    return said + ([Message("user", "now")] if asked else [])


def texts(messages: list[Message]) -> list[str]:
    return [message.text.replace("Summary of our conversation so far:\n", "= ") for message in messages]


def compacted(policy: HistorySummarize, messages: list[Message]) -> list[str]:
    return texts(asyncio.run(policy.compact(messages)))


READY = "Understood; I carry on from there."


def test_the_older_turns_become_a_summary_and_the_last_ones_stay():
    assert compacted(HistorySummarize(summarizer(), keep_recent=2), chat(4)) == ["= summary 1", READY, "q3", "a3", "q4", "a4", "now"]


def test_a_short_conversation_costs_no_summary():
    model = summarizer()
    assert compacted(HistorySummarize(model, keep_recent=2), chat(2)) == texts(chat(2))
    assert model.requests == []


def test_leading_system_messages_stay_in_front():
    head = Message("system", "Be kind.")
    assert compacted(HistorySummarize(summarizer(), keep_recent=1), [head, *chat(3)])[:2] == ["Be kind.", "= summary 1"]


def test_with_keep_recent_0_the_question_stays():
    assert compacted(HistorySummarize(summarizer(), keep_recent=0), chat(3)) == ["= summary 1", READY, "now"]


def test_the_same_conversation_is_summarized_once():
    model = summarizer()
    policy = HistorySummarize(model, keep_recent=2)
    assert compacted(policy, chat(4)) == compacted(policy, chat(4))
    assert len(model.requests) == 1


def test_a_summary_serves_until_keep_recent_turns_more_have_grown_old_and_is_then_added_to():
    model = summarizer()
    policy = HistorySummarize(model, keep_recent=2)
    compacted(policy, chat(3))
    assert compacted(policy, chat(4)) == ["= summary 1", READY, "q2", "a2", "q3", "a3", "q4", "a4", "now"]
    assert compacted(policy, chat(5)) == ["= summary 2", READY, "q4", "a4", "q5", "a5", "now"]
    assert model.requests[1].messages[-1].text == "SUMMARY OF WHAT CAME BEFORE: summary 1\n\nUSER: q2\n\nASSISTANT: a2\n\nUSER: q3\n\nASSISTANT: a3"


def test_two_conversations_have_their_own_summaries():
    model = summarizer()
    policy = HistorySummarize(model, keep_recent=1)
    other = [Message("user", "other"), *chat(3)[1:]]
    assert compacted(policy, chat(3))[0] == "= summary 1"
    assert compacted(policy, other)[0] == "= summary 2"
    assert compacted(policy, chat(3))[0] == "= summary 1"


def exchange(n: int) -> list[Message]:
    call = ToolCall(f"c{n}", "look", {"n": n})
    return [Message("assistant", None, tool_calls=[call.to_wire()]), Message("tool", f"r{n}", tool_call_id=f"c{n}", name="look")]


def test_one_long_turn_of_tool_calls_shrinks_too_and_keeps_its_question_and_its_newest_results():
    messages = [Message("user", "count"), *(message for n in range(20) for message in exchange(n))]
    kept = asyncio.run(HistorySummarize(summarizer(), keep_recent=1).compact(messages))
    assert [message.role for message in kept] == ["user", "assistant", "user", "assistant", "tool"]
    assert texts(kept)[2:] == ["count", "", "r19"]


def test_tool_calls_and_results_are_told_to_the_summarizer():
    model = summarizer()
    messages = [Message("user", "count"), *exchange(1), *exchange(2)]
    asyncio.run(HistorySummarize(model, keep_recent=0).compact(messages))
    assert model.requests[0].messages[-1].text == 'USER: count\n\nASSISTANT calls look({"n": 1})\n\nTOOL look: r1'


def test_the_messages_given_are_not_changed():
    messages = chat(4)
    compacted(HistorySummarize(summarizer(), keep_recent=1), messages)
    assert messages == chat(4)


# ---- inside a run ---------------------------------------------------------------------------------------------


def talked(policy: HistorySummarize, turns: int, **options: object) -> Agent:
    memory = Memory()
    asyncio.run(memory.add_messages(chat(turns, asked=False)))
    return Agent("a", model=ModelFunction(lambda request: "fine", cost_usd=0.01), memory=memory, history=policy, **options)


def test_a_summary_counts_in_the_usage_of_the_run_that_needs_it():
    agent = talked(HistorySummarize(summarizer(cost_usd=0.5), keep_recent=1), 3)
    usage = agent.run("now").usage
    assert (usage.model_calls, usage.total_cost_usd) == (2, 0.51)


def test_a_summary_is_under_max_cost():
    agent = talked(HistorySummarize(summarizer(cost_usd=0.5), keep_recent=1), 3, max_cost=0.4)
    with pytest.raises(ErrorBudget) as error:
        agent.run("now")
    assert (error.value.spent, error.value.limit) == (0.5, 0.4)
    assert error.value.result.usage.model_calls == 1
    assert agent.model.requests == []


def test_a_summary_is_a_recorded_run_of_the_run_that_needs_it(tmp_path):
    store = RunStore(tmp_path / "runs.db")
    result = talked(HistorySummarize(summarizer(), keep_recent=1), 3, store=store).run("now")
    with store._database.read() as connection:
        rows = connection.execute("SELECT agent_name, parent_run_id FROM runs ORDER BY run_id").fetchall()
    store.close()
    assert sorted(rows) == [("a", None), ("history_summary", result.run_id)]


def test_a_loop_of_tool_calls_does_not_pay_for_a_summary_before_every_turn():
    answers = [ToolCall(f"c{n}", "look", {"n": n}) for n in range(9)]
    model, small = ModelScripted([*answers, "done"]), summarizer()

    def look(n: int) -> int:
        return n

    Agent("a", model=model, tools=[look], history=HistorySummarize(small, keep_recent=4)).run("count")
    assert len(model.requests) == 10
    assert len(small.requests) == 2


def test_a_summarizer_that_fails_is_told_and_the_conversation_goes_as_it_is():
    policy = HistorySummarize(ModelScripted([ErrorModelServer("the provider failed")]), keep_recent=1)
    agent = talked(policy, 3)
    with pytest.warns(RuntimeWarning, match="no summary of the earlier conversation could be made .the provider failed"):
        assert agent.run("now").output == "fine"
    assert texts(agent.model.requests[0].messages) == texts(chat(3))


def test_a_model_string_is_resolved_and_asks_for_its_key():
    agent = talked(HistorySummarize("anthropic/claude-haiku-4.5", keep_recent=1), 3)
    with pytest.raises(ErrorConfig, match=r"no API key for .anthropic/claude-haiku-4\.5."):
        agent.run("now")


def test_without_a_model_it_is_a_runtime_error_at_once():
    with pytest.raises(RuntimeError, match="needs a model"):
        HistorySummarize(model=None)


# ---- the room a model has -------------------------------------------------------------------------------------


class Budgeted:
    """A policy that notes the room it was told of."""

    def __init__(self) -> None:
        self.budgets: list[int | None] = []

    async def compact(self, messages, token_budget=None):
        self.budgets.append(token_budget)
        return messages


def sized(tokens: int | None) -> ModelFunction:
    model = ModelFunction(lambda request: "fine")
    model.context_tokens = tokens  # type: ignore[attr-defined]
    return model


@pytest.mark.parametrize(("context", "max_tokens", "room"), [(8000, None, 6000), (8000, 1000, 7000), (None, 1000, None)])
def test_a_policy_is_told_the_room_that_answer_and_tools_leave(context, max_tokens, room):
    policy = Budgeted()
    Agent("a", model=sized(context), history=policy, max_tokens=max_tokens).run("hi")
    assert policy.budgets == [room]


def test_tool_definitions_take_their_part_of_the_room():
    def look(place: str) -> str:
        """Looks around."""
        return place

    policy = Budgeted()
    Agent("a", model=sized(8000), tools=[look], history=policy).run("hi")
    assert 5900 < policy.budgets[0] < 6000


def test_a_policy_that_knows_no_budget_is_not_given_one():
    class Plain:
        async def compact(self, messages):
            return messages

    assert str(Agent("a", model=sized(8000), history=Plain()).run("hi")) == "fine"


class Counting(Memory):
    """A memory that notes how many messages it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[int | None] = []

    async def get_messages(self, limit=None):
        self.limits.append(limit)
        return await super().get_messages(limit)


def test_no_more_is_read_from_the_memory_than_the_policy_can_need():
    from agentroute import HistorySlidingWindow

    memory = Counting()
    asyncio.run(memory.add_messages(chat(50, asked=False)))
    model = ModelFunction(lambda request: "fine")
    Agent("a", model=model, memory=memory, history=HistorySlidingWindow(3)).run("now")
    assert memory.limits == [3]
    assert texts(model.requests[0].messages) == ["q50", "a50", "now"]


def test_requests_hold_what_the_policy_left():
    agent = talked(HistorySummarize(summarizer(), keep_recent=1), 3)
    agent.run("now")
    (request,) = agent.model.requests
    assert isinstance(request, LLMRequest)
    assert texts(request.messages) == ["= summary 1", READY, "q3", "a3", "now"]


class Small(ModelFunction):
    """A model that finds more than `most` messages too long, and says so as providers do."""

    def __init__(self, most: int, words: str) -> None:
        super().__init__(self._answer)
        self.most, self.words = most, words

    def _answer(self, request: LLMRequest) -> object:
        count = len(request.messages)
        return ErrorModelRequest(self.words.format(count * 1000), too_long=True) if count > self.most else "fine"


@pytest.mark.parametrize("words", ["it has {} tokens, and 7000 tokens are allowed", "too long"])
def test_a_conversation_the_provider_finds_too_long_is_cut_further_and_sent_again(words):
    memory = Memory()
    asyncio.run(memory.add_messages(chat(20, asked=False)))
    model = Small(7, words)
    result = Agent("a", model=model, memory=memory, history=HistoryTruncate()).run("now")
    sent = [len(request.messages) for request in model.requests]
    assert (result.output, result.usage.model_calls, sent[0]) == ("fine", 1, 41)
    assert 3 <= sent[-1] <= 7


def test_what_cannot_be_cut_further_is_the_providers_error():
    model = Small(0, "too long")
    with pytest.raises(ErrorModelRequest, match="too long"):
        Agent("a", model=model, history=HistoryTruncate()).run("now")
    assert len(model.requests) == 1


def test_without_a_policy_nothing_is_cut():
    model = Small(0, "too long")
    with pytest.raises(ErrorModelRequest, match="too long"):
        Agent("a", model=model).run("now")
    assert len(model.requests) == 1
