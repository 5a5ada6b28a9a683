"""The loop: one prompt to its final answer, as a stream of typed events. Everything else consumes this.

    turn_start → ask the model → turn_end → run the tools it asked for, side by side → next turn … → agent_end
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

from ._threads import on_abandon, run_in_thread
from .budgets import Budget, unknown_cost
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
    ErrorReplay,
    ErrorRun,
    ErrorTool,
    ErrorTruncated,
    tell,
)
from .events import AgentEnd, AgentStart, Event, ReasoningDelta, TextDelta, ToolCallEnd, ToolCallStart, TurnEnd, TurnStart
from .history import tokens_of
from .message import LLMChunk, LLMRequest, LLMResponse, Message, ToolCall, TurnUsage
from .metering import Meter
from .models.base import Model, ask
from .output import OUTPUT_TOOL, complaint
from .records import MessageRecord, Record, RunRecord, ToolCallRecord, TurnRecord
from .result import Result
from .run_spec import RunSpec
from .schema import Invalid
from .tally import Tally
from .transcript import answer_text, echo, memorable

__all__ = ["RunSpec", "current_run", "run_events"]

CLEANUP_S = 2.0
"""How long cancelled tools may clean up before the run goes on without them."""
MOST_NESTED = 20
"""How deep runs may begin runs through their tools; each level has limits of its own, so nothing else would stop them."""


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
    if run.parent is not None:
        _stop_with_parent()
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


def _stop_with_parent() -> None:
    """Cancels this task when the tool that began it, in a thread, is given up: the run would go on spending."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        if task is not None and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    on_abandon(stop)


