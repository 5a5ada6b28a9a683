"""A name that is written wrong is told with the nearest right one, and costs no request."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from agentroute import Agent, HistorySlidingWindow, Memory
from agentroute.models import catalogue
from agentroute.models.openrouter import kept_file
from agentroute.testing import ModelScripted
from agentroute_ipython import load_ipython_extension, unload_ipython_extension
from tests.server import ModelServer


def order_status(order_id: str) -> str:
    return "shipped"


class Answer:
    order: str


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A server in the place of OpenRouter, which has two models and counts what it is asked."""
    for remembered in (catalogue._kept, catalogue._listed):
        remembered.cache_clear()
    with ModelServer(["A"], repeat=True) as server:
        ids = ["anthropic/claude-sonnet-4", "openai/gpt-4.1-mini"]
        listed = [{"id": name, "canonical_slug": name} for name in ids]
        kept_file().parent.mkdir(parents=True, exist_ok=True)
        kept_file().write_text(json.dumps({"at": time.time(), "base_url": server.base_url, "models": listed}))
        config = Path(kept_file().parent, "config")
        config.write_text(f"api_key=sk-test-0123456789\nopenrouter_base_url={server.base_url}\n")
        config.chmod(0o600)
        yield server


@pytest.fixture
def shell(server: ModelServer) -> Iterator[InteractiveShell]:
    shell = InteractiveShell.instance()
    load_ipython_extension(shell)
    shell.push({"order_status": order_status, "Answer": Answer, "past": Memory(), "short_past": HistorySlidingWindow(3)})
    shell.push({"support": Agent("support", model="openai/gpt-4.1-mini"), "scripted": ModelScripted(["A"])})
    yield shell
    unload_ipython_extension(shell)
    InteractiveShell.clear_instance()


MISSPELT = [
    # agents
    ("%%agent suport\nhi", "support"),
    ("%agent suppport hi", "support"),
    ("%%agent support,suport\nhi", "support"),
    ("%agent show suport", "support"),
    ("%agent show lst", "last"),
    ("%agent edit suport", "support"),
    # options and their values
    ("%%agent support --modle a/b\nhi", "--model"),
    ("%%agent support --tool order_status\nhi", "--tools"),
    ("%%agent support --max-costs 1\nhi", "--max-cost"),
    ("%%agent support --backgroud\nhi", "--background"),
    ("%agent support --fersh hi", "--fresh"),
    ("%%agent support --replay onyl\nhi", "only"),
    ("%%agent support --approval buton\nhi", "button"),
    ("%%agent support --history windw:3\nhi", "window"),
    # names of the notebook
    ("%%agent support --tools order_statis\nhi", "order_status"),
    ("%%agent support --output Anser\nhi", "Answer"),
    ("%%agent support --output flaot\nhi", "float"),
    ("%%agent support --memory psat\nhi", "past"),
    ("%%agent support --history shrt_past\nhi", "short_past"),
    ("%%agent support --model scriptd\nhi", "scripted"),
    # models
    ("%%agent support --model anthropic/claude-sonet-4\nhi", "anthropic/claude-sonnet-4"),
    ("%%agent support --model claude-sonet-4\nhi", "anthropic/claude-sonnet-4"),
    ("%%agent fresh --model openai/gtp-4.1-mini\nhi", "openai/gpt-4.1-mini"),
    ("%%agent support --models openai/gpt-4.1-mini,antropic/claude-sonnet-4\nhi", "anthropic/claude-sonnet-4"),
    # words and filters
    ("%agent runs --agnt support", "--agent"),
    ("%agent cost --modl a", "--model"),
    ("%agent cost wek", "week"),
    ("%agent doctor --ofline", "--offline"),
]


@pytest.mark.parametrize(("cell", "meant"), MISSPELT, ids=[cell.partition("\n")[0] for cell, _ in MISSPELT])
def test_a_misspelt_name_is_told_with_the_right_one_and_costs_no_request(shell, server, cell, meant):
    error = shell.run_cell(cell).error_in_exec
    assert type(error) is UsageError
    assert f"did you mean {meant}?" in str(error)
    assert server.paths == []


def test_the_right_names_do_cost_a_request(shell, server):
    shell.run_cell("%%agent support --model claude-sonnet-4 --tools order_status --history short_past\nhi").raise_error()
    assert [request["model"] for request in server.requests] == ["anthropic/claude-sonnet-4"]


def test_a_new_version_of_a_model_is_asked_for(shell, server):
    shell.run_cell("%%agent support --model anthropic/claude-sonnet-9\nhi").raise_error()
    assert [request["model"] for request in server.requests] == ["anthropic/claude-sonnet-9"]


def test_a_misspelt_setting_is_told_with_the_right_one(shell):
    with pytest.warns(UserWarning, match="Did you mean `approval`"):
        shell.run_line_magic("config", "AgentMagics.aproval = 'deny'")
    assert shell.magics_manager.registry["AgentMagics"].approval == "auto"
