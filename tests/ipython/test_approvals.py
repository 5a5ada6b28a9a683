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
from pydantic import BaseModel, Field, RootModel, SecretStr, field_serializer

from agentroute import Agent, Deny, ErrorConfig, Result, ToolCall, tool
from agentroute.context import Context
from agentroute.testing import ModelScripted
from agentroute_ipython import approvals
from agentroute_ipython.approvals import Approver
from agentroute_ipython.asking import waiting_cell
from agentroute_ipython.modes import APPROVALS
from agentroute_ipython.questions import line_bundle, question_bundle, question_text, verdict_line
from tests.ipython.kernels import Cell, Comm, Outcome, Session, kernel_environment
from tests.ipython.sandbox import unix_sockets
from tests.ipython.test_cells import Terminal
from tests.ipython.test_cells import terminal as terminal  # the fixture
from tests.terminals import press_ctrl_c

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


class Order(BaseModel):
    model_config = {"extra": "allow"}
    amount: float
    to: str = Field(exclude=True, repr=False)
    iban: str = "DE02120300000000202051"
    code: SecretStr = SecretStr("open sesame")

    @field_serializer("iban")
    def short(self, iban: str) -> str:
        return iban[-4:]


ORDER = Order(amount=5, to="mallory", more="an extra")  # type: ignore[call-arg]


@pytest.mark.parametrize("arguments", [{"o": ORDER}, {"o": [ORDER]}, {"o": {(1, 2): ORDER}}], ids=["plain", "in a list", "below a key that is no text"])
def test_all_that_the_tool_receives_is_shown_whatever_a_model_hides(arguments: dict[str, Any]) -> None:
    shown = question_text("pay", arguments)
    for text in ('"amount": 5.0', '"to": "mallory"', '"iban": "DE02120300000000202051"', '"code": "open sesame"', '"more": "an extra"'):
        assert text in shown


def test_root_of_a_model_is_shown_as_itself() -> None:
    assert question_text("pay", {"to": RootModel[list[str]](["bob"])}).splitlines()[2:5] == ['  "to": [', '    "bob"', "  ]"]


def test_key_like_texts_that_differ_can_be_told_apart_and_are_noted() -> None:
    calls = [
        {"to": f"pk_live_{n}{'9' * 16}{n}", "h": f"Authorization: {host}.com/a1b2c3/x9"} for n, host in ((1, "evil"), (2, "good"))
    ]
    texts = [question_text("pay", call) for call in calls]
    (one, *first), (two, *second) = (text.partition("\n}\n")[::2] for text in texts)
    assert one == two == 'pay needs your approval\n{\n  "to": "[key]",\n  "h": "Authorization: [key]"'
    assert first[0].count("not shown") == 2
    assert "26 characters ending in 991: not shown, as it may be a key. The tool gets it whole (SHA-256 of the text " in first[0]
    assert not set(first[0].splitlines()) & set(second[0].splitlines())
    assert html.escape(first[0].splitlines()[0]) in question_bundle("pay", calls[0])["text/html"]


def test_no_part_of_a_key_of_this_process_is_shown_in_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "hunter2-secretword-xyzzy-plugh"
    monkeypatch.setenv("AGENTROUTE_API_KEY", key)
    for arguments in ({"to": key}, {key: 1, "n": f"x {key} y"}, {"code": SecretStr(key)}, {"o": {(1, 2): key}}):
        shown = question_text("pay", arguments)
        assert "[key] stands for a key of this process: not shown" in shown
        assert not any(key[at : at + 4] in shown for at in range(len(key) - 3))


def test_names_that_look_like_keys_do_not_fall_into_one() -> None:
    shown = question_text("pay", {f"pk_live_{n}{'7' * 17}": n for n in range(3)})
    assert [line.strip().rstrip(",") for line in shown.splitlines()[2:5]] == ['"[key]": 0', '"[key]\'": 1', '"[key]\'\'": 2']
    assert shown.count("not shown") == 3


