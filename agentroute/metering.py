"""The meter of one run: each model call is priced, and made only when the run's budgets have room for the most it can cost.

It is put into every request of the run, and `models.base.ask` hands it the call of the innermost model: so every attempt of
a retry or fallback is reserved and counted on its own.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from ._threads import run_in_thread
from .budgets import Budget, Reservation, reserve
from .errors import ErrorConfig, ErrorModel, ErrorModelRequest
from .message import LLMChunk, LLMRequest, LLMResponse, Message, TurnUsage
from .models.base import Model
from .prices import FREE, Price, TablePrice, cost_of, price_in_table

__all__ = ["Meter", "prompt_tokens_at_most"]

LEAST_ANSWER = 256
"""Tokens: an answer that has no room for as many is not asked for."""
COMFORT = 4_096
"""Tokens of answer below which a call rather waits for reserves of others to be released."""
MOST_ANSWER = 16_384
"""Tokens an answer may have under a budget where neither the user nor a table says how many."""

AnyPrice = Price | TablePrice
Plain = Callable[[Model, LLMRequest, bool], AsyncGenerator[LLMChunk, None]]

_known: dict[tuple[str, str], AnyPrice | None] = {}
"""Prices found in tables, by model id and base URL."""
_caps: dict[tuple[str, str], int] = {}
"""Tokens of answer that an endpoint was found to take at most, by model id and base URL."""


@dataclass
class _Call:
    """One attempt."""

    model: Model
    request: LLMRequest
    price: AnyPrice | None
    size: int = 0
    """Tokens of the prompt at most, were they all new."""
    reservation: Reservation | None = None
    own_cap: bool = False
    """The answer's cap is the meter's and not the user's."""


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
        self.free = False
        """Whether the last model asked charges nothing."""
        self.lost = False
        """Whether the last attempt was left or cancelled when it had begun: it may well be charged for."""
        self._before: tuple[Model, str, list[Message], int, int] | None = None  # what was sent last, its size, and how many tokens it was

    async def ask(self, model: Model, request: LLMRequest, stream: bool, plain: Plain) -> AsyncGenerator[LLMChunk, None]:
        """The chunks of one attempt, whose response tells its cost where anybody knows it.

        Raises:
            ErrorBudget: a budget has no room for it; nothing was sent.
            ErrorConfig: under a budget, something is asked for whose cost cannot be reckoned.
        """
        self.cut_at, self.lost = None, False
        call = _Call(model, request, await self._price_of(model, _model_id(request)))
        self.free = _is_free(call.price)
        while True:
            if self.budgets and not self.free:
                await self._reserve(call)
            refused: ErrorModelRequest | None = None
            async with aclosing(self._attempt(call, stream, plain)) as chunks:
                try:
                    async for chunk in chunks:
                        yield chunk
                except ErrorModelRequest as error:
                    refused = error
            if refused is None:
                return
            if not self._learned_cap(call, refused):
                raise refused

    async def _attempt(self, call: _Call, stream: bool, plain: Plain) -> AsyncGenerator[LLMChunk, None]:
        inner = _Inner(self, call)
        counted = seen = False
        self.lost = True
        try:
            async with aclosing(plain(call.model, replace(call.request, meter=inner), stream)) as chunks:
                async for chunk in chunks:
                    seen = True
                    if chunk.response is not None and not inner.used:
                        cost = await self._priced(chunk.response, call)
                        self._remember(call, chunk.response)
                        counted, self.lost = True, False
                        self._count(call, cost, answered=True)
                    yield chunk
        except ErrorModel as error:
            if not counted and not inner.used:
                counted = True
                cost = TurnUsage.from_wire(error.usage).cost_usd
                error.sent = error.sent or seen
                self._count(call, Decimal(0) if cost is None and not error.sent else cost, answered=False)
            self.lost = False
            raise
        finally:
            if inner.used:
                self.lost = False
            elif not counted:  # left or cancelled
                self._count(call, None, answered=False)

    def _count(self, call: _Call, cost: Decimal | None, *, answered: bool) -> None:
        if call.reservation is None:
            return
        if call.price is None:
            call.reservation.settle_unpriced(cost, answered=answered, model=call.request.model)
        else:
            call.reservation.settle(cost)

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

    async def _priced(self, response: LLMResponse, call: _Call) -> Decimal | None:
        """The response's cost, put into its usage where the provider did not."""
        used = TurnUsage.from_wire(response.usage)
        if used.cost_usd is not None:
            return used.cost_usd
        price, base_url = call.price, getattr(call.model, "base_url", None)
        if price is None and isinstance(base_url, str) and used.input_tokens is not None:
            price = await _table_price(response.model or "", base_url) or await _table_price(_model_id(call.request), base_url)
        cost = cost_of(price, used) if price is not None else None
        if cost is not None:
            source = "given" if isinstance(price, Price) else "table"
            response.usage = {**response.usage, "cost": str(cost), "cost_source": source}
        return cost

    # ---- reserving ------------------------------------------------------------------------------------------------

    async def _reserve(self, call: _Call) -> None:
        """Reserves the most the call can cost, and caps its answer to that."""
        for one in self.budgets:
            one.check()
        _check_reckonable(call.request)
        if call.price is None:
            call.reservation = await reserve(self.budgets, self._unpriced, Decimal(0))
            return
        call.size = _size(call.model, call.request)
        prompt = self._prompt_tokens(call)
        asked, count = _asked(call.request), _answers(call.request)
        most = asked or await _most_answer(call.model, call.request, prompt)
        least = min(LEAST_ANSWER, most)
        price, cap = call.price, 0

        def amount(left: Decimal, others: int) -> Decimal | None:
            nonlocal cap
            room = _answer_room(price, prompt, left, most, count)
            if room < least or (others and room < (most if asked is not None else min(COMFORT, most))):
                return None
            if asked is None:  # a part of what is left: calls beside this one want some, too
                share = _answer_room(price, prompt, left / (2 + others), most, count)
                room = min(room, max(COMFORT, share))
            cap = room
            return price.most(prompt, cap * count)

        call.reservation = await reserve(self.budgets, amount, price.most(prompt, (asked or least) * count))
        call.own_cap = asked is None
        if asked is None or cap < asked:
            self.cut_at = cap
        call.request = _capped(call.request, cap)
        from .models.openrouter import is_openrouter

        if is_openrouter(getattr(call.model, "base_url", "")):
            call.request = replace(call.request, extra=_with_max_price(call.request.extra, price, prompt))

    def _unpriced(self, left: Decimal, others: int) -> Decimal | None:
        """Of a call whose price nobody knows: all that is left, so that one at a time shows what it costs; later twice
        the dearest so far."""
        if left <= 0:
            return None if others or any(one.limit for one in self.budgets) else Decimal(0)
        dearest = max(one._dearest for one in self.budgets)
        if not dearest:
            return None if others else left
        return min(left, 2 * dearest)

    def _learned_cap(self, call: _Call, error: ErrorModelRequest) -> bool:
        """Whether the endpoint has refused a cap that only a budget has set; then the next attempt has a smaller one."""
        cap, said = call.request.max_tokens, str(error)
        if not call.own_cap or cap is None or cap <= LEAST_ANSWER:
            return False
        if not any(word in said for word in ("max_tokens", "max_completion_tokens", "completion", "context")):
            return False
        _caps[_model_id(call.request), str(getattr(call.model, "base_url", ""))] = max(LEAST_ANSWER, cap // 4)
        call.request = replace(call.request, max_tokens=None)
        return True

    def _prompt_tokens(self, call: _Call) -> int:
        """A bound: what was sent before counts as the provider has counted it, what is new by its bytes."""
        if self._before is not None:
            model, model_id, sent, size, counted = self._before
            now = call.request.messages
            same = model is call.model and model_id == _model_id(call.request) and len(sent) <= len(now)
            if same and all(a is b for a, b in zip(sent, now, strict=False)):
                return min(call.size, counted + max(0, call.size - size) + PER_MESSAGE * (1 + len(now) - len(sent)))
        return call.size

    def _remember(self, call: _Call, response: LLMResponse) -> None:
        counted = TurnUsage.from_wire(response.usage).input_tokens
        known = counted is not None and counted > 0 and call.size > 0
        self._before = (call.model, _model_id(call.request), list(call.request.messages), call.size, counted or 0) if known else None


class _Inner:
    """The meter as the asked model's own request has it: where that model is a layer after all, what it asks is metered in
    its place."""

    def __init__(self, meter: Meter, call: _Call) -> None:
        self._meter, self._call = meter, call
        self.used = False

    def ask(self, model: Model, request: LLMRequest, stream: bool, plain: Plain) -> AsyncGenerator[LLMChunk, None]:
        self.used = True
        if self._call.reservation is not None:
            self._call.reservation.settle(Decimal(0))
        asked = replace(request, max_tokens=None) if self._call.own_cap and request.max_tokens == self._call.request.max_tokens else request
        return self._meter.ask(model, asked, stream, plain)


def _is_free(price: AnyPrice | None) -> bool:
    return price is not None and not price.most(1_000, 1_000)


def _model_id(request: LLMRequest) -> str:
    """The model that will answer: `extra` is merged over the request."""
    given = request.extra.get("model")
    return given if isinstance(given, str) else request.model


_CAPS = ("max_tokens", "max_completion_tokens")
_NOT_RECKONED = ("models", "plugins", "web_search_options", "service_tier")


def _check_reckonable(request: LLMRequest) -> None:
    """Raises ErrorConfig for what may cost more than the price of its tokens."""
    strange = [name for name in _NOT_RECKONED if request.extra.get(name)]
    if strange or ":online" in _model_id(request):
        what = f"extra[{strange[0]!r}]" if strange else f"the model {_model_id(request)!r}"
        raise ErrorConfig(f"under max_cost or a budget {what} cannot be used: what it costs is not known beforehand; leave one of them out")
    for message in request.messages:
        for part in message.content if isinstance(message.content, list) else ():
            if _is_address(part):
                raise ErrorConfig(
                    f"under max_cost or a budget a {part['type']} cannot be given by its address: nobody knows how large it is; give its data"
                )


def _is_address(part: Any) -> bool:
    """Whether a part stands for something unseen that is no picture."""
    if not isinstance(part, dict) or part.get("type") in ("text", "image_url", "input_image"):
        return False
    return any(text.startswith(("http://", "https://")) for value in part.values() for text in (value.values() if isinstance(value, dict) else [value]) if isinstance(text, str))


def _asked(request: LLMRequest) -> int | None:
    """The user's own cap on the answer."""
    given = [request.extra.get(name) for name in _CAPS]
    caps = [cap for cap in [*given, request.max_tokens] if isinstance(cap, int) and not isinstance(cap, bool) and cap > 0]
    return min(caps, default=None)


def _answers(request: LLMRequest) -> int:
    """How many answers are asked for, and paid."""
    counts = [request.extra.get(name) for name in ("n", "best_of")]
    return max([1, *(count for count in counts if isinstance(count, int))])


def _capped(request: LLMRequest, cap: int) -> LLMRequest:
    extra = {name: value for name, value in request.extra.items() if name not in _CAPS}
    return replace(request, max_tokens=cap, extra=extra)


def _answer_room(price: AnyPrice, prompt: int, left: Decimal, wanted: int, count: int) -> int:
    """How many tokens each of `count` answers may have for `left` USD after the prompt, at most `wanted`."""
    if price.most(prompt, wanted * count) <= left:
        return wanted
    start = price.most(prompt, 0)
    if start > left:
        return 0
    each = (price.most(prompt, wanted * count) - start) / wanted
    room = int((left - start) / each) if each else wanted
    while room > 0 and price.most(prompt, room * count) > left:  # rounding, or a tier of the price
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


async def _most_answer(model: Model, request: LLMRequest, prompt: int) -> int:
    """Tokens an answer can have: what the endpoint takes, as far as that is known, and what its context has room for."""
    from .models.openrouter import entry_of, is_openrouter

    base_url, model_id = str(getattr(model, "base_url", "")), _model_id(request)
    most, context = MOST_ANSWER, getattr(model, "context_tokens", None)
    if is_openrouter(base_url):
        entry = await entry_of(model_id, base_url)
        if entry is not None:
            most = min(entry.most_answer_tokens or MOST_ANSWER, 65_536)
            context = context or entry.context_tokens
    if isinstance(context, int):
        most = min(most, max(LEAST_ANSWER, context - prompt // 2))  # half: a bound by bytes is some four times too large
    return min(most, _caps.get((model_id, base_url), most))


# ---- how long a prompt can be -------------------------------------------------------------------------------------

PER_MESSAGE = 16
"""Tokens a chat template puts around a message, at most."""
PER_PICTURE = 17_000
PER_PICTURE_OF_SMALL_MODELS = 40_000
"""Tokens: some small models count a picture as so many, to charge as much for it as large ones do."""
WITH_TOOLS = 1_000
"""Tokens of instructions that providers add to a request with tools."""


def _size(model: Model, request: LLMRequest) -> int:
    """Tokens of the request at most: of the bytes that are really sent, where the model can say them."""
    bytes_of = getattr(model, "body_of", None)
    if not callable(bytes_of):
        return prompt_tokens_at_most(request)
    return len(bytes_of(request)) + _beside_text(request)


def prompt_tokens_at_most(request: LLMRequest) -> int:
    """A bound on a request's tokens: no tokenizer in use makes more tokens than there are bytes."""
    wire = [message.to_dict() for message in request.messages]
    given = [wire, request.tools or [], request.response_format or {}, request.extra]
    return sum(len(json.dumps(one, ensure_ascii=False, default=str).encode("utf-8", "replace")) for one in given) + _beside_text(request)


def _beside_text(request: LLMRequest) -> int:
    """What pictures, templates and tools take, less the bytes of pictures, which are not read as text."""
    pictures = [part for message in request.messages if isinstance(message.content, list) for part in message.content if _is_picture(part)]
    small = any(word in _model_id(request).lower() for word in ("mini", "nano"))
    data = sum(len(text) for part in pictures for text in _texts_in(part) if text.startswith("data:"))
    each = PER_PICTURE_OF_SMALL_MODELS if small else PER_PICTURE
    return each * len(pictures) - data + PER_MESSAGE * (1 + len(request.messages)) + (WITH_TOOLS if request.tools else 0)


def _is_picture(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("image_url", "input_image")


def _texts_in(part: dict[str, Any]) -> list[str]:
    inside = part.get("image_url")
    texts = [inside.get("url")] if isinstance(inside, dict) else [inside]
    return [text for text in texts if isinstance(text, str)]
