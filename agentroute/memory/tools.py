"""Tools through which a model keeps and finds facts in the agent's memory (`Agent(memory_tools=True)`)."""

from __future__ import annotations

from typing import Any

from ..context import Context
from ..errors import ErrorConfig
from ..tools import Tool

__all__ = ["MEMORY_TOOLS", "check_keeps_facts"]

MORE = "(only the first {}; there are more: ask with other words, or with a larger limit)"


async def _remember(ctx: Context, key: str, value: str) -> str:
    await ctx.memory.remember(key, value)
    return "Kept."


async def _recall(ctx: Context, query: str, limit: int = 10) -> list[str]:
    limit = max(1, limit)
    facts: list[str] = await ctx.memory.recall(query, limit + 1)
    return facts if len(facts) <= limit else [*facts[:limit], MORE.format(limit)]


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
    Tool(
        "recall",
        "Find facts kept earlier. `query` is a question or some words; an empty one gives the facts in the order they were "
        "first kept. At most `limit` are given.",
        None,
        _recall,
    ),
    Tool("forget", "Drop the fact kept under `key`.", None, _forget),
)


def check_keeps_facts(memory: Any) -> None:
    """Raises ErrorConfig for a memory of messages only: the tools would fail one by one, in the middle of a run."""
    lacking = [tool.name for tool in MEMORY_TOOLS if not callable(getattr(memory, tool.name, None))]
    if lacking:
        problem = f"{type(memory).__name__} lacks {', '.join(lacking)}"
        raise ErrorConfig(f"memory_tools=True needs a memory with the methods remember, recall, forget; {problem}")
