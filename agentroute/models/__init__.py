"""Models: the protocol, the endpoints, and layers around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..message import LLMChunk, LLMRequest, LLMResponse, Message
from .base import Model

if TYPE_CHECKING:
    from .routing import resolve_model

__all__ = ["LLMChunk", "LLMRequest", "LLMResponse", "Message", "Model", "resolve_model"]


def __getattr__(name: str) -> Any:
    # What speaks to endpoints loads when it is first used.
    if name == "resolve_model":
        from .routing import resolve_model

        return resolve_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
