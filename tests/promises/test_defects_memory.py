"""Defects 26 to 32 of the published 1.1.0: memory and state. Each test fails on a build that has the defect."""

import asyncio
import threading

import pytest
from pydantic import BaseModel

from agentroute import (
    Context,
    ErrorBudget,
    ErrorConfig,
    ErrorMaxTurns,
    ErrorModel,
    HistorySlidingWindow,
    HistoryTruncate,
    Memory,
    MemoryProto,
    MemorySQLite,
    Message,
    ToolCall,
    tool,
)
from tests.promises.test_defects_broken import agent_at, conversation, said, unanswered
from tests.server import Raw


def go(awaitable):
    return asyncio.run(awaitable)


@pytest.fixture(params=["RAM", "file"])
def memory(request, tmp_path):
    """Both memories, which must answer alike."""
    return {"RAM": Memory, "file": lambda: MemorySQLite(tmp_path / "agent.db")}[request.param]()


# ---- 26. one conversation for all


def test_26_conversations_of_one_memory_are_kept_apart(serve, memory):
    """26: there was no session id; all users of an agent were in one conversation."""
    server = serve(lambda body: f"to {body['messages'][-1]['content']}", repeat=True)
    agent = agent_at(server, memory=memory)

    async def talk(who):
        for number in range(4):
            await agent.arun(f"{who} {number}", session_id=who)

    async def main():
        await asyncio.gather(*[talk(who) for who in ("ada", "bob", "cleo")])

    go(main())
    for who in ("ada", "bob", "cleo"):
        texts = [text for number in range(4) for text in (f"{who} {number}", f"to {who} {number}")]
        assert [text for _, text in conversation(memory.session(who))] == texts
        last = next(r for r in server.requests if r["messages"][-1]["content"] == f"{who} 3")
        assert [message["content"] for message in last["messages"]] == texts[:7]
    assert conversation(memory) == []


def test_26_runs_at_once_in_one_conversation_are_each_kept_whole(serve, memory):
    """26: concurrent runs of one conversation do not see each other; what they add is not mixed up."""

    def look() -> str:
        """Looks."""
        return "seen"

    by_turn = {1: lambda body: ToolCall("c", "look", {}), 3: lambda body: f"to {body['messages'][0]['content']}"}
    server = serve(lambda body: by_turn[len(body["messages"])](body), repeat=True)
    agent = agent_at(server, look, memory=memory)
    met = asyncio.Barrier(6)

    class Together:
        """Lets all runs begin before any goes on, so that they are really concurrent."""

        async def compact(self, messages, token_budget=None):
            await met.wait()
            return messages

    async def main():
        await asyncio.gather(*[agent.replace(history=Together()).arun(f"q{number}") for number in range(6)])

    go(main())
    kept = conversation(memory)
    runs = [kept[start : start + 4] for start in range(0, 24, 4)]
    questions = [run[0][1] for run in runs]
    assert sorted(questions) == [f"q{number}" for number in range(6)]
    assert runs == [[("user", q), ("assistant", ""), ("tool", "seen"), ("assistant", f"to {q}")] for q in questions]


# ---- 27. failed runs


FAILURES = {
    "HTTP": ([Raw(400, [b'{"error": {"message": "no"}}'])], ErrorModel, {}),
    "unreadable": ([Raw(body=[b'{"choices"'])], ErrorModel, {}),
    "turns": ([ToolCall("c", "look", {})], ErrorMaxTurns, {"max_turns": 1}),
    "budget": ([ToolCall("c", "look", {})], ErrorBudget, {"max_cost": 0.0001}),
}


def look() -> str:
    """Looks."""
    return "seen"


