import asyncio
import builtins
import os
import pickle
import signal
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from agentroute import Agent, ErrorInterrupted, ErrorMaxTurns, LLMRequest, Result, ToolCall
from agentroute.events import AgentEnd, AgentStart, Event, TextDelta
from agentroute.testing import ModelFunction, ModelScripted
from agentroute_ipython import running
from agentroute_ipython.asking import waiting_cell
from agentroute_ipython.running import Interrupted, Run, _Interrupts, _Stopping, run_beside, run_here
from tests.ipython.kernels import quickest

Events = Callable[[], AsyncGenerator[Event, None]]
colour: ContextVar[str] = ContextVar("colour", default="none")


class Recorder:
    """A view that writes down what it is told, and who told it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.events: list[Event] = []
        self.threads: set[str] = set()
        self.ticks = 0

    def show(self) -> None:
        self.seen.append("show")

    def update(self, event: Event) -> None:
        self.seen.append(event.kind)
        self.events.append(event)
        self.threads.add(threading.current_thread().name)

    def tick(self) -> None:
        self.ticks += 1

    def close(self) -> None:
        self.seen.append("close")


class Cell:
    """A run, its view and the results it was told to keep."""

    def __init__(self, events: Events) -> None:
        self.view = Recorder()
        self.kept: list[Result[Any]] = []
        self.run = Run(events, self.view, self.kept.append)

    @classmethod
    def of(cls, *answers: Any, tools: Any = (), **options: Any) -> "Cell":
        agent = Agent("bot", model=ModelScripted(answers, **options), tools=tools, max_turns=3)
        return cls(partial(agent.events, "hi"))


def on_this_loop(run: Run) -> None:
    asyncio.run(run_here(run))


@pytest.fixture(params=[on_this_loop, run_beside])
def way(request: pytest.FixtureRequest) -> Callable[[Run], None]:
    """Both ways a cell runs: what holds for one holds for the other."""
    return request.param  # type: ignore[no-any-return]


def press_stop() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def press_stop_and_wait(request: LLMRequest) -> Coroutine[Any, Any, str]:
    press_stop()
    return asyncio.sleep(30, "never said")


def test_whole_run_is_drawn_and_kept(way: Callable[[Run], None]) -> None:
    cell = Cell.of(ToolCall("1", "add", {"a": 1, "b": 2}), "It is 3.", tools=[add])
    way(cell.run)
    assert cell.view.seen[:3] == ["show", "agent_start", "turn_start"]
    assert cell.view.seen[-2:] == ["agent_end", "close"]
    assert {"tool_call_start", "tool_call_end", "text_delta"} <= set(cell.view.seen)
    assert [result.output for result in cell.kept] == ["It is 3."]


def add(a: int, b: int) -> int:
    return a + b


def test_thread_of_the_cell_draws(way: Callable[[Run], None]) -> None:
    cell = Cell.of("hello")
    way(cell.run)
    assert cell.view.threads == {threading.current_thread().name}


def test_view_is_asked_to_go_on_while_nothing_happens(way: Callable[[Run], None]) -> None:
    cell = Cell.of(lambda request: asyncio.wait_for(three_ticks(), 30))

    async def three_ticks() -> str:
        while cell.view.ticks < 3:
            await asyncio.sleep(0.01)
        return "hello"

    way(cell.run)
    assert cell.kept[0].output == "hello"


def test_context_variables_reach_the_run(way: Callable[[Run], None]) -> None:
    def paint(request: LLMRequest) -> str:
        return colour.get()

    cell = Cell.of(paint)
    token = colour.set("red")
    way(cell.run)
    colour.reset(token)
    assert cell.kept[0].output == "red"


def test_run_beside_works_under_a_running_loop() -> None:
    async def cell_in_a_kernel() -> str:
        cell = Cell.of("hello")
        run_beside(cell.run)
        return str(cell.kept[0])

    assert asyncio.run(cell_in_a_kernel()) == "hello"


def test_run_here_runs_on_the_loop_of_the_caller() -> None:
    async def main() -> bool:
        loops = []

        async def answer(request: LLMRequest) -> str:
            loops.append(asyncio.get_running_loop())
            return "x"

        await run_here(Cell(partial(Agent("bot", model=ModelFunction(answer)).events, "hi")).run)
        return loops == [asyncio.get_running_loop()]

    assert asyncio.run(main())


def failed(way: Callable[[Run], None]) -> tuple[Cell, ErrorMaxTurns]:
    cell = Cell.of(*[ToolCall("1", "add", {"a": 1, "b": 2})] * 3, tools=[add])
    with pytest.raises(ErrorMaxTurns) as caught:
        way(cell.run)
    return cell, caught.value


def test_failed_run_raises_its_own_error_with_its_result_kept(way: Callable[[Run], None]) -> None:
    cell, error = failed(way)
    assert cell.view.seen[-2:] == ["agent_end", "close"]
    assert cell.kept == [error.result]
    assert len(cell.kept[0].record.tool_calls) == 3


def test_failed_run_is_shown_in_two_lines(way: Callable[[Run], None]) -> None:
    _, error = failed(way)
    first, second = error._render_traceback_()
    assert first.startswith("ErrorMaxTurns: turn 4 would pass max_turns=3")
    assert second == "(what it did until then is in _agent; %tb Verbose shows the traceback)"


def test_error_that_was_shown_can_still_be_pickled(way: Callable[[Run], None]) -> None:
    _, error = failed(way)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again._render_traceback_()) == (ErrorMaxTurns, str(error), error._render_traceback_())


def test_stop_while_the_model_is_silent_takes_under_a_second(way: Callable[[Run], None]) -> None:
    def stop() -> float:
        cell = Cell(partial(Agent("bot", model=ModelFunction(press_stop_and_wait)).events, "hi"))
        began = time.monotonic()
        with pytest.raises(Interrupted, match="what it did until then is in _agent"):
            way(cell.run)
        took_s = time.monotonic() - began
        assert cell.view.seen[-2:] == ["agent_end", "close"]
        end = cell.view.events[-1]
        assert isinstance(end, AgentEnd)
        assert isinstance(end.error, ErrorInterrupted)
        assert cell.kept == [end.result]
        assert end.result.interrupted
        assert end.result.record.run.status == "interrupted"
        return took_s

    assert quickest(stop, 1) < 1


def test_stop_before_the_first_step_leaves_a_record_too(way: Callable[[Run], None]) -> None:
    cell = Cell.of("hello", delay_s=30)
    cell.view.show = press_stop  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        way(cell.run)
    assert cell.kept[0].record.run.status == "interrupted"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_stop_in_a_tool_takes_under_a_second(way: Callable[[Run], None], kind: str) -> None:
    def sync_tool() -> str:
        press_stop()
        release.wait(30)
        return "late"

    async def async_tool() -> str:
        press_stop()
        await asyncio.sleep(30)
        return "late"

    def stop() -> float:
        cell = Cell.of(ToolCall("1", f"{kind}_tool", {}), tools=[sync_tool, async_tool])
        began = time.monotonic()
        with pytest.raises(Interrupted):
            way(cell.run)
        took_s = time.monotonic() - began
        assert [call.status for call in cell.kept[0].record.tool_calls] == ["interrupted"]
        return took_s

    release = threading.Event()
    assert quickest(stop, 1) < 1
    release.set()


def test_stop_while_drawing_breaks_nothing(way: Callable[[Run], None]) -> None:
    class Stopped(Recorder):
        def update(self, event: Event) -> None:
            if isinstance(event, AgentStart):
                press_stop()
            super().update(event)

    cell = Cell.of("hello", delay_s=30)
    cell.run._view = cell.view = Stopped()
    with pytest.raises(Interrupted):
        way(cell.run)
    assert cell.view.seen[-2:] == ["agent_end", "close"]


async def stubborn() -> AsyncGenerator[Event, None]:
    """A run that does not end when it is cancelled the first time."""
    run = Agent("bot", model=ModelScripted(["x"])).events("hi")
    yield await anext(run)
    press_stop()
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        press_stop()
        await asyncio.sleep(30)
    await run.aclose()
    yield TextDelta("too late")


@pytest.fixture
def only_a_second_stop_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the time to clean up were so long that a test would notice."""
    monkeypatch.setattr(running, "GRACE_S", 60)


