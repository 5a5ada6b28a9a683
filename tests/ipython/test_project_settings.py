"""`[tool.agentroute]` of a project's pyproject.toml: found, checked, and never more than the user allows."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from agentroute import ErrorConfig, set_budget
from agentroute.budgets import process_budget
from agentroute.replays import replay_now
from agentroute_ipython import load_ipython_extension, project_settings, unload_ipython_extension
from agentroute_ipython.magics import AgentMagics
from agentroute_ipython.project_settings import SETTINGS, ProjectSettings, apply, read

ALL = """
[project]
name = "mine"
[tool.agentroute]
model = "anthropic/claude-sonnet-4"
replay = "off"
approval = "deny"
max_cost = 0.25
budget = 5
record = "metadata"
render = "text"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder under a home, with a folder inside that is worked in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "project" / "notebooks" / "deep").mkdir(parents=True)
    return tmp_path / "project"


def write(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


@pytest.fixture
def magics() -> Iterator[AgentMagics]:
    shell = InteractiveShell.instance()
    yield AgentMagics(shell)
    set_budget(None)
    InteractiveShell.clear_instance()


def test_every_setting_is_read_from_the_nearest_file_above(project):
    path = write(project, ALL)
    found = read(project / "notebooks" / "deep")
    assert (found.path, found.not_taken) == (path, ())
    assert tuple(found.values) == SETTINGS
    assert found.values["max_cost"] == 0.25


def test_a_nearer_file_hides_the_one_above(project):
    write(project, ALL)
    write(project / "notebooks", "[project]\nname = 'other'\n")
    assert read(project / "notebooks" / "deep") == ProjectSettings()


def test_above_the_home_directory_nothing_is_looked_for(project, monkeypatch):
    write(project, ALL)
    monkeypatch.setenv("HOME", str(project / "notebooks"))
    assert read(project / "notebooks" / "deep") == ProjectSettings()
    assert read(project).values


def test_a_project_outside_the_home_directory_is_found(project, monkeypatch):
    write(project, ALL)
    monkeypatch.setenv("HOME", "/nowhere")
    assert read(project / "notebooks").values


@pytest.mark.parametrize(
    "text",
    [
        "[tool.agentroute]\nmodel = 'a/b'",
        "[ tool . agentroute ]\nmodel = 'a/b'",
        '[tool."agentroute"]\nmodel = "a/b"',
        "[tool]\nagentroute.model = 'a/b'",
        "tool.agentroute.model = 'a/b'",
        "[tool]\nagentroute = {model = 'a/b'}",
        "tool = {agentroute = {model = 'a/b'}}",
    ],
)
def test_the_table_is_found_however_it_is_written(project, text):
    write(project, text)
    assert read(project).values == {"model": "a/b"}


@pytest.mark.parametrize("text", ["", "[project]\ndependencies = ['agentroute==1', 'agentroute[notebook]>=2', 'agentroute']", "[tool.black]\nx = 1"])
def test_toml_is_not_loaded_where_there_is_no_table(project, text):
    write(project, text)
    program = (
        "import sys; from pathlib import Path; from agentroute_ipython.project_settings import read;"
        f"print(read(Path({str(project)!r})).values, 'tomllib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "{} False\n"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("aproval", "approval"), ("modle", "model"), ("max-cost", "max_cost"), ("bugdet", "budget"), ("rekord", "record"), ("rendering", "render")],
)
def test_an_unknown_setting_names_the_file_and_the_nearest(project, written, meant):
    path = write(project, f"[tool.agentroute]\n{written} = 1")
    with pytest.raises(ErrorConfig) as caught:
        read(project)
    assert str(caught.value) == f"{path}: [tool.agentroute] has no setting {written!r}; did you mean {meant}?"


def test_a_setting_like_none_lists_them_all(project):
    write(project, "[tool.agentroute]\napi_key = 'sk-secret'")
    with pytest.raises(ErrorConfig, match="there are model, replay, approval") as caught:
        read(project)
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("model = 3", "model must name a model"),
        ("model = ' '", "model must name a model"),
        ("max_cost = nan", "max_cost must be a number"),
        ("budget = inf", "budget must be a number"),
        ("max_cost = true", "max_cost must be a number"),
        ("max_cost = '1'", "expected a float"),
        ("max_cost = -1", "max_cost"),
        ("budget = -1", "budget"),
        ("approval = 'ask'", "approval must be one of auto, button, input, deny, allow"),
        ("approval = ['deny']", "approval must be one of"),
        ("replay = 'onn'", "did you mean on?"),
        ("record = true", "record must be one of all, metadata, off"),
        ("render = 'htm'", "did you mean html?"),
    ],
)
def test_a_wrong_value_is_refused_in_the_words_of_the_trait(project, magics, line, wanted):
    path = write(project, f"[tool.agentroute]\n{line}")
    with pytest.raises(ErrorConfig) as caught:
        apply(read(project), magics)
    assert wanted in str(caught.value)
    assert str(caught.value).startswith(f"{path}: [tool.agentroute] ")


