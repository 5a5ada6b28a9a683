"""`agentroute_ipython.history()`: the table itself, and in a real kernel with the messages a browser sends."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import agentroute
import agentroute_ipython
from agentroute import ErrorConfig, RunStore
from agentroute.records import RunRecord
from agentroute_ipython.history_table import ORDERS, PAGE, HistoryTable
from agentroute_ipython.history_view import INSTALL, PAGES, UNSEEN, HistoryView, _widget_class
from tests.ipython.kernels import Comm, Session

START = datetime(2026, 11, 1, 8, tzinfo=UTC)
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


def save(store: RunStore, number: int, **fields: Any) -> str:
    known = {"agent_name": "support", "request_model": "m", "status": "ok", "duration_s": 1.0, "n_turns": 1}
    known |= {"prompt_text": f"Prompt {number}", "output_text": f"Answer {number}", "cost_usd": number / 100}
    run = RunRecord(**{"run_id": f"r{number:04}", "started_at": START + timedelta(minutes=number), **known, **fields})
    store.save(run)
    return run.run_id


def ids(table: HistoryTable) -> list[str]:
    return [row["id"] for row in table.state()["rows"]]


def do(table: HistoryTable, what: str, **more: Any) -> str:
    return table.do({"do": what, **more})


# ---------------------------------------------------------------------------------------------------------- the table


def test_the_newest_runs_come_first_a_page_of_them(store: RunStore) -> None:
    for number in range(PAGE + 10):
        save(store, number)
    table = HistoryTable(store, {})
    state = table.state()
    assert (len(state["rows"]), state["total"], state["pages"], state["first"]) == (PAGE, PAGE + 10, 2, 1)
    assert ids(table)[0] == f"r{PAGE + 9:04}"
    do(table, "page", page=1)
    assert ids(table) == [f"r{number:04}" for number in range(9, -1, -1)]
    do(table, "page", page=99)
    assert table.state()["page"] == 1
    do(table, "page", page=-5)
    assert table.state()["page"] == 0


def test_a_head_sorts_and_pressed_again_turns_it_round(store: RunStore) -> None:
    for number, cost in enumerate([0.2, None, 0.3]):
        save(store, number, cost_usd=cost, agent_name="bca"[number])
    table = HistoryTable(store, {})
    do(table, "sort", by="cost_usd")
    assert ids(table) == ["r0002", "r0000", "r0001"]
    do(table, "sort", by="cost_usd")
    assert ids(table) == ["r0000", "r0002", "r0001"]  # what is unknown stays last
    do(table, "sort", by="agent_name")
    assert ids(table) == ["r0002", "r0000", "r0001"]  # from A on
    assert (table.state()["by"], table.state()["descending"]) == ("agent_name", False)


@pytest.mark.parametrize("by", ORDERS)
def test_every_head_sorts(store: RunStore, by: str) -> None:
    save(store, 1)
    table = HistoryTable(store, {})
    assert do(table, "sort", by=by) == ""
    assert ids(table) == ["r0001"]


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ({"agent": "critic"}, [2]), ({"model": "big"}, [3]), ({"status": "error"}, [4]), ({"tag": "tenant=a"}, [5]), ({"text": "ZEBRA"}, [7, 6]),
        ({"since": "2026-11-02"}, [8]), ({"until": "2026-11-02", "agent": "critic"}, [2]), ({"agent": " critic "}, [2]), ({"agent": "nobody"}, []),
        ({"text": "zebra", "status": "ok"}, [7, 6]), ({"text": "zebra", "status": "error"}, []),
    ],
)  # fmt: skip
def test_each_field_filters(store: RunStore, form: dict[str, str], found: list[int]) -> None:
    special: dict[int, dict[str, Any]] = {
        2: {"agent_name": "critic"}, 3: {"request_model": "big"}, 4: {"status": "error"}, 5: {"tags": '{"tenant": "a"}'},
        6: {"prompt_text": "a zebra"}, 7: {"output_text": "x" * 999 + "Zebra"}, 8: {"started_at": START + timedelta(days=3)},
    }  # fmt: skip
    for number in range(1, 9):
        save(store, number, **special.get(number, {}))
    table = HistoryTable(store, {})
    assert do(table, "filter", form=form) == ""
    assert ids(table) == [f"r{number:04}" for number in found]
    assert table.state()["total"] == len(found)


def test_a_filter_that_is_none_is_told_and_changes_nothing(store: RunStore) -> None:
    save(store, 1)
    table = HistoryTable(store, {})
    assert do(table, "filter", form={"since": "yesterday"}).startswith("since must be a time such as '7d'")
    assert (ids(table), table.filters) == (["r0001"], {})


def test_a_filter_that_is_none_is_told_and_stands_as_typed_until_a_right_one(store: RunStore) -> None:
    save(store, 1)
    table = HistoryTable(store, {})
    problem = do(table, "filter", form={"since": "7", "agent": "nobody"})
    for what, more in (("sort", {"by": "cost_usd"}), ("thumb", {"id": "r0001", "value": 1}), ("page", {"page": 0}), ("refresh", {})):
        assert do(table, what, **more) == ""
        state = table.state()
        assert (state["problem"], state["form"]["since"], state["form"]["agent"]) == (problem, "7", "nobody")
    assert ids(table) == ["r0001"]
    do(table, "filter", form={"since": "99999d"})
    assert (table.state()["problem"], table.state()["form"]["since"]) == ("", "99999d")


def test_what_failed_is_told_until_it_is_done_rightly_or_all_is_refreshed(store: RunStore) -> None:
    save(store, 1)
    table = HistoryTable(store, {})
    problem = do(table, "thumb", id="gone", value=1)
    do(table, "sort", by="cost_usd")
    assert table.problem == problem != ""
    do(table, "thumb", id="r0001", value=1)
    assert table.problem == ""
    do(table, "open", id="gone")
    do(table, "drop")
    assert [line.partition(" in ")[0] for line in table.problem.splitlines()] == ["there is no run 'gone'", "the table cannot do 'drop'"]
    do(table, "refresh")
    assert table.problem == ""


@pytest.mark.parametrize(
    "message",
    [
        {}, {"do": "drop"}, {"do": "sort", "by": "prompt_text; DROP"}, {"do": "thumb", "id": "none", "value": 1}, {"do": "filter"},
        {"do": "filter", "form": "agent"}, {"do": "page", "page": "x"}, {"do": "page", "page": None}, {"do": "open"}, {"do": "select", "on": True},
        {"do": "select", "ids": "r0001", "on": True}, {"do": "select", "ids": [["r0001"]], "on": True}, {"do": "select", "ids": ["nope"], "on": True},
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told(store: RunStore, message: dict[str, Any]) -> None:
    save(store, 1)
    table = HistoryTable(store, {})
    assert table.do(message) != ""
    assert (ids(table), table.selected) == (["r0001"], [])


def test_filters_of_python_fill_the_fields_or_stay(store: RunStore) -> None:
    for number in range(4):
        save(store, number, agent_name=["a", "b"][number % 2], notebook=["n", None][number // 2])
    table = HistoryTable(store, {"agent": "a", "notebook": ["n", "k"], "limit": None})
    assert (table.state()["form"]["agent"], table.state()["fixed"]) == ("a", {"notebook": "n, k"})
    assert ids(table) == ["r0000"]
    do(table, "filter", form={"agent": "", "notebook": "k"})
    assert ids(table) == ["r0001", "r0000"]


def test_what_can_be_chosen_is_offered_the_most_frequent_first(store: RunStore) -> None:
    for number in range(5):
        save(
            store, number, agent_name="aabbb"[number], request_model=f"m{number % 2}", tags=["{no json", '{"t": "1"}'][number % 2]
        )
    choices = HistoryTable(store, {}).state()["choices"]
    assert choices == {"agent": [("b", "b"), ("a", "a")], "model": [("m0", "m0"), ("m1", "m1")], "tag": [("t=1", "t=1")]}


@pytest.mark.parametrize("act", [("refresh", {}), ("sort", {"by": "cost_usd"}), ("filter", {"form": {"text": "prompt"}})])
def test_new_runs_appear_at_the_next_refresh_sort_or_filter(store: RunStore, act: tuple[str, dict[str, Any]]) -> None:
    save(store, 1)
    table = HistoryTable(store, {"text": "Prompt"})
    save(store, 2)
    assert do(table, act[0], **act[1]) == ""
    assert table.state()["total"] == 2


def test_selected_runs_stay_selected_over_pages_and_filters(store: RunStore) -> None:
    for number in range(PAGE + 5):
        save(store, number, agent_name="ab"[number % 2])
    table = HistoryTable(store, {})
    do(table, "select", ids=["r0054", "r0053"], on=True)
    do(table, "page", page=1)
    do(table, "select", ids=["r0001"], on=True)
    do(table, "select", ids=["r0053", "r0099"], on=False)
    assert table.selected == ["r0054", "r0001"]
    assert [row["id"] for row in table.state()["rows"] if row["selected"]] == ["r0001"]
    do(table, "filter", form={"agent": "a"})
    do(table, "select_all", on=True)
    assert len(table.selected) == table.state()["n_selected"] == 28 + 1
    do(table, "select_all", on=False)
    assert table.selected == []


@pytest.mark.parametrize("act", [("refresh", {}), ("sort", {"by": "cost_usd"}), ("filter", {"form": {}})])
def test_selected_runs_that_are_deleted_are_selected_no_more(store: RunStore, act: tuple[str, dict[str, Any]]) -> None:
    save(store, 1)
    save(store, 2)
    table = HistoryTable(store, {})
    table.selected = ["r0001", "r0002"]
    agentroute.forget("r0001", store=store)
    assert do(table, act[0], **act[1]) == ""
    assert (table.selected, table.state()["n_selected"]) == (["r0002"], 1)
    table.selected = table.selected


def test_of_a_page_with_deleted_runs_the_others_are_selected(store: RunStore) -> None:
    save(store, 1)
    save(store, 2)
    table = HistoryTable(store, {})
    agentroute.forget("r0001", store=store)
    assert do(table, "select", ids=["r0001", "r0002"], on=True).startswith("there is no run 'r0001' any more")
    assert table.selected == ["r0002"]


def test_the_card_of_a_run_that_goes_on_says_running_as_its_row_does(store: RunStore) -> None:
    save(store, 1, status="interrupted", duration_s=None)
    save(store, 2, status="interrupted")
    table = HistoryTable(store, {})
    words = {}
    for row in table.state()["rows"]:
        do(table, "open", id=row["id"])
        words[row["status"]] = re.findall(r'<b class="agr-state">(\w+)</b>', table.opened or "")
    assert words == {"running": ["running"], "interrupted": ["interrupted"]}


def test_thumbs_are_scores_and_pressed_again_are_taken_back(store: RunStore) -> None:
    save(store, 1)
    table = HistoryTable(store, {})
    for value, kept in ((1, [1.0]), (0, [0.0]), (0, []), (0, [0.0])):
        assert do(table, "thumb", id="r0001", value=value) == ""
        assert agentroute.scores(store)["value"].tolist() == kept
        assert table.state()["rows"][0]["thumb"] == (kept[0] if kept else None)


def test_a_thumb_of_somebody_else_is_not_shown_as_ones_own(store: RunStore) -> None:
    agentroute.score(save(store, 1), "thumb", 0, scorer="Zoe", store=store)
    assert HistoryTable(store, {}).state()["rows"][0]["thumb"] is None


def test_static_table_is_what_is_seen_and_says_so(store: RunStore) -> None:
    for number in range(30):
        save(store, number, agent_name="ab"[number % 2])
    table = HistoryTable(store, {})
    assert repr(table.sheet()).startswith("The first 20 of 30 runs, newest first\n")
    do(table, "sort", by="cost_usd")
    do(table, "filter", form={"agent": "b", "text": "1"})
    text = repr(table.sheet())
    assert text.startswith("7 runs, by cost, most first; agent: b; text: 1\n")
    assert [line.split()[-1] for line in text.splitlines()[2:9]] == ids(table)


def test_names_are_text_in_the_static_table(store: RunStore) -> None:
    save(store, 1, agent_name=HOSTILE, request_model=HOSTILE, prompt_text=HOSTILE, error_type=HOSTILE, status="error")
    shown = HistoryTable(store, {"agent": HOSTILE}).sheet()._repr_html_()
    assert "<img" not in shown
    assert shown.count("&lt;img src=x onerror=alert(1)&gt;") == 5


def test_a_run_deleted_meanwhile_is_left_out(store: RunStore) -> None:
    save(store, 1)
    save(store, 2)
    table = HistoryTable(store, {})
    agentroute.forget("r0002", store=store)
    assert ids(table) == ["r0001"]
    do(table, "refresh")
    assert table.state()["total"] == 1


# ----------------------------------------------------------------------------------------------------------- the view


def test_frame_is_of_the_selected_runs_or_of_all_that_match(store: RunStore) -> None:
    for number in range(4):
        save(store, number, agent_name="ab"[number % 2])
    view = agentroute_ipython.history(store, agent="b")
    assert list(view.frame["run_id"]) == ["r0001", "r0003"]
    view.selected = ["r0002", "r0000"]
    assert view.selected == ["r0002", "r0000"]
    assert list(view.frame["run_id"]) == ["r0000", "r0002"]
    assert list(view.frame.columns) == list(agentroute.runs(store).columns)


def test_runs_of_a_frame_can_be_selected(store: RunStore) -> None:
    for number in range(3):
        save(store, number)
    view = agentroute_ipython.history(store)
    view.selected = agentroute.runs(store).tail(2)
    assert view.selected == ["r0001", "r0002"]


def test_only_runs_can_be_selected(store: RunStore) -> None:
    save(store, 1)
    view = agentroute_ipython.history(store)
    with pytest.raises(ErrorConfig, match="there is no run 'r9'"):
        view.selected = ["r0001", "r9"]
    assert view.selected == []


def test_a_wrong_filter_is_named(store: RunStore) -> None:
    with pytest.raises(ErrorConfig, match="history takes no 'agnet'; did you mean 'agent'"):
        agentroute_ipython.history(store, agnet="x")  # type: ignore[call-arg]
    with pytest.raises(ErrorConfig, match="status must be one of"):
        agentroute_ipython.history(store, status="bad")


def test_in_a_terminal_it_is_text_and_says_where_it_is_more(store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    save(store, 1)
    view = agentroute_ipython.history(str(store.path))
    view._ipython_display_()
    printed = capsys.readouterr().out
    assert printed.startswith("1 run, newest first\nstarted ")
    assert printed.endswith(f"{PAGES}\n")


def test_an_empty_history_says_so(store: RunStore) -> None:
    assert repr(agentroute_ipython.history(store)).startswith(f"no run is recorded in {store.path} yet; ")


class Shell:
    """A kernel's shell that keeps what is published."""

    def __init__(self) -> None:
        self.kernel = self.display_pub = self
        self.published: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def publish(self, data: dict[str, Any], metadata: dict[str, Any], **more: Any) -> None:
        self.published.append((data, more))


