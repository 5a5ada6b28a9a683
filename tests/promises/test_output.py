"""Structured output: any type in every mode, corrected within `retries` exactly, refusals and cut answers errors of their own."""

import asyncio
import contextlib
import dataclasses
import enum
import json
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel

import agentroute
from agentroute import Agent, Context, ErrorConfig, LLMRequest, Retry, ToolCall, errors, output, tool
from agentroute.errors import ErrorOutput, ErrorRefused, ErrorRun, ErrorTruncated
from agentroute.message import LLMResponse
from agentroute.output import OutputSpec, output_spec, strict_schema
from agentroute.schema import Invalid
from agentroute.testing import ModelFunction, ModelScripted
from tests.server import ModelServer, Raw

MODES = ["auto", "tool", "native", "prompted", "text"]
T = TypeVar("T")


class Invoice(BaseModel):
    number: str
    total: float


class Refund(BaseModel):
    amount: float


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Film(TypedDict):
    title: str


class Colour(enum.Enum):
    RED = "red"


class Box(BaseModel, Generic[T]):
    item: T


class Aliased(BaseModel):
    order_id: int = Field(alias="orderId")


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    day: date
    n: int


class Batch(BaseModel):
    invoices: list[Invoice]


class Node(BaseModel):
    name: str
    parts: list["Node"]


class Value(BaseModel):
    value: int


INVOICE = {"number": "42", "total": 199.0}

# the type; the JSON of a right answer; its value; the JSON of a wrong one
KINDS = [
    ("model", Invoice, INVOICE, Invoice(**INVOICE), {"number": "42"}),
    ("list of models", list[Invoice], [INVOICE], [Invoice(**INVOICE)], [{}]),
    ("model or None", Invoice | None, INVOICE, Invoice(**INVOICE), {}),
    ("None", Invoice | None, None, None, {}),
    ("union of models", Invoice | Refund, {"amount": 5}, Refund(amount=5), {}),
    ("dataclass", Point, {"x": 1}, Point(1), {"y": 1}),
    ("TypedDict", Film, {"title": "Up"}, {"title": "Up"}, {}),
    ("int", int, 7, 7, "many"),
    ("float", float, 1.5, 1.5, "much"),
    ("bool", bool, True, True, "perhaps"),
    ("Literal", Literal["yes", "no"], "yes", "yes", "maybe"),
    ("Literal of Enum members", Literal[Colour.RED], "red", Colour.RED, "green"),
    ("Enum", Colour, "red", Colour.RED, "green"),
    ("dict", dict[str, int], {"a": 1}, {"a": 1}, {"a": "x"}),
    ("date", date, "2026-01-31", date(2026, 1, 31), "soon"),
    ("Decimal", Decimal, "0.1234567890123456789", Decimal("0.1234567890123456789"), "much"),
    ("root model", RootModel[list[int]], [1], RootModel[list[int]]([1]), ["x"]),
    ("generic model", Box[int], {"item": 1}, Box[int](item=1), {"item": "x"}),
    ("aliases", Aliased, {"orderId": 5}, Aliased(orderId=5), {"order_id": 5}),
    ("strict model", Strict, {"day": "2026-01-31", "n": 1}, Strict(day=date(2026, 1, 31), n=1), {"day": "2026-01-31", "n": "1"}),
    ("nested definitions", Batch, {"invoices": [INVOICE]}, Batch(invoices=[Invoice(**INVOICE)]), {"invoices": [{}]}),
    ("recursive", Node, {"name": "a", "parts": [{"name": "b", "parts": []}]}, Node(name="a", parts=[Node(name="b", parts=[])]), {"name": "a"}),
    ("optional with a field `value`", Value | None, {"value": 3}, Value(value=3), {"value": "x"}),
]  # fmt: skip
IDS = [row[0] for row in KINDS]
ANSWERS = [row[1:] for row in KINDS]


