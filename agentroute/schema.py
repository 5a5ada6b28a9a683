"""Signatures and types to JSON Schema, and JSON back to validated values. pydantic does the work; imported when first used."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .context import Context
from .errors import ErrorConfig

__all__ = ["Invalid", "Signature", "TypeSchema", "docstring_summary", "signature_of"]


class Invalid(Exception):
    """JSON that does not fit; the message tells a model in plain words what to correct."""


def _is_context(annotation: Any) -> bool:
    if annotation is Context or annotation in ("Context", "agentroute.Context"):
        return True
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_is_context(arg) for arg in typing.get_args(annotation) if arg is not type(None))
    return False


@dataclass(frozen=True)
class Signature:
    """What a function takes, apart from the run's Context.

    `parameters` are offered to a model; `context` names the parameter that receives the Context, if any.
    """

    name: str
    parameters: dict[str, inspect.Parameter]
    context: str | None
    positional: tuple[str, ...]
    hints: dict[str, Any]
    docs: dict[str, str]

    def build(self) -> TypeSchema:
        """The validator for a call's arguments.

        Raises:
            ErrorConfig: pydantic knows no schema for a parameter's type.
        """
        import pydantic

        fields: dict[str, Any] = {}
        for index, (name, parameter) in enumerate(self.parameters.items()):
            annotation = self.hints.get(name, Any if parameter.annotation is parameter.empty else parameter.annotation)
            default = ... if parameter.default is parameter.empty else parameter.default
            # Fields have names of their own, so that a parameter may be called `json`, `copy` or `model_config`.
            options: dict[str, Any] = {"alias": name}
            if name in self.docs and not _described(annotation):
                options["description"] = self.docs[name]
            fields[f"p{index}"] = (annotation, pydantic.Field(default, **options))
        config = pydantic.ConfigDict(extra="forbid", hide_input_in_errors=True, populate_by_name=False)
        try:
            model = pydantic.create_model(f"{self.name}_arguments", __config__=config, **fields)
            return TypeSchema(model)
        except (pydantic.errors.PydanticUserError, TypeError, NameError) as error:
            problem = str(error).splitlines()[0]
        raise ErrorConfig(f"tool {self.name!r}: no schema for its parameters ({problem}); annotate them with types pydantic knows")

    def values(self, validated: Any) -> dict[str, Any]:
        """What the function will receive, by parameter name; its own defaults where the model left something out."""
        defaults = {name: p.default for name, p in self.parameters.items() if p.default is not p.empty}
        return defaults | self._given(validated)

    def _given(self, validated: Any) -> dict[str, Any]:
        return {
            name: getattr(validated, f"p{index}")
            for index, name in enumerate(self.parameters)
            if f"p{index}" in validated.model_fields_set
        }

    def bind(self, validated: Any, context: Any) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments for the call; what the model left out keeps the function's own default."""
        values = self._given(validated)
        if self.context is not None:
            values[self.context] = context
        args: list[Any] = []
        for name in self.positional:
            if name not in values:
                break
            args.append(values.pop(name))
        return args, values


def _described(annotation: Any) -> bool:
    return any(getattr(extra, "description", None) for extra in getattr(annotation, "__metadata__", ()))


def signature_of(function: Callable[..., Any], name: str) -> Signature:
    """Reads a function's parameters, type hints and docstring (Google, NumPy or reST style).

    Raises:
        ErrorConfig: it is not callable, its signature cannot be read, or a type hint names something unknown.
    """
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        raise ErrorConfig(f"tool {name!r}: {function!r} has no readable signature; wrap it in a function") from None
    target = function
    while isinstance(target, partial):
        target = target.func
    if not (inspect.isfunction(target) or inspect.ismethod(target) or inspect.isbuiltin(target) or inspect.isclass(target)):
        target = type(target).__call__
    try:
        hints = typing.get_type_hints(target, include_extras=True)
    except NameError as error:
        problem = str(error)
    except TypeError:
        problem, hints = "", {}
    else:
        problem = ""
    if problem:
        raise ErrorConfig(f"tool {name!r}: a type hint cannot be resolved ({problem}); define that type at module or cell level, before the tool")
    first = next(iter(found.parameters.values()), None)
    if first is not None and first.name in ("self", "cls") and first.annotation is first.empty and "." in getattr(target, "__qualname__", ""):
        raise ErrorConfig(f"tool {name!r} is a method without its object; give the bound one, such as thing.{name}")
    parameters: dict[str, inspect.Parameter] = {}
    context: str | None = None
    positional: list[str] = []
    for parameter in found.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        annotation = hints.get(parameter.name, parameter.annotation)
        if _is_context(annotation) or (annotation is parameter.empty and parameter.name == "ctx"):
            if context is not None:
                raise ErrorConfig(f"tool {name!r}: two parameters take the Context ({context!r}, {parameter.name!r}); keep one")
            context = parameter.name
        else:
            parameters[parameter.name] = parameter
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(parameter.name)
    _, docs = _read_docstring(function)
    return Signature(name, parameters, context, tuple(positional), hints, docs)


