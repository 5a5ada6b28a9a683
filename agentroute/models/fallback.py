"""ModelFallback: a layer that goes on to the next model when one fails."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import replace
from typing import Any

from ..config import Secret, SecretLike, without_password
from ..errors import ErrorAgent, ErrorBudget, ErrorConfig, ErrorModel, ErrorModelRequest, clean_text
from ..message import LLMChunk, LLMRequest
from .base import Layer, Model, ask
from .retry import with_retries
from .routing import identity_of, resolve_model

__all__ = ["ModelFallback"]

SHORT_S = 2.0
"""Seconds: the longest wait a provider may ask for while there is another model to ask."""


class ModelFallback(Layer):
    """The first of several models that answers: `Agent("a", model=ModelFallback(["anthropic/claude-sonnet-4", "openai/gpt-5"]))`.

    The next one is asked when a model has failed, whatever the reason, before its first delta; after that its error is the
    answer. Each has its own retries and, where the request names one, the whole timeout; but where a provider asks to wait
    for more than 2 s, the next model is asked at once, and only the last one waits up to 25 s. (A `ModelRetry` among the
    models keeps its own `max_wait_s`.) A model that cannot be set up (no key, say) is passed over as long as another is left. `response.model` says which one answered; what failed
    attempts have used is in `request.failed_attempts`.

    When none answers, the last model's error is raised and tells of all the others; but if the conversation was too long
    for one, it is that model's error, since a shorter one may be answered.

    Args:
        models: model strings (see `resolve_model`), made into models when first asked, or Models.
        api_key, base_url: for the model strings.

    Raises:
        ErrorConfig: no models, or something else among them.
    """

    def __init__(self, models: Sequence[str | Model], *, api_key: str | Secret | SecretLike | None = None, base_url: str | None = None) -> None:
        api_key = Secret(api_key) if api_key is not None else None  # first: no plain key stands in a traceback's locals
        if isinstance(models, str) or not isinstance(models, Sequence) or not models:
            raise ErrorConfig(f"ModelFallback takes a list of models, such as ['anthropic/claude-sonnet-4', 'openai/gpt-5']; got {type(models).__name__}")
        for model in models:
            if isinstance(model, str) and not model.strip():
                raise ErrorConfig("ModelFallback: a model is an empty string; give one such as 'openai/gpt-5'")
            if isinstance(model, type) or not isinstance(model, str | Model):
                raise ErrorConfig(f"ModelFallback takes model strings and Models, got {type(model).__name__}")
        self.models = tuple(models)
        self._api_key = api_key
        self._base_url = base_url
        self._made: dict[int, Model] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(without_password(repr(model)) for model in self.__dict__.get('models', ()))}])"

    @property
    def model_id(self) -> str:
        """The models' names, in order."""
        return ", ".join(map(_name, self.models))

    @property
    def replay_identity(self) -> Any:
        """Those of its models; None when one has none."""
        inner = [identity_of(model, base_url=self._base_url) for model in self.models]
        return None if None in inner else ["fallback", *inner]

    @property
    def context_tokens(self) -> int | None:
        """The smallest context of the models that tell theirs; None when none does."""
        known = [getattr(self._made.get(position, model), "context_tokens", None) for position, model in enumerate(self.models)]
        return min((tokens for tokens in known if isinstance(tokens, int)), default=None)

    async def close(self) -> None:
        for position, model in enumerate(self.models):
            made = self._made.get(position, model)
            if not isinstance(made, str):
                await made.close()

    async def _answer(self, request: LLMRequest, *, stream: bool) -> AsyncGenerator[LLMChunk, None]:
        """The chunks of the first answer; when it is not to be streamed, one that holds the inner model's own `complete`."""
        failures: list[ErrorAgent] = []
        for position, given in enumerate(self.models):
            shown = False
            try:
                inner = self._model(position)
                model_id = getattr(inner, "model_id", None)
                asked = replace(request, model=model_id if isinstance(model_id, str) else _name(given))
                async with aclosing(ask(inner, asked, stream=stream)) as chunks:
                    async for chunk in chunks:
                        shown = True
                        if chunk.response is not None and not chunk.response.model:
                            chunk.response.model = asked.model
                        yield chunk
                return
            except (ErrorModel, ErrorConfig, ErrorBudget) as error:  # the next one may be cheaper, or free
                if shown:
                    raise
                failures.append(error)
            if position + 1 < len(self.models):
                _count(failures[-1], request)
        raise self._told(failures, request)

    def _model(self, position: int) -> Model:
        """The model at a position, with its retries.

        Raises:
            ErrorConfig: its string is none, or there is no key for it.
        """
        if position in self._made:
            return self._made[position]
        given = self.models[position]
        model = resolve_model(given, api_key=self._api_key, base_url=self._base_url) if isinstance(given, str) else given
        last = position + 1 == len(self.models)
        model = with_retries(model) if last else with_retries(model, max_wait_s=SHORT_S)
        return self._made.setdefault(position, model)  # of two threads the first one's

    def _told(self, failures: list[ErrorAgent], request: LLMRequest) -> ErrorAgent:
        """The error to raise: the one the caller can do most about, with a word on each of the others."""
        last = failures[-1]
        long = [error for error in failures if isinstance(error, ErrorModelRequest) and error.too_long]
        chosen = [last, *(error for error in failures if isinstance(error, ErrorModel)), *reversed(long)][-1]
        if len(failures) == 1:
            return chosen
        told = copy(chosen)  # a model may raise the same object again
        told.__cause__ = chosen.__cause__
        others = [f"{_name(model)}: {error}" for model, error in zip(self.models, failures, strict=True) if error is not chosen]
        told.args = (clean_text(f"{chosen}; no other model answered either: {'; '.join(others)}"),)
        if chosen is not last and isinstance(told, ErrorModel):
            _count(last, request)
            told.sent, told.usage = False, {}  # it was counted when it was passed over
        return told


def _count(error: ErrorAgent, request: LLMRequest) -> None:
    """Notes what a failure that is not raised has used, or may have used."""
    if isinstance(error, ErrorModel) and (error.sent or error.usage):
        request.failed_attempts.append(dict(error.usage))


def _name(model: Any) -> str:
    name = model if isinstance(model, str) else getattr(model, "model_id", None)
    return without_password(name) if isinstance(name, str) and name else type(model).__name__
