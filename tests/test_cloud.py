"""ModelCloud against a server on loopback."""

import asyncio
import base64
import json
import logging
import socket
import threading
import time
import traceback

import pytest

from agentroute import Agent, LLMChunk, LLMRequest, Message, ModelCloud, ToolCall, errors, tool
from agentroute.models import base
from agentroute.testing import no_requests
from tests.server import ModelServer, Raw

KEY = "sk-secret-0123456789"


def ask(model: ModelCloud, *, stream: bool = False, **options) -> str:
    request = LLMRequest("m", [Message("user", "hi")], **options)

    async def streamed() -> str:
        return "".join([chunk.delta or "" async for chunk in model.complete_stream(request)])

    async def whole() -> str:
        return (await model.complete(request)).content or ""

    return asyncio.run(streamed() if stream else whole())


def failing(server: ModelServer, kind: type[errors.ErrorAgent], *, stream: bool, **options) -> errors.ErrorAgent:
    with pytest.raises(kind) as caught:
        ask(ModelCloud(model_id="m", base_url=server.base_url, api_key=KEY, **options), stream=stream)
    return caught.value


both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@both
def test_the_request_is_sent_as_providers_expect_it(stream):
    with ModelServer(["hello"]) as server:
        assert ask(ModelCloud(model_id="m", base_url=server.base_url + "/", api_key=KEY), stream=stream) == "hello"
        assert server.paths == ["/v1/chat/completions"]
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
        assert ("stream" in server.requests[0]) is stream


def test_no_key_sends_no_authorization():
    with ModelServer(["hello"]) as server:
        ask(ModelCloud(model_id="m", base_url=server.base_url))
        assert "authorization" not in server.headers[0]


def test_connections_are_reused_from_run_to_run():
    with ModelServer(["hello"], repeat=True) as server:
        agent = Agent("a", model=server.model)
        for _ in range(5):
            agent.run("hi")
            list(agent.stream("hi"))
        assert server.connections == 1


def test_a_loop_that_ends_closes_its_connections():
    with ModelServer(["hello"], repeat=True) as server:
        for _ in range(3):  # ResourceWarnings are errors in this suite
            ask(ModelCloud(model_id="m", base_url=server.base_url))
        assert server.connections == 3


@both
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Raw(401, [b'{"error":{"message":"no such key sk-secret-0123456789"}}']), errors.ErrorModelKey),
        (Raw(429, [b'{"error":{"message":"slow down"}}']), errors.ErrorModelRateLimit),
        (Raw(502, [b"<html>bad gateway</html>"], {"content-type": "text/html"}), errors.ErrorModelServer),
        (Raw(307, [b""], {"location": "http://127.0.0.1:1/"}), errors.ErrorModelRequest),
        (Raw(200, [b"<html>hello</html>"], {"content-type": "text/html"}), errors.ErrorModelResponse),
        (Raw(200, [b'{"error":{"code":503,"message":"sk-secret-0123456789 overloaded"}}']), errors.ErrorModelServer),
        (Raw(200, [b""]), errors.ErrorModelResponse),
    ],
)
def test_every_fault_is_an_agent_error_and_shows_no_key(answer, kind, stream):
    with ModelServer([answer]) as server:
        error = failing(server, kind, stream=stream)
    assert KEY not in str(error) + repr(error) + error.body
    assert error.__context__ is None


def test_a_redirect_takes_nothing_along():
    with ModelServer(["stolen"]) as other, ModelServer([Raw(302, [b""], {"location": other.base_url})]) as server:
        failing(server, errors.ErrorModelRequest, stream=False)
        assert other.requests == []


def test_a_stream_that_breaks_off_is_an_error_after_the_text_so_far():
    half = Raw.sse({"choices": [{"delta": {"content": "half "}}]}, {"choices": [{"delta": {"content": "an"}}]}, done=False)
    with ModelServer([half]) as server:
        error = failing(server, errors.ErrorModelResponse, stream=True)
    assert error.partial == "half an"


def test_a_tool_call_that_breaks_off_is_never_run():
    ran = []
    fragment = {"index": 0, "id": "a", "function": {"name": "act", "arguments": "{}"}}
    half = Raw.sse({"choices": [{"delta": {"tool_calls": [fragment]}}]}, done=False)
    with ModelServer([half]) as server:
        agent = Agent("a", model=server.model, tools=[tool(name="act")(lambda: ran.append(1))])
        with pytest.raises(errors.ErrorModelResponse):
            list(agent.stream("go"))
    assert ran == []


def test_a_server_that_ignores_stream_is_understood():
    body = b'{"choices":[{"message":{"content":"whole"},"finish_reason":"stop"}]}'
    with ModelServer([Raw(200, [body])]) as server:
        assert ask(ModelCloud(model_id="m", base_url=server.base_url), stream=True) == "whole"


@both
def test_the_timeout_bounds_one_request_in_all(stream):
    drip = [b'data: {"choices":[]}\n\n'] if stream else [b" "]
    with ModelServer([Raw(200, drip, hold_s=60)]) as server:
        began = time.monotonic()
        error = failing(server, errors.ErrorModelTimeout, stream=stream, timeout=0.4)
        assert time.monotonic() - began < 20
    assert "timeout=0.4" in str(error)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), True, "5", None])
