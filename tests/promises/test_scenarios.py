"""The 29 examples a user of the documented library writes, over HTTP: what the user gets, and what was sent.

A test is named after the number of its scenario; the first line of its docstring is `number: what the example does`.
"""

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import httpx
import pytest
from pydantic import BaseModel, Field

from agentroute import (
    Agent,
    Context,
    ErrorAgent,
    ErrorBudget,
    ErrorMaxTurns,
    History,
    HistorySlidingWindow,
    HistorySummarize,
    HistoryTruncate,
    LLMRequest,
    LLMResponse,
    Memory,
    MemoryProto,
    MemorySQLite,
    Message,
    Model,
    Retry,
    ToolCall,
    resolve_model,
    tool,
)
from agentroute.models.cloud import ModelCloud
from agentroute.testing import no_requests
from tests.promises.conftest import KEY, contents, run_script
from tests.server import Raw


class WeatherReport(BaseModel):
    city: str
    temp_c: float


class VendorInvoice(BaseModel):
    vendor: str = Field(description="Company that sent the invoice")
    invoice_number: str = Field(description="Number printed on it")
    total: float = Field(description="Amount due, taxes included")
    currency: str = Field(description="Three letters, ISO 4217")


def final(**values: object) -> ToolCall:
    return ToolCall("f", "final_answer", values)


def parameters(request: dict, name: str) -> dict:
    """The JSON Schema a tool was offered with."""
    return next(one["function"]["parameters"] for one in request["tools"] if one["function"]["name"] == name)


def talked(length: int, memory: MemoryProto) -> MemoryProto:
    """The memory after a conversation u1, a1, u2, a2, …"""
    texts = [Message("user" if i % 2 == 0 else "assistant", f"{'ua'[i % 2]}{i // 2 + 1}") for i in range(length)]
    asyncio.run(memory.add_messages(texts))
    return memory


# ---- readme -------------------------------------------------------------------------------------------------------


def test_01_hello_in_three_lines(openrouter, capsys):
    """1: three lines, the last of them print(result)."""
    server = openrouter("Hello there.")
    agent = Agent("assistant", model="claude-sonnet-4")
    result = agent.run("Hello")
    print(result)
    assert capsys.readouterr().out == "Hello there.\n"
    assert server.requests == [{"model": "anthropic/claude-sonnet-4", "messages": [{"role": "user", "content": "Hello"}]}]


def test_02_a_tool_tells_the_weather(openrouter):
    """2: @agent.tool, weather by city."""
    server = openrouter(ToolCall("1", "weather", {"city": "Oslo"}), "It rains in Oslo.")
    agent = Agent("assistant", model="claude-sonnet-4")

    @agent.tool
    def weather(city: str) -> str:
        """Current weather of a city."""
        return f"rain in {city}"

    assert agent.run("Weather in Oslo?").output == "It rains in Oslo."
    function = server.requests[0]["tools"][0]["function"]
    assert (function["name"], function["description"]) == ("weather", "Current weather of a city.")
    assert function["parameters"]["properties"]["city"]["type"] == "string"
    assert server.requests[1]["messages"][2] == {
        "role": "tool",
        "content": "rain in Oslo",
        "tool_call_id": "1",
        "name": "weather",
    }
    assert weather("Rome") == "rain in Rome"  # still a function


@pytest.mark.parametrize("make", [Memory, lambda: MemorySQLite("agent.db")], ids=["Memory", "MemorySQLite"])
def test_03_a_second_run_knows_the_colour(openrouter, tmp_path, monkeypatch, make):
    """3: Memory(), then MemorySQLite("agent.db"): tell the colour, ask in a second run()."""
    monkeypatch.chdir(tmp_path)
    server = openrouter("Noted.", lambda body: "Blue." if "blue" in str(body["messages"][:-1]) else "I do not know.")
    agent = Agent("assistant", model="claude-sonnet-4", memory=make())
    agent.run("My favourite colour is blue.")
    assert agent.run("What is my favourite colour?").output == "Blue."
    assert contents(server.requests[1]) == ["My favourite colour is blue.", "Noted.", "What is my favourite colour?"]


@pytest.mark.parametrize(
    ("policy", "sent"),
    [
        (lambda: HistorySlidingWindow(20), 19),
        (lambda: HistoryTruncate(max_tokens=100_000), 61),
        (lambda: HistorySummarize(model="gpt-4o"), 11),
    ],
    ids=["window", "truncate", "summarize"],
)
def test_04_sqlite_with_each_policy(openrouter, tmp_path, policy, sent):
    """4: MemorySQLite with HistorySlidingWindow(20), HistoryTruncate(max_tokens=100_000), HistorySummarize(model=…)."""
    server = openrouter("Fine.", repeat=True)
    memory = talked(60, MemorySQLite(tmp_path / "agent.db"))
    assert Agent("assistant", model="claude-sonnet-4", memory=memory, history=policy()).run("u31").output == "Fine."
    assert len(server.requests[-1]["messages"]) == sent
    assert contents(server.requests[-1])[-1] == "u31"
    assert len(asyncio.run(memory.get_messages())) == 62  # what is not sent is still kept


