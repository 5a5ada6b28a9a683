"""Tools: signatures of any shape, arguments validated and coerced, results as text, corrections in plain words.

Each row of SHAPES is a type: the schema a model is shown, what the model sends, what the function receives.
"""

from __future__ import annotations

import asyncio
import collections
import collections.abc
import dataclasses
import datetime as dt
import enum
import functools
import inspect
import json
import re
import threading
import typing
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypeVar

import numpy
import pandas
import pydantic
import pytest
import typing_extensions
from pydantic import BaseModel, Field
from pydantic_core import core_schema

import agentroute
from agentroute import Agent, Context, ErrorConfig, ErrorTool, Result, Retry, Tool, ToolCall, tool
from agentroute.schema import Invalid
from agentroute.testing import ModelFunction, ModelScripted
from agentroute.tools import result_text

T = TypeVar("T")


class Item(BaseModel):
    name: str
    price: Decimal = Decimal(0)


class Order(BaseModel):
    items: list[Item]
    ship_to: Place | None = None


@dataclasses.dataclass
class Place:
    city: str
    zip: str = ""


Order.model_rebuild()


@pydantic.dataclasses.dataclass
class Checked:
    n: int


class Film(typing.TypedDict):
    title: str
    year: typing.NotRequired[int]


class Shelf(typing.TypedDict, total=False):
    films: typing.Required[list[Film]]
    next: Shelf


class Song(typing_extensions.TypedDict):
    title: str


class Pair(NamedTuple):
    x: int
    y: int = 0


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Node(BaseModel):
    value: int
    children: list[Node] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
UserId = NewType("UserId", int)
Ints = typing_extensions.TypeAliasType("Ints", "list[int]")


class Box(BaseModel, Generic[T]):
    item: T


class Celsius:
    """A type of the user's own."""

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Celsius) and other.degrees == self.degrees

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(cls, core_schema.float_schema())


def made(annotation: Any, default: Any = inspect.Parameter.empty) -> Tool:
    """A tool with one parameter, `value`, that returns what it received."""

    def echo(value):
        return value

    echo.__annotations__ = {"value": annotation}
    if default is not inspect.Parameter.empty:
        echo.__defaults__ = (default,)
    return tool(echo)


def received(function: Any, arguments: dict[str, Any] | str, **context: Any) -> Any:
    """What the function returns for a model's call."""
    called = function if isinstance(function, Tool) else tool(name="t")(function)
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return asyncio.run(called.invoke(called.parse(text), ctx=Context(**context)))


def shown(function: Any) -> dict[str, Any]:
    """The parameters a model is shown."""
    return (function if isinstance(function, Tool) else tool(name="t")(function)).params_schema["properties"]


