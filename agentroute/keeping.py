"""What the run history keeps of the texts of a run: all, none, or what a function of the user's leaves of them; never a key."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterable
from typing import Any

from .config import keys_in_use, without_keys
from .errors import ErrorConfig

__all__ = ["CONTENTS", "Keeping", "word_of", "without_credentials"]

CONTENTS = ("all", "metadata")
NOT_KEPT = "[not kept: redact failed]"

_MADE = (
    r"(?:gsk_|xai-|pplx-|hf_|gh[opsur]_)[A-Za-z0-9]{18,}|glpat-[-_A-Za-z0-9]{18,}|github_pat_\w{22,}|AIza[-_A-Za-z0-9]{30,}|AKIA[A-Z0-9]{16}"
    r"|[srp]k_(?:live|test)_[A-Za-z0-9]{16,}|sk_[0-9a-f]{40,}|[sp]k-lf-[0-9a-f-]{36}|sk-[-_A-Za-z0-9]{18,}"
)
_HEADER = r"""authorization\\*["']?\s*[:=]\s*\\*["']?(?:(?:bearer|basic|token)\s+)?|bearer\s+|basic\s+"""
_CREDENTIAL = rf"(?<![A-Za-z0-9])(?P<made>{_MADE})|(?i:\b(?P<head>{_HEADER}))(?P<token>[A-Za-z0-9+/=._~-]{{12,}})"
"""Keys as the large providers make them, and authorisation headers."""
_SIGNS = ("sk-", "sk_", "rk-", "rk_", "pk-", "pk_", "xai-", "pplx-", "hf_", "gho_", "ghp_", "ghs_", "ghu_", "ghr_", "glpat-", "github_pat_", "AIza", "AKIA")
_WORDS = ("bearer", "basic", "authorization")
"""What a text has in it that may hold one; looked for first, as it is thirty times faster than the pattern."""


def without_credentials(text: str, held: Iterable[str] | None = None) -> str:
    """The text with the keys this process holds, and whatever looks like a key or an authorisation header, struck out.

    What was JSON before is JSON then. `held`: those keys, where somebody has asked for them already.
    """
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


def word_of(text: str) -> str:
    """What is kept of a name that a model or a provider has made up, where contents are not: as much of it as is no prose."""
    return re.match(r"[\w.:/@+-]{0,128}", text)[0]  # type: ignore[index]


class Keeping:
    """What is kept of texts.

    Args:
        content: `all`, or `metadata` for figures only.
        redact: makes of each text what is kept of it; one that fails keeps nothing.

    Raises:
        ErrorConfig: an argument is something else.
    """

    def __init__(self, content: str = "all", redact: Callable[[str], str] | None = None) -> None:
        if content not in CONTENTS:
            raise ErrorConfig(f"record_content must be 'all' or 'metadata' (figures only), got {content!r:.80}")
        if redact is not None and not callable(redact):
            raise ErrorConfig(f"redact must be a function that takes a text and returns what is kept of it, got {type(redact).__name__}")
        self.content = content
        self.redact = redact

    @property
    def whole(self) -> bool:
        """Whether texts are kept as they are, keys apart."""
        return self.content == "all" and self.redact is None

    def of(self, text: str, keys: Iterable[str] | None = None) -> str | None:
        """What is kept of a text; None is nothing. `keys` as in `without_credentials`."""
        if self.content == "metadata":
            return None
        text = without_credentials(text, keys)  # first, while a key is still what it was
        if self.redact is not None:
            try:
                redacted = self.redact(text)
            except Exception:  # a user's function; its error may hold the text
                return NOT_KEPT
            text = redacted if isinstance(redacted, str) else NOT_KEPT
        return text
