"""Runs with a hostile text in every field, for cells of a notebook: what they show is looked at by tests/browser/test_hostile.py.

    from tests.hostile_runs import *
    show_cards("http://127.0.0.1:9")
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FunctionType
from typing import Any

from agentroute import Agent, LLMRequest, LLMResponse, RunStore, ToolCall, tool
from agentroute.errors import ErrorModelResponse
from agentroute.events import TextDelta
from agentroute.message import LLMChunk
from agentroute.models.base import fold
from agentroute.records import RunRecord
from agentroute.store import default_store
from agentroute.testing import ModelScripted
from tests.hostile import hostile_texts

__all__ = [
    "ModelHostile", "agents", "draw", "enter_project", "joined", "model_names", "needs_approval", "record_runs", "run_groups", "save_runs",
    "show_agents", "show_cards", "show_comparisons", "show_ends", "show_questions", "tools_of_texts", "unguarded",
]  # fmt: skip

PIECES = 3
"""Pieces in which a text is streamed."""
LONG = 2_000
"""Characters of a text that is not drawn half."""
CARDS = 60
"""Cards in one output."""


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


def risky(text: str, more: list[dict[str, str]]) -> str:
    return text


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


async def show_cards(canary: str) -> int:
    """A card of each text, with half of it and at its end; many in one output, as a page is slow to take up many outputs. Their number."""
    from IPython import get_ipython

    from agentroute_ipython.card import Card
    from agentroute_ipython.display import to_html
    from agentroute_ipython.style import STYLE

    texts = hostile_texts(canary)
    drawn: list[str] = []
    for agent, text in zip(agents(texts), texts.values(), strict=True):
        card = Card()
        async with aclosing(agent.events(text[:100_000].strip() or "nothing", record=False)) as events:
            async for event in events:
                card.apply(event)
                if isinstance(event, TextDelta) and event.turn == 2 and event.delta == text[: len(event.delta)] and len(text) < LONG:
                    drawn.append(unstyled(to_html(card)))
        drawn.append(unstyled(to_html(card)))
    for start in range(0, len(drawn), CARDS):
        get_ipython().display_pub.publish({"text/html": f"<style>{STYLE}</style>" + "".join(drawn[start : start + CARDS]), "text/plain": "cards"})
    return len(drawn)


def unstyled(html: str) -> str:
    """A card without its style sheet, which comes first in it."""
    return html.partition("<style>")[0] + html.partition("</style>")[2]


def groups(canary: str, size: int = 20) -> list[str]:
    """The short texts, several in one."""
    texts = list(short_texts(canary).values())
    return ["\n".join(texts[start : start + size]) for start in range(0, len(texts), size)]


async def show_ends(canary: str) -> None:
    """Cards of structured answers, and of runs that failed, with several texts in each."""
    for ends in ("structured", "error"):
        for agent in agents({group: group for group in groups(canary)}, ends):
            await draw(agent, "Go.")
    values = {f"{n} {text}": text for n, text in enumerate(short_texts(canary).values())}
    await draw(Agent("values", model=ModelHostile("v", "structured", values), tools=[echo], output=dict, output_mode="tool"), "Go.")


async def show_comparisons(canary: str) -> None:
    """Runs side by side that answer with words, with values, or fail; labels, answers and what differs have several texts in each."""
    for ends in ("answer", "structured", "error"):
        made = list(agents({group: group for group in groups(canary)}, ends))
        for start in range(0, len(made), 4):
            await compare(made[start : start + 4])
    one = list(short_texts(canary).items())
    texts = {f"{n}": {name: text, f"{text} {n}": n} for n, (name, text) in enumerate(one[:3])}
    await compare([Agent("values", model=ModelHostile(n, "structured", value), tools=[echo], output=dict, output_mode="tool") for n, value in texts.items()])


async def compare(made: list[Agent[Any]]) -> None:
    from IPython import get_ipython

    from agentroute_ipython.comparison_display import ComparisonView

    now = 0.0
    labels = [f"{n} {agent.name}" for n, agent in enumerate(made)]
    view: Any = ComparisonView(shell=get_ipython(), labels=labels, clock=lambda: now)
    view.show()
    for index, agent in enumerate(made):
        async with aclosing(agent.events("Go.", record=False)) as events:
            async for event in events:
                view.update((index, event))
        now += 60.0
    view.close()


def show_questions(canary: str) -> None:
    """What is asked before a call, and what stays of it, where names, arguments and reasons have several texts in each."""
    from IPython import get_ipython

    from agentroute_ipython.panels import Spot
    from agentroute_ipython.questions import line_bundle, question_bundle, verdict_line

    for text in groups(canary):
        arguments = {text: text, "list": [text, {"deep": text}]}
        for bundle in (question_bundle(text, arguments), line_bundle(verdict_line("denied", text, arguments, text))):
            Spot(get_ipython()).put(bundle)
    for text in short_texts(canary).values():
        Spot(get_ipython()).put(line_bundle(verdict_line("denied", "t", {}, text)))


def needs_approval(canary: str) -> Agent[Any]:
    """An agent whose calls wait for somebody, with several texts in the arguments of each."""
    calls = [ToolCall(str(n), "risky", {"text": text, "more": [{text: text}]}) for n, text in enumerate(groups(canary, 60))]
    return Agent("risky_one", model=ModelScripted([calls, "Done."]), tools=[tool(needs_approval=True)(risky)])


def save_runs(canary: str) -> None:
    """A run of each text in the history, with it in every column."""
    store = default_store()
    assert isinstance(store, RunStore)
    for n, text in enumerate(short_texts(canary).values()):
        started = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=n)
        words: Any = dict.fromkeys(("agent_name", "request_model", "error_type", "error_text", "prompt_text", "output_text", "session_id"), text)
        store.save(RunRecord(run_id=f"h{n:04}", started_at=started, status="error", tags=json.dumps({text: text}), n_turns=1, **words))


async def run_groups(canary: str) -> int:
    """Recorded runs with several texts in each; their number."""
    made = list(agents({group: group for group in groups(canary)}))
    for agent in made:
        await agent.arun("Go.")
    return len(made)


def joined(canary: str) -> Agent[Any]:
    """An agent with many texts in each of its fields."""
    return next(agents({"": "\n".join(groups(canary))}))


def tools_of_texts(canary: str) -> dict[str, Any]:
    """Functions that say the texts of themselves."""
    made = {}
    for n, text in enumerate(short_texts(canary).values()):
        made[f"tool_{n}"] = FunctionType(fail.__code__, {"__name__": "__main__"}, f"tool_{n}")
        made[f"tool_{n}"].__doc__ = text
    return made


def model_names(canary: str) -> dict[str, str]:
    """Variables that name models."""
    return {f"model_{n}": f"local/{text}" for n, text in enumerate(short_texts(canary).values())}


def enter_project(canary: str) -> str:
    """Goes into a folder of a hostile name with a hostile project in it; the path of a notebook there."""
    texts = hostile_texts(canary)
    folder = Path(texts["img onerror"])
    folder.mkdir()
    os.chdir(folder)
    Path("pyproject.toml").write_text(f"[tool.agentroute]\nmodel = {json.dumps(texts['svg onload'] + chr(0x202E))}\n")
    return f"{Path.cwd()}/{texts['svg onload'].replace('/', '')}.ipynb"


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