def test_without_anywidget_it_is_static_and_says_what_to_install(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, 1)
    shell = Shell()
    monkeypatch.setattr("agentroute_ipython.history_view._shell", lambda: shell)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    _widget_class.cache_clear()
    agentroute_ipython.history(store)._ipython_display_()
    assert len(shell.published) == 1
    assert INSTALL in shell.published[0][0]["text/plain"]
    assert "pip install" in shell.published[0][0]["text/html"]


# ------------------------------------------------------------------------------------------------------- in a kernel

MAKE = """
from datetime import UTC, datetime, timedelta
import agentroute, agentroute_ipython
from agentroute import RunStore
from agentroute.records import RunRecord
store = RunStore("runs.db")
for n in range(60):
    store.save(RunRecord(run_id=f"r{n:04}", started_at=datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=n), agent_name="ab"[n % 2],
               request_model="m", status="ok", duration_s=1.0, cost_usd=n / 100, prompt_text=f"Prompt {n}", output_text="It is <b>done</b>."))
"""


def shown(kernel: Session) -> Comm:
    """The widget of a fresh view over sixty runs."""
    kernel.run(MAKE)
    kernel.run("view = agentroute_ipython.history(store)\nview")
    return kernel.wait_for_widget(_model_name="AnyModel")


def send(kernel: Session, widget: Comm, **content: Any) -> dict[str, Any]:
    """Does it, and the state that answers."""
    before = len(widget.received)
    kernel.send_comm(widget, {"method": "custom", "content": content})
    kernel.wait(lambda: len(widget.received) > before, 60, lambda: f"no answer to {content}")
    return dict(widget.state.get("state", {}))


