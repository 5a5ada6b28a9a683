"""One run, as a stream of events: turns, tools, answers, limits, failures."""

import asyncio
import threading
import time
from contextlib import aclosing

import pytest
from pydantic import BaseModel

from agentroute import (
    Agent,
    Context,
    ErrorAgent,
    ErrorBudget,
    ErrorConfig,
    ErrorInterrupted,
    ErrorMaxTurns,
    ErrorOutput,
    ErrorRefused,
    ErrorRun,
    ErrorTool,
    ErrorTruncated,
    LLMResponse,
    Memory,
    Message,
    Retry,
    ToolCall,
    tool,
)
from agentroute.errors import ErrorModelServer
from agentroute.events import AgentEnd, ToolCallEnd
from agentroute.testing import ModelFunction, ModelScripted


class Invoice(BaseModel):
    number: str
    total: float


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def agent(*answers, tools=(add,), **options) -> Agent:
    model_options = {key: options.pop(key) for key in ("cost_usd", "delay_s", "chunk_s") if key in options}
    return Agent("test", model=ModelScripted(list(answers), **model_options), tools=list(tools), **options)


def call(name: str = "add", call_id: str = "1", **arguments) -> ToolCall:
    return ToolCall(call_id, name, arguments)


def failed(runner: Agent, kind: type[ErrorAgent], prompt: str = "go", **options) -> ErrorAgent:
    with pytest.raises(kind) as caught:
        runner.run(prompt, **options)
    assert caught.value.result is not None
    return caught.value


# ---- turns and tools


def test_a_tool_call_is_run_and_its_result_sent_back():
    runner = agent(call(a=1, b=2), "It is 3.")
    result = runner.run("1+2?")
    assert result.output == "It is 3."
    assert runner.model.requests[1].messages[-1] == Message("tool", "3", tool_call_id="1", name="add")


def test_the_events_come_in_order():
    kinds = [event.kind for event in agent(call(a=1, b=2), "three").stream("1+2?")]
    assert kinds == [
        "agent_start", "turn_start", "turn_end", "tool_call_start", "tool_call_end",
        "turn_start", "text_delta", "text_delta", "turn_end", "agent_end",
    ]  # fmt: skip


def test_instructions_come_first_and_only_once():
    runner = agent(call(a=1, b=2), "done", instructions="Be brief.")
    runner.run("hi")
    assert [message.role for message in runner.model.requests[1].messages] == ["system", "user", "assistant", "tool"]


def test_a_streamed_run_and_a_plain_one_give_the_same_result():
    plain = agent(call(a=1, b=2), "three").run("1+2?")
    stream = agent(call(a=1, b=2), "three").stream("1+2?")
    list(stream)
    assert (stream.result.output, stream.result.messages, stream.result.usage) == (plain.output, plain.messages, plain.usage)


def test_parallel_tools_run_side_by_side_and_answer_in_call_order():
    together = threading.Barrier(4, timeout=30)
    free = {number: threading.Event() for number in (1, 2, 3, 4)}

    @tool
    def wait(number: int) -> int:
        together.wait()  # passes only while all four are inside
        assert free[number].wait(30)
        return number

    runner = agent([call("wait", str(number), number=number) for number in free], "done", tools=[wait])
    ends = []
    following = iter([free[3], free[1], free[4], threading.Event()])
    free[2].set()
    for ended in (event.record.call_index for event in runner.stream("go") if isinstance(event, ToolCallEnd)):
        ends.append(ended)
        next(following).set()
    assert ends == [2, 3, 1, 4]
    assert [m.content for m in runner.model.requests[1].messages if m.role == "tool"] == ["1", "2", "3", "4"]


def test_a_blocking_tool_does_not_block_the_loop():
    began, loop_goes_on = threading.Event(), threading.Event()

    @tool
    def block() -> bool:
        began.set()
        return loop_goes_on.wait(30)

    async def main() -> str:
        running = asyncio.ensure_future(agent(call("block"), "done", tools=[block]).arun("go"))
        while not began.is_set():
            await asyncio.sleep(0.01)
        loop_goes_on.set()
        return (await running).record.tool_calls[0].result_text

    assert asyncio.run(main()) == "true"


