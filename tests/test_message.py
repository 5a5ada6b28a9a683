"""Messages, usage and what a provider's usage object may hold."""

from decimal import Decimal

import pytest

from agentroute import Message, ToolCall, Usage
from agentroute.message import TurnUsage


def test_a_message_survives_its_wire_form():
    message = Message("assistant", "hi", [ToolCall("1", "f", {"a": 1}).to_wire()], extra={"reasoning": "hm"})
    assert Message.from_dict(message.to_dict()) == message


def test_empty_fields_are_left_off_the_wire():
    assert Message("user", "hi", tool_calls=[]).to_dict() == {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    "usage",
    [None, [], "x", 7, {"prompt_tokens": None}, {"prompt_tokens": "junk"}, {"prompt_tokens": -3}, {"prompt_tokens": float("nan")},
     {"prompt_tokens": float("inf")}, {"prompt_tokens": 10**30}, {"prompt_tokens": True}, {"prompt_tokens": {}},
     {"cost": "abc"}, {"cost": float("nan")}, {"cost": []}, {"cost": True}, {"prompt_tokens_details": "x"}],
)  # fmt: skip
def test_nonsense_in_usage_reads_as_unknown(usage):
    assert TurnUsage.from_wire(usage) == TurnUsage()


def test_counts_as_text_or_float_are_read():
    read = TurnUsage.from_wire({"prompt_tokens": "12", "completion_tokens": 3.0, "cost": "0.5"})
    assert (read.input_tokens, read.output_tokens, read.cost_usd) == (12, 3, Decimal("0.5"))


def test_a_negative_cost_is_no_refund():
    assert TurnUsage.from_wire({"cost": -1}).cost_usd == 0


def test_details_are_read():
    read = TurnUsage.from_wire({"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}})
    assert (read.cached_input_tokens, read.reasoning_tokens) == (4, 2)


@pytest.mark.parametrize(("is_byok", "cost"), [(True, "0.21"), (False, "0.01")])
def test_upstream_cost_counts_only_with_ones_own_key(is_byok, cost):
    usage = {"cost": 0.01, "is_byok": is_byok, "cost_details": {"upstream_inference_cost": 0.2}}
    assert TurnUsage.from_wire(usage).cost_usd == Decimal(cost)


def test_small_costs_add_up_exactly():
    usage = Usage()
    for _ in range(100_000):
        usage.add_turn(TurnUsage(cost_usd=Decimal("1.234e-05")))
    assert usage.total_cost_usd == 1.234


def test_unknown_cost_is_not_zero():
    usage = Usage()
    usage.add_turn(TurnUsage(input_tokens=1))
    assert (usage.cost_usd, usage.total_cost_usd, usage.unknown_cost_calls) == (None, 0.0, 1)
    usage.add_turn(TurnUsage(cost_usd=Decimal("0.5")))
    assert (usage.cost_usd, usage.unknown_cost_calls, usage.model_calls) == (0.5, 1, 2)


def test_usages_add_up():
    total = Usage(1, 2, 0.1, 1)
    total.add(Usage(3, 4, 0.2, 2))
    assert total == Usage(4, 6, 0.3, 3)
