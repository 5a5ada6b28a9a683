"""The FAQ page, sentence by sentence, in its order. The first line of each docstring is `section: sentence`."""

import asyncio
import inspect
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

import agentroute
from agentroute import (
    Agent,
    Context,
    ErrorBudget,
    ErrorConfig,
    ErrorMaxTurns,
    ErrorOutput,
    Event,
    HistorySlidingWindow,
    HistorySummarize,
    HistoryTruncate,
    Memory,
    MemoryProto,
    MemorySQLite,
    Message,
    Result,
    ResultDeploy,
    Retry,
    ToolCall,
    Usage,
    resolve_model,
)  # fmt: skip
from agentroute.cli.commands import commands
from tests.ipython.kernels import kernel
from tests.promises.conftest import KEY, config_file, contents, run_script


class Invoice(BaseModel):
    number: str
    total: float
    currency: str


def invoice(**values) -> ToolCall:
    return ToolCall("1", "final_answer", {"number": "INV-42", "total": 199.0, "currency": "EUR", **values})


def conversation(length: int) -> list[Message]:
    """Questions and answers in turn: u1, a1, u2, a2, …"""
    return [Message("user" if i % 2 == 0 else "assistant", f"{'ua'[i % 2]}{i // 2 + 1}") for i in range(length)]


def remembering(messages: list[Message]) -> Memory:
    memory = Memory()
    asyncio.run(memory.add_messages(messages))
    return memory


# ---- Models and providers -----------------------------------------------------------------------------------------


def test_openrouter_is_the_default_route(openrouter, monkeypatch):
    """Models and keys: OpenRouter is where models go by default."""
    server = openrouter("Hello.")
    assert Agent(name="assistant", model="claude-sonnet-4").run("Hi").output == "Hello."
    assert server.paths == ["/v1/chat/completions"]
    config_file().unlink()
    assert resolve_model("claude-sonnet-4").base_url == "https://openrouter.ai/api/v1"


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("claude-sonnet-4", "anthropic/claude-sonnet-4"),
        ("gpt-4o", "openai/gpt-4o"),
        ("gemini-2.0-flash", "google/gemini-2.0-flash"),
        ("llama-3.3-70b-instruct", "meta-llama/llama-3.3-70b-instruct"),
        ("deepseek-v3", "deepseek/deepseek-v3"),
        ("mistral-large", "mistralai/mistral-large"),
        ("qwen/qwen3-coder:free", "qwen/qwen3-coder:free"),
    ],
)
def test_any_model_string_of_openrouter_works(openrouter, model, sent):
    """Models and keys: any of OpenRouter's model strings works "out of the box": the six vendors named, and more."""
    server = openrouter("Hello.")
    assert Agent(name="assistant", model=model).run("Hi").output == "Hello."
    assert server.requests[0]["model"] == sent


def test_ollama_and_other_endpoints_answer_too(serve, monkeypatch):
    """Models and keys: Ollama on this machine, or any OpenAI-compatible endpoint, answers too."""
    ollama, other = serve("from ollama"), serve("from the other")
    monkeypatch.setenv("OLLAMA_HOST", ollama.base_url.removesuffix("/v1"))
    assert Agent(name="local", model="ollama/llama3.1").run("Hi").output == "from ollama"
    assert Agent(name="custom", model=f"{other.base_url}/my-model").run("Hi").output == "from the other"
    assert (ollama.paths, other.paths) == (["/v1/chat/completions"], ["/v1/chat/completions"])


def test_an_agent_goes_where_resolve_model_says(openrouter):
    """Models and keys: `resolve_model` decides where a string goes."""
    server = openrouter("Hello.", repeat=True)
    Agent(name="a", model="claude-sonnet-4").run("Hi")
    Agent(name="a", model=resolve_model("claude-sonnet-4")).run("Hi")
    assert server.requests[0] == server.requests[1]
    assert [headers["authorization"] for headers in server.headers] == [f"Bearer {KEY}"] * 2


def test_a_url_is_an_endpoint_and_ends_in_the_model_id(serve):
    """Models and keys: the list, an `http(s)://` prefix: a custom endpoint, the "last path segment" is the model id."""
    server = serve("Hello.")
    Agent(name="custom", model=f"{server.base_url}/my-model").run("Hi")
    assert (server.paths[0], server.requests[0]["model"]) == ("/v1/chat/completions", "my-model")
    secure = resolve_model("https://my-host/v1/my-model")
    assert (secure.base_url, secure.model_id) == ("https://my-host/v1", "my-model")


