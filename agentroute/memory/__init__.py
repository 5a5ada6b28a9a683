"""What an agent keeps between runs: a conversation, and facts that tools remember and recall.

`Memory` lives in RAM, `MemorySQLite` in a file; anything with the methods of `MemoryProto` can take their place, and with
its `session` keep several conversations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import MemoryProto
from .ram import Memory

if TYPE_CHECKING:
    from .sqlite import MemorySQLite

__all__ = ["Memory", "MemoryProto", "MemorySQLite"]


def __getattr__(name: str) -> Any:
    if name == "MemorySQLite":  # late, because importing sqlite3 takes 10 ms
        from .sqlite import MemorySQLite

        return MemorySQLite
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
