"""Costs filled in later: what was unknown becomes known, and nothing else changes."""

import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pandas as pd
import pytest

import agentroute
from agentroute import Agent, Price, RunStore, ToolCall, reprice
from agentroute.errors import ErrorConfig, ErrorMissingPackage
from agentroute.records import RunRecord, ToolCallRecord, TurnRecord
from agentroute.testing import ModelScripted

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
PRICE = Price(3, 15, 0.3)
OPENAI = "https://api.openai.com/v1"


def inside(parent, call=1):
    return {"parent_run_id": parent, "parent_turn_index": 1, "parent_call_index": call}


@pytest.fixture
def store(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


def run_of(run_id="a", **changes):
    defaults = {"agent_name": "support", "request_model": "m", "status": "ok", "duration_s": 1.0, "n_turns": 1, "unknown_cost_calls": 1}
    return RunRecord(run_id=run_id, started_at=START, **defaults | changes) if "started_at" not in changes else RunRecord(run_id=run_id, **defaults | changes)


def turn_of(run_id="a", index=1, **changes):
    return TurnRecord(**{"run_id": run_id, "turn_index": index, "started_at": START, "request_model": "m", "input_tokens": 1000, "output_tokens": 100} | changes)


def call_of(run_id, index, name, seconds=0.0, **changes):
    began = START + timedelta(seconds=seconds)
    return ToolCallRecord(run_id=run_id, turn_index=1, call_index=index, tool_name=name, started_at=began, duration_s=2.0, **changes)


def test_what_is_unknown_is_filled_and_said(store):
    store.save(run_of(), turns=[turn_of(cached_input_tokens=400, response_model="m-2026")])
    table = reprice(store, price=PRICE)
    exact = float(PRICE.cost(1000, 100, 400))
    assert table.to_dict("records") == [{"run_id": "a", "turn_index": 1, "model": "m-2026", "cost_usd": exact}]
    record = store.record("a")
    assert (record.turns[0].cost_usd, record.turns[0].cost_source) == (exact, "given")
    assert (record.run.cost_usd, record.run.cost_source, record.run.unknown_cost_calls) == (exact, "given", 0)


@pytest.mark.parametrize(
    "known",
    [
        turn_of(cost_usd=0.5, cost_source="provider"),
        turn_of(cost_usd=0.5, cost_source="given"),
        turn_of(cost_usd=0.5, cost_source="table"),
        turn_of(cost_usd=0.5, cost_source="unknown"),  # an attempt before had a cost
        turn_of(input_tokens=None, output_tokens=None, error_type="ErrorInterrupted"),
        turn_of(output_tokens=None),
    ],
)
def test_what_is_known_or_may_have_been_lost_stays(store, known):
    store.save(run_of(), turns=[known])
    before, mark = store.record("a"), store.watermark()
    assert reprice(store, price=PRICE).empty
    assert store.record("a") == before
    assert store.watermark() == mark


def test_twice_fills_nothing_more(store):
    store.save(run_of(), turns=[turn_of()])
    assert len(reprice(store, price=PRICE)) == 1
    before = store.record("a")
    assert reprice(store, price=Price(999, 999)).empty
    assert store.record("a") == before


def test_sums_of_the_run_follow_exactly(store):
    costs = [0.1, 0.2, 1e-9]
    turns = [turn_of(index=index, cost_usd=cost, cost_source="provider") for index, cost in enumerate(costs, 1)]
    store.save(run_of(cost_usd=sum(costs), unknown_cost_calls=3), turns=[*turns, turn_of(index=4), turn_of(index=5, input_tokens=None)])
    reprice(store, price=PRICE)
    run = store.record("a").run
    assert run.cost_usd == float(sum(Decimal(repr(cost)) for cost in costs) + PRICE.cost(1000, 100))
    assert run.unknown_cost_calls == 2  # an attempt within a turn, and the turn without tokens
    assert run.cost_source == "mixed"
    assert agentroute.cost([], store=store).cost_usd[0] == pytest.approx(run.cost_usd, abs=1e-12)


def test_a_price_of_its_own_for_each_model(store):
    store.save(run_of(), turns=[turn_of(index=1), turn_of(index=2, request_model="n", response_model="n-2026"), turn_of(index=3, request_model="o")])
    table = reprice(store, price={"m": Price(1, 0), "n-2026": Price(2, 0), "n": Price(3, 0)})
    assert table.set_index("turn_index").cost_usd.to_dict() == {1: 0.001, 2: 0.002}
    assert store.record("a").run.cost_source == "given"


def test_the_table_knows_models_by_their_endpoint(store):
    store.save(
        run_of(unknown_cost_calls=4),
        turns=[
            turn_of(index=1, request_model="gpt-4o", base_url=OPENAI),
            turn_of(index=2, request_model="gpt-4o", base_url="http://127.0.0.1:8000/v1"),
            turn_of(index=3, request_model="gpt-4o"),
            turn_of(index=4, request_model="my alias", response_model="gpt-4o-2024-11-20", base_url=OPENAI),
        ],
    )
    table = reprice(store)
    assert table.turn_index.tolist() == [1, 4]
    assert table.cost_usd.tolist() == [0.0035, 0.0035]
    assert [turn.cost_source for turn in store.record("a").turns] == ["table", "unknown", "unknown", "table"]
    assert (store.record("a").run.cost_source, store.record("a").run.unknown_cost_calls) == ("mixed", 2)


def test_filters_choose_the_runs(store):
    for name in ("a", "b", "c"):
        store.save(run_of(name, agent_name=name), turns=[turn_of(name)])
    assert reprice(store, price=PRICE, agent="b").run_id.tolist() == ["b"]
    assert reprice(store, price=PRICE, since="2026-11-21").empty
    assert reprice(store.path, price=PRICE).run_id.tolist() == ["a", "c"]


def test_a_run_that_may_be_going_on_is_left_for_later(store):
    now = datetime.now(UTC)
    store.save(run_of("on", started_at=now, duration_s=None), turns=[turn_of("on")])
    store.save(run_of("killed", started_at=now - timedelta(days=3), duration_s=None), turns=[turn_of("killed")])
    assert reprice(store, price=PRICE).run_id.tolist() == ["killed"]


def test_tool_calls_around_follow(store):
    store.save(run_of("top"), tool_calls=[call_of("top", 1, "ask", cost_usd=0.5), call_of("top", 2, "look", seconds=-5)])
    store.save(run_of("mid", **inside("top"), started_at=START + timedelta(seconds=1)), tool_calls=[call_of("mid", 1, "dig")])
    store.save(run_of("low", **inside("mid"), started_at=START + timedelta(seconds=1.5)), turns=[turn_of("low")])
    reprice(store, price=PRICE)
    cost = float(PRICE.cost(1000, 100))
    assert [call.cost_usd for call in store.record("top").tool_calls] == [0.5 + cost, None]
    assert [call.cost_usd for call in store.record("mid").tool_calls] == [cost]
    assert agentroute.runs(store).cost_usd.sum() == cost


def test_of_calls_side_by_side_the_one_that_began_the_run_follows(store):
    store.save(run_of("top"), tool_calls=[call_of("top", 1, "ask"), call_of("top", 2, "ask")])
    store.save(run_of("low", **inside("top", call=2)), turns=[turn_of("low")])
    reprice(store, price=PRICE)
    first, second = (call.cost_usd for call in store.record("top").tool_calls)
    assert (first, second) == (None, float(PRICE.cost(1000, 100)))


def test_a_run_whose_parent_is_gone_is_filled_all_the_same(store):
    store.save(run_of("low", **inside("gone")), turns=[turn_of("low")])
    assert reprice(store, price=PRICE).run_id.tolist() == ["low"]


def test_a_real_run_and_the_run_inside_its_tool(store):
    inner = Agent("inner", model=ModelScripted(["found"], cost_usd=None), store=store)

    def research(topic: str) -> str:
        """Looks."""
        return str(inner.run(topic))

    outer = Agent("outer", model=ModelScripted([ToolCall("1", "research", {"topic": "x"}), "done"], cost_usd=None), tools=[research], store=store)
    outer.run("go")
    assert agentroute.runs(store).cost_usd.isna().all()
    filled = reprice(store, price=Price(1_000, 1_000))
    runs = agentroute.runs(store).set_index("agent_name")
    assert len(filled) == 3
    assert runs.cost_usd.sum() == pytest.approx(filled.cost_usd.sum(), abs=1e-12)
    assert agentroute.tool_calls(store).cost_usd.tolist() == [runs.cost_usd["inner"]]
    assert (runs.unknown_cost_calls == 0).all()


def test_readers_of_changes_see_the_runs_that_changed(store):
    store.save(run_of("top"), tool_calls=[call_of("top", 1, "ask")])
    store.save(run_of("low", **inside("top"), started_at=START + timedelta(seconds=1)), turns=[turn_of("low")])
    store.save(run_of("else"))
    _, revision = store.watermark()
    reprice(store, price=PRICE)
    changed = [row for rows in store.chunks(RunRecord, columns=["run_id"], after=revision) for row in rows]
    assert changed == [("top",), ("low",)]


def test_all_is_filled_or_nothing(store, monkeypatch):
    store.save(run_of(), turns=[turn_of()])
    before = store.record("a")

    def fails(*_):
        raise RuntimeError("stop")

    monkeypatch.setattr(store, "touch", fails)
    with pytest.raises(RuntimeError, match="stop"):
        reprice(store, price=PRICE)
    assert store.record("a") == before


def test_a_turn_that_somebody_else_filled_meanwhile_stays(store, monkeypatch):
    store.save(run_of(), turns=[turn_of()])
    theirs = replace(store.record("a").turns[0], cost_usd=9.0, cost_source="provider")
    monkeypatch.setattr("agentroute.repricing._still_on", lambda *_: (store.save(store.record("a").run, turns=[theirs]), set())[1])
    assert reprice(store, price=PRICE).empty
    assert store.record("a").turns[0].cost_usd == 9.0


def test_an_empty_frame_has_the_same_dtypes(store):
    empty = reprice(store, price=PRICE)
    assert not store.path.exists()
    store.save(run_of(), turns=[turn_of()])
    assert reprice(store, price=PRICE).dtypes.to_dict() == empty.dtypes.to_dict()


@pytest.mark.parametrize("price", [3, "gpt-4o", {"m": 3}, {3: PRICE}, [PRICE]])
def test_a_price_that_is_none_is_named(store, price):
    with pytest.raises(ErrorConfig, match="price must be an agentroute"):
        reprice(store, price=price)


def test_without_the_table_a_price_is_needed(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(ErrorMissingPackage, match=r"agentroute\[prices\]"):
        reprice(store)
    assert reprice(store, price=PRICE).empty


def test_what_a_replayed_answer_saved_is_filled_in(store):
    store.save(
        run_of(cost_usd=0.0, unknown_cost_calls=0, n_replayed=1), turns=[turn_of(cost_usd=0.0, cost_source="unknown", replayed_from="b")]
    )
    assert reprice(store, price=PRICE).empty  # no cost: it was not paid
    record = store.record("a")
    assert record.turns[0].cost_saved_usd == record.run.cost_saved_usd == pytest.approx(float(PRICE.cost(1000, 100)))
    assert (record.turns[0].cost_usd, record.run.cost_usd, record.run.unknown_cost_calls, record.run.cost_source) == (0.0, 0.0, 0, "given")


def test_a_price_for_a_model_is_not_given_to_another_of_the_same_run(store):
    store.save(
        run_of(request_model="ollama/qwen", unknown_cost_calls=2),
        turns=[turn_of(request_model="qwen", response_model=None), replace(turn_of(request_model="gpt-5", response_model=None), turn_index=2)],
    )
    assert reprice(store, model="ollama/qwen", price=PRICE).model.tolist() == ["qwen"]
    assert reprice(store, model="gpt-5", price=PRICE).model.tolist() == ["gpt-5"]


def test_a_dry_run_says_what_would_be_filled_in_and_fills_nothing(store):
    store.save(run_of(), turns=[turn_of()])
    said, before = reprice(store, price=PRICE, dry_run=True), store.record("a")
    assert before.turns[0].cost_usd is None
    pd.testing.assert_frame_equal(said, reprice(store, price=PRICE))
