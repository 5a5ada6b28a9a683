"""Foreign text, made fit to be shown on a page or in a picture. No markup here; who writes HTML escapes it after."""

from __future__ import annotations

import re

from .keys import without_credentials

__all__ = ["cut", "escaped", "one_line", "short_repr", "visible"]

# Colours and other SGR sequences say nothing about the content. Everything else that moves a cursor, hides text or turns
# its direction is shown as the escape a programmer would write. Joiners stay inside scripts and emoji that need them.
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_MARK = re.compile("[\u061c\u200e\u200f]")
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u180e\u200b\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
    "|(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\u200c\u200d])"
)


def escaped(character: str) -> str:
    """A character as the escape a programmer would write: `\\x1b`, `\\u202e`."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: str) -> str:
    """`text` with nothing in it that a reader cannot see.

    Line ends become `\\n`, colour sequences vanish, control, zero-width, tag and bidirectional-override characters and
    half surrogates are written out (`\\x1b`, `\\u202e`). Left-to-right and right-to-left marks are left out.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _COLOUR.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _HIDDEN.sub(lambda match: escaped(match[0]), _MARK.sub("", text))


def cut(text: str, limit: int) -> tuple[str, int, str]:
    """Beginning, number of characters left out, end; the end is empty when nothing was left out."""
    if len(text) <= limit:
        return text, 0, ""
    tail = limit // 4
    return text[: limit - tail], len(text) - limit, text[len(text) - tail :] if tail else ""


def one_line(text: str, limit: int) -> str:
    """`text` as one visible line of about `limit` characters, its end replaced by `…` where it is longer."""
    line = " ".join(visible(text[: limit * 2]).split())
    return line if len(line) <= limit and len(text) <= limit * 2 else line[: limit - 1].rstrip() + "…"


def short_repr(value: object, limit: int) -> str:
    """`repr(value)` as one visible line of about `limit` characters, without keys; of a value that cannot say it, its class. Never raises."""
    enough = limit * 2 + 1_000  # a key that is cut in two there is not shown
    try:
        text = without_credentials(repr(value[:enough] if isinstance(value, str | bytes) else value)[:enough])
    except Exception:
        text = f"<{type(value).__name__}>"
    return one_line(text, limit)
