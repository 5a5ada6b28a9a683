"""What each setting of an Agent may be, and what is said when it is something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .config import Secret, without_password
from .errors import ErrorConfig
from .models.base import Model
from .output import check_mode, check_type
from .prices import Price
from .tools import check_function

__all__ = ["CHECKS", "SETTINGS", "checked_record", "checked_tags", "whole_number", "number", "optional_approve", "with_hidden_key", "unknown_setting"]


def whole_number(name: str, value: Any, *, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ErrorConfig(f"{name} must be a whole number of at least {least}, got {value!r:.80}")
    return value


def number(name: str, value: Any, *, least: float, above: bool = False) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < 1e300 or (above and value == least):
        raise ErrorConfig(f"{name} must be a number {'above' if above else 'of at least'} {least:g}, or None; got {value!r:.80}")
    return value


def optional_approve(approve: Any) -> Any:
    if approve is not None:
        check_function("approve", approve, "ctx", "call")
    return approve


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ErrorConfig(f"name must be a text that is not empty, got {value!r:.80}")
    return value


def _model(value: Any) -> Any:
    _no_class("model", value)
    if value is None or isinstance(value, Secret):
        return value
    if not isinstance(value, str | Model):
        raise ErrorConfig(f"model must be a model string or a Model (complete, complete_stream, close), got {type(value).__name__}")
    if isinstance(value, str) and not value.strip():
        raise ErrorConfig("model is an empty string; give one such as 'anthropic/claude-sonnet-4'")
    return _without_login(value) if isinstance(value, str) else value


def _base_url(value: Any) -> Any:
    return value if isinstance(value, Secret) else _without_login(_text("base_url")(value))


def _without_login(address: Any) -> Any:
    """A URL that holds a user and password, as a Secret."""
    return Secret(address) if isinstance(address, str) and without_password(address) != address and "@" in address else address


def _key(value: Any) -> Secret | None:
    return None if value is None else Secret(value)


def _text(name: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not (value is None or isinstance(value, str)):
            raise ErrorConfig(f"{name} must be a text, got {type(value).__name__}")
        return value

    return check


def _output(value: Any) -> Any:
    check_type(value)
    return value


def _output_mode(value: Any) -> Any:
    check_mode(value)
    return value


def _no_class(name: str, value: Any) -> None:
    if isinstance(value, type):
        raise ErrorConfig(f"{name} is the class {value.__name__}, not an object of it; write {name}={value.__name__}(…)")


def _like(name: str, example: str, *methods: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        _no_class(name, value)
        missing = [method for method in methods if value is not None and not callable(getattr(value, method, None))]
        if missing:
            kind, lacking = type(value).__name__, ", ".join(missing)
            raise ErrorConfig(f"{name} must have the methods {', '.join(methods)}, as {example} has; {kind} lacks {lacking}")
        return value

    return check


def _memory_tools(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ErrorConfig(f"memory_tools must be True or False, got {value!r:.80}")
    return value


def _extra(value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ErrorConfig(f"extra must be a dictionary of request fields, got {type(value).__name__}")
    return dict(value or {})


def _price(value: Any) -> Any:
    if value is not None and not isinstance(value, Price):
        raise ErrorConfig(f"price must be a Price(input_usd_per_mtok=…, output_usd_per_mtok=…), got {type(value).__name__}")
    return value


def checked_tags(value: Any) -> dict[str, str]:
    if value is not None and not isinstance(value, Mapping):
        raise ErrorConfig(f"tags must be a dictionary of texts, such as {{'tenant': 'a'}}; got {type(value).__name__}")
    for name, text in (value or {}).items():
        if not isinstance(name, str) or not name.strip() or "=" in name:
            raise ErrorConfig(f"the name of a tag must be a text without '=', such as tenant; got {name!r:.80}")
        if not isinstance(text, str):
            raise ErrorConfig(f"the tag {name!r} must be a text, got {type(text).__name__}: {text!r:.80}")
    return dict(value or {})


def checked_record(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ErrorConfig(f"record must be True or False, got {value!r:.80}")
    return value


CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": _name,
    "model": _model,
    "api_key": _key,
    "base_url": _base_url,
    "instructions": _text("instructions"),
    "description": _text("description"),
    "max_turns": lambda value: whole_number("max_turns", value, least=1),
    "max_cost": lambda value: number("max_cost", value, least=0),
    "retries": lambda value: whole_number("retries", value, least=0),
    "output": _output,
    "output_mode": _output_mode,
    "memory": _like("memory", "MemorySQLite('agent.db')", "get_messages", "add_messages"),
    "history": _like("history", "HistorySlidingWindow(20)", "compact"),
    "store": _like("store", "RunStore('runs.db')", "save"),
    "approve": optional_approve,
    "memory_tools": _memory_tools,
    "temperature": lambda value: number("temperature", value, least=0),
    "max_tokens": lambda value: None if value is None else whole_number("max_tokens", value, least=1),
    "timeout": lambda value: number("timeout", value, least=0, above=True),
    "extra": _extra,
    "price": _price,
    "tags": checked_tags,
    "record": checked_record,
}
"""By name of a setting: gives the value as it is kept, or raises ErrorConfig."""
SETTINGS = tuple(CHECKS)


def with_hidden_key(settings: Any) -> tuple[Any, ErrorConfig | None]:
    """Settings whose `api_key` is a Secret, or what is wrong with it: no plain key is to stand in a traceback's locals."""
    try:
        plain = settings.get("api_key") if isinstance(settings, Mapping) else None
        return ({**settings, "api_key": Secret(plain)} if plain is not None else settings), None
    except ErrorConfig as error:
        return {}, error.with_traceback(None)


def unknown_setting(name: str, known: tuple[str, ...]) -> ErrorConfig:
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    return ErrorConfig(f"Agent has no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}"))
