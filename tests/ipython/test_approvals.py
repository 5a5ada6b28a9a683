"""Approvals in a notebook: who is asked, how, what is shown, and what is said where nobody can be."""

import asyncio
import html
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from agentroute import Agent, Deny, ErrorConfig, Result, ToolCall, tool
from agentroute.context import Context
from agentroute.testing import ModelScripted
from agentroute_ipython import approvals
from agentroute_ipython.approvals import Approver
from agentroute_ipython.asking import waiting_cell
from agentroute_ipython.modes import APPROVALS
from agentroute_ipython.panels import line_bundle, question_bundle, question_text, verdict_line
from tests.ipython.kernels import Cell, Outcome, Session, kernel_environment
from tests.ipython.test_cells import Terminal
from tests.ipython.test_cells import terminal as terminal  # the fixture

CALL = ToolCall("1", "refund", {"order_id": "4821", "amount": 5})
OTHER = ToolCall("2", "refund", {"order_id": "4822", "amount": 7})
PROMPT = "approve refund? [y]es, [n]o, [a]lways for this run, or a reason to deny: "


class Asked:
    """A cell that waits: it gives the answers in turn and writes down what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.prompts = list(answers), []

    def tell(self, show: Callable[[], None]) -> None:
        show()

    async def ask(self, prompt: str, begin: Callable[[], bool] = lambda: True) -> str:
        if not begin():
            return ""
        self.prompts.append(prompt)
        await asyncio.sleep(0)
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal with somebody before it."""
    monkeypatch.setattr(approvals, "_is_attended", lambda shell: True)


def decide(approver: Approver, *calls: ToolCall, cell: Any = None, run_id: str = "r1") -> list[bool | Deny]:
    async def main() -> list[bool | Deny]:
        waiting_cell.set(cell)
        return await asyncio.gather(*(approver.decide(Context(run_id=run_id), call) for call in calls))

    return asyncio.run(main())


def in_terminal(mode: str = "auto") -> Approver:
    return Approver(SimpleNamespace(), mode, can_click=False)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("y", True), ("Yes", True), ("a", True), ("ALWAYS", True),
        ("n", Deny()), ("no", Deny()), (" too much ", Deny("too much")), ("y es", Deny("y es")),
    ],
)  # fmt: skip
def test_answer_at_the_prompt_decides(attended: None, answer: str, verdict: bool | Deny) -> None:
    cell = Asked(answer)
    assert decide(in_terminal(), CALL, cell=cell) == [verdict]
    assert cell.prompts == [PROMPT]


def test_name_and_full_arguments_are_shown_before_it_asks(attended: None, capsys: pytest.CaptureFixture[str]) -> None:
    decide(in_terminal(), CALL, cell=Asked("y"))
    assert capsys.readouterr().out == 'refund needs your approval\n{\n  "order_id": "4821",\n  "amount": 5\n}\n'


def test_enter_alone_is_no_answer_and_three_of_them_a_denial(attended: None) -> None:
    cell = Asked("", "  ", "y")
    assert decide(in_terminal(), CALL, cell=cell) == [True]
    assert len(cell.prompts) == 3
    (verdict,) = decide(in_terminal(), CALL, cell=Asked("", "", "", "y"))
    assert isinstance(verdict, Deny)


def test_end_of_the_input_is_a_denial(attended: None) -> None:
    assert [type(verdict) for verdict in decide(in_terminal(), CALL, cell=Asked())] == [Deny]


def test_always_holds_for_this_tool_and_this_run_only(attended: None) -> None:
    approver, cell = in_terminal(), Asked("a", "n", "n", "n")
    assert decide(approver, CALL, cell=cell) == [True]
    assert decide(approver, OTHER, cell=cell) == [True]
    assert decide(approver, ToolCall("3", "pay", {}), cell=cell) == [Deny()]
    assert decide(approver, OTHER, cell=cell, run_id="r2") == [Deny()]
    assert decide(in_terminal(), OTHER, cell=cell) == [Deny()]
    assert cell.answers == []


