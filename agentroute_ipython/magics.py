"""`%%agent` and `%agent`: parse the cell, find or make the agents, run them, show it. State belongs to one shell's object."""

from __future__ import annotations

import linecache
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from IPython.core.display_functions import display
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Enum, Float, TraitError, Unicode, observe

from agentroute.errors import ErrorConfig
from agentroute.keys import without_credentials
from agentroute.store import RunStore, default_store, set_default_store

from .agents import Agents
from .arguments import Arguments, Options, parse
from .cell_text import halves, trimmed, unescaped, with_instructions
from .help_text import HELP
from .interpolation import interpolate
from .modes import APPROVALS, RECORDS, RENDERS
from .place import Places
from .project_settings import ProjectSettings, apply, read
from .replaying import ReplayMode, checked, error_text, replaying
from .transform import AWAITED, CellTransform
from .words import check_is_agent, do_word

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from agentroute import Agent
    from agentroute.events import Event

    from .approvals import Approver
    from .comparison import Case
    from .running import Runnable

__all__ = ["AgentMagics"]

MOST_COMPARED = 12
"""Runs of one cell that are compared."""

_HELP = ("--help", "-h")
_ASKED = Callable[[], AsyncGenerator["Event", None]]


class OneOf(Enum):  # type: ignore[type-arg]
    """A trait with a few values, which names the nearest one when it is given another."""

    def validate(self, obj: Any, value: Any) -> str:
        return checked(self.name, value, tuple(self.values or ()))


class CostLimit(Float):  # type: ignore[type-arg]
    """A trait with an amount of money, whose errors show no key."""

    def validate(self, obj: Any, value: Any) -> Any:
        try:
            return super().validate(obj, value)
        except TraitError as error:
            raise TraitError(without_credentials(str(error))) from None


class BudgetLimit(Float):  # type: ignore[type-arg]
    """The trait `budget`: the limit of what the runs of this process may spend, whoever has set it; None where there is none."""

    def get(self, obj: Any, cls: Any = None) -> float | None:
        from agentroute.budgets import process_budget

        budget = process_budget()
        return None if budget is None else budget.limit

    def set(self, obj: Any, value: Any) -> None:
        from agentroute.budgets import Budget, set_budget

        try:
            set_budget(None if value is None else Budget(value))
        except ErrorConfig as error:
            raise TraitError(str(error)) from None


