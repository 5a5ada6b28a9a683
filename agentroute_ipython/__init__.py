"""Agents in notebook cells: `%load_ext agentroute_ipython`, then `%%agent NAME`.

`history()` is the run history as a table one can sort, filter and select from; `usage()` what this notebook spends;
`diff(run, other)` what changed between two runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .differences import diff as diff
    from .history_view import history as history
    from .usage_view import usage as usage

__all__ = ["diff", "history", "load_ipython_extension", "unload_ipython_extension", "usage"]

_HOME = {"diff": "differences", "history": "history_view", "usage": "usage_view"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """`%load_ext agentroute_ipython`: brings `%%agent` and `%agent`, and records every run of the notebook."""
    from .loading import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """`%unload_ext agentroute_ipython`"""
    from .loading import unload

    unload(shell)