@pytest.mark.parametrize("name", ["timeout", "idle_timeout"])
def test_limits_are_seconds(name, seconds):
    with pytest.raises(errors.ErrorConfig, match=f"^{name} must be a positive number of seconds"):
        ModelCloud(model_id="m", base_url="http://127.0.0.1:1", **{name: seconds})


@both
def test_a_client_of_the_users_makes_the_requests_and_stays_open(stream):
    import httpx

    async def main(server: ModelServer) -> bool:
        async with httpx.AsyncClient(headers={"x-team": "blue"}, trust_env=False) as client:
            model = ModelCloud(model_id="m", base_url=server.base_url, http_client=client)
            chunks = [chunk async for chunk in model.complete_stream(LLMRequest("m", [Message("user", "x")]))] if stream else []
            response = chunks[-1].response if stream else await model.complete(LLMRequest("m", [Message("user", "x")]))
            assert response.content == "hello"
            await model.close()
            return client.is_closed

    with ModelServer(["hello"]) as server:
        assert asyncio.run(main(server)) is False
        assert server.headers[0]["x-team"] == "blue"


def test_a_refused_connection_names_the_place():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # it stays bound, so that nobody else listens there
        with pytest.raises(errors.ErrorModelConnection, match=f"127.0.0.1:{port}"):
            ask(ModelCloud(model_id="m", base_url=f"http://127.0.0.1:{port}/v1"))


def test_leaving_a_stream_closes_its_connection():
    events = Raw.sse({"choices": [{"delta": {"content": "one"}}]}, done=False)
    events.hold_s = 10
    with ModelServer([events]) as server:

        async def leave() -> None:
            stream = ModelCloud(model_id="m", base_url=server.base_url).complete_stream(LLMRequest("m", [Message("user", "x")]))
            await anext(stream)
            await stream.aclose()

        asyncio.run(leave())
        assert server.closed_early.wait(30)


def test_done_ends_the_answer_although_the_server_holds_the_connection():
    events = Raw.sse({"choices": [{"delta": {"content": "one"}, "finish_reason": "stop"}]})
    events.hold_s = 60
    with ModelServer([events]) as server:
        began = time.monotonic()
        assert ask(ModelCloud(model_id="m", base_url=server.base_url), stream=True) == "one"
        assert time.monotonic() - began < 20


def test_a_body_without_end_is_cut(monkeypatch):
    monkeypatch.setattr("agentroute._http.MAX_BODY", 100_000)
    with ModelServer([Raw(200, [b" " * 50_000] * 10)]) as server:
        assert "more than 100000 bytes" in str(failing(server, errors.ErrorModelResponse, stream=False))


def test_the_key_is_nowhere_to_be_seen():
    model = ModelCloud(model_id="m", base_url="http://user:pass@127.0.0.1:1/v1", api_key=KEY)
    agent = Agent("a", model=model, api_key=KEY)
    shown = f"{model!r} {model} {agent!r} {vars(model)} {vars(agent)} {agent.api_key} {agent.api_key!r:>40}"
    assert KEY not in shown
    assert "pass" not in repr(model)


def test_a_password_in_the_url_is_not_shown_or_recorded():
    agent = Agent("a", model="http://user:hunter2@127.0.0.1:1/v1/m")
    with pytest.raises(errors.ErrorAgent) as caught:
        agent.run("hi")
    record = caught.value.result.record
    assert record.run.request_model == "http://…@127.0.0.1:1/v1/m"
    assert "hunter2" not in f"{agent!r} {caught.value} {record}"


def test_a_login_in_the_url_is_sent_as_a_header_and_logged_nowhere(caplog):
    caplog.set_level(logging.DEBUG)
    with ModelServer(["hello"], repeat=True) as server:
        model = ModelCloud(model_id="m", base_url=server.base_url.replace("//", "//us%20er:p%40ss@x@"))
        assert model.base_url == server.base_url
        assert ask(model) == ask(model, stream=True) == "hello"
        token = base64.b64encode(b"us er:p@ss@x").decode()
        assert [headers["authorization"] for headers in server.headers] == [f"Basic {token}"] * 2
    assert not [word for word in ("p@ss", "p%40ss", token) if word in f"{caplog.text} {model!r} {vars(model)}"]


def test_a_key_goes_before_a_login_in_the_url():
    with ModelServer(["hello"]) as server:
        ask(ModelCloud(model_id="m", base_url=server.base_url.replace("//", "//user:pass@"), api_key=KEY))
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_headers_are_sent_and_struck_out_of_errors():
    with ModelServer([Raw(401, [f'{{"error":{{"message":"no such key {KEY}"}}}}'.encode()])]) as server:
        with pytest.raises(errors.ErrorModelKey, match=r"no such key \[key\]") as caught:
            ask(ModelCloud(model_id="m", base_url=server.base_url, headers={"X-Api-Key": KEY, "X-Title": "My App"}))
        assert (server.headers[0]["x-api-key"], server.headers[0]["x-title"]) == (KEY, "My App")
    assert KEY not in caught.value.body
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    trace.stack = traceback.StackSummary.from_list([frame for frame in trace.stack if frame.filename != __file__])
    assert KEY not in "".join(trace.format())


