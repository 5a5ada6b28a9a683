import asyncio
import io
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from types import SimpleNamespace
from typing import Any

import pytest

from agentroute import Context, ErrorConfig, Tool, ToolCall, tool
from agentroute.errors import ErrorInterrupted
from agentroute.events import AgentEnd, Event, ReasoningDelta, TextDelta, ToolCallEnd, ToolCallStart, TurnEnd, TurnStart
from agentroute.records import Record
from agentroute.result import Result
from agentroute_ipython.live import LiveView
from tests.ipython.conftest import StartKernel
from tests.ipython.kernels import Cell, Session
from tests.ipython.sample_runs import ANSWER, STORY, agent, asks, call, ended, events, says, turn


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Kernel:
    """The shell of a kernel; keeps what it was asked to publish, and when."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.kernel = self.display_pub = self
        self.clock = clock
        self.published: list[dict[str, Any]] = []
        self.times: list[float] = []

    def publish(self, data: dict[str, str], metadata: dict[str, Any], *, transient: dict[str, str], update: bool) -> None:
        self.published.append({"data": data, "metadata": metadata, "transient": transient, "update": update})
        self.times.append(self.clock())

    @property
    def html(self) -> str:
        return str(self.published[-1]["data"]["text/html"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kernel(clock: Clock) -> Kernel:
    return Kernel(clock)


@pytest.fixture
def view(kernel: Kernel, clock: Clock) -> LiveView:
    return LiveView(shell=kernel, clock=clock, cpu=lambda: 0.0)


# ---------------------------------------------------------------------------------------------------------- in a cell


def test_run_is_one_output_of_html_and_text(view: LiveView, kernel: Kernel) -> None:
    view.show()
    for event in events(STORY):
        view.update(event)
    view.close()
    first, *later = kernel.published
    assert first["update"] is False and later and all(message["update"] for message in later)
    assert len({message["transient"]["display_id"] for message in kernel.published}) == 1
    assert {tuple(message["data"]) for message in kernel.published} == {("text/html", "text/plain")}
    assert "done" in kernel.html and kernel.published[-1]["data"]["text/plain"].startswith(ANSWER)


def test_two_views_have_outputs_of_their_own(kernel: Kernel, clock: Clock) -> None:
    LiveView(shell=kernel, clock=clock).show()
    LiveView(shell=kernel, clock=clock).show()
    assert kernel.published[0]["transient"] != kernel.published[1]["transient"]


def test_thousand_updates_a_second_are_ten_redraws(view: LiveView, kernel: Kernel, clock: Clock) -> None:
    view.show()
    for number in range(3000):
        clock.now += 0.001
        view.update(TextDelta(f"{number} ", 1))
    view.close()
    assert 28 <= len(kernel.times) <= 32
    for start in kernel.times[:-1]:
        assert sum(start <= moment < start + 0.999 for moment in kernel.times[:-1]) <= 10
    assert "2998 2999" in kernel.html


def test_redraws_take_a_fiftieth_of_a_core_at_most(kernel: Kernel, clock: Clock) -> None:
    spent = iter(range(10**6))
    view = LiveView(shell=kernel, clock=clock, cpu=lambda: next(spent) * 0.01)  # ten milliseconds each
    view.show()
    for number in range(2900):
        clock.now += 0.001
        view.update(TextDelta(f"{number} ", 1))
    assert [round(moment - 1000, 1) for moment in kernel.times] == [0, 0.5, 1.0, 1.5, 2.0, 2.5]


def test_redraw_that_took_long_once_holds_up_nothing(kernel: Kernel, clock: Clock) -> None:
    spent = iter([0, 0, 0, 5, *[5] * 1000])  # the second redraw, which loads something
    view = LiveView(shell=kernel, clock=clock, cpu=lambda: next(spent))
    view.show()
    for number in range(1000):
        clock.now += 0.001
        view.update(TextDelta(f"{number} ", 1))
    assert len(kernel.times) >= 10


def test_redraws_that_take_seconds_still_come_each_second(kernel: Kernel, clock: Clock) -> None:
    spent = iter(range(10**6))
    view = LiveView(shell=kernel, clock=clock, cpu=lambda: float(next(spent)))
    view.show()
    for _ in range(100):
        clock.now += 0.1
        view.update(TextDelta("x", 1))
    assert len(kernel.times) >= 10


def test_first_change_after_a_pause_is_drawn_at_once(view: LiveView, kernel: Kernel, clock: Clock) -> None:
    view.show()
    clock.now += 5
    view.update(TextDelta("now", 1))
    assert len(kernel.published) == 2 and "now" in kernel.html


def test_change_in_the_quiet_time_is_drawn_by_the_next_tick(view: LiveView, kernel: Kernel, clock: Clock) -> None:
    view.show()
    view.update(TextDelta("soon", 1))
    view.tick()
    assert len(kernel.published) == 1
    clock.now += 0.1
    view.tick()
    assert len(kernel.published) == 2 and "soon" in kernel.html
    view.tick()
    assert len(kernel.published) == 2


def test_change_in_the_quiet_time_is_drawn_by_the_loop_of_the_thread(kernel: Kernel, clock: Clock) -> None:
    async def run() -> int:
        view = LiveView(shell=kernel, clock=clock, cpu=lambda: 0.0, rate_hz=100)
        view.show()
        for event in (TurnStart(1), TextDelta("one ", 1), TextDelta("two", 1)):
            view.update(event)
        assert len(kernel.published) == 1
        clock.now += 1
        while len(kernel.published) == 1:
            await asyncio.sleep(0.001)
        assert "one two" in kernel.html
        drawn = len(kernel.published)
        view.close()
        await asyncio.sleep(0.03)  # a timer that was left over would draw again
        return len(kernel.published) - drawn

    assert asyncio.run(asyncio.wait_for(run(), 60)) == 1


def test_seconds_go_on_while_nothing_happens(view: LiveView, kernel: Kernel, clock: Clock) -> None:
    view.show()
    for _ in range(100):
        clock.now += 0.25
        view.tick()
    assert [message["data"]["text/plain"] for message in kernel.published[1:]] == ["running, 10.0 s", "running, 20.0 s"]


def test_start_of_a_tool_call_is_drawn_at_once_as_the_tool_may_hold_up_all_else(
    view: LiveView, kernel: Kernel, clock: Clock
) -> None:
    view.show()
    for number in range(100):  # two seconds of text, drawn ten times in each
        clock.now += 0.02
        view.update(TextDelta(f"{number} ", 1))
    clock.now += 0.01
    view.update(TurnEnd(turn(1), "Let me look.", [], ended([turn(1)]).run))
    before = len(kernel.published)
    view.update(ToolCallStart(call(1, 1, tool_name="look", status="interrupted", result_text=None)))
    assert len(kernel.published) == before + 1 and "look(" in kernel.html and ">running<" in kernel.html


def test_many_tool_calls_are_ten_redraws_a_second_and_one(view: LiveView, kernel: Kernel, clock: Clock) -> None:
    view.show()
    for number in range(1, 3001):
        clock.now += 0.001
        view.update(ToolCallStart(call(1, number, tool_name=f"look{number}")))
        view.update(TextDelta("x", 1))
    assert 28 <= len(kernel.times) <= 34
    for start in kernel.times:
        assert sum(start <= moment < start + 0.999 for moment in kernel.times) <= 11
    clock.now += 1
    view.tick()
    assert "look3000" in kernel.html


def test_close_draws_the_last_state_once(view: LiveView, kernel: Kernel) -> None:
    view.show()
    for event in events(STORY):
        view.update(event)
    view.close()
    drawn = len(kernel.published)
    view.close()
    view.tick()
    view.update(TextDelta("afterwards", 1))
    assert len(kernel.published) == drawn
    assert "agr-done" in kernel.html and "afterwards" not in kernel.html


def test_run_left_before_its_end_is_shown_as_interrupted(view: LiveView, kernel: Kernel) -> None:
    view.show()
    view.update(TurnStart(1))
    view.update(ToolCallStart(call(1, 1, status="interrupted", result_text=None)))
    view.close()
    assert "agr-interrupted" in kernel.html and ">running<" not in kernel.html
    assert kernel.published[-1]["data"]["text/plain"].splitlines()[-1].startswith("interrupted")


def test_view_that_was_never_shown_still_draws_its_end(view: LiveView, kernel: Kernel) -> None:
    view.close()
    assert [message["update"] for message in kernel.published] == [False, True]


def test_view_is_drawn_where_it_is_shown_also_while_another_cell_is_captured(view: LiveView, kernel: Kernel, clock: Clock) -> None:
    captured = Kernel(clock)
    view.show()
    kernel.display_pub = captured
    view.update(TextDelta("x", 1))
    view.close()
    assert captured.published == []
    assert kernel.published[-1]["update"]
    view.show_again()
    assert [message["update"] for message in captured.published] == [False]


def test_views_are_used_from_several_threads(kernel: Kernel) -> None:
    view = LiveView(shell=kernel)
    view.show()
    threads = [threading.Thread(target=lambda: [view.update(TextDelta("x", 1)) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        view.tick()
    for thread in threads:
        thread.join()
    view.close()
    assert view.card.answer == "x" * 2000


# ----------------------------------------------------------------------------------------------------- in another place


def test_card_shown_again_goes_on_in_the_new_place_and_the_old_one_stays(view: LiveView, kernel: Kernel, clock: Clock) -> None:
    view.show()
    clock.now += 1
    view.update(TextDelta("one ", 1))
    view.show_again()
    old, new = kernel.published[0]["transient"], kernel.published[-1]["transient"]
    assert old != new and kernel.published[-1]["update"] is False and "one" in kernel.html
    clock.now += 1
    view.update(TextDelta("two", 1))
    view.close()
    assert [(message["transient"], message["update"]) for message in kernel.published[3:]] == [(new, True), (new, True)]
    assert "one two" in kernel.html


def test_redraws_in_the_new_place_keep_to_the_rate(view: LiveView, kernel: Kernel, clock: Clock) -> None:
    view.show()
    view.show_again()
    view.update(TextDelta("soon", 1))
    assert len(kernel.published) == 2
    clock.now += 0.1
    view.tick()
    assert len(kernel.published) == 3


def test_run_that_is_over_is_shown_again_as_it_ended(view: LiveView, kernel: Kernel, clock: Clock) -> None:
    view.show()
    view.update(TurnStart(1))
    clock.now += 3
    view.close()
    clock.now += 1000
    view.show_again()
    assert kernel.published[-1]["data"] == kernel.published[-2]["data"]
    assert kernel.published[-1]["transient"] != kernel.published[-2]["transient"]
    assert "3.0 s" in kernel.published[-1]["data"]["text/plain"]


def test_view_that_was_never_shown_is_shown_by_show_again(view: LiveView, kernel: Kernel) -> None:
    view.show_again()
    view.show()
    view.close()
    assert [message["update"] for message in kernel.published] == [False, True]


# ------------------------------------------------------------------------------------------------------------ approvals


@tool(needs_approval=True)
def wire_money(amount: int) -> str:
    """Sends money."""
    return "sent"


def approved_run(view: LiveView, tools: list[Tool], answers: list[Any]) -> list[str]:
    """What the plain card says at each question, and after it."""
    said = []

    async def approve(ctx: Context, asked: ToolCall) -> bool:
        said.append(view.card_text())  # type: ignore[attr-defined]
        return True

    async def run() -> None:
        async for event in agent(answers, tools).events("go", approve=view.telling(approve)):
            view.update(event)
            said.extend([view.card_text()] * isinstance(event, ToolCallEnd))  # type: ignore[attr-defined]

    asyncio.run(run())
    return said


@pytest.fixture
def told(view: LiveView, kernel: Kernel, clock: Clock) -> LiveView:
    """A view that draws whenever it is asked for the plain text of its card."""

    def card_text() -> str:
        clock.now += 1
        view.tick()
        return str(kernel.published[-1]["data"]["text/plain"])

    view.card_text = card_text  # type: ignore[attr-defined]
    return view


def test_card_says_that_a_call_waits_for_an_approval_for_as_long_as_it_does(told: LiveView, kernel: Kernel) -> None:
    asked, after = approved_run(told, [wire_money], [asks(ToolCall("1", "wire_money", {"amount": 5})), says("Done.")])
    assert asked.splitlines()[0] == "wire_money(amount=5) waits for your approval"
    assert asked.splitlines()[1].startswith("waits for your approval, 1 model call")
    assert "waits" not in after and "-> sent" in after
    assert any(">waits for your approval<" in message["data"]["text/html"] for message in kernel.published)
    told.close()
    assert "waits" not in kernel.html


def test_only_the_call_that_is_asked_about_waits(told: LiveView) -> None:
    @tool
    async def slow() -> str:
        """Takes its time."""
        await asyncio.sleep(0)
        return "slow"

    calls = asks(ToolCall("1", "wire_money", {"amount": 5}), ToolCall("2", "slow", {}))
    asked = approved_run(told, [wire_money, slow], [calls, says("Done.")])[0]
    assert asked.splitlines()[0].endswith("waits for your approval") and asked.splitlines()[1].startswith("slow() running")


def test_run_inside_a_tool_that_asks_is_told_by_the_run_around_it(told: LiveView) -> None:
    inner = agent([asks(ToolCall("1", "wire_money", {"amount": 5})), says("Paid.")], [wire_money])

    @tool
    async def pay() -> str:
        """Pays."""
        return (await inner.arun("pay")).output

    asked, after = approved_run(told, [pay], [asks(ToolCall("1", "pay", {})), says("Done.")])
    assert asked.splitlines()[0] == "pay() running"
    assert asked.splitlines()[1].startswith("waits for your approval")
    assert "waits" not in after


def test_approval_that_fails_leaves_nothing_waiting(view: LiveView) -> None:
    async def approve(ctx: Context, asked: ToolCall) -> bool:
        raise RuntimeError("nobody")

    with pytest.raises(RuntimeError, match="nobody"):
        asyncio.run(view.telling(approve)(Context(), ToolCall("1", "wire_money", {})))  # type: ignore[arg-type]
    assert view.card.waiting == []


# ------------------------------------------------------------------------------------------------------ in a terminal


class Terminal:
    """Standard output that keeps every piece that was written to it."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)

    def flush(self) -> None:
        """All is kept already."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def printed(terminal: Terminal, story: list[Event], end: bool = True) -> list[str]:
    with redirect_stdout(terminal):  # type: ignore[type-var]
        view = LiveView(shell=object())
        view.show()
        for event in story:
            view.update(event)
            view.tick()
        if end:
            view.close()
            view.close()
    return terminal.text.splitlines()


def test_terminal_prints_each_piece_once_and_in_order(terminal: Terminal) -> None:
    lines = printed(terminal, events(STORY))
    assert lines[0] == "Let me look."
    assert lines[1] == 'order_status(order_id="4821")'
    assert lines[2].startswith('order_status -> {"status":"shipped"')
    assert lines[3] == 'refund(order_id="4821", amount=4.9)'
    assert lines[4].startswith("refund -> refunded 4.90 USD, ")
    assert lines[5:8] == ANSWER.split("\n")
    assert lines[8] == ""
    assert lines[9].startswith("done, 3 model calls, 2 tool calls, 1,400 tokens in / 180 out, $0.0070, ")
    assert len(lines) == 10


def test_terminal_prints_a_delta_as_it_comes(terminal: Terminal) -> None:
    printed(terminal, [TurnStart(1), TextDelta("one ", 1), TextDelta("two", 1)], end=False)
    assert terminal.pieces == ["one ", "two"]


def test_terminal_prints_an_answer_that_was_not_streamed(terminal: Terminal) -> None:
    story = [event for event in events(STORY) if not isinstance(event, TextDelta)]
    assert printed(terminal, story)[5:8] == ANSWER.split("\n")


def test_terminal_prints_a_structured_answer_that_came_as_a_call(terminal: Terminal) -> None:
    story = [TurnStart(1), TurnEnd(turn(1), "", [], ended([turn(1)]).run), AgentEnd(Result({"total": 3}))]
    assert printed(terminal, story)[:4] == ["{", '  "total": 3', "}", ""]


def test_terminal_shows_a_failed_call_and_a_failed_run(terminal: Terminal) -> None:
    lines = printed(terminal, events([asks(ToolCall("1", "nothing", {})), RuntimeError("lost")]))
    assert lines[1].startswith("nothing -> UnknownTool: There is no tool 'nothing'")
    assert lines[-1].startswith("failed, 2 model calls, 1 tool call (1 failed), ")


def test_terminal_announces_reasoning_once(terminal: Terminal) -> None:
    printed(terminal, [TurnStart(1), *(ReasoningDelta("hm ", 1) for _ in range(5)), TextDelta("So.", 1)], end=False)
    assert terminal.text == "(reasoning)\nSo."


def test_terminal_controls_cannot_come_in_pieces(terminal: Terminal) -> None:
    deltas = ["a\x1b", "[31", "mred\x1b[0m ", "\x1b", "]0;title\x07", "\r", "\nnew", "👩\u200d", "👧", " \u202ex", "end\x1b"]
    printed(terminal, [TurnStart(1), *(TextDelta(delta, 1) for delta in deltas)])
    assert terminal.text.startswith("ared \\x1b]0;title\\x07\nnew👩\u200d👧 \\u202exend\\x1b\n\ninterrupted")


def test_terminal_ends_an_open_line_before_the_next(terminal: Terminal) -> None:
    record = call(1, 1, status="interrupted", result_text=None)
    story = [TurnStart(1), TextDelta("Wait", 1), ToolCallStart(record)]
    stopped = AgentEnd(
        Result(None, interrupted=True, record=Record(ended([turn(1)]).run, [turn(1)], [record])), ErrorInterrupted("stopped")
    )
    lines = printed(terminal, [*story, stopped])
    assert lines[:2] == ["Wait", "search()"] and lines[2].startswith("interrupted, 1 model call, 1 tool call")


def test_terminal_shows_a_run_again_and_goes_on_below(terminal: Terminal) -> None:
    with redirect_stdout(terminal):  # type: ignore[type-var]
        view = LiveView(shell=object())
        view.update(TurnStart(1))
        view.update(TextDelta("One ", 1))
        view.show_again()
        view.update(TextDelta("two.", 1))
        view.close()
        view.show_again()
    assert terminal.text == (
        "One \nOne \n\nrunning\ntwo.\n\ninterrupted\nOne two.\n\nInterrupted: left before its end\ninterrupted\n"
    )


# --------------------------------------------------------------------------------------------------- styles of a terminal


class Tty(Terminal):
    """A terminal that shows styles."""

    def isatty(self) -> bool:
        return True


class Plain:
    """A shell whose user wants no colours."""

    colors = "nocolor"


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Tty:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Tty()


def test_tool_lines_are_dim_and_the_state_is_bold_on_a_terminal(tty: Tty) -> None:
    lines = printed(tty, events(STORY))
    assert lines[0] == "Let me look."
    assert lines[1] == '\x1b[2morder_status(order_id="4821")\x1b[0m'
    assert lines[2].startswith('\x1b[2morder_status -> {"status"') and lines[2].endswith("\x1b[0m")
    assert lines[5:8] == ANSWER.split("\n")
    assert lines[9].startswith("\x1b[1mdone\x1b[0m, 3 model calls")


def test_error_of_a_tool_is_bold_on_a_terminal(tty: Tty) -> None:
    lines = printed(tty, events([asks(ToolCall("1", "nothing", {})), says("No.")]))
    assert lines[1].startswith("\x1b[2mnothing -> \x1b[0m\x1b[1mUnknownTool\x1b[0m\x1b[2m: There is no tool 'nothing'")


def test_styles_change_nothing_but_the_style(tty: Tty, terminal: Terminal) -> None:
    stories = events([asks(ToolCall("1", "nothing", {}), ToolCall("2", "order_status", {"order_id": "1"})), says("No.")])
    printed(tty, stories)
    printed(terminal, stories)
    assert re.sub("\x1b\\[[012]m", "", tty.text) == terminal.text
    assert "\x1b" not in terminal.text


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_environment_asks_for_plain_text(tty: Tty, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    printed(tty, events(STORY))
    assert "\x1b" not in tty.text


def test_shell_asks_for_plain_text(tty: Tty) -> None:
    with redirect_stdout(tty):  # type: ignore[type-var]
        view = LiveView(shell=Plain())
        view.update(ToolCallStart(call(1, 1)))
        view.close()
    assert "search()" in tty.text and "\x1b" not in tty.text


def test_foreign_text_brings_no_style_to_a_terminal(tty: Tty) -> None:
    evil = "\x1b[\x1b[31m31m\x9b32mred\x1b]8;;x\x07"
    record = call(1, 1, tool_name=evil, arguments_text=evil, result_text=evil, status="error", error_type=evil)
    story = [TurnStart(1), TextDelta(evil, 1), ToolCallStart(record), ToolCallEnd(record, {})]
    over = ended([turn(1)], [record], error=None, status="error", error_type=evil, error_text=evil, request_model=evil)
    assert over.run is not None
    printed(tty, [*story, AgentEnd(Result({evil: evil}, record=Record(over.run, over.turns, [record])))])
    assert set(re.findall("\x1b.{0,3}", tty.text)) == {"\x1b[2m", "\x1b[0m", "\x1b[1m"} and "\x9b" not in tty.text
    assert "red" in tty.text


# ------------------------------------------------------------------------------------------------------- the trait render


def test_text_in_a_kernel_is_printed_as_it_comes(kernel: Kernel, terminal: Terminal) -> None:
    with redirect_stdout(terminal):  # type: ignore[type-var]
        view = LiveView(shell=kernel, render="text")
        view.show()
        for event in events(STORY):
            view.update(event)
        view.close()
    assert terminal.text.startswith("Let me look.\norder_status(") and ANSWER in terminal.text
    assert kernel.published == []


def test_html_is_drawn_where_a_shell_is_neither_kernel_nor_terminal(kernel: Kernel, clock: Clock) -> None:
    shell = SimpleNamespace(display_pub=kernel)
    LiveView(shell=shell, render="html", clock=clock).show()
    assert "<section" in kernel.html


def test_html_is_lines_in_a_terminal(kernel: Kernel, terminal: Terminal) -> None:
    with redirect_stdout(terminal):  # type: ignore[type-var]
        LiveView(shell=SimpleNamespace(display_pub=kernel, simple_prompt=True), render="html").close()
    assert (kernel.published, terminal.text) == ([], "interrupted\n")


def test_off_draws_nothing_until_it_is_asked_to(kernel: Kernel, clock: Clock) -> None:
    view = LiveView(shell=kernel, render="off", clock=clock)
    view.show()
    clock.now += 2
    view.update(TextDelta("Hello", 1))
    view.tick()
    assert kernel.published == []
    view.show_again()
    assert "Hello" in kernel.html and "2.0 s" in kernel.published[-1]["data"]["text/plain"]
    view.close()
    assert [message["update"] for message in kernel.published] == [False, True]


def test_off_prints_nothing_until_it_is_asked_to(terminal: Terminal) -> None:
    with redirect_stdout(terminal):  # type: ignore[type-var]
        view = LiveView(shell=object(), render="off")
        view.show()
        for event in events(STORY):
            view.update(event)
        view.close()
        assert terminal.pieces == []
        view.show_again()
    assert terminal.text.startswith(ANSWER) and "\ndone, 3 model calls" in terminal.text


def test_unknown_way_to_render_is_refused(kernel: Kernel) -> None:
    with pytest.raises(ErrorConfig, match="render must be auto, html, text or off; got 'htlm'"):
        LiveView(shell=kernel, render="htlm")


# --------------------------------------------------------------------------------------------------------------- both


def test_import_loads_neither_ipython_nor_pandas() -> None:
    code = "import sys, agentroute_ipython.live; print([n for n in ('IPython', 'ipykernel', 'pandas', 'httpx', 'pydantic') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_view_without_ipython_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with redirect_stdout(io.StringIO()) as output:
        view = LiveView()
        view.update(TextDelta("Hello.", 1))
        view.close()
    assert output.getvalue() == "Hello.\n\ninterrupted\n"


# ------------------------------------------------------------------------------------------------------------ in a kernel

SETUP = """
import asyncio
from agentroute import Agent, ToolCall, tool
from agentroute.testing import ModelScripted

