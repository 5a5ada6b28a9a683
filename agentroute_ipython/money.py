"""What compared runs cost, together and each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentroute.figures import cost_text

from .card import Card
from .plain import maybe_charged

__all__ = ["cost", "cost_words", "money_words"]


@dataclass(frozen=True)
class _Money:
    """USD of a run: its own model calls, and the runs inside its tools. What was refused cost nothing, as `usage_line` has it."""

    paid: float | None
    """None: nothing is known, or nothing was paid for."""
    saved: float | None
    """What the answers that replay served had cost; None where it served none, or it is not known."""
    more: bool
    """Whether some of it is unknown."""

    @classmethod
    def of(cls, card: Card) -> _Money:
        turns = [turn for turn in card.turns if maybe_charged(turn)]
        paid = [turn.cost_usd for turn in turns if not turn.replayed_from]
        saved = [turn.cost_saved_usd for turn in turns if turn.replayed_from]
        more = None in (*paid, *saved) or (card.state == "interrupted" and card.turn > len(card.turns))
        for call in card.calls.values():
            paid += [call.cost_usd]
            saved += [call.cost_saved_usd]
        return cls(_sum(paid), _sum(saved), more)


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def money_words(cards: Sequence[Card]) -> str:
    """What runs cost together: `$0.0020`, `replayed, saved $0.0020`, `$0.0010 paid, $0.0010 saved`, `cost unknown`; an empty string
    where nothing was to be paid."""
    each = [_Money.of(card) for card in cards]
    paid, saved = _sum(money.paid for money in each), _sum(money.saved for money in each)
    at_least = "at least " if any(money.more for money in each) else ""
    if not paid and any(card.replayed for card in cards) and all(card.replayed or not card.turns for card in cards):
        return f"replayed, saved {at_least}{cost_text(saved)}" if saved else "replayed"
    if saved:
        return f"{at_least}{cost_text(paid or 0.0)} paid, {cost_text(saved)} saved"
    if paid is None:
        return "cost unknown" if at_least else ""
    return f"{at_least}{cost_text(paid)}"


def cost(card: Card) -> tuple[float | None, bool]:
    """What a run is compared by: what its answers cost, also where they were paid for before; and whether some of it is unknown."""
    money = _Money.of(card)
    return _sum((money.paid, money.saved)), money.more


def cost_words(card: Card) -> str:
    """As `cost`; an empty string where nothing was to be paid."""
    usd, more = cost(card)
    if usd is None:
        return "unknown" if more else ""
    return f"{'at least ' if more else ''}{cost_text(usd)}{' (replayed)' if card.replayed else ''}"
