"""Foreign text, made fit to be shown. No markup here; `display` escapes what it puts into HTML."""

from __future__ import annotations

import json
import re

from agentroute.visible import cut, one_line, visible

__all__ = ["call_text", "cut", "one_line", "unfinished", "visible"]

_UNFINISHED = re.compile("(?:\x1b(?:\\[[0-9;:]{0,30})?|\r|[\u200c\u200d])\\Z")
_NAME = re.compile(r"[^\W\d]\w*\Z")


def unfinished(text: str) -> int:
    """How many characters at the end of a piece of text only the next piece can explain (half a colour, a joiner)."""
    match = _UNFINISHED.search(text)
    return len(match[0]) if match else 0


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
