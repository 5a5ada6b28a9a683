"""What is wrong with JSON that does not fit its type, told to a model in plain words: where, what was expected, what came."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["UNKNOWN", "told"]

UNKNOWN: Any = object()
"""In place of the JSON value, where nobody has it."""

MAX_TOLD = 20
"""Problems told at once; a model that has made more will not mend them one by one."""

_SHOWN = 80  # characters of the value that came

# By pydantic's names of errors; {…} is filled in from what it says of the case.
_WORDS = {
    "int_from_float": "expected an integer",
    "int_parsing_size": "the number is too large",
    "finite_number": "expected a finite number",
    "none_required": "expected null",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "bytes_too_short": "must have at least {min_length} bytes",
    "bytes_too_long": "must have at most {max_length} bytes",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "literal_error": "expected {expected}",
    "enum": "expected {expected}",
    "date_from_datetime_inexact": "expected a date without a time, such as 2026-01-31",
    "date_past": "must be in the past",
    "date_future": "must be in the future",
    "datetime_past": "must be in the past",
    "datetime_future": "must be in the future",
    "timezone_aware": "must have a time zone, as in 2026-01-31T14:30:00Z",
    "timezone_naive": "must have no time zone, as in 2026-01-31T14:30:00",
    "decimal_max_digits": "must have at most {max_digits} digits",
    "decimal_max_places": "must have at most {decimal_places} digits after the point",
    "decimal_whole_digits": "must have at most {whole_digits} digits before the point",
    "set_item_not_hashable": "cannot be an item of a set",
    "iteration_error": "expected an array",
    "recursion_loop": "contains itself",
    "callable_type": "expected a function, which JSON cannot hold",
}

# By how those names begin, where several say the same to a model.
_KINDS = {
    "int": "an integer",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "string": "a string",
    "bytes": "a string",
    "datetime": "a date and time such as 2026-01-31T14:30:00Z",
    "date": "a date such as 2026-01-31",
    "time_delta": "a duration such as PT90S (90 seconds)",
    "time": "a time such as 14:30:00",
    "list": "an array",
    "tuple": "an array",
    "set": "an array",
    "frozen_set": "an array",
    "iterable": "an array",
    "dict": "an object",
    "mapping": "an object",
    "model": "an object",
    "dataclass": "an object",
    "named_tuple": "an array",
    "uuid": "a UUID",
    "url": "a URL such as https://example.com/",
    "complex": "a number such as 1+2j",
    "path": "a file path",
    "pattern": "a regular expression",
    "ip": "an IP address",
}
_KIND = re.compile(rf"(?:is_instance_of_)?({'|'.join(sorted(_KINDS, key=len, reverse=True))})_")

_NO_VALUE = {"missing", "missing_argument", "extra_forbidden", "unexpected_keyword_argument", "json_invalid", "union_tag_not_found"}


@dataclass
class _Problem:
    place: str
    words: list[str]
    came: str
    branch: bool  # it is one part of a union that says so, and others may follow

    def line(self) -> str:
        rest = [words.removeprefix("expected ") for words in self.words[1:]]
        return (f"{self.place}: " if self.place else "") + " or ".join(dict.fromkeys([self.words[0], *rest])) + self.came


def told(errors: Sequence[Mapping[str, Any]], given: Any, types: Collection[str] = ()) -> str:
    """pydantic's list of errors (with context and input) as lines of plain words.

    Args:
        given: the whole JSON value (or `UNKNOWN`), so that places can be told from the names pydantic gives to the parts of a union.
        types: names of types the model has been shown.
    """
    problems: list[_Problem] = []
    for error in errors:
        steps, part = _place(error, given)
        place = _path(steps) + (f" (as {part})" if part in types else "")
        came = "" if error["type"] in _NO_VALUE else f" (got {_shown(error)})"
        problem = _Problem(place, [_in_words(error)], came, branch=part is not None)
        last = problems[-1] if problems else None
        if last is not None and last.branch and problem.branch and (last.place, last.came) == (place, came):
            last.words += problem.words
        else:
            problems.append(problem)
    more = [f"… and {len(problems) - MAX_TOLD} more"] if len(problems) > MAX_TOLD else []
    return "\n".join([*(problem.line() for problem in problems[:MAX_TOLD]), *more])


def _place(error: Mapping[str, Any], given: Any) -> tuple[list[str | int], str | None]:
    """Where in the JSON a problem is, and the last part of a union on the way there."""
    steps: list[str | int] = []
    part = None
    here = given
    location = error["loc"]
    if given is UNKNOWN:
        return list(location), None
    for position, step in enumerate(location):
        if (isinstance(here, list) and isinstance(step, int) and step < len(here)) or (isinstance(here, dict) and step in here):
            here = here[step]
        elif position < len(location) - 1 or error["type"] not in _NO_VALUE:
            part = str(step)
            continue
        steps.append(step)
    if error["type"].startswith("union_tag"):
        steps.append(str(error["ctx"]["discriminator"]).strip("'"))
    return steps, part


def _path(steps: Sequence[str | int]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")


def _in_words(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx") or {}
    message: str = error["msg"]
    if kind in ("missing", "missing_argument", "union_tag_not_found"):
        return "missing; it is required"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return "there is no such argument"
    if kind == "json_invalid":
        return f"not valid JSON: {message.removeprefix('Invalid JSON: ')}"
    if kind in ("value_error", "assertion_error"):
        return message.removeprefix("Value error, ").removeprefix("Assertion failed, ") or "it is not allowed"
    if kind == "union_tag_invalid":
        return f"expected one of {_in_json(context['expected_tags'])}"
    if kind in _WORDS:
        return _WORDS[kind].format_map(context | {"expected": _in_json(str(context.get("expected", "")))})
    if found := _KIND.match(kind):
        return f"expected {_KINDS[found[1]]}"
    return re.sub(r"Input should be|Input is not", "expected", message)


_PYTHON = re.compile(r"""b?'(?:[^'\\]|\\.)*'|b?"(?:[^"\\]|\\.)*"|\b(?:None|True|False)\b""")


def _in_json(values: str) -> str:
    """A list of values as Python writes them (`'a', 1 or None`), as JSON does (`"a", 1 or null`)."""

    def written(found: re.Match[str]) -> str:
        try:
            value = ast.literal_eval(found[0])
        except (ValueError, SyntaxError):  # the words of somebody's own type
            return found[0]
        return json.dumps(value.decode("utf-8", "replace") if isinstance(value, bytes) else value, ensure_ascii=False)

    return _PYTHON.sub(written, values)


def _shown(error: Mapping[str, Any]) -> str:
    given = error.get("input")
    if error["type"] == "union_tag_invalid":
        given = error["ctx"].get("tag", given)
    try:
        text = json.dumps(given, ensure_ascii=False, default=_json_of)
    except (TypeError, ValueError, RecursionError):
        text = type(given).__name__
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _json_of(value: Any) -> Any:
    """A value that was read before it was refused (a duration, a number) as JSON has it; else the name of its type."""
    import pydantic_core

    return pydantic_core.to_jsonable_python(value, fallback=lambda other: type(other).__name__)
