"""The tap that records: events pass, rows are committed turn by turn."""

import asyncio
import signal
import subprocess
import sys
import time
import warnings
from contextlib import aclosing, closing
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from agentroute import Agent, ErrorBudget, Memory, Retry, RunStore, ToolCall, run_spec
from agentroute.errors import ErrorModelServer, ErrorStore
from agentroute.events import AgentEnd, TextDelta, ToolCallEnd, ToolCallStart, TurnEnd, TurnStart
from agentroute.records import RunRecord
from agentroute.store import default_store, set_default_store
from agentroute.testing import ModelScripted


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


SUM = ToolCall("1", "add", {"a": 1, "b": 2})


def agent_of(*answers, store=None, tools=(add,), **options):
    return Agent("adder", model=ModelScripted(list(answers), cost_usd=0.25), tools=list(tools), store=store, **options)


@pytest.fixture
def store(tmp_path):
    with closing(RunStore(tmp_path / "runs.db")) as store:
        yield store


def stored(store):
    """The record of the only run in the store."""
    ((run_id, *_),) = store.select(RunRecord)
    return store.record(run_id)


class StoreNoted:
    """A store that notes what each save was given."""

    def __init__(self, failing=()):
        self.saves, self.failing = [], set(failing)

    def save(self, run, **rows):
        self.saves.append((run, rows))
        if len(self.saves) in self.failing:
            raise ErrorStore("the disk is full")


def events_of(agent, prompt="1+2?", **options):
    """All events of a run."""

    async def collect():
        async with aclosing(agent.events(prompt, **options)) as events:
            return [event async for event in events]

    return asyncio.run(collect())


# ---- what is kept -----------------------------------------------------------------------------------------------


def test_a_run_is_stored_as_its_record_says(store):
    result = agent_of(SUM, "It is 3.", store=store, instructions="Add.").run("1+2?")
    assert stored(store) == result.record
    assert result.record.run.status == "ok"
    assert [len(part) for part in (result.record.turns, result.record.tool_calls, result.record.messages)] == [2, 1, 5]


def test_a_failed_run_is_stored_with_its_error(store):
    with pytest.raises(ErrorBudget) as caught:
        agent_of(SUM, SUM, "It is 3.", store=store, max_cost=0.3).run("1+2?")
    assert stored(store) == caught.value.result.record
    assert (stored(store).run.status, stored(store).run.error_type) == ("error", "ErrorBudget")


def test_a_run_that_fails_before_its_first_request_is_stored(store):
    with pytest.raises(Exception, match="prompt is empty"):
        agent_of("never", store=store).run("")
    assert stored(store).run.error_type == "ErrorConfig"


def test_a_failed_model_call_is_a_turn(store):
    with pytest.raises(ErrorModelServer):
        agent_of(SUM, ErrorModelServer("boom"), store=store).run("1+2?")
    assert [turn.error_type for turn in stored(store).turns] == [None, "ErrorModelServer"]


def test_corrections_are_at_their_place(store):
    picky = agent_of("no", "yes", store=store)

    @picky.output_validator
    def only_yes(ctx, output):
        if output != "yes":
            raise Retry("say yes")

    result = picky.run("well?")
    assert [message.content_text for message in stored(store).messages] == ["well?", "no", "say yes", "yes"]
    assert stored(store) == result.record


def test_a_structured_answer_given_as_a_tool_call_is_stored_as_the_answer(store):
    def answer(request):
        return ToolCall("1", request.tools[-1]["function"]["name"], {"value": 3})

    result = agent_of(answer, store=store, output=int, output_mode="tool", tools=()).run("1+2?")
    assert stored(store) == result.record


