"""Tags of runs, and runs of which nothing is kept."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing

import pytest

from agentroute import Agent, ErrorConfig, Memory, RunStore, ToolCall, runs
from agentroute.testing import ModelScripted


@pytest.fixture
def store(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


def agent_of(store, *, answers=("done",), name="poet", **settings):
    return Agent(name, model=ModelScripted(list(answers)), store=store, **settings)


def tags_of(store):
    return {row.agent_name: json.loads(row.tags or "null") for row in runs(store).itertuples()}


async def _streamed(agent, tags):
    async with agent.stream("Hi", tags=tags) as stream:
        async for _ in stream:
            pass


WAYS = {
    "run": lambda agent, tags: agent.run("Hi", tags=tags),
    "arun": lambda agent, tags: asyncio.run(agent.arun("Hi", tags=tags)),
    "for": lambda agent, tags: list(agent.stream("Hi", tags=tags)),
    "async for": lambda agent, tags: asyncio.run(_streamed(agent, tags)),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_run_has_its_agents_tags_and_its_own(store, way):
    agent = agent_of(store, tags={"tenant": "a", "version": "1"})
    WAYS[way](agent, {"version": "2", "topic": "Zoë"})
    assert tags_of(store) == {"poet": {"tenant": "a", "version": "2", "topic": "Zoë"}}
    assert agent.tags == {"tenant": "a", "version": "1"}


def test_a_run_without_tags_has_none(store):
    agent_of(store).run("Hi")
    assert runs(store)["tags"].isna().all()


def test_a_run_begun_by_a_tool_has_the_tags_around_it(store):
    inner = agent_of(store, name="inner", tags={"part": "inner", "tenant": "none"})

    def ask() -> str:
        return inner.run("Sub", tags={"tenant": "b"}).output

    agent_of(store, answers=[[ToolCall("1", "ask", "{}")], "done"], tools=[ask], tags={"tenant": "a", "team": "x"}).run("Hi")
    assert tags_of(store)["inner"] == {"tenant": "b", "team": "x", "part": "inner"}


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ("tenant=a", "must be a dictionary of texts"),
        (["tenant"], "must be a dictionary of texts"),
        ({"tenant": 3}, "the tag 'tenant' must be a text, got int: 3"),
        ({"tenant": None}, "the tag 'tenant' must be a text, got NoneType"),
        ({3: "a"}, "the name of a tag must be a text"),
        ({"": "a"}, "the name of a tag must be a text"),
        ({"a=b": "c"}, "without '='"),
    ],
)
def test_tags_that_are_none_are_refused_before_anything_is_asked(store, tags, words):
    agent = agent_of(store)
    with pytest.raises(ErrorConfig, match=words):
        agent.run("Hi", tags=tags)
    with pytest.raises(ErrorConfig, match=words):
        agent_of(store, tags=tags)
    with pytest.raises(ErrorConfig, match=words):
        agent.tags = tags
    assert runs(store).empty


def test_of_an_agent_that_is_not_to_be_recorded_nothing_is_kept(store):
    result = agent_of(store, record=False).run("Hi")
    assert runs(store).empty
    assert result.record.run.output_text == result.output == "done"


def test_a_run_says_whether_it_is_recorded(store):
    agent = agent_of(store, answers=["one", "two"])
    agent.run("Hi", record=False)
    assert runs(store).empty
    agent.record = False
    agent.run("Hi", record=True)
    assert runs(store)["output_text"].tolist() == ["two"]


def test_of_runs_begun_by_a_run_that_is_not_recorded_nothing_is_kept(store):
    inner = agent_of(store, name="inner")

    def ask() -> str:
        return inner.run("Sub", record=True).output

    agent_of(store, answers=[[ToolCall("1", "ask", "{}")], "done"], tools=[ask], record=False).run("Hi")
    assert runs(store).empty


def test_a_memory_keeps_a_conversation_that_is_not_recorded(store):
    memory = Memory()
    agent_of(store, memory=memory, record=False).run("Hi")
    assert [message.content for message in asyncio.run(memory.get_messages())] == ["Hi", "done"]


@pytest.mark.parametrize("record", ["no", 0, 1])
def test_whether_a_run_is_recorded_is_true_or_false(store, record):
    with pytest.raises(ErrorConfig, match="record must be True or False"):
        agent_of(store).run("Hi", record=record)
    with pytest.raises(ErrorConfig, match="record must be True or False"):
        agent_of(store, record=record)
