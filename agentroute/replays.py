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
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from .errors import ErrorConfig
from .store import RunStore, default_store

__all__ = [
    "MODES", "Place", "Replay", "active_replay", "checked_mode", "replay", "replay_now", "set_default_replay", "set_place", "set_replay",
]  # fmt: skip

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
    salt: str = ""
    recorded: bool = True
    """Whether the run is recorded in the same store, so that who cares is told of its troubles."""


_mode: contextvars.ContextVar[tuple[str, str] | None] = contextvars.ContextVar("agentroute_replay", default=None)
"""Mode and salt of the innermost block."""
_of_process: str | None = None
_default: str | None = None
_only = 0
"""Blocks of `only` that are open in any thread: as long as one is, runs of other threads send nothing either."""
_place: Callable[[], Place] = Place


def replay(mode: str = "on", *, salt: str = "") -> AbstractContextManager[None]:
    """How runs that are begun inside are replayed, and those their tools begin.

    It holds for the block's own thread and tasks; a thread pool started inside is begun outside of it (`set_replay` is for the
    whole process). Only `only` holds for all threads as long as the block lasts, because it promises that nothing is sent.

    | mode | |
    |---|---|
    | `on` | an answer that is kept is served; anything else is asked, and kept |
    | `only` | what is not kept is an ErrorReplay: nothing is sent |
    | `fresh` | everything is asked, and kept in place of what there was |
    | `off` | everything is asked, nothing is kept |

    Args:
        salt: tells equal requests apart, and is not sent: n samples of one prompt, asked at the same time, are sent n times
            under n salts.

    Raises:
        ErrorConfig: there is no such mode, or the salt is no text.
    """
    if not isinstance(salt, str):
        raise ErrorConfig(f"salt must be a text, got {type(salt).__name__}: {salt!r:.80}")
    return _block(checked_mode(mode), salt)  # checked by now, so that a mistake is one of the caller's own line


@contextmanager
def _block(mode: str, salt: str) -> Iterator[None]:
    global _only
    token = _mode.set((mode, salt))
    counted = mode == "only"
    _only += counted
    try:
        yield
    finally:
        _only -= counted
        _mode.reset(token)


def set_replay(mode: str | None) -> None:
    """How this process replays where no `with agentroute.replay(…)` says; None leaves it to AGENTROUTE_REPLAY, else `off`, in a
    notebook to what that does by itself.

    Raises:
        ErrorConfig: there is no such mode.
    """
    global _of_process
    _of_process = None if mode is None else checked_mode(mode)


def set_default_replay(mode: str | None) -> None:
    """How this process replays where nobody says, in place of AGENTROUTE_REPLAY: what the notebook's extension has made of that;
    None: as without an extension.

    Raises:
        ErrorConfig: there is no such mode.
    """
    global _default
    _default = None if mode is None else checked_mode(mode)


def replay_now() -> str:
    """How this process replays outside of blocks.

    Raises:
        ErrorConfig: AGENTROUTE_REPLAY is none of the modes.
    """
    told = _of_process or _default
    return told or checked_mode(os.environ.get("AGENTROUTE_REPLAY", "").strip().lower() or "off", "AGENTROUTE_REPLAY")


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
    block = _mode.get()
    if block is None and _only:
        block = "only", ""
    mode, salt = block or ((above.mode, above.salt) if above is not None else (replay_now(), ""))
    place = above.place if above is not None else _place()
    own = isinstance(store, RunStore)
    return Replay(mode, store if own else _default_file(), place, salt, own)


_files: dict[str, RunStore] = {}


def _default_file() -> RunStore:
    """The store for answers of runs that are recorded nowhere, or elsewhere."""
    store = default_store()
    if isinstance(store, RunStore):
        return store
    return _files.setdefault(os.environ.get("AGENTROUTE_RUNS", ""), RunStore())
