"""Takes the pictures that docs/notebook.md shows: `python -m tests.browser.screenshots [FOLDER] [NAME…]`.

They come from real cells in JupyterLab. The provider is a server on loopback that answers like OpenRouter, at the pace and
price of one. `card` is taken in both themes, all others are scenes of one notebook; NAMEs choose some of them.
"""

import base64
import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Locator, expect, sync_playwright

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


@dataclass
class Hold:
    """Where an answer stops for its picture: behind `text`, until `taken` is set."""

    text: str
    taken: threading.Event = field(default_factory=threading.Event)


def paced(
    answer: str | ToolCall, *, first_s: float, whole_s: float, tokens: tuple[int, int], cost: float, model: str = MODEL, hold: Hold | None = None
) -> Raw:
    """One streamed answer: the first piece after `first_s`, the last after `whole_s` seconds, and what it is held up."""

    def pieces() -> Iterator[bytes]:
        deltas: list[dict[str, Any]] = (
            [{"content": answer[start : start + 4]} for start in range(0, len(answer), 4)]
            if isinstance(answer, str)
            else [{"tool_calls": [{"index": 0, **answer.to_wire()}]}]
        )
        usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "cost": cost}
        finish = "stop" if isinstance(answer, str) else "tool_calls"
        time.sleep(first_s)
        for number, delta in enumerate(deltas):
            if hold is not None and hold.text in str(answer)[: 4 * number]:
                hold.taken.wait(60)
            yield _event(model, {"delta": delta, "finish_reason": None})
            time.sleep((whole_s - first_s) / len(deltas))
        yield _event(model, {"delta": {}, "finish_reason": finish}, usage=usage)
        yield b"data: [DONE]\n\n"

    return Raw(body=pieces(), headers={"content-type": "text/event-stream"})  # type: ignore[arg-type]


