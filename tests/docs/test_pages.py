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
            timeout=60,
        )
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_of_a_page_exist(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


def test_the_tests_that_a_page_names_exist():
    named = {name for page in PAGES for name in re.findall(r"`(tests/[\w/]+\.py::\w+)`", page.read_text())}
    assert len(named) > 20
    missing = [name for name in named if f"def {name.split('::')[1]}(" not in (ROOT / name.split("::")[0]).read_text()]
    assert missing == []


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
