"""What the form of `%agent edit` shows and offers in its fields, and what is wrong with what was written there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agentroute.config import without_password
from agentroute.errors import ErrorConfig

from .agents import Agents
from .arguments import Options
from .cell_source import Cell, literal
from .formats import one_line
from .interpolation import interpolate
from .looking import BUILTIN_TYPES, description_of, function_of, is_model, is_type, module_of, tool_kind
from .tables import shortened

if TYPE_CHECKING:
    from agentroute import Agent

__all__ = [
    "FIELDS", "Given", "agent_values", "changed_too", "in_words", "model_choices", "nameless_tools", "placeholders", "problems",
    "tool_choices", "type_choices",
]  # fmt: skip

FIELDS = (
    "model", "instructions", "tools", "max_cost", "max_turns", "retries", "temperature", "max_tokens", "output", "memory", "history",
)  # fmt: skip
_UNSET = {
    "model": "such as anthropic/claude-sonnet-4", "max_cost": "no limit", "temperature": "the model’s own",
    "max_tokens": "the model’s own", "output": "text", "memory": "none", "history": "all messages",
}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What a cell's settings are read against."""

    name: str
    names: Mapping[str, object]
    """The notebook's variables."""
    base: Options = Options()
    """What other cells have said."""
    held: Agent[Any] | None = None
    default_model: str | None = None

    def fill(self, text: str) -> str:
        """As the magic fills `{name}`."""
        return interpolate(text, self.names)

    def made(self, options: Options) -> Agent[Any]:
        """The agent that these options would define; nothing is changed by asking.

        Raises:
            ErrorConfig: none can be made by them.
        """
        return Agents(lambda: self.names, lambda name, value: None, lambda: None).define(self.name, options)

    def refused(self, options: Options) -> str | None:
        """Why no agent can be made by these options."""
        try:
            self.made(options)
        except ErrorConfig as error:
            return str(error)
        return None


def changed_too(cell: Cell, given: Given, changes: Collection[str] = ()) -> dict[str, tuple[str, str]]:
    """What else than `changes` is changed in the kernel when its agent is defined by all of this cell: by setting, what holds
    now and what would; nothing where the cell has a mistake."""
    try:
        options = cell.options(given.fill)
        if given.held is None:
            before, after = _all_in_words(given.base), _all_in_words(options.over(given.base))
        else:
            before, after = (agent_values(agent, given.names) for agent in (given.held, given.made(options)))
    except ErrorConfig:
        return {}
    both = {name: (before.get(name, "nothing"), after.get(name, "nothing")) for name in {**before, **after}}
    return {name: pair for name, pair in both.items() if name not in changes and pair[0] != pair[1]}


def _all_in_words(options: Options) -> dict[str, str]:
    return {name: in_words(getattr(options, name)) for name in options.given}


def in_words(value: object) -> str:
    """A value of `Options` for a message: `a, b`, `window:20`, `0.5`."""
    if isinstance(value, tuple):
        parts = ["=".join(one) if isinstance(one, tuple) else str(one) for one in value]
        return (":" if isinstance(value[-1], int) else ", ").join(parts)
    return without_password(_figure(value))


def agent_values(agent: Agent[Any], names: Mapping[str, object]) -> dict[str, str]:
    """The settings of an Agent, as a cell would write them; those no cell can write are left out."""
    found: dict[str, Any] = {name: getattr(agent, name) for name in ("max_cost", "max_turns", "retries", "temperature", "max_tokens")}
    found["model"] = without_password(agent.model) if isinstance(agent.model, str) else _name_of(agent.model, names)
    found["tools"] = ",".join(name for tool in agent.tools if (name := _name_of(tool, names))) or None
    found["output"] = agent.output.__name__ if isinstance(agent.output, type) else _name_of(agent.output, names)
    found["memory"], found["history"] = _name_of(agent.memory, names), _name_of(agent.history, names)
    if isinstance(agent.instructions, str):  # half characters would make a message that cannot be sent
        found["instructions"] = agent.instructions.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return {name: literal(_figure(value)) for name, value in found.items() if value is not None}


def nameless_tools(agent: Agent[Any], names: Mapping[str, object]) -> list[str]:
    """Tools of an Agent that no variable of the notebook holds."""
    return [one_line(tool.name, 60) for tool in agent.tools if _name_of(tool, names) is None]


