"""A key is shown nowhere: not in tracebacks with locals, not where a provider sends it back, not in logs or pickles."""

import asyncio
import io
import logging
import pickle
import traceback

import pytest

from agentroute import Agent, ModelCloud, resolve_model
from agentroute.config import without_keys
from agentroute.errors import ErrorAgent, ErrorConfig, ErrorOutput, ErrorRun
from agentroute.testing import ModelFunction
from tests.server import ModelServer, Raw

KEY = "sk-or-SUPERSECRET0123456789"
PASSWORD = "hunter2secret"


def frames(error: BaseException | None) -> list[str]:
    """The frames that are not this file's, with their local variables, of an error and what led to it."""
    shown: list[str] = []
    while error is not None:
        stack = traceback.TracebackException.from_exception(error, capture_locals=True).stack
        shown += [f"{frame.filename} {frame.name} {frame.locals}" for frame in stack if not frame.filename.endswith("test_keys.py")]
        error = error.__cause__ or error.__context__
    return shown


def showing(texts: list[str]) -> list[str]:
    return [text for text in texts if "SUPERSECRET" in text or "sk-or-SU" in text or PASSWORD in text]


async def asked(agent: Agent) -> None:
    await agent.arun("hi")


async def streamed(agent: Agent) -> None:
    async for _ in agent.stream("hi"):
        pass


async def completed(agent: Agent) -> None:
    from agentroute import LLMRequest, Message

    await agent._resolve().complete(LLMRequest("m", [Message("user", "hi")]))


@pytest.mark.parametrize("way", [asked, streamed, completed])
@pytest.mark.parametrize("how", ["key", "login"])
def test_a_cancelled_request_leaves_no_frame_that_holds_the_key(way, how):
    async def main(agent: Agent) -> None:
        async with asyncio.timeout(0.2):
            await way(agent)

    with ModelServer([Raw(200, [b" "], hold_s=5)], repeat=True) as server:
        address = f"{server.base_url}/m"
        agents = {
            "key": Agent("a", model=address, api_key=KEY),
            "login": Agent("a", model=address.replace("http://", f"http://ann:{PASSWORD}@")),
        }
        with pytest.raises(TimeoutError) as caught:
            asyncio.run(main(agents[how]))
    assert frames(caught.value)
    assert showing(frames(caught.value)) == []


@pytest.mark.parametrize("position", [0, 300, 492, 497])
@pytest.mark.parametrize("status", [401, 500, 200])
def test_a_key_a_provider_sends_back_is_struck_out_before_anything_is_cut(status, position):
    body = '{"error":{"message":"' + "x" * position + KEY + '","code":401,"metadata":{"raw":"' + "y" * position + KEY + '"}}}'
    answer = Raw(status, [body.encode()], {"content-type": "application/json", "x-request-id": KEY})
    with ModelServer([answer], repeat=True) as server, pytest.raises(ErrorAgent) as caught:
        run_at(server, api_key=KEY)
    error = caught.value
    assert showing([str(error), repr(vars(error)), *frames(error)]) == []


def run_at(server: ModelServer, **options: object) -> None:
    import agentroute.models.retry as retry

    before, retry.BASE_S = retry.BASE_S, 0.0
    try:
        Agent("a", model=server.model, base_url=server.base_url, **options).run("hi")
    finally:
        retry.BASE_S = before


@pytest.mark.parametrize(
    "text",
    [f"bad key {KEY}", KEY, f"{KEY}{KEY}", "bad \\u0073k-or-SUPERSECRET0123456789", "masked sk-or-SUPER****", f"a {KEY[:8]} b {KEY[:20]} c"],
)
def test_every_form_of_a_key_is_struck_out(text):
    assert showing([without_keys(text, [KEY])]) == []


def test_what_is_no_key_stays():
    assert without_keys("sk-or is how keys begin \\u00e9", [KEY, "", "abc"]) == "sk-or is how keys begin \\u00e9"


def test_a_password_that_a_provider_sends_back_is_struck_out():
    with ModelServer([Raw(401, [f'{{"error":{{"message":"no user with password {PASSWORD}"}}}}'.encode()])]) as server:
        address = server.base_url.replace("http://", f"http://ann:{PASSWORD}@")
        with pytest.raises(ErrorAgent, match=r"no user with password \[key\]") as caught:
            Agent("a", model=f"{address}/m").run("hi")
    assert showing([str(caught.value), repr(vars(caught.value))]) == []


def test_logs_of_every_library_show_no_key_though_a_proxy_sends_it_back(caplog):
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(1)
    try:
        with ModelServer([Raw(200, [b'{"choices":[{"message":{"content":"hi"}}]}'], {"content-type": "application/json", "set-cookie": KEY})]) as server:
            assert str(Agent("a", model=server.model, base_url=server.base_url, api_key=KEY).run("hi")) == "hi"
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert "receive_response_headers" in out.getvalue()
    assert showing(out.getvalue().splitlines()) == []


def test_a_model_with_a_key_in_its_headers_is_not_pickled():
    with pytest.raises(TypeError, match="Headers are not pickled"):
        pickle.dumps(ModelCloud(model_id="m", base_url="http://h/v1", headers={"x-api-key": KEY}))
    plain = pickle.loads(pickle.dumps(ModelCloud(model_id="m", base_url="http://h/v1")))
    assert (plain.model_id, plain.base_url) == ("m", "http://h/v1")


def test_an_error_of_a_run_quotes_no_key_and_its_cause_is_as_it_was_raised(monkeypatch):
    monkeypatch.setenv("AGENTROUTE_API_KEY", KEY)
    refused = RuntimeError(f"auth failed for {KEY}")

    def failing(request):
        raise refused

    with pytest.raises(ErrorRun, match=r"^RuntimeError: auth failed for \[key\]$") as caught:
        Agent("a", model=ModelFunction(failing)).run("hi")
    assert caught.value.__cause__ is refused
    assert str(refused) == f"auth failed for {KEY}"
    with pytest.raises(ErrorOutput, match=r"got \"?\[key\]") as caught:
        Agent("a", model=ModelFunction(lambda request: f'{{"value": "{KEY}"}}'), output=int, retries=0).run("hi")
    assert showing([str(caught.value)]) == []


@pytest.mark.parametrize("address", [f"http://ann:{PASSWORD}@h:99999/v1/m", f"http://ann:{PASSWORD}@h/v1/m?x=1", f"http://ann:{PASSWORD}@/v1/m"])
@pytest.mark.parametrize(
    "use",
    [
        lambda address: Agent("a", model=address).run("hi"),
        lambda address: Agent("a", model="m", base_url=address).run("hi"),
        resolve_model,
        lambda address: ModelCloud(model_id="m", base_url=address),
    ],
    ids=["model", "base_url", "resolve_model", "ModelCloud"],
)
def test_an_address_that_cannot_be_used_is_in_no_traceback(use, address):
    with pytest.raises(ErrorConfig) as caught:
        use(address)
    assert showing([str(caught.value), *frames(caught.value)]) == []
