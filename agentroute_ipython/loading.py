"""What `%load_ext` brings to a shell, and `%unload_ext` takes away: the magics, and how an error is shown."""

from __future__ import annotations

import linecache
import traceback
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from agentroute.errors import ErrorAgent
from agentroute.store import default_store

from .completion import install, uninstall
from .magics import AgentMagics
from .transform import AgentLine
from .usage_totals import end_process_usage, process_usage

if TYPE_CHECKING:
    from types import TracebackType

    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load", "unload"]

_OURS = ("agentroute", "agentroute_ipython")
_SHORTENED = (ErrorAgent, KeyboardInterrupt)
"""What is shown without the library's own lines when it leaves a cell."""


def load(shell: InteractiveShell) -> None:
    """Registers the magics and the transforms, and records every run from now on. A second time changes nothing."""
    if "AgentMagics" in shell.magics_manager.registry:
        return
    try:
        magics = AgentMagics(shell)
    except UsageError:
        shell.configurables[:] = [one for one in shell.configurables if not isinstance(one, AgentMagics)]
        raise
    shell.register_magics(magics)
    magics.begin()
    process_usage()
    shell.input_transformers_cleanup.insert(0, magics.transform)  # before what strips `>>>` from the body
    shell.input_transformer_manager.token_transformers.append(AgentLine)
    install(shell, magics)
    if not shell.custom_exceptions:
        shell.set_custom_exc(_SHORTENED, _show_error)  # type: ignore[no-untyped-call]


def unload(shell: InteractiveShell) -> None:
    """Takes away what `load` brought. Agents that cells have defined are forgotten."""
    manager = shell.magics_manager
    magics = manager.registry.pop("AgentMagics", None)
    if magics is None:
        return
    for kind in ("line", "cell"):
        manager.magics[kind].pop("agent", None)
    shell.configurables.remove(magics)
    shell.input_transformers_cleanup.remove(magics.transform)
    shell.input_transformer_manager.token_transformers.remove(AgentLine)
    uninstall(shell)
    if shell.custom_exceptions == _SHORTENED:
        shell.set_custom_exc((), None)  # type: ignore[no-untyped-call]
    magics.end()
    end_process_usage()


def _show_error(
    shell: Any, kind: type[BaseException], error: BaseException, trace: TracebackType | None, tb_offset: int | None = None
) -> None:
    """An ErrorAgent, or a Stop, that left a plain cell, such as one of `agent.run(...)`: the error and the notebook's own line,
    and not the library's sixty. `%tb` still shows everything."""
    frames = list(traceback.walk_tb(trace))
    library = [number for number, (frame, _) in enumerate(frames) if _module(frame).partition(".")[0] in _OURS]
    shortened = library and library[0] > 0 and not shell.call_pdb and shell.InteractiveTB.mode != "Verbose"
    if hasattr(error, "_render_traceback_") or not shortened:
        shell.showtraceback((kind, error, trace), running_compiled_code=True)
        return
    from .formats import one_line
    from .replaying import error_text

    frame, line = frames[library[0] - 1]
    code = linecache.getline(frame.f_code.co_filename, line).strip()
    shell._get_exc_info((kind, error, trace))  # where %tb finds it
    text = error_text(error, default_store()) if isinstance(error, ErrorAgent) else str(error)
    message = f"{kind.__name__}: {one_line(text or 'stopped', 500)}"
    shell._showtraceback(kind, error, [message, f"(line {line}: {one_line(code, 100)}; %tb shows the traceback)"])


def _module(frame: Any) -> str:
    return str(frame.f_globals.get("__name__", ""))
