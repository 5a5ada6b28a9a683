"""ModelRetry: what is asked again, when, how often, and what it may have cost. No test waits."""

import asyncio
import copy
import itertools
import json
import pickle
import socket
import struct
import threading
from contextlib import aclosing
from dataclasses import dataclass, field
from email.utils import formatdate
from time import time as clock

import pytest

from agentroute import (
    Agent,
    ErrorConfig,
    LLMChunk,
    LLMRequest,
    LLMResponse,
    Message,
    Model,
    ModelCloud,
    ModelRetry,
    ToolCall,
    errors,
    tool,
)
from agentroute.models.local import ModelLocal
from agentroute.models.retry import with_retries
from agentroute.testing import ModelFunction, ModelScripted, check_model
from tests.server import ModelServer, Raw

TEXT = {"choices": [{"index": 0, "delta": {"content": "half"}, "finish_reason": None}]}
BUSY = errors.ErrorModelServer("busy", status=503)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@dataclass
class Time:
    """A clock that only sleeping moves. The random number is always `luck`."""

    luck: float = 1.0
    now: float = 100.0
    waits: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def around(self, model: Model, **options) -> ModelRetry:
        return ModelRetry(model, sleep=self.sleep, random=lambda: self.luck, **options)


def request(**options) -> LLMRequest:
    return LLMRequest("m", [Message("user", "hi")], **options)


async def asked(model: Model, question: LLMRequest, stream: bool) -> LLMResponse:
    if not stream:
        return await model.complete(question)
    chunks = [chunk async for chunk in model.complete_stream(question)]
    assert "".join(chunk.delta or "" for chunk in chunks) == (chunks[-1].response.content or "")
    return chunks[-1].response


def ask(model: Model, question: LLMRequest | None = None, *, stream: bool = False) -> LLMResponse:
    return asyncio.run(asked(model, question or request(), stream))


def failing(model: Model, question: LLMRequest | None = None, *, stream: bool = False, kind=errors.ErrorModel) -> errors.ErrorModel:
    with pytest.raises(kind) as caught:
        ask(model, question, stream=stream)
    return caught.value


def cloud(server: ModelServer, **options) -> ModelCloud:
    return ModelCloud(model_id="m", base_url=server.base_url, **options)


def inside(error: object, **more: object) -> Raw:
    """An error under status 200."""
    return Raw(200, [json.dumps({"id": None, "choices": None, "error": error, **more}).encode()])


def whole(**choice: object) -> Raw:
    return Raw(200, [json.dumps({"choices": [choice], "usage": {"cost": 0.25, "prompt_tokens": 7}}).encode()])


EMPTY = whole(message={"role": "assistant", "content": ""}, finish_reason="stop")
STATUSES = {code: Raw(code, [b"{}"]) for code in (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 501, 502, 503, 504, 505, 529)}
AGAIN = (408, 429, 500, 502, 503, 504, 529)
QUOTA = Raw(429, [b'{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}'])
TODAY = Raw(429, [json.dumps([{"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [
    {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]},
    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "14s"},
]}}]).encode()])  # fmt: skip


# ---- what is asked again ------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        *[pytest.param(answer, 3 if code in AGAIN else 1, id=str(code)) for code, answer in STATUSES.items()],
        pytest.param(QUOTA, 1, id="quota"),
        pytest.param(TODAY, 1, id="today's quota"),
        pytest.param(Raw(500, [b'{"error":{"code":"context_length_exceeded","message":"too long"}}']), 1, id="too long, as a 500"),
        pytest.param(inside({"code": 503, "message": "busy"}), 3, id="503 inside"),
        pytest.param(inside({"code": "429", "message": "slow down"}), 3, id="429 inside"),
        pytest.param(inside({"code": "server_error", "message": "lost"}), 3, id="a word inside"),
        pytest.param(inside({"message": "busy", "error_type": "provider_overloaded", "http_status": 503}), 3, id="http_status inside"),
        pytest.param(inside({"code": 401, "message": "no"}), 1, id="401 inside"),
        pytest.param(inside({"code": 402, "message": "no credit"}), 1, id="402 inside"),
        pytest.param(inside({"message": "something"}), 1, id="an error without a code"),
        pytest.param(Raw.sse({"error": {"code": 502, "message": "lost"}}), 3, id="502 in a stream"),
        pytest.param(Raw(200, [b'{"choices":null}']), 2, id="null choices"),
        pytest.param(Raw(200, [b'{"choices":[]}']), 2, id="no choices"),
        pytest.param(Raw(200, [b'{"choices":[{}]}']), 2, id="no message"),
        pytest.param(Raw.sse(), 2, id="only [DONE]"),
        pytest.param(Raw.sse({"choices": [{"delta": {"role": "assistant"}}]}, done=False), 2, id="cut off before a delta"),
        pytest.param(Raw(200, [b"<html>log in</html>"]), 1, id="a page"),
        pytest.param(Raw(307, [b""]), 1, id="a redirect"),
    ],
)
def test_only_what_passes_is_asked_again(answer, requests, stream):
    time = Time()
    with ModelServer([answer], repeat=True) as server:
        error = failing(time.around(cloud(server)), stream=stream)
        assert (len(server.requests), error.attempts, len(time.waits)) == (requests, requests, requests - 1)


