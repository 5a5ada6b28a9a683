"""Agents in notebook cells: `%load_ext agentroute_ipython`, then `%%agent NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """`%load_ext agentroute_ipython`: brings `%%agent` and `%agent`, and records every run of the notebook."""
    from .loading import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """`%unload_ext agentroute_ipython`"""
    from .loading import unload

    unload(shell)
