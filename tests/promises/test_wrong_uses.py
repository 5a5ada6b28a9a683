"""Wrong uses and what is said about them: read it as a page of the manual.

Each row is what somebody wrote, and words of the sentence they get back: what was expected, what came, what to do. Unless
the row says otherwise it is an ErrorConfig, and no model has been asked by then. Mistakes in the shape of a call (an
unknown keyword, a missing argument) are Python's own TypeError.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import traceback
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import agentroute
from agentroute import (
    Agent,
    Context,
    ErrorConfig,
    ErrorStore,
    HistorySlidingWindow,
    HistorySummarize,
    HistoryTruncate,
    LLMRequest,
    Memory,
    MemorySQLite,
    Message,
    ModelCloud,
    RunStore,
    Tool,
    ToolCall,
    image,
    resolve_model,
    tool,
)
from agentroute.config import Config, Headers, Secret
from agentroute.errors import ErrorModelResponse
from agentroute.models.retry import ModelRetry
from agentroute.testing import ModelFunction, ModelScripted, no_requests

KEY = "sk-or-secret-0123456789"
INFINITE, NO_NUMBER = float("inf"), float("nan")
MODEL = ModelFunction(lambda request: "hello")


class Invoice(BaseModel):
    number: str


class Opaque:
    """A class no JSON Schema can be made for."""


class ModelSync(ModelFunction):
    def complete(self, request):
        return "hello"


class ModelWithoutAnswer(ModelFunction):
    async def complete(self, request):
        return "hello"


class ModelOfChunks(ModelScripted):
    def complete_stream(self, request):
        return self.answers


class ModelOfTexts(ModelFunction):
    async def complete_stream(self, request):
        yield "hello"


class ModelUnfinished:
    async def complete(self, request): ...


class MemoryOf(Memory):
    """A memory that gives back what it is told to."""

    def __init__(self, messages):
        super().__init__()
        self.given = messages

    async def get_messages(self, limit=None):
        return self.given


class MemoryNotAsync(Memory):
    def get_messages(self, limit=None):
        return []


class MemoryOfOne:
    async def get_messages(self, limit=None):
        return []

    async def add_messages(self, messages): ...


class HistoryOf:
    def __init__(self, messages):
        self.given = messages

    async def compact(self, messages, token_budget=None):
        return self.given


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def another_add(a: int) -> int:
    return a


another_add.__name__ = "add"


def takes_anything(*args, **kwargs): ...


def of_unknown_type(thing: Nowhere): ...  # noqa: F821


def of_opaque_type(thing: Opaque): ...


def with_two_contexts(one: Context, two: Context): ...


def final_answer(text: str) -> str:
    return text


def agent(**options: Any) -> Agent:
    return Agent("helper", **{"model": MODEL, **options})


def validated(check: Any) -> Agent:
    made = agent()
    made.output_validator(check)
    return made


async def inside_a_loop(use: Any) -> Any:
    return use()


@dataclass(frozen=True)
class Row:
    """One wrong use: what it is, how it is written, what is said."""

    use: str
    written: Any
    words: tuple[str, ...]
    error: type[BaseException] = ErrorConfig
    requests: int = 0
    environment: dict[str, str] = field(default_factory=dict)


def row(use: str, written: Any, *words: str, **options: Any) -> Row:
    return Row(use, written, words, **options)


MANUAL: dict[str, list[Row]] = {
    "Agent arguments": [
        row("no name", lambda: Agent(model="claude-sonnet-4"), "missing 1 required positional argument: 'name'", error=TypeError),
        row("an empty name", lambda: Agent(" "), "name must be a text that is not empty, got ' '"),
        row("a name that is no text", lambda: Agent(5), "name must be a text", "got 5"),
        row("the model by position", lambda: Agent("helper", "claude-sonnet-4"), "positional argument", error=TypeError),
        row("an unknown keyword", lambda: Agent("helper", modle="x"), "unexpected keyword argument 'modle'", error=TypeError),
        row("an unknown keyword of a copy", lambda: agent().replace(modle="x"), "unexpected keyword argument 'modle'", error=TypeError),
        row("a setting of no such name", lambda: Agent.model_validate({"name": "a", "modle": "x"}), "Agent takes no 'modle'; it takes api_key"),
        row("settings that are no mapping", lambda: Agent.model_validate(["a"]), "expected a dictionary of Agent's arguments, got list"),
        row("a number as model", lambda: Agent("helper", model=5), "model must be a model string or a Model", "got int"),
        row("an empty model string", lambda: Agent("helper", model=" "), "model is an empty string; give one such as"),
        row("half a model", lambda: Agent("helper", model=ModelUnfinished()), "a Model (complete, complete_stream, close), got ModelUnfinished"),
        row("the class of a model", lambda: Agent("helper", model=ModelCloud), "model is the class ModelCloud", "ModelCloud(…)"),
        row("instructions as a list", lambda: agent(instructions=["Be brief."]), "instructions must be a text, got list"),
        row("a description that is no text", lambda: agent(description=5), "description must be a text, got int"),
        row("a base_url that is no text", lambda: agent(base_url=Path("v1")), "base_url must be a text, got PosixPath"),
        row("no turn at all", lambda: agent(max_turns=0), "max_turns must be a whole number of at least 1, got 0"),
        row("half a turn", lambda: agent(max_turns=2.5), "max_turns must be a whole number", "got 2.5"),
        row("True as a number of turns", lambda: agent(max_turns=True), "max_turns must be a whole number", "got True"),
        row("turns as text", lambda: agent(max_turns="10"), "max_turns must be a whole number", "got '10'"),
        row("a cost limit below zero", lambda: agent(max_cost=-1), "max_cost must be a number of at least 0, or None; got -1"),
        row("a cost limit as text", lambda: agent(max_cost="0.5"), "max_cost must be a number", "got '0.5'"),
        row("a cost limit that is no number", lambda: agent(max_cost=NO_NUMBER), "max_cost must be a number", "got nan"),
        row("an infinite cost limit", lambda: agent(max_cost=INFINITE), "max_cost must be a number", "got inf", "None"),
        row("a cost limit beyond all numbers", lambda: agent(max_cost=10**400), "max_cost must be a number"),
        row("a cost limit as Decimal", lambda: agent(max_cost=Decimal("0.5")), "max_cost must be a number", "got Decimal('0.5')"),
        row("retries below zero", lambda: agent(retries=-1), "retries must be a whole number of at least 0, got -1"),
        row("settings of a copy", lambda: agent().replace(max_turns=0), "max_turns must be a whole number of at least 1, got 0"),
    ],
    "Running": [
        row("no prompt", lambda: agent().run(), "missing 1 required positional argument: 'prompt'", error=TypeError),
        row("None as prompt", lambda: agent().run(None), "the prompt must be a text", "got None"),
        row("a number as prompt", lambda: agent().run(5), "the prompt must be a text", "got 5"),
        row("bytes as prompt", lambda: agent().run(b"hi"), "the prompt must be a text", "got b'hi'"),
        row("an empty prompt", lambda: agent().run(""), "the prompt is empty; give the model something to answer"),
        row("white space as prompt", lambda: agent().run(" \n"), "the prompt is empty"),
        row("a Message as prompt", lambda: agent().run(Message("user", "hi")), "the prompt must be a text"),
        row("an unknown keyword", lambda: agent().run("hi", sesion_id="s"), "unexpected keyword argument 'sesion_id'", error=TypeError),
        row("two prompts", lambda: agent().run("hi", "ho"), "positional argument", error=TypeError),
        row("the agent as a function", lambda: agent()("hi"), "'Agent' object is not callable", error=TypeError),
        row("the class as an agent", lambda: Agent.run("hi"), "missing 1 required positional argument: 'prompt'", error=TypeError),
        row("no turn in this run", lambda: agent().run("hi", max_turns=0), "max_turns must be a whole number of at least 1, got 0"),
        row("a cost limit as text", lambda: agent().run("hi", max_cost="0.5"), "max_cost must be a number", "got '0.5'"),
        row("a session as number", lambda: agent(memory=Memory()).run("hi", session_id=5), "session_id must be a str that is not empty, or None, not 5"),
        row("a session as number, no memory", lambda: agent().run("hi", session_id=5), "session_id must be a str"),
        row("an empty session", lambda: agent(memory=Memory()).run("hi", session_id=""), "session_id must be a str that is not empty, or None, not ''"),
        row(
            "a session in a memory of one conversation", lambda: agent(memory=MemoryOfOne()).run("hi", session_id="s"),
            "session_id is given, but MemoryOfOne has no session(session_id)",
        ),
        row("no model", lambda: Agent("helper").run("hi"), "agent 'helper' has no model; give one, such as model="),
        row(
            "run() inside a running loop", lambda: asyncio.run(inside_a_loop(lambda: agent().run("hi"))),
            "an event loop is running here", "use `await agent.arun(...)`", error=RuntimeError,
        ),
        row(
            "a plain for inside a running loop", lambda: asyncio.run(inside_a_loop(lambda: list(agent().stream("hi")))),
            "an event loop is running here", "use `async for event in agent.stream(...)`", error=RuntimeError,
        ),
    ],
    "Prompts and images": [
        row("an empty list", lambda: agent().run([]), "the prompt is empty"),
        row("a list of empty texts", lambda: agent().run(["", " "]), "the prompt is empty"),
        row("a number among the parts", lambda: agent().run(["What is this?", 5]), "part 2 of the prompt must be a text, image(…)", "got 5"),
        row("None among the parts", lambda: agent().run([None]), "part 1 of the prompt must be", "got None"),
        row("a part without type", lambda: agent().run([{"text": "hi"}]), "part 1 of the prompt must be", "{'type': 'text'"),
        row("one part, not in a list", lambda: agent().run({"type": "text", "text": "hi"}), "or a list of texts and content parts"),
        row("bytes among the parts", lambda: agent().run(["What is this?", b"\x89PNG"]), "part 2 of the prompt must be", "image(…)"),
        row("a path among the parts", lambda: agent().run(["What is this?", Path("cat.png")]), "part 2 of the prompt must be", "image(…)"),
        row("a picture that is not there", lambda: image("cat.png"), "image(): 'cat.png' cannot be read (No such file or directory); give a URL"),
        row("a directory as picture", lambda: image("directory"), "'directory' cannot be read", "Is a directory"),
        row("a text file as picture", lambda: image("notes.txt"), "'notes.txt' is no picture; give a PNG, JPEG, GIF or WebP"),
        row("an empty file as picture", lambda: image(Path("empty")), "'empty' is empty; give a PNG, JPEG, GIF or WebP"),
        row("no bytes as picture", lambda: image(b""), "the data given is empty; give a PNG"),
        row("an empty path", lambda: image(""), "cannot be read"),
        row("another scheme", lambda: image("ftp://host/cat.png"), "expected an http(s) or data URL, a path or bytes; got 'ftp://host/cat.png'"),
        row("a number as picture", lambda: image(5), "expected a URL, a path or bytes, got int"),
        row("None as picture", lambda: image(None), "expected a URL, a path or bytes, got NoneType"),
        row("a detail there is not", lambda: image("https://host/cat.png", detail="huge"), "detail must be one of auto, low, high; got 'huge'"),
    ],
    "Tools": [
        row("a function, not a list", lambda: agent(tools=add), "tools must be a list of functions or Tools, got function", "[add]"),
        row("a name, not a list", lambda: agent(tools="add"), "tools must be a list of functions or Tools, got str"),
        row("a dictionary", lambda: agent(tools={"add": add}), "tools must be a list of functions or Tools, got dict"),
        row("names of tools", lambda: agent(tools=["search"]), "a tool must be a function or a Tool, got str: 'search'"),
        row("what a function returned", lambda: agent(tools=[add(1, 2)]), "a tool must be a function or a Tool, got int: 3"),
        row("an agent as a tool", lambda: agent(tools=[agent()]), "a tool must be a function or a Tool, got Agent", "agent.run"),
        row("a decorator without its function", lambda: agent(tools=[tool(timeout=5)]), "tool(…) with options is a decorator", "write tool(…)(function)"),
        row("two functions of one name", lambda: agent(tools=[add, another_add]), "agent 'helper' has another tool named 'add'; give one of them a name=…"),
        row("a tool named final_answer", lambda: agent(tools=[final_answer], output=Invoice).run("hi"), "a tool is named 'final_answer'", "give it another name"),
        row("a lambda without a name", lambda: agent(tools=[lambda x: x]), "tool name '<lambda>': use 1 to 64 letters"),
        row("a name with spaces", lambda: tool(name="add numbers")(add), "tool name 'add numbers': use 1 to 64 letters"),
        row("an empty name", lambda: tool(name="")(add), "tool name ''"),
        row("the name by position", lambda: tool("add"), "a tool is made from a function, got 'add'; options go by name, such as tool(name='add')"),
        row("the name by position, of an agent", lambda: agent().tool("add"), "options go by name, such as tool(name='add')"),
        row("an unknown option", lambda: tool(approval=True), "unexpected keyword argument 'approval'", error=TypeError),
        row("something that is not called", lambda: Tool("add", "", None, 5), "tool 'add': expected a function, got int"),
        row("a schema that is no object", lambda: Tool("add", "", "{}", add), "tool 'add': params_schema must be a dictionary", "got str"),
        row("a description that is no text", lambda: tool(description=5)(add), "tool 'add': description must be a text, got int"),
        row("no time at all", lambda: tool(timeout=0)(add), "tool 'add': timeout must be a positive number of seconds, not 0"),
        row("True as seconds", lambda: tool(timeout=True)(add), "timeout must be a positive number of seconds, not True"),
        row("seconds as text", lambda: tool(timeout="5")(add), "timeout must be a positive number of seconds, not '5'"),
        row("only *args and **kwargs", lambda: agent(tools=[takes_anything]).run("hi"), "tool 'takes_anything' takes only *args or **kwargs", "functools.wraps"),
        row("a type that is not there", lambda: agent(tools=[of_unknown_type]).run("hi"), "a type hint cannot be resolved (name 'Nowhere' is not defined)"),
        row("a type without schema", lambda: agent(tools=[of_opaque_type]).run("hi"), "tool 'of_opaque_type': no schema for its parameters", "Opaque"),
        row("two contexts", lambda: agent(tools=[with_two_contexts]).run("hi"), "two parameters take the Context ('one', 'two'); keep one"),
        row("a method without its object", lambda: agent(tools=[Memory.session]).run("hi"), "method without its object"),
        row("called with wrong arguments", lambda: tool(add)(1), "missing 1 required positional argument: 'b'", error=TypeError),
    ],
    "Structured output": [
        row("an object, not its type", lambda: agent(output=Invoice(number="1")), "output must be a type", "got an object of Invoice; give the class: output=Invoice"),
        row("the name of a type", lambda: agent(output="Invoice"), "output must be a type", "got the text 'Invoice'"),
        row("a list with a type in it", lambda: agent(output=[Invoice]), "output must be a type", "list[Invoice]"),
        row("a schema", lambda: agent(output={"type": "object"}), "output must be a type", "got dict"),
        row("a number", lambda: agent(output=5), "output must be a type", "got int"),
        row("a type without schema", lambda: agent(output=Opaque).run("hi"), "no JSON Schema can be made for Opaque"),
        row("a mode there is not", lambda: agent(output_mode="json"), "output_mode must be one of auto, tool, native, prompted, text; got 'json'"),
        row("no mode", lambda: agent(output_mode=None), "output_mode must be one of auto", "got None"),
        row("a mode that is a list", lambda: agent(output_mode=["tool"]), "output_mode must be one of auto", "got ['tool']"),
        row("a validator that is not called", lambda: validated(5), "an output validator must be a function of (ctx, output), got int"),
        row("a validator in empty parentheses", lambda: agent().output_validator(), "missing 1 required positional argument: 'fn'", error=TypeError),
        row("a validator of one argument", lambda: validated(lambda output: output), "an output validator must be a function of (ctx, output)"),
    ],
    "Memory": [
        row("the class", lambda: agent(memory=Memory), "memory is the class Memory", "Memory(…)"),
        row("a file name", lambda: agent(memory="agent.db"), "memory must have the methods get_messages, add_messages", "MemorySQLite('agent.db')"),
        row("a number", lambda: agent(memory=123), "memory must have the methods get_messages, add_messages", "int lacks"),
        row("memory_tools without memory", lambda: agent(memory_tools=True), "memory_tools", "memory="),
        row(
            "memory_tools beside a tool of that name", lambda: agent(memory=Memory(), memory_tools=True, tools=[tool(name="recall")(add)]),
            "agent 'helper' has another tool named 'recall'; give one of them a name=…",
        ),
        row("memory_tools as text", lambda: agent(memory=Memory(), memory_tools="yes"), "memory_tools must be True or False, got 'yes'"),
        row("get_messages is not async", lambda: agent(memory=MemoryNotAsync()).run("hi"), "MemoryNotAsync.get_messages must be async"),
        row("dictionaries, not Messages", lambda: agent(memory=MemoryOf([{"role": "user"}])).run("hi"), "MemoryOf.get_messages must give a list of Messages", "dict"),
        row("None, not a list", lambda: agent(memory=MemoryOf(None)).run("hi"), "MemoryOf.get_messages must give a list of Messages", "NoneType"),
        row("a number as path", lambda: MemorySQLite(5), "the path of a memory must be a file name, not 5"),
        row("None as path", lambda: MemorySQLite(None), "the path of a memory must be a file name, not None"),
        row("an empty path", lambda: MemorySQLite(""), "the path of a memory must be a file name, not ''"),
        row("a directory", lambda: agent(memory=MemorySQLite("directory")).run("hi"), "cannot be read", "is no regular file", error=ErrorStore),
        row("a file below a file", lambda: agent(memory=MemorySQLite("notes.txt/agent.db")).run("hi"), "cannot be read", "check the path", error=ErrorStore),
        row("a text file", lambda: agent(memory=MemorySQLite("notes.txt")).run("hi"), "notes.txt cannot be read", "another path", error=ErrorStore),
        row("a long text file", lambda: agent(memory=MemorySQLite("long.txt")).run("hi"), "long.txt cannot be read", "no SQLite file", error=ErrorStore),
        row("a fact that is no text", lambda: asyncio.run(Memory().remember("age", 5)), "remember() takes a str as value, not int; convert it"),
        row("a key that is no text", lambda: asyncio.run(Memory().remember(5, "x")), "remember() takes a str as key, not int"),
        row("half a character", lambda: asyncio.run(MemorySQLite(":memory:").remember("k", "\ud800")), "half a character"),
        row("a query that is no text", lambda: asyncio.run(Memory().recall(None)), "recall() takes a str as query, not NoneType"),
        row("a query that is no text, in a file", lambda: asyncio.run(MemorySQLite(":memory:").recall(5)), "recall() takes a str as query, not int"),
        row("a limit as text", lambda: asyncio.run(Memory().recall("x", limit="3")), "limit must be a whole number, not '3'"),
        row("a limit of messages as text", lambda: asyncio.run(MemorySQLite(":memory:").get_messages("3")), "get_messages(): limit must be a whole number, not '3'"),
        row("one Message, not a list", lambda: asyncio.run(Memory().add_messages(Message("user", "hi"))), "add_messages() takes a list of Messages, not Message"),
        row("dictionaries as messages", lambda: asyncio.run(Memory().add_messages([{"role": "user"}])), "not dict; use Message.from_dict"),
        row("a session as number", lambda: Memory().session(5), "session_id must be a str"),
    ],
    "History": [
        row("the class", lambda: agent(history=HistorySlidingWindow), "history is the class HistorySlidingWindow", "HistorySlidingWindow(…)"),
        row("a number", lambda: agent(history=20), "history must have the methods compact", "HistorySlidingWindow(20)"),
        row("an empty window", lambda: HistorySlidingWindow(0), "window_size must be a positive int, not 0"),
        row("True as a window", lambda: HistorySlidingWindow(True), "window_size must be a positive int, not True"),
        row("a window as text", lambda: HistorySlidingWindow("3"), "window_size must be a positive int, not '3'"),
        row("an unknown option", lambda: HistorySlidingWindow(window=3), "unexpected keyword argument 'window'", error=TypeError),
        row("tokens below zero", lambda: HistoryTruncate(-1), "max_tokens must be a positive int, not -1"),
        row("a summary without a model", lambda: HistorySummarize(), "HistorySummarize needs a model to write summaries", error=RuntimeError),
        row("None as model of a summary", lambda: HistorySummarize(model=None), "HistorySummarize needs a model", "resolve_model(…)", error=RuntimeError),
        row("an empty model string for a summary", lambda: HistorySummarize(model=""), "model is an empty string; give one such as"),
        row("a summary with a number as model", lambda: HistorySummarize(model=5), "model must be a model string or a Model", "got int"),
        row("a summary with the class of a model", lambda: HistorySummarize(model=ModelCloud), "model is the class ModelCloud"),
        row("keep_recent below zero", lambda: HistorySummarize(model=MODEL, keep_recent=-1), "keep_recent must be a", "-1"),
        row("keep_recent as text", lambda: HistorySummarize(model=MODEL, keep_recent="4"), "keep_recent must be a", "'4'"),
        row("a policy that keeps nothing", lambda: agent(history=HistoryOf([])).run("hi"), "the history policy HistoryOf must give a list of Messages that is not empty"),
        row("a policy that returns nothing", lambda: agent(history=HistoryOf(None)).run("hi"), "the history policy HistoryOf must give a list of Messages"),
        row("a policy that gives dictionaries", lambda: agent(history=HistoryOf([{}])).run("hi"), "the history policy HistoryOf must give a list of Messages"),
        row("a policy that gives a number", lambda: agent(history=HistoryOf(5)).run("hi"), "the history policy HistoryOf must give a list of Messages"),
    ],
    "Models and keys": [
        row("no key", lambda: Agent("helper", model="claude-sonnet-4").run("hi"), "no API key for 'claude-sonnet-4': set AGENTROUTE_API_KEY", "agentroute login"),
        row(
            "a variable that is not set", lambda: Agent("helper", model="claude-sonnet-4", api_key=os.environ.get("NO_SUCH_KEY")).run("hi"),
            "no API key for 'claude-sonnet-4': set AGENTROUTE_API_KEY",
        ),
        row("an empty key", lambda: Agent("helper", model="claude-sonnet-4", api_key="").run("hi"), "no API key for 'claude-sonnet-4'", "api_key="),
        row("a key of another type", lambda: agent(api_key=5), "api_key must be a str, not int"),
        row("a key as bytes", lambda: agent(api_key=KEY.encode()), "api_key must be a str, not bytes"),
        row("a key of two lines", lambda: agent(api_key=f"{KEY}\n{KEY}"), "api_key holds spaces, control or non-ASCII characters (not shown here); copy it again"),
        row("a key with a dash of the word processor", lambda: agent(api_key=f"{KEY}–"), "api_key holds spaces, control or non-ASCII characters"),
        row(
            "a key of two lines in the environment", lambda: resolve_model("claude-sonnet-4"),
            "AGENTROUTE_API_KEY", "spaces, control or non-ASCII characters", environment={"AGENTROUTE_API_KEY": f"{KEY}\n{KEY}"},
        ),
        row("a key in a file", lambda: pickle.dumps(Secret(KEY)), "keys do not go into files", error=TypeError),
        row("no model string", lambda: resolve_model(123), "expected a model string such as 'anthropic/claude-sonnet-4', got 123"),
        row("None as model string", lambda: resolve_model(None), "expected a model string", "got None"),
        row("a Model as model string", lambda: resolve_model(MODEL), "expected a model string", "ModelFunction"),
        row("an unknown option", lambda: resolve_model("claude-sonnet-4", key=KEY), "unexpected keyword argument 'key'", error=TypeError),
        row("a model string with spaces", lambda: resolve_model("claude sonnet 4", api_key=KEY), "'claude sonnet 4' holds white space"),
        row("an ftp address", lambda: resolve_model("ftp://host/v1/model", api_key=KEY), "http:// or https://"),
        row("a file address", lambda: resolve_model("file:///models/model.gguf", api_key=KEY), "local/PATH.gguf"),
        row("ollama/ without a name", lambda: resolve_model("ollama/"), "'ollama/' names no model; write ollama/NAME"),
        row("local/ without a name", lambda: resolve_model("local/"), "local/"),
        row("a local model there is not", lambda: resolve_model("local/nothing"), "nothing"),
        row("an address without a model id", lambda: resolve_model("http://host"), "a URL as model ends in the model id: https://host/v1/MODEL"),
        row("an address that ends in a slash", lambda: resolve_model("https://host/v1/"), "a URL as model ends in the model id"),
        row("an address with a query", lambda: resolve_model(f"http://host?key={KEY}"), "it has a query or fragment (not shown here)", "api_key="),
        row("an address without a host", lambda: resolve_model("http:///v1/model"), "it names no host"),
        row("a port that is none", lambda: resolve_model("http://host:port/v1/model"), "its port is no number"),
        row("a base_url without a scheme", lambda: Agent("helper", model="m", base_url="host/v1").run("hi"), "it must begin with http:// or https://", "https://host/v1"),
        row("an empty base_url", lambda: Agent("helper", model="claude-sonnet-4", api_key=KEY, base_url="").run("hi"), "base_url", "leave it out"),
        row("a base_url with spaces", lambda: resolve_model("m", base_url="https://my host/v1"), "it holds white space"),
        row("a base_url for a local model", lambda: resolve_model("local/smollm2", base_url="https://host/v1"), "base_url"),
        row("Ollama at no address", lambda: resolve_model("ollama/llama3"), "OLLAMA_HOST", environment={"OLLAMA_HOST": "host:port"}),
        row("a provider there is not", lambda: Config().api_key(kind="mistral"), "unknown provider kind 'mistral'; known: openrouter"),
        row("a config that is a directory", lambda: Config(Path("directory")).api_key(), "directory/config cannot be read (Is a directory)", "agentroute login"),
        row("ModelCloud by position", lambda: ModelCloud("m", "https://host/v1"), "positional argument", error=TypeError),
        row("ModelCloud without an id", lambda: ModelCloud(model_id="", base_url="https://host/v1"), "model_id is empty"),
        row("ModelCloud with a number as id", lambda: ModelCloud(model_id=5, base_url="https://host/v1"), "model_id must be a text, got int"),
        row("ModelCloud without an address", lambda: ModelCloud(model_id="m", base_url=None), "it must be a str, not NoneType"),
        row("ModelCloud without time", lambda: ModelCloud(model_id="m", base_url="https://host/v1", timeout=0), "timeout must be a positive number of seconds, not 0"),
        row("ModelCloud with True as seconds", lambda: ModelCloud(model_id="m", base_url="https://host/v1", timeout=True), "timeout must be a positive number of seconds, not True"),
        row("ModelCloud with a key of two lines", lambda: ModelCloud(model_id="m", base_url="https://host/v1", api_key=f"{KEY}\n{KEY}"), "api_key holds"),
        row("retries around a model string", lambda: ModelRetry("claude-sonnet-4"), "ModelRetry goes around a Model, such as resolve_model('…') gives; got str"),
        row("retries around the class of a model", lambda: ModelRetry(ModelCloud), "ModelRetry goes around a Model", "got type"),
        row("no attempt at all", lambda: ModelRetry(MODEL, attempts=0), "attempts must be a whole number of at least 1, got 0"),
        row("headers as a list", lambda: Headers([("X-Title", "x")]), "headers must be a dict of str, not list"),
        row("a header of two lines", lambda: Headers({"X-Title": f"a\n{KEY}"}), "header X-Title holds control or non-ASCII characters", "(not shown here)"),
        row("a header that is a number", lambda: Headers({"X-Title": 5}), "header X-Title must be a str, not int"),
        row("a header's name with a colon", lambda: Headers({f"X: {KEY}": "x"}), "expected one such as X-Title"),
        row(
            "complete() is not async", lambda: agent(model=ModelSync(lambda request: "hi")).run("hi"),
            "ModelSync.complete must be async and return an LLMResponse", "it returned str", error=ErrorModelResponse,
        ),
        row(
            "complete() gives a text", lambda: agent(model=ModelWithoutAnswer(lambda request: "hi")).run("hi"),
            "ModelWithoutAnswer.complete must be async and return an LLMResponse", "it returned str", error=ErrorModelResponse,
        ),
        row(
            "complete_stream() gives a list", lambda: list(agent(model=ModelOfChunks(["hi"])).stream("hi")),
            "ModelOfChunks.complete_stream must be an async generator of LLMChunks, got list", error=ErrorModelResponse,
        ),
        row(
            "complete_stream() gives texts", lambda: list(agent(model=ModelOfTexts(lambda request: "hi")).stream("hi")),
            "ModelOfTexts.complete_stream must be an async generator of LLMChunks; one was str", error=ErrorModelResponse,
        ),
    ],
    "Model settings": [
        row("a temperature below zero", lambda: agent(temperature=-0.1), "temperature must be a number of at least 0, or None; got -0.1"),
        row("a temperature as text", lambda: agent(temperature="warm"), "temperature must be a number", "got 'warm'"),
        row("no tokens", lambda: agent(max_tokens=0), "max_tokens must be a whole number of at least 1, got 0"),
        row("tokens as a float", lambda: agent(max_tokens=1e3), "max_tokens must be a whole number", "got 1000.0"),
        row("no time", lambda: agent(timeout=0), "timeout must be a number above 0, or None; got 0"),
        row("endless time", lambda: agent(timeout=INFINITE), "timeout must be a number above 0, or None; got inf"),
        row("seconds as text", lambda: agent(timeout="30"), "timeout must be a number above 0, or None; got '30'"),
        row("extra as text", lambda: agent(extra="seed"), "extra must be a dictionary of request fields, got str"),
        row("extra that JSON does not know", lambda: Agent("helper", model="http://127.0.0.1:9/v1/m", extra={"stop": {"a"}}).run("hi"), "extra", "set"),
    ],
    "Events and streams": [
        row("the result before the end", lambda: agent().stream("hi").result, "the run has not ended yet; iterate the stream to its end", error=RuntimeError),
        row("read twice", lambda: [list(stream) for stream in [agent().stream("hi")] * 2], "a stream is read once", error=RuntimeError, requests=1),
        row("no prompt", lambda: list(agent().stream(None)), "the prompt must be a text", "got None"),
        row("an unknown keyword", lambda: agent().stream("hi", max_turn=1), "unexpected keyword argument 'max_turn'", error=TypeError),
        row("no turn in this run", lambda: list(agent().stream("hi", max_turns=0)), "max_turns must be a whole number of at least 1, got 0"),
        row("a plain for over events()", lambda: list(agent().events("hi")), "object is not iterable", error=TypeError),
        row("a session as number", lambda: list(agent().stream("hi", session_id=5)), "session_id must be a str"),
    ],
    "Testing": [
        row("a text, not a list", lambda: ModelScripted("hello"), "a list of answers", "got str", "ModelScripted(['hello'])"),
        row("one answer, not a list", lambda: ModelScripted(ToolCall("1", "add", {})), "a list of answers", "got ToolCall"),
        row("an answer that is a number", lambda: agent(model=ModelScripted([5])).run("hi"), "a scripted answer is a text, ToolCall", "not 5"),
        row("an answer that is None", lambda: agent(model=ModelFunction(lambda request: None)).run("hi"), "a scripted answer is a text, ToolCall", "not None"),
        row("the class of a typed answer", lambda: agent(model=ModelScripted([Invoice])).run("hi"), "a scripted answer is a text, ToolCall", "not the class Invoice; give an object of it"),
        row("a typed answer that JSON does not know", lambda: agent(model=ModelScripted([{"a": Opaque()}])).run("hi"), "a scripted answer, dict, has no JSON form", "Opaque"),
        row("pieces of no character", lambda: ModelScripted(["hi"], piece=0), "piece must be a whole number of at least 1, got 0"),
        row("pieces of less than no character", lambda: ModelFunction(str, piece=-1), "piece must be a whole number of at least 1, got -1"),
        row("pieces of half characters", lambda: ModelFunction(str, piece=2.5), "piece must be a whole number of at least 1, got 2.5"),
        row("a cost as text", lambda: ModelFunction(str, cost_usd="x"), "cost_usd must be a number of at least 0, or None for an unknown cost; got 'x'"),
        row("a cost below zero", lambda: ModelFunction(str, cost_usd=-1), "cost_usd must be a number of at least 0", "got -1"),
        row("a cost that is no number", lambda: ModelFunction(str, cost_usd=NO_NUMBER), "cost_usd must be a number of at least 0", "got nan"),
        row("a delay as text", lambda: ModelFunction(str, delay_s="x"), "delay_s must be a number of at least 0, got 'x'"),
        row("a delay below zero", lambda: ModelFunction(str, delay_s=-1), "delay_s must be a number of at least 0, got -1"),
        row("an endless delay between pieces", lambda: ModelFunction(str, chunk_s=INFINITE), "chunk_s must be a number of at least 0, got inf"),
        row("a number as the model's id", lambda: ModelFunction(str, model_id=5), "model_id must be a text, got int"),
        row("no function", lambda: ModelFunction("hello"), "a function of the request", "got str"),
        row("more questions than answers", lambda: agent(model=ModelScripted([])).run("hi"), "the script holds 0 answers, and one more was asked for", error=ErrorModelResponse),
        row("an option there is not", lambda: ModelScripted(["hi"], pieces=1), "unexpected keyword argument 'pieces'", error=TypeError),
        row("hosts as a text", lambda: no_requests(allow="127.0.0.1").__enter__(), "allow must be a list of hosts, got str"),
        row(
            "a request where none is allowed",
            lambda: asyncio.run(ModelCloud(model_id="m", base_url="https://host.invalid/v1").complete(LLMRequest("m", [Message("user", "hi")]))),
            "a request to host.invalid:443 was stopped: requests are forbidden here (no_requests)", error=RuntimeError,
        ),
    ],
    "Store and frames": [
        row("the class", lambda: agent(store=RunStore), "store is the class RunStore", "RunStore(…)"),
        row("a file name", lambda: agent(store="runs.db"), "store must have the methods save", "RunStore('runs.db')"),
        row("a number as path", lambda: RunStore(5), "the path of a run history must be a file name, not 5"),
        row("an empty path", lambda: RunStore(""), "the path of a run history must be a file name, not ''"),
        row("a directory", lambda: agentroute.runs("directory"), "directory", "is no regular file", error=ErrorStore),
        row("a text file", lambda: agentroute.turns("long.txt"), "long.txt cannot be read", "no SQLite file", error=ErrorStore),
        row("a memory as run history", lambda: [asyncio.run(MemorySQLite("m.db").remember("k", "v")), agentroute.runs("m.db")], "belongs to another application", error=ErrorStore),
        row("a number as store", lambda: agentroute.runs(5), "the path of a run history must be a file name, not 5"),
        row("a number as run_id", lambda: agentroute.messages("runs.db", run_id=5), "run_id must be a run's id or several of them, got int: 5"),
        row("a run there is not", lambda: RunStore("runs.db").record("01J"), "there is no run '01J'", "agentroute.runs() lists those there are", error=ErrorStore),
        row("rows of no such kind", lambda: list(RunStore("runs.db").select(str)), "RunRecord, TurnRecord, ToolCallRecord, MessageRecord or ScoreRecord", "str"),
        row("rows of an object", lambda: list(RunStore("runs.db").select("runs")), "RunRecord, TurnRecord, ToolCallRecord, MessageRecord or ScoreRecord", "'runs'"),
        row("content kept in a way there is not", lambda: RunStore("runs.db", record_content="none"), "record_content must be 'all' or 'metadata' (figures only), got 'none'"),
        row("redact is no function", lambda: RunStore("runs.db", redact="secret"), "redact must be a function that takes a text and returns what is kept of it, got str"),
        row("a score of a run there is not", lambda: agentroute.score("01J", "helpful", 1, store="runs.db"), "no run '01J'", error=ErrorStore),
    ],
    "Filters": [
        row("since is no time", lambda: agentroute.runs("runs.db", since="last week"), "since must be a time such as '7d'", "'last week'"),
        row("until is a number", lambda: agentroute.turns("runs.db", until=7), "until must be a time such as '7d'", "7"),
        row("limit is a text", lambda: agentroute.runs("runs.db", limit="ten"), "limit must be a number of runs", "'ten'"),
        row("limit is negative", lambda: agentroute.runs("runs.db", limit=-1), "limit must be a number of runs", "-1"),
        row("agent is a number", lambda: agentroute.runs("runs.db", agent=3), "agent must be an agent's name or several of them, got int: 3"),
        row("a tag without a name", lambda: agentroute.runs("runs.db", tag="=a"), "tag must be 'tenant=a'"),
        row("a column there is not", lambda: agentroute.runs("runs.db", columns=["cost_us"]), "cost_us", "cost_usd"),
        row("a zone there is not", lambda: agentroute.runs("runs.db", tz="Europe/Pairs"), "Europe/Pairs"),
        row("a cost by what there is not", lambda: agentroute.cost(by="mode", store="runs.db"), "mode", "model"),
    ],
    "Replay, tags, recording": [
        row("a mode there is not", lambda: agentroute.set_replay("always"), "replay must be one of on, off, only, fresh; got 'always'"),
        row("a mode that is a bool", lambda: agentroute.replay(True).__enter__(), "replay must be one of on, off, only, fresh; got True"),
        row("tags as a text", lambda: agent(tags="tenant=a"), "tags must be a dictionary of texts, such as {'tenant': 'a'}; got str"),
        row("a tag that is a number", lambda: agent().run("hi", tags={"tenant": 3}), "the tag 'tenant' must be a text, got int: 3"),
        row("a tag with a = in its name", lambda: agent(tags={"a=b": "c"}), "the name of a tag must be a text without '='"),
        row("record as a text", lambda: agent(record="no"), "record must be True or False, got 'no'"),
        row("prune without an age", lambda: agentroute.prune("old", store="runs.db"), "old"),
        row("forget nothing", lambda: agentroute.forget(None, store="runs.db"), "NoneType"),
    ],
    "Approval": [
        row("True, not a function", lambda: agent(approve=True), "approve must be a function of (ctx, call), got bool"),
        row("a text, not a function", lambda: agent(approve="yes"), "approve must be a function of (ctx, call), got str"),
        row("a function of one argument", lambda: agent(approve=lambda call: True), "approve must be a function of (ctx, call)"),
        row("True, in this run", lambda: agent().run("hi", approve=True), "approve must be a function of (ctx, call), got bool"),
        row("needs_approval as text", lambda: tool(needs_approval="yes")(add), "tool 'add': needs_approval must be True, False or a function of (ctx, arguments), got str"),
        row("needs_approval is None", lambda: tool(needs_approval=None)(add), "needs_approval must be True, False or a function of (ctx, arguments), got NoneType"),
        row("needs_approval of one argument", lambda: tool(needs_approval=lambda arguments: True)(add), "needs_approval must be True, False or a function of (ctx, arguments)"),
        row("Deny with a reason that is no text", lambda: agentroute.Deny(5), "reason must be a text, got int"),
        row("Deny with an interrupt that is no bool", lambda: agentroute.Deny(interrupt="yes"), "interrupt must be True or False, got 'yes'"),
    ],
}  # fmt: skip

ROWS = [pytest.param(one, id=f"{group}: {one.use}") for group, rows in MANUAL.items() for one in rows]

INTERNALS = re.compile(
    r"<class|<function|<bound|object at 0x|errors\.pydantic\.dev|pydantic_core|pydantic\.|httpx|httpcore|sqlite3\.|Traceback"
    r"|NoneType' object|can't be used in 'await'|has no attribute|\n"
)
"""What belongs to Python or to somebody else's library, and tells a user nothing."""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A directory with some files to be wrong about, and a model that has not been asked."""
    monkeypatch.chdir(tmp_path)
    Path("directory", "config").mkdir(parents=True)
    Path("empty").touch()
    Path("notes.txt").write_text("milk, eggs")
    Path("long.txt").write_text("milk, eggs, " * 100)
    monkeypatch.setattr(MODEL, "requests", [])
    monkeypatch.setattr(MODEL, "function", lambda request: "hello")