def test_static_table_and_live_one_are_two_outputs(kernel: Session) -> None:
    kernel.run(MAKE)
    outcome = kernel.run("view = agentroute_ipython.history(store)\nview")
    static, live = outcome.outputs
    assert set(static) == {"text/html", "text/plain"}
    assert 'class="agr agr-sheet agr-history' in static["text/html"]
    assert static["text/plain"].startswith("The first 20 of 60 runs, newest first")
    assert set(live) == {"application/vnd.jupyter.widget-view+json", "text/plain"}
    assert live["text/plain"] == UNSEEN
    assert outcome.stdout == outcome.stderr == ""


def test_what_is_done_in_the_browser_is_there_in_python_and_back(kernel: Session) -> None:
    widget = shown(kernel)
    state = send(kernel, widget, do="sort", by="cost_usd")
    assert [row["id"] for row in state["rows"][:2]] == ["r0059", "r0058"]
    state = send(kernel, widget, do="filter", form={"agent": "a"})
    assert (state["total"], state["problem"]) == (30, "")
    send(kernel, widget, do="select", ids=["r0058", "r0002"], on=True)
    assert kernel.run("print(view.selected, list(view.frame.run_id))").stdout == "['r0058', 'r0002'] ['r0002', 'r0058']\n"
    kernel.run("view.selected = ['r0000']")
    assert widget.state["state"]["n_selected"] == 1
    send(kernel, widget, do="thumb", id="r0000", value=1)
    assert (
        kernel.run("print(agentroute.scores(store)[['run_id', 'name', 'value']].values.tolist())").stdout
        == "[['r0000', 'thumb', 1.0]]\n"
    )
    assert "since must be a time" in send(kernel, widget, do="filter", form={"since": "soon"})["problem"]


