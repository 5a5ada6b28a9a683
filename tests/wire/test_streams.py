"""Streams of every known provider, good and bad, through ModelCloud and a server on loopback."""

import asyncio
import json
import time

import pytest

from agentroute import Agent, LLMRequest, LLMResponse, Message, ModelCloud, ToolCall, errors, tool
from agentroute.models import cloud
from tests.server import ModelServer, Raw

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "cost": 0.5}


def chunk(delta: object = None, finish: str | None = None, **fields) -> dict:
    return {"choices": [{"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}], **fields}


def said(text: str) -> dict:
    return chunk({"content": text})


def calls(*fragments: dict) -> dict:
    return chunk({"tool_calls": list(fragments)})


def fragment(index=None, call_id=None, name=None, arguments=None) -> dict:
    function = {key: value for key, value in {"name": name, "arguments": arguments}.items() if value is not None}
    return {key: value for key, value in {"index": index, "id": call_id, "function": function}.items() if value is not None}


async def streamed(model: ModelCloud) -> LLMResponse:
    chunks = [one async for one in model.complete_stream(LLMRequest("m", [Message("user", "x")]))]
    assert [one.done for one in chunks] == [False] * (len(chunks) - 1) + [True]
    response = chunks[-1].response
    assert "".join(one.delta or "" for one in chunks) == (response.content or "")
    assert "".join(one.reasoning_delta or "" for one in chunks) == (response.reasoning or "")
    return response


def ask(answer: Raw, **options) -> LLMResponse:
    with ModelServer([answer]) as server:
        return asyncio.run(streamed(ModelCloud(model_id="m", base_url=server.base_url, **options)))


def failing(answer: Raw, **options) -> errors.ErrorModel:
    with pytest.raises(errors.ErrorModel) as caught:
        ask(answer, timeout=60.0, **options)
    return caught.value


def named(response: LLMResponse) -> list[tuple[str, str]]:
    return [(call["function"]["name"], call["function"]["arguments"]) for call in response.tool_calls]


def raw(*pieces: bytes, kind: str = "text/event-stream", **options) -> Raw:
    return Raw(200, list(pieces), {"content-type": kind}, **options)


def cut(*pieces: bytes) -> Raw:
    """The connection breaks in the middle of a chunk."""

    def body():
        yield from pieces
        raise ConnectionResetError

    answer = raw()
    answer.body = body()
    return answer


def slow(*pieces: bytes) -> Raw:
    """A tenth of a second goes by before each piece but the first."""

    def body():
        for number, piece in enumerate(pieces):
            time.sleep(0.1 if number else 0)
            yield piece

    answer = raw()
    answer.body = body()
    return answer


def sse(*events: dict) -> list[bytes]:
    return Raw.sse(*events, done=False).body


# ---- bytes --------------------------------------------------------------------------------------------------------

WHOLE = (
    b"\xef\xbb\xbf: OPENROUTER PROCESSING\r\n\r\n"
    + b"data: " + json.dumps(said("caf\u00e9 \U0001f98a "), ensure_ascii=False).encode() + b"\r\n\r\n: keep-alive\r\n\r\n"
    + b"data:" + json.dumps(said("a\u2028b\u0085c\u2029d"), ensure_ascii=False).encode() + b"\r\rid: 7\nretry: 5\nevent: ping\ndata: 3\n\n"
    + b"data: " + json.dumps(chunk(finish="stop", usage=USAGE)).encode() + b"\n\ndata: [DONE]"
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_bytes_may_be_cut_anywhere(size):
    response = ask(raw(*(WHOLE[start : start + size] for start in range(0, len(WHOLE), size))))
    assert (response.content, response.usage) == ("café 🦊 a\u2028b\u0085c\u2029d", USAGE)


def test_objects_without_blank_lines_between_them_are_read():
    lines = b"".join(b"data: " + json.dumps(event).encode() + b"\n" for event in (said("a"), said("b"), chunk(finish="stop")))
    assert ask(raw(lines + b"data: [DONE]\n")).content == "ab"


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/json"])
def test_what_is_no_event_stream_is_read_for_what_it_is(kind):
    bodies = {
        "application/x-ndjson": b"".join(json.dumps(event).encode() + b"\n" for event in (said("whole"), chunk(finish="stop"))),
        "application/json": b'\n\n{"choices":[{"message":{"content":"whole"},"finish_reason":"stop"}]}',
    }
    assert ask(raw(bodies[kind], kind=kind)).content == "whole"


# ---- how a stream ends --------------------------------------------------------------------------------------------

CUT = {
    "after text": sse(said("half "), said("an")),
    "after nothing but a role": sse(chunk({"role": "assistant", "content": ""})),
    "inside arguments": sse(calls(fragment(0, "a", "act", '{"n": 1'))),
    "after whole arguments": sse(calls(fragment(0, "a", "act", '{"n": 1}'))),
    "Ollama's runner died": sse(said("half "), {"model": "m", "choices": [chunk({"role": "assistant", "content": ""})["choices"][0]]}),
}


@pytest.mark.parametrize("pieces", CUT.values(), ids=CUT)
def test_a_stream_that_ends_without_a_word_is_cut_off_and_runs_nothing(pieces, monkeypatch):
    monkeypatch.setattr("agentroute.models.retry.BASE_S", 0.0)
    ran = []

    def act(n: int) -> None:
        """Acts."""
        ran.append(n)

    with ModelServer([raw(*pieces)], repeat=True) as server, pytest.raises(errors.ErrorModelResponse, match="cut off") as caught:
        list(Agent("a", model=server.model, tools=[act]).stream("go"))
    assert (caught.value.reason, ran) == ("cut_off", [])


@pytest.mark.parametrize("pieces", CUT.values(), ids=CUT)
def test_a_connection_that_breaks_in_a_stream_is_an_error(pieces):
    assert isinstance(failing(cut(*pieces)), errors.ErrorModelConnection)


def test_a_connection_that_breaks_after_the_end_has_lost_nothing():
    response = ask(cut(*sse(said("all"), chunk(finish="stop"), {"choices": [], "usage": USAGE})))
    assert (response.content, response.usage) == ("all", USAGE)


@pytest.mark.parametrize(
    ("events", "finish"),
    [
        ([said("all"), chunk(finish="length")], "length"),
        ([said("all"), chunk(finish="model_length")], "length"),
        ([said("all"), chunk(finish="eos")], "eos"),
        ([chunk({"content": "all"}, "stop")], "stop"),
        ([chunk({"content": "a"}, "stop"), chunk({"content": "ll"}, "stop")], "stop"),
    ],
)
def test_a_finish_reason_is_enough(events, finish):
    response = ask(raw(*sse(*events)))
    assert (response.content, response.finish_reason) == ("all", finish)


def test_done_is_enough_where_text_came():
    assert ask(Raw.sse(said("all"))).content == "all"


@pytest.mark.parametrize("events", [Raw.sse(), Raw.sse({"choices": []}, chunk({"role": "assistant"})), raw(b": nothing\n\ndata: [DONE]\n\n")])
def test_done_alone_is_empty(events):
    assert failing(events).reason == "empty"


def test_usage_that_comes_late_is_waited_for():
    response = ask(slow(*sse(said("all"), chunk(finish="stop")), *sse({"choices": [], "usage": USAGE})))
    assert response.usage == USAGE


def test_usage_that_never_comes_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(cloud, "ENDED_S", 0.1)
    began = time.monotonic()
    assert ask(raw(*sse(said("all"), chunk(finish="stop")), hold_s=60)).content == "all"
    assert time.monotonic() - began < 20


def test_a_finish_reason_on_every_chunk_does_not_hurry_the_stream(monkeypatch):
    monkeypatch.setattr(cloud, "ENDED_S", 0.02)
    events = [chunk({"content": text}, "stop") for text in ("a", "b", "c")]
    assert ask(slow(*sse(*events))).content == "abc"


def test_text_after_a_finish_reason_is_kept(monkeypatch):
    monkeypatch.setattr(cloud, "ENDED_S", 0.02)
    assert ask(slow(*sse(said("a")), sse(chunk(finish="stop"))[0] + sse(said("b"))[0], *sse(said("c"), chunk(finish="stop")))).content == "abc"


CALLED = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "act", "arguments": '{"n": 1}'}}]}
CALLING = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "act", "arguments": '{"n": 1'}}]}
TAILS = {
    "text": ([chunk({"content": "all"}, "stop")], "all", []),
    "text in two": ([said("a"), chunk({"content": "ll"}, "stop")], "all", []),
    "a call": ([chunk(CALLED, "tool_calls")], None, [("act", '{"n": 1}')]),
    "a call in two": ([calls(fragment(0, "a", "act", '{"n"')), chunk({"tool_calls": [fragment(0, None, None, ": 1}")]}, "stop")], None, [("act", '{"n": 1}')]),
}  # fmt: skip
broken_or_silent = pytest.mark.parametrize("end", [cut, lambda *pieces: raw(*pieces, hold_s=60)], ids=["broken", "silent"])


