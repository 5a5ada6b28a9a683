"""Defects 9 to 16 of the published 1.1.0: tools. Each test fails on a build that has the defect."""

import asyncio
import dataclasses
import datetime
import decimal
import enum
import functools
import json
import re
import threading
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from agentroute import Agent, Context, ErrorAgent, ErrorConfig, Tool, ToolCall, tool
from tests.promises.test_defects_broken import agent_at, unanswered
from tests.server import Raw, completion


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Place(BaseModel):
    city: str
    country: str = "NZ"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Size(TypedDict):
    width: int


class Pair(NamedTuple):
    a: int
    b: str


def told(server, request=1):
    """What the model was told of the calls of its last turn, in order."""
    messages = server.requests[request]["messages"]
    last = max(index for index, message in enumerate(messages) if message.get("tool_calls"))
    return [message["content"] for message in messages[last + 1 :] if message["role"] == "tool"]


# ---- 9. one after the other


def test_9_the_calls_of_one_turn_run_side_by_side(serve):
    """9: the calls of a turn ran one after the other; here each waits for the others, so that would fail."""
    threads, tasks = threading.Barrier(8, timeout=60), []

    def plain(n: int) -> int:
        """Meets the others."""
        threads.wait()
        return n

    async def asynchronous(n: int) -> int:
        """Meets the others."""
        tasks.append(n)
        async with asyncio.timeout(60):
            while len(tasks) < 3:
                await asyncio.sleep(0.001)
        return n

    calls = [ToolCall(f"p{n}", "plain", {"n": n}) for n in range(8)] + [ToolCall(f"a{n}", "asynchronous", {"n": n}) for n in range(3)]
    server = serve(calls, "done")
    agent_at(server, plain, asynchronous).run("go")
    assert told(server) == [*"01234567", *"012"]


# ---- 10. schemas


INTEGER, STRING, NULL, CLOSED = {"type": "integer"}, {"type": "string"}, {"type": "null"}, {"additionalProperties": False}
PLACE = {
    "type": "object",
    "properties": {"city": STRING, "country": {"type": "string", "default": "NZ"}},
    "required": ["city"],
}
TYPES = [
    (int | None, {"anyOf": [INTEGER, NULL]}, None, None),
    (int | None, {"anyOf": [INTEGER, NULL]}, 3, 3),
    (int | str, {"anyOf": [INTEGER, STRING]}, "x", "x"),
    (Literal["a", 1], {"enum": ["a", 1]}, "a", "a"),
    (Colour, {"type": "string", "enum": ["red", "blue"]}, "red", Colour.RED),
    (Place, PLACE, {"city": "Lyttelton"}, Place(city="Lyttelton")),
    (list[Place], {"type": "array", "items": PLACE}, [{"city": "Lyttelton"}], [Place(city="Lyttelton")]),
    (
        Point,
        {"type": "object", "properties": {"x": INTEGER, "y": {"type": "integer", "default": 0}}, "required": ["x"], **CLOSED},
        {"x": "1"},
        Point(1),
    ),
    (Size, {"type": "object", "properties": {"width": INTEGER}, "required": ["width"], **CLOSED}, {"width": "2"}, {"width": 2}),
    (Pair, {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2}, [1, "b"], Pair(1, "b")),
    (list, {"type": "array", "items": {}}, [1, "a"], [1, "a"]),
    (dict, {"type": "object", "additionalProperties": True}, {"a": 1}, {"a": 1}),
    (Sequence[int], {"type": "array", "items": INTEGER}, ["1"], [1]),
    (set[int], {"type": "array", "items": INTEGER, "uniqueItems": True}, [1, 1], {1}),
    (datetime.date, {"type": "string", "format": "date"}, "2026-01-02", datetime.date(2026, 1, 2)),
    (
        datetime.datetime,
        {"type": "string", "format": "date-time"},
        "2026-01-02T03:04:05Z",
        datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    ),
    (uuid.UUID, {"type": "string", "format": "uuid"}, str(uuid.UUID(int=1)), uuid.UUID(int=1)),
    (Annotated[int, Field(ge=1, description="how many")], {"type": "integer", "minimum": 1, "description": "how many"}, 2, 2),
    (int, INTEGER, "5", 5),
    (float, {"type": "number"}, "2.5", 2.5),
    (Any, {}, {"free": [1]}, {"free": [1]}),
]
NAMES = [str(getattr(kind, "__name__", kind)) if not hasattr(kind, "__args__") else str(kind) for kind, *_ in TYPES]


