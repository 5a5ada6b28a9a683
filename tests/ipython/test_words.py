"""The words of `%agent`: `show last`, `stop`, `last`; the others stand beside what they show."""

import re
import time

import pytest

from agentroute_ipython import background
from agentroute_ipython.arguments import RESERVED
from agentroute_ipython.words import _WORDS
from tests.ipython.shells import ShellNotebook


def test_every_reserved_word_does_something() -> None:
    assert {*_WORDS, "help", "last"} == set(RESERVED)


def test_the_last_run_is_shown_again(shell_notebook: ShellNotebook) -> None:
    assert "no run of a cell yet" in shell_notebook.mistake("%agent show last")
    shell_notebook.run("%agent bot -m scripted hi")
    assert re.search(r"A1\n\ndone, 1 model call", shell_notebook.run("%agent show last"))


def test_last_alone_is_no_agent(shell_notebook: ShellNotebook) -> None:
    assert shell_notebook.mistake("%agent last") == "last is no agent; the card of the last run: %agent show last"
    assert "no agent can be called last" in shell_notebook.mistake("%%agent last -m scripted\nhi")


def test_runs_in_the_background_are_kept_when_they_end(shell_notebook: ShellNotebook) -> None:
    shell_notebook.run("%%agent bot -m scripted --background --as answer\nhi")
    until = time.monotonic() + 60
    while background.running() and time.monotonic() < until:
        time.sleep(0.01)
    assert shell_notebook["answer"].output == "A1"


def test_stop_names_what_it_does_not_find(shell_notebook: ShellNotebook) -> None:
    assert shell_notebook.run("%agent stop") == "nothing runs in the background\n"
    assert shell_notebook.mistake("%agent stop bot") == "no run of bot in the background; nothing runs in the background"


@pytest.mark.parametrize("word", ["edit", "show"])
def test_words_that_need_an_agent_name_the_nearest(shell_notebook: ShellNotebook, word: str) -> None:
    shell_notebook.run("%agent support -m scripted hi")
    assert "did you mean support?" in shell_notebook.mistake(f"%agent {word} suport")
    assert "which agent?" in shell_notebook.mistake(f"%agent {word}")


@pytest.mark.parametrize(("name", "meant"), [("shwo", "%agent show"), ("lisst", "%agent list"), ("hlep", "%agent help"), ("suport", "support")])
def test_a_line_makes_no_new_agent_of_the_default_model(shell_notebook: ShellNotebook, name: str, meant: str) -> None:
    shell_notebook.run("%config AgentMagics.model = 'scripted'")
    shell_notebook.run("%%agent support\nhi")
    message = shell_notebook.mistake(f"%agent {name} last week")
    assert message.startswith(f"no agent called {name}; did you mean {meant}?\nOn one line a new agent needs --model")
    assert name not in shell_notebook.magics.agents.known()
    shell_notebook.run(f"%agent {name} -m scripted hi")
    shell_notebook.run(f"%agent {name} hi")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("history 7d", "agentroute_ipython.history()"), ("usage today", "agentroute_ipython.usage()"), ("replay off", "%config AgentMagics.replay"),
        ("compare a,b", "%%agent A,B"), ("models list", "Tab after --model"), ("delete support", "agentroute.forget"), ("record none", "AgentMagics.record"),
        ("tools order_status", "%agent show NAME"), ("status all", "On one line a new agent needs --model"),
    ],
)  # fmt: skip
def test_what_looks_like_a_word_sends_nothing(shell_notebook: ShellNotebook, line: str, hint: str) -> None:
    shell_notebook.run("%config AgentMagics.model = 'scripted'")
    assert hint in shell_notebook.mistake(f"%agent {line}")


def test_cell_may_name_an_agent_much_like_a_word(shell_notebook: ShellNotebook) -> None:
    shell_notebook.run("%config AgentMagics.model = 'scripted'")
    shell_notebook.run("%%agent editor\nBe brief.\n---\nhi")
    shell_notebook.run("%agent editor hi")
