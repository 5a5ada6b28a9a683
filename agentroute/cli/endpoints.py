"""Asking endpoints whether they are there, and whether they take the key. Nothing here costs anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from ..config import Config, Secret
from ..errors import ErrorAgent, ErrorConfig
from .terminal import one_line

__all__ = ["Answer", "ask_ollama", "ask_openrouter"]

TIMEOUT_S = 8.0

Verdict = Literal["accepted", "refused", "unknown"]


@dataclass
class Answer:
    """What an endpoint said."""

    endpoint: str
    reachable: bool
    key: Verdict = "unknown"
    """What it said of the key."""
    detail: str = ""
    """Why it is not reachable, or why it said nothing of the key; empty when all is clear."""
    credit_left_usd: float | None = None
    """What the key may still spend; None when it has no limit of its own, or the endpoint does not say."""
    models: tuple[str, ...] = ()


async def ask_openrouter(key: Secret | None, *, timeout: float = TIMEOUT_S) -> Answer:
    """Whether OpenRouter (or what `openrouter_base_url` in the config file names) takes the key: GET BASE/key.

    Source: https://openrouter.ai/docs/api-reference/limits. A wrong key, or none, is a 401.

    Raises:
        ErrorConfig: the base URL is none.
    """
    from .. import _http
    from ..models.cloud import ModelCloud
    from ..models.routing import OPENROUTER

    model = ModelCloud(model_id="key", base_url=_openrouter_base() or OPENROUTER, api_key=key)
    answer = Answer(_http.where(model.base_url), reachable=False)
    try:
        reply = await _http.get(f"{model.base_url}/key", key=key, timeout=timeout, headers=model.headers)
    except ErrorConfig:
        raise
    except ErrorAgent as error:
        answer.detail = one_line(str(error), 300)
        return answer
    answer.reachable = True
    if reply.status in (401, 403):
        answer.key = "refused"
        answer.detail = f"status {reply.status}"
    elif reply.status == 200 and isinstance(data := _data(reply.body), dict):
        answer.key = "accepted"
        left = data.get("limit_remaining")  # `label` holds a part of the key, so it is not even looked at
        answer.credit_left_usd = float(left) if isinstance(left, int | float) and not isinstance(left, bool) else None
    else:
        answer.detail = f"it answered {model.base_url}/key with status {reply.status}" + (
            ", but with something else" if reply.status == 200 else ""
        )
    return answer


def _openrouter_base() -> str | None:
    try:
        return Config().base_url()
    except ErrorConfig:  # the file cannot be read: `login` writes it anew, `doctor` says so by itself
        return None


async def ask_ollama(*, timeout: float = TIMEOUT_S) -> Answer:
    """Whether Ollama answers where `ollama/NAME` goes, and with which models: GET BASE/models.

    Raises:
        ErrorConfig: OLLAMA_HOST is no address.
    """
    from .. import _http
    from ..models.routing import resolve_model

    model: Any = resolve_model("ollama/any")
    base = model.base_url
    answer = Answer(_http.where(base), reachable=False)
    try:
        reply = await _http.get(f"{base}/models", key=None, timeout=timeout, headers=model.headers)
    except ErrorConfig:
        raise
    except ErrorAgent as error:
        answer.detail = one_line(str(error), 300)
        return answer
    models = _data(reply.body)
    if reply.status == 200 and (isinstance(models, list) or (models is None and b'"data"' in reply.body)):
        answer.reachable = True
        answer.models = tuple(
            one_line(str(model["id"]), 80) for model in models or () if isinstance(model, dict) and model.get("id")
        )
    else:
        answer.detail = f"what answers there is no Ollama (status {reply.status})"
    return answer


def _data(body: bytes) -> Any:
    """The `data` of a JSON answer; None when it is no JSON, or has none (Ollama without models says null)."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value.get("data") if isinstance(value, dict) else None
