"""`%%agent` and `%agent`: parse the cell, find or make the agent, run it, show it. State belongs to one shell's object."""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from IPython.core.display_functions import display
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import TraitError, Unicode, observe, validate

from agentroute.errors import ErrorConfig
from agentroute.store import RunStore, default_store, set_default_store

from .agents import Agents
from .arguments import FILTERS, RESERVED, Arguments, Options, nearest, option_lines, parse
from .interpolation import interpolate
from .place import Places
from .replaying import ReplayMode, error_text, replaying
from .transform import AWAITED, CellTransform

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from agentroute import Agent, Result

    from .running import Run

__all__ = ["AgentMagics"]

HELP = f"""Run an agent on the text of the cell.

    %%agent NAME [options]          the cell below is the prompt
    Where is order 4821?

    %%agent NAME [options]          text above a line --- is the agent's instructions and (re)defines NAME,
    You are a support agent.        text below it is the prompt
    ---
    Where is order 4821?

    %agent NAME [options] PROMPT    a short prompt on one line
    %agent list                     the agents of this notebook
    %agent show NAME                the settings of one
    %agent budget [USD | off]       what the runs of this kernel may spend together
    %agent runs [N] [filters]       the last runs of the run history
    %agent cost [7d] [week] [agent] what the runs of the last 30 days (or 7d, all) cost, by day and model (or week, month, agent)

NAME is a variable that holds an Agent, an agent that an earlier cell defined, or, with --model or a default
model (%config AgentMagics.model = "MODEL"), a new one. Options of an agent that exists already count for this
run only, unless the cell has a --- and so defines it anew: what its first line does not say stays as it was.
A line \\--- stands for a line --- of the text itself.

Options:
{option_lines()}

Filters of %agent runs and %agent cost:
{option_lines(FILTERS)}

{{name}} is filled from the notebook's variables, once; {{{{name}}}} gives a literal {{name}}; other braces stay.
A restarted notebook replays the answers that are paid for, also those of other notebooks that asked the same; a cell
that is run again in the same kernel asks again. (Frontends that do not tell cells apart, such as nbclient, papermill and
consoles, replay the n-th run of a text; --fresh asks in any case.) Equal prompts asked at the same time share one answer.
%config AgentMagics.replay = "on", "off", "only" or "fresh" says otherwise, for the notebook.

`_agent` is the Result of the last %%agent or %agent run, also the partial one of a run that failed or was stopped.

Example:

    %%agent support --model anthropic/claude-sonnet-4 --tools order_status,refund --max-cost 0.25
    You are a concise, accurate support agent.
    ---
    Where is order 4821?
"""

