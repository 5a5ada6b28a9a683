"""Restart & Run All of a notebook: nothing is paid twice, and the saved outputs are the same byte for byte."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from agentroute import RunStore, ToolCall
from agentroute.records import RunRecord
from tests.ipython.conftest import StartKernel
from tests.ipython.kernels import Outcome, Session, kernel_environment
from tests.ipython.sandbox import unix_sockets
from tests.server import ModelServer

SETUP = """
%load_ext agentroute_ipython
import asyncio, pathlib
from dataclasses import dataclass
from agentroute import Agent

@dataclass
class Invoice:
    number: int
    total: float

def order_status(order_id: str) -> str:
    "Where an order is."
    with open("tool.log", "a") as log:
        log.write(order_id + "\\n")
    return "shipped"

helper = Agent("helper", model={model!r})
plain = Agent("plain", model={model!r}, instructions="Be brief.")

def ask_helper(question: str) -> str:
    "Asks another agent."
    return helper.run(question).output
"""
CELLS = {
    "tools": "%%agent support --model {model} --tools order_status --max-cost 1\nYou are a support agent.\n---\nWhere is order 4821?",
    "streamed": "for event in plain.stream('Tell me a story.'):\n    if event.kind == 'text_delta':\n        print(event.delta, end='')",
    "structured": "%%agent reader --model {model} --output Invoice --as invoice\nRead: invoice 7, 12.50 USD.",
    "memory 1": "%%agent talk --model {model} --memory ram\nMy name is Ada.",
    "memory 2": "%%agent talk --memory ram\nWhat is my name?",
    "plain": "plain.run('What is it?')",
    "same 1": "%%agent quick --model {model}\nName a colour.",
    "same 2": "%%agent quick --model {model}\nName a colour.",
    "loop": "for _ in range(3):\n    print(plain.run('A number?').output)",
    "gather": "print([result.output for result in await asyncio.gather(*[plain.arun('At once?') for _ in range(3)])])",
    "nested": "%%agent boss --model {model} --tools ask_helper\nAsk the helper.",
}  # fmt: skip
REQUESTS = {
    "tools": 2, "streamed": 1, "structured": 1, "memory 1": 1, "memory 2": 1, "plain": 1, "same 1": 1, "same 2": 1,
    "loop": 3, "gather": 1, "nested": 3,
}  # fmt: skip
IDS = {"without cell ids": False, "with cell ids": True}


def provider() -> ModelServer:
    """Answers every request differently, and counts them."""
    numbers = itertools.count(1)

    def answer(body: dict[str, Any]) -> Any:
        n = next(numbers)
        names = {tool["function"]["name"] for tool in body.get("tools") or ()}
        if body["messages"][-1]["role"] == "tool":
            return f"Answer {n}, after the tool."
        if "response_format" in body:
            return json.dumps({"number": n, "total": 12.5})
        for name, arguments in (("order_status", {"order_id": str(n)}), ("ask_helper", {"question": "Well?"})):
            if name in names:
                return ToolCall(f"call_{n}", name, arguments)
        if names:
            return ToolCall(f"call_{n}", names.pop(), {"number": n, "total": 12.5})
        return f"Answer {n} with $5 and a line.\n\nAnd another."

    return ModelServer([answer], repeat=True)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with provider() as server:
        yield server


class Notebook:
    """The cells above in one kernel, with or without the ids that a frontend sends."""

    def __init__(self, session: Session, server: ModelServer, *, ids: bool) -> None:
        self.session, self.server, self.ids = session, server, ids
        self.cells = {name: source.replace("{model}", server.model) for name, source in CELLS.items()}

    def run(self, name: str, source: str | None = None) -> Outcome:
        """Runs a cell, or what it has been edited to."""
        return self.session.run(source or self.cells[name], cell_id=f"id of {name}" if self.ids else None)

    def ready(self) -> None:
        outcome = self.run("setup", SETUP.replace("{model!r}", repr(self.server.model)))
        assert outcome.status == "ok", outcome.text

    def requests(self, name: str, source: str | None = None) -> int:
        """How many requests a cell sends; it must succeed."""
        before = len(self.server.requests)
        outcome = self.run(name, source)
        assert outcome.status == "ok", outcome.text
        return len(self.server.requests) - before

    def shown(self, name: str, source: str | None = None) -> str:
        """What a cell shows as text."""
        outcome = self.run(name, source)
        return outcome.stdout + "".join(str(output["text/plain"]) for output in outcome.outputs)

    def answer(self, name: str, source: str | None = None) -> int:
        """Which of the provider's answers a cell shows."""
        found = re.search(r"Answer (\d+)", self.shown(name, source))
        assert found is not None
        return int(found[1])

    def edited(self, name: str, *options: str) -> str:
        """A `%%agent` cell with further options."""
        return self.cells[name].replace("\n", " " + " ".join(options) + "\n", 1)

    def restart(self) -> None:
        self.session.restart()
        self.ready()

    def rows(self, *names: str) -> list[tuple[Any, ...]]:
        with closing(RunStore(self.session.folder / "runs.sqlite")) as store:
            return list(store.select(RunRecord, columns=names))


