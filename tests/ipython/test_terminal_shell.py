"""`%%agent` in IPython in a terminal: text as it comes, Ctrl-C, and approval at a prompt."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentroute import ToolCall
from tests.ipython.test_cells import Terminal
from tests.ipython.versions import INSTALLED
from tests.server import ModelServer, Raw
from tests.terminals import press_ctrl_c

SETUP = """
from agentroute import Agent, tool

@tool(needs_approval=True)
def refund(order_id: str, amount: float) -> str:
    "Pays money back."
    with open("refunds", "a") as file:
        file.write(order_id + chr(10))
    return "refunded"
"""
PAY = ToolCall("1", "refund", {"order_id": "4821", "amount": 4.9})
FIRST, REST = "The first half of it", ", and the rest."


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "setup.py").write_text(SETUP)
    terminal = Terminal(tmp_path, INSTALLED)
    terminal.run("%run setup.py")
    terminal.run("%load_ext agentroute_ipython")
    yield terminal
    terminal.child.close(force=True)


def event(text: str) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return Raw.sse(chunk, done=False).body[0]


def half_an_answer() -> ModelServer:
    """Sends the first half, and then nothing for a long time."""
    return ModelServer([Raw(body=[event(FIRST)], headers={"content-type": "text/event-stream"}, hold_s=60)])


def asked(terminal: Terminal, server: ModelServer, until: str = "a reason to deny: ") -> str:
    return terminal.run(f"%%agent payer -m {server.model} -t refund", "Pay 4.90 USD back.", "", "", until=until)


def refunds(folder: Path) -> list[str]:
    path = folder / "refunds"
    return path.read_text().split() if path.exists() else []


def test_text_is_printed_as_it_comes_and_ctrl_c_ends_the_run(terminal: Terminal) -> None:
    with half_an_answer() as server:
        terminal.run(f"%%agent bot -m {server.model}", "Go.", "", "", until=FIRST)
        assert not server.closed_early.is_set()
        press_ctrl_c(terminal.child, "interrupted")
        terminal.child.expect(r"In \[\d+\]: ")
        assert server.closed_early.wait(60)
        assert FIRST not in terminal.child.before  # what was printed once is not printed again
        assert "True" in terminal.run("_agent.interrupted")
        assert FIRST in terminal.run("print(_agent.record.messages[-1].content_text)")


def test_the_whole_answer_is_printed_once_with_its_usage_below(terminal: Terminal) -> None:
    with ModelServer([FIRST + REST]) as server:
        printed = terminal.run(f"%%agent bot -m {server.model}", "Go.", "", "")
    assert printed.count(FIRST + REST) == 1
    assert printed.rstrip().splitlines()[-1].startswith("done, 1 model call, 10 tokens in / 5 out, $0.0010")


@pytest.mark.parametrize(("answer", "paid"), [("y", ["4821"]), ("n", []), ("too much", [])])
def test_call_is_shown_whole_and_asked_about(terminal: Terminal, tmp_path: Path, answer: str, paid: list[str]) -> None:
    with ModelServer([PAY, "Well."]) as server:
        before = asked(terminal, server)
        assert 'refund(order_id="4821", amount=4.9)' in before.replace("\r\n", "")
        assert refunds(tmp_path) == []
        assert "Well." in terminal.run(answer)
        told = server.requests[1]["messages"][-1]["content"]
    assert refunds(tmp_path) == paid
    assert ("too much" in told) == (answer == "too much")
    assert ("refunded" in told) == (paid != [])


def test_ctrl_c_at_the_question_ends_the_run_and_runs_nothing(terminal: Terminal, tmp_path: Path) -> None:
    with ModelServer([PAY, "Well."]) as server:
        asked(terminal, server)
        press_ctrl_c(terminal.child, r"In \[\d+\]: ")
        assert len(server.requests) == 1
    assert refunds(tmp_path) == []
    assert "True" in terminal.run("_agent.interrupted")


def test_hostile_text_does_not_command_the_terminal(terminal: Terminal) -> None:
    with ModelServer(["\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m \u202eevil\x08\x08 end."]) as server:
        printed = terminal.run(f"%%agent bot -m {server.model}", "Go.", "", "")
    assert r"\x1b]0;owned\x07\x1b[2Jred\x9b31m \u202eevil\x08\x08 end." in printed
    assert [character for character in "\x1b\x07\x9b\x08\u202e" if character in printed] == []
