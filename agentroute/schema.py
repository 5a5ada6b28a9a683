"""Signatures and types to JSON Schema, and JSON back to validated values. pydantic does the work; imported when first used."""

from __future__ import annotations

import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from .annotations import known, resolved
from .context import Context
from .errors import ErrorConfig
from .problems import told

__all__ = ["Invalid", "Signature", "TypeSchema", "docstring_summary", "signature_of"]


class Invalid(Exception):
    """JSON that does not fit; the message tells a model in plain words what to correct."""


_CONTEXT_NAMES = {"Context", "agentroute.Context"}


def _is_context(annotation: Any) -> bool:
    if annotation is Context:
        return True
    if isinstance(annotation, str):  # it may be imported for type checkers only
        return {part.strip() for part in annotation.removeprefix("Optional[").removesuffix("]").split("|")} - {"None"} <= _CONTEXT_NAMES
    if typing.get_origin(annotation) is typing.Annotated:
        return _is_context(typing.get_args(annotation)[0])
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

        fields = {f"p{index}": self._field(parameter) for index, parameter in enumerate(self.parameters.values())}
        config = pydantic.ConfigDict(extra="forbid", hide_input_in_errors=True, populate_by_name=False)
        try:
            return TypeSchema(pydantic.create_model(f"{self.name}_arguments", __config__=config, **fields))
        except (pydantic.errors.PydanticUserError, ErrorConfig, TypeError, NameError) as error:
            problem = _reason(error)
        for name in self.parameters:
            try:
                TypeSchema(self.hints[name])
            except ErrorConfig as error:
                problem = f"{name}: {error}"
                break
        raise ErrorConfig(f"tool {self.name!r}: no schema for its parameters ({problem})")

    def _field(self, parameter: inspect.Parameter) -> Any:
        """A parameter as `create_model` takes it."""
        import pydantic

        name, default, annotation = parameter.name, parameter.default, self.hints[parameter.name]
        # Fields have names of their own, so that a parameter may be called `json`, `copy` or `model_config`.
        options: dict[str, Any] = {"alias": name}
        if name in self.docs and not _described(annotation) and not getattr(default, "description", None):
            options["description"] = self.docs[name]
        if _is_field(default):
            annotation = typing.Annotated[annotation, copy(default)]
        elif default is not parameter.empty:
            options["default"] = default
            if default is None:  # `x: int = None` says that None will do
                annotation = typing.Optional[annotation]  # noqa: UP045
        return annotation, pydantic.Field(**options)

    def values(self, validated: Any) -> dict[str, Any]:
        """What the function will receive, by parameter name and in its order; its own defaults where the model left something out."""
        given = self._given(validated)
        return {name: given.get(name, p.default) for name, p in self.parameters.items()}

    def _given(self, validated: Any) -> dict[str, Any]:
        return {
            name: getattr(validated, f"p{index}")
            for index, (name, parameter) in enumerate(self.parameters.items())
            if f"p{index}" in validated.model_fields_set or not _has_default(parameter)
        }

    def bind(self, validated: Any, context: Any) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments for the call; what the model left out keeps the function's own default."""
        values = self._given(validated)
        if self.context is not None:
            values[self.context] = context
        args = [values.pop(name) if name in values else self.parameters[name].default for name in self.positional]
        return args, values


def _is_field(default: Any) -> bool:
    return type(default).__name__ == "FieldInfo" and type(default).__module__.startswith("pydantic.")


def _has_default(parameter: inspect.Parameter) -> bool:
    """Whether the function fills the parameter in itself; `= Field(…)` is for pydantic to fill in."""
    return parameter.default is not parameter.empty and not _is_field(parameter.default)


def _described(annotation: Any) -> bool:
    return any(getattr(extra, "description", None) for extra in getattr(annotation, "__metadata__", ()))


