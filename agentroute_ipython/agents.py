"""The agents of one notebook: variables that hold one, and those its cells have defined.

What a cell defines is kept as written and made into an Agent anew for every run, so a tool or type whose cell was run
again is the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentroute.errors import ErrorConfig

from .arguments import Options, closest, nearest
from .looking import (
    BUILTIN_TYPES,
    answers_to,
    is_list_of_tools,
    is_memory,
    is_model,
    is_policy,
    is_tool,
    is_type,
    passes,
    tool_kind,
)

if TYPE_CHECKING:
    from agentroute import Agent, MemorySQLite

__all__ = ["Agents", "kind_of"]

_PLAIN = ("instructions", "max_cost", "max_turns", "retries", "temperature", "max_tokens")


class Agents:
    """Finds, makes and remembers agents by name.

    Args:
        names: the notebook's variables, as they are now.
        bind: assigns a variable of the notebook.
        default_model: the model of agents that name none; None or empty when none is configured.
    """

    def __init__(
        self,
        names: Callable[[], Mapping[str, object]],
        bind: Callable[[str, object], None],
        default_model: Callable[[], str | None],
    ) -> None:
        self._names, self._bind, self._default_model = names, bind, default_model
        self._defined: dict[str, Options] = {}
        self._said: dict[str, dict[str, tuple[str, bool]]] = {}  # by agent and setting: the cell that said it, and whether it still does
        self._cells: dict[str, str] = {}  # the cell that defined the agent last
        self._in_ram: dict[str, Any] = {}  # what --memory ram keeps, by agent
        self._in_files: dict[Path, MemorySQLite] = {}

    def define(self, name: str, options: Options, without: Collection[str] = (), cell: str | None = None) -> Agent[Any]:
        """(Re)defines an agent, its memory empty; a variable that holds an Agent is bound to a changed copy of it. What
        the options leave open stays as it was: a limit or a tool is never dropped by not being mentioned, only by being
        named in `without`. `cell` is the id of the cell that says so, None where nobody knows it.

        Raises:
            ErrorConfig: something named in the options is not there or of no use; nothing has changed.
        """
        if (agent := self.held(name)) is not None:
            agent = agent.replace(**self._changes(agent, options, None))
            _check(agent)
            self._bind(name, agent)
        else:
            given, options = options, options.over(replace(self._defined.get(name, Options()), **dict.fromkeys(without)))
            agent = self._make(name, options, None)
            _check(agent)
            self._defined[name] = options
            self._note(name, given, cell)
        if cell is not None:
            self._cells[name] = cell
        self._in_ram[name] = agent.memory if options.memory == "ram" else None
        return agent

    def get(self, name: str, options: Options, cell: str | None = None) -> Agent[Any]:
        """The agent for one run, with these options in place of its own; a name that is new, with a model, defines it (`cell`
        as for `define`).

        Raises:
            ErrorConfig: no such agent and no model to make it with, or something named in the options is not there or
                of no use.
        """
        agent, options = self._find(name, options)
        _check(agent)
        if self.held(name) is None and name not in self._defined:
            self._defined[name] = options
            self._note(name, options, cell)
        if options.memory == "ram":
            self._in_ram[name] = agent.memory
        return agent

    def _find(self, name: str, options: Options) -> tuple[Agent[Any], Options]:
        """The agent with these options, and all options it was made with."""
        in_ram = self._in_ram.get(name)
        if (agent := self.held(name)) is not None:
            if changes := self._changes(agent, options, in_ram):
                agent = agent.replace(**changes)
        else:
            options = options.over(self._defined.get(name, Options()))
            agent = self._make(name, options, in_ram)
        return agent, options

    def known(self) -> list[str]:
        """Names of all agents, sorted."""
        from agentroute import Agent

        held = [name for name, value in self._names().items() if passes(_is(Agent), value) and not name.startswith("_")]
        return sorted({*held, *self._defined})

    def written(self, name: str) -> Options | None:
        """What cells have defined the agent by, all together; None where none has."""
        return self._defined.get(name)

    def cell(self, name: str) -> str | None:
        """The id of the cell that defined the agent last, where it is known."""
        return self._cells.get(name)

    def kept(self, name: str) -> list[str]:
        """Settings that hold, although the cell that said them was run again without: a restarted notebook lacks them."""
        now = self._defined.get(name, Options()) if self.held(name) is None else Options()
        said = self._said.get(name, {})
        return [setting for setting in now.given if not said.get(setting, ("", True))[1]]

    def _note(self, name: str, given: Options, cell: str | None) -> None:
        if cell is None:
            return
        said = self._said.setdefault(name, {})
        said |= {setting: (cell, False) for setting, (by, _) in said.items() if by == cell}
        said |= dict.fromkeys(given.given, (cell, True))

    def listed(self) -> str:
        """A line for a message that says which agents there are."""
        names = self.known()
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        return f"\nAgents of this notebook: {shown}" if names else "\nThere are no agents yet."

    def all(self) -> dict[str, tuple[Agent[Any] | ErrorConfig, str]]:
        """Every agent by name, with what it was defined by; an error in its place says why it cannot be made any more."""
        found: dict[str, tuple[Agent[Any] | ErrorConfig, str]] = {}
        for name in self.known():
            try:
                found[name] = self._find(name, Options())[0], "variable" if self.held(name) is not None else "cell"
            except ErrorConfig as error:
                found[name] = error, "cell"
        return found

    def held(self, name: str) -> Agent[Any] | None:
        """The Agent that a variable of this name holds."""
        from agentroute import Agent

        value = self._names().get(name)
        return value if passes(_is(Agent), value) else None  # type: ignore[return-value]

    def _make(self, name: str, options: Options, in_ram: Any) -> Agent[Any]:
        from agentroute import Agent

        model = options.model or self._default_model()
        if model:
            known = name in self._defined or options.model is not None
            if not known and (meant := closest(name, self.known(), 0.75)):
                raise ErrorConfig(f"no agent called {name}; did you mean {meant}? A new agent of that name needs --model")
            return Agent(name, **self._settings(replace(options, model=model), in_ram))
        how = "--model MODEL, or a default: %config AgentMagics.model = 'MODEL'"
        if name in self._defined:
            raise ErrorConfig(f"agent {name} needs a model: {how}")
        raise ErrorConfig(f"no agent called {name}{nearest(name, self.known())}\nA new one needs {how}")

    def _changes(self, agent: Agent[Any], options: Options, in_ram: Any) -> dict[str, Any]:
        """The arguments for a changed copy of an agent, which keeps its tags of other names."""
        changes = self._settings(options, in_ram)
        return changes | {"tags": {**agent.tags, **changes["tags"]}} if "tags" in changes else changes

    def _settings(self, options: Options, in_ram: Any) -> dict[str, Any]:
        """The arguments of `Agent` that the options stand for; only what was given."""
        names = self._names()
        settings: dict[str, Any] = {key: getattr(options, key) for key in _PLAIN}
        settings["model"] = _model(options.model, names)
        settings["tools"] = _tools(options.tools, names)
        settings["output"] = _output(options.output, names)
        settings["history"] = _history(options.history, names)
        settings["tags"] = dict(options.tag) if options.tag else None
        settings["memory"] = self._memory(options.memory, names, in_ram)
        return {key: value for key, value in settings.items() if value is not None}

    def _memory(self, where: str | None, names: Mapping[str, object], in_ram: Any) -> Any:
        if where is None:
            return None
        if where == "ram":
            from agentroute import Memory

            return Memory() if in_ram is None else in_ram
        value = names.get(where, where)
        if not issubclass(type(value), str | Path):
            if not answers_to("get_messages", value):
                raise ErrorConfig(f"--memory {where}: expected a memory, or the path of a file; it is {kind_of(value)}")
            return value
        if value is where and where.isidentifier():
            memories = [name for name, value in names.items() if is_memory(value)]
            hint = nearest(where, [*memories, "ram"])
            raise ErrorConfig(
                f"no variable called {where} holds a memory{hint}\nFor a file, write an ending or a folder: {where}.db"
            )
        from agentroute import MemorySQLite

        path = Path(str(value)).expanduser().absolute()
        if path not in self._in_files:
            self._in_files[path] = MemorySQLite(path)
        return self._in_files[path]


def _is(kind: type) -> Callable[[object], bool]:
    return lambda value: issubclass(type(value), kind)  # isinstance would ask the object for its __class__


def kind_of(value: object) -> str:
    """`an int`, `a function`: what a value is, for a message."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _check(agent: Agent[Any]) -> None:
    """Finds out before anything is sent, or recorded, that the model is misspelt, or no schema can be made of the output type or
    of a tool."""
    if isinstance(agent.model, str):
        from agentroute.models.catalogue import unknown_model_hint

        if hint := unknown_model_hint(agent.model, base_url=agent.base_url):
            raise ErrorConfig(hint)
    if agent.output not in (None, str):
        from agentroute.output import OutputSpec

        OutputSpec(agent.output, agent.output_mode)
    for tool in agent.tools_map.values():
        _ = tool.params_schema