@both
@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_is_how_often_a_request_is_made(attempts, stream):
    with ModelServer([Raw(503, [b"{}"])], repeat=True) as server:
        failing(Time().around(cloud(server), attempts=attempts), stream=stream)
        assert len(server.requests) == attempts


@both
def test_a_later_attempt_answers(stream):
    with ModelServer([Raw(503, [b"{}"]), Raw(429, [b"{}"]), "Hello."]) as server:
        question = request()
        assert ask(Time().around(cloud(server)), question, stream=stream).content == "Hello."
        assert [("stream" in body) for body in server.requests] == [stream] * 3
        assert question.failed_attempts == []  # all refused before any work


@both
def test_a_connection_that_is_not_made_is_tried_again(stream):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    time, question = Time(), request()
    error = failing(time.around(ModelCloud(model_id="m", base_url=f"http://127.0.0.1:{port}/v1")), question, stream=stream)
    assert error.attempts == 3
    assert question.failed_attempts == []
    assert str(error).endswith("; gave up after 3 attempts (connection, connection, connection)")


@both
def test_a_connection_that_breaks_after_the_request_is_tried_once_more(stream):
    accepted = []

    def hang_up() -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            accepted.append(connection.recv(1_000_000))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=hang_up)
        thread.start()
        question = request()
        model = Time().around(ModelCloud(model_id="m", base_url=f"http://127.0.0.1:{listening.getsockname()[1]}/v1"), attempts=5)
        error = failing(model, question, stream=stream, kind=errors.ErrorModelConnection)
        thread.join()
    assert len(accepted) == 2
    assert question.failed_attempts == [{}]
    assert str(error).endswith("; gave up after 2 attempts (connection, connection): each may have been charged for")


@both
@pytest.mark.parametrize(
    "error",
    [
        errors.ErrorModelTimeout("slow", sent=True),
        errors.ErrorModelConnection("broke", sent=True, usage={"cost": 0.5}),
        errors.ErrorModelResponse("cut", sent=True, reason="cut_off"),
    ],
)
def test_an_attempt_of_unknown_outcome_is_followed_by_one_more(error, stream):
    model = ModelScripted([BUSY, error, BUSY, error, "too late"])
    question = request()
    last = failing(Time().around(model, attempts=9), question, stream=stream, kind=type(error))
    assert (len(model.requests), last.attempts) == (4, 4)
    assert question.failed_attempts == [error.usage]


def test_a_refusal_that_reports_usage_is_counted_too():
    question = request()
    ask(Time().around(ModelScripted([errors.ErrorModelServer("busy", status=503, usage={"cost": 0.1}), "ok"])), question)
    assert question.failed_attempts == [{"cost": 0.1}]


