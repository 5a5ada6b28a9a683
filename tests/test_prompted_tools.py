"""Tools for models that know none: what such a model is asked, and what its JSON is turned into."""

import asyncio
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentroute import Agent, ErrorTruncated, LLMRequest, LLMResponse, Message, tool
from agentroute.models.json_text import JSONString
from agentroute.models.prompted_schema import shape, turn_schema
from agentroute.models.prompted_tools import ModelPromptedTools
from agentroute.output import OUTPUT_TOOL
from agentroute.testing import ModelScripted


@tool
def order_status(order_id: int) -> str:
    """Look up where an order is."""
    return f"Order {order_id} is on the truck."


@tool
def refund(order_id: int, reason: str) -> str:
    """Give the customer the money back."""
    return "Done."


TOOLS = [order_status.to_wire(), refund.to_wire()]
CALL = '{"tool": "order_status", "arguments": {"order_id": 7}}'


def request(*messages, **options):
    return LLMRequest("m", list(messages) or [Message("user", "go")], **({"tools": TOOLS} | options))


def asked(request, **options) -> LLMRequest:
    """What the inner model is asked."""
    inner = ModelScripted(['{"answer": "x"}'])
    asyncio.run(ModelPromptedTools(inner, **options).complete(request))
    return inner.requests[0]


def branches(asked) -> list:
    """Names of the tools the schema allows, then `answer`."""
    schema = asked.response_format["json_schema"]["schema"]
    return [branch["properties"].get("tool", {}).get("const", "answer") for branch in schema["anyOf"]]


def answered(text, **options) -> LLMResponse:
    """What the loop sees when the inner model writes `text`."""
    response = LLMResponse(text, finish_reason=options.pop("finish_reason", "stop"))
    return asyncio.run(ModelPromptedTools(ModelScripted([response])).complete(request(**options)))


def streamed(text, piece, **options):
    async def collect():
        model = ModelPromptedTools(ModelScripted([LLMResponse(text, finish_reason=options.get("finish_reason", "stop"))], piece=piece))
        return [chunk async for chunk in model.complete_stream(request())]

    return asyncio.run(collect())


def call_of(response):
    (call,) = response.tool_calls
    return call["function"]["name"], call["function"]["arguments"]


