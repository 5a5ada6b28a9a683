"""The words of an approval: what is asked before a call, and the line that stays of it. Static HTML and text, no widgets.

Who approves must be able to see everything, so arguments are shown whole and as the tool receives them, and what looks like
nothing, or like a blank, is written as an escape. Only keys are struck out, and a note says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from agentroute.keys import keys_in_use, without_credentials
from agentroute.visible import escaped

from .formats import call_text, one_line
from .style import STYLE

__all__ = ["call_label", "line_bundle", "question_bundle", "question_text", "verdict_line", "who_label"]

_EXTRA = (
    ".agr.agr .agr-ask { padding: 8px 18px 12px; } .agr.agr .agr-ask p { margin: 0 0 6px; text-align: start; }"
    " .agr.agr .agr-ask pre { max-height: 24em; overflow: auto; }"
)
_STRUCK = "[key]"
_BLANK = {
    0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, *range(0xFE00, 0xFE10), 0xFFA0, 0x13441, 0x13442, 0x16FE4,
    0x1D159, *range(0xE0100, 0xE01F0),
}  # fmt: skip
"""Characters that Python calls printable and fonts draw as nothing: fillers, blank patterns, variation selectors."""
_ENDING = 3


def question_text(name: str, arguments: Any, who: str = "") -> str:
    """The call that waits for an approval, in full: who asks, the tool's name, its arguments as indented JSON."""
    asks = f"{_whole(who)} asks: " if who else ""
    return "\n".join([f"{asks}{_whole(name)} needs your approval", *_arguments(arguments)])


def question_bundle(name: str, arguments: Any, who: str = "") -> dict[str, str]:
    text, *notes = _arguments(arguments)
    size = f" <span>({len(text):,} characters; scroll to see all)</span>" if len(text) > 2000 else ""
    asks = f"<b>{escape(_whole(who))}</b> asks: " if who else ""
    html = (
        f"<style>{STYLE}{_EXTRA}</style>"
        f'<section class="agr"><div class="agr-ask"><p>{asks}<b><code>{escape(_whole(name))}</code></b> needs your approval{size}</p>'
        f'<pre tabindex="0">{escape(text)}</pre>{"".join(f"<p>{escape(note)}</p>" for note in notes)}</div></section>'
    )
    return {"text/html": html, "text/plain": question_text(name, arguments, who)}


def verdict_line(word: str, name: str, arguments: Any, why: str = "", who: str = "") -> str:
    """What stays of a question: `approved: refund(amount=5)`, or `approved: clerk: refund(amount=5)`."""
    asked = f"{who_label(who)}: " if who else ""
    return f"{word}: {asked}{call_label(name, arguments, 200)}{f' because {one_line(_seen(why), 300)}' if why.strip() else ''}"


def line_bundle(line: str) -> dict[str, str]:
    word, colon, rest = line.partition(":")
    html = f"<div>{escape(word)}{colon}<code>{escape(rest)}</code></div>" if colon else f"<div>{escape(line)}</div>"
    return {"text/html": html, "text/plain": line}


def call_label(name: str, arguments: Any, limit: int) -> str:
    """The call as one line."""
    return one_line(_seen(call_text(name, _json(arguments))), limit)


def who_label(who: str) -> str:
    return one_line(_seen(who), 60)


def _whole(name: str) -> str:
    return " ".join(_seen(without_credentials(name)).split())


def _seen(text: str) -> str:
    """The text with an escape for each character that cannot be told from a blank or from nothing, line ends apart."""
    if text.isascii() and text.isprintable():
        return text
    odd = {c for c in set(text) if c != "\n" and (not c.isprintable() or ord(c) in _BLANK)}
    return text.translate({ord(c): escaped(c) for c in odd}) if odd else text


def _arguments(arguments: Any) -> list[str]:
    """The arguments as one reads them, and a note for each text of theirs in which a key is struck out."""
    text = _json(arguments, indent=2)
    struck = without_credentials(text)
    if struck == text:
        return [_seen(text)]
    notes: list[str] = []
    try:
        struck = json.dumps(_noted(json.loads(text), json.loads(struck), notes), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        _noted(text, struck, notes)
    return [_seen(struck), *notes]


def _noted(before: Any, after: Any, notes: list[str]) -> Any:
    """`after`, which is `before` with keys struck out. No two names are one for that."""
    if isinstance(before, dict):
        members = list(after.items())
        if len(members) != len(before):
            members = [(without_credentials(name), json.loads(without_credentials(json.dumps({"": one})))[""]) for name, one in before.items()]
        found: dict[str, Any] = {}
        for (name, one), (struck, other) in zip(before.items(), members, strict=True):
            shown = _noted(name, struck, notes)
            while shown in found:
                shown += "'"
            found[shown] = _noted(one, other, notes)
        return found
    if isinstance(before, list):
        return [_noted(one, other, notes) for one, other in zip(before, after, strict=True)]
    if before != after and isinstance(before, str):
        notes.append(_note(before, after))
    return after


def _note(before: str, after: str) -> str:
    """What tells this text from others that look the same now: how long what was struck out is, its end, and a hash."""
    keys = keys_in_use()
    sizes = [
        "a key of this process" if any(part[:8] == key[:8] for key in keys)
        else f"{len(part)} characters{f' ending in {_seen(part[-_ENDING:])}' if len(part) > 3 * _ENDING else ''}"
        for part in _parts(before, after)
    ]  # fmt: skip
    mark = hashlib.sha256(before.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    stands = f"{_STRUCK} stands for {', '.join(sizes)}" if sizes else "Part of a text is left out"
    return f"{stands}: not shown, as it may be a key. The tool gets it whole (SHA-256 of the text {mark})."


def _parts(before: str, after: str) -> Iterator[str]:
    """What `[key]` stands for in `after`, in order."""
    kept = after.split(_STRUCK)
    at = len(kept[0])
    for n, part in enumerate(kept[1:], 2):
        end = len(before) - len(part) if n == len(kept) else before.find(part, at + 1)
        if end < at:
            return
        if (found := before[at:end]) != _STRUCK:
            yield found
        at = end + len(part)


def _json(arguments: Any, indent: int | None = None) -> str:
    """The arguments as the tool receives them, as JSON; what has no JSON is as Python shows it."""
    for form in (_as_it_is, _named):
        try:
            return json.dumps(form(arguments), indent=indent, ensure_ascii=False, default=_plain)
        except Exception:  # keys that are no text; then a circle, too deep, or an object that fails to describe itself
            continue
    return _shown(arguments)


def _as_it_is(value: Any) -> Any:
    return value


def _named(value: Any) -> Any:
    """The value with a text for each key of a dictionary that JSON cannot have."""
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else _shown(key): _named(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_named(one) for one in (sorted(value, key=_shown) if isinstance(value, set | frozenset) else value)]
    if value is None or isinstance(value, str | int | float):
        return value
    plain = _plain(value)
    return plain if isinstance(plain, str) else _named(plain)


def _plain(value: Any) -> Any:
    """What JSON has no form for, as something that it has more of: all fields, also those that a model hides when it is shown or sent."""
    kind = type(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if callable(getattr(kind, "get_secret_value", None)):
        return value.get_secret_value()
    if hasattr(kind, "model_fields"):
        if getattr(kind, "__pydantic_root_model__", False):
            return value.root
        return {name: getattr(value, name) for name in kind.model_fields} | (value.model_extra or {})
    return sorted(value, key=_shown) if isinstance(value, set | frozenset) else _shown(value)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # RecursionError among them
        return f"<{type(value).__name__} that cannot be shown>"