@pytest.fixture(params=IDS.values(), ids=IDS)
def notebook(request: pytest.FixtureRequest, kernel: Session, server: ModelServer) -> Notebook:
    notebook = Notebook(kernel, server, ids=request.param)
    notebook.ready()
    return notebook


def saved(notebook: nbformat.NotebookNode) -> list[Any]:
    """The outputs of all cells, as the file holds them."""
    return [cell.outputs for cell in notebook.cells]


def without_figures(outputs: Any) -> str:
    """Outputs without what a paid and a replayed card say of cost, tokens saved and seconds."""
    text = json.dumps(outputs)
    text = re.sub(r"<summary><span><b>.*?</summary>", "", text)  # the usage line
    text = re.sub(r"<td>(\$[\d.]+|\d+ ms|[\d.]+ s|)(<div>.*?</div>)?</td>", "<td></td>", text)  # cost and time in the table
    text = re.sub(r"<style>.*?</style>", "", text)  # which has something about bars only where there are some
    text = text.replace(' <span class=\\"agr-dim\\">· replayed</span>', "").replace(
        ' <span class=\\"agr-dim\\">\\u00b7 replayed</span>', ""
    )
    text = re.sub(r"(-> [^,]*), (\d+ ms|[\d.]+ s)(, \$[\d.]+)?", r"\1", text)  # tool calls in the plain form
    text = re.sub(r"(-> [^,]*), \$[\d.]+", r"\1", text)
    return re.sub(r"done, \d+ model calls?, [^\"]*", "done", text)


# Cell by cell


def test_every_cell_asks_at_first_and_nothing_after_a_restart(notebook: Notebook) -> None:
    assert {name: notebook.requests(name) for name in CELLS} == REQUESTS
    notebook.restart()
    assert {name: notebook.requests(name) for name in CELLS} == dict.fromkeys(CELLS, 0)


def test_what_is_replayed_is_what_was_answered(notebook: Notebook) -> None:
    cells = ("same 1", "same 2", "plain", "gather")
    first = {name: notebook.answer(name) for name in cells}
    numbers = notebook.shown("loop")
    assert len(set(first.values())) == len(cells)
    assert len(set(re.findall(r"Answer (\d+)", numbers))) == 3
    notebook.restart()
    assert {name: notebook.answer(name) for name in cells} == first
    assert notebook.shown("loop") == numbers


def test_cell_that_is_run_again_asks_again(notebook: Notebook) -> None:
    assert [notebook.requests("plain") for _ in range(3)] == [1, 1, 1]
    notebook.restart()
    assert [notebook.requests("same 1") for _ in range(2)] == [1, 1]


def test_first_run_after_a_restart_is_replayed_and_the_second_asks(notebook: Notebook) -> None:
    notebook.requests("plain")
    notebook.restart()
    assert [notebook.requests("plain") for _ in range(2)] == [0, 1]


def test_fresh_asks_also_what_is_kept(notebook: Notebook) -> None:
    notebook.requests("same 1")
    notebook.restart()
    assert notebook.requests("same 1", notebook.edited("same 1", "--fresh")) == 1
    notebook.restart()
    assert notebook.requests("same 1") == 0


def test_replay_only_refuses_what_is_not_kept_and_says_what_to_do(notebook: Notebook) -> None:
    notebook.requests("same 1")
    notebook.restart()
    assert notebook.requests("same 1", notebook.edited("same 1", "--replay", "only")) == 0
    before = len(notebook.server.requests)
    outcome = notebook.run("same 2", notebook.edited("same 2", "--replay", "only") + " In German.")
    assert (outcome.ename, len(notebook.server.requests)) == ("ErrorReplay", before)
    assert "run it once with" in str(outcome.evalue)
    assert len(outcome.traceback.splitlines()) == 2