def _model(word: str | None, names: Mapping[str, object]) -> Any:
    """The Model or the text that a variable of this name holds, else the word itself, unless it seems to be misspelt."""
    if word is None:
        return None
    if word in names:
        value = names[word]
        if not answers_to("complete_stream", value) and not (issubclass(type(value), str) and str(value).strip()):
            what = "an empty text" if issubclass(type(value), str) else kind_of(value)
            raise ErrorConfig(f"--model {word}: expected a Model, or a text that names one; the variable holds {what}")
        return value
    if word.isidentifier():  # names of models that are none are rare: of an endpoint of one's own, such as o3
        models = [name for name, value in names.items() if is_model(value) or _names_model(value)]
        if meant := closest(word, models, 0.9 if any(map(str.isdigit, word)) else 0.6):
            raise ErrorConfig(f"no variable called {word} holds a Model; did you mean {meant}?")
    return word


def _names_model(value: object) -> bool:
    """Whether it is a text such as a URL or `vendor/model`."""
    return type(value) is str and "/" in value and not any(map(str.isspace, value)) and len(value) < 300


def _tools(words: Iterable[str] | None, names: Mapping[str, object]) -> list[Any] | None:
    if words is None:
        return None
    tools: list[Any] = []
    for word in words:
        if word not in names:
            known = [name for name, value in names.items() if tool_kind(value)]
            raise ErrorConfig(f"no function or Tool called {word} in the notebook{nearest(word, known)}")
        value = names[word]
        if not is_tool(value) and not is_list_of_tools(value):
            raise ErrorConfig(f"--tools {word}: expected a function, a Tool or a list of them; it is {kind_of(value)}")
        tools += [one for one in (value if isinstance(value, list | tuple) else [value]) if not any(one is t for t in tools)]
    return tools


def _output(word: str | None, names: Mapping[str, object]) -> Any:
    if word is None:
        return None
    if word not in names and word not in BUILTIN_TYPES:
        known = [name for name, value in names.items() if is_type(value)]
        raise ErrorConfig(f"no type called {word} in the notebook{nearest(word, [*known, *BUILTIN_TYPES])}")
    value = names.get(word, BUILTIN_TYPES.get(word))
    if not is_type(value):
        raise ErrorConfig(f"--output {word}: expected a type; it is {kind_of(value)}")
    return value


def _history(policy: tuple[str, int] | str | None, names: Mapping[str, object]) -> Any:
    if policy is None:
        return None
    if isinstance(policy, str):
        if policy not in names:
            known = [name for name, value in names.items() if is_policy(value)]
            raise ErrorConfig(f"no history policy called {policy} in the notebook{nearest(policy, known)}; window:20 makes one")
        if not answers_to("compact", names[policy]):
            raise ErrorConfig(f"--history {policy}: expected a history policy; it is {kind_of(names[policy])}")
        return names[policy]
    from agentroute import HistorySlidingWindow, HistoryTruncate

    kind, size = policy
    return HistorySlidingWindow(window_size=size) if kind == "window" else HistoryTruncate(max_tokens=size)
