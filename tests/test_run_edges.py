"""Where a run meets its surroundings: readers who leave, threads, approval, memory, timeouts."""

import asyncio
import contextlib
import functools
import threading
import time

import pytest

from agentroute import Agent, Context, Deny, ErrorBudget, ErrorConfig, Memory, Retry, ToolCall, tool
from agentroute._portal import run_blocking
from agentroute.errors import ErrorModelTimeout
from agentroute.events import AgentEnd
from agentroute.testing import ModelFunction, ModelScripted


def agent(*answers, **options) -> Agent:
    cost_usd = options.pop("cost_usd", 0.0)
    return Agent("test", model=ModelScripted(list(answers), cost_usd=cost_usd), **options)


def call(name: str, call_id: str = "1", **arguments) -> ToolCall:
    return ToolCall(call_id, name, arguments)


def left_at(kind: str, how: str) -> tuple[int, int]:
    """Model calls made and tools run by a stream that is left at the first event of a kind, and watched for a while."""
    ran: list[int] = []
    work = tool(name="work")(lambda: ran.append(1))
    runner = agent(*(call("work", str(n)) for n in range(9)), tools=[work])

    def plainly() -> None:
        for event in runner.stream("go"):
            if event.kind == kind:
                time.sleep(0.1)  # long enough for a run that goes ahead to show it
                break

    async def asynchronously() -> None:
        async with runner.stream("go") as events:
            async for event in events:
                if event.kind == kind:
                    break

    plainly() if how == "for" else asyncio.run(asynchronously())
    return len(runner.model.requests), len(ran)


@pytest.mark.parametrize("how", ["for", "async for"])
@pytest.mark.parametrize(("kind", "done"), [("agent_start", (0, 0)), ("turn_end", (1, 0)), ("tool_call_start", (1, 0)), ("tool_call_end", (1, 1))])
def test_a_run_goes_no_further_than_its_reader(kind, how, done):
    assert left_at(kind, how) == done


def test_an_agent_that_calls_itself_through_a_tool_comes_to_an_end():
    runner = Agent("a", model=ModelFunction(lambda request: call("again") if request.messages[-1].role == "user" else request.messages[-1].text))
    runner.tool(name="again")(lambda: str(runner.run("go")))
    assert "runs are nested 20 deep" in runner.run("go").output


def test_asyncio_run_inside_a_tool_stops_with_the_run():
    began, ended = threading.Event(), threading.Event()

    class Slow(ModelFunction):
        async def complete_stream(self, request):
            began.set()
            try:
                await asyncio.sleep(60)
                yield None
            finally:
                ended.set()

    inner = Agent("inner", model=Slow(lambda request: "never"))
    ask = tool(name="ask")(lambda: str(asyncio.run(inner.arun("go"))))

    async def main() -> None:
        running = asyncio.ensure_future(agent(call("ask"), tools=[ask]).arun("go"))
        await asyncio.to_thread(began.wait, 30)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(main())
    assert ended.wait(30)


class Later(Memory):
    """A memory of its own kind, to be used from async code that a thread has begun."""


def async_hooks(seen: list[str]) -> dict[str, object]:
    class Approver:
        async def __call__(self, ctx, call):
            seen.append(str(await ctx.memory.recall("k")))
            return True

    class Validator:
        async def __call__(self, ctx, output):
            seen.append(str(await ctx.memory.recall("k")))

    async def needed(ctx, arguments):
        seen.append(str(await ctx.memory.recall("k")))
        return True

    async def validate(ctx, output):
        seen.append(str(await ctx.memory.recall("k")))

    return {"approve": Approver(), "validator object": Validator(), "needs_approval": needed, "lambda": lambda ctx, output: validate(ctx, output)}


@pytest.mark.parametrize("hook", ["approve", "validator object", "needs_approval", "lambda"])
def test_async_code_that_a_thread_has_begun_can_await_the_memory(hook):
    seen: list[str] = []
    memory = Later()
    asyncio.run(memory.remember("k", "the value of k"))
    hooks = async_hooks(seen)
    work = tool(name="work", needs_approval=hooks["needs_approval"] if hook == "needs_approval" else True)(lambda: "done")
    runner = agent(call("work"), "done", tools=[work], memory=memory, approve=hooks["approve"] if hook == "approve" else lambda ctx, call: True)
    if hook in ("validator object", "lambda"):
        runner.output_validator(hooks[hook])
    assert runner.run("go").output == "done"
    assert seen == ["['the value of k']"]