def placeholders(agent: Agent[Any], values: Mapping[str, str], names: Mapping[str, object]) -> dict[str, str]:
    """What holds where the cell says nothing: what another cell has said, or the default."""
    known = agent_values(agent, names)
    return {name: shortened(known.get(name) or _UNSET.get(name, "")) for name in FIELDS if name not in values and name != "tools"}


def model_choices(names: Mapping[str, object], word: str | None) -> list[tuple[str, str]]:
    """Models to choose from, each with price and context in words: the notebook's own, then those this machine knows of."""
    from agentroute.models.catalogue import models

    own = [(name, "a variable of the notebook") for name, value in names.items() if is_model(value)]
    default = [(word, "the notebook’s default")] if word and one_line(word, 200) == word else []  # it may be a project's, and would be picked unseen
    return [*own, *default, *((entry.id, entry.about) for entry in models())]


def tool_choices(names: Mapping[str, object], chosen: list[str]) -> list[dict[str, str]]:
    """What can be a tool, and what is chosen and cannot: `name`, `about`, `group` (`own`, `imported`, `missing`).

    Own is what the notebook defines, and every Tool; imported are functions of other modules but ours.
    """
    found = []
    for name, value in names.items():
        if not name.startswith("_") or name in chosen:
            group = _group(value)
            if group or name in chosen:
                found.append({"name": name, "about": _about(value), "group": group or "missing"})
    missing = [name for name in chosen if name not in names]
    found += [{"name": name, "about": "not in the notebook any more", "group": "missing"} for name in missing]
    order = ("missing", "own", "imported")
    return sorted(found, key=lambda one: (order.index(one["group"]), one["name"].lower()))


def type_choices(names: Mapping[str, object]) -> list[str]:
    """Types that an answer can have."""
    own = [name for name, value in names.items() if not name.startswith("_") and is_type(value)]
    return [*own, *BUILTIN_TYPES]


def problems(cell: Cell, given: Given) -> dict[str, str]:
    """What is wrong with the settings of a cell, by field, in the words of the magic; under `""` what belongs to no field."""
    found: dict[str, str] = {}
    read: dict[str, Any] = {}
    for one in cell.given:
        name = one.option.attribute
        try:
            text = given.fill(one.text)
            if one.option.value and not text.strip():
                raise ErrorConfig(f"needs a value: {one.option.flag} {one.option.value}")
            read[name] = one.option.read(text)
        except ErrorConfig as error:
            found[name if name in FIELDS else ""] = f"{one.option.flag} {error}"
    for name in ("model", "tools", "output", "memory", "history"):
        if name in read and (refusal := given.refused(Options(**{"model": "some/model", name: read[name]}))):
            found[name] = refusal
    return found or _problem_of_all(cell, given)


def _problem_of_all(cell: Cell, given: Given) -> dict[str, str]:
    """What is wrong with settings that are right one by one."""
    try:
        whole = cell.options(given.fill).over(given.base)
    except ErrorConfig as error:
        return {"": str(error)}
    if given.held is None and not (whole.model or given.default_model):
        return {"model": "needs a model, such as anthropic/claude-sonnet-4, or a default: %config AgentMagics.model = 'MODEL'"}
    refusal = given.refused(replace(whole, model=whole.model or given.default_model))
    return {"": refusal} if refusal else {}


def _group(value: object) -> str:
    kind = tool_kind(value)
    module = module_of(value)
    if kind in ("tool", "list of tools") or module == "__main__":
        return "own"
    return "" if not kind or (module or "").partition(".")[0] in ("agentroute", "agentroute_ipython", "builtins", "") else "imported"


def _about(value: object) -> str:
    """The first line of what a tool says about itself."""
    if tool_kind(value) == "list of tools":
        return f"a list of {len(value)}"  # type: ignore[arg-type]
    return one_line(description_of(value).strip().partition("\n")[0], 100)


def _name_of(value: object, names: Mapping[str, object]) -> str | None:
    """The variable that holds this very object, or the function that it is made of."""
    if value is None:
        return None
    function = function_of(value)
    same = (name for name, held in names.items() if held is value or (function is not None and held is function))
    return next((name for name in same if not name.startswith("_")), None)


def _figure(value: object) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
