"""`agentroute_ipython.usage()`: the totals, when they are drawn, and in a real kernel."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import agentroute_ipython
from agentroute import Agent, RunStore, set_budget
from agentroute.records import RunRecord
from agentroute.store import _listeners, on_save
from agentroute.testing import ModelScripted
from agentroute_ipython.usage_totals import LATELY, UsageSums, UsageTotals, end_process_usage, process_usage
from agentroute_ipython.usage_view import PERIOD_S, UsageView
from tests.ipython.conftest import StartKernel
from tests.ipython.kernels import Session

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def no_budget() -> Iterator[None]:
    yield
    set_budget(None)


def run(number: int, **fields: Any) -> RunRecord:
    known = {"agent_name": "support", "request_model": "m", "status": "ok", "duration_s": 1.0, "n_turns": 1}
    return RunRecord(**{"run_id": f"r{number}", "started_at": datetime(2026, 11, 1, tzinfo=UTC), **known, **fields})


def heard(*runs: RunRecord) -> UsageTotals:
    totals = UsageTotals()
    for one in runs:
        totals.hear(one)
    return totals


# -------------------------------------------------------------------------------------------------------- the totals


def test_runs_are_added_up_by_agent_and_model() -> None:
    totals = heard(
        run(1, input_tokens=10, output_tokens=1, cost_usd=0.5),
        run(2, agent_name="critic", cost_usd=0.25),
        run(3, input_tokens=5, cost_usd=0.25),
    )
    sums = totals.by_agent_and_model()
    assert list(sums) == [("critic", "m"), ("support", "m")]
    assert sums["support", "m"] == UsageSums(runs=2, calls=2, input_tokens=15, output_tokens=1, cost_usd=0.75)


def test_the_order_is_the_same_whichever_run_is_heard_of_first() -> None:
    runs = [run(number, agent_name="ab"[number % 2], request_model=f"m{number // 2}") for number in range(4)]
    shown = {repr(UsageView(heard(*some))) for some in itertools.permutations(runs)}
    assert len(shown) == 1


def test_a_run_that_goes_on_counts_once_with_its_last_turn() -> None:
    going_on = {"status": "interrupted", "duration_s": None}
    totals = heard(run(1, n_turns=1, cost_usd=0.1, **going_on), run(1, n_turns=2, cost_usd=0.2, **going_on))
    assert totals.by_agent_and_model()["support", "m"] == UsageSums(runs=1, going_on=1, calls=2, cost_usd=0.2)
    totals.hear(run(1, n_turns=3, cost_usd=0.3))
    assert totals.by_agent_and_model()["support", "m"] == UsageSums(runs=1, calls=3, cost_usd=0.3)


def test_what_replay_served_was_not_asked() -> None:
    sums = heard(run(1, n_turns=3, n_replayed=2, cost_usd=0.1, cost_saved_usd=0.4)).by_agent_and_model()["support", "m"]
    assert (sums.calls, sums.replayed, sums.saved_usd) == (1, 2, 0.4)


def test_an_unknown_cost_is_no_zero() -> None:
    sums = UsageSums.together(heard(run(1, cost_usd=None, unknown_cost_calls=1)).by_agent_and_model().values())
    assert (sums.cost_usd, sums.unknown_calls) == (None, 1)


def test_turns_are_heard_of_as_they_are_committed(tmp_path: Path) -> None:
    totals = UsageTotals()
    end = on_save(totals.hear)
    with closing(RunStore(tmp_path / "runs.db")) as store:
        Agent("told", model=ModelScripted(["hello"]), store=store).run("hi")
        Agent("untold", model=ModelScripted(["hello"]), store=store, record=False).run("hi")
    end()
    sums = totals.by_agent_and_model()
    assert [agent for agent, _ in sums] == ["told"]
    assert next(iter(sums.values())).calls == 1


def test_totals_heard_from_many_threads_are_whole() -> None:
    totals = UsageTotals()
    threads = [
        threading.Thread(target=lambda part=part: [totals.hear(run(part * 100 + n)) for n in range(100)]) for part in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals.by_agent_and_model()["support", "m"].runs == 800


# ---------------------------------------------------------------------------------------------------------- in words


def test_everything_is_said_in_words() -> None:
    set_budget(5)
    totals = heard(
        run(1, input_tokens=1000, output_tokens=20, cost_usd=1.5),
        run(2, agent_name="critic", n_replayed=1, cost_usd=0.0, cost_saved_usd=0.25),
    )
    text = repr(UsageView(totals))
    assert text.startswith(
        "This notebook: 2 runs, 1 model call, $1.50 spent, $0.2500 saved by replay. Budget: $5.00 left of $5.00 ($0 spent)\n"
    )
    assert [line.split()[0] for line in text.splitlines()[1:5]] == ["agent", "critic", "support", "all"]


def test_what_is_unknown_and_going_on_is_said() -> None:
    text = repr(UsageView(heard(run(1, cost_usd=None, unknown_cost_calls=2, status="interrupted", duration_s=None))))
    assert "2 calls of unknown cost" in text
    assert "spent" not in text
    assert "1 (1 going on)" in text
    at_least = repr(UsageView(heard(run(1, cost_usd=1.0), run(2, cost_usd=None, unknown_cost_calls=1))))
    assert "at least $1.00" in at_least


def test_no_run_and_no_budget_are_said() -> None:
    assert repr(UsageView(UsageTotals())).startswith("No run in this notebook yet. No budget: %agent budget 5.00 sets one\n")


def test_what_is_not_counted_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "Nothing records the runs of this notebook" in repr(UsageView(UsageTotals()))
    with closing(RunStore(tmp_path / "runs.db")) as store:
        monkeypatch.setattr("agentroute.store._default", store)
        said = repr(UsageView(UsageTotals()))
    assert "those with --no-record, or of an agent with record=False, are not; replay is off, so nothing is saved" in said


@pytest.mark.parametrize(("limit", "value"), [(4, "0.500"), (1, "1.000"), (0, "1.000")])
def test_a_meter_shows_how_much_of_the_budget_is_gone(limit: float, value: str) -> None:
    budget = set_budget(limit)
    assert budget is not None
    budget._spent += 2
    assert f'value="{value}"' in UsageView(UsageTotals()).sheet()._repr_html_()


def test_names_are_text() -> None:
    assert HOSTILE not in UsageView(heard(run(1, agent_name=HOSTILE, request_model=HOSTILE))).sheet()._repr_html_()


def test_in_a_terminal_it_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    totals = UsageTotals()
    UsageView(totals)._ipython_display_()
    totals.hear(run(1))
    assert capsys.readouterr().out.count("\n") == len(repr(UsageView(UsageTotals())).splitlines())


# -------------------------------------------------------------------------------------------------- when it is drawn


class Kernel:
    """The shell of a kernel, its clock, and what it is to do later."""

    def __init__(self) -> None:
        self.kernel = self.display_pub = self
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.published: list[tuple[str, bool]] = []

    def publish(self, data: dict[str, str], metadata: dict[str, Any], *, transient: dict[str, str], update: bool = False) -> None:
        self.published.append((data["text/plain"], update))

    def later(self, wait_s: float, call: Callable[[], None]) -> None:
        self.due.append((self.now + wait_s, call))

    def pass_to(self, now: float) -> None:
        self.now = now
        due, self.due = self.due, [one for one in self.due if one[0] > now]
        for at, call in due:
            if at <= now:
                call()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    shell = Kernel()
    monkeypatch.setattr("agentroute_ipython.usage_view._shell", lambda: shell)
    return shell


def test_it_is_redrawn_at_most_twice_a_second_and_the_last_state_is(kernel: Kernel) -> None:
    totals = UsageTotals()
    view = UsageView(totals, clock=lambda: kernel.now, later=kernel.later)
    view._ipython_display_()
    for number in range(100):
        totals.hear(run(number))
        kernel.pass_to(kernel.now + 0.01)
    kernel.pass_to(kernel.now + PERIOD_S)
    texts = [text for text, update in kernel.published if update]
    assert len(texts) == 2
    assert "100 runs" in texts[-1]


def test_after_a_while_a_turn_is_drawn_at_once(kernel: Kernel) -> None:
    totals = UsageTotals()
    UsageView(totals, clock=lambda: kernel.now, later=kernel.later)._ipython_display_()
    kernel.pass_to(kernel.now + 60)
    totals.hear(run(1))
    assert kernel.due[0][0] == kernel.now


def test_a_view_that_is_closed_stays_as_it_is(kernel: Kernel) -> None:
    totals = UsageTotals()
    view = UsageView(totals, clock=lambda: kernel.now, later=kernel.later)
    view._ipython_display_()
    view.close()
    view.close()
    totals.hear(run(1))
    assert (len(kernel.published), kernel.due) == (1, [])


def test_a_notebook_has_one_view_however_often_it_is_asked_for() -> None:
    assert agentroute_ipython.usage() is agentroute_ipython.usage()


# ------------------------------------------------------------------------------------------------------- in a kernel


@pytest.fixture
def kernel_session(start_kernel: StartKernel) -> Session:
    return start_kernel()


def test_it_follows_the_runs_of_the_notebook(kernel_session: Session) -> None:
    kernel = kernel_session
    agents = "\n".join(f'{name} = Agent("{name}", model=ModelScripted(["one", "two"]))' for name in ("early", "late"))
    kernel.run(
        f"%load_ext agentroute_ipython\nimport agentroute_ipython\nfrom agentroute import Agent\nfrom agentroute.testing import ModelScripted\n{agents}"
    )
    assert kernel.run("%%agent early\nhi").status == "ok"  # before anybody asked for the totals
    cell = kernel.start("agentroute_ipython.usage()")
    cell.outcome()
    assert "1 run, 1 model call" in cell.text
    kernel.run("%%agent late\nhi")
    kernel.wait(lambda: "2 runs, 2 model calls" in cell.text, 60, lambda: cell.text)
    kernel.run("%agent --no-record late hi")
    assert len(cell.outputs) == 1
    assert "2 runs, 2 model calls" in kernel.run("print(agentroute_ipython.usage())").stdout


CAPTURED = """
%%capture got
get_ipython().run_cell_magic("agent", "late", "hi")
import time
end = time.monotonic() + 60
while "2 runs" not in view._drawn["text/plain"] and time.monotonic() < end:
    time.sleep(0.05)
