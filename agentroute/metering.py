"""The meter of one run: each model call is priced, and made only when the run's budgets have room for the most it can cost.

It is put into every request of the run, and `models.base.ask` hands it the call of the innermost model: so every attempt of
a retry or fallback is reserved and counted on its own.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from ._threads import run_in_thread
from .budgets import Budget, Reservation, reserve, spend
from .errors import ErrorModel
from .message import LLMChunk, LLMRequest, LLMResponse, Message, ToolCall, TurnUsage
from .models.base import Model
from .prices import FREE, Price, TablePrice, cost_of, price_in_table

__all__ = ["Meter", "prompt_tokens_at_most"]

LEAST_ANSWER = 256
"""Tokens: an answer that has no room for as many is not asked for."""
COMFORT = 4_096
"""Tokens of answer below which a call rather waits for reserves of others to be released."""
MOST_ANSWER = 16_384
"""Tokens an answer may have under a budget where neither the user nor a table says how many: models refuse more than
they can write."""

AnyPrice = Price | TablePrice
Plain = Callable[[Model, LLMRequest, bool], AsyncGenerator[LLMChunk, None]]

_known: dict[tuple[str, str], AnyPrice | None] = {}
"""Prices found in tables, by model id and base URL."""


class Meter:
    """Prices the model calls of one run and reserves them in its budgets.

    Args:
        budgets: what the calls fall under; none sets no limit.
        price: of models that have no price of their own and whose provider reports no cost.
    """

    def __init__(self, budgets: Sequence[Budget], price: Price | None) -> None:
        self.budgets = tuple(dict.fromkeys(budgets))
        self.price = price
        self.cut_at: int | None = None
        """Tokens the last answer was limited to by a budget; None when it was not."""
        self._before: tuple[list[Message], int] | None = None  # what was sent last, and how many tokens it was

    async def ask(self, model: Model, request: LLMRequest, stream: bool, plain: Plain) -> AsyncGenerator[LLMChunk, None]:
        """The chunks of one attempt, whose response tells its cost where anybody knows it.

        Raises:
            ErrorBudget: a budget has no room for it; nothing was sent.
        """
        price = await self._price_of(model, request.model)
        self.cut_at = None
        reservation: Reservation | None = None
        if self.budgets:
            for one in self.budgets:
                one.check()
            if price is not None:
                reservation, request = await self._reserved(price, model, request)
        cost: Decimal | None = None
        counted = False
        try:
            async with aclosing(plain(model, request, stream)) as chunks:
                async for chunk in chunks:
                    if chunk.response is not None:
                        cost = await self._priced(chunk.response, price, model)
                        counted = True
                        self._remember(request, chunk.response)
                        self._count(reservation, cost, request.model)
                    yield chunk
        except ErrorModel as error:
            if not counted:
                counted = True
                cost = TurnUsage.from_wire(error.usage).cost_usd
                self._count(reservation, Decimal(0) if cost is None and not error.sent else cost, request.model)
            raise
        finally:
            if not counted:  # left or cancelled: the provider may well charge for it
                self._count(reservation, None, request.model)

    def _count(self, reservation: Reservation | None, cost: Decimal | None, model: str) -> None:
        if reservation is not None:
            reservation.settle(cost)
        elif self.budgets:
            spend(self.budgets, cost, model)

    # ---- prices ---------------------------------------------------------------------------------------------------

    async def _price_of(self, model: Model, model_id: str) -> AnyPrice | None:
        """The price known before the call: the model's own, the agent's, or a table's."""
        own = getattr(model, "price", None)
        if isinstance(own, Price):
            return own
        if getattr(model, "free", False) is True:
            return FREE
        if self.price is not None:
            return self.price
        base_url = getattr(model, "base_url", None)
        if not self.budgets or not isinstance(base_url, str):
            return None  # the provider's own number will do, and is asked for first
        return await _table_price(model_id, base_url)

    async def _priced(self, response: LLMResponse, price: AnyPrice | None, model: Model) -> Decimal | None:
        """The response's cost, put into its usage where the provider did not."""
        used = TurnUsage.from_wire(response.usage)
        if used.cost_usd is not None:
            return used.cost_usd
        base_url = getattr(model, "base_url", None)
        if price is None and isinstance(base_url, str) and used.input_tokens is not None:
            price = await _table_price(response.model or "", base_url) or await _table_price(getattr(model, "model_id", ""), base_url)
        cost = cost_of(price, used) if price is not None else None
        if cost is not None:
            source = "given" if isinstance(price, Price) else "table"
            response.usage = {**response.usage, "cost": str(cost), "cost_source": source}
        return cost

    # ---- reserving ------------------------------------------------------------------------------------------------

    async def _reserved(self, price: AnyPrice, model: Model, request: LLMRequest) -> tuple[Reservation, LLMRequest]:
        """A reserve for the most the call can cost, and the request with its answer capped to that."""
        from .models.openrouter import is_openrouter

        prompt = self._prompt_tokens(request)
        asked = request.max_tokens
        most = await _most_answer(model, request.model)
        cap = 0

        def amount(left: Decimal, patient: bool) -> Decimal | None:
            nonlocal cap
            if price is FREE:
                return Decimal(0)
            room = _answer_room(price, prompt, left, asked or most)
            if asked is None and room < most and patient and room < COMFORT:
                return None
            if asked is not None and room < asked and patient:
                return None
            if room < min(LEAST_ANSWER, asked or LEAST_ANSWER):
                return None
            # Without a limit of the user's own, half of what is left: runs beside this one want some, too.
            cap = room if asked is not None else min(room, max(COMFORT, _answer_room(price, prompt, left / 2, most)))
            return price.most(prompt, cap)

        reservation = await reserve(self.budgets, amount)
        if price is FREE:
            return reservation, request
        if cap < (asked or most):
            self.cut_at = cap
        request = replace(request, max_tokens=cap)
        if is_openrouter(getattr(model, "base_url", "")):
            request = replace(request, extra=_with_max_price(request.extra, price, prompt))
        return reservation, request

    def _prompt_tokens(self, request: LLMRequest) -> int:
        """A bound: what was sent before counts as the provider has counted it, what is new by its bytes."""
        most = prompt_tokens_at_most(request)
        if self._before is not None:
            sent, counted = self._before
            if len(sent) <= len(request.messages) and all(a is b for a, b in zip(sent, request.messages, strict=False)):
                most = min(most, counted + sum(map(_message_tokens, request.messages[len(sent) :])))
        return most

    def _remember(self, request: LLMRequest, response: LLMResponse) -> None:
        counted = TurnUsage.from_wire(response.usage).input_tokens
        self._before = (list(request.messages), counted) if counted else None


