"""The production checklist, sentence by sentence, in its order. The first line of each docstring is `section: sentence`."""

import asyncio
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

import agentroute
from agentroute import (
    Agent,
    Context,
    ErrorAgent,
    ErrorBudget,
    ErrorMaxTurns,
    ErrorOutput,
    ErrorTool,
    HistorySlidingWindow,
    HistorySummarize,
    HistoryTruncate,
    Memory,
    MemorySQLite,
    Message,
    Retry,
    ToolCall,
    Usage,
    resolve_model,
    tool,
)  # fmt: skip
from tests.promises.conftest import KEY, config_file, contents, run_script
from tests.server import Raw

LOOK = ToolCall("1", "look", {})
FAILED = Raw(500, [b'{"error": {"message": "upstream is down"}}'], {"content-type": "application/json", "retry-after": "0"})


@tool
def look() -> str:
    """Looks around."""
    return "seen"


class Ticket(BaseModel):
    summary: str
    priority: str


def ticket(priority: str) -> ToolCall:
    return ToolCall("1", "final_answer", {"summary": "It is broken.", "priority": priority})


def remembering(length: int) -> Memory:
    """A memory of questions and answers in turn: u1, a1, u2, a2, …"""
    memory = Memory()
    texts = [Message("user" if i % 2 == 0 else "assistant", f"{'ua'[i % 2]}{i // 2 + 1}") for i in range(length)]
    asyncio.run(memory.add_messages(texts))
    return memory


# ---- before the list ----------------------------------------------------------------------------------------------


def test_each_step_works_by_itself(openrouter, tmp_path):
    """Intro: "Each step is independent"."""
    server = openrouter("Hello.", repeat=True)
    steps = [
        {}, {"max_cost": 0.5}, {"max_turns": 20}, {"retries": 2}, {"memory": MemorySQLite(tmp_path / "memory.db")},
        {"history": HistorySlidingWindow(window_size=30)}, {"model": "anthropic/claude-sonnet-4"},
    ]  # fmt: skip
    for step in steps:
        assert Agent(**{"name": "support", "model": "claude-sonnet-4", **step}).run("Hi").output == "Hello."
    assert [body["model"] for body in server.requests] == ["anthropic/claude-sonnet-4"] * 7


def test_an_agent_runs_in_your_own_process_and_talks_to_the_model_alone(openrouter, tmp_path):
    """Intro: the agent runs "in your own process"."""
    server = openrouter("Hello.")
    code = (
        "import sys\nseen = []\n"
        "watched = ('socket.connect', 'subprocess.Popen', 'os.fork', 'os.posix_spawn')\n"
        "sys.addaudithook(lambda name, args: seen.append(args[1] if name == 'socket.connect' else name) if name in watched else None)\n"
        "from agentroute import Agent\n"
        "print(Agent(name='support', model='claude-sonnet-4').run('Hi'), sorted(map(str, seen)))"
    )
    host, port = server.base_url.removesuffix("/v1").removeprefix("http://").split(":")
    assert run_script(code, tmp_path) == f"Hello. [\"('{host}', {port})\"]\n"


# ---- keys ---------------------------------------------------------------------------------------------------------


def test_a_bare_string_resolves_through_openrouter_so_one_key_will_do(openrouter):
    """Keys: a bare string goes to OpenRouter, so one key will do."""
    server = openrouter("Hello.", repeat=True)
    for model in ("claude-sonnet-4", "gpt-4o", "mistral-large"):
        Agent(name="support", model=model).run("Hi")
    assert [body["model"].partition("/")[0] for body in server.requests] == ["anthropic", "openai", "mistralai"]
    assert [headers["authorization"] for headers in server.headers] == [f"Bearer {KEY}"] * 3


def test_argument_then_environment_then_file_then_nothing(point_at, serve, monkeypatch):
    """Keys: the "Resolution order" of keys: argument, environment, file, nothing."""
    server, own = point_at("Hello.", repeat=True), serve("Hello.")
    config_file().write_text(f"{config_file().read_text()}api_key=sk-file\n")
    Agent(name="support", model="claude-sonnet-4").run("Hi")
    monkeypatch.setenv("AGENTROUTE_API_KEY", "sk-environment")
    Agent(name="support", model="claude-sonnet-4").run("Hi")
    Agent(name="support", model="claude-sonnet-4", api_key="sk-argument").run("Hi")
    Agent(name="support", model=own.model).run("Hi")
    assert [headers["authorization"] for headers in server.headers] == [
        "Bearer sk-file",
        "Bearer sk-environment",
        "Bearer sk-argument",
    ]
    assert "authorization" not in own.headers[0]


