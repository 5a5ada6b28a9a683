"""`agentroute completion`: the script that completes commands, options and models in a shell."""

from __future__ import annotations

import os

import click

__all__ = ["completion"]

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print a script that completes commands in your shell.")
@click.argument("shell", required=False, type=click.Choice(SHELLS))
def completion(shell: str | None) -> None:
    """Print the completion script for SHELL; left out, for the shell in $SHELL.

    \b
    Examples:
      eval "$(agentroute completion bash)"                  in ~/.bashrc
      eval "$(agentroute completion zsh)"                   in ~/.zshrc
      agentroute completion fish > ~/.config/fish/completions/agentroute.fish
    """
    from click.shell_completion import get_completion_class

    from .commands import commands

    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    if name not in SHELLS:
        raise click.UsageError(f"which shell? Write agentroute completion {'|'.join(SHELLS)}")
    maker = get_completion_class(name)
    assert maker is not None
    click.echo(maker(commands, {}, "agentroute", "_AGENTROUTE_COMPLETE").source())