@pytest.mark.parametrize(
    ("asked", "error_type", "told"),
    [
        (call("nothing"), "UnknownTool", "There is no tool 'nothing'. Tools: add."),
        (call(a="x", b=2), "InvalidArguments", 'a: expected an integer (got "x")'),
        (call(a=1), "InvalidArguments", "b: missing; it is required"),
        (call(a=1, b=2, c=3), "InvalidArguments", "c: there is no such argument"),
        (ToolCall("1", "add", "{broken"), "InvalidArguments", "not valid JSON"),
        (ToolCall("1", "add", "[1, 2]"), "InvalidArguments", "expected an object (got [1, 2])"),
    ],
)
def test_a_wrong_call_is_not_run_and_the_model_is_told_why(asked, error_type, told):
    result = agent(asked, "sorry").run("go")
    assert result.output == "sorry"
    record = result.record.tool_calls[0]
    assert (record.status, record.error_type) == ("error", error_type)
    assert told in record.result_text


def test_arguments_that_are_no_json_are_not_echoed():
    runner = agent(ToolCall("1", "add", "{broken"), "sorry")
    result = runner.run("go")
    assert runner.model.requests[1].messages[-2].tool_calls[0]["function"]["arguments"] == "{}"
    assert result.record.tool_calls[0].arguments_text == "{broken"


def test_text_numbers_are_coerced():
    assert agent(ToolCall("1", "add", '{"a": "1", "b": 2.0}'), "ok").run("go").record.tool_calls[0].result_text == "3"


def _broken_message() -> Exception:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    return Broken()