@broken_or_silent
@pytest.mark.parametrize(("events", "text", "called"), TAILS.values(), ids=TAILS)
def test_a_finish_reason_beside_the_last_piece_is_enough(events, text, called, end):
    response = ask(end(*sse(*events)), idle_timeout=1.0)
    assert (response.content, [(call["function"]["name"], call["function"]["arguments"]) for call in response.tool_calls or []]) == (text, called)


@broken_or_silent
def test_the_usage_that_breaks_off_after_the_answer_takes_nothing_from_it(end, monkeypatch):
    monkeypatch.setattr(cloud, "ENDED_S", 0.5)
    assert ask(end(*sse(said("all"), chunk(finish="stop")), b'data: {"usage": {"pro'), idle_timeout=60).content == "all"


@broken_or_silent
@pytest.mark.parametrize(
    "events", [[chunk(CALLING, "tool_calls")], [chunk({"content": "a"}, "stop"), chunk({"content": "b"}, "stop")], [said("a"), chunk(finish="stop"), said("b")]],
    ids=["half a call", "a finish reason on every chunk", "text after a finish reason"],
)  # fmt: skip
def test_a_finish_reason_that_says_nothing_is_not_enough(events, end):
    assert isinstance(failing(end(*sse(*events)), idle_timeout=0.2), errors.ErrorModelConnection | errors.ErrorModelTimeout)


