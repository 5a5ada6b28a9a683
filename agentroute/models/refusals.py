"""What an endpoint's refusal teaches: which change to its quirks makes it take the request. No I/O.

Only what this library writes of its own accord, or from settings, is changed; fields of `extra` are the caller's.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ErrorModel, tell
from ..message import LLMRequest, Message
from .quirks import ECHO, Quirks

__all__ = ["Learned", "change_for", "learned", "refuses_tools"]

_REFUSED = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|unavailable|deprecated|disabled|extra_forbidden|extra (?:inputs|fields)|additional propert"
    r"|(?:not|n['’]t|never) (?:\w+ )?(?:support|permit|allow|accept|available|implement|enabled|recogni[sz]e|be used|use|specify|understand)"
    r"|only the default|no longer|cannot (?:be )?(?:used?|combine)|not (?:a )?valid|invalid|failed to parse|too many states|is required to",
    re.IGNORECASE,
)
"""How it is said that a thing is not taken."""
_UNKNOWN = (
    r"unsupported|unrecogni[sz]ed|unknown|unexpected (?:keyword|argument|field|param|propert)|deprecated|extra_forbidden|extra (?:inputs|fields)"
    r"|additional propert|(?:not|n['’]t|never|cannot) (?:be )?(?:\w+ )?(?:support|permit|allow|accept|implement|enabled|recogni[sz]e|use|specif|understand)"
    r"|only the default|no longer|takes no"
)
"""How it is said that a thing is not known or never taken: not its value is wrong, nor does it only fail now."""
_CAP = re.compile(rf"{_UNKNOWN}|max_(?:completion_)?tokens['\"`]?,? instead", re.IGNORECASE)
_FIXED = re.compile(rf"{_UNKNOWN}|only \d+(?:\.\d+)? is (?:supported|permitted|allowed|accepted)", re.IGNORECASE)
_WHOLE = re.compile(rf"{_UNKNOWN}|must be verified|disabled|not available", re.IGNORECASE)
_NOT = r"(?:cannot|never|not|n['’]t)(?: \w+)? (?:be )?(?:support|implement|allow|permit|enabled|use|combine)"
_NO_STREAMS = re.compile(
    r"\bstream(?:ing|ed)?['\"`]?(?:[ =:]+(?:is|are|mode|true|requests?|responses?|completions?|currently|for|this|model|parameter|option|with|tools?))*"
    rf" (?:{_NOT}|unsupported)"
    rf"|{_NOT}\w*(?: (?:tools?|functions?|calling|calls?|with|the|this|in|for|to|parameter|option|while|when))* ['\"`]?stream(?:ing|ed)?\b"
    r"|unsupported(?: (?:parameter|option|feature|value|field))?:? ['\"`]?stream(?:ing)?\b",
    re.IGNORECASE,
)
"""The same of streams, in one phrase: servers that fail speak of streams, too."""
_SIZE = re.compile(
    r"above|below|between|at (?:most|least)|maximum|minimum|greater|less|exceed|too (?:large|small|high|low|big)|(?:out of|in|in the|valid|allowed) range|range of|must be (?:a |an )?(?:number|integer|positive)|[<>]"
    r"|[\[(]\s*-?\d[\d.]*\s*,\s*-?\d[\d.]*\s*[\])]|\d ?\.\.+ ?\d",
    re.IGNORECASE,
)
"""How it is said that a number is taken, but not this one: nothing to be mended here."""
_CAP_SIZE = re.compile(rf"{_SIZE.pattern}|max_(?:completion_)?tokens['\"`]?\s*(?:[:=(]|of|value)+\s*\d", re.IGNORECASE)
_NEVER = re.compile(r"(?!)")


@dataclass(frozen=True)
class _Row:
    """One thing that may be refused. `names` is how it is called, `says` what must be said besides."""

    names: str
    sent: Callable[[LLMRequest, Quirks, bool], bool]
    """Whether the request had it: (request, quirks, streamed)."""
    change: Callable[[Quirks, str], dict[str, Any]]
    """Changed fields of the quirks: (quirks, what was said)."""
    says: re.Pattern[str] = _REFUSED
    unless: re.Pattern[str] = _NEVER
    statuses: frozenset[int] = frozenset({400, 422})
    told: str = ""
    """What the user is told, because a setting of theirs has no effect."""


def _setting(name: str, sent: Callable[[LLMRequest], bool], told: str = "", says: re.Pattern[str] = _REFUSED) -> _Row:
    """A field that is left out where it is refused."""
    return _Row(
        name,
        lambda request, quirks, stream: sent(request) and name not in quirks.refused and name not in request.extra,
        lambda quirks, said: {"refused": quirks.refused | {name}},
        says=says,
        unless=_SIZE,
        told=told,
    )


def _has_echo(message: Message, name: str) -> bool:
    calls = [call for call in message.tool_calls or () if isinstance(call, Mapping)]
    return bool(message.extra.get(name)) or any(call.get(name) for call in calls)


def _echoed(request: LLMRequest, quirks: Quirks) -> list[str]:
    return [name for name in quirks.echo if any(_has_echo(message, name) for message in request.messages)]


def _has_schema(request: LLMRequest) -> bool:
    return (request.response_format or {}).get("type") == "json_schema"


def _has_calls(request: LLMRequest) -> bool:
    return any(message.tool_calls for message in request.messages)


_NEXT_FORM = {"strict": "object", "plain": "object", "object": "words"}
_CAP_FIELDS = {"max_tokens", "max_completion_tokens"}
_TOLD_WHOLE = "it is not asked to stream, which it refuses: its answers come whole"

_ROWS = (
    _Row(
        "max_tokens|max_completion_tokens",
        lambda request, quirks, stream: request.max_tokens is not None and not quirks.cap_known and not _CAP_FIELDS & request.extra.keys(),
        lambda quirks, said: {"cap_field": "max_completion_tokens" if quirks.cap_field == "max_tokens" else "max_tokens"},
        says=_CAP,
        unless=_CAP_SIZE,
    ),
    _setting("temperature", lambda request: request.temperature is not None, "it is asked without the temperature, which it refuses", _FIXED),
    _Row(
        "stream_options|include_usage",
        lambda request, quirks, stream: stream and quirks.usage_option and "stream_options" not in request.extra,
        lambda quirks, said: {"usage_option": False},
    ),
    _Row(
        "stream|streaming|streamed",
        lambda request, quirks, stream: stream and "stream" not in request.extra,
        lambda quirks, said: {"streams": False},
        says=_WHOLE,
        statuses=frozenset({400, 405, 422}),
        told=_TOLD_WHOLE,
    ),
    _Row(
        "stream|streaming|streamed",
        lambda request, quirks, stream: stream and "stream" not in request.extra,
        lambda quirks, said: {"streams": False},
        says=_NO_STREAMS,
        statuses=frozenset({500, 501}),
        told=_TOLD_WHOLE,
    ),
    _Row(
        "reasoning_content",
        lambda request, quirks, stream: _has_calls(request) and not quirks.blank_reasoning,
        lambda quirks, said: {"blank_reasoning": True, "echo": tuple({*quirks.echo, "reasoning_content"})},
        says=re.compile("must be (?:passed|sent) back|is missing in assistant", re.IGNORECASE),
    ),
    _Row(
        "thought_signature",
        lambda request, quirks, stream: _has_calls(request) and not quirks.blank_signature,
        lambda quirks, said: {"blank_signature": True, "echo": tuple({*quirks.echo, "extra_content"})},
        says=re.compile("missing", re.IGNORECASE),
    ),
    _Row(
        "|".join(ECHO),
        lambda request, quirks, stream: bool(_echoed(request, quirks)),
        lambda quirks, said: {"echo": tuple(name for name in quirks.echo if not _names(name, said))},
    ),
    _Row(
        r"tool[_ -]?calls?[_ -]?ids?|tool_calls\S*\.id|3280",
        lambda request, quirks, stream: _has_calls(request) and quirks.call_id_length is None,
        lambda quirks, said: {"call_id_length": 9},
        says=re.compile(r"length|alphanumeric|a-zA-Z0-9|too long|3280", re.IGNORECASE),
        statuses=frozenset({400, 422, 500}),
    ),
    _Row(
        r"system|system messages?|system role",
        lambda request, quirks, stream: not quirks.one_system and any(message.role == "system" for message in request.messages[1:]),
        lambda quirks, said: {"one_system": True},
        says=re.compile(r"beginning|must be first|first message|only one|at most one|multiple|more than one|single", re.IGNORECASE),
        statuses=frozenset({400, 422, 500}),
    ),
    _Row(
        "content",
        lambda request, quirks, stream: quirks.text_parts and any(isinstance(message.content, list) for message in request.messages),
        lambda quirks, said: {"text_parts": False},
        says=re.compile(r"(?:must|should|expected?|has) (?:to )?(?:be )?(?:a |an )?(?:valid )?str|invalid type: sequence", re.IGNORECASE),
    ),
    _Row(
        "strict",
        lambda request, quirks, stream: _has_schema(request) and quirks.schema_form == "strict",
        lambda quirks, said: {"schema_form": "plain"},
    ),
    _Row(
        r"additionalProperties|\$?(?:ref|defs|schema)|schemas?|grammar|oneOf|anyOf|allOf|const|patternProperties|propertyNames",
        lambda request, quirks, stream: bool(request.tools or _has_schema(request)) and quirks.schema_words == "all",
        lambda quirks, said: {"schema_words": "few"},
    ),
    _Row(
        r"response_format\S*|json_schema|json_object|structured outputs?|schema",
        lambda request, quirks, stream: _has_schema(request) and quirks.schema_form in _NEXT_FORM,
        lambda quirks, said: {"schema_form": _NEXT_FORM[quirks.schema_form]},
        says=re.compile(_REFUSED.pattern + "|must be|should be", re.IGNORECASE),
    ),
    _Row(
        "tool_choice|tool choice",
        lambda request, quirks, stream: bool(request.tools) and request.tool_choice == "required" and bool(quirks.required_choice),
        lambda quirks, said: {"required_choice": ""},
        says=re.compile(_REFUSED.pattern + "|must be|should be|thinking", re.IGNORECASE),
    ),
    _setting("tool_choice", lambda request: bool(request.tools and request.tool_choice)),
    _setting("tools", lambda request: bool(request.tools) and request.tool_choice == "none"),
)  # fmt: skip

_NO_TOOLS = re.compile(
    r"(?:not|n['’]t|no endpoints found that) support\w*(?: the)?(?: use of)? [`'\"]?(?:tool|function)"
    r"|[`'\"]?(?:tools?|functions?)(?:[ -](?:use|calls?|calling|choice))?[`'\"]? (?:is|are) (?:not|un)[ -]?(?:support|available|enabled|allowed|implemented)"
    r"|unsupported (?:parameter|param|field|value)?s?:? ?[`'\"]?tools?\b|enable-auto-tool-choice|(?:--jinja|tools param requires)"
    r"|unknown (?:parameter|field|name):? ?[`'\"]?tools?\b",
    re.IGNORECASE,
)  # fmt: skip


def change_for(error: ErrorModel, request: LLMRequest, tried: Sequence[Quirks], *, stream: bool) -> tuple[Quirks, str] | None:
    """The quirks with which the endpoint may take the request it has refused, and what to tell the user (mostly nothing).

    `tried` are those with which it was asked, the last ones last. None where the error is no refusal of a thing that can
    be said in another way.
    """
    if error.status is None or getattr(error, "too_long", False):
        return None
    (named, said), quirks = _said(error), tried[-1]
    tools_refused = refuses_tools(error, request)  # then to ask without something else would not help
    rows = [row for row in _ROWS if error.status in row.statuses and row.sent(request, quirks, stream) and (row.names == "tools" or not tools_refused)]
    for place in filter(None, (named, said)):
        for row in rows:
            if _is_meant(row, place, said) and not row.unless.search(said):
                changed = replace(quirks, **row.change(quirks, said))
                if changed not in tried:
                    return changed, row.told
    return None


def refuses_tools(error: ErrorModel, request: LLMRequest) -> bool:
    """Whether the error says that tools are not taken, and the request has some."""
    return bool(request.tools) and error.status in (400, 404, 422, 500, 501) and bool(_NO_TOOLS.search(_said(error)[1]))


def _is_meant(row: _Row, place: str, said: str) -> bool:
    """Whether the thing is named and refused: anywhere where the error has a field for the name, else in one clause."""
    if place != said:
        return _names(row.names, place) and row.says.search(said) is not None
    return any(_names(row.names, clause) and row.says.search(clause) for clause in _clauses(said))


_QUOTED = re.compile(r"(?<!\w)(['\"`])((?:(?!\1(?!\w)).){0,500})\1(?!\w)", re.DOTALL)


def _clauses(said: str) -> list[str]:
    """What was said, clause by clause. A quoted phrase is one of its own: it may be the user's prompt."""
    apart = _QUOTED.sub(lambda found: f"\n{found[2]}\n" if re.search(r"\s", found[2]) else found[0], said)
    return re.split(r"[.;!?](?=\s|$)|\n", apart)