def test_05_a_report_is_checked(openrouter):
    """5: output=WeatherReport with an output_validator that raises Retry above 60 degrees."""
    server = openrouter(final(city="Oslo", temp_c=451), final(city="Oslo", temp_c=4.5))
    agent = Agent("weather", model="claude-sonnet-4", output=WeatherReport)

    @agent.output_validator
    def plausible(ctx: Context, report: WeatherReport) -> WeatherReport:
        if report.temp_c > 60:
            raise Retry("no city is warmer than 60 degrees; is this Fahrenheit?")
        return report

    assert agent.run("Oslo?").output == WeatherReport(city="Oslo", temp_c=4.5)
    assert "is this Fahrenheit?" in contents(server.requests[1])[-1]


def test_06_an_async_main(openrouter):
    """6: async def main with arun."""
    server = openrouter("Hello.")

    async def main() -> str:
        return str(await Agent("assistant", model="claude-sonnet-4").arun("Hi"))

    assert asyncio.run(main()) == "Hello."
    assert contents(server.requests[0]) == ["Hi"]


def test_07_ollama(serve, monkeypatch):
    """7: model="ollama/llama3", without any key."""
    server = serve("Hello.", usage={"prompt_tokens": 10, "completion_tokens": 5})
    monkeypatch.setenv("OLLAMA_HOST", server.base_url.removesuffix("/v1"))
    result = Agent("local", model="ollama/llama3", max_cost=0.5).run("Hi")
    assert (result.output, result.usage.cost_usd) == ("Hello.", 0.0)  # free, which is not unknown
    assert (server.paths, server.requests[0]["model"]) == (["/v1/chat/completions"], "llama3")


# ---- getting started, agents, tools, context ----------------------------------------------------------------------


def test_08_a_trip_planner(openrouter):
    """8: a plain tool and one that reads ctx.deps; output and usage."""
    server = openrouter(
        [ToolCall("1", "distance", {"a": "Oslo", "b": "Rome"}), ToolCall("2", "budget", {})],
        "Take the train.",
        usage={"prompt_tokens": 100, "completion_tokens": 20, "cost": 0.01},
    )

    @dataclass
    class Traveller:
        name: str
        budget_eur: int

    agent = Agent("trip-planner", model="claude-sonnet-4", instructions="Plan trips.")

    @agent.tool
    def distance(a: str, b: str) -> int:
        return 2007

    @agent.tool
    def budget(ctx: Context) -> str:
        return f"{ctx.deps.name} has {ctx.deps.budget_eur} EUR"

    result = agent.run("Oslo to Rome?", deps=Traveller("Ada", 300))
    assert (result.output, result.usage.input_tokens, result.usage.output_tokens) == ("Take the train.", 200, 40)
    assert (result.usage.total_cost_usd, result.usage.model_calls) == (0.02, 2)
    assert contents(server.requests[1])[-2:] == ["2007", "Ada has 300 EUR"]
    assert parameters(server.requests[0], "budget")["properties"] == {}  # the context is not the model's business
    assert "300" not in str(server.requests[0])


def test_09_a_configured_agent(openrouter):
    """9: configure and run: instructions and settings are sent, name and description are not."""
    server = openrouter("Oui.")
    agent = Agent(
        "translator", model="claude-sonnet-4", description="A description.", instructions="Answer in French.",
        temperature=0.2, max_tokens=50, max_turns=3, extra={"seed": 7},
    )  # fmt: skip
    assert agent.run("Yes?").output == "Oui."
    (body,) = server.requests
    assert body["messages"] == [{"role": "system", "content": "Answer in French."}, {"role": "user", "content": "Yes?"}]
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.2, 50, 7)
    assert "translator" not in str(body) and "A description." not in str(body)


def test_10_the_docstring_describes_the_arguments(openrouter):
    """10: @agent.tool get_temperature with an Args section."""
    server = openrouter(ToolCall("1", "get_temperature", {"city": "Oslo", "unit": "K"}), "277 K.")
    agent = Agent("assistant", model="claude-sonnet-4")

    @agent.tool
    def get_temperature(city: str, unit: str = "C") -> str:
        """Temperature of a city now.

        Args:
            city: its English name.
            unit: C, F or K.
        """
        return f"277 {unit}"

    assert agent.run("Oslo in kelvin?").output == "277 K."
    function = server.requests[0]["tools"][0]["function"]
    properties = function["parameters"]["properties"]
    assert function["description"] == "Temperature of a city now."
    assert (properties["city"]["description"], properties["unit"]["description"]) == ("its English name.", "C, F or K.")
    assert (function["parameters"]["required"], properties["unit"]["default"]) == (["city"], "C")
    assert contents(server.requests[1])[-1] == "277 K"


@tool
def convert(amount: float, rate: float) -> float:
    """Converts an amount of money."""
    return amount * rate