def assistant(name, arguments, call_id):
    return Message("assistant", None, tool_calls=[{"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}])


# ---- what the model is asked --------------------------------------------------------------------------------------


def test_the_instructions_come_first_then_the_tools_then_how_to_use_them():
    system, user = asked(request(Message("system", "Be brief."), Message("user", "Where is order 7?"))).messages
    assert system.content.startswith(
        'Be brief.\n\nTools:\n{"tool": "order_status", "about": "Look up where an order is.", "arguments": {"order_id": "integer"}}\n'
    )
    assert user == Message("user", "Where is order 7?")


def test_the_reply_is_one_of_the_tools_or_an_answer():
    assert branches(asked(request())) == ["order_status", "refund", "answer"]


def test_a_required_call_leaves_the_answer_out():
    assert branches(asked(request(tool_choice="required"))) == ["order_status", "refund"]


def test_one_required_tool_is_asked_for_directly():
    question = asked(request(tools=TOOLS[1:], tool_choice="required"))
    schema = question.response_format["json_schema"]["schema"]
    assert list(schema["properties"]) == ["order_id", "reason"]
    assert question.messages[0].content == "Reply in JSON with the keys order_id (integer), reason (string)."


@pytest.mark.parametrize("options", [{"tools": None}, {"tools": []}, {"tool_choice": "none"}])
def test_without_tools_a_request_goes_through(options):
    shape = {"type": "json_object"}
    question = asked(request(Message("user", "Hi"), response_format=shape, extra={"seed": 1}, **options))
    assert question == LLMRequest("m", [Message("user", "Hi")], response_format=shape, extra={"seed": 1}, tools=None)


def test_without_tools_a_history_with_tools_is_put_into_words():
    history = [assistant("f", '{"x": 1}', "a"), Message("tool", "2", tool_call_id="a", name="f"), Message("assistant", "It is 2.")]
    assert [message.to_dict() for message in asked(request(*history, tools=None)).messages] == [
        {"role": "assistant", "content": '{"tool": "f", "arguments": {"x": 1}}'},
        {"role": "user", "content": "Result of f: 2"},
        {"role": "assistant", "content": "It is 2."},
    ]


def test_no_tools_reach_the_inner_model_as_tools():
    question = asked(request(tool_choice="auto"))
    assert (question.tools, question.tool_choice) == (None, None)


def test_calls_and_results_become_turns_of_the_conversation():
    result = Message("tool", "On the truck.", tool_call_id="a", name="order_status")
    messages = asked(request(Message("user", "Where?"), assistant("order_status", '{"order_id":7}', "a"), result)).messages
    assert [(message.role, message.content) for message in messages[-3:]] == [
        ("user", "Where?"), ("assistant", CALL), ("user", "Result of order_status: On the truck."),
    ]  # fmt: skip


def test_several_calls_of_one_message_each_stand_before_their_result():
    both = Message("assistant", "Let me see.", tool_calls=[*assistant("f", "{}", "a").tool_calls, *assistant("g", "not json", "b").tool_calls])
    results = [Message("tool", "B", tool_call_id="b"), Message("tool", "", tool_call_id="a")]
    messages = asked(request(Message("user", "go"), both, *results)).messages
    assert [message.content for message in messages[-4:]] == [
        'Let me see.\n{"tool": "f", "arguments": {}}', "Result of f: (no output)", '{"tool": "g", "arguments": {}}', "Result of g: B",
    ]  # fmt: skip


def test_a_result_without_its_call_is_told_all_the_same():
    assert asked(request(Message("tool", "42", tool_call_id="gone", name="f"))).messages[-1] == Message("user", "Result of f: 42")


def test_roles_take_turns():
    result = Message("tool", "no such order", tool_call_id="a")
    messages = asked(request(Message("user", "1"), assistant("refund", "{}", "a"), result, Message("user", "2"), Message("user", "3"))).messages
    roles = [message.role for message in messages]
    assert all(left != right for left, right in itertools.pairwise(roles))
    assert messages[-1].content == "Result of refund: no such order\n\n2\n\n3"


def test_earlier_answers_look_like_what_the_model_writes():
    messages = asked(request(Message("user", "1"), Message("assistant", 'Say "hi"'), Message("user", "2"))).messages
    assert json.loads(messages[-2].content) == {"answer": 'Say "hi"'}


def test_what_a_provider_wants_echoed_stays_on_its_message():
    call = assistant("refund", "{}", "a")
    call.extra = {"reasoning_content": "hm"}
    messages = asked(request(Message("user", "1"), call, Message("tool", "ok", tool_call_id="a"))).messages
    assert messages[-2].extra == {"reasoning_content": "hm"}


def test_the_example_is_text_before_a_result_and_turns_after_one():
    before = asked(request(Message("user", "1"))).messages
    after = asked(request(Message("user", "1"), assistant("refund", "{}", "a"), Message("tool", "ok", tool_call_id="a"))).messages
    assert ("Example:" in before[0].content, len(before)) == (True, 2)
    assert ("Example:" in after[0].content, len(after)) == (False, 1 + 6 + 3)


def test_a_tool_called_twice_alike_is_offered_no_more():
    rounds = [assistant("order_status", '{"order_id": 7}', "a"), Message("tool", "?", tool_call_id="a")]
    again = [assistant("order_status", '{"order_id": 7}', "b"), Message("tool", "?", tool_call_id="b")]
    assert branches(asked(request(Message("user", "1"), *rounds))) == ["order_status", "refund", "answer"]
    assert branches(asked(request(Message("user", "1"), *rounds, *again))) == ["refund", "answer"]
    assert branches(asked(request(Message("user", "1"), *rounds, *again, Message("user", "2")))) == ["order_status", "refund", "answer"]


def test_own_settings_win_over_the_defaults():
    options = {"temperature": 0.1, "max_tokens": 50, "extra": {"seed": 1, "repeat_penalty": 1.0}}
    filled = asked(request(extra={"seed": 2}), **options)
    own = asked(request(temperature=0.9, max_tokens=5), **options)
    assert (filled.temperature, filled.max_tokens, filled.extra) == (0.1, 50, {"seed": 2, "repeat_penalty": 1.0})
    assert (own.temperature, own.max_tokens) == (0.9, 5)
    assert asked(request(extra={"temperature": 0.5})).temperature is None


def test_a_response_format_becomes_the_shape_of_the_answer():
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"city": {"type": "string"}}}}}
    question = asked(request(response_format=shape))
    assert question.response_format["json_schema"]["schema"]["anyOf"][-1]["properties"]["answer"]["properties"] == {"city": {"type": "string"}}
    assert answered('{"answer": {"city": "Rome"}}').content == '{"city": "Rome"}'


