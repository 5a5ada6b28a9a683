"""Notebooks as documents: run by nbclient and papermill, which nobody watches, and made into HTML and PDF."""

import asyncio
import json
import re
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from agentroute import ToolCall
from tests.browser.lab import CHROMIUM_OPTIONS, chromium
from tests.ipython.sandbox import kernel_environment, unix_sockets
from tests.server import ModelServer

SETUP = """
%load_ext agentroute_ipython
from agentroute import Agent, tool

def order_status(order_id: str) -> dict:
    "Where an order is."
    return {"status": "shipped", "carrier": "DHL", "days_late": 2}

@tool(needs_approval=True)
def refund(order_id: str, amount: float) -> str:
    "Pays money back."
    open("refunded", "w").close()
    return "refunded"
"""
SUPPORT = """%%agent support --model {model} --tools order_status --max-cost 1
You are a concise, accurate support agent.
---
Where is order 4821?"""
PAYS = "%%agent payer --model {model} --tools refund\nPay 4.90 USD back for order 4821."
ANSWER = "Order **4821** left on Tuesday with DHL.\n\nIt is two days late."
LOOK = ToolCall("1", "order_status", {"order_id": "4821"})
PAY = ToolCall("1", "refund", {"order_id": "4821", "amount": 4.9})

Execute = Callable[[nbformat.NotebookNode, Path], nbformat.NotebookNode]


