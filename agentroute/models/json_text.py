"""JSON as models write it: in pieces, in code fences, with careless escapes. Pure, no I/O."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["JSONString", "first_object", "sendable"]

_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


def first_object(text: str) -> tuple[str | None, Any]:
    """The JSON object of a text and its value: all of it, in a code fence, or first in it; (None, None) when there is none."""
    fenced = _FENCED.search(text)
    for candidate in (text.strip(), fenced[1].strip() if fenced else ""):
        if not candidate.startswith("{"):
            continue
        try:
            value, end = json.JSONDecoder(strict=False).raw_decode(candidate)
        except (ValueError, RecursionError):
            continue
        return candidate[:end], value
    return None, None


def sendable(text: str) -> str:
    """The text with half characters (lone surrogates), which no UTF-8 can carry, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_SPECIAL = re.compile(r'["\\]')
_UNICODE = re.compile(r"\\u([0-9a-fA-F]{4})")


class JSONString:
    """Decodes the inside of a JSON string piece by piece, wherever it is cut; `closed` once its end quote has come.

    Lenient where models are careless: raw line breaks stand for themselves, as does the letter after an unknown escape.
    Halves of a character that do not belong together become U+FFFD.
    """

    def __init__(self) -> None:
        self.closed = False
        self._held = ""

    def feed(self, text: str) -> str:
        text, self._held = self._held + text, ""
        out: list[str] = []
        position = 0
        while not self.closed and position < len(text):
            special = _SPECIAL.search(text, position)
            end = special.start() if special else len(text)
            out.append(text[position:end])
            position = end
            if special is None:
                break
            if text[position] == '"':
                self.closed = True
                break
            decoded, length = _escape(text, position)
            if not length:  # the rest of the escape is still to come
                self._held = text[position:]
                break
            out.append(decoded)
            position += length
        return sendable("".join(out))


def _escape(text: str, start: int) -> tuple[str, int]:
    """What the escape at `start` stands for and how long it is; length 0 when its end is still to come."""
    if len(text) < start + 2:
        return "", 0
    letter = text[start + 1]
    if letter != "u":
        return _ESCAPES.get(letter, letter), 2
    if len(text) < start + 6:
        return "", 0
    first = _UNICODE.match(text, start)
    if first is None:
        return "\ufffd", 2
    code = int(first[1], 16)
    if not 0xD800 <= code < 0xDC00:
        return ("\ufffd" if 0xDC00 <= code < 0xE000 else chr(code)), 6
    follower = text[start + 6 : start + 12]
    if len(follower) < 6 and "\\u".startswith(follower[:2]):
        return "", 0
    second = _UNICODE.match(follower)
    low = int(second[1], 16) if second else 0
    if 0xDC00 <= low < 0xE000:
        return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), 12
    return "\ufffd", 6