def test_a_model_that_knows_tools_is_asked_as_it_is():
    async def knows():
        return True

    inner = ModelScripted(["a", "b"])
    model = ModelPromptedTools(inner, native=knows)
    question = request(Message("user", "1"), assistant("refund", "{}", "a"), Message("tool", "ok", tool_call_id="a"))

    async def both():
        return (await model.complete(question)).content, [chunk.delta async for chunk in model.complete_stream(question)]

    assert asyncio.run(both()) == ("a", ["b", None])
    assert inner.requests == [question, question]


def typed(name=OUTPUT_TOOL):
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return [*TOOLS, {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}]


def test_a_typed_answer_is_the_answer_and_no_tool():
    question = asked(request(tools=typed()))
    assert branches(question) == ["order_status", "refund", "answer"]
    assert 'write {"answer": {…}} with the keys city (string).' in question.messages[0].content
    assert OUTPUT_TOOL not in question.messages[0].content
    assert call_of(answered('{"answer": {"city": "Rome"}}', tools=typed())) == (OUTPUT_TOOL, '{"city": "Rome"}')


def test_a_typed_answer_that_was_refused_stands_as_the_model_wrote_it():
    history = [Message("user", "Where?"), assistant(OUTPUT_TOOL, '{"city": 1}', "a"), Message("tool", "It does not fit.", tool_call_id="a", name=OUTPUT_TOOL)]
    beside_tools = asked(request(*history, tools=typed())).messages
    alone = asked(request(*history, tools=typed()[2:], tool_choice="required")).messages
    assert [message.content for message in beside_tools[-2:]] == ['{"answer": {"city": 1}}', "It does not fit."]
    assert [message.content for message in alone[-2:]] == ['{"city": 1}', "It does not fit."]


# ---- the schema ---------------------------------------------------------------------------------------------------


def test_definitions_move_to_the_root_and_do_not_clash():
    def takes(kind):
        return {"name": kind, "parameters": {"$defs": {"Item": {"type": kind}}, "type": "object", "properties": {"x": {"$ref": "#/$defs/Item"}}}}

    schema = turn_schema([takes("integer"), takes("boolean")], None, direct=False, text_limit=None)
    references = [branch["properties"]["arguments"]["properties"]["x"]["$ref"] for branch in schema["anyOf"]]
    assert [schema["$defs"][reference.removeprefix("#/$defs/")] for reference in references] == [{"type": "integer"}, {"type": "boolean"}]


def test_a_limit_holds_for_every_free_text_and_no_other():
    parameters = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"enum": ["x"], "type": "string"}, "c": {"type": "string", "maxLength": 5}}}
    schema = turn_schema([{"name": "f", "parameters": parameters}], {"type": "string"}, direct=False, text_limit=9)
    call, answer = (branch["properties"] for branch in schema["anyOf"])
    assert [item.get("maxLength") for item in call["arguments"]["properties"].values()] == [9, None, 5]
    assert answer["answer"]["maxLength"] == 9


