"""Defects 1 to 8 of the published 1.1.0: what was broken outright. Each test fails on a build that has the defect."""

import asyncio
import contextlib
import gc
import json
import socket
import subprocess
import sys
import threading
import types
import warnings
from concurrent.futures import Future

import pytest
from pydantic import BaseModel

from agentroute import Agent, Context, Deny, ErrorOutput, Memory, MemorySQLite, Message, ModelCloud, Retry, ToolCall, tool
from agentroute.output import OUTPUT_TOOL


class Invoice(BaseModel):
    number: str
    total: float


INVOICE = {"number": "INV-42", "total": 199.0}


def final(call_id="f", **answer):
    return ToolCall(call_id, OUTPUT_TOOL, answer or INVOICE)


def agent_at(server, *tools, **options):
    return Agent("test", model=server.model, tools=list(tools), **options)


def said(messages):
    """Roles and texts of wire messages."""
    return [(message["role"], message["content"]) for message in messages]


def unanswered(messages):
    """Ids of tool calls without exactly one result, and of results without a call: what providers answer 400 to."""
    asked = [call["id"] for message in messages for call in message.get("tool_calls") or []]
    answered = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    return [call_id for call_id in {*asked, *answered} if (asked.count(call_id), answered.count(call_id)) != (1, 1)]


def conversation(memory):
    return [(message.role, message.text) for message in asyncio.run(memory.get_messages())]


def in_threads(count, work):
    """Runs `work(n)` in threads of their own, all at once; their values. A hang fails the test and holds up nothing."""
    futures = [Future() for _ in range(count)]

    def run(number):
        try:
            futures[number].set_result(work(number))
        except BaseException as error:
            futures[number].set_exception(error)

    for number in range(count):
        threading.Thread(target=run, args=[number], daemon=True).start()
    return [future.result(timeout=100) for future in futures]


# ---- 1. MemorySQLite: a connection bound to the thread that opened it


@pytest.fixture
def memory(tmp_path):
    return MemorySQLite(tmp_path / "agent.db")


PAIRS = [("user", "Hi"), ("assistant", "Hello.")]


def test_1_run_after_run_keeps_the_conversation(serve, memory):
    """1: the second `run` on a MemorySQLite failed, as every other one after it."""
    server = serve("Hello.", repeat=True)
    agent = agent_at(server, memory=memory)
    for _ in range(20):
        agent.run("Hi")
    assert said(server.requests[-1]["messages"]) == [*PAIRS * 19, ("user", "Hi")]
    assert conversation(memory) == PAIRS * 20