def test_no_table_under_that_name_is_refused(project):
    write(project, "[tool]\nagentroute = 3")
    with pytest.raises(ErrorConfig, match="must be a table"):
        read(project)


@pytest.mark.parametrize(
    "text", ["[tool.agentroute]\nmodel = ", "[tool.agentroute\nbudget = 1", "[tool agentroute]\nbudget = 1", "[Tool.Agent-Route\nbudget = 1", "\ufeff[tool.agentroute]", "[tool.agentroute]\n\udcff", "agentroute = " + "[" * 100_000]
)
def test_a_file_that_is_no_toml_is_told_and_left_out(project, magics, capsys, text):
    path = write(project, text)
    found = read(project)
    assert found.values == {}
    apply(found, magics)
    assert capsys.readouterr().err.startswith(f"agentroute: {path} cannot be read, so its settings are left out: ")


@pytest.mark.parametrize(
    "name", ["tool.AgentRoute", "tool.agent_route", "tool.agent-route", "agentroute", "AgentRoute", "tools.agentroute", "Tool.agentroute"]
)
def test_a_misspelt_table_is_told(project, magics, capsys, name):
    path = write(project, f"[{name}]\nbudget = 1\n")
    apply(read(project), magics)
    assert capsys.readouterr().err == f"agentroute: {path}: nobody reads [{name}]; did you mean [tool.agentroute]?\n"
    write(project, f"[{name}]\nbudget = 1\n[tool.agentroute]\nmax_cost = 2\napproval = 'allow'\n")
    found = read(project)
    assert (found.values, len(found.not_taken)) == ({"max_cost": 2}, 2)


@pytest.mark.parametrize(
    "text", ["[tool.uv.sources]\nagentroute = {path = 'x'}", "[tool.poetry.dependencies.agentroute]\nversion = '1'", "[project.scripts]\nagentroute = 'x:y'"]
)
def test_the_package_may_be_named_elsewhere(project, text):
    write(project, text)
    assert read(project) == ProjectSettings()


# ---- whose word counts ------------------------------------------------------------------------------------------


def settings_of(magics: AgentMagics) -> dict[str, object]:
    return {name: getattr(magics, name) for name in SETTINGS}


def test_settings_become_those_of_the_magics(project, magics, capsys):
    write(project, ALL)
    apply(read(project), magics)
    assert settings_of(magics) == {
        "model": "anthropic/claude-sonnet-4", "replay": "off", "approval": "deny", "max_cost": 0.25, "budget": 5.0,
        "record": "metadata", "render": "text",
    }  # fmt: skip
    assert capsys.readouterr() == ("", "")


