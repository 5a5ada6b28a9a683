"""Tools that need approval: who decides, what the model is told, and when the run ends for it."""

import asyncio

import pytest

from agentroute import Agent, Deny, Memory, ToolCall, tool
from agentroute.testing import ModelScripted


def refunds(done: list[float], **options: object):
    @tool(needs_approval=True, **options)
    def refund(amount: float) -> str:
        done.append(amount)
        return "refunded"

    return refund


CALL = ToolCall("1", "refund", {"amount": 5})


def told(result) -> list[str]:
    return [message["content"] for message in result.messages if message["role"] == "tool"]


@pytest.mark.parametrize(
    ("verdict", "words", "ran"),
    [
        (True, "refunded", [5.0]),
        (False, "Not run: the user denied it.", []),
        ("too much", "Not run: the user denied it (too much).", []),
        (Deny(), "Not run: the user denied it.", []),
        (Deny("too much"), "Not run: the user denied it (too much).", []),
    ],
)
def test_a_verdict_decides_and_is_told_to_the_model(verdict, words, ran):
    done: list[float] = []
    agent = Agent("a", model=ModelScripted([CALL, "ok"]), tools=[refunds(done)], approve=lambda ctx, call: verdict)
    result = agent.run("go")
    assert (told(result), done, result.output, result.interrupted) == ([words], ran, "ok", False)


def test_where_nobody_can_answer_the_call_is_denied():
    done: list[float] = []
    result = Agent("a", model=ModelScripted([CALL, "ok"]), tools=[refunds(done)]).run("go")
    assert done == []
    assert told(result) == ["Not run: refund needs approval, and nobody can give it here. Do not call it again."]


def test_the_runs_handler_stands_before_the_agents():
    done: list[float] = []
    agent = Agent("a", model=ModelScripted([CALL, "ok"]), tools=[refunds(done)], approve=lambda ctx, call: False)
    agent.run("go", approve=lambda ctx, call: True)
    assert done == [5.0]


def test_arun_and_stream_take_a_handler_too():
    done: list[float] = []
    agent = Agent("a", model=ModelScripted([CALL, "ok", CALL, "ok"]), tools=[refunds(done)])
    asyncio.run(agent.arun("go", approve=lambda ctx, call: True))
    assert [event.kind for event in agent.stream("go", approve=lambda ctx, call: True)][-1] == "agent_end"
    assert done == [5.0, 5.0]


def test_a_denial_may_end_the_run():
    done: list[float] = []
    model, memory = ModelScripted([[CALL, ToolCall("2", "harmless", {})], "never"]), Memory()

    def harmless() -> str:
        return "done"

    agent = Agent("a", model=model, tools=[refunds(done), harmless], memory=memory, approve=lambda ctx, call: Deny("stop", interrupt=True))
    result = agent.run("go")
    assert (result.output, result.interrupted, done, len(model.requests)) == (None, True, [], 1)
    assert told(result) == ["Not run: the user denied it (stop).", "done"]
    run = result.record.run
    assert (run.status, run.error_type, run.error_text) == ("interrupted", "Denied", "the call of refund was denied, and the run ended there")
    kept = asyncio.run(memory.get_messages())
    assert [message.role for message in kept] == ["user", "assistant", "tool", "tool", "assistant"]
    assert kept[-1].text == "(no answer: refund was denied)"


@pytest.mark.parametrize("verdict", [None, 1, [], b"yes"])
def test_nonsense_from_a_handler_is_a_denial_and_is_told(verdict):
    done: list[float] = []
    agent = Agent("a", model=ModelScripted([CALL, "ok"]), tools=[refunds(done)], approve=lambda ctx, call: verdict)
    with pytest.warns(RuntimeWarning, match="approve must return True, False, a reason .a text. or Deny; it returned"):
        agent.run("go")
    assert done == []


def test_an_async_handler_may_take_its_time():
    async def ask(ctx, call):
        await asyncio.sleep(0)
        return Deny(f"{call.name} {call.arguments}")

    result = Agent("a", model=ModelScripted([CALL, "ok"]), tools=[refunds([])], approve=ask).run("go")
    assert told(result) == ["Not run: the user denied it (refund {'amount': 5.0})."]