@pytest.mark.parametrize("character", "\u3164\u2800\ufe0f\ufe00\xa0\u200e\u200f\u061c\u3000\u200d\u180b\U000e0101\u2003\x1b\u00ad")
def test_what_looks_like_nothing_is_an_escape(character: str) -> None:
    for text in (
        question_text(f"t{character}", {"x": f"a{character}b"}, f"w{character}"),
        verdict_line("denied", f"t{character}", {"x": f"a{character}b"}, f"why{character}", f"w{character}"),
    ):
        assert character not in text
        assert text.count(f"{ord(character):x}") >= 3
    assert "é 東京 ж" in question_text("t", {"x": "é 東京 ж"})


def asks(approver: Approver, label: str, of: str, agent_name: str, run_id: str, cell: Any) -> None:
    async def main() -> None:
        waiting_cell.set(cell)
        await approver.for_case(label, of)(Context(run_id=run_id, agent_name=agent_name), CALL)

    asyncio.run(main())


def test_question_says_which_agent_of_which_run_asks(attended: None, capsys: pytest.CaptureFixture[str]) -> None:
    approver, cell = in_terminal(), Asked(*"nnnn")
    asks(approver, "good", "bot", "bot", "r1", cell)
    asks(approver, "good #2", "bot", "bot", "r2", cell)
    asks(approver, "good", "bot", "clerk", "r3", cell)
    asks(approver, "good", "bot", "clerk", "r4", cell)
    said = [line.removesuffix(" asks: refund needs your approval") for line in capsys.readouterr().out.splitlines() if "needs" in line]
    assert said == ["good", "good #2", "clerk in good", "clerk in good (run 2)"]
    assert cell.prompts == [f"{who} asks: {PROMPT}" for who in said]


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
def any_session(each_kernel: Session) -> Session:
    return ready(each_kernel)


def lines(outcome: Outcome) -> list[str]:
    """The plain text of what stands below the card; every output is static."""
    assert [output for output in outcome.outputs if set(output) - {"text/html", "text/plain"}] == []
    return [str(output["text/plain"]) for output in outcome.outputs[1:] if output]


def press(session: Session, cell: Cell, label: str, reason: str = "") -> None:
    session.wait(lambda: "buttons that a running notebook shows" in cell.text, 60, lambda: f"no buttons in {cell.text[-500:]}")
    session.wait(lambda: buttons(session, label) != [], 60, lambda: f"no {label} in {cell.text[-500:]}")
    button = buttons(session, label)[0]
    if reason:
        field = session.wait_for_widget(_model_name="TextModel")
        session.send_comm(field, {"method": "update", "state": {"value": reason}, "buffer_paths": []})
    session.click(button)
    session.wait(lambda: button.closed, 60, lambda: f"nothing came of {label}: {cell.text[-500:]}")


def buttons(session: Session, label: str) -> list[Comm]:
    """The buttons that can be pressed and whose label begins so."""
    return [
        comm
        for comm in session.comms.values()
        if str(comm.state.get("description", "")).startswith(label) and not comm.closed and not comm.state["disabled"]
    ]


def said_to_the_model(session: Session) -> list[str]:
    said = session.evaluate("[message['content'] for message in _agent.messages if message['role'] == 'tool']")
    return list(said)


def test_prompt_asks_and_its_answer_stays_as_one_line(any_session: Session) -> None:
    outcome = any_session.run("%agent careful --approval input Go.", answers=["y"])
    assert (outcome.status, outcome.prompts) == ("ok", [f"careful asks: {PROMPT}"]), outcome.text
    assert lines(outcome) == ['approved: refund(order_id="4821", amount=5.0)']
    assert any_session.evaluate("refunded") == [5.0]
    outcome = any_session.run("get_ipython().run_line_magic('agent', 'careful Go.')", answers=["too much"])
    assert lines(outcome) == ['denied: refund(order_id="4821", amount=5.0) because too much']
    assert said_to_the_model(any_session) == ["Not run: the user denied it (too much)."]
    assert any_session.evaluate("refunded") == [5.0]


