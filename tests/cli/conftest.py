"""A command line with a home of its own, and no Ollama."""

import atexit
import os
import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentroute.cli.commands import commands
from tests.server import ModelServer


@pytest.fixture(autouse=True)
def no_ollama(monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", closed_port())


_TAKEN = socket.socket()
_TAKEN.bind(("127.0.0.1", 0))  # and held to the end, so that no server of a test, here or in another process, gets the port
atexit.register(_TAKEN.close)


def closed_port():
    """host:port where nobody listens."""
    return f"127.0.0.1:{_TAKEN.getsockname()[1]}"


def configure(**settings):
    """Lines in the config file of the test's own home."""
    directory = Path.home() / ".agentroute"
    directory.mkdir(mode=0o700, exist_ok=True)
    file = directory / "config"
    file.touch(mode=0o600)
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return file


def run(*arguments, **options):
    return CliRunner().invoke(commands, [str(argument) for argument in arguments], **options)


@pytest.fixture
def server():
    with ModelServer(["Bricks build walls."], repeat=True) as server:
        yield server


@pytest.fixture
def openrouter(server):
    """A server in OpenRouter's place."""
    configure(api_key="sk-or-v1-secret", openrouter_base_url=server.base_url)
    return server


COMMAND = [sys.executable, "-m", "agentroute"]


def environment(**more):
    """Of a subprocess: the test's own home and nothing that could reach elsewhere."""
    return {**os.environ, **more}
