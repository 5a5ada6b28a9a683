"""`agentroute login`: the OpenRouter key, checked and kept."""

from __future__ import annotations

import os
import sys

import click

from ..figures import cost_text
from .endpoints import Answer, ask_openrouter

__all__ = ["login"]


@click.command(short_help="Check your OpenRouter key and keep it in ~/.agentroute/config.")
@click.option(
    "--api-key",
    metavar="KEY",
    help="The key; left out, it is asked for and not shown. What is written here stays in the shell's history.",
)
@click.option(
    "--check/--no-check", default=True, show_default=True, help="Ask OpenRouter whether the key is good before it is kept."
)
def login(api_key: str | None, check: bool) -> None:
    """Check your OpenRouter key and keep it in ~/.agentroute/config, readable by you only.

    The key is asked for without echo, or read from stdin where that is no terminal. A key that OpenRouter refuses is
    not kept. Where OpenRouter cannot be reached, the key is kept and you are told that it was not checked.

    \b
    Examples:
      agentroute login
      pass show openrouter | agentroute login
      agentroute login --no-check < key.txt
    """
    from .._portal import run_blocking
    from ..config import Config, Secret

    if api_key is None:
        api_key = _asked_for()
    key = Secret(api_key)
    if not key:
        raise click.UsageError("the key is empty; https://openrouter.ai/keys makes one")
    answer = run_blocking(lambda: ask_openrouter(key)) if check else None
    if answer is not None and answer.key == "refused":
        raise click.ClickException(
            f"{answer.endpoint} refuses this key ({answer.detail}), so nothing was written. "
            "Copy it again from https://openrouter.ai/keys, or keep it all the same with --no-check."
        )
    config = Config()
    config.write_api_key(key)
    click.echo(f"The key is kept in {config.config_file}.")
    click.echo(_checked(answer), err=answer is None or answer.key != "accepted")
    for variable in ("AGENTROUTE_API_KEY", "OPENROUTER_API_KEY"):
        if os.environ.get(variable, "").strip():
            click.echo(f"Note: {variable} is set, and is used in place of the file.", err=True)
            break


def _asked_for() -> str:
    """What is typed at a terminal, else the first line of stdin; empty when the program was started without one."""
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        return str(click.prompt("OpenRouter API key", hide_input=True))
    return sys.stdin.buffer.readline().decode("utf-8-sig", "replace")


def _checked(answer: Answer | None) -> str:
    if answer is None:
        return "It was not checked."
    if answer.key == "accepted":
        left = "" if answer.credit_left_usd is None else f"; {cost_text(answer.credit_left_usd)} may still be spent with it"
        return f"{answer.endpoint} accepts it{left}."
    return f"It was not checked: {answer.detail}."