@pytest.mark.parametrize(("answers", "kind", "options"), FAILURES.values(), ids=FAILURES)
def test_27_the_users_message_of_a_failed_run_is_kept(serve, memory, answers, kind, options):
    """27: a run that failed forgot even what the user had said; the next one must find a conversation that can be sent."""
    server = serve(*answers, "Hello.", repeat=True)
    agent = agent_at(server, look, memory=memory, **options)
    with pytest.raises(kind):
        agent.run("My name is Ada.")
    agent.replace(max_turns=5, max_cost=None).run("Who am I?")
    sent = server.requests[-1]["messages"]
    assert sent[0] == {"role": "user", "content": "My name is Ada."}
    assert sent[-1] == {"role": "user", "content": "Who am I?"}
    assert (sent[-2]["role"], unanswered(sent)) == ("assistant", [])


def test_27_so_is_that_of_a_cancelled_run(serve, memory):
    """27: as above."""

    server = serve(Raw(hold_s=30))

    async def main():
        task = asyncio.ensure_future(agent_at(server, memory=memory).arun("My name is Ada."))
        while not server.requests:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])

    go(main())
    assert [role for role, _ in conversation(memory)] == ["user", "assistant"]
    assert conversation(memory)[0] == ("user", "My name is Ada.")


# ---- 28. plain tools and the memory


def test_28_plain_tools_use_the_memory(serve, memory):
    """28: in a tool that is not async the memory's methods gave coroutines: nothing was stored, and nobody said so."""
    seen = []

    def keep(ctx: Context, key: str, value: str) -> str:
        """Keeps."""
        seen.append((threading.current_thread() is threading.main_thread(), ctx.memory.remember(key, value)))
        return "kept"

    def find(ctx: Context, query: str) -> list[str]:
        """Finds."""
        return ctx.memory.recall(query)

    async def drop(ctx: Context, key: str) -> str:
        """Drops."""
        await ctx.memory.forget(key)
        return "dropped"

    calls = [
        ToolCall("1", "keep", {"key": "colour", "value": "blue"}), ToolCall("2", "find", {"query": "colour"}), ToolCall("3", "drop", {"key": "colour"}),
    ]  # fmt: skip
    server = serve(*calls, "done")
    agent_at(server, keep, find, drop, memory=memory).run("go")
    told = [request["messages"][-1]["content"] for request in server.requests[1:]]
    assert told == ["kept", '["blue"]', "dropped"]
    assert (seen, go(memory.recall(""))) == ([(False, None)], [])


def test_28_plain_validators_and_approval_functions_use_it_too(serve, memory):
    """28: they are plain functions as often as not."""
    found = []

    def approve(ctx, call):
        ctx.memory.remember("asked", call.name)
        return ctx.memory.recall("asked") == ["pay"]

    pay = tool(lambda: "paid", name="pay", needs_approval=True)
    server = serve(ToolCall("1", "pay", {}), "Hello.")
    agent = agent_at(server, pay, memory=memory, approve=approve)

    @agent.output_validator
    def note(ctx, output):
        ctx.memory.remember("answer", output)
        found.extend(ctx.memory.recall("answer"))

    agent.run("Hi")
    assert (server.requests[1]["messages"][-1]["content"], found) == ("paid", ["Hello."])


# ---- 29. recall


FACTS = {
    "favorite_color": "The user's favorite color is blue",
    "dog": "Rex is a dog",
    "discount": "They get 100% off",
    "path": "Files are in snake_case",
    "language": "They write C++ (mostly)",
    "mail": "Write to a@b.example",
    "city": "Sie wohnt in Zürich, am café",
    "japan": "日本に住んでいます",
}
RECALLS = [
    ("what is my favorite color?", "favorite_color"), ("What's the user's favourite color", "favorite_color"), ("color favorite", "favorite_color"),
    ("blu", "favorite_color"), ("favorite_color", "favorite_color"), ("FAVORITE", "favorite_color"), ("Is there a dog?", "dog"),
    ("100%", "discount"), ("snake_case", "path"), ("C++ (", "language"), ("a@b.example", "mail"), ("zurich", "city"), ("Cafe", "city"),
    ("日本", "japan"), ("住んで", "japan"), ("'; DROP TABLE facts; --dog", "dog"), ('dog"', "dog"), ("dog NOT rex", "dog"), ("value:dog", "dog"),
    ("dog*", "dog"), ("(dog", "dog"), ("NEAR(dog rex)", "dog"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "key"), RECALLS, ids=[query for query, _ in RECALLS])