def test_ids_sort_by_the_order_in_which_they_were_made(monkeypatch):
    milliseconds = iter([5, *[6] * 3000, *[7] * 3000, 6])  # the last: a clock that was set back a little
    monkeypatch.setattr(run_spec, "time", SimpleNamespace(time_ns=lambda: 1_000_000 * next(milliseconds)))
    monkeypatch.setattr(run_spec, "os", SimpleNamespace(urandom=lambda count: b"\xff" * count))  # the largest steps there are
    monkeypatch.setattr(run_spec, "_latest", 0)
    ids = [run_spec.new_run_id() for _ in range(6002)]
    assert ids == sorted(set(ids)) and {len(one) for one in ids} == {26}
    assert [one[:10] for one in (ids[0], ids[-1])] == ["0000000005", "0000000007"]


def test_runs_inside_tools_are_stored_beside_their_parent(store):
    inner = agent_of("inner answer")

    async def ask() -> str:
        """Asks another agent."""
        return (await inner.arun("deeper?")).output

    outer = agent_of(ToolCall("1", "ask", {}), "done", store=store, tools=[ask]).run("go")
    parents = {row[0] for row in store.select(RunRecord, columns=["parent_run_id"])}
    assert parents == {None, outer.run_id}


def test_tools_that_end_out_of_order_are_told_in_order(store):
    first_may_end = asyncio.Event()

    async def slow() -> str:
        """Ends last."""
        await first_may_end.wait()
        return "slow"

    async def fast() -> str:
        """Ends first."""
        first_may_end.set()
        return "fast"

    result = agent_of([ToolCall("1", "slow", {}), ToolCall("2", "fast", {})], "ok", store=store, tools=[slow, fast]).run("go")
    assert [message.content_text for message in stored(store).messages[2:4]] == ["slow", "fast"]
    assert stored(store) == result.record


# ---- when it is kept --------------------------------------------------------------------------------------------


def test_each_event_is_passed_on_after_what_it_tells_is_in_the_file(store):
    async def watch():
        seen = []
        async with aclosing(agent_of(SUM, "It is 3.", store=store).events("1+2?")) as events:
            async for event in events:
                if not isinstance(event, TextDelta | TurnStart | ToolCallStart):
                    record = stored(store)
                    parts = (record.turns, record.tool_calls, record.messages)
                    seen.append((event.kind, record.run.status, record.run.n_turns, *map(len, parts)))
        return seen

    assert asyncio.run(watch()) == [
        ("agent_start", "interrupted", 0, 0, 0, 1),
        ("turn_end", "interrupted", 1, 1, 0, 2),
        ("tool_call_end", "interrupted", 1, 1, 1, 2),
        ("turn_end", "interrupted", 2, 2, 1, 4),
        ("agent_end", "ok", 2, 2, 1, 4),
    ]


def test_the_events_are_passed_on_unchanged():
    plain, tapped = agent_of(SUM, "It is 3."), agent_of(SUM, "It is 3.", store=StoreNoted())
    assert [event.kind for event in events_of(tapped)] == [event.kind for event in events_of(plain)]


def test_a_row_is_written_once_for_each_change():
    noted = StoreNoted()
    events_of(agent_of(SUM, SUM, "It is 3.", store=noted))
    written = [sum(len(rows[part]) for _, rows in noted.saves) for part in ("turns", "tool_calls", "messages")]
    assert written == [3, 2, 6]


def test_text_deltas_cost_no_write():
    noted = StoreNoted()
    events = events_of(agent_of("It is a longer answer, in many pieces.", store=noted))
    assert sum(isinstance(event, TextDelta) for event in events) > 5
    assert len(noted.saves) == 3


# ---- leaving early ----------------------------------------------------------------------------------------------


def leave_at(kind, store, **options):
    """Stops listening at the first event of a kind."""

    async def leave():
        async with aclosing(agent_of(SUM, "It is 3.", store=store, **options).events("1+2?")) as events:
            async for event in events:
                if isinstance(event, kind):
                    return

    asyncio.run(leave())


