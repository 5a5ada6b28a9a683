"""`%agent doctor`: what `agentroute doctor` says, and what this notebook can do, with where each setting comes from.

As on the command line, OpenRouter and Ollama are asked whether they are there, which costs nothing, unless `--offline` is given.
No part of a key is shown.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentroute.config import without_password
from agentroute.errors import ErrorConfig
from agentroute.figures import cost_text, plural
from agentroute.store import default_store

from .arguments import nearest
from .formats import one_line
from .project_settings import SETTINGS
from .tables import Table

if TYPE_CHECKING:
    from .magics import AgentMagics

__all__ = ["doctor_table", "frontend"]

_MISSING = object()


def doctor_table(magics: AgentMagics, rest: str = "") -> Table:
    """One row a subject. `rest` is what follows the word: `--offline` asks no endpoint, else up to five seconds are waited.

    Raises:
        ErrorConfig: something else follows.
    """
    from agentroute.cli.doctor import examine, sections, verdict

    if rest not in ("", "--offline"):
        raise ErrorConfig(f"%agent doctor takes --offline only, got {rest[:40]!r}{nearest(rest, ['--offline'])}")
    report = examine(offline=bool(rest))
    rows = [("agentroute", f"{report.agentroute}, Python {report.python}, {report.system}"), ("Notebook", _notebook(magics))]
    rows += [("Approval", _approval(magics)), ("Settings", "\n".join(_settings(magics))), ("Recording", _recording(magics))]
    rows.append(("Model list", _model_list()))
    rows += [(title, "\n".join(one_line(line, 600) for line in lines)) for title, lines in sections(report).items()]
    return Table([*rows, ("Result", verdict(report))])


def frontend(shell: Any) -> str:
    """What shows the notebook, as far as the kernel is told: kernels learn of no frontend's name by themselves."""
    if not hasattr(shell, "kernel"):
        return "a terminal"
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ:
        return "Colab"
    if "__vsc_ipynb_file__" in shell.user_ns or "VSCODE_PID" in os.environ or "VSCODE_CWD" in os.environ:
        return "VS Code"
    if "JPY_SESSION_NAME" in os.environ:
        return "Jupyter Server (JupyterLab or Notebook)"
    if not getattr(shell.kernel, "_allow_stdin", False):
        return "unknown, nobody can be asked there: a program such as papermill, nbclient or nbconvert"
    return "unknown: a console, or a frontend that does not tell"


def _notebook(magics: AgentMagics) -> str:
    from .place import notebook_of

    parts = [f"IPython {_version('ipython')}"]
    if hasattr(magics.shell, "kernel"):
        parts.append(f"ipykernel {_version('ipykernel')}")
    lines = [", ".join(parts), f"shown by: {frontend(magics.shell)}"]
    if path := notebook_of(magics.shell):
        lines.append(f"file: {one_line(path, 300)}")
    return "\n".join(lines)


def _approval(magics: AgentMagics) -> str:
    from .approvals import Approver

    shell = magics.shell
    lines = [
        "calls that need approval: "
        + Approver(shell, magics.approval, can_click=bool(getattr(shell, "autoawait", False))).in_words()
    ]
    if hasattr(shell, "kernel"):
        asks = getattr(shell.kernel, "_allow_stdin", False)
        lines.append("input() " + ("is answered here" if asks else "is answered by nobody here: the frontend has said so"))
    return "\n".join(lines)


def _settings(magics: AgentMagics) -> list[str]:
    lines = []
    for name in SETTINGS:
        value = getattr(magics, name)
        lines.append(f"{name} = {_shown(name, value)}  ({_source(name, value, magics)})")
    return [*lines, *(one_line(sentence, 400) for sentence in magics.project.not_taken)]


def _shown(name: str, value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return cost_text(value)
    return without_password(one_line(str(value), 120))


def _source(name: str, value: object, magics: AgentMagics) -> str:
    """Who has said so."""
    if magics.configured.get(name, _MISSING) == value:
        return _configuration_files(magics.shell)
    if magics.config.get("AgentMagics", {}).get(name, _MISSING) == value:
        return "%config"
    if name in magics.project.values and magics.project.values[name] == value:
        return one_line(str(magics.project.path), 300)
    if name == "replay" and os.environ.get("AGENTROUTE_REPLAY", "").strip().lower() == value:
        return "$AGENTROUTE_REPLAY"
    usual: object = magics.traits()[name].default_value
    if name == "replay":
        usual = "on" if hasattr(magics.shell, "kernel") else "off"
    return "default" if value == usual else "set in this notebook"


def _configuration_files(shell: Any) -> str:
    files: list[str] = []
    owner = shell
    while owner is not None and not files:
        files = list(getattr(owner, "loaded_config_files", ()))
        owner = getattr(owner, "parent", None)
    return one_line(", ".join(map(str, files)), 300) or "configuration of IPython"


def _recording(magics: AgentMagics) -> str:
    store = default_store()
    if magics.record == "off" or store is None:
        return "nothing is recorded"
    path = getattr(store, "path", None)
    where = str(path) if isinstance(path, Path) else type(store).__name__
    return f"{magics.record} of each run, in {one_line(where, 300)}"


def _model_list() -> str:
    from agentroute.models.catalogue import catalogue

    known = catalogue()
    if not known.entries:
        return 'none is kept: model ids are not completed (pip install "agentroute[prices]" brings a table)'
    when = f", {known.at.astimezone():%Y-%m-%d %H:%M}" if known.at is not None else ""
    return f"{plural(len(known.entries), 'model')} to complete, from {known.source}{when}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(version unknown)"