NULL = {"type": "null"}
STRING = {"type": "string"}
INTEGER = {"type": "integer"}
DAY, MOMENT = dt.date(2026, 1, 31), dt.datetime(2026, 1, 31, 14, 30, tzinfo=dt.UTC)


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def array(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


SHAPES = [
    ("int", int, INTEGER, "5", 5),
    ("float", float, {"type": "number"}, 2, 2.0),
    ("bool", bool, {"type": "boolean"}, "true", True),
    ("X | None, a value", int | None, {"anyOf": [INTEGER, NULL]}, "5", 5),
    ("X | None, null", int | None, {"anyOf": [INTEGER, NULL]}, None, None),
    ("Optional", Optional[str], {"anyOf": [STRING, NULL]}, None, None),  # noqa: UP045
    ("union of scalars", int | str, {"anyOf": [INTEGER, STRING]}, "5", "5"),
    ("union of models", Item | Checked, {"anyOf": [ref("Item"), ref("Checked")]}, {"n": 1}, Checked(1)),
    ("model", Item, ref("Item"), {"name": "a", "price": "1.10"}, Item(name="a", price=Decimal("1.10"))),
    ("nested model", Order, ref("Order"), {"items": [{"name": "a"}], "ship_to": {"city": "Rome"}}, Order(items=[Item(name="a")], ship_to=Place("Rome"))),
    ("dataclass", Place, ref("Place"), {"city": "Rome"}, Place("Rome")),
    ("pydantic dataclass", Checked, ref("Checked"), {"n": "1"}, Checked(1)),
    ("typing.TypedDict", Film, ref("Film"), {"title": "Up", "year": "2009"}, {"title": "Up", "year": 2009}),
    ("typing.TypedDict in a list", list[Film], array(ref("Film")), [{"title": "Up"}], [{"title": "Up"}]),
    ("typing.TypedDict or None", Film | None, {"anyOf": [ref("Film"), NULL]}, {"title": "Up"}, {"title": "Up"}),
    ("typing.TypedDict of itself", Shelf, ref("Shelf"), {"films": [], "next": {"films": [{"title": "Up"}]}}, {"films": [], "next": {"films": [{"title": "Up"}]}}),
    ("typing_extensions.TypedDict", Song, ref("Song"), {"title": "Hey"}, {"title": "Hey"}),
    ("NamedTuple", Pair, ref("Pair"), [1], Pair(1, 0)),
    ("NamedTuple by name", Pair, ref("Pair"), {"x": 1, "y": 2}, Pair(1, 2)),
    ("Enum", Colour, ref("Colour"), "blue", Colour.BLUE),
    ("IntEnum", Level, ref("Level"), 2, Level.HIGH),
    ("Literal", Literal["a", 1, None], {"enum": ["a", 1, None]}, 1, 1),
    ("Literal of Enum members", Literal[Colour.RED], {"type": "string", "const": "red"}, "red", Colour.RED),
    ("date", dt.date, {"type": "string", "format": "date"}, "2026-01-31", DAY),
    ("datetime", dt.datetime, {"type": "string", "format": "date-time"}, "2026-01-31T14:30:00Z", MOMENT),
    ("time", dt.time, {"type": "string", "format": "time"}, "14:30", dt.time(14, 30)),
    ("timedelta", dt.timedelta, {"type": "string", "format": "duration"}, "PT90S", dt.timedelta(seconds=90)),
    ("UUID", uuid.UUID, {"type": "string", "format": "uuid"}, str(uuid.UUID(int=1)), uuid.UUID(int=1)),
    ("Decimal", Decimal, {"anyOf": [{"type": "number"}, STRING]}, "1.10", Decimal("1.10")),
    ("Path", Path, {"type": "string", "format": "path"}, "/a/b", Path("/a/b")),
    ("bytes", bytes, {"type": "string", "format": "binary"}, "hi", b"hi"),
    ("set", set[int], array(INTEGER, uniqueItems=True), [1, 2, 1], {1, 2}),
    ("frozenset", frozenset[str], array(STRING, uniqueItems=True), ["a"], frozenset({"a"})),
    ("tuple", tuple[int, str], {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2}, [1, "a"], (1, "a")),
    ("tuple of any length", tuple[int, ...], array(INTEGER), [1, "2"], (1, 2)),
    ("bare list", list, array({}), [1, "a"], [1, "a"]),
    ("bare dict", dict, {"type": "object", "additionalProperties": True}, {"a": 1}, {"a": 1}),
    ("Sequence", collections.abc.Sequence[int], array(INTEGER), [1], [1]),
    ("Iterable, checked before the call", collections.abc.Iterable[int], array(INTEGER), ["1"], [1]),
    ("dict of models", dict[str, Item], {"type": "object", "additionalProperties": ref("Item")}, {"k": {"name": "a"}}, {"k": Item(name="a")}),
    ("dict with other keys", dict[int, str], {"type": "object", "additionalProperties": STRING}, {"1": "a"}, {1: "a"}),
    ("recursive model", Node, ref("Node"), {"value": 1, "children": [{"value": 2}]}, Node(value=1, children=[Node(value=2)])),
    ("discriminated union", Pet, {"oneOf": [ref("Cat"), ref("Dog")], "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}}}, {"kind": "dog"}, Dog(kind="dog")),
    ("generic model", Box[int], ref("Box_int_"), {"item": "1"}, Box[int](item=1)),
    ("type variable", T, {}, {"a": 1}, {"a": 1}),
    ("NewType", UserId, INTEGER, "7", 7),
    ("TypeAliasType", Ints, ref("Ints"), ["1"], [1]),
    ("root model", pydantic.RootModel[list[int]], ref("RootModel_list_int__"), [1], pydantic.RootModel[list[int]]([1])),
    ("a type of one's own", Celsius, {"type": "number"}, 21, Celsius(21.0)),
    ("Annotated with limits", Annotated[int, Field(ge=1, description="How many.")], {**INTEGER, "minimum": 1, "description": "How many."}, 3, 3),
    ("Annotated pattern", Annotated[str, Field(pattern="^a")], {**STRING, "pattern": "^a"}, "abc", "abc"),
    ("any JSON", pydantic.JsonValue, ref("JsonValue"), {"a": [1, None]}, {"a": [1, None]}),
    ("Any", Any, {}, [1], [1]),
    ("None", None, NULL, None, None),
    ("LiteralString", typing.LiteralString, STRING, "a", "a"),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "schema", "sent", "value"), [row[1:] for row in SHAPES], ids=[row[0] for row in SHAPES])
def test_a_type_is_shown_as_its_schema_and_received_as_its_value(annotation, schema, sent, value):
    assert shown(made(annotation))["value"] == schema
    got = received(made(annotation), {"value": sent})
    assert (got, type(got)) == (value, type(value))


def test_there_are_enough_shapes():
    assert len(SHAPES) >= 40


@pytest.mark.parametrize(
    ("annotation", "default", "schema"),
    [
        (int, 5, {**INTEGER, "default": 5}),
        (Colour, Colour.RED, {**ref("Colour"), "default": "red"}),
        (dt.date, DAY, {"type": "string", "format": "date", "default": "2026-01-31"}),
        (Place, Place("Rome"), {**ref("Place"), "default": {"city": "Rome", "zip": ""}}),
        (list[int], [1], {**array(INTEGER), "default": [1]}),
        (str, None, {"anyOf": [STRING, NULL], "default": None}),
        (Any, threading.Lock, {}),  # nothing a model could be told, and nothing to warn of
    ],
)
def test_a_default_is_shown_and_the_functions_own_is_used(annotation, default, schema):
    assert shown(made(annotation, default))["value"] == schema
    assert "required" not in made(annotation, default).params_schema
    assert received(made(annotation, default), {}) is default


def test_a_parameter_that_defaults_to_none_may_be_sent_as_null():
    assert received(made(int, None), {"value": None}) is None


@pytest.mark.parametrize(
    ("annotation", "default", "value", "description"),
    [
        (int, Field(5, ge=1, description="How many."), 5, "How many."),
        (list[int], Field(default_factory=list, description="Which."), [], "Which."),
        (Annotated[int, Field(default=7, description="How far.")], inspect.Parameter.empty, 7, "How far."),
    ],
)
def test_defaults_of_fields_are_filled_in(annotation, default, value, description):
    assert shown(made(annotation, default))["value"]["description"] == description
    assert received(made(annotation, default), {}) == value


def test_limits_of_a_field_given_as_default_hold():
    with pytest.raises(Invalid, match="value: must be at least 1"):
        made(int, Field(5, ge=1)).parse('{"value": 0}')


@pytest.mark.parametrize(("annotation", "sent", "value"), [(int, "5", 5), (dt.date, "2026-01-31", DAY), (Place, {"city": "Rome"}, Place("Rome")), (Colour, "red", Colour.RED), (Literal[Colour.RED], Colour.RED, Colour.RED), (Film, {"title": "Up"}, {"title": "Up"})])
def test_a_tool_called_by_code_with_a_dictionary_validates_it_too(annotation, sent, value):
    assert asyncio.run(made(annotation).invoke({"value": sent}, ctx=Context())) == value


# ---- where parameters and the Context stand


def keyword_only(a: int, *, b: int = 2):
    return (a, b)


def positional_only(a: int = 1, b: int = 2, /, c: int = 3):
    return (a, b, c)


def stars(a: int, *rest: int, **more: int):
    return (a, rest, more)


@pytest.mark.parametrize(
    ("function", "sent", "value"),
    [
        (keyword_only, {"a": 1, "b": "5"}, (1, 5)),
        (keyword_only, {"a": 1}, (1, 2)),
        (positional_only, {"b": 9}, (1, 9, 3)),
        (positional_only, {"c": 9}, (1, 2, 9)),
        (stars, {"a": 1}, (1, (), {})),
        (functools.partial(keyword_only, b=7), {"a": 1}, (1, 7)),
        (functools.partial(positional_only, 7), {"b": 8}, (7, 8, 3)),
    ],
)
def test_arguments_arrive_where_the_function_takes_them(function, sent, value):
    assert received(function, sent) == value


def test_star_arguments_are_not_offered():
    assert list(shown(stars)) == ["a"]


def ctx_first(ctx: Context, a: int, b: int):
    return ctx.deps, a, b


def ctx_middle(a: int, run: Context, b: int):
    return run.deps, a, b


def ctx_keyword(a: int, b: int, *, ctx: Context):
    return ctx.deps, a, b


def ctx_optional(a: int, b: int, ctx: Context | None = None):
    return ctx.deps, a, b


def ctx_union(a: int, b: int, ctx: Context | None = None):
    return ctx.deps, a, b


def ctx_by_module(a: int, ctx: agentroute.Context, b: int):
    return ctx.deps, a, b


def ctx_annotated(a: int, ctx: Annotated[Context, "the run"], b: int):
    return ctx.deps, a, b


def ctx_untyped(a: int, b: int, ctx):
    return ctx.deps, a, b


def ctx_positional(a: int, ctx: Context, b: int, /):
    return ctx.deps, a, b


async def ctx_async(a: int, b: int, ctx: Context):
    return ctx.deps, a, b


CONTEXTS = [ctx_first, ctx_middle, ctx_keyword, ctx_optional, ctx_union, ctx_by_module, ctx_annotated, ctx_untyped, ctx_positional, ctx_async]


@pytest.mark.parametrize("function", CONTEXTS)
def test_the_context_is_given_wherever_it_stands_and_cannot_be_sent(function):
    assert received(function, {"a": 1, "b": 2}, deps="d") == ("d", 1, 2)
    assert list(shown(function)) == ["a", "b"]
    for name in ("ctx", "run", "self"):
        with pytest.raises(Invalid, match=f"{name}: there is no such argument"):
            tool(function).parse(json.dumps({"a": 1, "b": 2, name: {"deps": "evil"}}))


def test_what_a_function_returns_need_not_be_known():
    def look(a: int, ctx: Context | None = None) -> Nowhere:  # noqa: F821
        return ctx.deps, a

    assert received(look, {"a": 1}, deps="d") == ("d", 1)


# ---- where functions come from


class Shop:
    """A shop.

    Args:
        order: not this one.
    """

    def __init__(self, name: str = "north") -> None:
        self.name = name

    def __call__(self, order: int):
        """Looks up an order.

        Args:
            order: The number on the slip.
        """
        return (self.name, order)

    def method(self, order: int):
        return (self.name, order)

    @classmethod
    def of_class(cls, order: int):
        return (cls.__name__, order)

    @staticmethod
    def static(order: int):
        return ("static", order)

    @tool
    def tool_of_object(self, order: int):
        return (self.name, order)

    @tool
    @classmethod
    def tool_of_class(cls, order: int):
        return (cls.__name__, order)

    @tool
    @staticmethod
    def static_tool(order: int):
        return ("static", order)

    async def later(self, order: int):
        return (self.name, order)


class AsyncShop:
    async def __call__(self, order: int):
        return ("async", order)


def plain(order: int):
    return ("plain", order)


@functools.wraps(plain)
def wrapped(*args, **kwargs):
    return plain(*args, **kwargs)


async def coroutine(order: int):
    return ("coroutine", order)


@functools.wraps(coroutine)
def wrapper_of_async(*args, **kwargs):
    return coroutine(*args, **kwargs)


SOURCES = [
    (plain, "plain"), (wrapped, "plain"), (coroutine, "coroutine"), (wrapper_of_async, "coroutine"), (Shop(), "north"), (AsyncShop(), "async"),
    (Shop().method, "north"), (Shop().later, "north"), (Shop.of_class, "Shop"), (Shop.static, "static"), (Shop().tool_of_object, "north"),
    (Shop.tool_of_class, "Shop"), (Shop().tool_of_class, "Shop"), (Shop.static_tool, "static"), (functools.partial(coroutine), "coroutine"),
    (functools.partial(Shop().method), "north"), (lambda order: ("lambda", int(order)), "lambda"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "name"), SOURCES)
def test_whatever_can_be_called_can_be_a_tool(function, name):
    assert list(shown(function)) == ["order"]
    assert received(function, {"order": "5"}) == (name, 5)


def test_a_callable_object_is_described_by_its_call():
    made = tool(name="shop")(Shop())
    assert (made.description, made.params_schema["properties"]["order"]["description"]) == ("Looks up an order.", "The number on the slip.")


def test_types_local_to_a_function_are_found_though_hints_are_text():
    class Ticket(BaseModel):
        number: int

    def look():
        @tool
        def read(ticket: Ticket, more: list[Ticket] | None = None):
            return ticket

        return read

    assert received(look(), {"ticket": {"number": "5"}}) == Ticket(number=5)


def test_a_tool_does_not_keep_the_locals_around_it():
    class Big: ...

    import weakref

    def define():
        big = Big()

        @tool
        def read(a: int):
            return a

        return read, weakref.ref(big)

    read, big = define()
    assert (received(read, {"a": 1}), big()) == (1, None)


def test_an_unknown_type_names_the_parameter():
    def read(ticket: Nowhere): ...  # noqa: F821

    with pytest.raises(ErrorConfig, match=r"tool 'read', ticket: .*'Nowhere'"):
        _ = tool(read).params_schema


def test_a_type_without_a_schema_names_the_parameter_and_the_type():
    def read(a: int, frame: pandas.DataFrame): ...

    with pytest.raises(ErrorConfig, match=r"tool 'read': .*frame: .*DataFrame") as caught:
        _ = tool(read).params_schema
    assert "<class" not in str(caught.value)


def test_names_that_pydantic_uses_itself_are_fine_as_parameters():
    def f(model_config: int, json: int, schema: int, copy: int, model_fields: int, self_: int, cls: int, _private: int = 5, __dunder: int = 6):
        return model_config + json + schema + copy + model_fields + self_ + cls + _private + __dunder

    sent = dict.fromkeys(("model_config", "json", "schema", "copy", "model_fields", "self_", "cls"), 1)
    assert received(f, sent) == 18


def test_a_plain_function_may_call_its_parameter_self():
    assert received(lambda self, a: (self, a), {"self": 1, "a": 2}) == (1, 2)


# ---- docstrings

DOCSTRINGS = {
    "google": "Finds orders.\n\nOnly open ones.\n\nArgs:\n    first (int): The first\n        of them.\n    second (int, optional): The second. Defaults to 2.\n\nReturns:\n    The orders.\n",
    "numpy": "Finds orders.\n\nOnly open ones.\n\nParameters\n----------\nfirst : int\n    The first\n    of them.\nsecond : int, optional\n    The second. Defaults to 2.\n\nReturns\n-------\nlist\n    The orders.\n",
    "rest": "Finds orders.\n\nOnly open ones.\n\n:param first: The first\n    of them.\n:type first: int\n:param int second: The second. Defaults to 2.\n:returns: The orders.\n",
}


PARTS = {  # docstrings of every shape: what the tool is said to do, and its parameters
    "parameters, no summary": ("\n    Args:\n        a: The a.\n            And more.\n        b (int): The b.\n    ", "", {"a": "The a. And more.", "b": "The b."}),
    "parameters on the first line": ("Args:\n        a: The a.\n        b: The b.\n    ", "", {"a": "The a.", "b": "The b."}),
    "parameters on the first line, then more": ("Args:\n        a: The a.\n\n    Use it seldom.\n    ", "Use it seldom.", {"a": "The a."}),
    "reST parameters, no summary": ("\n    :param a: The a.\n    :param b: The b.\n    ", "", {"a": "The a.", "b": "The b."}),
    "prose after Args": ("Does.\n\n    Args:\n        a: The a.\n\n    Use it seldom.\n    ", "Does.\n\nUse it seldom.", {"a": "The a."}),
    "prose after Raises": ("Does.\n\n    Args:\n        a: The a.\n\n    Raises:\n        ValueError: no a.\n\n    Use it seldom.\n    ", "Does.\n\nUse it seldom.", {"a": "The a."}),
    "prose after reST fields": ("Does.\n\n    :param a: The a.\n        And more.\n    :raises ValueError: no a.\n\n    Use it seldom.\n    ", "Does.\n\nUse it seldom.", {"a": "The a. And more."}),
    "a section of its own": ("Does.\n\n    Args:\n        a: The a.\n\n    Usage:\n        Once a day.\n\n    Returns:\n        The c.\n    ", "Does.\n\nUsage:\n    Once a day.", {"a": "The a."}),
    "Raises in words": ("Does.\n\n    Raises:\n        When there is no a.\n\n    Args:\n        a: The a.\n    ", "Does.", {"a": "The a."}),
    "two sections of parameters": ("Does.\n\n    Args:\n        a: The a.\n\n    Keyword Args:\n      b: The b.\n    ", "Does.", {"a": "The a.", "b": "The b."}),
    "an empty section": ("Does.\n\n    Args:\n\n    Returns:\n        The c.\n    ", "Does.", {}),
    "a title that is none": ("Does.\n\n    Parameters:\n    - a\n    - b\n    ", "Does.\n\nParameters:\n- a\n- b", {}),
    "parameters in a style of its own": ("Does.\n\n    Args:\n        a - The a.\n    ", "Does.\n\nArgs:\n    a - The a.", {}),
}  # fmt: skip


@pytest.mark.parametrize(("text", "description", "described"), PARTS.values(), ids=PARTS)
def test_a_docstring_is_description_and_parameters_and_no_prose_is_lost(text, description, described):
    def do(a: int, b: int = 2): ...

    do.__doc__ = text
    assert tool(do).description == description
    assert {name: parameter["description"] for name, parameter in shown(do).items() if "description" in parameter} == described


@pytest.mark.parametrize("style", DOCSTRINGS)
def test_docstrings_describe_the_tool_and_its_parameters(style):
    def find(first: int, second: int = 2): ...

    find.__doc__ = DOCSTRINGS[style]
    made = tool(find)
    assert made.description == "Finds orders.\n\nOnly open ones."
    described = {name: parameter["description"] for name, parameter in made.params_schema["properties"].items()}
    assert described == {"first": "The first of them.", "second": "The second. Defaults to 2."}


def test_one_description_of_two_parameters_serves_both():
    def add(a: int, b: int):
        """Adds.

        Parameters
        ----------
        a, b : int
            A number.
        """

    assert [parameter["description"] for parameter in shown(add).values()] == ["A number.", "A number."]


def test_a_docstring_without_parameters_is_the_description():
    def look(a: int):
        """Looks at it: closely.

        For as long as it takes.
        """

    assert tool(look).description == "Looks at it: closely.\n\nFor as long as it takes."
    assert "description" not in shown(look)["a"]


def test_a_description_in_the_type_wins_over_the_docstring():
    def look(a: Annotated[int, Field(description="From the type.")]):
        """Looks.

        Args:
            a: From the docstring.
        """

    assert shown(look)["a"]["description"] == "From the type."


# ---- corrections

WRONG = [
    (int, "many", 'value: expected an integer (got "many")'),
    (int, 5.5, "value: expected an integer (got 5.5)"),
    (float, None, "value: expected a number (got null)"),
    (str, 5, "value: expected a string (got 5)"),
    (bool, "perhaps", 'value: expected true or false (got "perhaps")'),
    (int | list[int], "x", 'value: expected an integer or an array (got "x")'),
    (Colour, "green", 'value: expected "red" or "blue" (got "green")'),
    (Literal[Colour.RED], "green", 'value: expected "red" (got "green")'),
    (Literal["a", 1, None], "b", 'value: expected "a", 1 or null (got "b")'),
    (Literal["it's", "x or None", True], "b", 'value: expected "it\'s", "x or None" or true (got "b")'),
    (Literal['a", b', "ü\n"], "b", 'value: expected "a\\", b" or "ü\\n" (got "b")'),
    (Annotated[dt.timedelta, Field(gt=dt.timedelta(hours=1))], "PT1S", 'value: must be more than 1 hour (got "PT1S")'),
    (dt.date, "soon", 'value: expected a date such as 2026-01-31 (got "soon")'),
    (dt.datetime, "soon", 'value: expected a date and time such as 2026-01-31T14:30:00Z (got "soon")'),
    (dt.timedelta, "long", 'value: expected a duration such as PT90S (90 seconds) (got "long")'),
    (uuid.UUID, "1", 'value: expected a UUID (got "1")'),
    (Decimal, "much", 'value: expected a number (got "much")'),
    (Path, 5, "value: expected a file path (got 5)"),
    (complex, "x", 'value: expected a number such as 1+2j (got "x")'),
    (Item, 5, "value: expected an object (got 5)"),
    (Place, [], "value: expected an object (got [])"),
    (Order, {"items": [{"name": 1}, {}]}, 'value.items[0].name: expected a string (got 1)\nvalue.items[1].name: missing; it is required'),
    (Item | Place, {"x": 1}, "value.name (as Item): missing; it is required\nvalue.city (as Place): missing; it is required\nvalue.x (as Place): there is no such argument"),
    (Pet, {"kind": "cow"}, 'value.kind: expected one of "cat", "dog" (got "cow")'),
    (Pet, {}, "value.kind: missing; it is required"),
    (Pet, {"kind": "cat"}, "value.lives: missing; it is required"),
    (Annotated[int, Field(ge=1)], 0, "value: must be at least 1 (got 0)"),
    (Annotated[int, Field(lt=1)], 1, "value: must be less than 1 (got 1)"),
    (Annotated[str, Field(min_length=2)], "a", 'value: must have at least 2 characters (got "a")'),
    (Annotated[str, Field(pattern="^a")], "b", 'value: must match the pattern ^a (got "b")'),
    (Annotated[list[int], Field(max_length=1)], [1, 2], "value: must have at most 1 items (got [1, 2])"),
    (collections.abc.Iterable[int], ["x"], 'value[0]: expected an integer (got "x")'),
    (dict[str, int], {"a": "x"}, 'value.a: expected an integer (got "x")'),
    (pydantic.AwareDatetime, "2026-01-31T14:30:00", 'value: must have a time zone, as in 2026-01-31T14:30:00Z (got "2026-01-31T14:30:00")'),
    (pydantic.HttpUrl, "x", 'value: expected a URL such as https://example.com/ (got "x")'),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "sent", "words"), WRONG, ids=[row[2][:50] for row in WRONG])
def test_what_does_not_fit_is_told_in_plain_words(annotation, sent, words):
    with pytest.raises(Invalid) as caught:
        made(annotation).parse(json.dumps({"value": sent}))
    assert str(caught.value) == words
    assert not re.search(r"[Ii]nput|pydantic|https://(errors|docs)|<class|function-|instance", words)


def test_a_users_own_check_is_told_in_its_own_words():
    class Age(BaseModel):
        years: int

        @pydantic.field_validator("years")
        @classmethod
        def check(cls, years: int) -> int:
            if years < 0:
                raise ValueError("nobody is that young")
            return years

    with pytest.raises(Invalid) as caught:
        made(Age).parse('{"value": {"years": -1}}')
    assert str(caught.value) == "value.years: nobody is that young (got -1)"


def test_many_problems_are_told_up_to_a_bound():
    with pytest.raises(Invalid) as caught:
        made(list[int]).parse(json.dumps({"value": ["x"] * 500}))
    assert str(caught.value).splitlines()[-1] == "… and 480 more"


def test_a_wrong_call_goes_back_and_the_right_one_runs():
    ran: list[int] = []

    @tool
    def order(number: int, when: dt.date) -> str:
        ran.append(number)
        return f"{number} on {when:%d.%m.}"

    model = ModelScripted([ToolCall("1", "order", {"number": "x"}), ToolCall("2", "order", {"number": "5", "when": "2026-01-31"}), "done"])
    assert Agent("a", model=model, tools=[order]).run("go").output == "done"
    assert ran == [5]
    told = [message.content for message in model.requests[2].messages if message.role == "tool"]
    assert told == [
        'The arguments do not fit:\nnumber: expected an integer (got "x")\nwhen: missing; it is required\nCall order again, corrected.',
        "5 on 31.01.",
    ]


# ---- running


def test_eight_blocking_tools_run_in_one_wave_and_answer_in_call_order():
    together = threading.Barrier(8, timeout=60)

    @tool
    def wait(n: int) -> int:
        together.wait()  # passes only while all eight are inside
        return n

    model = ModelScripted([[ToolCall(str(n), "wait", {"n": n}) for n in range(8)], "done"])
    assert Agent("a", model=model, tools=[wait]).run("go").output == "done"
    assert [message.content for message in model.requests[1].messages if message.role == "tool"] == [str(n) for n in range(8)]


def test_async_tools_run_side_by_side_on_the_loop():
    inside: list[int] = []
    everyone: list[asyncio.Event] = []

    @tool
    async def wait(n: int) -> str:
        everyone.append(asyncio.Event()) if not everyone else None
        inside.append(n)
        if len(inside) == 3:
            everyone[0].set()
        await asyncio.wait_for(everyone[0].wait(), 60)
        return threading.current_thread().name

    model = ModelScripted([[ToolCall(str(n), "wait", {"n": n}) for n in range(3)], "done"])
    Agent("a", model=model, tools=[wait]).run("go")
    assert len({message.content for message in model.requests[1].messages if message.role == "tool"}) == 1


def test_blocking_tools_run_in_threads_of_ours():
    @tool
    def where() -> str:
        return threading.current_thread().name

    assert received(where, {}) == "agentroute-tool-where"


@pytest.mark.parametrize("limit", [0, 2])
def test_retry_from_a_tool_counts_against_retries(limit):
    @tool
    def picky() -> str:
        raise Retry("use another")

    agent = Agent("a", model=ModelFunction(lambda request: ToolCall("1", "picky", {})), tools=[picky], retries=limit, max_turns=50)
    with pytest.raises(ErrorTool, match="picky"):
        agent.run("go")
    assert len(agent.model.requests) == limit + 1


@pytest.mark.parametrize("how", ["run", "arun"])
def test_a_tool_may_run_an_agent_and_its_cost_counts(how):
    inner = Agent("inner", model=ModelScripted(["found"], cost_usd=0.25))

    def ask() -> str:
        return inner.run("look").output

    async def ask_async() -> str:
        return (await inner.arun("look")).output

    outer = Agent(
        "outer", model=ModelScripted([ToolCall("1", "ask", {}), "done"], cost_usd=0.5), tools=[tool(name="ask")(ask if how == "run" else ask_async)]
    )
    result = outer.run("go")
    assert (result.output, result.usage.total_cost_usd, result.usage.model_calls) == ("done", 1.25, 3)


# ---- results


@dataclasses.dataclass
class Report:
    frame: Any
    when: Any = None


@dataclasses.dataclass
class Counted:
    n: int
    _seen: int = 5
    later: int = dataclasses.field(init=False)


@pydantic.dataclasses.dataclass
class CheckedCount:
    n: int
    _seen: int = 5


class Wrapped(BaseModel, arbitrary_types_allowed=True):
    held: Any = None


class ColourText(str, enum.Enum):  # noqa: UP042
    RED = "red"


def numbers():
    yield from (1, 2)


async def later_numbers():
    for n in (1, 2):
        yield n


def endless():
    n = 0
    while True:
        yield n
        n += 1


async def endless_later():
    while True:
        yield 1


RESULTS = [
    ("text", "ü as it is", "ü as it is"),
    ("Enum of texts", ColourText.RED, "red"),
    ("numpy text", numpy.str_("x"), "x"),
    ("dataclass with a field of its own", Counted(1), '{"n":1}'),
    ("pydantic dataclass with a field of its own", CheckedCount(1), '{"n":1}'),
    ("Result of another agent", Result("It is 3.", messages=[{"role": "system", "content": "secret"}]), "It is 3."),
    ("Result with a model", Result(Item(name="a")), '{"name":"a","price":"0"}'),
    ("Result without an answer", Result(None, interrupted=True), "(no output)"),
    ("Results inside", {"each": [Result("a"), Result(None)], "held": Report(Result("b"))}, '{"each":["a",null],"held":{"frame":"b","when":null}}'),
    ("text of half characters", "a\ud83d\ude00b\ud83d", "a😀b\ufffd"),
    ("half a character inside", {"a": "\ud83d"}, '{"a":"\ufffd"}'),
    ("non-ASCII inside", {"ü": "é"}, '{"ü":"é"}'),
    ("model", Item(name="a"), '{"name":"a","price":"0"}'),
    ("models in a list", [Item(name="a")], '[{"name":"a","price":"0"}]'),
    ("dataclass", Place("Rome"), '{"city":"Rome","zip":""}'),
    ("NamedTuple", Pair(1, 2), "[1,2]"),
    ("date", DAY, '"2026-01-31"'),
    ("datetime", MOMENT, '"2026-01-31T14:30:00Z"'),
    ("timedelta", dt.timedelta(seconds=90), '"PT1M30S"'),
    ("Decimal", Decimal("1.10"), '"1.10"'),
    ("Decimal NaN", [Decimal("NaN")], "[null]"),
    ("Enum", Colour.RED, '"red"'),
    ("set", {1}, "[1]"),
    ("dict views", {"a": 1}.values(), "[1]"),
    ("UserDict", collections.UserDict(a=1), '{"a":1}'),
    ("generator", numbers(), "[1,2]"),
    ("map", map(str, [1]), '["1"]'),
    ("NaN", [float("nan"), float("inf"), 1.5], "[null,null,1.5]"),
    ("missing values in a list", [pandas.NaT, pandas.NA, numpy.nan, 1], "[null,null,null,1]"),
    ("missing time in a dataclass", Report(1, pandas.NaT), '{"frame":1,"when":null}'),
    ("missing time in a model", Wrapped(held=[pandas.NaT]), '{"held":[null]}'),
    ("numpy scalar", numpy.float32(0.5), "0.5"),
    ("numpy array", numpy.array([[1.0, numpy.nan]]), "[[1.0,null]]"),
    ("numpy dates", numpy.array(["2026-01-31", "NaT"], dtype="datetime64[D]"), '["2026-01-31",null]'),
    ("DataFrame", pandas.DataFrame({"n": [1, 2]}), '[{"n":1},{"n":2}]'),
    ("DataFrame with dates", pandas.DataFrame({"t": [pandas.Timestamp("2026-01-31"), pandas.NaT]}), '[{"t":"2026-01-31T00:00:00"},{"t":null}]'),
    ("DataFrame of objects", pandas.DataFrame({"o": [Item(name="a"), b"\xff"]}), '[{"o":{"name":"a","price":"0"}},{"o":"[1 bytes of binary data]"}]'),
    ("DataFrame, equal columns", pandas.DataFrame([[1, 2]], columns=["a", "a"]), '[{"a":1,"a_2":2}]'),
    ("DataFrame, columns of levels", pandas.DataFrame({("a", "x"): [1]}), '[{"a.x":1}]'),
    ("DataFrame, named index", pandas.DataFrame({"n": [1]}, index=pandas.Index(["x"], name="key")), '[{"key":"x","n":1}]'),
    ("DataFrame inside", {"frame": pandas.DataFrame({"n": [1]})}, '{"frame":[{"n":1}]}'),
    ("DataFrame in a dataclass", Report(pandas.DataFrame({"n": [1]})), '{"frame":[{"n":1}],"when":null}'),
    ("empty DataFrame", pandas.DataFrame(), "[]"),
    ("Series", pandas.Series([1, None]), "[1.0,null]"),
    ("Series of counts", pandas.Series(["b", "b"]).value_counts(), '[{"index":"b","count":2}]'),
    ("Series by interval", pandas.Series([1], index=[pandas.Interval(0, 5)]), '[{"index":"(0, 5]","value":1}]'),
    ("bytes, text", b"hi", "hi"),
    ("bytes, binary", b"\xff\x00", "[2 bytes of binary data]"),
    ("bytes inside", [b"hi", bytearray(b"\xff")], '["hi","[1 bytes of binary data]"]'),
    ("tuple keys", {(1, 2): "a"}, '{"1,2":"a"}'),
    ("other keys", {None: 1, DAY: 2, Colour.RED: 3, 1.5: 4, b"k": 5}, '{"null":1,"2026-01-31":2,"red":3,"1.5":4,"k":5}'),
    ("large number", 2**70, str(2**70)),
    ("None", None, "(no output)"),
    ("False", False, "false"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), [row[1:] for row in RESULTS], ids=[row[0] for row in RESULTS])
def test_a_result_is_text_or_json(value, text):
    assert result_text(value) == text


class Opaque:
    pass


def circle() -> Any:
    held = Wrapped()
    held.held = [held]
    return held


def deep() -> Any:
    value: Any = []
    for _ in range(5000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Opaque, "the tool returned a Opaque, and there is no JSON form of that"),
        (lambda: [{"a": Opaque()}], "the tool returned a list with a Opaque in it, and there is no JSON form of that"),
        (lambda: Report(Opaque()), "the tool returned a Report with a Opaque in it, and there is no JSON form of that"),
        (lambda: pandas.DataFrame({"o": [Opaque()]}), "the tool returned a DataFrame with a Opaque in it, and there is no JSON form of that"),
        (lambda: {Opaque(): 1}, "the tool returned a dict with a Opaque in it, and there is no JSON form of that"),
        (lambda: Item, "the tool returned a ModelMetaclass, and there is no JSON form of that"),
        (circle, "the tool returned a Wrapped that contains itself, and there is no JSON form of that"),
        (deep, "the tool returned a list nested too deeply, and there is no JSON form of that"),
    ],
)
def test_what_has_no_json_form_is_said_in_words(make, words):
    with pytest.raises(TypeError) as caught:
        result_text(make())
    assert str(caught.value) == words


