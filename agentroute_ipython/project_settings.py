"""Settings of the magics that a project brings: `[tool.agentroute]` of the nearest `pyproject.toml`.

    [tool.agentroute]
    model = "anthropic/claude-sonnet-4"
    max_cost = 0.25        # USD, one run
    budget = 5.0           # USD, all runs of a kernel
    approval = "button"    # auto, button, input or deny
    replay = "on"          # on, off, only or fresh
    record = "metadata"    # all, metadata or off
    render = "auto"        # auto, html, text or off

They are defaults: what the configuration files of IPython say comes first, and so do $AGENTROUTE_REPLAY, a budget that the
notebook has set already, `%config`, and the options of a cell. So a project can lower what you allow, and never raise it.

A project may be somebody else's, cloned a minute ago. What would let it do more than you have said is therefore not taken from
it, and told when the extension loads: `approval = "allow"`, which would let tools run with nobody asked; a model that is a URL,
which would send what you write to its host, or a file of weights (`local/….gguf`), which would be loaded. A file that belongs
to another user of the machine is not read at all. No key can be given there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from agentroute.errors import ErrorConfig

from .arguments import nearest

if TYPE_CHECKING:
    from .magics import AgentMagics

__all__ = ["SETTINGS", "ProjectSettings", "apply", "read"]

SETTINGS = ("model", "replay", "approval", "max_cost", "budget", "record", "render")
ADMINISTRATOR = 0
"""The user whose files are trusted as one's own."""
_JOINTS = dict.fromkeys(map(ord, "_- "))


class ProjectSettings(NamedTuple):
    """What a project says."""

    path: Path | None = None
    """The file; None where there is none, or it says nothing of us."""
    values: Mapping[str, object] = MappingProxyType({})
    """By name of the trait; each is checked by the trait when it is applied."""
    not_taken: tuple[str, ...] = ()
    """What it says that is not heeded, and why: sentences for the user."""


def read(start: Path | None = None) -> ProjectSettings:
    """The settings of the nearest `pyproject.toml`, from `start` (the working directory) upwards to the home directory or the root.

    Raises:
        ErrorConfig: the table has a setting that there is not, or is no table; the message names the file.
    """
    try:
        path = _nearest_file(start or Path.cwd())
        if path is None:
            return ProjectSettings()
        if not _is_ours(path):
            return ProjectSettings(not_taken=(f"{path} belongs to another user, so its settings are not read",))
        data = path.read_bytes()
    except OSError:
        return ProjectSettings()
    if not _may_say_something(data):
        return ProjectSettings()
    import tomllib

    from .formats import one_line

    try:
        whole = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        return ProjectSettings(not_taken=(f"{path} cannot be read, so its settings are left out: {one_line(str(error), 200)}",))
    misspelt = tuple(f"{path}: nobody reads [{name}]; did you mean [tool.agentroute]?" for name in _misspelt(whole))
    tools = whole.get("tool")
    table = tools.get("agentroute") if isinstance(tools, dict) else None
    if table is None:
        return ProjectSettings(not_taken=misspelt)
    if not isinstance(table, dict):
        raise ErrorConfig(f'{path}: [tool.agentroute] must be a table of settings, such as model = "MODEL"; got {table!r:.60}')
    checked = _checked(path, table)
    return checked._replace(not_taken=misspelt + checked.not_taken)


def apply(project: ProjectSettings, magics: AgentMagics) -> None:
    """Gives the magics what the project says and nobody else does, and prints what is not heeded. Keeps in `magics.configured`
    what IPython was configured with until then: `%config` writes to the same place.

    Raises:
        ErrorConfig: a value that the trait does not take; the message names the file.
    """
    from traitlets import TraitError

    said = magics.config.get("AgentMagics", {})
    magics.configured = {name: said[name] for name in SETTINGS if name in said}
    for name, value in sorted(project.values.items(), key=lambda item: item[0] == "budget"):  # which is the process's: set last
        if not _is_said(name, magics):
            try:
                setattr(magics, name, value)
            except TraitError as error:
                raise ErrorConfig(f"{project.path}: [tool.agentroute] {error}") from None
    if project.not_taken:
        from .formats import one_line
    for sentence in project.not_taken:
        print(f"agentroute: {one_line(sentence, 600)}", file=sys.stderr)


