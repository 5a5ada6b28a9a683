"""Connections and proxies: what an event loop keeps, and which way a request goes."""

import asyncio
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from contextlib import suppress

import pytest

from agentroute import Agent, LLMRequest, Message, ModelCloud, _connections
from agentroute.errors import ErrorConfig, ErrorModelConnection, ErrorModelRequest, ErrorModelTimeout
from tests.benchmarks.endpoint import endpoint
from tests.faults import good
from tests.http_library import LIBRARIES, with_library
from tests.raw_server import RawServer, Talk, answering
from tests.server import ModelServer, Raw

PROXIES = [name for scheme in ("http", "https", "all", "no") for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())]


@pytest.fixture(autouse=True, params=LIBRARIES)
def http_library(request, monkeypatch):
    """Each test with either library."""
    yield from with_library(request.param, monkeypatch)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


async def ask(base_url: str) -> str | None:
    return (await ModelCloud(model_id="m-0-1", base_url=base_url).complete(LLMRequest("m-0-1", [Message("user", "hi")]))).content


BODY = good(stream=False)


def serving(talk: Talk) -> None:
    """A server that keeps its connections."""
    while talk.request():
        talk.send(BODY)


def sockets() -> int:
    """Open sockets of this process."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # it is closed by now
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


def left(references: list[weakref.ref], within_s: float = 20.0) -> list[object]:
    """What is still there of some objects after that time: a thread that has just ended its work may hold one a moment longer."""
    end = time.monotonic() + within_s
    while any(reference() is not None for reference in references) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    return [reference() for reference in references if reference() is not None]


# ---- loops


def test_a_loop_that_has_ended_is_let_go():
    loops = []

    async def run(model: str) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await Agent("a", model=model).arun("hi")

    with ModelServer(["hello"], repeat=True) as server:
        for _ in range(20):
            asyncio.run(run(server.model))
    assert left(loops) == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_loop_closed_by_hand_is_let_go_by_the_next_one():
    with endpoint() as base_url:  # in another process: its sockets are not ours
        asyncio.run(ask(base_url))
        gc.collect()
        before = sockets()
        loops = []
        for _ in range(10):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(ask(base_url))
            loop.close()
            loops.append(weakref.ref(loop))
        del loop
        asyncio.run(ask(base_url))
        assert left(loops) == []
        assert sockets() <= before  # less, where something that tests before have left goes meanwhile


def test_a_loop_goes_on_after_its_generators_were_shut_down():
    with ModelServer(["hello"], repeat=True) as server:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(ask(server.base_url))
        loop.run_until_complete(loop.shutdown_asyncgens())
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "asynchronous generator", ResourceWarning
            )  # of asyncio, for any generator from here on
            assert loop.run_until_complete(ask(server.base_url)) == "hello"
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_threads_with_loops_of_their_own_do_not_meet():
    answers = []
    with ModelServer(["hello"], repeat=True) as server:
        threads = [threading.Thread(target=lambda: answers.append(asyncio.run(ask(server.base_url)))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["hello"] * 20


# ---- which connection a request gets


async def together(base_url: str, count: int) -> None:
    assert await asyncio.gather(*(ask(base_url) for _ in range(count))) == ["hello"] * count


def test_one_after_another_share_a_connection_also_after_many_at_once():
    async def run(server: ModelServer) -> int:
        await together(server.base_url, 50)
        opened = server.connections
        server.connections = 0
        used = {connection.idle_since for connection in (await _connections.connections_here())._all_idle()}
        for _ in range(20):
            await ask(server.base_url)
        left = {connection.idle_since for connection in (await _connections.connections_here())._all_idle()}
        assert len(used - left) == 1  # the same one all the time; the others were not touched
        await together(server.base_url, opened)
        return server.connections

    with ModelServer(["hello"], repeat=True) as server:
        assert asyncio.run(run(server)) == 0


def test_a_stream_left_early_leaves_the_other_connections_warm():
    half = Raw.sse({"choices": [{"delta": {"content": "half"}}]}, done=False)
    half.hold_s = 10

    async def run() -> None:
        await together(server.base_url, 2)
        stream = ModelCloud(model_id="m", base_url=server.base_url).complete_stream(LLMRequest("m", [Message("user", "hi")]))
        await anext(stream)
        await stream.aclose()
        await ask(server.base_url)

    with ModelServer(["hello", "hello", half, "hello"]) as server:
        asyncio.run(run())
        assert server.connections == 2


def test_no_more_connections_than_the_process_may_open(monkeypatch):
    monkeypatch.setattr(_connections, "_most_connections", lambda: 3)
    with ModelServer(["hello"], repeat=True) as server:
        asyncio.run(together(server.base_url, 30))
        assert server.connections <= 3


@pytest.mark.parametrize(("files", "most"), [(256, 128), (20_000, 1000), (-1, 1000), (8, 16)])
def test_half_of_the_files_a_process_may_open_are_for_others(monkeypatch, files, most):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (files, files))
    assert _connections._most_connections() == most


def test_idle_connections_make_room_for_other_places(monkeypatch):
    monkeypatch.setattr(_connections, "_most_connections", lambda: 3)

    async def run() -> int:
        for server in servers:
            await ask(server.base_url)
        return len((await _connections.connections_here())._all)

    servers = [ModelServer(["hello"]) for _ in range(5)]
    for server in servers:
        server.__enter__()
    assert asyncio.run(run()) == 3
    for server in servers:
        server.__exit__()


def test_who_is_cancelled_while_waiting_takes_no_room(monkeypatch):
    monkeypatch.setattr(_connections, "_most_connections", lambda: 1)

    async def run(held: str, free: str) -> str | None:
        first = asyncio.create_task(ask(held))
        waiting = [asyncio.create_task(ask(free)) for _ in range(5)]
        assert await asyncio.to_thread(held_server.has_read, 1)
        for task in [*waiting, first]:
            task.cancel()
        await asyncio.gather(first, *waiting, return_exceptions=True)
        return await ask(free)

    with RawServer(answering(hold=True)) as held_server, ModelServer(["hello"], repeat=True) as free:
        assert asyncio.run(run(held_server.base_url, free.base_url)) == "hello"


def test_who_is_cancelled_while_an_idle_connection_makes_room_leaves_nothing_open(monkeypatch):
    monkeypatch.setattr(_connections, "_most_connections", lambda: 1)
    close = _connections.Connection.close

    async def run() -> None:
        closing, may_close = asyncio.Event(), asyncio.Event()

        async def slow(connection: _connections.Connection) -> None:
            closing.set()
            await may_close.wait()
            await close(connection)

        await ask(first.base_url)
        monkeypatch.setattr(_connections.Connection, "close", slow)
        asking = asyncio.create_task(ask(held.base_url))
        await closing.wait()
        asking.cancel()
        await asyncio.sleep(0)
        may_close.set()
        await asyncio.gather(asking, return_exceptions=True)
        assert await asyncio.to_thread(first.all_closed)
        assert (await _connections.connections_here())._all == set()

    with RawServer(serving) as first, RawServer(answering(hold=True)) as held:
        asyncio.run(run())


def test_a_loop_that_ends_while_an_idle_connection_makes_room_leaves_nothing_open(monkeypatch):
    monkeypatch.setattr(_connections, "_most_connections", lambda: 1)
    close = _connections.Connection.close

    async def run() -> None:
        await ask(first.base_url)

        async def slow(connection: _connections.Connection) -> None:
            await asyncio.sleep(10)  # the end of the loop cancels it

        monkeypatch.setattr(_connections.Connection, "close", slow)
        await ask(second.base_url)
        monkeypatch.setattr(_connections.Connection, "close", close)

    with RawServer(serving) as first, RawServer(serving) as second:
        asyncio.run(run())
        assert first.all_closed() and second.all_closed()


def test_when_a_kept_connection_breaks_the_other_kept_ones_are_not_tried():
    def script(talk: Talk) -> None:
        talk.request()
        server.has_read(4)  # so that each of the four has a connection of its own
        talk.send(BODY)
        talk.request()
        talk.reset()

    async def run() -> None:
        agent = Agent("a", model=f"{server.base_url}/m")
        await asyncio.gather(*(agent.arun("hi") for _ in range(4)))
        assert server.connections == 4
        assert (await agent.arun("hi")).output == "hello"
        assert (server.connections, len(server.requests)) == (5, 6)

    with RawServer(script) as server:
        asyncio.run(run())


def test_a_cancelled_request_leaves_the_other_kept_connections():
    def script(talk: Talk) -> None:
        talk.request()
        server.has_read(3)  # so that each of the three has a connection of its own
        talk.send(BODY)
        talk.request()
        talk.hold()

    async def run() -> None:
        await together(server.base_url, 3)
        asking = asyncio.create_task(ask(server.base_url))
        assert await asyncio.to_thread(server.has_read, 4)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert len((await _connections.connections_here())._all_idle()) == 2

    with RawServer(script) as server:
        asyncio.run(run())


def test_waiting_for_room_is_within_the_timeout(monkeypatch):
    monkeypatch.setattr(_connections, "_most_connections", lambda: 1)

    async def run(base_url: str) -> None:
        first = asyncio.create_task(ask(base_url))
        assert await asyncio.to_thread(server.has_read, 1)
        with pytest.raises(ErrorModelTimeout) as caught:
            await ModelCloud(model_id="m", base_url=base_url, timeout=0.1).complete(LLMRequest("m", [Message("user", "hi")]))
        assert caught.value.sent is False
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    with RawServer(answering(hold=True)) as server:
        asyncio.run(run(server.base_url))


def test_connections_nobody_uses_are_closed_without_another_request(monkeypatch):
    monkeypatch.setattr(_connections, "KEEP_S", 1.5)

    async def run() -> None:
        await together(server.base_url, 5)
        assert server.open == 5
        async with asyncio.timeout(30):
            while server.open:
                await asyncio.sleep(0.01)
        here = await _connections.connections_here()
        assert (here._all, here._idle) == (set(), {})

    with RawServer(serving) as server:
        asyncio.run(run())


def test_there_is_one_tls_context():
    ways = [_connections.way(f"https://{host}.example/v1") for host in ("a", "b", "c")]
    assert len({id(way.tls) for way in ways}) == 1


# ---- the end of a process, and its children

PROGRAM = """
import asyncio, sys
from agentroute import Agent
agent = Agent("a", model=sys.argv[1])
agent.run("hi")                     # a connection stays open on the background loop
stream = iter(agent.stream("hi"))
next(stream)                        # and a run that nobody reads on
asyncio.run(agent.arun("hi"))
loop = asyncio.new_event_loop()     # a loop that nobody ends, as a kernel's
print(loop.run_until_complete(agent.arun("hi")).output, flush=True)
"""


@pytest.mark.parametrize("ending", ["", "sys.exit()", "os._exit(0)", "os.kill(os.getpid(), 15)"])
def test_a_process_ends_without_a_word_and_leaves_nothing(ending, http_library):
    with ModelServer(["hello"], repeat=True) as server:
        program = f"import os, sys; sys.modules.update({LIBRARIES[http_library]}){PROGRAM}{ending}"
        done = subprocess.run([sys.executable, "-c", program, server.model], capture_output=True, text=True, timeout=100)
    assert done.stdout == "hello\n"
    assert done.stderr == ""
    assert done.returncode in (0, -signal.SIGTERM)


def test_a_forked_child_lets_go_of_its_parents_connections():
    """While the child held them too, the server would not notice that the parent closes one to stop an answer."""

    def script(talk: Talk) -> None:
        talk.request()
        talk.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
        )
        talk.hold()

    async def run() -> None:
        stream = ModelCloud(model_id="m", base_url=server.base_url).complete_stream(LLMRequest("m", [Message("user", "hi")]))
        await anext(stream)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of forks beside threads
            child = os.fork()
        while not child:  # the child does nothing but live
            signal.pause()
        await stream.aclose()
        try:
            assert server.all_closed()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)  # noqa: ASYNC222 it has ended

    with RawServer(script) as server:
        asyncio.run(run())


FORKED = """
import asyncio, os, sys
from agentroute import Agent
agent = Agent("a", model=sys.argv[1])
async def main():
    await agent.arun("hi")
    agent_pid = os.fork()
    if agent_pid == 0:
        print("child", agent.run("hi").output, flush=True)
        os._exit(0)
    os.waitpid(agent_pid, 0)
    print("parent", (await agent.arun("hi")).output, flush=True)
