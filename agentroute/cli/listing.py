"""`agentroute list`: the agents of a module or file."""

from __future__ import annotations

import importlib
import importlib.util
import linecache
import os
import sys
import sysconfig
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from ..figures import cost_text, plural
from .terminal import harmless, json_text, one_line

if TYPE_CHECKING:
    from ..agent import Agent

__all__ = ["list_agents"]


@click.command("list", short_help="Show the agents in a module or file.")
@click.argument("target", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object for each agent.")
def list_agents(target: str, as_json: bool) -> None:
    """Show the agents that TARGET, a module or a Python file, holds in its variables.

    TARGET is imported, so its code runs; what it prints goes to stderr.

    \b
    Examples:
      agentroute list app.py
      agentroute list mypackage.agents --json
    """
    module = _imported(target)
    agents = _agents(module)
    if not agents:
        raise click.ClickException(f"{target} holds no agent; expected a variable at its top level, such as agent = Agent(…)")
    if as_json:
        click.echo(json_text([_described(variable, agent) for variable, agent in agents], indent=2))
        return
    click.echo("\n\n".join(_card(_described(variable, agent)) for variable, agent in agents))


def _agents(module: ModuleType) -> list[tuple[str, Agent[Any]]]:
    """Variable and agent, in the order of the file; an agent with two names is there once."""
    from ..agent import Agent

    found: dict[int, tuple[str, Agent[Any]]] = {}
    for variable, value in vars(module).items():
        if isinstance(value, Agent):
            found.setdefault(id(value), (variable, value))
    return list(found.values())


def _described(variable: str, agent: Agent[Any]) -> dict[str, Any]:
    from ..config import without_password

    model = (
        agent.model
        if isinstance(agent.model, str)
        else getattr(agent.model, "model_id", None) or (agent.model and type(agent.model).__name__)
    )
    return {
        "name": agent.name,
        "variable": variable,
        "description": agent.description,
        "model": without_password(model) if isinstance(model, str) else None,
        "base_url": without_password(agent.base_url) if agent.base_url else None,
        "tools": [
            {"name": tool.name, "description": tool.description, "needs_approval": bool(tool.needs_approval)}
            for tool in agent.tools
        ],
        "output": "str" if agent.output is None else getattr(agent.output, "__name__", None) or str(agent.output),
        "max_turns": agent.max_turns,
        "max_cost_usd": agent.max_cost,
        "retries": agent.retries,
        "timeout_s": agent.timeout,
        "memory": type(agent.memory).__name__ if agent.memory is not None else None,
        "history": type(agent.history).__name__ if agent.history is not None else None,
    }


def _card(agent: dict[str, Any]) -> str:
    tools = [tool["name"] + (" (needs approval)" if tool["needs_approval"] else "") for tool in agent["tools"]]
    limits = [plural(agent["max_turns"], "turn"), f"{agent['retries']} {'retry' if agent['retries'] == 1 else 'retries'}"]
    limits += [f"{cost_text(agent['max_cost_usd'])} a run"] if agent["max_cost_usd"] is not None else ["no cost limit"]
    limits += [f"{agent['timeout_s']:g} s a model call"] if agent["timeout_s"] is not None else []
    lines = {
        "about": agent["description"],
        "model": (agent["model"] or "none yet") + (f" at {agent['base_url']}" if agent["base_url"] else ""),
        "tools": ", ".join(tools) or "none",
        "output": agent["output"],
        "limits": ", ".join(limits),
        "memory": agent["memory"],
        "history": agent["history"],
    }
    shown = [f"  {label:<8} {one_line(str(text), 300)}" for label, text in lines.items() if text]
    return "\n".join([f"{one_line(agent['name'], 100)}  ({agent['variable']})", *shown])


# ---- importing what the user wrote -----------------------------------------------------------------------------------


def _imported(target: str) -> ModuleType:
    """The module of that name, or in that file.

    Raises:
        click.ClickException: there is none, or it cannot be imported; the message says where it fails, in two lines.
    """
    path = Path(target).expanduser()
    if path.is_dir():
        raise click.ClickException(f"{target} is a directory; name a file in it, or a module")
    is_file = target.endswith(".py") or os.sep in target or path.is_file()
    if is_file and not path.is_file():
        raise click.ClickException(f"there is no file {target}")
    name, root = _name_of(path.absolute()) if is_file else (target, os.getcwd())
    if not all(part.isidentifier() for part in name.split(".")) and not is_file:
        raise click.UsageError(f"{target!r} is neither a file nor the name of a module")
    sys.path.insert(0, str(root))
    try:
        with redirect_stdout(sys.stderr):
            return _from_file(path.absolute(), name) if is_file else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not is_file and error.name and (name == error.name or name.startswith(f"{error.name}.")):
            problem = f"there is no module {error.name!r}, neither in {root} nor installed"
        else:
            problem = _failure(error, target)
    except (Exception, SystemExit) as error:
        problem = _failure(error, target)
    raise click.ClickException(problem)


def _name_of(path: Path) -> tuple[str, Path]:
    """What a file is called as a module, and the directory that name starts from: a file of a package may import relatively."""
    parts, directory = [path.stem], path.parent
    while (directory / "__init__.py").is_file() and directory.name.isidentifier():
        parts.insert(0, directory.name)
        directory = directory.parent
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts), directory


def _from_file(path: Path, name: str) -> ModuleType:
    if "." in name and path.suffix == ".py":
        return importlib.import_module(name)
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"_agentroute_{name}"  # a file may be called like a module that is in use here
    from importlib.machinery import SourceFileLoader

    spec = importlib.util.spec_from_file_location(name, path, loader=SourceFileLoader(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _failure(error: BaseException, target: str) -> str:
    """`FILE:LINE: Kind: message`, and the line itself below it."""
    if isinstance(error, SyntaxError) and error.filename:
        place, number, words = error.filename, error.lineno or 0, f"{type(error).__name__}: {error.msg}"
    else:
        place, number = _place(error)
        words = f"{type(error).__name__}: {error}".rstrip(": ")
        if isinstance(error, SystemExit):
            words = "it ends the program (sys.exit) when it is imported; put that under if __name__ == '__main__'"
    code = linecache.getline(place, number).strip() if place else ""
    head = f"{_short(place)}:{number}: " if place else f"{target} cannot be imported: "
    return head + one_line(words, 300) + (f"\n    {one_line(harmless(code), 120)}" if code else "")


def _place(error: BaseException) -> tuple[str, int]:
    """The innermost line of the user's own code; ("", 0) when there is none."""
    libraries = {sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")} | {
        str(Path(__file__).parents[1])
    }
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", *libraries)):
            return frame.filename, frame.lineno or 0
    return "", 0


def _short(place: str) -> str:
    try:
        return str(Path(place).relative_to(Path.cwd()))
    except ValueError:
        return place