def test_static_table_follows_the_live_one(kernel: Session) -> None:
    kernel.run(MAKE)
    cell = kernel.start("view = agentroute_ipython.history(store)\nview")
    cell.outcome()
    widget = kernel.wait_for_widget(_model_name="AnyModel")
    send(kernel, widget, do="filter", form={"agent": "b"})
    kernel.wait(lambda: "agent: b" in cell.text, 60, lambda: cell.text[:300])
    assert "30 runs, newest first; agent: b" in cell.outputs[0]["text/plain"]


def test_a_row_opens_its_card(kernel: Session) -> None:
    widget = shown(kernel)
    send(kernel, widget, do="open", id="r0007")
    card = widget.received[-1]["content"]
    assert card["id"] == "r0007"
    assert "It is &lt;b&gt;done&lt;/b&gt;." in card["card"]
    assert send(kernel, widget, do="open", id="gone")["problem"].startswith("there is no run 'gone'")


def test_state_is_json_of_one_page(kernel: Session) -> None:
    widget = shown(kernel)
    state = widget.state["state"]
    assert (len(state["rows"]), state["total"]) == (PAGE, 60)
    assert len(json.dumps(state)) < 40_000


def test_a_view_that_is_closed_leaves_the_static_table(kernel: Session) -> None:
    widget = shown(kernel)
    outcome = kernel.run("view.close(); view.selected = ['r0001']; print(view.selected)")
    assert outcome.stdout == "['r0001']\n"
    assert widget.closed