_SEPARATOR = re.compile(r"^---[ \t\r]*$", re.MULTILINE)
_ESCAPED = re.compile(r"^\\(\\*---[ \t\r]*)$", re.MULTILINE)
_HELP = ("help", "--help", "-h")


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
    record_content = Unicode("all", help="all, or metadata: the run history keeps figures only, and no text.").tag(config=True)

    store: RunStore
    """What records the runs of the notebook."""
    has_begun = False
    configured_replay: str | None = None
    """What the configuration file or `%config` says."""

    def __init__(self, shell: InteractiveShell, **options: Any) -> None:
        super().__init__(shell, parent=shell, **options)
        self.transform = CellTransform(shell)
        self.places = Places(shell)
        self._at_end = ExitStack()
        self.store = RunStore(record_content=self.record_content)
        with _mistakes():
            _ = self.replay  # a mistake in the environment is told before anything has changed
        self._agents = Agents(self._names, self._bind, lambda: self.model)

    def begin(self) -> None:
        """From now on every run is recorded; in a kernel it also has its place in the notebook, and is replayed as `replay`
        says. What somebody has set before stays."""
        from agentroute.replays import set_default_replay

        if default_store() is None:
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
        """As if it had not begun."""
        self.has_begun = False
        self._at_end.close()

    def _stop_recording(self) -> None:
        if default_store() is self.store:
            set_default_store(None)
        self.store.close()

    @validate("record_content")
    def _checked(self, proposal: Any) -> str:
        from agentroute.keeping import CONTENTS

        value = proposal["value"]
        if value not in CONTENTS:
            raise TraitError(f"record_content must be one of {', '.join(CONTENTS)}; got {value!r:.80}{nearest(value, CONTENTS)}")
        return str(value)

    @observe("record_content")
    def _record_content_changed(self, change: Any) -> None:
        if self.has_begun:
            before, self.store = self.store, RunStore(record_content=change["new"])
            if default_store() is before:
                set_default_store(self.store)
            before.close()

    @no_var_expand
    @line_cell_magic
    def agent(self, line: str, cell: str | None = None) -> None:
        with _mistakes():
            run = self._prepare(line, cell)
        if run is not None:
            from .running import run_beside

            run_beside(run)

    agent.__doc__ = HELP

    async def agent_here(self, line: str, cell: str | None = None) -> None:
        """What a rewritten cell awaits: as `agent`, on the kernel's own loop."""
        self._show_cell_as_written(sys._getframe(1).f_code.co_filename)
        with _mistakes():
            run = self._prepare(line, cell)
        if run is not None:
            from .running import run_here

            await run_here(run)

    def _prepare(self, line: str, cell: str | None) -> Run | None:
        """The run that the cell asks for, or None when it asked for something that is done by now.

        Raises:
            ErrorConfig: a mistake in the cell; nothing was sent, nothing has changed.
        """
        if (cell is None or line.strip() in _HELP[1:]) and self._word(line):
            return None
        fill = partial(interpolate, names=self._names())
        arguments = parse(line, text_follows=cell is None, fill=fill)
        if not arguments.name:
            raise ErrorConfig(f"which agent? %%agent NAME{self._known()}")
        self._check_bind(arguments.bind)
        text = arguments.text if cell is None else cell
        if arguments.define:
            self._define(arguments, fill(_trimmed(text if cell is None else _unescaped(text))))
            return None
        above, separator, below = map(_unescaped, _halves(text)) if cell is not None else ("", "", text)
        instructions, prompt = fill(_trimmed(above)), fill(_trimmed(below))
        if not prompt.strip():
            where = "after the name" if cell is None else "below the ---" if separator else "below the first line"
            hint = "\nTo define the agent without running it: --define" if separator else ""
            raise ErrorConfig(f"the prompt is empty; write {where} what to ask{hint}")
        if separator:
            agent = self._agents.define(arguments.name, _with_instructions(arguments.options, instructions))
        else:
            agent = self._agents.get(arguments.name, arguments.options)
        return self._run(agent, prompt, arguments)

    def _check_bind(self, name: str | None) -> None:
        if name is not None and self._agents.held(name):
            raise ErrorConfig(f"--as {name}: the variable holds an Agent, which the Result would replace; choose another name")

    def _run(self, agent: Agent[Any], prompt: str, arguments: Arguments) -> Run:
        from .live import LiveView
        from .running import Run

        def keep(result: Result[Any]) -> None:
            self.shell.push({"_agent": result}, interactive=False)  # type: ignore[no-untyped-call]
            if arguments.bind is not None:
                self._bind(arguments.bind, result)

        events = partial(agent.events, prompt, record=None if arguments.record else False)
        told = partial(error_text, store=agent.store or default_store(), magic=True, option=arguments.replay, recorded=arguments.record)
        return Run(replaying(events, arguments.replay), LiveView(shell=self.shell), keep, told)

    def _define(self, arguments: Arguments, text: str) -> None:
        from .tables import model_text

        for flag, given in (("as", arguments.bind), ("no-record", not arguments.record), ("replay", arguments.replay)):
            if given:
                flag = "fresh" if given == "fresh" else flag
                raise ErrorConfig(f"--{flag} needs a run, and --define runs nothing; leave one of them out")
        agent = self._agents.define(arguments.name, _with_instructions(arguments.options, text))
        tools = f", tools {', '.join(agent.tools_map)}" if agent.tools_map else ""
        print(f"{arguments.name} is defined (model {model_text(agent)}{tools}); nothing was run")

    # The words of %agent

    def _word(self, line: str) -> bool:
        """Whether the line was one of the magic's own words, which is done then."""
        word, name = [*line.split(maxsplit=1), "", ""][:2]
        name = name.strip()
        if word and word not in (*RESERVED, *_HELP):
            return False
        if word == "show":
            self._show(name)
        elif word == "budget":
            print(_budget(name))
        elif word in ("runs", "cost"):
            self._recorded(word, name)
        elif name:
            raise ErrorConfig(f"%agent {word} takes nothing more, got {name[:40]!r}; no agent can be called {word}")
        elif word == "list":
            self._list()
        else:
            print(HELP)
        return True

    def _list(self) -> None:
        from .tables import agents_table

        if agents := self._agents.all():
            display(agents_table(agents))  # type: ignore[no-untyped-call]
        else:
            print("no agents yet; %%agent NAME --model MODEL makes one")

    def _show(self, name: str) -> None:
        from .tables import settings_table

        agents = self._agents.all()
        if not name:
            raise ErrorConfig(f"which agent? %agent show NAME{self._known()}")
        if name not in agents:
            raise ErrorConfig(f"no agent called {name}{nearest(name, agents)}{self._known()}")
        agent, where = agents[name]
        if isinstance(agent, ErrorConfig):
            raise agent
        display(settings_table(agent, where))  # type: ignore[no-untyped-call]

    def _recorded(self, word: str, line: str) -> None:
        from .recorded import cost_sheet, runs_sheet

        sheet = (runs_sheet if word == "runs" else cost_sheet)(line, default_store() or self.store)
        if isinstance(sheet, str):
            print(sheet)
        else:
            display(sheet)  # type: ignore[no-untyped-call]

    def _known(self) -> str:
        names = self._agents.known()
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        return f"\nAgents of this notebook: {shown}" if names else "\nThere are no agents yet."

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


