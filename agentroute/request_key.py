"""The key of a request: equal for requests that ask the same of the same model, whatever does not change the answer.

It is taken of the request as the library puts it, before an endpoint's quirks, so that what a process learns of an endpoint
does not change it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from .message import LLMRequest

__all__ = ["COUNTS", "NEUTRAL", "NEUTRAL_EXTRA", "request_key"]

VERSION = 1
"""Raised when the key, or the form of what is kept under it, changes: older answers are not served any more."""

COUNTS = ("model", "messages", "tools", "temperature", "max_tokens", "extra", "tool_choice", "response_format")
NEUTRAL = ("timeout", "failed_attempts", "meter")
"""Fields of LLMRequest by whether they count; a test sees to it that each is in one of the two."""
NEUTRAL_EXTRA = frozenset({
    "stream", "stream_options", "usage", "user", "metadata", "store", "session_id", "trace", "prompt_cache_key",
    "prompt_cache_retention", "safety_identifier",
})  # fmt: skip
"""Fields of `extra` that do not count: how the answer is sent, who asks, and what providers keep."""
CACHE_MARK = "cache_control"
"""The mark for providers' caches on a message, a part of one or a tool: it does not count."""


def request_key(model: Any, request: LLMRequest, salt: str = "") -> bytes | None:
    """16 bytes; None for a model that does not say what it is (`replay_identity`), or a request that is no JSON.

    `salt` tells requests apart that are otherwise equal.
    """
    identity = getattr(model, "replay_identity", None)
    if identity is None:
        return None
    asked = {name: getattr(request, name) for name in COUNTS}
    asked["messages"] = [_message(message.to_dict()) for message in request.messages]
    asked["tools"] = [_unmarked(tool) for tool in request.tools or ()]
    asked["temperature"] = None if request.temperature is None else float(request.temperature)
    asked["extra"] = {name: request.extra[name] for name in sorted(request.extra) if name not in NEUTRAL_EXTRA}
    try:  # in the order given: models answer in the order of a schema's properties
        text = json.dumps([VERSION, identity, asked, salt], separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return blake2b(text.encode("ascii"), digest_size=16).digest()


def _message(message: dict[str, Any]) -> Any:
    parts = message.get("content")
    return _unmarked({**message, "content": [_unmarked(part) for part in parts]} if isinstance(parts, list) else message)


def _unmarked(value: Any) -> Any:
    """Without the mark."""
    return {name: item for name, item in value.items() if name != CACHE_MARK} if isinstance(value, Mapping) else value