@pytest.mark.parametrize(
    "error",
    [ValueError("bad"), StopIteration("x"), RecursionError(), MemoryError(), SystemExit(3), ExceptionGroup("g", [ValueError("a")]),
     Exception("x" * 1_000_000), Exception("\x1b[31mred\u202e"), _broken_message()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("asynchronous", [True, False])
def test_whatever_a_tool_raises_is_told_to_the_model(error, asynchronous):
    def fail() -> str:
        raise error

    async def afail() -> str:
        raise error if not isinstance(error, StopIteration) else RuntimeError("StopIteration")

    runner = agent(call("fail"), "went on", tools=[tool(name="fail")(afail if asynchronous else fail)])
    result = runner.run("go")
    assert result.output == "went on"
    text = result.record.tool_calls[0].result_text
    assert text.startswith("Error: ")
    assert len(text) < 5000
    assert not set(text) & set("\x1b\u202e")


def test_a_tool_that_takes_too_long_is_stopped_and_the_run_goes_on():
    released = threading.Event()

    @tool(timeout=0.2)
    def slow() -> str:
        released.wait(60)
        return "late"

    began = time.perf_counter()
    result = agent(call("slow"), "went on", tools=[slow]).run("go")
    released.set()
    assert time.perf_counter() - began < 20
    assert result.record.tool_calls[0].error_type == "TimeoutError"
    assert "took longer than 0.2 s" in result.record.tool_calls[0].result_text


def test_the_context_tells_a_tool_where_it_is_and_cannot_be_used_to_change_the_run():
    seen = []

    @tool
    def look(word: str, ctx: Context) -> str:
        seen.append((word, ctx.deps, ctx.step, ctx.session_id, ctx.agent_name, ctx.messages[-1]["tool_calls"][0]["function"]["name"]))
        ctx.usage.total_cost_usd = -5
        ctx.messages.clear()
        return "ok"

    result = agent(call("look", word="w"), "done", tools=[look], cost_usd=0.25).run("go", deps={"k": 1}, session_id="s")
    assert seen == [("w", {"k": 1}, 1, "s", "test", "look")]
    assert result.usage.total_cost_usd == 0.5
    assert len(result.messages) == 4


def test_the_model_cannot_supply_the_context():
    @tool
    def look(ctx: Context) -> str:
        return type(ctx).__name__

    result = agent(ToolCall("1", "look", {"ctx": "mine"}), "done", tools=[look]).run("go")
    assert result.record.tool_calls[0].error_type == "InvalidArguments"


# ---- approval


def _always(verdict):
    def approve(ctx, call):
        return verdict

    async def aapprove(ctx, call):
        return verdict

    return [approve, aapprove, lambda ctx, call: aapprove(ctx, call)]


@pytest.mark.parametrize(
    ("verdict", "told"),
    [(True, "done"), (False, "Not run: the user denied it."), ("too dear", "Not run: the user denied it (too dear)."), (None, "Not run: the user denied it.")],
)
@pytest.mark.parametrize("form", [0, 1, 2], ids=["plain", "async", "awaitable"])
def test_a_tool_that_needs_approval_runs_only_when_approved(verdict, told, form):
    ran = []
    risky = tool(name="risky", needs_approval=True)(lambda: ran.append(1) or "done")
    result = agent(call("risky"), "went on", tools=[risky], approve=_always(verdict)[form]).run("go")
    assert (result.record.tool_calls[0].result_text, len(ran)) == (told, verdict is True)
    assert result.output == "went on"


def test_without_anybody_to_ask_it_is_denied():
    ran = []
    risky = tool(name="risky", needs_approval=True)(lambda: ran.append(1))
    record = agent(call("risky"), "went on", tools=[risky]).run("go").record.tool_calls[0]
    assert (record.error_type, ran) == ("Denied", [])
    assert "nobody can give it" in record.result_text


def test_whether_approval_is_needed_can_depend_on_the_arguments():
    asked = []
    pay = tool(name="pay", needs_approval=lambda ctx, arguments: arguments["amount"] > 100)(lambda amount: amount)
    calls = [call("pay", str(amount), amount=amount) for amount in (5, 500)]
    runner = agent(calls, "ok", tools=[pay], approve=lambda ctx, call: asked.append(call.arguments_text) or True)
    assert [record.status for record in runner.run("go").record.tool_calls] == ["ok", "ok"]
    assert asked == ['{"amount": 500}']


def test_an_approval_that_fails_is_no_approval():
    ran = []
    risky = tool(name="risky", needs_approval=True)(lambda: ran.append(1))
    with pytest.warns(RuntimeWarning, match="deciding on the call of risky failed .ZeroDivisionError: division by zero.; taken as a denial"):
        record = agent(call("risky"), "on", tools=[risky], approve=lambda ctx, call: 1 / 0).run("go").record.tool_calls[0]
    assert (record.error_type, record.result_text, ran) == ("Denied", "Not run: the user denied it (it could not be decided).", [])


# ---- nested runs


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_run_inside_a_tool_counts_in_the_parents_usage(how):
    inner = agent("inner answer", cost_usd=0.5)

    def ask() -> str:
        return inner.run("sub").output

    async def aask() -> str:
        return (await inner.arun("sub")).output

    outer = agent(call("ask"), "done", tools=[tool(name="ask")(ask if how == "sync" else aask)], cost_usd=0.1)
    result = outer.run("go")
    assert result.usage.total_cost_usd == pytest.approx(0.7)
    assert result.usage.model_calls == 3
    assert result.record.run.cost_usd == pytest.approx(0.2)
    assert result.record.tool_calls[0].cost_usd == 0.5


# ---- limits


def test_max_turns_ends_an_endless_run_after_exactly_that_many_requests():
    runner = Agent("loop", model=ModelFunction(lambda request: call(a=1, b=1)), tools=[add], max_turns=3)
    error = failed(runner, ErrorMaxTurns)
    assert (error.turn, error.limit, len(runner.model.requests)) == (4, 3, 3)
    assert len(error.result.record.tool_calls) == 3


def test_max_cost_stops_before_the_next_request():
    runner = Agent("dear", model=ModelFunction(lambda request: call(a=1, b=1), cost_usd=0.2), tools=[add], max_cost=0.5)
    error = failed(runner, ErrorBudget)
    assert (round(error.spent, 6), error.limit, len(runner.model.requests)) == (0.6, 0.5, 3)
    assert error.result.usage.total_cost_usd == pytest.approx(0.6)


def test_an_answer_that_went_over_the_limit_is_not_thrown_away():
    assert failed(agent("the answer", cost_usd=1.0, max_cost=0.5), ErrorBudget).result.output == "the answer"


def test_a_cost_nobody_reports_is_not_free():
    error = failed(agent(call(a=1, b=1), "never asked", cost_usd=None, max_cost=0.5), ErrorBudget)
    assert "the cost of a call to scripted is unknown" in str(error)


def test_limits_of_a_run_override_the_agents():
    runner = agent(call(a=1, b=1), call(a=1, b=1), "done", max_turns=1)
    assert runner.run("go", max_turns=3).output == "done"
    failed(agent("x", cost_usd=1.0), ErrorBudget, max_cost=0.1)


# ---- structured output


def test_the_answer_is_of_the_type_asked_for():
    result = agent(call("final_answer", number="42", total=199.0), output=Invoice).run("read it")
    assert result.output == Invoice(number="42", total=199.0)
    assert result.messages[-1] == {"role": "assistant", "content": '{"number": "42", "total": 199.0}'}


def test_other_tools_can_be_called_before_the_final_answer():
    runner = agent(call(a=1, b=2), call("final_answer", number="1", total=3), output=Invoice)
    assert runner.run("go").output.total == 3
    assert runner.model.requests[0].tool_choice == "auto"


def test_without_other_tools_the_answer_is_required():
    runner = agent(call("final_answer", number="1", total=3), output=Invoice, tools=[])
    runner.run("go")
    assert runner.model.requests[0].tool_choice == "required"


@pytest.mark.parametrize(
    ("kind", "wire", "value"),
    [(list[int], {"value": [1, 2]}, [1, 2]), (int, {"value": 7}, 7), (Invoice | None, {"value": None}, None), (dict[str, int], {"a": 1}, {"a": 1})],
)
def test_types_that_are_no_object_are_wrapped_and_unwrapped(kind, wire, value):
    assert agent(call("final_answer", **wire), output=kind).run("go").output == value


def test_a_typed_answer_given_as_text_is_read_all_the_same():
    assert agent('Sure:\n```json\n{"number": "1", "total": 2}\n```', output=Invoice).run("go").output.total == 2


def test_a_wrong_answer_is_sent_back_within_retries():
    runner = agent(call("final_answer", number="1"), call("final_answer", number="1", total=5), output=Invoice)
    assert runner.run("go").output.total == 5
    assert "total: missing" in runner.model.requests[1].messages[-1].content


def test_retries_are_counted_exactly():
    wrong = [call("final_answer", number="1")] * 5
    for retries in (0, 1, 2):
        runner = agent(*wrong, output=Invoice, retries=retries)
        failed(runner, ErrorOutput)
        assert len(runner.model.requests) == retries + 1


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_validator_can_ask_again_and_replace(asynchronous):
    runner = agent(call("final_answer", number="1", total=-5), call("final_answer", number="1", total=5), output=Invoice)

    def positive(ctx: Context, output: Invoice) -> Invoice:
        if output.total <= 0:
            raise Retry("total must be greater than zero")
        return output.model_copy(update={"number": f"checked {ctx.retry}"})

    async def apositive(ctx: Context, output: Invoice) -> Invoice:
        return positive(ctx, output)

    runner.output_validator(apositive if asynchronous else positive)
    assert runner.run("go").output == Invoice(number="checked 1", total=5)
    assert "total must be greater than zero" in runner.model.requests[1].messages[-1].content


def test_an_answer_beside_other_calls_leaves_no_call_unanswered():
    runner = agent(
        [call(call_id="a", a=1, b=2), call("final_answer", "b", number="1")], call("final_answer", number="1", total=2), output=Invoice
    )
    assert runner.run("go").output.total == 2
    told = {message.tool_call_id: message.content for message in runner.model.requests[1].messages if message.role == "tool"}
    assert told["a"].startswith("Not run")
    assert "total: missing" in told["b"]


def test_a_failing_validator_ends_the_run_with_an_agent_error():
    runner = agent("x")
    runner.output_validator(lambda ctx, output: 1 / 0)
    assert isinstance(failed(runner, ErrorRun).__cause__, ZeroDivisionError)


def test_tool_retries_are_bounded():
    @tool
    def picky(x: int) -> str:
        raise Retry("use a bigger x")

    runner = Agent("t", model=ModelFunction(lambda request: call("picky", x=1)), tools=[picky], retries=2)
    error = failed(runner, ErrorTool)
    assert (error.tool_name, len(runner.model.requests)) == ("picky", 3)


# ---- answers that are none


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (LLMResponse(None, refusal="I will not"), ErrorRefused),
        (LLMResponse("par", finish_reason="content_filter"), ErrorRefused),
        (LLMResponse(None, [call(a=1, b=2).to_wire()], finish_reason="length"), ErrorTruncated),
    ],
)
def test_refusals_and_cut_tool_calls_are_errors(response, kind):
    error = failed(agent(response), kind)
    assert error.result.record.tool_calls == []


