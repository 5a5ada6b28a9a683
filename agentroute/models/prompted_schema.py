"""The JSON schema a model without tool calls is bound to, and how parameters are put to it in words. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["shape", "turn_schema"]

_DEPTH = 6
"""Levels of nested types that are spelled out in words; deeper ones, and those that contain themselves, are `object`."""


def turn_schema(
    functions: Sequence[Mapping[str, Any]], answer: Mapping[str, Any] | None, *, direct: bool, text_limit: int | None
) -> dict[str, Any]:
    """The schema of one reply: a call of one of the functions, or an answer (where there is a schema for it).

    `direct`: the arguments of the one function, with nothing around them. Definitions of all parts are moved to the
    root, under names that do not clash, because `$ref` counts from there.
    """
    definitions: dict[str, Any] = {}
    branches: list[dict[str, Any]] = []
    for number, function in enumerate(functions):
        arguments = _part(function.get("parameters") or {"type": "object", "properties": {}}, f"t{number}_", definitions, text_limit)
        if direct:
            return arguments | ({"$defs": definitions} if definitions else {})
        branches.append(_object({"tool": {"const": function["name"]}, "arguments": arguments}))
    if answer is not None or not branches:
        branches.append(_object({"answer": _part(answer or {"type": "string"}, "a_", definitions, text_limit)}))
    return {"anyOf": branches} | ({"$defs": definitions} if definitions else {})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _part(schema: Mapping[str, Any], prefix: str, definitions: dict[str, Any], text_limit: int | None) -> dict[str, Any]:
    """A schema whose definitions have moved to `definitions`, each under its name with the prefix."""
    for name, definition in {**schema.get("definitions", {}), **schema.get("$defs", {})}.items():
        definitions[prefix + name] = _rewritten(definition, prefix, text_limit)
    part: dict[str, Any] = _rewritten({key: value for key, value in schema.items() if key not in ("$defs", "definitions")}, prefix, text_limit)
    return part


def _rewritten(schema: Any, prefix: str, text_limit: int | None) -> Any:
    """A copy with references renamed, texts limited, and what only people read left out."""
    if isinstance(schema, list):
        return [_rewritten(item, prefix, text_limit) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "patternProperties") and isinstance(value, Mapping):
            result[key] = {name: _rewritten(item, prefix, text_limit) for name, item in value.items()}
        elif key == "$ref" and isinstance(value, str):
            result[key] = f"#/$defs/{prefix}{value.rpartition('/')[2]}" if value.startswith("#/") else value
        elif key in ("enum", "const", "required"):
            result[key] = value
        elif key not in ("description", "title", "default", "examples"):
            result[key] = _rewritten(value, prefix, text_limit)
    limited = text_limit is not None and result.get("type") == "string"
    if limited and not result.keys() & {"enum", "const", "pattern", "format", "maxLength"}:
        result["maxLength"] = max(text_limit or 0, result.get("minLength", 0))
    return result


def shape(schema: Mapping[str, Any]) -> Any:
    """Parameters as an example-like JSON value: keys as they are, and in place of each value words for what goes there.

    Such as `{"order_id": "integer: number of the order", "tags": ["string"]}`.
    """
    definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    return _shape(schema, definitions, _DEPTH)


def _shape(schema: Any, definitions: Mapping[str, Any], depth: int, *, optional: bool = False) -> Any:
    if not isinstance(schema, Mapping):
        return "any"
    if isinstance(reference := schema.get("$ref"), str):
        target = definitions.get(reference.rpartition("/")[2], {})
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}} if depth else {"type": "object"}
    variants = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(variants, list):
        real = [variant for variant in variants if variant != {"type": "null"}]
        optional = optional or len(real) < len(variants)
        if len(real) == 1:
            outer = {key: value for key, value in schema.items() if key == "description"}
            return _shape({**real[0], **outer}, definitions, depth, optional=optional)
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and depth:
        required = schema.get("required", [])
        return {
            name: _shape(item, definitions, depth - 1, optional=name not in required) for name, item in properties.items()
        }
    if schema.get("type") == "array" and depth:
        return [_shape(schema.get("items", {}), definitions, depth - 1)]
    return _words(schema, definitions, depth, optional)


def _words(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int, optional: bool) -> str:
    variants = schema.get("anyOf") or schema.get("oneOf")
    if "enum" in schema or "const" in schema:
        words = " or ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    elif isinstance(variants, list) and depth:
        kinds = [_shape(variant, definitions, 0) for variant in variants]
        words = " or ".join(dict.fromkeys(kind if isinstance(kind, str) else "object" for kind in kinds))
    else:
        kind = schema.get("type", "any")
        words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    description = " ".join(str(schema.get("description") or "").split())
    return words + (", optional" if optional else "") + (f": {description}" if description else "")
