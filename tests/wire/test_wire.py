"""Conversions between our values and the protocol: every known way providers differ from its letter."""

import json
import time

import pytest

from agentroute import errors
from agentroute.message import LLMRequest, LLMResponse, Message
from agentroute.models import wire, wire_request
from agentroute.models.wire import StreamFold, response_of
from agentroute.models.wire_errors import error_of
from agentroute.models.wire_request import request_body


def body_of(**fields) -> dict:
    return json.loads(request_body(LLMRequest("m", [Message("user", "hi")], **fields), stream=False))


def answer(message: dict, **choice) -> dict:
    return {"choices": [{"message": message, "finish_reason": "stop", **choice}]}


def call(**fields) -> dict:
    return {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, **fields}


def folded(*deltas: dict, finish: str | None = "stop") -> LLMResponse:
    fold = StreamFold()
    for delta in deltas:
        fold.add({"choices": [{"index": 0, "delta": delta}]})
    fold.add({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return fold.finish()


def part(index=None, call_id=None, name=None, arguments=None) -> dict:
    function = {key: value for key, value in {"name": name, "arguments": arguments}.items() if value is not None}
    fragment = {key: value for key, value in {"index": index, "id": call_id, "function": function}.items() if value is not None}
    return {"tool_calls": [fragment]}


def calls_of(response: LLMResponse) -> list[tuple[str, str]]:
    return [(c["function"]["name"], c["function"]["arguments"]) for c in response.tool_calls]


# ---- requests


def test_empty_fields_are_not_sent():
    assert body_of(tools=[], extra={}) == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_tool_choice_is_sent_only_with_tools():
    assert "tool_choice" not in body_of(tool_choice="auto")
    assert body_of(tool_choice="auto", tools=[call()])["tool_choice"] == "auto"


def test_extra_is_merged_last():
    assert body_of(temperature=0.5, extra={"temperature": 0.7, "seed": 7}) | {} == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.7,
        "seed": 7,
    }


def test_a_half_character_is_sent_as_a_replacement():
    request = LLMRequest("m", [Message("user", "a\ud83db")])
    assert json.loads(request_body(request, stream=False))["messages"][0]["content"] == "a?b"


def test_an_empty_tool_result_is_never_sent_empty():
    request = LLMRequest("m", [Message("assistant", None, [call()]), Message("tool", "", tool_call_id="c1")])
    assert json.loads(request_body(request, stream=False))["messages"][1]["content"] == "(no output)"


def test_what_a_provider_wants_echoed_comes_back_unchanged():
    details = [{"type": "reasoning.text", "text": "hm", "signature": "abc", "index": 0}]
    message = {"content": None, "reasoning_details": details, "tool_calls": [call(extra_content={"google": {"thought_signature": "s"}})]}
    response = response_of(answer(message))
    sent = json.loads(request_body(LLMRequest("m", [response.to_message()]), stream=False))["messages"][0]
    assert sent["reasoning_details"] == details
    assert sent["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "s"}}


def test_a_message_changed_after_it_was_sent_is_sent_as_it_is_now():
    message = Message("assistant", "a", [call()], extra={"reasoning": "r"})

    def sent() -> dict:
        return json.loads(request_body(LLMRequest("m", [message]), stream=False))["messages"][0]

    assert sent() == sent() == message.to_dict()
    message.content = "b"
    assert sent()["content"] == "b"
    message.tool_calls[0]["function"]["arguments"] = '{"x": 1}'
    assert sent()["tool_calls"][0]["function"]["arguments"] == '{"x": 1}'
    message.extra["reasoning"] = "other"
    assert sent()["reasoning"] == "other"
    message.tool_calls = None
    assert sent() == message.to_dict()


def test_a_change_deep_inside_a_message_is_sent():
    message = Message("user", "a", extra={"details": [{"text": "b"}], "note": "c"})

    def sent() -> dict:
        return json.loads(request_body(LLMRequest("m", [message]), stream=False))["messages"][0]

    assert sent() == sent() == message.to_dict()
    message.extra["details"][0]["text"] = "changed"
    assert sent()["details"] == [{"text": "changed"}]
    message.extra["other"] = message.extra.pop("note")
    assert (sent().get("note"), sent()["other"]) == (None, "c")
    message.content = [{"type": "text", "text": "a"}]
    assert sent() == sent()
    message.content[0]["text"] = "changed"
    assert sent()["content"] == [{"type": "text", "text": "changed"}]
    message.content.append({"type": "text", "text": "more"})
    assert len(sent()["content"]) == 2
    message.tool_calls = [call()]
    assert sent() == sent()
    message.tool_calls[0]["function"]["name"] = "g"
    assert sent()["tool_calls"][0]["function"]["name"] == "g"
    message.tool_calls[0]["extra_content"] = {"signature": "s"}
    assert sent()["tool_calls"][0]["extra_content"] == {"signature": "s"}


@pytest.mark.parametrize(("before", "after"), [(1, True), (1, 1.0), (0, False), (-0.0, 0.0)])
def test_equal_values_that_differ_in_json_are_told_apart(before, after):
    message = Message("user", "hi", extra={"x": [before]})
    request_body(LLMRequest("m", [message]), stream=False)
    message.extra["x"][0] = after
    assert b'"x":[' + json.dumps(after).encode() + b"]" in request_body(LLMRequest("m", [message]), stream=False)


def test_an_unchanged_message_is_put_into_json_once(monkeypatch):
    messages = [Message("assistant", None, [call()]), Message("tool", "x", tool_call_id="c1"), Message("user", [{"type": "text", "text": "a"}])]
    request_body(LLMRequest("m", messages), stream=False)
    encoded = []
    monkeypatch.setattr(wire_request, "_encode_message", lambda message, form: encoded.append(message))
    request_body(LLMRequest("m", messages), stream=False)
    assert encoded == []


# ---- whole answers


@pytest.mark.parametrize(
    "payload",
    [{}, None, [], "x", 42, True, {"choices": None}, {"choices": []}, {"choices": "x"}, {"choices": [None]}, {"choices": [{}]},
     answer(None), answer("text")],
)  # fmt: skip
def test_a_body_without_an_answer_is_an_error(payload):
    with pytest.raises(errors.ErrorModel):
        response_of(payload)


def test_an_answer_in_the_wrong_place_is_found():
    assert response_of({"id": None, "choices": None, "provider": answer({"content": "hi"})}).content == "hi"


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, None), ("", None), ("hi", "hi"), ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"), (5, "5")],
)
def test_content_is_text_whatever_came(content, text):
    assert response_of(answer({"content": content})).content == text


