"""What a network can do to a request: each ends in an answer or in an error of ours, within its time, and shows no key.

Retries are in test_retry.py, what providers say in an orderly way in tests/wire/, odd bytes in test_faults_bytes.py.
"""

import asyncio
import os
import socket
import threading
import time

import pytest

from agentroute import Agent, LLMRequest, Message, ModelCloud, _http
from agentroute._decoding import Listener
from agentroute.errors import (
    ErrorAgent,
    ErrorConfig,
    ErrorModelConnection,
    ErrorModelRequest,
    ErrorModelResponse,
    ErrorModelTimeout,
)
from agentroute.events import TextDelta
from tests.faults import KEY, OK, WHOLE, ask, body, both, chunk, failing, good, head
from tests.http_library import LIBRARIES, with_library
from tests.raw_server import CERTIFICATE, RawServer, Talk, answering
from tests.server import ModelServer, Raw


@pytest.fixture(autouse=True, params=LIBRARIES)
def http_library(request, monkeypatch):
    """Each test with either library."""
    yield from with_library(request.param, monkeypatch)


@pytest.fixture(autouse=True)
def no_certificates_of_the_user(monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


# ---- not reached (N1-N3)


@both
@pytest.mark.parametrize(
    "url", ["http://nowhere.example/v1", f"http://{'a' * 64}.example/v1", f"http://{'a.' * 130}example/v1", "http://a..b/v1"]
)
def test_a_name_that_cannot_be_looked_up_is_told(url, stream, monkeypatch):
    def refuse(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert url.split("/")[2] in str(failing(url, stream))


@both
def test_a_certificate_nobody_vouches_for_ends_it_before_the_request(stream):
    with RawServer(answering(good(stream)), tls=True) as server:
        error = failing(server.base_url, stream)
        assert server.requests == []
    assert isinstance(error, ErrorConfig)
    assert "TLS certificate of 127.0.0.1" in str(error) and "SSL_CERT_FILE" in str(error)


@both
def test_https_to_a_port_that_speaks_http_names_tls(stream):
    with RawServer(lambda talk: talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        error = failing(server.base_url.replace("http:", "https:"), stream)
    assert isinstance(error, ErrorModelConnection)
    assert "no TLS connection" in str(error)


@both
def test_a_handshake_that_is_cut_is_a_connection_error(stream):
    with RawServer(lambda talk: talk.send(b"\x16\x03\x03")) as server:
        assert isinstance(failing(server.base_url.replace("http:", "https:"), stream), ErrorModelConnection)


@both
def test_a_connection_that_never_stands_is_given_up_early(stream, monkeypatch):
    monkeypatch.setattr(_http, "CONNECT_S", 0.3)
    with RawServer(Talk.hold) as server:  # a handshake without an answer
        error = failing(server.base_url.replace("http:", "https:"), stream)
    assert "could not be connected to within 0.3 s" in str(error)
    assert error.sent is False


# ---- cut, held, slow (N4-N9)


@both
@pytest.mark.parametrize("how", [lambda talk: None, Talk.reset], ids=["fin", "rst"])
def test_an_agent_outlives_connections_that_break_before_the_answer(how, stream):
    def script(talk: Talk) -> None:
        talk.request()
        if talk.number == 0:
            how(talk)
        else:
            talk.send(good(stream))

    with RawServer(script) as server:
        agent = Agent("a", model=f"{server.base_url}/m")
        assert (list(agent.stream("hi"))[-1].result if stream else agent.run("hi")).output == "hello"
        assert len(server.requests) == 2


@both
def test_a_kept_connection_that_has_gone_stale_is_not_used(stream):
    def script(talk: Talk) -> None:
        talk.request()
        talk.send(good(stream))  # and closes, though it promised to keep the connection

    with RawServer(script) as server:

        async def twice() -> None:
            model = ModelCloud(model_id="m", base_url=server.base_url)
            for _ in range(2):
                await model.complete(LLMRequest("m", [Message("user", "hi")]))
                assert await asyncio.to_thread(server.all_closed)
                await asyncio.sleep(0.05)  # the end of the connection comes in

        asyncio.run(twice())
        assert server.connections == 2


@both
def test_a_kept_connection_that_breaks_on_its_second_request_costs_a_retry(stream):
    def script(talk: Talk) -> None:
        talk.request()
        talk.send(good(stream))
        talk.request()
        talk.reset()

    with RawServer(script) as server:
        agent = Agent("a", model=f"{server.base_url}/m")
        for _ in range(3):
            assert (list(agent.stream("hi"))[-1].result if stream else agent.run("hi")).output == "hello"
        assert (server.connections, len(server.requests)) == (3, 5)


CUTS = {
    "short body": lambda stream: head(b"content-length: 9999", stream=stream) + body(stream)[:40],
    "in a chunk": lambda stream: head(b"transfer-encoding: chunked", stream=stream) + b"ff\r\n" + body(stream)[:40],
    "between chunks": lambda stream: head(b"transfer-encoding: chunked", stream=stream) + b"28\r\n" + body(stream)[:40] + b"\r\n",
    "without length": lambda stream: head(stream=stream) + body(stream)[:40],
    "in the head": lambda stream: OK + b"content-type: app",
}


@both
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
def test_an_answer_that_is_cut_is_an_error(cut, reset, stream):
    def script(talk: Talk) -> None:
        talk.request()
        talk.send(CUTS[cut](stream), pause_s=0.02)
        if reset:
            talk.reset()

    with RawServer(script) as server:
        error = failing(server.base_url, stream)
        assert len(server.requests) == 1
    assert isinstance(error, ErrorModelConnection | ErrorModelResponse)
    assert error.sent is True


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
def test_a_stream_is_not_asked_for_again_after_text_was_shown(reset):
    half_is_shown = threading.Event()

    def script(talk: Talk) -> None:
        talk.request()
        talk.send(head(b"transfer-encoding: chunked", stream=True), TEXT)
        half_is_shown.wait(30)
        if reset:
            talk.reset()

    with RawServer(script) as server:
        shown = []
        with pytest.raises(ErrorAgent):
            events = Agent("a", model=f"{server.base_url}/m").stream("hi")
            for delta in (event.delta for event in events if isinstance(event, TextDelta)):
                shown.append(delta)
                half_is_shown.set()
        assert shown == ["half"]
        assert len(server.requests) == 1


HOLDS = {
    "before the head": lambda stream: b"",
    "in the head": lambda stream: OK + b"content-type: app",
    "before the body": lambda stream: head(b"transfer-encoding: chunked", stream=stream),
    "in the body": lambda stream: head(b"transfer-encoding: chunked", stream=stream) + b"28\r\n" + body(stream)[:20],
}


@both
@pytest.mark.parametrize("place", HOLDS)
def test_a_server_that_falls_silent_is_given_up_in_time(place, stream):
    with RawServer(answering(HOLDS[place](stream), hold=True)) as server:
        error = failing(server.base_url, stream, timeout=1.0)
        assert server.all_closed()
    assert isinstance(error, ErrorModelTimeout)
    assert "timeout=1 s" in str(error) and error.sent is True


@both
@pytest.mark.parametrize("start", ["head", "body"])
def test_a_byte_now_and_then_does_not_extend_the_time(start, stream):
    def script(talk: Talk) -> None:
        talk.request()
        talk.send({"head": OK + b"x-slow: ", "body": head(stream=stream)}[start])
        while True:
            talk.send(b"a", pause_s=0.05)

    with RawServer(script) as server:
        assert isinstance(failing(server.base_url, stream, timeout=0.4), ErrorModelTimeout)


TEXT = chunk(b'data: {"choices":[{"delta":{"content":"half"}}]}\n\n')
COMMENT = chunk(b": OPENROUTER PROCESSING\n\n")


def collected(base_url: str, idle: float) -> list[object]:
    """Everything of a stream, the error last."""

    async def read() -> list[object]:
        parts: list[object] = []
        try:
            async for part in _http.post_stream(f"{base_url}/x", b"{}", key=None, timeout=60, idle=idle):
                parts.append(part)
        except ErrorAgent as error:
            parts.append(error)
        return parts

    return asyncio.run(read())


def test_comments_do_not_count_as_data():
    def script(talk: Talk) -> None:
        talk.request()
        talk.send(head(b"transfer-encoding: chunked", stream=True), TEXT)
        while True:
            talk.send(COMMENT, pause_s=0.05)

    with RawServer(script) as server:
        began = time.monotonic()
        *_, error = collected(server.base_url, idle=0.3)
        assert time.monotonic() - began < 20
        assert server.all_closed()
    assert isinstance(error, ErrorModelTimeout) and error.sent
    assert "no data for idle_timeout=0.3 s" in str(error)


def test_silence_counts_from_the_first_data_on():
    def script(talk: Talk) -> None:
        talk.request()
        talk.send(head(b"transfer-encoding: chunked", stream=True), *[COMMENT] * 8, pause_s=0.05)
        talk.send(TEXT + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    with RawServer(script) as server:
        assert collected(server.base_url, idle=0.15)[-1] == b"data: [DONE]\n\n"


def test_data_in_time_keeps_a_stream_going():
    with RawServer(answering(head(b"transfer-encoding: chunked", stream=True), *[TEXT] * 8, b"0\r\n\r\n", pause_s=0.3)) as server:
        assert len(collected(server.base_url, idle=2)) == 9


def test_a_slow_reader_is_not_silence():
    all_is_sent = threading.Event()

    def script(talk: Talk) -> None:
        talk.request()
        talk.send(head(b"transfer-encoding: chunked", stream=True), *[TEXT] * 3, b"0\r\n\r\n", pause_s=0.01)
        all_is_sent.set()

    async def read(base_url: str) -> int:
        count = 0
        async for _ in _http.post_stream(f"{base_url}/x", b"{}", key=None, timeout=60, idle=0.5):
            count += 1
            await asyncio.to_thread(all_is_sent.wait, 30)
            await asyncio.sleep(0.75)
        return count

    with RawServer(script) as server:
        assert asyncio.run(read(server.base_url)) == 4


def test_the_time_a_reader_takes_is_not_the_servers():
    """The server is done at once; the reader takes longer than the whole timeout, but the answer is there and paid for."""

    async def read(base_url: str) -> int:
        size = 0
        async for part in _http.post_stream(f"{base_url}/x", b"{}", key=None, timeout=1.5, idle=60):
            size += len(part) if isinstance(part, bytes) else 0
            await asyncio.sleep(0.25)
        return size

    large = b"data: " + b"a" * 100_000 + b"\n\n"  # more than one read takes, so that each has to wait for the socket
    with RawServer(answering(head(stream=True), *[large] * 6)) as server:
        assert asyncio.run(read(server.base_url)) == 6 * len(large)


def test_a_slow_reader_does_not_give_the_server_more_time():
    async def read(base_url: str) -> None:
        async for _ in _http.post_stream(f"{base_url}/x", b"{}", key=None, timeout=0.4, idle=60):
            await asyncio.sleep(0.3)

    with RawServer(answering(head(b"transfer-encoding: chunked", stream=True), TEXT, hold=True)) as server:
        began = time.monotonic()
        with pytest.raises(ErrorModelTimeout, match=r"timeout=0\.4 s"):
            asyncio.run(read(server.base_url))
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("piece", "data"),
    [
        (b"data: 1\n\n", True),
        (b": ping\n\n", False),
        (b"\r\n: ping\r\n\r\n", False),
        (b"\n\n", False),
        (b": ping\n\ndata: 1\n\n", True),
        (b"\ndata: 1\n", True),
        (b'"rest of a line"}\n\n', True),
        (b'event: ping\r\ndata: {"type": "ping"}\r\n\r\n', False),
        (b"event:ping\ndata: {}\n\ndata: 1\n\n", True),
        (b"event: message\ndata: 1\n\n", True),
    ],
)
def test_what_counts_as_data(piece, data):
    assert Listener().is_data(piece) is data


def test_a_ping_in_pieces_is_no_data():
    listener = Listener()
    pieces = [b"event: ping\n", b'data: {"type"', b': "ping"}\n', b"\n", b"data: 1\n\n"]
    assert [listener.is_data(piece) for piece in pieces] == [False] * 4 + [True]


@pytest.mark.parametrize("kept_open", [COMMENT, chunk(b'event: ping\ndata: {"type":"ping"}\n\n')], ids=["comments", "pings"])
def test_a_stream_that_never_begins_is_given_up(monkeypatch, kept_open):
    monkeypatch.setattr(_http, "FIRST_S", 0.3)

    def script(talk: Talk) -> None:
        talk.request()
        talk.send(head(b"transfer-encoding: chunked", stream=True))
        while True:
            talk.send(kept_open, pause_s=0.05)

    with RawServer(script) as server:
        began = time.monotonic()
        *_, error = collected(server.base_url, idle=0.1)
        assert 0.3 <= time.monotonic() - began < 20
        assert server.all_closed()
    assert isinstance(error, ErrorModelTimeout) and error.sent
    assert "sent no data within 0.3 s" in str(error) and "idle_timeout" in str(error)


def test_the_first_data_may_take_as_long_as_any_silence(monkeypatch):
    monkeypatch.setattr(_http, "FIRST_S", 0.1)

    def script(talk: Talk) -> None:
        talk.request()
        talk.send(head(b"transfer-encoding: chunked", stream=True), *[COMMENT] * 6, pause_s=0.05)
        talk.send(TEXT, b"0\r\n\r\n")

    with RawServer(script) as server:
        assert isinstance(collected(server.base_url, idle=30)[-1], bytes)


# ---- redirects (N22, N23)

LOCATIONS = [
    b"{other}",
    b"/v1/again",
    b"",
    b"http://127.0.0.1:99999/",
    b"file:///etc/passwd",
    b"ftp://127.0.0.1/",
    b"\\\\evil",
    b"http://user@{host}/",
    None,
]


@both
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", LOCATIONS)
def test_no_redirect_is_followed(status, location, stream):
    with ModelServer(["stolen"]) as other:
        filled = (location or b"").replace(b"{other}", other.base_url.encode()).replace(b"{host}", other.base_url[7:-3].encode())
        line = b"" if location is None else b"location: " + filled + b"\r\n"
        with RawServer(answering(b"HTTP/1.1 %d Moved\r\n%scontent-length: 0\r\n\r\n" % (status, line))) as server:
            assert isinstance(failing(server.base_url, stream), ErrorModelRequest)
            assert len(server.requests) == 1
        assert other.requests == []


# ---- what stays behind (N24-N26), and files of the user's (N28)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@both
def test_failing_requests_leave_no_descriptor_and_no_task(stream):
    def script(talk: Talk) -> None:
        talk.request()
        talk.send([b"", OK, b"junk\r\n\r\n", head(b"content-length: 99", stream=stream) + b"{"][talk.number % 4])

    async def fail(base_url: str, times: int) -> None:
        model = ModelCloud(model_id="m", base_url=base_url)
        request = LLMRequest("m", [Message("user", "hi")])
        for _ in range(times):
            with pytest.raises(ErrorAgent):
                _ = [chunk async for chunk in model.complete_stream(request)] if stream else await model.complete(request)

    async def measured(base_url: str) -> None:
        await fail(base_url, 4)
        before = descriptors()
        await fail(base_url, 16)
        assert server.all_closed()
        async with asyncio.timeout(30):  # the threads of the server close theirs in their own time
            while descriptors() > before:
                await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1

    with RawServer(script) as server:
        asyncio.run(measured(server.base_url))


@both
def test_a_cancelled_request_frees_its_connection(stream):
    async def cancelled(base_url: str) -> None:
        model = ModelCloud(model_id="m", base_url=base_url)
        request = LLMRequest("m", [Message("user", "hi")])

        async def run() -> None:
            _ = [chunk async for chunk in model.complete_stream(request)] if stream else await model.complete(request)

        tasks = [asyncio.create_task(run()) for _ in range(20)]
        while len(server.requests) < 20:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        assert {type(outcome) for outcome in await asyncio.gather(*tasks, return_exceptions=True)} == {asyncio.CancelledError}
        assert [task.cancelling() for task in tasks] == [1] * 20
        assert server.all_closed()

    with RawServer(answering(head(stream=stream), hold=True)) as server:
        asyncio.run(cancelled(server.base_url))


def test_a_timeout_leaves_the_task_uncancelled():
    async def run(base_url: str) -> None:
        with pytest.raises(ErrorModelTimeout):
            await ModelCloud(model_id="m", base_url=base_url).complete(LLMRequest("m", [Message("user", "hi")], timeout=0.05))
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await asyncio.sleep(0)

    with RawServer(answering(hold=True)) as server:
        asyncio.run(run(server.base_url))


def test_netrc_is_not_read(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password from-netrc\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with ModelServer(["hello"], repeat=True) as server:
        asyncio.run(ModelCloud(model_id="m", base_url=server.base_url).complete(LLMRequest("m", [Message("user", "hi")])))
        assert "authorization" not in server.headers[0]
        ask(server.base_url, stream=False)
        assert server.headers[1]["authorization"] == f"Bearer {KEY}"


def test_cookies_are_not_sent_back():
    with ModelServer([Raw(200, [WHOLE], {"set-cookie": "a=1; Path=/"})], repeat=True) as server:
        agent = Agent("a", model=server.model)
        agent.run("hi"), agent.run("hi")
        assert [headers.get("cookie") for headers in server.headers] == [None, None]


# ---- certificates


def test_the_authority_in_ssl_cert_file_is_trusted(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with RawServer(answering(good(False)), tls=True) as server:
        assert ask(server.base_url, stream=False) == "hello"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("what", ["missing", "junk"])
def test_certificates_that_cannot_be_used_name_their_variable(monkeypatch, tmp_path, variable, what):
    (tmp_path / "junk").write_text("no certificates here")
    monkeypatch.setenv(variable, str(tmp_path / what))
    with RawServer(answering(good(False)), tls=True) as server:
        error = failing(server.base_url, stream=False)
    assert isinstance(error, ErrorConfig)
    assert str(error).startswith(f"{variable}={tmp_path / what} cannot be used")


def test_certificates_do_not_matter_without_tls(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    with RawServer(answering(good(False))) as server:
        assert ask(server.base_url, stream=False) == "hello"