def test_the_model_reads_of_a_result_without_json_and_the_run_goes_on():
    model = ModelScripted([ToolCall("1", "look", {}), "done"])
    Agent("a", model=model, tools=[tool(name="look")(lambda: [Opaque()])]).run("go")
    told = model.requests[1].messages[-1].content
    assert told == "Error: TypeError: the tool returned a list with a Opaque in it, and there is no JSON form of that"


def test_a_generator_that_raises_is_the_tool_raising():
    def broken():
        yield 1
        raise Retry("ask for less")

    with pytest.raises(Retry, match="ask for less"):
        result_text(broken())


@pytest.mark.parametrize(
    ("function", "told"),
    [(later_numbers, "[1,2]"), (numbers, "[1,2]"), (lambda: later_numbers(), "[1,2]"), (lambda: coroutine(5), '["coroutine",5]')],
    ids=["async generator", "generator", "async generator of a wrapper", "coroutine of a wrapper"],
)
def test_what_comes_piece_by_piece_or_later_is_waited_for(function, told):
    made = tool(name="t")(function)
    assert asyncio.run(made.told(made.parse("{}"), ctx=Context())) == told


@pytest.mark.parametrize("function", [endless, endless_later])
def test_what_never_ends_is_cut(function):
    made = tool(name="t")(function)
    text = asyncio.run(made.told(made.parse("{}"), ctx=Context()))
    assert 100_000 < len(text) < 100_100
    assert re.search(r"\[cut: .* more characters\]$", text)


