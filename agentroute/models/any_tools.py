"""ModelAnyTools: a layer that asks for tool calls in words where the endpoint takes no tools."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ..errors import ErrorModel, tell
from ..message import LLMChunk, LLMRequest
from .base import Layer, Model, ask
from .prompted_tools import ModelPromptedTools

__all__ = ["ModelAnyTools", "asked_in_words"]

MOST_KEPT = 512
asked_in_words: dict[tuple[str, str], None] = {}
"""Endpoints and models that have refused tools, oldest first."""


class ModelAnyTools(Layer):
    """The model; where it has refused tools, ModelPromptedTools around it, from then on in this process."""

    def __init__(self, model: Model) -> None:
        self.inner = model

    def __repr__(self) -> str:
        return repr(self.__dict__.get("inner"))

    @property
    def replay_identity(self) -> Any:
        return getattr(self.inner, "replay_identity", None)

    async def _answer(self, request: LLMRequest, *, stream: bool) -> AsyncGenerator[LLMChunk, None]:
        place = str(getattr(self.inner, "base_url", "")), request.model
        if not (request.tools and place in asked_in_words):
            try:
                async with aclosing(ask(self.inner, request, stream=stream)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except ErrorModel as error:
                if not error.no_tools:  # which is said before the first chunk
                    raise
            self._remember(place)
        async with aclosing(ask(ModelPromptedTools(self.inner), request, stream=stream)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _remember(self, place: tuple[str, str]) -> None:
        asked_in_words[place] = None
        while len(asked_in_words) > MOST_KEPT:
            asked_in_words.pop(next(iter(asked_in_words)), None)
        tell(f"{place[1]} takes no tools there: it is asked for tool calls in words, one at a time")
