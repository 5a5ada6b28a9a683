"""The loop: one prompt to its final answer, as a stream of typed events. Everything else consumes this.

    turn_start → ask the model → turn_end → run the tools it asked for, side by side → next turn … → agent_end
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import json
import os
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ._threads import run_in_thread
from .calling import NOT_RUN, Answered, answer_of, call_tool, words_of
from .content import Prompt, content_of
from .context import Context
from .errors import (
    ErrorAgent,
    ErrorBudget,
    ErrorConfig,
    ErrorInterrupted,
    ErrorMaxTurns,
    ErrorModel,
    ErrorModelRequest,
    ErrorOutput,
    ErrorRefused,
    ErrorRun,
    ErrorTool,
    ErrorTruncated,
    tell,
)
from .events import AgentEnd, AgentStart, Event, ReasoningDelta, TextDelta, ToolCallEnd, ToolCallStart, TurnEnd, TurnStart
from .history import tokens_of
from .message import LLMChunk, LLMRequest, LLMResponse, Message, ToolCall, TurnUsage, Usage
from .models.base import Model, ask
from .output import OUTPUT_TOOL, OutputSpec, complaint
from .records import MessageRecord, Record, RunRecord, ToolCallRecord, TurnRecord
from .result import Result
from .schema import Invalid
from .tools import Approve, Tool, result_text

__all__ = ["RunSpec", "current_run", "new_run_id", "run_events"]

CLEANUP_S = 2.0
"""How long cancelled tools may clean up before the run goes on without them."""


def new_run_id() -> str:
    """26 characters; the first ten are the time in milliseconds, so ids sort by time (ULID)."""
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10))
    return "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[number >> shift & 31] for shift in range(125, -1, -5))


@dataclass(kw_only=True)
class RunSpec:
    """What one run is made of. Built by the Agent; nothing in it changes while the run goes on."""

    agent_name: str
    request_model: str
    resolve: Callable[[], Model]
    instructions: str | None = None
    tools: Mapping[str, Tool] = field(default_factory=dict)
    output: Callable[[], OutputSpec | None] = lambda: None
    validators: Sequence[Callable[[Context, Any], Any]] = ()
    retries: int = 1
    max_turns: int = 10
    max_cost: float | None = None
    memory: Any = None
    history: Any = None
    deps: Any = None
    session_id: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = True
    approve: Approve | None = None
    store: Any = None
    """Where the run is recorded; runs started by its tools are recorded there too."""
    monotonic: Callable[[], float] = time.perf_counter
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    new_id: Callable[[], str] = new_run_id


_current: contextvars.ContextVar[tuple[_Run, ToolCallRecord | None] | None] = contextvars.ContextVar("agentroute_run", default=None)


def current_run() -> RunSpec | None:
    """The spec of the run whose tool is executing here, or None."""
    current = _current.get()
    return current[0].spec if current else None


async def run_events(spec: RunSpec, prompt: Prompt) -> AsyncGenerator[Event, None]:
    """The events of one run; the last is always AgentEnd, also when it failed. See `events.py` for the order.

    A failure is not raised: it is `AgentEnd.error`, with the partial result beside it. When the task is cancelled,
    AgentEnd still comes, and CancelledError is raised at the next step.
    """
    run = _Run(spec, prompt)
    error: ErrorAgent | None = None
    cancelled: asyncio.CancelledError | None = None
    try:
        async with aclosing(run.steps()) as steps:
            async for event in steps:
                yield event
    except GeneratorExit:
        await run.finish(ErrorInterrupted("the run was left before its end"))
        raise
    except asyncio.CancelledError as caught:
        cancelled, error = caught, ErrorInterrupted("the run was stopped before its end")
    except ErrorAgent as caught:
        error = caught
    except KeyboardInterrupt as caught:
        error = ErrorInterrupted("the run was interrupted")
        error.__cause__ = caught
    except BaseException as caught:  # a user's validator, memory, history policy or model
        error = ErrorRun(f"{type(caught).__name__}: {words_of(caught)}")
        error.__cause__ = caught
    if not run.started:
        yield run.start()
    try:
        result = await run.finish(error)
    except asyncio.CancelledError as caught:  # while the memory was written; the answer is there all the same
        cancelled, result = caught, run.result
    yield AgentEnd(result, error)
    if cancelled is not None:
        raise cancelled


class _Run:
    """The state of one run."""

    def __init__(self, spec: RunSpec, prompt: Prompt) -> None:
        self.spec = spec
        self.user = Message("user", prompt)  # type: ignore[arg-type]  # made content in _prepare, where it may fail
        self.parent = _current.get()
        self.usage = Usage()  # this run's and that of the runs its tools make
        self.own_usage = Usage()
        self.priceless: set[str] = set()  # models that reported no cost, here or below
        self.record: Record = Record(
            RunRecord(
                run_id=spec.new_id(),
                started_at=spec.now(),
                agent_name=spec.agent_name,
                request_model=spec.request_model,
                prompt_text=self.user.described,
                session_id=spec.session_id,
                parent_run_id=self.parent[0].record.run.run_id if self.parent else None,
            )
        )
        self.transcript: list[Message] = []
        self.new_from = 0  # where this run's own messages begin
        self.output: Any = None
        self.finished = False
        self.started = False
        self.retry = 0
        self.turn = 0
        self.corrected = False
        self.memory: Any = None
        self.room: int | None = None  # tokens of the model's context for messages
        self.denied: str | None = None  # the tool whose denial has ended the run
        self._began = spec.monotonic()
        self._lock = threading.Lock()  # a tool's own runs may end in other threads

    # ---- the run ----------------------------------------------------------------------------------------------

    async def steps(self) -> AsyncGenerator[Event, None]:
        """Everything but the last event; raises what goes wrong."""
        await self._prepare()
        yield self.start()
        for self.turn in itertools.count(1):
            self._check_limits()
            yield TurnStart(self.turn)
            async with aclosing(self._ask()) as asking:
                async for event in asking:
                    yield event
            response = self.response
            calls = [ToolCall.from_wire(call) for call in response.tool_calls]
            self._check_usable(response, calls)
            final = await self._is_final(response, calls)
            self._check_spent()  # before any tool does its work
            if final:
                return
            if not calls or self.corrected:
                continue
            async with aclosing(self._run_tools(calls)) as running:
                async for event in running:
                    yield event
            if self.denied is not None:
                return

    async def _prepare(self) -> None:
        spec = self.spec
        self.user.content = content_of(self.user.content)
        self.transcript = [self.user]
        self.model = spec.resolve()
        self.output_spec = spec.output()
        if self.output_spec is not None and self.output_spec.mode == "tool" and OUTPUT_TOOL in spec.tools:
            raise ErrorConfig(f"a tool is named {OUTPUT_TOOL!r}, as is the one typed answers come through; give it another name")
        self.tool_definitions = [tool.to_wire() for tool in spec.tools.values()]
        self.memory = spec.memory
        if self.memory is not None and spec.session_id is not None:
            if not hasattr(self.memory, "session"):
                raise ErrorConfig(f"session_id is given, but {type(self.memory).__name__} has no session(session_id) to keep conversations apart")
            self.memory = self.memory.session(spec.session_id)
        instructions = [text for text in (spec.instructions, self.output_spec and self.output_spec.instructions()) if text]
        head = [Message("system", "\n\n".join(instructions))] if instructions else []
        earlier = await self._remembered()
        self.transcript = [*head, *earlier, self.user]
        self.new_from = len(self.transcript) - 1

    async def _remembered(self) -> list[Message]:
        """The conversation so far; where the history policy can only need its newest messages, no more than those."""
        if self.memory is None:
            return []
        newest = getattr(self.spec.history, "newest", None)
        name = f"{type(self.memory).__name__}.get_messages"
        asked = self.memory.get_messages(*([newest] if isinstance(newest, int) else []))
        if not inspect.isawaitable(asked):
            raise ErrorConfig(f"{name} must be async (async def) and give a list of Messages, got {type(asked).__name__}")
        messages = await asked
        wrong = [messages] if not isinstance(messages, list | tuple) else [one for one in messages if not isinstance(one, Message)]
        if wrong:
            raise ErrorConfig(f"{name} must give a list of Messages, got {type(wrong[0]).__name__}; Message.from_dict makes them")
        return list(messages)

    def start(self) -> AgentStart:
        self.started = True
        self.record.messages = []
        return AgentStart(self.record.run, self._keep(self.transcript), self.record, self._partial)

    def _keep(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Adds messages to the record; their wire forms."""
        wires = [message.to_dict() for message in messages]
        records, run_id = self.record.messages, self.record.run.run_id
        for wire in wires:
            records.append(MessageRecord.of(run_id, len(records), wire))
        return wires

    def _say(self, *messages: Message) -> list[dict[str, Any]]:
        """Adds messages to the conversation and to the record."""
        self.transcript.extend(messages)
        return self._keep(messages)

    # ---- limits -----------------------------------------------------------------------------------------------

    def _lineage(self) -> Iterator[_Run]:
        """This run, and the runs whose tools it is part of."""
        run: _Run | None = self
        while run is not None:
            yield run
            run = run.parent[0] if run.parent else None

    def _check_limits(self) -> None:
        """Raises what forbids another request."""
        if self.turn > self.spec.max_turns:
            raise ErrorMaxTurns(turn=self.turn, limit=self.spec.max_turns)
        for run in self._lineage():
            limit, usage = run.spec.max_cost, run.usage
            if limit is None or not usage.model_calls:
                continue
            if run.priceless:
                hint = f"the cost of a call to {', '.join(sorted(run.priceless))} is unknown, so max_cost cannot be kept"
                raise ErrorBudget(spent=usage.total_cost_usd, limit=limit, hint=hint)
            if usage.total_cost_usd >= limit > 0:
                raise ErrorBudget(spent=usage.total_cost_usd, limit=limit, hint="nothing is left for another model call")

    def _check_spent(self) -> None:
        """Raises when a limit is passed: this run's, or that of a run it is part of."""
        for run in self._lineage():
            limit = run.spec.max_cost
            if limit is not None and run.usage.total_cost_usd > limit:
                raise ErrorBudget(spent=run.usage.total_cost_usd, limit=limit, hint="the answer so far is in .result")

    def _check_usable(self, response: LLMResponse, calls: Sequence[ToolCall]) -> None:
        if response.refusal:
            raise ErrorRefused(f"the model refused: {response.refusal}", reason="refusal")
        if response.finish_reason == "content_filter":
            raise ErrorRefused("a content filter of the provider stopped the answer", reason="content_filter")
        if response.finish_reason == "length" and (calls or self.output_spec is not None or not response.content):
            what = "tool call" if calls else "answer"
            partial = calls[-1].arguments_text if calls else response.content or ""
            raise ErrorTruncated(f"the {what} was cut off at max_tokens and is not used; raise max_tokens", partial=partial)

    # ---- one model call ---------------------------------------------------------------------------------------

    async def _request(self) -> LLMRequest:
        spec = self.spec
        sent = self.transcript if spec.history is None else await self._compacted()
        model_id = getattr(self.model, "model_id", None)
        request = LLMRequest(
            model=model_id if isinstance(model_id, str) else spec.request_model,
            messages=list(sent),
            tools=self.tool_definitions or None,
            temperature=spec.temperature,
            max_tokens=spec.max_tokens,
            extra=dict(spec.extra),
            timeout=spec.timeout,
        )
        if self.output_spec is not None:
            self.output_spec.extend(request)
        return request

    async def _compacted(self) -> list[Message]:
        """What the history policy leaves of the conversation. Runs it makes (summaries) are part of this run."""
        policy = self.spec.history
        budget = self._token_budget()
        token = _current.set((self, None))
        try:
            kept = policy.compact(list(self.transcript), **({} if budget is None else {"token_budget": budget}))
            sent = await kept if inspect.isawaitable(kept) else kept
        finally:
            _current.reset(token)
        if not isinstance(sent, list) or not sent or not all(isinstance(message, Message) for message in sent):
            raise ErrorConfig(f"the history policy {type(policy).__name__} must give a list of Messages that is not empty")
        return sent

    def _token_budget(self) -> int | None:
        """Tokens of the model's context left for messages, where it and the policy know of such a thing."""
        context = getattr(self.model, "context_tokens", None)
        if self.room is None and isinstance(context, int):
            answer = self.spec.max_tokens or context // 4
            self.room = max(1, context - answer - len(json.dumps(self.tool_definitions, default=str)) // 4)
        takes_budget = "token_budget" in inspect.signature(self.spec.history.compact).parameters
        return self.room if takes_budget else None

    async def _answered(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """The chunks of the answer. A conversation the provider finds too long is cut by the history policy and sent again."""
        while True:
            try:
                async with aclosing(ask(self.model, request, stream=self.spec.stream)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except ErrorModelRequest as error:
                shorter = await self._shortened(request.messages, str(error)) if error.too_long else None
                if shorter is None:
                    raise
                request = replace(request, messages=shorter)

    async def _shortened(self, messages: Sequence[Message], said: str) -> list[Message] | None:
        """The conversation as the history policy makes it shorter; None when it can't.

        Tokens are counted by a rule of thumb; what the provider has said of their true number corrects it.
        """
        if self.spec.history is None:
            return None
        numbers = [int(number) for number in re.findall(r"(\d{3,9}) tokens", said)]  # how many there are, and how many may be
        share = min(numbers) / max(numbers) if len(numbers) > 1 else 0.5
        size = sum(map(tokens_of, messages))
        self.room = max(1, int(size * min(max(share, 0.25), 0.95) * 0.9))
        shorter = await self._compacted()
        return shorter if sum(map(tokens_of, shorter)) < size else None

    async def _ask(self) -> AsyncGenerator[Event, None]:
        """One model call: its deltas, then TurnEnd; the answer is then in `self.response`."""
        spec, turn = self.spec, self.turn
        request = await self._request()
        record = TurnRecord(
            run_id=self.record.run.run_id, turn_index=turn, started_at=spec.now(), request_model=request.model
        )
        self.record.turns.append(record)
        self.record.run.n_turns += 1
        began = spec.monotonic()
        text: list[str] = []
        response: LLMResponse | None = None
        failure: ErrorAgent | None = None
        try:
            async with aclosing(self._answered(request)) as chunks:
                async for chunk in chunks:
                    if chunk.response is not None:
                        response = chunk.response
                        break
                    if record.time_to_first_chunk_s is None:
                        record.time_to_first_chunk_s = spec.monotonic() - began
                    if chunk.delta:
                        text.append(chunk.delta)
                        yield TextDelta(chunk.delta, turn)
                    elif chunk.reasoning_delta:
                        yield ReasoningDelta(chunk.reasoning_delta, turn)
        except ErrorAgent as error:
            failure = error
            self._turn_failed(record, error, spec.monotonic() - began, "".join(text))
        except BaseException as error:
            self._turn_failed(record, error, spec.monotonic() - began, "".join(text))
            raise
        finally:
            for usage in request.failed_attempts:  # a layer has asked again
                self._count(record, TurnUsage.from_wire(usage))
        if failure is not None:
            yield TurnEnd(record, "".join(text), [], self.record.run)
            raise failure
        assert response is not None
        record.duration_s = spec.monotonic() - began
        self._count(record, TurnUsage.from_wire(response.usage))
        record.response_model = response.model
        record.response_id = response.id
        record.finish_reason = response.finish_reason
        self.response = response
        self.corrected = False
        messages = self._say(_echo(response))
        yield TurnEnd(record, response.content or "", messages, self.record.run)

    def _turn_failed(self, record: TurnRecord, error: BaseException, duration_s: float, text: str) -> None:
        record.duration_s = duration_s
        stopped = isinstance(error, asyncio.CancelledError | GeneratorExit)
        record.error_type = "ErrorInterrupted" if stopped else type(error).__name__
        if not isinstance(error, ErrorAgent):
            self._count(record, TurnUsage())  # it may have been sent and charged for; nobody said how much
        elif isinstance(error, ErrorModel) and (error.sent or error.usage):
            self._count(record, TurnUsage.from_wire(error.usage))
        if text:
            self._say(Message("assistant", text))

    def _count(self, record: TurnRecord, used: TurnUsage) -> None:
        """Counts one model call: in its turn, in this run, and in the runs whose tools this one is part of."""
        record.input_tokens = _plus(record.input_tokens, used.input_tokens)
        record.output_tokens = _plus(record.output_tokens, used.output_tokens)
        record.cached_input_tokens = _plus(record.cached_input_tokens, used.cached_input_tokens)
        record.reasoning_tokens = _plus(record.reasoning_tokens, used.reasoning_tokens)
        if used.cost_usd is not None:
            record.cost_usd = (record.cost_usd or 0.0) + float(used.cost_usd)
        self.own_usage.add_turn(used)
        for run in self._lineage():
            with run._lock:
                run.usage.add_turn(used)
                if used.cost_usd is None:
                    run.priceless.add(record.request_model)
        for run in self._lineage():
            call = run.parent[1] if run.parent else None
            if call is not None and used.cost_usd is not None:
                call.cost_usd = (call.cost_usd or 0.0) + float(used.cost_usd)
        totals, run_record = self.own_usage, self.record.run
        run_record.input_tokens = _plus(run_record.input_tokens, used.input_tokens)
        run_record.output_tokens = _plus(run_record.output_tokens, used.output_tokens)
        run_record.cached_input_tokens = _plus(run_record.cached_input_tokens, used.cached_input_tokens)
        run_record.reasoning_tokens = _plus(run_record.reasoning_tokens, used.reasoning_tokens)
        run_record.cost_usd = totals.cost_usd
        run_record.unknown_cost_calls = totals.unknown_cost_calls

    # ---- the final answer -------------------------------------------------------------------------------------

    async def _is_final(self, response: LLMResponse, calls: Sequence[ToolCall]) -> bool:
        """Whether this response ends the run; then `self.output` is set. A wrong answer is sent back instead."""
        if self.output_spec is None:
            if calls:
                return False
            text: Any = response.content or ""
            problem = await self._accept(text)
            raw = text
        else:
            answer = self.output_spec.answer_in(response, calls)
            if answer is None:
                return False
            raw = answer
            try:
                value = self.output_spec.parse(answer)
            except Invalid as error:
                problem = str(error)
            else:
                problem = await self._accept(value)
        if problem is None:
            if calls:  # the answer came as a tool call; what is kept is an answer, not a call without a result
                self._replace_last(Message("assistant", raw, extra=self.transcript[-1].extra))
                self._skip(calls)
            return True
        self._correct(problem, calls, raw)
        return False

    async def _accept(self, value: Any) -> str | None:
        """Runs the validators in order; what the model should be told, or None when the value stands."""
        for validator in self.spec.validators:
            try:
                changed = await self._call_validator(validator, value)
                if changed is not None and changed is not value:
                    value = self.output_spec.check(changed) if self.output_spec is not None else changed
            except Exception as error:
                if (problem := complaint(error)) is None:
                    raise
                return problem
        self.output, self.finished = value, True
        return None

    async def _call_validator(self, validator: Callable[[Context, Any], Any], value: Any) -> Any:
        """Runs a validator as tools are run: a plain one in a thread, and what runs it makes counts as this run's."""
        context = contextvars.copy_context()
        context.run(_current.set, (self, None))

        async def call() -> Any:
            try:
                if asyncio.iscoroutinefunction(validator):
                    return await validator(self._context(), value)
                ctx = self._context().for_thread(asyncio.get_running_loop())
                changed = await run_in_thread(lambda: validator(ctx, value), name="agentroute-validator")
                return await changed if inspect.isawaitable(changed) else changed
            except (SystemExit, KeyboardInterrupt) as error:  # must not reach the loop, which others run on too
                problem = type(error).__name__
            raise ErrorRun(f"an output validator raised {problem}")

        return await asyncio.create_task(call(), context=context)

    def _correct(self, problem: str, calls: Sequence[ToolCall], raw: str) -> None:
        """Tells the model what was wrong with its answer, within `retries`."""
        self.retry += 1
        if self.retry > self.spec.retries:
            tries = f"{self.retry} answers, retries={self.spec.retries}"
            raise ErrorOutput(f"no answer of the type asked for ({tries}); the last problem: {problem}", raw=raw)
        self.corrected = True
        text = self.output_spec.correction(problem) if self.output_spec is not None else problem
        if not calls:
            self._say(Message("user", text))
            return
        for call in calls:
            told = text if call.name == OUTPUT_TOOL else NOT_RUN
            self._say(Message("tool", told, tool_call_id=call.id, name=call.name))
        self._skip(calls)

    def _skip(self, calls: Sequence[ToolCall]) -> None:
        """Records the calls that came beside the final answer: the answer was made without them, so they are not run."""
        for index, call in enumerate(calls):
            if call.name != OUTPUT_TOOL:
                record = self._tool_record(index, call)
                record.status, record.error_type, record.result_text = "error", "NotRun", NOT_RUN

    def _tool_record(self, index: int, call: ToolCall) -> ToolCallRecord:
        record = ToolCallRecord(
            run_id=self.record.run.run_id,
            turn_index=self.turn,
            call_index=index + 1,
            tool_call_id=call.id,
            tool_name=call.name,
            arguments_text=call.arguments_text,
            started_at=self.spec.now(),
        )
        self.record.tool_calls.append(record)
        self.record.run.n_tool_calls += 1
        return record

    def _replace_last(self, message: Message) -> None:
        self.transcript[-1] = message
        self.record.messages.pop()
        self._keep([message])

    # ---- tools ------------------------------------------------------------------------------------------------

    async def _run_tools(self, calls: Sequence[ToolCall]) -> AsyncGenerator[Event, None]:
        """Runs one turn's calls side by side. Ends are reported as they come; the model is told in call order."""
        tasks: list[asyncio.Task[Answered]] = []
        records: list[ToolCallRecord] = []
        try:
            for index, call in enumerate(calls):
                records.append(self._tool_record(index, call))
                yield ToolCallStart(records[-1])
            for call, record in zip(calls, records, strict=True):
                context = contextvars.copy_context()
                context.run(_current.set, (self, record))
                calling = call_tool(call, record, self.spec.tools, self.spec.approve, self._context, self.spec.monotonic)
                tasks.append(asyncio.create_task(calling, context=context))
            waiting = set(tasks)
            while waiting:
                ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for index in sorted(map(tasks.index, ended)):
                    yield ToolCallEnd(records[index], tasks[index].result().message.to_dict())
        finally:
            if left := [task for task in tasks if not task.done()]:
                for task in left:
                    task.cancel()
                await asyncio.wait(left, timeout=CLEANUP_S)
            # Every call is answered, also when the run ends here: what a tool has done must not be forgotten.
            self._say(*(answer_of(call, tasks[i] if i < len(tasks) else None) for i, call in enumerate(calls)))
        self.denied = next((call.name for call, task in zip(calls, tasks, strict=True) if task.result().ends_run), None)
        picky = [record.tool_name for record in records if record.error_type == "Retry"]
        if picky:
            self.retry += 1
            if self.retry > self.spec.retries:
                problem = f"tool {picky[0]!r} asked for correction no. {self.retry}; retries={self.spec.retries} allows no more"
                raise ErrorTool(problem, tool_name=picky[0])

    def _context(self) -> Context:
        spec = self.spec
        return Context.of_run(
            transcript=self.transcript, usage=self.usage, deps=spec.deps, retry=self.retry, step=self.turn,
            session_id=spec.session_id, memory=self.memory, run_id=self.record.run.run_id, agent_name=spec.agent_name,
        )  # fmt: skip

    # ---- the end ----------------------------------------------------------------------------------------------

    async def finish(self, error: ErrorAgent | None) -> Result[Any]:
        """Fills in the record, makes the (partial) Result, and hands the conversation to the memory."""
        if not self.record.messages:
            self._keep(self.transcript)
        run = self.record.run
        run.duration_s = self.spec.monotonic() - self._began
        run.status = "ok" if error is None else "interrupted" if isinstance(error, ErrorInterrupted) else "error"
        if error is None and self.denied is not None:
            run.status, run.error_type, run.error_text = "interrupted", "Denied", f"the call of {self.denied} was denied, and the run ended there"
        if self.finished:
            run.output_text = _output_text(self.output)
        if error is not None:
            run.error_type, run.error_text = type(error).__name__, str(error)
        self.result = self._partial()
        if error is not None:
            error.result = self.result
        if error is None and self.spec.max_cost is not None and self.priceless:
            tell(f"the cost of a call to {', '.join(sorted(self.priceless))} is unknown: max_cost could not be kept")
        if self.memory is not None:
            try:
                await self.memory.add_messages(self._memorable(error))
            except Exception as problem:
                tell(f"the conversation could not be added to the memory: {type(problem).__name__}: {problem}")
        return self.result

    def _partial(self) -> Result[Any]:
        interrupted = self.record.run.status == "interrupted"
        messages = [message.to_dict() for message in self.transcript]
        return Result(self.output, replace(self.usage), messages, interrupted=interrupted, record=self.record)

    def _memorable(self, error: ErrorAgent | None) -> list[Message]:
        """This run's own messages. Those of a failed run end with a note in the assistant's place: the next request must
        find roles that take turns, and every tool call answered."""
        own = [message for message in self.transcript[self.new_from :] if message.role != "assistant" or message.tool_calls or message.text]
        answered = {message.tool_call_id for message in own if message.role == "tool"}
        kept: list[Message] = []
        for message in own:
            if not all(call.get("id") in answered for call in message.tool_calls or ()):
                break
            kept.append(message)
        while len(kept) > 1 and kept[-1].role == "user":  # a correction that was never answered
            kept.pop()
        if kept and kept[-1].role != "assistant":
            why = type(error).__name__ if error is not None else f"{self.denied} was denied" if self.denied is not None else ""
            kept.append(Message("assistant", f"(no answer: {why})" if why else "(no text)"))
        return kept


def _output_text(output: Any) -> str:
    if isinstance(output, str):
        return output
    try:
        return result_text(output)
    except TypeError:  # a validator may return anything
        return f"({type(output).__name__})"


def _plus(total: int | None, more: int | None) -> int | None:
    return total if more is None else (total or 0) + more


def _echo(response: LLMResponse) -> Message:
    """The assistant message to send back: arguments that are no JSON object become `{}`, or servers refuse them."""
    message = response.to_message()
    if response.refusal and not message.content:
        message.content = response.refusal
    for position, wire in enumerate(message.tool_calls or []):
        call = ToolCall.from_wire(wire)
        try:
            usable = isinstance(json.loads(call.arguments_text), dict)
        except (ValueError, RecursionError):
            usable = False
        if not usable or not isinstance(wire.get("function", {}).get("arguments"), str):
            arguments = call.arguments_text if usable else "{}"
            message.tool_calls[position] = {**wire, "function": {"name": call.name, "arguments": arguments}}  # type: ignore[index]
    return message
