"""Foreign text, made fit to be shown on a page or in a picture. No markup here; who writes HTML escapes it after."""

from __future__ import annotations

import re
from functools import cache

from .keys import without_credentials

__all__ = ["cut", "escaped", "one_line", "short_repr", "visible"]

# Colours and other SGR sequences say nothing about the content. Everything else that moves a cursor, hides text or turns
# its direction is shown as the escape a programmer would write: what Unicode calls Default_Ignorable_Code_Point
# (DerivedCoreProperties.txt of Unicode 16) among it. Joiners stay inside scripts and emoji that need them, and so does one
# selector behind an emoji, an ideograph or a Mongolian letter; more of them are no writing, and can carry any hidden data.
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_MARK = re.compile("[\u061c\u200e\u200f]")
_EMOJI = "\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_IDEOGRAPH = "\u3001-\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ALWAYS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2028-\u202e\u2060-\u206f\u3164\ufe03-\ufe0d\ufeff\uffa0"
    "\ufff0-\ufffb\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe02\ufe0e\ufe0f\U000e0100-\U000e01ef"
_JOINED = f"[^\x00-\x7f\u200c\u200d{_ALWAYS}{_SELECTORS}]"
_SUSPECT = re.compile(f"[{_ALWAYS}{_SELECTORS}\u200c\u200d]")
_HIDDEN = (
    f"[{_ALWAYS}]|(?<!{_JOINED})(?<![{_EMOJI}]\ufe0f)[\u200c\u200d]|[\u200c\u200d](?!{_JOINED})"
    f"|(?<![#*0-9{_EMOJI}])[\ufe0e\ufe0f]|(?<=[#*0-9])[\ufe0e\ufe0f](?!\u20e3)"
    f"|(?<![{_IDEOGRAPH}\u2200-\u22ff\uff00-\uff1f])[\ufe00-\ufe02]|(?<![{_IDEOGRAPH}])[\U000e0100-\U000e01ef]|(?<![\u1820-\u18aa])[\u180b-\u180d\u180f]"
)


@cache
def _hidden() -> re.Pattern[str]:
    """Looked at only where `_SUSPECT`, which is four times faster, has found something. Compiling it takes milliseconds."""
    return re.compile(_HIDDEN)


def escaped(character: str) -> str:
    """A character as the escape a programmer would write: `\\x1b`, `\\u202e`."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: str) -> str:
    """`text` with nothing in it that a reader cannot see.

    Line ends become `\\n`, colour sequences vanish. Written out (`\\x1b`, `\\u202e`) are control, invisible, tag and
    bidirectional-override characters, half surrogates, and variation selectors behind nothing that has variants.
    Left-to-right and right-to-left marks are left out.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _COLOUR.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _SUSPECT.sub(_written, _MARK.sub("", text))


def _written(found: re.Match[str]) -> str:
    return escaped(found[0]) if _hidden().match(found.string, found.start()) else found[0]


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
