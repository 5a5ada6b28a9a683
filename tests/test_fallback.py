"""ModelFallback: when the next model is asked, what it is sent, and what is counted."""

import asyncio
import copy
import pickle
from contextlib import aclosing

import pytest

from agentroute import (
    Agent,
    ErrorConfig,
    LLMRequest,
    LLMResponse,
    Message,
    Model,
    ModelCloud,
    ModelFallback,
    ModelRetry,
    Price,
    ToolCall,
    errors,
    tool,
)
from agentroute.models.refusals import learned
from agentroute.testing import ModelFunction, ModelScripted, check_model
from tests.server import ModelServer, Raw

KEY = "sk-secret-0123456789"
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr("agentroute.models.retry.BASE_S", 0.0)
    yield
    learned.clear()


def request(**options) -> LLMRequest:
    return LLMRequest("asked", [Message("user", "hi")], **options)


async def asked(model: Model, question: LLMRequest, stream: bool) -> LLMResponse:
    if not stream:
        return await model.complete(question)
    chunks = [chunk async for chunk in model.complete_stream(question)]
    assert "".join(chunk.delta or "" for chunk in chunks) == (chunks[-1].response.content or "")
    return chunks[-1].response


def ask(model: Model, question: LLMRequest | None = None, *, stream: bool = False) -> LLMResponse:
    return asyncio.run(asked(model, question or request(), stream))


def failing(model: Model, question: LLMRequest | None = None, *, stream: bool = False, kind=errors.ErrorAgent) -> errors.ErrorAgent:
    with pytest.raises(kind) as caught:
        ask(model, question, stream=stream)
    return caught.value


def scripted(answer, name="scripted") -> ModelScripted:
    return ModelScripted([answer] * 9, model_id=name)


FAILURES = [
    errors.ErrorModelConnection("broke", sent=True),
    errors.ErrorModelTimeout("slow", sent=True),
    errors.ErrorModelKey("no", status=401),
    errors.ErrorModelCredit("no credit", status=402),
    errors.ErrorModelRequest("no such model", status=404),
    errors.ErrorModelRequest("too long", status=400, too_long=True),
    errors.ErrorModelRateLimit("slow down", status=429),
    errors.ErrorModelServer("down", status=503),
    errors.ErrorModelResponse("unreadable", sent=True),
    errors.ErrorConfig("not set up"),
    errors.ErrorMissingPackage("x", "y", "this"),
]


@both
@pytest.mark.parametrize("failure", FAILURES, ids=lambda error: type(error).__name__)
def test_the_next_model_is_asked_when_one_fails(failure, stream):
    second = scripted("hello", "second")
    response = ask(ModelFallback([scripted(failure), second, scripted("never")]), stream=stream)
    assert (response.content, response.model) == ("hello", "second")
    assert [one.model for one in second.requests] == ["second"]


@both
def test_the_first_that_answers_is_enough(stream):
    second = scripted("never")
    assert ask(ModelFallback([scripted("hello", "first"), second]), stream=stream).model == "first"
    assert second.requests == []


@both
@pytest.mark.parametrize("error", [RuntimeError("a bug"), errors.ErrorInterrupted("stopped")])
def test_what_is_no_models_failure_ends_the_matter(error, stream):
    second = scripted("never")
    with pytest.raises(type(error)):
        ask(ModelFallback([scripted(error), second]), stream=stream)
    assert second.requests == []


def test_after_a_delta_the_next_model_is_not_asked():
    half = Raw.sse({"choices": [{"delta": {"content": "half"}}]}, {"error": {"code": 502, "message": "lost"}})
    with ModelServer([half]) as server:
        second = scripted("never")
        failing(ModelFallback([ModelCloud(model_id="m", base_url=server.base_url), second]), stream=True, kind=errors.ErrorModelServer)
        assert (second.requests, len(server.requests)) == ([], 1)


@both
def test_each_model_has_its_own_retries(stream):
    with ModelServer([Raw(503, [b"{}"])], repeat=True) as first, ModelServer([Raw(429, [b"{}"]), "hello"]) as second:
        models = [ModelCloud(model_id="m", base_url=first.base_url), second.model]
        assert ask(ModelFallback(models), stream=stream).content == "hello"
        assert (len(first.requests), len(second.requests)) == (3, 2)


