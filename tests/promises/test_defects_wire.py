"""Defects 21 to 25 of the published 1.1.0: HTTP. Each test fails on a build that has the defect."""

import asyncio
import copy
import gzip
import json
import logging
import pickle
import pprint
import socket
import traceback

import pytest

from agentroute import (
    Agent,
    ErrorAgent,
    ErrorConfig,
    ErrorModel,
    ErrorRefused,
    ErrorTruncated,
    MemorySQLite,
    ModelCloud,
    ModelRetry,
    ToolCall,
    resolve_model,
)
from agentroute.errors import (
    ErrorModelConnection,
    ErrorModelCredit,
    ErrorModelKey,
    ErrorModelRateLimit,
    ErrorModelRequest,
    ErrorModelResponse,
    ErrorModelServer,
    ErrorModelTimeout,
)
from tests.promises.conftest import KEY, config_file
from tests.promises.test_defects_broken import agent_at
from tests.server import Raw, completion

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "cost": 0.001}


def refused(status, message="the provider's own words", **headers):
    return Raw(status, [json.dumps({"error": {"message": message, "code": status}}).encode()], {"content-type": "application/json", **headers})


def answered(message=None, finish="stop", **fields):
    """A completion whose message, choice or top level is changed."""
    body = completion("Hello.", USAGE)
    body["choices"][0]["message"].update(message or {})
    body["choices"][0]["finish_reason"] = finish
    return Raw(body=[json.dumps(body | fields).encode()])


# ---- 21. retries, error bodies, timeouts


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_21_a_failure_that_passes_is_asked_again(serve, status):
    """21: there was one request, whatever went wrong."""
    server = serve(refused(status), refused(status), "Hello.")
    assert agent_at(server).run("Hi").output == "Hello."
    assert len(server.requests) == 3


def test_21_a_connection_that_breaks_is_asked_again(serve):
    """21: nor was a connection that broke before its answer tried again."""

    def hang_up(body):
        raise ConnectionResetError

    server = serve(hang_up, "Hello.")
    assert agent_at(server).run("Hi").output == "Hello."
    assert len(server.requests) == 2


def patient(server, waits):
    """An agent whose retry layer notes its waits instead of waiting."""

    async def sleep(seconds):
        waits.append(seconds)

    return Agent("test", model=ModelRetry(ModelCloud(model_id="m", base_url=server.base_url), sleep=sleep, random=lambda: 0.0))


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("7.5", 7.5), ("0", 0.0), ("nan", 0.0), ("-5", 0.0), ("soon", 0.0), ("²", 0.0)])
def test_21_the_wait_a_provider_asks_for_is_kept(serve, asked, waited):
    """21: Retry-After was ignored. What is no number of seconds never becomes a wait, or a crash."""
    waits = []
    assert patient(serve(refused(429, **{"retry-after": asked}), "Hello."), waits).run("Hi").output == "Hello."
    assert waits == [waited]


@pytest.mark.parametrize("asked", ["3600", "1e30"])
def test_21_nobody_waits_for_an_hour(serve, asked):
    """21: nor is it asked again too early: the error says how long the provider wants to be left alone."""
    waits = []
    with pytest.raises(ErrorModelRateLimit, match="asks to wait"):
        patient(serve(refused(429, **{"retry-after": asked}), "Hello."), waits).run("Hi")
    assert waits == []


