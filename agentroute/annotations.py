"""Type hints: resolved where a function was defined, and put into forms pydantic validates JSON into."""

from __future__ import annotations

import collections.abc
import contextlib
import enum
import functools
import inspect
import operator
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from .definitions import innermost

__all__ = ["known", "namespace_of", "resolved"]


def namespace_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Local names its hints use that only the functions around it know; found while those still run.

    Only names that occur in hints given as text are kept, so that no large local outlives its function.
    """
    target = innermost(function)
    code = getattr(target, "__code__", None)
    if code is None or "<locals>" not in target.__qualname__:
        return {}
    hints = [text for hint in getattr(target, "__annotations__", {}).values() for text in _texts(hint)]
    wanted = {name for text in hints for name in re.findall(r"[^\W\d]\w*", text)}
    if not wanted:
        return {}
    found: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, target.__closure__ or (), strict=True):
        if name in wanted:
            with contextlib.suppress(ValueError):  # a cell that is still empty
                found[name] = cell.cell_contents
    frame = inspect.currentframe()
    while frame is not None:
        if code in frame.f_code.co_consts:  # this frame defined the function, or the one around it
            found = {name: value for name, value in frame.f_locals.items() if name in wanted} | found
            code = frame.f_code
        frame = frame.f_back
    return found


def _texts(hint: Any) -> list[str]:
    """The parts of a hint that are still text."""
    if isinstance(hint, str):
        return [hint]
    if isinstance(hint, typing.ForwardRef):
        return [hint.__forward_arg__]
    return [text for part in typing.get_args(hint) for text in _texts(part)]


def resolved(hint: Any, function: Callable[..., Any], names: Mapping[str, Any]) -> Any:
    """A hint with names in place of text. Whatever goes wrong with a user's text is raised as it is."""
    target = innermost(function)
    module = sys.modules.get(getattr(target, "__module__", None) or "")
    scope = getattr(target, "__globals__", None) or getattr(module, "__dict__", {})
    holder = types.SimpleNamespace(__annotations__={"hint": hint}, __type_params__=getattr(target, "__type_params__", ()))
    return typing.get_type_hints(holder, scope, dict(names), include_extras=True)["hint"]


# ---- forms ----------------------------------------------------------------------------------------------------------


def known(hint: Any) -> Any:
    """The hint with what pydantic refuses, or does not read from JSON, put into a form it does.

    `typing.TypedDict` before Python 3.12; Enum members inside Literal; LiteralString; Iterable, which pydantic
    validates only as it is consumed, so that a wrong item would not be told to the model.
    """
    return _known(hint, {})


def _known(hint: Any, made: dict[Any, Any]) -> Any:
    if hint is typing.LiteralString:
        return str
    if sys.version_info < (3, 12) and typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        return made[hint] if hint in made else _typed_dict(hint, made)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal and any(isinstance(arg, enum.Enum) for arg in args):
        return _literal(args)
    if origin is typing.Annotated:
        inner = _known(args[0], made)
        return hint if inner is args[0] else typing.Annotated[(inner, *hint.__metadata__)]
    if not args or origin in (typing.Literal, collections.abc.Callable):
        return list[Any] if hint in (typing.Iterable, collections.abc.Iterable) else hint
    changed = tuple(_known(arg, made) for arg in args)
    if origin is collections.abc.Iterable:
        return types.GenericAlias(list, changed)
    if all(new is old for new, old in zip(changed, args, strict=True)):
        return hint
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, changed)
    copied: Any = hint.copy_with(changed) if hasattr(hint, "copy_with") else types.GenericAlias(origin, changed)
    return copied


def _typed_dict(kind: Any, made: dict[Any, Any]) -> Any:
    """The same class as typing_extensions would have made it."""
    import typing_extensions

    hints = typing.get_type_hints(kind, include_extras=True)
    copy = made[kind] = typing_extensions.TypedDict(kind.__name__, {})  # type: ignore[operator]
    required = {name for name in hints if _is_required(hints[name], name in kind.__required_keys__)}
    copy.__annotations__ = {name: _known(_bare(hint), made) for name, hint in hints.items()}
    copy.__required_keys__ = frozenset(required)
    copy.__optional_keys__ = frozenset(hints.keys() - required)
    copy.__total__, copy.__doc__, copy.__module__ = kind.__total__, kind.__doc__, kind.__module__
    if (config := getattr(kind, "__pydantic_config__", None)) is not None:
        copy.__pydantic_config__ = config
    return copy


def _is_required(hint: Any, otherwise: bool) -> bool:
    origin = typing.get_origin(hint)
    return True if origin is typing.Required else False if origin is typing.NotRequired else otherwise


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) in (typing.Required, typing.NotRequired) else hint


def _literal(args: tuple[Any, ...]) -> Any:
    """Literal of Enum members: read from their values, given as members."""
    import pydantic

    members = {arg.value: arg for arg in args if isinstance(arg, enum.Enum)}
    values = tuple(arg.value if isinstance(arg, enum.Enum) else arg for arg in args)

    def value_of(given: Any) -> Any:
        return given.value if isinstance(given, enum.Enum) and given in args else given

    def member_of(value: Any) -> Any:
        return members.get(value, value)

    return typing.Annotated[typing.Literal[values], pydantic.BeforeValidator(value_of), pydantic.AfterValidator(member_of)]