@both
def test_a_long_wait_is_waited_only_where_no_other_model_is_left(stream, monkeypatch):
    monkeypatch.setattr("agentroute.models.fallback.SHORT_S", 0.0)  # so that a tenth of a second is long
    busy = Raw(429, [b"{}"], {"retry-after-ms": "100"})
    with ModelServer([busy], repeat=True) as first, ModelServer([busy, "hello"]) as second:
        models = [ModelCloud(model_id="m", base_url=first.base_url), second.model]
        assert ask(ModelFallback(models), stream=stream).content == "hello"
        assert (len(first.requests), len(second.requests)) == (1, 2)


def test_a_short_wait_is_waited_before_another_model_is_asked():
    with ModelServer([Raw(429, [b"{}"], {"retry-after-ms": "20"}), "hello"]) as first:
        second = scripted("never")
        assert ask(ModelFallback([ModelCloud(model_id="m", base_url=first.base_url), second])).content == "hello"
        assert second.requests == []


@both
def test_the_response_says_which_model_answered(stream):
    def silent(request):
        return LLMResponse("hello")

    assert ask(ModelFallback([scripted(FAILURES[0]), ModelFunction(silent, model_id="quiet")]), stream=stream).model == "quiet"
    with ModelServer(["hello"]) as server:
        result = Agent("a", model=ModelFallback([scripted(FAILURES[0], "x"), server.model])).run("hi")
    assert (result.record.turns[0].response_model, result.record.run.request_model) == ("test/model-1", f"x, {server.model}")


# ---- what is counted ----------------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "cost": 0.5}


@both
def test_failed_attempts_are_counted(stream):
    paid = Raw(200, [b'{"choices":null,"usage":{"prompt_tokens":9,"completion_tokens":4,"cost":0.5}}'])
    with ModelServer([paid, Raw(401, [b"{}"])]) as first, ModelServer(["hello"]) as second:
        question = request()
        ask(ModelFallback([first.model, second.model]), question, stream=stream)
        assert question.failed_attempts == [USAGE]  # of the empty answer; a 401 costs nothing
    with ModelServer([paid] * 2) as first, ModelServer(["hello"]) as second:
        result = Agent("a", model=ModelFallback([first.model, second.model])).run("hi")
    assert (result.usage.total_cost_usd, result.usage.model_calls) == (1.001, 3)


@both
def test_when_none_answers_everything_is_counted_once(stream):
    question = request()
    first, last = errors.ErrorModelServer("down", status=500, sent=True, usage=USAGE), errors.ErrorModelServer("down", status=500, sent=True, usage={"cost": 0.1})
    error = failing(ModelFallback([scripted(first), scripted(last)]), question, stream=stream)
    assert [*question.failed_attempts, error.usage] == [USAGE, {"cost": 0.1}]
    question = request()
    long = errors.ErrorModelRequest("too long", too_long=True, sent=True, usage=USAGE)
    error = failing(ModelFallback([scripted(long), scripted(last)]), question, stream=stream)
    assert (error.too_long, error.sent, error.usage, question.failed_attempts) == (True, False, {}, [USAGE, {"cost": 0.1}])


# ---- the error ----------------------------------------------------------------------------------------------------


@both
def test_when_none_answers_the_error_tells_of_all(stream):
    first, last = errors.ErrorModelServer("it is down", status=503), errors.ErrorModelRateLimit("slow down", status=429, retry_after_s=7.0)
    error = failing(ModelFallback([scripted(first, "one"), scripted(last, "two")]), stream=stream, kind=errors.ErrorModelRateLimit)
    assert str(error) == "slow down; no other model answered either: one: it is down"
    assert (error.status, error.retry_after_s, error.__context__, str(last)) == (429, 7.0, None, "slow down")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_one_model_fails_in_its_own_words():
    assert str(failing(ModelFallback([scripted(FAILURES[2])]))) == "no"


