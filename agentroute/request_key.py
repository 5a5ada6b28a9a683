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
NEUTRAL_INSIDE = frozenset({"cache_control"})
"""Fields that do not count wherever they are in messages and tools: marks for providers' caches."""


def request_key(model: Any, request: LLMRequest) -> bytes | None:
    """16 bytes; None for a model that does not say what it is (`replay_identity`), or a request that is no JSON."""
    identity = getattr(model, "replay_identity", None)
    if identity is None:
        return None
    asked = {name: getattr(request, name) for name in COUNTS}
    asked["messages"] = _plain([message.to_dict() for message in request.messages])
    asked["tools"] = _plain(request.tools) or None
    asked["extra"] = {name: value for name, value in request.extra.items() if name not in NEUTRAL_EXTRA}
    try:
        text = json.dumps([VERSION, identity, asked], sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return blake2b(text.encode("ascii"), digest_size=16).digest()


def _plain(value: Any) -> Any:
    """Without what does not count."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items() if name not in NEUTRAL_INSIDE}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