def test_what_the_configuration_of_ipython_says_comes_first(project):
    write(project, ALL)
    shell = InteractiveShell.instance()
    try:
        shell.config = Config(AgentMagics={"model": "local/smollm2", "approval": "allow", "max_cost": 0.01, "replay": "only"})
        magics = AgentMagics(shell)
        apply(read(project), magics)
        assert (magics.model, magics.approval, magics.max_cost, magics.replay) == ("local/smollm2", "allow", 0.01, "only")
        assert (magics.budget, magics.record) == (5.0, "metadata")
    finally:
        set_budget(None)
        InteractiveShell.clear_instance()


def test_a_budget_that_is_set_already_and_the_environment_come_first(project, magics, monkeypatch):
    write(project, ALL)
    set_budget(0.5)
    monkeypatch.setenv("AGENTROUTE_REPLAY", "only")
    apply(read(project), magics)
    assert (magics.budget, magics.replay) == (0.5, "only")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("approval = 'allow'", "approval"),
        ("model = 'https://evil.example/v1/model'", "model"),
        ("model = ' HTTP://evil.example/v1/model'", "model"),
        ("model = 'local/weights/evil.gguf'", "model"),
        ("model = 'local/EVIL.GGUF '", "model"),
    ],
)
def test_what_would_let_a_cloned_project_do_more_is_not_taken_and_told(project, magics, capsys, line, name):
    path = write(project, f"[tool.agentroute]\nrender = 'text'\n{line}")
    before = settings_of(magics)
    apply(read(project), magics)
    assert settings_of(magics) == before | {"render": "text"}
    err = capsys.readouterr().err
    assert err.startswith(f"agentroute: {path}: {name} = ")
    assert err.count("\n") == 1 and "is not taken from a project" in err


def test_a_password_in_a_url_is_not_repeated(project, magics, capsys):
    write(project, "[tool.agentroute]\nmodel = 'https://user:secret-word@host.example/v1/model'")
    apply(read(project), magics)
    assert "secret-word" not in capsys.readouterr().err


def test_a_file_of_another_user_is_not_read(project, monkeypatch):
    path = write(project, ALL)
    monkeypatch.setattr(project_settings, "ADMINISTRATOR", -1)
    assert read(project).values
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    assert read(project).values == {}
    assert "belongs to another user" in read(project).not_taken[0]


def test_what_is_no_file_is_passed_over(project):
    (project / "pyproject.toml").mkdir()
    os.mkfifo(project / "notebooks" / "pyproject.toml")
    assert read(project / "notebooks") == ProjectSettings()


# ---- loading ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A shell that works in the project."""
    monkeypatch.chdir(project / "notebooks")
    yield InteractiveShell.instance()
    unload_ipython_extension(InteractiveShell.instance())
    set_budget(None)
    InteractiveShell.clear_instance()


def test_loading_the_extension_heeds_the_project(project, shell):
    write(project, ALL)
    load_ipython_extension(shell)
    magics = shell.magics_manager.registry["AgentMagics"]
    assert (magics.model, magics.max_cost, replay_now()) == ("anthropic/claude-sonnet-4", 0.25, "off")
    assert magics.store.keeping.content == "metadata"
    assert process_budget().limit == 5


@pytest.mark.parametrize("line", ["aproval = 'deny'", "approval = 'denny'"])
def test_a_mistake_in_the_project_is_told_and_nothing_is_loaded(project, shell, line):
    path = write(project, f"[tool.agentroute]\nbudget = 5\n{line}")
    with pytest.raises(UsageError, match="did you mean") as caught:
        load_ipython_extension(shell)
    assert str(path) in str(caught.value)
    assert "agent" not in shell.magics_manager.magics["cell"]
    assert not any(isinstance(one, AgentMagics) for one in shell.configurables)
    assert process_budget() is None


def test_in_a_folder_that_is_gone_it_loads_all_the_same(project, shell):
    os.rmdir(project / "notebooks" / "deep")
    os.rmdir(project / "notebooks")
    load_ipython_extension(shell)
    assert shell.magics_manager.registry["AgentMagics"].project == ProjectSettings()