@pytest.mark.parametrize(("kind", "turns", "calls"), [(TurnEnd, 1, 0), (ToolCallEnd, 1, 1), (TextDelta, 2, 1)])
def test_a_run_that_is_left_stays_interrupted_with_its_sums(store, kind, turns, calls):
    leave_at(kind, store)
    record = stored(store)
    assert (record.run.status, record.run.n_turns, record.run.n_tool_calls) == ("interrupted", turns, calls)
    assert (len(record.turns), len(record.tool_calls)) == (turns, calls)
    assert record.run.cost_usd == 0.25
    assert record.run.duration_s > 0


def test_a_model_call_cut_off_is_a_turn_of_unknown_cost(store):
    leave_at(TextDelta, store)
    last = stored(store).turns[-1]
    assert (last.error_type, last.cost_usd) == ("ErrorInterrupted", None)


def test_a_run_left_after_its_last_event_stays_what_it_was(store):
    leave_at(AgentEnd, store)
    assert stored(store).run.status == "ok"


def test_a_cancelled_run_is_stored_as_interrupted(store):
    async def hang() -> str:
        """Never ends."""
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.Event().wait()
        return ""

    async def main():
        nonlocal task
        task = asyncio.create_task(agent_of(ToolCall("1", "hang", {}), store=store, tools=[hang]).arun("go"))
        with pytest.raises(asyncio.CancelledError):
            await task

    task = None
    asyncio.run(main())
    record = stored(store)
    assert (record.run.status, record.run.error_type) == ("interrupted", "ErrorInterrupted")
    assert [call.status for call in record.tool_calls] == ["interrupted"]


@pytest.mark.parametrize("save", [1, 2, 3, 4])
def test_a_run_cancelled_while_it_is_written_still_ends_with_its_last_event(save):
    class StoreCancelling(StoreNoted):
        def save(self, run, **rows):
            super().save(run, **rows)
            if len(self.saves) == save:
                loop.call_soon_threadsafe(task.cancel)
                time.sleep(0.05)  # so that the cancellation comes first

    async def listen():
        async with aclosing(agent_of(SUM, "It is 3.", store=noted).events("1+2?")) as events:
            async for event in events:
                kinds.append(event.kind)

    async def main():
        nonlocal task, loop
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(listen())
        with pytest.raises(asyncio.CancelledError):
            await task

    task = loop = None
    noted, kinds = StoreCancelling(), []
    asyncio.run(main())
    assert kinds[-1] == "agent_end"
    assert noted.saves[-1][0].status == "interrupted"


def test_kill_9_during_a_run_loses_no_turn(store):
    code = """
import sys, os, signal
from tests.test_recorder import *
def die() -> str:
    "Ends the process."
    os.kill(os.getpid(), signal.SIGKILL)
agent_of(SUM, SUM, ToolCall("1", "die", {}), store=RunStore(sys.argv[1]), tools=[add, die]).run("go")
"""
    done = subprocess.run([sys.executable, "-c", code, str(store.path)], check=False)
    record = stored(store)
    assert done.returncode == -signal.SIGKILL
    assert (record.run.status, record.run.duration_s, record.run.n_turns) == ("interrupted", None, 3)
    assert record.run.cost_usd == 0.75
    assert (len(record.turns), [call.tool_name for call in record.tool_calls]) == (3, ["add", "add"])
    assert record.messages[-1].tool_calls_text is not None


# ---- stores that fail -------------------------------------------------------------------------------------------


def test_a_store_that_fails_costs_one_warning_and_no_answer():
    noted = StoreNoted(failing=range(100))
    with pytest.warns(RuntimeWarning, match="runs are not recorded: ErrorStore: the disk is full") as caught:
        outputs = [agent_of(SUM, "It is 3.", store=noted).run("1+2?").output for _ in range(2)]
    assert outputs == ["It is 3."] * 2
    assert len(caught) == 1


