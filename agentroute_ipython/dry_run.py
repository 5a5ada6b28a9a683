"""`--dry-run`: the first request that a run would send, and about what it would cost. Nothing is sent, and nothing is kept."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from agentroute.errors import ErrorAgent, ErrorConfig
from agentroute.figures import cost_text, count_text, plural

from .formats import one_line
from .tables import Table, model_text

if TYPE_CHECKING:
    from agentroute import Agent, LLMChunk, LLMRequest, LLMResponse

__all__ = ["Planned", "dry_run_table"]

CHARACTERS_A_TOKEN = 4
ANSWER = 1_000
"""Tokens of answer that a price is told for, where no limit says how long it may be."""
SHOWN = 300
"""Characters of each message that are shown."""


@dataclass(frozen=True)
class Planned:
    """A run that would be made: of which agent, how often, and how it is told apart."""

    agent: Agent[Any]
    n_runs: int = 1


def dry_run_table(planned: Sequence[Planned], prompt: str) -> Table:
    """One row a subject, agent after agent.

    Raises:
        ErrorAgent: the run would have failed before its first request; the message says why.
    """
    from agentroute._portal import run_blocking

    rows: list[tuple[str, str]] = []
    for plan in planned:
        asked = run_blocking(partial(_asked, plan.agent, prompt))
        rows += [("", "")] * bool(rows) + _rows(plan, asked)
    return Table([*rows, ("", "nothing was sent")])


def _rows(plan: Planned, asked: LLMRequest) -> list[tuple[str, str]]:
    agent = plan.agent
    sent = [*(message.text for message in asked.messages), *(json.dumps(tool, ensure_ascii=False) for tool in asked.tools or ())]
    tokens = sum(len(text) for text in sent) // CHARACTERS_A_TOKEN + 1
    rows = [("agent", agent.name), ("model", model_text(agent))]
    if plan.n_runs > 1:
        rows.append(("runs", f"{plan.n_runs}, each as follows"))
    rows += [(message.role, one_line(message.text, SHOWN)) for message in asked.messages]
    if agent.tools_map:
        rows.append(("tools", one_line(", ".join(agent.tools_map), SHOWN)))
    limits = [f"{name} {value:g}" for name in ("max_cost", "max_turns", "max_tokens") if (value := getattr(agent, name)) is not None]
    rows += [("limits", ", ".join(limits)), ("tokens in", f"about {count_text(tokens)} in the first request")]
    return [*rows, ("cost", _cost(agent, tokens, plan.n_runs))]


def _cost(agent: Agent[Any], tokens: int, n_runs: int) -> str:
    """About what the first request costs, at the price that is known here."""
    per_million = _prices(agent)
    if per_million is None:
        return "unknown: no price of this model is known here"
    reading, writing = per_million
    if not reading and not writing:
        return "free"
    wanted = agent.max_tokens or ANSWER
    answer = f"{cost_text(wanted * writing / 1e6)} for {'up to ' if agent.max_tokens else ''}{plural(wanted, 'token')} of answer"
    each = f", {n_runs} times" if n_runs > 1 else ""
    return f"about {cost_text(tokens * reading / 1e6)} for the prompt and {answer}{each}; each further turn sends all again"


def _prices(agent: Agent[Any]) -> tuple[float, float] | None:
    """USD per million tokens in and out: what the agent or its Model says, else what is known of a model of this id."""
    given = agent.price or getattr(agent.model, "price", None)
    if given is not None:
        return float(given.input_usd_per_mtok), float(given.output_usd_per_mtok)
    name = model_text(agent) if isinstance(agent.model, str) else getattr(agent.model, "model_id", "")
    if name.startswith(("local/", "ollama/")):
        return 0.0, 0.0
    from agentroute.models.catalogue import find

    entry = find(name)
    if entry is None or entry.input_usd_per_mtok is None or entry.output_usd_per_mtok is None:
        return None
    return entry.input_usd_per_mtok, entry.output_usd_per_mtok


async def _asked(agent: Agent[Any], prompt: str) -> LLMRequest:
    """What the loop would send first: the agent is run with a model that takes the request and answers nothing."""
    model = _Taking(getattr(agent.model, "model_id", "") or "dry-run")
    changes: dict[str, Any] = {"model": model, "price": None, "max_cost": None}
    if agent.memory is not None:
        changes["memory"] = _ReadOnly(agent.memory)
    if agent.history is not None and hasattr(agent.history, "model"):  # it would ask a model of its own
        changes["history"] = None
    error: ErrorAgent | None = None
    async with aclosing(agent.replace(**changes).events(prompt, record=False)) as events:
        async for event in events:
            error = getattr(event, "error", None) or error
    if model.request is None:
        raise error or ErrorConfig("the run would end before it asks its model")
    return model.request


class _Taking:
    """A model that takes one request and sends nothing."""

    def __init__(self, model_id: str) -> None:
        from agentroute import Price

        self.model_id = model_id
        self.price = Price(0, 0)  # so that no budget is asked
        self.request: LLMRequest | None = None

    async def complete(self, request: LLMRequest) -> LLMResponse:
        self._take(request)

    async def complete_stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        self._take(request)
        yield  # makes it a generator

    def _take(self, request: LLMRequest) -> NoReturn:
        self.request = request
        raise ErrorConfig("nothing is sent in a dry run")

    async def close(self) -> None:
        """Nothing to close."""


class _ReadOnly:
    """A memory that is read and not written."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    async def get_messages(self, *given: Any, **options: Any) -> Any:
        return await self._memory.get_messages(*given, **options)

    async def add_messages(self, *given: Any, **options: Any) -> None:
        """Forgets them."""

    def session(self, session_id: str) -> _ReadOnly:
        return _ReadOnly(self._memory.session(session_id))