def test_prompts_of_calls_at_once_come_one_after_the_other(any_session: Session) -> None:
    outcome = any_session.run("%agent both --approval input Go.", answers=["y", "n", "a"])
    assert outcome.prompts == [f"both asks: {PROMPT}"] * 3
    assert sorted(line.split(":")[0] for line in lines(outcome)) == ["approved", "approved for the whole run", "denied"]
    outcome = any_session.run("%agent both --approval input Go.", answers=["a"])
    assert outcome.prompts == [f"both asks: {PROMPT}"]
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
        assert (outcome.status, outcome.prompts) == ("ok", [f"careful in manager asks: {PROMPT}"]), outcome.text
        assert lines(outcome) == ['approved: careful in manager: refund(order_id="4821", amount=5.0)']
    assert any_session.evaluate("refunded") == [5.0, 5.0]


def test_captured_cell_shows_the_call_in_the_prompt(session: Session) -> None:
    outcome = session.run("%%capture held\n%agent careful Go.", answers=["y"])
    assert outcome.prompts[0].startswith(
        'careful asks: refund needs your approval\n{\n  "order_id": "4821",\n  "amount": 5.0\n}\ncareful asks: approve refund?'
    )
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
    session.wait(lambda: buttons(session, "Approve") != [], 60, lambda: cell.text)
    session.click(buttons(session, "Approve")[0], subshell)
    assert cell.outcome().status == "ok"
    assert session.evaluate("refunded") == [5.0]


NESTED = """
def inner(to, amount):
    calls = [[ToolCall("1", "refund", {"order_id": to, "amount": amount})], "Done."]
    return Agent("inner", model=ModelScripted(calls * 9), tools=[refund])
first, second = inner("alice", 1), inner("bob", 5000)
def in_a_thread(q: str) -> str:
    return first.run(q).output
async def on_the_loop(q: str) -> str:
    return (await second.arun(q)).output
pair = [ToolCall("1", "in_a_thread", {"q": "x"}), ToolCall("2", "on_the_loop", {"q": "x"})]
nested = Agent("nested", model=ModelScripted([pair, "Done."] * 9), tools=[in_a_thread, on_the_loop])
"""


def kinds(cell: Cell) -> list[str]:
    """What stands below the card, in order: of each question whom it names, and its row of buttons with the call that they name."""
    return [
        re.sub(r".*(Deny|\"order_id\":)[^\"]*\"(\w+)\".*", r"\1 \2", str(output["text/plain"]), flags=re.DOTALL) for output in cell.outputs[1:]
    ]


def test_buttons_stand_directly_below_their_question_also_of_runs_in_other_threads(session: Session) -> None:
    session.run(NESTED)
    session.run("from agentroute_ipython import panels\nput = panels.Spot.put\npanels.Spot.put = lambda *one: (put(*one), time.sleep(0.1))")
    for _ in range(2):
        cell = session.start("%agent nested Go.", answers=[])
        session.wait(lambda: len(cell.outputs) == 5, 60, lambda: cell.text)  # noqa: B023
        assert kinds(cell) in (
            ['"order_id": alice', "Deny alice", '"order_id": bob', "Deny bob"], ['"order_id": bob', "Deny bob", '"order_id": alice', "Deny alice"],
        )  # fmt: skip
        labels = sorted(comm.state["description"] for comm in buttons(session, "A"))
        assert labels[2:] == ['Approve refund(order_id="alice", amount=1.0)', 'Approve refund(order_id="bob", amount=5000.0)']
        (pay,) = buttons(session, 'Approve refund(order_id="alice"')
        assert pay.state["tooltip"] == pay.state["description"]
        session.click(pay)
        (deny,) = buttons(session, 'Deny refund(order_id="bob"')
        session.click(deny)
        assert cell.outcome().status == "ok"
    assert session.evaluate("refunded") == [1.0, 1.0]