def test_importing_the_extension_loads_no_widgets(kernel: Session) -> None:
    kernel.run("%load_ext agentroute_ipython")
    names = "['anywidget', 'ipywidgets', 'pandas', 'agentroute_ipython.history_view', 'agentroute_ipython.usage_view']"
    assert kernel.run(f"import sys; print([name for name in {names} if name in sys.modules])").stdout == "[]\n"


def test_the_table_answers_on_a_subshell_too(kernel: Session) -> None:
    """As JupyterLab sends messages of widgets where the kernel has subshells: to a thread of their own."""
    widget = shown(kernel)
    kernel.send_comm(widget, {"method": "custom", "content": {"do": "filter", "form": {"agent": "a"}}}, kernel.create_subshell())
    kernel.wait(lambda: widget.state["state"]["total"] == 30, 60, lambda: "no answer")
    assert "agent: a" in kernel.run("print(view)").stdout


@pytest.mark.parametrize("act", ["sort", "page", "filter", "select", "select_all", "thumb", "open", "refresh"])
@pytest.mark.parametrize("odd", [None, "x", 5, -1.5, 1e400, [], {}, [None], {"text": {}}, "\ud83d", ["\ud83d"], {"text": "\ud83d", "agent": "\ud83d"}, 10**30])
def test_no_message_leaves_the_table_without_an_answer(store: RunStore, act: str, odd: Any) -> None:
    save(store, 1)
    view = HistoryView(HistoryTable(store, {}))
    view._widget = widget = SimpleNamespace(state={}, send=lambda content: json.dumps(content, ensure_ascii=False).encode())
    view._handle({"do": act, **dict.fromkeys(("by", "page", "form", "ids", "on", "id", "value"), odd)})
    view._handle({"do": "sort", "by": "cost_usd"})
    assert json.dumps(widget.state, ensure_ascii=False).encode()
    assert widget.state["by"] == "cost_usd"