def test_1_two_runs_in_a_fresh_process_keep_the_conversation(serve, tmp_path):
    """1: most fresh processes failed on their second `run`: executor threads take turns there from the start."""
    server = serve("Blue, noted.", "Blue.")
    program = (
        "import sys; from agentroute import Agent, MemorySQLite\n"
        "agent = Agent('chat', model=sys.argv[1], memory=MemorySQLite(sys.argv[2]))\n"
        "agent.run('My colour is blue.'); print(agent.run('Which is it?'))"
    )
    command = [sys.executable, "-W", "error", "-c", program, server.model, str(tmp_path / "agent.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, done.stderr) == ("Blue.\n", "")
    told = [("user", "My colour is blue."), ("assistant", "Blue, noted."), ("user", "Which is it?")]
    assert said(server.requests[1]["messages"]) == told


def test_1_one_memory_serves_twenty_event_loops(serve, memory):
    """1: every `asyncio.run` brought other threads, and so did the next write."""
    agent = agent_at(serve("Hello.", repeat=True), memory=memory)
    for _ in range(20):
        asyncio.run(agent.arun("Hi"))
    assert conversation(memory) == PAIRS * 20


def test_1_ten_awaited_runs_in_one_loop_all_write(serve, memory):
    """1: in one loop too the calls went to whichever thread was idle."""
    agent = agent_at(serve("Hello.", repeat=True), memory=memory)

    async def main():
        for _ in range(10):
            await agent.arun("Hi")

    asyncio.run(main())
    assert conversation(memory) == PAIRS * 10


def test_1_eight_threads_share_one_memory(serve, memory):
    """1: `run` from several threads at once lost most writes."""
    agent = agent_at(serve("Hello.", repeat=True), memory=memory)
    in_threads(8, lambda number: [agent.run("Hi") for _ in range(3)])
    assert conversation(memory) == PAIRS * 24


def test_1_eight_concurrent_runs_share_one_memory(serve, memory):
    """1: of eight concurrent `arun` most failed after their model call was paid for."""
    agent = agent_at(serve("Hello.", repeat=True), memory=memory)

    async def main():
        return await asyncio.gather(*[agent.arun("Hi") for _ in range(8)])

    assert [result.output for result in asyncio.run(main())] == ["Hello."] * 8
    assert conversation(memory) == PAIRS * 8


def test_1_several_memories_on_one_file_lose_nothing(serve, tmp_path):
    """1: several MemorySQLite objects on one file, each in a thread of its own, failed."""
    server = serve("Hello.", repeat=True)

    def work(number):
        agent = agent_at(server, memory=MemorySQLite(tmp_path / "shared.db"))
        return [agent.run("Hi").output for _ in range(3)]

    assert in_threads(6, work) == [["Hello."] * 3] * 6
    assert conversation(MemorySQLite(tmp_path / "shared.db")) == PAIRS * 18


def test_1_a_plain_tool_in_flight_does_not_disturb_the_memory(serve, memory):
    """1: any tool that occupied an executor thread moved the memory's next call to another one."""

    def look(ctx: Context) -> str:
        """Looks."""
        ctx.memory.remember("colour", "blue")
        return ctx.memory.recall("colour")[0]

    server = serve([ToolCall("a", "look", {}), ToolCall("b", "look", {})], "Blue.")
    agent_at(server, look, memory=memory).run("Hi")
    assert [m["content"] for m in server.requests[1]["messages"] if m["role"] == "tool"] == ["blue", "blue"]
    assert [role for role, _ in conversation(memory)] == ["user", "assistant", "tool", "tool", "assistant"]


# ---- 2. and its lock belonged to one event loop


@pytest.mark.parametrize("kind", ["file", "file in RAM", "RAM"])
def test_2_loops_in_several_threads_write_at_once(kind, tmp_path):
    """2: three threads with a loop each lost two writes of three, or hung for ever, on the lock of another loop."""
    kinds = {"file": lambda: MemorySQLite(tmp_path / "a.db"), "file in RAM": lambda: MemorySQLite(":memory:"), "RAM": Memory}
    memory = kinds[kind]()

    async def write(number):
        await asyncio.gather(*[memory.add_messages([Message("user", f"{number}-{i}")]) for i in range(20)])
        await asyncio.gather(*[memory.remember(f"fact {number}-{i}", "x") for i in range(20)])

    in_threads(3, lambda number: asyncio.run(write(number)))
    assert sorted(text for _, text in conversation(memory)) == sorted(f"{number}-{i}" for number in range(3) for i in range(20))
    assert len(asyncio.run(memory.recall("", limit=100))) == 60


# ---- 3. run() inside a running loop


def test_3_run_in_a_running_loop_says_what_to_write_and_leaves_no_coroutine_behind(serve):
    """3: it raised the words of asyncio, and a warning that a coroutine was never awaited."""
    server = serve("Hello.")

    async def main():
        with pytest.raises(RuntimeError, match=r"await agent\.arun\(") as caught:
            agent_at(server).run("Hi")
        return caught.type

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert asyncio.run(main()) is RuntimeError
        gc.collect()
    # Of other kinds there may be some: what tests before have left is collected here too.
    assert [str(warning.message) for warning in caught if warning.category is RuntimeWarning] == []
    assert server.requests == []


def test_3_run_works_in_a_notebook_cell(serve, monkeypatch):
    """3: in Jupyter, where a loop always runs, `run` could not be used at all."""
    kernel = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", kernel)

    async def cell():
        return agent_at(serve("Hello.")).run("Hi").output

    assert asyncio.run(cell()) == "Hello."


def test_3_run_works_in_threads_of_a_running_loop(serve):
    """3: as in a plain handler of a web framework, which is given a thread beside the loop."""
    server = serve("Hello.", repeat=True)

    async def main():
        return await asyncio.gather(*[asyncio.to_thread(agent_at(server).run, "Hi") for _ in range(4)])

    assert [result.output for result in asyncio.run(main())] == ["Hello."] * 4


def test_3_a_tool_runs_another_agent(serve):
    """3: an async tool could not use `run` of another agent and was not told why; a plain tool could."""
    inner = agent_at(serve("inner", repeat=True))

    def plain() -> str:
        """Runs."""
        return inner.run("Hi").output

    async def awaiting() -> str:
        """Runs."""
        return (await inner.arun("Hi")).output

    async def blocking() -> str:
        """Runs."""
        return inner.run("Hi").output

    server = serve([ToolCall(name, name, {}) for name in ("plain", "awaiting", "blocking")], "done")
    agent_at(server, plain, awaiting, blocking).run("go")
    answers = [message["content"] for message in server.requests[1]["messages"][-3:]]
    assert answers[:2] == ["inner", "inner"]
    assert "await agent.arun(" in answers[2]


# ---- 4. a shared ModelCloud outlives a loop


def open_connections_to(server):
    port, found = int(server.base_url.split(":")[2].split("/")[0]), 0
    for item in gc.get_objects():
        with contextlib.suppress(OSError, ReferenceError):
            found += issubclass(type(item), socket.socket) and item.fileno() != -1 and item.getpeername()[1:2] == (port,)
    return found


def test_4_one_model_object_serves_run_after_run_on_one_connection(serve):
    """4: with keep-alive every second `run` on a shared ModelCloud raised "Event loop is closed"."""
    server = serve("Hello.", repeat=True)
    agent = Agent("test", model=ModelCloud(model_id="m", base_url=server.base_url))
    assert [agent.run("Hi").output for _ in range(4)] == ["Hello."] * 4
    assert server.connections == 1


def test_4_connections_are_closed_with_the_loop_they_belong_to(serve):
    """4: a socket of the dead loop was leaked each time."""
    server = serve("Hello.", repeat=True)
    model = ModelCloud(model_id="m", base_url=server.base_url)
    for _ in range(4):
        assert asyncio.run(Agent("test", model=model).arun("Hi")).output == "Hello."
    gc.collect()
    assert open_connections_to(server) == 0


# ---- 5. timeout and needs_approval did nothing


def test_5_a_tool_that_takes_too_long_is_given_up(serve):
    """5: the timeout of a tool was not enforced; neither for async functions nor for plain ones."""
    released, cancelled = threading.Event(), threading.Event()

    @tool(timeout=0.2)
    def plain() -> str:
        """Blocks."""
        released.wait(60)
        return "late"

    @tool(timeout=0.2)
    async def asynchronous() -> str:
        """Waits."""
        try:
            return str(await asyncio.sleep(60, "late"))
        except asyncio.CancelledError:
            cancelled.set()
            raise

    server = serve([ToolCall("a", "plain", {}), ToolCall("b", "asynchronous", {})], "done")
    try:
        result = agent_at(server, plain, asynchronous).run("go")
        assert not released.is_set()  # the run did not wait for the thread
    finally:
        released.set()
    assert result.output == "done" and cancelled.is_set()
    assert [record.error_type for record in result.record.tool_calls] == ["TimeoutError"] * 2
    assert all("0.2 s" in message["content"] for message in server.requests[1]["messages"][-2:])


def guarded(needs_approval):
    ran = []

    @tool(needs_approval=needs_approval)
    def pay(amount: float) -> str:
        """Pays."""
        ran.append(amount)
        return "paid"

    return pay, ran


PAY = ToolCall("a", "pay", {"amount": "5"})


def test_5_a_tool_that_needs_approval_never_runs_without_it(serve):
    """5: needs_approval=True ran the tool all the same: a safety feature that silently did nothing."""
    pay, ran = guarded(True)
    server = serve(PAY, "I could not pay.")
    result = agent_at(server, pay).run("go")
    assert (ran, result.record.tool_calls[0].error_type) == ([], "Denied")
    assert "needs approval" in server.requests[1]["messages"][-1]["content"]


@pytest.mark.parametrize(("verdict", "paid"), [(True, [5.0]), (False, []), ("too dear", []), (Deny("too dear"), []), (None, [])])
def test_5_the_approval_handler_decides(serve, verdict, paid):
    """5: nobody was ever asked. Whoever decides sees the arguments as the function would get them."""
    pay, ran = guarded(True)
    asked = []
    server = serve(PAY, "done")
    agent_at(server, pay).run("go", approve=lambda ctx, call: asked.append((ctx.step, call.name, call.arguments)) or verdict)
    assert (ran, asked) == (paid, [(1, "pay", {"amount": 5.0})])


def test_5_the_callable_says_which_calls_need_approval(serve):
    """5: a callable given as needs_approval was never called."""
    seen = []
    pay, ran = guarded(lambda ctx, arguments: seen.append((ctx.deps, arguments)) or arguments["amount"] > 10)
    server = serve([PAY, ToolCall("b", "pay", {"amount": 50})], "done")
    agent_at(server, pay).run("go", deps="deps")
    assert ran == [5.0]
    assert sorted(seen, key=str) == [("deps", {"amount": 5.0}), ("deps", {"amount": 50.0})]


def test_5_a_denial_that_ends_the_run_shows_in_the_result(serve):
    """5: `Result.interrupted` never became True."""
    pay, ran = guarded(True)
    server = serve(PAY, "never asked")
    result = agent_at(server, pay, approve=lambda ctx, call: Deny("stop", interrupt=True)).run("go")
    assert (result.interrupted, result.output, ran, len(server.requests)) == (True, None, [], 1)
    assert unanswered(result.messages) == []


# ---- 6. a forced tool_choice on every turn


@pytest.mark.parametrize("mode", ["auto", "tool", "native", "prompted", "text"])
def test_6_the_users_tools_can_be_called_before_the_typed_answer(serve, mode):
    """6: with output= the choice of the answer's tool was forced on every turn, so no other tool could be called first."""
    ran = []

    def look(number: str) -> float:
        """Looks up a total."""
        ran.append(number)
        return 199.0

    server = serve(ToolCall("1", "look", {"number": "INV-42"}), json.dumps(INVOICE))
    result = agent_at(server, look, output=Invoice, output_mode=mode).run("go")
    assert (result.output, ran) == (Invoice(**INVOICE), ["INV-42"])
    assert [request.get("tool_choice", "auto") for request in server.requests] == ["auto", "auto"]
    assert [request["tools"][0]["function"]["name"] for request in server.requests] == ["look", "look"]


# ---- 7. output= and a text answer


@pytest.mark.parametrize("mode", ["auto", "tool", "native", "prompted", "text"])
@pytest.mark.parametrize("form", ["{}", "```json\n{}\n```", "Here it is: {} Bye."])
def test_7_a_typed_answer_given_as_text_is_of_the_type(serve, mode, form):
    """7: a text answer came back as str, whatever output= said; mode text ignored output= altogether."""
    server = serve(form.replace("{}", json.dumps(INVOICE)))
    result = agent_at(server, output=Invoice, output_mode=mode).run("go")
    assert result.output == Invoice(**INVOICE)


@pytest.mark.parametrize("mode", ["auto", "tool", "native", "prompted", "text"])
def test_7_a_text_that_does_not_fit_is_corrected_and_then_refused(serve, mode):
    """7: it was neither validated nor asked for again."""
    server = serve("It is 199.", '{"number": "INV-42"}', "no idea", repeat=True)
    with pytest.raises(ErrorOutput, match="retries=2"):
        agent_at(server, output=Invoice, output_mode=mode, retries=2).run("go")
    assert len(server.requests) == 3
    assert "total: missing" in server.requests[2]["messages"][-1]["content"]


@pytest.mark.parametrize("mode", ["auto", "text"])
def test_7_validators_see_typed_answers_given_as_text(serve, mode):
    """7: output validators were skipped for them."""
    server = serve('{"number": "INV-42", "total": -1}', json.dumps(INVOICE))
    agent = agent_at(server, output=Invoice, output_mode=mode)
    seen = []

    @agent.output_validator
    def positive(ctx, output):
        seen.append(output.total)
        if output.total < 0:
            raise Retry("total must be positive")

    assert (agent.run("go").output.total, seen) == (199.0, [-1.0, 199.0])
    assert "total must be positive" in server.requests[1]["messages"][-1]["content"]


# ---- 8. calls beside the typed answer


def noted():
    ran = []

    def note(text: str) -> str:
        """Notes."""
        ran.append(text)
        return "noted"

    return note, ran


def test_8_calls_beside_an_accepted_answer_leave_no_orphan(serve, memory):
    """8: they got no reply, and the next run on the same memory was sent (and refused) with them."""
    note, _ = noted()
    server = serve([ToolCall("n", "note", {"text": "x"}), final()], final("g"))
    agent = agent_at(server, note, output=Invoice, memory=memory)
    first = agent.run("go")
    agent.run("again")
    assert unanswered(first.messages) == unanswered(server.requests[1]["messages"]) == []
    assert unanswered([message.to_dict() for message in asyncio.run(memory.get_messages())]) == []
    assert [record.tool_name for record in first.record.tool_calls] == ["note"]  # and it is on record


def test_8_calls_beside_a_wrong_answer_are_answered(serve):
    """8: with the answer sent back for correction their ids stayed open in the very next request."""
    note, _ = noted()
    server = serve([ToolCall("n", "note", {"text": "x"}), final(number="INV-42")], final("g"))
    agent_at(server, note, output=Invoice).run("go")
    assert unanswered(server.requests[1]["messages"]) == []


@pytest.mark.parametrize("name", [OUTPUT_TOOL, "_return_structured_output"])
@pytest.mark.parametrize("options", [{}, {"output": Invoice, "output_mode": "native"}], ids=["text", "native"])
def test_8_a_stray_call_of_the_answers_tool_is_answered(serve, name, options):
    """8: a call by that name was dropped without a reply even where no typed answer was asked for."""
    note, _ = noted()
    answer = json.dumps(INVOICE)
    server = serve([ToolCall("s", name, {"x": 1}), ToolCall("n", "note", {"text": "x"})], answer, answer)
    result = agent_at(server, note, **options).run("go")
    assert unanswered(result.messages) == []
    assert [unanswered(request["messages"]) for request in server.requests[1:]] == [[]] * (len(server.requests) - 1)
