"""`agentroute run`: one prompt to one model, its answer on stdout as it comes."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..errors import ErrorAgent
from .terminal import INTERRUPTED, Harmless, argument_text, harmless, json_text, usage_words

if TYPE_CHECKING:
    from ..agent import Agent
    from ..result import Result

__all__ = ["run"]

REPLAY_MODES = ("on", "off", "only", "fresh")
AGENT_NAME = "cli"
"""What the run history calls the agent of these runs."""


class _Number(click.FloatRange):
    """A number that is one: `nan` and `inf` are out of every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        return number if math.isfinite(number) else self.fail(f"{value} is not a finite number.", param, ctx)


def _complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from ..models.weights import CATALOGUE

    return [model for model in (f"local/{name}" for name in CATALOGUE) if model.startswith(incomplete)]


@click.command(short_help="Send a prompt to a model and print its answer.")
@click.argument("model", shell_complete=_complete_model)
@click.argument("prompt", required=False)
@click.option("-i", "--instructions", metavar="TEXT", help="What the model is told before the prompt (its system message).")
@click.option(
    "--image",
    "images",
    metavar="URL|PATH",
    type=click.Path(),
    multiple=True,
    help="A picture to send along: PNG, JPEG, GIF or WebP. May be given again.",
)
@click.option("--max-cost", metavar="USD", type=_Number(min=0), help="Most this run may spend.")
@click.option("--max-tokens", metavar="N", type=click.IntRange(min=1), help="Most tokens in the answer.")
@click.option("--temperature", metavar="T", type=_Number(min=0), help="0 for steady answers, higher for varied ones.")
@click.option(
    "--timeout", metavar="SECONDS", type=_Number(min=0, min_open=True), help="Most time the answer may take in all."
)
@click.option("--base-url", metavar="URL", help="An OpenAI-compatible endpoint. Your OpenRouter key is not sent there.")
@click.option("--api-key-env", metavar="NAME", help="The environment variable that holds the key for this run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (output, usage, run_id, model, …) in place of text.")
@click.option(
    "--record/--no-record", default=True, show_default=True, help="Keep the run in the history that `agentroute logs` shows."
)
@click.option("--tag", "tags", metavar="NAME=VALUE", multiple=True, help="A tag for the history. May be given again.")
@click.option(
    "--replay",
    "replay_mode",
    type=click.Choice(REPLAY_MODES),
    help="on: serve an answer that was paid for before; only: and send nothing; fresh: ask, and keep the new answer. Else $AGENTROUTE_REPLAY, else off.",
)
@click.option("--fresh", is_flag=True, help="The same as --replay fresh.")
@click.option("-q", "--quiet", is_flag=True, help="No usage line on stderr.")
def run(
    model: str,
    prompt: str | None,
    instructions: str | None,
    images: tuple[str, ...],
    as_json: bool,
    record: bool,
    tags: tuple[str, ...],
    replay_mode: str | None,
    fresh: bool,
    quiet: bool,
    base_url: str | None,
    api_key_env: str | None,
    **settings: Any,
) -> None:
    """Send PROMPT to MODEL and print the answer as it comes.

    MODEL is a name at OpenRouter (anthropic/claude-sonnet-4), ollama/NAME, local/NAME, local/PATH.gguf or a URL that
    ends in the model's name. PROMPT is read from stdin when it is `-`, or left out with stdin no terminal.

    The answer goes to stdout; a line with tokens, cost, seconds and calls goes to stderr.

    \b
    Examples:
      agentroute run anthropic/claude-sonnet-4 "Name three uses of a brick"
      agentroute run local/smollm2 "What is the capital of France?" -q
      agentroute run gpt-4o-mini "Summarize the week" --tag team=a --replay on
      git diff | agentroute run openai/gpt-4o-mini -i "Write a commit message for this diff"
      agentroute run google/gemini-2.5-flash "What is this?" --image cat.png
      agentroute run qwen3 "Hello" --base-url http://localhost:8000/v1 --json | jq .usage
    """
    from ..agent import Agent
    from ..store import RunStore

    mode = _replay_mode(replay_mode, fresh=fresh, record=record)
    given_tags = _tags(tags)
    text = _prompt(prompt)
    agent = Agent(
        AGENT_NAME,
        model=argument_text(model),
        base_url=base_url,
        api_key=_key(api_key_env),
        instructions=None if instructions is None else argument_text(instructions),
        store=RunStore() if record else None,
        record=record,
        tags=given_tags,
        **settings,
    )
    with _warnings_as_lines(), _replaying(mode):
        _show(agent, _content(text, images), as_json=as_json, quiet=quiet)


def _replay_mode(given: str | None, *, fresh: bool, record: bool) -> str | None:
    """What --replay and --fresh say; None when they say nothing.

    Raises:
        click.UsageError: they contradict each other, or --no-record.
    """
    if fresh and given not in (None, "fresh"):
        raise click.UsageError(f"--fresh asks the model, and --replay {given} says otherwise; give one of them")
    mode = "fresh" if fresh else given
    if mode not in (None, "off") and not record:
        raise click.UsageError(f"--no-record keeps nothing, so there is nothing to replay; leave it out, or --replay {mode}")
    return mode


