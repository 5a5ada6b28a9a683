"""`{name}` in the text of a cell is filled from the notebook, once; every other brace stays as it is.

Only a plain name counts: no attribute, index, call or format. `{{name}}` gives a literal `{name}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

from agentroute.config import Secret
from agentroute.errors import ErrorConfig

__all__ = ["MAX_CHARACTERS", "interpolate"]

MAX_CHARACTERS = 100_000
"""Longest text of one value; more is surely a mistake, and an expensive one."""

_BRACES = re.compile(r"\{\{([^\W\d]\w*)\}\}|\{([^\W\d]\w*)\}")
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

    return _BRACES.sub(fill, text)


def _text_of(name: str, value: object) -> str:
    if type(value) is str:
        return _bounded(name, value)
    from agentroute.agent import Agent

    as_written = f"to send the characters themselves, write {{{{{name}}}}}"
    if isinstance(value, _NOT_DATA):
        raise ErrorConfig(f"{{{name}}} is a {type(value).__name__}, which has no place in a prompt\n{as_written}")
    if _is_secret(value):
        raise ErrorConfig(f"{{{name}}} holds a secret ({type(value).__name__}); secrets are not put into prompts\n{as_written}")
    if isinstance(value, Agent):
        raise ErrorConfig(f"{{{name}}} is an agent, which has no place in a prompt; run it and fill in its Result\n{as_written}")
    try:
        text = str(value)
    except Exception as error:
        raise ErrorConfig(f"{{{name}}} cannot be turned into text: str() raised {type(error).__name__}") from error
    return _bounded(name, text)


def _bounded(name: str, text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise ErrorConfig(f"{{{name}}} is {len(text):,} characters long; at most {MAX_CHARACTERS:,} are filled in")
    return text


def _is_secret(value: object) -> bool:
    """Our own keys and pydantic's, told by their method, so that pydantic is not imported here."""
    return isinstance(value, Secret) or callable(getattr(type(value), "get_secret_value", None))