def test_a_long_result_is_cut_with_a_note_and_never_inside_a_character():
    text = result_text("\ud83d\ude00" * 100, limit=51)
    assert text == "😀" * 51 + "\n[cut: 49 more characters]"


def test_a_tool_that_returns_the_result_of_an_agent_tells_its_answer_only():
    inner = Agent("inner", model=ModelScripted(["It is 3."]), instructions="a secret")
    model = ModelScripted([ToolCall("1", "ask", {}), "done"])
    Agent("outer", model=model, tools=[tool(name="ask")(lambda: inner.run("1+2?"))]).run("go")
    assert model.requests[1].messages[-1].content == "It is 3."


# ---- a Tool made a tool again


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def check_it(ctx, arguments):
    return True


def guarded(x: int = 1) -> str:
    """Wipes it."""
    return f"wiped {x}"


AGAIN = {
    "agent.tool": lambda agent, made: agent.tool(made),
    "agent.tool with an option": lambda agent, made: agent.tool(description="Wipes it.")(made),
    "tool": lambda agent, made: agent.tool(tool(made)),
    "tool with an option": lambda agent, made: agent.tool(tool(name="wipe")(made)),
    "from_function": lambda agent, made: agent.tool(Tool.from_function(made)),
    "tools=": lambda agent, made: Agent("a", tools=[made]).tools[0],
    "partial": lambda agent, made: Agent("a", tools=[functools.partial(made, x=2)]).tools[0],
    "a decorator over it": lambda agent, made: agent.tool(logged(made)),
    "a partial of a decorator over it": lambda agent, made: agent.tool(functools.partial(logged(made))),
}


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
@pytest.mark.parametrize("gate", [True, check_it])
def test_a_tool_made_a_tool_again_keeps_its_options(again, gate):
    made = tool(name="wipe", needs_approval=gate, timeout=5)(guarded)
    kept = again(Agent("a"), made)
    assert (kept.name, kept.description, kept.needs_approval, kept.timeout) == ("wipe", "Wipes it.", gate, 5)


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
def test_a_gate_holds_however_often_a_tool_is_decorated(again):
    ran = []

    @tool(name="wipe", needs_approval=True)
    def danger(x: int = 1) -> None:
        """Wipes it."""
        ran.append(x)

    model = ModelScripted([ToolCall("1", "wipe", {}), "done"])
    Agent("b", model=model, tools=[again(Agent("a"), danger)]).run("go")
    assert ran == []
    assert "needs approval" in model.requests[1].messages[-1].content


