"""Memory in RAM."""

from __future__ import annotations

from copy import copy, deepcopy
from dataclasses import replace

from ..message import Message
from .base import check_fact, check_key, check_limit, check_messages, check_session, check_text, opened
from .recall import Fact, ranked

__all__ = ["Memory"]


class Memory:
    """Lives as long as the process. Messages are copied in and out, so changing one changes nothing here.

    `session(session_id)` is the same memory with another conversation: facts are shared, messages are not.
    Safe from any thread: each step is one operation on a list or a dict.
    """

    def __init__(self) -> None:
        self._conversations: dict[str | None, list[Message]] = {}
        self._facts: dict[str, Fact] = {}
        self._session_id: str | None = None

    def __repr__(self) -> str:
        session = f", session_id={self._session_id!r}" if self._session_id else ""
        return f"Memory(messages={len(self._messages)}, facts={len(self._facts)}{session})"

    def session(self, session_id: str | None) -> Memory:
        """This memory, seen from one conversation; None is the conversation without a name."""
        check_session(session_id)
        view = copy(self)
        view._session_id = session_id
        return view

    async def get_messages(self, limit: int | None = None) -> list[Message]:
        if limit is not None:
            check_limit("get_messages()", limit)
            if limit <= 0:
                return []
        return [_copied(message) for message in opened(self._messages[-(limit or 0) :])]

    async def add_messages(self, messages: list[Message]) -> None:
        check_messages(messages)
        self._conversations.setdefault(self._session_id, []).extend([_copied(message) for message in messages])

    async def clear_messages(self) -> None:
        self._conversations.pop(self._session_id, None)

    async def remember(self, key: str, value: str) -> None:
        check_fact(key, value)
        self._facts[key] = Fact.of(key, value)

    async def recall(self, query: str, limit: int = 10) -> list[str]:
        check_text("recall()", "query", query)
        check_limit("recall()", limit)
        if limit <= 0:
            return []
        facts = list(self._facts.values())
        return ranked(query, facts, limit) if query.strip() else [fact.value for fact in facts[:limit]]

    async def forget(self, key: str) -> None:
        check_key("forget()", key)
        self._facts.pop(key, None)

    @property
    def _messages(self) -> list[Message]:
        return self._conversations.get(self._session_id, [])


def _copied(message: Message) -> Message:
    if isinstance(message.content, str | None) and not message.tool_calls and not message.extra:
        return replace(message, extra={})  # twenty times as fast as deepcopy
    return deepcopy(message)
