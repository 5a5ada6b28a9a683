"""Models on this machine: what is asked of whom, and when the server process starts and ends.

Most tests put a stub in place of llama.cpp: a child that is started in the same way and sends requests to a server of
the test. Those marked slow use the real child and the real model.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

from agentroute import Agent, ErrorConfig, ErrorMissingPackage, LLMRequest, Message, resolve_model
from agentroute.errors import ErrorModelConnection, ErrorModelRequest, ErrorModelServer
from agentroute.models import _local_server, local
from agentroute.models.local import ModelLocal, stop_servers
from agentroute.models.prompted_tools import ModelPromptedTools
from tests.gguf_files import write_gguf
from tests.server import ModelServer

QUESTION = LLMRequest("m", [Message("user", "Hi")])
STUB = """
    import json, os, pathlib, sys, time
    settings = json.loads(sys.stdin.readline())
    here = pathlib.Path(__file__).parent
    with open(here / "started", "a") as log:
        log.write(json.dumps({"pid": os.getpid(), "argv": sys.argv, "environ": dict(os.environ), "settings": settings}) + "\\n")
    while (here / "hold").exists():
        time.sleep(0.01)
    print("loading the model", file=sys.stderr, flush=True)
    print((here / "says").read_text(), flush=True)
    sys.stdin.read()
"""


class Child:
    """The stub's folder: `says` is the line it reports, `started` the settings of each process that was started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "stub.py").write_text(textwrap.dedent(STUB))

    def says(self, text: str) -> None:
        (self.folder / "says").write_text(text)

    def hold(self) -> None:
        (self.folder / "hold").touch()

    def release(self) -> None:
        (self.folder / "hold").unlink()

    @property
    def started(self) -> list[dict]:
        log = self.folder / "started"
        return [json.loads(line) for line in log.read_text().split("\n")[:-1]] if log.exists() else []  # whole lines only


@pytest.fixture
def server():
    with ModelServer(["Hello."], repeat=True, usage={"prompt_tokens": 3, "completion_tokens": 2}) as running:
        yield running


@pytest.fixture
def child(tmp_path, monkeypatch, server):
    stub = Child(tmp_path)
    stub.says(json.dumps({"port": int(server.base_url.rpartition(":")[2].removesuffix("/v1"))}))
    monkeypatch.setattr(local, "_SERVER_FILE", tmp_path / "stub.py")
    yield stub
    stop_servers()


@pytest.fixture
def model(tmp_path, child):
    return ModelLocal(write_gguf(tmp_path / "m.gguf", context=2048))


def ask(model, request=QUESTION):
    return asyncio.run(model.complete(request))


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


# ---- names --------------------------------------------------------------------------------------------------------


def test_a_name_stands_for_weights_of_the_catalogue():
    model = resolve_model("local/smollm2")
    assert (repr(model), model.inner.settings["seed"]) == ("ModelPromptedTools(ModelLocal('smollm2'))", 0)