STATUSES = [
    (400, ErrorModelRequest, 1), (401, ErrorModelKey, 1), (402, ErrorModelCredit, 1), (403, ErrorModelKey, 1), (404, ErrorModelRequest, 1),
    (405, ErrorModelRequest, 1), (413, ErrorModelRequest, 1), (415, ErrorModelRequest, 1), (422, ErrorModelRequest, 1), (451, ErrorModelRequest, 1),
    (408, ErrorModelTimeout, 3), (429, ErrorModelRateLimit, 3), (500, ErrorModelServer, 3), (502, ErrorModelServer, 3), (503, ErrorModelServer, 3),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind", "requests"), STATUSES)
def test_21_an_error_says_what_the_provider_said(serve, status, kind, requests):
    """21: HTTP errors came raw, without the provider's words; what will not pass is not asked again."""
    server = serve(refused(status), repeat=True)
    with pytest.raises(kind, match="the provider's own words") as caught:
        agent_at(server).run("Hi")
    assert (caught.value.status, len(server.requests)) == (status, requests)
    assert f"127.0.0.1:{server.base_url.split(':')[2].split('/')[0]}" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html><body><h1>Bad gateway</h1></body></html>", "Bad gateway"),
        (b"", "answered 500"),
        (b"upstream \x1b[31mred\x1b[0m \xe2\x80\xae", "upstream red"),
        (b'{"detail": "no such thing"}', "no such thing"),
        (b'{"object": "error", "message": "too hot"}', "too hot"),
        (b'[{"error": {"message": "in a list"}}]', "in a list"),
        (b'{"error": "as a text"}', "as a text"),
        (b'{"error": {"mess', "mess"),
        (b"x" * 2_000_000, "xxx"),
        (b"\xff\xfe\x00", "answered 500"),
    ],
    ids=["html", "empty", "escapes", "detail", "object", "list", "text", "cut", "long", "binary"],
)
def test_21_error_bodies_of_any_shape_are_read(serve, body, words):
    """21: as above; the message stays short and clean whatever came."""
    server = serve(Raw(500, [body]), repeat=True)
    with pytest.raises(ErrorModelServer) as caught:
        agent_at(server).run("Hi")
    assert words in str(caught.value) and len(str(caught.value)) < 5_000
    assert not {"\x1b", "\u202e"} & set(str(caught.value))


@pytest.mark.parametrize("hold", [Raw(body=[b'{"choices"'], hold_s=60), Raw(body=[b" "] * 3, hold_s=60)], ids=["in the body", "at once"])
def test_21_the_timeout_is_set_on_the_agent_and_named(serve, hold):
    """21: 60 seconds, fixed, and a timeout error without a word."""
    server = serve(hold, repeat=True)
    with pytest.raises(ErrorModelTimeout, match=r"127\.0\.0\.1:\d+ did not answer in full within"):
        agent_at(server, timeout=1.0).run("Hi")


def test_21_an_endpoint_that_is_not_there_is_named():
    """21: a refused connection came as an error of the HTTP library."""
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ErrorModelConnection, match=f"{place} could not be reached"):
            Agent("test", model=ModelRetry(ModelCloud(model_id="m", base_url=f"http://{place}/v1"), attempts=1)).run("Hi")


# ---- 22. bodies


