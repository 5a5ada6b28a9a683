"""How a notebook replays: the setting of `%config`, a cell's own `--replay`, and the words for an answer that is not kept."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from traitlets import TraitError, Unicode

from agentroute.errors import ErrorAgent, ErrorReplay
from agentroute.keys import without_credentials
from agentroute.store import RunStore

from .arguments import nearest

if TYPE_CHECKING:
    from agentroute.events import Event

__all__ = ["ReplayMode", "checked", "error_text", "replaying"]


class ReplayMode(Unicode):  # type: ignore[type-arg]
    """The trait `replay` of the magics: how the process replays, whoever has said so, `%config` or `agentroute.set_replay`.

    Before the magics have begun it is what they will begin with: what the configuration file says, else $AGENTROUTE_REPLAY,
    else `on` in a kernel and `off` in a terminal.
    """

    def get(self, obj: Any, cls: Any = None) -> str:
        from agentroute.replays import checked_mode, replay_now

        if obj.has_begun:
            return replay_now()
        told = obj.configured_replay or os.environ.get("AGENTROUTE_REPLAY", "").strip().lower()
        return checked_mode(told or ("on" if hasattr(obj.shell, "kernel") else "off"), "AGENTROUTE_REPLAY")

    def set(self, obj: Any, value: Any) -> None:
        from agentroute.replays import set_default_replay, set_replay

        obj.configured_replay = self._validate(obj, value)
        if obj.has_begun:
            set_default_replay(obj.configured_replay)
            set_replay(None)

    def validate(self, obj: Any, value: Any) -> str:
        from agentroute.replays import MODES

        return checked(self.name, value, MODES)


def checked(name: str | None, value: Any, modes: tuple[str, ...]) -> str:
    """One of the modes.

    Raises:
        TraitError: it is none of them; the message names the nearest, and shows no key.
    """
    if value not in modes:
        raise TraitError(f"{name} must be one of {', '.join(modes)}; got {without_credentials(repr(value)):.80}{nearest(str(value), modes)}")
    return str(value)


def replaying(
    events: Callable[[], AsyncGenerator[Event, None]], mode: str | None, salt: str = ""
) -> Callable[[], AsyncGenerator[Event, None]]:
    """What begins a run, with `mode` for it and the runs its tools begin; None is as the notebook replays. A salt tells runs
    apart that ask the same."""
    if mode is None and not salt:
        return events

    def begin() -> AsyncGenerator[Event, None]:
        from agentroute.replays import replay, replay_now

        with replay(mode or replay_now(), salt=salt):
            return events()

    return begin


def error_text(error: ErrorAgent, store: object, *, magic: bool = False, option: str | None = None, recorded: bool = True) -> str:
    """The error's message. That of an ErrorReplay says what is written in a notebook, not in Python, to have it otherwise.

    Args:
        store: the run history that was to be replayed from.
        magic: the run is that of an `%%agent` cell or `%agent` line.
        option: what its `--replay` says.
        recorded: it has no `--no-record`.
    """
    from agentroute.replays import replay_now

    if not isinstance(error, ErrorReplay):
        return str(error)
    if option == "only":
        only, on = "--replay only", "--replay on"
    elif replay_now() != "only":
        return str(error)  # a `with agentroute.replay(…)` block: Python's words are the ones that were used
    else:
        only, on = 'AgentMagics.replay = "only"', "--replay on" if magic else '%config AgentMagics.replay = "on"'
    if isinstance(store, RunStore) and not store.keeping.whole:
        why = "keeps figures only" if store.keeping.content == "metadata" else "redacts texts"
        return f"no answer is kept, and {only} allows no request to be sent: the run history {why}, so there is nothing to replay"
    return str(error).replace("replay='only'", only).replace("replay='on'", on if recorded else f"{on} and without --no-record")
