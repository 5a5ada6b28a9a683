"""Agent cells in real kernels, in notebooks without a browser, and in a terminal."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import nbformat
import pexpect
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from agentroute import RunStore
from agentroute.records import RunRecord, ToolCallRecord, columns
from tests.ipython.kernels import Outcome, Session, kernel_environment, quickest
from tests.ipython.sandbox import unix_sockets
from tests.ipython.versions import INSTALLED, OLDEST, KernelVersion
from tests.terminals import press_ctrl_c

SETUP = """
import asyncio, os, threading, time
from agentroute import Agent, ToolCall
from agentroute.testing import ModelScripted

def order_status(order_id: str) -> str:
    return "shipped"

def sync_tool() -> str:
    print("in the tool")
    time.sleep(30)
    return "late"

async def async_tool() -> str:
    print("in the tool")
    await asyncio.sleep(30)
    return "late"

class Streaming(ModelScripted):
    async def complete_stream(self, request):
        async for chunk in super().complete_stream(request):
            while chunk.delta in ("w20 ", "w40 ") and not os.path.exists(chunk.delta.strip()):
                await asyncio.sleep(0.01)
            yield chunk

scripted = ModelScripted([ToolCall("1", "order_status", {"order_id": "4821"}), "It is shipped."] * 9)
streaming = Streaming(["".join(f"w{number:02} " for number in range(60))] * 9, chunk_s=0.02)
silent = Agent("silent", model=ModelScripted(["never"] * 9, delay_s=30))
sync = Agent("sync", model=ModelScripted([ToolCall("1", "sync_tool", {})] * 9), tools=[sync_tool])
asynchronous = Agent("asynchronous", model=ModelScripted([ToolCall("1", "async_tool", {})] * 9), tools=[async_tool])
endless = Agent("endless", model=ModelScripted([ToolCall("1", "order_status", {"order_id": "1"})] * 9), tools=[order_status], max_turns=2)
"""
SUPPORT = """%%agent support --model scripted --tools order_status --max-cost 0.25
You are a concise, accurate support agent.
---
Where is order 4821?
"""


def ready(session: Session) -> Session:
    assert session.run(SETUP).status == "ok"
    assert session.run("%load_ext agentroute_ipython").status == "ok"
    return session


@pytest.fixture
def session(kernel: Session) -> Session:
    return ready(kernel)


@pytest.fixture
def any_session(any_kernel: Session) -> Session:
    return ready(any_kernel)


def rows(session: Session, kind: type[Any] = RunRecord) -> list[dict[str, Any]]:
    """What the kernel has recorded."""
    with closing(RunStore(session.folder / "runs.sqlite")) as store:
        return [dict(zip([column.name for column in columns(kind)], row, strict=True)) for row in store.select(kind)]


def card(outcome: Outcome) -> str:
    """The plain text of the one card that a cell shows."""
    assert [set(output) for output in outcome.outputs] == [{"text/html", "text/plain"}]
    return str(outcome.outputs[0]["text/plain"])


def test_cell_defines_runs_and_shows_one_card(any_session: Session) -> None:
    outcome = any_session.run(SUPPORT)
    assert outcome.status == "ok", outcome.text
    assert "It is shipped." in card(outcome)
    assert 'order_status(order_id="4821")' in card(outcome)
    assert (outcome.stdout, outcome.stderr) == ("", "")
    assert any_session.evaluate("_agent.output") == "It is shipped."
    assert [(row["agent_name"], row["status"], row["n_turns"]) for row in rows(any_session)] == [("support", "ok", 2)]
    again = any_session.run("%agent support And now?")
    assert "It is shipped." in card(again)


def test_history_holds_the_cell_as_it_was_written(any_session: Session) -> None:
    any_session.run(SUPPORT)
    assert any_session.evaluate("In[-1]") == SUPPORT.rstrip("\n")
    assert any_session.run("%history -l 1").stdout.startswith("%%agent support --model scripted")
    assert any_session.run("%history -t 3").stdout.startswith("%%agent support --model scripted")


def test_answer_streams_and_is_drawn_at_most_ten_times_a_second(any_session: Session) -> None:
    cell = any_session.start("%%agent bot --model streaming\nCount.")
    for word, next_word in (("w19", "w20"), ("w39", "w40")):
        cell.wait_for_output(word)
        assert not cell.done
        assert next_word not in cell.text
        (any_session.folder / next_word).touch()  # which the model waits for
    outcome = cell.outcome()
    assert "w59" in card(outcome)
    assert 3 <= outcome.display_updates <= outcome.elapsed_s * 10 + 2


def test_failed_run_makes_the_cell_fail_in_few_lines(any_session: Session) -> None:
    any_session.start("while not os.path.exists('both are sent'):\n    time.sleep(0.01)")
    cell, following = any_session.start("%%agent endless\nGo."), any_session.start("print('reached')")
    (any_session.folder / "both are sent").touch()
    outcome = cell.outcome()
    assert (outcome.status, outcome.ename) == ("error", "ErrorMaxTurns")
    assert outcome.traceback.splitlines() == [
        f"ErrorMaxTurns: {outcome.evalue}",
        "(what it did until then is in _agent; %tb Verbose shows the traceback)",
    ]
    assert following.outcome().status == "aborted"
    assert any_session.evaluate("len(_agent.record.tool_calls)") == 2
    assert rows(any_session)[0]["status"] == "error"


@pytest.mark.parametrize(("name", "sign"), [("silent", "running"), ("sync", "in the tool"), ("asynchronous", "in the tool")])
def test_stop_takes_under_a_second_and_is_recorded(any_session: Session, name: str, sign: str) -> None:
    def stop() -> float:
        cell = any_session.start(f"%%agent {name}\nGo.")
        cell.wait_for_output(sign)
        any_session.interrupt()
        outcome = cell.outcome()
        assert (outcome.status, outcome.ename) == ("error", "Interrupted")
        assert outcome.traceback.splitlines() == ["Interrupted: the run was stopped; what it did until then is in _agent"]
        assert "interrupted" in outcome.outputs[0]["text/plain"]
        assert any_session.evaluate("(_agent.interrupted, _agent.record.run.status)") == (True, "interrupted")
        assert (rows(any_session)[-1]["agent_name"], rows(any_session)[-1]["status"]) == (name, "interrupted")
        assert outcome.stop_delay_s is not None
        return outcome.stop_delay_s

    assert quickest(stop, 1) < 1
    assert {row["status"] for row in rows(any_session, ToolCallRecord)} <= {"interrupted"}
    assert any_session.run("%agent support -m scripted -t order_status hi").status == "ok"


def test_stop_of_a_run_in_a_plain_cell_shows_the_line_of_the_cell(session: Session) -> None:
    cell = session.start("# a comment\nsync.run('Go.')")
    cell.wait_for_output("in the tool")
    session.interrupt()
    outcome = cell.outcome()
    assert (outcome.status, outcome.ename) == ("error", "KeyboardInterrupt")
    assert outcome.traceback.splitlines() == ["KeyboardInterrupt: stopped", "(line 2: sync.run('Go.'); %tb shows the traceback)"]
    assert "_portal.py" in session.run("%tb").text


def test_stop_of_code_of_the_notebook_shows_all_of_it(session: Session) -> None:
    cell = session.start("def wait():\n    print('waiting')\n    time.sleep(30)\nwait()")
    cell.wait_for_output("waiting")
    session.interrupt()
    outcome = cell.outcome()
    assert outcome.ename == "KeyboardInterrupt"
    assert "wait()" in outcome.traceback and "time.sleep(30)" in outcome.traceback


BLOCKING = """
def block():
    for _ in range(2000):  # a signal right before one long sleep would not end it
        time.sleep(0.01)

