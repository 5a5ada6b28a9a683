"""Which model string goes where, and which key goes with it."""

import traceback

import pytest

from agentroute import ErrorConfig, resolve_model

OPENROUTER = "https://openrouter.ai/api/v1"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AGENTROUTE_API_KEY", "OPENROUTER_API_KEY", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def key_of(model):
    return model._key.reveal() if model._key else None


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        ("claude-sonnet-4", "anthropic/claude-sonnet-4"),
        ("Claude-Opus", "anthropic/Claude-Opus"),
        ("gpt-4o", "openai/gpt-4o"),
        ("o1-mini", "openai/o1-mini"),
        ("o3", "openai/o3"),
        ("o4-mini", "openai/o4-mini"),
        ("gemini-2.0-flash", "google/gemini-2.0-flash"),
        ("llama-3.1-70b", "meta-llama/llama-3.1-70b"),
        ("deepseek-v3:free", "deepseek/deepseek-v3:free"),
        ("mistral-large", "mistralai/mistral-large"),
        ("anthropic/claude-sonnet-4", "anthropic/claude-sonnet-4"),
        ("qwen-max", "qwen-max"),
        (" x-ai/grok-4 ", "x-ai/grok-4"),
    ],
)
def test_names_go_to_openrouter(name, model_id):
    model = resolve_model(name, api_key="sk-1")
    assert (model.base_url, model.model_id, key_of(model)) == (OPENROUTER, model_id, "sk-1")


def test_a_url_ends_in_the_model_id():
    model = resolve_model("https://my-host/v1/my-model", api_key="sk-1")
    assert (model.base_url, model.model_id, key_of(model)) == ("https://my-host/v1", "my-model", "sk-1")


def test_an_id_with_slashes_goes_with_base_url():
    model = resolve_model("org/model", base_url="http://127.0.0.1:8000/v1/")
    assert (model.base_url, model.model_id, key_of(model)) == ("http://127.0.0.1:8000/v1", "org/model", None)


@pytest.mark.parametrize(
    ("host", "base_url"),
    [
        (None, "http://localhost:11434/v1"),
        ("0.0.0.0", "http://localhost:11434/v1"),
        ("gpu", "http://gpu:11434/v1"),
        ("gpu:9", "http://gpu:9/v1"),
        (":9", "http://localhost:9/v1"),
        ("http://box", "http://box/v1"),
        ("https://o.example", "https://o.example/v1"),
        ("HTTPS://o.example/", "https://o.example/v1"),
        ("https://o.example:8443", "https://o.example:8443/v1"),
        ("https://box/ollama", "https://box/ollama/v1"),
        ("box/ollama/", "http://box:11434/ollama/v1"),
        ("http://box:11434/v1", "http://box:11434/v1"),
        ("::1", "http://[::1]:11434/v1"),
        ("[::1]", "http://[::1]:11434/v1"),
        ("[::1]:9", "http://[::1]:9/v1"),
        ("https://::1", "https://[::1]/v1"),
        ("::", "http://localhost:11434/v1"),
        (' "gpu:9" ', "http://gpu:9/v1"),
    ],
)
def test_ollama_needs_no_key(monkeypatch, host, base_url):
    if host:
        monkeypatch.setenv("OLLAMA_HOST", host)
    model = resolve_model("ollama/llama3.1:8b")
    assert (model.base_url, model.model_id, key_of(model), model.free) == (base_url, "llama3.1:8b", "ollama", True)


@pytest.mark.parametrize(
    ("host", "base_url"), [("https://u:p%40w@box/ollama", "https://box/ollama/v1"), ("u:p%40w@box", "http://box:11434/v1"), ("u:p@w@::1", "http://[::1]:11434/v1")]
)
def test_a_login_at_ollama_is_sent_instead_of_a_key(monkeypatch, host, base_url):
    monkeypatch.setenv("OLLAMA_HOST", host)
    model = resolve_model("ollama/m")
    assert (model.base_url, key_of(model), model.headers) == (base_url, None, {"authorization": "Basic dTpwQHc="})
    assert key_of(resolve_model("ollama/m", api_key="sk-1")) == "sk-1"


