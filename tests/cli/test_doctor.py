"""`agentroute doctor`: what there is and whether a model can be run; never a part of a key."""

import json

import pytest

from agentroute.cli import doctor
from agentroute.config import Config
from agentroute.models import weights
from tests.cli.conftest import closed_port, configure, run
from tests.server import ModelServer, Raw

KEY = "sk-or-v1-0123456789abcdef"
GOOD = Raw(200, [b'{"data": {"label": "sk-or-v1-012...def", "limit_remaining": 3.21}}'])


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("AGENTROUTE_CACHE", str(tmp_path))


@pytest.fixture
def openrouter():
    with ModelServer([]) as server:
        server.pages["/v1/key"] = GOOD
        configure(api_key=KEY, openrouter_base_url=server.base_url)
        yield server


def nobody_there():
    configure(openrouter_base_url=f"http://{closed_port()}/v1")


def told(*arguments):
    result = run("doctor", "--json", *arguments)
    return result, json.loads(result.stdout)


def test_a_good_key_is_a_way_to_run_models(openrouter):
    result = run("doctor")
    assert result.exit_code == 0
    assert f"openrouter: {Config().config_file} (api_key): used" in result.stdout
    assert "accepts the key, $3.21 may still be spent with it" in result.stdout
    assert result.stdout.endswith("Models can be run: any model at OpenRouter.\n")
    assert openrouter.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("arguments", [[], ["--offline"], ["--json"]], ids=" ".join)
def test_no_part_of_any_key_is_shown(arguments, openrouter, monkeypatch):
    monkeypatch.setenv("AGENTROUTE_API_KEY", "sk-first-987654")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-555555")
    output = run("doctor", *arguments).output
    assert "AGENTROUTE_API_KEY" in output
    assert "OPENAI_API_KEY" in output
    for part in ("sk-", "0123", "cdef", "9876", "555"):
        assert part not in output


def test_the_key_that_is_used_is_the_one_an_agent_would_use(openrouter, monkeypatch):
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-other")
    _, report = told()
    assert [(key["where"], key["used"]) for key in report["keys"]] == [("OPENROUTER_API_KEY", True), (f"{Config().config_file} (api_key)", False)]
    assert openrouter.headers[0]["authorization"] == "Bearer sk-other"


def test_a_refused_key_is_no_way_and_login_the_nearest(openrouter):
    openrouter.pages["/v1/key"] = Raw(401)
    result, report = told()
    assert (result.exit_code, report["ok"], report["openrouter"]["key"]) == (1, False, "refused")
    assert report["advice"] == f"replace the key in {Config().config_file} (api_key): `agentroute login`"


def test_a_key_nobody_can_send_is_told(openrouter, monkeypatch):
    monkeypatch.setenv("AGENTROUTE_API_KEY", "sk with spaces")
    result, report = told()
    assert result.exit_code == 1
    assert report["keys"][0]["problem"] == "holds spaces, control or non-ASCII characters; copy it again"
    assert "AGENTROUTE_API_KEY" in report["advice"]
    assert "authorization" not in openrouter.headers[0]


def test_an_endpoint_that_is_away_is_the_nearest_when_there_is_a_key():
    configure(api_key=KEY, openrouter_base_url=f"http://{closed_port()}/v1")
    result = run("doctor")
    assert result.exit_code == 1
    assert "there is a key, but 127.0.0.1:" in result.stdout
    assert "cannot be reached: check the network and the proxy settings." in result.stdout


def test_offline_asks_nobody_and_counts_a_key(openrouter):
    result, report = told("--offline")
    assert (result.exit_code, openrouter.paths) == (0, [])
    assert (report["openrouter"], report["ollama"], report["ways"]) == (None, None, ["any model at OpenRouter (key not checked)"])


