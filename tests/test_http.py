"""Connections and proxies: what an event loop keeps, and which way a request goes."""

import asyncio
import gc
import os
import sys
import warnings
import weakref

import pytest

from agentroute import Agent, ErrorConfig, LLMRequest, Message, ModelCloud, _http
from tests.benchmarks.endpoint import endpoint
from tests.server import ModelServer

PROXIES = [name for scheme in ("http", "https", "all", "no") for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


async def ask(base_url: str) -> str | None:
    return (await ModelCloud(model_id="m-0-1", base_url=base_url).complete(LLMRequest("m-0-1", [Message("user", "hi")]))).content


def sockets() -> int:
    """Open sockets of this process."""
    links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith("socket:") for link in links if os.path.lexists(link))


# ---- loops


def test_a_loop_that_has_ended_is_let_go():
    loops = []

    async def run(model: str) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await Agent("a", model=model).arun("hi")

    with ModelServer(["hello"], repeat=True) as server:
        for _ in range(20):
            asyncio.run(run(server.model))
        gc.collect()
    assert [loop() for loop in loops if loop() is not None] == []


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
        gc.collect()
        assert [loop() for loop in loops if loop() is not None] == []
        assert sockets() == before


def test_a_loop_goes_on_after_its_generators_were_shut_down():
    with ModelServer(["hello"], repeat=True) as server:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(ask(server.base_url))
        loop.run_until_complete(loop.shutdown_asyncgens())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "asynchronous generator", ResourceWarning)  # of asyncio, for any generator from here on
            assert loop.run_until_complete(ask(server.base_url)) == "hello"
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_first_requests_made_together_share_their_connections(monkeypatch):
    made = []
    direct = _http._direct
    monkeypatch.setattr(_http, "_direct", lambda: made.append(1) or direct())

    async def together(base_url: str) -> None:
        await asyncio.gather(*(ask(base_url) for _ in range(5)))

    with ModelServer(["hello"], repeat=True) as server:
        asyncio.run(together(server.base_url))
    assert made == [1]


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
    assert _http._target(url).loopback is loopback


def test_other_hosts_use_the_proxy_of_the_environment(monkeypatch):
    with ModelServer(["from the proxy"]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
        assert asyncio.run(ask("http://model.example/v1")) == "from the proxy"
        assert proxy.paths == ["http://model.example/v1/chat/completions"]


@pytest.mark.parametrize(
    ("no_proxy", "proxy"), [("", "http://p:1"), ("other.example", "http://p:1"), ("model.example", None), (".example", None), ("*", None)]
)
def test_no_proxy_is_kept(monkeypatch, no_proxy, proxy):
    monkeypatch.setenv("https_proxy", "p:1")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert _http._proxy_for(_http._target("https://model.example/v1")) == proxy


@pytest.mark.parametrize("value", ["http://", "http://u:sk-1@host:port", "foo://sk-1@host:1", "socks5://sk-1@host:1", "http://[sk-1"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
def test_a_malformed_proxy_names_its_variable(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    monkeypatch.setitem(sys.modules, "socksio", None)  # not installed
    with pytest.raises(ErrorConfig, match=f"^{variable} ") as caught:
        asyncio.run(ask("http://model.example/v1"))
    assert "sk-1" not in str(caught.value)