def _event(model: str, choice: dict[str, Any], **more: Any) -> bytes:
    chunk = {
        "id": "gen-1",
        "object": "chat.completion.chunk",
        "model": model,
        "choices": [{"index": 0, **choice}],
        **more,
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def story(pace: float = 1.0, hold: Hold | None = None) -> list[Raw]:
    """The three answers of the run in the picture; `pace` 0 gives them at once."""
    look = ToolCall("call_1", "order_status", {"order_id": "4821"})
    pay = ToolCall("call_2", "refund", {"order_id": "4821", "amount": 4.9, "reason": "late delivery"})
    return [
        paced(look, first_s=0.9 * pace, whole_s=1.1 * pace, tokens=(412, 58), cost=0.002106),
        paced(pay, first_s=0.8 * pace, whole_s=1.0 * pace, tokens=(538, 71), cost=0.002679),
        paced(ANSWER, first_s=0.7 * pace, whole_s=2.2 * pace, tokens=(627, 74), cost=0.002991, hold=hold),
    ]


def run_card(lab: Lab, page_name: str, theme: Theme, folder: Path) -> None:
    """Runs the cell in one theme and saves `card-THEME.png`, and `card-running-THEME.png` while it streams."""
    hold = Hold("$4.90 shipping fee to")
    with ModelServer(story(hold=hold)) as server:
        lab.write(page_name, [SETUP.format(base_url=server.base_url), CELL])
        with lab.open(page_name, theme) as page:
            page.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
            page.run_cell(0)
            page.run_cell(1, wait=False)
            expect(page.cell_output(1)).to_contain_text(hold.text)
            take(page, 1, folder / f"card-running-{theme}.png")
            hold.taken.set()
            page.wait_idle()
            expect(page.cell_output(1)).to_contain_text("done")
            page.cell_output(1).locator(".agr-run > summary").click()
            take(page, 1, folder / f"card-{theme}.png")


# ------------------------------------------------------------------------------------------------------------ scenes

SHOP = """
from agentroute import Agent, tool
import agentroute_ipython

def open_orders(customer: str) -> list:
    "The open orders of a customer."
    time.sleep(0.12)
    return [
        {{"order": 4821, "status": "shipped", "carrier": "DHL", "days_late": 2, "total_usd": 61.40}},
        {{"order": 4907, "status": "packed", "carrier": None, "days_late": 0, "total_usd": 18.00}},
        {{"order": 4911, "status": "waits for payment", "carrier": None, "days_late": 0, "total_usd": 240.99}},
    ]

@tool(needs_approval=True)
def pay_back(order_id: str, amount: float, reason: str) -> str:
    "Pays money back to the customer's card."
    return "paid back"

%agent budget 0.05
"""
# A made-up month, as most notebooks have none to show.
MONTH = """
import random
from datetime import UTC, datetime, timedelta
from agentroute import RunStore
from agentroute.records import RunRecord
dice, month = random.Random(4), RunStore("month.db")
ASKED = ["Where is order {}?", "Cancel order {}, please.", "I was charged twice for order {}.", "Which invoice is for order {}?", "Order {} came broken."]
PRICES = {"anthropic/claude-sonnet-4": 9e-6, "openai/gpt-4.1-mini": 0.9e-6, "google/gemini-2.5-flash": 1.4e-6}
for n in range(240):
    model, tokens = dice.choices(list(PRICES), [5, 3, 2])[0], dice.randrange(300, 2800)
    status = dice.choices(["ok", "error", "interrupted"], [40, 3, 1])[0]
    order = dice.randrange(4000, 5000)
    month.save(RunRecord(
        run_id=f"m{n:04}", started_at=datetime(2026, 11, 20, 16, tzinfo=UTC) - timedelta(minutes=170 * (240 - n)), duration_s=tokens / 400, status=status,
        agent_name=dice.choice(["support", "support", "triage"]), request_model=model, n_turns=1 + tokens // 900, n_tool_calls=tokens // 900,
        input_tokens=tokens, output_tokens=tokens // 6, cost_usd=tokens * PRICES[model], cost_source="provider",
        prompt_text=dice.choice(ASKED).format(order), output_text=f"Order {order} …", error_type="ErrorModelServer" if status == "error" else None,
    ))
"""
ORDERS = "Which orders of Ann Lee are open?"
LATE = "Write two sentences to a customer whose parcel is two days late."
BACK = "Pay the shipping of order 4821 back, 4.90 USD."
REPORT = "Write the report on last week's orders."

OPEN = (
    "Ann Lee has **three open orders**:\n\n"
    "1. **4821** is with DHL, two days late.\n2. **4907** is packed and leaves today.\n3. **4911** waits for her payment of $240.99."
)
WEEK = (
    "## Orders of last week\n\n1,204 orders came in, 7 % more than the week before. DHL was late with 31 of them, most in the north, "
    "where a storm closed two depots. The others came in time."
)
STORM = Hold("where a storm closed")
ANSWERS: dict[str, dict[str, list[str | ToolCall]]] = {
    ORDERS: {"": [ToolCall("call_1", "open_orders", {"customer": "Ann Lee"}), OPEN]},
    LATE: {
        "": ["We apologise for the delay of your parcel. It will reach you on Tuesday, 24 November."],
        "openai/gpt-4.1-mini": ["We are sorry for the delay of your parcel. It is on its way and will reach you by Tuesday."],
        "warmly": ["I am so sorry your parcel is late! It will reach you on Tuesday, 24 November, and the shipping is on us."],
    },
    BACK: {"": [ToolCall("call_1", "pay_back", {"order_id": "4821", "amount": 4.9, "reason": "two days late"}), "Done: $4.90 is on its way back to the card."]},
    REPORT: {"": [WEEK]},
}
"""By prompt, and by model or a word of the instructions where that matters: what is answered, turn after turn."""


def provider(body: dict[str, Any]) -> Raw:
    """Answers any request of the scenes."""
    spoken = [message["role"] for message in body["messages"]]
    last = len(spoken) - 1 - spoken[::-1].index("user")
    told = spoken[last:].count("tool")
    by = ANSWERS[body["messages"][last]["content"].strip()]
    said = f"{body['model']} {body['messages'][0]['content']}"
    answer = next(answers for word, answers in reversed(by.items()) if word in said)[told]
    is_small = "mini" in body["model"]
    tokens = (380 + 140 * told, len(str(answer)) // 4)
    cost = (tokens[0] * 3 + tokens[1] * 15) / 1e6 / (8 if is_small else 1)
    hold = STORM if answer is WEEK else None
    return paced(answer, first_s=0.3, whole_s=0.4 if is_small else 0.9, tokens=tokens, cost=cost, model=body["model"], hold=hold)


Take = Callable[..., None]


def button(page: NotebookPage, index: int, label: str) -> Locator:
    return page.cell_output(index).get_by_role("button", name=re.compile(f"^{label}"))


def scene_tool_call(page: NotebookPage, index: int, take: Take) -> None:
    page.run_cell(index)
    output = page.cell_output(index)
    output.locator(".agr-run > summary").click()
    output.locator(".agr-run td summary").last.click()
    take()


def scene_comparison(page: NotebookPage, index: int, take: Take) -> None:
    page.run_cell(index)
    page.cell_output(index).locator("summary", has_text="what differs from").click()
    take()


def scene_approval(page: NotebookPage, index: int, take: Take) -> None:
    page.run_cell(index, wait=False)
    expect(button(page, index, "Approve")).to_be_visible()
    page.page.wait_for_timeout(400)
    take()
    button(page, index, "Approve").click()
    page.wait_idle()


def scene_background(page: NotebookPage, index: int, take: Take) -> None:
    page.run_cell(index)
    expect(page.cell_output(index)).to_contain_text(STORM.text)
    expect(button(page, index, "Stop support")).to_be_visible()
    take()
    button(page, index, "Stop support").click()
    expect(page.cell_output(index)).to_contain_text("interrupted")


def scene_diff(page: NotebookPage, index: int, take: Take) -> None:
    page.run_cell(index - 2)
    page.run_cell(index - 1)
    page.run_cell(index)
    take()


def scene_usage(page: NotebookPage, index: int, take: Take) -> None:
    page.run_cell(index)
    take()


def scene_history(page: NotebookPage, index: int, take: Take) -> None:
    page.run_cell(index - 1)
    page.run_cell(index)
    live = page.cell_output(index).locator(".agr-live")
    live.get_by_label("Agent", exact=True).select_option("triage")
    live.get_by_role("button", name="Cost", exact=True).click()
    expect(live.locator("th[aria-sort=descending]")).to_contain_text("Cost")
    live.get_by_role("button", name="Good answer").nth(1).click()
    boxes = live.locator("tbody input[type=checkbox]")
    boxes.nth(0).check()
    boxes.nth(2).click(modifiers=["Shift"])
    expect(live).to_contain_text("3 selected")
    take()


def scene_edit(page: NotebookPage, index: int, take: Take) -> None:
    page.run_cell(index)
    model = page.cell_output(index).locator(".agr-form [name='model']")
    expect(model).to_have_value(MODEL)
    take()


def scene_completion(page: NotebookPage, index: int, take: Take) -> None:
    editor = page.cell(index).locator(".cm-content")
    editor.click()
    page.page.keyboard.press("Control+End")
    page.page.keyboard.press("Tab")
    popup = page.page.locator(".jp-Completer:visible")
    expect(popup).to_contain_text("anthropic/claude-sonnet-4")
    take(popup)
    page.page.keyboard.press("Escape")


def scene_untrusted(page: NotebookPage, index: int, take: Take) -> None:
    page.reopen_untrusted()
    page.cell_output(index).locator("summary", has_text="model calls").click()
    take()


Scene = Callable[[NotebookPage, int, Take], None]
SCENES: list[tuple[str, list[str], Scene]] = [
    ("tool-call", [f"%%agent support --model {MODEL} --tools open_orders,order_status --max-cost 0.25\nYou are a concise, accurate support agent.\n---\n{ORDERS}"], scene_tool_call),
    ("comparison", [f"%%agent support --models {MODEL},openai/gpt-4.1-mini\n{LATE}"], scene_comparison),
    ("approval", [f"%%agent support --tools pay_back\n{BACK}"], scene_approval),
    ("background", [f"%%agent support --background --as report\n{REPORT}"], scene_background),
    ("diff", [f"%%agent letters --model {MODEL}\nYou write for Acme, formally.\n---\n{LATE}", f"%%agent letters\nYou write for Acme, warmly.\n---\n{LATE}", "%agent diff"], scene_diff),
    ("usage", ["agentroute_ipython.usage()"], scene_usage),
    ("history", [MONTH, "view = agentroute_ipython.history(month)\nview"], scene_history),
    ("edit", ["%agent edit support"], scene_edit),
    ("completion", ["%agent support --model claude-sonnet"], scene_completion),
    ("untrusted", [], scene_untrusted),
]  # fmt: skip
"""What is pictured: the cells it needs, the last of which is pictured, and what is done there. Without cells, it is the first scene's."""


def run_scenes(lab: Lab, names: Sequence[str], folder: Path) -> None:
    """Plays the scenes in one notebook, in their order, and takes a picture of each that is named."""
    with ModelServer([provider], repeat=True) as server:
        setup = (SETUP + SHOP).format(base_url=server.base_url)
        cells, places = [setup], {}
        for name, sources, _ in SCENES:
            cells += sources
            places[name] = len(cells) - 1 if sources else 1
        lab.write("scenes.ipynb", cells)
        with lab.open("scenes.ipynb", "light") as page:
            page.page.set_viewport_size({"width": WIDTH, "height": 4 * HEIGHT})  # all cells at once
            page.run_cell(0)
            for name, _, scene in SCENES:
                if name in names or name == "tool-call":

                    def take_it(more: Locator | None = None, name: str = name) -> None:
                        if name in names:
                            take(page, places[name], folder / f"{name}.png", more)

                    scene(page, places[name], take_it)


def take(page: NotebookPage, index: int, path: Path, more: Locator | None = None) -> None:
    """Saves a picture of a cell, and of `more` where that stands over it, with two pixels for one, as sharp as on a good screen."""
    if more is None:
        page.page.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }")
        page.page.mouse.move(0, 0)
    box = page.cell(index).bounding_box()
    assert box is not None
    clip = {"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"], "scale": 2}
    if more is not None and (over := more.bounding_box()):
        clip["height"] = max(clip["height"], over["y"] + over["height"] + 8 - clip["y"])
    session = page.page.context.new_cdp_session(page.page)
    picture = session.send("Page.captureScreenshot", {"format": "png", "clip": clip})
    with Image.open(BytesIO(base64.b64decode(picture["data"]))) as image:
        image.convert("RGB").quantize(256).save(path, optimize=True)


def main(arguments: Sequence[str]) -> None:
    known = ["card", *(name for name, _, _ in SCENES)]
    names = [argument for argument in arguments if argument in known] or known
    folder = next((Path(argument) for argument in arguments if argument not in known), IMAGES)
    folder.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=30_000)
    with (
        tempfile.TemporaryDirectory() as home,
        sync_playwright() as playwright,
        running_lab(Path(home), playwright) as lab,
    ):
        for theme in ("light", "dark") if "card" in names else ():
            run_card(lab, f"{theme}.ipynb", theme, folder)
        if set(names) - {"card"}:
            run_scenes(lab, names, folder)
    for picture in sorted(folder.glob("*.png")):
        print(picture, picture.stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1:])