def test_a_tool_is_taken_as_it_is_and_options_make_a_copy():
    made = tool(needs_approval=True, timeout=5)(guarded)
    first, second = Agent("a"), Agent("b")
    assert first.tool(made) is tool(made) is Tool.from_function(made) is made
    changed = second.tool(needs_approval=False, timeout=None, name="clean", description="Cleans.")(made)
    assert (changed.name, changed.description, changed.needs_approval, changed.timeout) == ("clean", "Cleans.", False, None)
    assert (made.name, made.description, made.needs_approval, made.timeout) == ("guarded", "Wipes it.", True, 5)
    assert changed(x=3) == "wiped 3"


def test_a_changed_tool_keeps_its_schema_and_context():
    made = Tool("look", "Looks.", {"type": "object"}, lambda ctx, **values: (ctx.deps, values), takes_context=True)
    changed = tool(timeout=5)(made)
    assert (changed.params_schema, changed.takes_context, changed.timeout) == ({"type": "object"}, True, 5)
    assert received(changed, {"a": 1}, deps="deps") == ("deps", {"a": 1})


def test_a_partial_of_a_tool_offers_what_is_left():
    made = tool(needs_approval=True)(guarded)
    assert received(functools.partial(made, 7), {}) == "wiped 7"
    assert shown(functools.partial(made, 7)) == {}