@pytest.mark.parametrize("host", ["tcp://box", "box:port", "box:99999", "u:hush@box:port", "[::1", "a box", "box/?token=hush"])
def test_an_ollama_host_that_is_no_address_is_named_and_not_shown(monkeypatch, host):
    monkeypatch.setenv("OLLAMA_HOST", host)
    with pytest.raises(ErrorConfig, match="OLLAMA_HOST in the environment is no address") as caught:
        resolve_model("ollama/m")
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()).partition("resolve_model(")[2]
    assert "hush" not in shown.partition("routing.py")[2]


def test_base_url_replaces_the_endpoint_of_a_url_and_its_id_stays():
    model = resolve_model("https://h/v1/org/m", base_url="http://x/v1")
    assert (model.base_url, model.model_id) == ("http://x/v1", "m")
    assert "all of it" not in resolve_model.__doc__


def test_the_key_is_looked_up_in_order(home, monkeypatch):
    (home / ".agentroute").mkdir()
    (home / ".agentroute" / "config").write_text("# mine\nopenrouter_api_key = sk-specific\napi_key = sk-file\n")
    found = [key_of(resolve_model("claude-x"))]
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-openrouter")
    found.append(key_of(resolve_model("claude-x")))
    monkeypatch.setenv("AGENTROUTE_API_KEY", "sk-agentroute")
    found.append(key_of(resolve_model("claude-x")))
    found.append(key_of(resolve_model("claude-x", api_key="sk-argument")))
    assert found == ["sk-file", "sk-openrouter", "sk-agentroute", "sk-argument"]


@pytest.mark.parametrize("options", [{"base_url": "http://127.0.0.1:1/v1"}, {"model": "http://127.0.0.1:1/v1/m"}, {"model": "ollama/m"}])
def test_the_key_of_the_environment_goes_to_openrouter_only(monkeypatch, options):
    monkeypatch.setenv("AGENTROUTE_API_KEY", "sk-openrouter")
    model = resolve_model(**{"model": "claude-x", **options})
    assert key_of(model) in (None, "ollama")


def test_an_endpoint_set_for_openrouter_gets_openrouters_key(home, monkeypatch):
    (home / ".agentroute").mkdir()
    (home / ".agentroute" / "config").write_text("openrouter_base_url = https://gateway.example/v1\n")
    monkeypatch.setenv("AGENTROUTE_API_KEY", "sk-openrouter")
    model = resolve_model("claude-x")
    assert (model.base_url, key_of(model)) == ("https://gateway.example/v1", "sk-openrouter")


@pytest.mark.parametrize("model", ["m", "ollama/m", "http://user:p@ss@host/v1/m"])
def test_a_login_in_the_url_is_kept_apart_from_it(model):
    made = resolve_model(model, base_url=None if "host" in model else "http://user:p@ss@host/v1")
    assert (made.base_url, made.model_id, key_of(made), made.headers) == ("http://host/v1", "m", None, {"authorization": "Basic dXNlcjpwQHNz"})


def test_a_missing_key_says_what_to_do():
    with pytest.raises(ErrorConfig, match=r"AGENTROUTE_API_KEY.*agentroute login"):
        resolve_model("claude-sonnet-4")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": ""}, "model string"),
        ({"model": None}, "model string"),
        ({"model": "ollama/"}, "names no model"),
        ({"model": "https://host"}, "ends in the model id"),
        ({"model": "https://host/v1/"}, "ends in the model id"),
        ({"model": "http:///v1/m"}, "names no host"),
        ({"model": "http://host:port/v1/m"}, "not a usable endpoint"),
        ({"model": "m", "base_url": "ftp://host/v1"}, "must begin with http"),
        ({"model": "m", "base_url": "host/v1"}, "must begin with http"),
        ({"model": "m", "api_key": "sk-\nx"}, "not shown"),
        ({"model": "m", "api_key": "sk-é"}, "not shown"),
    ],
)
def test_a_wrong_model_or_endpoint_says_what_is_wrong(arguments, words):
    with pytest.raises(ErrorConfig, match=words) as caught:
        resolve_model(**arguments)
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_an_unreadable_config_names_the_file(home, content):
    config = home / ".agentroute" / "config"
    config.parent.mkdir()
    config.mkdir() if content is None else config.write_bytes(content)
    with pytest.raises(ErrorConfig, match="config cannot be read"):
        resolve_model("claude-x")
