"""What models there are, with price and context, as far as this machine knows without asking anybody.

The list that OpenRouter gave (`openrouter.py` keeps it on disk), else the price table of `genai-prices` where that is installed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from ..errors import ErrorConfig
from .openrouter import KeptList, amount, kept_file, kept_list

__all__ = ["Catalogue", "ModelEntry", "catalogue", "find", "models", "unknown_model_hint"]

_ID = re.compile(r"[A-Za-z0-9~][A-Za-z0-9._~+@:/-]{0,199}")
"""Ids that can be written as one word; the list is foreign text."""


@dataclass(frozen=True)
class ModelEntry:
    """One model; None is unknown."""

    id: str
    input_usd_per_mtok: float | None = None
    """USD per million tokens, for short prompts where the price rises with length."""
    output_usd_per_mtok: float | None = None
    context_length: int | None = None
    """Tokens."""

    @property
    def about(self) -> str:
        """Price and context in words: `$3 in / $15 out per M, 200k`; empty where neither is known."""
        reading, writing = self.input_usd_per_mtok, self.output_usd_per_mtok
        price = ""
        if reading is not None and writing is not None:
            price = f"${_figure(reading)} in / ${_figure(writing)} out per M" if reading or writing else "free"
        return ", ".join(part for part in (price, _tokens(self.context_length)) if part)


@dataclass(frozen=True)
class Catalogue:
    """A list of models, sorted by id; without entries where nothing is known."""

    entries: tuple[ModelEntry, ...] = ()
    source: str = ""
    """`openrouter.ai`, or `genai-prices` and its version."""
    at: datetime | None = None
    """When the source was asked; None for a table that came with a package."""


def catalogue() -> Catalogue:
    """The models known here. Sends nothing; the first call may take 0.3 s where the price table has to be loaded."""
    return _listed(_stamp()) or _table()


def models() -> list[ModelEntry]:
    """As `catalogue().entries`."""
    return list(catalogue().entries)


def find(model_id: str) -> ModelEntry | None:
    """The model of this id, or the one it is a variant of (`ID:nitro`)."""
    known = {entry.id: entry for entry in catalogue().entries}
    return known.get(model_id) or known.get(model_id.rpartition(":")[0])


def unknown_model_hint(model: str, *, base_url: str | None = None) -> str | None:
    """Why a model string is surely misspelt, with the nearest right one; None where that is not certain.

    It is certain only where all of this holds: the string goes to the endpoint whose list is kept here; that list is of the
    last 24 hours and tells aliases; and neither the id, nor another version of it (the same letters, other digits), nor what
    it is a variant of (`:free`) is in it. Names of this machine (`local/…`, `ollama/…`) and URLs are never judged, nor are
    OpenRouter's routers and presets (`openrouter/…`, `@…`, `~…`). Sends nothing.
    """
    lowered = model.strip().lower()
    if "://" in lowered or lowered.startswith(("local/", "ollama/", "openrouter/", "@", "~")):
        return None
    kept = _kept(_stamp())
    if kept is None or not kept.fresh or (asked := _asked(model, base_url)) is None or asked[0] != kept.base_url:
        return None
    known, slugs = _names(kept, "id"), _names(kept, "canonical_slug")
    model_id = asked[1]
    plain = model_id.lower().partition(":")[0]
    if not known or not slugs or plain in known | slugs or _letters(plain) in {_letters(name) for name in known | slugs}:
        return None
    near = difflib.get_close_matches(plain, known, 1) or [name for name in sorted(known) if name.rpartition("/")[2] == plain][:1]
    hint = f"; did you mean {near[0]}?" if near else ""
    return (
        f"{_host(kept.base_url)} has no model {model_id[:80]!r}{hint}\n"
        f"(By its list of the last 24 hours. Is it brand-new? Delete {kept_file()}, and it is asked for.)"
    )


def _asked(model: str, base_url: str | None) -> tuple[str, str] | None:
    """The endpoint that a model string goes to, and the id it is asked for."""
    from .routing import stand_in

    try:
        made: Any = stand_in(model, base_url=base_url)
    except ErrorConfig:
        return None
    return str(getattr(made, "base_url", "")), str(getattr(made, "model_id", ""))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z/]+", "", name)


def _names(kept: KeptList, field: str) -> set[str]:
    return {name.lower().partition(":")[0] for model in kept.models if isinstance(name := model.get(field), str)}


def _stamp() -> tuple[str, int, int]:
    """What changes when the kept list does."""
    path = kept_file()
    try:
        about = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), about.st_mtime_ns, about.st_size


@lru_cache(maxsize=2)
def _kept(stamp: tuple[str, int, int]) -> KeptList | None:
    return kept_list() if stamp[1] else None


@lru_cache(maxsize=2)
def _listed(stamp: tuple[str, int, int]) -> Catalogue | None:
    kept = _kept(stamp)
    entries = _sorted(_entry(model) for model in kept.models) if kept is not None else ()
    if kept is None or not entries:
        return None
    try:
        at = datetime.fromtimestamp(kept.at, UTC)
    except (OverflowError, OSError, ValueError):
        at = None
    return Catalogue(entries, _host(kept.base_url), at)


def _entry(model: Mapping[str, Any]) -> ModelEntry:
    pricing, context = model.get("pricing"), model.get("context_length")
    prices = pricing if isinstance(pricing, Mapping) else {}
    whole = isinstance(context, int) and not isinstance(context, bool) and context > 0
    return ModelEntry(
        str(model.get("id")), _per_mtok(prices.get("prompt")), _per_mtok(prices.get("completion")), context if whole else None
    )


def _per_mtok(usd_a_token: Any) -> float | None:
    usd = amount(usd_a_token)
    return None if usd is None else float(usd * 1_000_000)


@lru_cache(maxsize=1)
def _table() -> Catalogue:
    """The models that the table of `genai-prices` has for OpenRouter, but for those it calls deprecated."""
    try:
        from importlib.metadata import version

        from genai_prices.data import providers

        now = datetime.now(UTC)
        known = next(provider.models for provider in providers if provider.id == "openrouter")
        entries = _sorted(_table_entry(model, now) for model in known if "/" in model.id and not model.deprecated)
        return Catalogue(entries, f"genai-prices {version('genai-prices')}")
    except Exception:  # not installed, or of a shape we do not know: then nothing is offered
        return Catalogue()


def _table_entry(model: Any, now: datetime) -> ModelEntry:
    prices = model.get_prices(now)
    found = [0 if model.id.endswith(":free") else getattr(prices, name, None) for name in ("input_mtok", "output_mtok")]
    reading, writing = (None if price is None else float(getattr(price, "base", price)) for price in found)
    return ModelEntry(model.id, reading, writing, model.context_window)


def _sorted(entries: Iterator[ModelEntry]) -> tuple[ModelEntry, ...]:
    found = {entry.id: entry for entry in entries if _ID.fullmatch(entry.id)}
    return tuple(found[name] for name in sorted(found))


def _host(base_url: str) -> str:
    try:
        return urlsplit(base_url).hostname or "the endpoint"
    except ValueError:
        return "the endpoint"


def _figure(usd: float) -> str:
    return f"{usd:,.0f}" if usd >= 1000 else f"{usd:.3g}"


def _tokens(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1e6:.2g}M" if count >= 999_500 else f"{count / 1e3:.0f}k" if count >= 1000 else str(count)