def test_11_tools_are_shared_gated_and_timed(openrouter):
    """11: a module-level @tool shared through tools=[…]; approval gates; timeouts."""
    sent, deleted = (
        [
            ToolCall("1", "convert", {"amount": 2, "rate": 5}),
            ToolCall("2", "delete", {"path": "a.txt"}),
            ToolCall("3", "slow", {}),
        ],
        [],
    )
    server = openrouter(sent, "Done.", "Hello.")
    release = threading.Event()

    @tool(needs_approval=lambda ctx, arguments: arguments["path"].endswith(".txt"))
    def delete(path: str) -> str:
        deleted.append(path)
        return "deleted"

    @tool(timeout=0.05)
    def slow() -> str:
        release.wait(100)
        return "late"

    first = Agent(
        "first", model="claude-sonnet-4", tools=[convert, delete, slow], approve=lambda ctx, call: f"not {call.arguments['path']}"
    )
    second = Agent("second", model="claude-sonnet-4", tools=[convert])
    began = time.monotonic()
    assert first.run("Go").output == "Done."
    release.set()
    assert time.monotonic() - began < 50
    second.run("Hi")
    converted, denied, timed_out = contents(server.requests[1])[-3:]
    assert (converted, deleted) == ("10.0", [])
    assert "denied" in denied and "not a.txt" in denied
    assert "slow took longer than 0.05 s" in timed_out
    assert server.requests[2]["tools"] == [server.requests[0]["tools"][0]]


def test_12_typed_deps_with_an_http_client(openrouter, serve):
    """12: deps is a dataclass with an httpx.Client and a key; a plain tool uses it; result.usage is read."""
    weather = serve(Raw(body=[b'{"temp_c": 4.5}']))
    server = openrouter(ToolCall("1", "temperature", {"city": "Oslo"}), "4.5 degrees.")

    @dataclass
    class Deps:
        client: httpx.Client
        api_key: str

    agent = Agent("weather", model="claude-sonnet-4")

    @agent.tool
    def temperature(ctx: Context, city: str) -> float:
        answer = ctx.deps.client.post("/weather", json={"city": city}, headers={"x-api-key": ctx.deps.api_key})
        return answer.json()["temp_c"]

    with httpx.Client(base_url=weather.base_url) as client:
        result = agent.run("Oslo?", deps=Deps(client, "weather-key"))
    assert (result.output, result.usage.model_calls) == ("4.5 degrees.", 2)
    assert (weather.paths, weather.requests, weather.headers[0]["x-api-key"]) == (
        ["/v1/weather"],
        [{"city": "Oslo"}],
        "weather-key",
    )
    assert contents(server.requests[1])[-1] == "4.5"
    assert "weather-key" not in str(server.requests)
    assert KEY not in str(weather.headers)


# ---- memory and history -------------------------------------------------------------------------------------------


def test_13_names_and_facts_are_kept(openrouter):
    """13: a name remembered across runs; tools that write and read facts through ctx.memory."""
    server = openrouter(
        "Hello, Ada.",
        ToolCall("1", "note", {"key": "city", "value": "Ada lives in Oslo"}),
        "Noted.",
        ToolCall("2", "find", {"about": "city"}),
        "Oslo.",
    )
    agent = Agent("assistant", model="claude-sonnet-4", memory=Memory())

    @agent.tool
    def note(ctx: Context, key: str, value: str) -> str:
        ctx.memory.remember(key, value)
        return "kept"

    @agent.tool
    async def find(ctx: Context, about: str) -> list[str]:
        return await ctx.memory.recall(about)

    agent.run("I am Ada.")
    agent.run("I live in Oslo.")
    assert agent.run("Where do I live?").output == "Oslo."
    assert contents(server.requests[1])[:2] == ["I am Ada.", "Hello, Ada."]
    assert contents(server.requests[4])[-1] == '["Ada lives in Oslo"]'


def test_14_two_programs_share_a_memory(openrouter, tmp_path):
    """14: one program remembers, another recalls, on one database file."""
    server = openrouter(
        ToolCall("1", "save", {"fact": "the meeting is on Tuesday"}),
        "Saved.",
        ToolCall("2", "find", {"question": "When is the meeting?"}),
        "On Tuesday.",
    )
    program = """
from agentroute import Agent, Context, MemorySQLite

agent = Agent("assistant", model="claude-sonnet-4", memory=MemorySQLite("notes.db"))

@agent.tool
async def save(ctx: Context, fact: str) -> str:
    await ctx.memory.remember("meeting", fact)
    return "saved"

@agent.tool
async def find(ctx: Context, question: str) -> list[str]:
    return await ctx.memory.recall(question)

print(agent.run({prompt!r}))
"""
    assert run_script(program.replace("{prompt!r}", repr("Remember the meeting.")), tmp_path) == "Saved.\n"
    assert run_script(program.replace("{prompt!r}", repr("When is it?")), tmp_path) == "On Tuesday.\n"
    assert contents(server.requests[2])[0] == "Remember the meeting."
    assert contents(server.requests[3])[-1] == '["the meeting is on Tuesday"]'
    with closing(sqlite3.connect(tmp_path / "notes.db")) as connection:
        assert connection.execute("SELECT count(*) FROM facts").fetchone() == (1,)