@pytest.mark.parametrize("text", ["local/a/b.gguf", "LOCAL/a/b.gguf"])
def test_a_path_is_relative_to_the_working_directory(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_model(text).inner.path == tmp_path / "a" / "b.gguf"


def test_a_path_may_begin_with_home_or_be_absolute(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    assert resolve_model("local/~/m.GGUF").inner.path == Path("/h/m.GGUF")
    assert resolve_model("local//x/m.gguf").inner.path == Path("/x/m.gguf")


@pytest.mark.parametrize(("text", "hint"), [("local/smolm", "did you mean 'smollm2'"), ("local/", "names no model"), ("local/ ", "names no model")])
def test_another_name_is_an_error_with_a_hint(text, hint):
    with pytest.raises(ErrorConfig, match=hint):
        resolve_model(text)


@pytest.mark.parametrize("options", [{"n_ctx": 0}, {"threads": -1}, {"n_parallel": 1.5}])
def test_counts_are_positive(options):
    with pytest.raises(ErrorConfig, match="must be a positive whole number"):
        ModelLocal("smollm2", **options)


def test_missing_weights_name_the_command_that_brings_them(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTROUTE_CACHE", str(tmp_path))
    with pytest.raises(ErrorConfig, match="run `agentroute local pull smollm2`"):
        ask(resolve_model("local/smollm2"))


@pytest.mark.parametrize(("content", "problem"), [(None, "No such file"), (b"hello", "is not a GGUF file"), (b"GGUF", "damaged or incomplete")])
def test_a_wrong_file_is_named(tmp_path, content, problem):
    path = tmp_path / "m.gguf"
    path.write_bytes(content) if content is not None else None
    with pytest.raises(ErrorConfig, match=problem):
        ask(ModelLocal(path))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ErrorMissingPackage, match=r'pip install "agentroute\[local\]"'):
        ask(ModelLocal(write_gguf(tmp_path / "m.gguf")))


# ---- requests -----------------------------------------------------------------------------------------------------


def test_requests_go_to_the_child_with_its_key(model, child, server):
    assert ask(model).content == "Hello."
    (started,) = child.started
    assert server.headers[0]["authorization"] == f"Bearer {started['settings']['api_key']}"
    assert len(started["settings"]["api_key"]) >= 32


def test_the_key_is_neither_on_the_command_line_nor_in_the_environment(model, child):
    ask(model)
    (started,) = child.started
    assert started["settings"]["api_key"] not in json.dumps([started["argv"], started["environ"]])


def test_it_costs_nothing_and_tokens_are_counted(model):
    assert ask(model).usage == {"prompt_tokens": 3, "completion_tokens": 2, "cost": 0}


def test_settings_fill_only_what_a_request_leaves_open(tmp_path, child, server):
    model = ModelLocal(write_gguf(tmp_path / "m.gguf"), settings={"temperature": 0.2, "max_tokens": 9, "seed": 0, "top_p": 0.9})
    ask(model)
    ask(model, LLMRequest("m", [Message("user", "Hi")], temperature=1.0, extra={"seed": 7, "max_tokens": 5}))
    names = ("temperature", "max_tokens", "seed", "top_p")
    assert [[body[name] for name in names] for body in server.requests] == [[0.2, 9, 0, 0.9], [1.0, 5, 7, 0.9]]


@pytest.mark.parametrize(("temperature", "own", "seed"), [(None, False, 0), (0.0, False, 0), (0.8, False, None), (0.8, True, 0)])
def test_who_asks_for_variety_gets_no_fixed_seed_but_his_own(tmp_path, child, server, temperature, own, seed):
    settings = {"temperature": 0.2, "seed": 0}
    model = ModelLocal(write_gguf(tmp_path / "m.gguf"), settings=settings if own else None)
    model.settings = settings
    ask(model, LLMRequest("m", [Message("user", "Hi")], temperature=temperature))
    assert server.requests[0].get("seed") == seed


@pytest.mark.parametrize(("template", "sent"), [("{% for t in tools %}", True), ("{{ messages }}", False)])
def test_tools_are_sent_only_to_a_template_that_knows_them(tmp_path, child, server, template, sent):
    model = resolve_model(f"local/{write_gguf(tmp_path / 'm.gguf', template=template)}")
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    ask(model, LLMRequest("m", [Message("user", "Hi")], tools=[tool]))
    assert ("tools" in server.requests[0], "response_format" in server.requests[0]) == (sent, not sent)


@pytest.mark.parametrize(("trained", "asked", "used"), [(2048, None, 2048), (131072, None, 8192), (None, None, 8192), (2048, 4096, 4096)])
def test_the_context_is_what_the_model_was_trained_on_up_to_8192(tmp_path, child, trained, asked, used):
    ask(ModelLocal(write_gguf(tmp_path / "m.gguf", context=trained), n_ctx=asked))
    assert child.started[0]["settings"]["n_ctx"] == used


# ---- the child ----------------------------------------------------------------------------------------------------


def test_nothing_is_started_before_the_first_request(model, child):
    assert (child.started, model.base_url) == ([], "http://127.0.0.1")


def test_equal_models_share_a_server_and_others_do_not(tmp_path, child):
    path = write_gguf(tmp_path / "m.gguf")
    for model in (ModelLocal(path), ModelLocal(str(path)), ModelLocal(path, threads=1)):
        ask(model)
    assert [started["settings"]["threads"] for started in child.started] == [None, 1]


def test_requests_at_once_start_one_server(model, child):
    async def three():
        await asyncio.gather(*(model.complete(QUESTION) for _ in range(3)))

    asyncio.run(three())
    assert len(child.started) == 1


def test_a_server_that_died_is_started_again(model, child):
    ask(model)
    os.kill(child.started[0]["pid"], signal.SIGKILL)
    assert wait_for_end(child.started[0]["pid"], 30)
    assert ask(model).content == "Hello."
    first, second = child.started
    assert first["settings"]["api_key"] != second["settings"]["api_key"]


def test_a_server_that_dies_while_it_answers_is_called_so(model, child, server):
    def die(body):
        os.kill(child.started[0]["pid"], signal.SIGKILL)
        raise ConnectionError("the handler gives up, and the connection breaks")

    server.answers = [die]
    with pytest.raises(ErrorModelConnection, match=r"ended while it answered \(killed by signal 9, .*starts it again"):
        ask(model)


def test_a_child_that_reports_an_error_is_quoted(model, child):
    child.says('{"error": "RuntimeError: no such architecture"}')
    with pytest.raises(ErrorModelServer, match=r"m\.gguf: RuntimeError: no such architecture \(it said: loading the model\)"):
        ask(model)
    assert wait_for_end(child.started[0]["pid"], 30)


def test_a_child_that_ends_without_a_word_is_an_error(model, child):
    (child.folder / "stub.py").write_text("import sys; sys.exit('bang')")
    with pytest.raises(ErrorModelServer, match=r"does not start with .*: exit code 1 \(it said: bang\)"):
        ask(model)


def test_the_event_loop_goes_on_while_the_server_starts(model, child):
    child.hold()

    async def meanwhile():
        task = asyncio.create_task(model.complete(QUESTION))
        while not child.started:
            await asyncio.sleep(0.01)
        waiting = not task.done()
        child.release()
        return waiting, (await task).content

    assert asyncio.run(meanwhile()) == (True, "Hello.")


def test_a_start_can_be_given_up_and_is_used_by_the_next_request(model, child):
    child.hold()

    async def give_up():
        task = asyncio.create_task(model.complete(QUESTION))
        while not child.started:
            await asyncio.sleep(0.01)
        task.cancel()
        began = time.monotonic()
        await asyncio.gather(task, return_exceptions=True)
        return time.monotonic() - began

    assert asyncio.run(give_up()) < 20
    child.release()
    assert ask(model).content == "Hello."
    assert len(child.started) == 1


PROGRAM = """
    import asyncio, os, sys, time
    from pathlib import Path
    from agentroute import LLMRequest, Message
    from agentroute.models import local
    stub = {stub!r}
    if stub:
        local._SERVER_FILE = Path(stub)
    model = local.ModelLocal(Path({model!r}))
    asyncio.run(model.complete(LLMRequest("m", [Message("user", "Hi")], max_tokens=1)))
    (server,) = local._servers.values()
    print(server._process.pid, flush=True)
    {then}
"""


def program(model, then, stub=None):
    """A Python program that has asked a local model, and the process id of its server."""
    code = textwrap.dedent(PROGRAM).format(stub=str(stub) if stub else "", model=str(model), then=then)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def test_the_server_ends_with_the_interpreter_and_does_not_delay_it(tmp_path, child):
    process, pid = program(write_gguf(tmp_path / "m.gguf"), "began = time.monotonic()", tmp_path / "stub.py")
    with process:
        assert process.wait(60) == 0
    assert wait_for_end(pid, 30)


def test_a_forked_process_leaves_its_parents_server_alone(tmp_path, child):
    then = "pid = os.fork() or sys.exit(0); os.waitpid(pid, 0); print(server._process.poll(), flush=True)"
    process, _ = program(write_gguf(tmp_path / "m.gguf"), then, tmp_path / "stub.py")
    with process:
        assert process.stdout.read().split() == ["None"]


# ---- the real child -----------------------------------------------------------------------------------------------


def start_child(**settings):
    """The real child process, its settings sent, its standard input open."""
    process = subprocess.Popen([sys.executable, "-P", _local_server.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdin.write(json.dumps({"alias": "m", "api_key": "k", "n_ctx": 512, "n_parallel": 1, "threads": 1, **settings}).encode() + b"\n")
    process.stdin.flush()
    return process


def signals_its_end(pid: int) -> bool:
    """Whether the kernel tells a process of the end of its standard input."""
    flags = re.search(r"flags:\s*(\d+)", Path(f"/proc/{pid}/fdinfo/0").read_text())
    return bool(int(flags[1], 8) & os.O_ASYNC)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends it on Linux only")
def test_the_child_ends_with_its_parent_also_while_it_loads_a_model(tmp_path):
    os.mkfifo(tmp_path / "endless.gguf")  # opening it waits for ever, as a slow disk would
    with start_child(path=str(tmp_path / "endless.gguf")) as process:
        while not signals_its_end(process.pid):  # the test's time limit ends it
            time.sleep(0.01)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.stdin.close()
        assert process.wait(60) == -signal.SIGIO


def test_the_child_reports_what_is_wrong_with_a_file(tmp_path):
    with start_child(path=str(write_gguf(tmp_path / "m.gguf"))) as process:
        assert json.loads(process.stdout.readline())["error"].startswith("RuntimeError: ")
        assert process.wait(60) == 1


@pytest.mark.parametrize(
    ("affinity", "files", "threads"),
    [
        (4, {}, 4),
        (64, {}, 16),
        (8, {"smt/active": "1"}, 4),
        (8, {"cpu.max": "200000 100000"}, 2),
        (8, {"cpu.max": "max 100000"}, 8),
        (8, {"cpu.max": "50000 100000"}, 1),
    ],
)
def test_threads_are_the_cores_it_may_use(monkeypatch, affinity, files, threads):
    def word(path, index=0):
        return next((text.split()[index] for name, text in files.items() if path.endswith(name)), "")

    monkeypatch.setattr(_local_server, "_first_word", word)
    monkeypatch.setattr(_local_server.os, "sched_getaffinity", lambda pid: set(range(affinity)))
    assert _local_server.usable_threads() == threads


@pytest.mark.slow
def test_the_server_ends_when_its_parent_is_killed(smollm2):
    process, pid = program(smollm2, "time.sleep(600)")
    with process:
        process.kill()
    assert wait_for_end(pid, 30)


@pytest.mark.slow
def test_the_server_ends_when_its_parent_is_killed_though_a_grandchild_holds_the_pipe(smollm2):
    process, pid = program(smollm2, "forked = os.fork() or time.sleep(600); print(forked, flush=True); time.sleep(600)")
    grandchild = int(process.stdout.readline())
    with process:
        process.kill()
        try:
            assert wait_for_end(pid, 30)
            assert alive(grandchild)
        finally:
            os.kill(grandchild, signal.SIGKILL)


@pytest.mark.slow
def test_an_interrupt_of_the_terminal_does_not_reach_the_server(smollm2):
    model = ModelLocal(smollm2)
    ask(model, LLMRequest("m", [Message("user", "Hi")], max_tokens=1))
    (server,) = [server for server in local._servers.values() if server.options.path == smollm2 and server._running()]
    pid = server._process.pid
    os.kill(pid, signal.SIGINT)
    assert ask(model, LLMRequest("m", [Message("user", "Hi")], max_tokens=1)).usage["completion_tokens"] == 1
    assert (server._process.pid, os.getpgid(pid)) == (pid, pid)


# ---- the real model -----------------------------------------------------------------------------------------------


def order_status(order_id: int) -> str:
    """Look up where an order is.

    Args:
        order_id: number of the order
    """
    return f"Order {order_id} is on the truck and arrives on Friday."


def refund(order_id: int, reason: str) -> str:
    """Give the customer the money back for an order.

    Args:
        order_id: number of the order
        reason: why, in a few words
    """
    return "The refund is done. 20 USD will be back in three days."


class Ticket(BaseModel):
    customer: str
    order_id: int
    problem: Literal["late", "broken"]


def support():
    return Agent("support", model="local/smollm2", instructions="You are a concise, accurate support agent.", tools=[order_status, refund])


def triage():
    return Agent("triage", model="local/smollm2", instructions="Read the customer's message and fill in the ticket.", output=Ticket)


def calls(result):
    return [(call.tool_name, json.loads(call.arguments_text), call.status) for call in result.record.tool_calls]


STATUS = ("Where is order 4821?", [("order_status", {"order_id": 4821}, "ok")], "Friday")
REFUND = ("Please refund order 17, it arrived broken.", [("refund", {"order_id": 17, "reason": "broken"}, "ok")], "20 USD")


@pytest.mark.slow
@pytest.mark.parametrize(("prompt", "expected", "told"), [STATUS, REFUND])
def test_the_right_tool_is_called_and_its_result_told(smollm2, prompt, expected, told):
    result = support().run(prompt)
    assert (calls(result), told in result.output) == (expected, True)
    assert (result.usage.total_cost_usd, result.usage.unknown_cost_calls) == (0.0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "ticket"),
    [
        ("This is Maria Lopez. The lamp of order 4821 arrived broken.", Ticket(customer="Maria Lopez", order_id=4821, problem="broken")),
        ("My name is Tom Baker. Order 90125 is two weeks late.", Ticket(customer="Tom Baker", order_id=90125, problem="late")),
    ],
)
def test_a_structured_answer_is_right(smollm2, prompt, ticket):
    assert triage().run(prompt).output == ticket


@pytest.mark.slow
def test_runs_at_once_and_after_a_restart_call_the_same_tools(smollm2):
    async def at_once():
        return [calls(result) for result in await asyncio.gather(*(support().arun(prompt) for prompt, _, _ in (REFUND, STATUS, REFUND)))]

    stop_servers()
    assert asyncio.run(at_once()) == [REFUND[1], STATUS[1], REFUND[1]]


@pytest.mark.slow
def test_requests_at_once_have_the_whole_context_each(smollm2):
    model = ModelLocal(smollm2, n_ctx=512)
    question = LLMRequest("m", [Message("user", "word " * 400)], max_tokens=4)

    async def at_once():
        return [response.usage["prompt_tokens"] for response in await asyncio.gather(*(model.complete(question) for _ in range(3)))]

    counts = asyncio.run(at_once())
    assert all(400 < count < 512 for count in counts)
    assert model.context_tokens == 512


@pytest.mark.slow
def test_a_long_prompt_does_not_fit_into_another_requests_context(smollm2):
    with pytest.raises(ErrorModelRequest) as caught:
        ask(ModelLocal(smollm2, n_ctx=512), LLMRequest("m", [Message("user", "word " * 600)], max_tokens=4))
    assert caught.value.too_long


@pytest.mark.slow
def test_an_answer_streams_as_it_is_written(smollm2):
    async def stream():
        tool = {"type": "function", "function": {"name": "f", "description": "Nothing.", "parameters": {"type": "object", "properties": {}}}}
        history = [
            Message("user", "Where is order 4821?"),
            Message("assistant", None, tool_calls=[{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
            Message("tool", "Order 4821 is on the truck and arrives on Friday.", tool_call_id="a"),
        ]
        return [chunk async for chunk in resolve_model("local/smollm2").complete_stream(LLMRequest("m", history, tools=[tool]))]

    *deltas, last = asyncio.run(stream())
    assert len(deltas) > 5
    assert "".join(chunk.delta for chunk in deltas) == last.response.content
    assert "Friday" in last.response.content


@pytest.mark.slow
def test_definitions_and_references_become_a_grammar(smollm2):
    parameters = {
        "$defs": {"Item": {"type": "object", "properties": {"sku": {"type": "integer"}}, "required": ["sku"]}},
        "type": "object",
        "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/Item"}, "maxItems": 2}, "note": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        "required": ["items", "note"],
    }
    tools = [{"type": "function", "function": {"name": name, "description": "Order items.", "parameters": parameters}} for name in ("order", "reserve")]
    model = ModelPromptedTools(ModelLocal("smollm2"), text_limit=40, max_tokens=300)
    response = ask(model, LLMRequest("m", [Message("user", "Order item 7.")], tools=tools, tool_choice="required"))
    arguments = json.loads(response.tool_calls[0]["function"]["arguments"])
    assert set(arguments) == {"items", "note"}
    assert all(isinstance(item["sku"], int) for item in arguments["items"])