def test_after_a_failure_the_end_of_the_run_brings_everything():
    noted = StoreNoted(failing=[2])
    with pytest.warns(RuntimeWarning):
        result = agent_of(SUM, "It is 3.", store=noted).run("1+2?")
    assert len(noted.saves) == 3
    run, rows = noted.saves[-1]
    assert run == result.record.run
    assert (rows["turns"], rows["tool_calls"]) == (result.record.turns, result.record.tool_calls)
    assert rows["messages"] == result.record.messages


class StoreFailingOnce(RunStore):
    """A store of which one save fails."""

    def __init__(self, path, failing):
        super().__init__(path)
        self.saves, self.failing = 0, failing

    def save(self, run, **rows):
        self.saves += 1
        if self.saves == self.failing:
            raise ErrorStore("the disk is full")
        super().save(run, **rows)


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 5, 6])
def test_a_save_that_fails_once_leaves_nothing_out_whichever_it_is(tmp_path, failing):
    first_is_told = asyncio.Event()

    async def slow() -> str:
        """Ends when the end of the other call is in the store."""
        await first_is_told.wait()
        return "slow"

    async def listen():
        async with aclosing(
            agent_of([SUM, ToolCall("2", "slow", {})], "It is 3.", store=store, tools=[add, slow]).events("go")
        ) as events:
            async for event in events:
                if isinstance(event, ToolCallEnd):
                    first_is_told.set()
        return event.result

    with closing(StoreFailingOnce(tmp_path / "runs.db", failing)) as store:
        with pytest.warns(RuntimeWarning, match="the disk is full"):
            result = asyncio.run(listen())
        assert stored(store) == result.record
        assert [call.status for call in stored(store).tool_calls] == ["ok", "ok"]


@dataclass
class StoreDataclass:
    """A store without a hash."""

    def save(self, run, **rows):
        raise ErrorStore("the disk is full")


class StoreSlots:
    """A store that cannot be referred to weakly."""

    __slots__ = ()

    def save(self, run, **rows):
        raise ErrorStore("the disk is full")


class ErrorUnreadable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class StoreUnreadable(StoreDataclass):
    def save(self, run, **rows):
        raise ErrorUnreadable


@pytest.mark.parametrize("kind", [StoreDataclass, StoreSlots])
def test_any_store_that_fails_is_warned_of_once(kind):
    failing = kind()
    with pytest.warns(RuntimeWarning, match="runs are not recorded") as caught:
        outputs = [agent_of(SUM, "It is 3.", store=failing).run("1+2?").output for _ in range(2)]
    assert outputs == ["It is 3."] * 2
    assert len(caught) == 1


@pytest.mark.parametrize("kind", [StoreDataclass, StoreSlots])
def test_a_warning_that_is_an_error_is_logged_and_costs_no_answer(kind, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agent_of(SUM, "It is 3.", store=kind()).run("1+2?").output == "It is 3."
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("agentroute", "runs are not recorded: ErrorStore: the disk is full")
    ]


def test_an_error_without_readable_text_costs_no_answer():
    assert agent_of("fine", store=StoreUnreadable()).run("go").output == "fine"


@pytest.mark.parametrize("place", ["/proc/no/runs.db", "/dev/full", "/etc"])
def test_a_place_that_cannot_be_written_does_not_break_the_run(place):
    with pytest.warns(RuntimeWarning, match=place):
        assert agent_of("fine", store=RunStore(place)).run("go").output == "fine"


def test_a_read_only_directory_does_not_break_the_run(tmp_path):
    code = """
import os, pathlib, queue, sqlite3, sys, tempfile, warnings
from tests.test_recorder import *
place = pathlib.Path(tempfile.mkdtemp(dir=sys.argv[1]))
place.chmod(0o555)
agent = agent_of(SUM, "fine", store=RunStore(place / "runs.db"))
agent_of("loaded").run("so that every module is there before the rights are given up")
if os.geteuid() == 0:
    os.setuid(65534)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(agent.run("go").output, len(caught), str(place / "runs.db") in str(caught[0].message))
"""
    tmp_path.chmod(0o755)
    tmp_path.parent.chmod(0o755)
    tmp_path.parent.parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "fine 1 True\n"