@pytest.mark.parametrize(
    ("policy", "sent"),
    [
        (lambda: HistorySlidingWindow(window_size=5), ["u29", "a29", "u30", "a30", "u31"]),
        (lambda: HistoryTruncate(max_tokens=6), ["u29", "a29", "u30", "a30", "u31"]),
        (lambda: HistorySummarize(model=resolve_model("gpt-4o"), keep_recent=2), ["u29", "a29", "u30", "a30", "u31"]),
    ],
    ids=["window", "truncate", "summarize"],
)
def test_15_a_long_conversation_with_each_policy(openrouter, policy, sent):
    """15: each of the three policies; instructions always stay."""
    server = openrouter("Fine.", repeat=True)
    agent = Agent("assistant", model="claude-sonnet-4", instructions="Be.", memory=talked(60, Memory()), history=policy())
    assert agent.run("u31").output == "Fine."
    assert (contents(server.requests[-1])[0], contents(server.requests[-1])[-5:]) == ("Be.", sent)
    assert "u28" not in str(server.requests[-1])


def test_16_a_policy_sends_less_and_the_file_keeps_all(openrouter, tmp_path):
    """16: a policy and MemorySQLite on one agent."""
    looks = [ToolCall(number, "look", {}) for number in "12"]
    server = openrouter(*(f"a{number}" for number in range(1, 6)), *looks, "a6")
    memory = MemorySQLite(tmp_path / "agent.db")
    agent = Agent("assistant", model="claude-sonnet-4", memory=memory, history=HistorySlidingWindow(window_size=3))
    seen = iter(["first", "second"])
    agent.tool(lambda: next(seen), name="look")
    for number in range(1, 7):
        agent.run(f"u{number}")
    before = [["u1"], *[[f"u{n - 1}", f"a{n - 1}", f"u{n}"] for n in range(2, 7)]]
    assert [contents(body) for body in server.requests] == [*before, ["u6", None, "first"], ["u6", None, "second"]]
    kept = [f"{who}{n}" for n in range(1, 6) for who in "ua"] + ["u6", None, "first", None, "second", "a6"]
    assert [message.content for message in asyncio.run(memory.get_messages())] == kept


def test_17_a_history_of_ones_own(openrouter):
    """17: any object with an async compact."""
    server = openrouter("Fine.")

    class OnlyQuestions:
        async def compact(self, messages, token_budget=None):
            return [message for message in messages if message.role == "user"]

    Agent("assistant", model="claude-sonnet-4", memory=talked(4, Memory()), history=OnlyQuestions()).run("u3")
    assert contents(server.requests[0]) == ["u1", "u2", "u3"]


# ---- structured output, results, errors ---------------------------------------------------------------------------


def test_18_tools_come_before_the_typed_answer(openrouter):
    """18: a typed weather report; the model may call tools before its final answer."""
    server = openrouter(ToolCall("1", "thermometer", {"city": "Oslo"}), final(city="Oslo", temp_c=4.5))
    agent = Agent("weather", model="claude-sonnet-4", output=WeatherReport)

    @agent.tool
    def thermometer(city: str) -> float:
        return 4.5

    assert agent.run("Oslo?").output == WeatherReport(city="Oslo", temp_c=4.5)
    assert [one["function"]["name"] for one in server.requests[0]["tools"]] == ["thermometer", "final_answer"]
    assert [body["tool_choice"] for body in server.requests] == ["auto", "auto"]  # never forced while there are other tools
    assert contents(server.requests[1])[-1] == "4.5"


TEXT = "ACME Ltd, invoice 2024-17, 199 euros"
INVOICE = {"vendor": "ACME Ltd", "invoice_number": "2024-17", "total": 199.0, "currency": "EUR"}


def as_text(**values: object) -> str:
    return VendorInvoice(**values).model_dump_json()