def inlined(schema, definitions):
    """A schema with its references resolved."""
    pairs = {**definitions[schema["$ref"].split("/")[-1]], **schema} if "$ref" in schema else dict(schema)
    pairs.pop("$ref", None)
    nested = {"properties": lambda value: {k: inlined(v, definitions) for k, v in value.items()}, "items": lambda value: inlined(value, definitions)}
    return {key: nested.get(key, lambda value: value)(value) for key, value in pairs.items()}


@pytest.mark.parametrize(("kind", "schema", "sent", "received"), TYPES, ids=NAMES)
def test_10_a_parameter_is_offered_and_received_as_its_type(serve, kind, schema, sent, received):
    """10: most types were offered as "string", and whatever the model sent was passed on as it came."""
    got = []

    def take(value):
        """Takes."""
        got.append(value)

    take.__annotations__["value"] = kind
    server = serve(ToolCall("1", "take", {"value": sent}), "done")
    agent_at(server, take).run("go")
    parameters = server.requests[0]["tools"][0]["function"]["parameters"]
    assert inlined(parameters["properties"]["value"], parameters.get("$defs", {})) == schema
    assert got == [received] and type(got[0]) is type(received)


def test_10_amounts_and_bytes_are_received_as_their_types(serve):
    """10: as above, for types whose schema is pydantic's affair."""
    got = []

    def take(amount: decimal.Decimal, data: bytes) -> None:
        """Takes."""
        got.extend([amount, data])

    agent_at(serve(ToolCall("1", "take", {"amount": "1.10", "data": "abc"}), "done"), take).run("go")
    assert got == [decimal.Decimal("1.10"), b"abc"]


def test_10_defaults_are_offered_and_kept(serve):
    """10: defaults were left out of the schema."""
    got = []

    def take(a: int, b: int = 7, *, c: str | None = None, d: tuple[int, ...] = (1, 2)) -> None:
        """Takes.

        Args:
            a: the first
                of all
            b: the second
        """
        got.append((a, b, c, d))

    server = serve(ToolCall("1", "take", {"a": 1}), "done")
    agent_at(server, take).run("go")
    parameters = server.requests[0]["tools"][0]["function"]["parameters"]
    assert {name: schema.get("default", "none") for name, schema in parameters["properties"].items()} == {
        "a": "none", "b": 7, "c": None, "d": [1, 2],
    }  # fmt: skip
    assert parameters["required"] == ["a"]
    assert [parameters["properties"][name].get("description") for name in "ab"] == ["the first of all", "the second"]
    assert got == [(1, 7, None, (1, 2))]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": "many", "colour": "red"}, r"n: .*integer"),
        ({"n": 1, "colour": "green"}, r'colour: .*"red" or "blue"'),
        ({"n": 0, "colour": "red"}, r"n: .*1"),
        ({"colour": "red"}, "n: missing"),
        ({"n": 1, "colour": "red", "x": 1}, "x: there is no such argument"),
    ],
)
def test_10_what_does_not_fit_goes_back_to_the_model_and_is_not_run(serve, arguments, words):
    """10: nothing was validated; the function found out, or did not."""
    ran = []

    def paint(n: Annotated[int, Field(ge=1)], colour: Colour) -> None:
        """Paints."""
        ran.append(n)

    server = serve(ToolCall("1", "paint", arguments), ToolCall("2", "paint", {"n": 1, "colour": "red"}), "done")
    agent_at(server, paint).run("go")
    assert re.search(words, told(server)[0])
    assert ran == [1]


class Desk:
    def bound(self, a: int) -> int:
        """Doubles."""
        return 2 * a

    def __call__(self, a: int) -> int:
        """Triples."""
        return 3 * a


def positional_only(a: int, /) -> int:
    """Keeps."""
    return a


def with_rest(a: int, *args: int, **kwargs: int) -> int:
    """Keeps."""
    return a


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (Desk().bound, "14"),
        (tool(Desk(), name="desk"), "21"),
        (tool(functools.partial(lambda a, b: a + b, b=1), name="partial"), "8"),
        (tool(lambda a: a, name="lambda"), "7"),
        (positional_only, "7"),
        (with_rest, "7"),
    ],
    ids=["bound method", "callable object", "partial", "lambda", "positional only", "rest"],
)
def test_10_callables_of_any_shape_are_tools(serve, function, answer):
    """10: partials and callable objects could not be made tools, positional-only parameters failed at every call."""
    agent = Agent("test", model="-", tools=[function])
    server = serve(ToolCall("1", agent.tools[0].name, {"a": 7}), "done")
    agent.replace(model=server.model).run("go")
    assert told(server) == [answer]


# ---- 11. the Context


