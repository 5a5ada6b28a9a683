"""How an Agent, a Result, a Tool and a Usage are shown that are the value of a cell: static HTML, and plain text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from agentroute.agent import Agent
from agentroute.errors import ErrorConfig
from agentroute.figures import cost_text, plural
from agentroute.message import Usage
from agentroute.result import Result
from agentroute.tools import Tool
from agentroute.visible import short_repr

from .formats import one_line, visible
from .tables import Table, settings_table, shortened

__all__ = ["bundle"]

_TYPE = 100
_DEFAULT = 80
_TEXT = 300
"""The most characters of a parameter's type, its default and its description, and of a tool's description in an agent's table."""
_PARAMETERS = 50
_DEEP = 4
"""How far a type is followed inwards."""


def bundle(value: Any) -> dict[str, str]:
    """`text/html` and `text/plain` of an Agent, Result, Tool or Usage; of anything else, or where that fails, its repr as text.

    Never raises, whatever a user's class does that the value holds.
    """
    draw = next((draw for kind, draw in _DRAWN.items() if isinstance(value, kind)), None)
    if draw is not None:
        try:
            return draw(value)
        except Exception:  # the value of a user's class cannot be read; a cell's value is shown all the same
            pass
    return {"text/plain": short_repr(value, _TEXT)}


def _result(result: Result[Any]) -> dict[str, str]:
    from .card import Card
    from .display import to_html
    from .plain import to_text

    card = Card.from_result(result)
    return {"text/html": to_html(card), "text/plain": to_text(card)}


def _agent(agent: Agent[Any]) -> dict[str, str]:
    settings = settings_table(agent)
    settings = Table([row for row in settings.rows if row[0] != "tools"])
    tools = [(_signature(tool), one_line(tool.description, _TEXT)) for tool in agent.tools]
    return _tables(settings, *([Table(tools, ("tool", "description"))] if tools else []))


def _tool(tool: Tool) -> dict[str, str]:
    about = [("tool", one_line(tool.name, _TEXT)), ("description", shortened(tool.description))]
    if tool.needs_approval:
        about.append(("needs approval", "yes" if tool.needs_approval is True else "where its own function says so"))
    if tool.timeout is not None:
        about.append(("timeout", f"{tool.timeout:g} s"))
    rows = _parameters(tool)
    if isinstance(rows, str):
        return _tables(Table([*about, ("parameters", rows)]))
    return _tables(Table(about), Table(rows, ("parameter", "type", "default", "description")))


def _usage(usage: Usage) -> dict[str, str]:
    calls = plural(usage.model_calls, "model call")
    if usage.replayed_calls:
        calls += f", {usage.replayed_calls:,} replayed" + (
            f", saved {cost_text(usage.cost_saved_usd)}" if usage.cost_saved_usd else ""
        )
    rows = [("calls", calls), *_token_rows(usage)]
    cost = cost_text(usage.cost_usd)
    if usage.cost_usd is not None and usage.unknown_cost_calls:
        cost = f"at least {cost}; {plural(usage.unknown_cost_calls, 'call')} of unknown cost"
    return _tables(Table([*rows, ("cost", cost)]))


def _token_rows(usage: Usage) -> list[tuple[str, str]]:
    unknown = usage.unknown_token_calls
    if unknown and unknown == usage.model_calls:
        return [("tokens", "tokens unknown")]
    at_least = "at least " if unknown else ""
    rows = []
    parts = (
        ("in", usage.input_tokens, "cached", usage.cached_input_tokens),
        ("out", usage.output_tokens, "reasoning", usage.reasoning_tokens),
    )
    for way, count, kind, part in parts:
        rows.append((f"tokens {way}", f"{at_least}{count:,}" + (f", of them {part:,} {kind}" if part else "")))
    return rows


_DRAWN: dict[type, Callable[[Any], dict[str, str]]] = {Agent: _agent, Result: _result, Tool: _tool, Usage: _usage}


def _tables(*tables: Table) -> dict[str, str]:
    return {
        "text/html": "\n".join(table._repr_html_() for table in tables),
        "text/plain": "\n\n".join(repr(table) for table in tables),
    }


# ---------------------------------------------------------------------------------------------------- parameters of tools


def _parameters(tool: Tool) -> list[tuple[str, str, str, str]] | str:
    """Name, type, default and description of each; a text where there are none, or none can be told."""
    try:
        schema = tool.params_schema
    except ErrorConfig as error:
        return one_line(f"unknown: {error}", _TEXT)
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return "none"
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    known = schema.get("$defs") or schema.get("definitions")
    known = known if isinstance(known, Mapping) else {}
    rows = []
    for name, said in islice(properties.items(), _PARAMETERS):
        said = said if isinstance(said, Mapping) else {}
        default = one_line(_json(said["default"]), _DEFAULT) if "default" in said else "required" if name in required else ""
        about = said.get("description")
        text = one_line(about, _TEXT) if isinstance(about, str) else ""
        rows.append((one_line(str(name), _TYPE), one_line(_type(said, known), _TYPE), default, text))
    if left_out := len(properties) - len(rows):
        rows.append((f"… {left_out:,} more", "", "", ""))
    return rows


def _signature(tool: Tool) -> str:
    """`refund(order_id: string, amount: number = 0)`"""
    rows = _parameters(tool)
    if isinstance(rows, str):
        return f"{tool.name}({'' if rows == 'none' else '…'})"
    taken = [
        name + (f": {kind}" if kind else "") + (f" = {default}" if default not in ("", "required") else "")
        for name, kind, default, _ in rows
    ]
    return one_line(f"{tool.name}({', '.join(taken)})", _TEXT)


def _type(schema: Any, known: Mapping[str, Any], deep: int = 0) -> str:
    """The type a JSON Schema asks for, in its own words: `array of string`, `"card" | "cash"`, `number | null`, `Order`."""
    if not isinstance(schema, Mapping) or deep > _DEEP:
        return "any"
    if isinstance(reference := schema.get("$ref"), str):
        name = reference.rpartition("/")[2]
        named = known.get(name)
        return _type(named, {}, deep + 1) if isinstance(named, Mapping) and "enum" in named else name
    if "const" in schema:
        return _json(schema["const"])
    for key in ("enum", "anyOf", "oneOf", "allOf"):
        if isinstance(options := schema.get(key), list) and options:
            words = [_json(option) if key == "enum" else _type(option, known, deep + 1) for option in options]
            return (" & " if key == "allOf" else " | ").join(dict.fromkeys(words))
    kind, inner = schema.get("type"), schema.get("items", schema.get("additionalProperties"))
    if isinstance(kind, list):
        return " | ".join(map(str, kind))
    if kind in ("array", "object") and isinstance(inner, Mapping) and inner:
        return f"{kind} of {_type(inner, known, deep + 1)}"
    form = schema.get("format")
    return f"{kind} ({form})" if kind and form else str(kind or "any")


def _json(value: Any) -> str:
    value = value[: 2 * _DEFAULT] if isinstance(value, str) else value
    return visible(json.dumps(value, ensure_ascii=False, default=lambda other: short_repr(other, _DEFAULT)))
