"""Replay: an answer that was paid for is served again when the same is asked, and the model is not.

    with agentroute.replay("on"):
        agent.run("Where is order 4821?")   # asked once, then replayed each time the script is run

A process (a kernel of a notebook, a script) is a session. It is served what earlier sessions were answered: the n-th time a
request is made, the n-th answer. A notebook's cell that has asked it before in the same session asks again: who runs a cell
twice wants another answer. Only whole, good answers are kept; tools are never replayed, they run again.

What is said here and where decides; `replay_layer.py` does it.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from .errors import ErrorConfig
from .store import RunStore, default_store

__all__ = ["MODES", "Place", "Replay", "active_replay", "checked_mode", "process_replay", "replay", "set_place", "set_replay"]

MODES = ("on", "off", "only", "fresh")


class Place(NamedTuple):
    """Where in a notebook a run is begun. A script has one place.

    Args:
        cell: tells cells apart, the same in every session.
        execution: rises each time any cell is run.
        notebook, cell_id: for the run history.
    """

    cell: str = ""
    execution: int = 0
    notebook: str | None = None
    cell_id: str | None = None


class Replay(NamedTuple):
    """What one run replays: how, from where, and at which place it was begun."""

    mode: str
    store: RunStore
    place: Place
    recorded: bool = True
    """Whether the run is recorded in the same store, so that who cares is told of its troubles."""


_mode: contextvars.ContextVar[str | None] = contextvars.ContextVar("agentroute_replay", default=None)
_of_process: str | None = None
_place: Callable[[], Place] = Place


@contextmanager
def replay(mode: str = "on") -> Iterator[None]:
    """How runs that are begun inside are replayed, and those their tools begin.

    | mode | |
    |---|---|
    | `on` | an answer that is kept is served; anything else is asked, and kept |
    | `only` | what is not kept is an ErrorReplay: nothing is sent |
    | `fresh` | everything is asked, and kept in place of what there was |
    | `off` | everything is asked, nothing is kept |

    Raises:
        ErrorConfig: there is no such mode.
    """
    token = _mode.set(checked_mode(mode))
    try:
        yield
    finally:
        _mode.reset(token)


def set_replay(mode: str | None) -> None:
    """How this process replays where no `with agentroute.replay(…)` says; None leaves it to AGENTROUTE_REPLAY, else `off`.

    Raises:
        ErrorConfig: there is no such mode.
    """
    global _of_process
    _of_process = None if mode is None else checked_mode(mode)


def process_replay() -> str | None:
    """What `set_replay` was told last."""
    return _of_process


def set_place(place: Callable[[], Place] | None) -> None:
    """Asks `place` where each run is begun from now on; None: at one place."""
    global _place
    _place = place or Place


def checked_mode(mode: Any, name: str = "replay") -> str:
    if mode not in MODES:
        raise ErrorConfig(f"{name} must be one of {', '.join(MODES)}; got {mode!r:.80}")
    return str(mode)


def active_replay(store: Any, above: Replay | None) -> Replay:
    """How a run begun here and now is replayed; `above` is that of the run whose tool begins it."""
    mode = _mode.get()
    if mode is None:
        mode = above.mode if above is not None else _of_process
    if mode is None:
        mode = checked_mode(os.environ.get("AGENTROUTE_REPLAY", "").strip().lower() or "off", "AGENTROUTE_REPLAY")
    place = above.place if above is not None else _place()
    own = isinstance(store, RunStore)
    return Replay(mode, store if own else _default_file(), place, own)


_files: dict[str, RunStore] = {}


def _default_file() -> RunStore:
    """The store for answers of runs that are recorded nowhere, or elsewhere."""
    store = default_store()
    if isinstance(store, RunStore):
        return store
    return _files.setdefault(os.environ.get("AGENTROUTE_RUNS", ""), RunStore())
