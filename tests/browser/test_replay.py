"""Restart & Run All in JupyterLab."""

import json
from contextlib import closing
from typing import Any

import nbformat

from agentroute import RunStore
from agentroute.records import RunRecord
from tests.browser.lab import Lab, NotebookPage, read_notebook
from tests.ipython.test_replay import CELLS, REQUESTS, SETUP, provider


def saved(page: NotebookPage) -> nbformat.NotebookNode:
    return read_notebook(page.save())


def outputs(notebook: nbformat.NotebookNode) -> list[Any]:
    return [cell.outputs for cell in notebook.cells]


def test_restart_and_run_all_sends_nothing_and_saves_the_same(lab: Lab) -> None:
    with provider() as server:
        cells = [
            SETUP.replace("{model!r}", repr(server.model)),
            *(cell.replace("{model}", server.model) for cell in CELLS.values()),
        ]
        path = lab.write("replayed.ipynb", cells)
        with lab.open("replayed.ipynb") as page:
            page.run_all()
            paid = outputs(saved(page))
            assert len(server.requests) == sum(REQUESTS.values())
            page.restart_and_run_all()
            first = saved(page)
            page.restart_and_run_all()
            second = saved(page)
            assert len(server.requests) == sum(REQUESTS.values())
            assert json.dumps(outputs(first)) == json.dumps(outputs(second))
            assert [len(shown) for shown in outputs(first)] == [len(shown) for shown in paid]
            assert "replayed, saved $0.0020" in json.dumps(outputs(first))
            page.run_cell(6)
            assert len(server.requests) == sum(REQUESTS.values()) + 1
    with closing(RunStore(lab.notebooks.parent / "runs.sqlite")) as store:
        rows = set(store.select(RunRecord, columns=["notebook", "cell_id"]))
    assert {row for row in rows if row[0] == str(path)} == {(str(path), cell.id) for cell in first.cells[1:]}