# ---- what may have been charged for

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "cost": 0.5}
TEXT = {"choices": [{"delta": {"content": "half"}}], "usage": USAGE}


@both
@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (Raw(401, [b"{}"]), False),
        (Raw(402, [b"{}"]), False),
        (Raw(429, [b"{}"]), False),
        (Raw(500, [b"{}"]), False),
        (Raw(504, [b"{}"]), False),
        (Raw(200, [b"<html>"]), True),
        (Raw(200, [b"{}"]), True),
        (Raw(200, [b" " * 3000]), True),
        (Raw(200, [b" "], hold_s=10), True),
    ],
)
def test_an_error_says_whether_the_request_may_be_charged_for(answer, sent, stream, monkeypatch):
    monkeypatch.setattr("agentroute._http.MAX_BODY", 2000)
    with ModelServer([answer]) as server:
        assert failing(server, errors.ErrorModel, stream=stream, timeout=2.0).sent is sent


@both
def test_a_connection_that_breaks_before_the_answer_may_be_charged_for(stream):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def hang_up() -> None:
            connection, _ = listening.accept()
            connection.recv(1_000_000)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(errors.ErrorModelConnection) as caught:
            ask(ModelCloud(model_id="m", base_url=f"http://127.0.0.1:{port}/v1"), stream=stream)
        thread.join()
    assert caught.value.sent
    with pytest.raises(errors.ErrorModelConnection) as caught:
        ask(ModelCloud(model_id="m", base_url=f"http://127.0.0.1:{port}/v1"), stream=stream)
    assert not caught.value.sent


@pytest.mark.parametrize(
    "events",
    [
        Raw.sse(TEXT, done=False),
        Raw.sse(TEXT, {"error": {"code": 502, "message": "lost it"}}),
        Raw.sse({"choices": [{"delta": {"content": "half"}}]}, {"error": {"code": 502, "message": "lost it"}, "usage": USAGE}),
        Raw.sse(TEXT, {"choices": [{"delta": {}, "finish_reason": "error"}]}),
        Raw.sse(TEXT, b"{broken"),
        Raw(200, [*Raw.sse(TEXT, done=False).body], {"content-type": "text/event-stream"}, hold_s=10),
    ],
    ids=["cut off", "error", "error with usage", "finish error", "broken", "timeout"],
)
def test_the_usage_that_came_before_a_stream_failed_is_kept(events):
    with ModelServer([events]) as server:
        error = failing(server, errors.ErrorModel, stream=True, timeout=2.0)
    assert (error.sent, error.usage) == (True, USAGE)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 503, "message": "overloaded"}},
        {"choices": []},
        {"choices": [{"message": {"content": "par"}, "finish_reason": "error"}]},
    ],
)
def test_the_usage_of_a_whole_answer_that_cannot_be_used_is_kept(body):
    with ModelServer([Raw(200, [json.dumps({**body, "usage": USAGE}).encode()])]) as server:
        error = failing(server, errors.ErrorModel, stream=False)
    assert (error.sent, error.usage) == (True, USAGE)


@both
@pytest.mark.parametrize("status", [201, 202, 299])
def test_any_status_of_success_brings_the_answer(status, stream):
    good = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}], "usage": USAGE}

    async def last(model: ModelCloud) -> LLMChunk:
        return [chunk async for chunk in base.ask(model, LLMRequest("m", [Message("user", "hi")]), stream=stream)][-1]

    with ModelServer([Raw(status, [json.dumps(good).encode()])]) as server:
        response = asyncio.run(last(ModelCloud(model_id="m", base_url=server.base_url))).response
    assert (response.content, response.usage) == ("hello", USAGE)


@both
@pytest.mark.parametrize("status", [200, 201])
def test_an_answer_without_a_body_is_empty_and_may_be_charged_for(status, stream):
    with ModelServer([Raw(status, [b""])]) as server:
        error = failing(server, errors.ErrorModelResponse, stream=stream)
    assert (error.reason, error.sent) == ("empty", True)
    assert str(error).endswith(f"answered {status} with an empty body")


def test_requests_can_be_forbidden():
    with no_requests(allow=[]), ModelServer(["hello"]) as server, pytest.raises(RuntimeError, match="forbidden"):
        ask(ModelCloud(model_id="m", base_url=server.base_url))


def test_many_threads_share_one_agent():
    with ModelServer(["hello"], repeat=True) as server:
        agent = Agent("a", model=server.model)
        outputs: list[str] = []
        threads = [threading.Thread(target=lambda: outputs.append(agent.run("hi").output)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outputs == ["hello"] * 8


def test_usage_and_model_come_from_the_server():
    with ModelServer([ToolCall("1", "f", {}), "ok"]) as server:
        result = Agent("a", model=server.model, tools=[tool(name="f")(lambda: "r")]).run("go")
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.total_cost_usd) == (20, 10, 0.002)
    assert [turn.response_model for turn in result.record.turns] == ["test/model-1"] * 2
