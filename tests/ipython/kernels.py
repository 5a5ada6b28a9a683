"""Real kernels for tests: start one, run cells in it, and read what a notebook would have stored.

    with kernel(tmp_path) as session:
        outcome = session.run("print(1 + 1)")
        assert outcome.stdout == "2\n"

Nothing here uses a thread. Messages are read only while a method of `Session` or `Cell` waits; times come from the
stamps in the messages, so they are right also when the test looked late.
"""

import ast
import math
import os
import queue
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from tests.ipython.sandbox import kernel_environment, write_kernel_spec
from tests.ipython.versions import INSTALLED, KernelVersion

ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")

Message = dict[str, Any]
"""A message as jupyter_client reads it: `header`, `parent_header`, `msg_type`, `content`, `buffers`."""


class KernelDied(AssertionError):
    """The kernel process ended although nobody asked it to; the message ends with its log."""


class Output(dict[str, Any]):
    """A mime bundle (`output["text/html"]`) as the notebook would store it, with what belongs to it."""

    def __init__(self, content: Message) -> None:
        super().__init__(content["data"])
        self.metadata: dict[str, Any] = content["metadata"]
        self.display_id: str | None = content.get("transient", {}).get("display_id")

    def replace(self, content: Message) -> None:
        self.clear()
        self.update(content["data"])
        self.metadata = content["metadata"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one cell did, in the state the notebook would store when this was taken."""

    status: str  # "ok", "error", or "aborted" when a cell before it failed
    execution_count: int | None
    stdout: str
    stderr: str
    outputs: list[Output]  # displays and the result, in order; updates by display id and clear_output are applied
    display_updates: int  # update_display_data messages that this cell sent
    ename: str | None
    evalue: str | None
    traceback: str  # ANSI colours removed; empty without an error
    prompts: list[str]  # what input() asked
    elapsed_s: float  # from the kernel's "busy" to its reply
    stop_delay_s: float | None  # from the last `interrupt` during the cell to the reply; None without one
    messages: list[Message]  # every message the kernel published for the cell, as it came

    @property
    def text(self) -> str:
        return shown_text(self.stdout, self.stderr, self.outputs, self.traceback)


class Cell:
    """A cell that was sent to the kernel and may still be running. Made by `Session.start`."""

    def __init__(self, session: "Session", msg_id: str, answers: Sequence[str] | None) -> None:
        self.msg_id = msg_id
        self.stdout = ""
        self.stderr = ""
        self.outputs: list[Output] = []
        self.display_updates = 0
        self.prompts: list[str] = []
        self.messages: list[Message] = []
        self.reply: Message | None = None
        self._session = session
        self._answers = list(answers or ())
        self._busy_at: datetime | None = None
        self._idle = False
        self._clear_first = False
        self._interrupted_at: datetime | None = None
        self._error: Message = {}

    @property
    def done(self) -> bool:
        """Whether the reply and the last output have come."""
        return self.reply is not None and self._idle

    @property
    def asks(self) -> bool:
        """Whether `input()` waits for an answer."""
        return self.msg_id in self._session.open_prompts

    @property
    def text(self) -> str:
        """All that a reader of the cell's output sees so far."""
        return shown_text(self.stdout, self.stderr, self.outputs, "\n".join(self._error.get("traceback", ())))

    def outcome(self, timeout: float = 60) -> Outcome:
        """Wait for the end of the cell. Asked again later, it has what displays were updated to since.

        Raises:
            TimeoutError: the cell still runs after `timeout` seconds.
        """
        self._session.wait(lambda: self.done, timeout, lambda: f"the cell still runs; it has shown: {self.text!r}")
        assert self.reply is not None
        content, ended_at = self.reply["content"], self.reply["header"]["date"]
        error = self._error or (content if content["status"] == "error" else {})
        return Outcome(
            status=content["status"],
            execution_count=content.get("execution_count"),
            stdout=self.stdout,
            stderr=self.stderr,
            outputs=deepcopy(self.outputs),
            display_updates=self.display_updates,
            ename=error.get("ename"),
            evalue=ANSI.sub("", error["evalue"]) if error else None,
            traceback=ANSI.sub("", "\n".join(error.get("traceback", ()))),
            prompts=list(self.prompts),
            elapsed_s=(ended_at - (self._busy_at or ended_at)).total_seconds(),
            stop_delay_s=(ended_at - self._interrupted_at).total_seconds() if self._interrupted_at else None,
            messages=list(self.messages),
        )

    def wait_for_output(self, wanted: str | Callable[["Cell"], bool], timeout: float = 60) -> None:
        """Return as soon as `wanted` is in what the cell has shown, or is true of the cell.

        Raises:
            AssertionError: the cell ended without it.
            TimeoutError: it did not come in time.
        """
        seen = (lambda cell: wanted in cell.text) if isinstance(wanted, str) else wanted
        self._session.wait(lambda: seen(self) or self.done, timeout, lambda: f"no such output yet in {self.text!r}")
        assert seen(self), f"the cell ended without the wanted output: {self.text!r}"

    def wait_for_prompt(self, timeout: float = 60) -> str:
        """Wait until `input()` asks and no answer is left; the prompt it shows. Answer with `Session.answer`."""
        session = self._session
        session.wait(lambda: self.asks or self.done, timeout, lambda: f"the cell does not ask; it shows {self.text!r}")
        assert self.asks, f"the cell ended without asking: {self.text!r}"
        return self.prompts[-1]

    def _take(self, message: Message) -> None:
        """One published message of this cell; display updates are the session's affair."""
        self.messages.append(message)
        content = message["content"]
        match message["msg_type"]:
            case "status" if content["execution_state"] == "busy":
                self._busy_at = self._busy_at or message["header"]["date"]
            case "status" if content["execution_state"] == "idle":
                self._idle = True
            case "stream":
                self._clear_if_asked()
                setattr(self, content["name"], getattr(self, content["name"]) + content["text"])
            case "display_data" | "execute_result":
                self._clear_if_asked()
                self.outputs.append(Output(content))
            case "update_display_data":
                self.display_updates += 1
            case "clear_output":
                self._clear_first = True
                if not content["wait"]:
                    self._clear_if_asked()
            case "error":
                self._error = content

    def _clear_if_asked(self) -> None:
        if self._clear_first:
            self._clear_first, self.stdout, self.stderr, self.outputs = False, "", "", []


@dataclass
class Comm:
    """A comm that the kernel or the test opened; a widget is one with target `jupyter.widget`."""

    comm_id: str
    target: str
    data: dict[str, Any]  # of the opening message
    received: list[dict[str, Any]] = field(default_factory=list)  # data of each later message from the kernel
    closed: bool = False

    @property
    def state(self) -> dict[str, Any]:
        """A widget's traits as they are now."""
        updates = [data["state"] for data in self.received if data.get("method") == "update"]
        return {name: value for state in (self.data.get("state", {}), *updates) for name, value in state.items()}


class Session:
    """A kernel process and the client of one notebook. Made by `kernel`."""

    def __init__(self, manager: KernelManager, folder: Path, launch: dict[str, Any]) -> None:
        self.folder = folder
        """The kernel's working folder and home; its modules can be imported in cells."""
        self.comms: dict[str, Comm] = {}
        self.open_prompts: list[str] = []
        self.stray: list[Message] = []
        """What was published for no cell, as by a widget's callback; without `status` messages."""
        self._manager = manager
        self._launch = launch
        self._cells: dict[str, Cell] = {}
        self._replies: dict[str, Message] = {}
        self._idle: set[str] = set()  # requests whose last output has come
        self._heard: set[str] = set()  # message types

    # Cells

    def run(
        self, code: str, timeout: float = 60, answers: Sequence[str] | None = None, cell_id: str | None = None
    ) -> Outcome:
        """Run a cell to its end; it may well have failed, see `Outcome.status`."""
        return self.start(code, answers, cell_id).outcome(timeout)

    def start(self, code: str, answers: Sequence[str] | None = None, cell_id: str | None = None) -> Cell:
        """Send a cell and return at once.

        `cell_id` is what JupyterLab and VS Code tell the kernel of the cell, and nbclient does not.

        `answers` are given to `input()` in order; when they are used up it waits for `answer`. With None the cell has
        no one to ask, as under nbclient and papermill, and `input()` raises StdinNotImplementedError.
        """
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "stop_on_error": True}
        content["allow_stdin"] = answers is not None
        message = self._client.session.msg("execute_request", content, metadata={"cellId": cell_id} if cell_id else {})
        self._client.shell_channel.send(message)
        msg_id: str = message["header"]["msg_id"]
        self._cells[msg_id] = cell = Cell(self, msg_id, answers)
        return cell

    def answer(self, text: str) -> None:
        """Answer the prompt that waits longest."""
        self.open_prompts.pop(0)
        self._client.input(text)

    def interrupt(self) -> None:
        """Do what the stop button does."""
        for cell in self._cells.values():
            if not cell.done:
                cell._interrupted_at = datetime.now(UTC)
        self._manager.interrupt_kernel()

    def evaluate(self, expression: str, timeout: float = 60) -> Any:
        """The value of an expression in the user's namespace, for values whose repr Python can read back.

        Raises:
            AssertionError: the expression raised; the message holds the error.
        """
        asked = {"code": "", "silent": True, "store_history": False, "allow_stdin": False, "stop_on_error": False}
        asked["user_expressions"] = {"value": f"repr({expression})"}
        answer = self.request("execute", asked, timeout)["user_expressions"]["value"]
        assert answer["status"] == "ok", f"{expression} raised {answer['ename']}: {answer['evalue']}"
        return ast.literal_eval(ast.literal_eval(answer["data"]["text/plain"]))

    # Other requests

    def complete(self, code: str, cursor: int | None = None) -> list[str]:
        """What Tab offers at `cursor`, counted in characters; None is the end of `code`."""
        content = {"code": code, "cursor_pos": len(code) if cursor is None else cursor}
        return list(self.request("complete", content)["matches"])

    def inspect(self, code: str) -> str:
        """What Shift-Tab shows at the end of `code`, as plain text; empty when nothing was found."""
        reply = self.request("inspect", {"code": code, "cursor_pos": len(code), "detail_level": 0})
        return ANSI.sub("", reply["data"].get("text/plain", ""))

    def is_complete(self, code: str) -> str:
        """`complete`, `incomplete`, `invalid` or `unknown`, as a console asks after Enter."""
        return str(self.request("is_complete", {"code": code})["status"])

    def request(self, name: str, content: Message, timeout: float = 60, channel: str = "shell") -> Message:
        """Send `<name>_request` on `shell` or `control` and return the content of its reply.

        What the kernel published before it answered on `shell` has been read by then, as of runs that had ended.
        """
        message = self._client.session.msg(f"{name}_request", content)
        msg_id = message["header"]["msg_id"]
        getattr(self._client, f"{channel}_channel").send(message)
        heard = self._idle if channel == "shell" else self._replies
        self.wait(lambda: msg_id in self._replies and msg_id in heard, timeout, lambda: f"no reply to {name}_request")
        return dict(self._replies.pop(msg_id)["content"])

    # Comms and widgets

    def open_comm(self, target: str, data: dict[str, Any] | None = None) -> Comm:
        """Open a comm to a target that the kernel has registered."""
        comm = Comm(os.urandom(16).hex(), target, data or {})
        self.comms[comm.comm_id] = comm
        self._send_comm("comm_open", {"comm_id": comm.comm_id, "target_name": target, "data": comm.data})
        return comm

    def send_comm(self, comm: Comm, data: dict[str, Any], subshell: str | None = None) -> None:
        """Send a comm message, on the main shell or on a subshell as JupyterLab does where the kernel has them."""
        self._send_comm("comm_msg", {"comm_id": comm.comm_id, "data": data}, subshell)

    def click(self, comm: Comm, subshell: str | None = None) -> None:
        """Click an ipywidgets button."""
        self.send_comm(comm, {"method": "custom", "content": {"event": "click"}}, subshell)

    def wait_for_widget(self, timeout: float = 60, **traits: object) -> Comm:
        """The open widget whose state has all of `traits`, as `_model_name="ButtonModel", description="Allow"`."""

        def found() -> Comm | None:
            alive = [(comm, comm.state) for comm in self.comms.values() if not comm.closed]
            return next((comm for comm, state in alive if state | traits == state), None)

        self.wait(lambda: found() is not None, timeout, lambda: f"no widget with {traits}")
        widget = found()
        assert widget is not None
        return widget

    def create_subshell(self) -> str:
        """A new subshell's id; only ipykernel 7 and later have them."""
        return str(self.request("create_subshell", {}, channel="control")["subshell_id"])

    def _send_comm(self, msg_type: str, content: Message, subshell: str | None = None) -> None:
        message = self._client.session.msg(msg_type, content)
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self._client.shell_channel.send(message)

    # The process

    def restart(self) -> None:
        """Kill the kernel and start it anew; cells and comms of before are forgotten."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True, restart=True)
        for socket in self._sockets():
            socket.unlink(missing_ok=True)
        self._cells, self._replies, self.comms = {}, {}, {}
        self.open_prompts, self.stray, self._idle, self._heard = [], [], set(), set()
        self._launch_kernel()

    def log(self) -> str:
        """What the kernel's own logger wrote.

        Errors of forgotten tasks are not here: they are in the stderr of a cell or in `stray`.
        """
        return (self.folder / "kernel.log").read_text(errors="replace")

    def wait(self, until: Callable[[], bool], timeout: float, complaint: Callable[[], str]) -> None:
        """Read messages until `until()` is true.

        Raises:
            TimeoutError: it was not in `timeout` seconds; says `complaint()`.
            KernelDied: the kernel process ended.
        """
        end = time.monotonic() + timeout
        while not until():
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"after {timeout} s: {complaint()}")
            if not self._read(min(left, 0.5)):
                self._check_alive()

    def _check_alive(self) -> None:
        if not self._manager.is_alive():
            raise KernelDied(f"the kernel ended; its log:\n{self.log()}")

    def _launch_kernel(self) -> None:
        """Start the process and return once it is heard on every channel."""
        self._manager.start_kernel(**self._launch)
        end = time.monotonic() + 60
        # A client that connects earlier tries again every 0.1 s, and the stdin channel cannot be asked whether it is
        # through: a prompt that the kernel sends before is lost, and the cell hangs.
        while not all(socket.exists() for socket in self._sockets()):
            self._check_alive()
            assert time.monotonic() < end, f"the kernel did not open its sockets in 60 s; its log:\n{self.log()}"
            time.sleep(0.01)

        self._client: BlockingKernelClient = self._manager.client()
        self._client.start_channels(hb=False)
        client = self._client
        self._channels: list[Any] = [
            client.iopub_channel,
            client.shell_channel,
            client.stdin_channel,
            client.control_channel,
        ]
        self._poller = zmq.Poller()
        for channel in self._channels:
            self._poller.register(channel.socket, zmq.POLLIN)
        while not {"kernel_info_reply", "status"} <= self._heard:
            client.kernel_info()  # what is published before the subscription has arrived is lost, so ask again
            with suppress(TimeoutError):
                self.wait(lambda: {"kernel_info_reply", "status"} <= self._heard, 0.2, str)
            assert time.monotonic() < end, f"the kernel did not answer in 60 s; its log:\n{self.log()}"

    def _end(self) -> None:
        """Kill the process, also when it was only half started."""
        if hasattr(self, "_client"):
            self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()

    def _sockets(self) -> list[Path]:
        return [Path(f"{self._manager.ip}-{port}") for port in self._manager.ports]

    def _read(self, timeout: float) -> bool:
        """Handle what comes within `timeout` seconds; whether something did."""
        ready = dict(self._poller.poll(int(timeout * 1000)))
        for channel in self._channels:
            while channel.socket in ready:
                try:
                    message = channel.get_msg(timeout=0)
                except queue.Empty:
                    break
                self._handle(message)
        return bool(ready)

    def _handle(self, message: Message) -> None:
        self._heard.add(message["msg_type"])
        content = message["content"]
        cell = self._cells.get(message["parent_header"].get("msg_id", ""))
        match message["msg_type"]:
            case "execute_reply" if cell:
                cell.reply = message
                self.open_prompts = [msg_id for msg_id in self.open_prompts if msg_id != cell.msg_id]
            case "input_request" if cell:
                cell.prompts.append(content["prompt"])
                self.open_prompts.append(cell.msg_id)
                if cell._answers:
                    self.answer(cell._answers.pop(0))
            case kind if kind.endswith("_reply"):
                self._replies[message["parent_header"]["msg_id"]] = message
            case kind:
                if content.get("execution_state") == "idle":
                    self._idle.add(message["parent_header"].get("msg_id", ""))
                if kind in ("display_data", "update_display_data"):
                    self._update_displays(content)
                elif kind.startswith("comm_"):
                    self._take_comm(kind, content)
                if cell:
                    cell._take(message)
                elif kind not in ("status", "iopub_welcome"):
                    self.stray.append(message)

    def _update_displays(self, content: Message) -> None:
        """Give every output of this display id its new data, in whichever cell it stands, as notebooks do."""
        display_id = content.get("transient", {}).get("display_id")
        for output in (output for cell in self._cells.values() for output in cell.outputs):
            if display_id is not None and output.display_id == display_id:
                output.replace(content)

    def _take_comm(self, kind: str, content: Message) -> None:
        comm_id = content["comm_id"]
        if kind == "comm_open":
            self.comms[comm_id] = Comm(comm_id, content["target_name"], content["data"])
        elif kind == "comm_msg" and comm_id in self.comms:
            self.comms[comm_id].received.append(content["data"])
        elif kind == "comm_close" and comm_id in self.comms:
            self.comms[comm_id].closed = True


def quickest(measure: Callable[[], float], limit_s: float, tries: int = 5) -> float:
    """The shortest of a few measurements, the first below `limit_s` being the last: a busy machine holds up some, a slow product all."""
    shortest = math.inf
    for _ in range(tries):
        shortest = min(shortest, measure())
        if shortest < limit_s:
            break
    return shortest


def shown_text(stdout: str, stderr: str, outputs: Sequence[Output], traceback: str) -> str:
    shown = [str(output.get("text/html", output.get("text/plain", ""))) for output in outputs]
    return "\n".join(part for part in (stdout, stderr, *shown, ANSI.sub("", traceback)) if part)


@contextmanager
def kernel(folder: Path, version: KernelVersion = INSTALLED, env: Mapping[str, str] | None = None) -> Iterator[Session]:
    """A fresh kernel whose home and working folder is `folder`; it is killed at the end.

    `env` is added to `kernel_environment`.
    """
    with ExitStack() as stack:
        # Unix sockets: no free port to guess, so kernels that start together cannot meet. Their paths must be short.
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="kernel-"))
        specs = write_kernel_spec(Path(sockets), version)
        log = stack.enter_context((folder / "kernel.log").open("ab"))
        manager = KernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(specs)], ensure_native_kernel=False),
            transport="ipc",
            ip=f"{sockets}/s",
            connection_file=f"{sockets}/connection.json",
        )
        environment = kernel_environment(folder) | dict(env or {})
        session = Session(manager, folder, {"env": environment, "cwd": str(folder), "stdout": log, "stderr": log})
        stack.callback(session._end)
        session._launch_kernel()
        yield session