@pytest.mark.parametrize("message", [None, "sort", 5, ["do"], {"do": ["sort"]}, {"do": {}}])
def test_a_message_that_is_none_is_told(store: RunStore, message: Any) -> None:
    view = HistoryView(HistoryTable(store, {}))
    view._widget = widget = SimpleNamespace(state={})
    view._handle(message)
    assert "the table cannot do" in widget.state["problem"]


def test_a_file_that_cannot_be_read_any_more_is_told(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store, 1)
    view = HistoryView(HistoryTable(store, {}))
    view._widget = widget = SimpleNamespace(state={"rows": ["as before"]})
    monkeypatch.setattr(view._table, "state", lambda: 1 / 0)
    view._handle({"do": "select_all"})
    assert widget.state["rows"] == ["as before"]
    assert widget.state["problem"].startswith("ZeroDivisionError")


COUNTS = """
import gc, os, ipywidgets.widgets.widget as widgets
gc.collect()
print(len(widgets._instances), len(get_ipython().kernel.comm_manager.comms), sum("runs.db" in os.path.realpath(f"/proc/self/fd/{file}") for file in os.listdir("/proc/self/fd")))
"""
FORM = "get_ipython().run_line_magic('agent', 'edit newbie')"


@pytest.mark.parametrize("cell", ["agentroute_ipython.history('runs.db')", "view = agentroute_ipython.history('runs.db')\nview", FORM])
def test_a_cell_that_is_run_again_closes_what_it_has_shown_before(kernel: Session, cell: str) -> None:
    kernel.run(MAKE)
    kernel.run("%load_ext agentroute_ipython")
    other = "agentroute_ipython.history(store)"
    kernel.run(other)
    kernel.run(cell)
    kernel.run(cell)
    twice = kernel.run(COUNTS).stdout
    for _ in range(5):
        assert kernel.run(cell).status == "ok"
    assert kernel.run(COUNTS).stdout == twice
    assert int(twice.split()[0]) == 4  # this cell's and the other's, each with its layout


def test_a_view_that_another_cell_shows_stays_open(kernel: Session) -> None:
    kernel.run(MAKE)
    kernel.run("made = agentroute_ipython.history(store)\nmade")
    kernel.run("made ")
    kernel.run("made ")
    assert kernel.run("print(made._widget is not None)").stdout == "True\n"


def test_a_redraw_while_another_cell_is_captured_goes_where_the_table_stands(kernel: Session) -> None:
    kernel.run(MAKE)
    cell = kernel.start("view = agentroute_ipython.history(store)\nview")
    cell.outcome()
    kernel.run("%%capture got\nview._handle({'do': 'filter', 'form': {'agent': 'b'}})")
    kernel.wait(lambda: "agent: b" in cell.text, 60, lambda: cell.text[:300])
    assert kernel.run("print(len(got.outputs))").stdout == "0\n"