def test_a_cut_typed_answer_is_an_error_and_a_cut_text_is_marked():
    failed(agent(LLMResponse('{"number', finish_reason="length"), output=Invoice), ErrorTruncated)
    result = agent(LLMResponse("half a sen", finish_reason="length")).run("go")
    assert (result.output, result.record.turns[0].finish_reason) == ("half a sen", "length")


def test_an_empty_answer_is_an_empty_text():
    assert agent(LLMResponse(None, finish_reason="stop")).run("go").output == ""


@pytest.mark.parametrize("prompt", ["", "  \n", None])
def test_an_empty_prompt_is_refused_before_any_request(prompt):
    runner = agent("x")
    failed(runner, ErrorConfig, prompt=prompt)
    assert runner.model.requests == []


def test_a_model_that_fails_ends_the_run_with_what_was_done():
    error = failed(agent(call(a=1, b=2), ErrorModelServer("gone", status=500)), ErrorModelServer)
    assert [record.result_text for record in error.result.record.tool_calls] == ["3"]
    assert [turn.error_type for turn in error.result.record.turns] == [None, "ErrorModelServer"]
    assert error.result.record.run.status == "error"


# ---- stopping


def test_leaving_a_stream_early_stops_the_tool():
    began, stopped = threading.Event(), threading.Event()

    @tool
    async def forever() -> str:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()
        return "never"

    @tool
    def short() -> str:
        return "over" if began.wait(30) else "?"

    for event in agent([call("forever"), call("short", "2")], tools=[forever, short]).stream("go"):
        if isinstance(event, ToolCallEnd):
            break
    assert stopped.wait(30)


