"""How endpoints differ: what the table says of them, and what their refusals teach."""

import asyncio
import json
import re
import threading
import warnings
from dataclasses import replace

import pytest

from agentroute import Agent, ErrorConfig, LLMRequest, LLMResponse, Message, ModelCloud, errors, image, tool
from agentroute.models import refusals
from agentroute.models.quirks import KINDS, quirks_of, quirks_of_kind
from agentroute.models.refusals import Learned, learned
from agentroute.models.wire_request import few_words, request_body
from tests.server import ModelServer, Raw, completion

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"const": 1}}, "additionalProperties": False}}}  # fmt: skip
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
SHAPE = {"type": "json_schema", "json_schema": {"name": "final_answer", "strict": True, "schema": SCHEMA}}


@pytest.fixture(autouse=True)
def nothing_learned():
    yield
    learned.clear()


async def asked(model: ModelCloud, request: LLMRequest, stream: bool) -> LLMResponse:
    if not stream:
        return await model.complete(request)
    return [chunk async for chunk in model.complete_stream(request)][-1].response


def ask(server: ModelServer, *messages: Message, stream: bool = False, kind: str | None = None, **options) -> LLMResponse:
    request = LLMRequest("m", list(messages) or [Message("user", "hi")], **options)
    return asyncio.run(asked(ModelCloud(model_id="m", base_url=server.base_url, kind=kind), request, stream))


def body_for(kind: str, *messages: Message, stream: bool = False, model: str = "m", **options) -> dict:
    request = LLMRequest(model, list(messages) or [Message("user", "hi")], **options)
    return json.loads(request_body(request, KINDS[kind], stream=stream))


def refusal(message: str, status: int = 400, **fields) -> Raw:
    return Raw(status, [json.dumps({"error": {"message": message, "type": "invalid_request_error", **fields}}).encode()])


def picky(refuses, answer: Raw):
    """An answer to a request that `refuses(body)` finds nothing in, `answer` to others."""
    return lambda body: answer if refuses(body) else "hello"


