"""The first line of an `%%agent` cell, or an `%agent` line, as a small frozen dataclass. Knows no shell.

`OPTIONS` declares every option once: the parser, the help text and the tables in the docs read it.
"""

from __future__ import annotations

import keyword
import math
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from agentroute.errors import ErrorConfig

from .modes import APPROVALS

__all__ = [
    "BY_FLAG", "FILTERS", "OPTIONS", "RESERVED", "Arguments", "Line", "Option", "Options", "closest", "nearest", "option_lines", "parse",
    "parse_filters",
]  # fmt: skip

RESERVED = ("budget", "cost", "diff", "doctor", "edit", "help", "last", "list", "runs", "show", "stop")
"""Words of `%agent` itself; no agent can be called so."""

_LOOKS_LIKE_OPTION = re.compile(r"-{1,2}[^\W\d]")
_AGENT_NAME = re.compile(r"[^\W\d][\w.-]*")


@dataclass(frozen=True)
class Option:
    """One option. `value` names its value in the help; empty for a switch. `read` turns text into the value."""

    name: str
    value: str
    about: str
    read: Callable[[str], Any]
    short: str = ""
    many: bool = False
    """May be given several times."""
    commas: bool = False
    """Its value is a list, written with commas, with or without spaces."""

    @property
    def flag(self) -> str:
        return "--" + self.name

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class Options:
    """How an agent is set up, as written. None is not given."""

    model: str | None = None
    tools: tuple[str, ...] | None = None
    output: str | None = None
    instructions: str | None = None
    max_cost: float | None = None
    max_turns: int | None = None
    retries: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    memory: str | None = None
    history: tuple[str, int] | str | None = None
    tag: tuple[tuple[str, str], ...] | None = None

    @property
    def given(self) -> list[str]:
        """The names of those that are given."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def over(self, base: Options) -> Options:
        """`base` with what is given here put in its place; tags of another name stay."""
        given = {name: getattr(self, name) for name in self.given}
        if self.tag and base.tag:
            given["tag"] = tuple({**dict(base.tag), **dict(self.tag)}.items())
        return replace(base, **given)


@dataclass(frozen=True)
class Arguments:
    """A parsed line. `names` is empty when none was given; `text` is what follows NAME on an `%agent` line, unchanged."""

    names: tuple[str, ...] = ()
    options: Options = Options()
    bind: str | None = None
    define: bool = False
    dry_run: bool = False
    background: bool = False
    models: tuple[str, ...] = ()
    """The models that are compared; empty where each agent is asked with its own."""
    samples: int = 1
    """How often each is asked."""
    approval: str | None = None
    """Who approves of calls in this run; None is as the notebook does."""
    record: bool = True
    replay: str | None = None
    """How this run is replayed, `fresh` also where `--fresh` was written; None is as the notebook does."""
    text: str = ""

    @property
    def name(self) -> str:
        """The first name; empty when none was given."""
        return self.names[0] if self.names else ""

    @property
    def n_runs(self) -> int:
        return len(self.names) * max(len(self.models), 1) * self.samples


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean X?` with the word most like `word`, or nothing when none is."""
    found = closest(word, words)
    return f"; did you mean {found}?" if found else ""


def closest(word: str, words: Iterable[str], likeness: float = 0.6) -> str | None:
    """The word most like `word`, or None when none is; `likeness` from 0 (none) to 1 (the same)."""
    import difflib

    return next(iter(difflib.get_close_matches(word, list(words), 1, likeness)), None)


