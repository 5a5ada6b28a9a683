"""`%%agent a,b`, `--models`, `-n` and `%agent diff` through the real magic: in a shell of this process and in a kernel."""

import json

import pytest
from IPython.core.interactiveshell import InteractiveShell

from agentroute import Agent
from agentroute.records import RunRecord
from agentroute.store import default_store
from agentroute.testing import ModelFunction, ModelScripted
from agentroute_ipython.comparison import ErrorComparison, Results
from tests.ipython.kernels import Session
from tests.ipython.shells import ShellNotebook

SETUP = """
%load_ext agentroute_ipython
from agentroute import Agent
from agentroute.testing import ModelScripted
a = Agent("a", model=ModelScripted(["It left today."] * 9, model_id="vendor/a"))
b = Agent("b", model=ModelScripted(["It left yesterday."] * 9, model_id="vendor/b"))
slow = Agent("slow", model=ModelScripted(["never"] * 9, delay_s=60))
"""


@pytest.fixture
def notebook(shell_notebook: ShellNotebook, plain_shell: InteractiveShell) -> ShellNotebook:
    shell_notebook["a"] = Agent("a", model=ModelScripted(["one", "three"], model_id="vendor/a"))
    shell_notebook["b"] = Agent("b", model=ModelScripted(["two"], model_id="vendor/b"))
    return shell_notebook


def tags() -> list[str | None]:
    store = default_store()
    assert store is not None
    return [tags for (tags,) in store.select(RunRecord, columns=["tags"])]


def test_several_agents_are_compared_and_kept_as_results(notebook: ShellNotebook) -> None:
    printed = notebook.run("%%agent a,b --as both\nhi")
    assert type(notebook["_agent"]) is Results and notebook["both"] is notebook["_agent"]
    assert [result.output for result in notebook["both"]] == ["one", "two"]
    assert notebook["both"].labels == ["a", "b"]
    assert "2 answers, no two the same" in printed
    recorded = [json.loads(text or "{}") for text in tags()]
    assert len({one["comparison"] for one in recorded}) == 1 and sorted(one["position"] for one in recorded) == ["1", "2"]


def test_models_and_samples_make_a_run_each(notebook: ShellNotebook) -> None:
    for name in ("first", "second"):
        notebook[name] = ModelFunction(lambda request: "same", model_id=f"vendor/{name}")
    notebook.run("%%agent quick --models first,second -n 2\nhi")
    results = notebook["_agent"]
    assert len(results) == len(set(results.labels)) == 4
    assert [result.output for result in results] == ["same"] * 4
    assert results.frame["sample"].tolist() == [1, 2, 1, 2]


def test_failure_of_one_fails_the_cell_and_keeps_the_others(notebook: ShellNotebook) -> None:
    notebook.run("%%agent b\nhi")  # which has no second answer
    error = notebook.cell("%%agent a,b\nhi").error_in_exec
    assert type(error) is ErrorComparison
    assert [result.output for result in notebook["_agent"]] == ["one", None]


def test_diff_compares_the_last_two_runs(notebook: ShellNotebook) -> None:
    assert "no run of this notebook is recorded yet" in notebook.run("%agent diff")
    notebook.run("%%agent a\nhi")
    assert "only one run" in notebook.run("%agent diff")
    notebook.run("%%agent a\nhi there")
    printed = notebook.run("%agent diff")
    assert "hi{+ there+}" in printed and "[-one-]{+three+}" in printed


def test_diff_of_a_run_that_is_not_there_is_a_mistake(notebook: ShellNotebook) -> None:
    notebook.run("%%agent a\nhi")
    assert "no run has the id 01M8" in notebook.mistake("%agent diff 01M8ZZZZ 01M8YYYY")


def test_kernel_draws_one_output_and_stop_keeps_what_was_done(kernel: Session) -> None:
    assert kernel.run(SETUP).status == "ok"
    done = kernel.run("%%agent a,b\nWhere is it?", cell_id="compared")
    assert done.status == "ok" and len(done.outputs) == 1
    assert "[removed: " in done.outputs[0]["text/html"]
    cell = kernel.start("%%agent a,slow\nWhere is it?")
    cell.wait_for_output("1 of 2 runs has ended")
    kernel.interrupt()
    stopped = cell.outcome()
    assert "Interrupted: the comparison was stopped" in stopped.traceback
    assert kernel.evaluate("[r.output for r in _agent]") == ["It left today.", None]
    assert kernel.evaluate("_agent.frame['status'].tolist()") == ["ok", "interrupted"]
