"""Every error a run can raise, and `Retry`, which is none.

    ErrorAgent                       catch this one to catch them all
    ├── ErrorConfig (ValueError)     the caller can mend it: a wrong argument, a missing key, no model
    │   └── ErrorMissingPackage      an optional package is not installed
    ├── ErrorModel                   the provider did not answer as it should
    │   ├── ErrorModelConnection     not reached, or the connection broke
    │   ├── ErrorModelTimeout        reached, but too slow
    │   ├── ErrorModelKey            the key was refused (401, 403)
    │   ├── ErrorModelCredit         the account has no credit left (402, quota)
    │   ├── ErrorModelRequest        the request was refused (other 4xx): model unknown, too long, …
    │   ├── ErrorModelRateLimit      too many requests (429)
    │   ├── ErrorModelServer         the provider failed (5xx)
    │   └── ErrorModelResponse       an answer came that cannot be used: unreadable, cut off, empty
    ├── ErrorRun                     the run ended before its answer
    │   ├── ErrorMaxTurns            `max_turns` reached
    │   ├── ErrorBudget              `max_cost` reached
    │   ├── ErrorOutput              no answer of the type asked for, after all retries
    │   ├── ErrorRefused             the model refused, or a content filter stopped it
    │   ├── ErrorTruncated           the answer was cut off at max_tokens
    │   ├── ErrorReplay              replay alone was to answer, and had no answer
    │   ├── ErrorTool                a tool asked for more corrections than `retries` allows
    │   └── ErrorInterrupted         stopped from outside (Ctrl-C, cancellation)
    └── ErrorStore                   a memory or run-history file cannot be used

An error raised by a run has `.result`: the messages, usage and tool calls up to that point.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from .figures import cost_text

if TYPE_CHECKING:
    from .result import Result

__all__ = [
    "ErrorAgent",
    "ErrorBudget",
    "ErrorConfig",
    "ErrorInterrupted",
    "ErrorMaxTurns",
    "ErrorMissingPackage",
    "ErrorModel",
    "ErrorModelConnection",
    "ErrorModelCredit",
    "ErrorModelKey",
    "ErrorModelRateLimit",
    "ErrorModelRequest",
    "ErrorModelResponse",
    "ErrorModelServer",
    "ErrorModelTimeout",
    "ErrorOutput",
    "ErrorRefused",
    "ErrorReplay",
    "ErrorRun",
    "ErrorStore",
    "ErrorTool",
    "ErrorTruncated",
    "Retry",
    "clean_text",
    "tell",
]

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]")


def clean_text(text: str, limit: int = 4000) -> str:
    """`text` fit to be shown: no terminal escapes, control, bidirectional or half characters, at most `limit` long."""
    unread = max(0, len(text) - limit * 4)
    text = _ANSI.sub("", text[: limit * 4])
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    more = max(0, len(text) - limit) + unread
    return text[:limit] + f" … ({more} more characters)" if more else text


def tell(message: str) -> None:
    """Warns; where warnings are errors it logs instead, because a paid answer must not be lost for a warning."""
    import logging
    import warnings

    try:
        warnings.warn_explicit(message, RuntimeWarning, "agentroute", 0)  # no line of ours below it in a notebook
    except RuntimeWarning:
        logging.getLogger("agentroute").warning(message)


def _keyless(message: str) -> str:
    """A message fit to be shown, saved with a notebook and logged: it may quote a model, a tool, or what somebody typed."""
    from .keys import without_credentials  # late: keys have errors of their own

    return without_credentials(clean_text(without_credentials(message)))  # again: a key is one when what was unseen in it has gone


class ErrorAgent(Exception):
    """Base of all errors of this library, with no keys in the message. `.result` is the partial Result when a run raised it, else None."""

    result: Result[Any] | None = None

    def __init__(self, message: str = "") -> None:
        super().__init__(_keyless(message))

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way calls the class with `args`, which fits no class below that takes keywords.
        return _rebuild, (type(self), self.args, {k: v for k, v in self.__dict__.items() if k != "__notes__"})


def _rebuild(kind: type[ErrorAgent], args: tuple[Any, ...], state: dict[str, Any]) -> ErrorAgent:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ErrorConfig(ErrorAgent, ValueError):
    """An argument, a setting or the environment is wrong; nothing was sent."""


class ErrorMissingPackage(ErrorConfig, ImportError):
    """An optional package is needed. The message says which `pip install` brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs {package}: pip install "agentroute[{extra}]"')
        self.package = package