@both
@pytest.mark.parametrize(
    "error",
    [
        ErrorConfig("wrong"),
        RuntimeError("a bug"),
        NotImplementedError("no"),
        errors.ErrorModelKey("no", status=401),
        errors.ErrorModelServer("does not start"),
        errors.ErrorBudget(spent=1, limit=1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_everything_else_is_raised_as_it_is(error, stream):
    model = ModelFunction(lambda _: error)
    with pytest.raises(type(error)) as caught:
        ask(Time().around(model), stream=stream)
    assert caught.value is error
    assert {id(one) for one in model.requests} == {id(model.requests[0])}


@pytest.mark.parametrize(
    "piece", [{"content": "half"}, {"reasoning": "hm"}, {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}]
)
def test_a_stream_that_breaks_after_its_first_delta_is_not_asked_for_again(piece):
    broken = Raw.sse({"choices": [{"index": 0, "delta": piece, "finish_reason": None}]}, {"error": {"code": 503, "message": "lost it"}})
    with ModelServer([broken, "whole"]) as server:
        seen = []

        async def main() -> None:
            async for chunk in Time().around(cloud(server)).complete_stream(request()):
                seen.append(chunk)

        with pytest.raises(errors.ErrorModelServer, match=r"lost it \[503\]$|answered 503: lost it$") as caught:
            asyncio.run(main())
        assert (len(server.requests), len(seen), caught.value.attempts) == (1, 1, 1)


def test_an_answer_that_was_not_streamed_may_be_asked_for_again_though_text_had_come():
    with ModelServer([Raw.sse(TEXT, done=False), "whole"]) as server:
        assert ask(Time().around(cloud(server))).content == "whole"


# ---- answers with nothing in them ---------------------------------------------------------------------------------


@both
def test_an_empty_answer_is_asked_for_once_more_and_counted(stream):
    with ModelServer([EMPTY, "Hello."]) as server:
        question = request()
        assert ask(Time().around(cloud(server)), question, stream=stream).content == "Hello."
        assert question.failed_attempts == [{"cost": 0.25, "prompt_tokens": 7}]


@both
def test_a_second_empty_answer_is_the_answer(stream):
    with ModelServer([EMPTY], repeat=True) as server:
        question = request()
        assert ask(Time().around(cloud(server), attempts=9), question, stream=stream).content is None
        assert (len(server.requests), len(question.failed_attempts)) == (2, 1)


@both
@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": ""}, "finish_reason": "length"},
        {"message": {"content": None}, "finish_reason": "content_filter"},
        {"message": {"content": None, "refusal": "I will not."}, "finish_reason": "stop"},
        {"message": {"content": None, "reasoning": "hm"}, "finish_reason": "stop"},
        {"message": {"content": None, "tool_calls": [ToolCall("a", "f", {}).to_wire()]}, "finish_reason": "stop"},
    ],
    ids=["length", "content filter", "refusal", "reasoning", "tool call"],
)
def test_an_answer_that_says_something_is_not_empty(choice, stream):
    with ModelServer([whole(**choice)], repeat=True) as server:
        ask(Time().around(cloud(server)), stream=stream)
        assert len(server.requests) == 1


# ---- waits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("luck", [0.0, 0.25, 1.0])
def test_waits_are_random_and_their_bound_doubles_up_to_eight_seconds(luck):
    time = Time(luck)
    failing(time.around(ModelScripted([BUSY] * 9), attempts=7))
    assert time.waits == [luck * bound for bound in (0.5, 1.0, 2.0, 4.0, 8.0, 8.0)]


def test_any_number_of_attempts_has_waits():
    time = Time(luck=0.5)
    failing(time.around(ModelFunction(lambda _: BUSY), attempts=2000))
    assert time.waits[-1] == 4.0


@both
@pytest.mark.parametrize(
    ("headers", "body", "wait"),
    [
        ({"retry-after": "3"}, b"{}", 3.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, b"{}", 1.5),
        ({}, b'{"error":{"message":"m","availability":{"code":"capacity_exhausted","retry_after":7}}}', 7.0),
        ({}, b'[{"error":{"code":429,"message":"m","details":[{"retryDelay":"14s"}]}}]', 14.0),
        ({"retry-after": "soon"}, b"{}", 0.0),
        ({"retry-after": "-4"}, b"{}", 0.0),
        ({"retry-after": "25"}, b"{}", 25.0),
    ],
)
def test_what_the_provider_asks_to_wait_is_waited(headers, body, wait, stream):
    time = Time(luck=0.0)
    with ModelServer([Raw(429, [body], headers), "Hello."]) as server:
        ask(time.around(cloud(server)), stream=stream)
    assert time.waits == [wait]


def test_a_wait_until_a_date_is_waited():
    time = Time(luck=0.0)
    with ModelServer([lambda _: Raw(429, [b"{}"], {"retry-after": formatdate(clock() + 20, usegmt=True)}), "Hello."]) as server:
        ask(time.around(cloud(server)))
    assert time.waits == [pytest.approx(20, abs=1)]  # dates have whole seconds


def test_all_who_are_told_to_wait_do_not_come_back_at_once():
    waits = []
    for luck in (0.0, 0.5, 1.0):
        time = Time(luck)
        ask(time.around(ModelScripted([errors.ErrorModelRateLimit("wait", retry_after_s=24.75), "ok"])))
        waits += time.waits
    assert waits == [24.75, 25.0, 25.0]  # later than asked, and never longer than max_wait_s


@both
def test_a_longer_wish_ends_the_attempts_and_is_told(stream):
    time = Time()
    with ModelServer([Raw(503, [b'{"error":{"message":"later"}}'], {"retry-after": "120"})], repeat=True) as server:
        error = failing(time.around(cloud(server)), stream=stream, kind=errors.ErrorModelServer)
        assert (len(server.requests), time.waits, error.retry_after_s) == (1, [], 120.0)
    assert str(error).endswith("; gave up after 1 attempt (503): the provider asks to wait 120 s, longer than max_wait_s=25")


def test_max_wait_s_says_how_long_is_too_long():
    patient, hasty = Time(luck=0.0), Time()
    slow = errors.ErrorModelRateLimit("wait", status=429, retry_after_s=60)
    assert ask(patient.around(ModelScripted([slow, "ok"]), max_wait_s=60)).content == "ok"
    assert patient.waits == [60]
    failing(hasty.around(ModelScripted([slow, "ok"]), max_wait_s=59))
    assert hasty.waits == []


def test_backoff_of_all_models_can_be_switched_off_in_one_place(monkeypatch):
    monkeypatch.setattr("agentroute.models.retry.BASE_S", 0.0)
    with ModelServer([Raw(503, [b"{}"]), "Hello."]) as server:
        assert Agent("a", model=server.model).run("hi").output == "Hello."


# ---- time -----------------------------------------------------------------------------------------------------------


def test_timeout_is_for_one_attempt():
    model = ModelScripted([BUSY, BUSY, "ok"])
    ask(Time().around(model), request(timeout=10.0))
    assert [one.timeout for one in model.requests] == [10.0] * 3


@both
@pytest.mark.usefixtures("hurried")
def test_a_request_that_took_its_whole_timeout_may_have_been_charged_for_and_is_made_once_more(stream):
    with ModelServer([Raw(200, [b" "], hold_s=60)], repeat=True) as server:
        failing(ModelRetry(cloud(server)), request(timeout=1.0), stream=stream, kind=errors.ErrorModelTimeout)
        assert len(server.requests) == 2


# ---- what is told -------------------------------------------------------------------------------------------------


@both
def test_the_last_error_says_how_often_and_why(stream):
    script = [errors.ErrorModelRateLimit("slow down", status=429), errors.ErrorModelTimeout("slow"), BUSY]
    error = failing(Time().around(ModelScripted(script)), stream=stream, kind=errors.ErrorModelServer)
    assert str(error) == "busy; gave up after 3 attempts (429, timeout, 503)"
    assert error.attempts == 3
    assert (str(BUSY), BUSY.attempts) == ("busy", 1)  # the model's own error is left as it was


def test_an_error_that_does_not_pass_ends_the_attempts_and_says_what_came_before():
    error = failing(Time().around(ModelScripted([BUSY, errors.ErrorModelKey("no", status=401)])), kind=errors.ErrorModelKey)
    assert str(error) == "no; gave up after 2 attempts (503, 401)"


def test_the_error_pickles_and_drags_no_other_along():
    error = failing(Time().around(ModelScripted([BUSY] * 3)))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.attempts, again.status) == (str(error), 3, 503)
    assert error.__context__ is None