def test_an_error_inside_a_success_is_an_error():
    with pytest.raises(errors.ErrorModelRateLimit, match="slow down"):
        response_of({"error": {"code": 429, "message": "slow down"}, "choices": None})
    with pytest.raises(errors.ErrorModelServer, match="boom"):
        response_of({"choices": [{"error": {"code": 502, "message": "boom"}, "message": {"content": "par"}}]})


@pytest.mark.parametrize("calls", [None, [], "x", [None], ["x"], [{}], [{"function": None}], [{"function": {"name": ""}}]])
def test_what_is_no_tool_call_is_left_out(calls):
    assert response_of(answer({"content": "hi", "tool_calls": calls})).tool_calls == []


def test_missing_and_repeated_ids_are_mended():
    response = response_of(answer({"tool_calls": [call(id=None), call(id="a"), call(id="a"), call(id="")]}))
    ids = [made["id"] for made in response.tool_calls]
    assert len(set(ids)) == 4
    assert ids[1] == "a"


def test_stop_with_tool_calls_means_tool_calls():
    assert response_of(answer({"tool_calls": [call()]})).finish_reason == "tool_calls"


@pytest.mark.parametrize("calls", [None, [{"id": "a", "function": {"name": "", "arguments": "{}"}}]])
def test_an_announced_tool_call_that_does_not_come_is_an_error(calls):
    with pytest.raises(errors.ErrorModelResponse, match="announced a tool call"):
        response_of(answer({"content": None, "tool_calls": calls}, finish_reason="tool_calls"))
    with pytest.raises(errors.ErrorModelResponse, match="announced a tool call"):
        folded({"tool_calls": calls}, finish="tool_calls")
    assert response_of(answer({"content": "hi", "tool_calls": calls}, finish_reason="tool_calls")).content == "hi"


