"""Agent: its arguments, copies, and the ways to run it."""

import asyncio
import inspect
import json
import pickle
import re
import threading
import traceback

import pytest

from agentroute import Agent, Context, ErrorConfig, Event, Memory, tool
from agentroute.testing import ModelScripted


def scripted(*answers, **options) -> Agent:
    return Agent("a", model=ModelScripted(list(answers) or ["hello"]), **options)


def test_replace_keeps_everything_else():
    original = scripted(tools=[tool(print)], memory=Memory(), max_turns=3, instructions="x")
    original.output_validator(lambda ctx, output: None)
    copy = original.replace(max_turns=5, temperature=0.5)
    assert (copy.max_turns, copy.temperature, copy.instructions) == (5, 0.5, "x")
    assert (copy.model, copy.memory, copy.tools_map, copy.output_validators) == (
        original.model, original.memory, original.tools_map, original.output_validators,
    )  # fmt: skip
    assert original.max_turns == 3


def test_every_constructor_argument_can_be_read_back():
    agent = scripted()
    assert all(hasattr(agent, name) for name in inspect.signature(Agent).parameters)


def test_a_validator_defined_again_replaces_the_first():
    agent = scripted("x")
    for _ in range(2):

        @agent.output_validator
        def check(ctx, output): ...

    assert len(agent.output_validators) == 1


def test_run_and_arun_give_the_same():
    assert scripted().run("hi").output == asyncio.run(scripted().arun("hi")).output == "hello"


def test_gather_over_one_agent():
    agent = scripted(*["hello"] * 10)

    async def main():
        return await asyncio.gather(*(agent.arun(f"{i}") for i in range(10)))

    assert [str(result) for result in asyncio.run(main())] == ["hello"] * 10


def test_run_works_from_a_thread_and_from_a_plain_tool():
    inner = scripted("inner")

    @tool
    def ask() -> str:
        return inner.run("sub").output

    from agentroute import ToolCall

    outer = scripted(ToolCall("1", "ask", {}), "outer", tools=[ask])
    outputs: list[str] = []
    thread = threading.Thread(target=lambda: outputs.append(outer.run("go").output))
    thread.start()
    thread.join(100)
    assert outputs == ["outer"]


def test_an_async_tool_that_blocks_the_loop_is_told_not_to():
    inner = scripted("inner")

    @tool
    async def ask() -> str:
        return inner.run("sub").output

    from agentroute import ToolCall

    result = scripted(ToolCall("1", "ask", {}), "outer", tools=[ask]).run("go")
    assert "await agent.arun" in result.record.tool_calls[0].result_text


def test_a_stream_can_be_read_with_async_for():
    async def main() -> list[str]:
        stream = scripted("hello you").stream("hi")
        kinds = [event.kind async for event in stream]
        assert stream.result.output == "hello you"
        return kinds

    assert asyncio.run(main())[-1] == "agent_end"


def test_a_failed_stream_raises_after_its_last_event():
    seen = []
    with pytest.raises(ErrorConfig):
        for event in Agent("a").stream("hi"):
            seen.append(event.kind)
    assert seen == ["agent_start", "agent_end"]


def test_events_have_a_kind_and_data():
    events = list(scripted("hello").stream("hi"))
    assert [event.data["delta"] for event in events if event.kind == "text_delta"] == ["hell", "o"]
    assert Event("text_delta", {"delta": "x"}) == Event("text_delta", {"delta": "x"})


def test_context_variables_reach_a_plain_tool():
    import contextvars

    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")

    @tool
    def look(ctx: Context) -> str:
        return variable.get()

    from agentroute import ToolCall

    result = scripted(ToolCall("1", "look", {}), "ok", tools=[look]).run("go")
    assert result.record.tool_calls[0].result_text == "set"


def test_a_stream_left_early_has_a_partial_result():
    agent = Agent("a", model=ModelScripted(["a long answer"] * 2, chunk_s=0.05))
    with agent.stream("hi") as stream:
        for event in stream:
            if event.kind == "text_delta":
                break
    assert stream.result.interrupted
    assert stream.result.usage.model_calls == 1

    async def main() -> None:
        async with agent.stream("hi") as stream:
            async for event in stream:
                if event.kind == "text_delta":
                    break
        assert stream.result.record.run.duration_s is not None

    asyncio.run(main())


