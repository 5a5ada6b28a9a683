"""The kernel harness itself: each rule on the installed ipykernel and, marked slow, on the last 6.x."""

from collections.abc import Callable

import pytest

from tests.ipython.kernels import Session, quickest
from tests.ipython.versions import INSTALLED, KernelVersion

LAST_6 = KernelVersion("6.31.0")
BUTTON = """
import ipywidgets
from IPython.display import display
button = ipywidgets.Button(description="Allow")
button.on_click(lambda _: clicks.append(1))
clicks = []
display(button)
"""
SLOW_STREAM = """
import time
for number in range(300):
    print("token", number, flush=True)
    time.sleep(0.1)
"""


@pytest.fixture(params=[pytest.param(INSTALLED, id="installed"), pytest.param(LAST_6, id="6.31.0", marks=pytest.mark.slow)])
def version(request: pytest.FixtureRequest) -> KernelVersion:
    version: KernelVersion = request.param
    return version


@pytest.fixture
def session(version: KernelVersion, start_kernel: Callable[..., Session]) -> Session:
    return start_kernel(version)


def test_kernel_runs_the_version_asked_for(session: Session, version: KernelVersion) -> None:
    session.run("import ipykernel, IPython")
    running = session.evaluate("ipykernel.__version__")
    assert version == INSTALLED or running == version.ipykernel
    assert session.evaluate("IPython.version_info[0]") == 9


def test_outcome_holds_what_the_cell_wrote(session: Session) -> None:
    outcome = session.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\nprint('more')\n6 * 7")
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", "out\nmore\n", "err\n")
    assert outcome.outputs == [{"text/plain": "42"}]
    assert outcome.execution_count == 1
    assert 0 < outcome.elapsed_s < 10
    assert outcome.stop_delay_s is None


def test_update_replaces_a_display_wherever_it_stands(session: Session) -> None:
    cell = session.start(
        "from IPython.display import display, HTML\n"
        "handle = display(HTML('first'), display_id='card')\n"
        "display(HTML('other'))\n"
        "handle.update(HTML('second'))"
    )
    outcome = cell.outcome()
    assert [output["text/html"] for output in outcome.outputs] == ["second", "other"]
    assert outcome.outputs[0].display_id == "card"
    assert outcome.display_updates == 1

    later = session.run("handle.update(HTML('third')); display(HTML('fourth'), display_id='card');")
    assert [output["text/html"] for output in later.outputs] == ["fourth"]
    assert [output["text/html"] for output in cell.outcome().outputs] == ["fourth", "other"]
    assert [output["text/html"] for output in outcome.outputs] == ["second", "other"]

    session.run("handle.update({'text/plain': 'fifth'}, raw=True)")
    assert cell.outcome().outputs[0] == {"text/plain": "fifth"}


def test_update_of_an_unknown_display_shows_nothing(session: Session) -> None:
    outcome = session.run("from IPython.display import update_display\nupdate_display(1, display_id='nobody')")
    assert (outcome.outputs, outcome.display_updates) == ([], 1)


def test_clear_output_empties_the_cell_when_the_next_output_comes(session: Session) -> None:
    outcome = session.run(
        "from IPython.display import clear_output, display\nprint('gone'); display(1); clear_output(wait=True); print('kept')"
    )
    assert (outcome.stdout, outcome.outputs) == ("kept\n", [])


def test_failed_cell_has_its_error_without_colours(session: Session) -> None:
    outcome = session.run("{}['missing']")
    assert (outcome.status, outcome.ename, outcome.evalue) == ("error", "KeyError", "'missing'")
    assert "KeyError: 'missing'" in outcome.traceback
    assert "\x1b" not in outcome.traceback


def test_cells_queued_behind_a_failure_are_aborted(session: Session) -> None:
    first, second = session.start("import time; time.sleep(1); 1 / 0"), session.start("print('ran')")
    assert first.outcome().ename == "ZeroDivisionError"
    assert second.outcome().status == "aborted"
    assert second.outcome().stdout == ""


def test_interrupt_ends_a_sleep_in_under_a_second(session: Session) -> None:
    def stop() -> float:
        cell = session.start("import time; print('asleep', flush=True); time.sleep(10)")
        cell.wait_for_output("asleep")
        session.interrupt()
        outcome = cell.outcome()
        assert outcome.ename == "KeyboardInterrupt"
        assert outcome.stop_delay_s is not None and outcome.stop_delay_s < outcome.elapsed_s < 60
        return outcome.stop_delay_s

    assert quickest(stop, 1) < 1


