"""History policies: what is sent of a long conversation."""

import asyncio
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentroute import Agent, ErrorConfig, History, HistorySlidingWindow, HistoryTruncate, Memory, Message, ToolCall
from agentroute.testing import ModelScripted

SYSTEM, QUESTION = Message("system", "Be brief."), Message("user", "And now?")


def plain(count, start=0):
    """Questions and answers in turn."""
    return [Message(("user", "assistant")[number % 2], f"m{number}") for number in range(start, start + count)]


def exchange(*ids, text="done"):
    """An assistant's tool calls and their results."""
    calls = [ToolCall(call, "work", {}).to_wire() for call in ids]
    return [Message("assistant", tool_calls=calls), *(Message("tool", text, tool_call_id=call) for call in ids)]


def window(messages, size):
    return asyncio.run(HistorySlidingWindow(size).compact(messages))


def truncated(messages, tokens, token_budget=None):
    return asyncio.run(HistoryTruncate(tokens).compact(messages, token_budget))


# ---- window -----------------------------------------------------------------------------------------------------


def test_the_window_is_the_last_messages():
    assert window(plain(9), 5) == plain(9)[-5:]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_window_begins_at_a_question(size):
    messages = [SYSTEM, *plain(4), QUESTION]
    assert window(messages, size) == [SYSTEM, *messages[5 - (size - 1) // 2 * 2 :]]


def test_a_conversation_that_fits_is_left_whole():
    messages = [SYSTEM, *plain(2), *exchange("1", "2"), QUESTION]
    assert window(messages, 6) == messages
    assert window(messages, 10**9) == messages
    assert truncated(messages, 10**9) == messages


def test_leading_system_messages_are_kept_and_not_counted():
    assert window([SYSTEM, SYSTEM, *plain(9)], 3) == [SYSTEM, SYSTEM, *plain(9)[-3:]]


def test_an_exchange_that_does_not_fit_is_left_out_whole():
    messages = [*plain(3), *exchange("1", "2"), Message("assistant", "3"), QUESTION]
    assert window(messages, 5) == [QUESTION]
    assert window(messages, 6) == messages[-6:]


def test_the_last_question_stays_when_its_own_exchanges_are_dropped():
    messages = [*plain(4), QUESTION, *exchange("1"), *exchange("2"), *exchange("3")]
    assert window(messages, 5) == [QUESTION, *exchange("2"), *exchange("3")]


def test_the_newest_exchange_stays_when_it_alone_is_too_large():
    messages = [*plain(4), QUESTION, *exchange("1"), *exchange(*"abcdef")]
    assert window(messages, 3) == [QUESTION, *exchange(*"abcdef")]


def test_results_that_do_not_follow_at_once_stay_with_their_call():
    first, result = exchange("1")
    messages = [Message("user", "go"), first, Message("user", "hurry"), result, QUESTION]
    assert window(messages, 4) == [QUESTION]
    assert window(messages, 5) == messages


def test_a_question_inside_an_exchange_brings_the_one_before_it():
    first, result = exchange("1")
    messages = [*plain(2), QUESTION, first, Message("user", "hurry"), result]
    assert window(messages, 1) == truncated(messages, 1) == messages[2:]


def test_a_greeting_before_the_first_question_is_not_sent():
    messages = [SYSTEM, Message("assistant", "Hello!"), QUESTION]
    assert window(messages, 9) == truncated(messages, 99) == [SYSTEM, QUESTION]


def test_a_conversation_without_a_question_keeps_its_newest_exchange():
    messages = [Message("assistant", "Hello!"), *exchange("1")]
    assert window(messages, 1) == truncated(messages, 1) == exchange("1")


def test_an_id_that_is_used_again_means_the_latest_call():
    messages = [*exchange("call_0"), *plain(2), *exchange("call_0"), QUESTION]
    assert window(messages, 5) == messages[2:]
    assert window(messages, 4) == [QUESTION]


def test_a_result_with_another_id_stays_with_the_call_before_it():
    call, result = exchange("1")
    messages = [*plain(3), call, Message("tool", "done", tool_call_id="other"), result, QUESTION]
    assert window(messages, 5) == messages[-5:]
    assert window(messages, 4) == [QUESTION]


def test_no_message_gives_no_message():
    assert window([], 1) == truncated([], 1) == []
    assert window([SYSTEM], 1) == truncated([SYSTEM], 1) == [SYSTEM]


# ---- truncation -------------------------------------------------------------------------------------------------


def test_a_token_is_four_characters():
    messages = [Message("user", "x" * 40), Message("assistant", "x" * 40), Message("user", "x" * 40)]
    assert truncated(messages, 30) == messages
    assert truncated(messages, 29) == messages[2:]


def test_system_messages_take_their_part_of_the_tokens():
    messages = [Message("system", "x" * 40), Message("user", "x" * 40), Message("assistant", "x" * 40), QUESTION]
    assert truncated(messages, 32) == messages
    assert truncated(messages, 31) == [messages[0], QUESTION]


def test_names_and_arguments_of_tool_calls_count():
    call = ToolCall("1", "n" * 20, "x" * 20).to_wire()
    messages = [Message("user", "go"), Message("assistant", tool_calls=[call]), Message("tool", "ok", tool_call_id="1"), QUESTION]
    assert truncated(messages, 14) == messages
    assert truncated(messages, 13) == [QUESTION]


def test_an_image_counts_as_a_thousand_tokens_however_long_its_address():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}}
    messages = [Message("user", ["look", image]), Message("assistant", "Nice."), QUESTION]
    assert truncated(messages, 1_004) == messages
    assert truncated(messages, 1_003) == [QUESTION]


