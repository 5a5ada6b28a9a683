"""What a type checker knows of the public API; `mypy --strict` checks this file in the lint step."""

from typing import assert_type

from pydantic import BaseModel

from agentroute import Agent, Context, Deny, HistorySummarize, MemorySQLite, Result, Tool, ToolCall, image, resolve_model, tool


class Invoice(BaseModel):
    number: str


@tool
def look(order_id: int) -> str:
    """Looks."""
    return str(order_id)


@tool(timeout=5)
def slow(ctx: Context, x: int) -> int:
    """Slow."""
    return x


def typed() -> None:
    assert_type(look, Tool)
    assert_type(slow, Tool)
    plain = Agent("a", model="local/smollm2", tools=[look, slow])
    assert_type(plain.run("hi").output, str)
    reader = Agent("b", model="local/smollm2", output=Invoice)
    assert_type(reader.run("hi"), Result[Invoice])
    assert_type(reader.run("hi").output, Invoice)
    assert_type(reader.run("hi").usage.total_cost_usd, float)
    for event in reader.stream("hi"):
        assert_type(event.kind, str)


def allow(ctx: Context, call: ToolCall) -> bool | Deny:
    return True if call.name == "look" else Deny("not here", interrupt=True)


def taken() -> None:
    summary = HistorySummarize(resolve_model("local/smollm2"), keep_recent=2)
    agent = Agent("d", model="local/smollm2", memory=MemorySQLite("a.db"), history=summary, memory_tools=True, approve=allow)
    assert_type(agent.run(["What is this?", image("cat.png")], session_id="a", approve=allow), Result[str])


async def typed_async() -> None:
    assert_type((await Agent("c", output=list[int]).arun("hi")).output, list[int])