@pytest.mark.parametrize("wrong", ROWS)
def test_a_wrong_use_is_told_in_a_sentence_before_any_request(wrong, monkeypatch):
    for name, value in wrong.environment.items():
        monkeypatch.setenv(name, value)
    with no_requests(), pytest.raises(wrong.error) as caught:
        wrong.written()
    said = str(caught.value)
    assert [words for words in wrong.words if words not in said] == [], said
    assert len(said) < 500
    assert not INTERNALS.search(said)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert len(MODEL.requests) == wrong.requests


def test_the_manual_names_each_use_once():
    assert len({param.id for param in ROWS}) == len(ROWS)


def test_a_forgotten_await_runs_nothing_and_python_says_so():
    never = pytest.warns(RuntimeWarning, match=r"coroutine 'Agent\.arun' was never awaited")
    with never, pytest.raises(AttributeError, match="'coroutine' object has no attribute 'output'"):
        _ = agent().arun("hi").output
    assert MODEL.requests == []


@pytest.mark.parametrize("deps", [None, 0, "text", object(), Opaque, [], lambda: 1, Invoice(number="1")])
def test_anything_may_be_deps(deps):
    assert agent().run("hi", deps=deps).output == "hello"


@pytest.mark.parametrize("verdict", [None, 1, agentroute.Deny])
def test_an_approval_that_is_no_answer_is_a_denial_and_warned_of(verdict):
    @tool(needs_approval=True)
    def act() -> str:
        return "done"

    model = ModelScripted([ToolCall("1", "act", {}), "hello"])
    with pytest.warns(RuntimeWarning, match=r"approve must return True, False, a reason \(a text\) or Deny; it returned"):
        Agent("helper", model=model, tools=[act], approve=lambda ctx, call: verdict).run("hi")
    assert model.requests[1].messages[-1].content == "Not run: the user denied it."


