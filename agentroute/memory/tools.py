"""Tools through which a model keeps and finds facts in the agent's memory (`Agent(memory_tools=True)`)."""

from __future__ import annotations

from ..context import Context
from ..tools import Tool

__all__ = ["MEMORY_TOOLS"]


async def _remember(ctx: Context, key: str, value: str) -> str:
    await ctx.memory.remember(key, value)
    return "Kept."


async def _recall(ctx: Context, query: str) -> list[str]:
    facts: list[str] = await ctx.memory.recall(query)
    return facts


async def _forget(ctx: Context, key: str) -> str:
    await ctx.memory.forget(key)
    return "Forgotten."


MEMORY_TOOLS = (
    Tool(
        "remember",
        "Keep a fact for later conversations. `key` is a short name for it, such as favourite_colour; an earlier fact of "
        "the same key is replaced. `value` is a whole sentence.",
        None,
        _remember,
    ),
    Tool("recall", "Find facts kept earlier. `query` is a question or some words; an empty one gives all facts.", None, _recall),
    Tool("forget", "Drop the fact kept under `key`.", None, _forget),
)
