"""What providers say when they do not answer, in all the shapes they say it in, as one of our errors. No I/O."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ..errors import (
    ErrorModel,
    ErrorModelCredit,
    ErrorModelKey,
    ErrorModelRateLimit,
    ErrorModelRequest,
    ErrorModelServer,
    ErrorModelTimeout,
)

__all__ = ["asked_wait", "error_of", "error_of_payload", "failed_calls"]

_CREDIT = re.compile(
    r"insufficient_quota|billing_hard_limit|credit_balance|spend_limit|usage_limit_exceeded|exceeded_current_quota|payment_required"
    r"|\"quotaId\": ?\"[^\"]*PerDay"  # Gemini: today's quota, beside a retryDelay of seconds that does not help
)
_REJECTED = re.compile(r'"(?:reasons|patterns|flagged_input|availability)": ?[\[{"]')  # OpenRouter's moderation, guardrails and regions
_CREDIT_CODE = re.compile(r"1113|13(0[89]|1\d|2[01])")  # Z.ai
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|reduce the length of the messages"
    r"|exceeds the available context size|input token count.*exceeds the maximum|prompt is too long|prompt tokens limit exceeded"
    r"|ContextWindowExceeded",  # LiteLLM, whatever the provider behind it has said
    re.IGNORECASE | re.DOTALL,
)
_NO_SUCH_KEY = re.compile(r'"type": ?"no_db_connection"')
"""LiteLLM where no database is connected, so that it knows its master key only; the status is 400."""
_NO_PICTURES = re.compile(r"(?:image|audio|video) input is not supported")
"""llama.cpp, as a 500: asking again would not help."""
_STATUS = {
    "invalid_request": 400,
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "authentication": 401,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "payment_required": 402,
    "permission_denied": 403,
    "permission_error": 403,
    "not_found": 404,
    "not_found_error": 404,
    "model_not_found": 404,
    "capacity_exhausted": 429,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "api_error": 500,
    "internal": 500,
    "internal_server_error": 500,
    "server": 500,
    "server_error": 500,
    "unmapped": 500,
    "provider_unavailable": 502,
    "overloaded": 503,
    "provider_overloaded": 503,
    "server_is_overloaded": 503,
    "service_unavailable": 503,
    "temporarily_unavailable": 503,
    "unavailable": 503,
    "deadline_exceeded": 504,
    "timeout": 504,
    "overloaded_error": 529,
}
"""The status a provider's word stands for, where an error came under status 200 with no number of its own."""
_REQUEST_IDS = ("x-generation-id", "x-request-id", "request-id", "apim-request-id", "x-litellm-call-id", "cf-ray")
"""Headers with the provider's own id of a request; OpenRouter's first, under which it can be looked up."""


_KEY_HINTS = {
    "openrouter": "check the API key: AGENTROUTE_API_KEY, api_key=, or `agentroute login`",
    None: "check the API key",
}
_OTHER_KEY_HINT = "check the API key: api_key=, or --api-key-env on the command line"
"""For any other endpoint: keys of the environment and of `agentroute login` never go there."""


def error_of(status: int, headers: Mapping[str, str], body: bytes, *, model: str, place: str, kind: str | None = None) -> ErrorModel:
    """The error for an answer whose status is none of success. Body shapes differ by provider; all known ones are read.

    `kind` is what the endpoint is (see `quirks.py`), None where that is not known.
    """
    text = _unwrapped(body[:20_000].decode("utf-8", "replace"))
    payload = _json_in(text)
    message, code = _message_of(payload)
    if not message:
        message = re.sub(r"<[^>]*>", " ", text) if "<" in text[:100] else text
        message = " ".join(message.split())[:500]
    request_id = next((headers[name] for name in _REQUEST_IDS if headers.get(name)), None)
    details = {"body": text, "request_id": request_id, "retry_after_s": asked_wait(headers, payload)}
    return _error(status, message, code, model=model, place=place, kind=kind, **details)


def error_of_payload(payload: Mapping[str, Any]) -> ErrorModel:
    """The error for an error object that came with status 200, in a body or in the middle of a stream."""
    message, code = _message_of(payload)
    body = json.dumps(payload, default=str)[:2000]
    wait = asked_wait({}, payload)
    return _error(_status_in(payload), message, code, model="", place="the provider", body=body, request_id=None, retry_after_s=wait)


def failed_calls(payload: Any) -> list[dict[str, Any]]:
    """The tool calls a provider has refused on the model's behalf, as far as they can be read (Groq's `tool_use_failed`).

    They are the model's mistake, not the request's: taken as its answer, they are corrected like any wrong call.
    """
    error = _error_in(_json_in(payload.decode("utf-8", "replace")) if isinstance(payload, bytes) else payload)
    written = error.get("failed_generation")
    if error.get("code") != "tool_use_failed" or not isinstance(written, str):
        return []
    found = _json_in(written)
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls):
        return []
    return [{"function": {"name": call["name"], "arguments": call.get("arguments", call.get("parameters"))}} for call in calls]