def test_done_without_a_blank_line_ends_the_answer(monkeypatch):
    monkeypatch.setattr(cloud, "DONE_S", 0.1)
    began = time.monotonic()
    assert ask(raw(*sse(said("all")), b"data: [DONE]\n", hold_s=60)).content == "all"
    assert time.monotonic() - began < 20


def test_a_tail_that_never_ends_is_left_all_the_same(monkeypatch):
    monkeypatch.setattr(cloud, "ENDED_S", 1.0)
    began = time.monotonic()
    assert ask(slow(*sse(said("all"), chunk(finish="stop"), *[{"choices": [], "usage": USAGE}] * 600))).usage == USAGE
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("comment", [b": keep-alive\n\n", b"\n"])
def test_comments_do_not_keep_a_silent_stream_alive(comment):
    answer = raw()

    def body():
        yield sse(said("a"))[0]
        for _ in range(1000):
            time.sleep(0.05)
            yield comment

    answer.body = body()
    began = time.monotonic()
    error = failing(answer, idle_timeout=0.2)
    assert isinstance(error, errors.ErrorModelTimeout) and "idle_timeout=0.2" in str(error)
    assert time.monotonic() - began < 20


# ---- errors in mid-stream -----------------------------------------------------------------------------------------

LOST = {
    "number": (Raw.sse(said("half"), {"error": {"code": 502, "message": "lost it"}, **chunk({"content": ""}, "error")}), errors.ErrorModelServer, 502),
    "word": (Raw.sse(said("half"), {"error": {"code": "server_error", "message": "lost it"}}), errors.ErrorModelServer, 500),
    "text": (Raw.sse(said("half"), {"error": "lost it"}), errors.ErrorModelServer, None),
    "choice": (Raw.sse(said("half"), {"choices": [{"error": {"code": 429, "message": "lost it"}}]}), errors.ErrorModelRateLimit, 429),
    "vLLM": (Raw.sse({"error": {"object": "error", "message": "lost it", "type": "BadRequestError", "code": 400}}), errors.ErrorModelRequest, 400),
    "named": (raw(b'event: error\ndata: {"message": "lost it", "code": 503}\n\n'), errors.ErrorModelServer, 503),
    "named, wrapped": (raw(b'event: error\ndata: {"error": {"message": "lost it", "type": "overloaded_error"}}\n\n'), errors.ErrorModelServer, 529),
    "named, bare": (raw(b'event: error\ndata: "lost it"\n\n'), errors.ErrorModelServer, None),
    "old llama.cpp": (raw(b'error: {"code":500,"message":"lost it","type":"server_error"}\n\n'), errors.ErrorModelServer, 500),
    "DeepSeek has no room": (Raw.sse(said("half"), chunk(finish="insufficient_system_resource")), errors.ErrorModelServer, 503),
}