def first(ctx: Context, a: int) -> str: return f"{a} {ctx.step}"
def last(a: int, ctx: Context) -> str: return f"{a} {ctx.step}"
def between(a: int, ctx: Context, b: int = 2) -> str: return f"{a} {ctx.step}"
def keyword(a: int, *, ctx: Context) -> str: return f"{a} {ctx.step}"
def another_name(a: int, run: Context) -> str: return f"{a} {run.step}"
def optional(a: int, ctx: Context | None = None) -> str: return f"{a} {ctx.step}"
def quoted(a: int, ctx: "Context") -> str: return f"{a} {ctx.step}"
def untyped(ctx, a: int) -> str: return f"{a} {ctx.step}"
async def asynchronous(a: int, ctx: Context) -> str: return f"{a} {ctx.step}"  # fmt: skip


@pytest.mark.parametrize("function", [first, last, between, keyword, another_name, optional, quoted, untyped, asynchronous])
def test_11_the_context_is_given_wherever_it_stands(serve, function):
    """11: unless it came first every call failed; untyped or optional, the model was asked for it."""
    server = serve(ToolCall("1", function.__name__, {"a": 7}), "done")
    agent_at(server, function).run("go")
    offered = server.requests[0]["tools"][0]["function"]["parameters"]["properties"]
    assert offered.keys() - {"b"} == {"a"}
    assert told(server) == ["7 1"]


# ---- 12. results


async def soon():
    return Place(city="Zürich")


RESULTS = [
    ("text", "Zürich: 日本 {\"a\"}", "Zürich: 日本 {\"a\"}"),
    ("nothing", None, "(no output)"),
    ("true", True, "true"),
    ("number", 1.5, "1.5"),
    ("NaN", float("nan"), "null"),
    ("model", Place(city="Zürich"), '{"city":"Zürich","country":"NZ"}'),
    ("list of models", [Place(city="a", country="b")], '[{"city":"a","country":"b"}]'),
    ("dataclass", Point(1, 2), '{"x":1,"y":2}'),
    ("named tuple", Pair(1, "b"), '[1,"b"]'),
    ("nested", {"at": Point(1), "nan": float("nan"), "inf": [float("inf")], "city": "日本"}, '{"at":{"x":1,"y":0},"nan":null,"inf":[null],"city":"日本"}'),
    ("bytes that are text", "Zürich".encode(), "Zürich"),
    ("bytes", b"\xff\xd8\x00", "[3 bytes of binary data]"),
    ("bytes inside", {"data": b"\xff"}, '{"data":"[1 bytes of binary data]"}'),
    ("enum", Colour.RED, '"red"'),
    ("date", datetime.date(2026, 1, 2), '"2026-01-02"'),
    ("time", datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), '"2026-01-02T00:00:00Z"'),
    ("duration", datetime.timedelta(hours=1), '"PT1H"'),
    ("amount", decimal.Decimal("1.10"), '"1.10"'),
    ("id", uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    ("set", {3}, "[3]"),
    ("tuple", (1, "a"), '[1,"a"]'),
    ("range", range(3), "[0,1,2]"),
    ("generator", (n * n for n in range(3)), "[0,1,4]"),
    ("iterator", map(str, [1]), '["1"]'),
    ("DataFrame", pd.DataFrame({"city": ["Zürich"], "t": [None]}), '[{"city":"Zürich","t":null}]'),
    ("Series", pd.Series([1, 2]), "[1,2]"),
    ("tuple keys", {(1, 2): 3}, '{"1,2":3}'),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), [row[1:] for row in RESULTS], ids=[row[0] for row in RESULTS])
def test_12_a_result_is_told_as_text_or_json_never_as_a_repr(serve, value, text):
    """12: models and dataclasses came as a quoted repr, bytes as theirs, NaN as no JSON, all that is not ASCII as escapes."""
    server = serve(ToolCall("1", "give", {}), "done")
    agent_at(server, tool(lambda: value, name="give")).run("go")
    assert told(server) == [text]


def test_12_what_a_plain_function_returns_to_be_awaited_is_awaited(serve):
    """12: a coroutine that a plain wrapper returned was told as its repr, and never awaited."""
    server = serve(ToolCall("1", "give", {}), "done")
    agent_at(server, tool(lambda: soon(), name="give")).run("go")
    assert told(server) == ['{"city":"Zürich","country":"NZ"}']


def test_12_an_async_generator_is_read_to_its_end(serve):
    """12: as any other that a tool returns."""

    async def pieces():
        for number in range(3):
            yield Place(city=f"city {number}")

    server = serve(ToolCall("1", "pieces", {}), "done")
    agent_at(server, pieces).run("go")
    assert [place["city"] for place in json.loads(told(server)[0])] == ["city 0", "city 1", "city 2"]