@pytest.mark.parametrize(
    ("failures", "chosen"),
    [
        ([FAILURES[5], FAILURES[7]], errors.ErrorModelRequest),
        ([FAILURES[7], errors.ErrorConfig("no key")], errors.ErrorModelServer),
        ([errors.ErrorConfig("no key"), FAILURES[6]], errors.ErrorModelRateLimit),
        ([errors.ErrorConfig("no key"), errors.ErrorConfig("none here")], errors.ErrorConfig),
        ([errors.ErrorConfig("no key"), errors.ErrorMissingPackage("x", "y", "z")], errors.ErrorMissingPackage),
    ],
)
def test_the_error_raised_is_the_one_to_do_something_about(failures, chosen):
    error = failing(ModelFallback([scripted(failure) for failure in failures]))
    assert type(error) is chosen
    assert all(str(failure) in str(error) for failure in failures)


def test_a_conversation_too_long_for_all_is_cut_by_the_history_policy():
    from agentroute import HistoryTruncate, Memory

    def short(body):
        too_long = Raw(400, [b'{"error":{"code":"context_length_exceeded","message":"maximum context length is 500 tokens, you sent 1000 tokens"}}'])
        return "hello" if len(str(body)) < 4000 else too_long

    with ModelServer([short], repeat=True) as first, ModelServer([Raw(401, [b"{}"])], repeat=True) as second:
        memory = Memory()
        asyncio.run(memory.add_messages([Message(role, "x" * 1500) for _ in range(3) for role in ("user", "assistant")]))
        agent = Agent("a", model=ModelFallback([first.model, second.model]), memory=memory, history=HistoryTruncate(100_000))
        assert agent.run("hi").output == "hello"


def test_no_error_shows_a_key():
    refused = Raw(401, [f'{{"error":{{"message":"no such key {KEY}"}}}}'.encode()])
    with ModelServer([refused]) as first, ModelServer([refused]) as second:
        models = [ModelCloud(model_id="m", base_url=server.base_url, api_key=KEY) for server in (first, second)]
        fallback = ModelFallback([*models, "http://me:hunter2@127.0.0.1:1/v1/m"], api_key=KEY)
        error = failing(fallback, kind=errors.ErrorModel)
    assert not [word for word in (KEY, "hunter2") if word in f"{error} {error!r} {vars(error)} {fallback!r} {fallback.model_id}"]
    assert KEY not in str(vars(fallback))


# ---- model strings ------------------------------------------------------------------------------------------------


def test_strings_become_models_when_they_are_asked():
    fallback = ModelFallback(["anthropic/claude-sonnet-4", "local/nosuchmodel.gguf"])  # no key, no file: no error yet
    assert fallback.model_id == "anthropic/claude-sonnet-4, local/nosuchmodel.gguf"
    error = failing(fallback, kind=ErrorConfig)
    assert "AGENTROUTE_API_KEY" in str(error) and "nosuchmodel" in str(error)


@both
def test_a_model_without_a_key_is_passed_over(stream):
    with ModelServer(["hello"], repeat=True) as server:
        assert ask(ModelFallback(["openai/gpt-5", server.model]), stream=stream).content == "hello"


def test_the_agent_takes_it_as_a_model():
    with ModelServer([Raw(500, [b"{}"])], repeat=True) as first, ModelServer([ToolCall("1", "f", {}), "done"]) as second:
        agent = Agent("a", model=ModelFallback([first.model, second.model]), tools=[tool(name="f")(lambda: "r")])
        assert list(agent.stream("go"))[-1].result.output == "done"
        assert [body["model"] for body in second.requests] == ["test-model"] * 2


def test_the_key_goes_with_the_strings():
    with ModelServer(["hello"]) as server:
        ask(ModelFallback(["m"], base_url=server.base_url, api_key=KEY))
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("models", [[], (), "openai/gpt-5", None, 7, [""], [" "], [None], [7], [ModelScripted], {"a"}])
def test_what_is_no_list_of_models_is_refused(models):
    with pytest.raises(ErrorConfig, match="ModelFallback"):
        ModelFallback(models)


# ---- the switch ---------------------------------------------------------------------------------------------------


