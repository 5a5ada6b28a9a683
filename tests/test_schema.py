"""Signatures to JSON Schema, and a model's JSON to arguments: any shape pydantic can validate."""

import dataclasses
import enum
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict  # typing.TypedDict serves pydantic from Python 3.12 on

from agentroute import Context, ErrorConfig, Tool, tool
from agentroute.schema import Invalid, TypeSchema


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    title: str = "Mr"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Movie(TypedDict):
    name: str


def parameter(annotation: Any, default: Any = dataclasses.MISSING) -> dict:
    def f(value):
        return value

    f.__annotations__ = {"value": annotation}
    if default is not dataclasses.MISSING:
        f.__defaults__ = (default,)
    return tool(f).params_schema["properties"]["value"]


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (int, {"type": "integer"}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Optional[str], {"anyOf": [{"type": "string"}, {"type": "null"}]}),  # noqa: UP045
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (datetime, {"type": "string", "format": "date-time"}),
        (Annotated[int, Field(ge=1, description="How many.")], {"type": "integer", "minimum": 1, "description": "How many."}),
        (Any, {}),
    ],
)
def test_a_parameter_has_the_schema_of_its_type(annotation, schema):
    assert parameter(annotation) == schema


def test_a_default_is_told():
    assert parameter(int, 5) == {"type": "integer", "default": 5}


def test_nested_types_are_described_and_a_property_called_title_stays():
    def f(who: Address, where: Point, colour: Colour, film: Movie) -> None: ...

    schema = tool(f).params_schema
    assert schema["$defs"]["Address"]["properties"].keys() == {"street", "title"}
    assert "title" not in schema["$defs"]["Point"]
    assert schema["required"] == ["who", "where", "colour", "film"]


CALLS = [
    (int, '"5"', 5),
    (float, "2", 2.0),
    (bool, '"true"', True),
    (date, '"2026-11-21"', date(2026, 11, 21)),
    (Decimal, '"1.10"', Decimal("1.10")),
    (Colour, '"blue"', Colour.BLUE),
    (Address, '{"street": "High"}', Address(street="High")),
    (Point, '{"x": 1}', Point(1)),
    (set[int], "[1, 2, 1]", {1, 2}),
    (tuple[int, str], '[1, "a"]', (1, "a")),
    (int | None, "null", None),
    (Literal["a"], '"a"', "a"),
    (bytes, '"hi"', b"hi"),
]


@pytest.mark.parametrize(("annotation", "text", "value"), CALLS, ids=[str(row[0]) for row in CALLS])
def test_arguments_are_validated_and_coerced(annotation, text, value):
    def f(value):
        return value

    f.__annotations__ = {"value": annotation}
    made = tool(f)
    args, keywords = made._bind(made.parse(f'{{"value": {text}}}'), Context())
    assert {**keywords, "args": args} == {"value": value, "args": []}


STYLES = {
    "google": "Does it.\n\nAt length.\n\nArgs:\n    a: The first.\n    b (int): The second,\n        continued.\n",
    "numpy": "Does it.\n\nAt length.\n\nParameters\n----------\na : int\n    The first.\nb : int\n    The second, continued.\n",
    "rest": "Does it.\n\nAt length.\n\n:param a: The first.\n:param b: The second, continued.\n",
}


@pytest.mark.parametrize("style", STYLES)
def test_docstrings_of_every_style_are_read(style):
    def f(a: int, b: int): ...

    f.__doc__ = STYLES[style]
    made = tool(f)
    assert made.description == "Does it.\n\nAt length."
    assert {name: p["description"] for name, p in made.params_schema["properties"].items()} == {"a": "The first.", "b": "The second, continued."}


def call(function, arguments: str, **context):
    import asyncio

    made = tool(name="t")(function)
    return asyncio.run(made.invoke(made.parse(arguments), ctx=Context(**context)))


def _first(ctx: Context, a: int):
    return (ctx.deps, a)


def _last(a: int, ctx: Context):
    return (ctx.deps, a)


def _keyword(a: int, *, ctx: "Context | None" = None):
    return (ctx.deps, a)


def _untyped(a: int, ctx):
    return (ctx.deps, a)


def _positional(a: int, ctx: Context, /):
    return (ctx.deps, a)


class _Callable:
    def __call__(self, a: int, ctx: Context):
        return (ctx.deps, a)

    def method(self, a: int, ctx: Context):
        return (ctx.deps, a)


def _two(x: int, a: int, ctx: Context):
    return (ctx.deps, a)


FUNCTIONS = [_first, _last, _keyword, _untyped, _positional, _Callable(), _Callable().method, partial(_two, 0), lambda a, ctx: (ctx.deps, a)]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_context_is_given_wherever_it_stands_and_never_offered(function):
    assert call(function, '{"a": 1}', deps="d") == ("d", 1)
    assert list(tool(name="t")(function).params_schema["properties"]) == ["a"]


def test_names_that_pydantic_uses_itself_are_fine_as_parameters():
    def f(json: int, copy: int, model_config: int, schema: int, _private: int = 5):
        return json + copy + model_config + schema + _private

    assert call(f, '{"json": 1, "copy": 1, "model_config": 1, "schema": 1}') == 9


def test_star_arguments_are_not_offered():
    def f(a: int, *rest: int, **more: int): ...

    assert list(tool(f).params_schema["properties"]) == ["a"]


def test_a_decorated_function_stays_callable():
    @tool
    def add(a: int, b: int = 2) -> int:
        return a + b

    assert (add(1), add(1, b=5), add.__name__, isinstance(add, Tool)) == (3, 6, "add", True)


def test_a_schema_of_ones_own_is_used_as_it_is():
    schema = {"type": "object", "properties": {"q": {"type": "string"}}}
    made = Tool("search", "Searches.", schema, lambda q="": q.upper())
    import asyncio

    assert made.to_wire()["function"]["parameters"] is schema
    assert asyncio.run(made.invoke(made.parse('{"q": "x"}'), ctx=Context())) == "X"


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "<script>", "a\nb", "ä", None])
def test_names_that_providers_refuse_are_refused_at_once(name):
    with pytest.raises(ErrorConfig, match="tool name"):
        Tool(name, "", {}, print)


def test_an_unknown_type_hint_is_explained_before_any_request():
    def f(a: "Nowhere"): ...  # noqa: F821

    with pytest.raises(ErrorConfig, match=r"tool 'f'.*Nowhere"):
        _ = tool(f).params_schema


def test_a_type_without_schema_is_explained():
    class Strange: ...

    def f(a: Strange): ...

    f.__annotations__ = {"a": Strange}
    with pytest.raises(ErrorConfig, match="tool 'f'"):
        _ = tool(f).params_schema


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (int, '"x"', "expected an integer (got \"x\")"),
        (int, "{", "not valid JSON"),
        (Address, "{}", "street: missing"),
        (int, "[" * 100_000, "not valid JSON"),
        (int, "1" * 6000, "not valid JSON"),
        (str, '"\\ud83d"', ""),
    ],
)
def test_problems_are_told_in_words(kind, text, words):
    with pytest.raises(Invalid) as caught:
        TypeSchema(kind).validate_json(text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 2000