@pytest.mark.parametrize(
    ("mode", "answer"), [("auto", final), ("tool", final), ("native", as_text), ("prompted", as_text), ("text", as_text)]
)
def test_19_an_invoice_is_read_and_corrected(openrouter, mode, answer):
    """19: a vendor's invoice from text, through the whole validator loop, in each output_mode."""
    server = openrouter(answer(**{**INVOICE, "total": -199.0}), answer(**{**INVOICE, "currency": "euros"}), answer(**INVOICE))
    agent = Agent("invoices", model="claude-sonnet-4", output=VendorInvoice, output_mode=mode, retries=2)
    seen: list[tuple[float, int]] = []

    @agent.output_validator
    async def positive(ctx: Context, invoice: VendorInvoice) -> None:
        seen.append((invoice.total, ctx.retry))
        if invoice.total <= 0:
            raise Retry("total must be positive")

    @agent.output_validator
    def iso(ctx: Context, invoice: VendorInvoice) -> VendorInvoice:
        if len(invoice.currency) != 3:
            raise Retry("currency must have three letters")
        return invoice.model_copy(update={"vendor": invoice.vendor.upper()})

    result = agent.run(TEXT)
    assert result.output == VendorInvoice(**{**INVOICE, "vendor": "ACME LTD"})
    assert seen == [(-199.0, 0), (199.0, 1), (199.0, 2)]
    assert result.usage.model_calls == len(server.requests) == 3
    assert "total must be positive" in contents(server.requests[1])[-1]
    assert "currency must have three letters" in contents(server.requests[2])[-1]
    told = str(server.requests[0])
    assert [text in told for text in ("Three letters, ISO 4217", "Amount due, taxes included")] == [mode != "text"] * 2


def test_19_retries_end_in_an_error_that_keeps_all(openrouter):
    """19: the same loop when the model never corrects itself: retries=1 makes two attempts."""
    server = openrouter(final(**{**INVOICE, "total": -1.0}), repeat=True)
    agent = Agent("invoices", model="claude-sonnet-4", output=VendorInvoice, retries=1)

    @agent.output_validator
    def positive(ctx: Context, invoice: VendorInvoice) -> None:
        raise Retry("total must be positive")

    with pytest.raises(ErrorAgent, match="total must be positive") as caught:
        agent.run(TEXT)
    assert (caught.value.result.usage.model_calls, len(server.requests)) == (2, 2)


