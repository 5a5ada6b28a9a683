"""One tool call: run it, and turn whatever comes of it into words for the model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any

from ._threads import run_in_thread
from .context import Context
from .errors import ErrorInterrupted, Retry, clean_text, tell
from .message import Message, ToolCall
from .records import ToolCallRecord
from .schema import Invalid
from .tools import Approve, Deny, Tool

__all__ = ["NOBODY", "NOT_RUN", "Answered", "answer_of", "call_tool", "words_of"]

NOT_RUN = "Not run: the final answer came in the same turn."

_INSIDES = re.compile(
    r"(?<![\w.<>])[\w.<>]*<locals>\.|(?<![\w.])(?:\w+\.)+(?=[\w<>]+\(\) (?:missing|takes|got) )|(?<=<)(?:\w+\.)+(?=\w+ object)| at 0x[0-9a-fA-F]+"
)
"""What Python's own error messages say of modules, enclosing functions and addresses: nothing a model can use."""


@dataclass(frozen=True)
class Answered:
    """What the model is told of a call. `ends_run`: whoever denied it wants the run to end."""

    message: Message
    ends_run: bool = False


async def call_tool(
    call: ToolCall,
    record: ToolCallRecord,
    tools: Mapping[str, Tool],
    approve: Approve | None,
    context: Callable[[], Context],
    clock: Callable[[], float],
) -> Answered:
    """The answer to a call; `record` is filled in (`error_type` is `Retry` when the tool raised it).

    Every way a call can go wrong becomes words for the model, but for the run being stopped.

    Raises:
        ErrorInterrupted: the tool raised KeyboardInterrupt. CancelledError: the run is being stopped.
    """
    began = clock()
    tool = tools.get(call.name)
    ends_run = False
    try:
        if tool is None:
            known = ", ".join(sorted(tools)) or "none"
            text, record.error_type = f"There is no tool {call.name!r}. Tools: {known}.", "UnknownTool"
        else:
            arguments = tool.parse(call.arguments_text)
            denied = await _denied(tool, call, arguments, approve, context) if tool.needs_approval else None
            if denied is not None:
                text, record.error_type = _told(call.name, denied), "Denied"
                ends_run = denied.interrupt
            else:
                text, record.status = await tool.told(arguments, ctx=context()), "ok"
    except Invalid as error:
        text, record.error_type = f"The arguments do not fit:\n{error}\nCall {call.name} again, corrected.", "InvalidArguments"
    except Retry as error:
        text, record.error_type = error.message, "Retry"
    except KeyboardInterrupt:
        raise ErrorInterrupted(f"tool {call.name!r} was interrupted") from None
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError | GeneratorExit) and task is not None and task.cancelling():
            raise  # the run is being stopped; a tool's own CancelledError is an error like others
        text, record.error_type = f"Error: {type(error).__name__}: {_INSIDES.sub('', words_of(error))}", type(error).__name__
    if record.status != "ok":
        record.status, text = "error", clean_text(text)
    record.result_text = text
    record.duration_s = clock() - began
    return Answered(Message("tool", text, tool_call_id=call.id, name=call.name), ends_run)


async def _denied(
    tool: Tool, call: ToolCall, arguments: Any, approve: Approve | None, context: Callable[[], Context]
) -> Deny | None:
    """None when the call may run. A handler that fails denies it, and its author is told."""
    try:
        return await _verdict(tool, call, arguments, approve, context)
    except Exception as error:
        tell(f"deciding on the call of {call.name} failed ({type(error).__name__}: {words_of(error)}); taken as a denial")
    return Deny("it could not be decided")


async def _verdict(
    tool: Tool, call: ToolCall, arguments: Any, approve: Approve | None, context: Callable[[], Context]
) -> Deny | None:
    """Whoever decides sees the arguments as the function will receive them: validated, coerced, defaults filled in."""
    values = tool.values(arguments)
    asked = ToolCall(call.id, call.name, values)
    needed = tool.needs_approval
    blocking = context().for_thread(asyncio.get_running_loop())
    if callable(needed):
        says: Any = await run_in_thread(lambda: needed(blocking, dict(values)), name="agentroute-approve")
        if not (await says if isawaitable(says) else says):
            return None
    if approve is None:
        return NOBODY
    if asyncio.iscoroutinefunction(approve):
        verdict = await approve(context(), asked)
    else:  # it may well block, waiting for a person
        verdict = await run_in_thread(lambda: approve(blocking, asked), name="agentroute-approve")
        if isawaitable(verdict):
            verdict = await verdict
    if verdict is True:
        return None
    if isinstance(verdict, str):
        return Deny(verdict)
    if verdict is not False and not isinstance(verdict, Deny):
        tell(f"approve must return True, False, a reason (a text) or Deny; it returned {type(verdict).__name__}, taken as a denial")
    return verdict if isinstance(verdict, Deny) else Deny()


NOBODY = Deny("nobody can give it here")


def _told(name: str, denied: Deny) -> str:
    if denied is NOBODY:
        return f"Not run: {name} needs approval, and nobody can give it here. Do not call it again."
    return f"Not run: the user denied it{f' ({denied.reason})' if denied.reason else ''}."


def answer_of(call: ToolCall, task: asyncio.Task[Answered] | None) -> Message:
    """What the model is told of a call whose run was stopped: its result, or that nobody knows what it did."""
    if task is not None and task.done() and not task.cancelled() and task.exception() is None:
        return task.result().message
    unknown = "(interrupted: it is not known whether it did its work)" if task is not None else "(not run: the run was stopped)"
    return Message("tool", unknown, tool_call_id=call.id, name=call.name)


def words_of(error: BaseException) -> str:
    """An error's text; some cannot even say that."""
    try:
        return str(error)
    except Exception:
        return "(no readable message)"