def test_a_full_disk_does_not_break_the_run(store):
    code = """
import resource, sys, warnings
from tests.test_recorder import *
store = RunStore(sys.argv[1])
big = lambda: "x" * 100_000
agent_of("small", store=store).run("first")
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    result = Agent("b", model=ModelScripted([ToolCall(str(n), "big", {}) for n in range(5)] + ["big answer"]), tools=[big], store=store)
    print(result.run("second").output, len(caught), "make room" in str(caught[0].message))
"""
    code = code.replace('big = lambda: "x" * 100_000', 'def big() -> str:\n    "Much text."\n    return "x" * 100_000')
    done = subprocess.run([sys.executable, "-c", code, str(store.path)], capture_output=True, text=True, check=True)
    assert done.stdout == "big answer 1 True\n"
    run_id, *_ = next(store.select(RunRecord))
    assert store.record(run_id).run.prompt_text == "first"


def test_a_file_that_is_deleted_while_a_run_goes_on_gets_all_of_it_again(store):
    def clean() -> str:
        """Cleans up."""
        store.close()
        for file in store.path.parent.glob("runs.db*"):
            file.unlink()
        return "clean"

    agent_of("before", store=store).run("another run")
    result = agent_of(SUM, ToolCall("2", "clean", {}), SUM, "It is 3.", store=store, tools=[add, clean]).run("go")
    assert stored(store) == result.record
    assert [len(part) for part in (result.record.turns, result.record.tool_calls)] == [4, 3]


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def locked(store, monkeypatch):
    """A history that another process does not let go of, until it is told to."""
    monkeypatch.setattr("agentroute._sqlite.BRIEF_S", 0.01)
    agent_of("fine", store=store).run("before")
    store._database._timeout_s = 0.2
    command = [sys.executable, "-c", LOCK, str(store.path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "locked\n"
    yield lambda: holder.communicate("end\n")
    holder.communicate()


class StoreListening(RunStore):
    """A store that notes how its saves failed."""

    def __init__(self, path):
        super().__init__(path)
        self.errors = []

    def save(self, run, **rows):
        try:
            return super().save(run, **rows)
        except ErrorStore as error:
            self.errors.append(str(error))
            raise


def test_a_lock_is_waited_for_in_full_once_and_then_briefly(store, locked):
    with closing(StoreListening(store.path)) as listening:
        listening._database._timeout_s = 0.2
        agent = agent_of(SUM, "It is 3.", "again", store=listening)
        with pytest.warns(RuntimeWarning, match=r"locked by another process for more than 0\.2 s"):
            agent.run("go")
        agent.run("again")
        waits = [error.partition("for more than ")[2].partition(" s;")[0] for error in listening.errors]
        assert waits == ["0.2"] + ["0.01"] * (len(waits) - 1)
        assert len(waits) == 6  # of each run: its start, its end, and the last try
        locked()
        result = agent_of("free", store=listening).run("go")
        assert store.record(result.run_id) == result.record


# ---- the store of the process -----------------------------------------------------------------------------------


def test_the_default_store_records_agents_that_name_none(store):
    assert default_store() is None
    set_default_store(store)
    try:
        agent_of("fine").run("go")
        agent_of("elsewhere", store=StoreNoted()).run("go")
    finally:
        set_default_store(None)
    assert stored(store).run.output_text == "fine"
    assert default_store() is None


def test_two_loops_record_into_one_store(store):
    agent = agent_of("one", "two", store=store)
    assert [asyncio.run(agent.arun("go")).output for _ in range(2)] == ["one", "two"]
    assert len(list(store.select(RunRecord))) == 2


def test_the_conversation_from_memory_is_stored_with_the_run(store):
    agent = agent_of("one", "two", store=store, memory=Memory())
    agent.run("first")
    last = agent.run("second").run_id
    assert [message.content_text for message in store.record(last).messages] == ["first", "one", "second", "two"]