def signature_of(function: Callable[..., Any], name: str, names: Mapping[str, Any] | None = None) -> Signature:
    """Reads a function's parameters, type hints and docstring (Google, NumPy or reST style).

    Args:
        names: what local names in its hints stand for; see `namespace_of`.

    Raises:
        ErrorConfig: it is not callable, its signature cannot be read, or a type hint names something unknown.
    """
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        raise ErrorConfig(f"tool {name!r}: {function!r} has no readable signature; wrap it in a function") from None
    _check_bound(function, found, name)
    parameters: dict[str, inspect.Parameter] = {}
    context: str | None = None
    positional: list[str] = []
    hints: dict[str, Any] = {}
    for parameter in found.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        annotation = parameter.annotation
        if not _is_context(annotation):
            annotation = hints[parameter.name] = _hint(function, parameter, names or {}, name)
        if _is_context(annotation) or (parameter.annotation is parameter.empty and parameter.name == "ctx"):
            if context is not None:
                raise ErrorConfig(f"tool {name!r}: two parameters take the Context ({context!r}, {parameter.name!r}); keep one")
            context = parameter.name
        else:
            parameters[parameter.name] = parameter
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(parameter.name)
    if found.parameters and not parameters and context is None:
        raise ErrorConfig(
            f"tool {name!r} takes only *args or **kwargs, which cannot be offered to a model; name its parameters, "
            "or put functools.wraps on the decorator that hides them"
        )
    _, docs = _read_docstring(function)
    return Signature(name, parameters, context, tuple(positional), hints, docs)


def _check_bound(function: Callable[..., Any], found: inspect.Signature, name: str) -> None:
    """Raises ErrorConfig for a method that was taken from its class instead of an object."""
    first = next(iter(found.parameters.values()), None)
    outer = getattr(function, "__qualname__", "").rpartition(".")[0]
    if first is not None and first.name in ("self", "cls") and first.annotation is first.empty and outer and not outer.endswith("<locals>"):
        raise ErrorConfig(f"tool {name!r} is a method without its object; give the bound one, such as thing.{name}")


def _hint(function: Callable[..., Any], parameter: inspect.Parameter, names: Mapping[str, Any], name: str) -> Any:
    if parameter.annotation is parameter.empty:
        return Any
    try:
        return known(resolved(parameter.annotation, function, names))
    except Exception as error:
        problem = str(error)
    raise ErrorConfig(
        f"tool {name!r}, {parameter.name}: a type hint cannot be resolved ({problem}); define that type at module or cell level, before the tool"
    )


def docstring_summary(function: Callable[..., Any]) -> str:
    """What a function's docstring says it does, without its parameters."""
    return _read_docstring(function)[0]


def _docstring(function: Any) -> str | None:
    while isinstance(function, partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return inspect.getdoc(function)
    return inspect.getdoc(type(function).__call__) or inspect.getdoc(function)  # an object that can be called


_TITLE = re.compile(
    r"((?P<parameters>Args|Arguments|Parameters|Params|Attributes|(Keyword|Other) (Args|Arguments|Parameters))"
    r"|Returns?|Yields?|Raises|Exceptions?|Except|Examples?):\s*$"
)
_FIELD = re.compile(r":(param|parameter|arg|argument|key|keyword|type|raises?|except|exception|returns?|rtype|yields?|attribute|var|meta)\b[^:]*:")


def _read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What the function does, and its parameters' descriptions.

    What it does is all of the text but for the sections of parameters, results, errors and examples.
    """
    text = _docstring(function)
    if not text:
        return "", {}
    import docstring_parser

    style = docstring_parser.DocstringStyle
    try:
        parsed = docstring_parser.parse(text)
        if parsed.meta and parsed.style not in (style.GOOGLE, style.REST):
            prose, params = "\n\n".join(part for part in (parsed.short_description, parsed.long_description) if part), parsed.params
        else:
            prose, sections, fields = _sections(text)
            params = docstring_parser.parse(sections, style.GOOGLE).params + docstring_parser.parse(fields, style.REST).params
    except Exception:  # a docstring in a style of its own is still a description
        return text, {}
    docs: dict[str, str] = {}
    for param in params:
        for name in param.arg_name.split(","):  # "a, b: Both." describes two
            if param.description and name.strip():
                docs[name.split()[0].lstrip("*")] = " ".join(param.description.split())
    return prose, docs


def _sections(text: str) -> tuple[str, str, str]:
    """A docstring's prose, wherever it stands; its parameters in Google's style as one section; its fields in reST's style."""
    lines = text.splitlines()
    if _TITLE.match(lines[0]) and not _is_body(_next(lines, 0)):
        lines[1:] = [f"    {line}" for line in lines[1:]]  # the only section: `getdoc` took its indent for that of the text
    prose: list[str] = []
    fields: list[str] = []
    sections: list[list[str]] = []
    here = prose
    for number, line in enumerate(lines):
        if _FIELD.match(line):
            here = fields
        elif (title := _TITLE.match(line)) and _is_body(_next(lines, number)):
            here = []
            sections += [here] if title["parameters"] else []
            continue
        elif line.strip() and not line[0].isspace() and not (here is fields and lines[number - 1].strip()):
            here = prose
        here.append(line)
    even = [textwrap.indent(textwrap.dedent("\n".join(section)), "    ") for section in sections if any(map(str.strip, section))]
    joined = "\n".join(["", "Args:", *even]) if even else ""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(prose)).strip(), joined, "\n".join(["", *fields])


