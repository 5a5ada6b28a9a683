"""Figures in words: costs, seconds, counts."""

from __future__ import annotations

import math

__all__ = ["cost_text", "count_text", "plural", "seconds_text"]


def count_text(number: int | None) -> str:
    """`12,345`; an empty string for None."""
    return "" if number is None else f"{number:,}"


def plural(number: int, noun: str) -> str:
    """`1 tool call`, `2 tool calls`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def cost_text(cost_usd: float | None) -> str:
    """USD with four decimals, two from a dollar on, two significant digits below a tenth of a cent; `cost unknown` for None."""
    if cost_usd is None or not math.isfinite(cost_usd) or cost_usd < 0:
        return "cost unknown"
    if cost_usd == 0:
        return "$0"
    if cost_usd >= 1:
        return f"${cost_usd:,.2f}"
    if cost_usd >= 0.001:
        return f"${cost_usd:.4f}"
    if cost_usd < 1e-9:
        return "under $0.000000001"
    exponent = int(f"{cost_usd:.1e}".partition("e")[2])
    return f"${cost_usd:.{1 - exponent}f}"


def seconds_text(seconds: float | None) -> str:
    """`12 ms`, `3.1 s`, `2 min 5 s`, `3 h 20 min`; an empty string for None."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 0.0995:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
