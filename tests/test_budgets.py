"""The ceiling: what calls reserve, when they are refused or wait, what is counted, and that nothing passes a limit."""

import asyncio
import json
import random
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

import agentroute
from agentroute import (
    Agent,
    Budget,
    ErrorBudget,
    ErrorConfig,
    LLMRequest,
    LLMResponse,
    Message,
    ModelFallback,
    ModelRetry,
    Price,
    ToolCall,
    budgets,
)
from agentroute.budgets import reserve
from agentroute.errors import ErrorModelServer, ErrorModelTimeout, ErrorTruncated
from agentroute.metering import prompt_tokens_at_most
from agentroute.models import retry
from agentroute.models.base import fold
from agentroute.testing import ModelFunction, ModelScripted

DEAR = Price(input_usd_per_mtok=10, output_usd_per_mtok=100)


class Shop:
    """A model of a known price that bills what it does: also for answers that get lost, and never more than was asked for."""

    model_id = "shop"

    def __init__(self, price: Price, answers: object = None, *, completion: int = 100) -> None:
        self.price = price
        self.billed = Decimal(0)
        self.requests: list[LLMRequest] = []
        self.completion = completion
        self.answers = answers

    async def complete(self, request: LLMRequest) -> LLMResponse:
        return await fold(self, request)

    async def complete_stream(self, request: LLMRequest):
        self.requests.append(request)
        await asyncio.sleep(0)
        prompt, completion = self.bill(request)
        self.billed += self.price.cost(prompt, completion)
        answer = self.answers(request) if callable(self.answers) else "hello"
        if isinstance(answer, Exception):
            raise answer
        calls = [answer.to_wire()] if isinstance(answer, ToolCall) else []
        finish = "tool_calls" if calls else "length" if completion < self.completion else "stop"
        usage = {"prompt_tokens": prompt, "completion_tokens": completion}
        response = LLMResponse(None if calls else str(answer), calls, usage, "shop", finish)
        if response.content:
            yield agentroute.LLMChunk(delta=response.content)
        yield agentroute.LLMChunk(done=True, response=response)

    def bill(self, request: LLMRequest) -> tuple[int, int]:
        """Tokens of prompt and answer."""
        prompt = sum(len(message.text) for message in request.messages) // 2
        return prompt, min(self.completion, request.max_tokens or self.completion)

    async def close(self) -> None:
        pass


# ---- before a call ----------------------------------------------------------------------------------------------


def test_a_call_that_could_pass_the_limit_is_not_made():
    shop = Shop(DEAR)
    with pytest.raises(ErrorBudget, match=r"another model call may cost up to \$0.0263, and \$0.0010 is left; raise the limit, set max_tokens") as caught:
        Agent("a", model=shop, max_cost=0.001).run("go")
    assert (shop.requests, caught.value.spent, caught.value.limit) == ([], 0.0, 0.001)
    assert caught.value.result.record.turns == []
    assert caught.value.result.record.run.n_turns == 0


def test_a_call_of_unknown_price_is_not_said_to_cost_nothing():
    with pytest.raises(ErrorBudget, match=r"another model call has a price that nobody knows, and \$0.0015 is left"):
        asyncio.run(reserve([Budget(0.0015)], lambda left, others: None, Decimal(0)))


def test_the_answer_is_capped_to_what_is_left():
    shop = Shop(DEAR)
    Agent("a", model=shop, max_cost=0.1, max_tokens=5_000).run("go")
    (cap,) = [request.max_tokens for request in shop.requests]
    assert 900 < cap < 1_000


def test_a_limit_of_the_users_own_stays_where_there_is_room():
    shop = Shop(DEAR)
    Agent("a", model=shop, max_cost=1.0, max_tokens=500).run("go")
    assert shop.requests[0].max_tokens == 500


def test_without_a_limit_no_cap_is_sent():
    shop = Shop(DEAR)
    Agent("a", model=shop).run("go")
    assert shop.requests[0].max_tokens is None


def test_an_answer_that_was_cut_for_the_budget_says_so():
    shop = Shop(DEAR, completion=5_000)
    with pytest.warns(RuntimeWarning, match=r"the answer was cut at \d+ tokens, the cap that came with its budget; raise the limit, or set max_tokens"):
        assert Agent("a", model=shop, max_cost=0.1).run("go").output == "hello"