class Odd:
    """Nothing JSON knows."""


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
DEEP: list[Any] = functools.reduce(lambda inner, _: [inner], range(50_000), [])  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [Odd(), [Odd()], Odd, CIRCLE, DEEP, threading.Lock()], ids=lambda value: type(value).__name__)
def test_12_what_has_no_json_form_is_an_error_in_words(serve, value):
    """12: objects were told as their repr, with the address in memory."""
    server = serve(ToolCall("1", "give", {}), "sorry")
    result = agent_at(server, tool(lambda: value, name="give")).run("go")
    assert result.record.tool_calls[0].status == "error"
    assert "no JSON form" in told(server)[0]
    assert not any(sign in told(server)[0] for sign in ("<", " at 0x", "<locals>", __name__))


@pytest.mark.parametrize("value", ["x" * 5_000_000, b"x" * 5_000_000, ["x" * 99] * 50_000], ids=["text", "bytes", "list"])
def test_12_a_huge_result_is_cut_with_a_note(serve, value):
    """12: a result of any size was sent, and paid for, on every turn from there on."""
    server = serve(ToolCall("1", "give", {}), "done")
    agent_at(server, tool(lambda: value, name="give")).run("go")
    assert len(told(server)[0]) < 101_000
    assert told(server)[0].endswith(" more characters]")


# ---- 13. half characters


def test_13_half_a_character_does_not_end_the_run(serve):
    """13: a lone surrogate in a prompt, arguments or a result made the body unsendable: a raw UnicodeEncodeError."""

    def echo(text: str) -> str:
        """Echoes."""
        return f"{text} \ud83d {text}"

    def nested(text: str) -> list[str]:
        """Echoes."""
        return ["\ud83d", text]

    def fail() -> str:
        """Fails."""
        raise ValueError("half \ud83d")

    calls = [ToolCall("1", "echo", '{"text": "half \ud83d 日本"}'), ToolCall("2", "nested", '{"text": "x"}'), ToolCall("3", "fail", {})]
    server = serve(calls, "done")
    assert agent_at(server, echo, nested, fail).run("half \ud83d").output == "done"
    assert len(server.requests) == 2
    assert told(server)[0].count("日本") == 2
    assert json.loads(told(server)[1])[1] == "x"
    assert told(server)[2].startswith("Error: ValueError: half")


def test_13_half_a_character_written_as_an_escape_goes_back_to_the_model(serve):
    """13: as JSON says it; strict JSON knows no such text, so the model is asked for another."""
    server = serve(ToolCall("1", "take", '{"text": "\\ud83d"}'), "done")
    assert agent_at(server, tool(lambda text: text, name="take")).run("go").output == "done"
    assert "not valid JSON" in told(server)[0]


# ---- 14. decorated functions


def test_14_a_decorated_function_can_still_be_called():
    """14: after decoration the function was a Tool that could not be called."""
    agent = Agent("test")

    @tool
    def add(a: int, b: int = 1) -> int:
        """Adds."""
        return a + b

    @agent.tool(timeout=5)
    def double(a: int) -> int:
        """Doubles."""
        return 2 * a

    assert (add(1, b=2), double(4), add.__name__, add.__doc__) == (3, 8, "add", "Adds.")
    assert isinstance(add, Tool)


CELL = """
@agent.tool
def look(city: str) -> str:
    "Looks."
    return VERSION + city
"""


def test_14_running_a_notebook_cell_again_replaces_its_tool(serve):
    """14: defining the tool again raised that the name is taken."""
    server = serve(ToolCall("1", "look", {"city": "Oslo"}), "done")
    agent = agent_at(server)
    for version in ("old ", "new "):
        exec(compile(CELL, "<cell>", "exec"), {"agent": agent, "VERSION": version, "__name__": "__main__"})
    agent.run("go")
    assert [each["function"]["name"] for each in server.requests[0]["tools"]] == ["look"]
    assert told(server) == ["new Oslo"]


def test_14_two_different_functions_of_one_name_are_still_refused():
    """14: what the error was for stays an error."""
    with pytest.raises(ErrorConfig, match="another tool named 'first'"):
        Agent("test", tools=[first, tool(last, name="first")])


# ---- 15. malformed calls


