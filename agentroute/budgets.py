"""Budgets: ceilings in USD that hold before money is spent. (Not `budget`: `agentroute.budget()` is a function.)

A model call reserves the most it can cost in every budget it falls under, or is not made. When it has ended, what it did
cost takes the place of the reserve; where nobody knows that, the whole reserve counts as spent.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Any

from .errors import ErrorBudget, ErrorConfig
from .figures import cost_text

__all__ = ["Budget", "Reservation", "active_budgets", "budget", "process_budget", "set_budget"]

PATIENCE_S = 60.0
"""How long a call waits for reserves of others to be released; it begins anew whenever one is."""
WOKEN = 8
"""How many of those who wait look again when a reserve is released, the longest waiting first."""

_lock = threading.Lock()  # one for all: a call reserves in several budgets at once or in none
_waiting: dict[int, _Waiter] = {}  # in order of arrival
_tickets = itertools.count()
_active: contextvars.ContextVar[tuple[Budget, ...]] = contextvars.ContextVar("agentroute_budgets", default=())
_of_process: Budget | None = None


class Budget:
    """USD that runs may spend together. `with agentroute.budget(5.00):` puts the runs begun inside under one.

    `spent` is what calls have cost, `reserved` the most that calls in flight may yet cost, `uncertain` what calls have
    reserved whose cost nobody knows (it counts as spent); `left` is what remains. All in USD.
    """

    def __init__(self, limit: float | Decimal, *, name: str = "budget") -> None:
        number = limit if isinstance(limit, int | float | Decimal) and not isinstance(limit, bool) else None
        if number is None or not Decimal(number).is_finite() or not 0 <= number < 10**9:
            raise ErrorConfig(f"{name} must be a number of USD of at least 0, got {limit!r:.80}")
        self._limit = Decimal(str(limit))
        self._spent = self._reserved = self._uncertain = Decimal(0)
        self._name = name
        self._priceless: set[str] = set()
        self._dearest = Decimal(0)  # of the calls whose price was not known

    def __repr__(self) -> str:
        return f"Budget(limit={self.limit:g}, spent={self.spent:g}, left={self.left:g})"

    @property
    def limit(self) -> float:
        return float(self._limit)

    @property
    def spent(self) -> float:
        return float(self._spent)

    @property
    def reserved(self) -> float:
        return float(self._reserved)

    @property
    def uncertain(self) -> float:
        return float(self._uncertain)

    @property
    def left(self) -> float:
        return float(max(self._free(), Decimal(0)))

    def __enter__(self) -> Budget:
        _active.set((*_active.get(), self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        entered = _active.get()  # of another task or thread, where the same budget is entered too
        last = max((position for position, one in enumerate(entered) if one is self), default=None)
        _active.set(tuple(one for position, one in enumerate(entered) if position != last))

    def _free(self) -> Decimal:
        return self._limit - self._spent - self._uncertain - self._reserved

    def error(self, hint: str) -> ErrorBudget:
        """The error that says this budget is used up."""
        if self._uncertain:
            hint += f"; {cost_text(self.uncertain)} of it is the most that calls of unknown cost may have cost"
        return ErrorBudget(spent=float(self._spent + self._uncertain), limit=self.limit, hint=hint, name=self._name)

    def check(self) -> None:
        """Raises ErrorBudget when no further call may be made: nothing is left, or it is not known what is left."""
        if self._priceless:
            raise self.error(unknown_cost(self._priceless))
        used = self._spent + self._uncertain
        if used > self._limit or (self._limit and used >= self._limit):
            raise self.error("nothing is left for another model call")

    def check_spent(self) -> None:
        """Raises ErrorBudget when more was spent than allowed, as a provider can that charges more than its price."""
        if self._spent > self._limit:
            raise self.error("the answer so far is in .result")

    @property
    def priceless(self) -> frozenset[str]:
        """Models that have answered without a word of the cost, and whose price is not known."""
        return frozenset(self._priceless)


def unknown_cost(models: Sequence[str] | set[str] | frozenset[str]) -> str:
    """Why a budget can't be kept, and what to do."""
    return (
        f"the cost of a call to {', '.join(sorted(models))} is unknown, so the limit cannot be kept; give the agent a price: "
        "price=agentroute.Price(input_usd_per_mtok=…, output_usd_per_mtok=…)"
    )


