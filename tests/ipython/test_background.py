"""Runs in the background: begun by a cell that ends at once, drawn in it, stopped by name, by a button or with the kernel."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from agentroute import Agent, ErrorInterrupted, ErrorMaxTurns, LLMRequest, Result, RunStore, ToolCall
from agentroute.events import AgentEnd, TextDelta
from agentroute.records import RunRecord, columns
from agentroute.testing import ModelScripted
from agentroute_ipython import background
from agentroute_ipython.asking import waiting_cell
from agentroute_ipython.running import Run
from tests.ipython.kernels import Outcome, Session
from tests.ipython.test_running import Recorder

TERMINAL = SimpleNamespace()
KERNEL = SimpleNamespace(kernel=None)


class Background:
    """A run in the background, its view, and the results it was told to keep."""

    def __init__(self, *answers: Any, tools: Any = (), name: str = "bot", **options: Any) -> None:
        agent = Agent("bot", model=ModelScripted(answers, **options), tools=tools, max_turns=2)
        self.view = Recorder()
        self.kept: list[Result[Any]] = []
        self.run = Run(partial(agent.events, "hi"), self.view, self.kept.append)
        self.name = background.start(self.run, name, TERMINAL)


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    yield
    assert background.running() == []


async def ended() -> None:
    while background.running():
        await asyncio.sleep(0.01)


def on_this_loop(begin: Callable[[], Background]) -> Background:
    async def main() -> Background:
        job = begin()
        await ended()
        return job

    return asyncio.run(main())


def on_the_background_loop(begin: Callable[[], Background]) -> Background:
    job = begin()
    asyncio.run(ended())
    return job


@pytest.fixture(params=[on_this_loop, on_the_background_loop])
def way(request: pytest.FixtureRequest) -> Callable[[Callable[[], Background]], Background]:
    return request.param  # type: ignore[no-any-return]


def test_start_returns_before_the_run_has_begun_and_keeps_its_result(way: Any) -> None:
    running: list[str] = []

    async def hello_when_seen(request: LLMRequest) -> str:
        while not running:
            await asyncio.sleep(0.01)
        return "hello"

    def begin() -> Background:
        job = Background(hello_when_seen)
        running.extend(background.running())
        return job

    job = way(begin)
    assert running == ["bot"]
    assert [result.output for result in job.kept] == ["hello"]
    assert job.view.seen[-2:] == ["agent_end", "close"]


def test_stopped_run_keeps_its_partial_record(way: Any) -> None:
    def begin() -> Background:
        job = Background("never", delay_s=30)
        assert background.stop("bot") == ["bot"]
        return job

    job = way(begin)
    assert job.kept[0].interrupted
    assert job.kept[0].record.run.status == "interrupted"
    assert isinstance(job.view.events[-1], AgentEnd)
    assert isinstance(job.view.events[-1].error, ErrorInterrupted)


def test_failed_run_is_told_by_its_card_and_kept_and_raises_nowhere(way: Any) -> None:
    job = way(lambda: Background(*[ToolCall("1", "add", {})] * 3, tools=[add]))
    end = job.view.events[-1]
    assert isinstance(end.error, ErrorMaxTurns)
    assert job.kept == [end.result]


def add() -> int:
    return 1


def test_many_run_at_a_time_each_with_a_name_of_its_own() -> None:
    async def main() -> tuple[list[str], list[str], list[str]]:
        for _ in range(3):
            Background("never", delay_s=30)
        Background("never", delay_s=30, name="other")
        names = background.running()
        one = background.stop("bot-2")
        while "bot-2" in background.running():
            await asyncio.sleep(0.01)
        all_others = background.stop()
        await ended()
        return names, one, all_others

    names, one, all_others = asyncio.run(main())
    assert names == ["bot", "bot-2", "bot-3", "other"]
    assert (one, all_others) == (["bot-2"], ["bot", "bot-3", "other"])


def test_stop_of_what_does_not_run_stops_nothing() -> None:
    assert background.stop("nobody") == background.stop() == background.running() == []


def test_second_stop_gives_a_stubborn_run_up() -> None:
    class Stubborn(Run):
        async def consume(self, take: Callable[[Any], None]) -> None:
            self.begun = True
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                background.stop("bot")
                await asyncio.sleep(30)
            take(TextDelta("too late"))

    async def main() -> Recorder:
        view = Recorder()
        background.start(Stubborn(Agent("bot", model=ModelScripted([])).events, view, lambda result: None), "bot", TERMINAL)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        background.stop("bot")
        await ended()
        return view

    assert asyncio.run(main()).seen == ["show", "agent_end", "close"]


def test_in_a_terminal_nothing_is_drawn_before_the_end(way: Any) -> None:
    seen_meanwhile: list[list[str]] = []
    begun = threading.Event()

    def look() -> str:
        begun.wait(30)
        seen_meanwhile.append(list(job_view[0].seen))
        return ""

    job_view: list[Recorder] = []

    def begin() -> Background:
        job = Background([ToolCall("1", "look", {})], "done", tools=[look])
        job_view.append(job.view)
        begun.set()
        return job

    job = way(begin)
    assert seen_meanwhile == [[]]
    assert job.view.seen[0] == "show"
    assert {"tool_call_start", "text_delta", "agent_end"} <= set(job.view.seen)


def test_run_in_the_background_has_no_cell_that_waits_for_it(way: Any) -> None:
    cells = []

    async def look() -> str:
        cells.append(waiting_cell.get())
        return ""

    token = waiting_cell.set(object())  # type: ignore[arg-type]  # as where a tool of a cell's run starts one
    way(lambda: Background(ToolCall("1", "look", {}), "done", tools=[look]))
    waiting_cell.reset(token)
    assert cells == [None]


def test_defect_in_drawing_is_told_once_and_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(Recorder):
        def update(self, event: Any) -> None:
            raise RuntimeError("cannot draw")

    async def main() -> None:
        run = Run(partial(Agent("bot", model=ModelScripted(["x"])).events, "hi"), Broken(), lambda result: None)
        background.start(run, "bot", TERMINAL)
        await ended()

    asyncio.run(main())
    assert capsys.readouterr().out == "bot failed in the background: RuntimeError: cannot draw\n"


def test_run_that_cannot_be_shown_leaves_no_name_behind() -> None:
    class Broken(Recorder):
        def show(self) -> None:
            raise RuntimeError("cannot draw")

    view = Broken()
    run = Run(Agent("bot", model=ModelScripted(["x"])).events, view, lambda result: None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="cannot draw"):
        background.start(run, "bot", KERNEL)
    assert background.running() == []


# In kernels

SETUP = """
import asyncio, time
from agentroute import Agent, ToolCall, tool
from agentroute.testing import ModelFunction, ModelScripted