ANSWERS = {
    "content parts": (answered({"content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}]}), "Hello."),
    "string parts": (answered({"content": ["Hel", "lo."]}), "Hello."),
    "unknown finish": (answered(finish="eos"), "Hello."),
    "null finish": (answered(finish=None), "Hello."),
    "no tool calls": (answered({"tool_calls": []}), "Hello."),
    "null fields": (answered({"tool_calls": None, "refusal": None, "audio": None}), "Hello."),
    "object content": (answered({"content": {"a": 1}}), '{"a": 1}'),
    "junk usage": (answered(usage="a lot"), "Hello."),
    "usage of any kind": (answered(usage={"prompt_tokens": "many", "completion_tokens": -1, "cost": "x"}), "Hello."),
    "plain content type": (Raw(body=[json.dumps(completion("Hello.", USAGE)).encode()], headers={"content-type": "text/plain"}), "Hello."),
    "BOM": (Raw(body=[b"\xef\xbb\xbf" + json.dumps(completion("Hello.", USAGE)).encode()]), "Hello."),
    "leading space": (Raw(body=[b"\n" * 50, json.dumps(completion("Hello.", USAGE)).encode()]), "Hello."),
    "gzip": (Raw(body=[gzip.compress(json.dumps(completion("Hello.", USAGE)).encode())], headers={"content-encoding": "gzip"}), "Hello."),
    "an event stream": (Raw.sse({"choices": [{"delta": {"content": "Hello."}, "finish_reason": "stop"}]}), "Hello."),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "output"), ANSWERS.values(), ids=ANSWERS)
def test_22_an_answer_in_any_known_shape_is_a_text(serve, raw, output):
    """22: content given as parts came out as a list, and odd but harmless bodies were errors."""
    result = agent_at(serve(raw)).run("Hi")
    assert (result.output, type(result.output)) == (output, str)
    assert result.usage.input_tokens >= 0 and result.usage.total_cost_usd >= 0


def body(value):
    return Raw(body=[value if isinstance(value, bytes) else json.dumps(value).encode()])


def choices(*values):
    return body({"choices": list(values), "usage": USAGE})


UNUSABLE = {
    "empty body": body(b""),
    "html": body(b"<html>sign in</html>"),
    "cut JSON": body(b'{"choices": [{"mess'),
    "two documents": body(b"{}{}"),
    "deep": body(b"[" * 150_000),
    "long number": body(b'{"choices": ' + b"1" * 6_000 + b"}"),
    "not UTF-8": body(b"\xff\xfe{\x00}\x00"),
    "null": body(None),
    "list": body([]),
    "text": body("x"),
    "number": body(42),
    "true": body(True),
    "empty object": body({}),
    "all null": body({"id": None, "choices": None, "model": None, "usage": None}),
    "no choices": choices(),
    "choices text": body({"choices": "x"}),
    "choice null": choices(None),
    "choice text": choices("x"),
    "choice empty": choices({}),
    "message null": choices({"message": None}),
    "message text": choices({"message": "Hello."}),
    "message list": choices({"message": []}),
    "bad gzip": Raw(body=[b"not gzip"], headers={"content-encoding": "gzip", "content-type": "application/json"}),
}


@pytest.mark.parametrize("raw", UNUSABLE.values(), ids=UNUSABLE)
def test_22_a_body_without_an_answer_is_an_error_of_ours(serve, raw):
    """22: JSONDecodeError, KeyError, IndexError and AttributeError of Python's own came out of a run."""
    with pytest.raises(ErrorModelResponse) as caught:
        agent_at(serve(raw, repeat=True)).run("Hi")
    assert caught.value.result.messages[0]["content"] == "Hi"


SAID = {
    "object": body({"error": {"message": "no room left", "code": 503}}),
    "text": body({"error": "no room left"}),
    "with choices": body({"choices": [], "error": {"message": "no room left"}}),
    "in the choice": choices({"message": {"content": "Hel"}, "error": {"message": "no room left", "code": 502}, "finish_reason": "error"}),
    "in a stream": Raw.sse({"choices": [{"delta": {"content": "Hel"}}]}, {"error": {"message": "no room left", "code": 502}}),
    "first in a stream": Raw.sse({"error": {"message": "no room left"}}),
}


@pytest.mark.parametrize("raw", SAID.values(), ids=SAID)
@pytest.mark.parametrize("streamed", [False, True])
def test_22_an_error_under_status_200_is_an_error(serve, raw, streamed):
    """22: it became KeyError 'choices', or an empty success where it stood in the choice."""
    agent = agent_at(serve(raw, repeat=True))
    ways = {False: lambda: agent.run("Hi"), True: lambda: list(agent.stream("Hi"))}
    with pytest.raises(ErrorModel, match="no room left"):
        ways[streamed]()


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (answered({"content": ""}, finish="content_filter"), ErrorRefused),
        (answered({"content": "par"}, finish="content_filter"), ErrorRefused),
        (answered({"content": None, "refusal": "I will not."}), ErrorRefused),
        (answered({"content": ""}, finish="length"), ErrorTruncated),
        (answered({"tool_calls": [ToolCall("1", "order", '{"n": 1').to_wire()]}, finish="length"), ErrorTruncated),
        (answered({"content": "Hel"}, finish="error"), ErrorModelServer),
    ],
    ids=["filter", "filter after text", "refusal", "cut before a word", "cut call", "error"],
)
def test_22_what_was_refused_or_cut_is_no_success(serve, raw, kind):
    """22: a refusal, a content filter and an answer of nothing were successes with output ""."""
    ran = []

    def order(n: int) -> None:
        """Orders."""
        ran.append(n)

    with pytest.raises(kind):
        agent_at(serve(raw, repeat=True), order).run("Hi")
    assert ran == []


def test_22_a_cut_text_says_that_it_is_cut(serve):
    """22: an answer cut at max_tokens was given out as complete. The text is kept; the record says `length`."""
    result = agent_at(serve(answered({"content": "Hel"}, finish="length"))).run("Hi")
    assert (result.output, result.record.turns[0].finish_reason) == ("Hel", "length")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_22_a_redirect_is_not_followed_and_said(serve, status):
    """22: as a raw HTTP error. Neither key nor prompt go to another address."""
    elsewhere = serve("Hello.", repeat=True)
    server = serve(Raw(status, [b""], {"location": f"{elsewhere.base_url}/chat/completions"}), repeat=True)
    with pytest.raises(ErrorModelRequest, match="redirects are not followed"):
        agent_at(server, api_key=KEY).run("Hi")
    assert elsewhere.requests == []


