"""What is sent: any conversation comes out as one that every provider takes."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentroute import Agent, LLMRequest, MemorySQLite, Message, ModelCloud, errors, tool
from agentroute.models.quirks import KINDS
from agentroute.models.wire_request import request_body
from tests.server import ModelServer, Raw


def call(call_id: str = "a", name: str = "f", arguments: object = "{}") -> dict:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def sent(*messages: Message, kind: str = "unknown") -> list[dict]:
    return json.loads(request_body(LLMRequest("m", list(messages)), KINDS[kind], stream=False))["messages"]


def roles(*messages: Message) -> str:
    return "".join(message["role"][0] for message in sent(*messages))


USER = Message("user", "go")
ASKS = Message("assistant", None, [call("a"), call("b")])


def result(call_id: str, text: str = "r") -> Message:
    return Message("tool", text, tool_call_id=call_id)


def test_a_call_without_a_result_is_answered():
    _, _, first, second = sent(USER, ASKS, result("a"))
    assert first == {"role": "tool", "content": "r", "tool_call_id": "a"}
    assert second == {"role": "tool", "content": "(no result: the call was interrupted)", "tool_call_id": "b", "name": "f"}


def test_results_come_at_once_and_in_the_order_of_the_calls():
    conversation = sent(USER, ASKS, Message("user", "well?"), result("b", "2"), result("a", "1"), Message("assistant", "ok"))
    assert [message["content"] for message in conversation] == ["go", None, "1", "2", "well?", "ok"]


def test_a_result_nobody_asked_for_is_not_sent():
    assert roles(result("a"), USER, result("b"), Message("assistant", "x"), result("c"), USER) == "uau"
    assert roles(USER, ASKS, result("a"), result("a"), result("b"), result("z")) == "uatt"


def test_the_same_id_in_two_turns_is_two_calls():
    one = Message("assistant", None, [call("a")])
    assert [message.get("content") for message in sent(USER, one, result("a", "1"), one, result("a", "2"))] == ["go", None, "1", None, "2"]
    assert sent(USER, one, one, result("a", "2"))[2]["content"].startswith("(no result")


@pytest.mark.parametrize("content", [None, "", " \n", [], [{"type": "text", "text": " "}]])
def test_an_assistant_message_without_a_word_is_not_sent(content):
    empty = Message("assistant", content, extra={"reasoning": "hm"})
    assert roles(USER, empty) == "u"
    assert roles(empty, USER) == "u"
    assert roles(USER, ASKS, result("a"), result("b"), empty) == "uatt"
    kept = sent(USER, empty, USER)  # some templates insist on roles that take turns
    assert [message["content"] for message in kept] == ["go", "(no text)", "go"]
    assert sent(USER, Message("assistant", content, [call()]), result("a"))[1]["content"] is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [("{}", "{}"), ('{"x": 1}', '{"x": 1}'), ("", "{}"), (None, "{}"), ("null", "{}"), ('{"x"', "{}"), ("[1]", "{}"), ('{"x":1}{"x":2}', "{}"), ({"x": 1}, '{"x": 1}'), ("[" * 100_000, "{}")],
)
def test_arguments_go_back_as_an_object(arguments, text):
    assert sent(USER, Message("assistant", None, [call(arguments=arguments)]), result("a"))[1]["tool_calls"][0]["function"]["arguments"] == text


@pytest.mark.parametrize("text", ["", " \n", None, []])
def test_a_result_is_never_empty(text):
    assert sent(USER, Message("assistant", None, [call()]), Message("tool", text, tool_call_id="a"))[2]["content"] == "(no output)"


MESSAGES = st.one_of(
    st.builds(Message, st.sampled_from(["user", "system"]), st.sampled_from(["x", "y"])),
    st.builds(Message, st.just("assistant"), st.sampled_from([None, "", " ", "said"])),
    st.builds(lambda ids: Message("assistant", None, [call(one) for one in ids]), st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True)),
    st.builds(result, st.sampled_from("abcd")),
)


@given(st.lists(MESSAGES, max_size=12), st.sampled_from(sorted(KINDS)))
def test_any_conversation_comes_out_sendable(messages, kind):
    before = [message.to_dict() for message in messages]
    conversation = sent(*messages, kind=kind)
    assert [message.to_dict() for message in messages] == before
    assert sent(*messages, kind=kind) == conversation
    open_ids: list[str] = []
    for message in conversation:
        answers = message["role"] == "tool"
        assert answers == bool(open_ids)
        assert not answers or message["tool_call_id"] == open_ids.pop(0)
        open_ids += [made["id"] for made in message.get("tool_calls", [])]
        assert message["role"] != "assistant" or message.get("tool_calls") or message["content"].strip()
    assert open_ids == []
    assert [message["content"] for message in conversation if message["role"] in ("user", "system")] == [m.content for m in messages if m.role in ("user", "system")]


def test_a_run_that_was_cancelled_in_a_tool_leaves_a_conversation_that_can_go_on(tmp_path):
    """The server refuses what Anthropic and OpenAI refuse: a call without its result right after it."""

    def strict(body: dict) -> Raw | str:
        open_ids: list[str] = []
        for message in body["messages"]:
            if open_ids and (message["role"] != "tool" or message["tool_call_id"] not in open_ids):
                return Raw(400, [b'{"error":{"message":"tool_use ids were found without tool_result blocks immediately after"}}'])
            open_ids = [one for one in open_ids if one != message.get("tool_call_id")] + [one["id"] for one in message.get("tool_calls", [])]
        return "fine"

    async def cancelled(agent: Agent, began: asyncio.Event) -> None:
        task = asyncio.create_task(agent.arun("go"))
        await began.wait()
        task.cancel()
        with pytest.raises((asyncio.CancelledError, errors.ErrorInterrupted)):
            await task

    async def main(server: ModelServer) -> str:
        began = asyncio.Event()

        async def wait() -> str:
            began.set()
            await asyncio.sleep(60)
            return "never"

        agent = Agent("a", model=server.model, memory=MemorySQLite(tmp_path / "agent.db"), tools=[tool(name="f")(wait)])
        await cancelled(agent, began)
        return (await agent.arun("go on")).output

    message = {"content": None, "tool_calls": [call("a"), call("b", "unknown")]}
    asks = Raw(body=[json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()])
    with ModelServer([asks, strict]) as server:
        assert asyncio.run(main(server)) == "fine"


def test_a_foreign_conversation_is_repaired_on_its_way():
    with ModelServer(["ok"]) as server:
        request = LLMRequest("m", [result("z"), USER, ASKS, result("b"), Message("assistant", ""), Message("user", "on")])
        asyncio.run(ModelCloud(model_id="m", base_url=server.base_url).complete(request))
        assert [message["role"] for message in server.requests[0]["messages"]] == ["user", "assistant", "tool", "tool", "user"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused_before_anything_is_sent(number):
    request = LLMRequest("m", [Message("user", "hi")], extra={"seed": number})
    with pytest.raises(errors.ErrorConfig, match="cannot be written as JSON"):
        request_body(request, stream=False)