def with_nbclient(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    with unix_sockets() as config:
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(notebook, kernel_name="python3", timeout=60, resources=resources, config=config)
        asyncio.run(client.async_execute())
    return notebook


def with_papermill(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    nbformat.write(notebook, folder / "in.ipynb")
    execute_in(folder, {})
    return nbformat.read(folder / "out.ipynb", as_version=4)


def execute_in(folder: Path, parameters: dict[str, int]) -> None:
    """Papermill, from in.ipynb to out.ipynb."""
    options = {"kernel_name": "python3", "progress_bar": False, "cwd": str(folder), "execution_timeout": 60}
    with unix_sockets() as config:
        papermill.execute_notebook(folder / "in.ipynb", folder / "out.ipynb", parameters, config=config, **options)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a notebook runs; its kernel has its home there, too."""
    for name, value in kernel_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture(params=[with_nbclient, with_papermill])
def execute(request: pytest.FixtureRequest) -> Execute:
    return request.param  # type: ignore[no-any-return]


def document(*cells: str) -> nbformat.NotebookNode:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (SETUP, *cells)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def shown(cell: nbformat.NotebookNode) -> dict[str, str]:
    """The one card of a cell."""
    (output,) = cell.outputs
    assert set(output.data) == {"text/html", "text/plain"}
    return dict(output.data)


def test_last_state_is_saved_small(execute: Execute, folder: Path) -> None:
    with ModelServer([LOOK, ANSWER]) as server:
        notebook = execute(document(SUPPORT.format(model=server.model)), folder)
    card = shown(notebook.cells[-1])
    assert "done, 2 model calls, 1 tool call" in card["text/plain"]
    assert "It is two days late." in card["text/html"]
    assert 'order_status(order_id="4821")' in card["text/plain"]
    assert "running" not in re.sub("<style>.*?</style>", "", card["text/html"], flags=re.DOTALL)
    assert sum(len(part.encode()) for part in card.values()) <= 10_000


def test_second_run_asks_nothing_and_is_saved_the_same(execute: Execute, folder: Path) -> None:
    with ModelServer([LOOK, ANSWER]) as server:
        cell = SUPPORT.format(model=server.model)
        execute(document(cell), folder)
        first = execute(document(cell), folder)
        second = execute(document(cell), folder)
        assert len(server.requests) == 2
    assert "replayed, saved $0.0020" in shown(first.cells[-1])["text/plain"]
    assert shown(second.cells[-1]) == shown(first.cells[-1])


def test_failed_run_fails_the_notebook_and_what_follows_is_not_run(execute: Execute, folder: Path) -> None:
    with ModelServer([LOOK], repeat=True) as server:
        cell = SUPPORT.replace("--max-cost 1", "--max-turns 2").format(model=server.model)
        with pytest.raises(Exception, match="ErrorMaxTurns: turn 3 would pass max_turns=2") as caught:
            execute(document(cell, "open('reached', 'w').close()"), folder)
    assert caught.value.ename == "ErrorMaxTurns"  # type: ignore[attr-defined]
    assert not (folder / "reached").exists()


def test_papermill_saves_what_a_failed_run_did(folder: Path) -> None:
    with ModelServer([LOOK], repeat=True) as server:
        cell = SUPPORT.replace("--max-cost 1", "--max-turns 2").format(model=server.model)
        with pytest.raises(PapermillExecutionError):
            with_papermill(document(cell), folder)
    saved = nbformat.read(folder / "out.ipynb", as_version=4)
    (card, error) = saved.cells[-1].outputs
    assert "failed, 2 model calls, 2 tool calls" in card.data["text/plain"]
    assert error.ename == "ErrorMaxTurns"


def test_call_that_needs_approval_is_denied_in_words_where_nobody_can_be_asked(execute: Execute, folder: Path) -> None:
    with ModelServer([PAY, "I may not."]) as server:
        notebook = execute(document(PAYS.format(model=server.model)), folder)
        told = json.dumps(server.requests[1]["messages"][-1])
    assert not (folder / "refunded").exists()
    assert "nobody" in told
    words = "\n".join(str(output.get("data", {}).get("text/plain", output.get("text"))) for output in notebook.cells[-1].outputs)
    assert "denied: refund needs approval, and nobody is there to answer" in words
    assert '%config AgentMagics.approval = "allow"' in words
    assert "I may not." in words


def test_parameters_of_papermill_fill_the_prompt(folder: Path) -> None:
    notebook = document("number = 1", "%%agent a --model {model}\nWhere is order {number}?")
    notebook.cells[1].metadata["tags"] = ["parameters"]
    with ModelServer(["There."]) as server:
        notebook.cells[2].source = notebook.cells[2].source.replace("{model}", server.model)
        nbformat.write(notebook, folder / "in.ipynb")
        execute_in(folder, {"number": 4821})
        assert server.requests[0]["messages"][-1]["content"] == "Where is order 4821?"


@pytest.fixture
def page(folder: Path) -> Path:
    """A notebook with one run, as HTML that needs no network."""
    with ModelServer([LOOK, ANSWER]) as server:
        notebook = with_nbclient(document(SUPPORT.format(model=server.model)), folder)
    exporter = HTMLExporter(mathjax_url="", require_js_url="")  # type: ignore[no-untyped-call]
    html, _ = exporter.from_notebook_node(notebook)  # type: ignore[no-untyped-call]
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    return path


def test_exported_html_shows_the_card(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert "It is two days late." in html
    assert html.count('<section class="agr agr-done') == 1
    assert "order_status" in html


def test_printed_page_holds_the_answer_and_the_usage(page: Path) -> None:
    pdf = page.with_suffix(".pdf")
    command = [str(chromium()), "--headless", *CHROMIUM_OPTIONS, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    text = text_of_pdf(pdf.read_bytes())
    assert "It is two days late." in text
    assert "done" in text and "2 model calls" in text


def text_of_pdf(pdf: bytes) -> str:
    """The text of a PDF as Chromium writes it: glyphs by number, and for each font a table of the characters they stand for."""
    objects = {int(n): body for n, body in re.findall(rb"(\d+) 0 obj\n(.*?)\nendobj", pdf, re.DOTALL)}
    fonts = {n: characters(stream(objects[int(found[1])])) for n, body in objects.items() if (found := re.search(rb"/ToUnicode (\d+) 0 R", body))}
    drawn = (stream(body) for body in objects.values() if b"stream" in body and b"/Type" not in body and b"/Length1" not in body)
    text, font = "", {}
    for name, glyphs in re.findall(r"/F(\d+) [\d.]+ Tf|<([0-9A-F]+)>(?=[^<>]*T[jJ])", "\n".join(drawn)):
        font = fonts.get(int(name), {}) if name else font
        text += "".join(font.get(int(glyphs[at : at + 4], 16), "") for at in range(0, len(glyphs), 4))
    return text


def stream(body: bytes) -> str:
    found = re.search(rb"stream\r?\n(.*)\r?\nendstream", body, re.DOTALL)
    return zlib.decompress(found[1]).decode("latin-1") if found and b"/FlateDecode" in body else ""


def characters(table: str) -> dict[int, str]:
    """What the glyphs of a font stand for."""
    known = {int(glyph, 16): text_of(text) for glyph, text in re.findall(r"^<(\w+)> <(\w+)>$", table, re.MULTILINE)}
    for first, last, text in re.findall(r"^<(\w+)> <(\w+)> <(\w+)>$", table, re.MULTILINE):
        known |= {glyph: chr(int(text, 16) + glyph - int(first, 16)) for glyph in range(int(first, 16), int(last, 16) + 1)}
    return known


def text_of(utf16: str) -> str:
    return bytes.fromhex(utf16).decode("utf-16-be")