def _halves(text: str) -> tuple[str, str, str]:
    """What is above the first line that is `---`, that line, and what is below; all of it is below when there is none."""
    found = _SEPARATOR.search(text)
    return (text[: found.start()], found[0], text[found.end() :]) if found else ("", "", text)


def _unescaped(text: str) -> str:
    """With `\\---` at the start of a line read as `---`."""
    return _ESCAPED.sub(r"\1", text)


def _trimmed(text: str) -> str:
    """Without empty lines at the start and white space at the end; the first line keeps its indentation."""
    lines = text.splitlines(keepends=True)
    while lines and not lines[0].strip():
        lines.pop(0)
    return "".join(lines).rstrip()


def _with_instructions(options: Options, text: str) -> Options:
    if text and options.instructions is not None:
        raise ErrorConfig("the instructions are given twice: as --instructions and as text of the cell; leave one out")
    return Options(instructions=text or None).over(options)


def _budget(amount: str) -> str:
    """Sets (`5.00`) or lifts (`off`) the budget of this kernel, or only says how it stands."""
    from agentroute import set_budget
    from agentroute.budgets import process_budget
    from agentroute.figures import cost_text

    amount = amount.strip().removeprefix("$")
    if amount == "off":
        set_budget(None)
        return "no budget: runs of this notebook may spend what their own max_cost allows"
    if amount:
        try:
            number = float(amount)
        except ValueError:
            number = -1.0
        if not 0 <= number < 10**9:
            raise ErrorConfig(f"%agent budget needs an amount of USD, such as 5.00, or off; got {amount[:40]!r}")
        set_budget(number)
    budget = process_budget()
    if budget is None:
        return "no budget; %agent budget 5.00 lets the runs of this notebook spend $5 together"
    uncertain = f", {cost_text(budget.uncertain)} uncertain" if budget.uncertain else ""
    return f"{cost_text(budget.left)} left of {cost_text(budget.limit)} ({cost_text(budget.spent)} spent{uncertain})"