def test_a_parameter_may_be_called_like_a_keyword():
    properties = {"description": {"type": "string", "description": "d"}, "title": {"type": "integer"}, "$ref": {"type": "integer"}}
    schema = turn_schema([{"name": "f", "parameters": {"type": "object", "properties": properties}}], None, direct=True, text_limit=None)
    assert schema["properties"] == {"description": {"type": "string"}, "title": {"type": "integer"}, "$ref": {"type": "integer"}}


def test_parameters_in_words():
    tree = {"type": "object", "properties": {"name": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}}
    parameters = {
        "$defs": {"Tree": tree},
        "properties": {
            "number": {"type": "integer", "description": "of  the\norder"},
            "kind": {"enum": ["a", "b"]},
            "when": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["number", "kind", "either", "tags"],
    }
    assert shape(parameters) == {
        "number": "integer: of the order", "kind": "a or b", "when": "string, optional", "either": "string or integer", "tags": ["string"],
    }  # fmt: skip
    assert "object" in json.dumps(shape({"$ref": "#/$defs/Tree", "$defs": {"Tree": tree}}))


# ---- what its reply is turned into --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [CALL, f" \n{CALL}\n", f"```json\n{CALL}\n```", f"{CALL} I hope this helps!"])
def test_a_call_in_json_is_a_tool_call(text):
    response = answered(text)
    assert (call_of(response), response.content, response.finish_reason) == (("order_status", '{"order_id": 7}'), None, "tool_calls")


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ('{"answer": "It is \\"here\\"."}', 'It is "here".'),
        ('{"thought": "hm", "answer": "Yes."}', "Yes."),
        ('{"answer": 42}', "42"),
        ('{"answer": ""}', None),
        ("It is here.", "It is here."),
        ("{broken", "{broken"),
        ('{"other": 1}', '{"other": 1}'),
        ("", None),
    ],
)
def test_anything_else_is_an_answer(text, content):
    response = answered(text)
    assert (response.content, response.tool_calls, response.finish_reason) == (content, [], "stop")


def test_an_answer_that_is_cut_off_stays_cut_off():
    response = answered('{"answer": "It is on the', finish_reason="length")
    assert (response.content, response.finish_reason) == ("It is on the", "length")


def test_an_answer_that_ends_on_the_last_token_is_whole():
    assert answered('{"answer": "Done."}', finish_reason="length").finish_reason == "stop"


@pytest.mark.parametrize("cut", ['{"tool": "refu', '{"tool": "refund", "arguments": {"order_id": 1', '{"tool": "refund", "arguments": {"order_id": 17}'])
def test_a_call_that_is_cut_off_says_so_and_never_runs(cut):
    response = answered(cut, finish_reason="length")
    assert (response.content, response.finish_reason) == (None, "length")
    agent = Agent("a", model=ModelPromptedTools(ModelScripted([LLMResponse(cut, finish_reason="length")])), tools=[refund])
    with pytest.raises(ErrorTruncated, match="max_tokens"):
        agent.run("go")


def test_a_call_that_ends_on_the_last_token_is_whole():
    assert answered(CALL, finish_reason="length").finish_reason == "tool_calls"


@pytest.mark.parametrize("text", ['{"order_id": 1}', '{"order_id": ', ""])
def test_the_arguments_of_a_required_tool_are_handed_on_as_written(text):
    assert call_of(answered(text, tools=TOOLS[:1], tool_choice="required")) == ("order_status", text)


def test_call_ids_are_new_to_the_conversation_and_the_same_each_time():
    history = [Message("user", "1"), assistant("refund", "{}", "call00002"), Message("tool", "ok", tool_call_id="call00002")]
    ids = {asyncio.run(ModelPromptedTools(ModelScripted([CALL])).complete(request(*history))).tool_calls[0]["id"] for _ in range(2)}
    assert ids == {"call00003"}


def test_half_characters_reach_neither_answer_nor_arguments():
    assert answered('{"answer": "a\\ud83e"}').content == "a\ufffd"
    assert call_of(answered('{"tool": "refund", "arguments": {"reason": "\\udd8a"}}'))[1] == '{"reason": "\ufffd"}'


