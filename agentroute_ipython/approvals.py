"""Who decides on tool calls that need approval, in a notebook: a person, by a button or at a prompt, or a policy.

| mode | what happens to a call that needs approval |
|---|---|
| `auto` | buttons where the kernel answers them while the cell runs (ipykernel 7.4 and later, and any for runs in the background); else a prompt (`input`); denied where nobody is there to answer (papermill, nbclient, CI) |
| `button` | as `auto`; where it has to be a prompt after all, the output says why |
| `input` | a prompt, never a button; a run in the background has no cell to ask in, so there it is denied |
| `deny` | denied |
| `allow` | approved |

A denial that no person has made is told to the model and to the reader, with what to set. Nothing is remembered beyond the run:
a notebook that is restarted and run again asks again, as its tools run again.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from agentroute.calling import NOBODY
from agentroute.errors import ErrorConfig
from agentroute.tools import Deny

from .arguments import nearest
from .asking import WaitingCell, waiting_cell
from .formats import one_line
from .modes import APPROVALS
from .panels import ApprovalButtons, Spot, can_show_widgets, outputs_now
from .questions import line_bundle, question_bundle, question_text, verdict_line, who_label

if TYPE_CHECKING:
    from agentroute.context import Context
    from agentroute.message import ToolCall

__all__ = ["Approver"]

MOST_ASKED = 3
"""How often a question is asked that is answered by nothing but Enter."""
_putting = threading.RLock()
"""Held while a question and its buttons are put: they are two outputs, and calls of nested runs are asked about on other threads."""
FIRST_WITH_CLICKS = (7, 4)
"""The first ipykernel that answers widgets while a cell awaits; see its pull request 1565."""

_UNATTENDED = (
    "nobody is there to answer (so it is under papermill, nbclient and in CI); "
    '%config AgentMagics.approval = "allow" approves every call, with nobody asked'
)
_NO_CELL = (
    "a run in the background can be asked by buttons only, {why}; run it without --background, "
    'or decide beforehand: %config AgentMagics.approval = "allow"'
)


class Approver:
    """The approval handler of one cell: `agent.events(…, approve=approver.for_case(…))`. To be made in the cell.

    Args:
        mode: one of APPROVALS.
        can_click: the run is on the kernel's own loop, or in the background; that is where buttons can be answered.

    Raises:
        ErrorConfig: a mode that there is not.
    """

    def __init__(self, shell: Any, mode: str = "auto", *, can_click: bool) -> None:
        if mode not in APPROVALS:
            raise ErrorConfig(f"approval must be one of {', '.join(APPROVALS)}; got {mode!r:.80}{nearest(str(mode), APPROVALS)}")
        self._shell, self._mode, self._can_click = shell, mode, can_click
        self._in_kernel = hasattr(shell, "kernel")
        self._is_attended = _is_attended(shell)
        self._outputs = outputs_now(shell)
        self._always: set[tuple[str | None, str]] = set()
        self._open: dict[_Question, None] = {}
        """What waits for a button."""
        self._cases: list[str] = []
        self._asking: dict[str, list[str | None]] = {}
        """By the name that a question gives: its runs that have asked, in order."""
        self._said: set[str] = set()

    def for_case(self, label: str, agent_name: str) -> Callable[[Context, ToolCall], Awaitable[bool | Deny]]:
        """`decide` for one of the runs of the cell: its questions say that `label` asks, or an agent that it has called."""
        self._cases.append(label)
        return partial(self.decide, label=label, agent_name=agent_name)

    def show_again(self) -> None:
        """Shows what waits for a button in the cell that runs now, too; it is answered where it is pressed first."""
        for question in list(self._open):
            question.offer(outputs_now(self._shell))

    async def decide(self, ctx: Context, call: ToolCall, label: str = "", agent_name: str = "") -> bool | Deny:
        """Whether the call may run; waits for a person where there is one."""
        if self._mode == "allow":
            return True
        if self._mode == "deny":
            self._say(f'denied: {_name(call)}, as every call that needs approval (%config AgentMagics.approval = "auto" asks)')
            return Deny("the settings of the notebook deny every call that needs approval")
        if not self._is_attended:
            self._say(f"denied: {_name(call)} needs approval, and {_UNATTENDED}")
            return NOBODY
        who = self._who(ctx, label, agent_name)
        question = _Question(self._shell, call, (ctx.run_id, call.name), self._outputs, who, is_plain=self._cases == [who])
        if question.key in self._always:
            return True
        cell = waiting_cell.get()
        why_no_buttons = self._why_no_buttons(in_background=cell is None)
        if not why_no_buttons:
            return await self._by_button(question)
        if cell is None:
            self._say(f"denied: {_name(call)} needs approval; {_NO_CELL.format(why=f'and {why_no_buttons}')}")
            return NOBODY
        if self._mode == "button":
            self._say(f"asked at a prompt: {why_no_buttons}")
        return await self._by_input(question, cell)

    def _who(self, ctx: Context, label: str, agent_name: str) -> str:
        """Who asks: `good` of a comparison, `clerk in good` of an agent that one of its tools runs; a later run of that name has a number."""
        name = ctx.agent_name or ""
        who = name if not label else label if name in ("", agent_name) else f"{name} in {label}"
        with _putting:
            runs = self._asking.setdefault(who, [])
            if ctx.run_id not in runs:
                runs.append(ctx.run_id)
            n = runs.index(ctx.run_id) + 1
        return f"{who} (run {n})" if who and n > 1 else who

    def in_words(self) -> str:
        """How a call would be decided on now, and why so."""
        if self._mode in ("deny", "allow"):
            return "every call that needs it is " + ("denied" if self._mode == "deny" else "approved, with nobody asked")
        if not self._is_attended:
            return f"denied: {_UNATTENDED}"
        why_no_buttons = self._why_no_buttons(in_background=False)
        return f"asked at a prompt: {why_no_buttons}" if why_no_buttons else "asked by buttons, also while a cell runs"

    def _why_no_buttons(self, in_background: bool) -> str:
        """Empty where buttons can be shown and pressed."""
        if self._mode == "input":
            return "approval is set to input"
        if not self._in_kernel:
            return "a terminal has none"
        if not can_show_widgets(self._shell):
            return "they need ipywidgets (pip install ipywidgets)"
        if in_background:
            return ""
        if not self._can_click:
            return "buttons are not answered while %%time, %%capture or a plain function runs the cell"
        if _ipykernel_version() < FIRST_WITH_CLICKS:
            return f"buttons are answered while a cell runs from ipykernel 7.4 on; this is {'.'.join(map(str, _ipykernel_version()))}"
        return ""

    async def _by_button(self, question: _Question) -> bool | Deny:
        loop = asyncio.get_running_loop()

        def answered(verdict: str, reason: str) -> None:
            try:
                loop.call_soon_threadsafe(question.answer, verdict, reason)
            except RuntimeError:
                pass  # the run's loop is closed: nobody waits any more

        self._open[question] = None
        try:
            question.offer(self._outputs, answered)
            verdict, reason = await question.answered
            return self._verdict(question, verdict, reason)
        finally:
            self._open.pop(question, None)
            question.close()

    async def _by_input(self, question: _Question, cell: WaitingCell) -> bool | Deny:
        call = question.call
        asks = f"{who_label(question.who)} asks: " if question.who else ""
        prompt = f"{asks}approve {one_line(call.name, 60)}? [y]es, [n]o, [a]lways for this run, or a reason to deny: "
        if self._in_kernel and _is_captured(self._shell):
            prompt = f"{question_text(call.name, call.arguments, question.who)}\n{prompt}"

        def begin() -> bool:
            if question.key in self._always:
                return False
            question.show()
            return True

        try:
            answer, asked = "", 0
            while not answer and question.key not in self._always:  # Enter alone is no answer
                if asked == MOST_ASKED:
                    raise EOFError
                asked += 1
                answer = (await cell.ask(prompt, begin)).strip()
            word = answer.lower()
            if not answer:
                verdict, reason = "with the others", ""
            elif word in ("y", "yes", "a", "always"):
                verdict, reason = "always" if word[0] == "a" else "approve", ""
            else:
                verdict, reason = "deny", "" if word in ("n", "no") else answer
            return self._verdict(question, verdict, reason)
        except Exception as error:  # EOFError, and what kernels say of frontends that cannot ask
            question.leave("denied", f"nobody answered ({type(error).__name__})")
            return NOBODY
        finally:
            cell.tell(question.close)

    def _verdict(self, question: _Question, verdict: str, reason: str) -> bool | Deny:
        words = {"approve": "approved", "always": "approved for the whole run", "deny": "denied", "with the others": "approved with the others"}
        question.leave(words[verdict], reason if verdict == "deny" else "")
        if verdict == "deny":
            return Deny(reason.strip())
        if verdict == "always":
            self._always.add(question.key)
            for other in list(self._open):
                if other.key == question.key:
                    other.answer("with the others", "")
        return True

    def _say(self, line: str) -> None:
        """A line in the output of the cell; each one once."""
        if line in self._said:
            return
        self._said.add(line)
        say: Callable[[], None]
        if self._in_kernel:
            spot = Spot(self._shell, self._outputs)
            say = lambda: spot.put(line_bundle(line))  # noqa: E731
        else:
            say = lambda: print(line)  # noqa: E731
        cell = waiting_cell.get()
        if cell is not None:
            cell.tell(say)
        else:
            say()


class _Question:
    """One call that waits for an answer, and where it is shown."""

    def __init__(
        self, shell: Any, call: ToolCall, key: tuple[str | None, str], outputs: tuple[Any, Any], who: str, *, is_plain: bool
    ) -> None:
        self.call, self.key, self.who = call, key, who
        self.answered: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self._shell, self._in_kernel = shell, hasattr(shell, "kernel")
        self._pressed: Callable[[str, str], None] = self.answer
        self._named = "" if is_plain else who
        self._spots = [Spot(shell, outputs)] if self._in_kernel else []
        self._buttons: list[ApprovalButtons] = []
        self._closed = False
        self.leave("not answered")  # the run was stopped when nobody has said otherwise

    def answer(self, verdict: str, reason: str) -> None:
        if not self.answered.done():
            self.answered.set_result((verdict, reason))

    def show(self) -> None:
        """The question alone; it is answered at a prompt."""
        if self._in_kernel:
            self._spots[0].put(question_bundle(self.call.name, self.call.arguments, self.who))
        else:
            print(question_text(self.call.name, self.call.arguments, self.who))

    def offer(self, outputs: tuple[Any, Any], pressed: Callable[[str, str], None] | None = None) -> None:
        """The question and its buttons, directly below it; the first time with what is told when one is pressed, on any thread."""
        call = self.call
        self._pressed = pressed or self._pressed
        buttons = ApprovalButtons(Spot(self._shell, outputs), call.name, call.arguments, self.who, self._pressed)
        bundle = question_bundle(call.name, call.arguments, self.who)
        with _putting:
            if self._closed:
                buttons.close()
                return
            if self._buttons:
                self._spots.append(Spot(self._shell, outputs))
            self._buttons.append(buttons)
            self._spots[-1].put(bundle)
            buttons.show()

    def leave(self, word: str, why: str = "") -> None:
        """The line that stays of it."""
        self._line = verdict_line(word, self.call.name, self.call.arguments, why, self._named)

    def close(self) -> None:
        """Puts one line in its place."""
        with _putting:
            self._closed = True
            for buttons in self._buttons:
                buttons.close()
            for spot in self._spots:
                spot.put(line_bundle(self._line))


def _is_attended(shell: Any) -> bool:
    """Whether there is somebody to answer: the frontend can ask for input, or this is a real terminal."""
    if hasattr(shell, "kernel"):
        return bool(getattr(shell.kernel, "_allow_stdin", False))
    try:
        return sys.stdin.isatty() and sys.stdout.isatty()
    except (AttributeError, ValueError):  # none, or closed
        return False


def _is_captured(shell: Any) -> bool:
    """Whether what is displayed now goes into `%%capture` and not before anybody's eyes."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    return isinstance(shell.display_pub, CapturingDisplayPublisher)


def _ipykernel_version() -> tuple[int, ...]:
    ipykernel = sys.modules.get("ipykernel")
    return tuple(getattr(ipykernel, "version_info", (0,))[:2])


def _name(call: ToolCall) -> str:
    return one_line(call.name, 100)
