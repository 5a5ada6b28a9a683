"""HistorySummarize: what is sent in place of the older turns, when a summary is made, and who pays."""

import asyncio
import pickle
import re
import threading

import pytest

from agentroute import (
    Agent,
    ErrorBudget,
    ErrorConfig,
    HistorySummarize,
    HistoryTruncate,
    Memory,
    Message,
    ModelRetry,
    Price,
    RunStore,
    ToolCall,
)
from agentroute.errors import ErrorModelKey, ErrorModelRequest, ErrorModelServer
from agentroute.message import LLMRequest, LLMResponse
from agentroute.summarize import MAX_PIECE
from agentroute.testing import ModelFunction, ModelScripted
from tests.test_sqlite import forked


def summarizer(cost_usd: float | None = 0.0) -> ModelFunction:
    """A model whose summaries are numbered."""
    model = ModelFunction(lambda request: f"summary {len(model.requests)}", cost_usd=cost_usd)
    return model


def once(model: ModelFunction) -> ModelRetry:
    """The model, whose failures are not tried again."""
    return ModelRetry(model, attempts=1)


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


# ---- money --------------------------------------------------------------------------------------------------------


def test_a_summary_that_passes_max_cost_is_kept_so_that_the_conversation_can_go_on():
    small = summarizer(cost_usd=0.5)
    agent = talked(HistorySummarize(small, keep_recent=4), 6, max_cost=0.4)
    with pytest.raises(ErrorBudget):
        agent.run("now")
    assert agent.run("now").output == "fine"
    assert texts(agent.model.requests[0].messages)[0] == "= summary 1"
    assert len(small.requests) == 1


def test_a_failed_call_of_unknown_cost_ends_a_run_under_max_cost_and_says_how_to_go_on():
    policy = HistorySummarize(ModelScripted([ErrorModelServer("down", sent=True)], cost_usd=None), keep_recent=1)
    with pytest.warns(RuntimeWarning, match=r"cost is unknown: under a budget, give HistorySummarize its price="), pytest.raises(ErrorBudget):
        talked(policy, 3, max_cost=5).run("now")


def test_with_a_price_the_run_goes_on_after_a_failed_call():
    price = Price(input_usd_per_mtok=0.1, output_usd_per_mtok=0.1)
    policy = HistorySummarize(ModelScripted([ErrorModelServer("down", sent=True)], cost_usd=None), keep_recent=1, price=price)
    with pytest.warns(RuntimeWarning, match="no summary"):
        assert talked(policy, 3, max_cost=5).run("now").output == "fine"


def test_a_failed_call_costs_a_run_without_a_budget_no_word_about_money():
    policy = HistorySummarize(ModelScripted([ErrorModelServer("down", sent=True)], cost_usd=None), keep_recent=1)
    with pytest.warns(RuntimeWarning, match="so it is sent as it is$"):
        talked(policy, 3).run("now")


# ---- many runs at once --------------------------------------------------------------------------------------------


def slow(answer=lambda count: f"summary {count}", cost_usd=0.0):
    """A summarizer whose answers come a few steps of the loop later."""

    async def write(request):
        count = len(model.requests)
        await asyncio.sleep(0.02)
        return answer(count)

    model = ModelFunction(write, cost_usd=cost_usd)
    return model


async def asked(model):
    """Waits until a summary is asked for."""
    while not model.requests:
        await asyncio.sleep(0)


def test_runs_at_once_share_one_summary_and_one_of_them_pays():
    small = slow(cost_usd=0.5)
    agent = talked(HistorySummarize(small, keep_recent=1), 3)

    async def together():
        return await asyncio.gather(*(agent.arun(f"now {number}") for number in range(10)))

    results = asyncio.run(together())
    assert len(small.requests) == 1
    assert sorted(result.usage.total_cost_usd for result in results) == [0.01] * 9 + [0.51]
    assert {texts(request.messages)[0] for request in agent.model.requests} == {"= summary 1"}


