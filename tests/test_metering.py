"""What a budget reckons with: everything that is sent, whoever asks, and however the answer gets lost."""

import asyncio
import contextvars
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

import agentroute
from agentroute import (
    Agent,
    ErrorBudget,
    ErrorConfig,
    Memory,
    Message,
    ModelCloud,
    ModelFallback,
    ModelRetry,
    Price,
    ToolCall,
    budgets,
    metering,
)
from agentroute.errors import ErrorModelConnection, ErrorModelRequest, ErrorModelServer
from agentroute.models.prompted_tools import ModelPromptedTools
from agentroute.testing import ModelFunction, ModelScripted
from tests.server import ModelServer, Raw, completion

PRICE = Price(3, 15)


class Ledger:
    """An endpoint that bills a token for each byte it is sent, and the longest answer it was allowed, times `n`."""

    def __init__(self, *answers: Any, uncapped: int = 100_000) -> None:
        self.billed = Decimal(0)
        self.bodies: list[dict[str, Any]] = []
        self.answers, self.uncapped = list(answers) or ["hello"], uncapped

    def answer(self, body: dict[str, Any]) -> Any:
        self.bodies.append(body)
        prompt = len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())
        cap = body.get("max_tokens") or body.get("max_completion_tokens") or self.uncapped
        output = cap * (body.get("n") or 1)
        self.billed += PRICE.cost(prompt, output)
        says = self.answers[min(len(self.bodies), len(self.answers)) - 1]
        whole = completion("" if isinstance(says, dict) else says, {"prompt_tokens": prompt, "completion_tokens": output})
        if isinstance(says, dict):
            whole["choices"] = [{"message": says, "finish_reason": "tool_calls"}]
        return Raw(body=[json.dumps(whole).encode()])


def spent(ledger: Ledger, prompt: Any = "hi", **options: Any) -> Decimal:
    """What a run is billed, whatever becomes of it."""
    with ModelServer([ledger.answer], repeat=True) as server:
        model = ModelCloud(model_id="m", base_url=server.base_url, kind=options.pop("kind", None))
        try:
            Agent("a", model=model, price=PRICE, **options).run(prompt)
        except agentroute.ErrorAgent:
            pass
    return ledger.billed


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr("agentroute.models.retry.BASE_S", 0.0)
    monkeypatch.setattr(metering, "_caps", {})


WIDE = [{"type": "function", "function": {"name": f"t{n}", "description": "x" * 200, "parameters": {"type": "object"}}} for n in range(40)]


@pytest.mark.filterwarnings("ignore:the answer was cut:RuntimeWarning")
@pytest.mark.parametrize(
    "extra",
    [
        {"max_tokens": 100_000}, {"max_completion_tokens": 100_000}, {"max_tokens": None}, {"n": 4}, {"tools": WIDE}, {"stop": ["x" * 9_000]},
        {"messages": [{"role": "user", "content": "x" * 20_000}]},
    ],
    ids=lambda extra: next(iter(extra)),
)  # fmt: skip
def test_what_extra_holds_is_reckoned_with(extra):
    assert spent(Ledger(), max_cost=0.02, extra=extra) <= Decimal("0.02")


@pytest.mark.parametrize("extra", [{"models": ["a", "b"]}, {"plugins": [{"id": "web"}]}, {"web_search_options": {}, "service_tier": "priority"}])
def test_what_cannot_be_reckoned_is_refused_under_a_budget_and_not_without(extra):
    assert spent(Ledger(), extra=extra) > 0
    with ModelServer(["hi"]) as server, pytest.raises(ErrorConfig, match="under max_cost or a budget extra"):
        Agent("a", model=server.model, price=PRICE, max_cost=1.0, extra=extra).run("hi")


def test_a_file_given_by_its_address_is_refused_under_a_budget():
    part = {"type": "file", "file": {"file_data": "https://example.org/book.pdf"}}
    with ModelServer(["hi"]) as server, pytest.raises(ErrorConfig, match="a file cannot be given by its address"):
        Agent("a", model=server.model, price=PRICE, max_cost=1.0).run(["Sum this up.", part])


@pytest.mark.filterwarnings("ignore:the answer was cut:RuntimeWarning")
@pytest.mark.parametrize("kind", ["unknown", "gemini", "openai", "mistral"])
@pytest.mark.parametrize("mode", ["tool", "native", "prompted"])
def test_schemas_are_reckoned_with_as_they_are_sent(kind, mode):
    from pydantic import BaseModel, Field

    inner: Any = str
    for depth in range(4):
        inner = type(f"Level{depth}", (BaseModel,), {"__annotations__": dict.fromkeys("abc", inner), "a": Field(description="x" * 50)})
    assert spent(Ledger(), max_cost=0.03, output=inner, output_mode=mode, kind=kind) <= Decimal("0.03")


