"""A line of the magic that is still being written: what stands at the cursor, and what may come there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from .arguments import FILTERS, OPTIONS, RESERVED, Option

__all__ = ["Asked", "asked_for"]

_CALL = re.compile(r"\s*(?:[\w., ()\[\]]+=\s*)?(%%?)agent[ \t]+")
_CONFIG = re.compile(r"\s*%config\s+AgentMagics\.(replay|approval|record|render)\s*=\s*([\"']?)(\w*)\Z")
_WORD = re.compile(r"(?:[^\s\"']|\"[^\"]*(?:\"|$)|'[^']*(?:'|$))+")


@dataclass
class Asked:
    """What is being written."""

    kind: str
    """`agent` (names and, on a line, words), `option`, or the name of an option or filter, for its value; a word of `%agent`."""
    fragment: str
    """What will be replaced: the part of it that stands before the cursor."""
    options: list[Option] = field(default_factory=list)
    """Those that may still be given."""
    taken: frozenset[str] = frozenset()
    """Members of the list that are there already."""
    quotes: tuple[str, str] = ("", "")
    """What is written before and behind it."""


def asked_for(above: list[str], before: str, after: str) -> Asked | None:
    """What is being written between `before` and `after` on a line below those `above`; None where that is IPython's affair:
    no line of the magic, free text, or a Python name inside braces."""
    if (config := _CONFIG.match(before)) and _is_call(above, "%"):
        name, quote, fragment = config.groups()
        behind = quote or "'"
        return Asked(name, fragment, quotes=("" if quote else behind, "" if after.startswith(behind) else behind))
    call = _CALL.match(before)
    if call is None or not _is_call(above, call[1]):
        return None
    return _asked(before[call.end() :], after, is_cell=call[1] == "%%")


def _is_call(above: list[str], sign: str) -> bool:
    """Whether the magic stands where IPython would call it: `%%agent` first in its cell, `%agent` not in the text of one."""
    for line in above:
        head = line.strip()
        if not head or head.startswith("#"):
            continue
        if head.startswith("%%"):
            if re.match(r"%%agent(\s|$)", head):
                return False
        else:
            return sign == "%"
    return True


def _asked(before: str, after: str, *, is_cell: bool) -> Asked | None:
    done, fragment = _words(before)
    if fragment.rfind("{") > fragment.rfind("}"):
        return None
    if not is_cell and done and done[0] in RESERVED:
        return _after_word(done, fragment, _flags(after))
    line = _Line(OPTIONS, is_cell)
    for word in done:
        line.take(word)
    return line.at(fragment, _flags(after))


def _words(text: str) -> tuple[list[str], str]:
    """The words that are done, and the one being written; quotes hold a word together."""
    found = list(_WORD.finditer(text))
    fragment = ""
    if found and found[-1].end() == len(text):
        fragment = found.pop()[0]
    return [word[0].replace('"', "").replace("'", "") for word in found], fragment


def _flags(text: str) -> set[str]:
    return set(re.findall(r"(?<!\S)--?[\w-]+", text))


def _after_word(done: list[str], fragment: str, behind: set[str]) -> Asked | None:
    word = done[0]
    if word not in ("runs", "cost"):
        return Asked(word if len(done) == 1 or word == "diff" else "nothing", fragment, taken=frozenset(done[1:]))
    line = _Line(FILTERS, is_cell=True)
    line.named = word
    for other in done[1:]:
        line.take(other)
    return line.at(fragment, behind)


class _Line:
    """The words of a line as they are taken in, and what may come next."""

    def __init__(self, known: Sequence[Option], is_cell: bool) -> None:
        self._known, self._is_cell = known, is_cell
        self._by_flag = {flag: option for option in known for flag in (option.flag, option.short) if flag}
        self.named = ""
        """The names so far, or the word of `%agent`."""
        self._given: set[str] = set()
        self._waiting: Option | None = None
        """The option whose value comes next."""
        self._listing: tuple[str, str] | None = None
        """What kind of list may go on, and its text so far."""
        self._is_text = False

    def take(self, word: str) -> None:
        if self._waiting is not None:
            self._begin_list(self._waiting, word)
            self._waiting = None
        elif self._listing is not None and not _is_flag(word) and (self._listing[1].endswith(",") or word.startswith(",")):
            self._listing = self._listing[0], self._listing[1] + word
        elif _is_flag(word):
            flag, equals, value = word.partition("=")
            option = self._by_flag.get(flag)
            self._given.add(option.flag if option else flag)
            if option is not None and equals:
                self._begin_list(option, value)
            elif option is not None and option.value:
                self._waiting = option
        elif not self.named:
            self.named = word
            self._listing = ("agent", word) if self._is_cell else None
        else:
            self._is_text = self._known is OPTIONS

    def _begin_list(self, option: Option, value: str) -> None:
        self._listing = (option.name, value) if option.commas else None

    def at(self, fragment: str, behind: set[str]) -> Asked | None:
        if self._is_text:
            return None
        if self._waiting is not None:
            return self._value(self._waiting, fragment, "")
        if self._listing is not None and (self._listing[1].endswith(",") or fragment.startswith(",")):
            return self._member(self._listing[0], fragment, self._listing[1])
        if fragment.startswith("-"):
            flag, equals, value = fragment.partition("=")
            if not equals:
                return Asked("option", fragment, self._left(behind))
            option = self._by_flag.get(flag)
            return self._value(option, value, "") if option is not None and option.value else Asked("nothing", value)
        if not self.named:
            first = "agent" if self._is_cell else "word"
            return self._member("agent", fragment, "") if "," in fragment and self._is_cell else Asked(first, fragment)
        if fragment and not self._is_cell:
            return None  # the prompt has begun
        return Asked(self.named if self._known is FILTERS else "option", fragment, self._left(behind))

    def _value(self, option: Option, fragment: str, before: str) -> Asked | None:
        if option.name == "instructions":
            return None
        fragment = fragment.lstrip("\"'")
        return self._member(option.name, fragment, before) if option.commas else Asked(option.name, fragment)

    @staticmethod
    def _member(kind: str, fragment: str, before: str) -> Asked:
        """The last member of a list."""
        members = (before + fragment).split(",")
        return Asked(kind, fragment.rpartition(",")[2], taken=frozenset(name.strip() for name in members[:-1]))

    def _left(self, behind: set[str]) -> list[Option]:
        given = self._given | {option.flag for flag, option in self._by_flag.items() if flag in behind}
        other = {"--model": "--models", "--models": "--model"}  # of these one only
        ended = {option.flag for option in self._known if option.flag in given and not option.many}
        ended |= {other[flag] for flag in given & other.keys()}
        return [option for option in self._known if option.flag not in ended]


def _is_flag(word: str) -> bool:
    return re.match(r"-{1,2}[^\W\d]", word) is not None
