"""Finding facts by the words of a question; the same for every memory.

A fact is found when it has one of the query's words, or a longer word that begins with it (from three letters on), or
its singular or stem (up to two letters shorter), or its British or American spelling. Rare and long words count more than
common and short ones, so "what is my …" does no harm. A query of which no word is
found is looked for letter by letter. Nothing in a query is an operator or a wildcard.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from math import log
from os.path import commonprefix
from typing import NamedTuple

__all__ = ["Fact", "Wanted", "fold", "query_words", "ranked", "words"]

MIN_PREFIX = 3
MIN_STEM = 4
MAX_WORDS = 64
"""Of a longer query the rest is not looked at; a page of text pasted as a query still finds something."""

_OUR, _OR = re.compile("(?<=..)our"), re.compile("(?<=..)or")  # favourite, favorite; but not four, for
_ACCENTS = re.compile("[\u0300-\u036f]")
# Scripts written without spaces (and Hangul, whose particles cling to words) are indexed in pairs of characters.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]+"
)


def fold(text: str) -> str:
    """Text for comparing: no case, no accents, no difference between wide and narrow characters."""
    if text.isascii():
        return text.lower()
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFKC", plain).casefold()


def words(text: str) -> list[str]:
    """The folded words of a text, in order; runs without spaces as all their characters and pairs of them."""
    found: list[str] = []
    for word in _split(fold(text)):
        for unspaced, part in _parts(word):
            found += [*part, *_pairs(part)] if unspaced else [part]
    return found


def query_words(query: str) -> list[str]:
    """The words to look for, each once; runs without spaces as pairs."""
    found: dict[str, None] = {}
    for word in _split(fold(query)):
        for unspaced, part in _parts(word):
            found |= dict.fromkeys((_pairs(part) or [part]) if unspaced else [part])
    return list(found)[:MAX_WORDS]


class Wanted(NamedTuple):
    """What a word of a query is looked for as."""

    word: str
    beginnings: tuple[str, ...]
    """Found whole, and where a longer word begins with one."""
    whole: tuple[str, ...]
    """Found whole only."""
    start: str
    """What all of them begin with: most facts have it not, and need no further look."""

    @classmethod
    def of(cls, word: str) -> Wanted:
        if len(word) < MIN_PREFIX:
            return cls(word, (), (word,), word)
        if _UNSPACED.match(word) or not word.isalpha():
            return cls(word, (word,), (), word)
        forms = {word: None, _OUR.sub("or", word): None}
        if len(forms) == 1:
            forms[_OR.sub("our", word)] = None
        stems: dict[str, None] = {}
        for form in forms:
            if form.endswith("ies"):
                stems[form[:-3] + "y"] = None
            if form.endswith("y"):
                stems[form[:-1] + "ies"] = None
            if form.endswith("s") and len(form) > MIN_PREFIX:
                stems[form[:-1]] = None
            stems |= {form[:-cut]: None for cut in (1, 2) if len(form) - cut >= MIN_STEM}
        return cls(word, tuple(forms), tuple(stems), commonprefix([*forms, *stems]))  # noqa: RUF071  # of words, not paths

    def weight(self, indexed: str) -> float:
        """How well a fact's words fit, from 0 to 1."""
        if f" {self.start}" not in indexed:
            return 0.0
        if f" {self.word} " in indexed:
            return 1.0
        if any(f" {form}" in indexed for form in self.beginnings) or any(f" {form} " in indexed for form in self.whole):
            return 0.5
        return 0.0


class Fact(NamedTuple):
    """A fact made ready for searching."""

    value: str
    folded: str
    indexed: str

    @classmethod
    def of(cls, key: str, value: str) -> Fact:
        return cls(value, fold(f"{key}\n{value}"), f" {' '.join(words(f'{key} {value}'))} ")


def ranked(query: str, facts: Sequence[Fact], limit: int, *, total: int | None = None) -> list[str]:
    """Values of the facts found, best first, equals in their order. `total` is how many facts there are in all."""
    literal, wanted = fold(query.strip()), query_words(query)
    looked_for = [Wanted.of(word) for word in wanted]
    found = [{one.word: weight for one in looked_for if (weight := one.weight(fact.indexed))} for fact in facts]
    if not any(found):
        return [fact.value for fact in facts if literal in fact.folded][:limit]
    having = {word: sum(word in weights for weights in found) for word in wanted}
    worth = {word: log(1 + (total or len(facts)) / count) * _length(word) for word, count in having.items() if count}
    scores = [sum(weight * worth[word] for word, weight in weights.items()) for weights in found]
    for index, fact in enumerate(facts):
        if scores[index] and literal in fact.folded:
            scores[index] += sum(worth.values())
    order = sorted((index for index, score in enumerate(scores) if score), key=lambda index: -scores[index])
    return [facts[index].value for index in order[:limit]]


def _length(word: str) -> int:
    return 4 if _UNSPACED.match(word) else min(len(word), 8)


def _split(folded: str) -> list[str]:
    """Words are letters, digits and marks; everything else parts them."""
    if folded.isascii():
        return re.findall("[a-z0-9]+", folded)
    return "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in folded).split()


def _parts(word: str) -> list[tuple[bool, str]]:
    """A word cut where scripts with and without spaces meet; each part with whether it is without."""
    if word.isascii():
        return [(False, word)]
    parts, start = [], 0
    for match in _UNSPACED.finditer(word):
        parts += [(False, word[start : match.start()]), (True, match.group())]
        start = match.end()
    return [(unspaced, part) for unspaced, part in [*parts, (False, word[start:])] if part]


def _pairs(text: str) -> list[str]:
    return [text[index : index + 2] for index in range(len(text) - 1)]