@pytest.mark.usefixtures("only_a_second_stop_gives_up")
def test_second_stop_gives_a_stubborn_run_up(way: Callable[[Run], None]) -> None:
    cell = Cell(stubborn)
    began = time.monotonic()
    with pytest.raises(Interrupted):
        way(cell.run)
    assert cell.view.seen == ["show", "agent_start", "agent_end", "close"]
    assert cell.kept[0].interrupted
    assert cell.kept[0].record.run.agent_name == "bot"
    assert time.monotonic() - began < 20


def test_one_stop_is_enough_after_the_grace() -> None:
    cancelled = []
    now = [100.0]
    stopping = _Stopping(lambda: cancelled.append(now[0]), clock=lambda: now[0])
    assert not stopping.given_up(0)
    assert not stopping.given_up(1)
    now[0] = 102.9
    assert not stopping.given_up(1)
    now[0] = 103.1
    assert stopping.given_up(1)
    assert cancelled == [100.0]


def test_run_that_never_begins_can_be_given_up() -> None:
    now = [100.0]
    stopping = _Stopping(lambda: pytest.fail("there is nothing to cancel"), clock=lambda: now[0])
    assert not stopping.given_up(1, begun=False)
    assert stopping.given_up(2, begun=False)
    now[0] = 104.0
    assert stopping.given_up(1, begun=False)