def test_usage_and_model_of_the_response_are_kept():
    inner = ModelScripted([LLMResponse(CALL, usage={"cost": 0}, model="tiny", finish_reason="stop", extra={"reasoning": "r"})])
    response = asyncio.run(ModelPromptedTools(inner).complete(request()))
    assert (response.usage, response.model, response.extra) == ({"cost": 0}, "tiny", {"reasoning": "r"})


# ---- streaming ----------------------------------------------------------------------------------------------------


def test_an_answer_is_streamed_as_it_comes():
    chunks = streamed('{"answer": "One two three"}', piece=4)
    assert [chunk.delta for chunk in chunks[:3]] == ["One ", "two ", "thre"]


def test_a_call_shows_nothing_before_the_last_chunk():
    *rest, last = streamed(CALL, piece=4)
    assert (rest, call_of(last.response)) == ([], ("order_status", '{"order_id": 7}'))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/\n\t🦊é\u2028{}'))


@given(TEXTS, st.booleans(), st.integers(1, 7))
def test_streaming_is_the_same_as_completing_wherever_it_is_cut(text, ascii_only, piece):
    raw = json.dumps({"answer": text}, ensure_ascii=ascii_only)
    chunks = streamed(raw, piece)
    assert "".join(chunk.delta or "" for chunk in chunks) == (chunks[-1].response.content or "") == text
    assert answered(raw).content == chunks[-1].response.content


@given(st.text('{}"\\:, \nanswertoluguments1ud83e`', max_size=60), st.integers(1, 7), st.sampled_from(["stop", "length"]))
def test_the_deltas_add_up_whatever_the_model_writes(text, piece, reason):
    chunks = streamed(text, piece, finish_reason=reason)
    whole = answered(text, finish_reason=reason)
    assert "".join(chunk.delta or "" for chunk in chunks) == (chunks[-1].response.content or "")
    assert (chunks[-1].response.content, chunks[-1].response.tool_calls) == (whole.content, whole.tool_calls)


@given(TEXTS, st.booleans(), st.lists(st.integers(0, 400), max_size=6))
def test_a_json_string_is_decoded_wherever_it_is_cut(text, ascii_only, cuts):
    raw = json.dumps(text, ensure_ascii=ascii_only)[1:] + ', "more": 1}'
    places = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    string = JSONString()
    decoded = "".join(string.feed(raw[start:end]) for start, end in itertools.pairwise(places))
    assert (decoded, string.closed) == (text, True)


@given(TEXTS, st.integers(0, 400))
def test_a_json_string_that_is_cut_off_gives_a_beginning_of_the_text(text, cut):
    raw = json.dumps(text)[1:-1][:cut]
    assert text.startswith(JSONString().feed(raw))


@pytest.mark.parametrize(
    ("raw", "text"),
    [("a\nb", "a\nb"), ("\\x", "x"), ("\\u12zz", "\ufffd12zz"), ("\\ud83e\\n", "\ufffd\n"), ("\\ud83e\\u0041", "\ufffdA"), ("\\ud83e!!!!!!", "\ufffd!!!!!!")],
)
def test_careless_escapes_are_read_leniently(raw, text):
    assert "".join(map(JSONString().feed, raw + '"')) == text


# ---- in the loop --------------------------------------------------------------------------------------------------


def test_an_agent_uses_tools_through_a_model_that_knows_none():
    inner = ModelScripted([CALL, '{"answer": "On the truck."}'])
    result = Agent("a", model=ModelPromptedTools(inner), tools=[order_status, refund]).run("Where is order 7?")
    assert (result.output, result.record.tool_calls[0].result_text) == ("On the truck.", "Order 7 is on the truck.")
    assert inner.requests[1].messages[-1].content == "Result of order_status: Order 7 is on the truck."


def test_an_agent_gets_a_structured_answer_from_a_model_that_knows_no_tools():
    inner = ModelScripted(['{"value": [1, 2]}'])
    assert Agent("a", model=ModelPromptedTools(inner), output=list[int]).run("Count.").output == [1, 2]