def _replaying(mode: str | None) -> AbstractContextManager[None]:
    from ..replays import replay

    return nullcontext() if mode is None else replay(mode)


def _tags(given: tuple[str, ...]) -> dict[str, str]:
    tags = {}
    for text in map(argument_text, given):
        name, equals, value = text.partition("=")
        if not name.strip() or not equals:
            raise click.UsageError(f"--tag takes NAME=VALUE, such as tenant=a; got {text}")
        tags[name.strip()] = value.strip()
    return tags


def _prompt(given: str | None) -> str:
    """The prompt of the command line, or stdin.

    Raises:
        click.UsageError: there is none. click.ClickException: stdin holds no text.
    """
    if given in (None, "-") and (sys.stdin is None or (given is None and sys.stdin.isatty())):
        raise click.UsageError('there is no prompt; write agentroute run MODEL "PROMPT", or pipe a text in')
    if given in (None, "-"):
        try:
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise click.ClickException(f"stdin is not UTF-8 text (byte {error.start + 1}); a picture goes with --image") from None
    else:
        text = argument_text(str(given))
    if not text.strip():
        raise click.UsageError("the prompt is empty")
    return text


_IN_PYTHON = {", the path of a picture, or its bytes": " or the path of a picture", ", a path or bytes": " or a path"}
"""Ways to give a picture that a command line has not."""


def _content(text: str, images: tuple[str, ...]) -> Any:
    from ..content import image
    from ..errors import ErrorConfig

    try:
        return [text, *(image(argument_text(source)) for source in images)] if images else text
    except ErrorConfig as error:
        message = str(error).replace("image(): ", "--image: ", 1)
        for words, ours in _IN_PYTHON.items():
            message = message.replace(words, ours)
    raise click.ClickException(message)


def _key(variable: str | None) -> Any:
    from ..config import Secret

    if variable is None:
        return None
    if not (value := os.environ.get(variable, "").strip()):
        raise click.ClickException(f"the environment variable {variable!r}, named by --api-key-env, is not set")
    return Secret(value)


def _show(agent: Agent[str], content: Any, *, as_json: bool, quiet: bool) -> None:
    """The run, shown; what was done until a failure or Ctrl-C is told too, and the error raised."""
    page = _Page(silent=as_json)
    stream = agent.stream(content)
    failure: BaseException | None = None
    result: Result[Any] | None = None
    try:
        with stream:
            for event in stream:
                if event.kind == "text_delta":
                    page.write(event.data["delta"], event.data["turn"])
        result = stream.result
    except ErrorAgent as error:
        failure, result = error, error.result
    except KeyboardInterrupt as error:
        failure, result = error, _so_far(stream)
    page.end()
    if failure is None and result is not None and as_json:
        click.echo(json_text(_object(result)))
    said = "" if quiet or (as_json and failure is None) else _figures(result)
    if isinstance(failure, KeyboardInterrupt):
        click.echo(f"Interrupted: {said}" if said else "Interrupted.", err=True)
        raise click.exceptions.Exit(INTERRUPTED)
    if said:
        click.echo(said, err=True)
    if failure is not None:
        raise failure
    if (
        result is not None
        and result.record is not None
        and result.record.turns[-1:]
        and result.record.turns[-1].finish_reason == "length"
    ):
        click.echo("Warning: the answer was cut off at max_tokens.", err=True)


def _figures(result: Result[Any] | None) -> str:
    """The usage line; empty when no model was called."""
    if result is None or result.record is None or not result.usage.model_calls:
        return ""
    return usage_words(result.usage, result.record.run.duration_s)


def _so_far(stream: Any) -> Result[Any] | None:
    try:
        return stream.result  # type: ignore[no-any-return]
    except (RuntimeError, ErrorAgent) as error:
        return getattr(error, "result", None)


class _Page:
    """stdout, written piece by piece and ended with a line end."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._text = Harmless()
        self._turn = 1
        self._within_line = False

    def write(self, piece: str, turn: int) -> None:
        if turn != self._turn:
            self.end()
            self._turn = turn
        self._put(self._text.feed(piece))

    def end(self) -> None:
        self._put(self._text.end())
        if self._within_line:
            self._put("\n")

    def _put(self, text: str) -> None:
        if text and not self._silent:
            self._within_line = not text.endswith("\n")
            click.echo(text, nl=False)


def _object(result: Result[Any]) -> dict[str, Any]:
    """What --json prints."""
    assert result.record is not None
    run, turns = result.record.run, result.record.turns
    usage = {name: value for name, value in asdict(result.usage).items() if not name.startswith("_")}
    return {
        "output": result.output,
        "usage": {**usage, "cost_usd": result.usage.cost_usd},
        "run_id": run.run_id,
        "model": run.request_model,
        "response_model": turns[-1].response_model if turns else None,
        "finish_reason": turns[-1].finish_reason if turns else None,
        "duration_s": run.duration_s,
    }


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """A warning (the history cannot be written, say) is a line on stderr without a place in our code."""

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        click.echo(f"Warning: {harmless(' '.join(str(message).split()))}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