asyncio.run(main())
"""


def test_parent_and_child_both_go_on_after_a_fork(http_library):
    with ModelServer(["hello"], repeat=True) as server:
        program = f"import sys; sys.modules.update({LIBRARIES[http_library]}){FORKED}"
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, server.model]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert (done.stdout, done.stderr) == ("child hello\nparent hello\n", "")
        assert server.connections == 2  # the parent's is still its own


# ---- proxies


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_uses_no_proxy(monkeypatch, host):
    with ModelServer(["hello"]) as server, ModelServer(["from the proxy"]) as proxy:
        for name in PROXIES[:6]:
            monkeypatch.setenv(name, proxy.base_url)
        assert asyncio.run(ask(server.base_url.replace("127.0.0.1", host))) == "hello"
        assert proxy.requests == []


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost:1/v1", True),
        ("http://LOCALHOST./v1", True),
        ("http://127.8.9.10/v1", True),
        ("http://[::1]:9/v1", True),
        ("http://128.0.0.1/v1", False),
        ("http://localhost.example.com/v1", False),
        ("http://127.0.0.1.example.com/v1", False),
        ("http://10.0.0.1/v1", False),
    ],
)
def test_what_loopback_is(url, loopback):
    assert _connections._is_loopback(_connections.way(url).host) is loopback


def test_other_hosts_use_the_proxy_of_the_environment(monkeypatch):
    with ModelServer(["from the proxy"]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
        assert asyncio.run(ask("http://model.example/v1")) == "from the proxy"
        assert proxy.paths == ["http://model.example/v1/chat/completions"]


@pytest.mark.parametrize(
    ("no_proxy", "proxy"),
    [("", "http://p:1"), ("other.example", "http://p:1"), ("model.example", None), (".example", None), ("*", None)],
)
def test_no_proxy_is_kept(monkeypatch, no_proxy, proxy):
    monkeypatch.setenv("https_proxy", "p:1")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert _connections.way("https://model.example/v1").proxy == proxy


@pytest.mark.parametrize(
    "value", ["http://", "http://u:sk-1@host:port", "foo://sk-1@host:1", "socks5://sk-1@host:1", "http://[sk-1"]
)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
def test_a_malformed_proxy_names_its_variable(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    monkeypatch.setitem(sys.modules, "socksio", None)  # not installed
    with pytest.raises(ErrorConfig, match=f"^{variable} ") as caught:
        asyncio.run(ask("http://model.example/v1"))
    assert "sk-1" not in str(caught.value)


def test_settings_that_change_count_from_the_next_request_on(monkeypatch):
    monkeypatch.setattr(_connections, "_most_connections", lambda: 1)  # a request that fails must not keep its place

    async def run() -> list[str | None]:
        monkeypatch.setenv("HTTP_PROXY", "http://")
        with pytest.raises(ErrorConfig, match="HTTP_PROXY"):
            await ask("http://model.example/v1")
        answers = []
        for server in (first, second):
            monkeypatch.setenv("HTTP_PROXY", server.base_url.removesuffix("/v1"))
            answers.append(await ask("http://model.example/v1"))
        return answers

    with ModelServer(["first"]) as first, ModelServer(["second"]) as second:
        assert asyncio.run(run()) == ["first", "second"]


def test_a_proxy_that_is_not_there_is_a_connection_error(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    words = r"^the proxy 127\.0\.0\.1:1 \(set by HTTP_PROXY\) could not be reached \(Connection refused\), nor model\.example:80"
    with pytest.raises(ErrorModelConnection, match=words):
        asyncio.run(ask("http://model.example/v1"))


def test_a_proxy_that_refuses_a_tunnel_is_told(monkeypatch):
    with RawServer(answering(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.base_url.removesuffix("/v1"))
        words = r"^the proxy 127.* \(set by HTTPS_PROXY\) did not connect to model\.example:443 \(502"
        with pytest.raises(ErrorModelConnection, match=words):
            asyncio.run(ask("https://model.example/v1"))
        assert proxy.requests[0].startswith(b"CONNECT model.example:443")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password_is_asked_once_and_named(monkeypatch, scheme):
    variable = f"{scheme.upper()}_PROXY"
    with RawServer(answering(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")) as proxy:
        monkeypatch.setenv(variable, proxy.base_url.removesuffix("/v1").replace("//", "//user:sk-secret-1@"))
        with pytest.raises(ErrorConfig, match=rf"^the proxy 127\..* \(set by {variable}\) wants a user and password") as caught:
            asyncio.run(Agent("a", model=f"{scheme}://model.example/v1/m").arun("hi"))
        assert len(proxy.requests) == 1
    assert "sk-secret-1" not in str(caught.value)


def test_a_407_without_a_proxy_is_the_servers():
    with RawServer(answering(b"HTTP/1.1 407 Odd\r\ncontent-length: 0\r\n\r\n")) as server:
        with pytest.raises(ErrorModelRequest):
            asyncio.run(ask(server.base_url))
        assert len(server.requests) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_why_a_server_could_not_be_reached_is_told(host):
    with pytest.raises(ErrorModelConnection, match=rf"^{host}:1 could not be reached \(Connection refused\)"):
        asyncio.run(ask(f"http://{host}:1/v1"))


def test_a_tunnel_that_never_stands_is_given_up_early(monkeypatch):
    monkeypatch.setattr("agentroute._http.CONNECT_S", 0.3)
    with RawServer(answering(hold=True)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.base_url.removesuffix("/v1"))
        with pytest.raises(ErrorModelTimeout, match=r"could not be connected to within 0\.3 s through the proxy .*HTTPS_PROXY"):
            asyncio.run(ask("https://model.example/v1"))
        assert proxy.all_closed()


@pytest.mark.parametrize("junk", ["[", "::", ",,,", "http://[::1", "\x7f", "*.*", "a b"])
def test_junk_in_no_proxy_harms_nothing(monkeypatch, junk):
    monkeypatch.setenv("NO_PROXY", junk)
    with ModelServer(["hello"]) as server:
        assert asyncio.run(ask(server.base_url)) == "hello"
        assert _connections.way("http://model.example/v1").proxy is None