def test_a_subclass_keeps_its_kind_and_its_own_attributes():
    class Mine(Agent):
        pass

    mine = Mine("m", model=ModelScripted(["x"]))
    mine.note = "kept"
    copy = mine.replace(max_turns=2)
    assert (type(copy), copy.note, copy.max_turns) == (Mine, "kept", 2)


def test_an_agent_that_was_never_made_can_still_be_shown():
    assert repr(Agent.__new__(Agent)) == "Agent(None)"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_cots", 0.1, "Agent has no setting 'max_cots'; did you mean 'max_cost'?"),
        ("colour", "red", "Agent has no setting 'colour'; it has name, model"),
        ("max_cost", "0.5", "max_cost must be a number of at least 0"),
        ("max_cost", -1, "max_cost must be a number of at least 0"),
        ("max_turns", 0, "max_turns must be a whole number of at least 1"),
        ("retries", "x", "retries must be a whole number"),
        ("approve", True, "approve must be a function"),
        ("model", 5, "model must be a model string or a Model"),
        ("memory", Memory, "memory is the class Memory"),
        ("tools", [], "tools cannot be assigned"),
    ],
)
def test_what_is_assigned_is_checked_as_what_is_given(name, value, words):
    agent = Agent("a", max_cost=0.5)
    with pytest.raises(ErrorConfig, match=re.escape(words)):
        setattr(agent, name, value)
    assert agent.max_cost == 0.5


def test_what_is_assigned_holds_for_the_next_run():
    agent = Agent("a", model=ModelScripted(["one", "two"]))
    agent.model = ModelScripted(["three"])
    agent.max_tokens = 7
    assert (agent.run("go").output, agent.model.requests[0].max_tokens) == ("three", 7)


def test_a_subclass_may_keep_more():
    class Counted(Agent):
        def __init__(self, name: str, **settings: object) -> None:
            super().__init__(name, **settings)
            self.count = 0

    agent = Counted("a", model=ModelScripted(["hi"]))
    agent.count += 1
    assert (agent.count, agent.replace(name="b").count) == (1, 1)


LOGIN = "https://ann:hunter2secret@host.example/v1"


@pytest.mark.parametrize("settings", [{"model": f"{LOGIN}/m"}, {"model": "m", "base_url": LOGIN}], ids=["model", "base_url"])
def test_a_login_in_an_address_is_used_and_never_shown(settings):
    agent = Agent("a", **settings)
    shown = [repr(agent), str(agent.model_dump()), repr(vars(agent)), str(agent.model), str(agent.base_url), json.dumps(agent.model_dump(), default=str)]
    assert [text for text in shown if "hunter2secret" in text] == []
    with pytest.raises(TypeError, match="a Secret is not pickled"):
        pickle.dumps(agent)
    model = agent.replace(name="b")._resolve().inner
    assert model.base_url == "https://host.example/v1"
    assert "authorization" in model.headers


@pytest.mark.parametrize(
    "use",
    [
        lambda key: Agent("a", api_key=f"{key} é"),
        lambda key: Agent("a", api_key=key, max_turns=0),
        lambda key: Agent("a").replace(api_key=key, max_turns=0),
        lambda key: Agent("a").replace(api_key=f"{key} é"),
        lambda key: Agent("a").model_copy(update={"api_key": f"{key} é"}),
        lambda key: Agent.model_validate({"name": "a", "api_key": key, "max_turnz": 0}),
        lambda key: Agent.model_validate({"name": "a", "api_key": f"{key} é"}),
    ],
)
def test_a_key_given_with_a_mistake_is_in_no_traceback_of_ours(use):
    key = "sk-or-hunter2secret"
    with pytest.raises(ErrorConfig) as caught:
        use(key)
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    ours = [frame for frame in frames if "/tests/" not in frame.filename]
    assert ours
    assert [frame.name for frame in ours if "hunter2secret" in str(frame.locals)] == []
