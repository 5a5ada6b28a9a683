"""What Tab offers on the first line of an `%%agent` cell, on an `%agent` line, and for a setting of the magics in `%config`.

IPython asks a matcher before its own. Ours says nothing anywhere else, and below the first line, so that the text of a cell is
completed as ever (`{cust` to a variable); on its own lines it keeps Python's names and keywords out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext
    from IPython.core.interactiveshell import InteractiveShell

    from .magics import AgentMagics

__all__ = ["install", "uninstall"]

IDENTIFIER = "agentroute"
FILES = {"IPCompleter.file_matcher"}
"""IPython's own matcher that stays where a path can be written."""


def install(shell: InteractiveShell, magics: AgentMagics) -> None:
    """From now on Tab knows agents, options, models, tools and types. IPython before 8.6 has no place for it."""
    matchers = getattr(getattr(shell, "Completer", None), "custom_matchers", None)
    if matchers is None:
        return

    def complete(context: CompletionContext) -> dict[str, Any]:
        try:
            return _completed(context, magics)
        except Exception:  # what is half written may be anything, and Tab never fails
            return {"completions": [], "suppress": False}

    complete.matcher_api_version = 2  # type: ignore[attr-defined]
    complete.matcher_identifier = IDENTIFIER  # type: ignore[attr-defined]
    complete.matcher_priority = 1000  # type: ignore[attr-defined]  # before all others, so that none of them works for nothing
    matchers.append(complete)


def uninstall(shell: InteractiveShell) -> None:
    """As if it had not been installed."""
    matchers = getattr(getattr(shell, "Completer", None), "custom_matchers", [])
    matchers[:] = [matcher for matcher in matchers if getattr(matcher, "matcher_identifier", None) != IDENTIFIER]


class _Nothing(Sequence[Any]):
    """No completions, which keep others out all the same: IPython lets no empty list do so, and looks at the length only."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, place: Any) -> Any:
        raise IndexError

    def __iter__(self) -> Iterator[Any]:
        return iter(())


def _completed(context: CompletionContext, magics: AgentMagics) -> dict[str, Any]:
    lines = context.full_text.split("\n")
    line = lines[context.cursor_line]
    if not any(word in line[: context.cursor_position] for word in ("%agent", "%config")):
        return {"completions": [], "suppress": False}
    from IPython.core.completer import SimpleCompletion

    from .half_written import asked_for
    from .offers import offers

    asked = asked_for(lines[: context.cursor_line], line[: context.cursor_position], line[context.cursor_position :])
    if asked is None:
        return {"completions": [], "suppress": False}
    blank = "\u00a0" if hasattr(magics.shell, "kernel") else " "  # JupyterLab breaks what stands beside a word, and lines lie over each other
    before, behind = asked.quotes
    found = [SimpleCompletion(before + text + behind, type=about.replace(" ", blank)) for text, about in offers(asked, magics)]
    return {
        "completions": found or _Nothing(),
        "matched_fragment": asked.fragment,
        "suppress": True,
        "do_not_suppress": FILES if asked.kind == "memory" else set(),
        "ordered": True,
    }