def test_output_can_be_awaited_while_it_streams(session: Session) -> None:
    cell = session.start(SLOW_STREAM)
    cell.wait_for_output(lambda cell: cell.stdout.count("token") >= 3)
    assert not cell.done
    session.interrupt()
    assert cell.outcome().stdout.startswith("token 0\ntoken 1\ntoken 2\n")


def test_output_that_never_comes_says_what_came_instead(session: Session) -> None:
    with pytest.raises(AssertionError, match="actual"):
        session.start("print('actual')").wait_for_output("wanted")
    with pytest.raises(TimeoutError, match="still runs; it has shown: ''"):
        session.start("import time; time.sleep(30)").outcome(timeout=0.2)


def test_prompts_are_answered_in_order(session: Session) -> None:
    outcome = session.run("[input('first? '), input('second? ')]", answers=["a", "b"])
    assert outcome.prompts == ["first? ", "second? "]
    assert outcome.outputs == [{"text/plain": "['a', 'b']"}]


def test_prompt_can_be_answered_later_or_interrupted(session: Session) -> None:
    cell = session.start("input('go? ')", answers=[])
    assert cell.wait_for_prompt() == "go? "
    session.answer("yes")
    assert cell.outcome().outputs == [{"text/plain": "'yes'"}]

    cell = session.start("input('again? ')", answers=[])
    cell.wait_for_prompt()
    session.interrupt()
    assert cell.outcome().ename == "KeyboardInterrupt"
    assert session.open_prompts == []


def test_without_answers_nobody_can_be_asked(session: Session) -> None:
    assert session.run("input('anyone? ')").ename == "StdinNotImplementedError"


def test_evaluate_gives_python_values_and_leaves_no_trace(session: Session) -> None:
    session.run("numbers = list(range(2000))")
    assert session.evaluate("{'sum': sum(numbers), 'text': 'ä\\n' * 200, 'all': numbers}") == {
        "sum": 1999000,
        "text": "ä\n" * 200,
        "all": list(range(2000)),
    }
    assert session.run("None").execution_count == 2
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        session.evaluate("1 / 0")


def test_comm_messages_reach_the_kernel_and_come_back(session: Session) -> None:
    session.run(
        "def opened(comm, message):\n"
        "    comm.on_msg(lambda message: comm.send({'echo': message['content']['data']}))\n"
        "get_ipython().kernel.comm_manager.register_target('echo', opened)"
    )
    comm = session.open_comm("echo")
    session.send_comm(comm, {"n": 1})
    session.wait(lambda: bool(comm.received), 60, lambda: "no echo")
    assert comm.received == [{"echo": {"n": 1}}]


def test_button_can_be_found_and_clicked(session: Session) -> None:
    session.run(BUTTON)
    session.click(session.wait_for_widget(_model_name="ButtonModel", description="Allow"))
    assert session.evaluate("clicks") == [1]
    session.run("button.description = 'Allowed'")
    session.wait_for_widget(description="Allowed")


@pytest.mark.slow
def test_subshell_hears_while_the_main_shell_is_busy(start_kernel: Callable[..., Session]) -> None:
    session = start_kernel(KernelVersion("7.3.0"))
    session.run(BUTTON)
    button = session.wait_for_widget(description="Allow")
    cell = session.start("import time\nwhile not clicks: time.sleep(0.01)")
    session.click(button)
    with pytest.raises(TimeoutError):
        cell.outcome(timeout=0.5)
    session.click(button, session.create_subshell())
    assert cell.outcome().status == "ok"


def test_tab_shift_tab_and_enter_can_be_asked(session: Session) -> None:
    session.run("long_name = 1")
    assert session.complete("long_na") == ["long_name"]
    assert "number of items" in session.inspect("len")
    assert session.is_complete("for x in y:") == "incomplete"


def test_kernel_knows_nothing_of_the_user(
    version: KernelVersion, start_kernel: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "secret")
    session = start_kernel(version, env={"AGENTROUTE_EXAMPLE": "given"})
    session.run("import os, pathlib, jupyter_core.paths, IPython")
    assert session.evaluate("'OPENROUTER_API_KEY' in os.environ") is False
    assert session.evaluate("os.environ['AGENTROUTE_EXAMPLE']") == "given"
    home = str(session.folder)
    for path in ("pathlib.Path.home()", "IPython.paths.get_ipython_dir()", "os.environ['AGENTROUTE_RUNS']"):
        assert session.evaluate(f"str({path})").startswith(home)
    assert session.evaluate("os.getcwd()") == home
    for kind in ("config", "data", "runtime"):
        assert session.evaluate(f"jupyter_core.paths.jupyter_{kind}_dir()").startswith(home)