@pytest.mark.parametrize(("events", "kind", "status"), LOST.values(), ids=LOST)
def test_an_error_in_a_stream_is_an_error(events, kind, status):
    error = failing(events)
    assert (type(error), error.status) == (kind, status)
    assert "lost it" in str(error) or "insufficient_system_resource" in str(error)


@pytest.mark.parametrize("data", [b"data: {broken\n\n", b"data: 7\n\n", b"data: null\n\n", b"data: \xff\xfe\n\n", b"event: error\ndata: not json\n\n", b"data: [1]\n\n"])
def test_what_is_no_chunk_is_an_error_of_ours(data):
    assert isinstance(failing(raw(*sse(said("half")), data)), errors.ErrorModelResponse)


# ---- odd chunks ---------------------------------------------------------------------------------------------------


def test_azures_first_and_last_chunks_say_nothing():
    first = {"id": "", "model": "", "object": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    filtered = {"id": "", "model": "", "choices": [{"index": 0, "finish_reason": None, "content_filter_results": {}, "content_filter_offsets": {}}]}
    response = ask(Raw.sse(first, chunk({"role": "assistant", "content": "", "refusal": None}), said("hi"), filtered, chunk(finish="stop"), {"choices": [], "usage": USAGE}))
    assert (response.content, response.finish_reason, response.usage) == ("hi", "stop", USAGE)


@pytest.mark.parametrize("odd", [{}, {"choices": None}, {"choices": [None]}, {"choices": ["x"]}, {"choices": [{"delta": None}]}, {"obfuscation": "xx", "choices": []}, chunk({"tool_calls": [None, 7]}), chunk({"tool_calls": {}}), chunk({"content": None, "tool_calls": None}), chunk({"audio": {}})])  # fmt: skip
def test_chunks_that_say_nothing_change_nothing(odd):
    assert ask(Raw.sse(odd, said("h"), odd, said("i"), odd, chunk(finish="stop"), odd)).content == "hi"


def test_of_several_answers_the_first_is_read():
    def choice(index: int, text: str) -> dict:
        return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]}

    events = [choice(0, "a"), choice(1, "x"), choice(0, "b"), choice(1, "y")]
    assert ask(Raw.sse(*events, chunk(finish="stop"))).content == "ab"
    assert ask(Raw.sse(choice(1, "b"), {"choices": [{"delta": {}, "finish_reason": "stop"}]})).content == "b"


def test_a_refusal_is_told_as_one():
    response = ask(Raw.sse(chunk({"refusal": "I will "}), chunk({"refusal": "not."}), chunk(finish="stop")))
    assert (response.refusal, response.content) == ("I will not.", None)