@pytest.mark.parametrize("mode", ["auto", "button", "input"])
def test_where_nobody_is_there_the_call_is_denied_and_both_are_told(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[float] = []
    result = run_of(in_terminal(mode), done)
    assert done == []
    assert told(result) == ["Not run: refund needs approval, and nobody can give it here. Do not call it again."]
    assert capsys.readouterr().out == (
        "denied: refund needs approval, and nobody is there to answer (so it is under papermill, nbclient and in CI); "
        '%config AgentMagics.approval = "allow" approves every call, with nobody asked\n'
    )


def run_of(approver: Approver, done: list[float]) -> Result[Any]:
    @tool(needs_approval=True)
    def refund(order_id: str, amount: float) -> str:
        done.append(amount)
        return "refunded"

    return Agent("bot", model=ModelScripted([[CALL, OTHER], "ok"]), tools=[refund]).run("go", approve=approver.decide)


def told(result: Result[Any]) -> list[str]:
    return sorted({message["content"] for message in result.messages if message["role"] == "tool"})


def test_allow_approves_and_deny_denies_with_nobody_asked(attended: None, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[float] = []
    run_of(in_terminal("allow"), done)
    assert (sorted(done), capsys.readouterr().out) == ([5, 7], "")
    result = run_of(in_terminal("deny"), done)
    assert sorted(done) == [5, 7]
    assert told(result) == ["Not run: the user denied it (the settings of the notebook deny every call that needs approval)."]
    assert capsys.readouterr().out == 'denied: refund, as every call that needs approval (%config AgentMagics.approval = "auto" asks)\n'


def test_unknown_mode_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ErrorConfig, match=r"approval must be one of auto, button, input, deny, allow; got 'alow'.*allow"):
        in_terminal("alow")


def test_button_where_there_are_none_says_why_and_asks_at_the_prompt(attended: None, capsys: pytest.CaptureFixture[str]) -> None:
    cell = Asked("y")
    assert decide(in_terminal("button"), CALL, cell=cell) == [True]
    assert capsys.readouterr().out.startswith("asked at a prompt: a terminal has none\n")


# What is shown

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a\u202eb", "\x1b[2J\x1b]0;x\x07", "\u2066x\u2069", "\ud800", "\x00", "\u200b",
    "</pre></section><b>", "&lt;", "javascript:alert(1)", "`x`", "$(x)", "\r\x1b[A", "\u2028",
]  # fmt: skip
MARKUP = re.compile(r"</?(?:section|div|p|b|code|pre|span)(?: class=\"[a-z -]+\"| tabindex=\"0\")?>")


def text_of(markup: str) -> str:
    """The text of HTML that has no elements but our own."""
    text = MARKUP.sub("", markup.rpartition("</style>")[2])
    assert "<" not in text
    return html.unescape(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_is_visible_and_harmless(text: str) -> None:
    bundle = question_bundle(text, {text: [text, {"deep": text}]})
    line = line_bundle(verdict_line("denied", text, {"x": text}, text))
    shown = text_of(bundle["text/html"]), text_of(line["text/html"]), bundle["text/plain"], line["text/plain"]
    for one in shown:
        assert all(character.isprintable() or character == "\n" for character in one)
        assert not set("\u202e\u2066\u200b\ud800\x1b\x00") & set(one)
    assert "\n" not in line["text/plain"]


def test_a_million_characters_of_arguments_are_there_to_the_last() -> None:
    text = "".join(chr(97 + n % 26) for n in range(1_000_000))
    bundle = question_bundle("tool", {"text": text, "last": "the end"})
    assert text in text_of(bundle["text/html"])
    assert text in bundle["text/plain"]
    assert "characters; scroll to see all" in bundle["text/html"]
    assert '"last": "the end"' in bundle["text/plain"]
    assert len(verdict_line("approved", "tool", {"text": text})) < 300


def test_arguments_that_have_no_json_are_shown_as_python_shows_them() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]

    class Odd:
        def __repr__(self) -> str:
            raise ValueError

    circle: list[Any] = []
    circle.append(circle)
    for value in (deep, Odd(), circle, {(1, 2): 3}, {1, 2}, Path("x"), float("nan"), b"bytes"):
        assert question_text("tool", {"value": value}).startswith("tool needs your approval\n")
        assert verdict_line("approved", "tool", {"value": value}).startswith("approved: tool(")
    assert "PosixPath('x')" in question_text("tool", {"path": Path("x")})


def test_string_with_line_breaks_cannot_pass_for_other_arguments() -> None:
    assert question_text("pay", {"note": 'x",\n  "amount": 1'}).splitlines()[1:] == ["{", r'  "note": "x\",\n  \"amount\": 1"', "}"]


def test_line_that_stays_holds_no_style_and_no_ids() -> None:
    line = verdict_line("denied", "refund", {"order_id": "4821", "amount": 5}, "too much")
    assert line == 'denied: refund(order_id="4821", amount=5) because too much'
    assert line_bundle(line)["text/html"] == (
        "<div>denied:<code> refund(order_id=&quot;4821&quot;, amount=5) because too much</code></div>"
    )


# In kernels