go = False

async def wait() -> str:
    while not go:
        await asyncio.sleep(0.02)
    return "here"

@tool(needs_approval=True)
def pay() -> str:
    return "paid"

waiting = Agent("waiting", model=ModelScripted([ToolCall("1", "wait", {}), "At last."]), tools=[wait])
paying = Agent("paying", model=ModelScripted([ToolCall("1", "pay", {}), "It is paid."]), tools=[pay])
quick = Agent("quick", model=ModelScripted(["Here you are."] * 3))
"""


def plain(cell: Cell) -> str:
    return "\n".join(str(output.get("text/plain", "")) for output in cell.outcome().outputs)


@pytest.fixture
def session(start_kernel: StartKernel) -> Session:
    session = start_kernel()
    assert session.run(SETUP).status == session.run("%load_ext agentroute_ipython").status == "ok"
    return session


def test_run_in_the_background_goes_on_where_it_is_shown_again(session: Session) -> None:
    first = session.start("%agent waiting --background Go.")
    session.wait(lambda: "<code>wait()" in first.text, 60, lambda: first.text)
    second = session.start("%agent show last")
    assert "wait() running" in plain(second)
    session.run("go = True")
    session.wait(lambda: "At last." in second.text, 60, lambda: second.text)
    session.wait(lambda: "done, 2 model calls" in plain(second), 60, lambda: plain(second))
    assert "At last." not in plain(first) and "wait() running" in plain(first)


def test_card_says_that_its_run_waits_for_an_approval_in_a_kernel(session: Session) -> None:
    cell = session.start("%%agent paying\nGo.", answers=[])
    button = session.wait_for_widget(_model_name="ButtonModel", description="Approve pay()")
    session.wait(lambda: ">waits for your approval<" in cell.text, 60, lambda: cell.text)
    session.click(button)
    assert cell.outcome().status == "ok"
    assert "waits for" not in plain(cell) and "It is paid." in plain(cell)


def test_trait_render_says_how_runs_are_drawn_in_a_kernel(session: Session) -> None:
    session.run("%config AgentMagics.render = 'text'")
    printed = session.run("%%agent quick\nGo.")
    assert printed.stdout.startswith("Here you are.\n\ndone, 1 model call") and printed.outputs == []
    session.run("%config AgentMagics.render = 'off'")
    silent = session.run("%%agent quick\nGo.")
    assert (silent.stdout, silent.outputs) == ("", [])
    assert "Here you are." in session.run("%agent show last").outputs[0]["text/html"]