@both
def test_reasoning_signed_by_another_family_is_dropped_when_the_model_switches(stream):
    details = [{"type": "reasoning.encrypted", "data": "b3BhcXVl", "format": "anthropic-claude-v1", "index": 0}]
    call = ToolCall("c1", "f", {}).to_wire()
    delta = {"tool_calls": [{"index": 0, **call}], "reasoning_details": details, "reasoning": "hm"}
    events = Raw.sse({"choices": [{"delta": delta}]}, {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})

    def claude(body):
        return events if len(body["messages"]) == 1 else Raw(503, [b"{}"])

    with ModelServer([claude], repeat=True) as first, ModelServer(["done"]) as second:
        ids = {"anthropic/claude-sonnet-4": first, "openai/gpt-5": second}
        models = [ModelCloud(model_id=name, base_url=server.base_url, kind="openrouter") for name, server in ids.items()]
        agent = Agent("a", model=ModelFallback(models), tools=[tool(name="f")(lambda: "r")])
        result = list(agent.stream("go"))[-1].result if stream else agent.run("go")
        assert result.output == "done"
        assert first.requests[1]["messages"][1]["reasoning_details"] == details
        assert "reasoning_details" not in second.requests[0]["messages"][1]
        assert second.requests[0]["messages"][1]["tool_calls"][0]["id"] == "c1"


# ---- a layer like any other ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["A short answer.", [ToolCall("a", "f", {"x": 1}), ToolCall("b", "g", {})]], ids=["text", "calls"])
def test_the_layer_keeps_the_contract(answer):
    asyncio.run(check_model(lambda: ModelFallback([scripted(FAILURES[0]), scripted(answer)]), request()))
    with ModelServer([Raw(400, [b"{}"])], repeat=True) as first, ModelServer([answer], repeat=True) as second:
        asyncio.run(check_model(lambda: ModelFallback([first.model, second.model]), request()))


def test_a_fallback_in_a_retry_and_a_retry_in_a_fallback():
    inner = ModelRetry(ModelScripted([FAILURES[7], "hello"]))
    assert ask(ModelFallback([scripted(FAILURES[2]), inner])).content == "hello"
    assert ask(ModelRetry(ModelFallback([ModelScripted([FAILURES[7], "hello"]), scripted(FAILURES[7])]))).content == "hello"


def test_leaving_a_stream_early_closes_the_connection():
    events = Raw.sse({"choices": [{"delta": {"content": "one"}}]}, done=False)
    events.hold_s = 10
    with ModelServer([events]) as server:

        async def leave() -> None:
            async with aclosing(ModelFallback([scripted(FAILURES[0]), server.model]).complete_stream(request())) as stream:
                await anext(stream)

        asyncio.run(leave())
        assert server.closed_early.wait(30)


def test_a_cancelled_request_asks_no_other_model():
    second = scripted("never")
    with ModelServer([Raw(200, [b" "], hold_s=10)]) as server:

        async def cancel() -> None:
            task = asyncio.create_task(ModelFallback([server.model, second]).complete(request()))
            while not server.requests:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancel())
    assert second.requests == []


def test_closing_closes_what_was_made():
    closed = []

    class Closing(ModelScripted):
        async def close(self) -> None:
            closed.append(self.model_id)

    fallback = ModelFallback([Closing(["x"], model_id="one"), "openai/gpt-5", Closing(["x"], model_id="two")])
    asyncio.run(fallback.close())
    assert closed == ["one", "two"]


def test_the_smallest_known_context_is_that_of_all():
    def cloud(tokens):
        return ModelCloud(model_id="m", base_url="http://127.0.0.1:1", context_tokens=tokens)

    assert ModelFallback([cloud(8000), cloud(4000), cloud(None), "openai/gpt-5"]).context_tokens == 4000
    assert ModelFallback([scripted("x"), "openai/gpt-5"]).context_tokens is None


def test_a_copy_and_a_half_made_one_can_be_shown():
    fallback = ModelFallback([scripted("x"), "openai/gpt-5"])
    assert repr(copy.deepcopy(fallback)) == repr(copy.copy(fallback)) == repr(fallback) == "ModelFallback([ModelScripted('scripted'), 'openai/gpt-5'])"
    assert repr(ModelFallback.__new__(ModelFallback)) == "ModelFallback([])"


def test_where_one_model_is_too_dear_for_the_budget_a_free_one_is_asked():
    dear = ModelFunction(lambda request: "never")
    dear.price = Price(1_000, 1_000)
    free = ModelFunction(lambda request: "hello")
    free.free = True
    result = Agent("a", model=ModelFallback([dear, free]), max_cost=0.01).run("hi")
    assert (result.output, dear.requests) == ("hello", [])