def test_22_a_stream_that_just_ends_is_no_answer(serve):
    """22: neither a finish reason nor [DONE]: the answer is cut off, and what had come is kept."""
    server = serve(Raw.sse({"choices": [{"delta": {"content": "Half a sen"}}]}, done=False), repeat=True)
    with pytest.raises(ErrorModelResponse, match="cut off") as caught:
        list(agent_at(server).stream("Hi"))
    assert caught.value.partial == "Half a sen"


# ---- 23. connections


def test_23_runs_share_one_connection(serve):
    """23: every run opened a connection of its own."""
    server = serve("Hello.", repeat=True)
    for _ in range(5):
        agent_at(server).run("Hi")
    assert server.connections == 1


def test_23_awaited_runs_of_one_loop_share_connections(serve):
    """23: so did every one of ten concurrent runs, each time."""
    server = serve("Hello.", repeat=True)
    agent = agent_at(server)

    async def main():
        for _ in range(5):
            await agent.arun("Hi")
        alone = server.connections
        for _ in range(3):
            await asyncio.gather(*[agent.arun("Hi") for _ in range(10)])
        return alone

    assert asyncio.run(main()) == 1
    assert server.connections <= 10


# ---- 24. what a provider wants back


DETAILS = [
    {"type": "reasoning.text", "text": "let me think", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.encrypted", "data": "b3BhcXVl", "id": "rs_1", "format": "openai-responses-v1", "index": 1},
]
CALL = ToolCall("c", "look", {}).to_wire()


def look() -> str:
    """Looks."""
    return "seen"


def test_24_reasoning_comes_back_unchanged_in_a_tool_turn(serve):
    """24: reasoning and reasoning_details were dropped, and content was left out of the assistant's message, not null."""
    message = {"content": None, "tool_calls": [CALL], "reasoning": "let me think", "reasoning_details": DETAILS}
    server = serve(answered(message, finish="tool_calls"), "done")
    agent_at(server, look).run("go")
    back = server.requests[1]["messages"][1]
    assert (back["reasoning_details"], back["reasoning"]) == (DETAILS, "let me think")
    assert "content" in back and back["content"] is None


def test_24_streamed_reasoning_comes_back_as_it_was(serve):
    """24: so it is when the pieces came one by one."""
    first, second = DETAILS
    pieces = [{**first, "text": "let me ", "signature": None}, {**first, "text": "think"}, second]
    deltas = [{"reasoning_details": [piece]} for piece in pieces]
    deltas += [{"reasoning": "let me "}, {"reasoning": "think"}, {"tool_calls": [{"index": 0, **CALL}]}]
    chunks = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    server = serve(Raw.sse(*chunks, {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}), "done")
    kinds = [event.kind for event in agent_at(server, look).stream("go")]
    back = server.requests[1]["messages"][1]
    assert (back["reasoning_details"], back["reasoning"]) == (DETAILS, "let me think")
    assert kinds.count("reasoning_delta") == 2


def test_24_a_signature_on_a_call_comes_back_too(serve):
    """24: some providers sign each call (`extra_content`) and refuse the next request without it."""
    signed = {**CALL, "extra_content": {"google": {"thought_signature": "c2ln"}}}
    server = serve(answered({"content": None, "tool_calls": [signed]}, finish="tool_calls"), "done")
    agent_at(server, look).run("go")
    assert server.requests[1]["messages"][1]["tool_calls"] == [signed]


def test_24_reasoning_in_a_stored_conversation_comes_back_as_well(serve, tmp_path):
    """24: also in the next run, out of the memory's file."""
    message = {"content": None, "tool_calls": [CALL], "reasoning_details": DETAILS}
    server = serve(answered(message, finish="tool_calls"), "done", "again")
    agent = agent_at(server, look, memory=MemorySQLite(tmp_path / "agent.db"))
    agent.run("go")
    agent.run("go on")
    assert server.requests[2]["messages"][1]["reasoning_details"] == DETAILS


# ---- 25. the key


SHOWN = {
    "repr": repr,
    "str": str,
    "format": lambda value: f"{value}",
    "pprint": pprint.pformat,
    "vars": lambda value: repr(vars(value)),
    "model_dump": lambda value: repr(getattr(value, "model_dump", dict)()),
    "deepcopy": lambda value: repr(vars(copy.deepcopy(value))),
    "model_copy": lambda value: repr(vars(getattr(value, "model_copy", lambda: value)())),
    "dir": lambda value: repr([getattr(value, name, None) for name in dir(value)]),
    "JSON": lambda value: json.dumps(vars(value), default=repr),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_25_the_key_shows_nowhere(show):
    """25: repr and model_dump showed the key."""
    agent = Agent("test", model="claude-sonnet-4", api_key=KEY)
    model = resolve_model("claude-sonnet-4", api_key=KEY)
    assert [KEY[6:] in show(value) for value in (agent, model, ModelRetry(model))] == [False] * 3


@pytest.mark.parametrize("made", [lambda: Agent("test", api_key=KEY), lambda: resolve_model("gpt-5", api_key=KEY)], ids=["agent", "model"])
def test_25_a_pickle_holds_no_key(made):
    """25: keys do not go into files; what holds one is not pickled."""
    with pytest.raises(TypeError, match="keys do not go into files"):
        pickle.dumps(made())


def test_25_no_log_error_or_traceback_holds_the_key(openrouter, caplog):
    """25: not even where the provider echoes it, at the lowest level of all loggers, with the locals of every frame."""
    caplog.set_level(1, logger="")
    logging.getLogger("httpcore").setLevel(1)
    server = openrouter(refused(401, f"wrong key {KEY}"), repeat=True)
    try:
        Agent("test", model="claude-sonnet-4", api_key=KEY).run("Hi")
    except ErrorAgent as error:
        told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        told += repr(vars(error)) + pickle.dumps(error).decode("latin-1")
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "wrong key [key]" in told
    assert KEY not in told + caplog.text
    assert "_http.py" in told or "loop.py" in told


ELSEWHERE = {
    "URL": lambda server: {"model": server.model},
    "base_url": lambda server: {"model": "claude-sonnet-4", "base_url": server.base_url},
    "slug": lambda server: {"model": "meta-llama/llama-4", "base_url": server.base_url},
    "ollama": lambda server: {"model": "ollama/llama3.1", "base_url": server.base_url},
    "URL and base_url": lambda server: {"model": "https://example.invalid/v1/m", "base_url": server.base_url},
}


@pytest.mark.parametrize("options", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize("where", ["AGENTROUTE_API_KEY", "OPENROUTER_API_KEY", "config"])
def test_25_the_key_of_the_environment_goes_to_openrouter_only(serve, monkeypatch, options, where):
    """25: it was sent to whatever base_url was given."""
    config_file().write_text(f"api_key={KEY}\n")
    monkeypatch.setenv(where.replace("config", "UNRELATED"), KEY)
    server = serve("Hello.")
    Agent("test", **options(server)).run("Hi")
    assert KEY not in server.headers[0].get("authorization", "")


def test_25_a_key_given_on_purpose_goes_where_it_was_given_for(serve):
    """25: and nowhere is it lost."""
    server = serve("Hello.", repeat=True)
    agent_at(server, api_key=KEY).run("Hi")
    Agent("test", model="m", base_url=server.base_url, api_key=KEY).run("Hi")
    assert [headers["authorization"] for headers in server.headers] == [f"Bearer {KEY}"] * 2


@pytest.mark.parametrize("model", ["llama3", "gpt-5", "org/family/model"])
def test_25_at_another_endpoint_the_name_is_left_as_it_is(serve, model):
    """25: with base_url= a bare name was given OpenRouter's vendor all the same."""
    server = serve("Hello.")
    Agent("test", model=model, base_url=server.base_url).run("Hi")
    assert server.requests[0]["model"] == model


def test_25_without_a_key_openrouter_is_not_asked(point_at):
    """25: the request went out without a key, for a 401 to come back."""
    server = point_at("Hello.")
    with pytest.raises(ErrorConfig, match=r"AGENTROUTE_API_KEY.*agentroute login"):
        Agent("test", model="claude-sonnet-4").run("Hi")
    assert server.requests == []