@magics_class
class AgentMagics(Magics):
    """Agents in notebook cells."""

    shell: InteractiveShell
    model = Unicode(
        None, allow_none=True, help="Model of agents that name none, such as anthropic/claude-sonnet-4 or local/smollm2."
    ).tag(config=True)
    replay = ReplayMode(
        help="on: a restarted notebook replays the answers it has paid for. off: every request is sent. only: none is, and "
        "what is not kept is an error. fresh: every request is sent, and its answer kept. $AGENTROUTE_REPLAY is the default, "
        "else on; in a terminal off."
    ).tag(config=True)
    approval = OneOf(
        APPROVALS,
        "auto",
        help="Who approves of calls of tools that need approval, where the agent has no approve= of its own. auto: buttons where they "
        "can be clicked while a cell runs, else a question at the prompt; where nobody can answer, they are denied. button, input: "
        "only so. deny, allow: nobody is asked.",
    ).tag(config=True)
    max_cost = CostLimit(
        None, allow_none=True, min=0, help="Most USD that one run of a cell may spend, of agents with no max_cost of their own."
    ).tag(config=True)
    budget = BudgetLimit(None, allow_none=True, help="USD that all runs of this kernel may spend together, from now on.").tag(config=True)
    record = OneOf(
        RECORDS, "all", help="What the run history keeps: all, metadata (figures, and no text), or off (nothing)."
    ).tag(config=True)
    render = OneOf(
        RENDERS, "auto", help="How runs are drawn: auto (html in a notebook, text in a terminal), html, text, or off."
    ).tag(config=True)

    store: RunStore
    """What records the runs of the notebook."""
    project: ProjectSettings
    """What the project's pyproject.toml says."""
    configured: dict[str, object]
    """What IPython was configured with when the extension was loaded."""
    has_begun = False
    configured_replay: str | None = None
    """What the configuration file or `%config` says."""

    def __init__(self, shell: InteractiveShell, **options: Any) -> None:
        super().__init__(shell, parent=shell, **options)
        with _mistakes():
            self.project = read()
            apply(self.project, self)
        self.transform = CellTransform(shell)
        self.places = Places(shell)
        self._at_end = ExitStack()
        self.store = self._new_store()
        self.last: Any = None
        """The view of the last run of a cell."""
        self._last_asked: tuple[Runnable, Approver] | None = None
        """That run, and who decides on its calls."""
        with _mistakes():
            _ = self.replay  # a mistake in the environment is told before anything has changed
        self.agents = Agents(self._names, self._bind, lambda: self.model)

    def begin(self) -> None:
        """From now on every run is recorded; in a kernel it also has its place in the notebook, and is replayed as `replay`
        says. What somebody has set before stays."""
        from agentroute.replays import set_default_replay

        if default_store() is None and self.record != "off":
            set_default_store(self.store)
        self._at_end.callback(self._stop_recording)
        if hasattr(self.shell, "kernel"):
            from agentroute.replays import set_place

            self.places.begin_now()
            self.shell.events.register("pre_run_cell", self.places.begin)
            self._at_end.callback(self.shell.events.unregister, "pre_run_cell", self.places.begin)
            set_place(self.places)
            self._at_end.callback(set_place, None)
        set_default_replay(self.replay)
        self._at_end.callback(set_default_replay, None)
        self.has_begun = True

    def end(self) -> None:
        """As if it had not begun. What runs in the background is stopped."""
        self.has_begun = False
        if background := sys.modules.get("agentroute_ipython.background"):
            background.stop()
        self._at_end.close()

    def _stop_recording(self) -> None:
        if default_store() is self.store:
            set_default_store(None)
        self.store.close()

    def _new_store(self) -> RunStore:
        return RunStore(record_content="metadata" if self.record == "metadata" else "all")

    @observe("record")
    def _record_changed(self, change: Any) -> None:
        if not self.has_begun:
            return
        before, self.store = self.store, self._new_store()
        if default_store() in (before, None):
            set_default_store(None if change["new"] == "off" else self.store)
        before.close()

    @no_var_expand
    @line_cell_magic
    def agent(self, line: str, cell: str | None = None) -> None:
        with _mistakes():
            run = self._prepare(line, cell, here=False)
        if run is not None:
            from .running import run_beside

            run_beside(run)

    agent.__doc__ = HELP

    async def agent_here(self, line: str, cell: str | None = None) -> None:
        """What a rewritten cell awaits: as `agent`, on the kernel's own loop."""
        self._show_cell_as_written(sys._getframe(1).f_code.co_filename)
        with _mistakes():
            run = self._prepare(line, cell, here=True)
        if run is not None:
            from .running import run_here

            await run_here(run)

    def _prepare(self, line: str, cell: str | None, *, here: bool) -> Runnable | None:
        """The run that the cell asks for, or None when it asked for something that is done by now, or has begun by itself.

        Raises:
            ErrorConfig: a mistake in the cell; nothing was sent, nothing has changed.
        """
        if (cell is None or line.strip() in _HELP) and do_word(self, line):
            return None
        fill = partial(interpolate, names=self._names())
        arguments = parse(line, text_follows=cell is None, fill=fill)
        if not arguments.names:
            raise ErrorConfig(f"which agent? %%agent NAME{self.agents.listed()}")
        self._check(arguments)
        if cell is None and not (arguments.define or arguments.options.model or arguments.models):
            for name in arguments.names:
                check_is_agent(name, self.agents.known())
        text = arguments.text if cell is None else cell
        if arguments.define:
            self._define(arguments, fill(trimmed(text if cell is None else unescaped(text))))
            return None
        above, separator, below = map(unescaped, halves(text)) if cell is not None else ("", "", text)
        instructions, prompt = fill(trimmed(above)), fill(trimmed(below))
        if not prompt.strip():
            where = "after the name" if cell is None else "below the ---" if separator else "below the first line"
            hint = "\nTo define the agent without running it: --define" if separator else ""
            raise ErrorConfig(f"the prompt is empty; write {where} what to ask{hint}")
        if separator:
            if len(arguments.names) > 1:
                raise ErrorConfig("text above a --- is the instructions of one agent, and the cell names several; define each in a cell of its own")
            options = with_instructions(arguments.options, instructions)
            if arguments.models and arguments.name not in self.agents.known():
                options = replace(options, model=options.model or arguments.models[0])
            self.agents.define(arguments.name, options, cell=self.places().cell_id)
            arguments = replace(arguments, options=Options())
        if arguments.dry_run:
            self._plan(prompt, arguments)
            return None
        run = self._run(prompt, arguments, here or arguments.background)
        if arguments.background:
            from .background import start

            start(run, ",".join(arguments.names), self.shell)
            return None
        return run

    def _check(self, arguments: Arguments) -> None:
        name = arguments.bind
        if name is not None and self.agents.held(name):
            raise ErrorConfig(f"--as {name}: the variable holds an Agent, which the Result would replace; choose another name")
        if arguments.n_runs > MOST_COMPARED:
            raise ErrorConfig(f"{arguments.n_runs} runs in one cell are too many to compare; at most {MOST_COMPARED} are run at once")

    def _plan(self, prompt: str, arguments: Arguments) -> None:
        """Shows what would be sent."""
        from .dry_run import Planned, dry_run_table

        chosen = [replace(arguments.options, model=model) for model in arguments.models] or [arguments.options]
        agents = [self.agents.get(name, options) for name in arguments.names for options in chosen]
        display(dry_run_table([Planned(agent, arguments.samples) for agent in agents], prompt))  # type: ignore[no-untyped-call]

    def _run(self, prompt: str, arguments: Arguments, can_click: bool) -> Runnable:
        """One run, or several that are compared."""
        from .approvals import Approver
        from .running import Run

        approver = Approver(self.shell, arguments.approval or self.approval, can_click=can_click)
        if arguments.n_runs == 1:
            options = arguments.options
            if arguments.models:
                options = replace(options, model=arguments.models[0])
            agent = self.agents.get(arguments.name, options, self.places().cell_id)
            from .live import LiveView

            view: Any = LiveView(shell=self.shell, render=self._render_of(arguments))
            asked = self._asked(agent, prompt, arguments, view.telling(approver.for_case(arguments.name, agent.name)))
            run: Runnable = Run(asked, view, partial(self._keep, arguments.bind), self._told(agent, arguments))
        else:
            from .comparison import Comparison
            from .comparison_display import ComparisonView

            compared = self._compared(arguments)
            view = ComparisonView(shell=self.shell, labels=[label for label, *_ in compared], render=self._render_of(arguments))
            approves = self._approving(compared, arguments, approver)
            cases = self._cases(compared, prompt, arguments, lambda index: view.telling(approves[index], index))
            run = Comparison(cases, view, partial(self._keep, arguments.bind), self._told(compared[0][1], arguments))
        self.last, self._last_asked = view, (run, approver)
        return run

    def _approving(self, compared: list[tuple[str, Agent[Any], int]], arguments: Arguments, approver: Approver) -> list[Any]:
        """What decides on the calls of each of them, and says which of them asks."""
        of = f"{arguments.name} " if len(arguments.names) == 1 else ""
        return [approver.for_case(f"{of}{label}", agent.name) for label, agent, _ in compared]

    def _compared(self, arguments: Arguments) -> list[tuple[str, Agent[Any], int]]:
        """What is compared: each agent with each model, so many times; label, agent, and which of its samples, from 1."""
        from agentroute.config import without_password

        compared = []
        for name in arguments.names:
            for model in arguments.models or (None,):
                agent = self.agents.get(name, arguments.options if model is None else replace(arguments.options, model=model))
                asked = [name] if len(arguments.names) > 1 else []
                asked += [without_password(model)] if model is not None and len(arguments.models) > 1 else []
                for sample in range(1, arguments.samples + 1):
                    label = " ".join([*asked, *([f"#{sample}"] if arguments.samples > 1 else [])])
                    compared.append((label, agent, sample))
        return compared

    def _cases(
        self, compared: list[tuple[str, Agent[Any], int]], prompt: str, arguments: Arguments, approving: Callable[[int], Any]
    ) -> list[Case]:
        """The runs of a comparison; `approving` gives what approves of the calls of one of them, by its index."""
        from agentroute.run_spec import new_run_id

        from .comparison import Case
        from .steps import COMPARISON, POSITION

        comparison, cases = new_run_id(), []
        for index, (label, agent, sample) in enumerate(compared):
            tags = {COMPARISON: comparison, POSITION: str(index + 1)}
            events = self._asked(agent, prompt, arguments, approving(index), tags, "" if sample == 1 else str(sample))
            cases.append(Case(label, events))
        return cases

    def _render_of(self, arguments: Arguments) -> str:
        """As configured; a run that outlives the `%%capture` it was begun in would draw what nobody sees."""
        from .panels import is_captured

        return "off" if arguments.background and hasattr(self.shell, "kernel") and is_captured(self.shell) else self.render

    def _asked(
        self, agent: Agent[Any], prompt: str, arguments: Arguments, approve: Any, tags: dict[str, str] | None = None, salt: str = ""
    ) -> _ASKED:
        """What begins the run; one with a salt has another answer than its like."""
        events = partial(
            agent.events,
            prompt,
            record=None if arguments.record else False,
            approve=approve if agent.approve is None else None,
            max_cost=self.max_cost if agent.max_cost is None else None,
            tags=tags,
        )
        return replaying(events, arguments.replay, salt)

    def _told(self, agent: Agent[Any], arguments: Arguments) -> Callable[[Any], str]:
        store = agent.store or default_store()
        return partial(error_text, store=store, magic=True, option=arguments.replay, recorded=arguments.record)

    def _keep(self, bind: str | None, result: Any) -> None:
        """The Result of a run, or the Results of those that were compared."""
        self.shell.push({"_agent": result}, interactive=False)  # type: ignore[no-untyped-call]
        if bind is not None:
            self._bind(bind, result)

    def _define(self, arguments: Arguments, text: str) -> None:
        from .tables import model_text

        given = {
            "as": arguments.bind, "no-record": not arguments.record, "fresh" if arguments.replay == "fresh" else "replay": arguments.replay,
            "dry-run": arguments.dry_run, "background": arguments.background, "models": arguments.models, "samples": arguments.samples > 1, "approval": arguments.approval,
        }  # fmt: skip
        for flag in filter(given.get, given):
            raise ErrorConfig(f"--{flag} needs a run, and --define runs nothing; leave one of them out")
        if len(arguments.names) > 1:
            raise ErrorConfig(f"--define defines one agent, got {','.join(arguments.names)}; define each in a cell of its own")
        agent = self.agents.define(arguments.name, with_instructions(arguments.options, text), cell=self.places().cell_id)
        tools = f", tools {', '.join(agent.tools_map)}" if agent.tools_map else ""
        print(f"{arguments.name} is defined (model {model_text(agent)}{tools}); nothing was run")

    def show_last(self) -> None:
        """Draws the last run of a cell again; while it goes on, it is redrawn there from now on, and can be answered and stopped there."""
        if self.last is None:
            raise ErrorConfig("no run of a cell yet in this kernel; %agent runs lists the run history")
        self.last.show_again()
        if self._last_asked is not None:
            run, approver = self._last_asked
            if background := sys.modules.get("agentroute_ipython.background"):
                background.show_stop_button(run)
            approver.show_again()

    # The shell

    def _names(self) -> dict[str, object]:
        """The notebook's variables, and `_agent`; not what IPython keeps there itself (`In`, `exit`, `_`, `_3`, …)."""
        hidden, missing = self.shell.user_ns_hidden, object()
        return {
            name: value
            for name, value in self.shell.user_ns.items()
            if name == "_agent" or (name.strip("_") and value is not hidden.get(name, missing))
        }

    def _bind(self, name: str, value: object) -> None:
        self.shell.push({name: value})  # type: ignore[no-untyped-call]

    def _show_cell_as_written(self, code_name: str) -> None:
        """Puts the cell as it was written where IPython keeps what it was rewritten to: in `In` and for tracebacks."""
        history = self.shell.history_manager
        if history is None or not history.input_hist_parsed[-1].startswith(AWAITED):
            return
        source = history.input_hist_parsed[-1] = history.input_hist_raw[-1]
        linecache.cache[code_name] = (len(source), None, source.lstrip("\n").splitlines(keepends=True), code_name)


@contextmanager
def _mistakes() -> Iterator[None]:
    """A mistake in the cell is a UsageError, which IPython shows without a traceback; at most three lines."""
    try:
        yield
    except ErrorConfig as error:
        message = "\n".join(str(error).splitlines()[:3])
    else:
        return
    raise UsageError(message)
