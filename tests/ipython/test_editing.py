"""`%agent edit`: the text of a cell taken apart and put together, and the form against a page that only writes cells."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.error import UsageError

from agentroute import Agent, ErrorConfig, Tool, tool
from agentroute_ipython.arguments import Options
from agentroute_ipython.cell_source import Cell, cell_text, literal
from agentroute_ipython.editing import Form, edit
from agentroute_ipython.interpolation import interpolate
from tests.ipython.kernels import Session
from tests.ipython.shells import ShellNotebook

NAMES = {"name": "FILLED", "x": "FILLED", "é": "FILLED"}
PIECES = st.sampled_from(["{name}", "{{x}}", "{", "}", "{é}", "{²}", "{{²}}", "---", "\\---", "\n", " ", "\t", '"', "'", "\\", "--model", "-m", "a,", "=", "#", "%%agent", "?", "é", "😀", "\r", "\x0c", "\u2028"])
TEXTS = st.lists(PIECES | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)
IN_LINE = TEXTS.filter(lambda text: text.strip() and text.splitlines() == [text])
IDENTIFIERS = st.sampled_from(["order_status", "refund", "é", "x"])
COUNTS = st.integers(1, 10**9)
AMOUNTS = st.floats(0, 1e9, allow_nan=False)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


TAG = st.tuples(IN_LINE.map(lambda text: text.strip().replace("=", "")).filter(bool), IN_LINE.map(str.strip))
OPTIONS = st.builds(
    Options,
    model=maybe(IN_LINE),
    tools=maybe(st.lists(IDENTIFIERS, min_size=1, unique=True).map(tuple)),
    output=maybe(IDENTIFIERS),
    instructions=maybe(IN_LINE | TEXTS.map(str.strip).filter(bool)),
    max_cost=maybe(AMOUNTS),
    max_turns=maybe(COUNTS),
    retries=maybe(COUNTS),
    temperature=maybe(AMOUNTS),
    max_tokens=maybe(COUNTS),
    memory=maybe(IN_LINE),
    history=maybe(IDENTIFIERS | st.tuples(st.sampled_from(["window", "truncate"]), COUNTS)),
    tag=maybe(st.lists(TAG, min_size=1, max_size=3, unique=True).map(tuple)),
)


def fill(text: str) -> str:
    return interpolate(text, NAMES)


def read(source: str) -> Cell:
    cell = Cell.read(source)
    assert cell is not None
    return cell


def changed(source: str, **changes: str) -> str:
    return read(source).with_changes(changes).source


# The text of a cell


@given(TEXTS)
def test_literal_text_comes_out_of_a_cell_as_it_is(text: str) -> None:
    assert interpolate(literal(text), NAMES) == text


@given(OPTIONS)
def test_written_options_are_read_again_as_the_same(options: Options) -> None:
    cell = read(cell_text("support", options))
    assert cell.options(fill) == options
    assert cell.parsed(fill).names == ("support",)
    assert cell.parsed(fill).define


@given(TEXTS, TEXTS, TEXTS)
def test_a_cell_taken_apart_is_the_same_cell(above: str, line: str, body: str) -> None:
    source = f"# {above.replace(chr(10), ' ')}\n%%agent {line}\n{body}"
    cell = Cell.read(source)
    assert cell is None or cell.source == source


@given(TEXTS, st.sampled_from(["%%agent a\n---\nask", "%%agent a --define", "%%agent a -m x\n\nask", "%%agent a --define\n\nold\n\n", "%%agent a\n\nold\n --- \n---\nask"]))
def test_instructions_written_are_the_instructions_read(text: str, source: str) -> None:
    text = text.strip()
    cell = read(source).with_changes({"instructions": text})
    assert cell.values().get("instructions", "") == text
    assert read(cell.source) == cell


@pytest.mark.parametrize(
    ("source", "changes", "after"),
    [
        ("%%agent a  -m x   --fresh\nask", {"model": "y z"}, '%%agent a  -m "y z"   --fresh\nask'),
        ("%%agent a --model=x --as r\nask", {"model": "y"}, "%%agent a --model=y --as r\nask"),
        ("%%agent a -t f -t g --fresh\nask", {"tools": "g,h"}, "%%agent a -t g,h --fresh\nask"),
        ("%%agent a --max-cost 1 --fresh  \nask", {"max_cost": ""}, "%%agent a --fresh  \nask"),
        ("# why\n\n%%agent -m x a\nask", {"max_turns": "3"}, "# why\n\n%%agent -m x a --max-turns 3\nask"),
        ("%%agent a --tools f , g -m x\nask", {"tools": "f"}, "%%agent a --tools f -m x\nask"),
        ("%%agent a\n\n old\n\n---\nask {x}\n", {"instructions": "new"}, "%%agent a\n\nnew\n\n---\nask {x}\n"),
        ("%%agent a\nold\n---\nask", {"instructions": ""}, "%%agent a\n---\nask"),
        ("%%agent a\n---\nask", {"instructions": "new"}, "%%agent a\nnew\n---\nask"),
        ("%%agent a -m x\nask \\---", {"instructions": "new"}, "%%agent a -m x\nnew\n---\nask \\---"),
        ("%%agent a -i old\nask", {"instructions": "it's \"new\""}, """%%agent a -i "it's "'"'"new"'"'""\nask"""),
        ("%%agent a -i old\nask", {"instructions": "two\nlines"}, "%%agent a\ntwo\nlines\n---\nask"),
        ("%%agent a --define", {"instructions": "a\n---"}, "%%agent a --define\na\n\\---"),
    ],
)
def test_only_what_is_changed_is_changed(source: str, changes: dict[str, str], after: str) -> None:
    assert changed(source, **changes) == after


def test_values_are_those_written_and_not_filled_in() -> None:
    cell = read("%%agent a --model {name} -t f -t g\n\nFor {{x}}\n\\---\n---\nask")
    assert cell.values() == {"model": "{name}", "tools": "f,g", "instructions": "For {{x}}\n---"}


@pytest.mark.parametrize("source", ["", "print(1)", "%agent a ask", "%%time\n%%agent a", "  %%agent a\nask", "%%agents a\nask", "# only"])
def test_other_cells_are_left_alone(source: str) -> None:
    assert Cell.read(source) is None


def test_a_line_break_goes_into_no_option() -> None:
    with pytest.raises(ErrorConfig, match=r"--memory cannot hold a line break; put the text into a variable"):
        cell_text("a", Options(memory="a\nb"))


def test_a_definition_alone_asks_nothing() -> None:
    cell = read("# why\n%%agent a -m x --as r --fresh --max-cost 1\nBe brief.\n---\nask")
    assert cell.only_definition().source == "# why\n%%agent a -m x --max-cost 1 --define\nBe brief."
    assert read("%%agent a -m x\nask").only_definition().source == "%%agent a -m x --define"
    assert cell.only_definition().only_definition() == cell.only_definition()


# The form


class Page:
    """A front end with cells, which does what the form says; `can_write=False` is one that cannot reach the notebook."""

    def __init__(self, notebook: ShellNotebook, *cells: str, can_write: bool = True) -> None:
        self.notebook, self.cells, self.can_write = notebook, list(cells), can_write
        self.said: list[dict[str, Any]] = []
        self.form: Form

    def open(self, name: str = "support") -> dict[str, Any]:
        self.form = Form(name, self.notebook.magics)
        self.form._widget = self
        return self.ask("open")

    def send(self, answer: dict[str, Any]) -> None:
        assert answer.pop("view") == "v"
        self.said.append(answer)

    def ask(self, kind: str, **content: Any) -> dict[str, Any]:
        cells = [{"id": str(n), "source": text, "number": n + 1, "count": None, "writable": True} for n, text in enumerate(self.cells)]
        message = {"kind": kind, "view": "v", "cells": cells if self.can_write else None, **content}
        self.form._on_message(self, message, [])
        return self.said[-1]

    def save(self, shown: dict[str, str] | None = None, confirmed: str = "", **changes: str) -> dict[str, Any]:
        """Asks to save, and writes the cell where that is the answer."""
        answer = self.ask("save", changes=changes, shown=shown or self.open()["values"], confirmed=confirmed)
        if answer["kind"] != "write":
            return answer
        assert self.cells[int(answer["id"])] == answer["before"]
        self.cells[int(answer["id"])] = answer["after"]
        return self.ask("written", id=answer["id"])


CELL = "# ours\n%%agent support -m scripted --max-cost 1\nFor {shop}: {{brief}}.\n---\nhello {shop}"


@pytest.fixture
def page(shell_notebook: ShellNotebook) -> Page:
    shell_notebook["shop"] = "Acme"
    shell_notebook.run(CELL)
    return Page(shell_notebook, "print('%%agent')", CELL, "%%agent support\nmore")


def written(page: Page) -> Options | None:
    return page.notebook.magics.agents.written("support")


def test_form_shows_what_the_cell_says(page: Page) -> None:
    form = page.open()
    assert form["values"]["instructions"] == "For {shop}: {{brief}}."
    assert (form["values"]["model"], form["values"]["max_cost"], form["values"]["retries"]) == ("scripted", "1", "")
    assert (form["hints"]["retries"], form["hints"]["temperature"]) == ("1", "the model’s own")
    assert (form["writes"], form["where"]) == (True, "Changes are written to the cell at place 2, which begins “%%agent support -m scripted --max-cost 1”.")


def test_change_goes_into_the_cell_and_the_kernel_and_asks_nobody(page: Page) -> None:
    asked = len(page.notebook.model.requests)
    done = page.save(instructions="Kind, {shop}.\n---", max_cost="", tools="refund", temperature="0.5")
    assert page.cells[1] == "# ours\n%%agent support -m scripted --tools refund --temperature 0.5\nKind, {shop}.\n\\---\n---\nhello {shop}"
    assert written(page) == Options("scripted", ("refund",), instructions="Kind, Acme.\n---", temperature=0.5)
    assert done == {"kind": "done", "words": "The cell at place 2 was changed, and support with it. Nothing was run."}
    assert len(page.notebook.model.requests) == asked


def test_restarted_notebook_makes_the_agent_that_the_form_left(page: Page) -> None:
    page.save(max_cost="", max_turns="3")
    left = written(page)
    page.notebook.magics.agents._defined.clear()
    page.notebook.run(page.cells[1])
    assert written(page) == left == Options("scripted", instructions="For Acme: {brief}.", max_turns=3)


LATER = "%%agent support\nLater.\n---\nask"


def test_cell_that_was_run_last_is_the_one(page: Page) -> None:
    page.cells += [LATER, "%%agent support\nNever run.\n---\nask", "%%agent support,critic\n---\nask", "%%agent critic\n---\nask"]
    page.notebook.run(LATER)
    before = list(page.cells)
    assert page.save(instructions="Changed.")["kind"] == "done"
    assert page.cells == [*before[:3], "%%agent support\nChanged.\n---\nask", *before[4:]]
    page.save(max_turns="3")
    assert page.cells == [*before[:3], "%%agent support --max-turns 3\nChanged.\n---\nask", *before[4:]]


def test_cell_known_by_its_id_is_the_one_whatever_it_says_by_now(page: Page) -> None:
    page.notebook.magics.agents.define("support", Options(max_turns=4), cell="1")
    page.cells = ["print()", CELL.replace("hello", "goodbye") + "\nmore", LATER, CELL]
    assert page.open()["cell"] == "1"


def test_change_of_a_cell_that_was_not_run_is_confirmed_with_all_that_it_changes(page: Page) -> None:
    page.cells, before = ["%%agent support -m scripted --max-turns 5\nB, an experiment.\n---\nask"], written(page)
    also = "instructions (now For Acme: {brief}.; then B, an experiment.), max_turns (now nothing; then 5)"
    assert page.open()["where"].endswith(f"It was not run as it stands; a change here defines support by all of it: {also}.")
    answer = page.save(retries="3")
    words = "The cell at place 1 was not run as it stands, and writing defines support by all of it. That changes in the kernel, too: "
    assert answer == {"kind": "confirm", "words": f"{words}{also}.", "confirmed": also}
    assert (written(page), page.cells[0].count("retries")) == (before, 0)
    assert page.save(confirmed="something else", retries="3") == answer
    assert page.save(confirmed=also, retries="3")["kind"] == "done"
    assert written(page) == Options("scripted", instructions="B, an experiment.", max_cost=1, max_turns=5, retries=3)


def test_form_of_one_cell_writes_no_other_that_was_run_meanwhile(page: Page) -> None:
    form = page.open()
    page.cells.append(LATER)
    page.notebook.run(LATER)
    before = list(page.cells)
    answer = page.ask("save", shown=form["values"], changes={"max_turns": "3"}, cell=form["cell"])
    assert answer["errors"][""].startswith("support is defined by another cell by now, and nothing was written;")
    assert page.cells == before
    page.cells = []
    assert page.ask("save", shown=form["values"], changes={"model": "scripted"}, cell=form["cell"])["kind"] != "write"


def test_cell_that_only_asks_is_taken_where_none_defines(page: Page) -> None:
    page.cells = ["%%agent support -m scripted\nfirst", "%%agent support\nsecond"]
    page.save(retries="3")
    assert page.cells == ["%%agent support -m scripted --retries 3\nfirst", "%%agent support\nsecond"]


def test_what_another_cell_has_said_is_a_hint(page: Page) -> None:
    page.notebook.run("%%agent support --max-turns 7 --tools refund --define")
    page.cells.append("%%agent support --max-turns 7 --tools refund --define")
    page.notebook.run(CELL)
    form = page.open()
    assert (form["values"]["max_turns"], form["hints"]["max_turns"], form["kept"]) == ("", "7", {})
    assert form["hints"]["tools"] == "From another cell: refund. A choice here replaces them."


def test_what_no_cell_says_any_more_is_told_and_can_be_forgotten(page: Page) -> None:
    page.notebook.run(CELL.replace("--max-cost 1", "--max-cost 0.5 --tools refund,order_status --memory ram --history window:20"))
    page.cells[1] = CELL.replace(" --max-cost 1", "")
    page.notebook.run(page.cells[1])
    form = page.open()
    assert form["kept"] == {"tools": "refund, order_status", "max_cost": "0.5", "memory": "ram", "history": "window:20"}
    assert form["hints"]["tools"] == "Kept from an earlier run, not in the notebook: refund, order_status. A choice here replaces them."
    asked = len(page.notebook.model.requests)
    done = page.ask("forget", setting="max_cost")
    assert done == {"kind": "done", "words": "support has forgotten its max_cost, which no cell says; its conversation begins anew."}
    for setting in ("memory", "tools", "history"):
        assert page.ask("forget", setting=setting)["kind"] == "done"
    assert written(page) == Options("scripted", instructions="For Acme: {brief}.")
    assert (page.open()["kept"], len(page.notebook.model.requests)) == ({}, asked)


@pytest.mark.parametrize("setting", ["max_turns", "model", "nonsense"])
def test_only_what_is_kept_is_forgotten(page: Page, setting: str) -> None:
    page.open()
    before = written(page)
    assert page.ask("forget", setting=setting)["errors"] == {"": f"{setting} is not kept from an earlier run; a cell says it by now"}
    assert written(page) == before


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"max_cost": "abc"}, {"max_cost": "--max-cost needs a number from 0, such as 0.25; got 'abc'"}),
        ({"max_turns": "0", "retries": "x"}, {"max_turns": "--max-turns needs a whole number from 1, such as 10; got '0'", "retries": "--retries needs a whole number from 0, such as 2; got 'x'"}),
        ({"max_cost": "-1", "tools": "refnd"}, {"max_cost": "--max-cost needs a number from 0, such as 0.25; got '-1'", "tools": "no function or Tool called refnd in the notebook; did you mean refund?"}),
        ({"model": ""}, {"model": "needs a model, such as anthropic/claude-sonnet-4, or a default: %config AgentMagics.model = 'MODEL'"}),
        ({"tools": "refnd"}, {"tools": "no function or Tool called refnd in the notebook; did you mean refund?"}),
        ({"output": "strr"}, {"output": "no type called strr in the notebook; did you mean str?"}),
        ({"history": "windw:3"}, {"history": "--history needs window:N (messages), truncate:N (tokens) or a variable that holds a policy, such as window:20; got 'windw:3'; did you mean window?"}),
        ({"memory": "ramm"}, {"memory": "no variable called ramm holds a memory; did you mean ram?\nFor a file, write an ending or a folder: ramm.db"}),
        ({"model": "   "}, {"model": "--model needs a value: --model MODEL"}),
    ],
)  # fmt: skip
def test_bad_value_is_told_at_its_field_and_nothing_changes(page: Page, changes: dict[str, str], errors: dict[str, str]) -> None:
    before = written(page), list(page.cells)
    assert page.save(**changes) == {"kind": "problems", "errors": errors}
    assert (written(page), page.cells) == before


def test_tool_that_is_gone_is_shown_and_told(page: Page) -> None:
    page.save(tools="refund")
    del page.notebook.shell.user_ns["refund"]
    form = page.open()
    assert form["chosen"] == ["refund"]
    assert form["tools"][0] == {"name": "refund", "about": "not in the notebook any more", "group": "missing"}
    assert "no function or Tool called refund" in page.save(max_cost="2")["errors"]["tools"]
    assert page.save(tools="")["kind"] == "done"


def test_field_changed_in_the_cell_meanwhile_is_told_once(page: Page) -> None:
    shown = page.open()["values"]
    page.cells[1] = CELL.replace("--max-cost 1", "--max-cost 9 --max-turns 4")
    answer = page.save(shown, max_cost="2")
    assert answer["errors"] == {"max_cost": "the cell says by now: 9. Write again to put yours in its place."}
    page.save(shown | answer["shown"], confirmed="max_turns (now nothing; then 4)", max_cost="2")
    assert "--max-cost 2 --max-turns 4" in page.cells[1]


def test_what_the_cell_says_meanwhile_elsewhere_stays(page: Page) -> None:
    shown = page.open()["values"]
    page.cells[1] = CELL.replace("hello", "goodbye").replace("-m scripted", "-m scripted --max-turns 4")
    assert page.save(shown, max_cost="2")["confirmed"] == "max_turns (now nothing; then 4)"
    assert page.save(shown, confirmed="max_turns (now nothing; then 4)", max_cost="2")["kind"] == "done"
    assert page.cells[1] == CELL.replace("hello", "goodbye").replace("-m scripted --max-cost 1", "-m scripted --max-turns 4 --max-cost 2")
    assert (written(page) or Options()).max_turns == 4


def test_same_value_is_not_written_again(page: Page) -> None:
    assert page.save(max_cost="1")["words"] == "the cell at place 2 says so already."


def test_definition_with_a_mistake_is_not_passed_over(page: Page) -> None:
    page.cells.append("%%agent support --modle x\nBe brief.\n---\nask")
    assert page.open()["errors"] == {"": "the cell that begins “%%agent support --modle x” has a mistake: unknown option --modle; did you mean --model?\nAll options: %agent help"}


def test_where_nothing_can_be_written_the_text_is_shown_and_nothing_changes(page: Page) -> None:
    page.can_write, before = False, written(page)
    assert page.open()["where"] == "No cell that defines support can be written from here, so the form makes the text of a cell; nothing is changed before you run it."
    answer = page.save(max_cost="2")
    assert (answer["kind"], answer["text"]) == ("text", CELL.replace("--max-cost 1", "--max-cost 2"))
    assert answer["words"] == "Put it in place of the cell that defines support, and run it. Until then support is as it was."
    assert written(page) == before


def test_agent_of_several_cells_comes_whole_where_none_can_be_written(page: Page) -> None:
    page.notebook.run("%%agent support --max-turns 7 --define")
    page.cells = []
    assert page.save(max_cost="2")["text"] == "%%agent support --model scripted --max-cost 2 --max-turns 7 --define\nFor Acme: {{brief}}."


def test_agent_of_a_variable_gives_a_cell_with_the_changes(page: Page) -> None:
    notebook, page.cells = page.notebook, ["%%agent support\nask"]
    agent = notebook["support"] = Agent("support", model=notebook.model, instructions="For {x}.", tools=[notebook["refund"]], max_cost=0.5)
    form = page.open()
    assert (form["values"]["model"], form["values"]["instructions"], form["values"]["max_cost"]) == ("scripted", "For {{x}}.", "0.5")
    assert (form["chosen"], form["writes"]) == (["refund"], False)
    answer = page.save(tools="refund,order_status", retries="3")
    assert answer["text"] == "%%agent support --tools refund,order_status --retries 3 --define"
    assert notebook["support"] is agent
    notebook.run(answer["text"])
    assert (list(notebook["support"].tools_map), notebook["support"].retries) == (["refund", "order_status"], 3)


def test_cell_that_changes_a_variables_agent_is_written(page: Page) -> None:
    page.notebook["support"] = Agent("support", model=page.notebook.model, max_cost=0.5)
    page.cells = ["%%agent support\nask", "%%agent support --max-cost 0.9 --define"]
    page.notebook.run(page.cells[1])
    assert page.save(max_turns="3")["kind"] == "done"
    assert page.cells == ["%%agent support\nask", "%%agent support --max-cost 0.9 --max-turns 3 --define"]
    assert (page.notebook["support"].max_cost, page.notebook["support"].max_turns) == (0.9, 3)
    done = page.save(max_cost="")
    assert done["words"].endswith(" Nothing was run. The variable keeps its max_cost until the cell that makes it is run again.")
    assert (page.cells[1], page.notebook["support"].max_cost) == ("%%agent support --max-turns 3 --define", 0.9)


def test_cell_that_would_change_a_variables_agent_is_confirmed(page: Page) -> None:
    agent = page.notebook["support"] = Agent("support", model=page.notebook.model, max_cost=0.5)
    page.cells = ["%%agent support --max-cost 0.9 --define"]
    also = "max_cost (now 0.5; then 0.9)"
    assert page.save(max_turns="3")["confirmed"] == also
    assert (page.cells[0], page.notebook["support"]) == ("%%agent support --max-cost 0.9 --define", agent)
    page.save(confirmed=also, max_turns="3")
    assert (page.notebook["support"].max_cost, page.notebook["support"].max_turns) == (0.9, 3)


def test_variable_keeps_what_no_cell_can_take_out(page: Page) -> None:
    page.cells = []
    page.notebook["support"] = Agent("support", model=page.notebook.model, max_cost=0.5)
    words = "support keeps what it has where a cell says nothing; take it out where the variable is made"
    assert page.save(max_cost="") == {"kind": "problems", "errors": {"max_cost": words}}


def test_tools_without_a_variable_are_named(page: Page) -> None:
    page.notebook["support"] = Agent("support", model=page.notebook.model, tools=[Tool.from_function(lambda: "x", name="hidden")])
    assert page.open()["hints"]["tools"] == "It also has hidden, which no variable holds; a choice here replaces all its tools."


def test_half_a_character_in_an_agents_instructions_can_be_sent(page: Page) -> None:
    page.notebook["support"] = Agent("support", model=page.notebook.model, instructions="a \ud83d b \ud83d\ude00")
    assert page.open()["values"]["instructions"] == "a \ufffd b 😀"


def test_hints_are_visible_and_without_keys(page: Page) -> None:
    page.notebook.run("%%agent support -m scripted --define\nUse sk-proj-9Xb2Lq7Vn4Tz1Kc8Rm5Wd3Hy6Jf0Ps \u202e")
    page.cells = ["%%agent support --max-turns 3 --define"]
    assert page.open()["hints"]["instructions"] == r"Use [key] \u202e"


def test_tools_offered_are_those_of_the_notebook(page: Page) -> None:
    from textwrap import dedent

    def own(city: str) -> str:
        """The weather.

        More of it."""
        return city

    own.__module__ = "__main__"
    namespace = page.notebook.shell.user_ns
    for name in ("order_status", "refund"):
        namespace[name].__module__ = "__main__"
    namespace |= {"own": own, "dedent": dedent, "agent_tool": tool, "both": [own, dedent], "_hidden": own, "Kind": int, "made": Tool.from_function(dedent)}
    offered = {one["name"]: (one["about"], one["group"]) for one in page.open()["tools"]}
    assert offered.pop("made")[1] == "own"
    assert offered == {
        "own": ("The weather.", "own"),
        "both": ("a list of 2", "own"),
        "order_status": ("Where an order is.", "own"),
        "refund": ("", "own"),
        "dedent": ("Remove any common leading whitespace from every line in `text`.", "imported"),
    }


def test_models_come_with_price_and_context_and_the_notebooks_own_first(page: Page) -> None:
    page.notebook.magics.model = "local/smollm2"
    models = page.open()["models"]
    assert models[:2] == [("scripted", "a variable of the notebook"), ("local/smollm2", "the notebook’s default")]


def test_new_agent_is_built_from_nothing(page: Page) -> None:
    form = page.open("critic")
    assert (form["writes"], form["values"]["model"], form["hints"]["max_turns"]) == (False, "", "10")
    assert form["where"] == "critic is not defined yet, so the form makes the text of a cell; nothing is changed before you run it."
    answer = page.ask("save", shown=form["values"], changes={"model": "scripted", "instructions": "Find {{faults}}."})
    assert answer["text"] == "%%agent critic --model scripted --define\nFind {{faults}}."
    page.notebook.run(answer["text"])
    assert page.notebook.magics.agents.get("critic", Options()).instructions == "Find {faults}."


@pytest.mark.parametrize("name", ["suport", "two words", "list", "a,b", "-m"])
def test_names_that_no_agent_can_have_open_no_form(page: Page, name: str) -> None:
    with pytest.raises(ErrorConfig):
        Form(name, page.notebook.magics)
    with pytest.raises(UsageError):
        page.notebook.cell(f"%agent edit {name}").raise_error()


def test_without_anywidget_the_settings_and_the_text_are_shown(
    page: Page, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    Form("support", page.notebook.magics).show()
    shown = capsys.readouterr().out
    assert 'pip install "agentroute[notebook]"' in shown
    assert "%%agent support -m scripted --max-cost 1 --define\nFor {shop}: {{brief}}.\n" in shown


def test_kernel_shows_the_settings_and_a_form_that_says_what_it_was(kernel: Session) -> None:
    kernel.run("%load_ext agentroute_ipython")
    kernel.run("%%agent support -m openai/gpt-4.1 --define\nBe brief.")
    settings, form = kernel.run("%agent edit support").outputs
    assert set(settings) == {"text/html", "text/plain"}
    assert "instructions  Be brief." in settings["text/plain"]
    assert set(form) == {"text/html", "text/plain", "application/vnd.jupyter.widget-view+json"}
    assert form["text/plain"] == "The form of support was open here; %agent edit support opens it again."


def test_conversation_in_memory_begins_anew_and_the_form_says_so(page: Page) -> None:
    assert "and support with it; its conversation begins anew." in page.save(memory="ram")["words"]


def test_kernel_knows_the_cell_that_defined_and_shows_what_it_does_not_say_any_more(kernel: Session) -> None:
    kernel.run("%load_ext agentroute_ipython")
    kernel.run("%%agent support -m openai/gpt-4.1 --max-cost 0.5 --max-turns 3 --define", cell_id="first")
    kernel.run("%%agent support --retries 2 --define", cell_id="second")
    kernel.run("%%agent support -m openai/gpt-4.1 --max-turns 3 --define", cell_id="first")
    settings = kernel.run("%agent show support", cell_id="third").outputs[0]["text/plain"]
    assert settings.splitlines()[-1] == "kept        max_cost: from an earlier run of the cell, which does not say so any more; not in a restarted notebook"
    assert kernel.evaluate("get_ipython().magics_manager.registry['AgentMagics'].agents.cell('support')") == "first"


# A terminal


def test_terminal_gets_the_definition_in_its_next_prompt(page: Page) -> None:
    page.notebook.run("%agent edit support")
    text = page.notebook.shell.rl_next_input
    assert text == "# ours\n%%agent support -m scripted --max-cost 1 --define\nFor {shop}: {{brief}}."
    before, asked = written(page), len(page.notebook.model.requests)
    page.notebook.run(text)
    assert (written(page), len(page.notebook.model.requests)) == (before, asked)


def test_agent_that_several_cells_defined_comes_whole_into_the_prompt(page: Page) -> None:
    page.notebook.run("%%agent support --max-turns 7 --define")
    edit("support", page.notebook.magics)
    text = page.notebook.shell.rl_next_input
    assert text == "%%agent support --model scripted --max-cost 1 --max-turns 7 --define\nFor Acme: {{brief}}."


def test_odd_variables_neither_hang_the_form_nor_are_run(page: Page) -> None:
    ran = []

    class Proxy:
        def __call__(self) -> None: ...

        def __getattr__(self, name: str) -> Any:
            ran.append(name)
            raise RuntimeError("working outside of request context")

        @property
        def description(self) -> str:
            ran.append("description")
            return "x"

    page.notebook["request"] = Proxy()
    page.notebook["several"] = [Proxy()]
    assert page.open()["kind"] == "form"
    assert "request" not in {one["name"] for one in page.said[-1]["tools"]}
    assert page.save(tools="request")["kind"] in ("done", "problems")  # whoever names it has it asked
    ran.clear()
    page.ask("open")
    assert ran == []


@pytest.mark.parametrize("message", [{}, {"kind": "drop"}, {"kind": "save"}, {"kind": "save", "changes": 5, "shown": None}, {"kind": ["open"]}])
def test_a_message_that_is_not_understood_is_answered(page: Page, message: dict[str, Any]) -> None:
    page.open()
    page.said.clear()
    page.form._on_message(page, {"view": "v", **message}, [])
    assert [answer["kind"] for answer in page.said] == ["problems"]
    assert page.said[0]["errors"][""].startswith("the form failed: ")