async def blocking_tool() -> str:
    print("blocking", flush=True)
    block()
    return "late"

async def blocking_answer(request):
    print("blocking", flush=True)
    block()
    return "late"

from agentroute.testing import ModelFunction
tool = Agent("tool", model=ModelScripted([ToolCall("1", "blocking_tool", {})] * 9), tools=[blocking_tool])
model = Agent("model", model=ModelFunction(blocking_answer))
"""


@pytest.mark.parametrize("name", ["tool", "model"])
def test_second_stop_breaks_into_code_that_blocks_the_loop(any_session: Session, name: str) -> None:
    assert any_session.run(BLOCKING).status == "ok"

    def stop() -> float:
        cell = any_session.start(f"%%agent {name}\nGo.")
        cell.wait_for_output("blocking")
        any_session.interrupt()
        time.sleep(0.4)  # the first one is seen, and nothing comes of it
        assert not cell.done
        any_session.interrupt()
        outcome = cell.outcome()
        assert (outcome.status, outcome.ename) == ("error", "Interrupted")
        assert any_session.evaluate("(_agent.interrupted, _agent.messages[0]['content'])") == (True, "Go.")
        assert (rows(any_session)[-1]["agent_name"], rows(any_session)[-1]["status"]) == (name, "interrupted")
        assert outcome.stop_delay_s is not None
        return outcome.stop_delay_s

    assert quickest(stop, 1.5) < 1.5
    assert {row["status"] for row in rows(any_session, ToolCallRecord)} <= {"interrupted"}
    assert any_session.run("%agent support -m scripted -t order_status hi").status == "ok"
    assert any_session.run("await asyncio.sleep(0.01)").status == "ok"


NESTED = {
    "run_cell_magic": "get_ipython().run_cell_magic('agent', '{name}', 'Go.')",
    "time": "%%time\n%%agent {name}\nGo.",
    "await": "await asyncio.sleep(0)\nget_ipython().run_cell_magic('agent', '{name}', 'Go.')",
    "loop": "for _ in range(1):\n    %agent {name} Go?",
}


@pytest.mark.parametrize("cell", NESTED.values(), ids=NESTED)
def test_cell_inside_a_cell_runs_and_can_be_stopped(session: Session, cell: str) -> None:
    session.run("quick = Agent('quick', model=scripted, tools=[order_status])")
    outcome = session.run(cell.format(name="quick"))
    assert outcome.status == "ok", outcome.text
    assert "It is shipped." in card(outcome)

    def stop() -> float:
        running = session.start(cell.format(name="sync"))
        running.wait_for_output("in the tool")
        session.interrupt()
        stopped = running.outcome()
        assert stopped.ename == "Interrupted"
        assert [row["status"] for row in rows(session)][-1] == "interrupted"
        assert stopped.stop_delay_s is not None
        return stopped.stop_delay_s

    assert quickest(stop, 1) < 1
    assert rows(session)[0]["status"] == "ok"


def test_card_can_be_captured(session: Session) -> None:
    outcome = session.run("%%capture held\n%%agent support -m scripted -t order_status\nGo.")
    assert (outcome.status, outcome.outputs, outcome.stdout) == ("ok", [], "")
    assert session.evaluate("_agent.output") == "It is shipped."
    assert session.evaluate("'It is shipped.' in str([output.data for output in held.outputs])")


def test_cell_runs_with_autoawait_off(session: Session) -> None:
    session.run("%autoawait off")
    assert "It is shipped." in card(session.run(SUPPORT))


def test_plain_call_in_a_cell_works_and_is_recorded(any_session: Session) -> None:
    outcome = any_session.run("Agent('plain', model=scripted, tools=[order_status]).run('Go.').output")
    assert outcome.outputs == [{"text/plain": "'It is shipped.'"}]
    assert rows(any_session)[0]["agent_name"] == "plain"


def test_plain_call_that_fails_is_two_lines(any_session: Session) -> None:
    outcome = any_session.run("endless.run('Go.')")
    assert (outcome.status, outcome.ename) == ("error", "ErrorMaxTurns")
    assert outcome.traceback.splitlines() == [
        f"ErrorMaxTurns: {outcome.evalue}",
        "(line 1: endless.run('Go.'); %tb shows the traceback)",
    ]


def test_tools_share_the_loop_of_earlier_cells(any_session: Session) -> None:
    any_session.run("loop = asyncio.get_running_loop()")
    any_session.run("async def same_loop() -> bool:\n    return asyncio.get_running_loop() is loop")
    any_session.run("asked = ModelScripted([ToolCall('1', 'same_loop', {}), 'done'])")
    any_session.run("await asyncio.sleep(0)")
    assert any_session.run("%%agent bot -m asked -t same_loop\nGo.").status == "ok"
    assert any_session.evaluate("_agent.record.tool_calls[0].result_text") == "true"


def test_output_of_tools_goes_to_their_cell(session: Session) -> None:
    session.run("def loud() -> str:\n    print('loud')\n    return ''")
    session.run("talker = ModelScripted([ToolCall('1', 'loud', {}), 'done'] * 2)")
    assert session.run("%%agent bot -m talker -t loud\nGo.").stdout == "loud\n"
    assert session.run("%%time\n%%agent bot\nGo.").stdout.startswith("loud\n")


def test_mistake_is_three_lines_at_most(any_session: Session) -> None:
    outcome = any_session.run("%%agent support --modle scripted\nhi")
    assert (outcome.status, outcome.ename, outcome.outputs) == ("error", "UsageError", [])
    assert outcome.stderr == "UsageError: unknown option --modle; did you mean --model?\nAll options: %agent help\n"


def test_traceback_of_a_bug_shows_the_cell_as_it_was_written(session: Session) -> None:
    session.run("from agentroute_ipython.live import LiveView\ndef show(self):\n    1 / 0\nLiveView.show = show")
    outcome = session.run("%%agent silent\nline two")
    assert outcome.ename == "ZeroDivisionError"
    assert "----> 1 %%agent silent" in outcome.traceback
    assert "agent_here(" not in outcome.traceback.split("File", 1)[0]


def test_help_is_found_by_shift_tab(session: Session) -> None:
    assert "--max-cost USD" in session.inspect("%%agent")


def test_unloading_takes_the_magic_away(session: Session) -> None:
    assert session.run("%unload_ext agentroute_ipython").status == "ok"
    assert "`%%agent` not found" in session.run("%%agent silent\nhi").stderr


# Notebooks without a browser


@pytest.fixture
def run_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., nbformat.NotebookNode]:
    for name, value in kernel_environment(tmp_path).items():
        monkeypatch.setenv(name, value)

    def run(*cells: str) -> nbformat.NotebookNode:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        with unix_sockets() as config:
            NotebookClient(notebook, kernel_name="python3", timeout=60, config=config).execute()
        return notebook

    return run


def test_notebook_is_saved_with_the_last_state_of_the_card(run_notebook: Any) -> None:
    notebook = run_notebook(SETUP, "%load_ext agentroute_ipython", SUPPORT)
    (output,) = notebook.cells[2].outputs
    assert set(output.data) == {"text/html", "text/plain"}
    assert "It is shipped." in output.data["text/html"]
    assert notebook.cells[2].source == SUPPORT


def test_failed_run_stops_the_notebook(run_notebook: Any) -> None:
    with pytest.raises(CellExecutionError, match="ErrorMaxTurns: turn 3 would pass max_turns=2") as caught:
        run_notebook(SETUP, "%load_ext agentroute_ipython", "%%agent endless\nGo.", "open('reached', 'w')")
    assert caught.value.ename == "ErrorMaxTurns"


# Terminal


class Terminal:
    """IPython in a pseudo-terminal, without a line editor."""

    def __init__(self, folder: Path, version: KernelVersion) -> None:
        path = os.pathsep.join(part for part in (version.python_path(), os.getcwd()) if part)
        environment = kernel_environment(folder) | {"PYTHONPATH": path, "TERM": "dumb"}
        arguments = ["-m", "IPython", "--simple-prompt", "--no-banner", "--no-confirm-exit", "--colors=NoColor"]
        self.child = pexpect.spawn(sys.executable, arguments, env=environment, cwd=str(folder), encoding="utf-8", timeout=60)
        self.child.expect(r"In \[1\]: ")
        self.child.setecho(False)

    def run(self, *lines: str, until: str = r"In \[\d+\]: ") -> str:
        """What is printed until `until`; each further line of a cell is sent when it is asked for."""
        for line in lines[:-1]:
            self.child.sendline(line)
            self.child.expect(r"\.\.\.: ")
        self.child.sendline(lines[-1])
        self.child.expect(until)
        return str(self.child.before)


@pytest.fixture(params=[INSTALLED, pytest.param(OLDEST, marks=pytest.mark.slow)], ids=str)
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "setup.py").write_text(SETUP)
    terminal = Terminal(tmp_path, request.param)
    terminal.run("%run setup.py")
    terminal.run("%load_ext agentroute_ipython")
    yield terminal
    terminal.child.close(force=True)


def test_agent_runs_in_a_terminal(terminal: Terminal) -> None:
    assert "It is shipped." in terminal.run("%%agent bot -m scripted -t order_status", "Where is it?", "", "")
    assert "It is shipped." in terminal.run("%agent bot Is it?")
    assert "'It is shipped.'" in terminal.run("_agent.output")


def test_ctrl_c_stops_the_run_in_a_terminal(terminal: Terminal) -> None:
    terminal.run("%agent sync Go.", until="in the tool")
    press_ctrl_c(terminal.child, "Interrupted: the run was stopped")
    terminal.child.expect(r"In \[\d+\]: ")
    assert "True" in terminal.run("_agent.interrupted")
    assert "UsageError: the prompt is empty" in terminal.run("%agent sync")


# Loading

COUNTED = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
shell.run_line_magic("load_ext", "agentroute_ipython")
new = {name.partition(".")[0] for name in set(sys.modules) - before}
heavy = {"asyncio", "pandas", "numpy", "ipywidgets", "httpx", "httpx2", "pydantic", "pydantic_core", "matplotlib", "xllamacpp", "docstring_parser"}
print(sorted(new & heavy), sorted(name for name in sys.modules if name.startswith("agentroute")))
"""
AT_LOADING = [
    "agentroute", "agentroute.config", "agentroute.errors", "agentroute.figures", "agentroute.keeping", "agentroute.keys",
    "agentroute.replays", "agentroute.store", "agentroute.visible",
    *("agentroute_ipython" + name for name in (
        "", ".agents", ".arguments", ".cell_text", ".completion", ".formats", ".help_text", ".interpolation", ".loading", ".looking", ".magics",
        ".modes", ".place", ".project_settings", ".replaying", ".transform", ".usage_totals", ".words",
    )),
]  # fmt: skip
"""What `%load_ext` costs is the import of these; one more is a choice to be made here."""


def test_loading_imports_nothing_heavy(tmp_path: Path) -> None:
    environment = kernel_environment(tmp_path) | {"PYTHONPATH": os.getcwd()}
    ran = subprocess.run([sys.executable, "-c", COUNTED], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == f"[] {AT_LOADING}\n", ran.stderr