def answer(mode: str, kind: Any, value: Any) -> ToolCall | str:
    """A model's answer in the form it was asked for: an object, with what is none under `value`."""
    if mode == "text":
        return json.dumps(value)
    wrapped = {"value": value} if OutputSpec(kind).schema.get("properties", {}).keys() == {"value"} else value
    return ToolCall("f", "final_answer", wrapped) if mode in ("auto", "tool") else json.dumps(wrapped)


def asked(kind: Any, mode: str, *answers: Any, **options: Any) -> Agent[Any]:
    return Agent("a", model=ModelScripted(list(answers)), output=kind, output_mode=mode, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kind", "right", "value", "wrong"), ANSWERS, ids=IDS)
def test_a_right_answer_comes_out_as_its_type(kind, right, value, wrong, mode):
    output = asked(kind, mode, answer(mode, kind, right)).run("go").output
    assert (output, type(output)) == (value, type(value))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kind", "right", "value", "wrong"), ANSWERS, ids=IDS)
def test_a_wrong_answer_is_corrected_once(kind, right, value, wrong, mode):
    agent = asked(kind, mode, answer(mode, kind, wrong), answer(mode, kind, right))
    assert agent.run("go").output == value
    assert len(agent.model.requests) == 2
    assert agent.model.requests[1].messages[-1].content.startswith("The answer does not fit:\n")


@pytest.mark.parametrize("kind", [row[1] for row in KINDS], ids=IDS)
def test_every_type_is_asked_for_as_an_object(kind):
    schema = OutputSpec(kind).schema
    assert schema["type"] == "object"
    assert "$ref" not in schema


@pytest.mark.parametrize("retries", [0, 1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_wrong_answers_count_against_retries_exactly(mode, retries):
    wrong = answer(mode, Invoice, {"number": "42"})
    agent = Agent("a", model=ModelFunction(lambda request: wrong), output=Invoice, output_mode=mode, retries=retries, max_turns=50)
    with pytest.raises(ErrorOutput, match="total: missing; it is required") as caught:
        agent.run("go")
    assert len(agent.model.requests) == retries + 1
    assert json.loads(caught.value.raw) == {"number": "42"}
    assert (caught.value.result.output, caught.value.result.usage.model_calls) == (None, retries + 1)


@pytest.mark.parametrize("mode", MODES)
def test_the_typed_answer_comes_over_the_wire_too(mode):
    with ModelServer([answer(mode, list[Invoice], [INVOICE])]) as server:
        result = Agent("a", model=server.model, api_key="k", output=list[Invoice], output_mode=mode).run("go")
    assert result.output == [Invoice(**INVOICE)]


# ---- how it is asked for


def request_of(mode: str, kind: Any = Invoice, tools: Any = ()) -> Any:
    agent = asked(kind, mode, answer(mode, kind, INVOICE), tools=list(tools))
    agent.run("go")
    return agent.model.requests[0]


def look(a: int) -> int:
    """Looks."""
    return a


def test_tool_mode_asks_through_a_tool_which_is_required_only_when_it_is_the_only_one():
    alone, beside = request_of("tool"), request_of("tool", tools=[look])
    assert [tool["function"]["name"] for tool in alone.tools] == ["final_answer"]
    assert [tool["function"]["name"] for tool in beside.tools] == ["look", "final_answer"]
    assert (alone.tool_choice, beside.tool_choice) == ("required", "auto")
    assert alone.response_format is None


def test_native_mode_asks_through_the_response_format():
    request = request_of("native")
    assert request.tools is None
    assert request.response_format["json_schema"] == {
        "name": "final_answer",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"number": {"type": "string"}, "total": {"type": "number"}},
            "required": ["number", "total"],
            "additionalProperties": False,
        },
    }


def test_prompted_mode_asks_in_the_instructions_and_text_mode_says_nothing():
    prompted, text = request_of("prompted"), request_of("text")
    assert '"total"' in prompted.messages[0].content
    assert [message.role for message in text.messages] == ["user"]
    assert [(request.tools, request.response_format) for request in (prompted, text)] == [(None, None)] * 2


@pytest.mark.parametrize("mode", MODES)
def test_other_tools_stay_callable_before_the_answer_and_no_choice_is_forced(mode):
    agent = asked(Invoice, mode, ToolCall("1", "look", {"a": 1}), ToolCall("2", "look", {"a": 2}), answer(mode, Invoice, INVOICE), tools=[look])
    result = agent.run("go")
    assert result.output == Invoice(**INVOICE)
    assert [call.result_text for call in result.record.tool_calls] == ["1", "2"]
    assert all(request.tool_choice in (None, "auto") for request in agent.model.requests)


@pytest.mark.parametrize("mode", ["native", "prompted", "text"])
def test_a_users_tool_may_be_named_final_answer_where_the_answer_is_no_call(mode):
    mine = tool(name="final_answer")(look)
    agent = asked(Invoice, mode, ToolCall("1", "final_answer", {"a": 1}), json.dumps(INVOICE), tools=[mine])
    result = agent.run("go")
    assert (result.output, result.record.tool_calls[0].result_text) == (Invoice(**INVOICE), "1")


# ---- strict mode of providers


class Described(BaseModel):
    """A thing."""

    home: Annotated[Invoice, Field(description="Where it lives.")]
    colour: Colour | None
    tags: Annotated[list[str], Field(min_length=1)]
    when: date
    share: Annotated[float, Field(ge=0, le=1)]


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Chain(BaseModel):
    """It holds itself, under a description."""

    name: str
    links: Annotated["Chain", Field(description="The next one.")] | None


class Loop(BaseModel):
    next: "Loop" = Field(description="The next one.")


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Holds(BaseModel):
    inner: Loose


STRICT = [Invoice, list[Invoice], Invoice | None, int, Colour, Box[int], Batch, Node, Described, list[Pet], Literal["a"], Chain]
NOT_STRICT = [
    Point, dict[str, int], dict, Any, Loose, Holds, set[int], tuple[int, str], Annotated[str, Field(max_length=3)], bytes, pydantic.HttpUrl,
    list[dict[str, int]], Refund | Point, Loop,
]  # fmt: skip


@pytest.mark.parametrize("kind", STRICT, ids=str)
def test_what_strict_mode_can_say_is_sent_strict(kind):
    shape = OutputSpec(kind, "native")
    schema = strict_schema(shape.schema)
    for part in objects(schema):
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])
    assert not keys_of(schema) & {"oneOf", "allOf", "discriminator", "title", "default"}