def test_a_typed_answer_that_was_cut_for_the_budget_is_an_error_that_says_so():
    shop = Shop(DEAR, completion=5_000)
    with pytest.raises(ErrorTruncated, match=r"cut off at \d+ tokens, the cap that came with its budget, and is not used; raise the limit"):
        Agent("a", model=shop, max_cost=0.1, output=int).run("go")


def test_what_a_call_has_cost_takes_the_place_of_its_reserve():
    with agentroute.budget(1.0) as total:
        Agent("a", model=Shop(DEAR)).run("go")
    assert (total.spent, total.reserved, total.uncertain) == (0.01001, 0.0, 0.0)
    assert total.left == pytest.approx(0.98999)


def test_a_free_model_needs_no_room():
    model = Shop(Price(0, 0))
    assert Agent("a", model=model, max_cost=0).run("go").usage.cost_usd == 0


def test_the_cost_that_was_reckoned_stands_in_the_usage():
    result = Agent("a", model=Shop(DEAR), max_cost=1.0).run("go")
    assert (result.usage.total_cost_usd, result.record.turns[0].cost_source) == (0.01001, "given")


# ---- outcomes nobody knows --------------------------------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(retry, "BASE_S", 0.0)


@pytest.mark.usefixtures("hurried")
def test_a_lost_answer_keeps_its_reserve_and_the_next_attempt_has_its_own():
    replies = iter([ErrorModelTimeout("lost", sent=True), "here"])
    shop = Shop(DEAR, lambda request: next(replies))
    with agentroute.budget(10.0) as total:
        result = Agent("a", model=ModelRetry(shop), max_tokens=1_000).run("go")
    assert (len(shop.requests), result.output, result.usage.unknown_cost_calls) == (2, "here", 1)
    assert total.uncertain > 0.1
    assert total.spent == 0.01001
    assert total.spent + total.uncertain >= shop.billed


@pytest.mark.usefixtures("hurried")
def test_a_request_that_was_turned_away_costs_nothing():
    replies = iter([ErrorModelServer("no", status=503), "here"])
    shop = Shop(DEAR, lambda request: next(replies))
    with agentroute.budget(10.0) as total:
        Agent("a", model=ModelRetry(shop)).run("go")
    assert (total.uncertain, total.spent) == (0.0, 0.01001)


def test_a_cancelled_call_keeps_its_reserve():
    async def main() -> Budget:
        with agentroute.budget(10.0) as total:
            task = asyncio.create_task(Agent("a", model=ModelFunction(lambda r: "x", delay_s=30), price=DEAR).arun("go"))
            while not total.reserved:
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
        return total

    total = asyncio.run(main())
    assert total.reserved == 0
    assert total.uncertain > 0


def test_a_stream_that_is_left_keeps_its_reserve():
    with agentroute.budget(10.0) as total:
        for _ in Agent("a", model=ModelFunction(lambda r: "x" * 100, chunk_s=0.01), price=DEAR).stream("go"):
            if total.reserved:
                break
    assert total.reserved == 0
    assert total.uncertain > 0


# ---- where no price is known ------------------------------------------------------------------------------------


def test_the_reported_cost_counts_where_no_price_is_known():
    model = ModelScripted([ToolCall(str(n), "f", {}) for n in range(9)], cost_usd=0.2)
    with pytest.raises(ErrorBudget) as caught:
        Agent("a", model=model, tools=[agentroute.tool(name="f")(lambda: "r")], max_cost=0.5).run("go")
    assert (len(model.requests), caught.value.spent) == (3, pytest.approx(0.6))


def test_where_nobody_reports_a_cost_the_error_says_how_to_give_a_price():
    model = ModelScripted([ToolCall("1", "f", {}), "never"], cost_usd=None)
    with pytest.raises(ErrorBudget, match=r"price=agentroute.Price\(input_usd_per_mtok=…, output_usd_per_mtok=…\)"):
        Agent("a", model=model, tools=[agentroute.tool(name="f")(lambda: "r")], max_cost=0.5).run("go")
    assert len(model.requests) == 1