def test_second_stop_keeps_what_was_said_so_far(way: Callable[[Run], None]) -> None:
    cell = Cell(stubborn)
    with pytest.raises(Interrupted):
        way(cell.run)
    assert [message["content"] for message in cell.kept[0].messages] == ["hi"]


@pytest.mark.parametrize("blocks", ["tool", "model"])
def test_second_stop_breaks_into_code_that_blocks_the_loop(blocks: str) -> None:
    async def blocking(*_: LLMRequest) -> str:
        press_stop()
        assert not threading.Event().wait(0.3), "the first one must not break in"
        press_stop()
        return "never said"

    async def tool() -> str:
        return await blocking()

    agents = {
        "tool": Agent("bot", model=ModelScripted([ToolCall("1", "tool", {})]), tools=[tool]),
        "model": Agent("bot", model=ModelFunction(blocking)),
    }
    cell = Cell(partial(agents[blocks].events, "hi"))
    with pytest.raises(Interrupted):
        on_this_loop(cell.run)
    assert cell.kept[0].interrupted
    assert cell.kept[0].record.run.status == "interrupted"
    assert {call.status for call in cell.kept[0].record.tool_calls} <= {"interrupted"}


def test_two_stops_at_once_break_into_nothing_while_the_loop_ticks() -> None:
    async def cell() -> int:
        interrupts = _Interrupts(asyncio.current_task(), clock=lambda: 100.0)

        async def press() -> None:
            press_stop()
            press_stop()

        with interrupts:
            await asyncio.create_task(press())
        return interrupts.count

    assert asyncio.run(cell()) == 2


def test_stop_as_the_run_completes_leaves_the_cell_whole(way: Callable[[Run], None]) -> None:
    class Late(Recorder):
        def update(self, event: Event) -> None:
            super().update(event)
            if isinstance(event, AgentEnd):
                press_stop()

    cell = Cell.of("hello")
    cell.run._view = cell.view = Late()
    way(cell.run)
    assert (cell.kept[0].output, cell.kept[0].interrupted) == ("hello", False)


def test_cancelling_the_cell_stops_the_run() -> None:
    cell = Cell.of("hello", delay_s=30)

    async def kernel() -> None:
        task = asyncio.create_task(run_here(cell.run))
        asyncio.get_running_loop().call_later(0.02, task.cancel)
        with pytest.raises(Interrupted):
            await task

    # A KeyboardInterrupt leaves a task through the loop as well, as IPython's own cells never let it.
    with pytest.raises(Interrupted):
        asyncio.run(kernel())
    assert cell.kept[0].interrupted


def test_ctrl_c_works_as_before_afterwards(way: Callable[[Run], None]) -> None:
    before = signal.getsignal(signal.SIGINT)
    way(Cell.of("hello").run)
    failed(way)
    assert signal.getsignal(signal.SIGINT) is before


def test_view_that_fails_leaves_no_run_behind(way: Callable[[Run], None]) -> None:
    class Broken(Recorder):
        def update(self, event: Event) -> None:
            super().update(event)
            assert event.kind != "text_delta", "cannot draw"

    cell = Cell.of("hello", "more")
    cell.run._view = cell.view = Broken()
    with pytest.raises(AssertionError, match="cannot draw"):
        way(cell.run)
    assert cell.view.seen[-1] == "close"
    assert len(cell.kept) == 1


