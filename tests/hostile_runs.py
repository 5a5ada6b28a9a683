"""Runs with a hostile text in every field, for cells of a notebook: what they show is looked at by tests/browser/test_hostile.py.

    from tests.hostile_runs import *
    show_cards("http://127.0.0.1:9")
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from agentroute import Agent, LLMRequest, LLMResponse, ToolCall
from agentroute.errors import ErrorModelResponse
from agentroute.events import TextDelta
from agentroute.message import LLMChunk
from agentroute.models.base import fold
from tests.hostile import hostile_texts

__all__ = ["ModelHostile", "agents", "draw", "record_runs", "show_agents", "show_cards", "show_ends", "unguarded"]

PIECES = 3
"""Pieces in which a text is streamed."""


class ModelHostile:
    """Says `text` in all ways there are: reasoning, an answer, calls of a tool of that name and with such arguments, then as
    `ends` says: `answer`, `structured` or `error`."""

    def __init__(self, text: str, ends: str = "answer", value: Any = None) -> None:
        self.text, self.ends, self.model_id = text, ends, text[:2_000] or "nothing"
        nested = {text: text, "list": [text, {text: [text]}], "rows": [{text: text, "n": 1}] * 2}
        self.value = nested if value is None else value

    async def complete(self, request: LLMRequest) -> LLMResponse:
        return await fold(self, request)

    async def complete_stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        size = max(1, len(self.text) // PIECES)
        pieces = [self.text[start : start + size] for start in range(0, len(self.text), size)]
        for piece in pieces:
            yield LLMChunk(reasoning_delta=piece)
        for piece in pieces:
            yield LLMChunk(delta=piece)
        asked = request.messages[-1].role != "tool"
        if not asked and self.ends == "error":
            raise ErrorModelResponse(self.text)
        calls = self._calls() if asked else []
        if not asked and self.ends == "structured":
            calls = [ToolCall("9", "final_answer", self.value).to_wire()]
        yield LLMChunk(done=True, response=self._response(calls))

    async def close(self) -> None:
        """Nothing to close."""

    def _calls(self) -> list[dict[str, Any]]:
        named = ToolCall("1", "echo", {}).to_wire()
        named["function"] = {"name": self.text[:2_000], "arguments": self.text}
        echo, fail = ToolCall("2", "echo", {"text": self.text}), ToolCall("3", "fail", {"text": self.text, self.text: self.text})
        return [named, echo.to_wire(), fail.to_wire()]

    def _response(self, calls: list[dict[str, Any]]) -> LLMResponse:
        finish = "tool_calls" if calls else self.text[:2_000] or "stop"
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.001}
        return LLMResponse(self.text, calls, usage, self.text[:2_000], finish, reasoning=self.text)


def echo(text: str) -> str:
    return text


def fail(text: str, **more: str) -> str:
    raise RuntimeError(text)


def agents(texts: dict[str, str], ends: str = "answer") -> Iterator[Agent[Any]]:
    """An agent of each text, with it in its own fields, too."""
    for text in texts.values():
        yield Agent(
            text[:2_000].strip() or "nothing",
            model=ModelHostile(text, ends),
            tools=[echo, fail],
            instructions=text,
            description=text,
            tags={f"t {text[:200]}".replace("=", ":"): text},
            output=dict if ends == "structured" else None,
            output_mode="tool" if ends == "structured" else "auto",
        )


async def draw(agent: Agent[Any], prompt: str) -> None:
    """Runs the agent and shows it as a cell does: empty, with half a text, and at its end."""
    from IPython import get_ipython

    from agentroute_ipython.live import LiveView

    now = 0.0
    view = LiveView(shell=get_ipython(), clock=lambda: now)  # type: ignore[no-untyped-call]
    view.show()
    async with aclosing(agent.events(prompt)) as events:
        async for event in events:
            now += 60.0 if isinstance(event, TextDelta) and event.turn == 2 else 0.0
            view.update(event)
    view.close()


async def show_cards(canary: str, first: int, last: int) -> None:
    """A card of each of these texts, numbered from 0."""
    texts = dict(list(hostile_texts(canary).items())[first:last])
    for agent, text in zip(agents(texts), texts.values(), strict=True):
        await draw(agent, text[:100_000].strip() or "nothing")


async def show_ends(canary: str) -> None:
    """Cards of structured answers, and of runs that failed, with several texts in each."""
    texts = list(short_texts(canary).values())
    groups = ["\n".join(texts[start : start + 20]) for start in range(0, len(texts), 20)]
    for ends in ("structured", "error"):
        for agent in agents({group: group for group in groups}, ends):
            await draw(agent, "Go.")
    values = {f"{n} {text}": text for n, text in enumerate(texts)}
    await draw(Agent("values", model=ModelHostile("v", "structured", values), tools=[echo], output=dict, output_mode="tool"), "Go.")


def short_texts(canary: str) -> dict[str, str]:
    return {name: text for name, text in hostile_texts(canary).items() if len(text) <= 400}


async def record_runs(canary: str) -> None:
    """A run of each text, for what shows the run history."""
    texts = short_texts(canary)
    for agent, text in zip(agents(texts), texts.values(), strict=True):
        await agent.arun(text.strip() or "nothing")


def show_agents(canary: str) -> None:
    """What shows agents and their settings."""
    from IPython.display import display

    from agentroute_ipython.tables import agents_table

    made = list(agents(short_texts(canary)))
    display(agents_table({f"agent_{n}": (agent, "a cell") for n, agent in enumerate(made)}))  # type: ignore[no-untyped-call]
    display(*made)  # type: ignore[no-untyped-call]


def unguarded(canary: str, names: set[str]) -> None:
    """The texts as HTML and as Markdown, where nothing guards: what a test has to notice."""
    from IPython.display import HTML, Markdown, display

    for name, text in hostile_texts(canary).items():
        if name in names:
            display(HTML(text), Markdown(text))  # type: ignore[no-untyped-call]