@pytest.mark.filterwarnings("ignore:the answer was cut:RuntimeWarning")
def test_what_is_echoed_with_a_tool_call_is_reckoned_with():
    call = {**ToolCall("1", "f", {}).to_wire(), "extra_content": {"google": {"thought_signature": "s" * 12_000}}}
    ledger = Ledger({"role": "assistant", "content": None, "tool_calls": [call]}, "done")
    assert spent(ledger, max_cost=0.05, tools=[agentroute.tool(name="f")(lambda: "r")], max_tokens=500) <= Decimal("0.05")


class Counting(ModelFunction):
    """A model that counts each character of the texts it is sent as so many tokens, and bills the whole cap."""

    def __init__(self, tokens_a_character: float, function: Any) -> None:
        super().__init__(function)
        self.rate, self.price, self.billed = tokens_a_character, PRICE, Decimal(0)

    def _response(self, request: Any, answer: Any) -> Any:
        response = super()._response(request, answer)
        prompt = int(sum(len(message.text) for message in request.messages) * self.rate)
        output = request.max_tokens or 100_000
        self.billed += PRICE.cost(prompt, output)
        response.usage = {"prompt_tokens": prompt, "completion_tokens": output}
        return response


@pytest.mark.filterwarnings("ignore:the answer was cut:RuntimeWarning")
def test_one_models_count_is_no_bound_for_another():
    replies = iter([ToolCall("1", "f", {}), ErrorModelServer("down", status=503)])
    first, second = Counting(0.1, lambda request: next(replies)), Counting(1.0, lambda request: "done")
    agent = Agent("a", model=ModelFallback([first, second]), tools=[agentroute.tool(name="f")(lambda: "r")], max_cost=0.1, max_tokens=500)
    with pytest.raises(agentroute.ErrorAgent):
        agent.run("x" * 30_000)
    assert first.billed + second.billed <= Decimal("0.1")


@pytest.mark.filterwarnings("ignore:the answer was cut:RuntimeWarning")
def test_a_message_that_a_policy_has_changed_counts_as_it_is_now():
    class Growing:
        async def compact(self, messages):
            messages[0].content += "x" * 20_000
            return messages

    model = Counting(1.0, lambda request: ToolCall("1", "f", {}))
    agent = Agent("a", model=model, tools=[agentroute.tool(name="f")(lambda: "r")], history=Growing(), max_cost=0.2, max_tokens=300)
    with pytest.raises(ErrorBudget):
        agent.run("go")
    assert 0 < model.billed <= Decimal("0.2")


# ---- layers -----------------------------------------------------------------------------------------------------


