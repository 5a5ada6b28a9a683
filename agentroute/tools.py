"""Tools: functions a model may call. Making them from functions, running them, and turning results into text."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial, update_wrapper
from types import EllipsisType
from typing import Any, overload

from ._threads import run_in_thread
from .annotations import namespace_of
from .context import Context
from .definitions import layers
from .displayed import Displayed
from .errors import ErrorConfig
from .message import ToolCall
from .result_text import MAX_RESULT, result_text
from .schema import Invalid, Signature, TypeSchema, docstring_summary, signature_of

__all__ = ["Approval", "Approve", "Deny", "Tool", "check_function", "result_text", "tool"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

Approval = bool | Callable[[Context, dict[str, Any]], bool]
"""Whether a call needs approval: always, never, or as a function of (ctx, arguments) says."""


@dataclass(frozen=True)
class Deny:
    """An approval handler's no: the model is told `reason` and goes on; with `interrupt` the run ends here instead.

    A run that ends so returns a Result with `interrupted` True and `output` None.
    """

    reason: str = ""
    interrupt: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str):
            raise ErrorConfig(f"Deny: reason must be a text, got {type(self.reason).__name__}")
        if not isinstance(self.interrupt, bool):
            raise ErrorConfig(f"Deny: interrupt must be True or False, got {self.interrupt!r:.80}")


Approve = Callable[[Context, ToolCall], "bool | str | Deny | Awaitable[bool | str | Deny]"]
"""Decides on a call that needs approval, plain or async: True runs it; False, a reason (a text) or Deny denies it."""


def check_function(what: str, value: Any, *arguments: str, instead: str = "") -> None:
    """Raises ErrorConfig unless `value` can be called with so many positional arguments. `instead`: what else it may be."""
    expected = f"{what} must be {instead}a function of ({', '.join(arguments)})"
    if not callable(value):
        raise ErrorConfig(f"{expected}, got {type(value).__name__}")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # of some built-in functions nobody knows
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        takes = ", ".join(signature.parameters)
    else:
        return
    raise ErrorConfig(f"{expected}; this one takes ({takes})")


class Tool(Displayed):
    """A function offered to a model. It stays callable as the function it was made from.

    Args:
        name: letters, digits, `_` and `-`, at most 64 of them: what providers accept.
        params_schema: JSON Schema of the arguments; left out, it is made from the signature when first needed, and
            arguments are then validated and coerced by it.
        takes_context: whether `fn` takes the Context first; found out by itself when `params_schema` is left out.
        needs_approval: True, or a function of (ctx, arguments) that says whether this call does. Such a call runs only
            when the agent's `approve` says so; without one it is denied.
        timeout: seconds one call may take; None sets no limit.

    Raises:
        ErrorConfig: a name providers refuse, something that is not callable, an impossible timeout.
    """

    def __init__(
        self,
        name: str,
        description: str,
        params_schema: dict[str, Any] | None,
        fn: Callable[..., Any],
        takes_context: bool = False,
        needs_approval: Approval = False,
        timeout: float | None = None,
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ErrorConfig(f"tool name {name!r}: use 1 to 64 letters, digits, '_' or '-' (give one with name=…)")
        if not callable(fn) and not isinstance(fn, classmethod):
            raise ErrorConfig(f"tool {name!r}: expected a function, got {type(fn).__name__}")
        if not isinstance(description, str):
            raise ErrorConfig(f"tool {name!r}: description must be a text, got {type(description).__name__}")
        if params_schema is not None and not isinstance(params_schema, dict):
            raise ErrorConfig(f"tool {name!r}: params_schema must be a dictionary (JSON Schema of an object), got {type(params_schema).__name__}")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf")):
            raise ErrorConfig(f"tool {name!r}: timeout must be a positive number of seconds, not {timeout!r}")
        if not isinstance(needs_approval, bool):
            check_function(f"tool {name!r}: needs_approval", needs_approval, "ctx", "arguments", instead="True, False or ")
        self.name = name
        self.description = description
        self.fn = fn
        self.needs_approval = needs_approval
        self.timeout = timeout
        self._given_schema = params_schema
        self._takes_context = takes_context
        self._names = namespace_of(fn) if params_schema is None else {}
        update_wrapper(self, fn, updated=())

    @classmethod
    def from_function(
        cls,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        needs_approval: Approval | EllipsisType = ...,
        timeout: float | EllipsisType | None = ...,
    ) -> Tool:
        """A tool from a function; name and description default to its name and docstring.

        A Tool is taken as it is. With options it is copied, and keeps its own where one is left out (`...`; for name and
        description also None); so does what was made of a Tool by a decorator or `partial`.
        """
        if not callable(fn) and not isinstance(fn, classmethod):
            option = fn if isinstance(fn, str) else "…"
            raise ErrorConfig(f"a tool is made from a function, got {fn!r:.80}; options go by name, such as tool(name={option!r})")
        if inspect.isfunction(fn) and fn.__module__ == __name__:
            raise ErrorConfig("tool(…) with options is a decorator and waits for its function; write tool(…)(function)")
        texts = {"name": name, "description": description}
        rules = {"needs_approval": needs_approval, "timeout": timeout}
        given: dict[str, Any] = {option: text for option, text in texts.items() if text is not None}
        given |= {option: rule for option, rule in rules.items() if rule is not ...}
        inner = next((layer for layer in layers(fn) if isinstance(layer, Tool)), None)
        if inner is not None and inner is fn:
            return inner._changed(**given) if given else inner
        if inner is not None:
            return inner._changed(**{"fn": fn, "params_schema": None, "takes_context": False, **given})
        target = fn.func if isinstance(fn, partial) else fn
        given.setdefault("name", getattr(target, "__name__", None) or type(target).__name__)
        made = cls(**{"params_schema": None, "fn": fn, "description": "", **given})
        if description is None:
            made.description = docstring_summary(fn)
        return made

    def _changed(self, **changes: Any) -> Tool:
        """A copy with other constructor arguments."""
        own: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "params_schema": self._given_schema,
            "fn": self.fn,
            "takes_context": self._takes_context,
            "needs_approval": self.needs_approval,
            "timeout": self.timeout,
        }
        made = Tool(**{**own, **changes})
        made._names = self._names  # what its hints name may be local to a function that has returned
        return made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        known = self.__dict__  # one whose constructor has failed must still be printable in a traceback
        parts = [repr(known.get("name")), *([f"parameters=[{', '.join(names)}]"] if (names := self._parameter_names()) else [])]
        if approval := known.get("needs_approval"):
            parts.append(f"needs_approval={True if approval is True else getattr(approval, '__name__', '…')}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def _parameter_names(self) -> list[str]:
        """What a model may give; empty where that cannot be told."""
        try:
            if self._given_schema is not None:
                return list(map(str, self._given_schema.get("properties", ())))
            return list(signature_of(self.fn, self.name, self._names).parameters)
        except Exception:  # a repr never raises
            return []

    @cached_property
    def _signature(self) -> Signature:
        return signature_of(self.fn, self.name, self._names)

    @cached_property
    def _arguments(self) -> TypeSchema:
        return self._signature.build()

    @property
    def params_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments, an object."""
        if self._given_schema is not None:
            return self._given_schema
        schema = self._arguments.schema
        return schema if "properties" in schema else {**schema, "properties": {}}

    @property
    def takes_context(self) -> bool:
        return self._takes_context if self._given_schema is not None else self._signature.context is not None

    def to_wire(self) -> dict[str, Any]:
        function = {"name": self.name, "description": self.description, "parameters": self.params_schema}
        if not self.description:
            del function["description"]
        return {"type": "function", "function": function}

    def parse(self, arguments: str) -> Any:
        """Validated arguments from the JSON text of a call, as `invoke` takes them.

        Raises:
            Invalid: they do not fit; the message is for the model.
        """
        if self._given_schema is None:
            return self._arguments.validate_json(arguments or "{}")
        try:
            values = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise Invalid(f"not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise Invalid(f"expected an object of arguments, got {type(values).__name__}")
        return values

    def values(self, arguments: Any) -> dict[str, Any]:
        """What the function will receive for arguments that `parse` has accepted, its own defaults included."""
        return dict(arguments) if self._given_schema is not None else self._signature.values(arguments)

    async def invoke(self, args: Any, *, ctx: Context) -> Any:
        """Runs the function and returns what it returns, of an async generator a list. `args` is a dictionary, or what `parse` gave.

        Async functions run as they are; others in a thread, so that the event loop goes on. A thread cannot be
        stopped: after the timeout it is abandoned.

        Raises:
            Invalid: the arguments do not fit. TimeoutError: the tool's timeout. Whatever the function raises.
        """
        return await self._within_timeout(args, ctx, lambda value: value)

    async def told(self, args: Any, *, ctx: Context) -> str:
        """As `invoke`, but what a model is told (`result_text`); long results are turned into text beside the event loop."""
        text: str = await self._within_timeout(args, ctx, result_text)
        return text

    async def _within_timeout(self, args: Any, ctx: Context, finish: Callable[[Any], Any]) -> Any:
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                return await self._invoke(args, ctx, finish)
        except TimeoutError:
            if not limit.expired():
                raise  # the function's own
        raise TimeoutError(f"{self.name} took longer than {self.timeout:g} s and was stopped")

    async def _invoke(self, args: Any, ctx: Context, finish: Callable[[Any], Any]) -> Any:
        name = f"agentroute-tool-{self.name}"
        if _is_async(self.fn):
            positional, keywords = self._bind(args, ctx)
            value = await self.fn(*positional, **keywords)
        else:
            positional, keywords = self._bind(args, ctx.for_thread(asyncio.get_running_loop()))

            def work() -> tuple[Any, bool]:
                value = self.fn(*positional, **keywords)
                later = inspect.isawaitable(value) or isinstance(value, AsyncIterator)
                return (value, False) if later else (finish(value), True)

            value, finished = await run_in_thread(work, name=name)
            if finished:
                return value
            if inspect.isawaitable(value):
                value = await value
        if isinstance(value, AsyncIterator):
            value = await _collected(value)
        if isinstance(value, str | int | float | None):
            return finish(value)
        return await run_in_thread(lambda: finish(value), name=name)

    def __get__(self, owner: Any, kind: type | None = None) -> Tool:
        """A tool made of a method is a tool of its object, of a class method one of its class."""
        method = owner is not None and inspect.isfunction(self.fn) and next(iter(inspect.signature(self.fn).parameters), "") == "self"
        if not method and not isinstance(self.fn, classmethod):
            return self
        return self._changed(fn=self.fn.__get__(owner, kind))

    def _bind(self, args: Any, ctx: Context) -> tuple[list[Any], dict[str, Any]]:
        if self._given_schema is not None:
            return ([ctx] if self._takes_context else []), dict(args)
        if isinstance(args, dict):
            args = self._arguments.validate(args)
        return self._signature.bind(args, ctx)


async def _collected(items: AsyncIterator[Any]) -> list[Any]:
    """What an async generator yields: as much of it as can be shown, because it may have no end."""
    found: list[Any] = []
    async with aclosing(items) if hasattr(items, "aclose") else nullcontext():  # type: ignore[type-var]
        async for item in items:
            found.append(item)
            if len(found) > MAX_RESULT // 2:
                break
    return found


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    if asyncio.iscoroutinefunction(function):
        return True
    return not inspect.isroutine(function) and asyncio.iscoroutinefunction(type(function).__call__)


@overload
def tool(fn: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    fn: None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    needs_approval: Approval | EllipsisType = ...,
    timeout: float | EllipsisType | None = ...,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    needs_approval: Approval | EllipsisType = ...,
    timeout: float | EllipsisType | None = ...,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Makes a function a Tool; used bare (`@tool`) or with options (`@tool(timeout=5)`). What is one already, keeps its options."""

    def make(function: Callable[..., Any]) -> Tool:
        return Tool.from_function(
            function, name=name, description=description, needs_approval=needs_approval, timeout=timeout
        )

    return make if fn is None else make(fn)
