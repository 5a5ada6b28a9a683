"""Keys: how one is held, which this process holds, and texts without them. Reads the environment, and no file."""

from __future__ import annotations

import json
import os
import re
import weakref
from base64 import b64decode
from collections.abc import Iterable
from typing import Any, NoReturn, Protocol, TypeVar
from urllib.parse import unquote

from .errors import ErrorConfig

__all__ = ["START", "VARIABLES", "Secret", "SecretLike", "keyless_repr", "keys_in_use", "without_credentials", "without_keys"]

VARIABLES: dict[str, tuple[str, ...]] = {
    "openrouter": ("AGENTROUTE_API_KEY", "OPENROUTER_API_KEY"),
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "google": ("GOOGLE_API_KEY",),
}
"""The environment variables of each provider's key, the first to be used first."""


class SecretLike(Protocol):
    """A key in somebody else's wrapping, such as pydantic's SecretStr."""

    def get_secret_value(self) -> str: ...


class Secret:
    """A key that shows itself only when asked by `reveal()`: not in repr, str, format, pickles or tracebacks.

    Raises:
        ErrorConfig: the key holds characters that no HTTP header may carry; the message does not show it.
    """

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: str | Secret | SecretLike) -> None:
        self._value = ""
        _living[id(self)] = self
        if isinstance(value, Secret):
            value = value.reveal()
        elif not isinstance(value, type) and callable(getattr(value, "get_secret_value", None)):
            value = value.get_secret_value()  # type: ignore[union-attr]
        if not isinstance(value, str):
            kind, value = type(value).__name__, ""
            raise ErrorConfig(f"api_key must be a str, not {kind}")
        self._value = value.strip()
        if any(not "!" <= character <= "~" for character in self._value):
            self._value = value = ""  # tracebacks may show local variables
            raise ErrorConfig("api_key holds spaces, control or non-ASCII characters (not shown here); copy it again")

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return "Secret(set)" if self._value else "Secret(empty)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: keys do not go into files")

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __copy__(self) -> Secret:
        return self


_living: weakref.WeakValueDictionary[int, Secret] = weakref.WeakValueDictionary()
SHORTEST_KEY = 12
"""Characters: what is shorter may well be a word (`ollama` is Ollama's)."""
SHORTEST_PART = 4
"""Characters of a text in which something may have to be struck out."""


def keys_in_use() -> set[str]:
    """The keys this process holds: those of its models and of the environment."""
    found = set(_keys_of_environment())
    for secret in list(_living.values()):
        found.update(_keys_of(secret.reveal()))
    return {key for key in found if len(key) >= SHORTEST_KEY}


_NAMES = tuple(variable for variables in VARIABLES.values() for variable in variables)
_INNER: tuple[str | bytes, ...] = _NAMES if os.name == "nt" else tuple(os.fsencode(name) for name in _NAMES)
_known: tuple[tuple[Any, ...], tuple[str, ...]] = (), ()
"""The values of these variables, and the keys in them, when somebody asked last."""


def _keys_of_environment() -> tuple[str, ...]:
    """As it is now. Each text that is shown asks, so the dictionary inside `os.environ` is, where there is one: the outer one
    takes some microseconds for each variable, most for one that is not set."""
    global _known
    environment: Any = os.environ
    inner = getattr(environment, "_data", None)
    values = tuple(map(inner.get, _INNER)) if isinstance(inner, dict) else tuple(map(environment.get, _NAMES))
    known = _known
    if values != known[0]:
        texts = (os.fsdecode(value) for value in values if value)
        _known = known = values, tuple(text.strip() for text in texts)
    return known[1]


def _keys_of(secret: str) -> list[str]:
    """The key that it is; of an address with a login, what in it may be a key: user, password, values of the query."""
    if "://" not in secret:
        return [secret]
    logins = [part for login in re.findall(r"//([^/\s]+)@", secret) for part in login.split(":")]
    parts = [*logins, *re.split("[?&#=]", secret)[1:]]
    return [*parts, *map(unquote, parts)]


def without_keys(text: str, keys: Iterable[str], *, begun: bool = True) -> str:
    """The text with every key struck out, also where it is written with JSON escapes, or only `begun` (8 characters on)."""
    keys = [key for key in keys if len(key) >= 4]
    if "\\u" in text:
        plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)
        text = plain if any(key[:8] in plain for key in keys) else text
    for key in keys:
        text = text.replace(key, "[key]")
        while begun and len(key) > 8 and (at := text.find(key[:8])) >= 0:
            length = next((n for n in range(len(key), 8, -1) if text.startswith(key[:n], at)), 8)
            text = f"{text[:at]}[key]{text[at + length :]}"
    return text