# ---- the layer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["A short answer.", [ToolCall("a", "f", {"x": 1}), ToolCall("b", "g", {})]], ids=["text", "calls"])
def test_the_layer_keeps_the_contract(answer):
    with ModelServer([answer], repeat=True) as server:
        asyncio.run(check_model(lambda: ModelRetry(cloud(server)), request()))


def test_one_layer_serves_many_requests_at_once_while_attempts_fail():
    luck = itertools.cycle([BUSY, BUSY, "Hello."])

    async def main() -> None:
        model = Time().around(ModelFunction(lambda _: next(luck)), attempts=50)
        answers = await asyncio.gather(*(asked(model, request(), bool(n % 2)) for n in range(20)))
        assert [answer.content for answer in answers] == ["Hello."] * 20
        assert len(model.inner.requests) == 60

    asyncio.run(main())


@both
def test_chunks_pass_through_as_they_are(stream):
    pieces = [LLMChunk(reasoning_delta="hm"), LLMChunk(delta="a"), LLMChunk(tool_call_delta={"index": 0}), LLMChunk(done=True, response=LLMResponse("a"))]

    class Plain:
        async def complete(self, question: LLMRequest) -> LLMResponse:
            return pieces[-1].response

        async def complete_stream(self, question: LLMRequest):
            for piece in pieces:
                yield piece

        async def close(self) -> None:
            pass

    async def streamed() -> list[LLMChunk]:
        return [chunk async for chunk in ModelRetry(Plain()).complete_stream(request())]

    assert ask(ModelRetry(Plain())) is pieces[-1].response
    assert [id(one) for one in asyncio.run(streamed())] == [id(piece) for piece in pieces]