def test_29_a_question_finds_its_fact(memory, query, key):
    """29: questions found nothing, order mattered in RAM, and words such as OR and NOT were operators in the file."""
    for name, value in FACTS.items():
        go(memory.remember(name, value))
    assert go(memory.recall(query))[0] == FACTS[key]


@pytest.mark.parametrize("query", ["%", "_", "*", "?"])
def test_29_signs_are_no_wildcards(memory, query):
    """29: % and _ matched everything."""
    go(memory.remember("plain", "nothing special"))
    assert go(memory.recall(query)) == []


QUERIES = [
    *[query for query, _ in RECALLS], "", "  ", "%", "_", "nothing", "a", "is", "dog OR blue", "the user", "color OR", "Zür", "write", "they",
    "\"", "()", "^", "x" * 50_000, "日", "🙂", "-", "AND", "\0", "0",
]  # fmt: skip


def test_29_both_memories_find_the_same(tmp_path):
    """29: Memory and MemorySQLite disagreed."""
    ram, file = Memory(), MemorySQLite(tmp_path / "agent.db")
    for name, value in FACTS.items():
        go(ram.remember(name, value))
        go(file.remember(name, value))
    assert {query: go(ram.recall(query)) for query in QUERIES} == {query: go(file.recall(query)) for query in QUERIES}


@pytest.mark.parametrize(("limit", "count"), [(0, 0), (-1, 0), (1, 1), (3, 3), (10**20, 8)])
@pytest.mark.parametrize("query", ["", "a e i o u they the is in user dog write files color"])
def test_29_the_limit_is_kept(memory, limit, count, query):
    """29: limit=0 still gave a fact."""
    for name, value in FACTS.items():
        go(memory.remember(name, value))
    assert len(go(memory.recall(query, limit))) <= count
    assert len(go(memory.recall("", limit))) == count


@pytest.mark.parametrize("value", [7, 1.5, None, True, b"x", ["a"], {"a": 1}], ids=repr)
def test_29_a_value_that_is_no_text_is_refused(memory, value):
    """29: the file took it and gave an int back; in RAM recall crashed on it later."""
    for key, given in (("key", value), (value, "value")):
        with pytest.raises(ErrorConfig, match="takes a str"):
            go(memory.remember(key, given))
    assert go(memory.recall("")) == []


# ---- 30. growth


class Watched:
    """A memory that notes how much of it is asked for."""

    def __init__(self, inner):
        self.inner, self.asked = inner, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def get_messages(self, limit=None):
        self.asked.append(limit)
        return await self.inner.get_messages(limit)


@pytest.mark.parametrize(("policy", "bound"), [(HistorySlidingWindow(6), 6), (HistoryTruncate(500), 500)], ids=["window", "truncate"])
def test_30_a_run_reads_no_more_than_its_policy_can_need(serve, memory, policy, bound):
    """30: every run loaded the whole conversation, however long it had grown."""
    go(memory.add_messages([Message(("user", "assistant")[number % 2], f"m{number}") for number in range(5_000)]))
    watched = Watched(memory)
    server = serve("Hello.")
    result = agent_at(server, memory=watched, history=policy).run("Hi")
    assert watched.asked == [policy.newest] == [bound]
    assert len(result.messages) <= bound + 2
    assert server.requests[0]["messages"][-1]["content"] == "Hi"


class Unbounded:
    """The same policy, with nothing said of how much it can need."""

    def __init__(self, policy):
        self.policy = policy

    async def compact(self, messages, token_budget=None):
        return await self.policy.compact(messages, token_budget)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 20])