def test_notebook_can_be_told_how_to_replay(notebook: Notebook) -> None:
    notebook.requests("plain")
    notebook.restart()
    assert notebook.run("config", "%config AgentMagics.replay = 'only'").status == "ok"
    assert notebook.requests("plain") == 0
    assert notebook.run("plain", "plain.run('Something else?')").ename == "ErrorReplay"
    notebook.run("config", "%config AgentMagics.replay = 'fresh'")
    assert notebook.requests("plain") == 1
    notebook.run("config", "%config AgentMagics.replay = 'off'")
    notebook.restart()
    notebook.run("config", "%config AgentMagics.replay = 'off'")
    assert notebook.requests("plain") == 1


def test_replay_that_is_set_to_nothing_is_that_of_the_notebook(with_ids: Notebook) -> None:
    with_ids.requests("plain")
    with_ids.restart()
    with_ids.run("set", "import agentroute\nagentroute.set_replay('off')\nagentroute.set_replay(None)")
    assert with_ids.requests("plain") == 0
    with_ids.restart()
    with_ids.run("set", "import agentroute\nagentroute.set_replay('off')")
    with_ids.run("config", "%config AgentMagics.replay = 'on'")
    assert with_ids.requests("plain") == 0


def test_environment_says_how_to_replay(start_kernel: StartKernel, server: ModelServer) -> None:
    notebook = Notebook(start_kernel(env={"AGENTROUTE_REPLAY": "off"}), server, ids=True)
    notebook.ready()
    assert notebook.session.evaluate("get_ipython().magics_manager.registry['AgentMagics'].replay") == "off"
    notebook.requests("plain")
    notebook.restart()
    assert notebook.requests("plain") == 1


def test_unloading_ends_replay(notebook: Notebook) -> None:
    notebook.requests("plain")
    notebook.restart()
    notebook.run("unload", "%unload_ext agentroute_ipython")
    assert notebook.requests("plain") == 1
    notebook.run("load", "%load_ext agentroute_ipython")
    assert notebook.session.evaluate("__import__('agentroute').replays.replay_now()") == "on"


def test_changed_tool_result_is_a_new_request(notebook: Notebook) -> None:
    notebook.requests("tools")
    notebook.restart()
    notebook.run("tool", "def order_status(order_id: str) -> str:\n    'Where an order is.'\n    return 'lost'")
    assert notebook.requests("tools") == 1  # the call is replayed, what was made of its result is not
    notebook.restart()
    text = notebook.shown("tools")
    assert ", replayed, saved $0.0020, " in text


def test_cell_without_a_record_keeps_nothing(notebook: Notebook) -> None:
    private = notebook.edited("same 1", "--no-record")
    assert notebook.requests("same 1", private) == 1
    assert notebook.rows("run_id") == []
    notebook.restart()
    assert notebook.requests("same 1", private) == 1
    assert notebook.requests("same 1") == 1


def test_figures_alone_are_kept_where_no_content_is(notebook: Notebook) -> None:
    notebook.run("config", "%config AgentMagics.record = 'metadata'")
    notebook.requests("same 1")
    assert notebook.rows("status", "n_turns", "cost_usd", "prompt_text", "output_text") == [("ok", 1, 0.001, "", None)]
    notebook.restart()
    assert notebook.requests("same 1") == 1
    assert notebook.rows("prompt_text")[1] == ("Name a colour.",)


REFUSED = "its prompt, instructions, tools, settings or a tool's result differ from what was asked before; run it once with"


@pytest.mark.parametrize(
    ("config", "cell", "words"),
    [
        ("", "%agent s --model {model} --replay only Hi", ("--replay only allows none to be sent", f"{REFUSED} --replay on")),
        ("", "%agent s --model {model} --no-record --replay only Hi", ("--replay only allows none", f"{REFUSED} --replay on and without --no-record")),
        ("only", "%agent s --model {model} Hi", ('AgentMagics.replay = "only" allows none', f"{REFUSED} --replay on")),
        ("only", "plain.run('Hi')", ('AgentMagics.replay = "only" allows none', f'{REFUSED} %config AgentMagics.replay = "on"')),
        ("", "import agentroute\nwith agentroute.replay('only'):\n    plain.run('Hi')", ("replay='only' allows none", f"{REFUSED} replay='on'")),
    ],
    ids=["option", "unrecorded", "setting", "setting, plain cell", "block"],
)  # fmt: skip
def test_miss_is_told_once_and_in_the_words_of_where_it_was_written(
    with_ids: Notebook, config: str, cell: str, words: tuple[str, str]
) -> None:
    with_ids.run("config", f"%config AgentMagics.replay = {config or 'on'!r}")
    outcome = with_ids.run("new", cell.replace("{model}", with_ids.server.model))
    assert (outcome.ename, len(with_ids.server.requests)) == ("ErrorReplay", 0)
    assert all(part in outcome.traceback.splitlines()[0] for part in words), outcome.traceback
    assert (outcome.text + str(outcome.outputs)).count("its prompt, instructions") == 1