@pytest.mark.parametrize("kind", NOT_STRICT, ids=str)
def test_what_strict_mode_cannot_say_is_sent_as_it_is(kind):
    spec = OutputSpec(kind, "native")
    sent = LLMRequest(model="m", messages=[])
    spec.extend(sent)
    assert sent.response_format["json_schema"] == {"name": "final_answer", "schema": spec.schema}


def test_a_described_reference_is_written_out_because_it_must_stand_alone():
    schema = strict_schema(OutputSpec(Described, "native").schema)
    home = schema["properties"]["home"]
    assert (home["description"], home["type"], home["additionalProperties"]) == ("Where it lives.", "object", False)


def objects(schema: Any) -> list[dict[str, Any]]:
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []
    own = [schema] if isinstance(schema, dict) and schema.get("type") == "object" else []
    return own + [part for item in inner for part in objects(item)]


def keys_of(schema: Any) -> set[str]:
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []
    return set(schema if isinstance(schema, dict) else ()) | {key for item in inner for key in keys_of(item)}


# ---- how it is read

WRITTEN = [
    '{"number": "42", "total": 199}',
    'Here it is:\n```json\n{"number": "42", "total": 199}\n```\nAnything else?',
    '```\n{"number": "42", "total": 199}\n```',
    'The invoice is {"number": "42", "total": "199"}, I think.',
    '\n\n  {"number": "42", "total": 199}  ',
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", WRITTEN)
def test_json_in_a_text_answer_is_read_wherever_it_stands(text, mode):
    assert asked(Invoice, mode, text).run("go").output == Invoice(**INVOICE)


PROSE = [
    'Use {braces}. Answer: {"amount": 2}',
    '{"amount": 2} Hope {that} helps',
    '<think>maybe {"amount": 1}</think>{"amount": 2}',
    'Example: {"amount": 1} … the answer is {"amount": 2}.',
    'Example:\n```json\n{"amount": 1}\n```\nThe answer:\n```json\n{"amount": 2}\n```',
    '```json\n{"amount": 2}\n``` as said in [1] and [2]',
    'The set {1, 2}, the list [x], the call f({"amount": 2})',
    '{"amount": 2} (not {"total": 3})',
    "{'amount': 1} in Python, {\"amount\": 2} in JSON",
    '[see {"amount": 2}]',
    'Broken: {"amount": 1,}. Mended: {"amount": 2}',
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", PROSE)
def test_json_is_found_among_other_brackets_and_the_last_that_fits_is_the_answer(text, mode):
    assert asked(Refund, mode, text, retries=0).run("go").output == Refund(amount=2)


PARTS = [
    '{"name": "a", "parts": [{"name": "b", "parts": []}]',
    '{"name": "a", "parts": [{"name": "b", "parts": []},]}',
    '{"name": "a" "parts": [], "or": {"name": "b", "parts": []}}',
    '[{"name": "a", "parts": []}, {"name": "b", "parts": []},',
    'Perhaps {"name": "b", "parts": []}. No: {"name": "a", "par',
    '{"name": "say \\"}\\"", "parts": [{"name": "b", "parts": []}]',
]


@pytest.mark.parametrize("text", PARTS)
def test_a_part_of_a_broken_answer_is_not_taken_for_the_answer(text):
    with pytest.raises(Invalid, match="not valid JSON"):
        OutputSpec(Node).parse(text)


def test_what_is_broken_is_told_where_it_stands():
    with pytest.raises(Invalid, match="not valid JSON: trailing comma at line 3"):
        OutputSpec(Refund).parse('Here you are:\n\n```json\n{\n  "amount": 2,\n}\n```\nAnything else?')


@given(st.text("[]{}\",:\\1 ta\n`"), st.sampled_from(MODES))
def test_any_text_is_read_or_told_to_be_wrong(text, mode):
    with contextlib.suppress(Invalid):
        assert all(type(item) is int for item in output_spec(list[int], mode).parse(text))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["[", "{", '{"', '["a"b]', "[1x]", "[1] ", '{"a":', '[{"', '\\"[1', "```\n1\n```"])
def test_reading_a_long_text_takes_no_longer_than_it_is(piece):
    with pytest.raises(Invalid):
        OutputSpec(Refund).parse('{"' + piece * (400_000 // len(piece)))


@pytest.mark.parametrize(("kind", "text", "value"), [(int, "So:\n```\n42\n```", 42), (Colour, '```json\n"red"\n```', Colour.RED)])
@pytest.mark.parametrize("mode", MODES)
def test_a_bare_value_in_a_code_fence_is_read(kind, text, value, mode):
    assert asked(kind, mode, text, retries=0).run("go").output == value


@pytest.mark.parametrize("text", ["[1, 2]", "```json\n[1, 2]\n```", "The numbers are [1, 2].", '{"value": [1, 2]}'])
@pytest.mark.parametrize("mode", MODES)
def test_a_list_in_a_text_answer_is_read(text, mode):
    assert asked(list[int], mode, text).run("go").output == [1, 2]


@pytest.mark.parametrize(("kind", "text", "value"), [(Colour, "red", Colour.RED), (Literal["yes", "no"], " yes\n", "yes"), (date, "2026-01-31", date(2026, 1, 31)), (int, "42", 42), (int | None, "null", None)])
def test_a_bare_word_is_read_in_text_mode(kind, text, value):
    assert asked(kind, "text", text).run("go").output == value


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", ["I do not know.", "", "42 euros {not json}"])
def test_a_text_without_the_answer_is_corrected(text, mode):
    agent = asked(Invoice, mode, text, answer(mode, Invoice, INVOICE))
    assert agent.run("go").output == Invoice(**INVOICE)
    assert agent.model.requests[1].messages[-1].role == "user"


TOLD = [
    (Literal["a", "b"], "Maybe", 'expected "a" or "b" (got "Maybe")', '"enum": ["a", "b"]'),
    (int, "a dozen", 'expected an integer (got "a dozen")', '{"type": "integer"}'),
    (bool, "perhaps", 'expected true or false (got "perhaps")', '{"type": "boolean"}'),
    (Annotated[str, Field(max_length=3)], "abcdef", 'must have at most 3 characters (got "abcdef")', '"maxLength": 3'),
    (Invoice, "I do not know.", 'expected an object (got "I do not know.")', '"required": ["number", "total"]'),
    (Invoice, 'It is {"number": "1"}.', "total: missing; it is required", '"required": ["number", "total"]'),
    (list[int], "One and two.", 'expected an array (got "One and two.")', '"items": {"type": "integer"}'),
]


@pytest.mark.parametrize(("kind", "text", "problem", "schema"), TOLD)
def test_a_correction_in_text_mode_says_what_did_not_fit_and_shows_the_type(kind, text, problem, schema):
    agent = Agent("a", model=ModelFunction(lambda request: text), output=kind, output_mode="text")
    with pytest.raises(ErrorOutput):
        agent.run("go")
    told = agent.model.requests[1].messages[-1].content
    assert told.startswith(f"The answer does not fit:\n{problem}\nAnswer again, with JSON that fits this JSON Schema, and with nothing else:\n")
    assert schema in told


@pytest.mark.parametrize("kind", [int, Invoice], ids=["int", "Invoice"])
def test_a_correction_in_prompted_mode_shows_the_schema_again(kind):
    agent = Agent("a", model=ModelFunction(lambda request: "Who knows?"), output=kind, output_mode="prompted")
    with pytest.raises(ErrorOutput):
        agent.run("go")
    first, second = agent.model.requests
    schema = first.messages[0].content.partition("\n")[2]
    told = second.messages[-1].content
    assert told.startswith("The answer does not fit:\nexpected JSON, and there is none in it\n")
    assert told.endswith(schema)
    assert json.loads(schema) == OutputSpec(kind).schema


def test_text_inside_the_arguments_is_no_answer():
    agent = asked(list[int], "tool", ToolCall("1", "final_answer", {"value": "neither of [1, 2]"}), ToolCall("2", "final_answer", {"value": [3]}))
    assert agent.run("go").output == [3]


def test_an_answer_beside_other_calls_wins_and_they_are_not_run():
    ran: list[int] = []

    def look(a: int) -> None:
        ran.append(a)

    agent = asked(Invoice, "tool", [ToolCall("1", "look", {"a": 1}), ToolCall("2", "final_answer", INVOICE)], tools=[look])
    assert (agent.run("go").output, ran) == (Invoice(**INVOICE), [])


WRONG = ToolCall("1", "final_answer", {"number": "1"})
OTHER = ToolCall("2", "final_answer", {"total": 2})
RIGHT = ToolCall("3", "final_answer", INVOICE)


@pytest.mark.parametrize("calls", [[WRONG, RIGHT], [RIGHT, WRONG], [WRONG, OTHER, RIGHT]], ids=["second", "first", "third"])
def test_of_several_answers_in_one_turn_the_first_that_fits_wins(calls):
    result = asked(Invoice, "tool", calls, retries=0).run("go")
    assert (result.output, result.usage.model_calls) == (Invoice(**INVOICE), 1)
    assert result.messages[-1] == {"role": "assistant", "content": json.dumps(INVOICE)}


def test_of_several_answers_the_first_that_stands_before_the_validators_wins():
    agent = asked(Invoice, "tool", [ToolCall("1", "final_answer", {"number": "1", "total": -1}), RIGHT], retries=0)

    @agent.output_validator
    def check(ctx: Context, output: Invoice) -> None:
        if output.total < 0:
            raise Retry("must be positive")

    assert agent.run("go").output == Invoice(**INVOICE)


def test_of_several_wrong_answers_each_is_told_its_own_problem():
    look_up = ToolCall("4", "look", {"a": 1})
    agent = asked(Invoice, "tool", [WRONG, look_up, OTHER], RIGHT, tools=[look], retries=1)
    assert agent.run("go").output == Invoice(**INVOICE)
    told = {message.tool_call_id: message.content for message in agent.model.requests[1].messages if message.role == "tool"}
    assert list(told) == ["1", "4", "2"]
    assert "total: missing" in told["1"] and "number" not in told["1"]
    assert told["4"].startswith("Not run")
    assert "number: missing" in told["2"] and "total" not in told["2"]


# ---- what is kept between runs


def test_a_type_is_put_into_a_schema_once_for_all_runs_and_copies_of_an_agent(monkeypatch):
    made: list[Any] = []

    class Counted(OutputSpec):
        def __init__(self, kind: Any, mode: str = "auto") -> None:
            made.append(kind)
            super().__init__(kind, mode)

    monkeypatch.setattr(output, "OutputSpec", Counted)
    kind = Annotated[list[Invoice], {"no": "hash"}]
    agent = Agent("a", model=ModelFunction(lambda request: answer("tool", list[Invoice], [INVOICE])), output=kind)
    outputs = [one.run("go").output for one in (agent, agent, agent.replace(name="b"))]
    assert (outputs, len(made)) == ([[Invoice(**INVOICE)]] * 3, 1)


class Dollars(BaseModel):
    amount: float


def test_equal_types_are_kept_apart_because_the_first_that_fits_is_the_value():
    one, other = Refund | Dollars, Dollars | Refund
    assert one == other
    assert [output_spec(kind).parse('{"amount": 1}') for kind in (one, other)] == [Refund(amount=1), Dollars(amount=1)]


def test_modes_are_kept_apart():
    assert [output_spec(Invoice, mode).mode for mode in MODES] == ["tool", "tool", "native", "prompted", "text"]


def test_a_type_that_cannot_be_used_is_looked_at_again():
    class Late(BaseModel):
        inner: "Inner"  # noqa: F821

    with pytest.raises(ErrorConfig, match="no JSON Schema"):
        output_spec(Late)
    Late.model_rebuild(_types_namespace={"Inner": Invoice})
    assert output_spec(Late).parse(json.dumps({"inner": INVOICE})).inner == Invoice(**INVOICE)


# ---- validators


def validated(check: Any, *answers: dict[str, Any], kind: Any = Invoice, **options: Any) -> Agent[Any]:
    agent = asked(kind, "tool", *(answer("tool", kind, one) for one in answers), **options)
    agent.output_validator(check)
    return agent


NEGATIVE = {"number": "42", "total": -1.0}


def raises(error: Exception) -> Any:
    def check(ctx: Context, output: Invoice) -> None:
        if output.total < 0:
            raise error

    return check


@pytest.mark.parametrize("error", [Retry("must be positive"), ValueError("must be positive"), AssertionError("must be positive")], ids=lambda e: type(e).__name__)
def test_a_validator_has_the_answer_corrected(error):
    agent = validated(raises(error), NEGATIVE, INVOICE)
    assert agent.run("go").output == Invoice(**INVOICE)
    assert "must be positive" in agent.model.requests[1].messages[-1].content


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_corrections_of_validators_are_bounded_exactly(retries):
    agent = validated(raises(Retry("must be positive")), *[NEGATIVE] * 5, retries=retries)
    with pytest.raises(ErrorOutput, match="must be positive") as caught:
        agent.run("go")
    assert len(agent.model.requests) == retries + 1
    assert json.loads(caught.value.raw) == NEGATIVE


def test_pydantics_own_error_in_a_validator_is_told_in_plain_words():
    def check(ctx: Context, output: Invoice) -> None:
        if output.total < 0:
            Refund.model_validate({"amount": "none"})

    agent = validated(check, NEGATIVE, INVOICE)
    agent.run("go")
    assert 'amount: expected a number (got "none")' in agent.model.requests[1].messages[-1].content
    assert "pydantic" not in agent.model.requests[1].messages[-1].content


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError("x"), ErrorConfig("x")], ids=lambda e: type(e).__name__)
def test_other_errors_of_a_validator_are_bugs_and_end_the_run(error):
    agent = validated(raises(error), NEGATIVE, INVOICE)
    with pytest.raises((ErrorRun, ErrorConfig)) as caught:
        agent.run("go")
    assert error in (caught.value, caught.value.__cause__)
    assert len(agent.model.requests) == 1


def test_validators_run_in_order_each_on_what_the_last_one_gave():
    agent = validated(lambda ctx, output: output.model_copy(update={"total": output.total + 1}), INVOICE)

    @agent.output_validator
    async def double(ctx: Context, output: Invoice) -> Invoice:
        await asyncio.sleep(0)
        return output.model_copy(update={"total": output.total * 2})

    @agent.output_validator
    def keep(ctx: Context, output: Invoice) -> None: ...

    assert agent.run("go").output.total == 400.0


def test_what_a_validator_gives_instead_is_validated_again():
    assert validated(lambda ctx, output: {"number": "1", "total": "5"}, INVOICE).run("go").output == Invoice(number="1", total=5)


def test_a_wrong_replacement_is_a_correction():
    agent = validated(lambda ctx, output: {"number": "1"} if output.total < 0 else None, NEGATIVE, INVOICE)
    assert agent.run("go").output == Invoice(**INVOICE)
    assert "total: missing" in agent.model.requests[1].messages[-1].content


def test_a_validator_of_a_text_answer_may_ask_again():
    agent = Agent("a", model=ModelScripted(["short", "long enough"]))

    @agent.output_validator
    def check(ctx: Context, output: str) -> str:
        if len(output) < 8:
            raise Retry("longer, please")
        return output.upper()

    assert agent.run("go").output == "LONG ENOUGH"


# ---- answers that are none


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("response", "error", "reason"),
    [
        (LLMResponse(None, refusal="I will not"), ErrorRefused, "refusal"),
        (LLMResponse('{"number": "1", "total": 2}', finish_reason="content_filter"), ErrorRefused, "content_filter"),
        (LLMResponse('{"number": "1", "to', finish_reason="length"), ErrorTruncated, None),
        (LLMResponse(None, [ToolCall("f", "final_answer", '{"number": "1", "to').to_wire()], finish_reason="length"), ErrorTruncated, None),
    ],
    ids=["refusal", "content filter", "cut text", "cut call"],
)
def test_refused_filtered_and_cut_answers_are_errors_of_their_own(response, error, reason, mode):
    agent = asked(Invoice, mode, response, retries=3)
    with pytest.raises(error) as caught:
        agent.run("go")
    assert type(caught.value) is error
    assert getattr(caught.value, "reason", None) == reason
    assert len(agent.model.requests) == 1
    assert caught.value.result.output is None


def test_a_refusal_on_the_wire_is_told_as_one():
    message = {"role": "assistant", "content": None, "refusal": "I will not"}
    body = {"id": "1", "object": "chat.completion", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    with ModelServer([Raw(body=[json.dumps(body).encode()])]) as server, pytest.raises(ErrorRefused, match="I will not"):
        Agent("a", model=server.model, api_key="k", output=Invoice, output_mode="native").run("go")


# ---- errors


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name.startswith("Error")])
def test_every_error_is_found_at_the_top_of_the_package(name):
    assert name in agentroute.__all__
    assert getattr(agentroute, name) is getattr(errors, name)


def test_the_guide_tells_of_every_error():
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
    told = re.findall(r"`(Error\w+)`", "".join(re.findall(r"^\| `Error[^|]+\|", guide, re.MULTILINE)))
    assert ["ErrorAgent", *sorted(told)] == [name for name in sorted(errors.__all__) if name.startswith("Error")]
