"""What a model call costs, where the provider does not say: a price given by the user, else a dated price table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from .errors import ErrorConfig
from .message import TurnUsage

__all__ = ["FREE", "Price", "TablePrice", "cost_of", "price_in_table"]

MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Price:
    """What a model charges, in USD per million tokens.

    Cached input tokens (a part of the input tokens) cost `cached_input_usd_per_mtok`, by default as much as others;
    reasoning tokens are output tokens.

    Raises:
        ErrorConfig: a price is no number, negative, or not finite.
    """

    input_usd_per_mtok: float
    output_usd_per_mtok: float
    cached_input_usd_per_mtok: float | None = None

    def __post_init__(self) -> None:
        for name in ("input_usd_per_mtok", "output_usd_per_mtok", "cached_input_usd_per_mtok"):
            value = getattr(self, name)
            if not (value is None and name.startswith("cached")) and _usd(value) is None:
                raise ErrorConfig(f"Price: {name} must be a number of USD of at least 0, got {value!r:.80}")

    def cost(self, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0) -> Decimal:
        """USD for one call."""
        cached = min(cached_input_tokens, input_tokens)
        cached_price = self.input_usd_per_mtok if self.cached_input_usd_per_mtok is None else self.cached_input_usd_per_mtok
        parts = (
            (input_tokens - cached, self.input_usd_per_mtok),
            (cached, cached_price),
            (output_tokens, self.output_usd_per_mtok),
        )
        return sum((tokens * Decimal(str(price)) for tokens, price in parts), Decimal(0)) / MILLION

    def most(self, input_tokens: int, output_tokens: int) -> Decimal:
        """USD that a call of at most so many tokens can cost."""
        return max(self.cost(input_tokens, output_tokens), self.cost(input_tokens, output_tokens, input_tokens))



@dataclass(frozen=True)
class TablePrice:
    """The price a table has for a model, its tiers by length included. `calculate` is (input, output, cached, written) → USD."""

    calculate: Callable[[int, int, int, int], Decimal] = field(repr=False)

    def cost(self, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0) -> Decimal:
        return self.calculate(input_tokens, output_tokens, min(cached_input_tokens, input_tokens), 0)

    def most(self, input_tokens: int, output_tokens: int) -> Decimal:
        """As Price; input that is written to the provider's cache may cost more than other input."""
        return max(self.calculate(input_tokens, output_tokens, 0, written) for written in (0, input_tokens))


def cost_of(price: Price | TablePrice, used: TurnUsage) -> Decimal | None:
    """USD of a call by its tokens; None where they are not known."""
    if used.input_tokens is None or used.output_tokens is None:
        return None
    return price.cost(used.input_tokens, used.output_tokens, used.cached_input_tokens or 0)


def price_in_table(model_id: str, base_url: str) -> TablePrice | None:
    """The price of a model at a provider in the table of `genai-prices`; None where it has none, or is not installed.

    The first call loads the table (some 0.2 s), so call it in a thread.
    """
    try:
        import genai_prices
    except ImportError:
        return None
    model_id = model_id if model_id.endswith(":free") else model_id.partition(":")[0]

    def calculate(input_tokens: int, output_tokens: int, cached: int, written: int) -> Decimal:
        usage = genai_prices.Usage(
            input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=cached, cache_write_tokens=written
        )
        price: Decimal = genai_prices.calc_price(usage, model_id, provider_api_url=base_url).total_price
        return price

    try:
        calculate(1, 1, 0, 0)
    except (LookupError, ValueError):
        return None
    return TablePrice(calculate)


def _usd(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount < 10**9 else None


FREE = Price(0, 0)
"""What a server of one's own charges."""