def test_miss_names_a_history_that_keeps_figures_only_as_the_cause(with_ids: Notebook) -> None:
    with_ids.run("config", "%config AgentMagics.record = 'metadata'")
    with_ids.requests("same 1")
    outcome = with_ids.run("same 1", with_ids.edited("same 1", "--replay", "only"))
    assert "--replay only allows no request to be sent: the run history keeps figures only" in outcome.traceback
    assert "run it once" not in outcome.text


def test_card_of_a_run_that_replay_refused_shows_no_time(with_ids: Notebook) -> None:
    card = with_ids.run("same 1", with_ids.edited("same 1", "--replay", "only")).outputs[0]
    assert card["text/plain"] == f"ErrorReplay: nothing was sent; why is told below\nfailed, {with_ids.server.model}"
    assert not re.search(r"\d m?s\b", re.sub("(?s)<style>.*?</style>", "", card["text/html"]))


def test_wrong_mode_of_a_block_points_to_its_line(with_ids: Notebook) -> None:
    outcome = with_ids.run("wrong", "import agentroute\nwith agentroute.replay('onyl'):\n    plain.run('Hi')")
    assert outcome.ename == "ErrorConfig"
    assert "(line 2: with agentroute.replay('onyl'):; %tb" in outcome.traceback


# Places


@pytest.fixture
def with_ids(kernel: Session, server: ModelServer) -> Notebook:
    notebook = Notebook(kernel, server, ids=True)
    notebook.ready()
    return notebook


def test_newest_answer_of_a_cell_is_replayed(with_ids: Notebook) -> None:
    with_ids.answer("same 1")
    with_ids.answer("same 1")
    newest = with_ids.answer("same 1", with_ids.edited("same 1", "--fresh"))
    with_ids.answer("same 2")
    with_ids.restart()
    assert with_ids.answer("same 1") == newest


def test_cell_that_is_run_again_after_a_restart_asks_each_of_its_equal_requests_anew(with_ids: Notebook) -> None:
    lines = f"%agent s --model {with_ids.server.model} ping\n%agent s ping"

    def shown() -> list[list[str]]:
        return [re.findall(r"Answer (\d+)", with_ids.shown(*cell)) for cell in (("loop",), ("two lines", lines))]

    first = shown()
    with_ids.restart()
    assert (shown(), len(with_ids.server.requests)) == (first, 5)
    again = shown()
    assert again == [["6", "7", "8"], ["9", "10"]]
    with_ids.restart()
    assert (shown(), len(with_ids.server.requests)) == (again, 10)


@pytest.mark.parametrize("reload", ["%reload_ext agentroute_ipython", "%unload_ext agentroute_ipython\n%load_ext agentroute_ipython"])
def test_cell_that_is_run_again_asks_also_after_a_reload(with_ids: Notebook, reload: str) -> None:
    with_ids.answer("same 1")
    with_ids.answer("same 2")
    with_ids.restart()
    assert with_ids.answer("same 1") == 1
    with_ids.run("reload", reload)
    assert with_ids.answer("same 1") == 3


def test_newest_answer_is_replayed_of_a_notebook_that_reloads_in_its_first_cell(notebook: Notebook) -> None:
    def run_all() -> list[int]:
        notebook.run("first", "%reload_ext agentroute_ipython")
        return [notebook.answer("plain"), notebook.answer("same 1")]

    assert [run_all(), run_all()] == [[1, 2], [3, 4]]
    notebook.restart()
    expected = {True: [[3, 4], [5, 6]], False: [[1, 2], [3, 4]]}[notebook.ids]
    assert [run_all(), run_all()] == expected


def test_without_cell_ids_runs_of_the_same_text_are_replayed_in_their_order(kernel: Session, server: ModelServer) -> None:
    notebook = Notebook(kernel, server, ids=False)
    notebook.ready()
    answers = [notebook.answer("same 1") for _ in range(3)]
    notebook.restart()
    assert [notebook.answer("same 1") for _ in range(3)] == answers
    assert len(server.requests) == 3