def docstring_summary(function: Callable[..., Any]) -> str:
    """What a function's docstring says it does, without its parameters."""
    return _read_docstring(function)[0]


def _read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What the function does (short part, blank line, long part), and its parameters' descriptions."""
    text = inspect.getdoc(function) if not isinstance(function, partial) else inspect.getdoc(function.func)
    if not text:
        return "", {}
    import docstring_parser

    try:
        parsed = docstring_parser.parse(text)
    except Exception:  # a docstring in a style of its own is still a description
        return text, {}
    parts = [part for part in (parsed.short_description, parsed.long_description) if part]
    docs = {param.arg_name.split(" ")[0]: " ".join(param.description.split()) for param in parsed.params if param.description}
    return "\n\n".join(parts), docs


class TypeSchema:
    """One type: its JSON Schema, and JSON validated into it."""

    def __init__(self, kind: Any) -> None:
        import pydantic

        try:
            self._adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(kind)
            self.schema: dict[str, Any] = _tidy(self._adapter.json_schema(by_alias=True))
        except (pydantic.errors.PydanticUserError, pydantic.errors.PydanticInvalidForJsonSchema, NameError, TypeError) as error:
            problem = str(error).splitlines()[0]
        else:
            return
        raise ErrorConfig(f"no JSON Schema can be made for {kind!r} ({problem})")

    def validate_json(self, text: str) -> Any:
        """The value in a JSON text.

        Raises:
            Invalid: it is no JSON, or does not fit; the message lists every problem.
        """
        import pydantic

        try:
            return self._adapter.validate_json(_sendable(text))
        except pydantic.ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=True)
        raise Invalid("\n".join(_in_words(problem) for problem in problems[:20]))

    def validate(self, value: Any) -> Any:
        """The value a Python object stands for (already of the type, or JSON-like). Errors as `validate_json`."""
        import pydantic

        try:
            return self._adapter.validate_python(value)
        except pydantic.ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=True)
        raise Invalid("\n".join(_in_words(problem) for problem in problems[:20]))


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode() if any("\ud800" <= c <= "\udfff" for c in text) else text


def _in_words(problem: Any) -> str:
    """One validation problem for a model: where, what was expected, what came."""
    place = ".".join(str(part) for part in problem["loc"])
    kind, message = problem["type"], problem["msg"]
    if kind == "missing":
        return f"{place}: missing; it is required"
    if kind == "extra_forbidden":
        return f"{place}: there is no such argument"
    if kind == "json_invalid":
        return f"not valid JSON: {message.removeprefix('Invalid JSON: ')}"
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = problem.get("input")
    try:
        shown = json.dumps(given, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        shown = type(given).__name__
    shown = shown if len(shown) <= 80 else shown[:80] + "…"
    return f"{place + ': ' if place else ''}{message} (got {shown})"


_NAMED = ("properties", "$defs", "patternProperties", "definitions")


def _tidy(schema: Any) -> Any:
    """A schema without the titles pydantic adds; they only cost tokens. Property names stay, also one called title."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        if key in _NAMED and isinstance(value, dict):
            tidy[key] = {name: _tidy(item) for name, item in value.items()}
        elif key in ("default", "enum", "const", "examples"):
            tidy[key] = value
        else:
            tidy[key] = _tidy(value)
    return tidy