def test_cancelling_stops_the_tool_and_still_tells_the_end():
    began, stopped, seen = [], [], []

    @tool
    async def forever() -> str:
        began.append(True)
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(True)
        return "never"

    async def consume() -> None:
        async with aclosing(agent(call("forever"), tools=[forever]).events("go")) as events:
            async for event in events:
                seen.append(event)

    async def main() -> None:
        task = asyncio.create_task(consume())
        while not began:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    end = seen[-1]
    assert stopped == [True]
    assert isinstance(end, AgentEnd)
    assert isinstance(end.error, ErrorInterrupted)
    assert end.result.interrupted
    assert end.result.record.run.status == "interrupted"
    assert end.result.record.tool_calls[0].status == "interrupted"


def test_text_that_came_before_the_stop_is_kept():
    async def main() -> AgentEnd:
        seen = []

        async def consume() -> None:
            async for event in agent("a long answer that takes its time", chunk_s=0.02).events("go"):
                seen.append(event)

        task = asyncio.create_task(consume())
        while not any(event.kind == "text_delta" for event in seen):
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return seen[-1]

    end = asyncio.run(main())
    assert end.result.messages[-1]["role"] == "assistant"
    assert "a long answer that takes its time".startswith(end.result.messages[-1]["content"])


# ---- memory


def test_a_conversation_goes_on_in_the_next_run():
    memory = Memory()
    runner = agent("Hello Ada.", "Ada.", memory=memory, instructions="Be kind.")
    runner.run("I am Ada.")
    runner.run("Who am I?")
    assert [message.text for message in runner.model.requests[1].messages] == ["Be kind.", "I am Ada.", "Hello Ada.", "Who am I?"]


def test_sessions_are_kept_apart():
    runner = agent("1", "2", "3", memory=Memory())
    for session in ("a", "b", "a"):
        runner.run(f"in {session}", session_id=session)
    assert [message.text for message in runner.model.requests[2].messages] == ["in a", "1", "in a"]


def test_a_failed_run_keeps_the_users_message_and_a_valid_history():
    memory = Memory()
    failed(agent(call(a=1, b=2), call(a=1, b=2), memory=memory, max_turns=1), ErrorMaxTurns)
    assert [message.role for message in asyncio.run(memory.get_messages())] == ["user", "assistant", "tool", "assistant"]
    failed(agent(LLMResponse(None, [call(a=1, b=2).to_wire()], finish_reason="length"), memory=memory), ErrorTruncated)
    kept = asyncio.run(memory.get_messages())
    assert [message.role for message in kept] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert kept[-1].text == "(no answer: ErrorTruncated)"


def test_plain_tools_can_use_the_memory():
    memory = Memory()

    @tool
    def note(ctx: Context) -> list[str]:
        ctx.memory.remember("colour", "blue")
        return ctx.memory.recall("colour")

    result = agent(call("note"), "ok", tools=[note], memory=memory).run("go")
    assert "blue" in result.record.tool_calls[0].result_text