def test_an_async_tool_under_a_plain_decorator_can_await_the_memory():
    def traced(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    @tool
    @traced
    async def look(ctx: Context) -> str:
        return str(await ctx.memory.recall("k"))

    memory = Memory()
    asyncio.run(memory.remember("k", "the value of k"))
    result = agent(call("look"), "done", tools=[look], memory=memory).run("go")
    assert result.messages[-2]["content"] == "['the value of k']"


def test_a_thread_that_outlives_its_run_is_told_that_the_memory_is_gone():
    problems: list[str] = []
    began, release, told = threading.Event(), threading.Event(), threading.Event()

    @tool
    def late(ctx: Context) -> str:
        began.set()
        release.wait(30)
        try:
            ctx.memory.remember("k", "v")
        except RuntimeError as error:
            problems.append(str(error))
        told.set()
        return "done"

    async def main() -> None:
        running = asyncio.ensure_future(agent(call("late"), tools=[late], memory=Memory()).arun("go"))
        assert await asyncio.to_thread(began.wait, 30)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(main())
    release.set()
    assert told.wait(30)
    assert problems == ["the run has ended, and its memory can no longer be reached (remember)"]


def test_a_correction_of_an_empty_answer_is_not_kept_in_the_memory():
    memory = Memory()
    agent("", '{"value": 3}', output=int, memory=memory).run("go")
    assert [message.role for message in asyncio.run(memory.get_messages())] == ["user", "assistant"]


def test_a_run_that_is_refused_for_its_session_leaves_the_memory_alone():
    class Plain:
        def __init__(self) -> None:
            self.kept: list[object] = []

        async def get_messages(self, limit=None):
            return []

        async def add_messages(self, messages):
            self.kept += messages

    memory = Plain()
    with pytest.raises(ErrorConfig, match="has no session"):
        agent("x", memory=memory).run("secret", session_id="ann")
    assert memory.kept == []


def test_a_cancellation_waits_for_the_memory_to_be_written():
    kept: list[str] = []

    class Slow(Memory):
        async def add_messages(self, messages):
            asyncio.get_running_loop().call_later(0.03, running.cancel)
            await asyncio.sleep(0.1)
            kept.extend(message.text for message in messages)

    async def main() -> None:
        nonlocal running
        running = asyncio.current_task()
        async for _ in agent("the answer", memory=Slow()).events("go"):
            pass

    running: asyncio.Task | None = None
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert kept == ["go", "the answer"]


@pytest.mark.parametrize("stream", [False, True])
def test_timeout_holds_for_any_model(stream):
    slow = Agent("a", model=ModelFunction(lambda request: "late", delay_s=30), timeout=0.05)

    async def main() -> AgentEnd:
        return [event async for event in slow.events("go", stream=stream)][-1]

    end = asyncio.run(main())
    assert type(end.error) is ErrorModelTimeout
    assert "ModelFunction did not answer in full within timeout=0.05 s" in str(end.error)


def test_a_denial_that_ends_the_run_comes_before_a_tool_that_wants_a_correction():
    def picky() -> str:
        raise Retry("again")

    risky = tool(name="risky", needs_approval=True)(lambda: "done")
    runner = agent([call("picky", "1"), call("risky", "2")], tools=[picky, risky], retries=0, approve=lambda ctx, call: Deny("no", interrupt=True))
    assert runner.run("go").interrupted


@pytest.mark.parametrize(("whose", "ended"), [("outer", ["outer", "inner"]), ("inner", ["inner"])])
def test_a_denial_ends_the_runs_up_to_the_one_whose_handler_it_was(whose, ended):
    deny = lambda ctx, call: Deny("no", interrupt=True)  # noqa: E731
    seen: list[str] = []
    risky = tool(name="risky", needs_approval=True)(lambda: "done")
    inner = agent(call("risky"), "inner answer", tools=[risky], approve=deny if whose == "inner" else None)

    def ask() -> str:
        result = inner.run("go")
        seen.extend(["inner"] if result.interrupted else [])
        return str(result)

    outer = agent(call("ask"), "outer answer", tools=[ask], approve=deny if whose == "outer" else None)
    result = outer.run("go")
    assert [*(["outer"] if result.interrupted else []), *seen] == ended


def test_an_answer_stays_reachable_when_a_validators_own_run_passes_the_limit():
    checker = agent("fine", cost_usd=0.5)
    runner = agent("the answer", cost_usd=0.1, max_cost=0.2)
    runner.output_validator(lambda ctx, output: checker.run("check") and None)
    with pytest.raises(ErrorBudget) as caught:
        runner.run("go")
    assert caught.value.result.output == "the answer"


@pytest.mark.parametrize("within", [False, True], ids=["for", "with"])
def test_a_plain_for_is_left_at_once_and_leaves_no_task(within):
    runner = Agent("a", model=ModelFunction(lambda request: "x" * 400, chunk_s=2))
    began = time.perf_counter()
    stream = runner.stream("go")
    with stream if within else contextlib.nullcontext():
        for event in stream:
            if event.kind == "text_delta":
                break
    assert time.perf_counter() - began < 20

    async def tasks() -> list[str]:
        return [task.get_coro().__qualname__ for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert [name for name in run_blocking(tasks) if "pump" in name] == []
