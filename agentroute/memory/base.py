"""The memory protocol, and the rules every memory here keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ..errors import ErrorConfig
from ..message import Message, ToolCall

__all__ = ["MemoryProto", "check_fact", "check_key", "check_limit", "check_messages", "check_session", "check_text", "opened"]


@runtime_checkable
class MemoryProto(Protocol):
    """One conversation, and facts beside it. All methods here are coroutines, callable from any event loop.

    A memory of several conversations has one more, plain method: `session(session_id: str | None) -> MemoryProto`, the
    same memory seen from one conversation, with its own messages and the common facts. A run that is given a
    `session_id` needs it, and is refused with ErrorConfig by a memory without it. `Memory` and `MemorySQLite` have it,
    and so has what it returns.
    """

    async def get_messages(self, limit: int | None = None) -> list[Message]:
        """The conversation, oldest first, of its last `limit` messages.

        Begins at a user message, after leading system messages, and never inside a tool exchange, because providers
        refuse anything else; so there may be fewer than `limit`, or none.
        """
        ...

    async def add_messages(self, messages: list[Message]) -> None:
        """Adds to the end; all of them or none."""
        ...

    async def clear_messages(self) -> None:
        """Forgets the conversation; facts stay."""
        ...

    async def remember(self, key: str, value: str) -> None:
        """Keeps a fact; an earlier one of the same key is replaced."""
        ...

    async def recall(self, query: str, limit: int = 10) -> list[str]:
        """Values of the facts that share words with `query`, best first; of all facts when it is blank."""
        ...

    async def forget(self, key: str) -> None:
        """Drops a fact; an unknown key is no error."""
        ...


def check_fact(key: Any, value: Any) -> None:
    """Raises ErrorConfig for what no memory can give back as it was."""
    for name, text in (("key", key), ("value", value)):
        check_text("remember()", name, text, "; convert it, say with json.dumps")
        _check_whole("remember()", name, text)


def check_key(method: str, key: Any) -> None:
    check_text(method, "key", key)
    _check_whole(method, "key", key)


def check_text(method: str, name: str, text: Any, advice: str = "") -> None:
    if not isinstance(text, str):
        raise ErrorConfig(f"{method} takes a str as {name}, not {type(text).__name__}{advice}")


def _check_whole(what: str, name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ErrorConfig(f"{what} was given a {name} with half a character (a lone surrogate); leave it out") from None


def check_limit(method: str, limit: Any) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise ErrorConfig(f"{method}: limit must be a whole number, not {limit!r:.80}")


def check_messages(messages: Any) -> None:
    if not isinstance(messages, list | tuple):
        raise ErrorConfig(f"add_messages() takes a list of Messages, not {type(messages).__name__}")
    for message in messages:
        if not isinstance(message, Message):
            raise ErrorConfig(f"add_messages() takes Message objects, not {type(message).__name__}; use Message.from_dict")


def check_session(session_id: Any) -> None:
    if session_id is not None and (not isinstance(session_id, str) or not session_id):
        # An empty id is a mistake upstream, and would put all such users into one conversation.
        raise ErrorConfig(f"session_id must be a str that is not empty, or None, not {session_id!r}")
    if session_id is not None:
        _check_whole("the memory", "session_id", session_id)


def opened(messages: Sequence[Message]) -> list[Message]:
    """The leading system messages, and all from the first user message that does not stand inside a tool exchange.

    A tool call without a result (of a run of agentroute 1.1.0 that failed) is answered: providers refuse such a
    conversation for ever.
    """
    head = next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))
    start: int | None = None
    for index, message in enumerate(messages):
        if message.role == "tool":  # of a call before the user's words, which is not among these
            start = None
        elif message.role == "user" and start is None:
            start = index
        elif message.role == "assistant" and start is not None:
            break
    return [*messages[:head], *_answered(messages[start:] if start is not None else [])]


def _answered(messages: Sequence[Message]) -> list[Message]:
    backwards: list[Message] = []
    results: set[str] = set()  # ids of results whose call is yet to come
    end = 0  # where in `backwards` the exchange ends, the results of which have just been passed
    for message in reversed(messages):
        if message.role == "tool":
            results.add(message.tool_call_id or "")
        calls = [ToolCall.from_wire(call) for call in message.tool_calls or []]
        if missing := [call for call in calls if call.id not in results]:
            added = [Message("tool", "(not run)", tool_call_id=call.id, name=call.name) for call in reversed(missing)]
            if end == 0 or backwards[end - 1].role == "user":  # roles take turns
                added.insert(0, Message("assistant", "(no answer)"))
            backwards[end:end] = added
        results.difference_update(call.id for call in calls)
        backwards.append(message)
        if message.role != "tool":
            end = len(backwards)
    return backwards[::-1]
