"""Prices: given by the user, from OpenRouter's list, from a table."""

import asyncio
import json
import sys
from decimal import Decimal
from types import ModuleType

import pytest

from agentroute import Agent, ErrorConfig, Price, metering
from agentroute.message import TurnUsage
from agentroute.models import openrouter
from agentroute.prices import cost_of, price_in_table
from agentroute.testing import ModelFunction
from tests.server import ModelServer, Raw


def test_a_price_is_per_million_tokens_and_exact():
    assert Price(3, 15).cost(1000, 100) == Decimal("0.0045")
    assert sum((Price(0.1, 0.2).cost(1, 1) for _ in range(10_000)), Decimal(0)) == Decimal("0.003")


def test_cached_tokens_have_their_own_price_and_cost_as_others_without_one():
    assert Price(3, 15, 0.3).cost(1000, 0, 400) == Decimal("0.00192")
    assert Price(3, 15).cost(1000, 0, 400) == Decimal("0.003")


def test_more_cached_tokens_than_tokens_are_no_refund():
    assert Price(3, 15, 0.3).cost(100, 0, 400) == Decimal("0.00003")


def test_the_most_a_call_can_cost_reckons_with_the_dearer_kind_of_input():
    assert Price(3, 15, 0.3).most(1000, 0) == Decimal("0.003")
    assert Price(3, 15, 5).most(1000, 0) == Decimal("0.005")


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "3", None, True])
def test_a_price_that_is_none_is_refused(wrong):
    with pytest.raises(ErrorConfig, match="input_usd_per_mtok must be a number of USD of at least 0"):
        Price(wrong, 15)


def test_unknown_tokens_have_no_cost():
    assert cost_of(Price(3, 15), TurnUsage(input_tokens=5)) is None


# ---- what a run is told to have cost ----------------------------------------------------------------------------


def reported(model_usage: dict, **agent: object) -> tuple[float | None, str | None]:
    with ModelServer(["hi"], usage=model_usage) as server:
        result = Agent("a", model="m", base_url=server.base_url, **agent).run("go")
    return result.usage.cost_usd, result.record.turns[0].cost_source


TOKENS = {"prompt_tokens": 1000, "completion_tokens": 100}


def test_the_providers_number_comes_first():
    assert reported({**TOKENS, "cost": 0.5}, price=Price(3, 15)) == (0.5, "provider")


def test_a_price_given_fills_what_the_provider_leaves_out():
    assert reported(TOKENS, price=Price(3, 15)) == (0.0045, "given")


def test_without_either_the_cost_is_unknown():
    assert reported(TOKENS) == (None, "unknown")


def test_a_models_own_price_stands_before_the_agents():
    model = ModelFunction(lambda request: "hi", cost_usd=None)
    model.price = Price(0, 1_000_000)  # type: ignore[attr-defined]
    assert Agent("a", model=model, price=Price(0, 0)).run("go").usage.cost_usd == 2.0


def test_a_price_that_is_no_price_is_refused():
    with pytest.raises(ErrorConfig, match="price must be a Price"):
        Agent("a", price=3.0)


# ---- the table of genai-prices ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_id", "base_url", "cost"),
    [
        ("gpt-4o", "https://api.openai.com/v1", Decimal("0.0035")),
        ("gpt-4o:beta", "https://api.openai.com/v1", Decimal("0.0035")),
        ("nothing-like-it", "https://api.openai.com/v1", None),
        ("gpt-4o", "http://127.0.0.1:1/v1", None),
        ("gpt-4o", "https://nobody.example/v1", None),
    ],
)
def test_the_table_is_asked_by_model_and_provider(model_id, base_url, cost):
    price = price_in_table(model_id, base_url)
    assert (price.cost(1000, 100) if price else None) == cost


def test_without_the_package_there_is_no_price(monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert price_in_table("gpt-4o", "https://api.openai.com/v1") is None


def test_the_table_is_not_loaded_for_a_server_on_this_machine(monkeypatch):
    class Watched(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"genai_prices.{name} was looked at")

    monkeypatch.setitem(sys.modules, "genai_prices", Watched("genai_prices"))
    assert reported(TOKENS) == (None, "unknown")


# ---- OpenRouter's list ------------------------------------------------------------------------------------------

MODEL = {
    "id": "anthropic/claude",
    "context_length": 200_000,
    "top_provider": {"max_completion_tokens": 8_000},
    "pricing": {
        "prompt": "0.000003", "completion": "0.000015", "input_cache_read": "0.0000003", "input_cache_write": "0.00000375",
        "request": "0.001", "overrides": [{"min_prompt_tokens": 100_000, "prompt": "0.000006"}],
    },
}  # fmt: skip


@pytest.fixture
def listed(monkeypatch):
    """A loopback server in the place of OpenRouter, which lists one model and answers with usage but no cost."""
    monkeypatch.setattr(openrouter, "_lists", {})
    monkeypatch.setattr(metering, "_known", {})
    monkeypatch.setattr(openrouter, "HOST", "127.0.0.1")
    with ModelServer(["hi"], repeat=True, usage=TOKENS) as server:
        body = json.dumps({"data": [MODEL, {"id": "router", "pricing": {"prompt": "-1", "completion": "-1"}}, "nonsense"]})
        server.pages["/v1/models"] = Raw(200, [body.encode()])
        yield server


def entry(server: ModelServer, model_id: str) -> openrouter.Entry | None:
    return asyncio.run(openrouter.entry_of(model_id, server.base_url))


def test_the_list_says_price_context_and_longest_answer(listed):
    found = entry(listed, "anthropic/claude")
    assert (found.context_tokens, found.most_answer_tokens) == (200_000, 8_000)
    assert found.price.cost(1000, 100) == Decimal("0.0055")
    assert found.price.cost(1000, 100, 1000) == Decimal("0.0028")
    assert found.price.most(1000, 0) == Decimal("0.00475")
    assert found.price.cost(200_000, 0) == Decimal("1.201")


def test_a_variant_of_a_model_has_its_price_and_a_router_has_none(listed):
    assert entry(listed, "anthropic/claude:nitro") == entry(listed, "anthropic/claude")
    assert entry(listed, "router").price is None
    assert entry(listed, "unheard/of") is None


def test_the_list_is_asked_for_once_and_kept_for_the_next_process(listed, monkeypatch):
    entry(listed, "anthropic/claude")
    monkeypatch.setattr(openrouter, "_lists", {})
    del listed.pages["/v1/models"]
    assert entry(listed, "anthropic/claude").context_tokens == 200_000


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data": 3}', b"null"])
def test_a_list_that_cannot_be_read_is_no_list(listed, body):
    listed.pages["/v1/models"] = Raw(200, [body])
    assert entry(listed, "anthropic/claude") is None


def test_under_max_cost_openrouter_is_told_the_prices_that_were_reckoned_with(listed):
    Agent("a", model="anthropic/claude", base_url=listed.base_url, max_cost=1.0).run("go")
    body = listed.requests[-1]
    assert body["provider"] == {"max_price": {"prompt": 3.75, "completion": 15.0}}
    assert body["max_tokens"] == 8_000
