"""What differs between two texts, word by word. Pure: text in, pieces of text out.

Words that are rare in both texts are matched first, in order (the idea of a patience diff); what lies between two such
matches is compared by Myers' algorithm. All work is counted, and what is not compared when it is spent counts as
replaced, so the time grows with the length of the texts and not with its square.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

__all__ = ["LONG", "Kind", "by_lines", "word_diff"]

Kind = Literal["equal", "delete", "insert"]
"""`equal`, `delete` (only in the first text) or `insert` (only in the second)."""
LONG = 60_000
"""Characters of both texts together from which on they are compared line by line."""
WORK = 400_000
"""Steps that one comparison may take; about 0.2 s."""

# Scripts without spaces between words are compared character by character, each with the signs that stand upon it.
_ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_UPON = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u1056-\u1059\u17b4-\u17d3\u3099\u309a\ufe00-\ufe0f\uff9e\uff9f"
    "\U000e0100-\U000e01ef"
)
_PUNCTUATION = "!-/:-@[-^`{-~\u00a1-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u2010-\u205e\u3000-\u303f\uff01-\uff0f\uff1a-\uff20"
_WORD = rf"[^\s{_PUNCTUATION}{_ALONE}]"
_TOKENS = re.compile(rf"{_WORD}+(?:(?:(?<=\d)[.,](?=\d)|['\u2019](?={_WORD})){_WORD}+)*|[{_ALONE}][{_UPON}]*|\n|[^\S\n]+|[\s\S]")
_LINES = re.compile(r"[^\n]*\n|[^\n]+")


def word_diff(a: str, b: str) -> list[tuple[Kind, str]]:
    """The pieces that make `b` of `a`, in order: `equal` and `delete` joined are `a`, `equal` and `insert` joined are `b`.

    No two neighbours are of one kind, none is empty, and what is deleted stands before what is inserted in its place. The
    pieces are of whole words, of characters in scripts without spaces, and of whole lines where `by_lines(a, b)`.
    """
    if a == b:
        return [("equal", a)] if a else []
    tokens = _LINES if by_lines(a, b) else _TOKENS
    before, after = tokens.findall(a), tokens.findall(b)
    return _pieces(before, after, _matches(before, after))


def by_lines(a: str, b: str) -> bool:
    """Whether the texts are so long that they are compared line by line."""
    return len(a) + len(b) > LONG


def _pieces(a: Sequence[str], b: Sequence[str], matches: Sequence[tuple[int, int, int]]) -> list[tuple[Kind, str]]:
    """Equal pieces, and between them what was deleted and inserted.

    White space that is all two changes have in common is no reason to tear them apart.
    """
    found: list[tuple[Kind, str]] = []
    changes: tuple[Kind, Kind] = ("delete", "insert")
    gone, come = "", ""
    i = j = 0
    for at_a, at_b, size in [*matches, (len(a), len(b), 0)]:
        gone += "".join(a[i:at_a])
        come += "".join(b[j:at_b])
        same = "".join(a[at_a : at_a + size])
        i, j = at_a + size, at_b + size
        if gone and come and same.isspace() and "\n" not in same and (i, j) != (len(a), len(b)):
            gone, come = gone + same, come + same
            continue
        found += [(kind, text) for kind, text in zip(changes, (gone, come), strict=True) if text]
        if same:
            found.append(("equal", same))
        _slide(found)
        gone, come = "", ""
    return found


def _slide(found: list[tuple[Kind, str]]) -> None:
    """Where whole lines were added or removed, has the change begin where a line begins: many places are equally right."""
    if len(found) < 3 or (found[-3][0], found[-1][0]) != ("equal", "equal"):
        return
    (_, before), (kind, change), (_, after) = found[-3:]
    start = before[before.rfind("\n") + 1 :]
    if start and start != before and "\n" in change and change.endswith(start):
        found[-3:] = [("equal", before[: -len(start)]), (kind, start + change[: -len(start)]), ("equal", start + after)]


# ---------------------------------------------------------------------------------------------------------- what is equal


def _matches(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int, int]]:
    """Equal stretches as (start in a, start in b, length), in order; neighbours that touch in both are one."""
    found: list[tuple[int, int, int]] = []
    work = _Work(WORK)
    spans = [(0, len(a), 0, len(b))]
    while spans:
        a0, a1, b0, b1 = spans.pop()
        a0, b0, head = _ahead(a, b, a0, a1, b0, b1)
        tail = _back(a, b, a0, a1, b0, b1)
        found += [(a0 - head, b0 - head, head), (a1 - tail, b1 - tail, tail)]
        a1, b1 = a1 - tail, b1 - tail
        if a0 == a1 or b0 == b1 or not work.spend(a1 - a0 + b1 - b0):
            continue
        anchors = _anchors(a, b, a0, a1, b0, b1)
        if not anchors:
            found += _myers(a, b, a0, a1, b0, b1, work)
            continue
        found += [(i, j, 1) for i, j in anchors]
        starts, ends = [(a0, b0), *((i + 1, j + 1) for i, j in anchors)], [*anchors, (a1, b1)]
        spans += [(i0, i1, j0, j1) for (i0, j0), (i1, j1) in zip(starts, ends, strict=True) if i0 < i1 and j0 < j1]
    return _joined(sorted(match for match in found if match[2]))


class _Work:
    """How much may still be done."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, steps: int) -> bool:
        self.left -= steps
        return self.left > 0