def warned(do) -> list[str]:
    """The warnings of what is done."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        do()
    return [str(one.message) for one in told]


# ---- which address is what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://mine.openai.azure.com/openai/v1", "azure"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini"),
        ("https://api.x.ai/v1", "xai"),
        ("http://localhost:11434/v1", "ollama"),
        ("http://192.168.1.7:11434/v1", "ollama"),
        ("http://[::1]:11434/v1", "ollama"),
        ("http://127.0.0.1:1234/v1", "lm_studio"),
        ("http://localhost:8000/v1", "vllm"),
        ("http://gpu-box:8080/v1", "llama_server"),
        ("http://litellm.internal:4000", "litellm"),
        ("https://example.com:11434/v1", "unknown"),
        ("https://example.com/v1", "unknown"),
        ("https://notopenrouter.ai/v1", "unknown"),
        ("https://openrouter.ai.example.com/v1", "unknown"),
    ],
)
def test_an_address_tells_its_kind(url, kind):
    assert quirks_of(url).kind == kind
    assert ModelCloud(model_id="m", base_url=url).quirks == KINDS[kind]


def test_the_kind_can_be_given():
    model = ModelCloud(model_id="m", base_url="https://llm.example.com/v1", kind="vllm")
    assert model.quirks == quirks_of_kind("vllm")
    with pytest.raises(ErrorConfig, match=r"kind must be one of unknown, openrouter, .*'vlm'"):
        ModelCloud(model_id="m", base_url="https://llm.example.com/v1", kind="vlm")


def test_what_is_free_is_free_unless_it_is_said_otherwise():
    def free(url, **options):
        return ModelCloud(model_id="m", base_url=url, **options).free

    assert [free("http://localhost:11434/v1"), free("http://localhost:11434/v1", free=False)] == [True, False]
    assert [free("http://localhost:8080/v1"), free("https://api.openai.com/v1"), free("https://x.example/v1", free=True)] == [False, False, True]


# ---- what the table does to a request -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_one_field_caps_the_answer(kind):
    fields = {"openai": "max_completion_tokens", "azure": "max_completion_tokens", "copilot": "max_completion_tokens"}
    body = body_for(kind, max_tokens=64)
    assert {name: body[name] for name in body if name.startswith("max_")} == {fields.get(kind, "max_tokens"): 64}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_cap_in_extra_goes_alone(name):
    assert [body_for("openai", max_tokens=64, extra={name: 7}).get(field) for field in ("max_tokens", "max_completion_tokens")].count(None) == 1
    assert body_for("openai", max_tokens=64, extra={name: 7})[name] == 7


def test_usage_is_asked_for_where_that_is_allowed():
    assert body_for("openai", stream=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in body_for("mistral", stream=True)
    assert "stream_options" not in body_for("openai")


def test_a_tool_that_must_be_called_is_called_any_at_mistral():
    assert [body_for(kind, tools=[TOOL], tool_choice="required")["tool_choice"] for kind in ("openai", "mistral")] == ["required", "any"]


def test_gemini_gets_schemas_in_few_words():
    body = body_for("gemini", tools=[TOOL], response_format=SHAPE)
    assert body["tools"][0]["function"]["parameters"] == {"type": "object", "properties": {"x": {"enum": [1]}}}
    assert body["response_format"]["json_schema"] == {"name": "final_answer", "schema": {k: v for k, v in SCHEMA.items() if k != "additionalProperties"}}
    assert body_for("openai", tools=[TOOL])["tools"] == [TOOL]


def test_few_words_say_what_a_schema_says():
    schema = {
        "$defs": {"Node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}, "title": {"type": "string"}}}},
        "type": "object",
        "properties": {
            "node": {"$ref": "#/$defs/Node", "description": "first"},
            "kind": {"oneOf": [{"const": "a"}, {"const": "b"}], "discriminator": {"propertyName": "k"}},
            "many": {"type": "array", "items": {"allOf": [{"type": "integer", "exclusiveMinimum": 0}]}},
        },
    }
    node = {"type": "object", "properties": {"next": {"anyOf": [{"type": "object"}, {"type": "null"}]}, "title": {"type": "string"}}, "description": "first"}
    kinds = {"anyOf": [{"enum": ["a"]}, {"enum": ["b"]}]}
    assert few_words(schema) == {"type": "object", "properties": {"node": node, "kind": kinds, "many": {"type": "array", "items": {"type": "integer"}}}}


def test_deepseek_is_told_the_schema_in_words():
    body = body_for("deepseek", Message("system", "Be brief."), Message("user", "hi"), response_format=SHAPE)
    assert body["response_format"] == {"type": "json_object"}
    assert body["messages"][0]["content"].startswith("Be brief.\n\nAnswer with one JSON object that fits this JSON Schema")
    assert '"required":["n"]' in body["messages"][0]["content"]
    assert [message["role"] for message in body_for("deepseek", response_format=SHAPE)["messages"]] == ["system", "user"]


CALL = {"id": "call_abc-123456789", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TURN = [Message("user", "go"), Message("assistant", None, [CALL]), Message("tool", "seen", tool_call_id=CALL["id"])]


def test_mistral_gets_the_same_nine_characters_on_both_sides():
    _, call, result = body_for("mistral", *TURN)["messages"]
    assert call["tool_calls"][0]["id"] == result["tool_call_id"] == body_for("mistral", *TURN)["messages"][2]["tool_call_id"]
    assert len(result["tool_call_id"]) == 9 and result["tool_call_id"].isalnum()
    fitting = [Message("user", "go"), Message("assistant", None, [{**CALL, "id": "Abc123XYZ"}]), Message("tool", "seen", tool_call_id="Abc123XYZ")]
    assert body_for("mistral", *fitting)["messages"][2]["tool_call_id"] == "Abc123XYZ"
    assert body_for("openai", *TURN)["messages"][2]["tool_call_id"] == CALL["id"]


REASONED = {"reasoning": "hm", "reasoning_content": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}


@pytest.mark.parametrize(
    ("kind", "echoed"),
    [("openai", set()), ("mistral", set()), ("groq", {"reasoning"}), ("deepseek", {"reasoning_content"}), ("openrouter", set(REASONED)), ("unknown", set(REASONED))],
)
def test_reasoning_goes_back_only_where_it_is_understood(kind, echoed):
    message = body_for(kind, Message("user", "go"), Message("assistant", "x", extra=REASONED), Message("user", "on"))["messages"][1]
    assert message.keys() - {"role", "content"} == echoed


def test_signatures_on_calls_go_to_gemini_and_not_to_openai():
    signed = {**CALL, "extra_content": {"google": {"thought_signature": "s"}}}
    turn = [TURN[0], Message("assistant", None, [signed]), TURN[2]]
    assert body_for("gemini", *turn)["messages"][1]["tool_calls"] == [signed]
    assert body_for("openai", *turn)["messages"][1]["tool_calls"] == [CALL]


def test_deepseek_gets_empty_reasoning_for_a_tool_turn_of_another_model():
    assert body_for("deepseek", *TURN)["messages"][1]["reasoning_content"] == ""
    assert "reasoning_content" not in body_for("unknown", *TURN)["messages"][1]


@pytest.mark.parametrize(
    ("model", "kept"),
    [("anthropic/claude-sonnet-4", True), ("~anthropic/claude-latest", True), ("openai/gpt-5", False), ("deepseek/deepseek-v4", False), ("openrouter/auto", True)],
)
def test_reasoning_signed_for_another_family_is_left_out(model, kept):
    details = [{"type": "reasoning.text", "text": "hm", "signature": "s", "format": "anthropic-claude-v1", "index": 0}]
    turn = [TURN[0], Message("assistant", "x", [CALL], extra={"reasoning_details": details}), TURN[2]]
    assert (body_for("openrouter", *turn, model=model)["messages"][1].get("reasoning_details") == details) is kept


def test_the_same_messages_go_to_two_endpoints_in_two_ways():
    first = [body_for(kind, *TURN)["messages"][2]["tool_call_id"] for kind in ("mistral", "openai", "mistral")]
    assert first[0] == first[2] != first[1]


def test_ollama_is_not_sent_the_address_of_a_picture():
    data = Message("user", [image(b"\x89PNG\r\n\x1a\n")])
    assert body_for("ollama", data)["messages"][0]["content"][0]["image_url"]["url"].startswith("data:")
    with pytest.raises(ErrorConfig, match="as data, not as addresses"):
        body_for("ollama", Message("user", [image("https://example.com/cat.png")]))


def test_a_picture_in_a_tool_result_follows_in_a_message_of_its_own():
    picture = image(b"\x89PNG\r\n\x1a\n")
    two = [{**CALL, "id": "a"}, {**CALL, "id": "b"}]
    results = [Message("tool", [{"type": "text", "text": "drawn"}, picture], tool_call_id="a"), Message("tool", "ok", tool_call_id="b")]
    sent = body_for("openai", Message("user", "go"), Message("assistant", None, two), *results)["messages"][2:]
    assert [(message["role"], message["content"]) for message in sent[:2]] == [("tool", "drawn"), ("tool", "ok")]
    assert (sent[2]["role"], sent[2]["content"][1]) == ("user", picture)
    kept = body_for("openrouter", Message("user", "go"), Message("assistant", None, two), *results)["messages"][2:]
    assert (len(kept), kept[0]["content"]) == (2, results[0].content)


# ---- what a refusal teaches ---------------------------------------------------------------------------------------

REFUSALS = {
    "cap": (2, {"max_tokens": 9}, lambda body: "max_tokens" in body,
            refusal("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", param="max_tokens", code="unsupported_parameter")),
    "cap, the other field": (2, {"max_tokens": 9}, lambda body: "max_tokens" in body, refusal("Invalid 'max_tokens': set `max_completion_tokens` instead")),
    "temperature": (2, {"temperature": 0.0}, lambda body: "temperature" in body,
                    refusal("Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.", param="temperature")),
    "temperature, deprecated": (2, {"temperature": 0.0}, lambda body: "temperature" in body, refusal("`temperature` is deprecated for this model.")),
    "temperature, only one": (2, {"temperature": 0.0}, lambda body: "temperature" in body, refusal("invalid temperature: only 1 is allowed for this model")),
    "temperature, as another provider said it": (2, {"temperature": 0.0}, lambda body: "temperature" in body,
                                                refusal("Provider error", metadata={"raw": json.dumps({"error": {"message": "'temperature' is not supported with this model."}})})),
    "temperature, with tools": (2, {"temperature": 0.0, "tools": [TOOL], "response_format": SHAPE}, lambda body: "temperature" in body,
                                refusal("Unsupported value: 'temperature' does not support 0. Only the default (1) is in the schema.", param="temperature")),
    "strict": (2, {"response_format": SHAPE}, lambda body: "strict" in str(body), refusal("json_schema.strict: unknown field `strict`")),
    "schema refused": (2, {"response_format": SHAPE}, lambda body: body["response_format"]["type"] == "json_schema", refusal("This response_format type is unavailable now")),
    "no format at all": (3, {"response_format": SHAPE}, lambda body: "response_format" in body, refusal("Unrecognized request argument supplied: response_format")),
    "schema words": (2, {"tools": [TOOL]}, lambda body: "additionalProperties" in str(body),
                     Raw(400, [json.dumps([{"error": {"code": 400, "message": 'Invalid JSON payload received. Unknown name "additionalProperties" at tools[0]', "status": "INVALID_ARGUMENT"}}]).encode()])),
    "forced choice": (2, {"tools": [TOOL], "tool_choice": "required"}, lambda body: body.get("tool_choice") == "required",
                      refusal("deepseek-reasoner does not support this tool_choice")),
    "any choice": (3, {"tools": [TOOL], "tool_choice": "required"}, lambda body: "tool_choice" in body,
                   Raw(422, [json.dumps({"detail": [{"type": "extra_forbidden", "loc": ["body", "tool_choice"], "msg": "Extra inputs are not permitted", "input": "required"}]}).encode()])),
    "tools nobody may call": (2, {"tools": [TOOL], "tool_choice": "none"}, lambda body: "tools" in body, refusal("this model does not support tools")),
    "two things": (3, {"max_tokens": 9, "temperature": 1.0}, lambda body: "max_tokens" in body or "temperature" in body,
                   refusal("unsupported: max_tokens, temperature")),
}  # fmt: skip


@both
@pytest.mark.filterwarnings("ignore:.*refuses:RuntimeWarning")
@pytest.mark.parametrize(("requests", "options", "refuses", "said"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_refused_is_asked_in_another_way_and_remembered(requests, options, refuses, said, stream):
    with ModelServer([picky(refuses, said)], repeat=True) as server:
        assert ask(server, stream=stream, **options).content == "hello"
        assert len(server.requests) == requests
        assert ask(server, stream=stream, **options).content == "hello"
        assert len(server.requests) == requests + 1
        assert all("messages" in body for body in server.requests)


def test_the_field_an_error_names_by_itself_goes_before_those_it_mentions():
    said = refusal("Unsupported value: this model takes no temperature, max_tokens neither", param="temperature")
    with ModelServer([picky(lambda body: "temperature" in body, said)], repeat=True) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ask(server, max_tokens=9, temperature=1.0)
        assert [sorted({"max_tokens", "temperature"} & body.keys()) for body in server.requests] == [["max_tokens", "temperature"], ["max_tokens"]]


@pytest.mark.parametrize(
    "said",
    [
        refusal("Your organization must be verified to stream this model.", param="stream", code="unsupported_value"),
        refusal("streaming is not supported", 501),
        Raw(500, [b'{"error":{"code":500,"message":"Cannot use tools with stream","type":"server_error"}}']),
        Raw(422, [json.dumps({"detail": [{"loc": ["body", "stream"], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}]}).encode()]),
        Raw(200, [b'{"error":{"code":400,"message":"stream is not supported for this model"}}']),
        refusal("This model does not support streaming.", 500),
        refusal("Unsupported parameter: 'stream'", 500),
        refusal("Streaming is not available for this model."),
    ],
    ids=["unverified", "501", "llama.cpp", "422", "under 200", "500", "500, a parameter", "not available"],
)
@pytest.mark.filterwarnings("ignore:.*refuses:RuntimeWarning")
def test_an_endpoint_that_does_not_stream_is_asked_for_the_whole(said):
    with ModelServer([picky(lambda body: body.get("stream"), said)], repeat=True) as server:
        agent = Agent("a", model=server.model, tools=[tool(name="f")(lambda: "r")])
        for _ in range(2):
            assert [event.delta for event in agent.stream("hi") if event.kind == "text_delta"] == ["hello"]
        assert [bool(body.get("stream")) for body in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    "said",
    [
        *(refusal(words, 500) for words in (
            "error reading stream: unexpected EOF", "Upstream closed the stream unexpectedly", "Streaming backend temporarily unavailable",
            "invalid state: stream closed", "Unexpected error while streaming response", "rpc error: stream terminated by RST_STREAM: server unavailable",
        )),
        refusal("The model 'live-stream-1' is not available, unknown"),
        refusal("The model 'live stream' is unknown"),
        refusal("Streaming backend temporarily unavailable"),
    ],
)  # fmt: skip
def test_a_failure_that_only_speaks_of_streams_does_not_end_streaming(said):
    with ModelServer([said, "hello"]) as server:
        with pytest.raises(errors.ErrorModel):
            ask(server, stream=True)
        assert ask(server, stream=True).content == "hello"
        assert [body.get("stream") for body in server.requests] == [True, True]


def test_answers_that_come_whole_are_told_once():
    with ModelServer([picky(lambda body: body.get("stream"), refusal("stream is not supported"))], repeat=True) as server:
        told = warned(lambda: [ask(server, stream=True) for _ in range(3)])
    assert [re.sub(r":\d+", "", one) for one in told] == ["m at 127.0.0.1: it is not asked to stream, which it refuses: its answers come whole"]


@pytest.mark.parametrize("kind", ["openai", "ollama", "lm_studio", "deepseek", "mistral"])
def test_a_cap_whose_field_is_known_stays_in_it(kind):
    with ModelServer([refusal("Unsupported parameter: max_tokens, max_completion_tokens")], repeat=True) as server:
        with pytest.raises(errors.ErrorModelRequest):
            ask(server, kind=kind, max_tokens=9)
        assert len(server.requests) == 1


@pytest.mark.parametrize("words", ["Unknown field: stream_options", "stream_options.include_usage is not supported", "The 'stream_options' parameter is not permitted"])
def test_stream_options_go_before_the_stream(words):
    with ModelServer([picky(lambda body: "stream_options" in body, refusal(words))], repeat=True) as server:
        assert ask(server, stream=True).content == "hello"
        assert [(body.get("stream"), "stream_options" in body) for body in server.requests] == [(True, True), (True, False)]


HISTORY = [Message("user", "go"), Message("assistant", None, [CALL], extra={"reasoning_details": [{"text": "hm"}]}), TURN[2], Message("system", "Now be brief.")]
TAUGHT = {
    "echo": (lambda body: "reasoning_details" in str(body), "messages.1: property 'reasoning_details' is unsupported", lambda m: "reasoning_details" not in m[1]),
    "ids": (lambda body: len(body["messages"][1]["tool_calls"][0]["id"]) != 9, "Tool call id was call_abc but must be a-z, A-Z, 0-9, with a length of 9.",
            lambda m: len(m[2]["tool_call_id"]) == 9),
    "blank reasoning": (lambda body: "reasoning_content" not in body["messages"][1], "The reasoning_content in the thinking mode must be passed back to the API",
                        lambda m: m[1]["reasoning_content"] == ""),
    "blank signature": (lambda body: "extra_content" not in str(body), "Function call is missing a thought_signature in functionCall parts.",
                        lambda m: m[1]["tool_calls"][0]["extra_content"]["google"]["thought_signature"] == "skip_thought_signature_validator"),
    "one system": (lambda body: body["messages"][-1]["role"] == "system", "System message must be at the beginning.", lambda m: [x["role"] for x in m] == ["system", "user", "assistant", "tool"]),
}  # fmt: skip


@both
@pytest.mark.parametrize(("refuses", "words", "right"), TAUGHT.values(), ids=TAUGHT)
def test_a_conversation_that_is_refused_is_put_in_another_way(refuses, words, right, stream):
    with ModelServer([picky(refuses, refusal(words))], repeat=True) as server:
        assert ask(server, *HISTORY, stream=stream).content == "hello"
        assert len(server.requests) == 2
        assert right(server.requests[1]["messages"])


def test_text_parts_are_joined_where_only_text_is_taken():
    parts = Message("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    said = Raw(422, [json.dumps({"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "Input should be a valid string", "type": "string_type"}]}).encode()])
    with ModelServer([picky(lambda body: isinstance(body["messages"][0]["content"], list), said)], repeat=True) as server:
        assert ask(server, parts).content == "hello"
        assert server.requests[1]["messages"][0]["content"] == "ab"


NO_TOOLS = [
    refusal("registry.ollama.ai/library/gemma:2b does not support tools"),
    refusal("No endpoints found that support tool use. To learn more about provider routing, visit …", 404),
    refusal('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    refusal("Unsupported parameter: 'tools'", param="tools"),
    refusal("tools is not supported in this model", 422),
    refusal("Function calling is not enabled for this model"),
]


@both
@pytest.mark.parametrize("said", NO_TOOLS)
def test_tools_are_never_left_out(said, stream):
    with ModelServer([said], repeat=True) as server:
        with pytest.raises(errors.ErrorModelRequest, match=r"'m' takes no tools there: .*ModelPromptedTools"):
            ask(server, tools=[TOOL], temperature=0.5, stream=stream)
        assert len(server.requests) == 1


LEFT_ALONE = {
    "a size": ({"max_tokens": 99999}, refusal("max_tokens is too large: 99999. This model supports at most 16384 completion tokens.", param="max_tokens")),
    "a size, said so": ({"max_tokens": 99999}, refusal("Invalid 'max_tokens': integer above maximum value. Expected a value <= 8192.", code="integer_above_max_value")),
    "a value, said so": ({"temperature": 3.0, "tools": [TOOL]}, refusal("Invalid 'temperature': decimal above maximum value. Expected a value <= 2.", param="temperature")),
    "a value": ({"temperature": 3.0}, refusal("temperature must be between 0 and 2", param="temperature")),
    "a range": ({"max_tokens": 14966}, refusal("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", code="invalid_request_error")),
    "a range, by its field": ({"max_tokens": 14966}, refusal("Unsupported: the valid range of max_tokens is [1, 8192]", param="max_tokens")),
    "a range in dots": ({"max_tokens": 14966}, refusal("Invalid 'max_tokens': integer must be in range 1..4096")),
    "a range, first word": ({"max_tokens": 14966}, refusal("<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]")),
    "what a model can": ({"max_tokens": 14966}, refusal("max_tokens (20000) is not valid for a model with 8192 output tokens")),
    "what a model can, unsupported": ({"max_tokens": 14966}, refusal("max_tokens=20000 is not supported by a model with 8192 output tokens")),
    "invalid only": ({"max_tokens": 9}, refusal("Invalid model configuration: max_tokens budget not available right now")),
    "a smaller one instead": ({"max_tokens": 9}, refusal("Invalid max_tokens: try a smaller value instead")),
    "a range of temperatures": ({"temperature": 1.5}, refusal("temperature must be in [0, 1], invalid value 1.5")),
    "an open range": ({"temperature": 5.0}, refusal("Unsupported: the valid range of temperature is (0, 2.0]")),
    "a temperature, invalid only": ({"temperature": 5.0}, refusal("Invalid temperature", param="temperature")),
    "a quoted prompt": ({"temperature": 0.3}, refusal("Your prompt was flagged as unsupported: 'what temperature is it outside'")),
    "another clause": ({"temperature": 0.3}, refusal("This content is not allowed. It speaks of the temperature.")),
    "too long": ({"max_tokens": 9}, refusal("'max_tokens' is not supported: this model's maximum context length is 4096 tokens")),
    "not sent": ({}, refusal("Unsupported parameter: 'temperature'")),
    "the caller's own": ({"extra": {"temperature": 1, "max_tokens": 5, "stream_options": {}}}, refusal("Unsupported parameters: temperature, max_tokens")),
    "something else": ({"temperature": 1.0}, refusal("the model `m` is unknown")),
    "another word": ({"max_tokens": 9}, refusal("max_tokens_to_sample: unknown field")),
    "nothing readable": ({"temperature": 1.0}, Raw(400, [b"<html>\x00no</html>"])),
}  # fmt: skip


@both
@pytest.mark.parametrize(("options", "said"), LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_another_request_would_not_mend_is_asked_once(options, said, stream):
    with ModelServer([said], repeat=True) as server:
        with pytest.raises(errors.ErrorModelRequest):
            ask(server, stream=stream, **options)
        assert len(server.requests) == 1


@both
@pytest.mark.filterwarnings("ignore:.*refuses:RuntimeWarning")
def test_an_endpoint_that_refuses_everything_is_not_asked_for_ever(stream):
    said = refusal("unsupported: max_tokens, max_completion_tokens, temperature, stream, stream_options, response_format, tool_choice, strict, schema")
    with ModelServer([said], repeat=True) as server:
        with pytest.raises(errors.ErrorModelRequest):
            ask(server, max_tokens=9, temperature=1.0, response_format=SHAPE, tools=[TOOL], tool_choice="required", stream=stream)
        assert len(server.requests) <= 7
        assert learned.get((server.base_url, "unknown", "m"), KINDS["unknown"]) == KINDS["unknown"]


def test_a_change_that_did_not_help_is_not_remembered():
    answers = [refusal("Unsupported parameter: 'max_tokens'"), refusal("no"), "hello"]
    with ModelServer(answers) as server:
        with pytest.raises(errors.ErrorModelRequest):
            ask(server, max_tokens=9)
        ask(server, max_tokens=9)
        assert [next(name for name in body if name.startswith("max_")) for body in server.requests] == ["max_tokens", "max_completion_tokens", "max_tokens"]


def test_what_is_learned_holds_for_one_model():
    with ModelServer([picky(lambda body: "max_tokens" in body, refusal("Unsupported parameter: 'max_tokens'"))], repeat=True) as server:
        model = ModelCloud(model_id="m", base_url=server.base_url)
        asyncio.run(model.complete(LLMRequest("m", [Message("user", "x")], max_tokens=9)))
        assert model.quirks.cap_field == "max_completion_tokens"
        assert ModelCloud(model_id="other", base_url=server.base_url).quirks.cap_field == "max_tokens"


def test_a_temperature_that_has_no_effect_is_told_once():
    with ModelServer([picky(lambda body: "temperature" in body, refusal("Unsupported parameter: 'temperature'"))], repeat=True) as server:
        told = warned(lambda: [ask(server, temperature=0.2) for _ in range(3)])
    assert len(told) == 1
    assert re.match(r"m at 127\.0\.0\.1:\d+: it is asked without the temperature", told[0])


def test_the_timeout_is_for_all_ways_of_asking():
    slow = refusal("Unsupported parameter: 'max_tokens'")
    slow.hold_s = 0.5
    with ModelServer([slow, Raw(200, [b" "], hold_s=10)]) as server, pytest.raises(errors.ErrorModelTimeout) as caught:
        ask(server, max_tokens=9, timeout=2.0)
    assert float(re.search(r"timeout=(\S+) s", str(caught.value))[1]) < 1.6


def test_memory_of_refusals_is_bounded_and_takes_threads():
    memory = Learned(limit=50)
    rows = [replace(KINDS["unknown"], least_cap=number) for number in range(400)]

    def work(part: int) -> None:
        for number in range(part, 400, 4):
            memory.put((str(number),), rows[number])
            memory.get((str(number // 2),), KINDS["unknown"])

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    kept = [number for number in range(400) if memory.get((str(number),), KINDS["unknown"]).least_cap != 1]
    assert len(kept) <= 50
    assert all(memory.get((str(number),), KINDS["unknown"]) is rows[number] for number in kept)


def test_no_row_of_the_refusals_is_without_a_field_of_the_quirks():
    rich = LLMRequest("m", HISTORY, tools=[TOOL], temperature=1.0, max_tokens=9, tool_choice="required", response_format=SHAPE)
    changed = [row.change(KINDS["unknown"], row.names) for row in refusals._ROWS]
    assert all(replace(KINDS["unknown"], **fields) != KINDS["unknown"] or "echo" in fields for fields in changed)
    assert all(row.sent(rich, KINDS["unknown"], True) in (True, False) for row in refusals._ROWS)


# ---- what it cost, said in other places ---------------------------------------------------------------------------


def priced(usage: dict, headers: dict[str, str] | None = None, kind: str | None = None, stream: bool = False) -> dict:
    body = completion("hello", usage)
    answer = Raw(body=[json.dumps(body).encode()], headers={"content-type": "application/json", **(headers or {})})
    if stream:
        answer = Raw.sse({"choices": [{"delta": {"content": "hello"}, "finish_reason": "stop"}], "usage": usage})
        answer.headers.update(headers or {})
    with ModelServer([answer]) as server:
        return ask(server, kind=kind, stream=stream).usage


COUNTS = {"prompt_tokens": 10, "completion_tokens": 5}


@pytest.mark.parametrize(("header", "cost"), [("0.0123", 0.0123), ("1.5e-06", 1.5e-06), ("0.0", 0.0), ("", None), ("None", None), ("nan", None), ("-1", None), ("inf", None)])
def test_litellm_tells_the_cost_in_a_header(header, cost):
    assert priced(COUNTS, {"x-litellm-response-cost": header}).get("cost") == cost


def test_the_cost_in_the_body_goes_before_the_header():
    assert priced({**COUNTS, "cost": 0.5}, {"x-litellm-response-cost": "0.25"})["cost"] == 0.5


def test_the_header_of_a_stream_came_before_its_cost():
    assert "cost" not in priced(COUNTS, {"x-litellm-response-cost": "0.0"}, stream=True)


@both
def test_openrouters_usage_is_left_as_it_is(stream):
    usage = {**COUNTS, "total_tokens": 99, "cost": 1.2e-05, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}}
    assert priced(usage, kind="openrouter", stream=stream) == usage


@both
@pytest.mark.parametrize("kind", ["xai", "gemini"])
def test_reasoning_that_is_not_in_the_completion_is_counted(kind, stream):
    assert priced({**COUNTS, "total_tokens": 115}, kind=kind, stream=stream)["completion_tokens"] == 105
    assert priced({**COUNTS, "total_tokens": 15}, kind=kind, stream=stream)["completion_tokens"] == 5
    assert priced({**COUNTS, "total_tokens": 115}, kind="openai", stream=stream)["completion_tokens"] == 5


@both
def test_xai_tells_the_cost_in_ticks(stream):
    assert priced({**COUNTS, "cost_in_usd_ticks": 37756000}, kind="xai", stream=stream)["cost"] == 0.0037756


@both
def test_openrouters_generation_id_is_the_responses_id(stream):
    answer = Raw(body=[json.dumps(completion("hello", {})).encode()], headers={"content-type": "application/json", "X-Generation-Id": "gen-77"})
    if stream:
        answer = Raw.sse({"choices": [{"delta": {"content": "hello"}, "finish_reason": "stop"}]})
        answer.headers["X-Generation-Id"] = "gen-77"
    with ModelServer([answer]) as server:
        assert ask(server, stream=stream).id == "gen-77"


@pytest.mark.parametrize(
    "events",
    [
        Raw.sse({"choices": [{"delta": {"content": "half"}}]}, done=False),
        Raw.sse({"error": {"code": 502, "message": "lost"}}),
        Raw(200, [b"<html>"]),
        Raw(502, [b"{}"]),
        Raw(200, Raw.sse({"choices": []}, done=False).body, hold_s=60),
    ],
    ids=["cut off", "error", "a page", "502", "timeout"],
)
def test_an_error_has_openrouters_generation_id(events):
    events.headers = {"content-type": "text/event-stream", "X-Generation-Id": "gen-77", "x-request-id": "other"}
    with ModelServer([events]) as server, pytest.raises(errors.ErrorModel, match="gen-77") as caught:
        ask(server, stream=True, timeout=2.0)
    assert caught.value.request_id == "gen-77"


def test_nothing_is_said_about_the_app_unless_the_user_says_it():
    with ModelServer(["hello"], repeat=True) as server:
        ask(server, kind="openrouter")
        model = ModelCloud(model_id="m", base_url=server.base_url, kind="openrouter", headers={"HTTP-Referer": "https://me.example", "X-OpenRouter-Title": "Me"})
        asyncio.run(model.complete(LLMRequest("m", [Message("user", "x")], extra={"provider": {"max_price": {"prompt": 1, "completion": 2}}})))
        assert not {"http-referer", "x-title", "x-openrouter-title", "referer"} & server.headers[0].keys()
        assert (server.headers[1]["http-referer"], server.headers[1]["x-openrouter-title"]) == ("https://me.example", "Me")
        assert server.requests[1]["provider"] == {"max_price": {"prompt": 1, "completion": 2}}


# ---- Ollama drops what does not fit -------------------------------------------------------------------------------


def counting(tokens):
    """Answers that count so many tokens of prompt, one after the other."""
    return [lambda body, n=n: Raw(body=[json.dumps(completion("hello", {"prompt_tokens": n, "completion_tokens": 1})).encode()]) for n in tokens]


def test_a_conversation_that_ollama_has_cut_is_told_once():
    with ModelServer(counting([4096, 4096])) as server:
        told = warned(lambda: [ask(server, Message("user", "word " * 20_000), kind="ollama") for _ in range(2)])
    assert len(told) == 1
    assert re.match(r"m seems to have been sent more than fits .* 4096 tokens .*OLLAMA_CONTEXT_LENGTH=32768.*HistoryTruncate", told[0])


def test_a_conversation_that_grows_while_its_tokens_do_not_is_told():
    messages = [Message("user", "word " * 2_000)]
    with ModelServer(counting([2500, 2490])) as server:
        ask(server, *messages, kind="ollama")
        with pytest.warns(RuntimeWarning, match="2490 tokens"):
            ask(server, *messages, Message("assistant", "ok"), Message("user", "word " * 1_000), kind="ollama")


@pytest.mark.parametrize(
    ("kind", "tokens", "words"),
    [("ollama", [25_000, 30_000], 20_000), ("ollama", [4, 9], 10), ("ollama", [None, "many"], 20_000), ("openai", [10, 10], 20_000)],
)
def test_a_conversation_that_is_counted_in_full_is_not_told(kind, tokens, words):
    first = Message("user", "word " * words)
    with ModelServer(counting(tokens)) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        ask(server, first, kind=kind)
        ask(server, first, Message("user", "word " * words), kind=kind)
    assert learned.get(("told",), KINDS["unknown"]) is KINDS["unknown"] and not learned._entries