class ErrorModel(ErrorAgent):
    """The provider could not be reached or answered with a fault.

    `status` is the HTTP status (None when there was none), `body` the start of what it sent, `request_id` the
    provider's own id for support questions, `retry_after_s` the seconds it asked to wait. `sent` says that the request may
    have reached the provider and may be charged for; `usage` is what it had reported by then. `attempts` is how often the
    request was made in all (see `ModelRetry`).
    """

    attempts: int = 1

    no_tools = False
    """Whether the provider says that it takes no tools."""

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        body: str = "",
        request_id: str | None = None,
        retry_after_s: float | None = None,
        sent: bool = False,
        usage: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.sent = sent
        self.usage = usage or {}
        self.status = status
        self.body = clean_text(body, 2000)
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class ErrorModelConnection(ErrorModel):
    """The provider was not reached, or the connection broke before the answer was complete."""


class ErrorModelTimeout(ErrorModel):
    """The provider took longer than `timeout`."""


class ErrorModelKey(ErrorModel):
    """The provider refused the API key (401 or 403)."""


class ErrorModelCredit(ErrorModel):
    """The account or key has no credit left (402, or a quota that is used up)."""


class ErrorModelRequest(ErrorModel):
    """The provider refused the request itself; sending it again will not help. `too_long`: for its length."""

    def __init__(self, message: str = "", *, too_long: bool = False, **details: Any) -> None:
        super().__init__(message, **details)
        self.too_long = too_long


class ErrorModelRateLimit(ErrorModel):
    """Too many requests in too short a time (429)."""


class ErrorModelServer(ErrorModel):
    """The provider failed (5xx, or an error in the middle of its answer)."""


class ErrorModelResponse(ErrorModel):
    """An answer came, but it is unreadable, incomplete or empty.

    `partial` is the text that did arrive; `reason` is `unreadable`, `cut_off` or `empty`.
    """

    def __init__(self, message: str = "", *, partial: str = "", reason: str = "unreadable", **details: Any) -> None:
        super().__init__(message, **details)
        self.partial = partial
        self.reason = reason


class ErrorRun(ErrorAgent):
    """The run ended before its answer, for a reason of its own."""


class ErrorMaxTurns(ErrorRun):
    """`max_turns` is used up. `turn` is the turn that was not begun, `limit` the number allowed."""

    def __init__(self, *, turn: int, limit: int) -> None:
        super().__init__(f"turn {turn} would pass max_turns={limit}; raise max_turns, or see .result for the turns so far")
        self.turn = turn
        self.limit = limit


def _usd(amount: float) -> str:
    """Dollars with four decimals; smaller amounts with as many as they need."""
    return f"${amount:.4f}" if amount == 0 or amount >= 0.001 else cost_text(amount)


class ErrorBudget(ErrorRun):
    """`max_cost`, or a budget that several runs share, is used up. `spent` and `limit` are in USD."""

    def __init__(self, *, spent: float, limit: float, hint: str = "", name: str = "max_cost") -> None:
        super().__init__(f"spent {_usd(spent)} of {name}={_usd(limit)}" + (f"; {hint}" if hint else ""))
        self.spent = spent
        self.limit = limit


class ErrorOutput(ErrorRun):
    """The model gave no answer of the type asked for within `retries`. `raw` is its last attempt."""

    def __init__(self, message: str = "", *, raw: str = "") -> None:
        super().__init__(message)
        self.raw = raw


class ErrorRefused(ErrorRun):
    """The model refused to answer, or a content filter stopped it. `reason` is `refusal` or `content_filter`."""

    def __init__(self, message: str = "", *, reason: str = "refusal") -> None:
        super().__init__(message)
        self.reason = reason


class ErrorTruncated(ErrorRun):
    """A tool call or a typed answer was cut off at `max_tokens`, so it is not used. `partial` is what came of it."""

    def __init__(self, message: str = "", *, partial: str = "") -> None:
        super().__init__(message)
        self.partial = partial


class ErrorReplay(ErrorRun):
    """Replay was to answer, and could not: no answer is kept for the request. Nothing was sent."""


class ErrorTool(ErrorRun):
    """A tool raised `Retry` more often than the agent's `retries` allows. `tool_name` says which."""

    def __init__(self, message: str = "", *, tool_name: str = "") -> None:
        super().__init__(message)
        self.tool_name = tool_name


class ErrorInterrupted(ErrorRun):
    """The run was stopped from outside; what was done until then is in `.result` and in the run history."""


class ErrorStore(ErrorAgent):
    """A memory or run-history file cannot be opened, read or written. The message names the file."""


class Retry(Exception):
    """Raised by a tool or an output validator to tell the model what to correct; the run goes on.

    Not an ErrorAgent, on purpose: the loop handles it, within the agent's `retries`.
    """

    def __init__(self, message: object) -> None:
        self.message = str(message)
        super().__init__(self.message)