def _ahead(a: Sequence[str], b: Sequence[str], a0: int, a1: int, b0: int, b1: int) -> tuple[int, int, int]:
    """Behind what both spans begin with, and how long that is."""
    size = 0
    while a0 < a1 and b0 < b1 and a[a0] == b[b0]:
        a0, b0, size = a0 + 1, b0 + 1, size + 1
    return a0, b0, size


def _back(a: Sequence[str], b: Sequence[str], a0: int, a1: int, b0: int, b1: int) -> int:
    """How many tokens both spans end with."""
    size = 0
    while a0 < a1 - size and b0 < b1 - size and a[a1 - size - 1] == b[b1 - size - 1]:
        size += 1
    return size


def _anchors(a: Sequence[str], b: Sequence[str], a0: int, a1: int, b0: int, b1: int) -> list[tuple[int, int]]:
    """Words that both spans hold once: the longest run of them that is in the same order in both."""
    in_a, in_b = Counter(a[a0:a1]), Counter(b[b0:b1])
    places = {b[j]: j for j in range(b0, b1) if in_b[b[j]] == 1}
    pairs = [(i, places[a[i]]) for i in range(a0, a1) if in_a[a[i]] == 1 and a[i] in places]
    return _rising(pairs)


def _rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest subsequence whose second numbers rise; the first ones do already."""
    tops: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for number, (_, j) in enumerate(pairs):
        pile = bisect_left(tops, j)
        before.append(last[pile - 1] if pile else -1)
        tops[pile : pile + 1] = [j]
        last[pile : pile + 1] = [number]
    found = []
    number = last[-1] if last else -1
    while number >= 0:
        found.append(pairs[number])
        number = before[number]
    return found[::-1]


def _myers(a: Sequence[str], b: Sequence[str], a0: int, a1: int, b0: int, b1: int, work: _Work) -> Iterator[tuple[int, int, int]]:
    """The shortest way from one span to the other; nothing when it is too far for the work that is left."""
    n, m = a1 - a0, b1 - b0
    furthest = {1: 0}
    trace: list[dict[int, int]] = []
    for d in range(n + m + 1):
        trace.append(furthest.copy())
        for k in range(-d, d + 1, 2):
            down = k == -d or (k != d and furthest.get(k - 1, -1) < furthest.get(k + 1, -1))
            x = furthest.get(k + 1, 0) if down else furthest[k - 1] + 1
            start = x
            while x < n and x - k < m and a[a0 + x] == b[b0 + x - k]:
                x += 1
            furthest[k] = x
            if x >= n and x - k >= m:
                yield from _way_back(trace, n, m, a0, b0)
                return
            if not work.spend(2 + x - start):
                return
        work.spend(len(furthest))


def _way_back(trace: Sequence[dict[int, int]], x: int, y: int, a0: int, b0: int) -> Iterator[tuple[int, int, int]]:
    for d in range(len(trace) - 1, -1, -1):
        furthest, k = trace[d], x - y
        down = k == -d or (k != d and furthest.get(k - 1, -1) < furthest.get(k + 1, -1))
        before_k = k + 1 if down else k - 1
        before_x = furthest.get(before_k, 0)
        before_y = before_x - before_k
        start = before_x if down else before_x + 1
        if d == 0:
            start = 0
        yield a0 + start, b0 + start - k, x - start
        x, y = before_x, before_y


def _joined(matches: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    for i, j, size in matches:
        if found and (found[-1][0] + found[-1][2], found[-1][1] + found[-1][2]) == (i, j):
            found[-1] = (*found[-1][:2], found[-1][2] + size)
        else:
            found.append((i, j, size))
    return found
