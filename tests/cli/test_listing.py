"""`agentroute list`: the agents of a module or file, and what is wrong with one that cannot be imported."""

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import COMMAND, environment, run

APP = '''
from dataclasses import dataclass
from agentroute import Agent, tool

print("hello from the module")

@dataclass
class Ticket:
    summary: str

@tool
def order_status(order_id: int) -> str:
    "Says where an order is."
    return "here"

@tool(needs_approval=True)
def refund(order_id: int) -> str:
    "Pays back."
    return "paid"

support = Agent("support", model="anthropic/claude-sonnet-4", api_key="sk-secret", tools=[order_status, refund], output=Ticket, max_cost=0.25)
helper = Agent("\\x1b[31mhelper", model="http://user:hush@host/v1/m", max_turns=3, timeout=20)
same = support
several = [Agent("hidden")]
'''


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    before = set(sys.modules), list(sys.path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop_app.py").write_text(APP)
    yield tmp_path
    sys.path[:] = before[1]
    for name in set(sys.modules) - before[0]:
        del sys.modules[name]


@pytest.mark.parametrize("target", ["shop_app.py", "./shop_app.py", "shop_app"])
def test_agents_of_a_file_or_module_are_shown(target):
    result = run("list", target)
    assert result.exit_code == 0
    assert result.stdout == (
        "support  (support)\n"
        "  model    anthropic/claude-sonnet-4\n"
        "  tools    order_status, refund (needs approval)\n"
        "  output   Ticket\n"
        "  limits   10 turns, 1 retry, $0.2500 a run\n"
        "\n"
        "helper  (helper)\n"
        "  model    http://…@host/v1/m\n"
        "  tools    none\n"
        "  output   str\n"
        "  limits   3 turns, 1 retry, no cost limit, 20 s a model call\n"
    )


def test_json_is_an_array_and_what_the_module_prints_does_not_spoil_it():
    result = run("list", "shop_app.py", "--json")
    support, helper = json.loads(result.stdout)
    assert (support["name"], support["variable"], support["output"], support["max_cost_usd"]) == ("support", "support", "Ticket", 0.25)
    assert support["tools"][1] == {"name": "refund", "description": "Pays back.", "needs_approval": True}
    assert helper["max_turns"] == 3
    assert result.stderr == "hello from the module\n"
    assert "sk-secret" not in result.output
    assert "hush" not in result.output


def test_a_file_of_a_package_may_import_its_neighbours(here):
    package = here / "shop" / "agents"
    package.mkdir(parents=True)
    for directory in (package, package.parent):
        (directory / "__init__.py").touch()
    (package / "names.py").write_text("NAME = 'neighbour'")
    (package / "one.py").write_text("from agentroute import Agent\nfrom .names import NAME\nagent = Agent(NAME)\n")
    for target in ("shop/agents/one.py", "shop.agents.one"):
        assert run("list", target).stdout.startswith("neighbour  (agent)\n  model    none yet\n")


def test_a_file_may_be_called_like_a_module_in_use(here):
    (here / "json.py").write_text("from agentroute import Agent\nagent = Agent('odd')\n")
    assert run("list", "json.py").stdout.startswith("odd  (agent)")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os\nimport nothing_like_it\n", "bad.py:2: ModuleNotFoundError: No module named 'nothing_like_it'\n    import nothing_like_it\n"),
        ("x = 1\ndef f(:\n", "bad.py:2: SyntaxError: invalid syntax\n    def f(:\n"),
        ("def f():\n    return 1 / 0\nf()\n", "bad.py:2: ZeroDivisionError: division by zero\n    return 1 / 0\n"),
        ("from agentroute import Agent\nAgent('')\n", "bad.py:2: ErrorConfig: name must be a text that is not empty, got ''\n    Agent('')\n"),
        ("import sys\nsys.exit(3)\n", "bad.py:2: it ends the program (sys.exit) when it is imported; put that under if __name__ == '__main__'\n    sys.exit(3)\n"),
        ("raise ValueError('\\x1b[2Jgone')\n", "bad.py:1: ValueError: gone\n"),
        ("import json\njson.loads('{')\n", "bad.py:2: JSONDecodeError: "),
    ],
    ids=["import", "syntax", "inside", "agent", "exit", "escape", "library"],
)
def test_a_file_that_cannot_be_imported_is_told_with_its_line(source, said, here):
    (here / "bad.py").write_text(source)
    result = run("list", "bad.py")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {said}")
    assert len(result.stderr.splitlines()) <= 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ("none.py", 1, "there is no file none.py"),
        ("no_such_module", 1, "there is no module 'no_such_module', neither in "),
        ("shop_app.sub", 1, "there is no module 'shop_app.sub', neither in "),
        (".", 1, "is a directory"),
        ("not a name", 2, "is neither a file nor the name of a module"),
        ("json", 1, "json holds no agent; expected a variable at its top level, such as agent = Agent(…)"),
    ],
)
def test_a_target_without_agents_is_told(target, code, words):
    result = run("list", target)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr


def test_ctrl_c_while_importing_is_exit_code_130(here):
    (here / "stopped.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run([*COMMAND, "list", "stopped.py"], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")