def _names(pattern: str, said: str) -> bool:
    """Whether what was said has the name as a word of its own: `max_tokens` is not in `max_tokens_to_sample`, nor `stream`
    in `live-stream-1`."""
    return re.search(rf"(?<![A-Za-z0-9_-])(?:{pattern})(?![A-Za-z0-9_-])", said, re.IGNORECASE) is not None


def _said(error: ErrorModel) -> tuple[str, str]:
    """The field an error names, if it names one by itself, and all it says, without what it may quote of the request."""
    try:
        payload = json.loads(error.body)
    except (ValueError, RecursionError):
        return "", f"{error} {error.body}"
    if isinstance(payload, list) and payload:
        payload = payload[0]
    found = payload.get("error") if isinstance(payload, Mapping) and isinstance(payload.get("error"), Mapping) else payload
    if not isinstance(found, Mapping):
        return "", str(error)
    detail = found.get("detail")
    if isinstance(detail, list):
        items = [item for item in detail if isinstance(item, Mapping)]
        return " ".join(_path(item.get("loc")) for item in items), "\n".join(f"{_path(item.get('loc'))} {item.get('msg')} {item.get('type')}" for item in items)
    metadata = found.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    parts = [found.get("param"), found.get("code"), found.get("message"), detail, raw]
    return str(found.get("param") or ""), " ".join(str(part) for part in parts if part is not None) or str(error)


def _path(loc: Any) -> str:
    return " ".join(map(str, loc)) if isinstance(loc, list) else str(loc)


# ---- memory -------------------------------------------------------------------------------------------------------


class Learned:
    """What endpoints have taught this process, by (address, kind, model), and what the user has been told about them.

    Holds the newest `limit` entries. Any thread may use it.
    """

    def __init__(self, limit: int = 512) -> None:
        self._limit = limit
        self._entries: OrderedDict[tuple[str, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, ...], default: Quirks) -> Quirks:
        if not self._entries:  # the usual case
            return default
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return default
            self._entries.move_to_end(key)
            quirks: Quirks = found
            return quirks

    def put(self, key: tuple[str, ...], quirks: Quirks) -> None:
        with self._lock:
            self._put(key, quirks)

    def tell_once(self, key: tuple[str, ...], message: str) -> None:
        """Warns, unless this has been said before."""
        key = ("told", *key)
        with self._lock:
            known = key in self._entries
            self._put(key, True)
        if not known:
            tell(message)

    def _put(self, key: tuple[str, ...], value: Any) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forgets all; for tests."""
        with self._lock:
            self._entries.clear()


learned = Learned()
