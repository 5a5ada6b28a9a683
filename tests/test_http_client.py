"""`ModelCloud(http_client=…)`: a client of the user's makes the requests, and nothing else changes."""

import asyncio
import importlib

import pytest

from agentroute import Agent, LLMRequest, Message, ModelCloud
from agentroute.errors import ErrorConfig, ErrorModelConnection, ErrorModelRequest, ErrorModelTimeout
from agentroute.testing import no_requests
from tests.http_library import LIBRARIES, with_library
from tests.raw_server import RawServer, answering
from tests.server import ModelServer, Raw


@pytest.fixture(autouse=True, params=LIBRARIES)
def http_library(request, monkeypatch):
    """Ours."""
    yield from with_library(request.param, monkeypatch)


def client(library: str, **options):
    return importlib.import_module(library).AsyncClient(**options)


@pytest.fixture(params=LIBRARIES)
def their_library(request):
    """The user's may be another one than ours."""
    return request.param


def with_client(base_url: str, made, *, stream: bool = False, times: int = 1, timeout: float = 60.0) -> str:
    """What a model says that uses the client; closes the client."""

    async def run() -> str:
        model = ModelCloud(model_id="m", base_url=base_url, api_key="sk-secret-1", http_client=made, timeout=timeout)
        said = ""
        async with made:
            for _ in range(times):
                request = LLMRequest("m", [Message("user", "hi")])
                if stream:
                    said += "".join([chunk.delta or "" async for chunk in model.complete_stream(request)])
                else:
                    said += (await model.complete(request)).content or ""
                assert not made.is_closed
        return said

    return asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_of_the_users_makes_the_requests(their_library, stream):
    with ModelServer(["hello"], repeat=True) as server:
        made = client(their_library, headers={"x-team": "blue", "authorization": "Bearer other"})
        assert with_client(server.base_url, made, stream=stream, times=3) == "hello" * 3
        assert [headers["x-team"] for headers in server.headers] == ["blue"] * 3
        assert {headers["authorization"] for headers in server.headers} == {"Bearer sk-secret-1"}
        assert server.connections == 1


def test_a_client_that_follows_redirects_does_not_follow_ours(their_library):
    with ModelServer(["stolen"]) as other, ModelServer([Raw(307, [b""], {"location": other.base_url})]) as server:
        with pytest.raises(ErrorModelRequest):
            with_client(server.base_url, client(their_library, follow_redirects=True))
        assert other.requests == []


def test_the_clients_own_five_seconds_do_not_count(their_library):
    with RawServer(answering(hold=True)) as server, pytest.raises(ErrorModelTimeout, match=r"timeout=1 s"):
        with_client(server.base_url, client(their_library, timeout=0.01), timeout=1.0)


def test_errors_of_the_clients_library_are_ours(their_library):
    with RawServer(lambda talk: None) as server, pytest.raises(ErrorModelConnection) as broke:
        with_client(server.base_url, client(their_library))
    assert broke.value.sent is True
    with pytest.raises(ErrorModelConnection, match=r"could not be reached \(Connection refused") as refused:
        with_client("http://127.0.0.1:1/v1", client(their_library))
    assert refused.value.sent is False


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_with_a_mocked_transport_works(their_library, stream):
    library = importlib.import_module(their_library)
    answer = {"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}
    transport = library.MockTransport(lambda request: library.Response(200, json=answer))
    assert with_client("http://model.example/v1", client(their_library, transport=transport), stream=stream) == "hello"


def test_a_hook_that_reads_the_answer_is_no_problem(their_library):
    async def read(response) -> None:
        await response.aread()

    with ModelServer(["hello"]) as server:
        assert with_client(server.base_url, client(their_library, event_hooks={"response": [read]})) == "hello"


def test_a_hook_that_raises_for_status_is_told(their_library):
    async def check(response) -> None:
        response.raise_for_status()

    with ModelServer([Raw(500, [b"{}"])]) as server, pytest.raises(ErrorConfig, match="raise_for_status"):
        with_client(server.base_url, client(their_library, event_hooks={"response": [check]}))


def test_a_client_is_used_on_one_loop_only(their_library):
    with ModelServer(["hello"], repeat=True) as server:
        made = client(their_library)
        model = ModelCloud(model_id="m", base_url=server.base_url, http_client=made)

        async def run() -> None:
            agent = Agent("a", model=model)
            assert (await agent.arun("hi")).output == "hello"
            with pytest.raises(ErrorConfig, match="belongs to the event loop it was first used on"):
                await asyncio.to_thread(agent.run, "hi")
            await made.aclose()
            with pytest.raises(ErrorConfig, match="http_client is closed"):
                await agent.arun("hi")

        asyncio.run(run())


@pytest.mark.parametrize("wrong", [object(), "client", ModelCloud])
def test_what_is_no_async_client_is_refused(wrong):
    with pytest.raises(ErrorConfig, match=r"http_client must be an httpx\.AsyncClient or httpx2\.AsyncClient, not "):
        ModelCloud(model_id="m", base_url="http://127.0.0.1/v1", http_client=wrong)


def test_the_class_of_a_client_is_refused(their_library):
    with pytest.raises(ErrorConfig, match=rf"not the class {their_library}\.AsyncClient"):
        ModelCloud(model_id="m", base_url="http://127.0.0.1/v1", http_client=importlib.import_module(their_library).AsyncClient)


def test_a_client_for_plain_code_is_refused(their_library):
    with (
        importlib.import_module(their_library).Client() as made,
        pytest.raises(ErrorConfig, match=rf"not {their_library}\.Client"),
    ):
        ModelCloud(model_id="m", base_url="http://127.0.0.1/v1", http_client=made)


def test_requests_of_a_client_can_be_forbidden_too(their_library):
    with ModelServer(["hello"]) as server, no_requests(allow=()), pytest.raises(RuntimeError, match="forbidden"):
        with_client(server.base_url, client(their_library))