def _json_in(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _unwrapped(text: str) -> str:
    """The JSON in a body that is an event stream; any other body as it is."""
    lines = [line.partition(":") for line in re.split(r"\r\n|\r|\n", text)]
    data = [value.strip() for name, _, value in lines if name in ("data", "error")]
    return next((found for found in ["\n".join(data), *data] if isinstance(_json_in(found), Mapping)), text)


def _error_in(payload: Any) -> Mapping[str, Any]:
    """The object that holds the error's fields: `error` of the payload, or all of it."""
    if isinstance(payload, list):
        payload = payload[0] if payload else None
    if not isinstance(payload, Mapping):
        return {}
    error = payload.get("error")
    return error if isinstance(error, Mapping) else payload


def _message_of(payload: Any, deep: int = 0) -> tuple[str, str]:
    """Message and code of an error body, in any of the shapes providers use."""
    if isinstance(payload, str):
        return payload, ""
    error = _error_in(payload)
    if isinstance(error.get("error"), str):
        message = error["error"]
    else:
        detail = error.get("message") or error.get("detail")
        message = detail if isinstance(detail, str) else "" if detail is None else json.dumps(detail, default=str)
    if message[:1] in ("{", "[") and deep < 3:  # some pass on what another provider said, as a text or in a list
        inner, code = _message_of(_json_in(message), deep + 1)
        if inner:
            return inner, code or str(error.get("code") or "")
    metadata = error.get("metadata")
    if isinstance(metadata, Mapping) and isinstance(metadata.get("raw"), str):
        message = f"{message} ({metadata['raw'][:500]})"
    code = next((error[name] for name in ("code", "http_status", "error_type", "type", "status") if error.get(name)), "")
    return message, str(code)


def _status_in(payload: Any) -> int:
    """The status an error object names by number or by word; 0 when it names none."""
    error = _error_in(payload)
    metadata = error.get("metadata")
    words = [error.get(name) for name in ("http_status", "code", "error_type", "type", "status")]
    for word in [*words, metadata.get("error_type") if isinstance(metadata, Mapping) else None]:
        text = str(word).lower()
        if text.isdecimal() and 400 <= int(text[:9]) <= 599:
            return int(text)
        if text in _STATUS:
            return _STATUS[text]
    return 0


# ---- how long to wait ---------------------------------------------------------------------------------------------


def asked_wait(headers: Mapping[str, str], payload: Any = None) -> float | None:
    """Seconds the provider asks to wait, in any of the ways it may ask; None when it does not, or not readably.

    In this order: `retry-after-ms`; `Retry-After` in seconds or as a date (counted from the answer's own `Date`, if it has
    one); in the body `retry_after` (OpenRouter) or `retryDelay` (Gemini).
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    asked = headers.get("retry-after")
    if (wait := _seconds(asked)) is not None:
        return wait
    until = _date(asked)
    if until is not None:
        return max(0.0, (until - (_date(headers.get("date")) or datetime.now(UTC))).total_seconds())
    return next(_waits_in(payload), None)


def _waits_in(payload: Any) -> Iterator[float]:
    error = _error_in(payload)
    metadata, details = error.get("metadata"), error.get("details")
    for holder in [error.get("availability"), metadata, error, *(details if isinstance(details, list) else [])]:
        for name in ("retry_after", "retryDelay"):
            if isinstance(holder, Mapping) and (wait := _seconds(holder.get(name))) is not None:
                yield wait
    if isinstance(metadata, Mapping) and isinstance(metadata.get("raw"), str):  # what the provider behind OpenRouter said
        yield from _waits_in(_json_in(metadata["raw"]))


_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")  # float() takes much more: 1_0, ٣


def _seconds(value: Any) -> float | None:
    """A number of seconds, also as text and with an `s` after it."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value := value.strip().removesuffix("s")):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _date(text: str | None) -> datetime | None:
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# ---- the kind of error --------------------------------------------------------------------------------------------


def _error(status: int, message: str, code: str, *, model: str, place: str, kind: str | None = None, **details: Any) -> ErrorModel:
    said = f"{place} answered {status}: {message}" if status else f"{place} reported an error: {message}"
    if code and code != str(status):
        said += f" [{code}]"
    if details["request_id"]:
        said += f" (request id {details['request_id']})"
    details["status"] = status or None
    refused = status in (401, 403) and not (status == 403 and _REJECTED.search(details["body"]))
    if refused or _NO_SUCH_KEY.search(details["body"]):
        return ErrorModelKey(f"{said}; {_KEY_HINTS.get(kind, _OTHER_KEY_HINT)}", **details)
    no_credit = _CREDIT.search(f"{code} {message} {details['body']}") or _CREDIT_CODE.fullmatch(code)
    if status == 402 or (status in (0, 429) and no_credit):
        return ErrorModelCredit(f"{said}; add credit with the provider, or ask for less", **details)
    if status == 404:
        return ErrorModelRequest(f"{said}; check the model id {model!r} and the base URL" if model else said, **details)
    if status == 429:
        return ErrorModelRateLimit(f"{said}; wait, or ask more slowly", **details)
    if _TOO_LONG.search(f"{code} {message}"):  # some send this as a 500
        return ErrorModelRequest(f"{said}; send less of the conversation: history=HistoryTruncate(…)", too_long=True, **details)
    if status in (408, 504):
        return ErrorModelTimeout(said, **details)
    if 300 <= status < 400:
        return ErrorModelRequest(f"{said}; redirects are not followed: give the final address as base_url", **details)
    if 400 <= status < 500 or _NO_PICTURES.search(message):
        return ErrorModelRequest(said, **details)
    return ErrorModelServer(said, **details)