# ---- what looks wrong and is allowed -----------------------------------------------------------------------------


def test_the_decorator_may_have_empty_parentheses():
    one = agent()
    one.tool()(add)
    assert list(one.tools_map) == ["add"]


def test_a_history_policy_need_not_be_async():
    class HistoryPlain:
        def compact(self, messages, token_budget=None):
            return messages[-1:]

    assert agent(history=HistoryPlain(), instructions="Be brief.").run("hi").output == "hello"
    assert [message.role for message in MODEL.requests[0].messages] == ["user"]


@pytest.mark.parametrize("memory", [Memory(), MemorySQLite(":memory:")], ids=["ram", "sqlite"])
@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_recalls_nothing(memory, limit):
    async def recalled():
        await memory.remember("colour", "blue")
        return await memory.recall("colour", limit), await memory.recall("", limit), await memory.get_messages(limit)

    assert asyncio.run(recalled()) == ([], [], [])


@pytest.mark.parametrize(("needed", "told"), [(True, "Not run: the user denied it (no)."), (False, "done")])
def test_needs_approval_may_be_async(needed, told):
    async def asks(ctx, arguments):
        return needed

    @tool(needs_approval=asks)
    def act() -> str:
        return "done"

    model = ModelScripted([ToolCall("1", "act", {}), "hello"])
    Agent("helper", model=model, tools=[act], approve=lambda ctx, call: "no").run("hi")
    assert model.requests[1].messages[-1].content == told