def test_ollama_names_go_to_this_machine_without_the_key(openrouter, serve, monkeypatch):
    """Models and keys: the list, `ollama/NAME`: port 11434 of this machine, "no auth".

    Decided: OLLAMA_HOST moves it, as it does for Ollama's own programs; the word `ollama` stands where a key would,
    because some gateways before Ollama want any word there.
    """
    openrouter()
    assert resolve_model("ollama/llama3.1").base_url == "http://localhost:11434/v1"
    server = serve("Hello.")
    monkeypatch.setenv("OLLAMA_HOST", server.base_url.removesuffix("/v1"))
    Agent(name="local", model="ollama/llama3.1").run("Hi")
    assert server.requests[0]["model"] == "llama3.1"
    assert server.headers[0]["authorization"] == "Bearer ollama"


@pytest.mark.parametrize("model", ["qwen-max", "x-ai/grok-4", "openai/gpt-4o", "ollama"])
def test_anything_else_goes_to_openrouter_as_it_is(openrouter, model):
    """Models and keys: the list, "Anything else": OpenRouter."""
    server = openrouter("Hello.")
    Agent(name="a", model=model).run("Hi")
    assert (server.paths, server.requests[0]["model"]) == (["/v1/chat/completions"], model)


@pytest.mark.parametrize(
    ("name", "vendor"),
    [
        ("claude-3-haiku", "anthropic"), ("gpt-4.1-mini", "openai"), ("o1", "openai"), ("o3-mini", "openai"), ("o4-mini", "openai"),
        ("gemini-2.5-pro", "google"), ("llama-4-scout", "meta-llama"), ("deepseek-r1", "deepseek"), ("mistral-small", "mistralai"),
    ],
)  # fmt: skip
def test_the_vendor_is_inferred_from_a_bare_name(openrouter, name, vendor):
    """Models and keys: the vendor of a bare name is inferred: nine beginnings, six vendors."""
    server = openrouter("Hello.")
    Agent(name="a", model=name).run("Hi")
    assert server.requests[0]["model"] == f"{vendor}/{name}"


def test_the_four_agents_of_the_page_reach_their_endpoints(openrouter, serve, monkeypatch):
    """Models and keys: the block with four agents (bare name, slug, Ollama, own endpoint with `api_key`)."""
    routed, own = openrouter("Hello.", repeat=True), serve("Hello.", repeat=True)
    monkeypatch.setenv("OLLAMA_HOST", own.base_url.removesuffix("/v1"))

    agent = Agent(name="assistant", model="claude-sonnet-4")
    assert agent.run("Hi").output == "Hello."
    agent = Agent(name="assistant", model="anthropic/claude-sonnet-4")
    assert agent.run("Hi").output == "Hello."
    agent = Agent(name="local", model="ollama/llama3.1")
    assert agent.run("Hi").output == "Hello."
    Agent(name="custom", model="https://my-host/v1/my-model", api_key="sk-...")
    agent = Agent(name="custom", model=f"{own.base_url}/my-model", api_key="sk-...")
    assert agent.run("Hi").output == "Hello."

    assert [body["model"] for body in routed.requests] == ["anthropic/claude-sonnet-4"] * 2
    assert [body["model"] for body in own.requests] == ["llama3.1", "my-model"]
    assert own.headers[1]["authorization"] == "Bearer sk-..."


def test_one_key_works_for_every_routed_model(openrouter):
    """Models and keys: "One OpenRouter key" is enough for every routed model."""
    server = openrouter("Hello.", repeat=True)
    for model in ("claude-sonnet-4", "gpt-4o", "gemini-2.0-flash", "meta-llama/llama-3.3-70b-instruct"):
        Agent(name="a", model=model).run("Hi")
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert len(server.headers) == 4