def _is_said(name: str, magics: AgentMagics) -> bool:
    """Whether somebody whose word comes first has set it."""
    if name in magics.configured:
        return True
    if name == "budget":
        from agentroute.budgets import process_budget

        return process_budget() is not None
    return name == "replay" and bool(os.environ.get("AGENTROUTE_REPLAY", "").strip())


def _nearest_file(start: Path) -> Path | None:
    home = Path.home()
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            return path
        if folder == home:
            return None
    return None


def _may_say_something(data: bytes) -> bool:
    """Whether the table may be there, perhaps misspelt or in a line that is no TOML. Most files have none, and reading TOML would cost
    some ms of every `%load_ext`."""
    if b"agent" not in data.lower():
        return False
    import re

    name = rb"agent[_-]?route"
    head, key = rb"^(?:\xef\xbb\xbf)?[ \t]*\[[^\]\n]*" + name, name + rb"[\"']?\s*(?:\.|=(?!=))"
    return re.search(head + rb"|" + key, data, re.IGNORECASE | re.MULTILINE) is not None


def _misspelt(whole: Mapping[str, Any]) -> list[str]:
    """The tables that seem to be meant for us, and are not at our place."""
    tables = {name: table for name, table in whole.items() if isinstance(table, dict)}
    inner = [(name, table) for name, table in tables.items() if name.lower() in ("tool", "tools")]
    tables |= {f"{name}.{one}": table for name, both in inner for one, table in both.items() if isinstance(table, dict)}
    ours = [name for name in tables if name.lower().rpartition(".")[2].translate(_JOINTS) == "agentroute"]
    return [name for name in ours if name != "tool.agentroute"]


def _is_ours(path: Path) -> bool:
    """Whether the file is of this user or of the machine's administrator: in a folder that all may write to, it need not be."""
    return not hasattr(os, "getuid") or path.stat().st_uid in (os.getuid(), ADMINISTRATOR)


def _checked(path: Path, table: dict[str, Any]) -> ProjectSettings:
    from .formats import one_line

    values, not_taken = {}, []
    for name, value in table.items():
        if name not in SETTINGS:
            known = nearest(name, SETTINGS) or f"; there are {', '.join(SETTINGS)}"
            raise ErrorConfig(f"{path}: [tool.agentroute] has no setting {one_line(name, 40)!r}{known}")
        if name in ("max_cost", "budget") and (
            isinstance(value, bool) or (isinstance(value, float) and not abs(value) < float("inf"))
        ):
            raise ErrorConfig(f"{path}: [tool.agentroute] {name} must be a number of USD from 0, got {value!r}")
        if name == "model" and (not isinstance(value, str) or not value.strip()):
            raise ErrorConfig(
                f"{path}: [tool.agentroute] model must name a model, such as 'anthropic/claude-sonnet-4'; got {value!r:.60}"
            )
        if why := _why_not(name, value):
            not_taken.append(f"{path}: {name} = {_shown(value)} is not taken from a project, {why}")
        else:
            values[name] = value
    return ProjectSettings(path, values, tuple(not_taken))


def _why_not(name: str, value: object) -> str:
    """Why a project may not say this; empty where it may."""
    if name == "approval" and value == "allow":
        return 'as its tools would run with nobody asked; if you want that: %config AgentMagics.approval = "allow"'
    if name == "model" and isinstance(value, str):
        lowered = value.strip().lower()
        if "://" in lowered:
            return "as all prompts would go to that host; if you want that: %config AgentMagics.model = 'URL'"
        if lowered.endswith(".gguf"):
            return "as it would load a file; if you want that: %config AgentMagics.model = 'local/FILE.gguf'"
    return ""


def _shown(value: object) -> str:
    from agentroute.config import without_password

    from .formats import one_line

    return repr(without_password(one_line(str(value), 100)))
