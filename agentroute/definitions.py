"""Which definition stands behind something callable, and whether a definition was run again, as by a cell run twice."""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Iterator
from functools import partial
from types import CodeType
from typing import Any

__all__ = ["innermost", "layers", "redefined"]


def layers(function: Any) -> Iterator[Any]:
    """A callable and what is in it, outermost first: under partials, wrappers, methods and callable objects the plain function."""
    seen: set[int] = set()
    while id(function) not in seen:
        seen.add(id(function))
        yield function
        if isinstance(function, partial):
            function = function.func
        elif (inner := getattr(function, "__func__", None) or getattr(function, "__wrapped__", None)) is not None:
            function = inner
        elif not (inspect.isroutine(function) or inspect.isclass(function)):
            function = type(function).__call__


def innermost(function: Any) -> Any:
    """The last of `layers`."""
    *_, plain = layers(function)
    return plain


def redefined(before: Any, now: Any) -> bool:
    """Whether a callable is another one defined again: by a cell run twice, edited or not, or by a module loaded again.

    Two that stand in one file (or cell) are different functions, and so are two products of one factory, unless nothing in
    them differs. Functions of one name in different cells cannot be told from an edited one.
    """
    if before is now:
        return True
    first, second = innermost(before), innermost(now)
    if _address(first) != _address(second):
        return False
    old, new = getattr(first, "__code__", None), getattr(second, "__code__", None)
    if not isinstance(old, CodeType) or not isinstance(new, CodeType):
        return bool(before == now)  # built-in functions; a method of one object is a new object whenever it is taken
    if old is new:  # compiled once: one definition that has run twice, or one function in two forms
        return _alike(_given(before), _given(now))
    if old.co_filename != new.co_filename:
        return True
    if new.co_name == "<lambda>":  # a line may have several
        return old == new
    return old.co_firstlineno == new.co_firstlineno or not _both_stand(old, new)


def _address(function: Any) -> tuple[str, str]:
    return getattr(function, "__module__", None) or "", getattr(function, "__qualname__", "")


def _given(function: Any) -> list[Any]:
    """What two callables made from the same code can differ in: arguments given beforehand, objects, defaults, enclosed values."""
    found: list[Any] = []
    for layer in layers(function):
        if isinstance(layer, partial):
            found += [layer.args, layer.keywords]
        elif inspect.ismethod(layer):
            found.append(_state(layer.__self__))
        elif not inspect.isroutine(layer):
            found.append(_state(layer))
    plain = innermost(function)
    cells = plain.__closure__ or ()
    return [*found, plain.__defaults__, plain.__kwdefaults__, *(_content(cell) for cell in cells)]


def _state(value: Any) -> Any:
    """An object as what it holds, unless its class knows what makes two of them equal."""
    kind: Any = type(value)
    if inspect.isclass(value) or kind.__eq__ is not object.__eq__ or not hasattr(value, "__dict__"):
        return value
    return kind, vars(value)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return None


def _alike(before: list[Any], now: list[Any]) -> bool:
    try:
        return len(before) == len(now) and all(a is b or bool(a == b) for a, b in zip(before, now, strict=True))
    except Exception:  # arrays and the like do not say whether they are equal
        return False


def _both_stand(old: CodeType, new: CodeType) -> bool:
    """Whether both definitions are in their file as it is now; a file that was edited and loaded again has but one of them."""
    linecache.checkcache(new.co_filename)
    try:
        tree = ast.parse("".join(linecache.getlines(new.co_filename)))
    except (SyntaxError, ValueError):
        return False
    lines = {
        min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == new.co_name
    }
    return {old.co_firstlineno, new.co_firstlineno} <= lines
