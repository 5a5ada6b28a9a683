"""What Tab offers for each thing that can be written, with a word on it. Looks at variables without running any code of theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from .arguments import RESERVED, Option
from .formats import one_line
from .looking import BUILTIN_TYPES, is_memory, is_model, is_policy, is_type, module_of, tool_kind
from .modes import APPROVALS, RECORDS, RENDERS

if TYPE_CHECKING:
    from .half_written import Asked
    from .magics import AgentMagics

__all__ = ["offers"]

Offer = tuple[str, str]
"""What is written, and what is said beside it."""

MOST = 400
"""Models; where more would match, the vendors are offered first (IPython cuts a list at 500)."""

LAST_RUNS = 10
"""Run ids that are offered."""

_WORDS = {
    "budget": "what may be spent together",
    "cost": "what the runs cost",
    "diff": "what changed between two runs",
    "doctor": "what works here and what does not",
    "edit": "a form for an agent",
    "help": "how all this is written",
    "list": "the agents of this notebook",
    "runs": "the last runs",
    "show": "the settings of an agent, or the last run",
    "stop": "ends runs in the background",
}
_HISTORIES = [("window:", "the last N messages, such as window:20"), ("truncate:", "at most N tokens, such as truncate:4000")]
_APPROVALS = (
    "buttons where they work, else a question",
    "a button",
    "a question at the prompt",
    "nobody is asked: no",
    "nobody is asked: yes",
)
_RECORDS = ("texts and figures", "figures, and no text", "nothing")
_RENDERS = ("html in a notebook, text in a terminal", "html", "text", "nothing is drawn")
_REPLAYS = {
    "on": "an answer that is paid for is not asked for again",
    "off": "every request is sent",
    "only": "no request is sent",
    "fresh": "every request is sent, its answer kept",
}
_NAMES_A_MODEL = re.compile(r"local/|ollama/|https?://\S+\Z|[a-z0-9~][a-z0-9._-]*/[a-z0-9][a-z0-9._:-]{0,80}\Z")
"""Also ids that no list has yet. They have no capitals, as keys and most other texts with a slash do."""


def offers(asked: Asked, magics: AgentMagics) -> list[Offer]:
    """What may be written in the place of the fragment: what begins with it, else what contains it."""
    make = _MAKERS.get(asked.kind)
    if make is None:
        return []
    found = [offer for offer in make(asked, magics) if offer[0] not in asked.taken]
    fragment = asked.fragment.lower()
    if not fragment.startswith("_"):
        found = [offer for offer in found if not offer[0].startswith("_")]
    matching = [offer for offer in found if offer[0].lower().startswith(fragment)] or [
        offer for offer in found if fragment in offer[0].lower()
    ]
    return _by_vendor(matching, fragment) if asked.kind in ("model", "models") and len(matching) > MOST else matching


def _by_vendor(matching: list[Offer], fragment: str) -> list[Offer]:
    counts: dict[str, int] = {}
    others = []
    for name, about in matching:
        vendor, slash, _ = name.partition("/")
        if slash and about and len(vendor) + 1 > len(fragment):
            counts[f"{vendor}/"] = counts.get(f"{vendor}/", 0) + 1
        else:
            others.append((name, about))
    return [*others[:MOST], *((vendor, f"{count} models") for vendor, count in counts.items() if vendor not in dict(others))]


# ---- makers -----------------------------------------------------------------------------------------------------------


def _agents(asked: Asked, magics: AgentMagics) -> list[Offer]:
    return [(name, "agent") for name in magics.agents.known()]


def _agents_and_words(asked: Asked, magics: AgentMagics) -> list[Offer]:
    return [*_agents(asked, magics), *((word, _WORDS[word]) for word in RESERVED if word in _WORDS)]


def _shown(asked: Asked, magics: AgentMagics) -> list[Offer]:
    return [("last", "the card of the last run, drawn again"), *_agents(asked, magics)]


def _running(asked: Asked, magics: AgentMagics) -> list[Offer]:
    from .background import running

    return [(name, "runs in the background") for name in running()]


def _recorded(asked: Asked, magics: AgentMagics) -> list[Offer]:
    """The last runs of this notebook that no tool has begun, the newest first."""
    from agentroute.records import RunRecord
    from agentroute.selection import Selection
    from agentroute.store import default_store

    from .place import notebook_of

    if len(asked.taken) > 1:
        return []
    notebook = notebook_of(magics.shell)
    where = Selection(notebook=(notebook,) if notebook else None, limit=10 * LAST_RUNS)
    columns = ["run_id", "parent_run_id", "notebook", "agent_name", "prompt_text"]
    rows = (default_store() or magics.store).select(RunRecord, where=where, columns=columns)
    runs = [(run_id, agent, prompt) for run_id, parent, place, agent, prompt in rows if parent is None and place == notebook]
    return [(run_id, one_line(f"{agent}: {prompt or ''}", 60)) for run_id, agent, prompt in sorted(runs, reverse=True)[:LAST_RUNS]]


def _options(asked: Asked, magics: AgentMagics) -> list[Offer]:
    short = [(option.short, _short(option)) for option in asked.options if option.short and asked.fragment == option.short]
    return [*short, *((option.flag, _short(option)) for option in asked.options)]


def _short(option: Option) -> str:
    about = re.split(r"[:;,(]", option.about)[0].strip()
    return f"{option.value}  {about}".strip() if len(about) <= 60 else f"{option.value}  {about[:59]}…".strip()


def _cost_words(asked: Asked, magics: AgentMagics) -> list[Offer]:
    from .recorded import THINGS, TIMES

    by = [(word, f"by {word}") for word in (*TIMES, *THINGS)]
    return [("7d", "the last seven days"), ("all", "ever"), *by, *_options(asked, magics)]


def _models(asked: Asked, magics: AgentMagics) -> Iterator[Offer]:
    from agentroute.config import without_password
    from agentroute.models.catalogue import catalogue
    from agentroute.models.weights import CATALOGUE

    known = catalogue().entries
    ids = {entry.id for entry in known}
    for name, value in magics._names().items():
        if is_model(value):
            yield name, "a Model of the notebook"
        elif type(value) is str and (value in ids or _NAMES_A_MODEL.match(value)):
            yield name, one_line(without_password(value), 100)
    for weights in CATALOGUE.values():
        yield f"local/{weights.name}", "free, on this machine" if weights.here else f"free; agentroute local pull {weights.name}"
    yield "ollama/", "free; a model of Ollama"
    for entry in known:
        yield entry.id, entry.about or "price unknown"


def _tools(asked: Asked, magics: AgentMagics) -> list[Offer]:
    return _own_first(magics._names(), tool_kind)


def _types(asked: Asked, magics: AgentMagics) -> list[Offer]:
    return [*_own_first(magics._names(), lambda value: "type" if is_type(value) else ""), *((name, "type") for name in BUILTIN_TYPES)]


def _own_first(names: Mapping[str, object], kind_of: Callable[[object], str]) -> list[Offer]:
    """Those of the notebook itself, then what it has imported."""
    found = [(name, kind, value) for name, value in names.items() if (kind := kind_of(value))]
    imported = [offer for *offer, value in found if module_of(value) not in ("__main__", None)]
    own = [offer for *offer, value in found if module_of(value) in ("__main__", None)]
    return [(name, kind) for name, kind in (*sorted(own), *sorted(imported))]


def _memories(asked: Asked, magics: AgentMagics) -> list[Offer]:
    held = [(name, "a memory of the notebook") for name, value in magics._names().items() if is_memory(value)]
    return [("ram", "until the kernel ends"), *sorted(held)]


def _histories(asked: Asked, magics: AgentMagics) -> list[Offer]:
    held = [(name, "a policy of the notebook") for name, value in magics._names().items() if is_policy(value)]
    return [*_HISTORIES, *sorted(held)]


def _tags(asked: Asked, magics: AgentMagics) -> list[Offer]:
    """Those of the agents that cells have defined."""
    defined = (magics.agents.written(name) for name in magics.agents.known())
    pairs = [f"{name}={value}" for options in defined if options for name, value in options.tag or ()]
    return [(pair, "tag") for pair in pairs if one_line(pair, 200) == pair]


def _replays(asked: Asked, magics: AgentMagics) -> Iterable[Offer]:
    return _REPLAYS.items()


_MAKERS: dict[str, Callable[[Asked, AgentMagics], Iterable[Offer]]] = {
    "agent": _agents,
    "word": _agents_and_words,
    "show": _shown,
    "edit": _agents,
    "diff": _recorded,
    "stop": _running,
    "budget": lambda asked, magics: [("off", "no budget")],
    "doctor": lambda asked, magics: [("--offline", "ask no endpoint")],
    "runs": _options,
    "cost": _cost_words,
    "option": _options,
    "model": _models,
    "models": _models,
    "tools": _tools,
    "output": _types,
    "memory": _memories,
    "history": _histories,
    "tag": _tags,
    "replay": _replays,
    "approval": lambda asked, magics: zip(APPROVALS, _APPROVALS, strict=True),
    "record": lambda asked, magics: zip(RECORDS, _RECORDS, strict=True),
    "render": lambda asked, magics: zip(RENDERS, _RENDERS, strict=True),
    "status": lambda asked, magics: [("ok", "status"), ("error", "status"), ("interrupted", "status")],
}
