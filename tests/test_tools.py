"""Results as text for the model, and registering tools on an agent."""

import dataclasses
import enum
import json
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import numpy
import pandas
import pytest
from pydantic import BaseModel

from agentroute import Agent, ErrorConfig, tool
from agentroute.tools import result_text


class Model(BaseModel):
    n: int


@dataclasses.dataclass
class Data:
    when: datetime


class Kind(enum.Enum):
    A = "a"


RESULTS = [
    ("text as it is ü", "text as it is ü"),
    (None, "(no output)"),
    ("", "(no output)"),
    (Model(n=1), '{"n":1}'),
    ([Model(n=1)], '[{"n":1}]'),
    (Data(datetime(2026, 1, 2, tzinfo=UTC)), '{"when":"2026-01-02T00:00:00Z"}'),
    (Kind.A, '"a"'),
    (Decimal("1.10"), '"1.10"'),
    (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    ({"ü": float("nan")}, '{"ü":null}'),
    ((1, 2), "[1,2]"),
    (range(3), "[0,1,2]"),
    ((n for n in [1, 2]), "[1,2]"),
    (b"text", "text"),
    (b"\xff\x00", "[2 bytes of binary data]"),
    (pandas.DataFrame({"a": [1, 2]}), '[{"a":1},{"a":2}]'),
    (pandas.DataFrame({"n": [1]}, index=["x"]), '[{"index":"x","n":1}]'),
    (pandas.DataFrame({"d": [pandas.Timestamp("2026-01-02"), pandas.NaT]}), '[{"d":"2026-01-02T00:00:00"},{"d":null}]'),
    (pandas.Series([1, 2]), "[1,2]"),
    (pandas.Series(["b", "b", "c"]).value_counts(), '[{"index":"b","count":2},{"index":"c","count":1}]'),
    (pandas.NA, "null"),
    (numpy.array([[1, 2]]), "[[1,2]]"),
    (numpy.int64(5), "5"),
    (pandas.Timestamp("2026-01-02"), '"2026-01-02T00:00:00"'),
]


@pytest.mark.parametrize(("value", "text"), RESULTS, ids=[type(row[0]).__name__ for row in RESULTS])
def test_a_result_is_text_or_json_never_a_repr(value, text):
    assert result_text(value) == text


def test_a_long_result_is_cut_with_a_note():
    text = result_text("x" * 500, limit=100)
    assert text.endswith("[cut: 400 more characters]")
    assert text.startswith("x" * 100)


class _Hopeless:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def _circle() -> list:
    items: list = []
    items.append(items)
    return items


def _deep() -> list:
    items: list = []
    for _ in range(50_000):
        items = [items]
    return items


@pytest.mark.parametrize("make", [object, _Hopeless, _circle, _deep, lambda: lambda: 1])
def test_what_has_no_json_form_is_a_plain_error(make):
    with pytest.raises(TypeError, match="no JSON form"):
        result_text(make())


def test_tuple_keys_and_half_characters_still_make_valid_json():
    json.loads(result_text({(1, 2): "a"}))
    assert result_text("a\ud83d").startswith("a")


def agent_with(*tools) -> Agent:
    return Agent("a", tools=list(tools))


def test_defining_a_tool_again_replaces_it():
    agent, names = Agent("a"), {"__name__": "__main__"}
    names["agent"] = agent
    for answer in (1, 2):
        exec(f"@agent.tool\ndef look() -> int:\n    return {answer}", names)
    assert [(t.name, t()) for t in agent.tools] == [("look", 2)]


def test_two_products_of_one_factory_are_not_the_same():
    def make(word):
        def look() -> str:
            return word

        return look

    with pytest.raises(ErrorConfig, match="another tool named 'look'"):
        agent_with(make("a"), make("b"))
    agent = agent_with()

    def must(word):
        def check(ctx, output): ...

        check.word = word
        return lambda ctx, output: word

    agent.output_validator(must("a"))
    agent.output_validator(must("b"))
    assert len(agent.output_validators) == 2


def test_a_method_is_a_tool_of_its_object():
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @tool
        def order_status(self, order_id: int) -> str:
            """Where an order is."""
            return f"{self.name} {order_id}"

    bound = Shop("north").order_status
    assert list(bound.params_schema["properties"]) == ["order_id"]
    assert bound(order_id=5) == "north 5"
    with pytest.raises(ErrorConfig, match="a method without its object"):
        _ = Shop.order_status.params_schema


def test_two_different_functions_of_one_name_are_an_error():
    def first(): ...
    def second(): ...

    with pytest.raises(ErrorConfig, match="another tool named 'x'"):
        agent_with(tool(name="x")(first), tool(name="x")(second))


def test_plain_functions_are_wrapped_and_tools_shared():
    shared = tool(print)
    assert agent_with(len, shared).tools_map["print"] is agent_with(shared).tools_map["print"]


@pytest.mark.parametrize("item", [5, "name", None, {}])
def test_what_is_no_tool_is_refused(item):
    with pytest.raises(ErrorConfig, match="must be a function or a Tool"):
        agent_with(item)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5"])
def test_impossible_timeouts_are_refused(timeout):
    with pytest.raises(ErrorConfig, match="timeout"):
        tool(timeout=timeout)(print)