class Logged:
    """A user's own wrapper, which knows nothing of `is_layer`."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def complete(self, request):
        return await self.inner.complete(request)

    def complete_stream(self, request):
        return self.inner.complete_stream(request)

    async def close(self):
        await self.inner.close()


@pytest.mark.parametrize(
    "around",
    [
        lambda model: Logged(ModelRetry(model)),
        lambda model: ModelPromptedTools(ModelRetry(model)),
        lambda model: Logged(ModelFallback([model])),
        lambda model: ModelRetry(Logged(Logged(model))),
    ],
    ids=["logged retry", "prompted retry", "logged fallback", "retry of logged"],
)
def test_however_models_are_wrapped_a_call_is_reserved_and_counted_once(around):
    model = Counting(1.0, lambda request: "hello")
    with agentroute.budget(0.05) as total:
        result = Agent("a", model=around(model), price=PRICE, max_tokens=500).run("hi")
    assert (len(model.requests), result.usage.total_cost_usd) == (1, float(model.billed))
    assert (total.spent, total.reserved, total.uncertain) == (float(model.billed), 0.0, 0.0)


# ---- where no price is known ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 0.5])
def test_parallel_runs_of_unknown_price_begin_one_at_a_time(limit):
    model = ModelFunction(lambda request: "hi", cost_usd=0.3)

    async def main() -> list[Any]:
        with agentroute.budget(limit):
            return await asyncio.gather(*(Agent("a", model=model).arun("go") for _ in range(20)), return_exceptions=True)

    outcomes = asyncio.run(main())
    assert len(model.requests) <= 2
    assert {type(outcome) for outcome in outcomes} <= {ErrorBudget, agentroute.Result}


def test_a_budget_of_nothing_is_passed_once_at_most():
    model = ModelFunction(lambda request: "hi", cost_usd=0.3)
    with agentroute.budget(0):
        for _ in range(5):
            with pytest.raises(ErrorBudget):
                Agent("a", model=model).run("go")
    assert len(model.requests) == 1


def test_a_stream_that_is_left_counts_the_dearest_call_so_far_where_the_price_is_unknown():
    model = ModelFunction(lambda request: "x" * 100, cost_usd=0.3, chunk_s=0.01)
    with agentroute.budget(5.0) as total:
        Agent("a", model=model).run("go")
        for event in Agent("a", model=model).stream("go"):
            if event.kind == "text_delta":
                break
        Agent("a", model=model).run("go")
    assert (total.spent, total.uncertain) == (pytest.approx(0.6), pytest.approx(0.3))


def test_a_free_model_goes_on_when_a_budget_is_used_up():
    free = ModelFunction(lambda request: "hi")
    free.free = True
    with agentroute.budget(0.3) as total:
        with pytest.raises(ErrorBudget):
            Agent("a", model=ModelFunction(lambda request: "hi", cost_usd=0.4)).run("go")
        assert Agent("b", model=free).run("go").output == "hi"
    assert total.spent == pytest.approx(0.4)


# ---- waiting ----------------------------------------------------------------------------------------------------


def test_a_call_does_not_wait_for_reserves_that_cannot_help_it():
    slow = ModelFunction(lambda request: "slow", delay_s=30)

    async def main() -> float:
        with agentroute.budget(100):
            running = asyncio.create_task(Agent("slow", model=slow, price=PRICE).arun("go"))
            while not slow.requests:
                await asyncio.sleep(0.001)
            began = time.monotonic()
            await Agent("a", model=ModelFunction(lambda request: "hi"), price=PRICE, max_cost=0.03).arun("go")
            with pytest.raises(ErrorBudget):
                await Agent("b", model=ModelFunction(lambda request: "hi"), price=PRICE, max_cost=0.0001).arun("go")
            took = time.monotonic() - began
            running.cancel()
            await asyncio.wait([running])
        return took

    assert asyncio.run(main()) < 20


def test_many_slow_runs_share_a_modest_budget_without_one_being_refused():
    model = ModelFunction(lambda request: "hi", delay_s=0.02)
    model.price = PRICE

    async def main() -> list[Any]:
        with agentroute.budget(0.5):
            return await asyncio.gather(*(Agent("a", model=model).arun("go") for _ in range(60)), return_exceptions=True)

    outcomes = asyncio.run(main())
    assert [str(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == []


def test_a_call_that_was_cancelled_while_it_waited_was_not_made():
    async def main() -> Any:
        with agentroute.budget(0.06) as total:
            holding = await budgets.reserve([total], lambda left, others: left, Decimal(0))
            task = asyncio.create_task(_last(Agent("a", model=ModelFunction(lambda request: "hi"), price=PRICE, max_tokens=500)))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.wait([task])
            holding.settle(Decimal(0))
        return total

    total = asyncio.run(main())
    assert (total.uncertain, total.reserved) == (0.0, 0.0)
    assert ENDS[-1].usage.model_calls == 0


ENDS: list[Any] = []


async def _last(agent: Agent) -> None:
    async for event in agent.events("go"):
        if event.kind == "agent_end":
            ENDS.append(event.result)


# ---- the cap ----------------------------------------------------------------------------------------------------


def picky(most: int, words: str) -> Any:
    """An endpoint that refuses an answer's cap above `most`."""

    def answer(body: dict[str, Any]) -> Any:
        cap = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        if cap > most:
            return Raw(400, [json.dumps({"error": {"message": words.format(cap=cap, most=most), "code": 400}}).encode()])
        return "hello"

    return answer


@pytest.mark.filterwarnings("ignore:the answer was cut:RuntimeWarning")
@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is {most} tokens, and {cap} are asked for in the completion",
        "max_tokens is too large: {cap}. This model supports at most {most} completion tokens",
        "Invalid max_tokens value, the valid range of max_tokens is [1, {most}]",
    ],
)
def test_a_cap_that_only_a_budget_has_set_is_lowered_where_it_is_too_large(words):
    with ModelServer([picky(4_096, words)], repeat=True) as server:
        model = ModelCloud(model_id="m", base_url=server.base_url)
        assert Agent("a", model=model, price=PRICE, max_cost=1.0).run("hi").output == "hello"
        asked = len(server.requests)
        Agent("b", model=model, price=PRICE, max_cost=1.0).run("hi")
        assert len(server.requests) == asked + 1
        assert "max_completion_tokens" not in server.requests[-1]


def test_a_cap_of_the_users_own_is_not_changed():
    with ModelServer([picky(4_096, "max_tokens is too large: {cap}")], repeat=True) as server, pytest.raises(ErrorModelRequest):
        Agent("a", model=server.model, price=PRICE, max_cost=1.0, max_tokens=9_000).run("hi")
    assert {body.get("max_tokens") for body in server.requests} == {9_000}


