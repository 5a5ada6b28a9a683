"""From the source of a cell to how it runs: a top-level `%%agent` cell of a kernel becomes an `await`.

The body is taken from the raw lines, before IPython strips what looks like prompts (`>>>`, `In [1]:`) from it.
"""

from __future__ import annotations

import sys
import tokenize
from typing import TYPE_CHECKING, Any

from IPython.core.inputtransformer2 import EscapedCommand

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["AgentLine", "CellTransform", "is_blank"]

AWAITED = "await get_ipython().magics_manager.registry['AgentMagics'].agent_here"


class CellTransform:
    """The cleanup transform of one shell. Cells that are not ours come out as they went in."""

    has_side_effects = True
    """Keeps IPython from applying it when it only asks whether a cell is complete: one line would seem to be."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell

    def __call__(self, lines: list[str]) -> list[str]:
        first = next((number for number, line in enumerate(lines) if not is_blank(line)), len(lines))
        if first == len(lines):
            return lines
        head = lines[first].strip()
        magic, rest = _split(head)
        below = lines[first + 1 :]
        if magic == "%%agent":
            indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
            body = "".join(line.removeprefix(indent) for line in below)
            if _can_await(self._shell):
                return [f"{AWAITED}({rest!r}, {body!r})\n"]
            return [f"get_ipython().run_cell_magic('agent', {rest!r}, {body or chr(10)!r})\n"]
        if magic == "%agent" and not any(line.strip() for line in below) and _can_await(self._shell):
            return [f"{AWAITED}({rest!r})\n"]
        return lines


class AgentLine(EscapedCommand):
    """An `%agent` line inside a cell. A question mark at its end belongs to the prompt and is no call for help."""

    priority = 1  # before IPython's own reading of a `?` at the end of a line

    @classmethod
    def find(cls, tokens_by_line: Any) -> AgentLine | None:
        for tokens in tokens_by_line:
            rest = [token for token in tokens if token.type not in (tokenize.INDENT, tokenize.DEDENT)]
            if rest and rest[0].string == "%" and _split(rest[0].line[rest[0].start[1] :].strip())[0] == "%agent":
                return cls(rest[0].start)
        return None


def is_blank(line: str) -> bool:
    """Whether a line above the magic says nothing: it is empty, or a comment."""
    return not line.strip() or line.lstrip().startswith("#")


def _split(head: str) -> tuple[str, str]:
    """The magic that a line calls, and the rest of the line; `%agent?` asks for help and calls nothing."""
    magic, rest = [*head.split(maxsplit=1), "", ""][:2]
    return magic, rest


def _can_await(shell: Any) -> bool:
    """Whether this cell is run by a kernel on its asyncio loop, and not from within another cell."""
    if not hasattr(shell, "kernel") or not shell.autoawait:
        return False
    import asyncio  # a kernel has it already; elsewhere loading is faster without

    from IPython.core.async_helpers import _asyncio_runner

    if shell.loop_runner is not _asyncio_runner:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "run_code" and code.co_filename.endswith("interactiveshell.py"):
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return True