def test_threads_with_loops_of_their_own_share_one_summary():
    small = slow()
    policy = HistorySummarize(small, keep_recent=1)
    sent = []
    threads = [threading.Thread(target=lambda: sent.append(compacted(policy, chat(3)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one[0] for one in sent] == ["= summary 1"] * 8
    assert len(small.requests) == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_the_summary_its_parent_makes():
    asked, go_on = threading.Event(), threading.Event()

    async def write(request):
        asked.set()
        await asyncio.to_thread(go_on.wait)
        return "parent's"

    small = ModelFunction(write)
    policy = HistorySummarize(small, keep_recent=1)
    sent = []

    def child():
        small.function = lambda request: "child's"
        assert compacted(policy, chat(3))[0] == "= child's"

    thread = threading.Thread(target=lambda: sent.append(compacted(policy, chat(3))))
    thread.start()
    asked.wait()
    assert forked(child) == 0
    go_on.set()
    thread.join()
    assert sent[0][0] == "= parent's"


def test_when_the_run_that_makes_it_is_cancelled_the_next_one_makes_it():
    small = slow()
    policy = HistorySummarize(small, keep_recent=1)

    async def leave():
        first, *others = [asyncio.create_task(policy.compact(chat(3))) for _ in range(3)]
        await asked(small)
        first.cancel()
        sent = await asyncio.gather(*others)
        return first.cancelled(), [texts(one)[0] for one in sent]

    assert asyncio.run(leave()) == (True, ["= summary 2"] * 2)
    assert len(small.requests) == 2


def test_a_run_that_stops_waiting_stops_nobody_else():
    small = slow()
    policy = HistorySummarize(small, keep_recent=1)

    async def leave():
        first, second, third = [asyncio.create_task(policy.compact(chat(3))) for _ in range(3)]
        await asked(small)
        second.cancel()
        return [texts(one)[0] for one in await asyncio.gather(first, third)]

    assert asyncio.run(leave()) == ["= summary 1"] * 2
    assert len(small.requests) == 1


def test_when_the_one_that_makes_it_has_no_money_the_next_one_makes_it():
    policy = HistorySummarize(summarizer(), keep_recent=1, price=Price(input_usd_per_mtok=100, output_usd_per_mtok=100))
    memory = talked(policy, 3).memory
    poor, rich = (Agent("a", model=ModelScripted(["fine"]), memory=memory, history=policy, max_cost=limit) for limit in (0.001, 5))

    async def together():
        return await asyncio.gather(poor.arun("now"), rich.arun("now"), return_exceptions=True)

    first, second = asyncio.run(together())
    assert isinstance(first, ErrorBudget)
    assert (second.output, second.usage.model_calls) == ("fine", 2)


def test_a_model_that_fails_is_not_asked_by_each_of_those_who_waited():
    small = slow(lambda count: ErrorModelServer("down"))
    agent = talked(HistorySummarize(once(small), keep_recent=1), 3)

    async def together():
        return await asyncio.gather(*(agent.arun("now") for _ in range(5)))

    with pytest.warns(RuntimeWarning) as warned:
        results = asyncio.run(together())
    assert [result.output for result in results] == ["fine"] * 5
    assert (len(small.requests), len(warned)) == (1, 1)


# ---- a model that fails -------------------------------------------------------------------------------------------


def working(policy, turns=3, runs=1):
    """An agent whose run needs `turns` tool calls, after `chat(3)`."""

    def look(n: int) -> int:
        return n

    answers = [*[ToolCall(f"c{n}", "look", {"n": n}) for n in range(turns)], "done"] * runs
    memory = Memory()
    asyncio.run(memory.add_messages(chat(3, asked=False)))
    return Agent("a", model=ModelScripted(answers), tools=[look], memory=memory, history=policy)


def test_after_a_failure_it_is_not_asked_again_in_the_same_run():
    small = ModelFunction(lambda request: ErrorModelServer("down"))
    policy = HistorySummarize(once(small), keep_recent=1)
    agent = working(policy, runs=2)
    with pytest.warns(RuntimeWarning) as warned:
        agent.run("go")
    assert (len(small.requests), len(warned)) == (1, 1)
    with pytest.warns(RuntimeWarning):
        agent.run("go")
    assert len(small.requests) == 2


REFUSED = LLMResponse(None, refusal="no", finish_reason="stop")


@pytest.mark.parametrize("refusal", [ErrorModelRequest("no"), ErrorModelKey("no"), REFUSED], ids=["request", "key", "refusal"])
def test_after_a_refusal_it_is_not_asked_about_the_same_turns_again(refusal):
    small = ModelFunction(lambda request: refusal)
    policy = HistorySummarize(small, keep_recent=2)
    with pytest.warns(RuntimeWarning, match="no summary"):
        assert compacted(policy, chat(3)) == texts(chat(3))
    assert compacted(policy, chat(3)) == texts(chat(3))
    assert compacted(policy, chat(4)) == texts(chat(4))
    assert len(small.requests) == 1
    with pytest.warns(RuntimeWarning, match="no summary"):
        compacted(policy, chat(5))


def test_after_another_failure_the_next_run_asks_again():
    answers = iter([ErrorModelServer("down"), "better"])
    policy = HistorySummarize(once(ModelFunction(lambda request: next(answers))), keep_recent=2)
    with pytest.warns(RuntimeWarning, match="down"):
        compacted(policy, chat(3))
    assert compacted(policy, chat(3))[0] == "= better"


@pytest.mark.parametrize("answer", ["", " \n"])
def test_an_empty_summary_takes_the_place_of_nothing(answer):
    policy = HistorySummarize(once(ModelFunction(lambda request: answer)), keep_recent=1)
    with pytest.warns(RuntimeWarning, match="the summary is empty"):
        assert compacted(policy, chat(3)) == texts(chat(3))


def test_a_summary_that_was_cut_off_is_marked_and_told():
    small = ModelFunction(lambda request: LLMResponse("half of", finish_reason="length"))
    with pytest.warns(RuntimeWarning, match="summary of the earlier conversation was cut off"):
        assert compacted(HistorySummarize(small, keep_recent=1), chat(3))[0] == "= half of [… the summary was cut off here]"


def test_turns_of_nothing_are_summed_up_too():
    silent = [Message("user", ""), Message("assistant", None), Message("user", "now")]
    assert compacted(HistorySummarize(summarizer(), keep_recent=0), silent)[0] == "= summary 1"


# ---- long conversations -------------------------------------------------------------------------------------------


def long_chat(turns: int, size: int = 1000) -> list[Message]:
    said = [m for n in range(turns) for m in (Message("user", f"q{n} {'x' * size}"), Message("assistant", f"a{n} {'y' * size}"))]
    return [*said, Message("user", "now")]


def asked_of(model: ModelFunction) -> list[str]:
    return [request.messages[-1].text for request in model.requests]


@pytest.mark.parametrize(("context", "most"), [(8192, 8192 * 4 // 2), (None, MAX_PIECE)])
def test_a_long_conversation_is_summed_up_in_pieces_that_fit_and_each_summary_feeds_the_next(context, most):
    model = summarizer()
    model.context_tokens = context
    kept = compacted(HistorySummarize(model, keep_recent=4), long_chat(300))
    asked = asked_of(model)
    assert (kept[0], kept[-1]) == (f"= summary {len(asked)}", "now")
    assert max(map(len, asked)) < most + 100
    assert len(asked) == pytest.approx(600_000 / most, rel=0.15, abs=1)
    assert [text.startswith(f"SUMMARY OF WHAT CAME BEFORE: summary {n}\n") for n, text in enumerate(asked[1:], 1)] == [True] * (len(asked) - 1)
    assert re.findall(r"(?:USER: q|ASSISTANT: a)(\d+) ", " ".join(asked)) == [str(n) for n in range(296) for _ in "qa"]


def test_one_turn_that_is_too_long_is_cut_anywhere():
    model = summarizer()
    model.context_tokens = 2000
    compacted(HistorySummarize(model, keep_recent=0), long_chat(1, size=7000))
    assert [len(text) for text in asked_of(model)] == [pytest.approx(4000, abs=50)] * 3 + [pytest.approx(2000, abs=200)]


def test_what_the_summarizer_finds_too_long_is_given_to_it_in_halves():
    def short(request):
        size = len(request.messages[-1].text)
        return ErrorModelRequest("too long", too_long=True) if size > 10_000 else f"summary of {size}"

    model = ModelFunction(short)
    assert compacted(HistorySummarize(model, keep_recent=0), long_chat(20))[0].startswith("= summary of")
    assert sum(len(text) for text in asked_of(model) if len(text) <= 10_000) == pytest.approx(40_000, rel=0.1)


def test_what_cannot_be_made_short_enough_is_a_failure():
    model = ModelFunction(lambda request: ErrorModelRequest("too long", too_long=True))
    with pytest.warns(RuntimeWarning, match="no summary"):
        assert len(compacted(HistorySummarize(model, keep_recent=0), long_chat(20))) == 41
    assert len(model.requests) < 10


def test_pieces_that_were_summed_up_before_a_failure_are_kept():
    model = ModelScripted(["one", "two", ErrorModelRequest("no"), "three"])
    model.context_tokens = 8000
    policy = HistorySummarize(model, keep_recent=4)
    with pytest.warns(RuntimeWarning, match="no summary"):
        kept = compacted(policy, long_chat(30))
    assert kept[0] == "= two"
    assert (kept[2][:3], len(kept)) == ("q14", 2 + 16 * 2 + 1)


def test_with_a_summary_what_is_sent_fits_the_room():
    policy = HistorySummarize(summarizer(), keep_recent=4)
    kept = asyncio.run(policy.compact([Message("system", "Be kind."), *long_chat(50)], token_budget=1200))
    assert [text[:3] for text in texts(kept)] == ["Be ", "= s", "Und", "q48", "a48", "q49", "a49", "now"]


def test_without_a_summary_what_is_sent_fits_the_room_too():
    policy = HistorySummarize(ModelFunction(lambda request: ErrorModelRequest("no")), keep_recent=4)
    with pytest.warns(RuntimeWarning, match="no summary"):
        kept = asyncio.run(policy.compact(long_chat(50), token_budget=1200))
    assert [text[:3] for text in texts(kept)] == ["q48", "a48", "q49", "a49", "now"]
    assert len(asyncio.run(HistorySummarize(summarizer()).compact(long_chat(3), token_budget=600))) == 3


def test_a_long_summary_takes_at_most_half_of_the_room():
    policy = HistorySummarize(ModelFunction(lambda request: "s" * 9000), keep_recent=1)
    told, *_ = kept = asyncio.run(policy.compact(long_chat(5, size=10), token_budget=500))
    assert len(told.text) < 1100 and told.text.endswith(" more characters]")
    assert texts(kept)[-1] == "now"


def test_a_conversation_the_provider_finds_too_long_is_cut_beside_its_summary():
    policy = HistorySummarize(summarizer(), keep_recent=15)
    memory = Memory()
    asyncio.run(memory.add_messages(chat(20, asked=False)))
    model = Small(12, "too long")
    assert Agent("a", model=model, memory=memory, history=policy).run("now").output == "fine"
    assert texts(model.requests[-1].messages)[0] == "= summary 1"


def test_three_hundred_conversations_in_turn_are_summarized_once_each():
    model = summarizer()
    policy = HistorySummarize(model, keep_recent=1)
    chats = [[Message("user", f"I am {n}"), *chat(3)[1:]] for n in range(300)]
    for messages in chats * 2:
        compacted(policy, messages)
    assert len(model.requests) == 300


def test_earlier_stages_of_a_conversation_make_room_before_the_newest_ones_of_others(monkeypatch):
    monkeypatch.setattr("agentroute.summarize.MAX_SUMMARIES", 3)
    model = summarizer()
    policy = HistorySummarize(model, keep_recent=1)
    compacted(policy, [Message("user", "other"), *chat(3)[1:]])
    for turns in (3, 4, 5, 6, 7):
        compacted(policy, chat(turns))
    assert len(model.requests) == 6
    assert compacted(policy, [Message("user", "other"), *chat(3)[1:]])[0] == "= summary 1"


def test_a_policy_is_pickled_with_its_summaries_while_one_is_made():
    small = slow()
    policy = HistorySummarize("ollama/small", keep_recent=1)
    policy._agent = policy._agent.replace(model=small)

    async def meanwhile():
        making = asyncio.create_task(policy.compact(chat(3)))
        await asked(small)
        policy._agent, agent = policy._agent.replace(model="ollama/small"), policy._agent
        copy = pickle.loads(pickle.dumps(policy))
        policy._agent = agent
        await making
        return copy

    copy = asyncio.run(meanwhile())
    assert repr(copy) == repr(policy)
    assert asyncio.run(copy.compact(chat(1))) == chat(1)


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


@pytest.mark.parametrize(("context", "max_tokens", "room"), [(8000, None, 5998), (8000, 1000, 6998), (8000, 9000, 3998), (None, 1000, None)])
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
