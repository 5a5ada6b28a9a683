"""The commands of `agentroute …`, each imported when it is asked for."""

from __future__ import annotations

import errno
import importlib
import sys
from typing import Any

import click

from .. import __version__
from ..errors import ErrorAgent
from .terminal import INTERRUPTED

__all__ = ["COMMANDS", "commands"]

COMMANDS = {
    "run": "run:run",
    "list": "listing:list_agents",
    "logs": "logs:logs",
    "runs": "runs:runs",
    "login": "login:login",
    "doctor": "doctor:doctor",
    "local": "local:local",
    "deploy": "deploy:deploy",
    "completion": "completion:completion",
}
"""Where each command lives, in the order of the help."""


class _Commands(click.Group):
    """Loads a command when it is asked for, and turns every failure into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f".{module}", __package__), name)
        return command

    def make_context(self, info_name: str | None, args: list[str], **extra: Any) -> click.Context:  # type: ignore[override]
        try:
            return super().make_context(info_name, args, **extra)
        except KeyboardInterrupt:
            raise _interrupted() from None

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            _write_what_can_be_written(stream)
        try:
            return super().invoke(ctx)
        except ErrorAgent as error:
            message = " ".join(str(error).split())
        except (KeyboardInterrupt, click.Abort):
            raise _interrupted() from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has left, as `head` does: click ends quietly
                raise
            message = f"{error.filename or 'the output'} cannot be used: {error.strerror or type(error).__name__}"
        raise click.ClickException(message)


def _interrupted() -> click.exceptions.Exit:
    """Says that it was interrupted; the exit code, to be raised. click's own would be 1."""
    click.echo("\nInterrupted." if sys.stderr.isatty() else "Interrupted.", err=True)
    return click.exceptions.Exit(INTERRUPTED)


def _write_what_can_be_written(stream: Any) -> None:
    """In a locale that is not UTF-8, a character it lacks is shown as its number and does not end the program."""
    if hasattr(stream, "reconfigure") and not (stream.encoding or "").lower().startswith("utf"):
        stream.reconfigure(errors="backslashreplace")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="agentroute")
def commands() -> None:
    """Run LLM agents, and know what they cost.

    \b
    Examples:
      agentroute login
      agentroute run anthropic/claude-sonnet-4 "Name three uses of a brick"
      agentroute run local/smollm2 "What is the capital of France?"
      agentroute logs -n 5

    `agentroute COMMAND --help` shows what a command takes.
    """
