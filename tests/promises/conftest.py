"""What the promise tests share: OpenRouter stands on loopback, so a bare model string goes there as a user's would.

    def test_something(openrouter):
        server = openrouter("Hello.", repeat=True)              # answers as tests/server.py takes them
        Agent("assistant", model="claude-sonnet-4").run("Hi")
        server.requests[0]["model"]                             # "anthropic/claude-sonnet-4"
        server.headers[0]["authorization"]                      # f"Bearer {KEY}"

The key is in AGENTROUTE_API_KEY, the address in ~/.agentroute/config (`openrouter_base_url`) of the home every test has
for itself (tests/conftest.py). Nothing in `agentroute` is patched but the wait before a request is made again. A test
about keys takes `point_at` instead, and puts the key where it wants it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.server import ModelServer

KEY = "sk-or-promised-0123456789"
"""The OpenRouter key of these tests; it may stand in an Authorization header and nowhere else."""


def config_file() -> Path:
    """~/.agentroute/config of the running test, its directory made."""
    path = Path.home() / ".agentroute" / "config"
    path.parent.mkdir(exist_ok=True)
    return path


def point_openrouter_at(server: ModelServer, *lines: str) -> None:
    """Writes the config file: OpenRouter is at `server`; `lines` are further settings such as `api_key=…`."""
    config_file().write_text("\n".join([f"openrouter_base_url={server.base_url}", *lines]) + "\n")


def contents(request: dict[str, Any]) -> list[Any]:
    """The contents of the messages of a request body, in order; None where a message has none."""
    return [message.get("content") for message in request["messages"]]


def run_script(code: str, folder: Path, **environment: str) -> str:
    """What a program of its own process prints, run in `folder` with the home and key of the test; warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModelServer]]:
    """`serve(*answers, **options of ModelServer)` starts an endpoint on loopback, which ends with the test."""
    monkeypatch.setattr("agentroute.models.retry.BASE_S", 0.0)
    with ExitStack() as servers:

        def start(*answers: Any, **options: Any) -> ModelServer:
            return servers.enter_context(ModelServer(answers, **options))

        yield start


@pytest.fixture
def point_at(serve: Callable[..., ModelServer]) -> Callable[..., ModelServer]:
    """As `serve`, and OpenRouter is there; without any key."""

    def start(*answers: Any, **options: Any) -> ModelServer:
        server = serve(*answers, **options)
        point_openrouter_at(server)
        return server

    return start


@pytest.fixture
def openrouter(point_at: Callable[..., ModelServer], monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModelServer]:
    """As `point_at`, with KEY in AGENTROUTE_API_KEY."""
    monkeypatch.setenv("AGENTROUTE_API_KEY", KEY)
    return point_at
