"""The text of a cell: what is above a line `---`, and what is below it."""

from __future__ import annotations

import re

from agentroute.errors import ErrorConfig

from .arguments import Options

__all__ = ["halves", "trimmed", "unescaped", "with_instructions"]

_SEPARATOR = re.compile(r"^---[ \t\r]*$", re.MULTILINE)
_ESCAPED = re.compile(r"^\\(\\*---[ \t\r]*)$", re.MULTILINE)


def halves(text: str) -> tuple[str, str, str]:
    """What is above the first line that is `---`, that line, and what is below; all of it is below when there is none."""
    found = _SEPARATOR.search(text)
    return (text[: found.start()], found[0], text[found.end() :]) if found else ("", "", text)


def unescaped(text: str) -> str:
    """With `\\---` at the start of a line read as `---`."""
    return _ESCAPED.sub(r"\1", text)


def trimmed(text: str) -> str:
    """Without empty lines at the start and white space at the end; the first line keeps its indentation."""
    lines = text.splitlines(keepends=True)
    while lines and not lines[0].strip():
        lines.pop(0)
    return "".join(lines).rstrip()


def with_instructions(options: Options, text: str) -> Options:
    if text and options.instructions is not None:
        raise ErrorConfig("the instructions are given twice: as --instructions and as text of the cell; leave one out")
    return Options(instructions=text or None).over(options)
