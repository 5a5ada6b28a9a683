"""Agent: what to ask, of whom, with which tools and limits. Configuration only; a run's state lives in the loop."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing
from inspect import isfunction
from typing import TYPE_CHECKING, Any, Generic, overload

from ._portal import GRACE_S, check_may_block, portal, run_blocking
from .config import Secret, without_password
from .content import Prompt
from .errors import ErrorConfig, ErrorRun
from .events import AgentEnd, AgentStart, Event
from .loop import RunSpec, current_run, run_events
from .models.base import Model
from .models.retry import with_retries
from .models.routing import resolve_model
from .output import OutputSpec, check_mode, check_type
from .recorder import recorded
from .result import Result
from .store import default_store
from .tools import Approval, Approve, Tool, check_function, tool

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from .history import History
    from .memory import MemoryProto
    from .store import RunStore

    OutputT = TypeVar("OutputT", default=str)
else:
    from typing import TypeVar

    OutputT = TypeVar("OutputT")

__all__ = ["Agent", "RunStream"]


class Agent(Generic[OutputT]):
    """A named agent: a model with instructions, tools and limits.

    Args:
        name: shown in cards and in the run history.
        model: a model string (see `resolve_model`) or a Model.
        api_key, base_url: for a model string; left out, the environment and ~/.agentroute/config decide.
        instructions: sent as the system message of every request.
        description: for people; never sent.
        tools: functions or Tools the model may call.
        max_turns: model calls one run may make.
        max_cost: USD one run may cost.
        retries: how often one run may ask the model to correct an answer or a tool call (see `Retry`).
        output: the type of the answer; None for text.
        output_mode: how the type is asked for: auto, tool, native, prompted or text.
        memory: keeps the conversation between runs, and facts.
        history: which messages are sent when a conversation grows long.
        store: a RunStore that records every run.
        approve: decides on calls of tools that need approval: a function of (ctx, call), plain or async, that returns
            True, False, the reason for a denial, or Deny. Left out, such calls are denied.
        memory_tools: offers the model tools to `remember`, `recall` and `forget` facts in the memory.
        temperature, max_tokens: model settings; None leaves them to the provider.
        timeout: seconds one model call may take in all.
        extra: further fields of the request body, such as `{"seed": 7}`.

    Raises:
        ErrorConfig: an argument is of the wrong type or out of range.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str | Model | None = None,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        instructions: str | None = None,
        description: str | None = None,
        tools: Sequence[Tool | Callable[..., Any]] | None = None,
        max_turns: int = 10,
        max_cost: float | None = None,
        retries: int = 1,
        output: type[OutputT] | None = None,
        output_mode: str = "auto",
        memory: MemoryProto | None = None,
        history: History | None = None,
        store: RunStore | None = None,
        approve: Approve | None = None,
        memory_tools: bool = False,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        api_key = Secret(api_key) if api_key is not None else None  # first: no plain key stands in a traceback's locals
        if not isinstance(name, str) or not name.strip():
            raise ErrorConfig(f"name must be a text that is not empty, got {name!r}")
        _no_class("model", model)
        if model is not None and not isinstance(model, str | Model):
            raise ErrorConfig(f"model must be a model string or a Model (complete, complete_stream, close), got {type(model).__name__}")
        if isinstance(model, str) and not model.strip():
            raise ErrorConfig("model is an empty string; give one such as 'anthropic/claude-sonnet-4'")
        for label, text in {"instructions": instructions, "description": description, "base_url": base_url}.items():
            if not (text is None or isinstance(text, str)):
                raise ErrorConfig(f"{label} must be a text, got {type(text).__name__}")
        self.name = name
        self.model = model
        self.api_key = api_key
        self.base_url = base_url
        self.instructions = instructions
        self.description = description
        self.max_turns = _whole("max_turns", max_turns, least=1)
        self.max_cost = _number("max_cost", max_cost, least=0)
        self.retries = _whole("retries", retries, least=0)
        check_type(output)
        self.output = output
        check_mode(output_mode)
        self.output_mode = output_mode
        self.memory = _like("memory", memory, "MemorySQLite('agent.db')", "get_messages", "add_messages")
        self.history = _like("history", history, "HistorySlidingWindow(20)", "compact")
        self.store = _like("store", store, "RunStore('runs.db')", "save")
        self.approve = _checked_approve(approve)
        self.memory_tools = memory_tools
        self.temperature = _number("temperature", temperature, least=0)
        self.max_tokens = None if max_tokens is None else _whole("max_tokens", max_tokens, least=1)
        self.timeout = _number("timeout", timeout, least=0, above=True)
        if extra is not None and not isinstance(extra, Mapping):
            raise ErrorConfig(f"extra must be a dictionary of request fields, got {type(extra).__name__}")
        self.extra: dict[str, Any] = dict(extra or {})
        self._tools: dict[str, Tool] = {}
        self._validators: list[Callable[[Any, Any], Any]] = []
        if isinstance(tools, str) or not isinstance(tools, Sequence | None):
            hint = f"; write tools=[{getattr(tools, '__name__', '…')}]" if callable(tools) else ""
            raise ErrorConfig(f"tools must be a list of functions or Tools, got {type(tools).__name__}{hint}")
        offered: list[Any] = [*self._memory_tools(), *(tools or ())]
        for item in offered:
            self._add_tool(item, replace=False)

    def __repr__(self) -> str:
        known = self.__dict__  # an agent whose constructor has failed must still be printable in a traceback
        parts = [repr(known.get("name"))]
        if known.get("model") is not None:
            parts.append(f"model={without_password(repr(self.model))}")
        if known.get("_tools"):
            parts.append(f"tools=[{', '.join(self._tools)}]")
        if known.get("output") is not None:
            parts.append(f"output={getattr(self.output, '__name__', self.output)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def replace(self, **changes: Any) -> Agent[Any]:
        """A copy with some constructor arguments changed; tools and validators come along unless `tools=` is given.

        Raises:
            TypeError: an argument Agent does not take. ErrorConfig: as the constructor.
        """
        own = [tool for tool in self.tools if tool not in self._memory_tools()]
        settings = {name: getattr(self, name) for name in _SETTINGS} | {"tools": own} | changes
        name = settings.pop("name", self.name)
        copy: Agent[Any] = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)  # a subclass may keep more
        Agent.__init__(copy, name, **settings)
        copy._validators = list(self._validators)
        return copy

    @classmethod
    def model_validate(cls, settings: Mapping[str, Any]) -> Agent[Any]:
        """An agent from a dictionary of constructor arguments, as it may stand in a file.

        Raises:
            ErrorConfig: no dictionary, no name, an argument Agent does not take, or as the constructor.
        """
        if not isinstance(settings, Mapping):
            raise ErrorConfig(f"expected a dictionary of Agent's arguments, got {type(settings).__name__}")
        known = {*_SETTINGS, "tools"}
        if strange := [name for name in settings if name not in known]:
            raise ErrorConfig(f"Agent takes no {', '.join(map(repr, strange))}; it takes {', '.join(sorted(known))}")
        if "name" not in settings:
            raise ErrorConfig("an agent needs a name")
        return cls(**settings)

    def model_dump(self) -> dict[str, Any]:
        """The settings as a dictionary, for `model_validate`; without tools, and never with the key."""
        return {name: getattr(self, name) for name in _SETTINGS if name != "api_key"}

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Agent[Any]:
        """`replace(**update)`, under pydantic's name for it."""
        return self.replace(**(update or {}))

    # ---- tools and validators ---------------------------------------------------------------------------------

    @property
    def tools(self) -> list[Tool]:
        """The tools, in order of registration."""
        return list(self._tools.values())

    @property
    def tools_map(self) -> dict[str, Tool]:
        """The tools by name; a copy."""
        return dict(self._tools)

    @property
    def output_validators(self) -> list[Callable[[Any, Any], Any]]:
        """The validators, in order of registration; a copy."""
        return list(self._validators)

    def _memory_tools(self) -> Sequence[Tool]:
        if self.memory_tools is False:
            return ()
        if self.memory_tools is not True:
            raise ErrorConfig(f"memory_tools must be True or False, got {self.memory_tools!r:.80}")
        if self.memory is None:
            raise ErrorConfig("memory_tools=True needs a memory, such as memory=MemorySQLite('agent.db')")
        from .memory.tools import MEMORY_TOOLS

        return MEMORY_TOOLS

    def _add_tool(self, item: Tool | Callable[..., Any], *, replace: bool) -> Tool:
        made = item if isinstance(item, Tool) else Tool.from_function(item) if callable(item) else None
        if made is None:
            hint = "; write a function that returns agent.run(…).output" if isinstance(item, Agent) else ""
            raise ErrorConfig(f"a tool must be a function or a Tool, got {type(item).__name__}: {item!r:.80}{hint}")
        known = self._tools.get(made.name)
        if known is not None and known is not made and not (replace and _redefined(known.fn, made.fn)):
            raise ErrorConfig(f"agent {self.name!r} has another tool named {made.name!r}; give one of them a name=…")
        self._tools[made.name] = made
        return made

    @overload
    def tool(self, fn: Callable[..., Any], /) -> Tool: ...
    @overload
    def tool(
        self,
        fn: None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        needs_approval: Approval = False,
        timeout: float | None = None,
    ) -> Callable[[Callable[..., Any]], Tool]: ...
    def tool(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        needs_approval: Approval = False,
        timeout: float | None = None,
    ) -> Tool | Callable[[Callable[..., Any]], Tool]:
        """Decorator: makes a function a tool of this agent. Defining it again (a cell run twice) replaces it."""
        options = tool(name=name, description=description, needs_approval=needs_approval, timeout=timeout)

        def add(function: Callable[..., Any]) -> Tool:
            return self._add_tool(options(function), replace=True)

        return add if fn is None else add(fn)

    def output_validator(self, fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Decorator: `fn(ctx, output)` checks or replaces the answer; it raises `Retry` to have it corrected."""
        check_function("an output validator", fn, "ctx", "output")
        self._validators = [known for known in self._validators if known is not fn and not _redefined(known, fn)]
        self._validators.append(fn)
        return fn

    # ---- running ----------------------------------------------------------------------------------------------

    def _spec(
        self,
        stream: bool,
        *,
        deps: Any,
        session_id: str | None,
        max_cost: float | None,
        max_turns: int | None,
        approve: Approve | None,
    ) -> RunSpec:
        if session_id is not None:
            from .memory.base import check_session

            check_session(session_id)
        parent = current_run()
        store = self.store or (parent.store if parent else None) or default_store()
        return RunSpec(
            agent_name=self.name,
            request_model=self._model_name(),
            resolve=self._resolve,
            instructions=self.instructions,
            tools=self.tools_map,
            output=lambda: None if self.output in (None, str) else OutputSpec(self.output, self.output_mode),
            validators=tuple(self._validators),
            retries=self.retries,
            max_turns=self.max_turns if max_turns is None else _whole("max_turns", max_turns, least=1),
            max_cost=self.max_cost if max_cost is None else _number("max_cost", max_cost, least=0),
            memory=self.memory,
            history=self.history,
            deps=deps,
            session_id=session_id,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            timeout=self.timeout,
            extra=self.extra,
            stream=stream,
            approve=_checked_approve(approve) or self.approve or (parent.approve if parent else None),
            store=store,
        )

    def _model_name(self) -> str:
        """What the run history calls the model: the string given, or the id of a Model."""
        name = self.model if isinstance(self.model, str) else getattr(self.model, "model_id", None)
        return without_password(name) if isinstance(name, str) else "unknown"

    def _resolve(self) -> Model:
        if self.model is None:
            raise ErrorConfig(f"agent {self.name!r} has no model; give one, such as model='anthropic/claude-sonnet-4'")
        if not isinstance(self.model, str):
            return with_retries(self.model)
        return with_retries(resolve_model(self.model, api_key=self.api_key, base_url=self.base_url))

    def events(
        self,
        prompt: Prompt,
        *,
        stream: bool = True,
        deps: Any = None,
        session_id: str | None = None,
        max_cost: float | None = None,
        max_turns: int | None = None,
        approve: Approve | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The typed events of one run, recorded as they pass; the last is AgentEnd, which also carries a failure.

        Args as `run`; `stream` asks the model for text as it is written.
        """
        limits: dict[str, Any] = {"max_cost": max_cost, "max_turns": max_turns}
        spec = self._spec(stream, deps=deps, session_id=session_id, approve=approve, **limits)
        events = run_events(spec, prompt)
        return recorded(events, spec.store) if spec.store is not None else events

    async def arun(
        self,
        prompt: Prompt,
        *,
        deps: Any = None,
        session_id: str | None = None,
        max_cost: float | None = None,
        max_turns: int | None = None,
        approve: Approve | None = None,
    ) -> Result[OutputT]:
        """Runs the agent on a prompt, to its final answer.

        Args:
            prompt: what is asked: a text, or a list of texts and content parts (see `image`).
            deps: anything; tools reach it as `ctx.deps`. Never sent.
            session_id: the conversation in the agent's memory.
            max_cost, max_turns, approve: of this run, instead of the agent's.

        Raises:
            ErrorAgent: the run failed; `.result` of the error holds what there is.
        """
        events = self.events(
            prompt, stream=False, deps=deps, session_id=session_id, max_cost=max_cost, max_turns=max_turns, approve=approve
        )
        end: AgentEnd | None = None
        async with aclosing(events):
            async for event in events:
                if isinstance(event, AgentEnd):
                    end = event
        return _outcome(end)

    def run(
        self,
        prompt: Prompt,
        *,
        deps: Any = None,
        session_id: str | None = None,
        max_cost: float | None = None,
        max_turns: int | None = None,
        approve: Approve | None = None,
    ) -> Result[OutputT]:
        """`arun` for code that is not async: scripts, notebook cells, threads, tools. Ctrl-C stops the run.

        Raises:
            RuntimeError: an event loop runs in this thread (but for a notebook's own); await `arun` there.
            ErrorAgent: as `arun`.
        """
        check_may_block("await agent.arun(...)")
        options: dict[str, Any] = {"max_cost": max_cost, "max_turns": max_turns, "approve": approve}
        return run_blocking(lambda: self.arun(prompt, deps=deps, session_id=session_id, **options))

    def stream(
        self,
        prompt: Prompt,
        *,
        deps: Any = None,
        session_id: str | None = None,
        max_cost: float | None = None,
        max_turns: int | None = None,
        approve: Approve | None = None,
    ) -> RunStream[OutputT]:
        """The events of one run, for `async for` or plain `for`; `.result` afterwards. Arguments as `run`."""
        options: dict[str, Any] = {"max_cost": max_cost, "max_turns": max_turns, "approve": approve}
        return RunStream(lambda: self.events(prompt, deps=deps, session_id=session_id, **options))


_SETTINGS = (
    "name", "model", "api_key", "base_url", "instructions", "description", "max_turns", "max_cost", "retries", "output",
    "output_mode", "memory", "history", "store", "approve", "memory_tools", "temperature", "max_tokens", "timeout", "extra",
)  # fmt: skip


class RunStream(Generic[OutputT]):
    """The events of one run as they happen, for `async for` or plain `for`, once.

    Leaving early stops the run and closes its connection; `with` (or `async with`) does so at the end of the block.
    A failed run ends the iteration by raising its error, after its AgentEnd event.
    """

    def __init__(self, begin: Callable[[], AsyncGenerator[Event, None]]) -> None:
        self._begin: Callable[[], AsyncGenerator[Event, None]] | None = begin
        self._start: AgentStart | None = None
        self._end: AgentEnd | None = None
        # Weak, because the generators hold this object: a `for` that is left drops its generator, which then closes at once.
        self._plain: weakref.ref[Generator[Event, None, None]] | None = None
        self._asynchronous: weakref.ref[AsyncGenerator[Event, None]] | None = None
        self._within = False  # an `async with`, at whose end the generator must still be there to be closed
        self._held: AsyncGenerator[Event, None] | None = None

    @property
    def result(self) -> Result[OutputT]:
        """The Result, once the iteration has ended; the partial one when it was left early.

        Raises:
            RuntimeError: the run has not ended. ErrorAgent: it failed.
        """
        if self._end is not None:
            return _outcome(self._end)
        if self._start is None or self._start.partial is None or self._start.record.run.duration_s is None:
            raise RuntimeError("the run has not ended yet; iterate the stream to its end, or close it, first")
        return self._start.partial()

    def __aiter__(self) -> AsyncGenerator[Event, None]:
        events = self._take_async(self._once())
        self._asynchronous = weakref.ref(events)
        self._held = events if self._within else None
        return events

    def __iter__(self) -> Generator[Event, None, None]:
        check_may_block("async for event in agent.stream(...)")
        events = self._take_plain(self._once())
        self._plain = weakref.ref(events)
        return events

    async def aclose(self) -> None:
        """Stops the run if it has not ended."""
        if self._asynchronous is not None and (events := self._asynchronous()) is not None:
            await events.aclose()
        self._held = None

    def close(self) -> None:
        """Stops the run if it has not ended."""
        if self._plain is not None and (events := self._plain()) is not None:
            events.close()

    async def __aenter__(self) -> RunStream[OutputT]:
        self._within = True
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __enter__(self) -> RunStream[OutputT]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _once(self) -> Callable[[], AsyncGenerator[Event, None]]:
        if self._begin is None:
            raise RuntimeError("a stream is read once: reading it again would run, and pay for, the agent again")
        begin, self._begin = self._begin, None
        return begin

    def _seen(self, event: Event) -> Event:
        if isinstance(event, AgentStart):
            self._start = event
        elif isinstance(event, AgentEnd):
            self._end = event
        return event

    async def _take_async(self, begin: Callable[[], AsyncGenerator[Event, None]]) -> AsyncGenerator[Event, None]:
        async with aclosing(begin()) as events:
            async for event in events:
                yield self._seen(event)
        _outcome(self._end)

    def _take_plain(self, begin: Callable[[], AsyncGenerator[Event, None]]) -> Generator[Event, None, None]:
        import queue

        pipe: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()

        async def pump() -> None:
            error: BaseException | None = None
            try:
                async with aclosing(begin()) as events:
                    async for event in events:
                        pipe.put(event)
            except BaseException as caught:
                error = caught
            pipe.put(error)

        handle = portal().start(pump)
        try:
            while isinstance(item := _get(pipe), Event):
                yield self._seen(item)
        finally:
            if not handle.wait(0):
                handle.cancel()
                handle.wait(GRACE_S)
        if item is not None:
            raise item
        _outcome(self._end)


def _get(pipe: Any) -> Any:
    """The next item, waited for in slices, so that Ctrl-C gets through on every platform."""
    import queue

    while True:
        try:
            return pipe.get(timeout=0.1)
        except queue.Empty:
            continue


def _outcome(end: AgentEnd | None) -> Result[Any]:
    """The result a run ended with, or its error raised."""
    if end is None:
        raise ErrorRun("the run ended without a result")
    if end.error is not None:
        raise end.error
    return end.result


def _redefined(before: Any, now: Any) -> bool:
    """Whether a function is the same one defined again, as by a cell that is run twice; not two products of one factory."""

    def origin(function: Any) -> tuple[str, str] | None:
        if not isfunction(function) or function.__closure__ or function.__name__ == "<lambda>":
            return None
        return function.__module__, function.__qualname__

    return origin(before) is not None and origin(before) == origin(now)


def _whole(name: str, value: Any, *, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ErrorConfig(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value


def _number(name: str, value: Any, *, least: float, above: bool = False) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < 1e300 or (above and value == least):
        raise ErrorConfig(f"{name} must be a number {'above' if above else 'of at least'} {least:g}, or None; got {value!r:.80}")
    return value


def _checked_approve(approve: Approve | None) -> Approve | None:
    if approve is not None:
        check_function("approve", approve, "ctx", "call")
    return approve


def _no_class(name: str, value: Any) -> None:
    if isinstance(value, type):
        raise ErrorConfig(f"{name} is the class {value.__name__}, not an object of it; write {name}={value.__name__}(…)")


def _like(name: str, value: Any, example: str, *methods: str) -> Any:
    _no_class(name, value)
    missing = [method for method in methods if value is not None and not callable(getattr(value, method, None))]
    if missing:
        kind, lacking = type(value).__name__, ", ".join(missing)
        raise ErrorConfig(f"{name} must have the methods {', '.join(methods)}, as {example} has; {kind} lacks {lacking}")
    return value
