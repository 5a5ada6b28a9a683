"""RunSpec: what one run is made of."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .budgets import Budget
from .context import Context
from .models.base import Model
from .output import OutputSpec
from .prices import Price
from .replays import Place, Replay
from .tools import Approve, Tool

__all__ = ["RunSpec", "new_run_id"]


_latest = 0  # the number behind the latest id


def new_run_id() -> str:
    """26 characters; the first ten are the time in milliseconds, so ids sort by time (ULID). Those that one thread makes in the
    same millisecond sort by the order in which they were made.
    """
    global _latest
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10))
    if 0 <= (_latest >> 80) - (number >> 80) <= 1:  # the step is by chance, as a forked process has the same latest
        number = _latest + 1 + int.from_bytes(os.urandom(8))
    _latest = number
    return "".join(["0123456789ABCDEFGHJKMNPQRSTVWXYZ"[number >> shift & 31] for shift in range(125, -1, -5)])


@dataclass(kw_only=True)
class RunSpec:
    """What one run is made of. Built by the Agent; nothing in it changes while the run goes on."""

    agent_name: str
    request_model: str
    resolve: Callable[[], Model]
    stand_in: Callable[[], Model] | None = None
    """The same without a key, for what can be served without asking; None where there is no such thing."""
    instructions: str | None = None
    tools: Mapping[str, Tool] = field(default_factory=dict)
    output: Callable[[], OutputSpec | None] = lambda: None
    validators: Sequence[Callable[[Context, Any], Any]] = ()
    retries: int = 1
    max_turns: int = 10
    max_cost: float | None = None
    memory: Any = None
    history: Any = None
    deps: Any = None
    session_id: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    price: Price | None = None
    budgets: Sequence[Budget] = ()
    stream: bool = True
    approve: Approve | None = None
    store: Any = None
    """Where the run is recorded; runs started by its tools are recorded there too."""
    record: bool = True
    """Whether anything is kept of it, and of runs started by its tools."""
    replay: Replay | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    place: Place = field(default_factory=Place)
    monotonic: Callable[[], float] = time.perf_counter
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    new_id: Callable[[], str] = new_run_id