# ---- what a reviewer found


def test_approval_is_asked_about_what_the_function_will_receive():
    ran = []

    @tool(needs_approval=lambda ctx, arguments: arguments["force"] is True)
    def delete(path: str, force: bool = True) -> str:
        ran.append(path)
        return "deleted"

    calls = [ToolCall("1", "delete", {"path": "/", "force": "yes"}), ToolCall("2", "delete", {"path": "/"})]
    result = agent(calls, "ok", tools=[delete]).run("go")
    assert ([record.error_type for record in result.record.tool_calls], ran) == (["Denied", "Denied"], [])


def _comes_to_rest(growing: list[object], within_s: float = 30.0) -> bool:
    """Whether a list stops growing in that time."""
    end, size = time.monotonic() + within_s, -1
    while size != len(growing) and time.monotonic() < end:
        size = len(growing)
        time.sleep(0.5)
    return size == len(growing)


def _spender(seconds: float = 0.05) -> Agent:
    """An agent that would go on for ever, paying a dollar a call."""
    model = ModelFunction(lambda request: call(a=1, b=1), cost_usd=1.0, delay_s=seconds)
    return Agent("spender", model=model, tools=[add], max_turns=10_000)


@pytest.mark.parametrize("how", ["tool timeout", "run cancelled"])
def test_a_run_that_a_plain_tool_waits_for_stops_with_it(how):
    child = _spender()
    ask = tool(name="ask", timeout=0.4 if how == "tool timeout" else None)(lambda: child.run("go").output)
    outer = agent(call("ask"), "went on", tools=[ask])

    async def main() -> None:
        async with asyncio.timeout(0.4 if how == "run cancelled" else 60):
            await outer.arun("go")

    if how == "run cancelled":
        with pytest.raises(TimeoutError):
            asyncio.run(main())
    else:
        asyncio.run(main())
    assert _comes_to_rest(child.model.requests)


def test_what_a_stopped_run_of_a_tool_has_spent_is_counted():
    child = _spender()
    ask = tool(name="ask", timeout=2.0)(lambda: child.run("go").output)
    usage = agent(call("ask"), "went on", tools=[ask]).run("go").usage
    assert usage.total_cost_usd >= len(child.model.requests) - 1 > 0


def test_max_cost_is_checked_before_tools_do_their_work():
    ran = []
    pay = tool(name="pay")(lambda: ran.append(1))
    failed(agent(call("pay"), tools=[pay], cost_usd=1.0, max_cost=0.5), ErrorBudget)
    assert ran == []


def test_a_run_inside_a_tool_keeps_the_outer_limit():
    child = _spender(0.0)

    @tool
    async def ask() -> str:
        return (await child.arun("go")).output

    error = failed(agent(call("ask"), "never", tools=[ask], cost_usd=0.0, max_cost=3.0), ErrorBudget)
    assert (error.spent, len(child.model.requests)) == (3.0, 3)


def test_a_session_needs_a_memory_that_has_sessions():
    class Plain:
        async def get_messages(self, limit=None): ...
        async def add_messages(self, messages): ...

    runner = agent("x", memory=Plain())
    with pytest.raises(ErrorConfig, match=r"Plain has no session\(session_id\)"):
        runner.run("go", session_id="ann")


def test_validators_are_run_as_tools_are():
    judge = agent("fine", cost_usd=1.0)
    memory = Memory()
    runner = agent("answer", cost_usd=0.1, memory=memory)

    @runner.output_validator
    def check(ctx, output):
        ctx.memory.remember("seen", "yes")
        judge.run("is it good?")

    result = runner.run("go")
    assert (result.usage.total_cost_usd, result.usage.model_calls) == (1.1, 2)
    assert asyncio.run(memory.recall("seen")) != []


def test_a_validator_that_exits_ends_only_its_own_run():
    runner = agent("x")
    runner.output_validator(lambda ctx, output: (_ for _ in ()).throw(SystemExit(3)))
    failed(runner, ErrorRun)
    assert agent("still alive").run("go").output == "still alive"


def test_the_output_of_a_text_run_is_always_a_text():
    runner = agent("x")
    runner.output_validator(lambda ctx, output: 3)
    with pytest.raises(ErrorRun, match="the answer is a text, and an output validator returned int; give the agent output=") as caught:
        runner.run("go")
    assert caught.value.result.output == "x"


