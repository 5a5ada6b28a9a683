"""What a terminal is shown: foreign text made harmless, figures in words, JSON that no terminal obeys."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from datetime import datetime
from typing import Any

from ..figures import cost_text, plural, seconds_text
from ..message import Usage

__all__ = [
    "INTERRUPTED",
    "Harmless",
    "argument_text",
    "date_words",
    "harmless",
    "json_text",
    "one_line",
    "token_words",
    "usage_words",
    "width",
]

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""

_LONGEST = 512
"""Characters of one escape sequence; what is longer is no sequence but text."""
_STRING = rf"\x1b[\]PX^_][^\x07\x1b\x9c\n]{{0,{_LONGEST}}}"  # window titles, links, the clipboard
_SEQUENCE = re.compile(rf"{_STRING}(?:\x07|\x1b\\|\x9c)|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]+[0-~]|\x1b[0-OQ-WYZ\\`-~]")
_UNFINISHED = re.compile(rf"(?:\r|[\ud800-\udbff]|\x1b|(?:\x1b\[|\x9b)[0-?]*[ -/]*|\x1b[ -/]+|{_STRING}\x1b?)\Z")
_LINE_END = re.compile("\r\n?|[\u2028\u2029\x85]")
# Control characters, what hides text or turns its direction, tags. Joiners stay: scripts and emoji need them.
_UNSEEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_HIDDEN = re.compile(f"[{_UNSEEN}]")
_JSON_UNSAFE = re.compile(f"[{_UNSEEN}\u2028\u2029\ud800-\udfff]")


class Harmless:
    """Foreign text that comes in pieces, made fit for a terminal.

    Escape sequences are left out also when they are cut between two pieces, and so are control, zero-width and
    direction characters; tabs and line ends stay, and every kind of line end becomes `\\n`.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be shown by now; the start of a sequence is kept back until its end has come."""
        text = _SEQUENCE.sub("", self._held + piece)
        match = _UNFINISHED.search(text, max(0, len(text) - _LONGEST))
        start = match.start() if match else len(text)
        self._held = text[start:]
        return _cleaned(text[:start])

    def end(self) -> str:
        """What was kept back and never ended."""
        held, self._held = self._held, ""
        return _cleaned(held)


def _cleaned(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    text = _HIDDEN.sub("", _LINE_END.sub("\n", text))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def harmless(text: str) -> str:
    """The whole of a foreign text, made fit for a terminal."""
    return _cleaned(_SEQUENCE.sub("", text))


def one_line(text: str, limit: int) -> str:
    """`text` as one harmless line of at most `limit` characters, cut with `…`."""
    line = " ".join(harmless(text[: limit * 4]).split())
    return line if len(line) <= limit and len(text) <= limit * 4 else line[: max(limit - 1, 0)].rstrip() + "…"


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON whose text holds no character a terminal obeys: those are written as `\\u…`, so nothing is lost."""
    text = json.dumps(value, ensure_ascii=not _speaks_unicode(), indent=indent, default=_plain)
    return _JSON_UNSAFE.sub(_escaped, text)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _escaped(match: re.Match[str]) -> str:
    # Only inside strings: the line ends of an indented text are no part of the pattern.
    return "".join(f"\\u{unit:04x}" for unit in memoryview(match[0].encode("utf-16-le", "surrogatepass")).cast("H"))


def _speaks_unicode() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")


def argument_text(text: str) -> str:
    """A word of the command line. Under LANG=C Python may have read its bytes as half characters; they are UTF-8."""
    return os.fsencode(text).decode("utf-8", "replace") if any("\udc80" <= character <= "\udcff" for character in text) else text


def width() -> int:
    """Columns to write into; wide where no terminal is watching."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else 200


# ---- figures ------------------------------------------------------------------------------------------------------


def token_words(input_tokens: int | None, output_tokens: int | None) -> str:
    """`10 tokens in, 5 out`; `tokens unknown` when both are None."""
    if input_tokens is None and output_tokens is None:
        return "tokens unknown"
    known = [f"{number:,}" if number is not None else "unknown" for number in (input_tokens, output_tokens)]
    return f"{known[0]} tokens in, {known[1]} out"


def usage_words(usage: Usage, duration_s: float | None) -> str:
    """One line: tokens, cost, seconds, calls."""
    unknown = usage.unknown_token_calls == usage.model_calls
    tokens = token_words(None, None) if unknown else token_words(usage.input_tokens, usage.output_tokens)
    cost = cost_text(usage.cost_usd)
    if usage.cost_usd is not None and usage.unknown_cost_calls:
        cost += f" and {plural(usage.unknown_cost_calls, 'call')} of unknown cost"
    parts = (tokens, cost, _replayed_words(usage), seconds_text(duration_s), plural(usage.model_calls, "call"))
    return ", ".join(part for part in parts if part)


def _replayed_words(usage: Usage) -> str:
    """`replayed, saved $0.0123`, or `1 of 3 replayed, saved …`; empty where every answer was asked for."""
    if not usage.replayed_calls:
        return ""
    which = "replayed" if usage.replayed_calls == usage.model_calls else f"{usage.replayed_calls} of {usage.model_calls} replayed"
    return f"{which}, saved {cost_text(usage.cost_saved_usd)}" if usage.cost_saved_usd else which


def date_words(moment: datetime) -> str:
    """Date and time of day where the reader is."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