def test_30_what_is_sent_is_what_would_be_sent_of_the_whole(serve, tmp_path, size):
    """30: reading less changes nothing of what the model sees, wherever the conversation is cut."""
    script = [ToolCall("c", "look", {}), "a", "b", [ToolCall("c", "look", {}), ToolCall("d", "look", {})], "c", "d"]
    bounded, whole = serve(*script), serve(*script)
    policy = HistorySlidingWindow(size)
    first = agent_at(bounded, look, memory=MemorySQLite(tmp_path / "a.db"), history=policy, instructions="Be brief.")
    other = agent_at(whole, look, memory=MemorySQLite(tmp_path / "b.db"), history=Unbounded(policy), instructions="Be brief.")
    for number in range(4):
        first.run(f"q{number}")
        other.run(f"q{number}")
    assert [request["messages"] for request in bounded.requests] == [request["messages"] for request in whole.requests]


# ---- 31. typed answers in a conversation


class Invoice(BaseModel):
    number: str


@pytest.mark.parametrize("mode", ["auto", "tool", "native", "prompted", "text"])
def test_31_a_typed_answer_is_remembered_as_what_the_assistant_said(serve, memory, mode):
    """31: a conversation of typed answers was kept as tool messages that said "ok", without any answer."""
    answer = {"number": "INV-42"}
    handed_in = {"auto": ToolCall("f", "final_answer", answer), "tool": ToolCall("f", "final_answer", answer)}
    server = serve(handed_in.get(mode, '{"number": "INV-42"}'), "It was INV-42.")
    agent_at(server, memory=memory, output=Invoice, output_mode=mode).run("Read it.")
    agent_at(server, memory=memory).run("Which was it?")
    assert [message["role"] for message in server.requests[1]["messages"]] == ["user", "assistant", "user"]
    assert "INV-42" in server.requests[1]["messages"][1]["content"]
    assert [role for role, _ in conversation(memory)] == ["user", "assistant"] * 2


# ---- 32. orphans


def exchanges(count):
    """A conversation in which every answer follows two tool calls."""
    messages = []
    for number in range(count):
        calls = [ToolCall(f"{number}{letter}", "look", {}) for letter in "ab"]
        messages += [Message("user", f"q{number}"), Message("assistant", None, [call.to_wire() for call in calls])]
        messages += [Message("tool", "seen", tool_call_id=call.id, name="look") for call in calls]
        messages += [Message("assistant", f"a{number}")]
    return messages


@pytest.mark.parametrize("limit", range(1, 21))
def test_32_the_newest_messages_never_begin_inside_an_exchange(memory, limit):
    """32: `get_messages(limit)` cut between a call and its result."""
    go(memory.add_messages(exchanges(4)))
    kept = [message.to_dict() for message in go(memory.get_messages(limit))]
    assert unanswered(kept) == [] and len(kept) == limit // 5 * 5
    assert [message["role"] for message in kept][:1] == ["user"] * bool(kept)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_32_no_request_has_a_result_without_its_call(serve, memory, size):
    """32: nor does any request of an agent with a memory and a window, whatever ended the runs before."""
    calls = [ToolCall("a", "look", {}), ToolCall("b", "look", {})]
    server = serve(calls, "one", calls, Raw(400, [b"{}"]), calls, "three", "four")
    agent = agent_at(server, look, memory=memory, history=HistorySlidingWindow(size))
    agent.run("q1")
    with pytest.raises(ErrorModel):
        agent.run("q2")
    agent.run("q3")
    agent.run("q4")
    assert [unanswered_places(request["messages"]) for request in server.requests] == [[]] * 7
    assert said(server.requests[-1]["messages"])[-1] == ("user", "q4")


def unanswered_places(messages):
    """As `unanswered`, for a conversation in which ids come again: calls and results are matched in order."""
    asked: list[str] = []
    for message in messages:
        results = [message["tool_call_id"]] if message["role"] == "tool" else []
        asked = [call_id for call_id in asked if call_id not in results] + [f"?{r}" for r in results if r not in asked]
        asked += [call["id"] for call in message.get("tool_calls") or []]
    return asked


def test_both_memories_keep_the_protocol_that_is_exported(memory):
    """26 to 32: what is said here of the two is said of MemoryProto."""
    assert isinstance(memory, MemoryProto) and isinstance(memory.session("a"), MemoryProto)
