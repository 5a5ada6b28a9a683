"""`%%agent a,b`, `--models` and `-n`: cells with several runs."""

import json

import pytest

from agentroute.records import RunRecord
from agentroute.testing import ModelFunction
from tests.ipython.shells import ShellNotebook


@pytest.fixture
def notebook(shell_notebook: ShellNotebook) -> ShellNotebook:
    shell_notebook["other"] = ModelFunction(lambda request: "other answer", model_id="other")
    return shell_notebook


def test_each_agent_is_asked(notebook: ShellNotebook) -> None:
    notebook.run("%%agent one -m scripted --define\nBe one.")
    notebook.run("%%agent two -m other --define\nBe two.")
    notebook.run("%%agent one,two --as answers\nhi")
    assert [result.output for result in notebook["answers"]] == ["A1", "other answer"]
    assert notebook["_agent"] is notebook["answers"]
    assert list(notebook["answers"].frame["agent"]) == ["one", "two"]


def test_each_model_is_asked_so_often(notebook: ShellNotebook) -> None:
    shown = notebook.run("%%agent bot --models scripted,other -n 2\nhi")
    assert sorted(result.output for result in notebook["_agent"]) == ["A1", "A2", "other answer", "other answer"]
    assert list(notebook["_agent"].frame["model"]) == ["scripted", "scripted", "other", "other"]
    for label in ("scripted #1", "scripted #2", "other #1", "other #2"):
        assert label in shown


def test_runs_that_are_compared_are_recorded_under_one_id(notebook: ShellNotebook) -> None:
    notebook.run("%%agent bot --models scripted,other --tag topic=x\nhi")
    notebook.run("%%agent bot -n 2\nhi")
    tags = [json.loads(row[0]) for row in notebook.magics.store.select(RunRecord, columns=["tags"])]
    assert len(tags) == 4 and len({tag["comparison"] for tag in tags}) == 2
    assert tags[0]["comparison"] == tags[1]["comparison"] and tags[0]["topic"] == "x"
    assert sorted(tag["position"] for tag in tags) == ["1", "1", "2", "2"]


def test_diff_of_samples_shows_what_was_changed(notebook: ShellNotebook) -> None:
    notebook.run("%%agent bot -m scripted -n 3\nprompt one")
    notebook.run("%%agent bot -n 3\nprompt two")
    assert "prompt [-one-]{+two+}" in notebook.run("%agent diff")


def test_diff_says_that_the_last_run_was_not_recorded(notebook: ShellNotebook) -> None:
    for prompt in ("one", "two"):
        notebook.run(f"%%agent bot -m scripted\nprompt {prompt}")
    assert "not recorded" not in notebook.run("%agent diff")
    notebook.run("%%agent bot --no-record\nprompt three")
    shown = notebook.run("%agent diff")
    assert "prompt [-one-]{+two+}" in shown and "a later run of this notebook was not recorded here" in shown


def test_a_cell_that_defines_an_agent_compares_it(notebook: ShellNotebook) -> None:
    notebook.run("%%agent bot --models scripted,other --max-turns 3\nBe brief.\n---\nhi")
    assert notebook.asked == [("system", "Be brief."), ("user", "hi")]
    assert "max_turns     3" in notebook.run("%agent show bot")
    assert "model         scripted" in notebook.run("%agent show bot")


def test_one_that_fails_keeps_the_others_and_fails_the_cell(notebook: ShellNotebook) -> None:
    def fail(request: object) -> str:
        raise RuntimeError("broken")

    notebook["broken"] = ModelFunction(fail, model_id="broken")
    outcome = notebook.cell("%%agent bot --models scripted,broken\nhi")
    assert not outcome.success
    assert notebook["_agent"][0].output == "A1"
    assert list(notebook["_agent"].frame["status"]) == ["ok", "error"]


def test_too_many_runs_are_a_mistake(notebook: ShellNotebook) -> None:
    message = notebook.mistake("%%agent bot --models scripted,other -n 7\nhi")
    assert message == "14 runs in one cell are too many to compare; at most 12 are run at once"


def test_instructions_belong_to_one_agent(notebook: ShellNotebook) -> None:
    notebook.run("%%agent one -m scripted --define\nBe one.")
    assert "define each in a cell of its own" in notebook.mistake("%%agent one,two -m scripted\nBe brief.\n---\nhi")
    assert "define each in a cell of its own" in notebook.mistake("%%agent one,two -m scripted --define\nBe brief.")


@pytest.mark.parametrize("option", ["--models scripted,other", "-n 2", "--background", "--approval deny", "--dry-run"])
def test_what_needs_a_run_is_refused_where_none_is(notebook: ShellNotebook, option: str) -> None:
    assert "needs a run, and --define runs nothing" in notebook.mistake(f"%%agent bot {option} --define\nhi")


def test_an_unknown_agent_among_several_asks_nobody(notebook: ShellNotebook) -> None:
    notebook.run("%%agent one -m scripted --define\nBe one.")
    assert "did you mean one?" in notebook.mistake("%%agent one,onee\nhi")


@pytest.mark.parametrize(("models", "meant"), [("GOOD,GOODD", "GOOD"), ("GOOD2,GOOD22", "GOOD2"), ("scripted,otherr", "other")])
def test_a_misspelt_model_among_several_asks_nobody(notebook: ShellNotebook, models: str, meant: str) -> None:
    notebook["GOOD"], notebook["GOOD2"] = "http://127.0.0.1:9/v1/m1", "vendor/model-2"
    assert f"did you mean {meant}?" in notebook.mistake(f"%%agent bot --models {models}\nhi")
