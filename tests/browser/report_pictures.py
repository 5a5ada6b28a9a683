"""Takes the pictures of the report that the documentation shows: `python -m tests.browser.report_pictures [FOLDER]`."""

import base64
import sys
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from tests.browser.lab import Lab, NotebookPage, Theme, running_lab
from tests.browser.screenshots import IMAGES

WIDTH, HEIGHT = 1200, 2600
# A month of a shop's support, the same each time; the clock of the report is the history's.
HISTORY = '''
import random
import tempfile
from datetime import UTC, datetime, timedelta
import agentroute
from agentroute import RunStore
from agentroute.cost_report import Report
from agentroute.records import RunRecord, ToolCallRecord, TurnRecord

NOW = datetime(2026, 11, 20, 16, 30, tzinfo=UTC)
MODELS = {"anthropic/claude-sonnet-4": (3, 15), "openai/gpt-5-mini": (0.25, 2), "google/gemini-3-flash": (0.3, 2.5), "local/qwen3": (0, 0)}
TOOLS = {"order_status": 0.02, "search_orders": 0.04, "lookup_customer": 0.01, "refund": 0.12}
dice = random.Random(7)
store = RunStore(tempfile.mkdtemp() + "/month.db")

def add(number):
    run_id, agent = f"r{number:05d}", dice.choices(["support", "triage", "research"], [6, 3, 1])[0]
    began = NOW - timedelta(days=28 * (1 - number / 600) ** 0.8)
    model = dice.choices(list(MODELS), [6, 3, 2, 1])[0]
    replayed, context, turns, calls = dice.random() < 0.12, dice.randrange(700, 1600), [], []
    count = min(9, 1 + int(dice.expovariate(0.55)))
    for index in range(1, count + 1):
        answer = int(dice.lognormvariate(5, 0.6))
        cost = (context * MODELS[model][0] + answer * MODELS[model][1]) / 1e6
        unknown = model.startswith("google") and dice.random() < 0.2
        turns.append(TurnRecord(
            run_id=run_id, turn_index=index, started_at=began + timedelta(seconds=3 * index), request_model=model, input_tokens=context, output_tokens=answer,
            cached_input_tokens=int(context * 0.45) if index > 1 else 0, reasoning_tokens=answer // 3,
            cost_usd=0.0 if replayed else None if unknown else cost, cost_saved_usd=cost if replayed else None, cost_source="unknown" if unknown else "provider",
        ))
        if index < count:
            tool = dice.choices(list(TOOLS), [4, 3, 2, 1])[0]
            status = "error" if dice.random() < TOOLS[tool] else "ok"
            calls.append(ToolCallRecord(run_id=run_id, turn_index=index, call_index=1, tool_name=tool, status=status, started_at=began))
        context += answer + dice.randrange(60, 500)
    known = [turn.cost_usd for turn in turns if turn.cost_usd is not None]
    store.save(RunRecord(
        run_id=run_id, started_at=began, duration_s=sum(1 + dice.random() * 4 for _ in turns), status="error" if dice.random() < 0.03 else "ok", agent_name=agent,
        request_model=model, n_turns=count, n_replayed=count if replayed else 0, cost_usd=sum(known) if known else None, unknown_cost_calls=count - len(known),
    ), turns=turns, tool_calls=calls)

for number in range(600):
    add(number)
'''
CELL = "Report(agentroute.runs(store), agentroute.turns(store), agentroute.tool_calls(store), now=NOW)"


def take(page: NotebookPage, path: Path) -> None:
    """Saves a picture of the report, in no more colours than it needs."""
    page.page.mouse.move(0, 0)
    box = page.cell_output(1).locator(".agr-report").bounding_box()
    assert box is not None
    clip = {"x": box["x"] - 8, "y": box["y"] - 8, "width": box["width"] + 16, "height": box["height"] + 16, "scale": 1}
    session = page.page.context.new_cdp_session(page.page)
    picture = session.send("Page.captureScreenshot", {"format": "png", "clip": clip})
    with Image.open(BytesIO(base64.b64decode(picture["data"]))) as image:
        image.convert("RGB").quantize(256).save(path, optimize=True)


def run_report(lab: Lab, name: str, theme: Theme, path: Path, width: int = WIDTH) -> None:
    (lab.notebooks / "month_of_runs.py").write_text(HISTORY)
    lab.write(name, ["from month_of_runs import *", CELL])
    with lab.open(name, theme) as page:
        page.page.set_viewport_size({"width": width, "height": HEIGHT})
        page.run_all()
        expect(page.cell_output(1).locator("thead button")).to_have_count(13)
        page.page.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }")
        take(page, path)


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0]) if arguments else IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright, running_lab(Path(home), playwright) as lab:
        for theme in ("light", "dark"):
            run_report(lab, f"{theme}.ipynb", theme, folder / f"report-{theme}.png")
            print(folder / f"report-{theme}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