# ---- streams


def test_parallel_calls_that_all_claim_index_0_are_kept_apart():
    response = folded(part(0, "a", "f", '{"x":1}'), part(0, "b", "g", '{"y":2}'), part(0, None, None, ""))
    assert calls_of(response) == [("f", '{"x":1}'), ("g", '{"y":2}')]


def test_calls_without_an_index_are_kept_apart():
    assert calls_of(folded(part(None, "", "f", "{}"), part(None, "", "g", '{"a":'), part(None, "", None, "1}"))) == [
        ("f", "{}"),
        ("g", '{"a":1}'),
    ]


def test_a_name_repeated_on_every_fragment_is_not_doubled():
    assert calls_of(folded(part(0, "a", "term", '{"x"'), part(0, "a", "term", ":1}"))) == [("term", '{"x":1}')]


@pytest.mark.parametrize(("arguments", "text"), [({"a": 1}, '{"a": 1}'), (None, "{}"), ("", "{}"), ("null", "{}"), ("{bad", "{bad")])
def test_arguments_of_any_kind_become_text(arguments, text):
    fragment = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": arguments}}]}
    assert calls_of(folded(fragment)) == [("f", text)]


def test_a_huge_index_makes_no_huge_list():
    assert calls_of(folded(part(10**9, "a", "f", "{}"), part(-1, "b", "g", "{}"))) == [("f", "{}"), ("g", "{}")]


def test_a_stream_cut_off_is_an_error_with_the_text_so_far():
    fold = StreamFold()
    fold.add({"choices": [{"delta": {"content": "half an ans"}}]})
    with pytest.raises(errors.ErrorModelResponse) as caught:
        fold.finish()
    assert caught.value.partial == "half an ans"


def test_done_alone_is_an_empty_stream():
    fold = StreamFold()
    fold.add_data("[DONE]")
    with pytest.raises(errors.ErrorModelResponse, match="empty"):
        fold.finish()


def test_done_without_a_finish_reason_is_accepted_when_text_came():
    fold = StreamFold()
    fold.add({"choices": [{"delta": {"content": "hi"}}]})
    fold.add_data(" [DONE] ")
    assert fold.finish().content == "hi"


def test_nothing_after_done_counts():
    fold = StreamFold()
    fold.add({"choices": [{"delta": {"content": "hi"}}]})
    fold.add_data("[DONE]")
    fold.add_data('{"choices":[{"delta":{"content":"more"}}]}')
    assert fold.finish().content == "hi"


def test_usage_on_every_chunk_is_not_summed():
    fold = StreamFold()
    for count in (1, 2, 3):
        fold.add({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}], "usage": {"completion_tokens": count}})
    assert fold.finish().usage == {"completion_tokens": 3}


@pytest.mark.parametrize("code", [502, "502", "server_error"])
def test_an_error_in_mid_stream_is_an_error(code):
    fold = StreamFold()
    with pytest.raises(errors.ErrorModelServer, match="lost it"):
        fold.add({"error": {"code": code, "message": "lost it"}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]})


@pytest.mark.parametrize(
    "chunk",
    [{}, {"choices": []}, {"choices": None}, {"choices": [{"delta": None}]}, {"choices": [{"content_filter_results": {}}]},
     {"choices": [{"delta": {"tool_calls": [None]}}]}, {"usage": "x", "choices": []}],
)  # fmt: skip
def test_chunks_without_anything_are_skipped(chunk):
    fold = StreamFold()
    assert fold.add(chunk) == []


@pytest.mark.parametrize("data", ["{broken", "7", "null", '"text"'])
def test_what_is_no_chunk_is_an_error(data):
    with pytest.raises(errors.ErrorModelResponse):
        StreamFold().add_data(data)


def test_one_object_a_line_without_blank_lines_is_read():
    lines = '{"choices":[{"delta":{"content":"a"}}]}\n{"choices":[{"delta":{"content":"b"}}]}'
    assert [chunk.delta for chunk in StreamFold().add_data(lines)] == ["a", "b"]