def test_runs_that_are_compared_say_which_of_them_asks(session: Session) -> None:
    cell = session.start("%agent careful,both Go.", answers=[])
    cell.wait_for_output(lambda cell: cell.text.count("needs your approval") == 3)
    shown = [str(output["text/plain"]).partition("\n")[0] for output in cell.outputs]
    assert sorted(line for line in shown if "needs" in line) == [f"{who} asks: refund needs your approval" for who in ("both", "both", "careful")]
    assert sorted({comm.state["description"] for comm in buttons(session, "Always")}) == [
        "Always for this run of both: refund", "Always for this run of careful: refund",
    ]  # fmt: skip
    press(session, cell, "Always for this run of both")
    press(session, cell, 'Deny refund(order_id="4821", amount=5')
    outcome = cell.outcome()
    stay = sorted(str(output["text/plain"]) for output in outcome.outputs[1:] if output)
    assert stay[-1] == 'denied: careful: refund(order_id="4821", amount=5.0)'
    assert all(": both: refund(" in line for line in stay[:-1])
    session.run("from agentroute.testing import ModelFunction\neager = Agent('eager', model=ModelFunction(lambda request: calls(5)), tools=[refund])")
    cell = session.start("%agent eager -n 2 Go.", answers=[])
    cell.wait_for_output(lambda cell: cell.text.count("eager #1</b> asks") == cell.text.count("eager #2</b> asks") == 1)
    session.interrupt()
    stay = sorted(str(output["text/plain"]) for output in cell.outcome().outputs[1:] if output)
    assert [line.partition(": refund(")[0] for line in stay] == ["not answered: eager #1", "not answered: eager #2"]


def left(cell: Cell) -> list[str]:
    return sorted(str(output["text/plain"]).partition(":")[0] for output in cell.outputs[1:] if output)


def test_show_last_brings_the_buttons_back(any_session: Session) -> None:
    first = any_session.start("%agent both --background Go.", answers=[])
    any_session.wait(lambda: len(buttons(any_session, "Approve")) == 2, 60, lambda: first.text)
    again = any_session.start("%agent show last", answers=[])
    assert again.outcome().status == "ok"
    any_session.wait(lambda: len(buttons(any_session, "Approve")) == 4, 60, lambda: again.text)
    assert again.text.count("needs your approval") == 2 and "Stop both" in {comm.state["description"] for comm in buttons(any_session, "Stop")}
    any_session.click(buttons(any_session, "Approve")[3])
    any_session.wait(lambda: len(buttons(any_session, "Approve")) == 2, 60, lambda: again.text)
    any_session.click(buttons(any_session, "Stop")[-1])
    any_session.wait(lambda: left(first) == left(again) == ["approved", "not answered"], 60, lambda: f"{left(first)} {left(again)}")
    any_session.wait(lambda: all(comm.closed for comm in any_session.comms.values()), 60, lambda: f"{any_session.comms}")


def test_without_ipywidgets_it_is_a_prompt(session: Session) -> None:
    session.run("import importlib.util\nfind = importlib.util.find_spec\nimportlib.util.find_spec = lambda name, *rest: None if name == 'ipywidgets' else find(name, *rest)")
    outcome = session.run("%agent careful --approval button Go.", answers=["y"])
    assert outcome.prompts == [f"careful asks: {PROMPT}"]
    assert lines(outcome)[0] == "asked at a prompt: they need ipywidgets (pip install ipywidgets)"


def test_notebook_without_anybody_denies_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in kernel_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    sources = [SETUP, "%load_ext agentroute_ipython", "%agent careful Go.", "print(refunded)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    with unix_sockets() as config:
        NotebookClient(notebook, kernel_name="python3", timeout=60, config=config).execute()
    assert "nobody is there to answer" in notebook.cells[2].outputs[1]["data"]["text/plain"]
    assert notebook.cells[3].outputs[0]["text"] == "[]\n"


def test_terminal_asks_and_ctrl_c_at_the_prompt_stops_the_run(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "approvals.py").write_text(SETUP)
    terminal.run("%run approvals.py")
    shown = terminal.run("%agent careful Go.", until="a reason to deny: ")
    assert '"order_id": "4821"' in shown
    assert "Done." in terminal.run("y")
    terminal.run("%agent careful Go.", until="a reason to deny: ")
    press_ctrl_c(terminal.child, "Interrupted: the run was stopped")
    terminal.child.expect(r"In \[\d+\]: ")
    assert "[5.0]" in terminal.run("refunded")


def test_modes_are_those_of_the_trait_and_the_option(session: Session) -> None:
    for mode in APPROVALS:
        assert session.run(f"%config AgentMagics.approval = {mode!r}").status == "ok"
    assert "allow" in session.run("%config AgentMagics.approval = 'alow'").text
