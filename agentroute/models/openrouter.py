"""OpenRouter's list of models: prices, context and longest answer of each. Asked for once a day, and only when needed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .. import _http
from .._threads import run_in_thread
from ..config import Config
from ..errors import ErrorAgent
from ..prices import TablePrice

__all__ = ["Entry", "KeptList", "amount", "entry_of", "is_openrouter", "kept_file", "kept_list"]

HOST = "openrouter.ai"
KEPT_S = 24 * 3600
TIMEOUT_S = 10.0
_KEPT = ("id", "canonical_slug", "pricing", "context_length", "top_provider")


@dataclass(frozen=True)
class Entry:
    """One model of the list; None is unknown."""

    price: TablePrice | None
    context_tokens: int | None
    most_answer_tokens: int | None


@dataclass(frozen=True)
class KeptList:
    """The list as it was answered, kept on disk."""

    at: float
    """When it was asked for, seconds since 1970."""
    base_url: str
    models: list[Mapping[str, Any]]
    """Of each `id`, `canonical_slug`, `pricing`, `context_length`, `top_provider`; nothing in them is checked."""

    @property
    def fresh(self) -> bool:
        """Whether it is of the last day."""
        return 0 <= time.time() - self.at < KEPT_S


def kept_list() -> KeptList | None:
    """The list that is kept on disk, however old; None where there is none. Sends nothing."""
    try:
        kept = json.loads(kept_file().read_text(encoding="utf-8"))
        models = [model for model in kept["models"] if isinstance(model, Mapping)]
        return KeptList(float(kept["at"]), str(kept["base_url"]), models)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def kept_file() -> Path:
    return Config().config_dir / "openrouter-models.json"


_lists: dict[str, tuple[float, dict[str, Entry]]] = {}
"""By base URL: when it was asked for (seconds since 1970), and the models by id."""


def is_openrouter(base_url: Any) -> bool:
    return isinstance(base_url, str) and urlsplit(base_url).hostname == HOST


async def entry_of(model_id: str, base_url: str) -> Entry | None:
    """What OpenRouter says of a model; None when it cannot be asked, or does not know it."""
    at, entries = _lists.get(base_url, (0.0, {}))
    if time.time() - at > KEPT_S:
        entries = await _read(base_url)
    return entries.get(model_id) or entries.get(model_id.rpartition(":")[0])


async def _read(base_url: str) -> dict[str, Entry]:
    kept = await run_in_thread(kept_list, name="agentroute-prices")
    at, models = (kept.at, kept.models) if kept is not None and kept.fresh and kept.base_url == base_url else (0.0, None)
    if models is None:
        at = time.time()
        try:
            reply = await _http.get(f"{base_url}/models", key=None, timeout=TIMEOUT_S)
            models = _models_in(reply.body) if reply.status == 200 else None
        except ErrorAgent:
            models = None
        if models is None:
            at -= KEPT_S - 300  # asked again in five minutes
        else:
            slim = [{name: model.get(name) for name in _KEPT} for model in models]
            text = json.dumps({"at": at, "base_url": base_url, "models": slim})
            await run_in_thread(lambda: _to_file(kept_file(), text), name="agentroute-prices")
    entries = {str(model.get("id")): _entry(model) for model in models or []}
    _lists[base_url] = (at, entries)
    return entries


def _to_file(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, path)
    except OSError:
        pass  # it is asked for again next time


def _models_in(body: bytes) -> list[Mapping[str, Any]] | None:
    try:
        data = json.loads(body)["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return [model for model in data if isinstance(model, Mapping)] if isinstance(data, list) else None


def _entry(model: Mapping[str, Any]) -> Entry:
    top = model.get("top_provider")
    top = top if isinstance(top, Mapping) else {}
    return Entry(_price(model.get("pricing")), _count(model.get("context_length")), _count(top.get("max_completion_tokens")))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


_NAMES = ("prompt", "completion", "request", "input_cache_read", "input_cache_write", "internal_reasoning")


def _price(pricing: Any) -> TablePrice | None:
    """The price in a `pricing` object, in USD a token. Conditions of time are not looked at: the dearest price counts."""
    if not isinstance(pricing, Mapping):
        return None
    base = {name: amount(pricing.get(name)) for name in _NAMES}
    if base["prompt"] is None or base["completion"] is None:
        return None
    overrides = pricing.get("overrides")
    tiers = [one for one in overrides if isinstance(one, Mapping)] if isinstance(overrides, list) else []

    def calculate(input_tokens: int, output_tokens: int, cached: int, written: int) -> Decimal:
        def dearest(name: str, default: Decimal) -> Decimal:
            found = [base[name]]
            for tier in tiers:
                least = tier.get("min_prompt_tokens")
                if not isinstance(least, int | float) or input_tokens > least:
                    found.append(amount(tier.get(name)))
            known = [price for price in found if price is not None]
            return max(known) if known else default

        prompt = dearest("prompt", Decimal(0))
        plain = max(0, input_tokens - cached - written)
        return (
            plain * prompt
            + cached * dearest("input_cache_read", prompt)
            + written * max(prompt, dearest("input_cache_write", prompt))
            + output_tokens * max(dearest("completion", Decimal(0)), dearest("internal_reasoning", Decimal(0)))
            + dearest("request", Decimal(0))
        )

    return TablePrice(calculate)


def amount(value: Any) -> Decimal | None:
    """An amount; None for what is no number, and for the negative ones that stand for 'it depends'."""
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount >= 0 else None