@dataclass
class _Waiter:
    """A call that waits for reserves of others."""

    loop: asyncio.AbstractEventLoop
    budgets: Sequence[Budget]
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Reservation:
    """What one model call has reserved, in every budget it falls under."""

    def __init__(self, budgets: Sequence[Budget], amount: Decimal) -> None:
        self._budgets = budgets
        self.amount = amount
        self._open = True

    def settle(self, cost: Decimal | None) -> None:
        """Ends it: the cost counts as spent, or for None the whole reserve as uncertain. Later calls do nothing."""
        with _lock:
            if not self._open:
                return
            self._open = False
            for one in self._budgets:
                one._reserved -= self.amount
                if cost is None:
                    one._uncertain += self.amount
                else:
                    one._spent += cost
        _wake(self._budgets)

    def settle_unpriced(self, cost: Decimal | None, *, answered: bool, model: str) -> None:
        """Ends the reserve of a call whose price was not known.

        An answer whose cost nobody reports leaves it unknown what is left; of a call that was lost, the dearest such call
        so far is counted.
        """
        for one in self._budgets:
            with _lock:
                if cost is not None:
                    one._dearest = max(one._dearest, cost)
                elif answered or not one._dearest:
                    one._priceless.add(model)
                else:
                    one._uncertain += one._dearest
        self.settle(cost or Decimal(0))


def _wake(budgets: Sequence[Budget]) -> None:
    """Has those who wait for one of the budgets look again."""
    with _lock:
        sharing = [waiter for waiter in _waiting.values() if any(one in budgets for one in waiter.budgets)][:WOKEN]
    for waiter in sharing:
        try:
            waiter.loop.call_soon_threadsafe(waiter.woken.set)
        except RuntimeError:  # its loop has ended, and it with it
            pass


async def reserve(budgets: Sequence[Budget], amount: Callable[[Decimal, int], Decimal | None], needed: Decimal) -> Reservation:
    """Reserves in all budgets at once, waiting for others' reserves where that can help.

    `amount(left, others)` says how much of what is left it wants, or None when that is too little; `others` is how many
    calls wait for the same budgets, or 0 when nothing more will be released in time. `needed` is for the message, 0 where the price is unknown.

    Raises:
        ErrorBudget: it is too little, and nothing more will be released, or not in time.
    """
    waiter = _Waiter(asyncio.get_running_loop(), budgets)
    ticket = next(_tickets)
    patience = True
    try:
        while True:
            with _lock:
                tightest = min(budgets, key=Budget._free)
                left = tightest._free()
                may_free = min(one._free() + one._reserved for one in budgets) > left
                before = sum(1 for number, one in _waiting.items() if number != ticket and any(b in budgets for b in one.budgets))
                wanted = amount(left, before + 1 if may_free and patience else 0)
                if wanted is not None:
                    for one in budgets:
                        one._reserved += wanted
                    return Reservation(budgets, wanted)
                if not (may_free and patience):
                    raise tightest.error(_too_little(tightest, needed))
                waiter.woken.clear()
                _waiting[ticket] = waiter
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await waiter.woken.wait()
            except TimeoutError:
                patience = False
    finally:
        if _waiting.pop(ticket, None) is not None:
            _wake(budgets)  # there may be room for the next one


def _too_little(tightest: Budget, needed: Decimal) -> str:
    busy = f", and {cost_text(tightest.reserved)} is reserved by calls in flight" if tightest._reserved else ""
    if not needed and not tightest.left:
        return f"nothing is left of it{busy}; raise the limit"
    most = f"may cost up to {cost_text(float(needed))}" if needed else "has a price that nobody knows"
    return (
        f"another model call {most}, and {cost_text(tightest.left)} is left{busy}; raise the limit, "
        "set max_tokens, or send less (a new prompt is reckoned as a token a byte, about four times too much)"
    )


def budget(limit: float | Decimal) -> Budget:
    """A Budget to be used as `with agentroute.budget(5.00):`. Runs begun inside may not spend more than this together.

    It holds for the block's own thread and tasks, and for runs begun by their tools; `set_budget` is for the process.

    Raises:
        ErrorConfig: no number, negative, or not finite.
    """
    return Budget(limit)


def set_budget(limit: float | Decimal | Budget | None) -> Budget | None:
    """Puts all runs that this process begins from now on under one budget; None lifts it. Returns it."""
    global _of_process
    _of_process = limit if limit is None or isinstance(limit, Budget) else Budget(limit)
    return _of_process


def process_budget() -> Budget | None:
    """The budget that `set_budget` has set."""
    return _of_process


def active_budgets() -> tuple[Budget, ...]:
    """The budgets that a run begun here and now falls under, but for its own `max_cost`."""
    found: tuple[Any, ...] = _active.get()
    return found if _of_process is None else (_of_process, *found)