def _cut(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _whole(low: int, example: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if re.fullmatch(r"[+-]?[0-9]{1,18}", text) is None or int(text) < low:
            raise ErrorConfig(f"needs a whole number from {low}, such as {example}; got {_cut(text)}")
        return int(text)

    return read


def _amount(example: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0:
            raise ErrorConfig(f"needs a number from 0, such as {example}; got {_cut(text)}")
        return number

    return read


def _text(text: str) -> str:
    return text


def _variable(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise ErrorConfig(f"needs the name of a variable, such as answer; got {_cut(text)}")
    return text


def _names(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ErrorConfig(f"needs names from the notebook, such as order_status,refund; got {_cut(name)}")
    if not names:
        raise ErrorConfig("needs names from the notebook, such as order_status,refund; got none")
    return tuple(dict.fromkeys(names))


def _model_list(text: str) -> tuple[str, ...]:
    models = tuple(name.strip() for name in text.split(",") if name.strip())
    if not models:
        raise ErrorConfig("needs models, such as openai/gpt-4.1,anthropic/claude-sonnet-4; got none")
    return _different(models)


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    """What is compared; the same one twice is surely a slip."""
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise ErrorConfig(f"names {_cut(twice)} twice; to ask it twice: -n 2")
    return names


def _tag(text: str) -> tuple[tuple[str, str], ...]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise ErrorConfig(f"needs NAME=VALUE, such as tenant=a; got {_cut(text)}")
    return ((name.strip(), value.strip()),)


def _one_of(modes: Sequence[str], text: str) -> str:
    if text not in modes:
        raise ErrorConfig(f"needs {', '.join(modes[:-1])} or {modes[-1]}; got {_cut(text)}{nearest(text, modes)}")
    return text


def _replay_mode(text: str) -> str:
    from agentroute.replays import MODES

    return _one_of(MODES, text)


def _approval(text: str) -> str:
    return _one_of(APPROVALS, text)


_HISTORIES = ("window", "truncate")


def _history(text: str) -> tuple[str, int] | str:
    kind, colon, size = text.partition(":")
    if not colon and text.isidentifier() and kind not in _HISTORIES:
        return text  # a variable's name
    if kind not in _HISTORIES or not re.fullmatch(r"[0-9]{1,18}", size) or int(size) < 1:
        hint = nearest(kind, _HISTORIES) if kind not in _HISTORIES else ""
        raise ErrorConfig(f"needs window:N (messages), truncate:N (tokens) or a variable that holds a policy, such as window:20; got {_cut(text)}{hint}")
    return kind, int(size)


OPTIONS = (
    Option("model", "MODEL", "which model answers: anthropic/claude-sonnet-4, ollama/NAME, a URL, or a variable that holds a Model", _text, "-m"),
    Option("tools", "A,B", "functions or Tools of the notebook, or variables that hold lists of them", _names, "-t", many=True, commas=True),
    Option("output", "TYPE", "a type of the notebook, or str, int, float, bool: the Result's output is a value of it", _variable, "-o"),
    Option("instructions", "TEXT", "the agent's instructions; {name} takes them from a variable", _text, "-i"),
    Option("max-cost", "USD", "most that one run may spend", _amount(0.25)),
    Option("max-turns", "N", "most model calls in one run", _whole(1, 10)),
    Option("retries", "N", "how often the model may correct an answer or a tool call", _whole(0, 2)),
    Option("temperature", "T", "0 for steady answers, higher for varied ones", _amount(0.2)),
    Option("max-tokens", "N", "most tokens in one answer of the model", _whole(1, 1000)),
    Option("memory", "WHERE", "keep the conversation between cells: ram, the path of a file, or a variable that holds a memory", _text),
    Option("history", "POLICY", "which earlier messages are sent: window:N messages, truncate:N tokens, or a variable that holds a policy", _history),
    Option("models", "A,B", "ask each of these models and compare the answers", _model_list, many=True, commas=True),
    Option("samples", "N", "ask N times and compare the answers", _whole(1, 3), "-n"),
    Option("dry-run", "", "show the first request and about what it would cost; nothing is sent", _text),
    Option("background", "", "run on while other cells run; %agent stop NAME ends it, %agent show last shows it", _text),
    Option("approval", "MODE", "who approves of calls of tools that need it: auto, button, input, deny or allow", _approval),
    Option("tag", "NAME=VALUE", "a column of the run history, tag_NAME, such as tenant=a; may be given several times", _tag, many=True),
    Option("fresh", "", "ask again also where the answer is paid for already; the new one is replayed from then on", _text),
    Option("replay", "MODE", "on, off, fresh, or only: an answer that is not paid for yet is an error, and nothing is sent", _replay_mode),
    Option("no-record", "", "keep nothing of this run in the run history", _text),
    Option("as", "NAME", "bind the Result to this variable, also the partial one of a run that failed", _variable),
    Option("define", "", "the text is the instructions; define the agent and run nothing", _text),
)  # fmt: skip

FILTERS = (
    Option("since", "WHEN", "runs begun since then: 7d, 24h, 2026-11-01", _text),
    Option("until", "WHEN", "runs begun before then", _text),
    Option("agent", "NAME", "runs of this agent", _text),
    Option("model", "MODEL", "runs of this model", _text),
    Option("status", "STATUS", "ok, error or interrupted", _text),
    Option("tag", "NAME=VALUE", "runs with this tag; NAME alone: with any value; may be given several times", lambda text: (text,), many=True),
    Option("notebook", "PATH", "runs of this notebook, as agentroute.runs() names it", _text),
    Option("text", "TEXT", "runs whose prompt or answer holds this, in capitals or not", _text),
)  # fmt: skip
"""Which runs `%agent runs` and `%agent cost` are about; as the arguments of `agentroute.runs()`."""

BY_FLAG = {option.flag: option for option in OPTIONS} | {option.short: option for option in OPTIONS if option.short}


def option_lines(options: Sequence[Option] = OPTIONS, indent: str = "    ") -> str:
    """Options as help text, one to a line."""
    heads = [", ".join(filter(None, (option.short, option.flag))) + f" {option.value}".rstrip() for option in options]
    width = max(map(len, heads)) + 2
    return "\n".join(indent + head.ljust(width) + option.about for head, option in zip(heads, options, strict=True))


class Line:
    """What is left of a line, read word by word; quotes hold a word together, a backslash is a backslash."""

    def __init__(self, line: str, known: Mapping[str, Option]) -> None:
        self.rest = line.strip()
        self._known = known

    def word(self) -> str:
        lexer = shlex.shlex(self.rest, posix=True)
        lexer.whitespace_split = True
        lexer.commenters = lexer.escape = ""
        try:
            word = lexer.get_token() or ""
        except ValueError:
            raise ErrorConfig(f"a quote is not closed in {_cut(self.rest)}") from None
        self.rest = self.rest[lexer.instream.tell() :].lstrip()  # type: ignore[attr-defined]
        return word

    @property
    def at_option(self) -> bool:
        return _LOOKS_LIKE_OPTION.match(self.rest) is not None

    def option(self) -> tuple[Option, str]:
        """The option that comes next and its value as text; a list is read over spaces around its commas."""
        flag, equals, value = self.word().partition("=")
        option = self._known.get(flag)
        if option is None:
            raise ErrorConfig(f"unknown option {_cut(flag)[1:-1]}{nearest(flag, self._known)}\nAll options: %agent help")
        if not option.value:
            if equals:
                raise ErrorConfig(f"{option.flag} takes no value; got {_cut(value)}")
            return option, ""
        if not equals:
            if not self.rest or self.at_option:
                raise ErrorConfig(f"{option.flag} needs a value: {option.flag} {option.value}")
            value = self.word()
        return option, self.list(value) if option.commas else value

    def list(self, begun: str | None = None) -> str:
        """The words of a list, or what of it comes after `begun`, over the spaces around its commas."""
        value = self.word() if begun is None else begun
        while self.rest and not self.at_option and (value.endswith(",") or self.rest.startswith(",")):
            value += self.word()
        return value


def parse(line: str, *, text_follows: bool = False, fill: Callable[[str], str] = _text) -> Arguments:
    """The arguments written on `line`, without the magic's own name.

    With `text_follows` (`%agent NAME short prompt`) options come before the text, and the text is taken as it stands.
    `fill` is applied to NAME and to each option's value, once.

    Raises:
        ErrorConfig: a mistake; the message has at most two lines and the nearest right word.
    """
    words, text = Line(line, BY_FLAG), ""
    names: tuple[str, ...] = ()
    found: dict[str, Any] = {}
    while words.rest:
        if words.at_option:
            option, value = words.option()
            found[option.attribute] = _read(option, fill(value), found.get(option.attribute))
        elif not names:
            names = _agent_names(fill(words.list() if not text_follows else words.word()))
        elif not text_follows:
            raise ErrorConfig(f"unexpected {_cut(words.rest)} after the name {','.join(names)}; the prompt goes below this line")
        else:
            text = _free_text(words)
            break
    bind, define, record = found.pop("as", None), "define" in found, "no_record" not in found
    if "fresh" in found and "replay" in found:
        raise ErrorConfig("--fresh and --replay both say how to replay; leave one of them out")
    replay = "fresh" if "fresh" in found else found.get("replay")
    if replay == "fresh" and not record:
        given = "--fresh" if "fresh" in found else "--replay fresh"
        raise ErrorConfig(
            f"{given} keeps the new answer, and --no-record keeps nothing; leave one of them out (--replay off asks, too)"
        )
    if "model" in found and "models" in found:
        raise ErrorConfig("--model and --models both say which model answers; leave one of them out")
    plain = {name: found[name] for name in ("models", "samples", "approval") if name in found}
    options = Options(**{name: value for name, value in found.items() if name in Options.__dataclass_fields__})
    return Arguments(
        names, options, bind, define, "dry_run" in found, background="background" in found, record=record, replay=replay, text=text, **plain
    )


def parse_filters(line: str) -> tuple[list[str], dict[str, Any]]:
    """The bare words of an `%agent runs` or `%agent cost` line, and its filters by name.

    Raises:
        ErrorConfig: as `parse`.
    """
    words, bare = Line(line, {option.flag: option for option in FILTERS}), []
    found: dict[str, Any] = {}
    while words.rest:
        if words.at_option:
            option, value = words.option()
            found[option.attribute] = _read(option, value, found.get(option.attribute))
        else:
            bare.append(words.word())
    return bare, found


def _read(option: Option, text: str, before: Any) -> Any:
    if before is not None and not option.many:
        raise ErrorConfig(f"{option.flag} is given twice")
    if option.value and not text.strip():
        raise ErrorConfig(f"{option.flag} needs a value: {option.flag} {option.value}")
    try:
        value = option.read(text)
    except ErrorConfig as error:
        raise ErrorConfig(f"{option.flag} {error}") from None
    return value if before is None else tuple(dict.fromkeys((*before, *value)))


def _agent_names(words: str) -> tuple[str, ...]:
    names = [word.strip() for word in words.split(",")]
    if len(names) > 1 and not all(names):
        raise ErrorConfig(f"needs names with a comma between each two, such as support,critic; got {_cut(words)}")
    return _different(tuple(map(_agent_name, names)))


def _agent_name(word: str) -> str:
    if word in RESERVED:
        raise ErrorConfig(f"{word} is a word of %agent, so no agent can be called {word}; choose another name")
    if _AGENT_NAME.fullmatch(word) is None:
        rule = "letters, digits, _ . and -, a letter or _ first"
        raise ErrorConfig(f"{_cut(word)} cannot be the name of an agent; a name is made of {rule}, such as support")
    return word


def _free_text(words: Line) -> str:
    """The rest of the line. An option in it was surely meant as one, so it is refused unless `--` comes before."""
    if words.rest == "--" or words.rest.startswith("-- "):
        return words.rest[2:].strip()
    for word in words.rest.split():
        if word.partition("=")[0] in BY_FLAG:
            raise ErrorConfig(
                f"{word} comes after the prompt; put options before it\n(a prompt that holds {word}: write -- before it)"
            )
    return words.rest
