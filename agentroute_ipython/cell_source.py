"""The text of an `%%agent` cell that sets up an agent: taken apart, changed piece by piece, or written anew.

What is not changed stays letter by letter: comments above, spaces, the prompt, options this knows nothing of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace

from agentroute.errors import ErrorConfig

from .arguments import BY_FLAG, OPTIONS, Arguments, Line, Option, Options, parse
from .cell_text import halves, trimmed, unescaped, with_instructions
from .interpolation import BRACES
from .transform import is_blank

__all__ = ["Cell", "Given", "cell_text"]

SETTINGS = tuple(field.name for field in fields(Options))
"""What an agent is set up with; other options are about a run."""

_MAGIC = re.compile(r"(%%agent(?:[ \t]+|$))(.*)", re.DOTALL)
_WORD = re.compile(r"[^\s'\"-][^\s'\"]*")
_SEPARATOR_LIKE = re.compile(r"^(\\*---[ \t\r]*)$", re.MULTILINE)
_FLAG = re.compile(r"-{1,2}[\w-]+(?:=|\s+)?")


@dataclass(frozen=True)
class Given:
    """One option as it stands on a line, from character `start` up to `end`; `text` is its value, neither filled nor read."""

    option: Option
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Cell:
    """The source of an `%%agent` cell in its parts, which joined are the source again."""

    above: str
    """Comments and empty lines above the magic."""
    magic: str
    """`%%agent` and the space after it."""
    line: str
    """NAME and options, with white space at the end."""
    body: str
    """What is below, from the end of that line on."""

    @classmethod
    def read(cls, source: str) -> Cell | None:
        """None where the cell is no `%%agent` cell, or its magic is indented."""
        above = ""
        for line in source.splitlines(keepends=True):
            if not is_blank(line):
                break
            above += line
        else:
            return None
        head = line.rstrip("\n")
        found = _MAGIC.fullmatch(head)
        return cls(above, found[1], found[2], source[len(above) + len(head) :]) if found else None

    @property
    def source(self) -> str:
        return self.above + self.magic + self.line + self.body

    @property
    def first_line(self) -> str:
        return (self.magic + self.line).rstrip()

    def parsed(self, fill: Callable[[str], str]) -> Arguments:
        """Its line read as the magic reads it.

        Raises:
            ErrorConfig: a mistake in the line.
        """
        return parse(self.line, fill=fill)

    def options(self, fill: Callable[[str], str]) -> Options:
        """What the magic would define the agent by.

        Raises:
            ErrorConfig: a mistake in the cell.
        """
        return with_instructions(self.parsed(fill).options, fill(self._text()))

    @property
    def given(self) -> list[Given]:
        """The options on its line, in their order.

        Raises:
            ErrorConfig: an option that is not known or has no value, a quote that is not closed.
        """
        line = self.line.rstrip()
        words, found = Line(line, BY_FLAG), []
        while words.rest:
            start = len(line) - len(words.rest)
            if words.at_option:
                option, text = words.option()
                found.append(Given(option, text, start, start + len(line[start : len(line) - len(words.rest)].rstrip())))
            else:
                words.word()
        return found

    @property
    def defines(self) -> bool:
        """Whether it (re)defines its agent whenever it is run."""
        return self._has_define or bool(halves(self._inside)[1])

    def values(self) -> dict[str, str]:
        """The settings the cell gives, by attribute of `Options`, as they are written: `{name}` is not filled in."""
        found: dict[str, str] = {}
        for one in self.given:
            attribute = one.option.attribute
            if attribute in SETTINGS:
                found[attribute] = f"{found[attribute]},{one.text}" if one.option.commas and attribute in found else one.text
        if text := self._text():
            found["instructions"] = text
        return found

    def with_changes(self, changes: Mapping[str, str]) -> Cell:
        """A copy that gives these settings instead; an empty text takes one out.

        Raises:
            ErrorConfig: a value that no line can hold; a mistake in the line.
        """
        cell, instructions = self, changes.get("instructions")
        line = {name: text for name, text in changes.items() if name != "instructions"}
        if instructions is not None:
            instructions = trimmed(instructions)
            if "instructions" in {one.option.name for one in self.given}:
                fits = instructions.splitlines() in ([], [instructions])
                line["instructions"] = instructions if fits else ""
                instructions = None if fits else instructions
        cell = replace(cell, line=_changed_line(cell.line, cell.given, line))
        return cell if instructions is None else replace(cell, body=cell._body_with(instructions))

    def only_definition(self) -> Cell:
        """A copy without the prompt and the options of its run: running it defines the agent and sends nothing."""
        text = self._text()
        run_only = {one.option.attribute: "" for one in self.given if one.option.attribute not in (*SETTINGS, "define")}
        line = _changed_line(self.line, self.given, run_only).rstrip() + ("" if self._has_define else " --define")
        return replace(self, line=line, body=f"\n{_escaped(text)}" if text else "")

    @property
    def _has_define(self) -> bool:
        return any(one.option.name == "define" for one in self.given)

    @property
    def _inside(self) -> str:
        return self.body.removeprefix("\n")

    def _text(self) -> str:
        """The instructions as text of the cell, with `\\---` read as `---`."""
        return trimmed(unescaped(self._inside if self._has_define else halves(self._inside)[0]))

    def _body_with(self, instructions: str) -> str:
        text, inside = _escaped(instructions), self._inside
        if self._has_define:
            lead, _, tail = _around(inside)
            new = lead + text + tail if text else ""
        else:
            above, separator, below = halves(inside)
            lead, old, tail = _around(above)
            if separator:
                new = (lead + text + (tail if old else "\n") if text else "") + separator + below
            else:
                new = f"{text}\n---\n{inside}" if text else inside
        return "\n" + new if new or self.body else ""


def cell_text(name: str, options: Options) -> str:
    """An `%%agent` cell that defines an agent by these options and runs nothing; read again it gives the same options.

    White space around instructions of several lines is lost, as in every cell.

    Raises:
        ErrorConfig: a value other than the instructions holds a line break, which no cell can say.
    """
    given = {option.attribute: list(_texts(option, options)) for option in OPTIONS if option.attribute in SETTINGS}
    text = "".join(given.pop("instructions"))
    if text.strip() and trimmed(text) != text and text.splitlines() == [text]:
        given["instructions"], text = [text], ""
    words = [f"{option.flag} {_quoted(option, one)}" for option in OPTIONS for one in given.get(option.attribute, ())]
    body = f"\n{_escaped(trimmed(text))}" if text.strip() else ""
    return f"%%agent {' '.join([name, *words, '--define'])}{body}"


def _texts(option: Option, options: Options) -> Iterator[str]:
    """The values of one option as texts of a cell, where `{name}` is to be filled; what is meant literally is escaped."""
    value = getattr(options, option.attribute)
    if value is None:
        return
    if option.name == "tag":
        yield from (literal(f"{name}={text}") for name, text in value)
    elif option.commas:
        yield ",".join(value)
    elif isinstance(value, tuple):  # a history policy and its size
        yield ":".join(map(str, value))
    else:
        yield literal(repr(value).removesuffix(".0") if isinstance(value, float) else str(value))


def literal(text: str) -> str:
    """With `{name}` written as `{{name}}`, so that the magic gives the text itself."""

    def doubled(match: re.Match[str]) -> str:
        inner = match[1] if match[1] is not None else match[2]
        if not inner.isidentifier():
            return match[0]
        return "{" + match[0] + "}"

    return BRACES.sub(doubled, text)


def _changed_line(line: str, given: list[Given], changes: Mapping[str, str]) -> str:
    """The line with options changed in their place, taken out, or added at its end, before a `--define` that ends it."""
    end = line[len(line.rstrip()) :]
    line = line.rstrip()
    there = {one.option.attribute for one in given}
    added = "".join(
        f" {option.flag} {_quoted(option, changes[option.attribute])}"
        for option in OPTIONS
        if option.attribute not in there and changes.get(option.attribute)
    )
    new, rest, seen = "", 0, set()
    for one in given:
        name, before, old = one.option.attribute, line[rest : one.start], line[one.start : one.end]
        if name == "define" and one.end == len(line):
            before, added = before.rstrip() + added + before[len(before.rstrip()) :], ""
        if name not in changes:
            new += before + old
        elif changes[name] and name not in seen:
            new += before + _changed_option(one.option, old, changes[name])
        else:
            new += before.rstrip()
        seen.add(name)
        rest = one.end
    return new + line[rest:] + added + end


def _changed_option(option: Option, old: str, text: str) -> str:
    """With the flag, and what stands between it and its value, as they were."""
    found = _FLAG.match(old)
    return (found[0] if found is not None else f"{option.flag} ") + _quoted(option, text)


def _quoted(option: Option, text: str) -> str:
    """As one word of a line."""
    if text.splitlines() != [text]:
        raise ErrorConfig(f"{option.flag} cannot hold a line break; put the text into a variable and write its {{name}}")
    if _WORD.fullmatch(text):
        return text
    if '"' not in text or "'" not in text:
        quote = "'" if '"' in text else '"'
        return quote + text + quote
    return '"' + text.replace('"', "\"'\"'\"") + '"'


def _escaped(text: str) -> str:
    """With a line `---` written as `\\---`."""
    return _SEPARATOR_LIKE.sub(r"\\\1", text)


def _around(text: str) -> tuple[str, str, str]:
    """Empty lines before, what `trimmed` leaves, white space after."""
    core = trimmed(text)
    start = len(text) - len(text.lstrip()) if not core else text.index(core)
    return text[:start], core, text[start + len(core) :]
