"""Context: what a tool or an output validator may know of the run it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

from .message import Message, Usage

__all__ = ["Context"]


class Context:
    """One run, seen from inside a tool or validator. Never sent to the model, and changing it changes nothing.

    deps: what was given as `run(prompt, deps=…)`.
    usage: a copy of what the run has used so far.
    messages: the conversation so far as wire dictionaries, the assistant message that made this call included.
    retry: how many corrections (`Retry`, wrong output) the run has asked for so far.
    step: the current turn, from 1.
    session_id: the conversation, as given to `run`.
    memory: the agent's memory, or None. In a plain (not async) tool its methods block and return their value.
    run_id, agent_name: who is running.
    """

    def __init__(
        self,
        deps: Any = None,
        usage: Usage | None = None,
        messages: list[dict[str, Any]] | None = None,
        retry: int = 0,
        step: int = 0,
        session_id: str | None = None,
        memory: Any = None,
        run_id: str | None = None,
        agent_name: str | None = None,
    ) -> None:
        self.deps = deps
        self.usage = usage if usage is not None else Usage()
        self.retry = retry
        self.step = step
        self.session_id = session_id
        self.memory = memory
        self.run_id = run_id
        self.agent_name = agent_name
        self._messages = messages
        self._read: Callable[[], list[dict[str, Any]]] = list

    @property
    def messages(self) -> list[dict[str, Any]]:
        # Made when first looked at: most tools never do, and a copy each turn would cost more the longer the run.
        if self._messages is None:
            self._messages = self._read()
        return self._messages

    def __repr__(self) -> str:
        return f"Context(agent_name={self.agent_name!r}, step={self.step}, retry={self.retry}, session_id={self.session_id!r})"

    @classmethod
    def of_run(cls, *, transcript: list[Message], usage: Usage, **fields: Any) -> Context:
        """A context whose messages are the first `len(transcript)` of the run's, copied when asked for."""
        context = cls(usage=replace(usage), **fields)
        length = len(transcript)
        context._read = lambda: deepcopy([message.to_dict() for message in transcript[:length]])
        return context

    def for_thread(self, loop: asyncio.AbstractEventLoop) -> Context:
        """The same context for a function that runs in a thread: its memory blocks instead of being awaited."""
        if self.memory is None:
            return self
        twin = Context(
            self.deps, self.usage, self._messages, self.retry, self.step, self.session_id,
            _BlockingMemory(self.memory, loop), self.run_id, self.agent_name,
        )  # fmt: skip
        twin._read = self._read
        return twin


class _BlockingMemory:
    """A memory whose coroutine methods run on the agent's loop while the calling thread waits."""

    def __init__(self, memory: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._memory, self._loop = memory, loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._memory, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = value(*args, **kwargs)
            if asyncio.iscoroutine(answer):
                if asyncio._get_running_loop() is not None:  # async code after all, which awaits; waiting here would block its loop
                    return answer
                if self._loop.is_closed():
                    answer.close()
                    raise RuntimeError(f"the run has ended, and its memory can no longer be reached ({name})")
                return asyncio.run_coroutine_threadsafe(answer, self._loop).result()
            return _BlockingMemory(answer, self._loop) if hasattr(answer, "get_messages") else answer

        return call
