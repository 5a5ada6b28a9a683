"""Which cell is running, for which time, and in which notebook: what replay and the run history know a run's place by."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionInfo, InteractiveShell

    from agentroute.replays import Place

__all__ = ["Places", "notebook_of"]

_NOTEBOOK_VARIABLE = "AGENTROUTE_NOTEBOOK"
# For the life of the process, as replay's memory of them: `%reload_ext` does not begin anew.
_executions = itertools.count(1)
_texts: Counter[str] = Counter()


class Places:
    """The place of whatever asks now, for `agentroute.replays.set_place`.

    A cell is known by the id that the frontend sends (JupyterLab, Notebook 7, VS Code); where it sends none (nbclient,
    papermill, consoles), by its text and how often that text has run in this kernel. So two cells with the same text are
    two cells, and a restarted notebook finds each of them again. `execution` counts the cells that were run, from 1.

    A task that outlives its cell keeps the cell's place; a thread that the cell has started has that of the newest cell.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._newest: Place | None = None
        self._own: ContextVar[Place | None] = ContextVar("agentroute_place", default=None)

    def __call__(self) -> Place:
        from agentroute.replays import Place

        place = self._own.get() or self._newest or Place()
        return place._replace(notebook=notebook_of(self._shell))

    def begin(self, info: ExecutionInfo) -> None:
        """A cell is about to run: IPython's `pre_run_cell`."""
        self._begin(info.raw_cell or "", getattr(info, "cell_id", None))

    def begin_now(self) -> None:
        """The cell that runs already, and loads the extension, is the first one."""
        parent: dict[str, Any] = getattr(self._shell, "get_parent", dict)() or {}
        code, cell_id = parent.get("content", {}).get("code"), parent.get("metadata", {}).get("cellId")
        if code:
            self._begin(code, cell_id)

    def _begin(self, source: str, cell_id: str | None) -> None:
        from agentroute.replays import Place

        self._newest = Place(cell=cell_id or _by_text(source), execution=next(_executions), cell_id=cell_id)
        self._own.set(self._newest)


def _by_text(source: str) -> str:
    from hashlib import blake2b

    text = blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    _texts[text] += 1
    return f"{text}#{_texts[text]}"


def notebook_of(shell: Any) -> str | None:
    """The notebook that a shell belongs to, as a path: what $AGENTROUTE_NOTEBOOK says, else VS Code, else Jupyter Server;
    None where nobody says (nbclient, papermill, consoles)."""
    if told := os.environ.get(_NOTEBOOK_VARIABLE):
        return told
    for known in (shell.user_ns.get("__vsc_ipynb_file__"), os.environ.get("JPY_SESSION_NAME")):
        if type(known) is str and known.endswith(".ipynb"):
            return known
    return None
