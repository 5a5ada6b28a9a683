"""Takes the pictures of the card that the documentation shows: `python -m tests.browser.screenshots [FOLDER]`.

They come from a real `%%agent` cell in JupyterLab. The provider is a server on loopback that answers like OpenRouter, at
the pace and price of one.
"""

import base64
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from agentroute import ToolCall
from tests.browser.lab import Lab, NotebookPage, Theme, running_lab
from tests.server import ModelServer, Raw

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDTH, HEIGHT = 1020, 1500
MODEL = "anthropic/claude-sonnet-4"

SETUP = """
%load_ext agentroute_ipython

import pathlib, time
config = pathlib.Path.home() / ".agentroute" / "config"
config.parent.mkdir(exist_ok=True)
config.write_text("api_key=of-the-demo\\nopenrouter_base_url={base_url}\\n")

def order_status(order_id: str) -> dict:
    "Where an order is."
    time.sleep(0.21)
    return {{"status": "shipped", "carrier": "DHL", "days_late": 2, "eta": "2026-11-24"}}

def refund(order_id: str, amount: float, reason: str) -> str:
    "Pays money back."
    time.sleep(0.09)
    return f"refunded {{amount:.2f}} USD to the card ending 1881"
"""
CELL = """%%agent support --model anthropic/claude-sonnet-4 --tools order_status,refund --max-cost 0.25
You are a concise, accurate support agent.
---
Where is order 4821? It was promised for Friday.
"""
ANSWER = (
    "Order 4821 left our warehouse on Tuesday with DHL and should reach you tomorrow, 24 November.\n\n"
    "Because it is two days late, I have refunded the $4.90 shipping fee to your card. "
    "You will see it within three to five days."
)


def paced(answer: str | ToolCall, *, first_s: float, whole_s: float, tokens: tuple[int, int], cost: float) -> Raw:
    """One streamed answer: the first piece after `first_s`, the last after `whole_s` seconds."""

    def pieces() -> Iterator[bytes]:
        deltas: list[dict[str, Any]] = (
            [{"content": answer[start : start + 4]} for start in range(0, len(answer), 4)]
            if isinstance(answer, str)
            else [{"tool_calls": [{"index": 0, **answer.to_wire()}]}]
        )
        usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "cost": cost}
        finish = "stop" if isinstance(answer, str) else "tool_calls"
        time.sleep(first_s)
        for delta in deltas:
            yield _event({"delta": delta, "finish_reason": None})
            time.sleep((whole_s - first_s) / len(deltas))
        yield _event({"delta": {}, "finish_reason": finish}, usage=usage)
        yield b"data: [DONE]\n\n"

    return Raw(body=pieces(), headers={"content-type": "text/event-stream"})  # type: ignore[arg-type]


def _event(choice: dict[str, Any], **more: Any) -> bytes:
    chunk = {
        "id": "gen-1",
        "object": "chat.completion.chunk",
        "model": MODEL,
        "choices": [{"index": 0, **choice}],
        **more,
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def story(pace: float = 1.0) -> list[Raw]:
    """The three answers of the run in the picture; `pace` 0 gives them at once."""
    look = ToolCall("call_1", "order_status", {"order_id": "4821"})
    pay = ToolCall("call_2", "refund", {"order_id": "4821", "amount": 4.9, "reason": "late delivery"})
    return [
        paced(look, first_s=0.9 * pace, whole_s=1.1 * pace, tokens=(412, 58), cost=0.002106),
        paced(pay, first_s=0.8 * pace, whole_s=1.0 * pace, tokens=(538, 71), cost=0.002679),
        paced(ANSWER, first_s=0.7 * pace, whole_s=2.2 * pace, tokens=(627, 74), cost=0.002991),
    ]


def run_card(lab: Lab, page_name: str, theme: Theme, folder: Path) -> None:
    """Runs the cell in one theme and saves `card-THEME.png`, and `card-running-THEME.png` while it streams."""
    with ModelServer(story()) as server:
        lab.write(page_name, [SETUP.format(base_url=server.base_url), CELL])
        with lab.open(page_name, theme) as page:
            page.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
            page.run_cell(0)
            page.run_cell(1, wait=False)
            expect(page.cell_output(1)).to_contain_text("Because it is two days")
            take(page, 1, folder / f"card-running-{theme}.png")
            page.wait_idle()
            expect(page.cell_output(1)).to_contain_text("done")
            page.cell_output(1).locator(".agr-run > summary").click()
            take(page, 1, folder / f"card-{theme}.png")


def take(page: NotebookPage, index: int, path: Path) -> None:
    """Saves a picture of a cell with two pixels for one, as sharp as on a good screen."""
    page.page.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }")
    page.page.mouse.move(0, 0)
    box = page.cell(index).bounding_box()
    assert box is not None
    clip = {"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"], "scale": 2}
    session = page.page.context.new_cdp_session(page.page)
    picture = session.send("Page.captureScreenshot", {"format": "png", "clip": clip})
    with Image.open(BytesIO(base64.b64decode(picture["data"]))) as image:
        image.convert("RGB").quantize(256).save(path, optimize=True)


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0]) if arguments else IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        sync_playwright() as playwright,
        running_lab(Path(home), playwright) as lab,
    ):
        for theme in ("light", "dark"):
            run_card(lab, f"{theme}.ipynb", theme, folder)
    for picture in sorted(folder.glob("card-*.png")):
        print(picture)


if __name__ == "__main__":
    main(sys.argv[1:])
