"""A provider that keeps books: what it has billed is what turns, runs, budgets and the run history say."""

import asyncio
import json
import random
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

import agentroute
from agentroute import Agent, Price, RunStore, ToolCall
from agentroute.errors import ErrorAgent
from tests.server import ModelServer, Raw, chunks, completion

PRICE = Price(input_usd_per_mtok=3, output_usd_per_mtok=15)


class Books:
    """What a provider bills. It also bills answers that get lost on the way; what it turns away is free."""

    def __init__(self, seed: int, *, tells_cost: bool) -> None:
        self.dice = random.Random(seed)
        self.tells_cost = tells_cost
        self.delivered = self.lost = Decimal(0)
        self.calls: Counter[str] = Counter()

    def answer(self, body: dict[str, Any]) -> Raw:
        kinds = ["answer", "busy", "lost", "cut" if body.get("stream") else "answer"]
        kind = self.dice.choices(kinds, [6, 2, 1, 1])[0]
        self.calls[kind] += 1
        if kind == "busy":
            return Raw(503, [b'{"error":{"message":"busy","code":503}}'])
        prompt = sum(len(str(message.get("content") or "")) for message in body["messages"]) // 3
        output = min(self.dice.randrange(1, 200), body.get("max_tokens") or 200)
        cost = PRICE.cost(prompt, output)
        if kind == "lost":
            self.lost += cost
            return Raw(200, [b'{"choices": [{"mess'])
        usage = {"prompt_tokens": prompt, "completion_tokens": output}
        if self.tells_cost:
            usage["cost"] = float(cost)
        asks = "tools" in body and body["messages"][-1]["role"] == "user" and self.dice.random() < 0.6
        says: Any = ToolCall(f"c{self.dice.random()}", "research", {"topic": "x" * self.dice.randrange(300)}) if asks else "word " * 20
        if not body.get("stream"):
            self.delivered += cost
            return Raw(body=[json.dumps(completion(says, usage)).encode()])
        events = chunks(says, usage)
        if kind == "cut":  # breaks off after the first words, without usage
            self.lost += cost
            return Raw.sse(*events[:2], done=False)
        self.delivered += cost
        return Raw.sse(*events)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr("agentroute.models.retry.BASE_S", 0.0)


async def work(server: ModelServer, store: RunStore, stream: bool, **options: Any) -> list[agentroute.Result[str]]:
    """Twelve runs, four at a time, whose tools run agents; failed ones too."""
    settings = {"model": "m", "base_url": server.base_url, "store": store, **options}
    inner = Agent("inner", **settings)

    async def research(topic: str) -> str:
        return str(await inner.arun(topic or "go"))

    outer = Agent("outer", tools=[research], max_turns=4, **settings)

    async def one(number: int) -> agentroute.Result[str]:
        try:
            async for event in outer.events(f"prompt {number}", stream=stream):
                if event.kind == "agent_end":
                    return event.result
        except ErrorAgent as error:
            return error.result
        raise AssertionError

    results = []
    for start in range(0, 12, 4):
        results += await asyncio.gather(*(one(number) for number in range(start, start + 4)))
    return results


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("tells_cost", [True, False], ids=["the provider says", "a price is given"])
@pytest.mark.parametrize("seed", range(4))
def test_turns_runs_budget_and_history_say_what_was_billed(tmp_path, seed, tells_cost, stream):
    books, store = Books(seed, tells_cost=tells_cost), RunStore(tmp_path / "runs.db")
    with ModelServer([books.answer], repeat=True) as server, agentroute.budget(1.0) as total:
        results = asyncio.run(work(server, store, stream, price=PRICE, max_tokens=200))
    usages = [result.usage for result in results]
    frames = agentroute.runs(store), agentroute.turns(store)
    store.close()
    billed = float(books.delivered)
    assert sum(usage.total_cost_usd for usage in usages) == pytest.approx(billed, abs=1e-12)
    assert frames[0]["cost_usd"].sum() == pytest.approx(billed, abs=1e-12)
    assert frames[1]["cost_usd"].sum() == pytest.approx(billed, abs=1e-12)
    assert total.spent == pytest.approx(billed, abs=1e-12)
    # What got lost is counted as calls of unknown cost, and the budget keeps at least what it may have cost.
    lost = books.calls["lost"] + books.calls["cut"]
    assert sum(usage.unknown_cost_calls for usage in usages) == lost
    assert total.uncertain >= float(books.lost)
    assert sum(usage.model_calls for usage in usages) == lost + books.calls["answer"]
    assert total.reserved == 0


@pytest.mark.parametrize("seed", range(4, 10))
def test_under_a_tight_budget_not_a_cent_more_is_billed(tmp_path, seed):
    books, store = Books(seed, tells_cost=True), RunStore(tmp_path / "runs.db")
    with ModelServer([books.answer], repeat=True) as server, agentroute.budget(0.02) as total:
        asyncio.run(work(server, store, True, price=PRICE, max_tokens=200))
    store.close()
    assert 0 < books.delivered + books.lost <= Decimal("0.02")
    assert total.spent + total.uncertain <= 0.02