"""


def test_a_redraw_while_another_cell_is_captured_goes_where_the_view_stands(kernel_session: Session) -> None:
    kernel = kernel_session
    kernel.run("%load_ext agentroute_ipython\nimport agentroute_ipython\nfrom agentroute import Agent\nfrom agentroute.testing import ModelScripted")
    kernel.run('late = Agent("late", model=ModelScripted(["one", "two"]))\nview = agentroute_ipython.usage()')
    kernel.run("%agent late hi")
    cell = kernel.start("view")
    cell.outcome()
    assert kernel.run(CAPTURED.strip()).status == "ok"
    kernel.wait(lambda: "2 runs, 2 model calls" in cell.text, 60, lambda: cell.text)
    assert "False" in kernel.run("print(any('This notebook' in one.data.get('text/plain', '') for one in got.outputs))").stdout


def test_the_last_of_two_redraws_at_once_is_of_the_last_state(kernel: Kernel) -> None:
    totals = UsageTotals()
    view = UsageView(totals, clock=lambda: kernel.now, later=lambda wait_s, call: None)
    view._ipython_display_()
    states = iter(range(1, 10))
    begun, go_on = threading.Event(), threading.Event()

    def bundle() -> dict[str, str]:
        state = next(states)
        if state == 1:
            begun.set()
            go_on.wait(0.3)
        return {"text/plain": str(state)}

    view._bundle = bundle  # type: ignore[method-assign]
    first = threading.Thread(target=view._draw_again)
    first.start()
    begun.wait(10)
    second = threading.Thread(target=view._draw_again)
    second.start()
    second.join(0.1)
    go_on.set()
    first.join()
    second.join()
    assert [text for text, update in kernel.published if update] == ["1", "2"]


def test_totals_of_many_runs_take_no_more_room_and_are_the_same() -> None:
    going_on = run(0, status="interrupted", duration_s=None)
    totals = heard(going_on, *(run(number, agent_name="ab"[number % 2], cost_usd=0.25, input_tokens=2) for number in range(1, 2001)))
    assert len(totals._runs) <= 2 * LATELY
    totals.hear(run(2000, agent_name="a", cost_usd=0.75))  # saved once more
    sums = totals.by_agent_and_model()
    assert sums["a", "m"] == UsageSums(runs=1000, calls=1000, input_tokens=1998, cost_usd=250.5)
    assert sums["b", "m"] == UsageSums(runs=1000, calls=1000, input_tokens=2000, cost_usd=250.0)
    assert sums["support", "m"].going_on == 1


def test_nothing_is_counted_after_the_extension_is_unloaded(tmp_path: Path) -> None:
    totals, before = process_usage(), len(_listeners)
    end_process_usage()
    end_process_usage()
    assert len(_listeners) == before - 1
    with closing(RunStore(tmp_path / "runs.db")) as store:
        Agent("uncounted", model=ModelScripted(["hello"] * 2), store=store).run("hi")
        assert agentroute_ipython.usage()._totals is totals
        Agent("counted", model=ModelScripted(["hello"]), store=store).run("hi")
    names = [agent for agent, _ in totals.by_agent_and_model()]
    assert "counted" in names and "uncounted" not in names
    assert len(_listeners) == before
