"""What a type checker knows of the public API; `mypy --strict` checks this file in the lint step."""

from typing import assert_type

from pydantic import BaseModel

from agentroute import Agent, Context, Result, Tool, tool


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


async def typed_async() -> None:
    assert_type((await Agent("c", output=list[int]).arun("hi")).output, list[int])