@pytest.mark.parametrize("variable", ["AGENTROUTE_API_KEY", "OPENROUTER_API_KEY"])
def test_the_key_stays_out_of_the_source(point_at, tmp_path, variable):
    """Keys: the key stays "out of source", in either variable, and the `export` block."""
    server = point_at("Hello.")
    source = tmp_path / "support.py"
    source.write_text("from agentroute import Agent\nprint(Agent(name='support', model='claude-sonnet-4').run('Hi'))\n")
    lines = f'export {variable}="sk-or-..."\n"{sys.executable}" -W error support.py'
    shown = subprocess.run(["sh", "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert (shown.stdout, shown.stderr) == ("Hello.\n", "")
    assert server.headers[0]["authorization"] == "Bearer sk-or-..."


def test_the_key_is_read_when_the_agent_runs(point_at, monkeypatch):
    """Keys: the block without `api_key`: the environment is read "at run time"."""
    server = point_at("Hello.", repeat=True)
    agent = Agent(name="support", model="claude-sonnet-4")
    for key in ("sk-monday", "sk-tuesday"):
        monkeypatch.setenv("AGENTROUTE_API_KEY", key)
        agent.run("Hi")
    assert [headers["authorization"] for headers in server.headers] == ["Bearer sk-monday", "Bearer sk-tuesday"]


def test_login_keeps_the_key_in_the_config_file(point_at):
    """Keys: the command line keeps the key in ~/.agentroute/config, and the block `agentroute login`."""
    server = point_at("Hello.", repeat=True)
    command = Path(sys.executable).with_name("agentroute")
    shown = subprocess.run([command, "login"], input="sk-or-kept\n", capture_output=True, text=True, timeout=100)
    assert shown.returncode == 0, shown.stderr
    assert "api_key=sk-or-kept" in config_file().read_text().splitlines()
    assert config_file().stat().st_mode & 0o777 == 0o600
    assert "sk-or-kept" not in shown.stdout + shown.stderr
    server.requests.clear()
    server.headers.clear()
    Agent(name="support", model="claude-sonnet-4").run("Hi")
    assert server.headers[-1]["authorization"] == "Bearer sk-or-kept"


@pytest.mark.parametrize(
    "answer", ["Hello.", Raw(401, [b'{"error": {"message": "bad key sk-tenant-1234567890"}}'])], ids=["answered", "refused"]
)
def test_an_explicit_key_never_lands_in_logs(openrouter, caplog, answer):
    """Keys: an explicit key "never lands in logs". Decided: the library makes sure."""
    openrouter(answer, repeat=True)
    caplog.set_level(logging.DEBUG)
    agent = Agent(name="support", model="claude-sonnet-4", api_key="sk-tenant-1234567890")
    try:
        logging.info("%r %s %s", agent, agent, vars(agent))
        logging.info("%s %r", agent.model_dump(), agent.run("Hi"))
    except ErrorAgent as error:
        logging.exception("failed: %r %s", error, vars(error))
    assert "support" in caplog.text
    assert "sk-tenant-1234567890" not in caplog.text + "".join(str(vars(record)) for record in caplog.records)


# ---- max_cost -----------------------------------------------------------------------------------------------------


def test_max_cost_is_a_ceiling_of_each_run(openrouter):
    """Cost: `max_cost` is "a hard ceiling" in USD, for each run."""
    server = openrouter("Hello.", repeat=True, usage={"cost": 0.4})
    agent = Agent(name="support", model="claude-sonnet-4", max_cost=0.50)
    assert [agent.run("Hi").usage.total_cost_usd for _ in range(3)] == [0.4] * 3  # 1.20 in all
    assert len(server.requests) == 3


def test_the_run_that_crosses_it_stops_with_spent_and_limit(openrouter):
    """Cost: beyond it the loop stops with ErrorBudget, which has `spent` and `limit`."""
    server = openrouter(LOOK, repeat=True, usage={"cost": 0.2})
    with pytest.raises(ErrorBudget) as caught:
        Agent(name="support", model="claude-sonnet-4", max_cost=0.50, tools=[look]).run("Hi")
    assert (caught.value.spent, caught.value.limit) == (0.6, 0.5)
    assert len(server.requests) == 3


def test_a_runaway_loop_is_stopped_before_its_tools_run_again(openrouter):
    """Cost: so "a runaway tool loop" burns no credits."""
    server = openrouter(ToolCall("1", "burn", {}), repeat=True, usage={"cost": 0.3})
    burnt: list[int] = []
    agent = Agent(name="support", model="claude-sonnet-4", max_cost=0.50, max_turns=1000)
    agent.tool(lambda: burnt.append(1), name="burn")
    with pytest.raises(ErrorBudget):
        agent.run("Hi")
    assert (len(server.requests), len(burnt)) == (2, 1)


@pytest.mark.parametrize(("cost", "ends"), [(0.50, "Hello."), (0.51, "ErrorBudget, after Hello.")])
def test_the_agent_with_a_ceiling_of_half_a_dollar(openrouter, cost, ends):
    """Cost: the block with `max_cost=0.50`; exactly that much is allowed."""
    openrouter("Hello.", usage={"cost": cost})
    agent = Agent(
        name="support",
        model="claude-sonnet-4",
        max_cost=0.50,  # stop this run if it would exceed $0.50
    )
    try:
        end = agent.run("Hi").output
    except ErrorBudget as error:
        end = f"{type(error).__name__}, after {error.result.output}"  # the answer is paid for, so not thrown away
    assert end == ends


def test_a_ceiling_above_a_normal_run_cuts_nothing_off(openrouter):
    """Cost: a ceiling "a few multiples above" cuts off the pathological loop alone."""
    openrouter(LOOK, LOOK, "Found.", repeat=True, usage={"cost": 0.03})
    agent = Agent(name="support", model="claude-sonnet-4", max_cost=0.27, max_turns=100, tools=[look])
    assert agent.run("Find it.").usage.total_cost_usd == 0.09
    server = openrouter(LOOK, repeat=True, usage={"cost": 0.03})
    with pytest.raises(ErrorBudget):
        agent.run("Find it.")
    assert len(server.requests) == 9


# ---- max_turns ----------------------------------------------------------------------------------------------------


def test_max_turns_limits_the_cycles_of_a_run(openrouter):
    """Turns: `max_turns` limits the "model-plus-tool cycles", to 10 by default."""
    server = openrouter(*[LOOK] * 9, "Done.")
    result = Agent(name="researcher", model="claude-sonnet-4", tools=[look]).run("Go")
    assert (result.output, result.usage.model_calls, len(server.requests)) == ("Done.", 10, 10)


def test_one_cycle_more_raises_with_turn_and_limit(openrouter):
    """Turns: one more is ErrorMaxTurns with `turn` and `limit`."""
    server = openrouter(*[LOOK] * 10, "Done.")
    with pytest.raises(ErrorMaxTurns) as caught:
        Agent(name="researcher", model="claude-sonnet-4", tools=[look]).run("Go")
    assert (caught.value.turn, caught.value.limit, len(server.requests)) == (11, 10, 10)


def test_a_simple_agent_runs_with_fewer_turns(openrouter):
    """Turns: "a simple Q&A agent" needs fewer."""
    server = openrouter("Paris.")
    assert Agent(name="qa", model="claude-sonnet-4", max_turns=1).run("Capital of France?").output == "Paris."
    assert len(server.requests) == 1


def test_twenty_turns_give_headroom(openrouter):
    """Turns: an agent with many tools needs "more headroom", and the block with `max_turns=20`."""
    server = openrouter(*[LOOK] * 19, "Done.")
    agent = Agent(
        name="researcher",
        model="claude-sonnet-4",
        max_turns=20,  # raise for multi-step tool use
    )
    agent.tool(look.fn)
    assert agent.run("Go").output == "Done."
    assert len(server.requests) == 20


@pytest.mark.parametrize(
    ("cost", "limits", "error"), [(0.0, {"max_turns": 3}, ErrorMaxTurns), (0.2, {"max_turns": 50, "max_cost": 0.5}, ErrorBudget)]
)
def test_turns_and_cost_guard_separately(openrouter, cost, limits, error):
    """Turns: turns and cost are "two independent safety valves"."""
    server = openrouter(LOOK, repeat=True, usage={"cost": cost})
    with pytest.raises(error):
        Agent(name="support", model="claude-sonnet-4", tools=[look], **limits).run("Go")
    assert len(server.requests) == 3


# ---- retries ------------------------------------------------------------------------------------------------------


def test_retries_bound_what_a_validator_may_ask(openrouter):
    """Retries: `retries` is 1 by default and bounds the Retry signals of an output validator."""
    server = openrouter(ticket("urgent"), repeat=True)
    agent = Agent(name="triage", model="claude-sonnet-4", output=Ticket)

    @agent.output_validator
    def check(ctx, output):
        raise Retry("no")

    with pytest.raises(ErrorAgent):
        agent.run("Printer on fire")
    assert len(server.requests) == 2


def test_retries_bound_what_a_tool_may_ask(openrouter):
    """Retries: the same for those "from a tool". Decided: tools and validators share one bound."""
    server = openrouter(ToolCall("1", "picky", {}), repeat=True)
    agent = Agent(name="triage", model="claude-sonnet-4")

    @agent.tool
    def picky() -> str:
        raise Retry("not like that")

    with pytest.raises(ErrorTool):
        agent.run("Go")
    assert len(server.requests) == 2


@pytest.mark.parametrize("first", ["tool", "validator"])
def test_tools_and_validators_share_one_bound(openrouter, first):
    """Retries: a tool's Retry and a validator's count together.

    Decided: after one of each, in either order, `retries=1` is used up.
    """
    asked = {"tool": ToolCall("1", "picky", {}), "validator": ticket("asap")}
    order = [asked.pop(first), *asked.values()]
    server = openrouter(*order, ticket("low"))
    agent = Agent(name="triage", model="claude-sonnet-4", output=Ticket, retries=1)

    @agent.tool
    def picky() -> str:
        raise Retry("not like that")

    @agent.output_validator
    def check(ctx, output):
        if output.priority == "asap":
            raise Retry("priority must be low")
        return output

    with pytest.raises(ErrorOutput if first == "tool" else ErrorTool):
        agent.run("Printer on fire")
    assert len(server.requests) == 2
    server = openrouter(*order, ticket("low"))
    assert agent.replace(retries=2).run("Printer on fire").output == Ticket(summary="It is broken.", priority="low")
    assert len(server.requests) == 3


def test_retry_tells_the_model_what_to_correct(openrouter):
    """Retries: Retry is "not a failure": its message goes to the model."""
    server = openrouter(ToolCall("1", "order", {"number": 1}), ToolCall("2", "order", {"number": 4821}), "Shipped.")
    agent = Agent(name="triage", model="claude-sonnet-4")

    @agent.tool
    def order(number: int) -> str:
        if number < 1000:
            raise Retry("order numbers have four digits")
        return "shipped"

    assert agent.run("Where is it?").output == "Shipped."
    assert [contents(body)[-1] for body in server.requests] == ["Where is it?", "order numbers have four digits", "shipped"]


def test_each_retry_costs_a_model_call(openrouter):
    """Retries: more retries give more chances, and each "costs another model call"."""
    openrouter(ticket("urgent"), ticket("asap"), ticket("now"), ticket("high"), usage={"cost": 0.01})
    agent = Agent(name="triage", model="claude-sonnet-4", output=Ticket, retries=3)

    @agent.output_validator
    def check(ctx, output):
        if output.priority != "high":
            raise Retry("no")

    usage = agent.run("Printer on fire").usage
    assert (usage.model_calls, usage.total_cost_usd) == (4, 0.04)


@pytest.mark.parametrize(
    ("answers", "priority"), [(["urgent", "asap", "high"], "high"), (["urgent", "asap", "now", "high"], None)]
)
def test_the_triage_agent_takes_two_corrective_passes(openrouter, answers, priority):
    """Retries: the block with Ticket, `retries=2` and `check_priority`."""
    server = openrouter(*map(ticket, answers))
    agent = Agent(
        name="triage",
        model="claude-sonnet-4",
        output=Ticket,
        retries=2,  # allow two corrective passes
    )

    @agent.output_validator
    def check_priority(ctx, output: Ticket) -> Ticket:
        if output.priority not in {"low", "medium", "high"}:
            raise Retry("priority must be one of: low, medium, high")
        return output

    got: list[str | None] = []
    try:
        got.append(agent.run("Printer on fire").output.priority)
    except ErrorAgent as error:
        got.append(error.result.output)
    assert got == [priority]
    assert len(server.requests) == 3
    assert "priority must be one of: low, medium, high" in contents(server.requests[2])[-1]


# ---- memory -------------------------------------------------------------------------------------------------------


def test_ram_is_enough_for_a_script(openrouter, tmp_path):
    """Memory: `Memory` is "fine for a script"."""
    server = openrouter("Hello, Ada.", "Ada.")
    code = (
        "from agentroute import Agent, Memory\n"
        "agent = Agent(name='assistant', model='claude-sonnet-4', memory=Memory())\n"
        "agent.run('I am Ada.'); print(agent.run('Who am I?'))"
    )
    assert run_script(code, tmp_path) == "Ada.\n"
    assert contents(server.requests[1]) == ["I am Ada.", "Hello, Ada.", "Who am I?"]


def test_sqlite_is_durable_and_searches_with_fts5(openrouter, tmp_path):
    """Memory: `MemorySQLite(path)` is "durable" and searches with FTS5. Decided: kill -9 loses nothing."""
    server = openrouter("Hello, Ada.", "Ada.")
    code = (
        "import asyncio, os, signal\nfrom agentroute import Agent, MemorySQLite\n"
        "memory = MemorySQLite('memory.db')\n"
        "asyncio.run(memory.remember('name', 'the user is called Ada'))\n"
        "Agent(name='assistant', model='claude-sonnet-4', memory=memory).run('I am Ada.')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    memory = MemorySQLite(tmp_path / "memory.db")
    Agent(name="assistant", model="claude-sonnet-4", memory=memory).run("Who am I?")
    assert contents(server.requests[1]) == ["I am Ada.", "Hello, Ada.", "Who am I?"]
    assert asyncio.run(memory.recall("what is the user called?")) == ["the user is called Ada"]
    connection = sqlite3.connect(tmp_path / "memory.db")
    assert "fts5" in str(connection.execute("SELECT sql FROM sqlite_master").fetchall())
    connection.close()


def test_memory_is_attached_once_and_tools_reach_it(openrouter, tmp_path):
    """Memory: it is attached once, and tools reach it as `ctx.memory`."""
    server = openrouter(ToolCall("1", "recall", {"question": "favourite colour?"}), "Blue.")
    memory = MemorySQLite(tmp_path / "memory.db")
    asyncio.run(memory.remember("colour", "the favourite colour is blue"))
    agent = Agent(name="assistant", model="claude-sonnet-4", memory=memory)

    @agent.tool
    async def recall(ctx: Context, question: str) -> list[str]:
        return await ctx.memory.recall(question)

    assert agent.run("Which colour?").output == "Blue."
    assert contents(server.requests[1])[-1] == '["the favourite colour is blue"]'


def test_the_assistant_with_a_database(openrouter, tmp_path):
    """Memory: the block with MemorySQLite; its path is moved, since /var/lib is not ours."""
    server = openrouter("Hello.", repeat=True)

    def started() -> Agent:
        return Agent(
            name="assistant",
            model="claude-sonnet-4",
            memory=MemorySQLite(tmp_path / "memory.db"),
        )

    started().run("I am Ada.")
    started().run("Who am I?")
    assert contents(server.requests[1]) == ["I am Ada.", "Hello.", "Who am I?"]
    MemorySQLite("/var/lib/agentroute/memory.db")
    assert not Path("/var/lib/agentroute").exists()  # nothing is made before it is used


def test_the_file_is_backed_up_like_any_database(openrouter, tmp_path):
    """Memory: it is backed up "like any other database"."""
    server = openrouter("Hello.", repeat=True)
    Agent(name="assistant", model="claude-sonnet-4", memory=MemorySQLite(tmp_path / "memory.db")).run("I am Ada.")
    source, target = sqlite3.connect(tmp_path / "memory.db"), sqlite3.connect(tmp_path / "backup.db")
    source.backup(target)
    source.close()
    target.close()
    Agent(name="assistant", model="claude-sonnet-4", memory=MemorySQLite(tmp_path / "backup.db")).run("Who am I?")
    assert contents(server.requests[1]) == ["I am Ada.", "Hello.", "Who am I?"]


# ---- history ------------------------------------------------------------------------------------------------------


def test_without_a_policy_everything_is_sent(openrouter):
    """History: without a policy a conversation "grows unbounded"."""
    server = openrouter("Hello.")
    Agent(name="assistant", model="claude-sonnet-4", memory=remembering(400)).run("u201")
    assert len(server.requests[0]["messages"]) == 401


@pytest.mark.parametrize(
    ("policy", "before"),
    [
        (lambda: HistorySlidingWindow(window_size=3), []),
        (lambda: HistoryTruncate(max_tokens=4), []),
        (lambda: HistorySummarize(model=resolve_model("gpt-4o"), keep_recent=1), ["Ada counts.", "Understood; I carry on from there."]),
    ],
    ids=["window", "truncate", "summarize"],
)
def test_each_policy_is_attached_with_history(openrouter, policy, before):
    """History: a policy is attached with `Agent(history=...)`."""
    server = openrouter(
        lambda body: "Ada counts." if "tools" not in body else LOOK if body["messages"][-1]["content"] == "u2" else "Hello.", repeat=True
    )
    agent = Agent(name="assistant", model="claude-sonnet-4", memory=remembering(2), history=policy(), tools=[look])
    assert agent.run("u2").output == "Hello."
    first, second = [contents(body) for body in server.requests if "tools" in body]
    assert first == ["u1", "a1", "u2"]
    assert second[-3:] == ["u2", None, "seen"]
    assert [text.splitlines()[-1] for text in second[:-3]] == before


def test_the_window_keeps_the_most_recent_twenty(openrouter):
    """History: the window keeps the newest `window_size` messages, 20 by default."""
    server = openrouter("Hello.", repeat=True)
    asked = Agent(name="assistant", model="claude-sonnet-4", memory=remembering(40), history=HistorySlidingWindow())
    result = asked.run("u21")
    assert contents(server.requests[0])[::2] == [f"u{n}" for n in range(12, 22)]  # the twentieth would be an answer
    assert (len(server.requests), result.usage.model_calls) == (1, 1)


def test_truncation_stays_under_its_tokens(openrouter):
    """History: truncation drops the oldest to stay under `max_tokens`, 100,000 by default."""
    server = openrouter("Hello.", repeat=True)
    memory = Memory()
    old = [
        Message(role, letter * 100_000) for role, letter in (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    ]
    asyncio.run(memory.add_messages(old))  # 25,000 tokens each
    Agent(name="assistant", model="claude-sonnet-4", memory=memory, history=HistoryTruncate()).run("e" * 4)
    assert "".join(text[0] for text in contents(server.requests[0])) == "cde"
    assert sum(map(len, contents(server.requests[0]))) <= 4 * 100_000


def test_a_summary_keeps_more_and_costs_a_call(openrouter):
    """History: summaries keep the last 4 and cost "summary calls"."""
    server = openrouter("Ada counts.", "Hello.", usage={"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.01})
    policy = HistorySummarize(model=resolve_model("gpt-4o"))
    result = Agent(name="assistant", model="claude-sonnet-4", memory=remembering(20), history=policy).run("u11")
    assert [body["model"] for body in server.requests] == ["openai/gpt-4o", "anthropic/claude-sonnet-4"]
    assert policy.keep_recent == 4
    assert contents(server.requests[1])[-9:] == ["u7", "a7", "u8", "a8", "u9", "a9", "u10", "a10", "u11"]
    assert "Ada counts." in str(server.requests[1])
    assert (result.usage.model_calls, result.usage.total_cost_usd) == (2, 0.02)  # counted, and so under max_cost


def test_the_assistant_with_a_window_of_thirty(openrouter):
    """History: the block with `window_size=30`."""
    server = openrouter("Hello.")
    agent = Agent(
        name="assistant",
        model="claude-sonnet-4",
        history=HistorySlidingWindow(window_size=30),
        memory=remembering(100),
    )
    agent.run("u51")
    assert contents(server.requests[0])[::2] == [f"u{n}" for n in range(37, 52)]


def test_summaries_need_a_model():
    """History: `HistorySummarize(model=None)` raises RuntimeError. Decided: when it is made."""
    with pytest.raises(RuntimeError, match="needs a model"):
        HistorySummarize(model=None)


def test_the_assistant_with_a_summarizer(openrouter):
    """History: a model is made with `resolve_model` and handed over, and the block with `keep_recent=6`."""
    server = openrouter("Ada counts.", "Hello.")
    summarizer = resolve_model("claude-sonnet-4")
    agent = Agent(
        name="assistant",
        model="claude-sonnet-4",
        history=HistorySummarize(model=summarizer, keep_recent=6),
        memory=remembering(40),
    )
    assert agent.run("u21").output == "Hello."
    assert "u14" in str(contents(server.requests[0])) and "u15" not in str(contents(server.requests[0]))
    assert contents(server.requests[1])[-13:] == [f"{who}{n}" for n in range(15, 21) for who in "ua"] + ["u21"]


# ---- errors -------------------------------------------------------------------------------------------------------


def test_one_expensive_request_does_not_end_the_worker(openrouter):
    """Errors: one expensive request "degrades gracefully" where its error is caught."""
    openrouter("Long.", "Short.", usage={"cost": 0.3})
    agent = Agent(name="support", model="claude-sonnet-4", max_cost=0.25)
    answers: list[str] = []
    for limit in (None, 0.5):
        try:
            answers.append(agent.run("Hi", max_cost=limit).output)
        except ErrorBudget:
            answers.append("too expensive")
    assert answers == ["too expensive", "Short."]


def test_both_guards_are_errors_of_the_agent(openrouter):
    """Errors: ErrorMaxTurns and ErrorBudget are ErrorAgent, so "the base class" catches them."""
    openrouter(LOOK, repeat=True, usage={"cost": 0.1})
    agent = Agent(name="support", model="claude-sonnet-4", tools=[look])
    caught: list[ErrorAgent] = []
    for limits in ({"max_turns": 1}, {"max_cost": 0.05}):
        try:
            agent.run("Hi", **limits)
        except ErrorAgent as error:
            caught.append(error)
    assert [type(error) for error in caught] == [ErrorMaxTurns, ErrorBudget]


@pytest.mark.parametrize(
    ("answers", "cost", "printed"),
    [
        (["Restart it."], 0.01, "Restart it.\n"),
        (["Restart it."], 0.75, "Hit cost ceiling: spent $0.7500 of $0.5000\n"),
        ([LOOK] * 20, 0.01, "Hit turn limit: turn 21 of 20\n"),
        ([Raw(404, [b'{"error": {"message": "no such model"}}'])], 0.01, "Agent failed: "),
    ],
    ids=["answer", "cost", "turns", "failure"],
)
def test_the_three_ways_a_run_can_fail(openrouter, capsys, answers, cost, printed):
    """Errors: the block with `except ErrorBudget`, `ErrorMaxTurns` and `ErrorAgent`."""
    server = openrouter(*answers, usage={"cost": cost})
    agent = Agent(
        name="support",
        model="claude-sonnet-4",
        max_cost=0.50,
        max_turns=20,
    )
    agent.tool(look.fn)
    try:
        result = agent.run("Investigate ticket #4821 and propose a fix.")
        print(result.output)
    except ErrorBudget as exc:
        print(f"Hit cost ceiling: spent ${exc.spent:.4f} of ${exc.limit:.4f}")
    except ErrorMaxTurns as exc:
        print(f"Hit turn limit: turn {exc.turn} of {exc.limit}")
    except ErrorAgent as exc:
        print(f"Agent failed: {exc}")
    assert capsys.readouterr().out.startswith(printed)
    assert len(server.requests) == len(answers)


def test_retry_is_handled_inside_the_loop(openrouter):
    """Errors: Retry is no ErrorAgent, and the loop handles it."""
    openrouter(ToolCall("1", "picky", {}), repeat=True)
    agent = Agent(name="support", model="claude-sonnet-4", retries=0)

    @agent.tool
    def picky() -> str:
        raise Retry("not like that")

    assert not issubclass(Retry, ErrorAgent)
    with pytest.raises(ErrorTool) as caught:  # never a Retry
        agent.run("Go")
    assert caught.value.tool_name == "picky"


def test_a_layer_of_ones_own_may_raise_it_again(openrouter):
    """Errors: "a custom layer" may catch it and raise it again."""
    server = openrouter(ToolCall("1", "order", {"number": 1}), "I cannot find it.")

    def politely(function: Callable[[int], str]) -> Callable[[int], str]:
        def order(number: int) -> str:
            try:
                return function(number)
            except Retry as error:
                raise Retry(f"Sorry: {error.message}") from error

        return order

    agent = Agent(name="support", model="claude-sonnet-4")

    @agent.tool
    @politely
    def order(number: int) -> str:
        raise Retry("order numbers have four digits")

    agent.run("Where is it?")
    assert contents(server.requests[1])[-1] == "Sorry: order numbers have four digits"


# ---- usage --------------------------------------------------------------------------------------------------------


def test_a_result_carries_the_four_figures(openrouter):
    """Usage: `usage` has the four figures."""
    openrouter(LOOK, "Done.", usage={"prompt_tokens": 100, "completion_tokens": 20, "cost": 0.01})
    usage = Agent(name="support", model="claude-sonnet-4", tools=[look]).run("Go").usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_cost_usd, usage.model_calls) == (200, 40, 0.02, 2)


def test_usage_is_logged_after_each_run(openrouter):
    """Usage: it is emitted after each run, and the block with `log.info`.

    Decided: `log` is a structured logger, since logging's takes no such keywords.
    """
    openrouter("Two incidents.", usage={"prompt_tokens": 100, "completion_tokens": 20, "cost": 0.01})
    agent = Agent(name="support", model="claude-sonnet-4")
    lines: list[str] = []

    class log:
        @staticmethod
        def info(event, **fields):
            lines.append(json.dumps({"event": event, **fields}))

    result = agent.run("Summarize today's incidents.")
    usage = result.usage
    log.info(
        "agent_run",
        agent="support",
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_usd=usage.total_cost_usd,
        model_calls=usage.model_calls,
    )
    assert json.loads(lines[0]) == {
        "event": "agent_run", "agent": "support", "input_tokens": 100, "output_tokens": 20, "cost_usd": 0.01, "model_calls": 1,
    }  # fmt: skip


def test_spend_is_attributed_to_each_tenant(openrouter):
    """Usage: spend is added up per request, tenant or agent."""
    openrouter("Hello.", repeat=True, usage={"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.1})
    agent = Agent(name="support", model="claude-sonnet-4")
    tenants = {"ada": Usage(), "bob": Usage()}
    for tenant in ("ada", "bob", "ada", "ada"):
        tenants[tenant].add(agent.run("Hi").usage)
    assert tenants["ada"] == Usage(30, 15, 0.3, 3)  # exactly 0.3, which three floats would not add up to
    assert tenants["bob"] == Usage(10, 5, 0.1, 1)


# ---- the pinned model ---------------------------------------------------------------------------------------------


def test_a_bare_name_leaves_the_vendor_to_the_resolver(openrouter):
    """Pinning: the bare name leaves the model "to the resolver"."""
    server = openrouter("Hello.")
    Agent(name="support", model="claude-sonnet-4").run("Hi")
    assert server.requests[0]["model"] == "anthropic/claude-sonnet-4"


def test_a_slug_is_sent_letter_by_letter(openrouter):
    """Pinning: a pinned slug cannot "silently shift"."""
    server = openrouter("Hello.")
    Agent(name="support", model="Anthropic/Claude-Sonnet-4-20250514:floor").run("Hi")
    assert server.requests[0]["model"] == "Anthropic/Claude-Sonnet-4-20250514:floor"


def test_bare_name_and_slug_take_the_same_path(openrouter):
    """Pinning: both take "the same OpenRouter path", and the block with both."""
    server = openrouter("Hello.", repeat=True)
    # Development: convenient, vendor inferred.
    agent = Agent(name="support", model="claude-sonnet-4")
    agent.run("Hi")
    # Production: explicit and stable.
    agent = Agent(name="support", model="anthropic/claude-sonnet-4")
    agent.run("Hi")
    assert server.requests[0] == server.requests[1]
    assert server.paths[0] == server.paths[1]
    assert server.headers[0] == server.headers[1]


def test_the_string_is_kept_with_the_run(openrouter, tmp_path):
    """Pinning: the pinned string is recorded, to "reproduce a run later". Decided: every run records it."""
    openrouter("Hello.")
    store = agentroute.RunStore(tmp_path / "runs.db")
    result = Agent(name="support", model="anthropic/claude-sonnet-4", store=store).run("Hi")
    assert result.record.run.request_model == "anthropic/claude-sonnet-4"
    assert list(agentroute.runs(tmp_path / "runs.db")["request_model"]) == ["anthropic/claude-sonnet-4"]


# ---- the production-ready agent -----------------------------------------------------------------------------------


@pytest.fixture
def production(tmp_path) -> ModuleType:
    """production_example.py, as it stands but for the place of its database."""
    path = Path(__file__).with_name("production_example.py")
    place, source = '"/var/lib/agentroute/memory.db"', path.read_text()
    assert source.count(place) == 1
    module = ModuleType("production_example")
    exec(compile(source.replace(place, repr(str(tmp_path / "memory.db"))), path, "exec"), vars(module))
    return module


def logged(caplog) -> list[tuple]:
    """Level, message and extras of what the example has logged."""
    known = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
    return [
        (record.levelname, record.getMessage(), {name: value for name, value in vars(record).items() if name not in known})
        for record in caplog.records
        if record.name == "agent"
    ]


def no_key_in(caplog) -> bool:
    return KEY not in caplog.text + "".join(str(vars(record)) for record in caplog.records)


def test_the_example_answers_and_remembers(openrouter, production, caplog):
    """End to end: a normal answer; memory, history, pinned model and usage logging at work."""
    server = openrouter("Restart it.", "Then call us.", usage={"prompt_tokens": 100, "completion_tokens": 20, "cost": 0.01})
    caplog.set_level(logging.DEBUG)
    assert [production.handle("It is broken."), production.handle("Still broken.")] == ["Restart it.", "Then call us."]
    fields = {"input_tokens": 100, "output_tokens": 20, "cost_usd": 0.01, "model_calls": 1}
    assert logged(caplog) == [("INFO", "agent_run", fields)] * 2
    assert server.requests[1]["model"] == "anthropic/claude-sonnet-4"
    assert contents(server.requests[1]) == [
        "You are a concise, accurate support agent.",
        "It is broken.",
        "Restart it.",
        "Still broken.",
    ]
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert no_key_in(caplog)


def test_the_example_stops_at_its_budget(openrouter, production, caplog):
    """End to end: what `handle` says when `max_cost` is exceeded."""
    openrouter("Restart it.", usage={"cost": 0.75})
    caplog.set_level(logging.DEBUG)
    assert production.handle("It is broken.") == "That request was too expensive to complete. Please narrow it."
    assert logged(caplog) == [("WARNING", "budget_exceeded", {"spent": 0.75, "limit": 0.5})]
    assert no_key_in(caplog)


def test_the_example_stops_at_its_turns(openrouter, production, caplog):
    """End to end: what `handle` says when `max_turns` is exceeded."""
    server = openrouter(LOOK, repeat=True)
    caplog.set_level(logging.DEBUG)
    assert production.handle("It is broken.") == "That request took too many steps. Please simplify it."
    assert logged(caplog) == [("WARNING", "turns_exceeded", {"turn": 21, "limit": 20})]
    assert len(server.requests) == 20
    assert no_key_in(caplog)


def test_the_example_outlives_a_failing_provider(openrouter, production, caplog):
    """End to end: what `handle` says when the provider answers 500."""
    server = openrouter(FAILED, repeat=True)
    caplog.set_level(logging.DEBUG)
    assert production.handle("It is broken.") == "Something went wrong. Please try again."
    ((level, message, extra),) = logged(caplog)
    assert (level, message, list(extra)) == ("ERROR", "agent_failed", ["error"])
    assert "upstream is down" in extra["error"]
    assert len(server.requests) == 3  # a failure that may pass is asked again, twice
    assert no_key_in(caplog)
    server.answers = ["Restart it."]
    assert production.handle("And now?") == "Restart it."


def test_the_example_reads_its_key_from_the_environment_when_it_runs(point_at, production, monkeypatch):
    """End to end: the key comes from AGENTROUTE_API_KEY."""
    server = point_at("Hello.")
    assert production.handle("Hi") == "Something went wrong. Please try again."
    assert server.requests == []
    monkeypatch.setenv("AGENTROUTE_API_KEY", KEY)
    assert production.handle("Hi") == "Hello."
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert os.environ["AGENTROUTE_API_KEY"] == KEY