SETUP = """
import asyncio, time
from agentroute import Agent, ToolCall, tool
from agentroute.testing import ModelScripted

@tool(needs_approval=True, timeout=0.3)
def refund(order_id: str, amount: float) -> str:
    refunded.append(amount)
    return "refunded"

refunded = []
def calls(*amounts):
    return [ToolCall(str(n), "refund", {"order_id": "4821", "amount": amount}) for n, amount in enumerate(amounts)]

careful = Agent("careful", model=ModelScripted([calls(5), "Done."] * 9), tools=[refund], max_cost=0.5)
both = Agent("both", model=ModelScripted([calls(1, 2), calls(3), "Done."] * 9), tools=[refund])
def ask_careful(what: str) -> str:
    return careful.run(what).output
manager = Agent("manager", model=ModelScripted([ToolCall("1", "ask_careful", {"what": "x"}), "All done."] * 9), tools=[ask_careful])
"""


def ready(session: Session) -> Session:
    assert session.run(SETUP).status == session.run("%load_ext agentroute_ipython").status == "ok"
    return session


@pytest.fixture
def session(kernel: Session) -> Session:
    return ready(kernel)


@pytest.fixture
def any_session(any_kernel: Session) -> Session:
    return ready(any_kernel)


def lines(outcome: Outcome) -> list[str]:
    """The plain text of what stands below the card; every output is static."""
    assert [output for output in outcome.outputs if set(output) - {"text/html", "text/plain"}] == []
    return [str(output["text/plain"]) for output in outcome.outputs[1:] if output]


def press(session: Session, cell: Cell, label: str, reason: str = "") -> None:
    session.wait(lambda: "buttons that a running notebook shows" in cell.text, 20, lambda: f"no buttons in {cell.text[-500:]}")
    button = session.wait_for_widget(_model_name="ButtonModel", description=label, disabled=False)
    if reason:
        field = session.wait_for_widget(_model_name="TextModel")
        session.send_comm(field, {"method": "update", "state": {"value": reason}, "buffer_paths": []})
    session.click(button)
    session.wait(lambda: button.closed, 20, lambda: f"nothing came of {label}: {cell.text[-500:]}")


def said_to_the_model(session: Session) -> list[str]:
    said = session.evaluate("[message['content'] for message in _agent.messages if message['role'] == 'tool']")
    return list(said)


def test_prompt_asks_and_its_answer_stays_as_one_line(any_session: Session) -> None:
    outcome = any_session.run("%agent careful --approval input Go.", answers=["y"])
    assert (outcome.status, outcome.prompts) == ("ok", [PROMPT]), outcome.text
    assert lines(outcome) == ['approved: refund(order_id="4821", amount=5.0)']
    assert any_session.evaluate("refunded") == [5.0]
    outcome = any_session.run("get_ipython().run_line_magic('agent', 'careful Go.')", answers=["too much"])
    assert lines(outcome) == ['denied: refund(order_id="4821", amount=5.0) because too much']
    assert said_to_the_model(any_session) == ["Not run: the user denied it (too much)."]
    assert any_session.evaluate("refunded") == [5.0]


def test_prompts_of_calls_at_once_come_one_after_the_other(any_session: Session) -> None:
    outcome = any_session.run("%agent both --approval input Go.", answers=["y", "n", "a"])
    assert outcome.prompts == [PROMPT] * 3
    assert sorted(line.split(":")[0] for line in lines(outcome)) == ["approved", "approved for the whole run", "denied"]
    outcome = any_session.run("%agent both --approval input Go.", answers=["a"])
    assert outcome.prompts == [PROMPT]
    assert any_session.evaluate("len(refunded)") == 5


def test_waiting_for_an_answer_takes_no_time_of_the_tool_and_no_money(session: Session) -> None:
    cell = session.start("%agent careful --approval input Go.", answers=[])
    cell.wait_for_prompt()
    with pytest.raises(TimeoutError):
        cell.outcome(timeout=0.6)
    session.answer("y")
    assert cell.outcome().status == "ok"
    assert session.evaluate("refunded") == [5.0]


def test_prompt_of_a_run_that_a_tool_has_begun_is_asked_in_the_cell(any_session: Session) -> None:
    for source in ("%agent manager --approval input Go.", "get_ipython().run_line_magic('agent', 'manager Go.')"):
        outcome = any_session.run(source, answers=["y"])
        assert (outcome.status, outcome.prompts) == ("ok", [PROMPT]), outcome.text
    assert any_session.evaluate("refunded") == [5.0, 5.0]


