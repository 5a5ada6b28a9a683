"""`{name}` in the text of a cell is filled from the notebook, once; every other brace stays as it is.

Only a plain name counts: no attribute, index, call or format. `{{name}}` gives a literal `{name}`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from agentroute.config import Secret
from agentroute.errors import ErrorConfig

from .agents import kind_of
from .looking import passes

__all__ = ["BRACES", "MAX_CHARACTERS", "interpolate"]

MAX_CHARACTERS = 100_000
"""Longest text of one value; more is surely a mistake, and an expensive one."""

BRACES = re.compile(r"\{\{([^\W\d]\w*)\}\}|\{([^\W\d]\w*)\}")
_NOT_DATA = (ModuleType, FunctionType, BuiltinFunctionType, MethodType, type)


def interpolate(text: str, names: Mapping[str, object]) -> str:
    """`text` with `{name}` replaced by the text of `names[name]` where that exists; what was filled in is not read again.

    Raises:
        ErrorConfig: a value has no text that belongs in a prompt: a secret, an agent, a function, class or module,
            one longer than MAX_CHARACTERS, or one whose `str` fails. The value itself is not in the message.
    """

    def fill(match: re.Match[str]) -> str:
        literal, name = match.groups()
        if literal is not None:
            return "{" + literal + "}" if literal.isidentifier() else match[0]
        return _text_of(name, names[name]) if name in names else match[0]

    return BRACES.sub(fill, text)


def _text_of(name: str, value: object) -> str:
    if type(value) is str:
        return _bounded(name, value)
    from agentroute.agent import Agent

    as_written = f"to send the characters themselves, write {{{{{name}}}}}"
    if passes(lambda value: isinstance(value, _NOT_DATA), value):
        raise ErrorConfig(f"{{{name}}} is {kind_of(value)}, which has no place in a prompt\n{as_written}")
    if passes(_is_secret, value):
        raise ErrorConfig(f"{{{name}}} holds a secret ({type(value).__name__}); secrets are not put into prompts\n{as_written}")
    if passes(lambda value: isinstance(value, Agent), value):
        raise ErrorConfig(f"{{{name}}} is an agent, which has no place in a prompt; run it and fill in its Result\n{as_written}")
    try:
        text = _whole_table(name, value) or str(value)
    except ErrorConfig:
        raise
    except Exception as error:
        raise ErrorConfig(f"{{{name}}} cannot be turned into text: str() raised {type(error).__name__}") from error
    return _bounded(name, text)


def _whole_table(name: str, value: Any) -> str | None:
    """All of a table or array, whose `str` is shortened; None when the value is neither. Told by its class, so that
    pandas and numpy are not imported here."""
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(value).__mro__}
    if not kinds & {"pandas.DataFrame", "pandas.Series", "numpy.ndarray"}:
        return None
    array = "numpy.ndarray" in kinds
    part = "[:20]" if array else ".head(20).to_csv()"
    hint = f"fill in a part of it: part = {name}{part}, then {{part}}"
    size = " × ".join(f"{length:,}" for length in value.shape)
    too_long = f"{{{name}}} has {size} values, more than the {MAX_CHARACTERS:,} characters that are filled in\n{hint}"
    if value.size > MAX_CHARACTERS:
        raise ErrorConfig(too_long)
    if array:
        text = sys.modules["numpy"].array2string(value, threshold=value.size + 1)
    elif "pandas.Series" in kinds:
        text = value.to_string()
    else:
        numbered = type(value.index).__name__ == "RangeIndex" and value.index.name is None
        text = value.to_csv(index=not numbered, lineterminator="\n").rstrip("\n")
    if len(text) > MAX_CHARACTERS:
        raise ErrorConfig(too_long)
    return str(text)


def _bounded(name: str, text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise ErrorConfig(f"{{{name}}} is {len(text):,} characters long; at most {MAX_CHARACTERS:,} are filled in")
    return text


def _is_secret(value: object) -> bool:
    """Our own keys and pydantic's, told by their method, so that pydantic is not imported here."""
    return isinstance(value, Secret) or callable(getattr(type(value), "get_secret_value", None))
