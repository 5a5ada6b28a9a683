"""Foreign text, made fit to be shown: nothing in it that a reader cannot see, and no keys. No markup here; `escaping` writes HTML.

Every text that is shown goes through `visible`, `one_line` or `cut` of this module, or grows in a `KeylessText`. They strike out what the run
history strikes out, before they cut, so that no part of a key is left over.
"""

from __future__ import annotations

import json
import re
import string
from functools import cache

from agentroute import visible as _plain
from agentroute.keys import START, keys_in_use, without_credentials

__all__ = ["KeylessText", "call_text", "cut", "one_line", "unfinished", "visible"]

_HEADS = ("sk-", "sk_", "rk-", "rk_", "pk-", "pk_", "gsk_", "xai-", "pplx-", "hf_", "gho_", "ghp_", "ghs_", "ghu_", "ghr_", "glpat-", "github_pat_", "AIza", "AKIA")
_WORDS = ("authorization", "bearer", "basic")
_BEGINNINGS = "|".join(sorted({head[:n] for head in _HEADS for n in range(1, len(head))}, key=len, reverse=True))
_WORD_BEGINNINGS = "|".join(sorted({word[:n] for word in _WORDS for n in range(1, len(word) + 1)}, key=len, reverse=True))
_TOKEN = "[A-Za-z0-9+/=._~-]"
LONGEST_KEY = 400
"""Characters: so far back a key may have begun; of those this process holds, `_reach`."""
_UNFINISHED = (
    "(?:\x1b(?:\\[[0-9;:]{0,30})?|\r|[\u180b-\u180d\u180f\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef])\\Z"
    f"|{START}(?:(?:{'|'.join(_HEADS)}){_TOKEN}*|(?:{_BEGINNINGS})|(?i:{_WORD_BEGINNINGS}))\\Z"
    f"|(?i:(?:\\b|{START})(?:authorization\\W{{0,6}}(?:(?:bearer|basic|token)\\s+)?|(?:bearer|basic)\\s+)){_TOKEN}*\\Z"
)
_TOKEN_CHARACTERS = string.ascii_letters + string.digits + "+/=._~-"
_START_OF_TOKEN = re.compile(f"{_TOKEN}+")
_NAME = re.compile(r"[^\W\d]\w*\Z")


@cache
def _unfinished() -> re.Pattern[str]:
    return re.compile(_UNFINISHED)  # which takes milliseconds


def visible(text: str) -> str:
    """`agentroute.visible.visible` of a text, with keys struck out."""
    return _plain.visible(without_credentials(text))


def one_line(text: str, limit: int) -> str:
    """`agentroute.visible.one_line` of a text, with keys struck out."""
    line = _plain.one_line(_head(text, 2 * limit), limit)
    return line + "…" if len(text) > 2 * limit + _reach() and not line.endswith("…") else line


def cut(text: str, limit: int) -> tuple[str, int, str]:
    """`agentroute.visible.cut` of a text, with keys struck out."""
    if len(text) <= limit + 2 * _reach():
        return _plain.cut(without_credentials(text), limit)
    tail = limit // 4
    head = _head(text, limit - tail)[: limit - tail]
    return head, len(text) - limit, _tail(text, tail)


def _reach() -> int:
    """How far back a key may have begun: a token for a cloud's login can be longer than any key."""
    return max(LONGEST_KEY, max(map(len, keys_in_use()), default=0))


def _head(text: str, size: int) -> str:
    """The beginning of a text, of `size` characters or a little more, that ends in no half of a key; all of a short one."""
    reach = _reach()
    if len(text) <= size + reach:
        return without_credentials(text)
    # A pattern for its end would be tried anew at each character of a long word.
    return without_credentials(text[:size] + text[size : size + reach].rstrip(_TOKEN_CHARACTERS))


def _tail(text: str, size: int) -> str:
    """The end of a text, of `size` characters, that begins with no half of a key."""
    if not size:
        return ""
    reach = _reach()
    found = text[-size - 2 * reach :]
    begun = _START_OF_TOKEN.match(found, 0, reach)
    at = begun.end() if begun else 0
    left = without_credentials(found[at:])
    return left[reach if at == reach else 0 :][-size:]  # a word that goes on there may still begin with half a key


class KeylessText:
    """A text that comes in pieces, read without keys. What has been read once costs nothing the next time.

    `whole`: no more will come. Before that, an end that may be the beginning of a key is held back.
    """

    def __init__(self, text: str = "", *, whole: bool = False) -> None:
        self.whole = whole
        self._settled, self._open, self._pieces = "", "", [text]
        self._enough = 0
        """How long the open end is when it is next looked at for a place to settle at."""

    def __bool__(self) -> bool:
        return bool(self._settled or self._open) or any(self._pieces)

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    def read(self) -> str:
        if self._pieces:
            self._open += "".join(self._pieces)
            self._pieces.clear()
            if not self.whole:
                self._settle()
        if self.whole:
            self._settled, self._open = self._settled + without_credentials(self._open), ""
            return self._settled
        return self._settled + without_credentials(self._open[: len(self._open) - unfinished(self._open)])

    def _settle(self) -> None:
        """Strikes keys out for good in all but the end."""
        if len(self._open) < max(self._enough, 5 * LONGEST_KEY):
            return
        at = self._place()
        self._settled += without_credentials(self._open[:at])
        self._open = self._open[at:]
        self._enough = 0 if at else len(self._open) * 5 // 4

    def _place(self) -> int:
        """Where the end that stays open begins: within no key, so that each part reads as it does in the whole. 0: nowhere."""
        text, held, reach = self._open, keys_in_use(), _reach()
        tried, whole = 0, ""
        for last in range(len(text) - reach, max(0, len(text) - 9 * reach), -reach):
            at = (text.rfind("\n", 0, last) + 1) or (text.rfind(" ", 0, last) + 1)
            if not at and len(text) > 40 * LONGEST_KEY:  # a very long word
                at = last
            if at in (0, tried):
                continue
            # The bar: what looks like JSON would be written anew, and differ though no key is cut.
            tried, whole = at, whole or without_credentials(f"|{text}", held)
            if without_credentials(f"|{text[:at]}", held) + without_credentials(f"|{text[at:]}", held)[1:] == whole:
                return at
        return 0


def unfinished(text: str) -> int:
    """How many characters at the end of a piece of text only the next piece can explain: half a colour, a joiner, half a key."""
    end = text[-LONGEST_KEY:]
    match = _unfinished().search(end)
    begun = (n for key in keys_in_use() for n in range(min(len(key) - 1, len(end)), 3, -1) if end.endswith(key[:n]))
    return max(len(match[0]) if match else 0, max(begun, default=0))


def call_text(name: str, arguments_text: str) -> str:
    """A tool call as one writes it: `order_status(order_id="4821")`; arguments that are no plain JSON object as they came."""
    try:
        arguments = json.loads(arguments_text) if len(arguments_text) < 10_000 else None
    except (ValueError, RecursionError):
        arguments = None
    if isinstance(arguments, dict) and all(_NAME.match(key) for key in arguments):
        inside = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    else:
        inside = arguments_text
    return f"{name}({inside})"
