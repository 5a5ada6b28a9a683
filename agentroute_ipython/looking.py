"""What a variable of the notebook could be to an agent, seen without running any code of its own: by its class alone.

A proxy that answers to every name, or fails at every one, is nothing here. Whoever names it may still have it asked (`answers_to`).
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable

__all__ = [
    "BUILTIN_TYPES", "answers_to", "description_of", "function_of", "is_list_of_tools", "is_memory", "is_model", "is_policy", "is_tool", "is_type",
    "module_of", "passes", "tool_kind",
]  # fmt: skip

BUILTIN_TYPES: dict[str, type] = {kind.__name__: kind for kind in (str, int, float, bool)}
"""Those an answer can have, without being in the notebook."""
_GENERIC = (types.UnionType, types.GenericAlias, type(typing.List[int]), type(typing.Optional[int]), type(typing.Literal[1]))  # noqa: UP006, UP045
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)


def is_model(value: object) -> bool:
    return _has(value, "complete_stream")


def is_memory(value: object) -> bool:
    return _has(value, "get_messages")


def is_policy(value: object) -> bool:
    return _has(value, "compact")


def is_type(value: object) -> bool:
    return _is_class(value) or any(kind in _bases(type(value)) for kind in _GENERIC)


def is_tool(value: object) -> bool:
    """Whatever can be called, but a class."""
    return callable(value) and not _is_class(value)


def is_list_of_tools(value: object) -> bool:
    kinds = _bases(type(value))
    parts: list[object] = [*(list.__iter__(value) if list in kinds else tuple.__iter__(value) if tuple in kinds else ())]  # type: ignore[arg-type]
    return bool(parts) and all(map(is_tool, parts))


def tool_kind(value: object) -> str:
    """`tool`, `function` or `list of tools`, for what is meant to be one; empty for all else, callable or not."""
    if _is_of_ours(value):
        return "tool"
    if type(value) in _FUNCTIONS:
        return "function"
    if type(value) in (list, tuple) and value and all(tool_kind(one) in ("tool", "function") for one in value):  # type: ignore[attr-defined]
        return "list of tools"
    return ""


def module_of(value: object) -> str | None:
    """Where a function or a class was made; None for all else."""
    if type(value) is types.MethodType:
        value = value.__func__
    module: object
    if type(value) in _FUNCTIONS:
        module = value.__module__
    else:
        module = type.__dict__["__dict__"].__get__(value).get("__module__") if _is_class(value) else None
    return module if type(module) is str else None


def description_of(value: object) -> str:
    """What a function or a Tool says about itself; empty where it says nothing."""
    text: object = inspect.getattr_static(value, "description", "") if _is_of_ours(value) else value.__doc__ if type(value) in _FUNCTIONS else ""
    return text if isinstance(text, str) else ""


def function_of(value: object) -> object:
    """The function that a Tool was made from; None for all else."""
    return inspect.getattr_static(value, "fn", None) if _is_of_ours(value) else None


def answers_to(method: str, value: object) -> bool:
    """Whether an object has the method, or says so when it is asked: for what somebody has named."""
    return _has(value, method) or passes(lambda value: callable(getattr(value, method, None)) and not isinstance(value, type), value)


def passes(test: Callable[[typing.Any], object], value: object) -> bool:
    """Whether the test holds for the value of a variable. Looking at an odd object may raise anything; then it does not."""
    try:
        return bool(test(value))
    except Exception:
        return False


def _has(value: object, method: str) -> bool:
    """Whether an object, not a class, has a method of this name, as far as that is seen without asking it."""
    if _is_class(value):
        return False
    try:
        return callable(inspect.getattr_static(value, method, None))
    except Exception:
        return False


def _is_class(value: object) -> bool:
    return type in _bases(type(value))


def _is_of_ours(value: object) -> bool:
    """Whether it is a Tool. Before its module is loaded no variable can hold one."""
    tool = getattr(sys.modules.get("agentroute.tools"), "Tool", None)
    return tool is not None and tool in _bases(type(value))


def _bases(kind: type) -> tuple[type, ...]:
    """The classes a class is made of; a metaclass of the user is not asked."""
    bases: tuple[type, ...] = type.__dict__["__mro__"].__get__(kind)
    return bases