# ---- budgets that runs share ------------------------------------------------------------------------------------


def test_runs_inside_share_a_budget_and_runs_outside_do_not():
    agent = Agent("a", model=Shop(DEAR))
    with agentroute.budget(1.0) as total:
        agent.run("go")
        agent.run("go")
    agent.run("go")
    assert total.spent == 0.02002


def test_an_exhausted_budget_stops_the_next_run_before_its_first_request():
    shop = Shop(DEAR)
    with agentroute.budget(0.05), pytest.raises(ErrorBudget, match=r"of budget=\$0.0500"):
        for _ in range(9):
            Agent("a", model=shop).run("go")
    assert 0 < shop.billed <= Decimal("0.05")


def test_budgets_nest_and_the_tighter_one_holds():
    shop = Shop(DEAR)
    with agentroute.budget(1.0) as outer, agentroute.budget(0.001), pytest.raises(ErrorBudget):
        Agent("a", model=shop).run("go")
    assert (outer.spent, shop.requests) == (0.0, [])


def test_a_budget_of_the_process_holds_in_every_thread():
    shop = Shop(DEAR)
    total = agentroute.set_budget(0.05)
    try:
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(lambda n: _outcome(lambda: Agent("a", model=shop, max_tokens=300).run("go")), range(12)))
    finally:
        agentroute.set_budget(None)
    assert shop.billed <= Decimal("0.05")
    assert float(shop.billed) == total.spent
    assert set(outcomes) == {"ok", "ErrorBudget"}


def _outcome(run: object) -> str:
    try:
        run()
    except ErrorBudget:
        return "ErrorBudget"
    return "ok"


def test_parallel_runs_of_tools_stay_under_their_parents_limit_together():
    inner = Shop(DEAR)

    async def research(topic: str) -> str:
        return str(await Agent("inner", model=inner, max_tokens=300).arun(topic))

    calls = [ToolCall(str(n), "research", {"topic": f"topic {n}"}) for n in range(8)]
    outer = ModelScripted([calls, "done"], cost_usd=0.0)
    result = Agent("outer", model=outer, tools=[research], max_cost=0.05).run("go")
    assert inner.billed <= Decimal("0.05")
    assert result.usage.total_cost_usd == float(inner.billed)
    told = [message["content"] for message in result.messages if message["role"] == "tool"]
    assert any("ErrorBudget" in text for text in told)
    assert "hello" in told


def test_a_call_waits_for_the_reserve_of_another_to_be_released():
    shop = Shop(DEAR)  # a call of 300 tokens reserves about 0.03 and costs 0.01

    async def main() -> list[str]:
        with agentroute.budget(0.06):
            results = await asyncio.gather(*(Agent("a", model=shop, max_tokens=300).arun("go") for _ in range(4)))
        return [str(result) for result in results]

    assert asyncio.run(main()) == ["hello"] * 4
    assert shop.billed == Decimal("0.04004")


def test_a_call_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(budgets, "PATIENCE_S", 0.02)

    async def main() -> None:
        with agentroute.budget(0.06):
            async for event in Agent("a", model=Shop(DEAR), max_tokens=500).stream("go"):
                if event.kind == "text_delta":  # the stream stands still in here, and holds its reserve
                    await Agent("b", model=Shop(DEAR), max_tokens=500).arun("go")

    with pytest.raises(ErrorBudget, match="is reserved by calls in flight"):
        asyncio.run(main())


@pytest.mark.parametrize("limit", [-1, float("nan"), float("inf"), "5", None, True])
def test_a_budget_that_is_no_amount_is_refused(limit):
    with pytest.raises(ErrorConfig, match="budget must be a number of USD of at least 0"):
        agentroute.budget(limit)


def test_a_budget_says_how_it_stands():
    total = Budget(5.0)
    assert repr(total) == "Budget(limit=5, spent=0, left=5)"