class _Run:
    """The state of one run."""

    def __init__(self, spec: RunSpec, prompt: Prompt) -> None:
        self.spec = spec
        self.user = Message("user", prompt)  # type: ignore[arg-type]  # made content in _prepare, where it may fail
        self.parent = _current.get()
        call = self.parent[1] if self.parent else None
        self.record: Record = Record(
            RunRecord(
                run_id=spec.new_id(),
                started_at=spec.now(),
                agent_name=spec.agent_name,
                request_model=spec.request_model,
                session_id=spec.session_id,
                tags=json.dumps(dict(spec.tags), ensure_ascii=False, sort_keys=True) if spec.tags else None,
                notebook=spec.place.notebook,
                cell_id=spec.place.cell_id,
                parent_run_id=self.parent[0].record.run.run_id if self.parent else None,
                parent_turn_index=call.turn_index if call else None,
                parent_call_index=call.call_index if call else None,
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
        self.budget = None if spec.max_cost is None else Budget(spec.max_cost, name="max_cost")
        above: Sequence[Budget] = self.parent[0].meter.budgets if self.parent else ()
        self.meter: Meter = Meter([*above, *spec.budgets, *([self.budget] if self.budget else [])], spec.price)
        self.tally: Tally = Tally(self.record.run, self.parent[0].tally if self.parent else None, call)
        self._began = spec.monotonic()

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
        if sum(1 for _ in self._lineage()) > MOST_NESTED:
            raise ErrorRun(f"runs are nested {MOST_NESTED} deep: an agent may be calling itself through its own tools")
        self.user.content = content_of(self.user.content)
        self.record.run.prompt_text = self.user.described
        self.transcript = [self.user]
        self.model = self._resolved()
        base_url = getattr(self.model, "base_url", None)
        self.base_url = base_url if isinstance(base_url, str) else None
        self.output_spec = spec.output()
        if self.output_spec is not None and self.output_spec.mode == "tool" and OUTPUT_TOOL in spec.tools:
            raise ErrorConfig(f"a tool is named {OUTPUT_TOOL!r}, as is the one typed answers come through; give it another name")
        self.tool_definitions = [tool.to_wire() for tool in spec.tools.values()]
        if self.tool_definitions:
            self.record.run.tools_text = json.dumps(self.tool_definitions, ensure_ascii=False)
        memory = spec.memory
        if memory is not None and spec.session_id is not None:
            if not hasattr(memory, "session"):
                raise ErrorConfig(f"session_id is given, but {type(memory).__name__} has no session(session_id) to keep conversations apart")
            memory = memory.session(spec.session_id)
        self.memory = memory
        instructions = [text for text in (spec.instructions, self.output_spec and self.output_spec.instructions()) if text]
        head = [Message("system", "\n\n".join(instructions))] if instructions else []
        earlier = await self._remembered()
        self.transcript = [*head, *earlier, self.user]
        self.new_from = len(self.transcript) - 1

    def _resolved(self) -> Model:
        """The model, with replay around it where it is on: then one that cannot be asked, for want of a key, may still be served."""
        spec = self.spec
        if spec.replay is None or spec.replay.mode == "off":
            return spec.resolve()
        from .replay_layer import ModelReplay

        unusable: ErrorConfig | None = None
        try:
            model = spec.resolve()
        except ErrorConfig as error:
            if spec.stand_in is None:
                raise
            model, unusable = spec.stand_in(), error
        return ModelReplay(model, spec.replay, self.record.run.run_id, unusable)

    async def _remembered(self) -> list[Message]:
        """The conversation so far; where the history policy can only need its newest messages, no more than those."""
        if self.memory is None:
            return []
        newest = getattr(self.spec.history, "newest", None)
        name = f"{type(self.memory).__name__}.get_messages"
        asked = self.memory.get_messages(*([newest] if isinstance(newest, int) else []))
        if not inspect.isawaitable(asked):
            raise ErrorConfig(f"{name} must be async (async def) and give a list of Messages, got {type(asked).__name__}")
        with self._being_current():
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

    def _check_spent(self) -> None:
        """Raises when a budget is overspent: this run's, that of a run it is part of, or one around them."""
        for budget in () if self.meter.free else self.meter.budgets:
            budget.check_spent()

    def _check_usable(self, response: LLMResponse, calls: Sequence[ToolCall]) -> None:
        if response.refusal:
            raise ErrorRefused(f"the model refused: {response.refusal}", reason="refusal")
        if response.finish_reason == "content_filter":
            raise ErrorRefused("a content filter of the provider stopped the answer", reason="content_filter")
        if response.finish_reason == "length" and (calls or self.output_spec is not None or not response.content):
            what = "tool call" if calls else "answer"
            partial = calls[-1].arguments_text if calls else response.content or ""
            at = self.meter.cut_at
            limit, mend = ("max_tokens", "max_tokens") if at is None else (f"{at:,} tokens, the cap that came with its budget", "the limit, or set max_tokens")
            raise ErrorTruncated(f"the {what} was cut off at {limit}, and is not used; raise {mend}", partial=partial)

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
            meter=self.meter,
        )
        if self.output_spec is not None:
            self.output_spec.extend(request)
        return request

    @contextmanager
    def _being_current(self) -> Iterator[None]:
        """Runs begun inside, by a memory or a history policy, are part of this run."""
        token = _current.set((self, None))
        try:
            yield
        finally:
            _current.reset(token)

    async def _compacted(self) -> list[Message]:
        """What the history policy leaves of the conversation. Runs it makes (summaries) are part of this run."""
        policy = self.spec.history
        budget = self._token_budget()
        with self._being_current():
            kept = policy.compact(list(self.transcript), **({} if budget is None else {"token_budget": budget}))
            sent = await kept if inspect.isawaitable(kept) else kept
        if not isinstance(sent, list) or not sent or not all(isinstance(message, Message) for message in sent):
            raise ErrorConfig(f"the history policy {type(policy).__name__} must give a list of Messages that is not empty")
        return sent

    def _token_budget(self) -> int | None:
        """Tokens of the model's context left for messages, where it and the policy know of such a thing."""
        context = getattr(self.model, "context_tokens", None)
        if self.room is None and isinstance(context, int):
            answer = min(self.spec.max_tokens or context // 4, context // 2)
            schemas = [self.tool_definitions, self.output_spec.schema if self.output_spec is not None else {}]
            self.room = max(1, context - answer - len(json.dumps(schemas, default=str)) // 4)
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
            run_id=self.record.run.run_id, turn_index=turn, started_at=spec.now(), request_model=request.model, base_url=self.base_url,
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
        except (ErrorBudget, ErrorReplay) as error:  # of the meter, or of replay
            if not request.failed_attempts:  # nothing was asked: there was no turn
                self._forget_turn(record)
                raise
            failure = error
            self._turn_failed(record, error, spec.monotonic() - began, "".join(text))
        except ErrorAgent as error:
            if error is getattr(self.model, "unusable", None):  # there is no key, and nothing to be served instead
                self._forget_turn(record)
                raise
            failure = error
            self._turn_failed(record, error, spec.monotonic() - began, "".join(text))
        except BaseException as error:
            self._turn_failed(record, error, spec.monotonic() - began, "".join(text))
            raise
        finally:
            for usage in request.failed_attempts:  # a layer has asked again
                self.tally.count(record, TurnUsage.from_wire(usage))
        if failure is not None:
            yield TurnEnd(record, "".join(text), [], self.record.run)
            raise failure
        assert response is not None
        record.duration_s = spec.monotonic() - began
        self.tally.count(record, TurnUsage.of(response), _source_of(response))
        record.replayed_from = response.replayed_from
        record.response_model = response.model
        record.response_id = response.id
        record.finish_reason = response.finish_reason
        self.response = response
        self.corrected = False
        messages = self._say(echo(response))
        yield TurnEnd(record, response.content or "", messages, self.record.run)

    def _forget_turn(self, record: TurnRecord) -> None:
        self.record.turns.remove(record)
        self.record.run.n_turns -= 1

    def _turn_failed(self, record: TurnRecord, error: BaseException, duration_s: float, text: str) -> None:
        record.duration_s = duration_s
        stopped = isinstance(error, asyncio.CancelledError | GeneratorExit)
        record.error_type = "ErrorInterrupted" if stopped else type(error).__name__
        if not isinstance(error, ErrorAgent):
            if self.meter.lost:
                self.tally.count(record, TurnUsage())  # it may have been charged for; nobody said how much
        elif isinstance(error, ErrorModel) and (error.sent or error.usage):
            self.tally.count(record, TurnUsage.from_wire(error.usage))
        if text:
            self._say(Message("assistant", text))

    # ---- the final answer -------------------------------------------------------------------------------------

    async def _is_final(self, response: LLMResponse, calls: Sequence[ToolCall]) -> bool:
        """Whether this response ends the run; then `self.output` is set. A wrong answer is sent back instead."""
        if self.output_spec is None:
            if calls:
                return False
            answers = [response.content or ""]
        else:
            answers = self.output_spec.answers_in(response, calls)
        problems: list[str] = []
        for raw in answers:  # several calls of the output tool: the first that fits is the answer
            problem = await self._problem_of(raw)
            if problem is None:
                if calls:  # the answer came as a tool call; what is kept is an answer, not a call without a result
                    self._replace_last(Message("assistant", raw, extra=self.transcript[-1].extra))
                    self._skip(calls)
                return True
            problems.append(problem)
        if problems:
            self._correct(problems, calls, answers[-1])
        return False

    async def _problem_of(self, raw: str) -> str | None:
        """Reads an answer and has it checked; what the model should be told, or None when it stands."""
        try:
            value = raw if self.output_spec is None else self.output_spec.parse(raw)
        except Invalid as error:
            return str(error)
        return await self._accept(value)

    async def _accept(self, value: Any) -> str | None:
        """Runs the validators in order; what the model should be told, or None when the value stands."""
        self.output = value  # an error from here on carries it
        for validator in self.spec.validators:
            try:
                changed = await self._call_validator(validator, value)
                if changed is not None and changed is not value:
                    value = self._checked(changed)
            except Exception as error:
                if (problem := complaint(error)) is None:
                    raise
                self.output = None
                return problem
        self.output, self.finished = value, True
        return None

    def _checked(self, value: Any) -> Any:
        """What a validator has put in the answer's place."""
        if self.output_spec is not None:
            return self.output_spec.check(value)
        if not isinstance(value, str):
            raise ErrorRun(f"the answer is a text, and an output validator returned {type(value).__name__}; give the agent output=… for other types")
        return value

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

    def _correct(self, problems: Sequence[str], calls: Sequence[ToolCall], raw: str) -> None:
        """Tells the model what was wrong with its answer, or with each where several calls hold one, within `retries`."""
        self.retry += 1
        if self.retry > self.spec.retries:
            tries = f"{self.retry} answers, retries={self.spec.retries}"
            unasked = not calls and self.output_spec is not None and self.output_spec.mode == "tool"
            hint = f"; it came as text, not through {OUTPUT_TOOL}: where a model takes no tools, set output_mode='native'" if unasked else ""
            raise ErrorOutput(f"no answer of the type asked for ({tries}); the last problem: {problems[-1]}{hint}", raw=raw)
        self.corrected = True
        texts = iter(problems if self.output_spec is None else map(self.output_spec.correction, problems))
        if not calls:
            self._say(Message("user", next(texts)))
            return
        for call in calls:
            told = next(texts) if call.name == OUTPUT_TOOL else NOT_RUN
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
        for call, task in zip(calls, tasks, strict=True):
            if task.result().ends_run:
                self._deny(call.name)
        if self.denied is not None:
            return
        picky = [record.tool_name for record in records if record.error_type == "Retry"]
        if picky:
            self.retry += 1
            if self.retry > self.spec.retries:
                problem = f"tool {picky[0]!r} asked for correction no. {self.retry}; retries={self.spec.retries} allows no more"
                raise ErrorTool(problem, tool_name=picky[0])

    def _deny(self, tool_name: str) -> None:
        """Ends this run, and those it is part of up to the one whose approval handler it was."""
        for run in self._lineage():
            run.denied = run.denied or tool_name
            if run.parent is None or run.parent[0].spec.approve is not self.spec.approve:
                return

    def _context(self) -> Context:
        spec = self.spec
        return Context.of_run(
            transcript=self.transcript, usage=self.tally.usage, deps=spec.deps, retry=self.retry, step=self.turn,
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
            run.output_text = answer_text(self.output)
        if error is not None:
            run.error_type, run.error_text = type(error).__name__, str(error)
        self.result = self._partial()
        if error is not None:
            error.result = self.result
        if error is None:
            self._tell_of_money()
        if self.memory is not None:
            writing = asyncio.ensure_future(self._keep_in_memory(memorable(self.transcript[self.new_from :], self._why_not(error))))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:  # what is paid for is not to be forgotten
                await asyncio.wait({writing}, timeout=CLEANUP_S)
                raise
        return self.result

    async def _keep_in_memory(self, messages: list[Message]) -> None:
        try:
            with self._being_current():
                await self.memory.add_messages(messages)
        except Exception as problem:
            tell(f"the conversation could not be added to the memory: {type(problem).__name__}: {problem}")

    def _tell_of_money(self) -> None:
        """Says what of a run that ended well its budgets could not do, or had to."""
        own = [self.budget] if self.budget else []
        for budget in [*own, *(() if self.parent else self.spec.budgets)]:
            if budget.priceless:
                tell(unknown_cost(budget.priceless))
        if self.meter.cut_at is not None and self.record.turns and self.record.turns[-1].finish_reason == "length":
            tell(f"the answer was cut at {self.meter.cut_at:,} tokens, the cap that came with its budget; raise the limit, or set max_tokens")

    def _partial(self) -> Result[Any]:
        interrupted = self.record.run.status == "interrupted"
        messages = [message.to_dict() for message in self.transcript]
        return Result(self.output, replace(self.tally.usage), messages, interrupted=interrupted, record=self.record)

    def _why_not(self, error: ErrorAgent | None) -> str:
        """Why there is no answer, for the memory; empty where there may be one."""
        return type(error).__name__ if error is not None else f"{self.denied} was denied" if self.denied is not None else ""


def _source_of(response: LLMResponse) -> str:
    """Who says what an answer cost, where anybody does: the meter has noted it, if it was not the provider."""
    source = response.usage.get("cost_source")
    return source if source in ("given", "table") else "provider"