def test_leaving_a_stream_early_closes_the_connection():
    with ModelServer([Raw(503, [b"{}"]), Raw(200, Raw.sse(TEXT, done=False).body, {"content-type": "text/event-stream"}, hold_s=10)]) as server:

        async def main() -> None:
            async with aclosing(Time().around(cloud(server)).complete_stream(request())) as chunks:
                await anext(chunks)

        asyncio.run(main())
        assert server.closed_early.wait(30)


def test_a_wait_can_be_cancelled(monkeypatch):
    monkeypatch.setattr("agentroute.models.retry.BASE_S", 60.0)
    monkeypatch.setattr("agentroute.models.retry.CAP_S", 60.0)

    async def main() -> None:
        model = ModelScripted([BUSY, "too late"])
        task = asyncio.create_task(ModelRetry(model, random=lambda: 1.0).complete(request()))
        while not model.requests:
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(model.requests) == 1

    asyncio.run(main())


def test_the_inner_models_attributes_show_through():
    inner = ModelCloud(model_id="m", base_url="http://127.0.0.1:1/v1", headers={"x": "y"}, context_tokens=99)
    layer = ModelRetry(inner)
    assert (layer.model_id, layer.context_tokens, layer.headers, layer.inner) == ("m", 99, {"x": "y"}, inner)
    assert isinstance(layer, Model)
    assert repr(layer) == f"ModelRetry({inner!r}, attempts=3)"
    assert copy.copy(layer).inner is inner
    with pytest.raises(AttributeError, match="no_such"):
        _ = layer.no_such
    with pytest.raises(AttributeError):
        _ = layer._key


def test_closing_the_layer_closes_the_model():
    closed = []

    class Closing(ModelScripted):
        async def close(self) -> None:
            closed.append(self)

    inner = Closing([])
    asyncio.run(ModelRetry(inner).close())
    assert closed == [inner]