def _answer_room(price: AnyPrice, prompt: int, left: Decimal, wanted: int) -> int:
    """How many tokens of answer `left` USD pays for after the prompt, at most `wanted`; 0 when it pays for none."""
    if price.most(prompt, wanted) <= left:
        return wanted
    start = price.most(prompt, 0)
    if start > left:
        return 0
    each = (price.most(prompt, wanted) - start) / wanted
    room = int((left - start) / each) if each else wanted
    while room > 0 and price.most(prompt, room) > left:  # rounding, or a tier of the price
        room -= max(1, room // 1000)
    return max(room, 0)


def _with_max_price(extra: dict[str, Any], price: AnyPrice, prompt: int) -> dict[str, Any]:
    """OpenRouter's own ceiling on prices: without it a request may be routed to a dearer endpoint than the one reckoned with."""
    provider = extra.get("provider") if isinstance(extra.get("provider"), dict) else {}
    once = price.most(0, 0)
    a_prompt, an_answer = (price.most(prompt, 0) - once) / prompt, price.most(0, 1_000_000) - once
    limits = {"prompt": float(a_prompt * 1_000_000), "completion": float(an_answer)}
    return {**extra, "provider": {"max_price": limits, **(provider or {})}}


async def _table_price(model_id: str, base_url: str) -> AnyPrice | None:
    """The price in OpenRouter's own list, or in the table of `genai-prices`; None where neither has one."""
    from .models.openrouter import entry_of, is_openrouter

    if is_openrouter(base_url):
        entry = await entry_of(model_id, base_url)
        if entry is not None and entry.price is not None:
            return entry.price
    elif not model_id or not _is_public(base_url):
        return None
    key = model_id, base_url
    if key not in _known:
        _known[key] = await run_in_thread(lambda: price_in_table(model_id, base_url), name="agentroute-prices")
    return _known[key]


def _is_public(base_url: str) -> bool:
    """Whether a table could know the endpoint: not this machine, nor one of the user's network."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".local", ".localhost", ".internal"))


async def _most_answer(model: Model, model_id: str) -> int:
    """Tokens an answer can have, where OpenRouter says so."""
    from .models.openrouter import entry_of, is_openrouter

    base_url = getattr(model, "base_url", "")
    if is_openrouter(base_url):
        entry = await entry_of(model_id, base_url)
        if entry is not None and entry.most_answer_tokens:
            return min(entry.most_answer_tokens, 65_536)
    return MOST_ANSWER


# ---- how long a prompt can be -------------------------------------------------------------------------------------

PER_MESSAGE = 16
"""Tokens a chat template puts around a message, at most."""
PER_PICTURE = 5_000
WITH_TOOLS = 1_000
"""Tokens of instructions that providers add to a request with tools."""


def prompt_tokens_at_most(request: LLMRequest) -> int:
    """A bound on a request's tokens: no tokenizer in use makes more tokens than there are bytes."""
    total = sum(map(_message_tokens, request.messages)) + PER_MESSAGE
    if request.tools:
        total += len(json.dumps(request.tools, default=str).encode()) + WITH_TOOLS
    if request.response_format:
        total += len(json.dumps(request.response_format, default=str).encode())
    return total


def _message_tokens(message: Message) -> int:
    total = PER_MESSAGE + _bytes(message.name or "") + (_bytes(json.dumps(message.extra, default=str)) if message.extra else 0)
    if isinstance(message.content, str):
        total += _bytes(message.content)
    elif isinstance(message.content, list):
        total += sum(_part_tokens(part) for part in message.content)
    for wire in message.tool_calls or []:
        call = ToolCall.from_wire(wire)
        total += PER_MESSAGE + _bytes(call.name) + _bytes(call.arguments_text) + _bytes(call.id)
    return total


def _part_tokens(part: Any) -> int:
    if isinstance(part, dict) and part.get("type") in ("image_url", "input_image"):
        return PER_PICTURE
    text = part.get("text") if isinstance(part, dict) else part
    return _bytes(text) if isinstance(text, str) else _bytes(json.dumps(part, default=str))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