def test_20_a_result_is_walked(openrouter):
    """20: output, usage and messages of a result; a typed one too."""
    server = openrouter(ToolCall("1", "thermometer", {"city": "Oslo"}), "4.5 degrees.", final(city="Oslo", temp_c=4.5))
    agent = Agent("weather", model="claude-sonnet-4", instructions="Be brief.")

    @agent.tool
    def thermometer(city: str) -> float:
        return 4.5

    result = agent.run("Oslo?")
    assert (result.output, str(result), result.interrupted) == ("4.5 degrees.", "4.5 degrees.", False)
    assert [message["role"] for message in result.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert result.messages[2]["tool_calls"][0]["function"]["name"] == "thermometer"
    assert (result.messages[3]["content"], result.messages[3]["tool_call_id"]) == ("4.5", "1")
    assert server.requests[1]["messages"] == [{"content": None, **message} for message in result.messages[:4]]
    typed = agent.replace(output=WeatherReport).run("Oslo?")
    assert (typed.output.city, typed.output.temp_c) == ("Oslo", 4.5)
    assert typed.messages[-1] == {"role": "assistant", "content": '{"city": "Oslo", "temp_c": 4.5}'}


def test_21_each_failure_is_caught_and_told(openrouter):
    """21: except ErrorMaxTurns, ErrorBudget, ErrorAgent with turn, limit, spent; Retry in a tool and in a validator."""
    told: list[str] = []
    agent = Agent("assistant", model="claude-sonnet-4", tools=[convert])

    def attempt(**limits: float) -> None:
        try:
            told.append(agent.run("Go", **limits).output)
        except ErrorMaxTurns as error:
            told.append(f"turn {error.turn} of {error.limit}")
        except ErrorBudget as error:
            told.append(f"${error.spent} of ${error.limit}")
        except ErrorAgent as error:
            told.append(type(error).__name__)

    call = ToolCall("1", "convert", {"amount": 2, "rate": 5})
    openrouter(call, call, call, call, Raw(401), usage={"cost": 0.1})
    attempt(max_turns=2)
    attempt(max_cost=0.15)
    attempt()
    assert told == ["turn 3 of 2", "$0.2 of $0.15", "ErrorModelKey"]


def test_21_retry_in_a_tool_and_in_a_validator(openrouter):
    """21: both kinds of Retry in one run, within retries=2."""
    server = openrouter(
        ToolCall("1", "order", {"number": 1}), ToolCall("2", "order", {"number": 4821}), "It is shipped!", "It is shipped."
    )
    agent = Agent("assistant", model="claude-sonnet-4", retries=2)

    @agent.tool
    def order(number: int) -> str:
        if number < 1000:
            raise Retry("order numbers have four digits")
        return "shipped"

    @agent.output_validator
    def calm(ctx: Context, text: str) -> None:
        if "!" in text:
            raise Retry("no exclamation marks")

    assert agent.run("Where is it?").output == "It is shipped."
    assert [contents(body)[-1] for body in server.requests[1:]] == [
        "order numbers have four digits",
        "shipped",
        "no exclamation marks",
    ]


# ---- models -------------------------------------------------------------------------------------------------------


def test_22_each_kind_of_model_string(openrouter, serve, monkeypatch):
    """22: bare name, slug, ollama/, a URL with api_key, and base_url instead of the default."""
    routed, own = openrouter("Hello.", repeat=True), serve("Hello.", repeat=True)
    monkeypatch.setenv("OLLAMA_HOST", own.base_url.removesuffix("/v1"))
    Agent("a", model="claude-sonnet-4").run("Hi")
    Agent("a", model="anthropic/claude-sonnet-4").run("Hi")
    Agent("a", model="ollama/llama3.2").run("Hi")
    Agent("a", model=f"{own.base_url}/my-model", api_key="sk-mine").run("Hi")
    Agent("a", model="org/my-model", base_url=own.base_url, api_key="sk-mine").run("Hi")
    Agent("a", model="llama3", base_url=own.base_url).run("Hi")
    assert [body["model"] for body in routed.requests] == ["anthropic/claude-sonnet-4"] * 2
    assert [body["model"] for body in own.requests] == [
        "llama3.2",
        "my-model",
        "org/my-model",
        "llama3",
    ]  # an endpoint of one's own has its own names
    assert [headers.get("authorization") for headers in own.headers] == [
        "Bearer ollama",
        "Bearer sk-mine",
        "Bearer sk-mine",
        None,
    ]
    assert set(routed.paths + own.paths) == {"/v1/chat/completions"}
    assert resolve_model("https://host/v1/m", api_key="sk-mine").base_url == "https://host/v1"


def test_22_a_proxy_of_the_environment_is_used(serve, monkeypatch):
    """22: the same through a proxy, for addresses that are not this machine's."""
    proxy = serve("Hello.", repeat=True)
    monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
    monkeypatch.setenv("http_proxy", proxy.base_url.removesuffix("/v1"))
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    model = ModelCloud(model_id="my-model", base_url="http://models.example:8080/v1", api_key="sk-mine")
    with no_requests(allow=["models.example"]):  # which is nowhere; but the proxy's own address is not asked about
        assert Agent("a", model=model).run("Hi").output == "Hello."
    assert proxy.paths == ["http://models.example:8080/v1/chat/completions"]
    assert (proxy.requests[0]["model"], proxy.headers[0]["authorization"]) == ("my-model", "Bearer sk-mine")


# ---- guides -------------------------------------------------------------------------------------------------------


def test_23_a_support_desk(openrouter, serve):
    """23: plain currency conversion, an order's state over async HTTP, an account tier from deps; approval and timeout on the risky ones."""
    orders = serve(Raw(body=[b'{"state": "shipped"}']))
    calls = [
        ToolCall("1", "convert", {"amount": 100, "rate": 0.9}),
        ToolCall("2", "order_status", {"order_id": 4821}),
        ToolCall("3", "tier", {}),
        ToolCall("4", "refund", {"order_id": 4821}),
    ]
    server = openrouter(calls, "Shipped; refunded.")
    asked: list[tuple[str, object]] = []
    agent = Agent(
        "support",
        model="claude-sonnet-4",
        tools=[convert],
        approve=lambda ctx, call: not asked.append((call.name, call.arguments)),
    )

    @agent.tool(timeout=10)
    async def order_status(order_id: int) -> str:
        """State of an order."""
        async with httpx.AsyncClient(base_url=orders.base_url) as client:
            return (await client.post("/orders", json={"id": order_id})).json()["state"]

    @agent.tool
    def tier(ctx: Context) -> str:
        """The customer's tier."""
        return ctx.deps["tier"]

    @agent.tool(needs_approval=True, timeout=10)
    def refund(order_id: int) -> str:
        """Pays an order back."""
        return f"refunded {order_id}"

    assert agent.run("Where is order 4821? Pay it back.", deps={"tier": "gold"}).output == "Shipped; refunded."
    assert contents(server.requests[1])[-4:] == ["90.0", "shipped", "gold", "refunded 4821"]
    assert asked == [("refund", {"order_id": 4821})]
    assert orders.requests == [{"id": 4821}]


def test_24_budgets_of_cost_and_turns(openrouter):
    """24: max_turns=8, max_cost=0.25; both are caught; totals of each user add up usage.total_cost_usd."""
    call = ToolCall("1", "convert", {"amount": 2, "rate": 5})
    agent = Agent("bounded", model="claude-sonnet-4", tools=[convert], max_turns=8, max_cost=0.25)
    totals: dict[str, float] = {}
    ends: list[str] = []

    def ask(user: str) -> None:
        try:
            result = agent.run("Go")
            ends.append(result.output)
        except (ErrorMaxTurns, ErrorBudget) as error:
            result = error.result
            ends.append(type(error).__name__)
        totals[user] = totals.get(user, 0.0) + result.usage.total_cost_usd

    openrouter("Done.", usage={"cost": 0.1})
    ask("ada")
    server = openrouter(call, repeat=True, usage={"cost": 0.1})
    ask("ada")
    assert len(server.requests) == 3
    server = openrouter(call, repeat=True, usage={"cost": 0.03125})
    ask("bob")
    assert len(server.requests) == 8
    assert ends == ["Done.", "ErrorBudget", "ErrorMaxTurns"]
    assert totals == {"ada": 0.4, "bob": 0.25}


def test_25_arun_in_async_code(openrouter):
    """25: arun beside other tasks; the loop goes on while the model thinks."""
    asked, go_on = threading.Event(), threading.Event()

    def answer(body: dict) -> str:
        asked.set()
        assert go_on.wait(60)
        return "Hello."

    server = openrouter(answer)

    async def main() -> tuple[str, bool]:
        running = asyncio.create_task(Agent("assistant", model="claude-sonnet-4").arun("Hi"))
        assert await asyncio.to_thread(asked.wait, 60)
        still_thinking = not running.done()
        go_on.set()
        return (await running).output, still_thinking

    assert asyncio.run(main()) == ("Hello.", True)
    assert contents(server.requests[0]) == ["Hi"]


def test_26_many_prompts_over_one_agent(openrouter):
    """26: asyncio.gather of many prompts over one shared agent; each gets its own answer."""
    together = threading.Barrier(12)

    def answer(body: dict) -> object:
        first = body["messages"][-1]["role"] == "user"
        number = int(contents(body)[0])
        if first:
            together.wait(60)
        return ToolCall(f"c{number}", "convert", {"amount": number, "rate": 10}) if first else contents(body)[-1]

    server = openrouter(answer, repeat=True)
    agent = Agent("shared", model="claude-sonnet-4", tools=[convert])

    async def main() -> list[str]:
        return [result.output for result in await asyncio.gather(*(agent.arun(str(n)) for n in range(12)))]

    assert asyncio.run(main()) == [f"{n * 10}.0" for n in range(12)]
    assert (len(server.requests), server.connections) == (24, 12)


def test_27_run_from_a_script(openrouter, tmp_path):
    """27: run in a program of its own."""
    openrouter("Hello.")
    program = tmp_path / "hello.py"
    program.write_text(
        'from agentroute import Agent\n\nif __name__ == "__main__":\n    print(Agent("a", model="claude-sonnet-4").run("Hi"))\n'
    )
    shown = subprocess.run([sys.executable, "-W", "error", program], capture_output=True, text=True, timeout=100)
    assert (shown.stdout, shown.stderr) == ("Hello.\n", "")


def test_27_run_from_a_repl(openrouter):
    """27: run, line by line, in Python's own prompt."""
    openrouter("Hello.", "Hello again.")
    lines = 'from agentroute import Agent\nagent = Agent("a", model="claude-sonnet-4")\nstr(agent.run("Hi"))\nagent.run("Hi").output\n'
    shown = subprocess.run([sys.executable, "-W", "error", "-i", "-q"], input=lines, capture_output=True, text=True, timeout=100)
    assert shown.stdout == "'Hello.'\n'Hello again.'\n"


def test_27_run_from_threads(openrouter):
    """27: run in several threads at once, over one agent."""
    together = threading.Barrier(4)

    def answer(body: dict) -> str:
        together.wait(60)
        return contents(body)[0].upper()

    openrouter(answer, repeat=True)
    agent = Agent("a", model="claude-sonnet-4")
    outputs: dict[str, str] = {}
    threads = [threading.Thread(target=lambda p=p: outputs.update({p: agent.run(p).output})) for p in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {"a": "A", "b": "B", "c": "C", "d": "D"}


def test_27_run_inside_a_loop_points_to_arun(openrouter):
    """27: inside a running loop, run refuses and names arun (a notebook cell may use both: tests/ipython)."""
    server = openrouter("Hello.")
    agent = Agent("a", model="claude-sonnet-4")

    async def main() -> str:
        with pytest.raises(RuntimeError, match=r"use `await agent\.arun"):
            agent.run("Hi")
        return (await agent.arun("Hi")).output

    assert asyncio.run(main()) == "Hello."
    assert len(server.requests) == 1


def test_27_a_tool_runs_another_agent(openrouter):
    """27: run inside a plain tool, arun inside an async one; what they cost counts."""
    server = openrouter(
        [ToolCall("1", "plain", {}), ToolCall("2", "awaited", {})],
        lambda body: f"inner {contents(body)[0]}",
        lambda body: f"inner {contents(body)[0]}",
        "Done.",
    )
    inner = Agent("inner", model="gpt-4o")
    outer = Agent("outer", model="claude-sonnet-4")

    @outer.tool
    def plain() -> str:
        return str(inner.run("one"))

    @outer.tool
    async def awaited() -> str:
        return str(await inner.arun("two"))

    result = outer.run("Go")
    assert contents(server.requests[3])[-2:] == ["inner one", "inner two"]
    assert (result.output, result.usage.model_calls, result.usage.total_cost_usd) == ("Done.", 4, 0.004)


def test_28_the_production_checklist_in_one_agent(point_at, tmp_path):
    """28: key from `agentroute login`; cost, turns, retries; persistence; history; error handling; cost logging."""
    server = point_at(
        ToolCall("1", "picky", {"number": 1}), "Fixed.", usage={"prompt_tokens": 100, "completion_tokens": 20, "cost": 0.3}
    )
    login = subprocess.run(
        [sys.executable, "-m", "agentroute", "login", "--api-key", "sk-kept"], capture_output=True, text=True, timeout=100
    )
    assert login.returncode == 0, login.stderr
    memory = MemorySQLite(tmp_path / "memory.db")
    agent = Agent(
        "support", model="anthropic/claude-sonnet-4", max_cost=0.50, max_turns=20, retries=2, memory=memory,
        history=HistorySlidingWindow(window_size=30),
    )  # fmt: skip

    @agent.tool
    def picky(number: int) -> str:
        raise Retry("order numbers have four digits")

    log: list[dict] = []
    try:
        agent.run("Fix order 1.")
    except ErrorBudget as error:
        usage = error.result.usage
        log.append(
            {"spent": error.spent, "limit": error.limit, "input_tokens": usage.input_tokens, "model_calls": usage.model_calls}
        )
    assert log == [{"spent": 0.6, "limit": 0.5, "input_tokens": 200, "model_calls": 2}]
    posts = [headers for path, headers in zip(server.paths, server.headers, strict=True) if path.endswith("/chat/completions")]
    assert {headers["authorization"] for headers in posts} == {"Bearer sk-kept"}
    assert "order numbers have four digits" in contents(server.requests[-1])
    kept = asyncio.run(memory.get_messages())
    assert (kept[0].content, kept[-1].content) == ("Fix order 1.", "Fixed.")  # paid for, so kept


# ---- the protocols ------------------------------------------------------------------------------------------------


class MyMemory:
    """A memory of one's own: lists."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.facts: dict[str, str] = {}

    async def get_messages(self, limit: int | None = None) -> list[Message]:
        return self.messages[-limit:] if limit else list(self.messages)

    async def add_messages(self, messages: list[Message]) -> None:
        self.messages += messages

    async def clear_messages(self) -> None:
        self.messages.clear()

    async def remember(self, key: str, value: str) -> None:
        self.facts[key] = value

    async def recall(self, query: str, limit: int = 10) -> list[str]:
        return [value for key, value in self.facts.items() if query in key][:limit]

    async def forget(self, key: str) -> None:
        self.facts.pop(key, None)


class MyHistory:
    async def compact(self, messages: list[Message], token_budget: int | None = None) -> list[Message]:
        return messages[-1:]


class MyModel:
    """A model of one's own, around an endpoint: the answer in capitals."""

    def __init__(self, inner: Model) -> None:
        self.inner = inner
        self.closed = 0

    async def complete(self, request: LLMRequest) -> LLMResponse:
        response = await self.inner.complete(request)
        return LLMResponse(response.content.upper(), usage=response.usage)

    def complete_stream(self, request: LLMRequest):
        raise NotImplementedError

    async def close(self) -> None:
        self.closed += 1


def test_29_memory_history_and_model_of_ones_own(openrouter):
    """29: one's own MemoryProto, History and Model, which isinstance knows by their shape."""
    server = openrouter("hello.", repeat=True)
    memory, history, model = MyMemory(), MyHistory(), MyModel(resolve_model("claude-sonnet-4"))
    assert isinstance(memory, MemoryProto) and isinstance(history, History) and isinstance(model, Model)
    assert not isinstance(history, MemoryProto | Model) and not isinstance(memory, History | Model)
    assert (
        isinstance(Memory(), MemoryProto)
        and isinstance(HistorySlidingWindow(), History)
        and isinstance(resolve_model("gpt-4o"), Model)
    )

    agent = Agent("mine", model=model, memory=memory, history=history)
    assert agent.run("Hi").output == "HELLO."
    with agent.stream("Again") as stream:
        assert [
            event.data["delta"] for event in stream if event.kind == "text_delta"
        ] == []  # it cannot stream; it answers all the same
    assert stream.result.output == "HELLO."
    assert [contents(body) for body in server.requests] == [["Hi"], ["Again"]]
    assert [message.content for message in memory.messages] == ["Hi", "HELLO.", "Again", "HELLO."]
    assert model.closed == 0  # it is the caller's


def test_29_a_tool_uses_a_memory_of_ones_own(openrouter):
    """29: ctx.memory is the object given."""
    server = openrouter(ToolCall("1", "keep", {"key": "colour", "value": "blue"}), "Kept.")
    memory = MyMemory()
    agent = Agent("mine", model="claude-sonnet-4", memory=memory)

    @agent.tool
    def keep(ctx: Context, key: Annotated[str, Field(description="a short name")], value: str) -> list[str]:
        ctx.memory.remember(key, value)
        return ctx.memory.recall(key)

    agent.run("My colour is blue.")
    assert memory.facts == {"colour": "blue"}
    assert contents(server.requests[1])[-1] == '["blue"]'
    assert parameters(server.requests[0], "keep")["properties"]["key"]["description"] == "a short name"