# ---- names and registration


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a/b", "x" * 65, "ä", "a\n", "<lambda>", "look!"])
def test_names_that_providers_refuse_are_refused(name):
    with pytest.raises(ErrorConfig, match="tool name"):
        tool(name=name)(plain)


def test_the_same_cell_run_twice_replaces_the_tool():
    agent, cell = Agent("a"), "@agent.tool\ndef look(a: int) -> int:\n    return {}"
    names = {"__name__": "__main__", "agent": agent}
    for version in (1, 2):
        exec(cell.format(version), names)
    assert [made(a=0) for made in agent.tools] == [2]


def test_two_different_functions_of_one_name_are_an_error():
    agent = Agent("a", tools=[plain])
    with pytest.raises(ErrorConfig, match="another tool named 'plain'"):
        agent.tool(name="plain")(coroutine)


@pytest.mark.parametrize("method", ["run", "arun", "stream", "events"])
@pytest.mark.parametrize("add", [lambda item: Agent("a", tools=[item]), lambda item: Agent("a").tool(item), lambda item: Agent("a", tools=[tool(name="ask")(item)])])
def test_an_agents_own_run_as_a_tool_is_refused_with_what_to_write(add, method):
    other = Agent("other")
    with pytest.raises(ErrorConfig, match=r"write a function that returns agent\.run\(…\)\.output"):
        add(getattr(other, method))


def test_an_agent_may_have_methods_that_are_tools():
    class Shop(Agent):
        def order_status(self, order_id: int) -> str:
            return f"{self.name} {order_id}"

    shop = Shop("north")
    assert received(shop.tool(shop.order_status), {"order_id": 5}) == "north 5"


def test_a_decorated_function_stays_what_it_was():
    def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    made = tool(add)
    assert (made(1), made(1, b=5), made.__name__, made.__doc__) == (3, 6, "add", "Adds.")
    assert inspect.signature(made) == inspect.signature(add)
