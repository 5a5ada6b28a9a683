import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from traitlets.config import Config

from agentroute import Agent, Context, Result, Tool, ToolCall, Usage, tool
from agentroute.message import TurnUsage
from agentroute.testing import ModelScripted
from agentroute_ipython.reprs import bundle
from tests.ipython.sample_runs import ANSWER, STORY, agent, order_status

HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m\u202e"


@tool(needs_approval=True, timeout=5)
def refund(
    ctx: Context, order_id: str, amount: float = 4.9, how: Literal["card", "cash"] = "card", skus: list[str] | None = None
) -> str:
    """Pays money back.

    Args:
        order_id: the order's number
    """
    return "paid"


class Loud:
    """A value whose class says nothing about itself without raising."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__

    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)


@dataclass
class Nested:
    inner: Any


SHOWN = {
    "agent": lambda: agent(STORY),
    "result": lambda: agent(STORY).run("Where is order 4821?"),
    "tool": lambda: refund,
    "usage": lambda: Usage(1400, 180, 0.007, 3),
}


@pytest.fixture(scope="module")
def shells() -> list[InteractiveShell]:
    """A plain shell and that of a terminal, without the extension."""
    config = Config({"HistoryManager": {"enabled": False}})  # which all processes of this user share
    return [InteractiveShell(config=config), TerminalInteractiveShell(config=config)]


# ------------------------------------------------------------------------------------------------------- in one line


def test_usage_is_the_fields_that_are_not_zero() -> None:
    assert repr(Usage()) == "Usage()"
    assert repr(Usage(1400, 180, 0.007, 3)) == "Usage(input_tokens=1400, output_tokens=180, total_cost_usd=0.007, model_calls=3)"


def test_usage_reads_its_own_repr() -> None:
    usage = Usage()
    usage.add_turn(TurnUsage(10, 5, cost_usd=Decimal("0.1")))
    usage.add_turn(TurnUsage(None, None))
    assert eval(repr(usage)) == usage


def test_result_is_its_output_and_its_usage() -> None:
    said = repr(agent(STORY).run("Where is order 4821?"))
    assert said.startswith("Result(output='Order 4821 is on its way with DHL.\\n\\nI have refunded")
    assert "usage=Usage(input_tokens=1400, output_tokens=180, total_cost_usd=0.007, model_calls=3), messages=" in said
    assert repr(Result(None, interrupted=True)) == "Result(output=None, usage=Usage(), messages=0, interrupted=True)"


@pytest.mark.parametrize(
    "output",
    ["x" * 10**6, "\x1b[2J\u202e\n\n", ["line\nline"] * 5000, Loud(), Nested(Loud()), b"\x00" * 10**6],
    ids=["long", "hidden", "list", "loud", "inside", "bytes"],
)
def test_result_is_one_short_visible_line_whatever_it_holds(output: Any) -> None:
    said = repr(Result(output))
    assert len(said) < 250
    assert said.isprintable()


def test_tool_is_its_name_and_its_parameters() -> None:
    assert repr(tool(order_status)) == "Tool('order_status', parameters=[order_id])"
    assert repr(refund) == "Tool('refund', parameters=[order_id, amount, how, skus], needs_approval=True)"
    assert repr(Tool("now", "", {"type": "object"}, lambda: 1)) == "Tool('now')"


def test_tool_that_cannot_be_read_has_a_repr() -> None:
    def broken(x: "Missing") -> None:  # type: ignore[name-defined]  # noqa: F821
        """Does nothing."""

    assert repr(tool(broken)) == "Tool('broken')"
    assert repr(Tool.__new__(Tool)) == "Tool(None)"


def test_agent_is_its_name_model_tools_and_output() -> None:
    assert (
        repr(Agent("bot", model="m", tools=[order_status], output=list[int]))
        == "Agent('bot', model='m', tools=[order_status], output=list[int])"
    )
    assert repr(Agent("bot", output=int)) == "Agent('bot', output=int)"


def test_agent_with_a_model_that_has_no_repr_has_one() -> None:
    class Model(ModelScripted):
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert repr(Agent("bot", model=Model([]))) == "Agent('bot', model=<Model>)"


# ------------------------------------------------------------------------------------------------------ as a cell's value


@pytest.mark.parametrize("name", SHOWN)
def test_a_value_of_a_cell_is_html_and_text_without_the_extension(shells: list[InteractiveShell], name: str) -> None:
    value = SHOWN[name]()
    plain, terminal = (shell.display_formatter.format(value)[0] for shell in shells)
    assert plain == bundle(value) == value._repr_mimebundle_()
    assert list(plain) == ["text/html", "text/plain"]
    assert terminal["text/plain"] == plain["text/plain"]


@pytest.mark.parametrize("name", SHOWN)
def test_a_value_in_a_list_is_its_repr(shells: list[InteractiveShell], name: str) -> None:
    value = SHOWN[name]()
    for shell in shells:
        assert shell.display_formatter.format([value])[0] == {"text/plain": f"[{value!r}]"}


@pytest.mark.parametrize("name", SHOWN)
def test_a_class_is_shown_as_a_class(shells: list[InteractiveShell], name: str) -> None:
    kind = type(SHOWN[name]())
    assert list(shells[0].display_formatter.format(kind)[0]) == ["text/plain"]


def test_result_is_its_card() -> None:
    shown = bundle(agent(STORY).run("Where is order 4821?"))
    assert shown["text/html"].startswith('<section class="agr agr-done')
    assert shown["text/plain"].startswith(ANSWER)


def test_tool_is_shown_with_its_parameters() -> None:
    assert bundle(refund)["text/plain"].splitlines() == [
        "tool            refund",
        "description     Pays money back.",
        "needs approval  yes",
        "timeout         5 s",
        "",
        "parameter  type                    default   description",
        "order_id   string                  required  the order's number",
        "amount     number                  4.9",
        'how        "card" | "cash"         "card"',
        "skus       array of string | null  null",
    ]
    assert "<td" in bundle(refund)["text/html"] and "order&#x27;s" not in bundle(refund)["text/html"]


def test_tool_without_parameters_or_with_unreadable_ones_says_so() -> None:
    def broken(x: "Missing") -> None:  # type: ignore[name-defined]  # noqa: F821
        """Does nothing."""

    @tool
    def now() -> str:
        """The time."""
        return "12"

    assert bundle(now)["text/plain"].splitlines()[-1] == "parameters   none"
    assert "unknown: tool 'broken', x: a type hint cannot be resolved" in bundle(tool(broken))["text/plain"]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "string"),
        ({"type": "string", "format": "date"}, "string (date)"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"enum": ["a", 1, None]}, '"a" | 1 | null'),
        ({"const": "x"}, '"x"'),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer | null"),
        ({"allOf": [{"$ref": "#/$defs/Order"}]}, "Order"),
        ({"$ref": "#/$defs/Size"}, '"s" | "l"'),
        ({"$ref": "#/$defs/Nowhere"}, "Nowhere"),
        ({"type": "array", "items": {"$ref": "#/$defs/Order"}}, "array of Order"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "object of integer"),
        ({"type": "object", "additionalProperties": False}, "object"),
        ({}, "any"),
        (True, "any"),
        ({"anyOf": "no list", "type": 7}, "7"),
    ],
)
def test_type_of_a_parameter_is_told_in_words(schema: Any, words: str) -> None:
    schemas = {"Order": {"type": "object"}, "Size": {"enum": ["s", "l"]}}
    made = Tool("t", "", {"type": "object", "properties": {"x": schema}, "$defs": schemas}, print)
    assert bundle(made)["text/plain"].splitlines()[-1] == f"x          {words}"


def test_schema_that_refers_to_itself_ends() -> None:
    schema: dict[str, Any] = {"type": "array"}
    schema["items"] = schema
    assert "array of array of" in bundle(Tool("t", "", {"properties": {"x": schema}}, print))["text/plain"]


def test_agent_is_shown_with_settings_and_signatures_and_never_a_key() -> None:
    bot = Agent(
        "bot", model="https://me:sk-secret@host/v1/m", api_key="sk-secret", instructions="Be brief.", tools=[refund, order_status], output=list[int],
        extra={"api_key": "sk-secret"},
    )  # fmt: skip
    shown = bundle(bot)
    assert "sk-secret" not in "".join(shown.values()) + repr(bot)
    settings, tools = shown["text/plain"].split("\n\n")
    assert settings.splitlines() == [
        "agent         bot",
        "model         https://…@host/v1/m",
        "instructions  Be brief.",
        "output        list[int]",
        "max_turns     10",
        "retries       1",
    ]
    assert [line.split("  ")[0] for line in tools.splitlines()] == [
        "tool",
        'refund(order_id: string, amount: number = 4.9, how: "card" | "cash" = "card", skus: array of string | null = null)',
        "order_status(order_id: string)",
    ]
    assert tools.splitlines()[2].endswith("  Where an order is.")


@pytest.mark.parametrize(
    ("usage", "lines"),
    [
        (Usage(1400, 180, 0.007, 3, 1000, 20), ["calls       3 model calls", "tokens in   1,400, of them 1,000 cached", "tokens out  180, of them 20 reasoning", "cost        $0.0070"]),
        (Usage(model_calls=2, unknown_cost_calls=2, unknown_token_calls=2), ["calls   2 model calls", "tokens  tokens unknown", "cost    cost unknown"]),
        (Usage(5, 1, 0.5, 2, unknown_cost_calls=1, unknown_token_calls=1), ["calls       2 model calls", "tokens in   at least 5", "tokens out  at least 1", "cost        at least $0.5000; 1 call of unknown cost"]),
        (Usage(5, 1, 0.0, 1, replayed_calls=1, cost_saved_usd=0.01), ["calls       1 model call, 1 replayed, saved $0.0100", "tokens in   5", "tokens out  1", "cost        $0"]),
        (Usage(), ["calls       0 model calls", "tokens in   0", "tokens out  0", "cost        $0"]),
    ],
)  # fmt: skip
def test_usage_is_told_in_words(usage: Usage, lines: list[str]) -> None:
    assert bundle(usage)["text/plain"].splitlines() == lines


# --------------------------------------------------------------------------------------------------------- foreign text


def hostile_values() -> dict[str, Any]:
    schema = {"properties": {HOSTILE: {"type": HOSTILE, "default": HOSTILE, "description": HOSTILE}, "y": {"enum": [HOSTILE]}}}
    evil = Tool("t", HOSTILE, schema, print)
    return {
        "tool": evil,
        "agent": Agent(HOSTILE, model=HOSTILE, instructions=HOSTILE, description=HOSTILE, tools=[evil], tags={HOSTILE.replace("=", ""): HOSTILE}, output=type(HOSTILE, (), {"x": 1})),
        "answer": Result(HOSTILE),
        "output": Result({HOSTILE: [HOSTILE]}),
        "run": agent([HOSTILE], model=None).run(HOSTILE),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["tool", "agent", "answer", "output", "run"])
def test_foreign_text_is_escaped_and_made_visible(name: str) -> None:
    shown = bundle(hostile_values()[name])
    assert list(shown) == ["text/html", "text/plain"]
    assert "<img" not in shown["text/html"] and "&lt;img" in shown["text/html"]
    for text in shown.values():
        assert "\x1b" not in text and "\u202e" not in text


@pytest.mark.parametrize("length", [10**3, 10**5, 10**6])
def test_long_texts_are_cut(length: int) -> None:
    long = "word " * (length // 5)
    schema = {"properties": {f"p{n}": {"type": long, "description": long, "default": long} for n in range(200)}}
    evil = Tool("t", long, schema, print)
    for value in (evil, Agent("bot", model=long, instructions=long, tools=[evil]), Result(long)):
        assert max(len(text) for text in bundle(value).values()) < 60_000


@pytest.mark.parametrize(
    "output",
    [Loud(), [Loud()], {"a": Loud()}, {Loud(): 1}, Nested(Loud()), object(), float("nan"), {1, 2}, lambda: 1],
    ids=["loud", "list", "dict", "key", "dataclass", "object", "nan", "set", "function"],
)
def test_output_of_any_class_is_shown(output: Any) -> None:
    shown = bundle(Result(output))
    assert list(shown) == ["text/html", "text/plain"] and "done" in shown["text/plain"]


def test_what_cannot_be_read_is_shown_as_its_repr() -> None:
    class Model(ModelScripted):
        def __getattribute__(self, name: str) -> Any:
            return {}[name] if name == "model_id" else super().__getattribute__(name)

    bot = Agent("bot", model=Model([]))
    assert bundle(bot) == {"text/plain": repr(bot)}
    assert bundle(Agent.__new__(Agent)) == {"text/plain": "Agent(None)"}
    assert bundle(Loud()) == {"text/plain": "<Loud>"}


def test_nothing_heavy_is_loaded_to_show_a_value() -> None:
    code = (
        "import sys; sys.modules.update({name: None for name in ('IPython', 'pandas', 'numpy', 'ipywidgets')})\n"
        "from agentroute import Agent, Result, Usage, ToolCall\n"
        "shown = [value._repr_mimebundle_() for value in (Agent('bot'), Result('<b>'), Usage())]\n"
        "print([list(bundle) for bundle in shown], [name for name in ('httpx', 'sqlite3', 'matplotlib') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == f"{[['text/html', 'text/plain']] * 3} []\n"


def test_call_of_a_tool_stays_a_plain_value() -> None:
    assert bundle(ToolCall("1", "t", {})) == {"text/plain": "ToolCall(id='1', name='t', arguments={})"}