@pytest.mark.parametrize(
    ("argument", "environment", "file", "used"),
    [
        ("sk-argument", {"AGENTROUTE_API_KEY": "sk-ours", "OPENROUTER_API_KEY": "sk-theirs"}, "sk-file", "sk-argument"),
        (None, {"AGENTROUTE_API_KEY": "sk-ours", "OPENROUTER_API_KEY": "sk-theirs"}, "sk-file", "sk-ours"),
        (None, {"AGENTROUTE_API_KEY": "", "OPENROUTER_API_KEY": "sk-theirs"}, "sk-file", "sk-theirs"),
        (None, {}, "sk-file", "sk-file"),
    ],
    ids=["argument", "AGENTROUTE_API_KEY", "OPENROUTER_API_KEY", "file"],
)
def test_the_key_is_resolved_in_this_order(point_at, monkeypatch, argument, environment, file, used):
    """Models and keys: a key is looked for as argument, in two variables, then in the config file."""
    server = point_at("Hello.")
    config_file().write_text(f"{config_file().read_text()}api_key={file}\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Agent(name="a", model="claude-sonnet-4", api_key=argument).run("Hi")
    assert server.headers[0]["authorization"] == f"Bearer {used}"


def test_without_any_key_nothing_is_sent_to_openrouter(point_at):
    """Models and keys: "then nothing", for endpoints that want no key.

    Decided: for OpenRouter, which is not one of them, no key is an error before any request.
    """
    server = point_at("Hello.")
    with pytest.raises(ErrorConfig, match=r"AGENTROUTE_API_KEY.*agentroute login"):
        Agent(name="a", model="claude-sonnet-4").run("Hi")
    assert server.requests == []


@pytest.mark.parametrize("variable", ["AGENTROUTE_API_KEY", "OPENROUTER_API_KEY"])
def test_the_key_is_exported_in_a_shell(point_at, variable):
    """Models and keys: the block with `export AGENTROUTE_API_KEY=…` (or OPENROUTER_API_KEY)."""
    server = point_at("Hello.")
    program = "from agentroute import Agent; print(Agent(name='a', model='claude-sonnet-4').run('Hi'))"
    lines = f'export {variable}="sk-or-..."\n"{sys.executable}" -W error -c "{program}"'
    shown = subprocess.run(["sh", "-c", lines], capture_output=True, text=True, timeout=100)
    assert (shown.stdout, shown.stderr) == ("Hello.\n", "")
    assert server.headers[0]["authorization"] == "Bearer sk-or-..."


def test_ollama_and_custom_endpoints_need_no_key_and_get_none(openrouter, serve, monkeypatch):
    """Models and keys: Ollama and custom endpoints "skip auth entirely": no key is needed to develop locally."""
    server = serve("Hello.", repeat=True)
    monkeypatch.setenv("OLLAMA_HOST", server.base_url.removesuffix("/v1"))
    agents = [
        Agent(name="l", model="ollama/llama3.1"),
        Agent(name="c", model=server.model),
        Agent(name="b", model="m", base_url=server.base_url),
    ]
    without_key = [agent.run("Hi").output for agent in agents]
    openrouter()  # now there is one, and it stays at home
    with_key = [agent.run("Hi").output for agent in agents]
    assert without_key == with_key == ["Hello."] * 3
    assert KEY not in str(server.headers)
    assert ["authorization" in headers for headers in server.headers] == [True, False, False] * 2  # the word "ollama"


# ---- Running agents -----------------------------------------------------------------------------------------------


def test_run_is_arun(openrouter):
    """Running agents: `run` is `arun` for synchronous code, "under the hood".

    Decided: not with asyncio.run, which a notebook cell could not call, but on a loop of the library's own.
    """
    server = openrouter("Hello.", repeat=True)

    class Counted(Agent):
        calls = 0

        async def arun(self, *args, **kwargs):
            Counted.calls += 1
            return await super().arun(*args, **kwargs)

    agent = Counted(name="assistant", model="claude-sonnet-4")
    assert agent.run("Summarize this PR").output == asyncio.run(agent.arun("Summarize this PR")).output
    assert Counted.calls == 2
    assert server.requests[0] == server.requests[1]


def test_run_works_in_a_script_a_cell_and_a_thread(openrouter, tmp_path):
    """Running agents: `run` is right in a script, "a notebook cell", or wherever no loop runs.

    Decided: allowed in a cell although a kernel's loop runs there, as this sentence says and another page denies.
    """
    server = openrouter("Hello.", repeat=True)
    code = "from agentroute import Agent\nprint(Agent(name='a', model='claude-sonnet-4').run('Hi'))"
    assert run_script(code, tmp_path) == "Hello.\n"

    (tmp_path / ".agentroute").mkdir()
    (tmp_path / ".agentroute" / "config").write_text(config_file().read_text())
    with kernel(tmp_path, env={"AGENTROUTE_API_KEY": KEY}) as session:
        assert session.run(code).stdout == "Hello.\n"

    outputs: list[str] = []
    thread = threading.Thread(target=lambda: outputs.append(Agent(name="a", model="claude-sonnet-4").run("Hi").output))
    thread.start()
    thread.join()
    assert outputs == ["Hello."]
    assert len(server.requests) == 3


def test_arun_is_a_coroutine_for_async_code(openrouter):
    """Running agents: `arun` is "the native coroutine", for async code."""
    server = openrouter("Hello.")
    agent = Agent(name="assistant", model="claude-sonnet-4")

    async def handler() -> str:
        return (await agent.arun("Hi")).output

    assert inspect.iscoroutinefunction(agent.arun)
    assert asyncio.run(handler()) == "Hello."
    assert contents(server.requests[0]) == ["Hi"]


def test_the_two_lines_that_run_an_agent(openrouter):
    """Running agents: the block with `agent.run(…)` and `await agent.arun(…)`."""
    server = openrouter("It mends a bug.", repeat=True)
    agent = Agent(name="assistant", model="claude-sonnet-4")
    result = agent.run("Summarize this PR")
    assert result.output == "It mends a bug."

    async def block() -> Result:
        result = await agent.arun("Summarize this PR")
        return result

    assert asyncio.run(block()).output == "It mends a bug."
    assert [contents(body) for body in server.requests] == [["Summarize this PR"]] * 2


def test_both_return_a_result_whose_str_is_the_text(openrouter):
    """Running agents: both give a Result, and `str(result)` is its text."""
    openrouter("Hello.", repeat=True)
    agent = Agent(name="assistant", model="claude-sonnet-4")
    for result in (agent.run("Hi"), asyncio.run(agent.arun("Hi"))):
        assert isinstance(result, Result)
        assert str(result) == result.output == "Hello."


def test_gather_runs_prompts_side_by_side(openrouter):
    """Running agents: "gather over `arun`" for concurrency, and the block that does."""
    together = threading.Barrier(3)

    def answer(body):
        together.wait(60)  # passes only when three requests are there at once
        return contents(body)[-1].upper()

    server = openrouter(answer, repeat=True)
    agent = Agent(name="assistant", model="claude-sonnet-4")

    async def block() -> list[Result]:
        prompts = ["First", "Second", "Third"]
        results = await asyncio.gather(*(agent.arun(p) for p in prompts))
        return results

    assert [result.output for result in asyncio.run(block())] == ["FIRST", "SECOND", "THIRD"]
    assert sorted(contents(body)[-1] for body in server.requests) == ["First", "Second", "Third"]


def test_run_refuses_to_block_a_running_loop(openrouter):
    """Running agents: `run` raises inside a running event loop."""
    server = openrouter("Hello.")

    async def handler() -> None:
        Agent(name="assistant", model="claude-sonnet-4").run("Hi")

    with pytest.raises(RuntimeError, match="an event loop is running here"):
        asyncio.run(handler())
    assert server.requests == []


def test_the_refusal_names_arun_which_works_there(openrouter):
    """Running agents: `await agent.arun(...)` is what works there "instead"."""
    openrouter("Hello.")
    agent = Agent(name="assistant", model="claude-sonnet-4")

    async def handler() -> str:
        with pytest.raises(RuntimeError, match=r"await agent\.arun\(\.\.\.\)"):
            agent.run("Hi")
        return str(await agent.arun("Hi"))

    assert asyncio.run(handler()) == "Hello."


# ---- Memory and history -------------------------------------------------------------------------------------------


def test_without_a_memory_nothing_persists(openrouter):
    """Memory: what persists "depends which backend you attach". Decided: without one, runs know nothing of each other."""
    server = openrouter("Hello.", repeat=True)
    agent = Agent(name="chat", model="claude-sonnet-4")
    agent.run("My name is Ada.")
    agent.run("What is my name?")
    assert contents(server.requests[1]) == ["What is my name?"]


def test_memory_is_in_ram_and_ends_with_its_process(openrouter, tmp_path):
    """Memory: `Memory` is in RAM and ends with its process."""
    server = openrouter("Hello.", repeat=True)
    code = (
        "from agentroute import Agent, Memory\n"
        "agent = Agent(name='chat', model='claude-sonnet-4', memory=Memory())\n"
        "agent.run('My name is Ada.')\nagent.run('What is my name?')"
    )
    run_script(code, tmp_path)
    run_script(code, tmp_path)
    assert [contents(body) for body in server.requests] == [
        ["My name is Ada."],
        ["My name is Ada.", "Hello.", "What is my name?"],
    ] * 2  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_memory_sqlite_survives_restarts(openrouter, tmp_path):
    """Memory: `MemorySQLite(path)` is a file with FTS5 and "survives restarts"."""
    server = openrouter("Hello.", repeat=True)
    code = (
        "from agentroute import Agent, MemorySQLite\n"
        "Agent(name='chat', model='claude-sonnet-4', memory=MemorySQLite('agent.db')).run({prompt!r})"
    )
    run_script(code.format(prompt="My name is Ada."), tmp_path)
    run_script(code.format(prompt="What is my name?"), tmp_path)
    assert contents(server.requests[1]) == ["My name is Ada.", "Hello.", "What is my name?"]
    connection = sqlite3.connect(tmp_path / "agent.db")
    tables = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table'")]
    connection.close()
    assert any("USING fts5" in sql for sql in tables)


def test_an_agent_for_each_backend(openrouter, tmp_path, monkeypatch):
    """Memory: the block with an ephemeral and a persistent agent."""
    server = openrouter("Hello.", repeat=True)
    monkeypatch.chdir(tmp_path)
    ephemeral = Agent(name="chat", model="claude-sonnet-4", memory=Memory())
    persistent = Agent(name="chat", model="claude-sonnet-4", memory=MemorySQLite("agent.db"))
    for agent in (ephemeral, persistent):
        agent.run("My name is Ada.")
        agent.run("What is my name?")
    assert contents(server.requests[1]) == contents(server.requests[3]) == ["My name is Ada.", "Hello.", "What is my name?"]
    assert (tmp_path / "agent.db").is_file()


@pytest.mark.parametrize("make", [lambda path: Memory(), lambda path: MemorySQLite(path / "agent.db")], ids=["ram", "sqlite"])
def test_both_memories_keep_one_protocol(make, tmp_path):
    """Memory: both implement "the same protocol" of five methods."""
    memory = make(tmp_path)
    assert isinstance(memory, MemoryProto)

    async def use() -> tuple:
        await memory.add_messages([Message("user", "Hi"), Message("assistant", "Hello.")])
        await memory.remember("colour", "the favourite colour is blue")
        await memory.remember("pet", "the dog is called Rex")
        found = await memory.recall("what is my favourite colour?")
        await memory.forget("colour")
        return [message.content for message in await memory.get_messages()], found[0], await memory.recall("")

    assert asyncio.run(use()) == (["Hi", "Hello."], "the favourite colour is blue", ["the dog is called Rex"])


@pytest.mark.parametrize("make", [lambda path: Memory(), lambda path: MemorySQLite(path / "agent.db")], ids=["ram", "sqlite"])
def test_tools_reach_the_memory_through_ctx(openrouter, make, tmp_path):
    """Memory: tools reach a memory "through `ctx.memory`". Decided: plain tools too; there its methods block."""
    server = openrouter(
        ToolCall("1", "keep", {"fact": "the colour is blue"}), ToolCall("2", "find", {"question": "which colour?"}), "Blue."
    )
    agent = Agent(name="chat", model="claude-sonnet-4", memory=make(tmp_path))

    @agent.tool
    def keep(ctx: Context, fact: str) -> str:
        ctx.memory.remember("fact", fact)
        return "kept"

    @agent.tool
    async def find(ctx: Context, question: str) -> list[str]:
        return await ctx.memory.recall(question)

    assert agent.run("Keep, then find.").output == "Blue."
    assert contents(server.requests[2])[2::2] == ["kept", '["the colour is blue"]']


def test_facts_outlast_a_session(openrouter, tmp_path):
    """Memory: memory is "long-term recall" from session to session."""
    server = openrouter(
        ToolCall("1", "keep", {"fact": "the colour is blue"}), "Kept.", ToolCall("2", "find", {"question": "colour"}), "Blue."
    )
    agent = Agent(name="chat", model="claude-sonnet-4", memory=MemorySQLite(tmp_path / "agent.db"))

    @agent.tool
    async def keep(ctx: Context, fact: str) -> None:
        await ctx.memory.remember("fact", fact)

    @agent.tool
    async def find(ctx: Context, question: str) -> list[str]:
        return await ctx.memory.recall(question)

    agent.run("The colour is blue.", session_id="monday")
    agent.run("Which colour?", session_id="tuesday")
    assert contents(server.requests[2]) == ["Which colour?"]  # the conversations are apart
    assert contents(server.requests[3])[-1] == '["the colour is blue"]'  # what was remembered is not


def test_history_is_compacted_before_each_turn(openrouter):
    """History: history is how the conversation is compacted "on each turn"."""
    server = openrouter(ToolCall("1", "look", {}), "Done.")
    memory = remembering(conversation(6))
    agent = Agent(name="chat", model="claude-sonnet-4", memory=memory, history=HistorySlidingWindow(window_size=4))
    agent.tool(lambda: "seen", name="look")
    agent.run("u4")
    assert contents(server.requests[0]) == ["u3", "a3", "u4"]  # the last four begin with an answer, which no provider wants first
    assert contents(server.requests[1]) == ["u4", None, "seen"]
    kept = asyncio.run(memory.get_messages())
    assert [message.content for message in kept] == ["u1", "a1", "u2", "a2", "u3", "a3", "u4", None, "seen", "Done."]


@pytest.mark.parametrize(
    ("policy", "sent"),
    [
        (None, [["u1", "a1", "u2", "a2", "u3"], ["u1", "a1", "u2", "a2", "u3", None, "seen"]]),
        (HistorySlidingWindow(window_size=3), [["u2", "a2", "u3"], ["u3", None, "seen"]]),
        (HistoryTruncate(max_tokens=4), [["u2", "a2", "u3"], ["u3", None, "seen"]]),
    ],
)
def test_a_strategy_is_attached_with_history(openrouter, policy, sent):
    """History: a strategy is attached with `history=`."""
    server = openrouter(ToolCall("1", "look", {}), "Hello.")
    agent = Agent(name="chat", model="claude-sonnet-4", memory=remembering(conversation(4)), history=policy)
    agent.tool(lambda: "seen", name="look")
    agent.run("u3")
    assert [contents(body) for body in server.requests] == sent


def test_the_sliding_window_keeps_the_last_messages(openrouter):
    """History: `HistorySlidingWindow(window_size=20)` keeps the "last N messages".

    Decided: N is messages, not turns; one fewer where the first would be an answer, or a tool's result without its
    call.
    """
    server = openrouter("Hello.", repeat=True)
    for policy in (HistorySlidingWindow(window_size=5), HistorySlidingWindow()):
        Agent(name="chat", model="claude-sonnet-4", memory=remembering(conversation(60)), history=policy).run("u31")
    assert contents(server.requests[0]) == ["u29", "a29", "u30", "a30", "u31"]
    assert HistorySlidingWindow().window_size == 20
    assert contents(server.requests[1]) == [text for n in range(22, 31) for text in (f"u{n}", f"a{n}")] + ["u31"]


def test_truncation_drops_the_oldest_at_four_characters_a_token(openrouter):
    """History: `HistoryTruncate(max_tokens=100_000)` drops the oldest, at four characters a token."""
    server = openrouter("Hello.", repeat=True)
    long = [
        Message(role, letter * 400) for role, letter in zip(["user", "assistant"] * 2, "abcd", strict=True)
    ]  # 100 tokens each
    for policy in (HistoryTruncate(max_tokens=300), HistoryTruncate(max_tokens=299), HistoryTruncate()):
        Agent(name="chat", model="claude-sonnet-4", memory=remembering(long), history=policy).run("e" * 400)
    assert ["".join(text[0] for text in contents(body)) for body in server.requests] == ["cde", "e", "abcde"]
    assert HistoryTruncate().max_tokens == 100_000


def test_summarizing_replaces_the_older_turns(openrouter):
    """History: `HistorySummarize(model=..., keep_recent=4)` sums up older turns."""
    server = openrouter("The user counts.", "Hello.")
    policy = HistorySummarize(model=resolve_model("claude-sonnet-4"), keep_recent=4)
    Agent(name="chat", model="claude-sonnet-4", memory=remembering(conversation(20)), history=policy).run("u11")
    summary, answer = map(contents, server.requests)
    assert "u1" in str(summary) and "a6" in str(summary)
    assert "The user counts." in str(answer)
    assert "a6" not in str(answer)
    assert answer[-1] == "u11"


def test_summarizing_needs_a_model():
    """History: it wants "a concrete `Model`", or raises RuntimeError. Decided: when it is made; a string is resolved."""
    with pytest.raises(RuntimeError, match="model"):
        HistorySummarize(model=None)
    with pytest.raises(RuntimeError, match="model"):
        HistorySummarize()


# ---- Cost and limits ----------------------------------------------------------------------------------------------


def test_limits_stand_on_the_agent_or_on_the_run(openrouter):
    """Cost: the knobs stand on the Agent "or `run`/`arun`". Decided: the run's take the place of the agent's."""
    server = openrouter(ToolCall("1", "look", {}), repeat=True, usage={"cost": 0.1})
    agent = Agent(
        name="bounded", model="claude-sonnet-4", max_turns=2, max_cost=5.0, tools=[agentroute.tool(lambda: "seen", name="look")]
    )
    with pytest.raises(ErrorMaxTurns):
        agent.run("Do the task")
    assert len(server.requests) == 2
    with pytest.raises(ErrorMaxTurns):
        agent.run("Do the task", max_turns=3)
    assert len(server.requests) == 5
    with pytest.raises(ErrorBudget):
        asyncio.run(agent.arun("Do the task", max_cost=0.05))
    assert len(server.requests) == 6


def test_max_turns_is_ten_and_caps_the_loop(openrouter):
    """Cost: `max_turns` is 10 by default; at the cap comes ErrorMaxTurns."""
    server = openrouter(ToolCall("1", "look", {}), repeat=True)
    agent = Agent(name="bounded", model="claude-sonnet-4", tools=[agentroute.tool(lambda: "seen", name="look")])
    with pytest.raises(ErrorMaxTurns) as caught:
        agent.run("Do the task")
    assert (caught.value.turn, caught.value.limit, len(server.requests)) == (11, 10, 10)


def test_max_cost_caps_spend_in_dollars(openrouter):
    """Cost: `max_cost` caps what is spent, in USD; beyond it comes ErrorBudget."""
    server = openrouter(ToolCall("1", "look", {}), repeat=True, usage={"cost": 0.1})
    agent = Agent(name="bounded", model="claude-sonnet-4", max_cost=0.25, tools=[agentroute.tool(lambda: "seen", name="look")])
    with pytest.raises(ErrorBudget) as caught:
        agent.run("Do the task")
    assert (caught.value.spent, caught.value.limit, len(server.requests)) == (0.3, 0.25, 3)


def test_every_result_carries_its_usage(openrouter):
    """Cost: every Result has a Usage that tells what was spent. Decided: failed runs' too."""
    openrouter(ToolCall("1", "look", {}), repeat=True, usage={"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.1})
    agent = Agent(name="bounded", model="claude-sonnet-4", max_turns=2, tools=[agentroute.tool(lambda: "seen", name="look")])
    with pytest.raises(ErrorMaxTurns) as caught:
        agent.run("Do the task")
    assert caught.value.result.usage == Usage(input_tokens=20, output_tokens=10, total_cost_usd=0.2, model_calls=2)
    openrouter("Hello.", usage={"prompt_tokens": 7, "completion_tokens": 3, "cost": 0.002})
    assert agent.run("Hi").usage == Usage(input_tokens=7, output_tokens=3, total_cost_usd=0.002, model_calls=1)


@pytest.mark.parametrize(
    ("cost", "printed"), [(0.01, "0.01 1\n"), (0.3, "Stopped at $0.3000 (limit $0.25)\n")], ids=["done", "stopped"]
)
def test_the_bounded_agent_prints_what_it_spent(openrouter, capsys, cost, printed):
    """Cost: the block with `max_turns=6`, `max_cost=0.25` and `except ErrorBudget`."""
    openrouter("Done.", usage={"cost": cost})
    agent = Agent(
        name="bounded",
        model="claude-sonnet-4",
        max_turns=6,
        max_cost=0.25,
    )
    try:
        result = agent.run("Do the task")
        print(result.usage.total_cost_usd, result.usage.model_calls)
    except ErrorBudget as e:
        print(f"Stopped at ${e.spent:.4f} (limit ${e.limit})")
    assert capsys.readouterr().out == printed


# ---- Structured output --------------------------------------------------------------------------------------------


def test_output_takes_a_pydantic_model(openrouter):
    """Structured output: a Pydantic model is passed as `output=`."""
    server = openrouter(invoice())
    Agent(name="extractor", model="claude-sonnet-4", output=Invoice).run("Invoice INV-42: total 199.00 EUR")
    parameters = server.requests[0]["tools"][0]["function"]["parameters"]
    assert {name: field["type"] for name, field in parameters["properties"].items()} == {
        "number": "string",
        "total": "number",
        "currency": "string",
    }
    assert parameters["required"] == ["number", "total", "currency"]


def test_the_output_is_an_instance_of_that_model(openrouter):
    """Structured output: `output` is then "a validated instance" of it, no string."""
    server = openrouter(invoice(total="much"), invoice())
    result = Agent(name="extractor", model="claude-sonnet-4", output=Invoice).run("Invoice INV-42: total 199.00 EUR")
    assert result.output == Invoice(number="INV-42", total=199.0, currency="EUR")
    assert "total" in contents(server.requests[1])[-1]  # the first answer did not validate, and was sent back


def test_the_invoice_is_extracted(openrouter, capsys):
    """Structured output: the block with Invoice."""
    server = openrouter(invoice())
    agent = Agent(name="extractor", model="claude-sonnet-4", output=Invoice)
    result = agent.run("Invoice INV-42: total 199.00 EUR")
    invoice_ = result.output  # an Invoice instance
    print(invoice_.total, invoice_.currency)
    assert capsys.readouterr().out == "199.0 EUR\n"
    assert contents(server.requests[0]) == ["Invoice INV-42: total 199.00 EUR"]


def test_a_validator_makes_the_model_try_again(openrouter):
    """Structured output: a validator that raises `Retry("hint")` has the model try again, and its block."""
    server = openrouter(invoice(total=-199.0), invoice())
    agent = Agent(name="extractor", model="claude-sonnet-4", output=Invoice)

    @agent.output_validator
    def positive_total(ctx, output: Invoice) -> Invoice:
        if output.total <= 0:
            raise Retry("total must be greater than zero")
        return output

    assert agent.run("Invoice INV-42: total 199.00 EUR").output.total == 199.0
    assert "total must be greater than zero" in contents(server.requests[1])[-1]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_are_bounded(openrouter, retries):
    """Structured output: `Agent(retries=...)` bounds the retries."""
    server = openrouter(invoice(total=-199.0), repeat=True)
    agent = Agent(name="extractor", model="claude-sonnet-4", output=Invoice, retries=retries)

    @agent.output_validator
    def positive_total(ctx, output: Invoice) -> None:
        raise Retry("total must be greater than zero")

    with pytest.raises(ErrorOutput, match="total must be greater than zero"):
        agent.run("Invoice INV-42: total 199.00 EUR")
    assert len(server.requests) == retries + 1


# ---- Platform and SDKs --------------------------------------------------------------------------------------------


def test_all_that_is_shipped_works_in_one_run(openrouter, tmp_path):
    """Platform: what the Python SDK has is "real and runnable today", at version 1.1.0."""
    server = openrouter(ToolCall("1", "total", {"number": "INV-42"}), invoice(), repeat=True)
    agent = Agent(
        name="all", model="claude-sonnet-4", instructions="Be exact.", output=Invoice, memory=MemorySQLite(tmp_path / "agent.db"),
        history=HistorySlidingWindow(20), max_turns=4, max_cost=0.5,
    )  # fmt: skip

    @agent.tool
    def total(number: str) -> float:
        return 199.0

    result = agent.run("Invoice INV-42?")
    assert (result.output.total, result.usage.model_calls) == (199.0, 2)
    assert contents(server.requests[1]) == ["Be exact.", "Invoice INV-42?", None, "199.0"]
    assert agentroute.__version__ == "1.1.0"


def test_streaming_is_shipped_and_deployment_is_a_placeholder(openrouter):
    """Platform: `Event` and `ResultDeploy` "exist as placeholders".

    Decided: streaming is shipped here, with Event; hosting is not, and nothing returns a ResultDeploy yet.
    """
    server = openrouter("Hello there.")
    stream = Agent(name="assistant", model="claude-sonnet-4").stream("Hi")
    events = list(stream)
    assert all(isinstance(event, Event) for event in events)
    assert (
        "".join(event.data["delta"] for event in events if event.kind == "text_delta") == stream.result.output == "Hello there."
    )
    assert server.requests[0]["stream"] is True
    assert ResultDeploy(url="https://x.example").status == "pending"


def test_the_deploy_command_says_what_is_not_there_yet():
    """Platform: the command `deploy` is older than the SDK. Decided: it says that hosting does not exist yet, and fails."""
    done = CliRunner().invoke(commands, ["deploy"])
    assert done.exit_code != 0
    assert "not" in done.output and "yet" in done.output and "No such command" not in done.output


def test_an_agent_does_not_pretend_to_deploy():
    """Platform: hosted deployment is "still being finalized". Decided: Agent has no deploy until it can."""
    assert not hasattr(Agent, "deploy")


def test_python_is_the_one_sdk_and_it_is_typed():
    """Platform: Python is the one SDK; TypeScript is "not yet available"."""
    package = Path(agentroute.__file__).parent
    assert (package / "py.typed").is_file()
    assert {path.suffix for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts} <= {
        ".py",
        ".typed",
        ".pyi",
    }


def test_there_is_no_team_yet():
    """Platform: there is "no native Team or A2A" yet."""
    assert [name for name in dir(agentroute) if name.lower() in ("team", "company", "a2a")] == []


def test_agents_are_orchestrated_with_plain_python(openrouter):
    """Platform: several agents are orchestrated "with plain Python" and `asyncio.gather`."""
    server = openrouter(lambda body: f"[{contents(body)[0]} {contents(body)[1]}]", repeat=True)
    law, money, editor = (
        Agent(name=name, model="claude-sonnet-4", instructions=f"{name}:") for name in ("law", "money", "editor")
    )

    async def workflow(topic: str) -> Result:
        parts = await asyncio.gather(law.arun(topic), money.arun(topic))
        return await editor.arun(" and ".join(map(str, parts)))

    assert asyncio.run(workflow("rent")).output == "[editor: [law: rent] and [money: rent]]"
    assert len(server.requests) == 3


def test_the_commands_of_the_page_exist():
    """Where to next: the command line has login, deploy, logs and list."""
    shown = CliRunner().invoke(commands, ["--help"]).output
    assert [name for name in ("login", "deploy", "logs", "list") if f"\n  {name} " not in shown] == []