def _next(lines: list[str], number: int) -> str:
    """The next line that is not empty."""
    return next((line for line in lines[number + 1 :] if line.strip()), "")


def _is_body(line: str) -> bool:
    """Whether a title that this line follows is one; the section may be empty."""
    return line[:1].isspace() or not line or _TITLE.match(line) is not None


@cache
def _schema_maker() -> Any:
    """pydantic's, without its warnings: a default that JSON cannot hold is the function's own affair."""
    from pydantic.json_schema import GenerateJsonSchema

    class Maker(GenerateJsonSchema):
        ignored_warning_kinds = {"non-serializable-default", "skipped-choice"}

    return Maker


class TypeSchema:
    """One type: its JSON Schema, and JSON validated into it."""

    def __init__(self, kind: Any) -> None:
        import pydantic

        try:
            self._adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(known(kind))
            self.schema: dict[str, Any] = _tidy(self._adapter.json_schema(by_alias=True, schema_generator=_schema_maker()))
        except (pydantic.errors.PydanticUserError, pydantic.errors.PydanticInvalidForJsonSchema, NameError, TypeError) as error:
            problem = _reason(error)
        else:
            return
        shown = kind.__name__ if isinstance(kind, type) and typing.get_origin(kind) is None else repr(kind)
        raise ErrorConfig(f"no JSON Schema can be made for {shown} ({problem}); use types pydantic knows, such as a BaseModel or a dataclass")

    def validate_json(self, text: str) -> Any:
        """The value in a JSON text.

        Raises:
            Invalid: it is no JSON, or does not fit; the message lists every problem.
        """
        import pydantic
        import pydantic_core

        text = _sendable(text)
        try:
            return self._adapter.validate_json(text)
        except pydantic.ValidationError as error:
            problems = error.errors(include_url=False)
        given = None if problems[0]["type"] == "json_invalid" else pydantic_core.from_json(text)
        raise Invalid(told(problems, given, self.schema.get("$defs", ())))

    def validate(self, value: Any) -> Any:
        """The value a Python object stands for (already of the type, or JSON-like). Errors as `validate_json`."""
        import pydantic

        try:
            return self._adapter.validate_python(value)
        except pydantic.ValidationError as error:
            problems = error.errors(include_url=False)
        raise Invalid(told(problems, value, self.schema.get("$defs", ())))


def _reason(error: Exception) -> str:
    """Why there is no schema, without pydantic's advice to authors of types and Python's way of writing a class."""
    line = re.sub(r"<class '(?:[\w.<>]+\.)?(\w+)'>", r"\1", (str(error) or type(error).__name__).splitlines()[0])
    unknown = re.match(r"Unable to generate pydantic-core schema for (.+?)\. Set ", line)
    return f"pydantic knows none for {unknown[1]}" if unknown else line


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode() if any("\ud800" <= c <= "\udfff" for c in text) else text


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