def test_content_may_come_in_parts_and_hold_thoughts():
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    events = [chunk({"content": [thought]}), chunk({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), chunk(finish="stop")]
    response = ask(Raw.sse(*events))
    assert (response.content, response.reasoning) == ("ab", "hm")


@pytest.mark.parametrize(
    "usages",
    [
        [{"usage": {"completion_tokens": 1}}, {"usage": {"completion_tokens": 2}}, {"usage": USAGE}],
        [{"usage": None}, {"usage": None}, {"usage": USAGE}],
        [{}, {}, {"x_groq": {"usage": USAGE}}],
    ],
    ids=["running totals", "once", "Groq"],
)
def test_usage_replaces_what_came_before(usages):
    assert ask(Raw.sse({**said("a"), **usages[0]}, {**said("b"), **usages[1]}, {**chunk(finish="stop"), **usages[2]})).usage == USAGE


def test_usage_may_stand_in_the_choice():
    assert ask(Raw.sse(said("a"), {"choices": [{"delta": {}, "finish_reason": "stop", "usage": USAGE}]})).usage == USAGE


# ---- tool calls ---------------------------------------------------------------------------------------------------

ODD_CALLS = {
    "all index 0": ([calls(fragment(0, "a", "f", '{"x":1}')), calls(fragment(0, "b", "f", '{"x":2}')), calls(fragment(0, "c", "g", "{}"))], [("f", '{"x":1}'), ("f", '{"x":2}'), ("g", "{}")]),
    "no index, empty id": ([calls(fragment(None, "", "f", '{"x":1}')), calls(fragment(None, "", "g", '{"y"')), calls(fragment(None, "", None, ":2}"))], [("f", '{"x":1}'), ("g", '{"y":2}')]),
    "name and id repeated": ([calls(fragment(0, "a", "term", '{"x"')), calls(fragment(0, "a", "term", ":1}"))], [("term", '{"x":1}')]),
    "interleaved": ([calls(fragment(0, "a", "f", '{"x"')), calls(fragment(1, "b", "g", "{")), calls(fragment(0, None, None, ":1}")), calls(fragment(1, None, None, "}"))], [("f", '{"x":1}'), ("g", "{}")]),
    "arguments as an object": ([calls(fragment(0, "a", "f", {"x": 1}))], [("f", '{"x": 1}')]),
    "arguments null": ([calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": None}})], [("f", "{}")]),
    "arguments empty": ([calls(fragment(0, "a", "f", ""))], [("f", "{}")]),
    "arguments invalid": ([calls(fragment(0, "a", "f", '{"x": '))], [("f", '{"x": ')]),
    "two objects in one": ([calls(fragment(0, "a", "f", '{"x":1}{"x":2}'))], [("f", '{"x":1}{"x":2}')]),
    "name repeated without an id": ([calls(fragment(0, "a", "f", '{"x"')), calls(fragment(0, None, "f", ":7}")), calls(fragment(0, None, "f", ""))], [("f", '{"x":7}')]),
    "name repeated without arguments": ([calls(fragment(0, "a", "f", '{"x":7}')), calls(fragment(0, "", "f", None)), calls(fragment(0, "", "f", " \n"))], [("f", '{"x":7} \n')]),
    "name repeated without an index": ([calls(fragment(None, "a", "f", '{"x":7}')), calls(fragment(None, "", "f", ""))], [("f", '{"x":7}')]),
    "another name without arguments": ([calls(fragment(0, "a", "f", '{"x":7}')), calls(fragment(0, None, "g", ""))], [("f", '{"x":7}'), ("g", "{}")]),
    "the same name with arguments": ([calls(fragment(0, "a", "f", '{"x":1}')), calls(fragment(0, None, "f", '{"x":2}'))], [("f", '{"x":1}'), ("f", '{"x":2}')]),
    "arguments before the name": ([calls(fragment(0, "a", None, '{"x"')), calls(fragment(0, None, "f", ":1}"))], [("f", '{"x":1}')]),
}  # fmt: skip


@pytest.mark.parametrize("finish", ["tool_calls", "stop", None])
@pytest.mark.parametrize(("events", "expected"), ODD_CALLS.values(), ids=ODD_CALLS)
def test_tool_calls_are_told_apart_however_they_come(events, expected, finish):
    response = ask(Raw.sse(*events, chunk(finish=finish)))
    assert named(response) == expected
    assert response.finish_reason == "tool_calls"
    assert len({call["id"] for call in response.tool_calls}) == len(expected)


@pytest.mark.parametrize("arguments", ['{"x": ', '{"x":1}{"x":2}', "[1]", "7", '"text"', "print(1)"])
def test_arguments_that_are_no_object_are_not_run_and_go_back_as_an_empty_one(arguments):
    ran = []
    with ModelServer([Raw.sse(calls(fragment(0, "a", "f", arguments)), chunk(finish="tool_calls")), "done"]) as server:
        assert list(Agent("a", model=server.model, tools=[tool(name="f")(lambda x=0: ran.append(x))]).stream("go"))[-1].result.output == "done"
        assert server.requests[1]["messages"][1]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert ran == []


def test_a_call_cut_at_the_limit_is_not_run():
    ran = []
    with ModelServer([Raw.sse(calls(fragment(0, "a", "f", "{}")), chunk(finish="length"))]) as server, pytest.raises(errors.ErrorTruncated):
        list(Agent("a", model=server.model, tools=[tool(name="f")(lambda: ran.append(1))]).stream("go"))
    assert ran == []


GROQ = {"message": "Failed to call a function.", "type": "invalid_request_error", "code": "tool_use_failed"}


@pytest.mark.parametrize("way", ["refused", "in the stream"])
@pytest.mark.parametrize("written", ['{"name": "act", "arguments": {"n": "x"}}', '[{"name": "act", "parameters": {"n": "x"}}]', '{"name": "act"}', '{"name": "nope", "arguments": {}}'])
def test_a_call_that_groq_refuses_is_the_models_to_correct(written, way):
    error = {"error": {**GROQ, "failed_generation": written}}
    refused = Raw(400, [json.dumps(error).encode()]) if way == "refused" else Raw.sse(said("I will."), error)
    ran = []

    def act(n: int) -> str:
        """Acts."""
        ran.append(n)
        return "done"

    with ModelServer([refused, [ToolCall("c", "act", {"n": 1})], "fine"]) as server:
        assert list(Agent("a", model=server.model, tools=[act]).stream("go"))[-1].result.output == "fine"
        correction = server.requests[1]["messages"][2]
    assert correction["role"] == "tool"
    assert ran == [1]


@pytest.mark.parametrize("written", ["<function=act{1}</function>", "", None, "7", "[]", '{"arguments": {}}', "[" * 100_000])
def test_what_cannot_be_read_of_a_refused_call_is_an_error(written):
    error = {"error": {**GROQ, "failed_generation": written}}
    assert type(failing(Raw(400, [json.dumps(error).encode()]))) is errors.ErrorModelRequest
    assert isinstance(failing(Raw.sse(error)), errors.ErrorModel)
    assert type(failing(Raw(400, [b'{"tool_use_failed']))) is errors.ErrorModelRequest


# ---- round trips --------------------------------------------------------------------------------------------------

DETAILS = [
    {"type": "reasoning.text", "text": "let me think", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.summary", "summary": "thought", "index": 1, "id": None},
    {"type": "reasoning.encrypted", "data": "b3BhcXVl", "id": "rs_1", "index": 1},
    {"type": "reasoning.server_tool_call", "tool_name": "t", "arguments": "{}"},
    {"type": "reasoning.of_the_future", "blob": {"a": [1, 2.50]}},
]


def test_what_a_provider_wants_back_comes_back_as_it_was_streamed():
    text, summary, data, *others = DETAILS
    pieces = [
        [{**text, "text": "let me ", "signature": None}],
        [{**text, "text": "think"}],
        [{**summary, "summary": "thou"}, {**summary, "summary": "ght"}],
        [{**data, "data": "b3Bh"}],
        [{**data, "data": "cXVl"}, *others],
    ]
    signed = {"google": {"thought_signature": "c2lnbmVk"}}
    deltas = [{"reasoning_details": piece, "reasoning": "r", "reasoning_content": "c"} for piece in pieces]
    call = {**fragment(0, "a", "f", "{}"), "type": "function"}
    events = [*map(chunk, deltas), calls(call), calls({"index": 0, "extra_content": signed}), chunk(finish="tool_calls")]
    with ModelServer([Raw.sse(*events), "done"]) as server:
        list(Agent("a", model=server.model, tools=[tool(name="f")(lambda: "r")]).stream("go"))
        back = server.requests[1]["messages"][1]
    assert json.dumps(back["reasoning_details"]) == json.dumps(DETAILS)
    assert (back["reasoning"], back["reasoning_content"], back["content"]) == ("rrrrr", "ccccc", None)
    assert back["tool_calls"] == [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": signed}]
