"""`%agent doctor`: what it finds out about the notebook, and that it shows no key."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell

from agentroute import set_budget
from agentroute.models import catalogue
from agentroute.models.openrouter import kept_file
from agentroute_ipython import load_ipython_extension, unload_ipython_extension
from agentroute_ipython.doctor import doctor_table, frontend
from agentroute_ipython.magics import AgentMagics
from agentroute_ipython.project_settings import apply, read
from tests.ipython.conftest import StartKernel
from tests.server import ModelServer, Raw

KEY = "sk-or-v1-0123456789abcdef0123456789abcdef"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pyproject.toml"
    path.write_text("[tool.agentroute]\nmax_cost = 0.25\nrender = 'text'\nreplay = 'only'\nmodel = 'https://host.example/v1/m'\n")
    return path


@pytest.fixture
def magics(monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentMagics]:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY[::-1])
    shell = InteractiveShell.instance()
    load_ipython_extension(shell)
    yield shell.magics_manager.registry["AgentMagics"]
    unload_ipython_extension(shell)
    set_budget(None)
    InteractiveShell.clear_instance()


def report(magics: AgentMagics, rest: str = "--offline") -> dict[str, str]:
    return {row[0]: row[1] for row in doctor_table(magics, rest).rows}


def test_it_says_what_the_command_line_says_and_what_the_notebook_can_do(magics):
    found = report(magics)
    assert list(found) == [
        "agentroute", "Notebook", "Approval", "Settings", "Recording", "Model list", "Packages", "Keys", "Endpoints",
        "Models on this machine", "Run history", "Result",
    ]  # fmt: skip
    assert "shown by: a terminal" in found["Notebook"]
    assert "denied: nobody is there to answer" in found["Approval"]
    assert "pandas" in found["Packages"] and "ipywidgets" in found["Packages"]
    assert found["Endpoints"] == "not asked (--offline)"


def test_no_part_of_a_key_is_shown_in_text_or_html(magics):
    table = doctor_table(magics, "--offline")
    shown = repr(table) + table._repr_html_()
    assert "OPENROUTER_API_KEY: used" in shown
    assert KEY[8:20] not in shown and KEY[::-1][:12] not in shown


def test_each_setting_is_told_with_where_it_comes_from(project, magics, monkeypatch):
    magics.shell.run_line_magic("config", "AgentMagics.record = 'metadata'")
    magics.approval = "deny"
    settings = report(magics)["Settings"].splitlines()
    assert settings[:7] == [
        "model = none  (default)",
        f"replay = only  ({project})",
        "approval = deny  (set in this notebook)",
        f"max_cost = $0.2500  ({project})",
        "budget = none  (default)",
        "record = metadata  (%config)",
        f"render = text  ({project})",
    ]
    assert settings[7].startswith(f"{project}: model = 'https://host.example/v1/m' is not taken from a project")
    assert "every call that needs it is denied" in report(magics)["Approval"]


def test_names_of_files_and_values_of_a_project_are_visible(magics, tmp_path, capsys):
    folder = tmp_path / "\u202e<b>\x1b]0;x\x07"
    folder.mkdir()
    path = folder / "pyproject.toml"
    path.write_text('[tool.agentroute]\nmodel = "\\u202em"\napproval = "allow"\n')
    magics.project = read(folder)
    apply(magics.project, magics)
    magics.shell.user_ns["__vsc_ipynb_file__"] = f"{folder}/x.ipynb"
    table = doctor_table(magics, "--offline")
    for shown in (repr(table), table._repr_html_(), capsys.readouterr().err):
        assert r"\u202e" in shown and not {"\u202e", "\x1b", "\x07"} & set(shown)
    assert "<b>" not in table._repr_html_()


def test_the_environment_is_named_as_a_source(magics, monkeypatch):
    monkeypatch.setenv("AGENTROUTE_REPLAY", "only")
    magics.replay = "only"
    assert "replay = only  ($AGENTROUTE_REPLAY)" in report(magics)["Settings"]


def test_where_runs_are_kept_or_that_they_are_not(magics):
    assert report(magics)["Recording"] == f"all of each run, in {magics.store.path}"
    magics.record = "off"
    assert report(magics)["Recording"] == "nothing is recorded"


def test_the_list_of_models_is_told_with_its_date(magics):
    for remembered in (catalogue._kept, catalogue._listed):
        remembered.cache_clear()
    kept_file().parent.mkdir(parents=True, exist_ok=True)
    kept_file().write_text(json.dumps({"at": time.mktime((2026, 11, 1, 12, 0, 0, 0, 0, -1)), "base_url": "https://openrouter.ai/api/v1", "models": [{"id": "a/b"}]}))
    assert report(magics)["Model list"] == "1 model to complete, from openrouter.ai, 2026-11-01 12:00"


def test_a_password_in_a_model_url_is_not_shown(magics):
    magics.model = "https://user:secret-word@host.example/v1/m"
    table = doctor_table(magics, "--offline")
    assert "secret-word" not in repr(table) + table._repr_html_()


def test_endpoints_are_asked_unless_it_is_to_stay_offline(magics, monkeypatch):
    with ModelServer([]) as server:
        root = server.base_url.removesuffix("/v1")
        server.pages["/v1/models"] = Raw(200, [b'{"data": [{"id": "llama3.2"}]}'])
        server.pages["/v1/key"] = Raw(200, [b'{"data": {"limit_remaining": 3}}'])
        monkeypatch.setenv("OLLAMA_HOST", root)
        monkeypatch.setattr("agentroute.cli.doctor.TIMEOUT_S", 60)
        config = kept_file().parent / "config"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(f"openrouter_base_url={server.base_url}\n")
        config.chmod(0o600)
        report(magics)
        assert server.paths == []
        asked = report(magics, "")
        assert sorted(server.paths) == ["/v1/key", "/v1/models"]
    assert "llama3.2" in asked["Endpoints"] and "accepts the key" in asked["Endpoints"]
    assert "ollama/llama3.2" in asked["Result"]


@pytest.mark.parametrize(
    ("variables", "names", "asks", "expected"),
    [
        ({"JPY_SESSION_NAME": "/a/b.ipynb"}, {}, True, "Jupyter Server (JupyterLab or Notebook)"),
        ({"VSCODE_PID": "1"}, {}, True, "VS Code"),
        ({}, {"__vsc_ipynb_file__": "/a/b.ipynb"}, True, "VS Code"),
        ({"COLAB_RELEASE_TAG": "x"}, {}, True, "Colab"),
        ({}, {}, False, "unknown, nobody can be asked there: a program such as papermill, nbclient or nbconvert"),
        ({}, {}, True, "unknown: a console, or a frontend that does not tell"),
    ],
)
def test_the_frontend_is_told_as_far_as_it_is_known(monkeypatch, variables, names, asks, expected):
    for name in ("JPY_SESSION_NAME", "VSCODE_PID", "VSCODE_CWD", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert frontend(SimpleNamespace(user_ns=names, kernel=SimpleNamespace(_allow_stdin=asks))) == expected


def test_the_configuration_file_is_named_as_a_source(start_kernel: StartKernel):
    kernel = start_kernel()
    path = kernel.folder / ".ipython" / "profile_default" / "ipython_kernel_config.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("c.AgentMagics.approval = 'input'\nc.InteractiveShellApp.extensions = ['agentroute_ipython']\n")
    kernel.restart()
    kernel.run("%config AgentMagics.render = 'html'")
    shown = kernel.run("%agent doctor --offline").outputs[0]["text/plain"]
    assert f"approval = input  ({path})" in shown
    assert "render = html  (%config)" in shown


def test_in_a_kernel_it_is_a_table_that_says_how_a_call_would_be_asked_for(start_kernel: StartKernel):
    kernel = start_kernel(env={"OPENROUTER_API_KEY": KEY})
    kernel.run("%load_ext agentroute_ipython")
    nobody, somebody = kernel.run("%agent doctor --offline"), kernel.run("%agent doctor --offline", answers=[])
    (output,) = nobody.outputs
    assert "<table" in output["text/html"] and "<script" not in output["text/html"]
    assert KEY[8:20] not in nobody.text
    assert "input() is answered by nobody here" in output["text/plain"]
    assert "asked by buttons, also while a cell runs" in somebody.outputs[0]["text/plain"]
    assert "replay = on  (default)" in output["text/plain"]
    assert kernel.run("%agent doctor --oflin").evalue == "%agent doctor takes --offline only, got '--oflin'; did you mean --offline?"
