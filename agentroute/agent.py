"""Agent: what to ask, of whom, with which tools and limits. Configuration only; a run's state lives in the loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Generic, overload

from ._portal import check_may_block, run_blocking
from .budgets import active_budgets
from .config import Secret, SecretLike, without_password
from .content import Prompt
from .definitions import redefined
from .displayed import Displayed
from .errors import ErrorConfig
from .events import AgentEnd, Event
from .loop import RunSpec, current_run, run_events
from .models.base import Model
from .output import output_spec
from .prices import Price
from .recorder import recorded
from .replays import active_replay
from .result import Result
from .settings import (
    CHECKS,
    SETTINGS,
    checked_record,
    checked_tags,
    number,
    optional_approve,
    unknown_setting,
    whole_number,
    with_hidden_key,
)
from .store import default_store
from .stream import RunStream, outcome
from .tools import Approval, Approve, Tool, check_function, tool
from .visible import short_repr

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from .history import History
    from .memory import MemoryProto
    from .store import RunStore

    OutputT = TypeVar("OutputT", default=str)
else:
    from typing import TypeVar

    OutputT = TypeVar("OutputT")

__all__ = ["Agent"]

_ADDRESSES = ("model", "base_url")


def _revealed(address: str | Secret | None) -> str | None:
    return address.reveal() if isinstance(address, Secret) else address


class Agent(Displayed, Generic[OutputT]):
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
        retries: how often one run may ask the model to correct an answer, or a tool call on which a tool raised `Retry`.
        output: the type of the answer; None for text.
        output_mode: how the type is asked for: auto, tool, native, prompted or text.
        memory: keeps the conversation between runs, and facts.
        history: which messages are sent when a conversation grows long.
        store: a RunStore that records every run.
        approve: decides on calls of tools that need approval: a function of (ctx, call), plain or async, that returns
            True, False, the reason for a denial, or Deny. Left out, such calls are denied.
        memory_tools: offers the model tools to `remember`, `recall` and `forget` facts in the memory.
        temperature, max_tokens: model settings; None leaves them to the provider.
        timeout: seconds one attempt at a model call may take in all.
        extra: further fields of the request body, such as `{"seed": 7}`.
        price: what the model charges, for providers that do not report the cost of a call.
        tags: of every run, for the run history, such as `{"tenant": "a"}`; a run begun by a tool has those of the run around it, too.
        record: whether anything is kept of its runs, in the run history or for replay.

    Raises:
        ErrorConfig: an argument is of the wrong type or out of range.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str | Model | None = None,
        api_key: str | Secret | SecretLike | None = None,
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
        price: Price | None = None,
        tags: Mapping[str, str] | None = None,
        record: bool = True,
    ) -> None:
        given, problem = with_hidden_key({name: value for name, value in locals().items() if name in CHECKS})
        api_key = None  # no plain key is to stand in a traceback's locals
        if problem is not None:
            raise problem
        for setting, value in given.items():
            setattr(self, setting, value)
        self._tools: dict[str, Tool] = {}
        self._validators: list[Callable[[Any, Any], Any]] = []
        if isinstance(tools, str) or not isinstance(tools, Sequence | None):
            hint = f"; write tools=[{getattr(tools, '__name__', '…')}]" if callable(tools) else ""
            raise ErrorConfig(f"tools must be a list of functions or Tools, got {type(tools).__name__}{hint}")
        offered: list[Any] = [*self._memory_tools(), *(tools or ())]
        for item in offered:
            self._add_tool(item, replace=False)

    if TYPE_CHECKING:  # set by name above
        name: str
        model: str | Model | None
        api_key: Secret | None
        base_url: str | None
        instructions: str | None
        description: str | None
        max_turns: int
        max_cost: float | None
        retries: int
        output: type[OutputT] | None
        output_mode: str
        memory: MemoryProto | None
        history: History | None
        store: RunStore | None
        approve: Approve | None
        memory_tools: bool
        temperature: float | None
        max_tokens: int | None
        timeout: float | None
        extra: dict[str, Any]
        price: Price | None
        tags: dict[str, str]
        record: bool

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CHECKS:
            value = CHECKS[name](value)
            if name in _ADDRESSES:  # a login in it is kept apart, so that nobody is shown it
                self.__dict__[f"_{name}"] = value
                value = without_password(value.reveal()) if isinstance(value, Secret) else value
        elif name in ("tools", "tools_map", "output_validators"):
            raise ErrorConfig(f"{name} cannot be assigned: @agent.tool and @agent.output_validator add one, agent.replace(tools=[…]) makes a copy")
        elif type(self) is Agent and not name.startswith("_"):
            raise unknown_setting(name, SETTINGS)
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        known = self.__dict__  # an agent whose constructor has failed must still be printable in a traceback
        parts = [repr(known.get("name"))]
        if known.get("model") is not None:
            parts.append(f"model={without_password(short_repr(self.model, 200))}")
        if known.get("_tools"):
            parts.append(f"tools=[{', '.join(self._tools)}]")
        if known.get("output") is not None:
            parts.append(f"output={self.output.__name__ if isinstance(self.output, type) else short_repr(self.output, 120)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def replace(self, **changes: Any) -> Agent[Any]:
        """A copy with some constructor arguments changed; tools and validators come along unless `tools=` is given.

        Raises:
            TypeError: an argument Agent does not take. ErrorConfig: as the constructor.
        """
        changes, problem = with_hidden_key(changes)
        if problem is not None:
            raise problem
        own = [tool for tool in self.tools if tool not in self._memory_tools()]
        kept = {name: self.__dict__[f"_{name}" if name in _ADDRESSES else name] for name in SETTINGS}
        settings = kept | {"tools": own} | changes
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
        settings, problem = with_hidden_key(settings)
        if problem is not None:
            raise problem
        if not isinstance(settings, Mapping):
            raise ErrorConfig(f"expected a dictionary of Agent's arguments, got {type(settings).__name__}")
        known = {*SETTINGS, "tools"}
        if strange := [name for name in settings if name not in known]:
            raise ErrorConfig(f"Agent takes no {', '.join(map(repr, strange))}; it takes {', '.join(sorted(known))}")
        if "name" not in settings:
            raise ErrorConfig("an agent needs a name")
        return cls(**settings)

    def model_dump(self) -> dict[str, Any]:
        """The settings as a dictionary, for `model_validate`; without tools, and never with the key."""
        return {name: getattr(self, name) for name in SETTINGS if name != "api_key"}

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Agent[Any]:
        """`replace(**update)`, under pydantic's name for it."""
        update, problem = with_hidden_key(update or {})
        if problem is not None:
            raise problem
        return self.replace(**update)

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
        if not self.memory_tools:
            return ()
        if self.memory is None:
            raise ErrorConfig("memory_tools=True needs a memory, such as memory=MemorySQLite('agent.db')")
        from .memory.tools import MEMORY_TOOLS, check_keeps_facts

        check_keeps_facts(self.memory)
        return MEMORY_TOOLS

    def _add_tool(self, item: Tool | Callable[..., Any], *, replace: bool) -> Tool:
        made = Tool.from_function(item) if callable(item) else None
        runs_agent = getattr(made.fn if made else item, "__func__", item) in (Agent.run, Agent.arun, Agent.stream, Agent.events)
        if made is None or runs_agent:
            hint = "; write a function that returns agent.run(…).output" if runs_agent or isinstance(item, Agent) else ""
            raise ErrorConfig(f"a tool must be a function or a Tool, got {type(item).__name__}: {item!r:.80}{hint}")
        known = self._tools.get(made.name)
        if known is not None and known is not made and not (replace and redefined(known.fn, made.fn)):
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
        needs_approval: Approval | EllipsisType = ...,
        timeout: float | EllipsisType | None = ...,
    ) -> Callable[[Callable[..., Any]], Tool]: ...
    def tool(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        needs_approval: Approval | EllipsisType = ...,
        timeout: float | EllipsisType | None = ...,
    ) -> Tool | Callable[[Callable[..., Any]], Tool]:
        """Decorator: makes a function a tool of this agent. Defining it again (a cell run twice) replaces it.

        A Tool is taken as it is; options that are given replace its own, here only.

        Raises:
            ErrorConfig: another function has the name; or as `Tool`.
        """
        options = tool(name=name, description=description, needs_approval=needs_approval, timeout=timeout)

        def add(function: Callable[..., Any]) -> Tool:
            return self._add_tool(options(function), replace=True)

        return add if fn is None else add(fn)

    def output_validator(self, fn: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Decorator: `fn(ctx, output)` checks or replaces the answer; it raises `Retry` to have it corrected."""
        check_function("an output validator", fn, "ctx", "output")
        self._validators = [known for known in self._validators if known is not fn and not redefined(known, fn)]
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
        tags: Mapping[str, str] | None,
        record: bool | None,
    ) -> RunSpec:
        if session_id is not None:
            from .memory.base import check_session

            check_session(session_id)
        parent = current_run()
        record = self.record if record is None else checked_record(record)
        recording = record and (parent.record if parent else True)
        store = self.store or (parent.store if parent else None) or default_store()
        replay = active_replay(store, parent.replay if parent else None)
        return RunSpec(
            agent_name=self.name,
            request_model=self._model_name(),
            resolve=self._resolve,
            stand_in=self._stand_in if isinstance(self.model, str) else None,
            instructions=self.instructions,
            tools=self.tools_map,
            output=lambda: None if self.output in (None, str) else output_spec(self.output, self.output_mode),
            validators=tuple(self._validators),
            retries=self.retries,
            max_turns=self.max_turns if max_turns is None else whole_number("max_turns", max_turns, least=1),
            max_cost=self.max_cost if max_cost is None else number("max_cost", max_cost, least=0),
            memory=self.memory,
            history=self.history,
            deps=deps,
            session_id=session_id,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            timeout=self.timeout,
            extra=self.extra,
            price=self.price,
            budgets=active_budgets(),
            stream=stream,
            approve=optional_approve(approve) or self.approve or (parent.approve if parent else None),
            store=store if recording else None,
            record=recording,
            replay=replay if recording or replay.mode == "only" else None,  # what is not recorded may not be sent either
            place=replay.place,
            tags={**(parent.tags if parent else {}), **self.tags, **checked_tags(tags)},
        )

    def _model_name(self) -> str:
        """What the run history calls the model: the string given, or the id of a Model."""
        name = self.model if isinstance(self.model, str) else getattr(self.model, "model_id", None)
        return without_password(name) if isinstance(name, str) else "unknown"

    def _resolve(self) -> Model:
        if self.model is None:
            raise ErrorConfig(f"agent {self.name!r} has no model; give one, such as model='anthropic/claude-sonnet-4'")
        from .models.retry import with_retries
        from .models.routing import resolve_model

        if not isinstance(self.model, str):
            return with_retries(self.model)
        return with_retries(
            resolve_model(str(_revealed(self.__dict__["_model"])), api_key=self.api_key, base_url=_revealed(self.__dict__["_base_url"]))
        )

    def _stand_in(self) -> Model:
        from .models.retry import with_retries
        from .models.routing import stand_in

        return with_retries(stand_in(str(_revealed(self.__dict__["_model"])), base_url=_revealed(self.__dict__["_base_url"])))

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
        tags: Mapping[str, str] | None = None,
        record: bool | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The typed events of one run, recorded as they pass; the last is AgentEnd, which also carries a failure.

        Args as `run`; `stream` asks the model for text as it is written.
        """
        limits: dict[str, Any] = {"max_cost": max_cost, "max_turns": max_turns}
        spec = self._spec(stream, deps=deps, session_id=session_id, approve=approve, tags=tags, record=record, **limits)
        return _recorded(spec, prompt)

    async def arun(
        self,
        prompt: Prompt,
        *,
        deps: Any = None,
        session_id: str | None = None,
        max_cost: float | None = None,
        max_turns: int | None = None,
        approve: Approve | None = None,
        tags: Mapping[str, str] | None = None,
        record: bool | None = None,
    ) -> Result[OutputT]:
        """Runs the agent on a prompt, to its final answer.

        Args:
            prompt: what is asked: a text, or a list of texts and content parts (see `image`).
            deps: anything; tools reach it as `ctx.deps`. Never sent.
            session_id: the conversation in the agent's memory.
            max_cost, max_turns, approve, record: of this run, instead of the agent's.
            tags: of this run, beside the agent's.

        Raises:
            ErrorAgent: the run failed; `.result` of the error holds what there is.
        """
        events = self.events(
            prompt, stream=False, deps=deps, session_id=session_id, max_cost=max_cost, max_turns=max_turns, approve=approve,
            tags=tags, record=record,
        )  # fmt: skip
        end: AgentEnd | None = None
        async with aclosing(events):
            async for event in events:
                if isinstance(event, AgentEnd):
                    end = event
        return outcome(end)

    def run(
        self,
        prompt: Prompt,
        *,
        deps: Any = None,
        session_id: str | None = None,
        max_cost: float | None = None,
        max_turns: int | None = None,
        approve: Approve | None = None,
        tags: Mapping[str, str] | None = None,
        record: bool | None = None,
    ) -> Result[OutputT]:
        """`arun` for code that is not async: scripts, notebook cells, threads, tools. Ctrl-C stops the run.

        Raises:
            RuntimeError: an event loop runs in this thread (but for a notebook's own); await `arun` there.
            ErrorAgent: as `arun`.
        """
        check_may_block("await agent.arun(...)")
        options: dict[str, Any] = {"max_cost": max_cost, "max_turns": max_turns, "approve": approve, "tags": tags, "record": record}
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
        tags: Mapping[str, str] | None = None,
        record: bool | None = None,
    ) -> RunStream[OutputT]:
        """The events of one run, for `async for` or plain `for`; `.result` afterwards. Arguments as `run`."""
        limits: dict[str, Any] = {"max_cost": max_cost, "max_turns": max_turns}
        spec = self._spec(True, deps=deps, session_id=session_id, approve=approve, tags=tags, record=record, **limits)
        return RunStream(lambda: _recorded(spec, prompt))


def _recorded(spec: RunSpec, prompt: Prompt) -> AsyncGenerator[Event, None]:
    events = run_events(spec, prompt)
    return recorded(events, spec.store) if spec.store is not None else events