def test_restart_forgets_the_namespace(session: Session) -> None:
    session.run("x = 1")
    session.restart()
    assert session.evaluate("'x' in globals()") is False
    assert session.run("input('still heard? ')", answers=["yes"]).outputs == [{"text/plain": "'yes'"}]
    assert session.run("2").execution_count == 2


def test_output_of_a_callback_belongs_to_no_cell(session: Session) -> None:
    session.run(BUTTON + "handle = display(1, display_id='seen')")
    session.run("button.on_click(lambda _: (handle.update(2), display('by callback')))")
    session.click(session.wait_for_widget(description="Allow"))
    session.wait(lambda: len(session.stray) == 2, 60, lambda: f"{session.stray}")
    assert [message["msg_type"] for message in session.stray] == ["update_display_data", "display_data"]


def test_dead_kernel_is_reported_with_its_log(session: Session) -> None:
    with pytest.raises(AssertionError, match="last words"):
        session.run("import os; get_ipython().kernel.log.error('last words'); os._exit(1)")


def test_kernel_that_cannot_start_says_why(start_kernel: Callable[..., Session]) -> None:
    with pytest.raises(AssertionError, match="No module named 'encodings'"):
        start_kernel(env={"PYTHONHOME": "nowhere"})


def test_every_version_of_the_matrix_runs_cells(any_kernel: Session) -> None:
    outcome = any_kernel.run(
        "import asyncio; await asyncio.sleep(0); print(await asyncio.to_thread(input, 'go? '))", answers=["went"]
    )
    assert (outcome.status, outcome.stdout) == ("ok", "went\n"), outcome.traceback


# Stop, in every state of a run, on every version of the matrix

STATES = """
import asyncio, time
from agentroute import Agent, ToolCall, tool
from agentroute.testing import ModelScripted

def sync_tool() -> str:
    print("in the tool", flush=True)
    time.sleep(30)

async def async_tool() -> str:
    print("in the tool", flush=True)
    await asyncio.sleep(30)

@tool(needs_approval=True)
def refund(amount: float) -> str:
    refunded.append(amount)

refunded = []
def calling(function):
    model = ModelScripted([ToolCall("1", function.name if function is refund else function.__name__, {"amount": 5} if function is refund else {})] * 9)
    return Agent("bot", model=model, tools=[function])

silent = Agent("bot", model=ModelScripted(["never"] * 9, delay_s=30))
streaming = Agent("bot", model=ModelScripted(["one two three four five six seven eight nine ten"] * 9, chunk_s=0.5))
sync, asynchronous, asking = calling(sync_tool), calling(async_tool), calling(refund)
"""
STATE = {
    "silent": ("%agent silent Go.", "running"),
    "streaming": ("%agent streaming Go.", "two"),
    "sync tool": ("%agent sync Go.", "in the tool"),
    "async tool": ("%agent asynchronous Go.", "in the tool"),
    "approval": ("%agent asking Go.", "needs your approval"),  # by a button where the kernel answers it, else at a prompt
    "approval at a prompt": ("%agent asking --approval input Go.", "needs your approval"),
    "approval at a prompt of a cell inside a cell": ("get_ipython().run_cell_magic('agent', 'asking', 'Go.')", "needs your approval"),
}


@pytest.mark.parametrize("state", STATE)
def test_stop_ends_a_run_in_every_state_and_the_cells_behind_it(any_kernel: Session, state: str) -> None:
    assert any_kernel.run(STATES).status == any_kernel.run("%load_ext agentroute_ipython").status == "ok"
    source, sign = STATE[state]

    def stop() -> float:
        cell = any_kernel.start(source, answers=[])
        following = any_kernel.start("print('reached')")
        cell.wait_for_output(sign)
        any_kernel.interrupt()
        outcome = cell.outcome()
        assert (outcome.status, outcome.ename) == ("error", "Interrupted")
        assert outcome.traceback.splitlines() == ["Interrupted: the run was stopped; what it did until then is in _agent"]
        assert following.outcome().status == "aborted"
        assert any_kernel.evaluate("(_agent.interrupted, _agent.record.run.status, _agent.messages[0]['content'])") == (True, "interrupted", "Go.")
        assert any_kernel.evaluate("refunded") == []
        assert any("interrupted" in output.get("text/plain", "") for output in outcome.outputs)
        assert not any("needs your approval" in output.get("text/plain", "") for output in outcome.outputs)
        again = any_kernel.run("input('still heard? ')", answers=["yes"])
        assert again.outputs == [{"text/plain": "'yes'"}]
        assert outcome.stop_delay_s is not None
        return outcome.stop_delay_s

    assert quickest(stop, 0.5) < 0.5