def test_cell_inside_an_async_tool_is_refused_instead_of_hanging() -> None:
    async def cell_in_tool() -> None:
        run_beside(Cell.of("hello").run)

    cell = Cell.of(ToolCall("1", "cell_in_tool", {}), "done", tools=[cell_in_tool])
    run_beside(cell.run)
    assert "await agent.arun" in cell.kept[0].record.tool_calls[0].result_text


# What a run asks in the cell that waits for it


def asking(*prompts: str, begin: Callable[[], bool] = lambda: True) -> Cell:
    """A run whose tool asks, once for each prompt, all in one turn."""

    async def ask(prompt: str) -> str:
        cell = waiting_cell.get()
        assert cell is not None
        return await cell.ask(prompt, begin)

    return Cell.of([ToolCall(prompt, "ask", {"prompt": prompt}) for prompt in prompts], "done", tools=[ask])


def answers_of(cell: Cell) -> list[str]:
    return [call.result_text for call in cell.kept[0].record.tool_calls]


def test_answer_reaches_the_run(way: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "input", lambda prompt: f"{prompt} yes, {colour.get()}")
    cell = asking("go?")
    token = colour.set("red")
    way(cell.run)
    colour.reset(token)
    assert answers_of(cell) == ["go? yes, red"]


def test_questions_are_asked_one_after_the_other(way: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(f"{prompt} asked")
        time.sleep(0.05)
        asked.append(f"{prompt} answered")
        return "yes"

    monkeypatch.setattr(builtins, "input", answer)
    cell = asking("a", "b", "c")
    way(cell.run)
    assert answers_of(cell) == ["yes"] * 3
    assert sorted(asked[::2]) == ["a asked", "b asked", "c asked"]
    assert asked[1::2] == [one.replace("asked", "answered") for one in asked[::2]]


def test_question_nobody_wants_any_more_is_not_asked(way: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "input", lambda prompt: "asked")
    cell = asking("go?", begin=lambda: False)
    way(cell.run)
    assert answers_of(cell) == ["(no output)"]


def test_end_of_the_input_is_an_error_of_the_question(way: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def end(prompt: str) -> str:
        raise EOFError("no more")

    monkeypatch.setattr(builtins, "input", end)
    cell = asking("go?")
    way(cell.run)
    assert answers_of(cell) == ["Error: EOFError: no more"]


def wait_for_an_answer(prompt: str) -> str:
    """As a kernel's `input`: it looks for the answer again and again."""
    press_stop()
    for _ in range(3000):
        time.sleep(0.01)
    return "late"


@pytest.mark.usefixtures("only_a_second_stop_gives_up")
def test_stop_at_a_question_takes_it_back_and_stops_the_run(way: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "input", wait_for_an_answer)
    cell = asking("go?", "and then?")
    began = time.monotonic()
    with pytest.raises(Interrupted):
        way(cell.run)
    for asking_thread in [thread for thread in threading.enumerate() if thread.name == "agentroute-input"]:
        asking_thread.join(20)
    assert time.monotonic() - began < 20
    assert cell.kept[0].record.run.status == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("only_a_second_stop_gives_up")
def test_stop_right_before_a_question_is_not_lost(way: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def begin() -> bool:
        press_stop()
        return True

    monkeypatch.setattr(builtins, "input", lambda prompt: [time.sleep(0.01) for _ in range(3000)])
    cell = asking("go?", begin=begin)
    began = time.monotonic()
    with pytest.raises(Interrupted):
        way(cell.run)
    assert time.monotonic() - began < 20


def test_cell_is_drawn_and_the_loop_goes_on_while_a_question_stands_in_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = asking("go?")

    def answer(prompt: str) -> str:
        before = cell.view.ticks
        for _ in range(3000):
            time.sleep(0.01)
            if cell.view.ticks > before + 1:
                return "drawn"
        return "stuck"

    monkeypatch.setattr(builtins, "input", answer)
    on_this_loop(cell.run)
    assert answers_of(cell) == ["drawn"]


def test_what_a_run_tells_is_shown_by_the_thread_of_the_cell_in_turn(way: Callable[[Run], None]) -> None:
    shown: list[tuple[str, str]] = []

    async def say() -> str:
        cell = waiting_cell.get()
        assert cell is not None
        cell.tell(lambda: shown.append((threading.current_thread().name, view.seen[-1])))
        return ""

    cell = Cell.of(ToolCall("1", "say", {}), "done", tools=[say])
    view = cell.view
    way(cell.run)
    assert shown == [(threading.current_thread().name, "tool_call_start")]