def test_reasoning_details_are_merged_and_kept():
    response = folded(
        {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "a"}]},
        {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "b", "signature": "s"}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "index": 1, "data": "z"}]},
        {"content": "x"},
    )
    assert response.extra["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "ab", "signature": "s"},
        {"type": "reasoning.encrypted", "index": 1, "data": "z"},
    ]


def seconds(deltas: list[dict]) -> float:
    def once() -> float:
        began = time.process_time()
        folded(*deltas)
        return time.process_time() - began

    return min(once() for _ in range(3))


@pytest.mark.parametrize(
    "delta",
    [
        part(0, None, None, "abcd" * 8),
        part(None, None, None, "abcd" * 8),
        {"reasoning": "abcd" * 8},
        {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "abcd" * 8}]},
        {"content": "abcd" * 8},
    ],
    ids=["arguments", "arguments without index", "reasoning", "reasoning details", "content"],
)
def test_ten_times_the_fragments_take_ten_times_the_time(delta):
    first = part(0, "a", "f", "{")
    assert seconds([first, *[delta] * 50_000]) < 25 * seconds([first, *[delta] * 5_000])


def test_arguments_are_read_only_where_a_new_call_may_begin(monkeypatch):
    read = []
    loads = json.loads
    monkeypatch.setattr(wire.json, "loads", lambda text: read.append(text) or loads(text))
    response = folded(
        part(0, None, "f", '{"a":'), *[part(0, None, None, "1")] * 100, *[part(0, None, "f", "2")] * 100, part(0, None, None, "}"), part(0, None, "f", '{"b":1}')
    )
    assert calls_of(response) == [("f", '{"a":' + "1" * 100 + "2" * 100 + "}"), ("f", '{"b":1}')]
    assert len(read) == 1


# ---- errors

SHAPES = [
    ({"error": {"message": "why", "type": "t", "code": "c"}}, "why"),
    ({"error": {"code": 400, "message": "why", "metadata": {"raw": "upstream said no"}}}, "upstream said no"),
    ([{"error": {"code": 400, "message": "why", "status": "INVALID_ARGUMENT"}}], "why"),
    ({"error": "why"}, "why"),
    ({"object": "error", "message": "why", "type": "invalid", "code": "3280"}, "why"),
    ({"detail": [{"loc": ["body"], "msg": "why"}]}, "why"),
    ({"success": False, "error": {"message": "why"}}, "why"),
]


@pytest.mark.parametrize(("body", "words"), SHAPES)
def test_every_shape_of_error_body_is_read(body, words):
    error = error_of(400, {}, json.dumps(body).encode(), model="m", place="host:1")
    assert type(error) is errors.ErrorModelRequest
    assert words in str(error)


@pytest.mark.parametrize("body", [b"<html><h1>502 Bad Gateway</h1></html>", b"", b"\xff\xfe\x00", b"{half"])
def test_an_unreadable_error_body_is_still_an_error(body):
    error = error_of(502, {}, body, model="m", place="host:1")
    assert type(error) is errors.ErrorModelServer
    assert "502" in str(error)
    assert "<" not in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, errors.ErrorModelKey, "check the API key"),
        (402, errors.ErrorModelCredit, "credit"),
        (403, errors.ErrorModelKey, "key"),
        (404, errors.ErrorModelRequest, "model id 'm'"),
        (408, errors.ErrorModelTimeout, "408"),
        (429, errors.ErrorModelRateLimit, "wait"),
        (422, errors.ErrorModelRequest, "422"),
        (500, errors.ErrorModelServer, "500"),
        (529, errors.ErrorModelServer, "529"),
        (307, errors.ErrorModelRequest, "redirects are not followed"),
    ],
)
def test_the_status_decides_the_kind_of_error(status, kind, words):
    error = error_of(status, {"x-request-id": "req-9"}, b'{"error":{"message":"m"}}', model="m", place="host:1")
    assert type(error) is kind
    assert words in str(error)
    assert "req-9" in str(error)
    assert error.status == status


def test_a_used_up_quota_is_not_a_rate_limit():
    body = b'{"error":{"message":"You exceeded your quota","code":"insufficient_quota"}}'
    assert type(error_of(429, {}, body, model="m", place="h")) is errors.ErrorModelCredit
