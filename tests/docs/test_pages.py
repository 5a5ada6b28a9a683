"""The code in README and docs runs as it stands, against a server on loopback in place of the provider."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import agentroute
from agentroute import ToolCall
from tests.docs.tables import PAGE, columns_tables, with_tables
from tests.ipython.conftest import start_kernel  # noqa: F401
from tests.server import ModelServer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


WITH_CODE = [page for page in PAGES if blocks(page, "python")]


def answer(body: dict) -> object:
    """An order's state by way of its tool, a ticket where one is asked for, else a text."""
    names = [tool["function"]["name"] for tool in body.get("tools", [])]
    if "final_answer" in names:
        properties = body["tools"][-1]["function"]["parameters"]["properties"]
        return ToolCall("t", "final_answer", {name: "high" if name == "priority" else "text" for name in properties})
    if "order_status" in names and body["messages"][-1]["role"] == "user":
        return ToolCall("o", "order_status", {"order_id": 4821})
    return "Order 4821 left the warehouse today."


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, tmp_path):
    with ModelServer([answer], repeat=True) as server:
        (tmp_path / ".agentroute").mkdir()
        (tmp_path / ".agentroute" / "config").write_text(f"api_key=sk-test\nopenrouter_base_url={server.base_url}\n")
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", "\n".join(blocks(page, "python"))],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert run.returncode == 0, run.stderr


NOTEBOOK_LINE = re.compile(r"^.*# in a notebook: (.*)$", re.MULTILINE)
"""A line of a page, and after these words what stands in its place in a notebook."""


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_the_code_of_a_page_runs_in_a_notebook(page, start_kernel):  # noqa: F811
    """As cells of one real kernel, with the lines a notebook needs otherwise."""
    with ModelServer([answer], repeat=True) as server:
        session = start_kernel()
        home = Path(session.run("import os; print(os.environ['HOME'])").stdout.strip())
        (home / ".agentroute").mkdir()
        (home / ".agentroute" / "config").write_text(f"api_key=sk-test\nopenrouter_base_url={server.base_url}\n")
        for block in blocks(page, "python"):
            outcome = session.run(NOTEBOOK_LINE.sub(r"\1", block), timeout=60)
            assert outcome.status == "ok", f"{block}\n{outcome.traceback}"


def test_the_tests_of_the_testing_page_pass(tmp_path):
    code = "\n".join(blocks(ROOT / "docs" / "testing.md", "python"))
    (tmp_path / "test_page.py").write_text(code)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(re.findall('^def test_', code, re.MULTILINE))} passed" in run.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_says_to_install_this_name_from_an_index(page):
    """Until there is a release, a package of that name there is another product."""
    assert re.findall(r"pip install \"?agentroute.*", page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_of_a_page_exist(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_a_section_of_the_page_reach_one(page):
    text = page.read_text()
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    sections = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) - sections == set()


def test_the_tests_that_a_page_names_exist():
    named = {name for page in PAGES for name in re.findall(r"`(tests/[\w/]+\.py::\w+)`", page.read_text())}
    assert len(named) > 20
    missing = [name for name in named if f"def {name.split('::')[1]}(" not in (ROOT / name.split("::")[0]).read_text()]
    assert missing == []


def test_each_feature_of_the_notebook_links_tests_that_exist():
    rows = dict(re.findall(r"^\| (\d+) \| (.*)$", PAGE.read_text(), re.MULTILINE))
    assert list(rows) == [str(number) for number in range(1, 28)]
    linked = {number: re.findall(r"\[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\)", row) for number, row in rows.items()}
    assert [number for number, tests in linked.items() if not tests] == []
    named = {test for tests in linked.values() for test in tests}
    assert [(name, file) for name, file in named if f"\ndef {name}(" not in (ROOT / file).read_text()] == []


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code" and cell["outputs"]] == []


def test_tables_say_what_the_code_says():
    page = PAGE.read_text()
    assert with_tables(page) == page, "python -m tests.docs.tables writes them anew"


def test_columns_have_the_dtypes_the_table_tells(tmp_path):
    frames = {"runs": agentroute.runs, "turns": agentroute.turns, "tool_calls": agentroute.tool_calls, "messages": agentroute.messages}
    for name, frame in frames.items():
        told = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", columns_tables().split(f"`agentroute.{name}()`")[1].split("**`")[0], re.MULTILINE)
        found = frame(tmp_path / "none.db").dtypes
        assert [(column, str(dtype).replace("object", "str")) for column, dtype in found.items()] == told