@pytest.mark.parametrize(
    "options",
    [{"attempts": 0}, {"attempts": 1.5}, {"attempts": True}, {"max_wait_s": -1}, {"max_wait_s": float("nan")}, {"max_wait_s": "1"}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ErrorConfig, match=next(iter(options))):
        ModelRetry(ModelScripted([]), **options)


def test_what_is_no_model_is_refused():
    with pytest.raises(ErrorConfig, match="resolve_model"):
        ModelRetry("anthropic/claude-sonnet-4")


# ---- agents -------------------------------------------------------------------------------------------------------


def test_only_endpoints_get_retries_of_themselves():
    bare = ModelCloud(model_id="m", base_url="http://127.0.0.1:1/v1")
    layer = with_retries(bare)
    assert isinstance(layer, ModelRetry)
    assert layer.inner.inner is bare
    for other in (layer, ModelLocal("model.gguf"), ModelScripted([])):
        assert with_retries(other) is other


def test_a_model_can_opt_out():
    class Once(ModelCloud):
        retried = False

    model = Once(model_id="m", base_url="http://127.0.0.1:1/v1")
    assert with_retries(model) is model


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr("agentroute.models.retry.BASE_S", 0.0)


@both
@pytest.mark.usefixtures("hurried")
def test_an_agent_retries_its_endpoint_and_counts_every_attempt(stream):
    with ModelServer([Raw(503, [b"{}"]), EMPTY, "Hello."], usage={"cost": 0.5, "prompt_tokens": 3, "completion_tokens": 2}) as server:
        for model in (server.model, cloud(server)):
            server.requests.clear()
            events = Agent("a", model=model).stream("hi") if stream else None
            result = Agent("a", model=model).run("hi") if events is None else (list(events), events.result)[1]
            assert result.output == "Hello."
            assert (result.usage.total_cost_usd, result.usage.model_calls, result.usage.unknown_cost_calls) == (0.75, 2, 0)
            [turn] = result.record.turns
            assert (turn.cost_usd, turn.input_tokens, turn.output_tokens) == (0.75, 10, 2)
            assert (result.record.run.cost_usd, result.record.run.n_turns) == (0.75, 1)


@both
@pytest.mark.usefixtures("hurried")
def test_attempts_at_an_endpoint_that_charges_nothing_cost_nothing(stream):
    with ModelServer([Raw(200, [b'{"choices":null}'])], repeat=True) as server:
        question = request()
        assert failing(ModelRetry(cloud(server, free=True)), question, stream=stream).usage == {"cost": 0}
        assert question.failed_attempts == [{"cost": 0}]


@pytest.mark.usefixtures("hurried")
def test_attempts_of_unknown_cost_are_counted_as_such():
    unknown = errors.ErrorModelTimeout("slow", sent=True)
    model = ModelRetry(ModelScripted([unknown, BUSY, "ok"], cost_usd=0.5))
    result = Agent("a", model=model).run("hi")
    assert (result.usage.total_cost_usd, result.usage.model_calls, result.usage.unknown_cost_calls) == (0.5, 2, 1)
    failed = Agent("a", model=ModelRetry(ModelScripted([unknown] * 3)))
    with pytest.raises(errors.ErrorModelTimeout) as caught:
        failed.run("hi")
    assert (caught.value.result.usage.model_calls, caught.value.result.usage.unknown_cost_calls) == (2, 2)


@pytest.mark.usefixtures("hurried")
def test_an_attempt_of_unknown_cost_ends_a_run_with_max_cost_where_the_price_is_unknown_too():
    model = ModelRetry(ModelScripted([errors.ErrorModelTimeout("slow", sent=True), ToolCall("a", "f", {}), "never"], cost_usd=0.1))
    with pytest.raises(errors.ErrorBudget, match="unknown"):
        Agent("a", model=model, tools=[tool(name="f")(lambda: "r")], max_cost=1.0).run("go")
    assert len(model.requests) == 1


def test_what_was_paid_before_a_cancelled_wait_is_counted():
    async def main() -> None:
        waiting = asyncio.Event()

        async def sleep(seconds: float) -> None:
            waiting.set()
            await asyncio.sleep(60)

        model = ModelRetry(ModelScripted([LLMResponse(None, usage={"cost": 0.25}, finish_reason="stop")]), sleep=sleep)
        ends = []

        async def run() -> None:
            async for event in Agent("a", model=model).events("hi"):
                ends.append(event)

        task = asyncio.create_task(run())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ends[-1].result.usage.total_cost_usd == 0.25

    asyncio.run(main())


@pytest.mark.usefixtures("hurried")
def test_a_stream_left_after_a_second_attempt_has_counted_the_first():
    paid_for_nothing = LLMResponse(None, usage={"cost": 0.25}, finish_reason="stop")
    model = ModelRetry(ModelScripted([paid_for_nothing, "a long answer"], cost_usd=1.0, chunk_s=60))
    with Agent("a", model=model).stream("hi") as stream:
        for event in stream:
            if event.kind == "text_delta":
                break
    assert (stream.result.usage.total_cost_usd, stream.result.usage.unknown_cost_calls) == (0.25, 1)


@pytest.mark.usefixtures("hurried")
def test_a_tool_is_not_run_again_when_the_request_after_it_is():
    runs = []

    @tool(name="f")
    def work() -> str:
        """Works."""
        runs.append(1)
        return "done"

    with ModelServer([ToolCall("a", "f", {}), Raw(502, [b"{}"]), "Hello."]) as server:
        assert Agent("a", model=server.model, tools=[work]).run("go").output == "Hello."
        assert (len(runs), len(server.requests)) == (1, 3)
        assert server.requests[1] == server.requests[2]


@pytest.mark.usefixtures("hurried")
def test_concurrent_runs_on_one_agent_keep_their_attempts_apart():
    unlucky = iter([True, False] * 20)
    lock = threading.Lock()

    def answer(body: dict) -> object:
        with lock:
            return Raw(503, [b"{}"]) if next(unlucky) else "Hello."

    async def main() -> None:
        agent = Agent("a", model=ModelRetry(cloud(server), attempts=12))
        results = await asyncio.gather(*(agent.arun("hi") for _ in range(10)))
        assert [result.output for result in results] == ["Hello."] * 10
        assert [result.usage.model_calls for result in results] == [1] * 10

    with ModelServer([answer], repeat=True) as server:
        asyncio.run(main())