def test_cancelling_while_the_memory_is_written_loses_nothing():
    async def main() -> AgentEnd:
        seen, writing = [], asyncio.Event()

        class Slow(Memory):
            async def add_messages(self, messages):
                writing.set()
                await asyncio.sleep(60)

        async def consume() -> None:
            async for event in agent("paid answer", memory=Slow()).events("go"):
                seen.append(event)

        task = asyncio.create_task(consume())
        await writing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return seen[-1]

    end = asyncio.run(main())
    assert (end.kind, end.error, end.result.output) == ("agent_end", None, "paid answer")


class _Custom(BaseException):
    pass


@pytest.mark.parametrize("error", [asyncio.CancelledError(), _Custom("odd"), GeneratorExit()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_tools_own_odd_exception_does_not_end_the_run(error, asynchronous):
    def plain():
        raise error

    async def asynchronously():
        raise error

    result = agent(call("odd"), "went on", tools=[tool(name="odd")(asynchronously if asynchronous else plain)]).run("go")
    assert (result.output, result.record.tool_calls[0].error_type) == ("went on", type(error).__name__)


def test_a_stopped_run_remembers_the_tools_that_did_run():
    memory = Memory()

    @tool
    async def refund() -> str:
        return "refunded"

    @tool
    async def slow() -> str:
        await asyncio.sleep(60)
        return "never"

    async def main() -> None:
        async with asyncio.timeout(2):
            await agent([call("refund", "a"), call("slow", "b")], tools=[refund, slow], memory=memory).arun("go")

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    kept = asyncio.run(memory.get_messages())
    assert [(message.role, message.tool_call_id) for message in kept[2:]] == [("tool", "a"), ("tool", "b"), ("assistant", None)]
    assert kept[2].text == "refunded"
    assert "not known whether" in kept[3].text


def test_failures_leave_a_conversation_whose_roles_take_turns():
    memory = Memory()
    runner = agent(*[ErrorModelServer("down", status=503)] * 3, LLMResponse(None, refusal="I will not."), "ok", memory=memory)
    for _ in range(3):
        failed(runner, ErrorModelServer)
    failed(runner, ErrorRefused)
    runner.run("at last")
    assert [message.role for message in runner.model.requests[-1].messages] == ["user", "assistant"] * 4 + ["user"]
    assert runner.model.requests[-1].messages[-2].text == "I will not."


def test_a_broken_off_call_counts_as_unknown_or_as_reported():
    for usage, expected in [({}, (None, 1)), ({"cost": 0.5, "prompt_tokens": 7}, (0.5, 0))]:
        error = ErrorModelServer("lost it", sent=True, usage=usage)
        result = failed(agent(error), ErrorModelServer).result
        assert (result.usage.cost_usd, result.usage.unknown_cost_calls) == expected
        assert result.record.run.unknown_cost_calls == expected[1]
    assert failed(agent(ErrorModelServer("refused", status=503)), ErrorModelServer).result.usage.model_calls == 0


def test_a_plain_history_policy_works_and_a_wrong_one_is_named():
    class Last:
        def compact(self, messages, token_budget=None):
            return messages[-1:]

    class Wrong:
        async def compact(self, messages, token_budget=None):
            return [message.to_dict() for message in messages]

    assert agent("ok", history=Last()).run("go").output == "ok"
    failed(agent("ok", history=Wrong()), ErrorConfig)


@pytest.mark.parametrize("prompt", [42, {"a": 1}, [["text"]], [], b"bytes"])
def test_what_is_no_prompt_is_refused(prompt):
    failed(agent("x"), ErrorConfig, prompt=prompt)


def test_a_call_beside_the_final_answer_is_on_record():
    result = agent([call("final_answer", "f", number="1", total=1), call(call_id="x", a=1, b=2)], output=Invoice).run("go")
    assert [(record.tool_name, record.error_type) for record in result.record.tool_calls] == [("add", "NotRun")]


def test_a_finished_result_does_not_change_any_more():
    seen = []

    @tool
    async def start() -> str:
        seen.append(asyncio.create_task(agent("late", cost_usd=1.0, delay_s=0.1).arun("x")))
        return "ok"

    async def main() -> None:
        result = await agent(call("start"), "done", tools=[start]).arun("go")
        await seen[0]
        assert result.usage.total_cost_usd == 0.0

    asyncio.run(main())
