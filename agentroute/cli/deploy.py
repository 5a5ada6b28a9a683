"""`agentroute deploy`: says what is not there yet."""

from __future__ import annotations

import click

__all__ = ["deploy"]


@click.command(short_help="Not there yet: says what to do instead.")
@click.argument("target", required=False, type=click.Path())
def deploy(target: str | None) -> None:
    """Hosted deployment does not exist yet; this command says what to do instead, and ends with exit code 1.

    TARGET is a module or file with agents, as in `agentroute list`.

    \b
    Example:
      agentroute deploy app.py
    """
    what = target or "app.py"
    raise click.ClickException(
        f"hosted deployment does not exist yet, so nothing was deployed.\n\n"
        f"Until it does, run the agents in a process of your own:\n"
        f"  agentroute list {what}     shows the agents there are\n"
        f"  agent.run(...)             in a script, a cron job or a task queue\n"
        f"  await agent.arun(...)      in a web server (FastAPI, Starlette, aiohttp), many at once\n"
        f"Set AGENTROUTE_API_KEY there, max_cost= on each agent, and store=RunStore(PATH) to have a history."
    )
