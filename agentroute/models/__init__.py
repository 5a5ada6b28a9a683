"""Models: the protocol, the endpoints, and layers around them."""

from ..message import LLMChunk, LLMRequest, LLMResponse, Message
from .base import Model
from .routing import resolve_model

__all__ = ["LLMChunk", "LLMRequest", "LLMResponse", "Message", "Model", "resolve_model"]