def test_every_version_of_the_kernel_tells_cells_apart(any_kernel: Session, server: ModelServer) -> None:
    notebook = Notebook(any_kernel, server, ids=True)
    notebook.ready()
    assert [notebook.answer("same 1") for _ in range(2)] == [1, 2]
    notebook.restart()
    assert (notebook.answer("same 1"), notebook.requests("loop"), notebook.requests("gather")) == (2, 3, 1)
    assert {row[0] for row in notebook.rows("cell_id")} == {"id of same 1", "id of loop", "id of gather"}


def test_moved_and_edited_cells_are_still_replayed(with_ids: Notebook) -> None:
    first = with_ids.answer("plain")
    with_ids.restart()
    assert with_ids.answer("same 1", "# What is it?\nresult = plain.run('What is it?')\nresult") == first
    assert len(with_ids.server.requests) == 1


def test_run_knows_its_cell_and_its_notebook(start_kernel: StartKernel, server: ModelServer) -> None:
    notebook = Notebook(start_kernel(env={"JPY_SESSION_NAME": "/home/me/orders.ipynb"}), server, ids=True)
    notebook.ready()
    notebook.run("plain")
    notebook.run("nested")
    notebook.run("plain", "import os\nos.environ['AGENTROUTE_NOTEBOOK'] = 'other.ipynb'\nplain.run('What?')")
    orders = "/home/me/orders.ipynb"
    rows = [(orders, "id of plain"), (orders, "id of nested"), (orders, "id of nested"), ("other.ipynb", "id of plain")]
    assert notebook.rows("notebook", "cell_id") == rows


def test_cell_that_loads_the_extension_has_a_place(kernel: Session, server: ModelServer) -> None:
    source = f"%load_ext agentroute_ipython\nfrom agentroute import Agent\nAgent('a', model={server.model!r}).run('hi').output"
    kernel.run(source, cell_id="first")
    kernel.run(source, cell_id="first")
    kernel.restart()
    assert "Answer 2 " in kernel.run(source, cell_id="first").text
    assert len(server.requests) == 2


def test_task_that_outlives_its_cell_keeps_its_place(with_ids: Notebook) -> None:
    wait = "go = asyncio.Event()\nasync def later():\n    await go.wait()\n    return await plain.arun('Late?')\ntask = asyncio.create_task(later())"
    with_ids.run("starts", wait)
    assert with_ids.requests("waits", "go.set()\nresult = await task") == 1
    assert with_ids.rows("cell_id") == [("id of starts",)]


def test_two_kernels_of_one_notebook_do_not_disturb_each_other(
    start_kernel: StartKernel, server: ModelServer, tmp_path: Path
) -> None:
    env = {"AGENTROUTE_RUNS": str(tmp_path / "shared.sqlite")}
    first, second = (Notebook(start_kernel(env=env), server, ids=True) for _ in range(2))
    first.ready()
    second.ready()
    cells = [both.session.start(both.cells["loop"], cell_id="loop") for both in (first, second)]
    assert [cell.outcome().status for cell in cells] == ["ok", "ok"]
    known = len(server.requests)
    assert 3 <= known <= 6  # whoever comes later may find what the other one has paid for
    assert (first.requests("plain"), second.requests("plain")) == (1, 0)
    first.restart()
    second.restart()
    assert [both.requests(name) for both in (first, second) for name in ("loop", "plain")] == [0, 0, 0, 0]


# The whole notebook


@pytest.fixture
def run_all(tmp_path: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], nbformat.NotebookNode]:
    """Runs the notebook from top to bottom in a fresh kernel, as `jupyter execute` does."""
    environment = kernel_environment(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def run() -> nbformat.NotebookNode:
        sources = [
            SETUP.replace("{model!r}", repr(server.model)),
            *(source.replace("{model}", server.model) for source in CELLS.values()),
        ]
        made = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(sources)]
        )
        # As JupyterLab does, it joins what is printed; where one piece ends is a matter of time.
        resources = {"metadata": {"path": str(tmp_path)}}
        with unix_sockets() as config:
            NotebookClient(made, kernel_name="python3", timeout=60, coalesce_streams=True, resources=resources, config=config).execute()
        return made

    return run


def test_restart_and_run_all_sends_nothing_and_saves_the_same(
    run_all: Callable[[], nbformat.NotebookNode], server: ModelServer, tmp_path: Path
) -> None:
    paid = run_all()
    assert len(server.requests) == sum(REQUESTS.values())
    first, second = run_all(), run_all()
    assert len(server.requests) == sum(REQUESTS.values())
    assert json.dumps(saved(first)) == json.dumps(saved(second))
    assert without_figures(saved(first)) == without_figures(saved(paid))
    assert len((tmp_path / "tool.log").read_text().splitlines()) == 3  # tools are not replayed