def test_the_smaller_of_the_limit_and_the_models_room_counts():
    assert truncated(plain(4), 100_000, token_budget=3) == plain(4)[-2:]
    assert truncated(plain(4), 3, token_budget=100) == plain(4)[-2:]


def test_one_long_turn_is_shortened_too():
    messages = [QUESTION, *(message for number in range(20) for message in exchange(str(number), text="x" * 4000))]
    assert truncated(messages, 3_500) == [QUESTION, *messages[-6:]]


# ---- promises of both -------------------------------------------------------------------------------------------

parts = st.one_of(
    st.sampled_from(["user", "assistant", "system"]).flatmap(
        lambda role: st.text(max_size=30).map(lambda text: [Message(role, text)])
    ),
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True).map(lambda ids: exchange(*ids)),
    st.sampled_from("abcde").map(lambda call: [Message("tool", "stray", tool_call_id=call)]),
)
conversations = st.lists(parts, max_size=15).map(lambda groups: [message for group in groups for message in group])
policies = st.integers(1, 30).flatmap(lambda size: st.sampled_from([HistorySlidingWindow(size), HistoryTruncate(size)]))


def orphans(messages):
    """Identities of tool results whose call does not come before them."""
    asked, found = set(), set()
    for message in messages:
        asked |= {call["id"] for call in message.tool_calls or []}
        if message.role == "tool" and message.tool_call_id not in asked:
            found.add(id(message))
    return found


def unanswered(messages):
    """Identities of messages with a call that has no result after it."""
    told = [message.tool_call_id for message in messages if message.role == "tool"]
    return {id(message) for message in messages if any(call["id"] not in told for call in message.tool_calls or [])}


@given(messages=conversations, policy=policies)
def test_no_result_loses_its_call_and_no_call_its_result(messages, policy):
    kept = asyncio.run(policy.compact(messages))
    assert orphans(kept) <= orphans(messages)
    assert unanswered(kept) <= unanswered(messages)


@given(messages=conversations, policy=policies)
def test_the_last_question_and_the_leading_system_messages_stay(messages, policy):
    kept = {id(message) for message in asyncio.run(policy.compact(messages))}
    assert {id(message) for message in [message for message in messages if message.role == "user"][-1:]} <= kept
    leading = next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))
    assert {id(message) for message in messages[:leading]} <= kept
    assert bool(kept) is bool(messages)


@given(messages=conversations, policy=policies)
def test_what_begins_with_a_question_is_sent_from_a_question_on(messages, policy):
    kept = asyncio.run(policy.compact([SYSTEM, QUESTION, *messages]))
    assert [message.role for message in kept[:2]] == ["system", "user"]


@given(messages=conversations, policy=policies)
def test_messages_keep_their_order_and_are_not_changed(messages, policy):
    before = deepcopy(messages)
    kept = asyncio.run(policy.compact(messages))
    assert messages == before
    places = [next(index for index, message in enumerate(messages) if message is one) for one in kept]
    assert places == sorted(set(places))


@given(messages=conversations, size=st.integers(1, 30))
def test_the_window_is_passed_only_by_what_must_stay(messages, size):
    body = window(messages, size)
    body = body[sum(1 for _ in iter_leading(body)) :]
    smallest = window(messages, 1)
    smallest = smallest[sum(1 for _ in iter_leading(smallest)) :]
    assert len(body) <= max(size, len(smallest))


def iter_leading(messages):
    for message in messages:
        if message.role != "system":
            return
        yield message


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "20", None, True])
def test_a_wrong_limit_is_refused(wrong):
    with pytest.raises(ErrorConfig, match="window_size must be a positive int"):
        HistorySlidingWindow(wrong)
    with pytest.raises(ErrorConfig, match="max_tokens must be a positive int"):
        HistoryTruncate(wrong)


def test_the_defaults_are_those_of_the_documentation():
    assert (HistorySlidingWindow().window_size, HistoryTruncate().max_tokens) == (20, 100_000)


def test_policies_keep_the_protocol():
    assert isinstance(HistorySlidingWindow(), History)
    assert isinstance(HistoryTruncate(), History)


def test_an_agent_sends_what_its_policy_leaves_and_keeps_the_rest():
    model = ModelScripted([ToolCall("1", "work", {}), ToolCall("2", "work", {}), "ok"])

    def work() -> str:
        """Works."""
        return "done"

    agent = Agent("a", model=model, tools=[work], instructions="Be brief.", history=HistorySlidingWindow(3))
    result = agent.run("go")
    assert [message.role for message in model.requests[-1].messages] == ["system", "user", "assistant", "tool"]
    assert len(result.messages) == 7


def test_the_second_run_of_a_conversation_is_sent_from_a_question_on():
    model = ModelScripted(["one", "two"])
    agent = Agent("a", model=model, memory=Memory(), history=HistorySlidingWindow(2))
    agent.run("first")
    agent.run("second")
    assert model.requests[-1].messages == [Message("user", "second")]