def test_without_anything_the_nearest_way_is_said(monkeypatch):
    nobody_there()
    monkeypatch.setattr(doctor, "_packages", list)
    result = run("doctor")
    assert result.exit_code == 1
    assert "none found (AGENTROUTE_API_KEY, OPENROUTER_API_KEY, or `agentroute login`)" in result.stdout
    assert result.stdout.endswith("No model can be run. Nearest: `agentroute login` keeps an OpenRouter key (https://openrouter.ai/keys makes one).\n")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_an_open_config_file_is_warned_of(mode, openrouter):
    assert "Warning" not in run("doctor").stdout
    Config().config_file.chmod(mode)
    assert f"Warning: others on this machine may read or change it (mode {mode:04o}): chmod 600 {Config().config_file}" in run("doctor").stdout


def test_a_config_file_that_cannot_be_read_is_told():
    configure().write_bytes(b"\xff\xfe")
    assert "cannot be read (UnicodeDecodeError)" in run("doctor", "--offline").stdout


@pytest.mark.parametrize(
    ("page", "ways", "code"),
    [
        (b'{"data": [{"id": "llama3.2:1b"}, {"id": "qwen3"}]}', ["ollama/llama3.2:1b", "ollama/qwen3"], 0),
        (b'{"object": "list", "data": null}', [], 1),
    ],
)
def test_models_of_ollama_are_ways(page, ways, code, monkeypatch):
    nobody_there()
    with ModelServer([]) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.base_url.removesuffix("/v1"))
        server.pages["/v1/models"] = Raw(200, [page])
        result, report = told()
    assert (report["ollama"]["reachable"], report["ways"]) == (True, ways)
    assert result.exit_code == code
    assert server.headers[0].get("authorization") is None


def test_a_login_at_ollama_is_sent(monkeypatch):
    nobody_there()
    with ModelServer([]) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.base_url.removesuffix("/v1").replace("://", "://u:hush@"))
        server.pages["/v1/models"] = Raw(200, [b'{"data": [{"id": "qwen3"}]}'])
        result, report = told()
    assert (report["ways"], server.headers[0]["authorization"]) == (["ollama/qwen3"], "Basic dTpodXNo")
    assert "hush" not in result.output


def test_something_else_at_ollamas_place_is_no_way(monkeypatch):
    nobody_there()
    with ModelServer([]) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.base_url.removesuffix("/v1"))
        _, report = told()
    assert report["ollama"]["detail"] == "what answers there is no Ollama (status 404)"
    assert report["ways"] == []


def test_weights_on_this_machine_are_a_way(monkeypatch):
    nobody_there()
    monkeypatch.setattr(weights.Weights, "here", property(lambda self: True))
    monkeypatch.setattr(doctor, "_packages", lambda: [doctor.Package("xllamacpp", "1.0", "local")])
    assert told()[1]["ways"] == ["local/smollm2"]
    monkeypatch.setattr(doctor, "_packages", lambda: [doctor.Package("xllamacpp", None, "local")])
    assert told()[1]["advice"] == 'the weights of smollm2 are here; `pip install "agentroute[local]"` brings what runs them'


def test_packages_come_from_the_distribution_and_a_missing_one_names_its_extra(monkeypatch):
    _, report = told("--offline")
    assert {"name": "pandas", "extra": "notebook"}.items() <= next(p for p in report["packages"] if p["name"] == "pandas").items()
    assert {package["extra"] for package in report["packages"]} == {None, "notebook", "local"}
    monkeypatch.setattr(doctor, "_packages", lambda: [doctor.Package("pandas", None, "notebook")])
    assert '[notebook] not installed: pandas (pip install "agentroute[notebook]")' in run("doctor", "--offline").stdout


def test_the_history_is_measured(openrouter):
    assert "runs.db: not there yet" in run("doctor", "--offline").stdout
    with ModelServer(["Hi"]) as server:
        run("run", server.model, "Hi")
    _, report = told("--offline")
    assert report["history_runs"] == 1
    assert report["history_bytes"] > 0
    assert "runs.db: 1 run, " in run("doctor", "--offline").stdout


def test_a_damaged_history_is_told(openrouter, monkeypatch, tmp_path):
    (tmp_path / "runs.db").write_text("nonsense " * 200)
    monkeypatch.setenv("AGENTROUTE_RUNS", str(tmp_path / "runs.db"))
    result = run("doctor", "--offline")
    assert result.exit_code == 0
    assert "Warning: run history" in result.stdout