def test_captured_cell_shows_the_call_in_the_prompt(session: Session) -> None:
    outcome = session.run("%%capture held\n%agent careful Go.", answers=["y"])
    assert outcome.prompts[0].startswith('refund needs your approval\n{\n  "order_id": "4821",\n  "amount": 5.0\n}\napprove refund?')
    assert session.evaluate("refunded") == [5.0]


def test_frontend_that_cannot_ask_means_denied(any_session: Session) -> None:
    outcome = any_session.run("%agent careful Go.")
    assert outcome.status == "ok"
    assert lines(outcome) == [
        "denied: refund needs approval, and nobody is there to answer (so it is under papermill, nbclient and in CI); "
        '%config AgentMagics.approval = "allow" approves every call, with nobody asked'
    ]
    assert any_session.evaluate("refunded") == []
    assert any_session.run("%agent careful --approval allow Go.").status == "ok"
    assert any_session.evaluate("refunded") == [5.0]


def test_buttons_decide_while_the_cell_runs(session: Session) -> None:
    for label, reason, line, refunded in [
        ("Approve", "", 'approved: refund(order_id="4821", amount=5.0)', [5.0]),
        ("Deny", "too <b>much", 'denied: refund(order_id="4821", amount=5.0) because too <b>much', [5.0]),
        ("Deny", "", 'denied: refund(order_id="4821", amount=5.0)', [5.0]),
        ("Always for this run", "", 'approved for the whole run: refund(order_id="4821", amount=5.0)', [5.0, 5.0]),
    ]:
        cell = session.start("%agent careful Go.", answers=[])
        press(session, cell, label, reason)
        outcome = cell.outcome()
        assert (outcome.status, lines(outcome), outcome.prompts) == ("ok", [line], [])
        assert session.evaluate("refunded") == refunded
        assert [comm for comm in session.comms.values() if not comm.closed] == []
        session.comms.clear()


def test_always_answers_the_questions_that_stand_beside_it(session: Session) -> None:
    cell = session.start("%agent both Go.", answers=[])
    cell.wait_for_output(lambda cell: cell.text.count("needs your approval") == 2)
    press(session, cell, "Always for this run")
    outcome = cell.outcome()
    assert sorted(line.split(":")[0] for line in lines(outcome)) == ["approved for the whole run", "approved with the others"]
    assert session.evaluate("sorted(refunded)") == [1.0, 2.0, 3.0]


def test_buttons_of_a_run_that_a_tool_has_begun_are_answered(session: Session) -> None:
    cell = session.start("%agent manager Go.", answers=[])
    press(session, cell, "Approve")
    assert cell.outcome().status == "ok"
    assert session.evaluate("refunded") == [5.0]


def test_buttons_are_answered_on_a_subshell_too(session: Session) -> None:
    subshell = session.create_subshell()
    cell = session.start("%agent careful Go.", answers=[])
    session.click(session.wait_for_widget(_model_name="ButtonModel", description="Approve"), subshell)
    assert cell.outcome().status == "ok"
    assert session.evaluate("refunded") == [5.0]


def test_without_ipywidgets_it_is_a_prompt(session: Session) -> None:
    session.run("import importlib.util\nfind = importlib.util.find_spec\nimportlib.util.find_spec = lambda name, *rest: None if name == 'ipywidgets' else find(name, *rest)")
    outcome = session.run("%agent careful --approval button Go.", answers=["y"])
    assert outcome.prompts == [PROMPT]
    assert lines(outcome)[0] == "asked at a prompt: they need ipywidgets (pip install ipywidgets)"


def test_notebook_without_anybody_denies_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in kernel_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    sources = [SETUP, "%load_ext agentroute_ipython", "%agent careful Go.", "print(refunded)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    assert "nobody is there to answer" in notebook.cells[2].outputs[1]["data"]["text/plain"]
    assert notebook.cells[3].outputs[0]["text"] == "[]\n"


def test_terminal_asks_and_ctrl_c_at_the_prompt_stops_the_run(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "approvals.py").write_text(SETUP)
    terminal.run("%run approvals.py")
    shown = terminal.run("%agent careful Go.", until="a reason to deny: ")
    assert '"order_id": "4821"' in shown
    assert "Done." in terminal.run("y")
    terminal.run("%agent careful Go.", until="a reason to deny: ")
    terminal.child.sendintr()
    terminal.child.expect("Interrupted: the run was stopped")
    terminal.child.expect(r"In \[\d+\]: ")
    assert "[5.0]" in terminal.run("refunded")


def test_modes_are_those_of_the_trait_and_the_option(session: Session) -> None:
    for mode in APPROVALS:
        assert session.run(f"%config AgentMagics.approval = {mode!r}").status == "ok"
    assert "allow" in session.run("%config AgentMagics.approval = 'alow'").text