# ---- how long a prompt can be -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "at_least"),
    [
        (Message("user", "hello"), 5),
        (Message("user", "日本語"), 9),
        (Message("user", [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:" + "A" * 90_000}}]), 17_000),
        (Message("assistant", None, tool_calls=[ToolCall("1", "f", {"a": "b" * 50}).to_wire()]), 50),
        (Message("assistant", "x", extra={"reasoning_content": "y" * 70}), 71),
    ],
)
def test_a_prompt_is_bounded_by_its_bytes(message, at_least):
    assert at_least < prompt_tokens_at_most(LLMRequest(model="m", messages=[message])) < at_least + 200


def test_what_the_provider_has_counted_bounds_the_next_prompt():
    replies = iter([ToolCall("1", "f", {}), "done"])
    shop = Shop(DEAR, lambda request: next(replies))
    prompt = "x" * 20_000  # reckoned as 20,000 tokens at first; the provider counts 10,000
    with agentroute.budget(0.32) as total:
        Agent("a", model=shop, tools=[agentroute.tool(name="f")(lambda: "r")], max_tokens=1_000).run(prompt)
    assert [request.max_tokens for request in shop.requests] == [1_000, 1_000]
    assert total.spent == float(shop.billed)


# ---- nothing passes a limit -------------------------------------------------------------------------------------


class Greedy(Shop):
    """Bills a token for each byte it is sent, and as long an answer as it was allowed."""

    def bill(self, request: LLMRequest) -> tuple[int, int]:
        sent = [[message.to_dict() for message in request.messages], request.tools or [], request.response_format or {}]
        return len(json.dumps(sent, ensure_ascii=False).encode()), request.max_tokens or 100_000


def simulated(seed: int) -> tuple[Decimal, Decimal]:
    """One random run of runs: what the provider billed, and the limit."""
    dice = random.Random(seed)
    price = Price(dice.choice([0.1, 3, 40]), dice.choice([0.4, 15, 200]), dice.choice([None, 0.01]))
    limit = Decimal(str(round(10 ** dice.uniform(-4, 0), 6)))

    def answer(request: LLMRequest) -> object:
        kind = dice.random()
        if kind < 0.1:
            return ErrorModelTimeout("lost", sent=True)
        if kind < 0.2:
            return ErrorModelServer("down", status=503, sent=True)
        if kind < 0.5 and request.tools:
            return ToolCall(f"c{dice.random()}", "sub", {"text": "x" * dice.randrange(2_000)})
        return "y" * dice.randrange(500)

    shops = [dice.choice([Shop, Greedy])(price, answer, completion=dice.choice([1, 100, 3_000, 100_000])) for _ in range(2)]
    layers = [ModelRetry(shops[0]), ModelFallback([ModelRetry(shops[0]), shops[1]]), ModelRetry(ModelFallback(shops)), shops[0]]
    model = dice.choice(layers)

    async def sub(text: str) -> str:
        agents = [Agent("inner", model=model, max_tokens=dice.choice([None, 50, 4_000])) for _ in range(dice.randrange(1, 4))]
        results = await asyncio.gather(*(agent.arun(text or "go") for agent in agents), return_exceptions=True)
        return " ".join(map(str, results))[:500]

    agent = Agent(
        "outer", model=model, tools=[sub], max_cost=float(limit), max_turns=4, max_tokens=dice.choice([None, 700]),
        output=dice.choice([str, list[int]]), output_mode=dice.choice(["tool", "native", "prompted"]),
    )  # fmt: skip

    async def main() -> None:
        task = asyncio.create_task(agent.arun("z" * dice.randrange(1, 3_000)))
        for _ in range(dice.choice([0, 5, 20, 10_000])):  # some runs are cancelled on their way
            if task.done():
                break
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    return sum((shop.billed for shop in shops), Decimal(0)), limit


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the answer was cut:RuntimeWarning")
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("block", range(10))
def test_of_ten_thousand_random_runs_none_spends_a_micro_dollar_over_its_limit(block, monkeypatch):
    monkeypatch.setattr(budgets, "PATIENCE_S", 0.2)
    outcomes = [simulated(seed) for seed in range(block * 1_000, (block + 1) * 1_000)]
    assert [(billed, limit) for billed, limit in outcomes if billed > limit] == []
    assert sum(billed > 0 for billed, _ in outcomes) > 200