GOOD = {"id": "g", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def with_calls(*calls):
    answer = completion("", {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.0})
    answer["choices"][0] = {"message": {"role": "assistant", "content": None, "tool_calls": list(calls)}, "finish_reason": "tool_calls"}
    return Raw(body=[json.dumps(answer).encode()])


def look() -> str:
    """Looks."""
    return "seen"


@pytest.mark.parametrize(
    "call",
    [None, "look", 7, [], {}, {"id": "x"}, {"id": "x", "function": None}, {"id": "x", "function": "look"}, {"id": "x", "function": {"name": None}}],
    ids=str,
)
def test_15_an_entry_that_is_no_call_does_not_spoil_the_others(serve, call):
    """15: an entry such as null raised AttributeError."""
    server = serve(with_calls(call, GOOD), "done")
    assert agent_at(server, look).run("go").output == "done"
    assert (told(server), unanswered(server.requests[1]["messages"])) == (["seen"], [])


def test_15_an_answer_of_nothing_but_broken_calls_is_an_error_of_ours(serve):
    """15: as above."""
    with pytest.raises(ErrorAgent, match="tool call"):
        agent_at(serve(with_calls(None, {})), look).run("go")


FUNCTION = {"name": "look", "arguments": "{}"}


@pytest.mark.parametrize(
    "calls",
    [
        [{"function": FUNCTION}],
        [{"id": None, "function": FUNCTION}, {"id": 7, "function": FUNCTION}],
        [{"id": "", "function": FUNCTION}, {"id": "", "function": FUNCTION}],
        [{"id": "a", "function": FUNCTION}, {"id": "a", "function": FUNCTION}],
    ],
    ids=["missing", "null and number", "empty", "twice"],
)
def test_15_calls_without_a_good_id_get_one_on_both_sides(serve, calls):
    """15: a call without id was answered by a message without tool_call_id, which providers refuse."""
    server = serve(with_calls(*calls), "done")
    agent_at(server, look).run("go")
    messages = server.requests[1]["messages"]
    ids = [call["id"] for call in messages[1]["tool_calls"]]
    assert all(ids) and len(set(ids)) == len(calls)
    assert (unanswered(messages), told(server)) == ([], ["seen"] * len(calls))


@pytest.mark.parametrize("arguments", [None, "", "null", "{}", {}], ids=repr)
def test_15_no_arguments_may_be_said_in_any_way(serve, arguments):
    """15: and what is sent back of it is a JSON object."""
    server = serve(with_calls({"id": "a", "function": {"name": "look", "arguments": arguments}}), "done")
    agent_at(server, look).run("go")
    assert told(server) == ["seen"]
    assert server.requests[1]["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize("arguments", ["[1]", '"x"', "7", "{broken", "[" * 100_000], ids=["list", "text", "number", "broken", "deep"])
def test_15_arguments_that_are_no_object_are_not_run(serve, arguments):
    """15: they were told as a TypeError of Python's own."""
    server = serve(ToolCall("a", "look", arguments), "done")
    assert agent_at(server, look).run("go").record.tool_calls[0].error_type == "InvalidArguments"
    assert server.requests[1]["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"


# ---- 16. what a model is told of errors


def internal():
    def helper(x: int) -> int:
        return x

    return helper()  # type: ignore[call-arg]


class Shop:
    class Shelf:
        def take(self, item: str) -> str:
            return item


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        (tool(internal, name="given"), {}),
        (tool(lambda: Shop.Shelf().take(), name="given"), {}),
        (tool(lambda: Shop.Shelf().missing, name="given"), {}),
        (Tool("given", "Takes.", {"type": "object"}, lambda a: a), {"b": 1}),
        (tool(lambda value: value, name="given"), {"b": 1}),
        (tool(lambda value: Odd(), name="given"), {"value": 1}),
    ],
    ids=["inner function", "method", "attribute", "schema of one's own", "arguments", "result"],
)
def test_16_the_model_is_not_shown_the_insides_of_python(serve, given, arguments):
    """16: errors named functions as Python knows them, with modules, classes and <locals>."""
    server = serve(ToolCall("1", "given", arguments), "sorry")
    agent_at(server, given).run("go")
    assert not any(sign in told(server)[0] for sign in ("<locals>", "Shop.", __name__, "Traceback", 'File "', " at 0x"))


def test_16_an_error_still_says_what_was_wrong(serve):
    """16: the kind of the error and the author's own words are what a model can use."""

    def order(n: int) -> str:
        """Orders."""
        raise LookupError(f"no order {n} in shop.orders; try 1.5 or a.b()")

    server = serve(ToolCall("1", "order", {"n": 7}), "sorry")
    agent_at(server, order).run("go")
    assert told(server) == ["Error: LookupError: no order 7 in shop.orders; try 1.5 or a.b()"]