def test_a_known_context_bounds_the_cap():
    with ModelServer(["hello"]) as server:
        model = ModelCloud(model_id="m", base_url=server.base_url, context_tokens=8_192)
        Agent("a", model=model, price=PRICE, max_cost=10.0).run("hi")
    assert server.requests[0]["max_tokens"] < 8_192


def test_a_free_model_gets_no_cap():
    with ModelServer(["hello"]) as server:
        Agent("a", model=server.model, price=Price(0, 0), max_cost=0).run("hi")
    assert "max_tokens" not in server.requests[0]


# ---- where budgets hold -----------------------------------------------------------------------------------------


def test_one_budget_may_be_entered_by_tasks_and_threads_at_once():
    total = agentroute.budget(1.0)

    async def task(first: bool) -> None:
        with total:
            await asyncio.sleep(0.01 if first else 0.02)
            Agent("a", model=ModelFunction(lambda request: "hi", cost_usd=0.1))

    async def main() -> None:
        await asyncio.gather(task(True), task(False))

    asyncio.run(main())
    errors: list[BaseException] = []

    def thread() -> None:
        try:
            with total:
                time.sleep(0.01)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert errors == []
    assert budgets.active_budgets() == ()


def test_a_stream_falls_under_the_budgets_it_was_made_under():
    model = ModelFunction(lambda request: "hi", cost_usd=0.1)
    with agentroute.budget(1.0) as total:
        stream = Agent("a", model=model).stream("go")
    list(stream)
    assert total.spent == pytest.approx(0.1)


def test_a_pool_of_threads_takes_the_budget_along_with_its_context():
    model = ModelFunction(lambda request: "hi", cost_usd=0.1)
    agent = Agent("a", model=model)
    with agentroute.budget(1.0) as total, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda context: context.run(agent.run, "go"), [contextvars.copy_context() for _ in range(3)]))
    assert total.spent == pytest.approx(0.3)


def test_runs_of_a_memory_are_part_of_the_run_it_serves():
    clerk = Agent("clerk", model=ModelFunction(lambda request: "noted", cost_usd=0.2))

    class Noting(Memory):
        async def get_messages(self, limit=None):
            await clerk.arun("what did we say?")
            return await super().get_messages(limit)

    model = ModelFunction(lambda request: "hi", cost_usd=0.01)
    with pytest.raises(ErrorBudget) as caught:
        Agent("a", model=model, memory=Noting(), max_cost=0.1).run("go")
    assert (caught.value.result.usage.total_cost_usd, model.requests) == (pytest.approx(0.2), [])


def test_an_error_after_the_first_words_may_be_charged_for():
    class Breaking(ModelFunction):
        async def complete_stream(self, request):
            yield agentroute.LLMChunk(delta="half")
            raise ErrorModelConnection("broke")

    with agentroute.budget(1.0) as total, pytest.raises(ErrorModelConnection) as caught:
        list(Agent("a", model=Breaking(lambda request: "never"), price=PRICE, max_tokens=500).stream("go"))
    assert total.uncertain > 0
    assert caught.value.result.usage.unknown_cost_calls == 1


def test_a_conversation_with_a_memory_pays_for_what_is_remembered():
    memory = Memory()
    asyncio.run(memory.add_messages([Message("user", "x" * 50_000), Message("assistant", "ok")]))
    model = Counting(1.0, lambda request: "hello")
    with pytest.raises(ErrorBudget, match=r"may cost up to \$0.15"):
        Agent("a", model=model, memory=memory, max_cost=0.1).run("go")
    assert model.requests == []


def test_scripted_answers_need_no_price():
    assert Agent("a", model=ModelScripted(["hi"]), max_cost=1.0).run("go").output == "hi"


def test_tools_and_schemas_are_part_of_the_bound_for_any_model():
    plain = agentroute.LLMRequest("m", [Message("user", "hi")])
    wide = agentroute.LLMRequest("m", [Message("user", "hi")], tools=WIDE, response_format={"x": "y" * 5_000})
    assert metering.prompt_tokens_at_most(wide) - metering.prompt_tokens_at_most(plain) > len(json.dumps(WIDE)) + 5_000


def test_several_answers_are_reserved_several_times():
    model = ModelFunction(lambda request: "x" * 40, chunk_s=0.01)
    with agentroute.budget(10.0) as total:
        for event in Agent("a", model=model, price=PRICE, max_tokens=1_000, extra={"n": 4}).stream("go"):
            if event.kind == "text_delta":
                reserved = total.reserved
                break
    assert reserved >= float(PRICE.cost(0, 4_000))