def loud() -> str:
    print("from the tool", flush=True)
    return "said"

def slow() -> str:
    time.sleep(30)

@tool(needs_approval=True)
def refund(amount: float) -> str:
    refunded.append(amount)
    return "done"

refunded = []
go = True
async def answer(request):
    while not go:
        await asyncio.sleep(0.01)
    return "Here you are."

quick = Agent("quick", model=ModelFunction(answer, delay_s=0.3))
silent = Agent("silent", model=ModelScripted(["never"] * 9, delay_s=60))
talker = Agent("talker", model=ModelScripted([ToolCall("1", "loud", {}), "done"] * 9, delay_s=0.5), tools=[loud])
hanging = Agent("hanging", model=ModelScripted([ToolCall("1", "slow", {})] * 9), tools=[slow])
endless = Agent("endless", model=ModelScripted([ToolCall("1", "loud", {})] * 9), tools=[loud], max_turns=1)
asking = Agent("asking", model=ModelScripted([ToolCall("1", "refund", {"amount": 5}), "Paid."] * 9), tools=[refund])
"""
RUNNING = "__import__('agentroute_ipython.background', fromlist=['x']).running()"


def ready(session: Session) -> Session:
    assert session.run(SETUP).status == session.run("%load_ext agentroute_ipython").status == "ok"
    return session


@pytest.fixture
def session(kernel: Session) -> Session:
    return ready(kernel)


@pytest.fixture
def any_session(each_kernel: Session) -> Session:
    return ready(each_kernel)


def begin(session: Session, source: str) -> Any:
    cell = session.start(source, answers=[])
    assert cell.outcome().status == "ok", cell.text
    return cell


def until_ended(session: Session) -> None:
    session.wait(lambda: session.evaluate(RUNNING) == [], 60, lambda: "it still runs")


def plain(outcome: Outcome) -> str:
    return "\n".join(str(output.get("text/plain", "")) for output in outcome.outputs)


def statuses(session: Session) -> list[tuple[str, str]]:
    names = [column.name for column in columns(RunRecord)]
    with closing(RunStore(session.folder / "runs.sqlite")) as store:
        rows = [dict(zip(names, row, strict=True)) for row in store.select(RunRecord)]
    return [(row["agent_name"], row["status"]) for row in rows]


def test_cell_ends_at_once_and_its_card_at_last(any_session: Session) -> None:
    any_session.run("go = False")
    cell = begin(any_session, "%agent quick --background Go.")
    assert any_session.run("1 + 1").outputs == [{"text/plain": "2"}]
    assert "Here you are." not in plain(cell.outcome())
    any_session.run("go = True")
    any_session.wait(lambda: "Here you are." in cell.text, 60, lambda: cell.text)
    until_ended(any_session)
    outcome = cell.outcome()
    assert [set(output) - {"text/html", "text/plain"} for output in outcome.outputs] == [set(), set()]
    assert "Stop" not in plain(outcome)
    assert any_session.evaluate("_agent.output") == "Here you are."
    assert statuses(any_session) == [("quick", "ok")]


def test_output_of_tools_goes_to_the_cell_that_began_the_run(any_session: Session) -> None:
    cell = begin(any_session, "%agent talker --background Go.")
    other = any_session.run("await asyncio.sleep(1.5); print('other')")
    until_ended(any_session)
    assert (cell.outcome().stdout, other.stdout) == ("from the tool\n", "other\n")
    assert "done" in plain(cell.outcome())


def test_interrupt_of_the_kernel_leaves_the_background_alone(any_session: Session) -> None:
    cell = begin(any_session, "%agent silent --background Go.")
    for source in ("print('begun', flush=True)\nfor _ in range(3000):\n    time.sleep(0.01)", "%agent silent Go."):
        other = any_session.start(source)
        other.wait_for_output(lambda cell: bool(cell.text))
        any_session.interrupt()
        assert other.outcome().status == "error"
    assert any_session.evaluate(RUNNING) == ["silent"]
    assert any_session.run("%agent stop silent").stdout == "stopped: silent\n"
    until_ended(any_session)
    assert "interrupted" in plain(cell.outcome())
    assert statuses(any_session) == [("silent", "interrupted")] * 2


def test_stop_button_stops_its_run(any_session: Session) -> None:
    cell = begin(any_session, "%agent hanging --background Go.")
    begin(any_session, "%agent silent --background Go.")
    any_session.click(any_session.wait_for_widget(_model_name="ButtonModel", description="Stop hanging"))
    any_session.wait(lambda: any_session.evaluate(RUNNING) == ["silent"], 60, lambda: "it still runs")
    assert "interrupted" in plain(cell.outcome())
    any_session.run("%agent stop")
    until_ended(any_session)


def test_button_of_an_approval_is_answered_in_every_kernel(any_session: Session) -> None:
    cell = begin(any_session, "%agent asking --background Go.")
    any_session.run("'another cell'")
    button = any_session.wait_for_widget(_model_name="ButtonModel", description="Approve refund(amount=5.0)")
    any_session.wait(lambda: "asking asks: refund needs your approval" in plain(cell.outcome()), 60, lambda: cell.text)
    any_session.click(button)
    until_ended(any_session)
    assert any_session.evaluate("refunded") == [5.0]
    assert "approved: refund(amount=5.0)" in plain(cell.outcome())
    assert [output for output in cell.outcome().outputs if set(output) - {"text/html", "text/plain"}] == []


def test_approval_at_a_prompt_is_denied_in_the_background(session: Session) -> None:
    cell = begin(session, "%agent asking --background --approval input Go.")
    until_ended(session)
    assert session.evaluate("refunded") == []
    assert "denied: refund needs approval; a run in the background can be asked by buttons only" in plain(cell.outcome())
    assert "nobody can give it here" in session.evaluate("str(_agent.messages)")


def test_error_is_shown_by_the_card_and_kept(session: Session) -> None:
    cell = begin(session, "%agent endless --background Go.")
    until_ended(session)
    assert "max_turns=1" in plain(cell.outcome())
    assert session.evaluate("_agent.record.run.error_type") == "ErrorMaxTurns"
    assert [message for message in session.stray if message["msg_type"] == "error"] == []


def test_unloading_stops_the_background_and_records_it(any_session: Session) -> None:
    cell = begin(any_session, "%agent silent --background Go.")
    assert any_session.run("%unload_ext agentroute_ipython").status == "ok"
    until_ended(any_session)
    assert "interrupted" in plain(cell.outcome())
    assert statuses(any_session) == [("silent", "interrupted")]


def test_end_of_the_kernel_stops_the_background_and_records_it(any_session: Session) -> None:
    begin(any_session, "%agent hanging --background Go.")
    begin(any_session, "%agent silent --background Go.")
    any_session.request("shutdown", {"restart": False}, channel="control")
    end = time.monotonic() + 60
    while any_session._manager.is_alive() and time.monotonic() < end:
        time.sleep(0.05)
    assert sorted(statuses(any_session)) == [("hanging", "interrupted"), ("silent", "interrupted")]


def test_without_anybody_there_is_no_button(session: Session) -> None:
    outcome = session.run("%agent quick --background Go.")
    assert [output for output in outcome.outputs if set(output) - {"text/html", "text/plain"}] == []
    until_ended(session)


def test_begun_in_a_captured_cell_it_says_how_to_stop_and_see_it(session: Session) -> None:
    source = "get_ipython().run_cell_magic('agent', 'quick --background', 'Go.')"
    assert session.run(f"%%capture got\n{source}", answers=[]).outputs == []
    until_ended(session)
    assert session.run("print(got.outputs, got.stdout)").stdout.startswith(
        "[] quick runs in the background; %agent stop quick ends it, %agent show last shows it\n"
    )
    assert "Here you are." in plain(session.run("%agent show last"))


def test_its_card_stays_in_its_cell_while_another_cell_is_captured(session: Session) -> None:
    cell = begin(session, "%agent quick --background Go.")
    capture = "from IPython.utils.capture import capture_output\nwith capture_output() as got:\n"
    captured = session.run(f"{capture}    while {RUNNING}:\n        await asyncio.sleep(0.01)")
    assert captured.status == "ok", captured.traceback
    session.wait(lambda: "done" in cell.text, 60, lambda: cell.text)
    assert session.run("print(got.outputs)").stdout == "[]\n"
