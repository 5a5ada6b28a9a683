"""The words of `%agent` itself: `%agent list`, `%agent show support`, `%agent runs 50 --agent support`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from IPython.core.display_functions import display

from agentroute.errors import ErrorConfig
from agentroute.store import default_store

from .arguments import RESERVED, closest, nearest
from .help_text import HELP

if TYPE_CHECKING:
    from .magics import AgentMagics

__all__ = ["check_is_agent", "do_word"]

_HELP = ("help", "--help", "-h")


def do_word(magics: AgentMagics, line: str) -> bool:
    """Whether the line was one of the magic's own words, which is done then.

    Raises:
        ErrorConfig: what follows the word is of no use.
    """
    word, rest = [*line.split(maxsplit=1), "", ""][:2]
    rest = rest.strip()
    if not word or word in _HELP:
        _nothing_more("help", rest)
        print(HELP)
        return True
    if word not in RESERVED:
        return False
    if word not in _WORDS:
        raise ErrorConfig(f"{word} is no agent; the card of the last run: %agent show {word}")
    _WORDS[word](magics, rest)
    return True


def check_is_agent(name: str, agents: Sequence[str]) -> None:
    """Refuses a line whose first word is no agent: it may well be meant for the magic itself, and a request costs money.

    Raises:
        ErrorConfig: it is none; the message says what was meant, as far as one can tell.
    """
    if name in agents:
        return
    if name in _ELSEWHERE:
        raise ErrorConfig(f"no agent called {name}; {_ELSEWHERE[name]}")
    known = f"; did you mean {agent}?" if (agent := closest(name, agents)) else ""
    word = f"; did you mean %agent {meant}?" if not known and (meant := closest(name, RESERVED, 0.75)) else ""
    raise ErrorConfig(f"no agent called {name}{known or word}\nOn one line a new agent needs --model; a cell %%agent {name} makes it with the default model")


def _nothing_more(word: str, rest: str) -> None:
    if rest:
        raise ErrorConfig(f"%agent {word} takes nothing more, got {rest[:40]!r}; no agent can be called {word}")


def _list(magics: AgentMagics, rest: str) -> None:
    from .tables import agents_table

    _nothing_more("list", rest)
    if agents := magics.agents.all():
        display(agents_table(agents))  # type: ignore[no-untyped-call]
    else:
        print("no agents yet; %%agent NAME --model MODEL makes one")


def _show(magics: AgentMagics, name: str) -> None:
    if name == "last":
        magics.show_last()
        return
    from .tables import settings_table

    agents = magics.agents.all()
    if not name:
        raise ErrorConfig(f"which agent? %agent show NAME, or %agent show last for the last run{magics.agents.listed()}")
    if name not in agents:
        raise ErrorConfig(f"no agent called {name}{nearest(name, [*agents, 'last'])}{magics.agents.listed()}")
    agent, where = agents[name]
    if isinstance(agent, ErrorConfig):
        raise agent
    display(settings_table(agent, where, magics.agents.kept(name)))  # type: ignore[no-untyped-call]


def _edit(magics: AgentMagics, name: str) -> None:
    if not name:
        raise ErrorConfig(f"which agent? %agent edit NAME{magics.agents.listed()}")
    from .editing import edit

    edit(name, magics)


def _stop(magics: AgentMagics, name: str) -> None:
    from .background import running, stop

    names = running()
    if name and name not in names:
        going_on = f"; running: {', '.join(names)}" if names else "; nothing runs in the background"
        raise ErrorConfig(f"no run of {name[:40]} in the background{nearest(name, names)}{going_on}")
    stopped = stop(name or None)
    print(f"stopped: {', '.join(stopped)}" if stopped else "nothing runs in the background")


def _diff(magics: AgentMagics, rest: str) -> None:
    from .difference_sheet import diff_sheet
    from .place import notebook_of

    _display(diff_sheet(rest, default_store() or magics.store, notebook_of(magics.shell), magics.shell.user_ns.get("_agent")))


def _doctor(magics: AgentMagics, rest: str) -> None:
    from .doctor import doctor_table

    _display(doctor_table(magics, rest))


def _runs(magics: AgentMagics, rest: str) -> None:
    from .recorded import runs_sheet

    _display(runs_sheet(rest, default_store() or magics.store))


def _cost(magics: AgentMagics, rest: str) -> None:
    from .recorded import cost_sheet

    _display(cost_sheet(rest, default_store() or magics.store))


def _display(shown: object) -> None:
    """A sheet as it is shown, words as they are."""
    if isinstance(shown, str):
        print(shown)
    else:
        display(shown)  # type: ignore[no-untyped-call]


def _budget(magics: AgentMagics, amount: str) -> None:
    """Sets (`5.00`) or lifts (`off`) the budget of this kernel, or only says how it stands."""
    from agentroute.budgets import process_budget
    from agentroute.figures import cost_text

    amount = amount.removeprefix("$")
    if amount == "off":
        magics.budget = None
        print("no budget: runs of this notebook may spend what their own max_cost allows")
        return
    if amount:
        try:
            number = float(amount)
        except ValueError:
            number = -1.0
        if not 0 <= number < 10**9:
            raise ErrorConfig(f"%agent budget needs an amount of USD, such as 5.00, or off; got {amount[:40]!r}")
        magics.budget = number
    budget = process_budget()
    if budget is None:
        print("no budget; %agent budget 5.00 lets the runs of this notebook spend $5 together")
        return
    uncertain = f", {cost_text(budget.uncertain)} uncertain" if budget.uncertain else ""
    print(f"{cost_text(budget.left)} left of {cost_text(budget.limit)} ({cost_text(budget.spent)} spent{uncertain})")


_WORDS: dict[str, Callable[[AgentMagics, str], None]] = {
    "budget": _budget,
    "cost": _cost,
    "diff": _diff,
    "doctor": _doctor,
    "edit": _edit,
    "list": _list,
    "runs": _runs,
    "show": _show,
    "stop": _stop,
}
"""`help` stands beside them, and so does `last`, which comes after `show`."""

_SETTING = "it is a setting: %config AgentMagics.{0} shows it, %config AgentMagics.{0} = … changes it"
_ELSEWHERE = {
    "history": "the table of runs is agentroute_ipython.history(); %agent runs lists the last ones",
    "usage": "what this notebook spends is agentroute_ipython.usage(); %agent cost adds up the history",
    "compare": "a cell %%agent A,B compares two agents, --models A,B two models, -n 3 three answers",
    "tools": "%agent show NAME shows the tools of an agent, and the name of a function its value",
    "models": "Tab after --model lists models; on a line: %agent NAME --models A,B PROMPT compares",
    "delete": "agentroute.forget(run) deletes runs; %reload_ext agentroute_ipython forgets the agents of cells",
    "score": "agentroute.score(run, …) judges a run",
    "login": "keys are kept by `agentroute login` in a terminal",
    **{name: _SETTING.format(name) for name in ("model", "replay", "approval", "max_cost", "record", "render")},
}
"""Words that are not the magic's own, and what was probably meant."""