_MADE = (
    r"(?:gsk_|xai-|pplx-|hf_|gh[opsur]_)[A-Za-z0-9]{18,}|glpat-[-_A-Za-z0-9]{18,}|github_pat_\w{22,}|AIza[-_A-Za-z0-9]{30,}|AKIA[A-Z0-9]{16}"
    r"|[srp]k_(?:live|test)_[A-Za-z0-9]{16,}|sk_[0-9a-f]{40,}|[sp]k-lf-[0-9a-f-]{36}|sk-[-_A-Za-z0-9]{18,}"
)
START = r"(?:(?<![A-Za-z0-9])|(?<=\\[abfnrtv])|(?<=\\x[0-9a-fA-F]{2})|(?<=\\u[0-9a-fA-F]{4})|(?<=\\U[0-9a-fA-F]{8}))"
"""Pattern of where a word begins, also behind a character written as an escape, as JSON and `repr` write line ends."""
_HEADER = r"""authorization\\*["']?\s*[:=]\s*\\*["']?(?:(?:bearer|basic|token)\s+)?|bearer\s+|basic\s+"""
_CREDENTIAL = rf"{START}(?P<made>{_MADE})|(?i:(?:\b|{START})(?P<head>{_HEADER}))(?P<token>[A-Za-z0-9+/=._~-]{{12,}})"
"""Keys as the large providers make them, and authorisation headers."""
_SIGNS = ("sk-", "sk_", "rk-", "rk_", "pk-", "pk_", "xai-", "pplx-", "hf_", "gho_", "ghp_", "ghs_", "ghu_", "ghr_", "glpat-", "github_pat_", "AIza", "AKIA")
_WORDS = ("bearer", "basic", "authorization")
"""What a text has in it that may hold one; looked for first, as it is thirty times faster than the pattern."""


def without_credentials(text: str, held: Iterable[str] | None = None) -> str:
    """The text with the keys this process holds, and whatever looks like a key or an authorisation header, struck out.

    What was JSON before is JSON then. `held`: those keys, where somebody has asked for them already.
    """
    if len(text) < SHORTEST_PART:
        return text
    keys = [key for key in (keys_in_use() if held is None else held) if len(key) >= 4 and (key[:8] in text or "\\u" in text)]
    struck = _struck_out(text, keys)
    if struck != text and text.lstrip()[:1] in ("{", "[", '"'):
        try:
            found = _inside(json.loads(text), keys)
            struck = json.dumps(found, ensure_ascii=False)
            if not struck.isascii():
                struck.encode("utf-8")
        except UnicodeEncodeError:  # half characters
            struck = json.dumps(found)
        except (ValueError, RecursionError):
            pass
    return struck


def _struck_out(text: str, keys: list[str]) -> str:
    if keys:
        text = without_keys(text, keys, begun=False)
    lower = text.lower()
    if any(sign in text for sign in _SIGNS) or any(word in lower for word in _WORDS):
        text = re.sub(_CREDENTIAL, _instead, text)
    return without_keys(text, keys) if keys else text  # last: another key may begin as a held one does (sk-proj-)


def _inside(value: Any, keys: list[str]) -> Any:
    """A value of JSON without keys in its texts, which may be JSON again: the arguments of a tool call are."""
    if isinstance(value, str):
        return without_credentials(value, keys)
    if isinstance(value, list):
        return [_inside(one, keys) for one in value]
    if isinstance(value, dict):
        return {_struck_out(name, keys): _member(name, one, keys) for name, one in value.items()}
    return value


def _member(name: str, value: Any, keys: list[str]) -> Any:
    """The name may tell that the value is a key: `"authorization": "…"`."""
    if isinstance(value, str) and _struck_out(together := f"{name}: {value}", keys) != together:
        kept = without_credentials(value, keys)
        return kept if kept != value else "[key]"
    return _inside(value, keys)


def _instead(found: re.Match[str]) -> str:
    if made := found["made"]:
        return "[key]" if not made.startswith(("sk-", "glpat-")) or _is_random(made) else made
    head, token = found["head"], found["token"]
    if head.lower().startswith("auth"):
        is_key = any(map(str.isdigit, token)) or re.search("[a-z][A-Z]", token) is not None or _is_login(token)
    else:
        is_key = _is_login(token) if head.lower().startswith("basic") else _is_random(token)
    return f"{head}[key]" if is_key else found[0]


def _is_random(token: str) -> bool:
    """Whether digits and letters are mixed as chance mixes them, and no name or date does."""
    changes = len(re.findall(r"[0-9](?=[A-Za-z])|[A-Za-z](?=[0-9])", token))
    return changes >= 3 or (changes > 0 and re.search(r"(?<![A-Za-z0-9])(?=[a-f]*[0-9])[0-9a-f]{16,}(?![A-Za-z0-9])", token) is not None)


def _is_login(token: str) -> bool:
    """Whether it is `user:password` in base64."""
    body = token.rstrip("=.")
    try:
        return ":" in (login := b64decode(body + "=" * (-len(body) % 4), altchars=b"-_" if set(body) & set("-_") else None, validate=True).decode()) and login.isprintable()
    except ValueError:
        return False


_Class = TypeVar("_Class", bound=type)


def keyless_repr(kind: _Class) -> _Class:
    """The class, whose `repr` shows no keys. What its fields say stays as it is."""
    shown: Any = kind.__repr__

    def __repr__(self: object) -> str:
        return without_credentials(shown(self))

    setattr(kind, "__repr__", __repr__)  # noqa: B010
    return kind
